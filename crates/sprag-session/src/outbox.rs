//! Sending: a message becomes a copy for each device, and each copy a frame once there is a session.

use sprag_crypto::Salt;
use sprag_store::{Rows, Staged, StoreError};
use sprag_wire::limits::APPLICATION as MAX_APPLICATION;
use sprag_wire::{Body, Content, DeviceAddress, Padding, UserId};
use zeroize::Zeroizing;

use crate::error::{ProtocolError, StepError};
use crate::outgoing::{Copy, CopyStatus, MessageId, Outgoing};
use crate::own::{Counters, Device, Env};
use crate::receipts::{note_reset, to_send_again, waiting};
use crate::record::Record;
use crate::task::{Kind, StoredTask};
use crate::trust::User;
use crate::{chunks, inbox, riders, tables};

/// Messages that may wait to be handed over. A further one is refused before anything is encrypted.
pub const OUTBOX: u32 = 10_000;
/// Sent messages stay available for this long, unless all devices have said that they received them. Seven days.
pub const OUTBOX_MS: u64 = 7 * 24 * 3_600 * 1_000;

/// A request of 64 salts takes less, in bytes.
const REQUEST_BYTES: u32 = 1_500;

/// Why a message was not taken.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// 10,000 messages wait to be handed over.
    #[error("outbox is full")]
    OutboxFull,
    /// The step was refused or failed.
    #[error(transparent)]
    Step(StepError),
}

impl From<StepError> for SendError {
    fn from(error: StepError) -> Self {
        Self::Step(error)
    }
}

impl From<StoreError> for SendError {
    fn from(error: StoreError) -> Self {
        Self::Step(error.into())
    }
}

impl From<ProtocolError> for SendError {
    fn from(error: ProtocolError) -> Self {
        Self::Step(error.into())
    }
}

impl Device {
    /// Takes a message to all devices of `user`, with a sync copy to each other device of our own: encrypts what can be
    /// encrypted, and queues tasks for the rest. The same id again changes nothing. A message to our own user goes to
    /// our other devices.
    ///
    /// # Errors
    /// `OutboxFull`; `BadInput` for more than 917,504 bytes, or a message to oneself from the only device;
    /// `UnlistedDevice` if our own device is not on its list any more; `NotLinked`, `LinkExpired`; or what the store
    /// answers. Nothing is changed then.
    pub fn send(
        &mut self,
        rows: &mut Staged<'_>,
        env: &mut Env<'_>,
        user: &UserId,
        application: &[u8],
        id: MessageId,
    ) -> Result<(), SendError> {
        if rows.get(&tables::message(&id.0))?.is_some() {
            return Ok(());
        }
        self.check_ready(rows, env.now)?;
        if application.len() > MAX_APPLICATION {
            return Err(ProtocolError::BadInput.into());
        }
        self.check_own_listed(rows)?;
        if user == self.address.user() && self.other_own_devices(rows)?.is_empty() {
            return Err(ProtocolError::BadInput.into());
        }
        let mut counters = Counters::load(rows)?;
        if counters.outbox >= OUTBOX {
            return Err(SendError::OutboxFull);
        }
        counters.outbox += 1;
        counters.sequence += 1;
        counters.save(rows);
        let sequence = counters.sequence;

        let content = Content::new(id.0, env.now, Body::Application(application.to_vec()));
        let encoded = content.encode();
        chunks::put(rows, tables::OUTBOX, sequence, 1, &encoded);
        rows.put(
            tables::message(&id.0),
            Zeroizing::new(sequence.to_be_bytes().to_vec()),
        );
        let outgoing = Outgoing {
            sequence,
            id,
            user: user.clone(),
            sent_at: env.now,
            length: u32::try_from(encoded.len()).map_err(|_| ProtocolError::BadInput)?,
            copies: 0,
            open: 0,
            waiting: 0,
            without_copies: CopyStatus::Waiting,
        };
        Ok(self.dispatch(rows, env, outgoing, content)?)
    }

