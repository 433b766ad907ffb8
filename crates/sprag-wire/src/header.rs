//! The header of a ratchet message before it is sealed ("The protocol", §2.2 and §4.3).

use prost::Message;
use sprag_crypto::RatchetKey;

use crate::generated::sprag::v1 as pb;
use crate::{DecodeError, canonical};

/// Bytes of a header without the field of the post-quantum ratchet.
pub const SHORT_HEADER: usize = 45;
/// Bytes of a header with it.
pub const LONG_HEADER: usize = 99;

/// `DHs`, `PN` and `N`: where in the session a message stands.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RatchetHeader {
    /// The sender's ratchet key.
    pub ratchet_key: RatchetKey,
    /// `PN`: messages in the sender's previous chain.
    pub previous_chain_length: u32,
    /// `N`: number in this chain.
    pub message_number: u32,
    /// 52 bytes of the post-quantum ratchet, in sessions that have one.
    pub pq_ratchet: Option<[u8; 52]>,
}

impl RatchetHeader {
    /// A header without post-quantum ratchet.
    #[must_use]
    pub fn new(ratchet_key: RatchetKey, previous_chain_length: u32, message_number: u32) -> Self {
        Self {
            ratchet_key,
            previous_chain_length,
            message_number,
            pq_ratchet: None,
        }
    }

    /// 45 or 99 bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let message = pb::RatchetHeader {
            ratchet_key: self.ratchet_key.as_bytes().to_vec(),
            previous_chain_length: Some(self.previous_chain_length),
            message_number: Some(self.message_number),
            pq_ratchet: self.pq_ratchet.map_or(Vec::new(), |bytes| bytes.to_vec()),
        };
        message.encode_to_vec()
    }

    /// Decodes 45 or 99 bytes, strictly.
    ///
    /// # Errors
    /// [`DecodeError::Malformed`].
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let message: pb::RatchetHeader = canonical::decode(bytes)?;
        let pq_ratchet = match message.pq_ratchet.as_slice() {
            [] => None,
            bytes => Some(canonical::array(bytes)?),
        };
        Ok(Self {
            ratchet_key: RatchetKey::from_bytes(&message.ratchet_key)?,
            previous_chain_length: message
                .previous_chain_length
                .ok_or(DecodeError::Malformed)?,
            message_number: message.message_number.ok_or(DecodeError::Malformed)?,
            pq_ratchet,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> RatchetHeader {
        RatchetHeader::new(RatchetKey::from_bytes(&[5; 33]).unwrap(), 0, 0)
    }

    #[test]
    fn zeros_are_written_so_that_the_length_tells_nothing() {
        let mut header = header();
        assert_eq!(header.encode().len(), SHORT_HEADER);
        header.message_number = u32::MAX;
        assert_eq!(header.encode().len(), SHORT_HEADER);
        header.pq_ratchet = Some([0; 52]);
        assert_eq!(header.encode().len(), LONG_HEADER);
        assert_eq!(RatchetHeader::decode(&header.encode()), Ok(header));
    }

    #[test]
    fn headers_without_a_number_or_with_a_field_of_another_size_are_malformed() {
        let good = pb::RatchetHeader {
            ratchet_key: vec![5; 33],
            previous_chain_length: Some(1),
            message_number: Some(2),
            pq_ratchet: Vec::new(),
        };
        assert!(RatchetHeader::decode(&good.encode_to_vec()).is_ok());
        let with = |change: fn(&mut pb::RatchetHeader)| {
            let mut bad = good.clone();
            change(&mut bad);
            RatchetHeader::decode(&bad.encode_to_vec())
        };
        for bad in [
            with(|it| it.previous_chain_length = None),
            with(|it| it.message_number = None),
            with(|it| it.ratchet_key.truncate(32)),
            with(|it| it.ratchet_key.push(0)),
            with(|it| it.ratchet_key.clear()),
            with(|it| it.ratchet_key[0] = 6),
            with(|it| it.pq_ratchet = vec![1; 51]),
            with(|it| it.pq_ratchet = vec![1; 53]),
        ] {
            assert_eq!(bad, Err(DecodeError::Malformed));
        }
    }
}
