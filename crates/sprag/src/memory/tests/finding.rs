//! Lists and searches.

use super::*;
use crate::memory::{Chat, ListQuery};

fn ids(store: &EncryptedMemoryStore, query: &ListQuery) -> Vec<String> {
    let page = store.list(query).unwrap();
    page.items.iter().map(|item| item.id.clone()).collect()
}

fn found(store: &EncryptedMemoryStore, query: &[f32], limit: usize, threshold: f32) -> Vec<String> {
    let hits = store.search_similar(query, limit, threshold).unwrap();
    hits.into_iter().map(|hit| hit.id).collect()
}

#[test]
fn list_gives_the_newest_first_in_pages_by_tag_and_time() {
    let (client, hands) = client(2);
    let store = store(&client);
    for number in 0..10_u64 {
        let mut memory = Memory::new("x")
            .id(format!("m{number}"))
            .title(format!("t{number}"));
        memory
            .tags
            .push(if number % 2 == 0 { "even" } else { "odd" }.to_owned());
        store.store_memory(&memory).unwrap();
        // Two at a time.
        hands.forward(number % 2 * 1_000);
    }
    let all: Vec<String> = (0..10).rev().map(|number| format!("m{number}")).collect();
    assert_eq!(ids(&store, &ListQuery::new()), all);
    let (mut query, mut paged) = (ListQuery::new().limit(3), Vec::new());
    loop {
        let page = store.list(&query).unwrap();
        assert!(page.items.len() <= 3);
        paged.extend(page.items.iter().map(|item| item.id.clone()));
        let Some(next) = page.next else { break };
        query = query.after(&next);
    }
    assert_eq!(paged, all);
    assert_eq!(
        ids(&store, &ListQuery::new().tag("odd")),
        ["m9", "m7", "m5", "m3", "m1"]
    );
    assert!(ids(&store, &ListQuery::new().tag("prime")).is_empty());
    let since = ListQuery::new().since(BEGINNING + 3_000);
    assert_eq!(ids(&store, &since), ["m9", "m8", "m7", "m6"]);
    let between = since.before(BEGINNING + 4_000);
    assert_eq!(ids(&store, &between), ["m7", "m6"]);
    assert_eq!(ids(&store, &between.clone().limit(1)), ["m7"]);
    let next = store.list(&between.clone().limit(1)).unwrap().next.unwrap();
    assert_eq!(ids(&store, &between.after(&next)), ["m6"]);
    let item = store.list(&ListQuery::new()).unwrap().items.remove(0);
    assert_eq!((item.title.as_str(), item.dimensions), ("t9", 0));
    assert_eq!(
        (item.created_at, item.updated_at),
        (BEGINNING + 4_000, BEGINNING + 4_000)
    );
    for after in ["", "x", "-", "x-y", "1.5-a"] {
        assert_eq!(
            code(store.list(&ListQuery::new().after(after))),
            "bad_input",
            "{after}"
        );
    }
    // Chats are listed apart.
    store
        .store_chat(&Chat::default().id("c").title("talk"))
        .unwrap();
    let chats = store.list_chats(&ListQuery::new()).unwrap();
    assert_eq!(
        (chats.items.len(), chats.items[0].title.as_str()),
        (1, "talk")
    );
    assert_eq!(ids(&store, &ListQuery::new()), all);
}

#[test]
fn search_finds_what_points_the_same_way_the_best_first() {
    let (client, _) = client(2);
    let store = store(&client);
    for (id, embedding) in [
        ("east", vec![1.0, 0.0]),
        ("north", vec![0.0, 3.0]),
        ("north-east", vec![2.0, 2.0]),
        ("west", vec![-0.5, 0.0]),
        ("deep", vec![1.0, 0.0, 0.0]),
    ] {
        let memory = Memory::new("x").id(id).title(id).embedding(embedding);
        store.store_memory(&memory).unwrap();
    }
    store
        .store_memory(&Memory::new("no direction").id("none"))
        .unwrap();
    let hits = store.search_similar(&[5.0, 0.1], 10, -1.0).unwrap();
    let order: Vec<_> = hits.iter().map(|hit| hit.id.as_str()).collect();
    assert_eq!(order, ["east", "north-east", "north", "west"]);
    assert!((hits[0].score - 0.9998).abs() < 1e-4, "{}", hits[0].score);
    assert_eq!(hits[1].title, "north-east");
    assert_eq!(found(&store, &[1.0, 0.0], 10, 0.7), ["east", "north-east"]);
    assert_eq!(found(&store, &[1.0, 0.0], 1, -1.0), ["east"]);
    assert_eq!(found(&store, &[1.0, 0.0, 0.0], 10, -1.0), ["deep"]);
    assert!(found(&store, &[1.0; 4], 10, -1.0).is_empty());
    for (query, limit, threshold, refused) in [
        (&[][..], 1, 0.0, "bad_record"),
        (&[0.0, 0.0], 1, 0.0, "bad_record"),
        (&[f32::NAN, 0.0], 1, 0.0, "bad_record"),
        (&[1.0, 0.0], 0, 0.0, "bad_input"),
        (&[1.0, 0.0], 1_001, 0.0, "bad_input"),
        (&[1.0, 0.0], 1, f32::NAN, "bad_input"),
        (&[1.0, 0.0], 1, f32::INFINITY, "bad_input"),
    ] {
        assert_eq!(code(store.search_similar(query, limit, threshold)), refused);
    }
}

