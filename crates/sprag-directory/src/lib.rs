//! The directory that a Sprag client asks: device lists, prekeys and envelopes.
//!
//! This is the logic of a server after `docs/PROTOCOL.md`, Appendix C, without network, clock or randomness: a transport moves the
//! bytes that a client's tasks name in, and the bytes of the replies out. Two homes on one machine, or a simulated
//! world, chat over it with nothing else.
//!
//! | operation | bytes in | bytes out |
//! | --- | --- | --- |
//! | [`Directory::deliver`] | frame `0x10` | none |
//! | [`Directory::lists`] | `ListQuery` | `ListReply` |
//! | [`Directory::bundles`] | `BundleQuery` | `BundleReply` |
//! | [`Directory::upload_pre_keys`], [`Directory::state`] | `PreKeyUpload`; none | `PreKeyState` |
//! | [`Directory::publish_lists`] | `Lists` | `ListState` |
//! | [`Directory::fetch`], [`Directory::forget`] | none | frames `0x10`; none |
//!
//! ```
//! use sprag_directory::{Directory, DirectoryError, MemoryStorage, ServerEpoch};
//! use sprag_wire::{DeviceAddress, DeviceId, UserId};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let drawn = [7; 16]; // from the system's randomness
//! let directory = Directory::open(MemoryStorage::new(), ServerEpoch::from_bytes(drawn))?;
//!
//! let bob = DeviceAddress::new(UserId::new("bob")?, DeviceId::new(70_000)?);
//! assert!(directory.fetch(&bob, 10)?.is_empty());
//! assert!(matches!(directory.deliver(b"noise"), Err(DirectoryError::Refused(_))));
//! # Ok(())
//! # }
//! ```
//!
//! # Features
//! `folder` (default): [`FolderStorage`], a directory as files that several processes share. No further dependency.
//!
//! # What it does not do
//! It authenticates nobody: the transport does, before it passes bytes on. It decrypts nothing, and cannot: it depends
//! neither on the handshake nor on the ratchet. It verifies the signatures of device lists, but not those of prekeys.
//! Objects and blobs of the vault are not kept here.
#![forbid(unsafe_code)]

mod directory;
mod error;
mod inbox;
mod lists;
mod prekeys;
mod storage;
#[cfg(test)]
mod tests;

pub use directory::{Directory, ServerEpoch};
pub use error::{DirectoryError, Refusal};
pub use inbox::{MAX_WAITING, MAX_WAITING_BYTES};
#[cfg(feature = "folder")]
pub use storage::FolderStorage;
pub use storage::{Entry, LockedStorage, MAX_LISTED, MemoryStorage, Storage, StorageError};
