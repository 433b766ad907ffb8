//! `sprag keys init`, `create`, `rotate`, `retire`: what makes and changes keys.

use sprag_keys::{KeyId, KeySource, KeyVersion, RingFile};

use super::args::{NameArgs, RetireArgs, RingArgs, RotateArgs};
use super::line::{RingLine, VersionLine};
use super::{KeysError, job, places, ring};
use crate::error::{CliError, Exit};
use crate::line::Line;
use crate::output::Output;
use crate::sys;

pub(super) fn init(args: &RingArgs, output: &mut Output) -> Result<Exit, CliError> {
    ring::create(args)?;
    output.line(&Line::Ring(RingLine {
        file: args.ring.display().to_string(),
    }))?;
    Ok(Exit::Ok)
}

pub(super) fn create(args: &NameArgs, output: &mut Output) -> Result<Exit, CliError> {
    let mut file = ring::open(&args.ring)?;
    let made = file.create_key(&args.name, &mut sys::rng(), sys::now_ms());
    let version = made.map_err(|error| KeysError::ring(&args.ring.ring, error))?;
    show(&file, &args.name, version, output)
}

pub(super) fn rotate(args: &RotateArgs, output: &mut Output) -> Result<Exit, CliError> {
    let asked = !args.how.context.is_empty() || args.how.raw12.is_some();
    if asked && !args.run {
        return Err(CliError::Usage(
            "--context and --raw12 are for --run".to_owned(),
        ));
    }
    let mut file = ring::open(&args.ring)?;
    let made = file.rotate(&args.name, &mut sys::rng(), sys::now_ms());
    let version = made.map_err(|error| KeysError::ring(&args.ring.ring, error))?;
    let exit = show(&file, &args.name, version, output)?;
    let known = places::known(&args.ring.ring)?;
    if args.run {
        return job::run_all(&known, &args.name, &args.how, &args.ring, &file, output);
    }
    for place in known {
        output.note(&format!(
            "to put what is in {} under it: `sprag keys job start`",
            place.display()
        ));
    }
    Ok(exit)
}

pub(super) fn retire(args: &RetireArgs, output: &mut Output) -> Result<Exit, CliError> {
    let mut file = ring::open(&args.ring)?;
    let version = match args.version {
        Some(number) => ring::version(number)?,
        None => {
            let current = file.current(&args.name);
            let current = current.map_err(|error| KeysError::source(&args.name, error))?;
            current.version()
        }
    };
    let done = file.retire(&args.name, version, &mut sys::rng(), sys::now_ms());
    done.map_err(|error| KeysError::ring(&args.ring.ring, error))?;
    show(&file, &args.name, version, output)
}

/// What a version is now.
pub(super) fn show(
    file: &RingFile,
    name: &KeyId,
    version: KeyVersion,
    output: &mut Output,
) -> Result<Exit, CliError> {
    let versions = file.ring().versions(name).unwrap_or_default();
    for info in versions.iter().filter(|info| info.version == version) {
        output.line(&Line::KeyVersion(VersionLine::of(name, info)))?;
    }
    Ok(Exit::Ok)
}
