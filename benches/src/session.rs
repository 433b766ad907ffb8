//! What a device does with a message, in memory: policy, trust, outbox, inbox, and the rows that each step writes.

use std::time::{Duration, Instant};

use rand_chacha::ChaCha20Rng;
use rand_core::Rng;
use sprag_crypto::{Features, Mode};
use sprag_session::{Device, Env, MessageId, Task};
use sprag_store::{Changes, MemoryRows, Staged};
use sprag_wire::{Body, Content, Padding, padme};

use crate::measure::{Operation, Table, repeated};
use crate::parts::{Party, rng};
use crate::primitives::{Asymmetric, Message};

const NOW: u64 = 1_700_000_000_000;

/// Measures everything that passes through a device.
pub fn run(table: &mut Table) {
    handshake(table);
    for (size, name) in [(16, "16 B"), (1 << 10, "1 KiB"), (1 << 16, "64 KiB")] {
        seal(table, size, name);
    }
    for (size, name) in [(16, "16 B"), (1 << 10, "1 KiB"), (1 << 16, "64 KiB")] {
        let name = format!("session: open in order, {name}");
        open(table, size, &name, Skip::None);
    }
    open(
        table,
        16,
        "session: open, 2,000 keys waiting",
        Skip::Before(2_000),
    );
    ping_pong(table);
    open(
        table,
        16,
        "session: open one of 1,000 in reverse",
        Skip::Reverse,
    );
    for (size, name) in [(16, "16 B"), (1 << 16, "64 KiB")] {
        forged(table, size, name);
    }
    send(table);
    receive(table);
}

/// A device with its rows.
struct Side {
    device: Device,
    rows: MemoryRows,
    rng: ChaCha20Rng,
    party: Party,
}

/// A place to go back to: the rows, and the device as a program would load it, with nothing in its caches.
struct Saved(MemoryRows);

impl Side {
    fn new(user: &str, seed: u64) -> Self {
        let mut rng = rng(seed);
        let party = Party::new(user, &mut rng);
        let mut rows = MemoryRows::new();
        let mut staged = Staged::new(&rows);
        let device = Device::adopt(
            &mut staged,
            party.address.clone(),
            Features::ACCEPTS_X3DH,
            party.identity.clone(),
            *party.account.public(),
            Some(party.account.clone()),
            party.list.clone(),
        );
        let signed = std::slice::from_ref(&party.signed);
        let one_time = std::slice::from_ref(&party.one_time);
        device
            .store_pre_keys(
                &mut staged,
                signed,
                one_time,
                std::slice::from_ref(&party.kem),
            )
            .unwrap();
        let changes = staged.into_changes();
        rows.apply(changes);
        Self {
            device,
            rows,
            rng,
            party,
        }
    }

    /// One step, committed.
    fn step<T>(&mut self, step: impl FnOnce(&mut Device, &mut Staged<'_>, &mut Env<'_>) -> T) -> T {
        let mut staged = Staged::new(&self.rows);
        let mut env = Env::new(NOW, &mut self.rng);
        let result = step(&mut self.device, &mut staged, &mut env);
        let changes = staged.into_changes();
        self.rows.apply(changes);
        result
    }

    fn save(&self) -> Saved {
        Saved(self.rows.clone())
    }

    fn restore(&mut self, saved: &Saved) {
        self.rows = saved.0.clone();
    }

    /// Content of so many bytes for the other side, as a frame.
    fn seal(&mut self, to: &Party, content: &[u8]) -> Vec<u8> {
        self.step(|device, rows, env| device.seal(rows, env, &to.address, content, Padding::Padme))
            .unwrap()
            .frame
    }

    fn open(&mut self, from: &Party, frame: &[u8]) -> usize {
        let received = self
            .step(|device, rows, env| device.receive(rows, env, &from.address, frame))
            .unwrap();
        assert!(received.content.is_ok());
        received.plaintext.len()
    }

    fn send(&mut self, to: &Party, application: &[u8]) {
        let mut id = [0; 16];
        self.rng.fill_bytes(&mut id);
        let id = MessageId::from_bytes(id);
        self.step(|device, rows, env| device.send(rows, env, to.address.user(), application, id))
            .unwrap();
    }

    fn receive(&mut self, envelope: &[u8]) -> usize {
        let delivery = self
            .step(|device, rows, env| device.take_envelope(rows, env, envelope))
            .unwrap();
        delivery.message.as_ref().unwrap().application.len()
    }

