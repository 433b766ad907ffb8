//! What the server has of a space: judged, fetched and merged ("Memories", *How it travels*).

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use sprag_store::{Rows, Staged, StoreError};
use sprag_wire::UnverifiedDeviceList;
use sprag_wire::relay::Object;
use sprag_x3dh::DeviceList;

use super::blobs::{self, Use, Work};
use super::head::{Head, Seen, SegmentRef};
use super::push::{Keys, delete_head, end_task, get_head, put_head, stored_head};
use super::records::read_row;
use super::space::Space;
use super::spaces::{Incoming, MAX_TAG, MemoryState, SpaceRow, mark_busy};
use super::unpublished::Unpublished;
use super::{LogError, MAX_HEAD, RecordState};
use crate::error::{ProtocolError, StepError};
use crate::event::{self, Event};
use crate::own::{Device, Env};
use crate::tables;
use crate::task::{Kind, StoredTask, TaskId};

/// What cannot be judged yet is asked for again after this long: one minute, then two, four, ..
const AGAIN_MS: u64 = 60_000;
/// .. and an hour at most.
const LATEST_AGAIN_MS: u64 = 3_600_000;
/// A log whose head names what the server does not have goes on without it after this long: one hour.
const RESTART_MS: u64 = 3_600_000;

/// A reply about a head, in its parts.
struct Reply {
    tag: Vec<u8>,
    value: Vec<u8>,
}

impl Device {
    /// What a task that asks for a head offers.
    pub(crate) fn head_to_get(&self, rows: &dyn Rows, space: u32) -> Result<Object, StepError> {
        let row = SpaceRow::get(rows, space)?;
        let name = self.names_key(rows)?.head(&row.space);
        Ok(Object::new(name.to_vec(), row.tag, Vec::new()))
    }

    fn read_object(
        &self,
        rows: &dyn Rows,
        row: &SpaceRow,
        bytes: &[u8],
    ) -> Result<Reply, StepError> {
        let object = Object::decode(bytes)?;
        let name = self.names_key(rows)?.head(&row.space);
        let fits = object.name == name
            && object.tag.len() <= MAX_TAG
            && object.value.len() <= MAX_HEAD
            && (object.value.is_empty() || !object.tag.is_empty());
        if !fits {
            return Err(ProtocolError::Malformed.into());
        }
        Ok(Reply {
            tag: object.tag,
            value: object.value,
        })
    }

    /// The reply to a head that was put.
    pub(crate) fn put_answered(
        &mut self,
        rows: &mut Staged<'_>,
        env: &mut Env<'_>,
        id: TaskId,
        space: u32,
        reply: &[u8],
    ) -> Result<(), StepError> {
        let mut row = SpaceRow::get(rows, space)?;
        if row.flight.and_then(|flight| flight.task) != Some(id) {
            return Ok(());
        }
        let reply = self.read_object(rows, &row, reply)?;
        if reply.tag.is_empty() || reply.tag == row.tag {
            return Err(ProtocolError::Malformed.into());
        }
        self.head_taken(rows, env, &mut row, reply.tag)
    }

    /// The server has another head than the one that ours follows.
    pub(crate) fn put_conflicts(
        &mut self,
        rows: &mut Staged<'_>,
        env: &mut Env<'_>,
        id: TaskId,
        space: u32,
        object: &[u8],
    ) -> Result<(), StepError> {
        let mut row = SpaceRow::get(rows, space)?;
        let Some(flight) = row.flight.filter(|flight| flight.task == Some(id)) else {
            return Ok(());
        };
        let reply = match self.read_object(rows, &row, object) {
            Ok(reply) => reply,
            Err(StepError::Protocol(error)) => {
                event::record(rows, &Event::ReplyRefused { task: id, error })?;
                return put_off(rows, env, id);
            }
            Err(error) => return Err(error),
        };
        let ours = get_head(rows, tables::HEADS_OUT, space.into(), flight.length)?;
        if *ours == reply.value {
            // It was taken before, and only the answer was lost.
            return self.head_taken(rows, env, &mut row, reply.tag);
        }
        self.head_came(rows, env, &mut row, reply)
    }

    /// The reply to a question for a head.
    pub(crate) fn get_answered(
        &mut self,
        rows: &mut Staged<'_>,
        env: &mut Env<'_>,
        id: TaskId,
        space: u32,
        reply: &[u8],
    ) -> Result<(), StepError> {
        let mut row = SpaceRow::get(rows, space)?;
        if row.asked != Some(id) {
            return Ok(());
        }
        let reply = self.read_object(rows, &row, reply)?;
        row.asked = None;
        row.known = true;
        row.save(rows);
        if reply.value.is_empty() && reply.tag == row.tag {
            mark_busy(rows, space);
            return Ok(());
        }
        if reply.value.is_empty() && !reply.tag.is_empty() {
            return Err(ProtocolError::Malformed.into());
        }
        self.head_came(rows, env, &mut row, reply)
    }

