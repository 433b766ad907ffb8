//! Both sides compute the same, and whatever one of them sees differently gives other keys ("The protocol", §3).

use proptest::prelude::*;
use sprag_crypto::{
    Features, HandshakeSecret, KemPublicKey, Mode, PublicKey, SessionId, TranscriptHash,
};
use sprag_wire::{DeviceAddress, Handshake, KemKind, id_bytes};

use super::{Party, address, all_differ, rng, secrets};
use crate::{KemPreKeyPair, SignedPreKeyPair, Transcript, TranscriptKeys};

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(48) })]

    #[test]
    fn both_sides_agree_in_both_modes_with_and_without_one_time_prekeys(
        seed: u64,
        users in ("[a-zé@.]{1,60}", "[a-zé@.]{1,60}"),
        features: (u32, u32),
        pqxdh: bool,
        one_time: bool,
        last_resort: bool,
    ) {
        let mode = if pqxdh { Mode::Pqxdh } else { Mode::X3dh };
        let (ours, theirs) = (Features::from_bits(features.0), Features::from_bits(features.1));
        let alice = Party::new(&users.0, ours, seed);
        let mut bob = Party::new(&users.1, theirs, !seed);
        if !one_time {
            bob.one_time = None;
        }
        if last_resort {
            let (id, private) = (bob.kem.id(), bob.kem.private().clone());
            bob.kem = KemPreKeyPair::from_private(
                id, KemKind::LastResort, private, &bob.identity, &mut rng(1),
            );
        }
        let made = alice.initiate(bob.bundle(), mode, &mut rng(seed)).unwrap();
        let parsed = Handshake::decode(&made.handshake).unwrap();
        prop_assert_eq!(parsed.mode, mode);
        prop_assert_eq!(parsed.kem.is_some(), pqxdh);
        prop_assert_eq!(parsed.one_time_pre_key.is_some(), one_time);
        prop_assert!(made.handshake.len() < 3_700);
        let answer = bob.respond(&alice.address, &made.handshake, &parsed).unwrap();
        for secret in [&made.secret, &answer] {
            prop_assert_eq!(secret.mode(), mode);
            prop_assert_eq!(secret.features(), ours & theirs);
            prop_assert_eq!(secret.session_id(), &SessionId::of_handshake(&made.handshake));
        }
        prop_assert_eq!(made.secret.transcript_hash(), answer.transcript_hash());
        prop_assert_eq!(made.signed_pre_key.as_public_key(), bob.signed.public_key());
        prop_assert_eq!(secrets(made.secret), secrets(answer));
    }

    #[test]
    fn a_changed_handshake_is_refused_or_gives_other_keys(seed: u64, at: prop::sample::Index, pqxdh: bool) {
        let mode = if pqxdh { Mode::Pqxdh } else { Mode::X3dh };
        let alice = Party::new("ann", Features::NONE, seed);
        let bob = Party::new("bob", Features::ACCEPTS_X3DH, !seed);
        let made = alice.initiate(bob.bundle(), mode, &mut rng(seed)).unwrap();
        let bit = at.index(made.handshake.len() * 8);
        let mut changed = made.handshake.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        // Where it still reads, it is taken for what it says. Where it does not, the bytes alone are bound.
        let parsed = Handshake::decode(&changed)
            .unwrap_or_else(|_| Handshake::decode(&made.handshake).unwrap());
        if let Ok(answer) = bob.respond(&alice.address, &changed, &parsed) {
            prop_assert!(all_differ(&secrets(made.secret), &secrets(answer)));
        }
    }
}

/// The inputs of `T`, so that each can be changed alone.
#[derive(Clone)]
struct Inputs {
    initiator: Vec<u8>,
    responder: Vec<u8>,
    handshake: Vec<u8>,
    signed: Vec<u8>,
    features: u32,
    one_time: Option<Vec<u8>>,
    kem: Option<(KemKind, Vec<u8>)>,
}

impl Inputs {
    fn of_a_handshake() -> Self {
        let alice = Party::new("ann", Features::NONE, 1);
        let bob = Party::new("bob", Features::NONE, 2);
        let made = alice.initiate(bob.bundle(), Mode::Pqxdh, &mut rng(3));
        let kem = bob.kem.public_key().as_bytes().to_vec();
        Self {
            initiator: id_bytes(alice.identity.public(), &alice.address),
            responder: id_bytes(bob.identity.public(), &bob.address),
            handshake: made.unwrap().handshake,
            signed: bob.signed.public_key().as_bytes().to_vec(),
            features: 0,
            one_time: bob.one_time.map(|key| key.public_key().as_bytes().to_vec()),
            kem: Some((KemKind::OneTime, kem)),
        }
    }

    fn transcript(&self) -> Transcript {
        let signed = PublicKey::from_bytes(&self.signed).unwrap();
        let one_time = self.one_time.as_ref();
        let one_time = one_time.map(|key| PublicKey::from_bytes(key).unwrap());
        let kem = self.kem.as_ref();
        let kem = kem.map(|(kind, key)| (*kind, KemPublicKey::from_bytes(key).unwrap()));
        let keys = TranscriptKeys::new(
            &signed,
            Features::from_bits(self.features),
            one_time.as_ref(),
            kem.as_ref().map(|(kind, key)| (*kind, key)),
        );
        Transcript::new(&self.initiator, &self.responder, &self.handshake, &keys)
    }

