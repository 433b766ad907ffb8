//! `sprag man`: the manual page, made at run time from what the program really takes: this page, then one section for each
//! command.

use clap::CommandFactory;
use clap_mangen::Man;

use crate::args::Cli;
use crate::error::{CliError, Exit};
use crate::output::Output;

pub(super) fn run(output: &mut Output) -> Result<Exit, CliError> {
    let mut program = Cli::command();
    program.build();
    let mut page = Vec::new();
    Man::new(program.clone())
        .render(&mut page)
        .map_err(CliError::output)?;
    for command in program.get_subcommands() {
        if command.get_name() == "help" {
            continue;
        }
        let command = command
            .clone()
            .display_name(format!("sprag {}", command.get_name()));
        let man = Man::new(command);
        man.render_name_section(&mut page)
            .and_then(|()| man.render_synopsis_section(&mut page))
            .and_then(|()| man.render_options_section(&mut page))
            .map_err(CliError::output)?;
    }
    output.raw(&page)?;
    Ok(Exit::Ok)
}
