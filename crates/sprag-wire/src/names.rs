//! Users, devices and ids ("The protocol", §1).

use std::fmt;
use std::str::FromStr;

use sprag_crypto::IdentityKey;

use crate::generated::sprag::v1 as pb;
use crate::{DecodeError, InvalidAddress, limits};

/// A user's name: 1 to 255 bytes of UTF-8 without control characters, compared byte for byte.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UserId(String);

impl UserId {
    /// Checks and keeps a name as it is; nothing is normalised.
    ///
    /// # Errors
    /// [`InvalidAddress`]: empty, above 255 bytes, or with U+0000..U+001F or U+007F.
    pub fn new(user: &str) -> Result<Self, InvalidAddress> {
        let control = user.bytes().any(|byte| byte < 0x20 || byte == 0x7f);
        if user.is_empty() || user.len() > limits::USER_ID || control {
            return Err(InvalidAddress);
        }
        Ok(Self(user.to_owned()))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for UserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for UserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "UserId({:?})", self.0)
    }
}

macro_rules! number {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub struct $name(u32);

        impl $name {
            /// From a number.
            ///
            /// # Errors
            /// [`InvalidAddress`]: zero.
            pub const fn new(number: u32) -> Result<Self, InvalidAddress> {
                if number == 0 { Err(InvalidAddress) } else { Ok(Self(number)) }
            }

            /// The number, at least 1.
            #[must_use]
            pub const fn get(self) -> u32 {
                self.0
            }
        }
    };
}

number!(
    /// A device of a user, at least 1.
    DeviceId
);
number!(
    /// Id of a signed prekey, at least 1, never used twice.
    SignedPreKeyId
);
number!(
    /// Id of a one-time prekey, at least 1, never used twice.
    OneTimePreKeyId
);
number!(
    /// Id of a KEM prekey of either kind, at least 1, never used twice.
    KemPreKeyId
);

/// Where a message goes: a device of a user.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct DeviceAddress {
    user: UserId,
    device: DeviceId,
}

impl DeviceAddress {
    /// From user and device.
    #[must_use]
    pub fn new(user: UserId, device: DeviceId) -> Self {
        Self { user, device }
    }

    /// The user.
    #[must_use]
    pub fn user(&self) -> &UserId {
        &self.user
    }

    /// The device.
    #[must_use]
    pub fn device(&self) -> DeviceId {
        self.device
    }

    pub(crate) fn to_pb(&self) -> pb::Address {
        pb::Address {
            user: self.user.0.clone(),
            device: self.device.0,
        }
    }

    pub(crate) fn from_pb(address: &pb::Address) -> Result<Self, DecodeError> {
        Ok(Self {
            user: UserId::new(&address.user)?,
            device: DeviceId::new(address.device)?,
        })
    }

    /// The bare `Address` message.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        prost::Message::encode_to_vec(&self.to_pb())
    }

    /// Decodes the bare `Address` message, strictly.
    ///
    /// # Errors
    /// [`DecodeError::Malformed`].
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        Self::from_pb(&crate::canonical::decode(bytes)?)
    }
}

impl fmt::Display for DeviceAddress {
    /// `user#device`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}", self.user, self.device.0)
    }
}

impl FromStr for DeviceAddress {
    type Err = InvalidAddress;

    /// The last `#` separates; a number has no leading zero or sign.
    fn from_str(text: &str) -> Result<Self, InvalidAddress> {
        let (user, device) = text.rsplit_once('#').ok_or(InvalidAddress)?;
        let number: u32 = device.parse().map_err(|_| InvalidAddress)?;
        let address = Self::new(UserId::new(user)?, DeviceId::new(number)?);
        if address.to_string() == text {
            Ok(address)
        } else {
            Err(InvalidAddress)
        }
    }
}

/// `Id(X) = Enc33(IK_X) ‖ u8(len user) ‖ user ‖ u32be(device)` ("The protocol", §1).
#[must_use]
pub fn id_bytes(key: &IdentityKey, address: &DeviceAddress) -> Vec<u8> {
    let user = address.user.0.as_bytes();
    let mut id = Vec::with_capacity(user.len().saturating_add(33 + 1 + 4));
    id.extend_from_slice(key.as_bytes());
    id.push(u8::try_from(user.len()).unwrap_or(u8::MAX));
    id.extend_from_slice(user);
    id.extend_from_slice(&address.device.0.to_be_bytes());
    id
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_ids_are_kept_as_they_are() {
        for user in ["a", " Ann ", "béñ", "a#1", "\u{80}", &"x".repeat(255)] {
            assert_eq!(UserId::new(user).unwrap().as_str(), user);
        }
        assert_ne!(UserId::new("Ann"), UserId::new("ann"));
    }

    #[test]
    fn user_ids_that_are_empty_too_long_or_have_control_characters_are_refused() {
        for user in [
            "",
            "\0",
            "a\nb",
            "\u{1f}",
            "a\u{7f}",
            &"x".repeat(256),
            &"é".repeat(128),
        ] {
            assert_eq!(UserId::new(user), Err(InvalidAddress), "{user:?}");
        }
    }

    #[test]
    fn numbers_begin_at_one() {
        assert_eq!(DeviceId::new(0), Err(InvalidAddress));
        assert_eq!(SignedPreKeyId::new(0), Err(InvalidAddress));
        assert_eq!(DeviceId::new(u32::MAX).map(DeviceId::get), Ok(u32::MAX));
    }

    #[test]
    fn an_address_comes_back_from_its_text() {
        for text in ["ann#1", "a#b#4294967295", "##7", " # #1"] {
            let address: DeviceAddress = text.parse().unwrap();
            assert_eq!(address.to_string(), text);
        }
    }

    #[test]
    fn texts_that_are_no_address_are_refused() {
        for text in [
            "",
            "ann",
            "#1",
            "ann#",
            "ann#0",
            "ann#01",
            "ann#+1",
            "ann#-1",
            "ann# 1",
            "ann#1 ",
            "ann#4294967296",
            "a\nn#1",
        ] {
            assert_eq!(
                text.parse::<DeviceAddress>(),
                Err(InvalidAddress),
                "{text:?}"
            );
        }
    }

    #[test]
    fn the_id_of_a_device_delimits_itself() {
        let key = IdentityKey::from_bytes(&[5; 33]).unwrap();
        let address: DeviceAddress = "bén#258".parse().unwrap();
        let expected = [[5; 33].as_slice(), &[4], "bén".as_bytes(), &[0, 0, 1, 2]].concat();
        assert_eq!(id_bytes(&key, &address), expected);
        let longest = DeviceAddress::new(UserId::new(&"x".repeat(255)).unwrap(), address.device());
        assert_eq!(id_bytes(&key, &longest)[33], 255);
    }
}
