//! AEGIS: a master key, single blobs under it, and a file of chunks.

use std::fmt;

use serde_json::Value;
use zeroize::Zeroizing;

use super::{LegacyError, OVERHEAD, key_from_base64};
use crate::DataKey;

/// Bytes of payload in a chunk, at most.
const MAX_CHUNK: usize = 1024 * 1024;
/// Bytes of a header, at most: it holds the name of a file. The form knows no bound of its own.
const MAX_HEADER: usize = 64 * 1024;

/// The master key as it stands in the keyring and in `aegis_key.key`: URL-safe base64 of 32 bytes, or, in older files, those
/// bytes themselves.
///
/// # Errors
/// [`LegacyError::Key`]
pub fn key_from_text(text: &[u8]) -> Result<DataKey, LegacyError> {
    match DataKey::from_slice(text) {
        Some(key) => Ok(key),
        None => key_from_base64(text),
    }
}

/// What stands in the header of a file. It is authentic under the master key, and not bound to the chunks.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct FileHeader {
    /// The name that the file had. A name to show: never a place to write to.
    pub original_filename: String,
    /// When it was made, in seconds of Unix.
    pub timestamp: u64,
    /// Bytes of the payload, if they are named: only then a missing end is noticed.
    pub total_size: Option<u64>,
}

impl fmt::Debug for FileHeader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileHeader")
            .field("total_size", &self.total_size)
            .finish_non_exhaustive()
    }
}

impl FileHeader {
    fn from_json(json: &[u8]) -> Result<Self, LegacyError> {
        let value: Value = serde_json::from_slice(json).map_err(|_| LegacyError::Metadata)?;
        let total_size = match value.get("total_size") {
            None | Some(Value::Null) => None,
            Some(size) => Some(size.as_u64().ok_or(LegacyError::Metadata)?),
        };
        let text = |name| value.get(name).and_then(Value::as_str);
        let number = |name| value.get(name).and_then(Value::as_u64);
        if number("version") != Some(1) {
            return Err(LegacyError::Metadata);
        }
        Ok(Self {
            original_filename: text("original_filename")
                .ok_or(LegacyError::Metadata)?
                .to_owned(),
            timestamp: number("timestamp").ok_or(LegacyError::Metadata)?,
            total_size,
        })
    }
}

/// Opens a file chunk by chunk: `u32 LE length ‖ blob(header)`, then `u32 LE length ‖ blob(at most 1 MiB)` each.
///
/// Nothing ties a chunk to its place or its file: they may have been swapped, repeated, dropped, or taken from another file under
/// the same key, and it does not show.
pub struct FileReader<'a> {
    key: &'a DataKey,
    header: FileHeader,
    rest: &'a [u8],
    read: u64,
    ended: bool,
}

impl fmt::Debug for FileReader<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileReader").finish_non_exhaustive()
    }
}

impl<'a> FileReader<'a> {
    /// Opens the header.
    ///
    /// # Errors
    /// [`LegacyError`]
    pub fn open(key: &'a DataKey, file: &'a [u8]) -> Result<Self, LegacyError> {
        let mut rest = file;
        let sealed = take(&mut rest, MAX_HEADER)?;
        let header = FileHeader::from_json(&super::open(key, sealed)?)?;
        Ok(Self {
            key,
            header,
            rest,
            read: 0,
            ended: false,
        })
    }

    /// The header.
    #[must_use]
    pub fn header(&self) -> &FileHeader {
        &self.header
    }

    fn step(&mut self) -> Result<Option<Zeroizing<Vec<u8>>>, LegacyError> {
        if self.rest.is_empty() {
            let whole = self.header.total_size.is_none_or(|size| size == self.read);
            return if whole {
                Ok(None)
            } else {
                Err(LegacyError::Length)
            };
        }
        let text = super::open(self.key, take(&mut self.rest, MAX_CHUNK)?)?;
        self.read = self
            .read
            .saturating_add(u64::try_from(text.len()).unwrap_or(u64::MAX));
        if self.header.total_size.is_some_and(|size| self.read > size) {
            return Err(LegacyError::Length);
        }
        Ok(Some(text))
    }
}

/// The chunks. After an error there are none.
impl Iterator for FileReader<'_> {
    type Item = Result<Zeroizing<Vec<u8>>, LegacyError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let step = self.step().transpose();
        self.ended = !matches!(step, Some(Ok(_)));
        step
    }
}

/// Takes `u32 LE length ‖ blob` with a payload of at most so many bytes.
fn take<'a>(from: &mut &'a [u8], most: usize) -> Result<&'a [u8], LegacyError> {
    let (length, rest) = from.split_first_chunk().ok_or(LegacyError::Short)?;
    let length = usize::try_from(u32::from_le_bytes(*length)).map_err(|_| LegacyError::Length)?;
    if !(OVERHEAD..=most.saturating_add(OVERHEAD)).contains(&length) {
        return Err(LegacyError::Length);
    }
    let (blob, rest) = rest.split_at_checked(length).ok_or(LegacyError::Short)?;
    *from = rest;
    Ok(blob)
}
