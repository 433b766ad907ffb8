//! Who used which key with which nonce: asked of `sprag-crypto`, and judged here.
//!
//! In one process only one of the two can be on: [`to_file`] for a child that is going to be killed, over all threads and
//! all lives; [`on_this_thread`] for a test among others (all of a client's encryptions are made by the thread that calls
//! it; seeded tests beside it repeat themselves lawfully).
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "a test fails by panicking"
)]

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::sync::OnceLock;

use sprag_crypto::recorder::{Use, install};
use sprag_wire::{Envelope, limits};

/// Bytes of one use in a file: kind, name of the key or seed, nonce or zeros, tag, and 1, which a record that a kill cut
/// short lacks.
const RECORD: usize = 1 + 32 + 12 + 16 + 1;

static FILE: OnceLock<File> = OnceLock::new();

thread_local! {
    static HERE: RefCell<Option<Vec<Use>>> = const { RefCell::new(None) };
}

/// Appends every use of this process, from now on, to a file: one write each, before anything of the ciphertext is handed
/// out. A kill takes back nothing that was written.
pub fn to_file(path: &Path) {
    let file = OpenOptions::new().create(true).append(true).open(path);
    let mut file = file.expect("a file to record to");
    // A kill may cut a write where a page ends.
    let over = file.metadata().unwrap().len() as usize % RECORD;
    if over > 0 {
        file.write_all(&vec![0; RECORD - over]).expect("padded");
    }
    FILE.set(file).expect("one file in a process");
    let first = install(|used| {
        let mut file: &File = FILE.get().expect("opened before");
        file.write_all(&record(used)).expect("recorded");
    });
    assert!(first, "something else records already");
}

/// Runs `work` and gives the uses that this thread made meanwhile.
pub fn on_this_thread<T>(work: impl FnOnce() -> T) -> (T, Vec<Use>) {
    let (outcome, uses) = if_any_on_this_thread(work);
    assert!(!uses.is_empty(), "nothing was recorded: a file is?");
    (outcome, uses)
}

/// As [`on_this_thread`], of work that may encrypt nothing. Whoever uses it looks at the sum.
pub fn if_any_on_this_thread<T>(work: impl FnOnce() -> T) -> (T, Vec<Use>) {
    install(|used| {
        HERE.with_borrow_mut(|here| {
            if let Some(here) = here {
                here.push(*used);
            }
        });
    });
    HERE.set(Some(Vec::new()));
    let outcome = work();
    let uses = HERE.take().unwrap_or_default();
    assert!(FILE.get().is_none(), "a file records already");
    (outcome, uses)
}

fn record(used: &Use) -> [u8; RECORD] {
    let mut record = [0; RECORD];
    match used {
        Use::Encryption { key, nonce, tag } => {
            record[0] = 1;
            record[1..33].copy_from_slice(key);
            record[33..45].copy_from_slice(nonce);
            record[45..61].copy_from_slice(tag);
        }
        Use::Message { seed, tag } => {
            record[0] = 2;
            record[1..33].copy_from_slice(seed);
            record[45..61].copy_from_slice(tag);
        }
        _ => {}
    }
    record[RECORD - 1] = 1;
    record
}

/// All uses of all lives that are in question, and what is wrong with them.
#[derive(Debug, Default)]
pub struct Ledger {
    pairs: BTreeSet<[u8; 44]>,
    /// Tag of a body to the name of its seed.
    bodies: BTreeMap<[u8; 16], [u8; 32]>,
    twice: usize,
}

impl Ledger {
    /// Adds what was recorded.
    pub fn add(&mut self, uses: &[Use]) {
        for used in uses {
            self.add_record(&record(used));
        }
    }

    /// Adds what [`to_file`] wrote, from byte `from` on; gives where it ends. A file that is not there is empty.
    pub fn add_file(&mut self, path: &Path, from: usize) -> usize {
        let bytes = std::fs::read(path).unwrap_or_default();
        let (records, _cut) = bytes[from..].as_chunks::<RECORD>();
        for record in records {
            self.add_record(record);
        }
        from + records.len() * RECORD
    }

