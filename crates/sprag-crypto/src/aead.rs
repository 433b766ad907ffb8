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
pub struct AeadKey {
    cipher: Box<Aes256Gcm>,
    #[cfg(feature = "record-nonces")]
    name: [u8; 32],
}

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
        Self {
            cipher: Box::new(Aes256Gcm::new(key.into())),
            #[cfg(feature = "record-nonces")]
            name: crate::recorder::name(key),
        }
    }

    /// Encrypts `buf[from..]` in place and appends the 16-byte tag. At most 2^36 − 32 bytes, which no buffer of ours holds.
    pub fn seal_in_place(&self, nonce: &[u8; NONCE], aad: &[u8], buf: &mut Vec<u8>, from: usize) {
        let _tag = seal(&self.cipher, nonce, aad, buf, from);
        #[cfg(feature = "record-nonces")]
        crate::recorder::encryption(&self.name, nonce, &_tag);
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
        unseal(&self.cipher, nonce, aad, sealed)
    }
}

fn seal(
    cipher: &Aes256Gcm,
    nonce: &[u8; NONCE],
    aad: &[u8],
    buf: &mut Vec<u8>,
    from: usize,
) -> [u8; TAG] {
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
    tag.into()
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
    let _tag = seal(&Aes256Gcm::new(key.into()), nonce, aad, buf, from);
    #[cfg(feature = "record-nonces")]
    crate::recorder::encryption(&crate::recorder::name(key), nonce, &_tag);
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

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: [u8; 32] = [7; 32];
    const NONCE_1: [u8; NONCE] = [1; NONCE];

    fn sealed(aad: &[u8], text: &[u8]) -> Vec<u8> {
        let mut buf = text.to_vec();
        seal_in_place(&KEY, &NONCE_1, aad, &mut buf, 0);
        buf
    }

    #[test]
    fn seal_matches_the_gcm_specification_case_16() {
        let unhex = |text: &str| hex::decode(text).unwrap();
        let key: [u8; 32] =
            unhex("feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308")
                .try_into()
                .unwrap();
        let nonce: [u8; 12] = unhex("cafebabefacedbaddecaf888").try_into().unwrap();
        let aad = unhex("feedfacedeadbeeffeedfacedeadbeefabaddad2");
        let text = unhex(
            "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a721c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39",
        );
        let mut buf = text.clone();
        seal_in_place(&key, &nonce, &aad, &mut buf, 0);
        assert_eq!(
            hex::encode(&buf),
            "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662\
             76fc6ece0f4e1768cddf8853bb2d551b"
        );
        assert_eq!(*open(&key, &nonce, &aad, &buf).unwrap(), text);
    }

    #[test]
    fn what_stands_before_is_left_alone() {
        let mut buf = b"head".to_vec();
        buf.extend_from_slice(b"text");
        seal_in_place(&KEY, &NONCE_1, b"aad", &mut buf, 4);
        assert_eq!(&buf[..4], b"head");
        assert_eq!(buf[4..], sealed(b"aad", b"text"));
        let mut short = b"head".to_vec();
        seal_in_place(&KEY, &NONCE_1, b"aad", &mut short, 9);
        assert_eq!(
            short[4..],
            sealed(b"aad", b""),
            "beyond the end there is nothing to encrypt"
        );
    }

    #[test]
    fn an_expanded_key_does_the_same() {
        let key = AeadKey::new(&KEY);
        let mut buf = b"text".to_vec();
        key.seal_in_place(&NONCE_1, b"aad", &mut buf, 0);
        assert_eq!(buf, sealed(b"aad", b"text"));
        assert_eq!(*key.open(&NONCE_1, b"aad", &buf).unwrap(), b"text");
        assert_eq!(key.open(&NONCE_1, b"other", &buf).err(), Some(OpenError));
    }

    #[test]
    fn other_key_nonce_data_or_any_flipped_bit_does_not_open() {
        let good = sealed(b"aad", b"text");
        assert_eq!(*open(&KEY, &NONCE_1, b"aad", &good).unwrap(), b"text");
        assert_eq!(
            open(&[8; 32], &NONCE_1, b"aad", &good).err(),
            Some(OpenError)
        );
        assert_eq!(open(&KEY, &[2; 12], b"aad", &good).err(), Some(OpenError));
        assert_eq!(open(&KEY, &NONCE_1, b"", &good).err(), Some(OpenError));
        for bit in 0..good.len() * 8 {
            let mut flipped = good.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(
                open(&KEY, &NONCE_1, b"aad", &flipped).err(),
                Some(OpenError),
                "bit {bit}"
            );
        }
    }

    #[test]
    fn shortened_and_lengthened_seals_do_not_open() {
        let mut long = sealed(b"aad", b"text");
        for length in 0..long.len() {
            assert_eq!(
                open(&KEY, &NONCE_1, b"aad", &long[..length]).err(),
                Some(OpenError)
            );
        }
        long.push(0);
        assert_eq!(open(&KEY, &NONCE_1, b"aad", &long).err(), Some(OpenError));
    }

    #[test]
    fn a_buffer_with_room_is_not_moved() {
        let mut buf = Vec::with_capacity(20);
        buf.extend_from_slice(b"text");
        let before = buf.as_ptr();
        seal_in_place(&KEY, &NONCE_1, b"", &mut buf, 0);
        assert_eq!((before, buf.len()), (buf.as_ptr(), 20));
    }

    #[test]
    fn expanded_key_prints_nothing() {
        assert_eq!(format!("{:?}", AeadKey::new(&KEY)), "AeadKey { .. }");
    }
}
