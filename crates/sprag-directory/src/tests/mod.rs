//! One suite for both storages: each sentence of Appendix C of the protocol that binds a server is a test.

mod blobs;
mod inbox;
mod lists;
mod objects;
mod prekeys;
mod server;
mod storages;

use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng;
use sprag_crypto::{
    AccountKeyPair, Features, IdentityKeyPair, KemPublicKey, PrivateKey, PublicKey, labels,
};
use sprag_wire::relay::{
    BundleQuery, BundleReply, ListQuery, ListReply, ListState, Lists, PreKeyState, PreKeyUpload,
};
use sprag_wire::{
    DeviceAddress, DeviceId, KemKind, KemPreKey, KemPreKeyId, ListHash, ListedDevice,
    OneTimePreKey, OneTimePreKeyId, SignedPreKey, SignedPreKeyId, UnverifiedDeviceList,
    UnverifiedPreKeyBundle, UserId,
};

use crate::{Directory, DirectoryError, Refusal, ServerEpoch, Storage};

/// Runs each generic test over memory and over a folder.
macro_rules! on_both_storages {
    ($($name:ident),* $(,)?) => {
        mod memory {
            $(#[test] fn $name() { super::$name(crate::MemoryStorage::new()); })*
        }
        #[cfg(feature = "folder")]
        mod folder {
            $(#[test] fn $name() {
                let folder = tempfile::tempdir().unwrap();
                super::$name(crate::FolderStorage::open(folder.path()).unwrap());
            })*
        }
    };
}
pub(crate) use on_both_storages;

pub(crate) const EPOCH: ServerEpoch = ServerEpoch::from_bytes([1; 16]);

pub(crate) fn open<S: Storage>(storage: S) -> Directory<S> {
    Directory::open(storage, EPOCH).unwrap()
}

pub(crate) fn user(name: &str) -> UserId {
    UserId::new(name).unwrap()
}

pub(crate) fn address(name: &str, device: u32) -> DeviceAddress {
    DeviceAddress::new(user(name), DeviceId::new(device).unwrap())
}

pub(crate) fn rng(seed: u64) -> ChaCha20Rng {
    ChaCha20Rng::seed_from_u64(seed)
}

/// A user who signs his lists.
pub(crate) struct Account {
    pub(crate) user: UserId,
    pair: AccountKeyPair,
    /// Frames, all of them, from epoch 1 on.
    pub(crate) lists: Vec<Vec<u8>>,
}

impl Account {
    pub(crate) fn new(name: &str, seed: u64) -> Self {
        Self {
            user: user(name),
            pair: AccountKeyPair::generate(&mut rng(seed + (1 << 40))),
            lists: Vec::new(),
        }
    }

    /// Signs the next list.
    pub(crate) fn list(&mut self, devices: &[u32]) -> Vec<u8> {
        let previous = self.lists.last().map(|list| hash(list));
        let epoch = u64::try_from(self.lists.len()).unwrap() + 1;
        let frame = self.sign(epoch, previous, devices);
        self.lists.push(frame.clone());
        frame
    }

    /// Signs any list.
    pub(crate) fn sign(&self, epoch: u64, previous: Option<ListHash>, devices: &[u32]) -> Vec<u8> {
        let devices: Vec<ListedDevice> = devices.iter().map(|device| listed(*device)).collect();
        let key = self.pair.public();
        let mut frame = sprag_wire::encode_device_list(&self.user, key, epoch, previous, &devices);
        let message = [labels::DEVICE_LIST, &frame].concat();
        let signature = self.pair.sign(&message, &mut rng(epoch));
        frame.extend_from_slice(&signature);
        frame
    }
}

/// A device's entry; its identity key follows from its number.
pub(crate) fn listed(device: u32) -> ListedDevice {
    let pair = IdentityKeyPair::generate(&mut rng(u64::from(device)));
    ListedDevice::new(DeviceId::new(device).unwrap(), *pair.public(), 1)
}

pub(crate) fn hash(list: &[u8]) -> ListHash {
    UnverifiedDeviceList::decode(list).unwrap().hash()
}

pub(crate) fn lists(frames: &[Vec<u8>]) -> Vec<u8> {
    Lists::new(frames.to_vec()).encode()
}

