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

#[cfg(test)]
mod tests {
    use sprag_crypto::Features;
    use sprag_wire::{KemKind, KemPreKeyId, SignedPreKeyId};

    use super::*;
    use crate::testing::Party;

    fn refused(change: impl FnOnce(&mut UnverifiedPreKeyBundle)) -> bool {
        let mut bundle = Party::new("bob", Features::NONE, 1).bundle();
        change(&mut bundle);
        PreKeyBundle::verify(bundle).is_err()
    }

    #[test]
    fn a_bundle_keeps_what_was_verified() {
        let bob = Party::new("bob", Features::ACCEPTS_X3DH, 1);
        let bundle = PreKeyBundle::verify(bob.bundle()).unwrap();
        assert_eq!(bundle.address(), &bob.address);
        assert_eq!(bundle.identity_key(), bob.identity.public());
        assert_eq!(bundle.signed_pre_key(), &bob.signed.public());
        assert_eq!(bundle.kem_pre_key(), &bob.kem.public());
        let one_time = bob.one_time.map(|key| key.public());
        assert_eq!(bundle.one_time_pre_key(), one_time.as_ref());
    }

    #[test]
    fn a_one_time_prekey_needs_no_signature() {
        let other = Party::new("eve", Features::NONE, 2).bundle();
        assert!(!refused(|bundle| bundle.one_time_pre_key = None));
        assert!(!refused(
            |bundle| bundle.one_time_pre_key = other.one_time_pre_key
        ));
    }

    #[test]
    fn whatever_is_signed_cannot_be_changed() {
        let other = Party::new("eve", Features::NONE, 2).bundle();
        assert!(refused(|bundle| bundle.identity_key = other.identity_key));
        assert!(refused(
            |bundle| bundle.signed_pre_key = other.signed_pre_key.clone()
        ));
        assert!(refused(
            |bundle| bundle.signed_pre_key.id = SignedPreKeyId::new(4).unwrap()
        ));
        assert!(refused(
            |bundle| bundle.signed_pre_key.features = Features::ACCEPTS_X3DH
        ));
        assert!(refused(
            |bundle| bundle.signed_pre_key.public_key = other.signed_pre_key.public_key
        ));
        assert!(refused(|bundle| bundle.signed_pre_key.signature[0] ^= 1));
        assert!(refused(
            |bundle| bundle.kem_pre_key = other.kem_pre_key.clone()
        ));
        assert!(refused(
            |bundle| bundle.kem_pre_key.id = KemPreKeyId::new(6).unwrap()
        ));
        assert!(refused(
            |bundle| bundle.kem_pre_key.kind = KemKind::LastResort
        ));
        assert!(refused(
            |bundle| bundle.kem_pre_key.public_key = other.kem_pre_key.public_key.clone()
        ));
        assert!(refused(|bundle| bundle.kem_pre_key.signature[63] ^= 0x80));
        assert!(refused(
            |bundle| bundle.kem_pre_key.signature = bundle.signed_pre_key.signature
        ));
    }
}
