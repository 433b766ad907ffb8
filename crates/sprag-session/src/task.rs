//! What the network must do: one durable queue ("The protocol", appendix "Directory").

use std::ops::ControlFlow;

use sprag_crypto::Salt;
use sprag_store::{Rows, Staged, StoreError};
use sprag_wire::relay::{BundleQuery, ListQuery, Lists};
use sprag_wire::{DeviceAddress, DeviceId, Envelope, ListHash, UserId};
use zeroize::Zeroizing;

use crate::codec::{Reader, Writer};
use crate::error::StepError;
use crate::memory::blobs;
use crate::own::{Counters, Device};
use crate::prekeys::{self, UploadPlan};
use crate::{chunks, inbox, tables};

const VERSION: u8 = 1;

/// Questions and uploads are put off for a day at most.
pub(crate) const PUT_OFF_MS: u64 = 24 * 3_600 * 1_000;

/// Epochs in one `ListReply`.
pub(crate) const PAGE: usize = 64;

/// Names a task for `supply`, `done` and `failed`. It never names another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskId(u64);

impl TaskId {
    /// From the number that [`TaskId::get`] gave.
    #[must_use]
    pub fn new(id: u64) -> Self {
        Self(id)
    }

    /// The number, for storing it elsewhere.
    #[must_use]
    pub fn get(self) -> u64 {
        self.0
    }
}

impl std::fmt::Display for TaskId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Something that the network must do. The bytes are those of "The protocol", appendix "Directory".
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Task {
    /// Hand `envelope` to the server. No reply: `done`, or `failed`.
    #[non_exhaustive]
    Deliver {
        /// Names the task.
        id: TaskId,
        /// The device that it is for.
        to: DeviceAddress,
        /// An `Envelope` frame.
        envelope: Vec<u8>,
        /// Hash (32 bytes) of the device list that it was sealed against.
        known_list: [u8; 32],
    },
    /// Ask for a user's device lists; the reply goes to `supply`.
    #[non_exhaustive]
    FetchDevices {
        /// Names the task.
        id: TaskId,
        /// The user.
        user: UserId,
        /// A `ListQuery`.
        query: Vec<u8>,
    },
    /// Ask for prekey bundles; the reply goes to `supply`.
    #[non_exhaustive]
    FetchBundles {
        /// Names the task.
        id: TaskId,
        /// The user.
        user: UserId,
        /// A `BundleQuery`.
        query: Vec<u8>,
    },
    /// Publish our prekeys. The reply may go to `supply`; then `done`.
    #[non_exhaustive]
    PublishPreKeys {
        /// Names the task.
        id: TaskId,
        /// A `PreKeyUpload`.
        upload: Vec<u8>,
    },
    /// Publish our device lists. The reply may go to `supply`; then `done`.
    #[non_exhaustive]
    PublishDevices {
        /// Names the task.
        id: TaskId,
        /// `Lists`.
        lists: Vec<u8>,
    },
    /// Change a small object by compare and swap. The reply goes to `supply`; a tag that is not the one expected is
    /// `failed` with `Conflict` and the object that there is.
    #[non_exhaustive]
    PutObject {
        /// Names the task.
        id: TaskId,
        /// An `Object`: its name, the tag expected (none: there is none yet) and a value of at most 64 KiB.
        object: Vec<u8>,
    },
    /// Ask for a small object. The reply goes to `supply`: the `Object`; without value if its tag is the one that was
    /// sent; without tag and value if there is none.
    #[non_exhaustive]
    GetObject {
        /// Names the task.
        id: TaskId,
        /// An `Object`: its name, and the tag of what is known.
        object: Vec<u8>,
    },
    /// Keep a blob. No reply: `done`, or `failed`.
    #[non_exhaustive]
    PutBlob {
        /// Names the task.
        id: TaskId,
        /// SHA-256 of the bytes, by which it is asked for.
        name: [u8; 32],
        /// At most 64 MiB.
        bytes: Vec<u8>,
    },
    /// Ask for a blob. Its bytes go to `supply`; one that is not there is `failed` with `NoSuchBlob`.
    #[non_exhaustive]
    GetBlob {
        /// Names the task.
        id: TaskId,
        /// SHA-256 of the bytes.
        name: [u8; 32],
    },
    /// Keep a blob no longer. No reply: `done`, also if there is none.
    #[non_exhaustive]
    DropBlob {
        /// Names the task.
        id: TaskId,
        /// SHA-256 of the bytes.
        name: [u8; 32],
    },
}

