//! What nobody of our contacts made provokes nothing: no frame, no task, no row ("The protocol", §9 and §11).
//!
//! At the session layer, where a hundred thousand frames cost seconds: the rows before and after are compared as bytes.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "a test fails by panicking"
)]

use std::collections::BTreeMap;

use rand_chacha::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};
use sprag_crypto::{Features, IdentityKeyPair, Mode, Salt, SessionId};
use sprag_ratchet::{OriginKey, SaltSource, Session};
use sprag_session::{ProtocolError, SealedFrame, Task, Transport};
use sprag_store::{MemoryRows, RowName};
use sprag_tests::desk::{Account, Desk, desk, first_word, friends, number, user};
use sprag_tests::world::{Weather, World};
use sprag_wire::relay::ListReply;
use sprag_wire::{
    Body, Content, DeviceAddress, Envelope, HOLDER, KemKind, KemPreKeyId, ListedDevice,
    MessageFrame, OneTimePreKeyId, Padding, SignedPreKeyId, UnverifiedPreKeyBundle, encode_message,
    id_bytes, pad,
};
use sprag_x3dh::{
    DeviceList, Initiator, KemPreKeyPair, OneTimePreKeyPair, PreKeyBundle, SignedPreKeyPair,
    initiate,
};

/// Every row, with its value.
fn photograph(rows: &MemoryRows) -> BTreeMap<RowName, Vec<u8>> {
    rows.iter()
        .map(|(name, value)| (name.clone(), value.to_vec()))
        .collect()
}

/// The tables in which two photographs differ.
fn changed(before: &BTreeMap<RowName, Vec<u8>>, rows: &MemoryRows) -> Vec<u8> {
    let after = photograph(rows);
    let mut tables: Vec<u8> = before
        .keys()
        .chain(after.keys())
        .filter(|name| before.get(*name) != after.get(*name))
        .map(RowName::table)
        .collect();
    tables.dedup();
    tables
}

fn give(to: &mut Desk, envelope: &[u8]) -> Option<ProtocolError> {
    let delivery = to
        .step(|device, rows, env| device.take_envelope(rows, env, envelope))
        .unwrap();
    assert!(delivery.message.is_none(), "noise was opened");
    assert_eq!(delivery.transport, Transport::Forget);
    delivery.refused
}

/// A frame that is well-formed as far as a relay can see, and noise in all that is sealed.
fn noise(rng: &mut ChaCha20Rng, handshake: Option<&[u8]>) -> (Salt, Vec<u8>) {
    let mut salt = [0; 16];
    let mut header = [0; 61];
    let mut body = vec![0; 17 + (rng.next_u32() % 300) as usize];
    let mut origin = [0; 36];
    for part in [&mut salt[..], &mut header, &mut body, &mut origin] {
        rng.fill_bytes(part);
    }
    let salt = Salt::from_bytes(salt);
    let mut frame = encode_message(handshake, &salt, &header, &body);
    frame.extend_from_slice(&origin);
    (salt, frame)
}

/// Alice and Bob, who have talked for a while, and every frame that they made.
fn old_friends() -> (Desk, Desk, Vec<SealedFrame>) {
    let (mut alice, mut bob) = friends();
    let (a, b) = (alice.address(), bob.address());
    let mut frames = Vec::new();
    for turn in 0..20_u32 {
        for place in 0..3_u32 {
            let id = u128::from(1_000 + 10 * turn + place);
            let frame = if turn % 2 == 0 {
                alice.say(&b, id)
            } else {
                bob.say(&a, id)
            };
            if turn % 2 == 0 {
                assert!(bob.hears(&a, &frame));
                frames.push(frame);
            } else {
                assert!(alice.hears(&b, &frame));
            }
        }
    }
    (alice, bob, frames)
}

