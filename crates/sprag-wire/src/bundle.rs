//! Prekeys and the bundle that a server hands out ("The protocol", §1.1 and §2.2).

use prost::Message;
use sprag_crypto::{Features, IdentityKey, KemPublicKey, PublicKey, Signature};

use crate::frame::encode_frame;
use crate::generated::sprag::v1 as pb;
use crate::{
    DecodeError, DeviceAddress, FrameKind, KemPreKeyId, OneTimePreKeyId, SignedPreKeyId,
    UnverifiedDeviceList, canonical,
};

/// A curve prekey with its signature, not verified.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SignedPreKey {
    /// Its id.
    pub id: SignedPreKeyId,
    /// The feature bits signed with it.
    pub features: Features,
    /// The key.
    pub public_key: PublicKey,
    /// By the identity key of its device.
    pub signature: Signature,
}

impl SignedPreKey {
    /// From its parts.
    #[must_use]
    pub fn new(
        id: SignedPreKeyId,
        features: Features,
        public_key: PublicKey,
        signature: Signature,
    ) -> Self {
        Self {
            id,
            features,
            public_key,
            signature,
        }
    }

    /// The bare message.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        self.to_pb().encode_to_vec()
    }

    pub(crate) fn to_pb(&self) -> pb::SignedPreKey {
        pb::SignedPreKey {
            id: self.id.get(),
            features: self.features.bits(),
            public_key: self.public_key.as_bytes().to_vec(),
            signature: self.signature.to_vec(),
        }
    }

    pub(crate) fn from_pb(key: &pb::SignedPreKey) -> Result<Self, DecodeError> {
        Ok(Self {
            id: SignedPreKeyId::new(key.id)?,
            features: Features::from_bits(key.features),
            public_key: PublicKey::from_bytes(&key.public_key)?,
            signature: canonical::array(&key.signature)?,
        })
    }
}

/// A curve prekey that is used at most once.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct OneTimePreKey {
    /// Its id.
    pub id: OneTimePreKeyId,
    /// The key.
    pub public_key: PublicKey,
}

impl OneTimePreKey {
    /// From its parts.
    #[must_use]
    pub fn new(id: OneTimePreKeyId, public_key: PublicKey) -> Self {
        Self { id, public_key }
    }

    pub(crate) fn to_pb(&self) -> pb::OneTimePreKey {
        pb::OneTimePreKey {
            id: self.id.get(),
            public_key: self.public_key.as_bytes().to_vec(),
        }
    }

    pub(crate) fn from_pb(key: &pb::OneTimePreKey) -> Result<Self, DecodeError> {
        Ok(Self {
            id: OneTimePreKeyId::new(key.id)?,
            public_key: PublicKey::from_bytes(&key.public_key)?,
        })
    }
}

/// Whether a KEM prekey is used once or again and again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[repr(u8)]
pub enum KemKind {
    /// Used at most once.
    OneTime = 2,
    /// Used when no one-time key is left.
    LastResort = 3,
}

/// A KEM prekey with its signature, not verified.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct KemPreKey {
    /// Its id.
    pub id: KemPreKeyId,
    /// Once, or last resort.
    pub kind: KemKind,
    /// The key.
    pub public_key: KemPublicKey,
    /// By the identity key of its device.
    pub signature: Signature,
}

impl KemPreKey {
    /// From its parts.
    #[must_use]
    pub fn new(
        id: KemPreKeyId,
        kind: KemKind,
        public_key: KemPublicKey,
        signature: Signature,
    ) -> Self {
        Self {
            id,
            kind,
            public_key,
            signature,
        }
    }

    /// The bare message.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        self.to_pb().encode_to_vec()
    }

    pub(crate) fn to_pb(&self) -> pb::KemPreKey {
        pb::KemPreKey {
            id: self.id.get(),
            kind: u32::from(self.kind as u8),
            public_key: self.public_key.as_bytes().to_vec(),
            signature: self.signature.to_vec(),
        }
    }

    pub(crate) fn from_pb(key: &pb::KemPreKey) -> Result<Self, DecodeError> {
        let kind = match key.kind {
            2 => KemKind::OneTime,
            3 => KemKind::LastResort,
            _ => return Err(DecodeError::Malformed),
        };
        Ok(Self {
            id: KemPreKeyId::new(key.id)?,
            kind,
            public_key: KemPublicKey::from_bytes(&key.public_key)?,
            signature: canonical::array(&key.signature)?,
        })
    }
}

/// What a server claims of a device. It starts no session before it was verified.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct UnverifiedPreKeyBundle {
    /// The device.
    pub address: DeviceAddress,
    /// Its identity key.
    pub identity_key: IdentityKey,
    /// Its signed prekey.
    pub signed_pre_key: SignedPreKey,
    /// A one-time prekey, while the server has one.
    pub one_time_pre_key: Option<OneTimePreKey>,
    /// A KEM prekey.
    pub kem_pre_key: KemPreKey,
    /// The newest device list of its user, a frame `0x14`.
    pub device_list: Vec<u8>,
}

impl UnverifiedPreKeyBundle {
    /// From its parts.
    #[must_use]
    pub fn new(
        address: DeviceAddress,
        identity_key: IdentityKey,
        signed_pre_key: SignedPreKey,
        one_time_pre_key: Option<OneTimePreKey>,
        kem_pre_key: KemPreKey,
        device_list: Vec<u8>,
    ) -> Self {
        Self {
            address,
            identity_key,
            signed_pre_key,
            one_time_pre_key,
            kem_pre_key,
            device_list,
        }
    }

