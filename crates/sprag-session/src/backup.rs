//! What of a device survives its loss: who we are and whom we believe, and never where a ratchet stood
//! (`docs/BACKUP.md`).
//!
//! A record is made from rows and read into a value; sealing it is the facade's. Restoring makes a *new* device from it:
//! see [`Device::restore`].

use std::collections::BTreeMap;

use sprag_crypto::{AccountKey, AccountKeyPair, Features, PrivateKey};
use sprag_store::{Rows, StoreError};
use sprag_wire::limits::DEVICES as MAX_DEVICES;
use sprag_wire::{DeviceId, ListHash, UnverifiedDeviceList, UserId};
use sprag_x3dh::DeviceList;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::codec::{Reader, Writer};
use crate::error::{ProtocolError, StepError};
use crate::own::{Device, Env};
use crate::shares::{Generation, KEYS_OF_GENERATION};
use crate::trust::{self, HISTORY, User};
use crate::{chunks, tables};

/// The largest record, in bytes: 64 MiB.
pub const MAX_BACKUP: usize = 64 << 20;
/// Contacts in one backup.
pub const MAX_CONTACTS: usize = 100_000;

const VERSION: u8 = 1;
/// Keys of the account's memory, its lists, and their hashes. Far more than a life of changes.
const MAX_GENERATIONS: usize = 65_536;
const MAX_LISTS: usize = 65_536;
/// The row of the settings is small.
const MAX_SETTINGS: usize = 3_900;

/// Why there is no backup, or none to be had from these bytes.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BackupError {
    /// The bytes are no record, or not all of one.
    #[error("backup is damaged")]
    Damaged,
    /// Made by a later version. Update.
    #[error("backup is of another version")]
    Version,
    /// More than 100,000 contacts, or more than 64 MiB.
    #[error("backup would be too large")]
    TooLarge,
    /// The device could not be read, or may not be backed up: one that waits to be linked has nothing yet (`BadInput`).
    #[error(transparent)]
    Step(StepError),
}

impl From<StepError> for BackupError {
    fn from(error: StepError) -> Self {
        Self::Step(error)
    }
}

impl From<StoreError> for BackupError {
    fn from(error: StoreError) -> Self {
        Self::Step(error.into())
    }
}

/// What a backup holds. Private keys in it wipe themselves.
#[derive(Clone)]
#[non_exhaustive]
pub struct BackupRecord {
    /// The user.
    pub user: UserId,
    /// The number of the device that made it.
    pub device: DeviceId,
    /// When, by its clock, in milliseconds since 1970.
    pub made_at: u64,
    /// The feature bits that its application wanted.
    pub features: Features,
    /// The account's public key.
    pub account_key: AccountKey,
    /// The account's key pair: only of a holder.
    pub account: Option<AccountKeyPair>,
    /// The account root.
    pub root: Option<Zeroizing<[u8; 32]>>,
    /// All generations of memory keys, ascending.
    pub generations: Vec<Generation>,
    /// Our own lists, ascending; the last one is the newest.
    pub(crate) lists: Vec<UnverifiedDeviceList>,
    /// Hashes of our own lists, the newest's among them.
    pub(crate) history: BTreeMap<u64, ListHash>,
    /// Device numbers that were ever on a list of ours.
    pub(crate) numbers: Vec<u32>,
    /// The row of the settings, as it stands; empty: none.
    pub(crate) settings: Zeroizing<Vec<u8>>,
    /// Accepted users, ascending by name.
    pub(crate) contacts: Vec<User>,
}

impl std::fmt::Debug for BackupRecord {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BackupRecord").finish_non_exhaustive()
    }
}

impl BackupRecord {
    /// Whether the device that made it could sign our lists: only then restoring makes a device by itself.
    #[must_use]
    pub fn is_holder(&self) -> bool {
        self.account.is_some()
    }

    /// How many contacts it has.
    #[must_use]
    pub fn contacts(&self) -> usize {
        self.contacts.len()
    }

