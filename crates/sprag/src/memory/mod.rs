//! Memories and chats of agents and applications, encrypted on this device, kept anywhere ("Memories", `docs/MEMORY.md`).

mod backend;
mod blob;
mod chat;
mod fault;
mod json;
mod owner;
mod record;

pub use backend::{BackendError, MemoryBackend, StoredBlob};
pub use chat::{Chat, ChatMessage};
pub(crate) use fault::Fault;
pub use fault::InvalidRecord;
pub use json::Json;
pub use owner::Owner;
pub use record::{
    MAX_CONTENT, MAX_DIMENSIONS, MAX_RECORD, MAX_TAGS, MAX_TITLE, Memory, Provenance,
};
