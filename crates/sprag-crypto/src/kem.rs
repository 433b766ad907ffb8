//! ML-KEM-1024 (FIPS 203) in the encoding of "The protocol", §1, *KEM keys*. The only file that knows the library.

use std::fmt;

use libcrux_ml_kem::mlkem1024::{self, MlKem1024Ciphertext, MlKem1024PublicKey};
use rand_core::CryptoRng;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::{InvalidKey, SharedSecret};

/// The type byte of KEM keys and ciphertexts.
const TYPE: u8 = 0x0a;
const RAW: usize = 1568;

macro_rules! encoded {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Box<[u8; RAW + 1]>);

        impl $name {
            /// Length in bytes.
            pub const LEN: usize = RAW + 1;

            /// Parses 1,569 bytes with type `0x0A`, without arithmetic.
            ///
            /// # Errors
            /// [`InvalidKey`]: another length or type.
            pub fn from_bytes(bytes: &[u8]) -> Result<Self, InvalidKey> {
                match <[u8; RAW + 1]>::try_from(bytes) {
                    Ok(bytes) if bytes.first() == Some(&TYPE) => Ok(Self(Box::new(bytes))),
                    _ => Err(InvalidKey),
                }
            }

            /// The 1,569 bytes.
            #[must_use]
            pub fn as_bytes(&self) -> &[u8] {
                self.0.as_slice()
            }

            fn of_raw(raw: &[u8; RAW]) -> Self {
                let mut bytes = Box::new([TYPE; RAW + 1]);
                bytes.iter_mut().skip(1).zip(raw).for_each(|(to, from)| *to = *from);
                Self(bytes)
            }

            fn raw(&self) -> [u8; RAW] {
                let mut raw = [0; RAW];
                raw.iter_mut().zip(self.0.iter().skip(1)).for_each(|(to, from)| *to = *from);
                raw
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($name)).finish_non_exhaustive()
            }
        }
    };
}

encoded!(
    /// A KEM public key, `0x0A ‖ raw`, 1,569 bytes.
    KemPublicKey
);
encoded!(
    /// A KEM ciphertext, `0x0A ‖ raw`, 1,569 bytes.
    KemCiphertext
);

impl KemPublicKey {
    /// The input check of FIPS 203, 7.2: every 12-bit coefficient is below 3329.
    ///
    /// # Errors
    /// [`InvalidKey`]: it is not.
    pub fn check(&self) -> Result<(), InvalidKey> {
        let key = MlKem1024PublicKey::from(self.raw());
        if mlkem1024::validate_public_key(&key) {
            Ok(())
        } else {
            Err(InvalidKey)
        }
    }

    /// Encapsulates to a key that passes [`check`](Self::check); draws 32 bytes.
    ///
    /// # Errors
    /// [`InvalidKey`]: the check fails; then nothing is drawn.
    pub fn encapsulate(
        &self,
        rng: &mut (impl CryptoRng + ?Sized),
    ) -> Result<(KemCiphertext, SharedSecret), InvalidKey> {
        self.check()?;
        let mut m = [0; 32];
        rng.fill_bytes(&mut m);
        let key = MlKem1024PublicKey::from(self.raw());
        let (ciphertext, mut secret) = mlkem1024::encapsulate(&key, m);
        m.zeroize();
        let shared = SharedSecret::new(Zeroizing::new(secret));
        secret.zeroize();
        Ok((KemCiphertext::of_raw(ciphertext.as_slice()), shared))
    }
}

/// A KEM private key, kept as its seed `d ‖ z`: 64 bytes, wiped when dropped.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct KemPrivateKey(Box<[u8; 64]>);

impl fmt::Debug for KemPrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KemPrivateKey").finish_non_exhaustive()
    }
}

impl KemPrivateKey {
    /// Draws 64 bytes.
    #[must_use]
    pub fn generate(rng: &mut (impl CryptoRng + ?Sized)) -> Self {
        let mut seed = Box::new([0; 64]);
        rng.fill_bytes(seed.as_mut_slice());
        Self(seed)
    }

    /// From the seed.
    #[must_use]
    pub fn from_seed(seed: &[u8; 64]) -> Self {
        Self(Box::new(*seed))
    }

    /// The seed.
    #[must_use]
    pub fn seed(&self) -> &[u8; 64] {
        &self.0
    }

    /// The public key, expanded from the seed.
    #[must_use]
    pub fn public_key(&self) -> KemPublicKey {
        let (mut private, public) = mlkem1024::generate_key_pair(*self.0).into_parts();
        wipe(&mut private);
        KemPublicKey::of_raw(public.as_slice())
    }

    /// The secret in a ciphertext. One that was not made for this key gives an unrelated secret, as FIPS 203 demands.
    ///
    /// # Errors
    /// None today; the caller treats one as a key that does not fit.
    pub fn decapsulate(&self, ciphertext: &KemCiphertext) -> Result<SharedSecret, InvalidKey> {
        let (mut private, _) = mlkem1024::generate_key_pair(*self.0).into_parts();
        let mut secret =
            mlkem1024::decapsulate(&private, &MlKem1024Ciphertext::from(ciphertext.raw()));
        wipe(&mut private);
        let shared = SharedSecret::new(Zeroizing::new(secret));
        secret.zeroize();
        Ok(shared)
    }
}

