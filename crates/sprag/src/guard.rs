//! The rollback guard: an anchor outside of the profile notices that a profile was set back to an earlier state.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sprag_keys::Key;
use sprag_session::{Device, KEPT_TABLES, OldNumber};
use sprag_store::{Anchor, BackendKind, FileAnchor, Rollback, Staged, Standing, Store, StoreError};

use crate::client::Client;
use crate::open::{self, Begin};
use crate::pending::Pending;
use crate::start::Start;
use crate::{Error, Surroundings};

/// How a profile goes on that was set back to an earlier state. There is no default: the user decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum AfterRollback {
    /// As the same device, with new sessions: nothing of the old state is used to send, prekeys are published anew, and
    /// contacts need do nothing. Right when the profile was restored or copied here on purpose, and **no other copy of it is
    /// in use**. What was received in the time that is lost may be missing.
    NewSessions,
    /// As a new device of the account, whose old number goes off the account's list: right when another copy of the
    /// profile may be in use, or in foreign hands. Only a device that has the account's private key can; any other is
    /// `not_holder`, and nothing is changed.
    ///
    /// What a backup carries stays (account, trust, memory keys, settings), and so do messages that were not acknowledged,
    /// and events. Sessions, prekeys and the outbox go, and the store is renewed; messages that waited are told as the event
    /// `NotSent`. The device begins as one that was [restored](crate::Client::restore): until the server took the list that
    /// it is on (the event `Restored`), sending is `unlisted_device`. Every decision makes another device.
    NewDevice,
    /// As [`NewDevice`](Self::NewDevice), but the old number stays listed: for a copy that is to go on by itself. Memory
    /// keys that are made from then on are shared with both.
    NewDeviceBesideOld,
}

/// How a profile is opened, beyond what [`Client::open_or_create`] asks for.
///
/// ```no_run
/// # fn main() -> Result<(), sprag::Error> {
/// use sprag::{Client, Key};
///
/// let alice = Client::options()
///     .anchor_file("/home/alice/.config/chat/anchor")
///     .open_or_create("/home/alice/.local/share/chat", Key::passphrase("correct horse"), "alice")?;
/// # alice.close() }
/// ```
#[derive(Clone, Default)]
pub struct OpenOptions {
    pub(crate) anchor: Option<Arc<dyn Anchor>>,
    anchor_file: Option<PathBuf>,
    pub(crate) unguarded: bool,
    pub(crate) database: Option<BackendKind>,
    pub(crate) after_rollback: Option<AfterRollback>,
}

impl fmt::Debug for OpenOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenOptions")
            .field("anchored", &self.anchor.is_some())
            .field("database", &self.database)
            .field("after_rollback", &self.after_rollback)
            .finish_non_exhaustive()
    }
}

impl OpenOptions {
    /// Guards the profile with an anchor: a place outside of it that remembers how far it was. A profile that was under
    /// a guard once opens with its anchor only.
    #[must_use]
    pub fn anchor(mut self, anchor: impl Anchor) -> Self {
        self.anchor = Some(Arc::new(anchor));
        self.anchor_file = None;
        self.unguarded = false;
        self
    }

    /// Guards the profile with an anchor in this file, in a directory that exists, outside of the profile and of whatever
    /// backs it up or synchronises it. See [`FileAnchor`].
    #[must_use]
    pub fn anchor_file(self, path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        let mut options = self.anchor(FileAnchor::new(&path));
        options.anchor_file = Some(path);
        options
    }

    /// Ends the guard of the profile for good, and opens it without an anchor.
    #[must_use]
    pub fn without_anchor(mut self) -> Self {
        self.anchor = None;
        self.anchor_file = None;
        self.unguarded = true;
        self
    }

    /// The database that a new profile is made in. One that exists is found where it is.
    #[must_use]
    pub fn database(mut self, database: BackendKind) -> Self {
        self.database = Some(database);
        self
    }

    /// How to go on if the profile turns out to be set back. Without it opening fails with `store_rolled_back`: ask the
    /// user then, and open again with the answer.
    #[must_use]
    pub fn after_rollback(mut self, decision: AfterRollback) -> Self {
        self.after_rollback = Some(decision);
        self
    }

    /// See [`Client::open_or_create`].
    ///
    /// # Errors
    /// `store_rolled_back`; `not_holder` if it is to go on as a new device and cannot; `anchor_needed` if the profile is
    /// under a guard and no anchor was given; `other_anchor` if what is in the anchor's place is not this profile's;
    /// `bad_input` if the anchor's file is inside the profile; and those of [`Client::open_or_create`].
    pub fn open_or_create(
        self,
        directory: impl AsRef<Path>,
        key: Key,
        user: &str,
    ) -> Result<Client, Error> {
        self.start_open_or_create(directory, key, user, Surroundings::default())
            .wait()
    }

    /// See [`Client::open`].
    ///
    /// # Errors
    /// `no_profile`, and those of [`open_or_create`](Self::open_or_create).
    pub fn open(self, directory: impl AsRef<Path>, key: Key) -> Result<Client, Error> {
        self.start_open(directory, key, Surroundings::default())
            .wait()
    }

    /// See [`Client::create`].
    ///
    /// # Errors
    /// `profile_exists`, and those of [`open_or_create`](Self::open_or_create).
    pub fn create(
        self,
        directory: impl AsRef<Path>,
        key: Key,
        user: &str,
    ) -> Result<Client, Error> {
        self.start_create(directory, key, user, Surroundings::default())
            .wait()
    }

    /// See [`open_or_create`](Self::open_or_create), with a clock and a generator of one's own.
    pub fn start_open_or_create(
        self,
        directory: impl AsRef<Path>,
        key: Key,
        user: &str,
        surroundings: Surroundings,
    ) -> Pending<Client> {
        let begin = Begin::OpenOrCreate;
        open::begin(
            directory.as_ref(),
            key,
            begin,
            Some(user),
            surroundings,
            self,
        )
    }

