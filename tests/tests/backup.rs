//! A device is lost, and comes back out of a backup as a new one.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::collections::HashSet;
use std::ops::ControlFlow;

use sprag::store::{RowName, Rows, Staged};
use sprag::{Argon2Params, Client, CopyStatus, Event, Failure, Key, RecoveryKey, Restore, Task};
use sprag_crypto::{SealKey, hkdf, sha256};
use sprag_session::{BackupError, BackupRecord};
use sprag_tests::world::{Who, World};
use sprag_wire::UnverifiedDeviceList;
use sprag_wire::relay::{ListReply, ListState, Lists};

fn passphrase(text: &str) -> Key {
    Key::passphrase_with(text, Argon2Params::LEAST)
}

/// Alice and Bob have talked, and Alice's device makes a backup.
fn story(seed: u64) -> (World, Who, Who, Vec<u8>, Key) {
    let mut world = World::new(seed);
    let (alice, bob) = (world.join("alice"), world.join("bob"));
    world.send(alice, "bob", b"hello");
    world.settle();
    world.send(bob, "alice", b"hello yourself");
    world.settle();
    let key = world.client(alice).new_recovery_key().unwrap().to_key();
    let backup = backup_of(&world, alice, &key);
    (world, alice, bob, backup, key)
}

fn backup_of(world: &World, who: Who, key: &Key) -> Vec<u8> {
    let keys = std::slice::from_ref(key);
    world.client(who).create_backup(keys).unwrap()
}

fn restored(world: &World, who: Who) -> bool {
    let events = world.client(who).events(0).unwrap();
    events
        .iter()
        .any(|event| matches!(event.event, Event::Restored { .. }))
}

fn said(from: &str, text: &str) -> (String, Vec<u8>) {
    (from.to_owned(), text.as_bytes().to_vec())
}

fn devices_of(world: &World, who: Who, user: &str) -> Vec<u32> {
    world.client(who).contact(user).unwrap().unwrap().devices
}

fn question(world: &mut World, who: Who) -> Task {
    let tasks = world.tasks(who);
    let [task @ Task::FetchDevices { .. }] = &tasks[..] else {
        panic!("{tasks:?}");
    };
    task.clone()
}

/// Nothing was signed and nothing given to anybody: no list, no prekeys, no message.
fn nothing_published(world: &mut World, who: Who) {
    world.wait(3_600_000);
    let me = world.address(who).device();
    for task in world.tasks(who) {
        match task {
            Task::FetchDevices { .. } => {}
            // What was signed before, for a server that lost it.
            Task::PublishDevices { lists, .. } => {
                for frame in Lists::decode(&lists).unwrap().frames {
                    let list = UnverifiedDeviceList::decode(&frame).unwrap();
                    assert!(!list.devices().iter().any(|entry| entry.device() == me));
                }
            }
            task => panic!("{task:?}"),
        }
    }
    assert!(!restored(world, who));
    let refused = world.client(who).send_encrypted_message("bob", b"?");
    assert_eq!(refused.unwrap_err().code(), "unlisted_device");
}

