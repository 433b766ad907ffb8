//! The numbers of "The protocol", §8 and §10, and what strangers, contacts and servers may cause: at the session layer,
//! where ten thousand rows cost nothing.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "a test fails by panicking"
)]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;
use sprag::{Client, Surroundings};
use sprag_crypto::SessionId;
use sprag_session::hazmat;
use sprag_session::{
    ARCHIVED, ARCHIVED_OF_STRANGER, Device, Env, Failure, MessageId, PENDING_MS, ProtocolError,
    STRANGERS, SealedFrame, SendError, Task, Transport,
};
use sprag_store::{
    BackendError, Batch, Completion, Image, Loaded, MemoryRows, Sink, Staged, Store, StoreKeys,
};
use sprag_tests::desk::{Account, BEGINNING, Desk, desk, first_word, friends, refused, user};
use sprag_wire::relay::{BundleReply, ListReply, PreKeyState};
use sprag_wire::{Body, Content, Envelope, OneTimePreKeyId, UnverifiedPreKeyBundle};
use sprag_x3dh::OneTimePreKeyPair;

#[test]
fn a_thousand_strangers_are_held_and_one_more_evicts_by_the_rule() {
    let mut bob = desk("bob", 1);
    let bundle = bob.bundle(1, None);
    let b = bob.address();
    let mut first = None;
    // 998 users with one device, and one with two.
    for place in 0..STRANGERS - 2 {
        let mut stranger = desk(&format!("stranger {place}"), 1_000 + place as u64);
        let word = first_word(&mut stranger, &b, &bundle);
        bob.now += 1;
        assert!(bob.hears(&stranger.address(), &word));
        first.get_or_insert(stranger);
    }
    let mut crowd = Account::new("crowd", 4, 5);
    let list = crowd.list(1, None, &[0, 1, 2, 3]);
    let mut crowd: Vec<Desk> = (0..4).map(|place| crowd.desk(place, &list)).collect();
    for member in &mut crowd[..2] {
        let word = first_word(member, &b, &bundle);
        bob.now += 1;
        assert!(bob.hears(&member.address(), &word));
    }
    assert_eq!(bob.strangers(), STRANGERS);
    assert!(bob.knows("stranger 0") && !bob.knows("stranger 998"));

    // The crowd has most; of its devices the one read longest ago goes, and not the user.
    let word = first_word(&mut crowd[2], &b, &bundle);
    bob.now += 1;
    assert!(bob.hears(&crowd[2].address(), &word));
    assert_eq!(bob.strangers(), STRANGERS);
    let word = crowd[0].say(&b, 2);
    let word = crowd_kind_2(&mut bob, &crowd[0], &word);
    assert_eq!(
        word,
        Some(ProtocolError::NoSession),
        "ledger and session are gone, its SID is seen"
    );
    for member in [1, 2] {
        let word = crowd[member].say(&b, 2);
        assert!(bob.hears(&crowd[member].address(), &word));
    }

    // 998 singles and two of the crowd: a further single is spared itself, the crowd loses one again.
    let mut single = desk("single", 6);
    let word = first_word(&mut single, &b, &bundle);
    bob.now += 1;
    assert!(bob.hears(&single.address(), &word));
    assert_eq!(bob.strangers(), STRANGERS);
    let word = crowd[2].say(&b, 3);
    assert!(bob.hears(&crowd[2].address(), &word));

    // A thousand singles: the one read longest ago goes, and its user is forgotten with everything.
    let mut oldest = first.unwrap();
    bob.now += 1;
    let word = oldest.say(&b, 2);
    assert!(bob.hears(&oldest.address(), &word));
    let mut last = desk("last", 7);
    let word = first_word(&mut last, &b, &bundle);
    bob.now += 1;
    assert!(bob.hears(&last.address(), &word));
    assert_eq!(bob.strangers(), STRANGERS);
    assert!(bob.knows("stranger 0") && !bob.knows("stranger 1"));

    // The first of two devices of one user goes for the second: the user is not forgotten, and is heard later.
    let mut pair = Account::new("pair", 2, 8);
    let list = pair.list(1, None, &[0, 1]);
    let mut pair: Vec<Desk> = (0..2).map(|place| pair.desk(place, &list)).collect();
    for member in &mut pair {
        let word = first_word(member, &b, &bundle);
        bob.now += 1;
        assert!(bob.hears(&member.address(), &word));
    }
    assert_eq!(bob.strangers(), STRANGERS);
    assert!(bob.knows("pair"));
    let users = bob.device.users(&bob.rows).unwrap().len();
    assert_eq!(users, STRANGERS + 1, "every stranger's user has a record");
}

