//! Conversations in a simulated world: first contact, trouble on the way, several devices, hostile servers.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test fails by panicking"
)]

use std::collections::BTreeSet;

use sprag::{CopyStatus, Event, Failure, Task, Transport};
use sprag_tests::world::{Weather, Who, World};
use sprag_wire::relay::{BundleQuery, BundleReply, ListQuery, ListReply, Lists};
use sprag_wire::{DeviceAddress, Envelope, UserId};

fn said(from: &str, text: &str) -> (String, Vec<u8>) {
    (from.to_owned(), text.as_bytes().to_vec())
}

fn pair(seed: u64) -> (World, Who, Who) {
    let mut world = World::new(seed);
    let (alice, bob) = (world.join("alice"), world.join("bob"));
    (world, alice, bob)
}

/// Both have answered each other.
fn friends(seed: u64) -> (World, Who, Who) {
    let (mut world, alice, bob) = pair(seed);
    world.send(alice, "bob", b"hello");
    world.settle();
    world.send(bob, "alice", b"hello yourself");
    world.settle();
    (world, alice, bob)
}

/// The envelope that a message became, not handed over yet.
fn envelope(world: &mut World, who: Who) -> Vec<u8> {
    let tasks = world.tasks(who);
    let found = tasks.iter().find_map(|task| match task {
        Task::Deliver { envelope, .. } => Some((task.id(), envelope.clone())),
        _ => None,
    });
    let (id, envelope) = found.unwrap();
    world.client(who).done(id).unwrap();
    envelope
}

fn codes(world: &World, who: Who) -> Vec<String> {
    let events = world.client(who).events(0).unwrap();
    events
        .iter()
        .map(|event| format!("{:?}", event.event))
        .collect()
}

#[test]
fn same_seed_gives_the_same_world() {
    let run = |seed| {
        let (mut world, alice, bob) = pair(seed);
        world.set_weather(Weather::ROUGH);
        for round in 0..20_u8 {
            world.send(alice, "bob", &[round]);
            world.work(alice);
            world.poll(bob);
            if round % 7 == 3 {
                world.crash(bob);
                world.restart(alice);
            }
        }
        world.settle();
        world.trace().to_vec()
    };
    assert_eq!(run(1), run(1));
    assert_ne!(run(1), run(2));
}

#[test]
fn first_contact_needs_a_bundle_and_then_arrives() {
    let mut world = World::new(1);
    let (alice, bob) = (world.join("alice"), world.join("bob"));
    let id = world.send(alice, "bob", b"hello");
    let tasks = world.tasks(alice);
    assert!(matches!(&tasks[..], [Task::FetchBundles { user, .. }] if user.as_str() == "bob"));
    let statuses = world.client(alice).status(id).unwrap().unwrap();
    assert_eq!(statuses[0].to, "bob");
    assert_eq!(statuses[0].status, CopyStatus::Waiting);
    world.settle();
    assert_eq!(world.heard(bob), [said("alice", "hello")]);
}

#[test]
fn message_to_an_unknown_user_ends_and_says_so() {
    let mut world = World::new(1);
    let alice = world.join("alice");
    let id = world.send(alice, "nobody", b"hello");
    world.settle();
    let statuses = world.client(alice).status(id).unwrap().unwrap();
    assert_eq!(statuses[0].status, CopyStatus::NoSuchUser);
    // Somebody may take the name later: a new message asks again.
    let nobody = world.join("nobody");
    world.send(alice, "nobody", b"hello again");
    world.settle();
    assert_eq!(world.heard(nobody), [said("alice", "hello again")]);
}

#[test]
fn receipt_rides_on_the_answer() {
    let (mut world, alice, bob) = pair(1);
    let id = world.send(alice, "bob", b"hello");
    world.settle();
    let status = |world: &World| world.client(alice).status(id).unwrap().unwrap()[0].status;
    assert_eq!(status(&world), CopyStatus::HandedOver);
    world.send(bob, "alice", b"yes?");
    world.settle();
    assert_eq!(status(&world), CopyStatus::Received);
}

#[test]
fn simultaneous_initiation_loses_nothing_and_ends_on_one_session() {
    for seed in 0..10 {
        let (mut world, alice, bob) = pair(seed);
        for _ in 0..3 {
            world.send(alice, "bob", b"from alice");
            world.send(bob, "alice", b"from bob");
            world.work(alice);
            world.work(bob);
        }
        world.settle();
        assert_eq!(world.heard(bob), vec![said("alice", "from alice"); 3]);
        assert_eq!(world.heard(alice), vec![said("bob", "from bob"); 3]);
        for _ in 0..3 {
            world.send(alice, "bob", b"later");
            world.settle();
            world.send(bob, "alice", b"later");
            world.settle();
        }
        assert_eq!(world.heard(bob).len(), 6);
        assert_eq!(world.heard(alice).len(), 6);
        // No handshake rides any more.
        world.send(alice, "bob", b"short");
        let bytes = envelope(&mut world, alice);
        assert!(bytes.len() < 600, "{} bytes", bytes.len());
    }
}

