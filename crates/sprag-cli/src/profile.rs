//! The profile in the home folder, and the server that it exchanges with.

use std::env;
use std::path::PathBuf;

use sprag::{AfterRollback, Client, Key, OpenOptions, Restore};

use crate::args::{Global, InitArgs};
use crate::error::CliError;
use crate::key;
use crate::output::Output;
use crate::server::{Fetched, Ran, Server};

/// The store, below the home folder.
pub(crate) const STORE: &str = "profile";
/// A server of our own below the home folder, from which bundles are handed out if there is no other.
const OWN_SERVER: &str = "published";

/// An open profile.
#[derive(Debug)]
pub(crate) struct Profile {
    pub(crate) client: Client,
    server: Option<Server>,
    home: PathBuf,
}

impl Profile {
    /// Opens the profile that the options name.
    pub(crate) fn open(global: &Global) -> Result<Self, CliError> {
        Self::open_with(global, options(global), || key::existing(global))
    }

    /// As [`open`](Self::open), with a key that is there already.
    pub(crate) fn open_with_key(global: &Global, key: Key) -> Result<Self, CliError> {
        Self::open_with(global, options(global), || Ok(key))
    }

    /// Opens it although it was set back: the user said so.
    pub(crate) fn open_set_back(
        global: &Global,
        decision: AfterRollback,
    ) -> Result<Self, CliError> {
        let options = options(global).after_rollback(decision);
        Self::open_with(global, options, || key::existing(global))
    }

    fn open_with(
        global: &Global,
        options: OpenOptions,
        key: impl FnOnce() -> Result<Key, CliError>,
    ) -> Result<Self, CliError> {
        let home = home(global)?;
        let server = server(global)?;
        let store = existing(global)?;
        let client = options.open(store, key()?)?;
        Ok(Self {
            client,
            server,
            home,
        })
    }

    /// Opens the profile of `user`, and makes it if there is none.
    pub(crate) fn open_or_create(global: &Global, init: &InitArgs) -> Result<Self, CliError> {
        let home = home(global)?;
        let server = server(global)?;
        let store = home.join(STORE);
        let key = if store.exists() {
            key::existing(global)?
        } else {
            key::fresh(global)?
        };
        let mut options = options(global);
        if let Some(database) = init.database {
            options = options.database(database.into());
        }
        let client = options.open_or_create(store, key, &init.user)?;
        Ok(Self {
            client,
            server,
            home,
        })
    }

    /// Makes a profile of a new device out of a backup.
    pub(crate) fn restore(
        global: &Global,
        backup: &[u8],
        opener: &Key,
        how: &Restore,
    ) -> Result<Self, CliError> {
        let home = home(global)?;
        let server = server(global)?;
        let store = home.join(STORE);
        if store.exists() {
            return Err(CliError::Usage(format!(
                "there is a profile in {} already: choose another --home",
                home.display()
            )));
        }
        let client = Client::restore(store, key::fresh(global)?, backup, opener, how)?;
        Ok(Self {
            client,
            server,
            home,
        })
    }

    /// Opens the profile of `user`, and if there is none makes one that shows a code to be added by another device.
    pub(crate) fn open_or_link(global: &Global, user: &str) -> Result<Self, CliError> {
        let home = home(global)?;
        let server = server(global)?;
        let store = home.join(STORE);
        let client = if store.exists() {
            options(global).open_or_create(store, key::existing(global)?, user)?
        } else {
            Client::create_linked(store, key::fresh(global)?, user)?
        };
        Ok(Self {
            client,
            server,
            home,
        })
    }

    /// Whether this profile is a device with a number; if not, it shows a code.
    pub(crate) fn has_number(&self) -> Result<bool, CliError> {
        match self.client.device() {
            Ok(_) => Ok(true),
            Err(error) if error.code() == "not_linked" => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// The server that the options name.
    pub(crate) fn server(&self) -> Option<&Server> {
        self.server.as_ref()
    }

    /// A server of our own, for handing out bundles by other ways.
    pub(crate) fn own_server(&self) -> Result<Server, CliError> {
        Server::open(&self.home.join(OWN_SERVER))
    }

    /// With a server: does what waits for the network.
    pub(crate) fn run_tasks(&self, output: &mut Output) -> Result<Ran, CliError> {
        match &self.server {
            Some(server) => server.run_tasks(&self.client, output),
            None => Ok(Ran::default()),
        }
    }

    /// With a server: does what waits, fetches envelopes, and does what waits then.
    pub(crate) fn exchange(&self, output: &mut Output) -> Result<(Ran, Fetched), CliError> {
        let Some(server) = &self.server else {
            return Ok((Ran::default(), Fetched::default()));
        };
        if !self.has_number()? {
            let ran = server.run_tasks(&self.client, output)?;
            if !self.has_number()? {
                return Ok((ran, Fetched::default()));
            }
        }
        self.client.expire()?;
        let mut ran = server.run_tasks(&self.client, output)?;
        let fetched = server.fetch(&self.client, output)?;
        ran.add(&server.run_tasks(&self.client, output)?);
        Ok((ran, fetched))
    }

    /// Without a server: says that something waits for the network.
    pub(crate) fn tell_waiting(&self, output: &mut Output) -> Result<(), CliError> {
        let waiting = self.client.tasks()?.len();
        if self.server.is_none() && waiting > 0 {
            output.note(&format!(
                "{waiting} tasks wait for your transport: see `sprag tasks`, or give --server"
            ));
        }
        Ok(())
    }
}

/// The store of the profile that the options name, which is there.
pub(crate) fn existing_store(global: &Global) -> Result<PathBuf, CliError> {
    let home = home(global)?;
    let store = home.join(STORE);
    if store.exists() {
        Ok(store)
    } else {
        Err(CliError::NoProfile(home))
    }
}

/// The folder of the profile.
pub(crate) fn home(global: &Global) -> Result<PathBuf, CliError> {
    match &global.home {
        Some(home) => Ok(home.clone()),
        None => env::home_dir()
            .filter(|home| !home.as_os_str().is_empty())
            .map(|home| home.join(".sprag"))
            .ok_or_else(|| CliError::Usage("there is no home folder: give --home".to_owned())),
    }
}

/// The store of a profile that is there.
pub(crate) fn existing(global: &Global) -> Result<PathBuf, CliError> {
    let home = home(global)?;
    let store = home.join(STORE);
    if store.exists() {
        Ok(store)
    } else {
        Err(CliError::NoProfile(home))
    }
}

fn options(global: &Global) -> OpenOptions {
    match &global.anchor {
        Some(anchor) => Client::options().anchor_file(anchor),
        None => Client::options(),
    }
}

fn server(global: &Global) -> Result<Option<Server>, CliError> {
    global.server.as_deref().map(Server::open).transpose()
}
