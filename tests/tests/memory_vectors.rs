//! The vectors of the key log: what is committed is what the code writes today, and says of each part what the code says.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::Path;

use serde_json::Value;
use sprag_tests::memory_vectors::file;

fn committed() -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("vectors/memory-seed-1.json");
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

#[test]
fn key_log_is_written_byte_for_byte_as_published_and_each_part_is_judged_as_it_says() {
    let (committed, today) = (committed(), file(1).unwrap());
    for part in committed.as_object().unwrap().keys() {
        assert_eq!(committed[part], today[part], "{part}");
    }
    assert_eq!(committed, today);
}

#[test]
fn vectors_hold_as_many_parts_that_are_none_as_ones_that_are() {
    let vectors = committed();
    let count = |part: &str| vectors[part].as_array().unwrap().len();
    let refused = ["segments_invalid", "heads_judged"].map(|part| {
        let cases = vectors[part].as_array().unwrap().iter();
        cases.filter(|case| case["outcome"] != "ok").count()
    });
    assert!(refused.iter().sum::<usize>() > count("segments") + count("heads"));
    for outcome in [
        "Damaged",
        "NotYet",
        "UnlistedDevice",
        "BadSignature",
        "Stale",
        "Forked",
    ] {
        let mut cases = vectors["heads_judged"].as_array().unwrap().iter();
        assert!(cases.any(|case| case["outcome"] == outcome), "{outcome}");
    }
}
