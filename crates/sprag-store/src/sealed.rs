//! Sealed values, and the digest over all of them.
//!
//! ```text
//! value = seal(rows key, "Sprag/1 store row", AD = schema u16 ‖ physical name, plaintext)         32 bytes longer
//! plaintext = 0 ‖ value            a row without an owner
//!           | 1 ‖ inner(16) ‖ value
//! ```

use std::collections::BTreeMap;

use rand_core::CryptoRng;
use sprag_crypto::{SealKey, hmac};
use zeroize::Zeroizing;

use crate::blind::{BLIND_LEN, Inner};
use crate::manifest::StoreKeys;
use crate::{StoreError, labels};

/// The version of names, seals and the meta row.
pub(crate) const SCHEMA: u16 = 1;

/// Where the meta row stands.
pub(crate) const META_KEY: &[u8] = &[0];

const DAMAGED: StoreError = StoreError::Damaged("a row does not open");

/// Seals and opens rows.
pub(crate) struct Sealer {
    rows: SealKey,
    digest: Zeroizing<[u8; 32]>,
}

/// An opened row.
pub(crate) struct Opened {
    plaintext: Zeroizing<Vec<u8>>,
    pub(crate) inner: Option<Inner>,
}

impl Opened {
    fn header_len(&self) -> usize {
        self.inner.map_or(1, |inner| 1 + inner.len())
    }

    pub(crate) fn value(&self) -> &[u8] {
        self.plaintext.get(self.header_len()..).unwrap_or_default()
    }

    pub(crate) fn into_value(mut self) -> Zeroizing<Vec<u8>> {
        let header = self.header_len();
        self.plaintext.drain(..header);
        self.plaintext
    }
}

impl Sealer {
    pub(crate) fn new(keys: &StoreKeys) -> Self {
        Self {
            rows: SealKey::from_bytes(&keys.of_epoch(labels::ROWS)),
            digest: keys.of_epoch(labels::DIGEST),
        }
    }

    pub(crate) fn seal(
        &self,
        key: &[u8],
        inner: Option<&Inner>,
        value: &[u8],
        rng: &mut (impl CryptoRng + ?Sized),
    ) -> Vec<u8> {
        let mut plaintext = Zeroizing::new(Vec::with_capacity(1 + BLIND_LEN + value.len()));
        plaintext.push(u8::from(inner.is_some()));
        plaintext.extend_from_slice(inner.map_or(&[], |inner| inner.as_slice()));
        plaintext.extend_from_slice(value);
        self.rows
            .seal(labels::ROW, &associated(key), &plaintext, rng)
    }

    pub(crate) fn open(&self, key: &[u8], sealed: &[u8]) -> Result<Opened, StoreError> {
        let plaintext = self
            .rows
            .open(labels::ROW, &associated(key), sealed)
            .map_err(|_| DAMAGED)?;
        let inner = match plaintext.split_first().ok_or(DAMAGED)? {
            (0, _) => None,
            (1, rest) => Some(*rest.first_chunk().ok_or(DAMAGED)?),
            _ => return Err(DAMAGED),
        };
        Ok(Opened { plaintext, inner })
    }

    /// What one row adds to the digest.
    pub(crate) fn mark(&self, key: &[u8], sealed: &[u8]) -> Sum {
        let len = u32::try_from(key.len()).unwrap_or(u32::MAX).to_be_bytes();
        Sum::from_bytes(&hmac(self.digest.as_slice(), &[&len, key, sealed]))
    }
}

fn associated(key: &[u8]) -> Vec<u8> {
    [&SCHEMA.to_be_bytes(), key].concat()
}

/// A number modulo 2^256: four limbs, the lowest first.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Sum([u64; 4]);

impl Sum {
    fn from_bytes(bytes: &[u8; 32]) -> Self {
        let mut limbs = [0; 4];
        let (chunks, _) = bytes.as_chunks::<8>();
        for (limb, chunk) in limbs.iter_mut().zip(chunks) {
            *limb = u64::from_le_bytes(*chunk);
        }
        Self(limbs)
    }

