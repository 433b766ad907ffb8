//! What a device gives out for [`diagnose`](crate::Report::diagnose): its last protocol events, as one file
//! (`docs/REPORT.md`).

use sprag_crypto::sha256;
use sprag_store::Rows;

use crate::codec::{Reader, Writer};
use crate::error::StepError;
use crate::own::{Device, Env};
use crate::ring::{Flags, RECORD, RING, RING_OF_STRANGERS, RingEvent};

const MAGIC: &[u8; 8] = b"SPRAGREP";
const VERSION: u8 = 1;
const HEADER: usize = 8 + 1 + 8 + 2;
const CHECK: usize = 8;

/// The last protocol events of one device: times, digests, numbers, outcomes. It has no names and no keys; whoever has
/// it alone learns when how much was sent to how many devices.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Report {
    /// When it was made, by the device's clock, in milliseconds since 1970.
    pub made_at: u64,
    /// Ascending by their order; at most 1,000.
    pub events: Vec<RingEvent>,
}

/// Why bytes are no report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReportError {
    /// Something else, damaged, or cut short.
    #[error("not a report, or damaged")]
    Damaged,
    /// Made by a later version. Update.
    #[error("report of another version")]
    Version,
}

impl Report {
    /// The bytes: 27, and 60 for each event.
    ///
    /// ```text
    /// "SPRAGREP" ‖ version u8 = 1 ‖ made at u64 ‖ count u16 ‖ events, 60 bytes each ‖ SHA-256 of all before, 8 bytes
    /// ```
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER + self.events.len() * RECORD + CHECK);
        bytes.extend_from_slice(MAGIC);
        bytes.push(VERSION);
        bytes.extend_from_slice(&self.made_at.to_be_bytes());
        let count = u16::try_from(self.events.len()).unwrap_or(u16::MAX);
        bytes.extend_from_slice(&count.to_be_bytes());
        for event in self.events.iter().take(usize::from(count)) {
            bytes.extend(event.to_bytes().iter().skip(1));
        }
        let digest = sha256(&[&bytes]);
        bytes.extend(digest.iter().take(CHECK));
        bytes
    }

    /// Reads a report. Anything but the one encoding is refused, above 60,027 bytes at once.
    ///
    /// # Errors
    /// [`ReportError`].
    pub fn parse(bytes: &[u8]) -> Result<Self, ReportError> {
        let damaged = ReportError::Damaged;
        let most = usize::from(RING + RING_OF_STRANGERS);
        let rest = bytes.strip_prefix(MAGIC).ok_or(damaged)?;
        let version = rest.first().ok_or(damaged)?;
        if *version != VERSION {
            return Err(ReportError::Version);
        }
        if bytes.len() > HEADER + most * RECORD + CHECK {
            return Err(damaged);
        }
        let (body, check) = bytes.split_last_chunk::<CHECK>().ok_or(damaged)?;
        if sha256(&[body]).first_chunk() != Some(check) {
            return Err(damaged);
        }
        let body = body.get(MAGIC.len()..).ok_or(damaged)?;
        let mut reader = Reader::new(body, VERSION, "report").map_err(|_| damaged)?;
        let made_at = reader.u64().map_err(|_| damaged)?;
        let count = u16::from_be_bytes(reader.array().map_err(|_| damaged)?);
        let mut events: Vec<RingEvent> = Vec::with_capacity(usize::from(count).min(most));
        for _ in 0..count {
            let record = reader.take(RECORD).map_err(|_| damaged)?;
            let mut writer = Writer::new(1, RECORD);
            writer.fixed(record);
            let event = RingEvent::read(&writer.finish()).map_err(|_| damaged)?;
            if events.last().is_some_and(|last| last.order >= event.order) {
                return Err(damaged);
            }
            events.push(event);
        }
        reader.finish().map_err(|_| damaged)?;
        Ok(Self { made_at, events })
    }

    /// Whether events may have fallen out of the ring before the first one here.
    #[must_use]
    pub fn is_cut(&self) -> bool {
        self.reach(true) > 0
    }

    /// The order from which on nothing has fallen out: of events with accepted users, and with strangers if they count.
    pub(crate) fn reach(&self, strangers: bool) -> u64 {
        let of = |stranger: bool, size: u16| {
            let events = self.events.iter();
            let mut part = events
                .filter(|event| event.flags.contains(Flags::STRANGER) == stranger)
                .map(|event| event.order);
            let oldest = part.next().unwrap_or(0);
            if part.count() + 1 >= usize::from(size) {
                oldest
            } else {
                0
            }
        };
        let friends = of(false, RING);
        if strangers {
            friends.max(of(true, RING_OF_STRANGERS))
        } else {
            friends
        }
    }
}

impl Device {
    /// The last protocol events, to be laid beside those of another device.
    ///
    /// # Errors
    /// What the store answers.
    pub fn report(&self, rows: &dyn Rows, env: &Env<'_>) -> Result<Report, StepError> {
        Ok(Report {
            made_at: env.now,
            events: self.ring_events(rows)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ring::What;

    fn report(count: u64) -> Report {
        let event = |order| RingEvent {
            order,
            at: 7,
            what: What::Sent,
            error: None,
            flags: Flags::HANDSHAKE,
            count: 0,
            pair: [1; 8],
            frame: order.to_be_bytes(),
            session: [2; 8],
            chain: 3,
            number: 4,
            receipt: [0; 8],
        };
        Report {
            made_at: 5,
            events: (1..=count).map(event).collect(),
        }
    }

    /// The check is no secret: whoever changes a report can make it anew.
    fn checked(mut bytes: Vec<u8>) -> Vec<u8> {
        let at = bytes.len() - CHECK;
        bytes.truncate(at);
        let digest = sha256(&[&bytes]);
        bytes.extend_from_slice(&digest[..CHECK]);
        bytes
    }

    #[test]
    fn a_report_reads_back_and_every_flipped_bit_and_missing_byte_is_told() {
        for count in [0, 1, 5, 1_000] {
            let report = report(count);
            let bytes = report.encode();
            assert_eq!(bytes.len() as u64, 27 + 60 * count);
            assert_eq!(Report::parse(&bytes), Ok(report));
        }
        let bytes = report(3).encode();
        for at in 0..bytes.len() * 8 {
            let mut bad = bytes.clone();
            bad[at / 8] ^= 1 << (at % 8);
            assert!(Report::parse(&bad).is_err(), "bit {at}");
        }
        for length in 0..bytes.len() {
            assert!(Report::parse(&bytes[..length]).is_err());
        }
        let mut longer = bytes;
        longer.push(0);
        assert_eq!(Report::parse(&longer), Err(ReportError::Damaged));
    }

    #[test]
    fn a_made_up_report_with_a_right_check_is_refused_all_the_same() {
        assert_eq!(
            Report::parse(&checked(report(1_001).encode())),
            Err(ReportError::Damaged)
        );
        let bytes = report(2).encode();
        let change = |at: usize, value: u8| {
            let mut bytes = bytes.clone();
            bytes[at] = value;
            Report::parse(&checked(bytes)).unwrap_err()
        };
        assert_eq!(change(8, 2), ReportError::Version);
        // Count, order of the second, kind and error of the first.
        for (at, value) in [
            (18, 1),
            (18, 3),
            (17, 255),
            (86, 1),
            (35, 0),
            (35, 200),
            (36, 99),
        ] {
            assert_eq!(change(at, value), ReportError::Damaged, "{at}");
        }
    }
}
