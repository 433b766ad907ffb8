//! `sprag diagnose A B`: where and why two devices diverged. No profile is needed.

use std::path::Path;

use sprag::Report;

use crate::args::DiagnoseArgs;
use crate::error::{CliError, Exit};
use crate::input;
use crate::line::Line;
use crate::output::Output;

pub(super) fn run(args: &DiagnoseArgs, output: &mut Output) -> Result<Exit, CliError> {
    let (a, b) = (read(&args.a)?, read(&args.b)?);
    let diagnosis = a.diagnose(&b);
    output.line(&Line::diagnosis(&diagnosis))?;
    Ok(if diagnosis.findings.is_empty() {
        Exit::Ok
    } else {
        Exit::Refused
    })
}

fn read(path: &Path) -> Result<Report, CliError> {
    let bytes = input::read(path)?;
    Report::parse(&bytes).map_err(|error| CliError::Usage(format!("{}: {error}", path.display())))
}
