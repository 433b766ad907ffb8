//! Sealing to somebody's public key: HPKE (RFC 9180), base mode, DHKEM(X25519, HKDF-SHA-256), HKDF-SHA-256,
//! ChaCha20-Poly1305, one message per encapsulation.

use std::fmt;

use hpke::aead::{AeadTag, ChaCha20Poly1305};
use hpke::kdf::HkdfSha256;
use hpke::kem::X25519HkdfSha256;
use hpke::{Deserializable, Kem, OpModeR, OpModeS, Serializable};
use rand_core::CryptoRng;
use zeroize::{ZeroizeOnDrop, Zeroizing};

use crate::aead::TAG;
use crate::{InvalidKey, OpenError};

/// Bytes that sealing to a recipient adds: the encapsulated key and a tag.
pub const RECIPIENT_OVERHEAD: usize = 32 + TAG;

type Private = <X25519HkdfSha256 as Kem>::PrivateKey;
type Public = <X25519HkdfSha256 as Kem>::PublicKey;
type Encapsulated = <X25519HkdfSha256 as Kem>::EncappedKey;

/// Whom something is sealed to: the u-coordinate of an X25519 key, 32 bytes. Any bytes parse; checks happen at use.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecipientKey([u8; 32]);

impl RecipientKey {
    /// From its bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Its bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Seals `text` to this key: `enc ‖ ciphertext ‖ tag`, 48 bytes longer. Draws 32 bytes.
    ///
    /// # Errors
    /// [`InvalidKey`]: the agreement is all zero, as for points of low order.
    pub fn seal(
        &self,
        info: &[u8],
        aad: &[u8],
        text: &[u8],
        rng: &mut (impl CryptoRng + ?Sized),
    ) -> Result<Vec<u8>, InvalidKey> {
        let public = Public::from_bytes(&self.0).map_err(|_| InvalidKey)?;
        let mut ciphertext = Zeroizing::new(text.to_vec());
        let mut rng = rng;
        let (encapsulated, tag) = hpke::single_shot_seal_inout_detached_with_rng::<
            ChaCha20Poly1305,
            HkdfSha256,
            X25519HkdfSha256,
        >(
            &OpModeS::Base,
            &public,
            info,
            ciphertext.as_mut_slice().into(),
            aad,
            &mut rng,
        )
        .map_err(|_| InvalidKey)?;
        let mut sealed = Vec::with_capacity(RECIPIENT_OVERHEAD.saturating_add(text.len()));
        sealed.extend_from_slice(&encapsulated.to_bytes());
        sealed.extend_from_slice(&ciphertext);
        sealed.extend_from_slice(&tag.to_bytes());
        Ok(sealed)
    }
}

impl fmt::Debug for RecipientKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RecipientKey(")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
        write!(f, ")")
    }
}

/// The private half of a [`RecipientKey`]: 32 bytes, wiped when dropped.
#[derive(Clone)]
pub struct RecipientPrivateKey(Private);

impl fmt::Debug for RecipientPrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecipientPrivateKey")
            .finish_non_exhaustive()
    }
}

impl ZeroizeOnDrop for RecipientPrivateKey {}

impl RecipientPrivateKey {
    /// Draws 32 bytes.
    #[must_use]
    pub fn generate(rng: &mut (impl CryptoRng + ?Sized)) -> Self {
        let mut rng = rng;
        Self(X25519HkdfSha256::gen_keypair_with_rng(&mut rng).0)
    }

    /// From 32 bytes, which are clamped when they are used.
    ///
    /// # Errors
    /// [`InvalidKey`]: never for 32 bytes, as things stand.
    pub fn from_bytes(bytes: &[u8; 32]) -> Result<Self, InvalidKey> {
        Private::from_bytes(bytes).map(Self).map_err(|_| InvalidKey)
    }

