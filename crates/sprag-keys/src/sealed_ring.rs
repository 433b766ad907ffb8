//! A ring as bytes that may lie anywhere.

use std::fmt;

use rand_core::CryptoRng;
use sprag_crypto::SealKey;

use crate::{DataKey, Envelope, Key, KeyError, KeyRing, KeySlot, RingError, SourceError};

/// What seals a ring, and says at its head how the key is had: from a [`Key`], or from a wrapped key that an
/// [`Envelope`] service opens.
///
/// ```text
/// magic 89 "SPKR" 0d 0a 1a ‖ format u8 = 1 ‖ opener
/// opener    1 ‖ key slot(29)      K = the unlock key that a Key gives in this slot
///           2 ‖ u16 len ‖ wrapped K
/// then      seal(K, "Sprag/1 key ring", ad = all before, ring)
/// ```
///
/// An old copy opens as well as the newest one: what must not go back needs a place that cannot.
pub struct RingSeal {
    head: Vec<u8>,
    key: SealKey,
}

/// What a ring is opened with.
#[derive(Clone, Copy)]
#[non_exhaustive]
pub enum Opener<'a> {
    /// A key, a passphrase, a key file, a variable.
    Key(&'a Key),
    /// A service that wraps keys. The wrapped key is kept with the ring.
    Envelope(&'a dyn Envelope),
}

impl<'a> From<&'a Key> for Opener<'a> {
    fn from(key: &'a Key) -> Self {
        Self::Key(key)
    }
}

impl<'a> From<&'a dyn Envelope> for Opener<'a> {
    fn from(service: &'a dyn Envelope) -> Self {
        Self::Envelope(service)
    }
}

impl fmt::Debug for Opener<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Key(_) => "Key(..)",
            Self::Envelope(_) => "Envelope(..)",
        })
    }
}

/// Why a sealed ring was not opened or written. The file, if there is one, is as it was.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum RingFileError {
    /// The ring refused the change.
    #[error(transparent)]
    Ring(#[from] RingError),
    /// The key that opens the ring could not be had; or the file could not, which is [`KeyError::NotFound`],
    /// [`KeyError::Exists`], [`KeyError::Permissions`] or [`KeyError::Io`].
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The service that opens the ring did not.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The bytes are not those of a sealed ring.
    #[error("not a sealed key ring")]
    Malformed,
    /// The ring was sealed by a later version of this library. Update.
    #[error("sealed key ring of a later version")]
    UnknownVersion,
    /// The ring is opened by a key where a service was given, or the other way round.
    #[error("key ring is opened in another way")]
    WrongOpener,
    /// The key is another one, or the bytes are damaged.
    #[error("key ring does not open with this key, or is damaged")]
    WrongKey,
    /// Another put a ring under another seal in its place. Open it anew.
    #[error("key ring was replaced by another")]
    Replaced,
}

impl RingSeal {
    /// The most bytes of a sealed ring.
    pub const MAX_BYTES: usize = KeyRing::MAX_BYTES + DataKey::MAX_WRAPPED + 64;

