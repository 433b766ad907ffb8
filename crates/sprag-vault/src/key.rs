//! The data key and what is derived from it (`docs/VAULT.md`, *Keys*).

use std::fmt;

use rand_core::CryptoRng;
use sprag_crypto::{ChunkKey, hkdf, hmac};
use subtle::ConstantTimeEq;
use zeroize::{ZeroizeOnDrop, Zeroizing};

use crate::{Context, Suite};

const LABEL_ENC: &[u8] = b"evlt/v1 enc";
const LABEL_COMMIT: &[u8] = b"evlt/v1 commit";
const LABEL_HEADER: &[u8] = b"evlt/v1 header";
const PREFIX_SLOTS: &[u8] = b"slots";
const PREFIX_BODY: &[u8] = b"body";

/// The key of a blob, 32 bytes that nobody can guess. Each slot holds it for one recipient. Wiped when dropped.
#[derive(Clone)]
pub struct DataKey(Zeroizing<[u8; 32]>);

impl DataKey {
    /// Draws 32 bytes.
    #[must_use]
    pub fn generate(rng: &mut (impl CryptoRng + ?Sized)) -> Self {
        let mut key = Zeroizing::new([0; 32]);
        rng.fill_bytes(key.as_mut_slice());
        Self(key)
    }

    /// From its 32 bytes.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; 32]) -> Self {
        Self(Zeroizing::new(*bytes))
    }

    /// From a slice; `None` unless it has 32 bytes.
    #[must_use]
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        <&[u8; 32]>::try_from(bytes).ok().map(Self::from_bytes)
    }

    /// The 32 bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    pub(crate) fn is(&self, other: &Self) -> bool {
        self.0.ct_eq(other.as_bytes()).into()
    }

    fn derive(&self, salt: &[u8; 32], label: &[u8], suite: Suite) -> Zeroizing<[u8; 32]> {
        hkdf::<32>(salt, self.as_bytes(), &[label, &[suite as u8]])
    }

    /// What a blob shows of its key. No two keys have the same.
    pub(crate) fn commitment(&self, salt: &[u8; 32], suite: Suite) -> [u8; 32] {
        *self.derive(salt, LABEL_COMMIT, suite)
    }

    pub(crate) fn header_key(&self, salt: &[u8; 32], suite: Suite) -> HeaderKey {
        HeaderKey(self.derive(salt, LABEL_HEADER, suite))
    }

    pub(crate) fn chunk_key(&self, salt: &[u8; 32], suite: Suite) -> ChunkKey {
        ChunkKey::new(suite.aead(), &self.derive(salt, LABEL_ENC, suite))
    }
}

impl ZeroizeOnDrop for DataKey {}

impl fmt::Debug for DataKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DataKey").finish_non_exhaustive()
    }
}

/// `k_hdr`.
pub(crate) struct HeaderKey(Zeroizing<[u8; 32]>);

impl HeaderKey {
    /// The MAC over core, slots section (its length included) and context.
    pub(crate) fn mac(&self, core: &[u8; 80], section: &[u8], context: &Context) -> [u8; 32] {
        let (length, bytes) = context.parts();
        *hmac(
            self.0.as_slice(),
            &[PREFIX_SLOTS, core, section, &length, bytes],
        )
    }

    /// What every chunk has as associated data. The slots are left out, so that they may change.
    pub(crate) fn body_ad(&self, core: &[u8; 80], context: &Context) -> [u8; 32] {
        let (length, bytes) = context.parts();
        *hmac(self.0.as_slice(), &[PREFIX_BODY, core, &length, bytes])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wiped_on_drop<T: ZeroizeOnDrop>() {}

    #[test]
    fn keys_match_the_published_ones() {
        let key = DataKey::from_bytes(&[2; 32]);
        let suite = Suite::Aes256Gcm;
        assert_eq!(
            hex::encode(key.commitment(&[3; 32], suite)),
            "9c78783fbb4e5876379dfc073a21d0cb9cd99786605a92fd9fb5afe086b185e1"
        );
        assert_eq!(
            hex::encode(key.header_key(&[3; 32], suite).0.as_slice()),
            "30094bbd6796d964fbcf0f27cc9a029a3a773aad20223e69e0ba5c2695297ca1"
        );
        assert_eq!(
            hex::encode(key.derive(&[3; 32], LABEL_ENC, suite).as_slice()),
            "30fb6c4729080482df00e94ac6431bf0feb695bb1610d64e43bc64aa8ad2bb44"
        );
    }

    #[test]
    fn salt_suite_and_key_change_the_commitment() {
        let commitment =
            |key, salt, suite| DataKey::from_bytes(&[key; 32]).commitment(&[salt; 32], suite);
        let first = commitment(2, 3, Suite::Aes256Gcm);
        assert_ne!(first, commitment(1, 3, Suite::Aes256Gcm));
        assert_ne!(first, commitment(2, 4, Suite::Aes256Gcm));
        assert_ne!(first, commitment(2, 3, Suite::ChaCha20Poly1305));
    }

    #[test]
    fn data_keys_have_32_bytes_print_nothing_and_are_wiped() {
        assert!(DataKey::from_slice(&[1; 31]).is_none());
        assert!(DataKey::from_slice(&[1; 33]).is_none());
        let key = DataKey::from_slice(&[1; 32]).unwrap();
        assert_eq!(format!("{key:?}"), "DataKey { .. }");
        wiped_on_drop::<DataKey>();
    }
}
