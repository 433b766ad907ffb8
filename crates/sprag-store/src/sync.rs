//! Locks and threads, as a seam: the crate `models` compiles files of this one over those of `shuttle`, which tries the
//! orders in which threads can run.

pub(crate) use std::sync::{Arc, Mutex};
#[cfg(any(feature = "sled", feature = "redb"))]
pub(crate) use std::sync::{Condvar, MutexGuard, PoisonError, RwLock, RwLockReadGuard};
#[cfg(any(feature = "sled", feature = "redb"))]
pub(crate) use std::{thread, thread_local};
