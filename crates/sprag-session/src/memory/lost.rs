//! Writes that lost against another one of the same revision: told, and kept until somebody has looked ("Memories",
//! *Merging*).

use std::ops::ControlFlow;

use sprag_store::{Rows, Staged, StoreError};

use super::records::{RecordTag, drop_later, read_row, release_blob, row_of};
use super::space::{RecordId, Space};
use super::spaces::{SpaceRow, mark_busy};
use super::{Entry, RecordState};
use crate::error::StepError;
use crate::event::{self, Event};
use crate::own::Device;
use crate::tables;

/// Writes that lost which are kept in a space; beyond it one gives way to the next.
const LOST: usize = 1_000;

/// A write that lost against another one of the same revision.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LostWrite {
    /// The record.
    pub id: RecordId,
    /// What was written, with the key of its blob.
    pub entry: Entry,
}

/// Writes of a record that lost are forgotten, with their blobs.
pub(super) fn forget_lost(
    rows: &mut Staged<'_>,
    space: u32,
    record: &RecordTag,
) -> Result<(), StoreError> {
    let mut lost = Vec::new();
    rows.scan(&tables::lost_write(space, record), &mut |suffix, value| {
        lost.push((suffix.to_vec(), read_row(value)));
        ControlFlow::Continue(())
    })?;
    for (suffix, row) in lost {
        let (_, entry) = row?;
        release_blob(rows, &entry.state)?;
        drop_later(rows, space, &entry.state);
        rows.delete(tables::lost_write(space, &[&record[..], &suffix].concat()));
    }
    Ok(())
}

impl Device {
    /// A write lost against another one of the same revision: it is told, and kept until somebody has looked.
    pub(super) fn tell_lost(
        &self,
        rows: &mut Staged<'_>,
        row: &SpaceRow,
        record: &RecordTag,
        id: &RecordId,
        lost: &Entry,
    ) -> Result<(), StepError> {
        if lost.state == RecordState::Listed {
            // A space is one, whoever listed it.
            return Ok(());
        }
        if let RecordState::Live { blob, .. } = &lost.state {
            let name = tables::lost_write(row.number, &[&record[..], blob].concat());
            if rows.get(&name)?.is_some() {
                return Ok(());
            }
            let mut names = Vec::new();
            rows.scan(&tables::lost_write(row.number, &[]), &mut |suffix, _| {
                names.push(suffix.to_vec());
                ControlFlow::Continue(())
            })?;
            if names.len() >= LOST
                && let Some((first, _)) = names.first().and_then(|name| name.split_first_chunk())
            {
                forget_lost(rows, row.number, first)?;
            }
            rows.put(name, row_of(id, lost));
        }
        let event = Event::MemoryConflict {
            space: row.space.clone(),
            record: id.clone(),
            device: lost.device,
        };
        Ok(event::record(rows, &event)?)
    }

    /// Writes that lost against another one of the same revision, with all that opens them. They stay until
    /// [`memory_forget_lost`](Self::memory_forget_lost), the last 1,000 of a space.
    ///
    /// # Errors
    /// What the store answers.
    pub fn memory_lost(&self, rows: &dyn Rows, space: &Space) -> Result<Vec<LostWrite>, StepError> {
        let Some((row, _)) = self.find_space(rows, space)? else {
            return Ok(Vec::new());
        };
        let mut lost = Vec::new();
        let mut failed = Ok(());
        rows.scan(&tables::lost_write(row.number, &[]), &mut |_, value| {
            match read_row(value) {
                Ok((id, entry)) => lost.push(LostWrite { id, entry }),
                Err(error) => failed = Err(error),
            }
            ControlFlow::Continue(())
        })?;
        failed?;
        Ok(lost)
    }

    /// Forgets the writes of a record that lost.
    ///
    /// # Errors
    /// What the store answers.
    pub fn memory_forget_lost(
        &self,
        rows: &mut Staged<'_>,
        space: &Space,
        id: &RecordId,
    ) -> Result<(), StepError> {
        if let Some((row, name)) = self.find_space(rows, space)? {
            let record = self.names_key(rows)?.record(&name, id);
            forget_lost(rows, row.number, &record)?;
            mark_busy(rows, row.number);
        }
        Ok(())
    }
}
