//! `sprag rolled-back`: a profile that was set back goes on, as the user decided.

use crate::error::{CliError, Exit};
use crate::output::Output;
use crate::profile::Profile;

use super::{status, sync};

pub(super) fn run(profile: &Profile, output: &mut Output) -> Result<Exit, CliError> {
    // New prekeys, in place of all at the server.
    let ran = profile.run_tasks(output)?;
    output.line(&status::profile_line(profile)?)?;
    profile.tell_waiting(output)?;
    Ok(sync::exit(ran.questions))
}
