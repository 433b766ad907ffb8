//! Frames that are offered again: kept until a list was fetched or a user accepted, and received once more then ("The
//! protocol", §11, *Offer again*).

use std::collections::HashMap;
use std::ops::ControlFlow;

use sprag_crypto::{IdentityKey, Salt};
use sprag_store::{MAX_ROW, Rows, Staged, StoreError};
use sprag_wire::{DeviceAddress, MessageFrame, UserId};
use zeroize::Zeroizing;

use crate::codec::{Reader, Writer};
use crate::error::{ProtocolError, StepError};
use crate::event::{self, Event};
use crate::own::{Counters, Device, Env};
use crate::task::{PAGE, read_address, write_address};
use crate::{heal, tables};

/// Frames kept to be offered again, of one sending user.
pub const KEPT_FRAMES_OF_USER: usize = 16;
/// Frames kept to be offered again, of all users.
pub const KEPT_FRAMES: usize = 64;
/// Bytes of the frames kept to be offered again.
pub const KEPT_FRAME_BYTES: usize = 8 << 20;
/// Salts of frames that were not kept, of one device. They are asked for once it is listed and its user accepted.
pub const KEPT_SALTS_OF_DEVICE: usize = 64;
/// Salts of frames that were not kept, of all devices.
pub const KEPT_SALTS: usize = 1_024;

const VERSION: u8 = 1;

/// The errors after which a frame is offered again, in the order of their bits.
const OFFERED: [ProtocolError; 4] = [
    ProtocolError::UntrustedIdentity,
    ProtocolError::UnlistedDevice,
    ProtocolError::UnknownList,
    ProtocolError::ForkedList,
];

fn bit(error: ProtocolError) -> u8 {
    let place = OFFERED.iter().position(|other| *other == error);
    place.map_or(0, |place| 1 << place)
}

/// A frame that is kept, without its bytes.
#[derive(Debug, Clone)]
struct Kept {
    number: u64,
    from: DeviceAddress,
    /// The key that sealed its origin.
    identity_key: IdentityKey,
    salt: Salt,
    length: u32,
    /// What it waits for.
    error: ProtocolError,
    /// The errors that it met so far, one bit each.
    met: u8,
    /// The epoch of our own list that its sender saw.
    epoch: u64,
    /// What it waited for has come: it is received once more.
    ready: bool,
}

impl Kept {
    fn all(rows: &dyn Rows) -> Result<Vec<Self>, StoreError> {
        let mut all = Vec::new();
        let mut failed = Ok(());
        rows.scan(&tables::kept_frame(None), &mut |suffix, value| {
            match suffix
                .try_into()
                .map_err(|_| StoreError::Damaged("kept frame"))
                .and_then(|number| Self::read(u64::from_be_bytes(number), value))
            {
                Ok(kept) => all.push(kept),
                Err(error) => failed = Err(error),
            }
            ControlFlow::Continue(())
        })?;
        failed?;
        all.sort_by_key(|kept| kept.number);
        Ok(all)
    }

    fn read(number: u64, bytes: &[u8]) -> Result<Self, StoreError> {
        let mut reader = Reader::new(bytes, VERSION, "kept frame")?;
        let from = read_address(&mut reader)?;
        let identity_key = IdentityKey::from_bytes(reader.take(33)?);
        let identity_key = reader.checked(identity_key)?;
        let salt = Salt::from_bytes(reader.array()?);
        let length = reader.u32()?;
        let error = event::error_of(reader.u8()?).ok_or_else(|| reader.damaged())?;
        let (met, epoch, ready) = (reader.u8()?, reader.u64()?, reader.bool()?);
        reader.finish()?;
        Ok(Self {
            number,
            from,
            identity_key,
            salt,
            length,
            error,
            met,
            epoch,
            ready,
        })
    }

