//! Healing: the broken side opens a fresh session and says in it what it could not read ("The protocol", §9).

use sprag_crypto::{IdentityKey, Salt, SessionId};
use sprag_store::{Rows, Staged, StoreError};
use sprag_wire::{Body, Content, DeviceAddress, UnverifiedDeviceList};
use zeroize::Zeroizing;

use crate::codec::{Reader, Writer};
use crate::error::{ProtocolError, StepError};
use crate::event::{self, Event};
use crate::own::{Device, Env};
use crate::record::{Ledger, Record};
use crate::ring::{Flags, Note, What, With};
use crate::trust::ListSource;
use crate::{chunks, receipts, tables};

/// Salts that are asked for per lost session.
pub const ASKED: usize = 64;
/// Fresh sessions per device and day.
pub const FRESH_PER_DEVICE: u32 = 24;
/// Fresh sessions per user and day.
pub const FRESH_PER_USER: u32 = 96;

/// Requests to one device are at least this far apart: salts gather meanwhile. One minute.
const REQUEST_MS: u64 = 60_000;
/// Answers that say nothing are at least this far apart, per device. Ten minutes.
const ACK_MS: u64 = 600_000;
const DAY_MS: u64 = 24 * 3_600 * 1_000;

const VERSION: u8 = 1;

/// Who made the frame that was refused last, once its origin was known.
#[derive(Debug)]
pub(crate) struct Met {
    pub(crate) from: DeviceAddress,
    pub(crate) identity_key: IdentityKey,
    pub(crate) session_id: SessionId,
    pub(crate) salt: Salt,
    /// The list in its handshake, which was judged.
    pub(crate) list: Option<Vec<u8>>,
}

/// What healing does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Heal {
    /// A fresh session is opened; its first message asks for the frame.
    Fresh,
    /// The frame is asked for on a session that there is.
    Ask,
}

impl Device {
    /// What follows from the error that the last `receive` gave: the ledger's part of healing. The caller opens the
    /// session and asks.
    ///
    /// # Errors
    /// What the store answers.
    pub fn heal(
        &mut self,
        rows: &mut Staged<'_>,
        error: ProtocolError,
    ) -> Result<Option<Heal>, StepError> {
        self.heal_within(rows, error, true)
    }

    /// As [`heal`](Self::heal). Without `may_be_fresh` a session that is newly lost is not entered: the next frame on it
    /// tells once more.
    fn heal_within(
        &mut self,
        rows: &mut Staged<'_>,
        error: ProtocolError,
        may_be_fresh: bool,
    ) -> Result<Option<Heal>, StepError> {
        let Some(met) = self.met.take().filter(|_| error.heals()) else {
            return Ok(None);
        };
        let name = met.from.user();
        let known = self.user(rows, name)?;
        if !known.as_ref().is_some_and(|user| user.accepted) {
            return Ok(None);
        }
        if let Some(list) = &met.list {
            let list = UnverifiedDeviceList::decode(list)?;
            let judged = self.judge(known.as_ref(), name, list, ListSource::Handshake)?;
            let learned = self.remember(rows, name, known, judged)?;
            self.tell_learned(rows, name, learned)?;
        }
        let listed = self.user(rows, name)?;
        if !listed.is_some_and(|user| user.is_listed(met.from.device(), &met.identity_key)) {
            return Ok(None);
        }
        let mut record = match Record::load(rows, &met.from)? {
            Some(record) => record,
            None => Record::new(&met.from, met.identity_key),
        };
        let mut ledger = Ledger::load(rows, &record.owner)?;
        let heal = match ledger.get(&met.session_id) {
            None if !may_be_fresh => None,
            None => {
                ledger.lose(met.session_id);
                ledger.save(rows, &record.owner);
                add_asked(rows, &record.owner, &met.session_id, &met.salt)?;
                let changed = record.retire(|session| session.id == met.session_id);
                if changed || record.is_new {
                    record.save(rows);
                }
                Some(Heal::Fresh)
            }
            Some(true) => None,
            Some(false) => {
                add_asked(rows, &record.owner, &met.session_id, &met.salt)?.then_some(Heal::Ask)
            }
        };
        Ok(heal)
    }

