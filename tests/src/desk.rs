//! Devices with their rows, without store and network: for tests at the session layer, where ten thousand rows cost
//! nothing.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::must_use_candidate,
    clippy::missing_panics_doc,
    clippy::exhaustive_structs,
    missing_docs,
    reason = "a test fails by panicking, and reads like its body"
)]

use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;
use sprag_crypto::{AccountKeyPair, Features, IdentityKeyPair, Mode, SessionId};
use sprag_session::hazmat::{self, PeerState};
use sprag_session::{
    Delivery, Device, Env, Failure, MessageId, ProtocolError, Received, SealedFrame, SendError,
    StepError, Task, TaskId,
};
use sprag_store::{MemoryRows, Staged};
use sprag_wire::{
    Body, Content, DeviceAddress, DeviceId, Envelope, HOLDER, KemKind, KemPreKeyId, ListedDevice,
    OneTimePreKeyId, Padding, SignedPreKeyId, UnverifiedPreKeyBundle, UserId,
};
use sprag_x3dh::{DeviceList, KemPreKeyPair, OneTimePreKeyPair, SignedPreKeyPair};

pub const BEGINNING: u64 = 1_700_000_000_000;

pub fn user(name: &str) -> UserId {
    UserId::new(name).unwrap()
}

pub fn number(device: u32) -> DeviceId {
    DeviceId::new(device).unwrap()
}

/// An account whose lists a test makes itself.
pub struct Account {
    pub name: UserId,
    pub key: AccountKeyPair,
    pub identities: Vec<IdentityKeyPair>,
    pub rng: ChaCha20Rng,
}

impl std::fmt::Debug for Account {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Account").finish_non_exhaustive()
    }
}

impl Account {
    pub fn new(name: &str, devices: usize, seed: u64) -> Self {
        let mut rng = ChaCha20Rng::seed_from_u64(seed);
        Self {
            name: user(name),
            key: AccountKeyPair::generate(&mut rng),
            identities: (0..devices)
                .map(|_| IdentityKeyPair::generate(&mut rng))
                .collect(),
            rng,
        }
    }

    /// The list of these devices (counted from 0), at an epoch behind another list.
    pub fn list(
        &mut self,
        epoch: u64,
        before: Option<&DeviceList>,
        devices: &[usize],
    ) -> DeviceList {
        let entries: Vec<_> = devices
            .iter()
            .map(|place| {
                let key = *self.identities[*place].public();
                ListedDevice::new(number(70_000 + *place as u32), key, HOLDER)
            })
            .collect();
        let before = before.map(DeviceList::hash);
        DeviceList::sign(
            &self.key,
            &self.name,
            epoch,
            before,
            &entries,
            &mut self.rng,
        )
        .unwrap()
    }

    pub fn address(&self, place: usize) -> DeviceAddress {
        DeviceAddress::new(self.name.clone(), number(70_000 + place as u32))
    }

    pub fn desk(&mut self, place: usize, list: &DeviceList) -> Desk {
        let mut rows = MemoryRows::new();
        let mut staged = Staged::new(&rows);
        let device = Device::adopt(
            &mut staged,
            self.address(place),
            Features::NONE,
            self.identities[place].clone(),
            *self.key.public(),
            Some(self.key.clone()),
            list.clone(),
        );
        let changes = staged.into_changes();
        changes.check().unwrap();
        rows.apply(changes);
        let rng = ChaCha20Rng::from_rng(&mut self.rng);
        Desk {
            device,
            rows,
            rng,
            now: BEGINNING,
        }
    }
}

/// A device with its rows, without store and network.
pub struct Desk {
    pub device: Device,
    pub rows: MemoryRows,
    pub rng: ChaCha20Rng,
    pub now: u64,
}

impl std::fmt::Debug for Desk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Desk").finish_non_exhaustive()
    }
}

/// A user with one device.
pub fn desk(name: &str, seed: u64) -> Desk {
    let mut account = Account::new(name, 1, seed);
    let list = account.list(1, None, &[0]);
    account.desk(0, &list)
}

