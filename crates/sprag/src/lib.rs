//! The Signal Protocol for people who build chat clients and AI-agent apps: end-to-end encrypted messages, durable by
//! default, post-quantum by default.
//!
//! A [`Client`] is one device of one user. It keeps its state in a store that survives crashes, encrypts for all devices
//! of whom one writes to, and never touches the network: it *says what the network must do* ([`Client::tasks`]) and
//! takes what comes in ([`Client::receive_encrypted_message`]). Any transport will do.
//!
//! ```
//! use sprag::Client;
//!
//! # fn main() -> Result<(), sprag::Error> {
//! let alice = Client::in_memory("alice")?;
//! let id = alice.send_encrypted_message("bob", b"hello")?; // durable when it returns
//! assert!(!alice.tasks()?.is_empty()); // publish our keys, fetch bob's
//! assert_eq!(alice.status(id)?.map(|copies| copies.len()), Some(1));
//! alice.close()
//! # }
//! ```
//!
//! # What holds
//!
//! * Nothing leaves before it is on stable storage: no ciphertext, no plaintext. A crash at any instant loses nothing
//!   that was acknowledged, and uses no message key twice.
//! * All clones of a client, in all threads, are one client. A second process on the same store gets `store_in_use`, a
//!   forked child `forked`.
//! * Every verb exists as a future that needs no runtime ([`Client::start`]).
//! * Results are owned plain data; errors have a stable [`code`](Error::code) and say what to [do](Error::action).
//!
//! # What it does not do
//!
//! It has not been audited. It hides neither who writes to whom nor when. It cannot notice that a whole store was put
//! back to an older state, unless an anchor outside of it remembers how far it was (`Client::options`). Keys in memory are wiped after use, but not protected from whoever reads the process.
//!
//! # Features
//!
//! * `attachments` (default): what is too large for a message, sealed apart and named in one (`Client::attach`).
//! * `redb`: stores on disk in redb, chosen when a profile is made, or moved to by `Store::migrate`.
//! * `keyring`: an anchor in the keyring of the operating system.
//! * `memory` (default): memories and chats of agents and applications, encrypted here and kept anywhere ([`memory`]).
//! * `http`, `s3`: backends for them; the only parts of this library that open a connection.
//! * `sled` (default): stores on disk. Without it, and on wasm, bring a backend or sink of your own
//!   ([`Client::with_store`]); blocking verbs do not exist on wasm.
#![forbid(unsafe_code)]

mod aside;
#[cfg(feature = "attachments")]
mod attach;
mod backup;
mod client;
mod devices;
mod diagnose;
#[cfg(all(any(feature = "sled", feature = "redb"), not(target_family = "wasm")))]
pub mod doctor;
mod durable;
mod error;
#[cfg(all(any(feature = "sled", feature = "redb"), not(target_family = "wasm")))]
mod guard;
mod health;
#[cfg(feature = "memory")]
pub mod memory;
mod notifier;
#[cfg(all(any(feature = "sled", feature = "redb"), not(target_family = "wasm")))]
mod open;
mod party;
mod pending;
#[cfg(not(target_family = "wasm"))]
mod proof;
mod reopen;
mod start;
mod sync;
mod sys;
mod types;
mod upkeep;
#[cfg(not(target_family = "wasm"))]
mod verbs;

#[cfg(feature = "attachments")]
pub use attach::{Attachment, AttachmentParts, MAX_ATTACHMENT, OpenedAttachment};
pub use backup::{BackupSummary, Restore};
pub use client::{Client, Clock, Surroundings};
pub use devices::{OwnDevice, OwnDeviceState, OwnFork};
pub use error::{Action, CODES, Error, Question};
#[cfg(all(any(feature = "sled", feature = "redb"), not(target_family = "wasm")))]
pub use guard::{AfterRollback, OpenOptions};
pub use pending::Pending;
pub use sprag_keys::{Argon2Params, Key, KeyError, RecoveryKey, RecoveryKeyError};
pub use sprag_session::{
    ClocksApart, Diagnosis, Finding, Place, Report, ReportError, RingEvent, Side, Transport,
};
pub use sprag_store as store;
pub use sprag_wire::{DeviceAddress, DeviceId, UserId};
pub use start::Start;
pub use types::{
    Contact, CopyStatus, Event, Failure, Health, InboxId, LogError, MemoryHealth, Message,
    MessageId, NumberedEvent, Received, RecordId, Refusal, SafetyNumber, Space, SpaceKind, Status,
    Task, TaskId,
};
pub use upkeep::{ClockInDoubt, Upkeep, UpkeepSettings};
