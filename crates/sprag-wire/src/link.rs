//! What a new device shows to be added ("The protocol", §6.1).

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sprag_crypto::IdentityKey;
use zeroize::{Zeroize, Zeroizing};

use crate::canonical::{FIELD_1, FIELD_2, FIELD_3, array, field_size, put_bytes, take_bytes};
use crate::{DecodeError, FrameKind, UserId, limits};

const PREFIX: &str = "sprag-link:";

/// A text of the largest frame, in bytes: four digits for three bytes.
const MAX_TEXT: usize = PREFIX.len() + limits::LINK_REQUEST_FRAME.div_ceil(3) * 4;

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

    /// The frame `0x15`, at most 332 bytes. Written and read by hand, so that the nonce is in no buffer but this one.
    #[must_use]
    pub fn encode(&self) -> Zeroizing<Vec<u8>> {
        let user = self.user.as_str().as_bytes();
        let key = self.identity_key.as_bytes();
        let size = [user.len(), key.len(), self.nonce.len()]
            .map(field_size)
            .into_iter()
            .fold(1, usize::saturating_add);
        let mut frame = Zeroizing::new(Vec::with_capacity(size));
        frame.push(FrameKind::LinkRequest as u8);
        put_bytes(&mut frame, FIELD_1, user);
        put_bytes(&mut frame, FIELD_2, key);
        put_bytes(&mut frame, FIELD_3, &self.nonce);
        frame
    }

    /// Decodes a frame `0x15`, strictly.
    ///
    /// # Errors
    /// [`DecodeError`].
    pub fn decode(frame: &[u8]) -> Result<Self, DecodeError> {
        let mut rest = FrameKind::LinkRequest.expect(frame)?;
        let user = take_bytes(&mut rest, FIELD_1)?;
        let key = take_bytes(&mut rest, FIELD_2)?;
        let nonce = take_bytes(&mut rest, FIELD_3)?;
        if !rest.is_empty() {
            return Err(DecodeError::Malformed);
        }
        let user = std::str::from_utf8(user).map_err(|_| DecodeError::Malformed)?;
        Ok(Self {
            user: UserId::new(user)?,
            identity_key: IdentityKey::from_bytes(key)?,
            nonce: array(nonce)?,
        })
    }

    /// `"sprag-link:" ‖ base64url(frame, no padding)`. As secret as the nonce.
    #[must_use]
    pub fn to_text(&self) -> Zeroizing<String> {
        let frame = self.encode();
        let mut text = Zeroizing::new(String::with_capacity(MAX_TEXT));
        text.push_str(PREFIX);
        URL_SAFE_NO_PAD.encode_string(&*frame, &mut text);
        text
    }

    /// Reads [`to_text`](Self::to_text).
    ///
    /// # Errors
    /// [`DecodeError`].
    pub fn from_text(text: &str) -> Result<Self, DecodeError> {
        if text.len() > MAX_TEXT {
            return Err(DecodeError::Malformed);
        }
        let digits = text.strip_prefix(PREFIX).ok_or(DecodeError::Malformed)?;
        let mut frame = Zeroizing::new([0; limits::LINK_REQUEST_FRAME]);
        let length = URL_SAFE_NO_PAD
            .decode_slice(digits, &mut *frame)
            .map_err(|_| DecodeError::Malformed)?;
        Self::decode(frame.get(..length).ok_or(DecodeError::Malformed)?)
    }
}
