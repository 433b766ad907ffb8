//! Upkeep: prekeys, what is old, and the store, in one call a day.

use sprag_session::{CLOCK_BACK_MS, Upkept};

pub use sprag_session::{ClockInDoubt, UpkeepSettings};

use crate::Error;
use crate::client::{Client, Shared, Ticket, Write};
use crate::pending::{Completer, Pending};
use crate::start::Start;
#[cfg(not(target_family = "wasm"))]
use crate::sync::Arc;
use crate::sync::{Mutex, PoisonError};
#[cfg(not(target_family = "wasm"))]
use crate::sys;

/// What one call of upkeep did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Upkeep {
    /// A new signed and a new last-resort prekey wait to be published, by a task.
    pub rotated: bool,
    /// A task asks the server what it holds of our prekeys; its answer tops up the stock.
    pub asked: bool,
    /// Private halves of prekeys that were deleted after 90 days.
    pub deleted: u32,
    /// Sent messages that were forgotten after seven days.
    pub expired: u32,
    /// The store was renewed.
    pub renewed: bool,
    /// The clock jumped: nothing is deleted for its age until it is right again, or [confirmed](Client::confirm_time).
    pub waits_for_confirmation: Option<ClockInDoubt>,
}

/// Who waits for the upkeep that is under way; `None` if none is.
#[derive(Default)]
pub(crate) struct Flight(Mutex<Option<Vec<Completer<Upkeep>>>>);

impl Flight {
    /// Joins the upkeep under way, or begins one: then the caller must [`land`](Self::land) it.
    fn board(&self, completer: Completer<Upkeep>) -> bool {
        let mut flight = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *flight {
            Some(waiting) => {
                waiting.push(completer);
                false
            }
            None => {
                *flight = Some(vec![completer]);
                true
            }
        }
    }

    fn land(&self, result: &Result<Upkeep, Error>) {
        let waiting = {
            let mut flight = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            flight.take()
        };
        for completer in waiting.into_iter().flatten() {
            completer.complete(result.clone());
        }
    }
}

/// An upkeep under way. However it ends, whoever waits for it is told, when it holds the client no more.
#[cfg(not(target_family = "wasm"))]
struct Flying {
    client: Option<Client>,
    flight: Arc<Flight>,
    result: Result<Upkeep, Error>,
}

#[cfg(not(target_family = "wasm"))]
impl Flying {
    fn new(client: Client) -> Self {
        Self {
            flight: client.shared.flight.clone(),
            client: Some(client),
            result: Err(Error::internal("upkeep has panicked")),
        }
    }

    fn fly(mut self, settings: &UpkeepSettings) {
        if let Some(client) = &self.client {
            self.result = client.shared.upkeep(settings);
        }
    }
}

#[cfg(not(target_family = "wasm"))]
impl Drop for Flying {
    fn drop(&mut self) {
        self.client = None;
        self.flight.land(&self.result);
    }
}

impl Shared {
    /// All steps that are due, and what the last one waits for. Other steps pass between them.
    fn upkeep_steps(&self, settings: &UpkeepSettings) -> Result<(Ticket, Upkept), Error> {
        let (mut number, mut upkept) = self.submit(Write::Durable, |mut step| {
            Ok(step.device.maintain(step.rows, &mut step.env, settings)?)
        })?;
        while upkept.more {
            let (next, more) = self.submit(Write::Durable, |step| {
                Ok(step.device.maintain_more(step.rows, step.env.now())?)
            })?;
            number = next;
            upkept.expired = upkept.expired.saturating_add(more.expired);
            upkept.more = more.more;
        }
        Ok((number, upkept))
    }

    #[cfg(not(target_family = "wasm"))]
    fn upkeep(&self, settings: &UpkeepSettings) -> Result<Upkeep, Error> {
        let (number, upkept) = self.upkeep_steps(settings)?;
        let mut report = self.when(number, Upkeep::of(&upkept)).wait()?;
        let store = self.store()?;
        let many = store.commits_since_renewal() >= settings.renew_commits;
        if (many || upkept.renewal.is_some()) && store.is_renewable() {
            store.renew()?;
            drop(store);
            self.note_renewal(upkept.renewal.unwrap_or_default());
            report.renewed = true;
        } else if let Some(wanted) = upkept.renewal {
            // Without a directory of its own a store keeps nothing of what it deletes; a sink sees to that itself.
            self.note_renewal(wanted);
        }
        Ok(report)
    }

    /// What was wanted before a renewal is done with, and its week begins.
    #[cfg(not(target_family = "wasm"))]
    pub(crate) fn note_renewal(&self, wanted: u64) {
        // Lost, it is renewed once more.
        let _ = self.submit(Write::Lazy, |step| {
            Ok(step.device.renewed(step.rows, step.env.now(), wanted)?)
        });
    }
}

