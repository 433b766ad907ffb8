//! The memories of a profile that this process has open.

mod network;
mod read;
#[cfg(test)]
mod tests;

use sprag::memory::{Chat, EncryptedMemoryStore, Json, Memory, Owner, Standing};
use sprag::store::ProofKey;
use sprag::{Client, Key};
use sprag_redact::{Patterns, Redactor};
use sprag_search::LexicalEmbedder;

use self::network::Courier;
use super::call::{Answer, Call, CallId, Change, Fault, Forgotten, Imported, Whose};
use super::{Door, House, NotOpen};
use crate::args::Global;
use crate::error::CliError;
use crate::profile::{Profile, existing_store};

/// How many updates a memory remembers the calls of.
pub(crate) const UPDATES: usize = 16;
/// The field in which it does.
pub(crate) const UPDATES_FIELD: &str = "sprag_updates";
/// How often an update begins again because another one was faster.
const TRIES: usize = 16;
/// The way to a profile in a folder.
pub(crate) struct ProfileDoor {
    global: Global,
    key: Key,
    /// For long: then the network is served meanwhile, not only at the beginning and the end.
    stays: bool,
}

impl ProfileDoor {
    pub(crate) fn new(global: &Global, key: Key, stays: bool) -> Self {
        Self {
            global: global.clone(),
            key,
            stays,
        }
    }
}

impl Door for ProfileDoor {
    fn open(&self) -> Result<Box<dyn House>, NotOpen> {
        match Profile::open_with_key(&self.global, self.key.clone()) {
            Ok(profile) => Ok(Box::new(Local::begin(profile, &self.global, self.stays))),
            Err(CliError::Client(error)) if error.code() == "store_in_use" => {
                Err(NotOpen::InUse(error.owner()))
            }
            Err(error) => Err(NotOpen::Failed(error.into())),
        }
    }

    fn proof_key(&self) -> Result<ProofKey, Fault> {
        let store = existing_store(&self.global)?;
        let key = ProofKey::read(store, &self.key).map_err(sprag::Error::from);
        Ok(key?)
    }
}

/// A profile that is open here.
struct Local {
    client: Client,
    patterns: Patterns,
    embedder: Option<LexicalEmbedder>,
    courier: Courier,
}

impl Local {
    fn begin(profile: Profile, global: &Global, stays: bool) -> Self {
        let client = profile.client.clone();
        Self {
            client,
            patterns: Patterns::new(),
            embedder: LexicalEmbedder::new(LexicalEmbedder::DIMENSIONS).ok(),
            courier: Courier::begin(profile, global.json, stays),
        }
    }

    fn store(&self, whose: &Whose) -> Result<EncryptedMemoryStore, Fault> {
        let user = match &whose.user {
            Some(user) => user.clone(),
            None => self.client.user()?,
        };
        let mut owner = Owner::new(&user);
        if let Some(agent) = &whose.agent {
            owner = owner.agent(agent);
        }
        Ok(EncryptedMemoryStore::new(&self.client, &owner)?)
    }

    fn writer(&self, whose: &Whose, redact: bool) -> Result<EncryptedMemoryStore, Fault> {
        let store = self.store(whose)?;
        if !redact {
            return Ok(store);
        }
        // As it is, and not as a function of texts: it knows secrets by the names of their fields, too.
        Ok(store.redactor(self.patterns))
    }

    fn try_answer(&self, id: CallId, call: &Call) -> Result<Answer, Fault> {
        match call {
            Call::Store {
                whose,
                memory,
                redact,
            } => self.add(id, whose, memory, *redact),
            Call::Update {
                whose,
                id: memory,
                change,
                redact,
            } => self.update(id, whose, memory, change, *redact),
            Call::Get { whose, id } => self.get(whose, id),
            Call::Search {
                whose,
                query,
                limit,
                threshold,
                filter,
            } => self.search(whose, query, *limit, *threshold, filter),
            Call::List {
                whose,
                filter,
                limit,
                after,
            } => self.list(whose, filter, *limit, after.as_deref()),
            Call::Forget { whose, id, erase } => self.forget(whose, id, *erase),
            Call::Import { whose, memory } => self.import(whose, memory),
            Call::ImportChat { whose, chat } => self.import_chat(whose, chat),
            Call::Export { whose, after } => self.export(whose, after.as_deref()),
            Call::Stats { whose } => self.stats(whose),
        }
    }

    fn add(
        &self,
        id: CallId,
        whose: &Whose,
        memory: &Memory,
        redact: bool,
    ) -> Result<Answer, Fault> {
        let store = self.writer(whose, redact)?;
        let id = id.digits();
        let written = |redacted| Answer::Written {
            id: id.clone(),
            revision: 1,
            redacted,
        };
        // Nobody else draws this id: if it is there, this call was done, whatever became of the memory since.
        if store.standing(&id)? != Standing::Absent {
            return Ok(written(Vec::new()));
        }
        let mut memory = memory.clone().id(&id);
        if memory.embedding.is_none() {
            memory.embedding = self.embedding_of(&memory, redact);
        }
        match store.store_verified(&memory) {
            Ok(stored) => Ok(written(stored.redacted)),
            Err(error) => Err(error.into()),
        }
    }

