//! Memories of one user on several devices, over a server that nobody trusts: the whole of it, as an application has it.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex};

use sprag::memory::{Chat, ChatMessage, EncryptedMemoryStore, ListQuery, Memory, Owner, Standing};
use sprag::store::{META_TABLE, RowName, Rows, Store};
use sprag::{Event, Key, Restore, Task};
use sprag_crypto::{hkdf, hmac, sha256};
use sprag_directory::{DirectoryError, MemoryStorage};
use sprag_session::Generation;
use sprag_session::memory::{
    LogError, NamesKey, RecordState, Segment, Space, SpaceKind, generation_of,
};
use sprag_tests::shelf::Shelf;
use sprag_tests::world::{Who, World};
use sprag_wire::relay::Object;

const DAY: u64 = 24 * 3_600_000;

fn memories(world: &World, who: Who) -> EncryptedMemoryStore {
    EncryptedMemoryStore::new(world.client(who), &Owner::new("ann")).unwrap()
}

fn write(world: &World, who: Who, id: &str, content: &str) -> String {
    let memory = Memory::new(content).id(id).tags(["story"]);
    memories(world, who).store_memory(&memory).unwrap().name
}

fn read(world: &World, who: Who, id: &str) -> String {
    let read = memories(world, who).get_memory(id);
    match read {
        Ok(memory) => memory.content.clone(),
        Err(error) => error.code().to_owned(),
    }
}

/// Each device asks what the others wrote, until all of them know it.
fn exchange(world: &mut World, devices: &[Who]) {
    for _ in 0..3 {
        for who in devices {
            memories(world, *who).refresh().unwrap();
            world.settle();
        }
    }
}

/// Upkeep of all devices, and what follows from it.
fn maintain(world: &mut World, devices: &[Who]) {
    for who in devices {
        world.client(*who).maintain().unwrap();
        exchange(world, devices);
    }
}

fn refusals(world: &World, who: Who) -> Vec<LogError> {
    let events = world.client(who).events(0).unwrap().into_iter();
    let refused = events.filter_map(|numbered| match numbered.event {
        Event::MemoryRefused { error, .. } => Some(error),
        _ => None,
    });
    refused.collect()
}

fn refilled(world: &World, who: Who) -> usize {
    let events = world.client(who).events(0).unwrap().into_iter();
    let refilled = events.filter(|numbered| matches!(numbered.event, Event::MemoryRefilled { .. }));
    refilled.count()
}

/// Keeps everything that goes to the server from now on: values of objects, and blobs.
fn record(world: &mut World) -> Arc<Mutex<BTreeSet<Vec<u8>>>> {
    let kept: Arc<Mutex<BTreeSet<Vec<u8>>>> = Arc::default();
    let keeper = kept.clone();
    world.let_server_lie(move |task, reply| {
        let bytes = match task {
            Task::PutObject { object, .. } => Object::decode(object).unwrap().value,
            Task::PutBlob { bytes, .. } => bytes.clone(),
            _ => return reply,
        };
        keeper.lock().unwrap().insert(bytes);
        reply
    });
    kept
}

/// All that a device holds, in clear: whoever takes it over has this.
struct State {
    values: Vec<Vec<u8>>,
    root: [u8; 32],
    generations: Vec<Generation>,
}

impl State {
    fn of(world: &mut World, who: Who, copy: &Shelf) -> Self {
        let store: Store = world.store_over(who, copy.durable()).unwrap();
        let mut values = Vec::new();
        for table in (0..=u8::MAX).filter(|table| *table != META_TABLE) {
            let all = RowName::plain(table, Vec::new());
            store
                .scan(&all, &mut |_, value| {
                    values.push(value.to_vec());
                    ControlFlow::Continue(())
                })
                .unwrap();
        }
        let device = sprag_session::Device::load(&store).unwrap().unwrap();
        let root = device.account_root(&store).unwrap().unwrap();
        let generations = device.generations(&store).unwrap();
        Self {
            values,
            root: *root,
            generations,
        }
    }

    fn now(world: &mut World, who: Who) -> Self {
        // What was submitted is on the shelf when the client is closed.
        world.restart(who);
        let copy = world.shelf(who).after_power_cut();
        Self::of(world, who, &copy)
    }

    fn windows(&self) -> impl Iterator<Item = &[u8]> {
        self.values.iter().flat_map(|value| value.windows(32))
    }