    /// The frame `0x13`.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let message = pb::PreKeyBundle {
            address: Some(self.address.to_pb()),
            identity_key: self.identity_key.as_bytes().to_vec(),
            signed_pre_key: Some(self.signed_pre_key.to_pb()),
            one_time_pre_key: self.one_time_pre_key.as_ref().map(OneTimePreKey::to_pb),
            kem_pre_key: Some(self.kem_pre_key.to_pb()),
            device_list: self.device_list.clone(),
        };
        encode_frame(FrameKind::PreKeyBundle, &message)
    }

    /// Decodes a frame `0x13`, strictly; the list inside decodes and names the user.
    ///
    /// # Errors
    /// [`DecodeError`].
    pub fn decode(frame: &[u8]) -> Result<Self, DecodeError> {
        let message: pb::PreKeyBundle = canonical::decode(FrameKind::PreKeyBundle.expect(frame)?)?;
        let missing = DecodeError::Malformed;
        let address = DeviceAddress::from_pb(message.address.as_ref().ok_or(missing)?)?;
        let list = UnverifiedDeviceList::decode(&message.device_list).map_err(|_| missing)?;
        if list.user() != address.user() {
            return Err(missing);
        }
        Ok(Self {
            address,
            identity_key: IdentityKey::from_bytes(&message.identity_key)?,
            signed_pre_key: SignedPreKey::from_pb(message.signed_pre_key.as_ref().ok_or(missing)?)?,
            one_time_pre_key: message
                .one_time_pre_key
                .as_ref()
                .map(OneTimePreKey::from_pb)
                .transpose()?,
            kem_pre_key: KemPreKey::from_pb(message.kem_pre_key.as_ref().ok_or(missing)?)?,
            device_list: message.device_list,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device_list::testing::list_of_one;

    fn good() -> pb::PreKeyBundle {
        pb::PreKeyBundle {
            address: Some(pb::Address {
                user: "ann".to_owned(),
                device: 1,
            }),
            identity_key: vec![5; 33],
            signed_pre_key: Some(pb::SignedPreKey {
                id: 1,
                features: 0,
                public_key: vec![5; 33],
                signature: vec![2; 64],
            }),
            one_time_pre_key: Some(pb::OneTimePreKey {
                id: 1,
                public_key: vec![5; 33],
            }),
            kem_pre_key: Some(pb::KemPreKey {
                id: 1,
                kind: 2,
                public_key: vec![0x0A; 1569],
                signature: vec![2; 64],
            }),
            device_list: list_of_one("ann"),
        }
    }

    type Decoded = Result<UnverifiedPreKeyBundle, DecodeError>;

    fn with(change: fn(&mut pb::PreKeyBundle)) -> Decoded {
        let mut message = good();
        change(&mut message);
        UnverifiedPreKeyBundle::decode(&encode_frame(FrameKind::PreKeyBundle, &message))
    }

    fn with_signed(change: fn(&mut pb::SignedPreKey)) -> Decoded {
        let mut message = good();
        message.signed_pre_key.iter_mut().for_each(change);
        UnverifiedPreKeyBundle::decode(&encode_frame(FrameKind::PreKeyBundle, &message))
    }

    fn with_kem(change: fn(&mut pb::KemPreKey)) -> Decoded {
        let mut message = good();
        message.kem_pre_key.iter_mut().for_each(change);
        UnverifiedPreKeyBundle::decode(&encode_frame(FrameKind::PreKeyBundle, &message))
    }

    #[test]
    fn bundles_decode_with_and_without_a_one_time_prekey() {
        assert!(with(|_| {}).unwrap().one_time_pre_key.is_some());
        assert_eq!(
            with(|it| it.one_time_pre_key = None)
                .unwrap()
                .one_time_pre_key,
            None
        );
        let last = with_kem(|it| it.kind = 3).unwrap();
        assert_eq!(last.kem_pre_key.kind, KemKind::LastResort);
        let features = with_signed(|it| it.features = u32::MAX).unwrap();
        assert_eq!(features.signed_pre_key.features.bits(), u32::MAX);
    }

    #[test]
    fn bundles_out_of_range_are_malformed() {
        for (at, bad) in [
            with(|it| it.address = None),
            with(|it| it.identity_key.clear()),
            with(|it| it.signed_pre_key = None),
            with(|it| it.signed_pre_key = Some(pb::SignedPreKey::default())),
            with(|it| it.one_time_pre_key = Some(pb::OneTimePreKey::default())),
            with(|it| it.kem_pre_key = None),
            with(|it| it.device_list.clear()),
            with(|it| it.device_list = list_of_one("ben")),
            with(|it| it.device_list[0] = 0x24),
            with_signed(|it| it.id = 0),
            with_signed(|it| it.public_key[0] = 0x0A),
            with_signed(|it| it.signature.truncate(63)),
            with_kem(|it| it.id = 0),
            with_kem(|it| it.kind = 0),
            with_kem(|it| it.kind = 1),
            with_kem(|it| it.kind = 4),
            with_kem(|it| it.public_key.truncate(1568)),
            with_kem(|it| it.public_key[0] = 5),
            with_kem(|it| it.signature.push(0)),
        ]
        .into_iter()
        .enumerate()
        {
            assert_eq!(bad, Err(DecodeError::Malformed), "case {at}");
        }
    }
}
