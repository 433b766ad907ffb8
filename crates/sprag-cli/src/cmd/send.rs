//! `sprag send`: a message to all devices of a user.

use std::io::IsTerminal;
use std::path::Path;

use sprag::CopyStatus;
use zeroize::Zeroizing;

use crate::args::SendArgs;
use crate::error::{CliError, Exit};
use crate::input;
use crate::line::{Line, copies};
use crate::output::Output;
use crate::profile::Profile;

pub(super) fn run(
    profile: &Profile,
    args: &SendArgs,
    output: &mut Output,
) -> Result<Exit, CliError> {
    let text = match args.text.as_deref() {
        None | Some("-") => {
            if std::io::stdin().is_terminal() {
                output.note("write the message, and end it with Ctrl-D on a line of its own");
            }
            input::read(Path::new("-"))?
        }
        Some(text) => Zeroizing::new(text.as_bytes().to_vec()),
    };
    let client = &profile.client;
    let id = client.send_encrypted_message(&args.user, &text)?;
    let ran = profile.run_tasks(output)?;
    let status = client.status(id)?.unwrap_or_default();
    let nobody = !status.is_empty()
        && status.iter().all(|copy| {
            matches!(
                copy.status,
                CopyStatus::NoSuchUser | CopyStatus::NoSuchDevice
            )
        });
    output.line(&Line::Sent {
        id: id.to_string(),
        user: args.user.clone(),
        copies: copies(status),
    })?;
    if client
        .contact(&args.user)?
        .is_some_and(|contact| contact.changed)
    {
        return Err(CliError::Refused(format!(
            "{0} has another identity; nothing goes to him until you decide: compare safety numbers, \
             then `sprag accept {0}` or not",
            args.user
        )));
    }
    if nobody {
        return Err(CliError::NotFound(format!(
            "user {} on the server; the message was not sent",
            args.user
        )));
    }
    profile.tell_waiting(output)?;
    Ok(super::sync::exit(ran.questions))
}