    /// What comes of it if all secrets agree, so that only the transcript tells the difference.
    fn secrets(&self) -> (TranscriptHash, [[u8; 32]; 4]) {
        let hash = self.transcript().hash();
        let id = SessionId::of_handshake(&self.handshake);
        let secret = HandshakeSecret::derive(Mode::Pqxdh, Features::NONE, hash, id, &[7; 192]);
        (hash, secrets(secret))
    }
}

#[test]
fn every_bit_of_every_input_of_the_transcript_changes_all_keys() {
    let inputs = Inputs::of_a_handshake();
    let (hash, keys) = inputs.secrets();
    let mut changes = 0_usize;
    let mut check = |changed: &Inputs, what: &str| {
        let (other_hash, other_keys) = changed.secrets();
        assert_ne!(hash, other_hash, "{what}");
        assert!(all_differ(&keys, &other_keys), "{what}");
        changes += 1;
    };
    type Field = fn(&mut Inputs) -> &mut [u8];
    // The first byte of a key is its type, and no key has another.
    let fields: [(&str, usize, Field); 6] = [
        ("Id(I)", 0, |inputs| &mut inputs.initiator),
        ("Id(R)", 0, |inputs| &mut inputs.responder),
        ("H", 0, |inputs| &mut inputs.handshake),
        ("SPK", 1, |inputs| &mut inputs.signed),
        ("OPK", 1, |inputs| inputs.one_time.as_mut().unwrap()),
        ("KEM key", 1, |inputs| &mut inputs.kem.as_mut().unwrap().1),
    ];
    let mut expected = 0;
    for (name, first, field) in fields {
        let mut changed = inputs.clone();
        let length = field(&mut changed).len();
        expected += (length - first) * 8;
        for bit in first * 8..length * 8 {
            field(&mut changed)[bit / 8] ^= 1 << (bit % 8);
            check(&changed, &format!("{name}, bit {bit}"));
            field(&mut changed)[bit / 8] ^= 1 << (bit % 8);
        }
    }
    for bit in 0..32 {
        let mut changed = inputs.clone();
        changed.features ^= 1 << bit;
        check(&changed, "features");
    }
    let mut changed = inputs.clone();
    changed.kem.as_mut().unwrap().0 = KemKind::LastResort;
    check(&changed, "kind");
    let mut changed = inputs.clone();
    changed.one_time = None;
    check(&changed, "no OPK");
    let mut changed = inputs.clone();
    changed.kem = None;
    check(&changed, "no KEM key");
    let mut changed = inputs.clone();
    std::mem::swap(&mut changed.initiator, &mut changed.responder);
    check(&changed, "sides swapped");
    assert_eq!(changes, expected + 32 + 4);
    assert!(expected > 20_000);
}

#[test]
fn the_mode_changes_all_keys_even_under_one_transcript_hash() {
    let keys = |mode| {
        let hash = TranscriptHash::from_bytes([1; 32]);
        let id = SessionId::from_bytes([2; 16]);
        secrets(HandshakeSecret::derive(
            mode,
            Features::NONE,
            hash,
            id,
            &[3; 160],
        ))
    };
    assert!(all_differ(&keys(Mode::Pqxdh), &keys(Mode::X3dh)));
}

#[test]
fn a_responder_who_sees_himself_or_the_initiator_differently_gets_other_keys() {
    let alice = Party::new("ann", Features::NONE, 1);
    let bob = || Party::new("bob", Features::ACCEPTS_X3DH, 2);
    let made = alice
        .initiate(bob().bundle(), Mode::Pqxdh, &mut rng(3))
        .unwrap();
    let parsed = Handshake::decode(&made.handshake).unwrap();
    let keys = secrets(made.secret);
    let answer = |party: &Party, initiator: &DeviceAddress| {
        secrets(party.respond(initiator, &made.handshake, &parsed).unwrap())
    };
    assert_eq!(keys, answer(&bob(), &alice.address));

    for other in [
        address("bnn", 70_000),
        address("ann", 70_001),
        address("an", 70_000),
    ] {
        assert!(all_differ(&keys, &answer(&bob(), &other)));
        let renamed = Party {
            address: other,
            ..bob()
        };
        assert!(all_differ(&keys, &answer(&renamed, &alice.address)));
    }
    let stranger = Party {
        identity: Party::new("bob", Features::NONE, 9).identity,
        ..bob()
    };
    assert!(all_differ(&keys, &answer(&stranger, &alice.address)));

    // Bytes of the stored records: features; private halves; kind, and public key of the KEM prekey.
    let flipped = |record: &[u8], byte: usize, mask: u8| {
        let mut record = record.to_vec();
        record[byte] ^= mask;
        record
    };
    for (byte, mask) in [(5, 0x80), (8, 1), (8, 2), (9, 8), (40, 1)] {
        let record = flipped(&bob().signed.to_record(), byte, mask);
        let signed = SignedPreKeyPair::from_record(&record).unwrap();
        assert!(
            all_differ(&keys, &answer(&Party { signed, ..bob() }, &alice.address)),
            "{byte}"
        );
    }
    for (byte, mask) in [(5, 1), (6, 1), (69, 1), (71, 1), (1_638, 0x80)] {
        let record = flipped(&bob().kem.to_record(), byte, mask);
        let kem = KemPreKeyPair::from_record(&record);
        // The last 32 bytes of the seed make the answer to a wrong ciphertext; to a right one they add nothing.
        let same = byte == 69;
        let answer = answer(
            &Party {
                kem: kem.unwrap(),
                ..bob()
            },
            &alice.address,
        );
        assert_eq!(keys == answer, same, "{byte}");
        assert!(same || all_differ(&keys, &answer), "{byte}");
    }
}
