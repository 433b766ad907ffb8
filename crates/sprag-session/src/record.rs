//! What we hold of one device of a peer: its sessions in order, and the ledger ("The protocol", §8 and §9).

use std::ops::ControlFlow;

use sprag_crypto::{IdentityKey, Mode, SessionId};
use sprag_ratchet::{
    MessageSeed, Session, SkippedChanges, SkippedIndex, SkippedKeys, SkippedUnavailable,
};
use sprag_store::{Rows, Staged, StoreError};
use sprag_wire::DeviceAddress;
use zeroize::Zeroizing;

use crate::codec::{Reader, Writer};
use crate::seal::PENDING_MS;
use crate::tables;

/// Archived sessions per device.
pub const ARCHIVED: usize = 40;
/// Archived sessions per device while its user is not accepted.
pub const ARCHIVED_OF_STRANGER: usize = 3;
/// Session ids that the ledger of one device remembers.
pub const LEDGER: usize = 128;

const VERSION: u8 = 1;
const LEDGER_VERSION: u8 = 1;

/// One session in the record's order. The ratchet's state stands in rows of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SessionRef {
    pub(crate) number: u64,
    pub(crate) id: SessionId,
    pub(crate) mode: Mode,
    pub(crate) retired: bool,
    /// When a handshake was made that no reply has confirmed yet, in milliseconds.
    pub(crate) pending_since: Option<u64>,
}

impl SessionRef {
    /// Whether its handshake has been pending for too long. A time that is far ahead was written by a wrong clock, and
    /// would never end.
    pub(crate) fn is_stale(&self, now: u64) -> bool {
        self.pending_since.is_some_and(|since| {
            now.saturating_sub(since) > PENDING_MS || since.saturating_sub(now) > 2 * PENDING_MS
        })
    }
}

/// The record of one device.
#[derive(Debug, Clone)]
pub(crate) struct Record {
    pub(crate) address: DeviceAddress,
    pub(crate) owner: Vec<u8>,
    pub(crate) identity_key: IdentityKey,
    pub(crate) current: Option<SessionRef>,
    /// Newest first.
    pub(crate) archive: Vec<SessionRef>,
    /// SIDs of a reset under way, which ride until they are confirmed.
    pub(crate) reset: Vec<SessionId>,
    /// Not stored yet.
    pub(crate) is_new: bool,
}

impl Record {
    pub(crate) fn new(address: &DeviceAddress, identity_key: IdentityKey) -> Self {
        Self {
            address: address.clone(),
            owner: tables::device_owner(address),
            identity_key,
            current: None,
            archive: Vec::new(),
            reset: Vec::new(),
            is_new: true,
        }
    }

    pub(crate) fn load(
        rows: &dyn Rows,
        address: &DeviceAddress,
    ) -> Result<Option<Self>, StoreError> {
        let owner = tables::device_owner(address);
        let Some(bytes) = rows.get(&tables::record(&owner))? else {
            return Ok(None);
        };
        let mut reader = Reader::new(&bytes, VERSION, "device record")?;
        let identity_key = IdentityKey::from_bytes(reader.take(33)?);
        let identity_key = reader.checked(identity_key)?;
        let current = if reader.bool()? {
            Some(read_ref(&mut reader)?)
        } else {
            None
        };
        let mut archive = Vec::new();
        for _ in 0..reader.u8()? {
            archive.push(read_ref(&mut reader)?);
        }
        let mut reset = Vec::new();
        for _ in 0..reader.u8()? {
            reset.push(SessionId::from_bytes(reader.array()?));
        }
        reader.finish()?;
        Ok(Some(Self {
            address: address.clone(),
            owner,
            identity_key,
            current,
            archive,
            reset,
            is_new: false,
        }))
    }

    pub(crate) fn save(&self, rows: &mut Staged<'_>) {
        let count = self.archive.len() + 1;
        let mut writer = Writer::new(VERSION, 36 + count * 35 + 2 + self.reset.len() * 16);
        writer
            .fixed(self.identity_key.as_bytes())
            .bool(self.current.is_some());
        if let Some(current) = &self.current {
            write_ref(&mut writer, current);
        }
        writer.u8(u8::try_from(self.archive.len()).unwrap_or(u8::MAX));
        for archived in &self.archive {
            write_ref(&mut writer, archived);
        }
        writer.u8(u8::try_from(self.reset.len()).unwrap_or(u8::MAX));
        for id in &self.reset {
            writer.fixed(id.as_bytes());
        }
        rows.put(tables::record(&self.owner), writer.finish());
        if self.is_new {
            let device = self.address.device().get();
            rows.put(
                tables::has_record(self.address.user(), device),
                Zeroizing::new(Vec::new()),
            );
        }
    }

