//! Objects: compare and swap, and tags that never come again.

use std::collections::BTreeSet;

use sprag_wire::relay::Object;

use super::*;
use crate::{MemoryStorage, StorageError};

on_both_storages!(
    object_is_what_was_put_last,
    object_is_put_only_over_the_one_that_was_expected,
    tag_of_another_name_or_another_user_is_a_conflict,
    same_names_of_two_users_do_not_meet,
    asker_who_has_the_newest_gets_no_value,
    objects_beyond_their_bounds_are_refused_and_change_nothing,
    tags_never_come_again_also_for_a_value_that_does,
    of_many_swaps_at_once_exactly_one_wins_each_round,
);

pub(crate) fn put<S: Storage>(
    directory: &Directory<S>,
    owner: &str,
    name: &[u8],
    tag: &[u8],
    value: &[u8],
) -> Result<Vec<u8>, DirectoryError> {
    let object = Object::new(name.to_vec(), tag.to_vec(), value.to_vec()).encode();
    let reply = directory.put_object(&user(owner), &object)?;
    let reply = Object::decode(&reply).unwrap();
    assert_eq!((&reply.name[..], &reply.value[..]), (name, &[][..]));
    assert!(!reply.tag.is_empty());
    Ok(reply.tag)
}

/// Tag and value.
fn get<S: Storage>(
    directory: &Directory<S>,
    owner: &str,
    name: &[u8],
    tag: &[u8],
) -> (Vec<u8>, Vec<u8>) {
    let object = Object::new(name.to_vec(), tag.to_vec(), Vec::new()).encode();
    let reply = directory.get_object(&user(owner), &object).unwrap();
    let reply = Object::decode(&reply).unwrap();
    assert_eq!(reply.name, name);
    (reply.tag, reply.value)
}

fn conflict_with<T>(result: Result<T, DirectoryError>) -> (Vec<u8>, Vec<u8>) {
    let object = Object::decode(&conflict(result)).unwrap();
    (object.tag, object.value)
}

fn object_is_what_was_put_last<S: Storage + Clone>(storage: S) {
    let directory = open(storage.clone());
    assert_eq!(get(&directory, "ann", b"n", b""), (Vec::new(), Vec::new()));
    let first = put(&directory, "ann", b"n", b"", b"one").unwrap();
    assert_eq!(
        get(&directory, "ann", b"n", b""),
        (first.clone(), b"one".to_vec())
    );
    let second = put(&directory, "ann", b"n", &first, &[7; 1 << 16]).unwrap();
    // Opened anew it is still there.
    let directory = open(storage);
    assert_eq!(
        get(&directory, "ann", b"n", &first),
        (second, vec![7; 1 << 16])
    );
    assert_eq!(get(&directory, "ann", &[0xff; 64], b"").0, b"");
}

fn object_is_put_only_over_the_one_that_was_expected<S: Storage>(storage: S) {
    let directory = open(storage);
    // There is none: nothing can be expected.
    assert_eq!(
        conflict_with(put(&directory, "ann", b"n", &[1; 24], b"x")),
        (Vec::new(), Vec::new())
    );
    let first = put(&directory, "ann", b"n", b"", b"one").unwrap();
    let second = put(&directory, "ann", b"n", &first, b"two").unwrap();
    let now = (second.clone(), b"two".to_vec());
    let flipped: Vec<u8> = second.iter().map(|byte| byte ^ 1).collect();
    let longer = [&second[..], &[0]].concat();
    for expected in [&b""[..], &first, &second[..23], &longer, &flipped, &[0; 64]] {
        assert_eq!(
            conflict_with(put(&directory, "ann", b"n", expected, b"three")),
            now
        );
        // Also when it would bring what is there.
        assert_eq!(
            conflict_with(put(&directory, "ann", b"n", expected, b"two")),
            now
        );
    }
    assert_eq!(get(&directory, "ann", b"n", b""), now);
}

