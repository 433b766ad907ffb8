//! The epoch, and what crashes and restored backups leave.

use std::cell::Cell;

use super::*;
use crate::{Entry, LockedStorage, MemoryStorage, StorageError};

on_both_storages!(
    epoch_is_drawn_once_and_kept_over_opens,
    restored_server_has_the_new_epoch_in_each_state,
);

fn epoch_is_drawn_once_and_kept_over_opens<S: Storage + Clone>(storage: S) {
    let first = open(storage.clone());
    let second = Directory::open(storage, ServerEpoch::from_bytes([2; 16])).unwrap();
    assert_eq!(first.epoch().unwrap(), EPOCH);
    assert_eq!(second.epoch().unwrap(), EPOCH);
    assert_eq!(state(&second, &address("bob", 5)).epoch, EPOCH.as_bytes());
}

fn restored_server_has_the_new_epoch_in_each_state<S: Storage + Clone>(storage: S) {
    let directory = open(storage.clone());
    let new = ServerEpoch::from_bytes([3; 16]);
    directory.restored(new).unwrap();
    assert_eq!(open(storage).epoch().unwrap(), new);
    assert_eq!(state(&directory, &address("bob", 5)).epoch, new.as_bytes());
}

#[test]
fn restored_backup_never_hands_out_a_one_time_key_again() {
    let storage = MemoryStorage::new();
    let (directory, _) = with_user(storage.clone(), "bob", &[5]);
    let bob = address("bob", 5);
    directory
        .upload_pre_keys(&bob, &upload(1, false, 1..=3, 2..=4).encode())
        .unwrap();
    let backup = storage.backup();
    assert_eq!(
        ask_bundles(&directory, "bob", &[]).0[0].one_time_pre_key,
        Some(one_time(1))
    );

    let restored = open(backup);
    restored.restored(ServerEpoch::from_bytes([2; 16])).unwrap();
    let (bundles, _) = ask_bundles(&restored, "bob", &[]);
    assert_eq!(bundles[0].one_time_pre_key, None);
    assert_eq!(bundles[0].kem_pre_key, last_resort(1));
    let counts = state(&restored, &bob);
    assert_eq!(
        (counts.number, counts.one_time, counts.kem_one_time),
        (1, 0, 0)
    );

    // What the device then publishes is handed out again.
    restored
        .upload_pre_keys(&bob, &upload(2, true, 4..=5, 5..=6).encode())
        .unwrap();
    assert_eq!(
        ask_bundles(&restored, "bob", &[]).0[0].one_time_pre_key,
        Some(one_time(4))
    );
}

#[test]
fn restored_backup_takes_the_lists_that_it_lost() {
    let storage = MemoryStorage::new();
    let (directory, mut account) = with_user(storage.clone(), "bob", &[5]);
    let backup = storage.backup();
    for devices in [&[5, 6][..], &[5], &[5, 8]] {
        let list = account.list(devices);
        directory.publish_lists(&lists(&[list])).unwrap();
    }
    let restored = open(backup);
    assert_eq!(
        ask_lists(&restored, "bob", 0, &[]).frames,
        account.lists[..1]
    );
    restored.publish_lists(&lists(&account.lists)).unwrap();
    assert_eq!(ask_lists(&restored, "bob", 1, &[]).frames, account.lists);

    let empty = open(MemoryStorage::new());
    empty.publish_lists(&lists(&account.lists)).unwrap();
    assert_eq!(ask_lists(&empty, "bob", 1, &[]).frames, account.lists);
}

