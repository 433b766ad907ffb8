//! What was sent, until everybody has it: messages, their copies for each device, and what became of them.

use std::ops::ControlFlow;

use sprag_crypto::Salt;
use sprag_store::{Rows, Staged, StoreError};
use sprag_wire::limits::APPLICATION as MAX_APPLICATION;
use sprag_wire::{Body, Content, DeviceAddress, Padding, UserId};
use zeroize::Zeroizing;

use crate::codec::{Reader, Writer};
use crate::error::{ProtocolError, StepError};
use crate::own::{Counters, Device, Env};
use crate::record::Record;
use crate::task::{Kind, StoredTask, TaskId, read_address, read_user, write_address};
use crate::trust::User;
use crate::{chunks, inbox, tables};

/// Messages that may wait to be handed over. A further one is refused before anything is encrypted.
pub const OUTBOX: u32 = 10_000;
/// Copies that were handed over to one device and not confirmed stay available, this many of them ("The protocol", §9).
pub const KEPT: u64 = 1_000;
/// Sent messages stay available for this long, unless all devices have said that they received them. Seven days.
pub const OUTBOX_MS: u64 = 7 * 24 * 3_600 * 1_000;

const VERSION: u8 = 1;

/// Names a message: the same 16 bytes in all copies of it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageId([u8; 16]);

impl MessageId {
    /// From 16 bytes, which the caller chose at random.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The 16 bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl std::fmt::Display for MessageId {
    /// 32 lower-case hex digits.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl std::fmt::Debug for MessageId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "MessageId({self})")
    }
}

impl std::str::FromStr for MessageId {
    type Err = ProtocolError;

    /// The 32 lower-case hex digits of `Display`, and nothing else.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut bytes = [0; 16];
        let digits = text.as_bytes().chunks_exact(2);
        if text.len() != 32 {
            return Err(ProtocolError::BadInput);
        }
        for (byte, digits) in bytes.iter_mut().zip(digits) {
            for digit in digits {
                let value = match digit {
                    b'0'..=b'9' => digit - b'0',
                    b'a'..=b'f' => digit - b'a' + 10,
                    _ => return Err(ProtocolError::BadInput),
                };
                *byte = *byte << 4 | value;
            }
        }
        Ok(Self(bytes))
    }
}

/// What became of one device's copy of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CopyStatus {
    /// It waits for the user's device list or for a session with the device.
    Waiting,
    /// It is encrypted and waits to be handed over.
    Sealed,
    /// The transport handed it to the server.
    HandedOver,
    /// The device says that it opened it.
    Received,
    /// The server does not know the user.
    NoSuchUser,
    /// The device does not exist any more, or is not on its user's list.
    NoSuchDevice,
    /// Nobody confirmed it for seven days, or for a thousand later messages to the device.
    Expired,
}

impl CopyStatus {
    /// Whether nothing will change any more.
    #[must_use]
    pub fn is_final(self) -> bool {
        matches!(
            self,
            Self::Received | Self::NoSuchUser | Self::NoSuchDevice | Self::Expired
        )
    }

    /// Whether it was not handed over yet, and still may be.
    fn waits(self) -> bool {
        matches!(self, Self::Waiting | Self::Sealed)
    }

    fn number(self) -> u8 {
        match self {
            Self::Waiting => 1,
            Self::Sealed => 2,
            Self::HandedOver => 3,
            Self::Received => 4,
            Self::NoSuchUser => 5,
            Self::NoSuchDevice => 6,
            Self::Expired => 7,
        }
    }

    fn of(number: u8) -> Option<Self> {
        [
            Self::Waiting,
            Self::Sealed,
            Self::HandedOver,
            Self::Received,
            Self::NoSuchUser,
            Self::NoSuchDevice,
            Self::Expired,
        ]
        .into_iter()
        .find(|status| status.number() == number)
    }
}

/// A message as the outbox holds it: this row, its content in chunks, and a row for each copy.
#[derive(Debug, Clone)]
struct Outgoing {
    sequence: u64,
    id: MessageId,
    user: UserId,
    sent_at: u64,
    /// Bytes of the encoded content; 0 once nothing can need it any more.
    length: u32,
    /// Copies made so far.
    copies: u32,
    /// Copies whose status may still change, and one for a list that is waited for.
    open: u32,
    /// Those of them that were not handed over yet.
    waiting: u32,
    /// The status if there was never a copy.
    without_copies: CopyStatus,
}

