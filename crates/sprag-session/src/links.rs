//! Devices of our own account: adding, removing and flagging them, and what follows ("The protocol", §6.1).

use std::ops::ControlFlow;

use sprag_crypto::{IdentityKey, hmac, labels};
use sprag_store::{Rows, Staged, StoreError};
use sprag_wire::{
    Body, Content, DeviceAddress, DeviceId, HOLDER, KeyShare, LinkRequest, ListedDevice, limits,
};
use zeroize::Zeroizing;

use crate::codec::{Reader, Writer};
use crate::error::{ProtocolError, StepError};
use crate::event::{self, Event};
use crate::newcomer::{FOUND_MS, SHOWN_MS};
use crate::own::{Device, Env};
use crate::record::{Record, load_session};
use crate::shares::Generation;
use crate::tables;

const VERSION: u8 = 1;

/// One device of our own account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct OwnDevice {
    /// Its number.
    pub device: DeviceId,
    /// It has, or is to get, the account's private key, and may add and remove devices.
    pub holder: bool,
    /// It is this one.
    pub this: bool,
    /// How far it is.
    pub state: OwnDeviceState,
}

/// How far a device of our own account is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum OwnDeviceState {
    /// It is on the newest list, and as far as this device knows it has its keys.
    Listed,
    /// It is to be added: the server has not taken the list yet.
    Adding,
    /// This device added it, and waits to hear that it has the keys of the account.
    Linking,
    /// It is to be removed: the server has not taken the list yet.
    Removing,
}

/// A link request that this device read: the new device is to get the keys of the account, with a proof.
pub(crate) struct Link {
    pub(crate) device: DeviceId,
    key: IdentityKey,
    pub(crate) nonce: Zeroizing<[u8; 32]>,
    since: u64,
    /// The shares are in the outbox.
    posted: bool,
}

impl Link {
    pub(crate) fn load(rows: &dyn Rows, device: DeviceId) -> Result<Option<Self>, StoreError> {
        let bytes = rows.get(&tables::link(device.get()))?;
        bytes.map(|bytes| Self::read(device, &bytes)).transpose()
    }

    fn all(rows: &dyn Rows) -> Result<Vec<Self>, StoreError> {
        let mut all = Vec::new();
        let mut failed = Ok(());
        rows.scan(&tables::links(), &mut |suffix, value| {
            if let Ok(number) = suffix.try_into()
                && let Ok(device) = DeviceId::new(u32::from_be_bytes(number))
            {
                match Self::read(device, value) {
                    Ok(link) => all.push(link),
                    Err(error) => failed = Err(error),
                }
            }
            ControlFlow::Continue(())
        })?;
        failed.map(|()| all)
    }

    fn read(device: DeviceId, bytes: &[u8]) -> Result<Self, StoreError> {
        let mut reader = Reader::new(bytes, VERSION, "link row")?;
        let key = IdentityKey::from_bytes(reader.take(33)?);
        let link = Self {
            device,
            key: reader.checked(key)?,
            nonce: Zeroizing::new(reader.array()?),
            since: reader.u64()?,
            posted: reader.bool()?,
        };
        reader.finish()?;
        Ok(link)
    }

    fn save(&self, rows: &mut Staged<'_>) {
        let mut writer = Writer::new(VERSION, 33 + 32 + 9);
        writer
            .fixed(self.key.as_bytes())
            .fixed(self.nonce.as_slice())
            .u64(self.since)
            .bool(self.posted);
        rows.put(tables::link(self.device.get()), writer.finish());
    }
}

