//! X25519 keys and agreements ("The protocol", §1, *Curve keys*).

use std::fmt;

use curve25519_dalek::scalar::clamp_integer;
use rand_core::CryptoRng;
use x25519_dalek::StaticSecret;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::xeddsa::{self, Signature, SigningKey};
use crate::{BadSignature, InvalidKey};

/// The type byte of curve keys.
const TYPE: u8 = 0x05;

/// A public curve key: `0x05 ‖ u`, 33 bytes. Any `u` parses; checks happen at use.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey([u8; 33]);

impl PublicKey {
    /// Length in bytes.
    pub const LEN: usize = 33;

    /// Parses 33 bytes with type `0x05`, without arithmetic.
    ///
    /// # Errors
    /// [`InvalidKey`]: another length or type.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, InvalidKey> {
        match <[u8; 33]>::try_from(bytes) {
            Ok(key) if key.first() == Some(&TYPE) => Ok(Self(key)),
            _ => Err(InvalidKey),
        }
    }

    /// The 33 bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 33] {
        &self.0
    }

    /// The u-coordinate, 32 bytes little-endian, as received.
    #[must_use]
    pub fn u(&self) -> [u8; 32] {
        let mut u = [0; 32];
        u.iter_mut()
            .zip(self.0.iter().skip(1))
            .for_each(|(to, from)| *to = *from);
        u
    }

    pub(crate) fn from_u(u: &[u8; 32]) -> Self {
        let mut key = [TYPE; 33];
        key.iter_mut()
            .skip(1)
            .zip(u)
            .for_each(|(to, from)| *to = *from);
        Self(key)
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey(")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
        write!(f, ")")
    }
}

/// A private curve key: 32 clamped bytes, wiped when dropped.
#[derive(Clone)]
pub struct PrivateKey(StaticSecret);

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PrivateKey").finish_non_exhaustive()
    }
}

impl ZeroizeOnDrop for PrivateKey {}

impl PrivateKey {
    /// Draws 32 bytes and clamps them.
    #[must_use]
    pub fn generate(rng: &mut (impl CryptoRng + ?Sized)) -> Self {
        let mut bytes = Zeroizing::new([0; 32]);
        rng.fill_bytes(bytes.as_mut_slice());
        Self::from_bytes(&bytes)
    }

    /// From 32 bytes, which are clamped.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; 32]) -> Self {
        let mut clamped = clamp_integer(*bytes);
        let key = Self(StaticSecret::from(clamped));
        clamped.zeroize();
        key
    }

    /// The 32 clamped bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(self.0.to_bytes())
    }

    /// The public key, X25519(private, 9).
    #[must_use]
    pub fn public_key(&self) -> PublicKey {
        PublicKey::from_u(x25519_dalek::PublicKey::from(&self.0).as_bytes())
    }

    /// X25519.
    ///
    /// # Errors
    /// [`InvalidKey`]: the result is all zero, as for points of low order.
    pub fn agree(&self, theirs: &PublicKey) -> Result<SharedSecret, InvalidKey> {
        let shared = self
            .0
            .diffie_hellman(&x25519_dalek::PublicKey::from(theirs.u()));
        if shared.was_contributory() {
            Ok(SharedSecret(Zeroizing::new(*shared.as_bytes())))
        } else {
            Err(InvalidKey)
        }
    }
}

/// What two keys agree on, or a KEM encapsulates: 32 bytes, wiped when dropped.
#[derive(Clone, ZeroizeOnDrop)]
pub struct SharedSecret(Zeroizing<[u8; 32]>);

impl SharedSecret {
    pub(crate) fn new(bytes: Zeroizing<[u8; 32]>) -> Self {
        Self(bytes)
    }

    /// The 32 bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for SharedSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedSecret").finish_non_exhaustive()
    }
}

/// A private key with its public half.
#[derive(Clone, Debug)]
pub struct KeyPair {
    private: PrivateKey,
    public: PublicKey,
}

impl KeyPair {
    /// Draws 32 bytes.
    #[must_use]
    pub fn generate(rng: &mut (impl CryptoRng + ?Sized)) -> Self {
        Self::from_private(PrivateKey::generate(rng))
    }

    /// From the private half.
    #[must_use]
    pub fn from_private(private: PrivateKey) -> Self {
        let public = private.public_key();
        Self { private, public }
    }

