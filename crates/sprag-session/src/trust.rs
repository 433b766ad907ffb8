//! Whom we believe: users, their account keys and device lists ("The protocol", §1.2).

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use sprag_crypto::{AccountKey, IdentityKey};
use sprag_store::{Rows, Staged, StoreError};
use sprag_wire::{DeviceAddress, DeviceId, ListHash, ListedDevice, UnverifiedDeviceList, UserId};
use sprag_x3dh::DeviceList;
use zeroize::Zeroizing;

use crate::codec::{Reader, Writer};
use crate::error::{ProtocolError, StepError};
use crate::tables;

/// Epochs of another user's history that are remembered.
pub const HISTORY: u64 = 32;

const VERSION: u8 = 1;

/// Where a device list came from. What is fine depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ListSource {
    /// Fetched from the server as the newest.
    Server,
    /// Fetched from the server, asked for by its epoch.
    ServerByEpoch,
    /// In a prekey bundle, which the server gave.
    Bundle,
    /// In a handshake, which the peer made.
    Handshake,
    /// Riding in a content.
    Content,
}

impl ListSource {
    pub(crate) fn is_server(self) -> bool {
        matches!(self, Self::Server | Self::ServerByEpoch | Self::Bundle)
    }

    fn may_be_old(self) -> bool {
        matches!(self, Self::ServerByEpoch | Self::Bundle | Self::Handshake)
    }
}

/// What is remembered of a user.
#[derive(Debug, Clone)]
pub(crate) struct User {
    pub(crate) name: UserId,
    pub(crate) account_key: AccountKey,
    pub(crate) from_server: bool,
    pub(crate) accepted: bool,
    pub(crate) newest: DeviceList,
    /// Hashes of the epochs remembered, the newest among them.
    pub(crate) history: BTreeMap<u64, ListHash>,
}

/// A list that has passed the judgement, and what accepting it means.
#[derive(Debug)]
pub(crate) struct Judged {
    pub(crate) list: DeviceList,
    /// Another, provisional account key gives way to this list's.
    pub(crate) replaces: bool,
    source: ListSource,
}

impl User {
    pub(crate) fn first(name: UserId, list: DeviceList, from_server: bool) -> Self {
        let mut user = Self {
            name,
            account_key: *list.account_key(),
            from_server,
            accepted: false,
            newest: list,
            history: BTreeMap::new(),
        };
        user.note_newest();
        user
    }

    fn note_newest(&mut self) {
        let epoch = self.newest.epoch();
        self.history.insert(epoch, self.newest.hash());
        if let Some(previous) = self.newest.previous() {
            self.history.insert(epoch - 1, previous);
        }
    }

    /// May this user be written to at all ("The protocol", §1.2)?
    pub(crate) fn may_be_written_to(&self) -> bool {
        self.accepted || self.from_server
    }

    /// The identity key under which `device` is listed.
    pub(crate) fn listed(&self, device: DeviceId) -> Option<&IdentityKey> {
        entry(&self.newest, device).map(|entry| entry.identity_key())
    }

    pub(crate) fn is_listed(&self, device: DeviceId, key: &IdentityKey) -> bool {
        self.listed(device) == Some(key)
    }
}

fn entry(list: &DeviceList, device: DeviceId) -> Option<&ListedDevice> {
    list.devices().iter().find(|entry| entry.device() == device)
}

/// Reads what is remembered of a user. Our own user keeps the whole history, in rows of its own.
pub(crate) fn load(
    rows: &dyn Rows,
    name: &UserId,
    own: &UserId,
) -> Result<Option<User>, StoreError> {
    let mut user = load_row(rows, name)?;
    if name == own
        && let Some(user) = &mut user
    {
        let mut bad = false;
        rows.scan(&tables::all(tables::OWN_HISTORY), &mut |suffix, value| {
            match (suffix.try_into(), value.try_into()) {
                (Ok(epoch), Ok(hash)) => {
                    let hash = ListHash::from_bytes(hash);
                    user.history.insert(u64::from_be_bytes(epoch), hash);
                }
                _ => bad = true,
            }
            ControlFlow::Continue(())
        })?;
        if bad {
            return Err(StoreError::Damaged("own list history"));
        }
    }
    Ok(user)
}

/// Reads a user's row: of our own user without the history.
pub(crate) fn load_row(rows: &dyn Rows, name: &UserId) -> Result<Option<User>, StoreError> {
    let Some(bytes) = rows.get(&tables::user(name))? else {
        return Ok(None);
    };
    let mut reader = Reader::new(&bytes, VERSION, "user row")?;
    let account_key = AccountKey::from_bytes(reader.take(33)?);
    let account_key = reader.checked(account_key)?;
    let from_server = reader.bool()?;
    let accepted = reader.bool()?;
    let hash = ListHash::from_bytes(reader.array()?);
    let frame = UnverifiedDeviceList::decode(reader.block()?);
    let frame = reader.checked(frame)?;
    // The list was verified before it was stored; its hash is sealed beside it.
    let newest = DeviceList::already_known(frame, &hash).ok_or_else(|| reader.damaged())?;
    let mut history = BTreeMap::new();
    for _ in 0..reader.u32()? {
        history.insert(reader.u64()?, ListHash::from_bytes(reader.array()?));
    }
    reader.finish()?;
    Ok(Some(User {
        name: name.clone(),
        account_key,
        from_server,
        accepted,
        newest,
        history,
    }))
}

