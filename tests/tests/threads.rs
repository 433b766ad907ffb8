//! Many threads, few sessions: everything arrives once, in one order.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier, Mutex};
use std::thread;

use sprag::{Client, Task, Transport};
use sprag_directory::{Directory, MemoryStorage, ServerEpoch};
use sprag_tests::verbs::soon;
use sprag_wire::Envelope;

const THREADS: usize = 64;
const MESSAGES: usize = 12;

struct Server {
    directory: Directory<MemoryStorage>,
    /// Every envelope that was delivered: one id, one byte string.
    envelopes: Mutex<BTreeMap<[u8; 16], Vec<u8>>>,
}

impl Server {
    fn new() -> Self {
        let epoch = ServerEpoch::from_bytes([7; 16]);
        Self {
            directory: Directory::open(MemoryStorage::new(), epoch).unwrap(),
            envelopes: Mutex::default(),
        }
    }

    /// Does the tasks of a client, which several threads may do at once.
    fn work(&self, client: &Client) -> usize {
        let tasks = client.tasks().unwrap();
        for task in &tasks {
            match task {
                Task::Deliver { envelope, .. } => {
                    let id = *Envelope::decode(envelope).unwrap().id().as_bytes();
                    let mut envelopes = self.envelopes.lock().unwrap();
                    let first = envelopes.entry(id).or_insert_with(|| envelope.clone());
                    assert_eq!(first, envelope, "one salt, two frames");
                    self.directory.deliver(envelope).unwrap();
                }
                Task::FetchBundles { query, .. } => {
                    let reply = self.directory.bundles(query).unwrap();
                    client.supply(task.id(), &reply).unwrap();
                }
                Task::FetchDevices { query, .. } => {
                    let reply = self.directory.lists(query).unwrap();
                    client.supply(task.id(), &reply).unwrap();
                }
                Task::PublishPreKeys { upload, .. } => {
                    let address = client.address().unwrap();
                    self.directory.upload_pre_keys(&address, upload).unwrap();
                }
                Task::PublishDevices { lists, .. } => {
                    self.directory.publish_lists(lists).unwrap();
                }
                _ => panic!("{task:?}"),
            }
            client.done(task.id()).unwrap();
        }
        tasks.len()
    }

    fn poll(&self, client: &Client) -> usize {
        let address = client.address().unwrap();
        let waiting = self.directory.fetch(&address, 1_000).unwrap();
        for (id, envelope) in &waiting {
            let received = client.receive_encrypted_message(envelope).unwrap();
            let code = received.refused().map(|refusal| refusal.code());
            assert!(code.is_none_or(|code| code == "duplicate"), "{code:?}");
            if received.transport() == Transport::Forget {
                self.directory.forget(&address, id).unwrap();
            }
        }
        waiting.len()
    }
}

/// Texts in the order of the inbox; each must be there once.
fn read(client: &Client) -> Vec<String> {
    let mut texts = Vec::new();
    loop {
        let page = client.inbox().unwrap();
        if page.is_empty() {
            return texts;
        }
        for message in page {
            texts.push(format!("{} {}", message.from(), message.text_lossy()));
            client.acknowledge(message.id()).unwrap();
        }
    }
}

/// Each thread's messages are there once, and in the order in which it sent them.
fn check(texts: &[String], from: &str, threads: impl Iterator<Item = usize>) {
    let set: BTreeSet<_> = texts.iter().collect();
    assert_eq!(set.len(), texts.len(), "something came twice");
    for thread in threads {
        let prefix = format!("{from} {thread}:");
        let own: Vec<_> = texts
            .iter()
            .filter_map(|text| text.strip_prefix(&prefix))
            .collect();
        let expected: Vec<_> = (0..MESSAGES).map(|n| n.to_string()).collect();
        assert_eq!(own, expected, "thread {thread}");
    }
}

