//! The scannable form of a safety number ("The protocol", appendix "Fingerprints").

use prost::Message;
use sprag_crypto::{SAFETY_VERSION, SafetyNumber};

use crate::generated::sprag::v1 as pb;

/// A code that one side shows and the other scans.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ScannableFingerprint {
    /// 2 in this protocol.
    pub version: u32,
    /// The half of the side that shows it.
    pub local: [u8; 32],
    /// The half of the other side.
    pub remote: [u8; 32],
}

/// Why a scanned code could not be compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ScanError {
    /// Not such a code.
    #[error("not a safety number code")]
    Malformed,
    /// Made by another version. One side must update.
    #[error("safety number code has version {theirs}, not {ours}")]
    #[non_exhaustive]
    VersionMismatch {
        /// Version of the scanned code.
        theirs: u32,
        /// Our version.
        ours: u32,
    },
}

impl ScannableFingerprint {
    /// The code that this side shows.
    #[must_use]
    pub fn of(number: &SafetyNumber) -> Self {
        Self {
            version: SAFETY_VERSION,
            local: number.ours().scannable(),
            remote: number.theirs().scannable(),
        }
    }

    /// The bytes of the code.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let half = |content: &[u8; 32]| {
            Some(pb::FingerprintHalf {
                content: content.to_vec(),
            })
        };
        let code = pb::ScannableFingerprint {
            version: self.version,
            local: half(&self.local),
            remote: half(&self.remote),
        };
        code.encode_to_vec()
    }

    /// Whether a scanned code fits `number`, in constant time.
    ///
    /// # Errors
    /// [`ScanError`].
    pub fn compare(number: &SafetyNumber, scanned: &[u8]) -> Result<bool, ScanError> {
        let code = pb::ScannableFingerprint::decode(scanned).map_err(|_| ScanError::Malformed)?;
        if code.version != SAFETY_VERSION {
            return Err(ScanError::VersionMismatch {
                theirs: code.version,
                ours: SAFETY_VERSION,
            });
        }
        let half = |half: Option<pb::FingerprintHalf>| {
            let half = half.ok_or(ScanError::Malformed)?;
            <[u8; 32]>::try_from(half.content.as_slice()).map_err(|_| ScanError::Malformed)
        };
        Ok(number.matches_scanned(&half(code.local)?, &half(code.remote)?))
    }
}

#[cfg(test)]
mod tests {
    use sprag_crypto::{Fingerprint, PublicKey};

    use super::*;

    fn number(swapped: bool) -> SafetyNumber {
        let key = PublicKey::from_bytes(&[5; 33]).unwrap();
        let [a, b] = [b"ann", b"ben"].map(|id| Fingerprint::compute(2, id, &key).unwrap());
        if swapped {
            SafetyNumber::new(b, a)
        } else {
            SafetyNumber::new(a, b)
        }
    }

    fn code(version: u32, local: Option<usize>, remote: Option<usize>) -> Vec<u8> {
        let half = |size: Option<usize>| {
            size.map(|size| pb::FingerprintHalf {
                content: vec![1; size],
            })
        };
        let (local, remote) = (half(local), half(remote));
        pb::ScannableFingerprint {
            version,
            local,
            remote,
        }
        .encode_to_vec()
    }

    #[test]
    fn the_other_sides_code_fits_and_ones_own_does_not() {
        let shown = ScannableFingerprint::of(&number(true)).encode();
        assert_eq!(
            ScannableFingerprint::compare(&number(false), &shown),
            Ok(true)
        );
        assert_eq!(
            ScannableFingerprint::compare(&number(true), &shown),
            Ok(false)
        );
        let strangers = code(2, Some(32), Some(32));
        assert_eq!(
            ScannableFingerprint::compare(&number(false), &strangers),
            Ok(false)
        );
    }

    #[test]
    fn another_version_is_told_with_its_number_and_a_missing_one_is_zero() {
        for theirs in [0, 1, 3] {
            let scanned = code(theirs, Some(32), None);
            let refused = ScannableFingerprint::compare(&number(false), &scanned);
            assert_eq!(refused, Err(ScanError::VersionMismatch { theirs, ours: 2 }));
        }
    }

    #[test]
    fn codes_that_are_broken_or_lack_a_half_are_malformed() {
        for scanned in [
            vec![0xff],
            code(2, None, None),
            code(2, None, Some(32)),
            code(2, Some(32), None),
            code(2, Some(31), Some(32)),
            code(2, Some(32), Some(33)),
            code(2, Some(0), Some(32)),
        ] {
            let refused = ScannableFingerprint::compare(&number(false), &scanned);
            assert_eq!(refused, Err(ScanError::Malformed), "{scanned:?}");
        }
    }
}
