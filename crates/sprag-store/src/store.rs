//! The store: rows, sealed and committed.

mod census;
#[cfg(not(target_arch = "wasm32"))]
mod guard;
#[cfg(any(feature = "sled", feature = "redb"))]
mod renew;
#[cfg(not(target_arch = "wasm32"))]
mod watch;

use std::cell::Cell;
use std::collections::HashSet;
use std::fmt;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
#[cfg(any(feature = "sled", feature = "redb"))]
use std::path::Path;

use rand_core::CryptoRng;
#[cfg(any(feature = "sled", feature = "redb"))]
use sprag_keys::{Key, UnlockKey};
use zeroize::Zeroizing;

use self::census::{Count, WRONG, census};
#[cfg(not(target_arch = "wasm32"))]
use crate::anchor::Notary;
use crate::backend::{Backend, Batch, Completion, Deferred};
use crate::blind::{Blinder, Physical};
use crate::cache::{Cache, Known};
#[cfg(any(feature = "sled", feature = "redb"))]
use crate::commit::Disk;
use crate::error::{Rollback, StoreError};
#[cfg(any(feature = "sled", feature = "redb"))]
use crate::home::Home;
use crate::manifest::StoreKeys;
#[cfg(any(feature = "sled", feature = "redb"))]
use crate::manifest::{BackendKind, Begun, Manifest};
use crate::memory::MemoryBackend;
use crate::proof::ProofKey;
use crate::rows::{Changes, META_TABLE, RowName, Rows, Visit};
use crate::sealed::{Digest, META_KEY, Meta, Opened, Sealer, Sum};
use crate::sync::atomic::{AtomicU8, Ordering};
use crate::sync::{Arc, COUNTED_AT_ONCE, Mutex, PoisonError, RwLock, thread_local};
#[cfg(not(target_arch = "wasm32"))]
use crate::sync::{Weak, mpsc};
use crate::sys::{lock, process_id};

/// Sealed rows over a [`Backend`]. Cheap to clone; all clones are one store.
///
/// Changes are submitted in an order that every later read respects, at once; they are durable when their completion
/// says so. An error or a panic from below poisons the store, for reads too: what was submitted may or may not be on the
/// disk, and only opening it again tells. After [`Store::close`], or once all clones are dropped, the directory is free.
#[derive(Clone)]
pub struct Store(Arc<Inner>);

struct Inner {
    live: RwLock<Arc<Live>>,
    state: Mutex<State>,
    /// Held by a renewal from its begin to its end.
    renewal: Mutex<()>,
    /// Completions pass here. Shut while a renewal copies and switches.
    gate: Arc<RwLock<()>>,
    health: Arc<AtomicU8>,
    store_id: [u8; 16],
    #[cfg(not(target_arch = "wasm32"))]
    notary: Arc<Notary>,
    /// What the committer tells the guard.
    #[cfg(not(target_arch = "wasm32"))]
    pulse: Arc<watch::Pulse>,
    /// The process that opened the store. A fork of it would use message keys twice.
    process: u32,
}

/// A row of a batch: what was put there, and its mark.
struct Written<'c> {
    key: Vec<u8>,
    value: Option<&'c [u8]>,
    mark: Option<Sum>,
}

/// The epoch that the store is in: a backend, and the keys of its rows. Whoever reads holds on to it.
struct Live {
    backend: Box<dyn Backend>,
    sealer: Sealer,
    blinder: Blinder,
    /// Rows of this epoch, opened. Locked last, and never while a backend is called.
    cache: Mutex<Cache>,
}

struct State {
    rng: Box<dyn CryptoRng + Send>,
    /// What the last batch submitted says.
    meta: Meta,
    /// A count of the rows that is under way.
    count: Option<Count>,
    /// What a renewal needs, of a store in a directory.
    #[cfg(any(feature = "sled", feature = "redb"))]
    place: Option<renew::Renewable>,
}

thread_local! {
    /// Whether this thread runs a completion.
    static ANSWERING: Cell<bool> = const { Cell::new(false) };
}

const OPEN: u8 = 0;
const POISONED: u8 = 1;
const CLOSED: u8 = 2;
const DAMAGED: u8 = 3;
const OTHER_OPENING: u8 = 4;
const BEHIND_WATERMARK: u8 = 5;
const ANCHOR_GONE: u8 = 6;

impl Store {
    /// Makes a store in a directory, which may exist but holds no store. Durable when it returns.
    ///
    /// The database is sled if this build has it, else redb. `rng` serves all seals of this handle.
    ///
    /// # Errors
    ///
    /// [`StoreError::Exists`], [`StoreError::Locked`], [`StoreError::Key`], [`StoreError::Damaged`] if the directory holds
    /// a store that lost its manifest, and those of the disk.
    #[cfg(any(feature = "sled", feature = "redb"))]
    pub fn create(
        home: impl AsRef<Path>,
        key: &Key,
        rng: impl CryptoRng + Send + 'static,
    ) -> Result<Self, StoreError> {
        Self::create_with(home, key, rng, Changes::new())
    }

    /// As [`create`](Self::create), with first rows that are there if the store is: a store that lost them is damaged,
    /// never one that has not got them yet.
    ///
    /// # Errors
    ///
    /// Those of [`create`](Self::create) and of a commit.
    #[cfg(any(feature = "sled", feature = "redb"))]
    pub fn create_with(
        home: impl AsRef<Path>,
        key: &Key,
        rng: impl CryptoRng + Send + 'static,
        first: Changes,
    ) -> Result<Self, StoreError> {
        #[cfg(feature = "sled")]
        let kind = BackendKind::Sled;
        #[cfg(not(feature = "sled"))]
        let kind = BackendKind::Redb;
        Self::begin(home.as_ref(), key, kind, rng, first)
    }

    /// Makes a store as [`Store::create`] does, in a database of a kind. [`Store::open`] finds it by itself.
    ///
    /// # Errors
    ///
    /// Those of [`Store::create`], and [`StoreError::MissingBackend`].
    #[cfg(any(feature = "sled", feature = "redb"))]
    pub fn create_in(
        home: impl AsRef<Path>,
        key: &Key,
        kind: BackendKind,
        rng: impl CryptoRng + Send + 'static,
    ) -> Result<Self, StoreError> {
        Self::begin(home.as_ref(), key, kind, rng, Changes::new())
    }

