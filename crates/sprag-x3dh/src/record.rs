//! Fixed layouts of stored prekeys: a version byte, then the fields.

use zeroize::Zeroizing;

use crate::RecordError;

const VERSION: u8 = 1;

/// Concatenates into a buffer of known size, so that no copy of a secret stays behind.
pub(crate) fn write(parts: &[&[u8]]) -> Zeroizing<Vec<u8>> {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    let mut record = Zeroizing::new(Vec::with_capacity(1 + length));
    record.push(VERSION);
    parts.iter().for_each(|part| record.extend_from_slice(part));
    record
}

pub(crate) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// A record of exactly `length` bytes after its version.
    pub(crate) fn new(record: &'a [u8], length: usize) -> Result<Self, RecordError> {
        match record.split_first() {
            Some((&VERSION, rest)) if rest.len() == length => Ok(Self(rest)),
            _ => Err(RecordError),
        }
    }

    pub(crate) fn take(&mut self, length: usize) -> Result<&'a [u8], RecordError> {
        let (head, tail) = self.0.split_at_checked(length).ok_or(RecordError)?;
        self.0 = tail;
        Ok(head)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], RecordError> {
        self.take(N)?.try_into().map_err(|_| RecordError)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, RecordError> {
        Ok(u32::from_be_bytes(self.array()?))
    }
}
