//! What is on stable storage, and who waits for it.

use sprag_store::StoreError;

use crate::pending::Completer;
use crate::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What is called when a step is durable, or the store has failed.
type Wake = Box<dyn FnOnce(Result<(), StoreError>) + Send>;

/// The steps of one opening of the store, by their numbers.
pub(crate) struct Durable {
    progress: Mutex<Progress>,
    watch: Arc<Watch>,
}

#[derive(Default)]
struct Progress {
    /// Steps that are durable, in the order submitted.
    done: u64,
    failed: Option<StoreError>,
    waiting: Vec<(u64, Wake)>,
}

impl Durable {
    pub(crate) fn new(watch: Arc<Watch>) -> Arc<Self> {
        Arc::new(Self {
            progress: Mutex::default(),
            watch,
        })
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A step became durable, or the store failed for all.
    pub(crate) fn finish(&self, step: u64, result: Result<(), StoreError>) {
        let ready = {
            let mut progress = self.progress();
            match &result {
                Ok(()) => progress.done = progress.done.max(step),
                Err(error) => {
                    progress.failed.get_or_insert_with(|| error.clone());
                }
            }
            let failed = progress.failed.is_some();
            let done = progress.done;
            let (ready, waiting) = std::mem::take(&mut progress.waiting)
                .into_iter()
                .partition::<Vec<_>, _>(|(step, _)| failed || *step <= done);
            progress.waiting = waiting;
            ready
        };
        for (_, wake) in ready {
            wake(result.clone());
        }
        self.watch.changed();
    }

    /// Whether a step has failed, after which none of this opening does.
    pub(crate) fn has_failed(&self) -> bool {
        self.progress().failed.is_some()
    }

    /// Calls `wake` when the step is durable.
    pub(crate) fn when(&self, step: u64, wake: Wake) {
        let now = {
            let mut progress = self.progress();
            match (&progress.failed, progress.done >= step) {
                // What was durable before a failure stays so.
                (_, true) => Ok(()),
                (Some(error), false) => Err(error.clone()),
                (None, false) => {
                    progress.waiting.push((step, wake));
                    return;
                }
            }
        };
        wake(now);
    }
}

/// Who waits for a change of any kind. It outlives an opening of the store.
pub(crate) struct Watch(Mutex<Watching>);

struct Watching {
    /// Counts what `changed` waits for, from 1: whoever has seen nothing yet is to look at once.
    changes: u64,
    watching: Vec<Completer<u64>>,
}

impl Default for Watch {
    fn default() -> Self {
        Self(Mutex::new(Watching {
            changes: 1,
            watching: Vec::new(),
        }))
    }
}

impl Watch {
    fn lock(&self) -> MutexGuard<'_, Watching> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something has changed.
    pub(crate) fn changed(&self) {
        let (watching, changes) = {
            let mut watch = self.lock();
            watch.changes += 1;
            (std::mem::take(&mut watch.watching), watch.changes)
        };
        for completer in watching {
            completer.complete(Ok(changes));
        }
    }

    /// Completes with the number of the last change, at once if it is above `since`, else when there is another.
    pub(crate) fn since(&self, since: u64, completer: Completer<u64>) {
        let changes = {
            let mut watch = self.lock();
            if watch.changes <= since {
                watch.watching.push(completer);
                return;
            }
            watch.changes
        };
        completer.complete(Ok(changes));
    }

    /// Those who wait; there will be no change any more.
    pub(crate) fn take(&self) -> Vec<Completer<u64>> {
        std::mem::take(&mut self.lock().watching)
    }
}
