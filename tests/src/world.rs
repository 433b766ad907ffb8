//! A whole world from one seed: clients, their stores, a server, and a network that may lose, duplicate, reorder, delay
//! and corrupt. It runs in one thread; the same seed gives the same world, so a bug is a number.
//!
//! ```
//! use sprag_tests::world::World;
//!
//! let mut world = World::new(7);
//! let (alice, bob) = (world.join("alice"), world.join("bob"));
//! world.send(alice, "bob", b"hello");
//! world.settle();
//! assert_eq!(world.heard(bob), [("alice".to_owned(), b"hello".to_vec())]);
//! ```
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "a test fails by panicking"
)]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rand_chacha::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};
use sprag::store::{Image, Loaded, Sink, Staged, Store, StoreKeys};
use sprag::{
    Client, Error, Failure, InboxId, Key, MessageId, Received, Restore, Surroundings, Task, TaskId,
    Transport,
};
use sprag_crypto::{Salt, sha256};
use sprag_directory::{Directory, DirectoryError, MemoryStorage, ServerEpoch, Storage};
use sprag_wire::relay::BundleReply;
use sprag_wire::{DeviceAddress, DeviceId, Envelope, KemKind, UnverifiedPreKeyBundle, UserId};

use crate::network::keep;
use crate::shelf::Shelf;

/// When every world begins, in milliseconds since 1970.
pub const BEGINNING: u64 = 1_700_000_000_000;

/// What the network does, in percent of the envelopes that pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Weather {
    /// Not brought this time. The server offers it again.
    pub delayed: u32,
    /// Brought twice.
    pub duplicated: u32,
    /// Brought with one bit flipped; the good one comes later.
    pub corrupted: u32,
    /// Gone for good.
    pub lost: u32,
    /// Brought in any order.
    pub reordered: bool,
}

impl Weather {
    /// Everything comes once, in order.
    pub const CALM: Self = Self {
        delayed: 0,
        duplicated: 0,
        corrupted: 0,
        lost: 0,
        reordered: false,
    };

    /// All sorts of trouble, but nothing is gone for good.
    pub const ROUGH: Self = Self {
        delayed: 30,
        duplicated: 20,
        corrupted: 10,
        lost: 0,
        reordered: true,
    };
}

/// One of a world's devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Who(usize);

/// Where a device keeps its rows.
#[derive(Debug, Clone)]
enum Home {
    Memory(Shelf, [u8; 32]),
    Disk(PathBuf),
}

struct Party {
    user: String,
    address: DeviceAddress,
    home: Home,
    /// `None` while it is switched off.
    client: Option<Client>,
    /// What the application took over: sender and bytes.
    heard: Vec<(String, Vec<u8>)>,
    /// Every message that was ever offered, to see that it does not change.
    offered: BTreeMap<InboxId, (String, Vec<u8>)>,
}

/// What the server answers to a task.
pub type Reply = Result<Vec<u8>, DirectoryError>;

/// What becomes of an answer.
type Liar = Box<dyn FnMut(&Task, Reply) -> Reply>;

/// The world.
pub struct World {
    rng: ChaCha20Rng,
    clock: Arc<AtomicU64>,
    server: Directory<MemoryStorage>,
    /// What the server keeps its rows in.
    storage: MemoryStorage,
    /// One-time prekeys that were handed out: device, whether it is a KEM prekey, id.
    handed_out: Vec<(DeviceAddress, bool, u32)>,
    weather: Weather,
    parties: Vec<Party>,
    /// Every envelope that was ever offered: one id, one byte string.
    envelopes: BTreeMap<[u8; 16], Vec<u8>>,
    trace: Vec<String>,
    disk: Option<tempfile::TempDir>,
    /// What a server that is not honest makes of its answers.
    liar: Option<Liar>,
    /// By how much the clocks of some users are wrong, in milliseconds.
    wrong_clocks: BTreeMap<String, i64>,
}

impl std::fmt::Debug for World {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("World").finish_non_exhaustive()
    }
}

