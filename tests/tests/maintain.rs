//! Upkeep over months: what is rotated, kept, deleted and never used again, also with a clock that lies.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::collections::BTreeMap;

use sprag::store::Rows;
use sprag::{Client, Event, Failure, Key, Task, UpkeepSettings};
use sprag_crypto::{Features, IdentityKeyPair};
use sprag_session::{CLOCK_JUMP_MS, Device, RETENTION_MS, SEEN_ROTATES, want_renewal};
use sprag_tests::world::{BEGINNING, Who, World};
use sprag_wire::relay::{BundleQuery, PreKeyState, PreKeyUpload};
use sprag_wire::{Envelope, SignedPreKeyId};
use sprag_x3dh::SignedPreKeyPair;

const DAY: u64 = 24 * 3_600 * 1_000;
const SIGNED: u8 = 0x03;
const KEM: u8 = 0x04;
const SEEN: u8 = 0x05;
const OUTBOX: u8 = 0x40;
/// The first of January 2099, in milliseconds.
const YEAR_2099: u64 = 4_070_908_800_000;

/// Every prekey that was ever offered for publication. An id names one key for ever.
#[derive(Default)]
struct Published {
    keys: BTreeMap<(u8, u32), Vec<u8>>,
    /// The newest id of each counter that an upload brought as new.
    numbers: Vec<u64>,
}

impl Published {
    fn note(&mut self, tasks: &[Task]) {
        for task in tasks {
            if let Task::PublishPreKeys { upload, .. } = task {
                let upload = PreKeyUpload::decode(upload).unwrap();
                self.numbers.push(upload.number);
                let signed = &upload.signed_pre_key;
                self.one(1, signed.id.get(), signed.encode());
                for kem in upload.kem_pre_keys.iter().chain([&upload.last_resort]) {
                    self.one(2, kem.id.get(), kem.encode());
                }
                for key in &upload.one_time_pre_keys {
                    self.one(0, key.id.get(), key.public_key.as_bytes().to_vec());
                }
            }
        }
    }

    fn one(&mut self, counter: u8, id: u32, key: Vec<u8>) {
        let before = self
            .keys
            .entry((counter, id))
            .or_insert_with(|| key.clone());
        assert_eq!(
            *before, key,
            "the id {id} of counter {counter} names two keys"
        );
    }

    fn newest(&self, counter: u8) -> u32 {
        let ids = self.keys.keys().filter(|(kind, _)| *kind == counter);
        ids.map(|(_, id)| *id).max().unwrap()
    }
}

fn pair(seed: u64) -> (World, Who, Who) {
    let mut world = World::new(seed);
    let (alice, bob) = (world.join("alice"), world.join("bob"));
    (world, alice, bob)
}

fn set_clock(world: &mut World, now: u64) {
    world.wait(now.wrapping_sub(world.now()));
    assert_eq!(world.now(), now);
}

/// A day passes, with upkeep and what it leaves to the network.
fn day(world: &mut World, who: Who, published: &mut Published) -> sprag::Upkeep {
    world.wait(DAY);
    let done = world.client(who).maintain().unwrap();
    published.note(&world.tasks(who));
    world.work(who);
    done
}

fn days(world: &mut World, who: Who, count: u64) -> Published {
    let mut published = Published::default();
    for _ in 0..count {
        day(world, who, &mut published);
    }
    published
}

/// A first message to bob on a bundle of now, which nobody delivers yet.
fn undelivered(world: &mut World, from: &str) -> Vec<u8> {
    let who = world.join(from);
    world.send(who, "bob", from.as_bytes());
    let fetch = world.tasks(who).remove(0);
    world.perform(who, &fetch);
    match world.tasks(who).remove(0) {
        Task::Deliver { envelope, .. } => envelope,
        other => panic!("{other:?}"),
    }
}

fn refusal(world: &mut World, who: Who, envelope: &[u8]) -> Option<&'static str> {
    let received = world.receive(who, envelope);
    received.refused().map(sprag::Refusal::code)
}

