//! The first byte of everything, and the envelope ("The protocol", §2.1 and §2.3).

use prost::Message;
use sprag_crypto::Salt;

use crate::generated::sprag::v1 as pb;
use crate::{DecodeError, DeviceAddress, MessageFrame, canonical, limits};

const VERSION: u8 = 1;

/// What a frame is, by its first byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[repr(u8)]
pub enum FrameKind {
    /// `0x10`.
    Envelope = 0x10,
    /// `0x11`.
    RatchetMessage = 0x11,
    /// `0x12`.
    PreKeyMessage = 0x12,
    /// `0x13`.
    PreKeyBundle = 0x13,
    /// `0x14`.
    DeviceList = 0x14,
    /// `0x15`.
    LinkRequest = 0x15,
}

impl FrameKind {
    /// The kind of a frame of a size that its kind allows.
    ///
    /// # Errors
    /// [`DecodeError`]: empty, another version, an unknown kind, too large or too short.
    pub fn of(frame: &[u8]) -> Result<Self, DecodeError> {
        let first = *frame.first().ok_or(DecodeError::Malformed)?;
        if first >> 4 != VERSION {
            return Err(DecodeError::UnsupportedVersion);
        }
        let (kind, largest, trailer) = match first & 0x0f {
            0 => (Self::Envelope, limits::ENVELOPE_FRAME, 0),
            1 => (Self::RatchetMessage, limits::MESSAGE_FRAME, limits::ORIGIN),
            2 => (Self::PreKeyMessage, limits::MESSAGE_FRAME, limits::ORIGIN),
            3 => (Self::PreKeyBundle, limits::BUNDLE_FRAME, 0),
            4 => (
                Self::DeviceList,
                limits::DEVICE_LIST_FRAME,
                limits::SIGNATURE,
            ),
            5 => (Self::LinkRequest, limits::LINK_REQUEST_FRAME, 0),
            _ => return Err(DecodeError::Malformed),
        };
        if frame.len() > largest || frame.len() <= trailer {
            return Err(DecodeError::Malformed);
        }
        Ok(kind)
    }

    /// The message after the first byte of a frame that must be of this kind.
    pub(crate) fn expect(self, frame: &[u8]) -> Result<&[u8], DecodeError> {
        match frame.split_first() {
            Some((_, rest)) if Self::of(frame)? == self => Ok(rest),
            _ => Err(DecodeError::Malformed),
        }
    }
}

/// What a server reads: from whom, to whom, which. It has no authentication of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    from: DeviceAddress,
    to: DeviceAddress,
    id: Salt,
    payload: Vec<u8>,
}

impl Envelope {
    /// From its parts; `payload` is a frame `0x11` or `0x12`, `id` the salt in it.
    #[must_use]
    pub fn new(from: DeviceAddress, to: DeviceAddress, id: Salt, payload: Vec<u8>) -> Self {
        Self {
            from,
            to,
            id,
            payload,
        }
    }

    /// The device that claims to have made it.
    #[must_use]
    pub fn from(&self) -> &DeviceAddress {
        &self.from
    }

    /// The device that it is for.
    #[must_use]
    pub fn to(&self) -> &DeviceAddress {
        &self.to
    }

    /// Names it.
    #[must_use]
    pub fn id(&self) -> &Salt {
        &self.id
    }

    /// The frame inside.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        &self.payload
    }

    /// The frame `0x10`.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let message = pb::Envelope {
            from: Some(self.from.to_pb()),
            to: Some(self.to.to_pb()),
            id: self.id.as_bytes().to_vec(),
            payload: self.payload.clone(),
        };
        encode_frame(FrameKind::Envelope, &message)
    }

    /// Decodes a frame `0x10`, strictly, down to the salt of its payload.
    ///
    /// # Errors
    /// [`DecodeError`].
    pub fn decode(frame: &[u8]) -> Result<Self, DecodeError> {
        let message: pb::Envelope = canonical::decode(FrameKind::Envelope.expect(frame)?)?;
        let from = DeviceAddress::from_pb(message.from.as_ref().ok_or(DecodeError::Malformed)?)?;
        let to = DeviceAddress::from_pb(message.to.as_ref().ok_or(DecodeError::Malformed)?)?;
        let id = Salt::from_bytes(canonical::array(&message.id)?);
        let payload = MessageFrame::parse(&message.payload).map_err(|_| DecodeError::Malformed)?;
        if from == to || payload.salt() != id {
            return Err(DecodeError::Malformed);
        }
        Ok(Self {
            from,
            to,
            id,
            payload: message.payload,
        })
    }
}

