//! The commands, one file for each.

mod accept;
mod backup;
mod bundle;
mod completions;
mod demo;
mod device;
mod diagnose;
mod doctor;
mod events;
mod health;
mod init;
pub(crate) mod keys;
mod maintain;
mod man;
mod mcp;
pub(crate) mod memory;
mod passphrase;
mod quiet;
mod receive;
mod report;
mod reset;
mod rolled_back;
mod safety_number;
mod send;
mod status;
mod store;
mod sync;
mod tasks;
pub(crate) mod vault;

use crate::args::{BackupCommand, Cli, Command};
use crate::error::{CliError, Exit};
use crate::output::Output;
use crate::profile::Profile;

/// Runs a command to its end: what it changed is on stable storage when this returns.
pub(crate) fn run(cli: &Cli, output: &mut Output) -> Result<Exit, CliError> {
    let profile = match &cli.command {
        Command::Demo(args) => return demo::run(args, output),
        Command::Diagnose(args) => return diagnose::run(args, output),
        Command::Backup(BackupCommand::Verify(args)) => return backup::verify(args, output),
        Command::Backup(BackupCommand::Restore(args)) => {
            backup::restore(&cli.global, args, output)?
        }
        Command::Completions(args) => return completions::run(args, output),
        Command::Man => return man::run(output),
        Command::Vault(args) => return vault::run(args, output),
        Command::Keys(args) => return keys::run(args, output),
        Command::Memory(args) => return memory::run(&cli.global, args, output),
        Command::Mcp(args) => return mcp::run(&cli.global, args),
        Command::Store(args) => return store::run(&cli.global, args, output),
        Command::RolledBack(args) => Profile::open_set_back(&cli.global, args.decision())?,
        Command::Init(args) if args.link => Profile::open_or_link(&cli.global, &args.user)?,
        Command::Init(args) => Profile::open_or_create(&cli.global, args)?,
        Command::Doctor(args) => return doctor::run(&cli.global, args, output),
        _ => Profile::open(&cli.global)?,
    };
    let ended = match &cli.command {
        Command::Init(_) => init::run(&profile, output),
        Command::Device(args) => device::run(&profile, args, output),
        Command::Send(args) => send::run(&profile, args, output),
        Command::Receive(args) => receive::run(&profile, args, output),
        Command::Sync => sync::run(&profile, output),
        Command::Tasks(args) => tasks::run(&profile, args, output),
        Command::Bundle(args) => bundle::run(&profile, args, output),
        Command::SafetyNumber(args) => safety_number::run(&profile, args, output),
        Command::Accept(args) => accept::run(&profile, args, output),
        Command::Status(args) => status::run(&profile, args, output),
        Command::Events(args) => events::run(&profile, args, output),
        Command::Health => health::run(&profile, output),
        Command::Reset(args) => reset::run(&profile, args, output),
        Command::Quiet(args) => quiet::run(&profile, args, output),
        Command::Maintain(args) => maintain::run(&profile, args, output),
        Command::Report(args) => report::run(&profile, args, output),
        Command::Backup(BackupCommand::Create(args)) => backup::create(&profile, args, output),
        Command::Backup(_) => backup::restored(&profile, output),
        Command::Passphrase(args) => passphrase::run(&profile, args, output),
        Command::RolledBack(args) => rolled_back::run(&profile, args, output),
        Command::Store(_)
        | Command::Vault(_)
        | Command::Keys(_)
        | Command::Memory(_)
        | Command::Mcp(_)
        | Command::Demo(_)
        | Command::Doctor(_)
        | Command::Diagnose(_)
        | Command::Completions(_)
        | Command::Man => Ok(Exit::Ok),
    };
    // Writes what is lazy, acknowledgements among it.
    let closed = profile.client.close();
    let exit = ended?;
    closed?;
    Ok(exit)
}
