//! Keys in the files of older programs.

use std::io;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use crate::{KeyError, KeyId, KeySource, KeyVersion, SourceError, VersionedKey, encoding, sys};

/// Keys in the files that Lumera and AEGIS keep them in. They are read, and never written: no name makes a key, and a file that
/// does not read is an error, never one without keys.
///
/// There is one version of each key, 1. On Unix a file that others may read is refused, also where the program that wrote it left
/// it so: `chmod 600` it, and think about who may have read it.
#[derive(Debug, Clone)]
pub struct FileSource(Kind);

#[derive(Debug, Clone)]
enum Kind {
    LumeraFolder(PathBuf),
    #[cfg(feature = "lumera")]
    LumeraJson(PathBuf),
    Aegis(PathBuf),
}

impl FileSource {
    /// A folder with a file `<name>.key` for each key: 32 bytes in base64. Lumera's tool has `~/.lumera/keys`.
    #[must_use]
    pub fn lumera_folder(folder: impl Into<PathBuf>) -> Self {
        Self(Kind::LumeraFolder(folder.into()))
    }

    /// `~/.lumera/keys`, below the `HOME` of the environment.
    ///
    /// # Errors
    ///
    /// [`SourceError::NotFound`] if `HOME` is not set.
    pub fn lumera_default_folder() -> Result<Self, SourceError> {
        let home = sys::path_in_env("HOME").ok_or(SourceError::NotFound)?;
        Ok(Self::lumera_folder(home.join(".lumera").join("keys")))
    }

    /// A file `keys.json`: one object with the names of keys, and each key in base64. At most 1 MiB.
    #[cfg(feature = "lumera")]
    #[must_use]
    pub fn lumera_json(file: impl Into<PathBuf>) -> Self {
        Self(Kind::LumeraJson(file.into()))
    }

    /// The `keys.json` of Lumera's library: what `LUMERA_KEY_STORE_PATH` names, else `~/.lumera-agent-memory/keys.json`.
    ///
    /// # Errors
    ///
    /// [`SourceError::NotFound`] if neither that variable nor `HOME` is set.
    #[cfg(feature = "lumera")]
    pub fn lumera_default_json() -> Result<Self, SourceError> {
        if let Some(file) = sys::path_in_env("LUMERA_KEY_STORE_PATH") {
            return Ok(Self::lumera_json(file));
        }
        let home = sys::path_in_env("HOME").ok_or(SourceError::NotFound)?;
        let folder = home.join(".lumera-agent-memory");
        Ok(Self::lumera_json(folder.join("keys.json")))
    }

    /// The file `aegis_key.key` of AEGIS: 32 bytes in the base64 of URLs, in older files the bytes themselves. It holds one key,
    /// which has the name [`AEGIS_KEY`](Self::AEGIS_KEY) here.
    #[must_use]
    pub fn aegis(file: impl Into<PathBuf>) -> Self {
        Self(Kind::Aegis(file.into()))
    }

    /// The name of the key of AEGIS, as in its keyring.
    pub const AEGIS_KEY: &'static str = "aegis_master_key_v2";

    fn read(&self, id: &KeyId) -> Result<Zeroizing<[u8; 32]>, SourceError> {
        let key = match &self.0 {
            Kind::LumeraFolder(folder) => {
                let content = small(&folder.join(format!("{id}.key")))?;
                encoding::base64(&content)
            }
            #[cfg(feature = "lumera")]
            Kind::LumeraJson(file) => return json(&read(file, MAX_JSON)?, id),
            Kind::Aegis(_) if id.as_str() != Self::AEGIS_KEY => return Err(SourceError::NotFound),
            Kind::Aegis(file) => {
                let content = small(file)?;
                encoding::raw(&content).or_else(|| encoding::base64_url(&content))
            }
        };
        key.ok_or(SourceError::Malformed)
    }
}

impl KeySource for FileSource {
    fn current(&self, id: &KeyId) -> Result<VersionedKey, SourceError> {
        let key = self.read(id)?;
        Ok(VersionedKey::new(id.clone(), KeyVersion::FIRST, &key))
    }

