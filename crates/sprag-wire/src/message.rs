//! Ratchet messages, with or without a handshake in front ("The protocol", §2.2, §4.3 and §5).

use sprag_crypto::Salt;

use crate::canonical::{
    FIELD_1, FIELD_2, FIELD_3, array, field_size, put_bytes, put_length, take_bytes,
};
use crate::header::{LONG_HEADER, SHORT_HEADER};
use crate::{DecodeError, FrameKind, Handshake, limits};

const TAG: usize = sprag_crypto::TAG;

/// A frame `0x11` or `0x12`, taken apart without copying.
#[derive(Debug)]
pub struct MessageFrame<'a> {
    handshake: Option<(&'a [u8], Handshake)>,
    salt: Salt,
    header: &'a [u8],
    body: &'a [u8],
    sealed_prefix: &'a [u8],
    origin: &'a [u8; limits::ORIGIN],
}

impl<'a> MessageFrame<'a> {
    /// Parses a frame, strictly.
    ///
    /// # Errors
    /// [`DecodeError`].
    pub fn parse(frame: &'a [u8]) -> Result<Self, DecodeError> {
        let kind = FrameKind::of(frame)?;
        let (sealed_prefix, origin) = frame.split_last_chunk().ok_or(DecodeError::Malformed)?;
        let (_, mut rest) = sealed_prefix.split_first().ok_or(DecodeError::Malformed)?;
        let (handshake, mut message) = match kind {
            FrameKind::RatchetMessage => (None, rest),
            FrameKind::PreKeyMessage => {
                let handshake = take_bytes(&mut rest, FIELD_1)?;
                let message = take_bytes(&mut rest, FIELD_2)?;
                if !rest.is_empty() {
                    return Err(DecodeError::Malformed);
                }
                (Some((handshake, Handshake::decode(handshake)?)), message)
            }
            _ => return Err(DecodeError::Malformed),
        };
        let (salt, header, body) = take_message(&mut message)?;
        Ok(Self {
            handshake,
            salt,
            header,
            body,
            sealed_prefix,
            origin,
        })
    }

    /// `H`, the encoded handshake, as received.
    #[must_use]
    pub fn handshake(&self) -> Option<&'a [u8]> {
        self.handshake.as_ref().map(|(bytes, _)| *bytes)
    }

    /// The handshake.
    #[must_use]
    pub fn parsed_handshake(&self) -> Option<&Handshake> {
        self.handshake.as_ref().map(|(_, handshake)| handshake)
    }

    /// The salt, which names the frame.
    #[must_use]
    pub fn salt(&self) -> Salt {
        self.salt
    }

    /// The sealed header: 61 or 115 bytes.
    #[must_use]
    pub fn header(&self) -> &'a [u8] {
        self.header
    }

    /// The sealed body: 17 to 2^20 + 16 bytes.
    #[must_use]
    pub fn body(&self) -> &'a [u8] {
        self.body
    }

    /// The frame up to the origin seal, which is the seal's associated data.
    #[must_use]
    pub fn sealed_prefix(&self) -> &'a [u8] {
        self.sealed_prefix
    }

    /// The origin seal.
    #[must_use]
    pub fn origin(&self) -> &'a [u8; limits::ORIGIN] {
        self.origin
    }
}

/// Checks a bare `RatchetMessage`; what the frame kinds contain.
///
/// # Errors
/// [`DecodeError::Malformed`].
pub fn check_ratchet_message(mut message: &[u8]) -> Result<(), DecodeError> {
    take_message(&mut message).map(|_| ())
}

fn take_message<'a>(rest: &mut &'a [u8]) -> Result<(Salt, &'a [u8], &'a [u8]), DecodeError> {
    let salt = Salt::from_bytes(array(take_bytes(rest, FIELD_1)?)?);
    let header = take_bytes(rest, FIELD_2)?;
    let body = take_bytes(rest, FIELD_3)?;
    let header_fits = [SHORT_HEADER + TAG, LONG_HEADER + TAG].contains(&header.len());
    let body_fits = (1 + TAG..=limits::PLAINTEXT + TAG).contains(&body.len());
    if header_fits && body_fits && rest.is_empty() {
        Ok((salt, header, body))
    } else {
        Err(DecodeError::Malformed)
    }
}

/// The frame of a message without its origin seal, in a buffer with room for it: `0x12` if there is a handshake in
/// front, else `0x11`.
#[must_use]
pub fn encode_message(
    handshake: Option<&[u8]>,
    salt: &Salt,
    header: &[u8],
    body: &[u8],
) -> Vec<u8> {
    let salt = salt.as_bytes();
    let message = field_size(salt.len())
        .saturating_add(field_size(header.len()))
        .saturating_add(field_size(body.len()));
    let whole = match handshake {
        None => message,
        Some(handshake) => field_size(handshake.len()).saturating_add(field_size(message)),
    };
    let mut frame = Vec::with_capacity(whole.saturating_add(1 + limits::ORIGIN));
    match handshake {
        None => frame.push(FrameKind::RatchetMessage as u8),
        Some(handshake) => {
            frame.push(FrameKind::PreKeyMessage as u8);
            put_bytes(&mut frame, FIELD_1, handshake);
            frame.push(FIELD_2);
            put_length(&mut frame, message);
        }
    }
    put_bytes(&mut frame, FIELD_1, salt);
    put_bytes(&mut frame, FIELD_2, header);
    put_bytes(&mut frame, FIELD_3, body);
    frame
}
