//! Rows that live as long as the process: an image whose sink forgets.

use crate::backend::{BackendError, Batch, Completion};
use crate::sink::{Image, Loaded, Sink};

/// A sink that keeps nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Forget(());

impl Sink for Forget {
    fn load(&self) -> Result<Loaded, BackendError> {
        Ok(Loaded::default())
    }

    fn append(&self, batch: Batch, done: Completion) {
        done(Ok(batch.sequence()));
    }
}

/// The backend in memory. Everything is "durable" at once, and gone with the process.
pub type MemoryBackend = Image<Forget>;

impl MemoryBackend {
    /// A backend without rows.
    #[must_use]
    pub fn new() -> Self {
        Self::with(Forget::default(), Loaded::default())
    }
}

impl Default for MemoryBackend {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance;

    #[test]
    fn memory_backend_conforms() {
        conformance::backend(MemoryBackend::new).unwrap();
    }
}
