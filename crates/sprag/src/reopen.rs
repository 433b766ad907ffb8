//! Going on after the store has failed, with the same handles.

use sprag_store::{Store, StoreError};

use crate::Error;
use crate::client::{Client, Shared, State};
use crate::durable::Durable;
use crate::party::Party;
use crate::sync::{Arc, PoisonError};
#[cfg(not(target_family = "wasm"))]
use crate::{pending::Pending, start::Start, sys};

/// Opens the store of a client again: closes what is there, and gives what is on the disk, under the same guard.
pub(crate) type Recipe = Arc<dyn Fn(&Store) -> Result<Store, Error> + Send + Sync>;

impl Shared {
    /// The state after a step has panicked: its changes were staged and are gone, but what the device remembers beside
    /// its rows is anything. It is read anew.
    pub(crate) fn recover(state: &mut Option<State>) -> Result<(), Error> {
        if let Some(state) = state
            && !state.broken
        {
            state.party = load(&state.store)?;
        }
        Ok(())
    }

    /// Puts a store that is opened again in the place of the one that failed. Everybody else waits meanwhile.
    fn reopen(&self, with: Option<Store>) -> Result<(), Error> {
        if self.is_inherited() {
            return Err(Error::forked());
        }
        let _closing = self.closing.lock().unwrap_or_else(PoisonError::into_inner);
        let before = {
            let mut guard = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            let state = guard.as_mut().ok_or_else(Error::closed)?;
            let recipe = match &with {
                None => Some(state.recipe.clone().ok_or_else(Error::bad_input)?),
                Some(_) => None,
            };
            // From here on the old store answers nobody, whatever comes.
            state.broken = true;
            let store = match (with, recipe) {
                (Some(store), _) => {
                    let _ = state.store.close();
                    store
                }
                (None, Some(recipe)) => recipe(&state.store)?,
                (None, None) => return Err(Error::bad_input()),
            };
            let party = load(&store)?;
            if party.identity_key() != state.party.identity_key() {
                return Err(Error::other_user());
            }
            #[cfg(feature = "memory")]
            self.memories.clear();
            state.party = party;
            state.store = store;
            state.submitted = 0;
            state.broken = false;
            self.state.clear_poison();
            std::mem::replace(&mut state.durable, Durable::new(self.watch.clone()))
        };
        // Nobody should wait for the old store any more; if somebody does, he hears that he cannot know.
        before.finish(0, Err(StoreError::Poisoned));
        Ok(())
    }
}

fn load(store: &Store) -> Result<Party, Error> {
    let party = Party::load(store, None)?;
    Ok(party.ok_or(StoreError::Damaged("the device is missing"))?)
}

impl Client {
    /// Opens the store again after it failed (`store_poisoned`, `store_failed`, `store_full`), with the key that it was
    /// opened with, and under the same anchor. All handles of this client go on with it: clones, watchers
    /// ([`changed`](Self::changed)) and their threads. Verbs of others wait until it is done.
    ///
    /// What was under way when the store failed has answered that it is in doubt ([`Error::is_in_doubt`]); outbox, inbox and
    /// tasks now tell what happened. After an error the client is as before, and this can be called once more. A client
    /// that has not failed is closed and opened, and loses nothing.
    ///
    /// # Errors
    /// `bad_input` for a client over a store of one's own: see [`reopen_with`](Self::reopen_with). `wrong_key` if the
    /// store failed while its key was changed: open it anew then. `closed`, and those of [`open`](Self::open).
    #[cfg(not(target_family = "wasm"))]
    pub fn reopen(&self) -> Result<(), Error> {
        self.start().reopen().wait()
    }

    /// As [`reopen`](Self::reopen), for a client that was made by [`with_store`](Self::with_store): goes on with `store`,
    /// which holds the same profile.
    ///
    /// # Errors
    /// `other_user` if it holds another one, `store_damaged` if it holds none; `closed`, and those of the store.
    pub fn reopen_with(&self, store: Store) -> Result<(), Error> {
        self.shared.reopen(Some(store))
    }
}

#[cfg(not(target_family = "wasm"))]
impl Start<'_> {
    /// See [`Client::reopen`].
    pub fn reopen(self) -> Pending<()> {
        let notifier = self.0.shared.notifier.clone();
        let (completer, pending) = Pending::new(notifier.clone());
        let client = self.0.clone();
        let work = move || {
            let reopened = client.shared.reopen(None);
            drop(client);
            completer.complete(reopened);
        };
        if sys::spawn("sprag reopen", work) {
            pending
        } else {
            Pending::ready(notifier, Err(Error::internal("the system gives no thread")))
        }
    }
}

#[cfg(test)]
#[cfg(feature = "sled")]
mod tests {
    use std::convert::Infallible;
    use std::sync::atomic::{AtomicBool, Ordering};

    use rand_core::{TryCryptoRng, TryRng};
    use sprag_keys::Key;
    use sprag_store::MemoryRows;
    use sprag_wire::UserId;

    use super::*;
    use crate::Surroundings;

    /// A generator that gives up when it is told to, as the system's may.
    struct Failing(Arc<AtomicBool>);

    impl Failing {
        fn check(&self) {
            assert!(!self.0.swap(false, Ordering::SeqCst), "as planned");
        }
    }

    impl TryRng for Failing {
        type Error = Infallible;