    /// All sessions, the current one first.
    pub(crate) fn sessions(&self) -> impl Iterator<Item = &SessionRef> {
        self.current.iter().chain(&self.archive)
    }

    pub(crate) fn find(&self, id: &SessionId) -> Option<&SessionRef> {
        self.sessions().find(|session| session.id == *id)
    }

    fn find_mut(&mut self, id: &SessionId) -> Option<&mut SessionRef> {
        self.current
            .iter_mut()
            .chain(&mut self.archive)
            .find(|session| session.id == *id)
    }

    pub(crate) fn holds_pqxdh(&self) -> bool {
        self.sessions().any(|session| session.mode == Mode::Pqxdh)
    }

    /// A new session becomes current; the old one goes to the front of the archive. Returns what fell off its end.
    pub(crate) fn establish(&mut self, session: SessionRef, archived: usize) -> Vec<SessionRef> {
        if session.mode == Mode::Pqxdh {
            for other in self.current.iter_mut().chain(&mut self.archive) {
                other.retired |= other.mode == Mode::X3dh;
            }
        }
        if let Some(old) = self.current.replace(session) {
            self.archive.insert(0, old);
        }
        self.trim(archived)
    }

    fn trim(&mut self, archived: usize) -> Vec<SessionRef> {
        let keep = self.archive.len().min(archived);
        let mut dropped = self.archive.split_off(keep);
        dropped.reverse();
        dropped
    }

    /// A message was read on `id`: no handshake is pending any more, and unless retired the session becomes current.
    /// Says whether the record changed, and what fell off the archive.
    pub(crate) fn read_on(&mut self, id: &SessionId, archived: usize) -> (bool, Vec<SessionRef>) {
        let mut changed = false;
        if let Some(session) = self.find_mut(id)
            && session.pending_since.take().is_some()
        {
            changed = true;
        }
        let place = self
            .archive
            .iter()
            .position(|session| session.id == *id && !session.retired);
        let Some(place) = place else {
            return (changed, Vec::new());
        };
        let promoted = self.archive.remove(place);
        if let Some(old) = self.current.replace(promoted) {
            self.archive.insert(0, old);
        }
        (true, self.trim(archived))
    }

    /// Marks sessions as read-only; says whether anything changed.
    pub(crate) fn retire(&mut self, mut which: impl FnMut(&SessionRef) -> bool) -> bool {
        let mut changed = false;
        for session in self.current.iter_mut().chain(&mut self.archive) {
            if !session.retired && which(session) {
                session.retired = true;
                changed = true;
            }
        }
        changed
    }

    /// Deletes the rows of sessions that fell off and enters them in the ledger as closed, in this order.
    pub(crate) fn close(
        &self,
        rows: &mut Staged<'_>,
        sessions: &[SessionRef],
    ) -> Result<(), StoreError> {
        if sessions.is_empty() {
            return Ok(());
        }
        let mut ledger = Ledger::load(rows, &self.owner)?;
        for session in sessions {
            delete_prefix(rows, &tables::session_rows(&self.owner, session.number))?;
            delete_prefix(
                rows,
                &tables::skipped_rows(&self.owner, session.number, None),
            )?;
            ledger.close(session.id);
        }
        ledger.save(rows, &self.owner);
        Ok(())
    }

    /// Closes all sessions: the oldest first, the current one last.
    pub(crate) fn close_all(&mut self, rows: &mut Staged<'_>) -> Result<(), StoreError> {
        let mut sessions = std::mem::take(&mut self.archive);
        sessions.reverse();
        sessions.extend(self.current.take());
        self.close(rows, &sessions)
    }