    /// As [`create_in`](Self::create_in), with first rows: see [`create_with`](Self::create_with).
    ///
    /// # Errors
    ///
    /// Those of [`create_in`](Self::create_in) and of a commit.
    #[cfg(any(feature = "sled", feature = "redb"))]
    pub fn create_in_with(
        home: impl AsRef<Path>,
        key: &Key,
        kind: BackendKind,
        rng: impl CryptoRng + Send + 'static,
        first: Changes,
    ) -> Result<Self, StoreError> {
        Self::begin(home.as_ref(), key, kind, rng, first)
    }

    #[cfg(any(feature = "sled", feature = "redb"))]
    fn begin(
        home: &Path,
        key: &Key,
        kind: BackendKind,
        mut rng: impl CryptoRng + Send + 'static,
        first: Changes,
    ) -> Result<Self, StoreError> {
        let home = Home::begin(home)?;
        let keys = StoreKeys::generate(&mut rng);
        let (slot, unlock) = key.new_slot(&mut rng)?;
        let begun = Begun {
            sequence: 0,
            time: crate::sys::unix_time(),
        };
        let manifest = Manifest::seal(&keys, Some(kind), begun, &slot, &unlock, &mut rng)?;
        let disk = home.create_epoch(keys.epoch(), kind)?;
        let backend = home.commit_to(disk, 0, keys.store_id())?;
        let store = Self::create_over(backend, &keys, rng)?;
        store.commit_blocking(first)?;
        home.finish(&manifest)?;
        lock(&store.0.state).place = Some(renew::Renewable {
            place: home.place(),
            kind,
            keys,
            slot,
            unlock: Arc::new(unlock),
            begun,
        });
        Ok(store)
    }

    /// Opens the store in a directory, and counts its rows over.
    ///
    /// # Errors
    ///
    /// [`StoreError::NotFound`], [`StoreError::Locked`] with the process that has it open, [`StoreError::WrongKey`],
    /// [`StoreError::Key`], [`StoreError::UnsupportedVersion`], [`StoreError::MissingBackend`] if it is in a database that
    /// this build does not have, [`StoreError::Damaged`] if anything is missing, added or
    /// changed, and those of the disk. A full disk cannot be opened from: [`StoreError::Full`].
    #[cfg(any(feature = "sled", feature = "redb"))]
    pub fn open(
        home: impl AsRef<Path>,
        key: &Key,
        rng: impl CryptoRng + Send + 'static,
    ) -> Result<Self, StoreError> {
        Self::open_over_disk(home.as_ref(), key, rng, &|disk| disk)
    }

    /// As [`open`](Self::open), with something between the store and its database.
    #[cfg(any(feature = "sled", feature = "redb"))]
    pub(crate) fn open_over_disk(
        home: &Path,
        key: &Key,
        rng: impl CryptoRng + Send + 'static,
        between: &dyn Fn(Box<dyn Disk>) -> Box<dyn Disk>,
    ) -> Result<Self, StoreError> {
        let (home, manifest) = Home::find(home)?;
        let unlock = Arc::new(key.unlock(manifest.slot())?);
        Self::open_home(&home, &manifest, unlock, rng, between)
    }

    /// Opens the directory of this store again, with the key that opened it, after the store was poisoned or the disk was
    /// full. This handle and all its clones are closed by that, and what the disk holds is found as by [`Store::open`].
    /// After an error it can be called once more. A guard has to be begun again.
    ///
    /// # Errors
    ///
    /// [`StoreError::NotRenewable`] for a store without a directory of its own, [`StoreError::WrongKey`] if the key was
    /// changed when the store failed, and those of [`Store::open`].
    #[cfg(any(feature = "sled", feature = "redb"))]
    pub fn reopen(&self, rng: impl CryptoRng + Send + 'static) -> Result<Self, StoreError> {
        // What else this handle has to say was said to those who waited.
        if matches!(self.close(), Err(StoreError::Forked)) {
            return Err(StoreError::Forked);
        }
        let (path, unlock) = {
            let state = lock(&self.0.state);
            let place = state.place.as_ref().ok_or(StoreError::NotRenewable)?;
            (place.place.path().to_path_buf(), Arc::clone(&place.unlock))
        };
        let (home, manifest) = Home::find(&path)?;
        let store = Self::open_home(&home, &manifest, unlock, rng, &|disk| disk)?;
        if store.0.store_id != self.0.store_id {
            return Err(StoreError::Damaged("another store is in its place"));
        }
        Ok(store)
    }

    #[cfg(any(feature = "sled", feature = "redb"))]
    fn open_home(
        home: &Home,
        manifest: &Manifest,
        unlock: Arc<UnlockKey>,
        rng: impl CryptoRng + Send + 'static,
        between: &dyn Fn(Box<dyn Disk>) -> Box<dyn Disk>,
    ) -> Result<Self, StoreError> {
        let keys = manifest.unlock_with(&unlock)?;
        let kind = manifest
            .backend()
            .ok_or(StoreError::Damaged("the manifest names no database"))?;
        let (disk, last) = home.open_epoch(keys.epoch(), kind)?;
        let backend = home.commit_to(between(disk), last, keys.store_id())?;
        let store = Self::open_over(backend, &keys, rng)?;
        if lock(&store.0.state).meta.sequence != last {
            return Err(StoreError::Damaged("the meta row is of another commit"));
        }
        if home.mark(keys.store_id()).is_some_and(|mark| mark > last) {
            return Err(StoreError::Damaged("the last commits are missing"));
        }
        home.tidy(manifest)?;
        lock(&store.0.state).place = Some(renew::Renewable {
            place: home.place(),
            kind,
            slot: manifest.slot().clone(),
            begun: manifest.begun(),
            keys,
            unlock,
        });
        Ok(store)
    }

    /// Moves the store in a directory, which nobody has open, into a database of another kind, with a renewal: whatever
    /// happens on the way, the directory holds the whole store in the one or in the other.
    ///
    /// # Errors
    ///
    /// Those of [`Store::open`] and of [`Store::renew`].
    #[cfg(any(feature = "sled", feature = "redb"))]
    pub fn migrate(
        home: impl AsRef<Path>,
        key: &Key,
        to: BackendKind,
        rng: impl CryptoRng + Send + 'static,
    ) -> Result<(), StoreError> {
        let store = Self::open(home, key, rng)?;
        store.0.renew(Some(to), None)?;
        store.close()
    }

