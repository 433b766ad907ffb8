//! Real processes: a fork, a second one on the same store, and `kill -9` at any instant.
#![cfg(unix)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::cast_possible_truncation,
    reason = "a test fails by panicking"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::future::Future;
use std::io::Write;
use std::path::Path;
use std::pin::pin;
use std::process::{Child, Command, Stdio};
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::Duration;

use rand_chacha::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};
use sprag::{Client, CopyStatus, Key, MessageId, Task, Transport};
use sprag_crypto::sha256;
use sprag_directory::{Directory, FolderStorage, ServerEpoch};
use sprag_tests::verbs::{SOON, every_verb, further_verbs, soon};
use sprag_wire::Envelope;

const CHILD: &str = "SPRAG_TEST_CHILD";

fn key() -> Key {
    Key::raw([7; 32])
}

/// This test program again, running one of its tests as a child.
fn again(test: &str, home: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(CHILD, home)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

// A forked child.

/// Runs `work` in a forked child, and gives what it says; a child that hangs is killed.
fn in_forked_child(said: &Path, work: impl FnOnce() -> String) -> String {
    match fork::fork().unwrap() {
        fork::Fork::Child => {
            let work = std::panic::AssertUnwindSafe(work);
            let text = std::panic::catch_unwind(work).unwrap_or_else(|_| "panicked".to_owned());
            let aside = said.with_extension("tmp");
            fs::write(&aside, text).unwrap();
            fs::rename(&aside, said).unwrap();
            std::process::exit(0);
        }
        fork::Fork::Parent(child) => {
            for _ in 0..3_000 {
                if fork::waitpid_nohang(child).unwrap().is_some() {
                    return fs::read_to_string(said).expect("the child died without a word");
                }
                thread::sleep(Duration::from_millis(10));
            }
            let pid = child.to_string();
            Command::new("kill").args(["-9", &pid]).status().unwrap();
            fork::waitpid(child).unwrap();
            panic!("the child hangs");
        }
    }
}

#[test]
fn forked_child_is_refused_at_once_and_the_parent_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("alice");
    let alice = Client::create(&home, key(), "alice").unwrap();
    // The notifier's thread exists, and results are under way.
    let (tell, told) = std::sync::mpsc::channel();
    alice
        .start()
        .inbox()
        .on_ready(move |_| tell.send(()).unwrap());
    told.recv_timeout(SOON).unwrap();
    let seen = soon(alice.start().changed(0)).unwrap();

    for round in 0..5 {
        // Somebody holds locks at the moment of the fork.
        let busy = alice.clone();
        let sender = thread::spawn(move || {
            for _ in 0..30 {
                busy.send_encrypted_message("bob", b"hello").unwrap();
            }
        });
        thread::sleep(Duration::from_millis(3 * round));
        let waiting = [
            alice.start().changed(u64::MAX),
            alice.start().changed(u64::MAX),
        ];
        let mut waiting: Vec<_> = waiting.into_iter().collect();
        let said = dir.path().join(format!("said-{round}"));
        let text = in_forked_child(&said, || {
            let mut wrong = Vec::new();
            for (name, verb) in every_verb(&alice) {
                match verb() {
                    Err(error) if error.code() == "forked" => {}
                    other => wrong.push(format!("{name}: {other:?}")),
                }
            }
            for (name, result) in further_verbs(&alice) {
                match result {
                    Err(error) if error.code() == "forked" => {}
                    other => wrong.push(format!("{name}: {other:?}")),
                }
            }
            if alice.close().unwrap_err().code() != "forked" {
                wrong.push("close".to_owned());
            }
            // What was under way never comes here.
            let inherited = waiting.pop().unwrap();
            if soon(inherited).unwrap_err().code() != "forked" {
                wrong.push("inherited result".to_owned());
            }
            let mut inherited = pin!(waiting.pop().unwrap());
            let mut context = Context::from_waker(Waker::noop());
            match inherited.as_mut().poll(&mut context) {
                Poll::Ready(Err(error)) if error.code() == "forked" => {}
                _ => wrong.push("inherited future".to_owned()),
            }
            let (tell, told) = std::sync::mpsc::channel();
            alice
                .start()
                .inbox()
                .on_ready(move |result| tell.send(result.unwrap_err().code()).unwrap());
            if told.recv_timeout(SOON) != Ok("forked") {
                wrong.push("callback".to_owned());
            }
            // The store belongs to the parent.
            let error = Client::open(&home, key()).unwrap_err();
            if error.code() != "store_in_use" {
                wrong.push(format!("open: {}", error.code()));
            }
            drop(alice.clone());
            wrong.join("\n")
        });
        assert_eq!(text, "", "round {round}");
        sender.join().unwrap();
        for pending in waiting {
            drop(pending);
        }
    }
    // The parent's lock was not taken away, and its client works.
    let error = Client::open(&home, key()).unwrap_err();
    assert_eq!(error.code(), "store_in_use");
    alice.send_encrypted_message("bob", b"hello").unwrap();
    assert!(soon(alice.start().changed(seen)).unwrap() > seen);
    alice.close().unwrap();
    Client::open(&home, key()).unwrap();
}

