//! What can go wrong. What is told apart is fixed by `docs/VAULT.md`, *Errors*, and nothing finer where a key is involved.

/// A blob that does not open. Nothing that is not authentic was released; after an error of a stream, what it let out
/// before is authentic, and not the whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// `FORMAT`: this is no blob of a form that this version reads.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// `Unavailable`: no slot opened, and a key service that was named could not be reached. Try again later.
    #[error("a key service could not be reached")]
    Unavailable,
    /// `LIMIT`: no slot opened, and a passphrase was not tried on a slot that costs more than the caller allows, or than
    /// there is memory for.
    #[error("a passphrase slot costs more than is allowed here")]
    Limit,
    /// `WRONG_KEY`: no slot opens with what the caller has.
    #[error("no key of the caller opens the blob")]
    WrongKey,
    /// `CONTEXT_OR_HEADER`: the key is right; the context is another, or the header was changed.
    #[error("the context is another or the header was changed")]
    ContextOrHeader,
    /// `TRUNCATED`: the end is missing.
    #[error("the end of the blob is missing")]
    Truncated,
    /// `TRAILING`: something follows the end.
    #[error("something follows the end of the blob")]
    Trailing,
    /// `DAMAGED`: a chunk is not authentic: changed, moved, from another blob, or cut within.
    #[error("the blob is damaged")]
    Damaged,
}

impl OpenError {
    /// The name that `docs/VAULT.md` and the vectors use.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Format(_) => "FORMAT",
            Self::Unavailable => "Unavailable",
            Self::Limit => "LIMIT",
            Self::WrongKey => "WRONG_KEY",
            Self::ContextOrHeader => "CONTEXT_OR_HEADER",
            Self::Truncated => "TRUNCATED",
            Self::Trailing => "TRAILING",
            Self::Damaged => "DAMAGED",
        }
    }
}

/// Why something is no blob that this version reads. A header is public, so this may be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum FormatError {
    /// It begins otherwise: another file, or an older format (see [`crate::raw12`]).
    #[error("this is no evlt blob")]
    Magic,
    /// It went through a program that changes line ends or drops the eighth bit.
    #[error("the blob was damaged by a transfer as text")]
    TextMode,
    /// It ends within the header.
    #[error("the blob ends within its header")]
    Short,
    /// Of another version of the format.
    #[error("the blob has version {0}, which is not known here")]
    Version(u8),
    /// Of a suite that is not known here.
    #[error("the blob has suite {0}, which is not known here")]
    Suite(u8),
    /// Flags or reserved bytes that are not known here.
    #[error("the blob uses flags or reserved bytes that are not known here")]
    Flags,
    /// Chunks of a size that is not allowed.
    #[error("the blob has a chunk size that is not allowed")]
    ChunkSize,
    /// Slots that contradict their lengths, none, more than 16, or more than four for passphrases.
    #[error("the slots of the blob are malformed")]
    Slots,
    /// A passphrase slot that costs more than the format allows.
    #[error("a passphrase slot costs more than the format allows")]
    PassphraseCost,
}

/// A blob that is not made. Nothing is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum SealError {
    /// Nobody could open it.
    #[error("there is no recipient")]
    NoRecipient,
    /// More than 16 recipients, more than four passphrases, or slots of more than 65,535 bytes.
    #[error("there are too many recipients, or their slots are too long")]
    TooManyRecipients,
    /// A passphrase of no characters.
    #[error("the passphrase is empty")]
    EmptyPassphrase,
    /// Costs of a passphrase beyond 4 GiB times passes, or not enough memory.
    #[error("the passphrase would cost more than the format allows, or than there is memory for")]
    PassphraseCost,
    /// A recipient's public key that agrees on nothing secret.
    #[error("the public key of a recipient is invalid")]
    InvalidRecipient,
    /// The key service.
    #[error(transparent)]
    Kms(#[from] KmsError),
    /// More than 2^32 chunks. Choose larger ones.
    #[error("the payload is too long for this chunk size")]
    TooLong,
    /// [`Sealer::finish`](crate::Sealer::finish) before all of the input was pushed.
    #[error("input was left behind before the end")]
    InputLeft,
}

/// What a key service answers when it does not do what it was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum KmsError {
    /// It could not be reached, or was not in a state to answer.
    #[error("the key service could not be reached")]
    Unreachable,
    /// It will not: wrong key, no permission, altered data.
    #[error("the key service refused")]
    Refused,
}

/// [`reseal`](crate::reseal) that is not done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum ResealError {
    /// The blob does not open.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The new header is not made.
    #[error(transparent)]
    Seal(#[from] SealError),
}

/// [`rekey`](crate::rekey) that is not done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum RekeyError {
    /// The old blob does not open.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The new blob is not made.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// The new data key is the old one, so that whoever could read the old blob could read the new one.
    #[error("the new data key is the old one")]
    SameKey,
}

/// Pairs that make no context.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum ContextError {
    /// A name twice.
    #[error("a name stands twice in the context")]
    Repeated,
    /// A name of more than 65,535 bytes or a value of 4 GiB.
    #[error("a name or value of the context is too long")]
    TooLong,
    /// Bytes that are no pairs in their one encoding.
    #[error("the context is not a list of pairs")]
    NotPairs,
}
