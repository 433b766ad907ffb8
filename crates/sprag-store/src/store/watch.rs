//! The thread that tells the anchor how far a store is. No commit waits for it.

use std::cell::Cell;
use std::time::Duration;

use super::guard::{Handle, Opening, Standing};
use super::roll_back;
use crate::anchor::Anchor;
use crate::error::StoreError;
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, thread_local};
use crate::sys::{Moment, lock, spawn};

/// How often an anchor is told.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    /// Not more often than this, but for the commits below.
    pub(super) every: Duration,
    /// After so many commits at once.
    pub(super) commits: u64,
}

/// Every 256 commits or 10 seconds; the first commit after a rest at once.
pub(super) const PACE: Pace = Pace {
    every: Duration::from_secs(10),
    commits: 256,
};

/// How long an open waits for the anchor.
const OPEN: Duration = Duration::from_secs(10);
/// How long a close waits until the anchor knows the last commit.
const CLOSE: Duration = Duration::from_secs(5);

thread_local! {
    /// Whether this thread is a guard. It may drop the last handle of its store.
    static GUARDING: Cell<bool> = const { Cell::new(false) };
}

/// What the committer, the guard and its callers tell each other.
pub(super) struct Pulse {
    /// The last commit on stable storage.
    durable: AtomicU64,
    /// From which commit on the guard wants to be woken.
    wake_at: AtomicU64,
    desk: Mutex<Desk>,
    wake: Condvar,
    told: Condvar,
}

struct Desk {
    /// Which guard: a thread of an earlier one ends.
    generation: u64,
    running: bool,
    ending: bool,
    /// The open still waits for the first answer, and takes an alarm itself.
    opening: bool,
    asked: u64,
    answered: u64,
    last: Result<Standing, StoreError>,
}

/// What a guard is to do next.
struct Work {
    ticket: u64,
    last: bool,
}

/// What a guard did last.
struct Done {
    at: Option<Moment>,
    /// What was durable when it was tried.
    tried: u64,
    /// What the anchor knows.
    recorded: u64,
    missed: bool,
}

impl Pulse {
    pub(super) fn new(durable: u64) -> Self {
        Self {
            durable: AtomicU64::new(durable),
            wake_at: AtomicU64::new(u64::MAX),
            desk: Mutex::new(Desk {
                generation: 0,
                running: false,
                ending: false,
                opening: false,
                asked: 0,
                answered: 0,
                last: Ok(Standing::Unguarded),
            }),
            wake: Condvar::new(),
            told: Condvar::new(),
        }
    }

    pub(super) fn durable(&self) -> u64 {
        self.durable.load(Ordering::SeqCst)
    }

    /// A commit is durable. Called by the committer for each.
    pub(super) fn committed(&self, sequence: u64) {
        self.durable.fetch_max(sequence, Ordering::SeqCst);
        if sequence >= self.wake_at.load(Ordering::SeqCst) {
            // Under the lock, so that the guard is not between its look and its sleep.
            drop(lock(&self.desk));
            self.wake.notify_all();
        }
    }

    /// Starts the guard, and waits for its first answer.
    pub(super) fn begin(
        store: Handle,
        anchor: Arc<dyn Anchor>,
        opening: Opening,
        pace: Pace,
    ) -> Result<Standing, StoreError> {
        let pulse = Arc::clone(&store.pulse);
        let generation = {
            let mut desk = lock(&pulse.desk);
            desk.generation += 1;
            desk.running = true;
            desk.ending = false;
            desk.opening = true;
            desk.asked = 1;
            desk.answered = 0;
            desk.last = Ok(Standing::OutOfReach);
            desk.generation
        };
        let run = move || {
            GUARDING.with(|guarding| guarding.set(true));
            watch(&store, &*anchor, opening, pace, generation);
            // Perhaps the last handles of both.
            drop((store, anchor));
        };
        if let Err(error) = spawn("sprag-anchor", run) {
            lock(&pulse.desk).running = false;
            return Err(StoreError::io(error));
        }
        let mut desk = pulse.wait(1, Some(OPEN));
        desk.opening = false;
        desk.last.clone()
    }