#[test]
fn forked_child_that_drops_the_client_leaves_the_parents_store_alone() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("alice");
    let alice = Client::create(&home, key(), "alice").unwrap();
    let mut holder = Some(alice);
    let text = in_forked_child(&dir.path().join("said"), || {
        drop(holder.take());
        "dropped".to_owned()
    });
    assert_eq!(text, "dropped");
    let alice = holder.take().unwrap();
    let error = Client::open(&home, key()).unwrap_err();
    assert_eq!(
        (error.code(), error.owner()),
        ("store_in_use", Some(std::process::id()))
    );
    alice.send_encrypted_message("bob", b"hello").unwrap();
    alice.close().unwrap();
    let alice = Client::open(&home, key()).unwrap();
    assert!(!alice.tasks().unwrap().is_empty());
}

// A second process.

/// The child: not a test of its own, but this program started again.
#[test]
fn child_that_tries_to_open_the_store() {
    let Some(home) = std::env::var_os(CHILD) else {
        return;
    };
    let home = Path::new(&home);
    let text = match Client::open(home.join("alice"), key()) {
        Ok(_) => "opened".to_owned(),
        Err(error) => format!("{} {:?}", error.code(), error.owner()),
    };
    fs::write(home.join("said"), text).unwrap();
}

#[test]
fn second_process_is_told_who_has_the_store() {
    let dir = tempfile::tempdir().unwrap();
    let alice = Client::create(dir.path().join("alice"), key(), "alice").unwrap();
    let ask = || {
        let mut child = again("child_that_tries_to_open_the_store", dir.path());
        assert!(child.wait().unwrap().success());
        fs::read_to_string(dir.path().join("said")).unwrap()
    };
    let expected = format!("store_in_use {:?}", Some(std::process::id()));
    assert_eq!(ask(), expected);
    alice.send_encrypted_message("bob", b"still mine").unwrap();
    alice.close().unwrap();
    assert_eq!(ask(), "opened");
}

// Killed at any instant.

const KILLS: usize = 50;

type Server = Directory<FolderStorage>;

fn server(home: &Path) -> Server {
    let storage = FolderStorage::open(home.join("server")).unwrap();
    Directory::open(storage, ServerEpoch::from_bytes([7; 16])).unwrap()
}

/// A file that is on the disk, line by line. What a kill cut off does not count.
struct Log(File);

impl Log {
    fn open(home: &Path, name: &str) -> Self {
        let mut file = OpenOptions::new();
        let mut file = file
            .create(true)
            .append(true)
            .open(home.join(name))
            .unwrap();
        // After a line that was cut off.
        file.write_all(b"\n").unwrap();
        Self(file)
    }

    fn write(&mut self, line: &str) {
        self.0.write_all(format!("{line}.\n").as_bytes()).unwrap();
        self.0.sync_data().unwrap();
    }

    fn lines(home: &Path, name: &str) -> Vec<Vec<String>> {
        let text = fs::read(home.join(name)).unwrap_or_default();
        let text = String::from_utf8_lossy(&text).into_owned();
        let whole = text.lines().filter_map(|line| line.strip_suffix('.'));
        whole
            .map(|line| line.split(' ').map(str::to_owned).collect())
            .collect()
    }
}