    fn envelopes(&self, most: usize) -> Vec<Vec<u8>> {
        let tasks = self.device.tasks(&self.rows, NOW, most).unwrap();
        let envelopes = tasks.into_iter().filter_map(|task| match task {
            Task::Deliver { envelope, .. } => Some(envelope),
            _ => None,
        });
        envelopes.collect()
    }
}

fn content(size: usize) -> Vec<u8> {
    let body = Body::Application(vec![6; size]);
    Content::new([1; 16], NOW, body).encode().to_vec()
}

/// Alice opens a session from Bob's bundle; nothing was sent.
fn strangers() -> (Side, Side) {
    (Side::new("alice", 7), Side::new("bob", 8))
}

fn begin(alice: &mut Side, bob: &Party, mode: Mode) {
    let bundle = bob.bundle();
    alice
        .step(|device, rows, env| device.open(rows, env, &bob.address, &bundle, mode))
        .unwrap();
}

/// Both have read each other, and both are accepted.
fn friends() -> (Side, Side) {
    let (mut alice, mut bob) = strangers();
    begin(&mut alice, &bob.party, Mode::Pqxdh);
    let small = content(16);
    let frame = alice.seal(&bob.party, &small);
    bob.open(&alice.party, &frame);
    let user = alice.party.address.user().clone();
    let list = alice.party.list.clone();
    bob.step(|device, rows, _| {
        device.learn(rows, &user, list.frame(), false)?;
        device.accept(rows, &user)
    })
    .unwrap();
    let frame = bob.seal(&alice.party, &small);
    alice.open(&bob.party, &frame);
    let frame = alice.seal(&bob.party, &small);
    bob.open(&alice.party, &frame);
    (alice, bob)
}

fn floor(size: usize) -> Message {
    let (mut alice, bob) = friends();
    let content = content(size);
    let frame = alice.seal(&bob.party, &content);
    Message::new(padme(content.len() + 1), frame.len())
}

fn handshake(table: &mut Table) {
    let (alice, bob) = strangers();
    let (saved_alice, saved_bob) = (alice.save(), bob.save());
    let bundle = bob.party.bundle();
    let small = content(16);
    for (name, mode) in [("PQXDH", Mode::Pqxdh), ("X3DH", Mode::X3dh)] {
        let keys = Asymmetric::new();
        table.measure(Operation {
            name: format!("session: handshake and first message, {name}"),
            ours: Box::new(|count| {
                // Devices that never met: nothing is in their caches.
                let mut pairs: Vec<_> = (0..count).map(|_| strangers()).collect();
                for (alice, bob) in &mut pairs {
                    alice.restore(&saved_alice);
                    bob.restore(&saved_bob);
                }
                let start = Instant::now();
                for (alice, bob) in &mut pairs {
                    let to = &bob.party.address;
                    alice
                        .step(|device, rows, env| device.open(rows, env, to, &bundle, mode))
                        .unwrap();
                    let frame = alice.seal(&bob.party, &small);
                    assert_eq!(bob.open(&alice.party, &frame), small.len());
                }
                start.elapsed()
            }),
            floor: Some(repeated(move || {
                keys.verify(4);
                keys.agree(2 * 4 + 2 + 1 + 2);
                keys.generate(3);
                if mode == Mode::Pqxdh {
                    keys.encapsulate();
                    keys.decapsulate();
                }
            })),
            peer: None,
            most: 8,
        });
    }
}

fn seal(table: &mut Table, size: usize, name: &str) {
    let (mut alice, bob) = friends();
    let content = content(size);
    let mut floor = floor(size);
    table.measure(Operation {
        name: format!("session: seal, {name}"),
        ours: repeated(|| alice.seal(&bob.party, &content)),
        floor: Some(repeated(|| floor.seal())),
        peer: None,
        most: usize::MAX,
    });
}

/// What comes before the message that is measured.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Skip {
    None,
    Before(usize),
    /// The frames come in reverse order; the first of them, which stores all keys, is one of those measured.
    Reverse,
}

fn open(table: &mut Table, size: usize, name: &str, skip: Skip) {
    let (mut alice, mut bob) = friends();
    let content = content(size);
    if let Skip::Before(waiting) = skip {
        for _ in 0..waiting {
            let _ = alice.seal(&bob.party, &content);
        }
        let frame = alice.seal(&bob.party, &content);
        bob.open(&alice.party, &frame);
    }
    let saved = (alice.save(), bob.save());
    let mut floor = floor(size);
    let length = content.len();
    table.measure(Operation {
        name: name.to_owned(),
        ours: Box::new(|count| {
            alice.restore(&saved.0);
            bob.restore(&saved.1);
            let messages = if skip == Skip::Reverse { 1_000 } else { count };
            let mut frames: Vec<_> = (0..messages)
                .map(|_| alice.seal(&bob.party, &content))
                .collect();
            if skip == Skip::Reverse {
                frames.reverse();
            }
            let start = Instant::now();
            for frame in &frames {
                assert_eq!(bob.open(&alice.party, frame), length);
            }
            scaled(start.elapsed(), count, messages)
        }),
        floor: Some(repeated(|| floor.open())),
        peer: None,
        most: 1_000,
    });
}

