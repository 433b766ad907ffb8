//! What lies on the disk, and in memory after the end.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "a test fails by panicking"
)]

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use rand_chacha::ChaCha20Rng;
use rand_core::{Rng, SeedableRng, TryCryptoRng, TryRng};
use sprag::store::Store;
use sprag::{Client, Failure, Surroundings, Task};
use sprag_tests::world::World;

/// The bytes in every encoding that somebody might have thought of.
fn encodings(bytes: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    const PLAIN: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const URL: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut all = vec![
        ("utf-8", bytes.to_vec()),
        ("reversed", bytes.iter().rev().copied().collect()),
        ("hex", hex::encode(bytes).into_bytes()),
        ("HEX", hex::encode_upper(bytes).into_bytes()),
        (
            "utf-16 little",
            bytes.iter().flat_map(|byte| [*byte, 0]).collect(),
        ),
        (
            "utf-16 big",
            bytes.iter().flat_map(|byte| [0, *byte]).collect(),
        ),
        ("upper case", bytes.to_ascii_uppercase()),
    ];
    // In base64 the same bytes look different at each of three places: what is sure of each.
    for (name, alphabet) in [("base64", PLAIN), ("base64url", URL)] {
        for skip in 0..3 {
            let whole = &bytes[skip..];
            let whole = &whole[..whole.len() / 3 * 3];
            let text = whole.chunks(3).flat_map(|three| {
                let bits =
                    (u32::from(three[0]) << 16) | (u32::from(three[1]) << 8) | u32::from(three[2]);
                [18, 12, 6, 0].map(|shift| alphabet[(bits >> shift & 63) as usize])
            });
            all.push((name, text.collect()));
        }
    }
    all
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack
        .windows(needle.len())
        .any(|window| window == needle)
}

fn files(below: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(below).unwrap() {
        let path = entry.unwrap().path();
        found.push(path.clone());
        if path.is_dir() {
            files(&path, found);
        }
    }
}

const SECRETS: [&str; 6] = [
    "Ottokar-the-owner",
    "Brunhilde-the-contact",
    "Kunigunde-nobody-there",
    "meet me at the old sluice",
    "I shall bring the wedge",
    "still waiting in the outbox",
];

/// Whether the search finds anything at all, and where.
fn search(bytes: &[u8]) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for secret in SECRETS {
        for (encoding, needle) in encodings(secret.as_bytes()) {
            if contains(bytes, &needle) {
                found.insert(format!("{secret} as {encoding}"));
            }
        }
    }
    found
}

#[test]
fn search_finds_what_is_there() {
    for secret in SECRETS {
        for (encoding, text) in encodings(secret.as_bytes()) {
            let mut hay = b"hay".to_vec();
            hay.extend(text);
            hay.extend(b"hay");
            let found = search(&hay);
            assert!(
                found.iter().any(|what| what.starts_with(secret)),
                "{secret} as {encoding}"
            );
        }
        // At any place of a text in base64.
        for before in ["", "x", "xy"] {
            let mut text = before.as_bytes().to_vec();
            text.extend(secret.as_bytes());
            text.extend(b"zz");
            let (_, whole) = encodings(&text)
                .into_iter()
                .find(|(name, _)| *name == "base64")
                .unwrap();
            assert!(!search(&whole).is_empty(), "{secret} after {before:?}");
        }
    }
    assert!(search(b"nothing of that kind").is_empty());
}

#[test]
fn store_holds_no_message_and_no_name_in_clear() {
    let mut world = World::on_disk(1);
    let (owner, contact) = (world.join(SECRETS[0]), world.join(SECRETS[1]));
    world.send(owner, SECRETS[1], SECRETS[3].as_bytes());
    world.settle();
    world.send(contact, SECRETS[0], SECRETS[4].as_bytes());
    world.work(contact);
    // One message waits in the inbox, one in the outbox; an event and a refused task name the contact.
    world.poll(owner);
    world.send(owner, SECRETS[1], SECRETS[5].as_bytes());
    world.send(owner, SECRETS[2], SECRETS[5].as_bytes());
    let tasks = world.tasks(owner);
    let deliver = tasks
        .iter()
        .find(|task| matches!(task, Task::Deliver { .. }))
        .unwrap();
    let refused = Failure::Refused(7);
    world.client(owner).failed(deliver.id(), &refused).unwrap();
    assert_eq!(world.client(owner).inbox().unwrap().len(), 1);

    for when in ["open", "closed", "opened again"] {
        match when {
            "closed" => world.client(owner).close().unwrap(),
            "opened again" => world.restart(owner),
            _ => {}
        }
        let mut paths = Vec::new();
        files(world.path(owner), &mut paths);
        let mut total = 0;
        for path in paths {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            assert!(search(name.as_bytes()).is_empty(), "{name}, {when}");
            if path.is_file() {
                let bytes = fs::read(&path).unwrap();
                total += bytes.len();
                let found = search(&bytes);
                assert!(found.is_empty(), "{name}, {when}: {found:?}");
            }
        }
        assert!(total > 100_000, "{total} bytes are hardly a store");
    }
}

