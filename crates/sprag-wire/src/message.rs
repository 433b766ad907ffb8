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

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;
    use prost::Message;

    use super::*;
    use crate::canonical;
    use crate::device_list::testing::largest_list;
    use crate::generated::sprag::v1 as pb;
    use crate::handshake::testing::good;

    /// What prost and the rules of "The protocol", §2.2, say of a frame's message.
    fn by_prost(kind: u8, message: &[u8]) -> Option<(Vec<u8>, pb::RatchetMessage)> {
        let (handshake, message) = match kind {
            0x12 => {
                let both: pb::PreKeyMessage = canonical::decode(message).ok()?;
                Handshake::decode(&both.handshake).ok()?;
                (both.handshake, both.message)
            }
            _ => (Vec::new(), message.to_vec()),
        };
        let message: pb::RatchetMessage = canonical::decode(&message).ok()?;
        let fits = message.salt.len() == 16
            && [61, 115].contains(&message.header.len())
            && (17..=(1 << 20) + 16).contains(&message.body.len());
        fits.then_some((handshake, message))
    }

    fn by_hand(frame: &[u8]) -> Option<(Vec<u8>, pb::RatchetMessage)> {
        let frame = MessageFrame::parse(frame).ok()?;
        let message = pb::RatchetMessage {
            salt: frame.salt().as_bytes().to_vec(),
            header: frame.header().to_vec(),
            body: frame.body().to_vec(),
        };
        Some((frame.handshake().unwrap_or_default().to_vec(), message))
    }

    fn handshake() -> Vec<u8> {
        good().encode_to_vec()
    }

    fn size() -> impl Strategy<Value = [usize; 3]> {
        let salt = prop_oneof![9 => Just(16), 1 => 0usize..20];
        let header = prop_oneof![5 => Just(61), 5 => Just(115), 1 => 0usize..130];
        (salt, header, 0usize..300).prop_map(|(salt, header, body)| [salt, header, body])
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn hand_and_prost_read_the_same_frames(
            sizes in size(),
            with_handshake in any::<bool>(),
            damage in vec((any::<prop::sample::Index>(), any::<u8>()), 0..3),
            more in vec(any::<u8>(), 0..2),
        ) {
            let [salt, header, body] = sizes.map(|size| vec![9; size]);
            let mut message = pb::RatchetMessage { salt, header, body }.encode_to_vec();
            let mut kind = 0x11;
            if with_handshake {
                kind = 0x12;
                message = pb::PreKeyMessage { handshake: handshake(), message }.encode_to_vec();
            }
            message.extend(more);
            for (at, byte) in damage {
                if !message.is_empty() {
                    let at = at.index(message.len());
                    message[at] = byte;
                }
            }
            let frame = [&[kind], message.as_slice(), &[0; limits::ORIGIN]].concat();
            prop_assert_eq!(by_hand(&frame), by_prost(kind, &message));
        }

        #[test]
        fn hand_and_prost_write_the_same_frames(
            salt in any::<[u8; 16]>(), body in vec(any::<u8>(), 17..300), long in any::<bool>(),
        ) {
            let header = vec![8; if long { 115 } else { 61 }];
            let plain = encode_message(None, &Salt::from_bytes(salt), &header, &body);
            let first = encode_message(Some(&handshake()), &Salt::from_bytes(salt), &header, &body);
            let message = pb::RatchetMessage { salt: salt.to_vec(), header, body }.encode_to_vec();
            prop_assert_eq!(&plain[1..], message.as_slice());
            let both = pb::PreKeyMessage { handshake: handshake(), message };
            prop_assert_eq!(&first[1..], both.encode_to_vec());
            prop_assert_eq!((plain[0], first[0]), (0x11, 0x12));
        }
    }

    fn framed(handshake: Option<&[u8]>, header: usize, body: usize) -> Vec<u8> {
        let salt = Salt::from_bytes([1; 16]);
        let mut frame = encode_message(handshake, &salt, &vec![2; header], &vec![3; body]);
        frame.extend([4; limits::ORIGIN]);
        frame
    }

    #[test]
    fn the_largest_message_fits_its_frame_behind_the_largest_handshake_and_a_byte_more_is_malformed()
     {
        let mut largest = good();
        (largest.features, largest.responder_epoch) = (u32::MAX, u64::MAX);
        (largest.signed_pre_key_id, largest.kem_pre_key_id) = (u32::MAX, u32::MAX);
        largest.one_time_pre_key_id = u32::MAX;
        largest.device_list = largest_list();
        let largest = largest.encode_to_vec();
        assert!(largest.len() < 3_700, "{}", largest.len());
        for handshake in [None, Some(largest.as_slice())] {
            for header in [61, 115] {
                for body in [17, (1 << 20) + 16] {
                    let frame = framed(handshake, header, body);
                    let parsed = MessageFrame::parse(&frame).unwrap();
                    assert_eq!((parsed.header().len(), parsed.body().len()), (header, body));
                }
                for body in [0, 1, 16, (1 << 20) + 17] {
                    let frame = framed(handshake, header, body);
                    let refused = MessageFrame::parse(&frame).unwrap_err();
                    assert_eq!(refused, DecodeError::Malformed, "{header} {body}");
                }
            }
            for header in [0, 60, 62, 114, 116, 127, 128] {
                let refused = MessageFrame::parse(&framed(handshake, header, 17)).unwrap_err();
                assert_eq!(refused, DecodeError::Malformed, "{header}");
            }
        }
    }

    #[test]
    fn there_is_room_for_the_origin_seal() {
        for handshake in [None, Some(handshake())] {
            let salt = Salt::from_bytes([1; 16]);
            let mut frame = encode_message(handshake.as_deref(), &salt, &[2; 61], &[3; 200]);
            let room = frame.capacity();
            assert_eq!(room, frame.len() + limits::ORIGIN);
            frame.extend([4; limits::ORIGIN]);
            assert_eq!(frame.capacity(), room);
            let parsed = MessageFrame::parse(&frame).unwrap();
            assert_eq!(parsed.origin(), &[4; limits::ORIGIN]);
            assert_eq!(parsed.sealed_prefix(), &frame[..frame.len() - 36]);
            assert_eq!(parsed.parsed_handshake().is_some(), handshake.is_some());
        }
    }

    #[test]
    fn the_two_kinds_are_not_read_as_each_other_nor_other_kinds_as_either() {
        let salt = Salt::from_bytes([1; 16]);
        for handshake in [None, Some(handshake())] {
            let mut frame = encode_message(handshake.as_deref(), &salt, &[2; 61], &[3; 200]);
            frame.extend([4; limits::ORIGIN]);
            let right = frame[0];
            for first in [0x10, 0x11, 0x12, 0x13, 0x14, 0x15]
                .into_iter()
                .filter(|it| *it != right)
            {
                frame[0] = first;
                assert_eq!(
                    MessageFrame::parse(&frame).unwrap_err(),
                    DecodeError::Malformed
                );
            }
            frame[0] = right + 0x10;
            let other = MessageFrame::parse(&frame).unwrap_err();
            assert_eq!(other, DecodeError::UnsupportedVersion);
        }
    }
}
