//! Results: what commands give, and what programs read as JSON.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Serialize, Serializer};
use sprag::doctor::{Checkup, Remedy, Repaired};
use sprag::{CopyStatus, Diagnosis, Event, Finding, Health, Message, Refusal, Status, Task};
use zeroize::Zeroizing;

use crate::cmd::keys::line::{FailureLine, JobLine, RingLine, VersionLine};
use crate::cmd::memory::line::{ImportLine, MemoryLine, Written};
use crate::cmd::vault::line::{BlobLine, FileLine, KeyLine, SlotLine};

/// A result. Its JSON form is one object in one line, with a `type` and always the same keys; keys may be added, never
/// changed or left out. Bytes are in hexadecimal, times in milliseconds since 1970.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum Line {
    Profile {
        user: String,
        device: u32,
        tasks: usize,
        inbox: usize,
    },
    Sent {
        id: String,
        user: String,
        copies: Vec<CopyLine>,
    },
    Status {
        id: String,
        copies: Vec<CopyLine>,
    },
    Message(MessageLine),
    Refused {
        source: String,
        code: &'static str,
        kept: bool,
    },
    Task(TaskLine),
    TaskEnded {
        id: u64,
        how: &'static str,
    },
    Bundle {
        user: String,
        file: String,
        bytes: usize,
    },
    SafetyNumber {
        user: String,
        digits: String,
        code: String,
        matches: Option<bool>,
    },
    Contact {
        user: String,
        accepted: bool,
        changed: bool,
        devices: Vec<u32>,
    },
    Store {
        changed: &'static str,
        database: Option<&'static str>,
    },
    /// A code to be read by another device of the user.
    LinkRequest {
        user: String,
        #[serde(serialize_with = "secret")]
        request: Option<Zeroizing<String>>,
    },
    Device {
        device: u32,
        holder: bool,
        this: bool,
        state: &'static str,
    },
    /// One side of a fork of one's own list.
    ForkSide {
        hash: String,
        ours: bool,
        devices: Vec<u32>,
    },
    Event(EventLine),
    Synced {
        tasks_done: usize,
        tasks_waiting: usize,
        envelopes: usize,
        refused: usize,
        inbox: usize,
    },
    Health(Box<HealthLine>),
    Quiet {
        quiet: bool,
    },
    Maintained {
        rotated: bool,
        asked: bool,
        deleted: u32,
        expired: u32,
        renewed: bool,
        /// The clock jumped to this time, and waits to be confirmed.
        doubted_time: Option<u64>,
    },
    BackupMade {
        file: String,
        bytes: usize,
        #[serde(serialize_with = "secret")]
        recovery_key: Option<Zeroizing<String>>,
    },
    Backup {
        user: String,
        device: u32,
        made_at: u64,
        contacts: usize,
        generations: usize,
        holder: bool,
        epoch: u64,
        devices: Vec<u32>,
    },
    Report {
        file: String,
        events: usize,
    },
    Diagnosis {
        sentence: String,
        frames: u32,
        findings: Vec<FindingLine>,
        clock_behind: Option<String>,
        clock_behind_ms: Option<u64>,
    },
    Found {
        code: &'static str,
        severity: &'static str,
        explanation: String,
        remedy: Option<&'static str>,
    },
    Examined {
        findings: usize,
        damaged: bool,
        remedies: Vec<&'static str>,
    },
    Repaired {
        done: Vec<&'static str>,
        aside: PathBuf,
    },
    MemoryWritten(Written),
    Memory(MemoryLine),
    MemoryForgotten {
        id: String,
        state: &'static str,
    },
    MemoriesExported {
        file: String,
        bytes: u64,
        /// Records that cannot be read here.
        left_out: u64,
    },
    MemoriesImported(ImportLine),
    VaultKey(KeyLine),
    VaultFile(FileLine),
    Vault(Box<BlobLine>),
    VaultSlot(SlotLine),
    Ring(RingLine),
    KeyVersion(VersionLine),
    KeyJob(JobLine),
    KeyFailure(FailureLine),
    Step {
        text: String,
    },
    Figures(Figures),
}

