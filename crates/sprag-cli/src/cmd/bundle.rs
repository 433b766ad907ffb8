//! `sprag bundle`: prekeys of ours for one person, by other ways than a server.
//!
//! It is a `BundleReply`: what a server answers to the `fetch-bundles` task of whoever writes to us first. It comes from the
//! server, or else from one of our own in the home folder, so that each call hands out another one-time prekey.

use std::fs;

use crate::args::BundleArgs;
use crate::error::{CliError, Exit};
use crate::line::Line;
use crate::output::Output;
use crate::profile::Profile;

pub(super) fn run(
    profile: &Profile,
    args: &BundleArgs,
    output: &mut Output,
) -> Result<Exit, CliError> {
    let client = &profile.client;
    let address = client.address()?;
    let reply = match profile.server() {
        Some(server) => {
            server.run_tasks(client, output)?;
            server.bundles_of(&address)?
        }
        None => {
            let server = profile.own_server()?;
            server.publish(client, output)?;
            server.bundles_of(&address)?
        }
    };
    fs::write(&args.out, &reply).map_err(|cause| CliError::file(&args.out, cause))?;
    output.line(&Line::Bundle {
        user: client.user()?,
        file: args.out.display().to_string(),
        bytes: reply.len(),
    })?;
    Ok(Exit::Ok)
}
