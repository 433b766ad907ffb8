//! Handshakes without sessions' policy: from the frame of a bundle to a first message that was read.

use rand_chacha::ChaCha20Rng;
use sprag_crypto::IdentityKey;
use sprag_crypto::{Features, HandshakeSecret, Mode, RatchetKeyPair};
use sprag_ratchet::{Limits, NoSkippedKeys, OriginKey, ReceivedMessage, SaltSource, Session};
use sprag_wire::{
    DeviceAddress, MessageFrame, UnverifiedDeviceList, UnverifiedPreKeyBundle, encode_message,
    id_bytes,
};
use sprag_x3dh::{
    DeviceList, Initiated, Initiator, PreKeyBundle, Responder, ResponderKeys, initiate, respond,
};

use crate::measure::{Operation, Table, repeated};
use crate::olm;
use crate::parts::{Party, rng};
use crate::primitives::Asymmetric;

/// Measures both modes.
pub fn run(table: &mut Table) {
    let mut rng = rng(1);
    let (alice, bob) = (Party::new("alice", &mut rng), Party::new("bob", &mut rng));
    let bundle = bob.bundle();
    for (name, mode) in [("PQXDH", Mode::Pqxdh), ("X3DH", Mode::X3dh)] {
        let floor = Asymmetric::new();
        let rng = &mut rng;
        table.measure(Operation {
            name: format!("handshake and first message, {name}"),
            ours: repeated(|| whole(&alice, &bob, &bundle, mode, rng)),
            floor: Some(repeated(move || {
                // Both lists, and the two prekeys.
                floor.verify(4);
                // The handshake, the origin keys, the two first ratchet steps.
                floor.agree(2 * 4 + 2 + 1 + 2);
                // The base key and two ratchet keys.
                floor.generate(3);
                if mode == Mode::Pqxdh {
                    floor.encapsulate();
                    floor.decapsulate();
                }
            })),
            peer: (mode == Mode::X3dh).then(|| Box::new(olm::handshakes) as _),
            most: 1_000,
        });
    }
}

fn whole(alice: &Party, bob: &Party, bundle: &[u8], mode: Mode, rng: &mut ChaCha20Rng) {
    let (frame, secret) = make(alice, bundle, mode, rng);
    assert_eq!(read(bob, &alice.address, &frame, rng), secret);
}

fn make(alice: &Party, bundle: &[u8], mode: Mode, rng: &mut ChaCha20Rng) -> (Vec<u8>, Vec<u8>) {
    let bundle = UnverifiedPreKeyBundle::decode(bundle).unwrap();
    let list = UnverifiedDeviceList::decode(&bundle.device_list).unwrap();
    let list = DeviceList::verify(list).unwrap();
    let bundle = PreKeyBundle::verify(bundle).unwrap();
    let ours = Initiator {
        identity: &alice.identity,
        address: &alice.address,
        features: Features::ACCEPTS_X3DH,
        device_list: alice.list.frame(),
        responder_epoch: list.epoch(),
        responder_list: list.hash(),
    };
    let Initiated {
        handshake,
        secret,
        signed_pre_key,
        ..
    } = initiate(&ours, &bundle, mode, rng).unwrap();
    let session = Session::initiate(secret, &signed_pre_key, rng).unwrap();
    let content = vec![6; 160];
    let (next, message) = session.encrypt(&content, SaltSource::Hedged(rng)).unwrap();
    let mut frame = encode_message(
        Some(&handshake),
        &message.salt,
        &message.header,
        &message.body,
    );
    origin(alice, bundle.identity_key(), bundle.address(), true).seal(
        &mut frame,
        &message.salt,
        &next.session_id(),
        message.chain_index,
    );
    (frame, content)
}

fn read(bob: &Party, from: &DeviceAddress, frame: &[u8], rng: &mut ChaCha20Rng) -> Vec<u8> {
    let frame = MessageFrame::parse(frame).unwrap();
    let parsed = frame.parsed_handshake().unwrap();
    let origin = origin(bob, &parsed.identity_key, from, false);
    let (_, chain_index) = origin.open(&frame).unwrap();
    let list = UnverifiedDeviceList::decode(&parsed.device_list).unwrap();
    let list = DeviceList::verify(list).unwrap();
    assert_eq!(list.devices()[0].identity_key(), &parsed.identity_key);
    let secret: HandshakeSecret = respond(
        &Responder {
            identity: &bob.identity,
            address: &bob.address,
        },
        from,
        frame.handshake().unwrap(),
        parsed,
        &ResponderKeys {
            signed: &bob.signed,
            one_time: Some(&bob.one_time),
            kem: parsed.kem.as_ref().map(|_| &bob.kem),
        },
    )
    .unwrap();
    // A prekey comes out of its record with its public half computed anew.
    let ratchet = RatchetKeyPair::from_private(bob.signed.private().clone());
    let session = Session::respond(secret, ratchet).unwrap();
    let message = ReceivedMessage::new(chain_index, frame.salt(), frame.header(), frame.body());
    let opened = session
        .decrypt(&message, &NoSkippedKeys, Limits::STRANGER, rng)
        .unwrap();
    opened.plaintext.to_vec()
}

fn origin(ours: &Party, key: &IdentityKey, peer: &DeviceAddress, sending: bool) -> OriginKey {
    let secret = ours.identity.agree(key.as_public_key()).unwrap();
    let our_id = id_bytes(ours.identity.public(), &ours.address);
    let their_id = id_bytes(key, peer);
    if sending {
        OriginKey::derive(&secret, &our_id, &their_id)
    } else {
        OriginKey::derive(&secret, &their_id, &our_id)
    }
}
