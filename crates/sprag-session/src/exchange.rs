//! Tasks that end, and what the user decides ("The protocol", appendix "Directory", and §8).

use sprag_store::{Rows, Staged};
use sprag_wire::{DeviceAddress, DeviceId, UserId};
use zeroize::Zeroizing;

use crate::error::{ProtocolError, StepError};
use crate::event::{self, Event};
use crate::outgoing::{CopyStatus, Outgoing};
use crate::own::{Device, Env};
use crate::task::{Kind, PUT_OFF_MS, StoredTask, TaskId};
use crate::{peers, receipts, tables};

/// Why a fresh session is wanted: for a reset. Empty: to heal.
pub(crate) const RESET: &[u8] = b"reset";

/// Why the network could not do a task.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Failure {
    /// The server knows no such user.
    NoSuchUser,
    /// The device is not on its user's list (any more); the newer list, if the server gave it.
    NoSuchDevice(Option<Vec<u8>>),
    /// Not now; again after so many milliseconds.
    NotYet(u64),
    /// The receiver's queue is full; again after so many milliseconds.
    Full(u64),
    /// The server refused, with a code of its own. The task waits until the application says `retry`.
    Refused(u32),
    /// The server holds a newer list than the one that our lists follow; or another object than the one expected, which
    /// is given.
    Conflict(Vec<u8>),
    /// The server does not have the blob that was asked for.
    NoSuchBlob,
}

/// What a server does not know although it has shown it is asked for again after this long: ten minutes.
const ASK_FOR_GONE_MS: u64 = 600_000;
const DAY_MS: u64 = 24 * 3_600 * 1_000;

fn is_of_today(sent_at: u64, now: u64) -> bool {
    now.abs_diff(sent_at) < DAY_MS
}

impl Device {
    /// The network did a task. Twice is once. Fetches end with `supply`: for them this changes nothing.
    ///
    /// # Errors
    /// What the store answers; nothing is changed then.
    pub fn done(&mut self, rows: &mut Staged<'_>, id: TaskId) -> Result<(), StepError> {
        let Some(task) = StoredTask::load(rows, id)? else {
            return Ok(());
        };
        match &task.kind {
            Kind::FetchDevices { .. }
            | Kind::FetchBundles { .. }
            | Kind::PutObject { .. }
            | Kind::GetObject { .. }
            | Kind::GetBlob { .. } => return Ok(()),
            Kind::PutBlob { .. } | Kind::DropBlob { .. } => self.blob_done(rows, &task.kind)?,
            Kind::Deliver { sequence, copy, .. } => receipts::handed_over(rows, *sequence, *copy)?,
            Kind::PublishDevices { from } => {
                if !self.lists_published(rows, id, *from)? {
                    return Ok(());
                }
            }
            Kind::PublishPreKeys(plan) => self.upload_taken(rows, plan)?,
        }
        task.delete(rows, id);
        Ok(())
    }

    /// Whether `done` of this task is more than a row less: then whoever waits for changes is to hear of it.
    ///
    /// # Errors
    /// What the store answers.
    pub fn is_list_change(&self, rows: &dyn Rows, id: TaskId) -> Result<bool, StepError> {
        let task = StoredTask::load(rows, id)?;
        Ok(task.is_some_and(|task| matches!(task.kind, Kind::PublishDevices { .. })))
    }

