//! Blobs as files of a folder.

use std::io;
use std::path::{Path, PathBuf};

use super::{BackendError, MAX_BLOB, MemoryBackend, StoredBlob, is_blob_name};
use crate::sys::blobs;

/// A folder of blobs: `ab/ab12…`, one file for each, mode 0600 in folders of mode 0700. A file is there whole or not at all, and for
/// good when [`put`](MemoryBackend::put) returns. Several processes may use it at once. What is a link, or behind one, is refused.
///
/// A local disk, or one that keeps what it was told to sync.
#[derive(Debug, Clone)]
pub struct FolderBackend {
    root: PathBuf,
}

impl FolderBackend {
    /// The folder at this path, made if there is none.
    ///
    /// # Errors
    /// [`BackendError::Refused`]: it cannot be made or read.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, BackendError> {
        let root = blobs::make_root(path.as_ref()).map_err(failed)?;
        Ok(Self { root })
    }
}

/// The folder of a blob.
fn folder(name: &str) -> Result<&str, BackendError> {
    let shard = name.get(..2).filter(|_| is_blob_name(name));
    shard.ok_or(BackendError::Refused(None))
}

fn failed(error: io::Error) -> BackendError {
    use io::ErrorKind as Kind;
    match error.kind() {
        Kind::Interrupted | Kind::TimedOut | Kind::WouldBlock | Kind::ResourceBusy => {
            BackendError::unavailable(error)
        }
        _ => BackendError::refused(error),
    }
}

impl MemoryBackend for FolderBackend {
    fn put(&self, name: &str, bytes: &[u8]) -> Result<(), BackendError> {
        blobs::write(&self.root, folder(name)?, name, bytes).map_err(failed)
    }

    fn get(&self, name: &str) -> Result<Option<Vec<u8>>, BackendError> {
        let most = u64::try_from(MAX_BLOB).unwrap_or(u64::MAX);
        blobs::read(&self.root, folder(name)?, name, most).map_err(failed)
    }

    fn list(&self, after: Option<&str>) -> Result<Vec<StoredBlob>, BackendError> {
        let after = after.unwrap_or_default();
        let first = after
            .get(..2)
            .and_then(|shard| u8::from_str_radix(shard, 16).ok());
        for shard in first.unwrap_or(0)..=u8::MAX {
            let names = blobs::names(&self.root, &format!("{shard:02x}")).map_err(failed)?;
            let mut page: Vec<StoredBlob> = names
                .into_iter()
                .filter(|(name, _)| is_blob_name(name) && name.as_str() > after)
                .map(|(name, put_at)| StoredBlob::new(name, put_at))
                .collect();
            if !page.is_empty() {
                page.sort_by(|one, other| one.name.cmp(&other.name));
                return Ok(page);
            }
        }
        Ok(Vec::new())
    }

    fn delete(&self, name: &str) -> Result<(), BackendError> {
        blobs::remove(&self.root, folder(name)?, name).map_err(failed)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::blob_name;
    use super::super::conformance;
    use super::*;

    #[test]
    fn folder_keeps_what_a_backend_promises() {
        let place = tempfile::tempdir().unwrap();
        let folder = FolderBackend::open(place.path().join("a/b")).unwrap();
        conformance::check(&folder);
        // And again, by whoever opens it later.
        let name = conformance::blob(7).0;
        folder.put(&name, &conformance::blob(7).1).unwrap();
        let again = FolderBackend::open(place.path().join("a/b")).unwrap();
        assert_eq!(again.get(&name).unwrap(), Some(conformance::blob(7).1));
    }

    #[cfg(unix)]
    #[test]
    fn only_the_owner_may_look_into_the_folder() {
        use std::os::unix::fs::PermissionsExt;
        let place = tempfile::tempdir().unwrap();
        let root = place.path().join("blobs");
        let folder = FolderBackend::open(&root).unwrap();
        let (name, bytes) = conformance::blob(1);
        folder.put(&name, &bytes).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        let shard = root.join(&name[..2]);
        assert_eq!((mode(&root), mode(&shard)), (0o700, 0o700));
        assert_eq!(mode(&shard.join(&name)), 0o600);
    }

    #[cfg(unix)]
    #[test]
    fn nothing_is_read_written_or_removed_behind_a_link() {
        use std::os::unix::fs::symlink;
        let place = tempfile::tempdir().unwrap();
        let (root, outside) = (place.path().join("blobs"), place.path().join("outside"));
        let folder = FolderBackend::open(&root).unwrap();
        let (name, bytes) = conformance::blob(1);
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join(&name), b"not yours").unwrap();
        // The folder of the blob leads elsewhere.
        let shard = root.join(&name[..2]);
        symlink(&outside, &shard).unwrap();
        assert!(folder.get(&name).is_err());
        assert!(folder.put(&name, &bytes).is_err());
        assert!(folder.delete(&name).is_err());
        assert!(folder.list(None).is_err());
        fs::remove_file(&shard).unwrap();
        // The file does.
        folder.put(&name, &bytes).unwrap();
        fs::remove_file(shard.join(&name)).unwrap();
        symlink(outside.join(&name), shard.join(&name)).unwrap();
        assert!(folder.get(&name).is_err());
        assert!(folder.list(None).unwrap().is_empty());
        // The link itself is replaced, not what it leads to.
        folder.put(&name, &bytes).unwrap();
        assert_eq!(folder.get(&name).unwrap(), Some(bytes));
        assert_eq!(fs::read(outside.join(&name)).unwrap(), b"not yours");
    }

