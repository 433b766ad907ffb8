//! Changes of our own device list: signed on top of the newest, and given to nobody before the server took the result
//! as its successor ("The protocol", §1.2).
//!
//! A change waits in a row until it is done. The list that it leads to is signed once, and offered again byte for byte
//! until the server took it; only then it is the newest here. If another holder was faster, the newer list is judged,
//! and the change signed anew on top.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use sprag_store::{Rows, Staged, StoreError};
use sprag_wire::relay::ListState;
use sprag_wire::{DeviceId, ListedDevice, UnverifiedDeviceList};
use sprag_x3dh::DeviceList;
use zeroize::Zeroizing;

use crate::codec::{Reader, Writer};
use crate::error::{ProtocolError, StepError};
use crate::event::{self, Event};
use crate::own::{Device, Env};
use crate::task::{Kind, PAGE, StoredTask, TaskId};
use crate::trust::User;
use crate::upkeep::want_renewal;
use crate::{chunks, lists, tables};

const VERSION: u8 = 1;

/// A refused answer to a list that was published is not asked for again at once: one minute.
const AGAIN_MS: u64 = 60_000;

type Entries = BTreeMap<DeviceId, ListedDevice>;

/// What a change comes to on top of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Applied {
    Changed,
    /// The list says so already.
    Done,
    /// It contradicts the list.
    Refused,
}

/// A change that was asked for.
#[derive(Debug, Clone)]
pub(crate) struct Change {
    /// Entries that are to be new, or (`false`) to replace the one of their number and key.
    put: Vec<(ListedDevice, bool)>,
    drop: Vec<DeviceId>,
}

impl Change {
    fn apply(&self, entries: &mut Entries) -> Applied {
        let mut next = entries.clone();
        next.retain(|device, _| !self.drop.contains(device));
        for (entry, is_new) in &self.put {
            let known = next.get(&entry.device());
            if known == Some(entry) {
                continue;
            }
            let same_key = |other: &&ListedDevice| other.identity_key() == entry.identity_key();
            let fits = match (known, is_new) {
                (Some(known), false) => known.identity_key() == entry.identity_key(),
                (None, true) => !next.values().any(|other| same_key(&other)),
                _ => false,
            };
            if !fits {
                return Applied::Refused;
            }
            next.insert(entry.device(), *entry);
        }
        let holders = next.values().any(ListedDevice::is_holder);
        if !holders || next.len() > sprag_wire::limits::DEVICES {
            return Applied::Refused;
        }
        if next == *entries {
            return Applied::Done;
        }
        *entries = next;
        Applied::Changed
    }

    /// The device that it is about.
    fn about(&self) -> u32 {
        let put = self.put.iter().map(|(entry, _)| entry.device());
        put.chain(self.drop.iter().copied())
            .next()
            .map_or(0, DeviceId::get)
    }

    fn save(&self, rows: &mut Staged<'_>, sequence: u64) {
        let mut writer = Writer::new(VERSION, 8 + self.put.len() * 42 + self.drop.len() * 4);
        writer.u32(u32::try_from(self.put.len()).unwrap_or(u32::MAX));
        for (entry, is_new) in &self.put {
            writer
                .u32(entry.device().get())
                .fixed(entry.identity_key().as_bytes())
                .u32(entry.flags())
                .bool(*is_new);
        }
        writer.u32(u32::try_from(self.drop.len()).unwrap_or(u32::MAX));
        for device in &self.drop {
            writer.u32(device.get());
        }
        rows.put(tables::list_change(sequence), writer.finish());
    }

    fn read(bytes: &[u8]) -> Result<Self, StoreError> {
        let mut reader = Reader::new(bytes, VERSION, "change of our list")?;
        let mut put = Vec::new();
        for _ in 0..reader.u32()? {
            let device = DeviceId::new(reader.u32()?);
            let device = reader.checked(device)?;
            let key = sprag_crypto::IdentityKey::from_bytes(reader.take(33)?);
            let key = reader.checked(key)?;
            put.push((
                ListedDevice::new(device, key, reader.u32()?),
                reader.bool()?,
            ));
        }
        let mut drop = Vec::new();
        for _ in 0..reader.u32()? {
            let device = DeviceId::new(reader.u32()?);
            drop.push(reader.checked(device)?);
        }
        reader.finish()?;
        Ok(Self { put, drop })
    }
}

