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
