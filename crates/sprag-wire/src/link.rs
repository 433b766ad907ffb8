//! What a new device shows to be added ("The protocol", §6.1).

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sprag_crypto::IdentityKey;
use zeroize::Zeroize;

use crate::frame::encode_frame;
use crate::generated::sprag::v1 as pb;
use crate::{DecodeError, FrameKind, UserId, canonical};

const PREFIX: &str = "sprag-link:";

/// A request to be put on a user's list. The nonce is secret: it travels by QR code or by eye.
pub struct LinkRequest {
    user: UserId,
    identity_key: IdentityKey,
    nonce: [u8; 32],
}

impl std::fmt::Debug for LinkRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LinkRequest").finish_non_exhaustive()
    }
}

impl Drop for LinkRequest {
    fn drop(&mut self) {
        self.nonce.zeroize();
    }
}

impl LinkRequest {
    /// From its parts.
    #[must_use]
    pub fn new(user: UserId, identity_key: IdentityKey, nonce: [u8; 32]) -> Self {
        Self {
            user,
            identity_key,
            nonce,
        }
    }

    /// The user whose list it is.
    #[must_use]
    pub fn user(&self) -> &UserId {
        &self.user
    }

    /// The new device's identity key.
    #[must_use]
    pub fn identity_key(&self) -> &IdentityKey {
        &self.identity_key
    }

    /// The nonce, 32 bytes.
    #[must_use]
    pub fn nonce(&self) -> &[u8; 32] {
        &self.nonce
    }

    /// The frame `0x15`.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut message = pb::LinkRequest {
            user: self.user.as_str().to_owned(),
            identity_key: self.identity_key.as_bytes().to_vec(),
            nonce: self.nonce.to_vec(),
        };
        let frame = encode_frame(FrameKind::LinkRequest, &message);
        message.nonce.zeroize();
        frame
    }

    /// Decodes a frame `0x15`, strictly.
    ///
    /// # Errors
    /// [`DecodeError`].
    pub fn decode(frame: &[u8]) -> Result<Self, DecodeError> {
        let mut message: pb::LinkRequest =
            canonical::decode(FrameKind::LinkRequest.expect(frame)?)?;
        let nonce = canonical::array(&message.nonce)?;
        message.nonce.zeroize();
        Ok(Self {
            user: UserId::new(&message.user)?,
            identity_key: IdentityKey::from_bytes(&message.identity_key)?,
            nonce,
        })
    }

    /// `"sprag-link:" ‖ base64url(frame, no padding)`.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut frame = self.encode();
        let mut text = String::from(PREFIX);
        URL_SAFE_NO_PAD.encode_string(&frame, &mut text);
        frame.zeroize();
        text
    }

    /// Reads [`to_text`](Self::to_text).
    ///
    /// # Errors
    /// [`DecodeError`].
    pub fn from_text(text: &str) -> Result<Self, DecodeError> {
        let digits = text.strip_prefix(PREFIX).ok_or(DecodeError::Malformed)?;
        if digits.len() > 2 * crate::limits::LINK_REQUEST_FRAME {
            return Err(DecodeError::Malformed);
        }
        let mut frame = URL_SAFE_NO_PAD
            .decode(digits)
            .map_err(|_| DecodeError::Malformed)?;
        let request = Self::decode(&frame);
        frame.zeroize();
        request
    }
}