impl Task {
    /// Names the task.
    #[must_use]
    pub fn id(&self) -> TaskId {
        match self {
            Self::Deliver { id, .. }
            | Self::FetchDevices { id, .. }
            | Self::FetchBundles { id, .. }
            | Self::PublishPreKeys { id, .. }
            | Self::PublishDevices { id, .. }
            | Self::PutObject { id, .. }
            | Self::GetObject { id, .. }
            | Self::PutBlob { id, .. }
            | Self::GetBlob { id, .. }
            | Self::DropBlob { id, .. } => *id,
        }
    }
}

/// A task as stored; its bytes are made when it is offered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StoredTask {
    pub(crate) kind: Kind,
    /// Not offered before this time, in milliseconds.
    pub(crate) not_before: u64,
    /// A server refused it: it waits for the application.
    pub(crate) parked: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    Deliver {
        to: DeviceAddress,
        salt: Salt,
        known_list: ListHash,
        length: u32,
        sequence: u64,
        copy: u32,
    },
    FetchDevices {
        user: UserId,
        from: u64,
    },
    /// No device: all.
    FetchBundles {
        user: UserId,
        devices: Vec<DeviceId>,
    },
    PublishPreKeys(UploadPlan),
    PublishDevices {
        from: u64,
    },
    /// The head of a space that is under way.
    PutObject {
        space: u32,
    },
    GetObject {
        space: u32,
    },
    /// A blob that is held, of so many bytes.
    PutBlob {
        name: [u8; 32],
        length: u32,
    },
    GetBlob {
        name: [u8; 32],
    },
    DropBlob {
        name: [u8; 32],
    },
}

impl Kind {
    /// Whether the task is never put off for more than a day.
    pub(crate) fn is_put_off_shortly(&self) -> bool {
        !matches!(self, Self::Deliver { .. })
    }

    /// Whether the task asks the server about this user.
    pub(crate) fn fetches_of(&self, name: &UserId) -> bool {
        matches!(self, Self::FetchDevices { user, .. } | Self::FetchBundles { user, .. } if user == name)
    }
}

impl StoredTask {
    pub(crate) fn now(kind: Kind) -> Self {
        Self {
            kind,
            not_before: 0,
            parked: false,
        }
    }

    pub(crate) fn load(rows: &dyn Rows, id: TaskId) -> Result<Option<Self>, StoreError> {
        let bytes = rows.get(&tables::sequence(tables::TASKS, id.get()))?;
        bytes.map(|bytes| Self::read(&bytes)).transpose()
    }

    fn read(bytes: &[u8]) -> Result<Self, StoreError> {
        let mut reader = Reader::new(bytes, VERSION, "task row")?;
        let not_before = reader.u64()?;
        let parked = reader.bool()?;
        let kind = match reader.u8()? {
            1 => Kind::Deliver {
                to: read_address(&mut reader)?,
                salt: Salt::from_bytes(reader.array()?),
                known_list: ListHash::from_bytes(reader.array()?),
                length: reader.u32()?,
                sequence: reader.u64()?,
                copy: reader.u32()?,
            },
            2 => Kind::FetchDevices {
                user: read_user(&mut reader)?,
                from: reader.u64()?,
            },
            3 => {
                let user = read_user(&mut reader)?;
                let mut devices = Vec::new();
                for _ in 0..reader.u32()? {
                    let device = DeviceId::new(reader.u32()?);
                    devices.push(reader.checked(device)?);
                }
                Kind::FetchBundles { user, devices }
            }
            4 => Kind::PublishPreKeys(UploadPlan {
                number: reader.u64()?,
                replace: reader.bool()?,
                signed: reader.u32()?,
                last_resort: reader.u32()?,
                one_time: (reader.u32()?, reader.u32()?),
                kem: (reader.u32()?, reader.u32()?),
            }),
            5 => Kind::PublishDevices {
                from: reader.u64()?,
            },
            6 => Kind::PutObject {
                space: reader.u32()?,
            },
            7 => Kind::GetObject {
                space: reader.u32()?,
            },
            8 => Kind::PutBlob {
                name: reader.array()?,
                length: reader.u32()?,
            },
            9 => Kind::GetBlob {
                name: reader.array()?,
            },
            10 => Kind::DropBlob {
                name: reader.array()?,
            },
            _ => return Err(reader.damaged()),
        };
        reader.finish()?;
        Ok(Self {
            kind,
            not_before,
            parked,
        })
    }