    fn save(&self, rows: &mut Staged<'_>) {
        let mut writer = Writer::new(VERSION, 340);
        write_address(&mut writer, &self.from);
        writer
            .fixed(self.identity_key.as_bytes())
            .fixed(self.salt.as_bytes())
            .u32(self.length)
            .u8(event::error_number(self.error))
            .u8(self.met)
            .u64(self.epoch)
            .bool(self.ready);
        rows.put(tables::kept_frame(Some(self.number)), writer.finish());
    }

    fn chunks(&self) -> u32 {
        let chunks = (self.length as usize).div_ceil(MAX_ROW);
        u32::try_from(chunks).unwrap_or(u32::MAX)
    }

    fn frame(&self, rows: &dyn Rows) -> Result<Vec<u8>, StoreError> {
        let mut frame = Vec::with_capacity(self.length as usize);
        for chunk in 0..self.chunks() {
            let chunk = rows.get(&tables::kept_chunk(self.number, chunk))?;
            frame.extend_from_slice(&chunk.ok_or(StoreError::Damaged("kept frame"))?);
        }
        Ok(frame)
    }

    fn delete(&self, rows: &mut Staged<'_>) {
        rows.delete(tables::kept_frame(Some(self.number)));
        for chunk in 0..self.chunks() {
            rows.delete(tables::kept_chunk(self.number, chunk));
        }
    }

    /// Whether the answer about a user's list is what it waits for.
    fn waits_for_list_of(&self, name: &UserId, own: &UserId) -> bool {
        if self.error == ProtocolError::UnknownList {
            name == own
        } else {
            self.from.user() == name
        }
    }
}

impl Device {
    /// A frame was refused with an error after which it is offered again: it is kept, and the list is fetched that may
    /// change its fate.
    pub(crate) fn offer_later(
        &mut self,
        rows: &mut Staged<'_>,
        env: &Env<'_>,
        error: ProtocolError,
        frame: &[u8],
    ) -> Result<(), StepError> {
        let Some(met) = self.met.take() else {
            return Ok(());
        };
        let epoch = MessageFrame::parse(frame)?
            .parsed_handshake()
            .map_or(0, |handshake| handshake.responder_epoch);
        let all = Kept::all(rows)?;
        let same = |kept: &Kept| kept.from == met.from && kept.salt == met.salt;
        if !all.iter().any(same) {
            let kept = Kept {
                number: Counters::next(rows, |counters| &mut counters.sequence)?,
                from: met.from.clone(),
                identity_key: met.identity_key,
                salt: met.salt,
                length: u32::try_from(frame.len()).map_err(|_| ProtocolError::Malformed)?,
                error,
                met: bit(error),
                epoch,
                ready: false,
            };
            make_room(rows, all, &kept)?;
            for (chunk, bytes) in (0..).zip(frame.chunks(MAX_ROW)) {
                rows.put(
                    tables::kept_chunk(kept.number, chunk),
                    Zeroizing::new(bytes.to_vec()),
                );
            }
            kept.save(rows);
        }
        self.fetch_for(rows, env, error, met.from.user(), epoch)
    }

    fn fetch_for(
        &self,
        rows: &mut Staged<'_>,
        env: &Env<'_>,
        error: ProtocolError,
        from: &UserId,
        epoch: u64,
    ) -> Result<(), StepError> {
        if error != ProtocolError::UnknownList {
            return self.fetch_list(rows, env, from, 0);
        }
        // Above the newest that is known: the newest. Below it: those of a gap, a page that ends where the gap does.
        let own = self.own_user(rows)?;
        let first = match lowest_of_chain(&own) {
            lowest if epoch < lowest => page_down(lowest, epoch),
            _ => 0,
        };
        self.fetch_list(rows, env, self.address.user(), first)
    }

