//! The memories of a profile that this process has open.

use std::process;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use sprag::memory::{
    EncryptedMemoryStore, Json, ListQuery, Listed, Memory, Owner, Redacted, SearchHit, Standing,
};
use sprag::store::ProofKey;
use sprag::{Client, Key};
use sprag_redact::{Kind, Patterns, Redactor};
use sprag_search::LexicalEmbedder;

use super::call::{
    Answer, Call, CallId, Change, Counted, EXCERPT, Fault, Filter, Forgotten, Found, Imported,
    MAX_FOUND, MAX_LISTED, Query, Whose,
};
use super::{Door, House, NotOpen};
use crate::args::Global;
use crate::error::CliError;
use crate::output::Output;
use crate::profile::{Profile, existing_store};

/// How many updates a memory remembers the calls of.
pub(crate) const UPDATES: usize = 16;
/// The field in which it does.
pub(crate) const UPDATES_FIELD: &str = "sprag_updates";
/// How often an update begins again because another one was faster.
const TRIES: usize = 16;
/// Records that are read at once where all of their content is wanted.
const WHOLE: usize = 8;
/// After a write, others may follow.
const GATHER: Duration = Duration::from_millis(300);
/// How often a server is asked for news.
const NEWS: Duration = Duration::from_secs(30);
/// How often the profile is looked after.
const UPKEEP: Duration = Duration::from_secs(24 * 60 * 60);

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
    network: Arc<Network>,
    /// That of the network, if there is one.
    courier: Mutex<Option<thread::JoinHandle<()>>>,
}

