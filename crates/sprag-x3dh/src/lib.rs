//! Prekeys, device lists and the handshakes of Sprag/1: PQXDH (X25519 with ML-KEM-1024) and X3DH.
//!
//! Pure cryptography over decoded bytes ("The protocol", §1 and §3). Whom to believe, which prekeys exist and which mode
//! is refused is policy, and stands above. What somebody claims and what was verified are two types: only a
//! [`PreKeyBundle`] and a [`DeviceList`] start anything, and both come from signatures that hold.
//!
//! ```
//! # use rand_core::CryptoRng; use sprag_crypto::{BadSignature, Mode}; use sprag_wire::UnverifiedPreKeyBundle;
//! # use sprag_x3dh::{HandshakeError, Initiated, Initiator, PreKeyBundle, initiate};
//! fn start(
//!     ours: &Initiator<'_>,
//!     claimed: UnverifiedPreKeyBundle,
//!     rng: &mut dyn CryptoRng,
//! ) -> Result<Result<Initiated, HandshakeError>, BadSignature> {
//!     let bundle = PreKeyBundle::verify(claimed)?;
//!     Ok(initiate(ours, &bundle, Mode::Pqxdh, rng))
//! }
//! ```
//!
//! Without the verification it does not compile:
//!
//! ```compile_fail,E0308
//! # use rand_core::CryptoRng; use sprag_crypto::{BadSignature, Mode}; use sprag_wire::UnverifiedPreKeyBundle;
//! # use sprag_x3dh::{HandshakeError, Initiated, Initiator, PreKeyBundle, initiate};
//! fn start(
//!     ours: &Initiator<'_>,
//!     claimed: UnverifiedPreKeyBundle,
//!     rng: &mut dyn CryptoRng,
//! ) -> Result<Result<Initiated, HandshakeError>, BadSignature> {
//!     Ok(initiate(ours, &claimed, Mode::Pqxdh, rng))
//! }
//! ```
//!
//! Nor can a claim be dressed as the verified type, be it a bundle or a list:
//!
//! ```compile_fail,E0423
//! # use sprag_wire::UnverifiedPreKeyBundle; use sprag_x3dh::PreKeyBundle;
//! fn dress(claimed: UnverifiedPreKeyBundle) -> PreKeyBundle {
//!     PreKeyBundle(claimed)
//! }
//! ```
//!
//! ```compile_fail,E0423
//! # use sprag_wire::UnverifiedDeviceList; use sprag_x3dh::DeviceList;
//! fn dress(claimed: UnverifiedDeviceList) -> DeviceList {
//!     DeviceList(claimed)
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
#[cfg(test)]
mod testing;
mod transcript;

pub use bundle::PreKeyBundle;
pub use device_list::DeviceList;
pub use error::{HandshakeError, ListError, RecordError};
pub use initiate::{Initiated, Initiator, initiate};
pub use prekeys::{KemPreKeyPair, OneTimePreKeyPair, SignedPreKeyPair, prekey_message};
pub use respond::{Responder, ResponderKeys, respond};
pub use transcript::{Transcript, TranscriptKeys};
