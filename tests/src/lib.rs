//! What the workspace's tests share.
#![forbid(unsafe_code)]

pub mod archive;
pub mod conversation;
pub mod desk;
pub mod fuzz_bodies;
pub mod generate;
pub mod memory_bodies;
pub mod memory_vectors;
pub mod model;
pub mod network;
pub mod recorder;
pub mod replay_rng;
pub mod scene;
pub mod search_bodies;
pub mod shelf;
pub mod stability;
pub mod stability_memory;
pub mod vault_bodies;
pub mod vault_vectors;
pub mod verbs;
pub mod witness;
pub mod world;

/// So does the one of the text about attachments.
#[cfg(doctest)]
#[doc = include_str!("../../docs/ATTACHMENTS.md")]
pub struct Attachments;

/// The programs of the guide compile and run.
#[cfg(doctest)]
#[doc = include_str!("../../docs/EMBEDDING.md")]
pub struct Embedding;

/// And that of the text about memories.
#[cfg(doctest)]
#[doc = include_str!("../../docs/MEMORY.md")]
pub struct Memories;
