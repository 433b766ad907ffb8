//! Where a key comes from.

use std::fmt;
#[cfg(not(target_arch = "wasm32"))]
use std::path::PathBuf;

use rand_core::CryptoRng;
use sprag_crypto::Argon2Params;
use zeroize::Zeroizing;

use crate::slot::Secret;
use crate::{KeyError, KeySlot, UnlockKey};
#[cfg(not(target_arch = "wasm32"))]
use crate::{encoding, sys};

/// What opens a store: the secret itself, or the place to find it at. Files and the environment are looked at when the
/// key is used, not before.
///
/// A key of 32 bytes opens the same stores whether it is given raw, in a file or in the environment.
#[derive(Clone)]
pub struct Key(Source);

#[derive(Clone)]
enum Source {
    Raw(Zeroizing<[u8; 32]>),
    Passphrase(Zeroizing<Vec<u8>>, Argon2Params),
    #[cfg(not(target_arch = "wasm32"))]
    File(PathBuf),
    #[cfg(not(target_arch = "wasm32"))]
    Env(String),
}

impl Key {
    /// 32 bytes that nobody can guess: from a key store of the platform, say.
    #[must_use]
    pub fn raw(key: [u8; 32]) -> Self {
        Self(Source::Raw(Zeroizing::new(key)))
    }

    /// A passphrase, stretched with Argon2id at [`Argon2Params::DEFAULT`].
    #[must_use]
    pub fn passphrase(passphrase: &str) -> Self {
        Self::passphrase_with(passphrase, Argon2Params::DEFAULT)
    }

    /// A passphrase, stretched with Argon2id. The parameters are those of new slots; an old slot has its own.
    #[must_use]
    pub fn passphrase_with(passphrase: &str, params: Argon2Params) -> Self {
        Self(Source::Passphrase(
            Zeroizing::new(passphrase.as_bytes().to_vec()),
            params,
        ))
    }

    /// A file that holds 32 bytes, raw or as 64 hexadecimal digits, and that on Unix only its owner may read.
    #[cfg(not(target_arch = "wasm32"))]
    #[must_use]
    pub fn file(path: impl Into<PathBuf>) -> Self {
        Self(Source::File(path.into()))
    }

    /// Makes a key file with 32 random bytes as hexadecimal digits, readable by its owner only. Draws 32 bytes.
    ///
    /// # Errors
    ///
    /// [`KeyError::Exists`] if there is a file, which is left alone; [`KeyError::Io`].
    #[cfg(not(target_arch = "wasm32"))]
    pub fn create_file(
        path: impl Into<PathBuf>,
        rng: &mut (impl CryptoRng + ?Sized),
    ) -> Result<Self, KeyError> {
        let path = path.into();
        let mut key = Zeroizing::new([0; 32]);
        rng.fill_bytes(key.as_mut_slice());
        let mut text = Zeroizing::new([b'\n'; 65]);
        if let Some(digits) = text.first_chunk_mut::<64>() {
            hex::encode_to_slice(key.as_slice(), digits).map_err(|_| KeyError::Malformed)?;
        }
        sys::create_key_file(&path, text.as_slice())?;
        Ok(Self::file(path))
    }

    /// An environment variable that holds 32 bytes as 64 hexadecimal digits or in base64. Others who may look at this
    /// process, and its children, can read it too.
    #[cfg(not(target_arch = "wasm32"))]
    #[must_use]
    pub fn env(name: impl Into<String>) -> Self {
        Self(Source::Env(name.into()))
    }

    /// A fresh slot for this key, and the key that it gives. Draws 16 bytes.
    ///
    /// # Errors
    ///
    /// Those of the source: see [`KeyError`].
    pub fn new_slot(
        &self,
        rng: &mut (impl CryptoRng + ?Sized),
    ) -> Result<(KeySlot, UnlockKey), KeyError> {
        let secret = self.secret()?;
        let mut salt = [0; 16];
        rng.fill_bytes(&mut salt);
        let slot = KeySlot::new(&secret, salt);
        let unlock = slot.unlock(&secret)?;
        Ok((slot, unlock))
    }

