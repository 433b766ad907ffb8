//! A store that fails under a client, and a thread that panics inside a step: the same handles go on.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rand_chacha::ChaCha20Rng;
use rand_core::{Rng, SeedableRng, TryCryptoRng, TryRng};
use sprag::store::{BackendError, Store};
use sprag::{Client, Surroundings, Task};
use sprag_tests::world::{BEGINNING, Who, World};
use sprag_wire::Envelope;

fn pair(seed: u64) -> (World, Who, Who) {
    let mut world = World::new(seed);
    let (alice, bob) = (world.join("alice"), world.join("bob"));
    world.send(alice, "bob", b"hello");
    world.settle();
    world.send(bob, "alice", b"hello yourself");
    world.settle();
    (world, alice, bob)
}

#[test]
fn all_handles_go_on_after_a_full_disk_and_nothing_durable_is_lost() {
    for fault in [BackendError::Full, BackendError::StoreInUse] {
        let (mut world, alice, bob) = pair(1);
        let client = world.client(alice).clone();
        let clone = client.clone();
        let before = client.send_encrypted_message("bob", b"before").unwrap();
        world.shelf(alice).break_with(fault);
        let failed = client.new_message_id().unwrap();
        let error = client
            .send_encrypted_message_as(failed, "bob", b"lost")
            .unwrap_err();
        assert!(error.code().starts_with("store_"), "{error}");
        assert_eq!(clone.inbox().unwrap_err().code(), "store_poisoned");
        // The disk has room again, but the client does not know: nothing works until somebody looks.
        world.shelf(alice).mend();
        assert_eq!(clone.tasks().unwrap_err().code(), "store_poisoned");
        let store = world.store_of(alice);
        clone.reopen_with(store).unwrap();
        assert!(client.status(before).unwrap().is_some());
        assert!(client.status(failed).unwrap().is_none());
        client
            .send_encrypted_message_as(failed, "bob", b"again")
            .unwrap();
        world.settle();
        let heard: Vec<_> = world.heard(bob).into_iter().map(|(_, text)| text).collect();
        assert_eq!(heard, [&b"hello"[..], b"before", b"again"]);
    }
}

#[test]
fn what_was_under_way_is_in_doubt_and_whoever_watches_is_woken() {
    let (mut world, alice, _) = pair(2);
    let client = world.client(alice).clone();
    let shelf = world.shelf(alice).clone();
    let seen = client.changed(0).unwrap();
    shelf.hold();
    let sends: Vec<_> = (0..5)
        .map(|_| client.start().send_encrypted_message("bob", b"?"))
        .collect();
    let read = client.start().inbox();
    shelf.break_with(BackendError::Full);
    shelf.release();
    for send in sends {
        assert!(send.wait().unwrap_err().is_in_doubt());
    }
    assert!(read.wait().unwrap_err().is_in_doubt());
    let seen = client.changed(seen).unwrap();
    let watching = client.start().changed(seen);
    shelf.mend();
    let store = world.store_of(alice);
    client.reopen_with(store).unwrap();
    assert!(watching.wait().unwrap() > seen);
    client.send_encrypted_message("bob", b"!").unwrap();
}

#[test]
fn a_store_of_somebody_else_or_of_nobody_is_not_gone_on_with() {
    let (mut world, alice, bob) = pair(3);
    let client = world.client(alice).clone();
    assert_eq!(client.reopen().unwrap_err().code(), "bad_input");
    client.send_encrypted_message("bob", b"as before").unwrap();
    world.client(bob).close().unwrap();
    let other = world.store_of(bob);
    assert_eq!(client.reopen_with(other).unwrap_err().code(), "other_user");
    let empty = Store::in_memory(ChaCha20Rng::seed_from_u64(1)).unwrap();
    assert_eq!(
        client.reopen_with(empty).unwrap_err().code(),
        "store_damaged"
    );
    assert_eq!(client.inbox().unwrap_err().code(), "store_poisoned");
    let own = world.store_of(alice);
    client.reopen_with(own).unwrap();
    client.send_encrypted_message("bob", b"once more").unwrap();
    client.close().unwrap();
    let late = world.store_of(alice);
    assert_eq!(client.reopen_with(late).unwrap_err().code(), "closed");
}

