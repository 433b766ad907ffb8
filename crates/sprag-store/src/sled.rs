//! sled, made durable. The only file that knows it.
//!
//! sled 0.34 is used as one tree that one thread writes to. Its `flush` hands data to the operating system without
//! waiting for the disk, so each commit ends with an fdatasync of sled's log through a handle of our own. What it may do
//! with damaged files is panic, or open them with rows missing: every call is made under a guard against panics, and the
//! digest over all rows, checked at each opening, finds what is missing.

use std::fmt;
use std::fs::{File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use ::sled::{Config, Db, Error, Mode, Tree};

use crate::StoreError;
use crate::backend::{BACKEND_TABLES, BackendError, RowMap};
use crate::commit::Disk;
use crate::disk::{CACHE, Expect, SEQUENCE_KEY, check_files, from_io, in_time};
use crate::rows::Visit;
use crate::sys::{LockFile, names_in, read_file, remove_file, sync_dir};

/// The one tree.
const TREE: &str = "v1";

/// How long sled may take to let its file go. Milliseconds, as far as was seen.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(5);

/// A sled database and our handle of its log. Fields are dropped in order: the lock of the store goes last.
pub(crate) struct SledDisk {
    tree: Tree,
    _db: Db,
    log: Log,
    _lock: Arc<LockFile>,
}

impl SledDisk {
    /// Opens the database in a directory that is ours by `lock`.
    pub(crate) fn open(
        dir: &Path,
        expect: Expect,
        lock: Arc<LockFile>,
    ) -> Result<Self, StoreError> {
        if expect == Expect::Database {
            check_files(dir, &["db", "conf"])?;
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
        Ok(disk)
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

/// What sled writes to `conf` for our configuration, which is the same in every store. It is made in an empty directory.
pub(crate) fn fresh_conf(scratch: &Path) -> Result<Vec<u8>, StoreError> {
    let lock = Arc::new(LockFile::acquire(&scratch.join("LOCK"))?);
    drop(SledDisk::open(scratch, Expect::Nothing, lock)?);
    let conf = read_file(&scratch.join("conf"), 1 << 12).map_err(StoreError::io)?;
    conf.ok_or(StoreError::Internal("a database without conf"))
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
    in_time(move || {
        let config = Config::new()
            .path(&dir)
            .cache_capacity(CACHE.into())
            .mode(Mode::LowSpace)
            .flush_every_ms(None);
        let db = config.open().map_err(|error| match error {
            Error::Io(error) if error.to_string().contains("could not acquire lock") => {
                BackendError::StoreInUse
            }
            error => from_sled(error),
        })?;
        if expect == Expect::Database && !db.tree_names().iter().any(|name| name == TREE.as_bytes())
        {
            return Err(BackendError::Damaged("the table of rows is missing"));
        }
        let tree = db.open_tree(TREE).map_err(from_sled)?;
        Ok((db, tree))
    })
}

fn from_sled(error: Error) -> BackendError {
    match error {
        Error::Io(error) => from_io(error),
        Error::Corruption { .. } => BackendError::Damaged("the database says so"),
        Error::CollectionNotFound(_) => BackendError::Damaged("the table of rows is missing"),
        error => BackendError::Other(Arc::new(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commit::Committer;
    use crate::{BackendKind, conformance, disk};

    fn try_open(dir: &Path, expect: Expect) -> Result<Committer<Box<dyn Disk>>, StoreError> {
        let lock = Arc::new(LockFile::acquire(&dir.join("LOCK")).unwrap());
        let (disk, last) = disk::open(BackendKind::Sled, dir, expect, lock)?;
        Ok(Committer::start(disk, last).unwrap())
    }

    fn open(dir: &Path) -> Committer<Box<dyn Disk>> {
        let expect = if dir.join("db").exists() {
            Expect::Database
        } else {
            Expect::Nothing
        };
        try_open(dir, expect).unwrap()
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
        let reopen = || try_open(dir.path(), Expect::Database).map(drop);
        // Opened but never committed to: there is no sequence number.
        assert!(matches!(reopen(), Err(StoreError::Damaged(_))));
        std::fs::write(dir.path().join("conf"), []).unwrap();
        assert!(matches!(reopen(), Err(StoreError::Damaged(_))));
        std::fs::remove_file(dir.path().join("db")).unwrap();
        assert!(matches!(reopen(), Err(StoreError::Damaged(_))));
    }
}