#[test]
fn rough_weather_loses_repeats_and_changes_nothing() {
    for seed in 0..5 {
        let (mut world, alice, bob) = pair(seed);
        world.set_weather(Weather::ROUGH);
        let mut expected: [BTreeSet<Vec<u8>>; 2] = Default::default();
        for round in 0..60_u32 {
            let who = world.below(2);
            let text = round.to_be_bytes();
            match who {
                0 => world.send(alice, "bob", &text),
                _ => world.send(bob, "alice", &text),
            };
            expected[who].insert(text.to_vec());
            match world.below(6) {
                0 => world.crash(bob),
                1 => world.restart(alice),
                _ => {}
            }
            for device in [alice, bob] {
                world.work(device);
                world.poll(device);
                world.read(device);
            }
        }
        world.settle();
        for (device, expected) in [(bob, &expected[0]), (alice, &expected[1])] {
            let heard: Vec<_> = world
                .heard(device)
                .into_iter()
                .map(|(_, text)| text)
                .collect();
            let set: BTreeSet<_> = heard.iter().cloned().collect();
            assert_eq!(heard.len(), set.len(), "seed {seed}: something came twice");
            assert_eq!(set, *expected, "seed {seed}");
        }
    }
}

#[test]
fn messages_that_come_out_of_order_are_all_read() {
    let (mut world, alice, bob) = friends(1);
    let mut envelopes: Vec<_> = (0..50_u8)
        .map(|n| {
            world.send(alice, "bob", &[n]);
            envelope(&mut world, alice)
        })
        .collect();
    envelopes.reverse();
    for bytes in &envelopes {
        assert!(world.receive(bob, bytes).refused().is_none());
    }
    world.read(bob);
    let heard: Vec<_> = world
        .heard(bob)
        .iter()
        .skip(1)
        .map(|(_, text)| text[0])
        .collect();
    assert_eq!(heard, (0..50).rev().collect::<Vec<_>>());
}

#[test]
fn lost_messages_do_not_stop_those_after_them() {
    let (mut world, alice, bob) = friends(1);
    for n in 0..50_u8 {
        world.send(alice, "bob", &[n]);
        let bytes = envelope(&mut world, alice);
        if n % 10 == 9 {
            assert!(world.receive(bob, &bytes).refused().is_none());
        }
    }
    world.read(bob);
    assert_eq!(world.heard(bob).len(), 1 + 5);
    // The other direction, and the next turn, work as well.
    world.send(bob, "alice", b"go on");
    world.settle();
    world.send(alice, "bob", b"gladly");
    world.settle();
    assert_eq!(world.heard(bob).last(), Some(&said("alice", "gladly")));
}

#[test]
fn replayed_envelope_is_a_duplicate_that_may_be_forgotten() {
    let (mut world, alice, bob) = pair(1);
    world.send(alice, "bob", b"once");
    world.work(alice);
    let first = world.waiting(bob)[0].1.clone();
    world.settle();
    for _ in 0..3 {
        let received = world.receive(bob, &first);
        assert_eq!(received.refused().unwrap().code(), "duplicate");
        assert_eq!(received.transport(), Transport::Forget);
        assert!(received.messages().is_empty());
        world.restart(bob);
    }
    assert_eq!(world.heard(bob).len(), 1);
}

#[test]
fn corrupted_envelope_changes_nothing_wherever_the_bit_is() {
    let (mut world, alice, bob) = friends(1);
    world.send(alice, "bob", b"intact");
    let good = envelope(&mut world, alice);
    world.shelf(bob).take_written();
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 1 << world.below(8);
        let received = world.receive(bob, &bad);
        let code = received.refused().unwrap().code();
        let silent = [
            "malformed",
            "unsupported_version",
            "bad_origin",
            "unknown_peer",
            "unlisted_device",
        ];
        assert!(silent.contains(&code), "{code} for byte {at}");
        assert!(received.messages().is_empty());
    }
    for length in 0..good.len() {
        let received = world.receive(bob, &good[..length]);
        assert_eq!(received.refused().unwrap().code(), "malformed");
    }
    // Only the answer to "who is that device", if anything, was written.
    assert!(world.shelf(bob).take_written().len() <= 1);
    assert!(world.receive(bob, &good).refused().is_none());
}

