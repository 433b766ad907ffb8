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