/// The time of `count` operations, from that of `done`.
fn scaled(taken: Duration, count: usize, done: usize) -> Duration {
    taken.mul_f64(count as f64 / done as f64)
}

fn ping_pong(table: &mut Table) {
    let (mut alice, mut bob) = friends();
    let content = content(16);
    let (mut floor, keys) = (floor(16), Asymmetric::new());
    table.measure(Operation {
        name: "session: there and back, a step each".to_owned(),
        ours: repeated(|| {
            let frame = alice.seal(&bob.party, &content);
            bob.open(&alice.party, &frame);
            let frame = bob.seal(&alice.party, &content);
            alice.open(&bob.party, &frame);
        }),
        floor: Some(repeated(|| {
            for _ in 0..2 {
                floor.seal();
                keys.step();
                floor.open();
            }
        })),
        peer: None,
        most: usize::MAX,
    });
}

fn forged(table: &mut Table, size: usize, name: &str) {
    let (mut alice, mut bob) = friends();
    let mut frame = alice.seal(&bob.party, &content(size));
    *frame.last_mut().unwrap() ^= 1;
    let mut floor = floor(size);
    let before = bob.rows.len();
    table.measure(Operation {
        name: format!("session: refuse a forged frame, {name}"),
        ours: repeated(|| {
            let from = &alice.party.address;
            let refused = bob.step(|device, rows, env| device.receive(rows, env, from, &frame));
            assert!(refused.is_err());
        }),
        floor: Some(repeated(|| floor.refuse())),
        peer: None,
        most: usize::MAX,
    });
    assert_eq!(bob.rows.len(), before);
}

/// With outbox: what an application calls, but for the disk.
fn send(table: &mut Table) {
    let (mut alice, bob) = friends();
    let saved = alice.save();
    let mut floor = floor(16);
    table.measure(Operation {
        name: "session: send with outbox, 16 B".to_owned(),
        ours: Box::new(|count| {
            alice.restore(&saved);
            let start = Instant::now();
            for _ in 0..count {
                alice.send(&bob.party, &[6; 16]);
            }
            start.elapsed()
        }),
        floor: Some(repeated(|| floor.seal())),
        peer: None,
        most: 1_000,
    });
    alice.restore(&saved);
    alice.send(&bob.party, &[6; 16]);
    let changed = |alice: &mut Side| {
        let staged_bytes = |changes: &Changes| -> u64 {
            let rows = changes.iter();
            rows.map(|(_, value)| value.map_or(0, <[u8]>::len) as u64)
                .sum()
        };
        alice.step(|device, rows, env| {
            let id = MessageId::from_bytes([77; 16]);
            let user = bob.party.address.user();
            device.send(rows, env, user, &[6; 16], id).unwrap();
            (staged_bytes(rows.changes()), rows.changes().len() as u64)
        })
    };
    let (bytes, rows) = changed(&mut alice);
    let frame = alice.seal(&bob.party, &content(16)).len() as u64;
    if table.wants("bytes") {
        table.enter_bytes(
            &format!("bytes in the {rows} rows of a sent message, 16 B; floor: its frame"),
            bytes,
            frame,
        );
    }
}

/// With inbox.
fn receive(table: &mut Table) {
    let (mut alice, mut bob) = friends();
    let saved = (alice.save(), bob.save());
    let mut floor = floor(16);
    table.measure(Operation {
        name: "session: receive with inbox, 16 B".to_owned(),
        ours: Box::new(|count| {
            alice.restore(&saved.0);
            bob.restore(&saved.1);
            (0..count).for_each(|_| alice.send(&bob.party, &[6; 16]));
            let envelopes = alice.envelopes(count);
            assert_eq!(envelopes.len(), count);
            let start = Instant::now();
            for envelope in &envelopes {
                assert_eq!(bob.receive(envelope), 16);
            }
            start.elapsed()
        }),
        floor: Some(repeated(|| floor.open())),
        peer: None,
        most: 1_000,
    });
}
