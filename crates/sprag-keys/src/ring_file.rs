//! A ring in a file.

use std::fmt;
use std::path::{Path, PathBuf};

use rand_core::CryptoRng;

use crate::sys::{self, Lock};
use crate::{
    KeyError, KeyId, KeyRing, KeySource, KeyVersion, Opener, RingError, RingFileError, RingSeal,
    SourceError, VersionedKey,
};

/// A [`KeyRing`] in a file that only its owner may read, sealed by a [`RingSeal`].
///
/// A change is in the file before it is in memory: whatever a new key sealed, the key was kept before. The file is
/// replaced whole, never written in place, and a change is made to what is in the file at that moment, under a lock
/// (`<name>.lock`): several processes lose none of each other's keys. A file that cannot be read is an error, and is left
/// as it is.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use rand_core::UnwrapErr;
/// use sprag_keys::{Key, KeyId, KeySource, RingFile};
///
/// let mut rng = UnwrapErr(getrandom::SysRng);
/// let dir = tempfile::tempdir()?;
/// let key = Key::raw([7; 32]); // or a passphrase, a key file, a variable, a service
/// let mut file = RingFile::create(dir.path().join("keys"), &key, &mut rng)?;
/// let memories = KeyId::new("memories")?;
/// let now_ms = 1_700_000_000_000;
/// file.create_key(&memories, &mut rng, now_ms)?;
/// file.rotate(&memories, &mut rng, now_ms)?;
///
/// let again = RingFile::open(dir.path().join("keys"), &key)?;
/// assert_eq!(again.current(&memories)?.version().get(), 2);
/// # Ok(()) }
/// ```
pub struct RingFile {
    path: PathBuf,
    seal: RingSeal,
    ring: KeyRing,
}

