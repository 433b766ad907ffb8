//! Envelopes that come in ("The protocol", §7 and §11).

use sprag_crypto::Salt;
use sprag_store::{Rows, Staged};
use sprag_wire::{Body, DeviceAddress, Envelope, UserId};
use zeroize::Zeroizing;

use crate::error::{ProtocolError, StepError};
use crate::event::{self, Event};
use crate::inbox::InboxMessage;
use crate::own::{Device, Env};
use crate::peers::Learned;
use crate::tables;
use crate::task::{Kind, StoredTask, TaskId};

/// A list is fetched because of what a frame claims at most this often: once an hour.
const FETCH_LIST_MS: u64 = 3_600_000;

/// What the transport does with an envelope.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Transport {
    /// The server may delete it: it was taken over, read before, or is hopeless.
    Forget,
    /// The server keeps it: it is to be offered again later.
    Keep,
}

/// What an envelope brought.
#[derive(Debug)]
#[non_exhaustive]
pub struct Delivery {
    /// The message, if there was one for the application. It is in the inbox until it is acknowledged.
    pub message: Option<InboxMessage>,
    /// Why the frame was refused. Only [`ProtocolError::BadContent`] has moved the session.
    pub refused: Option<ProtocolError>,
    /// What the transport does with the envelope.
    pub transport: Transport,
}

impl Delivery {
    fn refused(error: ProtocolError, transport: Transport) -> Self {
        Self {
            message: None,
            refused: Some(error),
            transport,
        }
    }
}

impl Device {
    /// Takes an envelope from the server. A refused frame is a result, not an error.
    ///
    /// # Errors
    /// What the store answers; nothing is changed then, and the server keeps the envelope.
    pub fn take_envelope(
        &mut self,
        rows: &mut Staged<'_>,
        env: &mut Env<'_>,
        envelope: &[u8],
    ) -> Result<Delivery, StepError> {
        let envelope = match Envelope::decode(envelope) {
            Ok(envelope) if *envelope.to() == self.address => envelope,
            Ok(_) => {
                return Ok(Delivery::refused(
                    ProtocolError::Malformed,
                    Transport::Forget,
                ));
            }
            Err(error) => return Ok(Delivery::refused(error.into(), Transport::Forget)),
        };
        if !self.inbox_has_room(rows, envelope.from().user())? {
            return Ok(Delivery {
                message: None,
                refused: None,
                transport: Transport::Keep,
            });
        }
        let from = envelope.from().clone();
        let received = match self.receive(rows, env, &from, envelope.payload()) {
            Ok(received) => received,
            Err(StepError::Protocol(error)) => return self.frame_refused(rows, env, &from, error),
            Err(error) => return Err(error),
        };
        self.tell_learned(rows, from.user(), received.learned)?;
        if let Some(
            ProtocolError::UntrustedIdentity | ProtocolError::ForkedList | ProtocolError::StaleList,
        ) = received.list_refused
        {
            self.fetch_list(rows, env, from.user())?;
        }
        let message = self.keep(rows, &received, env.now)?;
        let mut refused = received.content.as_ref().err().copied();
        match &received.content {
            Ok(content) => match content.body() {
                Body::Unsupported => {
                    event::record(rows, &Event::Unsupported { from: from.clone() })?;
                }
                Body::Retry(salts) => {
                    let salts = salts
                        .iter()
                        .filter_map(|salt| salt.as_slice().try_into().ok());
                    let salts: Vec<Salt> = salts.map(Salt::from_bytes).collect();
                    self.answer_retry(rows, env, &from, &salts)?;
                }
                _ => {}
            },
            Err(_) => {
                refused = Some(ProtocolError::BadContent);
                event::record(rows, &Event::BadContent { from: from.clone() })?;
            }
        }
        // A session that can be sent on: what waited for one need not wait for a bundle.
        if rows
            .get(&tables::wants_fresh(&tables::device_owner(&from)))?
            .is_none()
        {
            self.session_ready(rows, env, &from)?;
        }
        Ok(Delivery {
            message,
            refused,
            transport: Transport::Forget,
        })
    }

