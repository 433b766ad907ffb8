//! AES-256-GCM with 12-byte nonces and 16-byte tags: `GCM(k, n, p, a)` of "The protocol".

use aes_gcm::aead::{AeadInOut, KeyInit};
use aes_gcm::{Aes256Gcm, Tag};
use zeroize::{ZeroizeOnDrop, Zeroizing};

use crate::OpenError;

/// Bytes of a nonce.
pub const NONCE: usize = 12;
/// Bytes that a seal adds.
pub const TAG: usize = 16;

/// An expanded key, for keys that are used often. Wiped when dropped.
pub struct AeadKey(Box<Aes256Gcm>);

impl std::fmt::Debug for AeadKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AeadKey").finish_non_exhaustive()
    }
}

impl ZeroizeOnDrop for AeadKey {}

impl AeadKey {
    /// Expands a key.
    #[must_use]
    pub fn new(key: &[u8; 32]) -> Self {
        Self(Box::new(Aes256Gcm::new(key.into())))
    }

    /// Encrypts `buf[from..]` in place and appends the 16-byte tag. At most 2^36 − 32 bytes, which no buffer of ours holds.
    pub fn seal_in_place(&self, nonce: &[u8; NONCE], aad: &[u8], buf: &mut Vec<u8>, from: usize) {
        seal(&self.0, nonce, aad, buf, from);
    }

    /// Opens `ciphertext ‖ tag`.
    ///
    /// # Errors
    /// [`OpenError`]: nothing of the plaintext is released.
    pub fn open(
        &self,
        nonce: &[u8; NONCE],
        aad: &[u8],
        sealed: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, OpenError> {
        unseal(&self.0, nonce, aad, sealed)
    }
}

fn seal(cipher: &Aes256Gcm, nonce: &[u8; NONCE], aad: &[u8], buf: &mut Vec<u8>, from: usize) {
    let plaintext = buf.get_mut(from..).unwrap_or_default();
    #[expect(
        clippy::expect_used,
        reason = "the only failure is a text beyond 64 GiB, which no frame or row reaches"
    )]
    let tag = cipher
        .encrypt_inout_detached(nonce.into(), aad, plaintext.into())
        .expect("at most 64 GiB");
    // Only now may the buffer grow: what it leaves behind on the heap is ciphertext.
    buf.extend_from_slice(&tag);
}

fn unseal(
    cipher: &Aes256Gcm,
    nonce: &[u8; NONCE],
    aad: &[u8],
    sealed: &[u8],
) -> Result<Zeroizing<Vec<u8>>, OpenError> {
    let (ciphertext, tag) = sealed.split_last_chunk::<TAG>().ok_or(OpenError)?;
    let mut plaintext = Zeroizing::new(ciphertext.to_vec());
    let tag: &Tag = tag.into();
    match cipher.decrypt_inout_detached(nonce.into(), aad, plaintext.as_mut_slice().into(), tag) {
        Ok(()) => Ok(plaintext),
        Err(_) => Err(OpenError),
    }
}

/// Encrypts `buf[from..]` in place and appends the 16-byte tag. Allocates nothing if 16 bytes are spare.
pub fn seal_in_place(
    key: &[u8; 32],
    nonce: &[u8; NONCE],
    aad: &[u8],
    buf: &mut Vec<u8>,
    from: usize,
) {
    seal(&Aes256Gcm::new(key.into()), nonce, aad, buf, from);
}

/// Opens `ciphertext ‖ tag`.
///
/// # Errors
/// [`OpenError`]: nothing of the plaintext is released.
pub fn open(
    key: &[u8; 32],
    nonce: &[u8; NONCE],
    aad: &[u8],
    sealed: &[u8],
) -> Result<Zeroizing<Vec<u8>>, OpenError> {
    unseal(&Aes256Gcm::new(key.into()), nonce, aad, sealed)
}
