//! A server that lies about devices: it adds one, goes back, forks, swaps, withholds, hands out twice. The attacker's
//! device has real keys and tries to open everything that anybody ever made; and each attempt is told as a typed event
//! to the client that sees it ("The protocol", §13).
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use sprag::{Event, Failure, Task};
use sprag_session::ProtocolError;
use sprag_tests::desk::{Account, Desk, number, user};
use sprag_tests::world::{Who, World};
use sprag_wire::relay::{BundleReply, ListQuery, ListReply, ListState, PreKeyUpload};
use sprag_wire::{
    Body, Content, DeviceAddress, Envelope, HOLDER, KeyShare, LinkRequest, ListHash, ListedDevice,
    UnverifiedDeviceList, UnverifiedPreKeyBundle, encode_device_list,
};
use sprag_x3dh::DeviceList;

/// Whether a device was told so.
macro_rules! told {
    ($world:expr, $who:expr, $($event:tt)+) => {
        $world.client($who).events(0).unwrap().iter()
            .any(|numbered| matches!(&numbered.event, $($event)+))
    };
}

/// The list that the server really has.
fn true_list(world: &World, name: &str) -> Vec<u8> {
    let query = ListQuery::new(name.to_owned(), 0, Vec::new()).encode();
    let reply = world.server().lists(&query).unwrap();
    ListReply::decode(&reply).unwrap().frames.remove(0)
}

fn lists(frames: Vec<Vec<u8>>) -> Vec<u8> {
    ListReply::new(None, frames, false).encode()
}

/// Two friends, of whom the first asks the server about the second.
fn friends(seed: u64) -> (World, Who, Who) {
    let mut world = World::new(seed);
    let (alice, bob) = (world.join("alice"), world.join("bob"));
    world.send(alice, "bob", b"1");
    world.settle();
    world.send(bob, "alice", b"2");
    world.settle();
    (world, alice, bob)
}

/// Does all tasks of a device; the hostile server answers those that it has an answer to.
fn work(world: &mut World, who: Who, lie: impl Fn(&Task) -> Option<Vec<u8>>) {
    for _ in 0..10 {
        let tasks = world.tasks(who);
        if tasks.is_empty() {
            break;
        }
        for task in &tasks {
            match lie(task) {
                None => world.perform(who, task),
                Some(reply) => {
                    let _ = world.client(who).supply(task.id(), &reply);
                    world.client(who).done(task.id()).unwrap();
                }
            }
        }
    }
}

/// Makes a client ask for a user's list, a day later.
fn ask_for_list(world: &mut World, who: Who, of: &str, text: &[u8]) {
    world.wait(86_400_001);
    world.send(who, of, text);
}

fn is_list_of(task: &Task, name: &str) -> bool {
    matches!(task, Task::FetchDevices { user, .. } if user.as_str() == name)
}

/// What the attacker opens of all frames that were ever made.
fn opened_by(ghost: &mut Desk, world: &World) -> usize {
    let mut opened = 0;
    for envelope in world.envelopes().values() {
        let envelope = Envelope::decode(envelope).unwrap();
        let from = envelope.from().clone();
        // It knows what the server knows.
        let list = true_list(world, from.user().as_str());
        let _ = ghost.step(|device, rows, _| device.learn(rows, from.user(), &list, false));
        opened += usize::from(ghost.receive(&from, envelope.payload()).is_ok());
    }
    opened
}

/// The attacker's device, which calls itself one of `name`'s, with a list under a key of his own that names the real
/// device too.
fn ghost(world: &World, name: &str, seed: u64) -> (Desk, DeviceList) {
    let real = UnverifiedDeviceList::decode(&true_list(world, name)).unwrap();
    let mut evil = Account::new(name, 1, seed);
    let mut entries = vec![ListedDevice::new(
        number(70_000),
        *evil.identities[0].public(),
        HOLDER,
    )];
    entries.extend(real.devices());
    entries.sort_by_key(ListedDevice::device);
    let list = DeviceList::sign(&evil.key, &user(name), 1, None, &entries, &mut evil.rng).unwrap();
    (evil.desk(0, &list), list)
}

/// The true list with another entry, under the true signature.
fn with_copied_signature(frame: &[u8], entries: &[ListedDevice]) -> Vec<u8> {
    let list = UnverifiedDeviceList::decode(frame).unwrap();
    let mut forged = encode_device_list(
        list.user(),
        list.account_key(),
        list.epoch() + 1,
        Some(list.hash()),
        entries,
    );
    forged.extend_from_slice(list.signature());
    forged
}