    /// A frame was refused that heals: the session and the request are queued, within the limits.
    pub(crate) fn heal_frame(
        &mut self,
        rows: &mut Staged<'_>,
        env: &mut Env<'_>,
        error: ProtocolError,
    ) -> Result<(), StepError> {
        let Some(met) = &self.met else { return Ok(()) };
        let (from, salt) = (met.from.clone(), met.salt);
        let (key, session_id) = (met.identity_key, met.session_id);
        let owner = tables::device_owner(&from);
        let may_be_fresh = self.may_open_fresh(rows, env, &from, false)?;
        let Some(how) = self.heal_within(rows, error, may_be_fresh)? else {
            return Ok(());
        };
        let with = With {
            peer: &from,
            key: &key,
            accepted: true,
        };
        let note = Note {
            error: Some(error),
            flags: Flags::NONE.with(Flags::FRESH, how == Heal::Fresh),
            frame: Some(salt),
            session: Some(session_id),
            ..Note::new(What::Refused)
        };
        self.note(rows, env.now, with, &note)?;
        event::record(
            rows,
            &Event::Unreadable {
                from: from.clone(),
                error,
            },
        )?;
        let under_way = rows.get(&tables::wants_fresh(&owner))?.is_some();
        if how == Heal::Fresh {
            self.tally.heals += 1;
        }
        // What there is cannot be sent on: the request needs a fresh session, too.
        let fresh = how == Heal::Fresh || !(under_way || self.can_send_to(rows, env, &from)?);
        if fresh && !may_be_fresh {
            return Ok(());
        }
        if fresh {
            self.may_open_fresh(rows, env, &from, true)?;
            if !under_way {
                self.tally.fresh_sessions += 1;
                rows.put(tables::wants_fresh(&owner), Zeroizing::new(Vec::new()));
            }
            self.want_bundles(rows, from.user(), Some(from.device()), 0)?;
        }
        ask_for(rows, &from, &[salt])?;
        self.send_requests(rows, env)
    }

    /// Whether another fresh session fits into the day; `count` takes it.
    fn may_open_fresh(
        &self,
        rows: &mut Staged<'_>,
        env: &Env<'_>,
        device: &DeviceAddress,
        count: bool,
    ) -> Result<bool, StepError> {
        let day = env.now / DAY_MS;
        let limits = [
            (
                tables::fresh_of_device(&tables::device_owner(device)),
                FRESH_PER_DEVICE,
            ),
            (tables::fresh_of_user(device.user()), FRESH_PER_USER),
        ];
        let mut fits = true;
        for (name, limit) in limits {
            let opened = read_day(rows, &name, day)?;
            fits &= opened < limit;
            if count {
                let mut writer = Writer::new(VERSION, 12);
                writer.u64(day).u32(opened.saturating_add(1));
                rows.put(name, writer.finish());
            }
        }
        Ok(fits)
    }

