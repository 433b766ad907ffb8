//! `sprag events`: what happened that nobody asked for.

use crate::args::EventsArgs;
use crate::error::{CliError, Exit};
use crate::line::Line;
use crate::output::Output;
use crate::profile::Profile;

pub(super) fn run(
    profile: &Profile,
    args: &EventsArgs,
    output: &mut Output,
) -> Result<Exit, CliError> {
    for event in profile.client.events(args.since)? {
        output.line(&Line::event(event.number, &event.event))?;
    }
    Ok(Exit::Ok)
}
