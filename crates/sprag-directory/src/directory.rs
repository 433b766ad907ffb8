//! The directory itself, and its epoch.

use sprag_crypto::sha256;
use sprag_wire::UserId;

use crate::storage::{LockedStorage, Storage, StorageError};

/// The epoch of a server (The protocol, Appendix C, "Epoch"): 16 random bytes, drawn when it is created and whenever it was
/// restored from a backup. A client that sees a new one gives the server everything again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ServerEpoch([u8; 16]);

impl ServerEpoch {
    /// An epoch of 16 bytes, which the caller drew at random.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// Its 16 bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

/// Device lists, prekeys, envelopes, objects and blobs of any number of users, over a [`Storage`].
///
/// Each operation takes the storage's lock once, so any number of handles, threads and processes may use one storage.
/// Who may ask for what is the transport's matter: it authenticates callers before it passes their bytes on.
#[derive(Debug)]
pub struct Directory<S> {
    pub(crate) storage: S,
}

impl<S: Storage> Directory<S> {
    /// Opens the directory in `storage`. If there is none yet, one of epoch `new_epoch` is created.
    ///
    /// # Errors
    /// [`StorageError`], also for a directory of a newer version.
    pub fn open(storage: S, new_epoch: ServerEpoch) -> Result<Self, StorageError> {
        {
            let mut rows = storage.lock()?;
            if rows.get(EPOCH, EPOCH_LEN)?.is_none() {
                write_epoch(&mut *rows, new_epoch)?;
            }
            read_epoch(&*rows)?;
        }
        Ok(Self { storage })
    }

    /// To be called once whenever the storage was restored from a backup: begins the epoch `new_epoch`.
    ///
    /// The backup may hold one-time prekeys that were handed out since it was made. From now on they are not handed
    /// out; each device publishes new ones when it sees the epoch.
    ///
    /// # Errors
    /// [`StorageError`].
    pub fn restored(&self, new_epoch: ServerEpoch) -> Result<(), StorageError> {
        write_epoch(&mut *self.storage.lock()?, new_epoch)
    }

    /// The epoch of the server now.
    ///
    /// # Errors
    /// [`StorageError`].
    pub fn epoch(&self) -> Result<ServerEpoch, StorageError> {
        read_epoch(&*self.storage.lock()?)
    }
}

pub(crate) fn read_epoch(rows: &dyn LockedStorage) -> Result<ServerEpoch, StorageError> {
    match rows.get(EPOCH, EPOCH_LEN)?.as_deref() {
        Some([VERSION, epoch @ ..]) => epoch
            .try_into()
            .map(ServerEpoch)
            .map_err(|_| StorageError::Damaged),
        _ => Err(StorageError::Damaged),
    }
}

fn write_epoch(rows: &mut dyn LockedStorage, epoch: ServerEpoch) -> Result<(), StorageError> {
    let mut row = vec![VERSION];
    row.extend_from_slice(epoch.as_bytes());
    rows.put(EPOCH, &row)
}

/// The key below which all rows of `user` lie. The hash has a fixed length and a safe alphabet, whatever the name.
pub(crate) fn user_key(user: &UserId) -> String {
    format!("users/{}", hex(&sha256(&[user.as_str().as_bytes()])))
}

/// Lower-case hexadecimal digits of `bytes`.
pub(crate) fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().saturating_mul(2));
    for byte in bytes {
        for digit in [byte >> 4, byte & 15] {
            text.push(char::from_digit(u32::from(digit), 16).unwrap_or('0'));
        }
    }
    text
}

/// Version of every row that the directory writes.
pub(crate) const VERSION: u8 = 1;
const EPOCH: &str = "epoch";
const EPOCH_LEN: usize = 17;
