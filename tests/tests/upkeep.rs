//! What time, large messages, empty stocks and a restored server do to a conversation.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "a test fails by panicking"
)]

use sprag::{CopyStatus, Event, Failure, MessageId, Task};
use sprag_directory::ServerEpoch;
use sprag_tests::world::{Who, World};
use sprag_wire::relay::{BundleQuery, BundleReply, PreKeyState};

const DAY: u64 = 24 * 3_600 * 1_000;

fn pair(seed: u64) -> (World, Who, Who) {
    let mut world = World::new(seed);
    let (alice, bob) = (world.join("alice"), world.join("bob"));
    (world, alice, bob)
}

fn status(world: &World, who: Who, id: MessageId) -> Option<CopyStatus> {
    let copies = world.client(who).status(id).unwrap()?;
    assert_eq!(copies.len(), 1);
    Some(copies[0].status)
}

#[test]
fn largest_message_arrives_whole_and_waits_whole() {
    let (mut world, alice, bob) = pair(1);
    let mut large: Vec<u8> = (0..917_504_u32).map(|n| (n ^ n >> 8) as u8).collect();
    large[7] = 0;
    world.send(alice, "bob", &large);
    world.send(alice, "bob", b"");
    world.work(alice);
    world.poll(bob);
    world.crash(bob);
    let inbox = world.client(bob).inbox().unwrap();
    assert_eq!(inbox.len(), 2);
    assert!(inbox[0].bytes() == large && inbox[1].bytes().is_empty());
    let rows = world.shelf(bob).count(0x30);
    assert!(rows > 230);
    world.read(bob);
    world.restart(bob);
    assert_eq!(
        world.shelf(bob).count(0x30),
        0,
        "what was acknowledged is gone"
    );
}

#[test]
fn sent_message_is_forgotten_once_it_was_received() {
    let (mut world, alice, bob) = pair(1);
    let id = world.send(alice, "bob", &[7; 10_000]);
    world.settle();
    assert!(world.shelf(alice).count(0x40) > 1, "kept until the receipt");
    world.send(bob, "alice", b"thanks");
    world.settle();
    assert_eq!(status(&world, alice, id), Some(CopyStatus::Received));
    world.restart(alice);
    // The row that says so stays a while; what was said does not.
    assert_eq!(world.shelf(alice).count(0x40), 1);
    assert_eq!(world.shelf(alice).count(0x42), 0);
    world.wait(8 * DAY);
    world.client(alice).expire().unwrap();
    assert_eq!(status(&world, alice, id), None);
    assert_eq!(world.shelf(alice).count(0x40), 0);
}

#[test]
fn message_that_nobody_confirms_expires_after_seven_days() {
    let (mut world, alice, _) = pair(1);
    let known = world.send(alice, "bob", b"one");
    world.work(alice);
    let handed = world.send(alice, "bob", b"two");
    let waiting = world.send(alice, "carol", b"three");
    for (days, gone) in [(6, false), (2, true)] {
        world.wait(days * DAY);
        world.client(alice).expire().unwrap();
        for id in [known, handed, waiting] {
            assert_eq!(world.client(alice).status(id).unwrap().is_none(), gone);
        }
    }
    // Nothing of them is offered any more, and room is made for others.
    let tasks = world.tasks(alice);
    assert!(
        !tasks
            .iter()
            .any(|task| matches!(task, Task::Deliver { .. })),
        "{tasks:?}"
    );
    assert_eq!(world.shelf(alice).count(0x40), 0);
    assert_eq!(world.shelf(alice).count(0x41), 0);
    assert_eq!(world.shelf(alice).count(0x42), 0);
}

#[test]
fn handshake_that_nobody_answers_for_seven_days_is_made_anew() {
    let (mut world, alice, bob) = pair(1);
    world.send(alice, "bob", b"one");
    world.work(alice);
    world.wait(8 * DAY);
    world.send(alice, "bob", b"two");
    // Nothing brought his list for days: it is asked for first.
    for task in world.tasks(alice) {
        assert!(matches!(task, Task::FetchDevices { .. }), "{task:?}");
        world.perform(alice, &task);
    }
    let tasks = world.tasks(alice);
    assert!(
        matches!(&tasks[..], [Task::FetchBundles { .. }]),
        "{tasks:?}"
    );
    world.settle();
    let texts: Vec<_> = world.heard(bob).into_iter().map(|(_, text)| text).collect();
    assert_eq!(texts, [b"one", b"two"]);
    world.send(bob, "alice", b"back again");
    world.settle();
    assert_eq!(world.heard(alice).len(), 1);
}

