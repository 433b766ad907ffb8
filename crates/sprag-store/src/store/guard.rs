//! The rollback guard: what a store and its anchor say of each other.
//!
//! Each opening has a nonce. The store holds that of the last opening that it knows of, in a row of its own; the anchor
//! holds two, and a commit that was durable. What an opening does, and what a crash after each step leaves:
//!
//! ```text
//!                                         store    anchor (now, next, watermark)     at the next open
//!    before                               a        (a, a, w)                         now = a
//! 1  anchor: (a, b, durable)              a        (a, b, s)                         now = a
//! 2  store:  b, in a commit of its own    b        (a, b, s)                         next = b
//! 3  anchor: (b, b, durable)              b        (b, b, s+1)                       now = b
//!    from then on, now and then           b        (b, b, durable)
//! ```
//!
//! No crash is an alarm. A store that holds any other nonce, or fewer commits than the watermark, is not the one that
//! the anchor knows.

use super::{Inner, Store};
use crate::anchor::{Anchor, AnchorError, Mark, Nonce, Notary};
use crate::error::{Rollback, StoreError};
use crate::rows::{Changes, META_TABLE, RowName};
use crate::sync::{Arc, Weak, mpsc};
use crate::sys::lock;

use super::watch::{PACE, Pulse};

/// How a store stands to its anchor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Standing {
    /// It has none, or is not guarded in this process.
    Unguarded,
    /// The anchor answered, and knows this store.
    InReach {
        /// The commit that the anchor was told of.
        watermark: u64,
    },
    /// The anchor could not be asked, or not be written, when that was tried last. It is tried again; until it answers
    /// a store that was set back may go unnoticed.
    OutOfReach,
}

/// A store, as far as its guard needs it.
pub(super) trait Held {
    /// The last commit that is on stable storage.
    fn durable(&self) -> u64;

    /// A nonce that nobody had before.
    fn fresh(&self) -> Result<Nonce, StoreError>;

    /// Commits a nonce, and waits until it is on stable storage.
    fn enter(&self, nonce: Nonce) -> Result<(), StoreError>;
}

/// One opening of a store, from its guard's view.
pub(super) struct Opening {
    pub(super) notary: Arc<Notary>,
    /// What the store holds.
    pub(super) ours: Option<Nonce>,
    /// Whether the nonce is this opening's.
    pub(super) taken: bool,
    /// Whether the store is believed whatever the anchor says, this once.
    pub(super) believed: bool,
}

/// Why nothing was written to the anchor.
enum Missed {
    Unreachable,
    Because(StoreError),
}

impl From<StoreError> for Missed {
    fn from(error: StoreError) -> Self {
        Self::Because(error)
    }
}

impl From<Rollback> for Missed {
    fn from(sign: Rollback) -> Self {
        Self::Because(StoreError::RolledBack(sign))
    }
}

impl From<AnchorError> for Missed {
    fn from(error: AnchorError) -> Self {
        match error {
            AnchorError::Foreign => Self::Because(StoreError::ForeignAnchor),
            AnchorError::UnknownVersion => Self::Because(StoreError::UnsupportedVersion),
            AnchorError::Unreachable(cause) => {
                tracing::warn!(%cause, "anchor is out of reach");
                Self::Unreachable
            }
        }
    }
}

/// What is in the place of the anchor.
enum Found {
    Nothing,
    Forged,
    Mark(Mark),
}

impl Opening {
    /// Compares with the anchor, takes it over if that was not done yet, and tells it how far the store is.
    ///
    /// # Errors
    ///
    /// [`StoreError::RolledBack`], [`StoreError::ForeignAnchor`], [`StoreError::UnsupportedVersion`], and those of the
    /// store.
    pub(super) fn beat(
        &mut self,
        anchor: &dyn Anchor,
        store: &dyn Held,
    ) -> Result<Standing, StoreError> {
        match self.try_beat(anchor, store) {
            Ok(watermark) => Ok(Standing::InReach { watermark }),
            Err(Missed::Unreachable) => Ok(Standing::OutOfReach),
            Err(Missed::Because(error)) => Err(error),
        }
    }

