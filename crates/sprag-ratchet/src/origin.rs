//! The origin seal (the protocol, §5): which two devices, which session and chain.

use core::fmt;

use sprag_crypto::{AeadKey, Salt, SessionId, SharedSecret, hkdf, labels};
use sprag_wire::MessageFrame;
use zeroize::Zeroizing;

use crate::error::BadOrigin;
use crate::header_key::nonce;

/// Length of the origin seal in bytes: session id, chain index, tag.
pub const ORIGIN_LEN: usize = POINTER_LEN + 16;
const POINTER_LEN: usize = 20;

/// `OK(A→B)`: the key that seals and opens the origin of all frames from device A to device B. It depends on nothing
/// but the two devices, so keep it as long as they are in use: it holds the expanded AES key.
pub struct OriginKey(AeadKey);

impl OriginKey {
    /// `HKDF(Z32, DH(IK_A, IK_B), "Sprag/1 origin" ‖ Id(A) ‖ Id(B), 32)`: `secret` is the DH of the two identity keys,
    /// `from_id` and `to_id` are the `Id` of sender and receiver ([`sprag_wire::id_bytes`]).
    #[must_use]
    pub fn derive(secret: &SharedSecret, from_id: &[u8], to_id: &[u8]) -> Self {
        Self(AeadKey::new(&derive_bytes(secret, from_id, to_id)))
    }

    /// Appends the seal, [`ORIGIN_LEN`] bytes, to a frame that is complete but for it. `salt` is the frame's.
    pub fn seal(&self, frame: &mut Vec<u8>, salt: &Salt, session: &SessionId, chain_index: u32) {
        let mut pointer = Vec::with_capacity(ORIGIN_LEN);
        pointer.extend_from_slice(session.as_bytes());
        pointer.extend_from_slice(&chain_index.to_be_bytes());
        self.0.seal_in_place(&nonce(salt), frame, &mut pointer, 0);
        frame.extend_from_slice(&pointer);
    }

    /// Opens the seal of a frame and gives session id and chain index.
    ///
    /// # Errors
    ///
    /// [`BadOrigin`] if it was not made with this key for these bytes.
    pub fn open(&self, frame: &MessageFrame<'_>) -> Result<(SessionId, u32), BadOrigin> {
        let opened = self
            .0
            .open(
                &nonce(&frame.salt()),
                frame.sealed_prefix(),
                frame.origin().as_slice(),
            )
            .map_err(|_| BadOrigin)?;
        let (session, rest) = opened.split_first_chunk::<16>().ok_or(BadOrigin)?;
        let (index, _) = rest.split_first_chunk::<4>().ok_or(BadOrigin)?;
        Ok((SessionId::from_bytes(*session), u32::from_be_bytes(*index)))
    }
}

impl fmt::Debug for OriginKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OriginKey").finish_non_exhaustive()
    }
}

fn derive_bytes(secret: &SharedSecret, from_id: &[u8], to_id: &[u8]) -> Zeroizing<[u8; 32]> {
    hkdf::<32>(
        &[0; 32],
        secret.as_bytes(),
        &[labels::ORIGIN, from_id, to_id],
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{bytes32, hex, vectors};
    use sprag_crypto::{PrivateKey, PublicKey};

    fn key(private: &[u8; 32], public: &PublicKey, from: &[u8], to: &[u8]) -> OriginKey {
        OriginKey::derive(
            &PrivateKey::from_bytes(private).agree(public).unwrap(),
            from,
            to,
        )
    }

    fn keys() -> [OriginKey; 3] {
        let public = |private| PrivateKey::from_bytes(private).public_key();
        [
            key(&[1; 32], &public(&[2; 32]), b"a", b"b"),
            key(&[2; 32], &public(&[1; 32]), b"a", b"b"),
            key(&[1; 32], &public(&[2; 32]), b"b", b"a"),
        ]
    }

    fn frame(key: &OriginKey) -> Vec<u8> {
        let salt = Salt::from_bytes([7; 16]);
        let mut frame = sprag_wire::encode_message(None, &salt, &[1; 61], &[2; 32]);
        let before = frame.len();
        key.seal(&mut frame, &salt, &SessionId::from_bytes([8; 16]), 9);
        assert_eq!(frame.len(), before + ORIGIN_LEN);
        frame
    }

    #[test]
    fn origin_keys_are_the_published_ones() {
        let case = &vectors()["primitives"]["origin_key"];
        let (a, b) = (
            PrivateKey::from_bytes(&bytes32(&case["private_a"])),
            PrivateKey::from_bytes(&bytes32(&case["private_b"])),
        );
        let (id_a, id_b) = (hex(&case["id_a"]), hex(&case["id_b"]));
        let shared = a.agree(&b.public_key()).unwrap();
        assert_eq!(
            *derive_bytes(&shared, &id_a, &id_b),
            bytes32(&case["a_to_b"])
        );
        let shared = b.agree(&a.public_key()).unwrap();
        assert_eq!(
            *derive_bytes(&shared, &id_b, &id_a),
            bytes32(&case["b_to_a"])
        );
    }

    #[test]
    fn the_receiver_reads_session_and_chain() {
        let [ours, theirs, _] = keys();
        let frame = frame(&ours);
        let (session, index) = theirs.open(&MessageFrame::parse(&frame).unwrap()).unwrap();
        assert_eq!(session, SessionId::from_bytes([8; 16]));
        assert_eq!(index, 9);
    }

    #[test]
    fn the_other_direction_does_not_open() {
        let [ours, _, back] = keys();
        let frame = frame(&ours);
        let parsed = MessageFrame::parse(&frame).unwrap();
        assert_eq!(back.open(&parsed), Err(BadOrigin));
    }

    #[test]
    fn no_changed_byte_of_the_frame_opens() {
        let [ours, theirs, _] = keys();
        let frame = frame(&ours);
        for at in 0..frame.len() {
            let mut changed = frame.clone();
            changed[at] ^= 1;
            if let Ok(parsed) = MessageFrame::parse(&changed) {
                assert_eq!(theirs.open(&parsed), Err(BadOrigin));
            }
        }
    }

    #[test]
    fn debug_shows_nothing() {
        assert_eq!(format!("{:?}", keys()[0]), "OriginKey { .. }");
    }
}
