//! Memories of one user on several devices whose blobs lie in a place of the application's own, beside the server.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use sprag::memory::{
    BackendError, EncryptedMemoryStore, FolderBackend, LEAST_GRACE, ListQuery, Memory,
    MemoryBackend, Owner, StoredBlob,
};
use sprag_tests::world::{BEGINNING, Who, World};

fn over(world: &World, who: Who, backend: impl MemoryBackend) -> EncryptedMemoryStore {
    let store = EncryptedMemoryStore::new(world.client(who), &Owner::new("ann")).unwrap();
    store.backend(backend)
}

/// Each device asks what the others wrote, until all of them know it.
fn exchange(world: &mut World, stores: &[EncryptedMemoryStore]) {
    for _ in 0..3 {
        for store in stores {
            store.refresh().unwrap();
            world.settle();
        }
    }
}

/// Blobs in memory, put there when every world begins.
#[derive(Clone, Default)]
struct Place(Arc<Mutex<BTreeMap<String, Vec<u8>>>>);

impl Place {
    fn names(&self) -> Vec<String> {
        self.0.lock().unwrap().keys().cloned().collect()
    }
}

impl MemoryBackend for Place {
    fn put(&self, name: &str, bytes: &[u8]) -> Result<(), BackendError> {
        let mut blobs = self.0.lock().unwrap();
        blobs.insert(name.to_owned(), bytes.to_vec());
        Ok(())
    }

    fn get(&self, name: &str) -> Result<Option<Vec<u8>>, BackendError> {
        Ok(self.0.lock().unwrap().get(name).cloned())
    }

    fn list(&self, after: Option<&str>) -> Result<Vec<StoredBlob>, BackendError> {
        let blobs = self.0.lock().unwrap();
        let names = blobs
            .keys()
            .filter(|name| after.is_none_or(|after| name.as_str() > after));
        Ok(names
            .map(|name| StoredBlob::new(name, Some(BEGINNING)))
            .collect())
    }

    fn delete(&self, name: &str) -> Result<(), BackendError> {
        self.0.lock().unwrap().remove(name);
        Ok(())
    }
}

#[test]
fn devices_that_share_a_folder_find_each_others_memories_in_it() {
    let mut world = World::new(21);
    let devices = world.join_with_devices("ann", 2);
    let folder = tempfile::tempdir().unwrap();
    let open = || FolderBackend::open(folder.path()).unwrap();
    let one = over(&world, devices[0], open());
    let two = over(&world, devices[1], open());
    let count: u16 = 150;
    for number in 0..count {
        let angle = f32::from(number) / f32::from(count);
        let memory = Memory::new(format!("content {number}")).id(format!("m{number}"));
        one.store_memory(&memory.embedding(vec![angle.cos(), angle.sin()]))
            .unwrap();
    }
    exchange(&mut world, &[one.clone(), two.clone()]);
    assert_eq!(two.refresh().unwrap().behind, 0);
    assert_eq!(
        two.list(&ListQuery::new().limit(1_000))
            .unwrap()
            .items
            .len(),
        usize::from(count)
    );
    let query = [0.8_f32.cos(), 0.8_f32.sin()];
    let hits = two.search_similar(&query, 3, 0.0).unwrap();
    assert_eq!(hits[0].id, "m120");
    assert_eq!(hits, one.search_similar(&query, 3, 0.0).unwrap());
    let found = two.get_memory("m120").unwrap();
    assert_eq!(found.content, "content 120");
    assert_eq!(
        found.provenance().unwrap().device,
        world.address(devices[0]).device().get()
    );
    // Who does not have the folder knows of them, and cannot read them.
    let elsewhere = over(&world, devices[1], Place::default());
    assert_eq!(
        elsewhere.get_memory("m7").unwrap_err().code(),
        "blob_missing"
    );
    two.update_memory(&Memory::new("changed").id("m7")).unwrap();
    two.erase_memory("m8").unwrap();
    exchange(&mut world, &[one.clone(), two.clone()]);
    assert_eq!(one.get_memory("m7").unwrap().content, "changed");
    assert_eq!(one.get_memory("m8").unwrap_err().code(), "record_erased");
    let left = one.list(&ListQuery::new().limit(1_000)).unwrap();
    assert_eq!(left.items.len(), usize::from(count) - 1);
    // One file for each that is left, and one that was replaced; the erased one is gone.
    let files: usize = std::fs::read_dir(folder.path())
        .unwrap()
        .map(|shard| std::fs::read_dir(shard.unwrap().path()).unwrap().count())
        .sum();
    assert_eq!(files, usize::from(count));
}

