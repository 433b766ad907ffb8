//! What a record is, and what may be done with it.

use super::*;
use crate::memory::{Chat, ChatMessage, InvalidRecord, MAX_CONTENT, Redacted, Standing};

#[test]
fn every_field_of_a_memory_survives_its_encryption() {
    let (client, _) = client(1);
    let owner = Owner::from("ann");
    let sealed = client.encrypt_user_memory(&owner, &rich()).unwrap();
    assert_eq!((sealed.id.as_str(), sealed.revision), ("mem_1", 1));
    let memory = client
        .decrypt_user_memory(&owner, "mem_1", &sealed.blob)
        .unwrap();
    assert_eq!(memory, rich());
    assert_eq!(memory.to_json(), rich().to_json());
    let chat = Chat::from_json(
        r#"{"id":"c","messages":[{"role":"user","content":null,"x":1e400}],"created_at":1,"updated_at":2,"y":[0.10]}"#,
    )
    .unwrap();
    let sealed = client.encrypt_user_chat(&owner, &chat).unwrap();
    let again = client.decrypt_user_chat(&owner, "c", &sealed.blob).unwrap();
    assert_eq!(again, chat);
    assert_eq!(again.to_json(), chat.to_json());
}

#[test]
fn provenance_tells_device_agent_time_and_revision_and_is_never_written() {
    let (client, hands) = client(1);
    let tutor = Owner::new("ann").agent("tutor");
    let memory = Memory::new("x").id("a");
    assert_eq!(memory.provenance(), None);
    client.encrypt_user_memory(&tutor, &memory).unwrap();
    hands.forward(1_000);
    let sealed = client.encrypt_user_memory(&tutor, &memory).unwrap();
    hands.forward(1_000);
    let memory = client
        .decrypt_user_memory(&tutor, "a", &sealed.blob)
        .unwrap();
    let provenance = memory.provenance().unwrap();
    assert_eq!(provenance.device, client.device().unwrap());
    assert_eq!(provenance.agent.as_deref(), Some("tutor"));
    assert_eq!(provenance.written_at, BEGINNING + 1_000);
    assert_eq!(provenance.revision, 2);
    assert!(!memory.to_json().contains("revision"));
    // What claims to be one is a field like any other.
    let claim = r#"{"id":"b","content":"","provenance":{"device":7}}"#;
    let claimed = Memory::from_json(claim).unwrap();
    assert_eq!(claimed.provenance(), None);
    assert!(claimed.to_json().contains(r#""provenance":{"device":7}"#));
    // Somebody else may be named, and nobody.
    let of_user = EncryptedMemoryStore::new(&client, &Owner::from("ann")).unwrap();
    for (author, named) in [("", None), ("cli", Some("cli"))] {
        let store = of_user.clone().author(author);
        let id = store.store_memory(&Memory::new("x")).unwrap().id;
        let memory = store.get_memory(&id).unwrap();
        assert_eq!(memory.provenance().unwrap().agent.as_deref(), named);
    }
    let store = of_user.author(&"x".repeat(256));
    assert_eq!(code(store.store_memory(&Memory::new("x"))), "bad_input");
}

#[test]
fn record_without_id_and_times_gets_them() {
    let (client, hands) = client(1);
    let store = store(&client);
    let one = store.store_memory(&Memory::new("x")).unwrap().id;
    let other = store.store_memory(&Memory::new("x")).unwrap().id;
    assert_ne!(one, other);
    assert_eq!(one.len(), 32);
    assert!(one.bytes().all(|byte| byte.is_ascii_hexdigit()));
    let memory = store.get_memory(&one).unwrap();
    assert_eq!(
        (memory.created_at, memory.updated_at),
        (BEGINNING, BEGINNING)
    );
    hands.forward(7);
    let mut anew = Memory::new("y").id(&one);
    anew.updated_at = 3;
    store.update_memory(&anew).unwrap();
    let memory = store.get_memory(&one).unwrap();
    assert_eq!(
        (memory.created_at, memory.updated_at),
        (BEGINNING, BEGINNING + 7)
    );
    // Times that are given stay.
    store.store_memory(&rich()).unwrap();
    let memory = store.get_memory("mem_1").unwrap();
    assert_eq!((memory.created_at, memory.updated_at), (5, 6));
}

#[test]
fn what_became_of_a_record_is_told_apart() {
    let (client, _) = client(1);
    let owner = Owner::from("ann");
    let old = client
        .encrypt_user_memory(&owner, &Memory::new("old").id("a"))
        .unwrap();
    let new = client
        .encrypt_user_memory(&owner, &Memory::new("new").id("a"))
        .unwrap();
    let other = client
        .encrypt_user_memory(&owner, &Memory::new("other").id("b"))
        .unwrap();
    let open = |id: &str, blob: &[u8]| code(client.decrypt_user_memory(&owner, id, blob));
    assert_eq!(open("a", &new.blob), "");
    assert_eq!(open("a", &old.blob), "blob_stale");
    assert_eq!(open("a", &other.blob), "blob_misplaced");
    assert_eq!(open("c", &new.blob), "no_record");
    let mut flipped = new.blob.clone();
    *flipped.last_mut().unwrap() ^= 1;
    assert_eq!(open("a", &flipped), "blob_damaged");
    assert_eq!(open("a", b""), "blob_damaged");
    assert_eq!(open("", &new.blob), "bad_record");
    assert_eq!(open(&"x".repeat(129), &new.blob), "bad_record");
    // The same name elsewhere is another record.
    let elsewhere = [
        client.decrypt_user_memory(&Owner::from("bob"), "a", &new.blob),
        client.decrypt_user_memory(&owner.clone().agent("tutor"), "a", &new.blob),
        client
            .for_app("mail")
            .decrypt_user_memory(&owner, "a", &new.blob),
    ];
    for opened in elsewhere {
        assert_eq!(code(opened), "no_record");
    }
    assert_eq!(
        code(client.decrypt_user_chat(&owner, "a", &new.blob)),
        "no_record"
    );
    let store = EncryptedMemoryStore::new(&client, &owner).unwrap();
    assert!(store.delete_memory("a").unwrap());
    assert!(!store.delete_memory("a").unwrap());
    assert_eq!(open("a", &new.blob), "record_deleted");
    assert!(store.erase_memory("a").unwrap());
    assert!(!store.erase_memory("a").unwrap());
    assert_eq!(open("a", &new.blob), "record_erased");
    assert_eq!(store.standing("a").unwrap(), Standing::ErasePending);
    assert_eq!(store.standing("c").unwrap(), Standing::Absent);
    assert!(!store.erase_memory("c").unwrap());
    // Deleted, it may be written again; erased, never.
    let again = client.encrypt_user_memory(&owner, &Memory::new("x").id("a"));
    assert_eq!(code(again), "record_erased");
    assert_eq!(
        code(store.store_memory(&Memory::new("x").id("a"))),
        "record_erased"
    );
    store.delete_memory("b").unwrap();
    let written = store.store_memory(&Memory::new("again").id("b")).unwrap();
    assert_eq!(written.revision, 3);
}

#[test]
fn store_takes_new_records_and_update_those_there_are() {
    let (client, _) = client(1);
    let store = store(&client);
    let memory = Memory::new("one").id("a");
    assert_eq!(code(store.update_memory(&memory)), "no_record");
    assert_eq!(code(store.update_memory(&Memory::new("one"))), "no_record");
    assert_eq!(store.store_memory(&memory).unwrap().revision, 1);
    let again = Memory::new("two").id("a");
    assert_eq!(code(store.store_memory(&again)), "record_exists");
    assert_eq!(code(store.store_verified(&again)), "record_exists");
    assert_eq!(store.get_memory("a").unwrap().content, "one");
    assert_eq!(store.update_memory(&again).unwrap().revision, 2);
    assert_eq!(store.get_memory("a").unwrap().content, "two");
    store.delete_memory("a").unwrap();
    assert_eq!(code(store.update_memory(&again)), "record_deleted");
    store.erase_memory("a").unwrap();
    assert_eq!(code(store.update_memory(&again)), "record_erased");
}

#[test]
fn write_of_somebody_else_in_between_is_told_and_not_lost() {
    let (client, _) = client(1);
    let (mine, theirs) = (store(&client), store(&client));
    mine.store_memory(&Memory::new("first").id("a")).unwrap();
    let mut seen = mine.get_memory("a").unwrap();
    let mut seen_by_them = theirs.get_memory("a").unwrap();
    seen_by_them.content = "theirs".to_owned();
    theirs.update_memory(&seen_by_them).unwrap();
    seen.content = "mine".to_owned();
    assert_eq!(code(mine.update_memory(&seen)), "write_conflict");
    assert_eq!(mine.get_memory("a").unwrap().content, "theirs");
    // On top of what they wrote it goes.
    let mut seen = mine.get_memory("a").unwrap();
    seen.content.push_str(", mine");
    mine.update_memory(&seen).unwrap();
    assert_eq!(theirs.get_memory("a").unwrap().content, "theirs, mine");
    let mut chat = Chat::new(vec![ChatMessage::new("user", "hi")]).id("c");
    mine.store_chat(&chat).unwrap();
    let seen = mine.get_chat("c").unwrap();
    chat.messages.push(ChatMessage::new("assistant", "hello"));
    mine.update_chat(&chat).unwrap();
    assert_eq!(code(mine.update_chat(&seen)), "write_conflict");
    assert_eq!(mine.get_chat("c").unwrap().messages.len(), 2);
}

#[test]
fn what_is_out_of_range_is_refused_and_changes_nothing() {
    let (client, _) = client(1);
    let owner = Owner::from("ann");
    let store = EncryptedMemoryStore::new(&client, &owner).unwrap();
    let tasks = client.tasks().unwrap();
    for memory in [
        Memory::new("x".repeat(MAX_CONTENT + 1)),
        Memory::new("x").tags([""]),
        Memory::new("x").embedding(vec![f32::NAN]),
        Memory::new("x").embedding(vec![]),
        Memory::new("x").id("a\nb"),
    ] {
        assert_eq!(code(store.store_memory(&memory)), "bad_record");
        let error = client.encrypt_user_memory(&owner, &memory).unwrap_err();
        let source = std::error::Error::source(&error);
        assert!(source.is_none() || source.is_some_and(|it| it.is::<InvalidRecord>()));
        assert_eq!(error.to_string(), memory.check().unwrap_err().to_string());
    }
    for owner in [
        Owner::from(""),
        Owner::from("a\u{7f}"),
        Owner::new("ann").agent(""),
    ] {
        assert_eq!(
            code(EncryptedMemoryStore::new(&client, &owner)),
            "bad_input"
        );
        assert_eq!(
            code(client.encrypt_user_memory(&owner, &rich())),
            "bad_input"
        );
    }
    let nameless = client.for_app("");
    assert_eq!(
        code(nameless.encrypt_user_memory(&owner, &rich())),
        "bad_input"
    );
    assert_eq!(client.tasks().unwrap(), tasks);
    assert!(store.list(&Default::default()).unwrap().items.is_empty());
}

#[test]
fn secrets_are_taken_out_before_anything_is_sealed_and_counted() {
    let (client, _) = client(1);
    let store = store(&client).redactor(|text: &str| {
        let count = u64::try_from(text.matches("hunter2").count()).unwrap();
        let counts = if count > 0 {
            vec![("password".to_owned(), count)]
        } else {
            Vec::new()
        };
        Redacted::new(text.replace("hunter2", "*"), counts)
    });
    let memory = Memory::new("my password is hunter2")
        .title("hunter2")
        .id("a");
    let stored = store.store_memory(&memory).unwrap();
    assert_eq!(stored.redacted, [("password".to_owned(), 2)]);
    let kept = store.get_memory("a").unwrap();
    assert_eq!(
        (kept.content.as_str(), kept.title.as_str()),
        ("my password is *", "*")
    );
    let listed = store.list(&Default::default()).unwrap();
    assert_eq!(listed.items[0].title, "*");
    let updated = store
        .update_memory(&Memory::new("hunter2").id("a"))
        .unwrap();
    assert_eq!(updated.redacted, [("password".to_owned(), 1)]);
    let chat = Chat::new(vec![ChatMessage::new("user", "hunter2")]).id("c");
    assert_eq!(store.store_chat(&chat).unwrap().redacted.len(), 1);
    assert_eq!(store.get_chat("c").unwrap().messages[0].content, "*");
    // A redactor that makes too much of it.
    let store = store.redactor(|_: &str| Redacted::new("x".repeat(MAX_CONTENT + 1), Vec::new()));
    assert_eq!(code(store.store_memory(&Memory::new("x"))), "bad_record");
}

#[test]
fn results_print_nothing_of_what_is_in_them() {
    let (client, _) = client(1);
    let store = store(&client);
    let secret = Memory::new("secret")
        .id("secret")
        .title("secret")
        .embedding(vec![1.0]);
    store.store_memory(&secret).unwrap();
    let listed = store.list(&Default::default()).unwrap();
    let hits = store.search_similar(&[1.0], 1, 0.0).unwrap();
    let sealed = client
        .encrypt_user_memory(&Owner::from("ann"), &secret)
        .unwrap();
    let page = store.start().export_page(None).wait().unwrap();
    let printed = format!("{store:?} {listed:?} {hits:?} {sealed:?} {page:?}");
    assert!(!printed.contains("secret"), "{printed}");
}

#[test]
fn closed_client_has_no_memories() {
    let (client, _) = client(1);
    let store = store(&client);
    store.store_memory(&rich()).unwrap();
    store.search_similar(&[1.0, 0.0], 1, -1.0).unwrap();
    client.close().unwrap();
    assert_eq!(code(store.get_memory("mem_1")), "closed");
    assert_eq!(code(store.search_similar(&[1.0, 0.0], 1, -1.0)), "closed");
    assert_eq!(code(store.list(&Default::default())), "closed");
    assert_eq!(code(store.store_memory(&Memory::new("x"))), "closed");
    assert_eq!(
        code(client.encrypt_user_memory(&Owner::from("ann"), &rich())),
        "closed"
    );
}

#[test]
fn everything_of_an_owner_is_erased_at_once_and_nothing_of_another() {
    let (client, _) = client(1);
    let (tutor, place) = (store(&client), Place::default());
    let elsewhere = tutor.clone().backend(place.clone());
    let ann = EncryptedMemoryStore::new(&client, &Owner::from("ann")).unwrap();
    ann.store_memory(&rich()).unwrap();
    tutor.store_memory(&rich()).unwrap();
    tutor.store_chat(&Chat::default().id("c")).unwrap();
    tutor.delete_memory("mem_1").unwrap();
    elsewhere.store_memory(&Memory::new("x").id("b")).unwrap();
    assert_eq!(tutor.list(&Default::default()).unwrap().items.len(), 1);
    assert_eq!(elsewhere.erase_all().unwrap(), 3);
    for id in ["mem_1", "b"] {
        assert_eq!(code(elsewhere.get_memory(id)), "record_erased");
    }
    assert_eq!(code(tutor.get_chat("c")), "record_erased");
    assert!(tutor.list(&Default::default()).unwrap().items.is_empty());
    assert!(
        tutor
            .list_chats(&Default::default())
            .unwrap()
            .items
            .is_empty()
    );
    assert!(place.names().is_empty());
    assert_eq!(ann.get_memory("mem_1").unwrap(), rich());
    assert_eq!(tutor.erase_all().unwrap(), 0);
}

#[test]
fn record_that_a_device_sealed_under_the_name_of_another_is_not_believed() {
    use crate::memory::steps::Rule;
    let (client, _) = client(1);
    let store = store(&client);
    let mut memory = store
        .draft_memory(&Memory::new("x").id("b"), Rule::New)
        .unwrap();
    memory.prepared.id = sprag_session::memory::RecordId::new("a").unwrap();
    store
        .write(&store.memories, memory)
        .unwrap()
        .wait()
        .unwrap();
    assert_eq!(code(store.get_memory("a")), "blob_misplaced");
    let mut chat = store
        .draft_chat(&Chat::default().id("b"), Rule::New)
        .unwrap();
    chat.prepared.id = sprag_session::memory::RecordId::new("a").unwrap();
    store.write(&store.chats, chat).unwrap().wait().unwrap();
    assert_eq!(code(store.get_chat("a")), "blob_misplaced");
}

#[test]
fn types_that_hold_content_are_wiped_when_they_are_dropped() {
    fn wiped<T: zeroize::ZeroizeOnDrop>() {}
    wiped::<Memory>();
    wiped::<Chat>();
    wiped::<ChatMessage>();
    wiped::<crate::memory::row::Row>();
}
