//! `sprag reset`: all sessions with somebody are replaced.

use crate::args::UserArgs;
use crate::error::{CliError, Exit};
use crate::output::Output;
use crate::profile::Profile;

pub(super) fn run(
    profile: &Profile,
    args: &UserArgs,
    output: &mut Output,
) -> Result<Exit, CliError> {
    profile.client.reset(&args.user)?;
    let ran = profile.run_tasks(output)?;
    output.line(&super::status::profile_line(profile)?)?;
    profile.tell_waiting(output)?;
    Ok(super::sync::exit(ran.questions))
}
