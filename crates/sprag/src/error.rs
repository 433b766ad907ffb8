//! One error for all verbs: a stable code, and what to do.

use std::time::Duration;

use sprag_keys::KeyError;
use sprag_session::{BackupError, ProtocolError, SendError, StepError};
use sprag_store::StoreError;

/// Every code that [`Error::code`] and [`Refusal::code`](crate::Refusal::code) can give. The list only grows.
pub const CODES: [&str; 71] = [
    "malformed",
    "unsupported_version",
    "unknown_peer",
    "bad_origin",
    "untrusted_identity",
    "unlisted_device",
    "stale_list",
    "forked_list",
    "unknown_list",
    "list_mismatch",
    "duplicate",
    "no_session",
    "unknown_pre_key",
    "mode_refused",
    "desynchronised",
    "too_far_ahead",
    "unreadable",
    "invalid_key",
    "bad_signature",
    "needs_bundle",
    "chain_exhausted",
    "bad_content",
    "bad_input",
    "outbox_full",
    "closed",
    "forked",
    "store_in_use",
    "store_poisoned",
    "store_damaged",
    "store_full",
    "store_failed",
    "store_version",
    "wrong_key",
    "key_unreadable",
    "no_profile",
    "profile_exists",
    "other_user",
    "internal",
    "store_rolled_back",
    "anchor_needed",
    "other_anchor",
    "ids_exhausted",
    "backup_damaged",
    "backup_version",
    "backup_too_large",
    "not_linked",
    "link_expired",
    "not_holder",
    "bad_record",
    "no_record",
    "record_deleted",
    "record_erased",
    "record_exists",
    "write_conflict",
    "blob_stale",
    "blob_damaged",
    "blob_misplaced",
    "blob_missing",
    "record_newer",
    "key_not_here",
    "backend_away",
    "backend_refused",
    "backend_lied",
    "space_full",
    "export_damaged",
    "export_version",
    "attachment_too_large",
    "attachment_damaged",
    "input_failed",
    "output_failed",
    "log_behind",
];

/// What a caller does about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Action {
    /// Nothing: the input was worthless. Tell nobody.
    Drop,
    /// The same call again, perhaps later: see [`Error::retry_after`].
    Retry,
    /// The user decides.
    AskUser(Question),
    /// Look at the cause, then open the store again with [`Client::reopen`](crate::Client::reopen).
    Reopen,
    /// A newer version of the program is needed.
    Update,
    /// The call itself is wrong.
    FixCall,
}

/// What the user is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Question {
    /// A contact's identity has changed: compare safety numbers, then `accept` or not.
    AcceptIdentity,
    /// The passphrase or key was wrong: ask for it again.
    Key,
    /// The disk is full: make room.
    FreeSpace,
    /// The store is damaged: restore from a backup as a new device.
    Restore,
    /// The store was set back to an earlier state: go on with it, and how? See `AfterRollback`.
    RolledBack,
    /// This device is to be linked anew, once its profile is removed: its link request has expired, or it has to become
    /// another device and cannot sign the account's list.
    LinkAgain,
    /// Another process holds the store: end it, or use it.
    EndOtherProcess,
}

/// Why a verb failed. Nothing was changed, unless [`Error::is_in_doubt`] says that nobody can know.
///
/// It carries no plaintext, no key and no address.
#[derive(Debug, Clone)]
pub struct Error(Cause);

