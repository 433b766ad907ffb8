//! Files that appear whole or not at all: written under another name in the same folder, synced, renamed.
//!
//! What is left behind by an error or by Ctrl-C is removed at once; what is left behind by a kill or a power cut, by the next
//! command that writes into the folder. Who is writing holds a lock on his file, so nobody removes what is being written.

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
static UNFINISHED: Mutex<Option<PathBuf>> = Mutex::new(None);

/// A file that has not got its name yet. Dropped, it is removed.
pub(super) struct Aside {
    pub(super) file: NamedTempFile,
    to: PathBuf,
    replaces: bool,
    permissions: Option<Permissions>,
}

impl Aside {
    /// For `to`, which may be replaced or not; with these permissions when it is whole. Until then nobody else reads it.
    pub(super) fn create(
        to: &Path,
        replaces: bool,
        permissions: Option<Permissions>,
    ) -> io::Result<Self> {
        remove_when_interrupted()?;
        remove_leftovers(folder(to));
        Ok(Self {
            file: claim(folder(to))?,
            to: to.to_path_buf(),
            replaces,
            permissions,
        })
    }

    /// Gives it its name, once it and its permissions are on stable storage.
    pub(super) fn commit(self) -> Result<(), CliError> {
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
            let mut unfinished = UNFINISHED.lock().unwrap_or_else(PoisonError::into_inner);
            let renamed = if replaces {
                file.persist(&to)
            } else {
                file.persist_noclobber(&to)
            };
            renamed.map_err(|failure| match failure.error.kind() {
                io::ErrorKind::AlreadyExists => VaultError::Exists(to.clone()).into(),
                _ => failed(failure.error),
            })?;
            *unfinished = None;
        }
        sync_folder(&to).map_err(failed)
    }
}

/// The folder that a file is in.
fn folder(file: &Path) -> &Path {
    match file.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// A name is there after a power cut only if its folder was synced.
pub(super) fn sync_folder(file: &Path) -> io::Result<()> {
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
        *unfinished = Some(file.path().to_path_buf());
        return Ok(file);
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

/// Removes what nobody is writing any more. That it fails is no reason not to write.
fn remove_leftovers(folder: &Path) {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    for entry in entries {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let ours = name.starts_with(PREFIX) && name.ends_with(SUFFIX);
        if !ours || !entry.file_type().is_ok_and(|kind| kind.is_file()) {
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
            if let Some(path) = unfinished.as_deref() {
                let _ = fs::remove_file(path);
            }
            // Under the lock: nothing gets its name any more.
            process::exit(Exit::Interrupted as i32)
        });
    });
    set.map_err(io::Error::other)
}
