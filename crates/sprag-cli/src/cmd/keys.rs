//! `sprag keys`: key rings in files, and data that is under them (`docs/KEYS.md`, *The program*). No profile is needed.

pub(crate) mod args;
mod change;
mod destroy;
mod error;
mod file;
mod folder;
mod import;
mod job;
pub(crate) mod line;
mod list;
pub(super) mod places;
pub(super) mod ring;

pub(crate) use error::KeysError;

use self::args::{KeysArgs, KeysCommand};
use crate::error::{CliError, Exit};
use crate::output::Output;

pub(super) fn run(args: &KeysArgs, output: &mut Output) -> Result<Exit, CliError> {
    match &args.command {
        KeysCommand::Init(args) => change::init(args, output),
        KeysCommand::List(args) => list::run(args, output),
        KeysCommand::Create(args) => change::create(args, output),
        KeysCommand::Import(args) => import::run(args, output),
        KeysCommand::Rotate(args) => change::rotate(args, output),
        KeysCommand::Retire(args) => change::retire(args, output),
        KeysCommand::Destroy(args) => destroy::run(args, output),
        KeysCommand::Job(args) => job::run(&args.command, output),
    }
}
