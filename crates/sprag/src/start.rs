//! Every verb as something that has begun: a [`Pending`]. The blocking verbs of [`Client`] wait for these.

use sprag_session::{Failure, InboxId, MessageId, ProtocolError, Task, TaskId};
use sprag_store::Rows;
use sprag_wire::{ScanError, ScannableFingerprint, UserId};

use crate::Error;
use crate::client::{Client, Write};
use crate::party::Party;
use crate::pending::Pending;
use crate::types::{Contact, Message, NumberedEvent, Received, SafetyNumber, Status};

/// Tasks and messages in one answer.
const PAGE: usize = 256;

/// The verbs of a [`Client`] as futures. A verb runs at once, whether or not its [`Pending`] is looked at.
#[derive(Debug, Clone, Copy)]
pub struct Start<'a>(pub(crate) &'a Client);

fn user_id(user: &str) -> Result<UserId, Error> {
    UserId::new(user).map_err(|_| Error::bad_input())
}

impl Start<'_> {
    /// See [`Client::send_encrypted_message`].
    pub fn send_encrypted_message(self, user: &str, message: &[u8]) -> Pending<MessageId> {
        self.send(None, user, message)
    }

    /// See [`Client::send_encrypted_message_as`].
    pub fn send_encrypted_message_as(
        self,
        id: MessageId,
        user: &str,
        message: &[u8],
    ) -> Pending<MessageId> {
        self.send(Some(id), user, message)
    }

    fn send(self, id: Option<MessageId>, user: &str, message: &[u8]) -> Pending<MessageId> {
        self.0.shared.step(Write::Durable, |mut step| {
            let id = id.unwrap_or_else(|| step.env.new_message_id());
            step.device
                .send(step.rows, &mut step.env, &user_id(user)?, message, id)?;
            Ok(id)
        })
    }

    /// See [`Client::receive_encrypted_message`].
    pub fn receive_encrypted_message(self, envelope: &[u8]) -> Pending<Received> {
        self.0.shared.step(Write::Durable, |mut step| {
            Ok(Received::new(step.device.take_envelope(
                step.rows,
                &mut step.env,
                envelope,
            )?))
        })
    }

    /// See [`Client::inbox`].
    pub fn inbox(self) -> Pending<Vec<Message>> {
        self.0.shared.step(Write::Durable, |step| {
            Ok(step
                .device
                .inbox(step.rows, PAGE)?
                .into_iter()
                .map(Message::new)
                .collect())
        })
    }

    /// See [`Client::acknowledge`].
    pub fn acknowledge(self, id: InboxId) -> Pending<()> {
        self.0.shared.step(Write::Lazy, |step| {
            Ok(step.device.acknowledge(step.rows, id)?)
        })
    }

    /// See [`Client::tasks`].
    pub fn tasks(self) -> Pending<Vec<Task>> {
        self.0.shared.step_either(
            Write::Durable,
            |mut step| {
                let now = step.env.now();
                step.device.prepare(step.rows, &mut step.env)?;
                step.device.go_on_restoring(step.rows, &mut step.env)?;
                if step.rows.changes().is_empty() {
                    step.device.check_alive(step.rows, now)?;
                }
                Ok(step.device.tasks(step.rows, now, PAGE)?)
            },
            |step| {
                let now = step.env.now();
                if step.linking.is_over(now) {
                    step.linking.end(step.rows)?;
                    *step.next = Some(Party::Ended(step.linking.user().clone()));
                    return Ok(Vec::new());
                }
                Ok(step.linking.tasks(step.rows, now)?)
            },
        )
    }

    /// See [`Client::reset`].
    pub fn reset(self, user: &str) -> Pending<()> {
        self.0.shared.step(Write::Durable, |step| {
            step.device.check_ready(step.rows, step.env.now())?;
            Ok(step.device.reset(step.rows, &user_id(user)?)?)
        })
    }

    /// See [`Client::supply`].
    pub fn supply(self, id: TaskId, reply: &[u8]) -> Pending<()> {
        // What was learned is kept also when the reply as a whole is refused.
        let supplied = self.0.shared.step_either(
            Write::Durable,
            |mut step| Ok(step.device.supply(step.rows, &mut step.env, id, reply)?),
            |mut step| {
                if step.linking.is_over(step.env.now()) {
                    return Err(Error::link_expired());
                }
                let supplied = step.linking.supply(step.rows, &mut step.env, id, reply)?;
                Ok(supplied.map(|device| {
                    *step.next = device.map(|device| Party::Device(Box::new(device)));
                }))
            },
        );
        supplied.and_then(|outcome| outcome.map_err(Error::from))
    }

    /// See [`Client::supply_pre_key_state`].
    pub fn supply_pre_key_state(self, state: &[u8]) -> Pending<()> {
        self.0.shared.step(Write::Durable, |mut step| {
            Ok(step.device.server_state(step.rows, &mut step.env, state)?)
        })
    }

    /// See [`Client::done`].
    pub fn done(self, id: TaskId) -> Pending<()> {
        self.0.shared.step_either(
            Write::Lazy,
            |step| {
                step.device.note_done(step.rows, &step.env, id)?;
                // What follows from a new list of ours is waited for.
                if step.device.is_list_change(step.rows, id)? {
                    step.write.set(Write::Durable);
                }
                Ok(step.device.done(step.rows, id)?)
            },
            // A fetch ends with its reply.
            |_| Ok(()),
        )
    }

    /// See [`Client::failed`].
    pub fn failed(self, id: TaskId, failure: &Failure) -> Pending<()> {
        self.0.shared.step_either(
            Write::Durable,
            |mut step| Ok(step.device.failed(step.rows, &mut step.env, id, failure)?),
            |step| Ok(step.linking.failed(step.rows, &step.env, id, failure)?),
        )
    }

    /// See [`Client::retry`].
    pub fn retry(self, id: TaskId) -> Pending<()> {
        self.0.shared.step(Write::Durable, |step| {
            Ok(step.device.retry(step.rows, id)?)
        })
    }

    /// See [`Client::accept`].
    pub fn accept(self, user: &str) -> Pending<()> {
        self.0.shared.step(Write::Durable, |mut step| {
            Ok(step
                .device
                .accept_user(step.rows, &mut step.env, &user_id(user)?)?)
        })
    }

    /// See [`Client::accept_identity`].
    pub fn accept_identity(self, user: &str, digits: &str) -> Pending<()> {
        self.0.shared.step(Write::Durable, |mut step| {
            let user = user_id(user)?;
            Ok(step
                .device
                .accept_identity(step.rows, &mut step.env, &user, digits)?)
        })
    }

    /// See [`Client::status`].
    pub fn status(self, id: MessageId) -> Pending<Option<Vec<Status>>> {
        self.0.shared.step(Write::Durable, |step| {
            let status = step.device.status(step.rows, id)?;
            Ok(status.map(|copies| {
                copies
                    .into_iter()
                    .map(|(to, status)| Status { to, status })
                    .collect()
            }))
        })
    }

    /// See [`Client::contact`].
    pub fn contact(self, user: &str) -> Pending<Option<Contact>> {
        self.0.shared.step(Write::Durable, |step| {
            let known = step.device.contact(step.rows, &user_id(user)?)?;
            Ok(known.map(|known| Contact {
                user: known.user.as_str().to_owned(),
                accepted: known.accepted,
                changed: known.changed,
                devices: known.devices.iter().map(|device| device.get()).collect(),
            }))
        })
    }

    /// See [`Client::safety_number`].
    pub fn safety_number(self, user: &str) -> Pending<Option<SafetyNumber>> {
        self.0.shared.step(Write::Durable, |step| {
            let number = step
                .device
                .safety_number(step.rows as &dyn Rows, &user_id(user)?)?;
            Ok(number.map(|number| SafetyNumber {
                digits: number.digits(),
                code: ScannableFingerprint::of(&number).encode(),
            }))
        })
    }

    /// See [`Client::changed_safety_number`].
    pub fn changed_safety_number(self, user: &str) -> Pending<Option<SafetyNumber>> {
        self.0.shared.step(Write::Durable, |step| {
            let rows = step.rows as &dyn Rows;
            let number = step.device.changed_safety_number(rows, &user_id(user)?)?;
            Ok(number.map(|number| SafetyNumber {
                digits: number.digits(),
                code: ScannableFingerprint::of(&number).encode(),
            }))
        })
    }

    /// See [`Client::compare_safety_number`].
    pub fn compare_safety_number(self, user: &str, scanned: &[u8]) -> Pending<Option<bool>> {
        self.0.shared.step(Write::Durable, |step| {
            let number = step
                .device
                .safety_number(step.rows as &dyn Rows, &user_id(user)?)?;
            number
                .map(|number| ScannableFingerprint::compare(&number, scanned))
                .transpose()
                .map_err(|error| match error {
                    ScanError::VersionMismatch { .. } => ProtocolError::UnsupportedVersion.into(),
                    _ => ProtocolError::Malformed.into(),
                })
        })
    }

    /// See [`Client::events`].
    pub fn events(self, since: u64) -> Pending<Vec<NumberedEvent>> {
        let away = self.0.shared.anchor_is_away();
        let numbered = |events: Vec<(u64, sprag_session::Event)>| {
            events
                .into_iter()
                .map(|(number, event)| NumberedEvent { number, event })
                .collect()
        };
        self.0.shared.step_either(
            Write::Durable,
            move |step| {
                if let Some(away) = away {
                    step.device.note_anchor(step.rows, away)?;
                }
                Ok(numbered(step.device.events(step.rows, since)?))
            },
            move |step| Ok(numbered(step.linking.events(step.rows, since)?)),
        )
    }

    /// See [`Client::expire`].
    pub fn expire(self) -> Pending<()> {
        self.0.shared.step(Write::Durable, |step| {
            Ok(step.device.expire(step.rows, step.env.now())?)
        })
    }

    /// See [`Client::changed`].
    pub fn changed(self, since: u64) -> Pending<u64> {
        self.0.shared.changed(since)
    }

    /// See [`Client::close`].
    pub fn close(self) -> Pending<()> {
        self.0.shared.close()
    }
}