impl Local {
    fn begin(profile: Profile, global: &Global, stays: bool) -> Self {
        let client = profile.client.clone();
        let network = Arc::new(Network {
            profile: Mutex::new(profile),
            json: global.json,
            state: Mutex::default(),
            changed: Condvar::new(),
        });
        let courier = stays.then(|| {
            let network = network.clone();
            let named = thread::Builder::new().name("sprag network".to_owned());
            named.spawn(move || network.serve()).ok()
        });
        let courier = courier.flatten();
        if courier.is_none() {
            network.exchange();
        }
        Self {
            client,
            patterns: Patterns::new(),
            embedder: LexicalEmbedder::new(LexicalEmbedder::DIMENSIONS).ok(),
            network,
            courier: Mutex::new(courier),
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
        let patterns = self.patterns;
        Ok(store.redactor(move |text: &str| {
            let redacted = patterns.redact(text);
            let counts = Kind::ALL.iter().map(|kind| {
                let count = redacted.counts.of(*kind);
                (kind.name().to_owned(), count)
            });
            Redacted::new(
                redacted.text,
                counts.filter(|(_, count)| *count > 0).collect(),
            )
        }))
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
                whole,
            } => self.list(whose, filter, *limit, after.as_deref(), *whole),
            Call::Forget { whose, id, erase } => self.forget(whose, id, *erase),
            Call::Import { whose, memory } => self.import(whose, memory),
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

    fn get(&self, whose: &Whose, id: &str) -> Result<Answer, Fault> {
        let mut memory = self.store(whose)?.get_memory(id)?;
        hide(&mut memory);
        Ok(Answer::Memory(Box::new(found(memory))))
    }

    fn search(
        &self,
        whose: &Whose,
        query: &Query,
        limit: usize,
        threshold: f32,
        filter: &Filter,
    ) -> Result<Answer, Fault> {
        check_limit(limit)?;
        let store = self.store(whose)?;
        let embedding = match query {
            Query::Embedding(embedding) => embedding.clone(),
            Query::Text(text) => {
                let embedding = self.embedder.and_then(|embedder| embedder.embed(text));
                embedding.ok_or_else(|| Fault::bad_input("there is no word to search for"))?
            }
        };
        let is_all = *filter == Filter::default();
        let most = if is_all {
            limit
        } else {
            sprag::memory::MAX_HITS
        };
        let hits = store.search_similar(&embedding, most, threshold)?;
        let wanted = hits
            .into_iter()
            .filter(|hit| is_wanted(filter, &hit.tags, hit.created_at));
        let mut found = Vec::new();
        for hit in wanted.take(limit) {
            let score = hit.score;
            let read = self.read(&store, hit.into(), false)?;
            found.extend(read.map(|read| Found {
                score: Some(score),
                ..read
            }));
        }
        Ok(Answer::Memories { found, more: None })
    }

    fn list(
        &self,
        whose: &Whose,
        filter: &Filter,
        limit: usize,
        after: Option<&str>,
        whole: bool,
    ) -> Result<Answer, Fault> {
        check_limit(limit)?;
        let store = self.store(whose)?;
        let mut query = ListQuery::new();
        query.tag = filter.tags.first().cloned();
        query.since = filter.since;
        query.before = filter.until;
        query.after = after.map(str::to_owned);
        let (mut found, mut bytes) = (Vec::new(), 0_usize);
        loop {
            // A page is taken as a whole: the next one begins where it ended.
            let left = limit.saturating_sub(found.len());
            query.limit = if whole { left.min(WHOLE) } else { left };
            let page = store.list(&query)?;
            for listed in page.items {
                if !is_wanted(filter, &listed.tags, listed.created_at) {
                    continue;
                }
                if let Some(read) = self.read(&store, listed.into(), whole)? {
                    bytes = bytes.saturating_add(read.memory.content.len());
                    found.push(read);
                }
            }
            query.after = page.next;
            if query.after.is_none() || found.len() >= limit || bytes >= MAX_LISTED {
                return Ok(Answer::Memories {
                    found,
                    more: query.after,
                });
            }
        }
    }

    /// A memory that the index knows. `None` if it is gone meanwhile.
    fn read(
        &self,
        store: &EncryptedMemoryStore,
        known: Known,
        whole: bool,
    ) -> Result<Option<Found>, Fault> {
        match store.get_memory(&known.id) {
            Ok(mut memory) => {
                if whole {
                    return Ok(Some(found(memory)));
                }
                hide(&mut memory);
                let cut = cut(&mut memory.content);
                Ok(Some(Found {
                    cut,
                    ..found(memory)
                }))
            }
            Err(error) => match error.code() {
                "no_record" | "record_deleted" | "record_erased" => Ok(None),
                // It concerns this one alone.
                code if code.starts_with("blob_")
                    || matches!(code, "record_newer" | "key_not_here") =>
                {
                    let mut memory = Memory::default()
                        .id(known.id)
                        .title(known.title)
                        .tags(known.tags);
                    memory.created_at = known.created_at;
                    memory.updated_at = known.updated_at;
                    Ok(Some(Found {
                        unreadable: Some(code.to_owned()),
                        ..found(memory)
                    }))
                }
                _ => Err(error.into()),
            },
        }
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
        if memory.id.is_empty() {
            return Err(Fault::bad_input("a memory that is imported has an id"));
        }
        Ok(Answer::Imported(match store.standing(&memory.id)? {
            Standing::Absent => {
                store.store_memory(memory)?;
                Imported::Added
            }
            Standing::Live if store.get_memory(&memory.id)? == *memory => Imported::Same,
            Standing::Live => Imported::Differs,
            _ => Imported::Forgotten,
        }))
    }

    fn stats(&self, whose: &Whose) -> Result<Answer, Fault> {
        let store = self.store(whose)?;
        let mut query = ListQuery::new().limit(sprag::memory::MAX_HITS);
        let mut memories = 0_u64;
        loop {
            let page = store.list(&query)?;
            memories = memories.saturating_add(u64::try_from(page.items.len()).unwrap_or(0));
            query.after = page.next;
            if query.after.is_none() {
                return Ok(Answer::Counted(Counted {
                    memories,
                    user: self.client.user()?,
                    process: process::id(),
                }));
            }
        }
    }
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
            self.network.wake();
        }
        answer
    }

    fn proof_key(&self) -> Result<ProofKey, Fault> {
        Ok(self.client.proof_key()?)
    }

    fn close(&self) -> Result<(), Fault> {
        self.network.end();
        let courier = (self.courier.lock())
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(courier) = courier {
            // A panic of it was told already.
            let _ = courier.join();
        }
        Ok(self.client.close()?)
    }
}

