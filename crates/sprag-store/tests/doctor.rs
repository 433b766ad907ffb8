//! The doctor: each kind of damage has its finding, what can be mended is mended and whole, and what cannot is not touched.
#![cfg(any(feature = "sled", feature = "redb"))]
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng;
use sprag_keys::Key;
use sprag_store::doctor::{Examination, Remedy, Severity, examine, repair};
use sprag_store::{BackendKind, Changes, RowName, Rows, Store, StoreError};

fn rng() -> ChaCha20Rng {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).unwrap();
    ChaCha20Rng::from_seed(seed)
}

fn key() -> Key {
    Key::raw([7; 32])
}

fn row(n: u32) -> RowName {
    RowName::owned(0x12, n.to_be_bytes(), n.to_be_bytes())
}

const EPOCH: &str = "epoch-00000001";

fn kinds() -> Vec<BackendKind> {
    vec![
        #[cfg(feature = "sled")]
        BackendKind::Sled,
        #[cfg(feature = "redb")]
        BackendKind::Redb,
    ]
}

/// A store with 200 rows in a directory of its own, so that there is room beside it.
struct Patient(tempfile::TempDir);

impl Patient {
    fn new(kind: BackendKind) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let home = dir.path().join("home");
        let store = Store::create_in(&home, &key(), kind, rng()).unwrap();
        for round in 0..4_u8 {
            let mut changes = Changes::new();
            for n in 0..200 {
                changes.put(row(n), vec![round; 300]);
            }
            store.commit_blocking(changes).unwrap();
        }
        store.close().unwrap();
        // Once more, so that there is a snapshot.
        Store::open(&home, &key(), rng()).unwrap().close().unwrap();
        Self(dir)
    }

    fn home(&self) -> PathBuf {
        self.0.path().join("home")
    }

    fn examine(&self) -> Examination {
        examine(self.home(), &key(), rng()).unwrap()
    }

    fn codes(&self) -> Vec<(&'static str, Severity)> {
        let examination = self.examine();
        let findings = examination.findings().iter();
        findings
            .map(|finding| (finding.code, finding.severity))
            .collect()
    }

    fn is_whole(&self) {
        let store = Store::open(self.home(), &key(), rng()).unwrap();
        for n in 0..200 {
            assert_eq!(*store.get(&row(n)).unwrap().unwrap(), vec![3; 300]);
        }
        store.close().unwrap();
    }

    /// Every file with its content, and nothing beside the home.
    fn contents(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut found = BTreeMap::new();
        let mut waiting = vec![self.0.path().to_owned()];
        while let Some(dir) = waiting.pop() {
            for entry in fs::read_dir(dir).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    waiting.push(path);
                } else {
                    found.insert(path.clone(), fs::read(&path).unwrap());
                }
            }
        }
        found
    }

    /// What is found, by `examine` and then with a repair that mends it.
    fn is_mended(&self, code: &str, severity: Severity, remedy: Remedy) {
        let before = self.contents();
        let examination = self.examine();
        let found = examination
            .findings()
            .iter()
            .find(|finding| finding.code == code);
        let found = found.unwrap_or_else(|| panic!("{code}: {examination:?}"));
        assert_eq!((found.severity, found.remedy), (severity, Some(remedy)));
        assert!(examination.remedies().contains(&remedy));
        assert!(examination.store().is_some());
        drop(examination);
        assert_eq!(
            self.contents(),
            before,
            "{code}: an examination changed something"
        );

        let done = repair(self.home(), &key(), rng()).unwrap().unwrap();
        assert!(done.done.contains(&remedy));
        let home = self.home();
        for (path, content) in before {
            let aside = done.aside.join(path.strip_prefix(&home).unwrap());
            assert_eq!(
                fs::read(aside).unwrap(),
                content,
                "{code}: the copy is another"
            );
        }
        assert_eq!(self.codes(), [], "{code}: something is left");
        self.is_whole();
        assert!(repair(self.home(), &key(), rng()).unwrap().is_none());
    }

    /// What cannot be mended: found, and not touched.
    fn is_lost(&self, code: &str) {
        let before = self.contents();
        let examination = self.examine();
        let found = examination
            .findings()
            .iter()
            .find(|finding| finding.code == code);
        let found = found.unwrap_or_else(|| panic!("{code}: {examination:?}"));
        assert_eq!((found.severity, found.remedy), (Severity::Damage, None));
        assert!(examination.remedies().is_empty());
        assert!(examination.store().is_none());
        drop(examination);
        assert!(repair(self.home(), &key(), rng()).unwrap().is_none());
        assert_eq!(self.contents(), before, "{code}: it was touched");
    }
}

