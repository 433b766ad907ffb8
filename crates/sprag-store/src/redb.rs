//! redb. The only file that knows it.
//!
//! redb 4 is used as one table that one thread writes to. A commit with immediate durability returns when it is on stable
//! storage, so that it is the whole durable step, and nothing is left for flush and sync. With damaged files it may panic,
//! give an error or give other bytes: every call is made under a guard against panics, redb counts its pages over at each
//! opening, and seals and the digest find what that does not.

use std::fmt;
use std::ops::Bound;
use std::path::Path;
use std::sync::Arc;

use ::redb::{Database, Durability, Error, ReadableDatabase, TableDefinition};

use crate::StoreError;
use crate::backend::{BACKEND_TABLES, BackendError, RowMap};
use crate::commit::Disk;
use crate::disk::{CACHE, Expect, SEQUENCE_KEY, check_files, from_io, in_time};
use crate::rows::Visit;
use crate::sys::{LockFile, sync_dir};

/// The one table.
const TABLE: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("v1");

/// The one file.
const FILE: &str = "rows.redb";

/// A redb database. Fields are dropped in order: the lock of the store goes last.
pub(crate) struct RedbDisk {
    db: Database,
    _lock: Arc<LockFile>,
}

impl RedbDisk {
    /// Opens the database in a directory that is ours by `lock`.
    pub(crate) fn open(
        dir: &Path,
        expect: Expect,
        lock: Arc<LockFile>,
    ) -> Result<Self, StoreError> {
        if expect == Expect::Database {
            check_files(dir, &[FILE])?;
        }
        let path = dir.join(FILE);
        let db = in_time(move || open_database(&path, expect).map_err(from_redb))?;
        if expect == Expect::Nothing {
            sync_dir(dir).map_err(StoreError::io)?;
        }
        Ok(Self { db, _lock: lock })
    }
}

fn open_database(path: &Path, expect: Expect) -> Result<Database, Error> {
    let mut builder = Database::builder();
    builder.set_cache_size(CACHE.try_into().unwrap_or(usize::MAX));
    if expect == Expect::Database {
        return Ok(builder.set_check_integrity_on_open(true).open(path)?);
    }
    let db = builder.create(path)?;
    let transaction = db.begin_write()?;
    transaction.open_table(TABLE)?;
    transaction.commit()?;
    Ok(db)
}

impl Disk for RedbDisk {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, BackendError> {
        let get = || -> Result<_, Error> {
            let table = self.db.begin_read()?.open_table(TABLE)?;
            Ok(table.get(key)?.map(|value| value.value().to_vec()))
        };
        get().map_err(from_redb)
    }

    fn scan(&self, prefix: &[u8], visit: Visit<'_>) -> Result<(), BackendError> {
        let mut scan = || -> Result<_, Error> {
            let table = self.db.begin_read()?.open_table(TABLE)?;
            let rows = table.range::<&[u8]>((Bound::Included(prefix), Bound::Unbounded))?;
            for row in rows {
                let (key, value) = row?;
                let (key, value) = (key.value(), value.value());
                let ours = key.first().is_none_or(|table| *table >= BACKEND_TABLES);
                if ours || !key.starts_with(prefix) || visit(key, value).is_break() {
                    break;
                }
            }
            Ok(())
        };
        scan().map_err(from_redb)
    }

    fn apply(&self, sequence: u64, rows: &RowMap) -> Result<(), BackendError> {
        let apply = || -> Result<_, Error> {
            let mut transaction = self.db.begin_write()?;
            transaction.set_durability(Durability::Immediate)?;
            {
                let mut table = transaction.open_table(TABLE)?;
                for (key, value) in rows {
                    match value {
                        Some(value) => table.insert(key.as_slice(), value.as_slice())?,
                        None => table.remove(key.as_slice())?,
                    };
                }
                table.insert(SEQUENCE_KEY.as_slice(), sequence.to_be_bytes().as_slice())?;
            }
            Ok(transaction.commit()?)
        };
        apply().map_err(from_redb)
    }

    fn flush(&self) -> Result<(), BackendError> {
        Ok(())
    }

    fn sync(&self) -> Result<(), BackendError> {
        Ok(())
    }
}

impl fmt::Debug for RedbDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedbDisk").finish_non_exhaustive()
    }
}

fn from_redb(error: Error) -> BackendError {
    match error {
        Error::Io(error) => from_io(error),
        Error::DatabaseAlreadyOpen | Error::LockProtocolMismatch => BackendError::StoreInUse,
        Error::Corrupted(_) | Error::RepairAborted => BackendError::Damaged("the database says so"),
        Error::TableDoesNotExist(_)
        | Error::TableTypeMismatch { .. }
        | Error::TableIsMultimap(_)
        | Error::TypeDefinitionChanged { .. } => {
            BackendError::Damaged("the table of rows is missing")
        }
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
        let (disk, last) = disk::open(BackendKind::Redb, dir, expect, lock)?;
        Ok(Committer::start(disk, last).unwrap())
    }

    fn open(dir: &Path) -> Committer<Box<dyn Disk>> {
        let expect = if dir.join(FILE).exists() {
            Expect::Database
        } else {
            Expect::Nothing
        };
        try_open(dir, expect).unwrap()
    }

    #[test]
    fn redb_conforms() {
        let mut dirs = Vec::new();
        conformance::backend(|| {
            let dir = tempfile::tempdir().unwrap();
            let backend = open(dir.path());
            dirs.push(dir);
            backend
        })
        .unwrap();
    }

    #[test]
    fn redb_keeps_what_was_committed() {
        let dir = tempfile::tempdir().unwrap();
        conformance::durable_backend(|| open(dir.path())).unwrap();
    }

    #[test]
    fn database_without_its_file_or_rows_is_damaged() {
        let dir = tempfile::tempdir().unwrap();
        drop(open(dir.path()));
        let reopen = || try_open(dir.path(), Expect::Database).map(drop);
        // Opened but never committed to: there is no sequence number.
        assert!(matches!(reopen(), Err(StoreError::Damaged(_))));
        std::fs::write(dir.path().join(FILE), b"something else").unwrap();
        assert!(matches!(reopen(), Err(StoreError::Damaged(_))));
        std::fs::write(dir.path().join(FILE), []).unwrap();
        assert!(matches!(reopen(), Err(StoreError::Damaged(_))));
        std::fs::remove_file(dir.path().join(FILE)).unwrap();
        assert!(matches!(reopen(), Err(StoreError::Damaged(_))));
    }
}
