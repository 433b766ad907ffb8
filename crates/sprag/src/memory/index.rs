//! The index of a space in memory: which records there are, by time, by tag, by what their embeddings point at. Made of
//! rows of the store, shared by all handles of a client, and gone when the client is closed.

use std::collections::{BTreeMap, HashMap, HashSet};

use sprag_search::VectorIndex;
use sprag_session::memory::Space;
use zeroize::Zeroizing;

use super::row::Row;
use crate::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Names a record in the rows of its space.
pub(crate) type Tag = [u8; 16];

/// The indexes of all spaces that were looked at.
#[derive(Default)]
pub(crate) struct Indexes(Mutex<HashMap<Space, Arc<Shelf>>>);

impl Indexes {
    /// The one of a space, perhaps not loaded yet.
    pub(crate) fn shelf(&self, space: &Space) -> Arc<Shelf> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(all.entry(space.clone()).or_default())
    }

    /// Forgets one: it is loaded again.
    pub(crate) fn forget(&self, space: &Space) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.remove(space);
    }

    /// Forgets all of them.
    pub(crate) fn clear(&self) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.clear();
    }
}

/// What changed.
enum Change {
    Put(Tag, Zeroizing<Vec<u8>>),
    Gone(Tag),
    Unreadable(Tag, u64),
}

/// The index of one space. Steps put what changed beside it and never wait for a search, nor for the rows being read; whoever
/// searches takes it in first. Under the lock of the index that of the client may be asked for, never the other way round.
#[derive(Default)]
pub(crate) struct Shelf {
    /// `None` until it is loaded: then the rows will say it.
    arrivals: Mutex<Option<Vec<Change>>>,
    index: Mutex<Index>,
}

impl Shelf {
    fn arrivals(&self) -> MutexGuard<'_, Option<Vec<Change>>> {
        self.arrivals.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes sure that it is loaded. `begin` is given what it calls in a step: from there on what changes arrives here. `read` reads
    /// the rows after that, and may see changes already that arrive as well.
    pub(crate) fn load<E>(
        &self,
        begin: impl FnOnce(&dyn Fn()) -> Result<(), E>,
        read: impl FnOnce(&mut Index) -> Result<(), E>,
    ) -> Result<(), E> {
        // Whoever else searches waits here, and takes it as it is then.
        let mut held = self.index.lock().unwrap_or_else(PoisonError::into_inner);
        if self.arrivals().is_some() {
            return Ok(());
        }
        begin(&|| *self.arrivals() = Some(Vec::new()))?;
        let mut index = Index::default();
        let loaded = read(&mut index);
        match &loaded {
            Ok(()) => *held = index,
            Err(_) => *self.arrivals() = None,
        }
        loaded
    }

    /// A record has this row now.
    pub(crate) fn put(&self, tag: Tag, row: &[u8]) {
        if let Some(arrivals) = &mut *self.arrivals() {
            arrivals.push(Change::Put(tag, Zeroizing::new(row.to_vec())));
        }
    }

    /// A record is gone.
    pub(crate) fn remove(&self, tag: Tag) {
        if let Some(arrivals) = &mut *self.arrivals() {
            arrivals.push(Change::Gone(tag));
        }
    }

    /// A record cannot be read in this revision, whatever one does.
    pub(crate) fn note_unreadable(&self, tag: Tag, revision: u64) {
        if let Some(arrivals) = &mut *self.arrivals() {
            arrivals.push(Change::Unreadable(tag, revision));
        }
    }

    /// Looks at the index, with all that has changed.
    pub(crate) fn look<T>(&self, look: impl FnOnce(&mut Index) -> T) -> T {
        let mut index = self.index.lock().unwrap_or_else(PoisonError::into_inner);
        let arrived = self.arrivals().as_mut().map(std::mem::take);
        for change in arrived.into_iter().flatten() {
            match change {
                Change::Put(tag, row) => index.put(tag, &row),
                Change::Gone(tag) => index.remove(&tag),
                Change::Unreadable(tag, revision) => {
                    index.unreadable.insert((tag, revision));
                }
            }
        }
        look(&mut index)
    }
}

/// A place in the list: time, then id.
pub(crate) type Place = (u64, String);

/// What is known of a record.
pub(crate) struct Known {
    /// Without the vector.
    pub(crate) row: Row,
    pub(crate) dimensions: usize,
}

/// Records by time, by tag of their row, and by their vectors.
#[derive(Default)]
pub(crate) struct Index {
    known: HashMap<Tag, Known>,
    by_time: BTreeMap<Place, Tag>,
    vectors: HashMap<usize, VectorIndex>,
    /// What could not be read so far: not tried again.
    pub(crate) unreadable: HashSet<(Tag, u64)>,
    /// What a backend did not have when it was asked last.
    pub(crate) missing: HashSet<(Tag, u64)>,
}

