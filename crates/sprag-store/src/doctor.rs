//! The doctor: examines a store that nobody has open, explains what is wrong, and mends what redundancy allows.
//!
//! The directory itself is only read. Whether its database is whole is tried in a copy beside it, since databases rewrite
//! what they do not understand, and so is every remedy: one is offered only if the copy, so mended, holds every row of the
//! last commit that is known. [`repair`] then does the same to the directory, after it was copied aside.

mod look;
mod rows;

use std::fmt;
use std::path::{Path, PathBuf};

use rand_core::CryptoRng;
use sprag_keys::Key;

use self::look::Look;
use crate::error::StoreError;
use crate::home::Home;
use crate::store::Store;
use crate::sys::{LockFile, Scratch, Watch, copy_private, free_sibling, sync_below};

/// How bad something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Severity {
    /// Nothing to do.
    Note,
    /// It works, but not as it should.
    Warning,
    /// The store does not open, or has lost something.
    Damage,
}

impl Severity {
    /// In one word.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Damage => "damage",
        }
    }
}

/// Something that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Finding {
    /// What, in a word that does not change: see `docs/STORE.md`, *The doctor*.
    pub code: &'static str,
    /// How bad.
    pub severity: Severity,
    /// What it means, in a sentence. No names of users, no keys.
    pub explanation: String,
    /// What a repair would do about it, if it can.
    pub remedy: Option<Remedy>,
}

impl Finding {
    /// Something of another layer's.
    #[must_use]
    pub fn new(code: &'static str, severity: Severity, explanation: impl Into<String>) -> Self {
        Self {
            code,
            severity,
            explanation: explanation.into(),
            remedy: None,
        }
    }

    fn with(mut self, remedy: Remedy) -> Self {
        self.remedy = Some(remedy);
        self
    }
}

/// What a repair can do. Everything it needs is there twice, or is the same for all stores.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Remedy {
    /// Put the second manifest in the place of the first.
    RestoreManifest,
    /// Write the second manifest anew.
    RestoreCopy,
    /// Write sled's `conf` anew, which is the same in every store.
    RestoreConf,
    /// Remove sled's snapshots: it makes them from its log.
    DropSnapshots,
    /// Remove what a crash left over.
    RemoveLeftovers,
    /// Take the permissions of others away.
    RestrictModes,
}

impl Remedy {
    /// What it does, in a sentence.
    #[must_use]
    pub fn explanation(self) -> &'static str {
        match self {
            Self::RestoreManifest => "put MANIFEST.copy in the place of MANIFEST",
            Self::RestoreCopy => "write MANIFEST.copy anew, from MANIFEST",
            Self::RestoreConf => {
                "write the file conf of the database anew, as it is in every store"
            }
            Self::DropSnapshots => {
                "remove the snapshots of the database, which it makes anew from its log"
            }
            Self::RemoveLeftovers => "remove what an interrupted step left over",
            Self::RestrictModes => "take the permissions of other users away",
        }
    }
}

/// What an examination found.
pub struct Examination {
    findings: Vec<Finding>,
    /// Those that were tried, in their order.
    remedies: Vec<Remedy>,
    /// Over the copy. Dropped before it.
    store: Option<Store>,
    _scratch: Option<Scratch>,
}

impl fmt::Debug for Examination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Examination")
            .field("findings", &self.findings)
            .finish_non_exhaustive()
    }
}

impl Examination {
    /// What was found, the worst first.
    #[must_use]
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// Adds what another layer found in the rows.
    pub fn add(&mut self, findings: impl IntoIterator<Item = Finding>) {
        self.findings.extend(findings);
        self.findings
            .sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    }

    /// What a repair would do, in its order. Empty if there is nothing to repair, or if it would not help.
    #[must_use]
    pub fn remedies(&self) -> &[Remedy] {
        &self.remedies
    }

    /// The store, in a copy that is thrown away, after the remedies: for looking at its rows. `None` if it does not open.
    #[must_use]
    pub fn store(&self) -> Option<&Store> {
        self.store.as_ref()
    }
}

