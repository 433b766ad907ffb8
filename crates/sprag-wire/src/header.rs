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
