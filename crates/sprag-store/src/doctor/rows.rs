//! Whether a database holds every row of its last commit.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use sprag_keys::Key;

use super::{Finding, Severity};
use crate::backend::BackendError;
use crate::commit::Disk;
use crate::disk::guarded;
use crate::error::StoreError;
use crate::home::Home;
use crate::manifest::StoreKeys;
use crate::sealed::{Digest, META_KEY, Meta, Sealer};
use crate::sys::LockFile;

fn damage(code: &'static str, explanation: impl Into<String>) -> Finding {
    Finding::new(code, Severity::Damage, explanation)
}

/// Opens the database in a directory that may be changed, and counts its rows over. Also says whether it reaches the
/// commit that the mark names.
pub(super) fn check(
    home: &Path,
    key: &Key,
    lock: LockFile,
) -> Result<(Vec<Finding>, bool), StoreError> {
    let (home, manifest) = match Home::found(home, lock) {
        Ok(found) => found,
        // What is wrong with a manifest was said when it was looked at.
        Err(StoreError::Damaged(_) | StoreError::UnsupportedVersion | StoreError::NotFound) => {
            let what = "without its manifest nothing of the store can be read";
            return Ok((vec![damage("unreadable", what)], false));
        }
        Err(error) => return Err(error),
    };
    let keys = manifest.unlock(key)?;
    let kind = manifest.backend();
    let kind = kind.ok_or(StoreError::Damaged("the manifest names no database"))?;
    let (disk, last) = match home.open_epoch(keys.epoch(), kind) {
        Ok(opened) => opened,
        Err(StoreError::Damaged(what)) => {
            return Ok((
                vec![damage(
                    "database_damaged",
                    format!("{what}; it does not open"),
                )],
                false,
            ));
        }
        Err(error) => return Err(error),
    };
    let findings = count(&*disk, last, &keys);
    // A damaged database may panic when it goes, too.
    let _ = catch_unwind(AssertUnwindSafe(|| drop(disk)));
    let mut findings = findings?;
    let mark = home.mark(keys.store_id());
    if let Some(mark) = mark.filter(|mark| *mark > last) {
        let what = format!(
            "the database ends with commit {last}, but the store got to {mark} at least: its last commits are missing, \
             and going on would use keys twice"
        );
        findings.push(damage("commits_missing", what));
    }
    Ok((findings, mark.is_some_and(|mark| mark <= last)))
}

/// Counts all rows over, and opens each.
fn count(disk: &dyn Disk, last: u64, keys: &StoreKeys) -> Result<Vec<Finding>, StoreError> {
    let sealer = Sealer::new(keys);
    let found = guarded(|| {
        let mut digest = Digest::default();
        let mut unreadable: BTreeMap<u8, u64> = BTreeMap::new();
        disk.scan(&[], &mut |name, sealed| {
            if name != META_KEY {
                let table = name.first().copied().unwrap_or_default();
                digest.add(table, sealer.mark(name, sealed));
                if sealer.open(name, sealed).is_err() {
                    *unreadable.entry(table).or_default() += 1;
                }
            }
            ControlFlow::Continue(())
        })?;
        Ok::<_, BackendError>((disk.get(META_KEY)?, digest, unreadable))
    });
    let (meta, digest, unreadable) = match found {
        Ok(found) => found,
        Err(StoreError::Damaged(what)) => {
            return Ok(vec![damage(
                "database_damaged",
                format!("{what} while its rows were read"),
            )]);
        }
        Err(error) => return Err(error),
    };
    let opened = meta.map(|meta| {
        let opened = sealer.open(META_KEY, &meta)?;
        Meta::decode(opened.value())
    });
    let meta = match opened {
        Some(Ok(meta)) => meta,
        Some(Err(StoreError::UnsupportedVersion)) => return Err(StoreError::UnsupportedVersion),
        _ => {
            let what = "the row that counts all others is missing or damaged: nobody knows what is missing";
            return Ok(vec![damage("meta_damaged", what)]);
        }
    };
    let mut findings = Vec::new();
    if meta.sequence != last {
        let what = format!(
            "the database ends with commit {last}, its rows with {}",
            meta.sequence
        );
        findings.push(damage("meta_outdated", what));
    }
    for (table, (ours, theirs)) in digest.compared(&meta.digest) {
        let what = match ours.cmp(&theirs) {
            std::cmp::Ordering::Less => format!("{} of its rows are missing", theirs - ours),
            std::cmp::Ordering::Greater => format!("it has {} rows too many", ours - theirs),
            std::cmp::Ordering::Equal => "rows are changed, exchanged or outdated".to_owned(),
        };
        findings.push(damage(
            "rows_wrong",
            format!("table {table:02x}, of {theirs} rows: {what}"),
        ));
    }
    for (table, count) in unreadable {
        let what = format!("table {table:02x}: {count} rows do not open with the key of the store");
        findings.push(damage("rows_unreadable", what));
    }
    Ok(findings)
}
