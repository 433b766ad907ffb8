//! How a session is stored: three records of fixed layout, integers big-endian, each with a version byte. Secret;
//! they are sealed by the store.
//!
//! ```text
//! constants, 55 bytes: written once
//!
//!     0        1      2      3            7                39               55
//!     +--------+------+------+------------+----------------+----------------+
//!     | 1      | role | mode | features C | TH             | SID            |
//!     +--------+------+------+------------+----------------+----------------+
//!     role: 1 initiator, 2 responder; mode: 1 PQXDH, 2 X3DH
//!
//! hot, 310 bytes: the only one that a message rewrites
//!
//!     0        1        33             65            98        130       162
//!     +--------+--------+--------------+-------------+---------+---------+
//!     | 1      | RK     | DHs, private | DHs, public | NHKs    | NHKr    |
//!     +--------+--------+--------------+-------------+---------+---------+
//!     162      194      226            258           290
//!     +--------+--------+--------------+-------------+
//!     | CKs    | HKs    | CKr          | HKr         |
//!     +--------+--------+--------------+-------------+
//!     290      294      298            302           306                 310
//!     +--------+--------+--------------+-------------+-------------------+
//!     | Ns     | PN     | Nr           | c           | number of skipped |
//!     +--------+--------+--------------+-------------+-------------------+
//!     A chain that does not exist is zeros: the receiving one while c = 0, then the responder's sending one too.
//!     i_s is not stored: it is c for the initiator and c - 1 for the responder.
//!
//! old chains, 2 + 36 n bytes, n = min(5, c - 1): changes when a message began a chain
//!
//!     0        1        2              6                          38
//!     +--------+--------+--------------+--------------------------+-- ...
//!     | 1      | n      | chain index  | header key               |  n of these, ascending, the last is c - 2
//!     +--------+--------+--------------+--------------------------+-- ...
//! ```

use core::fmt;

use sprag_crypto::{Features, Mode, PrivateKey, RatchetKey, SessionId, TranscriptHash};
use zeroize::Zeroizing;

use crate::chain::{ChainKey, ReceivingChain, SendingChain};
use crate::error::RecordError;
use crate::header_key::HeaderKey;
use crate::root_key::RootKey;
use crate::session::Session;
use crate::state::{Constants, OLD_CHAINS, OldChains, OwnRatchetKey, Role, State};

/// Length of the hot record in bytes.
pub const HOT_RECORD_LEN: usize = 310;

const VERSION: u8 = 1;
const CONSTANTS_LEN: usize = 55;
const OLD_HEAD_LEN: usize = 2;
const OLD_ENTRY_LEN: usize = 36;

/// A session as three records. Secret.
#[derive(Clone)]
#[non_exhaustive]
pub struct SessionRecords {
    /// What never changes.
    pub constants: Zeroizing<Vec<u8>>,
    /// What each message changes, [`HOT_RECORD_LEN`] bytes.
    pub hot: Zeroizing<Vec<u8>>,
    /// What changes when a message began a chain, at most 182 bytes.
    pub old_chains: Zeroizing<Vec<u8>>,
}

impl fmt::Debug for SessionRecords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionRecords").finish_non_exhaustive()
    }
}

impl Session {
    /// All three records, for a session that is stored for the first time.
    #[must_use]
    pub fn to_records(&self) -> SessionRecords {
        SessionRecords {
            constants: self.constants_record(),
            hot: self.hot_record(),
            old_chains: self.old_chains_record(),
        }
    }

    /// The record that each message rewrites.
    #[must_use]
    pub fn hot_record(&self) -> Zeroizing<Vec<u8>> {
        const ABSENT: [u8; 32] = [0; 32];
        let state = &*self.0;
        let (sending_key, sending_header, sent) = match &state.sending {
            Some(chain) => (
                chain.key.as_bytes(),
                chain.header_key.as_bytes(),
                chain.next,
            ),
            None => (&ABSENT, &ABSENT, 0),
        };
        let (receiving_key, receiving_header, read) = match &state.receiving {
            Some(chain) => (
                chain.key.as_bytes(),
                chain.header_key.as_bytes(),
                chain.next,
            ),
            None => (&ABSENT, &ABSENT, 0),
        };
        write(
            HOT_RECORD_LEN,
            &[
                &[VERSION],
                state.root.as_bytes(),
                state.own.private.to_bytes().as_slice(),
                state.own.public.as_bytes(),
                state.next_sending_header.as_bytes(),
                state.next_receiving_header.as_bytes(),
                sending_key,
                sending_header,
                receiving_key,
                receiving_header,
                &sent.to_be_bytes(),
                &state.previous_length.to_be_bytes(),
                &read.to_be_bytes(),
                &state.received.to_be_bytes(),
                &state.skipped.to_be_bytes(),
            ],
        )
    }

