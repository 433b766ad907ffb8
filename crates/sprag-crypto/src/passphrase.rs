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

#[cfg(test)]
mod tests {
    use super::*;

    const SALT: [u8; 16] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];

    fn derived(passphrase: &[u8], salt: &[u8; 16], (m, t, p): (u32, u32, u32)) -> String {
        let params = Argon2Params::new(m, t, p).unwrap();
        hex::encode(*derive(passphrase, salt, params).unwrap())
    }

    #[test]
    fn keys_match_another_implementation() {
        let passphrase = b"correct horse";
        let cases = [
            (
                (64, 2, 1),
                "9c87c06898bc18516669b54a8b95d36e622946494d7a55c26f391a0406068c19",
            ),
            (
                (256, 3, 4),
                "6bd130685e8219e8642e74b685c653121e885fbf945bc97752f578f1f084a37d",
            ),
            (
                (65_536, 3, 1),
                "e3c889ca40ed01e6b6771fc8a5bf16e35ad60b41c9bd5d7e6d63adf51e50b0fd",
            ),
        ];
        for (params, key) in cases {
            assert_eq!(derived(passphrase, &SALT, params), key);
        }
        assert_eq!(
            Argon2Params::DEFAULT,
            Argon2Params::new(65_536, 3, 1).unwrap()
        );
    }

    #[test]
    fn passphrase_salt_and_every_cost_change_the_key() {
        let key = derived(b"horse", &SALT, (64, 2, 1));
        assert_ne!(key, derived(b"hors", &SALT, (64, 2, 1)));
        assert_ne!(key, derived(b"horse", &[0; 16], (64, 2, 1)));
        assert_ne!(key, derived(b"horse", &SALT, (72, 2, 1)));
        assert_ne!(key, derived(b"horse", &SALT, (64, 3, 1)));
        assert_ne!(key, derived(b"horse", &SALT, (64, 2, 2)));
        assert_ne!(key, derived(b"", &SALT, (64, 2, 1)));
    }

    #[test]
    fn costs_out_of_bounds_are_refused() {
        for (m, t, p) in [
            (7, 1, 1),
            (15, 1, 2),
            (0, 1, 1),
            (1024 * 1024 + 1, 1, 1),
            (u32::MAX, 1, 1),
            (64, 0, 1),
            (64, 17, 1),
            (64, u32::MAX, 1),
            (64, 1, 0),
            (72, 1, 9),
            (u32::MAX, u32::MAX, u32::MAX),
        ] {
            assert_eq!(Argon2Params::new(m, t, p), Err(KdfError), "{m} {t} {p}");
        }
        for (m, t, p) in [(8, 1, 1), (64, 1, 8), (1024 * 1024, 16, 8)] {
            let params = Argon2Params::new(m, t, p).unwrap();
            assert_eq!(
                (params.memory_kib(), params.passes(), params.lanes()),
                (m, t, p)
            );
        }
        assert_eq!(Argon2Params::LEAST, Argon2Params::new(8, 1, 1).unwrap());
    }
}
