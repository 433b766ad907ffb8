//! `sprag accept`: the user goes on with somebody.

use crate::args::UserArgs;
use crate::error::{CliError, Exit};
use crate::line::Line;
use crate::output::Output;
use crate::profile::Profile;

pub(super) fn run(
    profile: &Profile,
    args: &UserArgs,
    output: &mut Output,
) -> Result<Exit, CliError> {
    profile.client.accept(&args.user)?;
    let ran = profile.run_tasks(output)?;
    if let Some(contact) = profile.client.contact(&args.user)? {
        output.line(&Line::Contact {
            user: contact.user,
            accepted: contact.accepted,
            changed: contact.changed,
            devices: contact.devices,
        })?;
    }
    profile.tell_waiting(output)?;
    Ok(super::sync::exit(ran.questions))
}