/// One thing in which two reports differ.
#[derive(Debug, Serialize)]
pub(crate) struct FindingLine {
    pub(crate) finding: &'static str,
    pub(crate) text: String,
}

/// One device's copy of a message.
#[derive(Debug, Serialize)]
pub(crate) struct CopyLine {
    pub(crate) to: String,
    pub(crate) status: &'static str,
}

/// A received message. Its bytes are in `text` if they are UTF-8, else in `hex`.
#[derive(Serialize)]
pub(crate) struct MessageLine {
    pub(crate) number: u64,
    pub(crate) id: String,
    pub(crate) from: String,
    pub(crate) device: u32,
    /// With whom the conversation is; of a copy of what another device of ours sent, to whom.
    pub(crate) conversation: Vec<String>,
    pub(crate) is_sync: bool,
    pub(crate) sent_at: u64,
    pub(crate) received_at: u64,
    pub(crate) accepted: bool,
    #[serde(serialize_with = "secret")]
    pub(crate) text: Option<Zeroizing<String>>,
    #[serde(serialize_with = "secret")]
    pub(crate) hex: Option<Zeroizing<String>>,
}

impl std::fmt::Debug for MessageLine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MessageLine")
            .field("number", &self.number)
            .finish_non_exhaustive()
    }
}

/// Something that the network must do.
#[derive(Debug, Serialize)]
pub(crate) struct TaskLine {
    pub(crate) id: u64,
    pub(crate) kind: &'static str,
    pub(crate) user: Option<String>,
    pub(crate) device: Option<u32>,
    pub(crate) hex: String,
    pub(crate) file: Option<String>,
}

/// Something that happened.
#[derive(Debug, Serialize)]
pub(crate) struct EventLine {
    pub(crate) number: u64,
    pub(crate) event: &'static str,
    pub(crate) user: Option<String>,
    pub(crate) device: Option<u32>,
    pub(crate) task: Option<u64>,
    pub(crate) code: Option<String>,
}

/// What was counted, and how full everything is: the fields of `sprag::Health`.
#[derive(Debug, Default, Serialize)]
pub(crate) struct HealthLine {
    pub(crate) opened: u64,
    pub(crate) refused: BTreeMap<&'static str, u64>,
    pub(crate) heals: u64,
    pub(crate) fresh_sessions: u64,
    pub(crate) requests_sent: u64,
    pub(crate) requests_answered: u64,
    pub(crate) sent_again: u64,
    pub(crate) offered_again: u64,
    pub(crate) given_up: u64,
    pub(crate) kept_frames: usize,
    pub(crate) kept_bytes: usize,
    pub(crate) kept_salts: usize,
    pub(crate) gathered_salts: usize,
    pub(crate) list_fetches: usize,
    pub(crate) bundle_fetches: usize,
    pub(crate) tasks: usize,
    pub(crate) parked_tasks: usize,
    pub(crate) accepted_users: usize,
    pub(crate) strangers: usize,
    pub(crate) undecided: usize,
    pub(crate) inbox: u32,
    pub(crate) inbox_of_strangers: u32,
    pub(crate) outbox: u32,
    pub(crate) signed_pre_keys: usize,
    pub(crate) last_resort_pre_keys: usize,
    pub(crate) one_time_pre_keys: usize,
    pub(crate) kem_pre_keys: usize,
    pub(crate) records: usize,
    pub(crate) current_sessions: usize,
    pub(crate) archived_sessions: usize,
    pub(crate) retired_sessions: usize,
    pub(crate) pending_sessions: usize,
    pub(crate) closed_ids: usize,
    pub(crate) lost_ids: usize,
    pub(crate) resets: usize,
    pub(crate) own_epoch: u64,
    pub(crate) list_asked_at: u64,
    pub(crate) quiet: bool,
    pub(crate) memory_spaces: usize,
    pub(crate) memories_unpublished: usize,
    pub(crate) erases_pending: usize,
    pub(crate) memory_generations: usize,
    pub(crate) devices_behind: Vec<u32>,
    pub(crate) devices_removed: Vec<u32>,
    pub(crate) backup_due: bool,
}

