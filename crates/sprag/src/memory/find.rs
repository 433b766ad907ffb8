//! Listing and searching, and keeping the index up with what other devices write.

use std::ops::ControlFlow;

use sprag_session::Device;
use sprag_session::memory::{Entry, RecordId, RecordState, Space};
use zeroize::Zeroizing;

use super::index::{Place, Shelf, Tag};
use super::record::check_embedding;
use super::row::Row;
use super::steps::{self, Opening};
use super::store::EncryptedMemoryStore;
use crate::Error;
use crate::client::{Step, Write};
use crate::pending::Pending;
use crate::sync::Arc;

/// The most hits of a search, and the longest page of a list.
pub const MAX_HITS: usize = 1_000;

/// Changes that are looked at in one go.
const PASS: usize = 4_096;
/// Changes that are taken into the index in one step, and bytes of their blobs.
const CHUNK: usize = 64;
const CHUNK_BYTES: u64 = 8 << 20;
/// Blobs that a list or a search gets from a backend for the index.
const FETCHES: usize = 64;

/// Which records are listed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ListQuery {
    /// With this tag only.
    pub tag: Option<String>,
    /// Made at this time or later, in milliseconds since 1970.
    pub since: Option<u64>,
    /// Made before this time.
    pub before: Option<u64>,
    /// At most so many; 0 is 100, and more than 1,000 are 1,000.
    pub limit: usize,
    /// From where a page before ended: its [`next`](ListPage::next).
    pub after: Option<String>,
}

impl ListQuery {
    /// All of them.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// With this tag only.
    #[must_use]
    pub fn tag(mut self, tag: &str) -> Self {
        self.tag = Some(tag.to_owned());
        self
    }

    /// Made at this time or later, in milliseconds since 1970.
    #[must_use]
    pub fn since(mut self, since: u64) -> Self {
        self.since = Some(since);
        self
    }

    /// Made before this time, in milliseconds since 1970.
    #[must_use]
    pub fn before(mut self, before: u64) -> Self {
        self.before = Some(before);
        self
    }

    /// At most so many, 1 to 1,000.
    #[must_use]
    pub fn limit(mut self, limit: usize) -> Self {
        self.limit = limit;
        self
    }

    /// From where a page before ended.
    #[must_use]
    pub fn after(mut self, next: &str) -> Self {
        self.after = Some(next.to_owned());
        self
    }
}

/// What a list says of a record.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Listed {
    /// Its id.
    pub id: String,
    /// Its title.
    pub title: String,
    /// Its tags.
    pub tags: Vec<String>,
    /// When it was made, in milliseconds since 1970.
    pub created_at: u64,
    /// When it was changed last.
    pub updated_at: u64,
    /// How many dimensions its embedding has; 0: it has none.
    pub dimensions: usize,
}

impl std::fmt::Debug for Listed {
    /// Titles and tags are nothing for a log.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Listed").finish_non_exhaustive()
    }
}

/// A part of a list, the newest first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ListPage {
    /// The records.
    pub items: Vec<Listed>,
    /// Where the next page begins; `None`: this was the last.
    pub next: Option<String>,
}

/// A record that a search found.
#[derive(Clone, PartialEq)]
#[non_exhaustive]
pub struct SearchHit {
    /// Its id.
    pub id: String,
    /// How much its embedding points where the query does: the cosine of the angle, 1 for the same direction.
    pub score: f32,
    /// Its title.
    pub title: String,
    /// Its tags.
    pub tags: Vec<String>,
    /// When it was made, in milliseconds since 1970.
    pub created_at: u64,
    /// When it was changed last.
    pub updated_at: u64,
}

impl std::fmt::Debug for SearchHit {
    /// Titles and tags are nothing for a log.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SearchHit")
            .field("score", &self.score)
            .finish_non_exhaustive()
    }
}

/// How far the index is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Refreshed {
    /// Changes of other devices that were taken in now.
    pub indexed: u64,
    /// Records that the log knows and the index does not, since their blob is not here yet or cannot be read. Of very many,
    /// only some are counted.
    pub behind: u64,
}

