//! What a place to keep rows must be able to do: the trait, and what goes through it.

use crate::error::{Cause, StoreError};
use crate::rows::Visit;
use crate::sync::{Arc, Mutex};
use crate::sys::lock;
use std::collections::BTreeMap;
use std::fmt;

/// Sealed rows by their physical name; `None` deletes.
pub type RowMap = BTreeMap<Vec<u8>, Option<Vec<u8>>>;

/// Called exactly once: with the sequence number when the batch is on stable storage, or with the reason why it is not
/// known to be. It may run on any thread, also before the call that it was given to returns; it must not wait for
/// another commit.
pub type Completion = Box<dyn FnOnce(Result<u64, StoreError>) + Send>;

/// The first byte of a physical name from which on names belong to the backend. Tables stay below.
pub const BACKEND_TABLES: u8 = 0xf0;

/// The largest sealed value, in bytes.
pub const MAX_SEALED: usize = 4_096;

/// A place that keeps rows. It sees names and values as the store sealed them, never in clear.
///
/// Gets and scans see every batch that was submitted, durable or not, each of them wholly or not at all. After a batch
/// failed, its outcome is unknown: all further calls fail with [`BackendError::Poisoned`].
pub trait Backend: Send + Sync + 'static {
    /// The value of a row.
    ///
    /// # Errors
    ///
    /// [`BackendError::Poisoned`] and [`BackendError::Closed`], and those of the medium.
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, BackendError>;

    /// Visits the rows whose name begins with `prefix`, in lexicographic order, with whole names. The visitor may get
    /// and scan; it must neither wait for a commit nor close.
    ///
    /// # Errors
    ///
    /// [`BackendError::Poisoned`] and [`BackendError::Closed`], and those of the medium.
    fn scan(&self, prefix: &[u8], visit: Visit<'_>) -> Result<(), BackendError>;

    /// Queues one atomic batch; batches take effect in the order submitted. `done` is called exactly once, when the
    /// batch is on stable storage or has failed. A batch that does not follow the one before it fails with
    /// [`BackendError::StoreInUse`]. A lazy batch may wait until one that is not lazy comes, or until the close.
    fn submit(&self, batch: Batch, done: Completion);

    /// Makes all that was submitted durable, and lets the medium go. Every call afterwards fails with
    /// [`BackendError::Closed`], but another close is fine.
    ///
    /// # Errors
    ///
    /// That of the last commit, if it failed. The medium was let go nevertheless.
    fn close(&self) -> Result<(), BackendError>;
}

/// One atomic step: rows to put and to delete, the number of the step and the one that it must follow (the *fence*).
#[derive(Clone)]
pub struct Batch {
    rows: RowMap,
    follows: u64,
    sequence: u64,
    lazy: bool,
}

impl Batch {
    /// An empty batch that comes right after the batch numbered `follows`. A fresh backend has seen batch 0.
    #[must_use]
    pub fn after(follows: u64) -> Self {
        Self {
            rows: RowMap::new(),
            follows,
            sequence: follows.saturating_add(1),
            lazy: false,
        }
    }

    /// Marks the batch as one that can wait for the next.
    #[must_use]
    pub fn lazy(mut self) -> Self {
        self.lazy = true;
        self
    }

    /// Writes a row.
    pub fn put(&mut self, key: Vec<u8>, value: Vec<u8>) {
        self.rows.insert(key, Some(value));
    }

    /// Deletes a row.
    pub fn delete(&mut self, key: Vec<u8>) {
        self.rows.insert(key, None);
    }

    /// The rows, in the order of their names; `None` deletes.
    #[must_use]
    pub fn rows(&self) -> &RowMap {
        &self.rows
    }

    /// The rows, taken out.
    #[must_use]
    pub fn into_rows(self) -> RowMap {
        self.rows
    }

    /// The number of this batch, or of the last one merged into it.
    #[must_use]
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// The number of the batch that must have come before.
    #[must_use]
    pub fn follows(&self) -> u64 {
        self.follows
    }

    /// Whether the batch can wait for the next.
    #[must_use]
    pub fn is_lazy(&self) -> bool {
        self.lazy
    }

    /// Puts the batch that comes next on top of this one: both together are one step, and the last word on a row counts.
    ///
    /// # Errors
    ///
    /// [`BackendError::StoreInUse`] if `next` does not follow this batch, which then stays as it is.
    pub fn merge(&mut self, next: Batch) -> Result<(), BackendError> {
        if next.follows != self.sequence {
            return Err(BackendError::StoreInUse);
        }
        self.rows.extend(next.rows);
        self.sequence = next.sequence;
        self.lazy &= next.lazy;
        Ok(())
    }

