//! Folders with data under a ring, as far as this program wrote there: a list beside the ring, `<ring>.places`, of paths in JSON.
//! It keeps a key from being destroyed while something is under it; nothing else depends on it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::KeysError;
use super::args::VaultRing;
use crate::cmd::vault::args::Out;
use crate::cmd::vault::aside::{self, Aside};
use crate::error::CliError;

/// The file beside a ring.
pub(super) fn beside(ring: &Path, what: &str) -> PathBuf {
    let ring = fs::canonicalize(ring).unwrap_or_else(|_| ring.to_path_buf());
    let mut name = ring.file_name().unwrap_or_default().to_owned();
    name.push(what);
    ring.with_file_name(name)
}

/// The folders that are known.
pub(super) fn known(ring: &Path) -> Result<Vec<PathBuf>, CliError> {
    let list = beside(ring, ".places");
    let text = match fs::read_to_string(&list) {
        Ok(text) => text,
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(cause) if cause.kind() == io::ErrorKind::InvalidData => {
            return Err(KeysError::Places(list).into());
        }
        Err(cause) => return Err(CliError::file(&list, cause)),
    };
    let places: Vec<String> = serde_json::from_str(&text).map_err(|_| KeysError::Places(list))?;
    Ok(places.into_iter().map(PathBuf::from).collect())
}

/// Notes where a sealed file will be, before it is there.
pub(crate) fn note(ring: &VaultRing, out: &Out) -> Result<(), CliError> {
    let file = out.out.as_deref().filter(|file| *file != Path::new("-"));
    match (&ring.ring, file) {
        (Some(ring), Some(file)) => add(ring, aside::folder(file)),
        _ => Ok(()),
    }
}

/// Notes a folder.
pub(super) fn add(ring: &Path, folder: &Path) -> Result<(), CliError> {
    let folder = fs::canonicalize(folder).map_err(|cause| CliError::file(folder, cause))?;
    change(ring, |places| {
        // What is below a known folder is looked into with it.
        let covered = places.iter().any(|place| folder.starts_with(place));
        if !covered {
            places.push(folder);
        }
        !covered
    })
}

/// Gives up folders.
pub(super) fn remove(ring: &Path, folders: &[PathBuf]) -> Result<(), CliError> {
    change(ring, |places| {
        let before = places.len();
        places.retain(|place| !folders.contains(place));
        places.len() < before
    })
}

fn change(ring: &Path, change: impl FnOnce(&mut Vec<PathBuf>) -> bool) -> Result<(), CliError> {
    let list = beside(ring, ".places");
    let failed = |cause| CliError::file(&list, cause);
    let _alone = lock(&list).map_err(failed)?;
    let mut places = known(ring)?;
    if !change(&mut places) {
        return Ok(());
    }
    let texts: Option<Vec<&str>> = places.iter().map(|place| place.to_str()).collect();
    let texts = texts.ok_or_else(|| {
        CliError::Usage("folders with data under a ring have names in UTF-8".to_owned())
    })?;
    let text = serde_json::to_string_pretty(&texts).map_err(|cause| failed(cause.into()))?;
    // Without permissions it stays for its owner alone.
    let mut aside = Aside::create(&list, true, None).map_err(failed)?;
    aside.file.write_all(text.as_bytes()).map_err(failed)?;
    aside.commit()
}

/// The lock of the list, held while this lives.
fn lock(list: &Path) -> io::Result<File> {
    let mut path = list.as_os_str().to_owned();
    path.push(".lock");
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let file = options.open(path)?;
    file.lock()?;
    Ok(file)
}
