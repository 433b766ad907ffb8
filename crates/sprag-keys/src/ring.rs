//! Keys by name, each in versions.

mod record;

use std::collections::BTreeMap;
use std::fmt;

use rand_core::CryptoRng;
use zeroize::Zeroizing;

use crate::{KeyId, KeySource, KeyVersion, SourceError, VersionedKey};

/// Keys by name, each in versions: the newest encrypts, older ones still decrypt, destroyed ones are gone and keep their
/// number.
///
/// ```text
/// create -> Current -> (rotate, retire) -> Retired -> (destroy) -> Destroyed
/// ```
///
/// At most one version of a key is current, and only the newest can be. Only [`create`](Self::create) and
/// [`import`](Self::import) make a name; nothing else does, least of all reading. Times are milliseconds of Unix as the
/// caller gives them; they are for people and decide nothing.
///
/// The ring is in memory; [`RingFile`](crate::RingFile) keeps one in a file, [`to_bytes`](Self::to_bytes) is for
/// whoever keeps it elsewhere.
#[derive(Clone, Default)]
pub struct KeyRing {
    keys: BTreeMap<KeyId, Vec<Entry>>,
}

/// A version; its number is its place in the list, plus one.
#[derive(Clone)]
struct Entry {
    created_ms: u64,
    stage: Stage,
}

#[derive(Clone)]
enum Stage {
    Current(Secret),
    Retired(Secret, u64),
    Destroyed { retired_ms: u64, destroyed_ms: u64 },
}

type Secret = Box<Zeroizing<[u8; 32]>>;

/// How far a version has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum KeyState {
    /// Encrypts and decrypts.
    Current,
    /// Decrypts only.
    Retired,
    /// Is gone.
    Destroyed,
}

/// What can be said of a version without its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct VersionInfo {
    /// Its number.
    pub version: KeyVersion,
    /// How far it has come.
    pub state: KeyState,
    /// When it was made, in milliseconds of Unix.
    pub created_ms: u64,
    /// When it was retired.
    pub retired_ms: Option<u64>,
    /// When it was destroyed.
    pub destroyed_ms: Option<u64>,
}

/// Why a ring was not changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RingError {
    /// There is no key of this name, or never was this version. None was made.
    #[error("no such key")]
    NotFound,
    /// There is a key of this name already. It was left alone.
    #[error("key exists already")]
    Exists,
    /// The current version cannot be destroyed: rotate or retire it first.
    #[error("version is still current")]
    StillCurrent,
    /// This version was destroyed before.
    #[error("version was destroyed")]
    Destroyed,
    /// The ring holds as many names, or the key as many versions, as there may be.
    #[error("ring is full")]
    Full,
    /// The bytes are not those of a ring.
    #[error("not a key ring")]
    Malformed,
    /// The ring was written by a later version of this library. Update.
    #[error("key ring of a later version")]
    UnknownVersion,
}

impl KeyRing {
    /// The most names in a ring.
    pub const MAX_KEYS: usize = 1_024;
    /// The most versions of one key, destroyed ones included.
    pub const MAX_VERSIONS: usize = 4_096;

    /// The most versions of all keys together.
    pub const MAX_TOTAL: usize = 65_536;

    /// An empty ring.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes a key of a new name. Draws 32 bytes.
    ///
    /// # Errors
    ///
    /// [`RingError::Exists`], [`RingError::Full`].
    pub fn create(
        &mut self,
        id: &KeyId,
        rng: &mut (impl CryptoRng + ?Sized),
        now_ms: u64,
    ) -> Result<KeyVersion, RingError> {
        self.insert(id, random(rng), now_ms)
    }

    /// Takes in a key of 32 bytes that was made elsewhere, as the first version of a new name.
    ///
    /// # Errors
    ///
    /// [`RingError::Exists`], [`RingError::Full`].
    pub fn import(
        &mut self,
        id: &KeyId,
        key: &[u8; 32],
        now_ms: u64,
    ) -> Result<KeyVersion, RingError> {
        self.insert(id, Box::new(Zeroizing::new(*key)), now_ms)
    }

