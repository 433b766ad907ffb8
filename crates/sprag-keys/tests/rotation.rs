//! Rotation jobs: what they leave behind whatever happens.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "helpers of tests"
)]

mod support;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use rand_chacha::rand_core::CryptoRng;
use sprag_keys::{
    Cause, Journal, KeyId, KeyRing, KeySource, KeyVersion, Progress, RecordError, Records, Rotate,
    Rotated, RotationError, RotationJob, Sealer, SourceError, VersionedKey,
};
use support::{Call, Failed, Format, Notes, Shelf, Shelf0, failed, id, rng, version};
use zeroize::Zeroizing;

const MANY: usize = 40;

fn name(n: usize) -> Vec<u8> {
    format!("record-{n:03}").into_bytes()
}

fn text(name: &[u8]) -> Vec<u8> {
    [b"text of ", name].concat()
}

/// A ring whose key has versions 1 and 2, and records under version 1.
fn world() -> (KeyRing, Shelf) {
    let mut ring = KeyRing::new();
    ring.create(&id(), &mut rng(1), 0).unwrap();
    let key = ring.current(&id()).unwrap();
    let sealed = |name: Vec<u8>| {
        let sealed = Format.seal(&key, &name, &text(&name), &mut rng(2)).unwrap();
        (name, sealed)
    };
    let rows = (0..MANY).map(|n| sealed(name(n))).collect();
    ring.rotate(&id(), &mut rng(3), 0).unwrap();
    let rows = Mutex::new(rows);
    let before = |_: &Shelf0, _: Call, _: &[u8]| Ok(());
    (ring, Shelf { rows, before })
}

fn job(journal: &Notes, target: u32) -> RotationJob<Notes> {
    RotationJob::begin(journal.clone(), &id(), version(target)).unwrap()
}

fn seeds() -> impl Fn() -> rand_chacha::ChaCha20Rng + Sync {
    let drawn = AtomicUsize::new(0);
    move || rng(drawn.fetch_add(1, Ordering::Relaxed) as u8)
}

/// Each record with its version and text.
fn read(ring: &impl KeySource, rows: &Shelf0) -> Vec<(Vec<u8>, u32, Vec<u8>)> {
    let rows = rows.lock().unwrap();
    let read = rows.iter().map(|(name, sealed)| {
        let (id, version) = Format.key_of(name, sealed).unwrap();
        let key = ring.by_version(&id, version).unwrap();
        let text = Format.open(&key, name, sealed).unwrap();
        (name.clone(), version.get(), text.to_vec())
    });
    read.collect()
}

fn all_under(ring: &impl KeySource, rows: &Shelf0, version: u32) {
    let read = read(ring, rows);
    assert_eq!(read.len(), MANY);
    for (name, under, found) in read {
        assert_eq!((under, found), (version, text(&name)));
    }
}

#[test]
fn every_record_ends_under_the_new_version_with_the_text_it_had() {
    let (ring, shelf) = world();
    let mut job = job(&Notes::default(), 2).with_page(7);
    let mut told = Vec::new();
    let end = job.run(&shelf, &ring, &Format, seeds(), |progress| {
        told.push(progress)
    });
    let Progress::Finished(report) = end.unwrap() else {
        panic!("{told:?}")
    };
    assert_eq!((report.pass, report.resealed, report.failed), (2, 40, 0));
    assert_eq!((report.seen, report.total), (40, Some(40)));
    assert_eq!(told.len(), 2 * 7);
    all_under(&ring, &shelf.rows, 2);
    let before = shelf.rows.lock().unwrap().clone();
    let again = job.step(&shelf, &ring, &Format, seeds()).unwrap();
    assert_eq!(again, Progress::Finished(report));
    assert_eq!(*shelf.rows.lock().unwrap(), before);
}

/// A journal that is gone once the machine is.
struct Dying(Notes, Arc<AtomicBool>);

impl Journal for Dying {
    fn load(&mut self) -> Result<Option<Vec<u8>>, Cause> {
        self.0.load()
    }

    fn save(&mut self, state: &[u8]) -> Result<(), Cause> {
        if self.1.load(Ordering::SeqCst) {
            return failed("dead");
        }
        self.0.save(state)
    }
}

#[test]
fn a_death_before_any_call_leaves_every_record_readable_and_the_next_job_finishes() {
    let deaths = die_everywhere(|_, _| {});
    assert!(deaths > 3 * MANY, "{deaths}");
}

