//! Records as a device writes and reads them ("Memories"): rows now, the server's heads later.

use std::ops::ControlFlow;

use sprag_store::{Rows, Staged, StoreError};
use zeroize::Zeroizing;

use super::blobs::{self, Use, Work};
use super::index::{index, unindex};
use super::keys::ObjectName;
use super::log::{Merged, judge};
use super::lost::forget_lost;
use super::space::{RecordId, Space};
use super::spaces::{SpaceRow, mark_busy};
use super::unpublished::Unpublished;
use super::{Entry, LogError, RecordState};
use crate::codec::{Reader, Writer};
use crate::error::StepError;
use crate::own::{Device, Env};
use crate::{tables, upkeep};

/// Records of a space, tombstones among them.
pub const MAX_RECORDS: u32 = 1_000_000;

const VERSION: u8 = 1;

/// Names a record in the rows of its space: 16 bytes that say nothing.
pub type RecordTag = [u8; 16];

/// What a write of a record brings.
#[derive(Clone)]
#[non_exhaustive]
pub struct Draft<'a> {
    /// The revision, as [`Device::memory_next`] gave it: the blob is bound to it.
    pub revision: u64,
    /// The key that the blob is sealed under: 32 random bytes, of this revision alone. **Secret.**
    pub key: Zeroizing<[u8; 32]>,
    /// SHA-256 of the blob.
    pub blob: [u8; 32],
    /// Size of the blob, in bytes.
    pub size: u64,
    /// Who writes, as the application says; empty: nobody in particular.
    pub agent: &'a str,
    /// The blob itself, if it is kept in rows and at the server; else the application keeps it.
    pub hold: Option<&'a [u8]>,
    /// What the search index keeps of the record.
    pub index: Option<&'a [u8]>,
}

impl<'a> Draft<'a> {
    /// A write of a blob that the application keeps.
    #[must_use]
    pub fn new(revision: u64, key: &[u8; 32], blob: [u8; 32], size: u64, agent: &'a str) -> Self {
        Self {
            revision,
            key: Zeroizing::new(*key),
            blob,
            size,
            agent,
            hold: None,
            index: None,
        }
    }
}

impl std::fmt::Debug for Draft<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Draft").finish_non_exhaustive()
    }
}

/// How a record stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Standing {
    /// Nobody wrote it.
    Absent,
    /// It can be read.
    Live,
    /// It was deleted.
    Deleted,
    /// It was erased; keys that open it may still be somewhere.
    ErasePending,
    /// It was erased, and no listed device holds anything any more that opens it.
    Erased,
}

/// An entry as it stands in a row.
pub(super) fn read_row(bytes: &[u8]) -> Result<(RecordId, Entry), StoreError> {
    let mut reader = Reader::new(bytes, VERSION, "log entry")?;
    let damaged = |_: LogError| StoreError::Damaged("log entry");
    let id = RecordId::any(reader.block()?).map_err(damaged)?;
    let entry = Entry::read(&mut reader).map_err(damaged)?;
    reader.finish()?;
    Ok((id, entry))
}

pub(super) fn row_of(id: &RecordId, entry: &Entry) -> Zeroizing<Vec<u8>> {
    let size = id.as_bytes().len() + entry.agent.len() + 110;
    let mut writer = Writer::new(VERSION, size);
    writer.block(id.as_bytes());
    entry.write(&mut writer);
    writer.finish()
}

pub(super) fn load_entry(
    rows: &dyn Rows,
    space: u32,
    record: &[u8],
) -> Result<Option<(RecordId, Entry)>, StoreError> {
    let bytes = rows.get(&tables::log_entry(space, record))?;
    bytes.map(|bytes| read_row(&bytes)).transpose()
}

/// All blobs of a record that are held here, or on their way, are given up.
pub(super) fn release_blob(rows: &mut Staged<'_>, state: &RecordState) -> Result<(), StoreError> {
    if let RecordState::Live { blob, .. } = state {
        blobs::unwant(rows, Work::Get, blob)?;
        blobs::forget_missing(rows, blob);
        blobs::release(rows, blob)?;
    }
    Ok(())
}

