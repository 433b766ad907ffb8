//! Two devices that have lost each other lay their reports side by side: each cause is told from the others.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use sprag::store::{RowName, Rows, Staged};
use sprag::{Diagnosis, Finding, Report, Side, Task};
use sprag_session::What;
use sprag_tests::world::{Weather, Who, World};

const DAY: u64 = 86_400_000;

fn friends(seed: u64) -> (World, Who, Who) {
    let mut world = World::new(seed);
    let (alice, bob) = (world.join("alice"), world.join("bob"));
    world.send(alice, "bob", b"hello");
    world.settle();
    world.send(bob, "alice", b"hello yourself");
    world.settle();
    (world, alice, bob)
}

fn report(world: &World, who: Who) -> Report {
    let report = world.client(who).report().unwrap();
    let bytes = report.encode();
    assert_eq!(Report::parse(&bytes).unwrap(), report);
    report
}

/// Alice's beside Bob's. The other way round says the same of the other sides.
fn diagnose(world: &World, alice: Who, bob: Who) -> Diagnosis {
    let (a, b) = (report(world, alice), report(world, bob));
    let (there, back) = (a.diagnose(&b), b.diagnose(&a));
    assert_eq!(there.frames, back.frames);
    assert_eq!(there.findings.len(), back.findings.len());
    there
}

fn delete_table(rows: &mut Staged<'_>, table: u8, peer: &sprag::DeviceAddress) {
    let user = peer.user().as_str().as_bytes();
    let mut owner = vec![u8::try_from(user.len()).unwrap()];
    owner.extend_from_slice(user);
    owner.extend_from_slice(&peer.device().get().to_be_bytes());
    let prefix = RowName::owned(table, owner, Vec::new());
    let mut found = Vec::new();
    rows.scan(&prefix, &mut |suffix, _| {
        found.push(suffix.to_vec());
        std::ops::ControlFlow::Continue(())
    })
    .unwrap();
    for suffix in found {
        rows.delete(prefix.join(&suffix));
    }
}

/// Bob loses what he knows of his sessions with Alice.
fn lose_sessions(world: &mut World, bob: Who, alice: Who) {
    let peer = world.address(alice).clone();
    world.edit_rows(bob, |rows| {
        for table in [0x11, 0x12, 0x13] {
            delete_table(rows, table, &peer);
        }
    });
}

#[test]
fn two_who_lost_nothing_agree_on_all_frames() {
    let (mut world, alice, bob) = friends(1);
    world.set_weather(Weather::ROUGH);
    for round in 0..40_u8 {
        world.send(alice, "bob", &[round]);
        world.send(bob, "alice", &[round]);
        if round % 5 == 0 {
            world.work(alice);
            world.work(bob);
            world.poll(alice);
            world.poll(bob);
        }
    }
    world.settle();
    let diagnosis = diagnose(&world, alice, bob);
    assert_eq!(diagnosis.findings, []);
    assert_eq!(diagnosis.clocks, None);
    assert!(diagnosis.frames >= 82);
    let sentence = format!("the two agree on all {} frames", diagnosis.frames);
    assert_eq!(diagnosis.to_string(), sentence);
}

#[test]
fn lost_frames_are_told_with_their_place_and_apart_from_those_on_the_way() {
    let (mut world, alice, bob) = friends(2);
    world.wait(DAY);
    let at = world.now();
    for _ in 0..3 {
        world.send(alice, "bob", b"into the void");
    }
    world.work(alice);
    for (id, _) in world.waiting(bob) {
        world.forget(bob, &id);
    }
    // Nothing came after them yet: nobody can know.
    let diagnosis = diagnose(&world, alice, bob);
    let Finding::NotArrived {
        sender: Side::A,
        frames: 3,
        place,
        ..
    } = diagnosis.findings[0]
    else {
        panic!("{diagnosis:?}");
    };
    assert_eq!((place.at, place.number), (at, 0));

    world.send(alice, "bob", b"this one comes");
    world.settle();
    let diagnosis = diagnose(&world, alice, bob);
    let Finding::Lost {
        sender: Side::A,
        frames: 3,
        place,
        ..
    } = diagnosis.findings[0]
    else {
        panic!("{diagnosis:?}");
    };
    assert_eq!((place.at, place.chain, place.number), (at, 1, 0));
    let sentence = diagnosis.to_string();
    assert!(
        sentence.starts_with("B never received 3 frames that A handed over from 2023-11-15"),
        "{sentence}"
    );
    assert!(sentence.contains("from number 0 of chain 1"), "{sentence}");
}

#[test]
fn what_the_transport_never_took_waits_at_its_sender() {
    let (mut world, alice, bob) = friends(3);
    world.send(bob, "alice", b"one");
    world.send(bob, "alice", b"two");
    let diagnosis = diagnose(&world, alice, bob);
    assert!(matches!(
        diagnosis.findings[..],
        [Finding::NotHandedOver {
            sender: Side::B,
            frames: 2,
            ..
        }]
    ));
    assert!(
        diagnosis
            .to_string()
            .starts_with("2 frames of B still wait")
    );
}