    /// Copies the live rows, sealed and named anew, into a new epoch under a new storage key, and destroys the old key
    /// and the old epoch: what was overwritten or deleted before is gone, also for whoever gets the directory and the
    /// key. Blocks, and so does every submit meanwhile, which then counts for the new epoch; completions wait too; reads
    /// go on. The numbers of commits go on. Ends when no scan that began before is under way any more: never to be
    /// called from a scan or a completion.
    ///
    /// After an error the store is as it was, in its old epoch, or, if the switch was made and the old epoch could not be
    /// destroyed, in the new one; then the next renewal or the next open destroys it. Only if it is unknown whether the
    /// switch is durable the store is poisoned; opening it again finds the old epoch or the new one, both complete.
    ///
    /// # Errors
    ///
    /// [`StoreError::NotRenewable`] for a store without a directory of its own, [`StoreError::Damaged`] if rows are
    /// missing or do not open (the store is then poisoned), [`StoreError::Poisoned`], [`StoreError::Closed`],
    /// [`StoreError::Forked`], and those of the disk.
    pub fn renew(&self) -> Result<(), StoreError> {
        #[cfg(any(feature = "sled", feature = "redb"))]
        return self.0.renew(None, None);
        #[cfg(not(any(feature = "sled", feature = "redb")))]
        self.0.ready().and(Err(StoreError::NotRenewable))
    }

    /// A renewal that begins anew: of the live rows only those of the tables `keep` are in the new epoch, with `rows` laid
    /// over them, and the store's own. Whatever happens on the way, the directory holds the whole old store or the whole
    /// new one; then all else is gone as after a renewal.
    ///
    /// # Errors
    ///
    /// Those of [`Store::renew`], and [`StoreError::TooLarge`] and [`StoreError::BadName`] as for a commit.
    pub fn begin_anew(&self, keep: &[u8], rows: &Changes) -> Result<(), StoreError> {
        #[cfg(any(feature = "sled", feature = "redb"))]
        return self
            .0
            .renew_as(None, None, Some(renew::Anew { keep, rows }));
        #[cfg(not(any(feature = "sled", feature = "redb")))]
        {
            let _ = (keep, rows);
            self.0.ready().and(Err(StoreError::NotRenewable))
        }
    }

    /// Puts another key, or another passphrase, in the place of the one that opens the store, with a renewal: the old one
    /// then opens nothing that is left in the directory. A copy that somebody made before it still opens.
    ///
    /// # Errors
    ///
    /// Those of [`Store::renew`], after which the old key still opens the store unless the switch was made, and
    /// [`StoreError::Key`].
    #[cfg(any(feature = "sled", feature = "redb"))]
    pub fn change_key(&self, key: &Key) -> Result<(), StoreError> {
        self.0.renew(None, Some(key))
    }

    /// Whether the store can be renewed: it has a directory of its own.
    #[must_use]
    pub fn is_renewable(&self) -> bool {
        #[cfg(any(feature = "sled", feature = "redb"))]
        if self.0.process == process_id() {
            return lock(&self.0.state).place.is_some();
        }
        false
    }

    /// How many commits there were since the store was renewed, or made. 0 for a store that cannot be renewed.
    #[must_use]
    pub fn commits_since_renewal(&self) -> u64 {
        #[cfg(any(feature = "sled", feature = "redb"))]
        if self.0.process == process_id() {
            let state = lock(&self.0.state);
            let begun = state.place.as_ref().map(|place| place.begun.sequence);
            return begun.map_or(0, |begun| state.meta.sequence.saturating_sub(begun));
        }
        0
    }

    /// When the store was renewed, or made, in seconds of Unix by the clock of this machine at that time. `None` for a store that cannot be
    /// renewed.
    #[cfg(any(feature = "sled", feature = "redb"))]
    #[must_use]
    pub fn renewed_at(&self) -> Option<u64> {
        if self.0.process != process_id() {
            return None;
        }
        Some(lock(&self.0.state).place.as_ref()?.begun.time)
    }

    /// The database that the store is in. `None` for a store without a directory of its own.
    #[cfg(any(feature = "sled", feature = "redb"))]
    #[must_use]
    pub fn backend_kind(&self) -> Option<BackendKind> {
        if self.0.process != process_id() {
            return None;
        }
        Some(lock(&self.0.state).place.as_ref()?.kind)
    }

    /// What another process that opens this store can prove, and this one: see [`ProofKey`]. It changes with a renewal.
    ///
    /// # Errors
    ///
    /// [`StoreError::NotRenewable`] for a store without a directory of its own: no other process has it;
    /// [`StoreError::Closed`], [`StoreError::Forked`], [`StoreError::Poisoned`].
    pub fn proof_key(&self) -> Result<ProofKey, StoreError> {
        self.0.ready()?;
        #[cfg(any(feature = "sled", feature = "redb"))]
        if let Some(place) = &lock(&self.0.state).place {
            return Ok(place.keys.proof_key());
        }
        Err(StoreError::NotRenewable)
    }

    /// A store in memory, gone with its last clone.
    ///
    /// # Errors
    ///
    /// None in practice.
    pub fn in_memory(mut rng: impl CryptoRng + Send + 'static) -> Result<Self, StoreError> {
        let keys = StoreKeys::generate(&mut rng);
        Self::create_over(MemoryBackend::new(), &keys, rng)
    }

    /// Makes a store over an empty backend. The first commit, whatever it holds, makes it last.
    ///
    /// # Errors
    ///
    /// [`StoreError::Exists`] if the backend has rows, and those of the backend.
    pub fn create_over(
        backend: impl Backend,
        keys: &StoreKeys,
        rng: impl CryptoRng + Send + 'static,
    ) -> Result<Self, StoreError> {
        let mut empty = true;
        backend.scan(&[], &mut |_, _| {
            empty = false;
            ControlFlow::Break(())
        })?;
        if !empty {
            return Err(StoreError::Exists);
        }
        let meta = Meta {
            sequence: 0,
            digest: Digest::default(),
        };
        let store = Self::assemble(backend, keys, rng, meta);
        store.submit_lazy(Changes::new())?;
        Ok(store)
    }

    /// Opens a store over a backend, and counts its rows over.
    ///
    /// # Errors
    ///
    /// [`StoreError::Damaged`] if the rows are not those of the last commit, or the keys not theirs,
    /// [`StoreError::UnsupportedVersion`], and those of the backend.
    pub fn open_over(
        backend: impl Backend,
        keys: &StoreKeys,
        rng: impl CryptoRng + Send + 'static,
    ) -> Result<Self, StoreError> {
        let sealer = Sealer::new(keys);
        let sealed = backend.get(META_KEY)?;
        let sealed = sealed.ok_or(StoreError::Damaged("the meta row is missing"))?;
        let meta = Meta::decode(sealer.open(META_KEY, &sealed)?.value())?;
        Self::counted(backend, keys, rng, meta, COUNTED_AT_ONCE)
    }

