//! A blob that is read: its header, and what follows.

use std::io::{self, Cursor, Read};
use std::path::Path;

use sprag_vault::{FormatError, Header, MAX_HEADER};

use super::source::Source;
use crate::error::CliError;

/// Bytes after which the length of a header is known.
const PREFIX: usize = 82;

/// A header, and the source behind it.
pub(crate) struct Blob {
    pub(crate) header: Header,
    pub(crate) rest: Source,
}

impl Blob {
    pub(crate) fn read(mut source: Source) -> Result<Self, CliError> {
        let mut bytes = Vec::new();
        fill(&mut source, &mut bytes, PREFIX)?;
        let length = Header::length_in(&bytes)?.ok_or(FormatError::Short)?;
        fill(&mut source, &mut bytes, length.min(MAX_HEADER))?;
        Ok(Self {
            header: Header::parse(&bytes)?,
            rest: source,
        })
    }

    /// All of it, from its first byte on, with the name for errors.
    pub(crate) fn whole(self) -> (impl Read, std::path::PathBuf) {
        let name = self.rest.name.clone();
        (Cursor::new(self.header.encode()).chain(self.rest), name)
    }

    pub(crate) fn name(&self) -> &Path {
        &self.rest.name
    }
}

fn fill(source: &mut Source, bytes: &mut Vec<u8>, wanted: usize) -> Result<(), CliError> {
    let missing = wanted.saturating_sub(bytes.len());
    let missing = u64::try_from(missing).unwrap_or(u64::MAX);
    let read: io::Result<usize> = source.by_ref().take(missing).read_to_end(bytes);
    match read {
        Ok(_) => Ok(()),
        Err(cause) => Err(CliError::file(&source.name, cause)),
    }
}
