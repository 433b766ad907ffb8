//! One user whose profile is copied and set back, another one, and a server: who may see what.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;
use sprag::store::{Anchor, AnchorError, AnchorRecord, FileAnchor};
use sprag::{
    Action, AfterRollback, Client, Error, Failure, Key, OpenOptions, Question, Surroundings, Task,
    Transport,
};
use sprag_directory::{Directory, DirectoryError, MemoryStorage, ServerEpoch};
use sprag_wire::relay::PreKeyUpload;
use tempfile::TempDir;

use crate::network::keep;
use crate::recorder::{Ledger, if_any_on_this_thread};
use crate::witness::Witness;

/// An anchor in a file, from which a machine can be cut off.
#[derive(Clone)]
pub struct Line {
    file: FileAnchor,
    /// Whether it is cut off.
    pub cut: Arc<AtomicBool>,
}

impl fmt::Debug for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Line").finish_non_exhaustive()
    }
}

impl Line {
    fn reach(&self) -> Result<&FileAnchor, AnchorError> {
        if self.cut.load(Ordering::SeqCst) {
            let cause = std::io::Error::from(std::io::ErrorKind::HostUnreachable);
            Err(AnchorError::unreachable(cause))
        } else {
            Ok(&self.file)
        }
    }
}

impl Anchor for Line {
    fn read(&self) -> Result<Option<AnchorRecord>, AnchorError> {
        self.reach()?.read()
    }

    fn write(&self, record: &AnchorRecord) -> Result<(), AnchorError> {
        self.reach()?.write(record)
    }
}

/// alice, who has a profile on disk and perhaps copies of it, bob, and a server.
pub struct Scene {
    dir: TempDir,
    clock: Arc<AtomicU64>,
    /// The server.
    pub server: Directory<MemoryStorage>,
    /// Bob.
    pub bob: Client,
    /// What it saw of all envelopes.
    pub witness: Witness,
    ledger: Ledger,
    /// Seeds that bodies were encrypted with, of all envelopes of alice.
    seeds: Vec<[u8; 32]>,
    envelopes: BTreeSet<Vec<u8>>,
    /// Devices and ids of the one-time prekeys that the server was given.
    one_time: BTreeSet<(u32, u32)>,
    /// Codes of what was refused.
    pub codes: Vec<&'static str>,
}

/// The key of her profiles.
pub const KEY: [u8; 32] = [5; 32];

impl fmt::Debug for Scene {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scene").finish_non_exhaustive()
    }
}

impl Scene {
    /// Bob has published his prekeys.
    #[must_use]
    pub fn open() -> Self {
        let clock = Arc::new(AtomicU64::new(1_700_000_000_000));
        let time = clock.clone();
        let rng = ChaCha20Rng::seed_from_u64(2);
        let surroundings = Surroundings::new(move || time.load(Ordering::SeqCst), rng.clone());
        let store = sprag::store::Store::in_memory(rng).unwrap();
        let epoch = ServerEpoch::from_bytes([7; 16]);
        let mut scene = Self {
            dir: tempfile::tempdir().unwrap(),
            clock,
            server: Directory::open(MemoryStorage::new(), epoch).unwrap(),
            bob: Client::with_store(store, "bob", surroundings).unwrap(),
            witness: Witness::default(),
            ledger: Ledger::default(),
            seeds: Vec::new(),
            envelopes: BTreeSet::new(),
            one_time: BTreeSet::new(),
            codes: Vec::new(),
        };
        let bob = scene.bob.clone();
        scene.work(&bob);
        scene
    }

    /// A path below the folder of all.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The generator of a machine: the same seed draws the same, as a machine that is set back may.
    fn surroundings(&self, seed: u64) -> Surroundings {
        let time = self.clock.clone();
        let rng = ChaCha20Rng::seed_from_u64(seed);
        Surroundings::new(move || time.load(Ordering::SeqCst), rng)
    }

