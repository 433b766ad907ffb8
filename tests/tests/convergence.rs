//! Lost sessions heal in a stated number of messages, and with at most as many fresh sessions as were lost ("The
//! protocol", §9, *Convergence*).
//!
//! For each direction of a pair of devices in which frames could not be read, healing costs
//!
//! * one fresh session,
//! * one `retry` for each 64 of these frames,
//! * and each of them once more;
//!
//! an `ack` at most, where nothing is left to send again. Each test counts what went over the network.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "a test fails by panicking"
)]

use std::collections::BTreeSet;

use sprag::CopyStatus;
use sprag_crypto::SessionId;
use sprag_session::Device;
use sprag_tests::world::{Who, World};
use sprag_wire::{Envelope, MessageFrame};

/// What went over the network since the last look: sessions begun, and frames.
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
struct Traffic {
    sessions: usize,
    frames: usize,
}

/// The sessions that were ever begun, by their handshakes, and all frames.
fn traffic(world: &World) -> Traffic {
    let mut sessions = BTreeSet::new();
    for envelope in world.envelopes().values() {
        let envelope = Envelope::decode(envelope).unwrap();
        let frame = MessageFrame::parse(envelope.payload()).unwrap();
        if let Some(handshake) = frame.handshake() {
            sessions.insert(*SessionId::of_handshake(handshake).as_bytes());
        }
    }
    Traffic {
        sessions: sessions.len(),
        frames: world.envelopes().len(),
    }
}

fn since(world: &World, before: Traffic) -> Traffic {
    let now = traffic(world);
    Traffic {
        sessions: now.sessions - before.sessions,
        frames: now.frames - before.frames,
    }
}

/// `who` loses all sessions with `peer`; says how many that were.
fn lose(world: &mut World, who: Who, peer: Who) -> usize {
    let peer = world.address(peer).clone();
    let mut lost = 0;
    world.edit_rows(who, |rows| {
        let device = Device::load(rows).unwrap().unwrap();
        for record in device.peers(rows, peer.user()).unwrap() {
            if record.address == peer {
                lost += record.archive.len() + usize::from(record.current.is_some());
            }
        }
        device.forget_sessions(rows, &peer).unwrap();
    });
    lost
}

/// `who` loses all prekeys, of all kinds.
fn lose_pre_keys(world: &mut World, who: Who) {
    world.edit_rows(who, |rows| {
        let device = Device::load(rows).unwrap().unwrap();
        device.drop_pre_keys(rows).unwrap();
    });
}

fn friends(seed: u64) -> (World, Who, Who) {
    let mut world = World::new(seed);
    let (alice, bob) = (world.join("alice"), world.join("bob"));
    for _ in 0..2 {
        world.send(alice, "bob", b"hello");
        world.settle();
        world.send(bob, "alice", b"hello yourself");
        world.settle();
    }
    (world, alice, bob)
}

/// Sends `count` messages and hands them over.
fn say(world: &mut World, who: Who, to: &str, what: &str, count: usize) {
    for number in 0..count {
        world.send(who, to, format!("{what} {number}").as_bytes());
    }
    world.work(who);
}

/// Each of the messages was heard once, whatever the order.
fn heard(world: &World, who: Who, what: &str, count: usize) {
    let all = world.heard(who);
    for number in 0..count {
        let text = format!("{what} {number}").into_bytes();
        let times = all.iter().filter(|(_, heard)| *heard == text).count();
        assert_eq!(times, 1, "{what} {number}");
    }
}

/// The conversation goes on without another heal: a message each way is one frame each.
fn calm(world: &mut World, one: (Who, &str), two: (Who, &str)) {
    let before = traffic(world);
    for (from, to) in [(one, two), (two, one)] {
        let id = world.send(from.0, to.1, b"and on it goes");
        world.settle();
        let status = world.client(from.0).status(id).unwrap().unwrap();
        assert!(
            status
                .iter()
                .all(|copy| copy.status == CopyStatus::HandedOver)
        );
    }
    let after = since(world, before);
    assert_eq!(after.sessions, 0);
    assert_eq!(after.frames, 2);
    for who in [one.0, two.0] {
        assert!(world.tasks(who).is_empty());
    }
}