impl Device {
    /// Adds the device that shows a link request to our own account: it is put on the next list, and given the keys of
    /// the account once the server took that list and the device has published its prekeys. Ask the user first.
    ///
    /// # Errors
    /// `BadInput`: this is no link request, or one of another user; its key is on our list, waits to be, or is the
    /// account key; there are 32 devices; or this device is no holder. What the store answers. Nothing is changed then.
    pub fn link_device(
        &mut self,
        rows: &mut Staged<'_>,
        env: &mut Env<'_>,
        request: &str,
        holder: bool,
    ) -> Result<DeviceId, StepError> {
        let request = LinkRequest::from_text(request).map_err(|_| ProtocolError::BadInput)?;
        self.check_linked(rows)?;
        let key = *request.identity_key();
        let expected = self.expected_devices(rows)?;
        let taken = expected.iter().any(|entry| *entry.identity_key() == key);
        if request.user() != self.address.user() || taken {
            return Err(ProtocolError::BadInput.into());
        }
        let device = self.draw_number(rows, env)?;
        let flags = if holder { HOLDER } else { 0 };
        let entry = ListedDevice::new(device, key, flags);
        self.queue_list_change(rows, env, &[entry], &[])?;
        Link {
            device,
            key,
            nonce: Zeroizing::new(*request.nonce()),
            since: env.now,
            posted: false,
        }
        .save(rows);
        Ok(device)
    }

    /// Takes a device off our own list, for good: its number is never given again. Once the server took the list,
    /// everybody who learns it drops the sessions with that device, and a new generation of memory keys is shared with
    /// the remaining ones.
    ///
    /// # Errors
    /// `BadInput`: there is no such device, it is this one, or this device is no holder. What the store answers.
    pub fn remove_device(
        &mut self,
        rows: &mut Staged<'_>,
        env: &mut Env<'_>,
        device: DeviceId,
    ) -> Result<(), StepError> {
        let expected = self.expected_devices(rows)?;
        let known = expected.iter().any(|entry| entry.device() == device);
        if !known || device == self.address.device() {
            return Err(ProtocolError::BadInput.into());
        }
        self.queue_list_change(rows, env, &[], &[device])
    }

    /// Says whether a device of our own account may add and remove devices. One that may is given the account's private
    /// key. One that may no longer keeps what it was given: if it is in foreign hands, only a new account helps.
    ///
    /// # Errors
    /// `BadInput`: there is no such device, it would leave the account without holder, or this device is no holder. What
    /// the store answers.
    pub fn set_holder(
        &mut self,
        rows: &mut Staged<'_>,
        env: &mut Env<'_>,
        device: DeviceId,
        holder: bool,
    ) -> Result<(), StepError> {
        let expected = self.expected_devices(rows)?;
        let entry = expected.iter().find(|entry| entry.device() == device);
        let entry = entry.ok_or(ProtocolError::BadInput)?;
        let flags = if holder {
            entry.flags() | HOLDER
        } else {
            entry.flags() & !HOLDER
        };
        let entry = ListedDevice::new(device, *entry.identity_key(), flags);
        self.queue_list_change(rows, env, &[entry], &[])
    }

    /// The devices of our own account, with those that are to be added or removed, ascending.
    ///
    /// # Errors
    /// What the store answers.
    pub fn own_devices(&self, rows: &dyn Rows) -> Result<Vec<OwnDevice>, StepError> {
        let newest = self.own_newest(rows)?;
        let expected = self.expected_devices(rows)?;
        let mut devices = Vec::new();
        for entry in newest.devices() {
            let device = entry.device();
            let stays = expected.iter().find(|other| other.device() == device);
            let state = if stays.is_none() {
                OwnDeviceState::Removing
            } else if Link::load(rows, device)?.is_some() {
                OwnDeviceState::Linking
            } else {
                OwnDeviceState::Listed
            };
            devices.push(OwnDevice {
                device,
                holder: stays.unwrap_or(entry).is_holder(),
                this: self.is_me(entry),
                state,
            });
        }
        for entry in &expected {
            if !devices.iter().any(|other| other.device == entry.device()) {
                devices.push(OwnDevice {
                    device: entry.device(),
                    holder: entry.is_holder(),
                    this: self.is_me(entry),
                    state: OwnDeviceState::Adding,
                });
            }
        }
        devices.sort_by_key(|one| one.device);
        Ok(devices)
    }

    /// The other devices of our own user that are listed.
    pub(crate) fn other_own_devices(
        &self,
        rows: &dyn Rows,
    ) -> Result<Vec<ListedDevice>, StepError> {
        let newest = self.own_newest(rows)?;
        let others = newest.devices().iter();
        Ok(others.filter(|entry| !self.is_me(entry)).copied().collect())
    }