    /// The record that changes when [`Decrypted::stepped`](crate::Decrypted::stepped).
    #[must_use]
    pub fn old_chains_record(&self) -> Zeroizing<Vec<u8>> {
        let old = &self.0.old;
        let n = u8::try_from(old.len()).unwrap_or(0); // ≤ 5
        let mut record = Zeroizing::new(Vec::with_capacity(
            OLD_ENTRY_LEN
                .saturating_mul(old.len())
                .saturating_add(OLD_HEAD_LEN),
        ));
        record.extend_from_slice(&[VERSION, n]);
        for (index, key) in self.old_chains() {
            record.extend_from_slice(&index.to_be_bytes());
            record.extend_from_slice(key.as_bytes());
        }
        record
    }

    fn constants_record(&self) -> Zeroizing<Vec<u8>> {
        let constants = &self.0.constants;
        let role = match constants.role {
            Role::Initiator => 1,
            Role::Responder => 2,
        };
        let mode = match constants.mode {
            Mode::X3dh => 2,
            _ => 1,
        };
        write(
            CONSTANTS_LEN,
            &[
                &[VERSION, role, mode],
                &constants.features.bits().to_be_bytes(),
                constants.transcript.as_bytes(),
                constants.session.as_bytes(),
            ],
        )
    }

    /// The old chains with their indices, ascending.
    pub(crate) fn old_chains(&self) -> impl Iterator<Item = (u32, &HeaderKey)> {
        let state = &*self.0;
        (0..state.old.len()).rev().filter_map(|back| {
            let distance = u32::try_from(back).ok()?.checked_add(2)?;
            Some((state.received.checked_sub(distance)?, state.old.get(back)?))
        })
    }

    /// Reads a session back.
    ///
    /// # Errors
    ///
    /// [`RecordError`] unless these are records that [`to_records`](Self::to_records) and its parts wrote for one
    /// state of one session, as far as lengths, versions and ranges can tell. (That the bytes are the ones written is
    /// for the store's seal to know; the public ratchet key is not computed again.)
    pub fn from_records(
        constants: &[u8],
        hot: &[u8],
        old_chains: &[u8],
    ) -> Result<Self, RecordError> {
        let constants = read_constants(constants)?;
        let mut hot = Reader::new(hot, HOT_RECORD_LEN)?;
        let root = RootKey::from_bytes(hot.take()?);
        let private = hot.take::<32>()?;
        if private[0] & 0x07 != 0 || private[31] & 0xC0 != 0x40 {
            return Err(RecordError::Range); // not clamped
        }
        let own = OwnRatchetKey {
            private: PrivateKey::from_bytes(private),
            public: RatchetKey::from_bytes(hot.take::<33>()?).map_err(|_| RecordError::Range)?,
        };
        let next_sending_header = HeaderKey::from_bytes(hot.take()?);
        let next_receiving_header = HeaderKey::from_bytes(hot.take()?);
        let sending = (hot.take::<32>()?, hot.take::<32>()?);
        let receiving = (hot.take::<32>()?, hot.take::<32>()?);
        let sent = hot.number()?;
        let previous_length = hot.number()?;
        let read = hot.number()?;
        let received = hot.number()?;
        let skipped = hot.number()?;

        let sends = received > 0 || constants.role == Role::Initiator;
        if (!sends && !absent(sending, sent))
            || (received == 0 && !(absent(receiving, read) && previous_length == 0 && skipped == 0))
        {
            return Err(RecordError::Range);
        }
        Ok(Self(Box::new(State {
            constants,
            root,
            own,
            sending: sends.then(|| SendingChain {
                key: ChainKey::from_bytes(sending.0),
                next: sent,
                header_key: HeaderKey::from_bytes(sending.1),
            }),
            previous_length,
            receiving: (received > 0).then(|| ReceivingChain {
                key: ChainKey::from_bytes(receiving.0),
                next: read,
                header_key: HeaderKey::from_bytes(receiving.1),
            }),
            next_sending_header,
            next_receiving_header,
            received,
            old: read_old_chains(old_chains, received)?,
            skipped,
        })))
    }
}

