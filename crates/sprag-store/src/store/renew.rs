//! Renewal: the live rows go into a new epoch, under a new storage key, and the old epoch is destroyed.
//!
//! While it runs no batch is taken in and no completion is called. The manifest names the old epoch until one rename,
//! and the new one, which is complete and synced by then, from there on. A store can begin anew by the same steps: then
//! only some of the rows go.

use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};

use rand_core::CryptoRng;
use sprag_keys::{Key, KeySlot, UnlockKey};
use zeroize::Zeroizing;

use super::census::{WRONG, census};
use super::{Inner, Live, State, poison};
use crate::backend::RowMap;
use crate::blind::{Blinder, Physical};
use crate::commit::Disk;
use crate::error::StoreError;
use crate::home::{Home, Place};
use crate::manifest::{BackendKind, Begun, Manifest, StoreKeys};
use crate::rows::{Changes, META_TABLE};
use crate::sealed::{Digest, META_KEY, Meta, Sealer};
use crate::sync::{Arc, Mutex, PoisonError};
use crate::sys::{lock, pause, unix_time};

/// What is written to the new epoch at once, in bytes, roughly.
const CHUNK: usize = 1 << 20;

/// What a store in a directory remembers for its next renewal.
pub(super) struct Renewable {
    pub(super) place: Place,
    pub(super) kind: BackendKind,
    pub(super) keys: StoreKeys,
    pub(super) slot: KeySlot,
    pub(super) unlock: Arc<UnlockKey>,
    pub(super) begun: Begun,
}

/// The instants of a renewal at which it may fail or the machine may stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Created,
    Copying,
    Copied,
    Synced,
    Written,
    Renamed,
    Switched,
    Wiped,
    Closed,
}

/// Tests fail here, or look at the directory as it would be after a crash.
#[cfg_attr(
    not(test),
    expect(clippy::unnecessary_wraps, reason = "a seam for tests")
)]
fn at(step: Step) -> Result<(), StoreError> {
    #[cfg(test)]
    return tests::reached(step);
    #[cfg(not(test))]
    {
        let _ = step;
        Ok(())
    }
}

/// What a new epoch holds if it is not to hold all that the old one does.
#[derive(Clone, Copy)]
pub(super) struct Anew<'a> {
    /// Tables whose rows are taken over.
    pub(super) keep: &'a [u8],
    /// Laid over them.
    pub(super) rows: &'a Changes,
}

impl Inner {
    pub(super) fn renew(
        &self,
        to: Option<BackendKind>,
        key: Option<&Key>,
    ) -> Result<(), StoreError> {
        self.renew_as(to, key, None)
    }

    /// As [`renew`](Self::renew); with `anew` nothing else of the old epoch is in the new one.
    pub(super) fn renew_as(
        &self,
        to: Option<BackendKind>,
        key: Option<&Key>,
        anew: Option<Anew<'_>>,
    ) -> Result<(), StoreError> {
        anew.map_or(Ok(()), |anew| anew.rows.check())?;
        self.ready()?;
        let _one_at_a_time = lock(&self.renewal);
        let mut state = lock(&self.state);
        let shut = self.gate.write().unwrap_or_else(PoisonError::into_inner);
        self.ready()?;
        let State {
            rng,
            meta,
            count,
            place,
        } = &mut *state;
        let place = place.as_mut().ok_or(StoreError::NotRenewable)?;
        let rng = &mut **rng;
        let home = place.place.home().ok_or(StoreError::Closed)?;
        let keys = place.keys.next_epoch(rng);
        let epoch = keys.epoch();
        let kind = to.unwrap_or(place.kind);
        let fresh = key.map(|key| key.new_slot(rng)).transpose()?;
        let (slot, unlock) = match &fresh {
            Some((slot, unlock)) => (slot, unlock),
            None => (&place.slot, &*place.unlock),
        };
        let begun = Begun {
            sequence: meta.sequence,
            time: unix_time(),
        };
        let manifest = Manifest::seal(&keys, Some(kind), begun, slot, unlock, rng)?;

        let old = self.live();
        let prepared = catch_unwind(AssertUnwindSafe(|| {
            let (new, digest) = self.copy_epoch(&home, &old, &keys, kind, (meta, anew), rng)?;
            let retired = home.manifest_to_retire()?;
            home.write_manifest_aside(&manifest)?;
            at(Step::Written)?;
            // A commit that was under way may have failed meanwhile.
            self.ready()?;
            Ok((new, digest, retired))
        }))
        .unwrap_or(Err(StoreError::Damaged("the database gave up")));
        let (new, digest, retired) = match prepared {
            Ok(prepared) => prepared,
            Err(error) => {
                let _ = home.remove_rest_of_renewal(epoch);
                return Err(error);
            }
        };

        let switched = home
            .rename_manifest()
            .and_then(|()| at(Step::Renamed))
            .and_then(|()| home.sync());
        if let Err(error) = switched {
            // Both epochs are complete, but nobody knows which one is found after a crash: neither may grow.
            poison(&self.health);
            return Err(error);
        }
        *self.live.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(new);
        meta.digest = digest;
        // Whatever was not counted yet was counted while it was copied.
        *count = None;
        place.kind = kind;
        place.keys = keys;
        place.begun = begun;
        if let Some((slot, unlock)) = fresh {
            place.slot = slot;
            place.unlock = Arc::new(unlock);
        }
        drop(shut);
        drop(state);

        let destroyed = at(Step::Switched)
            .and_then(|()| retired.wipe().map_err(StoreError::io))
            .and_then(|()| at(Step::Wiped));
        while Arc::strong_count(&old) > 1 {
            pause();
        }
        // What it has to say was said to the completions of its batches.
        let _ = old.backend.close();
        drop(old);
        destroyed?;
        at(Step::Closed)?;
        home.tidy(&manifest)
    }