#[test]
fn envelope_for_another_device_is_refused() {
    let (mut world, alice, _) = friends(1);
    let carol = world.join("carol");
    world.send(alice, "bob", b"not for carol");
    let bytes = envelope(&mut world, alice);
    let received = world.receive(carol, &bytes);
    assert_eq!(received.refused().unwrap().code(), "malformed");
    // The same, readdressed: the origin seal names the receiver.
    let parsed = Envelope::decode(&bytes).unwrap();
    let address = world.address(carol).clone();
    let moved = Envelope::new(
        parsed.from().clone(),
        address,
        *parsed.id(),
        parsed.payload().to_vec(),
    );
    let received = world.receive(carol, &moved.encode());
    assert_eq!(received.refused().unwrap().code(), "unknown_peer");
    world.read(carol);
    assert!(world.heard(carol).is_empty());
}

#[test]
fn message_reaches_every_listed_device_once() {
    let mut world = World::new(1);
    let alice = world.join("alice");
    let bobs = world.join_with_devices("bob", 3);
    let id = world.send(alice, "bob", b"to all of you");
    world.work(alice);
    let statuses = world.client(alice).status(id).unwrap().unwrap();
    assert_eq!(statuses.len(), 3);
    // Nothing is encrypted twice for one device.
    let to: Vec<DeviceAddress> = world
        .envelopes()
        .values()
        .map(|bytes| Envelope::decode(bytes).unwrap())
        .filter(|envelope| envelope.from().user().as_str() == "alice")
        .map(|envelope| envelope.to().clone())
        .collect();
    assert_eq!(to.len(), 3);
    assert_eq!(to.iter().collect::<BTreeSet<_>>().len(), 3);
    world.settle();
    for bob in &bobs {
        assert_eq!(world.heard(*bob), [said("alice", "to all of you")]);
    }
    // One of them answers; the others' receipts are their own.
    world.send(bobs[1], "alice", b"got it");
    world.settle();
    assert_eq!(world.heard(alice), [said("bob", "got it")]);
    let statuses = world.client(alice).status(id).unwrap().unwrap();
    let received = |status: &&sprag::Status| status.status == CopyStatus::Received;
    assert_eq!(statuses.iter().filter(received).count(), 1);
}

#[test]
fn device_without_session_does_not_keep_the_others_waiting() {
    let mut world = World::new(1);
    let alice = world.join("alice");
    let bobs = world.join_with_devices("bob", 3);
    // Only the last device wrote to Alice, and was answered with a list that names all.
    world.send(bobs[2], "alice", b"hello");
    world.settle();
    let id = world.send(alice, "bob", b"to all");
    world.settle();
    let statuses = world.client(alice).status(id).unwrap().unwrap();
    assert_eq!(statuses.len(), 3);
    for bob in &bobs {
        // The two that did not write themselves got a copy of what the third wrote.
        let heard = world.heard(*bob);
        assert_eq!(heard.last(), Some(&said("alice", "to all")));
        let copies = heard.iter().filter(|heard| **heard == said("bob", "hello"));
        assert_eq!(copies.count(), usize::from(*bob != bobs[2]));
    }
}

#[test]
fn two_devices_of_one_user_initiate_at_the_same_time_as_their_peer() {
    for seed in 0..5 {
        let mut world = World::new(seed);
        let alice = world.join("alice");
        let bobs = world.join_with_devices("bob", 2);
        world.set_weather(Weather::ROUGH);
        for (n, who) in [
            (0_u8, alice),
            (1, bobs[0]),
            (2, bobs[1]),
            (3, alice),
            (4, bobs[0]),
        ] {
            let to = if who == alice { "bob" } else { "alice" };
            world.send(who, to, &[n]);
            world.work(who);
            world.poll(alice);
        }
        world.settle();
        // With a copy of what the other device sent.
        for (bob, copies) in [(bobs[0], vec![2]), (bobs[1], vec![1, 4])] {
            let heard: BTreeSet<_> = world.heard(bob).into_iter().map(|(_, text)| text).collect();
            let sent = [0, 3].into_iter().chain(copies);
            assert_eq!(heard, sent.map(|n| vec![n]).collect(), "seed {seed}");
        }
        let heard: BTreeSet<_> = world
            .heard(alice)
            .into_iter()
            .map(|(_, text)| text)
            .collect();
        assert_eq!(
            heard,
            BTreeSet::from([vec![1], vec![2], vec![4]]),
            "seed {seed}"
        );
    }
}

/// The frame of a device's newest list.
fn list_of(world: &World, who: Who) -> Vec<u8> {
    let contact = world.address(who).user().as_str().to_owned();
    let query = ListQuery::new(contact, 0, Vec::new()).encode();
    let reply = world.server().lists(&query).unwrap();
    ListReply::decode(&reply).unwrap().frames.remove(0)
}

