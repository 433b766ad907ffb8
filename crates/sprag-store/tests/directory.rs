//! A store in a directory, from outside: what is there after a close, a lost file, a second opener.
#![cfg(feature = "sled")]
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::collections::BTreeSet;
use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Barrier};
use std::thread;

use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng;
use sprag_keys::{Argon2Params, Key, KeyError};
use sprag_store::{Changes, MAX_ROW, RowName, Rows, Store, StoreError};

fn rng() -> ChaCha20Rng {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).unwrap();
    ChaCha20Rng::from_seed(seed)
}

fn key() -> Key {
    Key::raw([7; 32])
}

fn create(home: &Path) -> Store {
    Store::create(home, &key(), rng()).unwrap()
}

fn open(home: &Path) -> Result<Store, StoreError> {
    Store::open(home, &key(), rng())
}

fn row(n: u32) -> RowName {
    RowName::owned(0x12, "bob", n.to_be_bytes())
}

fn put(name: RowName, value: &[u8]) -> Changes {
    let mut changes = Changes::new();
    changes.put(name, value.to_vec());
    changes
}

fn epoch(home: &Path) -> PathBuf {
    home.join("epoch-00000001")
}

/// All files below a directory.
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

fn scan(store: &Store, prefix: &RowName) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut rows = Vec::new();
    store
        .scan(prefix, &mut |suffix, value| {
            rows.push((suffix.to_vec(), value.to_vec()));
            ControlFlow::Continue(())
        })
        .unwrap();
    rows
}

#[test]
fn rows_are_there_after_close_and_after_drop() {
    let dir = tempfile::tempdir().unwrap();
    let store = create(dir.path());
    let id = *store.store_id();
    store.commit_blocking(put(row(1), b"one")).unwrap();
    store.submit_lazy(put(row(2), b"two")).unwrap();
    assert_eq!(store.get(&row(2)).unwrap().unwrap().as_slice(), b"two");
    store.close().unwrap();
    store.close().unwrap();
    assert!(matches!(store.get(&row(1)), Err(StoreError::Closed)));
    assert!(matches!(
        store.commit_blocking(Changes::new()),
        Err(StoreError::Closed)
    ));

    let store = open(dir.path()).unwrap();
    assert_eq!(store.store_id(), &id);
    assert_eq!(store.get(&row(1)).unwrap().unwrap().as_slice(), b"one");
    assert_eq!(store.get(&row(2)).unwrap().unwrap().as_slice(), b"two");
    let mut changes = Changes::new();
    changes.delete(row(1));
    store.submit_lazy(changes).unwrap();
    drop(store);

    let store = open(dir.path()).unwrap();
    assert_eq!(
        scan(&store, &RowName::owned(0x12, "bob", [])),
        [(2_u32.to_be_bytes().to_vec(), b"two".to_vec())]
    );
}

#[test]
fn scans_of_a_store_are_those_of_its_rows() {
    let dir = tempfile::tempdir().unwrap();
    let store = create(dir.path());
    let mut changes = Changes::new();
    for owner in ["bob", "carol"] {
        for n in [3_u32, 1, 2] {
            changes.put(
                RowName::owned(0x12, owner, n.to_be_bytes()),
                owner.as_bytes().to_vec(),
            );
        }
    }
    changes.put(RowName::plain(0x02, [1]), b"plain".to_vec());
    store.commit_blocking(changes).unwrap();
    let bobs: Vec<_> = [1_u32, 2, 3]
        .map(|n| (n.to_be_bytes().to_vec(), b"bob".to_vec()))
        .into();
    assert_eq!(scan(&store, &RowName::owned(0x12, "bob", [])), bobs);
    assert_eq!(
        scan(&store, &RowName::owned(0x12, "bob", [0, 0, 0])).len(),
        3
    );
    assert_eq!(scan(&store, &RowName::plain(0x12, [])).len(), 6);
    assert_eq!(
        scan(&store, &RowName::plain(0x02, [])),
        [(vec![1], b"plain".to_vec())]
    );
    assert!(store.get(&RowName::plain(0x00, [])).is_err());

    let except = RowName::owned(0x12, "carol", 2_u32.to_be_bytes());
    let mut count = 0;
    store
        .scan_except(&RowName::plain(0x12, []), &[&except], &mut |_, _| {
            count += 1;
            ControlFlow::Continue(())
        })
        .unwrap();
    assert_eq!(count, 5);
}

