//! Where a directory keeps its rows: one exclusive lock, then get, put, delete and list.

#[cfg(feature = "folder")]
mod folder;
mod memory;

#[cfg(feature = "folder")]
pub use folder::FolderStorage;
pub use memory::MemoryStorage;

/// A place for the rows of a [`Directory`](crate::Directory).
///
/// Each operation of a directory takes the lock once, reads, checks, writes and lets it go. So an implementation owes
/// three things: at most one [`LockedStorage`] exists at a time over all processes that share the place, one `put` takes
/// effect wholly or not at all, and what `put` returned from survives a crash.
pub trait Storage {
    /// Waits until nobody else reads or writes, and keeps all others out until the result is dropped.
    ///
    /// # Errors
    /// [`StorageError::Io`] if the place cannot be reached.
    fn lock(&self) -> Result<Box<dyn LockedStorage + '_>, StorageError>;
}

/// A [`Storage`] that nobody else can reach at this moment.
///
/// Keys are paths: segments of `a-z`, `0-9` and `-`, 1 to 120 bytes each, joined by `/`. User ids never stand in
/// them, only their hashes, so that a hostile name is not a path.
pub trait LockedStorage {
    /// The value under `key`, if it has one.
    ///
    /// # Errors
    /// [`StorageError::TooLarge`] if it has more than `limit` bytes; it is then not read.
    fn get(&self, key: &str, limit: usize) -> Result<Option<Vec<u8>>, StorageError>;

    /// Sets the value under `key`, on stable storage when it returns.
    ///
    /// # Errors
    /// [`StorageError::Io`]; then the old value or the new one is there, whole.
    fn put(&mut self, key: &str, value: &[u8]) -> Result<(), StorageError>;

    /// Removes the value under `key`. Absent is fine. A crash may bring it back.
    ///
    /// # Errors
    /// [`StorageError::Io`].
    fn delete(&mut self, key: &str) -> Result<(), StorageError>;

    /// The values one level below `key`, by ascending name. What is no valid name is left out.
    ///
    /// # Errors
    /// [`StorageError::TooLarge`] for more than [`MAX_LISTED`] values.
    fn list(&self, key: &str) -> Result<Vec<Entry>, StorageError>;
}

/// The largest number of values that [`LockedStorage::list`] names: far above the largest inbox, so that a folder
/// filled by others does not fill memory.
pub const MAX_LISTED: usize = 65_536;

/// A value found by [`LockedStorage::list`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    name: String,
    size: u64,
}

impl Entry {
    /// A value of `size` bytes whose key ends in `name`.
    #[must_use]
    pub fn new(name: String, size: u64) -> Self {
        Self { name, size }
    }

    /// The last segment of its key.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its size in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }
}

/// Why a row could not be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StorageError {
    /// The disk, or what stands for it, failed. Try again later.
    #[error("directory storage cannot be reached")]
    Io(#[source] std::io::Error),
    /// A value, or a number of values, beyond its bound. Somebody else wrote there.
    #[error("directory storage holds more than its bound")]
    TooLarge,
    /// A row that does not decode, or was written by a newer version. It is left as it is.
    #[error("directory storage is damaged")]
    Damaged,
    /// A key that is no path of valid segments. A bug of the caller.
    #[error("not a key of the directory")]
    InvalidKey,
}

/// Whether `segment` may stand in a key.
pub(crate) fn is_segment(segment: &str) -> bool {
    (1..=120).contains(&segment.len())
        && segment
            .bytes()
            .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'))
}

/// The segments of `key`, if all are valid.
pub(crate) fn segments(key: &str) -> Result<impl Iterator<Item = &str>, StorageError> {
    if key.split('/').all(is_segment) {
        Ok(key.split('/'))
    } else {
        Err(StorageError::InvalidKey)
    }
}
