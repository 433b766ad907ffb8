//! Envelopes, kept per receiving device until they are forgotten ("Envelopes").

use sprag_crypto::Salt;
use sprag_wire::{DeviceAddress, Envelope, limits};

use crate::directory::{Directory, hex, user_key};
use crate::error::{DirectoryError, Refusal};
use crate::lists::Newest;
use crate::storage::{Entry, LockedStorage, Storage, StorageError};

/// Envelopes that wait for one device at most; then its inbox is [`Full`](DirectoryError::Full).
pub const MAX_WAITING: usize = 4096;

/// Bytes of the envelopes that wait for one device at most.
pub const MAX_WAITING_BYTES: u64 = 1 << 26;

impl<S: Storage> Directory<S> {
    /// Keeps `envelope`, a frame `0x10`, for the device that it names. The same envelope again changes nothing while
    /// the first one waits.
    ///
    /// # Errors
    /// [`DirectoryError::NoSuchUser`]; [`DirectoryError::NoSuchDevice`] with the newest list;
    /// [`DirectoryError::Full`]; [`DirectoryError::Refused`] with [`Malformed`](Refusal::Malformed) or
    /// [`UsedEnvelopeId`](Refusal::UsedEnvelopeId).
    pub fn deliver(&self, envelope: &[u8]) -> Result<(), DirectoryError> {
        let parsed = Envelope::decode(envelope).map_err(|_| Refusal::Malformed)?;
        let to = parsed.to();
        let mut rows = self.storage.lock()?;
        let newest = Newest::read(&*rows, to.user())?.ok_or(DirectoryError::NoSuchUser)?;
        let mut devices = newest.list.devices().iter();
        if !devices.any(|listed| listed.device() == to.device()) {
            return Err(DirectoryError::NoSuchDevice {
                list: newest.list.frame().to_vec(),
            });
        }
        let waiting = waiting(&*rows, to)?;
        if let Some(same) = waiting.iter().find(|row| row.id == *parsed.id()) {
            let kept = rows.get(&same.key(to), limits::ENVELOPE_FRAME)?;
            return match kept {
                Some(kept) if kept == envelope => Ok(()),
                _ => Err(Refusal::UsedEnvelopeId.into()),
            };
        }
        let size = u64::try_from(envelope.len()).unwrap_or(u64::MAX);
        let bytes = waiting
            .iter()
            .fold(size, |sum, row| sum.saturating_add(row.size));
        if waiting.len() >= MAX_WAITING || bytes > MAX_WAITING_BYTES {
            return Err(DirectoryError::Full);
        }
        let last = waiting.last().map_or(0, |row| row.number);
        let row = Waiting {
            number: last.checked_add(1).ok_or(DirectoryError::Full)?,
            id: *parsed.id(),
            size,
        };
        Ok(rows.put(&row.key(to), envelope)?)
    }

    /// The oldest envelopes that wait for `address`, `max` at most: id and frame, in the order in which they came. They
    /// stay until [`forget`](Self::forget).
    ///
    /// # Errors
    /// [`StorageError`].
    pub fn fetch(
        &self,
        address: &DeviceAddress,
        max: usize,
    ) -> Result<Vec<(Salt, Vec<u8>)>, StorageError> {
        let rows = self.storage.lock()?;
        let mut frames = Vec::new();
        for row in waiting(&*rows, address)? {
            if frames.len() == max {
                break;
            }
            match rows.get(&row.key(address), limits::ENVELOPE_FRAME) {
                Ok(Some(frame)) => frames.push((row.id, frame)),
                // What somebody else left there does not keep the rest from the device.
                Ok(None) | Err(StorageError::TooLarge | StorageError::Damaged) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(frames)
    }

    /// Deletes the envelope `id` that waits for `address`. One that is not there is fine.
    ///
    /// # Errors
    /// [`StorageError`].
    pub fn forget(&self, address: &DeviceAddress, id: &Salt) -> Result<(), StorageError> {
        let mut rows = self.storage.lock()?;
        for row in waiting(&*rows, address)? {
            if row.id == *id {
                rows.delete(&row.key(address))?;
            }
        }
        Ok(())
    }
}

/// A waiting envelope. Its row is named by its place in the order of arrival and by its id.
struct Waiting {
    number: u64,
    id: Salt,
    size: u64,
}

impl Waiting {
    fn parse(entry: &Entry) -> Option<Self> {
        let (number, id) = entry.name().split_once('-')?;
        let row = Self {
            number: number.parse().ok()?,
            id: Salt::from_bytes(from_hex(id)?),
            size: entry.size(),
        };
        (row.name() == entry.name()).then_some(row)
    }

    // Of fixed width, so that the order of names is the order of arrival.
    fn name(&self) -> String {
        format!("{:020}-{}", self.number, hex(self.id.as_bytes()))
    }

    fn key(&self, address: &DeviceAddress) -> String {
        format!("{}/{}", inbox_key(address), self.name())
    }
}

fn waiting(
    rows: &dyn LockedStorage,
    address: &DeviceAddress,
) -> Result<Vec<Waiting>, StorageError> {
    let entries = rows.list(&inbox_key(address))?;
    Ok(entries.iter().filter_map(Waiting::parse).collect())
}

fn inbox_key(address: &DeviceAddress) -> String {
    let device = address.device().get();
    format!("{}/inbox/{device}", user_key(address.user()))
}

fn from_hex(text: &str) -> Option<[u8; 16]> {
    let mut bytes = [0; 16];
    if text.len() != 32 || !text.is_ascii() {
        return None;
    }
    for (index, byte) in bytes.iter_mut().enumerate() {
        let at = index.checked_mul(2)?;
        *byte = u8::from_str_radix(text.get(at..at.checked_add(2)?)?, 16).ok()?;
    }
    Some(bytes)
}