#[test]
fn a_device_added_under_another_key_gets_nothing_and_the_change_is_told() {
    let (mut world, alice, bob) = friends(1);
    let (mut ghost, list) = ghost(&world, "bob", 1);
    let bundle = ghost.bundle(1, Some(1));
    ask_for_list(&mut world, alice, "bob", b"secret");
    let reply = lists(vec![list.frame().to_vec()]);
    let bundles = BundleReply::new(vec![bundle], Vec::new(), list.frame().to_vec()).encode();
    work(&mut world, alice, |task| match task {
        Task::FetchDevices { .. } => Some(reply.clone()),
        Task::FetchBundles { .. } => Some(bundles.clone()),
        _ => None,
    });
    assert!(told!(world, alice, Event::IdentityChanged { user, .. } if user.as_str() == "bob"));
    world.settle();
    assert_eq!(opened_by(&mut ghost, &world), 0);
    assert_eq!(world.heard(bob).last().unwrap().1, b"secret");
}

#[test]
fn a_device_added_under_a_copied_signature_gets_nothing_and_the_reply_is_refused() {
    let (mut world, alice, bob) = friends(2);
    let (mut ghost, _) = ghost(&world, "bob", 2);
    let real = true_list(&world, "bob");
    let mut entries = UnverifiedDeviceList::decode(&real)
        .unwrap()
        .devices()
        .to_vec();
    entries.push(ListedDevice::new(
        number(70_000),
        *ghost.device.identity_key(),
        0,
    ));
    entries.sort_by_key(ListedDevice::device);
    let forged = with_copied_signature(&real, &entries);
    ask_for_list(&mut world, alice, "bob", b"secret");
    work(&mut world, alice, |task| {
        is_list_of(task, "bob").then(|| lists(vec![forged.clone()]))
    });
    assert!(told!(
        world,
        alice,
        Event::ReplyRefused {
            error: ProtocolError::BadSignature,
            ..
        }
    ));
    world.settle();
    assert_eq!(opened_by(&mut ghost, &world), 0);
    assert_eq!(world.heard(bob).last().unwrap().1, b"secret");
    assert_eq!(
        world
            .client(alice)
            .contact("bob")
            .unwrap()
            .unwrap()
            .devices
            .len(),
        1
    );
}

#[test]
fn an_identity_swapped_in_a_list_or_a_bundle_gets_nothing_and_is_told() {
    let (mut world, alice, bob) = friends(3);
    let (mut ghost, list) = ghost(&world, "bob", 3);
    let real = true_list(&world, "bob");
    let device = world.address(bob).device();
    let swapped = [ListedDevice::new(
        device,
        *ghost.device.identity_key(),
        HOLDER,
    )];
    let forged = with_copied_signature(&real, &swapped);
    ask_for_list(&mut world, alice, "bob", b"secret");
    work(&mut world, alice, |task| {
        is_list_of(task, "bob").then(|| lists(vec![forged.clone()]))
    });
    assert!(told!(
        world,
        alice,
        Event::ReplyRefused {
            error: ProtocolError::BadSignature,
            ..
        }
    ));
    // In the bundle, under the true list, and under the attacker's.
    world.client(alice).reset("bob").unwrap();
    let bundle = UnverifiedPreKeyBundle::decode(&ghost.bundle(1, Some(1))).unwrap();
    let under = |frame: Vec<u8>| {
        let bundle = UnverifiedPreKeyBundle::new(
            DeviceAddress::new(user("bob"), device),
            bundle.identity_key,
            bundle.signed_pre_key.clone(),
            bundle.one_time_pre_key.clone(),
            bundle.kem_pre_key.clone(),
            frame,
        );
        BundleReply::new(vec![bundle.encode()], Vec::new(), real.clone()).encode()
    };
    let replies = [under(real.clone()), under(list.frame().to_vec())];
    for reply in &replies {
        work(&mut world, alice, |task| {
            matches!(task, Task::FetchBundles { .. }).then(|| reply.clone())
        });
        world.wait(60_001);
    }
    assert!(
        told!(world, alice, Event::ForeignDevice { device, .. } if device.user().as_str() == "bob")
    );
    world.client(alice).accept("bob").ok();
    world.send(alice, "bob", b"more");
    world.settle();
    assert_eq!(opened_by(&mut ghost, &world), 0);
}