#[test]
fn a_death_at_the_only_page_with_an_old_record_does_not_hide_it() {
    let deaths = die_everywhere(|ring, rows| {
        let key = ring.current(&id()).unwrap();
        for n in (0..MANY).filter(|n| *n != 20) {
            let sealed = Format.seal(&key, &name(n), &text(&name(n)), &mut rng(6));
            rows.lock().unwrap().insert(name(n), sealed.unwrap());
        }
    });
    assert!(deaths > MANY, "{deaths}");
}

/// Dies before the first call, before the second, and so on; each time another job goes on. Tells how often.
fn die_everywhere(prepare: impl Fn(&KeyRing, &Shelf0)) -> usize {
    let mut deaths = 0;
    for at in 0.. {
        let (ring, Shelf { rows, .. }) = world();
        prepare(&ring, &rows);
        let (calls, dead) = (AtomicUsize::new(0), Arc::new(AtomicBool::new(false)));
        let before = |_: &Shelf0, _: Call, _: &[u8]| {
            if calls.fetch_add(1, Ordering::SeqCst) >= at {
                dead.store(true, Ordering::SeqCst);
                return failed("dead");
            }
            Ok(())
        };
        let shelf = Shelf { rows, before };
        let notes = Notes::default();
        let journal = Dying(notes.clone(), Arc::clone(&dead));
        let mut first = RotationJob::begin(journal, &id(), version(2)).unwrap();
        first = first.with_page(6);
        let end = first.run(&shelf, &ring, &Format, seeds(), |_| {});
        if !dead.load(Ordering::SeqCst) {
            assert!(matches!(end, Ok(Progress::Finished(_))));
            break;
        }
        deaths += 1;
        assert!(end.is_err(), "{at}");
        for (name, _, found) in read(&ring, &shelf.rows) {
            assert_eq!(found, text(&name), "{at}");
        }
        let healthy = Shelf {
            rows: shelf.rows,
            before: |_: &Shelf0, _: Call, _: &[u8]| Ok(()),
        };
        let end = job(&notes, 2).run(&healthy, &ring, &Format, seeds(), |_| {});
        assert!(matches!(end, Ok(Progress::Finished(_))), "{at}");
        all_under(&ring, &healthy.rows, 2);
    }
    deaths
}

#[test]
fn a_record_that_cannot_be_read_is_named_and_left_alone_and_the_others_are_done() {
    let (ring, shelf) = world();
    let notes = Notes::default();
    let (good, bad) = {
        let mut rows = shelf.rows.lock().unwrap();
        let row = rows.get_mut(&name(13)).unwrap();
        let good = row.clone();
        *row.last_mut().unwrap() ^= 1;
        (good, row.clone())
    };
    let mut first = job(&notes, 2).with_page(5);
    for round in 1..3 {
        let end = first.run(&shelf, &ring, &Format, seeds(), |_| {});
        let Ok(Progress::Blocked(report)) = end else {
            panic!("{end:?}")
        };
        assert_eq!((report.failed, report.resealed), (1, 39), "{round}");
        let [failure] = first.failures() else {
            panic!("{:?}", first.failures())
        };
        assert_eq!(failure.name, name(13));
        assert!(matches!(failure.cause, RecordError::Sealer(_)));
        assert_eq!(shelf.rows.lock().unwrap()[&name(13)], bad);
    }
    shelf.rows.lock().unwrap().insert(name(13), good);
    let end = job(&notes, 2).run(&shelf, &ring, &Format, seeds(), |_| {});
    assert!(matches!(end, Ok(Progress::Finished(_))));
    all_under(&ring, &shelf.rows, 2);
}

#[test]
fn a_record_whose_key_is_gone_keeps_the_job_from_finishing() {
    let (mut ring, shelf) = world();
    ring.destroy(&id(), version(1), 1).unwrap();
    let before = shelf.rows.lock().unwrap().clone();
    let mut job = job(&Notes::default(), 2);
    let end = job.run(&shelf, &ring, &Format, seeds(), |_| {});
    assert!(matches!(end, Ok(Progress::Blocked(report)) if report.failed == 40));
    let gone = |cause: &RecordError| matches!(cause, RecordError::Key(SourceError::Destroyed));
    assert!(job.failures().iter().all(|failure| gone(&failure.cause)));
    assert_eq!(*shelf.rows.lock().unwrap(), before);
}