    fn try_beat(&mut self, anchor: &dyn Anchor, store: &dyn Held) -> Result<u64, Missed> {
        if !self.taken {
            let durable = store.durable();
            let found = self.find(anchor)?;
            if !self.believed {
                self.judge(&found, durable)?;
            }
            let next = store.fresh()?;
            anchor.write(&self.notary.seal(&Mark {
                now: self.ours,
                next,
                watermark: durable,
            })?)?;
            store.enter(next)?;
            self.ours = Some(next);
            self.taken = true;
        }
        let ours = self
            .ours
            .ok_or(StoreError::Internal("an opening has a nonce"))?;
        let durable = store.durable();
        match self.find(anchor) {
            Ok(Found::Mark(mark)) if mark.next != ours => return Err(Rollback::OtherOpening.into()),
            Ok(Found::Mark(mark)) if durable < mark.watermark => {
                return Err(Rollback::BehindWatermark.into());
            }
            Ok(Found::Mark(_)) => {}
            // It was there, and somebody put something else in its place.
            Ok(Found::Nothing | Found::Forged)
            | Err(Missed::Because(StoreError::ForeignAnchor)) => {
                return Err(Rollback::AnchorGone.into());
            }
            Err(missed) => return Err(missed),
        }
        anchor.write(&self.notary.seal(&Mark {
            now: Some(ours),
            next: ours,
            watermark: durable,
        })?)?;
        Ok(durable)
    }

    fn find(&self, anchor: &dyn Anchor) -> Result<Found, Missed> {
        let Some(record) = anchor.read()? else {
            return Ok(Found::Nothing);
        };
        let mark = self.notary.open(&record)?;
        Ok(mark.map_or(Found::Forged, Found::Mark))
    }

    /// Whether a store that was just opened is the one that the anchor knows.
    fn judge(&self, found: &Found, durable: u64) -> Result<(), Rollback> {
        match found {
            Found::Nothing if self.ours.is_none() => Ok(()),
            Found::Nothing | Found::Forged => Err(Rollback::AnchorGone),
            Found::Mark(mark) if mark.now != self.ours && Some(mark.next) != self.ours => {
                Err(Rollback::OtherOpening)
            }
            Found::Mark(mark) if durable < mark.watermark => Err(Rollback::BehindWatermark),
            Found::Mark(_) => Ok(()),
        }
    }
}

/// The row of the nonce: version u8 ‖ nonce(16).
const ROW: u8 = 1;
const ROW_VERSION: u8 = 1;

fn row() -> RowName {
    RowName::plain(META_TABLE, [ROW])
}

/// The store, held so that it can go while its guard waits.
pub(super) struct Handle {
    pub(super) store: Weak<Inner>,
    pub(super) pulse: Arc<Pulse>,
}

impl Held for Handle {
    fn durable(&self) -> u64 {
        self.pulse.durable()
    }

    fn fresh(&self) -> Result<Nonce, StoreError> {
        let store = self.store.upgrade().ok_or(StoreError::Closed)?;
        let mut nonce = Nonce::default();
        lock(&store.state).rng.fill_bytes(&mut nonce);
        Ok(nonce)
    }

    fn enter(&self, nonce: Nonce) -> Result<(), StoreError> {
        let store = self.store.upgrade().ok_or(StoreError::Closed)?;
        let mut changes = Changes::new();
        changes.put(row(), [[ROW_VERSION].as_slice(), &nonce].concat());
        store.commit_row(&changes)
    }
}

impl Inner {
    /// The nonce that the store holds.
    fn nonce(&self) -> Result<Option<Nonce>, StoreError> {
        const DAMAGED: StoreError = StoreError::Damaged("the row of the guard");
        self.ready()?;
        let live = self.live();
        let key = live.blinder.physical(&row()).key;
        let Some(sealed) = self.watched(live.backend.get(&key).map_err(StoreError::from))? else {
            return Ok(None);
        };
        let opened = self.watched(live.sealer.open(&key, &sealed))?;
        match opened.value().split_first() {
            Some((&ROW_VERSION, nonce)) => Ok(Some(nonce.try_into().map_err(|_| DAMAGED)?)),
            Some(_) => Err(StoreError::UnsupportedVersion),
            None => Err(DAMAGED),
        }
    }

    /// Commits changes of the store's own table, and waits.
    fn commit_row(&self, changes: &Changes) -> Result<(), StoreError> {
        let (tell, told) = mpsc::sync_channel(1);
        let done = move |result: Result<u64, StoreError>| {
            let _ = tell.send(result.map(drop));
        };
        self.queue_unchecked(changes, false, Box::new(done));
        told.recv().unwrap_or(Err(StoreError::Poisoned))
    }
}

