//! sled, made durable. The only file that knows it.
//!
//! sled 0.34 is used as one tree that one thread writes to. Its `flush` hands data to the operating system without
//! waiting for the disk, so each commit ends with an fdatasync of sled's log through a handle of our own. What it may do
//! with damaged files is panic, or open them with rows missing: every call is made under a guard against panics, and the
//! digest over all rows, checked at each opening, finds what is missing.

use std::fmt;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::ErrorKind;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use ::sled::{Config, Db, Error, Mode, Tree};

use crate::StoreError;
use crate::backend::{BACKEND_TABLES, BackendError, RowMap};
use crate::commit::{Committer, Disk};
use crate::rows::Visit;
use crate::sys::{LockFile, names_in, remove_file, sync_dir};

/// The one tree.
const TREE: &str = "v1";

/// The row with the number of the last batch.
const SEQUENCE_KEY: [u8; 1] = [0xff];

/// What sled keeps in memory, roughly.
const CACHE: u64 = 16 * 1024 * 1024;

/// No open was ever seen to hang; if one does, it shall not hang its caller.
const OPEN_TIMEOUT: Duration = Duration::from_secs(120);

/// How long sled may take to let its file go. Milliseconds, as far as was seen.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(5);

/// A sled database and our handle of its log. Fields are dropped in order: the lock of the store goes last.
pub(crate) struct SledDisk {
    tree: Tree,
    _db: Db,
    log: Log,
    _lock: Arc<LockFile>,
}

/// Whether a database is to be made or to be found.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Expect {
    /// The directory is empty.
    Nothing,
    /// The directory was filled by a store: anything missing is damage.
    Database,
}

impl SledDisk {
    /// Opens the database in a directory that is ours by `lock`.
    pub(crate) fn open(
        dir: &Path,
        expect: Expect,
        lock: Arc<LockFile>,
    ) -> Result<Committer<Self>, StoreError> {
        if expect == Expect::Database {
            check_files(dir)?;
        }
        remove_torn_snapshots(dir).map_err(StoreError::io)?;
        if expect == Expect::Database {
            // An attempt to open that failed may still be on its way out.
            drop(Log::open(dir)?);
        }
        let (db, tree) = open_in_time(dir.to_owned(), expect)?;
        let disk = Self {
            tree,
            _db: db,
            log: Log::open(dir)?,
            _lock: lock,
        };
        if expect == Expect::Nothing {
            sync_dir(dir).map_err(StoreError::io)?;
        }
        match disk.last(expect) {
            Ok(last) => Ok(Committer::start(disk, last)?),
            Err(error) => {
                // A damaged database may panic when it goes, too.
                let _ = catch_unwind(AssertUnwindSafe(|| drop(disk)));
                Err(error)
            }
        }
    }

    /// The number of the last batch, 0 in a fresh database.
    fn last(&self, expect: Expect) -> Result<u64, StoreError> {
        match (guarded(|| self.tree.get(SEQUENCE_KEY))?, expect) {
            (None, Expect::Nothing) => Ok(0),
            (Some(last), Expect::Database) => {
                let last = last.as_ref().try_into();
                Ok(u64::from_be_bytes(
                    last.map_err(|_| StoreError::Damaged("sequence number"))?,
                ))
            }
            _ => Err(StoreError::Damaged("rows are missing")),
        }
    }
}

impl Disk for SledDisk {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, BackendError> {
        let value = self.tree.get(key).map_err(from_sled)?;
        Ok(value.map(|value| value.to_vec()))
    }

    fn scan(&self, prefix: &[u8], visit: Visit<'_>) -> Result<(), BackendError> {
        for row in self.tree.scan_prefix(prefix) {
            let (key, value) = row.map_err(from_sled)?;
            let ours = key.first().is_none_or(|table| *table >= BACKEND_TABLES);
            if ours || visit(&key, &value).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn apply(&self, sequence: u64, rows: &RowMap) -> Result<(), BackendError> {
        let mut batch = ::sled::Batch::default();
        for (key, value) in rows {
            match value {
                Some(value) => batch.insert(key.as_slice(), value.as_slice()),
                None => batch.remove(key.as_slice()),
            }
        }
        batch.insert(&SEQUENCE_KEY, &sequence.to_be_bytes());
        self.tree.apply_batch(batch).map_err(from_sled)
    }

    fn flush(&self) -> Result<(), BackendError> {
        self.tree.flush().map_err(from_sled)?;
        Ok(())
    }

    fn sync(&self) -> Result<(), BackendError> {
        Ok(self.log.0.sync_data()?)
    }
}

impl fmt::Debug for SledDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SledDisk").finish_non_exhaustive()
    }
}

/// Our handle of sled's log. When it goes, it waits until sled's own lock on the file is gone: tasks in the background
/// hold it for a while after the database was dropped, and whoever opens next would find it locked.
struct Log(File);

impl Log {
    fn open(dir: &Path) -> Result<Self, StoreError> {
        let file = OpenOptions::new().write(true).open(dir.join("db"));
        file.map(Self).map_err(StoreError::io)
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        let pause = Duration::from_millis(1);
        let mut waited = Duration::ZERO;
        while let Err(TryLockError::WouldBlock) = self.0.try_lock()
            && waited < RELEASE_TIMEOUT
        {
            thread::sleep(pause);
            waited = waited.saturating_add(pause);
        }
    }
}