    fn update(
        &self,
        call: CallId,
        whose: &Whose,
        id: &str,
        change: &Change,
        redact: bool,
    ) -> Result<Answer, Fault> {
        let store = self.writer(whose, redact)?;
        let call = call.digits();
        let mut tries = 0;
        loop {
            let mut memory = store.get_memory(id)?;
            let mut updates = updates_of(&memory);
            if updates.contains(&call) {
                let revision = memory.provenance().map_or(0, |written| written.revision);
                return Ok(Answer::Written {
                    id: id.to_owned(),
                    revision,
                    redacted: Vec::new(),
                });
            }
            updates.push(call.clone());
            let old = updates.len().saturating_sub(UPDATES);
            note_updates(&mut memory, updates.get(old..).unwrap_or_default());
            self.change(&mut memory, change, redact);
            match store.update_memory(&memory) {
                Ok(stored) => {
                    return Ok(Answer::Written {
                        id: stored.id,
                        revision: stored.revision,
                        redacted: stored.redacted,
                    });
                }
                Err(error) if error.code() == "write_conflict" && tries < TRIES => tries += 1,
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn change(&self, memory: &mut Memory, change: &Change, redact: bool) {
        let Change {
            content,
            title,
            tags,
            metadata,
            embedding,
        } = change;
        let words = content.is_some() || title.is_some() || tags.is_some();
        if let Some(content) = content {
            memory.content.clone_from(content);
        }
        if let Some(title) = title {
            memory.title.clone_from(title);
        }
        if let Some(tags) = tags {
            memory.tags.clone_from(tags);
        }
        if metadata.is_some() {
            memory.metadata.clone_from(metadata);
        }
        if embedding.is_some() {
            memory.embedding.clone_from(embedding);
        } else if words {
            memory.embedding = self.embedding_of(memory, redact);
        }
    }

    /// The vector of a memory's words, as they will stand there. `None` if it has none.
    fn embedding_of(&self, memory: &Memory, redact: bool) -> Option<Vec<f32>> {
        let mut text = [memory.title.as_str(), "\n", &memory.content, "\n"].concat();
        text.push_str(&memory.tags.join("\n"));
        let text = zeroize::Zeroizing::new(if redact {
            self.patterns.redact(&text).text
        } else {
            text
        });
        self.embedder?.embed(&text)
    }

    fn forget(&self, whose: &Whose, id: &str, erase: bool) -> Result<Answer, Fault> {
        let store = self.store(whose)?;
        match store.standing(id)? {
            Standing::Absent => return Err(Fault::not_found(id)),
            Standing::Live if !erase => {
                store.delete_memory(id)?;
            }
            Standing::Live | Standing::Deleted if erase => {
                store.erase_memory(id)?;
            }
            _ => {}
        }
        let state = match store.standing(id)? {
            Standing::ErasePending => Forgotten::ErasePending,
            Standing::Erased => Forgotten::Erased,
            _ => Forgotten::Deleted,
        };
        Ok(Answer::Forgotten {
            id: id.to_owned(),
            state,
        })
    }

    fn import(&self, whose: &Whose, memory: &Memory) -> Result<Answer, Fault> {
        let store = self.store(whose)?;
        let stored = store.store_memory(memory).map(drop);
        imported(stored, || {
            let there = store.get_memory(&memory.id);
            there.is_ok_and(|there| there == *memory)
        })
    }

    fn import_chat(&self, whose: &Whose, chat: &Chat) -> Result<Answer, Fault> {
        let store = self.store(whose)?;
        let stored = store.store_chat(chat).map(drop);
        imported(stored, || {
            let there = store.get_chat(&chat.id);
            there.is_ok_and(|there| there == *chat)
        })
    }
}

/// What became of an import.
fn imported(
    stored: Result<(), sprag::Error>,
    is_same: impl FnOnce() -> bool,
) -> Result<Answer, Fault> {
    Ok(Answer::Imported(match stored {
        Ok(()) => Imported::Added,
        Err(error) => match error.code() {
            "record_exists" if is_same() => Imported::Same,
            "record_exists" => Imported::Differs,
            "record_erased" => Imported::Erased,
            _ => return Err(error.into()),
        },
    }))
}

impl House for Local {
    fn answer(&self, id: CallId, call: &Call) -> Result<Answer, Fault> {
        let answer = match self.try_answer(id, call) {
            Err(fault) if fault.reopens() => {
                // What was under way is on the disk, or not: the same call again finds out.
                self.client.reopen()?;
                self.try_answer(id, call)
            }
            answer => answer,
        };
        if call.writes() {
            self.courier.wake();
        }
        answer
    }

    fn proof_key(&self) -> Result<ProofKey, Fault> {
        Ok(self.client.proof_key()?)
    }

    fn close(&self) -> Result<(), Fault> {
        self.courier.end();
        Ok(self.client.close()?)
    }
}

/// The calls that updated a memory last.
fn updates_of(memory: &Memory) -> Vec<String> {
    let field = memory.extra.iter().find(|(name, _)| name == UPDATES_FIELD);
    let updates = field.and_then(|(_, json)| serde_json::from_str(json.as_str()).ok());
    updates.unwrap_or_default()
}

fn note_updates(memory: &mut Memory, updates: &[String]) {
    memory.extra.retain(|(name, _)| name != UPDATES_FIELD);
    let json = serde_json::to_string(updates).ok();
    if let Some(json) = json.and_then(|json| Json::parse(&json).ok()) {
        memory.extra.push((UPDATES_FIELD.to_owned(), json));
    }
}

impl Fault {
    /// The store failed, and has to be opened again before anything else.
    fn reopens(&self) -> bool {
        matches!(
            self.code.as_str(),
            "store_poisoned" | "store_failed" | "store_full"
        )
    }
}
