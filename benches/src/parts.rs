//! What the benches of several layers share.

use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;
use sprag_crypto::{AccountKeyPair, Features, IdentityKeyPair};
use sprag_wire::{
    DeviceAddress, DeviceId, HOLDER, KemKind, KemPreKeyId, ListedDevice, OneTimePreKeyId,
    SignedPreKeyId, UnverifiedPreKeyBundle, UserId,
};
use sprag_x3dh::{DeviceList, KemPreKeyPair, OneTimePreKeyPair, SignedPreKeyPair};

pub(crate) fn rng(seed: u64) -> ChaCha20Rng {
    ChaCha20Rng::seed_from_u64(seed)
}

/// A device with one prekey of each sort.
pub(crate) struct Party {
    pub(crate) identity: IdentityKeyPair,
    pub(crate) account: AccountKeyPair,
    pub(crate) address: DeviceAddress,
    pub(crate) list: DeviceList,
    pub(crate) signed: SignedPreKeyPair,
    pub(crate) one_time: OneTimePreKeyPair,
    pub(crate) kem: KemPreKeyPair,
}

impl Party {
    pub(crate) fn new(user: &str, rng: &mut ChaCha20Rng) -> Self {
        let identity = IdentityKeyPair::generate(rng);
        let account = AccountKeyPair::generate(rng);
        let device = DeviceId::new(70_000).unwrap();
        let address = DeviceAddress::new(UserId::new(user).unwrap(), device);
        let entry = ListedDevice::new(device, *identity.public(), HOLDER);
        let list = DeviceList::sign(&account, address.user(), 1, None, &[entry], rng).unwrap();
        let id = SignedPreKeyId::new(3).unwrap();
        let signed = SignedPreKeyPair::generate(id, Features::ACCEPTS_X3DH, &identity, rng);
        let one_time = OneTimePreKeyPair::generate(OneTimePreKeyId::new(11).unwrap(), rng);
        let id = KemPreKeyId::new(5).unwrap();
        let kem = KemPreKeyPair::generate(id, KemKind::OneTime, &identity, rng);
        Self {
            identity,
            account,
            address,
            list,
            signed,
            one_time,
            kem,
        }
    }

    /// The frame that a server hands out.
    pub(crate) fn bundle(&self) -> Vec<u8> {
        UnverifiedPreKeyBundle::new(
            self.address.clone(),
            *self.identity.public(),
            self.signed.public(),
            Some(self.one_time.public()),
            self.kem.public(),
            self.list.frame().to_vec(),
        )
        .encode()
    }
}