#[test]
fn lists_of_a_publication_that_failed_midway_do_not_count() {
    for failing in 0..3 {
        let storage = Failing {
            rows: MemoryStorage::new(),
            puts_left: Cell::new(usize::MAX),
        };
        let (directory, mut account) = with_user(storage, "bob", &[5]);
        account.list(&[5, 6]);
        account.list(&[6]);
        directory.storage.puts_left.set(failing);
        let result = directory.publish_lists(&lists(&account.lists));
        assert!(matches!(
            result,
            Err(DirectoryError::Storage(StorageError::Io(_)))
        ));
        directory.storage.puts_left.set(usize::MAX);

        let reply = ask_lists(&directory, "bob", 1, &[]);
        assert_eq!(reply.frames, account.lists[..1]);
        let other = account.sign(2, Some(hash(&account.lists[0])), &[5, 9]);
        directory
            .publish_lists(&lists(std::slice::from_ref(&other)))
            .unwrap();
        assert_eq!(ask_lists(&directory, "bob", 0, &[]).frames, [other]);
    }
}

#[test]
fn one_time_key_is_not_answered_if_its_removal_is_not_stored() {
    let storage = Failing {
        rows: MemoryStorage::new(),
        puts_left: Cell::new(usize::MAX),
    };
    let (directory, _) = with_user(storage, "bob", &[5]);
    directory
        .upload_pre_keys(&address("bob", 5), &upload(1, false, 1..=1, 2..=2).encode())
        .unwrap();
    directory.storage.puts_left.set(0);
    let query = BundleQuery::new("bob".to_owned(), Vec::new(), Vec::new()).encode();
    assert!(matches!(
        directory.bundles(&query),
        Err(DirectoryError::Storage(_))
    ));
}

#[test]
fn rows_of_a_newer_version_are_damaged_and_stay_as_they_are() {
    let storage = MemoryStorage::new();
    let bob = address("bob", 5);
    let (directory, _) = with_user(storage.clone(), "bob", &[5]);
    directory
        .upload_pre_keys(&bob, &upload(1, false, 1..=1, 2..=2).encode())
        .unwrap();
    let keys = [
        "epoch".to_owned(),
        format!("{}/newest-list", crate::directory::user_key(&user("bob"))),
        format!("{}/prekeys/5", crate::directory::user_key(&user("bob"))),
    ];
    for key in &keys {
        let copy = storage.backup();
        let mut row = copy.lock().unwrap().get(key, 1 << 20).unwrap().unwrap();
        row[0] = 2;
        copy.lock().unwrap().put(key, &row).unwrap();
        let query = BundleQuery::new("bob".to_owned(), Vec::new(), Vec::new()).encode();
        let result = Directory {
            storage: copy.clone(),
        }
        .bundles(&query);
        assert!(matches!(
            result,
            Err(DirectoryError::Storage(StorageError::Damaged))
        ));
        assert_eq!(
            copy.lock().unwrap().get(key, 1 << 20).unwrap().unwrap(),
            row
        );
    }
}

/// A storage that fails when a number of rows was written.
struct Failing {
    rows: MemoryStorage,
    puts_left: Cell<usize>,
}

struct FailingRows<'a> {
    rows: Box<dyn LockedStorage + 'a>,
    puts_left: &'a Cell<usize>,
}

impl Storage for Failing {
    fn lock(&self) -> Result<Box<dyn LockedStorage + '_>, StorageError> {
        Ok(Box::new(FailingRows {
            rows: self.rows.lock()?,
            puts_left: &self.puts_left,
        }))
    }
}

impl LockedStorage for FailingRows<'_> {
    fn get(&self, key: &str, limit: usize) -> Result<Option<Vec<u8>>, StorageError> {
        self.rows.get(key, limit)
    }

    fn put(&mut self, key: &str, value: &[u8]) -> Result<(), StorageError> {
        match self.puts_left.get().checked_sub(1) {
            Some(left) => self.puts_left.set(left),
            None => return Err(StorageError::Io(std::io::Error::other("disk full"))),
        }
        self.rows.put(key, value)
    }

    fn delete(&mut self, key: &str) -> Result<(), StorageError> {
        self.rows.delete(key)
    }

    fn list(&self, key: &str) -> Result<Vec<Entry>, StorageError> {
        self.rows.list(key)
    }
}
