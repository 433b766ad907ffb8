//! Tells a test of every encryption, so that it can see that no pair of key and nonce comes twice.
//!
//! Only of the feature `record-nonces`, which is for tests: no published crate turns it on (`cargo xtask tidy` looks), and
//! nothing is recorded before a test asks for it. What is told are hashes of keys, never keys.

use std::sync::OnceLock;

use crate::aead::{NONCE, TAG};
use crate::kdf::sha256;

/// One use of a secret that must not be used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Use {
    /// An AES-256-GCM encryption.
    Encryption {
        /// SHA-256 of the key, 32 bytes.
        key: [u8; 32],
        /// The nonce, 12 bytes.
        nonce: [u8; NONCE],
        /// The tag of what was encrypted, 16 bytes: by it the ciphertext is found again.
        tag: [u8; TAG],
    },
    /// The encryption of a message's body, made with a key from this seed. Each message salts its seed, so that key and
    /// nonce differ even if a seed is used again: that is seen here.
    Message {
        /// SHA-256 of the seed, 32 bytes.
        seed: [u8; 32],
        /// The tag of the body, 16 bytes.
        tag: [u8; TAG],
    },
}

/// What is told of every use, on the thread that encrypts and before anything of the ciphertext is handed out.
pub type Recorder = fn(&Use);

static RECORDER: OnceLock<Recorder> = OnceLock::new();

/// From now on tells `recorder` of every use, for the rest of this process. Says whether it is the first.
pub fn install(recorder: Recorder) -> bool {
    RECORDER.set(recorder).is_ok()
}

/// Tells of the encryption of a body with a key from `seed`.
pub fn message(seed: &[u8; 32], sealed: &[u8]) {
    if let (Some(recorder), Some(tag)) = (RECORDER.get(), sealed.last_chunk()) {
        let (seed, tag) = (*seed, *tag);
        recorder(&Use::Message { seed, tag });
    }
}

pub(crate) fn encryption(key: &[u8; 32], nonce: &[u8; NONCE], tag: &[u8; TAG]) {
    if let Some(recorder) = RECORDER.get() {
        let (key, nonce, tag) = (*key, *nonce, *tag);
        recorder(&Use::Encryption { key, nonce, tag });
    }
}

/// What a key, or a seed, is called here.
#[must_use]
pub fn name(secret: &[u8; 32]) -> [u8; 32] {
    sha256(&[secret])
}
