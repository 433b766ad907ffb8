//! The commit thread of the store (`crates/sprag-store/src/commit.rs`).

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use crate::backend::{Backend, Batch};
use crate::commit::Committer;
use crate::platter::Fake;
use crate::sync::{Arc, Mutex, thread};
use crate::sys::lock;

const WRITERS: usize = 3;
const EACH: usize = 2;

/// Writers whose batches have two rows of one value, a reader and a scanner, and a close in their midst or after them.
/// With `fails_at` the disk fails at that write.
pub fn commits(fails_at: Option<usize>, close_early: bool) {
    let fake = Fake::default();
    lock(&fake.0).fails_at = fails_at;
    let committer = Arc::new(Committer::start(fake.clone(), 0).unwrap());
    // As in the store: numbers are given and batches submitted under one lock.
    let last = Arc::new(Mutex::new(0));
    let answers: Arc<Mutex<Vec<(u64, bool)>>> = Arc::default();
    let mut threads = Vec::new();
    for writer in 0..WRITERS {
        let (committer, last, answers) = (committer.clone(), last.clone(), answers.clone());
        let platter = fake.clone();
        threads.push(thread::spawn(move || {
            for n in 0..EACH {
                let value = vec![u8::try_from(writer * EACH + n).unwrap()];
                let mut guard = lock(&last);
                let mut batch = Batch::after(*guard);
                batch.put(b"a".to_vec(), value.clone());
                batch.put(b"b".to_vec(), value.clone());
                batch.put(vec![b'w', u8::try_from(writer).unwrap()], value.clone());
                if n == 0 && writer == 1 {
                    batch = batch.lazy();
                }
                let number = batch.sequence();
                *guard = number;
                let (answers, platter) = (answers.clone(), platter.clone());
                committer.submit(
                    batch,
                    Box::new(move |result| {
                        if result.is_ok() {
                            let synced = lock(&platter.0).synced;
                            assert!(
                                synced >= number,
                                "{number} was answered before it was synced"
                            );
                        }
                        lock(&answers).push((number, result.is_ok()));
                    }),
                );
                drop(guard);
                // What was submitted is read, at once and for ever.
                match committer.get(&[b'w', u8::try_from(writer).unwrap()]) {
                    Ok(found) => assert_eq!(found, Some(value)),
                    Err(error) => assert!(fails_at.is_some() || close_early, "{error}"),
                }
            }
        }));
    }
    let scanner = committer.clone();
    threads.push(thread::spawn(move || {
        for _ in 0..2 {
            let mut found = BTreeMap::new();
            let scanned = scanner.scan(&[], &mut |name, value| {
                found.insert(name.to_vec(), value.to_vec());
                // A scan within a scan rests on the outer one.
                let _ = scanner.scan(b"a", &mut |_, _| ControlFlow::Break(()));
                ControlFlow::Continue(())
            });
            if scanned.is_ok() {
                assert_eq!(
                    found.get(&b"a"[..]),
                    found.get(&b"b"[..]),
                    "half of a batch"
                );
            }
        }
    }));
    if close_early {
        let _ = committer.close();
    }
    for thread in threads {
        thread.join().unwrap();
    }
    let closed = committer.close();
    let mut answers = std::mem::take(&mut *lock(&answers));
    // Each exactly once, and what is durable is a beginning.
    let answered: Vec<u64> = answers.iter().map(|(number, _)| *number).collect();
    let fine: Vec<u64> = answers
        .iter()
        .filter(|(_, ok)| *ok)
        .map(|(number, _)| *number)
        .collect();
    assert!(fine.is_sorted(), "{answered:?}");
    answers.sort_unstable();
    let all: Vec<u64> = answers.iter().map(|(number, _)| *number).collect();
    assert_eq!(all, (1..=*lock(&last)).collect::<Vec<_>>());
    assert_eq!(
        fine,
        (1..=u64::try_from(fine.len()).unwrap()).collect::<Vec<_>>()
    );
    if fails_at.is_none() && !close_early {
        assert_eq!(fine.len(), WRITERS * EACH);
        assert!(closed.is_ok());
    }
}

/// Two closes at once, and drops by whoever is last: both wait until the disk is let go.
pub fn closes() {
    let fake = Fake::default();
    let committer = Arc::new(Committer::start(fake.clone(), 0).unwrap());
    committer.submit(Batch::after(0).lazy(), Box::new(|_| ()));
    let threads: Vec<_> = (0..2)
        .map(|_| {
            let (committer, fake) = (committer.clone(), fake.clone());
            thread::spawn(move || {
                committer.close().unwrap();
                assert_eq!(
                    lock(&fake.0).synced,
                    1,
                    "what was lazy is durable after a close"
                );
            })
        })
        .collect();
    drop(committer);
    for thread in threads {
        thread.join().unwrap();
    }
}
