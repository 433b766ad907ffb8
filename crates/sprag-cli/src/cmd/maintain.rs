//! `sprag maintain`: upkeep, once a day.

use sprag::UpkeepSettings;

use crate::args::MaintainArgs;
use crate::error::{CliError, Exit};
use crate::line::Line;
use crate::output::Output;
use crate::profile::Profile;

pub(super) fn run(
    profile: &Profile,
    args: &MaintainArgs,
    output: &mut Output,
) -> Result<Exit, CliError> {
    if let Some(shown) = args.confirm_time {
        profile.client.confirm_time(shown)?;
    }
    let mut settings = UpkeepSettings::default();
    settings.renew_commits = args.renew_after.unwrap_or(settings.renew_commits);
    let done = profile.client.maintain_with(settings)?;
    // What it left to the network.
    let ran = profile.run_tasks(output)?;
    output.line(&Line::Maintained {
        rotated: done.rotated,
        asked: done.asked,
        deleted: done.deleted,
        expired: done.expired,
        renewed: done.renewed,
        doubted_time: done.waits_for_confirmation.map(|doubt| doubt.now),
    })?;
    Ok(super::sync::exit(ran.questions))
}
