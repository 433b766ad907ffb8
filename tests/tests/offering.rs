//! Frames that came before their list are kept, and offered again ("The protocol", §11, *Offer again*).
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "a test fails by panicking"
)]

use sprag_session::hazmat;
use sprag_session::{
    Event, Failure, KEPT_FRAME_BYTES, KEPT_FRAMES, KEPT_FRAMES_OF_USER, KEPT_SALTS,
    KEPT_SALTS_OF_DEVICE, ProtocolError, SealedFrame, Task, Transport,
};
use sprag_store::Staged;
use sprag_tests::desk::{Account, Desk, desk, user};
use sprag_wire::relay::ListReply;
use sprag_wire::{Body, Content, DeviceAddress, MessageFrame};
use sprag_x3dh::DeviceList;

const HOUR: u64 = 3_600_000;

fn reply(frames: &[&DeviceList]) -> Vec<u8> {
    let frames = frames.iter().map(|list| list.frame().to_vec()).collect();
    ListReply::new(None, frames, false).encode()
}

/// The one task there is, which asks for the lists of `name`.
fn asked_for(desk: &Desk, name: &str) -> sprag_session::TaskId {
    match &desk.tasks()[..] {
        [Task::FetchDevices { id, user, .. }] if user.as_str() == name => *id,
        other => panic!("{other:?}"),
    }
}

fn health(desk: &Desk) -> sprag_session::Health {
    desk.device.health(&desk.rows).unwrap()
}

fn inbox(desk: &Desk) -> usize {
    desk.device.inbox(&desk.rows, 100).unwrap().len()
}

/// Bob knows Carol with one device and has accepted her; the list with her second device he has not seen.
struct Scene {
    bob: Desk,
    carol: Account,
    second: DeviceList,
    /// Carol's second device.
    phone: Desk,
}

fn scene(seed: u64) -> Scene {
    let mut bob = desk("bob", seed);
    let mut carol = Account::new("carol", 3, seed + 1);
    let first = carol.list(1, None, &[0]);
    let second = carol.list(2, Some(&first), &[0, 1]);
    let phone = carol.desk(1, &second);
    bob.step(|device, rows, _| device.learn(rows, &user("carol"), first.frame(), false))
        .unwrap();
    bob.step(|device, rows, _| device.accept(rows, &user("carol")))
        .unwrap();
    Scene {
        bob,
        carol,
        second,
        phone,
    }
}

/// A frame of a device that its own list has left out, but whose handshake names no list with it: as one that is older
/// than the device.
fn removed_device_writes(scene: &mut Scene, id: u128) -> (DeviceAddress, SealedFrame) {
    let b = scene.bob.address();
    let third = scene.carol.list(3, Some(&scene.second), &[0]);
    scene
        .bob
        .step(|device, rows, _| device.learn(rows, &user("carol"), third.frame(), false))
        .unwrap();
    let bundle = scene.bob.bundle(1, Some(1));
    scene.phone.open(&b, &bundle);
    (scene.phone.address(), scene.phone.say(&b, id))
}

#[test]
fn frame_of_a_device_that_is_not_listed_yet_waits_for_the_list_and_is_read() {
    let mut scene = scene(10);
    let (p, word) = removed_device_writes(&mut scene, 1);
    let Scene {
        mut bob, mut carol, ..
    } = scene;
    let delivery = bob.take(&p, &word);
    assert_eq!(delivery.refused, Some(ProtocolError::UnlistedDevice));
    assert_eq!(delivery.transport, Transport::Forget, "it was taken over");
    assert_eq!(health(&bob).kept_frames, 1);
    // The same frame again is not kept twice.
    bob.take(&p, &word);
    assert_eq!(health(&bob).kept_frames, 1);
    let fetch = asked_for(&bob, "carol");

    let third = bob.known_list("carol");
    let fourth = carol.list(4, Some(&third), &[0, 1]);
    bob.supply(fetch, &reply(&[&fourth])).unwrap();
    assert_eq!(inbox(&bob), 1);
    let fares = health(&bob);
    assert_eq!((fares.kept_frames, fares.kept_bytes), (0, 0));
    assert_eq!((fares.offered_again, fares.given_up), (1, 0));
    assert_eq!(hazmat::count(&bob.rows, 0x14).unwrap(), 0, "no row is left");
    let events = bob.device.events(&bob.rows, 0).unwrap();
    assert!(
        events
            .iter()
            .any(|(_, event)| matches!(event, Event::OfferedAgain { from, .. } if *from == p))
    );
}

