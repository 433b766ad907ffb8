//! A device's rows of memories as released versions wrote them: `tests/stability/memory/`. Later versions must read them and go on.
//!
//! The device has records of every kind, an index, a lost write, an erase that is not everywhere yet, and work under way: blobs to be
//! put, and a head of another device whose segments have not come.

use std::collections::BTreeMap;
use std::error::Error;

use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;
use serde_json::{Value, json};
use sprag::memory::{Chat, ChatMessage, EncryptedMemoryStore, ListQuery, Memory, Owner, Standing};
use sprag::{Client, Key, Surroundings, Task};
use sprag_store::{Image, Loaded, Manifest, Store};

use crate::shelf::Shelf;
use crate::world::{Who, World};

type Outcome<T> = Result<T, Box<dyn Error>>;

const KEY: [u8; 32] = [7; 32];
const TABLES: [u8; 13] = [
    0x60, 0x61, 0x62, 0x63, 0x64, 0x65, 0x66, 0x67, 0x69, 0x6a, 0x6b, 0x6e, 0x6f,
];

fn memories(client: &Client) -> Outcome<EncryptedMemoryStore> {
    Ok(EncryptedMemoryStore::new(
        client,
        &Owner::new("ann").agent("tutor"),
    )?)
}

fn write(client: &Client, id: &str, content: &str, towards: [f32; 2]) -> Outcome<()> {
    let memory = Memory::new(content).id(id).title(id).tags(["story"]);
    memories(client)?.store_memory(&memory.embedding(towards.to_vec()))?;
    Ok(())
}

fn change(client: &Client, id: &str, content: &str) -> Outcome<()> {
    let store = memories(client)?;
    let mut memory = store.get_memory(id)?;
    memory.content = content.to_owned();
    store.update_memory(&memory)?;
    Ok(())
}

fn exchange(world: &mut World, devices: &[Who]) -> Outcome<()> {
    for _ in 0..3 {
        for who in devices {
            memories(world.client(*who))?.refresh()?;
            world.settle();
        }
    }
    Ok(())
}

/// What a device gets of the tasks that are picked, an hour later.
fn got(world: &mut World, who: Who, picked: impl Fn(&Task) -> bool) -> Outcome<()> {
    world.wait(3_600_000);
    world.client(who).maintain()?;
    for _ in 0..4 {
        for task in world.tasks(who) {
            if picked(&task) {
                world.perform(who, &task);
            }
        }
    }
    Ok(())
}

/// Makes a file.
///
/// # Errors
/// What did not go as it should.
pub fn make(version: &str) -> Outcome<Value> {
    let mut world = World::new(60);
    let devices = world.join_with_devices("ann", 2);
    let [ours, theirs] = devices.as_slice() else {
        return Err("not two devices".into());
    };
    let number = |who: Who| world.address(who).device().get();
    // Of two writes of a revision that of the higher number counts: ours is the one that loses.
    let (ours, theirs) = match number(*ours) < number(*theirs) {
        true => (*ours, *theirs),
        false => (*theirs, *ours),
    };
    world.settle();
    let client = |world: &World, who: Who| world.client(who).clone();
    for (id, towards) in [
        ("kept", [1.0, 0.0]),
        ("changed", [0.0, 1.0]),
        ("deleted", [1.0, 1.0]),
        ("erased", [1.0, -1.0]),
        ("both", [-1.0, 0.0]),
    ] {
        write(
            &client(&world, ours),
            id,
            &format!("first of {id}"),
            towards,
        )?;
    }
    let chat = Chat::new(vec![ChatMessage::new("user", "hello")]).id("talk");
    memories(&client(&world, ours))?.store_chat(&chat)?;
    exchange(&mut world, &devices)?;

    // Two who did not know of each other.
    change(&client(&world, ours), "both", "ours of both")?;
    change(&client(&world, theirs), "both", "theirs of both")?;
    exchange(&mut world, &devices)?;
    change(&client(&world, theirs), "changed", "second of changed")?;
    exchange(&mut world, &devices)?;

    memories(&client(&world, ours))?.delete_memory("deleted")?;
    memories(&client(&world, ours))?.erase_memory("erased")?;
    exchange(&mut world, &devices)?;

    write(
        &client(&world, theirs),
        "theirs",
        "by the other device",
        [0.6, 0.8],
    )?;
    world.settle();
    let here = client(&world, ours);
    write(&here, "under way", "not published yet", [-0.6, 0.8])?;
    // Written elsewhere, and known here but for the index.
    got(&mut world, ours, |task| {
        matches!(task, Task::GetObject { .. } | Task::GetBlob { .. })
    })?;
    // Written elsewhere, and here as far as the head.
    write(
        &client(&world, theirs),
        "late",
        "its segment has not come",
        [0.8, 0.6],
    )?;
    world.work(theirs);
    world.work(theirs);
    got(&mut world, ours, |task| {
        matches!(task, Task::GetObject { .. })
    })?;

    let counts: BTreeMap<_, _> = TABLES
        .iter()
        .map(|table| (format!("{table:02x}"), world.shelf(ours).count(*table)))
        .collect();
    if let Some((table, _)) = counts.iter().find(|(_, count)| **count == 0) {
        return Err(format!("no row of table {table}: {counts:?}").into());
    }
    let keys = world.store_keys(ours);
    let manifest = Manifest::wrap(&keys, &Key::raw(KEY), &mut ChaCha20Rng::seed_from_u64(4))?;
    let Loaded { sequence, rows, .. } = world.shelf(ours).durable();
    let rows: BTreeMap<String, String> = rows
        .iter()
        .map(|(name, value)| (hex::encode(name), hex::encode(value)))
        .collect();
    Ok(json!({
        "version": version, "now": world.now(), "tables": counts,
        "manifest": hex::encode(manifest.as_bytes()), "sequence": sequence, "rows": rows,
    }))
}

