//! What becomes of copies: handed over, received, asked for again, undeliverable.

use std::ops::ControlFlow;

use sprag_crypto::Salt;
use sprag_store::{Rows, Staged, StoreError};
use sprag_wire::{Content, DeviceAddress, UserId};
use zeroize::Zeroizing;

use crate::outgoing::{Copy, CopyStatus, Outgoing};
use crate::record::Record;
use crate::{chunks, inbox, tables};

/// Copies that were handed over to one device and not confirmed stay available, this many of them ("The protocol", §9).
pub const KEPT: u64 = 1_000;

/// Whether anything waits for this user's list.
pub(crate) fn waits_for_list(rows: &dyn Rows, name: &UserId) -> Result<bool, StoreError> {
    Ok(!waiting(rows, &tables::waits_for_list(name, None))?.is_empty())
}

/// Rows that wait under a prefix: sequence and value, ascending.
pub(crate) fn waiting(
    rows: &dyn Rows,
    prefix: &sprag_store::RowName,
) -> Result<chunks::Numbered, StoreError> {
    let mut found = Vec::new();
    rows.scan(prefix, &mut |suffix, value| {
        if let Ok(sequence) = suffix.try_into() {
            found.push((u64::from_be_bytes(sequence), Zeroizing::new(value.to_vec())));
        }
        ControlFlow::Continue(())
    })?;
    found.sort_by_key(|(sequence, _)| *sequence);
    Ok(found)
}

/// Times that a message is sent again to one device.
const AGAIN: u8 = 3;

/// The copies for a device that these frames carried and that may be sent again, each once; it is counted.
pub(crate) fn to_send_again(
    rows: &mut Staged<'_>,
    from: &DeviceAddress,
    salts: &[Salt],
) -> Result<Vec<(u64, u32)>, StoreError> {
    let owner = tables::device_owner(from);
    let mut places = Vec::new();
    for salt in salts {
        let place = rows.get(&tables::carried(&owner, Some(salt)))?;
        if let Some(place) = place.and_then(|place| read_place(&place))
            && !places.contains(&place)
            && let Some(mut copy) = Copy::load(rows, place.0, place.1)?
            && !copy.status.is_final()
            && copy.asked < AGAIN
        {
            copy.asked += 1;
            copy.save(rows, place.0, place.1);
            places.push(place);
        }
    }
    Ok(places)
}

/// A frame carried the reset under way: its receipt ends it.
pub(crate) fn note_reset(
    rows: &mut Staged<'_>,
    to: &DeviceAddress,
    salt: &Salt,
    content: &Content,
) -> Result<(), StoreError> {
    if let Some(record) = Record::load(rows, to)?
        && !record.reset.is_empty()
        && record.reset.iter().all(|id| content.reset().contains(id))
    {
        let name = tables::carried_reset(&record.owner, Some(salt));
        rows.put(name, Zeroizing::new(Vec::new()));
    }
    Ok(())
}

/// The frame of a copy was handed over.
pub(crate) fn handed_over(
    rows: &mut Staged<'_>,
    sequence: u64,
    number: u32,
) -> Result<(), StoreError> {
    let Some(mut copy) = Copy::load(rows, sequence, number)? else {
        return Ok(());
    };
    copy.task = None;
    let left = copy.status == CopyStatus::Sealed;
    if left {
        copy.status = CopyStatus::HandedOver;
    }
    copy.save(rows, sequence, number);
    if left && let Some(mut outgoing) = Outgoing::load(rows, sequence)? {
        outgoing.leave_one(rows)?;
        outgoing.save(rows);
        keep_last(rows, &tables::device_owner(&copy.to), sequence, number)?;
    }
    Ok(())
}