#[test]
fn a_lost_device_comes_back_as_a_new_one_that_talks_with_everybody() {
    let (mut world, alice, bob, _, key) = story(1);
    let carols = world.join_with_devices("carol", 3);
    world.send(alice, "carol", b"hello carol");
    world.settle();
    let backup = backup_of(&world, alice, &key);
    let old = world.address(alice).clone();
    let number = world.client(alice).safety_number("bob").unwrap();
    world.lose(alice);

    let how = Restore::new().of_user("alice").replacing_source();
    let new = world.restore("alice", &backup, &key, &how).unwrap();
    assert_ne!(world.address(new), &old);
    // It sends nothing before the server took its list.
    let refused = world.client(new).send_encrypted_message("bob", b"?");
    assert_eq!(refused.unwrap_err().code(), "unlisted_device");
    world.settle();
    assert!(restored(&world, new));
    let me = world.address(new).device().get();
    assert_eq!(devices_of(&world, new, "alice"), [me]);

    // Old contacts are who they were, also those with several devices, and learn the new list.
    assert_eq!(world.client(new).safety_number("bob").unwrap(), number);
    let to_bob = world.send(new, "bob", b"I am back");
    let to_carol = world.send(new, "carol", b"back, too");
    world.settle();
    assert_eq!(world.heard(bob).last(), Some(&said("alice", "I am back")));
    for carol in &carols {
        assert_eq!(
            world.heard(*carol).last(),
            Some(&said("alice", "back, too"))
        );
    }
    for (message, copies) in [(to_bob, 1), (to_carol, 3)] {
        let status = world.client(new).status(message).unwrap().unwrap();
        assert_eq!(status.len(), copies);
    }
    assert_eq!(devices_of(&world, bob, "alice"), [me]);
    world.send(bob, "alice", b"welcome");
    world.send(carols[2], "alice", b"welcome from three");
    world.settle();
    assert_eq!(
        world.heard(new),
        [said("bob", "welcome"), said("carol", "welcome from three")]
    );
    let status = world.client(new).status(to_bob).unwrap().unwrap();
    assert_eq!(status[0].status, CopyStatus::Received);
}

#[test]
fn sessions_of_a_replaced_device_are_closed_and_the_others_go_on() {
    let (mut world, alice, bob, backup, key) = story(2);
    // All stay: both devices get what Bob writes.
    let second = world
        .restore("alice", &backup, &key, &Restore::new())
        .unwrap();
    world.settle();
    assert!(restored(&world, second));
    world.send(second, "bob", b"from the second");
    world.settle();
    world.send(bob, "alice", b"to both");
    world.settle();
    for who in [alice, second] {
        assert_eq!(world.heard(who).last(), Some(&said("bob", "to both")));
    }
    // A third one takes the first off.
    let first = world.address(alice).device().get();
    let how = Restore::new().replacing(&[first, 4_000_000_000]).unwrap();
    let third = world.restore("alice", &backup, &key, &how).unwrap();
    world.settle();
    let listed = [second, third].map(|who| world.address(who).device().get());
    assert_eq!(
        HashSet::<u32>::from_iter(devices_of(&world, third, "alice")),
        HashSet::from(listed)
    );
    world.send(third, "bob", b"from the third");
    world.settle();
    world.send(bob, "alice", b"to whom it concerns");
    world.settle();
    assert_eq!(world.heard(alice).last(), Some(&said("bob", "to both")));
    for who in [second, third] {
        assert_eq!(
            world.heard(who).last(),
            Some(&said("bob", "to whom it concerns"))
        );
    }
}

#[test]
fn restoring_twice_makes_two_devices_and_an_old_backup_finds_newer_ones() {
    let (mut world, alice, bob, backup, key) = story(3);
    let mut all = vec![world.address(alice).device().get()];
    for epoch in 2..5 {
        let new = world
            .restore("alice", &backup, &key, &Restore::new())
            .unwrap();
        world.settle();
        assert!(restored(&world, new));
        all.push(world.address(new).device().get());
        all.sort_unstable();
        let mut listed = devices_of(&world, new, "alice");
        listed.sort_unstable();
        assert_eq!(listed, all, "epoch {epoch}");
    }
    let last = Restore::new().replacing_all();
    let last = world.restore("alice", &backup, &key, &last).unwrap();
    world.settle();
    let me = world.address(last).device().get();
    assert_eq!(devices_of(&world, last, "alice"), [me]);
    world.send(last, "bob", b"alone");
    world.settle();
    assert_eq!(world.heard(bob).last(), Some(&said("alice", "alone")));
}

