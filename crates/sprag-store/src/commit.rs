//! Ordered group commit: one thread writes, many wait.
//!
//! What is submitted joins a group in memory, where reads find it; the committer thread takes one group after the other
//! to the disk (apply, flush, sync), and only then answers. While it waits for the disk the next group gathers, so that
//! callers share syncs, and a row that is written often is written once per sync. The thread is the only writer: the
//! database below never sees two at a time.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::ops::{Bound, ControlFlow};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use crate::backend::{Backend, BackendError, Batch, Completion, RowMap};
use crate::error::StoreError;
use crate::rows::Visit;
use crate::sync::thread::{JoinHandle, ThreadId};
use crate::sync::{
    Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, thread, thread_local,
};
use crate::sys::{lock, process_id};

/// The most batches that are written as one. Lazy ones do not count.
const MAX_GROUP: usize = 64;

/// The durable step, as a seam: a database that does not sync on its own.
pub(crate) trait Disk: Send + Sync + 'static {
    /// The value of a row.
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, BackendError>;

    /// The rows below a prefix, in order.
    fn scan(&self, prefix: &[u8], visit: Visit<'_>) -> Result<(), BackendError>;

    /// Writes rows, all or none, with the number of the batch.
    fn apply(&self, sequence: u64, rows: &RowMap) -> Result<(), BackendError>;

    /// Hands what was applied to the operating system.
    fn flush(&self) -> Result<(), BackendError>;

    /// Returns when what was flushed is on stable storage.
    fn sync(&self) -> Result<(), BackendError>;
}

impl Disk for Box<dyn Disk> {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, BackendError> {
        (**self).get(key)
    }

    fn scan(&self, prefix: &[u8], visit: Visit<'_>) -> Result<(), BackendError> {
        (**self).scan(prefix, visit)
    }

    fn apply(&self, sequence: u64, rows: &RowMap) -> Result<(), BackendError> {
        (**self).apply(sequence, rows)
    }

    fn flush(&self) -> Result<(), BackendError> {
        (**self).flush()
    }

    fn sync(&self) -> Result<(), BackendError> {
        (**self).sync()
    }
}

/// A backend that commits in groups to a [`Disk`].
pub(crate) struct Committer<D: Disk> {
    shared: Arc<Shared<D>>,
    thread: Mutex<Option<JoinHandle<()>>>,
    thread_id: ThreadId,
    /// The process that started the thread. In a fork of it there is none.
    process: u32,
}

struct Shared<D> {
    queue: Mutex<Queue<D>>,
    wake: Condvar,
    /// Held for writing while rows are applied, for reading during a scan: a scan sees no half of a group.
    applying: RwLock<()>,
}

struct Queue<D> {
    /// Taken when the store is closed.
    disk: Option<Arc<D>>,
    /// Groups that the committer did not take yet, oldest first.
    waiting: VecDeque<Group>,
    /// The group that is being applied.
    in_flight: Option<Arc<RowMap>>,
    /// The number of the last batch submitted.
    last: u64,
    poisoned: bool,
    closing: bool,
}

struct Group {
    rows: RowMap,
    sequence: u64,
    /// Batches that are not lazy. Without any the group waits.
    urgent: usize,
    done: Vec<(u64, Completion)>,
}

impl<D: Disk> Committer<D> {
    /// Starts the thread. `last` is the number of the last batch that the disk holds.
    pub(crate) fn start(disk: D, last: u64) -> Result<Self, BackendError> {
        let shared = Arc::new(Shared {
            queue: Mutex::new(Queue {
                disk: Some(Arc::new(disk)),
                waiting: VecDeque::new(),
                in_flight: None,
                last,
                poisoned: false,
                closing: false,
            }),
            wake: Condvar::new(),
            applying: RwLock::new(()),
        });
        let theirs = Arc::clone(&shared);
        let thread = thread::Builder::new()
            .name("sprag-commit".into())
            .spawn(move || theirs.run())?;
        Ok(Self {
            shared,
            thread_id: thread.thread().id(),
            thread: Mutex::new(Some(thread)),
            process: process_id(),
        })
    }
}

impl<D: Disk> Backend for Committer<D> {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, BackendError> {
        let disk = {
            let queue = self.shared.readable()?;
            if let Some(value) = queue.pending(key) {
                return Ok(value.clone());
            }
            queue.disk()?
        };
        self.shared.guard(|| disk.get(key))
    }

