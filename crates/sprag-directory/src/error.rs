//! What a directory answers when it does not do what was asked ("Failures").

use crate::storage::StorageError;

/// Why an operation was not done. It changed nothing.
///
/// All but the last are the failures of Appendix C of the protocol that a server tells its client; the transport carries them.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DirectoryError {
    /// No list of that user was ever published here.
    #[error("no such user")]
    NoSuchUser,
    /// The device is not on the newest list of its user.
    #[error("no such device")]
    NoSuchDevice {
        /// The newest list of the user, a frame `0x14`.
        list: Vec<u8>,
    },
    /// The inbox of that device is full. Offer the envelope again later.
    #[error("inbox of the device is full")]
    Full,
    /// The newest list is another one than the one that the published list follows; or an object is not as its writer
    /// expected.
    #[error("another one is the newest")]
    Conflict {
        /// The newest list of the user, a frame `0x14`; or the encoded `Object` as it is, with an empty tag and an empty
        /// value if there is none.
        newest: Vec<u8>,
    },
    /// No blob of that name is here, or not whole any more: who has it may put it again.
    #[error("no such blob")]
    NoSuchBlob,
    /// Not acceptable, now and later.
    #[error("refused: {}", .0.code())]
    Refused(Refusal),
    /// The storage failed: the server's trouble, not the client's. Try again later.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// The code of a [`DirectoryError::Refused`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Refusal {
    /// Bytes that do not decode, are too large, or lack what they must have.
    Malformed,
    /// A list that its account key did not sign.
    BadSignature,
    /// A list under another account key than the user's. Only [`replace_account`](crate::Directory::replace_account)
    /// takes one.
    OtherAccountKey,
    /// Lists of one upload that do not follow one another: same user, same account key, next epoch, previous hash.
    NotAChain,
    /// A later list of a user of whom the directory has none: it needs them from epoch 1 on.
    MissingLists,
    /// A replacement of the account key by itself, or by a list that is not a first one.
    NotANewAccount,
    /// A prekey id that is not above all accepted before, and not the stored key again.
    UsedPreKeyId,
    /// More than 100 one-time prekeys of one kind.
    TooManyPreKeys,
    /// A last-resort key where a one-time key belongs, or the other way round.
    WrongKeyKind,
    /// Another envelope of that id waits for the device.
    UsedEnvelopeId,
    /// An object above 64 KiB, or a blob above 64 MiB.
    TooLarge,
    /// A blob whose name is not the SHA-256 of its bytes.
    WrongName,
}

impl Refusal {
    /// Its name on the wire: lower case, never changed.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::BadSignature => "bad_signature",
            Self::OtherAccountKey => "other_account_key",
            Self::NotAChain => "not_a_chain",
            Self::MissingLists => "missing_lists",
            Self::NotANewAccount => "not_a_new_account",
            Self::UsedPreKeyId => "used_pre_key_id",
            Self::TooManyPreKeys => "too_many_pre_keys",
            Self::WrongKeyKind => "wrong_key_kind",
            Self::UsedEnvelopeId => "used_envelope_id",
            Self::TooLarge => "too_large",
            Self::WrongName => "wrong_name",
        }
    }
}

impl From<Refusal> for DirectoryError {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}
