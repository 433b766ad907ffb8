//! Files and the environment.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::Arc;

use zeroize::Zeroizing;

use crate::KeyError;

/// The content of a key file: at most 80 bytes, of a plain file that only its owner may read.
pub(crate) fn read_key_file(path: &Path) -> Result<Zeroizing<Vec<u8>>, KeyError> {
    let file = File::open(path).map_err(from_io)?;
    let meta = file.metadata().map_err(from_io)?;
    if !meta.is_file() {
        return Err(KeyError::Malformed);
    }
    #[cfg(unix)]
    if std::os::unix::fs::PermissionsExt::mode(&meta.permissions()) & 0o077 != 0 {
        return Err(KeyError::Permissions);
    }
    // With this capacity the buffer never moves, which would leave a copy of the key behind.
    let mut content = Zeroizing::new(Vec::with_capacity(2 * MAX_FILE));
    let limit = u64::try_from(MAX_FILE)
        .unwrap_or(u64::MAX)
        .saturating_add(1);
    file.take(limit)
        .read_to_end(&mut content)
        .map_err(from_io)?;
    if content.len() > MAX_FILE {
        return Err(KeyError::Malformed);
    }
    Ok(content)
}

/// Writes a key file that was not there before, and makes it last.
pub(crate) fn create_key_file(path: &Path, content: &[u8]) -> Result<(), KeyError> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path).map_err(from_io)?;
    file.write_all(content)
        .and_then(|()| file.sync_all())
        .map_err(from_io)?;
    #[cfg(unix)]
    {
        let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty());
        let dir = File::open(dir.unwrap_or(Path::new("."))).map_err(from_io)?;
        dir.sync_all().map_err(from_io)?;
    }
    Ok(())
}

/// The text of an environment variable.
pub(crate) fn read_env(name: &str) -> Result<Zeroizing<Vec<u8>>, KeyError> {
    match std::env::var(name) {
        Ok(text) => Ok(Zeroizing::new(text.into_bytes())),
        Err(std::env::VarError::NotPresent) => Err(KeyError::NotFound),
        Err(std::env::VarError::NotUnicode(_)) => Err(KeyError::Malformed),
    }
}

const MAX_FILE: usize = 80;

fn from_io(error: io::Error) -> KeyError {
    match error.kind() {
        io::ErrorKind::NotFound => KeyError::NotFound,
        io::ErrorKind::AlreadyExists => KeyError::Exists,
        _ => KeyError::Io(Arc::new(error)),
    }
}
