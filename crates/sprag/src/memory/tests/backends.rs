//! Stores over backends that fail, lie, are slow, and die in between.

use std::sync::mpsc;

use super::*;
use crate::memory::{Chat, FolderBackend, LEAST_GRACE};

fn over(client: &Client, place: &Place) -> EncryptedMemoryStore {
    store(client).backend(place.clone())
}

#[test]
fn blob_is_at_the_backend_before_the_log_knows_it_and_goes_after_it() {
    let (client, _) = client(3);
    let place = Place::default();
    let store = over(&client, &place);
    let seen = Arc::new(Mutex::new(String::new()));
    let (looks, sees) = (store.clone(), seen.clone());
    place.on_put(move |_| {
        *sees.lock().unwrap() = code(looks.get_memory("a")).to_owned();
        Ok(())
    });
    let first = store.store_memory(&Memory::new("x").id("a")).unwrap();
    assert_eq!(*seen.lock().unwrap(), "no_record");
    assert_eq!(place.names(), std::slice::from_ref(&first.name));
    assert_eq!(store.get_memory("a").unwrap().content, "x");
    place.calls();
    let second = store.update_memory(&Memory::new("y").id("a")).unwrap();
    assert_eq!(place.calls(), [format!("put {}", second.name)]);
    store.delete_memory("a").unwrap();
    assert_eq!(place.calls(), [format!("delete {}", second.name)]);
    // The one that was replaced is for devices that do not know of it yet.
    assert_eq!(place.names(), [first.name]);
}

#[test]
fn what_a_backend_does_not_take_is_not_stored() {
    let (client, _) = client(3);
    let place = Place::default();
    let store = over(&client, &place);
    store.store_memory(&Memory::new("old").id("there")).unwrap();
    for (error, code_of_it) in [
        (BackendError::Unavailable(None), "backend_away"),
        (
            BackendError::refused(std::io::Error::other("full")),
            "backend_refused",
        ),
    ] {
        place.go_away(Some(error));
        let failed = store.store_memory(&Memory::new("x").id("a")).unwrap_err();
        assert_eq!(failed.code(), code_of_it);
        assert_eq!(failed.is_retryable(), code_of_it == "backend_away");
        assert_eq!(
            code(store.store_verified(&Memory::new("x").id("a"))),
            code_of_it
        );
        assert_eq!(
            code(store.update_memory(&Memory::new("new").id("there"))),
            code_of_it
        );
        assert_eq!(code(store.store_chat(&Chat::default().id("c"))), code_of_it);
        assert_eq!(code(store.get_memory("there")), code_of_it);
        place.go_away(None);
        assert_eq!(code(store.get_memory("a")), "no_record");
        assert_eq!(store.get_memory("there").unwrap().content, "old");
        assert_eq!(store.list(&Default::default()).unwrap().items.len(), 1);
    }
    // What is deleted is deleted, also if its blob stays for now.
    place.go_away(Some(BackendError::Unavailable(None)));
    assert!(store.delete_memory("there").unwrap());
    place.go_away(None);
    assert_eq!(place.names().len(), 1);
    assert_eq!(store.sweep_without_server(LEAST_GRACE).unwrap(), 0);
}

#[test]
fn backend_that_lies_is_found_out_and_the_record_is_not_stored() {
    let (client, _) = client(3);
    let place = Place::default();
    let store = over(&client, &place);
    let old = store.store_verified(&Memory::new("old").id("old")).unwrap();
    let other = place.blob(&old.name);
    for lie in [
        None,
        Some(Vec::new()),
        Some(b"something".to_vec()),
        Some(other),
    ] {
        place.give_instead(lie);
        let lied = store.store_verified(&Memory::new("x").id("a"));
        assert_eq!(code(lied), "backend_lied");
        place.give_what_is_asked_for();
        assert_eq!(code(store.get_memory("a")), "no_record");
        assert_eq!(place.names(), std::slice::from_ref(&old.name));
    }
    let stored = store.store_verified(&Memory::new("x").id("a")).unwrap();
    assert_eq!(stored.revision, 1);
    // Without a backend it is the own store that is read back.
    let own = super::store(&client);
    own.store_verified(&Memory::new("x").id("own")).unwrap();
    assert_eq!(own.get_memory("own").unwrap().content, "x");
}