#[derive(Debug, Clone, thiserror::Error)]
enum Cause {
    #[error(transparent)]
    Protocol(ProtocolError),
    #[error("too many messages are under way")]
    OutboxFull,
    #[error("client is closed")]
    Closed,
    #[error("this process was forked from the one that opened the store")]
    Forked,
    #[error(transparent)]
    Store(StoreError),
    #[error("there is no profile in this place")]
    NoProfile,
    #[error("there is a profile in this place already")]
    ProfileExists,
    #[error("the profile in this place belongs to another user")]
    OtherUser,
    #[cfg(all(any(feature = "sled", feature = "redb"), not(target_family = "wasm")))]
    #[error("the profile is guarded by an anchor, and none was given")]
    AnchorNeeded,
    #[error("all prekey ids are used up")]
    IdsExhausted,
    #[error("backup is damaged")]
    BackupDamaged,
    #[error("backup is of another version")]
    BackupVersion,
    #[error("backup would be too large")]
    BackupTooLarge,
    #[error("this device is not linked to its account yet")]
    NotLinked,
    #[error("the link request has expired")]
    LinkExpired,
    #[cfg(all(any(feature = "sled", feature = "redb"), not(target_family = "wasm")))]
    #[error("this device does not have the account's private key: link a new device instead")]
    NotHolder,
    #[cfg(feature = "memory")]
    #[error(transparent)]
    Memory(crate::memory::Fault),
    #[cfg(feature = "attachments")]
    #[error("attachment is above 100 MiB")]
    AttachmentTooLarge,
    #[cfg(feature = "attachments")]
    #[error("attachment is not what its sender named")]
    AttachmentDamaged,
    #[cfg(feature = "attachments")]
    #[error("what was to be attached could not be read: {0}")]
    Input(std::io::ErrorKind),
    #[cfg(feature = "attachments")]
    #[error("attachment could not be written: {0}")]
    Output(std::io::ErrorKind),
    #[error("internal error: {0}")]
    Internal(&'static str),
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(&self.0, f)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.0 {
            Cause::Store(error) => Some(error),
            #[cfg(feature = "memory")]
            Cause::Memory(fault) => std::error::Error::source(fault),
            _ => None,
        }
    }
}

pub(crate) fn protocol_code(error: ProtocolError) -> &'static str {
    match error {
        ProtocolError::Malformed => "malformed",
        ProtocolError::UnsupportedVersion => "unsupported_version",
        ProtocolError::UnknownPeer => "unknown_peer",
        ProtocolError::BadOrigin => "bad_origin",
        ProtocolError::UntrustedIdentity => "untrusted_identity",
        ProtocolError::UnlistedDevice => "unlisted_device",
        ProtocolError::StaleList => "stale_list",
        ProtocolError::ForkedList => "forked_list",
        ProtocolError::UnknownList => "unknown_list",
        ProtocolError::ListMismatch => "list_mismatch",
        ProtocolError::Duplicate => "duplicate",
        ProtocolError::NoSession => "no_session",
        ProtocolError::UnknownPreKey => "unknown_pre_key",
        ProtocolError::ModeRefused => "mode_refused",
        ProtocolError::Desynchronised => "desynchronised",
        ProtocolError::TooFarAhead => "too_far_ahead",
        ProtocolError::Unreadable => "unreadable",
        ProtocolError::InvalidKey => "invalid_key",
        ProtocolError::BadSignature => "bad_signature",
        ProtocolError::NeedsBundle => "needs_bundle",
        ProtocolError::ChainExhausted => "chain_exhausted",
        ProtocolError::BadContent => "bad_content",
        ProtocolError::BadInput => "bad_input",
        _ => "internal",
    }
}

pub(crate) fn protocol_action(error: ProtocolError) -> Action {
    match error {
        ProtocolError::UnsupportedVersion => Action::Update,
        ProtocolError::UntrustedIdentity
        | ProtocolError::ForkedList
        | ProtocolError::ListMismatch => Action::AskUser(Question::AcceptIdentity),
        ProtocolError::UnknownList | ProtocolError::NeedsBundle | ProtocolError::ChainExhausted => {
            Action::Retry
        }
        ProtocolError::BadInput => Action::FixCall,
        _ => Action::Drop,
    }
}

