//! `sprag vault inspect`: what a blob says of itself. Nothing of it is verified.

use std::io;

use super::args::Input;
use super::blob::Blob;
use super::line::{BlobLine, SlotLine};
use super::source::Source;
use crate::error::{CliError, Exit};
use crate::line::Line;
use crate::output::Output;

pub(super) fn run(args: &Input, output: &mut Output) -> Result<Exit, CliError> {
    let mut blob = Blob::read(Source::open(args.file.as_deref())?)?;
    let header_bytes = u64::try_from(blob.header.len()).unwrap_or(u64::MAX);
    let bytes = match blob.rest.length {
        Some(length) => length,
        None => {
            let rest = io::copy(&mut blob.rest, &mut io::sink());
            let rest = rest.map_err(|cause| CliError::file(blob.name(), cause))?;
            header_bytes.saturating_add(rest)
        }
    };
    output.line(&Line::Vault(Box::new(BlobLine {
        version: 1,
        suite: blob.header.suite().into(),
        chunk_bytes: blob.header.chunk_size().bytes(),
        context: blob.header.shows_context(),
        bytes,
        header_bytes,
        payload_bytes: blob.header.payload_len(bytes),
        slots: SlotLine::all(&blob.header),
    })))?;
    Ok(Exit::Ok)
}
