//! Stories of the store and its verbs.

mod backends;
mod finding;
mod records;
mod transfer;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng;
use sprag_store::Store;

use super::backend::StoredBlob;
use super::{BackendError, EncryptedMemoryStore, Memory, MemoryBackend, Owner};
use crate::{Client, Error, Surroundings};

/// When every test begins.
const BEGINNING: u64 = 1_700_000_000_000;

/// A clock that stands until it is moved.
#[derive(Clone)]
struct Hands(Arc<AtomicU64>);

impl Hands {
    fn forward(&self, by: u64) {
        self.0.fetch_add(by, Ordering::Relaxed);
    }
}

/// A client in memory, out of a seed.
fn client(seed: u8) -> (Client, Hands) {
    let hands = Hands(Arc::new(AtomicU64::new(BEGINNING)));
    let clock = hands.0.clone();
    let surroundings = Surroundings::new(
        move || clock.load(Ordering::Relaxed),
        ChaCha20Rng::from_seed([seed; 32]),
    );
    let store = Store::in_memory(ChaCha20Rng::from_seed([seed ^ 0x80; 32])).unwrap();
    let client = Client::with_store(store, "ann", surroundings).unwrap();
    (client, hands)
}

/// The store of Ann's tutor.
fn store(client: &Client) -> EncryptedMemoryStore {
    EncryptedMemoryStore::new(client, &Owner::new("ann").agent("tutor")).unwrap()
}

fn code<T>(result: Result<T, Error>) -> &'static str {
    result.map_or_else(|error| error.code(), |_| "")
}

/// What happens inside of a `put`.
type Trick = Box<dyn Fn(&str) -> Result<(), BackendError> + Send + Sync>;

/// A backend in memory that does what a test tells it.
#[derive(Clone, Default)]
struct Place(Arc<Shelves>);

#[derive(Default)]
struct Shelves {
    blobs: Mutex<BTreeMap<String, (Vec<u8>, u64)>>,
    calls: Mutex<Vec<String>>,
    on_put: Mutex<Option<Trick>>,
    /// What is given in the place of what was asked for.
    instead: Mutex<Option<Option<Vec<u8>>>>,
    away: Mutex<Option<BackendError>>,
}

impl Place {
    fn on_put(&self, trick: impl Fn(&str) -> Result<(), BackendError> + Send + Sync + 'static) {
        *self.0.on_put.lock().unwrap() = Some(Box::new(trick));
    }

    fn give_instead(&self, blob: Option<Vec<u8>>) {
        *self.0.instead.lock().unwrap() = Some(blob);
    }

    fn give_what_is_asked_for(&self) {
        *self.0.instead.lock().unwrap() = None;
    }

    fn go_away(&self, error: Option<BackendError>) {
        *self.0.away.lock().unwrap() = error;
    }

    fn names(&self) -> Vec<String> {
        self.0.blobs.lock().unwrap().keys().cloned().collect()
    }

    fn blob(&self, name: &str) -> Vec<u8> {
        self.0.blobs.lock().unwrap()[name].0.clone()
    }

    fn calls(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.calls.lock().unwrap())
    }

    fn called(&self, call: &str, name: &str) -> Result<(), BackendError> {
        self.0.calls.lock().unwrap().push(format!("{call} {name}"));
        self.0.away.lock().unwrap().clone().map_or(Ok(()), Err)
    }
}

impl MemoryBackend for Place {
    fn put(&self, name: &str, bytes: &[u8]) -> Result<(), BackendError> {
        self.called("put", name)?;
        // Taken out: what it does may put as well.
        let trick = self.0.on_put.lock().unwrap().take();
        if let Some(trick) = trick {
            trick(name)?;
        }
        let blob = (bytes.to_vec(), BEGINNING);
        self.0.blobs.lock().unwrap().insert(name.to_owned(), blob);
        Ok(())
    }

    fn get(&self, name: &str) -> Result<Option<Vec<u8>>, BackendError> {
        self.called("get", name)?;
        if let Some(instead) = self.0.instead.lock().unwrap().clone() {
            return Ok(instead);
        }
        let blobs = self.0.blobs.lock().unwrap();
        Ok(blobs.get(name).map(|(bytes, _)| bytes.clone()))
    }

    fn list(&self, after: Option<&str>) -> Result<Vec<StoredBlob>, BackendError> {
        self.called("list", "")?;
        let blobs = self.0.blobs.lock().unwrap();
        let behind = blobs
            .iter()
            .filter(|(name, _)| after.is_none_or(|after| name.as_str() > after));
        let page = behind
            .take(3)
            .map(|(name, (_, at))| StoredBlob::new(name, Some(*at)));
        Ok(page.collect())
    }

    fn delete(&self, name: &str) -> Result<(), BackendError> {
        self.called("delete", name)?;
        self.0.blobs.lock().unwrap().remove(name);
        Ok(())
    }
}

/// A memory with a bit of everything.
fn rich() -> Memory {
    Memory::from_json(concat!(
        r#"{"id":"mem_1","title":"Tea","content":"no milk","tags":["taste","tea"],"created_at":5,"updated_at":6,"#,
        r#""embedding":[0.1,-0.25],"metadata":{"b":1.10,"a":[]},"importance":0.30000000000000000000000000004,"#,
        r#""links":[{"n":18446744073709551617,"m":[1e999,{"deep":null}]}]}"#
    ))
    .unwrap()
}