/// The changes that wait, in the order they were asked for.
fn changes(rows: &dyn Rows) -> Result<Vec<(u64, Change)>, StoreError> {
    let mut found = Vec::new();
    let mut failed = Ok(());
    rows.scan(&tables::list_changes(), &mut |suffix, value| {
        match (suffix.try_into(), Change::read(value)) {
            (Ok(sequence), Ok(change)) => found.push((u64::from_be_bytes(sequence), change)),
            (_, Err(error)) => failed = Err(error),
            _ => {}
        }
        ControlFlow::Continue(())
    })?;
    failed?;
    found.sort_by_key(|(sequence, _)| *sequence);
    Ok(found)
}

/// Our next list: signed, and on its way to the server.
#[derive(Debug, Clone)]
pub(crate) struct Next {
    /// The task that publishes it, and no other.
    pub(crate) task: TaskId,
    /// The change that it came from.
    change: u64,
    pub(crate) frame: Vec<u8>,
}

impl Next {
    pub(crate) fn load(rows: &dyn Rows) -> Result<Option<Self>, StoreError> {
        let Some(bytes) = rows.get(&tables::own(tables::OWN_NEXT))? else {
            return Ok(None);
        };
        let mut reader = Reader::new(&bytes, VERSION, "our next list")?;
        let next = Self {
            task: TaskId::new(reader.u64()?),
            change: reader.u64()?,
            frame: reader.block()?.to_vec(),
        };
        reader.finish()?;
        Ok(Some(next))
    }

    fn save(&self, rows: &mut Staged<'_>) {
        let mut writer = Writer::new(VERSION, 20 + self.frame.len());
        writer.u64(self.task.get()).u64(self.change);
        writer.block(&self.frame);
        rows.put(tables::own(tables::OWN_NEXT), writer.finish());
    }

    /// Our next list, if this is the task that publishes it.
    fn of(rows: &dyn Rows, task: TaskId) -> Result<Option<Self>, StoreError> {
        Ok(Self::load(rows)?.filter(|next| next.task == task))
    }
}

/// A change is on our newest list. What follows from it needs a session or randomness, and comes with the next tasks.
fn change_done(rows: &mut Staged<'_>, sequence: u64, change: &Change) -> Result<(), StoreError> {
    rows.delete(tables::list_change(sequence));
    // Our other devices hear of it at once: what they send is to reach a new one, too.
    if rows.get(&tables::announced_list())?.is_none() {
        rows.put(tables::announced_list(), Zeroizing::new(Vec::new()));
    }
    if !change.drop.is_empty() {
        rows.put(tables::generation_due(), Zeroizing::new(Vec::new()));
    }
    for (entry, is_new) in &change.put {
        if entry.is_holder() && !is_new {
            let name = tables::new_holder(entry.device().get());
            rows.put(name, Zeroizing::new(Vec::new()));
        }
    }
    Ok(())
}

fn entries_of(list: &DeviceList) -> Entries {
    let entries = list.devices().iter();
    entries.map(|entry| (entry.device(), *entry)).collect()
}

impl Device {
    /// Asks for a change of our own list: these entries are put on it, and these numbers dropped. The result is signed on
    /// top of the newest list, offered to the server until it took it, and is ours only then.
    ///
    /// An entry whose number is listed replaces that one, with the same key; another is a new device. What the list says
    /// already needs no change. A device that holds the account's private key may also put itself on the list, as after
    /// a restore.
    ///
    /// # Errors
    /// `BadInput`: this device is no holder; the changed list would have more than 32 devices, no holder, or one key
    /// twice; or it was not linked yet. What the store answers. Nothing is changed then.
    pub fn queue_list_change(
        &mut self,
        rows: &mut Staged<'_>,
        env: &mut Env<'_>,
        put: &[ListedDevice],
        drop: &[DeviceId],
    ) -> Result<(), StepError> {
        self.check_linked(rows)?;
        let own = self.own_user(rows)?;
        let is_me = |entry: &ListedDevice| self.is_me(entry) && entry.is_holder();
        let may = own.newest.devices().iter().chain(put).any(is_me);
        let Some(account) = self.account.as_ref().filter(|_| may) else {
            return Err(ProtocolError::BadInput.into());
        };
        let (mut entries, waiting) = self.expected_entries(rows, &own)?;
        let put = put.iter().map(|entry| {
            let is_new = !entries.contains_key(&entry.device());
            (*entry, is_new)
        });
        let change = Change {
            put: put.collect(),
            drop: drop.to_vec(),
        };
        match change.apply(&mut entries) {
            Applied::Done => return Ok(()),
            Applied::Refused => return Err(ProtocolError::BadInput.into()),
            Applied::Changed => {}
        }
        // What the decoder of lists would refuse is refused now, and not when it is signed.
        let account_key = account.public().as_public_key();
        let is_account = |entry: &ListedDevice| entry.identity_key().as_public_key() == account_key;
        if entries.values().any(is_account) {
            return Err(ProtocolError::BadInput.into());
        }
        change.save(rows, waiting.last().map_or(0, |(sequence, _)| sequence + 1));
        self.sign_next(rows, env)
    }

