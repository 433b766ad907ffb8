//! A device that was set back goes on as a new device of its account ("The protocol", §1.2; `docs/STORE.md`).
//!
//! The other one, of which the profile is a copy, may be at work: it has the same identity key and number, so both are
//! given up. What a backup would carry is taken over; the rest of the rows is left behind as a whole, whatever is in it.

use sprag_store::{Changes, MemoryRows, Rollback, Rows, Staged};
use sprag_wire::limits::DEVICES as MAX_DEVICES;
use sprag_wire::{Body, DeviceId};

use crate::backup::BackupError;
use crate::error::StepError;
use crate::event::{self, Event};
use crate::health::Tally;
use crate::memory::blobs;
use crate::outgoing::{MessageId, Outgoing};
use crate::own::{Counters, Device, Env};
use crate::restore::{Replace, Restoring};
use crate::rollback::{Guarded, jump_numbers};
use crate::{chunks, tables};

/// Tables of which a new device keeps all rows: what was received and not acknowledged, and events.
pub const KEPT_TABLES: [u8; 18] = [
    tables::INBOX,
    tables::EVENTS,
    // Memories: they are sealed under keys of the account.
    0x60,
    0x61,
    0x62,
    0x63,
    0x64,
    0x65,
    0x66,
    0x67,
    0x68,
    0x69,
    0x6a,
    0x6b,
    0x6c,
    0x6d,
    0x6e,
    0x6f,
];

/// Ids in one event: it stays a row.
const IDS: usize = 100;

/// What becomes of the number that a device gives up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum OldNumber {
    /// It goes off the account's list in the change that brings the new one.
    Dropped,
    /// It stays listed: another copy goes on under it.
    Kept,
}

impl Device {
    /// Whether this device has the account's private key, so that it can sign lists.
    #[must_use]
    pub fn has_account_key(&self) -> bool {
        self.account.is_some()
    }

    /// A new device in the place of this one, which was set back, and the rows that are all of it beside
    /// [`KEPT_TABLES`]: a new identity key and number, no session, no prekey, nothing of the outbox. It begins as a
    /// [restored](Self::restore) one does, and sends nothing before the server took the list that it is on.
    ///
    /// Numbers of tasks, events and messages go on far ahead. Devices that a restore under way was to replace still are.
    /// Draws 8 bytes, and those of `restore`.
    ///
    /// # Errors
    /// [`BackupError::Step`]: `BadInput` for a device without the account's private key, or one that waits to be linked;
    /// what the store answers.
    pub fn become_new(
        &self,
        rows: &dyn Rows,
        env: &mut Env<'_>,
        sign: Rollback,
        old: OldNumber,
    ) -> Result<(Self, Changes), BackupError> {
        let mut record = self.backup(rows, env)?;
        let given_up = self.address.device();
        // Also one that was never listed, as after a death between two such steps.
        if let Err(place) = record.numbers.binary_search(&given_up.get()) {
            record.numbers.insert(place, given_up.get());
        }
        let replace = replaced(Restoring::load(rows)?, given_up, old);

        let nothing = MemoryRows::new();
        let mut fresh = Staged::new(&nothing);
        let mut drawn = [0; 8];
        env.rng.fill_bytes(&mut drawn);
        let mut counters = Counters {
            signed_pre_key: 0,
            one_time_pre_key: 0,
            kem_pre_key: 0,
            outbox: 0,
            ..Counters::load(rows)?
        };
        jump_numbers(&mut counters, u64::from_be_bytes(drawn))?;
        counters.save(&mut fresh);
        if let Some(tally) = rows.get(&tables::own(tables::OWN_TALLY))? {
            fresh.put(tables::own(tables::OWN_TALLY), tally);
        }
        Guarded::load(rows)?.note_set_back(&mut fresh, env.now);
        event::record(&mut fresh, &Event::SetBack { sign })?;
        for messages in not_sent(rows)?.chunks(IDS) {
            let messages = messages.to_vec();
            event::record(&mut fresh, &Event::NotSent { messages })?;
        }
        let mut device = Self::restore(&mut fresh, env, &record, &replace)?;
        device.tally = Tally::load(&fresh)?;
        // Tasks are left behind, what they were to do with blobs is not.
        blobs::offer_again(&mut fresh);
        Ok((device, fresh.into_changes()))
    }
}

/// Whom the new device replaces.
fn replaced(restoring: Option<Restoring>, given_up: DeviceId, old: OldNumber) -> Replace {
    let (all, mut lost) =
        restoring.map_or((false, Vec::new()), |before| (before.all, before.devices));
    if all {
        return Replace::All;
    }
    if old == OldNumber::Dropped && !lost.contains(&given_up) {
        // Of very many attempts the first numbers count: they were listed.
        lost.truncate(MAX_DEVICES - 1);
        lost.push(given_up);
    }
    Replace::Devices(lost)
}

/// The application's messages that wait to be handed over to a device, in the order they were sent.
fn not_sent(rows: &dyn Rows) -> Result<Vec<MessageId>, StepError> {
    let mut ids = Vec::new();
    let is_header = |rest: &[u8]| rest == 0u32.to_be_bytes();
    for (sequence, _) in chunks::sequences(rows, tables::OUTBOX, is_header)? {
        if let Some(outgoing) = Outgoing::load(rows, sequence)?
            && outgoing.waiting > 0
            && outgoing.length > 0
            && matches!(outgoing.content(rows)?.body(), Body::Application(_))
        {
            ids.push(outgoing.id);
        }
    }
    Ok(ids)
}
