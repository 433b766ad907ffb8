//! A profile that was set back while another copy of it may be at work: it goes on as a new device.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::collections::BTreeSet;
use std::fs;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;
use sprag::store::{
    Anchor, AnchorError, AnchorRecord, Changes, FileAnchor, RowName, Rows, Standing, Store,
};
use sprag::{Action, AfterRollback, Client, Event, Key, Question, Task};
use sprag_tests::scene::{KEY, Scene, begun, copy, is_rolled_back};

/// Alice's profile has a copy "clone" of its present state, and is set back to that state itself after more was said.
fn set_back() -> Scene {
    let (mut scene, alice) = begun();
    alice.close().unwrap();
    scene.copy("alice", "clone");
    let alice = scene.guarded("alice", 3).unwrap();
    scene.talk(&alice, "two");
    alice.close().unwrap();
    scene.copy("clone", "alice");
    assert!(is_rolled_back(scene.guarded("alice", 4)));
    scene
}

fn number(client: &Client) -> u32 {
    client.address().unwrap().device().get()
}

fn devices(client: &Client) -> Vec<u32> {
    client.contact("alice").unwrap().unwrap().devices
}

fn is_listed(client: &Client) -> bool {
    let events = client.events(0).unwrap();
    events
        .iter()
        .any(|event| matches!(event.event, Event::Restored { .. }))
}

#[test]
fn a_running_clone_is_unlisted_and_reads_nothing_sent_later_and_contacts_go_on_with_the_new_device()
{
    let mut scene = set_back();
    let clone = Client::options().without_anchor();
    let clone = scene.try_open("clone", 8, clone).unwrap();
    let safety = clone.safety_number("bob").unwrap();
    let (old, mut codes) = (number(&clone), BTreeSet::new());

    let new = scene.decided("alice", 5, AfterRollback::NewDevice).unwrap();
    assert_ne!(number(&new), old);
    assert!(matches!(new.anchor().unwrap(), Standing::InReach { .. }));
    // Before the server took its list it sends nothing; and then it is alone on it.
    let refused = new.send_encrypted_message("bob", b"?").unwrap_err();
    assert_eq!(refused.code(), "unlisted_device");
    scene.settle(&new);
    assert!(is_listed(&new));
    assert_eq!(devices(&new), [number(&new)]);
    assert_eq!(new.safety_number("bob").unwrap(), safety);
    scene.talk(&new, "three");
    let bob = scene.bob.clone();
    assert_eq!(devices(&bob), [number(&new)]);

    assert!(!scene.seeds_repeat(), "the old sessions were used");

    // What bob says from here on does not come to the clone, and what the clone says is not believed.
    scene.send(&bob, "alice", "a secret");
    scene.send(&clone, "bob", "from the clone");
    for _ in 0..4 {
        for client in [&bob, &clone, &new] {
            scene.work(client);
            codes.extend(scene.poll(client));
        }
    }
    scene.settle(&new);
    assert_eq!(Scene::heard(&new), ["a secret"]);
    assert!(Scene::heard(&clone).is_empty());
    assert!(Scene::heard(&bob).is_empty());
    assert!(codes.contains("unlisted_device"), "{codes:?}");
    scene.talk(&new, "four");
    new.close().unwrap();
    let new = scene.guarded("alice", 6).unwrap();
    scene.talk(&new, "five");
    // The clone did use them.
    assert!(scene.seeds_repeat());
    scene.check_nonces();
}