impl Outgoing {
    fn load(rows: &dyn Rows, sequence: u64) -> Result<Option<Self>, StoreError> {
        let Some(bytes) = rows.get(&tables::chunk(tables::OUTBOX, sequence, 0))? else {
            return Ok(None);
        };
        let mut reader = Reader::new(&bytes, VERSION, "outbox row")?;
        let outgoing = Self {
            sequence,
            id: MessageId(reader.array()?),
            user: read_user(&mut reader)?,
            sent_at: reader.u64()?,
            length: reader.u32()?,
            copies: reader.u32()?,
            open: reader.u32()?,
            waiting: reader.u32()?,
            without_copies: read_status(&mut reader)?,
        };
        reader.finish()?;
        Ok(Some(outgoing))
    }

    fn save(&self, rows: &mut Staged<'_>) {
        let user = self.user.as_str().as_bytes();
        let mut writer = Writer::new(VERSION, 16 + 4 + user.len() + 8 + 17);
        writer
            .fixed(&self.id.0)
            .block(user)
            .u64(self.sent_at)
            .u32(self.length);
        writer
            .u32(self.copies)
            .u32(self.open)
            .u32(self.waiting)
            .u8(self.without_copies.number());
        rows.put(
            tables::chunk(tables::OUTBOX, self.sequence, 0),
            writer.finish(),
        );
    }

    /// One thing less that may change; the content goes with the last.
    fn close_one(&mut self, rows: &mut Staged<'_>, waited: bool) -> Result<(), StoreError> {
        self.open = self.open.saturating_sub(1);
        if self.open == 0 && self.length > 0 {
            chunks::delete(rows, tables::OUTBOX, self.sequence, 1, self.length as usize);
            self.length = 0;
        }
        if waited {
            self.leave_one(rows)?;
        }
        self.save(rows);
        Ok(())
    }

    /// One thing less that waits to be handed over; the place in the outbox goes with the last.
    fn leave_one(&mut self, rows: &mut Staged<'_>) -> Result<(), StoreError> {
        if self.waiting == 1 {
            let mut counters = Counters::load(rows)?;
            counters.outbox = counters.outbox.saturating_sub(1);
            counters.save(rows);
        }
        self.waiting = self.waiting.saturating_sub(1);
        Ok(())
    }

    /// One thing more that waits to be handed over, although it was before.
    fn wait_again(&mut self, rows: &mut Staged<'_>) -> Result<(), StoreError> {
        if self.waiting == 0 {
            let mut counters = Counters::load(rows)?;
            counters.outbox = counters.outbox.saturating_add(1);
            counters.save(rows);
        }
        self.waiting = self.waiting.saturating_add(1);
        self.save(rows);
        Ok(())
    }

    fn content(&self, rows: &dyn Rows) -> Result<Content, StepError> {
        let bytes = chunks::get(rows, tables::OUTBOX, self.sequence, 1, self.length as usize)?;
        Content::decode(&bytes).map_err(|_| crate::error::damaged("outbox content"))
    }
}

/// One device's copy.
#[derive(Debug, Clone)]
struct Copy {
    to: DeviceAddress,
    status: CopyStatus,
    /// Of the frames that carried it: one for each time it was sent.
    salts: Vec<Salt>,
    task: Option<TaskId>,
}

impl Copy {
    fn name(sequence: u64, copy: u32) -> sprag_store::RowName {
        tables::chunk(tables::COPIES, sequence, copy)
    }

    fn load(rows: &dyn Rows, sequence: u64, copy: u32) -> Result<Option<Self>, StoreError> {
        let Some(bytes) = rows.get(&Self::name(sequence, copy))? else {
            return Ok(None);
        };
        let mut reader = Reader::new(&bytes, VERSION, "outbox copy")?;
        let copy = Self {
            to: read_address(&mut reader)?,
            status: read_status(&mut reader)?,
            salts: (0..reader.u8()?)
                .map(|_| reader.array().map(Salt::from_bytes))
                .collect::<Result<_, _>>()?,
            task: reader
                .optional()?
                .map(|id| TaskId::new(u64::from_be_bytes(id))),
        };
        reader.finish()?;
        Ok(Some(copy))
    }