    /// Epoch of the newest list of ours that it knows.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.lists.last().map_or(0, UnverifiedDeviceList::epoch)
    }

    /// The devices on that list.
    #[must_use]
    pub fn devices(&self) -> Vec<DeviceId> {
        let newest = self.lists.last();
        let devices = newest.map_or(&[][..], UnverifiedDeviceList::devices);
        devices.iter().map(|entry| entry.device()).collect()
    }

    /// The record: fixed fields, big-endian, and lists of them. **Secret.**
    ///
    /// # Errors
    /// [`BackupError::TooLarge`].
    pub fn encode(&self) -> Result<Zeroizing<Vec<u8>>, BackupError> {
        let contacts = self
            .contacts
            .iter()
            .map(|user| 1 + 255 + 1 + 4 + user.newest.frame().len() + 1 + user.history.len() * 40);
        let lists = self.lists.iter().map(|list| 4 + list.frame().len());
        let most = 700
            + self.settings.len()
            + self.generations.len() * 44
            + self.history.len() * 40
            + self.numbers.len() * 4
            + lists.sum::<usize>()
            + contacts.sum::<usize>();
        let mut writer = Writer::new(VERSION, most);
        write_user(&mut writer, &self.user);
        writer
            .u32(self.device.get())
            .u64(self.made_at)
            .u32(self.features.bits())
            .fixed(self.account_key.as_bytes());
        let account = self.account.as_ref().map(|pair| pair.private().to_bytes());
        writer.optional(account.as_ref().map(|key| &key[..]));
        writer.optional(self.root.as_ref().map(|root| root.as_slice()));
        writer.block(&self.settings);
        write_count(&mut writer, self.generations.len());
        for generation in &self.generations {
            writer
                .u64(generation.epoch)
                .u32(generation.number)
                .fixed(&generation.key);
        }
        write_count(&mut writer, self.lists.len());
        for list in &self.lists {
            writer.block(list.frame());
        }
        write_history(&mut writer, &self.history);
        write_count(&mut writer, self.numbers.len());
        for number in &self.numbers {
            writer.u32(*number);
        }
        write_count(&mut writer, self.contacts.len());
        for user in &self.contacts {
            write_user(&mut writer, &user.name);
            writer.bool(user.from_server).block(user.newest.frame());
            write_history(&mut writer, &user.history);
        }
        let record = writer.finish();
        if record.len() > MAX_BACKUP || self.contacts.len() > MAX_CONTACTS {
            return Err(BackupError::TooLarge);
        }
        Ok(record)
    }

    /// Reads a record. Anything but what [`encode`](Self::encode) writes is refused; nothing is allocated for a count
    /// that the bytes do not bear out.
    ///
    /// # Errors
    /// [`BackupError::Damaged`], [`BackupError::Version`].
    pub fn decode(bytes: &[u8]) -> Result<Self, BackupError> {
        match bytes.first() {
            Some(&VERSION) if bytes.len() <= MAX_BACKUP => {}
            Some(&version) if version != VERSION => return Err(BackupError::Version),
            _ => return Err(BackupError::Damaged),
        }
        read(bytes).map_err(|_| BackupError::Damaged)
    }

    /// Our newest list.
    pub(crate) fn newest(&self) -> Result<DeviceList, BackupError> {
        let newest = self.lists.last().cloned().ok_or(BackupError::Damaged)?;
        DeviceList::verify(newest).map_err(|_| BackupError::Damaged)
    }
}

fn write_count(writer: &mut Writer, count: usize) {
    writer.u32(u32::try_from(count).unwrap_or(u32::MAX));
}

fn write_user(writer: &mut Writer, user: &UserId) {
    let name = user.as_str().as_bytes();
    writer
        .u8(u8::try_from(name.len()).unwrap_or(u8::MAX))
        .fixed(name);
}

fn write_history(writer: &mut Writer, history: &BTreeMap<u64, ListHash>) {
    write_count(writer, history.len());
    for (epoch, hash) in history {
        writer.u64(*epoch).fixed(hash.as_bytes());
    }
}