    /// Makes a new epoch with the live rows of the old one, counted over on both sides, and synced.
    fn copy_epoch(
        &self,
        home: &Home,
        old: &Live,
        keys: &StoreKeys,
        kind: BackendKind,
        (meta, anew): (&Meta, Option<Anew<'_>>),
        rng: &mut dyn CryptoRng,
    ) -> Result<(Live, Digest), StoreError> {
        home.remove_rest_of_renewal(keys.epoch())?;
        let disk = home.create_epoch(keys.epoch(), kind)?;
        at(Step::Created)?;
        let (sealer, blinder) = (Sealer::new(keys), Blinder::new(keys));
        let mut copy = Copy {
            disk: &*disk,
            sequence: meta.sequence,
            rows: RowMap::new(),
            size: 0,
            failed: Ok(()),
        };
        let (mut found, mut digest) = (Digest::default(), Digest::default());
        let mut opened = Ok(());
        let mut laid = RowMap::new();
        for (row, value) in anew.iter().flat_map(|anew| anew.rows.iter()) {
            let Physical { key, inner } = blinder.physical(row);
            let sealed = value.map(|value| sealer.seal(&key, inner.as_ref(), value, rng));
            laid.insert(key, sealed);
        }
        let kept =
            |table| anew.is_none_or(|anew| table == META_TABLE || anew.keep.contains(&table));
        let scanned = old.backend.scan(&[], &mut |key, sealed| {
            if key == META_KEY {
                return ControlFlow::Continue(());
            }
            let table = key.first().copied().unwrap_or_default();
            found.add(table, old.sealer.mark(key, sealed));
            if !kept(table) {
                return ControlFlow::Continue(());
            }
            let renewed = old.sealer.open(key, sealed).and_then(|row| {
                let name = blinder.rename(key, row.inner.as_ref());
                let name = name.ok_or(StoreError::Damaged("a row has no name"))?;
                let sealed = sealer.seal(&name, row.inner.as_ref(), row.value(), rng);
                Ok((name, sealed))
            });
            match renewed {
                Ok((name, _)) if laid.contains_key(&name) => ControlFlow::Continue(()),
                Ok((name, sealed)) => {
                    digest.add(table, sealer.mark(&name, &sealed));
                    copy.put(name, sealed)
                }
                Err(error) => {
                    opened = Err(error);
                    ControlFlow::Break(())
                }
            }
        });
        self.watched(scanned.map_err(StoreError::from).and(opened))?;
        std::mem::replace(&mut copy.failed, Ok(()))?;
        if found != meta.digest {
            return self.watched(Err(WRONG));
        }
        for (name, sealed) in laid {
            if let Some(sealed) = sealed {
                let table = name.first().copied().unwrap_or_default();
                digest.add(table, sealer.mark(&name, &sealed));
                let _ = copy.put(name, sealed);
                std::mem::replace(&mut copy.failed, Ok(()))?;
            }
        }
        let renewed = Meta {
            sequence: meta.sequence,
            digest: digest.clone(),
        };
        let encoded = Zeroizing::new(renewed.encode());
        let _ = copy.put(
            META_KEY.to_vec(),
            sealer.seal(META_KEY, None, &encoded, rng),
        );
        copy.write()?;
        at(Step::Copied)?;
        disk.flush()?;
        disk.sync()?;
        home.sync_epoch(keys.epoch())?;
        at(Step::Synced)?;
        // Not before: what the copy holds may not be durable in the old epoch, which is still the one that counts.
        let backend = home.commit_to(disk, meta.sequence, keys.store_id())?;
        if census(&backend, &sealer)? != digest {
            return Err(StoreError::Damaged("the copy is not what was copied"));
        }
        let backend = Box::new(backend);
        Ok((
            Live {
                backend,
                sealer,
                blinder,
                cache: Mutex::default(),
            },
            digest,
        ))
    }
}

/// Rows on their way into a new epoch.
struct Copy<'d> {
    disk: &'d dyn Disk,
    sequence: u64,
    rows: RowMap,
    size: usize,
    failed: Result<(), StoreError>,
}

