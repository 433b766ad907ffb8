//! An anchor in the keyring of the operating system. The only file that knows it.

use ::keyring_core::{Entry, Error};

use crate::anchor::{Anchor, AnchorError, AnchorRecord};

/// An anchor in the keyring of the operating system, as one secret.
///
/// Which keyring is the application's choice: it sets a default store of the crate `keyring-core` once, when it starts
/// (the crate `keyring` brings those of the usual systems). Until it does, and while the keyring is locked or does not
/// answer, the anchor is out of reach. A keyring that forgets at the end of a session or at a restart (the one of the
/// Linux kernel) is no anchor: the next open would find it gone.
#[derive(Debug, Clone)]
pub struct KeyringAnchor {
    service: String,
    name: String,
}

impl KeyringAnchor {
    /// The anchor of this name among those of an application. One name serves one profile.
    #[must_use]
    pub fn new(service: &str, name: &str) -> Self {
        Self {
            service: service.to_owned(),
            name: name.to_owned(),
        }
    }

    fn entry(&self) -> Result<Entry, AnchorError> {
        Entry::new(&self.service, &self.name).map_err(AnchorError::unreachable)
    }
}

impl Anchor for KeyringAnchor {
    fn read(&self) -> Result<Option<AnchorRecord>, AnchorError> {
        match self.entry()?.get_secret() {
            Ok(bytes) => AnchorRecord::from_bytes(&bytes).map(Some),
            Err(Error::NoEntry) => Ok(None),
            Err(error) => Err(AnchorError::unreachable(error)),
        }
    }

    fn write(&self, record: &AnchorRecord) -> Result<(), AnchorError> {
        let entry = self.entry()?;
        entry
            .set_secret(record.as_bytes())
            .map_err(AnchorError::unreachable)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use ::keyring_core::mock;
    use rand_chacha::ChaCha20Rng;
    use rand_chacha::rand_core::SeedableRng;

    use super::*;
    use crate::error::{Rollback, StoreError};
    use crate::manifest::StoreKeys;
    use crate::memory::MemoryBackend;
    use crate::store::{Standing, Store};

    /// One test, because the default store is the process's.
    #[test]
    fn keyring_guards_a_store_and_is_out_of_reach_until_it_answers() {
        let anchor = KeyringAnchor::new("sprag", "alice");
        assert!(matches!(anchor.read(), Err(AnchorError::Unreachable(_))));
        ::keyring_core::set_default_store(mock::Store::new().unwrap());
        assert!(anchor.read().unwrap().is_none());

        let mut rng = ChaCha20Rng::from_seed([1; 32]);
        let keys = StoreKeys::generate(&mut rng);
        let store = Store::create_over(MemoryBackend::new(), &keys, rng).unwrap();
        assert!(matches!(
            store.guard(Arc::new(anchor.clone())).unwrap(),
            Standing::InReach { .. }
        ));
        assert_eq!(anchor.read().unwrap().unwrap().store_id(), keys.store_id());

        let entry = anchor.entry().unwrap();
        let credential: &mock::Cred = entry.as_any().downcast_ref().unwrap();
        credential.set_error(Error::NoStorageAccess("locked".into()));
        assert_eq!(store.check_anchor().unwrap(), Standing::OutOfReach);
        assert!(matches!(
            store.check_anchor().unwrap(),
            Standing::InReach { .. }
        ));
        entry.delete_credential().unwrap();
        assert!(matches!(
            store.check_anchor(),
            Err(StoreError::RolledBack(Rollback::AnchorGone))
        ));
        assert!(store.close().is_err());

        entry.set_secret(b"somebody's password").unwrap();
        let other = Store::in_memory(ChaCha20Rng::from_seed([2; 32])).unwrap();
        assert!(matches!(
            other.guard(Arc::new(anchor.clone())),
            Err(StoreError::ForeignAnchor)
        ));
        assert_eq!(entry.get_secret().unwrap(), b"somebody's password");
    }
}