    fn to_bytes(self) -> [u8; 32] {
        let mut bytes = [0; 32];
        let (chunks, _) = bytes.as_chunks_mut::<8>();
        for (chunk, limb) in chunks.iter_mut().zip(self.0) {
            *chunk = limb.to_le_bytes();
        }
        bytes
    }

    fn add(&mut self, other: Self) {
        let mut carry = false;
        for (ours, theirs) in self.0.iter_mut().zip(other.0) {
            (*ours, carry) = ours.carrying_add(theirs, carry);
        }
    }

    fn subtract(&mut self, other: Self) {
        let mut borrow = false;
        for (ours, theirs) in self.0.iter_mut().zip(other.0) {
            (*ours, borrow) = ours.borrowing_sub(theirs, borrow);
        }
    }
}

/// Per table how many rows there are, and the sum of their marks: whoever takes a row away, puts one in, swaps two or
/// brings an old one back changes it.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct Digest(BTreeMap<u8, (u64, Sum)>);

impl Digest {
    /// How many rows there are in all tables.
    #[cfg(not(target_arch = "wasm32"))]
    pub(crate) fn rows(&self) -> u64 {
        let counts = self.0.values().map(|(count, _)| *count);
        counts.fold(0, u64::saturating_add)
    }

    /// The tables in which another digest says something else: how many rows there are here, and there.
    #[cfg(any(feature = "sled", feature = "redb"))]
    pub(crate) fn compared(&self, other: &Self) -> BTreeMap<u8, (u64, u64)> {
        let count = |digest: &Self, table| digest.0.get(table).map_or(0, |(count, _)| *count);
        let tables = self.0.keys().chain(other.0.keys());
        tables
            .filter(|table| self.0.get(table) != other.0.get(table))
            .map(|table| (*table, (count(self, table), count(other, table))))
            .collect()
    }

    pub(crate) fn add(&mut self, table: u8, mark: Sum) {
        let (count, sum) = self.0.entry(table).or_default();
        *count = count.wrapping_add(1);
        sum.add(mark);
    }

    pub(crate) fn subtract(&mut self, table: u8, mark: Sum) {
        let (count, sum) = self.0.entry(table).or_default();
        *count = count.wrapping_sub(1);
        sum.subtract(mark);
        if *count == 0 && *sum == Sum::default() {
            self.0.remove(&table);
        }
    }
}

/// The meta row: schema u16 ‖ commit sequence u64 ‖ store-wide digest, 41 bytes for each table that has rows.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Meta {
    pub(crate) sequence: u64,
    pub(crate) digest: Digest,
}

impl Meta {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(10 + 41 * self.digest.0.len());
        bytes.extend_from_slice(&SCHEMA.to_be_bytes());
        bytes.extend_from_slice(&self.sequence.to_be_bytes());
        for (table, (count, sum)) in &self.digest.0 {
            bytes.push(*table);
            bytes.extend_from_slice(&count.to_be_bytes());
            bytes.extend_from_slice(&sum.to_bytes());
        }
        bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, StoreError> {
        const DAMAGED: StoreError = StoreError::Damaged("meta row");
        let (schema, rest) = bytes.split_first_chunk().ok_or(DAMAGED)?;
        if u16::from_be_bytes(*schema) != SCHEMA {
            return Err(StoreError::UnsupportedVersion);
        }
        let (sequence, rest) = rest.split_first_chunk().ok_or(DAMAGED)?;
        let (entries, []) = rest.as_chunks::<41>() else {
            return Err(DAMAGED);
        };
        let mut digest = Digest::default();
        for entry in entries {
            let (table, entry) = entry.split_first().ok_or(DAMAGED)?;
            let (count, sum) = entry.split_first_chunk().ok_or(DAMAGED)?;
            let sum = Sum::from_bytes(sum.first_chunk().ok_or(DAMAGED)?);
            digest.0.insert(*table, (u64::from_be_bytes(*count), sum));
        }
        Ok(Self {
            sequence: u64::from_be_bytes(*sequence),
            digest,
        })
    }
}

