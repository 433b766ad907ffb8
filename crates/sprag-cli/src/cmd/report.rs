//! `sprag report --out FILE`: the last protocol events of this device, for `sprag diagnose`.

use std::fs;

use crate::args::OutArgs;
use crate::error::{CliError, Exit};
use crate::line::Line;
use crate::output::Output;
use crate::profile::Profile;

pub(super) fn run(
    profile: &Profile,
    args: &OutArgs,
    output: &mut Output,
) -> Result<Exit, CliError> {
    let report = profile.client.report()?;
    fs::write(&args.out, report.encode()).map_err(|cause| CliError::file(&args.out, cause))?;
    output.line(&Line::Report {
        file: args.out.display().to_string(),
        events: report.events.len(),
    })?;
    Ok(Exit::Ok)
}
