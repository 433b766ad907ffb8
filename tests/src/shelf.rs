//! A place for rows that a test can watch, hold back, break and set back.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sprag_store::{BackendError, Batch, Completion, Loaded, Sink, StoreError};

/// One row of a batch, as the medium saw it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Written {
    /// The table.
    pub table: u8,
    /// Whether the row was there before.
    pub rewritten: bool,
    /// Bytes of the sealed value; 0 if it was deleted.
    pub bytes: usize,
}

/// Rows that outlive the client on them. All clones are one shelf.
#[derive(Clone, Default)]
pub struct Shelf(Arc<Inner>);

#[derive(Default)]
struct Inner {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// What is on stable storage.
    durable: Loaded,
    fault: Option<BackendError>,
    holding: bool,
    held: Vec<(Batch, Completion)>,
    batches: Vec<Vec<Written>>,
}

impl std::fmt::Debug for Shelf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shelf").finish_non_exhaustive()
    }
}

impl Shelf {
    /// An empty one.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// One that holds rows from elsewhere.
    #[must_use]
    pub fn of(rows: Loaded) -> Self {
        let shelf = Self::new();
        shelf.state().durable = rows;
        shelf
    }

    /// What is on stable storage now.
    #[must_use]
    pub fn durable(&self) -> Loaded {
        self.state().durable.clone()
    }

    /// One that holds what a power cut would leave of this one now.
    #[must_use]
    pub fn after_power_cut(&self) -> Self {
        let shelf = Self::new();
        shelf.state().durable = self.state().durable.clone();
        shelf
    }

    /// One that holds what a power cut would leave if the medium had taken so many of the batches that wait, and nobody
    /// was told.
    #[must_use]
    pub fn after_power_cut_with(&self, taken: usize) -> Self {
        let shelf = self.after_power_cut();
        for (batch, _) in self.state().held.iter().take(taken) {
            // One that the medium refuses is not taken.
            let _ = shelf.state().durable.apply(batch);
        }
        shelf
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on batches wait, until [`release`](Self::release).
    pub fn hold(&self) {
        self.state().holding = true;
    }

    /// Batches that wait.
    #[must_use]
    pub fn held(&self) -> usize {
        self.state().held.len()
    }

    /// Makes durable what waits, in order; new batches wait no more.
    pub fn release(&self) {
        loop {
            let (batch, done) = {
                let mut state = self.state();
                if state.held.is_empty() {
                    state.holding = false;
                    return;
                }
                state.held.remove(0)
            };
            let outcome = self.state().apply(&batch);
            done(outcome.map(|()| batch.sequence()).map_err(StoreError::from));
        }
    }

    /// Lets every further batch fail.
    pub fn break_with(&self, fault: BackendError) {
        self.state().fault = Some(fault);
    }

    /// Batches do not fail any more.
    pub fn mend(&self) {
        self.state().fault = None;
    }

    /// What was written since the last call: one list per batch.
    #[allow(
        clippy::must_use_candidate,
        reason = "also called to forget what was written"
    )]
    pub fn take_written(&self) -> Vec<Vec<Written>> {
        std::mem::take(&mut self.state().batches)
    }

    /// Rows of a table.
    #[must_use]
    pub fn count(&self, table: u8) -> usize {
        let state = self.state();
        let rows = state.durable.rows.keys();
        rows.filter(|key| key.first() == Some(&table)).count()
    }
}

impl State {
    fn apply(&mut self, batch: &Batch) -> Result<(), BackendError> {
        if let Some(fault) = &self.fault {
            return Err(fault.clone());
        }
        let written = batch.rows().iter().map(|(key, value)| Written {
            table: key.first().copied().unwrap_or_default(),
            rewritten: self.durable.rows.contains_key(key),
            bytes: value.as_ref().map_or(0, Vec::len),
        });
        let written = written.collect();
        self.durable.apply(batch)?;
        self.batches.push(written);
        Ok(())
    }
}

impl Sink for Shelf {
    fn load(&self) -> Result<Loaded, BackendError> {
        Ok(self.state().durable.clone())
    }

    fn append(&self, batch: Batch, done: Completion) {
        let outcome = {
            let mut state = self.state();
            if state.holding {
                state.held.push((batch, done));
                return;
            }
            state.apply(&batch)
        };
        done(outcome.map(|()| batch.sequence()).map_err(StoreError::from));
    }
}