fn tag_of_another_name_or_another_user_is_a_conflict<S: Storage>(storage: S) {
    let directory = open(storage);
    let n = put(&directory, "ann", b"n", b"", b"of n").unwrap();
    let m = put(&directory, "ann", b"m", b"", b"of m").unwrap();
    let theirs = put(&directory, "bob", b"n", b"", b"of bob").unwrap();
    assert_eq!(
        BTreeSet::from([&n, &m, &theirs]).len(),
        3,
        "other values at the same place of other names"
    );
    for (owner, name, tag) in [("ann", b"n", &m), ("ann", b"m", &n), ("ann", b"n", &theirs)] {
        let (_, value) = conflict_with(put(&directory, owner, name, tag, b"x"));
        assert!(value.starts_with(b"of "));
    }
}

fn same_names_of_two_users_do_not_meet<S: Storage>(storage: S) {
    let directory = open(storage);
    put(&directory, "ann", b"n", b"", b"ann's").unwrap();
    assert_eq!(get(&directory, "bob", b"n", b"").0, b"");
    put(&directory, "bob", b"n", b"", b"bob's").unwrap();
    assert_eq!(get(&directory, "ann", b"n", b"").1, b"ann's");
    assert_eq!(get(&directory, "bob", b"n", b"").1, b"bob's");
}

fn asker_who_has_the_newest_gets_no_value<S: Storage>(storage: S) {
    let directory = open(storage);
    let tag = put(&directory, "ann", b"n", b"", b"one").unwrap();
    assert_eq!(
        get(&directory, "ann", b"n", &tag),
        (tag.clone(), Vec::new())
    );
    for other in [&b""[..], &tag[..23], &[0; 24]] {
        assert_eq!(
            get(&directory, "ann", b"n", other),
            (tag.clone(), b"one".to_vec())
        );
    }
}

fn objects_beyond_their_bounds_are_refused_and_change_nothing<S: Storage>(storage: S) {
    let directory = open(storage);
    let tag = put(&directory, "ann", b"n", b"", b"one").unwrap();
    let ann = user("ann");
    let encoded = |name: &[u8], tag: &[u8], value: &[u8]| {
        Object::new(name.to_vec(), tag.to_vec(), value.to_vec()).encode()
    };
    let large = encoded(b"n", &tag, &[7; (1 << 16) + 1]);
    assert_eq!(
        refusal(directory.put_object(&ann, &large)),
        Refusal::TooLarge
    );
    for bad in [
        encoded(b"", &tag, b"x"),
        encoded(&[1; 65], b"", b"x"),
        encoded(b"n", &[1; 65], b"x"),
        b"\x0a\xff".to_vec(),
        vec![0; (4 << 20) + 1],
    ] {
        assert_eq!(
            refusal(directory.put_object(&ann, &bad)),
            Refusal::Malformed
        );
        assert_eq!(
            refusal(directory.get_object(&ann, &bad)),
            Refusal::Malformed
        );
    }
    // Without value nobody could be told that it is the newest.
    let empty = encoded(b"n", &tag, b"");
    assert_eq!(
        refusal(directory.put_object(&ann, &empty)),
        Refusal::Malformed
    );
    assert_eq!(get(&directory, "ann", b"n", b""), (tag, b"one".to_vec()));
    assert_eq!(get(&directory, "ann", &[1; 64], b"").0, b"");
}

fn tags_never_come_again_also_for_a_value_that_does<S: Storage + Clone>(storage: S) {
    let mut seen = BTreeSet::new();
    let mut tag = Vec::new();
    for round in 0..64 {
        // Each time as a server that was started anew.
        let directory = open(storage.clone());
        let before = tag.clone();
        tag = put(&directory, "ann", b"n", &tag, &[round % 2 + 1]).unwrap();
        // Not by the hash alone: its first eight bytes count.
        assert!(tag.get(..8) > before.get(..8));
        assert!(seen.insert(tag.clone()), "a tag came again");
    }
}