#[test]
fn envelope_shows_addresses_and_nothing_of_the_message() {
    let mut world = World::new(1);
    let (owner, _) = (world.join(SECRETS[0]), world.join(SECRETS[1]));
    world.send(owner, SECRETS[1], SECRETS[3].as_bytes());
    world.work(owner);
    for envelope in world.envelopes().values() {
        let found = search(envelope);
        let names = |what: &String| what.starts_with(SECRETS[0]) || what.starts_with(SECRETS[1]);
        assert!(found.iter().all(names), "{found:?}");
    }
    assert_eq!(world.envelopes().len(), 1);
}

/// A generator that remembers what it drew, but not so that a search would find it.
struct Confidant(ChaCha20Rng, Arc<Mutex<Vec<Vec<u8>>>>);

const MASK: u8 = 0xa5;

impl TryRng for Confidant {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok(self.0.next_u32())
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(self.0.next_u64())
    }

    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), Infallible> {
        self.0.fill_bytes(out);
        if out.len() == 32 {
            self.1
                .lock()
                .unwrap()
                .push(out.iter().map(|byte| byte ^ MASK).collect());
        }
        Ok(())
    }
}

impl TryCryptoRng for Confidant {}

/// Where in this process's writable memory, stacks apart, the middle of a masked key lies in clear.
#[cfg(target_os = "linux")]
fn in_memory(masked: &[Vec<u8>]) -> Vec<usize> {
    use std::io::{Read, Seek, SeekFrom};
    // Ends of a key are changed when it is clamped.
    let needles: Vec<&[u8]> = masked.iter().map(|key| &key[1..31]).collect();
    let here = 0_u8;
    let stack = std::ptr::from_ref(&here) as usize;
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let mut memory = fs::File::open("/proc/self/mem").unwrap();
    let mut found = Vec::new();
    for line in maps.lines() {
        let mut words = line.split_whitespace();
        let (range, rights) = (words.next().unwrap(), words.next().unwrap());
        let (from, to) = range.split_once('-').unwrap();
        let (from, to) = (
            usize::from_str_radix(from, 16).unwrap(),
            usize::from_str_radix(to, 16).unwrap(),
        );
        if !rights.starts_with("rw") || line.ends_with("[stack]") || (from..to).contains(&stack) {
            continue;
        }
        // In pieces that never hold a whole copy for long; each is wiped.
        let mut piece = vec![0_u8; (to - from).min(1 << 26)];
        memory.seek(SeekFrom::Start(from as u64)).unwrap();
        if memory.read_exact(&mut piece).is_err() {
            continue;
        }
        for (place, needle) in needles.iter().enumerate() {
            let first = needle[0] ^ MASK;
            let hit = piece.windows(needle.len()).any(|window| {
                window[0] == first
                    && window
                        .iter()
                        .zip(*needle)
                        .all(|(one, other)| *one == other ^ MASK)
            });
            if hit {
                found.push(place);
            }
        }
        piece.fill(0);
    }
    found
}

#[test]
#[cfg(target_os = "linux")]
fn keys_are_gone_from_memory_when_the_client_is_closed() {
    let drawn = Arc::new(Mutex::new(Vec::new()));
    let rng = Confidant(ChaCha20Rng::from_seed([1; 32]), drawn.clone());
    let store = Store::in_memory(ChaCha20Rng::from_seed([2; 32])).unwrap();
    let surroundings = Surroundings::new(|| 1_700_000_000_000, rng);
    let alice = Client::with_store(store, "alice", surroundings).unwrap();
    // The account key, then the identity key.
    let keys: Vec<Vec<u8>> = drawn.lock().unwrap()[..2].to_vec();
    assert_eq!(
        in_memory(&keys).iter().collect::<BTreeSet<_>>().len(),
        2,
        "the search finds nothing"
    );
    let clone = alice.clone();
    alice.send_encrypted_message("bob", b"hello").unwrap();
    alice.close().unwrap();
    assert!(in_memory(&keys).is_empty());
    assert_eq!(clone.user().unwrap_err().code(), "closed");
}
