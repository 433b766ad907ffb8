//! Everything of Sprag that crosses a network, as bytes.
//!
//! Frames between devices are decoded strictly: one canonical encoding, known sizes, checked ranges, and size before
//! allocation ("The protocol", §2). What a client asks of a server follows the ordinary rules of proto3 ([`relay`]).
//! Nothing here verifies a signature or opens a seal: types named `Unverified…` start nothing.
//!
//! ```
//! use sprag_crypto::Salt;
//! use sprag_wire::{DecodeError, MessageFrame, encode_message};
//!
//! let salt = Salt::from_bytes([7; 16]);
//! let mut frame = encode_message(None, &salt, &[0; 61], &[0; 17]); // sealed header, sealed body
//! frame.extend([0; 36]); // the origin seal
//!
//! let message = MessageFrame::parse(&frame)?; // copies nothing
//! assert_eq!((message.salt(), message.body().len()), (salt, 17));
//!
//! frame.insert(1, 0);
//! assert_eq!(MessageFrame::parse(&frame).unwrap_err(), DecodeError::Malformed);
//! # Ok::<(), DecodeError>(())
//! ```
//!
//! This is the only crate that knows prost. The crate has no features.
#![forbid(unsafe_code)]
#![warn(clippy::arithmetic_side_effects)]

mod bundle;
mod canonical;
mod content;
mod device_list;
mod error;
mod fingerprint;
mod frame;
mod generated;
mod handshake;
mod header;
pub mod limits;
mod link;
mod message;
mod names;
mod padding;
pub mod relay;

pub use bundle::{KemKind, KemPreKey, OneTimePreKey, SignedPreKey, UnverifiedPreKeyBundle};
pub use content::{Body, Content, KeyShare};
pub use device_list::{HOLDER, ListHash, ListedDevice, UnverifiedDeviceList, encode_device_list};
pub use error::{BadContent, DecodeError, InvalidAddress};
pub use fingerprint::{ScanError, ScannableFingerprint};
pub use frame::{Envelope, FrameKind};
pub use handshake::Handshake;
pub use header::{LONG_HEADER, RatchetHeader, SHORT_HEADER};
pub use link::LinkRequest;
pub use message::{MessageFrame, check_ratchet_message, encode_message};
pub use names::{
    DeviceAddress, DeviceId, KemPreKeyId, OneTimePreKeyId, SignedPreKeyId, UserId, id_bytes,
};
pub use padding::{Padding, pad, padme, unpad};
