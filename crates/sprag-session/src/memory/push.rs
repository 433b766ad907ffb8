//! What was written here goes to the server: segments first, then a head that names them, by compare and swap
//! ("Memories", *How it travels*).

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use sprag_crypto::sha256;
use sprag_store::{Rows, Staged, StoreError};
use sprag_wire::relay::Object;
use sprag_x3dh::DeviceList;
use zeroize::Zeroizing;

use super::LogError;
use super::blobs::{self, Use, Work};
use super::head::{Head, MAX_SEGMENTS, Seen, SegmentRef};
use super::keys::{NamesKey, ObjectName};
use super::records::{RecordTag, load_entry, read_row};
use super::segment::{Entry, MAX_ENTRIES, Segment};
use super::space::RecordId;
use super::spaces::{
    Flight, MemoryState, SpaceRow, mark_busy, removal_epoch, save_used_counter, used_counter,
};
use super::unpublished::Unpublished;
use crate::error::StepError;
use crate::own::{Device, Env};
use crate::shares::Generation;
use crate::task::{Kind, StoredTask, TaskId};
use crate::{chunks, tables};

/// Where the head of another branch is kept, above the numbers of spaces.
const BRANCH: u64 = 1 << 32;

type Entries = BTreeMap<RecordId, Entry>;

/// What is needed to open and to seal anything of a space.
pub(super) struct Keys {
    pub(super) generations: Vec<Generation>,
    pub(super) list: DeviceList,
    pub(super) names: NamesKey,
    pub(super) name: ObjectName,
}

impl Keys {
    pub(super) fn of(device: &Device, rows: &dyn Rows, row: &SpaceRow) -> Result<Self, StepError> {
        let names = device.names_key(rows)?;
        Ok(Self {
            generations: device.generations(rows)?,
            list: device.own_newest(rows)?,
            name: names.head(&row.space),
            names,
        })
    }

    /// Opens a head that was judged before.
    pub(super) fn open_known(
        &self,
        row: &SpaceRow,
        bytes: &[u8],
    ) -> Result<(Head, Seen), StepError> {
        let same = Seen {
            hash: sha256(&[bytes]),
            generation: (0, 0),
            counters: BTreeMap::new(),
        };
        Head::open(
            &self.generations,
            &row.space,
            &self.name,
            &self.list,
            Some(&same),
            bytes,
        )
        .map_err(|_| StoreError::Damaged("head").into())
    }

    pub(super) fn open_segment(&self, row: &SpaceRow, bytes: &[u8]) -> Result<Segment, StepError> {
        Segment::open(&self.generations, &row.space, &self.name, bytes)
            .map_err(|_| StoreError::Damaged("segment").into())
    }
}

pub(super) fn put_head(rows: &mut Staged<'_>, table: u8, place: u64, bytes: &[u8]) -> u32 {
    chunks::put(rows, table, place, 0, bytes);
    u32::try_from(bytes.len()).unwrap_or(u32::MAX)
}

pub(super) fn get_head(
    rows: &dyn Rows,
    table: u8,
    place: u64,
    length: u32,
) -> Result<Zeroizing<Vec<u8>>, StoreError> {
    chunks::get(rows, table, place, 0, length as usize)
}

pub(super) fn delete_head(rows: &mut Staged<'_>, table: u8, place: u64, length: u32) {
    chunks::delete(rows, table, place, 0, length as usize);
}

/// The newest head of a space, and what is remembered of it.
pub(super) fn stored_head(
    rows: &dyn Rows,
    row: &SpaceRow,
    keys: &Keys,
) -> Result<Option<(Head, Seen)>, StepError> {
    if row.head == 0 {
        return Ok(None);
    }
    let bytes = get_head(rows, tables::HEADS, row.number.into(), row.head)?;
    Ok(Some(keys.open_known(row, &bytes)?))
}

/// Segments that are to replace others, and what stays of those.
struct Plan {
    keep: Vec<SegmentRef>,
    new: Vec<Entries>,
}

impl Device {
    /// What a task that puts a head offers.
    pub(crate) fn head_to_put(&self, rows: &dyn Rows, space: u32) -> Result<Object, StepError> {
        let row = SpaceRow::get(rows, space)?;
        let name = self.names_key(rows)?.head(&row.space);
        let length = row.flight.map_or(0, |flight| flight.length);
        let value = get_head(rows, tables::HEADS_OUT, space.into(), length)?;
        Ok(Object::new(name.to_vec(), row.tag, value.to_vec()))
    }