#[test]
fn what_another_writes_meanwhile_is_neither_lost_nor_left_under_the_old_version() {
    let (ring, Shelf { rows, .. }) = world();
    let old = ring.by_version(&id(), version(1)).unwrap();
    let writes = AtomicUsize::new(0);
    // A writer that has not heard of the new version yet writes record 5 before each of the first ten puts, so that the
    // job loses every race of its first pass; and it writes record 0 when the job is past it.
    let before = |rows: &Shelf0, call: Call, at: &[u8]| {
        let write = |n: usize, text: &[u8]| {
            let mut rng = rng(writes.load(Ordering::SeqCst) as u8);
            let sealed = Format.seal(&old, &name(n), text, &mut rng).unwrap();
            rows.lock().unwrap().insert(name(n), sealed);
        };
        if call == Call::Put && at == name(5) && writes.fetch_add(1, Ordering::SeqCst) < 10 {
            write(5, b"changed meanwhile");
            write(0, b"written late");
        }
        Ok(())
    };
    let shelf = Shelf { rows, before };
    let mut job = job(&Notes::default(), 2).with_page(4);
    let end = job.run(&shelf, &ring, &Format, seeds(), |_| {}).unwrap();
    let Progress::Finished(report) = end else {
        panic!("{end:?}")
    };
    // Three races lost in each of three passes, the tenth in the fourth; then what was written late, then nothing.
    assert_eq!((report.pass, report.resealed), (6, 44), "{report:?}");
    for (found, under, read) in read(&ring, &shelf.rows) {
        assert_eq!(under, 2);
        let expected = match found {
            found if found == name(5) => b"changed meanwhile".to_vec(),
            found if found == name(0) => b"written late".to_vec(),
            found => text(&found),
        };
        assert_eq!(read, expected);
    }
}

#[test]
fn what_a_late_writer_left_after_the_end_is_found_by_looking_again() {
    let (ring, shelf) = world();
    let notes = Notes::default();
    let mut first = job(&notes, 2);
    first.run(&shelf, &ring, &Format, seeds(), |_| {}).unwrap();
    let old = ring.by_version(&id(), version(1)).unwrap();
    let sealed = Format
        .seal(&old, &name(3), &text(&name(3)), &mut rng(9))
        .unwrap();
    shelf.rows.lock().unwrap().insert(name(3), sealed);
    let mut later = job(&notes, 2);
    let end = later.run(&shelf, &ring, &Format, seeds(), |_| {});
    assert!(matches!(end, Ok(Progress::Finished(report)) if report.resealed == 40));
    later.look_again().unwrap();
    // A death now: the pass that was begun is in the journal.
    let mut last = job(&notes, 2);
    let end = last.run(&shelf, &ring, &Format, seeds(), |_| {});
    assert!(matches!(end, Ok(Progress::Finished(report)) if report.resealed == 41));
    all_under(&ring, &shelf.rows, 2);
}

#[test]
fn records_of_other_keys_and_of_newer_versions_are_not_touched() {
    let (mut ring, shelf) = world();
    ring.rotate(&id(), &mut rng(4), 0).unwrap();
    let other = KeyId::new("other").unwrap();
    ring.create(&other, &mut rng(5), 0).unwrap();
    for (n, key) in [(1, ring.current(&id())), (2, ring.current(&other))] {
        let sealed = Format.seal(&key.unwrap(), &name(n), &text(&name(n)), &mut rng(6));
        shelf.rows.lock().unwrap().insert(name(n), sealed.unwrap());
    }
    let before = shelf.rows.lock().unwrap().clone();
    let end = job(&Notes::default(), 2).run(&shelf, &ring, &Format, seeds(), |_| {});
    assert!(matches!(end, Ok(Progress::Finished(report)) if report.resealed == 38));
    let after = shelf.rows.lock().unwrap();
    assert_eq!(
        (&after[&name(1)], &after[&name(2)]),
        (&before[&name(1)], &before[&name(2)])
    );
}

/// A sealer that does something wrong.
struct Wrong(fn(Vec<u8>) -> Vec<u8>);

impl Sealer for Wrong {
    fn key_of(&self, name: &[u8], sealed: &[u8]) -> Result<(KeyId, KeyVersion), Cause> {
        Format.key_of(name, sealed)
    }