    /// Sends what was gathered to ask for, to each device whose minute is over. Called before tasks are offered.
    ///
    /// # Errors
    /// What the store answers.
    pub fn send_requests(
        &mut self,
        rows: &mut Staged<'_>,
        env: &mut Env<'_>,
    ) -> Result<(), StepError> {
        for value in chunks::values(rows, tables::REQUESTS)? {
            let (to, mut request) = Request::read(&value)?;
            let owner = tables::device_owner(&to);
            let user = self.user(rows, to.user())?;
            let Some(key) = user.as_ref().and_then(|user| user.listed(to.device())) else {
                rows.delete(tables::request(&owner));
                continue;
            };
            let waits = env.now < request.not_before && request.not_before - env.now <= REQUEST_MS;
            if request.salts.is_empty() || waits {
                continue;
            }
            let most = request.salts.len().min(ASKED);
            let salts = request
                .salts
                .drain(..most)
                .map(|salt| salt.as_bytes().to_vec())
                .collect();
            request.not_before = env.now + REQUEST_MS;
            request.save(rows, &owner, &to);
            self.tally.requests_sent += 1;
            let with = With {
                peer: &to,
                key,
                accepted: true,
            };
            let note = Note {
                count: most,
                ..Note::new(What::Asked)
            };
            self.note(rows, env.now, with, &note)?;
            self.send_to_device(rows, env, &to, Body::Retry(salts))?;
        }
        Ok(())
    }

    /// A content of the library's own to one device, through the outbox.
    pub(crate) fn send_to_device(
        &mut self,
        rows: &mut Staged<'_>,
        env: &mut Env<'_>,
        to: &DeviceAddress,
        body: Body,
    ) -> Result<(), StepError> {
        if self.is_waiting(rows)? {
            return Ok(());
        }
        let mut id = [0; 16];
        env.rng.fill_bytes(&mut id);
        self.post(rows, env, to, Content::new(id, env.now, body))
    }

    /// Somebody could not read frames of ours: what is still held for him goes out again, else an acknowledgement.
    pub(crate) fn answer_retry(
        &mut self,
        rows: &mut Staged<'_>,
        env: &mut Env<'_>,
        from: &DeviceAddress,
        salts: &[Salt],
    ) -> Result<(), StepError> {
        let user = self.user(rows, from.user())?;
        let user = user.filter(|user| user.accepted);
        let Some(key) = user.as_ref().and_then(|user| user.listed(from.device())) else {
            return Ok(());
        };
        let again = receipts::to_send_again(rows, from, salts)?;
        let count = again.len();
        for (sequence, number) in again {
            self.seal_again(rows, env, sequence, number)?;
        }
        let quiet = self.is_quiet(rows)?;
        if count > 0 {
            self.tally.requests_answered += 1;
            self.tally.sent_again += count as u64;
            let with = With {
                peer: from,
                key,
                accepted: true,
            };
            let note = Note {
                count,
                ..Note::new(What::SentAgain)
            };
            self.note(rows, env.now, with, &note)?;
            event::record(
                rows,
                &Event::SentAgain {
                    to: from.clone(),
                    count: u32::try_from(count).unwrap_or(u32::MAX),
                },
            )?;
        } else if self.may_ack(rows, from, env.now, quiet)? {
            self.tally.requests_answered += 1;
            self.send_to_device(rows, env, from, Body::Ack)?;
        }
        Ok(())
    }

    /// Nothing was sent again: may an `ack` go? At most one in ten minutes to a listed device of an accepted user, none
    /// in quiet mode.
    ///
    /// # Errors
    /// What the store answers.
    pub fn may_ack(
        &self,
        rows: &mut Staged<'_>,
        to: &DeviceAddress,
        now: u64,
        quiet: bool,
    ) -> Result<bool, StepError> {
        let user = self.user(rows, to.user())?;
        let known = user.is_some_and(|user| user.accepted && user.listed(to.device()).is_some());
        let owner = tables::device_owner(to);
        if quiet || !known || Record::load(rows, to)?.is_none() {
            return Ok(false);
        }
        let name = tables::last_ack(&owner);
        let last = rows
            .get(&name)?
            .and_then(|bytes| bytes.as_slice().try_into().ok())
            .map(u64::from_be_bytes);
        // A time that is still to come was written by a wrong clock.
        if last.is_some_and(|last| last <= now && now - last < ACK_MS) {
            return Ok(false);
        }
        rows.put(name, Zeroizing::new(now.to_be_bytes().to_vec()));
        Ok(true)
    }
}

