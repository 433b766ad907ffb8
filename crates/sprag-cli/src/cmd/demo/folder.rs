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

    /// Bytes that a user's files take.
    pub(super) fn size(&self, user: &str) -> Result<u64, CliError> {
        let path = self.store(user);
        size(&path).map_err(|cause| CliError::file(&path, cause))
    }
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
