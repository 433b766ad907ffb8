//! `sprag passphrase`: what the profile opens with from now on.

use crate::args::PassphraseArgs;
use crate::error::{CliError, Exit};
use crate::key;
use crate::line::Line;
use crate::output::Output;
use crate::profile::Profile;

pub(super) fn run(
    profile: &Profile,
    args: &PassphraseArgs,
    output: &mut Output,
) -> Result<Exit, CliError> {
    let key = key::next(args.new_key_file.as_deref())?;
    profile.client.change_key(key)?;
    output.line(&Line::Store {
        changed: "key",
        database: None,
    })?;
    Ok(Exit::Ok)
}