#[test]
fn months_of_upkeep_rotate_weekly_and_keep_thirteen_generations_and_use_no_id_twice() {
    let (mut world, _, bob) = pair(1);
    let mut published = Published::default();
    let (mut rotated, mut deleted) = (0, 0);
    for day_number in 1..=200_u64 {
        let done = day(&mut world, bob, &mut published);
        rotated += u32::from(done.rotated);
        deleted += done.deleted;
        assert!(done.waits_for_confirmation.is_none());
        // The first one ended on day 7, and upkeep saw it on day 8.
        assert_eq!(deleted > 0, day_number >= 98, "day {day_number}");
        assert!(world.shelf(bob).count(SIGNED) <= 15);
        assert!(world.shelf(bob).count(KEM) <= 115);
    }
    assert_eq!(rotated, 28);
    // A signed and a last-resort prekey of each generation.
    assert_eq!(deleted, 2 * 15);
    assert_eq!(world.shelf(bob).count(SIGNED), 1 + 28 - 15);
    assert_eq!(published.newest(1), 29);
    assert!(world.client(bob).maintain().unwrap() == sprag::Upkeep::default());
}

#[test]
fn a_message_on_a_bundle_of_89_days_ago_is_read_and_one_on_a_deleted_prekey_is_not() {
    let (mut world, _, bob) = pair(2);
    days(&mut world, bob, 6);
    // The bundle of today is replaced tomorrow, and upkeep sees it the day after.
    let late = undelivered(&mut world, "carol");
    let too_late = undelivered(&mut world, "dave");
    days(&mut world, bob, 2 + 89);
    assert_eq!(refusal(&mut world, bob, &late), None);
    days(&mut world, bob, 2);
    assert_eq!(refusal(&mut world, bob, &too_late), Some("unknown_pre_key"));
    world.read(bob);
    assert_eq!(world.heard(bob), [("carol".into(), b"carol".to_vec())]);
}

#[test]
fn a_handshake_on_the_prekeys_from_before_a_rotation_works() {
    let (mut world, alice, bob) = pair(3);
    let before = undelivered(&mut world, "carol");
    days(&mut world, bob, 8);
    let after = undelivered(&mut world, "dave");
    assert_eq!(refusal(&mut world, bob, &before), None);
    assert_eq!(refusal(&mut world, bob, &after), None);
    world.send(alice, "bob", b"hello");
    world.settle();
    assert_eq!(world.heard(bob).len(), 3);
}

#[test]
fn a_rotation_waits_for_the_one_before_to_be_published() {
    let (mut world, _, bob) = pair(4);
    let mut rotated = 0;
    for _ in 0..60 {
        world.wait(DAY);
        rotated += u32::from(world.client(bob).maintain().unwrap().rotated);
    }
    assert_eq!(rotated, 1);
    assert_eq!(world.shelf(bob).count(SIGNED), 2);
    let uploads = world.tasks(bob);
    assert_eq!(uploads.len(), 1);
    world.work(bob);
    assert!(world.client(bob).maintain().unwrap().rotated);
}

#[test]
fn an_upload_that_the_server_refused_is_superseded_by_the_next_rotation() {
    let (mut world, _, bob) = pair(5);
    world.wait(7 * DAY);
    assert!(world.client(bob).maintain().unwrap().rotated);
    let refused = world.tasks(bob).remove(0);
    let client = world.client(bob).clone();
    client.failed(refused.id(), &Failure::Refused(3)).unwrap();
    world.wait(DAY);
    assert!(!client.maintain().unwrap().rotated);
    world.wait(7 * DAY);
    assert!(client.maintain().unwrap().rotated);
    client.retry(refused.id()).unwrap();
    let mut published = Published::default();
    published.note(&world.tasks(bob));
    assert_eq!((published.numbers.len(), published.newest(1)), (1, 3));
    world.work(bob);
    assert!(world.client(bob).maintain().unwrap() == sprag::Upkeep::default());
}

/// Bob after 14 weeks of weekly upkeep: generations wait for their end, the oldest one for the next week, and a message
/// waits for carol.
fn about_to_delete(seed: u64) -> (World, Who) {
    let (mut world, _, bob) = pair(seed);
    for _ in 0..14 {
        world.wait(7 * DAY);
        assert_eq!(world.client(bob).maintain().unwrap().deleted, 0);
        world.work(bob);
    }
    assert_eq!(world.shelf(bob).count(SIGNED), 15);
    world.send(bob, "carol", b"are you there?");
    (world, bob)
}

