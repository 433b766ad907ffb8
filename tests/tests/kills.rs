//! `kill -9` at any instant, hundreds of times: nothing that was acknowledged is missing, no pair of key and nonce and no
//! seed of a message serves twice, no prekey is both deleted and published, and every message is offered until it is
//! acknowledged. Devices that are linked and removed meanwhile are the matter of `kills/linking.rs`. `SPRAG_KILLS=3000`
//! kills that often.
//!
//! The child is this program, started again. It runs two clients in two threads over a server in a folder, writes down
//! what was acknowledged *after* each verb returned, and what it is about to do before; every encryption is recorded at
//! the cipher. What was written to a file before a kill is there after it, so nothing here waits for a disk: power cuts
//! are the matter of `chaos.rs` and `faults.rs`.
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
use std::io::Write;
use std::ops::ControlFlow;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use rand_chacha::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};
use sprag::store::{RowName, Rows, Staged, Store};
use sprag::{Client, Error, Failure, Key, MessageId, Surroundings, Task, Transport};
use sprag_crypto::sha256;
use sprag_directory::{Directory, DirectoryError, FolderStorage, ServerEpoch, Storage};
use sprag_session::Device;
use sprag_tests::network::keep;
use sprag_tests::recorder::{self, Ledger};
use sprag_wire::relay::PreKeyUpload;
use sprag_wire::{DeviceAddress, Envelope};

#[path = "kills/linking.rs"]
mod linking;

/// The folder of a child's world, what it shall do, the number of its life, and how far its clock is ahead.
const CHILD: &str = "SPRAG_TEST_KILLS_CHILD";
const MODE: &str = "SPRAG_TEST_KILLS_MODE";
const LIFE: &str = "SPRAG_TEST_KILLS_LIFE";
const AHEAD: &str = "SPRAG_TEST_KILLS_AHEAD";

/// Kills of the tests together, unless `SPRAG_KILLS` says otherwise.
const KILLS: usize = 300;

/// How long a child lives at most, from the moment when it is started or, mostly, when all is open: so many times what
/// making a profile takes on this machine.
const LIFETIME: u64 = 3;

/// Each life begins four hours after the one before: prekeys become old, and what is allowed a few times a day becomes
/// allowed again.
const LIFE_MS: u64 = 4 * 3_600_000;

/// After so many lives everything is brought to its end, before messages are too old to be sent again.
const SETTLED: usize = 25;

const USERS: [&str; 2] = ["alice", "bob"];

fn other(user: &str) -> &'static str {
    if user == USERS[0] { USERS[1] } else { USERS[0] }
}

fn kills() -> usize {
    let many = std::env::var("SPRAG_KILLS").ok();
    many.and_then(|many| many.parse().ok()).unwrap_or(KILLS)
}

// What both sides know.

type Server = Directory<FolderStorage>;

fn server(home: &Path) -> Server {
    let storage = FolderStorage::open(home.join("server")).unwrap();
    Directory::open(storage, ServerEpoch::from_bytes([7; 16])).unwrap()
}

fn rng() -> ChaCha20Rng {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).unwrap();
    ChaCha20Rng::from_seed(seed)
}

fn key(number: u8) -> Key {
    Key::raw([number; 32])
}

/// What has passed in this life besides, in milliseconds.
static PASSED: AtomicU64 = AtomicU64::new(0);

/// A clock that is so many milliseconds ahead, and chance.
fn surroundings(ahead: u64) -> Surroundings {
    let clock = move || {
        let now = SystemTime::UNIX_EPOCH.elapsed().unwrap();
        now.as_millis() as u64 + ahead + PASSED.load(Ordering::SeqCst)
    };
    Surroundings::new(clock, rng())
}

/// What a client said, line by line. A line that a kill cut off does not count.
struct Journal(File);

impl Journal {
    fn path(home: &Path, name: &str) -> PathBuf {
        home.join(format!("{name}.log"))
    }

    fn open(home: &Path, name: &str) -> Self {
        let mut options = OpenOptions::new();
        let path = Self::path(home, name);
        let mut file = options.create(true).append(true).open(path).unwrap();
        // After a line that was cut off.
        file.write_all(b"\n").unwrap();
        Self(file)
    }

    fn say(&mut self, line: &str) {
        self.0.write_all(format!("{line}.\n").as_bytes()).unwrap();
    }

    fn lines(home: &Path, name: &str) -> Vec<Vec<String>> {
        let text = fs::read(Self::path(home, name)).unwrap_or_default();
        let text = String::from_utf8_lossy(&text).into_owned();
        let whole = text.lines().filter_map(|line| line.strip_suffix('.'));
        whole
            .map(|line| line.split(' ').map(str::to_owned).collect())
            .collect()
    }
}