    fn save(&self, rows: &mut Staged<'_>, sequence: u64, copy: u32) {
        let mut writer = Writer::new(VERSION, 300);
        write_address(&mut writer, &self.to);
        writer.u8(self.status.number());
        writer.u8(u8::try_from(self.salts.len()).unwrap_or(u8::MAX));
        for salt in &self.salts {
            writer.fixed(salt.as_bytes());
        }
        writer.optional(
            self.task
                .map(|id| id.get().to_be_bytes())
                .as_ref()
                .map(|id| &id[..]),
        );
        rows.put(Self::name(sequence, copy), writer.finish());
    }

    /// Ends the copy: nothing is offered, and no receipt is waited for.
    fn end(
        &mut self,
        rows: &mut Staged<'_>,
        sequence: u64,
        copy: u32,
        status: CopyStatus,
    ) -> Result<(), StoreError> {
        if let Some(id) = self.task.take()
            && let Some(task) = StoredTask::load(rows, id)?
        {
            task.delete(rows, id);
        }
        let owner = tables::device_owner(&self.to);
        for salt in &self.salts {
            rows.delete(tables::carried(&owner, Some(salt)));
        }
        rows.delete(tables::waits_for_session(&owner, Some(sequence)));
        let before = std::mem::replace(&mut self.status, status);
        self.save(rows, sequence, copy);
        if !before.is_final()
            && let Some(mut outgoing) = Outgoing::load(rows, sequence)?
        {
            outgoing.close_one(rows, before.waits())?;
        }
        Ok(())
    }
}

