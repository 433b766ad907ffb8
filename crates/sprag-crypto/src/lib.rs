//! The cryptographic primitives of Sprag, as the protocol uses them and not otherwise.
//!
//! This is the only crate that names a cipher, a curve or a hash; everything above speaks of keys and seals. Secrets are
//! newtypes: they wipe themselves, print nothing and cannot be compared with `==`. Randomness is a parameter. Nothing
//! here panics, and failures carry no detail. Sections refer to `docs/PROTOCOL.md`.
#![forbid(unsafe_code)]

mod aead;
mod curve;
mod error;
mod fingerprint;
mod kdf;
mod kem;
pub mod labels;
mod names;
pub mod passphrase;
mod seal;
mod secret;
pub mod xeddsa;

pub use aead::{AeadKey, NONCE, TAG, open, seal_in_place};
pub use curve::{
    AccountKey, AccountKeyPair, BaseKey, BaseKeyPair, IdentityKey, IdentityKeyPair, KeyPair,
    PrivateKey, PublicKey, RatchetKey, RatchetKeyPair, SharedSecret,
};
pub use error::{BadSignature, InvalidIterations, InvalidKey, KdfError, OpenError};
pub use fingerprint::{Fingerprint, SAFETY_ITERATIONS, SAFETY_VERSION, SafetyNumber};
pub use kdf::{hkdf, hmac, lp, put_lp, sha256};
pub use kem::{KemCiphertext, KemPrivateKey, KemPublicKey};
pub use names::{Features, Mode, Salt, SessionId, TranscriptHash};
pub use passphrase::Argon2Params;
pub use seal::{SEAL_OVERHEAD, SealKey};
pub use secret::{HandshakeParts, HandshakeSecret};
pub use xeddsa::Signature;
