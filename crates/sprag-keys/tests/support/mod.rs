//! Records and sealers for the tests of rotation.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "each test file uses its part"
)]

use std::collections::BTreeMap;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::{fmt, fs};

use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{CryptoRng, SeedableRng};
use sprag_crypto::SealKey;
use sprag_keys::{Cause, Journal, KeyId, KeyVersion, Records, Sealer, VersionedKey};
use zeroize::Zeroizing;

pub fn id() -> KeyId {
    KeyId::new("memories").unwrap()
}

pub fn version(number: u32) -> KeyVersion {
    KeyVersion::new(number).unwrap()
}

pub fn rng(seed: u8) -> ChaCha20Rng {
    ChaCha20Rng::from_seed([seed; 32])
}

#[derive(Debug)]
pub struct Failed(pub &'static str);

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl Error for Failed {}

pub fn failed<T>(what: &'static str) -> Result<T, Cause> {
    Err(Arc::new(Failed(what)))
}

/// `u8 len ‖ key name ‖ u32 version ‖ seal(key, name of the record)`.
pub struct Format;

impl Sealer for Format {
    fn key_of(&self, _: &[u8], sealed: &[u8]) -> Result<(KeyId, KeyVersion), Cause> {
        match split(sealed) {
            Some((id, version, _)) => Ok((id, version)),
            None => failed("not a record"),
        }
    }

    fn open(
        &self,
        key: &VersionedKey,
        name: &[u8],
        sealed: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, Cause> {
        let Some((_, _, sealed)) = split(sealed) else {
            return failed("not a record");
        };
        let key = SealKey::from_bytes(key.as_bytes());
        let opened = key.open(b"test", name, sealed);
        opened.or_else(|_| failed("does not open"))
    }

    fn seal(
        &self,
        key: &VersionedKey,
        name: &[u8],
        plaintext: &[u8],
        rng: &mut dyn CryptoRng,
    ) -> Result<Vec<u8>, Cause> {
        let id = key.id().as_str().as_bytes();
        let mut out = vec![id.len() as u8];
        out.extend_from_slice(id);
        out.extend_from_slice(&key.version().get().to_be_bytes());
        let key = SealKey::from_bytes(key.as_bytes());
        out.extend_from_slice(&key.seal(b"test", name, plaintext, rng));
        Ok(out)
    }
}

fn split(sealed: &[u8]) -> Option<(KeyId, KeyVersion, &[u8])> {
    let (len, rest) = sealed.split_first()?;
    let (id, rest) = rest.split_at_checked(usize::from(*len))?;
    let (version, rest) = rest.split_first_chunk()?;
    let id = KeyId::new(std::str::from_utf8(id).ok()?).ok()?;
    Some((id, KeyVersion::new(u32::from_be_bytes(*version))?, rest))
}

/// Records in memory. `before` is called before each call on them, with its kind and the name.
pub struct Shelf<F = fn(&Shelf0, Call, &[u8]) -> Result<(), Cause>> {
    pub rows: Shelf0,
    pub before: F,
}

pub type Shelf0 = Mutex<BTreeMap<Vec<u8>, Vec<u8>>>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    List,
    Get,
    Put,
}

impl<F: Fn(&Shelf0, Call, &[u8]) -> Result<(), Cause> + Sync> Records for Shelf<F> {
    fn list(&self, after: Option<&[u8]>, most: usize) -> Result<Vec<Vec<u8>>, Cause> {
        (self.before)(&self.rows, Call::List, after.unwrap_or_default())?;
        let rows = self.rows.lock().unwrap();
        let names = rows
            .keys()
            .filter(|name| after.is_none_or(|after| after < name.as_slice()));
        Ok(names.take(most).cloned().collect())
    }

    fn get(&self, name: &[u8]) -> Result<Option<Vec<u8>>, Cause> {
        (self.before)(&self.rows, Call::Get, name)?;
        Ok(self.rows.lock().unwrap().get(name).cloned())
    }

    fn put_if_unchanged(&self, name: &[u8], old: &[u8], new: &[u8]) -> Result<bool, Cause> {
        (self.before)(&self.rows, Call::Put, name)?;
        let mut rows = self.rows.lock().unwrap();
        match rows.get_mut(name) {
            Some(row) if row == old => {
                *row = new.to_vec();
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    fn count(&self) -> Option<u64> {
        Some(self.rows.lock().unwrap().len() as u64)
    }
}

/// A journal in memory that outlives its job.
#[derive(Clone, Debug, Default)]
pub struct Notes(pub Arc<Mutex<Option<Vec<u8>>>>);

impl Journal for Notes {
    fn load(&mut self) -> Result<Option<Vec<u8>>, Cause> {
        Ok(self.0.lock().unwrap().clone())
    }

    fn save(&mut self, state: &[u8]) -> Result<(), Cause> {
        *self.0.lock().unwrap() = Some(state.to_vec());
        Ok(())
    }
}

/// Records as files of one folder, for one process at a time.
pub struct Folder(pub PathBuf);

impl Folder {
    fn names(&self) -> Vec<Vec<u8>> {
        let entries = fs::read_dir(&self.0).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<_> = names
            .filter(|name| !name.ends_with(".new"))
            .map(String::into_bytes)
            .collect();
        names.sort();
        names
    }

    fn path(&self, name: &[u8]) -> PathBuf {
        self.0.join(Path::new(std::str::from_utf8(name).unwrap()))
    }
}

impl Records for Folder {
    fn list(&self, after: Option<&[u8]>, most: usize) -> Result<Vec<Vec<u8>>, Cause> {
        let names = self.names().into_iter();
        let names = names.filter(|name| after.is_none_or(|after| after < name.as_slice()));
        Ok(names.take(most).collect())
    }

    fn get(&self, name: &[u8]) -> Result<Option<Vec<u8>>, Cause> {
        Ok(Some(fs::read(self.path(name)).unwrap()))
    }

    fn put_if_unchanged(&self, name: &[u8], old: &[u8], new: &[u8]) -> Result<bool, Cause> {
        let path = self.path(name);
        if fs::read(&path).unwrap() != old {
            return Ok(false);
        }
        let aside = path.with_extension("new");
        fs::write(&aside, new).unwrap();
        fs::rename(aside, path).unwrap();
        Ok(true)
    }

    fn count(&self) -> Option<u64> {
        Some(self.names().len() as u64)
    }
}
