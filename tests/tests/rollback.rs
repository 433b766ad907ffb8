//! Profiles that are copied and set back: what the guard sees at open, what peers see, and that never two messages are
//! made under one key and nonce.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::collections::BTreeSet;
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};

use sprag::store::{Anchor, AnchorError, AnchorRecord, FileAnchor, Standing};
use sprag::{Action, AfterRollback, Client, Error, Event, Question};
use sprag_tests::scene::{Scene, begun, is_rolled_back};

#[test]
fn copy_made_while_closed_is_seen_at_open_and_peers_see_nothing_of_it() {
    let (mut scene, alice) = begun();
    alice.close().unwrap();
    scene.copy("alice", "copy");
    let alice = scene.guarded("alice", 3).unwrap();
    scene.talk(&alice, "two");
    alice.close().unwrap();

    let sent = scene.witness.frames();
    for _ in 0..2 {
        assert!(is_rolled_back(scene.guarded("copy", 4)));
    }
    // The one that is not set back opens as ever.
    let alice = scene.guarded("alice", 5).unwrap();
    scene.talk(&alice, "three");
    alice.close().unwrap();
    assert!(scene.witness.frames() > sent);

    // Without a decision nothing was changed; with it, it goes on, heals, and is the one that the anchor knows.
    let restored = scene.anew("copy", 1);
    let events = restored.events(0).unwrap();
    assert!(
        events
            .iter()
            .any(|event| matches!(event.event, Event::SetBack { .. }))
    );
    scene.talk(&restored, "four");
    scene.talk(&restored, "five");
    restored.close().unwrap();
    assert!(is_rolled_back(scene.guarded("alice", 6)));
    let restored = scene.guarded("copy", 7).unwrap();
    scene.talk(&restored, "six");
    assert!(!scene.seeds_repeat(), "the old sessions were used");
    scene.check_nonces();
}

#[test]
fn copy_made_while_closed_and_never_guarded_is_seen_by_peers_and_heals() {
    let mut scene = Scene::open();
    let alice = scene.try_open("alice", 1, Client::options()).unwrap();
    scene.settle(&alice);
    scene.talk(&alice, "one");
    alice.close().unwrap();
    scene.copy("alice", "copy");
    // The same generator draws the same before and after.
    let alice = scene.try_open("alice", 3, Client::options()).unwrap();
    scene.talk(&alice, "two");
    alice.close().unwrap();
    let copy = scene.try_open("copy", 3, Client::options()).unwrap();
    assert_eq!(copy.anchor().unwrap(), Standing::Unguarded);
    peers_see_and_heal(&mut scene, &copy);
}

/// A state that is in use again after it was: bob refuses what is made with keys that he saw, asks again, and hears all.
fn peers_see_and_heal(scene: &mut Scene, copy: &Client) {
    scene.codes.clear();
    scene.send(copy, "bob", "again from alice");
    scene.settle(copy);
    let codes = scene.codes.clone();
    assert!(
        codes.contains(&"duplicate") || codes.contains(&"unreadable"),
        "{codes:?}"
    );
    scene.talk(copy, "healed");
    assert!(
        scene.seeds_repeat(),
        "nothing was used twice: the test tests nothing"
    );
    scene.check_nonces();
}

#[test]
fn copy_made_while_open_is_seen_at_open_after_a_watermark_a_close_or_another_open() {
    for after in ["watermark", "close", "open"] {
        let (mut scene, alice) = begun();
        scene.copy("alice", "copy");
        scene.talk(&alice, "two");
        match after {
            "watermark" => drop(alice.check_anchor().unwrap()),
            "close" => alice.close().unwrap(),
            _ => {
                alice.close().unwrap();
                scene.guarded("alice", 3).unwrap().close().unwrap();
            }
        }
        assert!(is_rolled_back(scene.guarded("copy", 4)), "{after}");
        let restored = scene.anew("copy", 1);
        scene.talk(&restored, "three");
        assert!(!scene.seeds_repeat(), "{after}");
        scene.check_nonces();
    }
}

