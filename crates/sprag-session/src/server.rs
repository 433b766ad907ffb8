//! What the server remembers of us, and what it is given again when it went back ("The protocol", appendix "Directory",
//! *Prekeys* and *Epoch*).

use sprag_store::{Rows, Staged, StoreError};
use sprag_wire::relay::PreKeyState;
use zeroize::Zeroizing;

use crate::codec::{Reader, Writer};
use crate::error::{ProtocolError, StepError};
use crate::event::{self, Event};
use crate::outbox::OUTBOX_MS;
use crate::outgoing::{Copy, CopyStatus, Outgoing};
use crate::own::{Counters, Device, Env};
use crate::prekeys::{self, Due, UploadPlan};
use crate::replies::MAX_REPLY;
use crate::task::{Kind, StoredTask, TaskId};
use crate::upkeep::{REPLACE_MS, Upkeep};
use crate::{chunks, tables};

/// A server that lacks prekeys gets more at most this often: once an hour.
const REFILL_MS: u64 = 3_600_000;
/// Frames that one copy of a message may take: the first, three that were asked for, eight for servers that went back.
const FRAMES_OF_COPY: usize = 12;
/// Messages that one step delivers again, and about how many bytes.
const AGAIN_AT_ONCE: u32 = 64;
const AGAIN_BYTES: usize = 4 << 20;
/// A server's numbers are followed this far above ours and no further: it may not use them up.
const LEAP: u32 = 1 << 20;

const VERSION: u8 = 1;

impl Device {
    /// What the server holds of our prekeys, a `PreKeyState` that no task asked for. Tasks follow from it if something is
    /// missing there, or the server went back.
    ///
    /// # Errors
    /// `Malformed`, or what the store answers; nothing is changed then.
    pub fn server_state(
        &mut self,
        rows: &mut Staged<'_>,
        env: &mut Env<'_>,
        state: &[u8],
    ) -> Result<(), StepError> {
        let state = decode(state)?;
        Upkeep::told(rows, env.now)?;
        if self.note_epoch(rows, &state.epoch)? {
            return self.server_began_anew(rows, env);
        }
        // What the server refused it will not take: it gives way to what its state asks for.
        let refused = self.drop_refused_uploads(rows)?;
        // An upload that is under way brings a state of its own.
        if !self.uploads(rows)?.is_empty() {
            return Ok(());
        }
        self.compare_state(rows, env, &state, refused)
    }

    fn drop_refused_uploads(&self, rows: &mut Staged<'_>) -> Result<bool, StepError> {
        let mut refused = false;
        for (id, _) in chunks::sequences(rows, tables::TASKS, <[u8]>::is_empty)? {
            let id = TaskId::new(id);
            if let Some(task) = StoredTask::load(rows, id)?
                && task.parked
                && matches!(task.kind, Kind::PublishPreKeys(_))
            {
                task.delete(rows, id);
                refused = true;
            }
        }
        Ok(refused)
    }

    /// The same as the reply to an upload, which ends.
    pub(crate) fn pre_key_state_came(
        &mut self,
        rows: &mut Staged<'_>,
        env: &mut Env<'_>,
        (id, task, plan): (TaskId, &StoredTask, &UploadPlan),
        reply: &[u8],
    ) -> Result<(), StepError> {
        let state = decode(reply)?;
        task.delete(rows, id);
        if state.number == plan.number {
            self.upload_taken(rows, plan)?;
        }
        Upkeep::told(rows, env.now)?;
        if self.note_epoch(rows, &state.epoch)? {
            return self.server_began_anew(rows, env);
        }
        if !self.uploads(rows)?.is_empty() {
            // Another upload is under way; its state will tell.
            return Ok(());
        }
        self.compare_state(rows, env, &state, false)
    }

    /// The epoch of the server, which it tells on every connection. A new one leads to everything that it may lack.
    ///
    /// # Errors
    /// `BadInput` if it has not 16 bytes, or what the store answers; nothing is changed then.
    pub fn server_epoch(
        &mut self,
        rows: &mut Staged<'_>,
        env: &mut Env<'_>,
        epoch: &[u8],
    ) -> Result<(), StepError> {
        if epoch.len() != 16 {
            return Err(ProtocolError::BadInput.into());
        }
        if self.note_epoch(rows, epoch)? {
            self.server_began_anew(rows, env)?;
        }
        Ok(())
    }

    /// Whether the epoch is another one than before. The first that is seen is no news: everything was just published.
    fn note_epoch(&self, rows: &mut Staged<'_>, epoch: &[u8]) -> Result<bool, StepError> {
        let name = tables::own(tables::OWN_SERVER);
        let known = rows.get(&name)?;
        if known
            .as_ref()
            .is_some_and(|known| known.as_slice() == epoch)
        {
            return Ok(false);
        }
        rows.put(name, Zeroizing::new(epoch.to_vec()));
        Ok(known.is_some())
    }