fn read_constants(record: &[u8]) -> Result<Constants, RecordError> {
    let mut record = Reader::new(record, CONSTANTS_LEN)?;
    let [role, mode] = *record.take::<2>()?;
    let features = Features::from_bits(record.number()?);
    if features.contains(Features::PQ_RATCHET) {
        return Err(RecordError::Range);
    }
    Ok(Constants {
        role: match role {
            1 => Role::Initiator,
            2 => Role::Responder,
            _ => return Err(RecordError::Range),
        },
        mode: match mode {
            1 => Mode::Pqxdh,
            2 => Mode::X3dh,
            _ => return Err(RecordError::Range),
        },
        features,
        transcript: TranscriptHash::from_bytes(*record.take()?),
        session: SessionId::from_bytes(*record.take()?),
    })
}

fn read_old_chains(record: &[u8], received: u32) -> Result<OldChains, RecordError> {
    let n = received
        .saturating_sub(1)
        .min(u32::try_from(OLD_CHAINS).unwrap_or(0));
    let length = usize::try_from(n)
        .unwrap_or(0)
        .saturating_mul(OLD_ENTRY_LEN)
        .saturating_add(OLD_HEAD_LEN);
    let mut record = Reader::new(record, length)?;
    let [given] = *record.take::<1>()?;
    if u32::from(given) != n {
        return Err(RecordError::Range);
    }
    let mut old = OldChains::new();
    for distance in (1..=n).rev() {
        let index = received
            .checked_sub(1)
            .and_then(|c| c.checked_sub(distance));
        if Some(record.number()?) != index {
            return Err(RecordError::Range);
        }
        old.push(HeaderKey::from_bytes(record.take()?));
    }
    Ok(old)
}

/// Whether a chain is written as one that does not exist.
fn absent((key, header): (&[u8; 32], &[u8; 32]), number: u32) -> bool {
    number == 0 && key == &[0; 32] && header == &[0; 32]
}

fn write(len: usize, parts: &[&[u8]]) -> Zeroizing<Vec<u8>> {
    let mut record = Zeroizing::new(Vec::with_capacity(len));
    for part in parts {
        record.extend_from_slice(part);
    }
    debug_assert_eq!(record.len(), len);
    record
}

