//! Locks, as a seam: the crate `models/client` compiles files of this one over those of `shuttle`, which tries the orders
//! in which threads can run. Threads begin in [`sys`](crate::sys).

#[cfg(not(target_family = "wasm"))]
pub(crate) use std::sync::mpsc;
pub(crate) use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
