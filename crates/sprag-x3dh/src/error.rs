//! What can go wrong here.

use sprag_crypto::InvalidKey;

/// Why a handshake could not be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HandshakeError {
    /// An agreement was all zero, or the KEM key fails its check. Refuse the bundle.
    #[error("key is invalid")]
    InvalidKey,
}

impl From<InvalidKey> for HandshakeError {
    fn from(_: InvalidKey) -> Self {
        Self::InvalidKey
    }
}

/// Why a list cannot be signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ListError {
    /// Not 1 to 32 entries, ascending by device.
    #[error("a list has 1 to 32 devices, ascending")]
    Devices,
    /// A key occurs twice, or is the account key.
    #[error("a key of a list occurs twice")]
    Keys,
    /// Epoch 0, or `previous` where it must not be, or missing where it must be.
    #[error("epoch and previous list do not fit")]
    Epoch,
}

/// A stored record that does not decode: the store is damaged, or newer than this version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("prekey record is damaged")]
#[non_exhaustive]
pub struct RecordError;