impl RingFile {
    /// Makes a file with an empty ring. Draws 16 bytes, and 16 more if the opener is a key.
    ///
    /// # Errors
    ///
    /// [`KeyError::Exists`] if something has this name already; it is left alone. [`RingFileError`].
    pub fn create<'a>(
        path: impl Into<PathBuf>,
        opener: impl Into<Opener<'a>>,
        rng: &mut (impl CryptoRng + ?Sized),
    ) -> Result<Self, RingFileError> {
        let path = path.into();
        if sys::stands(&path)? {
            return Err(KeyError::Exists.into());
        }
        let (seal, ring) = (RingSeal::new(opener, rng)?, KeyRing::new());
        let _lock = Lock::to_write(&path)?;
        if sys::stands(&path)? {
            return Err(KeyError::Exists.into());
        }
        sys::replace_and_wipe(&path, &seal.seal(&ring, rng))?;
        let path = sys::real_path(&path)?;
        Ok(Self { path, seal, ring })
    }

    /// Opens a file. What stretches a passphrase takes its time here, and only here.
    ///
    /// # Errors
    ///
    /// [`KeyError::NotFound`] if there is none: none is made. [`RingFileError`].
    pub fn open<'a>(
        path: impl AsRef<Path>,
        opener: impl Into<Opener<'a>>,
    ) -> Result<Self, RingFileError> {
        let path = sys::real_path(path.as_ref())?;
        let sealed = {
            let _lock = Lock::to_read(&path)?;
            read(&path)?
        };
        let (seal, ring) = RingSeal::open(&sealed, opener)?;
        Ok(Self { path, seal, ring })
    }

    /// The ring as it was when last read or changed through this value.
    #[must_use]
    pub fn ring(&self) -> &KeyRing {
        &self.ring
    }

    /// Looks at what others wrote.
    ///
    /// # Errors
    ///
    /// [`RingFileError`]; what was known before is kept.
    pub fn refresh(&mut self) -> Result<(), RingFileError> {
        let sealed = {
            let _lock = Lock::to_read(&self.path)?;
            read(&self.path)?
        };
        self.ring = self.seal.reopen(&sealed)?;
        Ok(())
    }

    /// Changes the ring in the file, then here. If the change fails, neither is changed. Draws what the change draws, and
    /// 16 bytes.
    ///
    /// # Errors
    ///
    /// [`RingFileError`].
    pub fn update<T, R: CryptoRng + ?Sized>(
        &mut self,
        rng: &mut R,
        change: impl FnOnce(&mut KeyRing, &mut R) -> Result<T, RingError>,
    ) -> Result<T, RingFileError> {
        let _lock = Lock::to_write(&self.path)?;
        let mut ring = self.seal.reopen(&read(&self.path)?)?;
        let outcome = change(&mut ring, rng)?;
        sys::replace_and_wipe(&self.path, &self.seal.seal(&ring, rng))?;
        self.ring = ring;
        Ok(outcome)
    }

    /// [`KeyRing::create`], kept.
    ///
    /// # Errors
    ///
    /// [`RingFileError`].
    pub fn create_key(
        &mut self,
        id: &KeyId,
        rng: &mut (impl CryptoRng + ?Sized),
        now_ms: u64,
    ) -> Result<KeyVersion, RingFileError> {
        self.update(rng, |ring, rng| ring.create(id, rng, now_ms))
    }

    /// [`KeyRing::rotate`], kept.
    ///
    /// # Errors
    ///
    /// [`RingFileError`].
    pub fn rotate(
        &mut self,
        id: &KeyId,
        rng: &mut (impl CryptoRng + ?Sized),
        now_ms: u64,
    ) -> Result<KeyVersion, RingFileError> {
        self.update(rng, |ring, rng| ring.rotate(id, rng, now_ms))
    }

    /// [`KeyRing::retire`], kept.
    ///
    /// # Errors
    ///
    /// [`RingFileError`].
    pub fn retire(
        &mut self,
        id: &KeyId,
        version: KeyVersion,
        rng: &mut (impl CryptoRng + ?Sized),
        now_ms: u64,
    ) -> Result<(), RingFileError> {
        self.update(rng, |ring, _| ring.retire(id, version, now_ms))
    }

    /// [`KeyRing::destroy`], kept: the file no longer has the key, and the blocks of the file before are overwritten, for
    /// what that is worth on the medium. Copies of the file made earlier still have it.
    ///
    /// # Errors
    ///
    /// [`RingFileError`].
    pub fn destroy(
        &mut self,
        id: &KeyId,
        version: KeyVersion,
        rng: &mut (impl CryptoRng + ?Sized),
        now_ms: u64,
    ) -> Result<(), RingFileError> {
        self.update(rng, |ring, _| ring.destroy(id, version, now_ms))
    }

    /// Lets another key, or service, open the file from now on. Values that others hold open of this file answer
    /// [`RingFileError::Replaced`].
    ///
    /// # Errors
    ///
    /// [`RingFileError`]; the file is as it was.
    pub fn change_opener<'a>(
        &mut self,
        opener: impl Into<Opener<'a>>,
        rng: &mut (impl CryptoRng + ?Sized),
    ) -> Result<(), RingFileError> {
        let seal = RingSeal::new(opener, rng)?;
        let _lock = Lock::to_write(&self.path)?;
        let ring = self.seal.reopen(&read(&self.path)?)?;
        sys::replace_and_wipe(&self.path, &seal.seal(&ring, rng))?;
        (self.seal, self.ring) = (seal, ring);
        Ok(())
    }
}

impl KeySource for RingFile {
    fn current(&self, id: &KeyId) -> Result<VersionedKey, SourceError> {
        self.ring.current(id)
    }

    fn by_version(&self, id: &KeyId, version: KeyVersion) -> Result<VersionedKey, SourceError> {
        self.ring.by_version(id, version)
    }
}

impl fmt::Debug for RingFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RingFile")
            .field("ring", &self.ring)
            .finish_non_exhaustive()
    }
}

