//! What can be seen of a store's directory without opening anything.

use std::path::{Path, PathBuf};

use super::{Finding, Remedy, Severity};
use crate::error::StoreError;
use crate::home::{COPY, CREATING, Home, LOCK, MANIFEST, epoch_of};
use crate::manifest::{BackendKind, MANIFEST_LEN, Manifest};
use crate::mark::{self, MARK};
#[cfg(feature = "sled")]
use crate::sys::Scratch;
use crate::sys::{
    aside, file_len, is_open_to_others, names_in, read_file, remove_dir, remove_file, replace_file,
    restrict, sync_dir,
};

/// What was seen.
pub(super) struct Look {
    pub(super) findings: Vec<Finding>,
    /// Whether sled has snapshots that it could do without.
    pub(super) has_snapshots: bool,
    /// The manifest that counts: the first, or the second in its place.
    manifest: Option<Manifest>,
    /// Names in the directory that a crash left over.
    leftovers: Vec<String>,
    /// What sled's `conf` should be.
    conf: Option<Vec<u8>>,
}

/// A manifest, or why there is none.
enum Seen {
    Good(Box<Manifest>),
    Missing,
    Damaged,
    Newer,
}

impl Seen {
    fn at(home: &Path, name: &str) -> Result<Self, StoreError> {
        let max = u64::try_from(MANIFEST_LEN).unwrap_or(u64::MAX);
        let Some(bytes) = read_file(&home.join(name), max).map_err(StoreError::io)? else {
            return Ok(Self::Missing);
        };
        Ok(match Manifest::from_bytes(&bytes) {
            Ok(manifest) => Self::Good(Box::new(manifest)),
            Err(StoreError::UnsupportedVersion | StoreError::Key(_)) => Self::Newer,
            Err(_) => Self::Damaged,
        })
    }

    fn good(&self) -> Option<&Manifest> {
        match self {
            Self::Good(manifest) => Some(manifest),
            _ => None,
        }
    }
}

impl Look {
    pub(super) fn at(home: &Path) -> Result<Self, StoreError> {
        let names = names_in(home).map_err(StoreError::io)?;
        let mut look = Self {
            findings: Vec::new(),
            has_snapshots: false,
            manifest: None,
            leftovers: Vec::new(),
            conf: None,
        };
        look.at_manifests(home, &names)?;
        look.at_names(&names);
        if let Some(manifest) = look.manifest.clone() {
            look.at_mark(home, &manifest, &names);
            look.at_database(home, &manifest, &names)?;
        }
        look.at_modes(home)?;
        Ok(look)
    }

    fn found(&mut self, code: &'static str, severity: Severity, what: impl Into<String>) {
        self.findings.push(Finding::new(code, severity, what));
    }

    fn found_with(&mut self, remedy: Remedy, code: &'static str, severity: Severity, what: &str) {
        let finding = Finding::new(code, severity, what);
        self.findings.push(finding.with(remedy));
    }

    fn at_manifests(&mut self, home: &Path, names: &[String]) -> Result<(), StoreError> {
        let (first, second) = (Seen::at(home, MANIFEST)?, Seen::at(home, COPY)?);
        let (code, what) = match &first {
            Seen::Good(first) => {
                match &second {
                    Seen::Good(second) if second.as_bytes() == first.as_bytes() => {}
                    Seen::Missing => self.found_with(
                        Remedy::RestoreCopy,
                        "manifest_copy_missing",
                        Severity::Warning,
                        "there is no second manifest: if the first were damaged, the store would be lost",
                    ),
                    _ => self.found_with(
                        Remedy::RestoreCopy,
                        "manifest_copy_differs",
                        Severity::Warning,
                        "the second manifest is not the first once more: an interrupted renewal, or damage",
                    ),
                }
                self.manifest = Some((**first).clone());
                return Ok(());
            }
            Seen::Missing => (
                "manifest_missing",
                "the manifest, which holds the key, is missing",
            ),
            Seen::Damaged => (
                "manifest_damaged",
                "the manifest, which holds the key, is not what was written",
            ),
            Seen::Newer => (
                "manifest_version",
                "the manifest was written by a newer version, or is damaged",
            ),
        };
        // The second one may be of before a renewal that came to its end: then its epoch is past, and so are its keys.
        let present = |epoch| names.iter().filter_map(|name| epoch_of(name)).max() == Some(epoch);
        match second.good().filter(|second| present(second.epoch())) {
            Some(second) => {
                self.manifest = Some(second.clone());
                self.found_with(Remedy::RestoreManifest, code, Severity::Damage, what);
            }
            None => {
                self.found(
                    code,
                    Severity::Damage,
                    format!("{what}, and there is no second one to go by"),
                );
            }
        }
        Ok(())
    }

    fn at_names(&mut self, names: &[String]) {
        let live = self.manifest.as_ref().map(Manifest::epoch);
        for name in names {
            match name.as_str() {
                LOCK | MANIFEST | COPY | MARK => {}
                name if name == CREATING
                    || [aside(MANIFEST), aside(COPY)]
                        .iter()
                        .any(|aside| aside == name) =>
                {
                    self.leftover(name, "an interrupted step left it");
                }
                name => match epoch_of(name) {
                    Some(epoch) if Some(epoch) == live => {}
                    Some(_) if live.is_some() => {
                        self.leftover(name, "an interrupted renewal left it");
                    }
                    Some(_) => {}
                    None => self.found(
                        "unknown_file",
                        Severity::Note,
                        format!("{name} is no file of a store"),
                    ),
                },
            }
        }
        if !names.iter().any(|name| name == LOCK) {
            self.found(
                "lock_missing",
                Severity::Note,
                "the lock file is missing; opening makes it",
            );
        }
    }