fn storm(alice: &Client, bob: &Client, carol: &Client) {
    let server = Arc::new(Server::new());
    for client in [alice, bob, carol] {
        server.work(client);
    }
    let barrier = Arc::new(Barrier::new(THREADS));
    let threads: Vec<_> = (0..THREADS)
        .map(|number| {
            // Two of three write to Bob, half of them from each side of one session; the others to Carol.
            let (client, to) = match number % 3 {
                0 => (alice.clone(), "bob"),
                1 => (bob.clone(), "alice"),
                _ => (alice.clone(), "carol"),
            };
            let (barrier, server) = (barrier.clone(), server.clone());
            thread::spawn(move || {
                barrier.wait();
                for n in 0..MESSAGES {
                    let text = format!("{number}:{n}");
                    // Half of them without waiting in between.
                    let sent = client.start().send_encrypted_message(to, text.as_bytes());
                    if number % 2 == 0 {
                        soon(sent).unwrap();
                    }
                    if n % 4 == 3 && number % 8 == 0 {
                        server.work(&client);
                    }
                }
            })
        })
        .collect();
    // One receives while the others send.
    let over = Arc::new(AtomicBool::new(false));
    let receivers: Vec<_> = [bob.clone(), alice.clone(), carol.clone()]
        .into_iter()
        .map(|client| {
            let (server, over) = (server.clone(), over.clone());
            thread::spawn(move || {
                while !over.load(Ordering::SeqCst) {
                    if server.work(&client) + server.poll(&client) == 0 {
                        thread::yield_now();
                    }
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    over.store(true, Ordering::SeqCst);
    for receiver in receivers {
        receiver.join().unwrap();
    }
    for _ in 0..4 {
        for client in [alice, bob, carol] {
            while server.work(client) > 0 {}
            while server.poll(client) > 0 {}
        }
    }
    let of = |rest| (0..THREADS).filter(move |number| number % 3 == rest);
    let (at_bob, at_alice, at_carol) = (read(bob), read(alice), read(carol));
    check(&at_bob, "alice", of(0));
    check(&at_alice, "bob", of(1));
    check(&at_carol, "alice", of(2));
    let total = at_bob.len() + at_alice.len() + at_carol.len();
    assert_eq!(total, THREADS * MESSAGES);
    // 96 bits of a salt are a nonce: no two frames share them.
    let envelopes = server.envelopes.lock().unwrap();
    let nonces: BTreeSet<_> = envelopes.keys().map(|id| &id[..12]).collect();
    assert_eq!(nonces.len(), envelopes.len());
    assert_eq!(envelopes.len(), total);
}

#[test]
fn messages_of_64_threads_arrive_once_each_and_in_order() {
    let [alice, bob, carol] =
        ["alice", "bob", "carol"].map(|user| Client::in_memory(user).unwrap());
    storm(&alice, &bob, &carol);
}

#[test]
fn messages_of_64_threads_arrive_once_each_from_disk() {
    let dir = tempfile::tempdir().unwrap();
    let open = |user: &str| {
        let key = sprag::Key::raw([1; 32]);
        Client::create(dir.path().join(user), key, user).unwrap()
    };
    let (alice, bob, carol) = (open("alice"), open("bob"), open("carol"));
    storm(&alice, &bob, &carol);
}

/// A message by its thread and its place there.
type Place = (usize, usize);

/// Whether one order of all messages agrees with the order of each thread and of each session.
fn is_serial(orders: &[Vec<Place>]) -> bool {
    let mut before: BTreeMap<Place, usize> = BTreeMap::new();
    let mut after: BTreeMap<Place, Vec<Place>> = BTreeMap::new();
    for order in orders {
        for place in order {
            before.entry(*place).or_default();
        }
        for pair in order.windows(2) {
            *before.entry(pair[1]).or_default() += 1;
            after.entry(pair[0]).or_default().push(pair[1]);
        }
    }
    let mut free: Vec<Place> = before
        .iter()
        .filter(|(_, count)| **count == 0)
        .map(|(place, _)| *place)
        .collect();
    let mut taken = 0;
    while let Some(place) = free.pop() {
        taken += 1;
        for next in after.get(&place).into_iter().flatten() {
            let count = before.get_mut(next).unwrap();
            *count -= 1;
            if *count == 0 {
                free.push(*next);
            }
        }
    }
    taken == before.len()
}

#[test]
fn orders_that_contradict_each_other_are_not_serial() {
    let (a, b, c) = ((0, 0), (0, 1), (1, 0));
    assert!(is_serial(&[vec![a, b], vec![a, c, b]]));
    assert!(!is_serial(&[vec![a, b], vec![b, a]]));
    assert!(!is_serial(&[vec![a, b], vec![b, c], vec![c, a]]));
}

/// 64 threads on the 8 sessions of one device on disk, each writing to and fro on two of them, while that device is
/// looked after, renewed and opened again all the time.
#[test]
fn sixty_four_threads_on_eight_sessions_end_as_if_one_had_done_it_all() {
    const PEERS: usize = 8;
    const EACH: usize = 6;
    let dir = tempfile::tempdir().unwrap();
    let alice = Client::create(dir.path(), sprag::Key::raw([1; 32]), "alice").unwrap();
    let peers: Vec<Client> = (0..PEERS)
        .map(|n| Client::in_memory(&format!("peer {n}")).unwrap())
        .collect();
    let server = Arc::new(Server::new());
    let everybody: Vec<Client> = peers.iter().chain([&alice]).cloned().collect();
    for client in &everybody {
        server.work(client);
    }
    // One worker for each client, so that the network keeps the order in which it is given envelopes.
    let over = Arc::new(AtomicBool::new(false));
    let mut beside: Vec<_> = everybody
        .iter()
        .cloned()
        .map(|client| {
            let (server, over) = (server.clone(), over.clone());
            thread::spawn(move || {
                while !over.load(Ordering::SeqCst) {
                    if server.work(&client) + server.poll(&client) == 0 {
                        thread::yield_now();
                    }
                }
            })
        })
        .collect();
    let keeper = {
        let (alice, over) = (alice.clone(), over.clone());
        thread::spawn(move || {
            let mut rounds = 0;
            while !over.load(Ordering::SeqCst) {
                alice.maintain().unwrap();
                alice.renew().unwrap();
                alice.reopen().unwrap();
                rounds += 1;
            }
            rounds
        })
    };
    let barrier = Arc::new(Barrier::new(THREADS));
    let threads: Vec<_> = (0..THREADS)
        .map(|number| {
            let (barrier, alice) = (barrier.clone(), alice.clone());
            let peers = [number % PEERS, (number / PEERS + number + 1) % PEERS];
            let clients = peers.map(|peer| everybody[peer].clone());
            thread::spawn(move || {
                barrier.wait();
                for n in 0..EACH {
                    let peer = n % 2;
                    let text = format!("{number}:{n}");
                    let (from, to) = if number % 2 == 0 {
                        (&alice, format!("peer {}", peers[peer]))
                    } else {
                        (&clients[peer], "alice".to_owned())
                    };
                    from.send_encrypted_message(&to, text.as_bytes()).unwrap();
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    over.store(true, Ordering::SeqCst);
    beside.drain(..).for_each(|thread| thread.join().unwrap());
    assert!(keeper.join().unwrap() > 0);
    for _ in 0..4 {
        for client in &everybody {
            while server.work(client) > 0 {}
            while server.poll(client) > 0 {}
        }
    }
    let place = |text: &str| -> Place {
        let (thread, n) = text.rsplit(' ').next().unwrap().split_once(':').unwrap();
        (thread.parse().unwrap(), n.parse().unwrap())
    };
    let mut orders: Vec<Vec<Place>> = (0..THREADS)
        .map(|number| (0..EACH).map(|n| (number, n)).collect())
        .collect();
    let mut arrived = Vec::new();
    for client in &everybody {
        // By sender: each is one direction of one session.
        let mut sessions: BTreeMap<String, Vec<Place>> = BTreeMap::new();
        for text in read(client) {
            let from = text.rsplit_once(' ').unwrap().0.to_owned();
            sessions.entry(from).or_default().push(place(&text));
        }
        arrived.extend(sessions.values().flatten().copied());
        orders.extend(sessions.into_values());
    }
    arrived.sort_unstable();
    let sent: Vec<Place> = (0..THREADS)
        .flat_map(|number| (0..EACH).map(move |n| (number, n)))
        .collect();
    assert_eq!(arrived, sent, "each once");
    assert!(is_serial(&orders));
    let envelopes = server.envelopes.lock().unwrap();
    let nonces: BTreeSet<_> = envelopes.keys().map(|id| &id[..12]).collect();
    assert_eq!(nonces.len(), envelopes.len());
}

#[test]
fn one_message_id_from_many_threads_is_one_message() {
    let (alice, bob) = (
        Client::in_memory("alice").unwrap(),
        Client::in_memory("bob").unwrap(),
    );
    let server = Server::new();
    server.work(&alice);
    server.work(&bob);
    let id = alice.new_message_id().unwrap();
    let barrier = Arc::new(Barrier::new(16));
    let threads: Vec<_> = (0..16)
        .map(|_| {
            let (alice, barrier) = (alice.clone(), barrier.clone());
            thread::spawn(move || {
                barrier.wait();
                alice.send_encrypted_message_as(id, "bob", b"once").unwrap()
            })
        })
        .collect();
    for thread in threads {
        assert_eq!(thread.join().unwrap(), id);
    }
    while server.work(&alice) + server.poll(&bob) > 0 {}
    assert_eq!(read(&bob), ["alice once"]);
}

#[test]
fn close_in_the_midst_leaves_every_call_answered() {
    for _ in 0..20 {
        let alice = Client::in_memory("alice").unwrap();
        let barrier = Arc::new(Barrier::new(9));
        let threads: Vec<_> = (0..8)
            .map(|number| {
                let (alice, barrier) = (alice.clone(), barrier.clone());
                thread::spawn(move || {
                    barrier.wait();
                    loop {
                        let outcome = match number % 3 {
                            0 => {
                                soon(alice.start().send_encrypted_message("bob", b"x")).map(|_| ())
                            }
                            1 => soon(alice.start().tasks()).map(|_| ()),
                            _ => soon(alice.start().changed(u64::MAX)).map(|_| ()),
                        };
                        if let Err(error) = outcome {
                            assert_eq!(error.code(), "closed");
                            return;
                        }
                    }
                })
            })
            .collect();
        barrier.wait();
        alice.close().unwrap();
        for thread in threads {
            thread.join().unwrap();
        }
    }
}