#[test]
fn a_hundred_thousand_frames_of_noise_change_nothing() {
    let (mut alice, mut bob, _) = old_friends();
    let (a, b) = (alice.address(), bob.address());
    let stranger = DeviceAddress::new(user("mallory"), number(70_001));
    let own = DeviceAddress::new(user("bob"), number(70_002));
    let mut carol = desk("carol", 7);
    let bundle = bob.bundle(2, Some(2));
    let hello = first_word(&mut carol, &b, &bundle);
    let hello = MessageFrame::parse(&hello.frame).unwrap();
    // His list was asked for a moment ago: what an unlisted device of ours may cause has been caused.
    let (salt, payload) = noise(&mut bob.rng, None);
    give(
        &mut bob,
        &Envelope::new(own.clone(), b.clone(), salt, payload).encode(),
    );
    let tasks = bob.tasks();
    let before = photograph(&bob.rows);
    let mut rng = ChaCha20Rng::seed_from_u64(1);
    let mut codes: BTreeMap<String, usize> = BTreeMap::new();
    for round in 0..100_000 {
        let envelope = match round % 4 {
            // No envelope at all.
            0 => {
                let mut bytes = vec![0; (rng.next_u32() % 400) as usize];
                rng.fill_bytes(&mut bytes);
                if let Some(first) = bytes.first_mut() {
                    *first = 0x10 | (*first & 7);
                }
                bytes
            }
            // Well-formed to the relay; from a friend, with a genuine handshake, from oneself, from nobody.
            kind => {
                let with = (kind == 2).then(|| hello.handshake().unwrap());
                let (salt, payload) = noise(&mut rng, with);
                let from = match round % 5 {
                    0 => &stranger,
                    1 => &own,
                    _ => &a,
                };
                Envelope::new(from.clone(), b.clone(), salt, payload).encode()
            }
        };
        let error = give(&mut bob, &envelope).unwrap();
        *codes.entry(format!("{error:?}")).or_default() += 1;
    }
    assert_eq!(changed(&before, &bob.rows), Vec::<u8>::new(), "{codes:?}");
    assert_eq!(bob.tasks(), tasks);
    assert!(codes.len() >= 3, "{codes:?}");
    // Counted it is, and the friend is heard as before.
    let health = bob.device.health(&bob.rows).unwrap();
    let counted: u64 = health.refused.iter().map(|(_, count)| count).sum();
    assert_eq!(counted, 100_001);
    let word = alice.say(&b, 9);
    assert!(bob.hears(&a, &word));
}

#[test]
fn a_hundred_thousand_damaged_copies_of_genuine_frames_change_nothing() {
    let (mut alice, mut bob, frames) = old_friends();
    let (a, b) = (alice.address(), bob.address());
    // Damaged copies of frames that are read already, of one that is not, and of one with a handshake.
    let coming = alice.say(&b, 7_000);
    let mut carol = desk("carol", 7);
    let bundle = bob.bundle(2, Some(2));
    carol.open(&b, &bundle);
    let handshake = carol.say(&b, 7_001);
    let c = carol.address();
    let before = photograph(&bob.rows);
    let mut rng = ChaCha20Rng::seed_from_u64(2);
    for round in 0..100_000 {
        let (from, frame) = match round % 3 {
            0 => (&a, &coming),
            1 => (&c, &handshake),
            _ => (&a, &frames[rng.next_u32() as usize % frames.len()]),
        };
        let mut payload = frame.frame.clone();
        let mut id = frame.salt;
        match rng.next_u32() % 4 {
            0 => payload.truncate(rng.next_u32() as usize % payload.len()),
            1 => {
                let at = rng.next_u32() as usize % payload.len();
                let from = rng.next_u32() as usize % payload.len();
                if payload[at] == payload[from] {
                    payload[at] ^= 1;
                } else {
                    payload[at] = payload[from];
                }
            }
            2 if rng.next_u32().is_multiple_of(2) => id = Salt::from_bytes([round as u8; 16]),
            _ => {
                let bit = rng.next_u32() as usize % (payload.len() * 8);
                payload[bit / 8] ^= 1 << (bit % 8);
            }
        }
        let envelope = Envelope::new(from.clone(), b.clone(), id, payload).encode();
        assert!(give(&mut bob, &envelope).is_some());
    }
    assert_eq!(changed(&before, &bob.rows), Vec::<u8>::new());
    assert!(bob.tasks().is_empty());
    assert!(bob.hears(&a, &coming) && bob.hears(&c, &handshake));
}

