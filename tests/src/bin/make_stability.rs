//! Writes `tests/stability/<version>.json` and `tests/stability/memory/<version>.json` for a release. A file that is there is never
//! written again.
#![forbid(unsafe_code)]

use std::error::Error;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;

use serde_json::Value;

fn main() -> Result<(), Box<dyn Error>> {
    let version = env!("CARGO_PKG_VERSION");
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("stability");
    write(
        &folder.join("memory"),
        version,
        &sprag_tests::stability_memory::make(version)?,
    )?;
    write(&folder, version, &sprag_tests::stability::make(version)?)
}

fn write(folder: &Path, version: &str, file: &Value) -> Result<(), Box<dyn Error>> {
    let path = folder.join(format!("{version}.json"));
    if path.exists() {
        return Ok(());
    }
    std::fs::create_dir_all(folder)?;
    let text = serde_json::to_string_pretty(file)? + "\n";
    let mut file = OpenOptions::new().write(true).create_new(true).open(path)?;
    Ok(file.write_all(text.as_bytes())?)
}
