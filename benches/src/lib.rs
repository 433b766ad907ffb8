//! The benches: what each operation costs beside its *floor*, the primitives that no implementation of the protocol can
//! do without, and beside vodozemac where it has the operation.
//!
//! Ours, floor and peer are measured in turns, many short rounds, in one process; what counts is the median of the
//! ratios within a round, since a noisy machine is noisy for all three. Absolute times are those of this machine. No
//! ratio is a claim about another one.
#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "a bench whose operation fails ends there"
)]

pub mod facade;
pub mod handshake;
mod measure;
mod olm;
mod parts;
mod primitives;
pub mod ratchet;
pub mod search;
pub mod session;

pub use measure::{Effort, Table};