#[test]
fn a_phone_in_2099_or_1970_destroys_nothing_and_goes_on_when_its_clock_is_right() {
    for wrong in [YEAR_2099, 0, 1, BEGINNING - DAY, u64::MAX - 50 * DAY] {
        let (mut world, bob) = about_to_delete(6);
        let right = world.now();
        let (kem, rows) = (world.shelf(bob).count(KEM), world.shelf(bob).count(OUTBOX));
        let early = undelivered(&mut world, "erin");
        set_clock(&mut world, wrong);
        for _ in 0..8 {
            let done = world.client(bob).maintain().unwrap();
            assert_eq!((done.deleted, done.expired), (0, 0));
            let doubt = done.waits_for_confirmation.unwrap();
            assert_eq!((doubt.last, doubt.now), (right, world.now()));
            world.client(bob).expire().unwrap();
            // What it rotates it publishes.
            for task in world.tasks(bob) {
                if matches!(task, Task::PublishPreKeys { .. }) {
                    world.perform(bob, &task);
                }
            }
            assert!(world.shelf(bob).count(SIGNED) >= 15 && world.shelf(bob).count(KEM) >= kem);
            assert_eq!(world.shelf(bob).count(OUTBOX), rows);
            world.wait(DAY);
        }
        let told = |event: &&sprag::NumberedEvent| matches!(event.event, Event::ClockJumped { .. });
        let events = world.client(bob).events(0).unwrap();
        assert_eq!(events.iter().filter(told).count(), 1, "told once");
        // 20 days later the clock is right, and what was due is done.
        set_clock(&mut world, right + 20 * DAY);
        let done = world.client(bob).maintain().unwrap();
        assert_eq!(done.waits_for_confirmation, None);
        assert_eq!((done.deleted, done.expired), (2, 1));
        assert_eq!(refusal(&mut world, bob, &early), None);
    }
}

#[test]
fn a_clock_that_jumps_at_every_call_destroys_nothing() {
    let (mut world, bob) = about_to_delete(7);
    let right = world.now();
    let mut published = Published::default();
    for round in 0..60 {
        let wrong = [YEAR_2099, 0, right + 60 * DAY, right - 3 * DAY][round % 4];
        set_clock(&mut world, wrong + round as u64);
        let done = world.client(bob).maintain().unwrap();
        assert_eq!((done.deleted, done.expired), (0, 0));
        let tasks = world.tasks(bob);
        published.note(&tasks);
        for task in tasks {
            if matches!(task, Task::PublishPreKeys { .. }) {
                world.perform(bob, &task);
            }
        }
    }
    set_clock(&mut world, right + 7 * DAY);
    assert_eq!(world.client(bob).maintain().unwrap().deleted, 2);
}

#[test]
fn a_profile_that_was_never_looked_after_does_not_believe_2099_either() {
    let (mut world, _, bob) = pair(8);
    world.send(bob, "carol", b"are you there?");
    set_clock(&mut world, YEAR_2099);
    world.client(bob).expire().unwrap();
    assert!(
        world
            .client(bob)
            .maintain()
            .unwrap()
            .waits_for_confirmation
            .is_some()
    );
    assert_eq!(world.shelf(bob).count(OUTBOX), 2, "the message is there");
}

#[test]
fn a_confirmed_jump_counts_for_thirty_days_and_only_the_time_that_was_shown_is_confirmed() {
    let (mut world, bob) = about_to_delete(9);
    world.wait(CLOCK_JUMP_MS + 1);
    let client = world.client(bob).clone();
    let doubt = client.maintain().unwrap().waits_for_confirmation.unwrap();
    for wrong in [
        0,
        doubt.last,
        doubt.now - DAY - 1,
        doubt.now + DAY + 1,
        u64::MAX,
    ] {
        assert_eq!(client.confirm_time(wrong).unwrap_err().code(), "bad_input");
    }
    assert!(client.maintain().unwrap().waits_for_confirmation.is_some());
    client.confirm_time(doubt.now).unwrap();
    let done = client.maintain().unwrap();
    assert_eq!(
        (done.deleted, done.expired, done.waits_for_confirmation),
        (2, 1, None)
    );
    // A wrong word of the user: 30 days count, and one generation goes with each call.
    set_clock(&mut world, YEAR_2099);
    client.maintain().unwrap();
    client.confirm_time(YEAR_2099).unwrap();
    let before = world.shelf(bob).count(SIGNED);
    let mut deleted = 0;
    for _ in 0..20 {
        deleted += client.maintain().unwrap().deleted;
    }
    assert!(
        deleted > 0 && before - world.shelf(bob).count(SIGNED) <= 9,
        "{deleted}"
    );
}

