//! The manifest: what a store is opened with. Its bytes, not its file.
//!
//! ```text
//! magic(8) "SPRAG\0st" ‖ version u16 ‖ store id(16) ‖ epoch u64 ‖ backend u8 ‖ begun sequence u64, time u64
//! ‖ key slot(29)                                                       so far the associated data
//! ‖ seal(unlock key, "Sprag/1 store manifest", storage key(32) ‖ names key(32))          96 bytes
//! ‖ SHA-256 of all of the above (32)
//! ```
//!
//! The backend is 1 for sled, 2 for redb, 0 where whoever keeps the manifest knows. The seal authenticates everything before it; the hash is there to tell a damaged manifest from a wrong key.

use std::fmt;

use rand_core::CryptoRng;
use sprag_crypto::{SealKey, hkdf, sha256};
use sprag_keys::{Key, KeySlot, UnlockKey};
use zeroize::Zeroizing;

use crate::{StoreError, labels};

/// The size of an encoded manifest in bytes.
pub const MANIFEST_LEN: usize = HEADER_LEN + WRAPPED_LEN + HASH_LEN;

const MAGIC: &[u8; 8] = b"SPRAG\0st";
const VERSION: u16 = 1;
const ID_LEN: usize = 16;
const HEADER_LEN: usize = MAGIC.len() + 2 + ID_LEN + 8 + 1 + 16 + KeySlot::LEN;
const KEY_LEN: usize = 32;
const WRAPPED_LEN: usize = 2 * KEY_LEN + 32;
const HASH_LEN: usize = 32;

/// The databases that a store in a directory can be kept in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum BackendKind {
    /// sled 0.34, of the feature `sled`.
    Sled,
    /// redb 4, of the feature `redb`.
    Redb,
}

impl BackendKind {
    /// The name, as that of the feature.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Sled => "sled",
            Self::Redb => "redb",
        }
    }

    fn code(kind: Option<Self>) -> u8 {
        match kind {
            None => 0,
            Some(Self::Sled) => 1,
            Some(Self::Redb) => 2,
        }
    }

    fn from_code(code: u8) -> Result<Option<Self>, StoreError> {
        match code {
            0 => Ok(None),
            1 => Ok(Some(Self::Sled)),
            2 => Ok(Some(Self::Redb)),
            _ => Err(StoreError::UnsupportedVersion),
        }
    }
}

/// When an epoch began: the commit that it took over, and the time in seconds of Unix.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub(crate) struct Begun {
    pub(crate) sequence: u64,
    pub(crate) time: u64,
}

/// The keys of a store: one of its epoch, for rows, and one of its lifetime, for names.
pub struct StoreKeys {
    store_id: [u8; ID_LEN],
    epoch: u64,
    storage: Zeroizing<[u8; KEY_LEN]>,
    names: Zeroizing<[u8; KEY_LEN]>,
}

impl StoreKeys {
    /// Keys of a new store, in its first epoch. Draws 80 bytes.
    #[must_use]
    pub fn generate(rng: &mut (impl CryptoRng + ?Sized)) -> Self {
        let mut keys = Self {
            store_id: [0; ID_LEN],
            epoch: 1,
            storage: Zeroizing::default(),
            names: Zeroizing::default(),
        };
        rng.fill_bytes(&mut keys.store_id);
        rng.fill_bytes(keys.storage.as_mut_slice());
        rng.fill_bytes(keys.names.as_mut_slice());
        keys
    }

    /// Keys of the same store in the epoch after this one. Draws 32 bytes.
    #[cfg(any(feature = "sled", feature = "redb"))]
    pub(crate) fn next_epoch(&self, rng: &mut (impl CryptoRng + ?Sized)) -> Self {
        let mut keys = Self {
            store_id: self.store_id,
            epoch: self.epoch.saturating_add(1),
            storage: Zeroizing::default(),
            names: self.names.clone(),
        };
        rng.fill_bytes(keys.storage.as_mut_slice());
        keys
    }

    /// What names the store. Not a secret.
    #[must_use]
    pub fn store_id(&self) -> &[u8; 16] {
        &self.store_id
    }

