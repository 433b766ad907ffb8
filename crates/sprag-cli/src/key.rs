//! The key of the profile: from a file, from the environment, or asked for.

use std::env::{self, VarError};
use std::path::Path;

use sprag::{Key, RecoveryKey};
use zeroize::Zeroizing;

use crate::args::Global;
use crate::error::CliError;
use crate::sys;

/// The environment variable of the passphrase.
pub(crate) const PASSPHRASE: &str = "SPRAG_PASSPHRASE";

/// What to use where nobody can be asked.
const HINT: &str = "--key-file or SPRAG_PASSPHRASE";

/// The environment variable of the passphrase that takes its place.
const NEW_PASSPHRASE: &str = "SPRAG_NEW_PASSPHRASE";

/// The key of a profile that exists.
pub(crate) fn existing(global: &Global) -> Result<Key, CliError> {
    match &global.key_file {
        Some(path) => Ok(Key::file(path)),
        None => match from_environment()? {
            Some(key) => Ok(key),
            None => Ok(Key::passphrase(&ask("Passphrase: ", HINT)?)),
        },
    }
}

/// The key of a profile that exists, where nobody can be asked for it.
pub(crate) fn unattended(global: &Global) -> Result<Key, CliError> {
    match &global.key_file {
        Some(path) => Ok(Key::file(path)),
        None => from_environment()?.ok_or_else(|| {
            CliError::Usage(format!(
                "nobody can be asked for a passphrase here: use {HINT}"
            ))
        }),
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
    ask_twice()
}

/// The key that takes the place of another one.
pub(crate) fn next(file: Option<&Path>) -> Result<Key, CliError> {
    match file {
        Some(path) if path.exists() => Ok(Key::file(path)),
        Some(path) => create(path),
        None => match from_variable(NEW_PASSPHRASE)? {
            Some(key) => Ok(key),
            None => ask_twice(),
        },
    }
}

fn ask_twice() -> Result<Key, CliError> {
    Ok(Key::passphrase(&ask_text_twice("New passphrase: ", HINT)?))
}

fn ask_text_twice(prompt: &str, hint: &str) -> Result<Zeroizing<String>, CliError> {
    let passphrase = ask(prompt, hint)?;
    if *ask("The same again: ", hint)? != *passphrase {
        return Err(CliError::Usage("the two passphrases differ".to_owned()));
    }
    Ok(passphrase)
}

/// A passphrase that is there: of this variable, or asked for.
pub(crate) fn old_passphrase(variable: &str, prompt: &str) -> Result<Zeroizing<String>, CliError> {
    match secret_of(variable)? {
        Some(passphrase) => Ok(passphrase),
        None => ask(prompt, variable),
    }
}

/// A passphrase that is new: of this variable, or asked for twice.
pub(crate) fn new_passphrase(variable: &str, prompt: &str) -> Result<Zeroizing<String>, CliError> {
    match secret_of(variable)? {
        Some(passphrase) => Ok(passphrase),
        None => ask_text_twice(prompt, variable),
    }
}

/// A new key file.
pub(crate) fn create(path: &Path) -> Result<Key, CliError> {
    Ok(Key::create_file(path, &mut sys::rng())?)
}

/// The passphrase of the environment, if there is one.
pub(crate) fn from_environment() -> Result<Option<Key>, CliError> {
    from_variable(PASSPHRASE)
}

fn from_variable(name: &str) -> Result<Option<Key>, CliError> {
    Ok(secret_of(name)?.map(|passphrase| Key::passphrase(&passphrase)))
}

/// The environment variable of a backup's passphrase.
const BACKUP_PASSPHRASE: &str = "SPRAG_BACKUP_PASSPHRASE";
/// The environment variable of a recovery key.
const RECOVERY_KEY: &str = "SPRAG_RECOVERY_KEY";

/// A passphrase for a new backup.
pub(crate) fn new_backup_passphrase() -> Result<Key, CliError> {
    let text = new_passphrase(BACKUP_PASSPHRASE, "Passphrase for the backup: ")?;
    Ok(Key::passphrase(&text))
}

/// The passphrase of a backup.
pub(crate) fn backup_passphrase() -> Result<Key, CliError> {
    let text = old_passphrase(BACKUP_PASSPHRASE, "Passphrase of the backup: ")?;
    Ok(Key::passphrase(&text))
}

/// The recovery key of a backup, as it was printed.
pub(crate) fn recovery_key() -> Result<Key, CliError> {
    let text = old_passphrase(RECOVERY_KEY, "Recovery key: ")?;
    let key = RecoveryKey::from_text(&text).map_err(CliError::RecoveryKey)?;
    Ok(key.to_key())
}

fn secret_of(name: &str) -> Result<Option<Zeroizing<String>>, CliError> {
    match env::var(name).map(Zeroizing::new) {
        Ok(text) => Ok(Some(text)),
        Err(VarError::NotPresent) => Ok(None),
        Err(VarError::NotUnicode(bytes)) => {
            drop(Zeroizing::new(bytes.into_encoded_bytes()));
            Err(CliError::Usage(format!("{name} is not UTF-8")))
        }
    }
}

/// Where there is no terminal to ask at, `hint` says what else to use.
fn ask(prompt: &str, hint: &str) -> Result<Zeroizing<String>, CliError> {
    rpassword::prompt_password(prompt)
        .map(Zeroizing::new)
        .map_err(|_| {
            CliError::Usage(format!(
                "there is no terminal to ask for a passphrase: use {hint}"
            ))
        })
}