#[test]
fn stock_of_one_time_prekeys_may_run_out_and_is_topped_up() {
    let (mut world, alice, bob) = pair(1);
    let query = BundleQuery::new("bob".into(), Vec::new(), Vec::new()).encode();
    let mut without = 0;
    for _ in 0..120 {
        let reply = BundleReply::decode(&world.server().bundles(&query).unwrap()).unwrap();
        let bundle = sprag_wire::UnverifiedPreKeyBundle::decode(&reply.bundles[0]).unwrap();
        without += usize::from(bundle.one_time_pre_key.is_none());
    }
    assert_eq!(without, 20);
    // First contact by the last-resort key: read once, whoever repeats it.
    world.send(alice, "bob", b"last resort");
    world.work(alice);
    let (_, envelope) = world.waiting(bob).remove(0);
    assert!(world.receive(bob, &envelope).refused().is_none());
    for _ in 0..2 {
        world.restart(bob);
        assert_eq!(
            world.receive(bob, &envelope).refused().unwrap().code(),
            "duplicate"
        );
    }
    let address = world.address(bob).clone();
    let state = world.server().state(&address).unwrap();
    let decoded = PreKeyState::decode(&state).unwrap();
    assert_eq!((decoded.one_time, decoded.kem_one_time), (0, 0));
    for _ in 0..3 {
        world.client(bob).supply_pre_key_state(&state).unwrap();
        assert_eq!(world.tasks(bob).len(), 1, "one upload is enough");
    }
    world.work(bob);
    let state = world.server().state(&address).unwrap();
    let decoded = PreKeyState::decode(&state).unwrap();
    assert_eq!((decoded.one_time, decoded.kem_one_time), (100, 100));
    world.client(bob).supply_pre_key_state(&state).unwrap();
    assert!(world.tasks(bob).is_empty());
    // A new contact gets one of the new keys.
    let carol = world.join("carol");
    world.send(carol, "bob", b"fresh");
    world.settle();
    assert_eq!(world.heard(bob).last().unwrap().1, b"fresh");
}

#[test]
fn upload_is_the_same_until_it_is_done() {
    let mut world = World::new(1);
    let bob = world.join_offline("bob");
    let uploads = |world: &mut World| -> Vec<Vec<u8>> {
        let tasks = world.tasks(bob).into_iter();
        let bytes = tasks.filter_map(|task| match task {
            Task::PublishPreKeys { upload, .. } => Some(upload),
            Task::PublishDevices { lists, .. } => Some(lists),
            _ => None,
        });
        bytes.collect()
    };
    let first = uploads(&mut world);
    assert_eq!(first.len(), 2);
    world.restart(bob);
    assert_eq!(uploads(&mut world), first);
    world.crash(bob);
    assert_eq!(uploads(&mut world), first);
}

#[test]
fn server_restored_from_a_backup_gets_prekeys_and_lists_again() {
    let (mut world, alice, bob) = pair(1);
    let address = world.address(bob).clone();
    let state = world.server().state(&address).unwrap();
    world.client(bob).supply_pre_key_state(&state).unwrap();
    assert!(world.tasks(bob).is_empty());
    world
        .server()
        .restored(ServerEpoch::from_bytes([8; 16]))
        .unwrap();
    let state = world.server().state(&address).unwrap();
    world.client(bob).supply_pre_key_state(&state).unwrap();
    let tasks = world.tasks(bob);
    let is_upload = |task: &Task| matches!(task, Task::PublishPreKeys { .. });
    let is_list = |task: &Task| matches!(task, Task::PublishDevices { .. });
    assert!(
        tasks.iter().any(is_upload) && tasks.iter().any(is_list),
        "{tasks:?}"
    );
    world.work(bob);
    world.send(alice, "bob", b"still there?");
    world.settle();
    assert_eq!(world.heard(bob).len(), 1);
}

#[test]
fn refused_and_full_tasks_wait_as_they_should() {
    let (mut world, alice, bob) = pair(1);
    world.send(alice, "bob", b"hello");
    let fetch = world.tasks(alice).remove(0);
    world.perform(alice, &fetch);
    let deliver = world.tasks(alice).remove(0);
    let client = world.client(alice).clone();
    client.failed(deliver.id(), &Failure::Full(5_000)).unwrap();
    assert!(world.tasks(alice).is_empty());
    world.wait(5_000);
    assert_eq!(
        world.tasks(alice),
        std::slice::from_ref(&deliver),
        "the same bytes"
    );
    client
        .failed(deliver.id(), &Failure::NotYet(u64::MAX))
        .unwrap();
    world.wait(400 * DAY);
    assert!(world.tasks(alice).is_empty());
    client.retry(deliver.id()).unwrap();
    assert_eq!(world.tasks(alice).len(), 1);

    client.failed(deliver.id(), &Failure::Refused(42)).unwrap();
    world.wait(DAY);
    world.restart(alice);
    assert!(world.tasks(alice).is_empty());
    let client = world.client(alice).clone();
    let events = client.events(0).unwrap();
    let told = |event: &sprag::NumberedEvent| matches!(&event.event, Event::TaskRefused { task, code: 42, .. } if *task == deliver.id());
    assert!(events.iter().any(told));
    let last = events.last().unwrap().number;
    assert!(client.events(last).unwrap().is_empty());
    client.retry(deliver.id()).unwrap();
    assert_eq!(world.tasks(alice), [deliver]);
    world.settle();
    assert_eq!(world.heard(bob).len(), 1);
}

#[test]
fn wrong_clocks_do_not_stop_a_conversation() {
    let (mut world, alice, bob) = pair(1);
    world.send(alice, "bob", b"one");
    world.settle();
    // Ten years ahead, and back before the beginning.
    world.wait(3_650 * DAY);
    world.send(bob, "alice", b"two");
    world.settle();
    world.wait(0_u64.wrapping_sub(world.now()));
    assert_eq!(world.now(), 0);
    for _ in 0..3 {
        world.send(alice, "bob", b"three");
        world.settle();
        world.send(bob, "alice", b"four");
        world.settle();
    }
    assert_eq!((world.heard(alice).len(), world.heard(bob).len()), (4, 4));
}
