//! A store that keeps its promises and has nothing else: reads see what was submitted, completions come in order and once
//! it is durable, from a thread of its own, and a failure is everybody's.

use std::collections::VecDeque;

use rows::{Changes, MemoryRows, RowName, Rows, Standing, StoreError, Visit};
use shuttle::sync::{Arc, Condvar, Mutex, MutexGuard};
use shuttle::thread;
use zeroize::Zeroizing;

type Completion = Box<dyn FnOnce(Result<u64, StoreError>) + Send>;

/// What survives a store.
#[derive(Clone, Default)]
pub struct Disk(Arc<Mutex<Platter>>);

#[derive(Default)]
struct Platter {
    rows: Arc<MemoryRows>,
    writes: u32,
    fails_at: Option<u32>,
    open: bool,
}

impl Disk {
    pub(crate) fn new(rows: &Arc<MemoryRows>) -> Self {
        let disk = Self::default();
        disk.platter().rows = Arc::clone(rows);
        disk
    }

    fn platter(&self) -> MutexGuard<'_, Platter> {
        self.0.lock().unwrap()
    }

    pub(crate) fn fail_at(&self, write: u32) {
        self.platter().fails_at = Some(write);
    }

    pub(crate) fn get(&self, name: &RowName) -> Option<Zeroizing<Vec<u8>>> {
        self.platter().rows.get(name).unwrap()
    }

    pub(crate) fn is_open(&self) -> bool {
        self.platter().open
    }
}

#[derive(Clone)]
pub struct Store(Arc<Inner>);

struct Inner {
    shared: Arc<Shared>,
    thread: Mutex<Option<thread::JoinHandle<()>>>,
    id: thread::ThreadId,
}

struct Shared {
    disk: Disk,
    desk: Mutex<Desk>,
    wake: Condvar,
}

struct Desk {
    rows: Arc<MemoryRows>,
    waiting: VecDeque<(Changes, Option<Completion>)>,
    /// Whether something waits that is not lazy.
    urgent: bool,
    sequence: u64,
    poisoned: bool,
    closed: bool,
}

impl Desk {
    fn ready(&self) -> Result<(), StoreError> {
        if self.closed {
            Err(StoreError::Closed)
        } else if self.poisoned {
            Err(StoreError::Poisoned)
        } else {
            Ok(())
        }
    }
}

impl Store {
    pub fn open(disk: &Disk) -> Self {
        let rows = {
            let mut platter = disk.platter();
            assert!(!platter.open, "a store is open once");
            platter.open = true;
            Arc::clone(&platter.rows)
        };
        let shared = Arc::new(Shared {
            disk: disk.clone(),
            desk: Mutex::new(Desk {
                rows,
                waiting: VecDeque::new(),
                urgent: false,
                sequence: 0,
                poisoned: false,
                closed: false,
            }),
            wake: Condvar::new(),
        });
        let theirs = Arc::clone(&shared);
        let thread = thread::spawn(move || theirs.run());
        Self(Arc::new(Inner {
            shared,
            id: thread.thread().id(),
            thread: Mutex::new(Some(thread)),
        }))
    }

    fn queue(
        &self,
        changes: Changes,
        done: Option<Completion>,
    ) -> Result<(), (StoreError, Option<Completion>)> {
        let mut desk = self.0.shared.desk.lock().unwrap();
        if let Err(error) = desk.ready() {
            return Err((error, done));
        }
        let mut rows = (*desk.rows).clone();
        rows.apply(changes.clone());
        desk.rows = Arc::new(rows);
        desk.urgent |= done.is_some();
        desk.waiting.push_back((changes, done));
        if desk.urgent {
            self.0.shared.wake.notify_one();
        }
        Ok(())
    }

    pub fn submit(&self, changes: Changes, done: Completion) {
        if let Err((error, Some(done))) = self.queue(changes, Some(done)) {
            done(Err(error));
        }
    }

    pub fn submit_lazy(&self, changes: Changes) -> Result<(), StoreError> {
        self.queue(changes, None).map_err(|(error, _)| error)
    }

    pub fn commit_blocking(&self, _: Changes) -> Result<u64, StoreError> {
        Err(StoreError::Internal("no model makes a profile"))
    }

    pub fn close(&self) -> Result<(), StoreError> {
        self.0.shared.end();
        if thread::current().id() != self.0.id {
            let mut thread = self.0.thread.lock().unwrap();
            if let Some(thread) = thread.take() {
                thread.join().unwrap();
            }
        }
        if self.0.shared.desk.lock().unwrap().poisoned {
            return Err(StoreError::Poisoned);
        }
        Ok(())
    }

    pub fn renew(&self) -> Result<(), StoreError> {
        self.0.shared.desk.lock().unwrap().ready()
    }

    pub fn is_renewable(&self) -> bool {
        true
    }

    pub fn commits_since_renewal(&self) -> u64 {
        u64::MAX
    }

    pub fn anchor_standing(&self) -> Standing {
        Standing::Unguarded
    }
}

impl Shared {
    fn end(&self) {
        self.desk.lock().unwrap().closed = true;
        self.wake.notify_one();
    }

    fn run(&self) {
        loop {
            let (batches, poisoned, first) = {
                let mut desk = self.desk.lock().unwrap();
                while !desk.urgent && !desk.closed {
                    desk = self.wake.wait(desk).unwrap();
                }
                if desk.waiting.is_empty() && desk.closed {
                    break;
                }
                desk.urgent = false;
                let first = desk.sequence + 1;
                let batches = std::mem::take(&mut desk.waiting);
                desk.sequence += u64::try_from(batches.len()).unwrap();
                (batches, desk.poisoned, first)
            };
            let mut done = Vec::new();
            let mut outcome = if poisoned {
                Err(StoreError::Poisoned)
            } else {
                Ok(())
            };
            if !poisoned {
                let mut platter = self.disk.platter();
                platter.writes += 1;
                if platter.fails_at == Some(platter.writes) {
                    outcome = Err(StoreError::Full);
                } else {
                    let mut rows = (*platter.rows).clone();
                    for (changes, _) in &batches {
                        rows.apply(changes.clone());
                    }
                    platter.rows = Arc::new(rows);
                }
            }
            for (number, (_, completion)) in (first..).zip(batches) {
                done.extend(completion.map(|completion| (number, completion)));
            }
            if outcome.is_err() {
                self.desk.lock().unwrap().poisoned = true;
            }
            for (number, completion) in done {
                completion(outcome.clone().map(|()| number));
            }
        }
        self.disk.platter().open = false;
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.shared.end();
    }
}

impl Rows for Store {
    fn get(&self, name: &RowName) -> Result<Option<Zeroizing<Vec<u8>>>, StoreError> {
        let rows = {
            let desk = self.0.shared.desk.lock().unwrap();
            desk.ready()?;
            Arc::clone(&desk.rows)
        };
        rows.get(name)
    }

    fn scan_except(
        &self,
        prefix: &RowName,
        except: &[&RowName],
        visit: Visit<'_>,
    ) -> Result<(), StoreError> {
        let rows = {
            let desk = self.0.shared.desk.lock().unwrap();
            desk.ready()?;
            Arc::clone(&desk.rows)
        };
        rows.scan_except(prefix, except, visit)
    }
}
