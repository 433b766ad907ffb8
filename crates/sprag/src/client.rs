//! The client: one lock around the steps, one batch for each, results when they are durable.

use std::cell::Cell;

use rand_core::CryptoRng;
use sprag_session::{BackupRecord, Device, Env, Linking, MessageId, Replace};
use sprag_store::{Changes, Rows, Staged, Store, StoreError};
use sprag_wire::{DeviceAddress, UserId};

use crate::durable::{Durable, Watch};
use crate::notifier::Notifier;
use crate::party::Party;
use crate::pending::Pending;
use crate::reopen::Recipe;
use crate::start::Start;
use crate::sync::{Arc, Mutex, MutexGuard, PoisonError};
use crate::upkeep::Flight;
use crate::{Error, sys};

/// Tells the time, in milliseconds since 1970.
pub trait Clock: Send + Sync + 'static {
    /// The time now.
    fn now(&self) -> u64;
}

impl<F: Fn() -> u64 + Send + Sync + 'static> Clock for F {
    fn now(&self) -> u64 {
        self()
    }
}

/// Where a client's time and randomness come from. The default is the operating system; on wasm, which has no clock of
/// its own, there is no default.
pub struct Surroundings {
    clock: Box<dyn Clock>,
    rng: Box<dyn CryptoRng + Send>,
}

impl std::fmt::Debug for Surroundings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Surroundings").finish_non_exhaustive()
    }
}

#[cfg(not(target_family = "wasm"))]
impl Default for Surroundings {
    fn default() -> Self {
        Self::new(sys::now, sys::rng())
    }
}

impl Surroundings {
    /// A clock and a generator of one's own. In production the generator must be the system's, or one seeded from it
    /// that no fork, clone or restored copy shares: keys are drawn from it.
    #[must_use]
    pub fn new(clock: impl Clock, rng: impl CryptoRng + Send + 'static) -> Self {
        Self {
            clock: Box::new(clock),
            rng: Box::new(rng),
        }
    }
}

impl Surroundings {
    /// What a step is given.
    #[cfg(all(any(feature = "sled", feature = "redb"), not(target_family = "wasm")))]
    pub(crate) fn env(&mut self) -> Env<'_> {
        Env::new(self.clock.now(), &mut self.rng)
    }

    /// A new account, and the rows that are all of it.
    pub(crate) fn create(
        &mut self,
        rows: &dyn Rows,
        user: &UserId,
    ) -> Result<(Device, Changes), Error> {
        let mut staged = Staged::new(rows);
        let mut env = Env::new(self.clock.now(), &mut self.rng);
        let device = Device::create(&mut staged, &mut env, user)?;
        Ok((device, staged.into_changes()))
    }

    /// A new device out of a backup, and the rows that are all of it.
    pub(crate) fn restore(
        &mut self,
        rows: &dyn Rows,
        record: &BackupRecord,
        replace: &Replace,
    ) -> Result<(Device, Changes), Error> {
        let mut staged = Staged::new(rows);
        let mut env = Env::new(self.clock.now(), &mut self.rng);
        let device = Device::restore(&mut staged, &mut env, record, replace)?;
        Ok((device, staged.into_changes()))
    }

    /// A new device of an account that exists, and the rows that are all of it.
    pub(crate) fn begin_linking(
        &mut self,
        rows: &dyn Rows,
        user: &UserId,
    ) -> Result<(Linking, Changes), Error> {
        let mut staged = Staged::new(rows);
        let mut env = Env::new(self.clock.now(), &mut self.rng);
        let linking = Linking::begin(&mut staged, &mut env, user)?;
        Ok((linking, staged.into_changes()))
    }
}

/// An end of an encrypted conversation: what an application embeds.
///
/// Cheap to clone, `Send + Sync`, without runtime, global state or network. All clones are one client, and none of
/// their threads can use a message key twice. Each verb blocks until its effect is on stable storage;
/// [`start`](Self::start) has the same verbs as futures.
#[derive(Clone)]
pub struct Client {
    pub(crate) shared: Arc<Shared>,
    /// Whose memories this handle keeps.
    #[cfg(feature = "memory")]
    pub(crate) app: Arc<str>,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").finish_non_exhaustive()
    }
}

pub(crate) struct Shared {
    /// `None` once the client is closed.
    pub(crate) state: Mutex<Option<State>>,
    /// Held while the store is being closed, so that nobody hears "closed" before it is, and while it is opened again.
    pub(crate) closing: Mutex<()>,
    pub(crate) notifier: Notifier,
    /// Upkeep that is under way.
    pub(crate) flight: Arc<Flight>,
    pub(crate) watch: Arc<Watch>,
    /// What is known of memories without opening them. Lives as long as the store is open.
    #[cfg(feature = "memory")]
    pub(crate) memories: crate::memory::Indexes,
    process: u32,
}