fn of_many_swaps_at_once_exactly_one_wins_each_round<S: Storage + Clone + Send>(storage: S) {
    let directory = open(storage.clone());
    let mut tag = Vec::new();
    for _ in 0..10 {
        let winners: Vec<(Vec<u8>, Vec<u8>)> = std::thread::scope(|scope| {
            let threads: Vec<_> = (1..=4_u8)
                .map(|thread| {
                    let (storage, tag) = (storage.clone(), tag.clone());
                    scope.spawn(move || {
                        let value = vec![thread; 3];
                        match put(&open(storage), "ann", b"n", &tag, &value) {
                            Ok(new) => Some((new, value)),
                            Err(DirectoryError::Conflict { .. }) => None,
                            Err(other) => panic!("{other}"),
                        }
                    })
                })
                .collect();
            let threads = threads.into_iter();
            threads
                .filter_map(|thread| thread.join().unwrap())
                .collect()
        });
        assert_eq!(winners.len(), 1);
        assert_eq!(get(&directory, "ann", b"n", b""), winners[0]);
        tag.clone_from(&winners[0].0);
    }
}

#[test]
fn server_that_was_set_back_gives_other_tags_noticed_or_not() {
    let storage = MemoryStorage::new();
    let directory = open(storage.clone());
    let first = put(&directory, "ann", b"n", b"", b"one").unwrap();
    let backup = storage.backup();
    let second = put(&directory, "ann", b"n", &first, b"two").unwrap();

    let unnoticed = open(backup.backup());
    let other = put(&unnoticed, "ann", b"n", &first, b"another").unwrap();
    assert_ne!(other, second);
    // Who has the lost state is told the one of now, and not that his is the newest.
    assert_eq!(
        get(&unnoticed, "ann", b"n", &second),
        (other, b"another".to_vec())
    );

    let noticed = open(backup.backup());
    noticed.restored(ServerEpoch::from_bytes([2; 16])).unwrap();
    let again = put(&noticed, "ann", b"n", &first, b"two").unwrap();
    assert_ne!(again, second);

    // A server that lost everything.
    let lost = open(MemoryStorage::new());
    let anew = put(&lost, "ann", b"n", b"", b"other").unwrap();
    assert_ne!(anew, first);
    assert_eq!(get(&lost, "ann", b"n", &first), (anew, b"other".to_vec()));
}

#[test]
fn row_that_is_no_object_is_an_error_and_stays() {
    let storage = MemoryStorage::new();
    let directory = open(storage.clone());
    let tag = put(&directory, "ann", b"n", b"", b"one").unwrap();
    let key = {
        let rows = storage.lock().unwrap();
        let objects = format!("{}/objects", crate::directory::user_key(&user("ann")));
        format!("{objects}/{}", rows.list(&objects).unwrap()[0].name())
    };
    let good = storage.lock().unwrap().get(&key, 1 << 20).unwrap().unwrap();
    let mut newer = good.clone();
    newer[0] = 2;
    for bad in [
        Vec::new(),
        good[..24].to_vec(),
        good[..25].to_vec(),
        newer,
        vec![1; 70_000],
    ] {
        storage.lock().unwrap().put(&key, &bad).unwrap();
        let object = Object::new(b"n".to_vec(), tag.clone(), b"x".to_vec()).encode();
        for result in [
            directory.put_object(&user("ann"), &object),
            directory.get_object(&user("ann"), &object),
        ] {
            assert!(matches!(
                result,
                Err(DirectoryError::Storage(
                    StorageError::Damaged | StorageError::TooLarge
                ))
            ));
        }
        assert_eq!(
            storage.lock().unwrap().get(&key, 1 << 20).unwrap().unwrap(),
            bad
        );
    }
}

#[cfg(feature = "folder")]
#[test]
fn torn_write_leaves_the_object_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let storage = crate::FolderStorage::open(folder.path()).unwrap();
    let directory = open(storage);
    let tag = put(&directory, "ann", b"n", b"", b"one").unwrap();
    // What a process leaves that dies while it writes.
    let temporary = folder.path().join("directory.tmp");
    std::fs::write(&temporary, b"\x01half a row").unwrap();
    assert_eq!(
        get(&directory, "ann", b"n", b""),
        (tag.clone(), b"one".to_vec())
    );
    put(&directory, "ann", b"n", &tag, b"two").unwrap();
    assert_eq!(get(&directory, "ann", b"n", b"").1, b"two");
    assert!(!temporary.exists());
}
