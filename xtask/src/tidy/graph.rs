//! The arrows between the crates, and who may name which foreign crate.

use std::collections::BTreeMap;

use super::Report;
use crate::metadata::{Metadata, Package};

/// For each published crate, those of ours that it may depend on. Arrows point down only; `sprag-x3dh` and
/// `sprag-ratchet` do not know each other. A new arrow is a decision: it belongs in `ARCHITECTURE.md` as well.
const ARROWS: &[(&str, &[&str])] = &[
    ("sprag-crypto", &[]),
    ("sprag-search", &[]),
    ("sprag-redact", &[]),
    ("sprag-wire", &["sprag-crypto"]),
    ("sprag-x3dh", &["sprag-crypto", "sprag-wire"]),
    ("sprag-ratchet", &["sprag-crypto", "sprag-wire"]),
    // Keys know the vault behind a feature, as what they are for; the vault does not know where keys are.
    ("sprag-keys", &["sprag-crypto", "sprag-vault"]),
    ("sprag-vault", &["sprag-crypto"]),
    ("sprag-store", &["sprag-crypto", "sprag-keys"]),
    (
        "sprag-session",
        &[
            "sprag-crypto",
            "sprag-wire",
            "sprag-x3dh",
            "sprag-ratchet",
            "sprag-store",
        ],
    ),
    ("sprag-directory", &["sprag-crypto", "sprag-wire"]),
    (
        "sprag",
        &[
            "sprag-crypto",
            "sprag-wire",
            "sprag-x3dh",
            "sprag-ratchet",
            "sprag-keys",
            "sprag-store",
            "sprag-session",
            "sprag-vault",
            "sprag-search",
            "sprag-redact",
            "sprag-vault",
        ],
    ),
    (
        "sprag-cli",
        &[
            "sprag",
            "sprag-directory",
            "sprag-keys",
            "sprag-vault",
            "sprag-search",
            "sprag-redact",
        ],
    ),
];

/// Foreign crates with the only crates of ours that may depend on them. Tests and benches are free.
const OWNERS: &[(&[&str], &[&str])] = &[
    (CIPHERS, &["sprag-crypto"]),
    (&["prost"], &["sprag-wire"]),
    (&["sled", "redb", "fs4"], &["sprag-store"]),
    (&["keyring-core"], &["sprag-store", "sprag-keys"]),
    (&["prost-build", "protox"], &["xtask"]),
    (&["getrandom", "rand"], &["sprag", "sprag-cli"]),
    (
        &[
            "clap",
            "clap_complete",
            "clap_mangen",
            "rpassword",
            "qrcode",
            "indicatif",
            "ctrlc",
            "nix",
            "bech32",
            "rmcp",
            "chrono",
        ],
        &["sprag-cli"],
    ),
    (&["serde"], &["sprag", "sprag-cli", "sprag-keys", "xtask"]),
    (
        &["serde_json"],
        &["sprag", "sprag-vault", "sprag-keys", "sprag-cli", "xtask"],
    ),
    (&["ureq", "rustls"], &["sprag-keys", "sprag"]),
    // S3 alone, behind a feature: on the thread of whoever waits.
    (
        &["object_store", "futures-util", "http-body-util"],
        &["sprag"],
    ),
    // The same, and the protocol of `sprag mcp`.
    (&["tokio"], &["sprag", "sprag-cli"]),
    (&["async-std", "futures"], &[]),
];

/// Ciphers, curves, hashes and what is built of them.
const CIPHERS: &[&str] = &[
    "aes",
    "aes-gcm",
    "argon2",
    "blake2",
    "blake3",
    "chacha20poly1305",
    "curve25519-dalek",
    "ed25519-dalek",
    "hkdf",
    "hmac",
    "hpke",
    "k256",
    "libcrux-ml-kem",
    "ml-kem",
    "p256",
    "poly1305",
    "sha1",
    "sha2",
    "sha3",
    "x25519-dalek",
];

/// Crates that serve, or that a server links. They cannot decrypt: none of `SECRETIVE` is among what they link.
const SERVERS: &[&str] = &["sprag-directory", "sprag-wire"];

const SECRETIVE: &[&str] = &[
    "sprag-ratchet",
    "sprag-x3dh",
    "sprag-store",
    "sprag-vault",
    "sprag-session",
    "sprag",
];

/// Crates with a `zeroize` feature that we can reach. Losing it goes unnoticed (CVE-2024-34063), so it is tested here.
const WIPING: &[&str] = &[
    "aes",
    "aes-gcm",
    "argon2",
    "chacha20",
    "chacha20poly1305",
    "curve25519-dalek",
    "digest",
    "ed25519-dalek",
    "ghash",
    "hmac",
    "poly1305",
    "polyval",
    "sha2",
    "x25519-dalek",
];

pub(super) fn check(metadata: &Metadata, report: &mut Report) {
    let arrows: BTreeMap<_, _> = ARROWS.iter().copied().collect();
    for package in metadata.published() {
        match arrows.get(package.name.as_str()) {
            Some(allowed) => check_arrows(package, allowed, report),
            None => report.problem(format!("{} has no place in the layers", package.name)),
        }
        check_owners(package, report);
    }
    for server in SERVERS.iter().filter_map(|name| metadata.member(name)) {
        check_server(metadata, server, report);
    }
    if let Some(crypto) = metadata.member("sprag-crypto") {
        check_wiping(metadata, crypto, report);
    }
}

fn check_arrows(package: &Package, allowed: &[&str], report: &mut Report) {
    for dependency in package.shipped_dependencies() {
        if dependency.path.is_some() && !allowed.contains(&dependency.name.as_str()) {
            let (from, to) = (&package.name, &dependency.name);
            report.problem(format!("{from} must not depend on {to}"));
        }
    }
}

fn check_owners(package: &Package, report: &mut Report) {
    for dependency in package.shipped_dependencies() {
        let name = dependency.name.as_str();
        let rule = OWNERS.iter().find(|(foreign, _)| foreign.contains(&name));
        if rule.is_some_and(|(_, owners)| !owners.contains(&package.name.as_str())) {
            report.problem(format!("{} must not depend on {name}", package.name));
        }
    }
}

fn check_server(metadata: &Metadata, server: &Package, report: &mut Report) {
    let linked = metadata.linked_by(server);
    for package in metadata.members() {
        if linked.contains(package.id.as_str()) && SECRETIVE.contains(&package.name.as_str()) {
            report.problem(format!("{} links {}", server.name, package.name));
        }
    }
}

fn check_wiping(metadata: &Metadata, crypto: &Package, report: &mut Report) {
    let linked = metadata.linked_by(crypto);
    for package in &metadata.packages {
        let concerned =
            linked.contains(package.id.as_str()) && WIPING.contains(&package.name.as_str());
        if concerned && !metadata.has_feature(&package.id, "zeroize") {
            let (name, version) = (&package.name, &package.version);
            report.problem(format!("{name} {version} is built without `zeroize`"));
        }
    }
}
