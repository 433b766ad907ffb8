//! What client and server say to each other ("The protocol", appendix "Directory"). Ordinary proto3; nothing in it is
//! believed. Every message decodes from at most 4 MiB.

use prost::Message;

use crate::generated::sprag::relay::v1 as pb;
use crate::{DecodeError, KemPreKey, OneTimePreKey, SignedPreKey, limits};

fn decode<M: Message + Default>(bytes: &[u8]) -> Result<M, DecodeError> {
    if bytes.len() > limits::REPLY {
        return Err(DecodeError::Malformed);
    }
    M::decode(bytes).map_err(|_| DecodeError::Malformed)
}

macro_rules! message {
    ($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $type:ty,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct $name {
            $($(#[$field_doc])* pub $field: $type,)*
        }

        impl $name {
            /// From all its fields.
            #[must_use]
            pub fn new($($field: $type),*) -> Self {
                Self { $($field),* }
            }

            /// The encoding.
            #[must_use]
            pub fn encode(&self) -> Vec<u8> {
                self.to_pb().encode_to_vec()
            }

            /// Decodes by the rules of proto3.
            ///
            /// # Errors
            /// [`DecodeError::Malformed`]: no protobuf, above 4 MiB, or a field out of range.
            pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
                Self::from_pb(decode(bytes)?)
            }
        }
    };
}

/// For messages whose fields are those of the generated ones.
macro_rules! plain_message {
    ($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $type:ty,)* }) => {
        message!($(#[$doc])* $name { $($(#[$field_doc])* $field: $type,)* });

        impl $name {
            fn to_pb(&self) -> pb::$name {
                pb::$name { $($field: self.$field.clone()),* }
            }

            fn from_pb(message: pb::$name) -> Result<Self, DecodeError> {
                Ok(Self { $($field: message.$field),* })
            }
        }
    };
}

plain_message!(
    /// What a server holds of a user's lists.
    ListState {
        /// Counts the account keys of this user.
        generation: u32,
        /// Epoch of the newest list.
        epoch: u64,
        /// Its hash, 32 bytes.
        hash: Vec<u8>,
        /// Where it stands in the server's order of all lists.
        position: u64,
    }
);

plain_message!(
    /// Asks for lists of a user.
    ListQuery {
        /// The user.
        user: String,
        /// First epoch wanted; 0: the newest only.
        from: u64,
        /// Hash of the newest list that the client has; empty: none.
        known: Vec<u8>,
    }
);

message!(
    /// Lists of a user: the newest, or a page of at most 64, ascending.
    ListReply {
        /// What the server holds.
        newest: Option<ListState>,
        /// Frames `0x14`.
        frames: Vec<Vec<u8>>,
        /// Whether more epochs follow.
        more: bool,
    }
);

impl ListReply {
    fn to_pb(&self) -> pb::ListReply {
        pb::ListReply {
            newest: self.newest.as_ref().map(ListState::to_pb),
            frames: self.frames.clone(),
            more: self.more,
        }
    }

    fn from_pb(message: pb::ListReply) -> Result<Self, DecodeError> {
        let newest = message.newest.map(ListState::from_pb).transpose()?;
        Ok(Self {
            newest,
            frames: message.frames,
            more: message.more,
        })
    }
}

plain_message!(
    /// Lists to publish, ascending by epoch.
    Lists {
        /// Frames `0x14`.
        frames: Vec<Vec<u8>>,
    }
);

message!(
    /// Prekeys to publish.
    PreKeyUpload {
        /// Ascends per device; a number that is not above the last one accepted changes nothing.
        number: u64,
        /// Drop all one-time keys first.
        replace: bool,
        /// The signed prekey.
        signed_pre_key: SignedPreKey,
        /// The last-resort KEM prekey.
        last_resort: KemPreKey,
        /// One-time prekeys.
        one_time_pre_keys: Vec<OneTimePreKey>,
        /// One-time KEM prekeys.
        kem_pre_keys: Vec<KemPreKey>,
    }
);

impl PreKeyUpload {
    fn to_pb(&self) -> pb::PreKeyUpload {
        pb::PreKeyUpload {
            number: self.number,
            replace: self.replace,
            signed_pre_key: Some(self.signed_pre_key.to_pb()),
            last_resort: Some(self.last_resort.to_pb()),
            one_time_pre_keys: self
                .one_time_pre_keys
                .iter()
                .map(OneTimePreKey::to_pb)
                .collect(),
            kem_pre_keys: self.kem_pre_keys.iter().map(KemPreKey::to_pb).collect(),
        }
    }

    fn from_pb(message: pb::PreKeyUpload) -> Result<Self, DecodeError> {
        let missing = DecodeError::Malformed;
        Ok(Self {
            number: message.number,
            replace: message.replace,
            signed_pre_key: SignedPreKey::from_pb(message.signed_pre_key.as_ref().ok_or(missing)?)?,
            last_resort: KemPreKey::from_pb(message.last_resort.as_ref().ok_or(missing)?)?,
            one_time_pre_keys: message
                .one_time_pre_keys
                .iter()
                .map(OneTimePreKey::from_pb)
                .collect::<Result<_, _>>()?,
            kem_pre_keys: message
                .kem_pre_keys
                .iter()
                .map(KemPreKey::from_pb)
                .collect::<Result<_, _>>()?,
        })
    }
}

plain_message!(
    /// What a server holds of a device's prekeys.
    PreKeyState {
        /// The server's epoch, 16 bytes.
        epoch: Vec<u8>,
        /// The last number accepted.
        number: u64,
        /// SHA-256 of signed and last-resort key as stored.
        digest: Vec<u8>,
        /// One-time prekeys left.
        one_time: u32,
        /// One-time KEM prekeys left.
        kem_one_time: u32,
        /// The highest ids ever accepted: signed, one-time, KEM.
        top: Vec<u32>,
    }
);

plain_message!(
    /// Asks for bundles.
    BundleQuery {
        /// The user.
        user: String,
        /// The devices; none: all.
        devices: Vec<u32>,
        /// Hash of the newest list that the client has; empty: none.
        known: Vec<u8>,
    }
);

plain_message!(
    /// Bundles of a user's devices.
    BundleReply {
        /// Frames `0x13`.
        bundles: Vec<Vec<u8>>,
        /// Devices that are listed but have published nothing yet.
        missing: Vec<u32>,
        /// The newest list, a frame `0x14`.
        list: Vec<u8>,
    }
);

plain_message!(
    /// A small ciphertext shared by a user's devices, changed by compare and swap.
    Object {
        /// Its name.
        name: Vec<u8>,
        /// Out: the tag expected; empty: there is none yet. In: the new tag.
        tag: Vec<u8>,
        /// At most 64 KiB.
        value: Vec<u8>,
    }
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_fields_are_skipped_and_missing_ones_are_defaults() {
        let mut bytes = ListQuery::new("ann".to_owned(), 3, vec![1; 32]).encode();
        bytes.extend([15 << 3, 1]);
        assert_eq!(ListQuery::decode(&bytes).unwrap().from, 3);
        assert_eq!(
            ListReply::decode(&[]),
            Ok(ListReply::new(None, Vec::new(), false))
        );
    }

    #[test]
    fn more_than_4_mib_is_refused_unread() {
        let value = vec![0; limits::REPLY];
        let large = Object::new(Vec::new(), Vec::new(), value).encode();
        assert_eq!(Object::decode(&large), Err(DecodeError::Malformed));
    }

    #[test]
    fn what_is_no_protobuf_or_lacks_a_prekey_is_malformed() {
        assert_eq!(Lists::decode(&[0x0A, 5, 1]), Err(DecodeError::Malformed));
        assert_eq!(Lists::decode(&[0x08, 1]), Err(DecodeError::Malformed)); // another wire type
        assert_eq!(
            ListQuery::decode(&[0x0A, 1, 0xff]),
            Err(DecodeError::Malformed)
        ); // no UTF-8
        assert_eq!(PreKeyUpload::decode(&[]), Err(DecodeError::Malformed));
        assert_eq!(
            PreKeyUpload::decode(&[0x1A, 0, 0x22, 0]),
            Err(DecodeError::Malformed)
        );
    }
}
