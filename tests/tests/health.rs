//! `health()` and `events()` tell what happened; quiet mode says nothing to whoever asks ("The protocol", §9 and §11).
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use rand_chacha::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};
use sprag::{Event, Health, Task};
use sprag_session::Device;
use sprag_tests::world::{Who, World};
use sprag_wire::Envelope;

const TEN_MINUTES: u64 = 600_000;

fn friends(seed: u64) -> (World, Who, Who) {
    let mut world = World::new(seed);
    let (alice, bob) = (world.join("alice"), world.join("bob"));
    world.send(alice, "bob", b"hello");
    world.settle();
    world.send(bob, "alice", b"hello yourself");
    world.settle();
    (world, alice, bob)
}

fn lose(world: &mut World, who: Who, peer: Who) {
    let peer = world.address(peer).clone();
    world.edit_rows(who, |rows| {
        let device = Device::load(rows).unwrap().unwrap();
        device.forget_sessions(rows, &peer).unwrap();
    });
}

fn health(world: &World, who: Who) -> Health {
    world.client(who).health().unwrap()
}

fn refused(health: &Health, code: &str) -> u64 {
    let count =
        |(error, count): &(_, u64)| (sprag::Error::from(*error).code() == code).then_some(*count);
    health.refused.iter().find_map(count).unwrap_or(0)
}

/// Noise from Alice's address, as an envelope.
fn noise(world: &World, alice: Who, bob: Who, rng: &mut ChaCha20Rng) -> Vec<u8> {
    let mut salt = [0; 16];
    rng.fill_bytes(&mut salt);
    let salt = sprag_crypto::Salt::from_bytes(salt);
    let mut payload = sprag_wire::encode_message(None, &salt, &[7; 61], &[7; 200]);
    payload.extend_from_slice(&[7; 36]);
    let (from, to) = (world.address(alice).clone(), world.address(bob).clone());
    Envelope::new(from, to, salt, payload).encode()
}

#[test]
fn health_of_a_new_profile_is_full_of_keys_and_empty_of_all_else() {
    let world = {
        let mut world = World::new(1);
        world.join("alice");
        world
    };
    let health = health(&world, world.device(0));
    assert_eq!(
        (health.signed_pre_keys, health.last_resort_pre_keys),
        (1, 1)
    );
    assert_eq!((health.one_time_pre_keys, health.kem_pre_keys), (100, 100));
    assert_eq!((health.own_epoch, health.accepted_users), (1, 1));
    let mut rest = health.clone();
    (rest.signed_pre_keys, rest.last_resort_pre_keys) = (0, 0);
    (rest.one_time_pre_keys, rest.kem_pre_keys) = (0, 0);
    (rest.own_epoch, rest.accepted_users) = (0, 0);
    assert_eq!(rest, Health::default());
}

#[test]
fn healing_is_counted_on_both_sides_and_told_as_events() {
    let (mut world, alice, bob) = friends(2);
    lose(&mut world, bob, alice);
    for text in ["one", "two", "three"] {
        world.send(alice, "bob", text.as_bytes());
    }
    world.settle();
    let of_bob = health(&world, bob);
    assert_eq!((of_bob.heals, of_bob.fresh_sessions), (1, 1));
    assert_eq!(of_bob.requests_sent, 2);
    assert_eq!(refused(&of_bob, "no_session"), 3);
    assert_eq!((of_bob.lost_ids, of_bob.gathered_salts), (1, 0));
    let of_alice = health(&world, alice);
    assert_eq!((of_alice.requests_answered, of_alice.sent_again), (2, 3));
    assert_eq!(of_alice.heals, 0);
    assert_eq!(
        (of_alice.current_sessions, of_alice.archived_sessions),
        (1, 1)
    );
    let told = |who: Who, is: fn(&Event) -> bool| {
        let events = world.client(who).events(0).unwrap();
        events.iter().filter(|event| is(&event.event)).count()
    };
    assert_eq!(
        told(bob, |event| matches!(event, Event::Unreadable { .. })),
        1
    );
    assert_eq!(
        told(alice, |event| matches!(event, Event::SentAgain { .. })),
        2
    );
}

#[test]
fn noise_is_counted_without_a_write_and_the_count_outlives_the_client() {
    let (mut world, alice, bob) = friends(3);
    let mut rng = ChaCha20Rng::seed_from_u64(3);
    world.restart(bob);
    world.shelf(bob).take_written();
    for _ in 0..1_000 {
        let bytes = noise(&world, alice, bob, &mut rng);
        world.receive(bob, &bytes);
    }
    assert!(world.shelf(bob).take_written().is_empty());
    assert_eq!(refused(&health(&world, bob), "bad_origin"), 1_000);
    // Closing writes it.
    world.restart(bob);
    assert_eq!(refused(&health(&world, bob), "bad_origin"), 1_000);
    // So does the next message; then a crash forgets only what came after it.
    for _ in 0..300 {
        let bytes = noise(&world, alice, bob, &mut rng);
        world.receive(bob, &bytes);
    }
    world.send(alice, "bob", b"a message");
    world.settle();
    for _ in 0..10 {
        let bytes = noise(&world, alice, bob, &mut rng);
        world.receive(bob, &bytes);
    }
    world.crash(bob);
    assert_eq!(refused(&health(&world, bob), "bad_origin"), 1_300);
}