/// Of what was handed over to a device, the last [`KEPT`] copies wait for their receipts.
fn keep_last(
    rows: &mut Staged<'_>,
    owner: &[u8],
    sequence: u64,
    number: u32,
) -> Result<(), StoreError> {
    let place = inbox::next_in_ring(rows, owner, tables::RING_HANDED_OVER)?;
    let slot = tables::handed_over_slot(owner, place % KEPT);
    let old = rows.get(&slot)?;
    let value = [&sequence.to_be_bytes()[..], &number.to_be_bytes()].concat();
    rows.put(slot, Zeroizing::new(value));
    if let Some((sequence, number)) = old.and_then(|old| read_place(&old))
        && let Some(mut copy) = Copy::load(rows, sequence, number)?
        && copy.status == CopyStatus::HandedOver
    {
        copy.end(rows, sequence, number, CopyStatus::Expired)?;
    }
    Ok(())
}

/// A copy cannot be delivered.
pub(crate) fn undeliverable(
    rows: &mut Staged<'_>,
    sequence: u64,
    number: u32,
    status: CopyStatus,
) -> Result<(), StoreError> {
    match Copy::load(rows, sequence, number)? {
        Some(mut copy) => copy.end(rows, sequence, number, status),
        None => Ok(()),
    }
}

/// Everything that waits for a user, or for one device of his, cannot be delivered; but what `spared` says of the time
/// that it was sent at.
pub(crate) fn unreachable_user(
    rows: &mut Staged<'_>,
    name: &UserId,
    devices: &[DeviceAddress],
    status: CopyStatus,
    spared: impl Fn(u64) -> bool,
) -> Result<(), StoreError> {
    for (sequence, _) in waiting(rows, &tables::waits_for_list(name, None))? {
        if let Some(mut outgoing) = Outgoing::load(rows, sequence)? {
            if spared(outgoing.sent_at) {
                continue;
            }
            outgoing.without_copies = status;
            outgoing.close_one(rows, true)?;
        }
        rows.delete(tables::waits_for_list(name, Some(sequence)));
    }
    for device in devices {
        let owner = tables::device_owner(device);
        for (sequence, number) in waiting(rows, &tables::waits_for_session(&owner, None))? {
            if Outgoing::load(rows, sequence)?.is_some_and(|sent| spared(sent.sent_at)) {
                continue;
            }
            let number = u32::from_be_bytes(number.as_slice().try_into().unwrap_or_default());
            undeliverable(rows, sequence, number, status)?;
        }
    }
    Ok(())
}

/// Receipts: these frames of ours were opened by the device.
pub(crate) fn received(
    rows: &mut Staged<'_>,
    from: &DeviceAddress,
    salts: &[Salt],
) -> Result<(), StoreError> {
    let owner = tables::device_owner(from);
    for salt in salts {
        let name = tables::carried(&owner, Some(salt));
        let Some(place) = rows.get(&name)? else {
            continue;
        };
        rows.delete(name);
        if let Some((sequence, number)) = read_place(&place) {
            undeliverable(rows, sequence, number, CopyStatus::Received)?;
        }
    }
    Ok(())
}

fn read_place(place: &[u8]) -> Option<(u64, u32)> {
    let (sequence, number) = place.split_first_chunk::<8>()?;
    Some((
        u64::from_be_bytes(*sequence),
        u32::from_be_bytes(number.try_into().ok()?),
    ))
}

/// A device that is not listed any more gets nothing.
pub(crate) fn drop_device(
    rows: &mut Staged<'_>,
    address: &DeviceAddress,
) -> Result<(), StoreError> {
    let owner = tables::device_owner(address);
    let mut places = Vec::new();
    rows.scan(&tables::carried(&owner, None), &mut |_, place| {
        places.extend(read_place(place));
        ControlFlow::Continue(())
    })?;
    for (sequence, number) in waiting(rows, &tables::waits_for_session(&owner, None))? {
        places.push((
            sequence,
            u32::from_be_bytes(number.as_slice().try_into().unwrap_or_default()),
        ));
    }
    for (sequence, number) in places {
        undeliverable(rows, sequence, number, CopyStatus::NoSuchDevice)?;
    }
    Ok(())
}