    /// Opens a store whose rows are counted over: before it is there, or beside its work if there are more than `at_once`.
    fn counted(
        backend: impl Backend,
        keys: &StoreKeys,
        rng: impl CryptoRng + Send + 'static,
        meta: Meta,
        at_once: u64,
    ) -> Result<Self, StoreError> {
        #[cfg(not(target_arch = "wasm32"))]
        if meta.digest.rows() > at_once {
            let store = Self::assemble(backend, keys, rng, meta);
            lock(&store.0.state).count = Some(Count::default());
            census::beside(&store.0)?;
            return Ok(store);
        }
        let _ = at_once;
        if census(&backend, &Sealer::new(keys))? != meta.digest {
            return Err(WRONG);
        }
        Ok(Self::assemble(backend, keys, rng, meta))
    }

    /// Whether all rows were counted over since the store was opened. Opening waits for it up to 100,000 rows; above, it
    /// is done beside the work, and a wrong count makes every later call fail with [`StoreError::Damaged`].
    #[must_use]
    pub fn is_counted(&self) -> bool {
        self.0.process == process_id() && self.0.is_counted()
    }

    fn assemble(
        backend: impl Backend,
        keys: &StoreKeys,
        rng: impl CryptoRng + Send + 'static,
        meta: Meta,
    ) -> Self {
        #[cfg(not(target_arch = "wasm32"))]
        let durable = meta.sequence;
        Self(Arc::new(Inner {
            live: RwLock::new(Arc::new(Live {
                backend: Box::new(backend),
                sealer: Sealer::new(keys),
                blinder: Blinder::new(keys),
                cache: Mutex::default(),
            })),
            state: Mutex::new(State {
                rng: Box::new(rng),
                meta,
                count: None,
                #[cfg(any(feature = "sled", feature = "redb"))]
                place: None,
            }),
            renewal: Mutex::new(()),
            gate: Arc::default(),
            health: Arc::new(AtomicU8::new(OPEN)),
            #[cfg(not(target_arch = "wasm32"))]
            notary: Arc::new(Notary::new(keys)),
            #[cfg(not(target_arch = "wasm32"))]
            pulse: Arc::new(watch::Pulse::new(durable)),
            store_id: *keys.store_id(),
            process: process_id(),
        }))
    }

    /// Submits changes as one atomic batch, after all that was submitted before. Reads see them from here on; `done` is
    /// called exactly once, with the sequence number when they are on stable storage, or with the reason why they are not
    /// known to be. It runs on the committer's thread, under no lock, and must not wait for another commit. While the
    /// store is being renewed this waits; a visitor of a scan must not call it.
    pub fn submit(&self, changes: Changes, done: Completion) {
        self.0.queue(&changes, false, done);
    }

    /// Submits changes that may wait: they become durable with the next commit, or at the close.
    ///
    /// # Errors
    ///
    /// What [`Store::submit`] would tell its completion at once.
    pub fn submit_lazy(&self, changes: Changes) -> Result<(), StoreError> {
        let refused = Arc::new(Mutex::new(None));
        let tell = Arc::clone(&refused);
        let done: Completion = Box::new(move |result| *lock(&tell) = result.err());
        self.0.queue(&changes, true, done);
        let refused = lock(&refused).take();
        refused.map_or(Ok(()), Err)
    }

    /// Submits changes and waits until they are on stable storage. Never to be called from a completion.
    ///
    /// # Errors
    ///
    /// Those of [`Store::submit`].
    #[cfg(not(target_arch = "wasm32"))]
    pub fn commit_blocking(&self, changes: Changes) -> Result<u64, StoreError> {
        let (tell, told) = mpsc::sync_channel(1);
        self.submit(
            changes,
            Box::new(move |result| {
                let _ = tell.send(result);
            }),
        );
        told.recv().unwrap_or(Err(StoreError::Poisoned))
    }

    /// The number of the last batch submitted.
    #[must_use]
    pub fn commit_sequence(&self) -> u64 {
        if self.0.process == process_id() {
            lock(&self.0.state).meta.sequence
        } else {
            0
        }
    }

    /// What names this store, for its whole life. Not a secret.
    #[must_use]
    pub fn store_id(&self) -> &[u8; 16] {
        &self.0.store_id
    }

    /// Makes everything durable that was submitted, and lets the directory go. Calls of all clones then fail with
    /// [`StoreError::Closed`]; closing again is fine. Not to be called from a scan.
    ///
    /// # Errors
    ///
    /// [`StoreError::Poisoned`] if an earlier commit, or the last one, failed; the store is closed nevertheless.
    /// [`StoreError::Forked`], and then it is not.
    pub fn close(&self) -> Result<(), StoreError> {
        self.0.close()
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").finish_non_exhaustive()
    }
}

impl Rows for Store {
    fn get(&self, name: &RowName) -> Result<Option<Zeroizing<Vec<u8>>>, StoreError> {
        self.0.ready()?;
        let live = self.0.live();
        let Physical { key, inner } = live.readable(name)?;
        let submissions = {
            let cache = lock(&live.cache);
            match cache.get(&key) {
                Some(known) if known.inner != inner => return Err(StoreError::BadName),
                Some(known) => return Ok(Some(known.value.clone())),
                None => cache.submissions(),
            }
        };
        let Some(sealed) = self
            .0
            .watched(live.backend.get(&key).map_err(StoreError::from))?
        else {
            return Ok(None);
        };
        let opened = self.0.watched(live.sealer.open(&key, &sealed))?;
        if opened.inner != inner {
            return Err(StoreError::BadName);
        }
        let value = opened.into_value();
        let known = Known {
            inner,
            value: value.clone(),
            mark: live.sealer.mark(&key, &sealed),
        };
        lock(&live.cache).keep(submissions, key, known);
        Ok(Some(value))
    }

    fn scan_except(
        &self,
        prefix: &RowName,
        except: &[&RowName],
        visit: Visit<'_>,
    ) -> Result<(), StoreError> {
        let inner = &*self.0;
        inner.ready()?;
        let live = inner.live();
        let below = live.readable(prefix)?;
        let hidden: HashSet<Vec<u8>> = except
            .iter()
            .filter(|name| name.table() == prefix.table())
            .map(|name| live.blinder.physical(name).key)
            .collect();
        let mut outcome = Ok(());
        let scanned = live.backend.scan(&below.key, &mut |key, sealed| {
            if hidden.contains(key) {
                return ControlFlow::Continue(());
            }
            match live.sealer.open(key, sealed) {
                Ok(opened) => match suffix(prefix, &below, key, &opened) {
                    Some(suffix) => visit(suffix, opened.value()),
                    None => ControlFlow::Continue(()),
                },
                Err(error) => {
                    outcome = Err(error);
                    ControlFlow::Break(())
                }
            }
        });
        inner.watched(scanned.map_err(StoreError::from).and(outcome))
    }
}