impl Desk {
    /// One step; what it changed is kept if it succeeds.
    pub fn step<T, E>(
        &mut self,
        step: impl FnOnce(&mut Device, &mut Staged<'_>, &mut Env<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        let mut staged = Staged::new(&self.rows);
        let mut env = Env::new(self.now, &mut self.rng);
        let result = step(&mut self.device, &mut staged, &mut env)?;
        let changes = staged.into_changes();
        changes.check().unwrap();
        self.rows.apply(changes);
        Ok(result)
    }

    pub fn address(&self) -> DeviceAddress {
        self.device.address().clone()
    }

    /// Prekeys under these ids; the bundle that a server would make of them.
    pub fn bundle(&mut self, signed_id: u32, one_time_id: Option<u32>) -> Vec<u8> {
        let identity = self.device.identity().clone();
        let rng = &mut self.rng;
        let id = SignedPreKeyId::new(signed_id).unwrap();
        let signed = SignedPreKeyPair::generate(id, Features::NONE, &identity, rng);
        let one_time = one_time_id
            .map(|id| OneTimePreKeyPair::generate(OneTimePreKeyId::new(id).unwrap(), rng));
        let id = KemPreKeyId::new(signed_id).unwrap();
        let kem = KemPreKeyPair::generate(id, KemKind::LastResort, &identity, rng);
        self.step(|device, rows, _| {
            device.store_pre_keys(
                rows,
                std::slice::from_ref(&signed),
                one_time.as_slice(),
                std::slice::from_ref(&kem),
            )
        })
        .unwrap();
        let list = self.device.own_list(&self.rows).unwrap();
        UnverifiedPreKeyBundle::new(
            self.address(),
            *self.device.identity_key(),
            signed.public(),
            one_time.map(|pair| pair.public()),
            kem.public(),
            list,
        )
        .encode()
    }

    pub fn open(&mut self, to: &DeviceAddress, bundle: &[u8]) -> SessionId {
        self.step(|device, rows, env| device.open(rows, env, to, bundle, Mode::Pqxdh))
            .unwrap()
            .session_id
    }

    pub fn seal(
        &mut self,
        to: &DeviceAddress,
        content: &Content,
    ) -> Result<SealedFrame, StepError> {
        self.step(|device, rows, env| device.seal(rows, env, to, &content.encode(), Padding::Padme))
    }

    pub fn say(&mut self, to: &DeviceAddress, id: u128) -> SealedFrame {
        let content = Content::new(
            id.to_be_bytes(),
            self.now,
            Body::Application(b"hi".to_vec()),
        );
        self.seal(to, &content).unwrap()
    }

    pub fn receive(&mut self, from: &DeviceAddress, frame: &[u8]) -> Result<Received, StepError> {
        self.step(|device, rows, env| device.receive(rows, env, from, frame))
    }

    /// As it comes from the server.
    pub fn take(&mut self, from: &DeviceAddress, sealed: &SealedFrame) -> Delivery {
        let to = self.address();
        let envelope = Envelope::new(from.clone(), to, sealed.salt, sealed.frame.clone()).encode();
        self.step(|device, rows, env| device.take_envelope(rows, env, &envelope))
            .unwrap()
    }

    /// Whether it brought a message; it is read at once.
    pub fn hears(&mut self, from: &DeviceAddress, sealed: &SealedFrame) -> bool {
        let Some(message) = self.take(from, sealed).message else {
            return false;
        };
        self.step(|device, rows, _| device.acknowledge(rows, message.id))
            .unwrap();
        true
    }

    pub fn send(&mut self, to: &str, id: u128) -> Result<(), SendError> {
        let id = MessageId::from_bytes(id.to_be_bytes());
        self.step(|device, rows, env| device.send(rows, env, &user(to), b"hi", id))
    }

    pub fn tasks(&self) -> Vec<Task> {
        self.device.tasks(&self.rows, self.now, 100_000).unwrap()
    }

    pub fn fetch(&self) -> TaskId {
        self.tasks()
            .iter()
            .find(|task| matches!(task, Task::FetchBundles { .. }))
            .unwrap()
            .id()
    }

    pub fn supply(&mut self, id: TaskId, reply: &[u8]) -> Result<(), ProtocolError> {
        self.step(|device, rows, env| device.supply(rows, env, id, reply))
            .unwrap()
    }

    pub fn failed(&mut self, id: TaskId, failure: &Failure) {
        self.step(|device, rows, env| device.failed(rows, env, id, failure))
            .unwrap();
    }

    pub fn events(&self) -> Vec<String> {
        let events = self.device.events(&self.rows, 0).unwrap();
        events
            .iter()
            .map(|(_, event)| format!("{event:?}"))
            .collect()
    }

    pub fn peer(&mut self, of: &DeviceAddress) -> PeerState {
        let staged = Staged::new(&self.rows);
        let peers = self.device.peers(&staged, of.user()).unwrap();
        peers.into_iter().find(|peer| peer.address == *of).unwrap()
    }

    pub fn knows(&self, name: &str) -> bool {
        let users = self.device.users(&self.rows).unwrap();
        users.iter().any(|(known, _)| *known == user(name))
    }

    /// The newest list that is remembered of a user.
    pub fn known_list(&self, name: &str) -> DeviceList {
        let frame = self.device.newest_list(&self.rows, &user(name)).unwrap();
        let list = sprag_wire::UnverifiedDeviceList::decode(&frame.unwrap()).unwrap();
        DeviceList::verify(list).unwrap()
    }

    pub fn strangers(&self) -> usize {
        hazmat::count(&self.rows, 0x17).unwrap()
    }

    /// Rows but for those of our own device.
    pub fn rows_of_others(&self) -> usize {
        let ours = [0x01, 0x02, 0x03, 0x04, 0x05, 0x15, 0x16, 0x52, 0x53];
        self.rows
            .iter()
            .filter(|(name, _)| !ours.contains(&name.table()))
            .count()
    }
}

pub fn refused<T>(result: Result<T, StepError>) -> ProtocolError {
    match result {
        Err(StepError::Protocol(error)) => error,
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("it was taken"),
    }
}

/// A stranger opens a session from a bundle and says something.
pub fn first_word(stranger: &mut Desk, to: &DeviceAddress, bundle: &[u8]) -> SealedFrame {
    stranger.open(to, bundle);
    stranger.say(to, 1)
}

/// Two who have written to each other, and so accepted each other.
pub fn friends() -> (Desk, Desk) {
    let (mut alice, mut bob) = (desk("alice", 1), desk("bob", 2));
    let bundle = bob.bundle(1, Some(1));
    let (a, b) = (alice.address(), bob.address());
    let first = first_word(&mut alice, &b, &bundle);
    bob.take(&a, &first);
    let list = alice.device.own_list(&alice.rows).unwrap();
    bob.step(|device, rows, _| device.learn(rows, &user("alice"), &list, false))
        .unwrap();
    let answer = bob.say(&a, 2);
    alice.take(&b, &answer);
    (alice, bob)
}
