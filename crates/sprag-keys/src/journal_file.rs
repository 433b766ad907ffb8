//! The state of a job in a file.

use std::path::PathBuf;
use std::sync::Arc;

use crate::{Cause, Journal, KeyError, sys};

/// A [`Journal`] in a file of its own, which only its owner may read and which is replaced whole.
///
/// Two processes that run the same job at the same time do no harm to the records, but each may undo what the other noted.
#[derive(Debug, Clone)]
pub struct JournalFile {
    path: PathBuf,
}

impl JournalFile {
    /// The most bytes of a journal.
    pub const MAX_BYTES: usize = 8_192;

    /// A file that need not be there yet.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }
}

impl Journal for JournalFile {
    fn load(&mut self) -> Result<Option<Vec<u8>>, Cause> {
        match sys::read_private(&self.path, Self::MAX_BYTES) {
            Ok(state) => Ok(Some(state.to_vec())),
            Err(KeyError::NotFound) => Ok(None),
            Err(error) => Err(Arc::new(error)),
        }
    }

    fn save(&mut self, state: &[u8]) -> Result<(), Cause> {
        let saved = sys::replace(&self.path, state);
        saved.map_err(|error| -> Cause { Arc::new(error) })
    }
}
