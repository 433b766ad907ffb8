//! The key log of memories, chats and files: what a server keeps of them besides blobs ("Memories", `docs/MEMORY.md`).
//!
//! A record is sealed under a key of its own, and that key stands here, not in the blob. So a record is found, shared with
//! one's devices and erased by changing a few hundred bytes. A *space* (one application, user, agent and kind) has one
//! *head*, an object that is changed by compare and swap and signed by the device that wrote it, and immutable
//! *segments*, which the head names. All of it is sealed under a key of the space, from a generation that the listed
//! devices of the account share.
//!
//! This module is bytes and rules: it makes, reads, judges and merges. It fetches and stores nothing.

mod error;
mod head;
mod keys;
mod log;
mod sealed;
mod segment;
mod space;

pub use error::LogError;
pub use head::{Head, MAX_HEAD, MAX_SEGMENTS, Seen, SegmentRef, WriterState};
pub use keys::{NamesKey, ObjectName, SpaceKey, generation_id};
pub use log::{KeyLog, Merged};
pub use sealed::{GENERATION_OVERHEAD, generation_of};
pub use segment::{Entry, MAX_ENTRIES, RecordState, Segment};
pub use space::{RecordId, Space, SpaceKind};
