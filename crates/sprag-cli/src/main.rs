//! The `sprag` program: end-to-end encrypted chat for people, over any transport.
#![forbid(unsafe_code)]

mod args;
mod cmd;
mod error;
mod input;
mod key;
mod line;
mod output;
mod profile;
mod server;
mod shared;
mod sys;
mod when;

use std::process::ExitCode;

use clap::Parser;

use crate::args::Cli;
use crate::error::Exit;
use crate::output::Output;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(answer) => {
            // Help and version are answers, too. If nobody reads them, there is nothing left to say.
            let _ = answer.print();
            let exit = if answer.use_stderr() {
                Exit::Usage
            } else {
                Exit::Ok
            };
            return exit.into();
        }
    };
    let mut output = Output::new(cli.global.json);
    let ended = cmd::run(&cli, &mut output).and_then(|exit| output.flush().map(|()| exit));
    match ended {
        Ok(exit) => exit.into(),
        Err(error) => {
            output.error(&error);
            error.exit().into()
        }
    }
}

/// Tells something that no command waits for, without content.
fn note(text: &str) {
    Output::new(false).note(text);
}
