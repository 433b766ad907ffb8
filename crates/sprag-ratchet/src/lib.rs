//! The Double Ratchet of Sprag/1 with encrypted headers: one session between two devices as a pure state machine.
//!
//! Specification: `docs/PROTOCOL.md`, §4 (ratchet) and §5 (origin seal). The crate does no I/O, reads no clock and
//! owns no randomness; what it needs comes in as a parameter, what changed goes out as a value.
//!
//! * [`Session::encrypt`] and [`Session::decrypt`] take `&self` and return the *next* session. The caller stores it
//!   (and the [`SkippedChanges`]) in one atomic batch and only then lets ciphertext or plaintext out. A message that
//!   does not open changes nothing, because nothing was touched.
//! * A message key is a value that is consumed by use ([`hazmat::MessageKey`]).
//! * Seeds of messages not yet seen live in rows of the caller and are looked up one at a time through
//!   [`SkippedKeys`]; a session is the same few hundred bytes whether 0 or 2,000 of them wait.
//! * [`OriginKey`] is the outermost seal: it makes every forgery cost one tag check and no state.
//!
//! # Example
//!
//! ```
//! use sprag_crypto::{Features, HandshakeSecret, Mode, RatchetKeyPair, SessionId, TranscriptHash};
//! use sprag_ratchet::{Limits, NoSkippedKeys, ReceivedMessage, SaltSource, Session};
//! # use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};
//! # let mut rng = ChaCha20Rng::seed_from_u64(1);
//! # let secret = || HandshakeSecret::derive(Mode::Pqxdh, Features::default(),
//! #     TranscriptHash::from_bytes([1; 32]), SessionId::from_bytes([2; 16]), &[3; 128]);
//! // Both sides have a handshake secret and the responder's signed prekey.
//! let signed_pre_key = RatchetKeyPair::generate(&mut rng);
//! let alice = Session::initiate(secret(), signed_pre_key.public(), &mut rng)?;
//! let bob = Session::respond(secret(), signed_pre_key)?;
//!
//! let (alice, sent) = alice.encrypt(b"hello", SaltSource::Hedged(&mut rng))?;
//! let received = ReceivedMessage::new(sent.chain_index, sent.salt, &sent.header, &sent.body);
//! let opened = bob.decrypt(&received, &NoSkippedKeys, Limits::ACCEPTED, &mut rng)?;
//! assert_eq!(opened.plaintext.as_slice(), b"hello");
//! let bob = opened.session; // store it first, then show the plaintext
//! # let _ = (alice, bob);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What it does not do
//!
//! Handshakes (`sprag-x3dh`), frames and padding (`sprag-wire`), which of several sessions to use, `pending` and
//! `retired` (`sprag-session`). The post-quantum ratchet (§4.4) is not offered yet: a handshake in which both sides
//! announce it is refused with [`StartError::Unsupported`].
#![forbid(unsafe_code)]
#![cfg_attr(not(test), warn(clippy::arithmetic_side_effects))]

mod chain;
mod error;
mod header_key;
mod join;
mod message_key;
mod origin;
mod record;
mod root_key;
mod secret;
mod session;
mod skipped;
mod state;
#[cfg(test)]
mod testing;

pub mod hazmat;

pub use error::{
    BadOrigin, DecryptError, EncryptError, RecordError, SkippedUnavailable, StartError,
};
pub use origin::{ORIGIN_LEN, OriginKey};
pub use record::{HOT_RECORD_LEN, SessionRecords};
pub use session::{Decrypted, EncryptedMessage, ReceivedMessage, SaltSource, Session};
pub use skipped::{
    Limits, MessageSeed, NoSkippedKeys, SkippedChanges, SkippedIndex, SkippedKey, SkippedKeys,
};
pub use state::Role;