#[test]
fn copy_made_while_open_and_younger_than_the_watermark_is_seen_by_peers_alone() {
    let mut scene = Scene::open();
    let line = scene.line();
    let options = || Client::options().anchor(line.clone());
    let alice = scene.try_open("alice", 1, options()).unwrap();
    scene.settle(&alice);
    scene.talk(&alice, "one");
    alice.check_anchor().unwrap();
    // From here on the machine tells its anchor nothing: it is about to die.
    line.cut.store(true, Ordering::SeqCst);
    scene.copy("alice", "copy");
    alice.close().unwrap();
    let dying = scene.try_open("alice", 3, options()).unwrap();
    assert_eq!(dying.anchor().unwrap(), Standing::OutOfReach);
    let away = dying.events(0).unwrap();
    assert!(matches!(away.last().unwrap().event, Event::AnchorAway));
    scene.talk(&dying, "two");
    dying.close().unwrap();
    let copy = scene.guarded("copy", 3).unwrap();
    assert!(matches!(copy.anchor().unwrap(), Standing::InReach { .. }));
    peers_see_and_heal(&mut scene, &copy);
    // The anchor knows the copy now; what died in between is the one that is set back.
    copy.close().unwrap();
    assert!(is_rolled_back(scene.guarded("alice", 5)));
}

#[test]
fn machine_set_back_with_its_anchor_is_seen_by_peers_alone() {
    let (mut scene, alice) = begun();
    alice.close().unwrap();
    scene.copy("alice", "image");
    fs::copy(scene.path("anchor"), scene.path("anchor.image")).unwrap();
    let alice = scene.guarded("alice", 3).unwrap();
    scene.talk(&alice, "two");
    alice.close().unwrap();
    scene.copy("image", "alice");
    fs::copy(scene.path("anchor.image"), scene.path("anchor")).unwrap();
    // Its generator is set back as well.
    let alice = scene.guarded("alice", 3).unwrap();
    assert!(matches!(alice.anchor().unwrap(), Standing::InReach { .. }));
    peers_see_and_heal(&mut scene, &alice);
}

#[test]
fn running_clone_takes_the_anchor_and_the_first_is_stopped_within_256_commits() {
    let (mut scene, alice) = begun();
    alice.check_anchor().unwrap();
    scene.copy("alice", "clone");
    let clone = scene.guarded("clone", 8).unwrap();
    // Both send from one state.
    scene.send(&clone, "bob", "from the clone");
    scene.send(&alice, "bob", "from the first");
    scene.work(&clone);
    scene.work(&alice);
    let bob = scene.bob.clone();
    scene.poll(&bob);
    scene.work(&bob);
    let heard = Scene::heard(&bob);
    assert_eq!(heard.len(), 1, "{heard:?}");
    assert!(scene.codes.contains(&"duplicate") || scene.codes.contains(&"unreadable"));
    assert!(scene.seeds_repeat());
    scene.check_nonces();

    let mut stopped = None;
    for sent in 0..1_000 {
        match alice.send_encrypted_message("bob", b"still here") {
            Ok(_) => {}
            Err(error) => {
                assert_eq!(error.code(), "store_rolled_back");
                assert_eq!(error.action(), Action::AskUser(Question::RolledBack));
                stopped = Some(sent);
                break;
            }
        }
    }
    // The guard's thread is woken by the commit; whoever commits does not wait for it.
    assert!(stopped.unwrap() <= 256 + 64, "{stopped:?}");
    for refused in [
        alice.tasks().map(drop),
        alice.inbox().map(drop),
        alice.check_anchor().map(drop),
    ] {
        assert_eq!(refused.unwrap_err().code(), "store_rolled_back");
    }
    drop(alice.close());
    assert!(is_rolled_back(scene.guarded("alice", 9)));
    scene.settle(&clone);
    scene.talk(&clone, "clone");
    scene.check_nonces();
}

#[test]
fn anchor_that_is_gone_is_an_alarm_and_one_that_is_out_of_reach_is_told() {
    let (mut scene, alice) = begun();
    fs::remove_file(scene.path("anchor")).unwrap();
    assert_eq!(
        alice.check_anchor().unwrap_err().code(),
        "store_rolled_back"
    );
    drop(alice);
    assert!(is_rolled_back(scene.guarded("alice", 2)));
    let alice = scene.anew("alice", 3);
    scene.talk(&alice, "two");
    alice.close().unwrap();

    let line = scene.line();
    line.cut.store(true, Ordering::SeqCst);
    let options = Client::options().anchor(line.clone());
    let alice = scene.try_open("alice", 4, options).unwrap();
    assert_eq!(alice.anchor().unwrap(), Standing::OutOfReach);
    let told = alice.events(0).unwrap().last().unwrap().clone();
    assert!(matches!(told.event, Event::AnchorAway));
    assert!(alice.events(told.number).unwrap().is_empty());
    scene.talk(&alice, "three");
    line.cut.store(false, Ordering::SeqCst);
    assert!(matches!(
        alice.check_anchor().unwrap(),
        Standing::InReach { .. }
    ));
    let back = alice.events(told.number).unwrap();
    assert!(matches!(back[..], [ref back] if matches!(back.event, Event::AnchorBack)));
}

