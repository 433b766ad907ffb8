//! Records that were written here and stand in no head of the server yet, and what was known when they were.

use std::ops::ControlFlow;

use sprag_store::{Rows, Staged, StoreError};

use super::records::RecordTag;
use super::segment::MAX_ENTRIES;
use crate::codec::{Reader, Writer};
use crate::tables;

const VERSION: u8 = 1;

/// One of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Unpublished {
    /// It is in the head under way.
    pub(super) in_flight: bool,
    /// The revision that the first write since then went on top of; 0: none. What others wrote above it they wrote without
    /// knowing of ours, and we without knowing of theirs.
    pub(super) base: u64,
}

impl Unpublished {
    pub(super) fn load(
        rows: &dyn Rows,
        space: u32,
        record: &[u8],
    ) -> Result<Option<Self>, StoreError> {
        let bytes = rows.get(&tables::unpublished(space, record))?;
        bytes.map(|bytes| Self::read(&bytes)).transpose()
    }

    fn read(bytes: &[u8]) -> Result<Self, StoreError> {
        let mut reader = Reader::new(bytes, VERSION, "unpublished record")?;
        let unpublished = Self {
            in_flight: reader.bool()?,
            base: reader.u64()?,
        };
        reader.finish()?;
        Ok(unpublished)
    }

    pub(super) fn save(self, rows: &mut Staged<'_>, space: u32, record: &[u8]) {
        let mut writer = Writer::new(VERSION, 9);
        writer.bool(self.in_flight).u64(self.base);
        rows.put(tables::unpublished(space, record), writer.finish());
    }

    /// Records of a space, at most as many as a segment holds.
    pub(super) fn first(rows: &dyn Rows, space: u32) -> Result<Vec<RecordTag>, StoreError> {
        let mut records = Vec::new();
        rows.scan(&tables::unpublished(space, &[]), &mut |suffix, _| {
            records.extend(RecordTag::try_from(suffix));
            if records.len() >= MAX_ENTRIES {
                return ControlFlow::Break(());
            }
            ControlFlow::Continue(())
        })?;
        Ok(records)
    }

    /// What was in the head under way is published, or is to be put again.
    pub(super) fn settle(
        rows: &mut Staged<'_>,
        space: u32,
        published: bool,
    ) -> Result<(), StoreError> {
        let mut all = Vec::new();
        rows.scan(&tables::unpublished(space, &[]), &mut |suffix, value| {
            all.push((suffix.to_vec(), Self::read(value)));
            ControlFlow::Continue(())
        })?;
        for (record, one) in all {
            let mut one = one?;
            if !one.in_flight {
                continue;
            }
            if published {
                rows.delete(tables::unpublished(space, &record));
            } else {
                one.in_flight = false;
                one.save(rows, space, &record);
            }
        }
        Ok(())
    }
}
