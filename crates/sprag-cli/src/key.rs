//! The key of the profile: from a file, from the environment, or asked for.

use std::env::{self, VarError};
use std::path::Path;

use sprag::Key;
use zeroize::Zeroizing;

use crate::args::Global;
use crate::error::CliError;
use crate::sys;

/// The environment variable of the passphrase.
pub(crate) const PASSPHRASE: &str = "SPRAG_PASSPHRASE";

/// The key of a profile that exists.
pub(crate) fn existing(global: &Global) -> Result<Key, CliError> {
    match &global.key_file {
        Some(path) => Ok(Key::file(path)),
        None => match from_environment()? {
            Some(key) => Ok(key),
            None => Ok(Key::passphrase(&ask("Passphrase: ")?)),
        },
    }
}

/// The key of a profile that is about to be made: the key file is created if it is not there, a passphrase asked twice.
pub(crate) fn fresh(global: &Global) -> Result<Key, CliError> {
    if let Some(path) = &global.key_file {
        return if path.exists() {
            Ok(Key::file(path))
        } else {
            create(path)
        };
    }
    if let Some(key) = from_environment()? {
        return Ok(key);
    }
    let passphrase = ask("New passphrase: ")?;
    if *ask("The same again: ")? != *passphrase {
        return Err(CliError::Usage("the two passphrases differ".to_owned()));
    }
    Ok(Key::passphrase(&passphrase))
}

/// A new key file.
pub(crate) fn create(path: &Path) -> Result<Key, CliError> {
    Ok(Key::create_file(path, &mut sys::rng())?)
}

/// The passphrase of the environment, if there is one.
pub(crate) fn from_environment() -> Result<Option<Key>, CliError> {
    match env::var(PASSPHRASE).map(Zeroizing::new) {
        Ok(passphrase) => Ok(Some(Key::passphrase(&passphrase))),
        Err(VarError::NotPresent) => Ok(None),
        Err(VarError::NotUnicode(bytes)) => {
            drop(Zeroizing::new(bytes.into_encoded_bytes()));
            Err(CliError::Usage(format!("{PASSPHRASE} is not UTF-8")))
        }
    }
}

fn ask(prompt: &str) -> Result<Zeroizing<String>, CliError> {
    rpassword::prompt_password(prompt)
        .map(Zeroizing::new)
        .map_err(|_| {
            CliError::Usage(format!(
                "there is no terminal to ask for a passphrase: use --key-file or {PASSPHRASE}"
            ))
        })
}