/// Bob loses his account and begins a new one, to which the operator gives his name.
fn begin_anew(world: &mut World) -> Who {
    let new_bob = world.join_offline("bob");
    let tasks = world.tasks(new_bob);
    let publish = |task: &&Task| matches!(task, Task::PublishDevices { .. });
    let Some(Task::PublishDevices { id, lists, .. }) = tasks.iter().find(publish) else {
        panic!("{tasks:?}");
    };
    assert!(world.server().publish_lists(lists).is_err());
    let list = Lists::decode(lists).unwrap().frames.remove(0);
    let bob = UserId::new("bob").unwrap();
    world.server().replace_account(&bob, &list).unwrap();
    world.client(new_bob).done(*id).unwrap();
    world.work(new_bob);
    new_bob
}

#[test]
fn new_account_of_a_contact_is_an_event_and_its_message_waits_until_accepted() {
    let (mut world, alice, bob) = friends(1);
    let number = world.client(alice).safety_number("bob").unwrap().unwrap();
    let new_bob = begin_anew(&mut world);
    world.send(new_bob, "alice", b"I lost my phone");
    world.work(new_bob);

    // The frame alone proves nothing: the library keeps it, and the list is asked for, once.
    let (id, envelope) = world.waiting(alice).remove(0);
    for _ in 0..3 {
        let received = world.receive(alice, &envelope);
        assert_eq!(received.refused().unwrap().code(), "untrusted_identity");
        assert_eq!(received.transport(), Transport::Forget);
        assert!(received.messages().is_empty());
    }
    world.forget(alice, &id);
    assert_eq!(world.client(alice).health().unwrap().kept_frames, 1);
    assert!(codes(&world, alice).is_empty());
    let tasks = world.tasks(alice);
    assert!(
        matches!(&tasks[..], [Task::FetchDevices { user, .. }] if user.as_str() == "bob"),
        "{tasks:?}"
    );
    world.work(alice);
    let events = world.client(alice).events(0).unwrap();
    let changed = |event: &sprag::NumberedEvent| matches!(&event.event, Event::IdentityChanged { user, .. } if user.as_str() == "bob");
    assert_eq!(events.iter().filter(|event| changed(event)).count(), 1);

    // Nothing goes on before the user decides, whatever is restarted.
    world.restart(alice);
    world.settle();
    assert_eq!(world.client(alice).health().unwrap().kept_frames, 1);
    assert!(world.client(alice).contact("bob").unwrap().unwrap().changed);
    assert_eq!(
        world.client(alice).safety_number("bob").unwrap().unwrap(),
        number
    );

    world.client(alice).accept("bob").unwrap();
    world.settle();
    assert_eq!(
        world.heard(alice).last(),
        Some(&said("bob", "I lost my phone"))
    );
    assert_ne!(
        world.client(alice).safety_number("bob").unwrap().unwrap(),
        number
    );
    world.send(alice, "bob", b"poor you");
    world.settle();
    assert_eq!(world.heard(new_bob), [said("alice", "poor you")]);
    assert!(!world.heard(bob).contains(&said("alice", "poor you")));
    let new = world
        .client(new_bob)
        .safety_number("alice")
        .unwrap()
        .unwrap();
    assert_eq!(
        world
            .client(alice)
            .safety_number("bob")
            .unwrap()
            .unwrap()
            .digits,
        new.digits
    );
}

