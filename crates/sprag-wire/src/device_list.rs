//! The signed list of a user's devices, as bytes ("The protocol", §1.2).

use prost::Message;
use sprag_crypto::{AccountKey, IdentityKey, sha256};

use crate::generated::sprag::v1 as pb;
use crate::{DecodeError, DeviceId, FrameKind, UserId, canonical, limits};

/// Bit 0 of a device's flags: it has the account's private key and may add devices.
pub const HOLDER: u32 = 1;

/// `LH`, 32 bytes: hash of a list without its signature.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ListHash([u8; 32]);

impl ListHash {
    /// From its bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Its bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl std::fmt::Debug for ListHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ListHash(")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
        write!(f, ")")
    }
}

/// One device on a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListedDevice {
    device: DeviceId,
    identity_key: IdentityKey,
    flags: u32,
}

impl ListedDevice {
    /// From its parts.
    #[must_use]
    pub fn new(device: DeviceId, identity_key: IdentityKey, flags: u32) -> Self {
        Self {
            device,
            identity_key,
            flags,
        }
    }

    /// Its number.
    #[must_use]
    pub fn device(&self) -> DeviceId {
        self.device
    }

    /// Its identity key.
    #[must_use]
    pub fn identity_key(&self) -> &IdentityKey {
        &self.identity_key
    }

    /// All flags.
    #[must_use]
    pub fn flags(&self) -> u32 {
        self.flags
    }

    /// Whether it may add devices.
    #[must_use]
    pub fn is_holder(&self) -> bool {
        self.flags & HOLDER != 0
    }
}

/// A list that somebody claims a user signed. Nothing of it counts before its signature was verified and it was judged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnverifiedDeviceList {
    frame: Vec<u8>,
    user: UserId,
    account_key: AccountKey,
    epoch: u64,
    previous: Option<ListHash>,
    devices: Vec<ListedDevice>,
    signature: [u8; limits::SIGNATURE],
}

impl UnverifiedDeviceList {
    /// Decodes a frame `0x14`, strictly: 1 to 32 entries, ascending by device, no key twice, none the account key,
    /// `previous` in all epochs but the first.
    ///
    /// # Errors
    /// [`DecodeError`].
    pub fn decode(frame: &[u8]) -> Result<Self, DecodeError> {
        let rest = FrameKind::DeviceList.expect(frame)?;
        let (bytes, signature) = rest.split_last_chunk().ok_or(DecodeError::Malformed)?;
        let message: pb::DeviceList = canonical::decode(bytes)?;
        let account_key = AccountKey::from_bytes(&message.account_key)?;
        let previous = match (message.epoch, message.previous.as_slice()) {
            (0, _) => return Err(DecodeError::Malformed),
            (1, []) => None,
            (1, _) => return Err(DecodeError::Malformed),
            (_, hash) => Some(ListHash(canonical::array(hash)?)),
        };
        let mut devices: Vec<ListedDevice> = Vec::new();
        for entry in &message.devices {
            let device = DeviceId::new(entry.device)?;
            let identity_key = IdentityKey::from_bytes(&entry.identity_key)?;
            let ascends = devices.last().is_none_or(|last| last.device < device);
            let repeats = devices
                .iter()
                .any(|other| other.identity_key == identity_key);
            if !ascends || repeats || identity_key.as_public_key() == account_key.as_public_key() {
                return Err(DecodeError::Malformed);
            }
            devices.push(ListedDevice {
                device,
                identity_key,
                flags: entry.flags,
            });
        }
        if devices.is_empty() || devices.len() > limits::DEVICES {
            return Err(DecodeError::Malformed);
        }
        Ok(Self {
            frame: frame.to_vec(),
            user: UserId::new(&message.user)?,
            account_key,
            epoch: message.epoch,
            previous,
            devices,
            signature: *signature,
        })
    }

    /// The user that it names.
    #[must_use]
    pub fn user(&self) -> &UserId {
        &self.user
    }

    /// The key that must have signed it.
    #[must_use]
    pub fn account_key(&self) -> &AccountKey {
        &self.account_key
    }

    /// Its epoch, at least 1.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Hash of the list before; none in epoch 1.
    #[must_use]
    pub fn previous(&self) -> Option<ListHash> {
        self.previous
    }

    /// The devices, ascending.
    #[must_use]
    pub fn devices(&self) -> &[ListedDevice] {
        &self.devices
    }

    /// `LH`.
    #[must_use]
    pub fn hash(&self) -> ListHash {
        ListHash(sha256(&[self.signed_bytes()]))
    }

    /// The whole frame.
    #[must_use]
    pub fn frame(&self) -> &[u8] {
        &self.frame
    }

    /// `0x14 ‖ DeviceList`: what is signed, after a label, and hashed.
    #[must_use]
    pub fn signed_bytes(&self) -> &[u8] {
        self.frame
            .split_last_chunk::<{ limits::SIGNATURE }>()
            .map_or(&[], |(bytes, _)| bytes)
    }

    /// The signature.
    #[must_use]
    pub fn signature(&self) -> &[u8; limits::SIGNATURE] {
        &self.signature
    }
}

