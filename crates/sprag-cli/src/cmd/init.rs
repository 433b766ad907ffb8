//! `sprag init`: a new profile, published at once if there is a server. Twice is once.

use crate::error::{CliError, Exit};
use crate::output::Output;
use crate::profile::Profile;

use super::status;

pub(super) fn run(profile: &Profile, output: &mut Output) -> Result<Exit, CliError> {
    let ran = profile.run_tasks(output)?;
    if !profile.client.is_linked()? {
        return super::device::show(profile, output);
    }
    output.line(&status::profile_line(profile)?)?;
    profile.tell_waiting(output)?;
    if ran.questions > 0 {
        return Err(CliError::Refused(
            "the server did not take our keys; perhaps somebody has this name there".to_owned(),
        ));
    }
    Ok(Exit::Ok)
}
