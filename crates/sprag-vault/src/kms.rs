//! Key services.

use zeroize::Zeroizing;

use crate::{DataKey, KmsError};

/// A service that holds keys and wraps data keys under them, named by ids. The calls block; who speaks with a service
/// otherwise reads [`Header::slots`](crate::Header::slots) first, asks, and implements this over the answers, and writes with
/// [`Recipient::wrapped`](crate::Recipient::wrapped).
pub trait Kms: Send + Sync {
    /// Wraps a data key under the service's key of this id: at most 65,535 bytes, which stand in the blob as they are.
    ///
    /// # Errors
    /// [`KmsError`]
    fn wrap_key(&self, id: &[u8], key: &DataKey) -> Result<Vec<u8>, KmsError>;

    /// Unwraps what stands in a slot. The bytes come from a blob that is not authenticated yet. What is no data key of that
    /// blob is passed over, whatever its length.
    ///
    /// # Errors
    /// [`KmsError::Unreachable`] makes a blob that no other slot opens [`OpenError::Unavailable`](crate::OpenError).
    fn unwrap_key(&self, id: &[u8], wrapped: &[u8]) -> Result<Zeroizing<Vec<u8>>, KmsError>;
}
