//! Sessions that were lost heal by themselves, and nobody else can make them ("The protocol", §9).
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use rand_chacha::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};
use sprag::{CopyStatus, Event, Task};
use sprag_session::Device;
use sprag_session::hazmat::count;
use sprag_tests::world::{Who, World};
use sprag_wire::{Envelope, UserId};

fn said(from: &str, text: &str) -> (String, Vec<u8>) {
    (from.to_owned(), text.as_bytes().to_vec())
}

/// Both have answered each other.
fn friends(seed: u64) -> (World, Who, Who) {
    let mut world = World::new(seed);
    let (alice, bob) = (world.join("alice"), world.join("bob"));
    world.send(alice, "bob", b"hello");
    world.settle();
    world.send(bob, "alice", b"hello yourself");
    world.settle();
    (world, alice, bob)
}

/// `who` loses all sessions with `peer`, as a store that went wrong might.
fn lose(world: &mut World, who: Who, peer: Who) {
    let peer = world.address(peer).clone();
    world.edit_rows(who, |rows| {
        let device = Device::load(rows).unwrap().unwrap();
        device.forget_sessions(rows, &peer).unwrap();
    });
}

/// Frames made from now on, as deliveries.
fn deliveries(tasks: &[Task]) -> Vec<Vec<u8>> {
    let envelope = |task: &Task| match task {
        Task::Deliver { envelope, .. } => Some(envelope.clone()),
        _ => None,
    };
    tasks.iter().filter_map(envelope).collect()
}

#[test]
fn messages_to_a_device_that_lost_its_session_arrive_all_the_same() {
    let (mut world, alice, bob) = friends(1);
    lose(&mut world, bob, alice);
    let ids = ["one", "two", "three"].map(|text| world.send(alice, "bob", text.as_bytes()));
    world.settle();
    let mut heard = world.heard(bob);
    heard.sort();
    let mut expected = vec![
        said("alice", "hello"),
        said("alice", "one"),
        said("alice", "two"),
        said("alice", "three"),
    ];
    expected.sort();
    assert_eq!(heard, expected);
    // And the conversation goes on as if nothing had been.
    world.send(bob, "alice", b"got all three");
    world.settle();
    assert_eq!(
        world.heard(alice).last(),
        Some(&said("bob", "got all three"))
    );
    for id in ids {
        let status = world.client(alice).status(id).unwrap().unwrap();
        assert_eq!(status[0].status, CopyStatus::Received);
    }
    let events = world.client(alice).events(0).unwrap();
    assert!(
        events
            .iter()
            .any(|event| matches!(event.event, Event::SentAgain { .. }))
    );
    let events = world.client(bob).events(0).unwrap();
    assert!(
        events
            .iter()
            .any(|event| matches!(event.event, Event::Unreadable { .. }))
    );
}

#[test]
fn a_sender_who_lost_its_session_opens_another() {
    let (mut world, alice, bob) = friends(2);
    lose(&mut world, alice, bob);
    world.send(alice, "bob", b"on a new one");
    world.settle();
    world.send(bob, "alice", b"on that one");
    world.settle();
    assert_eq!(
        world.heard(bob).last(),
        Some(&said("alice", "on a new one"))
    );
    assert_eq!(world.heard(alice).last(), Some(&said("bob", "on that one")));
}

#[test]
fn sessions_lost_on_both_sides_at_once_heal() {
    let (mut world, alice, bob) = friends(3);
    // Frames are under way in both directions when both lose everything.
    world.send(alice, "bob", b"to bob");
    world.send(bob, "alice", b"to alice");
    world.work(alice);
    world.work(bob);
    lose(&mut world, alice, bob);
    lose(&mut world, bob, alice);
    world.settle();
    assert!(world.heard(bob).contains(&said("alice", "to bob")));
    assert!(world.heard(alice).contains(&said("bob", "to alice")));
}

#[test]
fn noise_and_damaged_copies_provoke_nothing() {
    let (mut world, alice, bob) = friends(4);
    world.send(alice, "bob", b"the genuine one");
    let genuine = deliveries(&world.tasks(alice)).remove(0);
    let parsed = Envelope::decode(&genuine).unwrap();
    let before = world.client(bob).events(0).unwrap();
    world.shelf(bob).take_written();
    let mut rng = ChaCha20Rng::seed_from_u64(4);
    for round in 0..2_000 {
        let mut payload = parsed.payload().to_vec();
        if round % 2 == 0 {
            // Everything behind the salt is noise; the envelope's own rules still hold.
            rng.fill_bytes(&mut payload[20..]);
        } else {
            let bit = rng.next_u32() as usize % ((payload.len() - 20) * 8);
            payload[20 + bit / 8] ^= 1 << (bit % 8);
        }
        let noise = Envelope::new(
            parsed.from().clone(),
            parsed.to().clone(),
            *parsed.id(),
            payload,
        );
        let received = world
            .client(bob)
            .receive_encrypted_message(&noise.encode())
            .unwrap();
        assert!(received.refused().is_some());
    }
    assert!(
        world.shelf(bob).take_written().is_empty(),
        "noise was written"
    );
    assert_eq!(world.client(bob).events(0).unwrap(), before);
    assert!(world.tasks(bob).is_empty());
    world.settle();
    assert_eq!(
        world.heard(bob).last(),
        Some(&said("alice", "the genuine one"))
    );
}

