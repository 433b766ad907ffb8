//! The two AEADs of the vault, keyed once and used chunk after chunk, in place (`docs/VAULT.md`, *Keys*).

use aes_gcm::aead::{AeadInOut, KeyInit};
use aes_gcm::{Aes256Gcm, Tag};
use chacha20poly1305::ChaCha20Poly1305;
use zeroize::ZeroizeOnDrop;

use crate::OpenError;
use crate::aead::{NONCE, TAG};

/// An AEAD with 32-byte keys, 12-byte nonces and 16-byte tags.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Aead {
    /// AES-256-GCM.
    Aes256Gcm,
    /// ChaCha20-Poly1305 of RFC 8439.
    ChaCha20Poly1305,
}

/// An expanded key of either AEAD. Wiped when dropped.
pub struct ChunkKey {
    cipher: Expanded,
    #[cfg(feature = "record-nonces")]
    name: [u8; 32],
}

enum Expanded {
    Aes256Gcm(Box<Aes256Gcm>),
    ChaCha20Poly1305(Box<ChaCha20Poly1305>),
}

impl std::fmt::Debug for ChunkKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ChunkKey").finish_non_exhaustive()
    }
}

impl ZeroizeOnDrop for ChunkKey {}

impl ChunkKey {
    /// Expands a key.
    #[must_use]
    pub fn new(aead: Aead, key: &[u8; 32]) -> Self {
        let cipher = match aead {
            Aead::Aes256Gcm => Expanded::Aes256Gcm(Box::new(Aes256Gcm::new(key.into()))),
            Aead::ChaCha20Poly1305 => {
                Expanded::ChaCha20Poly1305(Box::new(ChaCha20Poly1305::new(key.into())))
            }
        };
        Self {
            cipher,
            #[cfg(feature = "record-nonces")]
            name: crate::recorder::name(key),
        }
    }

    /// Encrypts `text` in place and returns its tag. At most 2^36 − 32 bytes, which no chunk has.
    #[must_use]
    pub fn seal(&self, nonce: &[u8; NONCE], aad: &[u8], text: &mut [u8]) -> [u8; TAG] {
        let tag = match &self.cipher {
            Expanded::Aes256Gcm(key) => key.encrypt_inout_detached(nonce.into(), aad, text.into()),
            Expanded::ChaCha20Poly1305(key) => {
                key.encrypt_inout_detached(nonce.into(), aad, text.into())
            }
        };
        #[expect(
            clippy::expect_used,
            reason = "the only failure is a text beyond 64 GiB, which no chunk reaches"
        )]
        let tag = tag.expect("at most 64 GiB").into();
        #[cfg(feature = "record-nonces")]
        crate::recorder::encryption(&self.name, nonce, &tag);
        tag
    }

    /// Opens `text` in place.
    ///
    /// # Errors
    /// [`OpenError`]: `text` is the ciphertext still, byte for byte, so that another nonce may be tried.
    pub fn open(
        &self,
        nonce: &[u8; NONCE],
        aad: &[u8],
        text: &mut [u8],
        tag: &[u8; TAG],
    ) -> Result<(), OpenError> {
        let tag: &Tag = tag.into();
        match &self.cipher {
            Expanded::Aes256Gcm(key) => {
                key.decrypt_inout_detached(nonce.into(), aad, text.into(), tag)
            }
            Expanded::ChaCha20Poly1305(key) => {
                key.decrypt_inout_detached(nonce.into(), aad, text.into(), tag)
            }
        }
        .map_err(|_| OpenError)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOTH: [Aead; 2] = [Aead::Aes256Gcm, Aead::ChaCha20Poly1305];

    fn unhex<const N: usize>(text: &str) -> [u8; N] {
        hex::decode(text).unwrap().try_into().unwrap()
    }

    #[test]
    fn chacha20_poly1305_matches_rfc_8439() {
        let key = unhex("808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9f");
        let nonce = unhex("070000004041424344454647");
        let aad = unhex::<12>("50515253c0c1c2c3c4c5c6c7");
        let mut text = b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, \
            sunscreen would be it."
            .to_vec();
        let tag = ChunkKey::new(Aead::ChaCha20Poly1305, &key).seal(&nonce, &aad, &mut text);
        assert_eq!(hex::encode(tag), "1ae10b594f09e26a7e902ecbd0600691");
        assert!(hex::encode(text).starts_with("d31a8d34648e60db7b86afbc53ef7ec2"));
    }

    #[test]
    fn aes_256_gcm_is_that_of_the_other_file() {
        let mut text = b"text".to_vec();
        let tag = ChunkKey::new(Aead::Aes256Gcm, &[7; 32]).seal(&[1; 12], b"aad", &mut text);
        let mut other = b"text".to_vec();
        crate::seal_in_place(&[7; 32], &[1; 12], b"aad", &mut other, 0);
        assert_eq!([text.as_slice(), &tag].concat(), other);
    }

    #[test]
    fn what_does_not_open_is_left_as_it_was_and_another_nonce_may_be_tried() {
        for aead in BOTH {
            let key = ChunkKey::new(aead, &[7; 32]);
            let mut text = vec![9; 100];
            let tag = key.seal(&[1; 12], b"aad", &mut text);
            let sealed = text.clone();
            assert_ne!(sealed, [9; 100]);
            for (nonce, aad) in [([2; 12], b"aad"), ([1; 12], b"dad")] {
                assert_eq!(key.open(&nonce, aad, &mut text, &tag), Err(OpenError));
                assert_eq!(text, sealed);
            }
            let mut bad = tag;
            bad[15] ^= 1;
            assert_eq!(key.open(&[1; 12], b"aad", &mut text, &bad), Err(OpenError));
            assert_eq!(text, sealed);
            assert_eq!(key.open(&[1; 12], b"aad", &mut text, &tag), Ok(()));
            assert_eq!(text, [9; 100]);
        }
    }

    #[test]
    fn any_flipped_bit_and_the_other_aead_do_not_open() {
        for (aead, other) in [(BOTH[0], BOTH[1]), (BOTH[1], BOTH[0])] {
            let key = ChunkKey::new(aead, &[7; 32]);
            let mut text = b"text".to_vec();
            let tag = key.seal(&[1; 12], b"aad", &mut text);
            for bit in 0..text.len() * 8 {
                let mut flipped = text.clone();
                flipped[bit / 8] ^= 1 << (bit % 8);
                assert!(key.open(&[1; 12], b"aad", &mut flipped, &tag).is_err());
            }
            let other = ChunkKey::new(other, &[7; 32]);
            assert!(other.open(&[1; 12], b"aad", &mut text, &tag).is_err());
        }
    }

    #[test]
    fn key_prints_nothing() {
        for aead in BOTH {
            let key = ChunkKey::new(aead, &[7; 32]);
            assert_eq!(format!("{key:?}"), "ChunkKey { .. }");
        }
    }
}
