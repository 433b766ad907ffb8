//! What is wrong with a record, and what can happen to one. Codes and actions as in `docs/ERRORS.md`.

use std::sync::Arc;

use sprag_session::ProtocolError;
use sprag_session::memory::LogError;

use super::backend::BackendError;
use crate::error::{Action, Error};

/// Why a record is not taken. Nothing was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidRecord {
    /// The id is not 1 to 128 bytes without control characters.
    #[error("the id of a record is not 1 to 128 bytes without control characters")]
    Id,
    /// The title is longer than [`MAX_TITLE`](super::MAX_TITLE).
    #[error("the title is longer than 1,024 bytes")]
    Title,
    /// The content is longer than [`MAX_CONTENT`](super::MAX_CONTENT).
    #[error("the content is longer than 1 MiB")]
    Content,
    /// All of it together is longer than [`MAX_RECORD`](super::MAX_RECORD).
    #[error("the record is longer than 16 MiB")]
    Size,
    /// More than [`MAX_TAGS`](super::MAX_TAGS) tags, or one that is not 1 to 128 bytes without control characters.
    #[error("there are more than 64 tags, or one is not 1 to 128 bytes without control characters")]
    Tags,
    /// An embedding of no or more than [`MAX_DIMENSIONS`](super::MAX_DIMENSIONS) numbers.
    #[error("the embedding does not have 1 to 4,096 dimensions")]
    Dimensions,
    /// An embedding with a number that is infinite or none, or of zeros only: it has no direction.
    #[error("the embedding has a number that is not finite, or nothing but zeros")]
    Numbers,
    /// A further field that has the name of one that this library knows, or twice the same.
    #[error("a field stands in the record twice")]
    Field,
    /// The role of a message is not 1 to 64 bytes without control characters.
    #[error("the role of a message is not 1 to 64 bytes without control characters")]
    Role,
    /// This is no JSON, or nested more than 128 deep.
    #[error("this is no JSON, or it is nested too deeply")]
    Json,
    /// The JSON is not that of a record.
    #[error("this JSON is not that of a record")]
    Shape,
}

/// What can happen to a record.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum Fault {
    #[error(transparent)]
    Invalid(#[from] InvalidRecord),
    #[error("there is no such record")]
    NoRecord,
    #[error("the record was deleted")]
    Deleted,
    #[error("the record was erased, and stays so")]
    Erased,
    #[error("there is such a record already")]
    Exists,
    #[error("the record has been changed since it was read")]
    Conflict,
    #[error("this is not the newest blob of the record")]
    Stale,
    #[error("the blob of the record is damaged")]
    Damaged,
    #[error("the blob belongs to another record")]
    Misplaced,
    #[error("the blob of the record is missing")]
    Missing,
    #[error("the record was written by a newer version")]
    Newer,
    #[error("the record is under a key that this device does not have yet")]
    NoKeyYet,
    #[error(transparent)]
    Backend(#[from] BackendError),
    #[error("the backend did not give back what it had taken")]
    Lied,
    #[error("there are as many records as there can be")]
    Full,
    #[error("the export is damaged, or not all there")]
    ExportDamaged,
    #[error("the export is of another version")]
    ExportVersion,
    #[error("the document could not be read")]
    Input(#[source] Arc<std::io::Error>),
    #[cfg(not(target_family = "wasm"))]
    #[error("the document could not be written")]
    Output(#[source] Arc<std::io::Error>),
    #[error("this device does not know whether it knows all records")]
    Behind,
}

/// What the log of an account refuses.
pub(crate) fn refused(error: LogError) -> Error {
    match error {
        LogError::BadInput => Error::bad_input(),
        LogError::Erased => Fault::Erased.into(),
        LogError::NotYet => Fault::NoKeyYet.into(),
        LogError::TooLarge => Fault::Full.into(),
        LogError::Missing => Fault::Missing.into(),
        LogError::Stale => Fault::Stale.into(),
        LogError::Damaged => Fault::Damaged.into(),
        LogError::UnlistedDevice => ProtocolError::UnlistedDevice.into(),
        LogError::BadSignature => ProtocolError::BadSignature.into(),
        LogError::Forked => ProtocolError::ForkedList.into(),
        _ => Error::internal("a refusal that this facade does not know"),
    }
}

impl Fault {
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::Invalid(_) => "bad_record",
            Self::NoRecord => "no_record",
            Self::Deleted => "record_deleted",
            Self::Erased => "record_erased",
            Self::Exists => "record_exists",
            Self::Conflict => "write_conflict",
            Self::Stale => "blob_stale",
            Self::Damaged => "blob_damaged",
            Self::Misplaced => "blob_misplaced",
            Self::Missing => "blob_missing",
            Self::Newer => "record_newer",
            Self::NoKeyYet => "key_not_here",
            Self::Backend(error) if error.is_retryable() => "backend_away",
            Self::Backend(_) => "backend_refused",
            Self::Lied => "backend_lied",
            Self::Full => "space_full",
            Self::ExportDamaged => "export_damaged",
            Self::ExportVersion => "export_version",
            Self::Input(_) => "input_failed",
            #[cfg(not(target_family = "wasm"))]
            Self::Output(_) => "output_failed",
            Self::Behind => "log_behind",
        }
    }

    pub(crate) fn action(&self) -> Action {
        match self {
            Self::Missing | Self::NoKeyYet | Self::Behind => Action::Retry,
            Self::Backend(error) if error.is_retryable() => Action::Retry,
            Self::Stale | Self::Damaged | Self::Misplaced => Action::Drop,
            Self::Newer | Self::ExportVersion => Action::Update,
            _ => Action::FixCall,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_log_refuses_has_a_code_and_an_action() {
        for (refusal, code, action) in [
            (LogError::TooLarge, "space_full", Action::FixCall),
            (LogError::NotYet, "key_not_here", Action::Retry),
            (LogError::Erased, "record_erased", Action::FixCall),
            (LogError::Missing, "blob_missing", Action::Retry),
            (LogError::Stale, "blob_stale", Action::Drop),
            (LogError::Damaged, "blob_damaged", Action::Drop),
            (LogError::BadInput, "bad_input", Action::FixCall),
        ] {
            let error = refused(refusal);
            assert_eq!(error.code(), code);
            assert_eq!(error.action(), action, "{code}");
            assert!(crate::CODES.contains(&code));
        }
        let newer = Error::from(Fault::Newer);
        assert_eq!(
            (newer.code(), newer.action()),
            ("record_newer", Action::Update)
        );
    }
}