    fn by_version(&self, id: &KeyId, version: KeyVersion) -> Result<VersionedKey, SourceError> {
        let key = self.current(id)?;
        if version == KeyVersion::FIRST {
            Ok(key)
        } else {
            Err(SourceError::NotFound)
        }
    }
}

fn small(file: &Path) -> Result<Zeroizing<Vec<u8>>, SourceError> {
    sys::read_key_file(file).map_err(from_file)
}

#[cfg(feature = "lumera")]
fn read(file: &Path, most: usize) -> Result<Zeroizing<Vec<u8>>, SourceError> {
    sys::read_private(file, most).map_err(from_file)
}

/// One key of a `keys.json`.
#[cfg(feature = "lumera")]
fn json(content: &[u8], id: &KeyId) -> Result<Zeroizing<[u8; 32]>, SourceError> {
    use std::collections::BTreeMap;

    use serde_json::value::RawValue;

    // Names are not secret; the keys stay where they were read.
    let keys: BTreeMap<String, &RawValue> =
        serde_json::from_slice(content).map_err(|_| SourceError::Malformed)?;
    let key = keys.get(id.as_str()).ok_or(SourceError::NotFound)?;
    let text = crate::json::text(key).ok_or(SourceError::Malformed)?;
    encoding::base64(text.as_bytes()).ok_or(SourceError::Malformed)
}

fn from_file(error: KeyError) -> SourceError {
    match error {
        KeyError::NotFound => SourceError::NotFound,
        KeyError::Permissions => SourceError::Permissions,
        KeyError::Io(cause) => match cause.downcast_ref::<io::Error>().map(io::Error::kind) {
            Some(io::ErrorKind::PermissionDenied) => SourceError::Denied,
            _ => SourceError::Unavailable(Some(cause)),
        },
        _ => SourceError::Malformed,
    }
}

