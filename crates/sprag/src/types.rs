//! What verbs give back: owned plain data.

use std::fmt;

use sprag_session::{Delivery, InboxMessage, ProtocolError, Transport};

use crate::error::{Action, protocol_action, protocol_code};

pub use sprag_session::memory::{LogError, MemoryHealth, RecordId, Space, SpaceKind};
pub use sprag_session::{CopyStatus, Event, Failure, Health, InboxId, MessageId, Task, TaskId};

/// A received message. It is offered again until it is acknowledged.
#[derive(Clone, PartialEq, Eq)]
pub struct Message(InboxMessage);

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Message")
            .field("id", &self.0.id)
            .finish_non_exhaustive()
    }
}

impl Message {
    pub(crate) fn new(message: InboxMessage) -> Self {
        Self(message)
    }

    /// Names it for `acknowledge`.
    #[must_use]
    pub fn id(&self) -> InboxId {
        self.0.id
    }

    /// The id that its sender gave it: the same on all devices.
    #[must_use]
    pub fn message_id(&self) -> MessageId {
        self.0.message_id
    }

    /// With whom the conversation is that it belongs to: who sent it; or, of a copy of what another device of our own
    /// user sent, to whom.
    #[must_use]
    pub fn conversation(&self) -> Vec<String> {
        match self.0.sent_to.as_slice() {
            [] => vec![self.from().to_owned()],
            users => users.iter().map(|user| user.as_str().to_owned()).collect(),
        }
    }

    /// Whether it is a copy of what another device of our own user sent to others.
    #[must_use]
    pub fn is_sync(&self) -> bool {
        !self.0.sent_to.is_empty()
    }

    /// The user who sent it.
    #[must_use]
    pub fn from(&self) -> &str {
        self.0.from.user().as_str()
    }

    /// The number of the device that sent it.
    #[must_use]
    pub fn from_device(&self) -> u32 {
        self.0.from.device().get()
    }

    /// The sender's clock, in milliseconds since 1970. For display only: nobody vouches for it.
    #[must_use]
    pub fn sent_at(&self) -> u64 {
        self.0.sent_at
    }

    /// Our clock when it was opened, in milliseconds since 1970.
    #[must_use]
    pub fn received_at(&self) -> u64 {
        self.0.received_at
    }

    /// Whether its sender was accepted when it came. A stranger may claim any name until the server's list was seen.
    #[must_use]
    pub fn is_accepted(&self) -> bool {
        self.0.accepted
    }

    /// What the sender's application gave, up to 917,504 bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.0.application
    }

    /// The bytes as text; what is not UTF-8 becomes U+FFFD.
    #[must_use]
    pub fn text_lossy(&self) -> String {
        String::from_utf8_lossy(&self.0.application).into_owned()
    }
}

/// Why a frame was refused. Nothing was changed, unless its code is `bad_content`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Refusal(ProtocolError);

impl Refusal {
    /// One of [`CODES`](crate::CODES).
    #[must_use]
    pub fn code(self) -> &'static str {
        protocol_code(self.0)
    }

    /// What to do about it, if anything.
    #[must_use]
    pub fn action(self) -> Action {
        protocol_action(self.0)
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// What an envelope brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Received {
    messages: Vec<Message>,
    refused: Option<Refusal>,
    transport: Transport,
}

impl Received {
    pub(crate) fn new(delivery: Delivery) -> Self {
        Self {
            messages: delivery.message.map(Message).into_iter().collect(),
            refused: delivery.refused.map(Refusal),
            transport: delivery.transport,
        }
    }

    /// The messages for the application: none or one today.
    #[must_use]
    pub fn messages(&self) -> &[Message] {
        &self.messages
    }

    /// Why the frame was refused, if it was.
    #[must_use]
    pub fn refused(&self) -> Option<Refusal> {
        self.refused
    }

    /// What the transport does with the envelope.
    #[must_use]
    pub fn transport(&self) -> Transport {
        self.transport
    }
}

/// The numbers that two people compare to know that nobody stands between them.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SafetyNumber {
    /// 60 digits: the same on both sides.
    pub digits: String,
    /// The bytes of the code that the other side scans: to be shown as QR.
    pub code: Vec<u8>,
}

/// One person of the contact list.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Contact {
    /// The user's name.
    pub user: String,
    /// Whether the application accepted him: opened a session with him, sent to him, or said so.
    pub accepted: bool,
    /// Whether his identity changed and nobody has decided yet.
    pub changed: bool,
    /// The numbers of his listed devices.
    pub devices: Vec<u32>,
}

/// An event with its number; `events` takes up after a number.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct NumberedEvent {
    /// Ascends.
    pub number: u64,
    /// What happened.
    pub event: Event,
}

/// What became of a message on its way to one device.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Status {
    /// `user#device`, or the user alone while his devices are not known.
    pub to: String,
    /// How far it is.
    pub status: CopyStatus,
}