/// What becomes of a change.
enum Taken {
    Gone(Tag),
    Row(Tag, RecordId, u64, Zeroizing<Vec<u8>>),
    Unreadable(Tag, u64),
    NotYet,
}

impl EncryptedMemoryStore {
    /// Takes what other devices changed into the index, with at most so many calls of the backend.
    pub(super) fn catch_up(&self, space: &Space, mut fetches: usize) -> Result<Refreshed, Error> {
        let shared = &self.client.shared;
        let mut refreshed = Refreshed::default();
        loop {
            let shelf = self.loaded(space)?;
            let (_, mut changed) = shared.submit(Write::Durable, |step| {
                Ok(step.device.memory_changed(step.rows, space, PASS)?)
            })?;
            // What the backend lacked before comes last, so that it takes nobody's turn.
            shelf.look(|index| {
                changed.sort_by_cached_key(|(tag, changed)| {
                    let entry = changed.as_ref().map(|(_, entry)| entry.revision);
                    entry.is_some_and(|revision| index.missing.contains(&(*tag, revision)))
                });
            });
            let mut progress = 0;
            refreshed.behind = 0;
            let mut changed_left = changed.as_slice();
            while !changed_left.is_empty() {
                let (chunk, rest) = changed_left.split_at(chunk_length(changed_left));
                changed_left = rest;
                let taken = self.take(space, &shelf, chunk, &mut fetches)?;
                let (done, left) = self.put(space, taken)?;
                progress += done;
                refreshed.behind += left;
            }
            refreshed.indexed += progress;
            if changed.len() < PASS || progress == 0 {
                return Ok(refreshed);
            }
        }
    }

    /// Reads the blobs of what changed.
    fn take(
        &self,
        space: &Space,
        shelf: &Shelf,
        chunk: &[(Tag, Option<(RecordId, Entry)>)],
        fetches: &mut usize,
    ) -> Result<Vec<Taken>, Error> {
        let shared = &self.client.shared;
        let (_, held) = shared.submit(Write::Durable, |step| {
            let mut held = Vec::with_capacity(chunk.len());
            for (_, changed) in chunk {
                held.push(match changed.as_ref().map(|(_, entry)| &entry.state) {
                    Some(RecordState::Live {
                        blob,
                        at_server: true,
                        ..
                    }) => step.device.memory_blob(step.rows, blob)?,
                    _ => None,
                });
            }
            Ok(held)
        })?;
        let mut taken = Vec::with_capacity(chunk.len());
        for ((tag, changed), held) in chunk.iter().zip(held) {
            let Some((id, entry)) = changed else {
                taken.push(Taken::Gone(*tag));
                continue;
            };
            let seen = (*tag, entry.revision);
            let Ok(opening) = Opening::of(id.clone(), entry) else {
                taken.push(Taken::NotYet);
                continue;
            };
            if shelf.look(|index| index.unreadable.contains(&seen)) {
                taken.push(Taken::NotYet);
                continue;
            }
            if !opening.at_server {
                if self.backend.is_none() || *fetches == 0 {
                    taken.push(Taken::NotYet);
                    continue;
                }
                *fetches -= 1;
            }
            let blob = match self.blob(&opening, held) {
                Ok(blob) => blob,
                // A backend that is away, or has nothing yet, may have it later.
                Err(error) => {
                    if error.code() == "backend_away" {
                        // Nobody waits for it once for each record.
                        *fetches = 0;
                    } else if !opening.at_server {
                        shelf.look(|index| index.missing.insert(seen));
                    }
                    taken.push(Taken::NotYet);
                    continue;
                }
            };
            taken.push(match self.row_of(space, &opening, &blob) {
                Ok(row) => Taken::Row(*tag, id.clone(), entry.revision, row),
                Err(_) => Taken::Unreadable(*tag, entry.revision),
            });
        }
        Ok(taken)
    }

