//! Attachments under way: their sealed parts are held in rows, and go to the server when all of them are there.

use std::ops::ControlFlow;

use sprag_crypto::sha256;
use sprag_store::{Rows, Staged, StoreError};

use crate::codec::{Reader, Writer};
use crate::error::{ProtocolError, StepError};
use crate::memory::blobs::{self, Use, Work};
use crate::own::{Device, Env};
use crate::tables;

const VERSION: u8 = 1;

/// Names an attachment while it is being made, in this process only.
pub type Making = [u8; 16];

impl Device {
    /// Begins an attachment. Parts of those that another process left unfinished are given up: nobody can finish them.
    ///
    /// # Errors
    /// What the store answers.
    pub fn attachment_begin(
        &mut self,
        rows: &mut Staged<'_>,
        env: &mut Env<'_>,
    ) -> Result<Making, StepError> {
        self.attachments_sweep(rows)?;
        let mut making = [0; 16];
        env.rng().fill_bytes(&mut making);
        self.making.insert(making);
        Ok(making)
    }

    /// Holds the next part of an attachment, until it is [ended](Self::attachment_end) or
    /// [given up](Self::attachment_give_up). The name is the SHA-256 of the bytes.
    ///
    /// # Errors
    /// `BadInput`: it was not begun since the store was opened. What the store answers.
    pub fn attachment_part(
        &self,
        rows: &mut Staged<'_>,
        making: &Making,
        number: u32,
        bytes: &[u8],
    ) -> Result<[u8; 32], StepError> {
        if !self.making.contains(making) {
            return Err(ProtocolError::BadInput.into());
        }
        let name = sha256(&[bytes]);
        blobs::hold(rows, &name, Use::Loose, bytes)?;
        let mut writer = Writer::new(VERSION, 33);
        writer.fixed(&name);
        let suffix = [&making[..], &number.to_be_bytes()].concat();
        rows.put(tables::attachment_part(suffix), writer.finish());
        Ok(name)
    }

    /// All parts are there: they go to the server, and are held until it has them.
    ///
    /// # Errors
    /// `BadInput`: it was not begun since the store was opened. What the store answers.
    pub fn attachment_end(
        &mut self,
        rows: &mut Staged<'_>,
        making: &Making,
    ) -> Result<(), StepError> {
        if !self.making.contains(making) {
            return Err(ProtocolError::BadInput.into());
        }
        for (suffix, name) in parts(rows, making)? {
            blobs::want(rows, Work::Put, &name, Use::Loose)?;
            rows.delete(tables::attachment_part(suffix));
        }
        self.making.remove(making);
        Ok(())
    }

    /// It will not be finished: what is held of it goes.
    ///
    /// # Errors
    /// What the store answers.
    pub fn attachment_give_up(
        &mut self,
        rows: &mut Staged<'_>,
        making: &Making,
    ) -> Result<(), StepError> {
        self.making.remove(making);
        release(rows, parts(rows, making)?)
    }

    /// Gives up what a process left unfinished that is no more.
    pub(crate) fn attachments_sweep(&self, rows: &mut Staged<'_>) -> Result<(), StepError> {
        let mut left = parts(rows, &[])?;
        left.retain(|(suffix, _)| {
            let making = suffix.first_chunk::<16>();
            making.is_none_or(|making| !self.making.contains(making))
        });
        release(rows, left)
    }
}

/// What ends the name of a row, and the name of the part.
type Parts = Vec<(Vec<u8>, [u8; 32])>;

/// The parts of attachments that begin with `prefix`.
fn parts(rows: &dyn Rows, prefix: &[u8]) -> Result<Parts, StoreError> {
    let mut found = Vec::new();
    let mut damaged = None;
    rows.scan(
        &tables::all(tables::ATTACHMENT_PARTS),
        &mut |suffix, value| {
            if !suffix.starts_with(prefix) {
                return ControlFlow::Continue(());
            }
            match read(value) {
                Ok(name) => found.push((suffix.to_vec(), name)),
                Err(error) => damaged = Some(error),
            }
            ControlFlow::Continue(())
        },
    )?;
    damaged.map_or(Ok(found), Err)
}

fn read(value: &[u8]) -> Result<[u8; 32], StoreError> {
    let mut reader = Reader::new(value, VERSION, "part of an attachment")?;
    let name = reader.array()?;
    reader.finish()?;
    Ok(name)
}

fn release(rows: &mut Staged<'_>, parts: Parts) -> Result<(), StepError> {
    for (suffix, name) in parts {
        blobs::release(rows, &name)?;
        rows.delete(tables::attachment_part(suffix));
    }
    Ok(())
}