#[test]
fn prekeys_of_a_device_that_nobody_added_are_told_even_if_nobody_asked() {
    let mut world = World::new(4);
    let (alice, bob) = (world.join("alice"), world.join("bob"));
    let (mut ghost, _) = ghost(&world, "bob", 4);
    let real = true_list(&world, "bob");
    let bundle = UnverifiedPreKeyBundle::decode(&ghost.bundle(1, Some(1))).unwrap();
    let extra = UnverifiedPreKeyBundle::new(
        bundle.address.clone(),
        bundle.identity_key,
        bundle.signed_pre_key.clone(),
        bundle.one_time_pre_key.clone(),
        bundle.kem_pre_key.clone(),
        real.clone(),
    );
    world.send(alice, "bob", b"hello");
    let server = world.server().bundles(
        &sprag_wire::relay::BundleQuery::new("bob".to_owned(), Vec::new(), Vec::new()).encode(),
    );
    let mut reply = BundleReply::decode(&server.unwrap()).unwrap();
    reply.bundles.push(extra.encode());
    let reply = reply.encode();
    work(&mut world, alice, |task| {
        matches!(task, Task::FetchBundles { .. }).then(|| reply.clone())
    });
    let device = bundle.address;
    assert!(told!(world, alice, Event::ForeignDevice { device: told, .. } if *told == device));
    world.settle();
    assert_eq!(opened_by(&mut ghost, &world), 0);
    assert_eq!(world.heard(bob)[0].1, b"hello");
}

/// Alice, whose laptop was removed, and bob who knows; the list from before, which names the laptop.
fn after_a_removal(seed: u64) -> (World, Who, Who, Who, Vec<u8>) {
    let (mut world, alice, bob) = friends(seed);
    let laptop = world.begin_link("alice");
    let device = world.link(alice, laptop, false);
    world.settle();
    world.send(alice, "bob", b"both of us");
    world.settle();
    let old = true_list(&world, "alice");
    world.client(alice).remove_device(device).unwrap();
    world.work(alice);
    world.poll(bob);
    (world, alice, laptop, bob, old)
}

#[test]
fn an_old_list_brings_no_device_back_and_is_told() {
    let (mut world, alice, laptop, bob, old) = after_a_removal(5);
    let before = world.waiting(laptop).len();
    ask_for_list(&mut world, bob, "alice", b"not for the laptop");
    let reply = lists(vec![old.clone()]);
    work(&mut world, bob, |task| {
        is_list_of(task, "alice").then(|| reply.clone())
    });
    assert!(
        told!(world, bob, Event::ListReplayed { user, epoch: 2, .. } if user.as_str() == "alice")
    );
    // Our own list, shown to ourselves: no sync copy, and the server is given what it lacks.
    ask_for_list(&mut world, alice, "bob", b"nor this");
    let tasks = world.tasks(alice);
    let fetch = tasks.iter().find(|task| is_list_of(task, "alice"));
    if let Some(fetch) = fetch {
        let _ = world.client(alice).supply(fetch.id(), &reply);
        assert!(told!(world, alice, Event::ListReplayed { epoch: 2, .. }));
        let tasks = world.tasks(alice);
        assert!(
            tasks
                .iter()
                .any(|task| matches!(task, Task::PublishDevices { .. }))
        );
    }
    work(&mut world, alice, |task| {
        is_list_of(task, "bob").then(|| lists(Vec::new()))
    });
    assert_eq!(world.waiting(laptop).len(), before);
}

