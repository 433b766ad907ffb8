//! A folder of blobs: files that are there whole or not at all, and are never looked for behind a link.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// What a write that died left behind goes when it is this old.
const LEFT_BEHIND: Duration = Duration::from_secs(3_600);

/// Makes a folder for its owner alone, unless there is one, and gives its path without links.
pub(crate) fn make_root(path: &Path) -> io::Result<PathBuf> {
    let is_missing = |path: &&Path| !path.as_os_str().is_empty() && !path.is_dir();
    let made = path.ancestors().take_while(is_missing).count();
    if made > 0 {
        make_folder(path, true)?;
    }
    let root = fs::canonicalize(path)?;
    // What is put into it is lost with it otherwise, when the power goes.
    for parent in root.ancestors().skip(1).take(made) {
        sync(parent)?;
    }
    clean(&root)?;
    Ok(root)
}

/// The content of a plain file of at most `most` bytes; `None` if there is none.
pub(crate) fn read(
    root: &Path,
    folder: &str,
    name: &str,
    most: u64,
) -> io::Result<Option<Vec<u8>>> {
    let Some(folder) = real_folder(root, folder)? else {
        return Ok(None);
    };
    let path = folder.join(name);
    let Some(seen) = plain_file(&path)? else {
        return Ok(None);
    };
    let file = match File::open(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file?,
    };
    let meta = file.metadata()?;
    if !is_same(&seen, &meta) {
        return Err(behind_a_link());
    }
    if meta.len() > most {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    let mut bytes = Vec::with_capacity(usize::try_from(meta.len()).unwrap_or(0));
    file.take(most).read_to_end(&mut bytes)?;
    Ok(Some(bytes))
}

/// Puts a file in its place: whatever happens, it is there whole or not at all, and for good when this returns.
pub(crate) fn write(root: &Path, folder: &str, name: &str, bytes: &[u8]) -> io::Result<()> {
    let folder = match real_folder(root, folder)? {
        Some(folder) => folder,
        None => {
            let path = root.join(folder);
            match make_folder(&path, false) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                _ => {}
            }
            sync(root)?;
            real_folder(root, folder)?.ok_or_else(behind_a_link)?
        }
    };
    // Random: processes of several machines and containers may have one number, and so may one that died.
    let mut random = [0; 16];
    rand_core::Rng::fill_bytes(&mut super::rng(), &mut random);
    let random = u128::from_be_bytes(random);
    let aside = folder.join(format!(".{random:032x}.tmp"));
    let written = write_new(&aside, bytes).and_then(|()| fs::rename(&aside, folder.join(name)));
    if written.is_err() {
        let _ = fs::remove_file(&aside);
    }
    written?;
    sync(&folder)
}

/// Names of plain files and when they were put there, in milliseconds since 1970.
pub(crate) fn names(root: &Path, folder: &str) -> io::Result<Vec<(String, Option<u64>)>> {
    let Some(folder) = real_folder(root, folder)? else {
        return Ok(Vec::new());
    };
    let mut names = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let Ok(name) = entry.file_name().into_string() else {
            continue;
        };
        // Gone meanwhile, or no file: not ours.
        if let Ok(Some(meta)) = plain_file(&entry.path()) {
            names.push((name, meta.modified().ok().and_then(milliseconds)));
        }
    }
    Ok(names)
}

/// Removes a file; there may be none.
pub(crate) fn remove(root: &Path, folder: &str, name: &str) -> io::Result<()> {
    let Some(folder) = real_folder(root, folder)? else {
        return Ok(());
    };
    match fs::remove_file(folder.join(name)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(()) => sync(&folder),
    }
}

fn make_folder(path: &Path, with_parents: bool) -> io::Result<()> {
    let mut builder = DirBuilder::new();
    builder.recursive(with_parents);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)
}

/// A folder of ours that is one, and no link to another; `None` if there is none.
fn real_folder(root: &Path, folder: &str) -> io::Result<Option<PathBuf>> {
    let path = root.join(folder);
    match fs::symlink_metadata(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
        Ok(meta) if meta.is_dir() => Ok(Some(path)),
        Ok(_) => Err(behind_a_link()),
    }
}

fn plain_file(path: &Path) -> io::Result<Option<fs::Metadata>> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
        Ok(meta) if meta.is_file() => Ok(Some(meta)),
        Ok(_) => Err(behind_a_link()),
    }
}

fn behind_a_link() -> io::Error {
    io::Error::new(
        io::ErrorKind::PermissionDenied,
        "not a plain file or folder",
    )
}

#[cfg(unix)]
fn is_same(one: &fs::Metadata, other: &fs::Metadata) -> bool {
    use std::os::unix::fs::MetadataExt;
    (one.dev(), one.ino()) == (other.dev(), other.ino())
}

#[cfg(not(unix))]
fn is_same(_: &fs::Metadata, other: &fs::Metadata) -> bool {
    other.is_file()
}

fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn sync(folder: &Path) -> io::Result<()> {
    #[cfg(unix)]
    File::open(folder)?.sync_all()?;
    // Elsewhere a directory cannot be opened as a file; its journal has to do.
    #[cfg(not(unix))]
    let _ = folder;
    Ok(())
}

fn milliseconds(time: SystemTime) -> Option<u64> {
    let since = time.duration_since(UNIX_EPOCH).ok()?;
    u64::try_from(since.as_millis()).ok()
}

/// Removes what writes that died left behind.
#[expect(
    clippy::disallowed_methods,
    reason = "files have the times of the system"
)]
fn clean(root: &Path) -> io::Result<()> {
    for folder in fs::read_dir(root)? {
        let Ok(Some(folder)) = real_folder(root, &folder?.file_name().to_string_lossy()) else {
            continue;
        };
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            let is_ours = path.file_name().is_some_and(|name| {
                let name = name.to_string_lossy();
                name.starts_with('.') && name.ends_with(".tmp")
            });
            if !is_ours {
                continue;
            }
            let modified = plain_file(&path)?.and_then(|meta| meta.modified().ok());
            let age = modified.and_then(|at| SystemTime::now().duration_since(at).ok());
            if age.is_some_and(|age| age >= LEFT_BEHIND) {
                fs::remove_file(&path)?;
            }
        }
    }
    Ok(())
}
