//! What source files may name.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::{fs, io};

use super::{Report, shown, walk};
use crate::code::{code_only, lines_naming, std_modules, test_modules, without_tests};
use crate::metadata::{Metadata, Package};

/// Modules of `std` that a crate names only in certain files.
struct Rule {
    crates: &'static [&'static str],
    modules: &'static [&'static str],
    /// `x` stands for `src/x.rs` and for everything in `src/x/`.
    only_in: &'static [&'static str],
}

const RULES: &[Rule] = &[
    Rule {
        crates: &[
            "sprag-crypto",
            "sprag-wire",
            "sprag-x3dh",
            "sprag-ratchet",
            "sprag-session",
            "sprag-vault",
            "sprag-search",
            "sprag-redact",
        ],
        modules: &["fs", "net", "time", "thread", "env", "process", "os"],
        only_in: &[],
    },
    Rule {
        crates: &["sprag-store"],
        modules: &["fs", "net", "time", "thread"],
        only_in: &["sys", "sled", "commit", "sync"],
    },
    Rule {
        crates: &["sprag-directory"],
        modules: &["fs", "net", "time", "thread"],
        only_in: &["sys", "storage"],
    },
    Rule {
        crates: &["sprag-keys"],
        modules: &["fs", "net", "time", "thread"],
        only_in: &["sys"],
    },
    Rule {
        crates: &["sprag"],
        modules: &["fs", "net", "thread"],
        only_in: &["sys"],
    },
];

/// Crates that are named in one place only: (name, in these crates of ours, in this place).
const SINGULAR: &[(&str, &[&str], &str)] = &[
    ("sled", &["sprag-store"], "sled"),
    ("keyring_core", &["sprag-store", "sprag-keys"], "keyring"),
    ("libcrux_ml_kem", &["sprag-crypto"], "kem"),
    ("hpke", &["sprag-crypto"], "recipient"),
    ("getrandom", &["sprag", "sprag-cli"], "sys"),
];

/// Clocks, and the crates that are programs enough to measure how long something took.
const CLOCKS: &[(&str, &[&str])] = &[("SystemTime::now", &[]), ("Instant::now", &["sprag-cli"])];

/// A file grown beyond this, tests not counted, wants to be two.
const LONG_FILE: usize = 500;

pub(super) fn check(metadata: &Metadata, report: &mut Report) -> io::Result<()> {
    for package in metadata.members() {
        check_roots(package, report)?;
    }
    for package in metadata.published() {
        let sources = package.folder().join("src");
        let mut files = BTreeMap::new();
        let mut tests = BTreeSet::new();
        for path in walk(&sources, &|name| name == "generated")? {
            if path.extension().is_some_and(|extension| extension == "rs") {
                let code = code_only(&fs::read_to_string(&path)?);
                let folder = module_folder(&path);
                tests.extend(test_modules(&code).iter().map(|name| folder.join(name)));
                files.insert(path, without_tests(&code));
            }
        }
        for (path, code) in &files {
            let is_test = |above: &Path| tests.contains(&above.with_extension(""));
            if !path.ancestors().any(is_test) {
                check_file(package, path, &place(&sources, path), code, report);
            }
        }
    }
    Ok(())
}

/// Where the modules that a file declares have their files.
fn module_folder(path: &Path) -> PathBuf {
    let stem = path.file_stem().and_then(OsStr::to_str);
    match stem {
        Some("lib" | "main" | "mod") => path.with_file_name(""),
        _ => path.with_extension(""),
    }
}

/// Every library and program forbids unsafe code for itself, whatever lints a user caps.
fn check_roots(package: &Package, report: &mut Report) -> io::Result<()> {
    for target in &package.targets {
        let is_crate = target
            .kind
            .iter()
            .any(|kind| kind == "lib" || kind == "bin");
        if is_crate && !fs::read_to_string(&target.src_path)?.contains("#![forbid(unsafe_code)]") {
            let path = shown(package.folder(), Path::new(&target.src_path));
            report.problem(format!(
                "{}: {path} lacks #![forbid(unsafe_code)]",
                package.name
            ));
        }
    }
    Ok(())
}

fn check_file(package: &Package, path: &Path, place: &str, code: &str, report: &mut Report) {
    let name = package.name.as_str();
    let file = format!("{name}: {}", shown(package.folder(), path));
    for rule in RULES.iter().filter(|rule| rule.crates.contains(&name)) {
        for (line, module) in std_modules(code) {
            if rule.modules.contains(&module.as_str()) && !rule.only_in.contains(&place) {
                report.problem(format!("{file}:{line} names std::{module}"));
            }
        }
    }
    for (named, owners, only_in) in SINGULAR {
        if !owners.contains(&name) || place != *only_in {
            for line in lines_naming(code, named) {
                report.problem(format!("{file}:{line} names {named}"));
            }
        }
    }
    for (clock, programs) in CLOCKS {
        if place != "sys" && !programs.contains(&name) {
            for line in lines_naming(code, clock) {
                report.problem(format!("{file}:{line} calls {clock} outside `sys`"));
            }
        }
    }
    let lines = code.trim_end().matches('\n').count();
    if lines > LONG_FILE {
        report.warning(format!("{file} has {lines} lines before its tests"));
    }
}

/// `commit` for `src/commit.rs` and for `src/commit/queue.rs`.
fn place(sources: &Path, path: &Path) -> String {
    let relative = shown(sources, path);
    let first = relative.split('/').next().unwrap_or("");
    first.strip_suffix(".rs").unwrap_or(first).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_is_the_same_place_as_a_file_or_as_a_folder() {
        let place = |path: &str| place(Path::new("/x/src"), &Path::new("/x/src").join(path));
        assert_eq!(place("commit.rs"), "commit");
        assert_eq!(place("commit/queue.rs"), "commit");
        assert_eq!(place("other/commit.rs"), "other");
    }
}
