//! `sprag vault keygen`: a key file for its owner alone, and the public half for everybody.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

use sprag_vault::{DataKey, RecipientPrivateKey};
use zeroize::Zeroizing;

use super::VaultError;
use super::args::KeygenArgs;
use super::keys::{self, VaultKey};
use super::line::KeyLine;
use super::text;
use crate::error::{CliError, Exit};
use crate::line::Line;
use crate::output::Output;
use crate::sys;

pub(super) fn run(args: &KeygenArgs, output: &mut Output) -> Result<Exit, CliError> {
    let (key, file) = match (&args.show, &args.out) {
        (Some(show), _) => (keys::read(show)?, show),
        (None, Some(out)) => {
            let key = if args.symmetric {
                VaultKey::Symmetric(DataKey::generate(&mut sys::rng()))
            } else {
                VaultKey::Private(RecipientPrivateKey::generate(&mut sys::rng()))
            };
            write(out, &content(&key))?;
            (key, out)
        }
        (None, None) => return Err(CliError::Usage("give --out".to_owned())),
    };
    output.line(&Line::VaultKey(KeyLine {
        public: key.public().map(text::public),
        file: file.display().to_string(),
    }))?;
    Ok(Exit::Ok)
}

fn content(key: &VaultKey) -> Zeroizing<String> {
    let mut content = Zeroizing::new(String::with_capacity(512));
    content.push_str("# sprag vault key: whoever has this file opens what is sealed to it\n");
    if let Some(public) = key.public() {
        content.push_str("# public: ");
        content.push_str(&text::public(public));
        content.push('\n');
    }
    content.push_str(&key.text());
    content.push('\n');
    content
}

/// Written whole to a file that was not there, or not at all.
fn write(path: &Path, content: &str) -> Result<(), CliError> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        options.mode(0o600);
    }
    let mut file = options.open(path).map_err(|cause| match cause.kind() {
        io::ErrorKind::AlreadyExists => VaultError::Exists(path.to_path_buf()).into(),
        _ => CliError::file(path, cause),
    })?;
    let written = file
        .write_all(content.as_bytes())
        .and_then(|()| file.sync_all())
        .and_then(|()| super::aside::sync_folder(path));
    written.map_err(|cause| {
        // A key that is not whole, or might not be there after a power cut, is none.
        let _ = fs::remove_file(path);
        CliError::file(path, cause)
    })
}