    fn compare_state(
        &mut self,
        rows: &mut Staged<'_>,
        env: &mut Env<'_>,
        state: &PreKeyState,
        refused: bool,
    ) -> Result<(), StepError> {
        if !prekeys::are_complete(rows)? {
            return self.replace_pre_keys_daily(rows, env);
        }
        let ours = Counters::load(rows)?.upload;
        let due = prekeys::due(rows, state)?;
        raise_counters(rows, state)?;
        match due {
            Due::Nothing => Ok(()),
            Due::TopUp { one_time, kem } => {
                let plan = self.new_one_time(rows, env, (one_time, kem), false)?;
                self.queue_refill(rows, env, plan)
            }
            // It has forgotten what it said it had.
            Due::Replace if state.number < ours && !refused => self.server_began_anew(rows, env),
            Due::Replace => self.replace_foreign(rows, env),
        }
    }

    /// What the server holds is not what we gave it: new prekeys of all kinds, or of the one-time ones alone if that
    /// happened today already.
    fn replace_foreign(
        &mut self,
        rows: &mut Staged<'_>,
        env: &mut Env<'_>,
    ) -> Result<(), StepError> {
        let last = Upkeep::load(rows)?.replaced;
        let today = last != 0 && last <= env.now && env.now - last < REPLACE_MS;
        if !today {
            return self.replace_pre_keys_daily(rows, env);
        }
        let plan = self.new_one_time(rows, env, (prekeys::STOCK, prekeys::STOCK), true)?;
        self.queue_refill(rows, env, plan)
    }

    /// The server was restored from a backup, or began with nothing.
    fn server_began_anew(
        &mut self,
        rows: &mut Staged<'_>,
        env: &mut Env<'_>,
    ) -> Result<(), StepError> {
        // One-time prekeys of an upload that was offered may have been handed out before: they are not offered again.
        let (mut waits, mut lists) = (false, false);
        for (id, _) in chunks::sequences(rows, tables::TASKS, <[u8]>::is_empty)? {
            let id = TaskId::new(id);
            match StoredTask::load(rows, id)? {
                Some(task) if matches!(task.kind, Kind::PublishPreKeys(_)) => {
                    let fresh = matches!(&task.kind, Kind::PublishPreKeys(plan) if plan.replace);
                    if fresh && task.not_before > env.now {
                        waits = true;
                    } else {
                        task.delete(rows, id);
                    }
                }
                Some(task) if matches!(task.kind, Kind::PublishDevices { from: 1 }) => lists = true,
                _ => {}
            }
        }
        if !waits {
            let plan = if prekeys::are_complete(rows)? {
                self.new_one_time(rows, env, (prekeys::STOCK, prekeys::STOCK), true)?
            } else {
                self.new_pre_keys(rows, env)?
            };
            self.queue_refill(rows, env, plan)?;
        }
        if !lists {
            StoredTask::now(Kind::PublishDevices { from: 1 }).queue(rows)?;
        }
        let last = Counters::load(rows)?.sequence;
        Redelivery {
            next: 0,
            last,
            copies: 0,
        }
        .save(rows, self);
        self.give_memories_back(rows, env)?;
        self.deliver_again(rows, env)
    }

    /// Queues an upload, at most hourly: a server that never has enough does not make us fill the disk with private
    /// halves.
    fn queue_refill(
        &self,
        rows: &mut Staged<'_>,
        env: &Env<'_>,
        plan: UploadPlan,
    ) -> Result<(), StepError> {
        let name = tables::own(tables::OWN_REFILLED);
        let last = rows.get(&name)?;
        let last = last.and_then(|last| last.as_slice().try_into().ok());
        let not_before = last
            .map(u64::from_be_bytes)
            .filter(|last| *last <= env.now)
            .map_or(0, |last| last.saturating_add(REFILL_MS));
        let due = not_before.max(env.now);
        rows.put(name, Zeroizing::new(due.to_be_bytes().to_vec()));
        StoredTask {
            kind: Kind::PublishPreKeys(plan),
            not_before,
            parked: false,
        }
        .queue(rows)?;
        Ok(())
    }

