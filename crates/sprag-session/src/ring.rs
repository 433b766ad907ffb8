//! The last events of the protocol: what two devices lay side by side when they have lost each other (`docs/REPORT.md`).
//!
//! A record names nobody and holds no key. Peer, frame and session stand in it as digests under a key that the two
//! devices share: the other end of a conversation finds itself in it, and nobody else finds anybody.

use std::ops::ControlFlow;

use sprag_crypto::{IdentityKey, Salt, SessionId, SharedSecret, hkdf, hmac, labels};
use sprag_store::{Rows, Staged, StoreError};
use sprag_wire::{DeviceAddress, UserId};
use sprag_x3dh::DeviceList;
use zeroize::Zeroizing;

use crate::codec::{Reader, Writer};
use crate::error::{ProtocolError, StepError};
use crate::event::{error_number, error_of};
use crate::own::{Device, Env};
use crate::tables;
use crate::task::{Kind, StoredTask, TaskId};

/// Events that are kept of what passes with accepted users.
pub const RING: u16 = 900;
/// Events that are kept of all others: strangers push out strangers only.
pub const RING_OF_STRANGERS: u16 = 100;

/// Bytes of one event in a report. A row has a version byte before it.
pub(crate) const RECORD: usize = 60;

const VERSION: u8 = 1;

/// Eight bytes that say "the same" to the two devices, and nothing to anybody else.
pub type Digest = [u8; 8];

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum What {
    /// The store was opened, and this is the first event since.
    Started,
    /// A frame was sealed.
    Sent,
    /// The transport handed a frame over.
    HandedOver,
    /// A frame was opened.
    Received,
    /// A frame of a listed sender was refused, and that is healed.
    Refused,
    /// A session was opened from a bundle.
    Opened,
    /// A session fell off the archive.
    Closed,
    /// The peer asked in a reset that sessions retire.
    Retired,
    /// Frames were asked for again.
    Asked,
    /// Frames were sent again because the peer asked.
    SentAgain,
    /// The device is not on its user's newest list any more.
    Unlisted,
    /// A newer device list of some user was learned.
    ListLearned,
    /// Our prekeys were published.
    PreKeysPublished,
    /// This device was made from a backup.
    Restored,
}

const ALL: [What; 14] = [
    What::Started,
    What::Sent,
    What::HandedOver,
    What::Received,
    What::Refused,
    What::Opened,
    What::Closed,
    What::Retired,
    What::Asked,
    What::SentAgain,
    What::Unlisted,
    What::ListLearned,
    What::PreKeysPublished,
    What::Restored,
];

/// Circumstances of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Flags(u8);

impl Flags {
    /// None.
    pub const NONE: Self = Self(0);
    /// The frame carried a handshake.
    pub const HANDSHAKE: Self = Self(1);
    /// The frame began a session here.
    pub const NEW_SESSION: Self = Self(2);
    /// The frame began a chain.
    pub const STEPPED: Self = Self(4);
    /// It used up a one-time prekey.
    pub const ONE_TIME: Self = Self(8);
    /// A fresh session is opened to heal it.
    pub const FRESH: Self = Self(16);
    /// The session was opened for a reset.
    pub const RESET: Self = Self(32);
    /// Its content was refused.
    pub const BAD_CONTENT: Self = Self(64);

    /// The peer's user was not accepted: it is kept apart.
    pub const STRANGER: Self = Self(128);

    /// Whether all of these hold.
    #[must_use]
    pub fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    pub(crate) fn with(self, other: Self, holds: bool) -> Self {
        if holds { Self(self.0 | other.0) } else { self }
    }
}

/// One event of the protocol. Nothing of it is secret to the two devices; to others it says when, and how many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct RingEvent {
    /// Ascends in one device's life.
    pub order: u64,
    /// Our clock, in milliseconds since 1970.
    pub at: u64,
    /// What happened.
    pub what: What,
    /// Why a frame was refused.
    pub error: Option<ProtocolError>,
    /// Circumstances.
    pub flags: Flags,
    /// How many: receipts that a frame brought, frames that were asked for.
    pub count: u8,
    /// The pair of devices; zeros if it concerns none.
    pub pair: Digest,
    /// The frame; zeros if there is none.
    pub frame: Digest,
    /// The session; zeros if there is none.
    pub session: Digest,
    /// Index of the chain of the sender.
    pub chain: u32,
    /// Number in the chain. Of a list its epoch, of prekeys that of the upload.
    pub number: u32,
    /// The last frame that the received one names as opened; zeros if none.
    pub receipt: Digest,
}

