//! What a newer list, an acceptance or one stranger too many does to the records that we hold.

use std::collections::HashMap;
use std::ops::ControlFlow;

use sprag_store::{Rows, Staged, StoreError};
use sprag_wire::{DeviceAddress, DeviceId, UnverifiedDeviceList, UserId};
use sprag_x3dh::DeviceList;

use crate::codec::{Reader, Writer};
use crate::error::{ProtocolError, StepError};
use crate::own::{Device, Env};
use crate::record::Record;
use crate::trust::{self, Judged, ListSource, User};
use crate::{lists, receipts, tables};

/// Records of devices whose users are not accepted.
pub const STRANGERS: usize = 1_000;

const VERSION: u8 = 1;

/// What became known of a user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Learned {
    /// Another, provisional account key of this user gave way: tell the user.
    pub replaced: bool,
    /// A newer list than before is remembered.
    pub newer: bool,
}

impl Device {
    pub(crate) fn user(&self, rows: &dyn Rows, name: &UserId) -> Result<Option<User>, StoreError> {
        trust::load(rows, name, self.address.user())
    }

    pub(crate) fn own_user(&self, rows: &dyn Rows) -> Result<User, StoreError> {
        self.user(rows, self.address.user())?
            .ok_or_else(|| StoreError::Damaged("own user row is missing"))
    }

    /// Our own newest list, without its history.
    pub(crate) fn own_newest(&self, rows: &dyn Rows) -> Result<DeviceList, StoreError> {
        let own = trust::load_row(rows, self.address.user())?;
        let own = own.ok_or_else(|| StoreError::Damaged("own user row is missing"))?;
        Ok(own.newest)
    }

    pub(crate) fn judge(
        &self,
        remembered: Option<&User>,
        name: &UserId,
        list: UnverifiedDeviceList,
        source: ListSource,
    ) -> Result<Judged, ProtocolError> {
        trust::judge(remembered, self.address.user(), name, list, source)
    }

    /// Remembers a judged list and drops what it leaves out.
    pub(crate) fn remember(
        &self,
        rows: &mut Staged<'_>,
        name: &UserId,
        remembered: Option<User>,
        judged: Judged,
    ) -> Result<Learned, StepError> {
        let replaced = judged.replaces;
        if name == self.address.user() {
            lists::note_numbers(rows, &judged.list);
        }
        let before = remembered.as_ref().map(|user| user.newest.clone());
        let Some(user) = judged.remember(remembered, name, self.address.user()) else {
            return Ok(Learned::default());
        };
        let hash = before.as_ref().map(DeviceList::hash);
        let newer = hash != Some(user.newest.hash());
        trust::save(rows, &user, self.address.user());
        if newer && let Some(before) = &before {
            drop_unlisted(rows, &user, before, replaced)?;
            if name == self.address.user() {
                self.own_list_changed(rows, before, &user.newest)?;
                if self.check_own_listed(rows).is_err() {
                    self.retire_all(rows)?;
                }
            }
        }
        Ok(Learned { replaced, newer })
    }

    /// A list that the server gave, as the newest or (`by_epoch`) one that was asked for by its epoch.
    ///
    /// # Errors
    /// The refusals of a list ("The protocol", §1.2), or what the store answers.
    pub fn learn(
        &mut self,
        rows: &mut Staged<'_>,
        name: &UserId,
        frame: &[u8],
        by_epoch: bool,
    ) -> Result<Learned, StepError> {
        let list = UnverifiedDeviceList::decode(frame)?;
        let remembered = self.user(rows, name)?;
        let source = if by_epoch {
            ListSource::ServerByEpoch
        } else {
            ListSource::Server
        };
        let judged = self.judge(remembered.as_ref(), name, list, source)?;
        self.remember(rows, name, remembered, judged)
    }

    /// The application accepts a user as remembered: he may be written to, and sessions with him heal.
    ///
    /// # Errors
    /// `NeedsBundle` if no list of his came from the server, or what the store answers.
    pub fn accept(&mut self, rows: &mut Staged<'_>, name: &UserId) -> Result<(), StepError> {
        let mut user = trust::known(self.user(rows, name)?)?;
        if !user.may_be_written_to() {
            return Err(ProtocolError::NeedsBundle.into());
        }
        self.mark_accepted(rows, &mut user)?;
        Ok(())
    }

    /// The application accepts a changed account key, or one side of a fork: this list replaces all that was remembered.
    ///
    /// # Errors
    /// `Malformed`, `BadInput` for our own user, `BadSignature`, or what the store answers.
    pub fn accept_list(
        &mut self,
        rows: &mut Staged<'_>,
        name: &UserId,
        frame: &[u8],
    ) -> Result<(), StepError> {
        let list = UnverifiedDeviceList::decode(frame)?;
        if list.user() != name {
            return Err(ProtocolError::Malformed.into());
        }
        if name == self.address.user() {
            return Err(ProtocolError::BadInput.into());
        }
        let list = DeviceList::verify(list)?;
        let remembered = self.user(rows, name)?;
        let mut user = User::first(name.clone(), list, true);
        user.accepted = true;
        trust::save(rows, &user, self.address.user());
        if let Some(before) = remembered {
            let replaced = before.account_key != user.account_key;
            drop_unlisted(rows, &user, &before.newest, replaced)?;
        }
        forget_strangers_of(rows, name)?;
        Ok(())
    }

