//! Devices of one account and a server that keeps heads and blobs of their memories, at the session layer: so that a test
//! sees, keeps and changes everything that the server ever had.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::must_use_candidate,
    clippy::missing_panics_doc,
    clippy::exhaustive_structs,
    missing_docs,
    reason = "a test fails by panicking, and reads like its body"
)]

use std::collections::BTreeMap;

use sprag_crypto::sha256;
use sprag_session::memory::{Draft, Entry, RecordId, RecordState, Space, SpaceKind, Standing};
use sprag_session::{Event, Failure, StepError, Task};
use sprag_wire::relay::Object;
use sprag_x3dh::DeviceList;

use crate::desk::{Account, Desk};

pub type Name = [u8; 32];

/// What a server keeps, and all that it ever had.
#[derive(Debug, Clone, Default)]
pub struct Shelves {
    pub objects: BTreeMap<Vec<u8>, (Vec<u8>, Vec<u8>)>,
    pub blobs: BTreeMap<Name, Vec<u8>>,
    /// Every value that an object ever had, oldest first.
    pub heads: Vec<(Vec<u8>, Vec<u8>)>,
    /// Every blob that was ever put.
    pub every_blob: BTreeMap<Name, Vec<u8>>,
    tags: u64,
}

pub struct Archive {
    pub account: Account,
    pub list: DeviceList,
    pub desks: Vec<Desk>,
    pub shelves: Shelves,
}

impl std::fmt::Debug for Archive {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Archive").finish_non_exhaustive()
    }
}

impl Shelves {
    /// What is here is shown under tags that were never given, as a server does that was set back.
    pub fn set_tags_above(&mut self, other: &Self) {
        self.tags = self.tags.max(other.tags) + 1_000;
        let tag = self.tags.to_be_bytes();
        for (number, (shown, _)) in self.objects.values_mut().enumerate() {
            *shown = [&tag[..], &number.to_be_bytes()].concat();
        }
    }
}

pub fn space() -> Space {
    Space::new("app", "ann", None, SpaceKind::Memory).unwrap()
}

pub fn id(text: &str) -> RecordId {
    RecordId::new(text).unwrap()
}

impl Archive {
    /// An account whose devices have the same root and first generation.
    pub fn new(devices: usize, seed: u64) -> Self {
        let mut account = Account::new("ann", devices, seed);
        let all: Vec<usize> = (0..devices).collect();
        let list = account.list(1, None, &all);
        let mut archive = Self {
            desks: (0..devices).map(|at| account.desk(at, &list)).collect(),
            account,
            list,
            shelves: Shelves::default(),
        };
        for desk in &mut archive.desks {
            desk.step(|device, rows, _| {
                device.set_account_root(rows, &[1; 32])?;
                device.add_generation(rows, 1, 1, &[2; 32])
            })
            .unwrap();
        }
        archive
    }

    /// The list of these devices, known to all of them from now on.
    pub fn change_list(&mut self, devices: &[usize]) {
        let list = self
            .account
            .list(self.list.epoch() + 1, Some(&self.list), devices);
        for at in devices {
            let own = self.account.name.clone();
            self.desks[*at]
                .step(|device, rows, _| device.learn(rows, &own, list.frame(), false))
                .unwrap();
        }
        self.list = list;
    }

    /// What a key share would bring: all generations of one device go to another.
    pub fn share(&mut self, from: usize, to: usize) {
        let desk = &self.desks[from];
        let generations = desk.device.generations(&desk.rows).unwrap();
        self.desks[to]
            .step(|device, rows, _| {
                for one in &generations {
                    device.add_generation(rows, one.epoch, one.number, &one.key)?;
                }
                Ok::<_, StepError>(())
            })
            .unwrap();
    }

    pub fn write(&mut self, at: usize, record: &str, text: &str) -> Entry {
        self.write_in(at, &space(), record, text)
    }

    pub fn write_in(&mut self, at: usize, space: &Space, record: &str, text: &str) -> Entry {
        let id = id(record);
        self.desks[at]
            .step(|device, rows, env| {
                let revision = device.memory_next(rows, space, &id)?;
                let mut key = [0; 32];
                env.rng().fill_bytes(&mut key);
                // Stands for a sealed blob: nothing here looks into it.
                let blob = [&key[..16], text.as_bytes()].concat();
                let mut draft = Draft::new(revision, &key, sha256(&[&blob]), blob.len() as u64, "");
                draft.hold = Some(&blob);
                draft.index = Some(b"index");
                device.memory_put(rows, env, space, &id, &draft)
            })
            .unwrap()
    }

    pub fn delete(&mut self, at: usize, record: &str) -> bool {
        self.desks[at]
            .step(|device, rows, env| device.memory_delete(rows, env, &space(), &id(record)))
            .unwrap()
    }

    pub fn erase(&mut self, at: usize, record: &str) {
        let count = self.desks[at]
            .step(|device, rows, env| device.memory_erase(rows, env, &space(), &[id(record)]))
            .unwrap();
        assert_eq!(count, 1);
    }

    pub fn entry(&self, at: usize, record: &str) -> Option<Entry> {
        let desk = &self.desks[at];
        desk.device
            .memory_entry(&desk.rows, &space(), &id(record))
            .unwrap()
    }

    pub fn standing(&self, at: usize, record: &str) -> Standing {
        let desk = &self.desks[at];
        desk.device
            .memory_standing(&desk.rows, &space(), &id(record))
            .unwrap()
    }

