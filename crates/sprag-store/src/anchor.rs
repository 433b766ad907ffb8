//! Anchors: what remembers, outside of a store, how far it was.
//!
//! ```text
//! magic(8) "SPRAG\0an" ‖ version u16 ‖ store id(16) ‖ known u8 ‖ now(16) ‖ next(16) ‖ watermark u64
//! ‖ HMAC(HKDF(store id, names key, "Sprag/1 store anchor", 32), all of the above)(32)                        99 bytes
//! ```
//!
//! `known` is 0 in the first record of a store that had no anchor before; `now` is then zeros, and stands for none.

#![cfg_attr(
    target_arch = "wasm32",
    allow(dead_code, reason = "without threads nobody watches")
)]

#[cfg(any(feature = "sled", feature = "redb"))]
mod file;

use std::fmt;

use sprag_crypto::{hmac, hmac_is};
use zeroize::Zeroizing;

use crate::error::{Cause, StoreError};
use crate::labels;
use crate::manifest::StoreKeys;

#[cfg(any(feature = "sled", feature = "redb"))]
pub use file::FileAnchor;

const MAGIC: &[u8; 8] = b"SPRAG\0an";
const VERSION: u16 = 1;
const MAC_LEN: usize = 32;

/// What names one opening of a store.
pub(crate) type Nonce = [u8; 16];

/// A place outside of the profile that remembers one [`AnchorRecord`]: a file elsewhere, the keyring of the operating
/// system, a server. It is asked from a thread of its own, which may wait; never while a message does.
///
/// One place serves one store. Whoever can write to it can make the store ask its user for nothing, or set it back
/// together with the store; he learns nothing and can make no record that the store believes.
pub trait Anchor: Send + Sync + 'static {
    /// The record, or `None` if the place is there and holds none. That is an alarm if the store had one.
    ///
    /// # Errors
    ///
    /// [`AnchorError::Unreachable`] if the place cannot be asked now, which is no alarm; [`AnchorError::Foreign`] and
    /// [`AnchorError::UnknownVersion`] of [`AnchorRecord::from_bytes`].
    fn read(&self) -> Result<Option<AnchorRecord>, AnchorError>;

    /// Puts a record in the place of the one before. The place holds the one or the other whatever happens, and the new
    /// one for good when this returns.
    ///
    /// # Errors
    ///
    /// [`AnchorError::Unreachable`]; the record may be there all the same.
    fn write(&self, record: &AnchorRecord) -> Result<(), AnchorError>;
}

impl<A: Anchor + ?Sized> Anchor for std::sync::Arc<A> {
    fn read(&self) -> Result<Option<AnchorRecord>, AnchorError> {
        (**self).read()
    }

    fn write(&self, record: &AnchorRecord) -> Result<(), AnchorError> {
        (**self).write(record)
    }
}

/// Why an anchor did not answer.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum AnchorError {
    /// It is out of reach. The store goes on, and tries again.
    #[error("anchor is out of reach")]
    Unreachable(#[source] Cause),
    /// What is there is no record of a store. It is left as it is.
    #[error("what is in the place of the anchor is none")]
    Foreign,
    /// The record was written by a newer version. Update.
    #[error("anchor has an unknown version")]
    UnknownVersion,
}

impl AnchorError {
    /// Wraps the error of the medium.
    #[must_use]
    pub fn unreachable(cause: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self::Unreachable(std::sync::Arc::new(cause))
    }
}

/// What an anchor keeps: 99 bytes, no secret, believed by the store that made it alone.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct AnchorRecord([u8; Self::LEN]);

impl AnchorRecord {
    /// The size in bytes.
    pub const LEN: usize = MAGIC.len() + 2 + 16 + 1 + 16 + 16 + 8 + MAC_LEN;

    /// Reads a record. Whether it can be believed only the store knows.
    ///
    /// # Errors
    ///
    /// [`AnchorError::Foreign`] for bytes that are no record, [`AnchorError::UnknownVersion`] for one of a newer version.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, AnchorError> {
        let rest = bytes.strip_prefix(MAGIC).ok_or(AnchorError::Foreign)?;
        let (version, _) = rest.split_first_chunk().ok_or(AnchorError::Foreign)?;
        if u16::from_be_bytes(*version) != VERSION {
            return Err(AnchorError::UnknownVersion);
        }
        bytes.try_into().map(Self).map_err(|_| AnchorError::Foreign)
    }

    /// The bytes to keep.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; Self::LEN] {
        &self.0
    }

    /// The store that it is of, if it can be believed.
    #[must_use]
    pub fn store_id(&self) -> &[u8; 16] {
        const NOBODY: &[u8; 16] = &[0; 16];
        let id = self.0.get(MAGIC.len() + 2..);
        id.and_then(|rest| rest.first_chunk()).unwrap_or(NOBODY)
    }
}

impl fmt::Debug for AnchorRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AnchorRecord").finish_non_exhaustive()
    }
}

/// What a record says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mark {
    /// The opening before the one under way; `None` if the store had no anchor then.
    pub(crate) now: Option<Nonce>,
    /// The opening under way, or the last one.
    pub(crate) next: Nonce,
    /// A commit that was on stable storage.
    pub(crate) watermark: u64,
}

