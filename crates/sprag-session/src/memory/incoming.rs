//! A head that comes in: its segments are got and merged, then it takes the place of the one that is known ("Memories",
//! *Merging* and *How it travels*).

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use sprag_store::{Rows, Staged};

use super::blobs::{self, Use, Work};
use super::head::{Head, SegmentRef};
use super::pull::{AGAIN_MS, Reply};
use super::push::{Keys, delete_head, get_head, put_head, stored_head};
use super::records::read_row;
use super::space::Space;
use super::spaces::{Incoming, SpaceRow, mark_busy};
use super::unpublished::Unpublished;
use super::{LogError, RecordState};
use crate::error::StepError;
use crate::event::{self, Event};
use crate::own::{Device, Env};
use crate::tables;

/// A log whose head names what the server does not have goes on without it after this long: one hour.
const RESTART_MS: u64 = 3_600_000;

impl Device {
    /// A newer head: its segments are got, then it takes the place of the one that is known.
    pub(super) fn take_incoming(
        &mut self,
        rows: &mut Staged<'_>,
        env: &mut Env<'_>,
        row: &mut SpaceRow,
        keys: &Keys,
        reply: Reply,
        head: &Head,
    ) -> Result<(), StepError> {
        self.give_up_flight(rows, row, keys, Some(&head.segments))?;
        self.give_up_incoming(rows, row, keys, &head.segments)?;
        let length = put_head(rows, tables::HEADS_IN, row.number.into(), &reply.value);
        row.incoming = Some(Incoming {
            length,
            tag: reply.tag,
        });
        row.missing_since = 0;
        row.save(rows);
        self.want_segments(rows, row, keys)?;
        self.merge_if_complete(rows, env, row, keys)
    }

    /// A segment of a newer head came. What it says is merged at once: a long log comes in parts, and counts in parts.
    pub(super) fn segment_came(
        &mut self,
        rows: &mut Staged<'_>,
        env: &mut Env<'_>,
        space: u32,
        name: &[u8; 32],
    ) -> Result<(), StepError> {
        let Some(mut row) = SpaceRow::load(rows, space)? else {
            return Ok(());
        };
        let keys = Keys::of(self, rows, &row)?;
        if let Some(incoming) = &row.incoming {
            let bytes = get_head(rows, tables::HEADS_IN, row.number.into(), incoming.length)?;
            if let Ok((head, _)) = keys.open_known(&row, &bytes)
                && let Some(segment) = head.segments.iter().find(|one| one.blob == *name)
                && let Err(error) = self.merge_segment(rows, &mut row, &keys, segment)?
            {
                return self.refuse_segment(rows, env, &mut row, &keys, (segment, error));
            }
        }
        self.merge_if_complete(rows, env, &mut row, &keys)
    }

    /// Merges what a segment that is held says, unless that was done. The inner error says that it is not what its head
    /// promises.
    fn merge_segment(
        &self,
        rows: &mut Staged<'_>,
        row: &mut SpaceRow,
        keys: &Keys,
        segment: &SegmentRef,
    ) -> Result<Result<(), LogError>, StepError> {
        if blobs::is_merged(rows, &segment.blob)? {
            return Ok(Ok(()));
        }
        let Some(sealed) = blobs::get(rows, &segment.blob)? else {
            return Ok(Ok(()));
        };
        let opened = super::Segment::open(&keys.generations, &row.space, &keys.name, &sealed);
        let (epoch, number, _) = super::generation_of(&sealed)?;
        let entries = match opened {
            Ok(entries)
                if entries.entries().len() == segment.records as usize
                    && entries.erases_nothing_above((epoch, number)) =>
            {
                entries
            }
            refused => return Ok(Err(refused.err().unwrap_or(LogError::Damaged))),
        };
        for (id, entry) in entries.entries() {
            let record = keys.names.record(&keys.name, id);
            self.merge_entry(rows, row, &record, id, entry)?;
            if row.is_root() && entry.state == RecordState::Listed {
                self.meet_space(rows, id)?;
            }
        }
        blobs::note_merged(rows, &segment.blob)?;
        Ok(Ok(()))
    }

