//! Generations of memories: what is sealed anew, what is given up, and when erased means erased ("Memories", *Erase*).

use std::ops::ControlFlow;

use sprag_store::{Rows, Staged};
use sprag_wire::{Body, DeviceAddress, KeyShare, limits};
use zeroize::Zeroizing;

use super::RecordState;
use super::blobs;
use super::head::Head;
use super::push::{Keys, stored_head};
use super::records::load_entry;
use super::spaces::{MemoryState, ROOT, SHARED, SpaceRow, mark_busy, removal_epoch};
use crate::error::StepError;
use crate::event::{self, Event};
use crate::own::{Device, Env};
use crate::{tables, upkeep};

/// Spaces that one step goes on with.
const AT_ONCE: usize = 32;
/// A generation is made for what was erased at most this often: once a day.
pub const ERASE_MS: u64 = 24 * 3_600 * 1_000;
/// Heads are asked for in upkeep at most this often: every ten minutes.
pub const REFRESH_MS: u64 = 600_000;
/// Generations are shared again with a device that is behind at most this often: once a day.
const SHARE_MS: u64 = 24 * 3_600 * 1_000;

/// What is known of memories as a whole.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct MemoryHealth {
    /// Spaces that are known.
    pub spaces: usize,
    /// Records written here that are in no head of the server yet.
    pub unpublished: usize,
    /// Records that were erased and may still be readable somewhere.
    pub erase_pending: usize,
    /// Generations that are kept.
    pub generations: usize,
    /// Listed devices that do not say yet that they hold nothing below the floor.
    pub behind: Vec<u32>,
    /// Devices that were removed: what they could read then they still can.
    pub removed: Vec<u32>,
    /// What a backup of before could read was erased, or is sealed anew: a new one is due.
    pub backup_due: bool,
}

/// Unlike that of the other upkeep it takes any clock that went back as due: nothing here is deleted for its age.
fn is_due(since: u64, now: u64, period: u64) -> bool {
    since == 0 || since > now || now - since >= period
}

impl Device {
    /// What is due before tasks are offered.
    pub(crate) fn go_on_with_memories(
        &mut self,
        rows: &mut Staged<'_>,
        env: &mut Env<'_>,
    ) -> Result<(), StepError> {
        let Some(mut state) = MemoryState::load(rows)? else {
            return Ok(blobs::offer(rows)?);
        };
        let newest = self.writing_generation(rows)?;
        let newest_epoch = newest.as_ref().map_or(0, |newest| newest.epoch);
        // Until there is a generation of the list, nothing of any space goes out.
        let at_once = if newest_epoch < removal_epoch(rows)? {
            usize::MAX
        } else {
            AT_ONCE
        };
        if let Some(newest) = newest
            && state.wrapped != (newest.epoch, newest.number)
        {
            state.wrapped = (newest.epoch, newest.number);
            state.save(rows);
            for mut row in SpaceRow::all(rows)? {
                mark_busy(rows, row.number);
                if row.asked.is_some() {
                    // What waited for this key waits no longer.
                    row.waited = 0;
                    row.save(rows);
                    self.ask_for_head(rows, &mut row, 0)?;
                }
            }
        }
        let mut busy = Vec::new();
        rows.scan(&tables::all(tables::BUSY_SPACES), &mut |suffix, _| {
            busy.extend(suffix.try_into().map(u32::from_be_bytes));
            if busy.len() >= at_once {
                return ControlFlow::Break(());
            }
            ControlFlow::Continue(())
        })?;
        for number in busy {
            let mut row = SpaceRow::get(rows, number)?;
            self.hold_back(rows, &mut row)?;
            if row.asked.is_some() {
                // It goes on when that is answered.
                rows.delete(tables::busy_space(number));
                continue;
            }
            if !row.known && row.head == 0 && row.flight.is_none() && row.incoming.is_none() {
                // There may be something of other devices.
                self.ask_for_head(rows, &mut row, 0)?;
                rows.delete(tables::busy_space(number));
                continue;
            }
            let ended = match self.push(rows, env, &mut row) {
                Err(StepError::Log(error)) => {
                    // A device of ours left no room for a next head. That stops this space, and nothing else.
                    let space = row.space.clone();
                    event::record(rows, &Event::MemoryRefused { space, error })?;
                    true
                }
                ended => ended?,
            };
            if ended {
                rows.delete(tables::busy_space(number));
            }
        }
        Ok(blobs::offer(rows)?)
    }