    fn row_of(
        &self,
        space: &Space,
        opening: &Opening,
        blob: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, Error> {
        let plaintext = opening.open(space, blob, false)?;
        let row = if *space == self.chats {
            Row::of_chat(&opening.chat(&plaintext)?)
        } else {
            Row::of_memory(&opening.memory(&plaintext)?)?
        };
        Ok(row.encode())
    }

    /// Puts what was read into the index. Says how much was taken in, and how much is left.
    fn put(&self, space: &Space, taken: Vec<Taken>) -> Result<(u64, u64), Error> {
        let (mut done, mut left) = (0, 0);
        let shared = &self.client.shared;
        // With the next commit: what is lost is read again.
        shared.submit(Write::Lazy, |step| {
            let mut arrived = Vec::new();
            for change in taken {
                match change {
                    Taken::NotYet => left += 1,
                    Taken::Unreadable(tag, revision) => {
                        left += 1;
                        arrived.push((tag, Err(revision)));
                    }
                    Taken::Gone(tag) => {
                        let now = step.device.memory_of_tag(step.rows, space, &tag)?;
                        let lives = |(_, entry): &(RecordId, Entry)| {
                            matches!(entry.state, RecordState::Live { .. })
                        };
                        if now.as_ref().is_some_and(lives) {
                            left += 1;
                        } else {
                            step.device.memory_index_taken(step.rows, space, &tag)?;
                            arrived.push((tag, Ok(None)));
                            done += 1;
                        }
                    }
                    Taken::Row(tag, id, revision, row) => {
                        let device = &step.device;
                        if device.memory_index_put(step.rows, space, &id, revision, &row)? {
                            arrived.push((tag, Ok(Some(row))));
                            done += 1;
                        } else {
                            left += 1;
                        }
                    }
                }
            }
            let shelf = shared.memories.shelf(space);
            for (tag, arrived) in arrived {
                match arrived {
                    Ok(Some(row)) => shelf.put(tag, &row),
                    Ok(None) => shelf.remove(tag),
                    Err(revision) => shelf.note_unreadable(tag, revision),
                }
            }
            Ok(())
        })?;
        Ok((done, left))
    }

    /// The index of a space, its rows read without the lock of the client.
    fn loaded(&self, space: &Space) -> Result<Arc<Shelf>, Error> {
        let shared = &self.client.shared;
        let shelf = shared.memories.shelf(space);
        shelf.load(
            |begun| {
                let begin = |_: Step<'_, '_>| {
                    begun();
                    Ok(())
                };
                shared.submit(Write::Durable, begin).map(drop)
            },
            |index| {
                let store = shared.store()?;
                // Another reader of the same rows: that of the client belongs to its steps.
                let device = Device::load(&store)?.ok_or_else(Error::not_linked)?;
                Ok(device.memory_index(&store, space, &mut |tag, row| {
                    index.put(*tag, row);
                    ControlFlow::Continue(())
                })?)
            },
        )?;
        Ok(shelf)
    }

    /// The index of a space, with what is at hand.
    fn shelf(&self, space: &Space) -> Result<Arc<Shelf>, Error> {
        self.catch_up(space, FETCHES)?;
        self.loaded(space)
    }

    /// A result that shows everything that was submitted so far: it is told when that is durable.
    pub(super) fn settled<T: Send + 'static>(&self, result: T) -> Pending<T> {
        self.client.shared.step(Write::Durable, |_| Ok(result))
    }

    pub(super) fn page(
        &self,
        space: &Space,
        query: &ListQuery,
    ) -> Result<Pending<ListPage>, Error> {
        let page = self.page_now(space, query)?;
        Ok(self.settled(page))
    }

    /// A page, perhaps of what is not durable yet.
    pub(super) fn page_now(&self, space: &Space, query: &ListQuery) -> Result<ListPage, Error> {
        let behind = match &query.after {
            None => query.before.map(|before| (before, String::new())),
            Some(after) => {
                let place = read_place(after)?;
                Some(match query.before {
                    Some(before) => place.min((before, String::new())),
                    None => place,
                })
            }
        };
        let limit = match query.limit {
            0 => 100,
            limit => limit.min(MAX_HITS),
        };
        let shelf = self.shelf(space)?;
        Ok(shelf.look(|index| {
            let mut page = ListPage::default();
            for known in index.newest(behind) {
                let row = &known.row;
                if query.since.is_some_and(|since| row.created_at < since) {
                    break;
                }
                let wanted = query.tag.as_ref();
                if wanted.is_some_and(|tag| !row.tags.contains(tag)) {
                    continue;
                }
                if page.items.len() >= limit {
                    page.next = page.items.last().map(write_place);
                    break;
                }
                page.items.push(Listed {
                    id: row.id.clone(),
                    title: row.title.clone(),
                    tags: row.tags.clone(),
                    created_at: row.created_at,
                    updated_at: row.updated_at,
                    dimensions: known.dimensions,
                });
            }
            page
        }))
    }

