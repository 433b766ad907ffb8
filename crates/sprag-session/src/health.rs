//! How a device fares: what it counted, and how full everything is.

use sprag_store::{Rows, Staged, StoreError};
use sprag_wire::KemKind;

use crate::codec::{Reader, Writer};
use crate::error::{ProtocolError, StepError};
use crate::event::{self, ERRORS};
use crate::memory::MemoryHealth;
use crate::own::{Counters, Device};
use crate::record::{Ledger, Record};
use crate::task::{Kind, StoredTask, TaskId};
use crate::{again, chunks, heal, peers, prekeys, tables, trust};

const VERSION: u8 = 1;
/// So many opened and refused frames may be counted in memory alone.
const UNSAVED: u64 = 256;
/// And for so long. One hour.
const UNSAVED_MS: u64 = 3_600_000;

/// What is counted while frames come and go. Counting alone writes nothing: the row goes with another commit, at the
/// latest after 256 frames or an hour, and when the client is closed. A crash forgets what was not written.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Tally {
    pub(crate) opened: u64,
    refused: [u64; ERRORS.len()],
    pub(crate) heals: u64,
    pub(crate) fresh_sessions: u64,
    pub(crate) requests_sent: u64,
    pub(crate) requests_answered: u64,
    pub(crate) sent_again: u64,
    pub(crate) offered_again: u64,
    pub(crate) given_up: u64,
    /// Since it was told last.
    pub(crate) mismatches_of_strangers: u32,
    pub(crate) told_mismatches_at: u64,
    saved_at: u64,
    saved_frames: u64,
}

impl Tally {
    pub(crate) fn load(rows: &dyn Rows) -> Result<Self, StoreError> {
        let Some(bytes) = rows.get(&tables::own(tables::OWN_TALLY))? else {
            return Ok(Self::default());
        };
        let mut reader = Reader::new(&bytes, VERSION, "counted")?;
        let mut tally = Self {
            opened: reader.u64()?,
            heals: reader.u64()?,
            fresh_sessions: reader.u64()?,
            requests_sent: reader.u64()?,
            requests_answered: reader.u64()?,
            sent_again: reader.u64()?,
            offered_again: reader.u64()?,
            given_up: reader.u64()?,
            mismatches_of_strangers: reader.u32()?,
            told_mismatches_at: reader.u64()?,
            ..Self::default()
        };
        for number in 0..reader.u8()? {
            let count = reader.u64()?;
            if let Some(place) = tally.refused.get_mut(usize::from(number)) {
                *place = count;
            }
        }
        reader.finish()?;
        tally.saved_frames = tally.frames();
        Ok(tally)
    }

    pub(crate) fn save(&self, rows: &mut Staged<'_>) {
        let mut writer = Writer::new(VERSION, 8 * 8 + 12 + 1 + 8 * self.refused.len());
        writer
            .u64(self.opened)
            .u64(self.heals)
            .u64(self.fresh_sessions)
            .u64(self.requests_sent)
            .u64(self.requests_answered)
            .u64(self.sent_again)
            .u64(self.offered_again)
            .u64(self.given_up)
            .u32(self.mismatches_of_strangers)
            .u64(self.told_mismatches_at)
            .u8(u8::try_from(self.refused.len()).unwrap_or(u8::MAX));
        for count in &self.refused {
            writer.u64(*count);
        }
        rows.put(tables::own(tables::OWN_TALLY), writer.finish());
    }

    pub(crate) fn refuse(&mut self, error: ProtocolError) {
        let place = self
            .refused
            .get_mut(usize::from(event::error_number(error)));
        if let Some(count) = place {
            *count = count.saturating_add(1);
        }
    }

    fn frames(&self) -> u64 {
        self.refused
            .iter()
            .fold(self.opened, |sum, count| sum.saturating_add(*count))
    }
}