#[test]
fn every_genuine_frame_of_a_long_world_may_come_again_and_changes_nothing() {
    let mut world = World::new(3);
    let mut all = vec![("alice", world.join("alice"))];
    all.extend(
        world
            .join_with_devices("bob", 2)
            .into_iter()
            .map(|who| ("bob", who)),
    );
    all.push(("carol", world.join("carol")));
    world.set_weather(Weather::ROUGH);
    for round in 0..600_u32 {
        let (user, who) = all[world.below(all.len())];
        let to = ["alice", "bob", "carol"][world.below(3)];
        if to != user && round % 2 == 0 {
            world.send(who, to, &round.to_be_bytes());
        }
        world.work(who);
        world.poll(who);
        world.read(who);
    }
    world.settle();
    let frames: Vec<Vec<u8>> = world.envelopes().values().cloned().collect();
    assert!(frames.len() > 150, "{} frames", frames.len());
    let events: Vec<_> = all
        .iter()
        .map(|(_, who)| world.client(*who).events(0).unwrap())
        .collect();
    for (_, who) in &all {
        world.shelf(*who).take_written();
    }
    for _ in 0..2 {
        for envelope in &frames {
            for (_, who) in all.clone() {
                // To whom it was, and to all others.
                let received = world.receive(who, envelope);
                assert!(received.refused().is_some() && received.messages().is_empty());
                assert_eq!(received.transport(), Transport::Forget);
            }
        }
    }
    for ((_, who), events) in all.iter().zip(events) {
        assert!(
            world.shelf(*who).take_written().is_empty(),
            "a replay was written"
        );
        assert_eq!(world.client(*who).events(0).unwrap(), events);
        assert!(world.tasks(*who).is_empty());
    }
}

/// Bob's bundle with prekeys that he does not hold, verified.
fn unknown_bundle(bob: &mut Desk) -> PreKeyBundle {
    let identity = bob.device.identity().clone();
    let rng = &mut bob.rng;
    let id = SignedPreKeyId::new(900).unwrap();
    let signed = SignedPreKeyPair::generate(id, Features::NONE, &identity, rng);
    let one_time = OneTimePreKeyPair::generate(OneTimePreKeyId::new(900).unwrap(), rng);
    let id = KemPreKeyId::new(900).unwrap();
    let kem = KemPreKeyPair::generate(id, KemKind::OneTime, &identity, rng);
    let bundle = UnverifiedPreKeyBundle::new(
        bob.address(),
        *identity.public(),
        signed.public(),
        Some(one_time.public()),
        kem.public(),
        bob.device.own_list(&bob.rows).unwrap(),
    );
    PreKeyBundle::verify(bundle).unwrap()
}

/// A first message of somebody new, as his client would make it.
fn handshake_of_stranger(
    name: &str,
    account: &mut Account,
    to: &DeviceAddress,
    to_list: &DeviceList,
    bundle: &PreKeyBundle,
) -> Vec<u8> {
    let rng = &mut account.rng;
    let from = DeviceAddress::new(user(name), number(70_000));
    let identity = IdentityKeyPair::generate(rng);
    let entry = ListedDevice::new(from.device(), *identity.public(), HOLDER);
    let list = DeviceList::sign(&account.key, from.user(), 1, None, &[entry], rng).unwrap();
    let initiated = initiate(
        &Initiator {
            identity: &identity,
            address: &from,
            features: Features::NONE,
            device_list: list.frame(),
            responder_epoch: to_list.epoch(),
            responder_list: to_list.hash(),
        },
        bundle,
        Mode::Pqxdh,
        rng,
    )
    .unwrap();
    let session = Session::initiate(initiated.secret, &initiated.signed_pre_key, rng).unwrap();
    let content = Content::new([1; 16], 0, Body::Application(b"hi".to_vec()));
    let (_, message) = session
        .encrypt(
            &pad(&content.encode(), Padding::Padme),
            SaltSource::Hedged(rng),
        )
        .unwrap();
    let sid = SessionId::of_handshake(&initiated.handshake);
    let handshake = Some(&initiated.handshake[..]);
    let mut frame = encode_message(handshake, &message.salt, &message.header, &message.body);
    let secret = identity
        .agree(bundle.identity_key().as_public_key())
        .unwrap();
    let origin = OriginKey::derive(
        &secret,
        &id_bytes(identity.public(), &from),
        &id_bytes(bundle.identity_key(), to),
    );
    origin.seal(&mut frame, &message.salt, &sid, message.chain_index);
    Envelope::new(from, to.clone(), message.salt, frame).encode()
}

