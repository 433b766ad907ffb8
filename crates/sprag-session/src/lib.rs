//! Sessions, trust, fan-out and prekeys of Sprag as pure state machines over rows.
//!
//! Every step takes a [`Staged`](sprag_store::Staged) view of the rows, the time and a generator ([`Env`]), and leaves
//! its changes in the view. The caller commits them as one atomic batch, and hands out what the step gave only when
//! that batch is on stable storage. A step that fails leaves nothing behind. There is no clock, no disk and no thread
//! in this crate; two steps on one store must not overlap, which the facade sees to.
//!
//! Rules and errors are those of "The protocol" (`docs/PROTOCOL.md`): trust §1.2, handshake §3, content §6, receiving
//! §7, sessions §8, errors §11, tasks in its appendix "Directory".
#![forbid(unsafe_code)]

mod again;
mod attachments;
mod backup;
mod change;
mod chunks;
mod codec;
mod contacts;
mod create;
mod diagnose;
mod envelopes;
mod error;
mod event;
mod exchange;
mod follow;
mod fresh;
pub mod hazmat;
mod heal;
mod health;
mod inbox;
mod inspect;
mod links;
mod lists;
pub mod memory;
mod new_device;
mod newcomer;
mod open;
mod outbox;
mod outgoing;
mod own;
mod peers;
mod prekeys;
mod receipts;
mod receive;
mod record;
mod replies;
mod report;
mod restore;
mod retention;
mod riders;
mod ring;
mod rollback;
mod seal;
mod server;
mod shares;
mod tables;
mod task;
mod trust;
mod trusted_time;
mod upkeep;

pub use again::{
    KEPT_FRAME_BYTES, KEPT_FRAMES, KEPT_FRAMES_OF_USER, KEPT_SALTS, KEPT_SALTS_OF_DEVICE,
};
pub use attachments::Making;
pub use backup::{BackupError, BackupRecord, MAX_BACKUP, MAX_CONTACTS};
pub use contacts::Contact;
pub use diagnose::{ClocksApart, Diagnosis, Finding, Place, Side};
pub use envelopes::{Delivery, Transport};
pub use error::{ProtocolError, StepError};
pub use event::{EVENTS, Event};
pub use exchange::Failure;
pub use fresh::STALE_MS;
pub use heal::{ASKED, FRESH_PER_DEVICE, FRESH_PER_USER, Heal};
pub use health::Health;
pub use inbox::{INBOX, INBOX_OF_STRANGERS, InboxId, InboxMessage, REMEMBERED};
pub use inspect::Oddity;
pub use links::{OwnDevice, OwnDeviceState};
pub use new_device::{KEPT_TABLES, OldNumber};
pub use newcomer::{FOUND_MS, Linking, Newcomer, SHOWN_MS};
pub use open::Opened;
pub use outbox::{OUTBOX, OUTBOX_MS, SendError};
pub use outgoing::{CopyStatus, MessageId};
pub use own::{Device, Env};
pub use peers::{Learned, STRANGERS};
pub use prekeys::{LOW_STOCK, SEEN, STOCK};
pub use receipts::KEPT;
pub use receive::Received;
pub use record::{ARCHIVED, ARCHIVED_OF_STRANGER, LEDGER};
pub use replies::MAX_REPLY;
pub use report::{Report, ReportError};
pub use restore::Replace;
pub use retention::RETENTION_MS;
pub use ring::{Digest, Flags, RING, RING_OF_STRANGERS, RingEvent, What};
pub use rollback::{JUMP, JUMP_AT_RANDOM, JUMP_OF_COUNTERS};
pub use seal::{PENDING_MS, SealedFrame};
pub use shares::{ASIDE, Generation, KEYS_OF_GENERATION};
pub use sprag_x3dh::DeviceList as SignedList;
pub use task::{Task, TaskId};
pub use trust::{HISTORY, ListSource};
pub use trusted_time::{CLOCK_BACK_MS, CLOCK_JUMP_MS, CLOCK_STEADY_MS, ClockInDoubt};
pub use upkeep::{
    ASK_STATE_MS, RENEW_COMMITS, RENEW_MS, REPLACE_MS, ROTATE_MS, SEEN_ROTATES, UpkeepSettings,
    Upkept, renewal_wanted, want_renewal,
};
