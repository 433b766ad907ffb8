//! `sprag vault recipients`: who can open a blob, as it says itself.

use super::args::Input;
use super::blob::Blob;
use super::line::SlotLine;
use super::source::Source;
use crate::error::{CliError, Exit};
use crate::line::Line;
use crate::output::Output;

pub(super) fn run(args: &Input, output: &mut Output) -> Result<Exit, CliError> {
    let blob = Blob::read(Source::open(args.file.as_deref())?)?;
    for slot in SlotLine::all(&blob.header) {
        output.line(&Line::VaultSlot(slot))?;
    }
    Ok(Exit::Ok)
}
