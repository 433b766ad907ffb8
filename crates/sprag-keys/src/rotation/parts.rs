//! What a job works on.

use std::error::Error;
use std::sync::Arc;

use rand_core::CryptoRng;
use zeroize::Zeroizing;

use super::RecordError;
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

/// Records that are not held in memory: large files, say. Whoever keeps them does all that is to be done with one; where they are
/// small, [`Records`] and a [`Sealer`] are less to write. Called from several threads at once.
pub trait Rotate: Sync {
    /// As [`Records::list`].
    ///
    /// # Errors
    ///
    /// Any; the job stops where it is and can go on later.
    fn list(&self, after: Option<&[u8]>, most: usize) -> Result<Vec<Vec<u8>>, Cause>;

    /// Puts a record under `target` if it is under an older version of this key: in one step and for good, if the record is still
    /// what was read, and after what was sealed anew was opened and compared.
    ///
    /// # Errors
    ///
    /// [`RecordError`]; counted against this record, which is as it was, or done.
    fn rotate(
        &self,
        name: &[u8],
        target: &VersionedKey,
        rng: &mut dyn CryptoRng,
    ) -> Result<Rotated, RecordError>;

    /// How many records there are, for showing progress, if that is cheap to know.
    fn count(&self) -> Option<u64> {
        None
    }
}

/// What became of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Rotated {
    /// It needed nothing: it is under the target or a newer version, under another key, or gone.
    Fine,
    /// It is under the target now.
    Resealed,
    /// Another wrote it meanwhile. The next pass looks again.
    Contended,
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