    fn leftover(&mut self, name: &str, why: &str) {
        self.leftovers.push(name.to_owned());
        let what = format!("{name} is left over: {why}");
        self.found_with(Remedy::RemoveLeftovers, "leftover", Severity::Note, &what);
    }

    fn at_mark(&mut self, home: &Path, manifest: &Manifest, names: &[String]) {
        if !names.iter().any(|name| name == MARK) {
            let what = "there is no mark of how far the store got: lost commits at its end would go unnoticed until the next";
            self.found("mark_missing", Severity::Warning, what);
        } else if mark::read(home, &manifest.store_id()).is_none() {
            let what = "the mark of how far the store got is damaged, or another store's; the next commit writes it anew";
            self.found("mark_unreadable", Severity::Warning, what);
        }
    }

    fn at_database(
        &mut self,
        home: &Path,
        manifest: &Manifest,
        names: &[String],
    ) -> Result<(), StoreError> {
        let name = Home::epoch_name(manifest.epoch());
        if !names.contains(&name) {
            self.found(
                "database_missing",
                Severity::Damage,
                format!("the database, {name}, is missing"),
            );
            return Ok(());
        }
        let dir = home.join(&name);
        let file = match manifest.backend() {
            Some(BackendKind::Sled) => "db",
            _ => "rows.redb",
        };
        match file_len(&dir.join(file)) {
            Ok(1..) => {}
            _ => self.found(
                "rows_file_missing",
                Severity::Damage,
                format!("{name}/{file}, which holds the rows, is missing or empty"),
            ),
        }
        if manifest.backend() == Some(BackendKind::Sled) {
            self.at_sled(home, &dir, &name)?;
        }
        Ok(())
    }

    fn at_sled(&mut self, home: &Path, dir: &Path, name: &str) -> Result<(), StoreError> {
        for file in names_in(dir).map_err(StoreError::io)? {
            if file.starts_with("snap.") && file.ends_with(".generating") {
                self.leftover(
                    &format!("{name}/{file}"),
                    "a crash while the database opened left it half-written",
                );
            } else if file.starts_with("snap.") {
                self.has_snapshots = true;
            }
        }
        let found = read_file(&dir.join("conf"), 1 << 12).map_err(StoreError::io)?;
        #[cfg(feature = "sled")]
        {
            let scratch = Scratch::beside(home).map_err(StoreError::io)?;
            let conf = crate::sled::fresh_conf(scratch.path())?;
            let (code, what) = match &found {
                Some(found) if *found == conf => return Ok(()),
                Some(_) => (
                    "conf_differs",
                    "the file conf of the database is not what sled writes for a store",
                ),
                None => ("conf_missing", "the file conf of the database is missing"),
            };
            self.conf = Some(conf);
            self.found_with(Remedy::RestoreConf, code, Severity::Damage, what);
        }
        #[cfg(not(feature = "sled"))]
        let _ = (found, home);
        Ok(())
    }

    fn at_modes(&mut self, home: &Path) -> Result<(), StoreError> {
        if private_paths(home)?
            .iter()
            .any(|path| is_open_to_others(path))
        {
            self.found_with(
                Remedy::RestrictModes,
                "mode",
                Severity::Warning,
                "other users of this machine may read or write files of the store",
            );
        }
        Ok(())
    }

    /// Does one thing to a directory: the one that was looked at, or a copy of it.
    pub(super) fn apply(&self, remedy: Remedy, home: &Path) -> Result<(), StoreError> {
        let manifest = self.manifest.as_ref();
        let manifest = manifest.ok_or(StoreError::Internal("a remedy without a manifest"));
        let done = match remedy {
            Remedy::RestoreManifest => replace_file(home, MANIFEST, manifest?.as_bytes()),
            Remedy::RestoreCopy => replace_file(home, COPY, manifest?.as_bytes()),
            Remedy::RestoreConf => {
                let conf = self.conf.as_deref().unwrap_or_default();
                replace_file(&self.database(home)?, "conf", conf)
            }
            Remedy::DropSnapshots => {
                let dir = self.database(home)?;
                for name in names_in(&dir).map_err(StoreError::io)? {
                    if name.starts_with("snap.") {
                        remove_file(&dir, &name).map_err(StoreError::io)?;
                    }
                }
                Ok(())
            }
            Remedy::RemoveLeftovers => {
                for name in &self.leftovers {
                    let path = home.join(name);
                    let removed = match path.is_dir() {
                        true => remove_dir(&path),
                        false => remove_file(home, name),
                    };
                    removed.map_err(StoreError::io)?;
                }
                sync_dir(home)
            }
            Remedy::RestrictModes => private_paths(home)?
                .iter()
                .try_for_each(|path| restrict(path)),
        };
        done.map_err(StoreError::io)
    }

    fn database(&self, home: &Path) -> Result<PathBuf, StoreError> {
        let manifest = self.manifest.as_ref();
        let manifest = manifest.ok_or(StoreError::Internal("a remedy without a manifest"))?;
        Ok(home.join(Home::epoch_name(manifest.epoch())))
    }
}

/// What is to be the owner's alone: the directory and what is ours directly in it. What is deeper is behind that.
fn private_paths(home: &Path) -> Result<Vec<PathBuf>, StoreError> {
    let names = names_in(home).map_err(StoreError::io)?;
    let ours = |name: &&String| {
        [LOCK, MANIFEST, COPY, MARK].contains(&name.as_str()) || epoch_of(name).is_some()
    };
    let below = names.iter().filter(ours).map(|name| home.join(name));
    Ok(std::iter::once(home.to_path_buf()).chain(below).collect())
}