/// `0x14 ‖ DeviceList`, to be signed.
#[must_use]
pub fn encode_device_list(
    user: &UserId,
    account_key: &AccountKey,
    epoch: u64,
    previous: Option<ListHash>,
    devices: &[ListedDevice],
) -> Vec<u8> {
    let message = pb::DeviceList {
        user: user.as_str().to_owned(),
        account_key: account_key.as_bytes().to_vec(),
        epoch,
        previous: previous.map_or(Vec::new(), |hash| hash.0.to_vec()),
        devices: devices
            .iter()
            .map(|entry| pb::Device {
                device: entry.device.get(),
                identity_key: entry.identity_key.as_bytes().to_vec(),
                flags: entry.flags,
            })
            .collect(),
    };
    let mut bytes = Vec::with_capacity(message.encoded_len().saturating_add(1 + limits::SIGNATURE));
    bytes.push(FrameKind::DeviceList as u8);
    // A Vec grows; encoding into it cannot fail.
    let _ = message.encode(&mut bytes);
    bytes
}

#[cfg(test)]
pub(crate) mod testing {
    use super::*;

    /// A frame of one device, epoch 1, with a signature of nobody.
    pub(crate) fn list_of_one(user: &str) -> Vec<u8> {
        let message = pb::DeviceList {
            user: user.to_owned(),
            account_key: vec![5; 33],
            epoch: 1,
            previous: Vec::new(),
            devices: vec![entry(1)],
        };
        frame(&message)
    }

    /// A frame that can be no larger.
    pub(crate) fn largest_list() -> Vec<u8> {
        let largest_entry = |device| pb::Device {
            flags: u32::MAX,
            ..entry(device)
        };
        frame(&pb::DeviceList {
            user: "x".repeat(limits::USER_ID),
            account_key: vec![5; 33],
            epoch: u64::MAX,
            previous: vec![1; 32],
            devices: (0xffff_ffe0..=u32::MAX).map(largest_entry).collect(),
        })
    }

    pub(super) fn entry(device: u32) -> pb::Device {
        pb::Device {
            device,
            identity_key: [[5].as_slice(), &device.to_be_bytes(), &[7; 28]].concat(),
            flags: HOLDER,
        }
    }

    pub(super) fn frame(message: &pb::DeviceList) -> Vec<u8> {
        let signature = [1; limits::SIGNATURE];
        [&[0x14], message.encode_to_vec().as_slice(), &signature].concat()
    }
}

#[cfg(test)]
mod tests {
    use super::testing::{entry, frame, largest_list};
    use super::*;

    fn with(change: fn(&mut pb::DeviceList)) -> Result<UnverifiedDeviceList, DecodeError> {
        let mut message = pb::DeviceList {
            user: "ann".to_owned(),
            account_key: vec![5; 33],
            epoch: 2,
            previous: vec![1; 32],
            devices: vec![entry(3), entry(4)],
        };
        change(&mut message);
        UnverifiedDeviceList::decode(&frame(&message))
    }

    #[test]
    fn a_list_keeps_its_bytes_and_says_what_is_in_them() {
        let list = with(|it| it.devices[1].flags = 6).unwrap();
        assert_eq!((list.user().as_str(), list.epoch()), ("ann", 2));
        assert_eq!(list.previous(), Some(ListHash::from_bytes([1; 32])));
        let [first, second] = list.devices() else {
            panic!("two devices")
        };
        assert!(first.is_holder() && !second.is_holder());
        assert_eq!((second.device().get(), second.flags()), (4, 6));
        let (signed, signature) = list.frame().split_at(list.frame().len() - 64);
        assert_eq!(
            (list.signed_bytes(), list.signature().as_slice()),
            (signed, signature)
        );
        assert_eq!(list.hash().as_bytes(), &sha256(&[signed]));
    }

    #[test]
    fn the_largest_list_fits_its_frame() {
        let list = UnverifiedDeviceList::decode(&largest_list()).unwrap();
        assert_eq!(list.devices().len(), 32);
        assert_eq!(list.frame().len(), 1_971);
    }

    #[test]
    fn lists_out_of_range_are_malformed() {
        for (at, bad) in [
            with(|it| it.user.clear()),
            with(|it| it.user = "x".repeat(256)),
            with(|it| it.user.push('\u{7f}')),
            with(|it| it.account_key[0] = 0x0A),
            with(|it| it.epoch = 0),
            with(|it| it.epoch = 1), // with a list before it
            with(|it| it.previous.clear()),
            with(|it| it.previous.push(0)),
            with(|it| it.devices.clear()),
            with(|it| it.devices = (1..=33).map(entry).collect()),
            with(|it| it.devices.reverse()),
            with(|it| it.devices[1].device = 3),
            with(|it| it.devices[0].device = 0),
            with(|it| it.devices[1].identity_key = it.devices[0].identity_key.clone()),
            with(|it| it.devices[1].identity_key = it.account_key.clone()),
            with(|it| it.devices[1].identity_key.truncate(32)),
        ]
        .into_iter()
        .enumerate()
        {
            assert_eq!(bad, Err(DecodeError::Malformed), "case {at}");
        }
    }
}
