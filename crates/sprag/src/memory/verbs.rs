//! The verbs of the store, each in two forms.

use sprag_session::memory::{Space, Standing};

use super::find::{ListPage, ListQuery, Refreshed, SearchHit};
use super::steps::Rule;
use super::store::{EncryptedMemoryStore, Stored};
use super::{Chat, ExportPage, Imported, LostWrite, Memory, OnConflict};
use crate::Error;
use crate::pending::Pending;

/// The verbs of an [`EncryptedMemoryStore`] as futures. A verb runs at once, whether or not its [`Pending`] is looked at.
#[derive(Debug, Clone, Copy)]
pub struct StartMemories<'a>(&'a EncryptedMemoryStore);

/// An update goes on top of what its caller has seen.
fn update(provenance: Option<&super::Provenance>) -> Rule {
    Rule::Update(provenance.map(|seen| (seen.revision, seen.device)))
}

impl StartMemories<'_> {
    fn store(self, memory: &Memory, rule: Rule, verify: bool) -> Pending<Stored> {
        let memory = memory.clone();
        self.0
            .begin(move |store| store.put_memory(&memory, rule, verify))
    }

    fn remove(self, space: &Space, id: &str, for_good: bool) -> Pending<bool> {
        let (space, id) = (space.clone(), id.to_owned());
        self.0
            .begin(move |store| store.remove(&space, &id, for_good))
    }

    /// See [`EncryptedMemoryStore::store_memory`].
    pub fn store_memory(self, memory: &Memory) -> Pending<Stored> {
        self.store(memory, Rule::New, false)
    }

    /// See [`EncryptedMemoryStore::store_verified`].
    pub fn store_verified(self, memory: &Memory) -> Pending<Stored> {
        self.store(memory, Rule::New, true)
    }

    /// See [`EncryptedMemoryStore::update_memory`].
    pub fn update_memory(self, memory: &Memory) -> Pending<Stored> {
        self.store(memory, update(memory.provenance()), false)
    }

    /// See [`EncryptedMemoryStore::get_memory`].
    pub fn get_memory(self, id: &str) -> Pending<Memory> {
        let id = id.to_owned();
        self.0.begin(move |store| store.read_memory(&id))
    }

    /// See [`EncryptedMemoryStore::delete_memory`].
    pub fn delete_memory(self, id: &str) -> Pending<bool> {
        self.remove(&self.0.memories, id, false)
    }

    /// See [`EncryptedMemoryStore::erase_memory`].
    pub fn erase_memory(self, id: &str) -> Pending<bool> {
        self.remove(&self.0.memories, id, true)
    }

    /// See [`EncryptedMemoryStore::erase_all`].
    pub fn erase_all(self) -> Pending<u64> {
        self.0.begin(EncryptedMemoryStore::remove_all)
    }

    /// See [`EncryptedMemoryStore::standing`].
    pub fn standing(self, id: &str) -> Pending<Standing> {
        let id = id.to_owned();
        self.0
            .begin(move |store| store.standing_of(&store.memories, &id))
    }

    /// See [`EncryptedMemoryStore::search_similar`].
    pub fn search_similar(
        self,
        embedding: &[f32],
        limit: usize,
        threshold: f32,
    ) -> Pending<Vec<SearchHit>> {
        let embedding = embedding.to_vec();
        self.0
            .begin(move |store| store.similar(&embedding, limit, threshold))
    }

    /// See [`EncryptedMemoryStore::list`].
    pub fn list(self, query: &ListQuery) -> Pending<ListPage> {
        let query = query.clone();
        self.0
            .begin(move |store| store.page(&store.memories, &query))
    }

    /// See [`EncryptedMemoryStore::refresh`].
    pub fn refresh(self) -> Pending<Refreshed> {
        self.0.begin(EncryptedMemoryStore::take_in)
    }

    /// See [`EncryptedMemoryStore::store_chat`].
    pub fn store_chat(self, chat: &Chat) -> Pending<Stored> {
        let chat = chat.clone();
        self.0.begin(move |store| store.put_chat(&chat, Rule::New))
    }

    /// See [`EncryptedMemoryStore::update_chat`].
    pub fn update_chat(self, chat: &Chat) -> Pending<Stored> {
        let (chat, rule) = (chat.clone(), update(chat.provenance()));
        self.0.begin(move |store| store.put_chat(&chat, rule))
    }

    /// See [`EncryptedMemoryStore::get_chat`].
    pub fn get_chat(self, id: &str) -> Pending<Chat> {
        let id = id.to_owned();
        self.0.begin(move |store| store.read_chat(&id))
    }

    /// See [`EncryptedMemoryStore::delete_chat`].
    pub fn delete_chat(self, id: &str) -> Pending<bool> {
        self.remove(&self.0.chats, id, false)
    }

    /// See [`EncryptedMemoryStore::erase_chat`].
    pub fn erase_chat(self, id: &str) -> Pending<bool> {
        self.remove(&self.0.chats, id, true)
    }

    /// A part of an export, the first one or what follows; see [`EncryptedMemoryStore::export`].
    pub fn export_page(self, after: Option<&str>) -> Pending<ExportPage> {
        let after = after.map(str::to_owned);
        self.0
            .begin(move |store| store.export_part(after.as_deref()))
    }

    /// See [`EncryptedMemoryStore::import`].
    pub fn import_text(self, document: &str, on_conflict: OnConflict) -> Pending<Imported> {
        let document = zeroize::Zeroizing::new(document.to_owned());
        self.0
            .begin(move |store| store.import_document(&document, on_conflict))
    }

    /// See [`EncryptedMemoryStore::sweep`].
    pub fn sweep(self, grace: u64) -> Pending<u64> {
        self.0.begin(move |store| store.clean(grace, true))
    }

    /// See [`EncryptedMemoryStore::sweep_without_server`].
    pub fn sweep_without_server(self, grace: u64) -> Pending<u64> {
        self.0.begin(move |store| store.clean(grace, false))
    }

    /// See [`EncryptedMemoryStore::lost_writes`].
    pub fn lost_writes(self) -> Pending<Vec<LostWrite>> {
        self.0.begin(EncryptedMemoryStore::lost)
    }

    /// See [`EncryptedMemoryStore::forget_lost`].
    pub fn forget_lost(self, id: &str) -> Pending<()> {
        let id = id.to_owned();
        self.0.begin(move |store| store.forget_lost_writes(&id))
    }

    /// See [`EncryptedMemoryStore::list_chats`].
    pub fn list_chats(self, query: &ListQuery) -> Pending<ListPage> {
        let query = query.clone();
        self.0.begin(move |store| store.page(&store.chats, &query))
    }
}

