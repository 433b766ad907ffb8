//! Keys and key services, for the slots of the vault's blobs.

use std::fmt;

use rand_core::CryptoRng;
use sprag_crypto::SealKey;
use sprag_vault::{DataKey, Kms, KmsError};
use zeroize::Zeroizing;

use crate::{Envelope, KeyId, KeySource, KeyVersion, SourceError};

/// An [`Envelope`] as the key service of slots of type 1: what stands in the slot is what the service wrapped. The id of the slot
/// is whatever the caller chose; the service is asked about no other.
///
/// A blob whose key the service made:
///
/// ```
/// # use sprag_keys::{DataKey, Envelope, SourceError};
/// # use zeroize::Zeroizing;
/// # struct Service;
/// # impl Envelope for Service {
/// #     fn generate(&self) -> Result<DataKey, SourceError> { DataKey::new(Zeroizing::new([7; 32]), vec![1]) }
/// #     fn unwrap(&self, _: &[u8]) -> Result<Zeroizing<[u8; 32]>, SourceError> { Ok(Zeroizing::new([7; 32])) }
/// # }
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let mut rng = rand_core::UnwrapErr(getrandom::SysRng);
/// # let service = Service;
/// use sprag_keys::EnvelopeKms;
/// use sprag_vault::{Context, Recipient, Sealing, Unlock, open, seal};
///
/// let kms = EnvelopeKms::new(service); // AwsKms, say
/// let (key, wrapped) = kms.generate()?;
/// let to = [Recipient::wrapped("aws", &wrapped)];
/// let blob = seal(b"hello", &Sealing::new(&key, &to), &mut rng)?;
///
/// let unlock = Unlock::new().kms("aws", &kms);
/// assert_eq!(*open(&blob, &unlock, &Context::none())?, *b"hello");
/// # Ok(()) }
/// ```
pub struct EnvelopeKms<E>(E);

impl<E: Envelope> EnvelopeKms<E> {
    /// This service.
    #[must_use]
    pub fn new(service: E) -> Self {
        Self(service)
    }

    /// A fresh data key, and what is to stand in the slot for it: see
    /// [`Recipient::wrapped`](sprag_vault::Recipient::wrapped). Every service can do this;
    /// [`Recipient::kms`](sprag_vault::Recipient::kms) asks for [`Envelope::wrap`], which not every one can.
    ///
    /// # Errors
    ///
    /// [`SourceError`].
    pub fn generate(&self) -> Result<(DataKey, Vec<u8>), SourceError> {
        let made = self.0.generate()?;
        Ok((
            DataKey::from_bytes(made.as_bytes()),
            made.wrapped().to_vec(),
        ))
    }
}

impl<E: Envelope> Kms for EnvelopeKms<E> {
    fn wrap_key(&self, _: &[u8], key: &DataKey) -> Result<Vec<u8>, KmsError> {
        self.0.wrap(key.as_bytes()).map_err(refusal)
    }

    fn unwrap_key(&self, _: &[u8], wrapped: &[u8]) -> Result<Zeroizing<Vec<u8>>, KmsError> {
        let key = self.0.unwrap(wrapped).map_err(refusal)?;
        Ok(Zeroizing::new(key.to_vec()))
    }
}

impl<E> fmt::Debug for EnvelopeKms<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EnvelopeKms").finish_non_exhaustive()
    }
}

/// Any [`KeySource`], a [`RingFile`](crate::RingFile) or HashiCorp Vault, as the key service of slots of type 1 whose ids are names
/// of its keys. The data key is wrapped here, under the version that is current then:
///
/// ```text
/// u32 version ‖ seal(key of that version, "Sprag/1 wrapped key", ad = name ‖ those 4 bytes, data key)      68 bytes
/// ```
///
/// So a blob can have other recipients beside it, and goes to a new version by `reseal`; but whoever had its data key keeps it. A
/// [`RotationJob`](crate::RotationJob) encrypts anew.
pub struct SourceKms<S, F> {
    source: S,
    rng: F,
}

impl<S: KeySource, R: CryptoRng, F: Fn() -> R + Send + Sync> SourceKms<S, F> {
    /// Keys of this source. `rng` makes a generator for each key that is wrapped, which draws 16 bytes.
    #[must_use]
    pub fn new(source: S, rng: F) -> Self {
        Self { source, rng }
    }
}

impl<S: KeySource, R: CryptoRng, F: Fn() -> R + Send + Sync> Kms for SourceKms<S, F> {
    fn wrap_key(&self, id: &[u8], key: &DataKey) -> Result<Vec<u8>, KmsError> {
        let name = name(id)?;
        let current = self.source.current(&name).map_err(refusal)?;
        let version = current.version().get().to_be_bytes();
        let seal = SealKey::from_bytes(current.as_bytes());
        let sealed = seal.seal(
            LABEL,
            &ad(&name, version),
            key.as_bytes(),
            &mut (self.rng)(),
        );
        Ok([version.as_slice(), &sealed].concat())
    }

