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

#[cfg(test)]
mod tests {
    use sprag_crypto::{BaseKey, Features, IdentityKey, Mode};
    use sprag_wire::{KemPreKeyId, OneTimePreKeyId, SignedPreKeyId};

    use super::*;
    use crate::testing::{Party, keys_of_low_order, rng};

    fn handshake(mode: Mode) -> (Party, Party, Vec<u8>, Handshake) {
        let alice = Party::new("ann", Features::NONE, 1);
        let bob = Party::new("bob", Features::ACCEPTS_X3DH, 2);
        let made = alice.initiate(bob.bundle(), mode, &mut rng(3)).unwrap();
        let parsed = Handshake::decode(&made.handshake).unwrap();
        (alice, bob, made.handshake, parsed)
    }

    #[test]
    fn a_base_or_identity_key_of_low_order_is_refused() {
        for mode in [Mode::Pqxdh, Mode::X3dh] {
            let (alice, bob, bytes, parsed) = handshake(mode);
            for key in keys_of_low_order() {
                let mut changed = parsed.clone();
                changed.base_key = BaseKey::from(key);
                let answer = bob.respond(&alice.address, &bytes, &changed);
                assert_eq!(answer.unwrap_err(), InvalidKey);
                let mut changed = parsed.clone();
                changed.identity_key = IdentityKey::from(key);
                let answer = bob.respond(&alice.address, &bytes, &changed);
                assert_eq!(answer.unwrap_err(), InvalidKey);
            }
        }
    }

    #[test]
    fn other_prekeys_than_those_named_are_refused() {
        let (alice, bob, bytes, parsed) = handshake(Mode::Pqxdh);
        let refused = |change: fn(&mut Handshake)| {
            let mut changed = parsed.clone();
            change(&mut changed);
            bob.respond(&alice.address, &bytes, &changed).is_err()
        };
        assert!(!refused(|_| ()));
        assert!(refused(
            |parsed| parsed.signed_pre_key = SignedPreKeyId::new(4).unwrap()
        ));
        assert!(refused(|parsed| parsed.one_time_pre_key = None));
        assert!(refused(
            |parsed| parsed.one_time_pre_key = OneTimePreKeyId::new(12).ok()
        ));
        assert!(refused(
            |parsed| parsed.kem.as_mut().unwrap().0 = KemPreKeyId::new(6).unwrap()
        ));
    }

    #[test]
    fn a_prekey_that_is_missing_or_too_many_is_refused() {
        for mode in [Mode::Pqxdh, Mode::X3dh] {
            let (alice, mut bob, bytes, parsed) = handshake(mode);
            let ours = Responder {
                identity: &bob.identity,
                address: &bob.address,
            };
            let keys = ResponderKeys {
                signed: &bob.signed,
                one_time: bob.one_time.as_ref(),
                kem: (mode == Mode::X3dh).then_some(&bob.kem),
            };
            let answer = respond(&ours, &alice.address, &bytes, &parsed, &keys);
            assert_eq!(answer.unwrap_err(), InvalidKey);
            bob.one_time = None;
            assert!(bob.respond(&alice.address, &bytes, &parsed).is_err());
        }
    }
}