#[test]
fn news_that_a_server_withholds_come_by_another_way_and_its_silence_is_told() {
    let (mut world, alice, bob) = friends(6);
    let old = true_list(&world, "alice");
    let laptop = world.begin_link("alice");
    let device = world.link(alice, laptop, false);
    // Bob asks, and is told that there is nothing new.
    ask_for_list(&mut world, bob, "alice", b"to all of you");
    let reply = lists(vec![old.clone()]);
    work(&mut world, bob, |task| {
        is_list_of(task, "alice").then(|| reply.clone())
    });
    assert_eq!(
        world
            .client(bob)
            .contact("alice")
            .unwrap()
            .unwrap()
            .devices
            .len(),
        1
    );
    // Alice's next message brings the list, and from now on the old one is seen through.
    world.settle();
    world.send(alice, "bob", b"I have a laptop");
    world.work(alice);
    world.poll(bob);
    assert!(
        world
            .client(bob)
            .contact("alice")
            .unwrap()
            .unwrap()
            .devices
            .contains(&device)
    );
    ask_for_list(&mut world, bob, "alice", b"to both");
    work(&mut world, bob, |task| {
        is_list_of(task, "alice").then(|| reply.clone())
    });
    assert!(told!(world, bob, Event::ListReplayed { epoch: 1, .. }));
    // A server that says it has news and keeps them is refused.
    ask_for_list(&mut world, bob, "alice", b"again");
    let news = ListReply::new(
        Some(ListState::new(1, 9, vec![7; 32], 0)),
        Vec::new(),
        false,
    )
    .encode();
    work(&mut world, bob, |task| {
        is_list_of(task, "alice").then(|| news.clone())
    });
    assert!(told!(
        world,
        bob,
        Event::ReplyRefused {
            error: ProtocolError::Malformed,
            ..
        }
    ));
    world.settle();
    assert!(world.heard(laptop).iter().any(|said| said.1 == b"to both"));
}

#[test]
fn the_list_of_another_user_decides_nothing() {
    let (mut world, alice, bob) = friends(7);
    world.join("carol");
    let carols = true_list(&world, "carol");
    ask_for_list(&mut world, alice, "bob", b"secret");
    work(&mut world, alice, |task| {
        is_list_of(task, "bob").then(|| lists(vec![carols.clone()]))
    });
    assert!(told!(
        world,
        alice,
        Event::ReplyRefused {
            error: ProtocolError::Malformed,
            ..
        }
    ));
    let address = world.address(bob).device().get();
    assert_eq!(
        world.client(alice).contact("bob").unwrap().unwrap().devices,
        [address]
    );
    world.settle();
    assert_eq!(world.heard(bob).last().unwrap().1, b"secret");
}

#[test]
fn a_one_time_prekey_given_to_two_opens_one_session_and_the_other_heals() {
    let mut world = World::new(8);
    let (alice, bob, carol) = (world.join("alice"), world.join("bob"), world.join("carol"));
    // Bob wrote to both, and they have not read it yet.
    world.send(bob, "alice", b"hello");
    world.send(bob, "carol", b"hello");
    world.work(bob);
    let query = sprag_wire::relay::BundleQuery::new("bob".to_owned(), Vec::new(), Vec::new());
    let twice = world.server().bundles(&query.encode()).unwrap();
    for who in [alice, carol] {
        world.send(who, "bob", b"me first");
        work(&mut world, who, |task| {
            matches!(task, Task::FetchBundles { .. }).then(|| twice.clone())
        });
    }
    world.settle();
    assert!(told!(
        world,
        bob,
        Event::Unreadable {
            error: ProtocolError::UnknownPreKey,
            ..
        }
    ));
    let heard = world.heard(bob);
    for name in ["alice", "carol"] {
        assert!(
            heard.contains(&(name.to_owned(), b"me first".to_vec())),
            "{name}: {heard:?}"
        );
    }
}

#[test]
fn a_newcomer_who_is_shown_another_account_is_found_out_by_the_real_device_and_by_the_true_list() {
    let mut world = World::new(9);
    let (bob, newcomer) = (world.join("bob"), world.join("newcomer"));
    let (mut ghost, false_list) = ghost(&world, "bob", 9);
    let query = sprag_wire::relay::BundleQuery::new("bob".to_owned(), Vec::new(), Vec::new());
    let real = BundleReply::decode(&world.server().bundles(&query.encode()).unwrap()).unwrap();
    let real = UnverifiedPreKeyBundle::decode(&real.bundles[0]).unwrap();
    let copied = UnverifiedPreKeyBundle::new(
        real.address.clone(),
        real.identity_key,
        real.signed_pre_key.clone(),
        real.one_time_pre_key.clone(),
        real.kem_pre_key.clone(),
        false_list.frame().to_vec(),
    );
    let bundles = vec![ghost.bundle(1, Some(1)), copied.encode()];
    let reply = BundleReply::new(bundles, Vec::new(), false_list.frame().to_vec()).encode();
    world.send(newcomer, "bob", b"is that you?");
    work(&mut world, newcomer, |task| {
        matches!(task, Task::FetchBundles { .. }).then(|| reply.clone())
    });
    // First use is trust: the attacker reads this one, and so this test sees that he would read the others.
    assert_eq!(opened_by(&mut ghost, &world), 1);
    // But the real device notices, and so does the newcomer as soon as anybody shows him the true list.
    world.poll(bob);
    assert!(told!(
        world,
        bob,
        Event::StrangersSawOtherList { count: 1, .. }
    ));
    ask_for_list(&mut world, newcomer, "bob", b"secret");
    let fetch = world.tasks(newcomer);
    let fetch = fetch
        .iter()
        .find(|task| is_list_of(task, "bob"))
        .unwrap()
        .id();
    let truth = lists(vec![true_list(&world, "bob")]);
    let _ = world.client(newcomer).supply(fetch, &truth);
    assert!(told!(world, newcomer, Event::IdentityChanged { user, .. } if user.as_str() == "bob"));
}

