//! Processes that come and go, played in one: each has a `Shared` of its own, and the disk is one that they share.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;

use sprag::memory::Memory;
use sprag::store::StoreKeys;
use tempfile::TempDir;

use super::call::{Counted, Whose};
use super::*;
use crate::sys;

/// A store in memory that behaves as one on disk: one process has it open, and what it has outlives that.
#[derive(Clone)]
struct Disk(Arc<Mutex<Content>>);

struct Content {
    key: ProofKey,
    locked: bool,
    /// What was stored under which id, and how often.
    stored: BTreeMap<String, (String, u32)>,
    opened: u32,
    /// A store of `slow` has begun, and may end.
    begun: bool,
    may_end: bool,
}

impl Disk {
    fn new() -> Self {
        Self(Arc::new(Mutex::new(Content {
            key: new_key(),
            locked: false,
            stored: BTreeMap::new(),
            opened: 0,
            begun: false,
            may_end: false,
        })))
    }

    fn with<T>(&self, act: impl FnOnce(&mut Content) -> T) -> T {
        act(&mut self.0.lock().unwrap())
    }

    fn stored(&self) -> usize {
        self.with(|content| content.stored.len())
    }

    fn renew(&self) {
        self.with(|content| content.key = new_key());
    }
}

fn new_key() -> ProofKey {
    StoreKeys::generate(&mut sys::rng()).proof_key()
}

impl Door for Disk {
    fn open(&self) -> Result<Box<dyn House>, NotOpen> {
        self.with(|content| {
            if content.locked {
                return Err(NotOpen::InUse(Some(7)));
            }
            content.locked = true;
            content.opened += 1;
            Ok(Box::new(Opened(self.clone())) as Box<dyn House>)
        })
    }

    fn proof_key(&self) -> Result<ProofKey, Fault> {
        Ok(self.with(|content| content.key.clone()))
    }
}

/// Somebody who opens another store than this one, although it is in the same place.
struct WithKey(Disk, ProofKey);

impl Door for WithKey {
    fn open(&self) -> Result<Box<dyn House>, NotOpen> {
        self.0.open()
    }

    fn proof_key(&self) -> Result<ProofKey, Fault> {
        Ok(self.1.clone())
    }
}

struct Opened(Disk);

impl House for Opened {
    fn answer(&self, id: CallId, call: &Call) -> Result<Answer, Fault> {
        match call {
            Call::Store { memory, .. } => {
                if memory.content == "slow" {
                    self.0.with(|disk| disk.begun = true);
                    while !self.0.with(|disk| disk.may_end) {
                        thread::yield_now();
                    }
                }
                Ok(self.store(id, &memory.content))
            }
            Call::Get { id, .. } => Err(Fault::not_found(id)),
            _ => Ok(Answer::Counted(Counted {
                memories: self.0.stored() as u64,
                user: "alice".to_owned(),
                process: 7,
            })),
        }
    }

    fn proof_key(&self) -> Result<ProofKey, Fault> {
        self.0.proof_key()
    }

    fn close(&self) -> Result<(), Fault> {
        self.0.with(|content| content.locked = false);
        Ok(())
    }
}

impl Opened {
    fn store(&self, id: CallId, content: &str) -> Answer {
        let id = id.digits();
        self.0.with(|disk| {
            let entry = disk.stored.entry(id.clone());
            // As a store does that has it: once.
            entry.or_insert_with(|| (content.to_owned(), 0)).1 += 1;
        });
        Answer::Written {
            id,
            revision: 1,
            redacted: Vec::new(),
        }
    }
}

fn whose() -> Whose {
    Whose {
        user: None,
        agent: None,
    }
}

fn store(content: &str) -> Call {
    Call::Store {
        whose: whose(),
        memory: Box::new(Memory::new(content)),
        redact: false,
    }
}

fn stats() -> Call {
    Call::Stats { whose: whose() }
}

struct World {
    home: TempDir,
    disk: Disk,
}

impl World {
    fn new() -> Self {
        Self {
            home: tempfile::tempdir().unwrap(),
            disk: Disk::new(),
        }
    }

    fn process(&self) -> Shared {
        self.process_with(self.disk.clone(), Trust::kernel(), PATIENCE)
    }

    fn process_with(&self, door: impl Door + 'static, trust: Trust, patience: Duration) -> Shared {
        Shared(Arc::new(Inner {
            door: Box::new(door),
            place: self.place(),
            trust,
            patience,
            role: Mutex::new(Role::Neither),
            note: |_| {},
        }))
    }

