//! What can go wrong, how the program ends then, and what people are told to do.

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use sprag::{Action, KeyError, Question, RecoveryKeyError};
use sprag_directory::{DirectoryError, StorageError};

use crate::cmd::keys::KeysError;
use crate::cmd::vault::VaultError;
use crate::shared::call::Fault;

/// How the program ends: stable, and told in `--help`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    Ok = 0,
    Failed = 1,
    Usage = 2,
    WrongKey = 3,
    InUse = 4,
    Damaged = 5,
    Refused = 6,
    NotFound = 7,
    Later = 8,
    Interrupted = 130,
    ClosedPipe = 141,
}

impl Exit {
    /// The one of a number that another process said. What is not known here has failed.
    pub(crate) fn from_number(number: u8) -> Self {
        const ALL: [Exit; 11] = [
            Exit::Ok,
            Exit::Failed,
            Exit::Usage,
            Exit::WrongKey,
            Exit::InUse,
            Exit::Damaged,
            Exit::Refused,
            Exit::NotFound,
            Exit::Later,
            Exit::Interrupted,
            Exit::ClosedPipe,
        ];
        let known = ALL.into_iter().find(|exit| *exit as u8 == number);
        known
            .filter(|exit| *exit != Exit::Ok)
            .unwrap_or(Exit::Failed)
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Why a command ended early.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CliError {
    #[error("{}{}", .0, holder(.0))]
    Client(#[from] sprag::Error),
    /// A key that could not be made or read before the profile was asked.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// A recovery key that was mistyped.
    #[error(transparent)]
    RecoveryKey(RecoveryKeyError),
    #[error("there is no profile in {}", .0.display())]
    NoProfile(PathBuf),
    #[error("{0}")]
    Usage(String),
    #[error("there is no {0}")]
    NotFound(String),
    #[error("{0}")]
    Refused(String),
    #[error("{}: {cause}", path.display())]
    File { path: PathBuf, cause: io::Error },
    #[error("the server's folder: {0}")]
    Server(#[from] StorageError),
    #[error("output: {0}")]
    Output(io::Error),
    /// Whoever read our output went away.
    #[error("nobody reads the output")]
    ClosedPipe,
    /// A demonstration that did not show what it was to show.
    #[error("the demo failed: {0}")]
    Demo(&'static str),
    #[error(transparent)]
    Vault(#[from] VaultError),
    /// What the process that has the profile open said.
    #[error(transparent)]
    Fault(#[from] Box<Fault>),
    #[error(transparent)]
    Keys(#[from] KeysError),
    /// Something came after a part of the result had gone to standard output.
    #[error("{0}; WHAT WAS WRITTEN IS INCOMPLETE")]
    Incomplete(Box<CliError>),
}

impl From<Fault> for CliError {
    fn from(fault: Fault) -> Self {
        Self::Fault(Box::new(fault))
    }
}

impl CliError {
    pub(crate) fn file(path: &Path, cause: io::Error) -> Self {
        Self::File {
            path: path.to_path_buf(),
            cause,
        }
    }

    /// After a part of the result had gone out. Whoever went away does not hear of it.
    pub(crate) fn incomplete(self) -> Self {
        match self {
            Self::ClosedPipe => self,
            error => Self::Incomplete(Box::new(error)),
        }
    }

    pub(crate) fn output(cause: io::Error) -> Self {
        match cause.kind() {
            io::ErrorKind::BrokenPipe => Self::ClosedPipe,
            _ => Self::Output(cause),
        }
    }

    pub(crate) fn exit(&self) -> Exit {
        match self {
            Self::Client(error) => match error.action() {
                _ if matches!(
                    error.code(),
                    "needs_bundle" | "no_record" | "record_deleted" | "record_erased"
                ) =>
                {
                    Exit::NotFound
                }
                _ if error.code() == "key_unreadable" => Exit::WrongKey,
                Action::Drop
                | Action::AskUser(
                    Question::AcceptIdentity | Question::RolledBack | Question::LinkAgain,
                ) => Exit::Refused,
                Action::AskUser(Question::Key) => Exit::WrongKey,
                Action::AskUser(Question::EndOtherProcess) => Exit::InUse,
                Action::AskUser(Question::Restore) => Exit::Damaged,
                Action::AskUser(Question::FreeSpace) | Action::Retry => Exit::Later,
                Action::FixCall => Exit::Usage,
                _ => Exit::Failed,
            },
            Self::Key(_) | Self::RecoveryKey(_) => Exit::WrongKey,
            Self::NoProfile(_) | Self::Usage(_) => Exit::Usage,
            Self::NotFound(_) => Exit::NotFound,
            Self::Refused(_) => Exit::Refused,
            Self::File { .. } | Self::Server(_) | Self::Output(_) => Exit::Later,
            Self::ClosedPipe => Exit::ClosedPipe,
            Self::Demo(_) => Exit::Failed,
            Self::Vault(error) => error.exit(),
            Self::Fault(fault) => fault.exit(),
            Self::Keys(error) => error.exit(),
            Self::Incomplete(error) => error.exit(),
        }
    }

    /// A short name that does not change, for programs.
    pub(crate) fn code(&self) -> &str {
        match self {
            Self::Client(error) => error.code(),
            Self::Key(_) => "key_unreadable",
            Self::RecoveryKey(_) => "wrong_key",
            Self::NoProfile(_) => "no_profile",
            Self::Usage(_) => "bad_input",
            Self::NotFound(_) => "not_found",
            Self::Refused(_) => "refused",
            Self::File { .. } => "file",
            Self::Server(_) => "server",
            Self::Output(_) => "output",
            Self::ClosedPipe => "closed_pipe",
            Self::Demo(_) => "demo",
            Self::Vault(error) => error.code(),
            Self::Fault(fault) => &fault.code,
            Self::Keys(error) => error.code(),
            Self::Incomplete(error) => error.code(),
        }
    }

    /// What the user can do.
    pub(crate) fn advice(&self) -> Option<&str> {
        Some(match self {
            Self::Client(error) => return client_advice(error),
            Self::Vault(error) => return error.advice(),
            Self::Fault(fault) => return fault.advice.as_deref(),
            Self::Keys(error) => return error.advice(),
            Self::Incomplete(error) => return error.advice(),
            Self::NoProfile(_) => NO_PROFILE,
            Self::Key(KeyError::Permissions) => "run `chmod 600` on the key file",
            Self::Key(_) => "look at the file of --key-file",
            Self::RecoveryKey(_) => "compare it with what was printed, letter by letter",
            Self::Server(_) => "look at the folder of --server",
            _ => return None,
        })
    }
}

/// Who has the profile open, if it is known.
fn holder(error: &sprag::Error) -> String {
    match error.owner() {
        Some(process) => format!(": by process {process}"),
        None => String::new(),
    }
}

const NO_PROFILE: &str = "make a profile with `sprag init USER`, or choose another --home";

fn client_advice(error: &sprag::Error) -> Option<&'static str> {
    Some(match error.code() {
        "no_profile" => NO_PROFILE,
        "other_user" => "choose another --home",
        "wrong_key" => "try again with the right passphrase or --key-file",
        "key_unreadable" => "look at the file of --key-file: it must be there, and yours alone",
        "store_in_use" => {
            "wait for the other program, or end it; `sprag mcp` keeps a profile open as long as it runs, and lets `sprag memory` in"
        }
        "store_damaged" => {
            "run `sprag doctor`: it says what is wrong, and whether it can be repaired; else restore a backup with `sprag backup restore`"
        }
        "store_rolled_back" => {
            "if no other copy of this profile is in use: `sprag rolled-back --new-sessions`; else `sprag rolled-back --new-device`"
        }
        "not_holder" => {
            "link a new device; or, if no other copy of this profile is in use: `sprag rolled-back --new-sessions`"
        }
        "anchor_needed" => "give --anchor with the file that guards this profile",
        "other_anchor" => "choose another --anchor: each profile has its own",
        "store_full" => "make room on the disk, and look whether it was done",
        "ids_exhausted" => "make a new profile: this one has published all prekeys that it can",
        "store_version" | "unsupported_version" => "install a newer version of sprag",
        "store_failed" | "store_poisoned" => "look at the disk, and whether it was done",
        "no_record" => "look at `sprag memory list`: ids are those of one user and agent",
        "record_deleted" | "record_erased" => "it was forgotten; another memory gets another id",
        "blob_missing" | "key_not_here" => {
            "another device wrote it: run `sprag sync`, and let that device sync, too"
        }
        "not_linked" => "let another device of yours add this one: `sprag device add`",
        "outbox_full" => "run `sprag sync`, or hand over what `sprag tasks` shows",
        "needs_bundle" => {
            "the server has shown nothing of this user yet: send a message, then run `sprag sync`"
        }
        "untrusted_identity" | "forked_list" | "list_mismatch" => {
            "compare safety numbers, then `sprag accept USER` or not"
        }
        _ => return None,
    })
}

/// The number under which the outbox keeps why a server refused a task.
pub(crate) fn refusal_number(error: &DirectoryError) -> u32 {
    const CODES: [&str; 12] = [
        "malformed",
        "bad_signature",
        "other_account_key",
        "not_a_chain",
        "missing_lists",
        "not_a_new_account",
        "used_pre_key_id",
        "too_many_pre_keys",
        "wrong_key_kind",
        "used_envelope_id",
        "too_large",
        "wrong_name",
    ];
    let code = match error {
        DirectoryError::Refused(refusal) => refusal.code(),
        _ => return 0,
    };
    let place = CODES.iter().position(|known| *known == code);
    place
        .and_then(|place| u32::try_from(place + 1).ok())
        .unwrap_or(0)
}