/// What a run of the demo measured.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Figures {
    pub(crate) messages: usize,
    pub(crate) wire_bytes: usize,
    pub(crate) bundle_bytes: usize,
    pub(crate) first_envelope_bytes: usize,
    pub(crate) next_envelope_bytes: usize,
    pub(crate) measured: usize,
    pub(crate) send_median_us: u128,
    pub(crate) receive_median_us: u128,
    pub(crate) open_with_passphrase_ms: u128,
    pub(crate) open_with_key_file_ms: u128,
    pub(crate) disk_bytes: u64,
    pub(crate) total_ms: u128,
}

impl Line {
    pub(crate) fn message(message: &Message) -> Self {
        let bytes = message.bytes();
        let text = std::str::from_utf8(bytes).ok();
        Self::Message(MessageLine {
            number: message.id().get(),
            id: message.message_id().to_string(),
            from: message.from().to_owned(),
            device: message.from_device(),
            conversation: message.conversation(),
            is_sync: message.is_sync(),
            sent_at: message.sent_at(),
            received_at: message.received_at(),
            accepted: message.is_accepted(),
            text: text.map(|text| text.to_owned().into()),
            hex: text.is_none().then(|| hex::encode(bytes).into()),
        })
    }

    pub(crate) fn refused(source: String, refusal: Refusal, kept: bool) -> Self {
        Self::Refused {
            source,
            code: refusal.code(),
            kept,
        }
    }

    pub(crate) fn task(task: &Task, file: Option<String>) -> Self {
        let (user, device) = match task {
            Task::Deliver { to, .. } => {
                (Some(to.user().as_str().to_owned()), Some(to.device().get()))
            }
            Task::FetchDevices { user, .. } | Task::FetchBundles { user, .. } => {
                (Some(user.as_str().to_owned()), None)
            }
            _ => (None, None),
        };
        Self::Task(TaskLine {
            id: task.id().get(),
            kind: task_kind(task),
            user,
            device,
            hex: hex::encode(task_bytes(task)),
            file,
        })
    }

    /// What was found, one by one, and then what it comes to.
    pub(crate) fn checkup(checkup: &Checkup) -> Vec<Self> {
        let findings = checkup.findings.iter().map(|finding| Self::Found {
            code: finding.code,
            severity: finding.severity.name(),
            explanation: finding.explanation.clone(),
            remedy: finding.remedy.map(Remedy::explanation),
        });
        let whole = Self::Examined {
            findings: checkup.findings.len(),
            damaged: checkup.is_damaged(),
            remedies: explained(&checkup.remedies),
        };
        findings.chain([whole]).collect()
    }

    pub(crate) fn repaired(repaired: &Repaired) -> Self {
        Self::Repaired {
            done: explained(&repaired.done),
            aside: repaired.aside.clone(),
        }
    }

    pub(crate) fn health(health: &Health) -> Self {
        let refused = health.refused.iter();
        Self::Health(Box::new(HealthLine {
            opened: health.opened,
            refused: refused
                .map(|(error, count)| (sprag::Error::from(*error).code(), *count))
                .collect(),
            heals: health.heals,
            fresh_sessions: health.fresh_sessions,
            requests_sent: health.requests_sent,
            requests_answered: health.requests_answered,
            sent_again: health.sent_again,
            offered_again: health.offered_again,
            given_up: health.given_up,
            kept_frames: health.kept_frames,
            kept_bytes: health.kept_bytes,
            kept_salts: health.kept_salts,
            gathered_salts: health.gathered_salts,
            list_fetches: health.list_fetches,
            bundle_fetches: health.bundle_fetches,
            tasks: health.tasks,
            parked_tasks: health.parked_tasks,
            accepted_users: health.accepted_users,
            strangers: health.strangers,
            undecided: health.undecided,
            inbox: health.inbox,
            inbox_of_strangers: health.inbox_of_strangers,
            outbox: health.outbox,
            signed_pre_keys: health.signed_pre_keys,
            last_resort_pre_keys: health.last_resort_pre_keys,
            one_time_pre_keys: health.one_time_pre_keys,
            kem_pre_keys: health.kem_pre_keys,
            records: health.records,
            current_sessions: health.current_sessions,
            archived_sessions: health.archived_sessions,
            retired_sessions: health.retired_sessions,
            pending_sessions: health.pending_sessions,
            closed_ids: health.closed_ids,
            lost_ids: health.lost_ids,
            resets: health.resets,
            own_epoch: health.own_epoch,
            list_asked_at: health.list_asked_at,
            quiet: health.quiet,
            memory_spaces: health.memories.spaces,
            memories_unpublished: health.memories.unpublished,
            erases_pending: health.memories.erase_pending,
            memory_generations: health.memories.generations,
            devices_behind: health.memories.behind.clone(),
            devices_removed: health.memories.removed.clone(),
            backup_due: health.memories.backup_due,
        }))
    }