    /// Whether a head that is under way, or asked for, may be sealed and signed by this device now.
    fn may_push(
        &self,
        rows: &dyn Rows,
        state: &MemoryState,
        generation: &Generation,
    ) -> Result<bool, StepError> {
        // After a removal nothing goes out under what the removed device has.
        Ok(generation.epoch >= removal_epoch(rows)?
            && (generation.epoch, generation.number) >= state.floor
            && self.check_own_listed(rows).is_ok())
    }

    /// Begins to put what was written, if nothing is under way. Says whether the space has nothing more to do.
    pub(super) fn push(
        &mut self,
        rows: &mut Staged<'_>,
        env: &mut Env<'_>,
        row: &mut SpaceRow,
    ) -> Result<bool, StepError> {
        if row.flight.is_some() {
            // What follows begins when that has ended.
            self.launch(rows, row, 0)?;
            return Ok(true);
        }
        if row.incoming.is_some() {
            return Ok(true);
        }
        let Some(state) = MemoryState::load(rows)? else {
            return Ok(true);
        };
        let Some(generation) = self.writing_generation(rows)? else {
            return Ok(true);
        };
        if !self.may_push(rows, &state, &generation)? {
            return Ok(false);
        }
        let keys = Keys::of(self, rows, row)?;
        let before = stored_head(rows, row, &keys)?;
        let written = Unpublished::first(rows, row.number)?;
        let device = self.address.device().get();
        let rewrap = (before.is_some() && row.generation < (generation.epoch, generation.number))
            || row.branch > 0
            || row.restart;
        let said = before
            .as_ref()
            .and_then(|(head, _)| head.writers.get(&device));
        let speak =
            row.is_root() && before.is_some() && said.is_none_or(|said| said.holds < state.holds);
        if written.is_empty() && !rewrap && !speak {
            return Ok(true);
        }
        let segments = before.as_ref().map_or(&[][..], |(head, _)| &head.segments);
        let rewrite = rewrap || segments.len() >= MAX_SEGMENTS - 1;
        let plan = if rewrite {
            whole_log(rows, row.number)?
        } else {
            addition(rows, row, &keys, segments, &written)?
        };
        if plan.keep.len() + plan.new.len() > MAX_SEGMENTS {
            return Err(LogError::TooLarge.into());
        }
        let used = used_counter(rows, row.number)?;
        let mut head = self.next_head(rows, row, &keys, before, state.holds)?;
        // One that was given up may have been taken all the same: its counter stands for it, whoever built on it.
        head.count_above(used)?;
        // From here on there are changes, and no more reasons against them.
        let mut segments = plan.keep;
        let mut waits_for = 0;
        for entries in plan.new {
            let records = u32::try_from(entries.len()).unwrap_or(u32::MAX);
            let sealed = Segment::new(entries)?.seal(&generation, &row.space, &keys.name, env.rng);
            let name = sha256(&[&sealed]);
            blobs::hold(rows, &name, Use::Segment(row.number), &sealed)?;
            blobs::want(rows, Work::Put, &name, Use::Segment(row.number))?;
            segments.push(SegmentRef::new(name, records, sealed.len() as u64));
            waits_for += 1;
        }
        head.segments = segments;
        save_used_counter(rows, row.number, head.own_counter());
        let sealed = head.seal(&self.identity, &generation, &row.space, &keys.name, env.rng);
        for record in written {
            if let Some(mut written) = Unpublished::load(rows, row.number, &record)? {
                written.in_flight = true;
                written.save(rows, row.number, &record);
            }
        }
        let length = put_head(rows, tables::HEADS_OUT, row.number.into(), &sealed);
        row.flight = Some(Flight {
            length,
            waits_for,
            task: None,
        });
        self.launch(rows, row, 0)?;
        Ok(true)
    }

    /// The head that comes after the one that is known, and after a branch of it, with no segments yet.
    fn next_head(
        &self,
        rows: &dyn Rows,
        row: &SpaceRow,
        keys: &Keys,
        mut before: Option<(Head, Seen)>,
        holds: (u64, u32),
    ) -> Result<Head, StepError> {
        if row.branch > 0
            && let Some((head, _)) = &mut before
        {
            let place = BRANCH | u64::from(row.number);
            let other = get_head(rows, tables::HEADS, place, row.branch)?;
            head.join(&keys.open_known(row, &other)?.0);
        }
        let before = before.as_ref().map(|(head, seen)| (head, seen));
        let device = self.address.device().get();
        let mut head = Head::after(before, device, keys.list.epoch(), holds, Vec::new())?;
        if row.restart {
            head.restarts = head.restarts.checked_add(1).ok_or(LogError::TooLarge)?;
        }
        Ok(head)
    }

