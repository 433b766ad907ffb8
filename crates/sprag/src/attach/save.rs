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

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn file_that_appears_while_another_is_written_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cat");
        let mut file = sys::WholeFile::begin(&path).unwrap();
        file.write_all(b"ours").unwrap();
        std::fs::write(&path, b"somebody's own").unwrap();
        let error = file.end().unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::AlreadyExists);
        assert_eq!(std::fs::read(&path).unwrap(), b"somebody's own");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