impl Store {
    /// Puts the store under the guard of an anchor, and keeps it there until it is closed: the anchor is told of what is
    /// durable at most ten seconds or 256 commits after the last time, from a thread of its own, so that no commit ever
    /// waits for it. A store that has no anchor yet gets this one.
    ///
    /// Waits at most ten seconds for the anchor. If it does not answer, the store goes on ([`Standing::OutOfReach`]) and
    /// it is tried again; an alarm that comes then is the answer of every call from there on.
    ///
    /// # Errors
    ///
    /// [`StoreError::RolledBack`]: the store is not the one that the anchor knows. Nothing was changed, and the store is
    /// open; close it, or make sure that nothing of its state is used twice, and call [`Store::guard_anew`].
    /// [`StoreError::ForeignAnchor`], [`StoreError::UnsupportedVersion`], and those of the store.
    pub fn guard(&self, anchor: Arc<dyn Anchor>) -> Result<Standing, StoreError> {
        self.begin_guard(anchor, false, PACE)
    }

    /// As [`guard`](Self::guard), but the store is believed whatever the anchor says of it: whoever calls this has seen to
    /// it that state of an earlier time does no harm, and that this is durable.
    ///
    /// # Errors
    ///
    /// Those of [`guard`](Self::guard), of [`StoreError::RolledBack`] only what happens from here on.
    pub fn guard_anew(&self, anchor: Arc<dyn Anchor>) -> Result<Standing, StoreError> {
        self.begin_guard(anchor, true, PACE)
    }

    pub(super) fn begin_guard(
        &self,
        anchor: Arc<dyn Anchor>,
        believed: bool,
        pace: super::watch::Pace,
    ) -> Result<Standing, StoreError> {
        let inner = &self.0;
        inner.ready()?;
        inner.pulse.end();
        let opening = Opening {
            notary: Arc::clone(&inner.notary),
            ours: inner.nonce()?,
            taken: false,
            believed,
        };
        let handle = Handle {
            store: Arc::downgrade(inner),
            pulse: Arc::clone(&inner.pulse),
        };
        Pulse::begin(handle, anchor, opening, pace)
    }

    /// Whether the store holds the nonce of a guard: it was under one when it was open last, and should be again.
    ///
    /// # Errors
    ///
    /// Those of a read.
    pub fn is_guarded(&self) -> Result<bool, StoreError> {
        Ok(self.0.nonce()?.is_some())
    }

    /// Ends the guard for good: from here on the store opens without an anchor. What is in the anchor's place stays there.
    ///
    /// # Errors
    ///
    /// Those of a commit.
    pub fn unguard(&self) -> Result<(), StoreError> {
        self.0.ready()?;
        self.0.pulse.end();
        let mut changes = Changes::new();
        changes.delete(row());
        self.0.commit_row(&changes)
    }

    /// How the store stood to its anchor when that was tried last.
    #[must_use]
    pub fn anchor_standing(&self) -> Standing {
        if self.0.ready().is_err() {
            return Standing::Unguarded;
        }
        self.0.pulse.standing()
    }

    /// Compares with the anchor and tells it how far the store is, now, and waits for the answer. Never to be called from
    /// a completion.
    ///
    /// # Errors
    ///
    /// [`StoreError::RolledBack`], which is the answer of every call from there on, and those of the store.
    pub fn check_anchor(&self) -> Result<Standing, StoreError> {
        self.0.ready()?;
        let told = self.0.pulse.ask();
        self.0.ready()?;
        told
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Mutex, mpsc};
    use std::time::Duration;

    use proptest::prelude::*;
    use rand_chacha::ChaCha20Rng;
    use rand_chacha::rand_core::SeedableRng;

    use super::super::watch::Pace;
    use super::*;
    use crate::anchor::AnchorRecord;
    use crate::manifest::StoreKeys;
    use crate::rows::Rows;

    fn keys() -> StoreKeys {
        StoreKeys::generate(&mut ChaCha20Rng::from_seed([1; 32]))
    }

    /// What happens in a world of two machines that share one anchor.
    #[derive(Debug, Clone)]
    enum Op {
        /// Opens, and dies after so many steps of the protocol; beyond 4 it lives.
        Open(usize, u8),
        /// The user says to go on whatever the anchor says.
        OpenAnew(usize, u8),
        Commit(usize),
        Beat(usize),
        /// Closes; a kill tells the anchor nothing.
        Close(usize),
        Kill(usize),
        /// The disk is copied, whether or not the store is open, and the anchor with it.
        Copy(usize),
        /// A copy is put in the place of a store that is not open; with its anchor, if no store is open.
        Restore(usize, usize),
        RestoreBoth(usize, usize),
        LoseAnchor,
        Reach(bool),
    }