#[test]
fn a_long_time_without_upkeep_deletes_one_generation_with_each_call() {
    let (mut world, bob) = about_to_delete(10);
    for _ in 0..4 {
        world.wait(25 * DAY);
        let before = world.shelf(bob).count(SIGNED);
        let done = world.client(bob).maintain().unwrap();
        assert_eq!(done.deleted, 2);
        assert_eq!(world.shelf(bob).count(SIGNED), before);
        world.work(bob);
    }
}

#[test]
fn the_newest_prekeys_stay_however_old_they_are_if_none_newer_were_published() {
    let (mut world, _, bob) = pair(11);
    days(&mut world, bob, 7);
    // Offline for a year: the second generation is made, and never published.
    let old = undelivered(&mut world, "carol");
    for _ in 0..60 {
        world.wait(6 * DAY);
        assert_eq!(world.client(bob).maintain().unwrap().deleted, 0);
    }
    assert_eq!(refusal(&mut world, bob, &old), None);
}

#[test]
fn two_calls_at_once_are_one() {
    let (mut world, _, bob) = pair(12);
    world.wait(7 * DAY);
    let (client, shelf) = (world.client(bob).clone(), world.shelf(bob).clone());
    shelf.take_written();
    shelf.hold();
    let first = client.start().maintain();
    while shelf.held() == 0 {
        std::thread::yield_now();
    }
    let others: Vec<_> = (0..8).map(|_| client.start().maintain()).collect();
    shelf.release();
    let done = first.wait().unwrap();
    assert!(done.rotated);
    for other in others {
        assert_eq!(other.wait().unwrap(), done);
    }
    assert_eq!(shelf.take_written().len(), 1);
    assert!(
        !client.maintain().unwrap().rotated,
        "and a later one is another"
    );
}

#[test]
fn upkeep_of_a_client_that_is_closed_or_whose_store_fails_says_so_to_all() {
    let (world, _, bob) = pair(13);
    let (client, shelf) = (world.client(bob).clone(), world.shelf(bob).clone());
    shelf.break_with(sprag::store::BackendError::Full);
    let both = [client.start().maintain(), client.start().maintain()];
    for pending in both {
        let code = pending.wait().unwrap_err().code();
        assert!(code == "store_full" || code == "store_poisoned", "{code}");
    }
    let _ = client.close();
    assert_eq!(client.maintain().unwrap_err().code(), "closed");
    assert_eq!(client.confirm_time(0).unwrap_err().code(), "closed");
}

#[test]
fn the_server_is_asked_daily_and_an_empty_stock_is_filled() {
    let (mut world, alice, bob) = pair(14);
    let query = BundleQuery::new("bob".into(), Vec::new(), Vec::new()).encode();
    for _ in 0..110 {
        world.server().bundles(&query).unwrap();
    }
    let address = world.address(bob).clone();
    let stock = |world: &World| {
        let state = PreKeyState::decode(&world.server().state(&address).unwrap()).unwrap();
        (state.number, state.one_time, state.kem_one_time)
    };
    assert_eq!(stock(&world), (1, 0, 0));
    world.wait(DAY);
    assert!(world.client(bob).maintain().unwrap().asked);
    assert!(!world.client(bob).maintain().unwrap().asked, "once a day");
    world.work(bob);
    assert_eq!(stock(&world), (2, 100, 100));
    // The question itself changes nothing, however often it is put.
    for _ in 0..3 {
        world.wait(DAY);
        assert!(world.client(bob).maintain().unwrap().asked);
        world.work(bob);
        assert_eq!(stock(&world), (2, 100, 100));
    }
    world.send(alice, "bob", b"hello");
    world.settle();
    assert_eq!(world.heard(bob).len(), 1);
}

