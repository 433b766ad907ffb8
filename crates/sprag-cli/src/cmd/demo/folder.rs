//! The folder of a demo.

use std::fs::{self, DirBuilder};
use std::io;
use std::path::{Path, PathBuf};

use crate::error::CliError;
use crate::profile::STORE;
use crate::sys;

/// A folder that goes when this goes, unless it is to be kept.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    keep: bool,
}

impl Folder {
    /// A new folder among the system's temporary ones, for our eyes only.
    pub(super) fn temporary() -> Result<Self, CliError> {
        let name = format!("sprag-demo-{}", hex::encode(sys::random::<8>()));
        let path = std::env::temp_dir().join(name);
        let mut builder = DirBuilder::new();
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder
            .create(&path)
            .map_err(|cause| CliError::file(&path, cause))?;
        Ok(Self { path, keep: false })
    }

    /// A folder that stays. It must be new or empty.
    pub(super) fn keep(path: &Path) -> Result<Self, CliError> {
        let is_empty = fs::create_dir_all(path)
            .and_then(|()| fs::read_dir(path))
            .map(|mut entries| entries.next().is_none())
            .map_err(|cause| CliError::file(path, cause))?;
        if !is_empty {
            return Err(CliError::Usage(format!("{} is not empty", path.display())));
        }
        Ok(Self {
            path: path.to_path_buf(),
            keep: true,
        })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn is_kept(&self) -> bool {
        self.keep
    }

    /// The store of a user: where `sprag --home` with the folder of that name finds it.
    pub(super) fn store(&self, user: &str) -> PathBuf {
        self.path.join(user).join(STORE)
    }

    /// Copies the store of a user, which nobody has open: what somebody's backup does.
    pub(super) fn copy_store(&self, user: &str) -> Result<(), CliError> {
        copy(&self.store(user), &self.copy_of(user))
    }

    /// Puts the copy of a store, which nobody has open, in its place.
    pub(super) fn put_back(&self, user: &str) -> Result<(), CliError> {
        let store = self.store(user);
        fs::remove_dir_all(&store).map_err(|cause| CliError::file(&store, cause))?;
        let from = self.copy_of(user);
        fs::rename(&from, &store).map_err(|cause| CliError::file(&from, cause))
    }

    fn copy_of(&self, user: &str) -> PathBuf {
        self.path.join(format!("{user}.copy"))
    }

    /// Bytes that a user's files take.
    pub(super) fn size(&self, user: &str) -> Result<u64, CliError> {
        let path = self.store(user);
        size(&path).map_err(|cause| CliError::file(&path, cause))
    }
}

/// Copies a folder with all that is in it.
fn copy(from: &Path, to: &Path) -> Result<(), CliError> {
    let made = DirBuilder::new().recursive(true).create(to);
    made.map_err(|cause| CliError::file(to, cause))?;
    let entries = fs::read_dir(from).map_err(|cause| CliError::file(from, cause))?;
    for entry in entries {
        let entry = entry.map_err(|cause| CliError::file(from, cause))?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        if source.is_dir() {
            copy(&source, &target)?;
        } else {
            fs::copy(&source, &target).map_err(|cause| CliError::file(&source, cause))?;
        }
    }
    Ok(())
}

fn size(path: &Path) -> io::Result<u64> {
    let about = fs::symlink_metadata(path)?;
    if !about.is_dir() {
        return Ok(about.len());
    }
    let mut sum = 0;
    for entry in fs::read_dir(path)? {
        sum += size(&entry?.path())?;
    }
    Ok(sum)
}

impl Drop for Folder {
    fn drop(&mut self) {
        if !self.keep {
            // What cannot be removed is in the folder that the system empties.
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}
