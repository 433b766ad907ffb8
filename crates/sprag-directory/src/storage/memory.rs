//! Rows in memory, for tests and simulated worlds.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Entry, LockedStorage, MAX_LISTED, Storage, StorageError, segments};

type Map = BTreeMap<String, Vec<u8>>;

/// A [`Storage`] that forgets when its last clone is dropped. Clones share their rows.
#[derive(Clone, Default)]
pub struct MemoryStorage {
    rows: Arc<Mutex<Map>>,
}

impl MemoryStorage {
    /// An empty storage.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A copy that shares nothing with this one: what a backup of a server is.
    #[must_use]
    pub fn backup(&self) -> Self {
        let rows = self.rows().clone();
        Self {
            rows: Arc::new(Mutex::new(rows)),
        }
    }

    // A panic elsewhere cannot leave a map half written: one `put` is one insertion.
    fn rows(&self) -> MutexGuard<'_, Map> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for MemoryStorage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryStorage").finish_non_exhaustive()
    }
}

impl Storage for MemoryStorage {
    fn lock(&self) -> Result<Box<dyn LockedStorage + '_>, StorageError> {
        Ok(Box::new(Locked { rows: self.rows() }))
    }
}

struct Locked<'a> {
    rows: MutexGuard<'a, Map>,
}

impl LockedStorage for Locked<'_> {
    fn get(&self, key: &str, limit: usize) -> Result<Option<Vec<u8>>, StorageError> {
        let _ = segments(key)?;
        match self.rows.get(key) {
            Some(value) if value.len() > limit => Err(StorageError::TooLarge),
            value => Ok(value.cloned()),
        }
    }

    fn put(&mut self, key: &str, value: &[u8]) -> Result<(), StorageError> {
        let _ = segments(key)?;
        self.rows.insert(key.to_owned(), value.to_vec());
        Ok(())
    }

    fn delete(&mut self, key: &str) -> Result<(), StorageError> {
        let _ = segments(key)?;
        self.rows.remove(key);
        Ok(())
    }

    fn list(&self, key: &str) -> Result<Vec<Entry>, StorageError> {
        let _ = segments(key)?;
        let prefix = format!("{key}/");
        let mut found = Vec::new();
        let from = (Bound::Excluded(prefix.as_str()), Bound::Unbounded);
        for (path, value) in self.rows.range::<str, _>(from) {
            let Some(name) = path.strip_prefix(&prefix) else {
                break;
            };
            if name.contains('/') {
                continue;
            }
            if found.len() == MAX_LISTED {
                return Err(StorageError::TooLarge);
            }
            let size = u64::try_from(value.len()).unwrap_or(u64::MAX);
            found.push(Entry::new(name.to_owned(), size));
        }
        Ok(found)
    }
}