    /// What every backend checks: the order, and the sizes.
    pub(crate) fn check(&self, last: u64) -> Result<(), BackendError> {
        if self.follows != last || self.sequence <= last {
            return Err(BackendError::StoreInUse);
        }
        for (key, value) in &self.rows {
            if key.first().is_none_or(|table| *table >= BACKEND_TABLES) {
                return Err(BackendError::BadName);
            }
            if value.as_ref().is_some_and(|value| value.len() > MAX_SEALED) {
                return Err(BackendError::TooLarge);
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batch")
            .field("follows", &self.follows)
            .field("sequence", &self.sequence)
            .field("rows", &self.rows.len())
            .field("lazy", &self.lazy)
            .finish()
    }
}

/// Why a backend did not do what was asked.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum BackendError {
    /// An earlier batch failed.
    #[error("an earlier commit failed")]
    Poisoned,
    /// The batch does not follow the last one.
    #[error("store was written by somebody else")]
    StoreInUse,
    /// The backend was closed.
    #[error("backend is closed")]
    Closed,
    /// No space is left.
    #[error("no space left")]
    Full,
    /// A sealed value is larger than [`MAX_SEALED`].
    #[error("value is too large")]
    TooLarge,
    /// A name is empty, or begins with a byte from [`BACKEND_TABLES`] on.
    #[error("name is not allowed")]
    BadName,
    /// What is there is not what was written.
    #[error("damaged: {0}")]
    Damaged(&'static str),
    /// The operating system refused.
    #[error("could not be read or written")]
    Io(#[source] Cause),
    /// Anything else.
    #[error("backend failed")]
    Other(#[source] Cause),
}

impl From<std::io::Error> for BackendError {
    fn from(error: std::io::Error) -> Self {
        match error.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => Self::Full,
            _ => Self::Io(Arc::new(error)),
        }
    }
}

impl From<BackendError> for StoreError {
    fn from(error: BackendError) -> Self {
        match error {
            BackendError::Poisoned => Self::Poisoned,
            BackendError::StoreInUse => Self::StoreInUse,
            BackendError::Closed => Self::Closed,
            BackendError::Full => Self::Full,
            BackendError::TooLarge => Self::TooLarge,
            BackendError::BadName => Self::BadName,
            BackendError::Damaged(what) => Self::Damaged(what),
            BackendError::Io(cause) => Self::Io(cause),
            BackendError::Other(cause) => Self::Backend(cause),
        }
    }
}

/// Keeps a completion from running while a lock is held: what comes before the release waits for it.
pub(crate) struct Deferred(Arc<Mutex<Slot>>);

struct Slot {
    done: Option<Completion>,
    result: Option<Result<u64, StoreError>>,
    released: bool,
}

impl Deferred {
    /// The completion to pass on in place of `done`.
    pub(crate) fn new(done: Completion) -> (Self, Completion) {
        let slot = Arc::new(Mutex::new(Slot {
            done: Some(done),
            result: None,
            released: false,
        }));
        let theirs = Arc::clone(&slot);
        let completion = Box::new(move |result| {
            let done = {
                let mut slot = lock(&theirs);
                if !slot.released {
                    slot.result = Some(result);
                    return;
                }
                slot.done.take()
            };
            if let Some(done) = done {
                done(result);
            }
        });
        (Self(slot), completion)
    }

    /// To be called when no lock is held any more.
    pub(crate) fn release(self) {
        let ready = {
            let mut slot = lock(&self.0);
            slot.released = true;
            match slot.result.take() {
                Some(result) => slot.done.take().map(|done| (done, result)),
                None => None,
            }
        };
        if let Some((done, result)) = ready {
            done(result);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn merged_batches_are_one_step_and_the_last_word_counts() {
        let mut first = Batch::after(4).lazy();
        first.put(vec![1], vec![1]);
        first.put(vec![2], vec![1]);
        let mut second = Batch::after(5);
        second.delete(vec![1]);
        first.merge(second).unwrap();
        assert_eq!(
            (first.follows(), first.sequence(), first.is_lazy()),
            (4, 6, false)
        );
        assert_eq!(first.rows().get([1].as_slice()), Some(&None));
    }

    #[test]
    fn batch_that_does_not_follow_is_not_merged() {
        let mut first = Batch::after(4);
        for follows in [0, 4, 6] {
            assert!(matches!(
                first.merge(Batch::after(follows)),
                Err(BackendError::StoreInUse)
            ));
        }
        assert_eq!(first.sequence(), 5);
    }

    #[test]
    fn batch_is_refused_for_its_order_its_names_and_its_sizes() {
        let check = |key: &[u8], len: usize| {
            let mut batch = Batch::after(1);
            batch.put(key.to_vec(), vec![0; len]);
            batch.check(1)
        };
        check(&[1], MAX_SEALED).unwrap();
        assert!(matches!(
            check(&[1], MAX_SEALED + 1),
            Err(BackendError::TooLarge)
        ));
        assert!(matches!(check(&[], 1), Err(BackendError::BadName)));
        assert!(matches!(
            check(&[BACKEND_TABLES], 1),
            Err(BackendError::BadName)
        ));
        assert!(matches!(
            Batch::after(1).check(2),
            Err(BackendError::StoreInUse)
        ));
        assert!(matches!(
            Batch::after(u64::MAX).check(u64::MAX),
            Err(BackendError::StoreInUse)
        ));
    }

    #[test]
    fn deferred_completion_runs_once_and_not_before_the_release() {
        for early in [true, false] {
            let (tell, told) = mpsc::channel();
            let (deferred, done) =
                Deferred::new(Box::new(move |result| tell.send(result.unwrap()).unwrap()));
            if early {
                done(Ok(7));
                assert!(told.try_recv().is_err());
                deferred.release();
            } else {
                deferred.release();
                done(Ok(7));
            }
            assert_eq!(told.recv().unwrap(), 7);
            assert!(told.recv().is_err());
        }
    }
}