    /// What a device reads of a record: its blob is held there, or at the server.
    pub fn read(&self, at: usize, record: &str) -> Option<String> {
        let RecordState::Live { blob, .. } = self.entry(at, record)?.state else {
            return None;
        };
        let desk = &self.desks[at];
        let bytes = desk.device.memory_blob(&desk.rows, &blob).unwrap()?;
        Some(String::from_utf8(bytes[16..].to_vec()).unwrap())
    }

    /// The server tells all devices its epoch, as on every connection.
    pub fn tell_epoch(&mut self, epoch: u8) {
        for desk in &mut self.desks {
            desk.step(|device, rows, env| device.server_epoch(rows, env, &[epoch; 16]))
                .unwrap();
        }
    }

    pub fn refresh(&mut self, at: usize) {
        self.desks[at]
            .step(|device, rows, env| device.memory_refresh(rows, env))
            .unwrap();
    }

    /// Upkeep with the renewal that it asks for.
    pub fn maintain(&mut self, at: usize) {
        self.desks[at]
            .step(|device, rows, env| {
                let upkept =
                    device.maintain(rows, env, &sprag_session::UpkeepSettings::default())?;
                if let Some(renewal) = upkept.renewal {
                    device.renewed(rows, env.now(), renewal)?;
                }
                Ok::<_, StepError>(())
            })
            .unwrap();
    }

    /// The tasks of memories that a device has now.
    pub fn tasks(&mut self, at: usize) -> Vec<Task> {
        let desk = &mut self.desks[at];
        desk.step(|device, rows, env| device.prepare(rows, env))
            .unwrap();
        let tasks = desk.device.tasks(&desk.rows, desk.now, 1_000).unwrap();
        let mut mine = Vec::new();
        for task in tasks {
            match task {
                Task::PutObject { .. }
                | Task::GetObject { .. }
                | Task::PutBlob { .. }
                | Task::GetBlob { .. }
                | Task::DropBlob { .. } => mine.push(task),
                Task::PublishDevices { .. }
                | Task::PublishPreKeys { .. }
                | Task::Deliver { .. } => {
                    desk.step(|device, rows, _| device.done(rows, task.id()))
                        .unwrap();
                }
                _ => {}
            }
        }
        mine
    }

    /// Does one task at the server.
    pub fn perform(&mut self, at: usize, task: &Task) {
        match task {
            Task::PutObject { id, object, .. } => {
                let put = Object::decode(object).unwrap();
                let shelves = &mut self.shelves;
                let current = shelves.objects.get(&put.name).cloned().unwrap_or_default();
                if put.tag == current.0 {
                    shelves.tags += 1;
                    let tag = shelves.tags.to_be_bytes().to_vec();
                    shelves.heads.push((put.name.clone(), put.value.clone()));
                    shelves
                        .objects
                        .insert(put.name.clone(), (tag.clone(), put.value));
                    let reply = Object::new(put.name, tag, Vec::new()).encode();
                    self.supply(at, *id, &reply);
                } else {
                    let now = Object::new(put.name, current.0, current.1).encode();
                    self.fail(at, *id, &Failure::Conflict(now));
                }
            }
            Task::GetObject { id, object, .. } => {
                let get = Object::decode(object).unwrap();
                let (tag, value) = self
                    .shelves
                    .objects
                    .get(&get.name)
                    .cloned()
                    .unwrap_or_default();
                let value = if tag == get.tag { Vec::new() } else { value };
                let reply = Object::new(get.name, tag, value).encode();
                self.supply(at, *id, &reply);
            }
            Task::PutBlob {
                id, name, bytes, ..
            } => {
                assert_eq!(*name, sha256(&[bytes]));
                self.shelves.blobs.insert(*name, bytes.clone());
                self.shelves.every_blob.insert(*name, bytes.clone());
                self.done(at, *id);
            }
            Task::GetBlob { id, name, .. } => match self.shelves.blobs.get(name).cloned() {
                Some(bytes) => self.supply(at, *id, &bytes),
                None => self.fail(at, *id, &Failure::NoSuchBlob),
            },
            Task::DropBlob { id, name, .. } => {
                self.shelves.blobs.remove(name);
                self.done(at, *id);
            }
            _ => {}
        }
    }

    fn done(&mut self, at: usize, id: sprag_session::TaskId) {
        self.desks[at]
            .step(|device, rows, _| device.done(rows, id))
            .unwrap();
    }

    fn supply(&mut self, at: usize, id: sprag_session::TaskId, reply: &[u8]) {
        let refused = self.desks[at]
            .step(|device, rows, env| device.supply(rows, env, id, reply))
            .unwrap();
        assert_eq!(refused, Ok(()));
    }

    fn fail(&mut self, at: usize, id: sprag_session::TaskId, failure: &Failure) {
        self.desks[at]
            .step(|device, rows, env| device.failed(rows, env, id, failure))
            .unwrap();
    }

    /// Does all tasks of a device until it has none. Says how many there were.
    pub fn work(&mut self, at: usize) -> usize {
        let mut count = 0;
        loop {
            let tasks = self.tasks(at);
            if tasks.is_empty() {
                return count;
            }
            for task in tasks {
                self.perform(at, &task);
                count += 1;
            }
            assert!(count < 20_000, "there is no end to it");
        }
    }

    /// Each device asks and works until all have what the others wrote.
    pub fn settle(&mut self) {
        for _ in 0..3 {
            for at in 0..self.desks.len() {
                self.refresh(at);
                self.work(at);
            }
        }
    }

    pub fn events(&self, at: usize) -> Vec<Event> {
        let desk = &self.desks[at];
        let events = desk.device.events(&desk.rows, 0).unwrap();
        events.into_iter().map(|(_, event)| event).collect()
    }

    pub fn wait(&mut self, milliseconds: u64) {
        for desk in &mut self.desks {
            desk.now += milliseconds;
        }
    }
}
