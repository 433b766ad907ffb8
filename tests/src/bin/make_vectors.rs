//! `cargo xtask vectors [--check]`: makes `tests/vectors/sprag-1-seed-*.json`, or compares them with what is committed.
#![forbid(unsafe_code)]

use std::error::Error;
use std::fs;
use std::path::Path;

/// Seeds other than those of the published file.
const SEEDS: [u64; 2] = [1, 2026];

fn main() -> Result<(), Box<dyn Error>> {
    let check = std::env::args().nth(1).as_deref() == Some("--check");
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("vectors");
    for seed in SEEDS {
        let name = format!("sprag-1-seed-{seed}.json");
        let file = sprag_tests::generate::file(seed)
            .map_err(|mismatch| format!("seed {seed}: {mismatch}"))?;
        let text = serde_json::to_string_pretty(&file)? + "\n";
        let path = folder.join(&name);
        if !check {
            fs::write(&path, text)?;
        } else if serde_json::from_str::<serde_json::Value>(&fs::read_to_string(&path)?)? != file {
            return Err(
                format!("{name} is not what its seed gives: run `cargo xtask vectors`").into(),
            );
        }
    }
    Ok(())
}