/// Makes and checks the records of one store.
pub(crate) struct Notary {
    store_id: [u8; 16],
    key: Zeroizing<[u8; 32]>,
}

impl Notary {
    pub(crate) fn new(keys: &StoreKeys) -> Self {
        Self {
            store_id: *keys.store_id(),
            key: keys.permanent(labels::ANCHOR),
        }
    }

    pub(crate) fn seal(&self, mark: &Mark) -> Result<AnchorRecord, StoreError> {
        let mut bytes = Vec::with_capacity(AnchorRecord::LEN);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&VERSION.to_be_bytes());
        bytes.extend_from_slice(&self.store_id);
        bytes.push(u8::from(mark.now.is_some()));
        bytes.extend_from_slice(&mark.now.unwrap_or_default());
        bytes.extend_from_slice(&mark.next);
        bytes.extend_from_slice(&mark.watermark.to_be_bytes());
        let mac = hmac(self.key.as_slice(), &[&bytes]);
        bytes.extend_from_slice(mac.as_slice());
        let bytes = bytes.try_into();
        bytes
            .map(AnchorRecord)
            .map_err(|_| StoreError::Internal("anchor record has another size"))
    }

    /// What a record of this store says; `None` if it is forged.
    ///
    /// # Errors
    ///
    /// [`StoreError::ForeignAnchor`] if it is another store's.
    pub(crate) fn open(&self, record: &AnchorRecord) -> Result<Option<Mark>, StoreError> {
        if *record.store_id() != self.store_id {
            return Err(StoreError::ForeignAnchor);
        }
        let genuine = record.0.split_last_chunk::<MAC_LEN>();
        let genuine =
            genuine.filter(|(content, mac)| hmac_is(self.key.as_slice(), &[content], mac));
        Ok(genuine.and_then(|(content, _)| read(content)))
    }
}

fn read(content: &[u8]) -> Option<Mark> {
    let (_, rest) = content.split_at_checked(MAGIC.len() + 2 + 16)?;
    let (known, rest) = rest.split_first()?;
    let (now, rest) = rest.split_first_chunk()?;
    let (next, rest) = rest.split_first_chunk()?;
    let watermark = rest.first_chunk()?;
    Some(Mark {
        now: match known {
            0 => None,
            1 => Some(*now),
            _ => return None,
        },
        next: *next,
        watermark: u64::from_be_bytes(*watermark),
    })
}

#[cfg(test)]
mod tests {
    use rand_chacha::ChaCha20Rng;
    use rand_chacha::rand_core::SeedableRng;

    use super::*;

    fn notary(seed: u8) -> Notary {
        Notary::new(&StoreKeys::generate(&mut ChaCha20Rng::from_seed(
            [seed; 32],
        )))
    }

    #[test]
    fn record_says_to_its_own_store_what_was_written_and_a_changed_one_nothing() {
        let notary = notary(1);
        for now in [None, Some([3; 16])] {
            let mark = Mark {
                now,
                next: [4; 16],
                watermark: 0x0102_0304_0506_0708,
            };
            let record = notary.seal(&mark).unwrap();
            let read = AnchorRecord::from_bytes(record.as_bytes()).unwrap();
            assert_eq!(notary.open(&read).unwrap(), Some(mark));
            // Behind magic, version and store id.
            for at in 26..AnchorRecord::LEN {
                let mut bytes = *record.as_bytes();
                bytes[at] ^= 1;
                let record = AnchorRecord::from_bytes(&bytes).unwrap();
                assert_eq!(notary.open(&record).unwrap(), None, "{at}");
            }
        }
    }

    #[test]
    fn what_is_no_record_and_what_is_of_another_store_or_version_is_told_apart() {
        let mark = Mark {
            now: None,
            next: [4; 16],
            watermark: 1,
        };
        let record = notary(1).seal(&mark).unwrap();
        assert!(matches!(
            notary(2).open(&record),
            Err(StoreError::ForeignAnchor)
        ));
        for len in 0..AnchorRecord::LEN {
            assert!(AnchorRecord::from_bytes(&record.as_bytes()[..len]).is_err());
        }
        let mut bytes = *record.as_bytes();
        bytes[9] = 2;
        assert!(matches!(
            AnchorRecord::from_bytes(&bytes),
            Err(AnchorError::UnknownVersion)
        ));
        bytes[0] = 0;
        assert!(matches!(
            AnchorRecord::from_bytes(&bytes),
            Err(AnchorError::Foreign)
        ));
        assert_eq!(format!("{record:?}"), "AnchorRecord { .. }");
    }

    #[test]
    fn record_has_the_bytes_that_the_text_draws() {
        let record = notary(1)
            .seal(&Mark {
                now: Some([3; 16]),
                next: [4; 16],
                watermark: 5,
            })
            .unwrap();
        let bytes = record.as_bytes();
        assert_eq!(AnchorRecord::LEN, 99);
        assert_eq!(&bytes[..10], b"SPRAG\0an\0\x01");
        assert_eq!(&bytes[26..43], [[1].as_slice(), &[3; 16]].concat());
        assert_eq!(
            &bytes[43..67],
            [[4; 16].as_slice(), &[0, 0, 0, 0, 0, 0, 0, 5]].concat()
        );
    }
}
