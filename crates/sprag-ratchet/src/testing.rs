//! What the unit tests share.

mod model;
mod replay;

use std::collections::BTreeMap;
use std::sync::OnceLock;

use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng;
use serde_json::Value;
use sprag_crypto::{Features, HandshakeSecret, Mode, RatchetKeyPair, SessionId, TranscriptHash};

use crate::{
    Decrypted, EncryptedMessage, MessageSeed, ReceivedMessage, Session, SkippedChanges,
    SkippedIndex, SkippedKeys, SkippedUnavailable,
};

/// The published vectors.
pub(crate) fn vectors() -> &'static Value {
    static VECTORS: OnceLock<Value> = OnceLock::new();
    VECTORS.get_or_init(|| {
        let path = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../../tests/vectors/sprag-1.json"
        );
        serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
    })
}

pub(crate) fn hex(value: &Value) -> Vec<u8> {
    hex::decode(value.as_str().unwrap()).unwrap()
}

pub(crate) fn bytes32(value: &Value) -> [u8; 32] {
    hex(value).try_into().unwrap()
}

pub(crate) fn rng(seed: u64) -> ChaCha20Rng {
    ChaCha20Rng::seed_from_u64(seed)
}

pub(crate) fn secret(features: Features) -> HandshakeSecret {
    HandshakeSecret::derive(
        Mode::Pqxdh,
        features,
        TranscriptHash::from_bytes([1; 32]),
        SessionId::from_bytes([2; 16]),
        &[3; 128],
    )
}

/// Both ends of a fresh session.
pub(crate) fn pair(rng: &mut ChaCha20Rng) -> (Session, Session) {
    let signed_pre_key = RatchetKeyPair::generate(rng);
    let none = Features::default();
    let initiator = Session::initiate(secret(none), signed_pre_key.public(), rng).unwrap();
    let responder = Session::respond(secret(none), signed_pre_key).unwrap();
    (initiator, responder)
}

/// Passes over messages that are never made.
pub(crate) fn advance_sender(session: &mut Session, messages: u32) {
    let chain = session.0.sending.as_mut().unwrap();
    for _ in 0..messages {
        chain.key.pass();
    }
    chain.next += messages;
}

/// A message as it arrives.
pub(crate) fn received(message: &EncryptedMessage) -> ReceivedMessage<'_> {
    ReceivedMessage::new(
        message.chain_index,
        message.salt,
        &message.header,
        &message.body,
    )
}

/// Skipped keys in memory.
#[derive(Clone, Default)]
pub(crate) struct MemorySkipped {
    pub(crate) rows: BTreeMap<SkippedIndex, [u8; 32]>,
    pub(crate) broken: bool,
}

impl MemorySkipped {
    pub(crate) fn apply(&mut self, changes: &SkippedChanges) {
        for index in &changes.deleted {
            assert!(
                self.rows.remove(index).is_some(),
                "deleted what is not there"
            );
        }
        for key in &changes.stored {
            let seed = *key.seed.as_bytes();
            assert!(
                self.rows.insert(key.index(), seed).is_none(),
                "stored twice"
            );
        }
    }

    /// Takes over what a message changed.
    pub(crate) fn commit(&mut self, session: &mut Session, decrypted: Decrypted) {
        self.apply(&decrypted.skipped);
        *session = decrypted.session;
        assert_eq!(self.rows.len(), session.skipped_count() as usize);
    }

    fn ask<T>(&self, answer: T) -> Result<T, SkippedUnavailable> {
        if self.broken {
            Err(SkippedUnavailable)
        } else {
            Ok(answer)
        }
    }
}

impl SkippedKeys for MemorySkipped {
    fn seed(&self, at: SkippedIndex) -> Result<Option<MessageSeed>, SkippedUnavailable> {
        self.ask(self.rows.get(&at).map(MessageSeed::from_bytes))
    }

    fn oldest(&self, count: usize) -> Result<Vec<SkippedIndex>, SkippedUnavailable> {
        self.ask(self.rows.keys().take(count).copied().collect())
    }

    fn of_chain(&self, chain: u32) -> Result<Vec<SkippedIndex>, SkippedUnavailable> {
        let of = |at: &&SkippedIndex| at.chain == chain;
        self.ask(self.rows.keys().filter(of).copied().collect())
    }
}
