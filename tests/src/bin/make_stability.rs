//! Writes `tests/stability/<version>.json` for a release. A file that is there is never written again.
#![forbid(unsafe_code)]

use std::error::Error;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;

fn main() -> Result<(), Box<dyn Error>> {
    let version = env!("CARGO_PKG_VERSION");
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("stability");
    std::fs::create_dir_all(&folder)?;
    let text = serde_json::to_string_pretty(&sprag_tests::stability::make(version)?)? + "\n";
    let path = folder.join(format!("{version}.json"));
    let mut file = OpenOptions::new().write(true).create_new(true).open(path)?;
    Ok(file.write_all(text.as_bytes())?)
}
