//! What the verbs do under the lock of the client: rows in, changes out.

use std::ops::ControlFlow;

use rand_core::CryptoRng;
use sprag_session::memory::{Draft, Entry, RecordId, RecordState, Space};
use sprag_store::Rows;
use zeroize::Zeroizing;

use super::blob::{self, Newest, RecordKey, SealedRecord};
use super::fault::{Fault, InvalidRecord};
use super::index::{Indexes, Tag};
use super::{Chat, Memory, Provenance};
use crate::Error;
use crate::client::Step;

/// When a write is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rule {
    /// Whatever there is, unless it was erased.
    Any,
    /// There is no such record.
    New,
    /// There is one, of this revision and device if one was seen.
    Update(Option<(u64, u32)>),
}

/// A record that is ready to be sealed.
pub(super) struct Prepared {
    pub(super) id: RecordId,
    pub(super) plaintext: Zeroizing<Vec<u8>>,
    pub(super) row: Zeroizing<Vec<u8>>,
}

/// The name of a record.
pub(super) fn record_id(id: &str) -> Result<RecordId, Error> {
    super::record::check_id(id)?;
    RecordId::new(id).map_err(|_| InvalidRecord::Id.into())
}

/// The revision that a write gets, if it may be.
pub(super) fn admit(
    step: &Step<'_, '_>,
    space: &Space,
    id: &RecordId,
    rule: Rule,
) -> Result<u64, Error> {
    let entry = step.device.memory_entry(step.rows, space, id)?;
    let fault = match (entry.as_ref().map(|entry| (&entry.state, entry)), rule) {
        (Some((RecordState::Erased { .. }, _)), _) => Some(Fault::Erased),
        (Some((RecordState::Live { .. }, _)), Rule::New) => Some(Fault::Exists),
        (Some((RecordState::Live { .. }, entry)), Rule::Update(Some(seen)))
            if (entry.revision, entry.device) != seen =>
        {
            Some(Fault::Conflict)
        }
        (Some((RecordState::Live { .. }, _)), _) => None,
        (Some(_), Rule::Update(_)) => Some(Fault::Deleted),
        (None, Rule::Update(_)) => Some(Fault::NoRecord),
        _ => None,
    };
    match fault {
        Some(fault) => Err(fault.into()),
        None => Ok(step.device.memory_next(step.rows, space, id)?),
    }
}

/// A record sealed for its next revision.
pub(super) fn seal(
    step: &mut Step<'_, '_>,
    space: &Space,
    prepared: &Prepared,
    rule: Rule,
) -> Result<SealedRecord, Error> {
    let revision = admit(step, space, &prepared.id, rule)?;
    let rng: &mut dyn CryptoRng = step.env.rng();
    blob::seal_record(space, &prepared.id, revision, &prepared.plaintext, rng)
}

/// Puts a sealed record into the log and the index.
pub(super) fn log(
    step: &mut Step<'_, '_>,
    space: &Space,
    indexes: &Indexes,
    prepared: &Prepared,
    sealed: &SealedRecord,
    author: &str,
    hold: bool,
) -> Result<(), Error> {
    let size = u64::try_from(sealed.blob.len()).unwrap_or(u64::MAX);
    let mut draft = Draft::new(sealed.revision, &sealed.key, sealed.name, size, author);
    draft.hold = hold.then_some(&sealed.blob);
    draft.index = Some(&prepared.row);
    step.device
        .memory_put(step.rows, &mut step.env, space, &prepared.id, &draft)?;
    if let Some(tag) = step.device.memory_tag(step.rows, space, &prepared.id)? {
        indexes.shelf(space).put(tag, &prepared.row);
    }
    Ok(())
}

/// The hash of a blob that the application keeps.
pub(super) fn kept_elsewhere(entry: &Entry) -> Option<[u8; 32]> {
    match &entry.state {
        RecordState::Live {
            blob,
            at_server: false,
            ..
        } => Some(*blob),
        _ => None,
    }
}

/// What opens the newest revision of a record, and where it comes from.
pub(super) struct Opening {
    pub(super) id: RecordId,
    pub(super) key: RecordKey,
    pub(super) name: [u8; 32],
    pub(super) at_server: bool,
    pub(super) provenance: Provenance,
}

impl Opening {
    pub(super) fn of(id: RecordId, entry: &Entry) -> Result<Self, Fault> {
        match &entry.state {
            RecordState::Live {
                key,
                blob,
                at_server,
                ..
            } => Ok(Self {
                id,
                key: key.clone(),
                name: *blob,
                at_server: *at_server,
                provenance: Provenance {
                    device: entry.device,
                    agent: Some(entry.agent.clone()).filter(|agent| !agent.is_empty()),
                    written_at: entry.at,
                    revision: entry.revision,
                },
            }),
            RecordState::Erased { .. } => Err(Fault::Erased),
            _ => Err(Fault::Deleted),
        }
    }

