//! Several processes on one profile at once.
//!
//! Only one process can have a store open: it uses message keys, and two would use them twice. Yet every MCP client starts
//! a server process of its own. So whoever comes first opens the store, which locks it, and is the *host*: it answers
//! the others, its *guests*, through a socket in the home folder ([`place`]). All of them ask through [`Shared`], and none
//! knows who answers.
//!
//! # Who is who
//!
//! A process that is neither tries the socket. If somebody answers there, and both have proved themselves ([`hello`]), it is a
//! guest. If not, or if whoever answers is not to be trusted, it tries to open the store. If that is locked, somebody
//! else just came first, or is still on its way in or out: it begins again, until its [patience](PATIENCE) is over. Only
//! who has the lock makes or removes the socket, so none of this can take the socket from a living host. A guest whose
//! conversation ends, because the host ended or was killed, is neither again.
//!
//! # Each call is done once
//!
//! A call has an id of 128 random bits. When the conversation ends before the answer, nobody knows whether the call was done, so
//! the guest makes it again under the same id, to whoever is the host by then, itself perhaps. What holds:
//!
//! * **Acknowledged is kept.** A host answers a write when it is on stable storage. So whatever a later host opens has it.
//! * **Under one host**, [`once`] has the results of the last writes by the ids of their calls: a repetition waits for the
//!   first one, or gets its result. An id that comes with another call is refused.
//! * **Across hosts**, what is remembered in memory is gone, so a repetition has to find in the store that it was done:
//!   - *store*: the id of the call **is** the id of the new memory. If that exists, whatever became of it since, it
//!     was stored; it is not stored again.
//!   - *update*: a memory remembers the ids of the last 16 updates of it. One that is among them was done; it
//!     is not done again over what came after it. (After 16 others it would be: within seconds that does not happen.)
//!   - *delete*, *erase*: to forget what is forgotten changes nothing, and is answered as the first time.
//!   - *import*: a record that is there is compared, and left alone.
//! * Reads change nothing, and are just done again.
//!
//! A call that was not answered, since its process was killed as well, may or may not have been done, once.
//!
//! # What it does not protect from
//!
//! Whoever is the same user can end our processes, and could read their memory. Frames are sealed, so that passing them on
//! gains nothing. Whoever is not the same user reaches nothing: the socket is for its owner alone, and the kernel's word on who connects
//! is asked besides. On systems without Unix sockets the second process gets `not_supported`.

pub(crate) mod call;
#[cfg(unix)]
mod frame;
#[cfg(unix)]
mod guest;
#[cfg(unix)]
mod hello;
#[cfg(unix)]
mod host;
pub(crate) mod local;
#[cfg(unix)]
mod once;
#[cfg(unix)]
mod peer;
#[cfg(unix)]
mod place;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
#[cfg(unix)]
use std::thread;
use std::time::{Duration, Instant};

use sprag::store::ProofKey;

use self::call::{Answer, Call, CallId, Fault, Recall};
#[cfg(unix)]
use self::guest::Guest;
#[cfg(unix)]
use self::hello::{Refused, Trust};
#[cfg(unix)]
use self::host::Host;
#[cfg(unix)]
use self::place::Place;
use crate::error::Exit;

/// How long a process tries to become host or guest.
const PATIENCE: Duration = Duration::from_secs(20);
/// The longest pause between two attempts.
#[cfg(unix)]
const PAUSE: Duration = Duration::from_millis(40);

/// How this process comes to the store.
pub(crate) trait Door: Send + Sync {
    /// Opens the store, which locks it.
    fn open(&self) -> Result<Box<dyn House>, NotOpen>;
    /// The key that whoever has the store open has, too. Fetched anew each time: it changes.
    #[cfg_attr(
        not(unix),
        expect(dead_code, reason = "there is nobody to prove it to")
    )]
    fn proof_key(&self) -> Result<ProofKey, Fault>;
}

/// A store that is open in this process.
pub(crate) trait House: Send + Sync {
    /// Does what is asked; a write is on stable storage when it returns, and done once, also if another process did it
    /// before.
    fn answer(&self, id: CallId, call: &Call) -> Result<Answer, Fault>;
    #[cfg_attr(
        not(unix),
        expect(dead_code, reason = "there is nobody to prove it to")
    )]
    fn proof_key(&self) -> Result<ProofKey, Fault>;
    /// Unlocks the store.
    fn close(&self) -> Result<(), Fault>;
}

/// Why the store could not be opened.
#[derive(Debug)]
pub(crate) enum NotOpen {
    /// Somebody has it open: that process, if it is known.
    InUse(Option<u32>),
    Failed(Fault),
}

/// The memories of a profile, whichever process has it open.
pub(crate) struct Shared(Arc<Inner>);

struct Inner {
    door: Box<dyn Door>,
    #[cfg(unix)]
    place: Place,
    #[cfg(unix)]
    trust: Trust,
    patience: Duration,
    role: Mutex<Role>,
    /// Says what nobody asked for, without content.
    #[cfg_attr(not(unix), expect(dead_code, reason = "nothing happens beside"))]
    note: fn(&str),
}