    /// The entries of our newest list with the changes that wait, and these.
    fn expected_entries(
        &self,
        rows: &dyn Rows,
        own: &User,
    ) -> Result<(Entries, Vec<(u64, Change)>), StepError> {
        let mut entries = entries_of(&own.newest);
        let waiting = changes(rows)?;
        for (_, change) in &waiting {
            change.apply(&mut entries);
        }
        Ok((entries, waiting))
    }

    /// The devices of our own account as they will be once all changes are done.
    pub(crate) fn expected_devices(&self, rows: &dyn Rows) -> Result<Vec<ListedDevice>, StepError> {
        let own = self.own_user(rows)?;
        let (entries, _) = self.expected_entries(rows, &own)?;
        Ok(entries.into_values().collect())
    }

    /// Signs what the first change that waits leads to, unless a list is on its way already.
    pub(crate) fn sign_next(
        &mut self,
        rows: &mut Staged<'_>,
        env: &mut Env<'_>,
    ) -> Result<(), StepError> {
        if Next::load(rows)?.is_some() {
            return Ok(());
        }
        for (sequence, change) in changes(rows)? {
            let own = self.own_user(rows)?;
            let mut entries = entries_of(&own.newest);
            let signed = match (change.apply(&mut entries), &self.account) {
                (Applied::Done, _) => {
                    change_done(rows, sequence, &change)?;
                    continue;
                }
                (Applied::Changed, Some(account))
                    if entries
                        .values()
                        .chain(own.newest.devices())
                        .any(|entry| self.is_me(entry) && entry.is_holder()) =>
                {
                    let entries: Vec<ListedDevice> = entries.into_values().collect();
                    own.newest.epoch().checked_add(1).and_then(|epoch| {
                        DeviceList::sign(
                            account,
                            self.address.user(),
                            epoch,
                            Some(own.newest.hash()),
                            &entries,
                            env.rng,
                        )
                        .ok()
                    })
                }
                _ => None,
            };
            let Some(list) = signed else {
                rows.delete(tables::list_change(sequence));
                let device = change.about();
                event::record(rows, &Event::ListChangeDropped { device })?;
                continue;
            };
            // With what came before, so that a server that lost some takes it too.
            let from = list.epoch().saturating_sub(PAGE as u64 - 1).max(1);
            let task = StoredTask::now(Kind::PublishDevices { from }).queue(rows)?;
            Next {
                task,
                change: sequence,
                frame: list.frame().to_vec(),
            }
            .save(rows);
            return Ok(());
        }
        Ok(())
    }

    /// What a task that publishes our lists offers: a chain of at most 64, from epoch `from` on.
    pub(crate) fn lists_to_publish(
        &self,
        rows: &dyn Rows,
        id: TaskId,
        from: u64,
    ) -> Result<Vec<Vec<u8>>, StepError> {
        let next = Next::of(rows, id)?;
        let mut frames: Vec<Vec<u8>> = self
            .own_chain(rows, from)?
            .into_iter()
            .map(|list| list.frame().to_vec())
            .collect();
        match next {
            None => frames.truncate(PAGE),
            Some(next) => {
                // It may have come back from the server before the answer to its task: then it is among them.
                if frames.last() != Some(&next.frame) {
                    frames.push(next.frame);
                }
                // The newest ones: the last but one of them is the one that it stands on.
                let too_many = frames.len().saturating_sub(PAGE);
                frames.drain(..too_many);
            }
        }
        Ok(frames)
    }

