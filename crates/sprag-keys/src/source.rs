//! What keys by name and version are had from.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

use zeroize::Zeroizing;

use crate::{KeyId, KeyVersion};

/// Where keys are kept under a name and a version. Asking never makes a key.
///
/// Implemented by [`KeyRing`](crate::KeyRing), the environment, files of older programs, and, with their features, the keyring of
/// the system and HashiCorp Vault.
pub trait KeySource: Send + Sync {
    /// The version to encrypt with.
    ///
    /// # Errors
    ///
    /// [`SourceError`]. [`SourceError::NoCurrent`] if all versions are retired.
    fn current(&self, id: &KeyId) -> Result<VersionedKey, SourceError>;

    /// One version, to decrypt with.
    ///
    /// # Errors
    ///
    /// [`SourceError`]. [`SourceError::NotFound`] for a version that never was, [`SourceError::Destroyed`] for one that
    /// is gone.
    fn by_version(&self, id: &KeyId, version: KeyVersion) -> Result<VersionedKey, SourceError>;
}

impl<S: KeySource + ?Sized> KeySource for &S {
    fn current(&self, id: &KeyId) -> Result<VersionedKey, SourceError> {
        (**self).current(id)
    }

    fn by_version(&self, id: &KeyId, version: KeyVersion) -> Result<VersionedKey, SourceError> {
        (**self).by_version(id, version)
    }
}

impl<E: Envelope + ?Sized> Envelope for &E {
    fn generate(&self) -> Result<DataKey, SourceError> {
        (**self).generate()
    }

    fn unwrap(&self, wrapped: &[u8]) -> Result<Zeroizing<[u8; 32]>, SourceError> {
        (**self).unwrap(wrapped)
    }

    fn wrap(&self, key: &[u8; 32]) -> Result<Vec<u8>, SourceError> {
        (**self).wrap(key)
    }
}

/// A key with its name and version: 32 bytes, wiped when dropped.
#[derive(Clone)]
pub struct VersionedKey {
    id: KeyId,
    version: KeyVersion,
    key: Box<Zeroizing<[u8; 32]>>,
}

impl VersionedKey {
    /// A key that came from somewhere else.
    #[must_use]
    pub fn new(id: KeyId, version: KeyVersion, key: &[u8; 32]) -> Self {
        let key = Box::new(Zeroizing::new(*key));
        Self { id, version, key }
    }

    /// Its name.
    #[must_use]
    pub fn id(&self) -> &KeyId {
        &self.id
    }

    /// Its version.
    #[must_use]
    pub fn version(&self) -> KeyVersion {
        self.version
    }

    /// The key.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.key
    }
}

impl fmt::Debug for VersionedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VersionedKey")
            .field("id", &self.id)
            .field("version", &self.version)
            .finish_non_exhaustive()
    }
}

/// A service that wraps keys and never gives out its own: AWS KMS, say. Whoever seals something with the key of a
/// [`DataKey`] keeps the wrapped form beside it, or nobody will read it again.
pub trait Envelope: Send + Sync {
    /// A new random key, and the same key wrapped.
    ///
    /// # Errors
    ///
    /// [`SourceError`].
    fn generate(&self) -> Result<DataKey, SourceError>;

    /// The key in what [`generate`](Self::generate) wrapped.
    ///
    /// # Errors
    ///
    /// [`SourceError`]; [`SourceError::Malformed`] for what this service did not wrap, or wrapped in another context.
    fn unwrap(&self, wrapped: &[u8]) -> Result<Zeroizing<[u8; 32]>, SourceError>;

    /// Wraps a key that was made elsewhere, so that [`unwrap`](Self::unwrap) gives it: for what has other recipients as well.
    ///
    /// # Errors
    ///
    /// [`SourceError`]; [`SourceError::Unsupported`] unless the service overrides this.
    fn wrap(&self, key: &[u8; 32]) -> Result<Vec<u8>, SourceError> {
        let _ = key;
        Err(SourceError::Unsupported)
    }
}

/// A key and its wrapped form.
pub struct DataKey {
    key: Zeroizing<[u8; 32]>,
    wrapped: Vec<u8>,
}

