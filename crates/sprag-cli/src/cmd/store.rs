//! `sprag store`: the database that a profile is in.

use sprag::store::{BackendKind, Store};

use crate::args::{Global, StoreArgs, StoreCommand};
use crate::error::{CliError, Exit};
use crate::line::Line;
use crate::output::Output;
use crate::{key, profile, sys};

pub(super) fn run(
    global: &Global,
    args: &StoreArgs,
    output: &mut Output,
) -> Result<Exit, CliError> {
    let StoreCommand::Migrate { to } = args.command;
    let store = profile::existing(global)?;
    let to = BackendKind::from(to);
    Store::migrate(store, &key::existing(global)?, to, sys::rng()).map_err(sprag::Error::from)?;
    output.line(&Line::Store {
        changed: "database",
        database: Some(to.name()),
    })?;
    Ok(Exit::Ok)
}