    /// The public half.
    #[must_use]
    pub fn public(&self) -> &PublicKey {
        &self.public
    }

    /// The private half.
    #[must_use]
    pub fn private(&self) -> &PrivateKey {
        &self.private
    }

    /// See [`PrivateKey::agree`].
    ///
    /// # Errors
    /// [`InvalidKey`]: the result is all zero.
    pub fn agree(&self, theirs: &PublicKey) -> Result<SharedSecret, InvalidKey> {
        self.private.agree(theirs)
    }
}

macro_rules! public_role {
    ($(#[$doc:meta])* $public:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub struct $public(PublicKey);

        impl $public {
            /// Parses 33 bytes with type `0x05`, without arithmetic.
            ///
            /// # Errors
            /// [`InvalidKey`]: another length or type.
            pub fn from_bytes(bytes: &[u8]) -> Result<Self, InvalidKey> {
                PublicKey::from_bytes(bytes).map(Self)
            }

            /// The 33 bytes.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; 33] {
                self.0.as_bytes()
            }

            /// The key without its role.
            #[must_use]
            pub const fn as_public_key(&self) -> &PublicKey {
                &self.0
            }
        }

        impl From<PublicKey> for $public {
            fn from(key: PublicKey) -> Self {
                Self(key)
            }
        }
    };
}