    /// The server has answered about a user's list, from epoch `asked` on (0: the newest): the frames that waited for it
    /// are received once more. What the user must decide first waits on.
    pub(crate) fn list_was_fetched(
        &mut self,
        rows: &mut Staged<'_>,
        env: &mut Env<'_>,
        name: &UserId,
        asked: u64,
    ) -> Result<(), StepError> {
        let undecided = rows.get(&tables::candidate(name))?.is_some();
        let mut waits_for_more = None;
        for mut kept in Kept::all(rows)? {
            if kept.ready || !kept.waits_for_list_of(name, self.address.user()) {
                continue;
            }
            match kept.error {
                ProtocolError::UntrustedIdentity | ProtocolError::ForkedList if undecided => {
                    continue;
                }
                ProtocolError::UnknownList => {
                    if let Some(first) = self.next_page(rows, kept.epoch, asked)? {
                        waits_for_more = Some(first.min(waits_for_more.unwrap_or(first)));
                        continue;
                    }
                }
                _ => {}
            }
            kept.ready = true;
            kept.save(rows);
        }
        if let Some(first) = waits_for_more {
            self.queue_fetch(rows, self.address.user(), first, 0)?;
        }
        self.offer_ready(rows, env)
    }

    /// The first epoch of the page of our own lists that leads further down to `epoch`, after one that began with
    /// `asked` (0: the newest alone). `None`: it was reached, or the server has no more.
    fn next_page(&self, rows: &dyn Rows, epoch: u64, asked: u64) -> Result<Option<u64>, StepError> {
        let lowest = lowest_of_chain(&self.own_user(rows)?);
        let was_full = asked == 0 || lowest <= asked;
        Ok((epoch < lowest && was_full).then(|| page_down(lowest, epoch)))
    }

    /// The user has decided about somebody: the frames that waited for it are received once more.
    pub(crate) fn user_was_accepted(
        &mut self,
        rows: &mut Staged<'_>,
        env: &mut Env<'_>,
        name: &UserId,
    ) -> Result<(), StepError> {
        for mut kept in Kept::all(rows)? {
            let waited = matches!(
                kept.error,
                ProtocolError::UntrustedIdentity | ProtocolError::ForkedList
            );
            if waited && !kept.ready && kept.from.user() == name {
                kept.ready = true;
                kept.save(rows);
            }
        }
        self.ask_for_salts(rows, name)?;
        self.offer_ready(rows, env)
    }

    /// A newer list of a user is known, wherever it came from: frames and salts of devices that it lists need not wait
    /// for the server.
    pub(crate) fn list_was_learned(
        &self,
        rows: &mut Staged<'_>,
        name: &UserId,
    ) -> Result<(), StepError> {
        let Some(user) = self.user(rows, name)? else {
            return Ok(());
        };
        for mut kept in Kept::all(rows)? {
            let changed = match kept.error {
                ProtocolError::UnlistedDevice => {
                    kept.from.user() == name
                        && user.is_listed(kept.from.device(), &kept.identity_key)
                }
                ProtocolError::UnknownList => {
                    name == self.address.user() && user.history.contains_key(&kept.epoch)
                }
                _ => false,
            };
            if changed && !kept.ready {
                kept.ready = true;
                kept.save(rows);
            }
        }
        self.ask_for_salts(rows, name)
    }

    /// Receives once more what is ready, as far as the inbox has room. Called before tasks are offered.
    ///
    /// # Errors
    /// What the store answers.
    pub fn offer_ready(
        &mut self,
        rows: &mut Staged<'_>,
        env: &mut Env<'_>,
    ) -> Result<(), StepError> {
        for kept in Kept::all(rows)? {
            if kept.ready && self.inbox_has_room(rows, kept.from.user())? {
                self.offer_once(rows, env, kept)?;
            }
        }
        Ok(())
    }