fn drawn(rng: &mut ChaCha20Rng) -> ChaCha20Rng {
    let mut seed = [0; 32];
    rng.fill_bytes(&mut seed);
    ChaCha20Rng::from_seed(seed)
}

impl World {
    /// A world in memory and calm weather.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let epoch = ServerEpoch::from_bytes([7; 16]);
        let storage = MemoryStorage::new();
        Self {
            rng: ChaCha20Rng::seed_from_u64(seed),
            clock: Arc::new(AtomicU64::new(BEGINNING)),
            server: Directory::open(storage.clone(), epoch).unwrap(),
            storage,
            handed_out: Vec::new(),
            weather: Weather::CALM,
            parties: Vec::new(),
            envelopes: BTreeMap::new(),
            trace: Vec::new(),
            disk: None,
            liar: None,
            wrong_clocks: BTreeMap::new(),
        }
    }

    /// A world whose clients keep their rows on this machine's disk.
    #[must_use]
    pub fn on_disk(seed: u64) -> Self {
        let mut world = Self::new(seed);
        world.disk = Some(tempfile::tempdir().unwrap());
        world
    }

    /// Changes the weather.
    pub fn set_weather(&mut self, weather: Weather) {
        self.weather = weather;
    }

    /// A number below `bound`, from the world's seed.
    pub fn below(&mut self, bound: usize) -> usize {
        (self.rng.next_u64() % bound as u64) as usize
    }

    fn chance(&mut self, percent: u32) -> bool {
        self.below(100) < percent as usize
    }

    fn note(&mut self, event: String) {
        self.trace.push(event);
    }

    /// What happened so far, line by line.
    #[must_use]
    pub fn trace(&self) -> &[String] {
        &self.trace
    }

    /// The time, in milliseconds since 1970.
    #[must_use]
    pub fn now(&self) -> u64 {
        self.clock.load(Ordering::SeqCst)
    }

    /// Lets time pass.
    pub fn wait(&mut self, milliseconds: u64) {
        self.clock.fetch_add(milliseconds, Ordering::SeqCst);
    }

    /// The server.
    #[must_use]
    pub fn server(&self) -> &Directory<MemoryStorage> {
        &self.server
    }

    /// A copy of all that the server has, as an operator makes it at night.
    #[must_use]
    pub fn backup_of_server(&self) -> MemoryStorage {
        self.storage.backup()
    }

    /// The server is set back to a copy, or to nothing. `epoch`: it notices and begins a new one.
    pub fn set_server_back(&mut self, to: &MemoryStorage, epoch: Option<u8>) {
        self.note(format!("the server goes back, epoch {epoch:?}"));
        self.storage = to.backup();
        let first = ServerEpoch::from_bytes([epoch.unwrap_or(7); 16]);
        self.server = Directory::open(self.storage.clone(), first).unwrap();
        if let Some(epoch) = epoch {
            let epoch = ServerEpoch::from_bytes([epoch; 16]);
            self.server.restored(epoch).unwrap();
        }
    }

    /// A device connects to the server, which tells its epoch and what it holds of the device's prekeys.
    pub fn connect(&mut self, who: Who) {
        let epoch = self.server.epoch().unwrap();
        let state = self.server.state(self.address(who)).unwrap();
        let client = self.client(who);
        client.server_epoch(epoch.as_bytes()).unwrap();
        client.supply_pre_key_state(&state).unwrap();
    }

    /// One-time prekeys that the server handed out so far.
    #[must_use]
    pub fn handed_out(&self) -> &[(DeviceAddress, bool, u32)] {
        &self.handed_out
    }

    /// How many devices there are.
    #[must_use]
    pub fn devices(&self) -> usize {
        self.parties.len()
    }

    /// One of them, by its place.
    #[must_use]
    pub fn device(&self, place: usize) -> Who {
        Who(place)
    }

    fn surroundings(&mut self, user: &str) -> Surroundings {
        let clock = self.clock.clone();
        let wrong = self.wrong_clocks.get(user).copied().unwrap_or_default();
        let now = move || clock.load(Ordering::SeqCst).saturating_add_signed(wrong);
        Surroundings::new(now, drawn(&mut self.rng))
    }

    /// A new user with one device, whose lists and prekeys are published.
    pub fn join(&mut self, user: &str) -> Who {
        let who = self.join_offline(user);
        self.work(who);
        who
    }

    /// A new user with one device that has published nothing yet.
    pub fn join_offline(&mut self, user: &str) -> Who {
        let who = Who(self.parties.len());
        let home = match &self.disk {
            Some(disk) => Home::Disk(disk.path().join(format!("{}.sprag", who.0))),
            None => {
                let mut keys = [0; 32];
                self.rng.fill_bytes(&mut keys);
                Home::Memory(Shelf::new(), keys)
            }
        };
        let client = self.open(&home, user);
        let device = DeviceId::new(client.device().unwrap()).unwrap();
        self.note(format!("join {user}, device {}", device.get()));
        self.settle_in(user, device, home, client)
    }

    fn settle_in(&mut self, user: &str, device: DeviceId, home: Home, client: Client) -> Who {
        self.parties.push(Party {
            user: user.to_owned(),
            address: DeviceAddress::new(UserId::new(user).unwrap(), device),
            home,
            client: Some(client),
            heard: Vec::new(),
            offered: BTreeMap::new(),
        });
        Who(self.parties.len() - 1)
    }

    /// A new user with several devices, all of them holders, each linked by the first.
    pub fn join_with_devices(&mut self, user: &str, count: u32) -> Vec<Who> {
        let mut all = vec![self.join(user)];
        for _ in 1..count {
            let new = self.begin_link(user);
            self.link(all[0], new, true);
            all.push(new);
        }
        all
    }

    /// A new device of a user, which shows a link request and has no number yet. Only in memory.
    pub fn begin_link(&mut self, user: &str) -> Who {
        let mut keys = [0; 32];
        self.rng.fill_bytes(&mut keys);
        let home = Home::Memory(Shelf::new(), keys);
        let store = self.store(&home);
        let surroundings = self.surroundings(user);
        let client = Client::with_store_linked(store, user, surroundings).unwrap();
        self.note(format!("begin to link a device of {user}"));
        self.settle_in(user, DeviceId::new(1).unwrap(), home, client)
    }

    /// A holder reads what a new device shows, and both do what follows, until the new device has its keys.
    pub fn link(&mut self, holder: Who, new: Who, as_holder: bool) -> u32 {
        let request = self.client(new).link_request().unwrap();
        let number = self
            .client(holder)
            .link_device(&request, as_holder)
            .unwrap();
        self.note(format!("link {} by {}: {number}", new.0, holder.0));
        for _ in 0..10 {
            for who in [holder, new] {
                self.work(who);
                self.poll(who);
            }
            if self.client(new).is_linked().unwrap() {
                return number;
            }
            self.wait(3_001);
        }
        panic!("the device is not linked");
    }

    fn store(&mut self, home: &Home) -> Store {
        let Home::Memory(shelf, keys) = home else {
            panic!("a store in memory");
        };
        let rng = drawn(&mut self.rng);
        let keys = StoreKeys::generate(&mut ChaCha20Rng::from_seed(*keys));
        let image = Image::load(shelf.clone()).unwrap();
        if shelf.load().unwrap().rows.is_empty() {
            Store::create_over(image, &keys, rng).unwrap()
        } else {
            Store::open_over(image, &keys, rng).unwrap()
        }
    }

    fn open(&mut self, home: &Home, user: &str) -> Client {
        let surroundings = self.surroundings(user);
        match home {
            Home::Memory(..) => {
                let store = self.store(home);
                Client::with_store(store, user, surroundings).unwrap()
            }
            Home::Disk(path) => {
                let key = Key::raw([5; 32]);
                Client::start_open_or_create_in(path, key, user, surroundings)
                    .wait()
                    .unwrap()
            }
        }
    }

    /// Changes a device's rows behind its back, while it is switched off. Only in memory.
    pub fn edit_rows(&mut self, who: Who, edit: impl FnOnce(&mut Staged<'_>)) {
        self.client(who).close().unwrap();
        let home = self.parties[who.0].home.clone();
        let store = self.store(&home);
        let mut rows = Staged::new(&store);
        edit(&mut rows);
        let changes = rows.into_changes();
        store.commit_blocking(changes).unwrap();
        store.close().unwrap();
        self.switch_on(who);
    }

    /// A client over other rows than a device's own, under its keys: what opens after somebody was at them. Only in memory.
    ///
    /// # Errors
    /// Why it does not open.
    pub fn open_rows(&mut self, who: Who, rows: Loaded) -> Result<Client, Error> {
        let store = self.store_over(who, rows)?;
        let user = self.parties[who.0].user.clone();
        let surroundings = self.surroundings(&user);
        Client::with_store(store, &user, surroundings)
    }

    /// A store over other rows than a device's own, under its keys. Only in memory.
    ///
    /// # Errors
    /// Why it does not open.
    pub fn store_over(
        &mut self,
        who: Who,
        rows: Loaded,
    ) -> Result<Store, sprag::store::StoreError> {
        let keys = self.store_keys(who);
        let image = Image::load(Shelf::of(rows))?;
        Store::open_over(image, &keys, drawn(&mut self.rng))
    }

    /// The keys of a device's store. Only in memory.
    #[must_use]
    pub fn store_keys(&self, who: Who) -> StoreKeys {
        let Home::Memory(_, keys) = &self.parties[who.0].home else {
            panic!("a world in memory");
        };
        StoreKeys::generate(&mut ChaCha20Rng::from_seed(*keys))
    }

    /// The client of a device that is switched on.
    #[must_use]
    pub fn client(&self, who: Who) -> &Client {
        self.parties[who.0].client.as_ref().unwrap()
    }

    /// The address of a device.
    #[must_use]
    pub fn address(&self, who: Who) -> &DeviceAddress {
        &self.parties[who.0].address
    }

    /// Where a device in memory keeps its rows.
    #[must_use]
    pub fn shelf(&self, who: Who) -> &Shelf {
        match &self.parties[who.0].home {
            Home::Memory(shelf, _) => shelf,
            Home::Disk(_) => panic!("a world in memory"),
        }
    }

    /// Where a device on disk keeps its rows.
    #[must_use]
    pub fn path(&self, who: Who) -> &std::path::Path {
        match &self.parties[who.0].home {
            Home::Disk(path) => path,
            Home::Memory(..) => panic!("a world on disk"),
        }
    }

    /// Closes a client and opens it again.
    pub fn restart(&mut self, who: Who) {
        self.note(format!("restart {}", who.0));
        self.client(who).close().unwrap();
        self.switch_on(who);
    }

    /// Cuts the power, and opens the client again on what was on stable storage. Only in memory.
    pub fn crash(&mut self, who: Who) {
        self.note(format!("crash {}", who.0));
        let shelf = self.shelf(who).after_power_cut();
        let party = &mut self.parties[who.0];
        if let Home::Memory(old, _) = &mut party.home {
            *old = shelf;
        }
        self.switch_on(who);
    }

    /// A store over the rows of a device, to go on with. Only in memory.
    pub fn store_of(&mut self, who: Who) -> Store {
        let home = self.parties[who.0].home.clone();
        self.store(&home)
    }

    /// Puts an older copy of its rows in the place of a device's, and opens the client again on it. Only in memory.
    pub fn set_back(&mut self, who: Who, copy: Shelf) {
        self.note(format!("set back {}", who.0));
        if let Home::Memory(shelf, _) = &mut self.parties[who.0].home {
            *shelf = copy;
        }
        self.switch_on(who);
    }

    /// Cuts the power while `work` is under way: nothing that it began comes to the disk, but for the first `taken` batches,
    /// and nobody hears of anything. Only in memory.
    pub fn power_cut(&mut self, who: Who, taken: usize, work: impl FnOnce(&Client)) {
        self.note(format!("power cut {}, {taken} batches taken", who.0));
        let shelf = self.shelf(who).clone();
        shelf.hold();
        work(self.client(who));
        let left = shelf.after_power_cut_with(taken);
        if let Home::Memory(old, _) = &mut self.parties[who.0].home {
            *old = left;
        }
        self.switch_on(who);
    }

    /// Makes a new device out of a backup. What its server is asked, and answers, comes with its tasks.
    ///
    /// # Errors
    /// Those of `Client::restore`; nothing is left then.
    pub fn restore(
        &mut self,
        user: &str,
        backup: &[u8],
        opener: &Key,
        how: &Restore,
    ) -> Result<Who, Error> {
        let mut keys = [0; 32];
        self.rng.fill_bytes(&mut keys);
        let home = Home::Memory(Shelf::new(), keys);
        let store = self.store(&home);
        let surroundings = self.surroundings(user);
        let client = Client::restore_with_store(store, backup, opener, how, surroundings)?;
        let device = DeviceId::new(client.device()?).unwrap();
        self.note(format!("restore {user}, device {}", device.get()));
        Ok(self.settle_in(user, device, home, client))
    }

    /// Switches a device off for good.
    pub fn lose(&mut self, who: Who) {
        self.note(format!("lose {}", who.0));
        self.parties[who.0].client = None;
    }

    /// From now on the clocks of a user's devices are wrong by so many milliseconds. It shows when they are opened.
    pub fn set_clock_wrong(&mut self, user: &str, by: i64) {
        self.wrong_clocks.insert(user.to_owned(), by);
    }

    fn switch_on(&mut self, who: Who) {
        let party = &mut self.parties[who.0];
        party.client = None;
        let (home, user) = (party.home.clone(), party.user.clone());
        let client = self.open(&home, &user);
        self.parties[who.0].client = Some(client);
    }

    /// Sends a message.
    pub fn send(&mut self, who: Who, to: &str, text: &[u8]) -> MessageId {
        let id = self.client(who).send_encrypted_message(to, text).unwrap();
        self.note(format!("send {} to {to}: {id}", who.0));
        id
    }

    /// The tasks of a device, as they are offered now. An envelope is the same whenever it is offered.
    pub fn tasks(&mut self, who: Who) -> Vec<Task> {
        let tasks = match self.client(who).tasks() {
            Err(error) if error.code() == "link_expired" => Vec::new(),
            tasks => tasks.unwrap(),
        };
        for task in &tasks {
            if let Task::Deliver { envelope, .. } = task {
                let id = *Envelope::decode(envelope).unwrap().id().as_bytes();
                let first = self.envelopes.entry(id).or_insert_with(|| envelope.clone());
                assert_eq!(first, envelope, "one salt, two frames");
            }
        }
        tasks
    }

    /// Every envelope that was ever offered, by its id.
    #[must_use]
    pub fn envelopes(&self) -> &BTreeMap<[u8; 16], Vec<u8>> {
        &self.envelopes
    }

    /// Does one task.
    pub fn perform(&mut self, who: Who, task: &Task) {
        let id = task.id();
        let reply = match task {
            Task::Deliver { envelope, .. } => {
                let id = hex::encode(&sha256(&[envelope])[..8]);
                self.note(format!("deliver {}: {id}", who.0));
                self.server.deliver(envelope).map(|()| Vec::new())
            }
            Task::FetchDevices { query, .. } => self.server.lists(query),
            Task::FetchBundles { query, .. } => {
                let reply = self.server.bundles(query);
                self.note_handed_out(reply.as_deref().unwrap_or_default());
                reply
            }
            Task::PublishPreKeys { upload, .. } => {
                self.server.upload_pre_keys(self.address(who), upload)
            }
            Task::PublishDevices { lists, .. } => self.server.publish_lists(lists),
            task => {
                let user = self.address(who).user();
                keep(&self.server, user, task).map(Option::unwrap_or_default)
            }
        };
        let reply = match self.liar.as_mut() {
            Some(lie) => lie(task, reply),
            None => reply,
        };
        match reply {
            Ok(reply) => self.finish(who, id, task, &reply),
            Err(error) => self.fail(who, id, &error),
        }
    }

    /// From now on the server's answers to tasks are what `lie` makes of them.
    pub fn let_server_lie(&mut self, lie: impl FnMut(&Task, Reply) -> Reply + 'static) {
        self.liar = Some(Box::new(lie));
    }

    /// From now on the server answers as it should.
    pub fn let_server_be_honest(&mut self) {
        self.liar = None;
    }

    /// All blobs that the server has, by name.
    #[must_use]
    pub fn blobs(&self) -> BTreeMap<[u8; 32], Vec<u8>> {
        let rows = self.storage.lock().unwrap();
        let names = rows.list("blobs").unwrap().into_iter();
        let names = names.map(|entry| entry.name().to_owned());
        names
            .map(|name| {
                let bytes = rows.get(&format!("blobs/{name}"), usize::MAX).unwrap();
                let name = hex::decode(name).unwrap().try_into().unwrap();
                (name, bytes.unwrap())
            })
            .collect()
    }

    /// The server loses a blob.
    pub fn lose_blob(&self, name: &[u8; 32]) {
        let key = format!("blobs/{}", hex::encode(name));
        self.storage.lock().unwrap().delete(&key).unwrap();
    }

    fn note_handed_out(&mut self, reply: &[u8]) {
        for frame in BundleReply::decode(reply).unwrap().bundles {
            let bundle = UnverifiedPreKeyBundle::decode(&frame).unwrap();
            let device = bundle.address;
            if let Some(key) = bundle.one_time_pre_key {
                self.handed_out.push((device.clone(), false, key.id.get()));
            }
            if bundle.kem_pre_key.kind == KemKind::OneTime {
                let id = bundle.kem_pre_key.id.get();
                self.handed_out.push((device, true, id));
            }
        }
    }

    fn finish(&mut self, who: Who, id: TaskId, task: &Task, reply: &[u8]) {
        let client = self.client(who);
        let refused = match task {
            Task::Deliver { .. } | Task::PutBlob { .. } | Task::DropBlob { .. } => None,
            _ => client.supply(id, reply).err(),
        };
        client.done(id).unwrap();
        // A device that is being linked has found its number.
        if let Ok(address) = client.address() {
            self.parties[who.0].address = address;
        }
        let outcome = refused.map_or("done", |error| error.code());
        self.note(format!("task {} of {}: {outcome}", id, who.0));
    }

    fn fail(&mut self, who: Who, id: TaskId, error: &DirectoryError) {
        self.note(format!("task {} of {}: {error}", id, who.0));
        let failure = match error {
            DirectoryError::NoSuchUser => Failure::NoSuchUser,
            DirectoryError::NoSuchDevice { list } => Failure::NoSuchDevice(Some(list.clone())),
            DirectoryError::Full => Failure::Full(60_000),
            DirectoryError::Conflict { newest } => Failure::Conflict(newest.clone()),
            DirectoryError::NoSuchBlob => Failure::NoSuchBlob,
            DirectoryError::Refused(_) => Failure::Refused(1),
            _ => panic!("the server failed"),
        };
        self.client(who).failed(id, &failure).unwrap();
    }

    /// Does all the tasks of a device, and those that follow from them; says how many.
    pub fn work(&mut self, who: Who) -> usize {
        let mut count = 0;
        for _ in 0..10 {
            let tasks = self.tasks(who);
            if tasks.is_empty() {
                break;
            }
            count += tasks.len();
            for task in &tasks {
                self.perform(who, task);
            }
        }
        count
    }

    /// Gives an envelope to a device, and takes over its messages.
    pub fn receive(&mut self, who: Who, envelope: &[u8]) -> Received {
        let received = self
            .client(who)
            .receive_encrypted_message(envelope)
            .unwrap();
        let outcome = received.refused().map_or("fine", |refusal| refusal.code());
        self.note(format!("receive {}: {outcome}", who.0));
        received
    }

    /// The application takes over everything in a device's inbox.
    pub fn read(&mut self, who: Who) -> usize {
        let messages = match self.client(who).inbox() {
            Err(error) if matches!(error.code(), "not_linked" | "link_expired") => return 0,
            messages => messages.unwrap(),
        };
        for message in &messages {
            let said = (message.from().to_owned(), message.bytes().to_vec());
            self.client(who).acknowledge(message.id()).unwrap();
            let party = &mut self.parties[who.0];
            // After a crash a message may be offered again, as the same.
            match party.offered.insert(message.id(), said.clone()) {
                Some(before) => assert_eq!(before, said, "a message changed"),
                None => party.heard.push(said),
            }
        }
        messages.len()
    }

    /// What the applications of a device took over so far: sender and bytes.
    #[must_use]
    pub fn heard(&self, who: Who) -> Vec<(String, Vec<u8>)> {
        self.parties[who.0].heard.clone()
    }

    /// The envelopes that wait for a device at the server.
    #[must_use]
    pub fn waiting(&self, who: Who) -> Vec<(Salt, Vec<u8>)> {
        self.server.fetch(self.address(who), 5_000).unwrap()
    }

    /// The server forgets an envelope.
    pub fn forget(&self, who: Who, id: &Salt) {
        self.server.forget(self.address(who), id).unwrap();
    }

    /// Brings a device what waits for it, as the weather lets it; says how many the server could forget.
    pub fn poll(&mut self, who: Who) -> usize {
        let mut air: Vec<(Salt, Vec<u8>)> = Vec::new();
        if self.client(who).is_linked().is_err() {
            // Its link request has expired.
            return 0;
        }
        for (id, envelope) in self.waiting(who) {
            if self.chance(self.weather.lost) {
                self.forget(who, &id);
                continue;
            }
            if self.chance(self.weather.delayed) {
                continue;
            }
            if self.chance(self.weather.corrupted) {
                let mut bad = envelope.clone();
                let at = self.below(bad.len() * 8);
                bad[at / 8] ^= 1 << (at % 8);
                air.push((Salt::from_bytes([0; 16]), bad));
                continue;
            }
            if self.chance(self.weather.duplicated) {
                air.push((id, envelope.clone()));
            }
            air.push((id, envelope));
        }
        if self.weather.reordered {
            for place in (1..air.len()).rev() {
                let other = self.below(place + 1);
                air.swap(place, other);
            }
        }
        let mut forgotten = 0;
        for (id, envelope) in &air {
            if self.receive(who, envelope).transport() == Transport::Forget {
                self.forget(who, id);
                forgotten += 1;
            }
        }
        forgotten
    }

    /// Calm weather until nothing moves any more.
    pub fn settle(&mut self) {
        let weather = std::mem::replace(&mut self.weather, Weather::CALM);
        let mut quiet = 0;
        // Prekeys are given to a server hourly at most, and who lacks them asks each minute meanwhile.
        for _ in 0..400 {
            let mut moved = 0;
            for place in 0..self.parties.len() {
                let who = Who(place);
                if self.parties[place].client.is_none() {
                    continue;
                }
                moved += self.work(who) + self.poll(who) + self.read(who);
            }
            quiet = if moved == 0 { quiet + 1 } else { 0 };
            // Once more after a minute: some tasks are put off.
            if quiet == 2 {
                self.weather = weather;
                return;
            }
            if quiet == 1 {
                self.wait(60_001);
            }
        }
        for line in self.trace.iter().rev().take(20).rev() {
            eprintln!("{line}");
        }
        panic!("the world does not settle");
    }
}
