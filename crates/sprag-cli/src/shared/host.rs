//! The process that has the store open: it answers itself, and the others through the socket.

use std::collections::HashMap;
use std::io;
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::House;
use super::call::{Answer, Call, CallId, Fault};
use super::hello::{Line, MAX_SAID, Refused, Trust, as_host};
use super::once::Once;
use super::place::Place;
use crate::error::Exit;

/// Processes that are answered at once, with those that have yet to prove themselves.
const MAX_GUESTS: usize = 128;
/// How long a guest may take to read an answer.
const UNREAD: Duration = Duration::from_secs(30);
/// How long the end waits for what is under way.
const END: Duration = Duration::from_secs(30);

/// A call on its way to the host.
#[derive(Serialize, Deserialize)]
pub(super) struct Question<'a> {
    pub(super) id: CallId,
    pub(super) call: std::borrow::Cow<'a, Call>,
}

/// An open store, for this process and others.
pub(super) struct Host {
    inner: Arc<Inner>,
}

struct Inner {
    house: Box<dyn House>,
    once: Once,
    place: Place,
    trust: Trust,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    ending: bool,
    /// Calls under way.
    calls: usize,
    /// All that came, by a number of ours.
    guests: HashMap<u64, UnixStream>,
    came: u64,
}

impl Host {
    /// Answers from now on. Says why others cannot reach it, if so.
    pub(super) fn begin(
        house: Box<dyn House>,
        place: &Place,
        trust: Trust,
    ) -> (Self, Option<io::Error>) {
        let inner = Arc::new(Inner {
            house,
            once: Once::default(),
            place: place.clone(),
            trust,
            state: Mutex::default(),
            changed: Condvar::new(),
        });
        place.tidy();
        let listens = place.bind().and_then(|listener| {
            let inner = inner.clone();
            let named = thread::Builder::new().name("sprag host".to_owned());
            named.spawn(move || listen(&inner, &listener)).map(drop)
        });
        if listens.is_err() {
            place.leave();
        }
        (Self { inner }, listens.err())
    }

    /// A call of this process. `None` once it is ending.
    pub(super) fn call(&self, id: CallId, call: &Call) -> Option<Result<Answer, Fault>> {
        self.inner.answer(id, call)
    }

    /// Answers what is under way, nothing else, and closes the store. Whoever comes later finds it closed.
    pub(super) fn end(&self) -> Result<(), Fault> {
        let inner = &self.inner;
        {
            let mut state = inner.lock();
            if state.ending {
                return Ok(());
            }
            state.ending = true;
        }
        // The listener wakes, and sees it.
        let _ = inner.place.connect();
        inner.place.leave();
        let until = Instant::now() + END;
        let mut state = inner.lock();
        for guest in state.guests.values() {
            let _ = guest.shutdown(Shutdown::Read);
        }
        while state.calls > 0 || !state.guests.is_empty() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            let waited = inner.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        for guest in state.guests.values() {
            let _ = guest.shutdown(Shutdown::Both);
        }
        drop(state);
        inner.house.close()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // Nobody hears what it has to say.
        let _ = self.end();
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answer(&self, id: CallId, call: &Call) -> Option<Result<Answer, Fault>> {
        let mut state = self.lock();
        if state.ending {
            return None;
        }
        state.calls = state.calls.saturating_add(1);
        drop(state);
        let _under_way = UnderWay(self);
        Some(self.once.run(id, call, || self.house.answer(id, call)))
    }

    /// Talks to one guest to the end.
    fn serve(&self, stream: UnixStream) -> io::Result<()> {
        let key = || self.house.proof_key().map_err(Refused::Ours);
        let Ok(mut line) = as_host(stream, key, self.trust) else {
            return Ok(());
        };
        line.stream().set_write_timeout(Some(UNREAD))?;
        while let Some(question) = line.hear()? {
            let answer = match serde_json::from_slice::<Question<'_>>(&question) {
                Ok(question) => match self.answer(question.id, &question.call) {
                    Some(answer) => answer,
                    None => return Ok(()),
                },
                // It knows the key: this is another version.
                Err(_) => Err(not_understood()),
            };
            say(&mut line, &answer)?;
        }
        Ok(())
    }
}

struct UnderWay<'a>(&'a Inner);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.calls = state.calls.saturating_sub(1);
        drop(state);
        self.0.changed.notify_all();
    }
}

/// Takes whoever comes, until the end.
fn listen(inner: &Arc<Inner>, listener: &UnixListener) {
    loop {
        let accepted = listener.accept();
        let mut state = inner.lock();
        if state.ending {
            return;
        }
        let Ok((stream, _)) = accepted else {
            drop(state);
            // No file descriptors are left, say.
            thread::sleep(Duration::from_millis(10));
            continue;
        };
        // Whoever is one too many is let go, and comes again.
        let Some(kept) = stream
            .try_clone()
            .ok()
            .filter(|_| state.guests.len() < MAX_GUESTS)
        else {
            continue;
        };
        state.came = state.came.wrapping_add(1);
        let number = state.came;
        state.guests.insert(number, kept);
        drop(state);
        let guest = Guest {
            inner: inner.clone(),
            number,
        };
        let named = thread::Builder::new().name("sprag guest".to_owned());
        // If there is no thread, the guest is let go.
        let _ = named.spawn(move || {
            // Whatever ends the conversation: the guest notices, and asks again.
            let _ = guest.inner.serve(stream);
        });
    }
}

struct Guest {
    inner: Arc<Inner>,
    number: u64,
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.inner.lock().guests.remove(&self.number);
        self.inner.changed.notify_all();
    }
}

fn say(line: &mut Line, answer: &Result<Answer, Fault>) -> io::Result<()> {
    let bytes = Zeroizing::new(serde_json::to_vec(answer)?);
    if bytes.len() <= MAX_SAID {
        return line.say(&bytes);
    }
    let refused: Result<Answer, Fault> = Err(Fault::bad_input("the answer is too large"));
    line.say(&serde_json::to_vec(&refused)?)
}

fn not_understood() -> Fault {
    Fault::new(
        "unsupported_version",
        Exit::Failed,
        "the process that has the profile open is another version of sprag, and does not understand",
    )
    .advise("end all programs that use this profile, and start them again")
}