    /// The number of the epoch, from 1 on.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// A key for one purpose, from the key of the epoch.
    pub(crate) fn of_epoch(&self, label: &[u8]) -> Zeroizing<[u8; 32]> {
        hkdf(&self.store_id, self.storage.as_slice(), &[label])
    }

    /// A key for one purpose, from the key that stays.
    pub(crate) fn permanent(&self, label: &[u8]) -> Zeroizing<[u8; 32]> {
        hkdf(&self.store_id, self.names.as_slice(), &[label])
    }
}

impl fmt::Debug for StoreKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreKeys").finish_non_exhaustive()
    }
}

/// An encoded manifest: the keys of a store, wrapped. Not a secret by itself.
#[derive(Clone)]
pub struct Manifest {
    epoch: u64,
    backend: Option<BackendKind>,
    begun: Begun,
    slot: KeySlot,
    bytes: [u8; MANIFEST_LEN],
}

impl Manifest {
    /// Wraps the keys of a store under a new slot of `key`, for whoever keeps rows and manifest in a place of their own.
    ///
    /// # Errors
    ///
    /// Those of the key: [`StoreError::Key`].
    pub fn wrap(
        keys: &StoreKeys,
        key: &Key,
        rng: &mut (impl CryptoRng + ?Sized),
    ) -> Result<Self, StoreError> {
        let (slot, unlock) = key.new_slot(rng)?;
        Self::seal(keys, None, Begun::default(), &slot, &unlock, rng)
    }

