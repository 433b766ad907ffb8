//! The state of a job as bytes.

use super::{Counts, MAX_NAME, Phase, RotationError, State};
use crate::{KeyId, KeyVersion};

/// ```text
/// magic "SPKJ" ‖ format u8 = 1 ‖ phase u8 (1 running, 2 finished, 3 blocked) ‖ u8 len ‖ key name ‖ u32 target
/// u32 pass ‖ u64 seen ‖ u64 resealed ‖ u64 contended ‖ u64 failed (of this pass) ‖ u64 resealed in all passes
/// u8 0, or u8 1 ‖ u16 len ‖ cursor
/// ```
impl State {
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        let phase = match self.phase {
            Phase::Running => 1,
            Phase::Finished => 2,
            Phase::Blocked => 3,
        };
        let name = self.id.as_str().as_bytes();
        out.extend_from_slice(&[FORMAT, phase, u8::try_from(name.len()).unwrap_or(u8::MAX)]);
        out.extend_from_slice(name);
        out.extend_from_slice(&self.target.get().to_be_bytes());
        out.extend_from_slice(&self.pass.to_be_bytes());
        let Counts {
            seen,
            resealed,
            contended,
            failed,
        } = self.this_pass;
        for count in [seen, resealed, contended, failed, self.resealed] {
            out.extend_from_slice(&count.to_be_bytes());
        }
        match &self.cursor {
            None => out.push(0),
            Some(name) => {
                out.push(1);
                let len = u16::try_from(name.len()).unwrap_or(u16::MAX);
                out.extend_from_slice(&len.to_be_bytes());
                out.extend_from_slice(name);
            }
        }
        out
    }

    pub(super) fn from_bytes(bytes: &[u8]) -> Result<Self, RotationError> {
        let mut rest = bytes.strip_prefix(MAGIC).ok_or(RotationError::Malformed)?;
        let rest = &mut rest;
        match take::<1>(rest)? {
            [FORMAT] => {}
            [0] => return Err(RotationError::Malformed),
            _ => return Err(RotationError::UnknownVersion),
        }
        let phase = match take(rest)? {
            [1] => Phase::Running,
            [2] => Phase::Finished,
            [3] => Phase::Blocked,
            _ => return Err(RotationError::Malformed),
        };
        let [len] = take(rest)?;
        let id = std::str::from_utf8(split(rest, usize::from(len))?);
        let id = id.ok().and_then(|id| KeyId::new(id).ok());
        let id = id.ok_or(RotationError::Malformed)?;
        let target = KeyVersion::new(u32::from_be_bytes(take(rest)?));
        let target = target.ok_or(RotationError::Malformed)?;
        let pass = u32::from_be_bytes(take(rest)?);
        if pass == 0 {
            return Err(RotationError::Malformed);
        }
        let this_pass = Counts {
            seen: count(rest)?,
            resealed: count(rest)?,
            contended: count(rest)?,
            failed: count(rest)?,
        };
        let resealed = count(rest)?;
        let cursor = match take(rest)? {
            [0] => None,
            [1] => {
                let len = usize::from(u16::from_be_bytes(take(rest)?));
                if len > MAX_NAME {
                    return Err(RotationError::Malformed);
                }
                Some(split(rest, len)?.to_vec())
            }
            _ => return Err(RotationError::Malformed),
        };
        if !rest.is_empty() {
            return Err(RotationError::Malformed);
        }
        Ok(Self {
            id,
            target,
            phase,
            pass,
            cursor,
            this_pass,
            resealed,
        })
    }
}

/// Reads the journal of a job as [`RotationJob::begin`](crate::RotationJob::begin) does, and writes it again: the same
/// bytes, or `None` if it is none. For fuzzing.
#[doc(hidden)]
#[must_use]
pub fn reread_journal(bytes: &[u8]) -> Option<Vec<u8>> {
    Some(State::from_bytes(bytes).ok()?.to_bytes())
}

fn count(rest: &mut &[u8]) -> Result<u64, RotationError> {
    take(rest).map(u64::from_be_bytes)
}

fn take<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], RotationError> {
    let (field, after) = rest.split_first_chunk().ok_or(RotationError::Malformed)?;
    *rest = after;
    Ok(*field)
}

fn split<'a>(rest: &mut &'a [u8], len: usize) -> Result<&'a [u8], RotationError> {
    let (field, after) = rest.split_at_checked(len).ok_or(RotationError::Malformed)?;
    *rest = after;
    Ok(field)
}

const MAGIC: &[u8] = b"SPKJ";
const FORMAT: u8 = 1;

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(cursor: Option<&[u8]>) -> State {
        State {
            id: KeyId::new("main").unwrap(),
            target: KeyVersion::new(7).unwrap(),
            phase: Phase::Blocked,
            pass: 2,
            cursor: cursor.map(<[u8]>::to_vec),
            this_pass: Counts {
                seen: 5,
                resealed: 4,
                contended: 3,
                failed: 1,
            },
            resealed: 9,
        }
    }

    #[test]
    fn the_golden_journal_is_still_read() {
        let golden = concat!(
            "53504b4a",
            "01",
            "03",
            "046d61696e",
            "00000007",
            "00000002",
            "0000000000000005",
            "0000000000000004",
            "0000000000000003",
            "0000000000000001",
            "0000000000000009",
            "01000378797a"
        );
        let state = sample(Some(b"xyz"));
        assert_eq!(hex::encode(state.to_bytes()), golden);
        let golden = hex::decode(golden).unwrap();
        assert_eq!(State::from_bytes(&golden).unwrap(), state);
    }

    #[test]
    fn whatever_is_read_is_written_the_same_and_no_cut_is_read() {
        for state in [sample(None), sample(Some(b"")), sample(Some(b"a/b"))] {
            let bytes = state.to_bytes();
            assert_eq!(State::from_bytes(&bytes).unwrap(), state);
            for at in 0..bytes.len() {
                assert!(State::from_bytes(&bytes[..at]).is_err(), "cut at {at}");
                for bit in 0..8 {
                    let mut flipped = bytes.clone();
                    flipped[at] ^= 1 << bit;
                    if let Some(again) = reread_journal(&flipped) {
                        assert_eq!(again, flipped, "bit {bit} of byte {at}");
                    }
                }
            }
            let longer = [bytes.as_slice(), &[0]].concat();
            assert!(State::from_bytes(&longer).is_err());
        }
    }

    #[test]
    fn a_journal_of_a_later_version_is_told_apart() {
        let mut bytes = sample(None).to_bytes();
        bytes[4] = 2;
        assert!(matches!(
            State::from_bytes(&bytes),
            Err(RotationError::UnknownVersion)
        ));
        bytes[4] = 0;
        assert!(matches!(
            State::from_bytes(&bytes),
            Err(RotationError::Malformed)
        ));
    }
}