#[test]
fn index_follows_every_change_whoever_of_the_handles_made_it() {
    let (client, _) = client(2);
    let (one, other) = (store(&client), store(&client.clone()));
    assert!(found(&one, &[1.0, 0.0], 10, 0.0).is_empty());
    for id in ["a", "b", "c", "d"] {
        other
            .store_memory(&Memory::new("x").id(id).embedding(vec![1.0, 0.0]))
            .unwrap();
    }
    assert_eq!(found(&one, &[1.0, 0.0], 10, 0.9).len(), 4);
    other
        .update_memory(&Memory::new("y").id("a").embedding(vec![0.0, 1.0]))
        .unwrap();
    other.update_memory(&Memory::new("y").id("b")).unwrap();
    other.delete_memory("c").unwrap();
    assert_eq!(found(&one, &[1.0, 0.0], 10, 0.9), ["d"]);
    assert_eq!(found(&one, &[0.0, 1.0], 10, 0.9), ["a"]);
    let owner = Owner::new("ann").agent("tutor");
    let memory = Memory::new("y").id("e").embedding(vec![1.0, 0.0]);
    client.encrypt_user_memory(&owner, &memory).unwrap();
    assert_eq!(found(&one, &[1.0, 0.0], 10, 0.9).len(), 2);
    other.erase_memory("d").unwrap();
    assert_eq!(found(&one, &[1.0, 0.0], 10, 0.9), ["e"]);
    assert_eq!(ids(&one, &ListQuery::new()), ["e", "b", "a"]);
}

#[test]
fn index_is_the_same_after_the_profile_was_opened_again() {
    let place = tempfile::tempdir().unwrap();
    let key = || crate::Key::raw([7; 32]);
    let client = Client::create(place.path().join("p"), key(), "ann").unwrap();
    let first = store(&client);
    for number in 0..50_u16 {
        let angle = f32::from(number) / 50.0;
        let memory = Memory::new("x").id(format!("{number}"));
        first
            .store_memory(&memory.embedding(vec![angle.cos(), angle.sin()]))
            .unwrap();
    }
    first.delete_memory("7").unwrap();
    first.erase_memory("8").unwrap();
    let (listed, query) = (ids(&first, &ListQuery::new()), [0.99, 0.14]);
    let hits = first.search_similar(&query, 20, 0.0).unwrap();
    assert!(hits.iter().all(|hit| hit.id != "7" && hit.id != "8"));
    client.close().unwrap();
    let client = Client::open(place.path().join("p"), key()).unwrap();
    let again = store(&client);
    assert_eq!(ids(&again, &ListQuery::new()), listed);
    assert_eq!(again.search_similar(&query, 20, 0.0).unwrap(), hits);
    // A store that failed and is opened again, too.
    client.reopen().unwrap();
    again.delete_memory(&hits[0].id).unwrap();
    assert_eq!(again.search_similar(&query, 20, 0.0).unwrap()[0], hits[1]);
    client.close().unwrap();
}

#[test]
fn searches_and_writes_of_many_threads_leave_an_index_that_is_true() {
    let (client, _) = client(2);
    let store = store(&client);
    std::thread::scope(|scope| {
        for thread in 0..4_u8 {
            let store = store.clone();
            scope.spawn(move || {
                for number in 0..25_u8 {
                    let id = format!("{thread}-{number}");
                    let direction = vec![1.0, f32::from(number) / 50.0];
                    store
                        .store_memory(&Memory::new("x").id(&id).embedding(direction))
                        .unwrap();
                    if number % 3 == 0 {
                        store.delete_memory(&id).unwrap();
                    }
                    store.search_similar(&[1.0, 0.0], 5, 0.0).unwrap();
                }
            });
        }
    });
    let expected = 4 * (25 - 9);
    assert_eq!(found(&store, &[1.0, 0.0], 1_000, 0.0).len(), expected);
    let query = ListQuery::new().limit(1_000);
    let before = ids(&store, &query);
    assert_eq!(before.len(), expected);
    // And the rows say the same.
    client.shared.memories.clear();
    assert_eq!(ids(&store, &query), before);
}