fn wipe(key: &mut mlkem1024::MlKem1024PrivateKey) {
    let length = key.as_slice().len();
    key[0..length].zeroize();
}

#[cfg(test)]
mod tests {
    use rand_chacha::ChaCha20Rng;
    use rand_core::{Rng, SeedableRng};

    use super::*;

    #[test]
    fn both_sides_have_the_same_secret() {
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        let ours = KemPrivateKey::generate(&mut rng);
        let public = ours.public_key();
        assert_eq!(public.check(), Ok(()));
        let (ciphertext, theirs) = public.encapsulate(&mut rng).unwrap();
        assert_eq!(
            ours.decapsulate(&ciphertext).unwrap().as_bytes(),
            theirs.as_bytes()
        );
        let restored = KemPrivateKey::from_seed(ours.seed());
        assert_eq!(restored.public_key(), public);
        assert_eq!(
            restored.decapsulate(&ciphertext).unwrap().as_bytes(),
            theirs.as_bytes()
        );
    }

    #[test]
    fn a_damaged_ciphertext_and_another_key_give_unrelated_secrets() {
        let mut rng = ChaCha20Rng::seed_from_u64(2);
        let (ours, other) = (
            KemPrivateKey::generate(&mut rng),
            KemPrivateKey::generate(&mut rng),
        );
        let (ciphertext, theirs) = ours.public_key().encapsulate(&mut rng).unwrap();
        assert_ne!(
            other.decapsulate(&ciphertext).unwrap().as_bytes(),
            theirs.as_bytes()
        );
        for at in [1, 700, 1408, 1409, 1568] {
            let mut damaged = ciphertext.as_bytes().to_vec();
            damaged[at] ^= 1;
            let damaged = KemCiphertext::from_bytes(&damaged).unwrap();
            let first = ours.decapsulate(&damaged).unwrap();
            assert_ne!(first.as_bytes(), theirs.as_bytes());
            assert_eq!(
                first.as_bytes(),
                ours.decapsulate(&damaged).unwrap().as_bytes()
            );
        }
    }

    #[test]
    fn only_1569_bytes_of_type_10_are_parsed() {
        for first in 0..=u8::MAX {
            let mut bytes = [0; 1569];
            bytes[0] = first;
            assert_eq!(KemPublicKey::from_bytes(&bytes).is_ok(), first == 0x0a);
            assert_eq!(KemCiphertext::from_bytes(&bytes).is_ok(), first == 0x0a);
        }
        for length in [0, 1, 33, 1568, 1570, 4096] {
            assert_eq!(
                KemPublicKey::from_bytes(&vec![0x0a; length]),
                Err(InvalidKey)
            );
            assert_eq!(
                KemCiphertext::from_bytes(&vec![0x0a; length]),
                Err(InvalidKey)
            );
        }
    }

    #[test]
    fn a_coefficient_of_3329_or_more_is_refused_and_nothing_is_drawn() {
        let mut rng = ChaCha20Rng::seed_from_u64(3);
        let good = KemPrivateKey::generate(&mut rng).public_key();
        // 1,024 coefficients of 12 bits stand before the 32 bytes of rho.
        for (coefficient, value) in [
            (0, 3329u16),
            (1, 4095),
            (511, 3330),
            (1023, 3329),
            (1023, 3328),
            (0, 0),
        ] {
            let mut bytes = good.as_bytes().to_vec();
            let at = 1 + coefficient / 2 * 3;
            let [low, high] = value.to_le_bytes();
            if coefficient % 2 == 0 {
                bytes[at] = low;
                bytes[at + 1] = bytes[at + 1] & 0xf0 | high;
            } else {
                bytes[at + 1] = bytes[at + 1] & 0x0f | low << 4;
                bytes[at + 2] = low >> 4 | high << 4;
            }
            let key = KemPublicKey::from_bytes(&bytes).unwrap();
            let mut beside = rng.clone();
            let drawn = key.encapsulate(&mut rng).map(|_| ());
            assert_eq!(drawn, key.check());
            assert_eq!(
                drawn.is_ok(),
                value < 3329,
                "coefficient {coefficient} = {value}"
            );
            assert_eq!(rng.next_u64() == beside.next_u64(), value >= 3329);
        }
    }

    #[test]
    fn draws_are_64_and_32_bytes() {
        let mut rng = ChaCha20Rng::seed_from_u64(4);
        let mut beside = rng.clone();
        let mut seed = [0; 64];
        beside.fill_bytes(&mut seed);
        let ours = KemPrivateKey::generate(&mut rng);
        assert_eq!(ours.seed(), &seed);
        ours.public_key().encapsulate(&mut rng).unwrap();
        beside.fill_bytes(&mut seed[..32]);
        assert_eq!(rng.next_u64(), beside.next_u64());
    }

    #[test]
    fn keys_print_nothing() {
        let key = KemPrivateKey::from_seed(&[7; 64]);
        assert_eq!(format!("{key:?}"), "KemPrivateKey { .. }");
        assert_eq!(format!("{:?}", key.public_key()), "KemPublicKey { .. }");
    }

    #[test]
    fn the_expanded_key_is_wiped() {
        let (mut private, _) = mlkem1024::generate_key_pair([7; 64]).into_parts();
        wipe(&mut private);
        assert!(private.as_slice().iter().all(|byte| *byte == 0));
    }
}
