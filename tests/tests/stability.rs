//! Stores that released versions wrote still open, and their conversations go on.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::path::Path;

use serde_json::{Value, json};
use sprag_tests::stability::{check, make};
use sprag_tests::stability_memory;

#[test]
fn stores_of_all_versions_open_and_go_on() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("stability");
    let mut files = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            continue;
        }
        let file: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        check(&file).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        files += 1;
    }
    assert!(files > 0);
}

#[test]
fn a_store_with_a_row_changed_or_lost_is_not_taken_for_an_old_one() {
    let file = make("test").unwrap();
    check(&file).unwrap();
    let rows = file.get("rows").and_then(Value::as_object).unwrap();
    for name in rows.keys().step_by(40) {
        let mut lost = file.clone();
        lost.get_mut("rows")
            .and_then(Value::as_object_mut)
            .unwrap()
            .remove(name);
        assert!(check(&lost).is_err(), "{name} was not missed");
        let mut changed = file.clone();
        let row = changed
            .get_mut("rows")
            .and_then(|rows| rows.get_mut(name))
            .unwrap();
        *row = json!(format!("{}00", row.as_str().unwrap()));
        assert!(check(&changed).is_err(), "{name} was changed unnoticed");
    }
}

#[test]
fn memories_of_all_versions_are_read_and_go_on() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("stability/memory");
    let mut files = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let file: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        let checked = stability_memory::check(&file);
        checked.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        files += 1;
    }
    assert!(files > 0);
}

#[test]
fn memories_with_a_row_changed_or_lost_are_not_taken_for_old_ones() {
    let file = stability_memory::make("test").unwrap();
    stability_memory::check(&file).unwrap();
    let rows = file.get("rows").and_then(Value::as_object).unwrap();
    let of_memories = |name: &&String| name.starts_with('6');
    for name in rows.keys().filter(of_memories).step_by(7) {
        let mut lost = file.clone();
        let rows = lost.get_mut("rows").and_then(Value::as_object_mut).unwrap();
        rows.remove(name);
        let missed = stability_memory::check(&lost);
        assert!(missed.is_err(), "{name} was not missed");
    }
}
