//! `sprag sync`: to and fro with the server, once.

use crate::error::{CliError, Exit};
use crate::line::Line;
use crate::output::Output;
use crate::profile::Profile;

pub(super) fn run(profile: &Profile, output: &mut Output) -> Result<Exit, CliError> {
    if profile.server().is_none() {
        return Err(CliError::Usage(
            "there is no server to sync with: give --server".to_owned(),
        ));
    }
    let (ran, fetched) = profile.exchange(output)?;
    output.line(&Line::Synced {
        tasks_done: ran.done,
        tasks_waiting: profile.client.tasks()?.len(),
        envelopes: fetched.envelopes,
        refused: fetched.refused,
        inbox: if profile.has_number()? {
            profile.client.inbox()?.len()
        } else {
            0
        },
    })?;
    Ok(exit(ran.questions + fetched.questions))
}

/// How an exchange ends that left so many questions to the user.
pub(super) fn exit(questions: usize) -> Exit {
    if questions > 0 {
        Exit::Refused
    } else {
        Exit::Ok
    }
}
