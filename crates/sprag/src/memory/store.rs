//! A store of memories and chats over any backend.

use std::fmt;

use sprag_session::memory::{Space, SpaceKind, Standing};
use zeroize::Zeroizing;

use super::backend::{MemoryBackend, blob_name};
use super::blob::SealedRecord;
use super::draft::Draft;
use super::fault::Fault;
use super::redact::Redactor;
use super::steps::{self, Opening, record_id};
use super::{Chat, Memory, Owner};
use crate::Error;
use crate::client::{Client, Write};
use crate::notifier::Notifier;
use crate::pending::Pending;
use crate::sync::Arc;

/// How often a write is sealed anew because another one was faster.
const TRIES: usize = 8;

/// The memories and chats of one owner: encrypted on this device, found here, kept anywhere.
///
/// Blobs lie in the client's own store and go to its server ([`new`](Self::new)), or in a [`MemoryBackend`] of the application
/// ([`backend`](Self::backend)). Which records there are, with their keys, is in the key log of the account either way, and goes the
/// way of all [`tasks`](Client::tasks). Cheap to clone; all handles of a client share one index in memory, which is loaded when
/// something is listed or searched first.
///
/// With a backend a write is there first, and known to the log after that: whatever dies in between leaves a blob without a
/// record, and never a record without a blob. A deletion is the other way round. A blob that a newer one replaces stays for those
/// devices that have not heard of it. [`sweep`](Self::sweep) removes what is left, now and then.
///
/// The blocking verbs call the backend on the thread of their caller. Those of [`start`](Self::start) call it on a thread of the store,
/// one after another; without a backend nothing blocks.
///
/// ```
/// # fn main() -> Result<(), sprag::Error> {
/// use sprag::Client;
/// use sprag::memory::{EncryptedMemoryStore, Memory, Owner};
///
/// let client = Client::in_memory("ann")?;
/// let store = EncryptedMemoryStore::new(&client, &Owner::new("ann").agent("tutor"))?;
/// let tea = store.store_memory(&Memory::new("no milk").tags(["tea"]).embedding(vec![0.6, 0.8]))?;
/// let hits = store.search_similar(&[0.5, 0.9], 10, 0.5)?;
/// assert_eq!(hits[0].id, tea.id);
/// assert_eq!(store.get_memory(&tea.id)?.content, "no milk");
/// store.erase_memory(&tea.id)?;
/// assert_eq!(store.get_memory(&tea.id).map_err(|error| error.code()), Err("record_erased"));
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct EncryptedMemoryStore {
    pub(super) client: Client,
    pub(super) owner: Owner,
    pub(super) memories: Space,
    pub(super) chats: Space,
    pub(super) backend: Option<Arc<dyn MemoryBackend>>,
    pub(super) redactor: Option<Arc<dyn Redactor>>,
    author: String,
    worker: Notifier,
}

impl fmt::Debug for EncryptedMemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EncryptedMemoryStore")
            .finish_non_exhaustive()
    }
}

/// What a write did.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stored {
    /// The id of the record.
    pub id: String,
    /// How often the record has been written, from 1.
    pub revision: u64,
    /// The name of its blob: SHA-256, in 64 hexadecimal digits.
    pub name: String,
    /// The size of its blob, in bytes.
    pub size: u64,
    /// What was taken out of it, by type, and how often.
    pub redacted: Vec<(String, u64)>,
}

/// A record as it was read.
pub(super) struct Fetched {
    pub(super) opening: Opening,
    pub(super) plaintext: Zeroizing<Vec<u8>>,
}

impl EncryptedMemoryStore {
    /// The memories and chats of this owner, in the client's own store.
    ///
    /// # Errors
    /// `bad_input`: a name is not 1 to 255 bytes without control characters.
    pub fn new(client: &Client, owner: &Owner) -> Result<Self, Error> {
        Ok(Self {
            client: client.clone(),
            owner: owner.clone(),
            memories: owner.space(&client.app, SpaceKind::Memory)?,
            chats: owner.space(&client.app, SpaceKind::Chat)?,
            backend: None,
            redactor: None,
            author: owner.agent_name().unwrap_or_default().to_owned(),
            worker: Notifier::new(),
        })
    }

    /// Keeps blobs in this backend from now on. What is in the client's own store stays readable.
    #[must_use]
    pub fn backend(mut self, backend: impl MemoryBackend) -> Self {
        self.backend = Some(Arc::new(backend));
        self
    }

    /// Takes out of everything that is stored what this finds, before it is encrypted: [`Patterns::new`](super::Patterns::new) finds
    /// private keys, headers of authentication, tokens, card numbers, and addresses of e-mail, telephone and network.
    #[must_use]
    pub fn redactor(mut self, redactor: impl Redactor) -> Self {
        self.redactor = Some(Arc::new(redactor));
        self
    }

    /// Names who writes, for [`Provenance::agent`](super::Provenance::agent): at most 255 bytes. The default is the agent of the owner.
    #[must_use]
    pub fn author(mut self, author: &str) -> Self {
        author.clone_into(&mut self.author);
        self
    }