    /// A new seal. Draws 16 bytes for a key, none for a service.
    ///
    /// # Errors
    ///
    /// [`RingFileError::Key`], [`RingFileError::Source`].
    pub fn new<'a>(
        opener: impl Into<Opener<'a>>,
        rng: &mut (impl CryptoRng + ?Sized),
    ) -> Result<Self, RingFileError> {
        let mut head = [MAGIC, &[FORMAT]].concat();
        let key = match opener.into() {
            Opener::Key(key) => {
                let (slot, unlock) = key.new_slot(rng)?;
                head.push(BY_KEY);
                head.extend_from_slice(&slot.to_bytes());
                SealKey::from_bytes(unlock.as_bytes())
            }
            Opener::Envelope(service) => {
                let data = service.generate()?;
                let len = u16::try_from(data.wrapped().len()).unwrap_or(u16::MAX);
                head.push(BY_SERVICE);
                head.extend_from_slice(&len.to_be_bytes());
                head.extend_from_slice(data.wrapped());
                SealKey::from_bytes(data.as_bytes())
            }
        };
        Ok(Self { head, key })
    }

    /// Seals a ring. Draws 16 bytes.
    #[must_use]
    pub fn seal(&self, ring: &KeyRing, rng: &mut (impl CryptoRng + ?Sized)) -> Vec<u8> {
        let sealed = self.key.seal(LABEL, &self.head, &ring.to_bytes(), rng);
        [self.head.as_slice(), &sealed].concat()
    }

    /// Opens a sealed ring, and gives the seal to write it again with.
    ///
    /// # Errors
    ///
    /// [`RingFileError`].
    pub fn open<'a>(
        sealed: &[u8],
        opener: impl Into<Opener<'a>>,
    ) -> Result<(Self, KeyRing), RingFileError> {
        let (head, kept, sealed) = split(sealed)?;
        let key = match (kept, opener.into()) {
            (Kept::Slot(slot), Opener::Key(key)) => {
                SealKey::from_bytes(key.unlock(&KeySlot::from_bytes(slot)?)?.as_bytes())
            }
            (Kept::Wrapped(wrapped), Opener::Envelope(service)) => {
                SealKey::from_bytes(&*service.unwrap(wrapped)?)
            }
            _ => return Err(RingFileError::WrongOpener),
        };
        let head = head.to_vec();
        let seal = Self { head, key };
        let ring = seal.open_sealed(sealed)?;
        Ok((seal, ring))
    }

    /// Opens what was sealed with this very seal, without asking the opener again.
    ///
    /// # Errors
    ///
    /// [`RingFileError::Replaced`] if it was sealed with another; [`RingFileError`].
    pub fn reopen(&self, sealed: &[u8]) -> Result<KeyRing, RingFileError> {
        let (head, _, sealed) = split(sealed)?;
        if head != self.head {
            return Err(RingFileError::Replaced);
        }
        self.open_sealed(sealed)
    }

    fn open_sealed(&self, sealed: &[u8]) -> Result<KeyRing, RingFileError> {
        let ring = self.key.open(LABEL, &self.head, sealed);
        let ring = ring.map_err(|_| RingFileError::WrongKey)?;
        Ok(KeyRing::from_bytes(&ring)?)
    }
}

impl fmt::Debug for RingSeal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RingSeal").finish_non_exhaustive()
    }
}

