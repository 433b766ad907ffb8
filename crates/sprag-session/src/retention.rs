//! How long private halves are kept after the server stopped handing out their prekeys ("The protocol", §1.1).

use std::ops::ControlFlow;

use sprag_store::{Rows, Staged, StoreError};
use sprag_wire::{KemKind, KemPreKeyId};

use crate::codec::{Reader, Writer};
use crate::error::StepError;
use crate::own::Device;
use crate::prekeys::{self, UploadPlan};
use crate::tables;
use crate::upkeep::Upkeep;

/// Private halves of signed and last-resort prekeys are kept so long after they were last published, and those of
/// one-time prekeys after they were replaced at the server: 90 days, the longest promised offline time.
pub const RETENTION_MS: u64 = 90 * 24 * 3_600 * 1_000;
/// Generations that wait for their time. With a rotation a week there are 13. When it is full the two newest are one,
/// and wait as long as the newer one.
const ENDED: usize = 128;
/// Rows of a seen-set that are deleted at once.
const SWEEP: usize = 4_096;

/// Prekeys that the server stopped handing out at one time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ended {
    /// The ids below it, of signed prekeys, of last-resort ones, of one-time ones and of one-time KEM prekeys; 0: none.
    pub(crate) signed: u32,
    pub(crate) last_resort: u32,
    pub(crate) one_time: u32,
    pub(crate) kem: u32,
    /// The time that had passed when upkeep first saw it; `None`: it has not looked since.
    pub(crate) since: Option<u64>,
}

/// Seen-sets of signed prekeys that are deleted already: ids from the first to below the second.
pub(crate) type Sweep = Option<(u32, u32)>;

impl Ended {
    /// What ended when the server took an upload.
    fn by(plan: &UploadPlan) -> Self {
        Self {
            signed: plan.signed,
            last_resort: plan.last_resort,
            one_time: if plan.replace { plan.one_time.0 } else { 0 },
            kem: if plan.replace { plan.kem.0 } else { 0 },
            since: None,
        }
    }

    /// Whether nothing was there to end: the first upload of a device.
    fn is_first(&self) -> bool {
        self.signed <= 1 && self.last_resort <= 1 && self.one_time <= 1 && self.kem <= 2
    }

    pub(crate) fn write(&self, writer: &mut Writer) {
        writer
            .u32(self.signed)
            .u32(self.last_resort)
            .u32(self.one_time)
            .u32(self.kem)
            .u64(self.since.unwrap_or(u64::MAX));
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, StoreError> {
        Ok(Self {
            signed: reader.u32()?,
            last_resort: reader.u32()?,
            one_time: reader.u32()?,
            kem: reader.u32()?,
            since: Some(reader.u64()?).filter(|since| *since != u64::MAX),
        })
    }
}

/// Adds what ended; both ascend.
fn add(ended: &mut Vec<Ended>, new: Ended) {
    let last = ended.last().copied();
    let full = ended.len() >= ENDED;
    match ended.last_mut() {
        Some(newest) if full => {
            newest.signed = newest.signed.max(new.signed);
            newest.last_resort = newest.last_resort.max(new.last_resort);
            newest.one_time = newest.one_time.max(new.one_time);
            newest.kem = newest.kem.max(new.kem);
            newest.since = None;
        }
        _ if last.is_none() && new.is_first() => {}
        _ => ended.push(new),
    }
}

impl Device {
    /// The server took an upload: what it handed out before has ended, and uploads from before are not needed any more.
    pub(crate) fn upload_taken(
        &self,
        rows: &mut Staged<'_>,
        plan: &UploadPlan,
    ) -> Result<(), StepError> {
        let mut upkeep = Upkeep::load(rows)?;
        if plan.is_query() || plan.number <= upkeep.taken {
            return Ok(());
        }
        upkeep.taken = plan.number;
        let newest = upkeep.ended.last().map_or(0, |ended| ended.signed);
        if plan.replace || plan.signed > newest {
            add(&mut upkeep.ended, Ended::by(plan));
        }
        upkeep.save(rows);
        for (id, task, other) in self.uploads(rows)? {
            if other.number < plan.number {
                task.delete(rows, id);
            }
        }
        Ok(())
    }
}

impl Upkeep {
    /// What ended since the last look gets its time, if the clock is believed.
    pub(crate) fn stamp(&mut self) {
        let passed = self.time.passed();
        for ended in &mut self.ended {
            ended.since.get_or_insert(passed);
        }
    }

    /// Deletes the oldest generation of private halves, if its time is over and two newer ones were published since. Says how many
    /// keys that were.
    pub(crate) fn delete_oldest(&mut self, rows: &mut Staged<'_>) -> Result<u32, StepError> {
        let Some(oldest) = self.ended.first().copied() else {
            return Ok(0);
        };
        let over = |since: u64| self.time.passed().saturating_sub(since) >= RETENTION_MS;
        let newer = |ended: &Ended| ended.signed > oldest.signed && ended.since.is_some();
        if self.sweep.is_some() || !oldest.since.is_some_and(over) || !self.ended.iter().any(newer)
        {
            return Ok(0);
        }
        let mut deleted = 0;
        let mut delete = |rows: &mut Staged<'_>, table, id| {
            rows.delete(tables::prekey(table, id));
            deleted += 1;
        };
        for id in below(rows, tables::SIGNED, oldest.signed)? {
            delete(rows, tables::SIGNED, id);
            // Its handshakes are unknown from here on; what was seen of them is swept, part by part.
            let (first, _) = self.sweep.unwrap_or((id, 0));
            self.sweep = Some((first, id.saturating_add(1)));
        }
        for id in below(rows, tables::ONE_TIME, oldest.one_time)? {
            delete(rows, tables::ONE_TIME, id);
        }
        for id in below(rows, tables::KEM, oldest.kem.max(oldest.last_resort))? {
            let Ok(name) = KemPreKeyId::new(id) else {
                continue;
            };
            let kind = prekeys::load_kem(rows, name)?.map(|stored| stored.pair.kind());
            let bound = match kind {
                Some(KemKind::LastResort) => oldest.last_resort,
                _ => oldest.kem,
            };
            if id < bound {
                delete(rows, tables::KEM, id);
            }
        }
        self.ended.remove(0);
        Ok(deleted)
    }

    /// Deletes a part of the seen-sets whose signed prekeys are gone.
    pub(crate) fn sweep(&mut self, rows: &mut Staged<'_>) -> Result<(), StoreError> {
        let Some((first, end)) = self.sweep else {
            return Ok(());
        };
        let mut left = SWEEP;
        for id in first..end {
            let prefix = tables::seen(id, None);
            let mut found = Vec::new();
            rows.scan(&prefix, &mut |sid, _| {
                if found.len() >= left {
                    return ControlFlow::Break(());
                }
                found.push(sid.to_vec());
                ControlFlow::Continue(())
            })?;
            left -= found.len();
            for sid in found {
                rows.delete(tables::seen_row(id, &sid));
            }
            if left == 0 {
                self.sweep = Some((id, end));
                return Ok(());
            }
        }
        self.sweep = None;
        Ok(())
    }
}

fn below(rows: &dyn Rows, table: u8, id: u32) -> Result<Vec<u32>, StoreError> {
    let mut ids = prekeys::ids(rows, table)?;
    ids.retain(|found| *found < id);
    Ok(ids)
}
