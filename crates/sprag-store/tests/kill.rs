//! `kill -9` at any moment: what was acknowledged is there, whole, and at most one commit more.
#![cfg(all(any(feature = "sled", feature = "redb"), unix))]
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test fails by panicking"
)]

use std::io::{BufRead, BufReader};
use std::ops::ControlFlow;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use sprag_keys::Key;
use sprag_store::{BackendKind, Changes, RowName, Rows, Store, StoreError};

const HOME: &str = "SPRAG_TEST_KILL_HOME";
const RENEWS: &str = "SPRAG_TEST_KILL_RENEWS";
const KILLS: usize = 20;

fn open(home: &Path) -> Result<Store, StoreError> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).unwrap();
    Store::open(home, &Key::raw([7; 32]), ChaCha20Rng::from_seed(seed))
}

/// Every commit writes its number to the same row, and a new row, and takes away the one from ten commits ago.
fn step(n: u64) -> Changes {
    let mut changes = Changes::new();
    changes.put(RowName::plain(0x01, []), n.to_be_bytes().to_vec());
    changes.put(
        RowName::owned(0x02, "bob", n.to_be_bytes()),
        vec![0xab; 200],
    );
    if let Some(old) = n.checked_sub(10) {
        changes.delete(RowName::owned(0x02, "bob", old.to_be_bytes()));
    }
    changes
}

fn committed(store: &Store) -> u64 {
    let row = store.get(&RowName::plain(0x01, [])).unwrap();
    row.map_or(0, |row| {
        u64::from_be_bytes(row.as_slice().try_into().unwrap())
    })
}

/// The child: not a test of its own, but this one started again.
#[test]
fn child_that_commits_until_it_is_killed() {
    let Some(home) = std::env::var_os(HOME) else {
        return;
    };
    let home = Path::new(&home);
    let mut store = open(home).unwrap();
    for n in committed(&store) + 1.. {
        store.commit_blocking(step(n)).unwrap();
        println!("\nacked {n}");
        let Some(renews) = std::env::var_os(RENEWS) else {
            continue;
        };
        store.renew().unwrap();
        if renews == "migrate" && n % 3 == 0 {
            let to = match store.backend_kind().unwrap() {
                BackendKind::Sled => BackendKind::Redb,
                _ => BackendKind::Sled,
            };
            store.close().unwrap();
            let (key, rng) = (
                Key::raw([7; 32]),
                ChaCha20Rng::from_seed(n.to_be_bytes().repeat(4).try_into().unwrap()),
            );
            Store::migrate(home, &key, to, rng).unwrap();
            store = open(home).unwrap();
        }
    }
}

fn spawn(home: &Path, renews: Option<&str>) -> (Child, mpsc::Receiver<u64>) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "child_that_commits_until_it_is_killed",
            "--nocapture",
        ])
        .env(HOME, home)
        .envs(renews.map(|renews| (RENEWS, renews)))
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || {
        for line in lines.map_while(Result::ok) {
            if let Some(n) = line.strip_prefix("acked ") {
                // A line that the kill cut short says less than was acknowledged, never more.
                let _ = tell.send(n.parse().unwrap());
            }
        }
    });
    (child, told)
}

#[cfg(feature = "sled")]
#[test]
fn killed_store_holds_what_was_acknowledged_and_at_most_one_commit_more() {
    kill(BackendKind::Sled, None, KILLS);
}

#[cfg(feature = "sled")]
#[test]
fn store_that_is_killed_while_it_is_renewed_lost_nothing() {
    kill(BackendKind::Sled, Some("renew"), 30);
}

#[cfg(feature = "redb")]
#[test]
fn store_in_redb_that_is_killed_while_it_is_renewed_lost_nothing() {
    kill(BackendKind::Redb, Some("renew"), 30);
}

#[cfg(all(feature = "sled", feature = "redb"))]
#[test]
fn store_that_is_killed_while_it_is_moved_lost_nothing() {
    kill(BackendKind::Sled, Some("migrate"), 30);
}

#[cfg(feature = "redb")]
#[test]
fn killed_store_in_redb_holds_what_was_acknowledged_and_at_most_one_commit_more() {
    kill(BackendKind::Redb, None, KILLS);
}

fn kill(kind: BackendKind, renews: Option<&str>, kills: usize) {
    let dir = tempfile::tempdir().unwrap();
    let (key, rng) = (Key::raw([7; 32]), ChaCha20Rng::from_seed([1; 32]));
    drop(Store::create_in(dir.path(), &key, kind, rng).unwrap());
    let mut rng = ChaCha20Rng::from_seed([2; 32]);
    let mut acked = 0;
    for kill in 0..kills {
        let (mut child, told) = spawn(dir.path(), renews);
        // Every fifth is killed while it opens, or before.
        if kill % 5 == 4 {
            std::thread::sleep(Duration::from_millis(rng.next_u64() % 30));
        } else {
            let most = if renews.is_some() { 8 } else { 40 };
            let commits = rng.next_u64() % most + 1;
            for _ in 0..commits {
                acked = told.recv_timeout(Duration::from_secs(60)).unwrap();
            }
            // One that is moved is closed for moments, in which nobody shall open it.
            assert!(
                renews == Some("migrate")
                    || matches!(open(dir.path()), Err(StoreError::Locked { owner }) if owner == Some(child.id()))
            );
            let most = if renews.is_some() { 30_000 } else { 5_000 };
            std::thread::sleep(Duration::from_micros(rng.next_u64() % most));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        acked = told.iter().last().unwrap_or(acked);

        let store = open(dir.path()).unwrap();
        let epochs = std::fs::read_dir(dir.path()).unwrap();
        let epochs = epochs.filter(|entry| entry.as_ref().unwrap().path().is_dir());
        assert_eq!(epochs.count(), 1);
        let found = committed(&store);
        assert!(
            found == acked || found == acked + 1,
            "acknowledged {acked}, found {found}"
        );
        let mut rows = Vec::new();
        store
            .scan(&RowName::owned(0x02, "bob", []), &mut |suffix, value| {
                assert_eq!(value, [0xab; 200]);
                rows.push(u64::from_be_bytes(suffix.try_into().unwrap()));
                ControlFlow::Continue(())
            })
            .unwrap();
        let expected: Vec<u64> = (found.saturating_sub(9).max(1)..=found).collect();
        assert_eq!(rows, expected);
        acked = found;
    }
    assert!(acked > 0);
}
