//! What the unit tests share.

mod agreement;

use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;
use sprag_crypto::{
    AccountKeyPair, Features, HandshakeParts, HandshakeSecret, IdentityKeyPair, Mode, PublicKey,
};
use sprag_wire::{
    DeviceAddress, DeviceId, Handshake, KemKind, KemPreKeyId, ListedDevice, OneTimePreKeyId,
    SignedPreKeyId, UnverifiedPreKeyBundle, UserId,
};

use crate::{
    DeviceList, HandshakeError, Initiated, Initiator, KemPreKeyPair, OneTimePreKeyPair,
    PreKeyBundle, Responder, ResponderKeys, SignedPreKeyPair, initiate, respond,
};

pub(crate) fn rng(seed: u64) -> ChaCha20Rng {
    ChaCha20Rng::seed_from_u64(seed)
}

pub(crate) fn address(user: &str, device: u32) -> DeviceAddress {
    DeviceAddress::new(UserId::new(user).unwrap(), DeviceId::new(device).unwrap())
}

/// Keys of low order: u = 0, u = 1, and one of order 8. All agree on zero with everybody.
pub(crate) fn keys_of_low_order() -> [PublicKey; 3] {
    [
        "050000000000000000000000000000000000000000000000000000000000000000",
        "050100000000000000000000000000000000000000000000000000000000000000",
        "05e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
    ]
    .map(|key| PublicKey::from_bytes(&hex::decode(key).unwrap()).unwrap())
}

/// A device with one prekey of each sort.
pub(crate) struct Party {
    pub(crate) identity: IdentityKeyPair,
    pub(crate) address: DeviceAddress,
    pub(crate) features: Features,
    pub(crate) list: DeviceList,
    pub(crate) signed: SignedPreKeyPair,
    pub(crate) one_time: Option<OneTimePreKeyPair>,
    pub(crate) kem: KemPreKeyPair,
}

impl Party {
    pub(crate) fn new(user: &str, features: Features, seed: u64) -> Self {
        let mut rng = rng(seed);
        let identity = IdentityKeyPair::generate(&mut rng);
        let account = AccountKeyPair::generate(&mut rng);
        let address = address(user, 70_000);
        let entry = ListedDevice::new(address.device(), *identity.public(), sprag_wire::HOLDER);
        let list = DeviceList::sign(&account, address.user(), 1, None, &[entry], &mut rng).unwrap();
        let signed = SignedPreKeyPair::generate(
            SignedPreKeyId::new(3).unwrap(),
            features,
            &identity,
            &mut rng,
        );
        let one_time = OneTimePreKeyPair::generate(OneTimePreKeyId::new(11).unwrap(), &mut rng);
        let kem = KemPreKeyPair::generate(
            KemPreKeyId::new(5).unwrap(),
            KemKind::OneTime,
            &identity,
            &mut rng,
        );
        Self {
            identity,
            address,
            features,
            list,
            signed,
            one_time: Some(one_time),
            kem,
        }
    }

    pub(crate) fn bundle(&self) -> UnverifiedPreKeyBundle {
        UnverifiedPreKeyBundle::new(
            self.address.clone(),
            *self.identity.public(),
            self.signed.public(),
            self.one_time.as_ref().map(OneTimePreKeyPair::public),
            self.kem.public(),
            self.list.frame().to_vec(),
        )
    }

    pub(crate) fn initiate(
        &self,
        theirs: UnverifiedPreKeyBundle,
        mode: Mode,
        rng: &mut ChaCha20Rng,
    ) -> Result<Initiated, HandshakeError> {
        let ours = Initiator {
            identity: &self.identity,
            address: &self.address,
            features: self.features,
            device_list: self.list.frame(),
            responder_epoch: 1,
            responder_list: self.list.hash(),
        };
        initiate(&ours, &PreKeyBundle::verify(theirs).unwrap(), mode, rng)
    }

    /// Takes all that a handshake of that mode names from our own keys.
    pub(crate) fn respond(
        &self,
        initiator: &DeviceAddress,
        handshake: &[u8],
        parsed: &Handshake,
    ) -> Result<HandshakeSecret, sprag_crypto::InvalidKey> {
        let ours = Responder {
            identity: &self.identity,
            address: &self.address,
        };
        let keys = ResponderKeys {
            signed: &self.signed,
            one_time: self.one_time.as_ref(),
            kem: parsed.kem.as_ref().map(|_| &self.kem),
        };
        respond(&ours, initiator, handshake, parsed, &keys)
    }
}

/// The four secrets of a handshake.
pub(crate) fn secrets(secret: HandshakeSecret) -> [[u8; 32]; 4] {
    let parts: Box<HandshakeParts> = secret.into_parts();
    [parts.sk, parts.hk_i, parts.hk_r, parts.pqk]
}

/// Whether nothing at all is the same.
pub(crate) fn all_differ(ours: &[[u8; 32]; 4], theirs: &[[u8; 32]; 4]) -> bool {
    ours.iter().zip(theirs).all(|(ours, theirs)| ours != theirs)
}
