//! Where and why two devices diverged, from what each noted of it (`docs/REPORT.md`).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::error::ProtocolError;
use crate::report::Report;
use crate::ring::{Digest, Flags, RingEvent, What};

/// Clocks that differ by less than this are taken to be right: two minutes.
const TOLERATED_MS: u64 = 120_000;

/// Which of the two reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Side {
    /// The first.
    A,
    /// The second.
    B,
}

impl Side {
    fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::A => "A",
            Self::B => "B",
        })
    }
}

/// Where in a conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Place {
    /// When, by the clock of the side that noted it, in milliseconds since 1970.
    pub at: u64,
    /// The session, as both reports name it.
    pub session: Digest,
    /// Index of the sender's chain.
    pub chain: u32,
    /// Number in the chain.
    pub number: u32,
}

impl Place {
    fn of(event: &RingEvent) -> Self {
        Self {
            at: event.at,
            session: event.session,
            chain: event.chain,
            number: event.number,
        }
    }
}

/// One thing in which the two differ. In the order of the variants, the first ones explain the later ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Finding {
    /// The two reports are of one device.
    SameDevice,
    /// Nothing in one report is about the device of the other: another pair, or nothing ever arrived.
    NothingInCommon,
    /// They knew each other, but what is left in the two does not overlap.
    TooShort,
    /// A side does not know what it did: its store is an older copy.
    #[non_exhaustive]
    WentBack {
        /// Whose.
        side: Side,
        /// The first thing that it forgot; the time is the other side's.
        place: Place,
        /// It sealed another frame at the same place: one message key, two messages.
        twice: bool,
    },
    /// A side took the other's device off its list, and closed its sessions.
    #[non_exhaustive]
    Unlisted {
        /// The side that did.
        side: Side,
        /// When, by its clock.
        at: u64,
    },
    /// A side refused frames on a session that it had used before.
    #[non_exhaustive]
    LostSession {
        /// Who lost it.
        side: Side,
        /// The first frame that was refused.
        place: Place,
        /// How many were refused.
        frames: u32,
        /// When that side opened a fresh session, if it did.
        healed_at: Option<u64>,
    },
    /// A side refused a handshake because the prekey was gone.
    #[non_exhaustive]
    PreKeysGone {
        /// Whose prekeys.
        side: Side,
        /// The first frame that was refused.
        place: Place,
        /// How many were refused.
        frames: u32,
        /// When that side opened a fresh session, if it did.
        healed_at: Option<u64>,
    },
    /// A side could not read frames for another reason.
    #[non_exhaustive]
    Refused {
        /// Who could not.
        side: Side,
        /// Why, the first time.
        error: ProtocolError,
        /// The first frame that was refused.
        place: Place,
        /// How many were refused.
        frames: u32,
        /// When that side opened a fresh session, if it did.
        healed_at: Option<u64>,
    },
    /// Frames were handed over and never came, although later ones did.
    #[non_exhaustive]
    Lost {
        /// Who sent them.
        sender: Side,
        /// The first one.
        place: Place,
        /// How many.
        frames: u32,
    },
    /// Frames were sealed and not handed over: they wait at the sender.
    #[non_exhaustive]
    NotHandedOver {
        /// Who sent them.
        sender: Side,
        /// The first one.
        place: Place,
        /// How many.
        frames: u32,
    },
    /// The last frames were handed over and have not come: they are on their way, or lost.
    #[non_exhaustive]
    NotArrived {
        /// Who sent them.
        sender: Side,
        /// The first one.
        place: Place,
        /// How many.
        frames: u32,
    },
}

impl Finding {
    fn rank(&self) -> u8 {
        match self {
            Self::SameDevice => 0,
            Self::NothingInCommon => 1,
            Self::TooShort => 2,
            Self::WentBack { .. } => 3,
            Self::Unlisted { .. } => 4,
            Self::LostSession { .. } => 5,
            Self::PreKeysGone { .. } => 6,
            Self::Refused { .. } => 7,
            Self::Lost { .. } => 8,
            Self::NotHandedOver { .. } => 9,
            Self::NotArrived { .. } => 10,
        }
    }
}

/// One clock is behind the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClocksApart {
    /// Whose clock is behind.
    pub behind: Side,
    /// By how much at least, in milliseconds.
    pub by_ms: u64,
}

/// What two reports say together. Its `Display` is one sentence.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Diagnosis {
    /// Frames that one sent and the other opened, both ways.
    pub frames: u32,
    /// In what they differ, the cause first. Empty: they agree.
    pub findings: Vec<Finding>,
    /// Whether one clock is wrong.
    pub clocks: Option<ClocksApart>,
}