#[test]
fn a_contact_whose_key_is_another_one_after_the_restore_is_not_trusted() {
    let (mut world, alice, .., backup, key) = story(4);
    world.lose(alice);
    let new = world
        .restore("alice", &backup, &key, &Restore::new())
        .unwrap();
    world.settle();
    // The server shows somebody else under Bob's name.
    let mut elsewhere = World::new(40);
    elsewhere.join("bob");
    world.send(new, "bob", b"for the real one");
    // Nothing brought his list to this device: it is asked for first, after our own, and that fails here.
    for _ in 0..2 {
        for task in world.tasks(new) {
            if matches!(task, Task::FetchDevices { .. }) {
                let later = Failure::NotYet(60_000);
                world.client(new).failed(task.id(), &later).unwrap();
            }
        }
    }
    let tasks = world.tasks(new);
    let fetch = tasks.iter().find_map(|task| match task {
        Task::FetchBundles { id, query, .. } => Some((*id, query.clone())),
        _ => None,
    });
    let (id, query) = fetch.unwrap();
    let reply = elsewhere.server().bundles(&query).unwrap();
    let refused = world.client(new).supply(id, &reply).unwrap_err();
    assert_eq!(refused.code(), "untrusted_identity");
    let contact = world.client(new).contact("bob").unwrap().unwrap();
    assert!(contact.changed && contact.accepted);
    let delivers = |task: &Task| matches!(task, Task::Deliver { .. });
    assert!(!world.tasks(new).iter().any(delivers));
}

/// Finds any 16 bytes of one in the other, but for counts and zeros: no key looks like those.
fn shares(haystack: &HashSet<[u8; 16]>, needle: &[u8]) -> bool {
    needle
        .windows(16)
        .filter(|window| window.iter().collect::<HashSet<_>>().len() >= 8)
        .any(|window| haystack.contains(&<[u8; 16]>::try_from(window).unwrap()))
}

/// Opens a backup as `docs/BACKUP.md` says, with nothing of the library but the primitives.
fn opened_by_hand(file: &[u8], recovery: &RecoveryKey) -> Vec<u8> {
    assert_eq!(&file[..10], b"SPRAGBAK\x01\x01");
    let (before, hash) = file.split_at(file.len() - 32);
    assert_eq!(hash, sha256(&[before]));
    let (slot, wrapped) = before[10..103].split_at(29);
    assert_eq!(slot[0], 1);
    let unlock = hkdf::<32>(&slot[1..17], recovery.as_bytes(), &[b"Sprag/1 unlock"]);
    let ad = [&before[..10], slot].concat();
    let data_key = SealKey::from_bytes(&unlock).open(b"Sprag/1 backup key", &ad, wrapped);
    let data_key: [u8; 32] = data_key.unwrap().as_slice().try_into().unwrap();
    let plaintext = SealKey::from_bytes(&data_key)
        .open(b"Sprag/1 backup", &before[..103], &before[103..])
        .unwrap();
    let length = u32::from_be_bytes(plaintext[..4].try_into().unwrap()) as usize;
    assert!(plaintext[4 + length..].iter().all(|byte| *byte == 0));
    plaintext[4..4 + length].to_vec()
}