    /// The network could not do a task; the library decides what follows. Twice is once.
    ///
    /// # Errors
    /// What the store answers; nothing is changed then.
    pub fn failed(
        &mut self,
        rows: &mut Staged<'_>,
        env: &mut Env<'_>,
        id: TaskId,
        failure: &Failure,
    ) -> Result<(), StepError> {
        let Some(mut task) = StoredTask::load(rows, id)? else {
            return Ok(());
        };
        if let Kind::FetchDevices { user, .. } = &task.kind {
            self.list_failed(rows, env, user)?;
        }
        match failure {
            Failure::NotYet(after) | Failure::Full(after) => {
                let after = if task.kind.is_put_off_shortly() {
                    (*after).min(PUT_OFF_MS)
                } else {
                    *after
                };
                task.not_before = env.now.saturating_add(after);
                task.save(rows, id);
            }
            Failure::Refused(code) => {
                task.parked = true;
                task.save(rows, id);
                event::record(
                    rows,
                    &Event::TaskRefused {
                        task: id,
                        code: *code,
                    },
                )?;
            }
            Failure::NoSuchUser if self.restore_finds_nothing(rows, env, id, &task)? => {}
            Failure::NoSuchUser => self.gone(rows, env, id, task, CopyStatus::NoSuchUser)?,
            Failure::NoSuchDevice(list) => {
                if let Some(list) = list {
                    self.newer_list_came(rows, id, &task.kind, list)?;
                }
                // What the newer list leaves out has ended with it.
                if StoredTask::load(rows, id)?.is_some() {
                    self.gone(rows, env, id, task, CopyStatus::NoSuchDevice)?;
                }
            }
            Failure::Conflict(list) if matches!(task.kind, Kind::PublishDevices { .. }) => {
                self.list_conflict(rows, env, id, task, list)?;
            }
            Failure::Conflict(object) if let Kind::PutObject { space } = task.kind => {
                self.put_conflicts(rows, env, id, space, object)?;
            }
            Failure::NoSuchBlob => {
                if let Kind::GetBlob { name } = &task.kind {
                    self.blob_is_missing(rows, env, name)?;
                    task.delete(rows, id);
                }
            }
            Failure::Conflict(list) => {
                self.newer_list_came(rows, id, &task.kind, list)?;
                task.parked = true;
                task.save(rows, id);
            }
        }
        Ok(())
    }

    /// The server does not know whom the task is for. If it has shown him before, it may have gone back and hear of him
    /// again: he is asked for for a day. A session that heals is wanted for as long as its device is listed.
    fn gone(
        &mut self,
        rows: &mut Staged<'_>,
        env: &mut Env<'_>,
        id: TaskId,
        mut task: StoredTask,
        status: CopyStatus,
    ) -> Result<(), StepError> {
        let waits = match &task.kind {
            Kind::Deliver { to, sequence, .. } => {
                let sent = Outgoing::load(rows, *sequence)?;
                self.was_shown(rows, to.user(), Some(to))?
                    && sent.is_some_and(|sent| is_of_today(sent.sent_at, env.now))
            }
            Kind::FetchBundles { user, devices } => {
                let devices = self.devices_of_fetch(rows, user, devices)?;
                let known = self.was_shown(rows, user, None)?;
                let after = if known { env.now } else { u64::MAX };
                receipts::unreachable_user(rows, user, &devices, status, |sent_at| {
                    is_of_today(sent_at, after)
                })?;
                let mut waits = receipts::waits_for_list(rows, user)?;
                for device in &devices {
                    let wanted = tables::wants_fresh(&tables::device_owner(device));
                    let listed = self.was_shown(rows, user, Some(device))?;
                    waits |= listed && rows.get(&wanted)?.is_some();
                    waits |= self.is_waited_for(rows, device)?;
                }
                waits
            }
            _ => false,
        };
        if waits {
            task.not_before = env.now.saturating_add(ASK_FOR_GONE_MS);
            task.save(rows, id);
            return Ok(());
        }
        if let Kind::Deliver { sequence, copy, .. } = &task.kind {
            receipts::undeliverable(rows, *sequence, *copy, status)?;
        }
        task.delete(rows, id);
        if let Kind::FetchDevices { user, from } = &task.kind {
            // That is an answer, too: there is no list that could change anything.
            self.list_was_fetched(rows, env, user, *from)?;
        }
        Ok(())
    }

    /// Whether a server has shown a list of the user, and (if given) the device is on the newest.
    fn was_shown(
        &self,
        rows: &dyn Rows,
        name: &UserId,
        device: Option<&DeviceAddress>,
    ) -> Result<bool, StepError> {
        let user = self.user(rows, name)?.filter(|user| user.from_server);
        Ok(user
            .is_some_and(|user| device.is_none_or(|device| user.listed(device.device()).is_some())))
    }

