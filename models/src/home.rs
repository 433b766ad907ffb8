//! The directory of a store, in memory: epochs, and a manifest that a rename changes. One for each run of a model.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use crate::StoreError;
use crate::backend::{BackendError, RowMap};
use crate::commit::{Committer, Disk};
use crate::manifest::{BackendKind, Manifest};
use crate::platter::Fake;
use crate::rows::Visit;
use crate::sync::{Arc, Weak, thread};

/// What is in the directory.
#[derive(Default)]
struct Content {
    manifest: Option<Manifest>,
    aside: Option<Manifest>,
    epochs: BTreeMap<u64, Epoch>,
    lock: Weak<()>,
    /// From where a renewal makes its epoch to where its manifest lasts.
    renewing: bool,
}

struct Epoch {
    fake: Fake,
    /// There as long as somebody has it open.
    open: Weak<()>,
}

std::thread_local! {
    // All threads of a model are on one of the system.
    static CONTENT: RefCell<Rc<RefCell<Content>>> = RefCell::default();
}

fn content<T>(with: impl FnOnce(&mut Content) -> T) -> T {
    let content = CONTENT.with_borrow(Rc::clone);
    // Whoever else looks there does so before or after: what happens to a directory is one step.
    let result = with(&mut content.borrow_mut());
    thread::yield_now();
    result
}

/// An empty directory in the place of the last run's.
pub(crate) fn fresh() {
    CONTENT.take();
}

/// Whether a renewal is between the making of its epoch and the moment at which that counts for good.
pub(crate) fn is_renewing() -> bool {
    content(|content| content.renewing)
}

/// What is on stable storage of the epoch that the manifest names.
pub(crate) fn synced() -> u64 {
    let fake = content(|content| {
        let epoch = content.manifest.as_ref()?.epoch();
        Some(content.epochs.get(&epoch)?.fake.clone())
    });
    fake.map_or(0, |fake| crate::sys::lock(&fake.0).synced)
}

/// The disk of the epoch that the manifest names fails at a write that is so far off.
pub(crate) fn fail_at(writes: usize) {
    let fake = content(|content| {
        let epoch = content.manifest.as_ref().unwrap().epoch();
        content.epochs[&epoch].fake.clone()
    });
    let mut platter = crate::sys::lock(&fake.0);
    platter.fails_at = Some(platter.writes + writes);
}

/// An epoch that is open, and keeps the directory locked.
struct Opened {
    fake: Fake,
    _open: Arc<()>,
    _lock: Arc<()>,
}

impl Disk for Opened {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, BackendError> {
        self.fake.get(key)
    }

    fn scan(&self, prefix: &[u8], visit: Visit<'_>) -> Result<(), BackendError> {
        self.fake.scan(prefix, visit)
    }

    fn apply(&self, sequence: u64, rows: &RowMap) -> Result<(), BackendError> {
        self.fake.apply(sequence, rows)
    }

    fn flush(&self) -> Result<(), BackendError> {
        self.fake.flush()
    }

    fn sync(&self) -> Result<(), BackendError> {
        self.fake.sync()
    }
}

pub(crate) struct Home {
    path: PathBuf,
    lock: Arc<()>,
}

/// The manifest of a store that somebody else may have open.
pub(crate) fn read_manifest(_: &Path) -> Result<Manifest, StoreError> {
    content(|content| content.manifest.clone()).ok_or(StoreError::NotFound)
}

impl Home {
    fn locked(path: &Path) -> Result<Self, StoreError> {
        let lock = Arc::new(());
        content(|content| {
            if content.lock.strong_count() > 0 {
                return Err(StoreError::Locked { owner: None });
            }
            content.lock = Arc::downgrade(&lock);
            Ok(())
        })?;
        Ok(Self {
            path: path.to_owned(),
            lock,
        })
    }

    pub(crate) fn begin(path: &Path) -> Result<Self, StoreError> {
        Self::locked(path)
    }

    pub(crate) fn find(path: &Path) -> Result<(Self, Manifest), StoreError> {
        let home = Self::locked(path)?;
        let manifest = content(|content| content.manifest.clone());
        Ok((home, manifest.ok_or(StoreError::NotFound)?))
    }

