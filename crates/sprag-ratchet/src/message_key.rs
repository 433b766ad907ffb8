//! The key of one message (the protocol, §4.2 and §4.3).

use core::fmt;

use sprag_crypto::{OpenError, Salt, TranscriptHash, hkdf, labels, open, seal_in_place};
use zeroize::Zeroizing;

use crate::header_key::SEALED_HEADER_LEN;
use crate::join::join;
use crate::skipped::MessageSeed;

const AAD_LEN: usize = labels::BODY.len() + 16 + 4 + SEALED_HEADER_LEN + 32;

/// Key and nonce of one message body, 44 bytes. It is used once: sealing and opening consume it.
///
/// ```compile_fail,E0382
/// # use sprag_ratchet::hazmat::MessageKey;
/// # fn f(key: MessageKey, body: &[u8]) {
/// let first = key.open(b"", body);
/// let again = key.open(b"", body); // the key is gone
/// # }
/// ```
///
/// ```compile_fail,E0599
/// # use sprag_ratchet::hazmat::MessageKey;
/// # fn f(key: &MessageKey) {
/// let copy = MessageKey::clone(key); // and there is no second one
/// # }
/// ```
pub struct MessageKey {
    bytes: Zeroizing<[u8; 44]>,
    #[cfg(feature = "record-nonces")]
    seed: [u8; 32],
}

impl MessageKey {
    /// `HKDF(S, seed, "Sprag/1 message", 44)`; `s` is the salt of the message, after the post-quantum key if there
    /// is one.
    #[must_use]
    pub fn derive(seed: MessageSeed, s: &[u8]) -> Self {
        Self {
            bytes: hkdf::<44>(s, seed.as_bytes(), &[labels::MESSAGE]),
            #[cfg(feature = "record-nonces")]
            seed: sprag_crypto::recorder::name(seed.as_bytes()),
        }
    }

    /// Seals `plaintext`; the result is 16 bytes longer.
    #[must_use]
    pub fn seal(self, aad: &[u8], plaintext: &[u8]) -> Vec<u8> {
        let (key, nonce) = self.parts();
        let mut sealed = Vec::with_capacity(plaintext.len().saturating_add(16));
        sealed.extend_from_slice(plaintext);
        seal_in_place(key, nonce, aad, &mut sealed, 0);
        #[cfg(feature = "record-nonces")]
        sprag_crypto::recorder::message(&self.seed, &sealed);
        sealed
    }

    /// Opens `sealed`.
    ///
    /// # Errors
    ///
    /// [`OpenError`] if it was not sealed with this key and this associated data.
    pub fn open(self, aad: &[u8], sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, OpenError> {
        let (key, nonce) = self.parts();
        open(key, nonce, aad, sealed)
    }

    fn parts(&self) -> (&[u8; 32], &[u8; 12]) {
        static NOTHING: ([u8; 32], [u8; 12]) = ([0; 32], [0; 12]);
        match self.bytes.split_first_chunk::<32>() {
            Some((key, nonce)) => (key, nonce.first_chunk().unwrap_or(&NOTHING.1)),
            None => (&NOTHING.0, &NOTHING.1), // 44 = 32 + 12: not reachable
        }
    }
}

impl fmt::Debug for MessageKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MessageKey").finish_non_exhaustive()
    }
}

/// `"Sprag/1 body" ‖ salt ‖ LP(header) ‖ TH`, for a sealed header of 61 bytes.
pub(crate) fn body_aad(salt: &Salt, header: &[u8], transcript: &TranscriptHash) -> [u8; AAD_LEN] {
    const LENGTH: [u8; 4] = [0, 0, 0, 61]; // u32be(SEALED_HEADER_LEN)
    join(&[
        labels::BODY,
        salt.as_bytes(),
        &LENGTH,
        header,
        transcript.as_bytes(),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{bytes32, hex, vectors};

    fn key() -> MessageKey {
        MessageKey::derive(MessageSeed::from_bytes(&[1; 32]), &[2; 16])
    }

    #[test]
    fn message_keys_are_the_published_ones() {
        let cases = vectors()["primitives"]["message_key"].as_array().unwrap();
        assert_eq!(cases.len(), 2);
        for case in cases {
            let mut s = hex(&case["pq_key"]);
            s.extend(hex(&case["salt"]));
            let key = MessageKey::derive(MessageSeed::from_bytes(&bytes32(&case["seed"])), &s);
            assert_eq!(key.parts().0.to_vec(), hex(&case["key"]));
            assert_eq!(key.parts().1.to_vec(), hex(&case["nonce"]));
        }
    }

    #[test]
    fn what_a_key_sealed_the_same_key_opens() {
        let sealed = key().seal(b"aad", b"body");
        assert_eq!(sealed.len(), 20);
        assert_eq!(key().open(b"aad", &sealed).unwrap().as_slice(), b"body");
    }

    #[test]
    fn another_seed_salt_associated_data_or_byte_does_not_open() {
        let sealed = key().seal(b"aad", b"body");
        assert!(key().open(b"aae", &sealed).is_err());
        assert!(key().open(b"aad", &sealed[..19]).is_err());
        assert!(key().open(b"aad", &[]).is_err());
        let seed = MessageKey::derive(MessageSeed::from_bytes(&[3; 32]), &[2; 16]);
        assert!(seed.open(b"aad", &sealed).is_err());
        let salt = MessageKey::derive(MessageSeed::from_bytes(&[1; 32]), &[4; 16]);
        assert!(salt.open(b"aad", &sealed).is_err());
    }

    #[test]
    fn the_length_in_the_associated_data_is_that_of_the_header() {
        let aad = body_aad(
            &Salt::from_bytes([1; 16]),
            &[2; SEALED_HEADER_LEN],
            &TranscriptHash::from_bytes([3; 32]),
        );
        assert_eq!(aad.len(), 12 + 16 + 4 + 61 + 32);
        assert_eq!(aad[28..32], [0, 0, 0, 61]);
        assert_eq!(aad[32], 2);
        assert_eq!(aad[93..], [3; 32]);
    }

    #[test]
    fn debug_shows_nothing() {
        assert_eq!(format!("{:?}", key()), "MessageKey { .. }");
    }
}
