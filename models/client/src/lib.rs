//! Models of the client: its lock, what is durable, who waits, the notifier, upkeep, and opening again. The files
//! themselves, not copies, over the locks and threads of `shuttle`, and over a small store ([`Store`]) that promises what
//! `sprag-store` promises.
#![forbid(unsafe_code)]
#![allow(
    dead_code,
    unused_imports,
    unreachable_pub,
    unnameable_types,
    missing_docs,
    missing_debug_implementations,
    rustdoc::broken_intra_doc_links,
    // What memories and attachments add is not modelled.
    unexpected_cfgs,
    reason = "of the files that are compiled here only a part is used"
)]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::missing_panics_doc,
    clippy::missing_errors_doc,
    clippy::must_use_candidate,
    clippy::wrong_self_convention,
    reason = "a model fails by panicking"
)]

// What the files call the store is this crate.
#[cfg(not(test))]
extern crate self as sprag_store;

// Their own tests are not compiled here, also where cargo builds this library as a test.
#[cfg(not(test))]
#[path = "../../../crates/sprag/src"]
mod theirs {
    pub mod client;
    pub(crate) mod durable;
    pub mod error;
    pub(crate) mod notifier;
    pub(crate) mod party;
    pub mod pending;
    pub(crate) mod reopen;
    pub mod start;
    pub mod types;
    pub mod upkeep;
}

#[cfg(not(test))]
pub mod clients;
#[cfg(not(test))]
mod store;

#[cfg(not(test))]
pub use rows::{Changes, MemoryRows, RowName, Rows, Staged, Standing, StoreError};
#[cfg(not(test))]
pub use store::Store;

#[cfg(not(test))]
use theirs::{client, durable, error, notifier, party, pending, reopen, start, types, upkeep};
#[cfg(not(test))]
pub use theirs::{
    client::{Client, Surroundings},
    error::{Action, CODES, Error},
    pending::Pending,
    start::Start,
    upkeep::{Upkeep, UpkeepSettings},
};

#[cfg(not(test))]
mod sync {
    pub(crate) use shuttle::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc};
}

#[cfg(not(test))]
mod sys {
    use rand_chacha::ChaCha20Rng;
    use rand_chacha::rand_core::SeedableRng;

    pub(crate) fn now() -> u64 {
        1_800_000_000_000
    }

    pub(crate) fn rng() -> ChaCha20Rng {
        ChaCha20Rng::from_seed([7; 32])
    }

    pub(crate) fn process() -> u32 {
        1
    }

    pub(crate) fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> bool {
        let named = shuttle::thread::Builder::new().name(name.to_owned());
        named.spawn(work).is_ok()
    }
}
