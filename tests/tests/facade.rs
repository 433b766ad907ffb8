//! The seven rules of the facade (`ARCHITECTURE.md`, "The facade"), each with what would break it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::collections::BTreeSet;
use std::future::Future;
use std::io::{Cursor, Read};
use std::pin::pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::Duration;

use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;
use sprag::memory::{
    BackendError as PlaceError, EncryptedMemoryStore, Memory, MemoryBackend, OnConflict, Owner,
    StoredBlob,
};
use sprag::store::{
    BackendError, Changes, Image, Rollback, RowName, Rows, Store, StoreError, StoreKeys,
};
use sprag::{
    Action, AfterRollback, Attachment, CODES, Client, Contact, CopyStatus, Error, Event, Failure,
    InboxId, Key, Message, MessageId, NumberedEvent, Pending, Question, Received, Refusal,
    SafetyNumber, Status, Surroundings, Task, TaskId, Transport,
};
use sprag_session::{BackupError, ProtocolError, SendError, StepError};
use sprag_tests::shelf::Shelf;
use sprag_tests::verbs::{SOON, every_verb, further_verbs, soon};

fn client(user: &str, seed: u8) -> (Client, Shelf) {
    let shelf = Shelf::new();
    let mut rng = ChaCha20Rng::from_seed([seed; 32]);
    let keys = StoreKeys::generate(&mut rng);
    let image = Image::load(shelf.clone()).unwrap();
    let store = Store::create_over(image, &keys, ChaCha20Rng::from_seed([seed + 1; 32])).unwrap();
    let surroundings =
        Surroundings::new(|| 1_700_000_000_000, ChaCha20Rng::from_seed([seed + 2; 32]));
    (
        Client::with_store(store, user, surroundings).unwrap(),
        shelf,
    )
}

struct Unpark(thread::Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// All that an executor is.
fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut context = Context::from_waker(&waker);
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(output) => return output,
            Poll::Pending => thread::park(),
        }
    }
}

// Rule 1: every verb is also a future that needs no runtime.

#[test]
fn every_verb_has_a_pending_form_that_ends() {
    let (alice, _) = client("alice", 1);
    for (name, verb) in every_verb(&alice) {
        assert!(verb().is_ok(), "{name}");
    }
    soon(alice.start().close()).unwrap();
}

#[test]
fn opening_has_pending_forms_too() {
    let dir = tempfile::tempdir().unwrap();
    let (home, key) = (dir.path().join("alice"), Key::raw([1; 32]));
    let code = |pending: Pending<Client>| soon(pending).unwrap_err().code();
    assert_eq!(code(Client::start_open(&home, key.clone())), "no_profile");
    assert_eq!(
        code(Client::start_create(&home, key.clone(), "")),
        "bad_input"
    );
    let alice = block_on(Client::start_create(&home, key.clone(), "alice")).unwrap();
    block_on(alice.start().close()).unwrap();
    assert_eq!(
        code(Client::start_create(&home, key.clone(), "alice")),
        "profile_exists"
    );
    assert_eq!(
        code(Client::start_open_or_create(&home, key.clone(), "bob")),
        "other_user"
    );
    assert_eq!(
        code(Client::start_open(&home, Key::raw([2; 32]))),
        "wrong_key"
    );
    let again = block_on(Client::start_open(&home, key)).unwrap();
    assert_eq!(again.user().unwrap(), "alice");
}

#[test]
fn pending_is_awaited_by_any_executor_from_any_thread() {
    let (alice, shelf) = client("alice", 1);
    shelf.hold();
    let pending = alice.start().send_encrypted_message("bob", b"hello");
    let waiter = thread::spawn(move || block_on(pending));
    while shelf.held() == 0 {
        thread::yield_now();
    }
    assert!(!waiter.is_finished());
    shelf.release();
    waiter.join().unwrap().unwrap();
}

#[test]
fn waiting_that_takes_too_long_gives_the_pending_back() {
    let (alice, shelf) = client("alice", 1);
    shelf.hold();
    let pending = alice.start().send_encrypted_message("bob", b"hello");
    let pending = pending.wait_timeout(Duration::from_millis(10)).unwrap_err();
    let pending = pending.wait_timeout(Duration::ZERO).unwrap_err();
    shelf.release();
    pending.wait_timeout(Duration::ZERO).unwrap().unwrap();
}

// Rule 2: dropping cancels only the waiting; verbs that can be repeated are repeatable.