impl Report {
    /// Lays this report (side A) beside that of the other device (side B).
    #[must_use]
    pub fn diagnose(&self, other: &Self) -> Diagnosis {
        let alone = |finding| Diagnosis {
            frames: 0,
            findings: vec![finding],
            clocks: None,
        };
        let sent = |report: &Self| -> BTreeSet<Digest> { report.frames(What::Sent) };
        if !sent(self).is_disjoint(&sent(other)) || self.events == other.events {
            return alone(Finding::SameDevice);
        }
        let pairs = |report: &Self| -> BTreeSet<Digest> {
            let pairs = report.events.iter().map(|event| event.pair);
            pairs.filter(|pair| *pair != [0; 8]).collect()
        };
        let (ours, theirs) = (pairs(self), pairs(other));
        let Some(pair) = ours.intersection(&theirs).next() else {
            return alone(Finding::NothingInCommon);
        };
        let (a, b) = (Half::of(self, pair), Half::of(other, pair));
        let mut findings = Vec::new();
        let mut frames = 0;
        let fastest = [fastest(&a, &b), fastest(&b, &a)];
        let [there, back] = fastest;
        for (side, from, to, there, back) in [
            (Side::A, &a, &b, there, back),
            (Side::B, &b, &a, back, there),
        ] {
            let way = Way {
                side,
                from,
                to,
                there: there.unwrap_or(0),
                back: back.unwrap_or(0),
            };
            frames += way.matched();
            findings.extend(way.went_back());
            findings.extend(way.forgot_receipt());
            findings.extend(way.unlisted());
            findings.extend(way.refused());
            findings.extend(way.missing());
        }
        if frames == 0 && findings.is_empty() {
            let finding = if a.sent.is_empty() && b.sent.is_empty() {
                Finding::NothingInCommon
            } else {
                Finding::TooShort
            };
            return alone(finding);
        }
        findings.sort_by_key(Finding::rank);
        Diagnosis {
            frames,
            findings,
            clocks: clocks(fastest),
        }
    }

    fn frames(&self, what: What) -> BTreeSet<Digest> {
        let events = self.events.iter().filter(|event| event.what == what);
        events.map(|event| event.frame).collect()
    }
}

/// What a report says of one pair.
struct Half<'a> {
    made_at: u64,
    /// Events may have fallen out before the first one here.
    cut: bool,
    events: Vec<&'a RingEvent>,
    sent: Vec<&'a RingEvent>,
    handed_over: BTreeMap<Digest, u64>,
    /// Opened frames, by what they are.
    opened: BTreeMap<Digest, &'a RingEvent>,
    refused: BTreeMap<Digest, &'a RingEvent>,
}

impl<'a> Half<'a> {
    fn of(report: &'a Report, pair: &Digest) -> Self {
        let events = report.events.iter().filter(|event| event.pair == *pair);
        let mut events: Vec<&RingEvent> = events.collect();
        let strange = |event: &&RingEvent| event.flags.contains(Flags::STRANGER);
        let reach = report.reach(events.iter().any(strange));
        events.retain(|event| event.order >= reach);
        let of = |what: What| {
            events
                .iter()
                .copied()
                .filter(move |event| event.what == what)
        };
        let by_frame = |what| of(what).map(|event| (event.frame, event)).collect();
        Self {
            made_at: report.made_at,
            cut: reach > 0 || events.first().is_none_or(|first| !begins(first)),
            sent: of(What::Sent).collect(),
            handed_over: of(What::HandedOver)
                .map(|event| (event.frame, event.at))
                .collect(),
            opened: by_frame(What::Received),
            refused: by_frame(What::Refused),
            events,
        }
    }

    fn knows(&self, frame: &Digest) -> bool {
        self.opened.contains_key(frame) || self.refused.contains_key(frame)
    }

    fn opened_in_order(&self) -> impl Iterator<Item = &&'a RingEvent> {
        let events = self.events.iter();
        events.filter(|event| event.what == What::Received)
    }

    fn begins(&self, session: &Digest) -> bool {
        let mut events = self.events.iter();
        events.any(|event| event.session == *session && begins(event))
    }

    fn uses(&self, session: &Digest) -> impl Iterator<Item = &&'a RingEvent> {
        let events = self.events.iter();
        events.filter(move |event| event.session == *session && event.what != What::Refused)
    }
}

/// Whether a session begins here with this event.
fn begins(event: &RingEvent) -> bool {
    event.what == What::Opened || event.flags.contains(Flags::NEW_SESSION)
}

