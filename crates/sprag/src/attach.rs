//! Attachments: what is too large for a message, or is to be fetched only when it is wanted, sealed apart and named in one
//! (`docs/ATTACHMENTS.md`).

mod descriptor;
mod make;
mod open;
#[cfg(not(target_family = "wasm"))]
mod save;

use std::io::{Read, Write};

pub use descriptor::{Attachment, MAX_ATTACHMENT};
pub use open::{AttachmentParts, OpenedAttachment};

use crate::Error;
use crate::aside::aside;
#[cfg(not(target_family = "wasm"))]
use crate::client::Client;
use crate::client::Write as When;
use crate::pending::Pending;
use crate::start::Start;

/// Of the threads that read and write.
const NAME: &str = "sprag attachment";

impl Start<'_> {
    /// See [`Client::attach`]. It reads on a thread of its own.
    pub fn attach(
        self,
        from: impl Read + Send + 'static,
        media_type: &str,
        file_name: &str,
    ) -> Pending<Attachment> {
        let notifier = self.0.shared.notifier.clone();
        if self.0.shared.is_inherited() {
            return Pending::ready(notifier, Err(Error::forked()));
        }
        let (client, mut from) = (self.0.clone(), from);
        let (media_type, file_name) = (media_type.to_owned(), file_name.to_owned());
        aside(NAME, notifier, move || {
            make::attach(&client, &mut from, &media_type, &file_name)
        })
    }

    /// See [`Client::open_attachment`]. It writes on a thread of its own, and gives the writer back.
    pub fn open_attachment<W: Write + Send + 'static>(
        self,
        attachment: &Attachment,
        to: W,
    ) -> Pending<(OpenedAttachment, W)> {
        let notifier = self.0.shared.notifier.clone();
        if self.0.shared.is_inherited() {
            return Pending::ready(notifier, Err(Error::forked()));
        }
        let (client, attachment, mut to) = (self.0.clone(), attachment.clone(), to);
        aside(NAME, notifier, move || {
            let opened = open::open(&client, &attachment, &mut to)?;
            Ok((opened, to))
        })
    }

    /// See [`Client::save_attachment`].
    #[cfg(not(target_family = "wasm"))]
    pub fn save_attachment(
        self,
        attachment: &Attachment,
        path: impl Into<std::path::PathBuf>,
    ) -> Pending<OpenedAttachment> {
        let notifier = self.0.shared.notifier.clone();
        if self.0.shared.is_inherited() {
            return Pending::ready(notifier, Err(Error::forked()));
        }
        let (client, attachment, path) = (self.0.clone(), attachment.clone(), path.into());
        aside(NAME, notifier, move || {
            save::save(&client, &attachment, &path)
        })
    }

    /// See [`Client::attachment_parts`].
    pub fn attachment_parts(self, attachment: &Attachment) -> Pending<AttachmentParts> {
        self.0.shared.step(When::Durable, |step| {
            open::parts(step.device, step.rows, attachment)
        })
    }

    /// See [`Client::forget_attachment`].
    pub fn forget_attachment(self, attachment: &Attachment) -> Pending<()> {
        self.0.shared.step(When::Durable, |step| {
            for part in attachment.names() {
                step.device.blob_release(step.rows, part)?;
            }
            Ok(())
        })
    }

    /// See [`Client::drop_attachment`].
    pub fn drop_attachment(self, attachment: &Attachment) -> Pending<()> {
        self.0.shared.step(When::Durable, |step| {
            for part in attachment.names() {
                step.device.blob_drop(step.rows, part)?;
            }
            Ok(())
        })
    }
}

#[cfg(not(target_family = "wasm"))]
impl Client {
    /// Seals what `from` gives under a key of its own, and queues it for the server in parts of 4 MiB. The result names and
    /// opens it: [`Attachment::to_bytes`] belongs into a message, and nowhere else.
    ///
    /// When it returns all parts are durable. They are kept sealed in the store until the server has them (tasks
    /// `PutBlob`), and take the memory of one part at a time. `media_type` and `file_name` are at most 255 bytes each,
    /// without control characters; a file name is no path.
    ///
    /// # Errors
    /// `bad_input`: a type or name out of bounds. `attachment_too_large` above 100 MiB, `input_failed` if `from` fails:
    /// then nothing is kept and nothing goes to the server. Those of the store, and `not_linked`.
    pub fn attach(
        &self,
        mut from: impl Read,
        media_type: &str,
        file_name: &str,
    ) -> Result<Attachment, Error> {
        make::attach(self, &mut from, media_type, file_name)
    }

    /// Writes an attachment to `to`, if all of its parts are here; else asks the server for those that are not, by tasks,
    /// and says what it waits for. Call it again when these are done: parts stay until
    /// [`forget_attachment`](Self::forget_attachment).
    ///
    /// Nothing is written before all of it was found good: it is opened twice, at the cost of a second decryption and in
    /// the memory of one part. Whoever writes to a file and wants none that a full disk has cut uses
    /// [`save_attachment`](Self::save_attachment).
    ///
    /// # Errors
    /// `attachment_damaged`: it is not what its sender named; nothing was written. `output_failed` if `to` fails; what it
    /// took by then is good, but not all. Those of the store.
    pub fn open_attachment(
        &self,
        attachment: &Attachment,
        mut to: impl Write,
    ) -> Result<OpenedAttachment, Error> {
        open::open(self, attachment, &mut to)
    }

    /// As [`open_attachment`](Self::open_attachment), to a file that is not there yet. Under its name there is everything
    /// or nothing: it is written beside it, for its owner alone, synced, and then gets its name. A kill can leave a file
    /// `.NAME.part-…` there.
    ///
    /// # Errors
    /// As there; `output_failed` also if something is there already, which stays as it is.
    pub fn save_attachment(
        &self,
        attachment: &Attachment,
        path: impl AsRef<std::path::Path>,
    ) -> Result<OpenedAttachment, Error> {
        save::save(self, attachment, path.as_ref())
    }

    /// Where the parts of an attachment are. It asks nobody.
    ///
    /// # Errors
    /// Those of the store.
    pub fn attachment_parts(&self, attachment: &Attachment) -> Result<AttachmentParts, Error> {
        self.start().attachment_parts(attachment).wait()
    }

    /// Keeps no part of an attachment here any longer, and asks for none. One of our own that has not gone to the server
    /// will not go there. Twice is once.
    ///
    /// # Errors
    /// Those of the store.
    pub fn forget_attachment(&self, attachment: &Attachment) -> Result<(), Error> {
        self.start().forget_attachment(attachment).wait()
    }

    /// As [`forget_attachment`](Self::forget_attachment), and has the server drop it (tasks `DropBlob`). It does so for
    /// whoever put it there; others cannot take it from those who may still want it.
    ///
    /// # Errors
    /// Those of the store.
    pub fn drop_attachment(&self, attachment: &Attachment) -> Result<(), Error> {
        self.start().drop_attachment(attachment).wait()
    }
}