/// What a journal says altogether.
#[derive(Default)]
struct Said {
    device: Option<u32>,
    /// Messages that were to be sent, and whether they were.
    begun: Vec<String>,
    sent: BTreeSet<String>,
    /// Those of late: a message that is seven days old is forgotten, whatever became of it.
    lately: Vec<(u64, String)>,
    life: u64,
    /// The lives in which it lost its sessions.
    lost: Vec<u64>,
    /// Envelopes that were handed out: their hashes, and the tags of their bodies.
    offered: BTreeMap<String, (String, [u8; 16])>,
    /// What was opened: text and the number in the inbox.
    got: BTreeMap<String, u64>,
    /// What the application was about to acknowledge, and what it did acknowledge.
    heard: BTreeMap<String, u64>,
    acked: BTreeSet<u64>,
    /// Acknowledgements of this life, which the next durable step makes last.
    lazy: BTreeSet<u64>,
    /// Acknowledgements that a later durable step made last.
    firm: BTreeSet<u64>,
    /// Numbers of keys: the last that surely opens, the last that may.
    key: u8,
    wanted_key: u8,
    /// What it said of the devices of alice's account.
    links: linking::Links,
    counts: BTreeMap<String, usize>,
}

impl Said {
    fn read(home: &Path, name: &str) -> Self {
        let mut said = Self::default();
        for line in Journal::lines(home, name) {
            said.line(&line);
        }
        said
    }

    fn line(&mut self, line: &[String]) {
        let number = |text: &String| text.parse::<u64>().unwrap();
        // How often which verb; of refusals and ends, also which.
        let shown = if matches!(line[0].as_str(), "refused" | "over") {
            line.join(" ")
        } else {
            line[0].clone()
        };
        *self.counts.entry(shown).or_default() += 1;
        match (line[0].as_str(), &line[1..]) {
            ("device", [id]) => {
                let id = number(id) as u32;
                assert_eq!(*self.device.get_or_insert(id), id, "another device");
            }
            ("begin", [id]) => self.begun.push(id.clone()),
            ("lost", []) => self.lost.push(self.life),
            ("sent", [id]) => {
                self.sent.insert(id.clone());
                self.lately.push((self.life, id.clone()));
                self.firm.append(&mut self.lazy);
            }
            // It may have been there already: then nothing was written, and no acknowledgement became firm.
            ("resent", [id]) => drop(self.sent.insert(id.clone())),
            ("offered", [salt, hash, tag]) => {
                let tag = hex::decode(tag).unwrap().try_into().unwrap();
                let frame = (hash.clone(), tag);
                let first = self.offered.entry(salt.clone()).or_insert(frame.clone());
                assert_eq!(*first, frame, "one salt, two frames");
            }
            ("got", [id, text]) => {
                let id = number(id);
                let first = *self.got.entry(text.clone()).or_insert(id);
                assert_eq!(first, id, "{text} was opened twice");
            }
            ("heard", [id, text]) => {
                let id = number(id);
                assert!(!self.firm.contains(&id), "{text} was acknowledged for good");
                let first = *self.heard.entry(text.clone()).or_insert(id);
                assert_eq!(first, id, "{text} was opened twice");
            }
            ("acked", [id]) => {
                self.acked.insert(number(id));
                self.lazy.insert(number(id));
            }
            // What was lazy when the life before ended may be done, or not.
            ("life", [life]) => {
                self.life = number(life);
                self.lazy.clear();
            }
            ("renewed" | "closed", []) => self.firm.append(&mut self.lazy),
            ("rekeying", [key]) => self.wanted_key = number(key) as u8,
            // Found by opening, not acknowledged.
            ("keyed", [key]) => {
                self.key = number(key) as u8;
                self.wanted_key = self.key;
            }
            ("rekeyed", [key]) => {
                self.key = number(key) as u8;
                self.firm.append(&mut self.lazy);
            }
            ("refused", [code]) => {
                // Others would mean that something was lost on the way, or is not what was sent.
                let fine = ["duplicate", "no_session", "unknown_pre_key"];
                // Where devices come and go a frame may know more of the lists than its receiver, or be of one that is gone.
                let of_lists = ["unlisted_device", "unknown_list"];
                let of_lists = of_lists.contains(&code.as_str()) && self.links.any;
                assert!(fine.contains(&code.as_str()) || of_lists, "refused: {code}");
            }
            (verb, rest) => self.links.line(verb, rest, self.begun.len()),
        }
    }
}

/// The text of a message, without what fills it up.
fn name_of(text: &str) -> &str {
    text.split(' ').next().unwrap()
}

// The child.