/// Opens the rows of a file with the code of today, reads everything, and goes on.
///
/// # Errors
/// What is not as it was left.
pub fn check(file: &Value) -> Outcome<()> {
    let bytes =
        |value: &Value| -> Outcome<Vec<u8>> { Ok(hex::decode(value.as_str().ok_or("no text")?)?) };
    let part = |name: &str| file.get(name).ok_or_else(|| format!("no {name}"));
    let keys = Manifest::from_bytes(&bytes(part("manifest")?)?)?.unlock(&Key::raw(KEY))?;
    let mut rows = BTreeMap::new();
    for (name, value) in part("rows")?.as_object().ok_or("no rows")? {
        rows.insert(hex::decode(name)?, bytes(value)?);
    }
    let sequence = part("sequence")?.as_u64().ok_or("no sequence")?;
    let now = part("now")?.as_u64().ok_or("no time")?;
    let image = Image::load(Shelf::of(Loaded::new(sequence, rows)))?;
    let rng = |seed| ChaCha20Rng::seed_from_u64(seed);
    let store = Store::open_over(image, &keys, rng(7))?;
    let client = Client::with_store(store, "ann", Surroundings::new(move || now, rng(8)))?;

    let memories = memories(&client)?;
    let mut found: Vec<(String, String)> = Vec::new();
    for id in ["kept", "changed", "both", "theirs", "under way"] {
        found.push((id.to_owned(), memories.get_memory(id)?.content.clone()));
    }
    let expected = [
        ("kept", "first of kept"),
        ("changed", "second of changed"),
        ("both", "theirs of both"),
        ("theirs", "by the other device"),
        ("under way", "not published yet"),
    ];
    let expected = expected.map(|(id, content)| (id.to_owned(), content.to_owned()));
    same("contents", &found, &expected.to_vec())?;
    for (id, standing) in [
        ("deleted", Standing::Deleted),
        ("erased", Standing::ErasePending),
        ("late", Standing::Absent),
    ] {
        same(id, &memories.standing(id)?, &standing)?;
    }
    same(
        "tagged",
        &memories
            .list(&ListQuery::new().tag("story").limit(20))?
            .items
            .len(),
        &5,
    )?;
    let nearest = memories.search_similar(&[0.6, 0.8], 1, 0.9)?;
    same(
        "nearest",
        &nearest.first().map(|hit| hit.id.as_str()),
        &Some("theirs"),
    )?;
    same("lost writes", &memories.lost_writes()?.len(), &1)?;
    same("chat", &memories.get_chat("talk")?.messages.len(), &1)?;

    change(&client, "kept", "later of kept")?;
    same(
        "written",
        &memories.get_memory("kept")?.content.as_str(),
        &"later of kept",
    )?;
    let tasks = client.tasks()?;
    let puts = tasks
        .iter()
        .filter(|task| matches!(task, Task::PutBlob { .. }))
        .count();
    let gets = tasks
        .iter()
        .filter(|task| matches!(task, Task::GetBlob { .. }))
        .count();
    if puts == 0 || gets == 0 {
        return Err(format!("{puts} blobs to put, {gets} to get").into());
    }
    Ok(())
}

fn same<T: PartialEq + std::fmt::Debug>(what: &str, found: &T, expected: &T) -> Outcome<()> {
    if found == expected {
        return Ok(());
    }
    Err(format!("{what}: {found:?}, not {expected:?}").into())
}