    fn ops() -> impl Strategy<Value = Vec<Op>> {
        let who = 0..2_usize;
        let op = prop_oneof![
            5 => (who.clone(), 0..9_u8).prop_map(|(who, dies)| Op::Open(who, dies)),
            1 => (who.clone(), 0..9_u8).prop_map(|(who, dies)| Op::OpenAnew(who, dies)),
            5 => who.clone().prop_map(Op::Commit),
            4 => who.clone().prop_map(Op::Beat),
            3 => who.clone().prop_map(Op::Close),
            2 => who.clone().prop_map(Op::Kill),
            3 => who.clone().prop_map(Op::Copy),
            3 => (who.clone(), 0..8_usize).prop_map(|(who, copy)| Op::Restore(who, copy)),
            1 => (who, 0..8_usize).prop_map(|(who, copy)| Op::RestoreBoth(who, copy)),
            1 => Just(Op::LoseAnchor),
            1 => any::<bool>().prop_map(Op::Reach),
        ];
        prop::collection::vec(op, 1..60)
    }

    /// A commit: whether it is that of an opening, and a number of its own.
    type Commit = (bool, u32);

    #[derive(Debug, Clone, Default)]
    struct Disk {
        commits: Vec<Commit>,
        nonce: Option<Nonce>,
    }

    #[derive(Default)]
    struct Machine {
        disk: Disk,
        opening: Option<Opening>,
        /// Whether the other machine wrote to the anchor during this opening.
        disturbed: bool,
    }

    /// The anchor, and what it was told in truth: the commits of whoever wrote last.
    #[derive(Clone, Default)]
    struct Told {
        record: Option<AnchorRecord>,
        commits: Vec<Commit>,
        /// The opening that was announced and not confirmed.
        claim: Option<Commit>,
    }

    fn entered(nonce: Nonce) -> Commit {
        let (number, _) = nonce.split_first_chunk().unwrap();
        (true, u32::from_be_bytes(*number))
    }

    /// What the process that runs and the anchor see.
    #[derive(Default)]
    struct Scene {
        told: Told,
        reach: bool,
        /// Steps until the process dies.
        lives: u8,
        next: u32,
        wrote: bool,
        disk: Disk,
    }

    impl Scene {
        /// One step of a process that may die before it.
        fn step(&mut self) -> bool {
            let alive = self.lives > 0;
            self.lives = self.lives.saturating_sub(1);
            alive
        }

        fn number(&mut self) -> u32 {
            self.next += 1;
            self.next
        }
    }

    #[derive(Clone, Default)]
    struct Stage(Arc<Mutex<Scene>>);

    impl Held for Stage {
        fn durable(&self) -> u64 {
            lock(&self.0).disk.commits.len() as u64
        }

        fn fresh(&self) -> Result<Nonce, StoreError> {
            let mut nonce = Nonce::default();
            nonce[..4].copy_from_slice(&lock(&self.0).number().to_be_bytes());
            Ok(nonce)
        }

        fn enter(&self, nonce: Nonce) -> Result<(), StoreError> {
            let mut scene = lock(&self.0);
            if !scene.step() {
                return Err(StoreError::Poisoned);
            }
            scene.disk.commits.push(entered(nonce));
            scene.disk.nonce = Some(nonce);
            Ok(())
        }
    }

    fn away() -> AnchorError {
        AnchorError::unreachable(std::io::Error::from(std::io::ErrorKind::TimedOut))
    }

    impl Anchor for Stage {
        fn read(&self) -> Result<Option<AnchorRecord>, AnchorError> {
            let mut scene = lock(&self.0);
            if scene.reach && scene.step() {
                Ok(scene.told.record)
            } else {
                Err(away())
            }
        }

        fn write(&self, record: &AnchorRecord) -> Result<(), AnchorError> {
            let mut scene = lock(&self.0);
            if !(scene.reach && scene.step()) {
                return Err(away());
            }
            scene.wrote = true;
            let mark = Notary::new(&keys()).open(record).unwrap().unwrap();
            scene.told = Told {
                record: Some(*record),
                commits: scene.disk.commits.clone(),
                claim: (Some(mark.next) != scene.disk.nonce).then_some(entered(mark.next)),
            };
            Ok(())
        }
    }