    pub(crate) fn save(&self, rows: &mut Staged<'_>, id: TaskId) {
        let mut writer = Writer::new(VERSION, 360);
        writer.u64(self.not_before).bool(self.parked);
        match &self.kind {
            Kind::Deliver {
                to,
                salt,
                known_list,
                length,
                sequence,
                copy,
            } => {
                write_address(writer.u8(1), to);
                writer.fixed(salt.as_bytes()).fixed(known_list.as_bytes());
                writer.u32(*length).u64(*sequence).u32(*copy);
            }
            Kind::FetchDevices { user, from } => {
                writer.u8(2).block(user.as_str().as_bytes()).u64(*from);
            }
            Kind::FetchBundles { user, devices } => {
                writer.u8(3).block(user.as_str().as_bytes());
                writer.u32(u32::try_from(devices.len()).unwrap_or(u32::MAX));
                for device in devices {
                    writer.u32(device.get());
                }
            }
            Kind::PublishPreKeys(plan) => {
                writer
                    .u8(4)
                    .u64(plan.number)
                    .bool(plan.replace)
                    .u32(plan.signed)
                    .u32(plan.last_resort);
                writer
                    .u32(plan.one_time.0)
                    .u32(plan.one_time.1)
                    .u32(plan.kem.0)
                    .u32(plan.kem.1);
            }
            Kind::PublishDevices { from } => {
                writer.u8(5).u64(*from);
            }
            Kind::PutObject { space } => {
                writer.u8(6).u32(*space);
            }
            Kind::GetObject { space } => {
                writer.u8(7).u32(*space);
            }
            Kind::PutBlob { name, length } => {
                writer.u8(8).fixed(name).u32(*length);
            }
            Kind::GetBlob { name } => {
                writer.u8(9).fixed(name);
            }
            Kind::DropBlob { name } => {
                writer.u8(10).fixed(name);
            }
        }
        rows.put(tables::sequence(tables::TASKS, id.get()), writer.finish());
    }

    /// Queues the task under a new id.
    pub(crate) fn queue(&self, rows: &mut Staged<'_>) -> Result<TaskId, StoreError> {
        let id = TaskId(Counters::next(rows, |counters| &mut counters.task)?);
        self.save(rows, id);
        Ok(id)
    }

    /// Deletes the task with all that belongs to it.
    pub(crate) fn delete(&self, rows: &mut Staged<'_>, id: TaskId) {
        self.end(rows, id);
        if let Kind::Deliver { length, .. } = &self.kind {
            chunks::delete(rows, tables::FRAMES, id.get(), 0, *length as usize);
        }
        for marker in self.markers() {
            rows.delete(marker);
        }
    }

    /// Deletes the task's own row.
    pub(crate) fn end(&self, rows: &mut Staged<'_>, id: TaskId) {
        rows.delete(tables::sequence(tables::TASKS, id.get()));
    }

    /// Notes that this is the fetch under way for its devices.
    pub(crate) fn mark(&self, rows: &mut Staged<'_>, id: TaskId) {
        for marker in self.markers() {
            rows.put(marker, Zeroizing::new(id.get().to_be_bytes().to_vec()));
        }
    }

