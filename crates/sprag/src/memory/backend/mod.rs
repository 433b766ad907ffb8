//! Where blobs lie: anything that can put, get, list and delete.

use std::fmt;
use std::sync::Arc;

#[cfg(test)]
pub(crate) mod conformance;
#[cfg(not(target_family = "wasm"))]
mod folder;
#[cfg(all(feature = "http", not(target_family = "wasm")))]
mod http;
#[cfg(all(feature = "s3", not(target_family = "wasm")))]
mod s3;

#[cfg(not(target_family = "wasm"))]
pub use self::folder::FolderBackend;
#[cfg(all(feature = "http", not(target_family = "wasm")))]
pub use self::http::HttpBackend;
#[cfg(all(feature = "s3", not(target_family = "wasm")))]
pub use self::s3::{S3Backend, S3Options};

/// What a backend answers when it does not do what it was asked.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum BackendError {
    /// It could not be reached, or has a bad day: the same call may succeed later.
    #[error("the backend could not be reached")]
    Unavailable(#[source] Option<Arc<dyn std::error::Error + Send + Sync>>),
    /// It will not: no permission, no room, or something stands in the way that a repetition does not move.
    #[error("the backend refused")]
    Refused(#[source] Option<Arc<dyn std::error::Error + Send + Sync>>),
}

impl BackendError {
    /// It could not be reached, for this reason.
    pub fn unavailable(cause: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self::Unavailable(Some(Arc::new(cause)))
    }

    /// It refused, for this reason.
    pub fn refused(cause: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self::Refused(Some(Arc::new(cause)))
    }

    /// Whether the same call may succeed later.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Unavailable(_))
    }
}

/// One blob that a backend has.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct StoredBlob {
    /// Its name.
    pub name: String,
    /// When it was put there, in milliseconds since 1970, by the backend's clock; `None` if that is not known: then it is never
    /// swept away.
    pub put_at: Option<u64>,
}

impl StoredBlob {
    /// A blob of this name.
    #[must_use]
    pub fn new(name: impl Into<String>, put_at: Option<u64>) -> Self {
        Self {
            name: name.into(),
            put_at,
        }
    }
}

/// A place for blobs: a folder, a bucket, a service. It need not be trusted with anything but keeping them.
///
/// A name is 64 lower-case hexadecimal digits, the SHA-256 of the bytes, so one name never has two contents: to put what is there
/// already is a success that may do nothing. One place belongs to one account: what no log of the account names may be
/// removed from it ([`sweep`](super::EncryptedMemoryStore::sweep)).
///
/// Calls may block. They come from several threads at once.
pub trait MemoryBackend: Send + Sync + 'static {
    /// Keeps a blob. When it returns, the blob is there after a power cut, and [`get`](Self::get) gives it.
    ///
    /// # Errors
    /// [`BackendError`]; then it may be there or not.
    fn put(&self, name: &str, bytes: &[u8]) -> Result<(), BackendError>;

    /// Gives a blob, or `None` if there is none.
    ///
    /// # Errors
    /// [`BackendError`]
    fn get(&self, name: &str) -> Result<Option<Vec<u8>>, BackendError>;

    /// Blobs in the order of their names, after the name `after`, or from the first: some, not necessarily all. An empty page
    /// is the end.
    ///
    /// # Errors
    /// [`BackendError`]
    fn list(&self, after: Option<&str>) -> Result<Vec<StoredBlob>, BackendError>;

    /// Removes a blob. There is none: that is a success.
    ///
    /// # Errors
    /// [`BackendError`]
    fn delete(&self, name: &str) -> Result<(), BackendError>;
}

impl<B: MemoryBackend + ?Sized> MemoryBackend for Arc<B> {
    fn put(&self, name: &str, bytes: &[u8]) -> Result<(), BackendError> {
        (**self).put(name, bytes)
    }

    fn get(&self, name: &str) -> Result<Option<Vec<u8>>, BackendError> {
        (**self).get(name)
    }

    fn list(&self, after: Option<&str>) -> Result<Vec<StoredBlob>, BackendError> {
        (**self).list(after)
    }

    fn delete(&self, name: &str) -> Result<(), BackendError> {
        (**self).delete(name)
    }
}

impl fmt::Debug for dyn MemoryBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MemoryBackend")
    }
}

/// The longest blob, in bytes: 64 MiB.
#[cfg(not(target_family = "wasm"))]
pub(crate) const MAX_BLOB: usize = 64 << 20;

/// Whether a text can be the name of a blob. Nothing else is ever made into a path.
pub(crate) fn is_blob_name(name: &str) -> bool {
    name.len() == 64 && name.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// The name of a blob of this hash.
pub(crate) fn blob_name(hash: &[u8; 32]) -> String {
    const DIGITS: [char; 16] = [
        '0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f',
    ];
    let digit = |value: u8| DIGITS.get(usize::from(value & 15)).copied().unwrap_or('0');
    let bytes = hash.iter();
    bytes
        .flat_map(|byte| [digit(byte >> 4), digit(*byte)])
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_64_lower_case_digits_and_nothing_else() {
        let name = blob_name(&[0xa7; 32]);
        assert_eq!(name, "a7".repeat(32));
        assert!(is_blob_name(&name));
        for wrong in [
            "",
            &name[1..],
            &name.to_uppercase(),
            &format!("{name}0"),
            &format!("../{}", &name[3..]),
            &format!("{}é", &name[2..]),
        ] {
            assert!(!is_blob_name(wrong), "{wrong}");
        }
    }
}
