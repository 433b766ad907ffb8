//! Long runs of everything at once, each from a number. `SPRAG_SEEDS=1000` runs more of them.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test fails by panicking"
)]

use std::collections::{BTreeMap, BTreeSet};

use sprag::CopyStatus;
use sprag_directory::MemoryStorage;
use sprag_session::Device;
use sprag_tests::world::{Weather, Who, World};

fn seeds(usual: u64) -> std::ops::Range<u64> {
    let many = std::env::var("SPRAG_SEEDS").ok();
    let from = std::env::var("SPRAG_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok());
    let count = many.and_then(|many| many.parse().ok()).unwrap_or(usual);
    match from {
        Some(from) => from..from + 1,
        None => 0..count,
    }
}

/// What was sent: text, from which user to which, and from which of his devices.
type Sent = BTreeMap<Vec<u8>, (String, String, Who)>;

/// Users with one, two and three devices, in rough weather, crashing and restarting.
fn run(seed: u64, weather: Weather, steps: usize) -> (World, Vec<(String, Who)>, Sent) {
    let mut world = World::new(seed);
    let mut devices = vec![("alice".to_owned(), world.join("alice"))];
    for who in world.join_with_devices("bob", 2) {
        devices.push(("bob".to_owned(), who));
    }
    for who in world.join_with_devices("carol", 3) {
        devices.push(("carol".to_owned(), who));
    }
    world.set_weather(weather);
    let mut sent = Sent::new();
    for step in 0..steps {
        let (user, who) = devices[world.below(devices.len())].clone();
        match world.below(12) {
            0..4 => {
                let others = ["alice", "bob", "carol"];
                let to = others[world.below(3)];
                if to != user {
                    let mut text = format!("{step}").into_bytes();
                    text.resize(text.len() + world.below(300), b'.');
                    world.send(who, to, &text);
                    sent.insert(text, (user, to.to_owned(), who));
                }
            }
            4..7 => {
                world.work(who);
            }
            7..10 => {
                world.poll(who);
                world.read(who);
            }
            10 => world.crash(who),
            _ => {
                world.restart(who);
                let pause = world.below(100_000) as u64;
                world.wait(pause);
            }
        }
    }
    world.settle();
    (world, devices, sent)
}

#[test]
fn whatever_happens_each_device_reads_each_message_once() {
    for seed in seeds(6) {
        println!("seed {seed}");
        let (world, devices, sent) = run(seed, Weather::ROUGH, 300);
        for (user, who) in &devices {
            let heard = world.heard(*who);
            let set: BTreeSet<_> = heard.iter().map(|(_, text)| text.clone()).collect();
            assert_eq!(
                heard.len(),
                set.len(),
                "seed {seed}, {user}: something came twice"
            );
            for (from, text) in &heard {
                assert_eq!(sent[text].0, *from, "seed {seed}");
            }
            // What others sent to the user, and copies of what his other devices sent.
            let expected = sent
                .iter()
                .filter(|(_, (from, to, by))| to == user || (from == user && by != who));
            let expected: BTreeSet<_> = expected.map(|(text, _)| text.clone()).collect();
            let missing: Vec<_> = expected.difference(&set).collect();
            assert!(
                missing.is_empty(),
                "seed {seed}, {user}: {} lost",
                missing.len()
            );
            assert_eq!(set, expected, "seed {seed}, {user}");
        }
    }
}

/// One of two devices of different users loses all sessions with the other.
fn lose(world: &mut World, who: Who, peer: Who) {
    let peer = world.address(peer).clone();
    world.edit_rows(who, |rows| {
        let device = Device::load(rows).unwrap().unwrap();
        device.forget_sessions(rows, &peer).unwrap();
    });
}

/// Everybody has heard from everybody, so all are accepted.
fn acquainted(seed: u64) -> (World, Vec<(String, Who)>) {
    let mut world = World::new(seed);
    let mut devices = vec![("alice".to_owned(), world.join("alice"))];
    for who in world.join_with_devices("bob", 2) {
        devices.push(("bob".to_owned(), who));
    }
    devices.push(("carol".to_owned(), world.join("carol")));
    for (user, who) in &devices {
        world.connect(*who);
        for to in ["alice", "bob", "carol"] {
            if to != user {
                world.send(*who, to, b"hello");
            }
        }
        world.settle();
    }
    (world, devices)
}

#[test]
fn lost_sessions_and_a_server_that_goes_back_lose_no_message_and_repeat_none() {
    for seed in seeds(4) {
        println!("seed {seed}");
        let (mut world, devices) = acquainted(seed);
        world.set_weather(Weather::ROUGH);
        let mut sent = Sent::new();
        let mut copy = world.backup_of_server();
        let mut epoch = 10;
        for step in 0..300 {
            let (user, who) = devices[world.below(devices.len())].clone();
            match world.below(100) {
                0..30 => {
                    let to = ["alice", "bob", "carol"][world.below(3)];
                    if to != user {
                        let text = format!("{step}").into_bytes();
                        world.send(who, to, &text);
                        sent.insert(text, (user, to.to_owned(), who));
                    }
                }
                30..60 => {
                    world.work(who);
                }
                60..90 => {
                    world.poll(who);
                    world.read(who);
                }
                90..93 => {
                    let (other, peer) = devices[world.below(devices.len())].clone();
                    if other != user {
                        lose(&mut world, who, peer);
                    }
                }
                93 => copy = world.backup_of_server(),
                94 if epoch < 13 => {
                    epoch += 1;
                    let empty = MemoryStorage::new();
                    let to = if epoch % 2 == 0 { &empty } else { &copy };
                    world.set_server_back(to, Some(epoch));
                    for (_, who) in &devices {
                        world.connect(*who);
                    }
                }
                94..97 => world.crash(who),
                _ => {
                    world.restart(who);
                    let pause = world.below(100_000) as u64;
                    world.wait(pause);
                }
            }
        }
        // What a server did not know is asked for again after ten minutes, and prekeys are given it hourly.
        for _ in 0..4 {
            world.settle();
            world.wait(3_600_000);
        }
        world.settle();
        for (user, who) in &devices {
            let heard = world
                .heard(*who)
                .into_iter()
                .filter(|(_, text)| text != b"hello");
            let heard: Vec<_> = heard.map(|(_, text)| text).collect();
            let set: BTreeSet<_> = heard.iter().cloned().collect();
            assert_eq!(
                heard.len(),
                set.len(),
                "seed {seed}, {user}: something came twice"
            );
            let expected = sent
                .iter()
                .filter(|(_, (from, to, by))| to == user || (from == user && by != who));
            let expected: BTreeSet<_> = expected.map(|(text, _)| text.clone()).collect();
            let missing: Vec<_> = expected
                .difference(&set)
                .map(|text| String::from_utf8_lossy(text))
                .collect();
            assert!(missing.is_empty(), "seed {seed}, {user}: {missing:?} lost");
        }
    }
}

#[test]
fn envelopes_that_are_lost_for_good_harm_no_other() {
    let mut weather = Weather::ROUGH;
    weather.lost = 15;
    for seed in seeds(4) {
        println!("seed {seed}");
        let (mut world, devices, sent) = run(seed, weather, 300);
        for (user, who) in &devices {
            let heard = world.heard(*who);
            let set: BTreeSet<_> = heard.iter().map(|(_, text)| text.clone()).collect();
            assert_eq!(
                heard.len(),
                set.len(),
                "seed {seed}, {user}: something came twice"
            );
            for (from, text) in &heard {
                assert_eq!(sent[text].0, *from, "seed {seed}");
            }
        }
        // Afterwards everybody reaches everybody.
        for (from, who) in &devices {
            for to in ["alice", "bob", "carol"] {
                if to == from {
                    continue;
                }
                let text = format!("{from} {who:?} to {to}, at last").into_bytes();
                let id = world.send(*who, to, &text);
                world.settle();
                for (user, other) in &devices {
                    let heard = world.heard(*other);
                    let there = heard.iter().filter(|(_, heard)| *heard == text).count();
                    assert_eq!(
                        there,
                        usize::from(user == to || (user == from && other != who)),
                        "seed {seed}: {from} to {user}"
                    );
                    if user == to {
                        // The same text goes to the other user next.
                        assert_eq!(heard.last().unwrap().0, *from);
                    }
                }
                let statuses = world.client(*who).status(id).unwrap().unwrap();
                let fine = |status| matches!(status, CopyStatus::HandedOver | CopyStatus::Received);
                assert!(statuses.iter().all(|copy| fine(copy.status)), "seed {seed}");
            }
        }
    }
}