pub(crate) struct State {
    pub(crate) store: Store,
    pub(crate) party: Party,
    surroundings: Surroundings,
    pub(crate) submitted: u64,
    pub(crate) durable: Arc<Durable>,
    /// How the store is opened again, if it can be.
    pub(crate) recipe: Option<Recipe>,
    /// The store was closed to be opened again, which has failed so far.
    pub(crate) broken: bool,
}

/// What a step's result waits for.
pub(crate) struct Ticket {
    durable: Arc<Durable>,
    number: u64,
}

/// Everything that a step may use.
pub(crate) struct Step<'a, 'rows> {
    pub(crate) device: &'a mut Device,
    pub(crate) rows: &'a mut Staged<'rows>,
    pub(crate) env: Env<'a>,
    /// When its changes are written, if the step knows better.
    pub(crate) write: &'a Cell<Write>,
}

/// What a step of a device that is still being linked may use.
pub(crate) struct LinkStep<'a, 'rows> {
    pub(crate) linking: &'a Linking,
    pub(crate) rows: &'a mut Staged<'rows>,
    pub(crate) env: Env<'a>,
    /// What becomes of it.
    pub(crate) next: &'a mut Option<Party>,
}

/// When a step's changes are written.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Write {
    /// Now; the result waits for it.
    Durable,
    /// With the next commit; the result does not wait.
    Lazy,
}