impl RingEvent {
    fn write(&self, writer: &mut Writer) {
        let what = ALL.iter().position(|what| *what == self.what).unwrap_or(0);
        let error = self.error.map_or(0, |error| error_number(error) + 1);
        writer
            .u64(self.order)
            .u64(self.at)
            .u8(u8::try_from(what).unwrap_or(0) + 1)
            .u8(error)
            .u8(self.flags.0)
            .u8(self.count);
        writer
            .fixed(&self.pair)
            .fixed(&self.frame)
            .fixed(&self.session)
            .u32(self.chain)
            .u32(self.number)
            .fixed(&self.receipt);
    }

    pub(crate) fn to_bytes(self) -> Zeroizing<Vec<u8>> {
        let mut writer = Writer::new(VERSION, RECORD);
        self.write(&mut writer);
        writer.finish()
    }

    pub(crate) fn read(bytes: &[u8]) -> Result<Self, StoreError> {
        let mut reader = Reader::new(bytes, VERSION, "protocol event")?;
        let (order, at) = (reader.u64()?, reader.u64()?);
        let what = usize::from(reader.u8()?).checked_sub(1);
        let what = what.and_then(|what| ALL.get(what).copied());
        let error = match reader.u8()?.checked_sub(1) {
            None => None,
            Some(error) => Some(error_of(error).ok_or_else(|| reader.damaged())?),
        };
        let flags = Flags(reader.u8()?);
        let event = Self {
            order,
            at,
            what: what.ok_or_else(|| reader.damaged())?,
            error,
            flags,
            count: reader.u8()?,
            pair: reader.array()?,
            frame: reader.array()?,
            session: reader.array()?,
            chain: reader.u32()?,
            number: reader.u32()?,
            receipt: reader.array()?,
        };
        reader.finish()?;
        Ok(event)
    }
}

/// What a device and its peer make digests with. Nobody else has it, so nobody can try names.
pub(crate) struct PairKey(Zeroizing<[u8; 32]>);

impl PairKey {
    /// `HKDF(Z32, DH(IK_A, IK_B), "Sprag/1 report", 32)`: the same for both.
    pub(crate) fn derive(secret: &SharedSecret) -> Self {
        Self(hkdf(&[0; 32], secret.as_bytes(), &[labels::REPORT]))
    }

    fn digest(&self, kind: &[u8], of: &[u8]) -> Digest {
        let mac = hmac(self.0.as_slice(), &[kind, of]);
        mac.first_chunk().copied().unwrap_or_default()
    }

    fn pair(&self) -> Digest {
        self.digest(b"pair", b"")
    }

    fn frame(&self, salt: &Salt) -> Digest {
        self.digest(b"frame", salt.as_bytes())
    }

    fn session(&self, id: &SessionId) -> Digest {
        self.digest(b"session", id.as_bytes())
    }
}

/// Where the next events go. Found by a look at the rows when the first one comes.
#[derive(Debug, Default)]
pub(crate) struct Ring {
    next: Option<Next>,
}

#[derive(Debug, Clone, Copy)]
struct Next {
    order: u64,
    accepted: u16,
    strangers: u16,
}

/// With whom something happened.
#[derive(Debug, Clone, Copy)]
pub(crate) struct With<'a> {
    pub(crate) peer: &'a DeviceAddress,
    pub(crate) key: &'a IdentityKey,
    pub(crate) accepted: bool,
}

/// What is to be noted.
#[derive(Debug, Clone)]
pub(crate) struct Note {
    pub(crate) what: What,
    pub(crate) error: Option<ProtocolError>,
    pub(crate) flags: Flags,
    pub(crate) count: usize,
    pub(crate) frame: Option<Salt>,
    pub(crate) session: Option<SessionId>,
    pub(crate) chain: u32,
    pub(crate) number: u32,
    pub(crate) receipt: Option<Salt>,
}

impl Note {
    pub(crate) fn new(what: What) -> Self {
        Self {
            what,
            error: None,
            flags: Flags::NONE,
            count: 0,
            frame: None,
            session: None,
            chain: 0,
            number: 0,
            receipt: None,
        }
    }
}

fn next_place(place: u16, first: u16, size: u16) -> u16 {
    let within = place.saturating_sub(first).saturating_add(1);
    first.saturating_add(within % size)
}