/// What this process is at the moment.
enum Role {
    Neither,
    #[cfg(unix)]
    Host(Arc<Host>),
    #[cfg(unix)]
    Guest(Arc<Guest>),
    #[cfg(not(unix))]
    Alone(Arc<dyn House>),
    Closed,
}

impl Shared {
    /// Nothing is opened yet. `note` is told what happens beside the calls.
    pub(crate) fn new(door: impl Door + 'static, home: &Path, note: fn(&str)) -> Self {
        #[cfg(not(unix))]
        let _ = home;
        Self(Arc::new(Inner {
            door: Box::new(door),
            #[cfg(unix)]
            place: Place::in_home(home),
            #[cfg(unix)]
            trust: Trust::kernel(),
            patience: PATIENCE,
            role: Mutex::new(Role::Neither),
            note,
        }))
    }

    /// Becomes host or guest, if it is neither, so that what is wrong is known before the first call.
    pub(crate) fn attach(&self) -> Result<(), Fault> {
        self.0.attach(Instant::now() + self.0.patience).map(drop)
    }

    /// From now on takes over by itself when the host ends, not at the next call only.
    #[cfg(unix)]
    pub(crate) fn keep(&self) {
        let inner = Arc::downgrade(&self.0);
        let watch = move || {
            while let Some(inner) = inner.upgrade() {
                if !inner.watch() {
                    return;
                }
            }
        };
        let named = thread::Builder::new().name("sprag watch".to_owned());
        // Without a thread the next call takes over.
        let _ = named.spawn(watch);
    }

    #[cfg(not(unix))]
    pub(crate) fn keep(&self) {}

    /// Ends as host or guest; what is under way is answered. Calls are refused from then on.
    pub(crate) fn close(&self) -> Result<(), Fault> {
        let role = std::mem::replace(&mut *self.0.lock(), Role::Closed);
        match role {
            #[cfg(unix)]
            Role::Host(host) => host.end(),
            #[cfg(not(unix))]
            Role::Alone(house) => house.close(),
            _ => Ok(()),
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // Nobody hears what it has to say.
        let _ = self.close();
    }
}

impl Recall for Shared {
    fn call(&self, id: CallId, call: &Call) -> Result<Answer, Fault> {
        let mut until = Instant::now() + self.0.patience;
        let mut again = false;
        loop {
            let role = self.0.attach(until)?;
            if let Some(answer) = role.call(id, call) {
                return answer;
            }
            self.0.detach(&role);
            if Instant::now() > until {
                // However long the one that is over took: the next one is asked.
                if again {
                    return Err(unanswered(None));
                }
                again = true;
                until = Instant::now() + self.0.patience;
            }
        }
    }
}

/// One that answers.
#[derive(Clone)]
enum Standing {
    #[cfg(unix)]
    Host(Arc<Host>),
    #[cfg(unix)]
    Guest(Arc<Guest>),
    #[cfg(not(unix))]
    Alone(Arc<dyn House>),
}

impl Standing {
    /// `None` if it is over, and the call has to be made again.
    fn call(&self, id: CallId, call: &Call) -> Option<Result<Answer, Fault>> {
        match self {
            #[cfg(unix)]
            Self::Host(host) => host.call(id, call),
            #[cfg(unix)]
            Self::Guest(guest) => guest.call(id, call).ok(),
            #[cfg(not(unix))]
            Self::Alone(house) => Some(house.answer(id, call)),
        }
    }
}

impl Inner {
    fn lock(&self) -> std::sync::MutexGuard<'_, Role> {
        self.role.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn attach(&self, until: Instant) -> Result<Standing, Fault> {
        let mut role = self.lock();
        match &*role {
            Role::Neither => {}
            #[cfg(unix)]
            Role::Host(host) => return Ok(Standing::Host(host.clone())),
            #[cfg(unix)]
            Role::Guest(guest) => return Ok(Standing::Guest(guest.clone())),
            #[cfg(not(unix))]
            Role::Alone(house) => return Ok(Standing::Alone(house.clone())),
            Role::Closed => return Err(closed()),
        }
        // Held meanwhile: whoever else calls waits for the same.
        let standing = self.become_one(until)?;
        *role = match &standing {
            #[cfg(unix)]
            Standing::Host(host) => Role::Host(host.clone()),
            #[cfg(unix)]
            Standing::Guest(guest) => Role::Guest(guest.clone()),
            #[cfg(not(unix))]
            Standing::Alone(house) => Role::Alone(house.clone()),
        };
        Ok(standing)
    }

    /// That one is over; another one may be there already.
    fn detach(&self, over: &Standing) {
        let mut role = self.lock();
        #[cfg(unix)]
        let same = match (&*role, over) {
            (Role::Guest(now), Standing::Guest(over)) => Arc::ptr_eq(now, over),
            (Role::Host(now), Standing::Host(over)) => Arc::ptr_eq(now, over),
            _ => false,
        };
        #[cfg(not(unix))]
        let same = {
            let _ = over;
            false
        };
        if same {
            *role = Role::Neither;
        }
    }