#[cfg(feature = "lumera")]
const MAX_JSON: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use std::fs;

    use tempfile::TempDir;

    use super::*;

    const BASE64: &str = "Dx4tPEtaaXiHlqW0w9Lh8A8eLTxLWml4h5altMPS4fA=";

    fn expected() -> [u8; 32] {
        let digits = "0f1e2d3c4b5a69788796a5b4c3d2e1f0".repeat(2);
        hex::decode(digits).unwrap().try_into().unwrap()
    }

    fn id(name: &str) -> KeyId {
        KeyId::new(name).unwrap()
    }

    fn key(source: &FileSource, name: &str) -> Result<[u8; 32], SourceError> {
        Ok(*source.current(&id(name))?.as_bytes())
    }

    fn write(folder: &TempDir, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = folder.path().join(name);
        fs::write(&path, content).unwrap();
        set_mode(&path, 0o600);
        path
    }

    #[cfg(unix)]
    fn set_mode(path: &Path, mode: u32) {
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[cfg(not(unix))]
    fn set_mode(_: &Path, _: u32) {}

    /// What is in the folder, with the content of each file.
    fn all(folder: &TempDir) -> Vec<(PathBuf, Vec<u8>)> {
        let paths = fs::read_dir(folder.path()).unwrap();
        let mut paths: Vec<_> = paths.map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        let read = |path: PathBuf| (path.clone(), fs::read(path).unwrap());
        paths.into_iter().map(read).collect()
    }

    #[test]
    fn keys_of_lumeras_tool_and_of_aegis_are_read() {
        let folder = tempfile::tempdir().unwrap();
        write(&folder, "default.key", format!("{BASE64}\n"));
        let lumera = FileSource::lumera_folder(folder.path());
        assert_eq!(key(&lumera, "default").unwrap(), expected());
        for content in [BASE64.as_bytes(), &expected()] {
            let aegis = FileSource::aegis(write(&folder, "aegis_key.key", content));
            assert_eq!(key(&aegis, FileSource::AEGIS_KEY).unwrap(), expected());
            assert!(matches!(key(&aegis, "default"), Err(SourceError::NotFound)));
        }
        let second = KeyVersion::new(2).unwrap();
        assert!(lumera.by_version(&id("default"), KeyVersion::FIRST).is_ok());
        assert!(matches!(
            lumera.by_version(&id("default"), second),
            Err(SourceError::NotFound)
        ));
    }

    #[test]
    fn asking_for_a_key_that_is_in_no_file_makes_no_file() {
        let folder = tempfile::tempdir().unwrap();
        write(&folder, "default.key", BASE64);
        let before = all(&folder);
        let sources = [
            FileSource::lumera_folder(folder.path()),
            FileSource::lumera_folder(folder.path().join("none")),
            FileSource::aegis(folder.path().join("none")),
            #[cfg(feature = "lumera")]
            FileSource::lumera_json(folder.path().join("keys.json")),
        ];
        for source in &sources {
            for name in ["other", FileSource::AEGIS_KEY, "default.key"] {
                assert!(
                    matches!(key(source, name), Err(SourceError::NotFound)),
                    "{source:?} {name}"
                );
            }
        }
        assert_eq!(all(&folder), before);
    }

    #[test]
    fn a_file_that_holds_no_key_is_an_error_and_stays_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let hex = "0f1e2d3c4b5a69788796a5b4c3d2e1f0".repeat(2);
        let long = "A".repeat(1_000);
        for content in ["", "no key", "c2hvcnQ=", &BASE64[..43], &hex, &long] {
            write(&folder, "default.key", content);
            let aegis = FileSource::aegis(write(&folder, "aegis_key.key", content));
            let lumera = FileSource::lumera_folder(folder.path());
            let before = all(&folder);
            for (source, name) in [(&lumera, "default"), (&aegis, FileSource::AEGIS_KEY)] {
                assert!(
                    matches!(key(source, name), Err(SourceError::Malformed)),
                    "{content}"
                );
            }
            assert_eq!(all(&folder), before);
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_file_that_others_may_read_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = write(&folder, "default.key", BASE64);
        let lumera = FileSource::lumera_folder(folder.path());
        let aegis = FileSource::aegis(&path);
        for mode in [0o644, 0o640, 0o604] {
            set_mode(&path, mode);
            for (source, name) in [(&lumera, "default"), (&aegis, FileSource::AEGIS_KEY)] {
                let refused = key(source, name).unwrap_err();
                assert!(matches!(refused, SourceError::Permissions));
                assert!(!refused.is_retryable());
            }
        }
        set_mode(&path, 0o600);
        assert!(key(&lumera, "default").is_ok());
    }

    #[cfg(feature = "lumera")]
    #[test]
    fn one_key_of_many_in_json_is_read_and_no_file_that_does_not_read_is_an_empty_one() {
        let folder = tempfile::tempdir().unwrap();
        let good = format!(
            r#"{{"default": "{BASE64}", "odd": "x", "escaped": "\u0044{}"}}"#,
            &BASE64[1..]
        );
        let source = FileSource::lumera_json(write(&folder, "keys.json", &good));
        assert_eq!(key(&source, "default").unwrap(), expected());
        assert_eq!(key(&source, "escaped").unwrap(), expected());
        assert!(matches!(key(&source, "odd"), Err(SourceError::Malformed)));
        assert!(matches!(key(&source, "none"), Err(SourceError::NotFound)));
        let huge = format!("{{\"x\": \"{}\"}}", "A".repeat(1 << 20));
        let wrong = [
            "",
            "[]",
            "null",
            "{",
            &good[..40],
            r#"{"default": 7}"#,
            &huge,
        ];
        for content in wrong {
            write(&folder, "keys.json", content);
            let before = all(&folder);
            for _ in 0..2 {
                assert!(
                    matches!(key(&source, "default"), Err(SourceError::Malformed)),
                    "{}",
                    &content[..content.len().min(40)]
                );
            }
            assert_eq!(all(&folder), before);
        }
    }
}
