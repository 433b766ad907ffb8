//! Upkeep of prekeys and of the store ("The protocol", §1.1, §9 and appendix "Directory").

use sprag_store::{Rows, Staged, StoreError};

use crate::codec::{Reader, Writer};
use crate::error::StepError;
use crate::own::{Device, Env};
use crate::tables;
use crate::task::{Kind, StoredTask};

/// New prekeys of all kinds take the place of all at the server at most this often, whoever causes it: once a day.
pub const REPLACE_MS: u64 = 24 * 3_600 * 1_000;

const VERSION: u8 = 1;

/// What upkeep remembers from call to call.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Upkeep {
    /// When all prekeys were last replaced for a cause that others may repeat, in milliseconds; 0: never.
    pub(crate) replaced: u64,
}

impl Upkeep {
    pub(crate) fn load(rows: &dyn Rows) -> Result<Self, StoreError> {
        let Some(bytes) = rows.get(&tables::own(tables::OWN_UPKEEP))? else {
            return Ok(Self::default());
        };
        let mut reader = Reader::new(&bytes, VERSION, "upkeep row")?;
        let replaced = reader.u64()?;
        reader.finish()?;
        Ok(Self { replaced })
    }

    pub(crate) fn save(&self, rows: &mut Staged<'_>) {
        let mut writer = Writer::new(VERSION, 8);
        writer.u64(self.replaced);
        rows.put(tables::own(tables::OWN_UPKEEP), writer.finish());
    }
}

/// The next upkeep renews the store: something was erased that must not stay readable on the disk.
///
/// # Errors
/// What the store answers.
pub fn want_renewal(rows: &mut Staged<'_>) -> Result<(), StoreError> {
    let wanted = renewal_wanted(rows)? + 1;
    let mut writer = Writer::new(VERSION, 8);
    writer.u64(wanted);
    rows.put(tables::own(tables::OWN_RENEWAL), writer.finish());
    Ok(())
}

/// How often a renewal was wanted since the last one; 0: none is.
pub(crate) fn renewal_wanted(rows: &dyn Rows) -> Result<u64, StoreError> {
    let Some(bytes) = rows.get(&tables::own(tables::OWN_RENEWAL))? else {
        return Ok(0);
    };
    let mut reader = Reader::new(&bytes, VERSION, "renewal row")?;
    let wanted = reader.u64()?;
    reader.finish()?;
    Ok(wanted)
}

impl Device {
    /// New prekeys of all kinds, under new ids, in place of *all* at the server: an upload with `replace` is queued. The
    /// private halves of the old ones stay until their time is over.
    ///
    /// For what happens at most once, as a store that was set back. See [`replace_pre_keys_daily`](Self::replace_pre_keys_daily).
    ///
    /// # Errors
    /// What the store answers; nothing is changed then.
    pub fn replace_pre_keys(
        &self,
        rows: &mut Staged<'_>,
        env: &mut Env<'_>,
    ) -> Result<(), StepError> {
        let plan = self.new_pre_keys(rows, env)?;
        StoredTask::now(Kind::PublishPreKeys(plan)).queue(rows)?;
        Ok(())
    }

    /// As [`replace_pre_keys`](Self::replace_pre_keys), for what others may cause again and again: a second time within a
    /// day the upload waits until the day is over, and while such an upload waits nothing is added.
    ///
    /// # Errors
    /// What the store answers; nothing is changed then.
    pub fn replace_pre_keys_daily(
        &self,
        rows: &mut Staged<'_>,
        env: &mut Env<'_>,
    ) -> Result<(), StepError> {
        let waits = self.uploads(rows)?;
        if waits.iter().any(|plan| plan.replace) {
            return Ok(());
        }
        let mut upkeep = Upkeep::load(rows)?;
        // A clock that was set back does not hold it up.
        let recently = upkeep.replaced != 0 && upkeep.replaced <= env.now;
        let not_before = if recently {
            upkeep.replaced.saturating_add(REPLACE_MS)
        } else {
            0
        };
        upkeep.replaced = env.now.max(not_before);
        upkeep.save(rows);
        let plan = self.new_pre_keys(rows, env)?;
        StoredTask {
            kind: Kind::PublishPreKeys(plan),
            not_before,
            parked: false,
        }
        .queue(rows)?;
        Ok(())
    }
}