#[test]
fn a_new_device_that_is_shown_another_account_takes_no_keys_from_it_and_sends_nothing() {
    let mut world = World::new(10);
    let alice = world.join("alice");
    let new = world.begin_link("alice");
    let request = LinkRequest::from_text(&world.client(new).link_request().unwrap()).unwrap();
    let mut evil = Account::new("alice", 1, 10);
    let entries = [
        ListedDevice::new(number(70_000), *evil.identities[0].public(), HOLDER),
        ListedDevice::new(number(70_001), *request.identity_key(), HOLDER),
    ];
    let list =
        DeviceList::sign(&evil.key, &user("alice"), 1, None, &entries, &mut evil.rng).unwrap();
    let mut thief = evil.desk(0, &list);
    let fetch = world.tasks(new).remove(0);
    let reply = lists(vec![list.frame().to_vec()]);
    world.client(new).supply(fetch.id(), &reply).unwrap();
    assert_eq!(world.client(new).device().unwrap(), 70_001);
    let tasks = world.tasks(new);
    let Some(Task::PublishPreKeys { upload, .. }) = tasks.first() else {
        panic!("{tasks:?}");
    };
    let upload = PreKeyUpload::decode(upload).unwrap();
    let address = DeviceAddress::new(user("alice"), number(70_001));
    let bundle = UnverifiedPreKeyBundle::new(
        address.clone(),
        *request.identity_key(),
        upload.signed_pre_key,
        Some(upload.one_time_pre_keys[0].clone()),
        upload.last_resort,
        list.frame().to_vec(),
    );
    thief.open(&address, &bundle.encode());
    // Without the nonce there is no proof: a wrong one, and none from a holder of his.
    let share = |proof: Vec<u8>| {
        let private = evil.key.private().to_bytes().to_vec();
        Body::KeyShare(KeyShare::new(
            vec![1; 32],
            vec![(1, 1, vec![2; 32])],
            private,
            proof,
        ))
    };
    for (id, proof) in [(1, vec![3; 32]), (2, Vec::new()), (3, vec![0; 32])] {
        let sealed = thief
            .seal(&address, &Content::new([id; 16], 0, share(proof)))
            .unwrap();
        let from = thief.address();
        let envelope = Envelope::new(from, address.clone(), sealed.salt, sealed.frame).encode();
        world.receive(new, &envelope);
        assert!(!world.client(new).is_linked().unwrap());
    }
    assert!(told!(world, new, Event::ShareRefused { from, .. } if from.device().get() == 70_000));
    let tasks = world.tasks(new);
    assert!(
        tasks
            .iter()
            .all(|task| matches!(task, Task::PublishPreKeys { .. })),
        "{tasks:?}"
    );
    let refused = world.client(new).send_encrypted_message("alice", b"secret");
    assert_eq!(refused.unwrap_err().code(), "not_linked");
    // On both screens stands another number.
    assert_ne!(
        world.client(new).account_fingerprint().unwrap(),
        world.client(alice).account_fingerprint().unwrap()
    );
    world.wait(86_400_001);
    assert_eq!(
        world.client(new).is_linked().unwrap_err().code(),
        "link_expired"
    );
}