    fn unwrap_key(&self, id: &[u8], wrapped: &[u8]) -> Result<Zeroizing<Vec<u8>>, KmsError> {
        let name = name(id)?;
        let (version, sealed) = wrapped.split_first_chunk().ok_or(KmsError::Refused)?;
        let number = KeyVersion::new(u32::from_be_bytes(*version)).ok_or(KmsError::Refused)?;
        let key = self.source.by_version(&name, number).map_err(refusal)?;
        let opened = SealKey::from_bytes(key.as_bytes()).open(LABEL, &ad(&name, *version), sealed);
        opened.map_err(|_| KmsError::Refused)
    }
}

impl<S, F> fmt::Debug for SourceKms<S, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SourceKms").finish_non_exhaustive()
    }
}

fn name(id: &[u8]) -> Result<KeyId, KmsError> {
    let text = str::from_utf8(id).map_err(|_| KmsError::Refused)?;
    KeyId::new(text).map_err(|_| KmsError::Refused)
}

fn ad(name: &KeyId, version: [u8; 4]) -> Vec<u8> {
    [name.as_str().as_bytes(), &version].concat()
}

fn refusal(error: SourceError) -> KmsError {
    match error {
        SourceError::Unavailable(_) => KmsError::Unreachable,
        _ => KmsError::Refused,
    }
}

