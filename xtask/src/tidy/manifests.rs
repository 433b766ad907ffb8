//! Manifests: lints for all, and what crates.io asks for.

use std::path::Path;
use std::{fs, io};

use super::Report;
use crate::metadata::{Metadata, Package};

/// The feature with which tests are told of every encryption.
const RECORDING: &str = "record-nonces";

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
        check_recording(package, report);
    }
    for text in ["LICENSE-MIT", "LICENSE-APACHE"] {
        if !root.join(text).is_file() {
            report.problem(format!("{text} is missing"));
        }
    }
    Ok(())
}

/// What records nonces is for tests: nothing that is published turns it on, by whatever feature.
fn check_recording(package: &Package, report: &mut Report) {
    let records = |feature: &String| feature.contains(RECORDING);
    let name = &package.name;
    for (feature, implied) in &package.features {
        if feature != RECORDING && implied.iter().any(records) {
            report.problem(format!(
                "{name}: the feature {feature} turns {RECORDING} on"
            ));
        }
    }
    for dependency in &package.dependencies {
        if dependency.features.iter().any(records) {
            let on = &dependency.name;
            report.problem(format!("{name}: {RECORDING} of {on} is turned on"));
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
