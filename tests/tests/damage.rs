//! Damaged profiles: whoever opens one hears `store_damaged`, or has lost nothing. Never a panic, never an empty profile,
//! never a new identity. `SPRAG_DAMAGE=5000` damages that often.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::cast_possible_truncation,
    reason = "a test fails by panicking"
)]

use std::collections::BTreeMap;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use rand_chacha::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};
use sprag::store::{BackendKind, Loaded, Store};
use sprag::{Client, Error, Key, MessageId, Surroundings};
use sprag_tests::world::{BEGINNING, Who, World};

fn trials() -> usize {
    let many = std::env::var("SPRAG_DAMAGE").ok();
    many.and_then(|many| many.parse().ok()).unwrap_or(120)
}

fn rng() -> ChaCha20Rng {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).unwrap();
    ChaCha20Rng::from_seed(seed)
}

fn key() -> Key {
    Key::raw([5; 32])
}

/// Opens a profile, or makes one if it thinks that there is none.
fn open(home: &Path, user: &str) -> Result<Client, Error> {
    let surroundings = Surroundings::new(|| BEGINNING, rng());
    let opening = || Client::start_open_or_create_in(home, key(), user, surroundings).wait();
    catch_unwind(AssertUnwindSafe(opening)).expect("a panic came out")
}

/// Everything of a client that an application can see.
fn all_of(client: &Client, sent: &[MessageId]) -> String {
    let statuses: Vec<_> = sent.iter().map(|id| client.status(*id).unwrap()).collect();
    format!(
        "{:?} {:?} {:?} {:?} {:?} {:?} {statuses:?}",
        client.address().unwrap(),
        client.safety_number("bob").map_err(|error| error.code()),
        client.contact("bob").map_err(|error| error.code()),
        client.inbox().unwrap(),
        client.tasks().unwrap(),
        client.events(0).unwrap(),
    )
}

/// Two friends with messages in all states: to be read, to be delivered, delivered.
fn friends(world: &mut World) -> (Who, Who, Vec<MessageId>) {
    let (alice, bob) = (world.join("alice"), world.join("bob"));
    let mut sent = Vec::new();
    for round in 0..4 {
        sent.push(world.send(alice, "bob", format!("to bob {round}").as_bytes()));
        world.settle();
        world.send(bob, "alice", &vec![b'x'; 700 * round]);
        world.settle();
    }
    for round in 0..3 {
        sent.push(world.send(alice, "bob", format!("on its way {round}").as_bytes()));
        world.send(bob, "alice", format!("not read {round}").as_bytes());
    }
    world.work(bob);
    world.poll(alice);
    (alice, bob, sent)
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &target);
        } else {
            fs::copy(&path, &target).unwrap();
        }
    }
}

/// The files of a profile, relative to it; without the lock, which holds nothing.
fn files(home: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut waiting = vec![home.to_owned()];
    while let Some(dir) = waiting.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                waiting.push(path);
            } else if path.file_name().unwrap() != "LOCK" {
                found.push(path.strip_prefix(home).unwrap().to_owned());
            }
        }
    }
    found.sort();
    found
}

/// A profile, another one, and the same one earlier.
struct Subject {
    dir: tempfile::TempDir,
    sent: Vec<MessageId>,
    expected: String,
}

impl Subject {
    fn new(kind: BackendKind) -> Self {
        let mut world = World::on_disk(1);
        let (alice, bob, sent) = friends(&mut world);
        let dir = tempfile::tempdir().unwrap();
        for (who, name) in [(alice, "alice"), (bob, "other")] {
            world.client(who).close().unwrap();
            copy(world.path(who), &dir.path().join(name));
            let home = dir.path().join(name);
            Store::migrate(&home, &key(), kind, rng()).unwrap();
        }
        let home = dir.path().join("alice");
        // The same epoch, some commits ago; and, once it is renewed, an epoch that is past.
        let client = open(&home, "alice").unwrap();
        client.close().unwrap();
        copy(&home, &dir.path().join("epoch-before"));
        let client = open(&home, "alice").unwrap();
        client.renew().unwrap();
        client.close().unwrap();
        copy(&home, &dir.path().join("before"));
        let client = open(&home, "alice").unwrap();
        let mut sent = sent;
        for text in ["the last but one", "the last"] {
            sent.push(
                client
                    .send_encrypted_message("bob", text.as_bytes())
                    .unwrap(),
            );
        }
        client.close().unwrap();
        let client = open(&home, "alice").unwrap();
        let expected = all_of(&client, &sent);
        client.close().unwrap();
        Self {
            dir,
            sent,
            expected,
        }
    }