fn crowd_kind_2(bob: &mut Desk, member: &Desk, word: &SealedFrame) -> Option<ProtocolError> {
    bob.take(&member.address(), word).refused
}

#[test]
fn forgotten_stranger_leaves_no_row() {
    let mut bob = desk("bob", 1);
    let bundle = bob.bundle(1, None);
    let b = bob.address();
    let before = bob.rows_of_others();
    let mut eve = Account::new("eve", 2, 2);
    let list = eve.list(1, None, &[0]);
    let next = eve.list(2, Some(&list), &[1]);
    let mut first = eve.desk(0, &list);
    first.open(&b, &bundle);
    // It unlists itself in what it says: heard once more, and then forgotten.
    let mut content = Content::new([1; 16], 0, Body::Application(b"bye".to_vec()));
    content.set_device_list(Some(next.frame().to_vec()));
    let word = first.seal(&b, &content).unwrap();
    let delivery = bob.take(&first.address(), &word);
    let message = delivery.message.unwrap();
    bob.step(|device, rows, _| device.acknowledge(rows, message.id))
        .unwrap();
    assert!(!bob.knows("eve"));
    let left: Vec<_> = bob
        .rows
        .iter()
        .map(|(name, _)| format!("{name:?}"))
        .collect();
    assert_eq!(bob.rows_of_others(), before, "{left:#?}");
}

#[test]
fn forty_archived_sessions_are_held_and_three_of_a_stranger() {
    for (accepted, limit) in [(true, ARCHIVED), (false, ARCHIVED_OF_STRANGER)] {
        let (mut alice, mut bob) = (desk("alice", 1), desk("bob", 2));
        let bundle = bob.bundle(1, None);
        let (a, b) = (alice.address(), bob.address());
        let mut words = Vec::new();
        for round in 0..limit + 3 {
            let sid = alice.open(&b, &bundle);
            words.push((sid, alice.say(&b, round as u128)));
            assert!(bob.receive(&a, &words[round].1.frame).is_ok());
            if accepted && round == 0 {
                let list = alice.device.own_list(&alice.rows).unwrap();
                bob.step(|device, rows, _| device.learn(rows, &user("alice"), &list, false))
                    .unwrap();
                bob.step(|device, rows, _| device.accept(rows, &user("alice")))
                    .unwrap();
            }
        }
        let peer = bob.peer(&a);
        assert_eq!(peer.archive.len(), limit);
        assert_eq!(
            peer.ledger,
            [
                (words[0].0, true, Vec::new()),
                (words[1].0, true, Vec::new())
            ],
            "closed, in the order they fell off"
        );
        // What fell off is a duplicate, what is held too, and neither changes anything.
        for (_, word) in &words {
            assert_eq!(
                refused(bob.receive(&a, &word.frame)),
                ProtocolError::Duplicate
            );
        }
    }
}

