//! Finds the records whose embeddings point the same way as a query. No file is opened here, no network used, no clock read.
//!
//! [`VectorIndex`] holds a code of one byte for each dimension of each vector (`docs/SEARCH.md`) and scans all of them for
//! every query: no graph and no lists that would miss a record or remember one that was removed. The best of the scan are
//! ranked again by the vectors themselves, which the caller may keep elsewhere ([`VectorIndex::search_with`]) or leave to the
//! index ([`VectorIndex::with_vectors`]), or by their codes ([`VectorIndex::search`]).
//!
//! Embeddings tell what they were made of. Codes and vectors are wiped when a record is removed or replaced and when the
//! index is dropped; a record that was removed leaves no gap.
//!
//! [`encode`] and [`encode_with_vector`] give the bytes to keep for each record, and [`VectorIndex::insert_encoded`] takes
//! them when a program starts. They are not encrypted: that is for whoever stores them.
//!
//! [`LexicalEmbedder`] makes vectors of words where there is no model.
//!
//! ```
//! # fn main() -> Result<(), sprag_search::SearchError> {
//! use sprag_search::VectorIndex;
//!
//! let mut index = VectorIndex::new(3)?;
//! index.insert([1; 16], &[1.0, 0.0, 0.1])?;
//! index.insert([2; 16], &[0.0, 1.0, 0.0])?;
//! let hits = index.search(&[2.0, 0.0, 0.0], 10, 0.5)?;
//! assert_eq!(hits.len(), 1);
//! assert_eq!(hits[0].key, [1; 16]);
//! # Ok(())
//! # }
//! ```
#![forbid(unsafe_code)]

mod code;
mod error;
mod index;
mod lexical;
mod rows;
mod stored;

pub use code::MAX_DIMENSIONS;
pub use error::SearchError;
pub use index::{Hit, Key, VectorIndex};
pub use lexical::LexicalEmbedder;
pub use stored::{decode_vector, encode, encode_with_vector};
