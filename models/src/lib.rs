//! Models of what threads do to each other: the files themselves, not copies, over the locks and threads of `shuttle`.
//! It runs them in one order after the other, chosen at random from a seed, and tells the order that went wrong.
//!
//! Here those of the store, over a directory in memory ([`home`]); those of the client are in `client/`.
#![forbid(unsafe_code)]
#![allow(
    dead_code,
    unused_imports,
    unreachable_pub,
    unnameable_types,
    missing_debug_implementations,
    rustdoc::broken_intra_doc_links,
    reason = "of the files that are compiled here only a part is used"
)]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::missing_panics_doc,
    reason = "a model fails by panicking"
)]

// Their own tests are not compiled here, also where cargo builds this library as a test.
#[cfg(not(test))]
#[path = "../../crates/sprag-store/src"]
mod theirs {
    pub(crate) mod anchor;
    pub(crate) mod backend;
    pub(crate) mod blind;
    pub(crate) mod cache;
    pub(crate) mod commit;
    pub(crate) mod error;
    pub(crate) mod labels;
    pub(crate) mod manifest;
    pub(crate) mod memory;
    pub(crate) mod proof;
    pub(crate) mod rows;
    pub(crate) mod sealed;
    pub(crate) mod sink;
    pub(crate) mod store;
}

#[cfg(not(test))]
pub mod committer;
#[cfg(not(test))]
pub mod guard;
#[cfg(not(test))]
mod home;
#[cfg(not(test))]
mod platter;
#[cfg(not(test))]
pub mod renewal;
#[cfg(not(test))]
mod sys;

#[cfg(not(test))]
use theirs::{
    anchor, backend, blind, cache, commit, error, labels, manifest, memory, proof, rows, sealed,
    sink, store,
};

#[cfg(not(test))]
use error::StoreError;

#[cfg(not(test))]
mod sync {
    pub(crate) use shuttle::sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, Weak, atomic, mpsc,
    };
    pub(crate) use shuttle::{thread, thread_local};

    /// All rows are counted beside the work.
    pub(crate) const COUNTED_AT_ONCE: u64 = 0;
    pub(crate) const COUNTED_PART: usize = 1;
}