#[test]
fn full_seen_set_takes_only_handshakes_that_use_up_a_one_time_prekey() {
    let mut bob = desk("bob", 1);
    let bundle = bob.bundle(1, None);
    let b = bob.address();
    bob.step(|device, rows, _| device.fill_seen_set(rows, 1, sprag_session::SEEN - 1))
        .unwrap();
    let mut words = Vec::new();
    for seed in 0..2 {
        let mut stranger = desk(&format!("stranger {seed}"), 10 + seed);
        let word = first_word(&mut stranger, &b, &bundle);
        words.push((stranger.address(), word));
    }
    assert!(bob.receive(&words[0].0, &words[0].1.frame).is_ok());
    let error = refused(bob.receive(&words[1].0, &words[1].1.frame));
    assert_eq!(error, ProtocolError::UnknownPreKey);
    assert_eq!(
        hazmat::count(&bob.rows, 0x05).unwrap(),
        sprag_session::SEEN as usize
    );
    // One with a one-time prekey of the same signed prekey needs no place in it.
    let mut stranger = desk("stranger", 20);
    let id = OneTimePreKeyId::new(1).unwrap();
    let pair = OneTimePreKeyPair::generate(id, &mut bob.rng);
    let mut with_one_time = UnverifiedPreKeyBundle::decode(&bundle).unwrap();
    with_one_time.one_time_pre_key = Some(pair.public());
    bob.step(|device, rows, _| device.store_pre_keys(rows, &[], &[pair], &[]))
        .unwrap();
    let word = first_word(&mut stranger, &b, &with_one_time.encode());
    assert!(bob.receive(&stranger.address(), &word.frame).is_ok());
    // Seen under one signed prekey is seen under all; and another signed prekey has room.
    let bundle = bob.bundle(2, None);
    let mut stranger = desk("another", 21);
    let word = first_word(&mut stranger, &b, &bundle);
    assert!(bob.receive(&stranger.address(), &word.frame).is_ok());
}

#[test]
fn pending_handshake_is_sent_on_for_seven_days() {
    let (mut alice, mut bob) = (desk("alice", 1), desk("bob", 2));
    let bundle = bob.bundle(1, None);
    let (a, b) = (alice.address(), bob.address());
    alice.open(&b, &bundle);
    alice.now += PENDING_MS;
    let word = alice.say(&b, 1);
    alice.now += 1;
    let content = Content::new([2; 16], 0, Body::Ack);
    assert_eq!(
        refused(alice.seal(&b, &content)),
        ProtocolError::NeedsBundle
    );
    // A reply, however late, confirms it.
    assert!(bob.receive(&a, &word.frame).is_ok());
    let list = alice.device.own_list(&alice.rows).unwrap();
    bob.step(|device, rows, _| device.learn(rows, &user("alice"), &list, false))
        .unwrap();
    let answer = bob.say(&a, 2);
    assert!(alice.receive(&b, &answer.frame).is_ok());
    assert!(alice.seal(&b, &content).is_ok());
}

#[test]
fn repeat_of_a_message_is_dropped_while_a_thousand_others_came_since() {
    let (mut alice, mut bob) = friends();
    let (a, b) = (alice.address(), bob.address());
    let mut take = |id: u128| {
        let word = alice.say(&b, id);
        let delivery = bob.take(&a, &word);
        assert!(delivery.refused.is_none());
        assert_eq!(delivery.transport, Transport::Forget);
        delivery.message.is_some()
    };
    assert!(take(1_000));
    assert!(!take(1_000));
    for other in 0..1_023 {
        assert!(take(10_000 + other));
    }
    assert!(!take(1_000), "1,024 are remembered");
    assert!(take(20_000));
    assert!(take(1_000), "and not one more");
    let inbox = bob.device.inbox(&bob.rows, 100_000).unwrap();
    let offered = |id: u128| {
        let id = MessageId::from_bytes(id.to_be_bytes());
        inbox
            .iter()
            .filter(|message| message.message_id == id)
            .count()
    };
    assert_eq!(offered(10_000), 1);
    // What is remembered of a device is bounded.
    assert_eq!(hazmat::count(&bob.rows, 0x31).unwrap(), 1_024);
    assert_eq!(hazmat::count(&bob.rows, 0x32).unwrap(), 1_024);
    assert!(hazmat::count(&bob.rows, 0x33).unwrap() <= 1_024);
}

#[test]
fn message_names_at_most_32_frames_and_each_only_once() {
    let (mut alice, mut bob) = friends();
    let (a, b) = (alice.address(), bob.address());
    let mut salts = Vec::new();
    for id in 0..40 {
        let word = alice.say(&b, 100 + id);
        salts.push(word.salt);
        bob.take(&a, &word);
    }
    let mut named = Vec::new();
    for (id, count) in [(1, 32), (2, 8 + 1), (3, 0)] {
        bob.send("alice", id).unwrap();
        let task = bob.tasks().into_iter().find_map(|task| match task {
            Task::Deliver { id, envelope, .. } => Some((id, envelope)),
            _ => None,
        });
        let (task, envelope) = task.unwrap();
        bob.step(|device, rows, _| device.done(rows, task)).unwrap();
        let envelope = Envelope::decode(&envelope).unwrap();
        let received = alice.receive(&b, envelope.payload()).unwrap();
        let content = received.content.unwrap();
        assert_eq!(content.received().len(), count, "message {id}");
        named.extend_from_slice(content.received());
    }
    // (The first frame of their friendship was not named yet either.)
    assert_eq!(named[1..], salts);
}

