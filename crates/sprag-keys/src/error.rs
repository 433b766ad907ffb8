//! Why a key could not be had.

use std::error::Error;
use std::sync::Arc;

/// Why a key could not be obtained from where it is kept.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// The store is opened by another kind of key: a passphrase, say, and not a key file.
    #[error("store is opened by another kind of key")]
    WrongKind,
    /// The parameters of the key derivation are beyond what this version is willing to compute.
    #[error("key derivation parameters are out of bounds")]
    Parameters,
    /// The passphrase is empty.
    #[error("passphrase is empty")]
    EmptyPassphrase,
    /// What was found is not a key of 32 bytes.
    #[error("not a key of 32 bytes")]
    Malformed,
    /// The key file, or the environment variable, is not there.
    #[error("key not found")]
    NotFound,
    /// A file stands where the key file is to be created. It was left alone.
    #[error("key file exists already")]
    Exists,
    /// The key file can be read by others: `chmod 600` it, and think about who may have read it.
    #[error("key file can be read by others")]
    Permissions,
    /// The store was written by a version that knows more kinds of keys. Update.
    #[error("unknown kind of key slot")]
    UnknownSlot,
    /// The operating system refused.
    #[error("key could not be read or written")]
    Io(#[source] Arc<dyn Error + Send + Sync>),
}