    fn scan(&self, prefix: &[u8], visit: Visit<'_>) -> Result<(), BackendError> {
        let _held = Scanning::begin(&self.shared.applying);
        let (disk, pending) = {
            let queue = self.shared.readable()?;
            (queue.disk()?, queue.pending_below(prefix))
        };
        let mut pending = pending.into_iter().peekable();
        let mut flow = ControlFlow::Continue(());
        // What the visitor breaks is its own, not the disk's.
        let mut broken = None;
        let mut visit = |key: &[u8], value: &[u8]| {
            catch_unwind(AssertUnwindSafe(|| visit(key, value))).unwrap_or_else(|panic| {
                broken = Some(panic);
                ControlFlow::Break(())
            })
        };
        let scanned = self.shared.guard(|| {
            disk.scan(prefix, &mut |key, value| {
                while flow.is_continue()
                    && let Some((key, value)) = pending.next_if(|(ours, _)| ours.as_slice() < key)
                {
                    flow = value.map_or(flow, |value| visit(&key, &value));
                }
                if flow.is_continue() {
                    flow = match pending.next_if(|(ours, _)| ours == key) {
                        Some((_, Some(value))) => visit(key, &value),
                        Some((_, None)) => flow,
                        None => visit(key, value),
                    };
                }
                flow
            })
        });
        for (key, value) in pending {
            if flow.is_break() || scanned.is_err() {
                break;
            }
            flow = value.map_or(flow, |value| visit(&key, &value));
        }
        if let Some(panic) = broken {
            resume_unwind(panic);
        }
        scanned
    }

    fn submit(&self, batch: Batch, done: Completion) {
        let refused = {
            let mut queue = lock(&self.shared.queue);
            queue.push(batch, done)
        };
        match refused {
            None => self.shared.wake.notify_one(),
            Some((error, done)) => done(Err(error.into())),
        }
    }

    fn close(&self) -> Result<(), BackendError> {
        lock(&self.shared.queue).closing = true;
        self.shared.wake.notify_one();
        // A completion may drop the last handle. The thread then ends on its own, when it comes to it.
        if thread::current().id() == self.thread_id {
            return Ok(());
        }
        {
            // Held while joining: whoever closes too waits as well.
            let mut thread = lock(&self.thread);
            if thread.take().is_some_and(|thread| thread.join().is_err()) {
                return Err(BackendError::Poisoned);
            }
        }
        if lock(&self.shared.queue).poisoned {
            Err(BackendError::Poisoned)
        } else {
            Ok(())
        }
    }
}

impl<D: Disk> Drop for Committer<D> {
    fn drop(&mut self) {
        if self.process == process_id() {
            let _ = self.close();
        } else {
            // In a forked child there is no thread to join, and what it shared with us, files and locks that are the
            // parent's, is never dropped: its own handle of them went with it.
            std::mem::forget(
                self.thread
                    .get_mut()
                    .unwrap_or_else(PoisonError::into_inner)
                    .take(),
            );
        }
    }
}

impl<D: Disk> fmt::Debug for Committer<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Committer").finish_non_exhaustive()
    }
}

impl<D> Queue<D> {
    fn disk(&self) -> Result<Arc<D>, BackendError> {
        self.disk.clone().ok_or(BackendError::Closed)
    }

    /// What was submitted for a row and is not on the disk yet.
    fn pending(&self, key: &[u8]) -> Option<&Option<Vec<u8>>> {
        let newest_first = self.waiting.iter().rev().map(|group| &group.rows);
        newest_first
            .chain(self.in_flight.as_deref())
            .find_map(|rows| rows.get(key))
    }

    /// What was submitted for the rows below a prefix and is not on the disk yet.
    fn pending_below(&self, prefix: &[u8]) -> BTreeMap<Vec<u8>, Option<Vec<u8>>> {
        let oldest_first = self.in_flight.as_deref().into_iter();
        let mut pending = BTreeMap::new();
        for rows in oldest_first.chain(self.waiting.iter().map(|group| &group.rows)) {
            let below = rows
                .range::<[u8], _>((Bound::Included(prefix), Bound::Unbounded))
                .take_while(|(key, _)| key.starts_with(prefix));
            pending.extend(below.map(|(key, value)| (key.clone(), value.clone())));
        }
        pending
    }

