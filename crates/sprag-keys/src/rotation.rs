//! Re-encrypting what is under old versions of a key.

mod parts;
mod record;
mod report;

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use rand_core::CryptoRng;

pub use self::parts::{Cause, Journal, Records, Rotate, Rotated, Sealer};
pub use self::record::reread_journal;
pub use self::report::{Failure, Progress, RecordError, Report, RotationError};
use crate::{BatchError, KeyId, KeySource, KeyVersion, SourceError, VersionedKey, batch};

/// Puts every record that is under an older version of a key under a newer one, in steps that may end at any point.
///
/// ```text
/// RingFile::rotate -> RotationJob::begin -> step, step, .. -> Finished -> RingFile::destroy(old versions)
/// ```
///
/// * A record is replaced in one step by the same text under the new version, after the new form was opened and compared.
///   So each is readable at every moment, by whoever has the ring.
/// * The job goes over the records again until one whole pass found nothing under an old version. Writers may go on
///   meanwhile; those who took the new version write nothing that the job has to touch.
/// * A record that cannot be read, or not be written, is left as it is, counted and named; the others are done. A pass with
///   such records ends as [`Progress::Blocked`], never as finished: *finished* says that nothing is left under an old version.
/// * Repeating what was done before a death changes nothing: such records are under the new version already.
#[derive(Debug)]
pub struct RotationJob<J> {
    journal: J,
    state: State,
    failures: Vec<Failure>,
    page: usize,
}

/// What the journal keeps.
#[derive(Debug, Clone, PartialEq, Eq)]
struct State {
    id: KeyId,
    target: KeyVersion,
    phase: Phase,
    /// Passes begun.
    pass: u32,
    /// The last name that this pass has dealt with.
    cursor: Option<Vec<u8>>,
    this_pass: Counts,
    /// Records put under the target, in all passes.
    resealed: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Running,
    Finished,
    Blocked,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Counts {
    seen: u64,
    resealed: u64,
    contended: u64,
    failed: u64,
}

impl<J: Journal> RotationJob<J> {
    /// The most failures that are kept by name; more are only counted.
    pub const MAX_FAILURES: usize = 1_000;

    /// Begins a job that puts all records of a key under `target`, or goes on with the one in the journal. A journal with
    /// an older target begins anew with this one.
    ///
    /// # Errors
    ///
    /// [`RotationError`]; nothing was changed.
    pub fn begin(mut journal: J, id: &KeyId, target: KeyVersion) -> Result<Self, RotationError> {
        let fresh = State::new(id.clone(), target);
        let kept = journal.load().map_err(RotationError::Journal)?;
        let kept = kept.as_deref().map(State::from_bytes).transpose()?;
        let state = match kept {
            Some(kept) if kept.id == *id && kept.target == target => kept,
            Some(kept) if kept.id == *id && kept.target > target => {
                return Err(RotationError::OlderVersion);
            }
            Some(kept) if kept.id != *id && kept.phase != Phase::Finished => {
                return Err(RotationError::OtherJob);
            }
            _ => {
                let saved = journal.save(&fresh.to_bytes());
                saved.map_err(RotationError::Journal)?;
                fresh
            }
        };
        Ok(Self {
            journal,
            state,
            failures: Vec::new(),
            page: PAGE,
        })
    }

    /// Goes on with whatever job is in the journal; `None` if there is none. Nothing is written.
    ///
    /// # Errors
    ///
    /// [`RotationError`].
    pub fn kept(mut journal: J) -> Result<Option<Self>, RotationError> {
        let kept = journal.load().map_err(RotationError::Journal)?;
        let state = kept.as_deref().map(State::from_bytes).transpose()?;
        Ok(state.map(|state| Self {
            journal,
            state,
            failures: Vec::new(),
            page: PAGE,
        }))
    }

    /// The key whose records are rotated.
    #[must_use]
    pub fn id(&self) -> &KeyId {
        &self.state.id
    }

    /// The version that they are put under.
    #[must_use]
    pub fn target(&self) -> KeyVersion {
        self.state.target
    }

    /// Sets how many records a step does, 64 unless set: 1 to 10,000. What a step has done is noted at its end.
    #[must_use]
    pub fn with_page(mut self, records: usize) -> Self {
        self.page = records.clamp(1, 10_000);
        self
    }