/// What a scan tells of a row: the suffix behind the prefix, or nothing if the row only looks as if it were below.
fn suffix<'k>(
    prefix: &RowName,
    below: &Physical,
    key: &'k [u8],
    opened: &Opened,
) -> Option<&'k [u8]> {
    if prefix.is_whole_table() {
        return key.get(1 + opened.inner.map_or(0, |inner| inner.len())..);
    }
    if opened.inner != below.inner {
        return None;
    }
    key.get(below.key.len()..)
}

impl Live {
    /// The physical name of a row of the layers above.
    fn readable(&self, name: &RowName) -> Result<Physical, StoreError> {
        if name.table() == META_TABLE {
            return Err(StoreError::BadName);
        }
        Ok(self.blinder.physical(name))
    }

    /// Seals changes, and the meta row that goes with them.
    fn batch<'c>(
        &self,
        state: &mut State,
        changes: &'c Changes,
    ) -> Result<(Batch, Vec<Written<'c>>), StoreError> {
        let mut batch = Batch::after(state.meta.sequence);
        let mut written = Vec::with_capacity(changes.len());
        let digest = &mut state.meta.digest;
        let count = &mut state.count;
        for (name, value) in changes.iter() {
            let Physical { key, inner } = self.blinder.physical(name);
            let old = self.mark_of(&key)?;
            if let Some(old) = old {
                digest.subtract(name.table(), old);
            }
            let mut mark = None;
            if let Some(value) = value {
                let sealed = self
                    .sealer
                    .seal(&key, inner.as_ref(), value, &mut *state.rng);
                let new = self.sealer.mark(&key, &sealed);
                mark = Some(new);
                digest.add(name.table(), new);
                batch.put(key.clone(), sealed);
            } else if old.is_some() {
                batch.delete(key.clone());
            }
            if let Some(count) = count {
                count.changed(&key, old, mark);
            }
            written.push(Written { key, value, mark });
        }
        state.meta.sequence = batch.sequence();
        let meta = Zeroizing::new(state.meta.encode());
        batch.put(
            META_KEY.to_vec(),
            self.sealer.seal(META_KEY, None, &meta, &mut *state.rng),
        );
        Ok((batch, written))
    }

    /// The mark of the row that stands at a key, if any. Only under the lock of the state: nothing is submitted meanwhile.
    fn mark_of(&self, key: &[u8]) -> Result<Option<Sum>, StoreError> {
        if let Some(known) = lock(&self.cache).get(key) {
            return Ok(Some(known.mark));
        }
        let sealed = self.backend.get(key)?;
        Ok(sealed.map(|sealed| self.sealer.mark(key, &sealed)))
    }
}

impl Inner {
    /// Whether calls are answered. Touches nothing but memory, so that a forked child hears of it before any lock.
    fn ready(&self) -> Result<(), StoreError> {
        if self.process != process_id() {
            return Err(StoreError::Forked);
        }
        match self.health.load(Ordering::Acquire) {
            OPEN => Ok(()),
            code => Err(unhealthy(code)),
        }
    }

    /// The rows are not those that were written. A closed store stays closed.
    #[cfg(not(target_arch = "wasm32"))]
    fn found_damage(&self) {
        let _ = self
            .health
            .compare_exchange(OPEN, DAMAGED, Ordering::AcqRel, Ordering::Acquire);
    }