#[test]
fn healthy_store_has_no_findings_and_nothing_to_repair_and_is_not_touched() {
    for kind in kinds() {
        let patient = Patient::new(kind);
        let before = patient.contents();
        let examination = patient.examine();
        assert_eq!(examination.findings(), []);
        let store = examination.store().unwrap();
        assert_eq!(*store.get(&row(1)).unwrap().unwrap(), vec![3; 300]);
        drop(examination);
        assert!(repair(patient.home(), &key(), rng()).unwrap().is_none());
        assert_eq!(patient.contents(), before);
        patient.is_whole();
    }
}

#[test]
fn lost_or_damaged_manifest_is_restored_from_the_second_one() {
    for kind in kinds() {
        let patient = Patient::new(kind);
        fs::remove_file(patient.home().join("MANIFEST")).unwrap();
        patient.is_mended(
            "manifest_missing",
            Severity::Damage,
            Remedy::RestoreManifest,
        );

        let patient = Patient::new(kind);
        let path = patient.home().join("MANIFEST");
        let mut bytes = fs::read(&path).unwrap();
        bytes[100] ^= 1;
        fs::write(&path, &bytes).unwrap();
        assert!(Store::open(patient.home(), &key(), rng()).is_err());
        patient.is_mended(
            "manifest_damaged",
            Severity::Damage,
            Remedy::RestoreManifest,
        );

        let patient = Patient::new(kind);
        let path = patient.home().join("MANIFEST");
        bytes = fs::read(&path).unwrap();
        bytes[9] ^= 0x40;
        fs::write(&path, &bytes).unwrap();
        patient.is_mended(
            "manifest_version",
            Severity::Damage,
            Remedy::RestoreManifest,
        );
    }
}

#[test]
fn second_manifest_that_is_of_before_a_renewal_restores_nothing() {
    for kind in kinds() {
        let patient = Patient::new(kind);
        let before = fs::read(patient.home().join("MANIFEST.copy")).unwrap();
        let store = Store::open(patient.home(), &key(), rng()).unwrap();
        store.renew().unwrap();
        store.close().unwrap();
        fs::write(patient.home().join("MANIFEST.copy"), before).unwrap();
        fs::remove_file(patient.home().join("MANIFEST")).unwrap();
        patient.is_lost("manifest_missing");
        // As it would be if the machine had stopped before the epoch of before was removed.
        fs::create_dir(patient.home().join(EPOCH)).unwrap();
        patient.is_lost("manifest_missing");
    }
}

#[test]
fn second_manifest_is_made_again_by_a_repair_and_by_opening() {
    for kind in kinds() {
        let patient = Patient::new(kind);
        let copy = patient.home().join("MANIFEST.copy");
        fs::remove_file(&copy).unwrap();
        patient.is_mended(
            "manifest_copy_missing",
            Severity::Warning,
            Remedy::RestoreCopy,
        );
        let patient = Patient::new(kind);
        let copy = patient.home().join("MANIFEST.copy");
        fs::write(&copy, b"noise").unwrap();
        patient.is_mended(
            "manifest_copy_differs",
            Severity::Warning,
            Remedy::RestoreCopy,
        );
        fs::write(&copy, b"noise").unwrap();
        patient.is_whole();
        assert_eq!(
            fs::read(&copy).unwrap(),
            fs::read(patient.home().join("MANIFEST")).unwrap()
        );
    }
}

#[cfg(feature = "sled")]
#[test]
fn conf_of_sled_that_is_missing_or_damaged_is_written_anew() {
    for content in [None, Some(Vec::new()), Some(b"noise".to_vec())] {
        let patient = Patient::new(BackendKind::Sled);
        let path = patient.home().join(EPOCH).join("conf");
        let code = match content {
            None => {
                fs::remove_file(&path).unwrap();
                "conf_missing"
            }
            Some(content) => {
                fs::write(&path, content).unwrap();
                "conf_differs"
            }
        };
        patient.is_mended(code, Severity::Damage, Remedy::RestoreConf);
    }
}