impl EncryptedMemoryStore {
    /// The same verbs as futures that need no runtime.
    #[must_use]
    pub fn start(&self) -> StartMemories<'_> {
        StartMemories(self)
    }

    fn put_memory(
        &self,
        memory: &Memory,
        rule: Rule,
        verify: bool,
    ) -> Result<Pending<Stored>, Error> {
        let mut draft = self.draft_memory(memory, rule)?;
        draft.verify = verify;
        self.write(&self.memories, draft)
    }

    fn put_chat(&self, chat: &Chat, rule: Rule) -> Result<Pending<Stored>, Error> {
        let draft = self.draft_chat(chat, rule)?;
        self.write(&self.chats, draft)
    }
}

#[cfg(not(target_family = "wasm"))]
impl EncryptedMemoryStore {
    /// Stores a memory. Without an id it gets one; without times, the time now. When it returns, blob and log are durable.
    ///
    /// # Errors
    /// `record_exists`: there is one of this id; `record_erased`: there was one, and it never comes back. `bad_record` (see
    /// [`InvalidRecord`](super::InvalidRecord)), `bad_input`, `not_linked`. `backend_away`, `backend_refused`; those of the
    /// store. The record is not stored then.
    pub fn store_memory(&self, memory: &Memory) -> Result<Stored, Error> {
        self.block(|store| store.put_memory(memory, Rule::New, false))
    }

