//! What a device does that was set back to an earlier state ("The protocol", §8 and §1.1).
//!
//! It does not know what it did in the time that it lost: which keys it used, which numbers it gave, which prekeys it
//! handed out or deleted. So nothing of the old state is used to send, and no number is given that may have been given.

use sprag_store::{Rollback, Rows, Staged, StoreError};
use sprag_wire::{KemKind, KemPreKeyId};

use crate::codec::{Reader, Writer};
use crate::error::{ProtocolError, StepError};
use crate::event::{self, Event};
use crate::own::{Counters, Device, Env};
use crate::task::{Kind, StoredTask};
use crate::{prekeys, tables, upkeep};

/// The least by which prekey ids jump: what a device uses up in the time that is lost is far less.
pub const JUMP: u32 = 1 << 20;
/// Prekey ids jump by a random number below this on top: a copy that is set back twice must not jump to the same ids.
pub const JUMP_AT_RANDOM: u32 = 1 << 24;
/// The least by which all other numbers jump, and the bound of the random part. Below 2^53 for two million times.
pub const JUMP_OF_COUNTERS: u64 = 1 << 32;

const VERSION: u8 = 1;

/// What is remembered of the guard.
#[derive(Debug, Default)]
pub(crate) struct Guarded {
    /// How often the store was set back and gone on with.
    times: u32,
    /// When that was last, in milliseconds.
    last: u64,
    /// Whether the application was told that the anchor is out of reach.
    away: bool,
}

impl Guarded {
    pub(crate) fn load(rows: &dyn Rows) -> Result<Self, StoreError> {
        let Some(bytes) = rows.get(&tables::own(tables::OWN_GUARD))? else {
            return Ok(Self::default());
        };
        let mut reader = Reader::new(&bytes, VERSION, "guard row")?;
        let guarded = Self {
            times: reader.u32()?,
            last: reader.u64()?,
            away: reader.bool()?,
        };
        reader.finish()?;
        Ok(guarded)
    }

    fn save(&self, rows: &mut Staged<'_>) {
        let mut writer = Writer::new(VERSION, 13);
        writer.u32(self.times).u64(self.last).bool(self.away);
        rows.put(tables::own(tables::OWN_GUARD), writer.finish());
    }

    /// The store was set back, and is gone on with.
    pub(crate) fn note_set_back(mut self, rows: &mut Staged<'_>, now: u64) {
        self.times = self.times.saturating_add(1);
        self.last = now;
        self.save(rows);
    }
}

impl Device {
    /// The same device goes on, with new sessions: all that there are are retired, all numbers jump far ahead, one-time
    /// prekeys are deleted (they may have been used already), and new prekeys of all kinds take the place of all at the
    /// server. Our lists are fetched anew, as others of this account may have changed them, and a renewal is wanted.
    ///
    /// Frames that wait to be handed over stay: they are offered byte for byte as before. Draws 8 bytes for the jumps, and
    /// those of [`replace_pre_keys`](Self::replace_pre_keys).
    ///
    /// # Errors
    /// `BadInput` if a prekey id would pass 2^32: go on as a new device. What the store answers; nothing is changed then.
    pub fn set_back(
        &mut self,
        rows: &mut Staged<'_>,
        env: &mut Env<'_>,
        sign: Rollback,
    ) -> Result<(), StepError> {
        self.retire_all(rows)?;
        forget_one_time_keys(rows)?;
        forget_uploads(rows)?;
        jump(rows, env)?;
        self.replace_pre_keys(rows, env)?;
        StoredTask::now(Kind::FetchDevices {
            user: self.address.user().clone(),
            from: 0,
        })
        .queue(rows)?;
        upkeep::want_renewal(rows)?;
        Guarded::load(rows)?.note_set_back(rows, env.now);
        event::record(rows, &Event::SetBack { sign })?;
        Ok(())
    }

    /// How often this device was set back and went on.
    ///
    /// # Errors
    /// What the store answers.
    pub fn times_set_back(&self, rows: &dyn Rows) -> Result<u32, StepError> {
        Ok(Guarded::load(rows)?.times)
    }

    /// The anchor answers, or does not: told as an event when it changes.
    ///
    /// # Errors
    /// What the store answers.
    pub fn note_anchor(&self, rows: &mut Staged<'_>, away: bool) -> Result<(), StepError> {
        let mut guarded = Guarded::load(rows)?;
        if guarded.away != away {
            guarded.away = away;
            guarded.save(rows);
            let event = if away {
                Event::AnchorAway
            } else {
                Event::AnchorBack
            };
            event::record(rows, &event)?;
        }
        Ok(())
    }
}

/// Numbers that may have been given in the time that is lost are not given again.
fn jump(rows: &mut Staged<'_>, env: &mut Env<'_>) -> Result<(), StepError> {
    let mut drawn = [0; 8];
    env.rng.fill_bytes(&mut drawn);
    let drawn = u64::from_be_bytes(drawn);
    let ids = u32::try_from(drawn % u64::from(JUMP_AT_RANDOM)).unwrap_or_default() + JUMP;
    let mut counters = Counters::load(rows)?;
    for id in [
        &mut counters.signed_pre_key,
        &mut counters.one_time_pre_key,
        &mut counters.kem_pre_key,
    ] {
        *id = id.checked_add(ids).ok_or(ProtocolError::BadInput)?;
    }
    jump_numbers(&mut counters, drawn)?;
    counters.save(rows);
    Ok(())
}

/// The same for all numbers but ids of prekeys.
pub(crate) fn jump_numbers(counters: &mut Counters, drawn: u64) -> Result<(), StepError> {
    let numbers = (drawn >> 32) + JUMP_OF_COUNTERS;
    for number in [
        &mut counters.session,
        &mut counters.upload,
        &mut counters.sequence,
        &mut counters.task,
        &mut counters.event,
    ] {
        *number = number.checked_add(numbers).ok_or(ProtocolError::BadInput)?;
    }
    Ok(())
}

/// One-time prekeys that were used in the time that is lost are here again. Whoever still uses one is answered by healing.
fn forget_one_time_keys(rows: &mut Staged<'_>) -> Result<(), StepError> {
    rows.delete_below(&tables::all(tables::ONE_TIME))?;
    for id in prekeys::ids(rows, tables::KEM)? {
        let id = KemPreKeyId::new(id).map_err(|_| ProtocolError::BadInput)?;
        let stored = prekeys::load_kem(rows, id)?;
        if stored.is_some_and(|stored| stored.pair.kind() == KemKind::OneTime) {
            rows.delete(tables::prekey(tables::KEM, id.get()));
        }
    }
    Ok(())
}

/// Uploads that wait are of numbers and keys of before.
fn forget_uploads(rows: &mut Staged<'_>) -> Result<(), StepError> {
    for (id, _) in crate::chunks::sequences(rows, tables::TASKS, <[u8]>::is_empty)? {
        let id = crate::TaskId::new(id);
        if let Some(task) = StoredTask::load(rows, id)?
            && matches!(task.kind, Kind::PublishPreKeys(_))
        {
            task.delete(rows, id);
        }
    }
    Ok(())
}
