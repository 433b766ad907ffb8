//! `sprag init`: a new profile, published at once if there is a server. Twice is once.

use crate::error::{CliError, Exit};
use crate::output::Output;
use crate::profile::Profile;

use super::status;

pub(super) fn run(profile: &Profile, output: &mut Output) -> Result<Exit, CliError> {
    profile.run_tasks(output)?;
    output.line(&status::profile_line(profile)?)?;
    profile.tell_waiting(output)?;
    Ok(Exit::Ok)
}
