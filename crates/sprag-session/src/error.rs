//! What a step can end in.

use sprag_store::StoreError;
use sprag_wire::{BadContent, DecodeError};
use sprag_x3dh::HandshakeError;

use crate::memory::LogError;

/// The errors of the protocol ("The protocol", §11), exactly as they are told apart there.
///
/// Each leaves the state as it was, except [`ProtocolError::BadContent`]: there the session has advanced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum ProtocolError {
    /// The bytes are not the encoding of anything. Drop them silently.
    #[error("bytes are malformed")]
    Malformed,
    /// Another version of the protocol. Tell the user to update.
    #[error("protocol version is not supported")]
    UnsupportedVersion,
    /// A message without handshake from a user never met, or forgotten. Drop it silently.
    #[error("sender is unknown")]
    UnknownPeer,
    /// The origin seal does not open: noise, or wrong addresses. Drop it silently.
    #[error("origin could not be authenticated")]
    BadOrigin,
    /// The account key differs from the remembered one. Fetch the list; go on only if the user accepts.
    #[error("account key of the user has changed")]
    UntrustedIdentity,
    /// The device is not on its user's newest list.
    #[error("device is not on its user's list")]
    UnlistedDevice,
    /// An older device list than the remembered one.
    #[error("device list is older than the one known")]
    StaleList,
    /// Two lists of one epoch, or of one predecessor. Show it as a changed identity.
    #[error("device list contradicts the one known")]
    ForkedList,
    /// A contact saw an epoch of our list that this device does not know. Fetch our own lists.
    #[error("a contact has seen a newer list of this account")]
    UnknownList,
    /// A contact saw a list of ours that we never signed. Compare safety numbers.
    #[error("a contact has seen a list that this account did not sign")]
    ListMismatch,
    /// Read before, or too old. Drop it silently.
    #[error("message was already opened")]
    Duplicate,
    /// The session is not held (any more). Heals.
    #[error("session is not known")]
    NoSession,
    /// A prekey that is not held (any more). Heals.
    #[error("prekey is not known")]
    UnknownPreKey,
    /// The handshake mode is refused. Heals.
    #[error("handshake mode is refused")]
    ModeRefused,
    /// The other side is more than one chain ahead. Heals.
    #[error("session is out of step")]
    Desynchronised,
    /// A jump beyond the limit of skipped messages. Heals.
    #[error("message is too far ahead")]
    TooFarAhead,
    /// Behind a good origin seal the inside does not open. Heals.
    #[error("message could not be authenticated")]
    Unreadable,
    /// An all-zero agreement, a bad KEM key, or our own identity key. Refuse bundle or frame.
    #[error("key is invalid")]
    InvalidKey,
    /// A signature on a bundle or list does not hold. Refuse it.
    #[error("signature does not hold")]
    BadSignature,
    /// There is no session that can be sent on. Fetch a bundle and open one.
    #[error("a prekey bundle of the device is needed first")]
    NeedsBundle,
    /// 2^32 − 1 messages on one chain. Open a new session.
    #[error("sending chain is exhausted")]
    ChainExhausted,
    /// The inside breaks the rules of contents. Report it; the session has advanced.
    #[error("content of the message is invalid")]
    BadContent,
    /// The caller's own mistake: address, size, request. Fix the call.
    #[error("request is invalid")]
    BadInput,
}

impl ProtocolError {
    /// Whether the protocol heals this failure with a fresh session ("The protocol", §9).
    #[must_use]
    pub fn heals(self) -> bool {
        matches!(
            self,
            Self::NoSession
                | Self::UnknownPreKey
                | Self::ModeRefused
                | Self::Desynchronised
                | Self::TooFarAhead
                | Self::Unreadable
        )
    }
}

impl From<DecodeError> for ProtocolError {
    fn from(error: DecodeError) -> Self {
        match error {
            DecodeError::UnsupportedVersion => Self::UnsupportedVersion,
            _ => Self::Malformed,
        }
    }
}

impl From<BadContent> for ProtocolError {
    fn from(_: BadContent) -> Self {
        Self::BadContent
    }
}

impl From<sprag_crypto::InvalidKey> for ProtocolError {
    fn from(_: sprag_crypto::InvalidKey) -> Self {
        Self::InvalidKey
    }
}

impl From<sprag_crypto::BadSignature> for ProtocolError {
    fn from(_: sprag_crypto::BadSignature) -> Self {
        Self::BadSignature
    }
}

/// Why a step did not happen: the protocol refused, or the store did not answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StepError {
    /// The protocol refused; nothing was changed.
    #[error(transparent)]
    Protocol(ProtocolError),
    /// The store failed; the staged step is void.
    #[error(transparent)]
    Store(StoreError),
    /// All ids of a kind of prekeys are used up, and none is used twice. The device must be linked anew.
    #[error("all prekey ids are used up")]
    Exhausted,
    /// This device waits for the keys of its account; nothing was changed.
    #[error("this device is not linked to its account yet")]
    NotLinked,
    /// The link request of this device came to its end before the keys of the account were there: forget its store.
    #[error("the link request has expired")]
    LinkExpired,
    /// What a call says of memories, or what a log of them is, is refused; nothing was changed.
    #[error(transparent)]
    Log(LogError),
    /// An invariant of this library is broken; please report it.
    #[error("internal error: {0}")]
    Internal(&'static str),
}

macro_rules! from_refusal {
    ($($error:ty),*) => {$(
        impl From<$error> for StepError {
            fn from(error: $error) -> Self {
                Self::Protocol(error.into())
            }
        }
    )*};
}

from_refusal!(
    ProtocolError,
    DecodeError,
    BadContent,
    sprag_crypto::InvalidKey,
    sprag_crypto::BadSignature
);

impl From<LogError> for StepError {
    fn from(error: LogError) -> Self {
        Self::Log(error)
    }
}

impl From<StoreError> for StepError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<HandshakeError> for StepError {
    fn from(error: HandshakeError) -> Self {
        match error {
            HandshakeError::InvalidKey => Self::Protocol(ProtocolError::InvalidKey),
            _ => Self::Internal("a handshake that was checked before"),
        }
    }
}

/// A row that does not decode: the store is damaged.
pub(crate) fn damaged(what: &'static str) -> StepError {
    StepError::Store(StoreError::Damaged(what))
}