    /// A device of ours named it, and it cannot be read. What a later version wrote, or is sealed under a key that is not
    /// here, is waited for; anything else is as good as lost.
    fn refuse_segment(
        &mut self,
        rows: &mut Staged<'_>,
        env: &mut Env<'_>,
        row: &mut SpaceRow,
        keys: &Keys,
        (segment, error): (&SegmentRef, LogError),
    ) -> Result<(), StepError> {
        let space = row.space.clone();
        event::record(rows, &Event::MemoryRefused { space, error })?;
        if error == LogError::NotYet {
            self.give_up_incoming(rows, row, keys, &[])?;
            return self.wait_for_keys_of(rows, env, row);
        }
        blobs::release(rows, &segment.blob)?;
        self.note_missing(rows, env, row)
    }

    fn note_missing(
        &self,
        rows: &mut Staged<'_>,
        env: &Env<'_>,
        row: &mut SpaceRow,
    ) -> Result<(), StepError> {
        if row.missing_since == 0 || row.missing_since > env.now {
            row.missing_since = env.now;
        }
        row.save(rows);
        self.ask_for_head(rows, row, env.now.saturating_add(AGAIN_MS))
    }

    /// The server does not have a segment that a head names: perhaps there is a newer head soon.
    pub(super) fn segment_is_missing(
        &self,
        rows: &mut Staged<'_>,
        env: &mut Env<'_>,
        space: u32,
    ) -> Result<(), StepError> {
        let Some(mut row) = SpaceRow::load(rows, space)? else {
            return Ok(());
        };
        let event = Event::MemoryRefused {
            space: row.space.clone(),
            error: LogError::Missing,
        };
        event::record(rows, &event)?;
        if row.incoming.is_none() {
            return Ok(());
        }
        self.note_missing(rows, env, &mut row)
    }

    /// The server still shows the head of which a segment is missing. It is asked for again; after an hour the log goes on
    /// without what is lost.
    pub(super) fn still_missing(
        &mut self,
        rows: &mut Staged<'_>,
        env: &mut Env<'_>,
        row: &mut SpaceRow,
        keys: &Keys,
    ) -> Result<(), StepError> {
        if row.missing_since > 0
            && row.missing_since <= env.now
            && env.now - row.missing_since >= RESTART_MS
        {
            return self.merge(rows, env, row, keys, true);
        }
        self.want_segments(rows, row, keys)?;
        self.merge_if_complete(rows, env, row, keys)
    }

    /// Asks for the segments of the incoming head that are not here.
    fn want_segments(
        &self,
        rows: &mut Staged<'_>,
        row: &SpaceRow,
        keys: &Keys,
    ) -> Result<(), StepError> {
        let Some(incoming) = &row.incoming else {
            return Ok(());
        };
        let bytes = get_head(rows, tables::HEADS_IN, row.number.into(), incoming.length)?;
        let (head, _) = keys.open_known(row, &bytes)?;
        for segment in &head.segments {
            if !blobs::is_held(rows, &segment.blob)? {
                blobs::forget_missing(rows, &segment.blob);
                let used = Use::Segment(row.number);
                blobs::want(rows, Work::GetSegment, &segment.blob, used)?;
            }
        }
        Ok(())
    }

    fn merge_if_complete(
        &mut self,
        rows: &mut Staged<'_>,
        env: &mut Env<'_>,
        row: &mut SpaceRow,
        keys: &Keys,
    ) -> Result<(), StepError> {
        self.merge(rows, env, row, keys, false)
    }