    #[derive(Debug, PartialEq, Eq)]
    enum Must {
        Pass,
        Alarm,
        /// Two states of which neither is the older one, after an opening without anchor, or while another one opens.
        Either,
    }

    struct World {
        stage: Stage,
        machines: [Machine; 2],
        copies: Vec<(Disk, Told)>,
        alarms: usize,
    }

    impl World {
        fn new() -> Self {
            let stage = Stage::default();
            lock(&stage.0).reach = true;
            Self {
                stage,
                machines: Default::default(),
                copies: Vec::new(),
                alarms: 0,
            }
        }

        /// What the truth demands, whatever nonces and watermarks say.
        fn must(&self, disk: &Disk, disturbed: bool) -> Must {
            let told = &lock(&self.stage.0).told;
            if told.record.is_none() {
                return if disk.nonce.is_some() {
                    Must::Alarm
                } else {
                    Must::Pass
                };
            }
            let opened_since = |commit: &&Commit| commit.0 && !disk.commits.contains(commit);
            if disk.commits.starts_with(&told.commits) {
                // Somebody announced an opening and died: it may be this store, or one that has gone another way since.
                let other = told.claim.is_some_and(|claim| {
                    disk.commits.len() > told.commits.len() && !disk.commits.contains(&claim)
                });
                if disturbed || other {
                    Must::Either
                } else {
                    Must::Pass
                }
            } else if disk.commits.len() < told.commits.len()
                || told.commits.iter().any(|commit| opened_since(&commit))
            {
                Must::Alarm
            } else {
                Must::Either
            }
        }

        /// Lets the process on a machine do its work with the anchor.
        fn beat(&mut self, who: usize, lives: u8) -> Option<Result<Standing, StoreError>> {
            let mut opening = self.machines[who].opening.take()?;
            {
                let mut scene = lock(&self.stage.0);
                scene.disk = self.machines[who].disk.clone();
                scene.lives = lives;
                scene.wrote = false;
            }
            let told = opening.beat(&self.stage, &self.stage);
            let mut scene = lock(&self.stage.0);
            self.machines[who].disk = scene.disk.clone();
            if scene.wrote {
                self.machines[who].disturbed = false;
                self.machines[1 - who].disturbed = true;
            }
            if scene.lives > 0 && told.is_ok() {
                self.machines[who].opening = Some(opening);
            }
            scene.lives = 0;
            Some(told)
        }

        fn judged(&mut self, who: usize, lives: u8) {
            let machine = &self.machines[who];
            let Some(opening) = &machine.opening else {
                return;
            };
            let anew = opening.believed && !opening.taken;
            let disturbed = opening.taken && machine.disturbed;
            let must = self.must(&machine.disk, disturbed);
            let reach = lock(&self.stage.0).reach;
            let lost = lock(&self.stage.0).told.record.is_none() && opening.taken;
            let told = self.beat(who, lives).unwrap();
            let alarm = matches!(told, Err(StoreError::RolledBack(_)));
            self.alarms += usize::from(alarm);
            if !reach || lives < 5 {
                // Whoever dies half-way may not come to the alarm; a false one is never raised.
                assert!(!alarm || must != Must::Pass || lost, "{told:?}");
                return;
            }
            match must {
                _ if anew => assert!(!alarm, "{told:?}"),
                Must::Pass => assert!(matches!(told, Ok(Standing::InReach { .. })), "{told:?}"),
                Must::Alarm => assert!(alarm, "{told:?}"),
                Must::Either => {}
            }
        }

        fn open(&mut self, who: usize, lives: u8, believed: bool) {
            let machine = &mut self.machines[who];
            if machine.opening.is_some() {
                return;
            }
            machine.disturbed = false;
            machine.opening = Some(Opening {
                notary: Arc::new(Notary::new(&keys())),
                ours: machine.disk.nonce,
                taken: false,
                believed,
            });
            self.judged(who, if lives > 5 { u8::MAX } else { lives });
        }