fn read_day(rows: &dyn Rows, name: &sprag_store::RowName, day: u64) -> Result<u32, StoreError> {
    let Some(bytes) = rows.get(name)? else {
        return Ok(0);
    };
    let mut reader = Reader::new(&bytes, VERSION, "fresh sessions of a day")?;
    let (of, count) = (reader.u64()?, reader.u32()?);
    reader.finish()?;
    Ok(if of == day { count } else { 0 })
}

/// What is to be asked for of one device.
#[derive(Debug, Default)]
struct Request {
    not_before: u64,
    salts: Vec<Salt>,
}

/// Salts that gather for one device; the rest is not asked for.
const GATHERED: usize = 200;

impl Request {
    fn load(rows: &dyn Rows, owner: &[u8]) -> Result<Self, StoreError> {
        match rows.get(&tables::request(owner))? {
            None => Ok(Self::default()),
            Some(bytes) => Ok(Self::read(&bytes)?.1),
        }
    }

    fn read(bytes: &[u8]) -> Result<(DeviceAddress, Self), StoreError> {
        let mut reader = Reader::new(bytes, VERSION, "request")?;
        let to = crate::task::read_address(&mut reader)?;
        let not_before = reader.u64()?;
        let mut salts = Vec::new();
        for _ in 0..reader.u32()? {
            salts.push(Salt::from_bytes(reader.array()?));
        }
        reader.finish()?;
        Ok((to, Self { not_before, salts }))
    }

    fn save(&self, rows: &mut Staged<'_>, owner: &[u8], to: &DeviceAddress) {
        let salts = self.salts.get(..GATHERED).unwrap_or(&self.salts);
        let mut writer = Writer::new(VERSION, 280 + 12 + salts.len() * 16);
        crate::task::write_address(&mut writer, to);
        writer
            .u64(self.not_before)
            .u32(u32::try_from(salts.len()).unwrap_or(u32::MAX));
        for salt in salts {
            writer.fixed(salt.as_bytes());
        }
        rows.put(tables::request(owner), writer.finish());
    }
}

/// These frames of a device are to be asked for.
pub(crate) fn ask_for(
    rows: &mut Staged<'_>,
    from: &DeviceAddress,
    salts: &[Salt],
) -> Result<(), StoreError> {
    let owner = tables::device_owner(from);
    let mut request = Request::load(rows, &owner)?;
    for salt in salts {
        if !request.salts.contains(salt) {
            request.salts.push(*salt);
        }
    }
    request.save(rows, &owner, from);
    Ok(())
}

/// Salts that wait to be asked for.
pub(crate) fn gathered(rows: &dyn Rows) -> Result<usize, StoreError> {
    let mut count = 0;
    for value in chunks::values(rows, tables::REQUESTS)? {
        count += Request::read(&value)?.1.salts.len();
    }
    Ok(count)
}

/// The salts asked for of a lost session.
pub(crate) fn asked(
    rows: &dyn Rows,
    owner: &[u8],
    id: &SessionId,
) -> Result<Vec<Salt>, StoreError> {
    let bytes = rows
        .get(&tables::lost_salts(owner, id))?
        .unwrap_or_default();
    let (salts, _) = bytes.as_chunks::<16>();
    Ok(salts.iter().map(|salt| Salt::from_bytes(*salt)).collect())
}

/// Adds a salt, if there is room and it is new.
fn add_asked(
    rows: &mut Staged<'_>,
    owner: &[u8],
    id: &SessionId,
    salt: &Salt,
) -> Result<bool, StoreError> {
    let mut salts = asked(rows, owner, id)?;
    if salts.len() >= ASKED || salts.contains(salt) {
        return Ok(false);
    }
    salts.push(*salt);
    let bytes: Vec<u8> = salts.iter().flat_map(|salt| *salt.as_bytes()).collect();
    rows.put(tables::lost_salts(owner, id), Zeroizing::new(bytes));
    Ok(true)
}