struct Talker<'s> {
    home: PathBuf,
    /// Of its profile and journal: the user's, unless it is a device that was linked.
    name: String,
    user: &'static str,
    ahead: u64,
    server: &'s Server,
    /// `None` while it has no number yet.
    address: Option<DeviceAddress>,
    client: Client,
    journal: Journal,
    said: Said,
    rng: ChaCha20Rng,
    /// It is a device that was linked, and is on the list no more, or never will be.
    over: Option<&'static str>,
}

/// Opens with the key that is known, or with the one that was to take its place.
fn open(home: &Path, name: &str, said: &Said, ahead: u64) -> (Client, u8) {
    let (path, user) = (home.join(name), linking::user_of(name));
    let open =
        |number| Client::start_open_or_create_in(&path, key(number), user, surroundings(ahead));
    let mut opened = open(said.key).wait();
    if said.wanted_key != said.key && matches!(&opened, Err(error) if error.code() == "wrong_key") {
        opened = open(said.wanted_key).wait();
        return (opened.expect("one of the two keys"), said.wanted_key);
    }
    (opened.expect("the key"), said.key)
}

impl<'s> Talker<'s> {
    fn begin(
        home: &Path,
        user: &'static str,
        (life, ahead): (u64, u64),
        server: &'s Server,
    ) -> Self {
        let mut journal = Journal::open(home, user);
        journal.say(&format!("life {life}"));
        let said = Said::read(home, user);
        let mut rng = ChaCha20Rng::seed_from_u64(life * 2 + u64::from(user == USERS[0]));
        // A message is sent again three times at most (PROTOCOL.md, §9): no more losses before everything has arrived.
        let lately = said.lost.iter().filter(|at| **at + SETTLED as u64 > life);
        if life > 3 && rng.next_u64().is_multiple_of(16) && lately.count() < 2 {
            lose_sessions(home, user, &said);
            journal.say("lost");
        }
        let (client, key) = open(home, user, &said, ahead);
        if said.wanted_key != said.key {
            journal.say(&format!("keyed {key}"));
        }
        journal.say(&format!("device {}", client.device().unwrap()));
        let mut talker = Self {
            home: home.to_owned(),
            name: user.to_owned(),
            user,
            ahead,
            server,
            address: client.address().ok(),
            client,
            journal,
            said: Said::read(home, user),
            rng,
            over: None,
        };
        talker.finish_sending();
        talker.journal.say("ready");
        talker
    }

    fn finish_sending(&mut self) {
        // What was begun and not confirmed is sent again, under the same id.
        for id in self.said.begun.clone() {
            if !self.said.sent.contains(&id) && self.send(&id) {
                self.journal.say(&format!("resent {id}"));
            }
        }
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.rng.next_u64() % bound
    }

    fn send_new(&mut self) {
        let number = self.said.begun.len() as u128 + 1 + linking::first_id(&self.name);
        let id = MessageId::from_bytes(number.to_be_bytes()).to_string();
        self.journal.say(&format!("begin {id}"));
        self.said.begun.push(id.clone());
        if self.send(&id) {
            self.journal.say(&format!("sent {id}"));
        }
    }

    fn send(&mut self, id: &str) -> bool {
        let length = match self.below(20) {
            0 => 9_000,
            1..8 => 300,
            _ => 0,
        };
        let text = format!("{}-{id} {}", self.name, "x".repeat(length));
        let sent = self.client.send_encrypted_message_as(
            id.parse().unwrap(),
            other(self.user),
            text.as_bytes(),
        );
        self.fine(sent, "sent").is_some()
    }

    /// What a verb gave. A device that was linked may hear at any time that it is on the list no more.
    fn fine<T>(&mut self, outcome: Result<T, Error>, what: &str) -> Option<T> {
        match outcome {
            Err(error) if linking::is_linked_one(&self.name) => {
                let ends = ["unlisted_device", "link_expired"];
                let end = ends.into_iter().find(|code| *code == error.code());
                assert!(
                    end.is_some() || error.code() == "not_linked",
                    "{what}: {error}"
                );
                self.over = self.over.or(end);
                None
            }
            outcome => Some(outcome.expect(what)),
        }
    }