    fn head_came(
        &mut self,
        rows: &mut Staged<'_>,
        env: &mut Env<'_>,
        row: &mut SpaceRow,
        reply: Reply,
    ) -> Result<(), StepError> {
        let incoming = row.incoming.clone();
        if let Some(incoming) = &incoming {
            let bytes = get_head(rows, tables::HEADS_IN, row.number.into(), incoming.length)?;
            if *bytes == reply.value {
                let keys = Keys::of(self, rows, row)?;
                self.give_up_flight(rows, row, &keys, None)?;
                return self.still_missing(rows, env, row, &keys);
            }
        }
        let keys = Keys::of(self, rows, row)?;
        if reply.value.is_empty() {
            self.give_up_incoming(rows, row, &keys, &[])?;
            return self.refill(rows, env, row, reply.tag);
        }
        let known = stored_head(rows, row, &keys)?;
        let seen = known.as_ref().map(|(_, seen)| seen);
        let space = row.space.clone();
        let judged = Head::open(
            &keys.generations,
            &space,
            &keys.name,
            &keys.list,
            seen,
            &reply.value,
        );
        let (head, now) = match judged {
            Ok(judged) => judged,
            Err(LogError::NotYet) => return self.wait_for_keys_of(rows, env, row),
            Err(LogError::UnlistedDevice) if row.head == 0 => {
                match self.open_of_replaced(rows, &keys, row, &reply.value)? {
                    Some(judged) => judged,
                    None => {
                        // Perhaps a device of ours says it better soon.
                        let error = LogError::UnlistedDevice;
                        event::record(rows, &Event::MemoryRefused { space, error })?;
                        return self.wait_for_keys_of(rows, env, row);
                    }
                }
            }
            Err(LogError::Forked) => {
                let error = LogError::Forked;
                event::record(rows, &Event::MemoryRefused { space, error })?;
                self.note_branch(rows, row)?;
                let opened = keys.open_known(row, &reply.value)?;
                return self.take_incoming(rows, env, row, &keys, reply, &opened.0);
            }
            Err(error) if row.head == 0 => {
                // Nothing is known to put in its place: perhaps a device of ours says it better soon.
                event::record(rows, &Event::MemoryRefused { space, error })?;
                return self.wait_for_keys_of(rows, env, row);
            }
            Err(error) => {
                // The server went back, or shows what nobody of ours wrote: it is given the newest again.
                event::record(rows, &Event::MemoryRefused { space, error })?;
                self.give_up_incoming(rows, row, &keys, &[])?;
                return self.refill(rows, env, row, reply.tag);
            }
        };
        if seen.is_some_and(|seen: &Seen| seen.hash == now.hash) {
            // The one that is known, under another tag.
            row.tag = reply.tag;
            if let Some(flight) = &mut row.flight {
                end_task(rows, flight.task.take())?;
            }
            mark_busy(rows, row.number);
            return self.launch(rows, row, 0);
        }
        self.take_incoming(rows, env, row, &keys, reply, &head)
    }

    /// The first head of a space, if a device wrote it that left the list as this one came: one that this device takes the
    /// place of, so that there may be nobody else who could sign it anew.
    fn open_of_replaced(
        &self,
        rows: &dyn Rows,
        keys: &Keys,
        row: &SpaceRow,
        bytes: &[u8],
    ) -> Result<Option<(Head, Seen)>, StepError> {
        let chain = self.own_chain(rows, 0)?;
        let own = self.address.device();
        let is_on = |list: &UnverifiedDeviceList| {
            let mut devices = list.devices().iter();
            devices.any(|entry| entry.device() == own)
        };
        let came = chain.iter().position(is_on);
        let before = came.and_then(|came| chain.get(came.checked_sub(1)?));
        let Some(before) = before.cloned() else {
            return Ok(None);
        };
        let before = DeviceList::verify(before).map_err(|_| StoreError::Damaged("own list"))?;
        let opened = Head::open(
            &keys.generations,
            &row.space,
            &keys.name,
            &before,
            None,
            bytes,
        );
        Ok(opened.ok())
    }

