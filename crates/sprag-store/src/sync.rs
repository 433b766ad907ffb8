//! Locks and threads, as a seam: the crate `models` compiles files of this one over those of `shuttle`, which tries the
//! orders in which threads can run.

pub(crate) use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};
pub(crate) use std::{thread, thread_local};