/// The network, beside the calls: what goes wrong there is told, and tried again.
struct Network {
    profile: Mutex<Profile>,
    json: bool,
    state: Mutex<Wanted>,
    changed: Condvar,
}

#[derive(Default)]
struct Wanted {
    /// Something was written.
    carry: bool,
    end: bool,
}

impl Network {
    fn lock(&self) -> MutexGuard<'_, Wanted> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self) {
        self.lock().carry = true;
        self.changed.notify_all();
    }

    /// A last time, if something was written and nobody carried it yet.
    fn end(&self) {
        let mut state = self.lock();
        state.end = true;
        let carry = std::mem::take(&mut state.carry);
        drop(state);
        self.changed.notify_all();
        if carry {
            self.exchange();
        }
    }

    /// To and fro with the server, if there is one.
    fn exchange(&self) {
        let profile = self.profile.lock().unwrap_or_else(PoisonError::into_inner);
        if profile.server().is_none() {
            return;
        }
        let mut output = Output::new(self.json);
        if let Err(error) = profile.exchange(&mut output)
            && error.code() != "closed"
        {
            output.note(&format!("the exchange with the server failed: {error}"));
        }
    }

    /// Serves the network until the end.
    fn serve(&self) {
        let mut looked_after: Option<Instant> = None;
        loop {
            if looked_after.is_none_or(|then| then.elapsed() >= UPKEEP) {
                looked_after = Some(Instant::now());
                self.look_after();
            }
            self.exchange();
            let state = self.lock();
            let waited = self
                .changed
                .wait_timeout_while(state, NEWS, |state| !state.carry && !state.end);
            let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
            let waited = self
                .changed
                .wait_timeout_while(state, GATHER, |state| !state.end);
            let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
            if state.end {
                return;
            }
            state.carry = false;
        }
    }

    fn look_after(&self) {
        let profile = self.profile.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = profile.client.maintain()
            && !matches!(error.code(), "closed" | "not_linked")
        {
            Output::new(self.json).note(&format!("upkeep failed: {error}"));
        }
    }
}

/// What the index says of a memory.
struct Known {
    id: String,
    title: String,
    tags: Vec<String>,
    created_at: u64,
    updated_at: u64,
}

impl From<Listed> for Known {
    fn from(listed: Listed) -> Self {
        Self {
            id: listed.id,
            title: listed.title,
            tags: listed.tags,
            created_at: listed.created_at,
            updated_at: listed.updated_at,
        }
    }
}

impl From<SearchHit> for Known {
    fn from(hit: SearchHit) -> Self {
        Self {
            id: hit.id,
            title: hit.title,
            tags: hit.tags,
            created_at: hit.created_at,
            updated_at: hit.updated_at,
        }
    }
}

fn found(memory: Memory) -> Found {
    let written = memory.provenance().cloned();
    Found {
        revision: written.as_ref().map_or(0, |written| written.revision),
        written_at: written.as_ref().map_or(0, |written| written.written_at),
        device: written.as_ref().map_or(0, |written| written.device),
        agent: written.and_then(|written| written.agent),
        score: None,
        cut: false,
        unreadable: None,
        memory,
    }
}

/// Without what nobody wants to read.
fn hide(memory: &mut Memory) {
    memory.embedding = None;
    memory.extra.retain(|(name, _)| name != UPDATES_FIELD);
}

/// Cuts a content to an excerpt. Says whether it did.
fn cut(content: &mut String) -> bool {
    let end = content.char_indices().nth(EXCERPT).map(|(at, _)| at);
    match end {
        Some(end) => {
            content.truncate(end);
            true
        }
        None => false,
    }
}

fn is_wanted(filter: &Filter, tags: &[String], at: u64) -> bool {
    filter.tags.iter().all(|tag| tags.contains(tag))
        && filter.since.is_none_or(|since| at >= since)
        && filter.until.is_none_or(|until| at < until)
}

fn check_limit(limit: usize) -> Result<(), Fault> {
    if (1..=MAX_FOUND).contains(&limit) {
        Ok(())
    } else {
        Err(Fault::bad_input(format!(
            "the limit is 1 to {MAX_FOUND}, and not {limit}"
        )))
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