#[test]
fn hostile_lists_are_refused_and_decide_nothing() {
    let (mut world, alice, bob) = friends(1);
    let carol = world.join("carol");
    let old = list_of(&world, bob);
    let new_bob = begin_anew(&mut world);
    world.send(new_bob, "alice", b"me");
    world.work(new_bob);
    world.poll(alice);
    let tasks = world.tasks(alice);
    let [Task::FetchDevices { id, .. }] = &tasks[..] else {
        panic!("{tasks:?}");
    };
    let reply = |frames: Vec<Vec<u8>>| ListReply::new(None, frames, false).encode();
    let mut unsigned = list_of(&world, new_bob);
    *unsigned.last_mut().unwrap() ^= 1;
    let mut trailing = list_of(&world, new_bob);
    trailing.push(0);
    let hostile = [
        (reply(vec![list_of(&world, carol)]), "malformed"),
        (reply(vec![list_of(&world, alice)]), "malformed"),
        (reply(vec![Vec::new()]), "malformed"),
        (reply(vec![trailing]), "malformed"),
        (reply(vec![vec![0x14; 3_000]]), "malformed"),
        (b"noise".to_vec(), "malformed"),
        (vec![0; 5 << 20], "malformed"),
    ];
    for (place, (reply, code)) in hostile.iter().enumerate() {
        let error = world.client(alice).supply(*id, reply).unwrap_err();
        assert_eq!(error.code(), *code, "reply {place}");
        assert!(
            world.tasks(alice).is_empty(),
            "reply {place}: not again at once"
        );
        world.wait(3_600_000);
        assert_eq!(world.tasks(alice), tasks, "reply {place}");
    }
    assert!(!world.client(alice).contact("bob").unwrap().unwrap().changed);
    // Shown under another key, but not signed by it: the user is asked nothing that he could not accept.
    let number = world.client(alice).safety_number("bob").unwrap().unwrap();
    let error = world
        .client(alice)
        .supply(*id, &reply(vec![unsigned]))
        .unwrap_err();
    assert_eq!(error.code(), "bad_signature");
    assert!(!world.client(alice).contact("bob").unwrap().unwrap().changed);
    assert!(
        codes(&world, alice)
            .iter()
            .all(|event| event.starts_with("ReplyRefused"))
    );
    world.client(alice).accept("bob").unwrap();
    assert_eq!(
        world.client(alice).safety_number("bob").unwrap().unwrap(),
        number
    );
    // The list that is known already is nothing new.
    world.client(alice).supply(*id, &reply(vec![old])).unwrap();
    world.wait(3_600_000);
    assert!(world.tasks(alice).is_empty());
    world.send(alice, "bob", b"still you");
    let bytes = envelope(&mut world, alice);
    assert_eq!(world.receive(bob, &bytes).messages().len(), 1);
}

#[test]
fn stranger_who_claims_a_name_gets_no_answer_before_the_server_has_shown_him() {
    let mut world = World::new(1);
    let (alice, bob) = (world.join("alice"), world.join("bob"));
    // Somebody with Bob's name, unknown to the server, writes to Alice first.
    let imposter = world.join_offline("bob");
    world.send(imposter, "alice", b"I am bob");
    for task in world.tasks(imposter) {
        if matches!(task, Task::FetchBundles { .. }) {
            world.perform(imposter, &task);
        }
    }
    world.work(imposter);
    world.poll(alice);
    world.read(alice);
    assert_eq!(world.heard(alice), [said("bob", "I am bob")]);
    let contact = world.client(alice).contact("bob").unwrap().unwrap();
    assert!(!contact.accepted);
    assert_eq!(contact.devices, [world.address(imposter).device().get()]);
    assert_eq!(
        world.client(alice).accept("bob").unwrap_err().code(),
        "needs_bundle"
    );
    // The answer asks the server, whose list replaces the claim; and the application is told.
    world.send(alice, "bob", b"really?");
    world.settle();
    assert_eq!(world.heard(bob), [said("alice", "really?")]);
    assert!(world.heard(imposter).is_empty());
    assert!(
        codes(&world, alice)
            .iter()
            .any(|event| event.starts_with("ProvisionalReplaced"))
    );
    let contact = world.client(alice).contact("bob").unwrap().unwrap();
    assert_eq!(contact.devices, [world.address(bob).device().get()]);
    // From now on the imposter is not believed.
    world.send(imposter, "alice", b"but I am");
    world.work(imposter);
    assert_eq!(world.waiting(alice).len(), 1);
    world.settle();
    assert_eq!(world.heard(alice).len(), 1);
    // The server's list says nothing new, so the envelope was forged: it is neither at the server nor here any more.
    assert!(world.waiting(alice).is_empty());
    world.wait(3_600_000);
    world.settle();
    let health = world.client(alice).health().unwrap();
    assert_eq!((health.kept_frames, health.given_up), (0, 1));
    assert_eq!(world.heard(alice).len(), 1);
}

/// A server that has another account under a user's name.
fn imposter(user: &str) -> (World, Who) {
    let mut world = World::new(99);
    let imposter = world.join(user);
    (world, imposter)
}

fn reply_of_imposter(world: &World, query: &[u8]) -> Vec<u8> {
    let query = BundleQuery::decode(query).unwrap();
    let query = BundleQuery::new(query.user, Vec::new(), Vec::new());
    world.server().bundles(&query.encode()).unwrap()
}

