//! What happened that nobody asked for: told once, kept until the application has read it.

use sprag_store::{Rollback, Rows, Staged, StoreError};
use sprag_wire::{DeviceAddress, UserId};

use crate::codec::{Reader, Writer};
use crate::error::{ProtocolError, StepError};
use crate::memory::{LogError, RecordId, Space};
use crate::outgoing::MessageId;
use crate::own::{Counters, Device};
use crate::task::{TaskId, read_address, read_user, write_address};
use crate::{chunks, tables};

/// Events that are kept; beyond it the oldest are dropped.
pub const EVENTS: usize = 1_000;

const VERSION: u8 = 1;

/// Something that the application, and often its user, should know.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// The account key of a user differs from the remembered one, or his device lists contradict each other. Nothing
    /// goes to the new identity until the application accepts it (`accept`); messages on sessions with the remembered
    /// one go on. Compare safety numbers first.
    #[non_exhaustive]
    IdentityChanged {
        /// The user.
        user: UserId,
    },
    /// What was remembered of a user whom nobody accepted was replaced by what the server says.
    #[non_exhaustive]
    ProvisionalReplaced {
        /// The user.
        user: UserId,
    },
    /// A contact says that he saw a device list of ours that this account never signed. He may lie; else somebody
    /// deceives him. Compare safety numbers with him.
    #[non_exhaustive]
    ListMismatch {
        /// The contact.
        user: UserId,
    },
    /// A list or bundle that the server gave was refused.
    #[non_exhaustive]
    ReplyRefused {
        /// The task that it answered.
        task: TaskId,
        /// Why.
        error: ProtocolError,
    },
    /// The server refused a task, which now waits (`retry`).
    #[non_exhaustive]
    TaskRefused {
        /// The task.
        task: TaskId,
        /// The server's code.
        code: u32,
    },
    /// A frame of a listed sender could not be read although it was really his: something was lost.
    #[non_exhaustive]
    Unreadable {
        /// The device that sent it.
        from: DeviceAddress,
        /// Why.
        error: ProtocolError,
    },
    /// A device asked for messages that it could not read, and was sent them again. Somebody who took over the device
    /// could ask too.
    #[non_exhaustive]
    SentAgain {
        /// The device.
        to: DeviceAddress,
        /// How many messages.
        count: u32,
    },
    /// This device came out of a backup and is on its account's list now. It has no session with anybody yet: contacts
    /// learn of it by the list that rides in its first messages, or when they fetch it.
    #[non_exhaustive]
    Restored {
        /// Its number.
        device: u32,
    },
    /// A message was opened whose content breaks the rules. Its key is spent.
    #[non_exhaustive]
    BadContent {
        /// The device that sent it.
        from: DeviceAddress,
    },
    /// The store was set back to an earlier state, and this device went on with new sessions. What it received in the time
    /// that is lost it may not have; what it sent then it does not know of.
    #[non_exhaustive]
    SetBack {
        /// By what it was found.
        sign: Rollback,
    },
    /// When this profile became a new device, these messages of it were not handed over to all their devices, as far as
    /// it knew, and are gone: at most 100 in one event. Whether they were sent in the time that is lost nobody knows. What
    /// still matters is to be sent anew.
    #[non_exhaustive]
    NotSent {
        /// Their ids, in the order they were sent.
        messages: Vec<MessageId>,
    },
    /// The anchor of the rollback guard cannot be reached: until it answers, a store that is set back may go unnoticed.
    AnchorAway,
    /// The anchor answers again.
    AnchorBack,
    /// A message was opened whose kind this version does not know.
    #[non_exhaustive]
    Unsupported {
        /// The device that sent it.
        from: DeviceAddress,
    },
    /// A frame that had waited for a device list, or for the user's decision, was opened. Its message is in the inbox.
    #[non_exhaustive]
    OfferedAgain {
        /// The device that sent it.
        from: DeviceAddress,
    },
    /// Users who are not accepted say that they saw a device list of ours that this account never signed. Told once a
    /// day. Anybody can say so; many at once may mean that a server shows newcomers a false list.
    #[non_exhaustive]
    StrangersSawOtherList {
        /// Frames that said so since this was told last.
        count: u32,
    },
    /// The server was restored from a backup, or began anew: it is given prekeys and lists again, and what was sent and
    /// not yet received is delivered again.
    #[non_exhaustive]
    ServerWentBack {
        /// Copies of messages that are delivered again.
        again: u32,
    },
    /// The server gave prekeys of a device that its user never added. Nothing went there.
    #[non_exhaustive]
    ForeignDevice {
        /// The device.
        device: DeviceAddress,
    },
    /// The server gave an older device list than the one known: it went back, or somebody hides news.
    #[non_exhaustive]
    ListReplayed {
        /// The user whose list it is.
        user: UserId,
        /// Epoch of the list that was given.
        epoch: u64,
    },
    /// A device list that rode in a message was refused; what was known stays.
    #[non_exhaustive]
    ListRefused {
        /// The user whose list it claimed to be.
        user: UserId,
        /// Why.
        error: ProtocolError,
    },
    /// There are two lists of our own account that contradict each other. Nothing changes until the user says, on each
    /// of his devices, which one it goes on with (`settle_fork`).
    #[non_exhaustive]
    OwnListForked {
        /// Hash (32 bytes) of the list that this device goes by.
        ours: [u8; 32],
        /// Hash (32 bytes) of the other one.
        theirs: [u8; 32],
    },
    /// A device is new on the list of our own account, as every device of it is told. If nobody added one: remove it.
    #[non_exhaustive]
    DeviceAdded {
        /// Its number.
        device: u32,
    },
    /// A device is not on the list of our own account any more. If it is this one, it sends nothing from now on.
    #[non_exhaustive]
    DeviceRemoved {
        /// Its number.
        device: u32,
    },
    /// This device was given the keys of its account, and is linked.
    Linked,
    /// A link request came to its end before the keys of the account were there. The new device is to be forgotten.
    #[non_exhaustive]
    LinkEnded {
        /// The number that the new device was listed under, if it was.
        device: Option<u32>,
    },
    /// A change of our own list does not fit the newer list that others made meanwhile, and was given up.
    #[non_exhaustive]
    ListChangeDropped {
        /// The device that it was about.
        device: u32,
    },
    /// A device of our own account, other than a contact's, gave keys that are not those of the account, or a proof
    /// that fits no request of this device. They were not taken.
    #[non_exhaustive]
    ShareRefused {
        /// The device that sent them.
        from: DeviceAddress,
    },
    /// What the server has of a space of memories was refused: an older state, one that no listed device signed, another
    /// branch than the one seen, or one of which a part is missing. What this device has stays, and is put again.
    #[non_exhaustive]
    MemoryRefused {
        /// The space.
        space: Space,
        /// Why.
        error: LogError,
    },
    /// Two devices wrote one revision of a record without knowing of each other. One of the writes counts; the other one,
    /// which this tells of, is kept (`lost_writes`).
    #[non_exhaustive]
    MemoryConflict {
        /// The space.
        space: Space,
        /// The record.
        record: RecordId,
        /// The device whose write lost.
        device: u32,
    },
    /// The server lacked the newest state of a space, and is given it again.
    #[non_exhaustive]
    MemoryRefilled {
        /// The space.
        space: Space,
    },
    /// Records that were erased are so now: no listed device holds anything any more that opens them.
    #[non_exhaustive]
    MemoryErased {
        /// How many.
        count: u32,
    },
    /// The clock of this machine jumped, by more than 30 days forward or a day back. Until it is right again, confirmed
    /// (`confirm_time`) or has run steadily for 30 days, nothing is deleted for its age.
    #[non_exhaustive]
    ClockJumped {
        /// What it said when it was last believed, in milliseconds since 1970.
        last: u64,
        /// What it said then.
        now: u64,
    },
}

