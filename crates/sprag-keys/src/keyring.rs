//! Keys in the keyring of the system.

use std::fmt;
use std::sync::Arc;

use keyring_core::{CredentialStore, Entry, Error};
use rand_core::CryptoRng;
use zeroize::Zeroizing;

use crate::{KeyId, KeySource, KeyVersion, SourceError, VersionedKey, encoding};

/// The keyring of the system: Keychain, Windows Credential Manager, or the Secret Service. An entry is a service and a
/// user; the user is the name of the key, the secret is its 32 bytes in the base64 of URLs, 44 characters.
///
/// That is the form of AEGIS, whose one key is [`AEGIS_KEY`](Self::AEGIS_KEY) of [`aegis`](Self::aegis). There is one
/// version of each, 1.
///
/// Which keyring it is the application chooses, once, with `keyring_core::set_default_store`: the crates that speak to
/// one are its own (`keyring` knows those of all desktops, and sets it at its first use). Before that, and on a machine
/// without a keyring, every call is [`SourceError::Unavailable`].
#[derive(Clone)]
pub struct KeyringSource {
    service: String,
    store: Option<Arc<CredentialStore>>,
}

impl KeyringSource {
    /// The name of the key of AEGIS.
    pub const AEGIS_KEY: &'static str = "aegis_master_key_v2";

    /// The entries of a service.
    #[must_use]
    pub fn new(service: impl Into<String>) -> Self {
        Self {
            service: service.into(),
            store: None,
        }
    }

    /// The entries of AEGIS: service `aegis_core`.
    #[must_use]
    pub fn aegis() -> Self {
        Self::new("aegis_core")
    }

    /// Makes an entry with a new key where there is none. Draws 32 bytes.
    ///
    /// Keyrings cannot do this in one step: of two programs that make the same entry at the same moment one loses its
    /// key, which it is told as [`SourceError::Conflict`] unless it looked too early.
    ///
    /// # Errors
    ///
    /// [`SourceError::Conflict`] if there is an entry, readable or not; it is left alone. [`SourceError`].
    pub fn create(
        &self,
        id: &KeyId,
        rng: &mut (impl CryptoRng + ?Sized),
    ) -> Result<VersionedKey, SourceError> {
        match self.read(id) {
            Err(SourceError::NotFound) => {}
            Ok(_) | Err(SourceError::Malformed) => return Err(SourceError::Conflict),
            Err(error) => return Err(error),
        }
        let mut key = Zeroizing::new([0; 32]);
        rng.fill_bytes(key.as_mut_slice());
        let text = encoding::to_base64_url(&key);
        let entry = self.entry(id)?;
        entry.set_password(&text).map_err(from_keyring)?;
        if *self.read(id)? != *key {
            return Err(SourceError::Conflict);
        }
        Ok(VersionedKey::new(id.clone(), KeyVersion::FIRST, &key))
    }

    fn read(&self, id: &KeyId) -> Result<Zeroizing<[u8; 32]>, SourceError> {
        let text = self.entry(id)?.get_password().map_err(from_keyring)?;
        encoding::base64_url(Zeroizing::new(text).as_bytes()).ok_or(SourceError::Malformed)
    }

    fn entry(&self, id: &KeyId) -> Result<Entry, SourceError> {
        let (service, user) = (self.service.as_str(), id.as_str());
        match &self.store {
            Some(store) => store.build(service, user, None),
            None => Entry::new(service, user),
        }
        .map_err(from_keyring)
    }
}

impl KeySource for KeyringSource {
    fn current(&self, id: &KeyId) -> Result<VersionedKey, SourceError> {
        let key = self.read(id)?;
        Ok(VersionedKey::new(id.clone(), KeyVersion::FIRST, &key))
    }

    fn by_version(&self, id: &KeyId, version: KeyVersion) -> Result<VersionedKey, SourceError> {
        let key = self.current(id)?;
        if version == KeyVersion::FIRST {
            Ok(key)
        } else {
            Err(SourceError::NotFound)
        }
    }
}