#[test]
fn ten_thousand_strangers_with_valid_handshakes_to_unknown_prekeys_change_nothing() {
    let (mut alice, mut bob) = friends();
    let (a, b) = (alice.address(), bob.address());
    let list = bob.device.own_list(&bob.rows).unwrap();
    let list = sprag_wire::UnverifiedDeviceList::decode(&list).unwrap();
    let list = DeviceList::verify(list).unwrap();
    let bundle = unknown_bundle(&mut bob);
    let mut accounts = Account::new("crowd", 1, 5);
    let before = photograph(&bob.rows);
    for place in 0..10_000 {
        let name = format!("stranger {place}");
        let envelope = handshake_of_stranger(&name, &mut accounts, &b, &list, &bundle);
        let refused = give(&mut bob, &envelope);
        assert_eq!(refused, Some(ProtocolError::UnknownPreKey));
    }
    assert_eq!(changed(&before, &bob.rows), Vec::<u8>::new());
    assert!(bob.tasks().is_empty());
    let health = bob.device.health(&bob.rows).unwrap();
    assert_eq!(health.refused, [(ProtocolError::UnknownPreKey, 10_000)]);
    assert_eq!(
        (health.strangers, health.heals, health.bundle_fetches),
        (0, 0, 0)
    );
    let word = alice.say(&b, 9);
    assert!(bob.hears(&a, &word));
}

#[test]
fn what_outsiders_can_cause_is_one_fetch_of_a_list_in_an_hour() {
    let (alice, mut bob, _) = old_friends();
    let b = bob.address();
    // Frames of a device that Alice does not have: it might be new, so her list is asked for.
    let ghost = DeviceAddress::new(alice.address().user().clone(), number(80_000));
    let mut rng = ChaCha20Rng::seed_from_u64(6);
    let mut cause = |bob: &mut Desk, count: usize| {
        for _ in 0..count {
            let (salt, payload) = noise(&mut rng, None);
            let envelope = Envelope::new(ghost.clone(), b.clone(), salt, payload).encode();
            assert_eq!(give(bob, &envelope), Some(ProtocolError::UnlistedDevice));
        }
    };
    let before = photograph(&bob.rows);
    cause(&mut bob, 1);
    // The task, its marker, its number and its time.
    assert_eq!(changed(&before, &bob.rows), [0x01, 0x10, 0x50, 0x51]);
    let before = photograph(&bob.rows);
    cause(&mut bob, 10_000);
    assert_eq!(changed(&before, &bob.rows), Vec::<u8>::new());
    let tasks = bob.tasks();
    assert!(
        matches!(&tasks[..], [Task::FetchDevices { user, .. }] if user.as_str() == "alice"),
        "{tasks:?}"
    );
    // The server has no news. The next question is put off until the hour is over, and is one again.
    bob.supply(
        tasks[0].id(),
        &ListReply::new(None, Vec::new(), false).encode(),
    )
    .unwrap();
    cause(&mut bob, 10_000);
    assert!(bob.tasks().is_empty());
    bob.now += 3_600_000;
    assert_eq!(bob.tasks().len(), 1);
}