#[test]
fn list_that_rides_in_a_message_frees_the_frame_without_the_server() {
    let mut scene = scene(20);
    let (p, word) = removed_device_writes(&mut scene, 1);
    let Scene {
        mut bob, mut carol, ..
    } = scene;
    bob.take(&p, &word);
    let third = bob.known_list("carol");
    let fourth = carol.list(4, Some(&third), &[0, 1]);
    // Carol's first device talks to Bob, and its handshake brings the list.
    let mut laptop = carol.desk(0, &fourth);
    let b = bob.address();
    let bundle = bob.bundle(2, Some(2));
    laptop.open(&b, &bundle);
    let hello = laptop.say(&b, 2);
    assert!(bob.take(&laptop.address(), &hello).message.is_some());
    bob.step(|device, rows, env| device.offer_ready(rows, env))
        .unwrap();
    assert_eq!(inbox(&bob), 2);
    assert_eq!(health(&bob).kept_frames, 0);
}

#[test]
fn frame_is_offered_once_for_each_error_and_then_asked_for_when_its_device_is_listed() {
    let mut scene = scene(30);
    let (p, word) = removed_device_writes(&mut scene, 1);
    let Scene {
        mut bob, mut carol, ..
    } = scene;
    bob.take(&p, &word);
    let fetch = asked_for(&bob, "carol");
    // The server has no news: the frame was offered in vain, and only its salt is kept.
    bob.supply(fetch, &reply(&[])).unwrap();
    let fares = health(&bob);
    assert_eq!(
        (fares.kept_frames, fares.given_up, fares.kept_salts),
        (0, 1, 1)
    );
    assert_eq!(inbox(&bob), 0);
    // It comes again within the hour: kept again, but the next question waits.
    bob.take(&p, &word);
    assert_eq!(health(&bob).kept_frames, 1);
    assert!(bob.tasks().is_empty());
    bob.now += HOUR;
    let fetch = asked_for(&bob, "carol");
    bob.failed(fetch, &Failure::NoSuchUser);
    assert_eq!(health(&bob).kept_frames, 0, "that is an answer, too");

    // The device is listed at last: what was not kept is asked for.
    let third = bob.known_list("carol");
    let fourth = carol.list(4, Some(&third), &[0, 1]);
    bob.step(|device, rows, _| device.learn(rows, &user("carol"), fourth.frame(), false))
        .unwrap();
    bob.step(|device, rows, env| device.accept_user(rows, env, &user("carol")))
        .unwrap();
    bob.step(|device, rows, env| device.send_requests(rows, env))
        .unwrap();
    let fares = health(&bob);
    assert_eq!((fares.kept_salts, fares.requests_sent), (0, 1));
    assert!(
        matches!(&bob.tasks()[..], [Task::FetchBundles { .. }]),
        "a session is needed to ask on"
    );
}

#[test]
fn changed_account_waits_for_the_user_and_is_read_when_he_accepts() {
    let mut bob = desk("bob", 40);
    let (b, bundle) = (bob.address(), bob.bundle(1, Some(1)));
    let mut old = Account::new("carol", 1, 41);
    let list = old.list(1, None, &[0]);
    bob.step(|device, rows, _| device.learn(rows, &user("carol"), list.frame(), false))
        .unwrap();
    bob.step(|device, rows, _| device.accept(rows, &user("carol")))
        .unwrap();
    let mut new = Account::new("carol", 1, 42);
    let list = new.list(1, None, &[0]);
    let mut phone = new.desk(0, &list);
    phone.open(&b, &bundle);
    let words = [phone.say(&b, 1), phone.say(&b, 2)];
    for word in &words {
        let delivery = bob.take(&phone.address(), word);
        assert_eq!(delivery.refused, Some(ProtocolError::UntrustedIdentity));
        assert_eq!(delivery.transport, Transport::Forget);
    }
    let fetch = asked_for(&bob, "carol");
    bob.supply(fetch, &reply(&[&list])).unwrap();
    // The server says the same: now it is the user's decision, and the frames wait for that.
    let fares = health(&bob);
    assert_eq!((fares.kept_frames, fares.undecided, inbox(&bob)), (2, 1, 0));
    bob.step(|device, rows, env| device.accept_user(rows, env, &user("carol")))
        .unwrap();
    let fares = health(&bob);
    assert_eq!((fares.kept_frames, fares.undecided, inbox(&bob)), (0, 0, 2));
}