/// What may be done with a blob that is not the newest of its record, once the server has a head that says so.
pub(super) fn drop_later(rows: &mut Staged<'_>, space: u32, state: &RecordState) {
    if let RecordState::Live {
        blob,
        at_server: true,
        ..
    } = state
    {
        rows.put(tables::drop_later(space, blob), Zeroizing::new(vec![1]));
    }
}

impl Device {
    /// The revision that a write of a record would get.
    ///
    /// # Errors
    /// `Log(Erased)`: the record was erased, and never comes back. `Log(TooLarge)`: its revisions are used up.
    /// What the store answers.
    pub fn memory_next(
        &self,
        rows: &dyn Rows,
        space: &Space,
        id: &RecordId,
    ) -> Result<u64, StepError> {
        match self.memory_entry(rows, space, id)? {
            None => Ok(1),
            Some(entry) if entry.state.is_erased() => Err(LogError::Erased.into()),
            Some(entry) => Ok(entry.revision.checked_add(1).ok_or(LogError::TooLarge)?),
        }
    }

    /// Writes a record: its key enters the log of the space, which goes to the server as soon as tasks are done.
    ///
    /// # Errors
    /// `Log(BadInput)`: the revision is not the next one, the agent is longer than 255 bytes, what is to be held is not
    /// the blob, or the index gets nothing or more than 64 KiB. `Log(Erased)`. `Log(TooLarge)`: the space has a million
    /// records. `NotLinked`: this device has no keys yet. What the store answers. Nothing is changed then.
    pub fn memory_put(
        &mut self,
        rows: &mut Staged<'_>,
        env: &mut Env<'_>,
        space: &Space,
        id: &RecordId,
        draft: &Draft<'_>,
    ) -> Result<Entry, StepError> {
        if self.memory_next(rows, space, id)? != draft.revision {
            return Err(LogError::BadInput.into());
        }
        if let Some(bytes) = draft.hold
            && (sprag_crypto::sha256(&[bytes]) != draft.blob || bytes.len() > blobs::MAX_BLOB)
        {
            return Err(LogError::BadInput.into());
        }
        let state = RecordState::live(*draft.key, draft.blob, draft.size, draft.hold.is_some());
        let device = self.address.device().get();
        let entry = Entry::new(draft.revision, device, env.now, draft.agent, state)?;
        let (mut row, name) = self.open_space(rows, env, space)?;
        let record = self.names_key(rows)?.record(&name, id);
        self.write_entry(rows, &mut row, &name, id, &entry)?;
        if let Some(bytes) = draft.hold {
            let used = Use::Record(row.number, record);
            blobs::hold(rows, &draft.blob, used, bytes)?;
            blobs::want(rows, Work::Put, &draft.blob, used)?;
        }
        match draft.index {
            Some(bytes) => index(rows, row.number, &record, bytes)?,
            None => rows.put(
                tables::unindexed(row.number, &record),
                Zeroizing::new(vec![1]),
            ),
        }
        Ok(entry)
    }

    /// Puts an entry into the log as this device's own: in place of the one before, and of what hangs on that.
    pub(super) fn write_entry(
        &self,
        rows: &mut Staged<'_>,
        row: &mut SpaceRow,
        name: &ObjectName,
        id: &RecordId,
        entry: &Entry,
    ) -> Result<(), StepError> {
        let record = self.names_key(rows)?.record(name, id);
        let before = load_entry(rows, row.number, &record)?.map(|(_, entry)| entry.revision);
        // What other devices wrote is taken also beyond that.
        if before.is_none() && row.records >= MAX_RECORDS {
            return Err(LogError::TooLarge.into());
        }
        let written = Unpublished::load(rows, row.number, &record)?;
        let base = written.map_or(before.unwrap_or(0), |written| written.base);
        self.replace_entry(rows, row, &record, id, entry, false)?;
        let written = Unpublished {
            in_flight: false,
            base,
        };
        written.save(rows, row.number, &record);
        mark_busy(rows, row.number);
        Ok(())
    }

