//! Spaces as they stand in rows, and what holds for all of them.

use std::ops::ControlFlow;

use sprag_store::{Rows, Staged, StoreError};
use zeroize::Zeroizing;

use super::keys::{NamesKey, ObjectName};
use super::space::{Space, SpaceKind};
use super::{Entry, RecordState};
use crate::codec::{Reader, Writer};
use crate::error::StepError;
use crate::own::{Device, Env};
use crate::tables;
use crate::task::TaskId;

const VERSION: u8 = 1;
/// The longest tag of an object that is taken from a server, in bytes.
pub(super) const MAX_TAG: usize = 255;
/// Number of the root.
pub(super) const ROOT: u32 = 1;

/// A head of ours that is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Flight {
    pub(super) length: u32,
    /// Segments that the server is to have before it.
    pub(super) waits_for: u32,
    pub(super) task: Option<TaskId>,
}

/// A newer head whose segments are being got.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Incoming {
    pub(super) length: u32,
    pub(super) tag: Vec<u8>,
}

/// What is known of a space.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SpaceRow {
    pub(super) number: u32,
    pub(super) space: Space,
    /// Bytes of the newest head; 0: there is none yet.
    pub(super) head: u32,
    /// Epoch and number of the generation that it is sealed under.
    pub(super) generation: (u64, u32),
    /// The server's tag of it; empty: there was none.
    pub(super) tag: Vec<u8>,
    /// The server has answered for it at least once.
    pub(super) known: bool,
    pub(super) flight: Option<Flight>,
    pub(super) incoming: Option<Incoming>,
    /// The question that is under way.
    pub(super) asked: Option<TaskId>,
    /// Bytes of a head of another branch that the next one is to join; 0: none.
    pub(super) branch: u32,
    /// Since when the server is given what it lacks, in milliseconds, and how often it was.
    pub(super) refilled: (u64, u32),
    /// Records in the log, tombstones among them.
    pub(super) records: u32,
    /// How often the head was asked for in vain.
    pub(super) waited: u32,
    /// Since when the server does not have a segment of the incoming head, in milliseconds; 0: it has all, as far as known.
    pub(super) missing_since: u64,
    /// The next head is a restart: the one that is known names what the server has lost.
    pub(super) restart: bool,
}

impl SpaceRow {
    fn new(number: u32, space: Space) -> Self {
        Self {
            number,
            space,
            head: 0,
            generation: (0, 0),
            tag: Vec::new(),
            known: false,
            flight: None,
            incoming: None,
            asked: None,
            branch: 0,
            refilled: (0, 0),
            records: 0,
            waited: 0,
            missing_since: 0,
            restart: false,
        }
    }

    pub(super) fn load(rows: &dyn Rows, number: u32) -> Result<Option<Self>, StoreError> {
        let bytes = rows.get(&tables::space(number))?;
        bytes.map(|bytes| Self::read(number, &bytes)).transpose()
    }

    /// As [`load`](Self::load), of one that there is.
    pub(super) fn get(rows: &dyn Rows, number: u32) -> Result<Self, StoreError> {
        Self::load(rows, number)?.ok_or(StoreError::Damaged("space row is missing"))
    }

    fn read(number: u32, bytes: &[u8]) -> Result<Self, StoreError> {
        let mut reader = Reader::new(bytes, VERSION, "space row")?;
        let kind = SpaceKind::from_number(reader.u8()?);
        let (app, user) = (reader.text()?, reader.text()?);
        let agent = Some(reader.text()?).filter(|agent| !agent.is_empty());
        let space = match kind {
            Some(SpaceKind::Root) => Space::root(),
            Some(kind) => {
                let space = Space::new(app, user, agent, kind);
                reader.checked(space)?
            }
            None => return Err(reader.damaged()),
        };
        let mut row = Self::new(number, space);
        row.head = reader.u32()?;
        row.generation = (reader.u64()?, reader.u32()?);
        row.tag = reader.block()?.to_vec();
        row.known = reader.bool()?;
        if reader.bool()? {
            row.flight = Some(Flight {
                length: reader.u32()?,
                waits_for: reader.u32()?,
                task: read_task(&mut reader)?,
            });
        }
        if reader.bool()? {
            row.incoming = Some(Incoming {
                length: reader.u32()?,
                tag: reader.block()?.to_vec(),
            });
        }
        row.asked = read_task(&mut reader)?;
        row.branch = reader.u32()?;
        row.refilled = (reader.u64()?, reader.u32()?);
        row.records = reader.u32()?;
        row.waited = reader.u32()?;
        row.missing_since = reader.u64()?;
        row.restart = reader.bool()?;
        reader.finish()?;
        Ok(row)
    }