#[test]
fn all_prekeys_are_replaced_on_demand_and_what_was_encrypted_to_the_old_ones_is_read() {
    let (mut world, _, bob) = pair(15);
    let before = undelivered(&mut world, "carol");
    let mut published = Published::default();
    world.client(bob).replace_pre_keys().unwrap();
    published.note(&world.tasks(bob));
    world.work(bob);
    assert_eq!(
        (
            published.newest(0),
            published.newest(1),
            published.newest(2)
        ),
        (200, 2, 202)
    );
    let state = PreKeyState::decode(&world.server().state(world.address(bob)).unwrap()).unwrap();
    assert_eq!((state.one_time, state.kem_one_time), (100, 100));
    let after = undelivered(&mut world, "dave");
    assert_eq!(refusal(&mut world, bob, &before), None);
    assert_eq!(refusal(&mut world, bob, &after), None);
    // The old one-time private halves go after 90 days, once two newer generations were published.
    let left = world.shelf(bob).count(0x02);
    days(&mut world, bob, 100);
    assert_eq!(left - world.shelf(bob).count(0x02), 99);
}

#[test]
fn a_store_that_was_set_back_catches_up_with_the_ids_that_the_server_has_seen() {
    let (mut world, _, bob) = pair(16);
    let mut published = Published::default();
    world.client(bob).maintain().unwrap();
    world.work(bob);
    let copy = world.shelf(bob).after_power_cut();
    let query = BundleQuery::new("bob".into(), Vec::new(), Vec::new()).encode();
    for _ in 0..2 {
        for _ in 0..100 {
            world.server().bundles(&query).unwrap();
        }
        for _ in 0..8 {
            day(&mut world, bob, &mut published);
        }
    }
    let state = PreKeyState::decode(&world.server().state(world.address(bob)).unwrap()).unwrap();
    let (top, number) = (state.top.clone(), state.number);
    assert!(number >= 5 && top[1] >= 300, "{number} {top:?}");
    world.set_back(bob, copy);
    for _ in 0..2 {
        day(&mut world, bob, &mut Published::default());
    }
    let state = PreKeyState::decode(&world.server().state(world.address(bob)).unwrap()).unwrap();
    assert!(state.number > number && state.top.iter().zip(&top).all(|(now, then)| now > then));
    assert_eq!((state.one_time, state.kem_one_time), (100, 100));
    let fresh = undelivered(&mut world, "carol");
    assert_eq!(refusal(&mut world, bob, &fresh), None);
}

#[test]
fn a_seen_set_that_is_three_quarters_full_rotates_and_goes_with_its_signed_prekey() {
    let (mut world, _, bob) = pair(17);
    let fill = |rows: &mut sprag::store::Staged<'_>, count| {
        let device = Device::load(rows as &dyn Rows).unwrap().unwrap();
        device.fill_seen_set(rows, 1, count).unwrap();
    };
    world.edit_rows(bob, |rows| fill(rows, SEEN_ROTATES - 1));
    assert!(!world.client(bob).maintain().unwrap().rotated);
    // One more handshake that uses up no prekey.
    let query = BundleQuery::new("bob".into(), Vec::new(), Vec::new()).encode();
    for _ in 0..100 {
        world.server().bundles(&query).unwrap();
    }
    let last = undelivered(&mut world, "carol");
    assert_eq!(refusal(&mut world, bob, &last), None);
    assert!(world.client(bob).maintain().unwrap().rotated);
    world.work(bob);
    days(&mut world, bob, 8);
    let full = world.shelf(bob).count(SEEN);
    assert_eq!(full, SEEN_ROTATES as usize);
    world.wait(20 * DAY);
    for _ in 0..3 {
        world.client(bob).maintain().unwrap();
        world.work(bob);
        assert_eq!(world.shelf(bob).count(SEEN), full);
        world.wait(RETENTION_MS / 3);
    }
    let done = world.client(bob).maintain().unwrap();
    assert_eq!((done.deleted, world.shelf(bob).count(SEEN)), (2, 0));
    assert_eq!(refusal(&mut world, bob, &last), Some("duplicate"));
}

