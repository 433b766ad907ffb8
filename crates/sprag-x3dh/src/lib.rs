//! Prekeys, device lists and the handshakes of Sprag/1: PQXDH (X25519 with ML-KEM-1024) and X3DH.
//!
//! Pure cryptography over decoded bytes ("The protocol", §1 and §3). Whom to believe, which prekeys exist and which mode
//! is refused is policy, and stands above. What somebody claims and what was verified are two types: only a
//! [`PreKeyBundle`] and a [`DeviceList`] start anything, and both come from signatures that hold.
//!
//! ```compile_fail,E0308
//! # use sprag_x3dh::*; use sprag_wire::UnverifiedPreKeyBundle; use sprag_crypto::Mode;
//! fn f(ours: &Initiator<'_>, claimed: &UnverifiedPreKeyBundle, rng: &mut dyn rand_core::CryptoRng) {
//!     let _ = initiate(ours, claimed, Mode::Pqxdh, rng); // nobody has verified it
//! }
//! ```
#![forbid(unsafe_code)]

mod bundle;
mod device_list;
mod error;
mod initiate;
mod prekeys;
mod record;
mod respond;
mod transcript;

pub use bundle::PreKeyBundle;
pub use device_list::DeviceList;
pub use error::{HandshakeError, ListError, RecordError};
pub use initiate::{Initiated, Initiator, initiate};
pub use prekeys::{KemPreKeyPair, OneTimePreKeyPair, SignedPreKeyPair, prekey_message};
pub use respond::{Responder, ResponderKeys, respond};
pub use transcript::{Transcript, TranscriptKeys};
