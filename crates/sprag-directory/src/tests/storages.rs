//! What a storage owes a directory.

use super::*;
use crate::StorageError;

on_both_storages!(
    value_is_what_was_put_last,
    keys_that_are_no_paths_of_ours_are_refused,
    value_beyond_the_limit_is_not_read,
    list_names_the_values_one_level_below_in_order,
    two_lists_of_one_epoch_published_at_once_have_one_winner,
);

fn value_is_what_was_put_last<S: Storage>(storage: S) {
    let mut rows = storage.lock().unwrap();
    assert_eq!(rows.get("a/b", 9).unwrap(), None);
    for value in [&b"one"[..], b"", b"another"] {
        rows.put("a/b", value).unwrap();
        assert_eq!(rows.get("a/b", 9).unwrap().unwrap(), value);
    }
    for _ in 0..2 {
        rows.delete("a/b").unwrap();
        assert_eq!(rows.get("a/b", 9).unwrap(), None);
    }
}

fn keys_that_are_no_paths_of_ours_are_refused<S: Storage>(storage: S) {
    let mut rows = storage.lock().unwrap();
    let long = "a".repeat(121);
    for key in [
        "", "/", "/a", "a/", "a//b", ".", "..", "a/../b", "a.b", "A", "a b", "a\\b", "a\0", "é",
        &long,
    ] {
        assert!(matches!(rows.get(key, 9), Err(StorageError::InvalidKey)));
        assert!(matches!(rows.put(key, b"x"), Err(StorageError::InvalidKey)));
        assert!(matches!(rows.delete(key), Err(StorageError::InvalidKey)));
        assert!(matches!(rows.list(key), Err(StorageError::InvalidKey)));
    }
}

fn value_beyond_the_limit_is_not_read<S: Storage>(storage: S) {
    let mut rows = storage.lock().unwrap();
    rows.put("a", &[7; 100]).unwrap();
    assert_eq!(rows.get("a", 100).unwrap().unwrap(), [7; 100]);
    assert!(matches!(rows.get("a", 99), Err(StorageError::TooLarge)));
    assert!(matches!(rows.get("a", 0), Err(StorageError::TooLarge)));
}

fn list_names_the_values_one_level_below_in_order<S: Storage>(storage: S) {
    let mut rows = storage.lock().unwrap();
    assert!(rows.list("a").unwrap().is_empty());
    for key in ["a/2", "a/10", "a/1", "a/c/3", "ab/4", "b"] {
        rows.put(key, key.as_bytes()).unwrap();
    }
    let found = rows.list("a").unwrap();
    let found: Vec<_> = found
        .iter()
        .map(|entry| (entry.name(), entry.size()))
        .collect();
    assert_eq!(found, [("1", 3), ("10", 4), ("2", 3)]);
}

fn two_lists_of_one_epoch_published_at_once_have_one_winner<S: Storage + Clone + Send>(storage: S) {
    let (directory, account) = with_user(storage.clone(), "bob", &[5]);
    let previous = Some(hash(&account.lists[0]));
    let winners: Vec<Vec<u8>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (6..10)
            .map(|device| {
                let list = account.sign(2, previous, &[5, device]);
                let storage = storage.clone();
                scope.spawn(move || {
                    match open(storage).publish_lists(&lists(std::slice::from_ref(&list))) {
                        Ok(_) => Some(list),
                        Err(DirectoryError::Conflict { newest }) => {
                            assert_ne!(newest, list);
                            None
                        }
                        Err(other) => panic!("{other}"),
                    }
                })
            })
            .collect();
        threads
            .into_iter()
            .filter_map(|thread| thread.join().unwrap())
            .collect()
    });
    assert_eq!(winners.len(), 1);
    assert_eq!(ask_lists(&directory, "bob", 0, &[]).frames, winners);
}

#[cfg(feature = "folder")]
mod folder_alone {
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::{Path, PathBuf};

    use super::super::inbox::{envelope, salt};
    use super::*;
    use crate::FolderStorage;