    /// Offers the head that is under way, if the server has all that it names.
    pub(super) fn launch(
        &self,
        rows: &mut Staged<'_>,
        row: &mut SpaceRow,
        not_before: u64,
    ) -> Result<(), StepError> {
        let lost = match row.flight.and_then(|flight| flight.task) {
            None => true,
            Some(id) => StoredTask::load(rows, id)?.is_none(),
        };
        if let Some(flight) = &mut row.flight
            && flight.waits_for == 0
            && lost
        {
            let task = StoredTask {
                kind: Kind::PutObject { space: row.number },
                not_before,
                parked: false,
            };
            flight.task = Some(task.queue(rows)?);
        }
        row.save(rows);
        Ok(())
    }

    /// The server has a segment of ours.
    pub(super) fn segment_is_there(
        &self,
        rows: &mut Staged<'_>,
        space: u32,
    ) -> Result<(), StepError> {
        let Some(mut row) = SpaceRow::load(rows, space)? else {
            return Ok(());
        };
        if let Some(flight) = &mut row.flight {
            flight.waits_for = flight.waits_for.saturating_sub(1);
        }
        self.launch(rows, &mut row, 0)
    }

    /// The server took the head that was under way, under a tag of its own.
    pub(super) fn head_taken(
        &mut self,
        rows: &mut Staged<'_>,
        env: &mut Env<'_>,
        row: &mut SpaceRow,
        tag: Vec<u8>,
    ) -> Result<(), StepError> {
        let Some(flight) = row.flight.take() else {
            return Ok(());
        };
        end_task(rows, flight.task)?;
        let keys = Keys::of(self, rows, row)?;
        let before = stored_head(rows, row, &keys)?;
        let bytes = get_head(rows, tables::HEADS_OUT, row.number.into(), flight.length)?;
        let (head, seen) = keys.open_known(row, &bytes)?;
        delete_head(rows, tables::HEADS_OUT, row.number.into(), flight.length);
        for old in before.iter().flat_map(|(head, _)| &head.segments) {
            if !head.segments.iter().any(|new| new.blob == old.blob) {
                blobs::release(rows, &old.blob)?;
                blobs::want(rows, Work::Drop, &old.blob, Use::Segment(row.number))?;
            }
        }
        delete_head(rows, tables::HEADS, row.number.into(), row.head);
        row.head = put_head(rows, tables::HEADS, row.number.into(), &bytes);
        row.generation = seen.generation;
        row.tag = tag;
        row.known = true;
        row.waited = 0;
        // The known one may have been put again to a server that had lost it: that says nothing new.
        let is_new = before.is_none_or(|(_, before)| before.hash != seen.hash);
        if is_new && row.branch > 0 {
            let place = BRANCH | u64::from(row.number);
            delete_head(rows, tables::HEADS, place, row.branch);
            row.branch = 0;
        }
        row.restart &= !is_new;
        row.save(rows);
        if is_new {
            Unpublished::settle(rows, row.number, true)?;
            self.drop_outdated(rows, row.number)?;
        } else {
            self.refill_rest(rows, env, row, &keys)?;
        }
        mark_busy(rows, row.number);
        self.heads_moved(rows)
    }

    /// The server has a head that says that these blobs are not what counts.
    fn drop_outdated(&self, rows: &mut Staged<'_>, space: u32) -> Result<(), StoreError> {
        let mut names: Vec<[u8; 32]> = Vec::new();
        rows.scan(&tables::drop_later(space, &[]), &mut |suffix, _| {
            names.extend(<[u8; 32]>::try_from(suffix));
            ControlFlow::Continue(())
        })?;
        for name in names {
            rows.delete(tables::drop_later(space, &name));
            blobs::want(rows, Work::Drop, &name, Use::Record(space, [0; 16]))?;
        }
        Ok(())
    }

    /// After a removal nothing goes out that the removed device can read: a head under way is given up.
    pub(super) fn hold_back(
        &self,
        rows: &mut Staged<'_>,
        row: &mut SpaceRow,
    ) -> Result<(), StepError> {
        if let Some(flight) = row.flight {
            let bytes = get_head(rows, tables::HEADS_OUT, row.number.into(), flight.length)?;
            let generation =
                super::generation_of(&bytes).map_err(|_| StoreError::Damaged("head"))?;
            if generation.0 < removal_epoch(rows)? {
                let keys = Keys::of(self, rows, row)?;
                self.give_up_flight(rows, row, &keys, None)?;
            }
        }
        Ok(())
    }