#[test]
fn what_a_backend_lacks_for_now_is_found_once_it_is_there() {
    let mut world = World::new(22);
    let devices = world.join_with_devices("ann", 2);
    let (here, there) = (Place::default(), Place::default());
    let one = over(&world, devices[0], here.clone());
    let two = over(&world, devices[1], there.clone());
    let stored = one
        .store_memory(&Memory::new("x").id("a").embedding(vec![1.0]))
        .unwrap();
    exchange(&mut world, &[one.clone(), two.clone()]);
    assert_eq!(two.refresh().unwrap().behind, 1);
    assert!(two.search_similar(&[1.0], 1, 0.0).unwrap().is_empty());
    assert_eq!(two.get_memory("a").unwrap_err().code(), "blob_missing");
    // What cannot be read at all is not read again and again, and holds nothing up.
    let other = one.store_memory(&Memory::new("y").id("b")).unwrap();
    exchange(&mut world, &[one.clone(), two.clone()]);
    there.put(&other.name, b"something else").unwrap();
    there
        .put(&stored.name, &here.get(&stored.name).unwrap().unwrap())
        .unwrap();
    let refreshed = two.refresh().unwrap();
    assert_eq!((refreshed.indexed, refreshed.behind), (1, 1));
    assert_eq!(two.search_similar(&[1.0], 1, 0.0).unwrap()[0].id, "a");
    assert_eq!(two.get_memory("b").unwrap_err().code(), "blob_damaged");
    assert_eq!(two.refresh().unwrap().behind, 1);
    // Nor does it for its next revision.
    one.update_memory(&Memory::new("z").id("b")).unwrap();
    exchange(&mut world, &[one, two.clone()]);
    for (name, bytes) in here.0.lock().unwrap().clone() {
        there.put(&name, &bytes).unwrap();
    }
    assert_eq!(two.refresh().unwrap().behind, 0);
    assert_eq!(two.get_memory("b").unwrap().content, "z");
}

#[test]
fn what_a_backend_lacks_does_not_keep_lists_from_what_it_has() {
    let mut world = World::new(26);
    let devices = world.join_with_devices("ann", 2);
    let (here, there) = (Place::default(), Place::default());
    let one = over(&world, devices[0], here.clone());
    let two = over(&world, devices[1], there.clone());
    for number in 0..200 {
        let stored = one.store_memory(&Memory::new("x").id(format!("m{number}")));
        if number % 5 == 0 {
            let name = stored.unwrap().name;
            there
                .put(&name, &here.get(&name).unwrap().unwrap())
                .unwrap();
        }
    }
    let without = EncryptedMemoryStore::new(world.client(devices[1]), &Owner::new("ann")).unwrap();
    exchange(&mut world, &[one, without]);
    let listed = || two.list(&ListQuery::new()).unwrap().items.len();
    // 64 at a time.
    assert_eq!([listed(), listed(), listed(), listed()][3], 40);
}

#[test]
fn sweep_waits_until_the_logs_of_all_devices_were_heard() {
    let mut world = World::new(23);
    let devices = world.join_with_devices("ann", 2);
    let place = Place::default();
    let one = over(&world, devices[0], place.clone());
    let two = over(&world, devices[1], place.clone());
    one.store_memory(&Memory::new("of one").id("a")).unwrap();
    two.store_memory(&Memory::new("of two").id("b")).unwrap();
    exchange(&mut world, &[one.clone(), two.clone()]);
    place.put(&"0".repeat(64), b"an orphan").unwrap();
    world.wait(2 * LEAST_GRACE);
    // Device 2 wrote since; it takes the word of a device that has not asked for nothing.
    two.store_memory(&Memory::new("also of two").id("c"))
        .unwrap();
    world.settle();
    assert_eq!(one.sweep(LEAST_GRACE).unwrap(), 0);
    // Asked, and not answered yet.
    one.refresh().unwrap();
    assert_eq!(one.sweep(LEAST_GRACE).unwrap_err().code(), "log_behind");
    assert_eq!(place.names().len(), 4);
    world.settle();
    assert_eq!(one.sweep(LEAST_GRACE).unwrap(), 1);
    for (store, id) in [(&one, "b"), (&one, "c"), (&two, "a")] {
        assert!(store.get_memory(id).is_ok(), "{id}");
    }
    assert_eq!(one.sweep(LEAST_GRACE).unwrap(), 0);
}