/// One round with the server. Everything that is done is said first, or right afterwards.
fn exchange(client: &Client, server: &Server, say: &mut dyn FnMut(String)) {
    let address = client.address().unwrap();
    for task in client.tasks().unwrap() {
        match &task {
            Task::Deliver { envelope, .. } => {
                say(offered(envelope));
                server.deliver(envelope).unwrap();
            }
            Task::FetchBundles { query, .. } => {
                client
                    .supply(task.id(), &server.bundles(query).unwrap())
                    .unwrap();
            }
            Task::FetchDevices { query, .. } => {
                client
                    .supply(task.id(), &server.lists(query).unwrap())
                    .unwrap();
            }
            Task::PublishPreKeys { upload, .. } => {
                server.upload_pre_keys(&address, upload).unwrap();
            }
            Task::PublishDevices { lists, .. } => {
                server.publish_lists(lists).unwrap();
            }
            _ => continue,
        }
        client.done(task.id()).unwrap();
    }
    for (id, envelope) in server.fetch(&address, 100).unwrap() {
        let received = client.receive_encrypted_message(&envelope).unwrap();
        if received.transport() == Transport::Forget {
            server.forget(&address, &id).unwrap();
        }
        if let Some(refusal) = received.refused() {
            say(format!("refused {}", refusal.code()));
        }
    }
    for message in client.inbox().unwrap() {
        let text = message.text_lossy();
        say(format!("heard {} {text}", message.id().get()));
        client.acknowledge(message.id()).unwrap();
        say(format!("acked {} {text}", message.id().get()));
    }
}

fn offered(envelope: &[u8]) -> String {
    let id = *Envelope::decode(envelope).unwrap().id().as_bytes();
    format!(
        "offered {} {}",
        hex::encode(id),
        hex::encode(sha256(&[envelope]))
    )
}

/// The child: not a test of its own, but this program started again. It talks until it is killed.
#[test]
fn child_that_talks_until_it_is_killed() {
    let Some(home) = std::env::var_os(CHILD) else {
        return;
    };
    let home = Path::new(&home);
    let mut log = Log::open(home, "log");
    let server = server(home);
    let alice = Client::open(home.join("alice"), key()).unwrap();
    log.write("open");
    // What was begun and not confirmed is sent again, under the same id.
    let lines = Log::lines(home, "log");
    let of = |what: &str| -> Vec<String> {
        let found = lines.iter().filter(|line| line[0] == what);
        found.map(|line| line[1].clone()).collect()
    };
    let (begun, sent) = (of("begin"), of("sent"));
    let send = |log: &mut Log, id: &str| {
        let text = format!("alice-{id}");
        let id = id.parse().unwrap();
        alice
            .send_encrypted_message_as(id, "bob", text.as_bytes())
            .unwrap();
        log.write(&format!("sent {id}"));
    };
    for id in begun.iter().filter(|id| !sent.contains(id)) {
        send(&mut log, id);
    }
    for number in begun.len() as u128.. {
        let id = MessageId::from_bytes((number + 1).to_be_bytes()).to_string();
        log.write(&format!("begin {id}"));
        send(&mut log, &id);
        exchange(&alice, &server, &mut |line| log.write(&line));
    }
}

/// All that must be true of what a killed client said.
#[derive(Default)]
struct Witness {
    envelopes: BTreeMap<String, String>,
    /// The first 96 bits of every salt: a nonce under the pair's own key.
    nonces: BTreeMap<String, String>,
    heard: BTreeMap<String, String>,
}

impl Witness {
    fn hear(&mut self, line: &[String]) {
        match (line[0].as_str(), &line[1..]) {
            ("offered", [id, hash]) => {
                let first = self
                    .envelopes
                    .entry(id.clone())
                    .or_insert_with(|| hash.clone());
                assert_eq!(first, hash, "one salt, two frames");
                let first = self
                    .nonces
                    .entry(id[..24].to_owned())
                    .or_insert_with(|| id.clone());
                assert_eq!(first, id, "one nonce, two frames");
            }
            ("heard", [id, text]) => {
                let first = self.heard.entry(text.clone()).or_insert_with(|| id.clone());
                assert_eq!(first, id, "{text} was opened twice");
            }
            ("refused", [code]) => assert_eq!(code, "duplicate"),
            _ => {}
        }
    }
}