    /// What is due to new devices, and what has come to its end.
    pub(crate) fn settle_links(
        &mut self,
        rows: &mut Staged<'_>,
        env: &mut Env<'_>,
    ) -> Result<(), StepError> {
        for mut link in Link::all(rows)? {
            let newest = self.own_newest(rows)?;
            let same = |entry: &&ListedDevice| {
                entry.device() == link.device && *entry.identity_key() == link.key
            };
            let listed = newest.devices().iter().find(same).copied();
            let expected = self.expected_devices(rows)?;
            let over = env.now.saturating_sub(link.since) > SHOWN_MS + FOUND_MS;
            if over || (listed.is_none() && !expected.iter().any(|entry| same(&entry))) {
                rows.delete(tables::link(link.device.get()));
                let device = Some(link.device.get());
                event::record(rows, &Event::LinkEnded { device })?;
                continue;
            }
            let Some(entry) = listed.filter(|_| !link.posted) else {
                continue;
            };
            link.posted = true;
            link.save(rows);
            let to = DeviceAddress::new(self.address.user().clone(), link.device);
            self.share_everything(rows, env, &to, entry.is_holder())?;
        }
        Ok(())
    }

    /// A device of ours was heard: it has its keys.
    pub(crate) fn end_link(
        &self,
        rows: &mut Staged<'_>,
        from: &DeviceAddress,
    ) -> Result<(), StepError> {
        if from.user() == self.address.user() {
            let name = tables::link(from.device().get());
            if rows.get(&name)?.is_some() {
                rows.delete(name);
            }
        }
        Ok(())
    }

    /// Everything that a new device needs: the first share with its proof, in as many as the generations take.
    fn share_everything(
        &mut self,
        rows: &mut Staged<'_>,
        env: &mut Env<'_>,
        to: &DeviceAddress,
        holder: bool,
    ) -> Result<(), StepError> {
        let root = self.account_root(rows)?;
        let root = root.map_or(Vec::new(), |root| root.to_vec());
        let generations = self.generations(rows)?;
        let mut pages = generations.chunks(limits::GENERATIONS);
        // The proof is made for the session that carries the share, when that is sealed.
        let first = KeyShare::new(
            root,
            listed_generations(pages.next().unwrap_or_default()),
            self.account_private(holder),
            vec![0; 32],
        );
        self.send_to_device(rows, env, to, Body::KeyShare(first))?;
        for page in pages {
            let more = KeyShare::new(Vec::new(), listed_generations(page), Vec::new(), Vec::new());
            self.send_to_device(rows, env, to, Body::KeyShare(more))?;
        }
        Ok(())
    }

    fn account_private(&self, holder: bool) -> Vec<u8> {
        let account = self.account.as_ref().filter(|_| holder);
        account.map_or(Vec::new(), |pair| pair.private().to_bytes().to_vec())
    }

    /// Devices that became holders get the account's private key.
    pub(crate) fn share_with_holders(
        &mut self,
        rows: &mut Staged<'_>,
        env: &mut Env<'_>,
    ) -> Result<(), StepError> {
        let mut due = Vec::new();
        rows.scan(&tables::new_holders(), &mut |suffix, _| {
            if let Ok(number) = suffix.try_into() {
                due.extend(DeviceId::new(u32::from_be_bytes(number)));
            }
            ControlFlow::Continue(())
        })?;
        for device in due {
            rows.delete(tables::new_holder(device.get()));
            let others = self.other_own_devices(rows)?;
            let entry = others.iter().find(|entry| entry.device() == device);
            if self.account.is_some() && entry.is_some_and(ListedDevice::is_holder) {
                let to = DeviceAddress::new(self.address.user().clone(), device);
                let private = self.account_private(true);
                let share = KeyShare::new(Vec::new(), Vec::new(), private, Vec::new());
                self.send_to_device(rows, env, &to, Body::KeyShare(share))?;
            }
        }
        Ok(())
    }

    /// Makes the generation that a removal made due, and shares it with the remaining devices.
    pub(crate) fn make_due_generation(
        &mut self,
        rows: &mut Staged<'_>,
        env: &mut Env<'_>,
    ) -> Result<(), StepError> {
        if rows.get(&tables::generation_due())?.is_none() {
            return Ok(());
        }
        rows.delete(tables::generation_due());
        self.new_generation(rows, env).map(|_| ())
    }

