//! What cargo knows about the workspace.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use serde::Deserialize;

use crate::{Outcome, cargo};

/// The part of `cargo metadata` that the chores use.
#[derive(Deserialize)]
pub(crate) struct Metadata {
    pub(crate) packages: Vec<Package>,
    pub(crate) workspace_members: BTreeSet<String>,
    pub(crate) target_directory: String,
    resolve: Resolve,
}

#[derive(Deserialize)]
pub(crate) struct Package {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) source: Option<String>,
    pub(crate) license: Option<String>,
    pub(crate) description: Option<String>,
    pub(crate) repository: Option<String>,
    pub(crate) readme: Option<String>,
    pub(crate) rust_version: Option<String>,
    pub(crate) publish: Option<Vec<String>>,
    pub(crate) manifest_path: String,
    pub(crate) dependencies: Vec<Dependency>,
    pub(crate) targets: Vec<Target>,
    pub(crate) features: BTreeMap<String, Vec<String>>,
}

#[derive(Deserialize)]
pub(crate) struct Dependency {
    pub(crate) name: String,
    pub(crate) req: String,
    /// `None` for an ordinary one, else `dev` or `build`.
    pub(crate) kind: Option<String>,
    pub(crate) path: Option<String>,
    pub(crate) features: Vec<String>,
}

#[derive(Deserialize)]
pub(crate) struct Target {
    pub(crate) name: String,
    pub(crate) kind: Vec<String>,
    pub(crate) src_path: String,
}

#[derive(Deserialize)]
struct Resolve {
    nodes: Vec<Node>,
}

#[derive(Deserialize)]
struct Node {
    id: String,
    deps: Vec<NodeDep>,
    features: Vec<String>,
}

#[derive(Deserialize)]
struct NodeDep {
    pkg: String,
    dep_kinds: Vec<DepKind>,
}

#[derive(Deserialize)]
struct DepKind {
    kind: Option<String>,
}

impl Metadata {
    /// Asks cargo, with every feature on.
    pub(crate) fn load(root: &Path) -> Outcome<Self> {
        let output = Command::new(cargo())
            .args(["metadata", "--format-version", "1", "--all-features"])
            .current_dir(root)
            .output()?;
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into_owned().into());
        }
        Ok(serde_json::from_slice(&output.stdout)?)
    }

    /// The crates of this repository.
    pub(crate) fn members(&self) -> impl Iterator<Item = &Package> {
        self.packages
            .iter()
            .filter(|package| self.workspace_members.contains(&package.id))
    }

    /// The crates of this repository that are meant for crates.io.
    pub(crate) fn published(&self) -> impl Iterator<Item = &Package> {
        self.members().filter(|package| package.publish.is_none())
    }

    pub(crate) fn member(&self, name: &str) -> Option<&Package> {
        self.members().find(|package| package.name == name)
    }

    /// Ids of everything that `package` links, itself included; tests and build scripts left out.
    pub(crate) fn linked_by(&self, package: &Package) -> BTreeSet<&str> {
        let nodes: BTreeMap<&str, &Node> = self
            .resolve
            .nodes
            .iter()
            .map(|node| (node.id.as_str(), node))
            .collect();
        let mut seen = BTreeSet::new();
        let mut waiting = vec![package.id.as_str()];
        while let Some(id) = waiting.pop() {
            let Some(node) = nodes.get(id) else { continue };
            if seen.insert(node.id.as_str()) {
                let linked = |dep: &&NodeDep| dep.dep_kinds.iter().any(|kind| kind.kind.is_none());
                waiting.extend(node.deps.iter().filter(linked).map(|dep| dep.pkg.as_str()));
            }
        }
        seen
    }

    /// The names of the packages that depend on `package` in any way.
    pub(crate) fn dependents(&self, package: &Package) -> Vec<&str> {
        let depends = |node: &&Node| node.deps.iter().any(|dep| dep.pkg == package.id);
        let ids = self
            .resolve
            .nodes
            .iter()
            .filter(depends)
            .map(|node| &node.id);
        let named = |id: &String| self.packages.iter().find(|package| package.id == *id);
        ids.filter_map(named)
            .map(|package| package.name.as_str())
            .collect()
    }

    /// Whether `feature` is on for the package `id` when the whole workspace is built.
    pub(crate) fn has_feature(&self, id: &str, feature: &str) -> bool {
        let node = self.resolve.nodes.iter().find(|node| node.id == id);
        node.is_some_and(|node| node.features.iter().any(|on| on == feature))
    }
}

impl Package {
    /// The folder of the manifest.
    pub(crate) fn folder(&self) -> &Path {
        let manifest = Path::new(&self.manifest_path);
        manifest.parent().unwrap_or(manifest)
    }

    /// Everything but tests: what ships, and what builds it.
    pub(crate) fn shipped_dependencies(&self) -> impl Iterator<Item = &Dependency> {
        self.dependencies
            .iter()
            .filter(|dependency| dependency.kind.as_deref() != Some("dev"))
    }
}
