//! What a job tells.

use crate::{Cause, SourceError};

/// How far a job is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Progress {
    /// There is more to do: call [`step`](crate::RotationJob::step) again.
    Running(Report),
    /// One whole pass found nothing under an older version. Older versions can be destroyed.
    Finished(Report),
    /// A pass ended with records that could not be done: see [`failures`](crate::RotationJob::failures). Another
    /// [`step`](crate::RotationJob::step) begins another pass. Destroy nothing.
    Blocked(Report),
}

impl Progress {
    /// Its figures.
    #[must_use]
    pub fn report(&self) -> Report {
        let (Self::Running(report) | Self::Finished(report) | Self::Blocked(report)) = self;
        *report
    }
}

/// The figures of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Report {
    /// The pass, from 1. Most jobs need two: the second finds that nothing is left.
    pub pass: u32,
    /// Records that this pass has looked at.
    pub seen: u64,
    /// Records that there are, if that is known.
    pub total: Option<u64>,
    /// Records put under the new version, in all passes. Those of a step that ended in a death may be missing.
    pub resealed: u64,
    /// Records of this pass that could not be done.
    pub failed: u64,
}

/// A record that could not be done. It is as it was.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Failure {
    /// Its name.
    pub name: Vec<u8>,
    /// Why.
    pub cause: RecordError,
}

/// Why a record could not be done.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum RecordError {
    /// The key that it is under could not be had.
    #[error(transparent)]
    Key(#[from] SourceError),
    /// The place of the records failed at it.
    #[error("record could not be read or written")]
    Records(#[source] Cause),
    /// It does not open, or could not be sealed.
    #[error("record could not be opened or sealed")]
    Sealer(#[source] Cause),
    /// What was sealed anew did not open as the same text under the new version. It was not written.
    #[error("record was not the same after sealing")]
    Changed,
    /// Something panicked at it.
    #[error("record made its handler panic")]
    Panicked,
}

/// Why a job was not begun or made no step.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum RotationError {
    /// The journal has a job for another key, which is not finished. Finish it, or use another journal.
    #[error("journal has an unfinished job of another key")]
    OtherJob,
    /// The journal has a job of this key with a newer version. Records never go back.
    #[error("journal has a job with a newer version")]
    OlderVersion,
    /// The key to seal with could not be had. Nothing was done.
    #[error(transparent)]
    Key(#[from] SourceError),
    /// The names of the records could not be listed, or not in their order.
    #[error("records could not be listed")]
    Records(#[source] Cause),
    /// The journal could not be read or written. What was done since is done, and will be seen again.
    #[error("journal could not be read or written")]
    Journal(#[source] Cause),
    /// The journal holds something else than a job. It was left alone.
    #[error("journal is not that of a job")]
    Malformed,
    /// The journal was written by a later version of this library. Update.
    #[error("journal of a later version")]
    UnknownVersion,
}
