//! A ring as bytes.

use zeroize::Zeroizing;

use super::{Entry, KeyRing, RingError, Secret, Stage};
use crate::KeyId;

/// ```text
/// format u8 = 1 ‖ u16 keys ‖ each, by ascending name:
///     u8 len ‖ name ‖ u16 versions ≥ 1 ‖ each, from version 1:
///         state u8 ‖ u64 created
///         1 current:   key(32)                              only the last
///         2 retired:   u64 retired ‖ key(32)
///         3 destroyed: u64 retired ‖ u64 destroyed
/// ```
impl KeyRing {
    /// The most bytes of an encoded ring: 4 MiB.
    pub const MAX_BYTES: usize = 1 << 22;

    /// The ring with all its keys. A secret: seal it before it goes anywhere.
    #[must_use]
    pub fn to_bytes(&self) -> Zeroizing<Vec<u8>> {
        // With this capacity the buffer never moves, which would leave copies of keys behind.
        let size =
            |(id, entries): (&KeyId, &Vec<Entry>)| 3 + id.as_str().len() + 49 * entries.len();
        let size = 3 + self.keys.iter().map(size).sum::<usize>();
        let mut out = Zeroizing::new(Vec::with_capacity(size));
        out.push(FORMAT);
        out.extend_from_slice(&short(self.keys.len()));
        for (id, entries) in &self.keys {
            let name = id.as_str().as_bytes();
            out.push(u8::try_from(name.len()).unwrap_or(u8::MAX));
            out.extend_from_slice(name);
            out.extend_from_slice(&short(entries.len()));
            for entry in entries {
                put(&mut out, entry);
            }
        }
        out
    }

    /// Reads a ring, strictly: of each ring there is one encoding.
    ///
    /// # Errors
    ///
    /// [`RingError::UnknownVersion`], [`RingError::Malformed`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, RingError> {
        let mut rest = bytes;
        match take::<1>(&mut rest)? {
            [FORMAT] => {}
            [0] => return Err(RingError::Malformed),
            _ => return Err(RingError::UnknownVersion),
        }
        let mut ring = Self::new();
        let keys = u16::from_be_bytes(take(&mut rest)?);
        if usize::from(keys) > Self::MAX_KEYS || bytes.len() > Self::MAX_BYTES {
            return Err(RingError::Malformed);
        }
        for _ in 0..keys {
            let id = take_id(&mut rest)?;
            if ring
                .keys
                .last_key_value()
                .is_some_and(|(last, _)| *last >= id)
            {
                return Err(RingError::Malformed);
            }
            let count = u16::from_be_bytes(take(&mut rest)?);
            if count == 0 || usize::from(count) > Self::MAX_VERSIONS {
                return Err(RingError::Malformed);
            }
            let mut entries = Vec::new();
            for left in (0..count).rev() {
                entries.push(take_entry(&mut rest, left == 0)?);
            }
            if ring.total() + entries.len() > Self::MAX_TOTAL {
                return Err(RingError::Malformed);
            }
            ring.keys.insert(id, entries);
        }
        if rest.is_empty() {
            Ok(ring)
        } else {
            Err(RingError::Malformed)
        }
    }
}

fn put(out: &mut Vec<u8>, entry: &Entry) {
    let (state, times, key) = match &entry.stage {
        Stage::Current(key) => (CURRENT, vec![], Some(key)),
        Stage::Retired(key, at) => (RETIRED, vec![*at], Some(key)),
        Stage::Destroyed {
            retired_ms,
            destroyed_ms,
        } => (DESTROYED, vec![*retired_ms, *destroyed_ms], None),
    };
    out.push(state);
    out.extend_from_slice(&entry.created_ms.to_be_bytes());
    for time in times {
        out.extend_from_slice(&time.to_be_bytes());
    }
    if let Some(key) = key {
        out.extend_from_slice(key.as_slice());
    }
}

fn take_entry(rest: &mut &[u8], last: bool) -> Result<Entry, RingError> {
    let [state] = take(rest)?;
    let created_ms = time(rest)?;
    let stage = match state {
        CURRENT if last => Stage::Current(take_key(rest)?),
        RETIRED => {
            let at = time(rest)?;
            Stage::Retired(take_key(rest)?, at)
        }
        DESTROYED => Stage::Destroyed {
            retired_ms: time(rest)?,
            destroyed_ms: time(rest)?,
        },
        _ => return Err(RingError::Malformed),
    };
    Ok(Entry { created_ms, stage })
}

fn take_key(rest: &mut &[u8]) -> Result<Secret, RingError> {
    let (key, after) = rest.split_first_chunk::<32>().ok_or(RingError::Malformed)?;
    *rest = after;
    Ok(Box::new(Zeroizing::new(*key)))
}

fn take_id(rest: &mut &[u8]) -> Result<KeyId, RingError> {
    let [len] = take(rest)?;
    let name = rest.split_at_checked(usize::from(len));
    let (name, after) = name.ok_or(RingError::Malformed)?;
    *rest = after;
    let name = std::str::from_utf8(name).map_err(|_| RingError::Malformed)?;
    KeyId::new(name).map_err(|_| RingError::Malformed)
}

fn time(rest: &mut &[u8]) -> Result<u64, RingError> {
    take(rest).map(u64::from_be_bytes)
}

