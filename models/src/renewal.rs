//! The locks of the store and of its renewal (`store.rs`, `store/renew.rs`, `store/census.rs`): submits, renewals, reads,
//! closes, and completions that call the store again.

use std::ops::ControlFlow;

use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng;
use sprag_keys::Key;

use crate::error::StoreError;
use crate::home;
use crate::rows::{Changes, RowName, Rows};
use crate::store::Store;
use crate::sync::{Arc, Condvar, Mutex, PoisonError, thread};
use crate::sys::lock;

const WRITERS: u32 = 2;
const EACH: u32 = 2;

pub(crate) fn rng() -> ChaCha20Rng {
    ChaCha20Rng::from_seed([7; 32])
}

fn key() -> Key {
    Key::raw([7; 32])
}

fn a() -> RowName {
    RowName::plain(0x02, [0])
}

fn b() -> RowName {
    RowName::owned(0x02, "bob", [1])
}

fn mine(writer: u32) -> RowName {
    RowName::plain(0x02, writer.to_be_bytes())
}

fn number(value: &[u8]) -> u32 {
    u32::from_be_bytes(value.try_into().unwrap())
}

/// What became of the batches. A completion that panics is caught, so what is wrong is noted.
#[derive(Default)]
struct Answers {
    submitted: u32,
    fine: Vec<u64>,
    failed: u32,
    /// Completions that came to their end.
    ended: u32,
    wrong: Option<&'static str>,
}

/// A run: the store, the answers, and who gives numbers to batches.
#[derive(Clone)]
struct Run {
    store: Store,
    answers: Arc<(Mutex<Answers>, Condvar)>,
    last: Arc<Mutex<u32>>,
    /// Whether errors are to be expected.
    ends: bool,
}

impl Run {
    fn new(ends: bool) -> Self {
        home::fresh();
        Self {
            store: Store::create("", &key(), rng()).unwrap(),
            answers: Arc::default(),
            last: Arc::default(),
            ends,
        }
    }

    /// Submits the next number in two rows, and one of the writer's own.
    fn put(&self, writer: u32, lazy: bool, then: impl FnOnce(&Self) + Send + 'static) -> u32 {
        // Held, so that numbers are submitted in their order, as the client does it.
        let mut last = lock(&self.last);
        *last += 1;
        let value = last.to_be_bytes().to_vec();
        let mut changes = Changes::new();
        changes.put(a(), value.clone());
        changes.put(b(), value.clone());
        changes.put(mine(writer), value);
        if lazy {
            // It has no completion of ours.
            let submitted = self.store.submit_lazy(changes);
            assert!(submitted.is_ok() || self.ends);
            return *last;
        }
        self.submit(changes, then);
        *last
    }

    /// What a completion submits: it may run within another submit.
    fn put_again(&self, writer: u32) {
        let mut changes = Changes::new();
        changes.put(mine(writer), vec![1]);
        self.submit(changes, |_| ());
    }

    /// Submits; the completion looks whether it may run.
    fn submit(&self, changes: Changes, then: impl FnOnce(&Self) + Send + 'static) {
        lock(&self.answers.0).submitted += 1;
        let run = self.clone();
        let done = move |result: Result<u64, StoreError>| {
            let renewing = home::is_renewing();
            let (synced, answers) = (home::synced(), Arc::clone(&run.answers));
            {
                let mut answers = lock(&answers.0);
                match result {
                    Ok(_) if renewing => {
                        answers.wrong = Some("a completion ran while the store was being renewed");
                    }
                    Ok(sequence) if synced < sequence => {
                        answers.wrong = Some("answered, and not durable where the manifest points");
                    }
                    Err(_) if !run.ends => answers.wrong = Some("a batch failed"),
                    _ => {}
                }
                match result {
                    Ok(sequence) => answers.fine.push(sequence),
                    Err(_) => answers.failed += 1,
                }
            }
            // It runs under no lock of the store, so it may ask for anything.
            let _ = run.store.commit_sequence();
            then(&run);
            // The last handle may go here.
            drop(run);
            lock(&answers.0).ended += 1;
            answers.1.notify_all();
        };
        self.store.submit(changes, Box::new(done));
    }