    /// Takes a batch in, or gives the completion back with the reason.
    fn push(&mut self, batch: Batch, done: Completion) -> Option<(BackendError, Completion)> {
        if self.closing {
            return Some((BackendError::Closed, done));
        }
        if self.poisoned {
            return Some((BackendError::Poisoned, done));
        }
        if let Err(error) = batch.check(self.last) {
            self.poisoned = true;
            return Some((error, done));
        }
        let (sequence, urgent) = (batch.sequence(), usize::from(!batch.is_lazy()));
        self.last = sequence;
        match self.waiting.back_mut() {
            Some(group) if group.urgent < MAX_GROUP => {
                group.rows.extend(batch.into_rows());
                group.sequence = sequence;
                group.urgent += urgent;
                group.done.push((sequence, done));
            }
            _ => self.waiting.push_back(Group {
                rows: batch.into_rows(),
                sequence,
                urgent,
                done: vec![(sequence, done)],
            }),
        }
        None
    }
}

impl<D: Disk> Shared<D> {
    /// The queue, if reads are answered.
    fn readable(&self) -> Result<MutexGuard<'_, Queue<D>>, BackendError> {
        let queue = lock(&self.queue);
        if queue.closing {
            Err(BackendError::Closed)
        } else if queue.poisoned {
            Err(BackendError::Poisoned)
        } else {
            Ok(queue)
        }
    }

    /// Runs a call on the disk. An error or a panic poisons: nobody knows what is down there.
    fn guard<T>(&self, call: impl FnOnce() -> Result<T, BackendError>) -> Result<T, BackendError> {
        let outcome = catch_unwind(AssertUnwindSafe(call))
            .unwrap_or(Err(BackendError::Damaged("the database gave up")));
        if let Err(error) = &outcome {
            tracing::warn!(%error, "store is poisoned until it is opened again");
            lock(&self.queue).poisoned = true;
        }
        outcome
    }

    /// The committer thread.
    fn run(&self) {
        while let Some(Work {
            disk,
            rows,
            sequence,
            done,
        }) = self.next()
        {
            let outcome = self.guard(|| {
                {
                    let _applying = self
                        .applying
                        .write()
                        .unwrap_or_else(PoisonError::into_inner);
                    disk.apply(sequence, &rows)?;
                }
                // The rows are found in the database from here on.
                lock(&self.queue).in_flight = None;
                disk.flush()?;
                disk.sync()
            });
            drop(disk);
            for (sequence, done) in done {
                answer(done, outcome.clone().map(|()| sequence));
            }
            if outcome.is_err() {
                self.refuse_waiting();
            }
        }
        self.refuse_waiting();
        self.let_go();
    }

    /// Waits for the next group to commit; `None` when the store is closed and nothing is left to do.
    fn next(&self) -> Option<Work<D>> {
        let mut queue = lock(&self.queue);
        loop {
            let urgent = queue.closing || queue.waiting.iter().any(|group| group.urgent > 0);
            let disk = queue.disk.clone();
            if urgent
                && !queue.poisoned
                && let Some(disk) = disk
                && let Some(group) = queue.waiting.pop_front()
            {
                let rows = Arc::new(group.rows);
                queue.in_flight = Some(Arc::clone(&rows));
                return Some(Work {
                    disk,
                    rows,
                    sequence: group.sequence,
                    done: group.done,
                });
            }
            if queue.closing {
                return None;
            }
            if queue.poisoned && !queue.waiting.is_empty() {
                drop(queue);
                self.refuse_waiting();
                queue = lock(&self.queue);
                continue;
            }
            queue = self
                .wake
                .wait(queue)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn refuse_waiting(&self) {
        let waiting = std::mem::take(&mut lock(&self.queue).waiting);
        for (_, done) in waiting.into_iter().flat_map(|group| group.done) {
            answer(done, Err(BackendError::Poisoned));
        }
    }

    /// Drops the disk, once nobody reads any more.
    fn let_go(&self) {
        let mut disk = lock(&self.queue).disk.take();
        drop(
            self.applying
                .write()
                .unwrap_or_else(PoisonError::into_inner),
        );
        while let Some(shared) = disk {
            disk = match Arc::try_unwrap(shared) {
                Ok(disk) => {
                    let _ = catch_unwind(AssertUnwindSafe(|| drop(disk)));
                    None
                }
                Err(shared) => {
                    thread::yield_now();
                    Some(shared)
                }
            };
        }
    }
}

/// A group on its way to the disk.
struct Work<D> {
    disk: Arc<D>,
    rows: Arc<RowMap>,
    sequence: u64,
    done: Vec<(u64, Completion)>,
}

/// Runs a completion. Its panics are its caller's affair, and must not end the thread that all others wait for.
fn answer(done: Completion, result: Result<u64, BackendError>) {
    let _ = catch_unwind(AssertUnwindSafe(|| done(result.map_err(StoreError::from))));
}

thread_local! {
    /// The locks that scans of this thread hold, by address.
    static SCANNED: RefCell<Vec<usize>> = const { RefCell::new(Vec::new()) };
}

/// Keeps groups from being applied while a scan runs. A scan within a scan rests on the outer one's hold, since taking a
/// lock twice for reading can wait for ever when a writer stands between.
struct Scanning<'l>(Option<(RwLockReadGuard<'l, ()>, usize)>);