    /// Wraps the keys of a store under a slot and the key that it gave.
    pub(crate) fn seal(
        keys: &StoreKeys,
        backend: Option<BackendKind>,
        begun: Begun,
        slot: &KeySlot,
        unlock: &UnlockKey,
        rng: &mut (impl CryptoRng + ?Sized),
    ) -> Result<Self, StoreError> {
        let mut bytes = Vec::with_capacity(MANIFEST_LEN);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&VERSION.to_be_bytes());
        bytes.extend_from_slice(&keys.store_id);
        bytes.extend_from_slice(&keys.epoch.to_be_bytes());
        bytes.push(BackendKind::code(backend));
        bytes.extend_from_slice(&begun.sequence.to_be_bytes());
        bytes.extend_from_slice(&begun.time.to_be_bytes());
        bytes.extend_from_slice(&slot.to_bytes());
        let mut secret = Zeroizing::new([0; 2 * KEY_LEN]);
        let (storage, names) = secret.split_at_mut(KEY_LEN);
        storage.copy_from_slice(keys.storage.as_slice());
        names.copy_from_slice(keys.names.as_slice());
        let wrapped = sealer(unlock).seal(labels::MANIFEST, &bytes, secret.as_slice(), rng);
        bytes.extend_from_slice(&wrapped);
        bytes.extend_from_slice(&sha256(&[&bytes]));
        Ok(Self {
            epoch: keys.epoch,
            backend,
            begun,
            slot: slot.clone(),
            bytes: bytes
                .try_into()
                .map_err(|_| StoreError::Internal("manifest has another size"))?,
        })
    }

    /// Reads a manifest, without a key.
    ///
    /// # Errors
    ///
    /// [`StoreError::UnsupportedVersion`] for a version that is not ours, [`StoreError::Damaged`] for bytes that were not
    /// written so, [`StoreError::Key`] for a slot that this version does not know.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, StoreError> {
        const DAMAGED: StoreError = StoreError::Damaged("manifest");
        let rest = bytes.strip_prefix(MAGIC).ok_or(DAMAGED)?;
        let (version, rest) = rest.split_first_chunk().ok_or(DAMAGED)?;
        if u16::from_be_bytes(*version) != VERSION {
            return Err(StoreError::UnsupportedVersion);
        }
        let bytes: &[u8; MANIFEST_LEN] = bytes.try_into().map_err(|_| DAMAGED)?;
        let (content, hash) = bytes.split_last_chunk::<HASH_LEN>().ok_or(DAMAGED)?;
        if sha256(&[content]) != *hash {
            return Err(DAMAGED);
        }
        let (_store_id, rest) = rest.split_first_chunk::<ID_LEN>().ok_or(DAMAGED)?;
        let (epoch, rest) = rest.split_first_chunk().ok_or(DAMAGED)?;
        let (backend, rest) = rest.split_first().ok_or(DAMAGED)?;
        let (sequence, rest) = rest.split_first_chunk().ok_or(DAMAGED)?;
        let (time, rest) = rest.split_first_chunk().ok_or(DAMAGED)?;
        let slot = rest.first_chunk::<{ KeySlot::LEN }>().ok_or(DAMAGED)?;
        Ok(Self {
            epoch: u64::from_be_bytes(*epoch),
            backend: BackendKind::from_code(*backend)?,
            begun: Begun {
                sequence: u64::from_be_bytes(*sequence),
                time: u64::from_be_bytes(*time),
            },
            slot: KeySlot::from_bytes(slot)?,
            bytes: *bytes,
        })
    }

    /// The bytes to keep.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; MANIFEST_LEN] {
        &self.bytes
    }

    /// The number of the epoch. To be believed once the manifest was unlocked.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The database that the rows are in, if it is one of this crate's. To be believed once the manifest was unlocked.
    #[must_use]
    pub fn backend(&self) -> Option<BackendKind> {
        self.backend
    }

    /// What names the store. To be believed once the manifest was unlocked.
    #[cfg(any(feature = "sled", feature = "redb"))]
    pub(crate) fn store_id(&self) -> [u8; 16] {
        let id = self.bytes.get(MAGIC.len() + 2..).unwrap_or_default();
        id.first_chunk().copied().unwrap_or_default()
    }

    /// When the epoch began. To be believed once the manifest was unlocked.
    #[cfg(any(feature = "sled", feature = "redb"))]
    pub(crate) fn begun(&self) -> Begun {
        self.begun
    }

    /// How the key is to be made.
    #[cfg(any(feature = "sled", feature = "redb"))]
    pub(crate) fn slot(&self) -> &KeySlot {
        &self.slot
    }

    /// Unwraps the keys of the store.
    ///
    /// # Errors
    ///
    /// [`StoreError::WrongKey`] if this key does not open it, [`StoreError::Key`] if the key cannot be had.
    pub fn unlock(&self, key: &Key) -> Result<StoreKeys, StoreError> {
        self.unlock_with(&key.unlock(&self.slot)?)
    }

    /// Unwraps the keys of the store with what the slot gave.
    pub(crate) fn unlock_with(&self, unlock: &UnlockKey) -> Result<StoreKeys, StoreError> {
        const INTERNAL: StoreError = StoreError::Internal("manifest has another size");
        let (header, rest) = self
            .bytes
            .split_first_chunk::<HEADER_LEN>()
            .ok_or(INTERNAL)?;
        let wrapped = rest.first_chunk::<WRAPPED_LEN>().ok_or(INTERNAL)?;
        let secret = sealer(unlock)
            .open(labels::MANIFEST, header, wrapped)
            .map_err(|_| StoreError::WrongKey)?;
        let (storage, names) = secret.split_first_chunk::<KEY_LEN>().ok_or(INTERNAL)?;
        let names = names.first_chunk::<KEY_LEN>().ok_or(INTERNAL)?;
        let store_id = header
            .get(MAGIC.len() + 2..)
            .and_then(|rest| rest.first_chunk());
        Ok(StoreKeys {
            store_id: *store_id.ok_or(INTERNAL)?,
            epoch: self.epoch,
            storage: Zeroizing::new(*storage),
            names: Zeroizing::new(*names),
        })
    }
}

impl fmt::Debug for Manifest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Manifest")
            .field("epoch", &self.epoch)
            .field("backend", &self.backend)
            .field("begun", &self.begun)
            .finish_non_exhaustive()
    }
}

fn sealer(unlock: &UnlockKey) -> SealKey {
    SealKey::from_bytes(unlock.as_bytes())
}

#[cfg(test)]
mod tests {
    use rand_chacha::ChaCha20Rng;
    use rand_chacha::rand_core::SeedableRng;

    use super::*;