impl fmt::Debug for KeyringSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyringSource")
            .field("service", &self.service)
            .finish_non_exhaustive()
    }
}

/// The errors of the library may hold what was found: none of that goes on.
fn from_keyring(error: Error) -> SourceError {
    match error {
        Error::NoEntry => SourceError::NotFound,
        Error::NoStorageAccess(_) => SourceError::Denied,
        Error::BadEncoding(found) | Error::BadDataFormat(found, _) => {
            drop(Zeroizing::new(found));
            SourceError::Malformed
        }
        Error::Ambiguous(_) => SourceError::Malformed,
        _ => SourceError::Unavailable(None),
    }
}

#[cfg(test)]
mod tests {
    use rand_chacha::ChaCha20Rng;
    use rand_chacha::rand_core::SeedableRng;

    use super::*;

    /// A keyring in memory, the library's own double.
    fn keyring() -> KeyringSource {
        KeyringSource {
            store: Some(keyring_core::mock::Store::new().unwrap()),
            ..KeyringSource::aegis()
        }
    }

    fn aegis() -> KeyId {
        KeyId::new(KeyringSource::AEGIS_KEY).unwrap()
    }

    #[test]
    fn the_entry_that_aegis_wrote_is_read() {
        let keyring = keyring();
        let store = keyring.store.clone().unwrap();
        let entry = store
            .build("aegis_core", "aegis_master_key_v2", None)
            .unwrap();
        entry
            .set_password("Dx4tPEtaaXiHlqW0w9Lh8A8eLTxLWml4h5altMPS4fA=")
            .unwrap();
        let key = keyring.current(&aegis()).unwrap();
        let expected = "0f1e2d3c4b5a69788796a5b4c3d2e1f0".repeat(2);
        assert_eq!(hex::encode(key.as_bytes()), expected);
        let second = KeyVersion::new(2).unwrap();
        assert!(keyring.by_version(&aegis(), KeyVersion::FIRST).is_ok());
        assert!(matches!(
            keyring.by_version(&aegis(), second),
            Err(SourceError::NotFound)
        ));
    }

    #[test]
    fn without_a_keyring_nothing_is_found_and_nothing_is_made() {
        let keyring = KeyringSource::aegis();
        let mut rng = ChaCha20Rng::from_seed([1; 32]);
        assert!(keyring.current(&aegis()).unwrap_err().is_retryable());
        let made = keyring.create(&aegis(), &mut rng);
        assert!(made.unwrap_err().is_retryable());
    }

    #[test]
    fn asking_for_what_is_not_there_makes_no_entry() {
        let keyring = keyring();
        for _ in 0..2 {
            assert!(matches!(
                keyring.current(&aegis()),
                Err(SourceError::NotFound)
            ));
        }
    }

    #[test]
    fn an_entry_is_made_once_and_one_that_is_no_key_is_left_alone() {
        let keyring = keyring();
        let mut rng = ChaCha20Rng::from_seed([1; 32]);
        let key = keyring.create(&aegis(), &mut rng).unwrap();
        assert_eq!(
            keyring.current(&aegis()).unwrap().as_bytes(),
            key.as_bytes()
        );
        assert!(matches!(
            keyring.create(&aegis(), &mut rng),
            Err(SourceError::Conflict)
        ));
        let entry = keyring.entry(&aegis()).unwrap();
        for text in ["", "not a key", "c2hvcnQ="] {
            entry.set_password(text).unwrap();
            assert!(matches!(
                keyring.current(&aegis()),
                Err(SourceError::Malformed)
            ));
            assert!(matches!(
                keyring.create(&aegis(), &mut rng),
                Err(SourceError::Conflict)
            ));
            assert_eq!(entry.get_password().unwrap(), text);
        }
    }
}
