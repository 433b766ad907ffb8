//! Fingerprints and safety numbers ("The protocol", appendix "Fingerprints").

use sha2::{Digest, Sha512};
use subtle::ConstantTimeEq;

use crate::{InvalidIterations, PublicKey};

/// Iterations that safety numbers are made with.
pub const SAFETY_ITERATIONS: u32 = 5_200;
/// Version of the scannable code.
pub const SAFETY_VERSION: u32 = 2;

/// One party's fingerprint: 64 bytes. Not secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fingerprint([u8; 64]);

impl Fingerprint {
    /// SHA-512, `iterations` times, over key and identifier.
    ///
    /// # Errors
    /// [`InvalidIterations`]: not 2 to 1,000,000.
    pub fn compute(
        iterations: u32,
        identifier: &[u8],
        key: &PublicKey,
    ) -> Result<Self, InvalidIterations> {
        if !(2..=1_000_000).contains(&iterations) {
            return Err(InvalidIterations);
        }
        let key = key.as_bytes();
        let first = Sha512::new()
            .chain_update([0, 0])
            .chain_update(key)
            .chain_update(identifier);
        let mut hash = first.chain_update(key).finalize();
        for _ in 1..iterations {
            hash = Sha512::new()
                .chain_update(hash)
                .chain_update(key)
                .finalize();
        }
        Ok(Self(hash.into()))
    }

    /// The 64 bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 64] {
        &self.0
    }

    /// The first 32 bytes, which a scannable code carries.
    #[must_use]
    pub fn scannable(&self) -> [u8; 32] {
        let mut head = [0; 32];
        head.iter_mut()
            .zip(self.0)
            .for_each(|(to, from)| *to = from);
        head
    }

    /// 30 digits: six groups of five, each 40 bits mod 100,000.
    #[must_use]
    pub fn digits(&self) -> String {
        let groups = self.0.chunks_exact(5).take(6);
        let number = |group: &[u8]| {
            group
                .iter()
                .fold(0u64, |number, byte| number << 8 | u64::from(*byte))
        };
        groups
            .map(|group| format!("{:05}", number(group) % 100_000))
            .collect()
    }
}

/// The fingerprints of two parties, to be compared by eye or by camera.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SafetyNumber {
    ours: Fingerprint,
    theirs: Fingerprint,
}

impl SafetyNumber {
    /// From both fingerprints.
    #[must_use]
    pub fn new(ours: Fingerprint, theirs: Fingerprint) -> Self {
        Self { ours, theirs }
    }

    /// Our half.
    #[must_use]
    pub fn ours(&self) -> &Fingerprint {
        &self.ours
    }

    /// Their half.
    #[must_use]
    pub fn theirs(&self) -> &Fingerprint {
        &self.theirs
    }

    /// 60 digits, the same on both sides: the smaller half first.
    #[must_use]
    pub fn digits(&self) -> String {
        let (ours, theirs) = (self.ours.digits(), self.theirs.digits());
        if ours <= theirs {
            ours + &theirs
        } else {
            theirs + &ours
        }
    }

    /// Whether a code that the other side shows (their local and remote half, 32 bytes each) fits ours. Constant time.
    #[must_use]
    pub fn matches_scanned(&self, local: &[u8; 32], remote: &[u8; 32]) -> bool {
        let theirs = self.theirs.scannable().ct_eq(local);
        let ours = self.ours.scannable().ct_eq(remote);
        (theirs & ours).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(byte: u8) -> PublicKey {
        PublicKey::from_u(&[byte; 32])
    }

    fn number(ours: u8, theirs: u8) -> SafetyNumber {
        let of = |byte: u8| Fingerprint::compute(2, &[byte], &key(byte)).unwrap();
        SafetyNumber::new(of(ours), of(theirs))
    }

    #[test]
    fn iterations_out_of_bounds_are_refused() {
        for iterations in [0, 1, 1_000_001, u32::MAX] {
            assert_eq!(
                Fingerprint::compute(iterations, b"ann", &key(1)),
                Err(InvalidIterations)
            );
        }
        assert!(Fingerprint::compute(2, b"ann", &key(1)).is_ok());
    }

    #[test]
    fn iterations_identifier_and_key_change_it() {
        let of = |n, who: &[u8], byte| Fingerprint::compute(n, who, &key(byte)).unwrap();
        let ann = of(3, b"ann", 1);
        assert_ne!(ann, of(2, b"ann", 1));
        assert_ne!(ann, of(3, b"bob", 1));
        assert_ne!(ann, of(3, b"ann", 2));
        assert_eq!(ann.as_bytes()[..32], ann.scannable());
    }

    #[test]
    fn groups_keep_their_leading_zeros() {
        let mut bytes = [0; 64];
        (bytes[4], bytes[8], bytes[9]) = (7, 1, 0x86);
        bytes[10..15].fill(0xff);
        bytes[30..].fill(0xff);
        assert_eq!(
            Fingerprint(bytes).digits(),
            "000070039027775000000000000000"
        );
    }

    #[test]
    fn both_sides_show_the_same_sixty_digits() {
        assert_eq!(number(1, 2).digits(), number(2, 1).digits());
        assert_ne!(number(1, 2).digits(), number(1, 3).digits());
        assert_eq!(number(1, 2).digits().len(), 60);
        assert!(
            number(1, 2)
                .digits()
                .bytes()
                .all(|digit| digit.is_ascii_digit())
        );
    }

    #[test]
    fn a_scanned_code_fits_only_the_other_way_round() {
        let (ours, theirs) = (number(1, 2), number(2, 1));
        let (local, remote) = (theirs.ours().scannable(), theirs.theirs().scannable());
        assert!(ours.matches_scanned(&local, &remote));
        assert!(!ours.matches_scanned(&remote, &local));
        assert!(!number(1, 3).matches_scanned(&local, &remote));
        assert!(!number(3, 2).matches_scanned(&local, &remote));
        for at in 0..32 {
            let mut other = local;
            other[at] ^= 1;
            assert!(!ours.matches_scanned(&other, &remote));
            let mut other = remote;
            other[at] ^= 1;
            assert!(!ours.matches_scanned(&local, &other));
        }
    }
}
