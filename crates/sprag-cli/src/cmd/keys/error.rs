//! What can go wrong with rings and jobs, and how the program ends then.

use std::path::PathBuf;

use sprag::KeyError;
use sprag_keys::{RingError, RingFileError, RotationError, SourceError};

use crate::error::Exit;

/// Why a ring was not opened or changed, or a job did not end well.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KeysError {
    #[error("{}: {error}", path.display())]
    Ring { path: PathBuf, error: RingFileError },
    #[error("{name}: {error}")]
    Source { name: String, error: SourceError },
    #[error("the job: {0}")]
    Job(RotationError),
    #[error("{0} files could not be done; they are as they were")]
    Blocked(u64),
    #[error("another program runs a job in {}", .0.display())]
    JobRunning(PathBuf),
    #[error("there is no job in {}", .0.display())]
    NoJob(PathBuf),
    #[error("{files} files in {} are still under version {version} of {name}", folder.display())]
    InUse {
        name: String,
        version: u32,
        files: u64,
        folder: PathBuf,
    },
    #[error("{} cannot be looked into: {cause}", folder.display())]
    Unseen { folder: PathBuf, cause: String },
    #[error("version {version} of {name} was not destroyed")]
    NotConfirmed { name: String, version: u32 },
    /// The list of folders beside a ring.
    #[error("{} is not a list of folders", .0.display())]
    Places(PathBuf),
    #[error("metadata beside it name its hash: it cannot keep its form")]
    MetadataBeside,
    #[error("what was sealed anew did not open as the same; it was not written")]
    Changed,
}

impl KeysError {
    pub(super) fn ring(path: &std::path::Path, error: RingFileError) -> Self {
        let path = path.to_path_buf();
        Self::Ring { path, error }
    }

    pub(super) fn source(name: impl ToString, error: SourceError) -> Self {
        let name = name.to_string();
        Self::Source { name, error }
    }

    pub(crate) fn exit(&self) -> Exit {
        match self {
            Self::Ring { error, .. } => match error {
                RingFileError::Ring(error) => ring_exit(*error),
                RingFileError::Key(KeyError::NotFound) => Exit::NotFound,
                RingFileError::Key(KeyError::Exists) => Exit::Refused,
                RingFileError::Key(KeyError::Io(_)) | RingFileError::Replaced => Exit::Later,
                RingFileError::Key(KeyError::UnknownSlot) | RingFileError::UnknownVersion => {
                    Exit::Failed
                }
                RingFileError::Key(KeyError::Parameters) | RingFileError::Malformed => {
                    Exit::Damaged
                }
                RingFileError::Key(_) | RingFileError::WrongKey | RingFileError::WrongOpener => {
                    Exit::WrongKey
                }
                RingFileError::Source(error) => source_exit(error),
                _ => Exit::Failed,
            },
            Self::Source { error, .. } => source_exit(error),
            Self::Job(error) => match error {
                RotationError::Key(error) => source_exit(error),
                RotationError::OtherJob | RotationError::OlderVersion => Exit::Refused,
                RotationError::Records(_) | RotationError::Journal(_) => Exit::Later,
                RotationError::Malformed => Exit::Damaged,
                _ => Exit::Failed,
            },
            Self::Blocked(_) | Self::Places(_) | Self::Changed => Exit::Damaged,
            Self::JobRunning(_) => Exit::InUse,
            Self::NoJob(_) => Exit::NotFound,
            Self::InUse { .. } | Self::NotConfirmed { .. } | Self::MetadataBeside => Exit::Refused,
            Self::Unseen { .. } => Exit::Later,
        }
    }