#[test]
fn dropped_pending_cancels_only_the_waiting() {
    let (alice, shelf) = client("alice", 1);
    let id = MessageId::from_bytes([9; 16]);
    shelf.hold();
    drop(alice.start().send_encrypted_message_as(id, "bob", b"hello"));
    shelf.release();
    assert!(alice.status(id).unwrap().is_some());
}

#[test]
fn same_message_id_sends_once_and_gives_the_same_result() {
    let (alice, _) = client("alice", 1);
    let id = MessageId::from_bytes([9; 16]);
    let before = alice.tasks().unwrap().len();
    for text in [b"hello", b"other", b"third"] {
        assert_eq!(
            alice.send_encrypted_message_as(id, "bob", text).unwrap(),
            id
        );
    }
    assert_eq!(alice.tasks().unwrap().len(), before + 1);
    assert_eq!(alice.status(id).unwrap().unwrap().len(), 1);
    let other = alice.send_encrypted_message("bob", b"hello").unwrap();
    assert_ne!(other, id);
}

#[test]
fn done_supply_failed_acknowledge_and_close_are_idempotent() {
    let mut world = sprag_tests::world::World::new(1);
    let (alice, bob) = (world.join("alice"), world.join("bob"));
    world.send(alice, "bob", b"hello");
    let fetch = world.tasks(alice).remove(0);
    let Task::FetchBundles { query, .. } = &fetch else {
        panic!("{fetch:?}");
    };
    let reply = world.server().bundles(query).unwrap();
    for _ in 0..3 {
        world.client(alice).supply(fetch.id(), &reply).unwrap();
        world.client(alice).done(fetch.id()).unwrap();
        let late = world.client(alice).failed(fetch.id(), &Failure::NoSuchUser);
        late.unwrap();
    }
    let tasks = world.tasks(alice);
    let [Task::Deliver { id, envelope, .. }] = &tasks[..] else {
        panic!("{tasks:?}");
    };
    for _ in 0..3 {
        world.client(alice).done(*id).unwrap();
    }
    assert!(world.tasks(alice).is_empty());
    let received = world.receive(bob, envelope);
    let message = received.messages()[0].id();
    for _ in 0..3 {
        world.client(bob).acknowledge(message).unwrap();
    }
    assert!(world.client(bob).inbox().unwrap().is_empty());
    let status = world.client(alice).tasks().unwrap();
    assert!(status.is_empty());
    for _ in 0..3 {
        world.client(alice).close().unwrap();
    }
}

// Rule 3: what calls out does so on the notifier thread, under no lock.

#[test]
fn callback_runs_on_the_notifier_thread_and_may_call_the_client_again() {
    let (alice, shelf) = client("alice", 1);
    shelf.hold();
    let pending = alice.start().send_encrypted_message("bob", b"hello");
    let (tell, told) = mpsc::channel();
    let again = alice.clone();
    pending.on_ready(move |result| {
        let name = thread::current().name().map(str::to_owned);
        // Blocking and not, reading and writing, and another callback from within.
        let sent = again.send_encrypted_message("bob", b"from within");
        let tasks = again.tasks().map(|tasks| tasks.len());
        let inner = tell.clone();
        again.start().inbox().on_ready(move |inbox| {
            let name = thread::current().name().map(str::to_owned);
            inner.send((name, inbox.is_ok(), 0)).unwrap();
        });
        let fine = result.is_ok() && sent.is_ok();
        tell.send((name, fine, tasks.unwrap())).unwrap();
    });
    assert!(told.recv_timeout(Duration::from_millis(50)).is_err());
    // This thread plays the committer.
    let released = thread::Builder::new().name("committer".into());
    released.spawn(move || shelf.release()).unwrap();
    let notifier = Some("sprag notifier".to_owned());
    let (name, fine, tasks) = told.recv_timeout(SOON).unwrap();
    assert_eq!((&name, fine), (&notifier, true));
    assert!(tasks > 0);
    let (name, fine, _) = told.recv_timeout(SOON).unwrap();
    assert_eq!((&name, fine), (&notifier, true));
}

#[test]
fn callback_on_a_result_that_is_there_runs_on_the_notifier_too() {
    let (alice, _) = client("alice", 1);
    let pending = alice.start().inbox();
    let (tell, told) = mpsc::channel();
    pending.on_ready(move |_| {
        tell.send(thread::current().name().map(str::to_owned))
            .unwrap()
    });
    let name = told.recv_timeout(SOON).unwrap();
    assert_eq!(name.as_deref(), Some("sprag notifier"));
}