    /// The anchor of her profile.
    #[must_use]
    pub fn line(&self) -> Line {
        Line {
            file: FileAnchor::new(self.path("anchor")),
            cut: Arc::default(),
        }
    }

    /// Opens or makes a profile of alice.
    pub fn try_open(&self, name: &str, seed: u64, options: OpenOptions) -> Result<Client, Error> {
        let (path, key) = (self.path(name), Key::raw(KEY));
        options
            .start_open_or_create(path, key, "alice", self.surroundings(seed))
            .wait()
    }

    /// As `try_open`, with the anchor.
    pub fn guarded(&self, name: &str, seed: u64) -> Result<Client, Error> {
        self.try_open(name, seed, Client::options().anchor(self.line()))
    }

    /// Opens a profile that was set back, with new sessions.
    #[must_use]
    pub fn anew(&self, name: &str, seed: u64) -> Client {
        self.decided(name, seed, AfterRollback::NewSessions)
            .unwrap()
    }

    /// Opens a profile that was set back as the user decided.
    pub fn decided(&self, name: &str, seed: u64, decision: AfterRollback) -> Result<Client, Error> {
        let options = Client::options().anchor(self.line());
        self.try_open(name, seed, options.after_rollback(decision))
    }

    /// Copies a profile.
    pub fn copy(&self, from: &str, to: &str) {
        copy(&self.path(from), &self.path(to));
    }

    /// Does something that encrypts, and remembers under which keys.
    fn recorded<T>(&mut self, work: impl FnOnce() -> T) -> T {
        let (outcome, uses) = if_any_on_this_thread(work);
        self.ledger.add(&uses);
        outcome
    }

    /// Sends, without doing the tasks.
    pub fn send(&mut self, client: &Client, to: &str, text: &str) {
        self.recorded(|| client.send_encrypted_message(to, text.as_bytes()).unwrap());
    }

    /// Does the tasks of a client, and those that follow.
    pub fn work(&mut self, client: &Client) {
        for _ in 0..20 {
            let tasks = self.recorded(|| client.tasks().unwrap_or_else(|error| panic!("{error}")));
            if tasks.is_empty() {
                return;
            }
            for task in tasks {
                self.perform(client, &task);
            }
        }
        panic!("tasks without end");
    }

    fn perform(&mut self, client: &Client, task: &Task) {
        let reply = match task {
            Task::Deliver { envelope, .. } => {
                self.witness.see(envelope);
                if client.user().unwrap() == "alice" && self.envelopes.insert(envelope.clone()) {
                    self.seeds.extend(self.ledger.seed_of(envelope));
                }
                self.server.deliver(envelope).map(|()| Vec::new())
            }
            Task::FetchDevices { query, .. } => self.server.lists(query),
            Task::FetchBundles { query, .. } => self.server.bundles(query),
            Task::PublishPreKeys { upload, .. } => {
                let address = client.address().unwrap();
                let number = address.device().get();
                let sent = PreKeyUpload::decode(upload).unwrap();
                if client.user().unwrap() == "alice" {
                    for key in sent.one_time_pre_keys {
                        assert!(
                            self.one_time.insert((number, key.id.get())),
                            "an id is used twice"
                        );
                    }
                }
                self.server.upload_pre_keys(&address, upload)
            }
            Task::PublishDevices { lists, .. } => self.server.publish_lists(lists),
            task => {
                let address = client.address().unwrap();
                keep(&self.server, address.user(), task).map(Option::unwrap_or_default)
            }
        };
        match reply {
            Ok(reply) => {
                if !matches!(
                    task,
                    Task::Deliver { .. } | Task::PutBlob { .. } | Task::DropBlob { .. }
                ) {
                    self.recorded(|| client.supply(task.id(), &reply).unwrap());
                }
                client.done(task.id()).unwrap();
            }
            Err(error) => {
                let failure = match error {
                    DirectoryError::NoSuchUser => Failure::NoSuchUser,
                    DirectoryError::Conflict { newest } => Failure::Conflict(newest),
                    DirectoryError::NoSuchDevice { list } => Failure::NoSuchDevice(Some(list)),
                    DirectoryError::NoSuchBlob => Failure::NoSuchBlob,
                    // An envelope under an id that the server has: another machine sent it.
                    DirectoryError::Refused(_) => Failure::Refused(1),
                    error => panic!("{error}"),
                };
                client.failed(task.id(), &failure).unwrap();
            }
        }
    }