fn read(bytes: &[u8]) -> Result<BackupRecord, StoreError> {
    let mut reader = Reader::new(bytes, VERSION, "backup")?;
    let user = read_user(&mut reader)?;
    let device = DeviceId::new(reader.u32()?);
    let device = reader.checked(device)?;
    let made_at = reader.u64()?;
    let features = Features::from_bits(reader.u32()?);
    let account_key = AccountKey::from_bytes(reader.take(33)?);
    let account_key = reader.checked(account_key)?;
    let account = match reader.optional::<32>()?.map(Zeroizing::new) {
        None => None,
        Some(private) => {
            let key = PrivateKey::from_bytes(&private);
            let clamped = bool::from(key.to_bytes().as_slice().ct_eq(private.as_slice()));
            let pair = AccountKeyPair::from_private(key);
            if !clamped || *pair.public() != account_key {
                return Err(reader.damaged());
            }
            Some(pair)
        }
    };
    let root = reader.optional::<32>()?.map(Zeroizing::new);
    let settings = Zeroizing::new(reader.block()?.to_vec());
    if settings.len() > MAX_SETTINGS {
        return Err(reader.damaged());
    }
    let generations = read_generations(&mut reader)?;
    let lists = read_lists(&mut reader, &user, &account_key)?;
    let history = read_history(&mut reader, MAX_LISTS)?;
    let newest = lists.last().ok_or_else(|| reader.damaged())?;
    let known = |list: &UnverifiedDeviceList| history.get(&list.epoch()) == Some(&list.hash());
    if !lists.iter().all(known) || history.keys().next_back() != Some(&newest.epoch()) {
        return Err(reader.damaged());
    }
    let beyond = |one: &Generation| one.epoch > newest.epoch();
    if generations.iter().any(beyond) {
        return Err(reader.damaged());
    }
    let mut numbers: Vec<u32> = Vec::new();
    for _ in 0..read_count(&mut reader, MAX_LISTS * MAX_DEVICES)? {
        let number = reader.u32()?;
        if number == 0 || numbers.last().is_some_and(|last| *last >= number) {
            return Err(reader.damaged());
        }
        numbers.push(number);
    }
    let contacts = read_contacts(&mut reader, &user)?;
    reader.finish()?;
    Ok(BackupRecord {
        user,
        device,
        made_at,
        features,
        account_key,
        account,
        root,
        generations,
        lists,
        history,
        numbers,
        settings,
        contacts,
    })
}

fn read_count(reader: &mut Reader<'_>, most: usize) -> Result<u32, StoreError> {
    let count = reader.u32()?;
    if usize::try_from(count).is_ok_and(|count| count <= most) {
        Ok(count)
    } else {
        Err(reader.damaged())
    }
}

fn read_user(reader: &mut Reader<'_>) -> Result<UserId, StoreError> {
    let length = usize::from(reader.u8()?);
    let name = reader.take(length)?;
    let name = std::str::from_utf8(name).map_err(|_| reader.damaged())?;
    let user = UserId::new(name);
    reader.checked(user)
}

fn read_list(reader: &mut Reader<'_>, user: &UserId) -> Result<UnverifiedDeviceList, StoreError> {
    let list = UnverifiedDeviceList::decode(reader.block()?);
    let list = reader.checked(list)?;
    if list.user() == user {
        Ok(list)
    } else {
        Err(reader.damaged())
    }
}

fn read_generations(reader: &mut Reader<'_>) -> Result<Vec<Generation>, StoreError> {
    let mut generations: Vec<Generation> = Vec::new();
    let mut same = 0;
    for _ in 0..read_count(reader, MAX_GENERATIONS)? {
        let generation = Generation {
            epoch: reader.u64()?,
            number: reader.u32()?,
            key: reader.array()?,
        };
        let place = |one: &Generation| (one.epoch, one.number);
        match generations.last() {
            Some(last) if place(last) == place(&generation) => same += 1,
            _ => same = 1,
        }
        let ascends = generations.last().is_none_or(|last| {
            (last.epoch, last.number, last.key)
                < (generation.epoch, generation.number, generation.key)
        });
        let counts = generation.epoch > 0 && generation.number > 0;
        if !ascends || !counts || same > KEYS_OF_GENERATION {
            return Err(reader.damaged());
        }
        generations.push(generation);
    }
    Ok(generations)
}

fn read_lists(
    reader: &mut Reader<'_>,
    user: &UserId,
    account_key: &AccountKey,
) -> Result<Vec<UnverifiedDeviceList>, StoreError> {
    let mut lists: Vec<UnverifiedDeviceList> = Vec::new();
    for _ in 0..read_count(reader, MAX_LISTS)? {
        let list = read_list(reader, user)?;
        let ascends = lists.last().is_none_or(|last| last.epoch() < list.epoch());
        if !ascends || list.account_key() != account_key {
            return Err(reader.damaged());
        }
        lists.push(list);
    }
    Ok(lists)
}