    /// Reads do not go back, and see no half of a batch.
    fn read(&self, times: u32) {
        let (mut seen, mut scanned) = (0, 0);
        for _ in 0..times {
            match self.store.get(&a()) {
                Ok(Some(value)) => {
                    let now = number(&value);
                    assert!(now >= seen, "a read went back");
                    seen = now;
                }
                Ok(None) => assert_eq!(seen, 0, "a row is gone"),
                Err(error) => assert!(self.ends, "{error}"),
            }
            let mut found = Vec::new();
            let outcome = self
                .store
                .scan(&RowName::plain(0x02, [0]), &mut |rest, value| {
                    if rest.is_empty() {
                        found.push(number(value));
                    }
                    ControlFlow::Continue(())
                });
            let outcome = outcome.and_then(|()| {
                self.store
                    .scan(&RowName::owned(0x02, "bob", []), &mut |_, value| {
                        found.push(number(value));
                        ControlFlow::Continue(())
                    })
            });
            match outcome {
                Ok(()) => {
                    assert!(found.is_sorted(), "a later scan saw less");
                    let now = found.first().copied().unwrap_or_default();
                    assert!(now >= scanned, "a scan went back");
                    scanned = now;
                }
                Err(error) => assert!(self.ends, "{error}"),
            }
        }
    }

    /// Every batch was answered once, and what was answered is what a new opening finds.
    fn end(self) {
        // One that is never called leaves everybody asleep here.
        let settled = |answers: &Arc<(Mutex<Answers>, Condvar)>| {
            let mut held = lock(&answers.0);
            while held.ended < held.submitted {
                held = (answers.1.wait(held)).unwrap_or_else(PoisonError::into_inner);
            }
        };
        settled(&self.answers);
        let _ = self.store.close();
        assert!(matches!(self.store.get(&a()), Err(StoreError::Closed)));
        let (fine, submitted) = {
            let mut answers = lock(&self.answers.0);
            assert_eq!(answers.wrong, None);
            let mut fine = std::mem::take(&mut answers.fine);
            fine.sort_unstable();
            let answered = u32::try_from(fine.len()).unwrap() + answers.failed;
            assert_eq!(answered, answers.submitted, "each is answered once");
            (fine, *lock(&self.last))
        };
        drop(self);
        let store = Store::open("", &key(), rng()).unwrap();
        assert!(store.commit_sequence() >= fine.last().copied().unwrap_or_default());
        let found = [a(), b()].map(|row| store.get(&row).unwrap().map(|value| number(&value)));
        assert_eq!(found[0], found[1], "half of a batch");
        let found = found[0].unwrap_or_default();
        assert!(found <= submitted);
        // Whatever was counted beside was right.
        while !store.is_counted() {
            thread::yield_now();
        }
        store.get(&a()).unwrap();
        store.close().unwrap();
    }
}

/// Lets up to so many steps of others pass.
fn pass(most: u32) {
    for _ in 0..shuttle::rand::Rng::gen_range(&mut shuttle::rand::thread_rng(), 0..most) {
        thread::yield_now();
    }
}

/// A row that is written while another thread reads it: a small model, so that every order of the two comes up.
pub fn cached() {
    let store = Store::in_memory(rng()).unwrap();
    let put = |n: u32| {
        let mut changes = Changes::new();
        changes.put(a(), n.to_be_bytes().to_vec());
        store.submit(changes, Box::new(|_| ()));
    };
    put(1);
    let reader = {
        let store = store.clone();
        thread::spawn(move || number(&store.get(&a()).unwrap().unwrap()))
    };
    put(2);
    let read = || store.get(&a()).unwrap().map(|value| number(&value));
    assert_eq!(read(), Some(2), "a read is of an earlier time");
    assert!(reader.join().unwrap() <= 2);
    assert_eq!(read(), Some(2), "what was read before stays");
}