    fn place(&self) -> Place {
        Place::in_home(self.home.path())
    }

    fn connect(&self) -> UnixStream {
        self.place().connect().unwrap()
    }
}

fn is_host(shared: &Shared) -> bool {
    matches!(*shared.0.lock(), Role::Host(_))
}

fn is_guest(shared: &Shared) -> bool {
    matches!(*shared.0.lock(), Role::Guest(_))
}

fn foreign() -> Trust {
    Trust {
        uid_of: |_| Ok(peer::ours() + 1),
        ..Trust::kernel()
    }
}

#[test]
fn who_comes_first_answers_the_others_and_when_it_ends_another_takes_over() {
    let world = World::new();
    let (one, two, three) = (world.process(), world.process(), world.process());
    for process in [&one, &two, &three] {
        process.call(CallId::draw(), &store("x")).unwrap();
    }
    assert!(is_host(&one) && is_guest(&two) && is_guest(&three));
    let mode = std::fs::metadata(world.place().path()).unwrap();
    assert_eq!(mode.permissions().mode() & 0o777, 0o600);
    one.close().unwrap();
    assert_eq!(
        one.call(CallId::draw(), &store("x")).unwrap_err().code,
        "closed"
    );
    two.call(CallId::draw(), &store("x")).unwrap();
    three.call(CallId::draw(), &store("x")).unwrap();
    assert!(is_host(&two) && is_guest(&three));
    drop(two);
    drop(three);
    assert_eq!(world.disk.stored(), 5);
    assert!(!world.place().path().exists());
    assert!(!world.disk.with(|content| content.locked));
}

#[test]
fn an_error_of_the_host_reaches_the_guest_as_it_is() {
    let world = World::new();
    let (host, guest) = (world.process(), world.process());
    host.attach().unwrap();
    let get = Call::Get {
        whose: whose(),
        id: "abc".to_owned(),
    };
    let fault = guest.call(CallId::draw(), &get).unwrap_err();
    assert!(is_guest(&guest));
    assert_eq!(fault, Fault::not_found("abc"));
    assert_eq!(fault.exit(), Exit::NotFound);
}

#[test]
fn a_call_that_is_made_again_is_done_once_whoever_makes_it() {
    let world = World::new();
    let (host, guest, other) = (world.process(), world.process(), world.process());
    host.attach().unwrap();
    let id = CallId::draw();
    let first = guest.call(id, &store("x")).unwrap();
    for process in [&guest, &other, &host] {
        assert_eq!(process.call(id, &store("x")).unwrap(), first);
    }
    let times = |disk: &Disk| disk.with(|disk| disk.stored[&id.digits()].1);
    assert_eq!(times(&world.disk), 1);
    let reused = other.call(id, &store("y")).unwrap_err();
    assert_eq!(reused.code, "call_id_reused");
}

#[test]
fn a_call_under_way_when_its_host_ends_is_answered_and_later_ones_go_to_the_next() {
    let world = World::new();
    let (host, guest) = (world.process(), world.process());
    host.attach().unwrap();
    guest.attach().unwrap();
    thread::scope(|scope| {
        let slow = scope.spawn(|| guest.call(CallId::draw(), &store("slow")));
        while !world.disk.with(|disk| disk.begun) {
            thread::yield_now();
        }
        let ends = scope.spawn(|| host.close());
        // It has begun to end: nobody finds it any more.
        while world.place().path().exists() && !ends.is_finished() {
            thread::yield_now();
        }
        world.disk.with(|disk| disk.may_end = true);
        slow.join().unwrap().unwrap();
        ends.join().unwrap().unwrap();
    });
    world.disk.with(|disk| {
        let times: Vec<u32> = disk.stored.values().map(|(_, times)| *times).collect();
        assert_eq!(times, [1], "it was not waited for, and done again");
    });
    guest.call(CallId::draw(), &store("x")).unwrap();
    assert!(is_host(&guest));
}

/// Hosts end all the time, and new processes come.
#[test]
fn a_call_that_outlasted_all_patience_when_its_host_died_is_made_again() {
    let world = World::new();
    let guest = world.process_with(world.disk.clone(), Trust::kernel(), Duration::ZERO);
    world.disk.with(|disk| disk.locked = true);
    let listener = world.place().bind().unwrap();
    let disk = world.disk.clone();
    let host = thread::spawn(move || {
        let key = disk.with(|disk| disk.key.clone());
        let stream = listener.accept().unwrap().0;
        let mut line = hello::as_host(stream, || Ok(key), Trust::kernel()).unwrap();
        line.hear().unwrap().unwrap();
        // It dies, and does not answer.
        disk.with(|disk| disk.locked = false);
    });
    guest.call(CallId::draw(), &store("x")).unwrap();
    host.join().unwrap();
    assert!(is_host(&guest));
    assert_eq!(world.disk.stored(), 1);
}

