//! The operating system: the only place of this crate that names time, threads, processes and system randomness.

#[cfg(not(target_family = "wasm"))]
use std::time::{SystemTime, UNIX_EPOCH};

#[cfg(not(target_family = "wasm"))]
use getrandom::SysRng;
#[cfg(not(target_family = "wasm"))]
use rand_core::UnwrapErr;

/// Milliseconds since 1970.
#[cfg(not(target_family = "wasm"))]
#[expect(clippy::disallowed_methods, reason = "the clock of this crate")]
pub(crate) fn now() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// The system's generator. It has no state, so no fork or clone can share one.
#[cfg(not(target_family = "wasm"))]
pub(crate) fn rng() -> UnwrapErr<SysRng> {
    UnwrapErr(SysRng)
}

/// A path from the root, without links as far as it exists.
#[cfg(all(any(feature = "sled", feature = "redb"), not(target_family = "wasm")))]
pub(crate) fn whole_path(path: &std::path::Path) -> std::path::PathBuf {
    let path = if path.as_os_str().is_empty() {
        std::path::Path::new(".")
    } else {
        path
    };
    std::fs::canonicalize(path)
        .or_else(|_| std::path::absolute(path))
        .unwrap_or_else(|_| path.to_path_buf())
}

/// Begins a thread; says whether there is one now.
#[cfg(not(target_family = "wasm"))]
pub(crate) fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> bool {
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(work)
        .is_ok()
}

/// The number of this process: another one in a forked child.
#[cfg(not(target_family = "wasm"))]
pub(crate) fn process() -> u32 {
    std::process::id()
}

/// There is one process, and it does not fork.
#[cfg(target_family = "wasm")]
pub(crate) fn process() -> u32 {
    0
}