#[test]
fn receipts_on_a_content_with_a_wrong_body_count() {
    let (mut alice, mut bob) = friends();
    let (a, b) = (alice.address(), bob.address());
    alice.send("bob", 7).unwrap();
    let status = |alice: &Desk| {
        let id = MessageId::from_bytes(7_u128.to_be_bytes());
        format!(
            "{:?}",
            alice.device.status(&alice.rows, id).unwrap().unwrap()[0].1
        )
    };
    let salt = alice.tasks().iter().find_map(|task| match task {
        Task::Deliver { envelope, .. } => Some(*Envelope::decode(envelope).unwrap().id()),
        _ => None,
    });
    // Sync copies come from our own user only.
    let body = Body::sync(vec!["alice".into()], b"no".to_vec());
    let mut content = Content::new([9; 16], 0, body);
    content.set_received(vec![salt.unwrap()]);
    let word = bob.seal(&a, &content).unwrap();
    let delivery = alice.take(&b, &word);
    assert_eq!(delivery.refused, Some(ProtocolError::BadContent));
    assert_eq!(status(&alice), "Received");
}

#[test]
fn silent_contact_does_not_block_what_goes_to_others() {
    let (mut alice, bob) = friends();
    for id in 0..u128::from(sprag_session::OUTBOX) + 10 {
        alice.send("bob", 100 + id).unwrap();
        let tasks = alice.device.tasks(&alice.rows, alice.now, 1).unwrap();
        alice
            .step(|device, rows, _| device.done(rows, tasks[0].id()))
            .unwrap();
    }
    // Beyond a thousand for one device, what was handed over is not kept any longer.
    let kept = hazmat::count(&alice.rows, 0x44).unwrap();
    assert!(kept <= 1_001, "{kept}");
    drop(bob);
}

#[test]
fn outbox_takes_ten_thousand_messages_that_nobody_fetched() {
    let mut alice = desk("alice", 1);
    for id in 0..u128::from(sprag_session::OUTBOX) {
        alice.send("bob", id).unwrap();
    }
    assert!(matches!(
        alice.send("bob", 1 << 100),
        Err(SendError::OutboxFull)
    ));
    // The same id again is no further message.
    alice.send("bob", 5).unwrap();
    let fetch = alice.fetch();
    alice.failed(fetch, &Failure::NoSuchUser);
    alice.send("bob", 1 << 100).unwrap();
}

#[test]
fn debug_of_what_was_received_tells_nothing() {
    let (mut alice, mut bob) = friends();
    let (a, b) = (alice.address(), bob.address());
    let content = Content::new([9; 16], 0, Body::Application(b"PLAINTEXT".to_vec()));
    let word = alice.seal(&b, &content).unwrap();
    let received = bob.receive(&a, &word.frame).unwrap();
    let shown = format!("{received:?}");
    let bytes = format!("{:?}", b"PLAINTEXT");
    assert!(
        !shown.contains("PLAINTEXT") && !shown.contains(bytes.trim_matches(['[', ']'])),
        "{shown}"
    );
}

