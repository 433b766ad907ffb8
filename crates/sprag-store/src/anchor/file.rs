//! An anchor in a file.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::{Anchor, AnchorError, AnchorRecord};
use crate::sys::{read_file, replace_file};

/// An anchor in a file, for its owner's eyes only, replaced as a whole and synced.
///
/// It guards against a profile that is copied, restored or synchronised without this file, so it belongs where backups
/// and synchronisation of the profile do not reach: never inside the profile. Its directory has to exist, and is never
/// made: a directory that is missing (a stick that is not plugged in, a share that is not mounted) is *out of reach*,
/// a directory without the file is an anchor that is *gone*. On media that come and go choose a directory on the medium,
/// not the place where it is mounted.
#[derive(Debug, Clone)]
pub struct FileAnchor {
    path: PathBuf,
}

impl FileAnchor {
    /// An anchor in this file, which need not exist before the first store is guarded by it.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn directory(&self) -> &Path {
        match self.path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        }
    }
}

impl Anchor for FileAnchor {
    fn read(&self) -> Result<Option<AnchorRecord>, AnchorError> {
        // More than a record is none.
        const MOST: u64 = 1_024;
        match read_file(&self.path, MOST).map_err(AnchorError::unreachable)? {
            Some(bytes) => AnchorRecord::from_bytes(&bytes).map(Some),
            None if self.directory().is_dir() => Ok(None),
            None => Err(AnchorError::unreachable(std::io::Error::from(
                ErrorKind::NotFound,
            ))),
        }
    }

    fn write(&self, record: &AnchorRecord) -> Result<(), AnchorError> {
        let name = self.path.file_name().and_then(|name| name.to_str());
        let name = name.ok_or_else(|| {
            AnchorError::unreachable(std::io::Error::from(ErrorKind::InvalidFilename))
        })?;
        replace_file(self.directory(), name, record.as_bytes()).map_err(AnchorError::unreachable)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(byte: u8) -> AnchorRecord {
        let mut bytes = *b"SPRAG\0an\0\x01........................................................................................X";
        bytes[98] = byte;
        AnchorRecord::from_bytes(&bytes).unwrap()
    }

    #[test]
    fn file_gives_back_what_was_written_last_and_is_its_owners_alone() {
        let dir = tempfile::tempdir().unwrap();
        let anchor = FileAnchor::new(dir.path().join("anchor"));
        assert!(anchor.read().unwrap().is_none());
        for byte in 1..=3 {
            anchor.write(&record(byte)).unwrap();
            assert!(anchor.read().unwrap() == Some(record(byte)));
        }
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = std::fs::metadata(anchor.path())
                .unwrap()
                .permissions()
                .mode();
            assert_eq!(mode & 0o777, 0o600);
        }
    }

    #[test]
    fn missing_file_is_gone_and_missing_directory_is_out_of_reach() {
        let dir = tempfile::tempdir().unwrap();
        let gone = FileAnchor::new(dir.path().join("anchor"));
        assert!(matches!(gone.read(), Ok(None)));
        let away = FileAnchor::new(dir.path().join("stick").join("anchor"));
        assert!(matches!(away.read(), Err(AnchorError::Unreachable(_))));
        assert!(matches!(
            away.write(&record(1)),
            Err(AnchorError::Unreachable(_))
        ));
        assert!(!dir.path().join("stick").exists());
    }

    #[test]
    fn file_that_is_no_record_is_foreign_and_stays_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("diary");
        for content in [&b""[..], b"dear diary", &[7; 5_000]] {
            std::fs::write(&path, content).unwrap();
            let read = FileAnchor::new(&path).read();
            assert!(matches!(read, Err(AnchorError::Foreign)));
            assert_eq!(std::fs::read(&path).unwrap(), content);
        }
    }
}