#[test]
fn an_opened_backup_has_nothing_of_any_ratchet_prekey_message_or_identity_key() {
    let (mut world, alice, bob, ..) = story(5);
    // Skipped keys, a pending handshake, an inbox and an outbox, too.
    world.send(bob, "alice", b"skipped");
    world.work(bob);
    for (id, _) in world.waiting(alice) {
        world.forget(alice, &id);
    }
    world.send(bob, "alice", b"read it later, says the inbox");
    world.work(bob);
    world.poll(alice);
    world.join("carol");
    world.send(alice, "carol", b"a pending handshake");
    world.work(alice);
    world.send(alice, "dave", b"waits for somebody who is not there");
    world.send(alice, "bob", b"not handed over");

    let recovery = world.client(alice).new_recovery_key().unwrap();
    let backup = backup_of(&world, alice, &recovery.to_key());
    let plaintext = opened_by_hand(&backup, &recovery);
    let mut known: HashSet<[u8; 16]> = plaintext
        .windows(16)
        .map(|window| window.try_into().unwrap())
        .collect();
    let mut found = 0;
    let mut identity = [0; 32];
    let mut account = [0; 32];
    world.edit_rows(alice, |rows| {
        // Our own list is no secret, nor is a handshake that waits for its answer: it has hashes of lists in it.
        for table in [0x15, 0x12] {
            rows.scan(&RowName::plain(table, []), &mut |suffix, value| {
                if table == 0x15 || suffix.last() == Some(&2) {
                    for window in value.windows(16) {
                        known.remove(window);
                    }
                }
                ControlFlow::Continue(())
            })
            .unwrap();
        }
        // Prekeys; hot parts, constants and old chains of sessions; skipped keys; inbox, outbox, frames.
        for table in [0x02, 0x03, 0x04, 0x12, 0x13, 0x30, 0x40, 0x42] {
            let mut count = 0;
            rows.scan(&RowName::plain(table, []), &mut |suffix, value| {
                assert!(!shares(&known, value), "table {table:02x} {suffix:?}");
                count += usize::from(value.len() >= 16);
                ControlFlow::Continue(())
            })
            .unwrap();
            assert!(count > 0, "table {table:02x} has nothing to look for");
            found += count;
        }
        let device = rows.get(&RowName::plain(0x01, [0])).unwrap().unwrap();
        // user(4 + 5) ‖ device ‖ features ‖ identity key(32) ‖ account key(33) ‖ 1 ‖ private(32), after the version.
        identity.copy_from_slice(&device[18..50]);
        account.copy_from_slice(&device[84..116]);
    });
    assert!(found > 100);
    assert!(!shares(&known, &identity));
    // And the search does find what is there.
    assert!(shares(&known, &account));
    let record = BackupRecord::decode(&plaintext).unwrap();
    assert!(record.is_holder());
    assert_eq!(record.contacts(), 2);
}

#[test]
fn what_is_no_backup_opens_nothing_and_writes_nothing() {
    let (mut world, alice, .., backup, key) = story(6);
    let devices = world.devices();
    let mut damaged = backup.clone();
    damaged[200] ^= 1;
    let mut newer = backup.clone();
    newer[8] = 2;
    let of_bob = Restore::new().of_user("bob");
    let any = Restore::new();
    let wrong = RecoveryKey::from_bytes([9; 32]).to_key();
    let cases: [(&[u8], &Key, &Restore, &str); 9] = [
        (&damaged, &key, &any, "backup_damaged"),
        (&backup[..backup.len() - 1], &key, &any, "backup_damaged"),
        (&backup[..9], &key, &any, "backup_damaged"),
        (&[], &key, &any, "backup_damaged"),
        (b"SPRAGVLT", &key, &any, "backup_damaged"),
        (&newer, &key, &any, "backup_version"),
        (&backup, &wrong, &any, "wrong_key"),
        (&backup, &passphrase("horse"), &any, "wrong_key"),
        (&backup, &key, &of_bob, "other_user"),
    ];
    for (file, opener, how, code) in cases {
        let error = world.restore("alice", file, opener, how).unwrap_err();
        assert_eq!(error.code(), code);
        if code != "other_user" {
            let error = Client::verify_backup(file, opener).unwrap_err();
            assert_eq!(error.code(), code);
        }
    }
    assert_eq!(world.devices(), devices);
    // A store that holds somebody is not overwritten.
    world.client(alice).close().unwrap();
    assert!(Restore::new().replacing(&[0]).is_err());
    assert!(Restore::new().replacing(&[70_000; 33]).is_err());
}

#[test]
fn a_summary_says_what_is_in_it_for_either_key() {
    let (mut world, alice, ..) = story(7);
    world.join("stranger");
    let recovery = world.client(alice).new_recovery_key().unwrap();
    let keys = [passphrase("correct horse"), recovery.to_key()];
    let backup = world.client(alice).create_backup(&keys).unwrap();
    for key in &keys {
        let summary = Client::verify_backup(&backup, key).unwrap();
        assert_eq!(summary.user, "alice");
        assert_eq!(summary.device, world.address(alice).device().get());
        assert_eq!(summary.made_at, world.now());
        assert_eq!((summary.contacts, summary.epoch), (1, 1));
        assert_eq!(summary.devices, [summary.device]);
        assert!(summary.holder);
    }
    let typed = RecoveryKey::from_text(&recovery.to_text().to_lowercase()).unwrap();
    assert!(Client::verify_backup(&backup, &typed.to_key()).is_ok());
    for keys in [&[][..], &[keys[0].clone(), passphrase("another")]] {
        let refused = world.client(alice).create_backup(keys).unwrap_err();
        assert_eq!(refused.code(), "bad_input");
    }
}