/// Every protocol error with the number that it is stored under. Append only.
pub(crate) const ERRORS: [ProtocolError; 23] = [
    ProtocolError::Malformed,
    ProtocolError::UnsupportedVersion,
    ProtocolError::UnknownPeer,
    ProtocolError::BadOrigin,
    ProtocolError::UntrustedIdentity,
    ProtocolError::UnlistedDevice,
    ProtocolError::StaleList,
    ProtocolError::ForkedList,
    ProtocolError::UnknownList,
    ProtocolError::ListMismatch,
    ProtocolError::Duplicate,
    ProtocolError::NoSession,
    ProtocolError::UnknownPreKey,
    ProtocolError::ModeRefused,
    ProtocolError::Desynchronised,
    ProtocolError::TooFarAhead,
    ProtocolError::Unreadable,
    ProtocolError::InvalidKey,
    ProtocolError::BadSignature,
    ProtocolError::NeedsBundle,
    ProtocolError::ChainExhausted,
    ProtocolError::BadContent,
    ProtocolError::BadInput,
];

pub(crate) fn error_number(error: ProtocolError) -> u8 {
    let place = ERRORS.iter().position(|other| *other == error);
    place
        .and_then(|place| u8::try_from(place).ok())
        .unwrap_or(u8::MAX)
}