    /// Delivers again some of what was sent and not yet named in `received`, if a server went back. Called before tasks
    /// are offered.
    ///
    /// # Errors
    /// What the store answers.
    pub fn deliver_again(
        &mut self,
        rows: &mut Staged<'_>,
        env: &mut Env<'_>,
    ) -> Result<(), StepError> {
        let Some(mut redelivery) = Redelivery::load(rows, self)? else {
            return Ok(());
        };
        let is_header = |rest: &[u8]| rest == 0u32.to_be_bytes();
        let (mut count, mut bytes) = (0, 0);
        for (sequence, _) in chunks::sequences(rows, tables::OUTBOX, is_header)? {
            if sequence < redelivery.next || sequence > redelivery.last {
                continue;
            }
            if count >= AGAIN_AT_ONCE || bytes > AGAIN_BYTES {
                redelivery.next = sequence;
                redelivery.copies = redelivery.copies.saturating_add(count);
                redelivery.save(rows, self);
                return Ok(());
            }
            let Some(outgoing) = Outgoing::load(rows, sequence)? else {
                continue;
            };
            if outgoing.length == 0 || env.now.saturating_sub(outgoing.sent_at) > OUTBOX_MS {
                continue;
            }
            for number in 0..outgoing.copies {
                if self.deliver_copy_again(rows, env, &outgoing, number)? {
                    count += 1;
                    bytes += outgoing.length as usize;
                }
            }
        }
        let again = redelivery.copies.saturating_add(count);
        rows.delete(tables::redelivery(self.address.user()));
        Ok(event::record(rows, &Event::ServerWentBack { again })?)
    }

    fn deliver_copy_again(
        &mut self,
        rows: &mut Staged<'_>,
        env: &mut Env<'_>,
        outgoing: &Outgoing,
        number: u32,
    ) -> Result<bool, StepError> {
        let sequence = outgoing.sequence;
        let copy = Copy::load(rows, sequence, number)?;
        let due = copy.is_some_and(|copy| {
            copy.status == CopyStatus::HandedOver && copy.salts.len() < FRAMES_OF_COPY
        });
        if !due {
            return Ok(false);
        }
        self.seal_again(rows, env, sequence, number)?;
        Ok(true)
    }

    /// The uploads of prekeys that are under way, oldest first.
    pub(crate) fn uploads(
        &self,
        rows: &dyn Rows,
    ) -> Result<Vec<(TaskId, StoredTask, UploadPlan)>, StepError> {
        let mut uploads = Vec::new();
        for (id, _) in chunks::sequences(rows, tables::TASKS, <[u8]>::is_empty)? {
            let id = TaskId::new(id);
            if let Some(task) = StoredTask::load(rows, id)?
                && let Kind::PublishPreKeys(plan) = task.kind
            {
                uploads.push((id, task, plan));
            }
        }
        Ok(uploads)
    }
}

fn decode(state: &[u8]) -> Result<PreKeyState, ProtocolError> {
    if state.len() > MAX_REPLY {
        return Err(ProtocolError::Malformed);
    }
    let state = PreKeyState::decode(state)?;
    if state.epoch.len() != 16 {
        return Err(ProtocolError::Malformed);
    }
    Ok(state)
}

/// A server that is ahead of us, because our store went back, takes only what is above its own numbers.
fn raise_counters(rows: &mut Staged<'_>, state: &PreKeyState) -> Result<(), StoreError> {
    let before = Counters::load(rows)?;
    let mut counters = before;
    if state.number.saturating_sub(before.upload) <= u64::from(LEAP) {
        counters.upload = before.upload.max(state.number);
    }
    let ours = [
        &mut counters.signed_pre_key,
        &mut counters.one_time_pre_key,
        &mut counters.kem_pre_key,
    ];
    for (ours, top) in ours.into_iter().zip(&state.top) {
        if top.saturating_sub(*ours) <= LEAP {
            *ours = (*ours).max(*top);
        }
    }
    if counters != before {
        counters.save(rows);
    }
    Ok(())
}

/// How far the outbox has been delivered again.
struct Redelivery {
    next: u64,
    last: u64,
    copies: u32,
}

impl Redelivery {
    fn load(rows: &dyn Rows, device: &Device) -> Result<Option<Self>, StoreError> {
        let Some(bytes) = rows.get(&tables::redelivery(device.address.user()))? else {
            return Ok(None);
        };
        let mut reader = Reader::new(&bytes, VERSION, "redelivery")?;
        let redelivery = Self {
            next: reader.u64()?,
            last: reader.u64()?,
            copies: reader.u32()?,
        };
        reader.finish()?;
        Ok(Some(redelivery))
    }

    fn save(&self, rows: &mut Staged<'_>, device: &Device) {
        let mut writer = Writer::new(VERSION, 20);
        writer.u64(self.next).u64(self.last).u32(self.copies);
        rows.put(tables::redelivery(device.address.user()), writer.finish());
    }
}
