//! `sprag vault reseal`: other recipients over the same payload, which is copied as it is.

use std::collections::BTreeSet;

use sprag_vault::{Header, Slot, SlotKind, reseal_header};

use super::VaultError;
use super::args::ResealArgs;
use super::blob::Blob;
use super::keys::{self, Recipients};
use super::source::Source;
use super::target::{Plan, copy, put};
use crate::error::{CliError, Exit};
use crate::output::Output;
use crate::sys;

pub(super) fn run(args: &ResealArgs, output: &mut Output) -> Result<Exit, CliError> {
    let adds = !args.add.is_empty() || !args.add_key.is_empty() || args.add_passphrase;
    if !adds && args.remove.is_empty() && args.remove_id.is_empty() {
        return Err(CliError::Usage("give --add or --remove".to_owned()));
    }
    let source = Source::open(args.input.file.as_deref())?;
    let plan = Plan::sealed(&args.out, &source)?;
    let context = keys::context(&args.with.context)?;
    let mut blob = Blob::read(source)?;
    let removed = removed(args, &blob.header)?;
    let unlock = keys::unlock(&args.with, &blob.header)?;
    let added = if adds {
        Some(Recipients::new(
            &args.add,
            &args.add_key,
            args.add_passphrase,
        )?)
    } else {
        None
    };
    let is_direct = |slot: &Slot| slot.kind() == SlotKind::Direct;
    let symmetric = blob.header.slots().iter().any(is_direct);
    if let Some(added) = &added
        && (symmetric || added.is_symmetric())
    {
        return Err(VaultError::SymmetricAmongOthers.into());
    }
    let list = added.as_ref().map(Recipients::list).unwrap_or_default();
    let mut number = 0;
    let keep = |_: &Slot| {
        number += 1;
        !removed.contains(&number)
    };
    let header = reseal_header(
        &blob.header,
        &unlock,
        &context,
        keep,
        &list,
        &mut sys::rng(),
    )?;
    blob.rest.show_progress(output);
    let name = blob.name().to_path_buf();
    let mut target = plan.begin(output)?;
    let mut done = put(&mut target, &header.encode());
    if done.is_ok() {
        done = copy(&mut blob.rest, &name, |bytes| put(&mut target, bytes));
    }
    drop(blob);
    target.end(done, Vec::new())?;
    if !removed.is_empty() {
        output.note(
            "whoever was removed still opens what he has, and this payload with it: `rekey` shuts him out of copies to come",
        );
    }
    Ok(Exit::Ok)
}

/// The numbers of those who go, from 1.
fn removed(args: &ResealArgs, header: &Header) -> Result<BTreeSet<usize>, CliError> {
    let mut removed = BTreeSet::new();
    for number in &args.remove {
        if !(1..=header.slots().len()).contains(number) {
            return Err(CliError::NotFound(format!("recipient {number}")));
        }
        removed.insert(*number);
    }
    for id in &args.remove_id {
        let numbered = (1..).zip(header.slots());
        let of_id = numbered.filter(|(_, slot)| slot.id() == id.as_bytes());
        let found: Vec<usize> = of_id.map(|(number, _)| number).collect();
        if found.is_empty() {
            return Err(CliError::NotFound("recipient of this id".to_owned()));
        }
        removed.extend(found);
    }
    Ok(removed)
}