impl DataKey {
    /// The most bytes of a wrapped key: what AWS KMS allows itself.
    pub const MAX_WRAPPED: usize = 6_144;

    /// A key with its wrapped form.
    ///
    /// # Errors
    ///
    /// [`SourceError::Malformed`] if the wrapped form is empty, longer than [`MAX_WRAPPED`](Self::MAX_WRAPPED), or shows
    /// the key.
    pub fn new(key: Zeroizing<[u8; 32]>, wrapped: Vec<u8>) -> Result<Self, SourceError> {
        let shown = wrapped.windows(32).any(|part| part == key.as_slice());
        if wrapped.is_empty() || wrapped.len() > Self::MAX_WRAPPED || shown {
            return Err(SourceError::Malformed);
        }
        Ok(Self { key, wrapped })
    }

    /// The key.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.key
    }

    /// The wrapped key, to be kept. Not a secret.
    #[must_use]
    pub fn wrapped(&self) -> &[u8] {
        &self.wrapped
    }

    /// The wrapped key alone.
    #[must_use]
    pub fn into_wrapped(self) -> Vec<u8> {
        self.wrapped
    }
}

impl fmt::Debug for DataKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DataKey").finish_non_exhaustive()
    }
}

/// Why a key was not had by name and version.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum SourceError {
    /// The name is not one of a key: see [`KeyId`].
    #[error("not a name of a key")]
    BadId,
    /// There is no key of this name, or never was this version. None was made.
    #[error("no such key")]
    NotFound,
    /// There are keys of this name, but none to encrypt with: rotate.
    #[error("key has no current version")]
    NoCurrent,
    /// This version was destroyed. What it sealed is gone.
    #[error("version of the key was destroyed")]
    Destroyed,
    /// This version is switched off where it is kept, and can be switched on again there.
    #[error("version of the key is disabled where it is kept")]
    Disabled,
    /// The place where the key is kept was not reached, or could not answer now. Try again later.
    #[error("key source cannot be reached")]
    Unavailable(#[source] Option<Arc<dyn Error + Send + Sync>>),
    /// The place where the key is kept refuses us: a token, a signature, a permission.
    #[error("key source refused access")]
    Denied,
    /// A file of keys can be read by others: `chmod 600` it, and think about who may have read it.
    #[error("file of keys can be read by others")]
    Permissions,
    /// The source cannot do this.
    #[error("key source cannot do this")]
    Unsupported,
    /// What was found is not a key of 32 bytes in the form that the source has, or not an answer to what was asked.
    #[error("key source gave something other than a key")]
    Malformed,
    /// The current version cannot be destroyed: rotate first.
    #[error("version of the key is still current")]
    StillCurrent,
    /// Another wrote meanwhile. Nothing was changed; look again.
    #[error("key was changed by another meanwhile")]
    Conflict,
    /// The address is not one to send secrets to: `https://`, or `http://` to this machine itself.
    #[error("address of the key source is not acceptable")]
    Address,
}

impl SourceError {
    /// Whether the same call can succeed later without anybody doing something.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Unavailable(_))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_no_key() {
        let id = KeyId::new("main").unwrap();
        let key = VersionedKey::new(id, KeyVersion::FIRST, &[7; 32]);
        assert_eq!(
            format!("{key:?}"),
            r#"VersionedKey { id: KeyId("main"), version: KeyVersion(1), .. }"#
        );
        let data = DataKey::new(Zeroizing::new([7; 32]), vec![1]).unwrap();
        assert_eq!(format!("{data:?}"), "DataKey { .. }");
    }

    #[test]
    fn a_wrapped_key_that_shows_the_key_or_has_no_fit_length_is_none() {
        let of = |wrapped: Vec<u8>| DataKey::new(Zeroizing::new([7; 32]), wrapped);
        assert!(of(vec![1; 6_144]).is_ok());
        for wrapped in [vec![], vec![1; 6_145], [[9; 32], [7; 32]].concat()] {
            assert!(matches!(of(wrapped), Err(SourceError::Malformed)));
        }
    }
}
