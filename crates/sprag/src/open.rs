//! Opening a profile on disk, on a thread of its own: keys from passphrases and large stores take their time.

use std::path::{Path, PathBuf};

use sprag_keys::Key;
use sprag_store::{Store, StoreError};

use crate::client::{Begin, Client};
use crate::notifier::Notifier;
use crate::pending::Pending;
use crate::{Error, Surroundings, sys};

impl Client {
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
