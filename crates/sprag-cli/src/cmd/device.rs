//! `sprag device`: the devices of one's own account.

use std::path::Path;

use sprag::OwnDeviceState;
use zeroize::Zeroizing;

use crate::args::{DeviceArgs, DeviceCommand};
use crate::error::{CliError, Exit};
use crate::input;
use crate::line::Line;
use crate::output::Output;
use crate::profile::Profile;

use super::safety_number::picture;

pub(super) fn run(
    profile: &Profile,
    args: &DeviceArgs,
    output: &mut Output,
) -> Result<Exit, CliError> {
    match &args.what {
        DeviceCommand::List => list(profile, output),
        DeviceCommand::Link => show(profile, output),
        DeviceCommand::Add { request, holder } => add(profile, request, *holder, output),
        DeviceCommand::Remove { number } => {
            profile.client.remove_device(*number)?;
            publish(profile, output)
        }
        DeviceCommand::Settle { hash } => settle(profile, hash.as_deref(), output),
    }
}

fn list(profile: &Profile, output: &mut Output) -> Result<Exit, CliError> {
    for one in profile.client.devices()? {
        output.line(&Line::Device {
            device: one.device,
            holder: one.holder,
            this: one.this,
            state: match one.state {
                OwnDeviceState::Listed => "listed",
                OwnDeviceState::Adding => "adding",
                OwnDeviceState::Linking => "linking",
                OwnDeviceState::Removing => "removing",
                _ => "other",
            },
        })?;
    }
    Ok(Exit::Ok)
}

/// Shows the code of a device that waits to be added, or says how far it is.
pub(super) fn show(profile: &Profile, output: &mut Output) -> Result<Exit, CliError> {
    if profile.has_number()? {
        output.note(if profile.client.is_linked()? {
            "this device is linked"
        } else {
            "this device is listed, and waits for the keys of the account: `sprag sync`"
        });
        return Ok(Exit::Ok);
    }
    let request = Zeroizing::new(profile.client.link_request()?);
    output.picture(&picture(request.as_bytes()))?;
    output.line(&Line::LinkRequest {
        user: profile.client.user()?,
        request: Some(request),
    })?;
    output.note(
        "within ten minutes, on a device of the account that may add others: `sprag device add`; then here: `sprag \
         sync`",
    );
    Ok(Exit::Ok)
}

fn add(
    profile: &Profile,
    request: &str,
    holder: bool,
    output: &mut Output,
) -> Result<Exit, CliError> {
    let request = match request {
        "-" => {
            let bytes = input::read(Path::new("-"))?;
            Zeroizing::new(String::from_utf8_lossy(&bytes).trim().to_owned())
        }
        given => Zeroizing::new(given.to_owned()),
    };
    profile.client.link_device(&request, holder)?;
    publish(profile, output)
}

/// Gives the server what changed, and shows the devices as they are then.
fn publish(profile: &Profile, output: &mut Output) -> Result<Exit, CliError> {
    let ran = profile.run_tasks(output)?;
    list(profile, output)?;
    profile.tell_waiting(output)?;
    Ok(super::sync::exit(ran.questions))
}

fn settle(profile: &Profile, chosen: Option<&str>, output: &mut Output) -> Result<Exit, CliError> {
    let fork = profile.client.own_fork()?;
    let fork = fork.ok_or_else(|| CliError::NotFound("other list of your devices".to_owned()))?;
    let sides = [
        (fork.ours, true, fork.our_devices),
        (fork.theirs, false, fork.their_devices),
    ];
    let Some(chosen) = chosen else {
        for (hash, ours, devices) in sides {
            output.line(&Line::ForkSide {
                hash: hex::encode(hash),
                ours,
                devices,
            })?;
        }
        return Ok(Exit::Ok);
    };
    let mut fitting = sides
        .iter()
        .map(|(hash, ..)| hash)
        .filter(|hash| hex::encode(hash).starts_with(chosen));
    match (fitting.next(), fitting.next(), chosen.len() >= 8) {
        (Some(hash), None, true) => profile.client.settle_fork(hash)?,
        _ => {
            return Err(CliError::Usage(
                "give at least 8 digits of the hash of one of the two lists".to_owned(),
            ));
        }
    }
    publish(profile, output)
}