#[test]
fn server_that_repeats_itself_makes_no_tasks() {
    let mut alice = desk("alice", 1);
    let mut bobs = Account::new("bob", 2, 2);
    let list = bobs.list(1, None, &[0, 1]);
    alice.send("bob", 1).unwrap();
    let missing = vec![70_000; 5];
    let reply = BundleReply::new(Vec::new(), missing, list.frame().to_vec()).encode();
    for _ in 0..5 {
        for task in alice.tasks() {
            let _ = alice.supply(task.id(), &reply);
        }
        alice.now += 60_001;
    }
    assert_eq!(alice.tasks().len(), 2, "one for each device");
    // More than there can be is no reply at all.
    let reply = BundleReply::new(Vec::new(), vec![70_000; 33], Vec::new()).encode();
    let fetch = alice.fetch();
    assert_eq!(alice.supply(fetch, &reply), Err(ProtocolError::Malformed));
    let reply = BundleReply::new(vec![Vec::new(); 33], Vec::new(), Vec::new()).encode();
    assert_eq!(alice.supply(fetch, &reply), Err(ProtocolError::Malformed));
}

#[test]
fn server_that_never_has_enough_prekeys_gets_them_at_a_measured_pace() {
    let mut rng = ChaCha20Rng::seed_from_u64(1);
    let mut rows = MemoryRows::new();
    let mut staged = Staged::new(&rows);
    let mut env = Env::new(BEGINNING, &mut rng);
    let device = Device::create(&mut staged, &mut env, &user("alice")).unwrap();
    let changes = staged.into_changes();
    rows.apply(changes);
    let mut alice = Desk {
        device,
        rows,
        rng,
        now: BEGINNING,
    };
    // A server that keeps nothing, and one that says so under a new epoch each time.
    for epoch in 0..40 {
        let state = PreKeyState::new([epoch; 16].to_vec(), 1, vec![0; 32], 0, 0, vec![]);
        for task in alice.tasks() {
            let _ = alice.supply(task.id(), &state.encode());
            alice
                .step(|device, rows, _| device.done(rows, task.id()))
                .unwrap();
        }
        alice.now += 60_000;
        let _ = alice.step(|device, rows, env| device.server_state(rows, env, &state.encode()));
    }
    let held = hazmat::count(&alice.rows, 0x02).unwrap();
    assert!(held <= 400, "{held} in forty minutes");
}

#[test]
fn device_that_a_list_leaves_out_gets_nothing_that_waited_for_it() {
    let mut alice = desk("alice", 1);
    let mut bobs = Account::new("bob", 2, 2);
    let list = bobs.list(1, None, &[0, 1]);
    alice.send("bob", 1).unwrap();
    // Nobody has published prekeys: both copies wait, and there is no record.
    let reply = BundleReply::new(Vec::new(), vec![70_000, 70_001], list.frame().to_vec());
    let fetch = alice.fetch();
    alice.supply(fetch, &reply.encode()).unwrap();
    let next = bobs.list(2, Some(&list), &[0]);
    alice
        .step(|device, rows, _| device.learn(rows, &user("bob"), next.frame(), false))
        .unwrap();
    let id = MessageId::from_bytes(1_u128.to_be_bytes());
    let status = alice.device.status(&alice.rows, id).unwrap().unwrap();
    let status: Vec<_> = status
        .iter()
        .map(|(_, status)| format!("{status:?}"))
        .collect();
    assert_eq!(status, ["Waiting", "NoSuchDevice"]);
}

#[test]
fn failure_that_brings_the_list_of_somebody_else_teaches_nothing() {
    let mut alice = desk("alice", 1);
    alice.send("bob", 1).unwrap();
    let mut eve = Account::new("eve", 1, 3);
    let list = eve.list(1, None, &[0]);
    let fetch = alice.fetch();
    alice.failed(fetch, &Failure::NoSuchDevice(Some(list.frame().to_vec())));
    assert!(!alice.knows("eve"));
    assert!(
        alice.events()[0].contains("ReplyRefused"),
        "{:?}",
        alice.events()
    );
}

