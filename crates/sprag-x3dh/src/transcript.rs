//! The transcript, which binds everything that both sides must agree on ("The protocol", §3, 4).

use sprag_crypto::{
    Features, KemPublicKey, PublicKey, SessionId, TranscriptHash, labels, put_lp, sha256,
};
use sprag_wire::KemKind;

/// The responder's keys as they enter the transcript.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct TranscriptKeys<'a> {
    /// `SPK`.
    pub signed: &'a PublicKey,
    /// The features published with it.
    pub features: Features,
    /// `OPK`, if one is used.
    pub one_time: Option<&'a PublicKey>,
    /// Kind and key of the KEM prekey, in mode 1.
    pub kem: Option<(KemKind, &'a KemPublicKey)>,
}

impl<'a> TranscriptKeys<'a> {
    /// From its parts.
    #[must_use]
    pub fn new(
        signed: &'a PublicKey,
        features: Features,
        one_time: Option<&'a PublicKey>,
        kem: Option<(KemKind, &'a KemPublicKey)>,
    ) -> Self {
        Self {
            signed,
            features,
            one_time,
            kem,
        }
    }
}

/// `T`, as bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transcript(Vec<u8>);

impl Transcript {
    /// From `Id(I)`, `Id(R)`, the encoded handshake `H` and the responder's keys.
    #[must_use]
    pub fn new(
        initiator: &[u8],
        responder: &[u8],
        handshake: &[u8],
        keys: &TranscriptKeys<'_>,
    ) -> Self {
        let mut bytes = Vec::with_capacity(handshake.len() + 2_400);
        put_lp(&mut bytes, labels::TRANSCRIPT);
        put_lp(&mut bytes, initiator);
        put_lp(&mut bytes, responder);
        put_lp(&mut bytes, handshake);
        put_lp(&mut bytes, keys.signed.as_bytes());
        put_lp(&mut bytes, &keys.features.bits().to_be_bytes());
        put_lp(
            &mut bytes,
            keys.one_time.map_or(&[][..], |key| key.as_bytes()),
        );
        let kem = keys
            .kem
            .map(|(kind, key)| [&[kind as u8], key.as_bytes()].concat());
        put_lp(&mut bytes, &kem.unwrap_or_default());
        Self(bytes)
    }

    /// `T`.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// `TH`.
    #[must_use]
    pub fn hash(&self) -> TranscriptHash {
        TranscriptHash::from_bytes(sha256(&[&self.0]))
    }
}

/// `IKM`, collected where it will be wiped.
pub(crate) struct KeyMaterial(zeroize::Zeroizing<Vec<u8>>);

impl KeyMaterial {
    pub(crate) fn new() -> Self {
        let mut bytes = zeroize::Zeroizing::new(Vec::with_capacity(6 * 32));
        bytes.extend_from_slice(&[0xff; 32]);
        Self(bytes)
    }

    pub(crate) fn add(&mut self, secret: &sprag_crypto::SharedSecret) {
        self.0.extend_from_slice(secret.as_bytes());
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// `SID`.
pub(crate) fn session_id(handshake: &[u8]) -> SessionId {
    SessionId::of_handshake(handshake)
}
