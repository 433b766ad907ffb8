//! Tasks that end, and what the user decides ("The protocol", appendix "Directory", and §8).

use sprag_store::{Rows, Staged};
use sprag_wire::{DeviceAddress, UserId};
use zeroize::Zeroizing;

use crate::error::StepError;
use crate::event::{self, Event};
use crate::outgoing::CopyStatus;
use crate::own::{Device, Env};
use crate::task::{Kind, StoredTask, TaskId};
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
    /// The server holds a newer list than the one that our lists follow.
    Conflict(Vec<u8>),
}

impl Device {
    /// The network did a task. Twice is once. Fetches end with `supply`: for them this changes nothing.
    ///
    /// # Errors
    /// What the store answers; nothing is changed then.
    pub fn done(&self, rows: &mut Staged<'_>, id: TaskId) -> Result<(), StepError> {
        let Some(task) = StoredTask::load(rows, id)? else {
            return Ok(());
        };
        match &task.kind {
            Kind::FetchDevices { .. } | Kind::FetchBundles { .. } => return Ok(()),
            Kind::Deliver { sequence, copy, .. } => receipts::handed_over(rows, *sequence, *copy)?,
            Kind::PublishPreKeys(_) | Kind::PublishDevices { .. } => {}
        }
        task.delete(rows, id);
        Ok(())
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
        match failure {
            Failure::NotYet(after) | Failure::Full(after) => {
                task.not_before = env.now.saturating_add(*after);
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
            Failure::NoSuchUser => {
                self.undeliverable(rows, &task.kind, CopyStatus::NoSuchUser)?;
                task.delete(rows, id);
            }
            Failure::NoSuchDevice(list) => {
                self.undeliverable(rows, &task.kind, CopyStatus::NoSuchDevice)?;
                task.delete(rows, id);
                if let Some(list) = list {
                    self.newer_list_came(rows, id, &task.kind, list)?;
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
            Kind::PublishPreKeys(_) | Kind::PublishDevices { .. } => self.address.user(),
        };
        match self.learn_from_server(rows, &user.clone(), frame) {
            Err(StepError::Protocol(error)) => Ok(event::record(
                rows,
                &Event::ReplyRefused { task: id, error },
            )?),
            other => other,
        }
    }

    pub(crate) fn undeliverable(
        &self,
        rows: &mut Staged<'_>,
        kind: &Kind,
        status: CopyStatus,
    ) -> Result<(), StepError> {
        match kind {
            Kind::Deliver { sequence, copy, .. } => {
                receipts::undeliverable(rows, *sequence, *copy, status)?
            }
            Kind::FetchBundles { user, devices } => {
                let devices = match devices.as_slice() {
                    [] => peers::devices_with_record(rows, user)?,
                    some => some
                        .iter()
                        .map(|device| DeviceAddress::new(user.clone(), *device))
                        .collect(),
                };
                receipts::unreachable_user(rows, user, &devices, status)?;
            }
            _ => {}
        }
        Ok(())
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
        self.list_ready(rows, env, name)
    }
}