    /// Does the next records. `rng` makes a generator for each of them; each draws what the sealer draws.
    ///
    /// After [`Progress::Finished`] it does nothing more, until [`look_again`](Self::look_again). After [`Progress::Blocked`] it begins another pass.
    ///
    /// # Errors
    ///
    /// [`RotationError`]; the next call goes on where this one began.
    pub fn step<R: CryptoRng>(
        &mut self,
        records: &impl Records,
        keys: &impl KeySource,
        sealer: &impl Sealer,
        rng: impl Fn() -> R + Sync,
    ) -> Result<Progress, RotationError> {
        let turn = Turn {
            records,
            keys,
            sealer,
            had: Mutex::default(),
        };
        self.step_by(&turn, keys, rng)
    }

    /// [`step`](Self::step) over records that are not held in memory.
    ///
    /// # Errors
    ///
    /// [`RotationError`]; the next call goes on where this one began.
    pub fn step_by<R: CryptoRng>(
        &mut self,
        records: &impl Rotate,
        keys: &impl KeySource,
        rng: impl Fn() -> R + Sync,
    ) -> Result<Progress, RotationError> {
        if self.state.phase == Phase::Finished {
            return Ok(self.counted(records.count()));
        }
        let mut next = self.state.clone();
        if next.phase == Phase::Blocked {
            next.begin_pass();
        }
        if next.cursor.is_none() {
            self.failures.clear();
        }
        let target = keys.by_version(&next.id, next.target)?;
        let after = next.cursor.as_deref();
        let names = records
            .list(after, self.page)
            .map_err(RotationError::Records)?;
        if !ascending(after, &names) || names.len() > self.page {
            return Err(RotationError::Records(Arc::new(Unordered)));
        }
        let outcomes = batch(&names, |name| records.rotate(name, &target, &mut rng()));
        for (name, outcome) in names.iter().zip(outcomes) {
            let counts = &mut next.this_pass;
            counts.seen = counts.seen.saturating_add(1);
            let cause = match outcome {
                Ok(Rotated::Fine) => continue,
                Ok(Rotated::Resealed) => {
                    counts.resealed = counts.resealed.saturating_add(1);
                    next.resealed = next.resealed.saturating_add(1);
                    continue;
                }
                Ok(Rotated::Contended) => {
                    counts.contended = counts.contended.saturating_add(1);
                    continue;
                }
                Err(BatchError::Record(cause)) => cause,
                Err(BatchError::Panicked) => RecordError::Panicked,
            };
            counts.failed = counts.failed.saturating_add(1);
            if self.failures.len() < Self::MAX_FAILURES {
                let name = name.clone();
                self.failures.push(Failure { name, cause });
            }
        }
        match names.last() {
            Some(last) => next.cursor = Some(last.clone()),
            None => next.end_pass(),
        }
        let saved = self.journal.save(&next.to_bytes());
        saved.map_err(RotationError::Journal)?;
        self.state = next;
        Ok(self.counted(records.count()))
    }

    /// Makes steps until the job is finished or a pass ends blocked, and tells after each.
    ///
    /// # Errors
    ///
    /// [`RotationError`]; another call goes on.
    pub fn run<R: CryptoRng>(
        &mut self,
        records: &impl Records,
        keys: &impl KeySource,
        sealer: &impl Sealer,
        rng: impl Fn() -> R + Sync,
        mut tell: impl FnMut(Progress),
    ) -> Result<Progress, RotationError> {
        loop {
            let progress = self.step(records, keys, sealer, &rng)?;
            tell(progress);
            if !matches!(progress, Progress::Running(_)) {
                return Ok(progress);
            }
        }
    }

    /// Lets a finished or blocked job begin another pass, to see what was written meanwhile: before old versions are
    /// destroyed, say. A running job goes on as it is.
    ///
    /// # Errors
    ///
    /// [`RotationError::Journal`]; the job is as it was.
    pub fn look_again(&mut self) -> Result<(), RotationError> {
        if self.state.phase == Phase::Running {
            return Ok(());
        }
        let mut next = self.state.clone();
        next.begin_pass();
        let saved = self.journal.save(&next.to_bytes());
        saved.map_err(RotationError::Journal)?;
        self.state = next;
        Ok(())
    }

    /// How far the job is.
    #[must_use]
    pub fn progress(&self, records: &impl Records) -> Progress {
        self.counted(records.count())
    }

    /// The same, where so many records are known to be; as far as the journal says.
    #[must_use]
    pub fn counted(&self, total: Option<u64>) -> Progress {
        let report = Report {
            pass: self.state.pass,
            seen: self.state.this_pass.seen,
            total,
            resealed: self.state.resealed,
            failed: self.state.this_pass.failed,
        };
        match self.state.phase {
            Phase::Running => Progress::Running(report),
            Phase::Finished => Progress::Finished(report),
            Phase::Blocked => Progress::Blocked(report),
        }
    }