pub(crate) fn error_of(number: u8) -> Option<ProtocolError> {
    ERRORS.get(usize::from(number)).copied()
}

/// Records an event and drops the oldest beyond [`EVENTS`].
pub(crate) fn record(rows: &mut Staged<'_>, event: &Event) -> Result<(), StoreError> {
    // Frames come as often as somebody likes: what they say again and again is told once, and pushes out no others.
    let of_a_frame = matches!(
        event,
        Event::ListMismatch { .. }
            | Event::Unreadable { .. }
            | Event::BadContent { .. }
            | Event::Unsupported { .. }
            | Event::OfferedAgain { .. }
            | Event::ForeignDevice { .. }
            | Event::ListReplayed { .. }
            | Event::ListRefused { .. }
            | Event::OwnListForked { .. }
            | Event::ShareRefused { .. }
            | Event::MemoryRefused { .. }
            | Event::MemoryRefilled { .. }
    );
    let mut writer = Writer::new(VERSION, 300);
    match event {
        Event::IdentityChanged { user } => writer.u8(1).block(user.as_str().as_bytes()),
        Event::ProvisionalReplaced { user } => writer.u8(2).block(user.as_str().as_bytes()),
        Event::ListMismatch { user } => writer.u8(3).block(user.as_str().as_bytes()),
        Event::ReplyRefused { task, error } => {
            writer.u8(4).u64(task.get()).u8(error_number(*error))
        }
        Event::TaskRefused { task, code } => writer.u8(5).u64(task.get()).u32(*code),
        Event::Unreadable { from, error } => {
            write_address(writer.u8(6), from);
            writer.u8(error_number(*error))
        }
        Event::BadContent { from } => {
            write_address(writer.u8(7), from);
            &mut writer
        }
        Event::Unsupported { from } => {
            write_address(writer.u8(8), from);
            &mut writer
        }
        Event::Restored { device } => writer.u8(45).u32(*device),
        Event::SentAgain { to, count } => {
            write_address(writer.u8(9), to);
            writer.u32(*count)
        }
        Event::OfferedAgain { from } => {
            write_address(writer.u8(20), from);
            &mut writer
        }
        Event::StrangersSawOtherList { count } => writer.u8(21).u32(*count),
        Event::ServerWentBack { again } => writer.u8(22).u32(*again),
        Event::ForeignDevice { device } => {
            write_address(writer.u8(10), device);
            &mut writer
        }
        Event::ListReplayed { user, epoch } => {
            writer.u8(11).block(user.as_str().as_bytes()).u64(*epoch)
        }
        Event::ListRefused { user, error } => writer
            .u8(12)
            .block(user.as_str().as_bytes())
            .u8(error_number(*error)),
        Event::OwnListForked { ours, theirs } => writer.u8(13).fixed(ours).fixed(theirs),
        Event::DeviceAdded { device } => writer.u8(14).u32(*device),
        Event::DeviceRemoved { device } => writer.u8(15).u32(*device),
        Event::Linked => writer.u8(16),
        Event::LinkEnded { device } => writer.u8(17).u32(device.unwrap_or(0)),
        Event::ListChangeDropped { device } => writer.u8(18).u32(*device),
        Event::ShareRefused { from } => {
            write_address(writer.u8(19), from);
            &mut writer
        }
        Event::SetBack { sign } => writer.u8(40).u8(sign_number(*sign)),
        Event::NotSent { messages } => {
            writer.u8(43);
            writer.u8(u8::try_from(messages.len()).unwrap_or(u8::MAX));
            for id in messages {
                writer.fixed(id.as_bytes());
            }
            &mut writer
        }
        Event::AnchorAway => writer.u8(41),
        Event::AnchorBack => writer.u8(42),
        Event::ClockJumped { last, now } => writer.u8(30).u64(*last).u64(*now),
        Event::MemoryRefused { space, error } => {
            write_space(writer.u8(50), space);
            writer.u8(log_error_number(*error))
        }
        Event::MemoryConflict {
            space,
            record,
            device,
        } => {
            write_space(writer.u8(51), space);
            writer.block(record.as_bytes()).u32(*device)
        }
        Event::MemoryRefilled { space } => {
            write_space(writer.u8(52), space);
            &mut writer
        }
        Event::MemoryErased { count } => writer.u8(53).u32(*count),
    };
    let bytes = writer.finish();
    let last = tables::sequence(tables::EVENTS, Counters::load(rows)?.event);
    if of_a_frame && rows.get(&last)?.is_some_and(|last| *last == *bytes) {
        return Ok(());
    }
    let sequence = Counters::next(rows, |counters| &mut counters.event)?;
    rows.put(tables::sequence(tables::EVENTS, sequence), bytes);
    if let Some(old) = sequence.checked_sub(EVENTS as u64) {
        rows.delete(tables::sequence(tables::EVENTS, old));
    }
    Ok(())
}