    fn files(folder: &Path) -> Vec<PathBuf> {
        let mut found = Vec::new();
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                found.extend(files(&path));
            } else {
                found.push(path);
            }
        }
        found
    }

    fn handle(folder: &Path) -> Directory<FolderStorage> {
        open(FolderStorage::open(folder).unwrap())
    }

    #[test]
    fn handles_in_several_threads_lose_nothing_and_hand_out_each_key_once() {
        let folder = tempfile::tempdir().unwrap();
        let (directory, _) = with_user(FolderStorage::open(folder.path()).unwrap(), "bob", &[5]);
        let bob = address("bob", 5);
        directory
            .upload_pre_keys(&bob, &upload(1, true, 1..=40, 2..=41).encode())
            .unwrap();
        let taken: Vec<(u32, u32)> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|thread| {
                    let path = folder.path();
                    scope.spawn(move || {
                        let directory = handle(path);
                        let mut taken = Vec::new();
                        for number in 1..=10 {
                            directory
                                .deliver(&envelope(5, thread * 100 + number, 50))
                                .unwrap();
                            let bundle = ask_bundles(&directory, "bob", &[]).0.remove(0);
                            let one_time = bundle.one_time_pre_key.unwrap().id.get();
                            taken.push((one_time, bundle.kem_pre_key.id.get()));
                        }
                        taken
                    })
                })
                .collect();
            threads
                .into_iter()
                .flat_map(|thread| thread.join().unwrap())
                .collect()
        });
        let one_time: BTreeSet<u32> = taken.iter().map(|ids| ids.0).collect();
        let kem: BTreeSet<u32> = taken.iter().map(|ids| ids.1).collect();
        assert_eq!(one_time, (1..=40).collect());
        assert_eq!(kem, (2..=41).collect());
        let left = state(&directory, &bob);
        assert_eq!((left.one_time, left.kem_one_time), (0, 0));

        let waiting = directory.fetch(&bob, 100).unwrap();
        let ids: BTreeSet<u32> = (0..4)
            .flat_map(|thread| (1..=10).map(move |n| thread * 100 + n))
            .collect();
        assert_eq!(waiting.len(), 40);
        for id in ids {
            assert!(waiting.contains(&(salt(id), envelope(5, id, 50))));
        }
    }

    #[test]
    fn what_one_handle_wrote_the_next_one_reads() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("made").join("on the way");
        let (directory, account) = with_user(FolderStorage::open(&path).unwrap(), "bob", &[5]);
        directory.deliver(&envelope(5, 1, 17)).unwrap();
        drop(directory);
        let directory = handle(&path);
        assert_eq!(ask_lists(&directory, "bob", 0, &[]).frames, account.lists);
        assert_eq!(directory.fetch(&address("bob", 5), 9).unwrap().len(), 1);
    }

    #[test]
    fn names_of_users_never_become_names_of_files() {
        let above = tempfile::tempdir().unwrap();
        let root = above.path().join("server");
        let storage = FolderStorage::open(&root).unwrap();
        let directory = open(storage);
        for name in [
            "../../escaped",
            "/escaped",
            "..",
            "escaped/escaped",
            "C:\\escaped",
        ] {
            let list = Account::new(name, 7).list(&[5]);
            directory.publish_lists(&lists(&[list])).unwrap();
            let owner = address(name, 5);
            directory
                .upload_pre_keys(&owner, &upload(1, true, 1..=1, 2..=2).encode())
                .unwrap();
        }
        for path in files(above.path()) {
            let path = path.strip_prefix(&root).unwrap().to_str().unwrap();
            assert!(!path.contains("escaped") && !path.contains(".."), "{path}");
        }
        assert_eq!(fs::read_dir(root.join("users")).unwrap().count(), 5);
    }

    #[test]
    fn foreign_and_oversized_files_do_not_keep_the_rest_from_the_device() {
        let folder = tempfile::tempdir().unwrap();
        let (directory, _) = with_user(FolderStorage::open(folder.path()).unwrap(), "bob", &[5]);
        directory.deliver(&envelope(5, 1, 17)).unwrap();
        let kept = files(folder.path());
        let kept = kept
            .iter()
            .find(|path| path.to_str().unwrap().contains("inbox"))
            .unwrap();
        let inbox = kept.parent().unwrap();
        fs::write(inbox.join("notes (copy of ann).txt"), b"x").unwrap();
        fs::write(inbox.join("not-ours"), b"x").unwrap();
        fs::write(inbox.join(format!("1-{}", "0".repeat(32))), b"x").unwrap();
        fs::create_dir(inbox.join(format!("{:020}-{}", 3, "0".repeat(32)))).unwrap();
        let huge = inbox.join(format!("{:020}-{}", 0, "1".repeat(32)));
        fs::File::create(huge).unwrap().set_len(1 << 40).unwrap();
        let found = directory.fetch(&address("bob", 5), 9).unwrap();
        assert_eq!(found, [(salt(1), envelope(5, 1, 17))]);
    }

    #[test]
    fn temporary_file_of_a_crash_is_overwritten_and_a_link_in_its_place_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let temporary = folder.path().join("directory.tmp");
        fs::write(&temporary, b"half a row").unwrap();
        let directory = handle(folder.path());
        let victim = folder.path().join("victim");
        fs::write(&victim, b"precious").unwrap();
        #[cfg(unix)]
        std::os::unix::fs::symlink(&victim, &temporary).unwrap();
        directory
            .restored(ServerEpoch::from_bytes([9; 16]))
            .unwrap();
        assert_eq!(fs::read(&victim).unwrap(), b"precious");
        assert!(!temporary.exists());
    }

    #[test]
    fn damaged_folder_is_an_error_and_never_a_panic() {
        let folder = tempfile::tempdir().unwrap();
        let (directory, account) =
            with_user(FolderStorage::open(folder.path()).unwrap(), "bob", &[5]);
        let bob = address("bob", 5);
        directory
            .upload_pre_keys(&bob, &upload(1, true, 1..=3, 2..=4).encode())
            .unwrap();
        let list = ListQuery::new("bob".to_owned(), 0, Vec::new()).encode();
        let bundle = BundleQuery::new("bob".to_owned(), Vec::new(), Vec::new()).encode();
        for path in files(folder.path()) {
            if path.ends_with("directory.lock") {
                continue;
            }
            let good = fs::read(&path).unwrap();
            for bad in [
                Vec::new(),
                good[..good.len() - 1].to_vec(),
                [&good[..], &[0]].concat(),
                vec![0xff; good.len()],
                vec![1; 1 << 21],
            ] {
                fs::write(&path, &bad).unwrap();
                let _ = directory.lists(&list);
                let _ = directory.publish_lists(&lists(&account.lists));
                let _ = directory.state(&bob);
                let _ = directory.fetch(&bob, 9);
                let result = directory.bundles(&bundle);
                assert!(
                    matches!(result, Err(DirectoryError::Storage(_))),
                    "{}",
                    path.display()
                );
                fs::write(&path, &good).unwrap();
            }
        }
        directory.bundles(&bundle).unwrap();
    }

    #[test]
    fn place_that_is_no_folder_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, b"x").unwrap();
        assert!(matches!(
            FolderStorage::open(&file),
            Err(StorageError::Io(_))
        ));
        let storage = FolderStorage::open(folder.path().join("gone")).unwrap();
        fs::remove_dir(folder.path().join("gone")).unwrap();
        assert!(matches!(
            Directory::open(storage, EPOCH),
            Err(StorageError::Io(_))
        ));
    }
}
