//! A prekey bundle whose signatures hold ("The protocol", §3, 1).

use sprag_crypto::{BadSignature, IdentityKey};
use sprag_wire::{DeviceAddress, KemPreKey, OneTimePreKey, SignedPreKey, UnverifiedPreKeyBundle};

use crate::prekeys::{kem_message, signed_message};

/// A bundle whose prekeys its identity key has signed. That this key is the device's own is for the device list to say.
#[derive(Debug, Clone)]
pub struct PreKeyBundle(UnverifiedPreKeyBundle);

impl PreKeyBundle {
    /// The only constructor: verifies both signatures, also where the KEM prekey will not be used.
    ///
    /// # Errors
    /// [`BadSignature`].
    pub fn verify(bundle: UnverifiedPreKeyBundle) -> Result<Self, BadSignature> {
        let key = bundle.identity_key;
        key.verify(
            &signed_message(&bundle.signed_pre_key),
            &bundle.signed_pre_key.signature,
        )?;
        key.verify(
            &kem_message(&bundle.kem_pre_key),
            &bundle.kem_pre_key.signature,
        )?;
        Ok(Self(bundle))
    }

    /// The device.
    #[must_use]
    pub fn address(&self) -> &DeviceAddress {
        &self.0.address
    }

    /// Its identity key.
    #[must_use]
    pub fn identity_key(&self) -> &IdentityKey {
        &self.0.identity_key
    }

    /// Its signed prekey.
    #[must_use]
    pub fn signed_pre_key(&self) -> &SignedPreKey {
        &self.0.signed_pre_key
    }

    /// A one-time prekey, if the server had one.
    #[must_use]
    pub fn one_time_pre_key(&self) -> Option<&OneTimePreKey> {
        self.0.one_time_pre_key.as_ref()
    }

    /// Its KEM prekey.
    #[must_use]
    pub fn kem_pre_key(&self) -> &KemPreKey {
        &self.0.kem_pre_key
    }
}