    pub(super) fn similar(
        &self,
        embedding: &[f32],
        limit: usize,
        threshold: f32,
    ) -> Result<Pending<Vec<SearchHit>>, Error> {
        check_embedding(embedding)?;
        if !(1..=MAX_HITS).contains(&limit) || !threshold.is_finite() {
            return Err(Error::bad_input());
        }
        let space = &self.memories;
        let shelf = self.shelf(space)?;
        // As many as the exact order may need: the codes are within 0.01 or so.
        let wide = limit.saturating_mul(2).saturating_add(20);
        let tags = shelf.look(|index| index.candidates(embedding, wide));
        let shared = &self.client.shared;
        let (_, rows) = shared.submit(Write::Durable, |step| {
            steps::index_rows(&step, space, &tags)
        })?;
        let mut scored = Vec::with_capacity(rows.len());
        for (tag, row) in &rows {
            if let Some(vector) = steps::vector(row)? {
                scored.push((cosine(embedding, &vector), *tag));
            }
        }
        scored.retain(|(score, _)| *score >= threshold);
        scored.sort_by(|(one, tag), (other, other_tag)| {
            other.total_cmp(one).then_with(|| tag.cmp(other_tag))
        });
        let hits: Vec<_> = shelf.look(|index| {
            let hits = scored.into_iter().filter_map(|(score, tag)| {
                let row = &index.get(&tag)?.row;
                Some(SearchHit {
                    id: row.id.clone(),
                    score,
                    title: row.title.clone(),
                    tags: row.tags.clone(),
                    created_at: row.created_at,
                    updated_at: row.updated_at,
                })
            });
            hits.take(limit).collect()
        });
        Ok(self.settled(hits))
    }

    pub(super) fn take_in(&self) -> Result<Pending<Refreshed>, Error> {
        let mut sum = Refreshed::default();
        for space in [&self.memories, &self.chats] {
            let one = self.catch_up(space, usize::MAX)?;
            sum.indexed += one.indexed;
            sum.behind += one.behind;
        }
        Ok(self.client.shared.step(Write::Durable, |mut step| {
            step.device.memory_refresh(step.rows, &mut step.env)?;
            Ok(sum)
        }))
    }
}

/// How many of these changes are taken in at once: at least one.
fn chunk_length(changed: &[(Tag, Option<(RecordId, Entry)>)]) -> usize {
    let mut bytes = 0_u64;
    let fits = changed.iter().take(CHUNK).take_while(|(_, changed)| {
        if let Some(RecordState::Live { size, .. }) =
            changed.as_ref().map(|(_, entry)| &entry.state)
        {
            bytes = bytes.saturating_add(*size);
        }
        bytes <= CHUNK_BYTES
    });
    fits.count().max(1)
}

/// The cosine of the angle between two vectors of one length, of which neither is zero.
#[expect(
    clippy::cast_possible_truncation,
    reason = "the nearest f32 is what is wanted"
)]
fn cosine(one: &[f32], other: &[f32]) -> f32 {
    let dot = |a: &[f32], b: &[f32]| -> f64 {
        let pairs = a.iter().zip(b);
        pairs.map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
    };
    let lengths = dot(one, one).sqrt() * dot(other, other).sqrt();
    (dot(one, other) / lengths) as f32
}

pub(super) fn write_place(item: &Listed) -> String {
    format!("{}-{}", item.created_at, item.id)
}

fn read_place(text: &str) -> Result<Place, Error> {
    let (time, id) = text.split_once('-').ok_or_else(Error::bad_input)?;
    let time = time.parse().map_err(|_| Error::bad_input())?;
    Ok((time, id.to_owned()))
}