    /// Heads and segments out of `sealed` of whose generation the key is somewhere in the state, as any 32 bytes of it.
    fn opens(&self, sealed: &BTreeSet<Vec<u8>>) -> usize {
        let ids: BTreeMap<[u8; 8], (u64, u32)> = sealed
            .iter()
            .filter_map(|bytes| generation_of(bytes).ok())
            .map(|(epoch, number, id)| (id, (epoch, number)))
            .collect();
        let found: BTreeSet<[u8; 8]> = self
            .windows()
            .map(|window| {
                let id = hmac(window, &[b"Sprag/1 generation"]);
                *id.first_chunk().unwrap()
            })
            .filter(|id| ids.contains_key(id))
            .collect();
        let is_open =
            |bytes: &&Vec<u8>| generation_of(bytes).is_ok_and(|(_, _, id)| found.contains(&id));
        sealed.iter().filter(is_open).count()
    }

    /// Whether any 32 bytes of the state, or a key that stands in a segment which it opens, are the data key of a blob.
    fn opens_blob(&self, sealed: &BTreeSet<Vec<u8>>, blob: &[u8]) -> bool {
        let spaces = [SpaceKind::Memory, SpaceKind::Chat]
            .map(|kind| Space::new("sprag", "ann", None, kind).unwrap());
        let names = NamesKey::new(&self.root);
        let mut keys: Vec<Vec<u8>> = Vec::new();
        for bytes in sealed {
            for space in &spaces {
                let name = names.head(space);
                let Ok(segment) = Segment::open(&self.generations, space, &name, bytes) else {
                    continue;
                };
                for entry in segment.entries().values() {
                    if let RecordState::Live { key, .. } = &entry.state {
                        keys.push(key.to_vec());
                    }
                }
            }
        }
        let keys = keys.iter().map(Vec::as_slice);
        keys.chain(self.windows()).any(|key| fits(key, blob))
    }
}

/// Whether a data key is that of a blob (`docs/VAULT.md`, *Keys*).
fn fits(key: &[u8], blob: &[u8]) -> bool {
    let (suite, salt, commitment) = (blob[9], &blob[16..48], &blob[48..80]);
    let made = hkdf::<32>(salt, key, &[b"evlt/v1 commit", &[suite]]);
    made.as_slice() == commitment
}

fn is_record(bytes: &[u8]) -> bool {
    bytes.starts_with(&sprag_vault::MAGIC)
}

#[test]
fn memory_of_one_device_is_found_and_read_on_the_other_without_a_backup() {
    let mut world = World::new(1);
    let devices = world.join_with_devices("ann", 2);
    let (one, two) = (devices[0], devices[1]);
    let tea = Memory::new("no milk in it")
        .id("tea")
        .title("Tea")
        .tags(["taste", "drinks"])
        .embedding(vec![0.6, 0.8, 0.0]);
    let coffee = Memory::new("with milk")
        .id("coffee")
        .embedding(vec![0.0, 0.0, 1.0]);
    for memory in [&tea, &coffee] {
        memories(&world, one).store_memory(memory).unwrap();
    }
    let chat = Chat::new(vec![ChatMessage::new("user", "hello")]).id("first");
    memories(&world, one).store_chat(&chat).unwrap();
    assert_eq!(read(&world, two, "tea"), "no_record");
    exchange(&mut world, &devices);

    let store = memories(&world, two);
    let found = store.get_memory("tea").unwrap();
    assert_eq!((&found.content, &found.title), (&tea.content, &tea.title));
    assert_eq!(found.tags, tea.tags);
    let provenance = found.provenance().unwrap();
    assert_eq!(provenance.device, world.address(one).device().get());
    assert_eq!(provenance.revision, 1);
    let hits = store.search_similar(&[0.5, 0.9, 0.1], 5, 0.5).unwrap();
    assert_eq!(
        hits.iter().map(|hit| hit.id.as_str()).collect::<Vec<_>>(),
        ["tea"]
    );
    let listed = store.list(&ListQuery::new().tag("drinks")).unwrap();
    assert_eq!(listed.items.len(), 1);
    assert_eq!(
        store.get_chat("first").unwrap().messages[0].content,
        "hello"
    );

    // And the other way round, on top of what was read.
    let mut changed = found.clone();
    changed.content = "oat milk is fine".to_owned();
    store.update_memory(&changed).unwrap();
    exchange(&mut world, &devices);
    let found = memories(&world, one).get_memory("tea").unwrap();
    assert_eq!(found.content, "oat milk is fine");
    assert_eq!(
        found.provenance().unwrap().device,
        world.address(two).device().get()
    );

    // A device that comes later, too: of what was written before it was there.
    let three = world.begin_link("ann");
    world.link(one, three, false);
    exchange(&mut world, &[one, two, three]);
    assert_eq!(read(&world, three, "tea"), "oat milk is fine");
    let hits = memories(&world, three).search_similar(&[0.0, 0.1, 1.0], 1, 0.5);
    assert_eq!(hits.unwrap()[0].id, "coffee");

    // What is deleted on one is gone on all.
    assert!(memories(&world, three).delete_memory("coffee").unwrap());
    exchange(&mut world, &[one, two, three]);
    for who in [one, two, three] {
        assert_eq!(read(&world, who, "coffee"), "record_deleted");
        let hits = memories(&world, who).search_similar(&[0.0, 0.1, 1.0], 1, 0.5);
        assert!(hits.unwrap().is_empty());
        assert!(refusals(&world, who).is_empty());
    }
}