fn take<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], RingError> {
    let (field, after) = rest.split_first_chunk().ok_or(RingError::Malformed)?;
    *rest = after;
    Ok(*field)
}

/// Counts are bounded far below.
fn short(count: usize) -> [u8; 2] {
    u16::try_from(count).unwrap_or(u16::MAX).to_be_bytes()
}

const FORMAT: u8 = 1;
const CURRENT: u8 = 1;
const RETIRED: u8 = 2;
const DESTROYED: u8 = 3;

#[cfg(test)]
mod tests {
    use rand_chacha::rand_core::SeedableRng;

    use super::*;
    use crate::KeyVersion;

    /// A ring with a version in each state.
    fn sample() -> KeyRing {
        let mut ring = KeyRing::new();
        let (a, b) = (KeyId::new("a").unwrap(), KeyId::new("b").unwrap());
        let mut rng: rand_chacha::ChaCha20Rng = SeedableRng::from_seed([5; 32]);
        ring.import(&a, &[0x11; 32], 1).unwrap();
        ring.rotate(&a, &mut rng, 2).unwrap();
        ring.rotate(&a, &mut rng, 3).unwrap();
        ring.destroy(&a, KeyVersion::FIRST, 4).unwrap();
        ring.import(&b, &[0x22; 32], 5).unwrap();
        ring.retire(&b, KeyVersion::FIRST, 6).unwrap();
        ring
    }

    #[test]
    fn the_golden_ring_still_opens() {
        let golden = concat!(
            "01",
            "0002", // format, keys
            "01",
            "61",
            "0002", // a, two versions
            "03",
            "0000000000000001",
            "0000000000000002",
            "0000000000000004",
            "01",
            "0000000000000003",
            "3333333333333333333333333333333333333333333333333333333333333333",
            "01",
            "62",
            "0001", // b
            "02",
            "0000000000000005",
            "0000000000000006",
            "2222222222222222222222222222222222222222222222222222222222222222",
        );
        let golden = hex::decode(golden).unwrap();
        let ring = KeyRing::from_bytes(&golden).unwrap();
        assert_eq!(*ring.to_bytes(), golden);
        let (a, b) = (KeyId::new("a").unwrap(), KeyId::new("b").unwrap());
        use crate::{KeySource, SourceError};
        assert_eq!(ring.current(&a).unwrap().as_bytes(), &[0x33; 32]);
        assert!(matches!(
            ring.by_version(&a, KeyVersion::FIRST),
            Err(SourceError::Destroyed)
        ));
        assert_eq!(
            ring.by_version(&b, KeyVersion::FIRST).unwrap().as_bytes(),
            &[0x22; 32]
        );
        assert!(matches!(ring.current(&b), Err(SourceError::NoCurrent)));
    }

    #[test]
    fn a_ring_is_read_as_it_was_written() {
        for ring in [KeyRing::new(), sample()] {
            let bytes = ring.to_bytes();
            assert_eq!(*KeyRing::from_bytes(&bytes).unwrap().to_bytes(), *bytes);
        }
    }

    #[test]
    fn whatever_is_read_is_written_the_same_and_no_cut_is_read() {
        let bytes = sample().to_bytes();
        for at in 0..bytes.len() {
            assert!(KeyRing::from_bytes(&bytes[..at]).is_err(), "cut at {at}");
            for bit in 0..8 {
                let mut flipped = bytes.to_vec();
                flipped[at] ^= 1 << bit;
                if let Ok(ring) = KeyRing::from_bytes(&flipped) {
                    assert_eq!(*ring.to_bytes(), flipped, "bit {bit} of byte {at}");
                }
            }
        }
        let longer = [bytes.as_slice(), &[0]].concat();
        assert_eq!(
            KeyRing::from_bytes(&longer).err(),
            Some(RingError::Malformed)
        );
    }

    #[test]
    fn what_no_ring_can_be_is_refused() {
        let key = "22".repeat(32);
        let current = format!("010000000000000000{key}");
        let retired = format!("0200000000000000000000000000000000{key}");
        let cases = [
            (String::new(), RingError::Malformed),
            ("000000".into(), RingError::Malformed),
            ("020000".into(), RingError::UnknownVersion),
            ("010401".into(), RingError::Malformed), // 1,025 keys
            ("01000101610000".into(), RingError::Malformed), // no version
            ("01000101611001".into(), RingError::Malformed), // 4,097 versions
            (
                format!("0100010161{:04x}{current}{retired}", 2),
                RingError::Malformed,
            ), // not the last
            (
                format!("0100010161{:04x}{current}{current}", 2),
                RingError::Malformed,
            ), // two
            (
                format!("01000101 61{:04x}04{key}", 1).replace(' ', ""),
                RingError::Malformed,
            ), // state
            (format!("010001012f0001{current}"), RingError::Malformed), // name
            (format!("010001000001{current}"), RingError::Malformed), // empty name
            (
                format!("01000201620001{current}01610001{current}"),
                RingError::Malformed,
            ), // order
            (
                format!("01000201610001{current}01610001{current}"),
                RingError::Malformed,
            ), // twice
        ];
        for (text, error) in cases {
            let bytes = hex::decode(&text).unwrap();
            assert_eq!(KeyRing::from_bytes(&bytes).err(), Some(error), "{text}");
        }
    }
}
