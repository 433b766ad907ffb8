//! Envelopes that come in ("The protocol", §7 and §11).

use sprag_crypto::Salt;
use sprag_store::{Rows, Staged};
use sprag_wire::{Body, DeviceAddress, Envelope, FrameKind, UserId};
use zeroize::Zeroizing;

use crate::error::{ProtocolError, StepError};
use crate::event::{self, Event};
use crate::inbox::InboxMessage;
use crate::own::{Device, Env};
use crate::peers::Learned;
use crate::receive::Received;
use crate::task::{Kind, StoredTask};
use crate::{fresh, tables};

/// A list is fetched because of what a frame claims at most this often: once an hour.
const FETCH_LIST_MS: u64 = 3_600_000;
/// What strangers say of our lists is told at most this often: once a day.
const DAY_MS: u64 = 24 * FETCH_LIST_MS;
/// The first byte of a frame with a handshake.
const PRE_KEY_MESSAGE: u8 = FrameKind::PreKeyMessage as u8;

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
            other => {
                let error = other.err().map_or(ProtocolError::Malformed, Into::into);
                self.tally.refuse(error);
                return Ok(Delivery::refused(error, Transport::Forget));
            }
        };
        self.check_alive(rows, env.now)?;
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
            Err(StepError::Protocol(error)) => {
                return self.frame_refused(rows, env, &from, envelope.payload(), error);
            }
            Err(error) => return Err(error),
        };
        self.take_received(rows, env, received)
    }

    /// What an opened frame brought: into the inbox, and what follows from it.
    pub(crate) fn take_received(
        &mut self,
        rows: &mut Staged<'_>,
        env: &mut Env<'_>,
        received: Received,
    ) -> Result<Delivery, StepError> {
        let from = received.from.clone();
        self.tally.opened += 1;
        self.tell_learned(rows, from.user(), received.learned)?;
        let brought_list = received.content.as_ref().is_ok_and(|content| {
            content.device_list().is_some() && received.list_refused.is_none()
        });
        // A stranger whom this frame made us forget leaves nothing behind.
        let is_known = self.user(rows, from.user())?.is_some();
        if is_known && (received.new_session || brought_list) {
            fresh::note_brought(rows, from.user(), env.now)?;
        }
        self.end_link(rows, &from)?;
        if let Some(
            ProtocolError::UntrustedIdentity | ProtocolError::ForkedList | ProtocolError::StaleList,
        ) = received.list_refused
        {
            self.fetch_list(rows, env, from.user(), 0)?;
        }
        // An old one is no news: messages may be late.
        if let Some(error) = received.list_refused
            && error != ProtocolError::StaleList
        {
            let user = from.user().clone();
            event::record(rows, &Event::ListRefused { user, error })?;
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
                // Who added this device is to hear that it has its keys.
                Body::KeyShare(share) if !share.link_proof.is_empty() => {
                    self.send_to_device(rows, env, &from, Body::Ack)?;
                }
                _ => {}
            },
            Err(_) => {
                if received.share_refused {
                    event::record(rows, &Event::ShareRefused { from: from.clone() })?;
                }
                refused = Some(ProtocolError::BadContent);
                event::record(rows, &Event::BadContent { from: from.clone() })?;
            }
        }
        // A session that can be sent on: what waited for one need not wait for a bundle.
        let waits = self.is_waiting(rows)?;
        if !waits
            && rows
                .get(&tables::wants_fresh(&tables::device_owner(&from)))?
                .is_none()
        {
            self.session_ready(rows, env, &from)?;
        }
        Ok(Delivery {
            // What comes before this device has its keys is shown when it has.
            message: message.filter(|_| !waits),
            refused,
            transport: Transport::Forget,
        })
    }

    /// What a refused frame leads to ("The protocol", §11, column *caller*). The library takes it over or it is hopeless:
    /// the server need not keep it.
    pub(crate) fn frame_refused(
        &mut self,
        rows: &mut Staged<'_>,
        env: &mut Env<'_>,
        from: &DeviceAddress,
        frame: &[u8],
        error: ProtocolError,
    ) -> Result<Delivery, StepError> {
        self.tally.refuse(error);
        let known = self.user(rows, from.user())?;
        let accepted = known.as_ref().is_some_and(|user| user.accepted);
        let has_handshake = frame.first() == Some(&PRE_KEY_MESSAGE);
        match error {
            ProtocolError::ForkedList => {
                if accepted && let Some(list) = self.met.as_ref().and_then(|met| met.list.clone()) {
                    // Both lists are signed: that much is certain without the server.
                    self.show_changed(rows, from.user(), &list)?;
                }
                self.offer_later(rows, env, error, frame)?;
            }
            // A frame alone proves nothing: the server's list decides whether this is an event.
            ProtocolError::UntrustedIdentity | ProtocolError::UnknownList => {
                self.offer_later(rows, env, error, frame)?;
            }
            ProtocolError::UnlistedDevice if accepted && has_handshake => {
                self.offer_later(rows, env, error, frame)?;
            }
            ProtocolError::UnlistedDevice if accepted => {
                self.fetch_list(rows, env, from.user(), 0)?;
            }
            ProtocolError::ListMismatch => self.tell_mismatch(rows, env, from.user())?,
            error if error.heals() && accepted => {
                self.heal_frame(rows, env, error)?;
                if error == ProtocolError::UnknownPreKey {
                    // Whoever asks next is given prekeys that are held.
                    self.replace_pre_keys_daily(rows, env)?;
                }
            }
            _ => {}
        }
        Ok(Delivery::refused(error, Transport::Forget))
    }

    /// A contact says that he saw a list of ours that we never signed. He is named; of strangers, who may say anything,
    /// the number is told, once a day.
    pub(crate) fn tell_mismatch(
        &mut self,
        rows: &mut Staged<'_>,
        env: &Env<'_>,
        name: &UserId,
    ) -> Result<(), StepError> {
        if self.user(rows, name)?.is_some_and(|user| user.accepted) {
            let user = name.clone();
            return Ok(event::record(rows, &Event::ListMismatch { user })?);
        }
        self.tally.mismatches_of_strangers = self.tally.mismatches_of_strangers.saturating_add(1);
        let last = self.tally.told_mismatches_at;
        if last <= env.now && env.now - last < DAY_MS {
            return Ok(());
        }
        let count = std::mem::take(&mut self.tally.mismatches_of_strangers);
        self.tally.told_mismatches_at = env.now;
        self.tally.save(rows);
        Ok(event::record(
            rows,
            &Event::StrangersSawOtherList { count },
        )?)
    }

    /// Makes sure that the server is asked for a user's list: the newest (`from` 0), or those from an epoch on. Because
    /// of frames that happens at most hourly: what comes too early is asked for when the hour is over.
    pub(crate) fn fetch_list(
        &self,
        rows: &mut Staged<'_>,
        env: &Env<'_>,
        user: &UserId,
        from: u64,
    ) -> Result<(), StepError> {
        if StoredTask::marked(rows, &tables::fetch_of_lists(user))?.is_some() {
            return Ok(());
        }
        let name = tables::list_fetched(user);
        let last = rows
            .get(&name)?
            .and_then(|bytes| bytes.as_slice().try_into().ok())
            .map(u64::from_be_bytes)
            .filter(|last| *last <= env.now);
        let due = last.map_or(0, |last| last.saturating_add(FETCH_LIST_MS));
        let asked_at = due.max(env.now);
        rows.put(name, Zeroizing::new(asked_at.to_be_bytes().to_vec()));
        self.queue_fetch(rows, user, from, due)
    }

    pub(crate) fn queue_fetch(
        &self,
        rows: &mut Staged<'_>,
        user: &UserId,
        from: u64,
        not_before: u64,
    ) -> Result<(), StepError> {
        let task = StoredTask {
            kind: Kind::FetchDevices {
                user: user.clone(),
                from,
            },
            not_before,
            parked: false,
        };
        let id = task.queue(rows)?;
        task.mark(rows, id);
        Ok(())
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
        if learned.newer {
            self.list_was_learned(rows, user)?;
        }
        Ok(())
    }
}
