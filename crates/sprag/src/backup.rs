//! Backups: making, looking at, and restoring them (`docs/BACKUP.md`).

mod sealed;

#[cfg(all(feature = "sled", not(target_family = "wasm")))]
use std::path::Path;

use sprag_keys::{Key, RecoveryKey};
use sprag_session::{BackupRecord, Device, Replace};
#[cfg(all(feature = "sled", not(target_family = "wasm")))]
use sprag_store::MemoryRows;
use sprag_store::{Rows, Store};
use sprag_wire::DeviceId;

use crate::aside::aside;
use crate::client::{Client, Write, commit};
use crate::notifier::Notifier;
use crate::pending::Pending;
use crate::start::Start;
#[cfg(not(target_family = "wasm"))]
use crate::sys;
use crate::{Error, Surroundings};

/// What is in a backup. Nothing of it is secret to its owner; it is not meant for others.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct BackupSummary {
    /// The user.
    pub user: String,
    /// The number of the device that made it.
    pub device: u32,
    /// When, by its clock, in milliseconds since 1970.
    pub made_at: u64,
    /// Accepted contacts in it.
    pub contacts: usize,
    /// Memory keys in it.
    pub generations: usize,
    /// Whether that device could change the account's list. Only then [`Client::restore`] makes a device of it; else a
    /// new device is linked by one that can.
    pub holder: bool,
    /// Epoch of the newest list of the account that it knows. Devices that were added later are found at the server.
    pub epoch: u64,
    /// The devices on that list.
    pub devices: Vec<u32>,
}

impl BackupSummary {
    fn of(record: &BackupRecord) -> Self {
        Self {
            user: record.user.as_str().to_owned(),
            device: record.device.get(),
            made_at: record.made_at,
            contacts: record.contacts(),
            generations: record.generations.len(),
            holder: record.is_holder(),
            epoch: record.epoch(),
            devices: record.devices().iter().map(|device| device.get()).collect(),
        }
    }
}

/// How a backup is restored.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Restore {
    user: Option<String>,
    replace: Replace,
}

impl Restore {
    /// Of whatever user it is; all listed devices stay listed.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Only of this user: else `other_user`.
    #[must_use]
    pub fn of_user(mut self, user: &str) -> Self {
        self.user = Some(user.to_owned());
        self
    }

    /// The device that made the backup is lost: it goes off the list, and contacts close their sessions with it.
    #[must_use]
    pub fn replacing_source(mut self) -> Self {
        self.replace = Replace::Source;
        self
    }

    /// These devices are lost. Numbers that are not listed change nothing.
    ///
    /// # Errors
    /// `bad_input`: a number is 0, or there are more than 32.
    pub fn replacing(mut self, devices: &[u32]) -> Result<Self, Error> {
        let devices: Result<Vec<_>, _> = devices
            .iter()
            .map(|number| DeviceId::new(*number))
            .collect();
        let devices = devices.map_err(|_| Error::bad_input())?;
        if devices.len() > 32 {
            return Err(Error::bad_input());
        }
        self.replace = Replace::Devices(devices);
        Ok(self)
    }

    /// All devices are lost: the restored one will be alone on the list.
    #[must_use]
    pub fn replacing_all(mut self) -> Self {
        self.replace = Replace::All;
        self
    }

    fn checked(&self, record: BackupRecord) -> Result<BackupRecord, Error> {
        match &self.user {
            Some(user) if record.user.as_str() != user => Err(Error::other_user()),
            _ => Ok(record),
        }
    }
}

fn open_record(backup: &[u8], key: &Key) -> Result<BackupRecord, Error> {
    Ok(BackupRecord::decode(&sealed::open(backup, key)?)?)
}

/// Of the threads that seal and open.
const NAME: &str = "sprag backup";

impl Start<'_> {
    /// See [`Client::new_recovery_key`].
    pub fn new_recovery_key(self) -> Pending<RecoveryKey> {
        self.0.shared.step(Write::Durable, |mut step| {
            Ok(RecoveryKey::generate(step.env.rng()))
        })
    }

    /// See [`Client::create_backup`].
    pub fn create_backup(self, keys: &[Key]) -> Pending<Vec<u8>> {
        let keys = keys.to_vec();
        #[cfg(target_family = "wasm")]
        return self.0.shared.step(Write::Durable, move |mut step| {
            let record = step.device.backup(step.rows as &dyn Rows, &step.env)?;
            sealed::seal(&record.encode()?, &keys, step.env.rng())
        });
        #[cfg(not(target_family = "wasm"))]
        {
            let record = self.0.shared.step(Write::Durable, |step| {
                let record = step.device.backup(step.rows as &dyn Rows, &step.env)?;
                Ok(record.encode()?)
            });
            let client = self.0.clone();
            // A passphrase takes its time: nobody else waits for it.
            aside(NAME, self.0.shared.notifier.clone(), move || {
                let sealed = sealed::seal(&record.wait()?, &keys, &mut sys::rng())?;
                // Lost, it is said once more that a new one is due.
                let _ = client.shared.submit(Write::Lazy, |step| {
                    Ok(step.device.memory_backed_up(step.rows)?)
                });
                Ok(sealed)
            })
        }
    }
}

impl Client {
    /// See [`Client::verify_backup`].
    pub fn start_verify_backup(backup: &[u8], key: &Key) -> Pending<BackupSummary> {
        let (backup, key) = (backup.to_vec(), key.clone());
        aside(NAME, Notifier::new(), move || {
            Ok(BackupSummary::of(&open_record(&backup, &key)?))
        })
    }