    pub(crate) fn diagnosis(diagnosis: &Diagnosis) -> Self {
        let finding = |finding: &Finding| FindingLine {
            finding: match finding {
                Finding::SameDevice => "same_device",
                Finding::NothingInCommon => "nothing_in_common",
                Finding::TooShort => "too_short",
                Finding::WentBack { .. } => "went_back",
                Finding::Unlisted { .. } => "unlisted",
                Finding::LostSession { .. } => "lost_session",
                Finding::PreKeysGone { .. } => "pre_keys_gone",
                Finding::Refused { .. } => "refused",
                Finding::Lost { .. } => "lost",
                Finding::NotHandedOver { .. } => "not_handed_over",
                Finding::NotArrived { .. } => "not_arrived",
                _ => "other",
            },
            text: finding.to_string(),
        };
        Self::Diagnosis {
            sentence: diagnosis.to_string(),
            frames: diagnosis.frames,
            findings: diagnosis.findings.iter().map(finding).collect(),
            clock_behind: diagnosis.clocks.map(|clocks| clocks.behind.to_string()),
            clock_behind_ms: diagnosis.clocks.map(|clocks| clocks.by_ms),
        }
    }

    pub(crate) fn event(number: u64, event: &Event) -> Self {
        let mut line = EventLine {
            number,
            event: "other",
            user: None,
            device: None,
            task: None,
            code: None,
        };
        let mut from = None;
        match event {
            Event::IdentityChanged { user, .. } => {
                line.event = "identity_changed";
                line.user = Some(user.as_str().to_owned());
            }
            Event::ProvisionalReplaced { user, .. } => {
                line.event = "provisional_replaced";
                line.user = Some(user.as_str().to_owned());
            }
            Event::ListMismatch { user, .. } => {
                line.event = "list_mismatch";
                line.user = Some(user.as_str().to_owned());
            }
            Event::ReplyRefused { task, error, .. } => {
                line.event = "reply_refused";
                line.task = Some(task.get());
                line.code = Some(sprag::Error::from(*error).code().to_owned());
            }
            Event::TaskRefused { task, code, .. } => {
                line.event = "task_refused";
                line.task = Some(task.get());
                line.code = Some(code.to_string());
            }
            Event::Unreadable {
                from: by, error, ..
            } => {
                line.event = "unreadable";
                line.code = Some(sprag::Error::from(*error).code().to_owned());
                from = Some(by);
            }
            Event::ForeignDevice { device, .. } => {
                line.event = "foreign_device";
                from = Some(device);
            }
            Event::ListReplayed { user, .. } => {
                line.event = "list_replayed";
                line.user = Some(user.as_str().to_owned());
            }
            Event::ListRefused { user, error, .. } => {
                line.event = "list_refused";
                line.user = Some(user.as_str().to_owned());
                line.code = Some(sprag::Error::from(*error).code().to_owned());
            }
            Event::OwnListForked { .. } => line.event = "own_list_forked",
            Event::DeviceAdded { device, .. } => {
                line.event = "device_added";
                line.device = Some(*device);
            }
            Event::DeviceRemoved { device, .. } => {
                line.event = "device_removed";
                line.device = Some(*device);
            }
            Event::Linked => line.event = "linked",
            Event::LinkEnded { device, .. } => {
                line.event = "link_ended";
                line.device = *device;
            }
            Event::ListChangeDropped { device, .. } => {
                line.event = "list_change_dropped";
                line.device = Some(*device);
            }
            Event::ShareRefused { from: by, .. } => {
                line.event = "share_refused";
                from = Some(by);
            }
            Event::BadContent { from: by, .. } => {
                line.event = "bad_content";
                from = Some(by);
            }
            Event::Unsupported { from: by, .. } => {
                line.event = "unsupported";
                from = Some(by);
            }
            Event::SetBack { sign, .. } => {
                line.event = "set_back";
                line.code = Some(sign.to_string());
            }
            Event::NotSent { messages, .. } => {
                line.event = "not_sent";
                let ids: Vec<String> = messages.iter().map(ToString::to_string).collect();
                line.code = Some(ids.join(" "));
            }
            Event::Restored { device, .. } => {
                line.event = "restored";
                line.device = Some(*device);
            }
            Event::AnchorAway => line.event = "anchor_away",
            Event::AnchorBack => line.event = "anchor_back",
            Event::ClockJumped { now, .. } => {
                line.event = "clock_jumped";
                line.code = Some(now.to_string());
            }
            Event::MemoryRefused { space, error, .. } => {
                line.event = "memory_refused";
                line.user = Some(space.user().to_owned());
                line.code = Some(error.code().to_owned());
            }
            Event::MemoryConflict { space, device, .. } => {
                line.event = "memory_conflict";
                line.user = Some(space.user().to_owned());
                line.device = Some(*device);
            }
            Event::MemoryRefilled { space, .. } => {
                line.event = "memory_refilled";
                line.user = Some(space.user().to_owned());
            }
            Event::MemoryErased { count, .. } => {
                line.event = "memory_erased";
                line.code = Some(count.to_string());
            }
            _ => {}
        }
        if let Some(from) = from {
            line.user = Some(from.user().as_str().to_owned());
            line.device = Some(from.device().get());
        }
        Self::Event(line)
    }
}