enum Kept<'a> {
    Slot(&'a [u8; KeySlot::LEN]),
    Wrapped(&'a [u8]),
}

/// Head, what the head keeps, and the seal.
fn split(bytes: &[u8]) -> Result<(&[u8], Kept<'_>, &[u8]), RingFileError> {
    let malformed = RingFileError::Malformed;
    if bytes.len() > RingSeal::MAX_BYTES {
        return Err(malformed);
    }
    let after = bytes.strip_prefix(MAGIC).ok_or(malformed.clone())?;
    let (format, after) = after.split_first().ok_or(malformed.clone())?;
    match *format {
        FORMAT => {}
        0 => return Err(malformed),
        _ => return Err(RingFileError::UnknownVersion),
    }
    let (kept, sealed) = match after.split_first().ok_or(malformed.clone())? {
        (&BY_KEY, after) => {
            let (slot, sealed) = after.split_first_chunk().ok_or(malformed)?;
            (Kept::Slot(slot), sealed)
        }
        (&BY_SERVICE, after) => {
            let (len, after) = after.split_first_chunk().ok_or(malformed.clone())?;
            let len = usize::from(u16::from_be_bytes(*len));
            if len == 0 || len > DataKey::MAX_WRAPPED {
                return Err(malformed);
            }
            let (wrapped, sealed) = after.split_at_checked(len).ok_or(malformed)?;
            (Kept::Wrapped(wrapped), sealed)
        }
        _ => return Err(malformed),
    };
    let head = bytes.len().saturating_sub(sealed.len());
    let head = bytes.get(..head).ok_or(RingFileError::Malformed)?;
    Ok((head, kept, sealed))
}

const MAGIC: &[u8] = b"\x89SPKR\r\n\x1a";
const FORMAT: u8 = 1;
const BY_KEY: u8 = 1;
const BY_SERVICE: u8 = 2;
const LABEL: &[u8] = b"Sprag/1 key ring";

#[cfg(test)]
mod tests {
    use rand_chacha::ChaCha20Rng;
    use rand_chacha::rand_core::SeedableRng;
    use zeroize::Zeroizing;

    use super::*;
    use crate::{KeyId, KeySource};

    /// Wraps by adding 1 to each byte: enough to tell a wrapped key from a key.
    struct Service(u8);

    impl Envelope for Service {
        fn generate(&self) -> Result<DataKey, SourceError> {
            DataKey::new(Zeroizing::new([self.0; 32]), vec![self.0 + 1; 40])
        }

        fn unwrap(&self, wrapped: &[u8]) -> Result<Zeroizing<[u8; 32]>, SourceError> {
            if wrapped == [self.0 + 1; 40] {
                Ok(Zeroizing::new([self.0; 32]))
            } else {
                Err(SourceError::Malformed)
            }
        }
    }

    fn rng() -> ChaCha20Rng {
        ChaCha20Rng::from_seed([6; 32])
    }

    fn ring() -> KeyRing {
        let mut ring = KeyRing::new();
        ring.import(&id(), &[0x11; 32], 1).unwrap();
        ring
    }

    fn id() -> KeyId {
        KeyId::new("main").unwrap()
    }

    #[test]
    fn the_golden_sealed_ring_still_opens() {
        let golden = hex::decode(include_str!("sealed_ring_golden.hex").trim()).unwrap();
        let key = Key::raw([0x42; 32]);
        let (_, ring) = RingSeal::open(&golden, &key).unwrap();
        assert_eq!(ring.current(&id()).unwrap().as_bytes(), &[0x11; 32]);
        let mut rng = rng();
        let seal = RingSeal::new(&key, &mut rng).unwrap();
        let again = seal.seal(&ring, &mut rng);
        assert_eq!(hex::encode(again), hex::encode(golden));
    }

    #[test]
    fn a_ring_opens_with_its_key_and_no_other() {
        let mut rng = rng();
        let (key, other) = (Key::raw([1; 32]), Key::raw([2; 32]));
        let sealed = RingSeal::new(&key, &mut rng)
            .unwrap()
            .seal(&ring(), &mut rng);
        let (seal, opened) = RingSeal::open(&sealed, &key).unwrap();
        assert_eq!(*opened.to_bytes(), *ring().to_bytes());
        assert_eq!(
            *seal.reopen(&sealed).unwrap().to_bytes(),
            *ring().to_bytes()
        );
        assert!(matches!(
            RingSeal::open(&sealed, &other),
            Err(RingFileError::WrongKey)
        ));
        assert!(matches!(
            RingSeal::open(&sealed, &Key::passphrase("x")),
            Err(RingFileError::Key(KeyError::WrongKind))
        ));
        let service: &dyn Envelope = &Service(1);
        assert!(matches!(
            RingSeal::open(&sealed, service),
            Err(RingFileError::WrongOpener)
        ));
    }

    #[test]
    fn the_wrapped_key_is_kept_with_the_ring_and_its_service_alone_opens_it() {
        let mut rng = rng();
        let (service, other): (&dyn Envelope, &dyn Envelope) = (&Service(1), &Service(5));
        let sealed = RingSeal::new(service, &mut rng)
            .unwrap()
            .seal(&ring(), &mut rng);
        assert!(sealed.windows(40).any(|part| part == [2; 40]));
        let (_, opened) = RingSeal::open(&sealed, service).unwrap();
        assert_eq!(*opened.to_bytes(), *ring().to_bytes());
        assert!(matches!(
            RingSeal::open(&sealed, other),
            Err(RingFileError::Source(SourceError::Malformed))
        ));
        assert!(matches!(
            RingSeal::open(&sealed, &Key::raw([1; 32])),
            Err(RingFileError::WrongOpener)
        ));
    }

    #[test]
    fn no_flipped_bit_and_no_cut_opens() {
        let mut rng = rng();
        let key = Key::raw([1; 32]);
        let sealed = RingSeal::new(&key, &mut rng)
            .unwrap()
            .seal(&ring(), &mut rng);
        for at in 0..sealed.len() {
            assert!(RingSeal::open(&sealed[..at], &key).is_err(), "cut at {at}");
            for bit in 0..8 {
                let mut flipped = sealed.clone();
                flipped[at] ^= 1 << bit;
                assert!(
                    RingSeal::open(&flipped, &key).is_err(),
                    "bit {bit} of byte {at}"
                );
            }
        }
        let mut later = sealed.clone();
        later[8] = 2;
        assert!(matches!(
            RingSeal::open(&later, &key),
            Err(RingFileError::UnknownVersion)
        ));
        assert!(matches!(
            RingSeal::open(b"", &key),
            Err(RingFileError::Malformed)
        ));
        let endless = [sealed.as_slice(), &vec![0; RingSeal::MAX_BYTES]].concat();
        assert!(matches!(
            RingSeal::open(&endless, &key),
            Err(RingFileError::Malformed)
        ));
    }
}
