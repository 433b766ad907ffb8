//! Reading, finding and counting memories.

use std::process;

use sprag::memory::{EncryptedMemoryStore, Json, ListQuery, Listed, Memory, SearchHit};

use super::super::call::{
    Answer, Counted, EXCERPT, Fault, Filter, Found, MAX_FOUND, MAX_LISTED, Query, Whose,
};
use super::{Local, UPDATES_FIELD};

impl Local {
    pub(super) fn get(&self, whose: &Whose, id: &str) -> Result<Answer, Fault> {
        let mut memory = self.store(whose)?.get_memory(id)?;
        hide(&mut memory);
        Ok(Answer::Memory(Box::new(found(memory))))
    }

    pub(super) fn search(
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
            let read = self.read(&store, hit.into())?;
            found.extend(read.map(|read| Found {
                score: Some(score),
                ..read
            }));
        }
        Ok(Answer::Memories { found, more: None })
    }

    pub(super) fn list(
        &self,
        whose: &Whose,
        filter: &Filter,
        limit: usize,
        after: Option<&str>,
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
            query.limit = left;
            let page = store.list(&query)?;
            for listed in page.items {
                if !is_wanted(filter, &listed.tags, listed.created_at) {
                    continue;
                }
                if let Some(read) = self.read(&store, listed.into())? {
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
    fn read(&self, store: &EncryptedMemoryStore, known: Known) -> Result<Option<Found>, Fault> {
        match store.get_memory(&known.id) {
            Ok(mut memory) => {
                hide(&mut memory);
                let cut = cut(&mut memory);
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

    pub(super) fn stats(&self, whose: &Whose) -> Result<Answer, Fault> {
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

    /// A part of everything.
    pub(super) fn export(&self, whose: &Whose, after: Option<&str>) -> Result<Answer, Fault> {
        let store = self.store(whose)?;
        let page = store.start().export_page(after).wait()?;
        Ok(Answer::Exported {
            text: page.text,
            more: page.next,
            left_out: page.left_out,
        })
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

/// Cuts a memory to an excerpt: nothing in an answer with many is longer. Says whether it did.
fn cut(memory: &mut Memory) -> bool {
    let mut is_cut = false;
    let content = &mut memory.content;
    if let Some((end, _)) = content.char_indices().nth(EXCERPT) {
        content.truncate(end);
        is_cut = true;
    }
    let is_long = |json: &mut Json| json.as_str().len() > EXCERPT;
    is_cut |= memory.metadata.take_if(is_long).is_some();
    // Nobody shows them.
    memory.extra.clear();
    is_cut
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
