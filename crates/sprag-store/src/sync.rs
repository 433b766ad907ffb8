//! Locks and threads, as a seam: the crate `models` compiles files of this one over those of `shuttle`, which tries the
//! orders in which threads can run.

pub(crate) use std::sync::{Arc, Mutex, PoisonError, RwLock, atomic};
#[cfg(not(target_arch = "wasm32"))]
pub(crate) use std::sync::{Condvar, MutexGuard, Weak, mpsc};
pub(crate) use std::thread_local;
#[cfg(any(feature = "sled", feature = "redb"))]
pub(crate) use std::{sync::RwLockReadGuard, thread};

/// Rows up to which opening waits for the count: about half a second on a slow machine. In models none.
pub(crate) const COUNTED_AT_ONCE: u64 = 100_000;
/// Rows after which a part of the count ends, so that nobody waits for long. In tests few, so that much happens between
/// two parts.
#[cfg_attr(
    target_arch = "wasm32",
    allow(dead_code, reason = "without threads all is counted at once")
)]
pub(crate) const COUNTED_PART: usize = if cfg!(test) { 10 } else { 2_000 };
