//! Upkeep of prekeys and of the store ("The protocol", §1.1, §9 and appendix "Directory").

use sprag_store::{Rows, Staged, StoreError};

use crate::codec::{Reader, Writer};
use crate::error::StepError;
use crate::event::{self, Event};
use crate::own::{Device, Env};
use crate::prekeys::{self, SEEN, UploadPlan};
use crate::retention::{Ended, Sweep};
use crate::tables;
use crate::task::{Kind, StoredTask};
use crate::trusted_time::{ClockInDoubt, Look, TrustedTime};

/// New prekeys of all kinds take the place of all at the server at most this often, whoever causes it: once a day.
pub const REPLACE_MS: u64 = 24 * 3_600 * 1_000;
/// Signed and last-resort prekey are published anew this often: every 7 days. What a thief of their private halves can
/// read of first messages without one-time prekeys ends with them; 90 days of retention make it 13 generations.
pub const ROTATE_MS: u64 = 7 * 24 * 3_600 * 1_000;
/// A seen-set of so many SIDs, three quarters, rotates its signed prekey.
pub const SEEN_ROTATES: u32 = SEEN / 4 * 3;
/// The server is asked what it holds of our prekeys if nobody has told for so long: one day.
pub const ASK_STATE_MS: u64 = 24 * 3_600 * 1_000;
/// A store is renewed after so many commits: what was overwritten stays readable for no longer.
pub const RENEW_COMMITS: u64 = 1_000;
/// A store is renewed after so long: 7 days.
pub const RENEW_MS: u64 = 7 * 24 * 3_600 * 1_000;
/// Messages that one step forgets for their age.
const EXPIRE: usize = 256;

const VERSION: u8 = 1;

/// How often upkeep does what. The default is what the constants say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct UpkeepSettings {
    /// Age of the signed prekey, in milliseconds, at which it is rotated: [`ROTATE_MS`].
    pub rotate_ms: u64,
    /// Commits after which the store is renewed: [`RENEW_COMMITS`].
    pub renew_commits: u64,
    /// Milliseconds after which the store is renewed: [`RENEW_MS`].
    pub renew_ms: u64,
}

impl Default for UpkeepSettings {
    fn default() -> Self {
        Self {
            rotate_ms: ROTATE_MS,
            renew_commits: RENEW_COMMITS,
            renew_ms: RENEW_MS,
        }
    }
}

/// What one step of upkeep did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Upkept {
    /// New signed and last-resort prekeys wait to be published.
    pub rotated: bool,
    /// The server is to be asked what it holds of our prekeys.
    pub asked: bool,
    /// Private halves deleted.
    pub deleted: u32,
    /// Sent messages forgotten for their age.
    pub expired: u32,
    /// The clock jumped: nothing is deleted until it is confirmed or right again.
    pub doubt: Option<ClockInDoubt>,
    /// Another step is needed ([`Device::maintain_more`]).
    pub more: bool,
    /// A renewal of the store is due: what to tell [`Device::renewed`] afterwards.
    pub renewal: Option<u64>,
}

/// What upkeep remembers from call to call.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Upkeep {
    /// When all prekeys were last replaced for a cause that others may repeat, in milliseconds; 0: never.
    pub(crate) replaced: u64,
    /// When the server last told what it holds of our prekeys, or was asked; 0: never.
    asked: u64,
    /// When the store was renewed, by the clock of the client; 0: not known.
    renewed: u64,
    /// The number of the last upload that the server took.
    pub(crate) taken: u64,
    pub(crate) time: TrustedTime,
    pub(crate) sweep: Sweep,
    /// Oldest first.
    pub(crate) ended: Vec<Ended>,
}

impl Upkeep {
    pub(crate) fn load(rows: &dyn Rows) -> Result<Self, StoreError> {
        let Some(bytes) = rows.get(&tables::own(tables::OWN_UPKEEP))? else {
            return Ok(Self::default());
        };
        let mut reader = Reader::new(&bytes, VERSION, "upkeep row")?;
        let mut upkeep = Self {
            replaced: reader.u64()?,
            asked: reader.u64()?,
            renewed: reader.u64()?,
            taken: reader.u64()?,
            time: TrustedTime::read(&mut reader)?,
            sweep: match (reader.u32()?, reader.u32()?) {
                (_, 0) => None,
                range => Some(range),
            },
            ended: Vec::new(),
        };
        for _ in 0..reader.u32()? {
            upkeep.ended.push(Ended::read(&mut reader)?);
        }
        reader.finish()?;
        Ok(upkeep)
    }

    pub(crate) fn save(&self, rows: &mut Staged<'_>) {
        let mut writer = Writer::new(VERSION, 100 + 24 * self.ended.len());
        writer
            .u64(self.replaced)
            .u64(self.asked)
            .u64(self.renewed)
            .u64(self.taken);
        self.time.write(&mut writer);
        let (first, end) = self.sweep.unwrap_or_default();
        writer.u32(first).u32(end);
        writer.u32(u32::try_from(self.ended.len()).unwrap_or(u32::MAX));
        for ended in &self.ended {
            ended.write(&mut writer);
        }
        rows.put(tables::own(tables::OWN_UPKEEP), writer.finish());
    }