    /// The records that this pass could not do, as far as this value saw them.
    #[must_use]
    pub fn failures(&self) -> &[Failure] {
        &self.failures
    }
}

/// What is needed to do one record.
struct Turn<'a, R, K, S> {
    records: &'a R,
    keys: &'a K,
    sealer: &'a S,
    /// Old versions that this step has asked for: a source may be far away.
    had: Mutex<BTreeMap<KeyVersion, VersionedKey>>,
}

impl<R: Records, K: KeySource, S: Sealer> Rotate for Turn<'_, R, K, S> {
    fn list(&self, after: Option<&[u8]>, most: usize) -> Result<Vec<Vec<u8>>, Cause> {
        self.records.list(after, most)
    }

    fn count(&self) -> Option<u64> {
        self.records.count()
    }

    fn rotate(
        &self,
        name: &[u8],
        target: &VersionedKey,
        rng: &mut dyn CryptoRng,
    ) -> Result<Rotated, RecordError> {
        for _ in 0..TRIES {
            let sealed = self.records.get(name).map_err(RecordError::Records)?;
            let Some(old) = sealed else {
                return Ok(Rotated::Fine);
            };
            let Some(new) = self.reseal(name, &old, target, rng)? else {
                return Ok(Rotated::Fine);
            };
            let put = self.records.put_if_unchanged(name, &old, &new);
            if put.map_err(RecordError::Records)? {
                return Ok(Rotated::Resealed);
            }
        }
        Ok(Rotated::Contended)
    }
}

impl<R: Records, K: KeySource, S: Sealer> Turn<'_, R, K, S> {
    fn old_key(&self, id: &KeyId, version: KeyVersion) -> Result<VersionedKey, SourceError> {
        let mut had = self.had.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(key) = had.get(&version) {
            return Ok(key.clone());
        }
        let key = self.keys.by_version(id, version)?;
        had.insert(version, key.clone());
        Ok(key)
    }

    fn reseal(
        &self,
        name: &[u8],
        old: &[u8],
        target: &VersionedKey,
        rng: &mut dyn CryptoRng,
    ) -> Result<Option<Vec<u8>>, RecordError> {
        let key_of = |sealed: &[u8]| self.sealer.key_of(name, sealed);
        let (id, version) = key_of(old).map_err(RecordError::Sealer)?;
        if id != *target.id() || version >= target.version() {
            return Ok(None);
        }
        let key = self.old_key(target.id(), version)?;
        let text = self.sealer.open(&key, name, old);
        let text = text.map_err(RecordError::Sealer)?;
        let new = self.sealer.seal(target, name, &text, rng);
        let new = new.map_err(RecordError::Sealer)?;
        let named = key_of(&new)
            .is_ok_and(|(id, version)| (&id, version) == (target.id(), target.version()));
        let opened = self.sealer.open(target, name, &new);
        if named && opened.is_ok_and(|again| *again == *text) {
            Ok(Some(new))
        } else {
            Err(RecordError::Changed)
        }
    }
}

impl State {
    fn new(id: KeyId, target: KeyVersion) -> Self {
        Self {
            id,
            target,
            phase: Phase::Running,
            pass: 1,
            cursor: None,
            this_pass: Counts::default(),
            resealed: 0,
        }
    }

    fn begin_pass(&mut self) {
        self.phase = Phase::Running;
        self.pass = self.pass.saturating_add(1);
        self.cursor = None;
        self.this_pass = Counts::default();
    }

    /// All names were seen. Whether that was the last pass depends on what was found.
    fn end_pass(&mut self) {
        let Counts {
            resealed,
            contended,
            failed,
            ..
        } = self.this_pass;
        match (failed, resealed, contended) {
            (0, 0, 0) => self.phase = Phase::Finished,
            (0, _, _) => self.begin_pass(),
            _ => self.phase = Phase::Blocked,
        }
    }
}

fn ascending(after: Option<&[u8]>, names: &[Vec<u8>]) -> bool {
    let mut last = after;
    names.iter().all(|name| {
        let fine = last.is_none_or(|last| last < name.as_slice()) && name.len() <= MAX_NAME;
        last = Some(name);
        fine
    })
}

#[derive(Debug)]
struct Unordered;

impl fmt::Display for Unordered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("names were not in ascending order, or too long")
    }
}

impl Error for Unordered {}

/// Records of a step.
const PAGE: usize = 64;
/// How often a record that others write is tried in one pass.
const TRIES: usize = 3;
/// The longest name in bytes.
const MAX_NAME: usize = 4_096;
