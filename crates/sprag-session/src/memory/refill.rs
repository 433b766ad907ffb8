//! What a server lost of memories is given to it again ("Memories", *A server that went back*).

use std::ops::ControlFlow;

use sprag_store::{Rows, Staged};

use super::RecordState;
use super::blobs::{self, Use, Work};
use super::push::{Keys, get_head, put_head, stored_head};
use super::records::read_row;
use super::spaces::{Flight, SpaceRow, mark_busy};
use crate::error::StepError;
use crate::event::{self, Event};
use crate::own::{Device, Env};
use crate::tables;

/// A server that lacks something is given everything again at most this often: once an hour.
const REFILL_MS: u64 = 3_600_000;
/// Heads that are put again within that time.
const REFILLS: u32 = 4;

impl SpaceRow {
    /// Whether the server may be given something of its own accord once more: a few times an hour.
    pub(super) fn may_refill(&self, now: u64) -> bool {
        !self.refilled_lately(now) || self.refilled.1 < REFILLS
    }

    fn refilled_lately(&self, now: u64) -> bool {
        let (began, times) = self.refilled;
        times > 0 && began <= now && now - began < REFILL_MS
    }

    pub(super) fn count_refill(&mut self, now: u64) {
        self.refilled = if self.refilled_lately(now) {
            (self.refilled.0, self.refilled.1.saturating_add(1))
        } else {
            (now, 1)
        };
    }
}

impl Device {
    /// The server lacks the newest head, or what it names: it is given everything again, at most once an hour, and the head
    /// a few times.
    pub(super) fn refill(
        &self,
        rows: &mut Staged<'_>,
        env: &Env<'_>,
        row: &mut SpaceRow,
        tag: Vec<u8>,
    ) -> Result<(), StepError> {
        self.refill_as(rows, env, row, tag, false)
    }

    /// As [`refill`](Self::refill); a server that began anew is given everything a few times within an hour.
    fn refill_as(
        &self,
        rows: &mut Staged<'_>,
        env: &Env<'_>,
        row: &mut SpaceRow,
        tag: Vec<u8>,
        began_anew: bool,
    ) -> Result<(), StepError> {
        row.tag = tag;
        row.known = true;
        let keys = Keys::of(self, rows, row)?;
        let (began, times) = row.refilled;
        let lately = row.refilled_lately(env.now);
        row.count_refill(env.now);
        // A server that never has it does not keep us busy.
        let not_before = if lately && times >= REFILLS {
            began.saturating_add(REFILL_MS)
        } else {
            0
        };
        blobs::drop_nothing(rows)?;
        if !lately || (began_anew && times < REFILLS) {
            if row.head > 0 {
                let space = row.space.clone();
                event::record(rows, &Event::MemoryRefilled { space })?;
            }
            self.put_all_blobs(rows, row, &keys)?;
        }
        // What it needs may be lost too: it is made anew.
        self.give_up_flight(rows, row, &keys, None)?;
        if row.incoming.is_some() || row.head == 0 || row.restart {
            // A newer one is there, and comes first; or there is none that could be read.
            row.save(rows);
            if not_before > 0 {
                return self.ask_for_head(rows, row, not_before);
            }
            mark_busy(rows, row.number);
            return Ok(());
        }
        let bytes = get_head(rows, tables::HEADS, row.number.into(), row.head)?;
        let length = put_head(rows, tables::HEADS_OUT, row.number.into(), &bytes);
        row.flight = Some(Flight {
            length,
            waits_for: 0,
            task: None,
        });
        self.launch(rows, row, not_before)
    }

    /// The known head was taken once more. After many attempts the server may lack more: that was put off.
    pub(super) fn refill_rest(
        &self,
        rows: &mut Staged<'_>,
        env: &Env<'_>,
        row: &mut SpaceRow,
        keys: &Keys,
    ) -> Result<(), StepError> {
        let (began, times) = row.refilled;
        if times > REFILLS && (began > env.now || env.now - began >= REFILL_MS) {
            row.refilled = (env.now, 1);
            row.save(rows);
            self.put_all_blobs(rows, row, keys)?;
        }
        Ok(())
    }

    /// Every blob of a space that is held here is put again: a server that has it changes nothing.
    fn put_all_blobs(
        &self,
        rows: &mut Staged<'_>,
        row: &SpaceRow,
        keys: &Keys,
    ) -> Result<(), StepError> {
        let head = stored_head(rows, row, keys)?;
        for segment in head.iter().flat_map(|(head, _)| &head.segments) {
            if blobs::is_held(rows, &segment.blob)? {
                // Not waited for: the head names it already.
                blobs::want(
                    rows,
                    Work::Put,
                    &segment.blob,
                    Use::Record(row.number, [0; 16]),
                )?;
            }
        }
        let mut held = Vec::new();
        rows.scan(&tables::log_entry(row.number, &[]), &mut |suffix, value| {
            if let Ok((_, entry)) = read_row(value)
                && let RecordState::Live {
                    blob,
                    at_server: true,
                    ..
                } = entry.state
                && let Ok(record) = suffix.try_into()
            {
                held.push((blob, record));
            }
            ControlFlow::Continue(())
        })?;
        for (blob, record) in held {
            if blobs::is_held(rows, &blob)? {
                blobs::want(rows, Work::Put, &blob, Use::Record(row.number, record))?;
            }
        }
        Ok(())
    }

    /// The server was restored from a backup, or began anew: it is given all heads and blobs that are held here.
    pub(crate) fn give_memories_back(
        &mut self,
        rows: &mut Staged<'_>,
        env: &mut Env<'_>,
    ) -> Result<(), StepError> {
        for mut row in SpaceRow::all(rows)? {
            let (tag, known) = (row.tag.clone(), row.known);
            self.refill_as(rows, env, &mut row, tag, true)?;
            row.known = known;
            row.save(rows);
        }
        Ok(())
    }
}