    /// Brings a client what waits for it, and gives the codes of what it refused.
    pub fn poll(&mut self, client: &Client) -> Vec<&'static str> {
        let address = client.address().unwrap();
        let mut codes = Vec::new();
        for (id, envelope) in self.server.fetch(&address, 1_000).unwrap() {
            let received = self.recorded(|| client.receive_encrypted_message(&envelope).unwrap());
            codes.extend(received.refused().map(|refusal| refusal.code()));
            if received.transport() == Transport::Forget {
                self.server.forget(&address, &id).unwrap();
            }
        }
        self.codes.extend(&codes);
        codes
    }

    /// Until nothing moves any more.
    pub fn settle(&mut self, alice: &Client) {
        let bob = self.bob.clone();
        for _ in 0..12 {
            for client in [alice, &bob] {
                self.work(client);
                self.poll(client);
                self.work(client);
            }
            self.clock.fetch_add(60_001, Ordering::SeqCst);
        }
    }

    /// What a client was told since the last time, acknowledged.
    #[must_use]
    pub fn heard(client: &Client) -> Vec<String> {
        let messages = client.inbox().unwrap();
        for message in &messages {
            client.acknowledge(message.id()).unwrap();
        }
        messages.iter().map(|m| m.text_lossy()).collect()
    }

    /// A word in each direction arrives.
    pub fn talk(&mut self, alice: &Client, word: &str) {
        self.send(alice, "bob", &format!("{word} from alice"));
        self.settle(alice);
        let bob = self.bob.clone();
        self.send(&bob, "alice", &format!("{word} from bob"));
        self.settle(alice);
        let (to_bob, to_alice) = (Self::heard(&bob), Self::heard(alice));
        assert!(to_bob.contains(&format!("{word} from alice")), "{to_bob:?}");
        assert!(
            to_alice.contains(&format!("{word} from bob")),
            "{to_alice:?}"
        );
    }

    /// Whether a seed of a message was used again, which is what being set back means.
    #[must_use]
    pub fn seeds_repeat(&self) -> bool {
        let different: BTreeSet<_> = self.seeds.iter().collect();
        different.len() < self.seeds.len()
    }

    /// No two messages were made under one key and nonce.
    pub fn check_nonces(&self) {
        assert!(self.witness.frames() >= 4);
        assert!(self.ledger.encryptions() > 50);
        assert_eq!(
            self.ledger.repeated(),
            0,
            "two messages under one key and nonce"
        );
    }
}

/// Copies a directory, in place of what is there.
pub fn copy(from: &Path, to: &Path) {
    let _ = fs::remove_dir_all(to);
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &target);
        } else {
            fs::copy(&path, &target).unwrap();
        }
    }
}

/// Whether a profile was refused as set back.
#[must_use]
pub fn is_rolled_back(outcome: Result<Client, Error>) -> bool {
    let error = outcome.unwrap_err();
    assert_eq!(error.action(), Action::AskUser(Question::RolledBack));
    error.code() == "store_rolled_back"
}

/// What alice and bob have behind them before anything happens.
#[must_use]
pub fn begun() -> (Scene, Client) {
    let mut scene = Scene::open();
    let alice = scene.guarded("alice", 1).unwrap();
    scene.settle(&alice);
    scene.talk(&alice, "one");
    (scene, alice)
}
