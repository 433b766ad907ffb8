//! The thread on which wakers and callbacks run, so that they are under no lock and never on the committer.

#[cfg(not(target_family = "wasm"))]
use crate::sync::Arc;

pub(crate) type Job = Box<dyn FnOnce() + Send>;

/// Runs jobs one after another, in order. Ends with its last clone.
#[derive(Clone)]
pub(crate) struct Notifier {
    #[cfg(not(target_family = "wasm"))]
    jobs: Arc<threaded::Jobs>,
}

impl Notifier {
    /// No thread begins before the first job.
    pub(crate) fn new() -> Self {
        Self {
            #[cfg(not(target_family = "wasm"))]
            jobs: Arc::default(),
        }
    }

    #[cfg(not(target_family = "wasm"))]
    pub(crate) fn run(&self, job: Job) {
        self.jobs.push(job);
    }

    /// Whether this process was forked from the one that made it: no thread will ever answer here.
    #[cfg(not(target_family = "wasm"))]
    pub(crate) fn is_inherited(&self) -> bool {
        self.jobs.is_inherited()
    }

    #[cfg(target_family = "wasm")]
    pub(crate) fn is_inherited(&self) -> bool {
        false
    }

    /// There is one thread: what completes there is never under a lock of ours.
    #[cfg(target_family = "wasm")]
    pub(crate) fn run(&self, job: Job) {
        job();
    }
}

#[cfg(not(target_family = "wasm"))]
mod threaded {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::Job;
    use crate::sync::mpsc::{Receiver, Sender, channel};
    use crate::sync::{Mutex, PoisonError};

    pub(super) struct Jobs {
        sender: Mutex<Option<Sender<Job>>>,
        process: u32,
    }

    impl Default for Jobs {
        fn default() -> Self {
            Self {
                sender: Mutex::default(),
                process: crate::sys::process(),
            }
        }
    }

    impl Jobs {
        pub(super) fn is_inherited(&self) -> bool {
            self.process != crate::sys::process()
        }

        pub(super) fn push(&self, job: Job) {
            if self.is_inherited() {
                // The thread does not exist here, and the lock may be held by one that does not either.
                let (fresh, jobs) = channel();
                let _ = fresh.send(job);
                crate::sys::spawn("sprag notifier", move || work(&jobs));
                return;
            }
            let mut sender = self.sender.lock().unwrap_or_else(PoisonError::into_inner);
            let sent = match sender.as_ref() {
                Some(sender) => sender.send(job).map_err(|unsent| unsent.0),
                None => Err(job),
            };
            if let Err(job) = sent {
                let (fresh, jobs) = channel();
                // The receiver lives in the thread that begins below.
                let _ = fresh.send(job);
                if crate::sys::spawn("sprag notifier", move || work(&jobs)) {
                    *sender = Some(fresh);
                }
            }
        }
    }

    impl Drop for Jobs {
        fn drop(&mut self) {
            if self.is_inherited() {
                // Telling the thread of its end would take a lock that it may have held when the process was forked.
                let sender = self
                    .sender
                    .get_mut()
                    .unwrap_or_else(PoisonError::into_inner);
                std::mem::forget(sender.take());
            }
        }
    }

    fn work(jobs: &Receiver<Job>) {
        while let Ok(job) = jobs.recv() {
            // A callback that panics is its author's; the others still run.
            let _ = catch_unwind(AssertUnwindSafe(job));
        }
    }
}