#[test]
fn guarded_profile_opens_with_its_own_anchor_or_when_the_guard_is_ended() {
    let scene = Scene::open();
    let code = |outcome: Result<Client, Error>| outcome.unwrap_err().code();
    scene.guarded("alice", 1).unwrap().close().unwrap();
    let plain = scene.try_open("alice", 2, Client::options());
    assert_eq!(code(plain), "anchor_needed");
    // Another profile's anchor, and a file that is none, stay as they are.
    let anchor = fs::read(scene.path("anchor")).unwrap();
    assert_eq!(code(scene.guarded("other", 3)), "other_anchor");
    assert!(!scene.path("other").exists());
    let other = |file: &str| Client::options().anchor_file(scene.path(file));
    scene
        .try_open("other", 4, other("anchor2"))
        .unwrap()
        .close()
        .unwrap();
    assert_eq!(
        code(scene.try_open("other", 5, other("anchor"))),
        "other_anchor"
    );
    let decided = other("anchor").after_rollback(AfterRollback::NewSessions);
    assert_eq!(code(scene.try_open("other", 5, decided)), "other_anchor");
    assert_eq!(fs::read(scene.path("anchor")).unwrap(), anchor);
    fs::write(scene.path("diary"), b"dear diary").unwrap();
    assert_eq!(
        code(scene.try_open("other", 6, other("diary"))),
        "other_anchor"
    );
    assert_eq!(fs::read(scene.path("diary")).unwrap(), b"dear diary");
    // An anchor inside of the profile guards nothing.
    for inside in ["alice/anchor", "alice/../alice/anchor"] {
        assert_eq!(code(scene.try_open("alice", 7, other(inside))), "bad_input");
    }
    // A directory that is not there is out of reach, not gone.
    let away = scene.try_open("alice", 8, other("stick/anchor")).unwrap();
    assert_eq!(away.anchor().unwrap(), Standing::OutOfReach);
    away.close().unwrap();
    let ended = Client::options().without_anchor();
    scene.try_open("alice", 9, ended).unwrap().close().unwrap();
    scene.try_open("alice", 10, Client::options()).unwrap();
}

/// An anchor that answers once and then no more: whoever asked it dies, as far as it is concerned.
struct Once(FileAnchor, AtomicBool);

impl Anchor for Once {
    fn read(&self) -> Result<Option<AnchorRecord>, AnchorError> {
        if self.1.swap(true, Ordering::SeqCst) {
            return Err(AnchorError::unreachable(std::io::Error::from(
                std::io::ErrorKind::BrokenPipe,
            )));
        }
        self.0.read()
    }

    fn write(&self, _: &AnchorRecord) -> Result<(), AnchorError> {
        panic!("nothing was read before this")
    }
}

#[test]
fn decision_that_the_anchor_does_not_hear_of_is_safe_already_and_asked_for_again() {
    let (mut scene, alice) = begun();
    alice.close().unwrap();
    scene.copy("alice", "copy");
    scene.guarded("alice", 3).unwrap().close().unwrap();
    let once = Once(
        FileAnchor::new(scene.path("anchor")),
        AtomicBool::new(false),
    );
    let options = Client::options().anchor(once);
    let options = options.after_rollback(AfterRollback::NewSessions);
    let restored = scene.try_open("copy", 4, options).unwrap();
    assert_eq!(restored.anchor().unwrap(), Standing::OutOfReach);
    // What it does from here on is safe.
    scene.talk(&restored, "two");
    restored.close().unwrap();
    assert!(is_rolled_back(scene.guarded("copy", 5)));
    let restored = scene.anew("copy", 6);
    scene.talk(&restored, "three");
    assert!(!scene.seeds_repeat());
    scene.check_nonces();
}

#[test]
fn copy_that_is_set_back_twice_gives_no_id_twice() {
    let (mut scene, alice) = begun();
    alice.close().unwrap();
    scene.copy("alice", "first");
    scene.copy("alice", "second");
    let alice = scene.guarded("alice", 3).unwrap();
    alice.close().unwrap();
    let mut tasks = BTreeSet::new();
    let mut events = BTreeSet::new();
    for (name, seed) in [("first", 11), ("second", 12)] {
        let restored = scene.anew(name, seed);
        for task in restored.tasks().unwrap() {
            assert!(tasks.insert(task.id()), "a task has the number of another");
        }
        let event = restored.events(0).unwrap().last().unwrap().number;
        assert!(events.insert(event), "an event has the number of another");
        // `work` looks at the ids of prekeys.
        scene.talk(&restored, name);
        restored.close().unwrap();
    }
    scene.check_nonces();
}
