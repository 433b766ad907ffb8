//! Exports and imports.

use std::io::Cursor;

use super::*;
use crate::memory::{Chat, ChatMessage, Imported, ListQuery, OnConflict};

fn export(store: &EncryptedMemoryStore) -> (String, u64) {
    let mut out = Vec::new();
    let left_out = store.export(&mut out).unwrap();
    (String::from_utf8(out).unwrap(), left_out)
}

fn import(store: &EncryptedMemoryStore, text: &str, on: OnConflict) -> Result<Imported, Error> {
    let imported = store.import(Cursor::new(text), on);
    let codes = imported.as_ref().map_err(Error::code);
    let begun = store.start().import_text(text, on).wait();
    if codes.is_err() {
        assert_eq!(begun.as_ref().map_err(Error::code), codes);
    }
    imported
}

fn filled(seed: u8) -> EncryptedMemoryStore {
    let (client, hands) = client(seed);
    let store = store(&client);
    store.store_memory(&rich()).unwrap();
    for number in 0..600_u16 {
        hands.forward(3);
        let memory = Memory::new(format!("content {number}\n\"é\"")).tags(["t"]);
        store
            .store_memory(&memory.embedding(vec![f32::from(number) + 0.1, 1.0]))
            .unwrap();
    }
    let chat = Chat::new(vec![ChatMessage::new("user", "hi").at(7)]).id("c:1-2");
    store.store_chat(&chat.title("talk")).unwrap();
    store
}

#[test]
fn export_and_import_give_the_same_again() {
    let store = filled(4);
    let (text, left_out) = export(&store);
    assert_eq!(left_out, 0);
    assert!(text.starts_with(
        r#"{"_sprag_export":1,"app":"sprag","user":"ann","agent":"tutor","memories":["#
    ));
    // One record on a line, between the lines around them; and all of it one JSON value.
    assert_eq!(text.lines().count(), 602 + 3);
    assert!(crate::memory::Json::parse(&text).is_ok());
    let (other, _) = client(5);
    let other = super::store(&other);
    let imported = other.import(Cursor::new(&text), OnConflict::Keep).unwrap();
    assert_eq!((imported.written, imported.unchanged), (602, 0));
    assert_eq!(export(&other), (text.clone(), 0));
    assert_eq!(
        other.get_memory("mem_1").unwrap().to_json(),
        rich().to_json()
    );
    let hits = |store: &EncryptedMemoryStore| store.search_similar(&[3.0, 1.0], 20, 0.0).unwrap();
    assert_eq!(hits(&other), hits(&store));
    // The same again changes nothing.
    let again = other
        .import(Cursor::new(&text), OnConflict::Replace)
        .unwrap();
    assert_eq!((again.written, again.unchanged), (0, 602));
    let begun = other
        .start()
        .import_text(&text, OnConflict::Keep)
        .wait()
        .unwrap();
    assert_eq!(begun.unchanged, 602);
    assert_eq!(
        other
            .get_memory("mem_1")
            .unwrap()
            .provenance()
            .unwrap()
            .revision,
        1
    );
    // Also through a backend, and if somebody laid the document out anew.
    let (third, _) = client(6);
    let place = Place::default();
    let third = super::store(&third).backend(place.clone());
    let pretty = text.replace("\":", "\" : ").replace(",\"", " ,\n  \"");
    let imported = third.start().import_text(&pretty, OnConflict::Keep).wait();
    assert_eq!(imported.unwrap().written, 602);
    assert_eq!(place.names().len(), 602);
}

#[test]
fn empty_store_has_an_export_as_well() {
    let (client, _) = client(4);
    let store = EncryptedMemoryStore::new(&client, &Owner::from("ann")).unwrap();
    let (text, _) = export(&store);
    let expected = r#"{"_sprag_export":1,"app":"sprag","user":"ann","memories":[N],"chats":[N],"left_out":0}N"#;
    let expected = expected.replace('N', "\n");
    assert_eq!(text, expected);
    assert_eq!(
        import(&store, &text, OnConflict::Keep).unwrap(),
        Imported::default()
    );
}

#[test]
fn what_is_there_is_kept_or_replaced_as_one_says_and_what_was_erased_stays_so() {
    let (client, _) = client(4);
    let store = store(&client);
    let memory = |content: &str, id: &str| {
        let mut memory = Memory::new(content).id(id);
        (memory.created_at, memory.updated_at) = (1, 2);
        memory
    };
    for id in ["same", "changed", "deleted", "erased"] {
        store.store_memory(&memory("old", id)).unwrap();
    }
    let (text, _) = export(&store);
    store.update_memory(&memory("new", "changed")).unwrap();
    store.delete_memory("deleted").unwrap();
    store.erase_memory("erased").unwrap();
    let imported = store.import(Cursor::new(&text), OnConflict::Keep).unwrap();
    let expected = (1, 1, 1, 1);
    let Imported {
        written,
        unchanged,
        kept,
        erased,
        ..
    } = imported;
    assert_eq!((written, unchanged, kept, erased), expected);
    assert_eq!(store.get_memory("changed").unwrap().content, "new");
    assert_eq!(
        store.get_memory("deleted").unwrap(),
        memory("old", "deleted")
    );
    assert_eq!(code(store.get_memory("erased")), "record_erased");
    let imported = store
        .import(Cursor::new(&text), OnConflict::Replace)
        .unwrap();
    let Imported {
        written,
        unchanged,
        kept,
        erased,
        ..
    } = imported;
    assert_eq!((written, unchanged, kept, erased), (1, 2, 0, 1));
    assert_eq!(
        store.get_memory("changed").unwrap(),
        memory("old", "changed")
    );
}