#[test]
fn changed_identity_is_shown_only_if_it_can_be_accepted_and_while_the_server_says_so() {
    let (mut alice, bob) = friends();
    let b = user("bob");
    let real = bob.device.own_list(&bob.rows).unwrap();
    let mut imposter = Account::new("bob", 1, 9);
    let list = imposter.list(1, None, &[0]);
    let ask = |alice: &mut Desk, frame: &[u8]| {
        // A message of a device that is not listed makes alice ask.
        alice.now += 3_600_000;
        let mut other = Account::new("bob", 1, 10);
        let others = other.list(1, None, &[0]);
        let mut other = other.desk(0, &others);
        let bundle = alice.bundle(50, None);
        let a = alice.address();
        let word = first_word(&mut other, &a, &bundle);
        let refused = alice.take(&other.address(), &word).refused;
        assert_eq!(refused, Some(ProtocolError::UntrustedIdentity));
        let fetch = alice.tasks().iter().find_map(|task| match task {
            Task::FetchDevices { id, .. } => Some(*id),
            _ => None,
        });
        let reply = ListReply::new(None, vec![frame.to_vec()], false).encode();
        alice.supply(fetch.unwrap(), &reply)
    };
    let changed = |alice: &Desk| {
        alice
            .device
            .contact(&alice.rows, &b)
            .unwrap()
            .unwrap()
            .changed
    };
    // A list that its own account key did not sign is none.
    let mut forged = list.frame().to_vec();
    *forged.last_mut().unwrap() ^= 1;
    assert_eq!(ask(&mut alice, &forged), Err(ProtocolError::BadSignature));
    assert!(!changed(&alice));
    assert!(
        !alice
            .events()
            .iter()
            .any(|event| event.contains("IdentityChanged"))
    );
    assert_eq!(ask(&mut alice, list.frame()), Ok(()));
    assert!(changed(&alice));
    // The server takes it back: there is nothing to decide any more.
    assert_eq!(ask(&mut alice, &real), Ok(()));
    assert!(!changed(&alice));
}

#[test]
fn bundle_with_a_list_of_another_account_key_is_shown_as_a_changed_identity() {
    let (mut alice, mut bob) = friends();
    let b = bob.address();
    // The session cannot be sent on any more.
    alice
        .step(|device, rows, _| device.forget_sessions(rows, &b))
        .unwrap();
    alice.send("bob", 77).unwrap();
    let mut imposter = Account::new("bob", 1, 9);
    let list = imposter.list(1, None, &[0]);
    let mut bundle = UnverifiedPreKeyBundle::decode(&bob.bundle(5, None)).unwrap();
    bundle.device_list = list.frame().to_vec();
    let reply = BundleReply::new(vec![bundle.encode()], Vec::new(), Vec::new()).encode();
    let fetch = alice.fetch();
    assert_eq!(
        alice.supply(fetch, &reply),
        Err(ProtocolError::UntrustedIdentity)
    );
    let contact = alice
        .device
        .contact(&alice.rows, &user("bob"))
        .unwrap()
        .unwrap();
    assert!(contact.changed);
    assert!(
        alice
            .events()
            .iter()
            .any(|event| event.contains("IdentityChanged"))
    );
}

#[test]
fn list_that_only_a_stranger_showed_is_not_named_as_known() {
    let (mut alice, mut bob) = (desk("alice", 1), desk("bob", 2));
    let bundle = bob.bundle(1, None);
    let (a, b) = (alice.address(), bob.address());
    let word = first_word(&mut alice, &b, &bundle);
    bob.take(&a, &word);
    bob.send("alice", 1).unwrap();
    let query = bob.tasks().into_iter().find_map(|task| match task {
        Task::FetchBundles { query, .. } => Some(query),
        _ => None,
    });
    let query = sprag_wire::relay::BundleQuery::decode(&query.unwrap()).unwrap();
    assert!(
        query.known.is_empty(),
        "the server might answer nothing, and alice be never confirmed"
    );
}

#[test]
fn refused_list_in_a_content_makes_us_ask_the_server() {
    let mut alice = desk("alice", 1);
    let mut bobs = Account::new("bob", 2, 2);
    let first = bobs.list(1, None, &[0]);
    let second = bobs.list(2, Some(&first), &[0, 1]);
    let mut bob = bobs.desk(0, &second);
    let bundle = bob.bundle(1, None);
    let (a, b) = (alice.address(), bob.address());
    let word = first_word(&mut alice, &b, &bundle);
    bob.take(&a, &word);
    let list = alice.device.own_list(&alice.rows).unwrap();
    bob.step(|device, rows, _| device.learn(rows, &user("alice"), &list, false))
        .unwrap();
    let fork = bobs.list(2, Some(&first), &[1]);
    let mut content = Content::new([9; 16], 0, Body::Application(b"hi".to_vec()));
    content.set_device_list(Some(fork.frame().to_vec()));
    let word = bob.seal(&a, &content).unwrap();
    let delivery = alice.take(&b, &word);
    assert!(delivery.message.is_some() && delivery.refused.is_none());
    assert!(
        alice
            .tasks()
            .iter()
            .any(|task| matches!(task, Task::FetchDevices { .. }))
    );
}