    /// A newer head of a space is known here: perhaps nothing needs the older generations any more, and what was erased is.
    pub(super) fn heads_moved(&self, rows: &mut Staged<'_>) -> Result<(), StepError> {
        self.raise_floor(rows)?;
        self.settle_erases(rows)
    }

    /// Gives up the generations below those that all heads are sealed under.
    fn raise_floor(&self, rows: &mut Staged<'_>) -> Result<(), StepError> {
        let generations = self.generations(rows)?;
        let lowest = generations.first().map(|one| (one.epoch, one.number));
        let newest = generations.last().map(|one| (one.epoch, one.number));
        if lowest == newest {
            return Ok(());
        }
        let Some(mut state) = MemoryState::load(rows)? else {
            return Ok(());
        };
        let mut floor = (u64::MAX, u32::MAX);
        for row in SpaceRow::all(rows)? {
            if !row.known || row.incoming.is_some() || row.branch > 0 {
                // What it is sealed under is not known, or not all.
                return Ok(());
            }
            if row.head > 0 {
                floor = floor.min(row.generation);
            } else if row.number == ROOT {
                return Ok(());
            }
        }
        if floor <= state.floor || Some(floor) > newest {
            return Ok(());
        }
        let mut below = Vec::new();
        rows.scan(&tables::all(tables::GENERATIONS), &mut |suffix, _| {
            if let Some((epoch, rest)) = suffix.split_first_chunk::<8>()
                && let Some((number, _)) = rest.split_first_chunk::<4>()
                && (u64::from_be_bytes(*epoch), u32::from_be_bytes(*number)) < floor
            {
                below.push(tables::all(tables::GENERATIONS).join(suffix));
            }
            ControlFlow::Continue(())
        })?;
        for name in below {
            rows.delete(name);
        }
        state.floor = floor;
        state.save(rows);
        Ok(upkeep::want_renewal(rows)?)
    }

    /// The store was renewed: what was given up before is on the disk no more, and the others are told.
    pub(crate) fn memories_renewed(&self, rows: &mut Staged<'_>) -> Result<(), StepError> {
        if let Some(mut state) = MemoryState::load(rows)?
            && state.holds < state.floor
        {
            state.holds = state.floor;
            state.save(rows);
            mark_busy(rows, ROOT);
        }
        Ok(())
    }

    fn root_head(&self, rows: &dyn Rows) -> Result<Option<Head>, StepError> {
        let Some(root) = SpaceRow::load(rows, ROOT)? else {
            return Ok(None);
        };
        let keys = Keys::of(self, rows, &root)?;
        Ok(stored_head(rows, &root, &keys)?.map(|(head, _)| head))
    }

    /// The lowest generation that any listed device holds, as far as all of them have said.
    fn held_by_all(&self, rows: &dyn Rows) -> Result<(u64, u32), StepError> {
        let Some(head) = self.root_head(rows)? else {
            return Ok((0, 0));
        };
        let list = self.own_newest(rows)?;
        let holds = list.devices().iter().map(|entry| {
            let said = head.writers.get(&entry.device().get());
            said.map_or((0, 0), |said| said.holds)
        });
        Ok(holds.min().unwrap_or((0, 0)))
    }