/// Examines the store in a directory. It may be read by nobody else meanwhile; the directory is not changed, and needs
/// as much room beside it as it takes.
///
/// # Errors
///
/// [`StoreError::NotFound`], [`StoreError::Locked`], [`StoreError::WrongKey`], [`StoreError::Key`], and those of the disk:
/// [`StoreError::Full`] if there is no room for the copy. Damage is no error here.
pub fn examine(
    home: impl AsRef<Path>,
    key: &Key,
    rng: impl CryptoRng + Send + 'static,
) -> Result<Examination, StoreError> {
    let home = home.as_ref();
    let _watch = watch(home)?;
    examine_watched(home, key, rng)
}

/// What a repair did.
#[derive(Debug)]
#[non_exhaustive]
pub struct Repair {
    /// What was done.
    pub done: Vec<Remedy>,
    /// Where the directory was copied to before.
    pub aside: PathBuf,
}

/// Does what [`examine`] says that a repair would do, after copying the directory aside. `None`, and nothing was touched,
/// if that is nothing.
///
/// # Errors
///
/// Those of [`examine`]. After an error of the disk the directory may be repaired in part; the copy is there.
pub fn repair(
    home: impl AsRef<Path>,
    key: &Key,
    rng: impl CryptoRng + Send + 'static,
) -> Result<Option<Repair>, StoreError> {
    let home = home.as_ref();
    let _watch = watch(home)?;
    let examination = examine_watched(home, key, rng)?;
    let done = examination.remedies.clone();
    drop(examination);
    if done.is_empty() {
        return Ok(None);
    }
    let aside = free_sibling(home, "before-repair").map_err(StoreError::io)?;
    copy_private(home, &aside)
        .and_then(|()| sync_below(&aside))
        .map_err(StoreError::io)?;
    let look = Look::at(home)?;
    for remedy in &done {
        look.apply(*remedy, home)?;
    }
    Ok(Some(Repair { done, aside }))
}

/// Keeps others out, without leaving a trace.
fn watch(home: &Path) -> Result<Option<Watch>, StoreError> {
    Home::look_for(home)?;
    Watch::hold(home)
}

fn examine_watched(
    home: &Path,
    key: &Key,
    rng: impl CryptoRng + Send + 'static,
) -> Result<Examination, StoreError> {
    let look = Look::at(home)?;
    let mut findings = look.findings.clone();
    let mut remedies: Vec<_> = findings
        .iter()
        .filter_map(|finding| finding.remedy)
        .collect();
    remedies.sort();
    remedies.dedup();

    let mut tried = attempt(&look, &remedies, home, key)?;
    if !tried.findings.is_empty() && look.has_snapshots {
        let more = [&remedies[..], &[Remedy::DropSnapshots]].concat();
        let wrong = std::mem::take(&mut tried.findings);
        // There is one scratch at a time.
        drop(tried);
        tried = attempt(&look, &more, home, key)?;
        // Whole, and not only an older state that is whole: the mark says so.
        if tried.findings.is_empty() && tried.reaches_mark {
            let what = "a snapshot of the database is not what was written; its log is";
            let finding = Finding::new("snapshot_damaged", Severity::Damage, what);
            findings.push(finding.with(Remedy::DropSnapshots));
            remedies = more;
        } else {
            tried.findings = wrong;
        }
    }
    let mut store = None;
    if tried.findings.is_empty() {
        store = Some(Store::open(tried.scratch.path(), key, rng)?);
    } else {
        // What would not help is not offered.
        remedies.clear();
        for finding in &mut findings {
            finding.remedy = None;
        }
        findings.append(&mut tried.findings);
    }
    let mut examination = Examination {
        findings,
        remedies,
        store,
        _scratch: Some(tried.scratch),
    };
    examination.add([]);
    Ok(examination)
}

/// A copy, mended, and what is still wrong with it.
struct Attempt {
    scratch: Scratch,
    findings: Vec<Finding>,
    reaches_mark: bool,
}

fn attempt(
    look: &Look,
    remedies: &[Remedy],
    home: &Path,
    key: &Key,
) -> Result<Attempt, StoreError> {
    let scratch = Scratch::beside(home).map_err(StoreError::io)?;
    copy_private(home, scratch.path()).map_err(StoreError::io)?;
    for remedy in remedies {
        look.apply(*remedy, scratch.path())?;
    }
    let lock = LockFile::acquire(&scratch.path().join("LOCK"))?;
    let (findings, reaches_mark) = rows::check(scratch.path(), key, lock)?;
    Ok(Attempt {
        scratch,
        findings,
        reaches_mark,
    })
}