    fn insert(&mut self, id: &KeyId, key: Secret, now_ms: u64) -> Result<KeyVersion, RingError> {
        if self.keys.contains_key(id) {
            return Err(RingError::Exists);
        }
        if self.keys.len() >= Self::MAX_KEYS || self.total() >= Self::MAX_TOTAL {
            return Err(RingError::Full);
        }
        self.keys.insert(id.clone(), vec![Entry::new(key, now_ms)]);
        Ok(KeyVersion::FIRST)
    }

    /// Makes a new version, which becomes the current one; the one before is retired. Draws 32 bytes.
    ///
    /// What the old version sealed stays under it until a [`RotationJob`](crate::RotationJob) has run.
    ///
    /// # Errors
    ///
    /// [`RingError::NotFound`], [`RingError::Full`].
    pub fn rotate(
        &mut self,
        id: &KeyId,
        rng: &mut (impl CryptoRng + ?Sized),
        now_ms: u64,
    ) -> Result<KeyVersion, RingError> {
        let total = self.total();
        let entries = self.keys.get_mut(id).ok_or(RingError::NotFound)?;
        if entries.len() >= Self::MAX_VERSIONS || total >= Self::MAX_TOTAL {
            return Err(RingError::Full);
        }
        if let Some(last) = entries.last_mut() {
            last.retire(now_ms);
        }
        entries.push(Entry::new(random(rng), now_ms));
        number(entries.len().saturating_sub(1)).ok_or(RingError::Full)
    }

    /// Lets a version decrypt only. If it was the current one, nothing can be encrypted until the next
    /// [`rotate`](Self::rotate). Retiring twice changes nothing.
    ///
    /// # Errors
    ///
    /// [`RingError::NotFound`], [`RingError::Destroyed`].
    pub fn retire(
        &mut self,
        id: &KeyId,
        version: KeyVersion,
        now_ms: u64,
    ) -> Result<(), RingError> {
        let entry = self.entry_mut(id, version)?;
        if matches!(entry.stage, Stage::Destroyed { .. }) {
            return Err(RingError::Destroyed);
        }
        entry.retire(now_ms);
        Ok(())
    }

    /// Wipes a retired version for good: whatever is still under it is lost. Its number stays taken. Destroying twice
    /// changes nothing.
    ///
    /// # Errors
    ///
    /// [`RingError::NotFound`], [`RingError::StillCurrent`].
    pub fn destroy(
        &mut self,
        id: &KeyId,
        version: KeyVersion,
        now_ms: u64,
    ) -> Result<(), RingError> {
        let entry = self.entry_mut(id, version)?;
        match entry.stage {
            Stage::Current(_) => Err(RingError::StillCurrent),
            Stage::Destroyed { .. } => Ok(()),
            Stage::Retired(_, retired_ms) => {
                entry.stage = Stage::Destroyed {
                    retired_ms,
                    destroyed_ms: now_ms,
                };
                Ok(())
            }
        }
    }

    /// The names in the ring, in the order of their bytes.
    pub fn ids(&self) -> impl Iterator<Item = &KeyId> {
        self.keys.keys()
    }

    /// All versions of a key, from the first.
    ///
    /// # Errors
    ///
    /// [`RingError::NotFound`].
    pub fn versions(&self, id: &KeyId) -> Result<Vec<VersionInfo>, RingError> {
        let entries = self.keys.get(id).ok_or(RingError::NotFound)?;
        let numbered = (0..).map_while(number).zip(entries);
        Ok(numbered.map(|(number, entry)| entry.info(number)).collect())
    }

    fn total(&self) -> usize {
        self.keys.values().map(Vec::len).sum()
    }

    fn entry_mut(&mut self, id: &KeyId, version: KeyVersion) -> Result<&mut Entry, RingError> {
        let entries = self.keys.get_mut(id).ok_or(RingError::NotFound)?;
        entries.get_mut(place(version)).ok_or(RingError::NotFound)
    }
}

impl KeySource for KeyRing {
    fn current(&self, id: &KeyId) -> Result<VersionedKey, SourceError> {
        let entries = self.keys.get(id).ok_or(SourceError::NotFound)?;
        let version = number(entries.len().saturating_sub(1)).ok_or(SourceError::Malformed)?;
        match entries.last().map(|entry| &entry.stage) {
            Some(Stage::Current(key)) => Ok(VersionedKey::new(id.clone(), version, key)),
            _ => Err(SourceError::NoCurrent),
        }
    }