#[test]
fn replayed_frames_provoke_nothing() {
    let (mut world, alice, bob) = friends(5);
    for round in 0..10_u8 {
        world.send(alice, "bob", &[round]);
        world.send(bob, "alice", &[round]);
        world.settle();
    }
    let events = world.client(bob).events(0).unwrap().len();
    let genuine: Vec<Vec<u8>> = world.envelopes().values().cloned().collect();
    for envelope in &genuine {
        let received = world
            .client(bob)
            .receive_encrypted_message(envelope)
            .unwrap();
        assert!(received.refused().is_some());
    }
    assert_eq!(world.client(bob).events(0).unwrap().len(), events);
    assert!(world.tasks(bob).is_empty());
}

#[test]
fn a_stranger_gets_no_answer_whatever_he_breaks() {
    let mut world = World::new(6);
    let (alice, bob) = (world.join("alice"), world.join("bob"));
    world.send(alice, "bob", b"you do not know me");
    world.settle();
    lose(&mut world, bob, alice);
    for _ in 0..5 {
        world.send(alice, "bob", b"hello?");
        world.settle();
    }
    assert!(world.client(bob).events(0).unwrap().is_empty());
    assert!(world.tasks(bob).is_empty());
    assert!(world.waiting(alice).is_empty());
}

#[test]
fn requests_gather_for_a_minute() {
    let (mut world, alice, bob) = friends(7);
    for _ in 0..3 {
        world.send(alice, "bob", b"again and again");
    }
    world.work(alice);
    lose(&mut world, bob, alice);
    // All three come in before anything goes out.
    for (id, envelope) in world.waiting(bob) {
        world.receive(bob, &envelope);
        world.forget(bob, &id);
    }
    world.work(bob);
    let asked = world.waiting(alice).len();
    assert_eq!(asked, 1, "one request, and the others gather");
    world.settle();
    assert_eq!(world.heard(bob).len(), 4);
}

#[test]
fn no_more_than_24_fresh_sessions_with_a_device_in_a_day() {
    let (mut world, alice, bob) = friends(8);
    let mut healed = 0;
    for round in 0..30_u8 {
        lose(&mut world, bob, alice);
        world.send(alice, "bob", &[round]);
        world.settle();
        healed += usize::from(
            world
                .heard(bob)
                .contains(&("alice".to_owned(), vec![round])),
        );
    }
    assert_eq!(healed, 24);
    world.wait(25 * 3_600 * 1_000);
    lose(&mut world, bob, alice);
    world.send(alice, "bob", b"the next day");
    world.settle();
    assert!(world.heard(bob).contains(&said("alice", "the next day")));
}

#[test]
fn a_reset_replaces_the_sessions_on_both_sides_and_loses_nothing() {
    let (mut world, alice, bob) = friends(9);
    world.send(bob, "alice", b"under way");
    world.work(bob);
    world.client(alice).reset("bob").unwrap();
    world.settle();
    assert!(world.heard(alice).contains(&said("bob", "under way")));
    // The reset rides until a message of the other side names a frame that carried it.
    world.send(bob, "alice", b"on the new one");
    world.settle();
    for (who, peer) in [(alice, "bob"), (bob, "alice")] {
        let peer = UserId::new(peer).unwrap();
        world.edit_rows(who, |rows| {
            let device = Device::load(rows).unwrap().unwrap();
            let records = device.peers(rows, &peer).unwrap();
            let current = records[0].current.as_ref().unwrap();
            assert!(!current.retired);
            assert!(!records[0].archive.is_empty());
            assert!(records[0].archive.iter().all(|session| session.retired));
            assert!(records[0].reset.is_empty(), "the reset is confirmed");
        });
    }
    world.send(alice, "bob", b"after");
    world.settle();
    assert_eq!(world.heard(bob).last(), Some(&said("alice", "after")));
}

#[test]
fn nothing_is_left_behind_when_all_is_healed() {
    let (mut world, alice, bob) = friends(10);
    lose(&mut world, bob, alice);
    world.send(alice, "bob", b"one");
    world.settle();
    world.send(bob, "alice", b"two");
    world.settle();
    world.send(alice, "bob", b"three");
    world.settle();
    for who in [alice, bob] {
        assert!(world.tasks(who).is_empty());
        world.edit_rows(who, |rows| {
            // What waits for a session or a list, and tasks.
            for table in [0x45, 0x46, 0x50] {
                assert_eq!(count(rows, table).unwrap(), 0, "table {table:#x}");
            }
        });
    }
}

#[test]
fn request_is_the_first_thing_said_on_the_fresh_session() {
    let (mut world, alice, bob) = friends(11);
    lose(&mut world, bob, alice);
    world.send(alice, "bob", b"unreadable");
    world.work(alice);
    // Bob has something to say, which waits for a session, before he hears that one is lost.
    world.send(bob, "alice", b"meanwhile");
    world.poll(bob);
    world.work(bob);
    let waiting = world.waiting(alice);
    assert_eq!(waiting.len(), 2);
    world.receive(alice, &waiting[0].1);
    let events = world.client(alice).events(0).unwrap();
    let asked = |event: &sprag::NumberedEvent| matches!(event.event, Event::SentAgain { .. });
    assert!(events.iter().any(asked));
    world.settle();
    assert!(world.heard(alice).contains(&said("bob", "meanwhile")));
    assert!(world.heard(bob).contains(&said("alice", "unreadable")));
}