#[test]
fn lost_sessions_are_told_with_when_they_healed() {
    let (mut world, alice, bob) = friends(4);
    world.wait(DAY);
    lose_sessions(&mut world, bob, alice);
    world.send(alice, "bob", b"do you know me?");
    world.work(alice);
    world.poll(bob);
    let diagnosis = diagnose(&world, alice, bob);
    let Finding::LostSession {
        side: Side::B,
        frames: 1,
        healed_at: None,
        place,
        ..
    } = diagnosis.findings[0]
    else {
        panic!("{diagnosis:?}");
    };
    assert_eq!((place.chain, place.number), (1, 0));
    assert!(diagnosis.to_string().ends_with("has no fresh session yet"));
    world.settle();
    let diagnosis = diagnose(&world, alice, bob);
    assert!(matches!(
        diagnosis.findings[0],
        Finding::LostSession {
            side: Side::B,
            healed_at: Some(_),
            ..
        }
    ));
    assert!(
        diagnosis
            .to_string()
            .contains("and healed with a fresh session at 2023-11-15"),
        "{diagnosis}"
    );
    assert_eq!(world.heard(bob).last().unwrap().1, b"do you know me?");
}

#[test]
fn missing_prekeys_are_no_lost_session() {
    let (mut world, alice, bob) = friends(5);
    world.client(alice).reset("bob").unwrap();
    world.send(alice, "bob", b"on a new session");
    world.work(alice);
    world.edit_rows(bob, |rows| {
        for table in [2, 3, 4] {
            let prefix = RowName::plain(table, Vec::new());
            let mut found = Vec::new();
            rows.scan(&prefix, &mut |suffix, _| {
                found.push(suffix.to_vec());
                std::ops::ControlFlow::Continue(())
            })
            .unwrap();
            for suffix in found {
                rows.delete(prefix.join(&suffix));
            }
        }
    });
    world.poll(bob);
    let diagnosis = diagnose(&world, alice, bob);
    assert!(
        matches!(
            diagnosis.findings[0],
            Finding::PreKeysGone { side: Side::B, .. }
        ),
        "{diagnosis:?}"
    );
    assert!(
        diagnosis
            .to_string()
            .starts_with("B did not have the prekey any more that A used"),
        "{diagnosis}"
    );
}

#[test]
fn a_store_that_went_back_is_told_and_whether_a_key_was_used_twice() {
    let (mut world, alice, bob) = friends(6);
    world.send(alice, "bob", b"kept");
    world.settle();
    let old = world.shelf(alice).after_power_cut();
    for text in [&b"forgotten"[..], b"too"] {
        world.send(alice, "bob", text);
    }
    world.settle();
    world.set_back(alice, old);
    let diagnosis = diagnose(&world, alice, bob);
    let Finding::WentBack {
        side: Side::A,
        twice: false,
        place,
        ..
    } = diagnosis.findings[0]
    else {
        panic!("{diagnosis:?}");
    };
    world.send(alice, "bob", b"the same place again");
    let diagnosis = diagnose(&world, alice, bob);
    let Finding::WentBack {
        side: Side::A,
        twice: true,
        place: again,
        ..
    } = diagnosis.findings[0]
    else {
        panic!("{diagnosis:?}");
    };
    assert_eq!(place, again);
    assert!(
        diagnosis
            .to_string()
            .starts_with("the state of A went back to an older copy: it sent number"),
        "{diagnosis}"
    );
}

#[test]
fn a_receiver_that_went_back_is_told_by_the_receipts_that_it_gave() {
    let (mut world, alice, bob) = friends(7);
    let old = world.shelf(bob).after_power_cut();
    world.send(alice, "bob", b"forgotten");
    world.settle();
    world.send(bob, "alice", b"I have read that");
    world.settle();
    world.set_back(bob, old);
    let diagnosis = diagnose(&world, alice, bob);
    assert!(
        matches!(
            diagnosis.findings[0],
            Finding::WentBack { side: Side::B, .. }
        ),
        "{diagnosis:?}"
    );
}

#[test]
fn a_wrong_clock_is_told_beside_the_rest() {
    let mut world = World::new(8);
    let alice = world.join("alice");
    world.set_clock_wrong("bob", -3 * i64::try_from(DAY).unwrap());
    let bob = world.join("bob");
    world.send(alice, "bob", b"hello");
    world.settle();
    world.send(bob, "alice", b"hello yourself");
    world.settle();
    let diagnosis = diagnose(&world, alice, bob);
    assert_eq!(diagnosis.findings, []);
    let clocks = diagnosis.clocks.unwrap();
    assert_eq!(clocks.behind, Side::B);
    assert_eq!(clocks.by_ms, 3 * DAY);
    assert!(
        diagnosis
            .to_string()
            .ends_with("; the clock of B is at least 3 days behind that of A")
    );
    let back = report(&world, bob).diagnose(&report(&world, alice));
    assert_eq!(back.clocks.unwrap().behind, Side::A);
}

