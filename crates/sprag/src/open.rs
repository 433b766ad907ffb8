//! Opening a profile on disk, on a thread of its own: keys from passphrases and large stores take their time.

use std::path::Path;
use std::sync::Arc;

use sprag_keys::Key;
use sprag_session::renewal_wanted;
use sprag_store::{MemoryRows, Store, StoreError};
use sprag_wire::UserId;

use crate::client::{Client, Write};
use crate::guard::OpenOptions;
use crate::notifier::Notifier;
use crate::party::Party;
use crate::pending::Pending;
use crate::reopen::Recipe;
use crate::start::Start;
use crate::{Error, Surroundings, sys};

impl Client {
    /// Opens the profile in `directory`, or makes one for `user`: keys, a signed device list and prekeys. Blocks until
    /// it is on stable storage; a passphrase takes a good part of a second.
    ///
    /// # Errors
    /// `store_in_use` names the process that has it open; `wrong_key`, `key_unreadable`, `store_damaged`,
    /// `store_version`, `store_full`, `store_failed`; `other_user` if the profile is somebody else's; `bad_input` if
    /// `user` is not 1 to 255 bytes without control characters.
    pub fn open_or_create(
        directory: impl AsRef<Path>,
        key: Key,
        user: &str,
    ) -> Result<Self, Error> {
        Self::start_open_or_create(directory, key, user).wait()
    }

    /// Opens the profile in `directory`.
    ///
    /// # Errors
    /// `no_profile`, and those of [`open_or_create`](Self::open_or_create).
    pub fn open(directory: impl AsRef<Path>, key: Key) -> Result<Self, Error> {
        Self::start_open(directory, key).wait()
    }

    /// Makes a profile for `user` in `directory`.
    ///
    /// # Errors
    /// `profile_exists`, and those of [`open_or_create`](Self::open_or_create).
    pub fn create(directory: impl AsRef<Path>, key: Key, user: &str) -> Result<Self, Error> {
        Self::start_create(directory, key, user).wait()
    }

    /// See [`Client::open_or_create`].
    pub fn start_open_or_create(
        directory: impl AsRef<Path>,
        key: Key,
        user: &str,
    ) -> Pending<Self> {
        begin(
            directory.as_ref(),
            key,
            Begin::OpenOrCreate,
            Some(user),
            Surroundings::default(),
            OpenOptions::default(),
        )
    }

    /// See [`Client::open`].
    pub fn start_open(directory: impl AsRef<Path>, key: Key) -> Pending<Self> {
        begin(
            directory.as_ref(),
            key,
            Begin::Open,
            None,
            Surroundings::default(),
            OpenOptions::default(),
        )
    }

    /// See [`Client::create`].
    pub fn start_create(directory: impl AsRef<Path>, key: Key, user: &str) -> Pending<Self> {
        begin(
            directory.as_ref(),
            key,
            Begin::Create,
            Some(user),
            Surroundings::default(),
            OpenOptions::default(),
        )
    }

    /// Makes a profile in `directory` for a new device of an account that exists. It shows a
    /// [`link_request`](Self::link_request), and does nothing else until a holder of the account has added it and given
    /// it the keys: see [`link_device`](Self::link_device). Opening it again goes on where it was.
    ///
    /// # Errors
    /// `profile_exists`, and those of [`open_or_create`](Self::open_or_create).
    pub fn create_linked(directory: impl AsRef<Path>, key: Key, user: &str) -> Result<Self, Error> {
        Self::start_create_linked(directory, key, user).wait()
    }

    /// See [`Client::create_linked`].
    pub fn start_create_linked(directory: impl AsRef<Path>, key: Key, user: &str) -> Pending<Self> {
        Self::start_create_linked_in(directory, key, user, Surroundings::default())
    }

    /// As [`Client::create_linked`], with a clock and a generator of one's own.
    pub fn start_create_linked_in(
        directory: impl AsRef<Path>,
        key: Key,
        user: &str,
        surroundings: Surroundings,
    ) -> Pending<Self> {
        begin(
            directory.as_ref(),
            key,
            Begin::Link,
            Some(user),
            surroundings,
            OpenOptions::default(),
        )
    }

    /// As [`Client::open_or_create`], with a clock and a generator of one's own.
    pub fn start_open_or_create_in(
        directory: impl AsRef<Path>,
        key: Key,
        user: &str,
        surroundings: Surroundings,
    ) -> Pending<Self> {
        begin(
            directory.as_ref(),
            key,
            Begin::OpenOrCreate,
            Some(user),
            surroundings,
            OpenOptions::default(),
        )
    }
}