#[test]
fn wrong_key_and_wrong_passphrase_are_told_apart_from_damage() {
    let dir = tempfile::tempdir().unwrap();
    let quick = Argon2Params::LEAST;
    let home = dir.path().join("alice.sprag");
    drop(Store::create(&home, &Key::passphrase_with("correct horse", quick), rng()).unwrap());
    let wrong = Store::open(&home, &Key::passphrase("correct hose"), rng());
    assert!(matches!(wrong, Err(StoreError::WrongKey)));
    let other_kind = Store::open(&home, &key(), rng());
    assert!(matches!(
        other_kind,
        Err(StoreError::Key(KeyError::WrongKind))
    ));
    Store::open(&home, &Key::passphrase("correct horse"), rng()).unwrap();
}

#[test]
fn store_is_made_once_and_found_only_where_it_is() {
    let dir = tempfile::tempdir().unwrap();
    assert!(matches!(
        open(&dir.path().join("nowhere")),
        Err(StoreError::NotFound)
    ));
    assert!(matches!(open(dir.path()), Err(StoreError::NotFound)));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    drop(create(dir.path()));
    assert!(matches!(
        Store::create(dir.path(), &key(), rng()),
        Err(StoreError::Exists)
    ));
    open(dir.path()).unwrap();
}

#[cfg(unix)]
#[test]
fn directory_of_a_store_is_for_its_owner_only() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("store");
    drop(create(&home));
    assert_eq!(
        fs::metadata(&home).unwrap().permissions().mode() & 0o777,
        0o700
    );
}

#[test]
fn second_opener_is_told_who_has_the_store() {
    let dir = tempfile::tempdir().unwrap();
    let store = create(dir.path());
    let us = Some(std::process::id());
    assert!(matches!(open(dir.path()), Err(StoreError::Locked { owner }) if owner == us));
    assert!(
        matches!(Store::create(dir.path(), &key(), rng()), Err(StoreError::Locked { owner }) if owner == us)
    );
    let clone = store.clone();
    drop(store);
    assert!(matches!(open(dir.path()), Err(StoreError::Locked { .. })));
    clone.close().unwrap();
    open(dir.path()).unwrap();
}

#[test]
fn creation_that_was_cut_short_is_no_store_and_can_be_repeated() {
    let dir = tempfile::tempdir().unwrap();
    drop(create(dir.path()));
    // As if the machine had stopped before the manifest was there.
    fs::remove_file(dir.path().join("MANIFEST")).unwrap();
    fs::write(dir.path().join("CREATING"), []).unwrap();
    assert!(matches!(open(dir.path()), Err(StoreError::NotFound)));
    create(dir.path())
        .commit_blocking(put(row(1), b"one"))
        .unwrap();
    assert!(!dir.path().join("CREATING").exists());
    assert!(open(dir.path()).unwrap().get(&row(1)).unwrap().is_some());
}

#[test]
fn lost_manifest_or_database_is_damage_and_never_a_new_store() {
    let dir = tempfile::tempdir().unwrap();
    create(dir.path())
        .commit_blocking(put(row(1), b"one"))
        .unwrap();
    let losses: [fn(&Path); 6] = [
        |home| fs::remove_file(home.join("MANIFEST")).unwrap(),
        |home| fs::remove_dir_all(epoch(home)).unwrap(),
        |home| fs::remove_file(epoch(home).join("db")).unwrap(),
        |home| fs::write(epoch(home).join("db"), []).unwrap(),
        |home| fs::remove_file(epoch(home).join("conf")).unwrap(),
        |home| fs::write(home.join("MANIFEST"), []).unwrap(),
    ];
    for (n, lose) in losses.into_iter().enumerate() {
        let copied = tempfile::tempdir().unwrap();
        copy(dir.path(), copied.path());
        lose(copied.path());
        assert!(
            matches!(open(copied.path()), Err(StoreError::Damaged(_))),
            "{n}"
        );
        let again = Store::create(copied.path(), &key(), rng());
        assert!(
            matches!(again, Err(StoreError::Damaged(_) | StoreError::Exists)),
            "{n}"
        );
    }
}

