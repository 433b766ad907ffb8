//! The smaller trait: whoever can load rows and append batches becomes a backend.

use std::collections::BTreeMap;
use std::fmt;

use crate::backend::{Backend, BackendError, Batch, Completion, Deferred};
use crate::error::StoreError;
use crate::rows::Visit;
use crate::sync::{Arc, Mutex};
use crate::sys::lock;

/// What a [`Sink`] held when it was loaded.
#[derive(Clone, Default)]
#[non_exhaustive]
pub struct Loaded {
    /// The number of the last batch that was appended, 0 if there was none.
    pub sequence: u64,
    /// All rows.
    pub rows: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Loaded {
    /// What a sink holds after the batch numbered `sequence`.
    #[must_use]
    pub fn new(sequence: u64, rows: BTreeMap<Vec<u8>, Vec<u8>>) -> Self {
        Self { sequence, rows }
    }

    /// Takes a batch in, as a sink would.
    ///
    /// # Errors
    ///
    /// [`BackendError::StoreInUse`] if the batch does not follow, [`BackendError::TooLarge`] and
    /// [`BackendError::BadName`] for its rows; then nothing is changed.
    pub fn apply(&mut self, batch: &Batch) -> Result<(), BackendError> {
        batch.check(self.sequence)?;
        self.sequence = batch.sequence();
        for (key, value) in batch.rows() {
            match value {
                Some(value) => self.rows.insert(key.clone(), value.clone()),
                None => self.rows.remove(key),
            };
        }
        Ok(())
    }
}

impl fmt::Debug for Loaded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Loaded")
            .field("sequence", &self.sequence)
            .field("rows", &self.rows.len())
            .finish()
    }
}

/// A place that can be read as a whole and appended to: a browser's database, a remote store, another language's.
/// [`Image`] makes a backend of it that keeps all rows in memory.
pub trait Sink: Send + Sync + 'static {
    /// All rows, and the number of the last batch.
    ///
    /// # Errors
    ///
    /// Those of the medium.
    fn load(&self) -> Result<Loaded, BackendError>;

    /// Makes a batch durable, wholly or not at all, in the order of the calls, and then calls `done`, once. A batch that
    /// does not follow the last one, because somebody else wrote, fails with [`BackendError::StoreInUse`]. The sink is
    /// called under a lock and must not wait for anything that its caller does.
    fn append(&self, batch: Batch, done: Completion);

    /// Lets the medium go, after all that was appended is durable.
    ///
    /// # Errors
    ///
    /// Those of the medium.
    fn close(&self) -> Result<(), BackendError> {
        Ok(())
    }
}

/// A backend over a [`Sink`]: the rows in memory, each batch handed on.
pub struct Image<S> {
    sink: S,
    state: Arc<Mutex<State>>,
}

struct State {
    /// Copied on write only while a scan is looking at it.
    loaded: Arc<Loaded>,
    /// What waits for the next batch.
    lazy: Option<(Batch, Waiting)>,
    failed: Option<BackendError>,
}

impl<S: Sink> Image<S> {
    /// Loads the rows of a sink.
    ///
    /// # Errors
    ///
    /// Those of the sink.
    pub fn load(sink: S) -> Result<Self, BackendError> {
        let loaded = sink.load()?;
        Ok(Self::with(sink, loaded))
    }

    /// An image of a sink that holds `loaded`.
    pub(crate) fn with(sink: S, loaded: Loaded) -> Self {
        Self {
            sink,
            state: Arc::new(Mutex::new(State {
                loaded: Arc::new(loaded),
                lazy: None,
                failed: None,
            })),
        }
    }

    fn snapshot(&self) -> Result<Arc<Loaded>, BackendError> {
        let state = lock(&self.state);
        match &state.failed {
            Some(error) => Err(error.clone()),
            None => Ok(Arc::clone(&state.loaded)),
        }
    }

    /// The completion to give to the sink: a failure poisons the image, and all who waited hear of it.
    fn completion(&self, waiting: Waiting) -> Completion {
        let state = Arc::clone(&self.state);
        Box::new(move |result| {
            if result.is_err() {
                lock(&state).failed.get_or_insert(BackendError::Poisoned);
            }
            for (sequence, done) in waiting {
                done(result.clone().map(|_| sequence));
            }
        })
    }

    /// Queues a batch, or fails. The caller holds the lock and releases what it gets without it.
    fn enqueue(
        &self,
        state: &mut State,
        batch: Batch,
        done: Completion,
    ) -> Result<Option<Deferred>, Refused> {
        if let Some(error) = &state.failed {
            return Err((error.clone(), done));
        }
        if let Err(error) = batch.check(state.loaded.sequence) {
            state.failed = Some(BackendError::Poisoned);
            return Err((error, done));
        }
        if let Err(error) = Arc::make_mut(&mut state.loaded).apply(&batch) {
            return Err((error, done));
        }
        let sequence = batch.sequence();
        let (merged, mut waiting) = match state.lazy.take() {
            None => (batch, Vec::new()),
            Some((mut earlier, waiting)) => match earlier.merge(batch) {
                Ok(()) => (earlier, waiting),
                Err(error) => return Err((error, done)),
            },
        };
        waiting.push((sequence, done));
        if merged.is_lazy() {
            state.lazy = Some((merged, waiting));
            return Ok(None);
        }
        Ok(Some(self.append(merged, waiting)))
    }

