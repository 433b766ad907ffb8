//! A new device out of a backup ("The protocol", §1.2; `docs/BACKUP.md`).
//!
//! It has a new identity key and a new number, and no session with anybody. First it asks the server for the lists that
//! follow the one of the backup, and believes them only if they do; then it signs the next one with itself on it. Until
//! the server took that, it sends nothing and opens no session.

use rand_core::CryptoRng;
use sprag_crypto::IdentityKeyPair;
use sprag_store::{Rows, Staged, StoreError};
use sprag_wire::relay::ListReply;
use sprag_wire::{DeviceAddress, DeviceId, HOLDER, ListedDevice, UnverifiedDeviceList};
use zeroize::Zeroizing;

use crate::backup::{BackupError, BackupRecord};
use crate::codec::{Reader, Writer};
use crate::error::{ProtocolError, StepError};
use crate::event::{self, Event};
use crate::lists::FIRST_DEVICE;
use crate::own::{Device, Env};
use crate::ring::What;
use crate::task::{Kind, StoredTask, TaskId};
use crate::trust::{self, User};
use crate::{chunks, tables};

const VERSION: u8 = 1;
/// A server that does not know us is asked again after this long: one minute.
const AGAIN_MS: u64 = 60_000;

/// Which devices the restored one takes off the list, since they are lost.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Replace {
    /// None: all stay.
    #[default]
    Nobody,
    /// The one that made the backup.
    Source,
    /// These numbers.
    Devices(Vec<DeviceId>),
    /// All of them.
    All,
}

/// How far a restore is.
#[derive(Debug, Clone)]
pub(crate) struct Restoring {
    /// The change of our list is asked for.
    queued: bool,
    pub(crate) all: bool,
    pub(crate) devices: Vec<DeviceId>,
}

impl Restoring {
    pub(crate) fn load(rows: &dyn Rows) -> Result<Option<Self>, StoreError> {
        let Some(bytes) = rows.get(&tables::own(tables::OWN_RESTORING))? else {
            return Ok(None);
        };
        let mut reader = Reader::new(&bytes, VERSION, "restore row")?;
        let (queued, all) = (reader.bool()?, reader.bool()?);
        let mut devices = Vec::new();
        for _ in 0..reader.u8()? {
            let device = DeviceId::new(reader.u32()?);
            devices.push(reader.checked(device)?);
        }
        reader.finish()?;
        Ok(Some(Self {
            queued,
            all,
            devices,
        }))
    }

    fn save(&self, rows: &mut Staged<'_>) {
        let mut writer = Writer::new(VERSION, 3 + self.devices.len() * 4);
        writer.bool(self.queued).bool(self.all);
        writer.u8(u8::try_from(self.devices.len()).unwrap_or(u8::MAX));
        for device in &self.devices {
            writer.u32(device.get());
        }
        rows.put(tables::own(tables::OWN_RESTORING), writer.finish());
    }
}

impl Device {
    /// Makes a new device of the account in a backup that a holder made: in rows that are empty, but for counters.
    ///
    /// # Errors
    /// [`BackupError::Damaged`]; [`BackupError::Step`]: `BadInput` if the backup is not a holder's, or more than 32
    /// devices are to be replaced; what the store answers.
    pub fn restore(
        rows: &mut Staged<'_>,
        env: &mut Env<'_>,
        record: &BackupRecord,
        replace: &Replace,
    ) -> Result<Self, BackupError> {
        let bad_input = || BackupError::Step(ProtocolError::BadInput.into());
        let account = record.account.clone().ok_or_else(bad_input)?;
        let restoring = Restoring {
            queued: false,
            all: *replace == Replace::All,
            devices: match replace {
                Replace::Nobody | Replace::All => Vec::new(),
                Replace::Source => vec![record.device],
                Replace::Devices(devices) => devices.clone(),
            },
        };
        if restoring.devices.len() > sprag_wire::limits::DEVICES {
            return Err(bad_input());
        }
        let newest = record.newest()?;
        let identity = IdentityKeyPair::generate(env.rng);
        let number = draw_number(env.rng, |number| {
            record.numbers.binary_search(&number).is_ok()
        })?;
        let mut device = Self::new(
            DeviceAddress::new(record.user.clone(), number),
            record.features,
            identity,
            record.account_key,
            Some(account),
        );
        for list in &record.lists {
            rows.put(
                tables::own_list(list.epoch()),
                Zeroizing::new(list.frame().to_vec()),
            );
        }
        let own = User {
            name: record.user.clone(),
            account_key: record.account_key,
            from_server: true,
            accepted: true,
            newest,
            history: record.history.clone(),
        };
        trust::save(rows, &own, &record.user);
        device.save(rows);
        device.take_record(rows, record)?;
        restoring.save(rows);
        StoredTask::now(Kind::FetchDevices {
            user: record.user.clone(),
            from: own.newest.epoch(),
        })
        .queue(rows)?;
        device.note_alone(rows, env.now, What::Restored, own.newest.epoch())?;
        Ok(device)
    }

    /// What does not depend on being a holder: numbers, keys of the memory, contacts, settings.
    fn take_record(&self, rows: &mut Staged<'_>, record: &BackupRecord) -> Result<(), StepError> {
        for number in &record.numbers {
            rows.put(tables::own_number(*number), Zeroizing::new(Vec::new()));
        }
        if let Some(root) = &record.root {
            self.set_account_root(rows, root)?;
        }
        for generation in &record.generations {
            self.add_generation(rows, generation.epoch, generation.number, &generation.key)?;
        }
        for contact in &record.contacts {
            trust::save(rows, contact, &record.user);
        }
        if !record.settings.is_empty() {
            rows.put(tables::own(tables::OWN_SETTINGS), record.settings.clone());
        }
        Ok(())
    }

