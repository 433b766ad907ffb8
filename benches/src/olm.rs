//! The peer: vodozemac's Olm sessions, version 1.

use std::time::{Duration, Instant};

use vodozemac::olm::{Account, Message, OlmMessage, Session, SessionConfig};

/// Two ends that have heard of each other.
pub(crate) struct Pair {
    pub(crate) alice: Session,
    pub(crate) bob: Session,
}

/// Three agreements and the first message both ways; no signature, which Olm leaves to its callers.
pub(crate) fn handshake(alice: &Account, bob: &mut Account) -> (Session, Session) {
    let key = *bob.one_time_keys().values().next().unwrap();
    let mut alice_end = alice
        .create_outbound_session(SessionConfig::version_1(), bob.curve25519_key(), key)
        .unwrap();
    let OlmMessage::PreKey(first) = alice_end.encrypt([0; 16]).unwrap() else {
        panic!("the first message is a prekey message");
    };
    let made = bob
        .create_inbound_session(SessionConfig::version_1(), alice.curve25519_key(), &first)
        .unwrap();
    assert_eq!(made.plaintext, [0; 16]);
    (alice_end, made.session)
}

pub(crate) fn accounts() -> (Account, Account) {
    let mut bob = Account::new();
    bob.generate_one_time_keys(1);
    (Account::new(), bob)
}

pub(crate) fn handshakes(count: usize) -> Duration {
    let mut accounts: Vec<_> = (0..count).map(|_| accounts()).collect();
    let begin = Instant::now();
    for (alice, bob) in &mut accounts {
        std::hint::black_box(handshake(alice, bob));
    }
    begin.elapsed()
}

impl Pair {
    pub(crate) fn new() -> Self {
        let (alice, mut bob) = accounts();
        let (mut alice, mut bob) = handshake(&alice, &mut bob);
        let answer = bob.encrypt(b"answer").unwrap();
        assert_eq!(alice.decrypt(&answer).unwrap(), b"answer");
        let mut pair = Self { alice, bob };
        let _ = pair.turn(b"and on");
        pair
    }

    /// A message each way, so that each decryption is a step.
    pub(crate) fn turn(&mut self, content: &[u8]) -> usize {
        let there = receive(&mut self.bob, &send(&mut self.alice, content));
        let back = receive(&mut self.alice, &send(&mut self.bob, content));
        there.len() + back.len()
    }
}

pub(crate) fn send(session: &mut Session, content: &[u8]) -> Vec<u8> {
    match session.encrypt(content).unwrap() {
        OlmMessage::Normal(message) => message.to_bytes(),
        OlmMessage::PreKey(_) => panic!("the handshake was answered"),
    }
}

pub(crate) fn receive(session: &mut Session, bytes: &[u8]) -> Vec<u8> {
    let message = Message::from_bytes(bytes).unwrap();
    session.decrypt(&OlmMessage::Normal(message)).unwrap()
}

pub(crate) fn refuse(session: &mut Session, bytes: &[u8]) {
    let message = Message::from_bytes(bytes).unwrap();
    assert!(session.decrypt(&OlmMessage::Normal(message)).is_err());
}