    fn work(&mut self) {
        let most = self.below(8) as usize + 1;
        let listed = self.listed();
        let tasks = self.client.tasks();
        let tasks = self.fine(tasks, "tasks").unwrap_or_default();
        for task in &tasks {
            // To a device that was removed nothing is offered, once that is known.
            if let (Task::Deliver { to, .. }, Some(listed)) = (task, &listed)
                && to.user().as_str() == USERS[0]
            {
                let device = to.device().get();
                assert!(listed.contains(&device), "offered to {device}: {listed:?}");
            }
        }
        for task in tasks.into_iter().take(most) {
            let reply = match &task {
                Task::Deliver { envelope, .. } => {
                    let salt = *Envelope::decode(envelope).unwrap().id().as_bytes();
                    let hash = sha256(&[envelope]);
                    let tag = recorder::tag_of(envelope).unwrap();
                    let line = [&salt[..], &hash, &tag].map(hex::encode).join(" ");
                    self.journal.say(&format!("offered {line}"));
                    self.server.deliver(envelope).map(|()| None)
                }
                Task::FetchBundles { query, .. } => self.server.bundles(query).map(Some),
                Task::FetchDevices { query, .. } => self.server.lists(query).map(Some),
                Task::PublishPreKeys { upload, .. } => {
                    let address = self.address.clone().expect("a number");
                    self.server.upload_pre_keys(&address, upload).map(Some)
                }
                Task::PublishDevices { lists, .. } => self.server.publish_lists(lists).map(Some),
                task => {
                    let address = self.address.as_ref().expect("a number");
                    keep(self.server, address.user(), task)
                }
            };
            match reply {
                Ok(reply) => {
                    if let Some(reply) = reply {
                        let supplied = self.client.supply(task.id(), &reply);
                        self.fine(supplied, "supplied");
                    }
                    let done = self.client.done(task.id());
                    self.fine(done, "done");
                    self.note_number();
                }
                // The peer has published nothing yet.
                Err(DirectoryError::NoSuchUser) => {}
                Err(DirectoryError::NoSuchDevice { list }) => {
                    let gone = Failure::NoSuchDevice(Some(list));
                    let failed = self.client.failed(task.id(), &gone);
                    self.fine(failed, "failed");
                }
                Err(error) => panic!("{task:?}: {error:?}"),
            }
        }
    }

    /// Takes what waits; now and then without the server hearing of it, so that it comes again.
    fn poll(&mut self) {
        let forgets = self.below(5) > 0;
        let Some(address) = self.address.clone() else {
            return;
        };
        for (id, envelope) in self.server.fetch(&address, 20).expect("fetched") {
            let received = self.client.receive_encrypted_message(&envelope);
            let Some(received) = self.fine(received, "received") else {
                return;
            };
            for message in received.messages() {
                let text = message.text_lossy();
                let line = format!("got {} {}", message.id().get(), name_of(&text));
                self.journal.say(&line);
            }
            if let Some(refusal) = received.refused() {
                self.journal.say(&format!("refused {}", refusal.code()));
            }
            if forgets && received.transport() == Transport::Forget {
                self.server.forget(&address, &id).expect("forgotten");
            }
        }
    }

    fn read(&mut self) -> usize {
        let messages = self.client.inbox();
        let messages = self.fine(messages, "inbox").unwrap_or_default();
        for message in &messages {
            let (id, text) = (message.id(), message.text_lossy());
            self.journal
                .say(&format!("heard {} {}", id.get(), name_of(&text)));
            self.client.acknowledge(id).expect("acknowledged");
            self.journal.say(&format!("acked {}", id.get()));
        }
        messages.len()
    }

    fn renew(&mut self) {
        let renewed = self.client.renew();
        if self.fine(renewed, "renewed").is_some() {
            self.journal.say("renewed");
        }
    }

    fn change_key(&mut self) {
        let said = Said::read(&self.home, self.user);
        let next = said.key.wrapping_add(1);
        self.journal.say(&format!("rekeying {next}"));
        self.client.change_key(key(next)).expect("another key");
        self.journal.say(&format!("rekeyed {next}"));
    }

    fn restart(&mut self) {
        self.client.close().expect("closed");
        self.journal.say("closed");
        let said = Said::read(&self.home, &self.name);
        self.client = open(&self.home, &self.name, &said, self.ahead).0;
    }

    /// Rotates prekeys when they are a week old, deletes old ones, and renews the store when it is due.
    fn maintain(&mut self) {
        let maintained = self.client.maintain();
        self.fine(maintained, "maintained");
        self.journal.say("maintained");
    }

    fn ask_for_state(&mut self) {
        if let Some(address) = &self.address {
            let state = self.server.state(address).unwrap();
            let supplied = self.client.supply_pre_key_state(&state);
            self.fine(supplied, "state");
        }
    }

    fn something(&mut self) {
        match self.below(40) {
            0..12 => self.send_new(),
            12..22 => self.work(),
            22..30 => self.poll(),
            30..34 => drop(self.read()),
            34 => self.renew(),
            35 => self.change_key(),
            36 => match self.client.reset(other(self.user)) {
                Err(error) if error.code() == "needs_bundle" => {}
                outcome => {
                    outcome.expect("reset");
                    self.journal.say("reset");
                }
            },
            37 => self.restart(),
            38 => match self.below(4) {
                0 => {
                    self.client.replace_pre_keys().expect("replaced");
                    self.journal.say("replaced");
                }
                _ => self.maintain(),
            },
            _ => self.ask_for_state(),
        }
    }

