//! What the databases in a directory have in common.

use std::io::ErrorKind;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use crate::StoreError;
use crate::backend::BackendError;
use crate::commit::Disk;
use crate::manifest::BackendKind;
use crate::sys::{LockFile, file_len, spawn};

/// The row with the number of the last batch.
pub(crate) const SEQUENCE_KEY: [u8; 1] = [0xff];

/// What a database keeps in memory, roughly.
pub(crate) const CACHE: u32 = 16 * 1024 * 1024;

/// No open was ever seen to hang; if one does, it shall not hang its caller.
const OPEN_TIMEOUT: Duration = Duration::from_secs(120);

/// Whether a database is to be made or to be found.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Expect {
    /// The directory is empty.
    Nothing,
    /// The directory was filled by a store: anything missing is damage.
    Database,
}

/// Opens the database of a kind in a directory that is ours by `lock`, with the number of its last batch.
pub(crate) fn open(
    kind: BackendKind,
    dir: &Path,
    expect: Expect,
    lock: Arc<LockFile>,
) -> Result<(Box<dyn Disk>, u64), StoreError> {
    let disk: Box<dyn Disk> = match kind {
        #[cfg(feature = "sled")]
        BackendKind::Sled => Box::new(crate::sled::SledDisk::open(dir, expect, lock)?),
        #[cfg(feature = "redb")]
        BackendKind::Redb => Box::new(crate::redb::RedbDisk::open(dir, expect, lock)?),
        #[cfg(not(all(feature = "sled", feature = "redb")))]
        _ => return Err(StoreError::MissingBackend(kind)),
    };
    match guarded(|| Ok(last(&*disk, expect))).and_then(|last| last) {
        Ok(last) => Ok((disk, last)),
        Err(error) => {
            // A damaged database may panic when it goes, too.
            let _ = catch_unwind(AssertUnwindSafe(|| drop(disk)));
            Err(error)
        }
    }
}

/// The number of the last batch, 0 in a fresh database.
fn last(disk: &dyn Disk, expect: Expect) -> Result<u64, StoreError> {
    match (disk.get(&SEQUENCE_KEY)?, expect) {
        (None, Expect::Nothing) => Ok(0),
        (Some(last), Expect::Database) => {
            let last = last.as_slice().try_into();
            Ok(u64::from_be_bytes(
                last.map_err(|_| StoreError::Damaged("sequence number"))?,
            ))
        }
        _ => Err(StoreError::Damaged("rows are missing")),
    }
}

/// What a database would take for a new one is, in the place of an old one, damage.
pub(crate) fn check_files(dir: &Path, names: &[&str]) -> Result<(), StoreError> {
    for name in names {
        match file_len(&dir.join(name)) {
            Ok(1..) => {}
            Ok(_) => return Err(StoreError::Damaged("a file of the database is empty")),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return Err(StoreError::Damaged("a file of the database is missing"));
            }
            Err(error) => return Err(StoreError::io(error)),
        }
    }
    Ok(())
}

/// Opens a database on a thread of its own, so that a panic is damage and nobody waits for ever.
pub(crate) fn in_time<T: Send + 'static>(
    open: impl FnOnce() -> Result<T, BackendError> + Send + 'static,
) -> Result<T, StoreError> {
    let (tell, told) = mpsc::channel();
    spawn("sprag-open", move || {
        // Nobody listens any more after the time-out; what was opened is then closed.
        let _ = tell.send(guarded(open));
    })
    .map_err(StoreError::io)?;
    match told.recv_timeout(OPEN_TIMEOUT) {
        // Databases have many words for files that they did not write so.
        Ok(Err(StoreError::Backend(_))) => Err(StoreError::Damaged("the database does not open")),
        // A lock of their own; ours is held, so whoever has it is no store of ours.
        Ok(Err(StoreError::StoreInUse)) => Err(StoreError::Locked { owner: None }),
        Ok(opened) => opened,
        Err(mpsc::RecvTimeoutError::Timeout) => Err(StoreError::TimedOut),
        Err(mpsc::RecvTimeoutError::Disconnected) => {
            Err(StoreError::Damaged("the database gave up"))
        }
    }
}

/// Runs a call of a database outside of the committer's guard.
pub(crate) fn guarded<T>(call: impl FnOnce() -> Result<T, BackendError>) -> Result<T, StoreError> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(outcome) => Ok(outcome?),
        Err(_) => Err(StoreError::Damaged("the database gave up")),
    }
}

/// An error of reading or writing, where files that end too early are damage.
pub(crate) fn from_io(error: std::io::Error) -> BackendError {
    match error.kind() {
        ErrorKind::UnexpectedEof | ErrorKind::InvalidData => {
            BackendError::Damaged("a file of the database is cut")
        }
        _ => error.into(),
    }
}
