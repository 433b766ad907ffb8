//! The index: records with their codes, and the search.

use std::cmp::{Ordering, Reverse};
use std::collections::{BTreeMap, BinaryHeap};
use std::fmt;

use zeroize::Zeroizing;

use crate::SearchError;
use crate::code::{LANES, Query, check_dimensions, cosine, length, narrow_cosine, quantise};
use crate::rows::{Rows, depth};
use crate::stored::{Stored, number};

/// What names a record: 16 bytes of the caller's choice. Keys are not wiped; they say nothing about a vector.
pub type Key = [u8; 16];

/// For each hit that is asked for, so many of the scan are ranked again, ...
const AGAIN: usize = 2;
/// ... and so many more. The tenth stood at place 12 by the codes at worst (`docs/SEARCH.md`).
const AGAIN_AND: usize = 20;

/// A record that was found.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct Hit {
    /// The record.
    pub key: Key,
    /// The cosine of the angle between its vector and the query: 1 for the same direction, 0 for nothing in common, at least -1.
    pub similarity: f32,
}

impl Hit {
    /// The better one first; between equals, the one with the smaller key.
    fn rank(&self, other: &Self) -> Ordering {
        let by_key = || self.key.cmp(&other.key);
        other
            .similarity
            .total_cmp(&self.similarity)
            .then_with(by_key)
    }
}

/// Vectors of one number of dimensions, by their keys.
///
/// Takes one byte for each dimension and about 60 for each record; five for each dimension with vectors.
pub struct VectorIndex {
    dimensions: usize,
    /// Dimensions, rounded up to what the scan takes at once.
    stride: usize,
    codes: Rows<i8>,
    /// In rows of one, in blocks of as many as those of the codes.
    scales: Rows<f32>,
    vectors: Option<Rows<f32>>,
    keys: Vec<Key>,
    places: BTreeMap<Key, u32>,
}

impl VectorIndex {
    /// An empty index for vectors of 1 to 4,096 dimensions. It keeps their codes only.
    ///
    /// # Errors
    ///
    /// [`SearchError::BadDimensions`].
    pub fn new(dimensions: usize) -> Result<Self, SearchError> {
        check_dimensions(dimensions)?;
        let stride = dimensions.next_multiple_of(LANES);
        let depth = depth(stride);
        Ok(Self {
            dimensions,
            stride,
            codes: Rows::new(stride, depth),
            scales: Rows::new(1, depth),
            vectors: None,
            keys: Vec::new(),
            places: BTreeMap::new(),
        })
    }

    /// An empty index that keeps the vectors as well, so that [`search`](Self::search) ranks by them.
    ///
    /// # Errors
    ///
    /// [`SearchError::BadDimensions`].
    pub fn with_vectors(dimensions: usize) -> Result<Self, SearchError> {
        let index = Self::new(dimensions)?;
        let vectors = Rows::new(dimensions, depth(dimensions * size_of::<f32>()));
        Ok(Self {
            vectors: Some(vectors),
            ..index
        })
    }

    /// The number of dimensions of its vectors.
    #[must_use]
    pub fn dimensions(&self) -> usize {
        self.dimensions
    }

    /// How many records there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Whether there is a record of that key.
    #[must_use]
    pub fn contains(&self, key: &Key) -> bool {
        self.places.contains_key(key)
    }

    /// The keys of all records, ascending.
    pub fn keys(&self) -> impl Iterator<Item = &Key> {
        self.places.keys()
    }

    /// Inserts a vector, of any length but zero, in place of what the key had; says whether it had one.
    ///
    /// # Errors
    ///
    /// If the vector has another number of dimensions, a number that is not finite, or no direction; or
    /// [`SearchError::Full`].
    pub fn insert(&mut self, key: Key, vector: &[f32]) -> Result<bool, SearchError> {
        self.check(vector.len())?;
        let length = length(vector)?;
        let (place, replaced) = self.place_for(key)?;
        if let (Some(code), Some([scale])) = (self.codes.get_mut(place), self.scales.get_mut(place))
        {
            *scale = quantise(vector, length, code);
        }
        if let Some(row) = self.vectors.as_mut().and_then(|rows| rows.get_mut(place)) {
            row.copy_from_slice(vector);
        }
        Ok(replaced)
    }

