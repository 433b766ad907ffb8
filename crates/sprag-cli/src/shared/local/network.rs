//! The network of a profile that is open here, beside the calls.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use sprag::memory::{EncryptedMemoryStore, Owner};

use crate::error::CliError;
use crate::output::Output;
use crate::profile::Profile;

/// After a write, others may follow.
const GATHER: Duration = Duration::from_millis(300);
/// How often a server is asked for news.
const NEWS: Duration = Duration::from_secs(30);
/// How often the profile is looked after.
const UPKEEP: Duration = Duration::from_secs(24 * 60 * 60);

/// Carries what was written to the server, and brings what others wrote.
pub(super) struct Courier {
    network: Arc<Network>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Courier {
    /// One that stays serves the network in between; the other one now, and at the end.
    pub(super) fn begin(profile: Profile, json: bool, stays: bool) -> Self {
        let network = Arc::new(Network {
            profile: Mutex::new(profile),
            json,
            state: Mutex::default(),
            changed: Condvar::new(),
        });
        let thread = stays.then(|| {
            let network = network.clone();
            let named = thread::Builder::new().name("sprag network".to_owned());
            named.spawn(move || network.serve()).ok()
        });
        let thread = thread.flatten();
        if thread.is_none() {
            network.exchange();
        }
        Self {
            network,
            thread: Mutex::new(thread),
        }
    }

    /// Something was written.
    pub(super) fn wake(&self) {
        self.network.lock().carry = true;
        self.network.changed.notify_all();
    }

    /// A last time, if something was written that nobody carried yet.
    pub(super) fn end(&self) {
        let carry = {
            let mut state = self.network.lock();
            state.end = true;
            std::mem::take(&mut state.carry)
        };
        self.network.changed.notify_all();
        if carry {
            self.network.exchange();
        }
        let thread = (self.thread.lock())
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(thread) = thread {
            // A panic of it was told already.
            let _ = thread.join();
        }
    }
}

/// What goes wrong there is told, and tried again.
struct Network {
    profile: Mutex<Profile>,
    json: bool,
    state: Mutex<Wanted>,
    changed: Condvar,
}

#[derive(Default)]
struct Wanted {
    /// Something was written.
    carry: bool,
    end: bool,
}

impl Network {
    fn lock(&self) -> MutexGuard<'_, Wanted> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// To and fro with the server, if there is one.
    fn exchange(&self) {
        let profile = self.profile.lock().unwrap_or_else(PoisonError::into_inner);
        if profile.server().is_none() {
            return;
        }
        let mut output = Output::new(self.json);
        let exchanged = ask_for_news(&profile).and_then(|()| profile.exchange(&mut output));
        if let Err(error) = exchanged
            && error.code() != "closed"
        {
            output.note(&format!("the exchange with the server failed: {error}"));
        }
    }

    /// Serves the network until the end.
    fn serve(&self) {
        let mut looked_after: Option<Instant> = None;
        loop {
            if looked_after.is_none_or(|then| then.elapsed() >= UPKEEP) {
                looked_after = Some(Instant::now());
                self.look_after();
            }
            self.exchange();
            let state = self.lock();
            let waited = self
                .changed
                .wait_timeout_while(state, NEWS, |state| !state.carry && !state.end);
            let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
            let waited = self
                .changed
                .wait_timeout_while(state, GATHER, |state| !state.end);
            let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
            if state.end {
                return;
            }
            state.carry = false;
        }
    }

    fn look_after(&self) {
        let profile = self.profile.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = profile.client.maintain()
            && !matches!(error.code(), "closed" | "not_linked")
        {
            Output::new(self.json).note(&format!("upkeep failed: {error}"));
        }
    }
}

/// Has the server asked what other devices remember.
fn ask_for_news(profile: &Profile) -> Result<(), CliError> {
    let client = &profile.client;
    let memories = EncryptedMemoryStore::new(client, &Owner::new(&client.user()?))?;
    match memories.refresh() {
        Err(error) if error.code() != "not_linked" => Err(error.into()),
        _ => Ok(()),
    }
}
