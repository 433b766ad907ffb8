//! The result of a verb, now or later: a future that needs no runtime.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
#[cfg(not(target_family = "wasm"))]
use std::time::Duration;

use crate::Error;
use crate::notifier::Notifier;
use crate::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// A verb that has begun. It goes on whether or not anybody waits for it: dropping a `Pending` cancels only the waiting.
///
/// Await it in any runtime, or use [`wait`](Self::wait), [`wait_timeout`](Self::wait_timeout) or
/// [`on_ready`](Self::on_ready) without one.
#[must_use = "a result that nobody looks at may be an error"]
pub struct Pending<T> {
    shared: Arc<Shared<T>>,
}

struct Shared<T> {
    slot: Mutex<Slot<T>>,
    ready: Condvar,
    notifier: Notifier,
}

enum Slot<T> {
    Waiting(Option<Waker>),
    Callback(Callback<T>),
    /// Another `Pending` of ours takes the result: no code of the caller runs.
    Forward(Callback<T>),
    Ready(Box<Result<T, Error>>),
    Taken,
}

type Callback<T> = Box<dyn FnOnce(Result<T, Error>) + Send>;

/// Where the result is put, once. If it is dropped instead, the client is gone: whoever waits hears `closed`.
pub(crate) struct Completer<T: Send + 'static> {
    shared: Option<Arc<Shared<T>>>,
}

impl<T> std::fmt::Debug for Pending<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pending").finish_non_exhaustive()
    }
}

impl<T> Shared<T> {
    fn slot(&self) -> MutexGuard<'_, Slot<T>> {
        self.slot.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: Send + 'static> Pending<T> {
    pub(crate) fn new(notifier: Notifier) -> (Completer<T>, Self) {
        let shared = Arc::new(Shared {
            slot: Mutex::new(Slot::Waiting(None)),
            ready: Condvar::new(),
            notifier,
        });
        (
            Completer {
                shared: Some(shared.clone()),
            },
            Self { shared },
        )
    }

    pub(crate) fn ready(notifier: Notifier, result: Result<T, Error>) -> Self {
        let slot = Mutex::new(Slot::Ready(Box::new(result)));
        Self {
            shared: Arc::new(Shared {
                slot,
                ready: Condvar::new(),
                notifier,
            }),
        }
    }

