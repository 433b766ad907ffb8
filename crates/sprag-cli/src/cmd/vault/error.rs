//! What can go wrong with blobs, and how the program ends then.

use std::path::PathBuf;

use sprag_vault::raw12::{ImportError, LegacyError};
use sprag_vault::{FormatError, OpenError, ResealError, SealError};

use crate::error::{CliError, Exit};

/// Why something was not sealed or opened.
#[derive(Debug, thiserror::Error)]
pub(crate) enum VaultError {
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(transparent)]
    Seal(#[from] SealError),
    #[error(transparent)]
    Legacy(#[from] LegacyError),
    #[error("the new key is the old one")]
    SameKey,
    #[error("{} is there already", .0.display())]
    Exists(PathBuf),
    /// A recipient beside a key that is no fresh one would get that key, and with it all else that is under it.
    #[error("a symmetric key cannot have other recipients beside it: they would get that key")]
    SymmetricAmongOthers,
}

impl From<FormatError> for VaultError {
    fn from(error: FormatError) -> Self {
        Self::Open(error.into())
    }
}

impl From<ResealError> for VaultError {
    fn from(error: ResealError) -> Self {
        match error {
            ResealError::Seal(error) => Self::Seal(error),
            ResealError::Open(error) => Self::Open(error),
            // The enum may grow; nothing that it has today comes here.
            _ => Self::Open(OpenError::Damaged),
        }
    }
}

impl From<ImportError> for VaultError {
    fn from(error: ImportError) -> Self {
        match error {
            ImportError::Legacy(error) => Self::Legacy(error),
            ImportError::Seal(error) => Self::Seal(error),
            _ => Self::SameKey,
        }
    }
}

/// Made by a version of the format that is not known here.
fn is_newer(error: OpenError) -> bool {
    matches!(
        error,
        OpenError::Format(FormatError::Version(_) | FormatError::Suite(_) | FormatError::Flags)
    )
}

impl VaultError {
    pub(crate) fn exit(&self) -> Exit {
        match self {
            Self::Open(error) => match error {
                _ if is_newer(*error) => Exit::Failed,
                OpenError::Unavailable | OpenError::Limit => Exit::Later,
                OpenError::WrongKey => Exit::WrongKey,
                OpenError::ContextOrHeader => Exit::Refused,
                _ => Exit::Damaged,
            },
            Self::Seal(SealError::Kms(_)) => Exit::Later,
            Self::Legacy(LegacyError::Closed | LegacyError::Key) => Exit::WrongKey,
            Self::Legacy(
                LegacyError::Metadata | LegacyError::Algorithm | LegacyError::NotEncrypted,
            )
            | Self::Seal(_)
            | Self::SameKey
            | Self::SymmetricAmongOthers => Exit::Usage,
            Self::Legacy(_) => Exit::Damaged,
            Self::Exists(_) => Exit::Refused,
        }
    }

    /// A short name that does not change, for programs.
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::Open(error) => match error {
                _ if is_newer(*error) => "vault_newer",
                OpenError::Format(_) => "vault_format",
                OpenError::Unavailable => "vault_unavailable",
                OpenError::Limit => "vault_limit",
                OpenError::WrongKey => "vault_wrong_key",
                OpenError::ContextOrHeader => "vault_context",
                OpenError::Truncated => "vault_truncated",
                OpenError::Trailing => "vault_trailing",
                _ => "vault_damaged",
            },
            Self::Seal(_) => "vault_seal",
            Self::Legacy(error) => match error {
                LegacyError::Closed => "legacy_closed",
                LegacyError::Key => "legacy_key",
                LegacyError::CiphertextHash => "legacy_ciphertext_hash",
                LegacyError::PlaintextHash => "legacy_plaintext_hash",
                LegacyError::Length => "legacy_length",
                LegacyError::Metadata => "legacy_metadata",
                LegacyError::Algorithm => "legacy_algorithm",
                LegacyError::NotEncrypted => "legacy_not_encrypted",
                _ => "legacy_short",
            },
            Self::SameKey => "vault_same_key",
            Self::Exists(_) => "exists",
            Self::SymmetricAmongOthers => "vault_symmetric",
        }
    }

    /// What the user can do.
    pub(crate) fn advice(&self) -> Option<&'static str> {
        Some(match self {
            Self::Open(error) => match error {
                _ if is_newer(*error) => "install a newer version of sprag",
                OpenError::Format(FormatError::Magic) => {
                    "if an older program wrote it, try `sprag vault import`"
                }
                OpenError::Limit => "open it on a machine with more memory",
                OpenError::WrongKey => "try another --key or passphrase",
                OpenError::ContextOrHeader => {
                    "give the --context that it was sealed with; if you did, do not use it: it belongs to something else"
                }
                OpenError::Unavailable => "try again later",
                _ => "get the file again",
            },
            Self::Seal(SealError::NoRecipient) => "give --recipient, --key or --passphrase",
            Self::Seal(SealError::TooLong) => "give a larger --chunk-log2",
            Self::Exists(_) => "choose another name, or give --force",
            Self::SymmetricAmongOthers => "`rekey` it for several, each with a key of his own",
            _ => return None,
        })
    }
}

/// What `?` passes on in one step.
macro_rules! passed_on {
    ($($error:ty),*) => {$(
        impl From<$error> for CliError {
            fn from(error: $error) -> Self {
                Self::Vault(error.into())
            }
        }
    )*};
}

passed_on!(
    OpenError,
    FormatError,
    SealError,
    LegacyError,
    ResealError,
    ImportError
);
