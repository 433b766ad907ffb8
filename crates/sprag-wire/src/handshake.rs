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

#[cfg(test)]
pub(crate) mod testing {
    use super::*;
    use crate::device_list::testing::list_of_one;

    /// In mode 1, without one-time prekey.
    pub(crate) fn good() -> pb::Handshake {
        pb::Handshake {
            mode: 1,
            features: 0,
            identity_key: vec![5; 33],
            base_key: vec![5; 33],
            signed_pre_key_id: 1,
            one_time_pre_key_id: 0,
            kem_pre_key_id: 1,
            kem_ciphertext: vec![0x0A; 1569],
            device_list: list_of_one("ann"),
            responder_epoch: 1,
            responder_list: vec![1; 32],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::testing::good;
    use super::*;

    fn with(change: fn(&mut pb::Handshake)) -> Result<Handshake, DecodeError> {
        let mut message = good();
        change(&mut message);
        Handshake::decode(&message.encode_to_vec())
    }

    #[test]
    fn both_modes_decode_with_and_without_a_one_time_prekey() {
        let pqxdh = with(|_| {}).unwrap();
        assert_eq!((pqxdh.mode, pqxdh.one_time_pre_key), (Mode::Pqxdh, None));
        assert_eq!(pqxdh.encode(), good().encode_to_vec());
        let x3dh = with(|it| {
            (it.mode, it.kem_pre_key_id, it.one_time_pre_key_id) = (2, 0, 7);
            it.kem_ciphertext.clear();
        })
        .unwrap();
        assert_eq!((x3dh.mode, x3dh.kem), (Mode::X3dh, None));
        assert_eq!(x3dh.one_time_pre_key.map(OneTimePreKeyId::get), Some(7));
    }

    #[test]
    fn handshakes_out_of_range_are_malformed() {
        for (at, bad) in [
            with(|it| it.mode = 0),
            with(|it| it.mode = 3),
            with(|it| it.mode = 2), // with a KEM part
            with(|it| (it.mode, it.kem_pre_key_id) = (2, 0)),
            with(|it| {
                it.mode = 2;
                it.kem_ciphertext.clear();
            }),
            with(|it| it.kem_pre_key_id = 0),
            with(|it| it.kem_ciphertext.clear()),
            with(|it| it.kem_ciphertext.truncate(1568)),
            with(|it| it.kem_ciphertext[0] = 8),
            with(|it| it.identity_key[0] = 6),
            with(|it| it.identity_key.clear()),
            with(|it| it.base_key.push(0)),
            with(|it| it.signed_pre_key_id = 0),
            with(|it| it.device_list.clear()),
            with(|it| it.device_list[0] = 0x13),
            with(|it| it.device_list[0] = 0x24),
            with(|it| it.device_list.truncate(64)),
            with(|it| it.responder_epoch = 0),
            with(|it| it.responder_list.truncate(31)),
            with(|it| it.responder_list.clear()),
        ]
        .into_iter()
        .enumerate()
        {
            assert_eq!(bad, Err(DecodeError::Malformed), "case {at}");
        }
    }

    #[test]
    fn more_than_4096_bytes_are_refused_unread() {
        let bytes = vec![0; limits::HANDSHAKE + 1];
        assert_eq!(Handshake::decode(&bytes), Err(DecodeError::Malformed));
    }
}
