//! Keys from passphrases: Argon2id, version 0x13.

use argon2::{Algorithm, Argon2, Params, Version};
use zeroize::Zeroizing;

use crate::KdfError;

/// Cost of a derivation. Parameters from outside are bounded before anything is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Argon2Params {
    memory_kib: u32,
    passes: u32,
    lanes: u32,
}

impl Argon2Params {
    /// 64 MiB, 3 passes, 1 lane: RFC 9106's second recommendation, on one lane.
    pub const DEFAULT: Self = Self {
        memory_kib: 64 * 1024,
        passes: 3,
        lanes: 1,
    };
    /// The least that is computed: 8 KiB, one pass. For tests; it protects nothing.
    pub const LEAST: Self = Self {
        memory_kib: 8,
        passes: 1,
        lanes: 1,
    };

    /// 8 KiB per lane to 1 GiB of memory, 1 to 16 passes, 1 to 8 lanes.
    ///
    /// # Errors
    /// [`KdfError`]: beyond these bounds.
    pub fn new(memory_kib: u32, passes: u32, lanes: u32) -> Result<Self, KdfError> {
        let fine = (1..=8).contains(&lanes)
            && (1..=16).contains(&passes)
            && (8 * lanes..=1024 * 1024).contains(&memory_kib);
        if fine {
            Ok(Self {
                memory_kib,
                passes,
                lanes,
            })
        } else {
            Err(KdfError)
        }
    }

    /// Memory in KiB.
    #[must_use]
    pub fn memory_kib(&self) -> u32 {
        self.memory_kib
    }

    /// Passes over the memory.
    #[must_use]
    pub fn passes(&self) -> u32 {
        self.passes
    }

    /// Lanes.
    #[must_use]
    pub fn lanes(&self) -> u32 {
        self.lanes
    }
}

/// A 32-byte key from a passphrase and 16 bytes of salt.
///
/// # Errors
/// [`KdfError`]: a passphrase of 4 GiB or more.
pub fn derive(
    passphrase: &[u8],
    salt: &[u8; 16],
    params: Argon2Params,
) -> Result<Zeroizing<[u8; 32]>, KdfError> {
    let costs = Params::new(params.memory_kib, params.passes, params.lanes, Some(32))
        .map_err(|_| KdfError)?;
    let mut key = Zeroizing::new([0; 32]);
    Argon2::new(Algorithm::Argon2id, Version::V0x13, costs)
        .hash_password_into(passphrase, salt, key.as_mut_slice())
        .map_err(|_| KdfError)?;
    Ok(key)
}