/// Panics at the draw that it is told.
struct Panicking {
    rng: ChaCha20Rng,
    left: Arc<AtomicUsize>,
}

impl Panicking {
    fn draw(&mut self) -> &mut ChaCha20Rng {
        let last = self
            .left
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| {
                (left > 0).then(|| left - 1)
            });
        assert_ne!(last, Ok(1), "as planned");
        &mut self.rng
    }
}

impl TryRng for Panicking {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok(self.draw().next_u32())
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(self.draw().next_u64())
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        self.draw().fill_bytes(bytes);
        Ok(())
    }
}

impl TryCryptoRng for Panicking {}

#[test]
fn a_thread_that_panics_inside_a_step_takes_nothing_with_it() {
    let (mut world, _, bob) = pair(4);
    let left = Arc::new(AtomicUsize::new(0));
    let rng = Panicking {
        rng: ChaCha20Rng::seed_from_u64(5),
        left: left.clone(),
    };
    let store = Store::in_memory(ChaCha20Rng::seed_from_u64(6)).unwrap();
    let carol = Client::with_store(store, "carol", Surroundings::new(|| BEGINNING, rng)).unwrap();
    let mut salts = BTreeSet::new();
    let mut envelopes = BTreeSet::new();
    let mut panics = 0;
    for round in 0..60_u8 {
        left.store(usize::from(round % 6), Ordering::SeqCst);
        let text = [round];
        let id = sprag::MessageId::from_bytes([round; 16]);
        let thread = carol.clone();
        let sent = std::thread::spawn(move || thread.send_encrypted_message_as(id, "bob", &text));
        match sent.join() {
            Ok(sent) => assert_eq!(sent.unwrap(), id),
            Err(_) => {
                panics += 1;
                // Nothing of it is there; the same message again is the first.
                assert!(carol.status(id).unwrap().is_none());
                assert_eq!(
                    carol.send_encrypted_message_as(id, "bob", &text).unwrap(),
                    id
                );
            }
        }
        left.store(0, Ordering::SeqCst);
        for task in carol.tasks().unwrap() {
            let reply = match &task {
                Task::FetchBundles { query, .. } => world.server().bundles(query).unwrap(),
                Task::Deliver { envelope, .. } => {
                    let salt = *Envelope::decode(envelope).unwrap().id().as_bytes();
                    assert!(salts.insert(salt) && envelopes.insert(envelope.clone()));
                    world.server().deliver(envelope).unwrap();
                    carol.done(task.id()).unwrap();
                    continue;
                }
                Task::PublishDevices { lists, .. } => world.server().publish_lists(lists).unwrap(),
                Task::PublishPreKeys { upload, .. } => {
                    let address = carol.address().unwrap();
                    world.server().upload_pre_keys(&address, upload).unwrap()
                }
                _ => continue,
            };
            carol.supply(task.id(), &reply).unwrap();
            carol.done(task.id()).unwrap();
        }
    }
    assert!(panics >= 10, "{panics}");
    // The last ones may still wait for their tasks.
    for task in carol.tasks().unwrap() {
        if let Task::Deliver { envelope, .. } = &task {
            world.server().deliver(envelope).unwrap();
            carol.done(task.id()).unwrap();
        }
    }
    world.settle();
    let heard: Vec<_> = world
        .heard(bob)
        .into_iter()
        .filter(|(from, _)| from == "carol")
        .collect();
    let texts: Vec<u8> = heard.iter().map(|(_, text)| text[0]).collect();
    assert_eq!(texts, (0..60).collect::<Vec<u8>>());
}
