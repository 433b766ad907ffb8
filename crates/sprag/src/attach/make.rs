//! Making an attachment: sealed piece by piece, held part by part.

use std::io::{ErrorKind, Read};

use sprag_session::Making as Name;
use sprag_vault::{DataKey, Recipient, Sealer, Sealing};
use zeroize::Zeroizing;

use super::descriptor::{About, Attachment, CHUNK, MAX_ATTACHMENT, PART, padded};
use crate::Error;
use crate::client::{Client, Ticket, Write};

/// Seals all that `from` gives.
pub(super) fn attach(
    client: &Client,
    from: &mut dyn Read,
    media_type: &str,
    file_name: &str,
) -> Result<Attachment, Error> {
    attach_at_most(MAX_ATTACHMENT, client, from, media_type, file_name)
}

fn attach_at_most(
    most: u64,
    client: &Client,
    from: &mut dyn Read,
    media_type: &str,
    file_name: &str,
) -> Result<Attachment, Error> {
    let mut making = Making::begin(client, About::new(media_type, file_name)?)?;
    making.most = most;
    let mut buffer = Zeroizing::new(vec![0; CHUNK]);
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return making.end(),
            Ok(count) => making.add(buffer.get(..count).unwrap_or_default())?,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(Error::input(error.kind())),
        }
    }
}

/// An attachment that is being made. What is held of it goes if it is dropped before its end.
struct Making<'a> {
    client: &'a Client,
    name: Name,
    about: About,
    key: DataKey,
    /// `None` once the last chunk is sealed.
    sealer: Option<Sealer>,
    /// Ciphertext of the part that is not full yet.
    part: Vec<u8>,
    parts: Vec<[u8; 32]>,
    size: u64,
    /// Above this size it is too large.
    most: u64,
    ended: bool,
}

impl<'a> Making<'a> {
    fn begin(client: &'a Client, about: About) -> Result<Self, Error> {
        let context = about.context()?;
        let (_, (name, key, sealer)) = client.shared.submit(Write::Durable, |mut step| {
            let name = step.device.attachment_begin(step.rows, &mut step.env)?;
            let key = DataKey::generate(step.env.rng());
            let recipient = [Recipient::direct("")];
            let sealing = Sealing::new(&key, &recipient).context(&context);
            let sealer = Sealer::new(&sealing, step.env.rng());
            let sealer = sealer.map_err(|_| Error::internal("a header of an attachment"))?;
            Ok((name, key, sealer))
        })?;
        Ok(Self {
            client,
            name,
            about,
            key,
            sealer: Some(sealer),
            part: Vec::new(),
            parts: Vec::new(),
            size: 0,
            most: MAX_ATTACHMENT,
            ended: false,
        })
    }

    fn add(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.size = self.size.saturating_add(bytes.len() as u64);
        if self.size > self.most {
            return Err(Error::attachment_too_large());
        }
        self.seal(bytes)
    }

    fn seal(&mut self, mut bytes: &[u8]) -> Result<(), Error> {
        let Some(mut sealer) = self.sealer.take() else {
            return Err(Error::internal("an attachment that has ended"));
        };
        while let Some(piece) = sealer.push(&mut bytes).map_err(sealing)? {
            self.part.extend_from_slice(piece);
            while self.part.len() >= PART {
                let rest = self.part.split_off(PART);
                let full = std::mem::replace(&mut self.part, rest);
                self.hold(&full)?;
            }
        }
        self.sealer = Some(sealer);
        Ok(())
    }

    fn hold(&mut self, part: &[u8]) -> Result<(), Error> {
        let number = u32::try_from(self.parts.len()).unwrap_or(u32::MAX);
        let name = self.name;
        let (ticket, part) = self.client.shared.submit(Write::Durable, |step| {
            Ok(step
                .device
                .attachment_part(step.rows, &name, number, part)?)
        })?;
        self.parts.push(part);
        self.wait(ticket)
    }

    /// Nobody reads on before what was read is on the disk: so no more than one part is in memory.
    #[cfg(not(target_family = "wasm"))]
    fn wait(&self, ticket: Ticket) -> Result<(), Error> {
        self.client.shared.when(ticket, ()).wait()
    }

    /// Nothing can be waited for here.
    #[cfg(target_family = "wasm")]
    fn wait(&self, _ticket: Ticket) -> Result<(), Error> {
        Ok(())
    }

    /// Pads, seals the end, and has all parts go to the server.
    fn end(mut self) -> Result<Attachment, Error> {
        let padded = padded(self.size).ok_or_else(Error::attachment_too_large)?;
        let written = usize::try_from(self.size).unwrap_or(usize::MAX);
        self.seal(&[0x80])?;
        let mut missing = padded.saturating_sub(written).saturating_sub(1);
        while missing > 0 {
            let count = missing.min(CHUNK);
            self.seal(ZEROS.get(..count).unwrap_or_default())?;
            missing -= count;
        }
        let last = self.sealer.take().map(Sealer::finish);
        let last = last.ok_or_else(|| Error::internal("an attachment that has ended"))?;
        self.part.extend_from_slice(&last.map_err(sealing)?);
        while !self.part.is_empty() {
            let rest = self.part.split_off(self.part.len().min(PART));
            let full = std::mem::replace(&mut self.part, rest);
            self.hold(&full)?;
        }
        let parts = std::mem::take(&mut self.parts);
        let attachment = Attachment::new(&self.about, self.size, self.key.clone(), parts)
            .ok_or_else(|| Error::internal("an attachment of another length"))?;
        let name = self.name;
        let (ticket, ()) = self.client.shared.submit(Write::Durable, |step| {
            Ok(step.device.attachment_end(step.rows, &name)?)
        })?;
        self.ended = true;
        self.wait(ticket)?;
        Ok(attachment)
    }
}

impl Drop for Making<'_> {
    fn drop(&mut self) {
        if !self.ended {
            let name = self.name;
            // If it fails, the next attachment does it.
            let _ = self.client.shared.submit(Write::Lazy, |step| {
                Ok(step.device.attachment_give_up(step.rows, &name)?)
            });
        }
    }
}

fn sealing(_: sprag_vault::SealError) -> Error {
    Error::internal("a chunk of an attachment")
}

static ZEROS: [u8; CHUNK] = [0; CHUNK];

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn attachment_above_the_limit_is_refused_and_nothing_of_it_kept() {
        let client = Client::in_memory("alice").unwrap();
        let most = 2 * PART as u64 + 7;
        for size in [most + 1, most + 100_000, 3 * most] {
            let mut from = std::io::repeat(7).take(size);
            let error = attach_at_most(most, &client, &mut from, "", "").unwrap_err();
            assert_eq!(error.code(), "attachment_too_large");
        }
        let tasks = client.tasks().unwrap();
        assert!(
            !(tasks.iter()).any(|task| matches!(task, sprag_session::Task::PutBlob { .. })),
            "{tasks:?}"
        );
        let mut from = std::io::repeat(7).take(most);
        let attachment = attach_at_most(most, &client, &mut from, "", "").unwrap();
        assert_eq!(attachment.size(), most);
    }

    #[test]
    fn default_limit_is_that_of_the_text() {
        assert_eq!(MAX_ATTACHMENT, 104_857_600);
    }
}