    pub(super) fn save(&self, rows: &mut Staged<'_>) {
        let mut writer = Writer::new(VERSION, 1_500);
        writer.u8(self.space.kind().number());
        for part in [
            self.space.app(),
            self.space.user(),
            self.space.agent().unwrap_or_default(),
        ] {
            writer.block(part.as_bytes());
        }
        writer.u32(self.head);
        writer.u64(self.generation.0).u32(self.generation.1);
        writer.block(&self.tag).bool(self.known);
        writer.bool(self.flight.is_some());
        if let Some(flight) = &self.flight {
            writer.u32(flight.length).u32(flight.waits_for);
            writer.u64(flight.task.map_or(0, TaskId::get));
        }
        writer.bool(self.incoming.is_some());
        if let Some(incoming) = &self.incoming {
            writer.u32(incoming.length).block(&incoming.tag);
        }
        writer.u64(self.asked.map_or(0, TaskId::get));
        writer.u32(self.branch);
        writer.u64(self.refilled.0).u32(self.refilled.1);
        writer.u32(self.records).u32(self.waited);
        writer.u64(self.missing_since);
        writer.bool(self.restart);
        rows.put(tables::space(self.number), writer.finish());
    }

    /// All spaces, ascending by number: the root first.
    pub(super) fn all(rows: &dyn Rows) -> Result<Vec<Self>, StoreError> {
        let mut all = Vec::new();
        let mut failed = Ok(());
        rows.scan(&tables::all(tables::SPACES), &mut |suffix, value| {
            if let Ok(number) = suffix.try_into() {
                match Self::read(u32::from_be_bytes(number), value) {
                    Ok(row) => all.push(row),
                    Err(error) => failed = Err(error),
                }
            }
            ControlFlow::Continue(())
        })?;
        failed?;
        all.sort_by_key(|row| row.number);
        Ok(all)
    }

    pub(super) fn is_root(&self) -> bool {
        self.number == ROOT
    }
}

fn read_task(reader: &mut Reader<'_>) -> Result<Option<TaskId>, StoreError> {
    Ok(Some(reader.u64()?).filter(|id| *id > 0).map(TaskId::new))
}

/// The space has something to be done.
pub(super) fn mark_busy(rows: &mut Staged<'_>, number: u32) {
    rows.put(tables::busy_space(number), Zeroizing::new(vec![1]));
}

/// What holds for all spaces; absent as long as memories are not used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct MemoryState {
    /// Spaces that there are, the root among them.
    pub(super) spaces: u32,
    /// The newest generation under which all spaces are being sealed, by epoch and number.
    pub(super) wrapped: (u64, u32),
    /// The lowest generation that is kept.
    pub(super) floor: (u64, u32),
    /// The lowest generation of which anything may be on the disk.
    pub(super) holds: (u64, u32),
    /// When the server was last asked for newer heads.
    pub(super) refreshed: u64,
    /// When a generation was last made for what was erased.
    pub(super) erased: u64,
    /// The highest generation of a backup that was made here.
    pub(super) in_backup: (u64, u32),
}

const STATE: u8 = 0;
/// Epoch of the newest list that left out a device.
pub(super) const REMOVAL: u8 = 1;
/// When generations were last shared with a device that is behind.
pub(super) const SHARED: u8 = 3;
/// The highest counter that this device wrote into a head of a space.
const USED_COUNTER: u8 = 4;

impl MemoryState {
    pub(super) fn load(rows: &dyn Rows) -> Result<Option<Self>, StoreError> {
        let Some(bytes) = rows.get(&tables::memory_state(STATE, &[]))? else {
            return Ok(None);
        };
        let mut reader = Reader::new(&bytes, VERSION, "memory state")?;
        let state = Self {
            spaces: reader.u32()?,
            wrapped: (reader.u64()?, reader.u32()?),
            floor: (reader.u64()?, reader.u32()?),
            holds: (reader.u64()?, reader.u32()?),
            refreshed: reader.u64()?,
            erased: reader.u64()?,
            in_backup: (reader.u64()?, reader.u32()?),
        };
        reader.finish()?;
        Ok(Some(state))
    }

    pub(super) fn save(&self, rows: &mut Staged<'_>) {
        let mut writer = Writer::new(VERSION, 70);
        writer.u32(self.spaces);
        for generation in [self.wrapped, self.floor, self.holds] {
            writer.u64(generation.0).u32(generation.1);
        }
        writer.u64(self.refreshed).u64(self.erased);
        writer.u64(self.in_backup.0).u32(self.in_backup.1);
        rows.put(tables::memory_state(STATE, &[]), writer.finish());
    }
}

/// The lowest generation that is kept: what was given up does not come back with a share that was late.
pub(crate) fn floor(rows: &dyn Rows) -> Result<(u64, u32), StoreError> {
    Ok(MemoryState::load(rows)?.unwrap_or_default().floor)
}