#[test]
fn a_server_that_shows_an_older_list_than_the_backup_knows_is_not_followed() {
    let (mut world, .., backup, key) = story(8);
    let first = world
        .restore("alice", &backup, &key, &Restore::new())
        .unwrap();
    let old = {
        let Task::FetchDevices { query, .. } = question(&mut world, first) else {
            panic!();
        };
        world.server().lists(&query).unwrap()
    };
    world.settle();
    // This one knows epoch 2, and the server plays epoch 1.
    let newer = backup_of(&world, first, &key);
    assert_eq!(Client::verify_backup(&newer, &key).unwrap().epoch, 2);
    let second = world
        .restore("alice", &newer, &key, &Restore::new())
        .unwrap();
    let id = question(&mut world, second).id();
    let refused = world.client(second).supply(id, &old).unwrap_err();
    assert_eq!(refused.code(), "stale_list");
    nothing_published(&mut world, second);
    // It comes to its senses.
    world.settle();
    assert!(restored(&world, second));
}

#[test]
fn a_server_that_contradicts_the_backup_is_a_fork_and_the_user_is_told() {
    let (mut world, .., backup, key) = story(9);
    // Another server took another list of epoch 2.
    let mut other = World::new(90);
    let Task::PublishDevices { lists, .. } = ({
        let mut first = World::new(9);
        let alice = first.join_offline("alice");
        let tasks = first.tasks(alice);
        tasks
            .into_iter()
            .find(|task| matches!(task, Task::PublishDevices { .. }))
            .unwrap()
    }) else {
        panic!();
    };
    other.server().publish_lists(&lists).unwrap();
    let forked = other
        .restore("alice", &backup, &key, &Restore::new())
        .unwrap();
    other.work(forked);

    let second = world
        .restore("alice", &backup, &key, &Restore::new())
        .unwrap();
    world.settle();
    let newer = backup_of(&world, second, &key);
    let third = world
        .restore("alice", &newer, &key, &Restore::new())
        .unwrap();
    let Task::FetchDevices { id, query, .. } = question(&mut world, third) else {
        panic!();
    };
    let reply = other.server().lists(&query).unwrap();
    let refused = world.client(third).supply(id, &reply).unwrap_err();
    assert_eq!(refused.code(), "forked_list");
    let events = world.client(third).events(0).unwrap();
    assert!(
        events
            .iter()
            .any(|event| matches!(&event.event, Event::OwnListForked { .. }))
    );
    nothing_published(&mut world, third);
}

#[test]
fn a_server_that_withholds_what_it_has_is_asked_again_and_nothing_is_signed() {
    let (mut world, .., backup, key) = story(10);
    let new = world
        .restore("alice", &backup, &key, &Restore::new())
        .unwrap();
    let Task::FetchDevices { id, query, .. } = question(&mut world, new) else {
        panic!();
    };
    let honest = ListReply::decode(&world.server().lists(&query).unwrap()).unwrap();
    let state = honest.newest.clone().unwrap();
    let later = ListState::new(state.generation, state.epoch + 1, vec![7; 32], 1);
    let other = ListState::new(state.generation, state.epoch, vec![7; 32], 1);
    for (reply, code) in [
        (ListReply::new(Some(later), Vec::new(), false), "malformed"),
        (
            ListReply::new(Some(other), Vec::new(), false),
            "forked_list",
        ),
        (ListReply::new(None, Vec::new(), false), "malformed"),
        (
            ListReply::new(Some(state), vec![vec![0x14; 40]], false),
            "malformed",
        ),
    ] {
        let refused = world.client(new).supply(id, &reply.encode()).unwrap_err();
        assert_eq!(refused.code(), code);
        let retried = world.client(new).retry(id);
        assert!(retried.is_ok());
    }
    nothing_published(&mut world, new);
    world.settle();
    assert!(restored(&world, new));
}