fn read_status(reader: &mut Reader<'_>) -> Result<CopyStatus, StoreError> {
    let number = reader.u8()?;
    CopyStatus::of(number).ok_or_else(|| reader.damaged())
}

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
    /// Takes a message to all devices of `user`: encrypts what can be encrypted, and queues tasks for the rest. The same
    /// id again changes nothing.
    ///
    /// # Errors
    /// `OutboxFull`; `BadInput` for more than 917,504 bytes or a message to oneself; `UnlistedDevice` if our own
    /// device is not on its list any more; or what the store answers. Nothing is changed then.
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
        if application.len() > MAX_APPLICATION || user == self.address.user() {
            return Err(ProtocolError::BadInput.into());
        }
        self.check_own_listed(rows)?;
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
        let mut outgoing = Outgoing {
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
        let known = self.user(rows, user)?;
        match known.filter(|user| user.may_be_written_to()) {
            None => {
                outgoing.open = 1;
                outgoing.waiting = 1;
                outgoing.save(rows);
                rows.put(
                    tables::waits_for_list(user, Some(sequence)),
                    Zeroizing::new(Vec::new()),
                );
                self.want_bundles(rows, user, None, 0)?;
            }
            Some(mut known) => {
                self.mark_accepted(rows, &mut known)?;
                self.make_copies(rows, env, &known, outgoing, content)?;
            }
        }
        Ok(())
    }

    /// One copy for each listed device of the user.
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
        let first = outgoing.copies;
        let count = u32::try_from(devices.len()).unwrap_or(u32::MAX);
        outgoing.copies += count;
        outgoing.open += count;
        outgoing.waiting += count;
        outgoing.save(rows);
        for (copy, entry) in (first..).zip(devices) {
            let to = DeviceAddress::new(outgoing.user.clone(), entry.device());
            let fresh = Copy {
                to,
                status: CopyStatus::Waiting,
                salts: Vec::new(),
                task: None,
            };
            self.seal_copy(rows, env, outgoing.sequence, copy, fresh, &mut content)?;
        }
        Ok(())
    }

    /// Encrypts a copy and queues its delivery; without session it waits, and a bundle is fetched.
    fn seal_copy(
        &mut self,
        rows: &mut Staged<'_>,
        env: &mut Env<'_>,
        sequence: u64,
        number: u32,
        mut copy: Copy,
        content: &mut Content,
    ) -> Result<(), StepError> {
        let owner = tables::device_owner(&copy.to);
        let unnamed = inbox::unnamed(rows, &owner)?;
        content.set_received(unnamed.iter().map(|(_, salt)| *salt).collect());
        let record = Record::load(rows, &copy.to)?;
        content.set_reset(record.map(|record| record.reset).unwrap_or_default());
        match self.seal(rows, env, &copy.to, &content.encode(), Padding::Padme) {
            Ok(sealed) => {
                inbox::named(rows, &owner, &unnamed);
                note_reset(rows, &copy.to, &sealed.salt, content)?;
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
        Outgoing {
            sequence,
            id: MessageId(id),
            user: to.user().clone(),
            sent_at: env.now,
            length,
            copies: 1,
            open: 1,
            waiting: 1,
            without_copies: CopyStatus::Waiting,
        }
        .save(rows);
        let copy = Copy {
            to: to.clone(),
            status: CopyStatus::Waiting,
            salts: Vec::new(),
            task: None,
        };
        let owner = tables::device_owner(to);
        if rows.get(&tables::wants_fresh(&owner))?.is_none() {
            return self.seal_copy(rows, env, sequence, 0, copy, &mut content);
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
        self.seal_copy(rows, env, sequence, number, copy, &mut content)
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
        for (sequence, number) in waiting(rows, &tables::waits_for_session(&owner, None))? {
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
            self.seal_copy(rows, env, sequence, number, copy, &mut content)?;
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
                self.make_copies(rows, env, &user, outgoing, content)?;
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

    /// Forgets messages older than seven days: their content, and what became of them.
    pub(crate) fn expire_outbox(&self, rows: &mut Staged<'_>, now: u64) -> Result<(), StepError> {
        let is_header = |rest: &[u8]| rest == 0u32.to_be_bytes();
        for (sequence, _) in chunks::sequences(rows, tables::OUTBOX, is_header)? {
            let Some(outgoing) = Outgoing::load(rows, sequence)? else {
                continue;
            };
            if now.saturating_sub(outgoing.sent_at) <= OUTBOX_MS {
                continue;
            }
            for number in 0..outgoing.copies {
                if let Some(mut copy) = Copy::load(rows, sequence, number)? {
                    copy.end(rows, sequence, number, CopyStatus::Expired)?;
                }
                rows.delete(Copy::name(sequence, number));
            }
            rows.delete(tables::waits_for_list(&outgoing.user, Some(sequence)));
            if let Some(mut outgoing) = Outgoing::load(rows, sequence)? {
                while outgoing.length > 0 {
                    outgoing.close_one(rows, true)?;
                }
            }
            rows.delete(tables::message(&outgoing.id.0));
            rows.delete(tables::chunk(tables::OUTBOX, sequence, 0));
        }
        Ok(())
    }
}

/// Whether anything waits for this user's list.
pub(crate) fn waits_for_list(rows: &dyn Rows, name: &UserId) -> Result<bool, StoreError> {
    Ok(!waiting(rows, &tables::waits_for_list(name, None))?.is_empty())
}

/// Rows that wait under a prefix: sequence and value, ascending.
fn waiting(rows: &dyn Rows, prefix: &sprag_store::RowName) -> Result<chunks::Numbered, StoreError> {
    let mut found = Vec::new();
    rows.scan(prefix, &mut |suffix, value| {
        if let Ok(sequence) = suffix.try_into() {
            found.push((u64::from_be_bytes(sequence), Zeroizing::new(value.to_vec())));
        }
        ControlFlow::Continue(())
    })?;
    found.sort_by_key(|(sequence, _)| *sequence);
    Ok(found)
}

/// Times that a message is sent again to one device.
const AGAIN: usize = 3;

/// The copies for a device that these frames carried and that may be sent again, each once.
pub(crate) fn to_send_again(
    rows: &dyn Rows,
    from: &DeviceAddress,
    salts: &[Salt],
) -> Result<Vec<(u64, u32)>, StoreError> {
    let owner = tables::device_owner(from);
    let mut places = Vec::new();
    for salt in salts {
        let place = rows.get(&tables::carried(&owner, Some(salt)))?;
        if let Some(place) = place.and_then(|place| read_place(&place))
            && !places.contains(&place)
            && let Some(copy) = Copy::load(rows, place.0, place.1)?
            && !copy.status.is_final()
            && copy.salts.len() <= AGAIN
        {
            places.push(place);
        }
    }
    Ok(places)
}

/// A frame carried the reset under way: its receipt ends it.
pub(crate) fn note_reset(
    rows: &mut Staged<'_>,
    to: &DeviceAddress,
    salt: &Salt,
    content: &Content,
) -> Result<(), StoreError> {
    if let Some(record) = Record::load(rows, to)?
        && !record.reset.is_empty()
        && record.reset.iter().all(|id| content.reset().contains(id))
    {
        let name = tables::carried_reset(&record.owner, Some(salt));
        rows.put(name, Zeroizing::new(Vec::new()));
    }
    Ok(())
}

/// The frame of a copy was handed over.
pub(crate) fn handed_over(
    rows: &mut Staged<'_>,
    sequence: u64,
    number: u32,
) -> Result<(), StoreError> {
    let Some(mut copy) = Copy::load(rows, sequence, number)? else {
        return Ok(());
    };
    copy.task = None;
    let left = copy.status == CopyStatus::Sealed;
    if left {
        copy.status = CopyStatus::HandedOver;
    }
    copy.save(rows, sequence, number);
    if left && let Some(mut outgoing) = Outgoing::load(rows, sequence)? {
        outgoing.leave_one(rows)?;
        outgoing.save(rows);
        keep_last(rows, &tables::device_owner(&copy.to), sequence, number)?;
    }
    Ok(())
}

/// Of what was handed over to a device, the last [`KEPT`] copies wait for their receipts.
fn keep_last(
    rows: &mut Staged<'_>,
    owner: &[u8],
    sequence: u64,
    number: u32,
) -> Result<(), StoreError> {
    let place = inbox::next_in_ring(rows, owner, tables::RING_HANDED_OVER)?;
    let slot = tables::handed_over_slot(owner, place % KEPT);
    let old = rows.get(&slot)?;
    let value = [&sequence.to_be_bytes()[..], &number.to_be_bytes()].concat();
    rows.put(slot, Zeroizing::new(value));
    if let Some((sequence, number)) = old.and_then(|old| read_place(&old))
        && let Some(mut copy) = Copy::load(rows, sequence, number)?
        && copy.status == CopyStatus::HandedOver
    {
        copy.end(rows, sequence, number, CopyStatus::Expired)?;
    }
    Ok(())
}

/// A copy cannot be delivered.
pub(crate) fn undeliverable(
    rows: &mut Staged<'_>,
    sequence: u64,
    number: u32,
    status: CopyStatus,
) -> Result<(), StoreError> {
    match Copy::load(rows, sequence, number)? {
        Some(mut copy) => copy.end(rows, sequence, number, status),
        None => Ok(()),
    }
}

/// Everything that waits for a user, or for one device of his, cannot be delivered.
pub(crate) fn unreachable_user(
    rows: &mut Staged<'_>,
    name: &UserId,
    devices: &[DeviceAddress],
    status: CopyStatus,
) -> Result<(), StoreError> {
    for (sequence, _) in waiting(rows, &tables::waits_for_list(name, None))? {
        rows.delete(tables::waits_for_list(name, Some(sequence)));
        if let Some(mut outgoing) = Outgoing::load(rows, sequence)? {
            outgoing.without_copies = status;
            outgoing.close_one(rows, true)?;
        }
    }
    for device in devices {
        let owner = tables::device_owner(device);
        for (sequence, number) in waiting(rows, &tables::waits_for_session(&owner, None))? {
            let number = u32::from_be_bytes(number.as_slice().try_into().unwrap_or_default());
            undeliverable(rows, sequence, number, status)?;
        }
    }
    Ok(())
}

/// Receipts: these frames of ours were opened by the device.
pub(crate) fn received(
    rows: &mut Staged<'_>,
    from: &DeviceAddress,
    salts: &[Salt],
) -> Result<(), StoreError> {
    let owner = tables::device_owner(from);
    for salt in salts {
        let name = tables::carried(&owner, Some(salt));
        let Some(place) = rows.get(&name)? else {
            continue;
        };
        rows.delete(name);
        if let Some((sequence, number)) = read_place(&place) {
            undeliverable(rows, sequence, number, CopyStatus::Received)?;
        }
    }
    Ok(())
}

fn read_place(place: &[u8]) -> Option<(u64, u32)> {
    let (sequence, number) = place.split_first_chunk::<8>()?;
    Some((
        u64::from_be_bytes(*sequence),
        u32::from_be_bytes(number.try_into().ok()?),
    ))
}

/// A device that is not listed any more gets nothing.
pub(crate) fn drop_device(
    rows: &mut Staged<'_>,
    address: &DeviceAddress,
) -> Result<(), StoreError> {
    let owner = tables::device_owner(address);
    let mut places = Vec::new();
    rows.scan(&tables::carried(&owner, None), &mut |_, place| {
        places.extend(read_place(place));
        ControlFlow::Continue(())
    })?;
    for (sequence, number) in waiting(rows, &tables::waits_for_session(&owner, None))? {
        places.push((
            sequence,
            u32::from_be_bytes(number.as_slice().try_into().unwrap_or_default()),
        ));
    }
    for (sequence, number) in places {
        undeliverable(rows, sequence, number, CopyStatus::NoSuchDevice)?;
    }
    Ok(())
}
