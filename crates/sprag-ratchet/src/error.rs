//! What can go wrong. Which outcomes are told apart is fixed by the protocol, §11; nothing finer is.

use sprag_crypto::InvalidKey;

/// A session could not be started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The peer's signed prekey gives an all-zero DH (the protocol, §1). Refuse the bundle.
    #[error("invalid key")]
    InvalidKey,
    /// The handshake has a feature in force that this version does not speak: the post-quantum ratchet (§4.4). Our
    /// own feature bits never offer it, so this is a mistake of the caller.
    #[error("feature in force is not supported")]
    Unsupported,
}

impl From<InvalidKey> for StartError {
    fn from(_: InvalidKey) -> Self {
        Self::InvalidKey
    }
}

/// A message could not be encrypted. The session is unchanged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EncryptError {
    /// The sending chain has used all its 2^32 − 1 numbers (§4.3). Open a new session.
    #[error("sending chain is exhausted")]
    ChainExhausted,
    /// A responder has no sending chain before it has read its first message (§4.1).
    #[error("session has no sending chain yet")]
    NoSendingChain,
}

/// A message could not be decrypted. The session is unchanged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecryptError {
    /// Read before, or given up by the limits of §4.3. Drop it silently.
    #[error("message was already read or is too old")]
    Duplicate,
    /// The message is on a chain that our side of the session cannot know yet. Heal (§9).
    #[error("session is out of step")]
    Desynchronised,
    /// The message is further ahead of its chain than [`Limits::max_skip`](crate::Limits::max_skip). Heal.
    #[error("message is too far ahead of its chain")]
    TooFarAhead,
    /// Header or body do not open. Heal.
    #[error("message cannot be read")]
    Unreadable,
    /// The ratchet key in the header gives an all-zero DH (§1). Refuse the frame.
    #[error("invalid key")]
    InvalidKey,
    /// The store of skipped keys failed or contradicts the session. Nothing is known about the message; try again
    /// when the store works.
    #[error("skipped keys are unavailable")]
    SkippedUnavailable,
}

impl From<InvalidKey> for DecryptError {
    fn from(_: InvalidKey) -> Self {
        Self::InvalidKey
    }
}

impl From<SkippedUnavailable> for DecryptError {
    fn from(_: SkippedUnavailable) -> Self {
        Self::SkippedUnavailable
    }
}

/// A [`SkippedKeys`](crate::SkippedKeys) could not be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("skipped keys are unavailable")]
#[expect(
    clippy::exhaustive_structs,
    reason = "a unit: implementors of `SkippedKeys` return it"
)]
pub struct SkippedUnavailable;

/// The origin seal does not open: another pair of devices, another direction, or changed bytes. Drop it silently.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("origin seal does not open")]
#[non_exhaustive]
pub struct BadOrigin;

/// A stored record is not one that this crate has written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RecordError {
    /// The record has another length than its layout.
    #[error("record has a wrong length")]
    Length,
    /// The version byte is unknown; a newer version of the library may have written the record.
    #[error("record has an unknown version")]
    Version,
    /// A field is out of its range, or contradicts another record of the session.
    #[error("record has a field out of range")]
    Range,
}