#[cfg(test)]
mod tests {
    use rand_chacha::ChaCha20Rng;
    use rand_chacha::rand_core::SeedableRng;

    use super::*;

    fn sealer() -> (Sealer, ChaCha20Rng) {
        let mut rng = ChaCha20Rng::from_seed([5; 32]);
        (Sealer::new(&StoreKeys::generate(&mut rng)), rng)
    }

    #[test]
    fn row_opens_under_its_own_name_only() {
        let (sealer, mut rng) = sealer();
        for inner in [None, Some([7; BLIND_LEN])] {
            for value in [&b""[..], b"value"] {
                let sealed = sealer.seal(b"\x10name", inner.as_ref(), value, &mut rng);
                let opened = sealer.open(b"\x10name", &sealed).unwrap();
                assert_eq!((opened.inner, opened.value()), (inner, value));
                assert_eq!(**opened.into_value(), *value);
                assert!(sealer.open(b"\x10nam", &sealed).is_err());
                assert!(sealer.open(b"\x11name", &sealed).is_err());
                assert!(
                    sealer
                        .open(b"\x10name", &sealed[..sealed.len() - 1])
                        .is_err()
                );
                assert!(sealer.open(b"\x10name", &[]).is_err());
            }
        }
    }

    #[test]
    fn largest_row_stays_below_the_limit_of_the_backend() {
        let (sealer, mut rng) = sealer();
        let sealed = sealer.seal(
            b"\x10",
            Some(&[0; BLIND_LEN]),
            &[0; crate::MAX_ROW],
            &mut rng,
        );
        assert!(sealed.len() <= crate::MAX_SEALED);
    }

    #[test]
    fn digest_does_not_depend_on_order_and_forgets_what_is_taken_out() {
        let (sealer, _) = sealer();
        let marks: Vec<Sum> = (0..50_u8).map(|n| sealer.mark(&[1, n], &[n])).collect();
        let mut forth = Digest::default();
        let mut back = Digest::default();
        marks.iter().for_each(|mark| forth.add(1, *mark));
        marks.iter().rev().for_each(|mark| back.add(1, *mark));
        assert!(forth == back);
        marks.iter().for_each(|mark| forth.subtract(1, *mark));
        assert!(forth == Digest::default());
        back.subtract(1, marks[0]);
        back.add(1, sealer.mark(&[1, 0], &[99]));
        assert!(forth != back);
    }

    #[test]
    fn sums_carry_and_borrow_through_all_limbs() {
        let mut sum = Sum([u64::MAX; 4]);
        sum.add(Sum([1, 0, 0, 0]));
        assert!(sum == Sum::default());
        sum.subtract(Sum([1, 0, 0, 0]));
        assert!(sum == Sum([u64::MAX; 4]));
    }

    #[test]
    fn meta_row_reads_back_and_refuses_what_is_cut_or_newer() {
        let (sealer, _) = sealer();
        let mut digest = Digest::default();
        digest.add(1, sealer.mark(&[1], &[1]));
        digest.add(9, sealer.mark(&[9], &[1]));
        let meta = Meta {
            sequence: 77,
            digest,
        };
        let bytes = meta.encode();
        assert!(Meta::decode(&bytes).unwrap() == meta);
        for len in (0..bytes.len()).filter(|len| !matches!(len, 10 | 51)) {
            assert!(Meta::decode(&bytes[..len]).is_err(), "{len}");
        }
        let mut newer = bytes;
        newer[1] = 2;
        assert!(matches!(
            Meta::decode(&newer),
            Err(StoreError::UnsupportedVersion)
        ));
    }
}
