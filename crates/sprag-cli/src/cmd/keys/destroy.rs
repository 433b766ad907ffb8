//! `sprag keys destroy`: a version that is gone for good, if nothing is known to be under it.

use std::fs;
use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;

use sprag_keys::{KeyId, KeySource, KeyVersion, RingFile, SourceError};

use super::args::DestroyArgs;
use super::file::Files;
use super::{KeysError, change, folder, job, places, ring};
use crate::error::{CliError, Exit};
use crate::output::Output;
use crate::sys;

pub(super) fn run(args: &DestroyArgs, output: &mut Output) -> Result<Exit, CliError> {
    let version = ring::version(args.version)?;
    let mut file = ring::open(&args.ring)?;
    let failed = |error| KeysError::ring(&args.ring.ring, error);
    match file.by_version(&args.name, version) {
        // Destroying twice changes nothing.
        Err(SourceError::Destroyed) => return change::show(&file, &args.name, version, output),
        Err(error) => {
            let name = format!("{}, version {version}", args.name);
            return Err(KeysError::source(name, error).into());
        }
        Ok(_) if is_current(&file, &args.name, version) => {
            return Err(failed(sprag_keys::RingError::StillCurrent.into()).into());
        }
        Ok(_) => {}
    }
    let abandoned: Vec<PathBuf> = args
        .abandon
        .iter()
        .map(|folder| fs::canonicalize(folder).unwrap_or_else(|_| folder.clone()))
        .collect();
    look(args, &file, version, &abandoned)?;
    if !args.yes && !confirmed(&args.name, version) {
        return Err(KeysError::NotConfirmed {
            name: args.name.to_string(),
            version: version.get(),
        }
        .into());
    }
    if !abandoned.is_empty() {
        places::remove(&args.ring.ring, &abandoned)?;
    }
    let done = file.destroy(&args.name, version, &mut sys::rng(), sys::now_ms());
    done.map_err(failed)?;
    change::show(&file, &args.name, version, output)
}

fn is_current(file: &RingFile, name: &KeyId, version: KeyVersion) -> bool {
    file.current(name).is_ok_and(|key| key.version() == version)
}

/// Refuses if something is under the version in a folder that is known or given.
fn look(
    args: &DestroyArgs,
    file: &RingFile,
    version: KeyVersion,
    abandoned: &[PathBuf],
) -> Result<(), CliError> {
    let mut folders = places::known(&args.ring.ring)?;
    for given in &args.folder {
        folders.push(fs::canonicalize(given).map_err(|cause| CliError::file(given, cause))?);
    }
    folders.sort();
    folders.dedup();
    folders.retain(|folder| !abandoned.contains(folder));
    let files = Files::new(file, &args.name, &[], None)?;
    let not_data = job::not_data(&args.ring);
    for folder in folders {
        let names = folder::walk(&folder, &not_data).map(|walked| walked.files);
        let count = names.and_then(|names| files.count_under(&folder, &names, version));
        match count {
            Ok(0) => {}
            Ok(count) => {
                return Err(KeysError::InUse {
                    name: args.name.to_string(),
                    version: version.get(),
                    files: count,
                    folder,
                }
                .into());
            }
            Err(error) => {
                let cause = error.to_string();
                return Err(KeysError::Unseen { folder, cause }.into());
            }
        }
    }
    Ok(())
}

/// Asks a terminal. Where there is none, nobody said yes.
fn confirmed(name: &KeyId, version: KeyVersion) -> bool {
    if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        return false;
    }
    let mut ask = io::stderr();
    let _ = write!(
        ask,
        "Version {version} of {name} will be gone for good, and what is under it. Type the name of the key: "
    );
    let mut answer = String::new();
    io::stdin().read_line(&mut answer).is_ok() && answer.trim() == name.as_str()
}
