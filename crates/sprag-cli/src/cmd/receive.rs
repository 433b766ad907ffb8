//! `sprag receive`: takes envelopes from files, pipes or the server, and prints messages.

use std::path::Path;

use sprag::Transport;

use crate::args::ReceiveArgs;
use crate::error::{CliError, Exit};
use crate::input;
use crate::line::Line;
use crate::output::Output;
use crate::profile::Profile;

pub(super) fn run(
    profile: &Profile,
    args: &ReceiveArgs,
    output: &mut Output,
) -> Result<Exit, CliError> {
    if args.files.is_empty() && profile.server().is_none() {
        output.note("there is nothing to take envelopes from: give files, `-`, or --server");
    }
    let mut unfit = 0;
    for file in &args.files {
        unfit += take(profile, file, args.raw, output)?;
    }
    let (ran, fetched) = profile.exchange(output)?;
    print_inbox(profile, args.raw, output)?;
    profile.tell_waiting(output)?;
    Ok(super::sync::exit(unfit + ran.questions + fetched.questions))
}

/// Takes the envelopes of a file; says how many were refused.
fn take(profile: &Profile, file: &Path, raw: bool, output: &mut Output) -> Result<usize, CliError> {
    let mut refused = 0;
    for envelope in input::envelopes(&input::read(file)?) {
        let received = profile.client.receive_encrypted_message(&envelope)?;
        let source = file.display().to_string();
        let kept = received.transport() == Transport::Keep;
        match received.refused() {
            Some(refusal) => {
                refused += 1;
                if raw {
                    output.note(&format!("refused: {source} ({})", refusal.code()));
                } else {
                    output.line(&Line::refused(source, refusal, kept))?;
                }
            }
            None if kept => output.note(&format!(
                "{source}: the inbox is full; receive it again later"
            )),
            None => {}
        }
    }
    Ok(refused)
}

/// Prints what waits in the inbox. A message is acknowledged once it has left this program.
fn print_inbox(profile: &Profile, raw: bool, output: &mut Output) -> Result<(), CliError> {
    loop {
        let messages = profile.client.inbox()?;
        if messages.is_empty() {
            return Ok(());
        }
        for message in &messages {
            if raw {
                output.raw(message.bytes())?;
            } else {
                output.line(&Line::message(message))?;
            }
        }
        output.flush()?;
        for message in &messages {
            profile.client.acknowledge(message.id())?;
        }
    }
}