#[test]
fn device_that_was_restored_from_a_backup_finds_what_came_after_it() {
    let mut world = World::new(2);
    let one = world.join("ann");
    write(&world, one, "before", "written before");
    exchange(&mut world, &[one]);
    let key: Key = world.client(one).new_recovery_key().unwrap().to_key();
    let backup = world
        .client(one)
        .create_backup(std::slice::from_ref(&key))
        .unwrap();
    write(&world, one, "after", "written after");
    exchange(&mut world, &[one]);
    world.lose(one);
    let how = Restore::new().replacing_source();
    let new = world.restore("ann", &backup, &key, &how).unwrap();
    for _ in 0..10 {
        world.settle();
        world.wait(3_600_000);
    }
    exchange(&mut world, &[new]);
    assert_eq!(read(&world, new, "before"), "written before");
    assert_eq!(read(&world, new, "after"), "written after");
}

#[test]
fn first_head_of_a_removed_device_is_not_believed_by_one_that_came_later() {
    let mut world = World::new(14);
    let devices = world.join_with_devices("ann", 2);
    let (one, two) = (devices[0], devices[1]);
    let newest: Arc<Mutex<BTreeMap<Vec<u8>, Vec<u8>>>> = Arc::default();
    let keeper = newest.clone();
    world.let_server_lie(move |task, reply| {
        if let Task::PutObject { object, .. } = task {
            let object = Object::decode(object).unwrap();
            keeper.lock().unwrap().insert(object.name, object.value);
        }
        reply
    });
    write(&world, one, "a", "of one");
    exchange(&mut world, &devices);
    write(&world, two, "b", "of two");
    exchange(&mut world, &devices);
    let number = world.address(two).device().get();
    world.lose(two);
    // The server says that it takes nothing new, and shows what was signed by the device that is removed now.
    world.let_server_lie(move |task, reply| match task {
        Task::PutObject { .. } => Err(DirectoryError::Full),
        Task::GetObject { object, .. } => {
            let mut object = Object::decode(object).unwrap();
            object.value = newest.lock().unwrap()[&object.name].clone();
            object.tag = b"old".to_vec();
            Ok(object.encode())
        }
        _ => reply,
    });
    world.client(one).remove_device(number).unwrap();
    world.work(one);
    let three = world.begin_link("ann");
    world.link(one, three, false);
    memories(&world, three).refresh().unwrap();
    for _ in 0..3 {
        world.work(three);
        world.wait(120_000);
    }
    assert!(refusals(&world, three).contains(&LogError::UnlistedDevice));
    assert_eq!(read(&world, three, "b"), "no_record");
    // A device that stays had seen it, and signs it anew.
    world.let_server_be_honest();
    world.wait(3_700_000);
    exchange(&mut world, &[one, three]);
    for who in [one, three] {
        assert_eq!(read(&world, who, "a"), "of one");
        assert_eq!(read(&world, who, "b"), "of two");
    }
}

#[test]
fn server_knows_neither_texts_nor_names() {
    let mut world = World::new(3);
    let devices = world.join_with_devices("ann", 2);
    let kept = record(&mut world);
    let memory = Memory::new("SECRETCONTENT")
        .id("SECRETID")
        .title("SECRETTITLE")
        .tags(["SECRETTAG"])
        .embedding(vec![0.123_456, 0.654_321]);
    memories(&world, devices[0]).store_memory(&memory).unwrap();
    exchange(&mut world, &devices);
    assert_eq!(read(&world, devices[1], "SECRETID"), "SECRETCONTENT");
    let floats = [0.123_456_f32.to_le_bytes(), 0.654_321_f32.to_le_bytes()].concat();
    let kept = kept.lock().unwrap();
    assert!(kept.len() >= 5, "{}", kept.len());
    for bytes in kept.iter() {
        for secret in [&b"SECRET"[..], b"ann", b"memory", &floats] {
            assert!(!bytes.windows(secret.len()).any(|window| window == secret));
        }
    }
}

