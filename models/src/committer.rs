//! The commit thread of the store (`crates/sprag-store/src/commit.rs`).

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use crate::backend::{Backend, BackendError, Batch, RowMap};
use crate::commit::{Committer, Disk};
use crate::rows::Visit;
use crate::sync::{Arc, Mutex, thread};
use crate::sys::lock;

const WRITERS: usize = 3;
const EACH: usize = 2;

/// A disk that knows what is only written, and what is synced, and may fail at a write.
#[derive(Default)]
struct Platter {
    rows: BTreeMap<Vec<u8>, Vec<u8>>,
    written: u64,
    flushed: u64,
    synced: u64,
    writes: usize,
    fails_at: Option<usize>,
}

#[derive(Clone, Default)]
struct Fake(Arc<Mutex<Platter>>);

impl Disk for Fake {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, BackendError> {
        Ok(lock(&self.0).rows.get(key).cloned())
    }

    fn scan(&self, prefix: &[u8], visit: Visit<'_>) -> Result<(), BackendError> {
        let names: Vec<_> = lock(&self.0).rows.keys().cloned().collect();
        for name in names.iter().filter(|name| name.starts_with(prefix)) {
            // Row by row, as a database reads.
            let value = lock(&self.0).rows.get(name).cloned();
            if let Some(value) = value
                && visit(name, &value).is_break()
            {
                break;
            }
        }
        Ok(())
    }

    fn apply(&self, sequence: u64, rows: &RowMap) -> Result<(), BackendError> {
        {
            let mut platter = lock(&self.0);
            platter.writes += 1;
            if platter.fails_at == Some(platter.writes) {
                return Err(BackendError::Full);
            }
            assert!(sequence > platter.written, "groups are written in order");
        }
        // Row by row, as a database writes.
        for (name, value) in rows {
            let mut platter = lock(&self.0);
            match value {
                Some(value) => drop(platter.rows.insert(name.clone(), value.clone())),
                None => drop(platter.rows.remove(name)),
            }
        }
        lock(&self.0).written = sequence;
        Ok(())
    }

    fn flush(&self) -> Result<(), BackendError> {
        let mut platter = lock(&self.0);
        platter.flushed = platter.written;
        Ok(())
    }

    fn sync(&self) -> Result<(), BackendError> {
        let mut platter = lock(&self.0);
        platter.synced = platter.flushed;
        Ok(())
    }
}

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
