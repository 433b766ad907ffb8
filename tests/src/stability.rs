//! Stores as released versions wrote them. Later versions must open them and go on with the conversation.
//!
//! A file of `tests/stability/` holds the sealed rows of Bob's store, its manifest, and envelopes from Alice that come
//! later: one that was overtaken, whose key waits among the skipped ones, and one that is next.

use std::collections::BTreeMap;
use std::error::Error;

use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;
use serde_json::{Value, json};
use sprag::{Client, Key, Surroundings, Task};
use sprag_directory::{Directory, MemoryStorage, ServerEpoch};
use sprag_store::{Image, Loaded, Manifest, Store, StoreKeys};

use crate::shelf::Shelf;

type Outcome<T> = Result<T, Box<dyn Error>>;

const NOW: u64 = 1_760_000_000_000;
const KEY: [u8; 32] = [7; 32];

fn rng(seed: u64) -> ChaCha20Rng {
    ChaCha20Rng::seed_from_u64(seed)
}

fn surroundings(seed: u64) -> Surroundings {
    Surroundings::new(|| NOW, rng(seed))
}

/// Does a client's tasks, and gives the envelopes that it made.
fn work(client: &Client, server: &Directory<MemoryStorage>) -> Outcome<Vec<Vec<u8>>> {
    let mut envelopes = Vec::new();
    for _ in 0..5 {
        for task in client.tasks()? {
            match &task {
                Task::Deliver { envelope, .. } => envelopes.push(envelope.clone()),
                Task::FetchBundles { query, .. } => {
                    client.supply(task.id(), &server.bundles(query)?)?
                }
                Task::FetchDevices { query, .. } => {
                    client.supply(task.id(), &server.lists(query)?)?
                }
                Task::PublishPreKeys { upload, .. } => {
                    server.upload_pre_keys(&client.address()?, upload)?;
                }
                Task::PublishDevices { lists, .. } => {
                    server.publish_lists(lists)?;
                }
                _ => {}
            }
            client.done(task.id())?;
        }
    }
    Ok(envelopes)
}

/// Makes a file: Bob has answered Alice, holds an unread message and a skipped key, and has a message under way.
///
/// # Errors
/// What did not go as it should.
pub fn make(version: &str) -> Outcome<Value> {
    let server = Directory::open(MemoryStorage::new(), ServerEpoch::from_bytes([1; 16]))?;
    let alice = Client::with_store(Store::in_memory(rng(1))?, "alice", surroundings(2))?;
    let keys = StoreKeys::generate(&mut rng(3));
    let manifest = Manifest::wrap(&keys, &Key::raw(KEY), &mut rng(4))?;
    let shelf = Shelf::new();
    let store = Store::create_over(Image::load(shelf.clone())?, &keys, rng(5))?;
    let bob = Client::with_store(store, "bob", surroundings(6))?;
    work(&alice, &server)?;
    work(&bob, &server)?;

    let give = |to: &Client, envelopes: Vec<Vec<u8>>| -> Outcome<()> {
        for envelope in envelopes {
            for message in to.receive_encrypted_message(&envelope)?.messages() {
                to.acknowledge(message.id())?;
            }
        }
        Ok(())
    };
    alice.send_encrypted_message("bob", b"hello")?;
    give(&bob, work(&alice, &server)?)?;
    bob.send_encrypted_message("alice", b"hello yourself")?;
    give(&alice, work(&bob, &server)?)?;
    alice.send_encrypted_message("bob", b"overtaken")?;
    let late = work(&alice, &server)?;
    alice.send_encrypted_message("bob", b"unread")?;
    for envelope in work(&alice, &server)? {
        bob.receive_encrypted_message(&envelope)?;
    }
    alice.send_encrypted_message("bob", b"next")?;
    let next = work(&alice, &server)?;
    bob.send_encrypted_message("alice", b"under way")?;
    bob.close()?;

    let Loaded { sequence, rows, .. } = shelf.durable();
    let rows: BTreeMap<String, String> = rows
        .iter()
        .map(|(name, value)| (hex::encode(name), hex::encode(value)))
        .collect();
    let hexes = |envelopes: &[Vec<u8>]| envelopes.iter().map(hex::encode).collect::<Vec<_>>();
    Ok(json!({
        "version": version,
        "manifest": hex::encode(manifest.as_bytes()),
        "sequence": sequence,
        "rows": rows,
        "late": hexes(&late),
        "next": hexes(&next),
    }))
}

/// Opens the store of a file with the code of today, and goes on.
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
    let image = Image::load(Shelf::of(Loaded::new(sequence, rows)))?;
    let store = Store::open_over(image, &keys, rng(7))?;
    let bob = Client::with_store(store, "bob", surroundings(8))?;

    let inbox: Vec<String> = bob
        .inbox()?
        .iter()
        .map(|message| message.text_lossy())
        .collect();
    if inbox != ["unread"] {
        return Err(format!("the inbox holds {inbox:?}").into());
    }
    for (name, expected) in [("late", "overtaken"), ("next", "next")] {
        for envelope in part(name)?.as_array().ok_or("no envelopes")? {
            let received = bob.receive_encrypted_message(&bytes(envelope)?)?;
            match received.messages() {
                [message] if message.from() == "alice" && message.text_lossy() == expected => {}
                _ => return Err(format!("{name}: {:?}", received.refused()).into()),
            }
        }
    }
    bob.send_encrypted_message("alice", b"still here")?;
    // Nothing has brought Alice's list for long: it is asked for first, and that fails here.
    for task in bob.tasks()? {
        if matches!(task, Task::FetchDevices { .. }) {
            bob.failed(task.id(), &sprag::Failure::NotYet(60_000))?;
        }
    }
    let delivers = |task: &Task| matches!(task, Task::Deliver { .. });
    let under_way = bob.tasks()?.iter().filter(|task| delivers(task)).count();
    if under_way != 2 {
        return Err(format!("{under_way} messages under way").into());
    }
    Ok(())
}