impl Next {
    /// After the newest event of each part.
    fn find(rows: &dyn Rows) -> Result<Self, StoreError> {
        let mut order = 0;
        // Order and place of the newest of each part.
        let mut accepted: Option<(u64, u16)> = None;
        let mut strangers = None;
        for (place, event) in scan(rows)? {
            order = order.max(event.order);
            let part = if place < RING {
                &mut accepted
            } else {
                &mut strangers
            };
            if part.is_none_or(|(order, _)| order < event.order) {
                *part = Some((event.order, place));
            }
        }
        Ok(Self {
            order: order.saturating_add(1),
            accepted: accepted.map_or(0, |(_, place)| next_place(place, 0, RING)),
            strangers: strangers.map_or(RING, |(_, place)| {
                next_place(place, RING, RING_OF_STRANGERS)
            }),
        })
    }
}

fn scan(rows: &dyn Rows) -> Result<Vec<(u16, RingEvent)>, StoreError> {
    let mut found = Vec::new();
    let mut failed = Ok(());
    rows.scan(&tables::all(tables::RING), &mut |suffix, value| {
        match (suffix.try_into(), RingEvent::read(value)) {
            (Ok(place), Ok(event)) => found.push((u16::from_be_bytes(place), event)),
            (_, Err(error)) => failed = Err(error),
            (Err(_), _) => failed = Err(StoreError::Damaged("protocol event")),
        }
        ControlFlow::Continue(())
    })?;
    failed.map(|()| found)
}

impl Device {
    /// Keeps an event that concerns one peer.
    pub(crate) fn note(
        &mut self,
        rows: &mut Staged<'_>,
        now: u64,
        with: With<'_>,
        note: &Note,
    ) -> Result<(), StepError> {
        let key = self.pair_key(with.peer, with.key)?;
        let event = RingEvent {
            order: 0,
            at: now,
            what: note.what,
            error: note.error,
            flags: note.flags.with(Flags::STRANGER, !with.accepted),
            count: u8::try_from(note.count).unwrap_or(u8::MAX),
            pair: key.pair(),
            frame: note.frame.map_or([0; 8], |salt| key.frame(&salt)),
            session: note.session.map_or([0; 8], |id| key.session(&id)),
            chain: note.chain,
            number: note.number,
            receipt: note.receipt.map_or([0; 8], |salt| key.frame(&salt)),
        };
        self.keep_event(rows, event, with.accepted)
    }

    /// Keeps an event that concerns no peer, or many.
    pub(crate) fn note_alone(
        &mut self,
        rows: &mut Staged<'_>,
        now: u64,
        what: What,
        number: u64,
    ) -> Result<(), StepError> {
        let number = u32::try_from(number).unwrap_or(u32::MAX);
        self.keep_event(rows, alone(now, what, number), true)
    }

    fn keep_event(
        &mut self,
        rows: &mut Staged<'_>,
        mut event: RingEvent,
        accepted: bool,
    ) -> Result<(), StepError> {
        let mut next = match self.ring.next {
            Some(next) => next,
            None => {
                let mut next = Next::find(rows)?;
                next.put(rows, alone(event.at, What::Started, 0), true);
                next
            }
        };
        event.order = next.order;
        next.put(rows, event, accepted);
        // A step that fails leaves a gap in the order, and nothing else.
        self.ring.next = Some(next);
        Ok(())
    }

    /// The events that are kept, oldest first.
    ///
    /// # Errors
    /// What the store answers.
    pub fn ring_events(&self, rows: &dyn Rows) -> Result<Vec<RingEvent>, StepError> {
        let mut events: Vec<_> = scan(rows)?.into_iter().map(|(_, event)| event).collect();
        events.sort_by_key(|event| event.order);
        Ok(events)
    }

    /// The network did a task: notes what was handed over, or published. Before [`Device::done`], in its step.
    ///
    /// # Errors
    /// What the store answers.
    pub fn note_done(
        &mut self,
        rows: &mut Staged<'_>,
        env: &Env<'_>,
        id: TaskId,
    ) -> Result<(), StepError> {
        match StoredTask::load(rows, id)?.map(|task| task.kind) {
            Some(Kind::Deliver { to, salt, .. }) => {
                let user = self.user(rows, to.user())?;
                let Some(key) = user.as_ref().and_then(|user| user.listed(to.device())) else {
                    return Ok(());
                };
                let with = With {
                    peer: &to,
                    key,
                    accepted: true,
                };
                let note = Note {
                    frame: Some(salt),
                    ..Note::new(What::HandedOver)
                };
                self.note(rows, env.now, with, &note)
            }
            Some(Kind::PublishPreKeys(plan)) => {
                self.note_alone(rows, env.now, What::PreKeysPublished, plan.number)
            }
            _ => Ok(()),
        }
    }