impl<'l> Scanning<'l> {
    fn begin(lock: &'l RwLock<()>) -> Self {
        let address = std::ptr::from_ref(lock).addr();
        if SCANNED.with(|scanned| scanned.borrow().contains(&address)) {
            return Self(None);
        }
        let guard = lock.read().unwrap_or_else(PoisonError::into_inner);
        SCANNED.with(|scanned| scanned.borrow_mut().push(address));
        Self(Some((guard, address)))
    }
}

impl Drop for Scanning<'_> {
    fn drop(&mut self) {
        if let Some((_, address)) = &self.0 {
            SCANNED.with(|scanned| scanned.borrow_mut().retain(|held| held != address));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;
    use crate::conformance;
    use crate::sys::tests::PRETENDED;

    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    enum Step {
        Apply,
        Flush,
        Sync,
        Answer,
        Drop,
    }

    #[derive(Clone, Copy)]
    enum Fault {
        Full,
        Panic,
    }

    /// A disk in memory that tells what it did, waits when it is told to, and fails when it is told to.
    #[derive(Clone, Default)]
    struct Fake(Arc<Plan>);

    #[derive(Default)]
    struct Plan {
        rows: Mutex<BTreeMap<Vec<u8>, Vec<u8>>>,
        steps: Mutex<Vec<Step>>,
        fault: Mutex<Option<(Step, Fault)>>,
        /// While there is one, each sync waits for a word.
        gate: Mutex<Option<Receiver<()>>>,
    }

    impl Fake {
        fn step(&self, step: Step) -> Result<(), BackendError> {
            match *lock(&self.0.fault) {
                Some((at, Fault::Full)) if at == step => return Err(BackendError::Full),
                Some((at, Fault::Panic)) if at == step => panic!("as planned"),
                _ => {}
            }
            lock(&self.0.steps).push(step);
            Ok(())
        }

        fn steps(&self) -> Vec<Step> {
            lock(&self.0.steps).clone()
        }

        fn gated() -> (Self, Sender<()>) {
            let fake = Self::default();
            let (open, gate) = channel();
            *lock(&fake.0.gate) = Some(gate);
            (fake, open)
        }
    }

    /// What the committer owns; its end is a step too.
    struct Owned(Fake);

    impl Drop for Owned {
        fn drop(&mut self) {
            lock(&self.0.0.steps).push(Step::Drop);
        }
    }

    impl Disk for Owned {
        fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, BackendError> {
            Ok(lock(&self.0.0.rows).get(key).cloned())
        }

        fn scan(&self, prefix: &[u8], visit: Visit<'_>) -> Result<(), BackendError> {
            let rows = lock(&self.0.0.rows).clone();
            for (key, value) in rows.iter().filter(|(key, _)| key.starts_with(prefix)) {
                if visit(key, value).is_break() {
                    break;
                }
            }
            Ok(())
        }

        fn apply(&self, _: u64, rows: &RowMap) -> Result<(), BackendError> {
            self.0.step(Step::Apply)?;
            for (key, value) in rows {
                match value {
                    Some(value) => lock(&self.0.0.rows).insert(key.clone(), value.clone()),
                    None => lock(&self.0.0.rows).remove(key),
                };
            }
            Ok(())
        }

        fn flush(&self) -> Result<(), BackendError> {
            self.0.step(Step::Flush)
        }

        fn sync(&self) -> Result<(), BackendError> {
            if let Some(gate) = &*lock(&self.0.0.gate) {
                let _ = gate.recv();
            }
            self.0.step(Step::Sync)
        }
    }

    fn committer(fake: &Fake) -> Committer<Owned> {
        Committer::start(Owned(fake.clone()), 0).unwrap()
    }

    fn put(follows: u64, key: &[u8], value: &[u8]) -> Batch {
        let mut batch = Batch::after(follows);
        batch.put(key.to_vec(), value.to_vec());
        batch
    }

    fn submit(committer: &Committer<Owned>, batch: Batch) -> Receiver<Result<u64, StoreError>> {
        let (tell, told) = channel();
        committer.submit(batch, Box::new(move |result| drop(tell.send(result))));
        told
    }

    #[test]
    fn nothing_is_answered_before_it_is_applied_flushed_and_synced() {
        let fake = Fake::default();
        let committer = committer(&fake);
        let theirs = fake.clone();
        let (tell, told) = channel();
        committer.submit(
            put(0, b"\x01", b"1"),
            Box::new(move |result| {
                theirs.step(Step::Answer).unwrap();
                tell.send(result).unwrap();
            }),
        );
        told.recv().unwrap().unwrap();
        assert_eq!(
            fake.steps(),
            [Step::Apply, Step::Flush, Step::Sync, Step::Answer]
        );
        committer.close().unwrap();
        assert_eq!(fake.steps().last(), Some(&Step::Drop));
    }

    #[test]
    fn a_failure_at_any_step_poisons_everything_that_comes_after() {
        for step in [Step::Apply, Step::Flush, Step::Sync] {
            for fault in [Fault::Full, Fault::Panic] {
                let fake = Fake::default();
                let committer = committer(&fake);
                submit(&committer, put(0, b"\x01", b"1"))
                    .recv()
                    .unwrap()
                    .unwrap();
                *lock(&fake.0.fault) = Some((step, fault));
                let failed = submit(&committer, put(1, b"\x01", b"2")).recv().unwrap();
                match fault {
                    Fault::Full => assert!(matches!(failed, Err(StoreError::Full))),
                    Fault::Panic => assert!(matches!(failed, Err(StoreError::Damaged(_)))),
                }
                *lock(&fake.0.fault) = None;
                let poisoned = |error| matches!(error, BackendError::Poisoned);
                assert!(committer.get(b"\x01").is_err_and(poisoned));
                let scanned = committer.scan(b"", &mut |_, _| ControlFlow::Continue(()));
                assert!(scanned.is_err_and(poisoned));
                let later = submit(&committer, put(2, b"\x01", b"3")).recv().unwrap();
                assert!(matches!(later, Err(StoreError::Poisoned)));
                assert!(committer.close().is_err_and(poisoned));
                assert_eq!(fake.steps().last(), Some(&Step::Drop));
            }
        }
    }

    #[test]
    fn those_who_wait_behind_a_failure_hear_of_it_too() {
        let (fake, open) = Fake::gated();
        let committer = committer(&fake);
        let first = submit(&committer, put(0, b"\x01", b"1"));
        while fake.steps().len() < 2 {
            thread::yield_now();
        }
        let rest: Vec<_> = (1..200)
            .map(|n| submit(&committer, put(n, b"\x02", b"2")))
            .collect();
        let lazy = submit(&committer, put(200, b"\x02", b"2").lazy());
        *lock(&fake.0.fault) = Some((Step::Sync, Fault::Full));
        drop(open);
        assert!(matches!(first.recv().unwrap(), Err(StoreError::Full)));
        for answer in rest.into_iter().chain([lazy]) {
            assert!(matches!(answer.recv().unwrap(), Err(StoreError::Poisoned)));
        }
    }

    #[test]
    fn callers_share_syncs_while_the_disk_is_busy_and_keep_their_order() {
        let (fake, open) = Fake::gated();
        let committer = committer(&fake);
        let (tell, told) = channel();
        for n in 0..200_u64 {
            let tell = tell.clone();
            let batch = put(n, b"\x01", &n.to_be_bytes());
            committer.submit(
                batch,
                Box::new(move |result| tell.send(result.unwrap()).unwrap()),
            );
            assert_eq!(committer.get(b"\x01").unwrap().unwrap(), n.to_be_bytes());
        }
        let mut seen = None;
        committer
            .scan(b"", &mut |_, value| {
                seen = Some(value.to_vec());
                ControlFlow::Continue(())
            })
            .unwrap();
        assert_eq!(seen.unwrap(), 199_u64.to_be_bytes());
        assert!(told.try_recv().is_err());
        drop(open);
        let answers: Vec<u64> = told.iter().take(200).collect();
        assert_eq!(answers, (1..=200).collect::<Vec<_>>());
        let syncs = fake
            .steps()
            .iter()
            .filter(|step| **step == Step::Sync)
            .count();
        assert!((4..=5).contains(&syncs), "{syncs}");
    }

    #[test]
    fn lazy_batches_cost_no_sync_of_their_own() {
        let fake = Fake::default();
        let committer = committer(&fake);
        let lazy: Vec<_> = (0..100)
            .map(|n| submit(&committer, put(n, b"\x01", b"1").lazy()))
            .collect();
        thread::yield_now();
        assert_eq!(fake.steps(), []);
        submit(&committer, put(100, b"\x02", b"2"))
            .recv()
            .unwrap()
            .unwrap();
        assert!(lazy.iter().all(|answer| answer.recv().unwrap().is_ok()));
        assert_eq!(fake.steps(), [Step::Apply, Step::Flush, Step::Sync]);
        let last = submit(&committer, put(101, b"\x03", b"3").lazy());
        committer.close().unwrap();
        assert_eq!(last.recv().unwrap().unwrap(), 102);
        assert!(lock(&fake.0.rows).contains_key(b"\x03".as_slice()));
    }

    #[test]
    fn panic_in_a_completion_harms_nobody_else() {
        let fake = Fake::default();
        let committer = committer(&fake);
        committer.submit(put(0, b"\x01", b"1"), Box::new(|_| panic!("as planned")));
        assert_eq!(
            submit(&committer, put(1, b"\x01", b"2"))
                .recv()
                .unwrap()
                .unwrap(),
            2
        );
    }

    #[test]
    fn panic_in_a_visitor_is_its_own_and_poisons_nothing() {
        let committer = committer(&Fake::default());
        submit(&committer, put(0, b"\x01", b"1"))
            .recv()
            .unwrap()
            .unwrap();
        let scanned = catch_unwind(AssertUnwindSafe(|| {
            committer.scan(b"", &mut |_, _| panic!("as planned"))
        }));
        assert!(scanned.is_err());
        assert_eq!(committer.get(b"\x01").unwrap().unwrap(), b"1");
        submit(&committer, put(1, b"\x01", b"2"))
            .recv()
            .unwrap()
            .unwrap();
    }

    #[test]
    fn last_handle_may_be_dropped_by_a_completion() {
        let fake = Fake::default();
        let committer = Arc::new(committer(&fake));
        let theirs = Arc::clone(&committer);
        let (go, gone) = channel::<()>();
        let (tell, told) = channel();
        committer.submit(
            put(0, b"\x01", b"1"),
            Box::new(move |_| {
                let _ = gone.recv();
                drop(theirs);
                tell.send(()).unwrap();
            }),
        );
        drop(committer);
        drop(go);
        told.recv().unwrap();
        while fake.steps().last() != Some(&Step::Drop) {
            thread::yield_now();
        }
    }

    #[test]
    fn drop_in_a_forked_child_leaves_the_disk_alone() {
        let fake = Fake::default();
        let committer = committer(&fake);
        submit(&committer, put(0, b"\x01", b"1"))
            .recv()
            .unwrap()
            .unwrap();
        let before = fake.steps();
        thread::spawn(move || {
            PRETENDED.set(Some(process_id() ^ 1));
            drop(committer);
        })
        .join()
        .unwrap();
        assert_eq!(fake.steps(), before);
    }

    #[test]
    fn committer_conforms() {
        conformance::backend(|| committer(&Fake::default())).unwrap();
    }
}
