//! `sprag vault`: sealed files and pipes (`docs/VAULT.md`, *The program*). No profile is needed.

pub(crate) mod args;
pub(crate) mod aside;
pub(super) mod blob;
mod error;
mod import;
mod inspect;
mod keygen;
pub(super) mod keys;
pub(crate) mod line;
mod open;
mod recipients;
mod rekey;
mod reseal;
mod seal;
pub(super) mod source;
mod target;
mod text;

pub(crate) use error::VaultError;

use self::args::{VaultArgs, VaultCommand};
use crate::error::{CliError, Exit};
use crate::output::Output;

pub(super) fn run(args: &VaultArgs, output: &mut Output) -> Result<Exit, CliError> {
    match &args.command {
        VaultCommand::Keygen(args) => keygen::run(args, output),
        VaultCommand::Seal(args) => seal::run(args, output),
        VaultCommand::Open(args) => open::run(args, output),
        VaultCommand::Inspect(args) => inspect::run(args, output),
        VaultCommand::Recipients(args) => recipients::run(args, output),
        VaultCommand::Reseal(args) => reseal::run(args, output),
        VaultCommand::Rekey(args) => rekey::run(args, output),
        VaultCommand::Import(args) => import::run(args, output),
    }
}