    /// The fetch under way that a marker names.
    pub(crate) fn marked(
        rows: &dyn Rows,
        marker: &sprag_store::RowName,
    ) -> Result<Option<(TaskId, Self)>, StoreError> {
        let bytes = rows.get(marker)?;
        let Some(id) = bytes.and_then(|bytes| bytes.as_slice().try_into().ok()) else {
            return Ok(None);
        };
        let id = TaskId(u64::from_be_bytes(id));
        Ok(Self::load(rows, id)?.map(|task| (id, task)))
    }

    fn markers(&self) -> Vec<sprag_store::RowName> {
        match &self.kind {
            Kind::FetchDevices { user, .. } => vec![tables::fetch_of_lists(user)],
            Kind::FetchBundles { user, devices } if devices.is_empty() => {
                vec![tables::fetch_of_user(user)]
            }
            Kind::FetchBundles { user, devices } => devices
                .iter()
                .map(|device| {
                    let address = DeviceAddress::new(user.clone(), *device);
                    tables::fetch_of_device(&tables::device_owner(&address))
                })
                .collect(),
            _ => Vec::new(),
        }
    }
}

pub(crate) fn write_address(writer: &mut Writer, address: &DeviceAddress) {
    writer
        .block(address.user().as_str().as_bytes())
        .u32(address.device().get());
}

pub(crate) fn read_address(reader: &mut Reader<'_>) -> Result<DeviceAddress, StoreError> {
    let user = read_user(reader)?;
    let device = DeviceId::new(reader.u32()?);
    Ok(DeviceAddress::new(user, reader.checked(device)?))
}

pub(crate) fn read_user(reader: &mut Reader<'_>) -> Result<UserId, StoreError> {
    let user = UserId::new(reader.text()?);
    reader.checked(user)
}

impl Device {
    /// The tasks that may be done now, oldest first, at most `limit` and about 16 MiB. They stay until `done`, `supply` or `failed` ends them.
    ///
    /// # Errors
    /// What the store answers.
    pub fn tasks(&self, rows: &dyn Rows, now: u64, limit: usize) -> Result<Vec<Task>, StepError> {
        let mut due = Vec::new();
        let mut bytes = 0;
        let mut failed = Ok(());
        rows.scan(&tables::all(tables::TASKS), &mut |suffix, value| {
            if due.len() >= limit || bytes > inbox::PAGE_BYTES {
                return ControlFlow::Break(());
            }
            match (suffix.try_into(), Self::due(value, now)) {
                (Ok(id), Ok(Some(task))) => {
                    bytes += match &task.kind {
                        Kind::Deliver { length, .. } => *length as usize,
                        Kind::PutBlob { length, .. } => *length as usize,
                        _ => 0,
                    };
                    due.push((TaskId(u64::from_be_bytes(id)), task));
                }
                (_, Err(error)) => failed = Err(error),
                _ => {}
            }
            ControlFlow::Continue(())
        })?;
        failed?;
        if self.is_waiting(rows)? {
            // It opens no session, and has nothing to say: only its prekeys and lists are of use.
            due.retain(|(_, task)| {
                matches!(
                    task.kind,
                    Kind::PublishPreKeys(_) | Kind::FetchDevices { .. }
                )
            });
        }
        due.iter()
            .map(|(id, task)| self.offer(rows, *id, task))
            .collect()
    }

    /// A stored task, if it may be done now.
    fn due(value: &[u8], now: u64) -> Result<Option<StoredTask>, StoreError> {
        let task = StoredTask::read(value)?;
        // What a clock that was ahead put off is not put off for as long as it was ahead.
        let wrong =
            task.kind.is_put_off_shortly() && task.not_before.saturating_sub(now) > PUT_OFF_MS;
        Ok((!task.parked && (task.not_before <= now || wrong)).then_some(task))
    }