    fn add_record(&mut self, record: &[u8; RECORD]) {
        if record[RECORD - 1] != 1 {
            return;
        }
        let tag = record[45..61].try_into().unwrap();
        if record[0] == 2 {
            self.bodies.insert(tag, record[1..33].try_into().unwrap());
        } else if !self.pairs.insert(record[1..45].try_into().unwrap()) {
            self.twice += 1;
        }
    }

    /// Encryptions so far.
    #[must_use]
    pub fn encryptions(&self) -> usize {
        self.pairs.len() + self.twice
    }

    /// Encryptions under a pair of key and nonce that another one had.
    #[must_use]
    pub fn repeated(&self) -> usize {
        self.twice
    }

    /// The name of the seed that the body of an envelope's frame was encrypted with, if a record of it is there.
    #[must_use]
    pub fn seed_of(&self, envelope: &[u8]) -> Option<[u8; 32]> {
        self.seed(&tag_of(envelope)?)
    }

    /// The name of the seed that the body with this tag was encrypted with, if a record of it is there.
    #[must_use]
    pub fn seed(&self, tag: &[u8; 16]) -> Option<[u8; 32]> {
        self.bodies.get(tag).copied()
    }
}

/// The tag of the body in an envelope's frame.
#[must_use]
pub fn tag_of(envelope: &[u8]) -> Option<[u8; 16]> {
    let envelope = Envelope::decode(envelope).ok()?;
    let (message, _origin) = envelope
        .payload()
        .split_last_chunk::<{ limits::ORIGIN }>()?;
    message.last_chunk().copied()
}

#[cfg(test)]
mod tests {
    use rand_chacha::ChaCha20Rng;
    use rand_core::SeedableRng;
    use sprag::Task;
    use sprag_crypto::{AeadKey, SealKey, seal_in_place};

    use super::*;
    use crate::world::World;

    #[test]
    fn a_pair_that_comes_again_is_noticed_however_it_was_made() {
        let ((), uses) = on_this_thread(|| {
            let mut text = b"text".to_vec();
            seal_in_place(&[1; 32], &[2; 12], b"", &mut text, 0);
            seal_in_place(&[1; 32], &[3; 12], b"", &mut text, 0);
            AeadKey::new(&[1; 32]).seal_in_place(&[2; 12], b"other", &mut text, 0);
        });
        let mut ledger = Ledger::default();
        ledger.add(&uses);
        assert_eq!((ledger.encryptions(), ledger.repeated()), (3, 1));
        let key = SealKey::from_bytes(&[1; 32]);
        let ((), uses) = on_this_thread(|| {
            for _ in 0..2 {
                let mut rng = ChaCha20Rng::seed_from_u64(7);
                let _ = key.seal(b"label", b"", b"text", &mut rng);
            }
        });
        ledger.add(&uses);
        assert_eq!((ledger.encryptions(), ledger.repeated()), (5, 2));
    }

    #[test]
    fn uses_of_clients_are_recorded_and_envelopes_lead_to_their_seeds() {
        let (envelopes, uses) = on_this_thread(|| {
            let mut world = World::new(1);
            let alice = world.join("alice");
            world.join("bob");
            world.send(alice, "bob", b"hello");
            world.settle();
            world.send(alice, "bob", b"again");
            let tasks = world.client(alice).tasks().unwrap();
            let envelopes = tasks.into_iter().filter_map(|task| match task {
                Task::Deliver { envelope, .. } => Some(envelope),
                _ => None,
            });
            envelopes.collect::<Vec<_>>()
        });
        let mut ledger = Ledger::default();
        ledger.add(&uses);
        assert!(ledger.encryptions() > 50, "{}", ledger.encryptions());
        assert_eq!(ledger.repeated(), 0);
        assert!(!envelopes.is_empty());
        let seeds: BTreeSet<_> = envelopes
            .iter()
            .map(|envelope| ledger.seed_of(envelope))
            .collect();
        assert!(!seeds.contains(&None));
        assert_eq!(seeds.len(), envelopes.len());
    }
}
