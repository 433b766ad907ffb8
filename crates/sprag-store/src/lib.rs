//! Sprag's store: sealed rows, atomic ordered commits, sled, redb and memory backends.
//!
//! The layers above read [`Rows`] and gather [`Changes`]; the [`Store`] seals them, blinds the names of owners, and
//! commits each set of changes atomically, in order, before anything that depends on it may leave the process:
//!
//! ```
//! # #[cfg(feature = "sled")]
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use rand_core::UnwrapErr;
//! use getrandom::SysRng;
//! use sprag_keys::Key;
//! use sprag_store::{Changes, RowName, Rows, Store};
//!
//! let dir = tempfile::tempdir()?;
//! let store = Store::create(dir.path(), &Key::raw([7; 32]), UnwrapErr(SysRng))?;
//! let mut changes = Changes::new();
//! changes.put(RowName::owned(0x12, "bob", [0, 0, 0, 1]), b"state".to_vec());
//! store.commit_blocking(changes)?; // on stable storage when it returns
//! store.close()?;
//!
//! let store = Store::open(dir.path(), &Key::raw([7; 32]), UnwrapErr(SysRng))?;
//! let row = store.get(&RowName::owned(0x12, "bob", [0, 0, 0, 1]))?;
//! assert_eq!(row.unwrap().as_slice(), b"state");
//! # Ok(()) }
//! # #[cfg(not(feature = "sled"))]
//! # fn main() {}
//! ```
//!
//! Places to keep rows are a [`Backend`], or the smaller [`Sink`]; both can be checked with [`conformance`]. The feature
//! `sled` (on by default) brings one in a directory, the feature `redb` another. Without both this crate touches no file.
//!
//! A program that is built with `panic = "abort"` dies where this crate would report damage: databases panic on damaged files.
//! Before a second attempt at a store that was reported damaged, copy its directory: opening may rewrite it.
//!
//! Databases keep overwritten rows for long. [`Store::renew`] moves the live ones into a new epoch, under a new key, and
//! destroys the old one; somebody has to call it now and then.
//!
//! A store alone cannot see that it was put back to an older state as a whole. An [`Anchor`] outside of it can:
//! [`Store::guard`].
#![forbid(unsafe_code)]

mod anchor;
mod backend;
mod blind;
mod cache;
#[cfg(any(feature = "sled", feature = "redb"))]
mod commit;
#[cfg(not(target_arch = "wasm32"))]
pub mod conformance;
#[cfg(any(feature = "sled", feature = "redb"))]
mod disk;
#[cfg(any(feature = "sled", feature = "redb"))]
pub mod doctor;
mod error;
#[cfg(all(feature = "inject-faults", any(feature = "sled", feature = "redb")))]
pub mod faults;
#[cfg(any(feature = "sled", feature = "redb"))]
mod home;
#[cfg(feature = "keyring")]
mod keyring;
mod labels;
mod manifest;
#[cfg(any(feature = "sled", feature = "redb"))]
mod mark;
mod memory;
mod proof;
#[cfg(feature = "redb")]
mod redb;
mod rows;
mod sealed;
mod sink;
#[cfg(feature = "sled")]
mod sled;
mod store;
mod sync;
mod sys;

#[cfg(any(feature = "sled", feature = "redb"))]
pub use anchor::FileAnchor;
pub use anchor::{Anchor, AnchorError, AnchorRecord};
pub use backend::{BACKEND_TABLES, Backend, BackendError, Batch, Completion, MAX_SEALED, RowMap};
pub use error::{Cause, Rollback, StoreError};
#[cfg(feature = "keyring")]
pub use keyring::KeyringAnchor;
pub use manifest::{BackendKind, MANIFEST_LEN, Manifest, StoreKeys};
pub use memory::{Forget, MemoryBackend};
pub use proof::{PROOF_LEN, ProofChannel, ProofKey, ProofNonces, ProofSide};
pub use rows::{
    Changes, MAX_ROW, MAX_SUFFIX, META_TABLE, MemoryRows, RowName, Rows, Staged, Visit,
};
pub use sink::{Image, Loaded, Sink};
#[cfg(not(target_arch = "wasm32"))]
pub use store::Standing;
pub use store::Store;