    /// The 32 bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(self.0.to_bytes().into())
    }

    /// The public half.
    #[must_use]
    pub fn public_key(&self) -> RecipientKey {
        RecipientKey(X25519HkdfSha256::sk_to_pk(&self.0).to_bytes().into())
    }

    /// Opens what [`RecipientKey::seal`] made.
    ///
    /// # Errors
    /// [`OpenError`]: sealed to another key, for another purpose, damaged, or by a key of low order.
    pub fn open(
        &self,
        info: &[u8],
        aad: &[u8],
        sealed: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, OpenError> {
        let (encapsulated, rest) = sealed.split_at_checked(32).ok_or(OpenError)?;
        let (ciphertext, tag) = rest.split_last_chunk::<TAG>().ok_or(OpenError)?;
        let encapsulated = Encapsulated::from_bytes(encapsulated).map_err(|_| OpenError)?;
        let tag = AeadTag::<ChaCha20Poly1305>::from_bytes(tag).map_err(|_| OpenError)?;
        let mut text = Zeroizing::new(ciphertext.to_vec());
        hpke::single_shot_open_inout_detached::<ChaCha20Poly1305, HkdfSha256, X25519HkdfSha256>(
            &OpModeR::Base,
            &self.0,
            &encapsulated,
            info,
            text.as_mut_slice().into(),
            aad,
            &tag,
        )
        .map_err(|_| OpenError)?;
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use rand_chacha::ChaCha20Rng;
    use rand_chacha::rand_core::SeedableRng;

    use super::*;

    fn rng() -> ChaCha20Rng {
        ChaCha20Rng::from_seed([5; 32])
    }

    #[test]
    fn opens_the_vector_of_rfc_9180_appendix_a_2_1() {
        let private = RecipientPrivateKey::from_bytes(
            &hex::decode("8057991eef8f1f1af18f4a9491d16a1ce333f695d4db8e38da75975c4478e0fb")
                .unwrap()
                .try_into()
                .unwrap(),
        )
        .unwrap();
        assert_eq!(
            hex::encode(private.public_key().as_bytes()),
            "4310ee97d88cc1f088a5576c77ab0cf5c3ac797f3d95139c6c84b5429c59662a"
        );
        let sealed = hex::decode(concat!(
            "1afa08d3dec047a643885163f1180476fa7ddb54c6a8029ea33f95796bf2ac4a",
            "1c5250d8034ec2b784ba2cfd69dbdb8af406cfe3ff938e131f0def8c8b60b4db21993c62ce81883d2dd1b51a28",
        ))
        .unwrap();
        let text = private.open(b"Ode on a Grecian Urn", b"Count-0", &sealed);
        assert_eq!(text.unwrap().as_slice(), b"Beauty is truth, truth beauty");
    }

    #[test]
    fn opens_for_the_recipient_alone_each_time_anew_and_whole() {
        let mut rng = rng();
        let (ours, other) = (
            RecipientPrivateKey::generate(&mut rng),
            RecipientPrivateKey::generate(&mut rng),
        );
        let again = RecipientPrivateKey::from_bytes(&ours.to_bytes()).unwrap();
        let sealed = ours
            .public_key()
            .seal(b"info", b"", b"text", &mut rng)
            .unwrap();
        assert_eq!(sealed.len(), 4 + RECIPIENT_OVERHEAD);
        assert_eq!(
            again.open(b"info", b"", &sealed).unwrap().as_slice(),
            b"text"
        );
        let second = ours
            .public_key()
            .seal(b"info", b"", b"text", &mut rng)
            .unwrap();
        assert_ne!(sealed[..32], second[..32]);
        assert!(other.open(b"info", b"", &sealed).is_err());
        assert!(ours.open(b"inf", b"", &sealed).is_err());
        assert!(ours.open(b"info", b"x", &sealed).is_err());
        for length in 0..sealed.len() {
            assert!(ours.open(b"info", b"", &sealed[..length]).is_err());
        }
        for bit in 0..sealed.len() * 8 {
            let mut flipped = sealed.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            // The top bit of a u-coordinate is ignored by X25519, but not by HPKE, which hashes it.
            assert!(ours.open(b"info", b"", &flipped).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn points_of_low_order_are_refused_by_both_sides() {
        let mut rng = rng();
        for first in [0, 1] {
            let mut point = [0; 32];
            point[0] = first;
            assert_eq!(
                RecipientKey::from_bytes(point).seal(b"", b"", b"text", &mut rng),
                Err(InvalidKey)
            );
            let private = RecipientPrivateKey::generate(&mut rng);
            let sealed = [point.as_slice(), &[0; 20]].concat();
            assert!(private.open(b"", b"", &sealed).is_err());
        }
    }

    #[test]
    fn private_key_prints_nothing() {
        let key = RecipientPrivateKey::generate(&mut rng());
        assert_eq!(format!("{key:?}"), "RecipientPrivateKey { .. }");
    }
}