    /// Inserts a stored form ([`encode`](crate::encode), [`encode_with_vector`](crate::encode_with_vector)), as
    /// [`insert`](Self::insert) does a vector.
    ///
    /// # Errors
    ///
    /// [`SearchError::UnknownVersion`], [`Malformed`](SearchError::Malformed), [`OtherDimensions`](SearchError::OtherDimensions),
    /// [`Full`](SearchError::Full), or [`NoVector`](SearchError::NoVector) if this index keeps vectors and the form has none.
    pub fn insert_encoded(&mut self, key: Key, stored: &[u8]) -> Result<bool, SearchError> {
        let stored = Stored::parse(stored)?;
        self.check(stored.dimensions())?;
        if self.vectors.is_some() && stored.vector.is_none() {
            return Err(SearchError::NoVector);
        }
        let (place, replaced) = self.place_for(key)?;
        if let (Some(code), Some([scale])) = (self.codes.get_mut(place), self.scales.get_mut(place))
        {
            stored.copy_code(code);
            *scale = stored.scale;
        }
        let row = self.vectors.as_mut().and_then(|rows| rows.get_mut(place));
        for (x, bytes) in row.into_iter().flatten().zip(stored.vector.unwrap_or(&[])) {
            *x = number(bytes);
        }
        Ok(replaced)
    }

    /// Removes a record; says whether there was one. Nothing of its vector is left in the index.
    pub fn remove(&mut self, key: &Key) -> bool {
        let Some(place) = self.places.remove(key) else {
            return false;
        };
        let number = place as usize;
        self.codes.swap_remove(number);
        self.scales.swap_remove(number);
        if let Some(vectors) = &mut self.vectors {
            vectors.swap_remove(number);
        }
        if number < self.keys.len() {
            self.keys.swap_remove(number);
        }
        if let Some(moved) = self.keys.get(number) {
            self.places.insert(*moved, place);
        }
        true
    }

    /// Removes all records.
    pub fn clear(&mut self) {
        self.codes.clear();
        self.scales.clear();
        if let Some(vectors) = &mut self.vectors {
            vectors.clear();
        }
        self.keys.clear();
        self.places.clear();
    }

    /// The best `limit` records by their codes, the best first. Their similarities are those of the codes: within a few thousandths.
    ///
    /// # Errors
    ///
    /// If the query has another number of dimensions, a number that is not finite, or no direction.
    pub fn candidates(&self, query: &[f32], limit: usize) -> Result<Vec<Hit>, SearchError> {
        self.check(query.len())?;
        Ok(self.scan(&Query::new(query, self.stride)?, limit))
    }

    /// The best `limit` records whose similarity is at least `threshold`, the best first, ranked by the vectors if the index
    /// keeps them, else by the codes.
    ///
    /// # Errors
    ///
    /// If the query has another number of dimensions, a number that is not finite, or no direction; or
    /// [`SearchError::BadThreshold`].
    pub fn search(
        &self,
        query: &[f32],
        limit: usize,
        threshold: f32,
    ) -> Result<Vec<Hit>, SearchError> {
        let Some(vectors) = &self.vectors else {
            check_threshold(threshold)?;
            let hits = self.candidates(query, limit)?;
            return Ok(chosen(hits, limit, threshold));
        };
        let vector = |key: &Key| vectors.get(*self.places.get(key)? as usize);
        self.ranked(query, limit, threshold, |key, of| {
            vector(key).map(of).transpose()
        })
    }

    /// As [`search`](Self::search), ranked by the vectors that the caller keeps. For each of the 2 × `limit` + 20 best by
    /// their codes `vector` is called once; those for which it gives `None` are ranked by their codes. The vectors are wiped.
    ///
    /// # Errors
    ///
    /// As [`search`](Self::search), and if a vector that `vector` gave is none that could be inserted.
    pub fn search_with(
        &self,
        query: &[f32],
        limit: usize,
        threshold: f32,
        mut vector: impl FnMut(&Key) -> Option<Vec<f32>>,
    ) -> Result<Vec<Hit>, SearchError> {
        self.ranked(query, limit, threshold, |key, of| {
            let vector = vector(key).map(Zeroizing::new);
            vector.map(|vector| of(&vector)).transpose()
        })
    }