    /// Makes the copies of a message, unless it waits for a list: our own or the user's.
    fn dispatch(
        &mut self,
        rows: &mut Staged<'_>,
        env: &mut Env<'_>,
        mut outgoing: Outgoing,
        content: Content,
    ) -> Result<(), StepError> {
        let (own, user) = (self.address.user().clone(), outgoing.user.clone());
        let known = self.user(rows, &user)?;
        let known = known.filter(|user| user.may_be_written_to());
        let mut waits_for = None;
        if !self.other_own_devices(rows)?.is_empty()
            && self.waits_for_fresh_list(rows, env, &own)?
        {
            waits_for = Some(own);
        } else if known.is_none() {
            self.want_bundles(rows, &user, None, 0)?;
            waits_for = Some(user.clone());
        }
        if let Some(mut known) = known {
            self.mark_accepted(rows, &mut known)?;
            if waits_for.is_none() && self.waits_for_fresh_list(rows, env, &user)? {
                waits_for = Some(user);
            }
            if waits_for.is_none() {
                return self.make_copies(rows, env, &known, outgoing, content);
            }
        }
        outgoing.open += 1;
        outgoing.waiting += 1;
        outgoing.save(rows);
        if let Some(name) = waits_for {
            let name = tables::waits_for_list(&name, Some(outgoing.sequence));
            rows.put(name, Zeroizing::new(Vec::new()));
        }
        Ok(())
    }

    /// One copy for each listed device of the user, and one for each other device of our own.
    fn make_copies(
        &mut self,
        rows: &mut Staged<'_>,
        env: &mut Env<'_>,
        user: &User,
        mut outgoing: Outgoing,
        mut content: Content,
    ) -> Result<(), StepError> {
        let devices: Vec<_> = user
            .newest
            .devices()
            .iter()
            .filter(|entry| entry.identity_key() != self.identity.public())
            .collect();
        if devices.is_empty() {
            // A list of nothing but our own key: there is nobody to write to.
            outgoing.without_copies = CopyStatus::NoSuchDevice;
            outgoing.open = 1;
            outgoing.waiting = 1;
            return Ok(outgoing.close_one(rows, true)?);
        }
        let mut to: Vec<DeviceAddress> = devices
            .into_iter()
            .map(|entry| DeviceAddress::new(outgoing.user.clone(), entry.device()))
            .collect();
        if outgoing.user != *self.address.user() {
            for entry in self.other_own_devices(rows)? {
                let own = self.address.user().clone();
                to.push(DeviceAddress::new(own, entry.device()));
            }
        }
        let first = outgoing.copies;
        let count = u32::try_from(to.len()).unwrap_or(u32::MAX);
        outgoing.copies += count;
        outgoing.open += count;
        outgoing.waiting += count;
        outgoing.save(rows);
        for (copy, to) in (first..).zip(to) {
            let fresh = Copy {
                to,
                status: CopyStatus::Waiting,
                salts: Vec::new(),
                task: None,
                asked: 0,
            };
            self.seal_copy(rows, env, &outgoing, copy, fresh, &mut content)?;
        }
        Ok(())
    }

    /// Encrypts a copy and queues its delivery; without session it waits, and a bundle is fetched.
    fn seal_copy(
        &mut self,
        rows: &mut Staged<'_>,
        env: &mut Env<'_>,
        outgoing: &Outgoing,
        number: u32,
        mut copy: Copy,
        content: &mut Content,
    ) -> Result<(), StepError> {
        let sequence = outgoing.sequence;
        let owner = tables::device_owner(&copy.to);
        let mut sync = None;
        if copy.to.user() == self.address.user() && outgoing.user != *self.address.user() {
            sync = sync_copy(outgoing, content);
        }
        let content = sync.as_mut().unwrap_or(content);
        let unnamed = inbox::unnamed(rows, &owner)?;
        content.set_received(unnamed.iter().map(|(_, salt)| *salt).collect());
        let record = Record::load(rows, &copy.to)?;
        if !self.prove_link(rows, record.as_ref(), &copy.to, content)? {
            // The new device has its keys, or will not get them.
            return Ok(copy.end(rows, sequence, number, CopyStatus::Expired)?);
        }
        let ride = self.list_to_ride(rows, record.as_ref())?;
        content.set_device_list(ride.as_ref().and_then(|ride| ride.frame.clone()));
        content.set_reset(record.map(|record| record.reset).unwrap_or_default());
        match self.seal(rows, env, &copy.to, &content.encode(), Padding::Padme) {
            Ok(sealed) => {
                inbox::named(rows, &owner, &unnamed);
                note_reset(rows, &copy.to, &sealed.salt, content)?;
                if let Some(ride) = ride {
                    riders::note_carried(rows, &owner, &sealed.salt, &ride.hash)?;
                }
                let length =
                    u32::try_from(sealed.frame.len()).map_err(|_| ProtocolError::BadInput)?;
                let kind = Kind::Deliver {
                    to: copy.to.clone(),
                    salt: sealed.salt,
                    known_list: sealed.known_list,
                    length,
                    sequence,
                    copy: number,
                };
                let task = StoredTask::now(kind).queue(rows)?;
                chunks::put(rows, tables::FRAMES, task.get(), 0, &sealed.frame);
                let place = [&sequence.to_be_bytes()[..], &number.to_be_bytes()].concat();
                rows.put(
                    tables::carried(&owner, Some(&sealed.salt)),
                    Zeroizing::new(place),
                );
                copy.status = CopyStatus::Sealed;
                copy.salts.push(sealed.salt);
                copy.task = Some(task);
                copy.save(rows, sequence, number);
                Ok(())
            }
            Err(StepError::Protocol(
                ProtocolError::NeedsBundle | ProtocolError::ChainExhausted,
            )) => {
                copy.save(rows, sequence, number);
                let waits = Zeroizing::new(number.to_be_bytes().to_vec());
                rows.put(tables::waits_for_session(&owner, Some(sequence)), waits);
                self.want_bundles(rows, copy.to.user(), Some(copy.to.device()), 0)
            }
            Err(StepError::Protocol(ProtocolError::UnlistedDevice)) => {
                Ok(copy.end(rows, sequence, number, CopyStatus::NoSuchDevice)?)
            }
            Err(error) => Err(error),
        }
    }

