//! The one sealing scheme for rows and small blobs.
//!
//! `seal(K, label, ad, p) = salt(16) ‖ AES-256-GCM(HKDF(salt, K, label, 44) = key(32) ‖ nonce(12), ad, p)`
//!
//! Every seal has a key of its own, so nonces cannot repeat; with 128-bit salts, 2^48 seals under one `K` collide with
//! probability 2^-33, which is the budget.

use rand_core::CryptoRng;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::{OpenError, aead, hkdf};

const SALT: usize = 16;

/// Bytes that a seal adds: 16 of salt and 16 of tag.
pub const SEAL_OVERHEAD: usize = SALT + aead::TAG;

/// A key for up to 2^48 seals: 32 bytes, wiped when dropped.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct SealKey(Box<[u8; 32]>);

impl std::fmt::Debug for SealKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SealKey").finish_non_exhaustive()
    }
}

impl SealKey {
    /// Draws 32 bytes.
    #[must_use]
    pub fn generate(rng: &mut (impl CryptoRng + ?Sized)) -> Self {
        let mut key = Box::new([0; 32]);
        rng.fill_bytes(key.as_mut_slice());
        Self(key)
    }

    /// From 32 bytes.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; 32]) -> Self {
        Self(Box::new(*bytes))
    }

    /// The 32 bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Seals; draws 16 bytes. The result is 32 bytes longer than the plaintext.
    #[must_use]
    pub fn seal(
        &self,
        label: &[u8],
        ad: &[u8],
        plaintext: &[u8],
        rng: &mut (impl CryptoRng + ?Sized),
    ) -> Vec<u8> {
        let mut salt = [0; SALT];
        rng.fill_bytes(&mut salt);
        let mut sealed = Vec::with_capacity(plaintext.len() + SEAL_OVERHEAD);
        sealed.extend_from_slice(&salt);
        sealed.extend_from_slice(plaintext);
        let keys = self.derive(&salt, label);
        let (key, nonce) = split(&keys);
        aead::seal_in_place(key, nonce, ad, &mut sealed, SALT);
        sealed
    }

    /// Opens what [`seal`](Self::seal) made under the same label and associated data.
    ///
    /// # Errors
    /// [`OpenError`]: anything else.
    pub fn open(
        &self,
        label: &[u8],
        ad: &[u8],
        sealed: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, OpenError> {
        let (salt, ciphertext) = sealed.split_first_chunk::<SALT>().ok_or(OpenError)?;
        let keys = self.derive(salt, label);
        let (key, nonce) = split(&keys);
        aead::open(key, nonce, ad, ciphertext)
    }

    fn derive(&self, salt: &[u8; SALT], label: &[u8]) -> Zeroizing<[u8; 44]> {
        hkdf(salt, self.0.as_slice(), &[label])
    }
}

fn split(keys: &[u8; 44]) -> (&[u8; 32], &[u8; 12]) {
    let (key, nonce) = keys.split_at(32);
    #[expect(clippy::expect_used, reason = "44 = 32 + 12")]
    let parts = (key.try_into().expect("32"), nonce.try_into().expect("12"));
    parts
}

#[cfg(test)]
mod tests {
    use rand_chacha::ChaCha20Rng;
    use rand_core::{Rng, SeedableRng};

    use super::*;

    #[test]
    fn opens_what_another_implementation_sealed() {
        let sealed = "000102030405060708090a0b0c0d0e0f375894410fe7001bc8ae81994aa8510d9c7b60";
        let key = SealKey::from_bytes(&[0x42; 32]);
        let plaintext = key
            .open(b"label", b"ad", &hex::decode(sealed).unwrap())
            .unwrap();
        assert_eq!(*plaintext, b"row");
    }

    #[test]
    fn opens_what_it_sealed_32_bytes_longer_and_each_time_anew() {
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        let key = SealKey::generate(&mut rng);
        for length in [0, 1, 15, 16, 17, 3900] {
            let text = vec![5; length];
            let sealed = key.seal(b"label", b"ad", &text, &mut rng);
            assert_eq!(sealed.len(), length + SEAL_OVERHEAD);
            assert_eq!(*key.open(b"label", b"ad", &sealed).unwrap(), text);
            assert_ne!(key.seal(b"label", b"ad", &text, &mut rng), sealed);
        }
    }

    #[test]
    fn other_key_label_data_or_any_flipped_bit_does_not_open() {
        let mut rng = ChaCha20Rng::seed_from_u64(2);
        let (key, other) = (SealKey::generate(&mut rng), SealKey::generate(&mut rng));
        let sealed = key.seal(b"label", b"ad", b"text", &mut rng);
        assert_eq!(other.open(b"label", b"ad", &sealed).err(), Some(OpenError));
        assert_eq!(key.open(b"labem", b"ad", &sealed).err(), Some(OpenError));
        assert_eq!(key.open(b"labela", b"d", &sealed).err(), Some(OpenError));
        assert_eq!(key.open(b"label", b"", &sealed).err(), Some(OpenError));
        for bit in 0..sealed.len() * 8 {
            let mut flipped = sealed.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(
                key.open(b"label", b"ad", &flipped).err(),
                Some(OpenError),
                "bit {bit}"
            );
        }
        for length in 0..sealed.len() {
            assert_eq!(
                key.open(b"label", b"ad", &sealed[..length]).err(),
                Some(OpenError)
            );
        }
    }

    #[test]
    fn draws_are_32_and_16_bytes() {
        let mut rng = ChaCha20Rng::seed_from_u64(3);
        let mut beside = rng.clone();
        let mut drawn = [0; 48];
        beside.fill_bytes(&mut drawn[..32]);
        beside.fill_bytes(&mut drawn[32..]);
        let key = SealKey::generate(&mut rng);
        let sealed = key.seal(b"", b"", b"", &mut rng);
        assert_eq!((&key.as_bytes()[..], &sealed[..16]), drawn.split_at(32));
        assert_eq!(rng.next_u64(), beside.next_u64());
    }

    #[test]
    fn key_prints_nothing() {
        assert_eq!(
            format!("{:?}", SealKey::from_bytes(&[7; 32])),
            "SealKey { .. }"
        );
    }
}
