//! Opening a profile on disk, on a thread of its own: keys from passphrases and large stores take their time.

use std::path::{Path, PathBuf};

use sprag_keys::Key;
use sprag_store::{Store, StoreError};

use crate::client::{Begin, Client};
use crate::notifier::Notifier;
use crate::pending::Pending;
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
        )
    }
}

fn begin(
    directory: &Path,
    key: Key,
    begin: Begin,
    user: Option<&str>,
    surroundings: Surroundings,
) -> Pending<Client> {
    let (completer, pending) = Pending::new(Notifier::new());
    let directory = directory.to_path_buf();
    let user = user.map(str::to_owned);
    let work = move || {
        completer.complete(open(&directory, &key, begin, user.as_deref(), surroundings));
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
    directory: &PathBuf,
    key: &Key,
    begin: Begin,
    user: Option<&str>,
    surroundings: Surroundings,
) -> Result<Client, Error> {
    if user.is_some_and(|user| sprag_wire::UserId::new(user).is_err()) {
        return Err(Error::bad_input());
    }
    let opened = match begin {
        Begin::Create => Store::create(directory, key, sys::rng()),
        Begin::Open => Store::open(directory, key, sys::rng()),
        Begin::OpenOrCreate => match Store::open(directory, key, sys::rng()) {
            Err(StoreError::NotFound) => Store::create(directory, key, sys::rng()),
            opened => opened,
        },
    };
    // A store without a device is one whose creation was cut off: it is finished now.
    let begin = if begin == Begin::Create {
        Begin::OpenOrCreate
    } else {
        begin
    };
    Client::over(opened?, begin, user, surroundings)
}