    pub(crate) fn create_epoch(
        &self,
        epoch: u64,
        _: BackendKind,
    ) -> Result<Box<dyn Disk>, StoreError> {
        let fake = Fake::default();
        let open = Arc::new(());
        content(|content| {
            content.renewing = content.manifest.is_some();
            let epochs = &mut content.epochs;
            let before = epochs.insert(
                epoch,
                Epoch {
                    fake: fake.clone(),
                    open: Arc::downgrade(&open),
                },
            );
            assert!(before.is_none(), "an epoch is made once");
        });
        Ok(self.opened(fake, open))
    }

    pub(crate) fn open_epoch(
        &self,
        epoch: u64,
        _: BackendKind,
    ) -> Result<(Box<dyn Disk>, u64), StoreError> {
        let open = Arc::new(());
        let fake = content(|content| {
            let epoch = content.epochs.get_mut(&epoch)?;
            assert_eq!(epoch.open.strong_count(), 0, "an epoch is opened once");
            epoch.open = Arc::downgrade(&open);
            Some(epoch.fake.clone())
        });
        let fake = fake.ok_or(StoreError::Damaged("the database is missing"))?;
        let last = crate::sys::lock(&fake.0).written;
        Ok((self.opened(fake, open), last))
    }

    fn opened(&self, fake: Fake, open: Arc<()>) -> Box<dyn Disk> {
        Box::new(Opened {
            fake,
            _open: open,
            _lock: Arc::clone(&self.lock),
        })
    }

    pub(crate) fn commit_to(
        &self,
        disk: Box<dyn Disk>,
        last: u64,
        _: &[u8; 16],
    ) -> Result<Committer<Box<dyn Disk>>, StoreError> {
        Ok(Committer::start(disk, last)?)
    }

    pub(crate) fn mark(&self, _: &[u8; 16]) -> Option<u64> {
        None
    }

    pub(crate) fn finish(&self, manifest: &Manifest) -> Result<(), StoreError> {
        content(|content| content.manifest = Some(manifest.clone()));
        Ok(())
    }

    pub(crate) fn tidy(&self, manifest: &Manifest) -> Result<(), StoreError> {
        content(|content| {
            content.aside = None;
            content.epochs.retain(|&number, epoch| {
                let stays = number == manifest.epoch();
                assert!(
                    stays || epoch.open.strong_count() == 0,
                    "an epoch was removed under whoever reads it"
                );
                stays
            });
        });
        Ok(())
    }

    pub(crate) fn place(&self) -> Place {
        Place {
            path: self.path.clone(),
            lock: Arc::downgrade(&self.lock),
        }
    }

    pub(crate) fn remove_rest_of_renewal(&self, epoch: u64) -> Result<(), StoreError> {
        content(|content| {
            content.renewing = false;
            content.aside = None;
            content.epochs.remove(&epoch);
        });
        Ok(())
    }

    pub(crate) fn manifest_to_retire(&self) -> Result<Retired, StoreError> {
        Ok(Retired)
    }

    pub(crate) fn write_manifest_aside(&self, manifest: &Manifest) -> Result<(), StoreError> {
        content(|content| content.aside = Some(manifest.clone()));
        Ok(())
    }

    pub(crate) fn rename_manifest(&self) -> Result<(), StoreError> {
        content(|content| content.manifest = content.aside.take());
        Ok(())
    }

    pub(crate) fn sync(&self) -> Result<(), StoreError> {
        content(|content| content.renewing = false);
        Ok(())
    }

    pub(crate) fn sync_epoch(&self, _: u64) -> Result<(), StoreError> {
        Ok(())
    }
}

pub(crate) struct Place {
    path: PathBuf,
    lock: Weak<()>,
}

impl Place {
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn home(&self) -> Option<Home> {
        Some(Home {
            path: self.path.clone(),
            lock: self.lock.upgrade()?,
        })
    }
}

pub(crate) struct Retired;

impl Retired {
    pub(crate) fn wipe(self) -> std::io::Result<()> {
        Ok(())
    }
}