    /// Removes the record with all its rows, the ledger included.
    pub(crate) fn delete(mut self, rows: &mut Staged<'_>) -> Result<(), StoreError> {
        self.close_all(rows)?;
        rows.delete(tables::record(&self.owner));
        delete_prefix(rows, &tables::lost_salts_of(&self.owner))?;
        delete_prefix(rows, &tables::carried_reset(&self.owner, None))?;
        delete_prefix(rows, &tables::carried_list(&self.owner, None))?;
        rows.delete(tables::has_list(&self.owner));
        rows.delete(tables::wants_fresh(&self.owner));
        rows.delete(tables::request(&self.owner));
        rows.delete(tables::ledger(&self.owner));
        rows.delete(tables::stranger(&self.owner));
        rows.delete(tables::has_record(
            self.address.user(),
            self.address.device().get(),
        ));
        for prefix in tables::memory_of(&self.owner) {
            delete_prefix(rows, &prefix)?;
        }
        Ok(())
    }
}

fn write_ref(writer: &mut Writer, session: &SessionRef) {
    writer
        .u64(session.number)
        .fixed(session.id.as_bytes())
        .u8(session.mode as u8)
        .bool(session.retired);
    writer
        .bool(session.pending_since.is_some())
        .u64(session.pending_since.unwrap_or(0));
}

fn read_ref(reader: &mut Reader<'_>) -> Result<SessionRef, StoreError> {
    let number = reader.u64()?;
    let id = SessionId::from_bytes(reader.array()?);
    let mode = match reader.u8()? {
        1 => Mode::Pqxdh,
        2 => Mode::X3dh,
        _ => return Err(reader.damaged()),
    };
    let retired = reader.bool()?;
    let pending = reader.bool()?;
    let since = reader.u64()?;
    Ok(SessionRef {
        number,
        id,
        mode,
        retired,
        pending_since: pending.then_some(since),
    })
}

/// Deletes every row under a prefix whose rows differ only in what follows it.
pub(crate) fn delete_prefix(
    rows: &mut Staged<'_>,
    prefix: &sprag_store::RowName,
) -> Result<(), StoreError> {
    let mut found = Vec::new();
    rows.scan(prefix, &mut |suffix, _| {
        found.push(suffix.to_vec());
        ControlFlow::Continue(())
    })?;
    for suffix in found {
        rows.delete(prefix.join(&suffix));
    }
    Ok(())
}

/// Loads the ratchet of one session.
pub(crate) fn load_session(
    rows: &dyn Rows,
    owner: &[u8],
    number: u64,
) -> Result<Session, StoreError> {
    let part = |part| -> Result<Zeroizing<Vec<u8>>, StoreError> {
        rows.get(&tables::session(owner, number, part))?
            .ok_or_else(|| StoreError::Damaged("session row is missing"))
    };
    Session::from_records(
        &part(tables::CONSTANTS)?,
        &part(tables::HOT)?,
        &part(tables::OLD_CHAINS)?,
    )
    .map_err(|_| StoreError::Damaged("session row"))
}

/// Writes what a step changed of one session. A message rewrites the hot row alone.
pub(crate) fn save_session(
    rows: &mut Staged<'_>,
    owner: &[u8],
    number: u64,
    session: &Session,
    parts: Parts,
) {
    let records = session.to_records();
    rows.put(tables::session(owner, number, tables::HOT), records.hot);
    if parts != Parts::Hot {
        rows.put(
            tables::session(owner, number, tables::OLD_CHAINS),
            records.old_chains,
        );
    }
    if parts == Parts::All {
        rows.put(
            tables::session(owner, number, tables::CONSTANTS),
            records.constants,
        );
    }
}

/// How much of a session a step has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Parts {
    Hot,
    Stepped,
    All,
}

/// The skipped keys of one session, one row each.
#[derive(Debug)]
pub(crate) struct SkippedRows<'a, 'b> {
    pub(crate) rows: &'a Staged<'b>,
    pub(crate) owner: &'a [u8],
    pub(crate) number: u64,
}

impl SkippedRows<'_, '_> {
    fn indices(
        &self,
        chain: Option<u32>,
        limit: usize,
    ) -> Result<Vec<SkippedIndex>, SkippedUnavailable> {
        let prefix = tables::skipped_rows(self.owner, self.number, chain);
        let mut found = Vec::new();
        let mut bad = false;
        let visited = self.rows.scan(&prefix, &mut |suffix, _| {
            if found.len() >= limit {
                return ControlFlow::Break(());
            }
            let mut index = [0; 8];
            let (head, tail) = match chain {
                Some(chain) => (chain.to_be_bytes().to_vec(), suffix),
                None => (Vec::new(), suffix),
            };
            let bytes = [&head, tail].concat();
            if bytes.len() == 8 {
                index.copy_from_slice(&bytes);
                let index = u64::from_be_bytes(index);
                #[expect(
                    clippy::cast_possible_truncation,
                    reason = "the two halves of eight bytes"
                )]
                found.push(SkippedIndex::new((index >> 32) as u32, index as u32));
            } else {
                bad = true;
            }
            ControlFlow::Continue(())
        });
        match visited {
            Ok(()) if !bad => Ok(found),
            _ => Err(SkippedUnavailable),
        }
    }
}