#[test]
fn a_list_that_the_server_dropped_is_noticed_and_given_again() {
    let (mut world, alice, _) = friends(11);
    let old = true_list(&world, "alice");
    let new = world.begin_link("alice");
    let request = world.client(new).link_request().unwrap();
    world.client(alice).link_device(&request, false).unwrap();
    // A false receipt is refused, and "done" after it means nothing.
    let publish = world.tasks(alice).remove(0);
    let other = ListState::new(1, 2, vec![9; 32], 0).encode();
    let refused = world
        .client(alice)
        .supply(publish.id(), &other)
        .unwrap_err();
    assert_eq!(refused.code(), "malformed");
    world.client(alice).done(publish.id()).unwrap();
    assert!(told!(
        world,
        alice,
        Event::ReplyRefused {
            error: ProtocolError::Malformed,
            ..
        }
    ));
    let devices = world.client(alice).devices().unwrap();
    assert!(
        devices
            .iter()
            .any(|one| one.state == sprag::OwnDeviceState::Adding)
    );
    // A good receipt for a list that was thrown away.
    world.wait(60_001);
    let publish = world.tasks(alice).remove(0);
    let Task::PublishDevices { lists: offered, .. } = &publish else {
        panic!("{publish:?}");
    };
    let offered = sprag_wire::relay::Lists::decode(offered).unwrap();
    let last = UnverifiedDeviceList::decode(offered.frames.last().unwrap()).unwrap();
    let receipt = ListState::new(1, 2, last.hash().as_bytes().to_vec(), 0).encode();
    world.client(alice).supply(publish.id(), &receipt).unwrap();
    let tasks = world.tasks(alice);
    let fetch = tasks
        .iter()
        .find(|task| matches!(task, Task::FetchBundles { .. }));
    let reply = BundleReply::new(Vec::new(), Vec::new(), old).encode();
    let _ = world.client(alice).supply(fetch.unwrap().id(), &reply);
    assert!(told!(world, alice, Event::ListReplayed { epoch: 1, .. }));
    // It is offered again, and taken by the server this time.
    world.settle();
    assert!(world.client(new).is_linked().unwrap());
}

#[test]
fn a_fork_of_our_own_list_waits_for_the_user_and_the_device_of_the_other_side_gets_nothing() {
    // The attacker has the account's private key: two holders, or a thief, and a server that shows each his own list.
    let mut account = Account::new("alice", 4, 12);
    let first = account.list(1, None, &[0, 1]);
    let ours = account.list(2, Some(&first), &[0, 1, 2]);
    let theirs = account.list(2, Some(&first), &[0, 1, 3]);
    let mut phone = account.desk(0, &first);
    let mut ghost = account.desk(3, &theirs);
    let bundle = ghost.bundle(1, Some(1));
    let entry = ListedDevice::new(number(80_000), *account.identities[1].public(), 0);
    let twice = phone.step(|device, rows, env| device.queue_list_change(rows, env, &[entry], &[]));
    assert!(twice.is_err(), "one key twice");
    let drop = [number(70_001)];
    phone
        .step(|device, rows, env| device.queue_list_change(rows, env, &[], &drop))
        .unwrap();
    let publish = phone.tasks().remove(0).id();
    phone.failed(publish, &Failure::Conflict(ours.frame().to_vec()));
    let publish = phone.tasks();
    let publish = publish
        .iter()
        .find(|task| matches!(task, Task::PublishDevices { .. }));
    let publish = publish.unwrap().id();
    phone.failed(publish, &Failure::Conflict(theirs.frame().to_vec()));
    let hash = |hash: ListHash| *hash.as_bytes();
    let events = phone.device.events(&phone.rows, 0).unwrap();
    assert!(events.iter().any(|(_, event)| matches!(
        event,
        Event::OwnListForked { ours: a, theirs: b, .. }
            if *a == hash(ours.hash()) && *b == hash(theirs.hash())
    )));
    // The other side is no device of ours: nothing is opened to it, and nothing waits for it.
    let opened = phone.step(|device, rows, env| {
        device.open(
            rows,
            env,
            &ghost.address(),
            &bundle,
            sprag_crypto::Mode::Pqxdh,
        )
    });
    assert!(opened.is_err());
    assert!(
        phone
            .tasks()
            .iter()
            .all(|task| !matches!(task, Task::PublishDevices { .. }))
    );
    // The user decides; what waited is signed on top of his choice.
    let wrong = phone.step(|device, rows, env| device.settle_fork_by_hash(rows, env, &[0; 32]));
    assert!(wrong.is_err());
    let kept = hash(ours.hash());
    phone
        .step(|device, rows, env| device.settle_fork_by_hash(rows, env, &kept))
        .unwrap();
    assert!(phone.device.own_fork(&phone.rows).unwrap().is_none());
    assert!(
        phone
            .tasks()
            .iter()
            .any(|task| matches!(task, Task::PublishDevices { .. }))
    );
    let devices = phone.device.own_devices(&phone.rows).unwrap();
    assert!(devices.iter().all(|one| one.device != number(70_003)));
}