#[test]
fn changed_account_key_of_a_server_waits_for_the_users_decision() {
    let (mut world, alice, bob) = friends(1);
    let (other, new_bob) = imposter("bob");
    let before = world.client(alice).safety_number("bob").unwrap().unwrap();
    // The server shows the new list.
    world.send(alice, "bob", b"still to the old one");
    world.work(alice);
    let list = other
        .server()
        .lists(&ListQuery::new("bob".into(), 0, Vec::new()).encode());
    let list = ListReply::decode(&list.unwrap()).unwrap().frames.remove(0);
    world.send(alice, "bob", b"hm");
    let deliver = world
        .tasks(alice)
        .into_iter()
        .find(|task| matches!(task, Task::Deliver { .. }))
        .unwrap();
    world
        .client(alice)
        .failed(deliver.id(), &Failure::NoSuchDevice(Some(list)))
        .unwrap();
    assert!(
        codes(&world, alice)
            .iter()
            .any(|event| event.starts_with("IdentityChanged"))
    );
    let contact = world.client(alice).contact("bob").unwrap().unwrap();
    assert!(contact.changed && contact.accepted);
    assert_eq!(
        world.client(alice).safety_number("bob").unwrap().unwrap(),
        before
    );

    // Until she accepts, she goes on with the Bob she knows.
    world.send(alice, "bob", b"old bob?");
    world.settle();
    assert_eq!(world.heard(bob).last(), Some(&said("alice", "old bob?")));

    // What she compares before she accepts is what she has afterwards.
    let changed = world.client(alice).changed_safety_number("bob").unwrap();
    world.client(alice).accept("bob").unwrap();
    let contact = world.client(alice).contact("bob").unwrap().unwrap();
    assert!(!contact.changed && contact.accepted);
    assert_eq!(contact.devices, [other.address(new_bob).device().get()]);
    let after = world.client(alice).safety_number("bob").unwrap();
    assert_ne!(after.as_ref(), Some(&before));
    assert_eq!(changed, after);
    assert_eq!(
        world.client(alice).changed_safety_number("bob").unwrap(),
        None
    );
    // The next message goes to the new account, and to nobody else.
    world.send(alice, "bob", b"new bob!");
    let fetch = world.tasks(alice);
    let [Task::FetchBundles { query, .. }] = &fetch[..] else {
        panic!("{fetch:?}");
    };
    let reply = reply_of_imposter(&other, query);
    world.client(alice).supply(fetch[0].id(), &reply).unwrap();
    let bytes = envelope(&mut world, alice);
    assert_eq!(
        Envelope::decode(&bytes).unwrap().to(),
        other.address(new_bob)
    );
    // The old Bob's messages are not taken any more.
    world.send(bob, "alice", b"and I?");
    let bytes = envelope(&mut world, bob);
    let received = world.receive(alice, &bytes);
    assert!(received.refused().is_some() && received.messages().is_empty());
}

#[test]
fn bundle_reply_under_another_account_key_opens_no_session() {
    let (mut world, alice, bob) = pair(1);
    // Alice knows Bob's list and has no session left to send on: she is new to one of his devices.
    world.send(alice, "bob", b"one");
    let fetch = world.tasks(alice);
    let [Task::FetchBundles { query, .. }] = &fetch[..] else {
        panic!("{fetch:?}");
    };
    let (other, _) = imposter("bob");
    // First use: whoever the server shows is believed, and told apart only by the safety number.
    let reply = reply_of_imposter(&other, query);
    world.client(alice).supply(fetch[0].id(), &reply).unwrap();
    let number = world.client(alice).safety_number("bob").unwrap().unwrap();
    let bobs = world.client(bob).safety_number("alice").unwrap();
    assert!(bobs.is_none_or(|bobs| bobs.digits != number.digits));
    // From now on another account key is refused, as an event.
    let real = world
        .server()
        .bundles(&BundleQuery::new("bob".into(), vec![], vec![]).encode())
        .unwrap();
    let frame = BundleReply::decode(&real).unwrap().list;
    world.send(alice, "bob", b"two");
    let task = world
        .tasks(alice)
        .into_iter()
        .find(|task| matches!(task, Task::Deliver { .. }))
        .unwrap();
    world
        .client(alice)
        .failed(task.id(), &Failure::NoSuchDevice(Some(frame)))
        .unwrap();
    assert!(
        codes(&world, alice)
            .iter()
            .any(|event| event.starts_with("IdentityChanged"))
    );
    assert_eq!(
        world.client(alice).safety_number("bob").unwrap().unwrap(),
        number
    );
}