    /// Whether this device came out of a backup and is not on its account's list yet.
    ///
    /// # Errors
    /// What the store answers.
    pub fn is_restoring(&self, rows: &dyn Rows) -> Result<bool, StepError> {
        Ok(Restoring::load(rows)?.is_some())
    }

    /// The server's lists of our own account, from the backup's on. They must follow it without a gap, and end in what
    /// the server says is the newest: on anything else nothing is signed.
    ///
    /// Says whether the reply was one to a restore.
    pub(crate) fn restore_lists_came(
        &mut self,
        rows: &mut Staged<'_>,
        env: &mut Env<'_>,
        reply: &ListReply,
    ) -> Result<bool, StepError> {
        let Some(mut restoring) = Restoring::load(rows)?.filter(|restoring| !restoring.queued)
        else {
            return Ok(false);
        };
        let user = self.address.user().clone();
        let mut expected = self.own_user(rows)?.newest.epoch();
        for frame in &reply.frames {
            let epoch = UnverifiedDeviceList::decode(frame)?.epoch();
            if epoch.saturating_sub(1) > expected {
                return Err(ProtocolError::Malformed.into());
            }
            self.learn_from_server(rows, &user, frame)?;
            expected = epoch;
        }
        let newest = self.own_user(rows)?.newest;
        if reply.more && !reply.frames.is_empty() {
            let from = newest.epoch() + 1;
            StoredTask::now(Kind::FetchDevices { user, from }).queue(rows)?;
            return Ok(true);
        }
        let state = reply.newest.as_ref().ok_or(ProtocolError::Malformed)?;
        if state.epoch < newest.epoch() {
            return Err(ProtocolError::StaleList.into());
        }
        if state.epoch == newest.epoch() && state.hash != newest.hash().as_bytes() {
            return Err(ProtocolError::ForkedList.into());
        }
        if state.epoch > newest.epoch() {
            // It withholds what it says it has.
            return Err(ProtocolError::Malformed.into());
        }
        let taken = |number: u32| -> Result<bool, StoreError> {
            Ok(rows.get(&tables::own_number(number))?.is_some())
        };
        if taken(self.address.device().get())? {
            let mut failed = Ok(());
            let number = draw_number(env.rng, |number| {
                taken(number).unwrap_or_else(|error| {
                    failed = Err(error);
                    false
                })
            })?;
            failed?;
            self.address = DeviceAddress::new(user, number);
            self.save(rows);
        }
        let me = ListedDevice::new(self.address.device(), *self.identity.public(), HOLDER);
        let listed = newest.devices().iter().map(|entry| entry.device());
        let lost: Vec<DeviceId> = listed
            .filter(|device| restoring.all || restoring.devices.contains(device))
            .collect();
        self.queue_list_change(rows, env, &[me], &lost)?;
        restoring.queued = true;
        restoring.save(rows);
        Ok(true)
    }

    /// Once this device is listed: its prekeys are made and published, and the restore is at its end. Called before
    /// tasks are offered.
    ///
    /// # Errors
    /// What the store answers.
    pub fn go_on_restoring(
        &mut self,
        rows: &mut Staged<'_>,
        env: &mut Env<'_>,
    ) -> Result<(), StepError> {
        let Some(restoring) = Restoring::load(rows)? else {
            return Ok(());
        };
        if self.check_own_listed(rows).is_ok() {
            let plan = self.new_pre_keys(rows, env)?;
            StoredTask::now(Kind::PublishPreKeys(plan)).queue(rows)?;
            rows.delete(tables::own(tables::OWN_RESTORING));
            let device = self.address.device().get();
            return Ok(event::record(rows, &Event::Restored { device })?);
        }
        // After a fork was settled the question is asked anew.
        if !restoring.queued && !self.asks_for_own_lists(rows)? {
            let user = self.address.user().clone();
            let from = self.own_user(rows)?.newest.epoch();
            StoredTask::now(Kind::FetchDevices { user, from }).queue(rows)?;
        }
        Ok(())
    }

    /// The server does not know our user: it lost him, and gets the lists that we have. They are signed already, so one
    /// that lies learns and gains nothing. Nothing new is signed before it shows them. Says whether this was the case.
    pub(crate) fn restore_finds_nothing(
        &self,
        rows: &mut Staged<'_>,
        env: &Env<'_>,
        id: TaskId,
        task: &StoredTask,
    ) -> Result<bool, StepError> {
        let ours =
            matches!(&task.kind, Kind::FetchDevices { user, .. } if user == self.address.user());
        if !ours || Restoring::load(rows)?.is_none() {
            return Ok(false);
        }
        StoredTask::now(Kind::PublishDevices { from: 1 }).queue(rows)?;
        StoredTask {
            not_before: env.now.saturating_add(AGAIN_MS),
            ..task.clone()
        }
        .save(rows, id);
        Ok(true)
    }

    fn asks_for_own_lists(&self, rows: &dyn Rows) -> Result<bool, StepError> {
        for (id, _) in chunks::sequences(rows, tables::TASKS, <[u8]>::is_empty)? {
            let task = StoredTask::load(rows, TaskId::new(id))?;
            if task.is_some_and(|task| {
                matches!(&task.kind, Kind::FetchDevices { user, .. } if user == self.address.user())
            }) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

fn draw_number(
    rng: &mut dyn CryptoRng,
    mut taken: impl FnMut(u32) -> bool,
) -> Result<DeviceId, StepError> {
    loop {
        let number = rng.next_u32();
        if number >= FIRST_DEVICE && !taken(number) {
            return DeviceId::new(number)
                .map_err(|_| StepError::Internal("a device number above 2^16"));
        }
    }
}