impl Client {
    /// Copies what is live in the store, under new keys, and destroys the rest: what was overwritten or deleted before
    /// is gone, also for whoever gets the directory and the key. Sends and receives wait meanwhile.
    ///
    /// # Errors
    /// Those of the store; then it is as it was, unless it says `store_poisoned`.
    pub fn renew(&self) -> Result<(), Error> {
        self.start().renew().wait()
    }

    /// Puts another key or passphrase in the place of the one that opens the profile, with a renewal: the old one opens
    /// nothing that is left. A copy that somebody made before it still opens.
    ///
    /// # Errors
    /// `key_unreadable`, and those of [`renew`](Self::renew).
    pub fn change_key(&self, key: Key) -> Result<(), Error> {
        self.start().change_key(key).wait()
    }
}

impl Start<'_> {
    /// See [`Client::renew`].
    pub fn renew(self) -> Pending<()> {
        beside(self, Store::renew)
    }

    /// See [`Client::change_key`].
    pub fn change_key(self, key: Key) -> Pending<()> {
        beside(self, move |store| store.change_key(&key))
    }
}

/// Does something with the store on a thread of its own.
fn beside(
    start: Start<'_>,
    work: impl FnOnce(&Store) -> Result<(), StoreError> + Send + 'static,
) -> Pending<()> {
    let shared = &start.0.shared;
    let notifier = shared.notifier.clone();
    let prepared = shared.store().and_then(|store| {
        let wanted = shared.submit(Write::Durable, |step| Ok(renewal_wanted(step.rows)?))?;
        Ok((store, wanted.1))
    });
    let (store, wanted) = match prepared {
        Ok(prepared) => prepared,
        Err(error) => return Pending::ready(notifier, Err(error)),
    };
    let (completer, pending) = Pending::new(notifier.clone());
    // The store must not outlive its clients for this.
    let shared = Arc::downgrade(shared);
    let work = move || {
        let renewed = work(&store);
        drop(store);
        if renewed.is_ok()
            && let Some(shared) = shared.upgrade()
        {
            shared.note_renewal(wanted);
        }
        completer.complete(renewed.map_err(Error::from));
    };
    if sys::spawn("sprag renew", work) {
        pending
    } else {
        Pending::ready(notifier, Err(Error::internal("the system gives no thread")))
    }
}

pub(crate) fn begin(
    directory: &Path,
    key: Key,
    begin: Begin,
    user: Option<&str>,
    surroundings: Surroundings,
    options: OpenOptions,
) -> Pending<Client> {
    let (completer, pending) = Pending::new(Notifier::new());
    let directory = directory.to_path_buf();
    let user = user.map(str::to_owned);
    let work = move || {
        let user = user.as_deref();
        completer.complete(open(&directory, &key, begin, user, surroundings, &options));
    };
    if sys::spawn("sprag open", work) {
        pending
    } else {
        Pending::ready(
            Notifier::new(),
            Err(Error::internal("the system gives no thread")),
        )
    }
}

fn open(
    directory: &Path,
    key: &Key,
    begin: Begin,
    user: Option<&str>,
    mut surroundings: Surroundings,
    options: &OpenOptions,
) -> Result<Client, Error> {
    let user = user.map(UserId::new).transpose();
    let user = user.map_err(|_| Error::bad_input())?;
    options.check(directory)?;
    if begin == Begin::Link {
        return link(directory, key, user.as_ref(), surroundings, options);
    }
    if begin == Begin::Create {
        return create(directory, key, user.as_ref(), surroundings, options);
    }
    let store = match Store::open(directory, key, sys::rng()) {
        Err(StoreError::NotFound) if begin == Begin::OpenOrCreate => {
            return create(directory, key, user.as_ref(), surroundings, options);
        }
        opened => opened?,
    };
    // The device is in the first commit, before the store counts as one that exists.
    let party = Party::load(&store, user.as_ref())?;
    let mut party = party.ok_or(StoreError::Damaged("the device is missing"))?;
    // A device that is still being linked has nothing that could be set back.
    if let Party::Device(device) = &mut party {
        options.guard(&store, device, &mut surroundings)?;
    }
    Ok(Client::assemble(store, party, surroundings).with_recipe(again(options)))
}

