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
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};
use std::thread::{self, JoinHandle, ThreadId};

use crate::backend::{Backend, BackendError, Batch, Completion, RowMap};
use crate::error::StoreError;
use crate::sys::{lock, process_id};

/// The most batches that are written as one. Lazy ones do not count.
const MAX_GROUP: usize = 64;

/// The durable step, as a seam: a database that does not sync on its own.
pub(crate) trait Disk: Send + Sync + 'static {
    /// The value of a row.
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, BackendError>;

    /// The rows below a prefix, in order.
    fn scan(
        &self,
        prefix: &[u8],
        visit: &mut dyn FnMut(&[u8], &[u8]) -> ControlFlow<()>,
    ) -> Result<(), BackendError>;

    /// Writes rows, all or none, with the number of the batch.
    fn apply(&self, sequence: u64, rows: &RowMap) -> Result<(), BackendError>;

    /// Hands what was applied to the operating system.
    fn flush(&self) -> Result<(), BackendError>;

    /// Returns when what was flushed is on stable storage.
    fn sync(&self) -> Result<(), BackendError>;
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

    /// The number of the last batch submitted.
    pub(crate) fn last(&self) -> u64 {
        lock(&self.shared.queue).last
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

    fn scan(
        &self,
        prefix: &[u8],
        visit: &mut dyn FnMut(&[u8], &[u8]) -> ControlFlow<()>,
    ) -> Result<(), BackendError> {
        let _held = Scanning::begin(&self.shared.applying);
        let (disk, pending) = {
            let queue = self.shared.readable()?;
            (queue.disk()?, queue.pending_below(prefix))
        };
        let mut pending = pending.into_iter().peekable();
        let mut flow = ControlFlow::Continue(());
        self.shared.guard(|| {
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
        })?;
        for (key, value) in pending {
            if flow.is_break() {
                break;
            }
            flow = value.map_or(flow, |value| visit(&key, &value));
        }
        Ok(())
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
        if outcome.is_err() {
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
        if SCANNED.with_borrow(|scanned| scanned.contains(&address)) {
            return Self(None);
        }
        let guard = lock.read().unwrap_or_else(PoisonError::into_inner);
        SCANNED.with_borrow_mut(|scanned| scanned.push(address));
        Self(Some((guard, address)))
    }
}

impl Drop for Scanning<'_> {
    fn drop(&mut self) {
        if let Some((_, address)) = &self.0 {
            SCANNED.with_borrow_mut(|scanned| scanned.retain(|held| held != address));
        }
    }
}
