//! The directory of a store.
//!
//! ```text
//! home/LOCK              locked while the store is open; holds the number of the process that has it open
//! home/MANIFEST          the wrapped keys, and which epoch is the live one
//! home/MANIFEST.tmp      the next one, there only while it is written
//! home/CREATING          there only while the store is made
//! home/epoch-00000001/   the database
//! ```
//!
//! The manifest is written last. A directory with epochs, without a manifest and without the mark of a creation that was
//! cut short has lost its manifest: that is damage, never a new store.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};

use crate::StoreError;
use crate::commit::{Committer, Disk};
use crate::disk::{self, Expect};
use crate::manifest::{BackendKind, MANIFEST_LEN, Manifest};
use crate::sys::{
    LockFile, Retired, aside, create_private_dir, names_in, read_file, remove_dir, remove_file,
    rename_aside, replace_file, sync_dir, write_aside,
};

const LOCK: &str = "LOCK";
const MANIFEST: &str = "MANIFEST";
const CREATING: &str = "CREATING";
const EPOCH: &str = "epoch-";

/// A locked directory.
pub(crate) struct Home {
    path: PathBuf,
    lock: Arc<LockFile>,
}

impl Home {
    /// Locks a directory to make a store in it. What an earlier attempt left is removed.
    pub(crate) fn begin(path: &Path) -> Result<Self, StoreError> {
        create_private_dir(path).map_err(StoreError::io)?;
        let home = Self::lock(path)?;
        let names = names_in(path).map_err(StoreError::io)?;
        let creating = names.iter().any(|name| name == CREATING);
        if names.iter().any(|name| name == MANIFEST) {
            return Err(StoreError::Exists);
        }
        if !creating {
            if names.iter().any(|name| epoch_of(name).is_some()) {
                return Err(StoreError::Damaged("the manifest is missing"));
            }
            replace_file(path, CREATING, &[]).map_err(StoreError::io)?;
        }
        home.remove_epochs_but(None)?;
        Ok(home)
    }

    /// Makes the database of an epoch.
    pub(crate) fn create_epoch(
        &self,
        epoch: u64,
        kind: BackendKind,
    ) -> Result<Box<dyn Disk>, StoreError> {
        let dir = self.epoch_path(epoch);
        create_private_dir(&dir).map_err(StoreError::io)?;
        let (disk, _) = disk::open(kind, &dir, Expect::Nothing, Arc::clone(&self.lock))?;
        Ok(disk)
    }

    /// Makes the store one that exists, once its first commit is durable.
    pub(crate) fn finish(&self, manifest: &Manifest) -> Result<(), StoreError> {
        replace_file(&self.path, MANIFEST, manifest.as_bytes())
            .and_then(|()| remove_file(&self.path, CREATING))
            .map_err(StoreError::io)
    }

    /// Locks the directory of a store, and reads its manifest.
    pub(crate) fn find(path: &Path) -> Result<(Self, Manifest), StoreError> {
        // A look before the lock, so that no lock file is left where there is no store.
        match names_in(path) {
            Err(error)
                if matches!(
                    error.kind(),
                    std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory
                ) =>
            {
                return Err(StoreError::NotFound);
            }
            Err(error) => return Err(StoreError::io(error)),
            Ok(names) if names.iter().any(|name| name == MANIFEST) => {}
            Ok(names) if names.iter().any(|name| name == CREATING) => {
                return Err(StoreError::NotFound);
            }
            Ok(names) if names.iter().any(|name| epoch_of(name).is_some()) => {
                return Err(StoreError::Damaged("the manifest is missing"));
            }
            Ok(_) => return Err(StoreError::NotFound),
        }
        let home = Self::lock(path)?;
        let max = u64::try_from(MANIFEST_LEN).unwrap_or(u64::MAX);
        let bytes = read_file(&path.join(MANIFEST), max).map_err(StoreError::io)?;
        let manifest = Manifest::from_bytes(&bytes.ok_or(StoreError::NotFound)?)?;
        Ok((home, manifest))
    }