#[test]
fn waker_runs_on_the_notifier_thread() {
    struct Tell(Mutex<mpsc::Sender<Option<String>>>);
    impl Wake for Tell {
        fn wake(self: Arc<Self>) {
            let name = thread::current().name().map(str::to_owned);
            self.0.lock().unwrap().send(name).unwrap();
        }
    }
    let (alice, shelf) = client("alice", 1);
    let (tell, told) = mpsc::channel();
    let waker = Waker::from(Arc::new(Tell(Mutex::new(tell))));
    shelf.hold();
    let mut pending = pin!(alice.start().send_encrypted_message("bob", b"hello"));
    let mut context = Context::from_waker(&waker);
    assert!(pending.as_mut().poll(&mut context).is_pending());
    shelf.release();
    let name = told.recv_timeout(SOON).unwrap();
    assert_eq!(name.as_deref(), Some("sprag notifier"));
    assert!(matches!(
        pending.as_mut().poll(&mut context),
        Poll::Ready(Ok(_))
    ));
}

#[test]
fn callback_that_panics_does_not_stop_the_others() {
    let (alice, _) = client("alice", 1);
    let (tell, told) = mpsc::channel();
    alice
        .start()
        .inbox()
        .on_ready(|_| panic!("a bug of the application, on purpose"));
    alice
        .start()
        .inbox()
        .on_ready(move |_| tell.send(()).unwrap());
    told.recv_timeout(SOON).unwrap();
    alice.inbox().unwrap();
}

#[test]
fn changed_wakes_when_something_has_changed() {
    let (alice, _) = client("alice", 1);
    // At first there may be tasks and messages from before: one looks at once.
    let mut seen = soon(alice.start().changed(0)).unwrap();
    for _ in 0..5 {
        let pending = alice.start().changed(seen);
        let pending = pending.wait_timeout(Duration::from_millis(5)).unwrap_err();
        let waiter = thread::spawn(move || pending.wait().unwrap());
        alice.send_encrypted_message("bob", b"hello").unwrap();
        let now = waiter.join().unwrap();
        assert!(now > seen);
        seen = now;
    }
    // Nothing is missed between two calls.
    alice.send_encrypted_message("bob", b"hello").unwrap();
    assert!(soon(alice.start().changed(seen)).unwrap() > seen);
}

#[test]
fn changed_ends_with_the_client() {
    let (alice, shelf) = client("alice", 1);
    let seen = soon(alice.start().changed(0)).unwrap();
    let pending = alice.start().changed(seen);
    alice.close().unwrap();
    assert_eq!(soon(pending).unwrap_err().code(), "closed");

    let (bob, other) = client("bob", 5);
    drop(shelf);
    let seen = soon(bob.start().changed(0)).unwrap();
    let pending = bob.start().changed(seen);
    other.break_with(BackendError::Full);
    assert!(bob.send_encrypted_message("alice", b"x").is_err());
    // A failed store is a change too: the next look tells.
    let _ = soon(pending);
    assert_eq!(bob.tasks().unwrap_err().action(), Action::Reopen);
}

#[test]
fn pending_that_outlives_its_client_ends() {
    let (alice, _) = client("alice", 1);
    let seen = soon(alice.start().changed(0)).unwrap();
    let first = alice.start().changed(seen);
    let second = alice.start().changed(seen);
    let (tell, told) = mpsc::channel();
    second.on_ready(move |result| tell.send(result.unwrap_err().code()).unwrap());
    drop(alice);
    assert_eq!(soon(first).unwrap_err().code(), "closed");
    assert_eq!(told.recv_timeout(SOON).unwrap(), "closed");
}

// Rule 4: results are owned plain data.

#[test]
fn results_are_owned_plain_data() {
    fn plain<T: Send + Sync + Clone + std::fmt::Debug + 'static>() {}
    plain::<MessageId>();
    plain::<InboxId>();
    plain::<TaskId>();
    plain::<Task>();
    plain::<Message>();
    plain::<Received>();
    plain::<Refusal>();
    plain::<Transport>();
    plain::<Status>();
    plain::<CopyStatus>();
    plain::<Contact>();
    plain::<SafetyNumber>();
    plain::<Event>();
    plain::<NumberedEvent>();
    plain::<Failure>();
    plain::<Action>();
    plain::<Question>();
    plain::<Client>();
    fn shared<T: Send + Sync + 'static>() {}
    shared::<Error>();
    shared::<Pending<Message>>();
}