    fn by_version(&self, id: &KeyId, version: KeyVersion) -> Result<VersionedKey, SourceError> {
        let entries = self.keys.get(id).ok_or(SourceError::NotFound)?;
        let entry = entries.get(place(version)).ok_or(SourceError::NotFound)?;
        match &entry.stage {
            Stage::Current(key) | Stage::Retired(key, _) => {
                Ok(VersionedKey::new(id.clone(), version, key))
            }
            Stage::Destroyed { .. } => Err(SourceError::Destroyed),
        }
    }
}

impl fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyRing")
            .field("keys", &self.keys.len())
            .finish_non_exhaustive()
    }
}

impl Entry {
    fn new(key: Secret, created_ms: u64) -> Self {
        let stage = Stage::Current(key);
        Self { created_ms, stage }
    }

    fn retire(&mut self, now_ms: u64) {
        if let Stage::Current(key) = &mut self.stage {
            self.stage = Stage::Retired(std::mem::take(key), now_ms);
        }
    }

    fn info(&self, version: KeyVersion) -> VersionInfo {
        let (state, retired_ms, destroyed_ms) = match self.stage {
            Stage::Current(_) => (KeyState::Current, None, None),
            Stage::Retired(_, at) => (KeyState::Retired, Some(at), None),
            Stage::Destroyed {
                retired_ms,
                destroyed_ms,
            } => (KeyState::Destroyed, Some(retired_ms), Some(destroyed_ms)),
        };
        VersionInfo {
            version,
            state,
            created_ms: self.created_ms,
            retired_ms,
            destroyed_ms,
        }
    }
}

fn random(rng: &mut (impl CryptoRng + ?Sized)) -> Secret {
    let mut key = Box::new(Zeroizing::new([0; 32]));
    rng.fill_bytes(key.as_mut_slice());
    key
}

fn place(version: KeyVersion) -> usize {
    usize::try_from(version.get()).map_or(usize::MAX, |number| number.saturating_sub(1))
}

fn number(place: usize) -> Option<KeyVersion> {
    KeyVersion::new(u32::try_from(place).ok()?.checked_add(1)?)
}

#[cfg(test)]
mod tests {
    use rand_chacha::ChaCha20Rng;
    use rand_chacha::rand_core::SeedableRng;

    use super::*;

    fn rng() -> ChaCha20Rng {
        ChaCha20Rng::from_seed([4; 32])
    }

    fn id(name: &str) -> KeyId {
        KeyId::new(name).unwrap()
    }

    fn version(number: u32) -> KeyVersion {
        KeyVersion::new(number).unwrap()
    }

    #[test]
    fn rotation_makes_a_new_current_version_and_the_old_one_still_decrypts() {
        let (mut ring, mut rng) = (KeyRing::new(), rng());
        let main = id("main");
        assert_eq!(ring.create(&main, &mut rng, 10).unwrap(), version(1));
        let first = ring.current(&main).unwrap();
        assert_eq!(ring.rotate(&main, &mut rng, 20).unwrap(), version(2));
        let second = ring.current(&main).unwrap();
        assert_eq!((first.version().get(), second.version().get()), (1, 2));
        assert_ne!(first.as_bytes(), second.as_bytes());
        let again = ring.by_version(&main, version(1)).unwrap();
        assert_eq!(again.as_bytes(), first.as_bytes());
        let states: Vec<_> = ring.versions(&main).unwrap();
        assert_eq!(states[0].state, KeyState::Retired);
        assert_eq!((states[0].created_ms, states[0].retired_ms), (10, Some(20)));
        assert_eq!(
            (states[1].state, states[1].retired_ms),
            (KeyState::Current, None)
        );
    }

    #[test]
    fn an_unknown_name_makes_no_key_whatever_is_asked() {
        let (mut ring, mut rng) = (KeyRing::new(), rng());
        ring.create(&id("main"), &mut rng, 0).unwrap();
        let before = ring.to_bytes();
        let other = id("other");
        assert!(matches!(ring.current(&other), Err(SourceError::NotFound)));
        assert!(matches!(
            ring.by_version(&other, version(1)),
            Err(SourceError::NotFound)
        ));
        assert_eq!(ring.rotate(&other, &mut rng, 1), Err(RingError::NotFound));
        assert_eq!(ring.retire(&other, version(1), 1), Err(RingError::NotFound));
        assert_eq!(
            ring.destroy(&other, version(1), 1),
            Err(RingError::NotFound)
        );
        assert_eq!(
            ring.destroy(&id("main"), version(2), 1),
            Err(RingError::NotFound)
        );
        assert!(matches!(
            ring.by_version(&id("main"), version(u32::MAX)),
            Err(SourceError::NotFound)
        ));
        assert!(ring.versions(&other).is_err());
        assert_eq!(*ring.to_bytes(), *before);
    }