impl Shared {
    fn state(&self) -> Result<MutexGuard<'_, Option<State>>, Error> {
        if sys::process() != self.process {
            // The lock may be held for ever by a thread that does not exist here.
            return Err(Error::forked());
        }
        self.state.lock().or_else(|poisoned| {
            let mut state = poisoned.into_inner();
            Self::recover(&mut state)?;
            self.state.clear_poison();
            Ok(state)
        })
    }

    /// One step: staged, submitted, and its result handed out when it is durable.
    pub(crate) fn step<T: Send + 'static>(
        &self,
        write: Write,
        step: impl FnOnce(Step<'_, '_>) -> Result<T, Error>,
    ) -> Pending<T> {
        match self.submit(write, step) {
            Ok((ticket, result)) => self.when(ticket, result),
            Err(error) => Pending::ready(self.notifier.clone(), Err(error)),
        }
    }

    /// The result of a step, when that is durable.
    pub(crate) fn when<T: Send + 'static>(&self, ticket: Ticket, result: T) -> Pending<T> {
        let (completer, pending) = Pending::new(self.notifier.clone());
        ticket.durable.when(
            ticket.number,
            Box::new(move |durable| {
                completer.complete(durable.map(|()| result).map_err(Error::from))
            }),
        );
        pending
    }

    /// Whether this process was forked from the one that made the client.
    pub(crate) fn is_inherited(&self) -> bool {
        sys::process() != self.process
    }

    /// A step whose result is handed out by [`when`](Self::when) it is durable.
    pub(crate) fn submit<T>(
        &self,
        write: Write,
        step: impl FnOnce(Step<'_, '_>) -> Result<T, Error>,
    ) -> Result<(Ticket, T), Error> {
        self.submit_either(
            write,
            step,
            None::<fn(LinkStep<'_, '_>) -> Result<T, Error>>,
        )
    }

    /// As [`step`](Self::step); a client that is still being linked does the other one.
    pub(crate) fn step_either<T: Send + 'static>(
        &self,
        write: Write,
        step: impl FnOnce(Step<'_, '_>) -> Result<T, Error>,
        link_step: impl FnOnce(LinkStep<'_, '_>) -> Result<T, Error>,
    ) -> Pending<T> {
        match self.submit_either(write, step, Some(link_step)) {
            Ok((ticket, result)) => self.when(ticket, result),
            Err(error) => Pending::ready(self.notifier.clone(), Err(error)),
        }
    }

    fn submit_either<T>(
        &self,
        write: Write,
        step: impl FnOnce(Step<'_, '_>) -> Result<T, Error>,
        link_step: Option<impl FnOnce(LinkStep<'_, '_>) -> Result<T, Error>>,
    ) -> Result<(Ticket, T), Error> {
        let mut guard = self.state()?;
        let state = guard.as_mut().ok_or_else(Error::closed)?;
        // What failed was another step's: of this one nothing is in doubt, not even whether its input was good.
        if state.broken || state.durable.has_failed() {
            return Err(StoreError::Poisoned.into());
        }
        let State {
            store,
            party,
            surroundings,
            submitted,
            durable,
            ..
        } = state;
        let ticket = |number| Ticket {
            durable: durable.clone(),
            number,
        };
        let mut rows = Staged::new(&*store);
        let now = surroundings.clock.now();
        let env = Env::new(now, &mut surroundings.rng);
        let write = Cell::new(write);
        let result = match (&mut *party, link_step) {
            (Party::Linking(linking), Some(link_step)) => {
                let mut next = None;
                let result = link_step(LinkStep {
                    linking,
                    rows: &mut rows,
                    env,
                    next: &mut next,
                })?;
                if let Some(next) = next {
                    *party = next;
                }
                result
            }
            (party, _) => {
                let device = party.device(now)?;
                let result = step(Step {
                    device,
                    rows: &mut rows,
                    env,
                    write: &write,
                })?;
                if !rows.changes().is_empty() {
                    device.save_counts(&mut rows, now);
                }
                result
            }
        };
        let changes = rows.into_changes();
        if changes.is_empty() {
            // A read sees what was submitted; it is told when that is durable.
            return Ok((ticket(*submitted), result));
        }
        if write.get() == Write::Lazy {
            store.submit_lazy(changes)?;
            return Ok((ticket(0), result));
        }
        *submitted += 1;
        let number = *submitted;
        let ticket = ticket(number);
        let durable = durable.clone();
        store.submit(
            changes,
            Box::new(move |outcome| durable.finish(number, outcome.map(|_| ()))),
        );
        Ok((ticket, result))
    }

    /// The store, for what is done beside the steps.
    #[cfg(any(feature = "memory", not(target_family = "wasm")))]
    pub(crate) fn store(&self) -> Result<Store, Error> {
        let state = self.state()?;
        match state.as_ref() {
            None => Err(Error::closed()),
            Some(state) if state.broken => Err(StoreError::Poisoned.into()),
            Some(state) => Ok(state.store.clone()),
        }
    }

    /// Whether the anchor is out of reach; `None` if there is none.
    pub(crate) fn anchor_is_away(&self) -> Option<bool> {
        #[cfg(not(target_family = "wasm"))]
        match self.store().ok()?.anchor_standing() {
            sprag_store::Standing::InReach { .. } => return Some(false),
            sprag_store::Standing::OutOfReach => return Some(true),
            _ => {}
        }
        None
    }

    /// Resolves when something has changed since the number that it gave before.
    pub(crate) fn changed(&self, since: u64) -> Pending<u64> {
        let (completer, pending) = Pending::new(self.notifier.clone());
        match self.state() {
            Err(error) => completer.complete(Err(error)),
            Ok(state) if state.is_none() => completer.complete(Err(Error::closed())),
            // Held meanwhile: a close must find all who watch.
            Ok(_state) => self.watch.since(since, completer),
        }
        pending
    }

    pub(crate) fn close(&self) -> Pending<()> {
        let notifier = self.notifier.clone();
        if sys::process() != self.process {
            return Pending::ready(notifier, Err(Error::forked()));
        }
        let _closing = self.closing.lock().unwrap_or_else(PoisonError::into_inner);
        // Also what a panic left is closed.
        let taken = (self.state.lock())
            .map_or_else(|left| left.into_inner().take(), |mut state| state.take());
        let Some(state) = taken else {
            return Pending::ready(notifier, Ok(()));
        };
        let (completer, pending) = Pending::new(notifier);
        let State {
            store,
            mut party,
            surroundings,
            ..
        } = state;
        let mut rows = Staged::new(&store);
        let now = surroundings.clock.now();
        if let Ok(device) = party.device(now) {
            device.write_counts(&mut rows, now);
        }
        let counts = rows.into_changes();
        #[cfg(feature = "memory")]
        self.memories.clear();
        for watcher in self.watch.take() {
            watcher.complete(Err(Error::closed()));
        }
        // With a store that has failed they are lost; it says so itself.
        let _ = counts.is_empty() || store.submit_lazy(counts).is_ok();
        completer.complete(store.close().map_err(Error::from));
        pending
    }
}

impl Client {
    /// A client over any store: one with a backend or a sink of your own, or in memory. A new account is made for
    /// `user` if the store holds none.
    ///
    /// # Errors
    /// `other_user`, `bad_input`, and those of the store.
    pub fn with_store(
        store: Store,
        user: &str,
        mut surroundings: Surroundings,
    ) -> Result<Self, Error> {
        let user = UserId::new(user).map_err(|_| Error::bad_input())?;
        let party = match Party::load(&store, Some(&user))? {
            Some(party) => party,
            None => {
                let (device, changes) = surroundings.create(&store, &user)?;
                commit(&store, changes)?;
                Party::Device(Box::new(device))
            }
        };
        Ok(Self::assemble(store, party, surroundings))
    }

