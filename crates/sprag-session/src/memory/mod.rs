//! The key log of memories, chats and files: what a server keeps of them besides blobs ("Memories", `docs/MEMORY.md`).
//!
//! A record is sealed under a key of its own, and that key stands here, not in the blob. So a record is found, shared with
//! one's devices and erased by changing a few hundred bytes. A *space* (one application, user, agent and kind) has one
//! *head*, an object that is changed by compare and swap and signed by the device that wrote it, and immutable
//! *segments*, which the head names. All of it is sealed under a key of the space, from a generation that the listed
//! devices of the account share.
//!
//! The formats make, read, judge and merge (`head`, `segment`, `log`, `keys`). Around them, as methods of
//! [`Device`](crate::Device): records in rows (`records`, `index`, `spaces`, `blobs`), what is put (`push`) and what is got (`pull`)
//! by tasks, and generations (`upkeep`).

pub(crate) mod blobs;
mod error;
mod head;
mod incoming;
mod index;
mod keys;
mod log;
mod lost;
mod pull;
mod push;
mod records;
mod refill;
pub(crate) mod sealed;
mod segment;
mod space;
pub(crate) mod spaces;
mod unpublished;
mod upkeep;

pub use blobs::{BlobState, MAX_BLOB};
pub use error::LogError;
pub use head::{Head, MAX_HEAD, MAX_SEGMENTS, Seen, SegmentRef, WriterState};
pub use index::{Changed, MAX_INDEX};
pub use keys::{NamesKey, ObjectName, SpaceKey, generation_id};
pub use log::{KeyLog, Merged};
pub use lost::LostWrite;
pub use records::{Draft, MAX_RECORDS, RecordTag, Standing};
pub use sealed::{GENERATION_OVERHEAD, generation_of};
pub use segment::{Entry, MAX_ENTRIES, RecordState, Segment};
pub use space::{RecordId, Space, SpaceKind};
pub use upkeep::{ERASE_MS, MemoryHealth, REFRESH_MS};