/// A directory in which `name` has a first list of `devices`.
pub(crate) fn with_user<S: Storage>(
    storage: S,
    name: &str,
    devices: &[u32],
) -> (Directory<S>, Account) {
    let directory = open(storage);
    let mut account = Account::new(name, 7);
    let list = account.list(devices);
    directory.publish_lists(&lists(&[list])).unwrap();
    (directory, account)
}

pub(crate) fn ask_lists<S: Storage>(
    directory: &Directory<S>,
    name: &str,
    from: u64,
    known: &[u8],
) -> ListReply {
    let query = ListQuery::new(name.to_owned(), from, known.to_vec()).encode();
    ListReply::decode(&directory.lists(&query).unwrap()).unwrap()
}

pub(crate) fn ask_bundles<S: Storage>(
    directory: &Directory<S>,
    name: &str,
    devices: &[u32],
) -> (Vec<UnverifiedPreKeyBundle>, Vec<u32>) {
    let query = BundleQuery::new(name.to_owned(), devices.to_vec(), Vec::new()).encode();
    let reply = BundleReply::decode(&directory.bundles(&query).unwrap()).unwrap();
    let bundles = reply.bundles.iter();
    let bundles = bundles.map(|frame| UnverifiedPreKeyBundle::decode(frame).unwrap());
    (bundles.collect(), reply.missing)
}

pub(crate) fn state<S: Storage>(directory: &Directory<S>, address: &DeviceAddress) -> PreKeyState {
    PreKeyState::decode(&directory.state(address).unwrap()).unwrap()
}

pub(crate) fn list_state(bytes: &[u8]) -> (u32, u64, Vec<u8>) {
    let state = ListState::decode(bytes).unwrap();
    (state.generation, state.epoch, state.hash)
}

pub(crate) fn refusal<T>(result: Result<T, DirectoryError>) -> Refusal {
    match result {
        Err(DirectoryError::Refused(refusal)) => refusal,
        Err(other) => panic!("another error: {other}"),
        Ok(_) => panic!("accepted"),
    }
}

pub(crate) fn conflict<T>(result: Result<T, DirectoryError>) -> Vec<u8> {
    match result {
        Err(DirectoryError::Conflict { newest }) => newest,
        Err(other) => panic!("another error: {other}"),
        Ok(_) => panic!("accepted"),
    }
}

pub(crate) fn curve_key(id: u32) -> PublicKey {
    PrivateKey::from_bytes(&[id.to_be_bytes(); 8].concat().try_into().unwrap()).public_key()
}

pub(crate) fn signed(id: u32) -> SignedPreKey {
    SignedPreKey::new(
        SignedPreKeyId::new(id).unwrap(),
        Features::NONE,
        curve_key(id),
        [9; 64],
    )
}

pub(crate) fn one_time(id: u32) -> OneTimePreKey {
    OneTimePreKey::new(OneTimePreKeyId::new(id).unwrap(), curve_key(id))
}

pub(crate) fn kem(id: u32, kind: KemKind) -> KemPreKey {
    let mut key = vec![0x0A; 1569];
    key[1..5].copy_from_slice(&id.to_be_bytes());
    let key = KemPublicKey::from_bytes(&key).unwrap();
    KemPreKey::new(KemPreKeyId::new(id).unwrap(), kind, key, [9; 64])
}

pub(crate) fn last_resort(id: u32) -> KemPreKey {
    kem(id, KemKind::LastResort)
}

/// An upload of signed prekey 1, last-resort key 1, and one-time keys of the ids given, of each kind.
pub(crate) fn upload(
    number: u64,
    replace: bool,
    one_time_ids: std::ops::RangeInclusive<u32>,
    kem_ids: std::ops::RangeInclusive<u32>,
) -> PreKeyUpload {
    PreKeyUpload::new(
        number,
        replace,
        signed(1),
        last_resort(1),
        one_time_ids.map(one_time).collect(),
        kem_ids.map(|id| kem(id, KemKind::OneTime)).collect(),
    )
}

pub(crate) const NO_IDS: std::ops::RangeInclusive<u32> = std::ops::RangeInclusive::new(1, 0);
