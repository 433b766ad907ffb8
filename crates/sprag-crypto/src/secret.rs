//! What the handshake hands to the ratchet ("The protocol", §3, step 4).

use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::{Features, Mode, SessionId, TranscriptHash, hkdf, labels};

/// The output of a handshake. It starts exactly one session, which consumes it:
///
/// ```compile_fail,E0382
/// # fn start(secret: sprag_crypto::HandshakeSecret) {
/// let first = secret.into_parts();
/// let second = secret.into_parts(); // the secret is gone
/// # }
/// ```
pub struct HandshakeSecret(Box<HandshakeParts>);

impl ZeroizeOnDrop for HandshakeSecret {}

impl std::fmt::Debug for HandshakeSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HandshakeSecret").finish_non_exhaustive()
    }
}

/// The parts of a [`HandshakeSecret`], wiped when dropped.
#[derive(Zeroize, ZeroizeOnDrop)]
#[non_exhaustive]
pub struct HandshakeParts {
    /// `SK`, the first root key.
    pub sk: [u8; 32],
    /// `HK_I`, the header key of the initiator's first chain.
    pub hk_i: [u8; 32],
    /// `HK_R`, the header key of the responder's first chain.
    pub hk_r: [u8; 32],
    /// `PQK`, from which a post-quantum ratchet starts.
    pub pqk: [u8; 32],
    /// `TH`.
    #[zeroize(skip)]
    pub transcript_hash: TranscriptHash,
    /// `SID`.
    #[zeroize(skip)]
    pub session_id: SessionId,
    /// How the handshake was made.
    #[zeroize(skip)]
    pub mode: Mode,
    /// `C`, the features in force.
    #[zeroize(skip)]
    pub features: Features,
}

impl std::fmt::Debug for HandshakeParts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HandshakeParts").finish_non_exhaustive()
    }
}

impl HandshakeSecret {
    /// `HKDF(Z32, IKM, "Sprag/1 handshake" ‖ u8(mode) ‖ TH, 128)` in four parts. `features` is `C`.
    #[must_use]
    pub fn derive(
        mode: Mode,
        features: Features,
        transcript_hash: TranscriptHash,
        session_id: SessionId,
        ikm: &[u8],
    ) -> Self {
        let info: [&[u8]; 3] = [labels::HANDSHAKE, &[mode as u8], transcript_hash.as_bytes()];
        let okm = hkdf::<128>(&[0; 32], ikm, &info);
        let mut parts = Box::new(HandshakeParts {
            sk: [0; 32],
            hk_i: [0; 32],
            hk_r: [0; 32],
            pqk: [0; 32],
            transcript_hash,
            session_id,
            mode,
            features,
        });
        let HandshakeParts {
            sk,
            hk_i,
            hk_r,
            pqk,
            ..
        } = &mut *parts;
        for (to, from) in [sk, hk_i, hk_r, pqk].into_iter().zip(okm.chunks_exact(32)) {
            to.copy_from_slice(from);
        }
        Self(parts)
    }

    /// `SID`.
    #[must_use]
    pub fn session_id(&self) -> &SessionId {
        &self.0.session_id
    }

    /// `TH`.
    #[must_use]
    pub fn transcript_hash(&self) -> &TranscriptHash {
        &self.0.transcript_hash
    }

    /// How the handshake was made.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.0.mode
    }

    /// `C`, the features in force.
    #[must_use]
    pub fn features(&self) -> Features {
        self.0.features
    }

    /// The parts, for the ratchet that starts from them.
    #[must_use]
    pub fn into_parts(self) -> Box<HandshakeParts> {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(mode: Mode, th: u8, ikm: &[u8]) -> HandshakeSecret {
        let th = TranscriptHash::from_bytes([th; 32]);
        HandshakeSecret::derive(
            mode,
            Features::PQ_RATCHET,
            th,
            SessionId::from_bytes([9; 16]),
            ikm,
        )
    }

    fn ikm() -> Vec<u8> {
        [[0xff; 32], [1; 32], [1; 32], [1; 32]].concat()
    }

    #[test]
    fn parts_match_another_implementation() {
        let parts = secret(Mode::Pqxdh, 7, &ikm()).into_parts();
        assert_eq!(
            hex::encode(parts.sk),
            "ac9721123c962233438d0a4918d0e14b60658292b74b41214d4f76dad7a71373"
        );
        assert_eq!(
            hex::encode(parts.hk_i),
            "9e02e7ae1775080fb63da3cf5f2bbdf8087afba210dc7bfa8b1a40308aaec34e"
        );
        assert_eq!(
            hex::encode(parts.hk_r),
            "6b9e31c928d1d7b4591b2c8b7e1e7eecbc62920770387a84ce8ca3f21ad33a21"
        );
        assert_eq!(
            hex::encode(parts.pqk),
            "72664be44aec7e265b66235a488ac8309882720c245cbf94d2d95ef6d1ba673d"
        );
    }

    #[test]
    fn mode_transcript_and_material_change_every_part() {
        let first = secret(Mode::Pqxdh, 7, &ikm()).into_parts();
        let others = [
            secret(Mode::X3dh, 7, &ikm()),
            secret(Mode::Pqxdh, 8, &ikm()),
            secret(Mode::Pqxdh, 7, &[]),
        ];
        for other in others {
            let other = other.into_parts();
            assert_ne!(first.sk, other.sk);
            assert_ne!(first.hk_i, other.hk_i);
            assert_ne!(first.hk_r, other.hk_r);
            assert_ne!(first.pqk, other.pqk);
        }
    }

    #[test]
    fn what_is_public_stays_readable() {
        let secret = secret(Mode::X3dh, 7, &ikm());
        assert_eq!(secret.mode(), Mode::X3dh);
        assert_eq!(secret.features(), Features::PQ_RATCHET);
        assert_eq!(secret.transcript_hash().as_bytes(), &[7; 32]);
        assert_eq!(secret.session_id().as_bytes(), &[9; 16]);
    }

    #[test]
    fn secrets_print_nothing() {
        let secret = secret(Mode::Pqxdh, 7, &ikm());
        assert_eq!(format!("{secret:?}"), "HandshakeSecret { .. }");
        assert_eq!(
            format!("{:?}", secret.into_parts()),
            "HandshakeParts { .. }"
        );
    }

    #[test]
    fn wiping_leaves_no_secret_behind() {
        let mut parts = secret(Mode::Pqxdh, 7, &ikm()).into_parts();
        parts.zeroize();
        assert_eq!([parts.sk, parts.hk_i, parts.hk_r, parts.pqk], [[0; 32]; 4]);
    }
}
