//! `sprag vault rekey`: the same payload under another key.

use sprag_vault::{OpenReader, Sealing};

use super::VaultError;
use super::args::RekeyArgs;
use super::blob::Blob;
use super::keys::{self, Recipients};
use super::seal;
use super::source::Source;
use super::target::Plan;
use crate::error::{CliError, Exit};
use crate::output::Output;

pub(super) fn run(args: &RekeyArgs, output: &mut Output) -> Result<Exit, CliError> {
    let source = Source::open(args.input.file.as_deref())?;
    let plan = Plan::sealed(&args.out, &source)?;
    let context = keys::context(&args.with.context)?;
    let mut blob = Blob::read(source)?;
    let unlock = keys::unlock(&args.with, &blob.header)?;
    let recipients = Recipients::new(&args.recipient, &args.new_key, args.new_passphrase)?;
    let (key, list) = (recipients.data_key(), recipients.list());
    if blob.header.commits_to(&key) {
        return Err(VaultError::SameKey.into());
    }
    let sealing = Sealing::new(&key, &list)
        .suite(blob.header.suite())
        .chunk_size(blob.header.chunk_size());
    let sealing = seal::formed(sealing, &args.form)?.context(&context);
    blob.rest.show_progress(output);
    let (whole, name) = blob.whole();
    let mut target = plan.begin(output)?;
    let mut payload = OpenReader::new(whole, &unlock, &context);
    let done = seal::pass(&mut payload, &name, &sealing, &mut target);
    drop(payload);
    target.end(done, Vec::new())?;
    Ok(Exit::Ok)
}