    fn replace_entry(
        &self,
        rows: &mut Staged<'_>,
        row: &mut SpaceRow,
        record: &RecordTag,
        id: &RecordId,
        entry: &Entry,
        keep_blob: bool,
    ) -> Result<(), StepError> {
        match load_entry(rows, row.number, record)? {
            None => {
                row.records = row.records.saturating_add(1);
                row.save(rows);
            }
            Some(_) if keep_blob => {}
            Some((_, before)) => {
                release_blob(rows, &before.state)?;
                drop_later(rows, row.number, &before.state);
            }
        }
        unindex(rows, row.number, record)?;
        rows.put(tables::log_entry(row.number, record), row_of(id, entry));
        if entry.state.is_erased() {
            forget_lost(rows, row.number, record)?;
            rows.put(tables::erase(row.number, record), Zeroizing::new(vec![1]));
        }
        if entry.state.is_erased() || entry.state == RecordState::Deleted {
            // What the index said of it is not to stay on the disk for longer than until the next upkeep.
            upkeep::want_renewal(rows)?;
        }
        Ok(())
    }

    /// Merges what the log of another device says of a record.
    pub(super) fn merge_entry(
        &self,
        rows: &mut Staged<'_>,
        row: &mut SpaceRow,
        record: &RecordTag,
        id: &RecordId,
        entry: &Entry,
    ) -> Result<(), StepError> {
        let known = load_entry(rows, row.number, record)?.map(|(_, entry)| entry);
        // What another device wrote above what was known when ours was written, it wrote without knowing of ours.
        let unknown = Unpublished::load(rows, row.number, record)?
            .is_some_and(|written| entry.revision > written.base);
        match judge(known.as_ref(), entry) {
            Merged::Same => {}
            Merged::Older => {
                let ours = entry.device == self.address.device().get();
                let erased = known.is_some_and(|known| known.state.is_erased());
                if unknown && !ours && !erased {
                    self.tell_lost(rows, row, record, id, entry)?;
                }
            }
            Merged::Lost => self.tell_lost(rows, row, record, id, entry)?,
            merged @ (Merged::New | Merged::Newer(_) | Merged::Won(_)) => {
                let lost = match &merged {
                    Merged::Won(before) => Some(before),
                    Merged::Newer(before) if unknown => Some(before),
                    _ => None,
                };
                // What an erase wins over is told, and not kept.
                let keep_blob = lost.is_some() && !entry.state.is_erased();
                if let Some(before) = lost {
                    self.tell_lost(rows, row, record, id, before)?;
                }
                self.replace_entry(rows, row, record, id, entry, keep_blob)?;
                // What was to be published of it is not what counts.
                rows.delete(tables::unpublished(row.number, record));
                let number = row.number;
                rows.put(tables::unindexed(number, record), Zeroizing::new(vec![1]));
                if let RecordState::Live {
                    blob,
                    at_server: true,
                    ..
                } = &entry.state
                    && !blobs::is_held(rows, blob)?
                {
                    blobs::want(rows, Work::Get, blob, Use::Record(number, *record))?;
                }
            }
        }
        Ok(())
    }

    /// What the log says of a record, whatever became of it.
    ///
    /// # Errors
    /// What the store answers.
    pub fn memory_entry(
        &self,
        rows: &dyn Rows,
        space: &Space,
        id: &RecordId,
    ) -> Result<Option<Entry>, StepError> {
        let Some((row, name)) = self.find_space(rows, space)? else {
            return Ok(None);
        };
        let record = self.names_key(rows)?.record(&name, id);
        Ok(load_entry(rows, row.number, &record)?.map(|(_, entry)| entry))
    }

    /// The tag by which rows name a record. `None` if nobody ever used its space here.
    ///
    /// # Errors
    /// What the store answers.
    pub fn memory_tag(
        &self,
        rows: &dyn Rows,
        space: &Space,
        id: &RecordId,
    ) -> Result<Option<RecordTag>, StepError> {
        let Some((_, name)) = self.find_space(rows, space)? else {
            return Ok(None);
        };
        Ok(Some(self.names_key(rows)?.record(&name, id)))
    }

