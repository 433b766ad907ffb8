//! Why a head or a segment is not believed.

/// Why a head or a segment was refused. Nothing was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum LogError {
    /// A name, an id or a number that is out of range. Fix the call.
    #[error("input is out of range")]
    BadInput,
    /// It does not open, or is not what it should be: changed, exchanged, or of another account or space.
    #[error("object could not be authenticated")]
    Damaged,
    /// A generation that this device does not hold yet: another device will share it. Never overwrite what it seals.
    #[error("object is sealed under a key that this device does not have yet")]
    NotYet,
    /// An older state than the one that was seen: the server went back, or serves an old copy.
    #[error("object is older than one seen before")]
    Stale,
    /// Neither before nor after what was seen, although its author counts: two states of one space.
    #[error("object contradicts one seen before")]
    Forked,
    /// Its author is not on the newest device list of the account.
    #[error("object was written by a device that is not listed")]
    UnlistedDevice,
    /// Its signature does not hold.
    #[error("object carries a wrong signature")]
    BadSignature,
    /// The record was erased: it never comes back.
    #[error("record was erased")]
    Erased,
    /// A part of the log is not at the server.
    #[error("part of the log is missing at the server")]
    Missing,
    /// It does not fit: more segments than a head names, or more records than a segment holds. Compact first.
    #[error("object is too large")]
    TooLarge,
}

impl LogError {
    /// The same in one word, as events print it.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::BadInput => "bad_input",
            Self::Damaged => "damaged",
            Self::NotYet => "not_yet",
            Self::Stale => "stale",
            Self::Forked => "forked",
            Self::UnlistedDevice => "unlisted_device",
            Self::BadSignature => "bad_signature",
            Self::Erased => "erased",
            Self::Missing => "missing",
            Self::TooLarge => "too_large",
        }
    }
}

impl From<sprag_store::StoreError> for LogError {
    /// What the codec cannot read.
    fn from(_: sprag_store::StoreError) -> Self {
        Self::Damaged
    }
}
