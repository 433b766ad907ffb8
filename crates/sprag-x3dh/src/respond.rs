//! The responder's side of a handshake ("The protocol", §3).

use sprag_crypto::{HandshakeSecret, IdentityKeyPair, InvalidKey};
use sprag_wire::{DeviceAddress, Handshake, id_bytes};

use crate::transcript::{KeyMaterial, Transcript, TranscriptKeys, session_id};
use crate::{KemPreKeyPair, OneTimePreKeyPair, SignedPreKeyPair};

/// Who we are.
#[derive(Debug)]
#[expect(
    clippy::exhaustive_structs,
    reason = "the inputs of one function; a new one must be thought of by callers"
)]
pub struct Responder<'a> {
    /// Our identity.
    pub identity: &'a IdentityKeyPair,
    /// Our address.
    pub address: &'a DeviceAddress,
}

/// The prekeys that the handshake names, from our own records.
#[derive(Debug)]
#[expect(
    clippy::exhaustive_structs,
    reason = "the inputs of one function; a new one must be thought of by callers"
)]
pub struct ResponderKeys<'a> {
    /// The signed prekey.
    pub signed: &'a SignedPreKeyPair,
    /// The one-time prekey, if one was used.
    pub one_time: Option<&'a OneTimePreKeyPair>,
    /// The KEM prekey, in mode 1.
    pub kem: Option<&'a KemPreKeyPair>,
}

/// Computes what the initiator computed. `handshake` is `H` as received, `parsed` the same decoded.
///
/// # Errors
/// [`InvalidKey`]: an agreement is all zero, or a prekey that the handshake names was not given.
pub fn respond(
    ours: &Responder<'_>,
    initiator: &DeviceAddress,
    handshake: &[u8],
    parsed: &Handshake,
    keys: &ResponderKeys<'_>,
) -> Result<HandshakeSecret, InvalidKey> {
    let signed = keys.signed;
    if keys.one_time.map(OneTimePreKeyPair::id) != parsed.one_time_pre_key
        || keys.kem.map(KemPreKeyPair::id) != parsed.kem.as_ref().map(|(id, _)| *id)
        || signed.id() != parsed.signed_pre_key
    {
        return Err(InvalidKey);
    }
    let base = parsed.base_key.as_public_key();
    let mut ikm = KeyMaterial::new();
    ikm.add(
        &signed
            .private()
            .agree(parsed.identity_key.as_public_key())?,
    );
    ikm.add(&ours.identity.agree(base)?);
    ikm.add(&signed.private().agree(base)?);
    if let Some(one_time) = keys.one_time {
        ikm.add(&one_time.private().agree(base)?);
    }
    if let (Some(kem), Some((_, ciphertext))) = (keys.kem, &parsed.kem) {
        ikm.add(&kem.private().decapsulate(ciphertext)?);
    }
    let transcript_keys = TranscriptKeys::new(
        signed.public_key(),
        signed.features(),
        keys.one_time.map(OneTimePreKeyPair::public_key),
        keys.kem.map(|kem| (kem.kind(), kem.public_key())),
    );
    let initiator = id_bytes(&parsed.identity_key, initiator);
    let responder = id_bytes(ours.identity.public(), ours.address);
    let hash = Transcript::new(&initiator, &responder, handshake, &transcript_keys).hash();
    let features = parsed.features & signed.features();
    Ok(HandshakeSecret::derive(
        parsed.mode,
        features,
        hash,
        session_id(handshake),
        ikm.as_bytes(),
    ))
}
