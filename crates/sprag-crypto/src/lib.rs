//! The cryptographic primitives of Sprag, as the protocol uses them and not otherwise.
//!
//! This is the only crate that names a cipher, a curve or a hash; everything above speaks of keys and seals. Secrets are
//! newtypes: they wipe themselves, print nothing and cannot be compared with `==`. Randomness is a parameter. Nothing
//! here panics, and failures carry no detail. Sections refer to `docs/PROTOCOL.md`.
#![forbid(unsafe_code)]

mod aead;
mod cipher;
mod curve;
mod error;
mod fingerprint;
mod kdf;
mod kem;
pub mod labels;
mod names;
pub mod passphrase;
mod recipient;
#[cfg(feature = "record-nonces")]
pub mod recorder;
mod seal;
mod secret;
pub mod xeddsa;

pub use aead::{AeadKey, NONCE, TAG, open, seal_in_place};
pub use cipher::{Aead, ChunkKey};
pub use curve::{
    AccountKey, AccountKeyPair, BaseKey, BaseKeyPair, IdentityKey, IdentityKeyPair, KeyPair,
    PrivateKey, PublicKey, RatchetKey, RatchetKeyPair, SharedSecret,
};
pub use error::{BadSignature, InvalidIterations, InvalidKey, KdfError, OpenError};
pub use fingerprint::{Fingerprint, SAFETY_ITERATIONS, SAFETY_VERSION, SafetyNumber};
pub use kdf::{hkdf, hmac, hmac_is, lp, put_lp, sha256};
pub use kem::{KemCiphertext, KemPrivateKey, KemPublicKey};
pub use names::{Features, Mode, Salt, SessionId, TranscriptHash};
pub use passphrase::Argon2Params;
pub use recipient::{RECIPIENT_OVERHEAD, RecipientKey, RecipientPrivateKey};
pub use seal::{SEAL_OVERHEAD, SealKey};
pub use secret::{HandshakeParts, HandshakeSecret};
pub use xeddsa::Signature;

#[cfg(test)]
mod tests {
    use zeroize::{Zeroize, ZeroizeOnDrop};

    use super::*;

    fn wiped_on_drop<T: ZeroizeOnDrop>() {}
    fn can_be_wiped<T: Zeroize>() {}

    /// Does not compile without the `zeroize` features of the libraries, which have been lost elsewhere (CVE-2024-34063).
    #[test]
    fn libraries_wipe_their_secrets() {
        wiped_on_drop::<x25519_dalek::StaticSecret>();
        wiped_on_drop::<x25519_dalek::SharedSecret>();
        wiped_on_drop::<aes_gcm::Aes256Gcm>();
        wiped_on_drop::<chacha20poly1305::ChaCha20Poly1305>();
        wiped_on_drop::<hmac::digest::CtOutput<sha2::Sha256>>();
        wiped_on_drop::<sha2::Sha256>(); // and so the two that an HMAC consists of
        wiped_on_drop::<sha2::Sha512>();
        can_be_wiped::<curve25519_dalek::Scalar>();
        can_be_wiped::<argon2::Block>();
    }

    #[test]
    fn our_secrets_are_wiped_on_drop() {
        wiped_on_drop::<PrivateKey>();
        wiped_on_drop::<SharedSecret>();
        wiped_on_drop::<xeddsa::SigningKey>();
        wiped_on_drop::<KemPrivateKey>();
        wiped_on_drop::<AeadKey>();
        wiped_on_drop::<ChunkKey>();
        wiped_on_drop::<RecipientPrivateKey>();
        wiped_on_drop::<SealKey>();
        wiped_on_drop::<HandshakeParts>();
        wiped_on_drop::<HandshakeSecret>();
    }

    #[test]
    fn errors_are_lower_case_and_say_nothing_finer() {
        let texts = [
            InvalidKey.to_string(),
            BadSignature.to_string(),
            OpenError.to_string(),
            InvalidIterations.to_string(),
            KdfError.to_string(),
        ];
        for text in texts {
            assert!(
                text.chars()
                    .all(|letter| letter.is_ascii_lowercase() || letter == ' ')
            );
        }
    }
}