#[test]
fn server_that_serves_an_older_state_is_noticed_and_given_the_newest() {
    let mut world = World::new(4);
    let devices = world.join_with_devices("ann", 2);
    let (one, two) = (devices[0], devices[1]);
    write(&world, one, "a", "old");
    exchange(&mut world, &devices);
    let backup = world.backup_of_server();
    let mut newer = memories(&world, one).get_memory("a").unwrap();
    newer.content = "new".to_owned();
    memories(&world, one).update_memory(&newer).unwrap();
    write(&world, two, "b", "also new");
    exchange(&mut world, &devices);

    // Nobody says that it went back.
    world.set_server_back(&backup, None);
    assert!(refusals(&world, one).is_empty() && refusals(&world, two).is_empty());
    exchange(&mut world, &devices);
    let told = [refusals(&world, one), refusals(&world, two)].concat();
    assert!(told.contains(&LogError::Stale), "{told:?}");
    for who in [one, two] {
        assert_eq!(read(&world, who, "a"), "new");
        assert_eq!(read(&world, who, "b"), "also new");
    }
    // A device that was never there gets the newest from it.
    let three = world.begin_link("ann");
    world.link(one, three, true);
    exchange(&mut world, &[one, two, three]);
    assert_eq!(read(&world, three, "a"), "new");
    assert_eq!(read(&world, three, "b"), "also new");
}

#[test]
fn server_that_shows_one_device_an_older_head_each_time_moves_it_nowhere() {
    let mut world = World::new(5);
    let devices = world.join_with_devices("ann", 2);
    let (one, two) = (devices[0], devices[1]);
    // The first value that each object ever had, in the shape of an answer of now.
    let firsts: Arc<Mutex<BTreeMap<Vec<u8>, Vec<u8>>>> = Arc::default();
    let keeper = firsts.clone();
    world.let_server_lie(move |task, reply| {
        if let Task::PutObject { object, .. } = task {
            let object = Object::decode(object).unwrap();
            keeper
                .lock()
                .unwrap()
                .entry(object.name)
                .or_insert(object.value);
        }
        reply
    });
    write(&world, one, "a", "old");
    exchange(&mut world, &devices);
    let mut newer = memories(&world, one).get_memory("a").unwrap();
    newer.content = "new".to_owned();
    memories(&world, one).update_memory(&newer).unwrap();
    exchange(&mut world, &devices);
    assert_eq!(read(&world, two, "a"), "new");
    let lies = firsts.clone();
    world.let_server_lie(move |task, reply| {
        let mut object = match (task, &reply) {
            (Task::GetObject { .. }, Ok(reply)) => Object::decode(reply).unwrap(),
            _ => return reply,
        };
        if let Some(first) = lies.lock().unwrap().get(&object.name) {
            object.value.clone_from(first);
            object.tag = b"another tag".to_vec();
        }
        Ok(object.encode())
    });
    for _ in 0..3 {
        memories(&world, two).refresh().unwrap();
        world.work(two);
        world.wait(120_000);
        assert_eq!(read(&world, two, "a"), "new");
    }
    assert!(refusals(&world, two).contains(&LogError::Stale));
    world.let_server_be_honest();
    world.wait(DAY);
    write(&world, two, "b", "later");
    exchange(&mut world, &devices);
    assert_eq!(read(&world, one, "a"), "new");
    assert_eq!(read(&world, one, "b"), "later");
}

