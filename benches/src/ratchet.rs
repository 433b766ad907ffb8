//! Messages of one session without its policy: padded, encrypted, framed, and back.

use std::collections::BTreeMap;
use std::time::Instant;

use rand_chacha::ChaCha20Rng;
use sprag_crypto::{
    Features, HandshakeSecret, Mode, RatchetKeyPair, SessionId, SharedSecret, TranscriptHash,
};
use sprag_ratchet::{
    Limits, MessageSeed, OriginKey, ReceivedMessage, SaltSource, Session, SkippedChanges,
    SkippedIndex, SkippedKeys, SkippedUnavailable,
};
use sprag_wire::{MessageFrame, Padding, encode_message, pad, padme, unpad};
use zeroize::Zeroizing;

use crate::measure::{Operation, Table, repeated};
use crate::olm;
use crate::parts::rng;
use crate::primitives::{Asymmetric, Message};

/// Measures all operations of one session.
pub fn run(table: &mut Table) {
    for (size, name) in [(16, "16 B"), (1 << 10, "1 KiB"), (1 << 16, "64 KiB")] {
        encrypt(table, size, name);
    }
    for (size, name) in [(16, "16 B"), (1 << 10, "1 KiB"), (1 << 16, "64 KiB")] {
        decrypt(
            table,
            size,
            &format!("ratchet: decrypt in order, {name}"),
            0,
        );
    }
    decrypt(table, 16, "ratchet: decrypt, 2,000 keys waiting", 2_000);
    ping_pong(table);
    reverse(table);
    forged(table);
}

/// Skipped keys in memory.
#[derive(Clone, Default)]
struct Waiting(BTreeMap<SkippedIndex, MessageSeed>);

impl Waiting {
    fn apply(&mut self, changes: SkippedChanges) {
        for key in changes.stored {
            self.0.insert(key.index(), key.seed);
        }
        for index in changes.deleted {
            self.0.remove(&index);
        }
    }
}

impl SkippedKeys for Waiting {
    fn seed(&self, at: SkippedIndex) -> Result<Option<MessageSeed>, SkippedUnavailable> {
        Ok(self.0.get(&at).cloned())
    }

    fn oldest(&self, count: usize) -> Result<Vec<SkippedIndex>, SkippedUnavailable> {
        Ok(self.0.keys().take(count).copied().collect())
    }

    fn of_chain(&self, chain: u32) -> Result<Vec<SkippedIndex>, SkippedUnavailable> {
        let of = |at: &&SkippedIndex| at.chain == chain;
        Ok(self.0.keys().filter(of).copied().collect())
    }
}

/// One end of a session, with the origin keys that a device keeps for its peers.
struct End {
    session: Session,
    sending: OriginKey,
    receiving: OriginKey,
    skipped: Waiting,
    rng: ChaCha20Rng,
}

fn shared() -> SharedSecret {
    let ours = RatchetKeyPair::generate(&mut rng(2));
    ours.agree(ours.public().as_public_key()).unwrap()
}

/// Two ends that have read each other.
fn ends() -> (End, End) {
    let mut drawn = rng(3);
    let secret = || {
        HandshakeSecret::derive(
            Mode::Pqxdh,
            Features::default(),
            TranscriptHash::from_bytes([1; 32]),
            SessionId::from_bytes([2; 16]),
            &[3; 128],
        )
    };
    let signed_pre_key = RatchetKeyPair::generate(&mut drawn);
    let alice = Session::initiate(secret(), signed_pre_key.public(), &mut drawn).unwrap();
    let bob = Session::respond(secret(), signed_pre_key).unwrap();
    let end = |session, ours: &[u8], theirs: &[u8], seed| End {
        session,
        sending: OriginKey::derive(&shared(), ours, theirs),
        receiving: OriginKey::derive(&shared(), theirs, ours),
        skipped: Waiting::default(),
        rng: rng(seed),
    };
    let (mut alice, mut bob) = (
        end(alice, b"alice", b"bob", 4),
        end(bob, b"bob", b"alice", 5),
    );
    assert_eq!(*bob.receive(&alice.send(b"hello")), b"hello");
    assert_eq!(
        *alice.receive(&bob.send(b"hello yourself")),
        b"hello yourself"
    );
    (alice, bob)
}

impl End {
    fn send(&mut self, content: &[u8]) -> Vec<u8> {
        let padded = pad(content, Padding::Padme);
        let salt = SaltSource::Hedged(&mut self.rng);
        let (next, message) = self.session.encrypt(&padded, salt).unwrap();
        let mut frame = encode_message(None, &message.salt, &message.header, &message.body);
        let sid = next.session_id();
        self.sending
            .seal(&mut frame, &message.salt, &sid, message.chain_index);
        self.session = next;
        frame
    }

    fn receive(&mut self, frame: &[u8]) -> Zeroizing<Vec<u8>> {
        let frame = MessageFrame::parse(frame).unwrap();
        let (_, chain_index) = self.receiving.open(&frame).unwrap();
        let message = ReceivedMessage::new(chain_index, frame.salt(), frame.header(), frame.body());
        let opened = self
            .session
            .decrypt(&message, &self.skipped, Limits::ACCEPTED, &mut self.rng)
            .unwrap();
        self.session = opened.session;
        self.skipped.apply(opened.skipped);
        let mut plaintext = opened.plaintext;
        let length = unpad(&plaintext).unwrap().len();
        plaintext.truncate(length);
        plaintext
    }

