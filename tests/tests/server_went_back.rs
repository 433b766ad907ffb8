//! A server that was restored from last week's copy, or began with nothing: it is given everything again, nothing is lost
//! for good, and no one-time prekey is used twice ("The protocol", appendix "Directory").
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "a test fails by panicking"
)]

use std::collections::BTreeSet;

use sprag::{CopyStatus, Event, Task};
use sprag_directory::MemoryStorage;
use sprag_session::hazmat::count;
use sprag_session::{Device, STOCK};
use sprag_tests::world::{Who, World};
use sprag_wire::UserId;
use sprag_wire::relay::{ListQuery, ListReply, PreKeyState, PreKeyUpload};

const MINUTE: u64 = 60_000;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

/// Three friends, each with a conversation with each.
fn friends(seed: u64) -> (World, [(&'static str, Who); 3]) {
    let mut world = World::new(seed);
    let all = ["alice", "bob", "carol"].map(|name| (name, world.join(name)));
    for _ in 0..2 {
        for (name, who) in all {
            for (other, _) in all {
                if other != name {
                    world.send(who, other, format!("{name} greets {other}").as_bytes());
                    world.settle();
                }
            }
        }
    }
    (world, all)
}

/// Each of them says so to each other; nothing is fetched.
fn say(world: &mut World, all: &[(&str, Who)], what: &str) {
    for (name, who) in all {
        for (other, _) in all {
            if other != name {
                world.send(*who, other, format!("{what}: {name} to {other}").as_bytes());
            }
        }
        world.work(*who);
    }
}

/// How often each heard what each of the others said.
fn times_heard(world: &World, all: &[(&str, Who)], what: &str) -> Vec<usize> {
    let mut times = Vec::new();
    for (name, who) in all {
        let heard = world.heard(*who);
        for (other, _) in all.iter().filter(|(other, _)| other != name) {
            let text = format!("{what}: {other} to {name}").into_bytes();
            times.push(heard.iter().filter(|(_, heard)| *heard == text).count());
        }
    }
    times
}

/// Everybody connects, and what follows from it comes to rest. Some tasks wait ten minutes, some an hour.
fn reconnect(world: &mut World, all: &[(&str, Who)]) {
    for (_, who) in all {
        world.connect(*who);
    }
    for pause in [MINUTE, 10 * MINUTE, HOUR] {
        world.settle();
        world.wait(pause);
    }
    world.settle();
}

fn assert_no_prekey_twice(world: &World) {
    let all = world.handed_out();
    let different: BTreeSet<_> = all
        .iter()
        .map(|(device, kem, id)| (device.to_string(), *kem, *id))
        .collect();
    assert_eq!(
        all.len(),
        different.len(),
        "a one-time prekey was handed out twice"
    );
}

fn server_knows(world: &World, name: &str) -> bool {
    let query = ListQuery::new(name.into(), 0, Vec::new()).encode();
    let reply = world.server().lists(&query);
    reply.is_ok_and(|reply| !ListReply::decode(&reply).unwrap().frames.is_empty())
}

fn went_back(world: &World, who: Who) -> Vec<u32> {
    let events = world.client(who).events(0).unwrap();
    let again = events.iter().filter_map(|event| match event.event {
        Event::ServerWentBack { again, .. } => Some(again),
        _ => None,
    });
    again.collect()
}

fn restored(to: fn(&World) -> MemoryStorage, seed: u64) {
    let (mut world, friends) = friends(seed);
    let copy = to(&world);
    // Six days go on after the copy: some is read and confirmed, some is read, some waits at the server.
    say(&mut world, &friends, "read");
    world.settle();
    say(&mut world, &friends, "confirmed");
    world.settle();
    let dora = world.join("dora");
    world.send(dora, "alice", b"from the new one");
    world.settle();
    world.send(friends[0].1, "dora", b"welcome");
    world.settle();
    world.wait(6 * DAY);
    say(&mut world, &friends, "waits");
    world.send(dora, "alice", b"waits too");
    world.work(dora);
    assert!(
        times_heard(&world, &friends, "waits")
            .iter()
            .all(|times| *times == 0)
    );

    world.set_server_back(&copy, Some(9));
    let mut all = friends.to_vec();
    all.push(("dora", dora));
    reconnect(&mut world, &all);
    for what in ["read", "confirmed", "waits"] {
        let times = times_heard(&world, &friends, what);
        assert!(times.iter().all(|times| *times == 1), "{what}: {times:?}");
    }
    let from_dora = world.heard(friends[0].1);
    for text in [&b"from the new one"[..], b"waits too"] {
        let times = from_dora.iter().filter(|(_, heard)| heard == text).count();
        assert_eq!(times, 1);
    }
    for (name, who) in &all {
        assert!(
            server_knows(&world, name),
            "{name} has no list at the server"
        );
        let state = world.server().state(world.address(*who)).unwrap();
        let state = PreKeyState::decode(&state).unwrap();
        assert!(state.one_time >= 25 && state.kem_one_time >= 25);
        assert_eq!(went_back(&world, *who).len(), 1);
        assert!(world.tasks(*who).is_empty());
    }
    assert_no_prekey_twice(&world);
    // Twice is once.
    for (_, who) in &all {
        world.connect(*who);
        assert!(world.tasks(*who).is_empty());
    }
    // Everybody reaches everybody, and each hears that it was received.
    let ids = [
        ("bob", friends[0].1),
        ("dora", friends[1].1),
        ("carol", dora),
    ]
    .map(|(to, who)| (who, world.send(who, to, b"and on it goes")));
    world.settle();
    for (who, id) in ids {
        let status = world.client(who).status(id).unwrap().unwrap();
        assert_eq!(status[0].status, CopyStatus::HandedOver);
    }
    assert_eq!(world.heard(dora).last().unwrap().1, b"and on it goes");
    assert_no_prekey_twice(&world);
}

#[test]
fn server_restored_from_last_weeks_copy_loses_nothing() {
    restored(World::backup_of_server, 1);
}

#[test]
fn server_that_began_with_nothing_loses_nothing() {
    restored(|_| MemoryStorage::new(), 2);
}

#[test]
fn message_to_somebody_whose_list_the_server_forgot_waits_for_him() {
    let (mut world, friends) = friends(3);
    let [(_, alice), (_, bob), _] = friends;
    world.set_server_back(&MemoryStorage::new(), Some(9));
    // Alice notices at once and writes; Bob has not been there yet.
    world.connect(alice);
    let id = world.send(alice, "bob", b"are you there?");
    world.work(alice);
    let status = world.client(alice).status(id).unwrap().unwrap();
    assert_eq!(status[0].status, CopyStatus::Sealed);
    world.wait(3 * HOUR);
    world.connect(bob);
    world.work(bob);
    world.settle();
    assert_eq!(world.heard(bob).last().unwrap().1, b"are you there?");
}

#[test]
fn somebody_who_stays_unknown_for_a_day_is_gone() {
    let (mut world, friends) = friends(4);
    let alice = friends[0].1;
    world.set_server_back(&MemoryStorage::new(), Some(9));
    let id = world.send(alice, "bob", b"are you there?");
    for _ in 0..30 {
        world.work(alice);
        world.wait(HOUR);
    }
    let status = world.client(alice).status(id).unwrap().unwrap();
    assert_eq!(status[0].status, CopyStatus::NoSuchUser);
    assert!(
        !world
            .tasks(alice)
            .iter()
            .any(|task| matches!(task, Task::Deliver { .. }))
    );
}

#[test]
fn server_that_went_back_without_saying_so_is_noticed_by_its_number() {
    let (mut world, friends) = friends(5);
    let [(_, alice), (_, bob), _] = friends;
    let copy = world.backup_of_server();
    // Bob gives it more prekeys, so that his number is above that of the copy.
    for _ in 0..80 {
        world
            .server()
            .bundles_of(&UserId::new("bob").unwrap())
            .unwrap();
    }
    world.connect(bob);
    assert_eq!(world.work(bob), 1);
    say(&mut world, &friends, "waits");
    world.set_server_back(&copy, None);
    assert!(world.waiting(bob).is_empty());
    world.wait(2 * HOUR);
    // What others sent to Bob they send again when they notice it themselves, or Bob's device asks. Here, Bob's own.
    world.connect(bob);
    let uploads: Vec<_> = world
        .tasks(bob)
        .into_iter()
        .filter_map(|task| match task {
            Task::PublishPreKeys { upload, .. } => Some(PreKeyUpload::decode(&upload).unwrap()),
            _ => None,
        })
        .collect();
    assert_eq!(uploads.len(), 1);
    assert!(uploads[0].replace);
    // Two messages, and a greeting that Carol has not confirmed yet.
    assert_eq!(went_back(&world, bob), [3]);
    world.settle();
    let heard = world.heard(alice);
    let text = b"waits: bob to alice".to_vec();
    assert_eq!(heard.iter().filter(|(_, heard)| *heard == text).count(), 1);
}

#[test]
fn upload_that_the_server_refused_does_not_hide_that_it_went_back() {
    let (mut world, friends) = friends(10);
    let bob = friends[1].1;
    // A server that says it has three prekeys left, and then has no room for more.
    let state = world.server().state(world.address(bob)).unwrap();
    let mut state = PreKeyState::decode(&state).unwrap();
    state.one_time = 3;
    let client = world.client(bob).clone();
    client.supply_pre_key_state(&state.encode()).unwrap();
    world.work(bob);
    let events = client.events(0).unwrap();
    let refused = |event: &sprag::NumberedEvent| matches!(event.event, Event::TaskRefused { .. });
    assert!(events.iter().any(refused));
    assert_eq!(client.health().unwrap().parked_tasks, 1);
    // It shows its state again: the refused upload gives way to one that replaces all.
    world.wait(2 * DAY);
    world.connect(bob);
    world.settle();
    let health = client.health().unwrap();
    assert_eq!((health.parked_tasks, health.tasks), (0, 0));
    assert!(went_back(&world, bob).is_empty(), "it did not go back");
    world.set_server_back(&MemoryStorage::new(), None);
    world.connect(bob);
    assert_eq!(went_back(&world, bob).len(), 1);
}

#[test]
fn prekey_that_a_server_hands_out_twice_heals_and_is_replaced() {
    let (mut world, friends) = friends(6);
    let [(_, alice), (_, bob), (_, carol)] = friends;
    let copy = world.backup_of_server();
    // Alice begins anew with Bob, on the next of his prekeys.
    let forget = |world: &mut World, who: Who, peer: Who| {
        let peer = world.address(peer).clone();
        world.edit_rows(who, |rows| {
            let device = Device::load(rows).unwrap().unwrap();
            device.forget_sessions(rows, &peer).unwrap();
        });
    };
    forget(&mut world, alice, bob);
    world.send(alice, "bob", b"from alice");
    world.settle();
    world.send(bob, "alice", b"read");
    world.settle();
    // The server goes back and does not know it: Carol gets the same prekey.
    world.set_server_back(&copy, None);
    forget(&mut world, carol, bob);
    let id = world.send(carol, "bob", b"from carol");
    world.settle();
    let all = world.handed_out();
    let of_bob: Vec<_> = all
        .iter()
        .filter(|(device, ..)| device.user().as_str() == "bob")
        .collect();
    let different: BTreeSet<_> = of_bob.iter().map(|(_, kem, id)| (*kem, *id)).collect();
    assert!(
        different.len() < of_bob.len(),
        "the server did hand it out twice"
    );
    // It was no good a second time, and nothing is lost.
    assert_eq!(
        world
            .heard(bob)
            .iter()
            .filter(|(_, heard)| heard == b"from carol")
            .count(),
        1
    );
    let told = |event: &sprag::NumberedEvent| {
        matches!(&event.event, Event::Unreadable { from, error, .. }
            if from.user().as_str() == "carol"
                && sprag::Error::from(*error).code() == "unknown_pre_key")
    };
    assert!(world.client(bob).events(0).unwrap().iter().any(told));
    world.send(bob, "carol", b"read");
    world.settle();
    let status = world.client(carol).status(id).unwrap().unwrap();
    assert_eq!(status[0].status, CopyStatus::Received);
    // Bob has published new prekeys of all kinds.
    let health = world.client(bob).health().unwrap();
    assert_eq!(
        (health.signed_pre_keys, health.last_resort_pre_keys),
        (2, 2)
    );
    let state = world.server().state(world.address(bob)).unwrap();
    let state = PreKeyState::decode(&state).unwrap();
    assert!(state.one_time > STOCK - 5);
}

#[test]
fn upload_gets_above_a_server_that_is_ahead_and_follows_no_lie_to_the_end_of_numbers() {
    let (mut world, friends) = friends(7);
    let bob = friends[1].1;
    let epoch = world.server().epoch().unwrap().as_bytes().to_vec();
    let upload = |world: &mut World| {
        let upload = world.tasks(bob).into_iter().find_map(|task| match task {
            Task::PublishPreKeys { id, upload, .. } => Some((id, upload)),
            _ => None,
        });
        let (id, bytes) = upload.unwrap();
        world.client(bob).done(id).unwrap();
        PreKeyUpload::decode(&bytes).unwrap()
    };
    let state = PreKeyState::new(
        epoch.clone(),
        1_000,
        vec![1; 32],
        100,
        100,
        vec![50, 5_000, 6_000],
    );
    world
        .client(bob)
        .supply_pre_key_state(&state.encode())
        .unwrap();
    let first = upload(&mut world);
    assert!(first.number > 1_000 && first.replace);
    assert!(first.signed_pre_key.id.get() > 50);
    assert!(
        first
            .one_time_pre_keys
            .iter()
            .all(|key| key.id.get() > 5_000)
    );
    assert!(first.kem_pre_keys.iter().all(|key| key.id.get() > 6_000));
    assert!(first.last_resort.id.get() > 6_000);
    // No number that could be the last one is believed.
    world.wait(2 * DAY);
    let state = PreKeyState::new(epoch, u64::MAX, vec![1; 32], 100, 100, vec![u32::MAX; 3]);
    world
        .client(bob)
        .supply_pre_key_state(&state.encode())
        .unwrap();
    let second = upload(&mut world);
    assert_eq!(second.number, first.number + 1);
    assert!(second.one_time_pre_keys[0].id.get() < 10_000);
}

#[test]
fn server_that_begins_anew_all_the_time_makes_us_neither_keys_nor_frames_without_end() {
    let (mut world, friends) = friends(8);
    let alice = friends[0].1;
    let id = world.send(alice, "bob", b"again and again");
    world.work(alice);
    for epoch in 0..200_u8 {
        world.client(alice).server_epoch(&[epoch; 16]).unwrap();
        let tasks = world.tasks(alice);
        for task in &tasks {
            world.client(alice).done(task.id()).unwrap();
        }
    }
    let health = world.client(alice).health().unwrap();
    // What was made at first, what the first epoch made, and what waits for the next hour.
    assert!(
        health.one_time_pre_keys <= 3 * STOCK as usize,
        "{}",
        health.one_time_pre_keys
    );
    assert_eq!(health.outbox, 0);
    world.edit_rows(alice, |rows| {
        // Frames that may still be named in a receipt: at most twelve for the one message, and those of before.
        assert!(count(rows, 0x44).unwrap() <= 12 * 8);
        assert_eq!(count(rows, 0x42).unwrap(), 0);
    });
    assert!(world.client(alice).status(id).unwrap().is_some());
}

#[test]
fn epoch_of_another_length_is_refused() {
    let (world, friends) = friends(9);
    let client = world.client(friends[0].1);
    for bytes in [&b""[..], &[1; 15], &[1; 17], &[1; 4_096]] {
        assert_eq!(client.server_epoch(bytes).unwrap_err().code(), "bad_input");
    }
    let state = PreKeyState::new(vec![1; 15], 1, Vec::new(), 0, 0, Vec::new());
    let error = client.supply_pre_key_state(&state.encode()).unwrap_err();
    assert_eq!(error.code(), "malformed");
    assert!(client.events(0).unwrap().is_empty());
    assert!(client.tasks().unwrap().is_empty());
}