macro_rules! agreeing_role {
    ($(#[$doc:meta])* $public:ident, $pair:ident) => {
        public_role!($(#[$doc])* $public);

        #[doc = concat!("A [`", stringify!($public), "`] with its private half, wiped when dropped.")]
        #[derive(Clone, Debug)]
        pub struct $pair {
            private: PrivateKey,
            public: $public,
        }

        impl $pair {
            /// Draws 32 bytes.
            #[must_use]
            pub fn generate(rng: &mut (impl CryptoRng + ?Sized)) -> Self {
                Self::from_private(PrivateKey::generate(rng))
            }

            /// From the private half.
            #[must_use]
            pub fn from_private(private: PrivateKey) -> Self {
                let public = $public(private.public_key());
                Self { private, public }
            }

            /// The public half.
            #[must_use]
            pub fn public(&self) -> &$public {
                &self.public
            }

            /// The private half.
            #[must_use]
            pub fn private(&self) -> &PrivateKey {
                &self.private
            }

            /// X25519.
            ///
            /// # Errors
            /// [`InvalidKey`]: the result is all zero.
            pub fn agree(&self, theirs: &PublicKey) -> Result<SharedSecret, InvalidKey> {
                self.private.agree(theirs)
            }
        }
    };
}

macro_rules! signing_role {
    ($(#[$doc:meta])* $public:ident, $pair:ident) => {
        public_role!($(#[$doc])* $public);

        impl $public {
            /// Strict XEdDSA verification ("The protocol", §1, *Verifying*).
            ///
            /// # Errors
            /// [`BadSignature`]: anything else than a signature of this key over this message.
            pub fn verify(&self, message: &[u8], signature: &[u8]) -> Result<(), BadSignature> {
                xeddsa::verify(&self.0, message, signature)
            }
        }

        #[doc = concat!("A [`", stringify!($public), "`] with its private half, wiped when dropped.")]
        #[derive(Clone, Debug)]
        pub struct $pair {
            private: PrivateKey,
            public: $public,
            signing: SigningKey,
        }

        impl $pair {
            /// Draws 32 bytes.
            #[must_use]
            pub fn generate(rng: &mut (impl CryptoRng + ?Sized)) -> Self {
                Self::from_private(PrivateKey::generate(rng))
            }

            /// From the private half.
            #[must_use]
            pub fn from_private(private: PrivateKey) -> Self {
                let public = $public(private.public_key());
                let signing = SigningKey::new(&private);
                Self { private, public, signing }
            }

            /// The public half.
            #[must_use]
            pub fn public(&self) -> &$public {
                &self.public
            }

            /// The private half.
            #[must_use]
            pub fn private(&self) -> &PrivateKey {
                &self.private
            }

            /// X25519.
            ///
            /// # Errors
            /// [`InvalidKey`]: the result is all zero.
            pub fn agree(&self, theirs: &PublicKey) -> Result<SharedSecret, InvalidKey> {
                self.private.agree(theirs)
            }

            /// An XEdDSA signature; draws 64 bytes.
            #[must_use]
            pub fn sign(&self, message: &[u8], rng: &mut (impl CryptoRng + ?Sized)) -> Signature {
                let mut z = Zeroizing::new([0; 64]);
                rng.fill_bytes(z.as_mut_slice());
                self.signing.sign(message, &z)
            }
        }
    };
}

signing_role!(
    /// `IK`: the long-term key of a device, for handshakes and for signing its prekeys ("The protocol", §1).
    IdentityKey,
    IdentityKeyPair
);
signing_role!(
    /// The key of a user, which signs his device lists and does nothing else ("The protocol", §1).
    AccountKey,
    AccountKeyPair
);
agreeing_role!(
    /// `DHs`, `DHr`: the key of one step of the ratchet ("The protocol", §4.1).
    RatchetKey,
    RatchetKeyPair
);
agreeing_role!(
    /// `BK`: the initiator's key of one handshake ("The protocol", §3).
    BaseKey,
    BaseKeyPair
);

#[cfg(test)]
mod tests {
    use rand_chacha::ChaCha20Rng;
    use rand_core::{Rng, SeedableRng};

    use super::*;

    fn bytes<const N: usize>(text: &str) -> [u8; N] {
        hex::decode(text).unwrap().try_into().unwrap()
    }

    #[test]
    fn agreement_matches_rfc_7748_section_6_1() {
        let alice = PrivateKey::from_bytes(&bytes(
            "77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a",
        ));
        let bob = PrivateKey::from_bytes(&bytes(
            "5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb",
        ));
        assert_eq!(
            alice.public_key().u(),
            bytes("8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a")
        );
        assert_eq!(
            bob.public_key().u(),
            bytes("de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f")
        );
        let shared = bytes("4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742");
        assert_eq!(alice.agree(&bob.public_key()).unwrap().as_bytes(), &shared);
        assert_eq!(bob.agree(&alice.public_key()).unwrap().as_bytes(), &shared);
    }

    #[test]
    fn scalar_multiplication_matches_rfc_7748_section_5_2_after_a_thousand_rounds() {
        let (mut k, mut u) = ([0; 32], [0; 32]);
        k[0] = 9;
        u[0] = 9;
        for round in 1..=1000 {
            let shared = PrivateKey::from_bytes(&k)
                .agree(&PublicKey::from_u(&u))
                .unwrap();
            u = k;
            k = *shared.as_bytes();
            if round == 1 {
                assert_eq!(
                    hex::encode(k),
                    "422c8e7a6227d7bca1350b3e2bb7279f7897b87bb6854b783c60e80311ae3079"
                );
            }
        }
        assert_eq!(
            hex::encode(k),
            "684cf59ba83309552800ef566f2f4d3c1c3887c49360e3875f2eb94d99532c51"
        );
    }

    #[test]
    fn public_keys_are_33_bytes_of_type_5_and_nothing_else() {
        for first in 0..=u8::MAX {
            let mut key = [0xff; 33];
            key[0] = first;
            assert_eq!(PublicKey::from_bytes(&key).is_ok(), first == 5);
        }
        for length in (0..64).filter(|length| *length != 33) {
            assert_eq!(PublicKey::from_bytes(&vec![5; length]), Err(InvalidKey));
            assert_eq!(RatchetKey::from_bytes(&vec![5; length]), Err(InvalidKey));
        }
    }

    #[test]
    fn keys_keep_the_bytes_they_came_in() {
        // u and u + p are one point and two keys.
        let mut beyond = [0xff; 33];
        (beyond[0], beyond[1], beyond[32]) = (5, 0xf6, 0x7f);
        let mut nine = [0; 33];
        (nine[0], nine[1]) = (5, 9);
        let (beyond, nine) = (
            PublicKey::from_bytes(&beyond).unwrap(),
            PublicKey::from_bytes(&nine).unwrap(),
        );
        let ours = PrivateKey::from_bytes(&[7; 32]);
        assert_ne!(beyond, nine);
        assert_eq!(
            ours.agree(&beyond).unwrap().as_bytes(),
            ours.agree(&nine).unwrap().as_bytes()
        );
        assert_eq!(
            ours.agree(&nine).unwrap().as_bytes(),
            &ours.public_key().u()
        );
    }

    #[test]
    fn all_zero_agreement_is_an_invalid_key() {
        // The points of order 1, 2, 4 and 8, canonical and not, with bit 255 set too (RFC 7748, section 6.1).
        let low = [
            "0000000000000000000000000000000000000000000000000000000000000000",
            "0100000000000000000000000000000000000000000000000000000000000000",
            "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
            "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
            "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
            "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
            "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        ];
        let ours = IdentityKeyPair::from_private(PrivateKey::from_bytes(&[7; 32]));
        for text in low {
            for bit in [0, 0x80] {
                let mut u = bytes::<32>(text);
                u[31] |= bit;
                let key = PublicKey::from_u(&u);
                assert_eq!(ours.agree(&key).err(), Some(InvalidKey), "{text}");
            }
        }
    }

    #[test]
    fn private_keys_come_out_clamped() {
        let key = PrivateKey::from_bytes(&[0xff; 32]);
        let mut clamped = [0xff; 32];
        (clamped[0], clamped[31]) = (0xf8, 0x7f);
        assert_eq!(*key.to_bytes(), clamped);
        assert_eq!(*PrivateKey::from_bytes(&clamped).to_bytes(), clamped);
        assert_eq!(PrivateKey::from_bytes(&[0; 32]).to_bytes()[31], 0x40);
    }

    #[test]
    fn generating_draws_32_bytes() {
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        let mut beside = rng.clone();
        let mut drawn = [0; 32];
        beside.fill_bytes(&mut drawn);
        let key = PrivateKey::generate(&mut rng);
        assert_eq!(*key.to_bytes(), clamp_integer(drawn));
        assert_eq!(rng.next_u64(), beside.next_u64());
    }

    #[test]
    fn pairs_of_every_role_agree() {
        let mut rng = ChaCha20Rng::seed_from_u64(2);
        let identity = IdentityKeyPair::generate(&mut rng);
        let account = AccountKeyPair::generate(&mut rng);
        let ratchet = RatchetKeyPair::generate(&mut rng);
        let base = BaseKeyPair::generate(&mut rng);
        let plain = KeyPair::generate(&mut rng);
        let with = |key: &PublicKey| *plain.agree(key).unwrap().as_bytes();
        let ours = plain.public();
        assert_eq!(
            with(identity.public().as_public_key()),
            *identity.agree(ours).unwrap().as_bytes()
        );
        assert_eq!(
            with(account.public().as_public_key()),
            *account.agree(ours).unwrap().as_bytes()
        );
        assert_eq!(
            with(ratchet.public().as_public_key()),
            *ratchet.agree(ours).unwrap().as_bytes()
        );
        assert_eq!(
            with(base.public().as_public_key()),
            *base.agree(ours).unwrap().as_bytes()
        );
        assert_ne!(
            with(base.public().as_public_key()),
            with(ratchet.public().as_public_key())
        );
    }

    #[test]
    fn secrets_print_nothing_and_public_keys_print_hex() {
        let pair = KeyPair::from_private(PrivateKey::from_bytes(&[7; 32]));
        let shared = pair.agree(pair.public()).unwrap();
        assert_eq!(format!("{:?}", pair.private()), "PrivateKey { .. }");
        assert_eq!(format!("{shared:?}"), "SharedSecret { .. }");
        let public = format!("PublicKey({})", hex::encode(pair.public().as_bytes()));
        assert_eq!(format!("{:?}", pair.public()), public);
        assert_eq!(
            format!("{pair:?}"),
            format!("KeyPair {{ private: PrivateKey {{ .. }}, public: {public} }}")
        );
        let role = format!("{:?}", RatchetKeyPair::from_private(pair.private().clone()));
        assert_eq!(
            role,
            format!(
                "RatchetKeyPair {{ private: PrivateKey {{ .. }}, public: RatchetKey({public}) }}"
            )
        );
        let signing = format!(
            "{:?}",
            IdentityKeyPair::from_private(pair.private().clone())
        );
        assert_eq!(
            signing,
            format!(
                "IdentityKeyPair {{ private: PrivateKey {{ .. }}, public: IdentityKey({public}), signing: SigningKey {{ .. }} }}"
            )
        );
    }
}
