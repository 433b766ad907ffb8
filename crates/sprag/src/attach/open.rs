//! Opening an attachment: its parts are asked for, and read when all of them are here.

use std::io::Write as Output;

use sprag_session::Device;
use sprag_session::memory::BlobState;
use sprag_store::Staged;
use sprag_vault::{Opener, Unlock};

use super::descriptor::{Attachment, PART, padded};
use crate::Error;
use crate::client::{Client, Write};

/// What became of a call that opens an attachment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum OpenedAttachment {
    /// All of it was written.
    Written,
    /// Parts are not here, and the server was asked for them: do the tasks, then call again.
    Waiting(AttachmentParts),
    /// The server does not have [`missing`](AttachmentParts::missing) of the parts; perhaps not yet. It is asked again, for
    /// a later call.
    Missing(AttachmentParts),
}

/// Where the parts of an attachment are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct AttachmentParts {
    /// How many there are.
    pub all: u32,
    /// Those that are kept here.
    pub here: u32,
    /// Those of [`here`](Self::here) that the server does not have yet.
    pub leaving: u32,
    /// Those that the server was asked for.
    pub asked: u32,
    /// Those that the server was asked for and does not have.
    pub missing: u32,
}

/// Where the parts of an attachment are.
pub(super) fn parts(
    device: &Device,
    rows: &Staged<'_>,
    attachment: &Attachment,
) -> Result<AttachmentParts, Error> {
    let mut parts = AttachmentParts::default();
    for name in attachment.names() {
        parts.all += 1;
        match device.blob_state(rows, name)? {
            BlobState::Here => parts.here += 1,
            BlobState::Leaving => {
                parts.here += 1;
                parts.leaving += 1;
            }
            BlobState::Asked => parts.asked += 1,
            BlobState::Missing => parts.missing += 1,
            _ => {}
        }
    }
    Ok(parts)
}

/// Writes an attachment whose parts are all here; else asks for them.
pub(super) fn open(
    client: &Client,
    attachment: &Attachment,
    to: &mut dyn Output,
) -> Result<OpenedAttachment, Error> {
    // A descriptor that names larger ones does not fill the disk.
    let most = u32::try_from(PART).unwrap_or(u32::MAX);
    let (_, before) = client.shared.submit(Write::Durable, |step| {
        let before = parts(step.device, step.rows, attachment)?;
        for name in attachment.names() {
            step.device.blob_fetch(step.rows, name, most)?;
        }
        Ok(before)
    })?;
    if before.here < before.all {
        let waiting = AttachmentParts {
            asked: before.all.saturating_sub(before.here),
            ..before
        };
        return Ok(if before.missing > 0 && before.asked == 0 {
            OpenedAttachment::Missing(before)
        } else {
            OpenedAttachment::Waiting(waiting)
        });
    }
    // Once to see that all of it is good, and only then to write it.
    read(client, attachment, &mut |_| Ok(()))?;
    read(client, attachment, &mut |text| {
        to.write_all(text)
            .map_err(|error| Error::output(error.kind()))
    })?;
    to.flush().map_err(|error| Error::output(error.kind()))?;
    Ok(OpenedAttachment::Written)
}

/// Opens all parts in their order.
fn read(
    client: &Client,
    attachment: &Attachment,
    take: &mut dyn FnMut(&[u8]) -> Result<(), Error>,
) -> Result<(), Error> {
    let unlock = Unlock::new().direct("", attachment.key());
    let context = attachment.context()?;
    let mut opener = Opener::new(&unlock, &context);
    let mut payload = Payload::of(attachment)?;
    let count = attachment.names().len();
    for (number, name) in (1..).zip(attachment.names()) {
        let (_, part) = client.shared.submit(Write::Durable, |step| {
            Ok(step.device.memory_blob(step.rows, name)?)
        })?;
        let part = part.ok_or_else(|| Error::internal("a part was forgotten meanwhile"))?;
        if part.len() > PART || (number < count && part.len() < PART) {
            return Err(Error::attachment_damaged());
        }
        let mut input = part.as_slice();
        while let Some(text) = opener.push(&mut input).map_err(damaged)? {
            payload.pass(text, take)?;
        }
    }
    let last = opener.finish().map_err(damaged)?;
    payload.pass(&last, take)?;
    payload.end()
}

fn damaged(_: sprag_vault::OpenError) -> Error {
    Error::attachment_damaged()
}

/// The payload of an attachment, of which the padding is checked and not passed on.
struct Payload {
    /// Bytes of the attachment that are still to come.
    rest: u64,
    /// Whether the `0x80` behind them was there.
    marked: bool,
    zeros: usize,
}

impl Payload {
    fn of(attachment: &Attachment) -> Result<Self, Error> {
        let size = attachment.size();
        let padded = padded(size).and_then(|padded| {
            let size = usize::try_from(size).ok()?;
            padded.checked_sub(size)?.checked_sub(1)
        });
        Ok(Self {
            rest: size,
            marked: false,
            zeros: padded.ok_or_else(Error::attachment_damaged)?,
        })
    }

    fn pass(
        &mut self,
        text: &[u8],
        take: &mut dyn FnMut(&[u8]) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let count = usize::try_from(self.rest).unwrap_or(usize::MAX);
        let (text, mut padding) = text.split_at(text.len().min(count));
        self.rest = self.rest.saturating_sub(text.len() as u64);
        if !text.is_empty() {
            take(text)?;
        }
        if !self.marked
            && let Some((mark, zeros)) = padding.split_first()
        {
            if *mark != 0x80 {
                return Err(Error::attachment_damaged());
            }
            self.marked = true;
            padding = zeros;
        }
        let zeros = self.zeros.checked_sub(padding.len());
        if padding.iter().any(|byte| *byte != 0) {
            return Err(Error::attachment_damaged());
        }
        self.zeros = zeros.ok_or_else(Error::attachment_damaged)?;
        Ok(())
    }

    fn end(self) -> Result<(), Error> {
        if self.rest == 0 && self.marked && self.zeros == 0 {
            Ok(())
        } else {
            Err(Error::attachment_damaged())
        }
    }
}
