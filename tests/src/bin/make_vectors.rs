//! `cargo xtask vectors [--check]`: makes `tests/vectors/sprag-1-seed-*.json`, `vault-seed-1.json` and `memory-seed-1.json`, or
//! compares them with what is committed.
#![forbid(unsafe_code)]

use std::error::Error;
use std::fs;
use std::path::Path;

use serde_json::Value;

/// Seeds other than those of the published file.
const SEEDS: [u64; 2] = [1, 2026];

fn main() -> Result<(), Box<dyn Error>> {
    let check = std::env::args().nth(1).as_deref() == Some("--check");
    for seed in SEEDS {
        let file = sprag_tests::generate::file(seed)
            .map_err(|mismatch| format!("seed {seed}: {mismatch}"))?;
        make(&format!("sprag-1-seed-{seed}.json"), &file, check)?;
    }
    let vault = sprag_tests::vault_vectors::file(1)?;
    make("vault-seed-1.json", &vault, check)?;
    let memory = sprag_tests::memory_vectors::file(1)?;
    make("memory-seed-1.json", &memory, check)
}

fn make(name: &str, file: &Value, check: bool) -> Result<(), Box<dyn Error>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("vectors");
    let path = folder.join(name);
    if !check {
        fs::write(&path, serde_json::to_string_pretty(file)? + "\n")?;
    } else if serde_json::from_str::<Value>(&fs::read_to_string(&path)?)? != *file {
        return Err(format!("{name} is not what its seed gives: run `cargo xtask vectors`").into());
    }
    Ok(())
}