pub(crate) fn read(bytes: &[u8]) -> Result<Event, StoreError> {
    let mut reader = Reader::new(bytes, VERSION, "event row")?;
    let event = match reader.u8()? {
        1 => Event::IdentityChanged {
            user: read_user(&mut reader)?,
        },
        2 => Event::ProvisionalReplaced {
            user: read_user(&mut reader)?,
        },
        3 => Event::ListMismatch {
            user: read_user(&mut reader)?,
        },
        4 => Event::ReplyRefused {
            task: TaskId::new(reader.u64()?),
            error: read_error(&mut reader)?,
        },
        5 => Event::TaskRefused {
            task: TaskId::new(reader.u64()?),
            code: reader.u32()?,
        },
        6 => Event::Unreadable {
            from: read_address(&mut reader)?,
            error: read_error(&mut reader)?,
        },
        7 => Event::BadContent {
            from: read_address(&mut reader)?,
        },
        8 => Event::Unsupported {
            from: read_address(&mut reader)?,
        },
        9 => Event::SentAgain {
            to: read_address(&mut reader)?,
            count: reader.u32()?,
        },
        20 => Event::OfferedAgain {
            from: read_address(&mut reader)?,
        },
        21 => Event::StrangersSawOtherList {
            count: reader.u32()?,
        },
        22 => Event::ServerWentBack {
            again: reader.u32()?,
        },
        10 => Event::ForeignDevice {
            device: read_address(&mut reader)?,
        },
        11 => Event::ListReplayed {
            user: read_user(&mut reader)?,
            epoch: reader.u64()?,
        },
        12 => Event::ListRefused {
            user: read_user(&mut reader)?,
            error: read_error(&mut reader)?,
        },
        13 => Event::OwnListForked {
            ours: reader.array()?,
            theirs: reader.array()?,
        },
        14 => Event::DeviceAdded {
            device: reader.u32()?,
        },
        15 => Event::DeviceRemoved {
            device: reader.u32()?,
        },
        16 => Event::Linked,
        17 => Event::LinkEnded {
            device: Some(reader.u32()?).filter(|device| *device > 0),
        },
        18 => Event::ListChangeDropped {
            device: reader.u32()?,
        },
        19 => Event::ShareRefused {
            from: read_address(&mut reader)?,
        },
        40 => Event::SetBack {
            sign: match reader.u8()? {
                1 => Rollback::OtherOpening,
                2 => Rollback::BehindWatermark,
                3 => Rollback::AnchorGone,
                _ => return Err(reader.damaged()),
            },
        },
        43 => {
            let count = reader.u8()?;
            let messages = (0..count).map(|_| Ok(MessageId::from_bytes(reader.array()?)));
            let messages = messages.collect::<Result<_, StoreError>>()?;
            Event::NotSent { messages }
        }
        41 => Event::AnchorAway,
        42 => Event::AnchorBack,
        30 => Event::ClockJumped {
            last: reader.u64()?,
            now: reader.u64()?,
        },
        45 => Event::Restored {
            device: reader.u32()?,
        },
        50 => Event::MemoryRefused {
            space: read_space(&mut reader)?,
            error: {
                let number = reader.u8()?;
                let error = LOG_ERRORS.get(usize::from(number)).copied();
                error.ok_or_else(|| reader.damaged())?
            },
        },
        51 => Event::MemoryConflict {
            space: read_space(&mut reader)?,
            record: {
                let id = RecordId::any(reader.block()?);
                reader.checked(id)?
            },
            device: reader.u32()?,
        },
        52 => Event::MemoryRefilled {
            space: read_space(&mut reader)?,
        },
        53 => Event::MemoryErased {
            count: reader.u32()?,
        },
        _ => return Err(reader.damaged()),
    };
    reader.finish()?;
    Ok(event)
}