/// One direction: what `from` sent to `to`.
struct Way<'a> {
    /// The sender.
    side: Side,
    from: &'a Half<'a>,
    to: &'a Half<'a>,
    /// The shortest time that a frame seemed to take this way, and the other: what turns a time by one clock into the
    /// latest that it can have been by the other.
    there: i128,
    back: i128,
}

/// The shortest time that a frame seemed to take: negative if a clock is wrong.
fn fastest(from: &Half<'_>, to: &Half<'_>) -> Option<i128> {
    let times = from.sent.iter().filter_map(|event| {
        let came = to.opened.get(&event.frame)?;
        Some(i128::from(came.at) - i128::from(event.at))
    });
    times.min()
}

impl Way<'_> {
    fn matched(&self) -> u32 {
        let sent = self.from.sent.iter();
        count(sent.filter(|event| self.to.opened.contains_key(&event.frame)))
    }

    /// The receiver opened frames that the sender does not know.
    fn went_back(&self) -> Option<Finding> {
        let sent: BTreeSet<Digest> = self.from.sent.iter().map(|event| event.frame).collect();
        let mut known = false;
        for event in self.to.opened_in_order() {
            if sent.contains(&event.frame) {
                known = true;
                continue;
            }
            // What the sender's report does not reach back to says nothing.
            if !known && !self.from.begins(&event.session) {
                continue;
            }
            let at = (event.chain, event.number);
            let places = self.from.sent.iter();
            let same = places.filter(|other| other.session == event.session);
            let last = same.map(|other| (other.chain, other.number));
            let (twice, beyond) = last.fold((false, false), |(twice, beyond), other| {
                (twice || other == at, beyond || other > at)
            });
            // Else the sender's report may have been made before.
            let before = i128::from(event.at) + self.back <= i128::from(self.from.made_at);
            if !(twice || beyond || before) {
                continue;
            }
            return Some(Finding::WentBack {
                side: self.side,
                place: Place::of(event),
                twice,
            });
        }
        None
    }

    /// The sender was told that a frame was opened, and the receiver does not know it.
    fn forgot_receipt(&self) -> Option<Finding> {
        let mut known = false;
        for sent in &self.from.sent {
            if self.to.opened.contains_key(&sent.frame) {
                known = true;
                continue;
            }
            let mut told = self.from.opened_in_order();
            let Some(told) = told.find(|event| event.receipt == sent.frame) else {
                continue;
            };
            // Else the receiver's report may have been made before, or does not reach back to it.
            let before = i128::from(told.at) + self.there <= i128::from(self.to.made_at);
            if before && (known || self.to.begins(&sent.session)) {
                return Some(Finding::WentBack {
                    side: self.side.other(),
                    place: Place::of(sent),
                    twice: false,
                });
            }
        }
        None
    }

    fn unlisted(&self) -> Option<Finding> {
        let mut events = self.to.events.iter();
        let event = events.find(|event| event.what == What::Unlisted)?;
        Some(Finding::Unlisted {
            side: self.side.other(),
            at: event.at,
        })
    }

    /// Frames that the receiver refused, by why.
    fn refused(&self) -> Vec<Finding> {
        let side = self.side.other();
        let mut found: Vec<(u8, Finding)> = Vec::new();
        let refusals = self.to.events.iter();
        for event in refusals.filter(|event| event.what == What::Refused) {
            let Some(error) = event.error else { continue };
            let sent = self.from.sent.iter();
            let sent = sent.copied().find(|sent| sent.frame == event.frame);
            let place = Place {
                at: event.at,
                ..Place::of(sent.unwrap_or(event))
            };
            let later = |other: &&&RingEvent| other.order > event.order && begins(other);
            let healed_at = self.to.events.iter().find(later).map(|event| event.at);
            let frames = 1;
            let was_used = || {
                let before = |other: &&&RingEvent| other.order < event.order;
                self.to.uses(&event.session).find(before).is_some()
                    || self
                        .from
                        .uses(&event.session)
                        .any(|other| other.what == What::Received)
            };
            let finding = match error {
                ProtocolError::NoSession if was_used() => Finding::LostSession {
                    side,
                    place,
                    frames,
                    healed_at,
                },
                ProtocolError::UnknownPreKey => Finding::PreKeysGone {
                    side,
                    place,
                    frames,
                    healed_at,
                },
                error => Finding::Refused {
                    side,
                    error,
                    place,
                    frames,
                    healed_at,
                },
            };
            match found.iter_mut().find(|(rank, _)| *rank == finding.rank()) {
                None => found.push((finding.rank(), finding)),
                Some((_, first)) => first.one_more(),
            }
        }
        found.into_iter().map(|(_, finding)| finding).collect()
    }

    /// Frames that the receiver knows nothing of.
    fn missing(&self) -> Vec<Finding> {
        let sent = &self.from.sent;
        let known = |event: &&RingEvent| self.to.knows(&event.frame);
        let first = sent.iter().position(known);
        let last = sent.iter().rposition(known);
        // What may have fallen out of the receiver's ring is not missing.
        let from = if self.to.cut { first } else { Some(0) };
        let Some(from) = from else {
            return Vec::new();
        };
        let (mut lost, mut waiting, mut on_the_way) = (Vec::new(), Vec::new(), Vec::new());
        for (place, event) in sent.iter().enumerate().skip(from) {
            if known(event) {
                continue;
            }
            if !self.from.handed_over.contains_key(&event.frame) {
                waiting.push(*event);
            } else if last.is_some_and(|last| place < last) {
                lost.push(*event);
            } else if i128::from(event.at) + self.there <= i128::from(self.to.made_at) {
                on_the_way.push(*event);
            }
        }
        let sender = self.side;
        let mut findings = Vec::new();
        if let Some(first) = lost.first() {
            findings.push(Finding::Lost {
                sender,
                place: self.handed_over_place(first),
                frames: count(lost.iter()),
            });
        }
        if let Some(first) = waiting.first() {
            findings.push(Finding::NotHandedOver {
                sender,
                place: Place::of(first),
                frames: count(waiting.iter()),
            });
        }
        if let Some(first) = on_the_way.first() {
            findings.push(Finding::NotArrived {
                sender,
                place: self.handed_over_place(first),
                frames: count(on_the_way.iter()),
            });
        }
        findings
    }

    fn handed_over_place(&self, event: &RingEvent) -> Place {
        let at = self.from.handed_over.get(&event.frame).copied();
        Place {
            at: at.unwrap_or(event.at),
            ..Place::of(event)
        }
    }
}