impl Upkeep {
    fn of(upkept: &Upkept) -> Self {
        Self {
            rotated: upkept.rotated,
            asked: upkept.asked,
            deleted: upkept.deleted,
            expired: upkept.expired,
            renewed: false,
            waits_for_confirmation: upkept.doubt,
        }
    }
}

impl Client {
    /// Upkeep, to be called daily, and at a start. It rotates the signed and the last-resort prekey (weekly), asks the
    /// server what it holds of our prekeys and so tops up the stock, deletes the private halves that the server stopped
    /// handing out more than 90 days ago (the oldest generation of each call, and only after two newer ones were
    /// published), forgets what was sent more than seven days ago, and renews the store (after 1,000 commits or 7 days, or
    /// if something was erased). What the network must do for it are tasks.
    ///
    /// A call while another one is under way joins it: both get its result.
    ///
    /// The time is the client's own clock. If that jumps by more than 30 days forward or a day back, nothing is deleted
    /// for its age, the event `ClockJumped` comes, and [`Upkeep::waits_for_confirmation`] says so, until the clock is
    /// right again, is [confirmed](Self::confirm_time), or has run steadily for 30 days.
    ///
    /// # Errors
    /// `ids_exhausted`, and those of the store and of [`renew`](Self::renew). What was done before a failed renewal is
    /// done.
    #[cfg(not(target_family = "wasm"))]
    pub fn maintain(&self) -> Result<Upkeep, Error> {
        self.start().maintain().wait()
    }

    /// As [`maintain`](Self::maintain), with other periods.
    ///
    /// # Errors
    /// Those of [`maintain`](Self::maintain).
    #[cfg(not(target_family = "wasm"))]
    pub fn maintain_with(&self, settings: UpkeepSettings) -> Result<Upkeep, Error> {
        self.start().maintain_with(settings).wait()
    }

    /// New prekeys of all kinds, under new ids, take the place of all at the server, by a task: after a suspected theft of
    /// this device's state, together with [`reset`](Self::reset). What was encrypted to the old ones is still read for 90
    /// days.
    ///
    /// # Errors
    /// `ids_exhausted`, and those of the store.
    #[cfg(not(target_family = "wasm"))]
    pub fn replace_pre_keys(&self) -> Result<(), Error> {
        self.start().replace_pre_keys().wait()
    }

    /// The user was shown the time of this machine after it jumped ([`Upkeep::waits_for_confirmation`]), in milliseconds
    /// since 1970, and says that it is right. Of the time that was skipped 30 days count as passed at most, so that a
    /// wrong answer destroys nothing at once either.
    ///
    /// # Errors
    /// `bad_input` if the clock does not say that time any more, to a day. Those of the store.
    #[cfg(not(target_family = "wasm"))]
    pub fn confirm_time(&self, shown: u64) -> Result<(), Error> {
        self.start().confirm_time(shown).wait()
    }
}

impl Start<'_> {
    /// See [`Client::maintain`].
    pub fn maintain(self) -> Pending<Upkeep> {
        self.maintain_with(UpkeepSettings::default())
    }

    /// See [`Client::maintain_with`].
    pub fn maintain_with(self, settings: UpkeepSettings) -> Pending<Upkeep> {
        let shared = &self.0.shared;
        let (completer, pending) = Pending::new(shared.notifier.clone());
        if shared.is_inherited() {
            completer.complete(Err(Error::forked()));
            return pending;
        }
        if shared.flight.board(completer) {
            begin(self.0.clone(), settings);
        }
        pending
    }

    /// See [`Client::replace_pre_keys`].
    pub fn replace_pre_keys(self) -> Pending<()> {
        self.0.shared.step(Write::Durable, |mut step| {
            Ok(step.device.replace_pre_keys(step.rows, &mut step.env)?)
        })
    }

    /// See [`Client::confirm_time`].
    pub fn confirm_time(self, shown: u64) -> Pending<()> {
        self.0.shared.step(Write::Durable, |step| {
            let now = step.env.now();
            if now.abs_diff(shown) > CLOCK_BACK_MS {
                return Err(Error::bad_input());
            }
            Ok(step.device.confirm_time(step.rows, now)?)
        })
    }
}

#[cfg(not(target_family = "wasm"))]
fn begin(client: Client, settings: UpkeepSettings) {
    let flying = Flying::new(client);
    // If there is no thread, what was to run on it is dropped, and says so.
    sys::spawn("sprag upkeep", move || flying.fly(&settings));
}

/// No store is renewed here, and nothing waited for.
#[cfg(target_family = "wasm")]
fn begin(client: Client, settings: UpkeepSettings) {
    let shared = &client.shared;
    match shared.upkeep_steps(&settings) {
        Ok((number, upkept)) => {
            let report = Upkeep::of(&upkept);
            let client = client.clone();
            shared
                .when(number, report)
                .on_ready(move |result| client.shared.flight.land(&result));
        }
        Err(error) => shared.flight.land(&Err(error)),
    }
}
