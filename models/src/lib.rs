//! Models of what threads do to each other: the files themselves, not copies, over the locks and threads of `shuttle`.
//! It runs them in one order after the other, chosen at random from a seed, and tells the order that went wrong.
#![forbid(unsafe_code)]
#![allow(
    dead_code,
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
#[path = "../../crates/sprag-store/src/backend.rs"]
mod backend;
#[cfg(not(test))]
#[path = "../../crates/sprag-store/src/commit.rs"]
mod commit;
#[cfg(not(test))]
#[path = "../../crates/sprag-store/src/error.rs"]
mod error;
#[cfg(not(test))]
#[path = "../../crates/sprag-store/src/rows.rs"]
mod rows;

#[cfg(not(test))]
pub mod committer;

#[cfg(not(test))]
use error::StoreError;

#[cfg(not(test))]
mod manifest {
    pub use sprag_store::BackendKind;
}

#[cfg(not(test))]
mod sync {
    pub(crate) use shuttle::sync::{Arc, Condvar, Mutex, MutexGuard, RwLock, RwLockReadGuard};
    pub(crate) use shuttle::{thread, thread_local};
    pub(crate) use std::sync::PoisonError;
}

#[cfg(not(test))]
mod sys {
    use crate::sync::{Mutex, MutexGuard, PoisonError};

    pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
        mutex.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn process_id() -> u32 {
        1
    }
}