/// A store whose snapshot is not what was written, so that it does not open.
#[cfg(feature = "sled")]
fn with_damaged_snapshot() -> Patient {
    let patient = Patient::new(BackendKind::Sled);
    let epoch = patient.home().join(EPOCH);
    let names = fs::read_dir(&epoch).unwrap();
    let snapshot = names
        .map(|entry| entry.unwrap().path())
        .find(|path| {
            path.file_name()
                .unwrap()
                .to_str()
                .unwrap()
                .starts_with("snap.")
        })
        .unwrap();
    let mut bytes = fs::read(&snapshot).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0xff;
    fs::write(&snapshot, bytes).unwrap();
    assert!(matches!(
        Store::open(copied(&patient).path().join("home"), &key(), rng()),
        Err(StoreError::Damaged(_))
    ));
    patient
}

#[cfg(feature = "sled")]
#[test]
fn damaged_snapshot_is_removed_if_the_log_alone_holds_everything() {
    let patient = with_damaged_snapshot();
    patient.is_mended("snapshot_damaged", Severity::Damage, Remedy::DropSnapshots);
}

/// The log opens without the snapshot. But nothing says that this is how far the store got.
#[cfg(feature = "sled")]
#[test]
fn damaged_snapshot_is_not_removed_if_no_mark_says_that_the_log_is_whole() {
    let patient = with_damaged_snapshot();
    let mark = patient.home().join("MARK");
    fs::remove_file(&mark).unwrap();
    patient.is_lost("database_damaged");
    fs::copy(Patient::new(BackendKind::Sled).home().join("MARK"), &mark).unwrap();
    patient.is_lost("database_damaged");
}

fn copied(patient: &Patient) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (path, content) in patient.contents() {
        let target = dir
            .path()
            .join(path.strip_prefix(patient.0.path()).unwrap());
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        fs::write(target, content).unwrap();
    }
    dir
}

#[test]
fn what_interrupted_steps_left_over_is_removed() {
    for kind in kinds() {
        for left in [
            "MANIFEST.tmp",
            "MANIFEST.copy.tmp",
            "CREATING",
            "epoch-00000002/db",
        ] {
            let patient = Patient::new(kind);
            let path = patient.home().join(left);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, b"half").unwrap();
            patient.is_mended("leftover", Severity::Note, Remedy::RemoveLeftovers);
            assert!(!path.exists());
        }
    }
    #[cfg(feature = "sled")]
    {
        let patient = Patient::new(BackendKind::Sled);
        let path = patient
            .home()
            .join(EPOCH)
            .join("snap.0000000000009999.generating");
        fs::write(&path, b"half").unwrap();
        patient.is_mended("leftover", Severity::Note, Remedy::RemoveLeftovers);
        assert!(!path.exists());
    }
}

#[cfg(unix)]
#[test]
fn permissions_of_others_are_taken_away() {
    use std::os::unix::fs::PermissionsExt;
    for kind in kinds() {
        for name in ["", "MANIFEST", EPOCH] {
            let patient = Patient::new(kind);
            let path = patient.home().join(name);
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
            patient.is_mended("mode", Severity::Warning, Remedy::RestrictModes);
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o077, 0);
        }
    }
}

#[test]
fn several_things_at_once_are_mended_at_once() {
    for kind in kinds() {
        let patient = Patient::new(kind);
        fs::remove_file(patient.home().join("MANIFEST")).unwrap();
        fs::write(patient.home().join("MANIFEST.tmp"), b"half").unwrap();
        #[cfg(feature = "sled")]
        if kind == BackendKind::Sled {
            fs::remove_file(patient.home().join(EPOCH).join("conf")).unwrap();
        }
        patient.is_mended(
            "manifest_missing",
            Severity::Damage,
            Remedy::RestoreManifest,
        );
    }
}

#[test]
fn what_nothing_is_left_of_is_said_and_not_touched() {
    for kind in kinds() {
        let rows = match kind {
            BackendKind::Sled => "db",
            _ => "rows.redb",
        };
        let patient = Patient::new(kind);
        fs::remove_dir_all(patient.home().join(EPOCH)).unwrap();
        patient.is_lost("database_missing");

        let patient = Patient::new(kind);
        fs::remove_file(patient.home().join(EPOCH).join(rows)).unwrap();
        patient.is_lost("rows_file_missing");

        let patient = Patient::new(kind);
        fs::write(patient.home().join(EPOCH).join(rows), b"").unwrap();
        patient.is_lost("rows_file_missing");

        let patient = Patient::new(kind);
        for name in ["MANIFEST", "MANIFEST.copy"] {
            fs::remove_file(patient.home().join(name)).unwrap();
        }
        patient.is_lost("manifest_missing");
    }
}