#[test]
fn sweep_waits_until_the_server_has_what_this_device_wrote() {
    let mut world = World::new(25);
    let devices = world.join_with_devices("ann", 2);
    let place = Place::default();
    let one = over(&world, devices[0], place.clone());
    let two = over(&world, devices[1], place.clone());
    one.store_memory(&Memory::new("first").id("a")).unwrap();
    exchange(&mut world, &[one.clone(), two.clone()]);
    world.wait(2 * LEAST_GRACE);
    exchange(&mut world, &[one.clone(), two.clone()]);
    one.update_memory(&Memory::new("second").id("a")).unwrap();
    // If this device were lost now, the other one would have nothing but the first blob.
    assert_eq!(one.sweep(LEAST_GRACE).unwrap_err().code(), "log_behind");
    assert_eq!(two.get_memory("a").unwrap().content, "first");
    exchange(&mut world, &[one.clone(), two.clone()]);
    assert_eq!(one.sweep(LEAST_GRACE).unwrap(), 1);
    assert_eq!(two.get_memory("a").unwrap().content, "second");
}

#[test]
fn write_that_lost_can_be_read_until_it_is_forgotten() {
    let mut world = World::new(24);
    let devices = world.join_with_devices("ann", 2);
    let place = Place::default();
    let stores = devices.iter().map(|who| over(&world, *who, place.clone()));
    let stores: Vec<_> = stores.collect();
    stores[0]
        .store_memory(&Memory::new("base").id("a"))
        .unwrap();
    exchange(&mut world, &stores);
    for (store, text) in stores.iter().zip(["of one", "of two"]) {
        let mut memory = store.get_memory("a").unwrap();
        memory.content = text.to_owned();
        store.update_memory(&memory).unwrap();
    }
    exchange(&mut world, &stores);
    let won = stores[0].get_memory("a").unwrap().content.clone();
    assert_eq!(stores[1].get_memory("a").unwrap().content, won);
    let (loser, text) = if won == "of one" {
        (1, "of two")
    } else {
        (0, "of one")
    };
    let lost = stores[loser].lost_writes().unwrap();
    assert_eq!(lost.len(), 1);
    assert_eq!(lost[0].id, "a");
    assert_eq!(lost[0].memory.as_ref().unwrap().content, text);
    assert_eq!(
        lost[0].provenance.device,
        world.address(devices[loser]).device().get()
    );
    // Its blob is nobody's to sweep before.
    world.wait(2 * LEAST_GRACE);
    exchange(&mut world, &stores);
    assert_eq!(stores[loser].sweep(LEAST_GRACE).unwrap(), 1, "the base");
    assert_eq!(stores[loser].lost_writes().unwrap(), lost);
    stores[loser].forget_lost("a").unwrap();
    assert!(stores[loser].lost_writes().unwrap().is_empty());
    exchange(&mut world, &stores);
    assert_eq!(stores[loser].sweep(LEAST_GRACE).unwrap(), 1);
    assert_eq!(stores[loser].get_memory("a").unwrap().content, won);
}

/// A place that answers nothing, and counts who asks.
#[derive(Clone, Default)]
struct Silent(Arc<Mutex<usize>>);

impl MemoryBackend for Silent {
    fn put(&self, _: &str, _: &[u8]) -> Result<(), BackendError> {
        Err(BackendError::Unavailable(None))
    }

    fn get(&self, _: &str) -> Result<Option<Vec<u8>>, BackendError> {
        *self.0.lock().unwrap() += 1;
        Err(BackendError::Unavailable(None))
    }

    fn list(&self, _: Option<&str>) -> Result<Vec<StoredBlob>, BackendError> {
        Err(BackendError::Unavailable(None))
    }

    fn delete(&self, _: &str) -> Result<(), BackendError> {
        Err(BackendError::Unavailable(None))
    }
}

#[test]
fn place_that_does_not_answer_is_asked_once_by_a_list_and_not_for_every_record() {
    let mut world = World::new(23);
    let devices = world.join_with_devices("ann", 2);
    let one = over(&world, devices[0], Place::default());
    let silent = Silent::default();
    let two = over(&world, devices[1], silent.clone());
    for number in 0..20 {
        one.store_memory(&Memory::new("x").id(format!("m{number}")))
            .unwrap();
    }
    // The other device hears of them without its place.
    let without = EncryptedMemoryStore::new(world.client(devices[1]), &Owner::new("ann")).unwrap();
    exchange(&mut world, &[one, without]);
    let asked = || std::mem::take(&mut *silent.0.lock().unwrap());
    assert!(two.list(&ListQuery::new()).unwrap().items.is_empty());
    assert_eq!(asked(), 1);
    assert_eq!(two.refresh().unwrap().behind, 20);
    assert_eq!(asked(), 1);
}