#[test]
fn any_other_blob_in_place_of_a_segment_or_a_record_is_refused_and_the_right_one_taken() {
    let mut world = World::new(6);
    let devices = world.join_with_devices("ann", 2);
    let (one, two) = (devices[0], devices[1]);
    write(&world, one, "a", "first");
    exchange(&mut world, &devices);
    // From now on every blob that it asks for is an older one, cut, or another one.
    let older: Vec<Vec<u8>> = world.blobs().into_values().collect();
    let mut turn = 0;
    world.let_server_lie(move |task, reply| match task {
        Task::GetBlob { name, .. } => {
            turn += 1;
            let good = reply?;
            let other = older.iter().find(|other| sha256(&[other]) != *name);
            Ok(match turn % 3 {
                0 => good[..good.len() - 1].to_vec(),
                1 => other.unwrap().clone(),
                _ => [&good[..], &[0]].concat(),
            })
        }
        _ => reply,
    });
    let before = world.client(two).events(0).unwrap().len();
    let mut newer = memories(&world, one).get_memory("a").unwrap();
    newer.content = "second".to_owned();
    memories(&world, one).update_memory(&newer).unwrap();
    write(&world, one, "b", "of two");
    world.settle();
    for _ in 0..3 {
        memories(&world, two).refresh().unwrap();
        world.work(two);
        world.wait(120_000);
        assert_ne!(read(&world, two, "a"), "second");
        assert_eq!(read(&world, two, "b"), "no_record");
    }
    let events = world.client(two).events(0).unwrap();
    let refused = events[before..].iter();
    let refused = refused.filter(|told| matches!(told.event, Event::ReplyRefused { .. }));
    assert!(refused.count() >= 3, "{events:?}");
    world.let_server_be_honest();
    world.wait(DAY);
    exchange(&mut world, &devices);
    assert_eq!(read(&world, two, "a"), "second");
    assert_eq!(read(&world, two, "b"), "of two");
}

#[test]
fn server_that_lost_everything_is_refilled() {
    for epoch in [None, Some(9)] {
        let mut world = World::new(7);
        let devices = world.join_with_devices("ann", 2);
        let (one, two) = (devices[0], devices[1]);
        for number in 0..5 {
            write(&world, devices[number % 2], &number.to_string(), "text");
        }
        exchange(&mut world, &devices);
        let had = world.blobs();
        assert!(had.len() >= 6);
        world.set_server_back(&MemoryStorage::new(), epoch);
        assert!(world.blobs().is_empty());
        for who in [one, two] {
            world.connect(who);
        }
        for _ in 0..3 {
            world.wait(3_700_000);
            exchange(&mut world, &devices);
        }
        assert!(
            refilled(&world, one) + refilled(&world, two) > 0,
            "{epoch:?}"
        );
        let has = world.blobs();
        for (name, bytes) in had.iter().filter(|(_, bytes)| is_record(bytes)) {
            assert_eq!(has.get(name), Some(bytes), "{epoch:?}");
        }
        // A device that was never there reads all of it.
        let three = world.begin_link("ann");
        world.link(one, three, true);
        exchange(&mut world, &[one, two, three]);
        for number in 0..5 {
            assert_eq!(
                read(&world, three, &number.to_string()),
                "text",
                "{epoch:?}"
            );
        }
    }
}

#[test]
fn blob_that_a_server_lost_is_missing_for_its_record_only_and_put_again_by_who_has_it() {
    let mut world = World::new(8);
    let devices = world.join_with_devices("ann", 2);
    let (one, two) = (devices[0], devices[1]);
    let lost = write(&world, one, "lost", "of which the server loses the blob");
    write(&world, one, "kept", "text");
    memories(&world, one).refresh().unwrap();
    world.work(one);
    let lost: [u8; 32] = hex::decode(lost).unwrap().try_into().unwrap();
    assert!(world.blobs().contains_key(&lost));
    world.lose_blob(&lost);
    exchange(&mut world, &devices);
    assert_eq!(read(&world, two, "lost"), "blob_missing");
    assert_eq!(read(&world, two, "kept"), "text");
    // A new epoch tells those who have it to give it again.
    let copy = world.backup_of_server();
    world.set_server_back(&copy, Some(9));
    world.connect(one);
    for _ in 0..2 {
        world.wait(3_700_000);
        exchange(&mut world, &devices);
    }
    assert!(world.blobs().contains_key(&lost));
    assert_eq!(
        read(&world, two, "lost"),
        "of which the server loses the blob"
    );
}