#[test]
fn index_that_is_read_while_others_write_misses_none_of_it() {
    let (client, _) = client(2);
    let store = store(&client);
    for number in 0..300 {
        let memory = Memory::new("x").id(format!("old {number}"));
        store
            .store_memory(&memory.embedding(vec![1.0, 0.5]))
            .unwrap();
    }
    std::thread::scope(|scope| {
        let writer = store.clone();
        let writing = scope.spawn(move || {
            for number in 0..150 {
                let memory = Memory::new("x").id(format!("new {number}"));
                writer
                    .store_memory(&memory.embedding(vec![1.0, 0.5]))
                    .unwrap();
                writer.delete_memory(&format!("old {number}")).unwrap();
            }
        });
        while !writing.is_finished() {
            // As when the store is opened again: it is read from the rows once more.
            client.shared.memories.clear();
            let hits = store.search_similar(&[1.0, 0.5], 1_000, 0.9).unwrap();
            // Whatever comes and goes meanwhile, those that stay are all found.
            let stays = |id: &str| {
                id.strip_prefix("old ")
                    .is_some_and(|old| old.len() == 3 && old >= "150")
            };
            assert_eq!(hits.iter().filter(|hit| stays(&hit.id)).count(), 150);
        }
    });
    let hits = store.search_similar(&[1.0, 0.5], 1_000, 0.9).unwrap();
    assert_eq!(hits.len(), 300);
    assert!(hits.iter().all(|hit| hit.id != "old 149"));
    client.shared.memories.clear();
    assert_eq!(store.search_similar(&[1.0, 0.5], 1_000, 0.9).unwrap(), hits);
}

#[test]
fn owners_and_applications_do_not_find_each_others_memories() {
    let (client, _) = client(2);
    let owner = Owner::from("ann");
    let stores = [
        EncryptedMemoryStore::new(&client, &owner).unwrap(),
        EncryptedMemoryStore::new(&client, &owner.clone().agent("tutor")).unwrap(),
        EncryptedMemoryStore::new(&client, &Owner::from("bob")).unwrap(),
        EncryptedMemoryStore::new(&client.for_app("mail"), &owner).unwrap(),
    ];
    for (number, store) in stores.iter().enumerate() {
        let memory = Memory::new(format!("{number}"))
            .id("same")
            .embedding(vec![1.0]);
        store.store_memory(&memory).unwrap();
    }
    for (number, store) in stores.iter().enumerate() {
        assert_eq!(found(store, &[1.0], 10, 0.0).len(), 1);
        assert_eq!(
            store.get_memory("same").unwrap().content,
            format!("{number}")
        );
    }
}

/// `cargo test --release -p sprag --lib hundred_thousand -- --ignored --nocapture` tells how long each part took.
#[test]
#[ignore = "takes minutes without optimisation"]
#[expect(clippy::print_stdout, reason = "it tells how long something took")]
fn hundred_thousand_memories_are_found_listed_exported_and_taken_back() {
    use std::io::Cursor;
    let now = std::time::Instant::now;
    const COUNT: usize = 100_000;
    let mut state = 1_u32;
    let mut number = move || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        f32::from(u16::try_from(state >> 16).unwrap()) / 32_768.0 - 1.0
    };
    let (client, hands) = client(2);
    let store = store(&client);
    let mut document = String::from(r#"{"_sprag_export":1,"memories":["#);
    let mut queries = Vec::new();
    for count in 0..COUNT {
        let embedding: Vec<f32> = (0..384).map(|_| number()).collect();
        if count % 1_000 == 0 {
            queries.push((format!("m{count}"), embedding.clone()));
        }
        let mut memory = Memory::new("a memory of some two hundred bytes ".repeat(6));
        memory.created_at = BEGINNING + u64::try_from(count).unwrap();
        memory.updated_at = memory.created_at;
        let memory = memory
            .id(format!("m{count}"))
            .tags(["t"])
            .embedding(embedding);
        document.push_str(if count == 0 { "" } else { "," });
        document.push_str(&memory.to_json());
    }
    document.push_str(r#"],"chats":[]}"#);
    hands.forward(1);
    let begun = now();
    let imported = store
        .import(Cursor::new(&document), crate::memory::OnConflict::Keep)
        .unwrap();
    println!("import    {:?}", begun.elapsed());
    assert_eq!(imported.written, u64::try_from(COUNT).unwrap());
    let begun = now();
    assert_eq!(store.list(&ListQuery::new()).unwrap().items[0].id, "m99999");
    println!("load      {:?}", begun.elapsed());
    let begun = now();
    for (id, query) in &queries {
        let hits = store.search_similar(query, 10, 0.0).unwrap();
        assert_eq!(&hits[0].id, id);
        assert!(hits[0].score > 0.999_9);
    }
    println!("search    {:?} each", begun.elapsed() / 100);
    let begun = now();
    store.get_memory("m500").unwrap();
    println!("get       {:?}", begun.elapsed());
    let begun = now();
    let mut out = Vec::new();
    assert_eq!(store.export(&mut out).unwrap(), 0);
    println!(
        "export    {:?}, {} MB",
        begun.elapsed(),
        out.len() / 1_000_000
    );
    let begun = now();
    let again = store
        .import(Cursor::new(&out), crate::memory::OnConflict::Keep)
        .unwrap();
    println!("unchanged {:?}", begun.elapsed());
    assert_eq!(again.unchanged, u64::try_from(COUNT).unwrap());
}