    /// What is inside of its blob. `of_another`: the blob is the newest of another record.
    pub(super) fn open(
        &self,
        space: &Space,
        blob: &[u8],
        of_another: bool,
    ) -> Result<Zeroizing<Vec<u8>>, Error> {
        let newest = Newest {
            revision: self.provenance.revision,
            key: &self.key,
            name: &self.name,
        };
        blob::open_record(space, &self.id, &newest, blob, |_| Ok(of_another))
    }

    pub(super) fn memory(&self, plaintext: &[u8]) -> Result<Memory, Error> {
        let mut memory = blob::decode_memory(plaintext)?;
        // A device that sealed one record under the name of another.
        if memory.id.as_bytes() != self.id.as_bytes() {
            return Err(Fault::Misplaced.into());
        }
        memory.provenance = Some(self.provenance.clone());
        Ok(memory)
    }

    pub(super) fn chat(&self, plaintext: &[u8]) -> Result<Chat, Error> {
        let mut chat = blob::decode_chat(plaintext)?;
        if chat.id.as_bytes() != self.id.as_bytes() {
            return Err(Fault::Misplaced.into());
        }
        chat.provenance = Some(self.provenance.clone());
        Ok(chat)
    }
}

/// What opens a record, if it can be read.
pub(super) fn opening(step: &Step<'_, '_>, space: &Space, id: &RecordId) -> Result<Opening, Error> {
    let entry = step.device.memory_entry(step.rows, space, id)?;
    let entry = entry.ok_or(Fault::NoRecord)?;
    Ok(Opening::of(id.clone(), &entry)?)
}

/// Whether a hash is that of the newest blob of some record.
pub(super) fn is_newest_of_any(
    step: &Step<'_, '_>,
    space: &Space,
    name: &[u8; 32],
) -> Result<bool, Error> {
    let mut found = false;
    step.device
        .memory_records(step.rows, space, &mut |_, entry| match &entry.state {
            RecordState::Live { blob, .. } if blob == name => {
                found = true;
                ControlFlow::Break(())
            }
            _ => ControlFlow::Continue(()),
        })?;
    Ok(found)
}

/// What the index keeps of a record.
pub(super) type IndexRow = (Tag, Zeroizing<Vec<u8>>);

/// Reads the rows that the index keeps of these records. One that is gone meanwhile has none.
pub(super) fn index_rows(
    step: &Step<'_, '_>,
    space: &Space,
    tags: &[Tag],
) -> Result<Vec<IndexRow>, Error> {
    let mut found = Vec::with_capacity(tags.len());
    let mut visit = |tag: &Tag, row| found.push((*tag, row));
    step.device
        .memory_index_of_each(step.rows, space, tags, &mut visit)?;
    Ok(found)
}

/// The embedding in a row of the index.
pub(super) fn vector(row: &[u8]) -> Result<Option<Zeroizing<Vec<f32>>>, Error> {
    let row = super::row::Row::decode(row)?;
    let vector = sprag_search::decode_vector(&row.vector).map_err(|_| Fault::Damaged)?;
    Ok(vector.map(Zeroizing::new))
}

/// A record is deleted, or erased for good. Says whether there was one, and what blob of it the application keeps.
pub(super) fn remove(
    step: &mut Step<'_, '_>,
    space: &Space,
    indexes: &Indexes,
    id: &RecordId,
    for_good: bool,
) -> Result<(bool, Option<[u8; 32]>), Error> {
    let before = step.device.memory_entry(step.rows, space, id)?;
    let was_there = if for_good {
        let ids = std::slice::from_ref(id);
        let env = &mut step.env;
        step.device.memory_erase(step.rows, env, space, ids)? > 0
    } else {
        let env = &mut step.env;
        step.device.memory_delete(step.rows, env, space, id)?
    };
    if was_there && let Some(tag) = step.device.memory_tag(step.rows, space, id)? {
        indexes.shelf(space).remove(tag);
    }
    Ok((was_there, before.as_ref().and_then(kept_elsewhere)))
}

/// The names of all blobs of the account that the application keeps: those of its records, and of writes that lost.
pub(super) fn names_kept(
    device: &sprag_session::Device,
    rows: &dyn Rows,
) -> Result<std::collections::HashSet<[u8; 32]>, Error> {
    let mut names = std::collections::HashSet::new();
    for space in device.memory_spaces(rows)? {
        device.memory_records(rows, &space, &mut |_, entry| {
            names.extend(kept_elsewhere(entry));
            ControlFlow::Continue(())
        })?;
        for lost in device.memory_lost(rows, &space)? {
            names.extend(kept_elsewhere(&lost.entry));
        }
    }
    Ok(names)
}