fn read(path: &Path) -> Result<zeroize::Zeroizing<Vec<u8>>, RingFileError> {
    match sys::read_private(path, RingSeal::MAX_BYTES) {
        Err(KeyError::Malformed) => Err(RingFileError::Malformed),
        other => Ok(other?),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use rand_chacha::ChaCha20Rng;
    use rand_chacha::rand_core::SeedableRng;
    use tempfile::TempDir;

    use super::*;
    use crate::{Key, KeyState};

    struct Place(TempDir);

    impl Place {
        fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }

        fn path(&self) -> PathBuf {
            self.0.path().join("keys")
        }

        fn names(&self) -> Vec<String> {
            let names = fs::read_dir(self.0.path()).unwrap();
            let mut names: Vec<_> = names
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .collect();
            names.sort();
            names
        }
    }

    fn rng() -> ChaCha20Rng {
        ChaCha20Rng::from_seed([8; 32])
    }

    fn key() -> Key {
        Key::raw([9; 32])
    }

    fn id() -> KeyId {
        KeyId::new("main").unwrap()
    }

    #[test]
    fn what_was_changed_is_there_when_the_file_is_opened_again() {
        let (place, mut rng) = (Place::new(), rng());
        let mut file = RingFile::create(place.path(), &key(), &mut rng).unwrap();
        file.create_key(&id(), &mut rng, 1).unwrap();
        file.rotate(&id(), &mut rng, 2).unwrap();
        file.rotate(&id(), &mut rng, 3).unwrap();
        file.destroy(&id(), KeyVersion::FIRST, &mut rng, 4).unwrap();
        let again = RingFile::open(place.path(), &key()).unwrap();
        assert_eq!(*again.ring().to_bytes(), *file.ring().to_bytes());
        let states: Vec<_> = again.ring().versions(&id()).unwrap();
        let states: Vec<_> = states.iter().map(|version| version.state).collect();
        let expected = [KeyState::Destroyed, KeyState::Retired, KeyState::Current];
        assert_eq!(states, expected);
        assert_eq!(place.names(), ["keys", "keys.lock"]);
    }

    #[test]
    fn two_who_change_one_file_lose_no_key_of_each_other() {
        let (place, mut rng) = (Place::new(), rng());
        let mut one = RingFile::create(place.path(), &key(), &mut rng).unwrap();
        one.create_key(&id(), &mut rng, 1).unwrap();
        let mut two = RingFile::open(place.path(), &key()).unwrap();
        assert_eq!(one.rotate(&id(), &mut rng, 2).unwrap().get(), 2);
        let second = one.current(&id()).unwrap();
        assert_eq!(two.current(&id()).unwrap().version().get(), 1);
        assert_eq!(two.rotate(&id(), &mut rng, 3).unwrap().get(), 3);
        let kept = two.by_version(&id(), second.version()).unwrap();
        assert_eq!(kept.as_bytes(), second.as_bytes());
        one.refresh().unwrap();
        assert_eq!(one.current(&id()).unwrap().version().get(), 3);
    }

    #[test]
    fn many_threads_rotate_and_every_number_is_given_once() {
        let (place, mut rng) = (Place::new(), rng());
        let mut file = RingFile::create(place.path(), &key(), &mut rng).unwrap();
        file.create_key(&id(), &mut rng, 1).unwrap();
        let path = place.path();
        let mut given: Vec<u32> = std::thread::scope(|scope| {
            let turn = |seed: u8| {
                let path = &path;
                scope.spawn(move || {
                    let mut rng = ChaCha20Rng::from_seed([seed; 32]);
                    let mut file = RingFile::open(path, &key()).unwrap();
                    let rotate = |n| file.rotate(&id(), &mut rng, n).unwrap().get();
                    (0..10).map(rotate).collect::<Vec<_>>()
                })
            };
            let turns: Vec<_> = (0..4).map(turn).collect();
            turns
                .into_iter()
                .flat_map(|turn| turn.join().unwrap())
                .collect()
        });
        given.sort_unstable();
        assert_eq!(given, (2..=41).collect::<Vec<_>>());
    }

    #[test]
    fn an_unreadable_file_is_an_error_and_stays_as_it_is() {
        let (place, mut rng) = (Place::new(), rng());
        let mut file = RingFile::create(place.path(), &key(), &mut rng).unwrap();
        file.create_key(&id(), &mut rng, 1).unwrap();
        let good = fs::read(place.path()).unwrap();
        let mut flipped = good.clone();
        *flipped.last_mut().unwrap() ^= 1;
        let cases = [
            vec![],
            b"{}".to_vec(),
            good[..good.len() - 1].to_vec(),
            flipped,
        ];
        for bad in cases {
            fs::write(place.path(), &bad).unwrap();
            let before = file.ring().to_bytes();
            assert!(RingFile::open(place.path(), &key()).is_err());
            assert!(file.refresh().is_err());
            assert!(
                file.create_key(&KeyId::new("b").unwrap(), &mut rng, 2)
                    .is_err()
            );
            assert!(file.rotate(&id(), &mut rng, 2).is_err());
            assert!(file.change_opener(&Key::raw([1; 32]), &mut rng).is_err());
            assert!(matches!(
                RingFile::create(place.path(), &key(), &mut rng),
                Err(RingFileError::Key(KeyError::Exists))
            ));
            assert_eq!(fs::read(place.path()).unwrap(), bad);
            assert_eq!(*file.ring().to_bytes(), *before);
        }
        fs::write(place.path(), &good).unwrap();
        file.rotate(&id(), &mut rng, 3).unwrap();
    }

    #[test]
    fn a_missing_file_is_not_found_and_none_is_made() {
        let (place, mut rng) = (Place::new(), rng());
        let missing = |outcome: Result<(), RingFileError>| {
            matches!(outcome, Err(RingFileError::Key(KeyError::NotFound)))
        };
        assert!(missing(RingFile::open(place.path(), &key()).map(drop)));
        assert_eq!(place.names(), [""; 0]);
        let mut file = RingFile::create(place.path(), &key(), &mut rng).unwrap();
        fs::remove_file(place.path()).unwrap();
        assert!(missing(file.create_key(&id(), &mut rng, 1).map(drop)));
        assert!(missing(file.refresh()));
        assert!(!place.path().exists());
    }

    #[test]
    fn a_wrong_key_opens_nothing_and_changes_nothing() {
        let (place, mut rng) = (Place::new(), rng());
        RingFile::create(place.path(), &key(), &mut rng).unwrap();
        let before = fs::read(place.path()).unwrap();
        assert!(matches!(
            RingFile::open(place.path(), &Key::raw([8; 32])),
            Err(RingFileError::WrongKey)
        ));
        assert_eq!(fs::read(place.path()).unwrap(), before);
    }

    #[test]
    fn a_change_that_the_ring_refuses_writes_nothing() {
        let (place, mut rng) = (Place::new(), rng());
        let mut file = RingFile::create(place.path(), &key(), &mut rng).unwrap();
        file.create_key(&id(), &mut rng, 1).unwrap();
        let before = fs::read(place.path()).unwrap();
        let unknown = KeyId::new("unknown").unwrap();
        assert!(matches!(
            file.rotate(&unknown, &mut rng, 2),
            Err(RingFileError::Ring(RingError::NotFound))
        ));
        let half = file.update(&mut rng, |ring, rng| {
            ring.rotate(&id(), rng, 3)?;
            ring.rotate(&unknown, rng, 3)
        });
        assert!(half.is_err());
        assert_eq!(file.current(&id()).unwrap().version(), KeyVersion::FIRST);
        assert_eq!(fs::read(place.path()).unwrap(), before);
    }

    #[test]
    fn another_key_opens_the_file_after_a_change_and_the_old_one_does_not() {
        let (place, mut rng) = (Place::new(), rng());
        let mut file = RingFile::create(place.path(), &key(), &mut rng).unwrap();
        file.create_key(&id(), &mut rng, 1).unwrap();
        let mut other = RingFile::open(place.path(), &key()).unwrap();
        let new = Key::raw([10; 32]);
        file.change_opener(&new, &mut rng).unwrap();
        file.rotate(&id(), &mut rng, 2).unwrap();
        assert!(RingFile::open(place.path(), &key()).is_err());
        let again = RingFile::open(place.path(), &new).unwrap();
        assert_eq!(*again.ring().to_bytes(), *file.ring().to_bytes());
        assert!(matches!(
            other.rotate(&id(), &mut rng, 3),
            Err(RingFileError::Replaced)
        ));
    }

    #[test]
    fn what_a_killed_writer_left_beside_the_file_is_in_nobodys_way() {
        let (place, mut rng) = (Place::new(), rng());
        let mut file = RingFile::create(place.path(), &key(), &mut rng).unwrap();
        fs::write(place.0.path().join("keys.tmp"), b"half").unwrap();
        file.create_key(&id(), &mut rng, 1).unwrap();
        let again = RingFile::open(place.path(), &key()).unwrap();
        again.current(&id()).unwrap();
        assert_eq!(place.names(), ["keys", "keys.lock"]);
    }

    #[cfg(unix)]
    #[test]
    fn a_ring_is_for_its_owner_only() {
        use std::os::unix::fs::{MetadataExt, PermissionsExt};
        let (place, mut rng) = (Place::new(), rng());
        let mut file = RingFile::create(place.path(), &key(), &mut rng).unwrap();
        let mode = |name| fs::metadata(place.0.path().join(name)).unwrap().mode() & 0o777;
        file.create_key(&id(), &mut rng, 1).unwrap();
        assert_eq!((mode("keys"), mode("keys.lock")), (0o600, 0o600));
        fs::set_permissions(place.path(), PermissionsExt::from_mode(0o644)).unwrap();
        assert!(matches!(
            RingFile::open(place.path(), &key()),
            Err(RingFileError::Key(KeyError::Permissions))
        ));
        assert!(file.rotate(&id(), &mut rng, 2).is_err());
    }

    #[cfg(unix)]
    #[test]
    fn the_blocks_of_the_file_before_are_overwritten_when_a_key_is_destroyed() {
        let (place, mut rng) = (Place::new(), rng());
        let mut file = RingFile::create(place.path(), &key(), &mut rng).unwrap();
        file.create_key(&id(), &mut rng, 1).unwrap();
        file.rotate(&id(), &mut rng, 2).unwrap();
        let mut before = fs::File::open(place.path()).unwrap();
        file.destroy(&id(), KeyVersion::FIRST, &mut rng, 3).unwrap();
        let mut content = Vec::new();
        std::io::Read::read_to_end(&mut before, &mut content).unwrap();
        assert!(content.len() > 64 && content.iter().all(|byte| *byte == 0));
    }

    #[cfg(unix)]
    #[test]
    fn a_copy_by_another_name_is_not_overwritten() {
        let (place, mut rng) = (Place::new(), rng());
        let mut file = RingFile::create(place.path(), &key(), &mut rng).unwrap();
        let copy = place.0.path().join("copy");
        fs::hard_link(place.path(), &copy).unwrap();
        let before = fs::read(&copy).unwrap();
        file.create_key(&id(), &mut rng, 1).unwrap();
        assert_eq!(fs::read(&copy).unwrap(), before);
        assert_ne!(fs::read(place.path()).unwrap(), before);
    }

    #[cfg(unix)]
    #[test]
    fn a_link_stays_a_link_and_the_file_that_it_leads_to_is_changed() {
        let (place, mut rng) = (Place::new(), rng());
        let real = place.0.path().join("real");
        RingFile::create(&real, &key(), &mut rng).unwrap();
        std::os::unix::fs::symlink(&real, place.path()).unwrap();
        let mut file = RingFile::open(place.path(), &key()).unwrap();
        file.create_key(&id(), &mut rng, 1).unwrap();
        assert!(fs::symlink_metadata(place.path()).unwrap().is_symlink());
        RingFile::open(&real, &key())
            .unwrap()
            .current(&id())
            .unwrap();
    }
}
