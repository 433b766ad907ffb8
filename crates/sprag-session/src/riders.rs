//! Our device list as a rider: in each message to a device that is not known to have it ("The protocol", §6).

use sprag_crypto::Salt;
use sprag_store::{Rows, Staged, StoreError};
use sprag_wire::{DeviceAddress, Handshake, ListHash, UnverifiedDeviceList};
use zeroize::Zeroizing;

use crate::error::StepError;
use crate::own::Device;
use crate::record::{Record, delete_prefix};
use crate::{tables, trust};

/// Frames to one device that carried the list and are not confirmed: beyond it the oldest are not waited for.
const CARRIED: usize = 64;

/// What the next frame to a device carries of our list, although not known to be there.
pub(crate) struct Ride {
    /// Its hash.
    pub(crate) hash: ListHash,
    /// The list, unless the handshake in front of the frame has it.
    pub(crate) frame: Option<Vec<u8>>,
}

impl Device {
    /// How our newest list goes to a device with the next frame; `None` if it has it.
    pub(crate) fn list_to_ride(
        &self,
        rows: &dyn Rows,
        record: Option<&Record>,
    ) -> Result<Option<Ride>, StepError> {
        let Some(record) = record else {
            return Ok(None);
        };
        let own = trust::load_row(rows, self.address.user())?;
        let newest = own.ok_or(StoreError::Damaged("own user row is missing"))?;
        let hash = newest.newest.hash();
        if rows
            .get(&tables::has_list(&record.owner))?
            .is_some_and(|known| known.as_slice() == hash.as_bytes())
        {
            return Ok(None);
        }
        let mut frame = Some(newest.newest.frame().to_vec());
        if let Some(current) = record.current.as_ref()
            && current.pending_since.is_some()
        {
            let part = tables::session(&record.owner, current.number, tables::PENDING);
            let handshake = rows.get(&part)?;
            let named = handshake
                .and_then(|handshake| Handshake::decode(&handshake).ok())
                .and_then(|handshake| UnverifiedDeviceList::decode(&handshake.device_list).ok());
            if named.is_some_and(|list| list.hash() == hash) {
                frame = None;
            }
        }
        Ok(Some(Ride { hash, frame }))
    }
}

/// A frame carried our list, in its handshake or its content.
pub(crate) fn note_carried(
    rows: &mut Staged<'_>,
    owner: &[u8],
    salt: &Salt,
    hash: &ListHash,
) -> Result<(), StoreError> {
    let mut carried = 0;
    rows.scan(&tables::carried_list(owner, None), &mut |_, _| {
        carried += 1;
        std::ops::ControlFlow::Continue(())
    })?;
    if carried >= CARRIED {
        delete_prefix(rows, &tables::carried_list(owner, None))?;
    }
    let hash = Zeroizing::new(hash.as_bytes().to_vec());
    rows.put(tables::carried_list(owner, Some(salt)), hash);
    Ok(())
}

/// Whether a frame with this list of ours is on its way to a device.
pub(crate) fn is_under_way(
    rows: &dyn Rows,
    device: &DeviceAddress,
    hash: &ListHash,
) -> Result<bool, StoreError> {
    let mut found = false;
    let prefix = tables::carried_list(&tables::device_owner(device), None);
    rows.scan(&prefix, &mut |_, value| {
        found |= value == hash.as_bytes();
        std::ops::ControlFlow::Continue(())
    })?;
    Ok(found)
}

/// A device has the list of ours with this hash.
pub(crate) fn has_list(
    rows: &mut Staged<'_>,
    device: &DeviceAddress,
    hash: &ListHash,
) -> Result<(), StoreError> {
    let owner = tables::device_owner(device);
    let hash = Zeroizing::new(hash.as_bytes().to_vec());
    rows.put(tables::has_list(&owner), hash);
    delete_prefix(rows, &tables::carried_list(&owner, None))
}

/// A device opened these frames of ours: has it our newest list now?
pub(crate) fn confirmed(
    rows: &mut Staged<'_>,
    device: &DeviceAddress,
    salts: &[Salt],
    newest: &ListHash,
) -> Result<(), StoreError> {
    let owner = tables::device_owner(device);
    for salt in salts {
        let carried = rows.get(&tables::carried_list(&owner, Some(salt)))?;
        if carried.is_some_and(|hash| hash.as_slice() == newest.as_bytes()) {
            return has_list(rows, device, newest);
        }
    }
    Ok(())
}