#[test]
fn what_many_store_while_hosts_come_and_go_is_there_once_each() {
    let world = World::new();
    let done = AtomicBool::new(false);
    let acknowledged = thread::scope(|scope| {
        let writers: Vec<_> = (0..3)
            .map(|_| {
                scope.spawn(|| {
                    let mut ids = Vec::new();
                    for round in 0..10 {
                        let process = world.process();
                        if round % 2 == 0 {
                            process.keep();
                        }
                        for _ in 0..10 {
                            let id = CallId::draw();
                            process.call(id, &store("x")).unwrap();
                            ids.push(id);
                        }
                    }
                    ids
                })
            })
            .collect();
        let reader = scope.spawn(|| {
            let process = world.process();
            while !done.load(Ordering::SeqCst) {
                process.call(CallId::draw(), &stats()).unwrap();
            }
        });
        let ids: Vec<_> = writers
            .into_iter()
            .flat_map(|writer| writer.join().unwrap())
            .collect();
        done.store(true, Ordering::SeqCst);
        reader.join().unwrap();
        ids
    });
    world.disk.with(|disk| {
        assert_eq!(acknowledged.len(), 300);
        assert_eq!(disk.stored.len(), 300);
        assert!(disk.opened > 1, "nobody ever took over");
        for id in acknowledged {
            assert_eq!(disk.stored[&id.digits()].1, 1);
        }
    });
}

#[test]
fn one_that_keeps_watch_takes_over_without_a_call() {
    let world = World::new();
    let (host, guest) = (world.process(), world.process());
    host.attach().unwrap();
    guest.attach().unwrap();
    guest.keep();
    host.close().unwrap();
    let until = Instant::now() + PATIENCE;
    while !is_host(&guest) {
        assert!(Instant::now() < until, "nobody took over");
        thread::yield_now();
    }
}

#[test]
fn a_socket_that_a_killed_host_left_is_taken_over() {
    let world = World::new();
    drop(world.place().bind().unwrap());
    let next = world.process();
    next.call(CallId::draw(), &store("x")).unwrap();
    assert!(is_host(&next));
    let guest = world.process();
    guest.call(CallId::draw(), &store("x")).unwrap();
    assert!(is_guest(&guest));
}

#[test]
fn a_fake_at_the_socket_learns_nothing_and_loses_the_place_to_who_gets_the_lock() {
    let world = World::new();
    let fake = UnixListener::bind(world.place().path()).unwrap();
    let (said, hears) = mpsc::channel();
    thread::spawn(move || {
        let (mut stream, _) = fake.accept().unwrap();
        let mut greeting = [0; 41];
        stream.read_exact(&mut greeting).unwrap();
        greeting[9..].fill(9);
        stream.write_all(&greeting).unwrap();
        stream.write_all(&[7; 32]).unwrap();
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest);
        said.send(rest).unwrap();
    });
    let process = world.process();
    process.call(CallId::draw(), &store("secret")).unwrap();
    assert!(is_host(&process));
    assert!(hears.recv().unwrap().is_empty(), "it said more than hello");
    let guest = world.process();
    guest.call(CallId::draw(), &store("x")).unwrap();
    assert!(is_guest(&guest));
}

#[test]
fn another_users_process_is_refused_by_the_host_and_by_the_guest() {
    let world = World::new();
    let patience = Duration::from_millis(20);
    let host = world.process_with(world.disk.clone(), foreign(), PATIENCE);
    host.attach().unwrap();
    let guest = world.process_with(world.disk.clone(), Trust::kernel(), patience);
    let refused = guest.call(CallId::draw(), &store("x")).unwrap_err();
    assert_eq!(
        (refused.code.as_str(), refused.exit()),
        ("store_in_use", Exit::InUse)
    );
    assert!(refused.message.contains("process 7"));
    host.close().unwrap();

    let host = world.process();
    host.attach().unwrap();
    let guest = world.process_with(world.disk.clone(), foreign(), patience);
    let refused = guest.call(CallId::draw(), &store("x")).unwrap_err();
    assert_eq!(
        (refused.code.as_str(), refused.exit()),
        ("peer_untrusted", Exit::Refused)
    );
    assert_eq!(world.disk.stored(), 0);
    world.process().call(CallId::draw(), &store("x")).unwrap();
}