/// A device was left out of our list of this epoch: nothing is uploaded until a generation of it, or a later one, is known.
pub(crate) fn note_removal(rows: &mut Staged<'_>, epoch: u64) -> Result<(), StoreError> {
    let bytes = Zeroizing::new(epoch.to_be_bytes().to_vec());
    rows.put(tables::memory_state(REMOVAL, &[]), bytes);
    for row in SpaceRow::all(rows)? {
        mark_busy(rows, row.number);
    }
    Ok(())
}

pub(super) fn removal_epoch(rows: &dyn Rows) -> Result<u64, StoreError> {
    let bytes = rows.get(&tables::memory_state(REMOVAL, &[]))?;
    let epoch = bytes.and_then(|bytes| bytes.as_slice().try_into().ok());
    Ok(epoch.map_or(0, u64::from_be_bytes))
}

/// The highest counter that this device ever wrote into a head of a space, taken or not.
pub(super) fn used_counter(rows: &dyn Rows, space: u32) -> Result<u64, StoreError> {
    let bytes = rows.get(&tables::memory_state(USED_COUNTER, &space.to_be_bytes()))?;
    let counter = bytes.and_then(|bytes| bytes.as_slice().try_into().ok());
    Ok(counter.map_or(0, u64::from_be_bytes))
}

pub(super) fn save_used_counter(rows: &mut Staged<'_>, space: u32, counter: u64) {
    let bytes = Zeroizing::new(counter.to_be_bytes().to_vec());
    rows.put(
        tables::memory_state(USED_COUNTER, &space.to_be_bytes()),
        bytes,
    );
}

impl Device {
    /// What names objects and rows. Without the account root there is none yet.
    pub(super) fn names_key(&self, rows: &dyn Rows) -> Result<NamesKey, StepError> {
        let root = self.account_root(rows)?.ok_or(StepError::NotLinked)?;
        Ok(NamesKey::new(&root))
    }

    /// A space that is known here.
    pub(super) fn find_space(
        &self,
        rows: &dyn Rows,
        space: &Space,
    ) -> Result<Option<(SpaceRow, ObjectName)>, StepError> {
        if self.account_root(rows)?.is_none() {
            return Ok(None);
        }
        let name = self.names_key(rows)?.head(space);
        let number = rows.get(&tables::space_number(&name))?;
        let number = number.and_then(|bytes| bytes.as_slice().try_into().ok());
        let Some(number) = number.map(u32::from_be_bytes) else {
            return Ok(None);
        };
        Ok(Some((SpaceRow::get(rows, number)?, name)))
    }

    /// The root; made if memories were not used before.
    pub(super) fn root_space(
        &self,
        rows: &mut Staged<'_>,
        env: &mut Env<'_>,
    ) -> Result<(SpaceRow, ObjectName), StepError> {
        if let Some(found) = self.find_space(rows, &Space::root())? {
            return Ok(found);
        }
        self.begin_keys(rows, env)?;
        let lowest = self
            .generations(rows)?
            .first()
            .map(|one| (one.epoch, one.number));
        let lowest = lowest.ok_or(StepError::NotLinked)?;
        MemoryState {
            floor: lowest,
            holds: lowest,
            ..MemoryState::default()
        }
        .save(rows);
        self.add_space(rows, &Space::root())
    }

    pub(super) fn add_space(
        &self,
        rows: &mut Staged<'_>,
        space: &Space,
    ) -> Result<(SpaceRow, ObjectName), StepError> {
        let name = self.names_key(rows)?.head(space);
        let mut state = MemoryState::load(rows)?.unwrap_or_default();
        state.spaces += 1;
        state.save(rows);
        let row = SpaceRow::new(state.spaces, space.clone());
        row.save(rows);
        let number = Zeroizing::new(row.number.to_be_bytes().to_vec());
        rows.put(tables::space_number(&name), number);
        mark_busy(rows, row.number);
        Ok((row, name))
    }

    /// A space; made and listed in the root if it is new.
    pub(super) fn open_space(
        &self,
        rows: &mut Staged<'_>,
        env: &mut Env<'_>,
        space: &Space,
    ) -> Result<(SpaceRow, ObjectName), StepError> {
        if let Some(found) = self.find_space(rows, space)? {
            return Ok(found);
        }
        let (mut root, root_name) = self.root_space(rows, env)?;
        let device = self.address.device().get();
        let entry = Entry::new(1, device, env.now, "", RecordState::Listed)?;
        self.write_entry(rows, &mut root, &root_name, &space.listed_as(), &entry)?;
        self.add_space(rows, space)
    }

    /// The spaces that are known here, in the order in which they were met.
    ///
    /// # Errors
    /// What the store answers.
    pub fn memory_spaces(&self, rows: &dyn Rows) -> Result<Vec<Space>, StepError> {
        let all = SpaceRow::all(rows)?.into_iter();
        Ok(all
            .filter(|row| !row.is_root())
            .map(|row| row.space)
            .collect())
    }
}