    /// The key that this secret gives in a slot. A wrong secret gives another key, which will open nothing.
    ///
    /// # Errors
    ///
    /// [`KeyError::WrongKind`] if the slot is for another kind of key, and those of the source.
    pub fn unlock(&self, slot: &KeySlot) -> Result<UnlockKey, KeyError> {
        slot.unlock(&self.secret()?)
    }

    fn secret(&self) -> Result<Secret, KeyError> {
        Ok(match &self.0 {
            Source::Raw(key) => Secret::Raw(key.clone()),
            Source::Passphrase(passphrase, params) => {
                Secret::Passphrase(passphrase.clone(), *params)
            }
            #[cfg(not(target_arch = "wasm32"))]
            Source::File(path) => {
                let content = sys::read_key_file(path)?;
                let key = encoding::raw(&content).or_else(|| encoding::hex(&content));
                Secret::Raw(key.ok_or(KeyError::Malformed)?)
            }
            #[cfg(not(target_arch = "wasm32"))]
            Source::Env(name) => {
                let content = sys::read_env(name)?;
                let key = encoding::hex(&content).or_else(|| encoding::base64(&content));
                Secret::Raw(key.ok_or(KeyError::Malformed)?)
            }
        })
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use rand_chacha::ChaCha20Rng;
    use rand_chacha::rand_core::SeedableRng;

    use super::*;

    fn rng() -> ChaCha20Rng {
        ChaCha20Rng::from_seed([3; 32])
    }

    fn quick(passphrase: &str) -> Key {
        Key::passphrase_with(passphrase, Argon2Params::LEAST)
    }

    fn same(key: &Key, other: &Key) -> bool {
        let (slot, unlock) = key.new_slot(&mut rng()).unwrap();
        let slot = KeySlot::from_bytes(&slot.to_bytes()).unwrap();
        *unlock.as_bytes() == *other.unlock(&slot).unwrap().as_bytes()
    }

    #[test]
    fn the_same_secret_unlocks_and_another_does_not() {
        assert!(same(&Key::raw([1; 32]), &Key::raw([1; 32])));
        assert!(!same(&Key::raw([1; 32]), &Key::raw([2; 32])));
        assert!(same(
            &quick("correct horse"),
            &Key::passphrase("correct horse")
        ));
        assert!(!same(
            &quick("correct horse"),
            &Key::passphrase("correct horse ")
        ));
    }

    #[test]
    fn two_slots_of_one_key_give_two_keys() {
        let mut rng = rng();
        let key = Key::raw([1; 32]);
        let (_, first) = key.new_slot(&mut rng).unwrap();
        let (_, second) = key.new_slot(&mut rng).unwrap();
        assert_ne!(first.as_bytes(), second.as_bytes());
        assert_ne!(first.as_bytes(), &[1; 32]);
    }

    #[test]
    fn slot_of_another_kind_is_told_apart_from_a_wrong_key() {
        let (slot, _) = quick("one").new_slot(&mut rng()).unwrap();
        assert!(matches!(
            Key::raw([1; 32]).unlock(&slot),
            Err(KeyError::WrongKind)
        ));
        let (slot, _) = Key::raw([1; 32]).new_slot(&mut rng()).unwrap();
        assert!(matches!(
            quick("one").unlock(&slot),
            Err(KeyError::WrongKind)
        ));
    }

    #[test]
    fn empty_passphrase_is_refused() {
        assert!(matches!(
            quick("").new_slot(&mut rng()),
            Err(KeyError::EmptyPassphrase)
        ));
    }

    #[test]
    fn forged_parameters_are_refused_before_they_cost_anything() {
        let (slot, _) = quick("one").new_slot(&mut rng()).unwrap();
        for (at, value) in [
            (17, u32::MAX),
            (17, 0),
            (21, u32::MAX),
            (21, 0),
            (25, u32::MAX),
            (25, 0),
        ] {
            let mut bytes = slot.to_bytes();
            bytes[at..at + 4].copy_from_slice(&value.to_be_bytes());
            assert!(
                matches!(KeySlot::from_bytes(&bytes), Err(KeyError::Parameters)),
                "{at} {value}"
            );
        }
        for kind in [0, 3, 255] {
            let mut bytes = slot.to_bytes();
            bytes[0] = kind;
            assert!(matches!(
                KeySlot::from_bytes(&bytes),
                Err(KeyError::UnknownSlot)
            ));
        }
        let mut bytes = slot.to_bytes();
        bytes[0] = 1;
        assert!(matches!(
            KeySlot::from_bytes(&bytes),
            Err(KeyError::Parameters)
        ));
    }

    #[test]
    fn created_key_file_opens_and_is_never_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        let key = Key::create_file(&path, &mut rng()).unwrap();
        assert!(same(&key, &Key::file(&path)));
        let text = fs::read(&path).unwrap();
        assert!(matches!(
            Key::create_file(&path, &mut rng()),
            Err(KeyError::Exists)
        ));
        assert_eq!(fs::read(&path).unwrap(), text);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(
                fs::metadata(&path).unwrap().permissions().mode() & 0o777,
                0o600
            );
        }
    }

    #[test]
    fn key_file_may_be_raw_or_hexadecimal_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        let write = |content: &[u8]| {
            fs::write(&path, content).unwrap();
            #[cfg(unix)]
            fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600))
                .unwrap();
            Key::file(&path)
                .new_slot(&mut rng())
                .map(|_| same(&Key::file(&path), &Key::raw([0xab; 32])))
        };
        assert!(write(&[0xab; 32]).unwrap());
        assert!(write("ab".repeat(32).as_bytes()).unwrap());
        assert!(write(format!("{}\n", "AB".repeat(32)).as_bytes()).unwrap());
        let digits = |digits: &str, count| digits.repeat(count).into_bytes();
        let wrong = [
            vec![],
            vec![0xab; 31],
            vec![0xab; 33],
            digits("ab", 31),
            digits("xy", 32),
            vec![b'a'; 4096],
        ];
        for content in wrong {
            assert!(
                matches!(write(&content), Err(KeyError::Malformed)),
                "{}",
                content.len()
            );
        }
    }

    #[cfg(unix)]
    #[test]
    fn key_file_that_others_may_read_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        let key = Key::create_file(&path, &mut rng()).unwrap();
        for mode in [0o640, 0o604, 0o620, 0o601, 0o666] {
            fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
            assert!(
                matches!(key.new_slot(&mut rng()), Err(KeyError::Permissions)),
                "{mode:o}"
            );
        }
        fs::set_permissions(&path, PermissionsExt::from_mode(0o400)).unwrap();
        key.new_slot(&mut rng()).unwrap();
    }

    #[test]
    fn missing_file_and_variable_are_not_found_and_a_directory_is_no_key() {
        let dir = tempfile::tempdir().unwrap();
        let missing = Key::file(dir.path().join("key"));
        assert!(matches!(
            missing.new_slot(&mut rng()),
            Err(KeyError::NotFound)
        ));
        assert!(Key::file(dir.path()).new_slot(&mut rng()).is_err());
        assert!(matches!(
            Key::env("SPRAG_NO_SUCH_KEY").new_slot(&mut rng()),
            Err(KeyError::NotFound)
        ));
    }

    #[test]
    fn a_variable_that_holds_no_key_is_malformed() {
        // Cargo sets this one for tests; it is no key.
        assert!(matches!(
            Key::env("CARGO_MANIFEST_DIR").new_slot(&mut rng()),
            Err(KeyError::Malformed)
        ));
    }

    #[test]
    fn debug_shows_neither_secret_nor_place() {
        assert_eq!(format!("{:?}", Key::passphrase("hello")), "Key { .. }");
        let (slot, unlock) = Key::raw([1; 32]).new_slot(&mut rng()).unwrap();
        assert_eq!(
            format!("{slot:?} {unlock:?}"),
            "KeySlot { .. } UnlockKey { .. }"
        );
    }
}
