//! The invariants of the repository, tested: what must not be there, and what must agree.

mod documents;
mod graph;
mod manifests;
mod sources;
mod supply;

use std::path::{Path, PathBuf};
use std::{fs, io};

pub(crate) use self::supply::Budget;
use crate::metadata::Metadata;
use crate::{Outcome, say};

/// What the checks found.
#[derive(Default)]
pub(crate) struct Report {
    problems: Vec<String>,
    warnings: Vec<String>,
}

impl Report {
    fn problem(&mut self, text: impl Into<String>) {
        self.problems.push(text.into());
    }

    fn warning(&mut self, text: impl Into<String>) {
        self.warnings.push(text.into());
    }
}

/// `cargo xtask tidy`: all checks, then one list of what is wrong.
pub(crate) fn run(root: &Path) -> Outcome {
    let metadata = Metadata::load(root)?;
    let files = files(root)?;
    let mut report = Report::default();
    graph::check(&metadata, &mut report);
    manifests::check(root, &metadata, &mut report)?;
    sources::check(&metadata, &mut report)?;
    supply::check(root, &metadata, &mut report)?;
    documents::check(root, &files, &mut report)?;
    for warning in &report.warnings {
        say!("warning: {warning}");
    }
    for problem in &report.problems {
        say!("problem: {problem}");
    }
    match report.problems.len() {
        0 => Ok(()),
        count => Err(format!("tidy: {count} to mend").into()),
    }
}

/// Every file of the repository; what tools leave behind is passed over.
fn files(root: &Path) -> io::Result<Vec<PathBuf>> {
    let left_behind = [
        ".git",
        "target",
        ".venv",
        "__pycache__",
        "artifacts",
        "coverage",
    ];
    walk(root, &|name| left_behind.contains(&name))
}

/// The files below a folder, in a stable order.
fn walk(folder: &Path, skip: &dyn Fn(&str) -> bool) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut waiting = vec![folder.to_path_buf()];
    while let Some(folder) = waiting.pop() {
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let kind = entry.file_type()?;
            if entry.file_name().to_str().is_some_and(skip) {
                // `.git` is a file in a second work tree.
                continue;
            }
            if kind.is_dir() {
                waiting.push(entry.path());
            } else if kind.is_file() {
                found.push(entry.path());
            }
        }
    }
    found.sort();
    Ok(found)
}

/// A path as people write it: relative to the root, with forward slashes.
fn shown(root: &Path, path: &Path) -> String {
    let relative = path.strip_prefix(root).unwrap_or(path);
    relative.to_string_lossy().replace('\\', "/")
}