    fn append(&self, batch: Batch, waiting: Waiting) -> Deferred {
        let (deferred, done) = Deferred::new(self.completion(waiting));
        self.sink.append(batch, done);
        deferred
    }
}

type Refused = (BackendError, Completion);

/// Completions, with the numbers of their batches.
type Waiting = Vec<(u64, Completion)>;

impl<S> fmt::Debug for Image<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Image").finish_non_exhaustive()
    }
}

impl<S: Sink> Backend for Image<S> {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, BackendError> {
        let state = lock(&self.state);
        match &state.failed {
            Some(error) => Err(error.clone()),
            None => Ok(state.loaded.rows.get(key).cloned()),
        }
    }

    fn scan(&self, prefix: &[u8], visit: Visit<'_>) -> Result<(), BackendError> {
        let loaded = self.snapshot()?;
        let from = std::ops::Bound::Included(prefix);
        for (key, value) in loaded
            .rows
            .range::<[u8], _>((from, std::ops::Bound::Unbounded))
        {
            if !key.starts_with(prefix) || visit(key, value).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn submit(&self, batch: Batch, done: Completion) {
        let outcome = {
            let mut state = lock(&self.state);
            self.enqueue(&mut state, batch, done)
        };
        match outcome {
            Ok(None) => {}
            Ok(Some(deferred)) => deferred.release(),
            Err((error, done)) => done(Err(error.into())),
        }
    }

    fn close(&self) -> Result<(), BackendError> {
        let (lazy, failed) = {
            let mut state = lock(&self.state);
            let lazy = match state.lazy.take() {
                Some((batch, waiting)) if state.failed.is_none() => Ok(self.append(batch, waiting)),
                Some((_, waiting)) => Err(waiting),
                None => Err(Vec::new()),
            };
            (lazy, state.failed.replace(BackendError::Closed))
        };
        match lazy {
            Ok(deferred) => deferred.release(),
            Err(waiting) => waiting
                .into_iter()
                .for_each(|(_, done)| done(Err(StoreError::Poisoned))),
        }
        match failed {
            Some(BackendError::Closed) => Ok(()),
            Some(error) => self.sink.close().and(Err(error)),
            None => self.sink.close(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;
    use crate::conformance;

    /// A place that several sinks write to, as two tabs of a browser do. It answers later, from a thread of its own.
    #[derive(Clone)]
    struct Shared {
        place: Arc<Mutex<Loaded>>,
        later: mpsc::Sender<(Completion, Result<u64, StoreError>)>,
    }

    impl Default for Shared {
        fn default() -> Self {
            let (later, answers) = mpsc::channel::<(Completion, Result<u64, StoreError>)>();
            std::thread::spawn(move || answers.into_iter().for_each(|(done, result)| done(result)));
            Self {
                place: Arc::default(),
                later,
            }
        }
    }

    impl Sink for Shared {
        fn load(&self) -> Result<Loaded, BackendError> {
            Ok(lock(&self.place).clone())
        }

        fn append(&self, batch: Batch, done: Completion) {
            let outcome = lock(&self.place).apply(&batch);
            let result = outcome.map(|()| batch.sequence()).map_err(StoreError::from);
            self.later.send((done, result)).unwrap();
        }
    }

    #[test]
    fn image_conforms() {
        conformance::backend(|| Image::load(Shared::default()).unwrap()).unwrap();
        let place = Shared::default();
        conformance::durable_backend(|| Image::load(place.clone()).unwrap()).unwrap();
    }

    #[test]
    fn sink_conforms() {
        let place = Shared::default();
        conformance::sink(|| place.clone()).unwrap();
    }

    #[test]
    fn sink_without_a_fence_is_found_out() {
        struct Careless(Shared);
        impl Sink for Careless {
            fn load(&self) -> Result<Loaded, BackendError> {
                self.0.load()
            }
            fn append(&self, batch: Batch, done: Completion) {
                lock(&self.0.place).sequence = batch.follows();
                self.0.append(batch, done);
            }
        }
        let place = Shared::default();
        assert!(conformance::sink(|| Careless(place.clone())).is_err());
    }

    #[test]
    fn second_writer_loses_and_is_poisoned() {
        let place = Shared::default();
        let first = Image::load(place.clone()).unwrap();
        let second = Image::load(place.clone()).unwrap();
        let submit = |image: &Image<Shared>| {
            let (tell, told) = mpsc::channel();
            image.submit(
                Batch::after(0),
                Box::new(move |result| tell.send(result).unwrap()),
            );
            told.recv().unwrap()
        };
        submit(&first).unwrap();
        assert!(matches!(submit(&second), Err(StoreError::StoreInUse)));
        assert!(matches!(second.get(b"\x01"), Err(BackendError::Poisoned)));
        first.get(b"\x01").unwrap();
    }
}
