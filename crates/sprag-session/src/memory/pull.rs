//! What the server has of a space: judged, fetched and merged ("Memories", *How it travels*).

use sprag_store::{Rows, Staged, StoreError};
use sprag_wire::UnverifiedDeviceList;
use sprag_wire::relay::Object;
use sprag_x3dh::DeviceList;

use super::blobs::{self};
use super::head::{Head, Seen};
use super::push::{Keys, end_task, get_head, stored_head};
use super::spaces::{MAX_TAG, MemoryState, SpaceRow, mark_busy, removal_epoch};
use super::unpublished::Unpublished;
use super::{LogError, MAX_HEAD};
use crate::error::{ProtocolError, StepError};
use crate::event::{self, Event};
use crate::own::{Device, Env};
use crate::tables;
use crate::task::{Kind, StoredTask, TaskId};

/// What cannot be judged yet is asked for again after this long: one minute, then two, four, ..
pub(super) const AGAIN_MS: u64 = 60_000;
/// A list that the server has comes before a head was asked for so often, which takes an hour.
const OFTEN: u32 = 7;
/// .. and an hour at most.
const LATEST_AGAIN_MS: u64 = 3_600_000;

/// A reply about a head, in its parts.
pub(super) struct Reply {
    pub(super) tag: Vec<u8>,
    pub(super) value: Vec<u8>,
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
        let is_same = reply.tag == row.tag;
        if reply.value.is_empty() && !reply.tag.is_empty() && !is_same {
            return Err(ProtocolError::Malformed.into());
        }
        row.asked = None;
        row.known = true;
        row.save(rows);
        // Without a tag there is no head: that is the same only as long as we know of none, either.
        if reply.value.is_empty() && is_same && (row.head == 0 || !reply.tag.is_empty()) {
            mark_busy(rows, space);
            return Ok(());
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
            Err(LogError::NotYet) => return self.head_is_unreadable(rows, env, row, &keys, reply),
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
            // Once is an answer that was late; a server that goes on like that does not keep us busy.
            let not_before = if row.flight.is_some() && row.waited > 0 {
                env.now.saturating_add(patience(row.waited - 1))
            } else {
                0
            };
            row.waited = row.waited.saturating_add(1);
            return self.launch(rows, row, not_before);
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

    /// A head that cannot be judged yet is waited for, unless it never will be: then the log goes on without it, as without
    /// what a server lost.
    fn head_is_unreadable(
        &mut self,
        rows: &mut Staged<'_>,
        env: &mut Env<'_>,
        row: &mut SpaceRow,
        keys: &Keys,
        reply: Reply,
    ) -> Result<(), StepError> {
        let hopeless = self.why_hopeless(rows, row, keys, &reply.value)?;
        let Some(error) = hopeless.filter(|_| row.head > 0 && row.may_refill(env.now)) else {
            return self.wait_for_keys_of(rows, env, row);
        };
        let space = row.space.clone();
        event::record(rows, &Event::MemoryRefused { space, error })?;
        self.give_up_incoming(rows, row, keys, &[])?;
        self.give_up_flight(rows, row, keys, None)?;
        row.count_refill(env.now);
        row.tag = reply.tag;
        row.known = true;
        row.restart = true;
        row.save(rows);
        mark_busy(rows, row.number);
        Ok(())
    }

    /// Why a head that is `NotYet` will never be read: a device that was removed since wrote it, under a key or a list of its
    /// own making; or it is under a list that the server, asked again and again, does not have.
    fn why_hopeless(
        &self,
        rows: &dyn Rows,
        row: &SpaceRow,
        keys: &Keys,
        bytes: &[u8],
    ) -> Result<Option<LogError>, StepError> {
        let signer = Head::signer_of(&keys.generations, &row.space, &keys.name, bytes);
        if let Some(signer) = signer {
            let mut listed = keys.list.devices().iter();
            let was_removed = rows.get(&tables::own_number(signer))?.is_some()
                && !listed.any(|entry| entry.device().get() == signer);
            return Ok(was_removed.then_some(LogError::UnlistedDevice));
        }
        let (epoch, _, _) = super::generation_of(bytes)?;
        let removal = removal_epoch(rows)?;
        let newest = self.writing_generation(rows)?;
        if epoch < removal && newest.is_some_and(|newest| newest.epoch >= removal) {
            return Ok(Some(LogError::Stale));
        }
        let invented = epoch > keys.list.epoch() && row.waited >= OFTEN;
        Ok(invented.then_some(LogError::Damaged))
    }

    /// A generation, or a list, is not here yet: what is sealed under it is not overwritten. It is asked for again soon, and
    /// then at ever longer intervals. A device that is on its list no more gets none: it does not ask by itself.
    pub(super) fn wait_for_keys_of(
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
        let after = patience(row.waited);
        row.waited = row.waited.saturating_add(1);
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
    /// an answer is missing, and while the server lacks something that was written here: the others go by what was before that.
    ///
    /// # Errors
    /// What the store answers.
    pub fn memory_known_as_of(&self, rows: &dyn Rows) -> Result<Option<u64>, StepError> {
        for row in SpaceRow::all(rows)? {
            let is_open = !row.known || row.asked.is_some() || row.incoming.is_some();
            if is_open || !Unpublished::first(rows, row.number)?.is_empty() {
                return Ok(None);
            }
        }
        let state = MemoryState::load(rows)?;
        Ok(state.map(|state| state.refreshed).filter(|at| *at > 0))
    }
}

/// How long is waited after so many attempts, in milliseconds.
fn patience(attempts: u32) -> u64 {
    let after = AGAIN_MS.saturating_mul(1 << attempts.min(6));
    after.min(LATEST_AGAIN_MS)
}

fn put_off(rows: &mut Staged<'_>, env: &Env<'_>, id: TaskId) -> Result<(), StepError> {
    if let Some(mut task) = StoredTask::load(rows, id)? {
        task.not_before = env.now.saturating_add(AGAIN_MS);
        task.save(rows, id);
    }
    Ok(())
}