    /// Waits until a question was answered, or for so long.
    fn wait(&self, ticket: u64, most: Option<Duration>) -> MutexGuard<'_, Desk> {
        let begun = Moment::now();
        let mut desk = lock(&self.desk);
        while desk.running && desk.answered < ticket {
            desk = match most {
                None => self.told.wait(desk).unwrap_or_else(PoisonError::into_inner),
                Some(most) => match most.checked_sub(begun.elapsed()) {
                    None | Some(Duration::ZERO) => break,
                    Some(left) => {
                        let waited = self.told.wait_timeout(desk, left);
                        waited.unwrap_or_else(PoisonError::into_inner).0
                    }
                },
            };
        }
        desk
    }

    /// Asks the guard to do its work now, and waits.
    pub(super) fn ask(&self) -> Result<Standing, StoreError> {
        let ticket = {
            let mut desk = lock(&self.desk);
            if !desk.running || GUARDING.with(Cell::get) {
                return desk.last.clone();
            }
            desk.asked += 1;
            self.wake.notify_all();
            desk.asked
        };
        self.wait(ticket, None).last.clone()
    }

    pub(super) fn standing(&self) -> Standing {
        let desk = lock(&self.desk);
        match desk.last {
            Ok(standing) => standing,
            Err(_) => Standing::Unguarded,
        }
    }

    /// Ends the guard, if there is one; waits, for a while, until it told the anchor of the last commit.
    pub(super) fn end(&self) {
        self.end_soon();
        if GUARDING.with(Cell::get) {
            return;
        }
        let mut desk = self.wait(u64::MAX, Some(CLOSE));
        // A guard that still waits for its anchor writes no more.
        desk.generation += 1;
        desk.running = false;
        desk.last = Ok(Standing::Unguarded);
    }

    /// Ends the guard without waiting for it.
    pub(super) fn end_soon(&self) {
        lock(&self.desk).ending = true;
        self.wake.notify_all();
    }

    /// Waits for something to do; `None` if another guard has come.
    fn next(&self, generation: u64, pace: Pace, done: &Done) -> Option<Work> {
        let mut desk = lock(&self.desk);
        loop {
            if desk.generation != generation {
                return None;
            }
            let work = Work {
                ticket: desk.asked,
                last: desk.ending,
            };
            let durable = self.durable();
            let rest = done
                .at
                .as_ref()
                .map_or(Duration::ZERO, |at| pace.every.saturating_sub(at.elapsed()));
            let wanted = done.missed || durable > done.recorded;
            let many = durable >= done.tried.saturating_add(pace.commits);
            if work.last || desk.answered < desk.asked || many || (wanted && rest.is_zero()) {
                return Some(work);
            }
            let wake_at = if wanted {
                done.tried.saturating_add(pace.commits)
            } else {
                done.recorded.saturating_add(1)
            };
            self.wake_at.store(wake_at, Ordering::SeqCst);
            if self.durable() >= wake_at {
                continue;
            }
            desk = if wanted {
                let waited = self.wake.wait_timeout(desk, rest);
                waited.unwrap_or_else(PoisonError::into_inner).0
            } else {
                self.wake.wait(desk).unwrap_or_else(PoisonError::into_inner)
            };
        }
    }

    /// Whether an alarm is the guard's to raise, and not the answer of an open.
    fn raises(&self, generation: u64, work: &Work) -> bool {
        let desk = lock(&self.desk);
        desk.generation == generation && !desk.opening && !work.last
    }

    /// Answers everybody who asked. Says whether an alarm is the guard's to raise.
    fn answer(&self, generation: u64, work: &Work, told: &Result<Standing, StoreError>) -> bool {
        let mut desk = lock(&self.desk);
        if desk.generation != generation {
            return false;
        }
        desk.answered = desk.answered.max(work.ticket);
        desk.last.clone_from(told);
        if work.last || told.is_err() {
            desk.running = false;
            self.wake_at.store(u64::MAX, Ordering::SeqCst);
        }
        self.told.notify_all();
        !desk.opening && !work.last
    }
}

/// The guard, until its store is closed or an alarm.
fn watch(store: &Handle, anchor: &dyn Anchor, mut opening: Opening, pace: Pace, generation: u64) {
    let pulse = &*store.pulse;
    let mut done = Done {
        at: None,
        tried: 0,
        recorded: 0,
        missed: true,
    };
    while let Some(work) = pulse.next(generation, pace, &done) {
        done.tried = pulse.durable();
        let told = if work.last && (!opening.taken || (!done.missed && done.tried == done.recorded))
        {
            // An opening that the anchor does not know yet cannot be entered any more.
            Ok(Standing::Unguarded)
        } else {
            opening.beat(anchor, store)
        };
        done.at = Some(Moment::now());
        done.missed = true;
        if let Ok(Standing::InReach { watermark }) = told {
            done.recorded = watermark;
            done.tried = watermark;
            done.missed = false;
        }
        if let Err(error) = &told {
            tracing::warn!(%error, "the guard of the store has ended");
            // Before anybody hears of it, so that nobody goes on after that.
            if pulse.raises(generation, &work) {
                roll_back(&store.store, error);
            }
        }
        // The open may have given up waiting just now.
        let raise = pulse.answer(generation, &work, &told);
        if let Err(error) = &told {
            if raise {
                roll_back(&store.store, error);
            }
            return;
        }
        if work.last {
            return;
        }
    }
}