    /// Until nothing moves any more.
    fn settle(&mut self) -> usize {
        self.maintain();
        self.ask_for_state();
        let before = Journal::path(&self.home, &self.name);
        let before = fs::metadata(before).unwrap().len();
        for _ in 0..10 {
            self.work();
            self.poll();
            self.read();
        }
        let after = Journal::path(&self.home, &self.name);
        (fs::metadata(after).unwrap().len() - before) as usize
    }
}

/// All sessions with the peer are gone, as from a store that went wrong: healing brings them back.
fn lose_sessions(home: &Path, user: &str, said: &Said) {
    let peer = Said::read(home, other(user)).device.unwrap();
    let peer = format!("{}#{peer}", other(user)).parse().unwrap();
    let keys = [said.key, said.wanted_key];
    let opened = |number: &u8| Store::open(home.join(user), &key(*number), rng()).ok();
    let store = keys.iter().find_map(opened).expect("one of the two keys");
    let mut rows = Staged::new(&store);
    let device = Device::load(&rows).unwrap().unwrap();
    device.forget_sessions(&mut rows, &peer).unwrap();
    let changes = rows.into_changes();
    store.commit_blocking(changes).unwrap();
    store.close().unwrap();
}

/// Makes profiles, one after the other; what an earlier life began is begun again.
fn create(home: &Path, ahead: u64) -> ! {
    let mut journal = Journal::open(home, "created");
    let lines = Journal::lines(home, "created");
    let cut_short: Vec<_> = fs::read_dir(home)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with("new-") && !name.ends_with(".seen"))
        .collect();
    let fresh = (lines.len()..).map(|place| format!("new-{place}"));
    for name in cut_short.into_iter().chain(fresh) {
        journal.say(&format!("making {name}"));
        let made =
            Client::start_open_or_create_in(home.join(&name), key(0), &name, surroundings(ahead));
        let client = made.wait().expect("made");
        journal.say(&format!("made {name} {}", client.device().unwrap()));
        client.close().expect("closed");
    }
    unreachable!()
}

/// The child: not a test of its own, but this program started again.
#[test]
fn child_that_lives_until_it_is_killed() {
    let Some(home) = std::env::var_os(CHILD) else {
        return;
    };
    let home = PathBuf::from(home);
    let mode = std::env::var(MODE).unwrap();
    let life: u64 = std::env::var(LIFE).unwrap().parse().unwrap();
    let ahead: u64 = std::env::var(AHEAD).unwrap().parse().unwrap();
    // Whatever goes wrong in any thread ends this life, and the parent reads why.
    let panics = home.join("panics");
    std::panic::set_hook(Box::new(move |panic| {
        let file = OpenOptions::new().create(true).append(true).open(&panics);
        let trace = std::backtrace::Backtrace::force_capture();
        writeln!(file.unwrap(), "life {life}: {panic}\n{trace}").unwrap();
        std::process::exit(101);
    }));
    recorder::to_file(&home.join("uses"));
    if mode == "create" {
        create(&home, ahead);
    }
    let server = server(&home);
    let begin = |user| Talker::begin(&home, user, (life, ahead), &server);
    if mode == "settle" {
        let mut talkers = Vec::from(USERS.map(begin));
        let links = talkers[0].said.links.any;
        if links {
            linking::LINKS.store(true, Ordering::SeqCst);
            talkers.push(Talker::begin_linked(&home, (life, ahead), &server));
        }
        let mut quiet = 0;
        for _ in 0..50 {
            if links {
                talkers[0].care_for_devices(true);
                talkers[2].show_code();
            }
            let moved: usize = talkers.iter_mut().map(Talker::settle).sum();
            if links {
                talkers[2].is_inside();
            }
            quiet = if moved == 0 { quiet + 1 } else { 0 };
            // Some tasks are put off for a minute.
            PASSED.fetch_add(60_001, Ordering::SeqCst);
            if quiet == 2 {
                break;
            }
        }
        assert_eq!(quiet, 2, "it does not settle");
        if links {
            talkers[2].end_if_over();
        }
        for talker in &mut talkers {
            talker.client.close().unwrap();
            talker.journal.say("closed");
        }
        return;
    }
    let (begin, renews, links) = (&begin, mode == "renew", mode == "link");
    thread::scope(|scope| {
        if links {
            linking::LINKS.store(true, Ordering::SeqCst);
            scope.spawn(|| linking::live(&home, (life, ahead), &server));
        }
        for user in USERS {
            scope.spawn(move || {
                let mut talker = begin(user);
                if links {
                    talker.journal.say("links");
                }
                loop {
                    match (renews, talker.below(4)) {
                        (true, 0) => talker.renew(),
                        (true, 1) => talker.change_key(),
                        (false, 0 | 1) if links => {
                            talker.care_for_devices(false);
                            talker.work();
                            talker.poll();
                        }
                        _ => talker.something(),
                    }
                }
            });
        }
    });
}