    /// Posts a content of the library's own to one device, through the outbox.
    pub(crate) fn post(
        &mut self,
        rows: &mut Staged<'_>,
        env: &mut Env<'_>,
        to: &DeviceAddress,
        mut content: Content,
    ) -> Result<(), StepError> {
        let mut counters = Counters::load(rows)?;
        counters.outbox += 1;
        counters.sequence += 1;
        counters.save(rows);
        let sequence = counters.sequence;
        let encoded = content.encode();
        chunks::put(rows, tables::OUTBOX, sequence, 1, &encoded);
        let id = *content.message_id();
        rows.put(
            tables::message(&id),
            Zeroizing::new(sequence.to_be_bytes().to_vec()),
        );
        let length = u32::try_from(encoded.len()).map_err(|_| ProtocolError::BadInput)?;
        let outgoing = Outgoing {
            sequence,
            id: MessageId(id),
            user: to.user().clone(),
            sent_at: env.now,
            length,
            copies: 1,
            open: 1,
            waiting: 1,
            without_copies: CopyStatus::Waiting,
        };
        outgoing.save(rows);
        let copy = Copy {
            to: to.clone(),
            status: CopyStatus::Waiting,
            salts: Vec::new(),
            task: None,
            asked: 0,
        };
        let owner = tables::device_owner(to);
        if rows.get(&tables::wants_fresh(&owner))?.is_none() {
            return self.seal_copy(rows, env, &outgoing, 0, copy, &mut content);
        }
        // It is to be the first thing said on a session that is being opened.
        copy.save(rows, sequence, 0);
        rows.put(
            tables::waits_for_session(&owner, Some(sequence)),
            Zeroizing::new(0u32.to_be_bytes().to_vec()),
        );
        Ok(())
    }

    /// Encrypts a copy once more on the session of today; what was not handed over yet is not.
    pub(crate) fn seal_again(
        &mut self,
        rows: &mut Staged<'_>,
        env: &mut Env<'_>,
        sequence: u64,
        number: u32,
    ) -> Result<(), StepError> {
        let (Some(mut copy), Some(mut outgoing)) = (
            Copy::load(rows, sequence, number)?,
            Outgoing::load(rows, sequence)?,
        ) else {
            return Ok(());
        };
        if let Some(id) = copy.task.take()
            && let Some(task) = StoredTask::load(rows, id)?
        {
            task.delete(rows, id);
        }
        if !copy.status.waits() {
            outgoing.wait_again(rows)?;
            copy.status = CopyStatus::Waiting;
        }
        let mut content = outgoing.content(rows)?;
        self.seal_copy(rows, env, &outgoing, number, copy, &mut content)
    }

