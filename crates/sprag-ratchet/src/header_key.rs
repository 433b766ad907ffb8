//! Header keys: the seal of one chain (the protocol, §4.2 and §4.3).

use sprag_crypto::{Salt, TranscriptHash, hmac, labels, open, seal_in_place};
use sprag_wire::RatchetHeader;
use zeroize::Zeroizing;

use crate::join::{join, prefix};
use crate::secret::secret;

/// A sealed header without `pq_ratchet`: 45 bytes and a tag.
pub(crate) const SEALED_HEADER_LEN: usize = HEADER_LEN + 16;
const HEADER_LEN: usize = 45;
const AAD_LEN: usize = labels::HEADER.len() + 16 + 32;

secret! {
    /// Header key `HK`, 32 bytes.
    pub(crate) struct HeaderKey;
}

impl HeaderKey {
    /// `kid`: names the chain in the published form of `skipped`. Never sent.
    pub(crate) fn chain_id(&self) -> [u8; 8] {
        prefix(hmac(&self.0, &[labels::CHAIN]).as_slice())
    }

    /// Seals an encoded header of 45 bytes to 61.
    pub(crate) fn seal(
        &self,
        header: &RatchetHeader,
        salt: &Salt,
        transcript: &TranscriptHash,
    ) -> Vec<u8> {
        let mut sealed = Vec::with_capacity(SEALED_HEADER_LEN);
        sealed.extend_from_slice(&header.encode());
        seal_in_place(
            &self.0,
            &nonce(salt),
            &aad(salt, transcript),
            &mut sealed,
            0,
        );
        sealed
    }

    /// Opens a sealed header; `None` if it does not open or holds no header without `pq_ratchet`.
    pub(crate) fn open(
        &self,
        sealed: &[u8],
        salt: &Salt,
        transcript: &TranscriptHash,
    ) -> Option<RatchetHeader> {
        if sealed.len() != SEALED_HEADER_LEN {
            return None;
        }
        let opened: Zeroizing<Vec<u8>> =
            open(&self.0, &nonce(salt), &aad(salt, transcript), sealed).ok()?;
        RatchetHeader::decode(&opened)
            .ok()
            .filter(|header| header.pq_ratchet.is_none())
    }
}

/// `salt[0..12]`.
pub(crate) fn nonce(salt: &Salt) -> [u8; 12] {
    prefix(salt.as_bytes())
}

fn aad(salt: &Salt, transcript: &TranscriptHash) -> [u8; AAD_LEN] {
    join(&[labels::HEADER, salt.as_bytes(), transcript.as_bytes()])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{bytes32, hex, rng, vectors};
    use sprag_crypto::RatchetKeyPair;

    fn sealed() -> (HeaderKey, Salt, TranscriptHash, Vec<u8>) {
        let key = HeaderKey::from_bytes(&[1; 32]);
        let salt = Salt::from_bytes([2; 16]);
        let transcript = TranscriptHash::from_bytes([3; 32]);
        let header = RatchetHeader::new(*RatchetKeyPair::generate(&mut rng(4)).public(), 5, 6);
        let sealed = key.seal(&header, &salt, &transcript);
        (key, salt, transcript, sealed)
    }

    #[test]
    fn the_chain_id_is_the_published_one() {
        let case = &vectors()["primitives"]["kid"];
        let key = HeaderKey::from_bytes(&bytes32(&case["header_key"]));
        assert_eq!(key.chain_id().to_vec(), hex(&case["kid"]));
    }

    #[test]
    fn a_header_opens_with_its_key_salt_and_transcript() {
        let (key, salt, transcript, sealed) = sealed();
        assert_eq!(sealed.len(), SEALED_HEADER_LEN);
        let header = key.open(&sealed, &salt, &transcript).unwrap();
        assert_eq!(header.previous_chain_length, 5);
        assert_eq!(header.message_number, 6);
    }

    #[test]
    fn a_header_with_another_key_salt_transcript_bit_or_length_does_not_open() {
        let (key, salt, transcript, sealed) = sealed();
        let other = HeaderKey::from_bytes(&[9; 32]);
        assert!(other.open(&sealed, &salt, &transcript).is_none());
        let mut last = [2; 16];
        last[15] = 3; // not in the nonce, but in the associated data
        assert!(
            key.open(&sealed, &Salt::from_bytes(last), &transcript)
                .is_none()
        );
        let another = TranscriptHash::from_bytes([4; 32]);
        assert!(key.open(&sealed, &salt, &another).is_none());
        for at in 0..sealed.len() {
            let mut flipped = sealed.clone();
            flipped[at] ^= 1;
            assert!(key.open(&flipped, &salt, &transcript).is_none());
        }
        assert!(key.open(&sealed[..60], &salt, &transcript).is_none());
        assert!(key.open(&[], &salt, &transcript).is_none());
    }

    #[test]
    fn authentic_bytes_that_are_no_header_of_45_bytes_are_refused() {
        let (key, salt, transcript, _) = sealed();
        for length in [0, 44, 45, 99] {
            let mut other = vec![0; length];
            seal_in_place(
                &key.0,
                &nonce(&salt),
                &aad(&salt, &transcript),
                &mut other,
                0,
            );
            assert!(key.open(&other, &salt, &transcript).is_none());
        }
    }

    #[test]
    fn debug_shows_nothing() {
        assert_eq!(format!("{:?}", sealed().0), "HeaderKey { .. }");
    }
}
