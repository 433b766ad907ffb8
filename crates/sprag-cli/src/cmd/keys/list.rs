//! `sprag keys list`.

use super::args::ListArgs;
use super::line::VersionLine;
use super::{KeysError, ring};
use crate::error::{CliError, Exit};
use crate::line::Line;
use crate::output::Output;

pub(super) fn run(args: &ListArgs, output: &mut Output) -> Result<Exit, CliError> {
    let file = ring::open(&args.ring)?;
    let keys = file.ring();
    let names: Vec<_> = match &args.name {
        Some(name) => vec![name.clone()],
        None => keys.ids().cloned().collect(),
    };
    for name in names {
        let versions = keys.versions(&name);
        let versions = versions.map_err(|error| KeysError::ring(&args.ring.ring, error.into()))?;
        for version in versions {
            output.line(&Line::KeyVersion(VersionLine::of(&name, &version)))?;
        }
    }
    Ok(Exit::Ok)
}