#[test]
fn whole_state_of_a_removed_device_opens_nothing_written_later() {
    let mut world = World::new(9);
    let devices = world.join_with_devices("ann", 3);
    let (one, two, three) = (devices[0], devices[1], devices[2]);
    let before = record(&mut world);
    write(&world, one, "before", "known to all three");
    exchange(&mut world, &devices);
    world.let_server_be_honest();
    let before = before.lock().unwrap().clone();
    let stolen = world.shelf(two).after_power_cut();
    let number = world.address(two).device().get();
    let envelopes: BTreeSet<[u8; 16]> = world.envelopes().keys().copied().collect();

    let after = record(&mut world);
    world.client(one).remove_device(number).unwrap();
    let left = [one, three];
    world.work(one);
    // The third device hears of it, and writes before the new key has come: that waits.
    memories(&world, three).refresh().unwrap();
    world.work(three);
    let listed = world.client(three).devices().unwrap();
    assert!(
        listed.iter().all(|device| device.device != number),
        "{listed:?}"
    );
    write(&world, three, "at once", "written before the key came");
    world.work(three);
    exchange(&mut world, &left);
    assert_eq!(read(&world, one, "at once"), "written before the key came");
    let name = write(&world, one, "after", "not for the removed one");
    write(&world, three, "after too", "neither is this");
    let chat = Chat::new(vec![ChatMessage::new("user", "nor this")]).id("after");
    memories(&world, one).store_chat(&chat).unwrap();
    for _ in 0..3 {
        exchange(&mut world, &left);
        maintain(&mut world, &left);
        world.wait(DAY);
    }
    assert_eq!(read(&world, three, "after"), "not for the removed one");
    assert_eq!(read(&world, one, "after too"), "neither is this");
    assert_eq!(
        memories(&world, three).get_chat("after").unwrap().messages[0].content,
        "nor this"
    );
    world.let_server_be_honest();

    // All that went to the server since.
    let mut after = after.lock().unwrap().clone();
    after.retain(|bytes| !before.contains(bytes));
    let records: Vec<&Vec<u8>> = after.iter().filter(|bytes| is_record(bytes)).collect();
    let sealed: BTreeSet<Vec<u8>> = after
        .iter()
        .filter(|bytes| !is_record(bytes))
        .cloned()
        .collect();
    assert!(
        records.len() >= 3 && sealed.len() >= 4,
        "{} {}",
        records.len(),
        sealed.len()
    );

    let thief = State::of(&mut world, two, &stolen);
    assert_eq!(thief.opens(&sealed), 0);
    for record in &records {
        assert!(!thief.opens_blob(&after, record));
    }
    // Not because nothing would be found: it opens what was written before, and those who stay open what came later.
    let sealed_before = before
        .iter()
        .filter(|bytes| !is_record(bytes))
        .cloned()
        .collect();
    assert!(thief.opens(&sealed_before) >= 2);
    for record in before.iter().filter(|bytes| is_record(bytes)) {
        assert!(thief.opens_blob(&before, record));
    }
    let stays = State::now(&mut world, three);
    assert_eq!(stays.opens(&sealed), sealed.len());
    for record in &records {
        assert!(stays.opens_blob(&after, record));
    }

    // And not by going on as the device that it was, with everything that the server and the others send, either.
    world.set_back(two, stolen);
    let later: Vec<Vec<u8>> = world
        .envelopes()
        .iter()
        .filter(|(id, _)| !envelopes.contains(*id))
        .map(|(_, envelope)| envelope.clone())
        .collect();
    for envelope in later {
        let _ = world.client(two).receive_encrypted_message(&envelope);
    }
    for _ in 0..4 {
        let _ = memories(&world, two).refresh();
        world.work(two);
        world.poll(two);
        world.wait(3_600_000);
    }
    for id in ["after", "after too"] {
        let code = read(&world, two, id);
        assert!(
            ["no_record", "key_not_here"].contains(&code.as_str()),
            "{code}"
        );
    }
    let copy = world.shelf(two).after_power_cut();
    let grown = State::of(&mut world, two, &copy);
    assert_eq!(grown.opens(&sealed), 0);
    let blob = after
        .iter()
        .find(|bytes| hex::encode(sha256(&[bytes])) == name)
        .unwrap();
    assert!(!grown.opens_blob(&after, blob));
    // What it writes on with does not reach the others.
    let _ = memories(&world, two).store_memory(&Memory::new("of the removed one").id("x"));
    world.work(two);
    exchange(&mut world, &left);
    for who in left {
        assert_eq!(read(&world, who, "x"), "no_record");
        assert_eq!(read(&world, who, "after"), "not for the removed one");
    }
}

