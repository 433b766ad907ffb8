//! `sprag keys import`: keys of older programs, so that what is under them can be rotated away from them.

use std::path::PathBuf;

use sprag_keys::{EnvSource, FileSource, KeyId, KeySource};

use super::args::{From, ImportArgs};
use super::{KeysError, change, ring};
use crate::error::{CliError, Exit};
use crate::output::Output;
use crate::sys;

pub(super) fn run(args: &ImportArgs, output: &mut Output) -> Result<Exit, CliError> {
    let old_name = args.old_name.as_ref().unwrap_or(&args.name);
    let failed = |error| CliError::from(KeysError::source(old_name, error));
    let path = || args.path.clone();
    let needed = |path: Option<PathBuf>| {
        path.ok_or_else(|| CliError::Usage("give --path with the file of the key".to_owned()))
    };
    let key = match args.from {
        From::LumeraEnv if args.path.is_some() => {
            return Err(CliError::Usage("--path is not for lumera-env".to_owned()));
        }
        From::LumeraEnv => EnvSource::new().current(old_name),
        From::LumeraFiles => match path() {
            Some(folder) => FileSource::lumera_folder(folder).current(old_name),
            None => FileSource::lumera_default_folder().and_then(|files| files.current(old_name)),
        },
        From::LumeraJson => match path() {
            Some(file) => FileSource::lumera_json(file).current(old_name),
            None => FileSource::lumera_default_json().and_then(|file| file.current(old_name)),
        },
        From::Aegis => {
            let name = KeyId::new(FileSource::AEGIS_KEY).map_err(failed)?;
            FileSource::aegis(needed(path())?).current(&name)
        }
    };
    let key = key.map_err(failed)?;
    let mut file = ring::open(&args.ring)?;
    let taken = file.update(&mut sys::rng(), |ring, _| {
        ring.import(&args.name, key.as_bytes(), sys::now_ms())
    });
    let version = taken.map_err(|error| KeysError::ring(&args.ring.ring, error))?;
    output.note("copies of this key are where it was: `rotate` it, and run a job");
    change::show(&file, &args.name, version, output)
}
