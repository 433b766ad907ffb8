//! Damaged files: a store says so, or has lost nothing. It never panics, and is never silently empty.
#![cfg(any(feature = "sled", feature = "redb"))]
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::fs;
use std::path::{Path, PathBuf};

use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use sprag_keys::Key;
use sprag_store::{BackendKind, Changes, RowName, Rows, Store, StoreError};

const ROWS: u32 = 300;

fn row(n: u32) -> RowName {
    RowName::owned(0x12, n.to_be_bytes(), n.to_be_bytes())
}

fn open(home: &Path) -> Result<Store, StoreError> {
    Store::open(home, &Key::raw([7; 32]), ChaCha20Rng::from_seed([9; 32]))
}

fn filled(home: &Path, kind: BackendKind) {
    let rng = ChaCha20Rng::from_seed([8; 32]);
    let store = Store::create_in(home, &Key::raw([7; 32]), kind, rng).unwrap();
    for round in 0..3 {
        let mut changes = Changes::new();
        for n in 0..ROWS {
            changes.put(row(n), vec![u8::try_from((n + round) % 251).unwrap(); 400]);
        }
        store.commit_blocking(changes).unwrap();
    }
    store.close().unwrap();
    // Once more, so that there is a snapshot too.
    drop(open(home).unwrap());
}

fn intact(store: &Store) -> bool {
    (0..ROWS).all(|n| {
        let value = store.get(&row(n)).ok().flatten();
        value.is_some_and(|value| *value == vec![u8::try_from((n + 2) % 251).unwrap(); 400])
    })
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path))
        } else {
            found.push(path)
        }
    }
    found.sort();
    found
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &target)
        } else {
            fs::copy(&path, &target).map(drop).unwrap()
        }
    }
}

#[cfg(feature = "sled")]
#[test]
fn damaged_store_says_so_or_has_lost_nothing() {
    damage(BackendKind::Sled);
}

#[cfg(feature = "redb")]
#[test]
fn damaged_store_in_redb_says_so_or_has_lost_nothing() {
    damage(BackendKind::Redb);
}

fn damage(kind: BackendKind) {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path(), kind);
    let mut rng = ChaCha20Rng::from_seed([1; 32]);
    let (mut intact_count, mut refused) = (0, 0);
    for path in files(dir.path()) {
        let name = path.strip_prefix(dir.path()).unwrap().to_owned();
        if name == Path::new("LOCK") {
            continue;
        }
        let content = fs::read(&path).unwrap();
        let trials = match name.file_name().and_then(|name| name.to_str()) {
            Some("db") => 24,
            // All that there is, the header at its begin first of all.
            Some("rows.redb") => 90,
            _ => 6,
        };
        for trial in 0..trials {
            let copied = tempfile::tempdir().unwrap();
            copy(dir.path(), copied.path());
            let mut damaged = content.clone();
            let among = if trials == 90 && trial < 45 {
                content.len().min(320)
            } else {
                content.len()
            };
            let at = usize::try_from(rng.next_u64() % among as u64).unwrap();
            match trial % 3 {
                0 => damaged[at] ^= 1 << (rng.next_u32() % 8),
                1 => damaged
                    .iter_mut()
                    .skip(at)
                    .take(4_096)
                    .for_each(|byte| *byte = 0),
                _ => damaged.truncate(at),
            }
            fs::write(copied.path().join(&name), damaged).unwrap();
            match open(copied.path()) {
                Ok(store) => {
                    assert!(intact(&store), "{} {trial} {at}", name.display());
                    intact_count += 1;
                }
                Err(error) => {
                    assert!(
                        matches!(
                            error,
                            StoreError::Damaged(_) | StoreError::UnsupportedVersion
                        ),
                        "{} {trial} {at}: {error:?}",
                        name.display()
                    );
                    refused += 1;
                }
            }
        }
    }
    assert!(
        intact_count > 0 && refused > 10,
        "{intact_count} intact, {refused} refused"
    );
}

/// The files of its database are those of three commits before, as after a log that was cut at its end.
fn set_back(kind: BackendKind) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path(), kind);
    let (epoch, before) = (dir.path().join("epoch-00000001"), dir.path().join("before"));
    copy(&epoch, &before);
    let store = open(dir.path()).unwrap();
    for n in 0..3 {
        let mut changes = Changes::new();
        changes.put(row(n), vec![1; 400]);
        store.commit_blocking(changes).unwrap();
    }
    store.close().unwrap();
    fs::remove_dir_all(&epoch).unwrap();
    fs::rename(&before, &epoch).unwrap();
    dir
}

fn kinds() -> Vec<BackendKind> {
    vec![
        #[cfg(feature = "sled")]
        BackendKind::Sled,
        #[cfg(feature = "redb")]
        BackendKind::Redb,
    ]
}

#[test]
fn database_that_lost_its_last_commits_is_damaged_and_not_an_older_store() {
    for kind in kinds() {
        let dir = set_back(kind);
        for _ in 0..2 {
            let opened = open(dir.path());
            assert!(
                matches!(
                    opened,
                    Err(StoreError::Damaged("the last commits are missing"))
                ),
                "{kind:?}: {opened:?}"
            );
        }
    }
}

#[test]
fn mark_that_is_missing_damaged_or_of_another_store_keeps_nobody_out() {
    for kind in kinds() {
        let other = tempfile::tempdir().unwrap();
        filled(other.path(), kind);
        for mark in [
            None,
            Some(b"noise".to_vec()),
            Some(fs::read(other.path().join("MARK")).unwrap()),
        ] {
            let dir = tempfile::tempdir().unwrap();
            filled(dir.path(), kind);
            let at = dir.path().join("MARK");
            match mark {
                Some(mark) => fs::write(&at, mark).unwrap(),
                None => fs::remove_file(&at).unwrap(),
            }
            let store = open(dir.path()).unwrap();
            assert!(intact(&store));
            // And the next commit makes a good one.
            store.commit_blocking(Changes::new()).unwrap();
            store.close().unwrap();
            assert_eq!(fs::read(&at).unwrap().len(), 48);
            drop(open(dir.path()).unwrap());
        }
    }
}