#[test]
fn empty_database_in_the_place_of_the_real_one_is_damage() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    create(dir.path())
        .commit_blocking(put(row(1), b"one"))
        .unwrap();
    drop(create(other.path()));
    fs::remove_dir_all(epoch(dir.path())).unwrap();
    copy(&epoch(other.path()), &epoch(dir.path()));
    assert!(matches!(open(dir.path()), Err(StoreError::Damaged(_))));
}

#[test]
fn torn_snapshot_of_a_crash_does_not_keep_the_store_from_opening() {
    let dir = tempfile::tempdir().unwrap();
    create(dir.path())
        .commit_blocking(put(row(1), b"one"))
        .unwrap();
    let snapshot = files(&epoch(dir.path()))
        .into_iter()
        .find(|path| {
            path.file_name()
                .unwrap()
                .to_str()
                .unwrap()
                .starts_with("snap.")
        })
        .map(|path| fs::read(path).unwrap())
        .unwrap_or_default();
    let torn = snapshot.len() / 2;
    for content in [&[][..], &snapshot[..torn], &snapshot, b"anything"] {
        let stale = epoch(dir.path()).join("snap.FFFFFFFFFFFFFFFF.generating");
        fs::write(&stale, content).unwrap();
        let store = open(dir.path()).unwrap();
        assert_eq!(store.get(&row(1)).unwrap().unwrap().as_slice(), b"one");
        drop(store);
        assert!(!stale.exists());
    }
}

#[test]
fn epochs_that_the_manifest_does_not_name_are_removed_by_open() {
    let dir = tempfile::tempdir().unwrap();
    drop(create(dir.path()));
    for name in ["epoch-00000002", "epoch-notes", "notes"] {
        fs::create_dir(dir.path().join(name)).unwrap();
    }
    assert!(Store::open(dir.path(), &Key::raw([8; 32]), rng()).is_err());
    assert!(dir.path().join("epoch-00000002").exists());
    drop(open(dir.path()).unwrap());
    assert!(!dir.path().join("epoch-00000002").exists());
    assert!(dir.path().join("epoch-notes").exists() && dir.path().join("notes").exists());
}

#[test]
fn neither_names_nor_values_nor_keys_stand_in_the_files() {
    let dir = tempfile::tempdir().unwrap();
    let store = create(dir.path());
    let (owner, value) = (
        b"bob@example.org".as_slice(),
        b"a very secret value".as_slice(),
    );
    let mut changes = Changes::new();
    changes.put(
        RowName::owned(0x10, owner, *b"suffix in clear"),
        value.to_vec(),
    );
    store.commit_blocking(changes).unwrap();
    drop(store);
    drop(open(dir.path()).unwrap());
    let holds =
        |content: &[u8], what: &[u8]| content.windows(what.len()).any(|window| window == what);
    let mut suffix_seen = false;
    for path in files(dir.path()) {
        let content = fs::read(&path).unwrap();
        for secret in [owner, value, &[7; 32]] {
            assert!(!holds(&content, secret), "{}", path.display());
        }
        suffix_seen |= holds(&content, b"suffix in clear");
    }
    assert!(suffix_seen, "the search looks in the right place");
}

#[test]
fn oversized_row_is_refused_and_harms_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = create(dir.path());
    store.commit_blocking(put(row(1), &[9; MAX_ROW])).unwrap();
    let refused = store.commit_blocking(put(row(1), &[9; MAX_ROW + 1]));
    assert!(matches!(refused, Err(StoreError::TooLarge)));
    assert!(matches!(
        store.submit_lazy(put(row(1), &[9; MAX_ROW + 1])),
        Err(StoreError::TooLarge)
    ));
    assert!(matches!(
        store.commit_blocking(put(RowName::plain(0, []), b"")),
        Err(StoreError::BadName)
    ));
    for n in 0..200 {
        store.submit_lazy(put(row(n), &[9; MAX_ROW])).unwrap();
    }
    store.commit_blocking(Changes::new()).unwrap();
    assert_eq!(store.get(&row(1)).unwrap().unwrap().len(), MAX_ROW);
    drop(store);
    let blobs = epoch(dir.path()).join("blobs");
    assert!(!blobs.exists() || files(&blobs).is_empty());
}