    /// As [`store_memory`](Self::store_memory), and reads the blob back before it says so: what the backend gives is what it was
    /// given, byte for byte.
    ///
    /// # Errors
    /// `backend_lied`: it was not; the record is not stored. As there.
    pub fn store_verified(&self, memory: &Memory) -> Result<Stored, Error> {
        self.block(|store| store.put_memory(memory, Rule::New, true))
    }

    /// Reads a memory: the newest revision that this device knows of.
    ///
    /// # Errors
    /// `no_record`, `record_deleted`, `record_erased`. `blob_missing`: its blob is not there (yet). `blob_stale`, `blob_misplaced`,
    /// `blob_damaged`: what the backend gave is not it. `record_newer`, `key_not_here`; `backend_away`, `backend_refused`;
    /// those of the store.
    pub fn get_memory(&self, id: &str) -> Result<Memory, Error> {
        self.block(|store| store.read_memory(id))
    }

    /// Writes a memory that there is. One that was read before is written only on top of what was read: then a write of somebody else in
    /// between is not lost, but told. `updated_at` becomes the time now.
    ///
    /// Two devices that write at once, without knowing of each other, are told later, by the event `MemoryConflict`.
    ///
    /// # Errors
    /// `no_record`, `record_deleted`, `record_erased`. `write_conflict`: it has been written since it was read; read it again. As
    /// [`store_memory`](Self::store_memory).
    pub fn update_memory(&self, memory: &Memory) -> Result<Stored, Error> {
        self.block(|store| store.put_memory(memory, update(memory.provenance()), false))
    }

    /// Deletes a memory. Says whether there was one. An older backup, or a device that was removed, may still open its blob.
    ///
    /// # Errors
    /// `bad_record`; those of the store.
    pub fn delete_memory(&self, id: &str) -> Result<bool, Error> {
        self.block(|store| store.remove(&store.memories, id, false))
    }

    /// Erases a memory, a deleted one too: it never comes back, and once its [`standing`](Self::standing) is
    /// [`Erased`](Standing::Erased), nothing that the devices of the account hold opens it. Says whether there was one.
    ///
    /// # Errors
    /// As [`delete_memory`](Self::delete_memory).
    pub fn erase_memory(&self, id: &str) -> Result<bool, Error> {
        self.block(|store| store.remove(&store.memories, id, true))
    }

    /// Erases all memories and chats of the owner. Says how many there were.
    ///
    /// # Errors
    /// Those of the store.
    pub fn erase_all(&self) -> Result<u64, Error> {
        self.block(Self::remove_all)
    }

    /// How a memory stands.
    ///
    /// # Errors
    /// `bad_record`; those of the store.
    pub fn standing(&self, id: &str) -> Result<Standing, Error> {
        self.block(|store| store.standing_of(&store.memories, id))
    }

    /// Finds the memories whose embeddings point most nearly where this one does: at most `limit` (1 to 1,000), the best first,
    /// none with a cosine below `threshold`. Exact: codes are scanned, and the best ranked again by the embeddings themselves.
    /// Memories with embeddings of other dimensions are not looked at.
    ///
    /// # Errors
    /// `bad_record`: this is no embedding; `bad_input`; those of the store.
    pub fn search_similar(
        &self,
        embedding: &[f32],
        limit: usize,
        threshold: f32,
    ) -> Result<Vec<SearchHit>, Error> {
        self.block(|store| store.similar(embedding, limit, threshold))
    }

