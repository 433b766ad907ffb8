//! The directory of a store.
//!
//! ```text
//! home/LOCK              locked while the store is open; holds the number of the process that has it open
//! home/MANIFEST          the wrapped keys, and which epoch is the live one
//! home/MANIFEST.tmp      the next one, there only while it is written
//! home/MANIFEST.copy     the same once more, for repairs: nothing is ever opened with it
//! home/MARK              a commit that the store surely got to
//! home/CREATING          there only while the store is made
//! home/epoch-00000001/   the database
//! ```
//!
//! The manifest is written last. A directory with epochs, without a manifest and without the mark of a creation that was
//! cut short has lost its manifest: that is damage, never a new store.

use std::fmt;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};

use crate::StoreError;
use crate::commit::{Committer, Disk};
use crate::disk::{self, Expect};
use crate::manifest::{BackendKind, MANIFEST_LEN, Manifest};
use crate::mark::{self, Marked};
use crate::sys::{
    LockFile, Retired, aside, create_private_dir, names_in, read_file, remove_dir, remove_file,
    rename_aside, replace_file, sync_dir, write_aside,
};

pub(crate) const LOCK: &str = "LOCK";
pub(crate) const MANIFEST: &str = "MANIFEST";
/// The second manifest.
pub(crate) const COPY: &str = "MANIFEST.copy";
pub(crate) const CREATING: &str = "CREATING";
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
            .and_then(|()| self.renew_copy(manifest))
            .and_then(|()| remove_file(&self.path, CREATING))
            .map_err(StoreError::io)
    }

    /// Locks the directory of a store, and reads its manifest.
    pub(crate) fn find(path: &Path) -> Result<(Self, Manifest), StoreError> {
        // A look before the lock, so that no lock file is left where there is no store.
        look_for_whole(path)?;
        Self::found(path, LockFile::acquire(&path.join(LOCK))?)
    }

    /// A directory that was locked, and its manifest.
    pub(crate) fn found(path: &Path, lock: LockFile) -> Result<(Self, Manifest), StoreError> {
        let manifest = manifest_in(path)?;
        let home = Self {
            path: path.to_owned(),
            lock: Arc::new(lock),
        };
        Ok((home, manifest))
    }

    /// Whether there is a store, however damaged: one that has a manifest, or lost it.
    pub(crate) fn look_for(path: &Path) -> Result<(), StoreError> {
        let names = match names_in(path) {
            Ok(names) => names,
            Err(error)
                if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) =>
            {
                return Err(StoreError::NotFound);
            }
            Err(error) => return Err(StoreError::io(error)),
        };
        let has = |wanted: &str| names.iter().any(|name| name == wanted);
        let epochs = names.iter().any(|name| epoch_of(name).is_some());
        if has(MANIFEST) || has(COPY) || (epochs && !has(CREATING)) {
            Ok(())
        } else {
            Err(StoreError::NotFound)
        }
    }

    /// The name of an epoch's directory.
    pub(crate) fn epoch_name(epoch: u64) -> String {
        format!("{EPOCH}{epoch:08}")
    }

    /// Opens the database of an epoch.
    pub(crate) fn open_epoch(
        &self,
        epoch: u64,
        kind: BackendKind,
    ) -> Result<(Box<dyn Disk>, u64), StoreError> {
        let dir = self.epoch_path(epoch);
        if !dir.is_dir() {
            return Err(StoreError::Damaged("the database is missing"));
        }
        disk::open(kind, &dir, Expect::Database, Arc::clone(&self.lock))
    }

    /// A committer to a database, which marks how far it got.
    pub(crate) fn commit_to(
        &self,
        disk: Box<dyn Disk>,
        last: u64,
        store_id: &[u8; 16],
    ) -> Result<Committer<Marked>, StoreError> {
        let marked = Marked::new(disk, &self.path, *store_id);
        Ok(Committer::start(marked, last)?)
    }

    /// A commit that the store surely got to, if it is known.
    pub(crate) fn mark(&self, store_id: &[u8; 16]) -> Option<u64> {
        mark::read(&self.path, store_id)
    }

    /// Removes what is left of a creation and of other epochs, once the manifest proved right.
    pub(crate) fn tidy(&self, manifest: &Manifest) -> Result<(), StoreError> {
        remove_file(&self.path, CREATING)
            .and_then(|()| remove_file(&self.path, &aside(MANIFEST)))
            .and_then(|()| remove_file(&self.path, &aside(COPY)))
            .and_then(|()| self.renew_copy(manifest))
            .map_err(StoreError::io)?;
        self.remove_epochs_but(Some(manifest.epoch()))
    }

    /// Makes the second manifest the same as the first. What it held before is destroyed; that there is no room for
    /// another one keeps nobody from anything.
    fn renew_copy(&self, manifest: &Manifest) -> std::io::Result<()> {
        let path = self.path.join(COPY);
        let max = u64::try_from(MANIFEST_LEN).unwrap_or(u64::MAX);
        match read_file(&path, max)? {
            Some(copy) if copy == manifest.as_bytes() => return Ok(()),
            Some(_) => {
                Retired::open(&path)?.wipe()?;
                remove_file(&self.path, COPY)?;
            }
            None => {}
        }
        match replace_file(&self.path, COPY, manifest.as_bytes()) {
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::StorageFull | ErrorKind::QuotaExceeded
                ) =>
            {
                remove_file(&self.path, &aside(COPY))
            }
            outcome => outcome,
        }
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
        self.path.join(Self::epoch_name(epoch))
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
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The directory, if it is still locked.
    pub(crate) fn home(&self) -> Option<Home> {
        Some(Home {
            path: self.path.clone(),
            lock: self.lock.upgrade()?,
        })
    }
}

/// The manifest of a store that somebody else may have open: it is replaced as a whole.
pub(crate) fn read_manifest(path: &Path) -> Result<Manifest, StoreError> {
    look_for_whole(path)?;
    manifest_in(path)
}

/// Whether there is a store that was made to its end.
fn look_for_whole(path: &Path) -> Result<(), StoreError> {
    match names_in(path) {
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            Err(StoreError::NotFound)
        }
        Err(error) => Err(StoreError::io(error)),
        Ok(names) if names.iter().any(|name| name == MANIFEST) => Ok(()),
        Ok(names) if names.iter().any(|name| name == CREATING) => Err(StoreError::NotFound),
        Ok(names) if names.iter().any(|name| epoch_of(name).is_some()) => {
            Err(StoreError::Damaged("the manifest is missing"))
        }
        Ok(_) => Err(StoreError::NotFound),
    }
}

fn manifest_in(path: &Path) -> Result<Manifest, StoreError> {
    let max = u64::try_from(MANIFEST_LEN).unwrap_or(u64::MAX);
    let bytes = read_file(&path.join(MANIFEST), max).map_err(StoreError::io)?;
    Manifest::from_bytes(&bytes.ok_or(StoreError::NotFound)?)
}

/// The number in the name of an epoch's directory.
pub(crate) fn epoch_of(name: &str) -> Option<u64> {
    let digits = name.strip_prefix(EPOCH)?;
    if digits.len() < 8 || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok()
}
