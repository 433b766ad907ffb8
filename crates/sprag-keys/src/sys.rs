//! Files, the environment and the clock.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use zeroize::Zeroizing;

use crate::KeyError;

/// The content of a key file: at most 80 bytes, of a plain file that only its owner may read.
pub(crate) fn read_key_file(path: &Path) -> Result<Zeroizing<Vec<u8>>, KeyError> {
    read_private(path, MAX_KEY_FILE)
}

/// The content of a plain file of at most `most` bytes that only its owner may read.
pub(crate) fn read_private(path: &Path, most: usize) -> Result<Zeroizing<Vec<u8>>, KeyError> {
    let file = File::open(path).map_err(from_io)?;
    let meta = file.metadata().map_err(from_io)?;
    if !meta.is_file() {
        return Err(KeyError::Malformed);
    }
    #[cfg(unix)]
    if std::os::unix::fs::PermissionsExt::mode(&meta.permissions()) & 0o077 != 0 {
        return Err(KeyError::Permissions);
    }
    let len = usize::try_from(meta.len()).map_err(|_| KeyError::Malformed)?;
    if len > most {
        return Err(KeyError::Malformed);
    }
    // With this capacity the buffer never moves, which would leave a copy of the key behind.
    let mut content = Zeroizing::new(Vec::with_capacity(len.saturating_add(64)));
    let limit = meta.len().saturating_add(1);
    file.take(limit)
        .read_to_end(&mut content)
        .map_err(from_io)?;
    if content.len() != len {
        return Err(KeyError::Malformed);
    }
    Ok(content)
}

/// Writes a key file that was not there before, and makes it last.
pub(crate) fn create_key_file(path: &Path, content: &[u8]) -> Result<(), KeyError> {
    write_new(path, content)
        .and_then(|()| sync_folder(path))
        .map_err(from_io)
}

/// Whether something has this name, be it a link to nothing.
pub(crate) fn stands(path: &Path) -> Result<bool, KeyError> {
    match fs::symlink_metadata(path) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(from_io(error)),
    }
}

/// The file that a name leads to, links followed.
pub(crate) fn real_path(path: &Path) -> Result<PathBuf, KeyError> {
    fs::canonicalize(path).map_err(from_io)
}

/// Puts a file in the place of what has this name, if anything: whatever happens there is the old content or the new
/// one, and the new one for good when this returns.
pub(crate) fn replace(path: &Path, content: &[u8]) -> Result<(), KeyError> {
    write_aside(path, content)
        .and_then(|aside| fs::rename(aside, path))
        .and_then(|()| sync_folder(path))
        .map_err(from_io)
}

/// [`replace`], and the old content is overwritten.
pub(crate) fn replace_and_wipe(path: &Path, content: &[u8]) -> Result<(), KeyError> {
    let old = OpenOptions::new().write(true).open(path).ok();
    replace(path, content)?;
    if let Some(old) = old {
        // The new file is in place: that the old blocks could not be overwritten is no reason to fail.
        let _ = wipe(old);
    }
    Ok(())
}

/// The lock of a file: a file beside it, locked while this lives. Readers need none where nobody ever wrote.
#[derive(Debug)]
pub(crate) struct Lock(#[expect(dead_code, reason = "closing it unlocks")] File);

impl Lock {
    pub(crate) fn to_write(path: &Path) -> Result<Self, KeyError> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let file = options.open(beside(path, "lock")).map_err(from_io)?;
        file.lock().map_err(from_io)?;
        Ok(Self(file))
    }

    pub(crate) fn to_read(path: &Path) -> Result<Option<Self>, KeyError> {
        match File::open(beside(path, "lock")) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(from_io(error)),
            Ok(file) => {
                file.lock_shared().map_err(from_io)?;
                Ok(Some(Self(file)))
            }
        }
    }
}

/// The text of an environment variable.
pub(crate) fn read_env(name: &str) -> Result<Zeroizing<Vec<u8>>, KeyError> {
    match std::env::var(name) {
        Ok(text) => Ok(Zeroizing::new(text.into_bytes())),
        Err(std::env::VarError::NotPresent) => Err(KeyError::NotFound),
        Err(std::env::VarError::NotUnicode(_)) => Err(KeyError::Malformed),
    }
}

/// A path that an environment variable names; `None` if it is not set or empty.
pub(crate) fn path_in_env(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os(name).filter(|path| !path.is_empty());
    path.map(PathBuf::from)
}

/// How long a request to a key service may take.
#[cfg(any(feature = "vault-kv", feature = "aws-kms"))]
pub(crate) const PATIENCE: std::time::Duration = std::time::Duration::from_secs(10);

/// Whether a host of a URL is this machine itself.
#[cfg(any(feature = "vault-kv", feature = "aws-kms"))]
pub(crate) fn is_loopback(host: &str) -> bool {
    use std::net::IpAddr;
    let bare = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    let address = bare.unwrap_or(host).parse::<IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

/// The time in seconds of Unix.
#[cfg(feature = "aws-kms")]
#[expect(
    clippy::disallowed_methods,
    reason = "the clock of the system is read here"
)]
pub(crate) fn unix_time() -> u64 {
    use std::time::SystemTime;
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

const MAX_KEY_FILE: usize = 80;

fn write_new(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    file.write_all(content)?;
    file.sync_all()
}

/// Writes what will be at `path` beside it.
fn write_aside(path: &Path, content: &[u8]) -> io::Result<PathBuf> {
    let aside = beside(path, "tmp");
    match fs::remove_file(&aside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    write_new(&aside, content)?;
    Ok(aside)
}

fn sync_folder(path: &Path) -> io::Result<()> {
    #[cfg(unix)]
    {
        let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty());
        File::open(dir.unwrap_or(Path::new(".")))?.sync_all()?;
    }
    // Elsewhere a directory cannot be opened as a file; its journal has to do.
    #[cfg(not(unix))]
    let _ = path;
    Ok(())
}

/// Writes zeros over the content, unless the file has a name still.
fn wipe(mut file: File) -> io::Result<()> {
    let meta = file.metadata()?;
    #[cfg(unix)]
    if std::os::unix::fs::MetadataExt::nlink(&meta) > 0 {
        return Ok(());
    }
    let len = meta.len();
    io::copy(&mut io::repeat(0).take(len), &mut file)?;
    file.sync_all()
}

fn beside(path: &Path, what: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".");
    name.push(what);
    path.with_file_name(name)
}

fn from_io(error: io::Error) -> KeyError {
    match error.kind() {
        io::ErrorKind::NotFound => KeyError::NotFound,
        io::ErrorKind::AlreadyExists => KeyError::Exists,
        _ => KeyError::Io(Arc::new(error)),
    }
}