/// What is left of a record.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// Checks version, then length.
    fn new(record: &'a [u8], len: usize) -> Result<Self, RecordError> {
        match record.split_first() {
            None => Err(RecordError::Length),
            Some((&version, _)) if version != VERSION => Err(RecordError::Version),
            Some(_) if record.len() != len => Err(RecordError::Length),
            Some((_, rest)) => Ok(Self(rest)),
        }
    }

    fn take<const N: usize>(&mut self) -> Result<&'a [u8; N], RecordError> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(RecordError::Length)?;
        self.0 = rest;
        Ok(taken)
    }

    fn number(&mut self) -> Result<u32, RecordError> {
        self.take().map(|bytes| u32::from_be_bytes(*bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::skipped::{Limits, NoSkippedKeys};
    use crate::testing::{pair, received, rng};
    use crate::{RecordError, SaltSource};

    /// Sessions of both roles after 0 to 8 turns.
    fn sessions() -> Vec<Session> {
        let mut rng = rng(1);
        let (mut from, mut to) = pair(&mut rng);
        let mut sessions = vec![from.clone(), to.clone()];
        for _ in 0..16 {
            let (next, message) = from.encrypt(b"text", SaltSource::Hedged(&mut rng)).unwrap();
            from = next;
            to = to
                .decrypt(
                    &received(&message),
                    &NoSkippedKeys,
                    Limits::ACCEPTED,
                    &mut rng,
                )
                .unwrap()
                .session;
            sessions.extend([from.clone(), to.clone()]);
            core::mem::swap(&mut from, &mut to);
        }
        sessions
    }

    fn reread(records: &SessionRecords) -> Result<Session, RecordError> {
        Session::from_records(&records.constants, &records.hot, &records.old_chains)
    }

    #[test]
    fn a_session_survives_being_stored() {
        for session in sessions() {
            let records = session.to_records();
            assert_eq!(records.constants.len(), CONSTANTS_LEN);
            assert_eq!(records.hot.len(), HOT_RECORD_LEN);
            let again = reread(&records).unwrap().to_records();
            assert_eq!(records.constants, again.constants);
            assert_eq!(records.hot, again.hot);
            assert_eq!(records.old_chains, again.old_chains);
        }
    }

    #[test]
    fn the_old_chains_are_written_ascending_with_the_last_before_the_current_one() {
        let session = sessions().pop().unwrap();
        let state = session.export();
        let indices: Vec<_> = state.old.iter().map(|(index, _)| *index).collect();
        let expected: Vec<_> = (state.c - 6..state.c - 1).collect();
        assert_eq!(indices, expected);
        assert_eq!(session.old_chains_record().len(), 2 + 5 * 36);
    }

    #[test]
    fn every_other_length_is_refused() {
        for session in sessions() {
            let records = session.to_records();
            for change in 0..3 {
                for longer in [false, true] {
                    let mut damaged = records.clone();
                    let record = match change {
                        0 => &mut damaged.constants,
                        1 => &mut damaged.hot,
                        _ => &mut damaged.old_chains,
                    };
                    if longer {
                        record.push(0);
                    } else {
                        record.pop();
                    }
                    assert_eq!(reread(&damaged).unwrap_err(), RecordError::Length);
                }
            }
            let records = session.to_records();
            let result = Session::from_records(&records.constants, &records.hot, &[]);
            assert_eq!(result.unwrap_err(), RecordError::Length);
        }
    }

    #[test]
    fn every_other_version_is_refused() {
        let records = sessions().pop().unwrap().to_records();
        for version in [0, 2, 255] {
            for change in 0..3 {
                let mut damaged = records.clone();
                match change {
                    0 => damaged.constants[0] = version,
                    1 => damaged.hot[0] = version,
                    _ => damaged.old_chains[0] = version,
                }
                assert_eq!(reread(&damaged).unwrap_err(), RecordError::Version);
            }
        }
    }

    #[test]
    fn fields_out_of_range_are_refused() {
        let sessions = sessions();
        let started = sessions.last().unwrap().to_records();
        let responder = sessions[1].to_records();
        let initiator = sessions[0].to_records();
        let refused = |records: &SessionRecords, change: &dyn Fn(&mut SessionRecords)| {
            let mut damaged = records.clone();
            change(&mut damaged);
            assert!(matches!(
                reread(&damaged),
                Err(RecordError::Range | RecordError::Length)
            ));
        };
        for role in [0, 3] {
            refused(&started, &|r| r.constants[1] = role);
        }
        for mode in [0, 3] {
            refused(&started, &|r| r.constants[2] = mode);
        }
        refused(&started, &|r| r.constants[6] |= 1); // PQ_RATCHET
        refused(&started, &|r| r.hot[33] ^= 1); // clamping
        refused(&started, &|r| r.hot[64] ^= 0x80);
        refused(&started, &|r| r.hot[64] ^= 0x40);
        refused(&started, &|r| r.hot[65] = 6); // type of the public key
        refused(&started, &|r| r.hot[305] ^= 1); // c against the old chains
        refused(&started, &|r| r.old_chains[1] = 4);
        refused(&started, &|r| r.old_chains[5] ^= 1);
        for at in [162, 194, 226, 258, 293, 297, 301, 309] {
            refused(&responder, &|r| r.hot[at] = 1); // what a responder does not have yet
        }
        for at in [226, 258, 297, 301, 309] {
            refused(&initiator, &|r| r.hot[at] = 1);
        }
    }

    #[test]
    fn records_of_two_states_do_not_fit() {
        let sessions = sessions();
        let (early, late) = (sessions[4].to_records(), sessions[8].to_records());
        let mixed = Session::from_records(&late.constants, &late.hot, &early.old_chains);
        assert!(mixed.is_err());
    }

    #[test]
    fn no_damaged_byte_panics() {
        let records = sessions().pop().unwrap().to_records();
        for at in 0..records.hot.len() {
            for value in [0, 1, 0x7F, 0xFF] {
                let mut damaged = records.clone();
                damaged.hot[at] = value;
                if let Ok(session) = reread(&damaged) {
                    assert_eq!(session.to_records().hot, damaged.hot);
                }
            }
        }
    }
}