#[test]
fn hostile_replies_are_refused_as_events_and_the_task_stays() {
    let (mut world, alice, bob) = pair(1);
    let carol = world.join("carol");
    world.send(alice, "bob", b"hello");
    let fetch = world.tasks(alice);
    let [Task::FetchBundles { query, .. }] = &fetch[..] else {
        panic!("{fetch:?}");
    };
    let id = fetch[0].id();
    let ask = |user: &str| BundleQuery::new(user.to_owned(), Vec::new(), Vec::new()).encode();
    let good = world.server().bundles(query).unwrap();
    let carols = world.server().bundles(&ask("carol")).unwrap();
    let own = world.server().bundles(&ask("alice")).unwrap();
    let parsed = BundleReply::decode(&good).unwrap();
    let with_bundle =
        |bundle: Vec<u8>| BundleReply::new(vec![bundle], Vec::new(), parsed.list.clone()).encode();
    let mut bad_signature = parsed.bundles[0].clone();
    let at = bad_signature.len() - parsed.list.len() - 20;
    bad_signature[at] ^= 1;
    let mut bad_list = parsed.list.clone();
    *bad_list.last_mut().unwrap() ^= 1;

    let mut hostile: Vec<(Vec<u8>, &[&str])> = vec![
        (carols.clone(), &["malformed"]),
        (own, &["malformed", "bad_input"]),
        (b"no protobuf at all".to_vec(), &["malformed"]),
        (
            BundleReply::new(parsed.bundles.clone(), Vec::new(), bad_list).encode(),
            &["bad_signature"],
        ),
        (vec![0xff; 5 << 20], &["malformed"]),
        (
            with_bundle(BundleReply::decode(&carols).unwrap().bundles.remove(0)),
            &["bad_input"],
        ),
        (
            with_bundle(bad_signature),
            &["bad_signature", "malformed", "invalid_key"],
        ),
        (with_bundle(Vec::new()), &["malformed"]),
    ];
    for length in [1, 2, good.len() / 2, good.len() - 1] {
        hostile.push((good[..length].to_vec(), &["malformed"]));
    }
    for (place, (reply, expected)) in hostile.iter().enumerate() {
        let before = world.client(alice).events(0).unwrap().len();
        let code = world.client(alice).supply(id, reply).unwrap_err().code();
        assert!(expected.contains(&code), "reply {place}: {code}");
        let events = world.client(alice).events(0).unwrap();
        assert_eq!(events.len(), before + 1);
        assert!(
            matches!(&events.last().unwrap().event, Event::ReplyRefused { task, .. } if *task == id)
        );
        let at_once = world.tasks(alice);
        assert!(!at_once.iter().any(|task| task.id() == id), "reply {place}");
        world.wait(60_001);
        let tasks = world.tasks(alice);
        assert!(tasks.iter().any(|task| task.id() == id), "reply {place}");
        assert!(
            !tasks
                .iter()
                .any(|task| matches!(task, Task::Deliver { .. }))
        );
    }
    world.settle();
    assert_eq!(world.heard(bob), [said("alice", "hello")]);
    assert!(world.heard(carol).is_empty());
}

#[test]
fn reply_that_says_nothing_is_asked_for_again() {
    let (mut world, alice, bob) = pair(1);
    world.send(alice, "bob", b"hello");
    for _ in 0..3 {
        let fetch = world.tasks(alice);
        assert_eq!(fetch.len(), 1);
        world.client(alice).supply(fetch[0].id(), &[]).unwrap();
        assert!(world.tasks(alice).is_empty());
        world.wait(60_001);
    }
    // The list without a bundle of the device that stands on it.
    let query = BundleQuery::new("bob".into(), vec![], vec![]).encode();
    let reply = BundleReply::decode(&world.server().bundles(&query).unwrap()).unwrap();
    let reply = BundleReply::new(Vec::new(), Vec::new(), reply.list).encode();
    for _ in 0..3 {
        let fetch = world.tasks(alice);
        assert_eq!(fetch.len(), 1);
        world.client(alice).supply(fetch[0].id(), &reply).unwrap();
        world.wait(60_001);
    }
    world.send(alice, "bob", b"hello?");
    assert_eq!(world.tasks(alice).len(), 1, "one fetch for one device");
    world.settle();
    assert_eq!(
        world.heard(bob),
        [said("alice", "hello"), said("alice", "hello?")]
    );
}

#[test]
fn device_that_has_published_nothing_yet_is_asked_for_again() {
    let (mut world, alice, _) = friends(1);
    let carol = world.join_offline("carol");
    // Her list is there, her prekeys are not.
    let tasks = world.tasks(carol);
    let lists = tasks
        .iter()
        .find(|task| matches!(task, Task::PublishDevices { .. }))
        .unwrap()
        .clone();
    world.perform(carol, &lists);
    world.send(alice, "carol", b"are you there?");
    world.work(alice);
    assert!(world.tasks(alice).is_empty());
    world.work(carol);
    world.wait(60_001);
    world.settle();
    assert_eq!(world.heard(carol), [said("alice", "are you there?")]);
}

