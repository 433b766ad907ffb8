//! Sprag's store: sealed rows, atomic ordered commits, sled and memory backends
#![forbid(unsafe_code)]

mod error;
mod rows;

pub use error::{Cause, StoreError};
pub use rows::{Changes, MAX_ROW, MAX_SUFFIX, META_TABLE, MemoryRows, RowName, Rows, Staged};