#[test]
fn older_and_other_and_damaged_blobs_are_not_passed_off() {
    let (client, _) = client(3);
    let place = Place::default();
    let store = over(&client, &place);
    let old = store.store_memory(&Memory::new("old").id("a")).unwrap();
    let old = place.blob(&old.name);
    let new = store.update_memory(&Memory::new("new").id("a")).unwrap();
    let other = store.store_memory(&Memory::new("other").id("b")).unwrap();
    let mut damaged = place.blob(&new.name);
    damaged[150] ^= 1;
    for (given, told) in [
        (Some(old), "blob_stale"),
        (Some(place.blob(&other.name)), "blob_misplaced"),
        (Some(damaged), "blob_damaged"),
        (Some(b"nothing of the kind".to_vec()), "blob_damaged"),
        (None, "blob_missing"),
    ] {
        place.give_instead(given);
        assert_eq!(code(store.get_memory("a")), told);
    }
    place.give_what_is_asked_for();
    assert_eq!(store.get_memory("a").unwrap().content, "new");
    // One that is missing concerns no other.
    place.delete(&new.name).unwrap();
    assert_eq!(code(store.get_memory("a")), "blob_missing");
    assert_eq!(store.get_memory("b").unwrap().content, "other");
    // Without its backend nobody has it.
    assert_eq!(code(super::store(&client).get_memory("b")), "blob_missing");
}

#[test]
fn write_that_another_one_overtakes_goes_on_top_of_it_and_leaves_nothing_behind() {
    let (client, hands) = client(3);
    let place = Place::default();
    let store = over(&client, &place);
    store.store_memory(&Memory::new("first").id("a")).unwrap();
    let faster = store.clone();
    place.on_put(move |_| {
        faster
            .update_memory(&Memory::new("faster").id("a"))
            .unwrap();
        Ok(())
    });
    let slower = store.update_memory(&Memory::new("slower").id("a")).unwrap();
    assert_eq!(slower.revision, 3);
    assert_eq!(store.get_memory("a").unwrap().content, "slower");
    // Those of the three revisions, and nothing of the first attempt.
    assert_eq!(place.names().len(), 3);
    assert!(place.names().contains(&slower.name));
    // Unless it was to go on top of what it had read.
    let mut seen = store.get_memory("a").unwrap();
    let faster = store.clone();
    place.on_put(move |_| {
        faster
            .update_memory(&Memory::new("faster").id("a"))
            .unwrap();
        Ok(())
    });
    seen.content = "too late".to_owned();
    assert_eq!(code(store.update_memory(&seen)), "write_conflict");
    assert_eq!(store.get_memory("a").unwrap().content, "faster");
    assert_eq!(place.names().len(), 4);
    // And one that erases wins.
    let eraser = store.clone();
    place.on_put(move |_| {
        eraser.erase_memory("a").unwrap();
        Ok(())
    });
    assert_eq!(
        code(store.update_memory(&Memory::new("x").id("a"))),
        "record_erased"
    );
    assert_eq!(place.names().len(), 3);
    hands.forward(LEAST_GRACE + 1);
    assert_eq!(store.sweep_without_server(LEAST_GRACE).unwrap(), 3);
    assert!(place.names().is_empty());
}