impl Copy<'_> {
    fn put(&mut self, name: Vec<u8>, sealed: Vec<u8>) -> ControlFlow<()> {
        self.size = self.size.saturating_add(name.len() + sealed.len());
        self.rows.insert(name, Some(sealed));
        if self.size >= CHUNK {
            self.failed = self.write();
        }
        match self.failed {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(()),
        }
    }

    fn write(&mut self) -> Result<(), StoreError> {
        at(Step::Copying)?;
        self.disk.apply(self.sequence, &self.rows)?;
        self.rows.clear();
        self.size = 0;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::collections::BTreeMap;
    use std::fs;
    use std::path::{Path, PathBuf};
    use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
    use std::thread;
    use std::time::Duration;

    use rand_chacha::ChaCha20Rng;
    use rand_chacha::rand_core::SeedableRng;
    use sprag_keys::Argon2Params;
    use tempfile::TempDir;

    use super::*;
    use crate::backend::Batch;
    use crate::rows::{Changes, RowName, Rows};
    use crate::store::Store;

    type Hook = Box<dyn FnMut(Step) -> Result<(), StoreError>>;

    thread_local! {
        static HOOK: RefCell<Option<Hook>> = const { RefCell::new(None) };
    }

    pub(super) fn reached(step: Step) -> Result<(), StoreError> {
        HOOK.with_borrow_mut(|hook| hook.as_mut().map_or(Ok(()), |hook| hook(step)))
    }

    fn hooked<T>(
        hook: impl FnMut(Step) -> Result<(), StoreError> + 'static,
        call: impl FnOnce() -> T,
    ) -> T {
        HOOK.set(Some(Box::new(hook)));
        let outcome = call();
        HOOK.set(None);
        outcome
    }

    const STEPS: [Step; 9] = [
        Step::Created,
        Step::Copying,
        Step::Copied,
        Step::Synced,
        Step::Written,
        Step::Renamed,
        Step::Switched,
        Step::Wiped,
        Step::Closed,
    ];

    /// From which database into which.
    const WAYS: &[(BackendKind, BackendKind)] = &[
        #[cfg(feature = "sled")]
        (BackendKind::Sled, BackendKind::Sled),
        #[cfg(feature = "redb")]
        (BackendKind::Redb, BackendKind::Redb),
        #[cfg(all(feature = "sled", feature = "redb"))]
        (BackendKind::Sled, BackendKind::Redb),
        #[cfg(all(feature = "sled", feature = "redb"))]
        (BackendKind::Redb, BackendKind::Sled),
    ];

    fn rng() -> ChaCha20Rng {
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).unwrap();
        ChaCha20Rng::from_seed(seed)
    }

    fn key() -> Key {
        Key::raw([7; 32])
    }

    fn open(home: &Path) -> Store {
        Store::open(home, &key(), rng()).unwrap()
    }

    fn row(n: u32) -> RowName {
        match n % 3 {
            0 => RowName::plain(0x02, n.to_be_bytes()),
            1 => RowName::owned(0x12, "bob", n.to_be_bytes()),
            _ => RowName::owned(0x12, n.to_be_bytes(), []),
        }
    }

    fn value(n: u32, round: u32) -> Vec<u8> {
        format!("value {n} of round {round} ")
            .repeat(8)
            .into_bytes()
    }

    fn put(n: u32, round: u32) -> Changes {
        let mut changes = Changes::new();
        changes.put(row(n), value(n, round));
        changes
    }

    /// A store whose rows were written twice, and some deleted.
    fn filled(kind: BackendKind) -> (TempDir, Store) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::create_in(dir.path(), &key(), kind, rng()).unwrap();
        for round in 1..=2 {
            for n in 0..40 {
                store.commit_blocking(put(n, round)).unwrap();
            }
        }
        let mut changes = Changes::new();
        (30..40).for_each(|n| changes.delete(row(n)));
        store.commit_blocking(changes).unwrap();
        // One that is not on the disk yet.
        store.submit_lazy(put(0, 3)).unwrap();
        (dir, store)
    }

    fn assert_filled(store: &Store) {
        for n in 0..40 {
            let found = store.get(&row(n)).unwrap().map(|value| value.to_vec());
            let round = if n == 0 { 3 } else { 2 };
            assert_eq!(found, (n < 30).then(|| value(n, round)), "{n}");
        }
        let mut bobs = 0;
        let bob = RowName::owned(0x12, "bob", []);
        store
            .scan(&bob, &mut |_, _| {
                bobs += 1;
                ControlFlow::Continue(())
            })
            .unwrap();
        assert_eq!(bobs, 10);
    }

    fn names(home: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(home)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| !["LOCK", "MARK", "MANIFEST.copy"].contains(&name.as_str()))
            .collect();
        names.sort();
        names
    }

    fn copy(from: &Path, to: &Path) {
        fs::create_dir_all(to).unwrap();
        for entry in fs::read_dir(from).unwrap() {
            let path = entry.unwrap().path();
            let target = to.join(path.file_name().unwrap());
            if path.is_dir() {
                copy(&path, &target);
            } else {
                fs::copy(&path, &target).unwrap();
            }
        }
    }

    fn contents(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
        let mut found = Vec::new();
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                found.extend(contents(&path));
            } else {
                found.push((path.clone(), fs::read(&path).unwrap()));
            }
        }
        found
    }

    fn contains(content: &[u8], what: &[u8]) -> bool {
        content.windows(what.len()).any(|window| window == what)
    }

    fn holds(home: &Path, what: &[u8]) -> bool {
        contents(home)
            .iter()
            .any(|(_, content)| contains(content, what))
    }

    fn sealed_rows(store: &Store) -> BTreeMap<Vec<u8>, Vec<u8>> {
        let mut rows = BTreeMap::new();
        let live = store.0.live();
        live.backend
            .scan(&[], &mut |key, sealed| {
                rows.insert(key.to_vec(), sealed.to_vec());
                ControlFlow::Continue(())
            })
            .unwrap();
        rows
    }

    #[test]
    fn renewed_store_holds_the_same_rows_and_goes_on() {
        for &(from, to) in WAYS {
            let (dir, store) = filled(from);
            let (id, before) = (*store.store_id(), store.commit_sequence());
            assert_eq!(store.commits_since_renewal(), before);
            store.0.renew(Some(to), None).unwrap();
            assert_filled(&store);
            assert_eq!(store.backend_kind(), Some(to));
            assert_eq!(store.commit_sequence(), before);
            assert_eq!(store.commits_since_renewal(), 0);
            assert!(unix_time() - store.renewed_at().unwrap() < 60);
            assert_eq!(names(dir.path()), ["MANIFEST", "epoch-00000002"]);
            assert_eq!(store.commit_blocking(put(1, 2)).unwrap(), before + 1);
            store.renew().unwrap();
            store.commit_blocking(put(1, 2)).unwrap();
            drop(store);
            let store = open(dir.path());
            assert_filled(&store);
            assert_eq!(store.store_id(), &id);
            assert_eq!(store.commits_since_renewal(), 1);
            assert_eq!(store.commit_sequence(), before + 2);
            assert_eq!(names(dir.path()), ["MANIFEST", "epoch-00000003"]);
        }
    }

    #[cfg(all(feature = "sled", feature = "redb"))]
    #[test]
    fn store_is_moved_to_the_other_database_and_back_without_loss() {
        let (dir, store) = filled(BackendKind::Sled);
        drop(store);
        for (to, file) in [
            (BackendKind::Redb, "epoch-00000002/rows.redb"),
            (BackendKind::Sled, "epoch-00000003/db"),
        ] {
            Store::migrate(dir.path(), &key(), to, rng()).unwrap();
            assert!(dir.path().join(file).exists());
            let store = open(dir.path());
            assert_eq!(store.backend_kind(), Some(to));
            assert_filled(&store);
        }
        let wrong = Store::migrate(dir.path(), &Key::raw([8; 32]), BackendKind::Redb, rng());
        assert!(matches!(wrong, Err(StoreError::WrongKey)));
    }

    #[test]
    fn crash_at_any_instant_leaves_the_old_epoch_or_the_new_one_complete() {
        for &(from, to) in WAYS {
            let (dir, store) = filled(from);
            // What was submitted lazily counts once it is durable.
            store.commit_blocking(Changes::new()).unwrap();
            let copies = Arc::new(Mutex::new(Vec::new()));
            let (home, theirs) = (dir.path().to_owned(), Arc::clone(&copies));
            let new_key = Key::raw([9; 32]);
            hooked(
                move |step| {
                    let copied = tempfile::tempdir().unwrap();
                    copy(&home, copied.path());
                    lock(&theirs).push((step, copied));
                    Ok(())
                },
                || store.0.renew(Some(to), Some(&new_key)).unwrap(),
            );
            let copies = std::mem::take(&mut *lock(&copies));
            assert!(
                STEPS
                    .iter()
                    .all(|step| copies.iter().any(|(at, _)| at == step))
            );
            for (step, copied) in copies {
                let after = STEPS.iter().position(|at| *at == step).unwrap() >= 5;
                let (right, wrong) = match after {
                    true => (&new_key, &key()),
                    false => (&key(), &new_key),
                };
                let refused = Store::open(copied.path(), wrong, rng());
                assert!(matches!(refused, Err(StoreError::WrongKey)), "{step:?}");
                let store = Store::open(copied.path(), right, rng()).unwrap();
                assert_filled(&store);
                assert_eq!(store.backend_kind(), Some(if after { to } else { from }));
                assert_eq!(names(copied.path()).len(), 2, "{step:?}");
                store.commit_blocking(put(1, 2)).unwrap();
                store.renew().unwrap();
                assert_filled(&store);
            }
        }
    }

    /// A store that began anew with table `02` and two rows laid over.
    fn assert_begun_anew(store: &Store) {
        for n in 0..40 {
            let found = store.get(&row(n)).unwrap().map(|value| value.to_vec());
            let expected = match n {
                0 => Some(value(0, 3)),
                1 => Some(value(1, 9)),
                3 => None,
                6 => Some(value(6, 9)),
                n if n % 3 == 0 && n < 30 => Some(value(n, 2)),
                _ => None,
            };
            assert_eq!(found, expected, "{n}");
        }
    }

    fn anew() -> Changes {
        let mut changes = put(1, 9);
        changes.merge(put(6, 9));
        changes.delete(row(3));
        changes.delete(row(2));
        changes
    }

    #[test]
    fn store_that_begins_anew_is_the_old_one_or_the_new_one_after_a_crash_at_any_instant() {
        for &(kind, _) in WAYS {
            let (dir, store) = filled(kind);
            store.commit_blocking(Changes::new()).unwrap();
            let copies = Arc::new(Mutex::new(Vec::new()));
            let (home, theirs) = (dir.path().to_owned(), Arc::clone(&copies));
            hooked(
                move |step| {
                    let copied = tempfile::tempdir().unwrap();
                    copy(&home, copied.path());
                    lock(&theirs).push((step, copied));
                    Ok(())
                },
                || store.begin_anew(&[0x02], &anew()).unwrap(),
            );
            assert_begun_anew(&store);
            store.commit_blocking(put(50, 1)).unwrap();
            store.close().unwrap();
            assert_begun_anew(&open(dir.path()));
            let copies = std::mem::take(&mut *lock(&copies));
            assert!(
                STEPS
                    .iter()
                    .all(|step| copies.iter().any(|(at, _)| at == step))
            );
            for (step, copied) in copies {
                let store = open(copied.path());
                match STEPS.iter().position(|at| *at == step).unwrap() >= 5 {
                    true => assert_begun_anew(&store),
                    false => assert_filled(&store),
                }
                assert_eq!(names(copied.path()).len(), 2, "{step:?}");
                store.renew().unwrap();
            }
        }
    }

    #[test]
    fn store_that_fails_to_begin_anew_is_as_it_was_and_bad_rows_are_refused() {
        for &(kind, _) in WAYS {
            let (dir, store) = filled(kind);
            store.commit_blocking(Changes::new()).unwrap();
            for fails in &STEPS[..5] {
                let failed = hooked(
                    move |step| match step == *fails {
                        true => Err(StoreError::Full),
                        false => Ok(()),
                    },
                    || store.begin_anew(&[0x02], &anew()),
                );
                assert!(matches!(failed, Err(StoreError::Full)), "{fails:?}");
                assert_filled(&store);
            }
            let mut large = Changes::new();
            large.put(row(1), vec![0; 3_901]);
            let refused = store.begin_anew(&[0x02], &large);
            assert!(matches!(refused, Err(StoreError::TooLarge)));
            let mut own = Changes::new();
            own.put(RowName::plain(META_TABLE, [7]), vec![1]);
            let refused = store.begin_anew(&[0x02], &own);
            assert!(matches!(refused, Err(StoreError::BadName)));
            store.close().unwrap();
            assert_filled(&open(dir.path()));
        }
        let memory = Store::in_memory(rng()).unwrap();
        let refused = memory.begin_anew(&[], &anew());
        assert!(matches!(refused, Err(StoreError::NotRenewable)));
    }

    #[test]
    fn what_a_store_left_behind_when_it_began_anew_is_in_no_file() {
        let (dir, store) = filled(WAYS[0].0);
        let sealed: Vec<_> = sealed_rows(&store).into_values().collect();
        assert!(sealed.iter().any(|sealed| holds(dir.path(), sealed)));
        store.begin_anew(&[0x02], &anew()).unwrap();
        store.close().unwrap();
        assert!(!sealed.iter().any(|sealed| holds(dir.path(), sealed)));
    }

    #[test]
    fn failure_at_any_step_loses_nothing_and_poisons_only_when_the_switch_is_in_doubt() {
        for &(from, to) in WAYS {
            for fails in STEPS {
                for panics in [false, true] {
                    if panics
                        && matches!(
                            fails,
                            Step::Switched | Step::Wiped | Step::Closed | Step::Renamed
                        )
                    {
                        continue; // no database is called there
                    }
                    let (dir, store) = filled(from);
                    store.commit_blocking(Changes::new()).unwrap();
                    let failed = hooked(
                        move |step| match (step == fails, panics) {
                            (true, true) => panic!("as planned"),
                            (true, false) => Err(StoreError::Full),
                            _ => Ok(()),
                        },
                        || store.0.renew(Some(to), None),
                    );
                    match failed {
                        Err(StoreError::Full) => assert!(!panics),
                        Err(StoreError::Damaged(_)) => assert!(panics),
                        other => panic!("{fails:?} {other:?}"),
                    }
                    if fails == Step::Renamed {
                        assert!(matches!(store.get(&row(1)), Err(StoreError::Poisoned)));
                        assert!(matches!(store.renew(), Err(StoreError::Poisoned)));
                    } else {
                        assert_filled(&store);
                        store.commit_blocking(put(1, 2)).unwrap();
                        let after = matches!(fails, Step::Switched | Step::Wiped | Step::Closed);
                        assert_eq!(store.backend_kind(), Some(if after { to } else { from }));
                        if !after {
                            assert_eq!(names(dir.path()), ["MANIFEST", "epoch-00000001"]);
                        }
                    }
                    drop(store);
                    let store = open(dir.path());
                    assert_filled(&store);
                    assert_eq!(names(dir.path()).len(), 2, "{fails:?}");
                    store.renew().unwrap();
                    assert_filled(&store);
                }
            }
        }
    }

    #[test]
    fn what_was_overwritten_before_a_renewal_is_nowhere_and_no_key_opens_it() {
        for &(from, to) in WAYS {
            let dir = tempfile::tempdir().unwrap();
            let old_key = Key::passphrase_with("old", Argon2Params::LEAST);
            let new_key = Key::passphrase_with("new", Argon2Params::LEAST);
            let store = Store::create_in(dir.path(), &old_key, from, rng()).unwrap();
            let mut recorded = Vec::new();
            for round in 0..3 {
                for n in 0..40 {
                    store.commit_blocking(put(n, round)).unwrap();
                    recorded.extend(sealed_rows(&store));
                }
            }
            recorded.sort();
            recorded.dedup();
            let live = sealed_rows(&store);
            let manifest = fs::read(dir.path().join("MANIFEST")).unwrap();
            // Any piece of a sealed row counts, not only a whole one.
            let piece = |sealed: &[u8]| sealed[sealed.len() / 2..][..24].to_vec();
            let mut overwritten = recorded
                .iter()
                .filter(|(name, row)| live.get(name) != Some(row));
            assert!(
                overwritten.any(|(_, row)| holds(dir.path(), &piece(row))),
                "without a renewal there is something to be found"
            );
            assert!(holds(dir.path(), &manifest[100..150]));

            store.0.renew(Some(to), Some(&new_key)).unwrap();
            for at in ["open", "closed"] {
                let contents = contents(dir.path());
                for (_, row) in &recorded {
                    let found = contents
                        .iter()
                        .any(|(_, content)| contains(content, &piece(row)));
                    assert!(!found, "{at}");
                }
                assert!(!holds(dir.path(), &manifest[100..150]), "{at}");
                store.close().unwrap();
            }
            let wrong = Store::open(dir.path(), &old_key, rng());
            assert!(matches!(wrong, Err(StoreError::WrongKey)));
            // The keys that are left, for whoever has the passphrase, open no row of before.
            let bytes = fs::read(dir.path().join("MANIFEST")).unwrap();
            let keys = Manifest::from_bytes(&bytes)
                .unwrap()
                .unlock(&new_key)
                .unwrap();
            let sealer = Sealer::new(&keys);
            assert!(
                recorded
                    .iter()
                    .all(|(name, row)| sealer.open(name, row).is_err())
            );
            let old = Manifest::from_bytes(&manifest)
                .unwrap()
                .unlock(&old_key)
                .unwrap();
            let sealer = Sealer::new(&old);
            assert!(
                recorded
                    .iter()
                    .all(|(name, row)| sealer.open(name, row).is_ok())
            );
            // And who kept the old manifest has names, but no row of now.
            let store = Store::open(dir.path(), &new_key, rng()).unwrap();
            let rows = sealed_rows(&store);
            assert_eq!(rows.len(), 41);
            assert!(
                rows.iter()
                    .all(|(name, row)| sealer.open(name, row).is_err())
            );
            let owned = |name: &&Vec<u8>| name.len() > 5;
            let before: Vec<_> = recorded.iter().map(|(name, _)| name).collect();
            assert!(
                rows.keys()
                    .filter(owned)
                    .all(|name| !before.contains(&name))
            );
        }
    }

    #[test]
    fn the_manifest_that_was_replaced_is_wiped() {
        let (dir, store) = filled(WAYS[0].0);
        let read = |name: &str| fs::read(dir.path().join(name)).unwrap();
        for name in ["MANIFEST", "MANIFEST.copy"] {
            let retired = dir.path().join(format!("{name}-still-linked"));
            fs::hard_link(dir.path().join(name), &retired).unwrap();
        }
        assert_eq!(read("MANIFEST"), read("MANIFEST.copy"));
        store.renew().unwrap();
        assert_eq!(read("MANIFEST"), read("MANIFEST.copy"));
        for name in ["MANIFEST", "MANIFEST.copy"] {
            let retired = read(&format!("{name}-still-linked"));
            assert!(retired.iter().all(|byte| *byte == 0), "{name}");
        }
    }

    #[test]
    fn nothing_is_answered_while_the_epoch_is_switched_and_nothing_is_lost() {
        for &(from, to) in WAYS {
            let (dir, store) = filled(from);
            let (answered, stop) = (
                Arc::new(AtomicU64::new(0)),
                Arc::new(AtomicBool::new(false)),
            );
            let writers: Vec<_> = (0..6_u32)
                .map(|n| {
                    let (store, stop) = (store.clone(), Arc::clone(&stop));
                    let answered = Arc::clone(&answered);
                    thread::spawn(move || {
                        let mut last = 0_u32;
                        while !stop.load(Ordering::SeqCst) {
                            let mut changes = Changes::new();
                            let name = RowName::owned(0x20, n.to_be_bytes(), []);
                            changes.put(name.clone(), (last + 1).to_be_bytes().to_vec());
                            let answered = Arc::clone(&answered);
                            let (tell, told) = std::sync::mpsc::channel();
                            let again = store.clone();
                            store.submit(
                                changes,
                                Box::new(move |result| {
                                    result.unwrap();
                                    answered.fetch_add(1, Ordering::SeqCst);
                                    // A completion may read and submit, also now.
                                    assert!(again.get(&name).unwrap().is_some());
                                    again.submit_lazy(put(50, n)).unwrap();
                                    tell.send(()).unwrap();
                                }),
                            );
                            told.recv().unwrap();
                            last += 1;
                        }
                        last
                    })
                })
                .collect();
            let reader = {
                let (store, stop) = (store.clone(), Arc::clone(&stop));
                thread::spawn(move || {
                    while !stop.load(Ordering::SeqCst) {
                        let mut seen = 0;
                        let table = RowName::plain(0x02, []);
                        store
                            .scan(&table, &mut |_, _| {
                                assert!(store.get(&row(1)).unwrap().is_some());
                                seen += 1;
                                ControlFlow::Continue(())
                            })
                            .unwrap();
                        assert_eq!(seen, 10);
                    }
                })
            };
            let mut kind = to;
            for _ in 0..8 {
                thread::sleep(Duration::from_millis(5));
                let (count, seen) = (Arc::clone(&answered), Arc::new(AtomicU64::new(0)));
                hooked(
                    move |step| {
                        let now = count.load(Ordering::SeqCst);
                        match step {
                            Step::Created => seen.store(now, Ordering::SeqCst),
                            Step::Copying
                            | Step::Copied
                            | Step::Synced
                            | Step::Written
                            | Step::Renamed => {
                                thread::sleep(Duration::from_millis(2));
                                // Those that had passed the gate before it was shut may still have been counting.
                                let before = seen.load(Ordering::SeqCst);
                                if step == Step::Copying {
                                    seen.store(count.load(Ordering::SeqCst), Ordering::SeqCst);
                                } else {
                                    assert_eq!(count.load(Ordering::SeqCst), before, "{step:?}");
                                }
                            }
                            _ => {}
                        }
                        Ok(())
                    },
                    || store.0.renew(Some(kind), None).unwrap(),
                );
                kind = if kind == to { from } else { to };
            }
            stop.store(true, Ordering::SeqCst);
            let last: Vec<u32> = writers
                .into_iter()
                .map(|writer| writer.join().unwrap())
                .collect();
            reader.join().unwrap();
            assert!(answered.load(Ordering::SeqCst) > 20);
            store.close().unwrap();
            let store = open(dir.path());
            assert_filled(&store);
            for (n, last) in (0_u32..).zip(last) {
                let found = store
                    .get(&RowName::owned(0x20, n.to_be_bytes(), []))
                    .unwrap();
                let found = found.map_or(0, |value| {
                    u32::from_be_bytes(value.as_slice().try_into().unwrap())
                });
                assert_eq!(found, last);
            }
        }
    }

    #[test]
    fn store_without_a_directory_and_one_that_is_closed_are_not_renewed() {
        let store = Store::in_memory(rng()).unwrap();
        assert!(matches!(store.renew(), Err(StoreError::NotRenewable)));
        assert_eq!(
            (store.commits_since_renewal(), store.renewed_at()),
            (0, None)
        );
        store.commit_blocking(put(1, 1)).unwrap();
        let (dir, store) = filled(WAYS[0].0);
        store.close().unwrap();
        assert!(matches!(store.renew(), Err(StoreError::Closed)));
        assert!(matches!(store.change_key(&key()), Err(StoreError::Closed)));
        assert_filled(&open(dir.path()));
    }

    #[test]
    fn damage_below_an_open_store_is_found_by_the_renewal_and_not_carried_over() {
        for &(from, to) in WAYS {
            for lost in [true, false] {
                let (dir, store) = filled(from);
                let (mut batch, live) = (Batch::after(store.commit_sequence()), store.0.live());
                let (name, mut sealed) = sealed_rows(&store).pop_last().unwrap();
                match lost {
                    true => batch.delete(name),
                    false => {
                        sealed[40] ^= 1;
                        batch.put(name, sealed);
                    }
                }
                live.backend.submit(batch, Box::new(|_| {}));
                drop(live);
                let renewed = store.0.renew(Some(to), None);
                assert!(matches!(renewed, Err(StoreError::Damaged(_))));
                assert!(matches!(store.renew(), Err(StoreError::Poisoned)));
                assert_eq!(names(dir.path()), ["MANIFEST", "epoch-00000001"]);
            }
        }
    }

    #[test]
    fn large_store_is_copied_in_pieces() {
        let (dir, store) = filled(WAYS[0].0);
        let mut changes = Changes::new();
        for n in 0..1_000_u32 {
            changes.put(RowName::plain(0x03, n.to_be_bytes()), vec![1; 3_000]);
        }
        store.commit_blocking(changes).unwrap();
        for &(_, to) in WAYS {
            store.0.renew(Some(to), None).unwrap();
        }
        drop(store);
        let store = open(dir.path());
        assert_filled(&store);
        assert_eq!(sealed_rows(&store).len(), 1_031);
    }
}