    fn manifest() -> (StoreKeys, Manifest) {
        let mut rng = ChaCha20Rng::from_seed([7; 32]);
        let keys = StoreKeys::generate(&mut rng);
        let manifest = Manifest::wrap(&keys, &Key::raw([1; 32]), &mut rng).unwrap();
        (keys, manifest)
    }

    #[test]
    fn manifest_gives_the_keys_back_to_the_right_key_only() {
        let (keys, manifest) = manifest();
        let read = Manifest::from_bytes(manifest.as_bytes()).unwrap();
        let again = read.unlock(&Key::raw([1; 32])).unwrap();
        assert_eq!(*again.storage, *keys.storage);
        assert_eq!(*again.names, *keys.names);
        assert_eq!(again.store_id(), keys.store_id());
        assert_eq!(again.epoch(), 1);
        assert!(matches!(
            read.unlock(&Key::raw([2; 32])),
            Err(StoreError::WrongKey)
        ));
        assert!(matches!(
            read.unlock(&Key::passphrase("one")),
            Err(StoreError::Key(sprag_keys::KeyError::WrongKind))
        ));
    }

    #[test]
    fn damaged_manifest_is_not_mistaken_for_a_wrong_key() {
        let (_, manifest) = manifest();
        for at in (0..8).chain(10..MANIFEST_LEN) {
            let mut bytes = *manifest.as_bytes();
            bytes[at] ^= 1;
            assert!(
                matches!(Manifest::from_bytes(&bytes), Err(StoreError::Damaged(_))),
                "{at}"
            );
        }
        for len in 0..MANIFEST_LEN {
            assert!(
                Manifest::from_bytes(&manifest.as_bytes()[..len]).is_err(),
                "{len}"
            );
        }
    }

    #[test]
    fn rewritten_header_with_a_right_hash_opens_nothing() {
        let (_, manifest) = manifest();
        let mut bytes = manifest.as_bytes().to_vec();
        bytes.truncate(MANIFEST_LEN - HASH_LEN);
        bytes[12] ^= 1; // the store id
        let hash = sha256(&[&bytes]);
        bytes.extend_from_slice(&hash);
        let read = Manifest::from_bytes(&bytes).unwrap();
        assert!(matches!(
            read.unlock(&Key::raw([1; 32])),
            Err(StoreError::WrongKey)
        ));
    }

    #[test]
    fn backend_stands_in_the_manifest_and_an_unknown_one_is_told_apart_from_damage() {
        let mut rng = ChaCha20Rng::from_seed([7; 32]);
        let keys = StoreKeys::generate(&mut rng);
        let (slot, unlock) = Key::raw([1; 32]).new_slot(&mut rng).unwrap();
        for backend in [None, Some(BackendKind::Sled), Some(BackendKind::Redb)] {
            let manifest =
                Manifest::seal(&keys, backend, Begun::default(), &slot, &unlock, &mut rng).unwrap();
            let read = Manifest::from_bytes(manifest.as_bytes()).unwrap();
            assert_eq!(read.backend(), backend);
            // Whoever writes another one in makes a manifest that does not open.
            for (code, refused) in [(1, false), (3, true)] {
                let mut bytes = manifest.as_bytes()[..MANIFEST_LEN - HASH_LEN].to_vec();
                if std::mem::replace(&mut bytes[34], code) == code {
                    continue;
                }
                bytes.extend_from_slice(&sha256(&[&bytes]));
                match Manifest::from_bytes(&bytes) {
                    Ok(read) => assert!(
                        !refused
                            && matches!(read.unlock(&Key::raw([1; 32])), Err(StoreError::WrongKey))
                    ),
                    Err(error) => {
                        assert!(refused && matches!(error, StoreError::UnsupportedVersion))
                    }
                }
            }
        }
    }

    #[test]
    fn unknown_version_is_told_apart_from_damage() {
        let (_, manifest) = manifest();
        let mut bytes = manifest.as_bytes().to_vec();
        bytes[9] = 2;
        bytes.push(0);
        assert!(matches!(
            Manifest::from_bytes(&bytes),
            Err(StoreError::UnsupportedVersion)
        ));
    }

    #[test]
    fn debug_shows_no_key() {
        assert_eq!(format!("{:?}", manifest().0), "StoreKeys { .. }");
    }
}