// The parent.

struct Killer {
    dir: tempfile::TempDir,
    rng: ChaCha20Rng,
    ledger: Ledger,
    recorded: usize,
    life: u64,
    /// How far the clock of this life is ahead, and how long ago the life before began by it, in milliseconds.
    ahead: u64,
    step: fn(u64) -> u64,
    lists: linking::Chain,
    began: Instant,
    /// In microseconds.
    lifetime: u64,
}

impl Killer {
    fn new(seed: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self {
            dir,
            rng: ChaCha20Rng::seed_from_u64(seed),
            ledger: Ledger::default(),
            recorded: 0,
            life: 0,
            ahead: 0,
            step: |_| LIFE_MS,
            lists: linking::Chain::default(),
            began: Instant::now(),
            lifetime: 0,
        }
        .measured()
    }

    /// Lives are as long as this machine is slow.
    fn measured(mut self) -> Self {
        let first = Client::create(self.home().join("first"), key(0), "first");
        first.unwrap().close().unwrap();
        self.lifetime = (self.began.elapsed().as_micros() as u64 * LIFETIME).max(60_000);
        self
    }

    fn home(&self) -> &Path {
        self.dir.path()
    }

    fn start(&mut self, mode: &str) -> Child {
        self.life += 1;
        self.ahead += (self.step)(self.life);
        Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child_that_lives_until_it_is_killed"])
            .args(["--nocapture", "--test-threads=1"])
            .env(CHILD, self.home())
            .env(MODE, mode)
            .env(LIFE, self.life.to_string())
            .env(AHEAD, self.ahead.to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap()
    }

    /// What the child complained about, before it was killed or instead of that.
    fn complaint(&self) -> String {
        fs::read_to_string(self.home().join("panics")).unwrap_or_default()
    }

    fn kill(&mut self, mode: &str) {
        let mut child = self.start(mode);
        if mode != "create" && !self.rng.next_u64().is_multiple_of(4) {
            self.wait_until_ready(&mut child);
        }
        let lifetime = self.rng.next_u64() % self.lifetime;
        thread::sleep(Duration::from_micros(lifetime));
        child.kill().unwrap();
        let status = child.wait().unwrap();
        assert_eq!(
            (self.complaint(), status.signal()),
            (String::new(), Some(9)),
            "life {} ended by itself",
            self.life
        );
    }

    fn wait_until_ready(&self, child: &mut Child) {
        let ready = |user: &str| {
            let text = fs::read_to_string(Journal::path(self.home(), user)).unwrap();
            let life = format!("\nlife {}.\n", self.life);
            text.rfind(&life)
                .is_some_and(|at| text[at..].contains("\nready.\n"))
        };
        while !USERS.into_iter().all(ready) && child.try_wait().unwrap().is_none() {
            thread::sleep(Duration::from_millis(2));
        }
    }

    fn settle(&mut self) {
        let mut child = self.start("settle");
        let status = child.wait().unwrap();
        assert!(status.success(), "life {}: {}", self.life, self.complaint());
    }

    /// Everything encrypted in all lives so far.
    fn check_keys(&mut self) {
        self.recorded = self
            .ledger
            .add_file(&self.dir.path().join("uses"), self.recorded);
        assert_eq!(
            self.ledger.repeated(),
            0,
            "life {}: a pair of key and nonce was used twice",
            self.life
        );
        // One seed, one frame that was handed out: whatever was encrypted and lost with a life never left it.
        let mut frames: BTreeMap<[u8; 32], String> = BTreeMap::new();
        for name in self.names() {
            for (hash, tag) in Said::read(self.home(), &name).offered.into_values() {
                let seed = self
                    .ledger
                    .seed(&tag)
                    .expect("a frame that nobody encrypted");
                if let Some(before) = frames.insert(seed, hash.clone()) {
                    assert_eq!(before, hash, "one seed, two frames");
                }
            }
        }
    }

    /// Opens a client's store and looks at everything that was acknowledged.
    fn check_client(&mut self, name: &str) {
        let home = self.dir.path().to_owned();
        let said = Said::read(&home, name);
        let Some(device) = said.device else {
            return;
        };
        let user = linking::user_of(name);
        let (life, ahead) = (self.life, self.ahead);
        let ((), uses) = recorder::if_any_on_this_thread(|| {
            let old = Store::open(home.join(name), &key(said.key), rng());
            let store = match old {
                Err(sprag::store::StoreError::WrongKey) if said.wanted_key != said.key => {
                    Store::open(home.join(name), &key(said.wanted_key), rng())
                }
                opened => opened,
            };
            let store = store.unwrap_or_else(|error| panic!("life {life}, {name}: {error}"));
            let found = Device::load(&store).unwrap().expect("the device");
            assert_eq!(found.address().device().get(), device);
            check_stock(&home, &store, found.address());
            let client = Client::with_store(store, user, surroundings(ahead)).unwrap();
            if linking::is_linked_one(name) && client.is_linked().is_err() {
                return; // its time ran out
            }
            check_inbox(&client, &said, &format!("life {life}, {name}"));
            let lately = said.lately.iter().rev().take(50);
            for (_, id) in lately.filter(|(sent, _)| sent + SETTLED as u64 > life) {
                let status = client.status(id.parse().unwrap()).unwrap();
                assert!(status.is_some(), "life {life}: {name} forgot {id}");
            }
            linking::check(&client, &said, &format!("life {life}, {name}"));
            client.close().unwrap();
            if said.wanted_key == said.key && said.key > 0 {
                let before = Store::open(home.join(name), &key(said.key - 1), rng());
                assert!(before.is_err(), "life {life}: the key before still opens");
            }
        });
        self.ledger.add(&uses);
    }

    /// Everything that was sent was heard, once; and nothing else.
    fn check_settled(&self) {
        for user in USERS {
            let (of_us, mut of_them) = (
                Said::read(self.home(), user),
                Said::read(self.home(), other(user)),
            );
            // What devices wrote that were linked is looked at apart.
            of_them.heard.retain(|text, _| !text.contains('+'));
            let sent: BTreeSet<String> = of_us
                .begun
                .iter()
                .map(|id| format!("{user}-{id}"))
                .collect();
            let heard: BTreeSet<String> = of_them.heard.keys().cloned().collect();
            let lost: Vec<_> = sent.difference(&heard).collect();
            if !lost.is_empty() {
                self.explain(lost[0]);
            }
            assert!(
                lost.is_empty(),
                "life {}: {} of {user}'s messages are lost: {lost:?}",
                self.life,
                lost.len()
            );
            assert_eq!(sent, heard);
        }
    }

    /// Says what both sides know of a message that is missing.
    fn explain(&self, text: &str) {
        let id = text.split_once('-').unwrap().1.parse().unwrap();
        for name in USERS {
            let said = Said::read(self.home(), name);
            let (client, _) = open(self.home(), name, &said, self.ahead);
            println!("{name}: {:?}", client.status(id));
            println!("{name}: {:?}", client.tasks());
            for event in client.events(0).unwrap() {
                println!("{name}: {event:?}");
            }
        }
    }

    fn report(&self, what: &str, kills: usize) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for name in self.names() {
            for (what, count) in Said::read(self.home(), &name).counts {
                *counts.entry(what).or_default() += count;
            }
        }
        println!(
            "{what}: {kills} kills in {:.0} s, lives up to {} ms, {} encryptions, no pair of key and nonce twice; {counts:?}",
            self.began.elapsed().as_secs_f64(),
            self.lifetime / 1_000,
            self.ledger.encryptions()
        );
        counts
    }
}

