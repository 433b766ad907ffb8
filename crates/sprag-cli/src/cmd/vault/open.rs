//! `sprag vault open`.

use sprag_vault::OpenReader;

use super::args::OpenArgs;
use super::blob::Blob;
use super::keys;
use super::source::Source;
use super::target::{Plan, copy, put};
use crate::error::{CliError, Exit};
use crate::output::Output;

pub(super) fn run(args: &OpenArgs, output: &mut Output) -> Result<Exit, CliError> {
    let source = Source::open(args.input.file.as_deref())?;
    let plan = Plan::opened(&args.out, &source)?;
    let context = keys::context(&args.with.context)?;
    let mut blob = Blob::read(source)?;
    let unlock = keys::unlock(&args.with, &blob.header)?;
    blob.rest.show_progress(output);
    let (whole, name) = blob.whole();
    let mut target = plan.begin(output)?;
    let mut payload = OpenReader::new(whole, &unlock, &context);
    let done = copy(&mut payload, &name, |text| put(&mut target, text));
    drop(payload);
    target.end(done, Vec::new())?;
    Ok(Exit::Ok)
}