#[test]
fn ids_have_a_canonical_form() {
    let id =
        MessageId::from_bytes(*b"\x00\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x0d\x0e\x0f");
    assert_eq!(id.to_string(), "000102030405060708090a0b0c0d0e0f");
    assert_eq!(id.to_string().parse::<MessageId>().unwrap(), id);
    for bad in [
        "",
        "00",
        "000102030405060708090a0b0c0d0e0",
        "+00102030405060708090a0b0c0d0e0f",
        "zz0102030405060708090a0b0c0d0e0f",
        "000102030405060708090A0B0C0D0E0F",
    ] {
        assert!(bad.parse::<MessageId>().is_err(), "{bad}");
    }
    assert_eq!(InboxId::new(InboxId::new(7).get()), InboxId::new(7));
    assert_eq!(TaskId::new(7).to_string(), "7");
}

// Rule 5: one error, with a stable code and an action.

/// Every error there is, made from what it is made of.
fn every_error() -> Vec<Error> {
    use sprag::KeyError;
    use std::sync::Arc as Cause;
    let cause = || Cause::new(std::io::Error::other("secret/path of alice"));
    let protocol = [
        ProtocolError::Malformed,
        ProtocolError::UnsupportedVersion,
        ProtocolError::UnknownPeer,
        ProtocolError::BadOrigin,
        ProtocolError::UntrustedIdentity,
        ProtocolError::UnlistedDevice,
        ProtocolError::StaleList,
        ProtocolError::ForkedList,
        ProtocolError::UnknownList,
        ProtocolError::ListMismatch,
        ProtocolError::Duplicate,
        ProtocolError::NoSession,
        ProtocolError::UnknownPreKey,
        ProtocolError::ModeRefused,
        ProtocolError::Desynchronised,
        ProtocolError::TooFarAhead,
        ProtocolError::Unreadable,
        ProtocolError::InvalidKey,
        ProtocolError::BadSignature,
        ProtocolError::NeedsBundle,
        ProtocolError::ChainExhausted,
        ProtocolError::BadContent,
        ProtocolError::BadInput,
    ];
    let store = [
        StoreError::Locked { owner: Some(4_711) },
        StoreError::Locked { owner: None },
        StoreError::NotFound,
        StoreError::Exists,
        StoreError::WrongKey,
        StoreError::Key(KeyError::WrongKind),
        StoreError::Key(KeyError::EmptyPassphrase),
        StoreError::Key(KeyError::UnknownSlot),
        StoreError::Key(KeyError::Malformed),
        StoreError::Damaged("a row does not open"),
        StoreError::UnsupportedVersion,
        StoreError::Poisoned,
        StoreError::StoreInUse,
        StoreError::TooLarge,
        StoreError::BadName,
        StoreError::Closed,
        StoreError::Forked,
        StoreError::Full,
        StoreError::Io(cause()),
        StoreError::Backend(cause()),
        StoreError::TimedOut,
        StoreError::Internal("a test"),
        StoreError::RolledBack(Rollback::AnchorGone),
        StoreError::ForeignAnchor,
    ];
    let mut errors: Vec<Error> = protocol.into_iter().map(Error::from).collect();
    errors.extend(store.into_iter().map(Error::from));
    errors.push(SendError::OutboxFull.into());
    errors.push(StepError::Internal("a test").into());
    errors.push(StepError::Exhausted.into());
    errors.push(StepError::NotLinked.into());
    errors.push(StepError::LinkExpired.into());
    for backup in [
        BackupError::Damaged,
        BackupError::Version,
        BackupError::TooLarge,
    ] {
        errors.push(backup.into());
    }
    let dir = tempfile::tempdir().unwrap();
    let key = Key::raw([1; 32]);
    Client::create(dir.path(), key.clone(), "alice")
        .unwrap()
        .close()
        .unwrap();
    errors.push(Client::open_or_create(dir.path(), key.clone(), "bob").unwrap_err());
    let anchor = tempfile::tempdir().unwrap();
    let guarded = Client::options().anchor_file(anchor.path().join("anchor"));
    guarded
        .open(dir.path(), key.clone())
        .unwrap()
        .close()
        .unwrap();
    errors.push(Client::open(dir.path(), key.clone()).unwrap_err());
    // Set back, and without the account's private key.
    let rng = ChaCha20Rng::seed_from_u64(1);
    let store = Store::open(dir.path(), &key, rng).unwrap();
    let name = RowName::plain(1, [0]);
    let mut device = store.get(&name).unwrap().unwrap().to_vec();
    device.truncate(device.len() - 33);
    device.push(0);
    let mut changes = Changes::new();
    changes.put(name, device);
    store.commit_blocking(changes).unwrap();
    store.close().unwrap();
    std::fs::remove_file(anchor.path().join("anchor")).unwrap();
    let anew = Client::options().anchor_file(anchor.path().join("anchor"));
    let anew = anew.after_rollback(AfterRollback::NewDevice);
    errors.push(anew.open(dir.path(), key).unwrap_err());
    errors.extend(errors_of_memories());
    errors
}

