//! The verbs of the client that give the blob to their caller.

use sprag_session::memory::SpaceKind;

use super::backend::blob_name;
use super::draft::Draft;
use super::steps::{self, Rule, record_id};
use super::store::EncryptedMemoryStore;
use super::{Chat, Memory, Owner};
use crate::Error;
use crate::client::{Client, Write};
use crate::pending::Pending;
use crate::start::Start;

/// A record whose blob the application keeps.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Sealed {
    /// The id of the record.
    pub id: String,
    /// How often the record has been written, from 1.
    pub revision: u64,
    /// The blob: `evlt/v1`, 136 bytes and padding more than what is in it.
    pub blob: Vec<u8>,
    /// The name of the blob: SHA-256, in 64 hexadecimal digits.
    pub name: String,
}

impl std::fmt::Debug for Sealed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sealed")
            .field("revision", &self.revision)
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl Start<'_> {
    /// See [`Client::encrypt_user_memory`].
    pub fn encrypt_user_memory(self, owner: &Owner, memory: &Memory) -> Pending<Sealed> {
        self.0.sealed(owner, SpaceKind::Memory, |store| {
            store.draft_memory(memory, Rule::Any)
        })
    }

    /// See [`Client::decrypt_user_memory`].
    pub fn decrypt_user_memory(self, owner: &Owner, id: &str, blob: &[u8]) -> Pending<Memory> {
        self.0
            .opened(owner, SpaceKind::Memory, id, blob, |opening, plaintext| {
                opening.memory(plaintext)
            })
    }

    /// See [`Client::encrypt_user_chat`].
    pub fn encrypt_user_chat(self, owner: &Owner, chat: &Chat) -> Pending<Sealed> {
        self.0.sealed(owner, SpaceKind::Chat, |store| {
            store.draft_chat(chat, Rule::Any)
        })
    }

    /// See [`Client::decrypt_user_chat`].
    pub fn decrypt_user_chat(self, owner: &Owner, id: &str, blob: &[u8]) -> Pending<Chat> {
        self.0
            .opened(owner, SpaceKind::Chat, id, blob, |opening, plaintext| {
                opening.chat(plaintext)
            })
    }
}

impl Client {
    /// A handle of the same client for another application: what it remembers is apart, with keys of its own. 1 to 255 bytes without
    /// control characters; the default is `sprag`. Not kept: name it each time.
    #[must_use]
    pub fn for_app(&self, app: &str) -> Self {
        Self {
            shared: self.shared.clone(),
            app: app.into(),
        }
    }

    /// Seals a record whose blob the application keeps.
    fn sealed(
        &self,
        owner: &Owner,
        kind: SpaceKind,
        draft: impl FnOnce(&EncryptedMemoryStore) -> Result<Draft, Error>,
    ) -> Pending<Sealed> {
        let shared = &self.shared;
        let work = || {
            let store = EncryptedMemoryStore::new(self, owner)?;
            let draft = draft(&store)?;
            let space = owner.space(&self.app, kind)?;
            let author = owner.agent_name().unwrap_or_default();
            let (ticket, sealed) = shared.submit(Write::Durable, |mut step| {
                let record = &draft.prepared;
                let sealed = steps::seal(&mut step, &space, record, draft.rule)?;
                let step = &mut step;
                let indexes = &shared.memories;
                steps::log(step, &space, indexes, record, &sealed, author, false)?;
                Ok(Sealed {
                    id: draft.id.clone(),
                    revision: sealed.revision,
                    name: blob_name(&sealed.name),
                    blob: sealed.blob,
                })
            })?;
            Ok(shared.when(ticket, sealed))
        };
        work().unwrap_or_else(|error| Pending::ready(shared.notifier.clone(), Err(error)))
    }

    /// Opens the blob of a record.
    fn opened<T: Send + 'static>(
        &self,
        owner: &Owner,
        kind: SpaceKind,
        id: &str,
        blob: &[u8],
        decode: impl FnOnce(&steps::Opening, &[u8]) -> Result<T, Error>,
    ) -> Pending<T> {
        let shared = &self.shared;
        let work = || {
            let space = owner.space(&self.app, kind)?;
            let id = record_id(id)?;
            let hash = sprag_crypto::sha256(&[blob]);
            let (ticket, (opening, of_another)) = shared.submit(Write::Durable, |step| {
                let opening = steps::opening(&step, &space, &id)?;
                let of_another =
                    hash != opening.name && steps::is_newest_of_any(&step, &space, &hash)?;
                Ok((opening, of_another))
            })?;
            let plaintext = opening.open(&space, blob, of_another)?;
            let record = decode(&opening, &plaintext)?;
            Ok(shared.when(ticket, record))
        };
        work().unwrap_or_else(|error| Pending::ready(shared.notifier.clone(), Err(error)))
    }
}

#[cfg(not(target_family = "wasm"))]
impl Client {
    /// Encrypts a memory of this owner; the application keeps the blob, where it likes, and gives it back to
    /// [`decrypt_user_memory`](Self::decrypt_user_memory). Its key enters the key log of the account in the same step, so that other devices
    /// can read it, and an older blob of the same record opens nowhere any more. A memory without an id gets one.
    ///
    /// When it returns, the log is durable: keep the blob at once. [`EncryptedMemoryStore`] does both in the right order.
    ///
    /// # Errors
    /// `bad_record` (see [`InvalidRecord`](super::InvalidRecord)), `bad_input`; `record_erased`; `not_linked`; those of the store.
    pub fn encrypt_user_memory(&self, owner: &Owner, memory: &Memory) -> Result<Sealed, Error> {
        self.start().encrypt_user_memory(owner, memory).wait()
    }

    /// Decrypts a memory of this owner. What it gives is the newest revision that this device knows of, as a device of the account
    /// wrote it: see [`Memory::provenance`].
    ///
    /// # Errors
    /// `no_record`: the log of this device does not know it (yet). `record_deleted`, `record_erased`. `blob_stale`: a blob that is not
    /// the newest of this record. `blob_misplaced`: one of another record. `blob_damaged`. `record_newer`: written by a newer
    /// version. `key_not_here`: this device does not have the key yet. `bad_record`, `bad_input`; those of the store.
    pub fn decrypt_user_memory(
        &self,
        owner: &Owner,
        id: &str,
        blob: &[u8],
    ) -> Result<Memory, Error> {
        self.start().decrypt_user_memory(owner, id, blob).wait()
    }

    /// As [`encrypt_user_memory`](Self::encrypt_user_memory), a chat.
    ///
    /// # Errors
    /// As there.
    pub fn encrypt_user_chat(&self, owner: &Owner, chat: &Chat) -> Result<Sealed, Error> {
        self.start().encrypt_user_chat(owner, chat).wait()
    }

    /// As [`decrypt_user_memory`](Self::decrypt_user_memory), a chat.
    ///
    /// # Errors
    /// As there.
    pub fn decrypt_user_chat(&self, owner: &Owner, id: &str, blob: &[u8]) -> Result<Chat, Error> {
        self.start().decrypt_user_chat(owner, id, blob).wait()
    }
}