    /// A short name that does not change, for programs.
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::Ring { error, .. } => match error {
                RingFileError::Ring(error) => ring_code(*error),
                RingFileError::Key(KeyError::NotFound) => "ring_not_found",
                RingFileError::Key(KeyError::Exists) => "exists",
                RingFileError::Key(KeyError::Io(_)) => "file",
                RingFileError::Key(KeyError::UnknownSlot) | RingFileError::UnknownVersion => {
                    "ring_newer"
                }
                RingFileError::Key(KeyError::Parameters) | RingFileError::Malformed => {
                    "ring_damaged"
                }
                RingFileError::Key(KeyError::WrongKind)
                | RingFileError::WrongKey
                | RingFileError::WrongOpener => "ring_wrong_key",
                RingFileError::Key(_) => "key_unreadable",
                RingFileError::Replaced => "ring_replaced",
                RingFileError::Source(error) => source_code(error),
                _ => "ring",
            },
            Self::Source { error, .. } => source_code(error),
            Self::Job(error) => match error {
                RotationError::Key(error) => source_code(error),
                RotationError::OtherJob => "job_other",
                RotationError::OlderVersion => "job_newer",
                RotationError::Records(_) | RotationError::Journal(_) => "file",
                RotationError::Malformed => "job_damaged",
                _ => "job_version",
            },
            Self::Blocked(_) => "job_blocked",
            Self::JobRunning(_) => "job_running",
            Self::NoJob(_) => "no_job",
            Self::InUse { .. } => "key_in_use",
            Self::Unseen { .. } => "folder_unseen",
            Self::NotConfirmed { .. } => "not_confirmed",
            Self::Places(_) => "ring_places",
            Self::MetadataBeside => "metadata_beside",
            Self::Changed => "job_changed",
        }
    }

    /// What the user can do.
    pub(crate) fn advice(&self) -> Option<&'static str> {
        Some(match (self, self.code()) {
            (_, "ring_not_found") => "make a ring with `sprag keys init`, or choose another --ring",
            (_, "exists") => "choose another name: what is there is left alone",
            (_, "ring_wrong_key") => "give the --ring-key-file, or the passphrase, of this ring",
            (_, "key_unreadable") => {
                "look at the ring and at the file of --ring-key-file: they must be yours alone, and the file a key"
            }
            (_, "ring_damaged") => "get a copy of the ring; this file was left as it is",
            (_, "ring_newer" | "job_version") => "install a newer version of sprag",
            (_, "no_such_key") => {
                "look at `sprag keys list`; `sprag keys create` makes a key, nothing else does"
            }
            (_, "key_no_current") => "make a version with `sprag keys rotate`",
            (_, "key_current") => "`sprag keys rotate` or `sprag keys retire` it first",
            (_, "key_destroyed") => "what is under it is gone",
            (_, "key_permissions") => {
                "run `chmod 600` on the file, and think about who may have read it"
            }
            (_, "job_other") => "finish that job with `sprag keys job resume`",
            (_, "job_blocked") => "look at what failed, then `sprag keys job resume`",
            (_, "job_running") => "wait for the other program, or end it",
            (_, "no_job") => "begin one with `sprag keys job start`",
            (_, "key_in_use") => "put them under the current version: `sprag keys job start`",
            (_, "folder_unseen") => {
                "make the folder readable, or give up what is there with --abandon"
            }
            (_, "not_confirmed") => "whatever is under it would be lost; if nothing is, give --yes",
            (_, "ring_places") => "repair it: it is a list of paths in JSON",
            (_, "metadata_beside") => "give --raw12 upgrade",
            _ => return None,
        })
    }
}

fn ring_exit(error: RingError) -> Exit {
    match error {
        RingError::NotFound => Exit::NotFound,
        RingError::Exists | RingError::StillCurrent | RingError::Destroyed => Exit::Refused,
        RingError::Full => Exit::Usage,
        RingError::Malformed => Exit::Damaged,
        _ => Exit::Failed,
    }
}

fn ring_code(error: RingError) -> &'static str {
    match error {
        RingError::NotFound => "no_such_key",
        RingError::Exists => "exists",
        RingError::StillCurrent => "key_current",
        RingError::Destroyed => "key_destroyed",
        RingError::Full => "ring_full",
        RingError::Malformed => "ring_damaged",
        _ => "ring_newer",
    }
}

fn source_exit(error: &SourceError) -> Exit {
    match error {
        SourceError::NotFound | SourceError::Destroyed => Exit::NotFound,
        SourceError::NoCurrent | SourceError::StillCurrent => Exit::Refused,
        SourceError::Permissions | SourceError::Denied | SourceError::Malformed => Exit::WrongKey,
        SourceError::BadId => Exit::Usage,
        SourceError::Unavailable(_) | SourceError::Conflict => Exit::Later,
        _ => Exit::Failed,
    }
}

fn source_code(error: &SourceError) -> &'static str {
    match error {
        SourceError::NotFound => "no_such_key",
        SourceError::Destroyed => "key_destroyed",
        SourceError::NoCurrent => "key_no_current",
        SourceError::StillCurrent => "key_current",
        SourceError::Permissions => "key_permissions",
        SourceError::Denied => "key_denied",
        SourceError::Malformed => "key_malformed",
        SourceError::BadId => "bad_input",
        SourceError::Unavailable(_) => "key_unavailable",
        _ => "key_source",
    }
}