/// How the client comes to its store again: by the same key, under the same guard.
fn again(options: &OpenOptions) -> Recipe {
    let anchor = options.anchor.clone();
    Arc::new(move |store| {
        let store = store.reopen(sys::rng())?;
        match &anchor {
            Some(anchor) => {
                store.guard(Arc::clone(anchor))?;
            }
            None if store.is_guarded()? => return Err(Error::anchor_needed()),
            None => {}
        }
        Ok(store)
    })
}

fn create(
    directory: &Path,
    key: &Key,
    user: Option<&UserId>,
    mut surroundings: Surroundings,
    options: &OpenOptions,
) -> Result<Client, Error> {
    let user = user.ok_or_else(Error::bad_input)?;
    options.check_free()?;
    let (mut device, first) = surroundings.create(&MemoryRows::new(), user)?;
    let store = match options.database {
        None => Store::create_with(directory, key, sys::rng(), first)?,
        Some(kind) => Store::create_in_with(directory, key, kind, sys::rng(), first)?,
    };
    options.guard(&store, &mut device, &mut surroundings)?;
    Ok(
        Client::assemble(store, Party::Device(Box::new(device)), surroundings)
            .with_recipe(again(options)),
    )
}

fn link(
    directory: &Path,
    key: &Key,
    user: Option<&UserId>,
    mut surroundings: Surroundings,
    options: &OpenOptions,
) -> Result<Client, Error> {
    let user = user.ok_or_else(Error::bad_input)?;
    let (linking, first) = surroundings.begin_linking(&MemoryRows::new(), user)?;
    let store = match options.database {
        None => Store::create_with(directory, key, sys::rng(), first)?,
        Some(kind) => Store::create_in_with(directory, key, kind, sys::rng(), first)?,
    };
    Ok(Client::assemble(store, Party::Linking(linking), surroundings).with_recipe(again(options)))
}

/// How a client comes to its store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Begin {
    Open,
    Create,
    OpenOrCreate,
    Link,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a profile looks like whose rows were lost without a trace, as sled loses them.
    #[test]
    fn a_store_without_its_device_is_damaged_and_never_a_new_account() {
        let dir = tempfile::tempdir().unwrap();
        let key = || Key::raw([7; 32]);
        Store::create(dir.path(), &key(), sys::rng())
            .unwrap()
            .close()
            .unwrap();
        for opened in [
            Client::open(dir.path(), key()),
            Client::open_or_create(dir.path(), key(), "alice"),
        ] {
            assert_eq!(opened.unwrap_err().code(), "store_damaged");
        }
        let created = Client::create(dir.path(), key(), "alice");
        assert_eq!(created.unwrap_err().code(), "profile_exists");
    }

    #[test]
    fn a_changed_key_opens_and_the_old_one_does_not_and_nothing_is_lost() {
        let dir = tempfile::tempdir().unwrap();
        let alice = Client::create(dir.path(), Key::raw([7; 32]), "alice").unwrap();
        let id = alice.send_encrypted_message("bob", b"hello").unwrap();
        alice.renew().unwrap();
        alice.change_key(Key::raw([8; 32])).unwrap();
        alice.send_encrypted_message("bob", b"again").unwrap();
        let tasks = alice.tasks().unwrap();
        alice.close().unwrap();
        let old = Client::open(dir.path(), Key::raw([7; 32]));
        assert_eq!(old.unwrap_err().code(), "wrong_key");
        let alice = Client::open(dir.path(), Key::raw([8; 32])).unwrap();
        assert_eq!(alice.tasks().unwrap(), tasks);
        assert!(alice.status(id).unwrap().is_some());
    }

    #[test]
    fn a_profile_is_opened_by_its_own_user_alone() {
        let dir = tempfile::tempdir().unwrap();
        let key = || Key::raw([7; 32]);
        let missing = Client::open(dir.path().join("alice"), key());
        assert_eq!(missing.unwrap_err().code(), "no_profile");
        let alice = Client::open_or_create(dir.path(), key(), "alice").unwrap();
        let address = alice.address().unwrap();
        alice.close().unwrap();
        let bob = Client::open_or_create(dir.path(), key(), "bob");
        assert_eq!(bob.unwrap_err().code(), "other_user");
        let again = Client::open(dir.path(), key()).unwrap();
        assert_eq!(again.address().unwrap(), address);
    }
}