impl SkippedKeys for SkippedRows<'_, '_> {
    fn seed(&self, at: SkippedIndex) -> Result<Option<MessageSeed>, SkippedUnavailable> {
        let name = tables::skipped(self.owner, self.number, at.chain, at.number);
        match self.rows.get(&name) {
            Ok(None) => Ok(None),
            Ok(Some(bytes)) => {
                let seed = bytes
                    .as_slice()
                    .try_into()
                    .map_err(|_| SkippedUnavailable)?;
                Ok(Some(MessageSeed::from_bytes(seed)))
            }
            Err(_) => Err(SkippedUnavailable),
        }
    }

    fn oldest(&self, count: usize) -> Result<Vec<SkippedIndex>, SkippedUnavailable> {
        self.indices(None, count)
    }

    fn of_chain(&self, chain: u32) -> Result<Vec<SkippedIndex>, SkippedUnavailable> {
        self.indices(Some(chain), usize::MAX)
    }
}

/// Writes what a step did to the skipped keys.
pub(crate) fn save_skipped(
    rows: &mut Staged<'_>,
    owner: &[u8],
    number: u64,
    changes: SkippedChanges,
) {
    for key in changes.stored {
        let name = tables::skipped(owner, number, key.chain, key.number);
        rows.put(name, Zeroizing::new(key.seed.as_bytes().to_vec()));
    }
    for index in changes.deleted {
        rows.delete(tables::skipped(owner, number, index.chain, index.number));
    }
}

/// The SIDs of one device that were entered last, each *closed* or *lost* ("The protocol", §9).
#[derive(Debug, Clone, Default)]
pub(crate) struct Ledger {
    entries: Vec<(SessionId, bool)>,
    /// Entries that are gone or new: their salts go too.
    without_salts: Vec<SessionId>,
}

impl Ledger {
    pub(crate) fn load(rows: &dyn Rows, owner: &[u8]) -> Result<Self, StoreError> {
        let Some(bytes) = rows.get(&tables::ledger(owner))? else {
            return Ok(Self::default());
        };
        let mut reader = Reader::new(&bytes, LEDGER_VERSION, "ledger")?;
        let mut entries = Vec::new();
        for _ in 0..reader.u8()? {
            entries.push((SessionId::from_bytes(reader.array()?), reader.bool()?));
        }
        reader.finish()?;
        Ok(Self {
            entries,
            without_salts: Vec::new(),
        })
    }

    pub(crate) fn save(&self, rows: &mut Staged<'_>, owner: &[u8]) {
        let mut writer = Writer::new(LEDGER_VERSION, 1 + self.entries.len() * 17);
        writer.u8(u8::try_from(self.entries.len()).unwrap_or(u8::MAX));
        for (id, closed) in &self.entries {
            writer.fixed(id.as_bytes()).bool(*closed);
        }
        rows.put(tables::ledger(owner), writer.finish());
        for id in &self.without_salts {
            rows.delete(tables::lost_salts(owner, id));
        }
    }

    /// `Some(true)` closed, `Some(false)` lost, `None` not remembered.
    pub(crate) fn get(&self, id: &SessionId) -> Option<bool> {
        self.entries
            .iter()
            .find(|(entry, _)| entry == id)
            .map(|(_, closed)| *closed)
    }

    pub(crate) fn entries(&self) -> &[(SessionId, bool)] {
        &self.entries
    }

    fn close(&mut self, id: SessionId) {
        self.entries.retain(|(entry, _)| *entry != id);
        self.enter(id, true);
    }

    pub(crate) fn lose(&mut self, id: SessionId) {
        if self.get(&id).is_none() {
            self.enter(id, false);
        }
    }

    fn enter(&mut self, id: SessionId, closed: bool) {
        self.entries.push((id, closed));
        self.without_salts.push(id);
        let excess = self.entries.len().saturating_sub(LEDGER);
        let evicted = self.entries.drain(..excess).map(|(id, _)| id);
        self.without_salts.extend(evicted);
    }
}
