//! Rows as files of one folder, which several processes use at once.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::path::{Path, PathBuf};

use super::{Entry, LockedStorage, MAX_LISTED, Storage, StorageError, is_segment, segments};

/// A [`Storage`] of plain files.
///
/// ```text
/// DIR/directory.lock    held (flock) during each operation
/// DIR/directory.tmp     the file being written; renamed to its place when it is on the disk
/// DIR/..                one file per row; names are hashes and numbers
/// ```
/// Processes of one machine exclude each other through the lock file. A synchronised folder has no lock between its
/// machines: there two requesters can get the same one-time prekey (the second handshake then fails and heals), and
/// two lists of one epoch can be written, of which the synchronising program keeps one.
#[derive(Clone, Debug)]
pub struct FolderStorage {
    root: PathBuf,
}

impl FolderStorage {
    /// Uses the folder at `root`, and makes it if there is none.
    ///
    /// # Errors
    /// [`StorageError::Io`] if it cannot be made.
    pub fn open(root: impl Into<PathBuf>) -> Result<Self, StorageError> {
        let root = root.into();
        fs::create_dir_all(&root).map_err(StorageError::Io)?;
        Ok(Self { root })
    }
}

impl Storage for FolderStorage {
    fn lock(&self) -> Result<Box<dyn LockedStorage + '_>, StorageError> {
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(self.root.join(LOCK))
            .map_err(StorageError::Io)?;
        lock.lock().map_err(StorageError::Io)?;
        Ok(Box::new(Locked {
            root: &self.root,
            _lock: lock,
        }))
    }
}

struct Locked<'a> {
    root: &'a Path,
    // Closing the file releases the lock, also when the process dies.
    _lock: File,
}

impl Locked<'_> {
    fn path(&self, key: &str) -> Result<PathBuf, StorageError> {
        let mut path = self.root.to_path_buf();
        path.extend(segments(key)?);
        Ok(path)
    }

    /// Makes `folder` and those above it, each on the disk before something is put into it.
    fn make(&self, folder: &Path) -> Result<(), std::io::Error> {
        if folder == self.root || folder.is_dir() {
            return Ok(());
        }
        if let Some(above) = folder.parent() {
            self.make(above)?;
            match fs::create_dir(folder) {
                Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
                _ => sync_folder(above)?,
            }
        }
        Ok(())
    }

    fn write(&self, path: &Path, value: &[u8]) -> Result<(), std::io::Error> {
        let folder = path.parent().unwrap_or(self.root);
        self.make(folder)?;
        let temporary = self.root.join(TEMPORARY);
        // What a crash left behind; and never through a link that somebody put there.
        if_present(fs::remove_file(&temporary))?;
        let mut file = OpenOptions::new()
            .create_new(true)
            .write(true)
            .open(&temporary)?;
        file.write_all(value)?;
        file.sync_all()?;
        drop(file);
        fs::rename(&temporary, path)?;
        sync_folder(folder)
    }
}

impl LockedStorage for Locked<'_> {
    fn get(&self, key: &str, limit: usize) -> Result<Option<Vec<u8>>, StorageError> {
        let path = self.path(key)?;
        // A pipe or a device would block or never end.
        match if_present(fs::metadata(&path)).map_err(StorageError::Io)? {
            None => return Ok(None),
            Some(found) if !found.is_file() => return Err(StorageError::Damaged),
            Some(_) => {}
        }
        let Some(file) = if_present(File::open(&path)).map_err(StorageError::Io)? else {
            return Ok(None);
        };
        let most = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
        let mut value = Vec::new();
        file.take(most)
            .read_to_end(&mut value)
            .map_err(StorageError::Io)?;
        if value.len() > limit {
            return Err(StorageError::TooLarge);
        }
        Ok(Some(value))
    }

    fn put(&mut self, key: &str, value: &[u8]) -> Result<(), StorageError> {
        let path = self.path(key)?;
        self.write(&path, value).map_err(StorageError::Io)
    }

    fn delete(&mut self, key: &str) -> Result<(), StorageError> {
        let path = self.path(key)?;
        if_present(fs::remove_file(path)).map_err(StorageError::Io)?;
        Ok(())
    }

    fn list(&self, key: &str) -> Result<Vec<Entry>, StorageError> {
        let path = self.path(key)?;
        let mut found = Vec::new();
        let Some(entries) = if_present(fs::read_dir(path)).map_err(StorageError::Io)? else {
            return Ok(found);
        };
        for entry in entries {
            let entry = entry.map_err(StorageError::Io)?;
            let Some(name) = entry.file_name().to_str().map(str::to_owned) else {
                continue;
            };
            // A program that synchronises leaves copies of its own beside ours.
            if !is_segment(&name) {
                continue;
            }
            match if_present(entry.metadata()).map_err(StorageError::Io)? {
                Some(about) if about.is_file() => {
                    if found.len() == MAX_LISTED {
                        return Err(StorageError::TooLarge);
                    }
                    found.push(Entry::new(name, about.len()));
                }
                _ => {}
            }
        }
        found.sort_unstable_by(|one, other| one.name().cmp(other.name()));
        Ok(found)
    }
}

fn if_present<T>(result: Result<T, std::io::Error>) -> Result<Option<T>, std::io::Error> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// A renamed file is there after a power cut only if its folder was synced too.
#[cfg(unix)]
fn sync_folder(folder: &Path) -> Result<(), std::io::Error> {
    File::open(folder)?.sync_all()
}

#[cfg(not(unix))]
fn sync_folder(_folder: &Path) -> Result<(), std::io::Error> {
    Ok(())
}

const LOCK: &str = "directory.lock";
const TEMPORARY: &str = "directory.tmp";
