//! The directory that a Sprag client asks: device lists, prekeys, envelopes, objects and blobs.
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
//! | [`Directory::put_object`], [`Directory::get_object`] | `Object` | `Object` |
//! | [`Directory::put_blob`], [`Directory::get_blob`], [`Directory::drop_blob`] | name, bytes; name; name | none; bytes; none |
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
//! It says nothing about how much a user may keep: each object and blob has a bound, their number has none.
#![forbid(unsafe_code)]

mod blobs;
mod directory;
mod error;
mod inbox;
mod lists;
mod objects;
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