    fn devices_of_fetch(
        &self,
        rows: &dyn Rows,
        user: &UserId,
        devices: &[DeviceId],
    ) -> Result<Vec<DeviceAddress>, StepError> {
        if devices.is_empty() {
            return Ok(peers::devices_with_record(rows, user)?);
        }
        Ok(devices
            .iter()
            .map(|device| DeviceAddress::new(user.clone(), *device))
            .collect())
    }

    pub(crate) fn newer_list_came(
        &mut self,
        rows: &mut Staged<'_>,
        id: TaskId,
        kind: &Kind,
        frame: &[u8],
    ) -> Result<(), StepError> {
        let user = match kind {
            Kind::Deliver { to, .. } => to.user(),
            Kind::FetchDevices { user, .. } | Kind::FetchBundles { user, .. } => user,
            _ => self.address.user(),
        };
        match self.learn_from_server(rows, &user.clone(), frame) {
            // A server that went back shows an older one.
            Err(StepError::Protocol(ProtocolError::StaleList)) => Ok(()),
            Err(StepError::Protocol(error)) => Ok(event::record(
                rows,
                &Event::ReplyRefused { task: id, error },
            )?),
            other => other,
        }
    }

    /// Replaces all sessions with a user, as after a suspected theft: fresh ones are opened, and what was held before is
    /// read here for late messages, and never sent on or made current again by either side.
    ///
    /// # Errors
    /// `NeedsBundle` if the user is not accepted and nothing of his came from the server; what the store answers.
    pub fn reset(&mut self, rows: &mut Staged<'_>, name: &UserId) -> Result<(), StepError> {
        self.accept(rows, name)?;
        let user = self.user(rows, name)?;
        for entry in user.iter().flat_map(|user| user.newest.devices()) {
            let address = DeviceAddress::new(name.clone(), entry.device());
            if entry.identity_key() != self.identity.public() {
                let wanted = tables::wants_fresh(&tables::device_owner(&address));
                rows.put(wanted, Zeroizing::new(RESET.to_vec()));
                self.want_bundles(rows, name, Some(entry.device()), 0)?;
            }
        }
        Ok(())
    }

    /// A task that a server refused is offered again.
    ///
    /// # Errors
    /// What the store answers; nothing is changed then.
    pub fn retry(&self, rows: &mut Staged<'_>, id: TaskId) -> Result<(), StepError> {
        if let Some(mut task) = StoredTask::load(rows, id)? {
            task.parked = false;
            task.not_before = 0;
            task.save(rows, id);
        }
        Ok(())
    }

    /// As [`accept_user`](Self::accept_user), of the identity whose safety number was compared: the changed one if one
    /// waits for a decision, else the one remembered.
    ///
    /// # Errors
    /// `UntrustedIdentity` if the number is not that of what would be accepted; as there.
    pub fn accept_identity(
        &mut self,
        rows: &mut Staged<'_>,
        env: &mut Env<'_>,
        name: &UserId,
        digits: &str,
    ) -> Result<(), StepError> {
        let number = match self.changed_safety_number(rows, name)? {
            Some(number) => Some(number),
            None => self.safety_number(rows, name)?,
        };
        let given: String = digits
            .chars()
            .filter(|digit| !digit.is_whitespace())
            .collect();
        let number = number.ok_or(ProtocolError::NeedsBundle)?;
        if number.digits() != given {
            return Err(ProtocolError::UntrustedIdentity.into());
        }
        self.accept_user(rows, env, name)
    }

    /// The user decided to go on with somebody: as remembered, or with the changed identity that the server showed last.
    ///
    /// # Errors
    /// `NeedsBundle` if nothing of his came from the server yet, or what the store answers.
    pub fn accept_user(
        &mut self,
        rows: &mut Staged<'_>,
        env: &mut Env<'_>,
        name: &UserId,
    ) -> Result<(), StepError> {
        let candidate = tables::candidate(name);
        match rows.get(&candidate)? {
            Some(frame) => {
                self.accept_list(rows, name, &frame)?;
                rows.delete(candidate);
            }
            None => self.accept(rows, name)?,
        }
        self.resume_fetches(rows, name)?;
        self.list_ready(rows, env, name)?;
        self.user_was_accepted(rows, env, name)
    }
}