#[test]
fn crash_between_blob_and_log_leaves_an_orphan_that_is_swept_away() {
    let folder = tempfile::tempdir().unwrap();
    let key = || crate::Key::raw([7; 32]);
    let profile = folder.path().join("profile");
    let client = Client::create(&profile, key(), "ann").unwrap();
    let place = Place::default();
    let store = over(&client, &place);
    let kept = store.store_memory(&Memory::new("kept").id("kept")).unwrap();
    let dying = client.clone();
    place.on_put(move |_| {
        dying.close().unwrap();
        Ok(())
    });
    assert_eq!(
        code(store.store_memory(&Memory::new("x").id("a"))),
        "closed"
    );
    // Nothing says whether that was before or after the log: so the blob stays.
    let client = Client::open(&profile, key()).unwrap();
    let store = over(&client, &place);
    assert_eq!(code(store.get_memory("a")), "no_record");
    place
        .0
        .blobs
        .lock()
        .unwrap()
        .insert("f".repeat(64), (vec![1], u64::MAX));
    place
        .0
        .blobs
        .lock()
        .unwrap()
        .insert("notes".to_owned(), (vec![1], 0));
    // What is young may be under way, and what has no such name is not ours.
    assert_eq!(
        store.sweep_without_server(LEAST_GRACE).unwrap(),
        orphans(&place, &kept.name)
    );
    assert_eq!(place.names(), {
        let mut names = vec![kept.name.clone(), "f".repeat(64), "notes".to_owned()];
        names.sort();
        names
    });
    assert_eq!(store.get_memory("kept").unwrap().content, "kept");
    assert_eq!(store.sweep_without_server(LEAST_GRACE).unwrap(), 0);
    client.close().unwrap();
}

/// Blobs that are old enough and that nobody knows: the failed write removes its own if it can.
fn orphans(place: &Place, kept: &str) -> u64 {
    let blobs = place.0.blobs.lock().unwrap();
    let orphans = blobs
        .iter()
        .filter(|(name, (_, at))| name.len() == 64 && *name != kept && *at == BEGINNING);
    u64::try_from(orphans.count()).unwrap()
}

#[test]
fn sweep_removes_only_what_no_log_of_the_account_names_and_only_in_time() {
    let (client, hands) = client(3);
    let place = Place::default();
    let tutor = over(&client, &place);
    let ann = EncryptedMemoryStore::new(&client.for_app("mail"), &Owner::from("ann")).unwrap();
    let ann = ann.backend(place.clone());
    tutor.store_memory(&Memory::new("x").id("a")).unwrap();
    tutor.store_chat(&Chat::default().id("c")).unwrap();
    ann.store_memory(&Memory::new("y").id("b")).unwrap();
    let orphan = "0".repeat(64);
    place.put(&orphan, b"nobody's").unwrap();
    assert_eq!(code(tutor.sweep(LEAST_GRACE - 1)), "bad_input");
    // It never heard of a server, so it cannot know what other devices stored.
    assert_eq!(code(tutor.sweep(LEAST_GRACE)), "log_behind");
    assert_eq!(tutor.sweep_without_server(LEAST_GRACE).unwrap(), 0);
    hands.forward(LEAST_GRACE + 1);
    assert_eq!(code(tutor.sweep(LEAST_GRACE)), "log_behind");
    assert_eq!(tutor.sweep_without_server(LEAST_GRACE).unwrap(), 1);
    assert_eq!(place.names().len(), 3);
    assert_eq!(tutor.get_memory("a").unwrap().content, "x");
    assert_eq!(tutor.get_chat("c").unwrap().id, "c");
    assert_eq!(ann.get_memory("b").unwrap().content, "y");
    assert_eq!(store(&client).sweep(LEAST_GRACE).unwrap(), 0);
}

#[test]
fn slow_backend_does_not_hold_up_whoever_began_the_verb() {
    let (client, _) = client(3);
    let place = Place::default();
    let store = over(&client, &place);
    let (go, gone) = mpsc::channel::<()>();
    let gone = Mutex::new(gone);
    place.on_put(move |_| {
        gone.lock().unwrap().recv().unwrap();
        Ok(())
    });
    let begun = store.start().store_memory(&Memory::new("x").id("a"));
    let next = store.start().get_memory("a");
    // The client is free meanwhile.
    super::store(&client)
        .store_memory(&Memory::new("y").id("b"))
        .unwrap();
    let begun = begun.wait_timeout(std::time::Duration::ZERO).unwrap_err();
    go.send(()).unwrap();
    assert_eq!(begun.wait().unwrap().revision, 1);
    // One after another: the read came after the write.
    assert_eq!(next.wait().unwrap().content, "x");
}