#[test]
fn receiver_that_lost_its_session_costs_one_session_one_request_and_each_frame_again() {
    for seed in 0..4 {
        let (mut world, alice, bob) = friends(seed);
        let count = 1 + seed as usize * 9;
        let before = traffic(&world);
        let lost = lose(&mut world, bob, alice);
        assert_eq!(lost, 1);
        say(&mut world, alice, "bob", "lost", count);
        world.settle();
        heard(&world, bob, "lost", count);
        let after = since(&world, before);
        assert_eq!(after.sessions, 1);
        // The first frame is asked for at once, the others a minute later.
        let requests = if count == 1 { 1 } else { 2 };
        assert!(after.frames <= 2 * count + requests, "{after:?}");
        calm(&mut world, (alice, "alice"), (bob, "bob"));
    }
}

#[test]
fn sender_that_lost_its_session_costs_one_session_and_nothing_else() {
    let (mut world, alice, bob) = friends(10);
    let before = traffic(&world);
    lose(&mut world, alice, bob);
    say(&mut world, alice, "bob", "anew", 5);
    world.settle();
    heard(&world, bob, "anew", 5);
    let after = since(&world, before);
    assert_eq!((after.sessions, after.frames), (1, 5));
    calm(&mut world, (alice, "alice"), (bob, "bob"));
}

#[test]
fn both_that_lost_their_sessions_at_once_heal_with_two() {
    for seed in 20..24 {
        let (mut world, alice, bob) = friends(seed);
        // Frames are under way in both directions.
        say(&mut world, alice, "bob", "from alice", 3);
        say(&mut world, bob, "alice", "from bob", 3);
        let before = traffic(&world);
        let lost = lose(&mut world, alice, bob) + lose(&mut world, bob, alice);
        assert_eq!(lost, 2);
        world.settle();
        heard(&world, bob, "from alice", 3);
        heard(&world, alice, "from bob", 3);
        let after = since(&world, before);
        assert!(after.sessions <= lost, "{after:?}");
        // Two requests each way (the first frame at once, the others a minute later), and six frames again.
        assert!(after.frames <= 4 + 6, "{after:?}");
        calm(&mut world, (alice, "alice"), (bob, "bob"));
    }
}

#[test]
fn sessions_lost_during_simultaneous_initiation_heal() {
    for (seed, loser) in [(30, 0), (31, 1), (32, 2)] {
        let mut world = World::new(seed);
        let (alice, bob) = (world.join("alice"), world.join("bob"));
        // Both open a session before either has heard of the other's.
        say(&mut world, alice, "bob", "from alice", 2);
        say(&mut world, bob, "alice", "from bob", 2);
        let mut lost = 0;
        if loser != 1 {
            lost += lose(&mut world, alice, bob);
        }
        if loser != 0 {
            lost += lose(&mut world, bob, alice);
        }
        let before = traffic(&world);
        world.settle();
        heard(&world, bob, "from alice", 2);
        heard(&world, alice, "from bob", 2);
        say(&mut world, alice, "bob", "after", 2);
        say(&mut world, bob, "alice", "after that", 2);
        world.settle();
        heard(&world, bob, "after", 2);
        heard(&world, alice, "after that", 2);
        let after = since(&world, before);
        assert!(after.sessions <= lost, "{loser}: {after:?}, {lost} lost");
        assert!(after.frames <= 4 + 2 * lost * 2, "{loser}: {after:?}");
        calm(&mut world, (alice, "alice"), (bob, "bob"));
    }
}

#[test]
fn handshakes_to_prekeys_that_are_gone_heal_and_the_prekeys_are_replaced() {
    let (mut world, alice, bob) = friends(40);
    lose(&mut world, alice, bob);
    lose(&mut world, bob, alice);
    lose_pre_keys(&mut world, bob);
    let before = traffic(&world);
    say(&mut world, alice, "bob", "to nobody", 3);
    world.settle();
    heard(&world, bob, "to nobody", 3);
    let after = since(&world, before);
    // Alice's, which Bob cannot answer, and Bob's.
    assert_eq!(after.sessions, 2);
    assert!(after.frames <= 3 + 2 + 3, "{after:?}");
    calm(&mut world, (alice, "alice"), (bob, "bob"));
    // Whoever comes next is answered at once.
    let carol = world.join("carol");
    let before = traffic(&world);
    say(&mut world, carol, "bob", "hello", 1);
    world.settle();
    heard(&world, bob, "hello", 1);
    let after = since(&world, before);
    assert_eq!((after.sessions, after.frames), (1, 1));
}