impl Index {
    pub(crate) fn put(&mut self, tag: Tag, bytes: &[u8]) {
        self.remove(&tag);
        // A row that this version cannot read is as good as none.
        let Ok(mut row) = Row::decode(bytes) else {
            return;
        };
        let vector = Zeroizing::new(std::mem::take(&mut row.vector));
        let mut dimensions = usize::from(row.dimensions);
        if dimensions > 0
            && !self.vectors.contains_key(&dimensions)
            && let Ok(index) = VectorIndex::new(dimensions)
        {
            self.vectors.insert(dimensions, index);
        }
        let index = self.vectors.get_mut(&dimensions);
        if index.is_none_or(|index| index.insert_encoded(tag, &vector).is_err()) {
            dimensions = 0;
        }
        self.by_time.insert((row.created_at, row.id.clone()), tag);
        self.known.insert(tag, Known { row, dimensions });
    }

    pub(crate) fn remove(&mut self, tag: &Tag) {
        let Some(known) = self.known.remove(tag) else {
            return;
        };
        self.by_time
            .remove(&(known.row.created_at, known.row.id.clone()));
        if let Some(index) = self.vectors.get_mut(&known.dimensions) {
            index.remove(tag);
            if index.is_empty() {
                self.vectors.remove(&known.dimensions);
            }
        }
    }

    pub(crate) fn get(&self, tag: &Tag) -> Option<&Known> {
        self.known.get(tag)
    }

    /// Newest first, from behind a place on.
    pub(crate) fn newest(&self, behind: Option<Place>) -> impl Iterator<Item = &Known> {
        use std::ops::Bound::{Excluded, Unbounded};
        let end = behind.map_or(Unbounded, Excluded);
        let places = self.by_time.range((Unbounded, end)).rev();
        places.filter_map(|(_, tag)| self.known.get(tag))
    }

    /// The records whose embeddings point most nearly where this one does, by their codes.
    pub(crate) fn candidates(&self, embedding: &[f32], limit: usize) -> Vec<Tag> {
        let index = self.vectors.get(&embedding.len());
        let hits = index.and_then(|index| index.candidates(embedding, limit).ok());
        let hits = hits.unwrap_or_default();
        hits.into_iter().map(|hit| hit.key).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::Memory;
    use super::*;

    fn row(id: &str) -> Zeroizing<Vec<u8>> {
        let memory = Memory::new("x").id(id).embedding(vec![1.0, 0.5]);
        Row::of_memory(&memory).unwrap().encode()
    }

    fn ids(shelf: &Shelf) -> Vec<String> {
        shelf.look(|index| {
            let all = index.newest(None);
            all.map(|known| known.row.id.clone()).collect()
        })
    }

    #[test]
    fn what_changes_while_rows_are_read_is_not_missed() {
        let shelf = Shelf::default();
        // Before anybody looks, the rows will say it.
        shelf.put([9; 16], &row("before"));
        let loaded = shelf.load(
            |begin| {
                begin();
                Ok::<_, ()>(())
            },
            |index| {
                index.put([1; 16], &row("read, and gone"));
                index.put([2; 16], &row("read"));
                shelf.remove([1; 16]);
                shelf.put([3; 16], &row("new"));
                // Seen by the reader as well.
                shelf.put([2; 16], &row("read"));
                Ok(())
            },
        );
        loaded.unwrap();
        assert_eq!(ids(&shelf), ["read", "new"]);
        let found = shelf.look(|index| index.candidates(&[1.0, 0.5], 9));
        assert_eq!(found.len(), 2);
        // It is read once.
        let again = shelf.load(|_| Err("again"), |_| Err("again"));
        assert_eq!(again, Ok(()));
    }

    #[test]
    fn index_that_could_not_be_read_is_read_by_the_next_one() {
        let shelf = Shelf::default();
        let begin = |begin: &dyn Fn()| {
            begin();
            Ok(())
        };
        let failed = shelf.load(begin, |index| {
            index.put([1; 16], &row("half"));
            Err("the store failed")
        });
        assert_eq!(failed, Err("the store failed"));
        shelf.put([2; 16], &row("in the rows"));
        assert!(ids(&shelf).is_empty());
        let read = |index: &mut Index| {
            index.put([2; 16], &row("in the rows"));
            Ok::<_, &str>(())
        };
        shelf.load(begin, read).unwrap();
        assert_eq!(ids(&shelf), ["in the rows"]);
    }

    #[test]
    fn vector_that_is_removed_or_replaced_is_nowhere_in_the_index() {
        let mut index = Index::default();
        index.put([1; 16], &row("a"));
        index.put([1; 16], &row("b"));
        assert_eq!(index.candidates(&[1.0, 0.5], 9), [[1; 16]]);
        assert_eq!(index.newest(None).count(), 1);
        index.remove(&[1; 16]);
        assert!(index.candidates(&[1.0, 0.5], 9).is_empty());
        assert!(index.vectors.is_empty() && index.by_time.is_empty() && index.known.is_empty());
        // What is no row is no record.
        index.put([1; 16], b"nothing of the kind");
        assert_eq!(index.newest(None).count(), 0);
    }
}