/// Writes a user's row.
pub(crate) fn save(rows: &mut Staged<'_>, user: &User, own: &UserId) {
    let is_own = user.name == *own;
    let frame = user.newest.frame();
    let mut writer = Writer::new(
        VERSION,
        33 + 2 + 32 + 4 + frame.len() + 4 + user.history.len() * 40,
    );
    writer
        .fixed(user.account_key.as_bytes())
        .bool(user.from_server)
        .bool(user.accepted);
    writer.fixed(user.newest.hash().as_bytes()).block(frame);
    if is_own {
        writer.u32(0);
        for (epoch, hash) in &user.history {
            rows.put(
                tables::own_history(*epoch),
                Zeroizing::new(hash.as_bytes().to_vec()),
            );
        }
        let list = Zeroizing::new(frame.to_vec());
        rows.put(tables::own_list(user.newest.epoch()), list);
    } else {
        writer.u32(u32::try_from(user.history.len()).unwrap_or(u32::MAX));
        for (epoch, hash) in &user.history {
            writer.u64(*epoch).fixed(hash.as_bytes());
        }
    }
    rows.put(tables::user(&user.name), writer.finish());
}

/// Judges a list that claims to be of user `name` ("The protocol", §1.2, 1 to 4).
pub(crate) fn judge(
    remembered: Option<&User>,
    own: &UserId,
    name: &UserId,
    list: UnverifiedDeviceList,
    source: ListSource,
) -> Result<Judged, ProtocolError> {
    if list.user() != name {
        return Err(ProtocolError::Malformed);
    }
    let Some(user) = remembered else {
        return Ok(Judged {
            list: DeviceList::verify(list)?,
            replaces: false,
            source,
        });
    };
    if *list.account_key() != user.account_key {
        if name != own && !user.accepted && source.is_server() {
            return Ok(Judged {
                list: DeviceList::verify(list)?,
                replaces: true,
                source,
            });
        }
        return Err(ProtocolError::UntrustedIdentity);
    }
    let epoch = list.epoch();
    let known = user.history.get(&epoch);
    let list = match known {
        Some(hash) if *hash == list.hash() => {
            let hash = *hash;
            DeviceList::already_known(list, &hash).ok_or(ProtocolError::BadSignature)?
        }
        _ => DeviceList::verify(list)?,
    };
    let fork_here = known.is_some_and(|hash| *hash != list.hash());
    let fork_before = list.previous().is_some_and(|previous| {
        user.history
            .get(&(epoch - 1))
            .is_some_and(|hash| *hash != previous)
    });
    if fork_here || fork_before {
        return Err(ProtocolError::ForkedList);
    }
    if epoch < user.newest.epoch() && !source.may_be_old() {
        return Err(ProtocolError::StaleList);
    }
    Ok(Judged {
        list,
        replaces: false,
        source,
    })
}

impl Judged {
    /// The newest list that is known once this one is remembered.
    pub(crate) fn newest<'a>(&'a self, remembered: Option<&'a User>) -> &'a DeviceList {
        match remembered {
            Some(user) if !self.replaces && self.list.epoch() < user.newest.epoch() => &user.newest,
            _ => &self.list,
        }
    }

    /// Remembers the list; `None` if nothing changes. The caller drops what it leaves out.
    pub(crate) fn remember(
        self,
        remembered: Option<User>,
        name: &UserId,
        own: &UserId,
    ) -> Option<User> {
        let from_server = self.source.is_server();
        let Some(mut user) = remembered.filter(|_| !self.replaces) else {
            return Some(User::first(name.clone(), self.list, from_server));
        };
        let epoch = self.list.epoch();
        let mut changed = from_server && !user.from_server;
        user.from_server |= from_server;
        if epoch > user.newest.epoch() {
            user.newest = self.list;
            user.note_newest();
            changed = true;
        } else if user.history.get(&epoch) == Some(&self.list.hash())
            && let Some(previous) = self.list.previous()
            && !user.history.contains_key(&(epoch - 1))
        {
            user.history.insert(epoch - 1, previous);
            changed = true;
        }
        if user.name != *own {
            let oldest = (user.newest.epoch() + 1).saturating_sub(HISTORY);
            user.history.retain(|epoch, _| *epoch >= oldest);
        }
        changed.then_some(user)
    }
}

/// Judges and remembers a list in one go, outside of any frame; says whether a provisional account key was replaced.
pub(crate) fn identity_of(
    user: Option<&User>,
    address: &DeviceAddress,
) -> Result<IdentityKey, ProtocolError> {
    let user = user.ok_or(ProtocolError::UnknownPeer)?;
    user.listed(address.device())
        .copied()
        .ok_or(ProtocolError::UnlistedDevice)
}

/// Everybody who is remembered.
pub(crate) fn names(rows: &dyn Rows) -> Result<Vec<UserId>, StoreError> {
    let mut names = Vec::new();
    let mut failed = Ok(());
    rows.scan(&tables::all(tables::USERS), &mut |suffix, value| {
        if suffix == [0] {
            match name_of(value) {
                Ok(name) => names.push(name),
                Err(error) => failed = Err(error),
            }
        }
        ControlFlow::Continue(())
    })?;
    failed.map(|()| names)
}

/// The user of a row: its list names him.
fn name_of(value: &[u8]) -> Result<UserId, StoreError> {
    let mut reader = Reader::new(value, VERSION, "user row")?;
    reader.take(33 + 2 + 32)?;
    let list = UnverifiedDeviceList::decode(reader.block()?);
    Ok(reader.checked(list)?.user().clone())
}

/// The error of a step that needs a user who is not there.
pub(crate) fn known(user: Option<User>) -> Result<User, StepError> {
    user.ok_or(StepError::Protocol(ProtocolError::NeedsBundle))
}