    /// Keeps a content that was sent by [`Device::seal`] alone, as the outbox keeps what it sends: for `retry`, and for
    /// resets that ride. For published vectors.
    ///
    /// # Errors
    /// What the store answers.
    pub fn note_sent(
        &mut self,
        rows: &mut Staged<'_>,
        to: &DeviceAddress,
        salt: &Salt,
        bytes: &[u8],
    ) -> Result<(), StepError> {
        let Ok(content) = Content::decode(bytes) else {
            return Ok(());
        };
        note_reset(rows, to, salt, &content)?;
        if matches!(content.body(), Body::KeyShare(share) if !share.link_proof.is_empty()) {
            return Ok(());
        }
        let id = *content.message_id();
        let sequence = match rows.get(&tables::message(&id))? {
            Some(sequence) => {
                u64::from_be_bytes(sequence.as_slice().try_into().unwrap_or_default())
            }
            None => {
                let sequence = Counters::next(rows, |counters| &mut counters.sequence)?;
                chunks::put(rows, tables::OUTBOX, sequence, 1, bytes);
                rows.put(
                    tables::message(&id),
                    Zeroizing::new(sequence.to_be_bytes().to_vec()),
                );
                Outgoing {
                    sequence,
                    id: MessageId(id),
                    user: to.user().clone(),
                    sent_at: 0,
                    length: u32::try_from(bytes.len()).unwrap_or(u32::MAX),
                    copies: 0,
                    open: 0,
                    waiting: 0,
                    without_copies: CopyStatus::Waiting,
                }
                .save(rows);
                sequence
            }
        };
        let Some(mut outgoing) = Outgoing::load(rows, sequence)? else {
            return Ok(());
        };
        let mut number = outgoing.copies;
        for other in 0..outgoing.copies {
            if Copy::load(rows, sequence, other)?.is_some_and(|copy| copy.to == *to) {
                number = other;
            }
        }
        let copy = Copy::load(rows, sequence, number)?;
        let mut copy = copy.unwrap_or_else(|| Copy {
            to: to.clone(),
            status: CopyStatus::HandedOver,
            salts: Vec::new(),
            task: None,
            asked: 0,
        });
        if number == outgoing.copies {
            outgoing.copies += 1;
            outgoing.open += 1;
            outgoing.save(rows);
        }
        copy.salts.push(*salt);
        copy.save(rows, sequence, number);
        let place = [&sequence.to_be_bytes()[..], &number.to_be_bytes()].concat();
        let owner = tables::device_owner(to);
        rows.put(tables::carried(&owner, Some(salt)), Zeroizing::new(place));
        Ok(())
    }

    /// The contents that a `retry` asks for and that are still held, as they were sent; each counts as sent again. For
    /// published vectors.
    ///
    /// # Errors
    /// What the store answers.
    pub fn resend(
        &mut self,
        rows: &mut Staged<'_>,
        to: &DeviceAddress,
        salts: &[Salt],
    ) -> Result<Vec<Zeroizing<Vec<u8>>>, StepError> {
        let mut contents = Vec::new();
        let user = self.user(rows, to.user())?;
        if user.is_some_and(|user| user.accepted && user.listed(to.device()).is_some()) {
            for (sequence, _) in to_send_again(rows, to, salts)? {
                if let Some(outgoing) = Outgoing::load(rows, sequence)? {
                    let length = outgoing.length as usize;
                    contents.push(chunks::get(rows, tables::OUTBOX, sequence, 1, length)?);
                }
            }
        }
        Ok(contents)
    }

    /// A session with a device can be sent on: what waited for it goes out, in the order it was sent.
    pub(crate) fn session_ready(
        &mut self,
        rows: &mut Staged<'_>,
        env: &mut Env<'_>,
        to: &DeviceAddress,
    ) -> Result<(), StepError> {
        if !self.can_send_to(rows, env, to)? {
            return Ok(());
        }
        let owner = tables::device_owner(to);
        let mut waits = waiting(rows, &tables::waits_for_session(&owner, None))?;
        // What could not be read is asked for first ("The protocol", §9).
        let mut requests = Vec::new();
        for (sequence, _) in &waits {
            if let Some(outgoing) = Outgoing::load(rows, *sequence)?
                && outgoing.length <= REQUEST_BYTES
                && matches!(outgoing.content(rows)?.body(), Body::Retry(_))
            {
                requests.push(*sequence);
            }
        }
        waits.sort_by_key(|(sequence, _)| !requests.contains(sequence));
        for (sequence, number) in waits {
            // If it cannot be encrypted after all, it waits anew.
            rows.delete(tables::waits_for_session(&owner, Some(sequence)));
            let number = u32::from_be_bytes(number.as_slice().try_into().unwrap_or_default());
            let (Some(copy), Some(outgoing)) = (
                Copy::load(rows, sequence, number)?,
                Outgoing::load(rows, sequence)?,
            ) else {
                continue;
            };
            let mut content = outgoing.content(rows)?;
            self.seal_copy(rows, env, &outgoing, number, copy, &mut content)?;
        }
        Ok(())
    }