    /// As [`with_store`](Self::with_store), but if the store is empty, it becomes that of a new device of an account
    /// that exists: see [`link_request`](Self::link_request).
    ///
    /// # Errors
    /// As there.
    pub fn with_store_linked(
        store: Store,
        user: &str,
        mut surroundings: Surroundings,
    ) -> Result<Self, Error> {
        let user = UserId::new(user).map_err(|_| Error::bad_input())?;
        let party = match Party::load(&store, Some(&user))? {
            Some(party) => party,
            None => {
                let (linking, changes) = surroundings.begin_linking(&store, &user)?;
                commit(&store, changes)?;
                Party::Linking(linking)
            }
        };
        Ok(Self::assemble(store, party, surroundings))
    }

    pub(crate) fn assemble(store: Store, party: Party, surroundings: Surroundings) -> Self {
        let watch: Arc<Watch> = Arc::default();
        let state = State {
            store,
            party,
            surroundings,
            submitted: 0,
            durable: Durable::new(watch.clone()),
            recipe: None,
            broken: false,
        };
        let shared = Shared {
            state: Mutex::new(Some(state)),
            closing: Mutex::default(),
            notifier: Notifier::new(),
            flight: Arc::default(),
            watch,
            #[cfg(feature = "memory")]
            memories: crate::memory::Indexes::default(),
            process: sys::process(),
        };
        Self {
            shared: Arc::new(shared),
            #[cfg(feature = "memory")]
            app: "sprag".into(),
        }
    }

    /// A client whose store can be opened again.
    #[cfg(all(any(feature = "sled", feature = "redb"), not(target_family = "wasm")))]
    pub(crate) fn with_recipe(self, recipe: Recipe) -> Self {
        let mut state = (self.shared.state.lock()).unwrap_or_else(PoisonError::into_inner);
        if let Some(state) = &mut *state {
            state.recipe = Some(recipe);
        }
        drop(state);
        self
    }

    pub(crate) fn with_device<T>(&self, read: impl FnOnce(&Device) -> T) -> Result<T, Error> {
        self.with_party(|party, now| party.device(now).map(|device| read(device)))?
    }

    pub(crate) fn with_party<T>(
        &self,
        read: impl FnOnce(&mut Party, u64) -> T,
    ) -> Result<T, Error> {
        let mut state = self.shared.state()?;
        let state = state.as_mut().ok_or_else(Error::closed)?;
        let now = state.surroundings.clock.now();
        Ok(read(&mut state.party, now))
    }

    /// The same verbs as futures that need no runtime.
    #[must_use]
    pub fn start(&self) -> Start<'_> {
        Start(self)
    }

    /// This client's user.
    ///
    /// # Errors
    /// `closed`, `forked`.
    pub fn user(&self) -> Result<String, Error> {
        self.with_party(|party, _| party.user().as_str().to_owned())
    }

    /// Where envelopes for this device go.
    ///
    /// # Errors
    /// `not_linked` while this device has no number yet, `link_expired`; `closed`, `forked`.
    pub fn address(&self) -> Result<DeviceAddress, Error> {
        self.with_device(|device| device.address().clone())
    }

    /// The number of this device among its user's.
    ///
    /// # Errors
    /// As [`address`](Self::address).
    pub fn device(&self) -> Result<u32, Error> {
        self.with_device(|device| device.address().device().get())
    }

    /// A new random id, for `send` calls that are to be repeatable.
    ///
    /// # Errors
    /// `closed`, `forked`.
    pub fn new_message_id(&self) -> Result<MessageId, Error> {
        let mut state = self.shared.state()?;
        let state = state.as_mut().ok_or_else(Error::closed)?;
        let mut id = [0; 16];
        state.surroundings.rng.fill_bytes(&mut id);
        Ok(MessageId::from_bytes(id))
    }
}

#[cfg(not(target_family = "wasm"))]
pub(crate) fn commit(store: &Store, changes: Changes) -> Result<(), Error> {
    store.commit_blocking(changes)?;
    Ok(())
}

/// Nothing can be waited for here: the first commit is durable when a later one is.
#[cfg(target_family = "wasm")]
pub(crate) fn commit(store: &Store, changes: Changes) -> Result<(), Error> {
    store.submit(changes, Box::new(|_| ()));
    Ok(())
}