    /// Makes a generation of memory keys under our newest list, and shares it with all other devices of ours.
    ///
    /// # Errors
    /// `BadInput` if this device is no holder; what the store answers.
    pub fn new_generation(
        &mut self,
        rows: &mut Staged<'_>,
        env: &mut Env<'_>,
    ) -> Result<Generation, StepError> {
        let newest = self.own_newest(rows)?;
        let holder = |entry: &ListedDevice| self.is_me(entry) && entry.is_holder();
        if self.account.is_none() || !newest.devices().iter().any(holder) {
            return Err(ProtocolError::BadInput.into());
        }
        let epoch = newest.epoch();
        let known = self.generations(rows)?;
        let last = known.iter().filter(|one| one.epoch == epoch);
        let last = last.map(|one| one.number).max().unwrap_or(0);
        let number = last.checked_add(1).ok_or(ProtocolError::BadInput)?;
        let mut generation = Generation {
            epoch,
            number,
            key: [0; 32],
        };
        env.rng.fill_bytes(&mut generation.key);
        self.add_generation(rows, epoch, number, &generation.key)?;
        for entry in self.other_own_devices(rows)? {
            // A new device gets all of them at once.
            if Link::load(rows, entry.device())?.is_some_and(|link| !link.posted) {
                continue;
            }
            let to = DeviceAddress::new(self.address.user().clone(), entry.device());
            let generations = listed_generations(std::slice::from_ref(&generation));
            let share = KeyShare::new(Vec::new(), generations, Vec::new(), Vec::new());
            self.send_to_device(rows, env, &to, Body::KeyShare(share))?;
        }
        Ok(generation)
    }

    /// An account that begins here, or began before there were memory keys, gets its root and a first generation.
    pub(crate) fn begin_keys(
        &self,
        rows: &mut Staged<'_>,
        env: &mut Env<'_>,
    ) -> Result<(), StepError> {
        if self.account.is_none() || self.account_root(rows)?.is_some() {
            return Ok(());
        }
        let newest = self.own_newest(rows)?;
        let alone = matches!(newest.devices(), [entry] if self.is_me(entry));
        if !alone || self.is_waiting(rows)? {
            // Others have them already, or will be given the same.
            return Ok(());
        }
        let (mut root, mut key) = (Zeroizing::new([0; 32]), Zeroizing::new([0; 32]));
        env.rng.fill_bytes(root.as_mut_slice());
        env.rng.fill_bytes(key.as_mut_slice());
        self.set_account_root(rows, &root)?;
        if self.generations(rows)?.is_empty() {
            self.add_generation(rows, newest.epoch(), 1, &key)?;
        }
        Ok(())
    }

    /// Puts into a share to a new device the proof for the session that will carry it. Says whether there is still
    /// something to prove.
    pub(crate) fn prove_link(
        &self,
        rows: &dyn Rows,
        record: Option<&Record>,
        to: &DeviceAddress,
        content: &mut Content,
    ) -> Result<bool, StepError> {
        if !matches!(content.body(), Body::KeyShare(share) if !share.link_proof.is_empty()) {
            return Ok(true);
        }
        let Some(link) = Link::load(rows, to.device())? else {
            return Ok(false);
        };
        if let Some(record) = record
            && let Some(current) = &record.current
        {
            let session = load_session(rows, &record.owner, current.number)?;
            let transcript = session.transcript_hash();
            let proof = hmac(
                link.nonce.as_slice(),
                &[labels::LINK, transcript.as_bytes()],
            );
            content.set_link_proof(proof.as_slice());
        }
        Ok(true)
    }
}

/// Whether this device added that one, and does not know yet that it has its keys.
pub(crate) fn is_new(
    rows: &dyn Rows,
    own: &sprag_wire::UserId,
    address: &DeviceAddress,
) -> Result<bool, StoreError> {
    Ok(address.user() == own && Link::load(rows, address.device())?.is_some())
}

fn listed_generations(generations: &[Generation]) -> Vec<(u64, u32, Vec<u8>)> {
    let one = |one: &Generation| (one.epoch, one.number, one.key.to_vec());
    generations.iter().map(one).collect()
}