#[test]
fn full_inbox_lets_the_frame_wait_on() {
    let mut scene = scene(50);
    let (p, word) = removed_device_writes(&mut scene, 1);
    let Scene {
        mut bob, mut carol, ..
    } = scene;
    bob.take(&p, &word);
    let fetch = asked_for(&bob, "carol");
    let fill = |bob: &mut Desk, count: u32| {
        bob.step(|_, rows, _| -> Result<(), sprag_session::StepError> {
            let name = sprag_store::RowName::plain(0x01, [1]);
            let mut counters = sprag_store::Rows::get(rows, &name).unwrap().unwrap();
            let at = counters.len() - 4;
            counters[at..].copy_from_slice(&count.to_be_bytes());
            rows.put(name, counters);
            Ok(())
        })
        .unwrap();
    };
    fill(&mut bob, sprag_session::INBOX);
    let third = bob.known_list("carol");
    let fourth = carol.list(4, Some(&third), &[0, 1]);
    bob.supply(fetch, &reply(&[&fourth])).unwrap();
    assert_eq!(health(&bob).kept_frames, 1);
    fill(&mut bob, sprag_session::INBOX - 1);
    bob.step(|device, rows, env| device.offer_ready(rows, env))
        .unwrap();
    assert_eq!((health(&bob).kept_frames, inbox(&bob)), (0, 1));
}

/// A frame under another account of `name` than the one that Bob knows.
fn impostor(bob: &mut Desk, name: &str, seed: u64, bytes: usize) -> (DeviceAddress, SealedFrame) {
    let b = bob.address();
    let mut account = Account::new(name, 1, seed);
    let list = account.list(1, None, &[0]);
    let mut desk = account.desk(0, &list);
    let bundle = bob.bundle(1, None);
    desk.open(&b, &bundle);
    let content = Content::new([9; 16], 0, Body::Application(vec![0; bytes]));
    let frame = desk.seal(&b, &content).unwrap();
    (desk.address(), frame)
}

/// Bob knows so many users.
fn knows(bob: &mut Desk, count: usize) -> Vec<String> {
    let mut names = Vec::new();
    for place in 0..count {
        let name = format!("user {place}");
        let list = Account::new(&name, 1, 1_000 + place as u64).list(1, None, &[0]);
        bob.step(|device, rows, _| device.learn(rows, &user(&name), list.frame(), false))
            .unwrap();
        names.push(name);
    }
    names
}

#[test]
fn sixteen_frames_of_a_user_and_64_in_all_are_kept_and_of_the_rest_the_salts() {
    let mut bob = desk("bob", 60);
    let names = knows(&mut bob, 50);
    let mut seed = 5_000;
    let mut come = |bob: &mut Desk, name: &str| {
        seed += 1;
        let (from, word) = impostor(bob, name, seed, 10);
        let refused = bob.take(&from, &word).refused;
        assert_eq!(refused, Some(ProtocolError::UntrustedIdentity));
        assert!(hazmat::count(&bob.rows, 0x14).unwrap() <= 2 * KEPT_FRAMES + KEPT_SALTS);
    };
    for _ in 0..KEPT_FRAMES_OF_USER + 3 {
        come(&mut bob, &names[0]);
    }
    let fares = health(&bob);
    assert_eq!(
        (fares.kept_frames, fares.kept_salts),
        (KEPT_FRAMES_OF_USER, 3)
    );
    for name in names.iter().skip(1).take(KEPT_FRAMES - KEPT_FRAMES_OF_USER) {
        come(&mut bob, name);
    }
    assert_eq!(health(&bob).kept_frames, KEPT_FRAMES);
    // One more: the user with most loses his oldest, not one of the many who have one.
    come(&mut bob, &names[49]);
    let fares = health(&bob);
    assert_eq!((fares.kept_frames, fares.kept_salts), (KEPT_FRAMES, 4));
    assert_eq!(kept_of(&bob, &names[0]), KEPT_FRAMES_OF_USER - 1);
    assert_eq!(kept_of(&bob, &names[1]), 1);
}