impl Finding {
    fn one_more(&mut self) {
        if let Self::LostSession { frames, .. }
        | Self::PreKeysGone { frames, .. }
        | Self::Refused { frames, .. } = self
        {
            *frames = frames.saturating_add(1);
        }
    }
}

fn count<T>(of: impl Iterator<Item = T>) -> u32 {
    u32::try_from(of.count()).unwrap_or(u32::MAX)
}

/// A frame cannot come before it was sent: if it seems to, the receiver's clock is behind.
fn clocks(fastest: [Option<i128>; 2]) -> Option<ClocksApart> {
    let behind = |time: Option<i128>, behind| {
        let by_ms = time.filter(|time| *time < 0)?.unsigned_abs();
        let by_ms = u64::try_from(by_ms).unwrap_or(u64::MAX);
        (by_ms > TOLERATED_MS).then_some(ClocksApart { behind, by_ms })
    };
    let [a_to_b, b_to_a] = fastest;
    behind(a_to_b, Side::B).or_else(|| behind(b_to_a, Side::A))
}

impl fmt::Display for Diagnosis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.findings.first() {
            None => write!(f, "the two agree on all {} frames", self.frames)?,
            Some(finding) => write!(f, "{finding}")?,
        }
        if let Some(clocks) = self.clocks {
            let (behind, by) = (clocks.behind, Span(clocks.by_ms));
            write!(
                f,
                "; the clock of {behind} is at least {by} behind that of {}",
                behind.other()
            )?;
        }
        Ok(())
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SameDevice => f.write_str("the two reports are of one device"),
            Self::NothingInCommon => f.write_str(
                "the two reports have no conversation in common: they are of other devices, or nothing of one ever \
                 reached the other",
            ),
            Self::TooShort => f.write_str(
                "the two know each other, but what is left in their reports does not overlap: make both sooner after \
                 the trouble",
            ),
            Self::WentBack { side, place, twice } => {
                write!(f, "the state of {side} went back to an older copy: ")?;
                if *twice {
                    write!(
                        f,
                        "it sent number {} of chain {} twice",
                        place.number, place.chain
                    )?;
                } else {
                    write!(
                        f,
                        "it does not know number {} of chain {}",
                        place.number, place.chain
                    )?;
                }
                write!(
                    f,
                    " on session {}, which {} noted at {}",
                    Name(place.session),
                    side.other(),
                    Time(place.at)
                )
            }
            Self::Unlisted { side, at } => write!(
                f,
                "{side} learned at {} that the device of {} is off its user's list, and closed its sessions",
                Time(*at),
                side.other()
            ),
            Self::LostSession {
                side,
                place,
                frames,
                healed_at,
            } => {
                write!(
                    f,
                    "{side} lost session {} before {}: it refused {} on it, from number {} of chain {}",
                    Name(place.session),
                    Time(place.at),
                    Frames(*frames),
                    place.number,
                    place.chain
                )?;
                healed(f, *healed_at)
            }
            Self::PreKeysGone {
                side,
                place,
                frames,
                healed_at,
            } => {
                write!(
                    f,
                    "{side} did not have the prekey any more that {} used: it refused {} of session {} from {}",
                    side.other(),
                    Frames(*frames),
                    Name(place.session),
                    Time(place.at)
                )?;
                healed(f, *healed_at)
            }
            Self::Refused {
                side,
                error,
                place,
                frames,
                healed_at,
            } => {
                write!(
                    f,
                    "{side} could not read {} of {} from {}, first number {} of chain {} on session {}: {error}",
                    Frames(*frames),
                    side.other(),
                    Time(place.at),
                    place.number,
                    place.chain,
                    Name(place.session)
                )?;
                healed(f, *healed_at)
            }
            Self::Lost {
                sender,
                place,
                frames,
            } => write!(
                f,
                "{} never received {} that {sender} handed over from {}, on session {} from number {} of chain {}, \
                 although later ones came",
                sender.other(),
                Frames(*frames),
                Time(place.at),
                Name(place.session),
                place.number,
                place.chain
            ),
            Self::NotHandedOver {
                sender,
                place,
                frames,
            } => write!(
                f,
                "{} of {sender} still {} to be handed over by its transport, sealed from {}",
                Frames(*frames),
                if *frames == 1 { "waits" } else { "wait" },
                Time(place.at)
            ),
            Self::NotArrived {
                sender,
                place,
                frames,
            } => write!(
                f,
                "{} that {sender} handed over from {} on session {}, from number {} of chain {}, did not reach {} yet: \
                 on the way, or lost",
                Frames(*frames),
                Time(place.at),
                Name(place.session),
                place.number,
                place.chain,
                sender.other()
            ),
        }
    }
}

