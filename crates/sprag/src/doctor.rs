//! The doctor: examines a profile that nobody has open, and mends what redundancy allows.

use std::path::{Path, PathBuf};

use sprag_keys::Key;
use sprag_session::{Device, Oddity};
use sprag_store::doctor::{self, Examination};
pub use sprag_store::doctor::{Finding, Remedy, Severity};

use crate::client::Client;
use crate::notifier::Notifier;
use crate::pending::Pending;
use crate::{Error, sys};

/// What an examination found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Checkup {
    /// What was found, the worst first. Explanations name no users and hold no keys.
    pub findings: Vec<Finding>,
    /// What [`Client::repair`] would do, in its order. Empty if there is nothing to repair, or if it would not help.
    pub remedies: Vec<Remedy>,
}

impl Checkup {
    /// Whether something was lost or does not open.
    #[must_use]
    pub fn is_damaged(&self) -> bool {
        let mut findings = self.findings.iter();
        findings.any(|finding| finding.severity == Severity::Damage)
    }
}

/// What a repair did.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Repaired {
    /// What was done, in this order.
    pub done: Vec<Remedy>,
    /// Where the directory was copied to before.
    pub aside: PathBuf,
    /// What is found now.
    pub after: Checkup,
}

impl Client {
    /// Examines the profile in `directory`, which nobody may have open: its files, its database in a copy beside it, every
    /// row, and whether the rows fit each other. Nothing of it is changed. Needs as much room beside the directory as that
    /// takes, and the time of an open and a copy.
    ///
    /// # Errors
    /// `no_profile`, `store_in_use`, `wrong_key`, `key_unreadable`, `store_version`, `store_full`, `store_failed`. Damage
    /// is no error here.
    pub fn doctor(directory: impl AsRef<Path>, key: Key) -> Result<Checkup, Error> {
        Self::start_doctor(directory, key).wait()
    }

    /// Does what [`doctor`](Self::doctor) says that a repair would do, and nothing else, after copying the directory to a
    /// place beside it. `None`, and nothing was touched, if that is nothing. Show the remedies to the user first.
    ///
    /// # Errors
    /// Those of [`doctor`](Self::doctor). After `store_full` and `store_failed` it may be repaired in part: the copy is
    /// there.
    pub fn repair(directory: impl AsRef<Path>, key: Key) -> Result<Option<Repaired>, Error> {
        Self::start_repair(directory, key).wait()
    }

    /// See [`Client::doctor`].
    pub fn start_doctor(directory: impl AsRef<Path>, key: Key) -> Pending<Checkup> {
        let directory = directory.as_ref().to_path_buf();
        apart(move || examined(&directory, &key))
    }

    /// See [`Client::repair`].
    pub fn start_repair(directory: impl AsRef<Path>, key: Key) -> Pending<Option<Repaired>> {
        let directory = directory.as_ref().to_path_buf();
        apart(move || {
            let Some(repair) = doctor::repair(&directory, &key, sys::rng())? else {
                return Ok(None);
            };
            let after = examined(&directory, &key)?;
            Ok(Some(Repaired {
                done: repair.done,
                aside: repair.aside,
                after,
            }))
        })
    }
}

fn examined(directory: &Path, key: &Key) -> Result<Checkup, Error> {
    let mut examination = doctor::examine(directory, key, sys::rng())?;
    let odd = oddities(&examination)?;
    examination.add(odd);
    Ok(Checkup {
        findings: examination.findings().to_vec(),
        remedies: examination.remedies().to_vec(),
    })
}

fn oddities(examination: &Examination) -> Result<Vec<Finding>, Error> {
    let Some(store) = examination.store() else {
        return Ok(Vec::new());
    };
    let found = Device::inspect(store)?.into_iter();
    let findings = found.map(|oddity| match oddity {
        Oddity::Undecodable(what) => Finding::new("record_damaged", Severity::Damage, what),
        Oddity::Disagreement(what) => Finding::new("records_disagree", Severity::Warning, what),
        _ => Finding::new(
            "records_disagree",
            Severity::Warning,
            "something does not fit",
        ),
    });
    Ok(findings.collect())
}

/// Does something on a thread of its own.
fn apart<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Pending<T> {
    let (completer, pending) = Pending::new(Notifier::new());
    if sys::spawn("sprag doctor", move || completer.complete(work())) {
        pending
    } else {
        let failed = Err(Error::internal("the system gives no thread"));
        Pending::ready(Notifier::new(), failed)
    }
}