/// Frames kept of a user: their headers name him.
fn kept_of(bob: &Desk, name: &str) -> usize {
    let staged = Staged::new(&bob.rows);
    let mut count = 0;
    let prefix = sprag_store::RowName::plain(0x14, [0]);
    sprag_store::Rows::scan(&staged, &prefix, &mut |_, value| {
        let found = value
            .windows(name.len() + 1)
            .any(|part| part[..name.len()] == *name.as_bytes() && part[name.len()] == 0);
        count += usize::from(found);
        std::ops::ControlFlow::Continue(())
    })
    .unwrap();
    count
}

#[test]
fn eight_mebibytes_of_frames_are_kept_and_no_more() {
    let mut bob = desk("bob", 70);
    let names = knows(&mut bob, 12);
    for (place, name) in names.iter().enumerate() {
        let (from, word) = impostor(&mut bob, name, 7_000 + place as u64, 900_000);
        bob.take(&from, &word);
        assert!(health(&bob).kept_bytes <= KEPT_FRAME_BYTES);
    }
    let fares = health(&bob);
    assert!(
        (8..=9).contains(&fares.kept_frames),
        "{}",
        fares.kept_frames
    );
    assert_eq!(fares.kept_frames + fares.kept_salts, 12);
    // The last one is there, the first is not.
    assert_eq!(
        (kept_of(&bob, &names[11]), kept_of(&bob, &names[0])),
        (1, 0)
    );
}

#[test]
fn sixty_four_salts_of_a_device_are_kept_and_no_more() {
    let mut scene = scene(80);
    let (p, first) = removed_device_writes(&mut scene, 0);
    let (mut bob, mut phone) = (scene.bob, scene.phone);
    let b = bob.address();
    bob.take(&p, &first);
    for id in 1..(KEPT_FRAMES_OF_USER + KEPT_SALTS_OF_DEVICE + 10) as u128 {
        let word = phone.say(&b, id);
        bob.take(&p, &word);
    }
    let fares = health(&bob);
    assert_eq!(fares.kept_frames, KEPT_FRAMES_OF_USER);
    assert_eq!(fares.kept_salts, KEPT_SALTS_OF_DEVICE);
}

/// Bob has a second device, and knows only its list's later epochs: a contact saw one of those that he does not know.
#[test]
fn own_lists_are_fetched_down_to_the_epoch_that_a_contact_saw() {
    let mut account = Account::new("bob", 2, 90);
    let mut lists = vec![account.list(1, None, &[0])];
    for epoch in 2..=200 {
        let devices = [0, 1];
        let next = account.list(epoch, lists.last(), &devices[..1 + (epoch % 2) as usize]);
        lists.push(next);
    }
    let newest = lists.last().unwrap().clone();
    let mut bob = account.desk(0, &newest);
    let mut alice = desk("alice", 91);
    // Alice has seen epoch 3 only.
    let bundle = bob.bundle(1, Some(1));
    let old = sprag_wire::UnverifiedPreKeyBundle::decode(&bundle).unwrap();
    let old = sprag_wire::UnverifiedPreKeyBundle::new(
        old.address,
        old.identity_key,
        old.signed_pre_key,
        old.one_time_pre_key,
        old.kem_pre_key,
        lists[2].frame().to_vec(),
    )
    .encode();
    let b = bob.address();
    alice.open(&b, &old);
    let word = alice.say(&b, 1);
    let delivery = bob.take(&alice.address(), &word);
    assert_eq!(delivery.refused, Some(ProtocolError::UnknownList));
    assert_eq!(delivery.transport, Transport::Forget);
    // Pages of 64 down from the newest, whose chain of hashes closes the gap.
    let mut pages = 0;
    while let Some(Task::FetchDevices { id, query, .. }) = bob.tasks().into_iter().next() {
        pages += 1;
        assert!(pages < 10, "it does not end");
        let query = sprag_wire::relay::ListQuery::decode(&query).unwrap();
        let from = if query.from == 0 { 200 } else { query.from };
        let page: Vec<&DeviceList> = lists.iter().skip(from as usize - 1).take(64).collect();
        bob.supply(id, &reply(&page)).unwrap();
    }
    assert_eq!(pages, 4);
    assert_eq!(inbox(&bob), 1);
    assert_eq!(health(&bob).offered_again, 1);
}