#[test]
fn sixty_four_threads_end_where_some_order_of_them_would() {
    const THREADS: u32 = 64;
    const ROUNDS: u32 = 10;
    let dir = tempfile::tempdir().unwrap();
    let store = create(dir.path());
    let barrier = Arc::new(Barrier::new(THREADS as usize));
    let threads: Vec<_> = (0..THREADS)
        .map(|n| {
            let (store, barrier) = (store.clone(), Arc::clone(&barrier));
            thread::spawn(move || {
                barrier.wait();
                let mut sequences = Vec::new();
                for round in 0..ROUNDS {
                    // A row of one's own and two that all write to, which must never differ.
                    let value = [n.to_be_bytes(), round.to_be_bytes()].concat();
                    let mut changes = put(row(n), &value);
                    changes.put(RowName::plain(0x01, [1]), value.clone());
                    changes.put(RowName::plain(0x01, [2]), value);
                    sequences.push(store.commit_blocking(changes).unwrap());
                    let shared = scan(&store, &RowName::plain(0x01, []));
                    assert_eq!(shared[0].1, shared[1].1);
                    if n == 0 {
                        // One request that fails does not disturb the others.
                        assert!(
                            store
                                .commit_blocking(put(row(0), &[0; MAX_ROW + 1]))
                                .is_err()
                        );
                    }
                }
                assert!(sequences.is_sorted());
                sequences
            })
        })
        .collect();
    let all: BTreeSet<u64> = threads
        .into_iter()
        .flat_map(|thread| thread.join().unwrap())
        .collect();
    assert_eq!(all.len(), (THREADS * ROUNDS) as usize);
    drop(store);
    let store = open(dir.path()).unwrap();
    assert_eq!(store.commit_sequence(), *all.last().unwrap());
    for n in 0..THREADS {
        let last = [n.to_be_bytes(), (ROUNDS - 1).to_be_bytes()].concat();
        assert_eq!(*store.get(&row(n)).unwrap().unwrap(), last);
    }
}

#[test]
fn close_in_the_middle_answers_everybody_and_keeps_what_was_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let store = create(&dir.path().join("deep").join("down"));
    let threads: Vec<_> = (0..16)
        .map(|n| {
            let store = store.clone();
            thread::spawn(move || {
                for round in 0_u32.. {
                    match store.commit_blocking(put(row(n), &round.to_be_bytes())) {
                        Ok(_) => {}
                        Err(error) => {
                            assert!(matches!(error, StoreError::Closed), "{error:?}");
                            return round;
                        }
                    }
                }
                0
            })
        })
        .collect();
    while store.commit_sequence() < 500 {
        thread::yield_now();
    }
    store.close().unwrap();
    let acknowledged: Vec<u32> = threads
        .into_iter()
        .map(|thread| thread.join().unwrap())
        .collect();
    let store = open(&dir.path().join("deep").join("down")).unwrap();
    for (n, rounds) in acknowledged.into_iter().enumerate() {
        let found = store.get(&row(u32::try_from(n).unwrap())).unwrap();
        let found = found.map_or(0, |value| {
            u32::from_be_bytes(value.as_slice().try_into().unwrap()) + 1
        });
        assert_eq!(found, rounds);
    }
}

#[cfg(feature = "redb")]
#[test]
fn store_in_redb_is_found_by_open_and_lost_when_its_file_is() {
    let dir = tempfile::tempdir().unwrap();
    let store =
        Store::create_in(dir.path(), &key(), sprag_store::BackendKind::Redb, rng()).unwrap();
    store.commit_blocking(put(row(1), b"one")).unwrap();
    store.submit_lazy(put(row(2), b"two")).unwrap();
    drop(store);
    assert!(epoch(dir.path()).join("rows.redb").exists());
    let store = open(dir.path()).unwrap();
    assert_eq!(scan(&store, &RowName::owned(0x12, "bob", [])).len(), 2);
    assert!(matches!(open(dir.path()), Err(StoreError::Locked { .. })));
    drop(store);
    fs::remove_file(epoch(dir.path()).join("rows.redb")).unwrap();
    assert!(matches!(open(dir.path()), Err(StoreError::Damaged(_))));
}

#[cfg(not(feature = "redb"))]
#[test]
fn database_that_this_build_does_not_have_is_said_so() {
    let dir = tempfile::tempdir().unwrap();
    let made = Store::create_in(dir.path(), &key(), sprag_store::BackendKind::Redb, rng());
    assert!(matches!(made, Err(StoreError::MissingBackend(_))));
}