    /// Lists memories by the time when they were made, the newest first.
    ///
    /// # Errors
    /// `bad_input`: `after` is not the `next` of a page; those of the store.
    pub fn list(&self, query: &ListQuery) -> Result<ListPage, Error> {
        self.block(|store| store.page(&store.memories, query))
    }

    /// Takes what other devices changed into the index, all of it, and has the server asked for what is newer: carry the tasks out, then
    /// again. (Lists and searches take in what is at hand by themselves.)
    ///
    /// # Errors
    /// `not_linked`; those of the store.
    pub fn refresh(&self) -> Result<Refreshed, Error> {
        self.block(Self::take_in)
    }

    /// Writes of memories that lost against another one of the same revision, from devices that did not know of each other. They are
    /// kept, the last 1,000, until they are [forgotten](Self::forget_lost); the event `MemoryConflict` tells of each.
    ///
    /// # Errors
    /// Those of the store.
    pub fn lost_writes(&self) -> Result<Vec<LostWrite>, Error> {
        self.block(Self::lost)
    }

    /// Forgets the writes of a memory that lost.
    ///
    /// # Errors
    /// `bad_record`; those of the store.
    pub fn forget_lost(&self, id: &str) -> Result<(), Error> {
        self.block(|store| store.forget_lost_writes(id))
    }

    /// Removes from the backend what no log of the account names and what was put there at least `grace` milliseconds, a day or more,
    /// before the logs were asked of the server last. Says how many there were. Without a backend there is nothing to do.
    ///
    /// A device that stored a memory there and did not reach the server since then is not known here: let the grace be longer than any
    /// device of the account is without a connection.
    ///
    /// # Errors
    /// `log_behind`: this device does not know that it knows all records, or the server does not have all of its own:
    /// [`refresh`](Self::refresh), carry the tasks out, and again.
    /// `bad_input`: a shorter grace. `backend_away`, `backend_refused`; those of the store.
    pub fn sweep(&self, grace: u64) -> Result<u64, Error> {
        self.block(|store| store.clean(grace, true))
    }

    /// As [`sweep`](Self::sweep), for an account that has no server and only this device: it relies on what this device knows now.
    /// **If another device uses the same backend, this removes its memories.**
    ///
    /// # Errors
    /// As there, but not `log_behind`.
    pub fn sweep_without_server(&self, grace: u64) -> Result<u64, Error> {
        self.block(|store| store.clean(grace, false))
    }

    /// As [`store_memory`](Self::store_memory), a chat.
    ///
    /// # Errors
    /// As there.
    pub fn store_chat(&self, chat: &Chat) -> Result<Stored, Error> {
        self.block(|store| store.put_chat(chat, Rule::New))
    }

    /// As [`update_memory`](Self::update_memory), a chat.
    ///
    /// # Errors
    /// As there.
    pub fn update_chat(&self, chat: &Chat) -> Result<Stored, Error> {
        self.block(|store| store.put_chat(chat, update(chat.provenance())))
    }

    /// As [`get_memory`](Self::get_memory), a chat.
    ///
    /// # Errors
    /// As there.
    pub fn get_chat(&self, id: &str) -> Result<Chat, Error> {
        self.block(|store| store.read_chat(id))
    }

    /// As [`delete_memory`](Self::delete_memory), a chat.
    ///
    /// # Errors
    /// As there.
    pub fn delete_chat(&self, id: &str) -> Result<bool, Error> {
        self.block(|store| store.remove(&store.chats, id, false))
    }

    /// As [`erase_memory`](Self::erase_memory), a chat.
    ///
    /// # Errors
    /// As there.
    pub fn erase_chat(&self, id: &str) -> Result<bool, Error> {
        self.block(|store| store.remove(&store.chats, id, true))
    }

    /// As [`list`](Self::list), chats.
    ///
    /// # Errors
    /// As there.
    pub fn list_chats(&self, query: &ListQuery) -> Result<ListPage, Error> {
        self.block(|store| store.page(&store.chats, query))
    }
}