#[test]
fn conversation_writes_the_counts_at_most_now_and_then() {
    let (mut world, alice, bob) = friends(4);
    world.send(
        alice,
        "bob",
        b"the first one of this opening may write them",
    );
    world.settle();
    world.shelf(bob).take_written();
    for _ in 0..50 {
        world.send(alice, "bob", b"a message");
        world.work(alice);
        world.poll(bob);
        world.read(bob);
    }
    let written = world.shelf(bob).take_written();
    let rows = written.iter().flatten();
    // The row of the counts is the one of our own table that has about 270 bytes; counters, the only other, about 100.
    let counts = rows
        .filter(|row| row.table == 0x01 && row.bytes > 200)
        .count();
    assert_eq!(counts, 0);
}

/// Bob has lost a session, and what he asks for Alice has forgotten: she has nothing to say.
fn ask_in_vain(world: &mut World, alice: Who, bob: Who) -> usize {
    lose(world, bob, alice);
    world.send(alice, "bob", b"soon forgotten");
    world.work(alice);
    // It expires at Alice's before Bob has seen it.
    world.wait(8 * 86_400_000);
    world.client(alice).expire().unwrap();
    world.poll(bob);
    world.work(bob);
    let before = world.envelopes().len();
    world.poll(alice);
    world.work(alice);
    world.envelopes().len() - before
}

#[test]
fn whoever_asks_in_vain_gets_an_ack_and_in_quiet_mode_nothing() {
    let (mut world, alice, bob) = friends(5);
    assert!(!world.client(alice).is_quiet().unwrap());
    assert_eq!(ask_in_vain(&mut world, alice, bob), 1, "an ack");
    world.settle();
    world.wait(TEN_MINUTES);

    world.client(alice).set_quiet(true).unwrap();
    world.restart(alice);
    assert!(world.client(alice).is_quiet().unwrap(), "it is remembered");
    assert!(health(&world, alice).quiet);
    assert_eq!(ask_in_vain(&mut world, alice, bob), 0, "quiet");
    world.settle();
    world.wait(TEN_MINUTES);

    world.client(alice).set_quiet(false).unwrap();
    assert_eq!(ask_in_vain(&mut world, alice, bob), 1, "an ack again");
}

#[test]
fn quiet_mode_still_sends_what_was_asked_for() {
    let (mut world, alice, bob) = friends(6);
    world.client(alice).set_quiet(true).unwrap();
    lose(&mut world, bob, alice);
    world.send(alice, "bob", b"still there");
    world.settle();
    assert_eq!(world.heard(bob).last().unwrap().1, b"still there");
}

#[test]
fn reset_is_said_at_once_also_in_quiet_mode_and_with_nothing_to_say() {
    let (mut world, alice, bob) = friends(7);
    world.client(alice).set_quiet(true).unwrap();
    world.client(alice).reset("bob").unwrap();
    let before = world.envelopes().len();
    world.work(alice);
    assert_eq!(
        world.envelopes().len() - before,
        1,
        "an ack that carries it"
    );
    assert_eq!(health(&world, alice).resets, 1);
    world.settle();
    // Bob has heard of it: what was before is read only.
    assert_eq!(health(&world, bob).retired_sessions, 1);
    world.send(bob, "alice", b"on the new one");
    world.settle();
    assert_eq!(health(&world, alice).resets, 0, "confirmed");
}

#[test]
fn full_boxes_and_waiting_tasks_are_seen() {
    let mut world = World::new(8);
    let (alice, bob) = (world.join("alice"), world.join("bob"));
    for _ in 0..3 {
        world.send(alice, "bob", b"to a stranger");
    }
    let of_alice = health(&world, alice);
    assert_eq!((of_alice.outbox, of_alice.bundle_fetches), (3, 1));
    world.work(alice);
    world.poll(bob);
    let of_bob = health(&world, bob);
    assert_eq!((of_bob.inbox, of_bob.inbox_of_strangers), (3, 3));
    assert_eq!((of_bob.strangers, of_bob.records, of_bob.opened), (1, 1, 3));
    world.read(bob);
    assert_eq!(health(&world, bob).inbox, 0);
    assert_eq!(health(&world, alice).pending_sessions, 1);
    let refused = sprag::Failure::Refused(1);
    world.send(alice, "nobody", b"hello?");
    for task in world.tasks(alice) {
        if matches!(task, Task::FetchBundles { .. }) {
            world.client(alice).failed(task.id(), &refused).unwrap();
        }
    }
    assert_eq!(health(&world, alice).parked_tasks, 1);
}