fn healed(f: &mut fmt::Formatter<'_>, at: Option<u64>) -> fmt::Result {
    match at {
        Some(at) => write!(f, ", and healed with a fresh session at {}", Time(at)),
        None => f.write_str(", and has no fresh session yet"),
    }
}

struct Frames(u32);

impl fmt::Display for Frames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            1 => f.write_str("1 frame"),
            count => write!(f, "{count} frames"),
        }
    }
}

/// A session by the first half of its digest.
struct Name(Digest);

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = self.0.iter().take(4);
        shown.try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// A time in UTC, to the second.
struct Time(u64);

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0 / 1_000;
        let (days, within) = (seconds / 86_400, seconds % 86_400);
        // Civil date from days since 1970 (Hinnant): eras of 400 years that begin in March.
        let days = days + 719_468;
        let (era, day) = (days / 146_097, days % 146_097);
        let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
        let day = day - (365 * year + year / 4 - year / 100);
        let march = (5 * day + 2) / 153;
        let day = day - (153 * march + 2) / 5 + 1;
        let month = if march < 10 { march + 3 } else { march - 9 };
        let year = era * 400 + year + u64::from(month <= 2);
        let (hour, minute, second) = (within / 3_600, within / 60 % 60, within % 60);
        write!(
            f,
            "{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC"
        )
    }
}

/// A duration in its largest unit.
struct Span(u64);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let minutes = self.0 / 60_000;
        match minutes {
            0..=119 => write!(f, "{minutes} minutes"),
            120..=2_879 => write!(f, "{} hours", minutes / 60),
            _ => write!(f, "{} days", minutes / 1_440),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_spans_are_written_as_people_read_them() {
        for (at, text) in [
            (0, "1970-01-01 00:00:00 UTC"),
            (1_700_000_000_000, "2023-11-14 22:13:20 UTC"),
            (951_782_399_999, "2000-02-28 23:59:59 UTC"),
            (951_782_400_000, "2000-02-29 00:00:00 UTC"),
            (4_107_542_400_000, "2100-03-01 00:00:00 UTC"),
        ] {
            assert_eq!(Time(at).to_string(), text);
        }
        // No time that a forged report may have stops the program.
        assert!(!Time(u64::MAX).to_string().is_empty());
        for (span, text) in [
            (121_000, "2 minutes"),
            (7_200_000, "2 hours"),
            (259_200_000, "3 days"),
        ] {
            assert_eq!(Span(span).to_string(), text);
        }
    }
}
