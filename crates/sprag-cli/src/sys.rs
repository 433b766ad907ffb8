//! The operating system's randomness and clock.

use std::time::SystemTime;

use getrandom::SysRng;
pub(crate) use getrandom::rand_core::CryptoRng;
use getrandom::rand_core::{Rng, UnwrapErr};

/// The system's generator.
pub(crate) fn rng() -> UnwrapErr<SysRng> {
    UnwrapErr(SysRng)
}

/// So many random bytes.
pub(crate) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    rng().fill_bytes(&mut bytes);
    bytes
}

/// The time in milliseconds since 1970.
#[expect(
    clippy::disallowed_methods,
    reason = "the clock of the system is read here"
)]
pub(crate) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| {
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    })
}