#[test]
fn two_devices_that_write_at_once_lose_nothing_silently() {
    let mut world = World::new(10);
    let devices = world.join_with_devices("ann", 2);
    let (one, two) = (devices[0], devices[1]);
    write(&world, one, "shared", "base");
    exchange(&mut world, &devices);
    // Both are offline, and write.
    for (who, text) in [(one, "of one"), (two, "of two")] {
        for number in 0..5 {
            write(&world, who, &format!("{text} {number}"), text);
        }
        let mut shared = memories(&world, who).get_memory("shared").unwrap();
        shared.content = text.to_owned();
        memories(&world, who).update_memory(&shared).unwrap();
    }
    // And both come back at once: each has its tasks before the other's are done.
    for _ in 0..6 {
        let tasks = [(one, world.tasks(one)), (two, world.tasks(two))];
        for (who, tasks) in tasks {
            for task in tasks {
                world.perform(who, &task);
            }
        }
    }
    exchange(&mut world, &devices);
    for who in [one, two] {
        for text in ["of one", "of two"] {
            for number in 0..5 {
                assert_eq!(read(&world, who, &format!("{text} {number}")), text);
            }
        }
        assert!(refusals(&world, who).is_empty());
    }
    let won = read(&world, one, "shared");
    assert_eq!(read(&world, two, "shared"), won);
    let loser = if won == "of one" { two } else { one };
    let lost = if won == "of one" { "of two" } else { "of one" };
    let number = world.address(loser).device().get();
    let told = world
        .client(loser)
        .events(0)
        .unwrap()
        .into_iter()
        .any(|told| {
            matches!(&told.event, Event::MemoryConflict { record, device, .. }
            if record.as_bytes() == b"shared" && *device == number)
        });
    assert!(told, "{lost} is lost, and nobody was told");
    // Nor is it gone: its key and its blob are still there.
    let copy = world.shelf(loser).after_power_cut();
    let store = world.store_over(loser, copy.durable()).unwrap();
    let device = sprag_session::Device::load(&store).unwrap().unwrap();
    let space = Space::new("sprag", "ann", None, SpaceKind::Memory).unwrap();
    let kept = device.memory_lost(&store, &space).unwrap();
    assert_eq!(kept.len(), 1);
    assert_eq!(kept[0].entry.device, number);
    let RecordState::Live { key, blob, .. } = &kept[0].entry.state else {
        panic!("not live");
    };
    let blob = device.memory_blob(&store, blob).unwrap().unwrap();
    assert!(fits(key.as_slice(), &blob));

    // One who has read before writes on top of what he read, or is told at once.
    let seen = memories(&world, one).get_memory("shared").unwrap();
    memories(&world, one).update_memory(&seen).unwrap();
    let code = memories(&world, one).update_memory(&seen).unwrap_err();
    assert_eq!(code.code(), "write_conflict");
}

#[test]
fn erased_record_opens_with_nothing_that_anybody_still_has() {
    let mut world = World::new(11);
    let devices = world.join_with_devices("ann", 2);
    let (one, two) = (devices[0], devices[1]);
    let server = record(&mut world);
    let name = write(&world, one, "secret", "to be forgotten");
    write(&world, one, "other", "to be kept");
    exchange(&mut world, &devices);
    assert_eq!(read(&world, two, "secret"), "to be forgotten");
    let everything = server.lock().unwrap().clone();
    let blob = everything
        .iter()
        .find(|bytes| hex::encode(sha256(&[bytes])) == name);
    let blob = blob.unwrap().clone();
    // Whoever has a device today, and kept what the server had, opens it.
    for who in devices.clone() {
        assert!(State::now(&mut world, who).opens_blob(&everything, &blob));
    }

    assert!(memories(&world, two).erase_memory("secret").unwrap());
    assert_eq!(read(&world, two, "secret"), "record_erased");
    assert_eq!(
        memories(&world, two).standing("secret").unwrap(),
        Standing::ErasePending
    );
    exchange(&mut world, &devices);
    assert_eq!(read(&world, one, "secret"), "record_erased");
    let standing = |world: &World, who| memories(world, who).standing("secret").unwrap();
    assert_eq!(standing(&world, one), Standing::ErasePending);
    // Upkeep of one after the other, day by day. Whenever one says that it is done, nobody has anything any more.
    let (mut days, mut said) = (0, [false; 2]);
    while standing(&world, one) != Standing::Erased || standing(&world, two) != Standing::Erased {
        let now = [one, two].map(|who| standing(&world, who));
        assert!(days < 5, "{now:?}");
        for who in [one, two] {
            world.client(who).maintain().unwrap();
            for step in 0..3 {
                match step {
                    0 => {}
                    1 => memories(&world, who).refresh().map(|_| ()).unwrap(),
                    _ => world.settle(),
                }
                world.work(who);
                let done = [one, two].map(|who| standing(&world, who) == Standing::Erased);
                if done != said {
                    said = done;
                    let everything = server.lock().unwrap().clone();
                    for who in [one, two] {
                        assert!(!State::now(&mut world, who).opens_blob(&everything, &blob));
                    }
                }
            }
        }
        world.wait(DAY);
        days += 1;
    }
    let everything = server.lock().unwrap().clone();
    assert!(everything.contains(&blob));
    for who in [one, two] {
        let told = world.client(who).events(0).unwrap().into_iter();
        let told = told.filter(|told| matches!(told.event, Event::MemoryErased { .. }));
        assert_eq!(told.count(), 1);
    }
    assert!(!world.blobs().values().any(|bytes| *bytes == blob));
    // Not because nothing would be found: the other record still opens.
    for who in [one, two] {
        assert_eq!(read(&world, who, "other"), "to be kept");
        let other = everything
            .iter()
            .filter(|bytes| is_record(bytes) && **bytes != blob);
        let state = State::now(&mut world, who);
        assert!(
            other.count() == 1
                && everything.iter().any(|bytes| {
                    is_record(bytes) && *bytes != blob && state.opens_blob(&everything, bytes)
                })
        );
        // It never comes back.
        let again = memories(&world, who).store_memory(&Memory::new("x").id("secret"));
        assert_eq!(again.unwrap_err().code(), "record_erased");
    }
    // Nor on a device that comes later.
    let three = world.begin_link("ann");
    world.link(one, three, false);
    exchange(&mut world, &[one, two, three]);
    assert_eq!(read(&world, three, "secret"), "record_erased");
    assert_eq!(read(&world, three, "other"), "to be kept");
}

