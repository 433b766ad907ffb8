//! A folder of sealed files, as records of a job.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use sprag_keys::{Cause, RecordError, Rotate, Rotated, VersionedKey};

use super::file::Files;
use crate::cmd::vault::aside;
use crate::error::CliError;
use crate::sys::CryptoRng;

/// The journal of the job of a folder, in it.
pub(super) const JOURNAL: &str = ".sprag-keys-job";

/// The files of a folder and of all folders in it.
pub(super) struct Folder<'a> {
    pub(super) root: &'a Path,
    /// Files that are not data: the ring and what is beside it.
    pub(super) not_data: Vec<PathBuf>,
    pub(super) files: Files<'a>,
    /// The names that this pass goes over, once it has begun.
    names: Mutex<Option<Arc<[Vec<u8>]>>>,
}

impl<'a> Folder<'a> {
    pub(super) fn new(root: &'a Path, not_data: Vec<PathBuf>, files: Files<'a>) -> Self {
        let names = Mutex::new(None);
        Self {
            root,
            not_data,
            files,
            names,
        }
    }

    fn names(&self, anew: bool) -> Result<Arc<[Vec<u8>]>, CliError> {
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        match &*names {
            Some(names) if !anew => Ok(Arc::clone(names)),
            _ => {
                let found: Arc<[Vec<u8>]> = walk(self.root, &self.not_data)?.files.into();
                *names = Some(Arc::clone(&found));
                Ok(found)
            }
        }
    }
}

impl Rotate for Folder<'_> {
    /// A pass looks at what is there when it begins; what comes later is there when the next one does.
    fn list(&self, after: Option<&[u8]>, most: usize) -> Result<Vec<Vec<u8>>, Cause> {
        let names = self.names(after.is_none());
        let names = names.map_err(|error| -> Cause { Arc::new(error) })?;
        let from = after.map_or(0, |after| {
            names.partition_point(|name| name.as_slice() <= after)
        });
        let rest = names.get(from..).unwrap_or_default();
        Ok(rest.iter().take(most).cloned().collect())
    }

    fn rotate(
        &self,
        name: &[u8],
        target: &VersionedKey,
        rng: &mut dyn CryptoRng,
    ) -> Result<Rotated, RecordError> {
        self.files.rotate(self.root, name, target, rng)
    }

    fn count(&self) -> Option<u64> {
        let names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        let names = names.as_ref()?;
        u64::try_from(names.len()).ok()
    }
}

/// What a folder holds.
pub(super) struct Walked {
    /// Names within the folder, in ascending order of their bytes.
    pub(super) files: Vec<Vec<u8>>,
    /// Links, devices, pipes: they are not followed.
    pub(super) others: usize,
}

/// The files below a folder, but for what this program keeps there for itself.
pub(super) fn walk(root: &Path, not_data: &[PathBuf]) -> Result<Walked, CliError> {
    let mut walked = Walked {
        files: Vec::new(),
        others: 0,
    };
    let mut waiting = vec![root.to_path_buf()];
    while let Some(folder) = waiting.pop() {
        let failed = |cause| CliError::file(&folder, cause);
        for entry in fs::read_dir(&folder).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let (path, kind) = (entry.path(), entry.file_type().map_err(failed)?);
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if aside::is_unfinished(&name) || name.starts_with(JOURNAL) || not_data.contains(&path)
            {
                continue;
            }
            if kind.is_dir() {
                waiting.push(path);
            } else if kind.is_file() {
                let relative = path.strip_prefix(root).unwrap_or(&path);
                walked.files.push(to_name(relative).map_err(failed)?);
            } else {
                walked.others += 1;
            }
        }
    }
    walked.files.sort_unstable();
    Ok(walked)
}

/// Removes what killed programs left unfinished in a folder and in those in it.
pub(super) fn clean(root: &Path) {
    let mut waiting = vec![root.to_path_buf()];
    while let Some(folder) = waiting.pop() {
        aside::remove_leftovers(&folder);
        let entries = fs::read_dir(&folder).into_iter().flatten().flatten();
        let folders = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        waiting.extend(folders.map(|entry| entry.path()));
    }
}

/// The name of a record, with forward strokes on every system.
fn to_name(path: &Path) -> io::Result<Vec<u8>> {
    let mut name = Vec::new();
    for part in path {
        if !name.is_empty() {
            name.push(b'/');
        }
        name.extend_from_slice(bytes_of(part)?);
    }
    Ok(name)
}

/// The path of a record.
pub(super) fn to_path(root: &Path, name: &[u8]) -> io::Result<PathBuf> {
    #[cfg(unix)]
    {
        use std::os::unix::ffi::OsStrExt;
        Ok(root.join(std::ffi::OsStr::from_bytes(name)))
    }
    #[cfg(not(unix))]
    {
        let text = str::from_utf8(name).map_err(io::Error::other)?;
        Ok(text
            .split('/')
            .fold(root.to_path_buf(), |path, part| path.join(part)))
    }
}

fn bytes_of(part: &std::ffi::OsStr) -> io::Result<&[u8]> {
    #[cfg(unix)]
    {
        use std::os::unix::ffi::OsStrExt;
        Ok(part.as_bytes())
    }
    #[cfg(not(unix))]
    {
        let text = part.to_str();
        text.map(str::as_bytes)
            .ok_or(io::ErrorKind::InvalidFilename.into())
    }
}
