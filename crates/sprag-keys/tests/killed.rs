//! Rotations whose process is killed, again and again.
//!
//! The process is this very test program, started again with a folder in its environment. It rotates without end: a new
//! version in the ring file, all records under it, the old versions destroyed, and anew.

#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod support;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::{env, fs};

use rand_chacha::rand_core::{Rng, UnwrapErr};
use sprag_keys::{
    JournalFile, Key, KeySource, KeyState, Progress, RingFile, RotationJob, Sealer, VersionInfo,
};
use support::{Folder, Format, id, rng};

const FOLDER: &str = "SPRAG_KEYS_KILLED_FOLDER";
const RECORDS: usize = 60;
const KILLS: usize = 50;

fn name(n: usize) -> String {
    format!("record-{n:03}")
}

fn text(name: &str) -> Vec<u8> {
    format!("the text of {name}").into_bytes()
}

fn key() -> Key {
    Key::raw([3; 32])
}

fn open(folder: &Path) -> RingFile {
    RingFile::open(folder.join("ring"), &key()).unwrap()
}

fn versions(ring: &RingFile, state: KeyState) -> Vec<VersionInfo> {
    let versions = ring.ring().versions(&id()).unwrap().into_iter();
    versions.filter(|version| version.state == state).collect()
}

/// One rotation from wherever the last process was to its end.
fn rotate_once(folder: &Path, mut tell: impl FnMut()) {
    let system = || UnwrapErr(getrandom::SysRng);
    let mut ring = open(folder);
    tell();
    if versions(&ring, KeyState::Retired).is_empty() {
        ring.rotate(&id(), &mut system(), 1).unwrap();
        tell();
    }
    let target = ring.current(&id()).unwrap().version();
    let journal = JournalFile::new(folder.join("journal"));
    let mut job = RotationJob::begin(journal, &id(), target).unwrap();
    tell();
    job = job.with_page(3);
    let records = Folder(folder.join("records"));
    let end = job.run(&records, &ring, &Format, system, |_| tell());
    assert!(matches!(end, Ok(Progress::Finished(_))), "{end:?}");
    for old in versions(&ring, KeyState::Retired) {
        ring.destroy(&id(), old.version, &mut system(), 2).unwrap();
        tell();
    }
}

/// What the killed process does. As a test of this program it does nothing.
#[test]
fn rotates_until_it_is_killed() {
    let Some(folder) = env::var_os(FOLDER) else {
        return;
    };
    loop {
        rotate_once(Path::new(&folder), || eprintln!("on"));
    }
}

fn start(folder: &Path) -> Child {
    Command::new(env::current_exe().unwrap())
        .args(["--exact", "rotates_until_it_is_killed", "--nocapture"])
        .env(FOLDER, folder)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Every record opens as what it was; tells how many are under the current version.
fn check(folder: &Path) -> usize {
    let ring = open(folder);
    let current = ring.current(&id()).unwrap().version();
    let mut under = 0;
    for n in 0..RECORDS {
        let name = name(n);
        let sealed = fs::read(folder.join("records").join(&name)).unwrap();
        let (id, version) = Format.key_of(name.as_bytes(), &sealed).unwrap();
        let key = ring.by_version(&id, version).unwrap();
        let opened = Format.open(&key, name.as_bytes(), &sealed).unwrap();
        assert_eq!(*opened, text(&name));
        under += usize::from(version == current);
    }
    under
}

#[test]
fn fifty_kills_at_random_leave_every_record_readable_and_the_rotation_finishes() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path();
    fs::create_dir(folder.join("records")).unwrap();
    let mut random = rng(7);
    let mut ring = RingFile::create(folder.join("ring"), &key(), &mut random).unwrap();
    ring.create_key(&id(), &mut random, 0).unwrap();
    let first = ring.current(&id()).unwrap();
    for n in 0..RECORDS {
        let name = name(n);
        let sealed = Format.seal(&first, name.as_bytes(), &text(&name), &mut random);
        fs::write(folder.join("records").join(name), sealed.unwrap()).unwrap();
    }

    let mut amid = 0;
    for kill in 0..KILLS {
        let mut child = start(folder);
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        // Beyond one whole rotation, which is about 45 of them: kills hit the ring file and the journal as well.
        let marks = random.next_u32() % 60;
        for _ in 0..=marks {
            let line = lines
                .next()
                .expect("the process goes on until it is killed");
            assert_eq!(line.unwrap(), "on", "kill {kill}");
        }
        child.kill().unwrap();
        child.wait().unwrap();
        let under = check(folder);
        amid += usize::from(under > 0 && under < RECORDS);
    }
    assert!(amid > KILLS / 4, "{amid} kills were amid the records");

    rotate_once(folder, || {});
    assert_eq!(check(folder), RECORDS);
    let ring = open(folder);
    assert_eq!(versions(&ring, KeyState::Retired), []);
    let destroyed = versions(&ring, KeyState::Destroyed).len();
    assert!(destroyed > 10, "{destroyed} rotations were done");
    let left: Vec<_> = fs::read_dir(folder.join("records")).unwrap().collect();
    assert!(left.len() <= RECORDS + 1);
}