#[test]
fn who_does_not_know_the_key_of_the_store_is_refused() {
    let world = World::new();
    let host = world.process();
    host.attach().unwrap();
    let door = WithKey(world.disk.clone(), new_key());
    let guest = world.process_with(door, Trust::kernel(), Duration::from_millis(20));
    let refused = guest.call(CallId::draw(), &store("x")).unwrap_err();
    assert_eq!(refused.code, "peer_untrusted");
    assert_eq!(world.disk.stored(), 0);
}

#[test]
fn a_guest_that_knows_an_older_key_fetches_the_new_one() {
    let world = World::new();
    let (host, guest) = (world.process(), world.process());
    host.attach().unwrap();
    let mut key = Some(world.disk.proof_key().unwrap());
    world.disk.renew();
    assert!(guest.0.visit(&mut key).unwrap().is_ok());
}

#[test]
fn who_sends_garbage_or_huge_frames_or_holds_its_connection_disturbs_nobody() {
    let world = World::new();
    let (host, guest) = (world.process(), world.process());
    host.attach().unwrap();
    let mut held = Vec::new();
    for said in [
        &b""[..],
        b"GET / HTTP/1.1\r\n\r\n",
        b"SPRAG\0io\x02",
        b"SPRAG\0io\x01",
        &[0xff; 1 << 20],
    ] {
        for _ in 0..8 {
            let mut stream = world.connect();
            // It may be refused before all is written.
            let _ = stream.write_all(said);
            held.push(stream);
        }
    }
    guest.call(CallId::draw(), &store("x")).unwrap();
    assert!(is_guest(&guest));

    // Also from who knows the key.
    let key = world.disk.proof_key().unwrap();
    for said in [
        &b"{"[..],
        b"{\"id\":1,\"call\":{\"unknown\":{}}}",
        b"\xff\xfe",
    ] {
        let (mut line, _) = hello::as_guest(world.connect(), &key, Trust::kernel())
            .map_err(|_| "refused")
            .unwrap();
        line.say(said).unwrap();
        let answer = line.hear().unwrap().unwrap();
        let answer: Result<Answer, Fault> = serde_json::from_slice(&answer).unwrap();
        assert_eq!(answer.unwrap_err().code, "unsupported_version");
    }
    for said in [&u32::MAX.to_be_bytes()[..], b"\0\0\0\x40garbage", b"\0\0"] {
        let (line, _) = hello::as_guest(world.connect(), &key, Trust::kernel())
            .map_err(|_| "refused")
            .unwrap();
        let mut stream = line.stream();
        stream.write_all(said).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut heard = Vec::new();
        let _ = stream.read_to_end(&mut heard);
        assert!(heard.is_empty(), "{said:?}");
    }
    guest.call(CallId::draw(), &store("x")).unwrap();
    assert!(is_guest(&guest));
    drop(held);
    host.close().unwrap();
}

#[test]
fn who_comes_when_too_many_are_there_is_let_in_when_one_went() {
    let world = World::new();
    let host = world.process();
    host.attach().unwrap();
    let mut held: Vec<_> = (0..200).map(|_| world.connect()).collect();
    let guest = world.process();
    thread::scope(|scope| {
        let call = scope.spawn(|| guest.call(CallId::draw(), &store("x")));
        held.clear();
        call.join().unwrap().unwrap();
    });
    assert_eq!(world.disk.stored(), 1);
}

#[test]
fn what_is_too_large_for_a_frame_is_an_error_and_not_a_lost_conversation() {
    let world = World::new();
    let (host, guest) = (world.process(), world.process());
    host.attach().unwrap();
    guest.attach().unwrap();
    let huge = store(&"x".repeat(65 << 20));
    let refused = guest.call(CallId::draw(), &huge).unwrap_err();
    assert_eq!(refused.code, "bad_input");
    assert!(is_guest(&guest));
    assert_eq!(world.disk.stored(), 0);
}

#[test]
fn a_store_that_somebody_else_has_open_without_answering_is_waited_for_and_then_named() {
    let world = World::new();
    world.disk.with(|content| content.locked = true);
    let patience = Duration::from_millis(20);
    let process = world.process_with(world.disk.clone(), Trust::kernel(), patience);
    let refused = process.call(CallId::draw(), &store("x")).unwrap_err();
    assert_eq!(refused.code, "store_in_use");
    assert!(refused.message.contains("process 7"));
    world.disk.with(|content| content.locked = false);
    process.call(CallId::draw(), &store("x")).unwrap();
    assert!(is_host(&process));
}
