//! `H`, what the initiator says of itself ("The protocol", §3).

use prost::Message;
use sprag_crypto::{BaseKey, Features, IdentityKey, KemCiphertext, Mode};

use crate::generated::sprag::v1 as pb;
use crate::{
    DecodeError, KemPreKeyId, ListHash, OneTimePreKeyId, SignedPreKeyId, UnverifiedDeviceList,
    canonical, limits,
};

/// A handshake. Its *encoded* form is hashed, kept and sent; this is for reading it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Handshake {
    /// PQXDH or X3DH.
    pub mode: Mode,
    /// The initiator's feature bits.
    pub features: Features,
    /// The initiator's identity key.
    pub identity_key: IdentityKey,
    /// The key of this handshake alone.
    pub base_key: BaseKey,
    /// The responder's signed prekey that was used.
    pub signed_pre_key: SignedPreKeyId,
    /// The one-time prekey, if one was used.
    pub one_time_pre_key: Option<OneTimePreKeyId>,
    /// KEM prekey and ciphertext, in mode 1.
    pub kem: Option<(KemPreKeyId, KemCiphertext)>,
    /// The initiator's newest device list, a frame `0x14`.
    pub device_list: Vec<u8>,
    /// Epoch of the responder's list as the initiator knows it.
    pub responder_epoch: u64,
    /// Its hash.
    pub responder_list: ListHash,
}

impl Handshake {
    /// From all its parts.
    #[must_use]
    #[expect(
        clippy::too_many_arguments,
        reason = "the fields of the message, in their order"
    )]
    pub fn new(
        mode: Mode,
        features: Features,
        identity_key: IdentityKey,
        base_key: BaseKey,
        signed_pre_key: SignedPreKeyId,
        one_time_pre_key: Option<OneTimePreKeyId>,
        kem: Option<(KemPreKeyId, KemCiphertext)>,
        device_list: Vec<u8>,
        responder_epoch: u64,
        responder_list: ListHash,
    ) -> Self {
        Self {
            mode,
            features,
            identity_key,
            base_key,
            signed_pre_key,
            one_time_pre_key,
            kem,
            device_list,
            responder_epoch,
            responder_list,
        }
    }

    /// The canonical encoding.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let message = pb::Handshake {
            mode: u32::from(self.mode as u8),
            features: self.features.bits(),
            identity_key: self.identity_key.as_bytes().to_vec(),
            base_key: self.base_key.as_bytes().to_vec(),
            signed_pre_key_id: self.signed_pre_key.get(),
            one_time_pre_key_id: self.one_time_pre_key.map_or(0, OneTimePreKeyId::get),
            kem_pre_key_id: self.kem.as_ref().map_or(0, |(id, _)| id.get()),
            kem_ciphertext: self
                .kem
                .as_ref()
                .map_or(Vec::new(), |(_, ct)| ct.as_bytes().to_vec()),
            device_list: self.device_list.clone(),
            responder_epoch: self.responder_epoch,
            responder_list: self.responder_list.as_bytes().to_vec(),
        };
        message.encode_to_vec()
    }

    /// Decodes at most 4,096 bytes, strictly. The list inside decodes too, but nothing of it is believed.
    ///
    /// # Errors
    /// [`DecodeError::Malformed`].
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        if bytes.len() > limits::HANDSHAKE {
            return Err(DecodeError::Malformed);
        }
        let message: pb::Handshake = canonical::decode(bytes)?;
        let mode = match message.mode {
            1 => Mode::Pqxdh,
            2 => Mode::X3dh,
            _ => return Err(DecodeError::Malformed),
        };
        let kem = match (
            mode,
            message.kem_pre_key_id,
            message.kem_ciphertext.as_slice(),
        ) {
            (Mode::X3dh, 0, []) => None,
            (Mode::Pqxdh, id, ciphertext) => Some((
                KemPreKeyId::new(id)?,
                KemCiphertext::from_bytes(ciphertext)?,
            )),
            _ => return Err(DecodeError::Malformed),
        };
        UnverifiedDeviceList::decode(&message.device_list).map_err(|_| DecodeError::Malformed)?;
        if message.responder_epoch == 0 {
            return Err(DecodeError::Malformed);
        }
        Ok(Self {
            mode,
            features: Features::from_bits(message.features),
            identity_key: IdentityKey::from_bytes(&message.identity_key)?,
            base_key: BaseKey::from_bytes(&message.base_key)?,
            signed_pre_key: SignedPreKeyId::new(message.signed_pre_key_id)?,
            one_time_pre_key: OneTimePreKeyId::new(message.one_time_pre_key_id).ok(),
            kem,
            device_list: message.device_list,
            responder_epoch: message.responder_epoch,
            responder_list: ListHash::from_bytes(canonical::array(&message.responder_list)?),
        })
    }
}