#[test]
fn list_of_ours_that_nobody_knows_is_a_mismatch_told_of_a_contact_and_counted_of_strangers() {
    let mut account = Account::new("bob", 1, 100);
    let list = account.list(1, None, &[0]);
    // Somebody has shown Alice a second list, which Bob's account never signed as far as he knows.
    let forged = account.list(2, Some(&list), &[0]);
    let mut bob = account.desk(0, &list);
    let b = bob.address();
    let mut told = 0;
    for place in 0..3_u64 {
        let mut alice = desk("alice", 101 + place);
        let bundle = bob.bundle(1, None);
        let shown = sprag_wire::UnverifiedPreKeyBundle::decode(&bundle).unwrap();
        let shown = sprag_wire::UnverifiedPreKeyBundle::new(
            shown.address,
            shown.identity_key,
            shown.signed_pre_key,
            shown.one_time_pre_key,
            shown.kem_pre_key,
            forged.frame().to_vec(),
        )
        .encode();
        alice.open(&b, &shown);
        let word = alice.say(&b, 1);
        assert_eq!(
            bob.take(&alice.address(), &word).refused,
            Some(ProtocolError::UnknownList)
        );
        let fetch = asked_for(&bob, "bob");
        bob.supply(fetch, &reply(&[&list])).unwrap();
        let events = bob.events();
        let strangers = |event: &&String| event.starts_with("StrangersSawOtherList");
        assert_eq!(events.iter().filter(strangers).count(), 1, "once a day");
        assert!(!events.iter().any(|event| event.starts_with("ListMismatch")));
        assert_eq!(inbox(&bob), 0);
        told = events.len();
        bob.now += HOUR;
    }
    // A day later the number of those in between is told.
    bob.now += 24 * HOUR;
    assert_eq!(told, 1);
    let mismatches = health(&bob);
    let count = mismatches
        .refused
        .iter()
        .find(|(error, _)| *error == ProtocolError::UnknownList);
    assert_eq!(count.unwrap().1, 3);
}

#[test]
fn kind_1_of_an_unlisted_device_is_not_kept() {
    let mut scene = scene(110);
    let (p, word) = removed_device_writes(&mut scene, 1);
    let frame = MessageFrame::parse(&word.frame).unwrap();
    let mut bare = sprag_wire::encode_message(None, &word.salt, frame.header(), frame.body());
    bare.extend_from_slice(frame.origin());
    let bare = sprag_wire::Envelope::new(p.clone(), scene.bob.address(), word.salt, bare).encode();
    let delivery = scene
        .bob
        .step(|device, rows, env| device.take_envelope(rows, env, &bare))
        .unwrap();
    assert_eq!(delivery.refused, Some(ProtocolError::UnlistedDevice));
    assert_eq!(health(&scene.bob).kept_frames, 0);
    assert_eq!(scene.bob.tasks().len(), 1, "but the list is fetched");
}

#[test]
fn unlisted_device_of_somebody_who_is_not_accepted_is_silence() {
    let mut bob = desk("bob", 120);
    let b = bob.address();
    let mut carol = Account::new("carol", 2, 121);
    let first = carol.list(1, None, &[0]);
    let second = carol.list(2, Some(&first), &[0, 1]);
    let third = carol.list(3, Some(&second), &[0]);
    bob.step(|device, rows, _| device.learn(rows, &user("carol"), third.frame(), false))
        .unwrap();
    let mut phone = carol.desk(1, &second);
    let bundle = bob.bundle(1, Some(1));
    phone.open(&b, &bundle);
    let word = phone.say(&b, 1);
    let delivery = bob.take(&phone.address(), &word);
    assert_eq!(delivery.refused, Some(ProtocolError::UnlistedDevice));
    assert_eq!(health(&bob).kept_frames, 0);
    assert!(bob.tasks().is_empty());
}