const LABEL: &[u8] = b"Sprag/1 wrapped key";

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use rand_chacha::ChaCha20Rng;
    use rand_chacha::rand_core::SeedableRng;
    use sprag_vault::{Context, OpenError, Recipient, SealError, Sealing, Unlock, open, seal};

    use super::*;
    use crate::KeyRing;

    /// A service in memory: wraps under a key of its own, and may be away.
    struct Service {
        key: SealKey,
        away: AtomicBool,
        wraps: bool,
    }

    impl Service {
        fn new(seed: u8, wraps: bool) -> Self {
            let (key, away) = (SealKey::from_bytes(&[seed; 32]), AtomicBool::new(false));
            Self { key, away, wraps }
        }

        fn reach(&self) -> Result<(), SourceError> {
            match self.away.load(Ordering::Relaxed) {
                true => Err(SourceError::Unavailable(None)),
                false => Ok(()),
            }
        }

        fn sealed(&self, key: &[u8; 32]) -> Vec<u8> {
            self.key.seal(b"test", b"", key, &mut rng(9))
        }
    }

    impl Envelope for Service {
        fn generate(&self) -> Result<crate::DataKey, SourceError> {
            self.reach()?;
            let key = Zeroizing::new([0x5a; 32]);
            crate::DataKey::new(key.clone(), self.sealed(&key))
        }

        fn unwrap(&self, wrapped: &[u8]) -> Result<Zeroizing<[u8; 32]>, SourceError> {
            self.reach()?;
            let opened = self.key.open(b"test", b"", wrapped);
            let opened = opened.map_err(|_| SourceError::Malformed)?;
            Ok(Zeroizing::new(opened.as_slice().try_into().unwrap()))
        }

        fn wrap(&self, key: &[u8; 32]) -> Result<Vec<u8>, SourceError> {
            self.reach()?;
            match self.wraps {
                true => Ok(self.sealed(key)),
                false => Err(SourceError::Unsupported),
            }
        }
    }

    fn rng(seed: u8) -> ChaCha20Rng {
        ChaCha20Rng::from_seed([seed; 32])
    }

    fn id() -> KeyId {
        KeyId::new("memories").unwrap()
    }

    fn none() -> Context {
        Context::none()
    }

    #[test]
    fn a_blob_under_a_services_key_opens_through_that_service_and_no_other() {
        let (service, other) = (Service::new(1, false), Service::new(2, false));
        let (kms, stranger) = (EnvelopeKms::new(&service), EnvelopeKms::new(&other));
        let (key, wrapped) = kms.generate().unwrap();
        let to = [Recipient::wrapped("aws", &wrapped)];
        let blob = seal(b"hello", &Sealing::new(&key, &to), &mut rng(1)).unwrap();

        let unlock = Unlock::new().kms("aws", &kms);
        assert_eq!(*open(&blob, &unlock, &none()).unwrap(), *b"hello");
        let elsewhere = Unlock::new().kms("aws", &stranger);
        assert_eq!(open(&blob, &elsewhere, &none()), Err(OpenError::WrongKey));
        let unnamed = Unlock::new().kms("other", &kms);
        assert_eq!(open(&blob, &unnamed, &none()), Err(OpenError::WrongKey));
        service.away.store(true, Ordering::Relaxed);
        assert_eq!(open(&blob, &unlock, &none()), Err(OpenError::Unavailable));
        assert!(kms.generate().unwrap_err().is_retryable());
    }

    #[test]
    fn a_service_that_wraps_is_one_recipient_of_several_and_one_that_does_not_is_refused() {
        let (service, other) = (Service::new(1, true), Service::new(2, true));
        let (one, two) = (EnvelopeKms::new(&service), EnvelopeKms::new(&other));
        let key = DataKey::generate(&mut rng(3));
        let to = [Recipient::kms("one", &one), Recipient::kms("two", &two)];
        let blob = seal(b"hello", &Sealing::new(&key, &to), &mut rng(1)).unwrap();
        for unlock in [
            Unlock::new().kms("one", &one),
            Unlock::new().kms("two", &two),
        ] {
            assert_eq!(*open(&blob, &unlock, &none()).unwrap(), *b"hello");
        }
        let sealing = Sealing::new(&key, &to);
        service.away.store(true, Ordering::Relaxed);
        assert_eq!(
            seal(b"hello", &sealing, &mut rng(1)).unwrap_err(),
            SealError::Kms(KmsError::Unreachable)
        );
        let poor = Service::new(1, false);
        let poor = EnvelopeKms::new(&poor);
        let to = [Recipient::kms("one", &poor)];
        assert_eq!(
            seal(b"hello", &Sealing::new(&key, &to), &mut rng(1)).unwrap_err(),
            SealError::Kms(KmsError::Refused)
        );
    }

    #[test]
    fn a_blob_under_a_ring_goes_to_a_new_version_by_reseal_and_closes_with_the_old_one_destroyed() {
        let mut ring = KeyRing::new();
        ring.create(&id(), &mut rng(4), 0).unwrap();
        let key = DataKey::generate(&mut rng(3));
        let blob = {
            let kms = SourceKms::new(ring.clone(), || rng(5));
            let to = [Recipient::kms("memories", &kms)];
            seal(b"hello", &Sealing::new(&key, &to), &mut rng(1)).unwrap()
        };
        ring.rotate(&id(), &mut rng(6), 0).unwrap();
        let kms = SourceKms::new(ring.clone(), || rng(7));
        let unlock = Unlock::new().kms("memories", &kms);
        assert_eq!(*open(&blob, &unlock, &none()).unwrap(), *b"hello");
        let add = [Recipient::kms("memories", &kms)];
        let keep_none = |_: &sprag_vault::Slot| false;
        let resealed =
            sprag_vault::reseal(&blob, &unlock, &none(), keep_none, &add, &mut rng(8)).unwrap();
        ring.destroy(&id(), KeyVersion::FIRST, 0).unwrap();
        let kms = SourceKms::new(ring, || rng(7));
        let unlock = Unlock::new().kms("memories", &kms);
        assert_eq!(*open(&resealed, &unlock, &none()).unwrap(), *b"hello");
        assert_eq!(open(&blob, &unlock, &none()), Err(OpenError::WrongKey));
    }

    #[test]
    fn no_altered_slot_and_no_unknown_name_gives_a_key_or_makes_one() {
        let mut ring = KeyRing::new();
        ring.create(&id(), &mut rng(4), 0).unwrap();
        // The same key under another name: the name counts.
        let other = KeyId::new("other").unwrap();
        let same = *ring.current(&id()).unwrap().as_bytes();
        ring.import(&other, &same, 0).unwrap();
        let kms = SourceKms::new(ring, || rng(5));
        let key = DataKey::generate(&mut rng(3));
        let wrapped = kms.wrap_key(b"memories", &key).unwrap();
        assert_eq!(wrapped.len(), 68);
        assert_eq!(
            **kms.unwrap_key(b"memories", &wrapped).unwrap(),
            *key.as_bytes()
        );
        assert_eq!(kms.unwrap_key(b"other", &wrapped), Err(KmsError::Refused));
        for name in [&b"none"[..], b"", b"../x", b"\xff"] {
            assert_eq!(kms.wrap_key(name, &key), Err(KmsError::Refused));
            assert_eq!(kms.unwrap_key(name, &wrapped), Err(KmsError::Refused));
        }
        for at in 0..wrapped.len() {
            let mut altered = wrapped.clone();
            altered[at] ^= 1;
            assert_eq!(
                kms.unwrap_key(b"memories", &altered),
                Err(KmsError::Refused)
            );
            assert_eq!(
                kms.unwrap_key(b"memories", &wrapped[..at]),
                Err(KmsError::Refused)
            );
        }
    }

    #[test]
    fn debug_shows_nothing() {
        let service = Service::new(1, true);
        assert_eq!(
            format!("{:?}", EnvelopeKms::new(&service)),
            "EnvelopeKms { .. }"
        );
        let kms = SourceKms::new(KeyRing::new(), || rng(1));
        assert_eq!(format!("{kms:?}"), "SourceKms { .. }");
    }
}
