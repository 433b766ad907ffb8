//! The supply chain: licences, sources and bans of `deny.toml`, and the budget.
//!
//! `cargo deny` reads the same file and knows advisories as well; this is the part that needs neither an installed
//! program nor a network.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use serde::Deserialize;

use super::Report;
use crate::metadata::{Metadata, Package};
use crate::{Outcome, cargo};

#[derive(Deserialize)]
struct Deny {
    licenses: Licences,
    bans: Bans,
    sources: Sources,
}

#[derive(Deserialize)]
struct Licences {
    allow: Vec<String>,
    exceptions: Vec<LicenceException>,
}

#[derive(Deserialize)]
struct LicenceException {
    #[serde(rename = "crate")]
    name: String,
    allow: Vec<String>,
}

#[derive(Deserialize)]
struct Bans {
    deny: Vec<Banned>,
}

#[derive(Deserialize)]
struct Banned {
    #[serde(rename = "crate")]
    name: String,
    reason: String,
    /// Crates that may depend on it all the same.
    #[serde(default)]
    wrappers: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Sources {
    allow_registry: Vec<String>,
}

/// `budget.toml`.
#[derive(Deserialize)]
pub(crate) struct Budget {
    /// Crates that the facade links with its default features, itself included.
    facade_crates: usize,
    /// Size of the release build of the program, in KiB.
    pub(crate) program_kib: u64,
}

impl Budget {
    pub(crate) fn load(root: &Path) -> Outcome<Self> {
        Ok(toml::from_str(&fs::read_to_string(
            root.join("budget.toml"),
        )?)?)
    }
}

pub(super) fn check(root: &Path, metadata: &Metadata, report: &mut Report) -> Outcome {
    let deny: Deny = toml::from_str(&fs::read_to_string(root.join("deny.toml"))?)?;
    for package in &metadata.packages {
        check_package(package, &deny, &metadata.dependents(package), report);
    }
    let (count, most) = (facade_crates(root)?, Budget::load(root)?.facade_crates);
    if count > most {
        report.problem(format!(
            "the facade links {count} crates; budget.toml allows {most}"
        ));
    }
    Ok(())
}

fn check_package(package: &Package, deny: &Deny, dependents: &[&str], report: &mut Report) {
    let (name, version) = (&package.name, &package.version);
    let exceptions = deny
        .licenses
        .exceptions
        .iter()
        .filter(|exception| exception.name == *name);
    let extra = exceptions.flat_map(|exception| &exception.allow);
    let allowed: Vec<&str> = deny
        .licenses
        .allow
        .iter()
        .chain(extra)
        .map(String::as_str)
        .collect();
    let licence = package.license.as_deref().unwrap_or("");
    if !permits(licence, &allowed) {
        report.problem(format!(
            "{name} {version}: the licence \"{licence}\" is not allowed"
        ));
    }
    if let Some(banned) = deny.bans.deny.iter().find(|banned| banned.name == *name) {
        for dependent in unwrapped(&banned.wrappers, dependents) {
            let reason = &banned.reason;
            report.problem(format!(
                "{name} {version}, of {dependent}, is banned: {reason}"
            ));
        }
    }
    if let Some(source) = &package.source {
        let registry = source.strip_prefix("registry+").unwrap_or(source);
        if !deny
            .sources
            .allow_registry
            .iter()
            .any(|allowed| allowed == registry)
        {
            report.problem(format!("{name} {version} comes from {source}"));
        }
    }
}

/// Those who depend on a banned crate and may not. Without wrappers that is everybody.
fn unwrapped<'a>(wrappers: &'a [String], dependents: &'a [&str]) -> impl Iterator<Item = &'a str> {
    let allowed = |dependent: &&&str| !wrappers.iter().any(|wrapper| wrapper == **dependent);
    dependents.iter().filter(allowed).copied()
}

/// Whether an SPDX expression can be fulfilled with the allowed licences. An old-fashioned `/` means `OR`.
fn permits(expression: &str, allowed: &[&str]) -> bool {
    let spaced = expression
        .replace('(', " ( ")
        .replace(')', " ) ")
        .replace('/', " OR ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut words = words.as_slice();
    any_of(&mut words, allowed) == Some(true) && words.is_empty()
}

/// `None`: not an expression.
fn any_of(words: &mut &[&str], allowed: &[&str]) -> Option<bool> {
    let mut permitted = all_of(words, allowed)?;
    while take(words, "OR") {
        permitted |= all_of(words, allowed)?;
    }
    Some(permitted)
}

fn all_of(words: &mut &[&str], allowed: &[&str]) -> Option<bool> {
    let mut permitted = one(words, allowed)?;
    while take(words, "AND") {
        permitted &= one(words, allowed)?;
    }
    Some(permitted)
}

fn one(words: &mut &[&str], allowed: &[&str]) -> Option<bool> {
    if take(words, "(") {
        let permitted = any_of(words, allowed)?;
        return take(words, ")").then_some(permitted);
    }
    let licence = words.split_off_first()?;
    if take(words, "WITH") {
        // A licence with an exception is a licence of its own: list it whole, or take another that is offered.
        let whole = format!("{licence} WITH {}", words.split_off_first()?);
        return Some(allowed.contains(&whole.as_str()));
    }
    Some(allowed.contains(licence))
}

fn take(words: &mut &[&str], word: &str) -> bool {
    let stands = words.first() == Some(&word);
    if stands {
        words.split_off_first();
    }
    stands
}

/// Counts on one platform, so that the number is the same everywhere.
fn facade_crates(root: &Path) -> Outcome<usize> {
    let output = Command::new(cargo())
        .args(["tree", "--package", "sprag", "--edges", "normal"])
        .args(["--target", "x86_64-unknown-linux-gnu"])
        .args(["--prefix", "none", "--no-dedupe", "--format", "{p}"])
        .current_dir(root)
        .output()?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned().into());
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let crates: BTreeSet<&str> = text.lines().filter(|line| !line.is_empty()).collect();
    Ok(crates.len())
}

#[cfg(test)]
mod tests {
    use super::{permits, unwrapped};

    const ALLOWED: &[&str] = &["MIT", "Apache-2.0", "Unicode-3.0"];

    #[test]
    fn a_choice_with_one_allowed_licence_is_permitted() {
        for licence in [
            "MIT",
            "MIT/Apache-2.0",
            "Unlicense OR MIT",
            "(MIT OR Apache-2.0) AND Unicode-3.0",
            "Apache-2.0 WITH LLVM-exception OR Apache-2.0 OR MIT",
            "MIT OR AGPL-3.0 AND ISC",
        ] {
            assert!(permits(licence, ALLOWED), "{licence}");
        }
    }

    #[test]
    fn a_banned_crate_is_for_its_wrappers_only() {
        let wrappers = ["rustls".to_owned()];
        let wrong = |dependents| unwrapped(&wrappers, dependents).collect::<Vec<_>>();
        assert_eq!(wrong(&["rustls"]), [""; 0]);
        assert_eq!(wrong(&["rustls", "sprag-keys"]), ["sprag-keys"]);
        assert_eq!(unwrapped(&[], &["rustls"]).collect::<Vec<_>>(), ["rustls"]);
    }

    #[test]
    fn what_cannot_be_fulfilled_is_refused() {
        for licence in [
            "",
            "AGPL-3.0-only",
            "MIT AND GPL-3.0-only",
            "(MIT OR Apache-2.0) AND NCSA",
            "Apache-2.0 WITH LLVM-exception",
            "MIT OR",
            "(MIT",
            "MIT MIT",
        ] {
            assert!(!permits(licence, ALLOWED), "{licence}");
        }
    }
}