/// The name of a task's kind: the ending of its file, too.
pub(crate) fn task_kind(task: &Task) -> &'static str {
    match task {
        Task::Deliver { .. } => "deliver",
        Task::FetchDevices { .. } => "fetch-devices",
        Task::FetchBundles { .. } => "fetch-bundles",
        Task::PublishPreKeys { .. } => "publish-pre-keys",
        Task::PublishDevices { .. } => "publish-devices",
        Task::PutObject { .. } => "put-object",
        Task::GetObject { .. } => "get-object",
        Task::PutBlob { .. } => "put-blob",
        Task::GetBlob { .. } => "get-blob",
        Task::DropBlob { .. } => "drop-blob",
        _ => "other",
    }
}

/// What the network moves for a task. The name of a blob that is put is the SHA-256 of these bytes.
pub(crate) fn task_bytes(task: &Task) -> &[u8] {
    match task {
        Task::Deliver { envelope, .. } => envelope,
        Task::FetchDevices { query, .. } | Task::FetchBundles { query, .. } => query,
        Task::PublishPreKeys { upload, .. } => upload,
        Task::PublishDevices { lists, .. } => lists,
        Task::PutObject { object, .. } | Task::GetObject { object, .. } => object,
        Task::PutBlob { bytes, .. } => bytes,
        Task::GetBlob { name, .. } | Task::DropBlob { name, .. } => name,
        _ => &[],
    }
}

pub(crate) fn copies(statuses: Vec<Status>) -> Vec<CopyLine> {
    let line = |copy: Status| CopyLine {
        to: copy.to,
        status: copy_status(copy.status),
    };
    statuses.into_iter().map(line).collect()
}

fn copy_status(status: CopyStatus) -> &'static str {
    match status {
        CopyStatus::Waiting => "waiting",
        CopyStatus::Sealed => "sealed",
        CopyStatus::HandedOver => "handed_over",
        CopyStatus::Received => "received",
        CopyStatus::NoSuchUser => "no_such_user",
        CopyStatus::NoSuchDevice => "no_such_device",
        CopyStatus::Expired => "expired",
        _ => "other",
    }
}

fn secret<S: Serializer>(
    text: &Option<Zeroizing<String>>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    text.as_ref()
        .map(|text| text.as_str())
        .serialize(serializer)
}

fn explained(remedies: &[Remedy]) -> Vec<&'static str> {
    remedies.iter().map(|remedy| remedy.explanation()).collect()
}
