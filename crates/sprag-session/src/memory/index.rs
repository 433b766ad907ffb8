//! What the search index keeps of records, in rows of the store, and what it does not know of yet ("Memories", *Search*).

use std::ops::ControlFlow;

use sprag_store::{MAX_ROW, Rows, Staged, StoreError};
use zeroize::Zeroizing;

use super::records::{RecordTag, load_entry};
use super::space::{RecordId, Space};
use super::{Entry, LogError, RecordState};
use crate::error::StepError;
use crate::own::Device;
use crate::tables;

/// What the search index may keep of one record, in bytes.
pub const MAX_INDEX: usize = 64 << 10;

/// A record that changed: its tag, and what the log says of it; `None` if it cannot be read any more.
pub type Changed = (RecordTag, Option<(RecordId, Entry)>);

/// What the search index knows of a record is forgotten.
pub(super) fn unindex(
    rows: &mut Staged<'_>,
    space: u32,
    record: &RecordTag,
) -> Result<(), StoreError> {
    rows.delete(tables::unindexed(space, record));
    rows.delete_below(&tables::index_row(space, record))
}

/// Keeps what the search index says of a record, in place of what it said.
pub(super) fn index(
    rows: &mut Staged<'_>,
    space: u32,
    record: &RecordTag,
    bytes: &[u8],
) -> Result<(), StepError> {
    if bytes.is_empty() || bytes.len() > MAX_INDEX {
        return Err(LogError::BadInput.into());
    }
    unindex(rows, space, record)?;
    let first = tables::index_row(space, record);
    for (number, chunk) in (0u8..).zip(bytes.chunks(MAX_ROW)) {
        rows.put(first.join(&[number]), Zeroizing::new(chunk.to_vec()));
    }
    Ok(())
}

impl Device {
    /// Keeps what the search index says of a record, if that revision is the newest. Says whether it was. It goes with
    /// the record.
    ///
    /// # Errors
    /// `Log(BadInput)`: nothing, or more than 64 KiB. What the store answers.
    pub fn memory_index_put(
        &self,
        rows: &mut Staged<'_>,
        space: &Space,
        id: &RecordId,
        revision: u64,
        bytes: &[u8],
    ) -> Result<bool, StepError> {
        let Some((row, name)) = self.find_space(rows, space)? else {
            return Ok(false);
        };
        let record = self.names_key(rows)?.record(&name, id);
        let entry = load_entry(rows, row.number, &record)?.map(|(_, entry)| entry);
        let live = |entry: &Entry| {
            entry.revision == revision && matches!(entry.state, RecordState::Live { .. })
        };
        if !entry.as_ref().is_some_and(live) {
            return Ok(false);
        }
        index(rows, row.number, &record, bytes)?;
        Ok(true)
    }

    /// Everything that the search index keeps of a space.
    ///
    /// # Errors
    /// What the store answers.
    pub fn memory_index(
        &self,
        rows: &dyn Rows,
        space: &Space,
        visit: &mut dyn FnMut(&RecordTag, &[u8]) -> ControlFlow<()>,
    ) -> Result<(), StepError> {
        let Some((row, _)) = self.find_space(rows, space)? else {
            return Ok(());
        };
        let mut gathered: Option<(RecordTag, Zeroizing<Vec<u8>>)> = None;
        let mut flow = ControlFlow::Continue(());
        rows.scan(&tables::index_row(row.number, &[]), &mut |suffix, value| {
            let Some((record, [number])) = suffix.split_first_chunk::<16>() else {
                return ControlFlow::Continue(());
            };
            match &mut gathered {
                Some((before, bytes)) if before == record && *number > 0 => {
                    bytes.extend_from_slice(value);
                }
                _ => {
                    if let Some((before, bytes)) = gathered.take() {
                        flow = visit(&before, &bytes);
                    }
                    gathered = Some((*record, Zeroizing::new(value.to_vec())));
                }
            }
            flow
        })?;
        if flow.is_continue()
            && let Some((record, bytes)) = gathered
        {
            let _ = visit(&record, &bytes);
        }
        Ok(())
    }

    /// What the search index keeps of one record.
    ///
    /// # Errors
    /// What the store answers.
    pub fn memory_index_of(
        &self,
        rows: &dyn Rows,
        space: &Space,
        record: &RecordTag,
    ) -> Result<Option<Zeroizing<Vec<u8>>>, StepError> {
        let mut found = None;
        let tags = std::slice::from_ref(record);
        self.memory_index_of_each(rows, space, tags, &mut |_, bytes| found = Some(bytes))?;
        Ok(found)
    }

    /// The same of several records; those of which nothing is kept are left out.
    ///
    /// # Errors
    /// What the store answers.
    pub fn memory_index_of_each(
        &self,
        rows: &dyn Rows,
        space: &Space,
        records: &[RecordTag],
        visit: &mut dyn FnMut(&RecordTag, Zeroizing<Vec<u8>>),
    ) -> Result<(), StepError> {
        let Some((row, _)) = self.find_space(rows, space)? else {
            return Ok(());
        };
        for record in records {
            let first = tables::index_row(row.number, record);
            let mut bytes = Zeroizing::new(Vec::new());
            for number in 0..=u8::MAX {
                let Some(chunk) = rows.get(&first.join(&[number]))? else {
                    break;
                };
                bytes.extend_from_slice(&chunk);
                if chunk.len() < MAX_ROW {
                    break;
                }
            }
            if !bytes.is_empty() {
                visit(record, bytes);
            }
        }
        Ok(())
    }

    /// Which record a tag names, and what the log says of it.
    ///
    /// # Errors
    /// What the store answers.
    pub fn memory_of_tag(
        &self,
        rows: &dyn Rows,
        space: &Space,
        record: &RecordTag,
    ) -> Result<Option<(RecordId, Entry)>, StepError> {
        let Some((row, _)) = self.find_space(rows, space)? else {
            return Ok(None);
        };
        Ok(load_entry(rows, row.number, record)?)
    }

    /// Records that changed and of which the index does not know: what the log says of them now; `None` if they cannot be
    /// read any more. At most `limit`.
    ///
    /// # Errors
    /// What the store answers.
    pub fn memory_changed(
        &self,
        rows: &dyn Rows,
        space: &Space,
        limit: usize,
    ) -> Result<Vec<Changed>, StepError> {
        let Some((row, _)) = self.find_space(rows, space)? else {
            return Ok(Vec::new());
        };
        let mut tags: Vec<RecordTag> = Vec::new();
        rows.scan(&tables::unindexed(row.number, &[]), &mut |suffix, _| {
            if tags.len() >= limit {
                return ControlFlow::Break(());
            }
            tags.extend(<RecordTag>::try_from(suffix));
            ControlFlow::Continue(())
        })?;
        let mut changed = Vec::new();
        for tag in tags {
            let entry = load_entry(rows, row.number, &tag)?;
            let live = entry.filter(|(_, entry)| matches!(entry.state, RecordState::Live { .. }));
            changed.push((tag, live));
        }
        Ok(changed)
    }

    /// The index knows of a change: it is not told again. (A write of index rows says so by itself.)
    ///
    /// # Errors
    /// What the store answers.
    pub fn memory_index_taken(
        &self,
        rows: &mut Staged<'_>,
        space: &Space,
        record: &RecordTag,
    ) -> Result<(), StepError> {
        if let Some((row, _)) = self.find_space(rows, space)? {
            rows.delete(tables::unindexed(row.number, record));
        }
        Ok(())
    }
}