    #[cfg(not(unix))]
    fn become_one(&self, _: Instant) -> Result<Standing, Fault> {
        match self.door.open() {
            Ok(house) => Ok(Standing::Alone(house.into())),
            Err(NotOpen::Failed(fault)) => Err(fault),
            Err(NotOpen::InUse(owner)) => Err(Fault::new(
                "not_supported",
                Exit::InUse,
                format!(
                    "{} has the profile open, and on this system several processes cannot share one",
                    named(owner)
                ),
            )
            .advise("end the other program first")),
        }
    }

    #[cfg(unix)]
    fn become_one(&self, until: Instant) -> Result<Standing, Fault> {
        let mut key = None;
        let mut pause = Duration::from_millis(1);
        loop {
            let refused = match self.visit(&mut key)? {
                Ok(guest) => return Ok(Standing::Guest(Arc::new(guest))),
                Err(refused) => refused,
            };
            let owner = match self.door.open() {
                Ok(house) => return Ok(Standing::Host(Arc::new(self.settle(house)))),
                Err(NotOpen::Failed(fault)) => return Err(fault),
                Err(NotOpen::InUse(owner)) => owner,
            };
            if Instant::now() > until {
                return Err(match refused {
                    Refused::OtherUser | Refused::WrongKey => untrusted(owner),
                    Refused::Version => other_version(owner),
                    Refused::Ours(fault) => fault,
                    Refused::Gone => unanswered(owner),
                });
            }
            thread::sleep(pause);
            // Those who wait must not wake together for ever.
            let [jitter] = crate::sys::random::<1>();
            pause = (pause * 2).min(PAUSE) + Duration::from_micros(u64::from(jitter) * 20);
        }
    }

    /// Tries the socket. The key is fetched when it is needed, and once more if it proved nothing: it may have changed.
    #[cfg(unix)]
    fn visit(&self, key: &mut Option<ProofKey>) -> Result<Result<Guest, Refused>, Fault> {
        let mut fresh = false;
        loop {
            let Ok(stream) = self.place.connect() else {
                return Ok(Err(Refused::Gone));
            };
            let known = match key {
                Some(known) => known,
                None => {
                    fresh = true;
                    key.insert(self.door.proof_key()?)
                }
            };
            match Guest::begin(stream, known, self.trust) {
                Err(Refused::WrongKey) if !fresh => *key = None,
                met => return Ok(met),
            }
        }
    }

    #[cfg(unix)]
    fn settle(&self, house: Box<dyn House>) -> Host {
        let (host, unreachable) = Host::begin(house, &self.place, self.trust);
        if let Some(error) = unreachable {
            (self.note)(&format!(
                "other processes cannot share this profile meanwhile: {}: {error}",
                self.place.path().display()
            ));
        }
        host
    }

    /// Waits until the host is gone, and takes over. `false` once this is closed.
    #[cfg(unix)]
    fn watch(&self) -> bool {
        let standing = match self.attach(Instant::now() + self.patience) {
            Ok(standing) => standing,
            Err(fault) if fault.code == "closed" => return false,
            Err(_) => {
                thread::sleep(Duration::from_secs(1));
                return true;
            }
        };
        let Standing::Guest(guest) = &standing else {
            // As long as it is the host nobody takes that from it.
            return false;
        };
        let host = guest.host();
        // A conversation of its own, in which nobody says anything.
        match self.visit(&mut None) {
            Ok(Ok(idle)) if idle.host() == host => idle.until_over(),
            _ => thread::sleep(PAUSE),
        }
        self.detach(&standing);
        true
    }
}

fn named(owner: Option<u32>) -> String {
    match owner {
        Some(process) => format!("process {process}"),
        None => "another process".to_owned(),
    }
}

fn closed() -> Fault {
    Fault::new("closed", Exit::Failed, "this program is ending")
}

#[cfg(unix)]
fn unanswered(owner: Option<u32>) -> Fault {
    Fault::new(
        "store_in_use",
        Exit::InUse,
        format!("{} has the profile open, and does not answer", named(owner)),
    )
    .advise("wait for the other program, or end it")
}

#[cfg(not(unix))]
fn unanswered(owner: Option<u32>) -> Fault {
    Fault::new("store_in_use", Exit::InUse, named(owner))
}

#[cfg(unix)]
fn untrusted(owner: Option<u32>) -> Fault {
    Fault::new(
        "peer_untrusted",
        Exit::Refused,
        format!(
            "{} has the profile open, but whoever answers at its socket belongs to another user, or does not know \
             the key of the profile: nothing was said to it",
            named(owner)
        ),
    )
    .advise("look who made profile.sock in the home folder, and end that program")
}

#[cfg(unix)]
fn other_version(owner: Option<u32>) -> Fault {
    Fault::new(
        "unsupported_version",
        Exit::Failed,
        format!(
            "{} has the profile open, and is another version of sprag",
            named(owner)
        ),
    )
    .advise("end all programs that use this profile, and start them again")
}
