//! `sprag vault seal`.

use std::io::Read;
use std::path::Path;

use sprag_vault::{ChunkSize, Sealer, Sealing, Suite};

use super::args::{Form, SealArgs, SuiteArg};
use super::keys::{self, Recipients};
use super::source::Source;
use super::target::{Plan, Target, copy, put};
use crate::cmd::keys::places;
use crate::error::{CliError, Exit};
use crate::output::Output;
use crate::sys;

pub(super) fn run(args: &SealArgs, output: &mut Output) -> Result<Exit, CliError> {
    let mut source = Source::open(args.input.file.as_deref())?;
    let plan = Plan::sealed(&args.out, &source)?;
    let context = keys::context(&args.context)?;
    let recipients = Recipients::of(&args.to)?;
    places::note(&args.to.ring, &args.out)?;
    let (key, list) = (recipients.data_key(), recipients.list());
    let sealing = formed(Sealing::new(&key, &list), &args.form)?.context(&context);
    source.show_progress(output);
    let name = source.name.clone();
    let mut target = plan.begin(output)?;
    let done = pass(&mut source, &name, &sealing, &mut target);
    drop(source);
    target.end(done, Vec::new())?;
    Ok(Exit::Ok)
}

/// Seals all that there is, in the memory of a chunk.
pub(super) fn pass(
    from: &mut impl Read,
    name: &Path,
    sealing: &Sealing<'_>,
    target: &mut Target<'_>,
) -> Result<(), CliError> {
    let mut sealer = Sealer::new(sealing, &mut sys::rng())?;
    copy(from, name, |mut bytes| {
        while let Some(piece) = sealer.push(&mut bytes)? {
            put(target, piece)?;
        }
        Ok(())
    })?;
    put(target, &sealer.finish()?)
}

/// With the suite and the chunks that are asked for.
pub(super) fn formed<'a>(mut sealing: Sealing<'a>, form: &Form) -> Result<Sealing<'a>, CliError> {
    if let Some(log2) = form.chunk_log2 {
        sealing = sealing.chunk_size(ChunkSize::from_log2(log2)?);
    }
    Ok(match form.suite {
        Some(SuiteArg::Aes256Gcm) => sealing.suite(Suite::Aes256Gcm),
        Some(SuiteArg::ChaCha20Poly1305) => sealing.suite(Suite::ChaCha20Poly1305),
        None => sealing,
    })
}