#[test]
fn prekeys_gone_on_both_sides_with_the_sessions_heal() {
    let (mut world, alice, bob) = friends(50);
    say(&mut world, alice, "bob", "from alice", 2);
    say(&mut world, bob, "alice", "from bob", 2);
    for (who, peer) in [(alice, bob), (bob, alice)] {
        lose(&mut world, who, peer);
        lose_pre_keys(&mut world, who);
    }
    let before = traffic(&world);
    world.settle();
    world.wait(3_600_000);
    world.settle();
    heard(&world, bob, "from alice", 2);
    heard(&world, alice, "from bob", 2);
    // The two that were lost, and the two that the lost prekeys cost.
    let after = since(&world, before);
    assert!(after.sessions <= 4, "{after:?}");
    calm(&mut world, (alice, "alice"), (bob, "bob"));
}

#[test]
fn each_pair_of_devices_heals_for_itself() {
    let mut world = World::new(60);
    let alice = world.join("alice");
    let bobs = world.join_with_devices("bob", 3);
    for _ in 0..2 {
        world.send(alice, "bob", b"hello");
        world.settle();
        for bob in &bobs {
            world.send(*bob, "alice", b"hello yourself");
            world.settle();
        }
    }
    let before = traffic(&world);
    let mut lost = 0;
    for bob in &bobs[..2] {
        lost += lose(&mut world, *bob, alice);
    }
    lost += lose(&mut world, alice, bobs[2]);
    say(&mut world, alice, "bob", "to all three", 4);
    world.settle();
    for bob in &bobs {
        heard(&world, *bob, "to all three", 4);
    }
    let after = since(&world, before);
    assert!(after.sessions <= lost && lost == 3, "{after:?}");
    // Twelve copies; of eight of them one more; two requests of each of the two.
    assert!(after.frames <= 12 + 8 + 4, "{after:?}");
}

#[test]
fn session_that_is_lost_again_and_again_costs_one_each_time() {
    let (mut world, alice, bob) = friends(70);
    let before = traffic(&world);
    let mut lost = 0;
    for round in 0..10 {
        let (loser, peer) = if round % 2 == 0 {
            (alice, bob)
        } else {
            (bob, alice)
        };
        lost += lose(&mut world, loser, peer);
        say(&mut world, alice, "bob", &format!("{round} to bob"), 1);
        say(&mut world, bob, "alice", &format!("{round} to alice"), 1);
        world.settle();
        heard(&world, bob, &format!("{round} to bob"), 1);
        heard(&world, alice, &format!("{round} to alice"), 1);
    }
    let after = since(&world, before);
    assert!(after.sessions <= lost, "{after:?}, {lost} lost");
}

#[test]
fn clock_that_jumps_back_holds_up_no_heal() {
    for back in [3_600_000, 400 * 86_400_000_u64] {
        let (mut world, alice, bob) = friends(80);
        world.wait(2 * back);
        // Everything that remembers a time is used while the clock is ahead.
        lose(&mut world, bob, alice);
        say(&mut world, alice, "bob", "ahead", 2);
        world.settle();
        heard(&world, bob, "ahead", 2);
        world.wait(0_u64.wrapping_sub(back));
        lose(&mut world, bob, alice);
        say(&mut world, alice, "bob", "back", 2);
        world.settle();
        heard(&world, bob, "back", 2);
        // Also where a reply was put off when the clock jumped: the bundle is asked for once more.
        lose(&mut world, alice, bob);
        world.wait(back);
        say(&mut world, bob, "alice", "put off", 1);
        world.poll(alice);
        let fetches = world.client(alice).health().unwrap().bundle_fetches;
        assert_eq!(fetches, 1);
        for task in world.tasks(alice) {
            let later = sprag::Failure::NotYet(60_000);
            world.client(alice).failed(task.id(), &later).unwrap();
        }
        world.wait(0_u64.wrapping_sub(back));
        // Less than a day ahead is waited for, more is not believed.
        world.wait(120_000 + if back < 86_400_000 { back } else { 0 });
        world.settle();
        heard(&world, alice, "put off", 1);
    }
}

#[test]
fn handshake_of_a_clock_that_was_ahead_does_not_stay_pending_for_ever() {
    let mut world = World::new(90);
    let (alice, bob) = (world.join("alice"), world.join("bob"));
    let ahead = 400 * 86_400_000_u64;
    world.wait(ahead);
    let before = traffic(&world);
    say(&mut world, alice, "bob", "never arrives", 1);
    for (id, _) in world.waiting(bob) {
        world.forget(bob, &id);
    }
    world.wait(0_u64.wrapping_sub(ahead));
    // Nobody knows how old that handshake is: its bundle may have been stale.
    say(&mut world, alice, "bob", "arrives", 1);
    world.settle();
    heard(&world, bob, "arrives", 1);
    assert_eq!(since(&world, before).sessions, 2);
}