        fn try_next_u32(&mut self) -> Result<u32, Infallible> {
            self.check();
            sys::rng().try_next_u32()
        }

        fn try_next_u64(&mut self) -> Result<u64, Infallible> {
            self.check();
            sys::rng().try_next_u64()
        }

        fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
            self.check();
            sys::rng().try_fill_bytes(bytes)
        }
    }

    impl TryCryptoRng for Failing {}

    #[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    /// A client on disk whose store fails at the next commit after a word.
    fn failing(directory: &std::path::Path) -> (Client, Arc<AtomicBool>) {
        let word = Arc::new(AtomicBool::new(false));
        let mut surroundings = Surroundings::default();
        let user = UserId::new("alice").unwrap();
        let (device, first) = surroundings.create(&MemoryRows::new(), &user).unwrap();
        let rng = Failing(word.clone());
        let store = Store::create_with(directory, &Key::raw([7; 32]), rng, first).unwrap();
        let recipe: Recipe = Arc::new(|store| Ok(store.reopen(sys::rng())?));
        let client = Client::assemble(store, Party::Device(Box::new(device)), surroundings)
            .with_recipe(recipe);
        (client, word)
    }

    #[test]
    fn a_store_on_disk_that_failed_is_opened_again_by_its_own_key_and_all_handles_go_on() {
        let dir = tempfile::tempdir().unwrap();
        let (alice, word) = failing(dir.path());
        let clone = alice.clone();
        let first = alice.send_encrypted_message("bob", b"one").unwrap();
        let seen = clone.changed(0).unwrap();
        word.store(true, Ordering::SeqCst);
        assert!(alice.send_encrypted_message("bob", b"two").is_err());
        for client in [&alice, &clone] {
            let error = client.send_encrypted_message("bob", b"three").unwrap_err();
            assert_eq!(error.code(), "store_poisoned");
            assert!(client.inbox().is_err() && client.maintain().is_err());
        }
        let watching = clone.start().changed(seen + 100);
        for _ in 0..2 {
            clone.reopen().unwrap();
            assert!(alice.status(first).unwrap().is_some());
            let id = alice.send_encrypted_message("bob", b"four").unwrap();
            assert!(clone.status(id).unwrap().is_some());
            clone.renew().unwrap();
            clone.maintain().unwrap();
        }
        drop(watching);
        alice.close().unwrap();
        assert_eq!(clone.reopen().unwrap_err().code(), "closed");
        let again = Client::open(dir.path(), Key::raw([7; 32])).unwrap();
        assert!(again.status(first).unwrap().is_some());
    }

    #[test]
    fn a_store_that_cannot_be_opened_again_yet_stays_failed_and_can_be_later() {
        let dir = tempfile::tempdir().unwrap();
        let (alice, word) = failing(&dir.path().join("alice"));
        word.store(true, Ordering::SeqCst);
        assert!(alice.send_encrypted_message("bob", b"one").is_err());
        std::fs::rename(dir.path().join("alice"), dir.path().join("away")).unwrap();
        for _ in 0..2 {
            assert_eq!(alice.reopen().unwrap_err().code(), "no_profile");
            let error = alice.inbox().unwrap_err();
            assert_eq!(error.code(), "store_poisoned");
        }
        std::fs::rename(dir.path().join("away"), dir.path().join("alice")).unwrap();
        alice.reopen().unwrap();
        alice.send_encrypted_message("bob", b"two").unwrap();
    }

    #[test]
    fn a_changed_key_is_the_one_that_opens_again() {
        let dir = tempfile::tempdir().unwrap();
        let alice = Client::create(dir.path(), Key::raw([7; 32]), "alice").unwrap();
        alice.change_key(Key::raw([8; 32])).unwrap();
        alice.reopen().unwrap();
        alice.send_encrypted_message("bob", b"one").unwrap();
        alice.close().unwrap();
        assert!(Client::open(dir.path(), Key::raw([8; 32])).is_ok());
    }

    #[test]
    fn a_guarded_profile_is_guarded_again() {
        let dir = tempfile::tempdir().unwrap();
        let anchor = dir.path().join("anchor");
        let options = || Client::options().anchor_file(&anchor);
        let (home, key) = (dir.path().join("alice"), || Key::raw([7; 32]));
        let alice = options().create(&home, key(), "alice").unwrap();
        alice.reopen().unwrap();
        let standing = format!("{:?}", alice.check_anchor().unwrap());
        assert!(standing.contains("InReach"), "{standing}");
        alice.close().unwrap();
        assert!(options().open(&home, key()).is_ok());
    }

    #[test]
    fn threads_that_send_while_the_store_is_opened_again_lose_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let alice = Client::create(dir.path(), Key::raw([7; 32]), "alice").unwrap();
        let sent: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8)
                .map(|_| {
                    scope.spawn(|| -> Vec<_> {
                        (0..10)
                            .map(|_| alice.send_encrypted_message("bob", b"hello").unwrap())
                            .collect()
                    })
                })
                .collect();
            for _ in 0..5 {
                alice.reopen().unwrap();
            }
            threads
                .into_iter()
                .flat_map(|thread| thread.join().unwrap())
                .collect()
        });
        assert_eq!(sent.len(), 80);
        for id in sent {
            assert!(alice.status(id).unwrap().is_some());
        }
    }
}
