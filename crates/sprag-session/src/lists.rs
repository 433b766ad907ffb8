//! The life of our own device list ("The protocol", §1.2 and §6.1).

use std::collections::BTreeMap;

use sprag_store::{Rows, Staged, StoreError};
use sprag_wire::{DeviceId, LinkRequest, ListedDevice, UnverifiedDeviceList};
use sprag_x3dh::DeviceList;
use zeroize::Zeroizing;

use crate::error::{ProtocolError, StepError};
use crate::own::{Device, Env};
use crate::record::{Record, delete_prefix};
use crate::trust::{self, User};
use crate::{peers, tables};

/// Device numbers below this are left to other schemes.
pub(crate) const FIRST_DEVICE: u32 = 1 << 16;

impl Device {
    /// Signs our next list on top of the newest: with these entries put, and these numbers dropped. It is remembered at
    /// once; nobody else is told before the server took it.
    ///
    /// # Errors
    /// `BadInput` if this device is no holder, or the entries make no list; or what the store answers.
    pub fn next_list(
        &mut self,
        rows: &mut Staged<'_>,
        env: &mut Env<'_>,
        put: &[ListedDevice],
        drop: &[DeviceId],
    ) -> Result<DeviceList, StepError> {
        let own = self.own_user(rows)?;
        let newest = own.newest.devices();
        let me = newest.iter().find(|entry| {
            entry.device() == self.address.device()
                && entry.identity_key() == self.identity.public()
        });
        let account = match (&self.account, me) {
            (Some(account), Some(me)) if me.is_holder() => account,
            _ => return Err(ProtocolError::BadInput.into()),
        };
        let mut entries: BTreeMap<DeviceId, ListedDevice> = newest
            .iter()
            .map(|entry| (entry.device(), *entry))
            .collect();
        entries.retain(|device, _| !drop.contains(device));
        entries.extend(put.iter().map(|entry| (entry.device(), *entry)));
        let entries: Vec<ListedDevice> = entries.into_values().collect();
        let epoch = own
            .newest
            .epoch()
            .checked_add(1)
            .ok_or(ProtocolError::BadInput)?;
        let previous = Some(own.newest.hash());
        let list = DeviceList::sign(
            account,
            self.address.user(),
            epoch,
            previous,
            &entries,
            env.rng,
        )
        .map_err(|_| ProtocolError::BadInput)?;
        self.learn(rows, &self.address.user().clone(), list.frame(), false)?;
        Ok(list)
    }

    /// Puts the device that shows a link request on our next list, under `number`.
    ///
    /// # Errors
    /// `BadInput`: the request is another user's or no request, its key or number is taken, the list is full, or this
    /// device is no holder. What the store answers.
    pub fn link(
        &mut self,
        rows: &mut Staged<'_>,
        env: &mut Env<'_>,
        request: &str,
        number: DeviceId,
        flags: u32,
    ) -> Result<DeviceList, StepError> {
        let request = LinkRequest::from_text(request).map_err(|_| ProtocolError::BadInput)?;
        let own = self.own_user(rows)?;
        let key = *request.identity_key();
        let taken = own
            .newest
            .devices()
            .iter()
            .any(|entry| *entry.identity_key() == key)
            || key.as_public_key() == self.account_key.as_public_key();
        let seen =
            number.get() < FIRST_DEVICE || rows.get(&tables::own_number(number.get()))?.is_some();
        let full = own.newest.devices().len() >= sprag_wire::limits::DEVICES;
        if request.user() != self.address.user() || taken || seen || full {
            return Err(ProtocolError::BadInput.into());
        }
        self.next_list(rows, env, &[ListedDevice::new(number, key, flags)], &[])
    }

    /// The user says with which list this device goes on after a fork: it replaces all but the device numbers that were
    /// seen, and all sessions retire.
    ///
    /// # Errors
    /// `Malformed`, `UntrustedIdentity` if it is of another account key, `BadSignature`; or what the store answers.
    pub fn settle_fork(&mut self, rows: &mut Staged<'_>, frame: &[u8]) -> Result<(), StepError> {
        let list = UnverifiedDeviceList::decode(frame)?;
        if list.user() != self.address.user() {
            return Err(ProtocolError::Malformed.into());
        }
        if *list.account_key() != self.account_key {
            return Err(ProtocolError::UntrustedIdentity.into());
        }
        let list = DeviceList::verify(list)?;
        let before = self.own_user(rows)?.newest;
        delete_prefix(rows, &tables::all(tables::OWN_HISTORY))?;
        note_numbers(rows, &list);
        let mut own = User::first(self.address.user().clone(), list, true);
        own.accepted = true;
        trust::save(rows, &own, self.address.user());
        peers::drop_unlisted(rows, &own, &before, false)?;
        Ok(self.retire_all(rows)?)
    }

    /// The two sides of a fork of our own list: the one that this device goes by, and the one that it saw; `None` if
    /// there is none.
    ///
    /// # Errors
    /// What the store answers.
    pub fn own_fork(&self, rows: &dyn Rows) -> Result<Option<(DeviceList, DeviceList)>, StepError> {
        let Some(frame) = rows.get(&tables::candidate(self.address.user()))? else {
            return Ok(None);
        };
        let theirs = DeviceList::verify(UnverifiedDeviceList::decode(&frame)?)?;
        Ok(Some((self.own_newest(rows)?, theirs)))
    }

    /// The user says with which side of a fork this device goes on, by the hash of the list: see
    /// [`settle_fork`](Self::settle_fork). Changes of our list that wait are signed on top of it.
    ///
    /// # Errors
    /// `BadInput` if there is no fork, or neither list has this hash; what the store answers.
    pub fn settle_fork_by_hash(
        &mut self,
        rows: &mut Staged<'_>,
        env: &mut Env<'_>,
        hash: &[u8; 32],
    ) -> Result<(), StepError> {
        let (ours, theirs) = self.own_fork(rows)?.ok_or(ProtocolError::BadInput)?;
        let sides = [ours, theirs];
        let chosen = sides.iter().find(|list| list.hash().as_bytes() == hash);
        let chosen = chosen.ok_or(ProtocolError::BadInput)?;
        let before = self.own_newest(rows)?;
        self.settle_fork(rows, chosen.frame())?;
        let own = self.address.user().clone();
        rows.delete(tables::candidate(&own));
        self.own_list_changed(rows, &before, chosen)?;
        self.resume_fetches(rows, &own)?;
        self.resume_publishing(rows)?;
        self.user_was_accepted(rows, env, &own)?;
        self.list_ready(rows, env, &own)?;
        self.sign_next(rows, env)
    }

    /// All sessions with everybody are read, but never sent on or made current again.
    pub(crate) fn retire_all(&self, rows: &mut Staged<'_>) -> Result<(), StoreError> {
        for name in trust::names(rows)? {
            for address in peers::devices_with_record(rows, &name)? {
                if let Some(mut record) = Record::load(rows, &address)?
                    && record.retire(|_| true)
                {
                    record.save(rows);
                }
            }
        }
        Ok(())
    }
}

/// Every number that was ever on a list of ours stays taken.
pub(crate) fn note_numbers(rows: &mut Staged<'_>, list: &DeviceList) {
    for entry in list.devices() {
        rows.put(
            tables::own_number(entry.device().get()),
            Zeroizing::new(Vec::new()),
        );
    }
}