#[test]
fn unread_messages_and_events_stay_and_unsent_ones_are_told_and_nothing_else_is_left() {
    let (mut scene, alice) = begun();
    let bob = scene.bob.clone();
    scene.send(&bob, "alice", "unread");
    scene.settle(&alice);
    let unread = alice.inbox().unwrap();
    assert_eq!(unread.len(), 1);
    let unsent: Vec<_> = (0..130)
        .map(|_| alice.send_encrypted_message("bob", b"unsent").unwrap())
        .collect();
    let stuck: BTreeSet<_> = alice
        .tasks()
        .unwrap()
        .iter()
        .map(|task| task.id())
        .collect();
    assert!(stuck.len() > 100);
    let events = alice.events(0).unwrap();
    let before = number(&alice);
    alice.close().unwrap();
    scene.copy("alice", "clone");
    scene.guarded("alice", 3).unwrap().close().unwrap();
    let (device, keys) = secrets(&scene, "clone");
    assert!(keys > 20);

    let new = scene.decided("clone", 4, AfterRollback::NewDevice).unwrap();
    assert_ne!(number(&new), before);
    let told = new.events(0).unwrap();
    assert_eq!(told[..events.len()], events);
    let told = &told[events.len()..];
    assert!(told.iter().all(|event| event.number > 1 << 32));
    assert!(matches!(told[0].event, Event::SetBack { .. }));
    let reported: Vec<_> = told[1..]
        .iter()
        .flat_map(|event| match &event.event {
            Event::NotSent { messages, .. } => messages.clone(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(reported, unsent);
    for id in unsent {
        assert_eq!(new.status(id).unwrap(), None);
    }
    for task in new.tasks().unwrap() {
        assert!(
            !stuck.contains(&task.id()),
            "a task has the number of another"
        );
    }
    new.close().unwrap();
    let (after, keys) = secrets(&scene, "clone");
    assert_eq!(keys, 0, "keys of the old device are left");
    assert_ne!(after.0, device.0, "the identity key is the same");
    assert_eq!(after.1, device.1, "the account key is another one");

    let new = scene.guarded("clone", 6).unwrap();
    let again = new.inbox().unwrap();
    assert_eq!(again, unread);
    new.acknowledge(again[0].id()).unwrap();
    assert!(new.inbox().unwrap().is_empty());
    scene.settle(&new);
    scene.talk(&new, "two");
    scene.check_nonces();
}

type Pair = (Vec<u8>, Vec<u8>);

/// Identity key and account key of a profile that nobody has open, and how many rows of prekeys, sessions, kept frames,
/// received salts, and the outbox it has.
fn secrets(scene: &Scene, name: &str) -> (Pair, usize) {
    let key = Key::raw(KEY);
    let store = Store::open(scene.path(name), &key, ChaCha20Rng::seed_from_u64(1)).unwrap();
    let device = store.get(&RowName::plain(1, [0])).unwrap().unwrap();
    let (rest, account) = device.split_at(device.len() - 33 - 33);
    let identity = rest[rest.len() - 32..].to_vec();
    let mut count = 0;
    for table in [0x02, 0x03, 0x04, 0x05]
        .into_iter()
        .chain(0x11..=0x14)
        .chain(0x31..=0x35)
        .chain(0x40..=0x46)
    {
        store
            .scan(&RowName::plain(table, []), &mut |_, _| {
                count += 1;
                ControlFlow::Continue(())
            })
            .unwrap();
    }
    let pair = (identity, account.to_vec());
    store.close().unwrap();
    (pair, count)
}

#[test]
fn a_device_without_the_account_key_is_refused_and_nothing_is_changed() {
    let (mut scene, alice) = begun();
    let address = alice.address().unwrap();
    alice.close().unwrap();
    take_account_key(&scene, "alice");
    scene.copy("alice", "copy");
    scene.guarded("alice", 3).unwrap().close().unwrap();
    for decision in [AfterRollback::NewDevice, AfterRollback::NewDeviceBesideOld] {
        let refused = scene.decided("copy", 4, decision).unwrap_err();
        assert_eq!(refused.code(), "not_holder");
        assert_eq!(refused.action(), Action::AskUser(Question::LinkAgain));
        assert!(sprag::CODES.contains(&refused.code()));
    }
    assert!(is_rolled_back(scene.guarded("copy", 5)));
    // It was not renewed either.
    assert!(scene.path("copy/epoch-00000001").exists());
    let same = scene.anew("copy", 6);
    assert_eq!(same.address().unwrap(), address);
    scene.talk(&same, "two");
}

/// As devices are that were linked without being holders.
fn take_account_key(scene: &Scene, name: &str) {
    let key = Key::raw(KEY);
    let store = Store::open(scene.path(name), &key, ChaCha20Rng::seed_from_u64(1)).unwrap();
    let name = RowName::plain(1, [0]);
    let mut device = store.get(&name).unwrap().unwrap().to_vec();
    device.truncate(device.len() - 33);
    device.push(0);
    let mut changes = Changes::new();
    changes.put(name, device);
    store.commit_blocking(changes).unwrap();
    store.close().unwrap();
}

/// An anchor before and after each of whose calls the machine may die: then what it had on its disk is kept.
struct Mortal {
    file: FileAnchor,
    profile: PathBuf,
    found: PathBuf,
    dies: usize,
    moments: AtomicUsize,
}

impl Mortal {
    fn moment(&self) {
        if self.moments.fetch_add(1, Ordering::SeqCst) == self.dies {
            copy(&self.profile, &self.found);
            fs::copy(self.file.path(), self.found.with_extension("anchor")).unwrap();
        }
    }
}

impl Anchor for Mortal {
    fn read(&self) -> Result<Option<AnchorRecord>, AnchorError> {
        self.moment();
        let read = self.file.read();
        self.moment();
        read
    }

    fn write(&self, record: &AnchorRecord) -> Result<(), AnchorError> {
        self.moment();
        let written = self.file.write(record);
        self.moment();
        written
    }
}

#[test]
fn a_machine_that_dies_at_any_step_has_the_old_device_or_a_new_one_and_ends_with_one_that_talks() {
    let (mut asked, mut opened) = (0, 0);
    for dies in 0.. {
        let mut scene = set_back();
        let old = devices(&scene.bob.clone());
        let mortal = Mortal {
            file: FileAnchor::new(scene.path("anchor")),
            profile: scene.path("alice"),
            found: scene.path("found"),
            dies,
            moments: AtomicUsize::new(0),
        };
        let options = Client::options().anchor(mortal);
        let options = options.after_rollback(AfterRollback::NewDevice);
        // It dies: nothing that it did after that moment is there, and it did nothing at the server.
        drop(scene.try_open("alice", 5, options).unwrap());
        if !scene.path("found").exists() {
            break;
        }
        scene.copy("found", "alice");
        fs::copy(scene.path("found.anchor"), scene.path("anchor")).unwrap();
        let alice = match scene.guarded("alice", 6) {
            Ok(alice) => {
                opened += 1;
                alice
            }
            refused => {
                assert!(is_rolled_back(refused), "{dies}");
                asked += 1;
                scene.decided("alice", 7, AfterRollback::NewDevice).unwrap()
            }
        };
        assert!(!old.contains(&number(&alice)), "{dies}");
        scene.settle(&alice);
        assert!(is_listed(&alice), "{dies}");
        assert_eq!(devices(&alice), [number(&alice)], "{dies}");
        scene.talk(&alice, "alive");
        assert!(!scene.seeds_repeat(), "{dies}");
        scene.check_nonces();
    }
    assert!(asked >= 4 && opened >= 2, "{asked} {opened}");
}

/// An anchor that is out of reach once the profile was found to be set back.
struct Once(FileAnchor, AtomicBool);

impl Anchor for Once {
    fn read(&self) -> Result<Option<AnchorRecord>, AnchorError> {
        if self.1.swap(true, Ordering::SeqCst) {
            let cause = std::io::Error::from(std::io::ErrorKind::BrokenPipe);
            return Err(AnchorError::unreachable(cause));
        }
        self.0.read()
    }

    fn write(&self, _: &AnchorRecord) -> Result<(), AnchorError> {
        panic!("nothing was read before this")
    }
}

#[test]
fn each_decision_makes_another_device_and_takes_off_those_that_were_given_up() {
    let mut scene = set_back();
    scene.copy("alice", "second");
    let once = Once(
        FileAnchor::new(scene.path("anchor")),
        AtomicBool::new(false),
    );
    let options = Client::options().anchor(once);
    let options = options.after_rollback(AfterRollback::NewDevice);
    let first = scene.try_open("alice", 5, options).unwrap();
    assert_eq!(first.anchor().unwrap(), Standing::OutOfReach);
    let mut numbers = BTreeSet::from([number(&first)]);
    let mut tasks: BTreeSet<_> = first
        .tasks()
        .unwrap()
        .iter()
        .map(|task| task.id())
        .collect();
    drop(first);

    // The anchor heard nothing of it: it is asked again. The one that never was listed gives up its number as well, and
    // a generator that draws the same once more does not bring it back.
    assert!(is_rolled_back(scene.guarded("alice", 6)));
    let next = scene.decided("alice", 5, AfterRollback::NewDevice).unwrap();
    assert!(numbers.insert(number(&next)));
    for task in next.tasks().unwrap() {
        assert!(tasks.insert(task.id()), "a task has the number of another");
    }
    scene.settle(&next);
    assert_eq!(devices(&next), [number(&next)]);
    scene.talk(&next, "three");
    next.close().unwrap();

    // So does another copy of the first state. It takes off its own old number, and no other.
    let other = scene
        .decided("second", 8, AfterRollback::NewDevice)
        .unwrap();
    assert!(numbers.insert(number(&other)));
    for task in other.tasks().unwrap() {
        assert!(tasks.insert(task.id()), "a task has the number of another");
    }
    scene.settle(&other);
    assert_eq!(numbers.len(), 3);
    assert_eq!(devices(&other).len(), 2);
    scene.talk(&other, "four");
    assert!(!scene.seeds_repeat());
    scene.check_nonces();
}

#[test]
fn the_old_number_stays_listed_if_the_user_wants_both() {
    let mut scene = set_back();
    let old = Client::options().without_anchor();
    let old = scene.try_open("clone", 8, old).unwrap();
    let beside = AfterRollback::NewDeviceBesideOld;
    let new = scene.decided("alice", 5, beside).unwrap();
    scene.settle(&new);
    let both: BTreeSet<_> = devices(&new).into_iter().collect();
    assert_eq!(both, BTreeSet::from([number(&old), number(&new)]));
    scene.talk(&new, "three");
    let bob = scene.bob.clone();
    scene.send(&bob, "alice", "to both");
    scene.settle(&new);
    assert_eq!(Scene::heard(&new), ["to both"]);
    scene.check_nonces();
}

#[test]
fn attachment_that_was_on_its_way_goes_to_the_server_from_the_new_device_too() {
    let (mut scene, alice) = begun();
    let picture = alice.attach(&b"picture"[..], "image/png", "cat.png");
    let picture = picture.unwrap();
    let is_put = |task: &Task| matches!(task, Task::PutBlob { .. });
    assert!(alice.tasks().unwrap().iter().any(is_put));
    alice.close().unwrap();
    scene.copy("alice", "clone");
    // It is set back from a state in which the server did not have it.
    let alice = scene.guarded("alice", 3).unwrap();
    scene.send(&alice, "bob", "two");
    alice.close().unwrap();
    scene.copy("clone", "alice");
    let beside = AfterRollback::NewDeviceBesideOld;
    let new = scene.decided("alice", 5, beside).unwrap();
    assert_eq!(new.attachment_parts(&picture).unwrap().leaving, 1);
    scene.settle(&new);
    assert_eq!(new.attachment_parts(&picture).unwrap().leaving, 0);
    let mut bytes = Vec::new();
    new.open_attachment(&picture, &mut bytes).unwrap();
    scene.settle(&new);
    new.open_attachment(&picture, &mut bytes).unwrap();
    assert_eq!(bytes, b"picture");
}
