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