    /// What was erased under a generation below all that devices hold, and heads are sealed under, is erased.
    fn settle_erases(&self, rows: &mut Staged<'_>) -> Result<(), StepError> {
        let pending = erases(rows)?;
        if pending.is_empty() {
            return Ok(());
        }
        let held = self.held_by_all(rows)?;
        let mut count = 0;
        for (space, record) in pending {
            let row = SpaceRow::get(rows, space)?;
            let entry = load_entry(rows, space, &record)?;
            let done = match entry.map(|(_, entry)| entry.state) {
                Some(RecordState::Erased { under }) => {
                    let published = rows.get(&tables::unpublished(space, &record))?.is_none();
                    published && held > under && row.generation > under && row.branch == 0
                }
                _ => true,
            };
            if done {
                rows.delete(tables::erase(space, &record));
                count += 1;
            }
        }
        if count > 0 {
            event::record(rows, &Event::MemoryErased { count })?;
        }
        Ok(())
    }

    /// The part of upkeep that is about memories: a generation for what was erased, keys for devices that are behind, newer
    /// heads.
    pub(crate) fn maintain_memories(
        &mut self,
        rows: &mut Staged<'_>,
        env: &mut Env<'_>,
    ) -> Result<(), StepError> {
        let Some(mut state) = MemoryState::load(rows)? else {
            return Ok(());
        };
        let due = is_due(state.erased, env.now, ERASE_MS);
        if due && self.erase_needs_generation(rows)? && self.is_key_holder(rows)? {
            state.erased = env.now;
            state.save(rows);
            self.new_generation(rows, env)?;
        }
        self.settle_erases(rows)?;
        self.share_with_those_behind(rows, env)?;
        if is_due(state.refreshed, env.now, REFRESH_MS) {
            self.memory_refresh(rows, env)?;
        }
        Ok(())
    }

    fn is_key_holder(&self, rows: &dyn Rows) -> Result<bool, StepError> {
        let newest = self.own_newest(rows)?;
        let mut devices = newest.devices().iter();
        Ok(self.account.is_some() && devices.any(|entry| self.is_me(entry) && entry.is_holder()))
    }