fn check_inbox(client: &Client, said: &Said, whose: &str) {
    let inbox = client.inbox().unwrap();
    let offered: BTreeMap<u64, String> = inbox
        .iter()
        .map(|message| {
            let text = message.text_lossy();
            (message.id().get(), name_of(&text).to_owned())
        })
        .collect();
    for (text, id) in said.got.iter().chain(&said.heard) {
        if !said.acked.contains(id) {
            assert_eq!(
                offered.get(id),
                Some(text),
                "{whose}: {text} is not offered again"
            );
        }
    }
    for id in offered.keys() {
        assert!(
            !said.firm.contains(id),
            "{whose}: {id} was acknowledged for good"
        );
    }
}

/// Everything that the server would hand out has its private half here.
fn check_stock(home: &Path, store: &Store, address: &DeviceAddress) {
    let ids = |table: u8| {
        let mut ids = BTreeSet::new();
        let all = RowName::plain(table, []);
        store
            .scan(&all, &mut |suffix, _| {
                ids.insert(u32::from_be_bytes(suffix.try_into().unwrap()));
                ControlFlow::Continue(())
            })
            .unwrap();
        ids
    };
    let (one_time, signed, kem) = (ids(0x02), ids(0x03), ids(0x04));
    let Some(stock) = stock(home, address) else {
        return;
    };
    assert!(signed.contains(&stock.signed_pre_key.id.get()));
    assert!(kem.contains(&stock.last_resort.id.get()));
    for key in &stock.one_time_pre_keys {
        let id = key.id.get();
        assert!(
            one_time.contains(&id),
            "one-time prekey {id} is published and deleted"
        );
    }
    for key in &stock.kem_pre_keys {
        let id = key.id.get();
        assert!(
            kem.contains(&id),
            "KEM prekey {id} is published and deleted"
        );
    }
}

