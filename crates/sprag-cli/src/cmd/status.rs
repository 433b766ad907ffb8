//! `sprag status`: this profile, or what became of a message.

use sprag::MessageId;

use crate::args::StatusArgs;
use crate::error::{CliError, Exit};
use crate::line::{Line, copies};
use crate::output::Output;
use crate::profile::Profile;

pub(super) fn run(
    profile: &Profile,
    args: &StatusArgs,
    output: &mut Output,
) -> Result<Exit, CliError> {
    let Some(message) = &args.message else {
        output.line(&profile_line(profile)?)?;
        return Ok(Exit::Ok);
    };
    let id: MessageId = message
        .parse()
        .map_err(|_| CliError::Usage("a message id has 32 hexadecimal digits".to_owned()))?;
    let status = profile.client.status(id)?;
    let status = status.ok_or_else(|| CliError::NotFound(format!("message {id}")))?;
    output.line(&Line::Status {
        id: id.to_string(),
        copies: copies(status),
    })?;
    Ok(Exit::Ok)
}

pub(super) fn profile_line(profile: &Profile) -> Result<Line, CliError> {
    let client = &profile.client;
    Ok(Line::Profile {
        user: client.user()?,
        device: client.device()?,
        tasks: client.tasks()?.len(),
        inbox: client.inbox()?.len(),
    })
}