    /// As [`Client::restore`], into a store of one's own that holds nothing yet.
    ///
    /// # Errors
    /// `profile_exists` if the store holds a device, and those of [`Client::restore`].
    pub fn restore_with_store(
        store: Store,
        backup: &[u8],
        opener: &Key,
        how: &Restore,
        mut surroundings: Surroundings,
    ) -> Result<Self, Error> {
        if Device::load(&store as &dyn Rows)?.is_some() {
            return Err(Error::profile_exists());
        }
        let record = how.checked(open_record(backup, opener)?)?;
        let (device, changes) = surroundings.restore(&store, &record, &how.replace)?;
        commit(&store, changes)?;
        Ok(Self::assemble(
            store,
            crate::party::Party::Device(Box::new(device)),
            surroundings,
        ))
    }
}

#[cfg(not(target_family = "wasm"))]
impl Client {
    /// A fresh recovery key, for [`create_backup`](Self::create_backup). It is kept nowhere: show it, let it be printed
    /// ([`RecoveryKey::to_text`]), and drop it.
    ///
    /// # Errors
    /// `closed`, `forked`.
    pub fn new_recovery_key(&self) -> Result<RecoveryKey, Error> {
        self.start().new_recovery_key().wait()
    }

    /// A backup of this device: account keys, trust and memory keys, sealed for one or two keys, of which each opens it
    /// alone: a recovery key ([`RecoveryKey::to_key`]), a passphrase, or one of each. At least 4,263 bytes, and 72 MiB
    /// at most.
    ///
    /// There is no identity key, no session, no prekey and no message in it. It grows old when a contact's identity
    /// changes, when contacts are accepted, and when memory keys are made; devices that come and go are found at the
    /// server.
    ///
    /// # Errors
    /// `bad_input`: no key, two of one kind, or a device that waits to be linked. `wrong_key` for an empty passphrase,
    /// `key_unreadable`; `backup_too_large` above 100,000 contacts or 64 MiB; those of the store.
    pub fn create_backup(&self, keys: &[Key]) -> Result<Vec<u8>, Error> {
        self.start().create_backup(keys).wait()
    }

    /// What is in a backup. It is opened and read as for a restore, and nothing is changed anywhere.
    ///
    /// # Errors
    /// `wrong_key`; `backup_damaged`, `backup_version`; `key_unreadable`.
    pub fn verify_backup(backup: &[u8], key: &Key) -> Result<BackupSummary, Error> {
        Self::start_verify_backup(backup, key).wait()
    }
}

#[cfg(all(feature = "sled", not(target_family = "wasm")))]
impl Client {
    /// Makes a *new device* of the account in a backup, in `directory`, under `key`; `opener` is a key of the backup.
    ///
    /// The device has a new identity key and a new number. It carries no session: it fetches the account's lists, checks
    /// that they follow the one that the backup knows, and puts itself on the next one, with the devices of `how` taken
    /// off. Until the server took that list (the event `Restored`) it sends nothing: `send_encrypted_message` gives
    /// `unlisted_device`. Then it opens sessions as any new device does. Contacts are accepted as they were, and a
    /// contact whose account key is another one now is `untrusted_identity`. Sessions of devices that were taken off are
    /// closed by everybody who learns the list; what was sent to them and not read is lost. Restoring twice makes two
    /// devices.
    ///
    /// If the server's lists do not follow, nothing is signed: an older one is `stale_list`, a contradiction
    /// `forked_list` with the event `IdentityChanged` of our own user.
    ///
    /// # Errors
    /// `wrong_key`; `backup_damaged`, `backup_version`; `other_user`; `bad_input` if the backup is not a holder's: link
    /// a new device instead; `profile_exists`, and those of the store.
    pub fn restore(
        directory: impl AsRef<Path>,
        key: Key,
        backup: &[u8],
        opener: &Key,
        how: &Restore,
    ) -> Result<Self, Error> {
        Self::start_restore(directory, key, backup, opener, how).wait()
    }

    /// See [`Client::restore`].
    pub fn start_restore(
        directory: impl AsRef<Path>,
        key: Key,
        backup: &[u8],
        opener: &Key,
        how: &Restore,
    ) -> Pending<Self> {
        let surroundings = Surroundings::default();
        Self::start_restore_in(directory, key, backup, opener, how, surroundings)
    }

    /// As [`Client::restore`], with a clock and a generator of one's own.
    pub fn start_restore_in(
        directory: impl AsRef<Path>,
        key: Key,
        backup: &[u8],
        opener: &Key,
        how: &Restore,
        mut surroundings: Surroundings,
    ) -> Pending<Self> {
        let directory = directory.as_ref().to_path_buf();
        let (backup, opener, how) = (backup.to_vec(), opener.clone(), how.clone());
        aside(NAME, Notifier::new(), move || {
            let record = how.checked(open_record(&backup, &opener)?)?;
            let empty = MemoryRows::new();
            let (device, first) = surroundings.restore(&empty, &record, &how.replace)?;
            // The device is in the first commit, before the store counts as one that exists.
            let store = Store::create_with(&directory, &key, sys::rng(), first)?;
            Ok(Self::assemble(
                store,
                crate::party::Party::Device(Box::new(device)),
                surroundings,
            ))
        })
    }
}