/// Every error of logs with the number that it is stored under. Append only.
const LOG_ERRORS: [LogError; 10] = [
    LogError::BadInput,
    LogError::Damaged,
    LogError::NotYet,
    LogError::Stale,
    LogError::Forked,
    LogError::UnlistedDevice,
    LogError::BadSignature,
    LogError::TooLarge,
    LogError::Erased,
    LogError::Missing,
];

fn log_error_number(error: LogError) -> u8 {
    let place = LOG_ERRORS.iter().position(|other| *other == error);
    place
        .and_then(|place| u8::try_from(place).ok())
        .unwrap_or(u8::MAX)
}

fn write_space(writer: &mut Writer, space: &Space) {
    writer.block(space.listed_as().as_bytes());
}

fn read_space(reader: &mut Reader<'_>) -> Result<Space, StoreError> {
    let space = Space::of_listed_bytes(reader.block()?);
    space.map_err(|_| reader.damaged())
}

fn sign_number(sign: Rollback) -> u8 {
    match sign {
        Rollback::OtherOpening => 1,
        Rollback::BehindWatermark => 2,
        // The last that there is.
        _ => 3,
    }
}

fn read_error(reader: &mut Reader<'_>) -> Result<ProtocolError, StoreError> {
    let number = reader.u8()?;
    error_of(number).ok_or_else(|| reader.damaged())
}

impl Device {
    /// The events after number `since`, oldest first, each with its number. The last 1,000 are kept.
    ///
    /// # Errors
    /// What the store answers.
    pub fn events(&self, rows: &dyn Rows, since: u64) -> Result<Vec<(u64, Event)>, StepError> {
        events(rows, since)
    }
}

/// The events after number `since`.
pub(crate) fn events(rows: &dyn Rows, since: u64) -> Result<Vec<(u64, Event)>, StepError> {
    let mut events = Vec::new();
    for (number, value) in chunks::sequences(rows, tables::EVENTS, <[u8]>::is_empty)? {
        if number > since {
            events.push((number, read(&value)?));
        }
    }
    Ok(events)
}
