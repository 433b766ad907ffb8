//! `sprag doctor`: examines the profile, explains, and mends what can be mended if it is told to.

use sprag::Client;

use crate::args::{DoctorArgs, Global};
use crate::error::{CliError, Exit};
use crate::key;
use crate::line::Line;
use crate::output::Output;
use crate::profile;

pub(super) fn run(
    global: &Global,
    args: &DoctorArgs,
    output: &mut Output,
) -> Result<Exit, CliError> {
    let store = profile::existing_store(global)?;
    let checkup = Client::doctor(&store, key::existing(global)?)?;
    for line in Line::checkup(&checkup) {
        output.line(&line)?;
    }
    let exit = |damaged| if damaged { Exit::Damaged } else { Exit::Ok };
    if !args.repair || checkup.remedies.is_empty() {
        if args.repair {
            output.note("there is nothing that could be repaired; nothing was touched");
        }
        return Ok(exit(checkup.is_damaged()));
    }
    if !args.yes {
        output.note(
            "nothing was touched; to repair it so, after copying the profile aside, add --yes",
        );
        return Ok(Exit::Refused);
    }
    let Some(repaired) = Client::repair(&store, key::existing(global)?)? else {
        return Err(CliError::Refused(
            "the profile has changed meanwhile".to_owned(),
        ));
    };
    output.line(&Line::repaired(&repaired))?;
    for line in Line::checkup(&repaired.after) {
        output.line(&line)?;
    }
    Ok(exit(repaired.after.is_damaged()))
}