    /// Notes that a step brought a newer list of a user than the one `before` it, and whom that leaves out.
    pub(crate) fn note_list(
        &mut self,
        rows: &mut Staged<'_>,
        now: u64,
        name: &UserId,
        before: Option<&DeviceList>,
    ) -> Result<(), StepError> {
        let Some(user) = self.user(rows, name)?.filter(|user| user.accepted) else {
            return Ok(());
        };
        if before.is_some_and(|before| before.hash() == user.newest.hash()) {
            return Ok(());
        }
        self.note_alone(rows, now, What::ListLearned, user.newest.epoch())?;
        for entry in before.map_or(&[][..], DeviceList::devices) {
            let key = entry.identity_key();
            if !user.is_listed(entry.device(), key) && key != self.identity.public() {
                let with = With {
                    peer: &DeviceAddress::new(name.clone(), entry.device()),
                    key: &key.clone(),
                    accepted: true,
                };
                self.note(rows, now, with, &Note::new(What::Unlisted))?;
            }
        }
        Ok(())
    }
}

fn alone(at: u64, what: What, number: u32) -> RingEvent {
    RingEvent {
        order: 0,
        at,
        what,
        error: None,
        flags: Flags::NONE,
        count: 0,
        pair: [0; 8],
        frame: [0; 8],
        session: [0; 8],
        chain: 0,
        number,
        receipt: [0; 8],
    }
}

impl Next {
    fn put(&mut self, rows: &mut Staged<'_>, mut event: RingEvent, accepted: bool) {
        event.order = self.order;
        self.order = self.order.saturating_add(1);
        let place = if accepted {
            let place = self.accepted;
            self.accepted = next_place(place, 0, RING);
            place
        } else {
            let place = self.strangers;
            self.strangers = next_place(place, RING, RING_OF_STRANGERS);
            place
        };
        rows.put(tables::ring_place(place), event.to_bytes());
    }
}

#[cfg(test)]
mod tests {
    use sprag_store::MemoryRows;

    use super::*;

    fn event(order: u64) -> RingEvent {
        RingEvent {
            order,
            ..alone(5, What::ListLearned, 7)
        }
    }

    #[test]
    fn an_event_takes_61_bytes_and_reads_back_and_damage_is_told() {
        let event = RingEvent {
            error: Some(ProtocolError::NoSession),
            flags: Flags::HANDSHAKE.with(Flags::FRESH, true),
            count: 3,
            pair: [1; 8],
            frame: [2; 8],
            session: [3; 8],
            chain: 4,
            receipt: [5; 8],
            what: What::Refused,
            ..event(9)
        };
        let bytes = event.to_bytes();
        assert_eq!(bytes.len(), RECORD + 1);
        assert_eq!(RingEvent::read(&bytes).unwrap(), event);
        for length in 0..bytes.len() {
            assert!(RingEvent::read(&bytes[..length]).is_err());
        }
        // Version, kind and error that nobody writes.
        for (at, value) in [(0, 2), (17, 0), (17, 15), (18, 24)] {
            let mut bad = bytes.to_vec();
            bad[at] = value;
            assert!(RingEvent::read(&bad).is_err(), "{at}");
        }
    }

    #[test]
    fn strangers_push_out_strangers_only_and_the_last_events_stay() {
        let base = MemoryRows::new();
        let mut rows = Staged::new(&base);
        let mut next = Next::find(&rows).unwrap();
        for _ in 0..20 {
            next.put(&mut rows, event(0), true);
        }
        for _ in 0..5_000 {
            next.put(&mut rows, event(0), false);
        }
        let kept = scan(&rows).unwrap();
        let strangers = kept.iter().filter(|(place, _)| *place >= RING);
        assert_eq!(strangers.count(), usize::from(RING_OF_STRANGERS));
        assert_eq!(kept.len(), 20 + usize::from(RING_OF_STRANGERS));
        for _ in 0..2_000 {
            next.put(&mut rows, event(0), true);
        }
        let kept = scan(&rows).unwrap();
        assert_eq!(kept.len(), usize::from(RING + RING_OF_STRANGERS));
        let newest = kept.iter().map(|(_, event)| event.order).max();
        assert_eq!(newest, Some(7_020));
        let of_friends = kept.iter().filter(|(place, _)| *place < RING);
        let oldest = of_friends.map(|(_, event)| event.order).min();
        assert_eq!(oldest, Some(7_020 - u64::from(RING) + 1));
        // A restart goes on where it was.
        let found = Next::find(&rows).unwrap();
        assert_eq!(
            (found.order, found.accepted, found.strangers),
            (next.order, next.accepted, next.strangers)
        );
    }
}
