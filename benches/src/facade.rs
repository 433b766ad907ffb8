//! Durable sends through the facade on sled, beside appending 512 bytes and `fdatasync` in the same directory.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::time::Instant;

use sprag::{Client, Key, Task, Transport};
use sprag_directory::{Directory, MemoryStorage, ServerEpoch};

use crate::measure::Table;

const CALLERS: usize = 64;
const ROUNDS: usize = 11;

/// Measures one caller and many, and the bytes that a message writes, in a directory that should be on a disk.
pub fn run(table: &mut Table, dir: &Path) {
    const ONE: &str = "facade: durable send, one caller; floor: append and fdatasync";
    const THREADS: &str = "facade: durable send, 64 threads; floor: the same";
    const FUTURES: &str = "facade: durable send, 64 futures of one thread; floor: the same";
    const MEMORY: &str = "facade: send without a disk; floor: the same";
    const BYTES: &str = "bytes handed to the system by a durable send; floor: 512";
    let names = [ONE, THREADS, FUTURES, MEMORY, BYTES];
    if !names.iter().any(|name| table.wants(name)) {
        return;
    }
    let home = tempfile::tempdir_in(dir).unwrap();
    let key = Key::raw([7; 32]);
    let server = server();
    let on_disk = Client::open_or_create(home.path().join("alice"), key, "alice").unwrap();
    let in_memory = Client::in_memory("anne").unwrap();
    let bob = Client::in_memory("bob").unwrap();
    acquaint(&on_disk, &bob, "alice", &server);
    acquaint(&in_memory, &bob, "anne", &server);
    let mut raw = Raw::new(home.path());
    let count = table.effort().durable;
    let mut ours: [Vec<f64>; 4] = Default::default();
    let mut floors: [Vec<f64>; 4] = Default::default();
    let mut written = 0;
    for _ in 0..ROUNDS {
        // What the disk does changes from moment to moment: each has a floor of its own beside it.
        for (place, (ours, floor)) in ours.iter_mut().zip(&mut floors).enumerate() {
            let before = written_bytes();
            ours.push(match place {
                0 => threads(&on_disk, 1, count),
                1 => threads(&on_disk, CALLERS, count * 4),
                2 => futures(&on_disk, count * 4),
                _ => threads(&in_memory, 1, count),
            });
            if place == 0 {
                written += written_bytes().saturating_sub(before);
            }
            floor.push(raw.run(count));
        }
        empty(&on_disk, &bob, "alice", &server);
        empty(&in_memory, &bob, "anne", &server);
    }
    on_disk.close().unwrap();
    for ((name, ours), floor) in names.iter().zip(&ours).zip(&floors) {
        if table.wants(name) {
            table.enter(name, ours, floor, &[]);
        }
    }
    if table.wants(BYTES) && written > 0 {
        table.enter_bytes(BYTES, written / (ROUNDS * count) as u64, 512);
    }
}

/// Seconds for each of `messages`, sent by so many threads.
fn threads(alice: &Client, callers: usize, messages: usize) -> f64 {
    let begin = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..callers {
            scope.spawn(|| {
                for _ in 0..messages / callers {
                    alice.send_encrypted_message("bob", &[6; 16]).unwrap();
                }
            });
        }
    });
    begin.elapsed().as_secs_f64() / (messages / callers * callers) as f64
}

/// Seconds for each of `messages`, 64 of which are under way at a time.
fn futures(alice: &Client, messages: usize) -> f64 {
    let begin = Instant::now();
    for _ in 0..messages / CALLERS {
        let send = |_| alice.start().send_encrypted_message("bob", &[6; 16]);
        let pending: Vec<_> = (0..CALLERS).map(send).collect();
        for sent in pending {
            sent.wait().unwrap();
        }
    }
    begin.elapsed().as_secs_f64() / (messages / CALLERS * CALLERS) as f64
}

struct Raw(File);

impl Raw {
    fn new(dir: &Path) -> Self {
        let mut options = OpenOptions::new();
        Self(
            options
                .append(true)
                .create(true)
                .open(dir.join("raw"))
                .unwrap(),
        )
    }

    fn run(&mut self, count: usize) -> f64 {
        let begin = Instant::now();
        for _ in 0..count {
            self.0.write_all(&[5; 512]).unwrap();
            self.0.sync_data().unwrap();
        }
        begin.elapsed().as_secs_f64() / count as f64
    }
}

/// What this process has given to `write` so far; 0 where the system does not tell.
fn written_bytes() -> u64 {
    let io = std::fs::read_to_string("/proc/self/io").unwrap_or_default();
    let line = io.lines().find_map(|line| line.strip_prefix("wchar: "));
    line.and_then(|number| number.parse().ok()).unwrap_or(0)
}

fn server() -> Directory<MemoryStorage> {
    Directory::open(MemoryStorage::new(), ServerEpoch::from_bytes([7; 16])).unwrap()
}

/// Both publish their keys, have sessions, and have read each other.
fn acquaint(alice: &Client, bob: &Client, name: &str, server: &Directory<MemoryStorage>) {
    exchange(bob, server);
    exchange(alice, server);
    alice.send_encrypted_message("bob", b"hello").unwrap();
    bob.send_encrypted_message(name, b"hello").unwrap();
    for _ in 0..4 {
        exchange(alice, server);
        exchange(bob, server);
    }
    alice.send_encrypted_message("bob", b"hello").unwrap();
    let waiting = alice.tasks().unwrap();
    assert!(matches!(waiting.as_slice(), [Task::Deliver { .. }]));
}

/// All that waits is delivered, and Alice hears that it was.
fn empty(alice: &Client, bob: &Client, name: &str, server: &Directory<MemoryStorage>) {
    while alice.tasks().unwrap().len() > 1 {
        exchange(alice, server);
        exchange(bob, server);
    }
    for _ in 0..40 {
        bob.send_encrypted_message(name, b"thanks").unwrap();
    }
    for _ in 0..3 {
        exchange(bob, server);
        exchange(alice, server);
    }
}

fn exchange(client: &Client, server: &Directory<MemoryStorage>) {
    let address = client.address().unwrap();
    for task in client.tasks().unwrap() {
        let id = task.id();
        match &task {
            Task::Deliver { envelope, .. } => server.deliver(envelope).unwrap(),
            Task::FetchDevices { query, .. } => {
                client.supply(id, &server.lists(query).unwrap()).unwrap();
            }
            Task::FetchBundles { query, .. } => {
                client.supply(id, &server.bundles(query).unwrap()).unwrap();
            }
            Task::PublishPreKeys { upload, .. } => {
                server.upload_pre_keys(&address, upload).unwrap();
            }
            Task::PublishDevices { lists, .. } => {
                server.publish_lists(lists).unwrap();
            }
            _ => continue,
        }
        client.done(id).unwrap();
    }
    for (id, envelope) in server.fetch(&address, 256).unwrap() {
        let received = client.receive_encrypted_message(&envelope).unwrap();
        assert_eq!(received.refused(), None);
        for message in received.messages() {
            client.acknowledge(message.id()).unwrap();
        }
        if received.transport() == Transport::Forget {
            server.forget(&address, &id).unwrap();
        }
    }
}