    /// A generation, or a list, is not here yet: what is sealed under it is not overwritten. It is asked for again soon, and
    /// then at ever longer intervals. A device that is on its list no more gets none: it does not ask by itself.
    fn wait_for_keys_of(
        &mut self,
        rows: &mut Staged<'_>,
        env: &mut Env<'_>,
        row: &mut SpaceRow,
    ) -> Result<(), StepError> {
        let keys = Keys::of(self, rows, row)?;
        self.give_up_flight(rows, row, &keys, None)?;
        let user = self.address.user().clone();
        self.fetch_list(rows, env, &user, 0)?;
        if self.check_own_listed(rows).is_err() {
            row.save(rows);
            return Ok(());
        }
        let after = AGAIN_MS.saturating_mul(1 << row.waited.min(6));
        row.waited = row.waited.saturating_add(1);
        let after = after.min(LATEST_AGAIN_MS);
        self.ask_for_head(rows, row, env.now.saturating_add(after))
    }

    /// Asks for the head of a space, unless that is under way.
    pub(super) fn ask_for_head(
        &self,
        rows: &mut Staged<'_>,
        row: &mut SpaceRow,
        not_before: u64,
    ) -> Result<(), StepError> {
        let under_way = match row.asked {
            Some(id) => StoredTask::load(rows, id)?.map(|task| (id, task)),
            None => None,
        };
        match under_way {
            Some((id, mut task)) if not_before == 0 && task.not_before > 0 => {
                task.not_before = 0;
                task.save(rows, id);
            }
            Some(_) => {}
            None => {
                let kind = Kind::GetObject { space: row.number };
                let task = StoredTask {
                    kind,
                    not_before,
                    parked: false,
                };
                row.asked = Some(task.queue(rows)?);
                row.save(rows);
            }
        }
        Ok(())
    }

    /// A newer head: its segments are got, then it takes the place of the one that is known.
    fn take_incoming(
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
                return self.refuse_segment(rows, &mut row, &keys, error);
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
        let entries = match opened {
            Ok(entries) if entries.entries().len() == segment.records as usize => entries,
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

    /// A device of ours named it, and it is not to be had: the head is not taken.
    fn refuse_segment(
        &self,
        rows: &mut Staged<'_>,
        row: &mut SpaceRow,
        keys: &Keys,
        error: LogError,
    ) -> Result<(), StepError> {
        let space = row.space.clone();
        event::record(rows, &Event::MemoryRefused { space, error })?;
        self.give_up_incoming(rows, row, keys, &[])
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
        if row.missing_since == 0 || row.missing_since > env.now {
            row.missing_since = env.now;
            row.save(rows);
        }
        self.ask_for_head(rows, &mut row, env.now.saturating_add(AGAIN_MS))
    }

    /// The server still shows the head of which a segment is missing. It is asked for again; after an hour the log goes on
    /// without what is lost.
    fn still_missing(
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
                return self.refuse_segment(rows, row, keys, error);
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
        self.heads_moved(rows, env)
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
    fn give_up_incoming(
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

    /// Asks the server for what other devices wrote: the list of spaces, every head, and blobs that it lacked before.
    ///
    /// # Errors
    /// `NotLinked`: this device has no keys yet. What the store answers.
    pub fn memory_refresh(
        &mut self,
        rows: &mut Staged<'_>,
        env: &mut Env<'_>,
    ) -> Result<(), StepError> {
        self.root_space(rows, env)?;
        let mut state = MemoryState::load(rows)?.unwrap_or_default();
        state.refreshed = env.now;
        state.save(rows);
        for mut row in SpaceRow::all(rows)? {
            row.waited = 0;
            row.save(rows);
            self.ask_for_head(rows, &mut row, 0)?;
        }
        Ok(blobs::ask_for_missing(rows)?)
    }

    /// Until when this device knows everything that reached the server: when it asked last for all heads, in milliseconds. `None` while
    /// an answer is missing.
    ///
    /// # Errors
    /// What the store answers.
    pub fn memory_known_as_of(&self, rows: &dyn Rows) -> Result<Option<u64>, StepError> {
        let is_open = |row: &SpaceRow| !row.known || row.asked.is_some() || row.incoming.is_some();
        if SpaceRow::all(rows)?.iter().any(is_open) {
            return Ok(None);
        }
        let state = MemoryState::load(rows)?;
        Ok(state.map(|state| state.refreshed).filter(|at| *at > 0))
    }
}

fn put_off(rows: &mut Staged<'_>, env: &Env<'_>, id: TaskId) -> Result<(), StepError> {
    if let Some(mut task) = StoredTask::load(rows, id)? {
        task.not_before = env.now.saturating_add(AGAIN_MS);
        task.save(rows, id);
    }
    Ok(())
}