    /// Our own lists from epoch `from` on, as far as they follow one another up to the newest.
    pub(crate) fn own_chain(
        &self,
        rows: &dyn Rows,
        from: u64,
    ) -> Result<Vec<UnverifiedDeviceList>, StepError> {
        let mut chain: Vec<UnverifiedDeviceList> = Vec::new();
        let kept = chunks::sequences(rows, tables::OWN_LISTS, <[u8]>::is_empty)?;
        for (epoch, frame) in kept.iter().rev() {
            if *epoch < from {
                break;
            }
            let list =
                UnverifiedDeviceList::decode(frame).map_err(|_| StoreError::Damaged("own list"))?;
            let follows = |after: &UnverifiedDeviceList| after.previous() == Some(list.hash());
            if !chain.last().is_none_or(follows) {
                break;
            }
            chain.push(list);
        }
        chain.reverse();
        Ok(chain)
    }

    /// The server has lists of ours that were offered. Says whether the task is at its end.
    pub(crate) fn lists_published(
        &mut self,
        rows: &mut Staged<'_>,
        id: TaskId,
        from: u64,
    ) -> Result<bool, StepError> {
        if let Some(next) = Next::of(rows, id)? {
            rows.delete(tables::own(tables::OWN_NEXT));
            if let Some(change) = rows.get(&tables::list_change(next.change))? {
                change_done(rows, next.change, &Change::read(&change)?)?;
            }
            let own = self.address.user().clone();
            return match self.learn(rows, &own, &next.frame, false) {
                // A later one came by another way meanwhile.
                Ok(_) | Err(StepError::Protocol(ProtocolError::StaleList)) => Ok(true),
                Err(error) => Err(error),
            };
        }
        // More than one page: the next one.
        let chain = self.own_chain(rows, from)?;
        let Some(list) = chain.get(PAGE) else {
            return Ok(true);
        };
        let from = list.epoch();
        StoredTask::now(Kind::PublishDevices { from }).save(rows, id);
        Ok(false)
    }

    /// The state that the server says it has after lists of ours were published.
    pub(crate) fn list_state_came(
        &mut self,
        rows: &mut Staged<'_>,
        env: &Env<'_>,
        id: TaskId,
        from: u64,
        reply: &[u8],
    ) -> Result<bool, StepError> {
        if reply.is_empty() {
            return self.lists_published(rows, id, from);
        }
        let state = ListState::decode(reply)?;
        let offered = self.lists_to_publish(rows, id, from)?;
        let last = offered
            .last()
            .map(|frame| UnverifiedDeviceList::decode(frame));
        let last = last.ok_or(ProtocolError::Malformed)??;
        // Others may have put more on top of it, but it is not less, and not another one.
        let fits = state.epoch > last.epoch()
            || (state.epoch == last.epoch() && state.hash == last.hash().as_bytes());
        if fits {
            return self.lists_published(rows, id, from);
        }
        // What says "done" to this task from now on says nothing about the list.
        if let Some(mut next) = Next::of(rows, id)?
            && let Some(mut task) = StoredTask::load(rows, id)?
        {
            task.delete(rows, id);
            task.not_before = env.now.saturating_add(AGAIN_MS);
            next.task = task.queue(rows)?;
            next.save(rows);
        }
        Err(ProtocolError::Malformed.into())
    }

    /// The server holds another newest list than the one that ours follow.
    pub(crate) fn list_conflict(
        &mut self,
        rows: &mut Staged<'_>,
        env: &mut Env<'_>,
        id: TaskId,
        mut task: StoredTask,
        frame: &[u8],
    ) -> Result<(), StepError> {
        let Kind::PublishDevices { from } = task.kind else {
            return Ok(());
        };
        let own = self.address.user().clone();
        let learned = match self.learn_from_server(rows, &own, frame) {
            Err(StepError::Protocol(error)) => Err(error),
            Err(error) => return Err(error),
            Ok(()) => Ok(()),
        };
        match learned {
            Ok(()) => {
                // Others were faster: the change is signed anew on top of theirs.
                if Next::of(rows, id)?.is_some() {
                    rows.delete(tables::own(tables::OWN_NEXT));
                }
                task.delete(rows, id);
                self.sign_next(rows, env)
            }
            Err(ProtocolError::ForkedList | ProtocolError::UntrustedIdentity) => {
                // The user decides.
                task.parked = true;
                task.save(rows, id);
                Ok(())
            }
            Err(error) => {
                let epoch = UnverifiedDeviceList::decode(frame).map(|list| list.epoch());
                match epoch {
                    // The server went back: it gets what it lacks.
                    Ok(epoch) if error == ProtocolError::StaleList && epoch < from => {
                        task.kind = Kind::PublishDevices { from: epoch };
                    }
                    _ => task.not_before = env.now.saturating_add(AGAIN_MS),
                }
                task.save(rows, id);
                Ok(event::record(
                    rows,
                    &Event::ReplyRefused { task: id, error },
                )?)
            }
        }
    }

