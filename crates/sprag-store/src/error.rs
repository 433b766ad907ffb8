//! What can go wrong with a store.

use std::error::Error;
use std::sync::Arc;

use crate::manifest::BackendKind;

/// The foreign error behind one of ours. Shared, because one failed commit answers many callers.
pub type Cause = Arc<dyn Error + Send + Sync>;

/// Why a call on a store did not do what was asked. Nothing was changed, unless a variant says otherwise.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// Another process, or another handle of this one, has the store open. Talk to that one, or wait until it is closed.
    #[error("store is open elsewhere")]
    Locked {
        /// The process that holds it, if it said so.
        owner: Option<u32>,
    },
    /// There is no store in this directory. Create one.
    #[error("no store found")]
    NotFound,
    /// There is a store in this directory already. Open it.
    #[error("store exists already")]
    Exists,
    /// The key, or the passphrase, does not open this store.
    #[error("wrong key or passphrase")]
    WrongKey,
    /// The key could not be obtained at all.
    #[error(transparent)]
    Key(#[from] sprag_keys::KeyError),
    /// What is on the disk is not what was written there. Keep a copy of the directory; restore from a backup.
    #[error("store is damaged: {0}")]
    Damaged(&'static str),
    /// The store was written by a newer version. Update.
    #[error("store has an unknown version")]
    UnsupportedVersion,
    /// The store is kept in a database that this build does not have. Turn the feature of that name on.
    #[error("store is kept in {}, which this build does not have", .0.name())]
    MissingBackend(BackendKind),
    /// The store is in no directory of its own: whoever keeps its rows has to renew them.
    #[error("store is in no directory and cannot be renewed")]
    NotRenewable,
    /// An earlier commit failed, so that its outcome is unknown. Close the store, open it again, and read anew.
    #[error("an earlier commit failed; open the store again")]
    Poisoned,
    /// Somebody else wrote to this store although it was open here. The store is poisoned.
    #[error("store was written by somebody else")]
    StoreInUse,
    /// The store is not the one that its anchor knows: it was set back, or copied, or its anchor was taken away. Decide
    /// what to do with its state, then [`Store::guard_anew`](crate::Store::guard_anew).
    #[error("store was set back to an earlier state: {0}")]
    RolledBack(Rollback),
    /// What is in the place of the anchor is another store's, or none at all. Each store has an anchor of its own: choose
    /// another place, or take away what is there.
    #[error("anchor belongs to somebody else")]
    ForeignAnchor,
    /// A row is larger than [`MAX_ROW`](crate::MAX_ROW). Split it.
    #[error("row is too large")]
    TooLarge,
    /// A row name is longer than [`MAX_SUFFIX`](crate::MAX_SUFFIX), in the table that the store keeps for itself, or
    /// without an owner in a table of owned rows.
    #[error("row name is not allowed")]
    BadName,
    /// The store was closed.
    #[error("store is closed")]
    Closed,
    /// The process was forked. Only the process that opened a store may use it.
    #[error("store was opened by another process, before a fork")]
    Forked,
    /// The disk is full. The store is poisoned; make room and open it again.
    #[error("no space left for the store")]
    Full,
    /// The operating system did not do what was asked.
    #[error("store could not be read or written")]
    Io(#[source] Cause),
    /// The backend failed in a way of its own.
    #[error("store backend failed")]
    Backend(#[source] Cause),
    /// Opening took longer than it ever should.
    #[error("store did not open in time")]
    TimedOut,
    /// A bug in this library.
    #[error("internal error: {0}")]
    Internal(&'static str),
}

/// By what a store was found to be set back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum Rollback {
    /// The anchor knows another opening: this is an older copy, or another copy was opened since.
    #[error("another copy was opened since")]
    OtherOpening,
    /// The anchor knows of commits that the store does not have.
    #[error("commits are missing that were on stable storage")]
    BehindWatermark,
    /// The store had an anchor, and its place holds none, or a forged one.
    #[error("its anchor is gone")]
    AnchorGone,
}

impl StoreError {
    /// Wraps an error of the operating system; a full disk has its own variant.
    #[must_use]
    pub fn io(error: std::io::Error) -> Self {
        match error.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => Self::Full,
            _ => Self::Io(Arc::new(error)),
        }
    }
}
