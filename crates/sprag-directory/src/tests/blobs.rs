//! Blobs: under their own hash, until nobody who put them needs them.

use sprag_crypto::sha256;

use super::*;
use crate::MemoryStorage;

on_both_storages!(
    blob_is_there_until_it_is_dropped,
    blob_under_another_name_or_above_64_mib_is_refused,
    same_blob_put_again_is_the_same,
    blob_that_two_users_put_stays_until_both_dropped_it,
    nobody_drops_what_another_put,
    blob_that_was_lost_or_altered_is_missing_and_can_be_put_again,
    blobs_put_and_dropped_at_once_end_as_if_one_after_the_other,
);

fn name(bytes: &[u8]) -> [u8; 32] {
    sha256(&[bytes])
}

fn key(bytes: &[u8]) -> String {
    format!("blobs/{}", crate::directory::hex(&name(bytes)))
}

fn is_missing<S: Storage>(directory: &Directory<S>, bytes: &[u8]) -> bool {
    match directory.get_blob(&name(bytes)) {
        Err(DirectoryError::NoSuchBlob) => true,
        Err(other) => panic!("{other}"),
        Ok(found) => {
            assert_eq!(found, bytes);
            false
        }
    }
}

/// How many users hold it.
fn holders<S: Storage>(storage: &S, bytes: &[u8]) -> usize {
    let key = format!("blob-holders/{}", crate::directory::hex(&name(bytes)));
    let row = storage.lock().unwrap().get(&key, 1 << 20).unwrap();
    row.map_or(0, |row| row.len() / 32)
}

fn blob_is_there_until_it_is_dropped<S: Storage + Clone>(storage: S) {
    let directory = open(storage.clone());
    let ann = user("ann");
    for bytes in [&b""[..], b"x", &[7; 100_000]] {
        assert!(is_missing(&directory, bytes));
        directory.put_blob(&ann, &name(bytes), bytes).unwrap();
        // Opened anew it is still there.
        assert!(!is_missing(&open(storage.clone()), bytes));
    }
    for _ in 0..2 {
        directory.drop_blob(&ann, &name(b"x")).unwrap();
        assert!(is_missing(&directory, b"x"));
    }
    assert!(!is_missing(&directory, b""));
    assert_eq!(holders(&storage, b"x"), 0);
    directory.put_blob(&ann, &name(b"x"), b"x").unwrap();
    assert!(!is_missing(&directory, b"x"));
}

fn blob_under_another_name_or_above_64_mib_is_refused<S: Storage + Clone>(storage: S) {
    let directory = open(storage.clone());
    let ann = user("ann");
    let wrong = [name(b"y"), [0; 32], sha256(&[b"x", b"\0"])];
    for wrong in wrong {
        let result = directory.put_blob(&ann, &wrong, b"x");
        assert_eq!(refusal(result), Refusal::WrongName);
        let found = directory.get_blob(&wrong);
        assert!(matches!(found, Err(DirectoryError::NoSuchBlob)));
    }
    let large = vec![0; (64 << 20) + 1];
    let result = directory.put_blob(&ann, &name(&large), &large);
    assert_eq!(refusal(result), Refusal::TooLarge);
    assert!(is_missing(&directory, &large));
    assert_eq!(holders(&storage, &large), 0);
    let largest = &large[1..];
    directory.put_blob(&ann, &name(largest), largest).unwrap();
    assert!(!is_missing(&directory, largest));
}

fn same_blob_put_again_is_the_same<S: Storage + Clone>(storage: S) {
    let directory = open(storage.clone());
    let ann = user("ann");
    for _ in 0..3 {
        directory.put_blob(&ann, &name(b"x"), b"x").unwrap();
    }
    assert_eq!(holders(&storage, b"x"), 1);
    assert_eq!(storage.lock().unwrap().list("blobs").unwrap().len(), 1);
    // Put three times, dropped once: what counts is who, not how often.
    directory.drop_blob(&ann, &name(b"x")).unwrap();
    assert!(is_missing(&directory, b"x"));
}

fn blob_that_two_users_put_stays_until_both_dropped_it<S: Storage>(storage: S) {
    let directory = open(storage);
    for owner in ["ann", "bob"] {
        directory.put_blob(&user(owner), &name(b"x"), b"x").unwrap();
    }
    directory.drop_blob(&user("ann"), &name(b"x")).unwrap();
    directory.drop_blob(&user("ann"), &name(b"x")).unwrap();
    assert!(!is_missing(&directory, b"x"));
    directory.drop_blob(&user("bob"), &name(b"x")).unwrap();
    assert!(is_missing(&directory, b"x"));
}

fn nobody_drops_what_another_put<S: Storage>(storage: S) {
    let directory = open(storage);
    directory.put_blob(&user("ann"), &name(b"x"), b"x").unwrap();
    // The receiver of an attachment knows its name, and may not take it from the other receivers.
    directory.drop_blob(&user("eve"), &name(b"x")).unwrap();
    assert!(!is_missing(&directory, b"x"));
    directory.drop_blob(&user("eve"), &name(b"y")).unwrap();
    assert!(is_missing(&directory, b"y"));
}

