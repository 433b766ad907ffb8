//! The doctor, over profiles: nothing is found in what works, and each thing that does not fit is.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::fs;
use std::ops::ControlFlow;

use sprag::doctor::Severity;
use sprag::store::{RowName, Rows, Staged};
use sprag::{Client, Key};
use sprag_session::{Device, Oddity};
use sprag_tests::world::{Weather, Who, World};

fn key() -> Key {
    Key::raw([5; 32])
}

fn inspected(world: &mut World, who: Who) -> Vec<Oddity> {
    let rows = world.shelf(who).durable();
    let store = world.store_over(who, rows).unwrap();
    Device::inspect(&store).unwrap()
}

#[test]
fn rows_of_clients_fit_each_other_whatever_happened() {
    for seed in 0..2 {
        let mut world = World::new(seed);
        let mut devices = vec![world.join("alice"), world.join("bob")];
        devices.extend(world.join_with_devices("carol", 2));
        world.set_weather(Weather::ROUGH);
        let users = ["alice", "bob", "carol"];
        for step in 0..150 {
            let who = devices[world.below(devices.len())];
            let to = users[world.below(3)];
            match world.below(8) {
                0..3 if world.address(who).user().as_str() != to => {
                    let text = vec![b'x'; world.below(5_000)];
                    world.send(who, to, &text);
                }
                3..5 => drop(world.work(who)),
                5 => {
                    world.poll(who);
                    world.read(who);
                }
                6 => world.crash(who),
                _ => world.wait(40_000),
            }
            if step % 25 == 0 {
                assert_eq!(inspected(&mut world, who), [], "seed {seed}, step {step}");
            }
        }
        world.settle();
        for who in devices {
            assert_eq!(inspected(&mut world, who), [], "seed {seed}");
        }
    }
}

/// Two friends; the first has something to read and something to deliver.
fn friends() -> (World, Who) {
    let mut world = World::new(1);
    let (alice, bob) = (world.join("alice"), world.join("bob"));
    for (who, to) in [(alice, "bob"), (bob, "alice")] {
        world.send(who, to, b"hello");
        world.settle();
    }
    world.send(bob, "alice", b"to be read");
    world.send(alice, "bob", b"to be delivered");
    world.work(bob);
    world.poll(alice);
    assert_eq!(inspected(&mut world, alice), []);
    (world, alice)
}

/// The first row of a table without owners whose suffix has this length.
fn first(rows: &Staged<'_>, table: u8, length: usize) -> RowName {
    let mut found = None;
    rows.scan(&RowName::plain(table, []), &mut |suffix, _| {
        if suffix.len() == length {
            found = Some(RowName::plain(table, suffix));
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    })
    .unwrap();
    found.unwrap()
}

#[test]
fn each_row_that_is_missing_or_does_not_decode_is_found() {
    // Table, length of the suffix, whether it is deleted or filled with noise.
    let cases = [
        (0x01, 1, true),
        (0x02, 4, false),
        (0x03, 4, false),
        (0x04, 4, false),
        (0x30, 12, false),
        (0x40, 12, false),
        (0x41, 12, false),
        (0x41, 12, true),
        (0x42, 12, true),
        (0x43, 16, true),
        (0x50, 8, false),
        (0x50, 8, true),
    ];
    for (table, length, deleted) in cases {
        let (mut world, alice) = friends();
        // Not through the world, whose client would not start again.
        let rows = world.shelf(alice).durable();
        let store = world.store_over(alice, rows).unwrap();
        let mut staged = Staged::new(&store);
        let name = first(&staged, table, length);
        if deleted {
            staged.delete(name);
        } else {
            staged.put(name, b"\xffnoise".to_vec());
        }
        let changes = staged.into_changes();
        store.commit_blocking(changes).unwrap();
        let found = Device::inspect(&store).unwrap();
        assert!(!found.is_empty(), "table {table:02x}, deleted: {deleted}");
        for oddity in &found {
            let text = format!("{oddity:?}");
            assert!(!text.contains("bob") && !text.contains("alice"), "{text}");
        }
    }
}

#[test]
fn counters_that_would_give_a_number_again_are_found() {
    let (mut world, alice) = friends();
    let rows = world.shelf(alice).durable();
    let store = world.store_over(alice, rows).unwrap();
    let mut staged = Staged::new(&store);
    // A record with all counters at 0, of its own version.
    let name = RowName::plain(0x01, [1]);
    let mut counters = staged.get(&name).unwrap().unwrap().to_vec();
    counters[1..].fill(0);
    staged.put(name, counters);
    let changes = staged.into_changes();
    store.commit_blocking(changes).unwrap();
    let found = format!("{:?}", Device::inspect(&store).unwrap());
    for word in [
        "one-time prekey",
        "signed prekey",
        "KEM prekey",
        "session",
        "inbox",
        "outbox",
        "task",
    ] {
        assert!(found.contains(word), "{word}: {found}");
    }
}

#[test]
fn profile_on_disk_is_examined_and_repaired_and_goes_on() {
    let mut world = World::on_disk(2);
    let (alice, bob) = (world.join("alice"), world.join("bob"));
    world.send(alice, "bob", b"hello");
    world.settle();
    let path = world.path(alice).to_owned();
    let open = Client::doctor(&path, key());
    assert_eq!(open.unwrap_err().code(), "store_in_use");
    world.client(alice).close().unwrap();
    let checkup = Client::doctor(&path, key()).unwrap();
    assert_eq!(checkup.findings, []);
    assert!(!checkup.is_damaged());
    assert!(Client::repair(&path, key()).unwrap().is_none());
    assert_eq!(
        Client::doctor(&path, Key::raw([6; 32])).unwrap_err().code(),
        "wrong_key"
    );
    let nothing = Client::doctor(path.with_file_name("nobody"), key());
    assert_eq!(nothing.unwrap_err().code(), "no_profile");

    fs::remove_file(path.join("MANIFEST")).unwrap();
    let refused = Client::open(&path, key());
    assert_eq!(refused.unwrap_err().code(), "store_damaged");
    let checkup = Client::doctor(&path, key()).unwrap();
    assert!(checkup.is_damaged());
    assert_eq!(checkup.findings[0].code, "manifest_missing");
    assert_eq!(checkup.findings[0].severity, Severity::Damage);
    let repaired = Client::repair(&path, key()).unwrap().unwrap();
    assert_eq!(repaired.after.findings, []);
    assert_eq!(repaired.done, checkup.remedies);
    assert!(repaired.aside.is_dir());
    world.restart(alice);
    world.send(alice, "bob", b"still here");
    world.settle();
    assert_eq!(world.heard(bob).len(), 2);
}