    fn home(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
}

/// The file of the rows.
fn rows_of(files: &[PathBuf]) -> &PathBuf {
    let mut rows = files.iter();
    rows.find(|file| file.ends_with("db") || file.ends_with("rows.redb"))
        .unwrap()
}

/// Damages a profile somehow, and says how. `None` if that changed nothing.
fn damage(subject: &Subject, home: &Path, rng: &mut ChaCha20Rng) -> Option<String> {
    let mut below = |bound: usize| (rng.next_u64() % bound as u64) as usize;
    let files = files(home);
    if below(12) == 0 {
        // The database is whole, and one of before; only the mark tells.
        let database = rows_of(&files).parent()?;
        fs::remove_dir_all(home.join(database)).unwrap();
        copy(&subject.home("before").join(database), &home.join(database));
        return Some(format!("all of {} of before", database.display()));
    }
    // Half of the time the rows themselves, which are one file among many.
    let file = match below(2) {
        0 => rows_of(&files).clone(),
        _ => files[below(files.len())].clone(),
    };
    let path = home.join(&file);
    let before = fs::read(&path).unwrap();
    let mut after = before.clone();
    let at = below(before.len().max(1));
    let how = match below(9) {
        0..2 => {
            let bit = below(8);
            *after.get_mut(at)? ^= 1 << bit;
            format!("bit {bit} of byte {at} flipped")
        }
        2 => {
            let from = at / 4_096 * 4_096;
            after
                .iter_mut()
                .skip(from)
                .take(4_096)
                .for_each(|byte| *byte = 0);
            format!("4 KiB from {from} on zeroed")
        }
        3 => {
            after.truncate(at);
            format!("cut to {at}")
        }
        4 => {
            // What a power cut takes of a file that grows.
            let left = before.len().saturating_sub(below(20_000));
            after.truncate(left);
            format!("cut at the end, to {left}")
        }
        5 => {
            fs::remove_file(&path).unwrap();
            return Some(format!("{} missing", file.display()));
        }
        other => {
            let from = ["other", "epoch-before", "before"][other - 6];
            let names = self::files(&subject.home(from));
            let same: Vec<_> = names
                .iter()
                .filter(|name| name.file_name() == file.file_name())
                .collect();
            let name = same.first()?;
            after = fs::read(subject.home(from).join(name)).unwrap();
            format!("that of {from}")
        }
    };
    if after == before {
        return None;
    }
    fs::write(&path, after).unwrap();
    Some(format!("{}: {how}", file.display()))
}

fn damaged_profiles(kind: BackendKind, seed: u64) {
    let subject = Subject::new(kind);
    let mut rng = ChaCha20Rng::seed_from_u64(seed);
    let (mut intact, mut refused) = (0, 0);
    for trial in 0..trials() {
        let copied = tempfile::tempdir().unwrap();
        let home = copied.path().join("alice");
        copy(&subject.home("alice"), &home);
        let Some(how) = damage(&subject, &home, &mut rng) else {
            continue;
        };
        let what = format!("{kind:?}, trial {trial}: {how}");
        // Twice: opening may have rewritten what it did not understand.
        for _ in 0..2 {
            match open(&home, "alice") {
                Ok(client) => {
                    assert_eq!(all_of(&client, &subject.sent), subject.expected, "{what}");
                    client.send_encrypted_message("bob", b"goes on").unwrap();
                    client.close().unwrap();
                    intact += 1;
                    break;
                }
                Err(error) => {
                    let codes = ["store_damaged", "store_version"];
                    assert!(codes.contains(&error.code()), "{what}: {error}");
                    refused += 1;
                }
            }
        }
    }
    println!("{kind:?}: {intact} intact, {refused} times refused");
    assert!(intact > 0 && refused > trials() / 4);
}

#[test]
fn damaged_profile_in_sled_is_refused_or_has_lost_nothing() {
    damaged_profiles(BackendKind::Sled, 1);
}

#[test]
fn damaged_profile_in_redb_is_refused_or_has_lost_nothing() {
    damaged_profiles(BackendKind::Redb, 2);
}

// Rows.

/// What somebody does who can write to the database and has no key.
fn exchange(
    now: &Loaded,
    older: &Loaded,
    other: &Loaded,
    rng: &mut ChaCha20Rng,
) -> Option<(String, Loaded)> {
    fn any(rows: &BTreeMap<Vec<u8>, Vec<u8>>, rng: &mut ChaCha20Rng) -> (Vec<u8>, Vec<u8>) {
        let at = (rng.next_u64() % rows.len() as u64) as usize;
        let (name, value) = rows.iter().nth(at).unwrap();
        (name.clone(), value.clone())
    }
    let mut after = now.clone();
    let (name, value) = any(&now.rows, rng);
    let shown = hex::encode(&name);
    let how = match rng.next_u64() % 6 {
        0 => {
            let (second, theirs) = any(&now.rows, rng);
            after.rows.insert(name, theirs);
            after.rows.insert(second, value);
            format!("{shown} for another")
        }
        1 => {
            // Of the same table, so that both hold the same sort of thing.
            let table = name[0];
            let same = now.rows.iter().filter(|(name, _)| name[0] == table);
            let same: BTreeMap<_, _> = same
                .map(|(name, value)| (name.clone(), value.clone()))
                .collect();
            let (second, theirs) = any(&same, rng);
            after.rows.insert(name, theirs);
            after.rows.insert(second, value);
            format!("{shown} for another of its table")
        }
        2 => {
            after
                .rows
                .insert(name.clone(), older.rows.get(&name)?.clone());
            format!("{shown} for an older self")
        }
        3 => {
            after.rows.remove(&name);
            format!("{shown} removed")
        }
        4 => {
            let gone = older
                .rows
                .iter()
                .find(|(name, _)| !now.rows.contains_key(*name))?;
            after.rows.insert(gone.0.clone(), gone.1.clone());
            "a row that was deleted came back".to_owned()
        }
        _ => {
            let (theirs, value) = any(&other.rows, rng);
            after.rows.insert(theirs, value);
            "a row of somebody else".to_owned()
        }
    };
    (after.rows != now.rows).then_some((how, after))
}

#[test]
fn row_that_is_exchanged_for_another_or_an_older_self_is_damage() {
    let mut world = World::new(3);
    let (alice, bob, sent) = friends(&mut world);
    let older = world.shelf(alice).durable();
    for round in 0..3 {
        world.read(alice);
        world.work(alice);
        world.send(alice, "bob", format!("later {round}").as_bytes());
    }
    world.settle();
    world.client(alice).close().unwrap();
    world.client(bob).close().unwrap();
    let (now, other) = (world.shelf(alice).durable(), world.shelf(bob).durable());
    let expected = all_of(&world.open_rows(alice, now.clone()).unwrap(), &sent);
    let mut rng = ChaCha20Rng::seed_from_u64(4);
    let mut kinds: BTreeMap<String, usize> = BTreeMap::new();
    for trial in 0..trials() * 3 {
        let Some((how, after)) = exchange(&now, &older, &other, &mut rng) else {
            continue;
        };
        let opening = AssertUnwindSafe(|| world.open_rows(alice, after));
        let opened = catch_unwind(opening).expect("a panic came out");
        let error = opened.map(drop).unwrap_err();
        assert_eq!(error.code(), "store_damaged", "trial {trial}: {how}");
        let kind = how.split_once(' ').unwrap().1.to_owned();
        *kinds.entry(kind).or_default() += 1;
    }
    assert_eq!(kinds.len(), 6, "{kinds:?}");
    // All the while nothing was changed in what they were taken from.
    assert_eq!(
        all_of(&world.open_rows(alice, now).unwrap(), &sent),
        expected
    );
}