    /// See [`open`](Self::open), with a clock and a generator of one's own.
    pub fn start_open(
        self,
        directory: impl AsRef<Path>,
        key: Key,
        surroundings: Surroundings,
    ) -> Pending<Client> {
        open::begin(
            directory.as_ref(),
            key,
            Begin::Open,
            None,
            surroundings,
            self,
        )
    }

    /// See [`create`](Self::create), with a clock and a generator of one's own.
    pub fn start_create(
        self,
        directory: impl AsRef<Path>,
        key: Key,
        user: &str,
        surroundings: Surroundings,
    ) -> Pending<Client> {
        let begin = Begin::Create;
        open::begin(
            directory.as_ref(),
            key,
            begin,
            Some(user),
            surroundings,
            self,
        )
    }

    /// An anchor inside of the profile would be set back with it.
    pub(crate) fn check(&self, directory: &Path) -> Result<(), Error> {
        let Some(file) = &self.anchor_file else {
            return Ok(());
        };
        let parent = file.parent().unwrap_or(Path::new(""));
        let whole = |path: &Path| crate::sys::whole_path(path);
        if whole(parent).starts_with(whole(directory)) {
            return Err(Error::bad_input());
        }
        Ok(())
    }

    /// Before a profile is made: what is in the anchor's place is somebody else's.
    pub(crate) fn check_free(&self) -> Result<(), Error> {
        use sprag_store::AnchorError;
        let Some(anchor) = &self.anchor else {
            return Ok(());
        };
        match anchor.read() {
            Ok(Some(_)) | Err(AnchorError::Foreign) => Err(StoreError::ForeignAnchor.into()),
            Err(AnchorError::UnknownVersion) => Err(StoreError::UnsupportedVersion.into()),
            _ => Ok(()),
        }
    }

    /// Puts a store that was just opened under its guard.
    pub(crate) fn guard(
        &self,
        store: &Store,
        device: &mut Device,
        surroundings: &mut Surroundings,
    ) -> Result<(), Error> {
        let Some(anchor) = &self.anchor else {
            return match (store.is_guarded()?, self.unguarded) {
                (true, false) => Err(Error::anchor_needed()),
                (true, true) => Ok(store.unguard()?),
                (false, _) => Ok(()),
            };
        };
        let sign = match store.guard(Arc::clone(anchor)) {
            Err(StoreError::RolledBack(sign)) => sign,
            guarded => return Ok(guarded.map(drop)?),
        };
        match self.after_rollback {
            None => return Err(StoreError::RolledBack(sign).into()),
            Some(AfterRollback::NewSessions) => start_anew(store, device, surroundings, sign)?,
            Some(AfterRollback::NewDevice) => {
                *device = become_new(store, device, surroundings, sign, OldNumber::Dropped)?;
            }
            Some(AfterRollback::NewDeviceBesideOld) => {
                *device = become_new(store, device, surroundings, sign, OldNumber::Kept)?;
            }
        }
        // Only now: had it died before, it would be asked again.
        Ok(store.guard_anew(Arc::clone(anchor)).map(drop)?)
    }
}

/// Makes sure that nothing of the old state is used again, for good.
fn start_anew(
    store: &Store,
    device: &mut Device,
    surroundings: &mut Surroundings,
    sign: Rollback,
) -> Result<(), Error> {
    let mut rows = Staged::new(store);
    device.set_back(&mut rows, &mut surroundings.env(), sign)?;
    let changes = rows.into_changes();
    store.commit_blocking(changes)?;
    Ok(())
}

/// Puts a new device in the place of this one, and destroys what was: one instant decides which of the two there is.
fn become_new(
    store: &Store,
    device: &Device,
    surroundings: &mut Surroundings,
    sign: Rollback,
    old: OldNumber,
) -> Result<Device, Error> {
    if !device.has_account_key() {
        return Err(Error::not_holder());
    }
    let (new, rows) = device.become_new(store, &mut surroundings.env(), sign, old)?;
    store.begin_anew(&KEPT_TABLES, &rows)?;
    Ok(new)
}

impl Client {
    /// Opens and makes profiles with more than a directory, a key and a user: an anchor, another database.
    #[must_use]
    pub fn options() -> OpenOptions {
        OpenOptions::default()
    }

    /// How the profile stood to its anchor when that was tried last.
    ///
    /// # Errors
    /// `closed`, `forked`.
    pub fn anchor(&self) -> Result<Standing, Error> {
        Ok(self.shared.store()?.anchor_standing())
    }

    /// Compares with the anchor, and tells it how far the profile is, now. The client does so by itself at most 256
    /// commits or ten seconds after something changed, and at close.
    ///
    /// # Errors
    /// `store_rolled_back`, from here on the answer of every verb: the profile was opened elsewhere, or set back. Those of
    /// the store.
    pub fn check_anchor(&self) -> Result<Standing, Error> {
        self.start().check_anchor().wait()
    }
}

impl Start<'_> {
    /// See [`Client::check_anchor`].
    pub fn check_anchor(self) -> Pending<Standing> {
        let notifier = self.0.shared.notifier.clone();
        let store = match self.0.shared.store() {
            Ok(store) => store,
            Err(error) => return Pending::ready(notifier, Err(error)),
        };
        let (completer, pending) = Pending::new(notifier.clone());
        let work = move || {
            let checked = store.check_anchor();
            drop(store);
            completer.complete(checked.map_err(Error::from));
        };
        if crate::sys::spawn("sprag anchor", work) {
            pending
        } else {
            Pending::ready(notifier, Err(Error::internal("the system gives no thread")))
        }
    }
}
