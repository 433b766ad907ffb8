//! Blobs: immutable bytes under their own hash ("Objects and blobs").

use std::collections::BTreeSet;

use sprag_crypto::sha256;
use sprag_wire::{UserId, limits};

use crate::directory::{Directory, VERSION, hex};
use crate::error::{DirectoryError, Refusal};
use crate::storage::{LockedStorage, Storage, StorageError};

/// A name that is the SHA-256 of what it names.
type Name = [u8; 32];

impl<S: Storage> Directory<S> {
    /// Keeps `bytes` under `name`, their SHA-256, until each user who put them has dropped them. The same again changes
    /// nothing, and mends what a disk has lost.
    ///
    /// # Errors
    /// [`DirectoryError::Refused`] with [`TooLarge`](Refusal::TooLarge) above 64 MiB, or
    /// [`WrongName`](Refusal::WrongName). [`DirectoryError::Full`] if 4,096 others put the same.
    pub fn put_blob(&self, user: &UserId, name: &Name, bytes: &[u8]) -> Result<(), DirectoryError> {
        if bytes.len() > limits::BLOB {
            return Err(Refusal::TooLarge.into());
        }
        if sha256(&[bytes]) != *name {
            return Err(Refusal::WrongName.into());
        }
        let mut rows = self.storage.lock()?;
        let mut holders = Holders::read(&*rows, name)?;
        if holders.0.insert(holder(user)) {
            if holders.0.len() > MAX_HOLDERS {
                return Err(DirectoryError::Full);
            }
            // This comes first: a crash in between leaves no bytes that nobody drops.
            holders.write(&mut *rows, name)?;
        }
        match rows.get(&blob_key(name), limits::BLOB) {
            Ok(Some(kept)) if kept == bytes => Ok(()),
            Ok(_) | Err(StorageError::TooLarge | StorageError::Damaged) => {
                Ok(rows.put(&blob_key(name), bytes)?)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// The bytes under `name`, whoever put them: the name is a secret of those who were told it.
    ///
    /// # Errors
    /// [`DirectoryError::NoSuchBlob`], also if what is kept is not whole any more.
    pub fn get_blob(&self, name: &Name) -> Result<Vec<u8>, DirectoryError> {
        let kept = self.storage.lock()?.get(&blob_key(name), limits::BLOB);
        match kept {
            Ok(Some(bytes)) if sha256(&[&bytes]) == *name => Ok(bytes),
            Ok(_) | Err(StorageError::TooLarge | StorageError::Damaged) => {
                Err(DirectoryError::NoSuchBlob)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// `user` needs the blob no more. Its bytes go once nobody who put it needs it; one that is not there is fine.
    ///
    /// # Errors
    /// [`StorageError`].
    pub fn drop_blob(&self, user: &UserId, name: &Name) -> Result<(), StorageError> {
        let mut rows = self.storage.lock()?;
        let mut holders = Holders::read(&*rows, name)?;
        let held = holders.0.remove(&holder(user));
        if holders.0.is_empty() {
            rows.delete(&blob_key(name))?;
            rows.delete(&holders_key(name))
        } else if held {
            holders.write(&mut *rows, name)
        } else {
            Ok(())
        }
    }
}

/// Who put a blob and has not dropped it: `version(1) ‖ SHA-256 of a user id(32) ..`, ascending.
struct Holders(BTreeSet<[u8; 32]>);

impl Holders {
    fn read(rows: &dyn LockedStorage, name: &Name) -> Result<Self, StorageError> {
        let Some(row) = rows.get(&holders_key(name), 1 + 32 * MAX_HOLDERS)? else {
            return Ok(Self(BTreeSet::new()));
        };
        Self::decode(&row).ok_or(StorageError::Damaged)
    }

    fn decode(row: &[u8]) -> Option<Self> {
        let (version, users) = row.split_first()?;
        let (users, rest) = users.as_chunks::<32>();
        (*version == VERSION && rest.is_empty() && !users.is_empty()).then_some(())?;
        Some(Self(users.iter().copied().collect()))
    }

    fn write(&self, rows: &mut dyn LockedStorage, name: &Name) -> Result<(), StorageError> {
        let mut row = vec![VERSION];
        row.extend(self.0.iter().flatten());
        rows.put(&holders_key(name), &row)
    }
}

fn holder(user: &UserId) -> [u8; 32] {
    sha256(&[user.as_str().as_bytes()])
}

fn blob_key(name: &Name) -> String {
    format!("blobs/{}", hex(name))
}

fn holders_key(name: &Name) -> String {
    format!("blob-holders/{}", hex(name))
}

/// Users who put one blob, at most: its row stays at 128 KiB.
const MAX_HOLDERS: usize = 4096;
