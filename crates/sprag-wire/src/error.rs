//! What bytes can be instead of a message.

/// Why bytes were not decoded. Nothing finer is told: a peer could learn from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// Not the canonical encoding of anything, or out of range. Drop the bytes.
    #[error("bytes are malformed")]
    Malformed,
    /// A frame of another version. Drop it, perhaps tell the user to update.
    #[error("protocol version is not supported")]
    UnsupportedVersion,
}

/// A content that breaks the rules of "The protocol", §6. The session has advanced all the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[error("content is invalid")]
#[non_exhaustive]
pub struct BadContent;

/// A user id, device id or prekey id out of range ("The protocol", §1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[error("name or number is out of range")]
#[non_exhaustive]
pub struct InvalidAddress;

impl From<InvalidAddress> for DecodeError {
    fn from(_: InvalidAddress) -> Self {
        Self::Malformed
    }
}

impl From<sprag_crypto::InvalidKey> for DecodeError {
    fn from(_: sprag_crypto::InvalidKey) -> Self {
        Self::Malformed
    }
}
