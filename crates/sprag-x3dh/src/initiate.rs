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

#[cfg(test)]
mod tests {
    use sprag_crypto::KemPublicKey;
    use sprag_wire::{KemPreKey, SignedPreKey, UnverifiedPreKeyBundle};

    use super::*;
    use crate::prekeys::{kem_message, signed_message};
    use crate::testing::{Party, keys_of_low_order, rng};

    fn alice() -> Party {
        Party::new("ann", Features::NONE, 1)
    }

    fn bob() -> Party {
        Party::new("bob", Features::NONE, 2)
    }

    /// Bob signs a curve prekey that is none.
    fn with_signed(public_key: sprag_crypto::PublicKey) -> UnverifiedPreKeyBundle {
        let (bob, mut bundle) = (bob(), bob().bundle());
        let unsigned = &bundle.signed_pre_key;
        let mut key = SignedPreKey::new(unsigned.id, unsigned.features, public_key, [0; 64]);
        key.signature = bob.identity.sign(&signed_message(&key), &mut rng(9));
        bundle.signed_pre_key = key;
        bundle
    }

    /// Bob signs a KEM prekey whose coefficients are all 4095.
    fn with_unreduced_kem_key() -> UnverifiedPreKeyBundle {
        let (bob, mut bundle) = (bob(), bob().bundle());
        let mut bytes = vec![0xff; KemPublicKey::LEN];
        bytes[0] = 0x0a;
        let public_key = KemPublicKey::from_bytes(&bytes).unwrap();
        let unsigned = &bundle.kem_pre_key;
        let mut key = KemPreKey::new(unsigned.id, unsigned.kind, public_key, [0; 64]);
        key.signature = bob.identity.sign(&kem_message(&key), &mut rng(9));
        bundle.kem_pre_key = key;
        bundle
    }

    #[test]
    fn the_handshake_says_what_was_used() {
        let (alice, bob) = (alice(), bob());
        let made = alice
            .initiate(bob.bundle(), Mode::Pqxdh, &mut rng(3))
            .unwrap();
        let parsed = Handshake::decode(&made.handshake).unwrap();
        assert_eq!(&parsed.identity_key, alice.identity.public());
        assert_eq!(parsed.signed_pre_key, bob.signed.id());
        assert_eq!(parsed.one_time_pre_key, bob.one_time.map(|key| key.id()));
        assert_eq!(parsed.kem.map(|(id, _)| id), Some(bob.kem.id()));
        assert_eq!(parsed.device_list, alice.list.frame());
        assert_eq!(
            (parsed.responder_epoch, parsed.responder_list),
            (1, alice.list.hash())
        );
    }

    #[test]
    fn prekeys_of_low_order_are_refused() {
        for key in keys_of_low_order() {
            for mode in [Mode::Pqxdh, Mode::X3dh] {
                let refused = alice().initiate(with_signed(key), mode, &mut rng(3));
                assert_eq!(refused.unwrap_err(), HandshakeError::InvalidKey);
                let mut bundle = bob().bundle();
                bundle.one_time_pre_key.as_mut().unwrap().public_key = key;
                let refused = alice().initiate(bundle, mode, &mut rng(3));
                assert_eq!(refused.unwrap_err(), HandshakeError::InvalidKey);
            }
        }
    }

    #[test]
    fn an_unreduced_kem_key_is_refused_before_anything_is_drawn() {
        let mut rng = rng(3);
        let refused = alice().initiate(with_unreduced_kem_key(), Mode::Pqxdh, &mut rng);
        assert_eq!(refused.unwrap_err(), HandshakeError::InvalidKey);
        assert_eq!(rng.get_word_pos(), 0);
    }

    #[test]
    fn mode_2_looks_at_no_kem_key() {
        let made = alice()
            .initiate(with_unreduced_kem_key(), Mode::X3dh, &mut rng(3))
            .unwrap();
        assert_eq!(Handshake::decode(&made.handshake).unwrap().kem, None);
    }

    #[test]
    fn two_handshakes_have_nothing_in_common() {
        let mut rng = rng(3);
        let mut make = || {
            alice()
                .initiate(bob().bundle(), Mode::Pqxdh, &mut rng)
                .unwrap()
        };
        let (first, second) = (make(), make());
        assert_ne!(first.secret.session_id(), second.secret.session_id());
        assert_ne!(
            first.secret.transcript_hash(),
            second.secret.transcript_hash()
        );
        let base_key = |made: &Initiated| Handshake::decode(&made.handshake).unwrap().base_key;
        assert_ne!(base_key(&first), base_key(&second));
    }

    #[test]
    fn nothing_secret_is_printed() {
        let made = alice()
            .initiate(bob().bundle(), Mode::X3dh, &mut rng(3))
            .unwrap();
        assert!(format!("{made:?}").contains("HandshakeSecret { .. }"));
    }
}