#[test]
fn erase_wins_over_writes_that_did_not_know_of_it() {
    let mut world = World::new(15);
    let devices = world.join_with_devices("ann", 2);
    let (one, two) = (devices[0], devices[1]);
    let memory = Memory::new("first").id("a").embedding(vec![1.0, 0.0]);
    memories(&world, one).store_memory(&memory).unwrap();
    exchange(&mut world, &devices);
    assert!(memories(&world, one).erase_memory("a").unwrap());
    for text in ["second", "third"] {
        let mut newer = memories(&world, two).get_memory("a").unwrap();
        newer.content = text.to_owned();
        memories(&world, two).update_memory(&newer).unwrap();
        // The server has the writes first.
        world.work(two);
    }
    exchange(&mut world, &devices);
    for who in [one, two] {
        assert_eq!(read(&world, who, "a"), "record_erased");
        let hits = memories(&world, who).search_similar(&[1.0, 0.0], 5, 0.1);
        assert!(hits.unwrap().is_empty());
        assert!(
            memories(&world, who)
                .list(&ListQuery::new())
                .unwrap()
                .items
                .is_empty()
        );
    }
    exchange(&mut world, &devices);
    // With the next heads of both their blobs leave the server.
    for who in [one, two] {
        memories(&world, who)
            .store_memory(&Memory::new("x"))
            .unwrap();
        exchange(&mut world, &devices);
    }
    let left = world.blobs().into_values().filter(|bytes| is_record(bytes));
    assert_eq!(left.count(), 2);
}

#[test]
fn server_that_went_back_brings_no_erased_record_back() {
    let mut world = World::new(12);
    let devices = world.join_with_devices("ann", 2);
    let (one, two) = (devices[0], devices[1]);
    write(&world, one, "secret", "to be forgotten");
    exchange(&mut world, &devices);
    let backup = world.backup_of_server();
    assert!(memories(&world, one).erase_memory("secret").unwrap());
    exchange(&mut world, &devices);
    for epoch in [None, Some(9)] {
        world.set_server_back(&backup, epoch);
        world.connect(one);
        world.connect(two);
        for _ in 0..2 {
            world.wait(3_700_000);
            exchange(&mut world, &devices);
        }
        for who in [one, two] {
            assert_eq!(read(&world, who, "secret"), "record_erased", "{epoch:?}");
        }
    }
    let three = world.begin_link("ann");
    world.link(one, three, true);
    exchange(&mut world, &[one, two, three]);
    assert_eq!(read(&world, three, "secret"), "record_erased");
}

#[test]
fn what_was_acknowledged_survives_crashes_and_lost_answers() {
    let mut world = World::new(13);
    let devices = world.join_with_devices("ann", 2);
    let (one, two) = (devices[0], devices[1]);
    for number in 0..6 {
        let id = number.to_string();
        write(&world, one, &id, &id);
        world.crash(one);
        assert_eq!(read(&world, one, &id), id);
        // The server takes what it is given, and the device dies before it hears of it.
        let copy = world.shelf(one).after_power_cut();
        world.work(one);
        if number % 2 == 0 {
            world.set_back(one, copy);
        }
        world.crash(two);
        memories(&world, two).refresh().unwrap();
        world.work(two);
        world.crash(two);
    }
    exchange(&mut world, &devices);
    for who in [one, two] {
        for number in 0..6 {
            let id = number.to_string();
            assert_eq!(read(&world, who, &id), id);
        }
    }
}