/// Submits and reads beside a renewal, and completions that submit once more.
pub fn renewals() {
    let run = Run::new(false);
    let mut threads = Vec::new();
    for writer in 1..=WRITERS {
        let run = run.clone();
        threads.push(thread::spawn(move || {
            for n in 0..EACH {
                let put = run.put(writer, writer == 2 && n == 0, move |run| {
                    if n == 0 {
                        run.put_again(writer);
                    }
                });
                // What was submitted is read, at once and for ever.
                let found = run.store.get(&a()).unwrap().map(|value| number(&value));
                assert!(found >= Some(put), "what was submitted is not read");
            }
        }));
    }
    let reader = run.clone();
    threads.push(thread::spawn(move || reader.read(2)));
    let renewer = run.clone();
    threads.push(thread::spawn(move || renewer.store.renew().unwrap()));
    run.store.renew().unwrap();
    for thread in threads {
        thread.join().unwrap();
    }
    run.end();
}

/// A close beside a renewal, submits and reads; `from_completion`: the close is called by a completion.
pub fn closes(from_completion: bool) {
    let run = Run::new(true);
    let mut threads = Vec::new();
    for writer in 1..=WRITERS {
        let run = run.clone();
        threads.push(thread::spawn(move || {
            for n in 0..EACH {
                run.put(writer, false, move |run| {
                    if from_completion && writer == 1 && n == 0 {
                        let _ = run.store.close();
                    }
                    // Refused or not, it is answered.
                    run.put_again(writer);
                });
            }
        }));
    }
    let reader = run.clone();
    threads.push(thread::spawn(move || reader.read(1)));
    let renewer = run.clone();
    threads.push(thread::spawn(move || match renewer.store.renew() {
        Ok(()) | Err(StoreError::Closed) => {}
        Err(error) => panic!("{error}"),
    }));
    if !from_completion {
        pass(300);
        let _ = run.store.close();
    }
    for thread in threads {
        thread.join().unwrap();
    }
    run.end();
}

/// A disk that fails beside a renewal: everybody hears of it, and what was answered is there.
pub fn failures(at: usize) {
    let run = Run::new(true);
    home::fail_at(at);
    let mut threads = Vec::new();
    for writer in 1..=WRITERS {
        let run = run.clone();
        threads.push(thread::spawn(move || {
            for _ in 0..EACH {
                run.put(writer, false, |_| ());
            }
        }));
    }
    let renewer = run.clone();
    threads.push(thread::spawn(move || {
        let _ = renewer.store.renew();
    }));
    for thread in threads {
        thread.join().unwrap();
    }
    run.end();
}

/// Rows that are counted over while they are written and deleted, and while the store is renewed.
pub fn counts(renews: bool) {
    let run = Run::new(false);
    for writer in 0..3 {
        run.put(writer, false, |_| ());
    }
    run.store.close().unwrap();
    drop(run);
    let store = Store::open("", &key(), rng()).unwrap();
    let threads: Vec<_> = (0..2_u32)
        .map(|writer| {
            let store = store.clone();
            thread::spawn(move || {
                for n in 0..2_u32 {
                    // The count is long: all its parts are to see a change.
                    pass(2_000);
                    let mut changes = Changes::new();
                    changes.put(a(), n.to_be_bytes().to_vec());
                    if n == 0 {
                        changes.delete(mine(writer));
                    } else {
                        changes.put(mine(writer + 0x4000_0000), n.to_be_bytes().to_vec());
                    }
                    store.commit_blocking(changes).unwrap();
                }
            })
        })
        .collect();
    if renews {
        store.renew().unwrap();
    }
    for thread in threads {
        thread.join().unwrap();
    }
    while !store.is_counted() {
        thread::yield_now();
    }
    // A count that was only taken away for a moment comes to its end.
    for _ in 0..3_000 {
        thread::yield_now();
    }
    let read = store.get(&a());
    assert!(read.is_ok(), "a right count was called wrong: {read:?}");
    store.close().unwrap();
}