        fn apply(&mut self, op: &Op) {
            match *op {
                Op::Open(who, lives) => self.open(who, lives, false),
                Op::OpenAnew(who, lives) => self.open(who, lives, true),
                Op::Commit(who) => {
                    let number = lock(&self.stage.0).number();
                    let machine = &mut self.machines[who];
                    if machine.opening.is_some() {
                        machine.disk.commits.push((false, number));
                    }
                }
                Op::Beat(who) => self.judged(who, u8::MAX),
                Op::Close(who) => {
                    if self.machines[who]
                        .opening
                        .as_ref()
                        .is_some_and(|opening| opening.taken)
                    {
                        self.judged(who, u8::MAX);
                    }
                    self.machines[who].opening = None;
                }
                Op::Kill(who) => self.machines[who].opening = None,
                Op::Copy(who) => {
                    let told = lock(&self.stage.0).told.clone();
                    self.copies.push((self.machines[who].disk.clone(), told));
                }
                Op::Restore(who, copy) => self.restore(who, copy, false),
                Op::RestoreBoth(who, copy) => self.restore(who, copy, true),
                Op::LoseAnchor => lock(&self.stage.0).told = Told::default(),
                Op::Reach(reach) => lock(&self.stage.0).reach = reach,
            }
        }

        fn restore(&mut self, who: usize, copy: usize, both: bool) {
            let copy = copy % self.copies.len().max(1);
            let Some((disk, told)) = self.copies.get(copy).cloned() else {
                return;
            };
            let open = |machine: &Machine| machine.opening.is_some();
            if open(&self.machines[who]) || (both && self.machines.iter().any(open)) {
                return;
            }
            self.machines[who].disk = disk.clone();
            if both {
                // What is ahead of an anchor that was set back is gone with that future.
                self.machines[1 - who].disk = disk;
                self.copies.truncate(copy + 1);
                lock(&self.stage.0).told = told;
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(500))]

        /// The truth is what was told to the anchor by whom. Never an alarm for a store that holds all of it, wherever a
        /// process died; always one for a store that lacks some of it, or was opened elsewhere since.
        #[test]
        fn guard_never_cries_wolf_and_never_sleeps(ops in ops()) {
            let mut world = World::new();
            for op in &ops {
                world.apply(op);
            }
        }
    }

    #[test]
    fn model_raises_alarms_at_all() {
        let mut world = World::new();
        for op in [
            Op::Open(0, 9),
            Op::Commit(0),
            Op::Copy(0),
            Op::Commit(0),
            Op::Close(0),
            Op::Open(0, 9),
            Op::Kill(0),
            Op::Restore(0, 0),
            Op::Open(0, 9),
            Op::OpenAnew(0, 9),
            Op::Commit(0),
            Op::Restore(1, 0),
            Op::Open(1, 9),
        ] {
            world.apply(&op);
        }
        assert_eq!(world.alarms, 2);
    }

    /// An anchor in memory, that can be out of reach, and tells whenever it was written.
    struct Slate {
        record: Mutex<Option<AnchorRecord>>,
        reach: Mutex<bool>,
        written: Mutex<mpsc::Sender<()>>,
    }

    impl Slate {
        fn new() -> (Arc<Self>, mpsc::Receiver<()>) {
            let (written, seen) = mpsc::channel();
            let slate = Self {
                record: Mutex::default(),
                reach: Mutex::new(true),
                written: Mutex::new(written),
            };
            (Arc::new(slate), seen)
        }

        fn mark(&self) -> Mark {
            let record = lock(&self.record).unwrap();
            Notary::new(&keys()).open(&record).unwrap().unwrap()
        }
    }

    impl Anchor for Slate {
        fn read(&self) -> Result<Option<AnchorRecord>, AnchorError> {
            if *lock(&self.reach) {
                Ok(*lock(&self.record))
            } else {
                Err(away())
            }
        }

        fn write(&self, record: &AnchorRecord) -> Result<(), AnchorError> {
            if !*lock(&self.reach) {
                return Err(away());
            }
            *lock(&self.record) = Some(*record);
            let _ = lock(&self.written).send(());
            Ok(())
        }
    }

    fn store() -> Store {
        let rng = ChaCha20Rng::from_seed([2; 32]);
        Store::create_over(crate::MemoryBackend::new(), &keys(), rng).unwrap()
    }

    fn commit(store: &Store) -> u64 {
        let mut changes = Changes::new();
        changes.put(RowName::plain(0x10, b"row".as_slice()), b"value".to_vec());
        store.commit_blocking(changes).unwrap()
    }