    /// The incoming head takes the place of the one that is known, if all its segments are here; or without those that are
    /// lost, and then the next head says so.
    fn merge(
        &mut self,
        rows: &mut Staged<'_>,
        env: &mut Env<'_>,
        row: &mut SpaceRow,
        keys: &Keys,
        without: bool,
    ) -> Result<(), StepError> {
        let Some(incoming) = row.incoming.clone() else {
            return Ok(());
        };
        let bytes = get_head(rows, tables::HEADS_IN, row.number.into(), incoming.length)?;
        let (head, seen) = match keys.open_known(row, &bytes) {
            Ok(opened) => opened,
            // Its generation was given up meanwhile: it cannot be what counts.
            Err(_) => return self.give_up_incoming(rows, row, keys, &[]),
        };
        let mut lacks = false;
        for segment in &head.segments {
            lacks |= !blobs::is_held(rows, &segment.blob)?;
        }
        if lacks && !without {
            return Ok(());
        }
        let before = stored_head(rows, row, keys)?;
        let old: Vec<[u8; 32]> = before
            .iter()
            .flat_map(|(head, _)| &head.segments)
            .map(|segment| segment.blob)
            .collect();
        for segment in &head.segments {
            if !old.contains(&segment.blob)
                && let Err(error) = self.merge_segment(rows, row, keys, segment)?
            {
                return self.refuse_segment(rows, env, row, keys, (segment, error));
            }
        }
        for blob in old {
            if !head.segments.iter().any(|segment| segment.blob == blob) {
                blobs::release(rows, &blob)?;
            }
        }
        let restarted = head.restarts > before.map_or(0, |(head, _)| head.restarts);
        if restarted && row.head > 0 {
            self.keep_what_it_lacks(rows, row, keys, &head)?;
        }
        delete_head(rows, tables::HEADS_IN, row.number.into(), incoming.length);
        delete_head(rows, tables::HEADS, row.number.into(), row.head);
        row.head = put_head(rows, tables::HEADS, row.number.into(), &bytes);
        row.generation = seen.generation;
        row.tag = incoming.tag;
        row.waited = 0;
        row.incoming = None;
        row.missing_since = 0;
        row.restart = lacks;
        row.save(rows);
        for segment in &head.segments {
            blobs::unwant(rows, Work::GetSegment, &segment.blob)?;
            blobs::forget_missing(rows, &segment.blob);
        }
        mark_busy(rows, row.number);
        self.heads_moved(rows)
    }

    /// A log that was written anew by somebody who lacked a part of it: what is known here and not there is put again.
    fn keep_what_it_lacks(
        &self,
        rows: &mut Staged<'_>,
        row: &SpaceRow,
        keys: &Keys,
        head: &Head,
    ) -> Result<(), StepError> {
        let mut there = BTreeMap::new();
        for segment in &head.segments {
            if let Some(sealed) = blobs::get(rows, &segment.blob)? {
                for (id, entry) in keys.open_segment(row, &sealed)?.entries() {
                    there.insert(id.clone(), entry.clone());
                }
            }
        }
        let mut lacks = Vec::new();
        rows.scan(&tables::log_entry(row.number, &[]), &mut |suffix, value| {
            if let Ok((id, entry)) = read_row(value)
                && there.get(&id) != Some(&entry)
            {
                lacks.push((suffix.to_vec(), entry.revision));
            }
            ControlFlow::Continue(())
        })?;
        for (record, base) in lacks {
            if Unpublished::load(rows, row.number, &record)?.is_none() {
                let again = Unpublished {
                    in_flight: false,
                    base,
                };
                again.save(rows, row.number, &record);
            }
        }
        Ok(())
    }

    /// The incoming head is not what the server shows any more, or cannot be read: it goes, with those of its segments that
    /// neither the known head nor the next one names.
    pub(super) fn give_up_incoming(
        &self,
        rows: &mut Staged<'_>,
        row: &mut SpaceRow,
        keys: &Keys,
        next: &[SegmentRef],
    ) -> Result<(), StepError> {
        let Some(incoming) = row.incoming.take() else {
            return Ok(());
        };
        row.missing_since = 0;
        let bytes = get_head(rows, tables::HEADS_IN, row.number.into(), incoming.length)?;
        if let Ok((old, _)) = keys.open_known(row, &bytes) {
            let known = stored_head(rows, row, keys)?;
            let known = known.iter().flat_map(|(head, _)| &head.segments);
            let kept: Vec<_> = known.chain(next).map(|one| one.blob).collect();
            for segment in old.segments.iter().filter(|one| !kept.contains(&one.blob)) {
                blobs::unwant(rows, Work::GetSegment, &segment.blob)?;
                blobs::forget_missing(rows, &segment.blob);
                blobs::release(rows, &segment.blob)?;
            }
        }
        delete_head(rows, tables::HEADS_IN, row.number.into(), incoming.length);
        row.save(rows);
        Ok(())
    }

    /// A space that another device listed.
    fn meet_space(&self, rows: &mut Staged<'_>, id: &super::RecordId) -> Result<(), StepError> {
        let Ok(space) = Space::of_listed(id) else {
            return Ok(());
        };
        if self.find_space(rows, &space)?.is_none() {
            let (mut row, _) = self.add_space(rows, &space)?;
            self.ask_for_head(rows, &mut row, 0)?;
        }
        Ok(())
    }
}