/// How a device fares. Counts begin with the profile; a crash may forget the last 256 frames or the last hour of them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Health {
    /// Frames that were opened.
    pub opened: u64,
    /// Frames that were refused, by error, also where nobody was told.
    pub refused: Vec<(ProtocolError, u64)>,
    /// Sessions that turned out to be lost, and were healed from this side.
    pub heals: u64,
    /// Sessions that were opened to heal.
    pub fresh_sessions: u64,
    /// Requests for messages that could not be read, sent.
    pub requests_sent: u64,
    /// Such requests of others, answered.
    pub requests_answered: u64,
    /// Messages that were sent again because a device asked.
    pub sent_again: u64,
    /// Frames that waited for a list or a decision, and were opened later.
    pub offered_again: u64,
    /// Frames that waited in vain.
    pub given_up: u64,
    /// Frames that wait for a list or a decision now, of 64.
    pub kept_frames: usize,
    /// Their bytes, of 8 MiB.
    pub kept_bytes: usize,
    /// Salts of frames that were not kept, of 1,024.
    pub kept_salts: usize,
    /// Salts that will be asked for when the minute of their device is over.
    pub gathered_salts: usize,
    /// Fetches of lists under way, those included that wait for their hour.
    pub list_fetches: usize,
    /// Fetches of prekey bundles under way.
    pub bundle_fetches: usize,
    /// Everything that the network is to do, these fetches included.
    pub tasks: usize,
    /// Tasks that a server refused, or that wait for the user's decision.
    pub parked_tasks: usize,
    /// Users who are accepted, oneself included.
    pub accepted_users: usize,
    /// Devices of users who are not accepted, of 1,000.
    pub strangers: usize,
    /// Users whose changed identity waits for a decision.
    pub undecided: usize,
    /// Messages that wait to be acknowledged, of 10,000.
    pub inbox: u32,
    /// Of these, from users who were not accepted, of 1,000.
    pub inbox_of_strangers: u32,
    /// Messages that wait to be handed over, of 10,000.
    pub outbox: u32,
    /// Signed prekeys held, old ones included.
    pub signed_pre_keys: usize,
    /// Last-resort KEM prekeys held, old ones included.
    pub last_resort_pre_keys: usize,
    /// One-time prekeys held.
    pub one_time_pre_keys: usize,
    /// One-time KEM prekeys held.
    pub kem_pre_keys: usize,
    /// Devices with a record.
    pub records: usize,
    /// Sessions that are sent on.
    pub current_sessions: usize,
    /// Older sessions that may become current again.
    pub archived_sessions: usize,
    /// Sessions that are only read.
    pub retired_sessions: usize,
    /// Of the current ones, those that no reply has confirmed yet.
    pub pending_sessions: usize,
    /// Ids of sessions that the ledgers remember as closed.
    pub closed_ids: usize,
    /// Ids of sessions that the ledgers remember as lost.
    pub lost_ids: usize,
    /// Resets that ride until they are confirmed.
    pub resets: usize,
    /// Epoch of our own newest device list.
    pub own_epoch: u64,
    /// When a list of any user was last asked for because of a frame, in milliseconds since 1970; 0: never.
    pub list_asked_at: u64,
    /// Whether requests of others are answered only with what they asked for.
    pub quiet: bool,
    /// How memories stand: what is not at the server yet, what is erased and not yet everywhere, who could still read it.
    pub memories: MemoryHealth,
}

impl Device {
    /// How this device fares: what it counted, and how full everything is. Looks at every record, so its time grows with
    /// the number of contacts.
    ///
    /// # Errors
    /// What the store answers.
    pub fn health(&self, rows: &dyn Rows) -> Result<Health, StepError> {
        let tally = &self.tally;
        let counters = Counters::load(rows)?;
        let (kept_frames, kept_bytes, kept_salts) = again::amounts(rows)?;
        let counted = ERRORS.iter().zip(tally.refused);
        let mut health = Health {
            opened: tally.opened,
            refused: counted
                .filter(|(_, count)| *count > 0)
                .map(|(error, count)| (*error, count))
                .collect(),
            heals: tally.heals,
            fresh_sessions: tally.fresh_sessions,
            requests_sent: tally.requests_sent,
            requests_answered: tally.requests_answered,
            sent_again: tally.sent_again,
            offered_again: tally.offered_again,
            given_up: tally.given_up,
            kept_frames,
            kept_bytes,
            kept_salts,
            gathered_salts: heal::gathered(rows)?,
            strangers: chunks::values(rows, tables::STRANGERS)?.len(),
            inbox: counters.inbox,
            inbox_of_strangers: counters.inbox_of_strangers,
            outbox: counters.outbox,
            signed_pre_keys: prekeys::ids(rows, tables::SIGNED)?.len(),
            one_time_pre_keys: prekeys::ids(rows, tables::ONE_TIME)?.len(),
            quiet: self.is_quiet(rows)?,
            memories: self.memory_health(rows)?,
            ..Health::default()
        };
        for id in prekeys::ids(rows, tables::KEM)? {
            match prekeys::kem_kind(rows, id)? {
                Some(KemKind::LastResort) => health.last_resort_pre_keys += 1,
                Some(_) => health.kem_pre_keys += 1,
                None => {}
            }
        }
        self.count_tasks(rows, &mut health)?;
        for name in trust::names(rows)? {
            self.count_user(rows, &name, &mut health)?;
        }
        Ok(health)
    }