    /// What a refused frame leads to ("The protocol", §11, column *caller*).
    pub(crate) fn frame_refused(
        &mut self,
        rows: &mut Staged<'_>,
        env: &mut Env<'_>,
        from: &DeviceAddress,
        error: ProtocolError,
    ) -> Result<Delivery, StepError> {
        let known = self.user(rows, from.user())?;
        let accepted = known.as_ref().is_some_and(|user| user.accepted);
        match error {
            ProtocolError::UntrustedIdentity | ProtocolError::ForkedList => {
                // A frame alone proves nothing: the server's list decides whether this is an event. The envelope waits
                // for that list, and then for the user; if the list says nothing new, it was forged.
                self.fetch_list(rows, env, from.user())?;
                let undecided = rows.get(&tables::candidate(from.user()))?.is_some();
                let transport = if undecided || is_fetching(rows, from.user())? {
                    Transport::Keep
                } else {
                    Transport::Forget
                };
                Ok(Delivery::refused(error, transport))
            }
            ProtocolError::UnlistedDevice if accepted => {
                self.fetch_list(rows, env, from.user())?;
                Ok(Delivery::refused(error, Transport::Forget))
            }
            // Perhaps our own list has changed and we do not know: the frame is offered again once the lists were fetched.
            ProtocolError::UnknownList if self.fetch_own_lists(rows, env)? => {
                Ok(Delivery::refused(error, Transport::Keep))
            }
            // Of a stranger it is worth nothing: anybody can say so, and would push other events out.
            ProtocolError::ListMismatch | ProtocolError::UnknownList if accepted => {
                event::record(
                    rows,
                    &Event::ListMismatch {
                        user: from.user().clone(),
                    },
                )?;
                Ok(Delivery::refused(
                    ProtocolError::ListMismatch,
                    Transport::Forget,
                ))
            }
            _ => {
                if error.heals() && accepted {
                    self.heal_frame(rows, env, error)?;
                }
                Ok(Delivery::refused(error, Transport::Forget))
            }
        }
    }

    pub(crate) fn fetch_list(
        &mut self,
        rows: &mut Staged<'_>,
        env: &Env<'_>,
        user: &UserId,
    ) -> Result<(), StepError> {
        let marker = tables::list_fetched(user);
        let last = rows
            .get(&marker)?
            .and_then(|bytes| bytes.as_slice().try_into().ok())
            .map(u64::from_be_bytes);
        if last.is_some_and(|last| env.now.saturating_sub(last) < FETCH_LIST_MS && last <= env.now)
        {
            return Ok(());
        }
        rows.put(marker, Zeroizing::new(env.now.to_be_bytes().to_vec()));
        StoredTask::now(Kind::FetchDevices {
            user: user.clone(),
            from: 0,
        })
        .queue(rows)?;
        Ok(())
    }

    /// Whether our own lists are being fetched because somebody saw one that is not known here; at most hourly.
    pub(crate) fn fetch_own_lists(
        &mut self,
        rows: &mut Staged<'_>,
        env: &Env<'_>,
    ) -> Result<bool, StepError> {
        let own = self.address.user().clone();
        self.fetch_list(rows, env, &own)?;
        is_fetching(rows, &own)
    }

    pub(crate) fn tell_learned(
        &self,
        rows: &mut Staged<'_>,
        user: &UserId,
        learned: Learned,
    ) -> Result<(), StepError> {
        if learned.replaced {
            event::record(rows, &Event::ProvisionalReplaced { user: user.clone() })?;
        }
        Ok(())
    }
}

/// Whether the server is being asked about a user.
fn is_fetching(rows: &dyn Rows, user: &UserId) -> Result<bool, StepError> {
    for (id, _) in crate::chunks::sequences(rows, tables::TASKS, <[u8]>::is_empty)? {
        let task = StoredTask::load(rows, TaskId::new(id))?;
        if task.is_some_and(|task| task.kind.fetches_of(user)) {
            return Ok(true);
        }
    }
    Ok(false)
}
