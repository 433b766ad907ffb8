//! Device lists whose signature holds ("The protocol", §1.2).

use rand_core::CryptoRng;
use sprag_crypto::{AccountKey, AccountKeyPair, BadSignature, labels};
use sprag_wire::{
    ListHash, ListedDevice, UnverifiedDeviceList, UserId, encode_device_list, limits,
};

use crate::ListError;

/// A list that the account key in it has signed. Whether that key is the user's is another question: it is to be
/// judged against what is remembered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceList(UnverifiedDeviceList);

impl DeviceList {
    /// Verifies the signature of the account key that the list names.
    ///
    /// # Errors
    /// [`BadSignature`].
    pub fn verify(list: UnverifiedDeviceList) -> Result<Self, BadSignature> {
        list.account_key()
            .verify(&message(list.signed_bytes()), list.signature())?;
        Ok(Self(list))
    }

    /// A list that was verified before: its hash is the one remembered. The signature is not looked at again, and the
    /// hash does not cover it: a frame from outside may carry any 64 bytes there, so only one that was stored after
    /// [`verify`](Self::verify) is fit to be handed on.
    #[must_use]
    pub fn already_known(list: UnverifiedDeviceList, remembered: &ListHash) -> Option<Self> {
        (list.hash() == *remembered).then_some(Self(list))
    }

    /// Signs a list; draws 64 bytes.
    ///
    /// # Errors
    /// [`ListError`]: the parts break the rules of a list.
    pub fn sign(
        account: &AccountKeyPair,
        user: &UserId,
        epoch: u64,
        previous: Option<ListHash>,
        devices: &[ListedDevice],
        rng: &mut (impl CryptoRng + ?Sized),
    ) -> Result<Self, ListError> {
        let ascending = devices.is_sorted_by(|a, b| a.device() < b.device());
        if devices.is_empty() || devices.len() > limits::DEVICES || !ascending {
            return Err(ListError::Devices);
        }
        if epoch == 0 || (epoch == 1) != previous.is_none() {
            return Err(ListError::Epoch);
        }
        let mut frame = encode_device_list(user, account.public(), epoch, previous, devices);
        let signature = account.sign(&message(&frame), rng);
        frame.extend_from_slice(&signature);
        // All other rules of a list are those of its decoder.
        UnverifiedDeviceList::decode(&frame)
            .map(Self)
            .map_err(|_| ListError::Keys)
    }

    /// The user.
    #[must_use]
    pub fn user(&self) -> &UserId {
        self.0.user()
    }

    /// The key that signed it.
    #[must_use]
    pub fn account_key(&self) -> &AccountKey {
        self.0.account_key()
    }

    /// Its epoch, at least 1.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.0.epoch()
    }

    /// Hash of the list before; none in epoch 1.
    #[must_use]
    pub fn previous(&self) -> Option<ListHash> {
        self.0.previous()
    }

    /// The devices, ascending.
    #[must_use]
    pub fn devices(&self) -> &[ListedDevice] {
        self.0.devices()
    }

    /// `LH`.
    #[must_use]
    pub fn hash(&self) -> ListHash {
        self.0.hash()
    }

    /// The frame `0x14`, at most 2,048 bytes.
    #[must_use]
    pub fn frame(&self) -> &[u8] {
        self.0.frame()
    }
}

fn message(list: &[u8]) -> Vec<u8> {
    [labels::DEVICE_LIST, list].concat()
}

#[cfg(test)]
mod tests {
    use rand_chacha::ChaCha20Rng;
    use rand_core::SeedableRng;
    use sprag_crypto::IdentityKeyPair;
    use sprag_wire::{DeviceId, HOLDER};

    use super::*;

    fn rng() -> ChaCha20Rng {
        ChaCha20Rng::seed_from_u64(1)
    }

    fn entry(device: u32, seed: u64) -> ListedDevice {
        let identity = IdentityKeyPair::generate(&mut ChaCha20Rng::seed_from_u64(seed));
        ListedDevice::new(DeviceId::new(device).unwrap(), *identity.public(), HOLDER)
    }

    fn sign(
        epoch: u64,
        previous: Option<ListHash>,
        devices: &[ListedDevice],
    ) -> Result<DeviceList, ListError> {
        let account = AccountKeyPair::generate(&mut rng());
        DeviceList::sign(
            &account,
            &UserId::new("ann").unwrap(),
            epoch,
            previous,
            devices,
            &mut rng(),
        )
    }

    #[test]
    fn a_signed_list_verifies_and_a_changed_one_does_not() {
        let list = sign(1, None, &[entry(70_000, 2)]).unwrap();
        let claimed = UnverifiedDeviceList::decode(list.frame()).unwrap();
        assert_eq!(DeviceList::verify(claimed), Ok(list.clone()));
        let mut refused = 0;
        for at in 1..list.frame().len() {
            let mut frame = list.frame().to_vec();
            frame[at] ^= 1;
            if let Ok(claimed) = UnverifiedDeviceList::decode(&frame) {
                assert!(DeviceList::verify(claimed).is_err(), "byte {at}");
                refused += 1;
            }
        }
        assert!(refused > 100);
    }

    #[test]
    fn a_known_hash_spares_the_signature_and_another_hash_does_not() {
        let list = sign(1, None, &[entry(70_000, 2)]).unwrap();
        let mut frame = list.frame().to_vec();
        *frame.last_mut().unwrap() ^= 1;
        let claimed = UnverifiedDeviceList::decode(&frame).unwrap();
        assert!(DeviceList::already_known(claimed.clone(), &list.hash()).is_some());
        assert!(DeviceList::verify(claimed.clone()).is_err());
        assert!(DeviceList::already_known(claimed, &ListHash::from_bytes([0; 32])).is_none());
    }

    #[test]
    fn lists_that_break_the_rules_are_not_signed() {
        let hash = ListHash::from_bytes([7; 32]);
        let (a, b) = (entry(70_000, 2), entry(70_001, 3));
        assert!(sign(2, Some(hash), &[a, b]).is_ok());
        assert_eq!(sign(1, None, &[]), Err(ListError::Devices));
        assert_eq!(sign(1, None, &[b, a]), Err(ListError::Devices));
        assert_eq!(sign(1, None, &[a, a]), Err(ListError::Devices));
        assert_eq!(sign(1, None, &[a, entry(70_001, 2)]), Err(ListError::Keys));
        assert_eq!(sign(0, None, &[a]), Err(ListError::Epoch));
        assert_eq!(sign(1, Some(hash), &[a]), Err(ListError::Epoch));
        assert_eq!(sign(2, None, &[a]), Err(ListError::Epoch));
        let many: Vec<_> = (0..33)
            .map(|n| entry(70_000 + n, u64::from(n) + 9))
            .collect();
        assert_eq!(sign(1, None, &many), Err(ListError::Devices));
        assert!(sign(1, None, &many[..32]).is_ok());
    }
}
