//! Disks that fail when a test says so, below a whole store.
//!
//! Only of the feature `inject-faults`, which is for tests: no published crate turns it on (`cargo xtask tidy` looks).

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use rand_core::CryptoRng;
use sprag_keys::Key;

use crate::backend::{BackendError, RowMap};
use crate::commit::Disk;
use crate::error::StoreError;
use crate::rows::Visit;
use crate::store::Store;

/// The steps of a commit, before and after they are done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Fault {
    /// Nothing was written.
    BeforeApply,
    /// The rows are in the database, and nowhere else.
    AfterApply,
    /// The operating system has the rows.
    AfterFlush,
    /// The rows are on stable storage.
    AfterSync,
}

/// Asked at each step of each commit what the disk shall answer.
#[derive(Clone)]
pub struct Faults(Arc<Plan>);

type Plan = dyn Fn(Fault) -> Result<(), BackendError> + Send + Sync;

impl fmt::Debug for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Faults").finish_non_exhaustive()
    }
}

impl Faults {
    /// From what is asked at each step.
    pub fn new(plan: impl Fn(Fault) -> Result<(), BackendError> + Send + Sync + 'static) -> Self {
        Self(Arc::new(plan))
    }

    pub(crate) fn below(&self, disk: Box<dyn Disk>) -> Box<dyn Disk> {
        let plan = self.clone();
        Box::new(Faulty { disk, plan })
    }
}

impl Store {
    /// As [`Store::open`], over a disk with faults, until its next renewal.
    ///
    /// # Errors
    ///
    /// Those of [`Store::open`].
    pub fn open_with_faults(
        home: impl AsRef<Path>,
        key: &Key,
        rng: impl CryptoRng + Send + 'static,
        faults: Faults,
    ) -> Result<Self, StoreError> {
        Self::open_over_disk(home.as_ref(), key, rng, &|disk| faults.below(disk))
    }
}

struct Faulty {
    disk: Box<dyn Disk>,
    plan: Faults,
}

impl Disk for Faulty {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, BackendError> {
        self.disk.get(key)
    }

    fn scan(&self, prefix: &[u8], visit: Visit<'_>) -> Result<(), BackendError> {
        self.disk.scan(prefix, visit)
    }

    fn apply(&self, sequence: u64, rows: &RowMap) -> Result<(), BackendError> {
        self.plan.0(Fault::BeforeApply)?;
        self.disk.apply(sequence, rows)?;
        self.plan.0(Fault::AfterApply)
    }

    fn flush(&self) -> Result<(), BackendError> {
        self.disk.flush()?;
        self.plan.0(Fault::AfterFlush)
    }

    fn sync(&self) -> Result<(), BackendError> {
        self.disk.sync()?;
        self.plan.0(Fault::AfterSync)
    }
}