pub(crate) fn encode_frame(kind: FrameKind, message: &impl Message) -> Vec<u8> {
    let mut frame = Vec::with_capacity(message.encoded_len().saturating_add(1));
    frame.push(kind as u8);
    // A Vec grows; encoding into it cannot fail.
    let _ = message.encode(&mut frame);
    frame
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{DeviceId, UserId, encode_message};

    fn address(user: &str, device: u32) -> DeviceAddress {
        DeviceAddress::new(UserId::new(user).unwrap(), DeviceId::new(device).unwrap())
    }

    fn payload(salt: &Salt) -> Vec<u8> {
        let mut frame = encode_message(None, salt, &[1; 61], &[2; 17]);
        frame.extend([3; limits::ORIGIN]);
        frame
    }

    #[test]
    fn every_kind_is_known_up_to_its_largest_frame_and_down_to_its_trailer() {
        for (kind, first, largest, trailer) in [
            (FrameKind::Envelope, 0x10, (1 << 20) + 8192, 0),
            (FrameKind::RatchetMessage, 0x11, (1 << 20) + 4096, 36),
            (FrameKind::PreKeyMessage, 0x12, (1 << 20) + 4096, 36),
            (FrameKind::PreKeyBundle, 0x13, 4096, 0),
            (FrameKind::DeviceList, 0x14, 2048, 64),
            (FrameKind::LinkRequest, 0x15, 512, 0),
        ] {
            let mut frame = vec![first; largest];
            assert_eq!(FrameKind::of(&frame), Ok(kind));
            assert_eq!(FrameKind::of(&frame[..1 + trailer]), Ok(kind));
            let shortest = FrameKind::of(&frame[..trailer]);
            assert_eq!(shortest, Err(DecodeError::Malformed));
            frame.push(0);
            assert_eq!(FrameKind::of(&frame), Err(DecodeError::Malformed));
        }
    }

    #[test]
    fn other_versions_are_told_from_unknown_kinds() {
        for first in [0x00, 0x01, 0x20, 0x91, 0xff] {
            let kind = FrameKind::of(&[first; 100]);
            assert_eq!(kind, Err(DecodeError::UnsupportedVersion), "{first:#x}");
        }
        for first in [0x16, 0x17, 0x1f] {
            let kind = FrameKind::of(&[first; 100]);
            assert_eq!(kind, Err(DecodeError::Malformed), "{first:#x}");
        }
    }

    #[test]
    fn an_envelope_comes_back() {
        let id = Salt::from_bytes([4; 16]);
        let envelope = Envelope::new(address("ann", 1), address("ann", 2), id, payload(&id));
        assert_eq!(Envelope::decode(&envelope.encode()), Ok(envelope));
    }

    #[test]
    fn envelopes_that_contradict_themselves_are_malformed() {
        let (ann, ben) = (address("ann", 1), address("ben", 1));
        let id = Salt::from_bytes([4; 16]);
        let other_version = [&[0x21], &payload(&id)[1..]].concat();
        for (to, payload) in [
            (ann.clone(), payload(&id)),                        // to itself
            (ben.clone(), payload(&Salt::from_bytes([5; 16]))), // named otherwise
            (ben.clone(), Vec::new()),
            (ben.clone(), [&[0x14], &payload(&id)[1..]].concat()),
            (ben, other_version), // inside a message that is no version, but a byte not demanded there
        ] {
            let frame = Envelope::new(ann.clone(), to, id, payload).encode();
            assert_eq!(Envelope::decode(&frame), Err(DecodeError::Malformed));
        }
    }
}