    #[test]
    fn what_a_dead_write_left_is_no_blob_and_goes_later() {
        let place = tempfile::tempdir().unwrap();
        let folder = FolderBackend::open(place.path()).unwrap();
        let (name, bytes) = conformance::blob(1);
        folder.put(&name, &bytes).unwrap();
        let shard = place.path().join(&name[..2]);
        let left = shard.join(".1-0.tmp");
        fs::write(&left, b"half").unwrap();
        fs::write(shard.join("notes.txt"), b"somebody's").unwrap();
        assert_eq!(folder.list(None).unwrap().len(), 1);
        // Another process may be writing it just now.
        FolderBackend::open(place.path()).unwrap();
        assert!(left.exists());
        let old = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_000);
        let file = fs::File::options().write(true).open(&left).unwrap();
        file.set_modified(old).unwrap();
        FolderBackend::open(place.path()).unwrap();
        assert!(!left.exists());
        assert!(shard.join("notes.txt").exists());
    }

    #[test]
    fn what_a_dead_process_of_our_number_left_stands_in_nobodys_way() {
        let place = tempfile::tempdir().unwrap();
        let folder = FolderBackend::open(place.path()).unwrap();
        let (name, bytes) = conformance::blob(1);
        let shard = place.path().join(&name[..2]);
        fs::create_dir(&shard).unwrap();
        for number in 0..1_000 {
            let left = format!(".{}-{number}.tmp", std::process::id());
            fs::write(shard.join(left), b"half").unwrap();
        }
        folder.put(&name, &bytes).unwrap();
        assert_eq!(folder.get(&name).unwrap(), Some(bytes));
        assert_eq!(fs::read_dir(&shard).unwrap().count(), 1_001);
    }

    #[test]
    fn names_that_are_none_lead_nowhere() {
        let place = tempfile::tempdir().unwrap();
        let folder = FolderBackend::open(place.path().join("blobs")).unwrap();
        fs::write(place.path().join("secret"), b"x").unwrap();
        for name in [
            "",
            "..",
            "../secret",
            "ab",
            &format!("{}/", &blob_name(&[0; 32])[1..]),
        ] {
            assert!(folder.get(name).is_err(), "{name}");
            assert!(folder.put(name, b"x").is_err(), "{name}");
            assert!(folder.delete(name).is_err(), "{name}");
        }
    }

    #[test]
    fn file_beyond_64_mib_is_not_read() {
        let place = tempfile::tempdir().unwrap();
        let folder = FolderBackend::open(place.path()).unwrap();
        let (name, bytes) = conformance::blob(1);
        folder.put(&name, &bytes).unwrap();
        let path = place.path().join(&name[..2]).join(&name);
        let file = fs::File::options().write(true).open(path).unwrap();
        file.set_len(u64::try_from(MAX_BLOB).unwrap() + 1).unwrap();
        assert!(matches!(folder.get(&name), Err(BackendError::Refused(_))));
    }
}