#[test]
fn every_verb_can_be_begun_and_awaited() {
    let (client, _) = client(3);
    for store in [store(&client), over(&client, &Place::default())] {
        let owner = if store.backend.is_some() { "x" } else { "y" };
        let start = store.start();
        let memory = Memory::new(owner).id(owner).embedding(vec![1.0]);
        start.store_memory(&memory).wait().unwrap();
        start.store_verified(&Memory::new("v")).wait().unwrap();
        start.update_memory(&memory).wait().unwrap();
        assert_eq!(start.get_memory(owner).wait().unwrap().content, owner);
        assert!(
            !start
                .search_similar(&[1.0], 9, 0.5)
                .wait()
                .unwrap()
                .is_empty()
        );
        assert!(start.list(&Default::default()).wait().unwrap().items.len() >= 2);
        start.refresh().wait().unwrap();
        let chat = Chat::default().id(owner);
        start.store_chat(&chat).wait().unwrap();
        start.update_chat(&chat).wait().unwrap();
        assert_eq!(start.get_chat(owner).wait().unwrap().id, owner);
        assert!(
            !start
                .list_chats(&Default::default())
                .wait()
                .unwrap()
                .items
                .is_empty()
        );
        assert!(start.export_page(None).wait().unwrap().text.contains(owner));
        assert!(start.lost_writes().wait().unwrap().is_empty());
        start.forget_lost(owner).wait().unwrap();
        start.sweep_without_server(LEAST_GRACE).wait().unwrap();
        assert!(start.delete_chat(owner).wait().unwrap());
        assert!(start.erase_chat(owner).wait().unwrap());
        assert!(start.delete_memory(owner).wait().unwrap());
        assert!(start.erase_memory(owner).wait().unwrap());
        let standing = start.standing(owner).wait().unwrap();
        assert_eq!(standing, crate::memory::Standing::ErasePending);
        let ann = Owner::from("ann");
        let start = client.start();
        let sealed = start.encrypt_user_memory(&ann, &memory).wait().unwrap();
        start
            .decrypt_user_memory(&ann, owner, &sealed.blob)
            .wait()
            .unwrap();
        let sealed = start.encrypt_user_chat(&ann, &chat).wait().unwrap();
        start
            .decrypt_user_chat(&ann, owner, &sealed.blob)
            .wait()
            .unwrap();
    }
    assert!(store(&client).start().erase_all().wait().unwrap() > 0);
}

#[test]
fn nothing_in_a_folder_of_blobs_is_in_clear() {
    let (client, _) = client(3);
    let folder = tempfile::tempdir().unwrap();
    let backend = FolderBackend::open(folder.path()).unwrap();
    let store = store(&client).backend(backend);
    let number = 0.123_456_79_f32;
    let memory = Memory::new("the content")
        .id("the-id")
        .title("the title")
        .tags(["the-tag"]);
    let stored = store
        .store_verified(&memory.embedding(vec![number; 8]))
        .unwrap();
    let file = folder.path().join(&stored.name[..2]).join(&stored.name);
    let bytes = std::fs::read(file).unwrap();
    assert_eq!(u64::try_from(bytes.len()).unwrap(), stored.size);
    for secret in [
        &b"the content"[..],
        b"the-id",
        b"the title",
        b"the-tag",
        b"tutor",
        b"content",
        &number.to_le_bytes(),
    ] {
        assert!(!bytes.windows(secret.len()).any(|part| part == secret));
    }
    assert_eq!(store.get_memory("the-id").unwrap().title, "the title");
}