    /// A server that shows an older list of ours than the newest gets those that it lacks.
    pub(crate) fn give_lists_back(
        &self,
        rows: &mut Staged<'_>,
        epoch: u64,
    ) -> Result<(), StepError> {
        for (id, _) in chunks::sequences(rows, tables::TASKS, <[u8]>::is_empty)? {
            let task = StoredTask::load(rows, TaskId::new(id))?;
            if task.is_some_and(|task| matches!(task.kind, Kind::PublishDevices { .. })) {
                return Ok(());
            }
        }
        StoredTask::now(Kind::PublishDevices { from: epoch }).queue(rows)?;
        Ok(())
    }

    /// The user has decided about a fork: what was to be published is offered again.
    pub(crate) fn resume_publishing(&self, rows: &mut Staged<'_>) -> Result<(), StepError> {
        for (id, _) in chunks::sequences(rows, tables::TASKS, <[u8]>::is_empty)? {
            let id = TaskId::new(id);
            if let Some(mut task) = StoredTask::load(rows, id)?
                && matches!(task.kind, Kind::PublishDevices { .. })
                && task.parked
            {
                task.parked = false;
                task.save(rows, id);
            }
        }
        Ok(())
    }

    /// A newer list of our own account is remembered: what its devices and its user are to hear of it.
    pub(crate) fn own_list_changed(
        &self,
        rows: &mut Staged<'_>,
        before: &DeviceList,
        now: &DeviceList,
    ) -> Result<(), StepError> {
        let listed = |list: &DeviceList, entry: &ListedDevice| {
            let same = |other: &ListedDevice| {
                other.device() == entry.device() && other.identity_key() == entry.identity_key()
            };
            list.devices().iter().any(same)
        };
        let mut removed = false;
        for entry in before.devices().iter().filter(|entry| !listed(now, entry)) {
            removed = true;
            let device = entry.device().get();
            event::record(rows, &Event::DeviceRemoved { device })?;
        }
        for entry in now.devices().iter().filter(|entry| !listed(before, entry)) {
            let device = entry.device().get();
            event::record(rows, &Event::DeviceAdded { device })?;
        }
        if removed && now.devices().iter().any(|entry| self.is_me(entry)) {
            let hash = Zeroizing::new(now.hash().as_bytes().to_vec());
            rows.put(tables::announced_list(), hash);
            crate::memory::spaces::note_removal(rows, now.epoch())?;
            want_renewal(rows)?;
        }
        // What was signed on top of another list is signed anew on top of this one.
        if let Some(next) = Next::load(rows)? {
            let list = UnverifiedDeviceList::decode(&next.frame)?;
            if list.previous() != Some(now.hash()) && list.hash() != now.hash() {
                rows.delete(tables::own(tables::OWN_NEXT));
                if let Some(task) = StoredTask::load(rows, next.task)? {
                    task.delete(rows, next.task);
                }
            }
        }
        Ok(())
    }

    /// Whether an entry of our own list is this device.
    pub(crate) fn is_me(&self, entry: &ListedDevice) -> bool {
        entry.device() == self.address.device() && entry.identity_key() == self.identity.public()
    }

    /// Draws a number for a device that is on no list that we know, nor will be.
    pub(crate) fn draw_number(
        &self,
        rows: &dyn Rows,
        env: &mut Env<'_>,
    ) -> Result<DeviceId, StepError> {
        let expected = self.expected_devices(rows)?;
        loop {
            let number = env.rng.next_u32();
            let taken = number < lists::FIRST_DEVICE
                || expected.iter().any(|entry| entry.device().get() == number)
                || rows.get(&tables::own_number(number))?.is_some();
            if !taken && let Ok(number) = DeviceId::new(number) {
                return Ok(number);
            }
        }
    }
}
