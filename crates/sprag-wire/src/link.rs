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

    /// The frame `0x15`, at most 328 bytes. Written and read by hand, so that the nonce is in no buffer but this one.
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

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;
    use prost::Message;

    use super::*;
    use crate::canonical;
    use crate::generated::sprag::v1 as pb;

    fn request() -> LinkRequest {
        let key = IdentityKey::from_bytes(&[5; 33]).unwrap();
        LinkRequest::new(UserId::new("ann").unwrap(), key, [3; 32])
    }

    /// What prost and the rules of "The protocol", §2.2, say of the message.
    fn fits(message: &[u8]) -> bool {
        canonical::decode::<pb::LinkRequest>(message).is_ok_and(|it| {
            let key = IdentityKey::from_bytes(&it.identity_key).is_ok();
            UserId::new(&it.user).is_ok() && key && it.nonce.len() == 32
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn hand_and_prost_read_and_write_the_same(
            damage in vec((any::<prop::sample::Index>(), any::<u8>()), 0..3),
            more in vec(any::<u8>(), 0..2),
        ) {
            let request = request();
            let message = pb::LinkRequest {
                user: "ann".to_owned(),
                identity_key: vec![5; 33],
                nonce: vec![3; 32],
            };
            let mut bytes = message.encode_to_vec();
            prop_assert_eq!(&request.encode()[1..], bytes.as_slice());
            bytes.extend(more);
            for (at, byte) in damage {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            let frame = [&[0x15], bytes.as_slice()].concat();
            prop_assert_eq!(LinkRequest::decode(&frame).is_ok(), fits(&bytes));
        }
    }

    #[test]
    fn nothing_of_a_request_is_printed() {
        assert_eq!(format!("{:?}", request()), "LinkRequest { .. }");
    }

    #[test]
    fn a_request_comes_back_from_its_text() {
        let again = LinkRequest::from_text(&request().to_text()).unwrap();
        assert_eq!(again.encode(), request().encode());
        let key = *request().identity_key();
        let longest = LinkRequest::new(UserId::new(&"x".repeat(255)).unwrap(), key, [3; 32]);
        assert_eq!(longest.encode().len(), 328);
        assert!(LinkRequest::from_text(&longest.to_text()).is_ok());
    }

    #[test]
    fn bits_left_over_in_the_last_digit_are_zero() {
        // Frames of all three lengths mod 3: of 0, 2 and 4 left-over bits.
        for user in ["ann", "anna", "annas"] {
            let (user, key) = (UserId::new(user).unwrap(), *request().identity_key());
            let good = LinkRequest::new(user, key, [3; 32]).to_text();
            let (rest, last) = good.split_at(good.len() - 1);
            let same = |digit: &char| LinkRequest::from_text(&format!("{rest}{digit}")).is_ok();
            let digits = ('A'..='Z')
                .chain('a'..='z')
                .chain('0'..='9')
                .chain(['-', '_']);
            let bits = good.strip_prefix(PREFIX).unwrap().len() * 6 % 8;
            // Each digit says another nonce, or the same one written otherwise.
            assert_eq!(digits.filter(same).count(), 64 >> bits, "{last} {bits}");
        }
    }

    #[test]
    fn texts_that_are_not_exactly_what_was_shown_are_malformed() {
        let good = request().to_text();
        let digits = good.strip_prefix(PREFIX).unwrap();
        for text in [
            String::new(),
            PREFIX.to_owned(),
            digits.to_owned(),
            format!("SPRAG-LINK:{digits}"),
            format!(" {}", *good),
            format!("{}\n", *good),
            format!("{}=", *good),
            format!("{}A", *good),
            format!("{PREFIX}{}", "A".repeat(684)), // 513 bytes
            format!("{PREFIX}{}", "A".repeat(1 << 20)),
            format!("{PREFIX}+{}", &digits[1..]), // of the other alphabet
        ] {
            let refused = LinkRequest::from_text(&text).unwrap_err();
            assert_eq!(refused, DecodeError::Malformed, "{text:.60}");
        }
    }
}