#[test]
fn damaged_export_changes_nothing() {
    let (client, _) = client(4);
    let store = store(&client);
    store.store_memory(&rich()).unwrap();
    store.store_chat(&Chat::default().id("c")).unwrap();
    let (text, _) = export(&store);
    let (other, _) = super::client(5);
    let other = super::store(&other);
    for end in 0..text.len() - 1 {
        if text.is_char_boundary(end) && end % 7 == 0 {
            let cut = other.import(Cursor::new(&text[..end]), OnConflict::Keep);
            assert_eq!(code(cut), "export_damaged", "{end}");
        }
    }
    let head = r#"{"_sprag_export":1,"memories":["#;
    let long = "x".repeat(crate::memory::MAX_RECORD);
    let too_long =
        format!(r#"{head}{{"id":"fine"}},{{"id":"long","metadata":"{long}"}}],"chats":[]}}"#);
    let refused = import(&other, &too_long, OnConflict::Replace);
    assert_eq!(code(refused), "bad_record");
    for (wrong, told) in [
        (format!("{text}x"), "export_damaged"),
        ("[]".to_owned(), "export_damaged"),
        ("{}".to_owned(), "export_damaged"),
        (r#"{"memories":[],"chats":[]}"#.to_owned(), "export_damaged"),
        (
            r#"{"memories":[],"chats":[],"_sprag_export":1}"#.to_owned(),
            "export_damaged",
        ),
        (
            r#"{"_sprag_export":1,"memories":[]}"#.to_owned(),
            "export_damaged",
        ),
        (
            format!("{head}],\"memories\":[],\"chats\":[]}}"),
            "export_damaged",
        ),
        (format!("{head}7],\"chats\":[]}}"), "export_damaged"),
        (
            format!("{head}{{\"content\":\"no id\"}}],\"chats\":[]}}"),
            "export_damaged",
        ),
        (
            format!("{head}{{\"id\":\"fine\"}},{{\"id\":\"a\\nb\"}}],\"chats\":[]}}"),
            "bad_record",
        ),
        (text.replacen(":1,", ":2,", 1), "export_version"),
        (text.replacen(":1,", ":1.5,", 1), "export_damaged"),
    ] {
        assert_eq!(
            code(import(&other, &wrong, OnConflict::Replace)),
            told,
            "{wrong}"
        );
    }
    assert!(other.list(&ListQuery::new()).unwrap().items.is_empty());
    assert!(
        other
            .list_chats(&ListQuery::new())
            .unwrap()
            .items
            .is_empty()
    );
    assert_eq!(
        code(other.start().export_page(Some("nonsense")).wait()),
        "bad_input"
    );
}

#[test]
fn record_whose_blob_is_missing_is_left_out_and_counted() {
    let (client, _) = client(4);
    let place = Place::default();
    let store = store(&client).backend(place.clone());
    let one = store.store_memory(&Memory::new("one").id("1")).unwrap();
    store.store_memory(&Memory::new("two").id("2")).unwrap();
    place.delete(&one.name).unwrap();
    let (text, left_out) = export(&store);
    assert_eq!(left_out, 1);
    assert!(text.ends_with("],\"left_out\":1}\n"));
    assert!(text.contains("two") && !text.contains("\"one\""));
    assert_eq!(
        import(&store, &text, OnConflict::Keep).unwrap().unchanged,
        1
    );
    // A backend that is away is no reason to leave anything out.
    place.go_away(Some(BackendError::Unavailable(None)));
    assert_eq!(code(store.export(&mut Vec::new())), "backend_away");
}

#[test]
fn document_that_cannot_be_written_or_read_is_told() {
    struct Full;
    impl std::io::Write for Full {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            Err(std::io::ErrorKind::StorageFull.into())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    struct Torn;
    impl std::io::Read for Torn {
        fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
            Err(std::io::ErrorKind::ConnectionReset.into())
        }
    }
    impl std::io::Seek for Torn {
        fn seek(&mut self, _: std::io::SeekFrom) -> std::io::Result<u64> {
            Ok(0)
        }
    }
    let (client, _) = client(4);
    let store = store(&client);
    assert_eq!(code(store.export(&mut Full)), "output_failed");
    assert_eq!(code(store.import(Torn, OnConflict::Keep)), "input_failed");
}

#[test]
fn document_of_very_many_fields_is_read_in_time() {
    use std::fmt::Write as _;
    let (client, _) = client(4);
    let store = store(&client);
    let mut text = r#"{"_sprag_export":1,"memories":[{"id":"a"}],"chats":[]"#.to_owned();
    for number in 0..400_000 {
        write!(text, ",\"{number}\":0").unwrap();
    }
    let twice = format!("{text},\"7\":0}}");
    text.push('}');
    assert_eq!(
        code(import(&store, &twice, OnConflict::Keep)),
        "export_damaged"
    );
    assert_eq!(import(&store, &text, OnConflict::Keep).unwrap().written, 1);
}