    /// The head under way will not be taken: it, and what neither the known head nor the `next` one names, is given up. What
    /// was written is put again. If the next one is not known, nothing is dropped at the server: it may name it.
    pub(super) fn give_up_flight(
        &self,
        rows: &mut Staged<'_>,
        row: &mut SpaceRow,
        keys: &Keys,
        next: Option<&[SegmentRef]>,
    ) -> Result<(), StepError> {
        let Some(flight) = row.flight.take() else {
            return Ok(());
        };
        end_task(rows, flight.task)?;
        let before = stored_head(rows, row, keys)?;
        let kept = before.iter().flat_map(|(head, _)| &head.segments);
        let kept = kept.chain(next.unwrap_or_default());
        let kept: Vec<[u8; 32]> = kept.map(|segment| segment.blob).collect();
        let bytes = get_head(rows, tables::HEADS_OUT, row.number.into(), flight.length)?;
        let (head, _) = keys.open_known(row, &bytes)?;
        for segment in &head.segments {
            if !kept.contains(&segment.blob) {
                blobs::release(rows, &segment.blob)?;
                if next.is_some() {
                    blobs::want(rows, Work::Drop, &segment.blob, Use::Segment(row.number))?;
                }
            }
        }
        delete_head(rows, tables::HEADS_OUT, row.number.into(), flight.length);
        row.save(rows);
        Unpublished::settle(rows, row.number, false)?;
        mark_busy(rows, row.number);
        Ok(())
    }

    /// Two branches of one log: the next head takes over what both said, and says everything anew.
    pub(super) fn note_branch(
        &self,
        rows: &mut Staged<'_>,
        row: &mut SpaceRow,
    ) -> Result<(), StepError> {
        if row.branch == 0 && row.head > 0 {
            let bytes = get_head(rows, tables::HEADS, row.number.into(), row.head)?;
            row.branch = put_head(rows, tables::HEADS, BRANCH | u64::from(row.number), &bytes);
        }
        Ok(())
    }
}

pub(super) fn end_task(rows: &mut Staged<'_>, task: Option<TaskId>) -> Result<(), StoreError> {
    if let Some(id) = task
        && let Some(task) = StoredTask::load(rows, id)?
    {
        task.delete(rows, id);
    }
    Ok(())
}

/// All entries, in as few segments as they fit into.
fn whole_log(rows: &dyn Rows, space: u32) -> Result<Plan, StepError> {
    let mut new = Vec::new();
    let mut entries = Entries::new();
    let mut failed = Ok(());
    rows.scan(&tables::log_entry(space, &[]), &mut |_, value| {
        match read_row(value) {
            Ok((id, entry)) => {
                entries.insert(id, entry);
            }
            Err(error) => failed = Err(error),
        }
        if entries.len() == MAX_ENTRIES {
            new.push(std::mem::take(&mut entries));
        }
        ControlFlow::Continue(())
    })?;
    failed?;
    if !entries.is_empty() {
        new.push(entries);
    }
    Ok(Plan {
        keep: Vec::new(),
        new,
    })
}

/// What was written, as one segment; smaller ones before it are merged into it, so that there are few of each size.
fn addition(
    rows: &dyn Rows,
    row: &SpaceRow,
    keys: &Keys,
    segments: &[SegmentRef],
    written: &[RecordTag],
) -> Result<Plan, StepError> {
    let mut keep = segments.to_vec();
    let mut entries = Entries::new();
    for record in written {
        if let Some((id, entry)) = load_entry(rows, row.number, record)? {
            entries.insert(id, entry);
        }
    }
    if entries.is_empty() {
        return Ok(Plan {
            keep,
            new: Vec::new(),
        });
    }
    while let Some(last) = keep.last() {
        let (old, new) = (last.records as usize, entries.len());
        if old > 2 * new || old + new > MAX_ENTRIES {
            break;
        }
        let Some(bytes) = blobs::get(rows, &last.blob)? else {
            break;
        };
        let segment = keys.open_segment(row, &bytes)?;
        for (id, entry) in segment.entries() {
            let record = keys.names.record(&keys.name, id);
            let newest = load_entry(rows, row.number, &record)?.map(|(_, entry)| entry);
            entries.insert(id.clone(), newest.unwrap_or_else(|| entry.clone()));
        }
        keep.pop();
    }
    Ok(Plan {
        keep,
        new: vec![entries],
    })
}