impl Error {
    /// One of [`CODES`], for programs, logs and support.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match &self.0 {
            Cause::Protocol(error) => protocol_code(*error),
            Cause::OutboxFull => "outbox_full",
            Cause::Closed => "closed",
            Cause::Forked => "forked",
            Cause::Store(error) => store_code(error),
            Cause::NoProfile => "no_profile",
            Cause::ProfileExists => "profile_exists",
            Cause::OtherUser => "other_user",
            #[cfg(all(any(feature = "sled", feature = "redb"), not(target_family = "wasm")))]
            Cause::AnchorNeeded => "anchor_needed",
            Cause::IdsExhausted => "ids_exhausted",
            Cause::BackupDamaged => "backup_damaged",
            Cause::BackupVersion => "backup_version",
            Cause::BackupTooLarge => "backup_too_large",
            Cause::NotLinked => "not_linked",
            Cause::LinkExpired => "link_expired",
            #[cfg(all(any(feature = "sled", feature = "redb"), not(target_family = "wasm")))]
            Cause::NotHolder => "not_holder",
            #[cfg(feature = "memory")]
            Cause::Memory(fault) => fault.code(),
            #[cfg(feature = "attachments")]
            Cause::AttachmentTooLarge => "attachment_too_large",
            #[cfg(feature = "attachments")]
            Cause::AttachmentDamaged => "attachment_damaged",
            #[cfg(feature = "attachments")]
            Cause::Input(_) => "input_failed",
            #[cfg(feature = "attachments")]
            Cause::Output(_) => "output_failed",
            Cause::Internal(_) => "internal",
        }
    }

    /// What to do about it.
    #[must_use]
    pub fn action(&self) -> Action {
        match self.code() {
            "not_linked" => Action::Retry,
            "link_expired" => Action::AskUser(Question::LinkAgain),
            "outbox_full" => Action::Retry,
            "closed"
            | "forked"
            | "no_profile"
            | "profile_exists"
            | "other_user"
            | "key_unreadable"
            | "anchor_needed"
            | "other_anchor"
            | "backup_damaged"
            | "backup_too_large"
            | "attachment_too_large"
            | "input_failed"
            | "output_failed" => Action::FixCall,
            "attachment_damaged" => Action::Drop,
            "store_rolled_back" => Action::AskUser(Question::RolledBack),
            "not_holder" => Action::AskUser(Question::LinkAgain),
            "store_in_use" => Action::AskUser(Question::EndOtherProcess),
            "store_full" => Action::AskUser(Question::FreeSpace),
            "store_damaged" | "ids_exhausted" => Action::AskUser(Question::Restore),
            "wrong_key" => Action::AskUser(Question::Key),
            "store_poisoned" | "store_failed" | "internal" => Action::Reopen,
            "store_version" | "backup_version" => Action::Update,
            _ => match &self.0 {
                Cause::Protocol(error) => protocol_action(*error),
                #[cfg(feature = "memory")]
                Cause::Memory(fault) => fault.action(),
                _ => Action::Reopen,
            },
        }
    }

    /// With `store_in_use`: the number of the process that has the store open, if it said so.
    #[must_use]
    pub fn owner(&self) -> Option<u32> {
        match &self.0 {
            Cause::Store(StoreError::Locked { owner }) => *owner,
            _ => None,
        }
    }

    /// When trying again makes sense, if that is known.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self.code() {
            "outbox_full" => Some(Duration::from_secs(1)),
            _ => None,
        }
    }

    /// Whether the same call may succeed later.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        self.action() == Action::Retry
    }

    /// Whether somebody failed to prove who he is.
    #[must_use]
    pub fn is_authentication(&self) -> bool {
        matches!(
            self.code(),
            "bad_origin"
                | "bad_signature"
                | "untrusted_identity"
                | "forked_list"
                | "unlisted_device"
                | "unreadable"
        )
    }

    /// Whether the step may have taken effect all the same: the store failed while writing. Open it again and look.
    #[must_use]
    pub fn is_in_doubt(&self) -> bool {
        matches!(
            self.code(),
            "store_poisoned" | "store_failed" | "store_full"
        )
    }

    pub(crate) fn closed() -> Self {
        Self(Cause::Closed)
    }

    pub(crate) fn forked() -> Self {
        Self(Cause::Forked)
    }

    pub(crate) fn no_profile() -> Self {
        Self(Cause::NoProfile)
    }

    pub(crate) fn profile_exists() -> Self {
        Self(Cause::ProfileExists)
    }

    pub(crate) fn backup_damaged() -> Self {
        Self(Cause::BackupDamaged)
    }

    pub(crate) fn backup_version() -> Self {
        Self(Cause::BackupVersion)
    }

    pub(crate) fn wrong_key() -> Self {
        Self(Cause::Store(StoreError::WrongKey))
    }

    pub(crate) fn key(error: KeyError) -> Self {
        Self(Cause::Store(StoreError::Key(error)))
    }

    pub(crate) fn other_user() -> Self {
        Self(Cause::OtherUser)
    }

    #[cfg(all(any(feature = "sled", feature = "redb"), not(target_family = "wasm")))]
    pub(crate) fn anchor_needed() -> Self {
        Self(Cause::AnchorNeeded)
    }

    #[cfg(all(any(feature = "sled", feature = "redb"), not(target_family = "wasm")))]
    pub(crate) fn not_holder() -> Self {
        Self(Cause::NotHolder)
    }

    pub(crate) fn internal(what: &'static str) -> Self {
        Self(Cause::Internal(what))
    }

    pub(crate) fn not_linked() -> Self {
        Self(Cause::NotLinked)
    }

    pub(crate) fn link_expired() -> Self {
        Self(Cause::LinkExpired)
    }

    pub(crate) fn bad_input() -> Self {
        Self(Cause::Protocol(ProtocolError::BadInput))
    }

    #[cfg(feature = "attachments")]
    pub(crate) fn attachment_too_large() -> Self {
        Self(Cause::AttachmentTooLarge)
    }

    #[cfg(feature = "attachments")]
    pub(crate) fn attachment_damaged() -> Self {
        Self(Cause::AttachmentDamaged)
    }

    #[cfg(feature = "attachments")]
    pub(crate) fn input(kind: std::io::ErrorKind) -> Self {
        Self(Cause::Input(kind))
    }

    #[cfg(feature = "attachments")]
    pub(crate) fn output(kind: std::io::ErrorKind) -> Self {
        Self(Cause::Output(kind))
    }
}