/// What the server has of a device and handed out to nobody.
fn stock(home: &Path, address: &DeviceAddress) -> Option<PreKeyUpload> {
    let storage = FolderStorage::open(home.join("server")).unwrap();
    let user = hex::encode(sha256(&[address.user().as_str().as_bytes()]));
    let key = format!("users/{user}/prekeys/{}", address.device().get());
    let row = storage.lock().unwrap().get(&key, 1 << 18).unwrap()?;
    // Version, epoch of the server, the highest ids.
    Some(PreKeyUpload::decode(&row[1 + 16 + 12..]).unwrap())
}

/// Two clients who talk are killed `kills` times. Says what they did, and how often.
fn kill_talkers(mode: &str, kills: usize, seed: u64) -> BTreeMap<String, usize> {
    kill_them(Killer::new(seed), mode, kills)
}

fn kill_them(mut killer: Killer, mode: &str, kills: usize) -> BTreeMap<String, usize> {
    killer.settle();
    for kill in 1..=kills {
        killer.kill(mode);
        for name in killer.names_of_late() {
            killer.check_client(&name);
        }
        killer.check_lists();
        killer.check_keys();
        if kill % SETTLED == 0 || kill == kills {
            killer.settle();
            killer.check_keys();
            killer.check_settled();
            killer.check_linked();
            println!("{mode}: {kill} of {kills} kills, all well");
        }
    }
    killer.report(mode, kills)
}

#[test]
fn killed_clients_lose_nothing_that_was_acknowledged_and_use_no_key_twice() {
    let counts = kill_talkers("mixed", kills() * 4 / 10, 1);
    assert!(counts["sent"] > kills() / 3, "they hardly talked");
}

#[test]
fn clients_killed_while_they_renew_and_change_keys_lose_nothing_and_use_no_key_twice() {
    let counts = kill_talkers("renew", kills() * 15 / 100, 2);
    assert!(counts["rekeyed"] > kills() / 60, "keys hardly changed");
}

#[test]
fn profile_whose_creation_was_killed_is_whole_or_none_and_can_be_made() {
    let kills = kills() * 15 / 100;
    let mut killer = Killer::new(3);
    let (mut whole, mut none) = (0, 0);
    for _ in 0..kills {
        killer.kill("create");
        killer.check_keys();
        let mut made = BTreeMap::new();
        for line in Journal::lines(killer.home(), "created") {
            match (line[0].as_str(), &line[1..]) {
                ("making", [name]) => drop(made.insert(name.clone(), None)),
                ("made", [name, device]) => drop(made.insert(name.clone(), Some(device.clone()))),
                _ => {}
            }
        }
        for (name, device) in made {
            let path = killer.home().join(&name);
            if killer.home().join(format!("{name}.seen")).exists() {
                continue;
            }
            let opened = Client::open(&path, key(0));
            let client = match (opened, &device) {
                (Ok(client), _) => {
                    whole += 1;
                    client
                }
                (Err(error), None) if error.code() == "no_profile" => {
                    none += 1;
                    if none % 2 == 0 {
                        continue; // for the next life to make, which may be cut short as well
                    }
                    Client::open_or_create(&path, key(0), &name).expect("made after all")
                }
                (Err(error), _) => panic!("life {}, {name}: {error}", killer.life),
            };
            if let Some(device) = device {
                assert_eq!(
                    client.device().unwrap().to_string(),
                    device,
                    "another device"
                );
            }
            assert_eq!(client.user().unwrap(), name);
            let published = client.tasks().unwrap().into_iter().any(|task| {
                let Task::PublishPreKeys { upload, .. } = task else {
                    return false;
                };
                let upload = PreKeyUpload::decode(&upload).unwrap();
                client.close().unwrap();
                let store = Store::open(&path, &key(0), rng()).unwrap();
                let held = Device::load(&store).unwrap().unwrap();
                let (one_time, kem) = held.held_pre_keys(&store).unwrap();
                assert!(!upload.one_time_pre_keys.is_empty());
                let has = |ids: &[u32], id: u32| assert!(ids.contains(&id), "{id} is not held");
                for key in &upload.one_time_pre_keys {
                    has(&one_time, key.id.get());
                }
                for key in upload.kem_pre_keys.iter().chain([&upload.last_resort]) {
                    has(&kem, key.id.get());
                }
                true
            });
            assert!(published, "{name} has no prekeys to publish");
            fs::remove_dir_all(&path).unwrap();
            File::create(killer.home().join(format!("{name}.seen"))).unwrap();
        }
    }
    println!(
        "{kills} kills in {:.0} s: {whole} profiles whole, {none} cut short and made again, {} encryptions",
        killer.began.elapsed().as_secs_f64(),
        killer.ledger.encryptions()
    );
    assert!(whole > 0 && none > 0);
}