#[test]
fn frame_replayed_again_and_again_pushes_out_no_events() {
    let (mut alice, mut bob) = friends();
    let mut imposter = Account::new("bob", 1, 9);
    let list = imposter.list(1, None, &[0]);
    alice.send("bob", 3).unwrap();
    let task = alice.tasks()[0].id();
    alice.failed(task, &Failure::NoSuchDevice(Some(list.frame().to_vec())));
    let (a, b) = (alice.address(), bob.address());
    alice
        .step(|device, rows, _| device.forget_sessions(rows, &b))
        .unwrap();
    let word = bob.say(&a, 5);
    for _ in 0..1_100 {
        assert_eq!(
            alice.take(&b, &word).refused,
            Some(ProtocolError::NoSession)
        );
    }
    assert_eq!(alice.events().len(), 3, "{:?}", alice.events());
    assert!(
        alice
            .events()
            .iter()
            .any(|event| event.contains("IdentityChanged"))
    );
}

#[test]
fn largest_rows_fit() {
    let name = "n".repeat(255);
    let mut many = Account::new(&name, 32, 1);
    let all: Vec<usize> = (0..32).collect();
    let mut bob = desk("bob", 2);
    let bundle = bob.bundle(1, Some(u32::MAX));
    let b = bob.address();
    // 40 epochs of history, 32 of them remembered.
    let mut list = many.list(1, None, &all);
    for epoch in 2..=40 {
        bob.step(|device, rows, _| device.learn(rows, &user(&name), list.frame(), false))
            .unwrap();
        list = many.list(epoch, Some(&list), &all);
    }
    bob.step(|device, rows, _| device.learn(rows, &user(&name), list.frame(), false))
        .unwrap();
    bob.step(|device, rows, _| device.accept(rows, &user(&name)))
        .unwrap();
    // A handshake with the largest list, 41 sessions and a full ledger; `step` checks every row.
    let mut member = many.desk(31, &list);
    let from = member.address();
    for round in 0..ARCHIVED + sprag_session::LEDGER + 5 {
        let bundle = if round == 0 {
            bundle.clone()
        } else {
            bob_bundle(&bundle)
        };
        member.open(&b, &bundle);
        let word = member.say(&b, round as u128);
        bob.receive(&from, &word.frame).unwrap();
    }
    assert_eq!(bob.peer(&from).archive.len(), ARCHIVED);
    assert_eq!(bob.peer(&from).ledger.len(), sprag_session::LEDGER);
    let reset: Vec<SessionId> = (0..41).map(|n| SessionId::from_bytes([n; 16])).collect();
    let mut content = Content::new([9; 16], 0, Body::Ack);
    content.set_reset(reset);
    let word = member.seal(&b, &content).unwrap();
    bob.receive(&from, &word.frame).unwrap();
    let largest = bob.rows.iter().map(|(_, value)| value.len()).max().unwrap();
    let theirs = member
        .rows
        .iter()
        .map(|(_, value)| value.len())
        .max()
        .unwrap();
    assert!(largest <= 3_900 && theirs <= 3_900, "{largest}, {theirs}");
}

/// The bundle without its one-time prekey, which is used up.
fn bob_bundle(bundle: &[u8]) -> Vec<u8> {
    let mut bundle = UnverifiedPreKeyBundle::decode(bundle).unwrap();
    bundle.one_time_pre_key = None;
    bundle.encode()
}