    #[test]
    fn the_number_of_a_destroyed_version_is_never_given_again() {
        let (mut ring, mut rng) = (KeyRing::new(), rng());
        let main = id("main");
        ring.create(&main, &mut rng, 0).unwrap();
        ring.retire(&main, version(1), 5).unwrap();
        ring.destroy(&main, version(1), 6).unwrap();
        let mut ring = KeyRing::from_bytes(&ring.to_bytes()).unwrap();
        assert_eq!(ring.rotate(&main, &mut rng, 7).unwrap(), version(2));
        assert!(matches!(
            ring.by_version(&main, version(1)),
            Err(SourceError::Destroyed)
        ));
        assert_eq!(ring.retire(&main, version(1), 9), Err(RingError::Destroyed));
        let gone = ring.versions(&main).unwrap()[0];
        assert_eq!((gone.retired_ms, gone.destroyed_ms), (Some(5), Some(6)));
    }

    #[test]
    fn destroying_leaves_no_byte_of_the_key() {
        let mut ring = KeyRing::new();
        let main = id("main");
        ring.import(&main, &[0xab; 32], 0).unwrap();
        ring.rotate(&main, &mut rng(), 1).unwrap();
        let holds = |ring: &KeyRing| ring.to_bytes().windows(4).any(|part| part == [0xab; 4]);
        assert!(holds(&ring));
        ring.destroy(&main, version(1), 2).unwrap();
        assert!(!holds(&ring));
        ring.destroy(&main, version(1), 3).unwrap();
        assert_eq!(ring.versions(&main).unwrap()[0].destroyed_ms, Some(2));
    }

    #[test]
    fn the_current_version_is_not_destroyed_and_a_retired_one_does_not_encrypt() {
        let (mut ring, mut rng) = (KeyRing::new(), rng());
        let main = id("main");
        ring.create(&main, &mut rng, 0).unwrap();
        assert_eq!(
            ring.destroy(&main, version(1), 1),
            Err(RingError::StillCurrent)
        );
        ring.retire(&main, version(1), 2).unwrap();
        ring.retire(&main, version(1), 3).unwrap();
        assert_eq!(ring.versions(&main).unwrap()[0].retired_ms, Some(2));
        assert!(matches!(ring.current(&main), Err(SourceError::NoCurrent)));
        assert!(ring.by_version(&main, version(1)).is_ok());
    }

    #[test]
    fn a_name_is_made_once_and_a_full_ring_takes_no_more() {
        let (mut ring, mut rng) = (KeyRing::new(), rng());
        let main = id("main");
        ring.create(&main, &mut rng, 0).unwrap();
        let first = ring.current(&main).unwrap();
        assert_eq!(ring.create(&main, &mut rng, 1), Err(RingError::Exists));
        assert_eq!(ring.import(&main, &[1; 32], 1), Err(RingError::Exists));
        assert_eq!(ring.current(&main).unwrap().as_bytes(), first.as_bytes());
        for n in 1..KeyRing::MAX_VERSIONS {
            ring.rotate(&main, &mut rng, n as u64).unwrap();
        }
        assert_eq!(ring.rotate(&main, &mut rng, 0), Err(RingError::Full));
        assert_eq!(ring.current(&main).unwrap().version().get(), 4_096);
        for n in 1..KeyRing::MAX_KEYS {
            ring.create(&id(&format!("k{n}")), &mut rng, 0).unwrap();
        }
        assert_eq!(ring.create(&id("more"), &mut rng, 0), Err(RingError::Full));
    }

    #[test]
    fn debug_shows_no_key() {
        let mut ring = KeyRing::new();
        ring.import(&id("main"), &[7; 32], 0).unwrap();
        assert_eq!(format!("{ring:?}"), "KeyRing { keys: 1, .. }");
    }
}