    fn offer_once(
        &mut self,
        rows: &mut Staged<'_>,
        env: &mut Env<'_>,
        mut kept: Kept,
    ) -> Result<(), StepError> {
        let frame = kept.frame(rows)?;
        let from = kept.from.clone();
        match self.receive(rows, env, &from, &frame) {
            Ok(received) => {
                kept.delete(rows);
                self.tally.offered_again += 1;
                event::record(rows, &Event::OfferedAgain { from })?;
                self.take_received(rows, env, received)?;
            }
            // Another error than before: it is offered once more for that one.
            Err(StepError::Protocol(error)) if bit(error) & !kept.met != 0 => {
                kept.error = error;
                kept.met |= bit(error);
                kept.ready = false;
                kept.save(rows);
                self.met = None;
                self.fetch_for(rows, env, error, from.user(), kept.epoch)?;
            }
            Err(StepError::Protocol(error)) if bit(error) != 0 => {
                kept.delete(rows);
                self.met = None;
                self.tally.given_up += 1;
                if error == ProtocolError::UnknownList {
                    self.tell_mismatch(rows, env, from.user())?;
                } else {
                    keep_salt(rows, &kept)?;
                }
            }
            Err(StepError::Protocol(error)) => {
                kept.delete(rows);
                self.frame_refused(rows, env, &from, &frame, error)?;
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Salts of frames that were not kept are asked for, once their device is listed and its user accepted.
    pub(crate) fn ask_for_salts(
        &self,
        rows: &mut Staged<'_>,
        name: &UserId,
    ) -> Result<(), StepError> {
        let user = self.user(rows, name)?.filter(|user| user.accepted);
        let Some(user) = user else { return Ok(()) };
        for of_device in Salts::all(rows)? {
            let from = &of_device.from;
            if from.user() == name && user.is_listed(from.device(), &of_device.identity_key) {
                heal::ask_for(rows, from, &of_device.salts)?;
                rows.delete(tables::kept_salts(Some(of_device.number)));
            }
        }
        Ok(())
    }
}

/// The lowest epoch of our own lists from which the history has no gap up to the newest.
fn lowest_of_chain(own: &crate::trust::User) -> u64 {
    let mut lowest = own.newest.epoch();
    while lowest > 1 && own.history.contains_key(&(lowest - 1)) {
        lowest -= 1;
    }
    lowest
}

/// Where the page of lists begins that ends with `lowest`, of which the hash alone is known; nothing below `epoch` is
/// wanted.
fn page_down(lowest: u64, epoch: u64) -> u64 {
    epoch.max((lowest + 1).saturating_sub(PAGE as u64)).max(1)
}

/// When it is full, the sending user with most loses his oldest.
fn make_room(rows: &mut Staged<'_>, mut all: Vec<Kept>, newcomer: &Kept) -> Result<(), StepError> {
    loop {
        let of_user = |name: &UserId| all.iter().filter(|kept| kept.from.user() == name).count();
        let bytes: usize = all.iter().map(|kept| kept.length as usize).sum();
        let own_most = of_user(newcomer.from.user()) >= KEPT_FRAMES_OF_USER;
        let many = all.len() >= KEPT_FRAMES;
        if !own_most && !many && bytes + newcomer.length as usize <= KEPT_FRAME_BYTES {
            return Ok(());
        }
        let victim = if own_most {
            Some(newcomer.from.user().clone())
        } else {
            let mut amounts: HashMap<&UserId, usize> = HashMap::new();
            for kept in &all {
                let amount = if many { 1 } else { kept.length as usize };
                *amounts.entry(kept.from.user()).or_default() += amount;
            }
            if let Some(own) = amounts.get_mut(newcomer.from.user()) {
                *own += if many { 1 } else { newcomer.length as usize };
            }
            let most = amounts.values().copied().max().unwrap_or(0);
            let oldest = all
                .iter()
                .find(|kept| amounts.get(kept.from.user()) == Some(&most));
            oldest.map(|kept| kept.from.user().clone())
        };
        let place = victim.and_then(|name| all.iter().position(|kept| *kept.from.user() == name));
        let Some(place) = place else { return Ok(()) };
        let evicted = all.remove(place);
        evicted.delete(rows);
        keep_salt(rows, &evicted)?;
    }
}

/// Salts of frames of one device that were not kept.
struct Salts {
    number: u64,
    from: DeviceAddress,
    identity_key: IdentityKey,
    /// Oldest first.
    salts: Vec<Salt>,
}

impl Salts {
    fn all(rows: &dyn Rows) -> Result<Vec<Self>, StoreError> {
        let mut all = Vec::new();
        let mut failed = Ok(());
        rows.scan(&tables::kept_salts(None), &mut |suffix, value| {
            match suffix
                .try_into()
                .map_err(|_| StoreError::Damaged("kept salts"))
                .and_then(|number| Self::read(u64::from_be_bytes(number), value))
            {
                Ok(salts) => all.push(salts),
                Err(error) => failed = Err(error),
            }
            ControlFlow::Continue(())
        })?;
        failed?;
        all.sort_by_key(|salts| salts.number);
        Ok(all)
    }

    fn read(number: u64, bytes: &[u8]) -> Result<Self, StoreError> {
        let mut reader = Reader::new(bytes, VERSION, "kept salts")?;
        let from = read_address(&mut reader)?;
        let identity_key = IdentityKey::from_bytes(reader.take(33)?);
        let identity_key = reader.checked(identity_key)?;
        let salts = (0..reader.u8()?)
            .map(|_| reader.array().map(Salt::from_bytes))
            .collect::<Result<_, _>>()?;
        reader.finish()?;
        Ok(Self {
            number,
            from,
            identity_key,
            salts,
        })
    }

    fn save(&self, rows: &mut Staged<'_>) {
        let name = tables::kept_salts(Some(self.number));
        if self.salts.is_empty() {
            rows.delete(name);
            return;
        }
        let mut writer = Writer::new(VERSION, 300 + self.salts.len() * 16);
        write_address(&mut writer, &self.from);
        writer
            .fixed(self.identity_key.as_bytes())
            .u8(u8::try_from(self.salts.len()).unwrap_or(u8::MAX));
        for salt in &self.salts {
            writer.fixed(salt.as_bytes());
        }
        rows.put(name, writer.finish());
    }
}

/// Remembers the salt of a frame that is not kept. When there are too many, the sending user with most loses his oldest.
fn keep_salt(rows: &mut Staged<'_>, frame: &Kept) -> Result<(), StepError> {
    let mut all = Salts::all(rows)?;
    let same =
        |salts: &&mut Salts| salts.from == frame.from && salts.identity_key == frame.identity_key;
    if let Some(salts) = all.iter_mut().find(same) {
        if !salts.salts.contains(&frame.salt) {
            salts.salts.push(frame.salt);
            let excess = salts.salts.len().saturating_sub(KEPT_SALTS_OF_DEVICE);
            salts.salts.drain(..excess);
            salts.save(rows);
        }
    } else {
        let salts = Salts {
            number: Counters::next(rows, |counters| &mut counters.sequence)?,
            from: frame.from.clone(),
            identity_key: frame.identity_key,
            salts: vec![frame.salt],
        };
        salts.save(rows);
        all.push(salts);
    }
    let count: usize = all.iter().map(|salts| salts.salts.len()).sum();
    if count > KEPT_SALTS {
        let mut amounts: HashMap<&UserId, usize> = HashMap::new();
        for salts in &all {
            *amounts.entry(salts.from.user()).or_default() += salts.salts.len();
        }
        let most = amounts.values().copied().max().unwrap_or(0);
        let oldest = all
            .iter()
            .position(|salts| amounts.get(salts.from.user()) == Some(&most));
        if let Some(salts) = oldest.and_then(|place| all.get_mut(place)) {
            salts.salts.drain(..1);
            salts.save(rows);
        }
    }
    Ok(())
}

/// How much is kept: frames, their bytes, salts.
pub(crate) fn amounts(rows: &dyn Rows) -> Result<(usize, usize, usize), StoreError> {
    let frames = Kept::all(rows)?;
    let bytes = frames.iter().map(|kept| kept.length as usize).sum();
    let salts = Salts::all(rows)?.iter().map(|of| of.salts.len()).sum();
    Ok((frames.len(), bytes, salts))
}