#[test]
fn damaged_rows_are_counted_and_not_touched() {
    for kind in kinds() {
        let patient = Patient::new(kind);
        let rows = match kind {
            BackendKind::Sled => "db",
            _ => "rows.redb",
        };
        let path = patient.home().join(EPOCH).join(rows);
        let mut bytes = fs::read(&path).unwrap();
        // Everywhere, so that something live is hit; not the header.
        for at in (bytes.len() / 8..bytes.len()).step_by(1_500) {
            bytes[at] ^= 0x10;
        }
        fs::write(&path, bytes).unwrap();
        let before = patient.contents();
        let codes = patient.codes();
        assert!(
            codes
                .iter()
                .any(|(code, severity)| *severity == Severity::Damage
                    && [
                        "database_damaged",
                        "rows_wrong",
                        "meta_damaged",
                        "meta_outdated",
                        "commits_missing",
                        "rows_unreadable"
                    ]
                    .contains(code)),
            "{codes:?}"
        );
        assert!(repair(patient.home(), &key(), rng()).unwrap().is_none());
        assert_eq!(patient.contents(), before);
    }
}

#[test]
fn database_that_lost_its_end_is_not_repaired_into_an_older_store() {
    for kind in kinds() {
        let patient = Patient::new(kind);
        let older = copied(&patient);
        let store = Store::open(patient.home(), &key(), rng()).unwrap();
        for n in 0..3 {
            let mut changes = Changes::new();
            changes.put(row(n), b"newer".to_vec());
            store.commit_blocking(changes).unwrap();
        }
        store.close().unwrap();
        let epoch = patient.home().join(EPOCH);
        fs::remove_dir_all(&epoch).unwrap();
        fs::create_dir(&epoch).unwrap();
        for entry in fs::read_dir(older.path().join("home").join(EPOCH)).unwrap() {
            let entry = entry.unwrap();
            if entry.path().is_file() {
                fs::copy(entry.path(), epoch.join(entry.file_name())).unwrap();
            }
        }
        patient.is_lost("commits_missing");
    }
}

#[test]
fn mark_that_is_missing_or_of_another_store_is_said() {
    for kind in kinds() {
        let patient = Patient::new(kind);
        let mark = patient.home().join("MARK");
        fs::remove_file(&mark).unwrap();
        assert_eq!(patient.codes(), [("mark_missing", Severity::Warning)]);
        fs::copy(Patient::new(kind).home().join("MARK"), &mark).unwrap();
        assert_eq!(patient.codes(), [("mark_unreadable", Severity::Warning)]);
        fs::write(patient.home().join("holiday.jpg"), b"sun").unwrap();
        let codes = patient.codes();
        assert_eq!(
            codes,
            [
                ("mark_unreadable", Severity::Warning),
                ("unknown_file", Severity::Note)
            ]
        );
    }
}

#[test]
fn store_that_is_open_missing_or_of_another_key_is_not_examined() {
    for kind in kinds() {
        let patient = Patient::new(kind);
        let examined = |key: Key| examine(patient.home(), &key, rng()).map(drop);
        assert!(matches!(
            examined(Key::raw([8; 32])),
            Err(StoreError::WrongKey)
        ));
        let store = Store::open(patient.home(), &key(), rng()).unwrap();
        let ours = Some(std::process::id());
        assert!(matches!(examined(key()), Err(StoreError::Locked { owner }) if owner == ours));
        let repaired = repair(patient.home(), &key(), rng());
        assert!(matches!(repaired, Err(StoreError::Locked { .. })));
        store.close().unwrap();
        let nothing = Path::new("no/such/place");
        assert!(matches!(
            examine(nothing, &key(), rng()),
            Err(StoreError::NotFound)
        ));
        let empty = tempfile::tempdir().unwrap();
        assert!(matches!(
            examine(empty.path(), &key(), rng()),
            Err(StoreError::NotFound)
        ));
        assert_eq!(fs::read_dir(empty.path()).unwrap().count(), 0);
    }
}
