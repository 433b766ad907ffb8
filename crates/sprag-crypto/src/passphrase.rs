//! Keys from passphrases: Argon2id, version 0x13.

use argon2::{Algorithm, Argon2, Block, Params, Version};
use zeroize::{Zeroize, Zeroizing};

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
/// [`KdfError`]: a passphrase of 4 GiB or more, or not enough memory.
pub fn derive(
    passphrase: &[u8],
    salt: &[u8; 16],
    params: Argon2Params,
) -> Result<Zeroizing<[u8; 32]>, KdfError> {
    let costs = Params::new(params.memory_kib, params.passes, params.lanes, Some(32))
        .map_err(|_| KdfError)?;
    let mut memory = Vec::new();
    memory
        .try_reserve_exact(costs.block_count())
        .map_err(|_| KdfError)?;
    memory.resize(costs.block_count(), Block::new());
    derive_in(&mut memory, passphrase, salt, costs)
}

/// Derives in this memory and leaves it empty. What the library allocates itself it gives back as it is; but the last
/// block yields the key with one hash, and the first ones test a guess of the passphrase without its cost.
fn derive_in(
    memory: &mut [Block],
    passphrase: &[u8],
    salt: &[u8],
    costs: Params,
) -> Result<Zeroizing<[u8; 32]>, KdfError> {
    let mut key = Zeroizing::new([0; 32]);
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, costs);
    let done =
        argon2.hash_password_into_with_memory(passphrase, salt, key.as_mut_slice(), &mut *memory);
    memory.iter_mut().for_each(Zeroize::zeroize);
    done.map_err(|_| KdfError)?;
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
    fn keys_match_the_tests_of_the_reference_implementation() {
        // phc-winner-argon2, src/test.c, Argon2id of version 0x13. Its salts are shorter than `derive` takes.
        for (memory_kib, lanes, key) in [
            (
                1 << 16,
                1,
                "09316115d5cf24ed5a15a31a3ba326e5cf32edc24702987c02b6566f61913cf7",
            ),
            (
                1 << 8,
                1,
                "9dfeb910e80bad0311fee20f9c0e2b12c17987b4cac90c2ef54d5b3021c68bfe",
            ),
            (
                1 << 8,
                2,
                "6d093c501fd5999645e0ea3bf620d7b8be7fd2db59c20d9fff9539da2bf57037",
            ),
        ] {
            let costs = Params::new(memory_kib, 2, lanes, Some(32)).unwrap();
            let mut memory = vec![Block::new(); costs.block_count()];
            let derived = derive_in(&mut memory, b"password", b"somesalt", costs).unwrap();
            assert_eq!(hex::encode(*derived), key);
        }
    }

    #[test]
    fn the_memory_that_the_key_came_from_is_wiped_also_after_a_failure() {
        for salt in [&SALT[..], b"short"] {
            let costs = Params::new(64, 2, 1, Some(32)).unwrap();
            let mut memory = vec![Block::new(); costs.block_count()];
            memory.iter_mut().for_each(|block| block.as_mut().fill(7));
            let derived = derive_in(&mut memory, b"correct horse", salt, costs);
            assert_eq!(derived.is_ok(), salt.len() == 16);
            let mut words = memory.iter().flat_map(AsRef::as_ref);
            assert!(words.all(|word: &u64| *word == 0));
        }
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