    /// As [`load`](Self::load), with a time that has begun: a profile that was never looked after knows when it was made.
    fn load_begun(rows: &dyn Rows) -> Result<Self, StepError> {
        let mut upkeep = Self::load(rows)?;
        if let Some(signed) = prekeys::newest_signed_stored(rows)? {
            upkeep.time.begin(signed.published);
        }
        Ok(upkeep)
    }

    /// Looks at the clock, and tells of a jump once.
    fn look(&mut self, rows: &mut Staged<'_>, now: u64) -> Result<Option<ClockInDoubt>, StepError> {
        Ok(match self.time.look(now) {
            Look::Believed => None,
            Look::Doubted(doubt) => Some(doubt),
            Look::Jumped(doubt) => {
                let ClockInDoubt { last, now } = doubt;
                event::record(rows, &Event::ClockJumped { last, now })?;
                Some(doubt)
            }
        })
    }

    /// The server told what it holds of our prekeys.
    pub(crate) fn told(rows: &mut Staged<'_>, now: u64) -> Result<(), StoreError> {
        let mut upkeep = Self::load(rows)?;
        upkeep.asked = now;
        upkeep.save(rows);
        Ok(())
    }
}

/// Whether `period` is over since `since`. A clock that went back a day or more says nothing about ages: then it is.
fn is_due(since: u64, now: u64, period: u64) -> bool {
    if now >= since {
        now - since >= period
    } else {
        since - now >= crate::trusted_time::CLOCK_BACK_MS
    }
}

/// The next upkeep renews the store: something was erased that must not stay readable on the disk.
///
/// # Errors
/// What the store answers.
pub fn want_renewal(rows: &mut Staged<'_>) -> Result<(), StoreError> {
    let wanted = renewal_wanted(rows)?.saturating_add(1);
    let mut writer = Writer::new(VERSION, 8);
    writer.u64(wanted);
    rows.put(tables::own(tables::OWN_RENEWAL), writer.finish());
    Ok(())
}

/// How often a renewal was wanted since the last one; 0: none is. What [`Device::renewed`] is told afterwards.
///
/// # Errors
/// What the store answers.
pub fn renewal_wanted(rows: &dyn Rows) -> Result<u64, StoreError> {
    let Some(bytes) = rows.get(&tables::own(tables::OWN_RENEWAL))? else {
        return Ok(0);
    };
    let mut reader = Reader::new(&bytes, VERSION, "renewal row")?;
    let wanted = reader.u64()?;
    reader.finish()?;
    Ok(wanted)
}

impl Device {
    /// Upkeep, to be called daily. Each call does what is due, and no more:
    ///
    /// * the signed and the last-resort prekey are rotated, also when the seen-set of the signed one is three quarters full;
    /// * the server is asked what it holds of our prekeys, by a task; its answer tops up the stock;
    /// * the oldest generation of private halves is deleted, 90 days after the server stopped handing it out, once two
    ///   newer ones were published;
    /// * messages that were sent more than seven days ago are forgotten;
    /// * what was to be asked for of other devices is asked for.
    ///
    /// A clock that jumped by more than 30 days forward or a day back is told of as an event, and deletes nothing, until it
    /// is right again, [confirmed](Self::confirm_time), or has run steadily for 30 days.
    ///
    /// # Errors
    /// `Exhausted` if there is no new id for a prekey; what the store answers. Nothing is changed then.
    pub fn maintain(
        &mut self,
        rows: &mut Staged<'_>,
        env: &mut Env<'_>,
        settings: &UpkeepSettings,
    ) -> Result<Upkept, StepError> {
        let mut upkeep = Upkeep::load_begun(rows)?;
        let doubt = upkeep.look(rows, env.now)?;
        let mut upkept = Upkept {
            doubt,
            ..Upkept::default()
        };
        if doubt.is_none() {
            upkeep.stamp();
            upkept.deleted = upkeep.delete_oldest(rows)?;
            upkeep.sweep(rows)?;
        }
        if upkeep.renewed == 0 {
            upkeep.renewed = env.now;
        }
        self.attachments_sweep(rows)?;
        let renew = is_due(upkeep.renewed, env.now, settings.renew_ms);
        upkeep.save(rows);
        if doubt.is_none() {
            (upkept.expired, upkept.more) = self.expire_outbox(rows, env.now, EXPIRE)?;
        }
        upkept.more |= upkeep.sweep.is_some();
        upkept.rotated = self.rotate_if_due(rows, env, settings.rotate_ms)?;
        upkept.asked = self.ask_state_if_due(rows, env)?;
        self.send_requests(rows, env)?;
        if !self.is_waiting(rows)? && self.check_own_listed(rows).is_ok() {
            self.maintain_memories(rows, env)?;
        }
        let wanted = renewal_wanted(rows)?;
        upkept.renewal = (renew || wanted > 0).then_some(wanted);
        Ok(upkept)
    }