fn blob_that_was_lost_or_altered_is_missing_and_can_be_put_again<S: Storage + Clone>(storage: S) {
    let directory = open(storage.clone());
    let ann = user("ann");
    let bytes = &[7; 1000][..];
    directory.put_blob(&ann, &name(bytes), bytes).unwrap();
    let mut flipped = bytes.to_vec();
    flipped[500] ^= 1;
    for found in [Some(&bytes[..999]), Some(&flipped), Some(b""), None] {
        match found {
            Some(found) => storage.lock().unwrap().put(&key(bytes), found).unwrap(),
            None => storage.lock().unwrap().delete(&key(bytes)).unwrap(),
        }
        assert!(is_missing(&directory, bytes));
        directory.put_blob(&ann, &name(bytes), bytes).unwrap();
        assert!(!is_missing(&directory, bytes));
    }
}

fn blobs_put_and_dropped_at_once_end_as_if_one_after_the_other<S: Storage + Clone + Send>(
    storage: S,
) {
    let bytes = &[7; 5000][..];
    std::thread::scope(|scope| {
        for owner in ["ann", "bob", "cid"] {
            let directory = open(storage.clone());
            scope.spawn(move || {
                for _ in 0..5 {
                    directory
                        .put_blob(&user(owner), &name(bytes), bytes)
                        .unwrap();
                    // Whatever the others do, it is there while this one needs it.
                    assert!(!is_missing(&directory, bytes));
                    directory.drop_blob(&user(owner), &name(bytes)).unwrap();
                }
            });
        }
    });
    assert!(is_missing(&open(storage.clone()), bytes));
    assert_eq!(holders(&storage, bytes), 0);
}

#[test]
fn death_between_the_two_steps_leaves_nothing_that_a_repetition_does_not_end() {
    let storage = MemoryStorage::new();
    let directory = open(storage.clone());
    let ann = user("ann");
    directory.put_blob(&ann, &name(b"x"), b"x").unwrap();
    // After the first step of a put, and of a drop: somebody holds it, but it is not there.
    storage.lock().unwrap().delete(&key(b"x")).unwrap();
    assert!(is_missing(&directory, b"x"));
    directory.drop_blob(&ann, &name(b"x")).unwrap();
    assert_eq!(holders(&storage, b"x"), 0);
    // A crash may bring back what was deleted: it is there, but nobody holds it.
    storage.lock().unwrap().put(&key(b"x"), b"x").unwrap();
    directory.drop_blob(&ann, &name(b"x")).unwrap();
    assert!(is_missing(&directory, b"x"));
}

#[test]
fn blob_that_4096_users_put_is_full_for_the_next_and_stays_for_them() {
    let storage = MemoryStorage::new();
    let directory = open(storage.clone());
    for number in 0..4096 {
        let owner = user(&number.to_string());
        directory.put_blob(&owner, &name(b"x"), b"x").unwrap();
    }
    let one_more = user("one more");
    let result = directory.put_blob(&one_more, &name(b"x"), b"x");
    assert!(matches!(result, Err(DirectoryError::Full)));
    // Those who hold it may put it again, and the one who does not takes it from nobody.
    directory.put_blob(&user("7"), &name(b"x"), b"x").unwrap();
    directory.drop_blob(&one_more, &name(b"x")).unwrap();
    assert_eq!(holders(&storage, b"x"), 4096);
    directory.drop_blob(&user("7"), &name(b"x")).unwrap();
    directory.put_blob(&one_more, &name(b"x"), b"x").unwrap();
    assert!(!is_missing(&directory, b"x"));
}

#[test]
fn row_of_holders_that_does_not_decode_is_an_error_and_the_blob_stays() {
    let storage = MemoryStorage::new();
    let directory = open(storage.clone());
    let ann = user("ann");
    directory.put_blob(&ann, &name(b"x"), b"x").unwrap();
    let key = format!("blob-holders/{}", crate::directory::hex(&name(b"x")));
    let newer = [&[2], &[7; 32][..]].concat();
    for bad in [&b""[..], &[1], &[1; 32], &[1; 34], &newer, &[1; 200_000]] {
        storage.lock().unwrap().put(&key, bad).unwrap();
        directory.put_blob(&ann, &name(b"x"), b"x").unwrap_err();
        directory.drop_blob(&ann, &name(b"x")).unwrap_err();
        assert!(!is_missing(&directory, b"x"));
    }
}

#[cfg(feature = "folder")]
#[test]
fn torn_blob_file_is_missing_and_mended_by_the_next_put() {
    let folder = tempfile::tempdir().unwrap();
    let storage = crate::FolderStorage::open(folder.path()).unwrap();
    let directory = open(storage);
    let bytes = &[7; 100_000][..];
    directory
        .put_blob(&user("ann"), &name(bytes), bytes)
        .unwrap();
    let path = folder.path().join(key(bytes));
    // A disk that lied about its writes; and a file that grew beyond everything.
    for length in [0, 4096, 99_999, 100_001, 1 << 40] {
        let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
        file.set_len(length).unwrap();
        assert!(is_missing(&directory, bytes));
        directory
            .put_blob(&user("ann"), &name(bytes), bytes)
            .unwrap();
        assert!(!is_missing(&directory, bytes));
    }
}
