//! `sprag completions SHELL`: made at run time from what the program really takes.

use clap::CommandFactory;

use crate::args::{Cli, CompletionsArgs};
use crate::error::{CliError, Exit};
use crate::output::Output;

pub(super) fn run(args: &CompletionsArgs, output: &mut Output) -> Result<Exit, CliError> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "sprag", &mut script);
    output.raw(&script)?;
    Ok(Exit::Ok)
}
