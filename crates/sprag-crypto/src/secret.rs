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