    fn refuse(&self, frame: &[u8]) {
        let frame = MessageFrame::parse(frame).unwrap();
        assert!(self.receiving.open(&frame).is_err());
    }
}

fn floor(size: usize) -> Message {
    let (mut alice, _) = ends();
    Message::new(padme(size + 1), alice.send(&vec![6; size]).len())
}

fn encrypt(table: &mut Table, size: usize, name: &str) {
    let content = vec![6; size];
    let (mut alice, _) = ends();
    let mut floor = floor(size);
    let mut peer = olm::Pair::new();
    table.measure(Operation {
        name: format!("ratchet: encrypt, {name}"),
        ours: repeated(|| alice.send(&content)),
        floor: Some(repeated(|| floor.seal())),
        peer: Some(repeated(|| olm::send(&mut peer.alice, &content))),
        most: usize::MAX,
    });
}

fn decrypt(table: &mut Table, size: usize, name: &str, waiting: usize) {
    let content = vec![6; size];
    let (mut alice, mut bob) = ends();
    for _ in 0..waiting {
        let _ = alice.send(&content);
    }
    assert_eq!(*bob.receive(&alice.send(&content)), content);
    assert_eq!(bob.session.skipped_count() as usize, waiting);
    let mut floor = floor(size);
    let mut peer = olm::Pair::new();
    table.measure(Operation {
        name: name.to_owned(),
        ours: Box::new(|count| {
            let frames: Vec<_> = (0..count).map(|_| alice.send(&content)).collect();
            let begin = Instant::now();
            for frame in &frames {
                assert_eq!(bob.receive(frame).len(), size);
            }
            let taken = begin.elapsed();
            assert_eq!(bob.session.skipped_count() as usize, waiting);
            taken
        }),
        floor: Some(repeated(|| floor.open())),
        peer: (waiting == 0).then(|| {
            Box::new(|count: usize| {
                let frames: Vec<_> = (0..count)
                    .map(|_| olm::send(&mut peer.alice, &content))
                    .collect();
                let begin = Instant::now();
                for frame in &frames {
                    assert_eq!(olm::receive(&mut peer.bob, frame).len(), size);
                }
                begin.elapsed()
            }) as _
        }),
        most: 2_000,
    });
}

/// A message there and one back, both beginning a chain.
fn ping_pong(table: &mut Table) {
    let content = [6; 16];
    let (mut alice, mut bob) = ends();
    let (mut floor, keys) = (floor(16), Asymmetric::new());
    let mut peer = olm::Pair::new();
    table.measure(Operation {
        name: "ratchet: there and back, a step each".to_owned(),
        ours: repeated(|| {
            assert_eq!(*bob.receive(&alice.send(&content)), content);
            assert_eq!(*alice.receive(&bob.send(&content)), content);
        }),
        floor: Some(repeated(|| {
            for _ in 0..2 {
                floor.seal();
                keys.step();
                floor.open();
            }
        })),
        peer: Some(repeated(|| peer.turn(&content))),
        most: usize::MAX,
    });
}

/// 1,000 messages, the last one first. vodozemac keeps 40 keys per chain.
fn reverse(table: &mut Table) {
    const MESSAGES: usize = 1_000;
    let content = [6; 16];
    let mut floor = floor(16);
    table.measure(Operation {
        name: "ratchet: 1,000 in reverse order".to_owned(),
        ours: Box::new(|count| {
            let mut runs: Vec<_> = (0..count)
                .map(|_| {
                    let (mut alice, bob) = ends();
                    let frames: Vec<_> = (0..MESSAGES).map(|_| alice.send(&content)).collect();
                    (bob, frames)
                })
                .collect();
            let begin = Instant::now();
            for (bob, frames) in &mut runs {
                for frame in frames.iter().rev() {
                    assert_eq!(*bob.receive(frame), content);
                }
                assert_eq!(bob.session.skipped_count(), 0);
            }
            begin.elapsed()
        }),
        floor: Some(repeated(|| (0..MESSAGES).for_each(|_| floor.open()))),
        peer: None,
        most: 4,
    });
}

fn forged(table: &mut Table) {
    for (size, name) in [(16, "16 B"), (1 << 16, "64 KiB")] {
        let (mut alice, bob) = ends();
        let mut frame = alice.send(&vec![6; size]);
        *frame.last_mut().unwrap() ^= 1;
        let mut floor = floor(size);
        let mut peer = olm::Pair::new();
        // Olm's begins a chain, as a forger would choose: it costs an agreement before the check can fail.
        let mut theirs = olm::send(&mut peer.alice, &vec![6; size]);
        *theirs.last_mut().unwrap() ^= 1;
        table.measure(Operation {
            name: format!("ratchet: refuse a forged frame, {name}"),
            ours: repeated(|| bob.refuse(&frame)),
            floor: Some(repeated(|| floor.refuse())),
            peer: Some(repeated(|| olm::refuse(&mut peer.bob, &theirs))),
            most: usize::MAX,
        });
    }
}
