//! The operating system of the models: one process, no files, and a clock that knows only "just now" and "long ago".

use std::io;
use std::path::Path;
use std::time::Duration;

use crate::sync::{Mutex, MutexGuard, PoisonError, thread, thread_local};

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) fn process_id() -> u32 {
    1
}

pub(crate) fn unix_time() -> u64 {
    1_800_000_000
}

pub(crate) fn pause() {
    thread::yield_now();
}

thread_local! {
    /// Whether this thread was spawned by the store.
    static BESIDE: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

pub(crate) fn spawn(name: &str, call: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let named = thread::Builder::new().name(name.to_owned());
    let call = move || {
        BESIDE.with(|beside| beside.set(true));
        call();
    };
    named.spawn(call).map(drop)
}

/// On the threads of the store all time has passed: it never rests, and waits only for what somebody must wake it for. On
/// all others none has: nobody gives up waiting, so an answer that never comes is a deadlock.
pub(crate) struct Moment;

impl Moment {
    pub(crate) fn now() -> Self {
        Self
    }

    pub(crate) fn elapsed(&self) -> Duration {
        if BESIDE.with(std::cell::Cell::get) {
            Duration::MAX
        } else {
            Duration::ZERO
        }
    }
}

/// There are no files.
pub(crate) fn read_file(_: &Path, _: u64) -> io::Result<Option<Vec<u8>>> {
    Err(io::ErrorKind::Unsupported.into())
}

pub(crate) fn replace_file(_: &Path, _: &str, _: &[u8]) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}