    const NEVER: Pace = Pace {
        every: Duration::from_hours(1_000),
        commits: 3,
    };
    const ALWAYS: Pace = Pace {
        every: Duration::from_millis(1),
        commits: u64::MAX,
    };
    const LONG: Duration = Duration::from_mins(1);

    #[test]
    fn anchor_is_told_at_open_after_so_many_commits_or_some_time_and_at_close() {
        let (slate, seen) = Slate::new();
        let store = store();
        store.begin_guard(slate.clone(), false, NEVER).unwrap();
        assert!(store.is_guarded().unwrap());
        seen.recv().unwrap();
        seen.recv().unwrap();
        let begun = slate.mark();
        assert_eq!(begun.now, Some(begun.next));
        assert_eq!(begun.watermark, store.commit_sequence());
        commit(&store);
        commit(&store);
        assert!(seen.try_recv().is_err());
        assert_eq!(slate.mark().watermark, begun.watermark);
        let third = commit(&store);
        seen.recv_timeout(LONG).unwrap();
        assert_eq!(slate.mark().watermark, third);
        let last = commit(&store);
        store.close().unwrap();
        assert_eq!(slate.mark().watermark, last);

        let (slate, seen) = Slate::new();
        let store = self::store();
        store.begin_guard(slate.clone(), false, ALWAYS).unwrap();
        while slate.mark().watermark < store.commit_sequence() {
            seen.recv_timeout(LONG).unwrap();
        }
        let next = commit(&store);
        while slate.mark().watermark < next {
            seen.recv_timeout(LONG).unwrap();
        }
        drop(store);
    }

    #[test]
    fn store_whose_anchor_is_away_goes_on_and_is_judged_when_it_comes_back() {
        for gone in [false, true] {
            let (slate, seen) = Slate::new();
            let store = store();
            *lock(&slate.reach) = false;
            let standing = store.begin_guard(slate.clone(), false, ALWAYS).unwrap();
            assert_eq!(standing, Standing::OutOfReach);
            commit(&store);
            if gone {
                // Another store of the same keys was opened meanwhile.
                let forged = Mark {
                    now: Some([1; 16]),
                    next: [1; 16],
                    watermark: 0,
                };
                let record = Notary::new(&keys()).seal(&forged).unwrap();
                *lock(&slate.record) = Some(record);
            }
            *lock(&slate.reach) = true;
            if gone {
                let alarm = store.check_anchor().map(drop).and_then(|()| {
                    // The guard had it already.
                    store.get(&row()).map(drop)
                });
                assert!(matches!(
                    alarm,
                    Err(StoreError::RolledBack(Rollback::OtherOpening))
                ));
                let later = store.commit_blocking(Changes::new());
                assert!(matches!(later, Err(StoreError::RolledBack(_))));
                assert!(matches!(store.close(), Err(StoreError::RolledBack(_))));
                assert!(store.close().is_ok());
            } else {
                seen.recv_timeout(LONG).unwrap();
                let standing = store.check_anchor().unwrap();
                assert!(matches!(standing, Standing::InReach { .. }));
                store.close().unwrap();
            }
        }
    }

    #[test]
    fn alarm_at_open_changes_nothing_and_the_store_is_guarded_only_when_it_is_believed() {
        let (slate, _seen) = Slate::new();
        let store = store();
        store.guard(slate.clone()).unwrap();
        store.unguard().unwrap();
        assert_eq!(store.anchor_standing(), Standing::Unguarded);
        let before = (store.commit_sequence(), slate.mark());
        let alarm = store.guard(slate.clone());
        assert!(matches!(
            alarm,
            Err(StoreError::RolledBack(Rollback::OtherOpening))
        ));
        assert_eq!((store.commit_sequence(), slate.mark()), before);
        commit(&store);
        assert!(matches!(
            store.guard_anew(slate.clone()).unwrap(),
            Standing::InReach { .. }
        ));
        *lock(&slate.record) = None;
        assert!(matches!(
            store.check_anchor(),
            Err(StoreError::RolledBack(Rollback::AnchorGone))
        ));
    }

    #[test]
    fn completion_and_last_handle_may_end_a_guarded_store() {
        let (slate, _seen) = Slate::new();
        let store = store();
        store.guard(slate.clone()).unwrap();
        let held = store.clone();
        store.submit(
            Changes::new(),
            Box::new(move |result| {
                result.unwrap();
                drop(held);
            }),
        );
        let last = store.commit_sequence();
        drop(store);
        assert_eq!(slate.mark().watermark, last);
    }
}