    /// Deletes a record: a tombstone takes its place, its index rows and held blob go in the same step. Says whether
    /// there was one.
    ///
    /// # Errors
    /// `Log(TooLarge)`: its revisions are used up. What the store answers. Nothing is changed then.
    pub fn memory_delete(
        &mut self,
        rows: &mut Staged<'_>,
        env: &mut Env<'_>,
        space: &Space,
        id: &RecordId,
    ) -> Result<bool, StepError> {
        let Some(before) = self.memory_entry(rows, space, id)? else {
            return Ok(false);
        };
        if !matches!(before.state, RecordState::Live { .. }) {
            return Ok(false);
        }
        let revision = before.revision.checked_add(1).ok_or(LogError::TooLarge)?;
        let device = self.address.device().get();
        let entry = Entry::new(revision, device, env.now, "", RecordState::Deleted)?;
        let (mut row, name) = self.open_space(rows, env, space)?;
        self.write_entry(rows, &mut row, &name, id, &entry)?;
        Ok(true)
    }

    /// Erases records, deleted ones too: as [`memory_delete`](Self::memory_delete), for good. They are *erase pending*
    /// until all spaces are sealed under a newer generation and no listed device holds an older one. Says how many there
    /// were.
    ///
    /// # Errors
    /// What the store answers. Nothing is changed then.
    pub fn memory_erase(
        &mut self,
        rows: &mut Staged<'_>,
        env: &mut Env<'_>,
        space: &Space,
        ids: &[RecordId],
    ) -> Result<usize, StepError> {
        let under = self.writing_generation(rows)?;
        let under = under.map_or((0, 0), |one| (one.epoch, one.number));
        let device = self.address.device().get();
        let mut count = 0;
        for id in ids {
            let Some(before) = self.memory_entry(rows, space, id)? else {
                continue;
            };
            if before.state.is_erased() {
                continue;
            }
            let revision = before.revision.saturating_add(1);
            let state = RecordState::erased(under);
            let entry = Entry::new(revision, device, env.now, "", state)?;
            let (mut row, name) = self.open_space(rows, env, space)?;
            self.write_entry(rows, &mut row, &name, id, &entry)?;
            count += 1;
        }
        Ok(count)
    }

    /// Erases all records of a space.
    ///
    /// # Errors
    /// What the store answers. Nothing is changed then.
    pub fn memory_erase_space(
        &mut self,
        rows: &mut Staged<'_>,
        env: &mut Env<'_>,
        space: &Space,
    ) -> Result<usize, StepError> {
        let mut ids = Vec::new();
        self.memory_records(rows, space, &mut |id, entry| {
            if !entry.state.is_erased() {
                ids.push(id.clone());
            }
            ControlFlow::Continue(())
        })?;
        self.memory_erase(rows, env, space, &ids)
    }

    /// How a record stands.
    ///
    /// # Errors
    /// What the store answers.
    pub fn memory_standing(
        &self,
        rows: &dyn Rows,
        space: &Space,
        id: &RecordId,
    ) -> Result<Standing, StepError> {
        let Some((row, name)) = self.find_space(rows, space)? else {
            return Ok(Standing::Absent);
        };
        let record = self.names_key(rows)?.record(&name, id);
        let entry = load_entry(rows, row.number, &record)?;
        Ok(match entry.map(|(_, entry)| entry.state) {
            None => Standing::Absent,
            Some(RecordState::Deleted) => Standing::Deleted,
            Some(RecordState::Erased { .. }) => {
                if rows.get(&tables::erase(row.number, &record))?.is_some() {
                    Standing::ErasePending
                } else {
                    Standing::Erased
                }
            }
            Some(_) => Standing::Live,
        })
    }

    /// All entries of a space's log, tombstones among them, in no order that means anything.
    ///
    /// # Errors
    /// What the store answers.
    pub fn memory_records(
        &self,
        rows: &dyn Rows,
        space: &Space,
        visit: &mut dyn FnMut(&RecordId, &Entry) -> ControlFlow<()>,
    ) -> Result<(), StepError> {
        let Some((row, _)) = self.find_space(rows, space)? else {
            return Ok(());
        };
        let mut failed = Ok(());
        rows.scan(
            &tables::log_entry(row.number, &[]),
            &mut |_, value| match read_row(value) {
                Ok((id, entry)) => visit(&id, &entry),
                Err(error) => {
                    failed = Err(error);
                    ControlFlow::Break(())
                }
            },
        )?;
        Ok(failed?)
    }
}
