//! Manifests: lints for all, and what crates.io asks for.

use std::path::Path;
use std::{fs, io};

use super::Report;
use crate::metadata::{Metadata, Package};

/// Features with which tests are told of every encryption, or make disks fail.
const FOR_TESTS: [&str; 2] = ["record-nonces", "inject-faults"];

pub(super) fn check(root: &Path, metadata: &Metadata, report: &mut Report) -> io::Result<()> {
    for package in metadata.members() {
        let name = &package.name;
        let manifest = fs::read_to_string(&package.manifest_path)?;
        if !manifest.contains("[lints]\nworkspace = true") {
            report.problem(format!("{name}: `[lints] workspace = true` is missing"));
        }
        for dependency in &package.dependencies {
            if dependency.req == "*" && (dependency.path.is_none() || package.publish.is_none()) {
                let on = &dependency.name;
                report.problem(format!("{name}: any version of {on} will do, it says"));
            }
        }
    }
    for package in metadata.published() {
        check_publishable(root, package, report);
        check_test_features(package, report);
    }
    for text in ["LICENSE-MIT", "LICENSE-APACHE"] {
        if !root.join(text).is_file() {
            report.problem(format!("{text} is missing"));
        }
    }
    Ok(())
}

/// Some features are for tests: nothing that is published turns them on, by whatever feature of its own.
fn check_test_features(package: &Package, report: &mut Report) {
    let name = &package.name;
    for for_tests in FOR_TESTS {
        let named = |feature: &String| feature.contains(for_tests);
        for (feature, implied) in &package.features {
            if feature != for_tests && implied.iter().any(named) {
                report.problem(format!(
                    "{name}: the feature {feature} turns {for_tests} on"
                ));
            }
        }
        for dependency in &package.dependencies {
            if dependency.features.iter().any(named) {
                let on = &dependency.name;
                report.problem(format!("{name}: {for_tests} of {on} is turned on"));
            }
        }
    }
}

fn check_publishable(root: &Path, package: &Package, report: &mut Report) {
    let name = &package.name;
    let fields = [
        ("description", &package.description),
        ("license", &package.license),
        ("repository", &package.repository),
        ("rust-version", &package.rust_version),
        ("readme", &package.readme),
    ];
    for (field, value) in fields {
        if value.as_deref().is_none_or(str::is_empty) {
            report.problem(format!("{name}: the manifest has no {field}"));
        }
    }
    if package.license.as_deref() != Some("MIT OR Apache-2.0") {
        report.problem(format!("{name}: the licence is not ours"));
    }
    let readme = package.readme.as_deref().unwrap_or("README.md");
    if !package.folder().join(readme).is_file() {
        report.problem(format!("{name}: {readme} is missing"));
    }
    if !package.folder().starts_with(root.join("crates")) {
        report.problem(format!("{name}: what is published lives in crates/"));
    }
}