#[test]
fn killed_client_loses_nothing_that_was_acknowledged_and_uses_no_key_twice() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path();
    let server = server(home);
    let alice = Client::create(home.join("alice"), key(), "alice").unwrap();
    exchange(&alice, &server, &mut |_| ());
    alice.close().unwrap();
    let bob = Client::in_memory("bob").unwrap();
    exchange(&bob, &server, &mut |_| ());

    let mut rng = ChaCha20Rng::seed_from_u64(1);
    let (mut witness, mut of_bob) = (Witness::default(), Witness::default());
    let mut told = 0_u32;
    let mut re_offered = 0;
    for kill in 0..KILLS {
        for _ in 0..3 {
            told += 1;
            let text = format!("bob-{told}");
            bob.send_encrypted_message("alice", text.as_bytes())
                .unwrap();
        }
        let mut said = Vec::new();
        exchange(&bob, &server, &mut |line| said.push(line));
        for line in said {
            let words: Vec<_> = line.split(' ').map(str::to_owned).collect();
            of_bob.hear(&words);
        }
        let sent = || {
            let lines = Log::lines(home, "log");
            lines.iter().filter(|line| line[0] == "sent").count()
        };
        let before = sent();
        let mut child = again("child_that_talks_until_it_is_killed", home);
        // Some die while they open; most while they talk, after some messages, however slow the machine is.
        if kill % 5 != 4 {
            let some = 1 + (rng.next_u64() % 8) as usize;
            while sent() < before + some {
                assert!(
                    child.try_wait().unwrap().is_none(),
                    "the child died by itself"
                );
                thread::sleep(Duration::from_millis(1));
            }
        }
        thread::sleep(Duration::from_micros(rng.next_u64() % 20_000));
        assert!(
            child.try_wait().unwrap().is_none(),
            "the child died by itself"
        );
        child.kill().unwrap();
        child.wait().unwrap();

        let lines = Log::lines(home, "log");
        for line in &lines {
            witness.hear(line);
        }
        let alice = Client::open(home.join("alice"), key()).unwrap();
        for line in lines.iter().filter(|line| line[0] == "sent") {
            let status = alice.status(line[1].parse().unwrap()).unwrap();
            assert!(status.is_some(), "a message that was durable is gone");
        }
        for task in alice.tasks().unwrap() {
            if let Task::Deliver { envelope, .. } = task {
                let words: Vec<_> = offered(&envelope).split(' ').map(str::to_owned).collect();
                re_offered += usize::from(witness.envelopes.contains_key(&words[1]));
                witness.hear(&words);
            }
        }
        for message in alice.inbox().unwrap() {
            let id = message.id().get().to_string();
            witness.hear(&["heard".to_owned(), id, message.text_lossy()]);
        }
        alice.close().unwrap();
    }

    // In the end everything has arrived, once.
    let alice = Client::open(home.join("alice"), key()).unwrap();
    for _ in 0..4 {
        for (client, witness) in [(&alice, &mut witness), (&bob, &mut of_bob)] {
            let mut said = Vec::new();
            exchange(client, &server, &mut |line| said.push(line));
            for line in said {
                let words: Vec<_> = line.split(' ').map(str::to_owned).collect();
                witness.hear(&words);
            }
        }
    }
    let lines = Log::lines(home, "log");
    let sent: BTreeSet<_> = lines
        .iter()
        .filter(|line| line[0] == "sent")
        .map(|line| format!("alice-{}", line[1]))
        .collect();
    let heard: BTreeSet<_> = of_bob.heard.keys().cloned().collect();
    assert!(
        sent.is_subset(&heard),
        "lost: {:?}",
        sent.difference(&heard)
    );
    let expected: BTreeSet<_> = (1..=told).map(|n| format!("bob-{n}")).collect();
    let heard: BTreeSet<_> = witness.heard.keys().cloned().collect();
    assert_eq!(heard, expected);
    println!(
        "{KILLS} kills: {} sent, {} heard, {} envelopes, {re_offered} offered again after a kill",
        sent.len(),
        heard.len(),
        witness.envelopes.len(),
    );
    assert!(sent.len() > KILLS, "the child hardly talked");
    let last = lines.iter().rev().find(|line| line[0] == "sent").unwrap();
    let status = alice.status(last[1].parse().unwrap()).unwrap().unwrap();
    assert_ne!(status[0].status, CopyStatus::Waiting);
}