    /// Opens the database of an epoch.
    pub(crate) fn open_epoch(
        &self,
        epoch: u64,
        kind: BackendKind,
    ) -> Result<Committer<Box<dyn Disk>>, StoreError> {
        let dir = self.epoch_path(epoch);
        if !dir.is_dir() {
            return Err(StoreError::Damaged("the database is missing"));
        }
        let (disk, last) = disk::open(kind, &dir, Expect::Database, Arc::clone(&self.lock))?;
        Ok(Committer::start(disk, last)?)
    }

    /// Removes what is left of a creation and of other epochs, once the manifest proved right.
    pub(crate) fn tidy(&self, epoch: u64) -> Result<(), StoreError> {
        remove_file(&self.path, CREATING)
            .and_then(|()| remove_file(&self.path, &aside(MANIFEST)))
            .map_err(StoreError::io)?;
        self.remove_epochs_but(Some(epoch))
    }

    /// The directory, for later.
    pub(crate) fn place(&self) -> Place {
        Place {
            path: self.path.clone(),
            lock: Arc::downgrade(&self.lock),
        }
    }

    /// Removes what a renewal into an epoch left that did not come to its end.
    pub(crate) fn remove_rest_of_renewal(&self, epoch: u64) -> Result<(), StoreError> {
        let remove = || {
            remove_file(&self.path, &aside(MANIFEST))?;
            let dir = self.epoch_path(epoch);
            if dir.exists() {
                remove_dir(&dir)?;
                sync_dir(&self.path)?;
            }
            Ok(())
        };
        remove().map_err(StoreError::io)
    }

    /// The manifest that is about to be replaced.
    pub(crate) fn manifest_to_retire(&self) -> Result<Retired, StoreError> {
        Retired::open(&self.path.join(MANIFEST)).map_err(StoreError::io)
    }

    /// Writes a manifest, synced, that does not count yet.
    pub(crate) fn write_manifest_aside(&self, manifest: &Manifest) -> Result<(), StoreError> {
        write_aside(&self.path, MANIFEST, manifest.as_bytes()).map_err(StoreError::io)
    }

    /// Makes the manifest that was written aside the one that counts, for good after a sync.
    pub(crate) fn rename_manifest(&self) -> Result<(), StoreError> {
        rename_aside(&self.path, MANIFEST).map_err(StoreError::io)
    }

    /// Makes the names in the directory durable.
    pub(crate) fn sync(&self) -> Result<(), StoreError> {
        sync_dir(&self.path).map_err(StoreError::io)
    }

    /// Makes the names of an epoch's files durable, and its own.
    pub(crate) fn sync_epoch(&self, epoch: u64) -> Result<(), StoreError> {
        sync_dir(&self.epoch_path(epoch)).map_err(StoreError::io)?;
        self.sync()
    }

    fn lock(path: &Path) -> Result<Self, StoreError> {
        Ok(Self {
            path: path.to_owned(),
            lock: Arc::new(LockFile::acquire(&path.join(LOCK))?),
        })
    }

    fn epoch_path(&self, epoch: u64) -> PathBuf {
        self.path.join(format!("{EPOCH}{epoch:08}"))
    }

    fn remove_epochs_but(&self, keep: Option<u64>) -> Result<(), StoreError> {
        let mut removed = false;
        for name in names_in(&self.path).map_err(StoreError::io)? {
            if epoch_of(&name).is_some_and(|epoch| Some(epoch) != keep) {
                remove_dir(&self.path.join(&name)).map_err(StoreError::io)?;
                removed = true;
            }
        }
        if removed {
            sync_dir(&self.path).map_err(StoreError::io)?;
        }
        Ok(())
    }
}

impl fmt::Debug for Home {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Home").finish_non_exhaustive()
    }
}

/// A directory that is locked as long as its database is open. Holding it holds no lock: a forked child may drop it.
#[derive(Debug)]
pub(crate) struct Place {
    path: PathBuf,
    lock: Weak<LockFile>,
}

impl Place {
    /// The directory, if it is still locked.
    pub(crate) fn home(&self) -> Option<Home> {
        Some(Home {
            path: self.path.clone(),
            lock: self.lock.upgrade()?,
        })
    }
}

/// The number in the name of an epoch's directory.
fn epoch_of(name: &str) -> Option<u64> {
    let digits = name.strip_prefix(EPOCH)?;
    if digits.len() < 8 || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok()
}