#[test]
fn a_server_that_lost_the_account_gets_its_lists_back_first() {
    let (mut world, alice, .., backup, key) = story(11);
    let second = world
        .restore("alice", &backup, &key, &Restore::new())
        .unwrap();
    world.settle();
    let newer = backup_of(&world, second, &key);
    world.lose(alice);
    world.lose(second);
    // A new server, which has never heard of Alice.
    let mut anew = World::new(110);
    let third = anew.restore("alice", &newer, &key, &Restore::new().replacing_all());
    let third = third.unwrap();
    let id = question(&mut anew, third).id();
    anew.client(third).failed(id, &Failure::NoSuchUser).unwrap();
    anew.settle();
    assert!(restored(&anew, third));
    let me = anew.address(third).device().get();
    assert_eq!(devices_of(&anew, third, "alice"), [me]);
    let summary = Client::verify_backup(&backup_of(&anew, third, &key), &key).unwrap();
    assert_eq!(summary.epoch, 3);
}

#[test]
fn a_restore_that_dies_at_any_step_goes_on_where_it_was() {
    for step in 0..12 {
        let (mut world, alice, bob, backup, key) = story(12);
        world.lose(alice);
        let how = Restore::new().replacing_source();
        let new = world.restore("alice", &backup, &key, &how).unwrap();
        let address = world.address(new).clone();
        let mut left = step;
        'work: for _ in 0..10 {
            for task in world.tasks(new) {
                if left == 0 {
                    break 'work;
                }
                left -= 1;
                world.perform(new, &task);
            }
        }
        world.crash(new);
        assert_eq!(world.client(new).address().unwrap(), address);
        world.settle();
        assert!(restored(&world, new), "step {step}");
        assert_eq!(
            devices_of(&world, new, "alice"),
            [address.device().get()],
            "step {step}"
        );
        world.send(new, "bob", b"alive");
        world.settle();
        assert_eq!(world.heard(bob).last(), Some(&said("alice", "alive")));
    }
}

#[test]
fn records_are_read_strictly() {
    let (mut world, alice, ..) = story(13);
    let recovery = world.client(alice).new_recovery_key().unwrap();
    let backup = backup_of(&world, alice, &recovery.to_key());
    let record = opened_by_hand(&backup, &recovery);
    assert_eq!(
        *BackupRecord::decode(&record).unwrap().encode().unwrap(),
        record
    );
    for length in 0..record.len() {
        assert!(BackupRecord::decode(&record[..length]).is_err());
    }
    let longer = [&record[..], &[0]].concat();
    assert!(matches!(
        BackupRecord::decode(&longer),
        Err(BackupError::Damaged)
    ));
    let mut newer = record.clone();
    newer[0] = 2;
    assert!(matches!(
        BackupRecord::decode(&newer),
        Err(BackupError::Version)
    ));
    // Whatever still reads says again what it says.
    for at in 0..record.len() {
        for bit in [1, 16, 128] {
            let mut bad = record.clone();
            bad[at] ^= bit;
            if let Ok(read) = BackupRecord::decode(&bad) {
                assert_eq!(*read.encode().unwrap(), bad, "byte {at}");
            }
        }
    }
    // Counts that the bytes do not bear out cost nothing.
    for at in 0..record.len() - 4 {
        let mut bad = record.clone();
        bad[at..at + 4].copy_from_slice(&[0xff; 4]);
        if let Ok(read) = BackupRecord::decode(&bad) {
            assert_eq!(*read.encode().unwrap(), bad, "byte {at}");
        }
    }
    world.edit_rows(alice, |rows: &mut Staged<'_>| {
        let _ = rows;
    });
}