    fn count_tasks(&self, rows: &dyn Rows, health: &mut Health) -> Result<(), StepError> {
        for (id, _) in chunks::sequences(rows, tables::TASKS, <[u8]>::is_empty)? {
            let Some(task) = StoredTask::load(rows, TaskId::new(id))? else {
                continue;
            };
            health.tasks += 1;
            health.parked_tasks += usize::from(task.parked);
            match task.kind {
                Kind::FetchDevices { .. } => health.list_fetches += 1,
                Kind::FetchBundles { .. } => health.bundle_fetches += 1,
                _ => {}
            }
        }
        Ok(())
    }

    fn count_user(
        &self,
        rows: &dyn Rows,
        name: &sprag_wire::UserId,
        health: &mut Health,
    ) -> Result<(), StepError> {
        if let Some(user) = trust::load_row(rows, name)? {
            health.accepted_users += usize::from(user.accepted);
            if name == self.address.user() {
                health.own_epoch = user.newest.epoch();
            }
        }
        health.undecided += usize::from(rows.get(&tables::candidate(name))?.is_some());
        if let Some(at) = rows.get(&tables::list_fetched(name))?
            && let Ok(at) = at.as_slice().try_into()
        {
            health.list_asked_at = health.list_asked_at.max(u64::from_be_bytes(at));
        }
        for address in peers::devices_with_record(rows, name)? {
            let Some(record) = Record::load(rows, &address)? else {
                continue;
            };
            health.records += 1;
            health.resets += usize::from(!record.reset.is_empty());
            for (place, session) in record.sessions().enumerate() {
                let is_current = place == 0 && record.current.is_some();
                match (session.retired, is_current) {
                    (true, _) => health.retired_sessions += 1,
                    (false, false) => health.archived_sessions += 1,
                    (false, true) => {
                        health.current_sessions += 1;
                        health.pending_sessions += usize::from(session.pending_since.is_some());
                    }
                }
            }
            for (_, closed) in Ledger::load(rows, &record.owner)?.entries() {
                if *closed {
                    health.closed_ids += 1;
                } else {
                    health.lost_ids += 1;
                }
            }
        }
        Ok(())
    }

    /// Puts what was counted beside other changes, if enough has gathered. Alone it is never written.
    pub fn save_counts(&mut self, rows: &mut Staged<'_>, now: u64) {
        let tally = &self.tally;
        let clock_is_fine = tally.saved_at <= now;
        let late = !clock_is_fine || now - tally.saved_at >= UNSAVED_MS;
        let frames = tally.frames() - tally.saved_frames.min(tally.frames());
        if frames >= UNSAVED || (late && frames > 0) {
            self.write_counts(rows, now);
        }
    }

    /// Puts what was counted, whatever it is: before the client is closed.
    pub fn write_counts(&mut self, rows: &mut Staged<'_>, now: u64) {
        if Tally::load(&*rows).is_ok_and(|saved| saved.same_counts(&self.tally)) {
            return;
        }
        self.tally.saved_at = now;
        self.tally.saved_frames = self.tally.frames();
        self.tally.save(rows);
    }

    /// In quiet mode a request of a contact is answered only with what it asked for, and never by an acknowledgement: he
    /// does not learn whether this device is there. What a removal or a reset must say is said all the same.
    ///
    /// # Errors
    /// What the store answers.
    pub fn set_quiet(&self, rows: &mut Staged<'_>, quiet: bool) -> Result<(), StepError> {
        if self.is_quiet(rows)? != quiet {
            let mut writer = Writer::new(VERSION, 1);
            writer.bool(quiet);
            rows.put(tables::own(tables::OWN_SETTINGS), writer.finish());
        }
        Ok(())
    }

    /// Whether the device is in quiet mode.
    ///
    /// # Errors
    /// What the store answers.
    pub fn is_quiet(&self, rows: &dyn Rows) -> Result<bool, StepError> {
        let Some(bytes) = rows.get(&tables::own(tables::OWN_SETTINGS))? else {
            return Ok(false);
        };
        let mut reader = Reader::new(&bytes, VERSION, "settings")?;
        let quiet = reader.bool()?;
        reader.finish()?;
        Ok(quiet)
    }
}

impl Tally {
    fn same_counts(&self, other: &Self) -> bool {
        let (mut one, mut two) = (self.clone(), other.clone());
        for tally in [&mut one, &mut two] {
            tally.saved_at = 0;
            tally.saved_frames = 0;
        }
        one == two
    }
}