#[test]
fn strangers_do_not_fill_the_inbox() {
    let (mut alice, mut bob) = friends();
    // What alice said before she was accepted is read.
    let inbox = bob.device.inbox(&bob.rows, 10).unwrap();
    for message in inbox {
        bob.step(|device, rows, _| device.acknowledge(rows, message.id))
            .unwrap();
    }
    let bundle = bob.bundle(2, None);
    let (a, b) = (alice.address(), bob.address());
    let mut eve = desk("eve", 3);
    eve.open(&b, &bundle);
    let mut id = 0;
    while id < sprag_session::INBOX_OF_STRANGERS {
        id += 1;
        let word = eve.say(&b, id.into());
        assert!(bob.take(&eve.address(), &word).message.is_some());
    }
    let late = eve.say(&b, 5_000);
    let delivery = bob.take(&eve.address(), &late);
    assert_eq!(delivery.transport, Transport::Keep);
    assert!(delivery.message.is_none() && delivery.refused.is_none());
    let word = alice.say(&b, 7);
    assert!(bob.take(&a, &word).message.is_some());
    // Reading one of hers makes room for another.
    let inbox = bob.device.inbox(&bob.rows, 10).unwrap();
    let first = inbox.iter().find(|message| !message.accepted).unwrap().id;
    bob.step(|device, rows, _| device.acknowledge(rows, first))
        .unwrap();
    assert!(bob.take(&eve.address(), &late).message.is_some());
}

#[test]
fn pages_of_inbox_and_tasks_are_bounded_in_bytes() {
    let (mut alice, mut bob) = friends();
    let a = alice.address();
    let large = vec![7; 900_000];
    for id in 100..140_u128 {
        let id = MessageId::from_bytes(id.to_be_bytes());
        alice
            .step(|device, rows, env| device.send(rows, env, &user("bob"), &large, id))
            .unwrap();
    }
    let mut offered = 0;
    loop {
        let tasks = alice.device.tasks(&alice.rows, alice.now, 256).unwrap();
        assert!(tasks.len() < 25);
        if tasks.is_empty() {
            break;
        }
        for task in tasks {
            let Task::Deliver { id, envelope, .. } = task else {
                panic!("only deliveries");
            };
            let envelope = Envelope::decode(&envelope).unwrap();
            let payload = envelope.payload().to_vec();
            let envelope = Envelope::new(a.clone(), bob.address(), *envelope.id(), payload);
            let envelope = envelope.encode();
            bob.step(|device, rows, env| device.take_envelope(rows, env, &envelope))
                .unwrap();
            alice.step(|device, rows, _| device.done(rows, id)).unwrap();
            offered += 1;
        }
    }
    assert_eq!(offered, 40);
    let mut read = 0;
    loop {
        let inbox = bob.device.inbox(&bob.rows, 256).unwrap();
        assert!(inbox.len() < 25);
        if inbox.is_empty() {
            break;
        }
        for message in inbox {
            read += usize::from(message.application == large);
            bob.step(|device, rows, _| device.acknowledge(rows, message.id))
                .unwrap();
        }
    }
    assert_eq!(read, 40);
}

/// A medium that takes its time to let go.
struct SlowToClose(Arc<Mutex<()>>);

impl Sink for SlowToClose {
    fn load(&self) -> Result<Loaded, BackendError> {
        Ok(Loaded::default())
    }

    fn append(&self, batch: Batch, done: Completion) {
        done(Ok(batch.sequence()));
    }

    fn close(&self) -> Result<(), BackendError> {
        drop(self.0.lock());
        Ok(())
    }
}

#[test]
fn second_close_waits_for_the_first() {
    let gate = Arc::new(Mutex::new(()));
    let mut rng = ChaCha20Rng::seed_from_u64(1);
    let keys = StoreKeys::generate(&mut rng);
    let image = Image::load(SlowToClose(gate.clone())).unwrap();
    let store = Store::create_over(image, &keys, rng).unwrap();
    let client = Client::with_store(store, "alice", Surroundings::default()).unwrap();
    let held = gate.lock().unwrap();
    let close = |client: Client| std::thread::spawn(move || client.close());
    let first = close(client.clone());
    std::thread::sleep(Duration::from_millis(50));
    let second = close(client);
    std::thread::sleep(Duration::from_millis(50));
    let early = [first.is_finished(), second.is_finished()];
    drop(held);
    first.join().unwrap().unwrap();
    second.join().unwrap().unwrap();
    assert_eq!(early, [false, false]);
}
