//! Files that appear whole or not at all: written under another name in the same folder, synced, renamed.
//!
//! What is left behind by an error or by Ctrl-C is removed at once; what is left behind by a kill or a power cut, by the next
//! command that writes into the folder. Who is writing holds a lock on his file, so nobody removes what is being written.

use std::collections::BTreeSet;
use std::fs::{self, File, Permissions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::{Mutex, Once, PoisonError};

use tempfile::{Builder, NamedTempFile};

use super::VaultError;
use crate::error::{CliError, Exit};

const PREFIX: &str = ".sprag-vault-";
const SUFFIX: &str = ".tmp";
/// Names that are tried.
const TRIES: usize = 16;

/// What is to be removed when the program is interrupted. Whoever renames holds the lock, so that the two exclude each other.
static UNFINISHED: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());

/// A file that has not got its name yet. Dropped, it is removed.
pub(crate) struct Aside {
    pub(crate) file: NamedTempFile,
    to: PathBuf,
    replaces: bool,
    permissions: Option<Permissions>,
}

impl Aside {
    /// For `to`, which may be replaced or not; with these permissions when it is whole. Until then nobody else reads it.
    pub(crate) fn create(
        to: &Path,
        replaces: bool,
        permissions: Option<Permissions>,
    ) -> io::Result<Self> {
        remove_leftovers(folder(to));
        Self::create_only(to, replaces, permissions)
    }

    /// The same without looking for what others left behind: for many files of one folder.
    pub(crate) fn create_only(
        to: &Path,
        replaces: bool,
        permissions: Option<Permissions>,
    ) -> io::Result<Self> {
        remove_when_interrupted()?;
        Ok(Self {
            file: claim(folder(to))?,
            to: to.to_path_buf(),
            replaces,
            permissions,
        })
    }

    /// Gives it its name, once it and its permissions are on stable storage.
    pub(crate) fn commit(self) -> Result<(), CliError> {
        self.commit_if(|| Ok(true)).map(|_| ())
    }

    /// The same if `still` says so, which is asked while no other program of ours gives a file of this folder its name; whether
    /// it did.
    pub(crate) fn commit_if(
        self,
        still: impl FnOnce() -> io::Result<bool>,
    ) -> Result<bool, CliError> {
        let Self {
            file,
            to,
            replaces,
            permissions,
        } = self;
        let failed = |cause| CliError::file(&to, cause);
        if let Some(permissions) = permissions {
            file.as_file()
                .set_permissions(permissions)
                .map_err(failed)?;
        }
        file.as_file().sync_all().map_err(failed)?;
        {
            let _alone = lock_folder(&to);
            if !still().map_err(failed)? {
                forget(file.path());
                return Ok(false);
            }
            let unfinished = file.path().to_path_buf();
            let mut all_unfinished = UNFINISHED.lock().unwrap_or_else(PoisonError::into_inner);
            let renamed = if replaces {
                file.persist(&to)
            } else {
                file.persist_noclobber(&to)
            };
            renamed.map_err(|failure| match failure.error.kind() {
                io::ErrorKind::AlreadyExists => VaultError::Exists(to.clone()).into(),
                _ => failed(failure.error),
            })?;
            all_unfinished.remove(&unfinished);
        }
        sync_folder(&to).map_err(failed)?;
        Ok(true)
    }
}

/// A file that will not get its name is its owner's to remove.
fn forget(path: &Path) {
    let mut unfinished = UNFINISHED.lock().unwrap_or_else(PoisonError::into_inner);
    unfinished.remove(path);
}

/// While this lives, no other program of ours gives a file of this folder its name. Where a folder has no lock, nothing is locked:
/// two programs that replace one file at the same moment are in each other's way there.
fn lock_folder(file: &Path) -> Option<File> {
    let folder = File::open(folder(file)).ok()?;
    folder.lock().ok().map(|()| folder)
}

/// Whether a file has a name that unfinished ones have.
pub(crate) fn is_unfinished(name: &str) -> bool {
    name.starts_with(PREFIX) && name.ends_with(SUFFIX)
}

/// The folder that a file is in.
pub(crate) fn folder(file: &Path) -> &Path {
    match file.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// A name is there after a power cut only if its folder was synced.
pub(crate) fn sync_folder(file: &Path) -> io::Result<()> {
    if cfg!(unix) {
        File::open(folder(file))?.sync_all()
    } else {
        Ok(())
    }
}

/// A new file, readable for its owner alone, and locked.
fn claim(folder: &Path) -> io::Result<NamedTempFile> {
    let mut unfinished = UNFINISHED.lock().unwrap_or_else(PoisonError::into_inner);
    for _ in 0..TRIES {
        let mut name = Builder::new();
        name.prefix(PREFIX).suffix(SUFFIX).rand_bytes(12);
        let file = name.tempfile_in(folder)?;
        match file.as_file().try_lock() {
            // Somebody took it for a leftover between the two calls.
            Err(TryLockError::WouldBlock) => continue,
            Ok(()) if !file.path().exists() => continue,
            // A file system without locks: nobody can take it for a leftover there.
            Ok(()) | Err(TryLockError::Error(_)) => {}
        }
        unfinished.insert(file.path().to_path_buf());
        return Ok(file);
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

/// Removes what nobody is writing any more. That it fails is no reason not to write.
pub(crate) fn remove_leftovers(folder: &Path) {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    for entry in entries {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if !is_unfinished(&name) || !entry.file_type().is_ok_and(|kind| kind.is_file()) {
            continue;
        }
        let path = entry.path();
        if let Ok(file) = File::open(&path)
            && file.try_lock().is_ok()
        {
            let _ = fs::remove_file(path);
        }
    }
}

/// From now on Ctrl-C, and being asked to end, removes what is unfinished.
fn remove_when_interrupted() -> io::Result<()> {
    static ONCE: Once = Once::new();
    let mut set = Ok(());
    ONCE.call_once(|| {
        set = ctrlc::set_handler(|| {
            let unfinished = UNFINISHED.lock().unwrap_or_else(PoisonError::into_inner);
            for path in unfinished.iter() {
                let _ = fs::remove_file(path);
            }
            // Under the lock: nothing gets its name any more.
            process::exit(Exit::Interrupted as i32)
        });
    });
    set.map_err(io::Error::other)
}