    fn open(
        &self,
        key: &VersionedKey,
        name: &[u8],
        sealed: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, Cause> {
        Format.open(key, name, sealed)
    }

    fn seal(
        &self,
        key: &VersionedKey,
        name: &[u8],
        text: &[u8],
        rng: &mut dyn CryptoRng,
    ) -> Result<Vec<u8>, Cause> {
        Ok((self.0)(Format.seal(key, name, text, rng)?))
    }
}

#[test]
fn what_does_not_open_as_the_same_text_is_not_written() {
    let faults: [fn(Vec<u8>) -> Vec<u8>; 3] = [
        |mut sealed| {
            *sealed.last_mut().unwrap() ^= 1;
            sealed
        },
        |_| Vec::new(),
        |mut sealed| {
            sealed[12] = 3; // names another version
            sealed
        },
    ];
    for fault in faults {
        let (ring, shelf) = world();
        let before = shelf.rows.lock().unwrap().clone();
        let mut job = job(&Notes::default(), 2);
        let end = job.run(&shelf, &ring, &Wrong(fault), seeds(), |_| {});
        assert!(matches!(end, Ok(Progress::Blocked(_))));
        let changed = |cause: &RecordError| matches!(cause, RecordError::Changed);
        assert!(job.failures().iter().all(|failure| changed(&failure.cause)));
        assert_eq!(*shelf.rows.lock().unwrap(), before);
    }
}

#[test]
fn a_panic_at_one_record_costs_no_other() {
    let (ring, Shelf { rows, .. }) = world();
    let before = |_: &Shelf0, call: Call, at: &[u8]| {
        assert!(
            call != Call::Get || at != name(3),
            "this panic is part of the test"
        );
        Ok(())
    };
    let shelf = Shelf { rows, before };
    let mut job = job(&Notes::default(), 2);
    let end = job.run(&shelf, &ring, &Format, seeds(), |_| {});
    assert!(matches!(end, Ok(Progress::Blocked(report)) if report.resealed == 39));
    assert!(matches!(job.failures()[0].cause, RecordError::Panicked));
}

#[test]
fn one_record_that_cannot_be_written_costs_no_other() {
    let (ring, Shelf { rows, .. }) = world();
    let before = |_: &Shelf0, call: Call, at: &[u8]| match (call, at) {
        (Call::Put, at) if at == name(3) => failed("disk full"),
        _ => Ok(()),
    };
    let shelf = Shelf { rows, before };
    let mut job = job(&Notes::default(), 2);
    let end = job.run(&shelf, &ring, &Format, seeds(), |_| {});
    assert!(matches!(end, Ok(Progress::Blocked(report)) if report.resealed == 39));
    assert!(matches!(&job.failures()[0].cause, RecordError::Records(_)));
}

#[test]
fn a_record_that_is_removed_meanwhile_is_no_failure() {
    let (ring, Shelf { rows, .. }) = world();
    let before = |rows: &Shelf0, call: Call, at: &[u8]| {
        if call == Call::Get && at == name(3) {
            rows.lock().unwrap().remove(at);
        }
        Ok(())
    };
    let shelf = Shelf { rows, before };
    let end = job(&Notes::default(), 2).run(&shelf, &ring, &Format, seeds(), |_| {});
    assert!(matches!(end, Ok(Progress::Finished(report)) if report.resealed == 39));
}

#[test]
fn a_job_for_a_key_that_is_not_there_does_nothing_and_makes_no_key() {
    let (ring, shelf) = world();
    let before = (ring.to_bytes(), shelf.rows.lock().unwrap().clone());
    let unknown = KeyId::new("unknown").unwrap();
    let mut of_none = RotationJob::begin(Notes::default(), &unknown, version(1)).unwrap();
    let mut of_no_version = job(&Notes::default(), 3);
    for job in [&mut of_none, &mut of_no_version] {
        let step = job.step(&shelf, &ring, &Format, seeds());
        assert!(matches!(
            step,
            Err(RotationError::Key(SourceError::NotFound))
        ));
    }
    assert_eq!(
        (ring.to_bytes(), shelf.rows.lock().unwrap().clone()),
        before
    );
}

#[test]
fn a_journal_is_that_of_one_job_and_no_job_goes_back() {
    let (mut ring, shelf) = world();
    let notes = Notes::default();
    job(&notes, 2)
        .step(&shelf, &ring, &Format, seeds())
        .unwrap();
    let other = KeyId::new("other").unwrap();
    let begin = |id: &KeyId, target| RotationJob::begin(notes.clone(), id, version(target));
    assert!(matches!(begin(&other, 1), Err(RotationError::OtherJob)));
    assert!(matches!(begin(&id(), 1), Err(RotationError::OlderVersion)));
    // A newer version takes the place of an unfinished job.
    ring.rotate(&id(), &mut rng(4), 0).unwrap();
    let mut newer = begin(&id(), 3).unwrap();
    let end = newer.run(&shelf, &ring, &Format, seeds(), |_| {});
    assert!(matches!(end, Ok(Progress::Finished(report)) if report.resealed == 40));
    all_under(&ring, &shelf.rows, 3);
    assert!(matches!(begin(&id(), 2), Err(RotationError::OlderVersion)));
    assert!(begin(&other, 1).is_ok());
}

#[test]
fn a_journal_that_is_none_is_left_alone() {
    for (kept, later) in [(&b""[..], false), (b"{}", false), (b"SPKJ\x02", true)] {
        let notes = Notes(Arc::new(Mutex::new(Some(kept.to_vec()))));
        let error = RotationJob::begin(notes.clone(), &id(), version(2)).unwrap_err();
        match error {
            RotationError::UnknownVersion => assert!(later),
            RotationError::Malformed => assert!(!later),
            error => panic!("{error:?}"),
        }
        assert_eq!(notes.0.lock().unwrap().as_deref(), Some(kept));
    }
}

#[test]
fn names_that_do_not_ascend_stop_the_job_instead_of_hiding_records() {
    struct Odd(Vec<&'static str>);
    impl Records for Odd {
        fn list(&self, _: Option<&[u8]>, _: usize) -> Result<Vec<Vec<u8>>, Cause> {
            Ok(self.0.iter().map(|name| name.as_bytes().to_vec()).collect())
        }
        fn get(&self, _: &[u8]) -> Result<Option<Vec<u8>>, Cause> {
            Ok(None)
        }
        fn put_if_unchanged(&self, _: &[u8], _: &[u8], _: &[u8]) -> Result<bool, Cause> {
            failed("never")
        }
    }
    let (ring, _) = world();
    for names in [vec!["b", "a"], vec!["a", "a"], vec!["a"; 3]] {
        let step = job(&Notes::default(), 2).step(&Odd(names), &ring, &Format, seeds());
        assert!(matches!(step, Err(RotationError::Records(_))));
    }
    // The same page again and again would never end.
    let mut job = job(&Notes::default(), 2);
    let page = Odd(vec!["a", "b"]);
    job.step(&page, &ring, &Format, seeds()).unwrap();
    assert!(job.step(&page, &ring, &Format, seeds()).is_err());
}

#[test]
fn a_source_that_is_far_away_is_asked_once_a_step() {
    struct Counted(KeyRing, AtomicUsize);
    impl KeySource for Counted {
        fn current(&self, id: &KeyId) -> Result<VersionedKey, SourceError> {
            self.0.current(id)
        }
        fn by_version(&self, id: &KeyId, v: KeyVersion) -> Result<VersionedKey, SourceError> {
            self.1.fetch_add(1, Ordering::SeqCst);
            self.0.by_version(id, v)
        }
    }
    let (ring, shelf) = world();
    let source = Counted(ring, AtomicUsize::new(0));
    let mut job = job(&Notes::default(), 2).with_page(10);
    for step in 1..=4 {
        job.step(&shelf, &source, &Format, seeds()).unwrap();
        assert_eq!(source.1.load(Ordering::SeqCst), 2 * step);
    }
}

#[test]
fn a_source_that_is_away_stops_the_job_where_it_is() {
    struct Away;
    impl KeySource for Away {
        fn current(&self, _: &KeyId) -> Result<VersionedKey, SourceError> {
            Err(SourceError::Unavailable(Some(Arc::new(Failed("away")))))
        }
        fn by_version(&self, id: &KeyId, _: KeyVersion) -> Result<VersionedKey, SourceError> {
            self.current(id)
        }
    }
    let (ring, shelf) = world();
    let mut job = job(&Notes::default(), 2).with_page(10);
    job.step(&shelf, &ring, &Format, seeds()).unwrap();
    let step = job.step(&shelf, &Away, &Format, seeds());
    assert!(matches!(step, Err(RotationError::Key(error)) if error.is_retryable()));
    let end = job.run(&shelf, &ring, &Format, seeds(), |_| {});
    assert!(matches!(end, Ok(Progress::Finished(_))));
    all_under(&ring, &shelf.rows, 2);
}

/// Records that do themselves what is to be done with them; the third is written by another at the first tries.
struct Large<'a>(&'a Shelf, &'a KeyRing, AtomicUsize);

impl Rotate for Large<'_> {
    fn list(&self, after: Option<&[u8]>, most: usize) -> Result<Vec<Vec<u8>>, Cause> {
        self.0.list(after, most)
    }

    fn rotate(
        &self,
        name: &[u8],
        target: &VersionedKey,
        rng: &mut dyn CryptoRng,
    ) -> Result<Rotated, RecordError> {
        let old = self.0.get(name).map_err(RecordError::Records)?.unwrap();
        let (id, version) = Format.key_of(name, &old).map_err(RecordError::Sealer)?;
        if version >= target.version() {
            return Ok(Rotated::Fine);
        }
        if name == b"record-002" && self.2.load(Ordering::SeqCst) > 0 {
            self.2.fetch_sub(1, Ordering::SeqCst);
            return Ok(Rotated::Contended);
        }
        let text = Format.open(&self.1.by_version(&id, version)?, name, &old);
        let text = text.map_err(RecordError::Sealer)?;
        let new = Format.seal(target, name, &text, rng).unwrap();
        let put = self.0.put_if_unchanged(name, &old, &new);
        assert!(put.map_err(RecordError::Records)?);
        Ok(Rotated::Resealed)
    }
}

#[test]
fn records_that_are_not_held_in_memory_are_done_by_the_same_passes() {
    let (ring, shelf) = world();
    let damaged = name(5);
    let whole = shelf.rows.lock().unwrap().get(&damaged).unwrap().clone();
    let cut = whole[..whole.len() - 1].to_vec();
    shelf.rows.lock().unwrap().insert(damaged.clone(), cut);
    let records = Large(&shelf, &ring, AtomicUsize::new(1));
    let mut job = job(&Notes::default(), 2).with_page(7);
    let end = |job: &mut RotationJob<Notes>| loop {
        let progress = job.step_by(&records, &ring, seeds()).unwrap();
        if !matches!(progress, Progress::Running(_)) {
            return progress;
        }
    };
    let Progress::Blocked(report) = end(&mut job) else {
        panic!("a record does not open");
    };
    assert_eq!((report.pass, report.resealed, report.failed), (1, 38, 1));
    assert_eq!(job.failures()[0].name, damaged);
    shelf.rows.lock().unwrap().insert(damaged, whole);
    let Progress::Finished(report) = end(&mut job) else {
        panic!("all records open");
    };
    assert_eq!((report.pass, report.resealed, report.failed), (3, 40, 0));
    all_under(&ring, &shelf.rows, 2);
}

#[test]
fn a_pass_in_which_one_record_was_being_written_is_not_the_last() {
    let (ring, shelf) = world();
    let records = Large(&shelf, &ring, AtomicUsize::new(2));
    let mut job = job(&Notes::default(), 2);
    let end = loop {
        let progress = job.step_by(&records, &ring, seeds()).unwrap();
        if !matches!(progress, Progress::Running(_)) {
            break progress;
        }
    };
    // All but one; none, and one that is written; that one; nothing left.
    assert!(
        matches!(end, Progress::Finished(report) if report.pass == 4),
        "{end:?}"
    );
    all_under(&ring, &shelf.rows, 2);
}

#[test]
fn whatever_job_is_in_the_journal_is_gone_on_with_and_without_one_none_is_begun() {
    let (ring, shelf) = world();
    let journal = Notes::default();
    assert!(RotationJob::kept(journal.clone()).unwrap().is_none());
    assert_eq!(*journal.0.lock().unwrap(), None);
    let mut begun = job(&journal, 2).with_page(7);
    let before = begun.step(&shelf, &ring, &Format, seeds()).unwrap();
    drop(begun);

    let mut kept = RotationJob::kept(journal.clone()).unwrap().unwrap();
    assert_eq!((kept.id(), kept.target()), (&id(), version(2)));
    assert_eq!(kept.progress(&shelf), before);
    let end = kept.run(&shelf, &ring, &Format, seeds(), |_| {}).unwrap();
    assert!(matches!(end, Progress::Finished(report) if report.resealed == 40));
    all_under(&ring, &shelf.rows, 2);

    *journal.0.lock().unwrap() = Some(b"something else".to_vec());
    let refused = RotationJob::kept(journal.clone());
    assert!(matches!(refused, Err(RotationError::Malformed)));
    assert_eq!(
        journal.0.lock().unwrap().as_deref(),
        Some(&b"something else"[..])
    );
}
