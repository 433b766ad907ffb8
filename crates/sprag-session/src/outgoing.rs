//! The rows of the outbox: a message, and its copies for each device.

use sprag_crypto::Salt;
use sprag_store::{Rows, Staged, StoreError};
use sprag_wire::{Content, DeviceAddress, UserId};

use crate::codec::{Reader, Writer};
use crate::error::{ProtocolError, StepError};
use crate::own::Counters;
use crate::task::{StoredTask, TaskId, read_address, read_user, write_address};
use crate::{chunks, tables};

const VERSION: u8 = 1;
const COPY_VERSION_1: u8 = 1;
const COPY_VERSION: u8 = 2;

/// Names a message: the same 16 bytes in all copies of it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageId(pub(crate) [u8; 16]);

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
    pub(crate) fn waits(self) -> bool {
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
pub(crate) struct Outgoing {
    pub(crate) sequence: u64,
    pub(crate) id: MessageId,
    pub(crate) user: UserId,
    pub(crate) sent_at: u64,
    /// Bytes of the encoded content; 0 once nothing can need it any more.
    pub(crate) length: u32,
    /// Copies made so far.
    pub(crate) copies: u32,
    /// Copies whose status may still change, and one for a list that is waited for.
    pub(crate) open: u32,
    /// Those of them that were not handed over yet.
    pub(crate) waiting: u32,
    /// The status if there was never a copy.
    pub(crate) without_copies: CopyStatus,
}

impl Outgoing {
    pub(crate) fn load(rows: &dyn Rows, sequence: u64) -> Result<Option<Self>, StoreError> {
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

    pub(crate) fn save(&self, rows: &mut Staged<'_>) {
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
    pub(crate) fn close_one(
        &mut self,
        rows: &mut Staged<'_>,
        waited: bool,
    ) -> Result<(), StoreError> {
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
    pub(crate) fn leave_one(&mut self, rows: &mut Staged<'_>) -> Result<(), StoreError> {
        if self.waiting == 1 {
            let mut counters = Counters::load(rows)?;
            counters.outbox = counters.outbox.saturating_sub(1);
            counters.save(rows);
        }
        self.waiting = self.waiting.saturating_sub(1);
        Ok(())
    }

    /// One thing more that waits to be handed over, although it was before.
    pub(crate) fn wait_again(&mut self, rows: &mut Staged<'_>) -> Result<(), StoreError> {
        if self.waiting == 0 {
            let mut counters = Counters::load(rows)?;
            counters.outbox = counters.outbox.saturating_add(1);
            counters.save(rows);
        }
        self.waiting = self.waiting.saturating_add(1);
        self.save(rows);
        Ok(())
    }

    pub(crate) fn content(&self, rows: &dyn Rows) -> Result<Content, StepError> {
        let bytes = chunks::get(rows, tables::OUTBOX, self.sequence, 1, self.length as usize)?;
        Content::decode(&bytes).map_err(|_| crate::error::damaged("outbox content"))
    }
}

/// One device's copy.
#[derive(Debug, Clone)]
pub(crate) struct Copy {
    pub(crate) to: DeviceAddress,
    pub(crate) status: CopyStatus,
    /// Of the frames that carried it: one for each time it was sent.
    pub(crate) salts: Vec<Salt>,
    pub(crate) task: Option<TaskId>,
    /// How often it was sent again because the device asked.
    pub(crate) asked: u8,
}

impl Copy {
    pub(crate) fn name(sequence: u64, copy: u32) -> sprag_store::RowName {
        tables::chunk(tables::COPIES, sequence, copy)
    }

    pub(crate) fn load(
        rows: &dyn Rows,
        sequence: u64,
        copy: u32,
    ) -> Result<Option<Self>, StoreError> {
        let Some(bytes) = rows.get(&Self::name(sequence, copy))? else {
            return Ok(None);
        };
        // The first version did not count: there, whatever was sent again had been asked for.
        let first_version = bytes.first() == Some(&COPY_VERSION_1);
        let version = if first_version {
            COPY_VERSION_1
        } else {
            COPY_VERSION
        };
        let mut reader = Reader::new(&bytes, version, "outbox copy")?;
        let mut copy = Self {
            to: read_address(&mut reader)?,
            status: read_status(&mut reader)?,
            salts: (0..reader.u8()?)
                .map(|_| reader.array().map(Salt::from_bytes))
                .collect::<Result<_, _>>()?,
            task: reader
                .optional()?
                .map(|id| TaskId::new(u64::from_be_bytes(id))),
            asked: 0,
        };
        copy.asked = if first_version {
            u8::try_from(copy.salts.len().saturating_sub(1)).unwrap_or(u8::MAX)
        } else {
            reader.u8()?
        };
        reader.finish()?;
        Ok(Some(copy))
    }

    pub(crate) fn save(&self, rows: &mut Staged<'_>, sequence: u64, copy: u32) {
        let mut writer = Writer::new(COPY_VERSION, 300 + self.salts.len() * 16);
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
        writer.u8(self.asked);
        rows.put(Self::name(sequence, copy), writer.finish());
    }

    /// Ends the copy: nothing is offered, and no receipt is waited for.
    pub(crate) fn end(
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