    /// Whose memories and chats these are.
    #[must_use]
    pub fn owner(&self) -> &Owner {
        &self.owner
    }

    /// A verb that has begun.
    pub(super) fn begin<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Self) -> Result<Pending<T>, Error> + Send + 'static,
    ) -> Pending<T> {
        let notifier = self.client.shared.notifier.clone();
        if self.backend.is_none() {
            return work(self).unwrap_or_else(|error| Pending::ready(notifier, Err(error)));
        }
        let (completer, pending) = Pending::new(notifier);
        let store = self.clone();
        self.worker.run(Box::new(move || match work(&store) {
            Ok(begun) => begun.finally(move |result| completer.complete(result)),
            Err(error) => completer.complete(Err(error)),
        }));
        pending
    }

    /// A verb on the thread of its caller.
    #[cfg(not(target_family = "wasm"))]
    pub(super) fn block<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Self) -> Result<Pending<T>, Error>,
    ) -> Result<T, Error> {
        work(self)?.wait()
    }

    /// What follows a result, where a backend may block.
    pub(super) fn then<T: Send + 'static, U: Send + 'static>(
        &self,
        before: Pending<T>,
        next: impl FnOnce(&Self, T) -> Result<U, Error> + Send + 'static,
    ) -> Pending<U> {
        let (completer, pending) = Pending::new(self.client.shared.notifier.clone());
        let store = self.clone();
        before.finally(move |result| match result {
            Err(error) => completer.complete(Err(error)),
            Ok(value) => {
                let worker = store.worker.clone();
                worker.run(Box::new(move || completer.complete(next(&store, value))));
            }
        });
        pending
    }

    /// Stores what was prepared.
    pub(super) fn write(&self, space: &Space, draft: Draft) -> Result<Pending<Stored>, Error> {
        match &self.backend {
            None => self.write_here(space, draft),
            Some(backend) => self.write_there(space, draft, &**backend),
        }
    }

    /// Into the client's own store: one step.
    fn write_here(&self, space: &Space, draft: Draft) -> Result<Pending<Stored>, Error> {
        let shared = &self.client.shared;
        let (ticket, (stored, hash)) = shared.submit(Write::Durable, |mut step| {
            let sealed = steps::seal(&mut step, space, &draft.prepared, draft.rule)?;
            let record = &draft.prepared;
            let step = &mut step;
            steps::log(
                step,
                space,
                &shared.memories,
                record,
                &sealed,
                &self.author,
                true,
            )?;
            Ok((stored(&draft, &sealed), sealed.name))
        })?;
        let pending = shared.when(ticket, stored);
        if !draft.verify {
            return Ok(pending);
        }
        let space = space.clone();
        Ok(self.then(pending, move |store, stored| {
            let fetched = store.fetch(&space, &stored.id)?.1;
            // Written again meanwhile: then it is that write which is read.
            let is_same = fetched.plaintext == draft.prepared.plaintext;
            if fetched.opening.name == hash && !is_same {
                return Err(Fault::Lied.into());
            }
            Ok(stored)
        }))
    }

    /// Into a backend: the blob first, then the log.
    fn write_there(
        &self,
        space: &Space,
        draft: Draft,
        backend: &dyn MemoryBackend,
    ) -> Result<Pending<Stored>, Error> {
        let shared = &self.client.shared;
        for _ in 0..TRIES {
            let (_, sealed) = shared.submit(Write::Durable, |mut step| {
                steps::seal(&mut step, space, &draft.prepared, draft.rule)
            })?;
            let name = blob_name(&sealed.name);
            backend.put(&name, &sealed.blob).map_err(Fault::from)?;
            if draft.verify {
                let read = backend.get(&name).map_err(Fault::from)?;
                if read.is_none_or(|read| read != sealed.blob) {
                    let _ = backend.delete(&name);
                    return Err(Fault::Lied.into());
                }
            }
            let logged = shared.submit(Write::Durable, |mut step| {
                let (record, step) = (&draft.prepared, &mut step);
                if steps::admit(step, space, &record.id, draft.rule)? != sealed.revision {
                    return Ok(None);
                }
                let author = &self.author;
                steps::log(
                    step,
                    space,
                    &shared.memories,
                    record,
                    &sealed,
                    author,
                    false,
                )
                .map(Some)
            });
            let ticket = match logged {
                Ok((ticket, Some(()))) => ticket,
                Ok((_, None)) => {
                    // Another write was faster. The blob is of a revision that there is now.
                    let _ = backend.delete(&name);
                    continue;
                }
                Err(error) => {
                    if !error.is_in_doubt() {
                        let _ = backend.delete(&name);
                    }
                    return Err(error);
                }
            };
            // The blob that it replaces stays for the devices that do not know of this one yet, until it is swept away.
            return Ok(shared.when(ticket, stored(&draft, &sealed)));
        }
        Err(Fault::Conflict.into())
    }

    /// Removes a blob that no record needs. One that stays is swept away later.
    fn discard(&self, hash: &[u8; 32]) {
        if let Some(backend) = &self.backend {
            let _ = backend.delete(&blob_name(hash));
        }
    }

    /// Reads a record.
    pub(super) fn fetch(
        &self,
        space: &Space,
        id: &str,
    ) -> Result<(crate::client::Ticket, Fetched), Error> {
        let id = record_id(id)?;
        let shared = &self.client.shared;
        let (ticket, (opening, held)) = shared.submit(Write::Durable, |step| {
            let opening = steps::opening(&step, space, &id)?;
            let held = match opening.at_server {
                true => step.device.memory_blob(step.rows, &opening.name)?,
                false => None,
            };
            Ok((opening, held))
        })?;
        let blob = self.blob(&opening, held)?;
        let hash = sprag_crypto::sha256(&[&blob]);
        let mut of_another = false;
        if hash != opening.name {
            let find =
                |step: crate::client::Step<'_, '_>| steps::is_newest_of_any(&step, space, &hash);
            of_another = shared.submit(Write::Durable, find)?.1;
        }
        let plaintext = opening.open(space, &blob, of_another)?;
        Ok((ticket, Fetched { opening, plaintext }))
    }

    /// The blob of a record, from where it lies.
    pub(super) fn blob(
        &self,
        opening: &Opening,
        held: Option<Zeroizing<Vec<u8>>>,
    ) -> Result<Zeroizing<Vec<u8>>, Error> {
        if let Some(held) = held {
            return Ok(held);
        }
        let backend = self.backend.as_ref().filter(|_| !opening.at_server);
        let backend = backend.ok_or(Fault::Missing)?;
        let blob = backend
            .get(&blob_name(&opening.name))
            .map_err(Fault::from)?;
        Ok(Zeroizing::new(blob.ok_or(Fault::Missing)?))
    }

    pub(super) fn read_memory(&self, id: &str) -> Result<Pending<Memory>, Error> {
        let (ticket, fetched) = self.fetch(&self.memories, id)?;
        let memory = fetched.opening.memory(&fetched.plaintext)?;
        Ok(self.client.shared.when(ticket, memory))
    }

    pub(super) fn read_chat(&self, id: &str) -> Result<Pending<Chat>, Error> {
        let (ticket, fetched) = self.fetch(&self.chats, id)?;
        let chat = fetched.opening.chat(&fetched.plaintext)?;
        Ok(self.client.shared.when(ticket, chat))
    }

    /// Deletes a record, or erases it: the log first, then the blob.
    pub(super) fn remove(
        &self,
        space: &Space,
        id: &str,
        for_good: bool,
    ) -> Result<Pending<bool>, Error> {
        let id = record_id(id)?;
        let shared = &self.client.shared;
        let (ticket, (was_there, kept)) = shared.submit(Write::Durable, |mut step| {
            steps::remove(&mut step, space, &shared.memories, &id, for_good)
        })?;
        let pending = shared.when(ticket, was_there);
        Ok(match kept.filter(|_| was_there) {
            None => pending,
            Some(hash) => self.then(pending, move |store, was_there| {
                store.discard(&hash);
                Ok(was_there)
            }),
        })
    }

    /// Erases everything of the owner.
    pub(super) fn remove_all(&self) -> Result<Pending<u64>, Error> {
        let shared = &self.client.shared;
        let (ticket, (count, kept)) = shared.submit(Write::Durable, |mut step| {
            let (mut count, mut kept) = (0, Vec::new());
            for space in [&self.memories, &self.chats] {
                step.device
                    .memory_records(step.rows, space, &mut |_, entry| {
                        kept.extend(steps::kept_elsewhere(entry));
                        std::ops::ControlFlow::Continue(())
                    })?;
                let env = &mut step.env;
                count += step.device.memory_erase_space(step.rows, env, space)?;
            }
            for space in [&self.memories, &self.chats] {
                shared.memories.forget(space);
            }
            Ok((u64::try_from(count).unwrap_or(u64::MAX), kept))
        })?;
        let pending = shared.when(ticket, count);
        Ok(self.then(pending, move |store, count| {
            for hash in &kept {
                store.discard(hash);
            }
            Ok(count)
        }))
    }

    pub(super) fn standing_of(&self, space: &Space, id: &str) -> Result<Pending<Standing>, Error> {
        let id = record_id(id)?;
        Ok(self.client.shared.step(Write::Durable, |step| {
            Ok(step.device.memory_standing(step.rows, space, &id)?)
        }))
    }
}

fn stored(draft: &Draft, sealed: &SealedRecord) -> Stored {
    Stored {
        id: draft.id.clone(),
        revision: sealed.revision,
        name: blob_name(&sealed.name),
        size: u64::try_from(sealed.blob.len()).unwrap_or(u64::MAX),
        redacted: draft.counts.clone(),
    }
}