    /// Blocks this thread until the result is there.
    ///
    /// # Errors
    /// Those of the verb.
    #[cfg(not(target_family = "wasm"))]
    pub fn wait(self) -> Result<T, Error> {
        if self.shared.notifier.is_inherited() {
            return Err(Error::forked());
        }
        let mut slot = self.shared.slot();
        loop {
            match std::mem::replace(&mut *slot, Slot::Taken) {
                Slot::Ready(result) => return *result,
                Slot::Taken => return Err(Error::internal("a result that was taken before")),
                other => *slot = other,
            }
            slot = self
                .shared
                .ready
                .wait(slot)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Blocks this thread until the result is there, but not longer than `limit`. Afterwards the `Pending` comes back.
    ///
    /// # Errors
    /// `Ok(Err(..))` those of the verb; `Err(self)` if it is not ready in time.
    #[cfg(not(target_family = "wasm"))]
    pub fn wait_timeout(self, limit: Duration) -> Result<Result<T, Error>, Self> {
        if self.shared.notifier.is_inherited() {
            return Ok(Err(Error::forked()));
        }
        let slot = self.shared.slot();
        let waiting = |slot: &mut Slot<T>| {
            matches!(
                slot,
                Slot::Waiting(_) | Slot::Callback(_) | Slot::Forward(_)
            )
        };
        let waited = self.shared.ready.wait_timeout_while(slot, limit, waiting);
        let (mut slot, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
        if timeout.timed_out() && waiting(&mut slot) {
            drop(slot);
            return Err(self);
        }
        match std::mem::replace(&mut *slot, Slot::Taken) {
            Slot::Ready(result) => Ok(*result),
            _ => Ok(Err(Error::internal("a result that was taken before"))),
        }
    }

    /// Calls `then` with the result: on the notifier thread, under no lock, never on the committer. It may call the
    /// client again.
    pub fn on_ready(self, then: impl FnOnce(Result<T, Error>) + Send + 'static) {
        if self.shared.notifier.is_inherited() {
            let notifier = &self.shared.notifier;
            return notifier.run(Box::new(move || then(Err(Error::forked()))));
        }
        let mut slot = self.shared.slot();
        match std::mem::replace(&mut *slot, Slot::Taken) {
            Slot::Ready(result) => {
                drop(slot);
                self.shared.notifier.run(Box::new(move || then(*result)));
            }
            Slot::Taken => {}
            _ => *slot = Slot::Callback(Box::new(then)),
        }
    }

    /// Hands the result to something of ours that is short, wherever it is put.
    #[cfg(feature = "memory")]
    pub(crate) fn finally(self, then: impl FnOnce(Result<T, Error>) + Send + 'static) {
        let mut slot = self.shared.slot();
        match std::mem::replace(&mut *slot, Slot::Taken) {
            Slot::Ready(result) => {
                drop(slot);
                then(*result);
            }
            Slot::Taken => {
                drop(slot);
                then(Err(Error::internal("a result that was taken before")));
            }
            _ => *slot = Slot::Forward(Box::new(then)),
        }
    }

    /// The result, changed by `with` when it is there.
    pub(crate) fn and_then<U: Send + 'static>(
        self,
        with: impl FnOnce(T) -> Result<U, Error> + Send + 'static,
    ) -> Pending<U> {
        let notifier = self.shared.notifier.clone();
        let mut slot = self.shared.slot();
        match std::mem::replace(&mut *slot, Slot::Taken) {
            Slot::Ready(result) => Pending::ready(notifier, (*result).and_then(with)),
            Slot::Taken => Pending::ready(
                notifier,
                Err(Error::internal("a result that was taken before")),
            ),
            _ => {
                let (completer, pending) = Pending::new(notifier);
                *slot = Slot::Forward(Box::new(move |result| {
                    completer.complete(result.and_then(with))
                }));
                drop(slot);
                pending
            }
        }
    }
}

impl<T: Send + 'static> Completer<T> {
    /// Puts the result. Waiting threads wake at once; wakers and callbacks run on the notifier thread.
    pub(crate) fn complete(mut self, result: Result<T, Error>) {
        if let Some(shared) = self.shared.take() {
            shared.put(result);
        }
    }
}

impl<T: Send + 'static> Drop for Completer<T> {
    fn drop(&mut self) {
        // In a forked child nobody may touch the lock, and whoever waits is told by his own `Pending`.
        if let Some(shared) = self.shared.take()
            && !shared.notifier.is_inherited()
        {
            shared.put(Err(Error::closed()));
        }
    }
}

impl<T: Send + 'static> Shared<T> {
    fn put(&self, result: Result<T, Error>) {
        let mut slot = self.slot();
        let before = std::mem::replace(&mut *slot, Slot::Taken);
        match before {
            Slot::Callback(then) => {
                drop(slot);
                self.notifier.run(Box::new(move || then(result)));
            }
            Slot::Forward(then) => {
                drop(slot);
                then(result);
            }
            Slot::Waiting(waker) => {
                *slot = Slot::Ready(Box::new(result));
                drop(slot);
                self.ready.notify_all();
                if let Some(waker) = waker {
                    self.notifier.run(Box::new(move || waker.wake()));
                }
            }
            Slot::Ready(_) | Slot::Taken => {}
        }
    }
}

impl<T> Future for Pending<T> {
    type Output = Result<T, Error>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if self.shared.notifier.is_inherited() {
            return Poll::Ready(Err(Error::forked()));
        }
        let mut slot = self.shared.slot();
        match std::mem::replace(&mut *slot, Slot::Taken) {
            Slot::Ready(result) => Poll::Ready(*result),
            Slot::Taken => Poll::Ready(Err(Error::internal("a future polled after its end"))),
            other => {
                *slot = match other {
                    Slot::Waiting(_) => Slot::Waiting(Some(context.waker().clone())),
                    other => other,
                };
                Poll::Pending
            }
        }
    }
}