    /// Whether something was erased under the generation that is written under.
    fn erase_needs_generation(&self, rows: &dyn Rows) -> Result<bool, StepError> {
        let newest = self.writing_generation(rows)?;
        let newest = newest.map_or((0, 0), |one| (one.epoch, one.number));
        for (space, record) in erases(rows)? {
            let entry = load_entry(rows, space, &record)?;
            if let Some(RecordState::Erased { under }) = entry.map(|(_, entry)| entry.state)
                && under >= newest
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Devices that do not say that they hold nothing below our floor may lack the newest generations.
    fn share_with_those_behind(
        &mut self,
        rows: &mut Staged<'_>,
        env: &mut Env<'_>,
    ) -> Result<(), StepError> {
        if !self.is_key_holder(rows)? {
            return Ok(());
        }
        let generations = self.generations(rows)?;
        for device in self.behind(rows)? {
            if device == self.address.device().get() {
                continue;
            }
            let name = tables::memory_state(SHARED, &device.to_be_bytes());
            let last = rows.get(&name)?;
            let last = last.and_then(|bytes| bytes.as_slice().try_into().ok());
            match last.map(u64::from_be_bytes) {
                Some(last) if is_due(last, env.now, SHARE_MS) => {}
                Some(_) => continue,
                None => {
                    // It was given them when they were made.
                    rows.put(name, Zeroizing::new(env.now.to_be_bytes().to_vec()));
                    continue;
                }
            }
            rows.put(name, Zeroizing::new(env.now.to_be_bytes().to_vec()));
            let Ok(number) = sprag_wire::DeviceId::new(device) else {
                continue;
            };
            let to = DeviceAddress::new(self.address.user().clone(), number);
            for page in generations.chunks(limits::GENERATIONS) {
                let page = page.iter();
                let page = page.map(|one| (one.epoch, one.number, one.key.to_vec()));
                let share = KeyShare::new(Vec::new(), page.collect(), Vec::new(), Vec::new());
                self.send_to_device(rows, env, &to, Body::KeyShare(share))?;
            }
        }
        Ok(())
    }

    /// Listed devices that do not say that they hold nothing below our floor.
    fn behind(&self, rows: &dyn Rows) -> Result<Vec<u32>, StepError> {
        let Some(state) = MemoryState::load(rows)? else {
            return Ok(Vec::new());
        };
        let head = self.root_head(rows)?;
        let list = self.own_newest(rows)?;
        let devices = list.devices().iter().map(|entry| entry.device().get());
        Ok(devices
            .filter(|device| {
                let said = head.as_ref().and_then(|head| head.writers.get(device));
                said.is_none_or(|said| said.holds < state.floor)
            })
            .collect())
    }

    /// Makes a new generation of memory keys now, under which everything is sealed anew: for what was erased, or after a
    /// suspected theft. Once every device of the account says that it holds nothing below, what was erased is erased.
    ///
    /// # Errors
    /// `BadInput`: this device is no holder. What the store answers. Nothing is changed then.
    pub fn memory_renew_keys(
        &mut self,
        rows: &mut Staged<'_>,
        env: &mut Env<'_>,
    ) -> Result<(), StepError> {
        self.root_space(rows, env)?;
        let mut state = MemoryState::load(rows)?.unwrap_or_default();
        state.erased = env.now;
        state.save(rows);
        self.new_generation(rows, env).map(|_| ())
    }

    /// A backup was made: it has the generations of now.
    ///
    /// # Errors
    /// What the store answers.
    pub fn memory_backed_up(&self, rows: &mut Staged<'_>) -> Result<(), StepError> {
        if let Some(mut state) = MemoryState::load(rows)?
            && let Some(newest) = self.writing_generation(rows)?
        {
            state.in_backup = (newest.epoch, newest.number);
            state.save(rows);
        }
        Ok(())
    }

    /// How memories stand.
    ///
    /// # Errors
    /// What the store answers.
    pub fn memory_health(&self, rows: &dyn Rows) -> Result<MemoryHealth, StepError> {
        let Some(state) = MemoryState::load(rows)? else {
            return Ok(MemoryHealth::default());
        };
        let mut health = MemoryHealth {
            spaces: self.memory_spaces(rows)?.len(),
            erase_pending: erases(rows)?.len(),
            generations: self.generations(rows)?.len(),
            behind: self.behind(rows)?,
            ..MemoryHealth::default()
        };
        for row in SpaceRow::all(rows)? {
            rows.scan(&tables::unpublished(row.number, &[]), &mut |_, _| {
                health.unpublished += usize::from(!row.is_root());
                ControlFlow::Continue(())
            })?;
        }
        let newest = self.own_newest(rows)?;
        rows.scan(&tables::all(tables::OWN_NUMBERS), &mut |suffix, _| {
            if let Ok(number) = suffix.try_into().map(u32::from_be_bytes)
                && !newest
                    .devices()
                    .iter()
                    .any(|entry| entry.device().get() == number)
            {
                health.removed.push(number);
            }
            ControlFlow::Continue(())
        })?;
        health.removed.sort_unstable();
        let writes = self.writing_generation(rows)?;
        let writes = writes.map_or((0, 0), |one| (one.epoch, one.number));
        health.backup_due = state.in_backup != (0, 0) && state.in_backup < writes;
        Ok(health)
    }
}

fn erases(rows: &dyn Rows) -> Result<Vec<(u32, [u8; 16])>, StepError> {
    let mut found = Vec::new();
    rows.scan(&tables::all(tables::ERASES), &mut |suffix, _| {
        if let Some((space, record)) = suffix.split_first_chunk::<4>()
            && let Ok(record) = record.try_into()
        {
            found.push((u32::from_be_bytes(*space), record));
        }
        ControlFlow::Continue(())
    })?;
    Ok(found)
}