/// A place for blobs that fails as it is told.
struct Unreliable(Arc<Mutex<&'static str>>);

impl MemoryBackend for Unreliable {
    fn put(&self, _: &str, _: &[u8]) -> Result<(), PlaceError> {
        match *self.0.lock().unwrap() {
            "away" => Err(PlaceError::unavailable(Broken)),
            "refuses" => Err(PlaceError::refused(Broken)),
            _ => Ok(()),
        }
    }

    fn get(&self, _: &str) -> Result<Option<Vec<u8>>, PlaceError> {
        let lies = *self.0.lock().unwrap() == "lies";
        Ok(lies.then(|| vec![1, 2, 3]))
    }

    fn list(&self, _: Option<&str>) -> Result<Vec<StoredBlob>, PlaceError> {
        Ok(Vec::new())
    }

    fn delete(&self, _: &str) -> Result<(), PlaceError> {
        Ok(())
    }
}

#[derive(Debug)]
struct Broken;

impl std::fmt::Display for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("broken")
    }
}

impl std::error::Error for Broken {}

impl Read for Broken {
    fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
        Err(std::io::Error::other("broken"))
    }
}

impl std::io::Write for Broken {
    fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
        Err(std::io::Error::other("broken"))
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn errors_of_memories() -> Vec<Error> {
    let (alice, _) = client("alice", 40);
    let owner = Owner::new("alice");
    let store = EncryptedMemoryStore::new(&alice, &owner).unwrap();
    let memory = |id: &str| Memory::new("text").id(id);
    let mut errors = vec![
        store.store_memory(&memory("a\nb")).unwrap_err(),
        store.get_memory("nobody").unwrap_err(),
    ];
    store.store_memory(&memory("a")).unwrap();
    errors.push(store.store_memory(&memory("a")).unwrap_err());
    let read = store.get_memory("a").unwrap();
    store.update_memory(&read).unwrap();
    errors.push(store.update_memory(&read).unwrap_err());
    store.delete_memory("a").unwrap();
    errors.push(store.get_memory("a").unwrap_err());
    store.erase_memory("a").unwrap();
    errors.push(store.get_memory("a").unwrap_err());

    let old = alice.encrypt_user_memory(&owner, &memory("b")).unwrap();
    let other = alice.encrypt_user_memory(&owner, &memory("c")).unwrap();
    let new = alice.encrypt_user_memory(&owner, &memory("b")).unwrap();
    let mut damaged = new.blob.clone();
    *damaged.last_mut().unwrap() ^= 1;
    for blob in [&old.blob, &other.blob, &damaged] {
        let error = alice.decrypt_user_memory(&owner, "b", blob).unwrap_err();
        errors.push(error);
    }

    let how = Arc::new(Mutex::new("well"));
    let agent = owner.clone().agent("bot");
    let elsewhere = EncryptedMemoryStore::new(&alice, &agent).unwrap();
    let elsewhere = elsewhere.backend(Unreliable(how.clone()));
    elsewhere.store_memory(&memory("lost")).unwrap();
    errors.push(elsewhere.get_memory("lost").unwrap_err());
    for (what, id) in [("away", "x"), ("refuses", "y"), ("lies", "z")] {
        *how.lock().unwrap() = what;
        errors.push(elsewhere.store_verified(&memory(id)).unwrap_err());
    }
    errors.push(elsewhere.sweep(24 * 3_600_000).unwrap_err());

    let import = |text: &str| store.import(Cursor::new(text.to_owned()), OnConflict::Keep);
    errors.push(import("{}").unwrap_err());
    let newer = "{\"_sprag_export\":9,\"app\":\"sprag\",\"user\":\"alice\",\"agent\":\"\",\"memories\":[],\"chats\":[]}";
    errors.push(import(newer).unwrap_err());
    errors.push(store.export(&mut Broken).unwrap_err());
    let unreadable = alice.attach(Broken, "text/plain", "a.txt");
    errors.push(unreadable.unwrap_err());
    let attachment = alice.attach(&b"text"[..], "text/plain", "a.txt").unwrap();
    let mut changed = attachment.to_bytes().to_vec();
    // Another key.
    for at in 0..changed.len() {
        let mut other = changed.clone();
        other[at] ^= 1;
        if let Ok(other) = Attachment::from_bytes(&other)
            && let Err(error) = alice.open_attachment(&other, &mut Vec::new())
            && error.code() == "attachment_damaged"
        {
            errors.push(error);
            break;
        }
    }
    changed.clear();
    errors
}

/// Those that take too much to come about here: a hundred megabytes, a million records, a later version, a key on its way.
/// Their tests stand beside the code (`fault.rs`, `attach/make.rs`).
const ELSEWHERE: [&str; 4] = [
    "attachment_too_large",
    "key_not_here",
    "record_newer",
    "space_full",
];

#[test]
fn every_code_is_on_the_list_and_every_error_says_what_to_do() {
    let expected: &[(&str, Action)] = &[
        ("malformed", Action::Drop),
        ("unsupported_version", Action::Update),
        ("unknown_peer", Action::Drop),
        ("bad_origin", Action::Drop),
        (
            "untrusted_identity",
            Action::AskUser(Question::AcceptIdentity),
        ),
        ("unlisted_device", Action::Drop),
        ("stale_list", Action::Drop),
        ("forked_list", Action::AskUser(Question::AcceptIdentity)),
        ("unknown_list", Action::Retry),
        ("list_mismatch", Action::AskUser(Question::AcceptIdentity)),
        ("duplicate", Action::Drop),
        ("no_session", Action::Drop),
        ("unknown_pre_key", Action::Drop),
        ("mode_refused", Action::Drop),
        ("desynchronised", Action::Drop),
        ("too_far_ahead", Action::Drop),
        ("unreadable", Action::Drop),
        ("invalid_key", Action::Drop),
        ("bad_signature", Action::Drop),
        ("needs_bundle", Action::Retry),
        ("chain_exhausted", Action::Retry),
        ("bad_content", Action::Drop),
        ("bad_input", Action::FixCall),
        ("outbox_full", Action::Retry),
        ("closed", Action::FixCall),
        ("forked", Action::FixCall),
        ("store_in_use", Action::AskUser(Question::EndOtherProcess)),
        ("timed_out", Action::Retry),
        ("store_poisoned", Action::Reopen),
        ("store_damaged", Action::AskUser(Question::Restore)),
        ("store_full", Action::AskUser(Question::FreeSpace)),
        ("store_failed", Action::Reopen),
        ("store_version", Action::Update),
        ("wrong_key", Action::AskUser(Question::Key)),
        ("key_unreadable", Action::FixCall),
        ("no_profile", Action::FixCall),
        ("profile_exists", Action::FixCall),
        ("other_user", Action::FixCall),
        ("internal", Action::Reopen),
        ("store_rolled_back", Action::AskUser(Question::RolledBack)),
        ("anchor_needed", Action::FixCall),
        ("other_anchor", Action::FixCall),
        ("ids_exhausted", Action::AskUser(Question::Restore)),
        ("backup_damaged", Action::FixCall),
        ("backup_version", Action::Update),
        ("backup_too_large", Action::FixCall),
        ("not_linked", Action::Retry),
        ("link_expired", Action::AskUser(Question::LinkAgain)),
        ("not_holder", Action::AskUser(Question::LinkAgain)),
        ("bad_record", Action::FixCall),
        ("no_record", Action::FixCall),
        ("record_deleted", Action::FixCall),
        ("record_erased", Action::FixCall),
        ("record_exists", Action::FixCall),
        ("write_conflict", Action::FixCall),
        ("blob_stale", Action::Drop),
        ("blob_damaged", Action::Drop),
        ("blob_misplaced", Action::Drop),
        ("blob_missing", Action::Retry),
        ("backend_away", Action::Retry),
        ("backend_refused", Action::FixCall),
        ("backend_lied", Action::FixCall),
        ("log_behind", Action::Retry),
        ("export_damaged", Action::FixCall),
        ("export_version", Action::Update),
        ("input_failed", Action::FixCall),
        ("output_failed", Action::FixCall),
        ("attachment_damaged", Action::Drop),
    ];
    let mut seen = BTreeSet::new();
    for error in every_error() {
        let code = error.code();
        assert!(CODES.contains(&code), "{code} is not on the list");
        let (_, action) = expected.iter().find(|(other, _)| *other == code).unwrap();
        assert_eq!(error.action(), *action, "{code}");
        assert_eq!(error.is_retryable(), *action == Action::Retry, "{code}");
        if error.retry_after().is_some() {
            assert!(error.is_retryable(), "{code}");
        }
        seen.insert(code);
    }
    // Nothing is on the list that nothing returns.
    let elsewhere: BTreeSet<_> = ELSEWHERE.into_iter().collect();
    let unseen = CODES
        .iter()
        .filter(|code| !seen.contains(*code) && !elsewhere.contains(*code));
    let unseen: Vec<_> = unseen.collect();
    assert!(unseen.is_empty(), "{unseen:?}");
    assert_eq!(CODES.iter().collect::<BTreeSet<_>>().len(), CODES.len());
    for code in CODES {
        assert!(
            code.bytes()
                .all(|byte| byte == b'_' || byte.is_ascii_lowercase())
        );
    }
}

#[test]
fn errors_carry_no_user_data() {
    for error in every_error() {
        let shown = error.to_string();
        assert!(!shown.is_empty() && !shown.ends_with('.'), "{shown}");
        assert!(
            !shown.starts_with(char::is_uppercase) || shown.starts_with("KEM"),
            "{shown}"
        );
        for word in ["alice", "bob", "secret", "path"] {
            assert!(!shown.contains(word), "{shown}");
        }
    }
    let (alice, _) = client("alice", 1);
    let error = alice
        .send_encrypted_message("bob\u{7}", b"plaintext")
        .unwrap_err();
    assert_eq!(error.code(), "bad_input");
    for shown in [error.to_string(), format!("{error:?}")] {
        assert!(
            !shown.contains("bob") && !shown.contains("plaintext"),
            "{shown}"
        );
    }
}

#[test]
fn calls_that_cannot_be_right_change_nothing() {
    let (alice, shelf) = client("alice", 1);
    shelf.take_written();
    let long = "u".repeat(256);
    for user in ["", "alice", "tab\there", long.as_str()] {
        let error = alice.send_encrypted_message(user, b"hello").unwrap_err();
        assert_eq!(
            (error.code(), error.action()),
            ("bad_input", Action::FixCall),
            "{user}"
        );
    }
    let large = vec![0; 917_505];
    assert_eq!(
        alice
            .send_encrypted_message("bob", &large)
            .unwrap_err()
            .code(),
        "bad_input"
    );
    assert_eq!(alice.accept("bob").unwrap_err().code(), "needs_bundle");
    assert!(shelf.take_written().is_empty());
    alice.send_encrypted_message("bob", &large[1..]).unwrap();
}

// Rule 6: closed is closed, a fork is refused.

#[test]
fn closed_client_answers_closed_in_every_clone_and_verb() {
    let (alice, _) = client("alice", 1);
    let clone = alice.clone();
    alice.close().unwrap();
    for client in [&alice, &clone] {
        for (name, verb) in every_verb(client) {
            assert_eq!(verb().unwrap_err().code(), "closed", "{name}");
        }
        for (name, result) in further_verbs(client) {
            assert_eq!(result.unwrap_err().code(), "closed", "{name}");
        }
        client.close().unwrap();
    }
}

#[test]
fn close_commits_what_is_lazy_and_lets_the_store_go() {
    let dir = tempfile::tempdir().unwrap();
    let key = Key::raw([1; 32]);
    let alice = Client::create(dir.path(), key.clone(), "alice").unwrap();
    let tasks = alice.tasks().unwrap();
    for task in &tasks {
        alice.done(task.id()).unwrap();
    }
    let clone = alice.clone();
    alice.close().unwrap();
    let again = Client::open(dir.path(), key).unwrap();
    assert!(again.tasks().unwrap().is_empty());
    assert_eq!(clone.tasks().unwrap_err().code(), "closed");
}

#[test]
fn last_clone_that_goes_lets_the_store_go() {
    let dir = tempfile::tempdir().unwrap();
    let key = Key::raw([1; 32]);
    for _ in 0..3 {
        let alice = Client::open_or_create(dir.path(), key.clone(), "alice").unwrap();
        let clone = alice.clone();
        drop(alice);
        let refused = Client::open(dir.path(), key.clone()).unwrap_err();
        assert_eq!(refused.code(), "store_in_use");
        drop(clone);
    }
}

// Rule 3 and 6 under failure: the store breaks.

#[test]
fn nothing_is_released_when_the_commit_fails_and_the_client_is_poisoned() {
    for (fault, code) in [
        (BackendError::Full, "store_full"),
        (BackendError::StoreInUse, "store_in_use"),
        (BackendError::Poisoned, "store_poisoned"),
        (
            BackendError::Io(Arc::new(std::io::Error::other("disk"))),
            "store_failed",
        ),
    ] {
        let mut world = sprag_tests::world::World::new(1);
        let (alice, bob) = (world.join("alice"), world.join("bob"));
        world.send(alice, "bob", b"one");
        world.settle();
        world.send(bob, "alice", b"two");
        world.work(bob);
        let envelope = world.waiting(alice)[0].1.clone();
        let shelf = world.shelf(alice).clone();
        shelf.break_with(fault);
        let error = world
            .client(alice)
            .receive_encrypted_message(&envelope)
            .unwrap_err();
        assert_eq!(error.code(), code);
        for (name, verb) in every_verb(world.client(alice)) {
            let told = verb().unwrap_err().code();
            assert!(told == "store_poisoned" || told == code, "{name}: {told}");
        }
        assert_eq!(
            world.client(alice).close().unwrap_err().code(),
            "store_poisoned"
        );
        // Opened again, everything is as before, and the envelope is taken.
        world.crash(alice);
        world.settle();
        assert_eq!(world.heard(alice), [("bob".to_owned(), b"two".to_vec())]);
    }
}

#[test]
fn result_is_not_there_before_its_commit_is_durable() {
    let mut world = sprag_tests::world::World::new(1);
    let (alice, bob) = (world.join("alice"), world.join("bob"));
    world.send(alice, "bob", b"one");
    world.settle();
    world.send(bob, "alice", b"two");
    world.work(bob);
    let envelope = world.waiting(alice)[0].1.clone();
    let shelf = world.shelf(alice).clone();
    shelf.hold();
    let client = world.client(alice);
    let brief = Duration::from_millis(5);
    let received = client.start().receive_encrypted_message(&envelope);
    let received = received.wait_timeout(brief).unwrap_err();
    let sent = client.start().send_encrypted_message("bob", b"three");
    let sent = sent.wait_timeout(brief).unwrap_err();
    // What others can see of it is held back too: no ciphertext and no plaintext leaves.
    let inbox = client.start().inbox().wait_timeout(brief).unwrap_err();
    let tasks = client.start().tasks().wait_timeout(brief).unwrap_err();
    shelf.release();
    assert_eq!(soon(received).unwrap().messages()[0].bytes(), b"two");
    soon(sent).unwrap();
    assert_eq!(soon(inbox).unwrap().len(), 1);
    assert!(
        soon(tasks)
            .unwrap()
            .iter()
            .any(|task| matches!(task, Task::Deliver { .. }))
    );
}

#[test]
fn failure_reaches_all_who_wait() {
    let (alice, shelf) = client("alice", 1);
    shelf.hold();
    let many: Vec<_> = (0..20)
        .map(|_| alice.start().send_encrypted_message("bob", b"x"))
        .collect();
    let called = Arc::new(AtomicU32::new(0));
    for _ in 0..20 {
        let called = called.clone();
        let pending = alice.start().send_encrypted_message("bob", b"x");
        pending.on_ready(move |result| {
            assert!(result.is_err());
            called.fetch_add(1, Ordering::SeqCst);
        });
    }
    shelf.break_with(BackendError::Full);
    shelf.release();
    for pending in many {
        assert!(soon(pending).is_err());
    }
    let patience = std::iter::repeat_n(Duration::from_millis(10), 2_000);
    for pause in patience {
        if called.load(Ordering::SeqCst) == 20 {
            return;
        }
        thread::sleep(pause);
    }
    panic!("somebody was not told");
}
