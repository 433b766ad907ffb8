//! `sprag rolled-back`: a profile that was set back goes on, as the user decided.

use crate::args::RolledBackArgs;
use crate::error::{CliError, Exit};
use crate::output::Output;
use crate::profile::Profile;

use super::{backup, status, sync};

pub(super) fn run(
    profile: &Profile,
    args: &RolledBackArgs,
    output: &mut Output,
) -> Result<Exit, CliError> {
    if args.new_device || args.new_device_beside {
        return backup::restored(profile, output);
    }
    // New prekeys, in place of all at the server.
    let ran = profile.run_tasks(output)?;
    output.line(&status::profile_line(profile)?)?;
    profile.tell_waiting(output)?;
    Ok(sync::exit(ran.questions))
}