#[test]
fn full_inbox_keeps_the_envelope_at_the_server_and_moves_no_session() {
    let (mut world, alice, bob) = friends(1);
    // Filled from outside: ten thousand real messages take long.
    let full = sprag_session::INBOX;
    fill_inbox(&mut world, bob, full);
    world.send(alice, "bob", b"one too many");
    let bytes = envelope(&mut world, alice);
    world.shelf(bob).take_written();
    for _ in 0..3 {
        let received = world.receive(bob, &bytes);
        assert_eq!(received.transport(), Transport::Keep);
        assert!(received.refused().is_none() && received.messages().is_empty());
    }
    assert!(world.shelf(bob).take_written().is_empty());
    fill_inbox(&mut world, bob, full - 1);
    let received = world.receive(bob, &bytes);
    assert_eq!(received.messages().len(), 1);
}

/// Writes the number of waiting messages into the counters' row.
fn fill_inbox(world: &mut World, who: Who, count: u32) {
    world.edit_rows(who, |rows| {
        let name = sprag::store::RowName::plain(0x01, [1]);
        let mut counters = sprag::store::Rows::get(rows, &name).unwrap().unwrap();
        let at = counters.len() - 4;
        counters[at..].copy_from_slice(&count.to_be_bytes());
        rows.put(name, counters);
    });
}

#[test]
fn full_outbox_refuses_before_a_ratchet_step() {
    let (mut world, alice, bob) = friends(1);
    world.edit_rows(alice, |rows| {
        let name = sprag::store::RowName::plain(0x01, [1]);
        let mut counters = sprag::store::Rows::get(rows, &name).unwrap().unwrap();
        let at = counters.len() - 8;
        counters[at..at + 4].copy_from_slice(&sprag_session::OUTBOX.to_be_bytes());
        rows.put(name, counters);
    });
    world.shelf(alice).take_written();
    let error = world
        .client(alice)
        .send_encrypted_message("bob", b"one too many")
        .unwrap_err();
    assert_eq!(error.code(), "outbox_full");
    assert!(error.is_retryable());
    assert!(world.shelf(alice).take_written().is_empty());
    // Answers are still read.
    world.send(bob, "alice", b"what now?");
    world.settle();
    assert_eq!(world.heard(alice).last(), Some(&said("bob", "what now?")));
}

#[test]
fn message_rewrites_little_however_many_keys_wait() {
    let (mut world, alice, bob) = friends(1);
    let skip = |world: &mut World, count: u32| {
        for _ in 0..count {
            world.send(alice, "bob", b"skipped");
            envelope(world, alice);
        }
    };
    let measure = |world: &mut World| {
        world.shelf(bob).take_written();
        world.send(alice, "bob", b"in order");
        let bytes = envelope(world, alice);
        assert!(world.receive(bob, &bytes).refused().is_none());
        let received = world.shelf(bob).take_written();
        world.read(bob);
        world.send(bob, "alice", b"answer");
        world.shelf(bob).take_written();
        world.send(bob, "alice", b"answer");
        let sent = world.shelf(bob).take_written();
        let rewritten = |batches: &[Vec<sprag_tests::shelf::Written>]| -> usize {
            let rows = batches.iter().flatten();
            // The meta row, table 0, is the store's own.
            rows.filter(|row| row.rewritten && row.table != 0)
                .map(|row| row.bytes)
                .sum()
        };
        (rewritten(&received), rewritten(&sent))
    };
    let _ = measure(&mut world);
    let few = measure(&mut world);
    skip(&mut world, 2_000);
    let _ = measure(&mut world);
    assert_eq!(world.shelf(bob).count(0x13), 2_000);
    let many = measure(&mut world);
    // A turn of the ratchet rewrites the old chains too, and this one brings receipts.
    world.settle();
    let turned = measure(&mut world);
    println!("rewritten: {few:?} with none, {many:?} and {turned:?} with 2,000 keys waiting");
    for bytes in [few.0, few.1, many.0, many.1, turned.1] {
        assert!(bytes <= 1_024, "{bytes} bytes");
    }
    assert!(turned.0 <= 2_048);
    assert!(many.0.abs_diff(few.0) <= 128 && many.1.abs_diff(few.1) <= 128);
}

#[test]
fn contacts_are_what_the_server_and_the_user_said() {
    let (world, alice, bob) = friends(1);
    let contact = world.client(alice).contact("bob").unwrap().unwrap();
    assert_eq!(contact.user, "bob");
    assert!(contact.accepted && !contact.changed);
    assert_eq!(contact.devices, [world.address(bob).device().get()]);
    assert!(world.client(alice).contact("carol").unwrap().is_none());
    let one = world.client(alice).safety_number("bob").unwrap().unwrap();
    let other = world.client(bob).safety_number("alice").unwrap().unwrap();
    assert_eq!(one.digits, other.digits);
    assert_eq!(one.digits.len(), 60);
    assert!(UserId::new("bob").is_ok());
}
