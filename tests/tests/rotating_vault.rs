//! Records of the vault's formats, put under new versions of their key.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use rand_chacha::ChaCha20Rng;
use rand_core::{CryptoRng, SeedableRng};
use sprag_keys::{
    Cause, Journal, KeyId, KeyRing, KeySource, KeyState, KeyVersion, Progress, Records,
    RotationJob, Sealer, SourceError, VersionedKey,
};
use sprag_vault::{Context, DataKey, Header, Recipient, Sealing, Unlock, raw12};
use zeroize::Zeroizing;

const MANY: usize = 100;

fn cause(error: impl std::error::Error + Send + Sync + 'static) -> Cause {
    Arc::new(error)
}

/// `evlt/v1` with one direct slot, whose id is `<key>/<version>`, and the name of the record as context.
struct Blobs;

fn slot_id(key: &VersionedKey) -> Vec<u8> {
    format!("{}/{}", key.id(), key.version()).into_bytes()
}

fn context(name: &[u8]) -> Context {
    Context::from_pairs([("record", name)]).unwrap()
}

impl Sealer for Blobs {
    fn key_of(&self, _: &[u8], sealed: &[u8]) -> Result<(KeyId, KeyVersion), Cause> {
        let header = Header::parse(sealed).map_err(cause)?;
        let id = header.slots().first().map(|slot| slot.id().to_vec());
        let id = String::from_utf8(id.unwrap_or_default()).map_err(cause)?;
        let (id, version) = id
            .split_once('/')
            .ok_or_else(|| cause(SourceError::BadId))?;
        let version = version.parse().map_err(cause)?;
        let version = KeyVersion::new(version).ok_or_else(|| cause(SourceError::BadId))?;
        Ok((KeyId::new(id).map_err(cause)?, version))
    }

    fn open(
        &self,
        key: &VersionedKey,
        name: &[u8],
        sealed: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, Cause> {
        let unlock = Unlock::new().direct(slot_id(key), DataKey::from_bytes(key.as_bytes()));
        sprag_vault::open(sealed, &unlock, &context(name)).map_err(cause)
    }

    fn seal(
        &self,
        key: &VersionedKey,
        name: &[u8],
        plaintext: &[u8],
        rng: &mut dyn CryptoRng,
    ) -> Result<Vec<u8>, Cause> {
        let (id, data) = (slot_id(key), DataKey::from_bytes(key.as_bytes()));
        let (to, context) = ([Recipient::direct(&id)], context(name));
        let sealing = Sealing::new(&data, &to).context(&context);
        sprag_vault::seal(plaintext, &sealing, rng).map_err(cause)
    }
}

/// `raw12`, which does not say what it is under: the version stands in front.
struct Legacy;

impl Sealer for Legacy {
    fn key_of(&self, _: &[u8], sealed: &[u8]) -> Result<(KeyId, KeyVersion), Cause> {
        let version = sealed
            .first()
            .and_then(|version| KeyVersion::new((*version).into()));
        let version = version.ok_or_else(|| cause(SourceError::BadId))?;
        Ok((id(), version))
    }

    fn open(
        &self,
        key: &VersionedKey,
        _: &[u8],
        sealed: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, Cause> {
        let blob = sealed.get(1..).unwrap_or_default();
        raw12::open(&DataKey::from_bytes(key.as_bytes()), blob).map_err(cause)
    }

    fn seal(
        &self,
        key: &VersionedKey,
        _: &[u8],
        plaintext: &[u8],
        rng: &mut dyn CryptoRng,
    ) -> Result<Vec<u8>, Cause> {
        let version = u8::try_from(key.version().get()).map_err(cause)?;
        let blob = raw12::seal(&DataKey::from_bytes(key.as_bytes()), plaintext, rng);
        Ok([&[version], blob.as_slice()].concat())
    }
}

struct Shelf(Mutex<BTreeMap<Vec<u8>, Vec<u8>>>);

impl Records for Shelf {
    fn list(&self, after: Option<&[u8]>, most: usize) -> Result<Vec<Vec<u8>>, Cause> {
        let rows = self.0.lock().unwrap();
        let names = rows
            .keys()
            .filter(|name| after.is_none_or(|after| after < name.as_slice()));
        Ok(names.take(most).cloned().collect())
    }

    fn get(&self, name: &[u8]) -> Result<Option<Vec<u8>>, Cause> {
        Ok(self.0.lock().unwrap().get(name).cloned())
    }

    fn put_if_unchanged(&self, name: &[u8], old: &[u8], new: &[u8]) -> Result<bool, Cause> {
        let mut rows = self.0.lock().unwrap();
        let row = rows.get_mut(name).filter(|row| *row == old);
        Ok(row.map(|row| new.clone_into(row)).is_some())
    }
}

#[derive(Default)]
struct Notes(Option<Vec<u8>>);

impl Journal for Notes {
    fn load(&mut self) -> Result<Option<Vec<u8>>, Cause> {
        Ok(self.0.clone())
    }

    fn save(&mut self, state: &[u8]) -> Result<(), Cause> {
        self.0 = Some(state.to_vec());
        Ok(())
    }
}

fn id() -> KeyId {
    KeyId::new("memories").unwrap()
}

fn rng() -> ChaCha20Rng {
    ChaCha20Rng::from_seed([7; 32])
}

fn name(n: usize) -> Vec<u8> {
    format!("record-{n:03}").into_bytes()
}

fn rotates_to_the_end(sealer: &impl Sealer) {
    let mut random = rng();
    let mut ring = KeyRing::new();
    ring.create(&id(), &mut random, 0).unwrap();
    let mut rows = BTreeMap::new();
    for n in 0..MANY {
        let key = ring.current(&id()).unwrap();
        let sealed = sealer.seal(&key, &name(n), &name(n), &mut random).unwrap();
        rows.insert(name(n), sealed);
        if n % 30 == 29 {
            ring.rotate(&id(), &mut random, 0).unwrap();
        }
    }
    let shelf = Shelf(Mutex::new(rows));
    let target = ring.rotate(&id(), &mut random, 0).unwrap();
    let mut job = RotationJob::begin(Notes::default(), &id(), target).unwrap();
    let end = job.run(&shelf, &ring, sealer, rng, |_| {}).unwrap();
    assert!(matches!(end, Progress::Finished(report) if report.resealed == MANY as u64));
    for old in ring.versions(&id()).unwrap() {
        if old.state == KeyState::Retired {
            ring.destroy(&id(), old.version, 0).unwrap();
        }
    }
    let key = ring.current(&id()).unwrap();
    for (name, sealed) in shelf.0.lock().unwrap().iter() {
        assert_eq!(sealer.key_of(name, sealed).unwrap().1, target);
        assert_eq!(*sealer.open(&key, name, sealed).unwrap(), *name);
    }
}

#[test]
fn blobs_of_the_vault_end_under_the_new_version_and_old_versions_are_not_needed_any_more() {
    rotates_to_the_end(&Blobs);
}

#[test]
fn legacy_blobs_end_under_the_new_version_and_old_versions_are_not_needed_any_more() {
    rotates_to_the_end(&Legacy);
}