#[test]
fn reports_of_another_pair_or_of_one_device_say_so() {
    let (mut world, alice, bob) = friends(9);
    let carol = world.join("carol");
    world.send(carol, "alice", b"hello");
    world.settle();
    assert_eq!(
        diagnose(&world, bob, carol).findings,
        [Finding::NothingInCommon]
    );
    assert_eq!(
        diagnose(&world, alice, alice).findings,
        [Finding::SameDevice]
    );
    // Alice's two conversations are kept apart.
    assert_eq!(diagnose(&world, alice, bob).findings, []);
    assert_eq!(diagnose(&world, alice, carol).findings, []);
    let nobody = world.join("dave");
    assert_eq!(
        diagnose(&world, alice, nobody).findings,
        [Finding::NothingInCommon]
    );
}

#[test]
fn reports_that_do_not_overlap_any_more_are_too_short() {
    let (mut world, alice, bob) = friends(10);
    let early = report(&world, alice);
    world.wait(DAY);
    for round in 0..4 {
        for _ in 0..240 {
            world.send(alice, "bob", &[round]);
        }
        world.settle();
    }
    let late = report(&world, bob);
    assert!(late.is_cut());
    assert_eq!(early.diagnose(&late).findings, [Finding::TooShort]);
    // But both late ones do.
    assert_eq!(diagnose(&world, alice, bob).findings, []);
}

#[test]
fn a_report_names_nobody_and_only_the_two_find_each_other_in_it() {
    let (world, alice, bob) = friends(11);
    let bytes = report(&world, alice).encode();
    for name in [&b"alice"[..], b"bob"] {
        assert!(!bytes.windows(name.len()).any(|window| window == name));
    }
    // Nor what a server could look up: the salts of envelopes, numbers of devices.
    for id in world.envelopes().keys() {
        assert!(!bytes.windows(8).any(|window| window == &id[..8]));
    }
    for who in [alice, bob] {
        let number = world.address(who).device().get().to_be_bytes();
        assert!(!bytes.windows(4).any(|window| window == number));
    }
}

#[test]
fn noise_is_not_noted() {
    let (mut world, alice, bob) = friends(12);
    world.send(alice, "bob", b"again and again");
    let envelopes: Vec<Vec<u8>> = world
        .tasks(alice)
        .into_iter()
        .filter_map(|task| match task {
            Task::Deliver { envelope, .. } => Some(envelope),
            _ => None,
        })
        .collect();
    world.settle();
    let before = report(&world, bob);
    world.shelf(bob).take_written();
    for envelope in &envelopes {
        for bit in 0..64 {
            let mut bad = envelope.clone();
            let at = bad.len() - 1 - bit;
            bad[at] ^= 1;
            world.receive(bob, &bad);
        }
        // Replays too.
        for _ in 0..10 {
            assert_eq!(
                world.receive(bob, envelope).refused().unwrap().code(),
                "duplicate"
            );
        }
    }
    assert!(world.shelf(bob).take_written().is_empty());
    assert_eq!(report(&world, bob), before);
}

#[test]
fn a_message_writes_little_more_for_the_report() {
    let (mut world, alice, bob) = friends(13);
    let written = |world: &World, who: Who| -> (usize, usize) {
        let rows = world.shelf(who).take_written();
        let rows = rows.iter().flatten().filter(|row| row.table == 0x53);
        let bytes: Vec<usize> = rows.map(|row| row.bytes).collect();
        (bytes.len(), bytes.iter().sum())
    };
    for round in 0..4 {
        // That something was handed over rides on the next commit: here of the message before.
        written(&world, alice);
        world.send(alice, "bob", b"hello");
        let sent = written(&world, alice);
        world.work(alice);
        written(&world, bob);
        world.poll(bob);
        let received = written(&world, bob);
        if round > 0 {
            assert_eq!((sent.0, received.0), (2, 1));
            assert_eq!((sent.1, received.1), (2 * 94, 94));
        }
    }
}

#[test]
fn events_are_kept_across_a_crash_and_the_start_is_among_them() {
    let (mut world, alice, bob) = friends(14);
    let before = report(&world, alice).events;
    world.crash(alice);
    world.send(alice, "bob", b"after the crash");
    world.settle();
    let after = report(&world, alice).events;
    assert_eq!(after[..before.len()], before[..]);
    assert_eq!(after[before.len()].what, What::Started);
    assert_eq!(diagnose(&world, alice, bob).findings, []);
}