    fn offer(&self, rows: &dyn Rows, id: TaskId, stored: &StoredTask) -> Result<Task, StepError> {
        Ok(match &stored.kind {
            Kind::Deliver {
                to,
                salt,
                known_list,
                length,
                ..
            } => {
                let payload = chunks::get(rows, tables::FRAMES, id.get(), 0, *length as usize)?;
                let envelope =
                    Envelope::new(self.address.clone(), to.clone(), *salt, payload.to_vec());
                Task::Deliver {
                    id,
                    to: to.clone(),
                    envelope: envelope.encode(),
                    known_list: *known_list.as_bytes(),
                }
            }
            Kind::FetchDevices { user, from } => {
                // Whoever asks for older ones wants them although he has the newest.
                let known = if *from == 0 {
                    self.known(rows, user)?
                } else {
                    Vec::new()
                };
                let query = ListQuery::new(user.as_str().to_owned(), *from, known).encode();
                Task::FetchDevices {
                    id,
                    user: user.clone(),
                    query,
                }
            }
            Kind::FetchBundles { user, devices } => {
                let known = self.known(rows, user)?;
                let devices = devices.iter().map(|device| device.get()).collect();
                let query = BundleQuery::new(user.as_str().to_owned(), devices, known).encode();
                Task::FetchBundles {
                    id,
                    user: user.clone(),
                    query,
                }
            }
            Kind::PublishPreKeys(plan) => Task::PublishPreKeys {
                id,
                upload: prekeys::build_upload(rows, plan)?.encode(),
            },
            Kind::PublishDevices { from } => Task::PublishDevices {
                id,
                lists: Lists::new(self.lists_to_publish(rows, id, *from)?).encode(),
            },
            Kind::PutObject { space } => Task::PutObject {
                id,
                object: self.head_to_put(rows, *space)?.encode(),
            },
            Kind::GetObject { space } => Task::GetObject {
                id,
                object: self.head_to_get(rows, *space)?.encode(),
            },
            Kind::PutBlob { name, .. } => Task::PutBlob {
                id,
                name: *name,
                bytes: blobs::get(rows, name)?
                    .ok_or(StoreError::Damaged("blob is missing"))?
                    .to_vec(),
            },
            Kind::GetBlob { name } => Task::GetBlob { id, name: *name },
            Kind::DropBlob { name } => Task::DropBlob { id, name: *name },
        })
    }

    /// Hash of the newest list that is known of a user; empty: none.
    fn known(&self, rows: &dyn Rows, user: &UserId) -> Result<Vec<u8>, StepError> {
        // Of a list that did not come from the server, its answer is the confirmation: it must not say "nothing new".
        let user = self.user(rows, user)?.filter(|user| user.from_server);
        Ok(user.map_or(Vec::new(), |user| user.newest.hash().as_bytes().to_vec()))
    }

    /// The same for one device, but not before `later`, also if a fetch is under way already.
    pub(crate) fn want_bundles_later(
        &self,
        rows: &mut Staged<'_>,
        address: &DeviceAddress,
        later: u64,
    ) -> Result<(), StepError> {
        let marker = tables::fetch_of_device(&tables::device_owner(address));
        match StoredTask::marked(rows, &marker)? {
            None => self.want_bundles(rows, address.user(), Some(address.device()), later),
            Some((id, mut task)) => {
                task.not_before = task.not_before.max(later);
                task.save(rows, id);
                Ok(())
            }
        }
    }

    /// Makes sure that bundles of a device (or of all devices of a user) are being fetched; one task for each.
    pub(crate) fn want_bundles(
        &self,
        rows: &mut Staged<'_>,
        user: &UserId,
        device: Option<DeviceId>,
        not_before: u64,
    ) -> Result<(), StepError> {
        let marker = match device {
            None => tables::fetch_of_user(user),
            Some(device) => tables::fetch_of_device(&tables::device_owner(&DeviceAddress::new(
                user.clone(),
                device,
            ))),
        };
        if StoredTask::marked(rows, &marker)?.is_none() {
            let kind = Kind::FetchBundles {
                user: user.clone(),
                devices: device.into_iter().collect(),
            };
            let id = StoredTask {
                kind,
                not_before,
                parked: false,
            }
            .queue(rows)?;
            rows.put(marker, Zeroizing::new(id.get().to_be_bytes().to_vec()));
        }
        Ok(())
    }
}