    /// `exact` gets a key and what computes the similarity of a vector.
    fn ranked(
        &self,
        query: &[f32],
        limit: usize,
        threshold: f32,
        mut exact: impl FnMut(&Key, &Similarity<'_>) -> Result<Option<f32>, SearchError>,
    ) -> Result<Vec<Hit>, SearchError> {
        check_threshold(threshold)?;
        let candidates = limit.saturating_mul(AGAIN).saturating_add(AGAIN_AND);
        let mut hits = self.candidates(query, if limit == 0 { 0 } else { candidates })?;
        let query_length = length(query)?;
        let similarity = |vector: &[f32]| {
            self.check(vector.len())?;
            Ok(cosine(query, query_length, vector, length(vector)?))
        };
        for hit in &mut hits {
            if let Some(similarity) = exact(&hit.key, &similarity)? {
                hit.similarity = similarity;
            }
        }
        Ok(chosen(hits, limit, threshold))
    }

    /// One pass over all codes.
    fn scan(&self, query: &Query, limit: usize) -> Vec<Hit> {
        let mut best = BinaryHeap::with_capacity(limit.min(self.len()));
        // Below this nothing enters any more.
        let mut bar = if limit == 0 {
            f32::INFINITY
        } else {
            f32::NEG_INFINITY
        };
        let mut keys = self.keys.iter();
        for (codes, scales) in self.codes.parts().zip(self.scales.parts()) {
            let rows = codes.chunks_exact(self.stride).zip(scales);
            for ((row, scale), key) in rows.zip(&mut keys) {
                let score = query.dot(row) as f32 * scale;
                if score >= bar {
                    best.push(Reverse(Scored { score, key: *key }));
                    if best.len() > limit {
                        best.pop();
                    }
                    if best.len() == limit {
                        bar = best.peek().map_or(bar, |Reverse(least)| least.score);
                    }
                }
            }
        }
        let scale = query.scale();
        let hits = best.into_sorted_vec().into_iter();
        hits.map(|Reverse(Scored { score, key })| Hit {
            key,
            similarity: narrow_cosine(f64::from(score) * scale),
        })
        .collect()
    }

    fn check(&self, dimensions: usize) -> Result<(), SearchError> {
        if dimensions == self.dimensions {
            Ok(())
        } else {
            Err(SearchError::OtherDimensions {
                got: dimensions,
                expected: self.dimensions,
            })
        }
    }

    /// The number of the rows of a key, which are made if there are none.
    fn place_for(&mut self, key: Key) -> Result<(usize, bool), SearchError> {
        if let Some(place) = self.places.get(&key) {
            return Ok((*place as usize, true));
        }
        let number = self.keys.len();
        let place = u32::try_from(number).map_err(|_| SearchError::Full)?;
        self.codes.push();
        self.scales.push();
        if let Some(vectors) = &mut self.vectors {
            vectors.push();
        }
        self.keys.push(key);
        self.places.insert(key, place);
        Ok((number, false))
    }
}

impl fmt::Debug for VectorIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VectorIndex")
            .field("dimensions", &self.dimensions)
            .field("len", &self.len())
            .finish_non_exhaustive()
    }
}

/// Gives the similarity of a vector with the query.
type Similarity<'a> = dyn Fn(&[f32]) -> Result<f32, SearchError> + 'a;

fn check_threshold(threshold: f32) -> Result<(), SearchError> {
    if threshold.is_nan() {
        return Err(SearchError::BadThreshold);
    }
    Ok(())
}

fn chosen(mut hits: Vec<Hit>, limit: usize, threshold: f32) -> Vec<Hit> {
    hits.retain(|hit| hit.similarity >= threshold);
    hits.sort_by(Hit::rank);
    hits.truncate(limit);
    hits
}

/// A record of the scan: the greater, the better; between equals, the one with the smaller key.
struct Scored {
    score: f32,
    key: Key,
}

impl Ord for Scored {
    fn cmp(&self, other: &Self) -> Ordering {
        let by_key = || other.key.cmp(&self.key);
        self.score.total_cmp(&other.score).then_with(by_key)
    }
}

impl PartialOrd for Scored {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Scored {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Scored {}

#[cfg(test)]
mod tests;