    /// The epoch that the store is in.
    fn live(&self) -> Arc<Live> {
        Arc::clone(&self.live.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Passes a result on; an error poisons.
    fn watched<T>(&self, result: Result<T, StoreError>) -> Result<T, StoreError> {
        if result.is_err() {
            poison(&self.health);
        }
        result
    }

    fn queue(&self, changes: &Changes, lazy: bool, done: Completion) {
        if let Err(error) = self.ready().and_then(|()| changes.check()) {
            return done(Err(error));
        }
        self.queue_unchecked(changes, lazy, done);
    }

    /// As `queue`, for the store's own table as well.
    fn queue_unchecked(&self, changes: &Changes, lazy: bool, done: Completion) {
        let (health, gate) = (Arc::clone(&self.health), Arc::clone(&self.gate));
        #[cfg(not(target_arch = "wasm32"))]
        let pulse = Arc::clone(&self.pulse);
        let (deferred, done) = Deferred::new(Box::new(move |result: Result<u64, StoreError>| {
            match &result {
                #[cfg(not(target_arch = "wasm32"))]
                Ok(sequence) => pulse.committed(*sequence),
                #[cfg(target_arch = "wasm32")]
                Ok(_) => {}
                Err(_) => poison(&health),
            }
            drop(gate.read().unwrap_or_else(PoisonError::into_inner));
            let outer = ANSWERING.with(|answering| answering.replace(true));
            done(result);
            ANSWERING.with(|answering| answering.set(outer));
        }));
        {
            let mut state = lock(&self.state);
            // A renewal may have failed, or the store been closed, while this waited.
            let live = self.live();
            let batch = self.ready().and_then(|()| {
                // A generator that gives up leaves the digest half counted: the error poisons.
                catch_unwind(AssertUnwindSafe(|| live.batch(&mut state, changes)))
                    .unwrap_or(Err(StoreError::Internal("a batch could not be sealed")))
            });
            match batch {
                Ok((batch, written)) => {
                    let batch = if lazy { batch.lazy() } else { batch };
                    live.backend.submit(batch, done);
                    // Not before: what is read between would be kept as it was.
                    lock(&live.cache).submitted(written.iter().map(|row| {
                        let put = row.value.zip(row.mark);
                        (row.key.as_slice(), put)
                    }));
                }
                Err(error) => done(Err(error)),
            }
        }
        deferred.release();
    }

    fn close(&self) -> Result<(), StoreError> {
        if self.process != process_id() {
            return Err(StoreError::Forked);
        }
        let before = self.health.swap(CLOSED, Ordering::AcqRel);
        // A renewal that is under way comes to its end first; but it may be waiting for a completion to come to its own.
        if !ANSWERING.with(Cell::get) {
            drop(lock(&self.renewal));
        }
        let live = {
            let _settled = lock(&self.state);
            self.live()
        };
        // The directory stays ours until the anchor knows the last commit.
        #[cfg(any(feature = "sled", feature = "redb"))]
        let held = {
            let state = lock(&self.state);
            state.place.as_ref().and_then(|place| place.place.home())
        };
        lock(&live.cache).close();
        let closed = live.backend.close();
        #[cfg(not(target_arch = "wasm32"))]
        if ANSWERING.with(Cell::get) {
            self.pulse.end_soon();
        } else {
            self.pulse.end();
        }
        #[cfg(any(feature = "sled", feature = "redb"))]
        drop(held);
        match before {
            CLOSED => Ok(()),
            OPEN => Ok(closed?),
            code => Err(unhealthy(code)),
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // In a forked child this does nothing, and the backend's own drop leaves files and locks alone.
        let _ = self.close();
    }
}

/// Why calls are not answered.
fn unhealthy(code: u8) -> StoreError {
    match code {
        POISONED => StoreError::Poisoned,
        DAMAGED => WRONG,
        OTHER_OPENING => StoreError::RolledBack(Rollback::OtherOpening),
        BEHIND_WATERMARK => StoreError::RolledBack(Rollback::BehindWatermark),
        ANCHOR_GONE => StoreError::RolledBack(Rollback::AnchorGone),
        _ => StoreError::Closed,
    }
}

/// An alarm of the guard: no call is answered any more, and the reason stays.
#[cfg(not(target_arch = "wasm32"))]
fn roll_back(store: &Weak<Inner>, error: &StoreError) {
    let code = match error {
        StoreError::RolledBack(Rollback::OtherOpening) => OTHER_OPENING,
        StoreError::RolledBack(Rollback::BehindWatermark) => BEHIND_WATERMARK,
        StoreError::RolledBack(Rollback::AnchorGone)
        | StoreError::ForeignAnchor
        | StoreError::UnsupportedVersion => ANCHOR_GONE,
        // The store's own, which has been told already.
        _ => return,
    };
    if let Some(store) = store.upgrade() {
        let health = &store.health;
        let _ = health.compare_exchange(OPEN, code, Ordering::AcqRel, Ordering::Acquire);
    }
}

/// A closed store stays closed.
fn poison(health: &AtomicU8) {
    let _ = health.compare_exchange(OPEN, POISONED, Ordering::AcqRel, Ordering::Acquire);
}

#[cfg(not(target_arch = "wasm32"))]
pub use guard::Standing;

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::thread;

    use proptest::prelude::*;
    use rand_chacha::ChaCha20Rng;
    use rand_chacha::rand_core::SeedableRng;

    use super::*;
    use crate::backend::BackendError;
    use crate::rows::{MAX_ROW, MemoryRows, Staged};
    use crate::sink::{Image, Loaded, Sink};
    use crate::sys::tests::PRETENDED;

    /// A sink whose rows a test can see, and meddle with, and that fails when it is told to.
    #[derive(Clone, Default)]
    struct Bench {
        place: Arc<Mutex<Loaded>>,
        fails: Arc<Mutex<Option<BackendError>>>,
    }

    impl Sink for Bench {
        fn load(&self) -> Result<Loaded, BackendError> {
            Ok(lock(&self.place).clone())
        }

        fn append(&self, batch: Batch, done: Completion) {
            let fault = lock(&self.fails).clone();
            let outcome = fault.map_or_else(|| lock(&self.place).apply(&batch), Err);
            done(outcome.map(|()| batch.sequence()).map_err(StoreError::from));
        }
    }

    impl Bench {
        fn create(&self) -> Store {
            let store =
                Store::create_over(Image::load(self.clone()).unwrap(), &keys(), rng()).unwrap();
            store.commit_blocking(Changes::new()).unwrap();
            store
        }

        fn open(&self) -> Result<Store, StoreError> {
            Store::open_over(Image::load(self.clone()).unwrap(), &keys(), rng())
        }

        fn rows(&self) -> BTreeMap<Vec<u8>, Vec<u8>> {
            lock(&self.place).rows.clone()
        }

        fn meddle(&self, rows: BTreeMap<Vec<u8>, Vec<u8>>) {
            lock(&self.place).rows = rows;
        }
    }

    fn rng() -> ChaCha20Rng {
        ChaCha20Rng::from_seed([3; 32])
    }

    /// A store of 400 rows in three tables, counted beside its work, which nobody has begun yet.
    fn uncounted(meddle: impl FnOnce(&mut BTreeMap<Vec<u8>, Vec<u8>>)) -> Store {
        let bench = Bench::default();
        let store = bench.create();
        let mut changes = Changes::new();
        for n in 0..200_u16 {
            changes.put(RowName::plain(2, n.to_be_bytes()), b"id".to_vec());
            changes.put(RowName::owned(0x12, n.to_be_bytes(), [0]), b"old".to_vec());
        }
        changes.put(RowName::plain(3, []), b"named by its table".to_vec());
        store.commit_blocking(changes).unwrap();
        store.close().unwrap();
        let mut rows = bench.rows();
        meddle(&mut rows);
        bench.meddle(rows);
        let image = Image::load(bench).unwrap();
        let sealed = image.get(META_KEY).unwrap().unwrap();
        let sealer = Sealer::new(&keys());
        let meta = Meta::decode(sealer.open(META_KEY, &sealed).unwrap().value()).unwrap();
        assert_eq!(meta.digest.rows(), 401);
        let store = Store::assemble(image, &keys(), rng(), meta);
        lock(&store.0.state).count = Some(Count::default());
        store
    }

    /// Changes rows between the parts of a count, wherever it is.
    fn work_on(store: &Store, seed: u64) -> Result<(), StoreError> {
        use rand_chacha::rand_core::Rng;
        let mut random = ChaCha20Rng::seed_from_u64(seed);
        while store.0.count_part()? {
            let mut changes = Changes::new();
            for _ in 0..8 {
                let n = (random.next_u32() % 300) as u16;
                let (plain, owned) = (
                    RowName::plain(2, n.to_be_bytes()),
                    RowName::owned(0x12, n.to_be_bytes(), [0]),
                );
                match random.next_u32() % 4 {
                    0 => changes.put(plain, b"new".to_vec()),
                    1 => changes.delete(plain),
                    2 => changes.put(owned, b"new".to_vec()),
                    _ => changes.delete(owned),
                }
            }
            store.commit_blocking(changes)?;
        }
        Ok(())
    }

    #[test]
    fn rows_are_counted_over_beside_the_work_and_whatever_it_changes() {
        for seed in 0..30 {
            let store = uncounted(|_| ());
            assert!(!store.is_counted());
            work_on(&store, seed).unwrap();
            assert!(store.is_counted());
            store.close().unwrap();
        }
    }

    #[test]
    fn row_that_is_missing_added_or_outdated_is_found_beside_the_work() {
        type Meddle = fn(&mut BTreeMap<Vec<u8>, Vec<u8>>);
        let meddles: [Meddle; 4] = [
            // None of these rows is touched by the work below.
            |rows| drop(rows.remove(&[3][..])),
            |rows| drop(rows.insert(vec![3, 9], vec![7; 40])),
            |rows| drop(rows.insert(vec![0x7f], vec![7; 40])),
            |rows| rows.get_mut(&[3][..]).unwrap()[5] ^= 1,
        ];
        for (seed, meddle) in (0..).zip(meddles) {
            let store = uncounted(meddle);
            assert!(is_damaged(work_on(&store, seed)));
            assert!(is_damaged(store.get(&row(1))));
            assert!(is_damaged(store.commit_blocking(Changes::new())));
            assert!(is_damaged(store.close()));
            assert!(matches!(store.get(&row(1)), Err(StoreError::Closed)));
        }
    }

    #[test]
    fn large_store_opens_before_it_is_counted_and_small_ones_after() {
        let bench = Bench::default();
        let store = bench.create();
        store.commit_blocking(put(row(1), b"one")).unwrap();
        store.close().unwrap();
        bench.meddle(
            bench
                .rows()
                .into_iter()
                .filter(|(key, _)| key == META_KEY)
                .collect(),
        );
        let open = |at_once| {
            let meta = lock(&store.0.state).meta.clone();
            Store::counted(
                Image::load(bench.clone()).unwrap(),
                &keys(),
                rng(),
                meta,
                at_once,
            )
        };
        assert!(is_damaged(open(1)));
        let store = open(0).unwrap();
        while !store.is_counted() {
            thread::yield_now();
        }
        assert!(is_damaged(store.get(&row(1))));
    }

    fn keys() -> StoreKeys {
        StoreKeys::generate(&mut ChaCha20Rng::from_seed([4; 32]))
    }

    fn row(n: u8) -> RowName {
        RowName::owned(0x12, "bob", [n])
    }

    fn put(name: RowName, value: &[u8]) -> Changes {
        let mut changes = Changes::new();
        changes.put(name, value.to_vec());
        changes
    }

    fn is_damaged<T>(result: Result<T, StoreError>) -> bool {
        matches!(result, Err(StoreError::Damaged(_)))
    }

    #[test]
    fn missing_added_swapped_and_outdated_rows_are_found_by_open() {
        let bench = Bench::default();
        let store = bench.create();
        store.commit_blocking(put(row(1), b"old")).unwrap();
        let before = bench.rows();
        store.commit_blocking(put(row(1), b"new")).unwrap();
        store.commit_blocking(put(row(2), b"two")).unwrap();
        let good = bench.rows();
        let keys: Vec<Vec<u8>> = good
            .keys()
            .filter(|key| *key != META_KEY)
            .cloned()
            .collect();
        let [one, two] = keys.try_into().unwrap();

        let mut missing = good.clone();
        missing.remove(&one);
        let mut added = good.clone();
        added.insert(b"\x13more".to_vec(), good[&one].clone());
        let mut swapped = good.clone();
        swapped.insert(one.clone(), good[&two].clone());
        swapped.insert(two.clone(), good[&one].clone());
        let mut outdated = good.clone();
        outdated.insert(one.clone(), before[&one].clone());
        let mut old_meta = good.clone();
        old_meta.insert(META_KEY.to_vec(), before[META_KEY].clone());
        let mut flipped = good.clone();
        flipped.get_mut(&two).unwrap()[40] ^= 1;
        for wrong in [
            missing,
            added,
            swapped,
            outdated,
            old_meta,
            flipped,
            BTreeMap::new(),
        ] {
            bench.meddle(wrong);
            assert!(is_damaged(bench.open()));
        }
        bench.meddle(good);
        assert_eq!(
            bench
                .open()
                .unwrap()
                .get(&row(1))
                .unwrap()
                .unwrap()
                .as_slice(),
            b"new"
        );
    }

    #[test]
    fn swapped_values_do_not_open_even_when_nobody_counted() {
        let bench = Bench::default();
        let store = bench.create();
        let mut changes = put(row(1), b"one");
        changes.put(row(2), b"two".to_vec());
        store.commit_blocking(changes).unwrap();
        drop(store);
        // Below an open store, where the digest is not looked at.
        let image = Image::load(bench.clone()).unwrap();
        let sequence = lock(&bench.place).sequence;
        let rows = bench.rows();
        let names: Vec<&Vec<u8>> = rows.keys().filter(|key| *key != META_KEY).collect();
        let mut batch = Batch::after(sequence);
        batch.put(names[0].clone(), rows[names[1]].clone());
        image.submit(batch, Box::new(|result| assert!(result.is_ok())));
        let meta = Meta {
            sequence: sequence + 1,
            digest: Digest::default(),
        };
        let store = Store::assemble(image, &keys(), rng(), meta);
        assert!(is_damaged(store.get(&row(1))) || is_damaged(store.get(&row(2))));
        assert!(matches!(store.get(&row(2)), Err(StoreError::Poisoned)));
    }

    #[test]
    fn keys_of_another_store_open_nothing() {
        let bench = Bench::default();
        drop(bench.create());
        let other = StoreKeys::generate(&mut ChaCha20Rng::from_seed([5; 32]));
        let store = Store::open_over(Image::load(bench).unwrap(), &other, rng());
        assert!(is_damaged(store));
    }

    #[test]
    fn failed_commit_poisons_reads_and_writes_until_the_store_is_opened_again() {
        let bench = Bench::default();
        let store = bench.create();
        store.commit_blocking(put(row(1), b"one")).unwrap();
        *lock(&bench.fails) = Some(BackendError::Full);
        assert!(matches!(
            store.commit_blocking(put(row(1), b"two")),
            Err(StoreError::Full)
        ));
        *lock(&bench.fails) = None;
        let clone = store.clone();
        assert!(matches!(clone.get(&row(1)), Err(StoreError::Poisoned)));
        let scanned = clone.scan(&row(1), &mut |_, _| ControlFlow::Continue(()));
        assert!(matches!(scanned, Err(StoreError::Poisoned)));
        assert!(matches!(
            clone.commit_blocking(Changes::new()),
            Err(StoreError::Poisoned)
        ));
        assert!(matches!(
            clone.submit_lazy(Changes::new()),
            Err(StoreError::Poisoned)
        ));
        assert!(matches!(store.close(), Err(StoreError::Poisoned)));
        store.close().unwrap();
        assert!(matches!(clone.get(&row(1)), Err(StoreError::Closed)));
        assert_eq!(
            bench
                .open()
                .unwrap()
                .get(&row(1))
                .unwrap()
                .unwrap()
                .as_slice(),
            b"one"
        );
    }

    #[test]
    fn second_store_over_one_place_is_noticed() {
        let bench = Bench::default();
        let first = bench.create();
        let second = bench.open().unwrap();
        first.commit_blocking(put(row(1), b"one")).unwrap();
        assert!(matches!(
            second.commit_blocking(put(row(1), b"two")),
            Err(StoreError::StoreInUse)
        ));
        assert!(matches!(second.get(&row(1)), Err(StoreError::Poisoned)));
        assert_eq!(first.get(&row(1)).unwrap().unwrap().as_slice(), b"one");
    }

    #[test]
    fn forked_child_is_refused_everything_and_harms_nothing() {
        let bench = Bench::default();
        let store = bench.create();
        let theirs = store.clone();
        thread::spawn(move || {
            PRETENDED.set(Some(process_id() ^ 1));
            let forked =
                |result: Result<(), StoreError>| assert!(matches!(result, Err(StoreError::Forked)));
            forked(theirs.get(&row(1)).map(drop));
            forked(theirs.scan(&row(1), &mut |_, _| ControlFlow::Continue(())));
            forked(theirs.commit_blocking(put(row(1), b"one")).map(drop));
            forked(theirs.submit_lazy(put(row(1), b"one")));
            forked(theirs.close());
        })
        .join()
        .unwrap();
        store.commit_blocking(put(row(1), b"two")).unwrap();
        assert_eq!(store.get(&row(1)).unwrap().unwrap().as_slice(), b"two");
    }

    #[cfg(feature = "sled")]
    #[test]
    fn forked_child_that_drops_the_store_does_not_let_the_lock_go() {
        let dir = tempfile::tempdir().unwrap();
        let key = Key::raw([7; 32]);
        let store = Store::create(dir.path(), &key, rng()).unwrap();
        let path = dir.path().to_owned();
        thread::spawn(move || {
            PRETENDED.set(Some(process_id() ^ 1));
            drop(store);
        })
        .join()
        .unwrap();
        let us = process_id();
        assert!(matches!(
            Store::open(path, &key, rng()),
            Err(StoreError::Locked { owner }) if owner == Some(us)
        ));
    }

    #[test]
    fn completion_may_submit_and_read() {
        let store = Bench::default().create();
        let (tell, told) = mpsc::channel();
        let again = store.clone();
        store.submit(
            put(row(1), b"one"),
            Box::new(move |result| {
                result.unwrap();
                assert!(again.get(&row(1)).unwrap().is_some());
                again.submit(
                    put(row(2), b"two"),
                    Box::new(move |result| tell.send(result).unwrap()),
                );
            }),
        );
        told.recv().unwrap().unwrap();
        assert!(store.get(&row(2)).unwrap().is_some());
    }

    #[test]
    fn deleting_what_is_not_there_writes_nothing() {
        let bench = Bench::default();
        let store = bench.create();
        let mut changes = Changes::new();
        changes.delete(row(1));
        store.commit_blocking(changes).unwrap();
        assert_eq!(bench.rows().len(), 1);
        drop(store);
        bench.open().unwrap();
    }

    #[derive(Clone, Debug)]
    enum Op {
        Commit(Vec<(u8, u8, Option<u16>)>),
        Lazy(Vec<(u8, u8, Option<u16>)>),
        Reopen,
    }

    fn op() -> impl Strategy<Value = Op> {
        let change = (0..6_u8, 0..8_u8, proptest::option::of(0..300_u16));
        let changes = proptest::collection::vec(change, 0..6);
        prop_oneof![
            4 => changes.clone().prop_map(Op::Commit),
            2 => changes.prop_map(Op::Lazy),
            1 => Just(Op::Reopen),
        ]
    }

    /// Tables 1 to 3 have no owners, 4 to 6 have two.
    fn name(table: u8, suffix: u8) -> RowName {
        match table {
            0..3 => RowName::plain(table + 1, [suffix]),
            _ => RowName::owned(table + 1, [suffix % 2], [suffix]),
        }
    }

    fn all(rows: &dyn Rows, prefix: &RowName) -> Vec<(Vec<u8>, Vec<u8>)> {
        let mut seen = Vec::new();
        rows.scan(prefix, &mut |suffix, value| {
            seen.push((suffix.to_vec(), value.to_vec()));
            ControlFlow::Continue(())
        })
        .unwrap();
        if prefix.owner().is_none() {
            seen.sort();
        }
        seen
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn store_answers_as_rows_in_memory_do(ops in proptest::collection::vec(op(), 1..30)) {
            let bench = Bench::default();
            let mut store = bench.create();
            let mut model = MemoryRows::new();
            for op in ops {
                let (list, lazy) = match op {
                    Op::Commit(list) => (list, false),
                    Op::Lazy(list) => (list, true),
                    Op::Reopen => {
                        store.close().unwrap();
                        store = bench.open().unwrap();
                        continue;
                    }
                };
                let mut changes = Changes::new();
                for (table, suffix, value) in list {
                    match value {
                        Some(len) => changes.put(name(table, suffix), vec![suffix; usize::from(len)]),
                        None => changes.delete(name(table, suffix)),
                    }
                }
                let staged = Staged::with(&store, changes.clone());
                model.apply(changes.clone());
                for table in 0..6 {
                    let whole = RowName::plain(table + 1, []);
                    prop_assert_eq!(all(&staged, &whole), all(&model, &whole));
                }
                if lazy {
                    store.submit_lazy(changes).unwrap();
                } else {
                    store.commit_blocking(changes).unwrap();
                }
                for table in 0..6 {
                    let whole = RowName::plain(table + 1, []);
                    prop_assert_eq!(all(&store, &whole), all(&model, &whole));
                    let owned = RowName::owned(table + 1, [1], []);
                    prop_assert_eq!(all(&store, &owned), all(&model, &owned));
                    for suffix in 0..8 {
                        let name = name(table, suffix);
                        prop_assert_eq!(store.get(&name).unwrap(), model.get(&name).unwrap());
                    }
                }
            }
        }
    }

    #[test]
    fn largest_row_fits() {
        let store = Bench::default().create();
        store.commit_blocking(put(row(1), &[1; MAX_ROW])).unwrap();
        assert_eq!(store.get(&row(1)).unwrap().unwrap().len(), MAX_ROW);
    }
}
