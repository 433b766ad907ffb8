//! Memories and chats of agents and applications, encrypted on this device, kept anywhere ("Memories", `docs/MEMORY.md`).
//!
//! An [`EncryptedMemoryStore`] keeps them, finds them by time, tag and embedding, and forgets them for good. Who keeps blobs himself
//! uses [`Client::encrypt_user_memory`](crate::Client::encrypt_user_memory) and its like.

mod backend;
mod blob;
mod chat;
mod draft;
mod fault;
mod find;
mod index;
mod json;
mod leftovers;
mod owner;
mod record;
mod redact;
mod renewal;
mod row;
mod sealed;
mod steps;
mod store;
#[cfg(test)]
mod tests;
mod transfer;
mod verbs;

#[cfg(not(target_family = "wasm"))]
pub use backend::FolderBackend;
#[cfg(all(feature = "http", not(target_family = "wasm")))]
pub use backend::HttpBackend;
pub use backend::{BackendError, MemoryBackend, StoredBlob};
#[cfg(all(feature = "s3", not(target_family = "wasm")))]
pub use backend::{S3Backend, S3Options};
pub use chat::{Chat, ChatMessage};
pub use fault::InvalidRecord;
pub(crate) use fault::{Fault, refused};
pub use find::{ListPage, ListQuery, Listed, MAX_HITS, Refreshed, SearchHit};
pub(crate) use index::Indexes;
pub use json::Json;
pub use leftovers::{LEAST_GRACE, LostWrite};
pub use owner::Owner;
pub use record::{
    MAX_CONTENT, MAX_DIMENSIONS, MAX_RECORD, MAX_TAGS, MAX_TITLE, Memory, Provenance,
};
pub use redact::{Redacted, Redactor};
pub use sealed::Sealed;
pub use sprag_redact::{Kind as SecretKind, Patterns};
pub use sprag_session::memory::Standing;
pub use store::{EncryptedMemoryStore, Stored};
pub use transfer::{ExportPage, Imported, OnConflict};
pub use verbs::StartMemories;
