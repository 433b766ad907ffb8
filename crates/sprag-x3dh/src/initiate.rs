//! The initiator's side of a handshake ("The protocol", §3).

use rand_core::CryptoRng;
use sprag_crypto::{BaseKeyPair, Features, HandshakeSecret, IdentityKeyPair, Mode, RatchetKey};
use sprag_wire::{DeviceAddress, Handshake, ListHash, id_bytes};

use crate::transcript::{KeyMaterial, Transcript, TranscriptKeys, session_id};
use crate::{HandshakeError, PreKeyBundle};

/// What the initiator brings along.
#[derive(Debug)]
#[expect(
    clippy::exhaustive_structs,
    reason = "the inputs of one function; a new one must be thought of by callers"
)]
pub struct Initiator<'a> {
    /// Our identity.
    pub identity: &'a IdentityKeyPair,
    /// Our address.
    pub address: &'a DeviceAddress,
    /// Our feature bits.
    pub features: Features,
    /// Our newest device list, a frame `0x14`.
    pub device_list: &'a [u8],
    /// Epoch of the responder's newest list.
    pub responder_epoch: u64,
    /// Its hash.
    pub responder_list: ListHash,
}

/// A handshake that was made.
#[derive(Debug)]
#[non_exhaustive]
pub struct Initiated {
    /// `H`: sent unchanged with every message until the first reply.
    pub handshake: Vec<u8>,
    /// Starts the session.
    pub secret: HandshakeSecret,
    /// The responder's signed prekey, which is its first ratchet key.
    pub signed_pre_key: RatchetKey,
}

/// Makes a handshake; draws 32 bytes, and in mode 1 another 32.
///
/// # Errors
/// [`HandshakeError::InvalidKey`]: an agreement is all zero, or the KEM key fails its check.
pub fn initiate(
    ours: &Initiator<'_>,
    bundle: &PreKeyBundle,
    mode: Mode,
    rng: &mut (impl CryptoRng + ?Sized),
) -> Result<Initiated, HandshakeError> {
    let signed = bundle.signed_pre_key();
    let one_time = bundle.one_time_pre_key();
    let kem = (mode == Mode::Pqxdh).then(|| bundle.kem_pre_key());
    if let Some(kem) = kem {
        kem.public_key.check()?;
    }

    let base = BaseKeyPair::generate(rng);
    let encapsulated = kem.map(|kem| kem.public_key.encapsulate(rng)).transpose()?;
    let (ciphertext, kem_secret) = encapsulated.unzip();
    let handshake = Handshake::new(
        mode,
        ours.features,
        *ours.identity.public(),
        *base.public(),
        signed.id,
        one_time.map(|key| key.id),
        kem.map(|kem| kem.id).zip(ciphertext),
        ours.device_list.to_vec(),
        ours.responder_epoch,
        ours.responder_list,
    )
    .encode();

    let mut ikm = KeyMaterial::new();
    ikm.add(&ours.identity.agree(&signed.public_key)?);
    ikm.add(&base.agree(bundle.identity_key().as_public_key())?);
    ikm.add(&base.agree(&signed.public_key)?);
    if let Some(one_time) = one_time {
        ikm.add(&base.agree(&one_time.public_key)?);
    }
    if let Some(secret) = &kem_secret {
        ikm.add(secret);
    }
    let keys = TranscriptKeys::new(
        &signed.public_key,
        signed.features,
        one_time.map(|key| &key.public_key),
        kem.map(|kem| (kem.kind, &kem.public_key)),
    );
    let initiator = id_bytes(ours.identity.public(), ours.address);
    let responder = id_bytes(bundle.identity_key(), bundle.address());
    let hash = Transcript::new(&initiator, &responder, &handshake, &keys).hash();
    let features = ours.features & signed.features;
    let secret =
        HandshakeSecret::derive(mode, features, hash, session_id(&handshake), ikm.as_bytes());
    Ok(Initiated {
        handshake,
        secret,
        signed_pre_key: RatchetKey::from(signed.public_key),
    })
}
