//! What a job works on.

use std::error::Error;
use std::sync::Arc;

use rand_core::CryptoRng;
use zeroize::Zeroizing;

use crate::{KeyId, KeyVersion, VersionedKey};

/// A failure of the place that records are in, or of the sealing.
pub type Cause = Arc<dyn Error + Send + Sync>;

/// Where the records are: four calls, from several threads at once.
pub trait Records: Sync {
    /// At most `most` names after `after`, in ascending order of their bytes; from the first if there is no `after`. Fewer
    /// than one means that there are no more.
    ///
    /// # Errors
    ///
    /// Any; the job stops where it is and can go on later.
    fn list(&self, after: Option<&[u8]>, most: usize) -> Result<Vec<Vec<u8>>, Cause>;

    /// A sealed record; `None` if there is none of this name (any more).
    ///
    /// # Errors
    ///
    /// Any; counted against this record.
    fn get(&self, name: &[u8]) -> Result<Option<Vec<u8>>, Cause>;

    /// Puts `new` in the place of `old`, in one step and for good, if the record is still `old`. `false` if it is not: then
    /// nothing was changed.
    ///
    /// # Errors
    ///
    /// Any; counted against this record. Whether the record is `old` or `new` afterwards may be open, but it is one of them.
    fn put_if_unchanged(&self, name: &[u8], old: &[u8], new: &[u8]) -> Result<bool, Cause>;

    /// How many records there are, for showing progress, if that is cheap to know.
    fn count(&self) -> Option<u64> {
        None
    }
}

/// How a record is sealed. Implemented by whoever knows the format.
pub trait Sealer: Sync {
    /// The key and version that a record is under, from the record or from what is kept beside it.
    ///
    /// # Errors
    ///
    /// Any; counted against this record.
    fn key_of(&self, name: &[u8], sealed: &[u8]) -> Result<(KeyId, KeyVersion), Cause>;

    /// Opens a record.
    ///
    /// # Errors
    ///
    /// Any; counted against this record.
    fn open(
        &self,
        key: &VersionedKey,
        name: &[u8],
        sealed: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, Cause>;

    /// Seals a record, so that [`key_of`](Self::key_of) names this key.
    ///
    /// # Errors
    ///
    /// Any; counted against this record.
    fn seal(
        &self,
        key: &VersionedKey,
        name: &[u8],
        plaintext: &[u8],
        rng: &mut dyn CryptoRng,
    ) -> Result<Vec<u8>, Cause>;
}

/// Where the state of a job is kept between two steps, and over a death of the process: one small value that is replaced
/// whole. [`JournalFile`](crate::JournalFile) is one.
pub trait Journal {
    /// What was saved last.
    ///
    /// # Errors
    ///
    /// Any.
    fn load(&mut self) -> Result<Option<Vec<u8>>, Cause>;

    /// Saves for good. Whatever happens, the old value is there or the new one.
    ///
    /// # Errors
    ///
    /// Any.
    fn save(&mut self, state: &[u8]) -> Result<(), Cause>;
}
