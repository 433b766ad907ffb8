//! `sprag quiet`: whether contacts who ask in vain hear anything.

use crate::args::{QuietArgs, Switch};
use crate::error::{CliError, Exit};
use crate::line::Line;
use crate::output::Output;
use crate::profile::Profile;

pub(super) fn run(
    profile: &Profile,
    args: &QuietArgs,
    output: &mut Output,
) -> Result<Exit, CliError> {
    if let Some(switch) = args.switch {
        profile.client.set_quiet(matches!(switch, Switch::On))?;
    }
    output.line(&Line::Quiet {
        quiet: profile.client.is_quiet()?,
    })?;
    Ok(Exit::Ok)
}