impl From<ProtocolError> for Error {
    fn from(error: ProtocolError) -> Self {
        Self(Cause::Protocol(error))
    }
}

#[cfg(feature = "memory")]
impl From<crate::memory::Fault> for Error {
    fn from(fault: crate::memory::Fault) -> Self {
        Self(Cause::Memory(fault))
    }
}

#[cfg(feature = "memory")]
impl From<crate::memory::InvalidRecord> for Error {
    fn from(invalid: crate::memory::InvalidRecord) -> Self {
        Self(Cause::Memory(invalid.into()))
    }
}

impl From<StepError> for Error {
    fn from(error: StepError) -> Self {
        match error {
            StepError::Protocol(error) => error.into(),
            StepError::Store(error) => error.into(),
            StepError::Exhausted => Self(Cause::IdsExhausted),
            StepError::NotLinked => Self::not_linked(),
            StepError::LinkExpired => Self::link_expired(),
            #[cfg(feature = "memory")]
            StepError::Log(error) => crate::memory::refused(error),
            StepError::Internal(what) => Self::internal(what),
            _ => Self::internal("a step that this facade does not know"),
        }
    }
}

impl From<BackupError> for Error {
    fn from(error: BackupError) -> Self {
        match error {
            BackupError::Step(error) => error.into(),
            BackupError::TooLarge => Self(Cause::BackupTooLarge),
            BackupError::Version => Self::backup_version(),
            _ => Self::backup_damaged(),
        }
    }
}

impl From<SendError> for Error {
    fn from(error: SendError) -> Self {
        match error {
            SendError::OutboxFull => Self(Cause::OutboxFull),
            SendError::Step(error) => error.into(),
            _ => Self::internal("a step that this facade does not know"),
        }
    }
}

fn store_code(error: &StoreError) -> &'static str {
    match error {
        StoreError::Locked { .. } | StoreError::StoreInUse => "store_in_use",
        StoreError::NotFound => "no_profile",
        StoreError::Exists => "profile_exists",
        StoreError::WrongKey | StoreError::Key(KeyError::WrongKind | KeyError::EmptyPassphrase) => {
            "wrong_key"
        }
        StoreError::Key(KeyError::UnknownSlot)
        | StoreError::UnsupportedVersion
        | StoreError::MissingBackend(_) => "store_version",
        StoreError::Key(_) => "key_unreadable",
        StoreError::Damaged(_) => "store_damaged",
        StoreError::Poisoned => "store_poisoned",
        StoreError::RolledBack(_) => "store_rolled_back",
        StoreError::ForeignAnchor => "other_anchor",
        StoreError::Closed => "closed",
        StoreError::Forked => "forked",
        StoreError::Full => "store_full",
        StoreError::Internal(_) => "internal",
        _ => "store_failed",
    }
}

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::NotFound => Self::no_profile(),
            StoreError::Exists => Self::profile_exists(),
            StoreError::Closed => Self::closed(),
            StoreError::Forked => Self::forked(),
            StoreError::NotRenewable => Self::bad_input(),
            error => Self(Cause::Store(error)),
        }
    }
}
