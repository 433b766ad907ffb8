//! The older form `raw12` (`docs/VAULT.md`, *Older forms*): `nonce 12 ‖ AES-256-GCM ciphertext ‖ tag 16`, without associated data.
//!
//! Lumera, AEGIS and PyAgent write it, each with its own keys and its own things around it: [`lumera`], [`aegis`], [`pyagent`].
//! Such a blob does not say what it is or under which key; it can be passed off as any other under that key; and keys wear
//! out, since nonces are random: after 2^32 blobs a nonce may come twice. So [`import`] encrypts it anew.

use rand_core::CryptoRng;
use sprag_crypto::{NONCE, TAG, seal_in_place};
use zeroize::Zeroizing;

use crate::DataKey;

pub mod aegis;
mod import;
pub mod lumera;
pub mod pyagent;

pub use import::{ImportError, Imported, Legacy, Warning, import};

/// Bytes that the form adds: nonce and tag.
pub const OVERHEAD: usize = NONCE + TAG;

/// Something older that does not open. Nothing of it was released.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum LegacyError {
    /// Shorter than any blob, 28 bytes.
    #[error("the blob is too short")]
    Short,
    /// The key is wrong, or the blob was changed: the form cannot tell which.
    #[error("the key is wrong or the blob is damaged")]
    Closed,
    /// The hash of the blob is not the one that its metadata or its address names. Seen before anything was decrypted.
    #[error("the blob is not the one that its metadata or address names")]
    CiphertextHash,
    /// The hash of the payload is not the one that the metadata name.
    #[error("the payload is not the one that its metadata name")]
    PlaintextHash,
    /// The length is not the one that the metadata or the header name.
    #[error("the length is not the one that is named")]
    Length,
    /// Metadata, a header or an address that is malformed, or that names what is not known here.
    #[error("metadata, header or address are malformed")]
    Metadata,
    /// Metadata that name another algorithm.
    #[error("the metadata name another algorithm")]
    Algorithm,
    /// A key that is malformed, or whose halves do not belong together.
    #[error("the key is malformed")]
    Key,
    /// A record that is not encrypted.
    #[error("the record is not encrypted")]
    NotEncrypted,
}

/// Seals in the older form, for whoever reads nothing else. Draws 12 bytes.
#[must_use]
pub fn seal(key: &DataKey, payload: &[u8], rng: &mut (impl CryptoRng + ?Sized)) -> Vec<u8> {
    let mut nonce = [0; NONCE];
    rng.fill_bytes(&mut nonce);
    // Of its final size from the start, so that no plaintext is left behind.
    let mut blob = Vec::with_capacity(payload.len().saturating_add(OVERHEAD));
    blob.extend_from_slice(&nonce);
    blob.extend_from_slice(payload);
    seal_in_place(key.as_bytes(), &nonce, b"", &mut blob, NONCE);
    blob
}

/// Opens the older form.
///
/// # Errors
/// [`LegacyError::Short`], [`LegacyError::Closed`]
pub fn open(key: &DataKey, blob: &[u8]) -> Result<Zeroizing<Vec<u8>>, LegacyError> {
    if blob.len() < OVERHEAD {
        return Err(LegacyError::Short);
    }
    let (nonce, sealed) = blob.split_first_chunk().ok_or(LegacyError::Short)?;
    sprag_crypto::open(key.as_bytes(), nonce, b"", sealed).map_err(|_| LegacyError::Closed)
}

/// 32 bytes in base64, of either alphabet, with or without padding, with white space around.
fn key_from_base64(text: &[u8]) -> Result<DataKey, LegacyError> {
    use base64::Engine;
    use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
    let text = text.trim_ascii();
    let text = text
        .strip_suffix(b"=")
        .filter(|text| !text.ends_with(b"="))
        .unwrap_or(text);
    // The decoders ask for room for a multiple of three.
    let mut key = Zeroizing::new([0; 33]);
    for engine in [STANDARD_NO_PAD, URL_SAFE_NO_PAD] {
        if let Ok(length) = engine.decode_slice(text, key.as_mut_slice()) {
            let decoded = key.get(..length).unwrap_or_default();
            return DataKey::from_slice(decoded).ok_or(LegacyError::Key);
        }
    }
    Err(LegacyError::Key)
}

/// 32 bytes in hexadecimal digits, with white space around.
fn key_from_hex(text: &[u8]) -> Result<DataKey, LegacyError> {
    let mut key = Zeroizing::new([0; 32]);
    hex::decode_to_slice(text.trim_ascii(), key.as_mut_slice()).map_err(|_| LegacyError::Key)?;
    Ok(DataKey::from_bytes(&key))
}

#[cfg(test)]
mod tests;
