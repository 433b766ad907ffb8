//! `sprag health`: what was counted, and how full everything is.

use crate::error::{CliError, Exit};
use crate::line::Line;
use crate::output::Output;
use crate::profile::Profile;

pub(super) fn run(profile: &Profile, output: &mut Output) -> Result<Exit, CliError> {
    let health = profile.client.health()?;
    output.line(&Line::health(&health))?;
    Ok(Exit::Ok)
}