/// What sled would take for a new database is, in the place of an old one, damage.
fn check_files(dir: &Path) -> Result<(), StoreError> {
    for name in ["db", "conf"] {
        match std::fs::metadata(dir.join(name)) {
            Ok(meta) if meta.is_file() && meta.len() > 0 => {}
            Ok(_) => return Err(StoreError::Damaged("a file of the database is empty")),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return Err(StoreError::Damaged("a file of the database is missing"));
            }
            Err(error) => return Err(StoreError::io(error)),
        }
    }
    Ok(())
}

/// A crash while sled opens can leave a half-written snapshot, which it would then take for the newest, for ever.
fn remove_torn_snapshots(dir: &Path) -> std::io::Result<()> {
    for name in names_in(dir)? {
        if name.starts_with("snap.") && name.ends_with(".generating") {
            remove_file(dir, &name)?;
        }
    }
    Ok(())
}

fn open_in_time(dir: PathBuf, expect: Expect) -> Result<(Db, Tree), StoreError> {
    let (tell, told) = mpsc::channel();
    thread::Builder::new()
        .name("sprag-open".into())
        .spawn(move || {
            let opened = guarded(|| {
                let db = Config::new()
                    .path(&dir)
                    .cache_capacity(CACHE)
                    .mode(Mode::LowSpace)
                    .flush_every_ms(None)
                    .open()?;
                if expect == Expect::Database
                    && !db.tree_names().iter().any(|name| name == TREE.as_bytes())
                {
                    return Ok(None);
                }
                let tree = db.open_tree(TREE)?;
                Ok(Some((db, tree)))
            });
            // Nobody listens any more after the time-out; what was opened is then closed.
            let _ = tell.send(opened);
        })
        .map_err(StoreError::io)?;
    match told.recv_timeout(OPEN_TIMEOUT) {
        // sled has many words for files that it did not write so.
        Ok(Err(StoreError::Backend(_))) => Err(StoreError::Damaged("the database does not open")),
        Ok(opened) => opened?.ok_or(StoreError::Damaged("the table of rows is missing")),
        Err(mpsc::RecvTimeoutError::Timeout) => Err(StoreError::TimedOut),
        Err(mpsc::RecvTimeoutError::Disconnected) => {
            Err(StoreError::Damaged("the database gave up"))
        }
    }
}

/// Runs a call of sled outside of the committer's guard.
fn guarded<T>(call: impl FnOnce() -> Result<T, Error>) -> Result<T, StoreError> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(Ok(value)) => Ok(value),
        // sled has a lock of its own; ours is held, so whoever has it is no store of ours.
        Ok(Err(Error::Io(error))) if error.to_string().contains("could not acquire lock") => {
            Err(StoreError::Locked { owner: None })
        }
        Ok(Err(error)) => Err(from_sled(error).into()),
        Err(_) => Err(StoreError::Damaged("the database gave up")),
    }
}

fn from_sled(error: Error) -> BackendError {
    match error {
        Error::Io(error)
            if matches!(
                error.kind(),
                ErrorKind::UnexpectedEof | ErrorKind::InvalidData
            ) =>
        {
            BackendError::Damaged("a file of the database is cut")
        }
        Error::Io(error) => error.into(),
        Error::Corruption { .. } => BackendError::Damaged("the database says so"),
        Error::CollectionNotFound(_) => BackendError::Damaged("the table of rows is missing"),
        error => BackendError::Other(Arc::new(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance;

    fn open(dir: &Path) -> Committer<SledDisk> {
        let expect = if dir.join("db").exists() {
            Expect::Database
        } else {
            Expect::Nothing
        };
        let lock = Arc::new(LockFile::acquire(&dir.join("LOCK")).unwrap());
        SledDisk::open(dir, expect, lock).unwrap()
    }

    #[test]
    fn sled_conforms() {
        let mut dirs = Vec::new();
        conformance::backend(|| {
            let dir = tempfile::tempdir().unwrap();
            let backend = open(dir.path());
            dirs.push(dir);
            backend
        })
        .unwrap();
        for dir in &dirs {
            let blobs = dir.path().join("blobs");
            assert!(!blobs.exists() || names_in(&blobs).unwrap().is_empty());
        }
    }

    #[test]
    fn sled_keeps_what_was_committed() {
        let dir = tempfile::tempdir().unwrap();
        conformance::durable_backend(|| open(dir.path())).unwrap();
    }

    #[test]
    fn database_without_its_files_or_rows_is_damaged() {
        let dir = tempfile::tempdir().unwrap();
        drop(open(dir.path()));
        let reopen = || {
            let lock = Arc::new(LockFile::acquire(&dir.path().join("LOCK")).unwrap());
            SledDisk::open(dir.path(), Expect::Database, lock).map(drop)
        };
        // Opened but never committed to: there is no sequence number.
        assert!(matches!(reopen(), Err(StoreError::Damaged(_))));
        std::fs::write(dir.path().join("conf"), []).unwrap();
        assert!(matches!(reopen(), Err(StoreError::Damaged(_))));
        std::fs::remove_file(dir.path().join("db")).unwrap();
        assert!(matches!(reopen(), Err(StoreError::Damaged(_))));
    }
}
