//! What is left behind: blobs that no record needs, and writes that lost.

use std::collections::HashSet;

use super::Memory;
use super::Provenance;
use super::backend::{BackendError, MemoryBackend, blob_name, is_blob_name};
use super::fault::Fault;
use super::steps::{self, Opening};
use super::store::EncryptedMemoryStore;
use crate::Error;
use crate::client::Write;
use crate::pending::Pending;

/// The least grace of a sweep, in milliseconds: a day.
pub const LEAST_GRACE: u64 = 24 * 3_600 * 1_000;

/// A write that lost against another one of the same revision, from a device that did not know of it.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct LostWrite {
    /// The id of the record.
    pub id: String,
    /// Who wrote it, and when.
    pub provenance: Provenance,
    /// What was written; `None` if its blob cannot be read (any more).
    pub memory: Option<Memory>,
}

impl EncryptedMemoryStore {
    /// Removes from the backend what no log of the account names.
    pub(super) fn clean(&self, grace: u64, has_server: bool) -> Result<Pending<u64>, Error> {
        if grace < LEAST_GRACE {
            return Err(Error::bad_input());
        }
        let shared = &self.client.shared;
        let Some(backend) = self.backend.clone() else {
            return Ok(Pending::ready(shared.notifier.clone(), Ok(0)));
        };
        let (ticket, (kept, as_of)) = shared.submit(Write::Durable, |step| {
            let as_of = match has_server {
                true => step.device.memory_known_as_of(step.rows)?,
                false => Some(step.env.now()),
            };
            let as_of = as_of.ok_or(Fault::Behind)?;
            Ok((steps::names_kept(step.device, step.rows)?, as_of))
        })?;
        let kept: HashSet<String> = kept.iter().map(blob_name).collect();
        let before = as_of.saturating_sub(grace);
        // Durable before anything is removed for its sake: a write that is lost would need the blob before it again.
        let pending = shared.when(ticket, ());
        Ok(self.then(pending, move |_, ()| {
            Ok(sweep(&*backend, &kept, before).map_err(Fault::from)?)
        }))
    }

    pub(super) fn lost(&self) -> Result<Pending<Vec<LostWrite>>, Error> {
        let shared = &self.client.shared;
        let space = &self.memories;
        let (ticket, lost) = shared.submit(Write::Durable, |step| {
            let mut lost = Vec::new();
            for write in step.device.memory_lost(step.rows, space)? {
                let opening = Opening::of(write.id, &write.entry)?;
                let held = match opening.at_server {
                    true => step.device.memory_blob(step.rows, &opening.name)?,
                    false => None,
                };
                lost.push((opening, held));
            }
            Ok(lost)
        })?;
        let lost = lost.into_iter().map(|(opening, held)| {
            let blob = self.blob(&opening, held);
            let plaintext = blob.and_then(|blob| opening.open(space, &blob, false));
            let memory = plaintext.and_then(|plaintext| opening.memory(&plaintext));
            LostWrite {
                id: String::from_utf8_lossy(opening.id.as_bytes()).into_owned(),
                provenance: opening.provenance,
                memory: memory.ok(),
            }
        });
        Ok(shared.when(ticket, lost.collect()))
    }

    pub(super) fn forget_lost_writes(&self, id: &str) -> Result<Pending<()>, Error> {
        let id = steps::record_id(id)?;
        Ok(self.client.shared.step(Write::Durable, |step| {
            step.device
                .memory_forget_lost(step.rows, &self.memories, &id)?;
            Ok(())
        }))
    }
}

/// Removes what is not kept and was put there before a time. Says how many there were.
fn sweep(
    backend: &dyn MemoryBackend,
    kept: &HashSet<String>,
    before: u64,
) -> Result<u64, BackendError> {
    let (mut count, mut after) = (0, None::<String>);
    loop {
        let page = backend.list(after.as_deref())?;
        let Some(last) = page.last() else {
            return Ok(count);
        };
        if after.as_ref().is_some_and(|after| last.name <= *after) {
            // It goes round in circles.
            return Err(BackendError::Refused(None));
        }
        after = Some(last.name.clone());
        for blob in page {
            let is_old = blob.put_at.is_some_and(|put_at| put_at < before);
            if is_old && is_blob_name(&blob.name) && !kept.contains(&blob.name) {
                backend.delete(&blob.name)?;
                count += 1;
            }
        }
    }
}