    /// Goes on with what a step of [`maintain`](Self::maintain) left: says what more it did.
    ///
    /// # Errors
    /// What the store answers; nothing is changed then.
    pub fn maintain_more(&self, rows: &mut Staged<'_>, now: u64) -> Result<Upkept, StepError> {
        let mut upkeep = Upkeep::load(rows)?;
        let mut upkept = Upkept::default();
        if !upkeep.time.is_believable(now) {
            return Ok(upkept);
        }
        upkeep.sweep(rows)?;
        upkeep.save(rows);
        (upkept.expired, upkept.more) = self.expire_outbox(rows, now, EXPIRE)?;
        upkept.more |= upkeep.sweep.is_some();
        Ok(upkept)
    }

    /// The store was renewed: `renewal` is what [`Upkept::renewal`] said before, or 0. What was wanted meanwhile is still
    /// wanted.
    ///
    /// # Errors
    /// What the store answers; nothing is changed then.
    pub fn renewed(&self, rows: &mut Staged<'_>, now: u64, renewal: u64) -> Result<(), StepError> {
        let mut upkeep = Upkeep::load(rows)?;
        upkeep.renewed = now;
        upkeep.save(rows);
        if renewal_wanted(rows)? == renewal {
            rows.delete(tables::own(tables::OWN_RENEWAL));
            self.memories_renewed(rows)?;
        }
        Ok(())
    }

    /// The clock is right, although it jumped: somebody has looked. Of the time that it skipped 30 days count as passed.
    ///
    /// # Errors
    /// What the store answers; nothing is changed then.
    pub fn confirm_time(&self, rows: &mut Staged<'_>, now: u64) -> Result<(), StepError> {
        let mut upkeep = Upkeep::load_begun(rows)?;
        upkeep.time.confirm(now);
        upkeep.save(rows);
        Ok(())
    }

    /// Forgets what was sent more than seven days ago; a part of [`maintain`](Self::maintain). With a clock in doubt it
    /// forgets nothing.
    ///
    /// # Errors
    /// What the store answers; nothing is changed then.
    pub fn expire(&self, rows: &mut Staged<'_>, now: u64) -> Result<(), StepError> {
        let mut upkeep = Upkeep::load_begun(rows)?;
        let doubt = upkeep.look(rows, now)?;
        upkeep.save(rows);
        if doubt.is_none() {
            self.expire_outbox(rows, now, usize::MAX)?;
        }
        Ok(())
    }

    fn rotate_if_due(
        &self,
        rows: &mut Staged<'_>,
        env: &mut Env<'_>,
        period: u64,
    ) -> Result<bool, StepError> {
        let Some(newest) = prekeys::newest_signed_stored(rows)? else {
            return Ok(false);
        };
        let due = is_due(newest.published, env.now, period) || newest.seen >= SEEN_ROTATES;
        let uploads = self.uploads(rows)?;
        let under_way =
            |(_, task, plan): &(_, StoredTask, UploadPlan)| !task.parked && !plan.is_query();
        if !due || uploads.iter().any(under_way) {
            // Of what the server has not taken yet no more is made.
            return Ok(false);
        }
        // What it refused is superseded.
        let mut replace = false;
        for (id, task, plan) in uploads {
            replace |= plan.replace;
            task.delete(rows, id);
        }
        let plan = if replace {
            self.new_pre_keys(rows, env)?
        } else {
            self.new_lasting(rows, env)?;
            self.new_one_time(rows, env, (0, 0), false)?
        };
        StoredTask::now(Kind::PublishPreKeys(plan)).queue(rows)?;
        Ok(true)
    }

    /// Queues a question to the server what it holds of our prekeys: an upload of a number that it took long ago, which
    /// changes nothing there.
    fn ask_state_if_due(&self, rows: &mut Staged<'_>, env: &Env<'_>) -> Result<bool, StepError> {
        let mut upkeep = Upkeep::load(rows)?;
        if !is_due(upkeep.asked, env.now, ASK_STATE_MS)
            || !self.uploads(rows)?.is_empty()
            || prekeys::newest_signed_stored(rows)?.is_none()
        {
            return Ok(false);
        }
        upkeep.asked = env.now;
        upkeep.save(rows);
        let plan = UploadPlan::query(rows)?;
        StoredTask::now(Kind::PublishPreKeys(plan)).queue(rows)?;
        Ok(true)
    }

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
        let waits = |(_, task, plan): &(_, StoredTask, UploadPlan)| plan.replace && !task.parked;
        if self.uploads(rows)?.iter().any(waits) {
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