    pub(crate) fn mark_accepted(
        &self,
        rows: &mut Staged<'_>,
        user: &mut User,
    ) -> Result<(), StepError> {
        if !user.accepted {
            user.accepted = true;
            trust::save(rows, user, self.address.user());
            forget_strangers_of(rows, &user.name)?;
            self.ask_for_salts(rows, &user.name)?;
        }
        Ok(())
    }

    /// Notes that a device of a user who is not accepted was read, and makes room for it if it is new.
    pub(crate) fn note_stranger(
        &self,
        rows: &mut Staged<'_>,
        env: &Env<'_>,
        address: &DeviceAddress,
    ) -> Result<(), StepError> {
        let owner = tables::device_owner(address);
        if rows.get(&tables::stranger(&owner))?.is_none() {
            self.evict_stranger(rows, address)?;
        }
        let user = address.user().as_str().as_bytes();
        let mut writer = Writer::new(VERSION, 4 + user.len() + 4 + 8);
        writer.block(user).u32(address.device().get()).u64(env.now);
        rows.put(tables::stranger(&owner), writer.finish());
        Ok(())
    }

    /// "The protocol", §8, *Strangers*.
    fn evict_stranger(
        &self,
        rows: &mut Staged<'_>,
        newcomer: &DeviceAddress,
    ) -> Result<(), StepError> {
        let mut strangers: Vec<(DeviceAddress, u64)> = Vec::new();
        let mut failed = Ok(());
        rows.scan(
            &tables::all(tables::STRANGERS),
            &mut |_, value| match read_stranger(value) {
                Ok(stranger) => {
                    strangers.push(stranger);
                    ControlFlow::Continue(())
                }
                Err(error) => {
                    failed = Err(error);
                    ControlFlow::Break(())
                }
            },
        )?;
        failed?;
        if strangers.len() < STRANGERS {
            return Ok(());
        }
        let mut counts: HashMap<&UserId, usize> = HashMap::from([(newcomer.user(), 1)]);
        for (address, _) in &strangers {
            *counts.entry(address.user()).or_default() += 1;
        }
        let most = counts.values().copied().max().unwrap_or(0);
        let victim = strangers
            .iter()
            .filter(|(address, _)| counts.get(address.user()) == Some(&most))
            .min_by_key(|(_, read)| *read);
        // The newcomer's user may be the only one with most records, and the newcomer is spared.
        let victim = victim.or_else(|| strangers.iter().min_by_key(|(_, read)| *read));
        if let Some((address, _)) = victim.cloned() {
            if let Some(record) = Record::load(rows, &address)? {
                record.delete(rows)?;
            }
            // The newcomer's own record is not there yet.
            if address.user() != newcomer.user() {
                forget_without_records(rows, address.user())?;
            }
        }
        Ok(())
    }
}

fn read_stranger(value: &[u8]) -> Result<(DeviceAddress, u64), StoreError> {
    let mut reader = Reader::new(value, VERSION, "stranger row")?;
    let user = UserId::new(reader.text()?);
    let user = reader.checked(user)?;
    let device = DeviceId::new(reader.u32()?);
    let device = reader.checked(device)?;
    let read = reader.u64()?;
    reader.finish()?;
    Ok((DeviceAddress::new(user, device), read))
}

/// The devices of a user of which there is a record.
pub(crate) fn devices_with_record(
    rows: &dyn Rows,
    name: &UserId,
) -> Result<Vec<DeviceAddress>, StoreError> {
    let mut devices = Vec::new();
    rows.scan(&tables::records_of(name), &mut |suffix, _| {
        if let Ok(number) = suffix.try_into()
            && let Ok(device) = DeviceId::new(u32::from_be_bytes(number))
        {
            devices.push(DeviceAddress::new(name.clone(), device));
        }
        ControlFlow::Continue(())
    })?;
    Ok(devices)
}

fn forget_strangers_of(rows: &mut Staged<'_>, name: &UserId) -> Result<(), StoreError> {
    for address in devices_with_record(rows, name)? {
        rows.delete(tables::stranger(&tables::device_owner(&address)));
    }
    Ok(())
}

/// A user who is not accepted and of whom no record is left is forgotten.
pub(crate) fn forget_without_records(
    rows: &mut Staged<'_>,
    name: &UserId,
) -> Result<(), StoreError> {
    if devices_with_record(rows, name)?.is_empty() {
        rows.delete(tables::user(name));
        rows.delete(tables::candidate(name));
        rows.delete(tables::list_fetched(name));
        rows.delete(tables::list_brought(name));
        rows.delete(tables::list_asked(name));
    }
    Ok(())
}

/// Ends what the newest list leaves out ("The protocol", §1.2, *Only listed devices count*).
pub(crate) fn drop_unlisted(
    rows: &mut Staged<'_>,
    user: &User,
    before: &DeviceList,
    other_account: bool,
) -> Result<(), StepError> {
    for address in devices_with_record(rows, &user.name)? {
        let Some(mut record) = Record::load(rows, &address)? else {
            continue;
        };
        match user.listed(address.device()) {
            Some(key) if *key == record.identity_key => {
                if other_account {
                    record.close_all(rows)?;
                    record.save(rows);
                }
            }
            None if user.accepted => {
                record.close_all(rows)?;
                record.save(rows);
            }
            _ => record.delete(rows)?,
        }
    }
    // Also what waits for a device with which there never was a session.
    for entry in before.devices() {
        if other_account || !user.is_listed(entry.device(), entry.identity_key()) {
            let address = DeviceAddress::new(user.name.clone(), entry.device());
            receipts::drop_device(rows, &address)?;
        }
    }
    Ok(())
}
