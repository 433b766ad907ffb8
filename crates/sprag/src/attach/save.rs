//! An attachment as a file: all of it, or nothing.

use std::path::Path;

use super::descriptor::Attachment;
use super::open::{OpenedAttachment, open};
use crate::client::Client;
use crate::{Error, sys};

/// Writes an attachment to a file that is not there yet.
pub(super) fn save(
    client: &Client,
    attachment: &Attachment,
    path: &Path,
) -> Result<OpenedAttachment, Error> {
    let output = |error: std::io::Error| Error::output(error.kind());
    let mut file = sys::WholeFile::begin(path).map_err(output)?;
    let opened = open(client, attachment, &mut file)?;
    if opened == OpenedAttachment::Written {
        file.end().map_err(output)?;
    }
    Ok(opened)
}