#[test]
fn ids_that_are_used_up_are_an_error_and_never_begin_anew() {
    let (mut world, alice, bob) = pair(18);
    world.edit_rows(bob, |rows| {
        let device = Device::load(rows as &dyn Rows).unwrap().unwrap();
        let mut rng = <rand_chacha::ChaCha20Rng as rand_core::SeedableRng>::seed_from_u64(1);
        let other = IdentityKeyPair::generate(&mut rng);
        let id = SignedPreKeyId::new(u32::MAX).unwrap();
        let last = SignedPreKeyPair::generate(id, Features::NONE, &other, &mut rng);
        device.store_pre_keys(rows, &[last], &[], &[]).unwrap();
    });
    for _ in 0..3 {
        let error = world.client(bob).maintain().unwrap_err();
        assert_eq!(error.code(), "ids_exhausted");
    }
    assert_eq!(world.shelf(bob).count(SIGNED), 2, "nothing was changed");
    world.send(bob, "alice", b"all the same");
    world.settle();
    assert_eq!(world.heard(alice).len(), 1);
}

#[test]
fn a_power_cut_at_any_point_of_upkeep_loses_no_prekey_and_uses_no_id_twice() {
    // Each round is cut after so many batches of its day.
    let (mut world, alice, bob) = pair(19);
    let mut published = Published::default();
    for round in 0..40_usize {
        world.wait(3 * DAY);
        let (client, shelf) = (world.client(bob).clone(), world.shelf(bob).clone());
        shelf.hold();
        let pending = client.start().maintain();
        while shelf.held() == 0 {
            std::thread::yield_now();
        }
        if round % 4 != 0 {
            shelf.release();
            pending.wait().unwrap();
            // What is offered is durable, so it counts.
            let tasks = world.tasks(bob);
            published.note(&tasks);
            for task in tasks.iter().take(round % 4 - 1) {
                world.perform(bob, task);
            }
        }
        world.crash(bob);
        published.note(&world.tasks(bob));
        if round % 5 == 0 {
            world.work(bob);
            let name = format!("peer {round}");
            let envelope = undelivered(&mut world, &name);
            assert_eq!(refusal(&mut world, bob, &envelope), None);
        }
    }
    assert!(published.newest(1) > 5);
    world.send(alice, "bob", b"hello");
    world.settle();
    assert!(world.heard(bob).iter().any(|(from, _)| from == "alice"));
}

#[test]
fn a_store_on_disk_is_renewed_after_commits_after_a_week_and_when_it_is_wanted() {
    let mut world = World::on_disk(20);
    let bob = world.join("bob");
    let few = {
        let mut few = UpkeepSettings::default();
        few.renew_commits = 5;
        few
    };
    assert!(!world.client(bob).maintain().unwrap().renewed);
    for _ in 0..6 {
        world.send(bob, "carol", b"hello");
    }
    assert!(!world.client(bob).maintain().unwrap().renewed);
    assert!(world.client(bob).maintain_with(few).unwrap().renewed);
    assert!(!world.client(bob).maintain_with(few).unwrap().renewed);
    world.wait(7 * DAY);
    assert!(world.client(bob).maintain().unwrap().renewed);
    assert!(!world.client(bob).maintain().unwrap().renewed);
    world.wait(6 * DAY);
    world.client(bob).renew().unwrap();
    world.wait(6 * DAY);
    assert!(
        !world.client(bob).maintain().unwrap().renewed,
        "renewed by hand 6 days ago"
    );
    // Wanted, by an erase for one.
    world.client(bob).close().unwrap();
    let key = || Key::raw([5; 32]);
    let rng = <rand_chacha::ChaCha20Rng as rand_core::SeedableRng>::seed_from_u64(1);
    let store = sprag::store::Store::open(world.path(bob), &key(), rng).unwrap();
    let mut rows = sprag::store::Staged::new(&store);
    want_renewal(&mut rows).unwrap();
    let changes = rows.into_changes();
    store.commit_blocking(changes).unwrap();
    store.close().unwrap();
    drop(store);
    let client = Client::open(world.path(bob), key()).unwrap();
    // By the clock of this machine years have passed; what was wanted is renewed all the same.
    let done = client.maintain().unwrap();
    assert!(done.renewed && done.waits_for_confirmation.is_some());
    assert!(!client.maintain().unwrap().renewed);
    assert_eq!(
        client.tasks().unwrap().iter().filter(is_delivery).count(),
        0
    );
    client.close().unwrap();
}

fn is_delivery(task: &&Task) -> bool {
    match task {
        Task::Deliver { envelope, .. } => Envelope::decode(envelope).is_ok(),
        _ => false,
    }
}
