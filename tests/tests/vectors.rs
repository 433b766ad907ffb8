//! The published vectors of Sprag/1, and any file of their schema that `SPRAG_VECTORS` names.
//!
//! Conversations about parts that this version does not have are reported as pending, by label; anything else that does
//! not pass is a failure.
#![allow(
    clippy::panic,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test fails by panicking, and says what is pending"
)]

use std::path::{Path, PathBuf};

use serde_json::Value;
use sprag_tests::conversation;

/// The parts beyond the core ("needs") that are implemented.
const SUPPORTED: [&str; 3] = ["lists", "healing", "linking"];

fn read(path: &Path) -> Value {
    let text = std::fs::read_to_string(path).expect("a readable file of vectors");
    serde_json::from_str(&text).expect("a file of vectors is JSON")
}

/// Runs the conversations of a file and returns how many passed and which are pending.
fn run(path: &Path) -> (usize, Vec<String>) {
    let vectors = read(path);
    let mut passed = 0;
    let mut pending = Vec::new();
    let mut failed = Vec::new();
    for vector in vectors["conversations"].as_array().expect("conversations") {
        let label = vector["label"].as_str().expect("a label");
        let needs = vector["needs"].as_array().expect("needs");
        let supported = |need: &Value| need.as_str().is_some_and(|need| SUPPORTED.contains(&need));
        if !needs.iter().all(supported) {
            println!("pending: {label} (needs {needs:?})");
            pending.push(label.to_owned());
            continue;
        }
        match conversation::run(vector) {
            Ok(()) => passed += 1,
            Err(mismatch) => failed.push(format!("{label}: {mismatch}")),
        }
    }
    println!(
        "{}: {passed} conversations passed, {} pending",
        path.display(),
        pending.len()
    );
    assert!(
        failed.is_empty(),
        "{}:\n{}",
        path.display(),
        failed.join("\n")
    );
    (passed, pending)
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("vectors")
}

#[test]
fn the_published_vectors_pass_and_exactly_the_known_parts_are_pending() {
    let (passed, pending) = run(&folder().join("sprag-1.json"));
    assert_eq!(passed, 18);
    assert_eq!(
        pending,
        [
            "PQXDH with the post-quantum ratchet",
            "post-quantum ratchet, loss and reordering",
        ]
    );
}

#[test]
fn the_vectors_made_from_other_seeds_pass_and_none_is_pending() {
    let mut files = 0;
    for entry in std::fs::read_dir(folder()).expect("the folder of vectors") {
        let path = entry.expect("an entry").path();
        if path
            .file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with("sprag-1-seed-"))
        {
            let (passed, pending) = run(&path);
            assert_eq!((passed, pending.len()), (5, 0));
            files += 1;
        }
    }
    assert_eq!(files, 2);
}

#[test]
fn vectors_brought_by_others_pass() {
    if let Some(path) = std::env::var_os("SPRAG_VECTORS") {
        let (passed, _) = run(Path::new(&path));
        assert!(passed > 0, "the file has no conversation of the core");
    }
}

#[test]
fn a_vector_that_is_changed_fails() {
    let vectors = read(&folder().join("sprag-1.json"));
    let conversation = &vectors["conversations"][0];
    assert_eq!(conversation::run(conversation), Ok(()));
    let change = |pointer: &str, to: Value| {
        let mut changed = conversation.clone();
        *changed.pointer_mut(pointer).expect("a place in the vector") = to;
        conversation::run(&changed).expect_err("a changed vector passed")
    };
    let frame = conversation["events"][1]["frame"]
        .as_str()
        .expect("a frame");
    let other = format!("{}00", frame.get(..frame.len() - 2).expect("hex"));
    assert!(change("/events/1/frame", other.into()).contains("event 1"));
    assert!(change("/events/0/random/0/1", "00".repeat(32).into()).contains("event 0"));
    assert!(change("/events/0/random/0/1", "00".repeat(31).into()).contains("31 bytes"));
    assert!(change("/events/0/sid", "00".repeat(16).into()).contains("sid"));
    assert!(change("/final/alice/peers/0/sessions/0/rk", "00".repeat(32).into()).contains("rk"));
    assert!(change("/final/alice/kem_left", serde_json::json!([])).contains("kem_left"));
}