fn read_history(
    reader: &mut Reader<'_>,
    most: usize,
) -> Result<BTreeMap<u64, ListHash>, StoreError> {
    let mut history = BTreeMap::new();
    for _ in 0..read_count(reader, most)? {
        let (epoch, hash) = (reader.u64()?, ListHash::from_bytes(reader.array()?));
        if history
            .last_key_value()
            .is_some_and(|(last, _)| *last >= epoch)
        {
            return Err(reader.damaged());
        }
        history.insert(epoch, hash);
    }
    Ok(history)
}

fn read_contacts(reader: &mut Reader<'_>, own: &UserId) -> Result<Vec<User>, StoreError> {
    let mut contacts: Vec<User> = Vec::new();
    for _ in 0..read_count(reader, MAX_CONTACTS)? {
        let name = read_user(reader)?;
        let from_server = reader.bool()?;
        let list = read_list(reader, &name)?;
        let history = read_history(reader, usize::try_from(HISTORY).unwrap_or(usize::MAX))?;
        let ascends = contacts.last().is_none_or(|last| last.name < name);
        let newest = history.last_key_value();
        let newest = newest.filter(|(epoch, _)| **epoch == list.epoch());
        // The list was verified before it was stored; its hash is sealed beside it, as in the store.
        let newest = newest.and_then(|(_, hash)| DeviceList::already_known(list, hash));
        let newest = newest.ok_or_else(|| reader.damaged())?;
        if !ascends || name == *own {
            return Err(reader.damaged());
        }
        contacts.push(User {
            name,
            account_key: *newest.account_key(),
            from_server,
            accepted: true,
            newest,
            history,
        });
    }
    Ok(contacts)
}

impl Device {
    /// What a backup of this device holds now: user, account keys (the private one only of a holder), account root,
    /// generations, our own lists with their hashes and numbers, accepted users with theirs, settings. No identity key,
    /// no session, no prekey, no message.
    ///
    /// # Errors
    /// [`BackupError::Step`]: `BadInput` while this device waits to be linked; what the store answers.
    pub fn backup(&self, rows: &dyn Rows, env: &Env<'_>) -> Result<BackupRecord, BackupError> {
        if self.is_waiting(rows)? {
            return Err(StepError::Protocol(ProtocolError::BadInput).into());
        }
        let own = self.own_user(rows)?;
        let mut lists = Vec::new();
        for (_, frame) in chunks::sequences(rows, tables::OWN_LISTS, <[u8]>::is_empty)? {
            let list = UnverifiedDeviceList::decode(&frame)
                .map_err(|_| StoreError::Damaged("own list"))?;
            // What a settled fork left behind is no list of ours any more.
            if own.history.get(&list.epoch()) == Some(&list.hash()) {
                lists.push(list);
            }
        }
        let mut contacts = Vec::new();
        for name in trust::names(rows)? {
            if name != *self.address().user()
                && let Some(user) = self.user(rows, &name)?.filter(|user| user.accepted)
            {
                contacts.push(user);
            }
        }
        contacts.sort_by(|one, other| one.name.cmp(&other.name));
        let settings = rows.get(&tables::own(tables::OWN_SETTINGS))?;
        Ok(BackupRecord {
            user: self.address().user().clone(),
            device: self.address().device(),
            made_at: env.now,
            features: self.features,
            account_key: self.account_key,
            account: self.account.clone(),
            root: self.account_root(rows)?,
            generations: self.generations(rows)?,
            lists,
            history: own.history,
            numbers: own_numbers(rows)?,
            settings: settings.unwrap_or_default(),
            contacts,
        })
    }
}

/// Every number that was ever on a list of ours, ascending.
fn own_numbers(rows: &dyn Rows) -> Result<Vec<u32>, StoreError> {
    let mut numbers = Vec::new();
    rows.scan(&tables::all(tables::OWN_NUMBERS), &mut |suffix, _| {
        if let Ok(number) = suffix.try_into() {
            numbers.push(u32::from_be_bytes(number));
        }
        std::ops::ControlFlow::Continue(())
    })?;
    numbers.sort_unstable();
    Ok(numbers)
}