    /// A user's list is known: what waited for it becomes copies.
    pub(crate) fn list_ready(
        &mut self,
        rows: &mut Staged<'_>,
        env: &mut Env<'_>,
        name: &UserId,
    ) -> Result<(), StepError> {
        if rows.get(&tables::stale_list(name))?.is_some() {
            rows.delete(tables::stale_list(name));
        }
        let waiting = waiting(rows, &tables::waits_for_list(name, None))?;
        if waiting.is_empty() {
            return Ok(());
        }
        let Some(mut user) = self
            .user(rows, name)?
            .filter(|user| user.may_be_written_to())
        else {
            return Ok(());
        };
        self.mark_accepted(rows, &mut user)?;
        for (sequence, _) in waiting {
            rows.delete(tables::waits_for_list(name, Some(sequence)));
            if let Some(mut outgoing) = Outgoing::load(rows, sequence)? {
                let content = outgoing.content(rows)?;
                // The copies take its place.
                outgoing.open = outgoing.open.saturating_sub(1);
                outgoing.waiting = outgoing.waiting.saturating_sub(1);
                self.dispatch(rows, env, outgoing, content)?;
            }
        }
        Ok(())
    }

    /// Whether something waits for a session with this device.
    pub(crate) fn is_waited_for(
        &self,
        rows: &dyn Rows,
        to: &DeviceAddress,
    ) -> Result<bool, StepError> {
        Ok(!waiting(
            rows,
            &tables::waits_for_session(&tables::device_owner(to), None),
        )?
        .is_empty())
    }

    /// What became of a message, device by device; `None` if there is no such message, or it was sent long ago.
    ///
    /// # Errors
    /// What the store answers.
    pub fn status(
        &self,
        rows: &dyn Rows,
        id: MessageId,
    ) -> Result<Option<Vec<(String, CopyStatus)>>, StepError> {
        let Some(sequence) = rows.get(&tables::message(&id.0))? else {
            return Ok(None);
        };
        let sequence = u64::from_be_bytes(sequence.as_slice().try_into().unwrap_or_default());
        let Some(outgoing) = Outgoing::load(rows, sequence)? else {
            return Ok(None);
        };
        let mut statuses = Vec::new();
        for copy in 0..outgoing.copies {
            if let Some(copy) = Copy::load(rows, sequence, copy)? {
                statuses.push((copy.to.to_string(), copy.status));
            }
        }
        if statuses.is_empty() {
            statuses.push((outgoing.user.as_str().to_owned(), outgoing.without_copies));
        }
        Ok(Some(statuses))
    }

    /// Forgets messages older than seven days, at most so many: their content, and what became of them. Says how many,
    /// and whether there are more.
    pub(crate) fn expire_outbox(
        &self,
        rows: &mut Staged<'_>,
        now: u64,
        limit: usize,
    ) -> Result<(u32, bool), StepError> {
        let mut expired = 0;
        let is_header = |rest: &[u8]| rest == 0u32.to_be_bytes();
        for (sequence, _) in chunks::sequences(rows, tables::OUTBOX, is_header)? {
            let Some(outgoing) = Outgoing::load(rows, sequence)? else {
                continue;
            };
            if now.saturating_sub(outgoing.sent_at) <= OUTBOX_MS {
                continue;
            }
            if expired as usize >= limit {
                return Ok((expired, true));
            }
            expired += 1;
            for number in 0..outgoing.copies {
                if let Some(mut copy) = Copy::load(rows, sequence, number)? {
                    copy.end(rows, sequence, number, CopyStatus::Expired)?;
                }
                rows.delete(Copy::name(sequence, number));
            }
            for name in [&outgoing.user, self.address.user()] {
                rows.delete(tables::waits_for_list(name, Some(sequence)));
            }
            if let Some(mut outgoing) = Outgoing::load(rows, sequence)? {
                while outgoing.length > 0 {
                    outgoing.close_one(rows, true)?;
                }
            }
            rows.delete(tables::message(&outgoing.id.0));
            rows.delete(tables::chunk(tables::OUTBOX, sequence, 0));
        }
        Ok((expired, false))
    }
}

/// What another device of our own is sent of a message to somebody else.
fn sync_copy(outgoing: &Outgoing, content: &Content) -> Option<Content> {
    let Body::Application(application) = content.body() else {
        return None;
    };
    let body = Body::sync(vec![outgoing.user.as_str().to_owned()], application.clone());
    Some(Content::new(*content.message_id(), content.sent_at(), body))
}
