//! Prekeys with their private halves ("The protocol", §1.1).
//!
//! Records, after a version byte of 1 (numbers big-endian):
//!
//! ```text
//! signed     id(4) features(4) private(32) signature(64)                  105 bytes
//! one-time   id(4) private(32)                                             37
//! KEM        id(4) kind(1) seed(64) public(1569) signature(64)          1,703
//! ```
//!
//! The public KEM key is stored although the seed gives it: the responder needs it for the transcript of each handshake,
//! and expanding the seed costs as much as a decapsulation.

use rand_core::CryptoRng;
use sprag_crypto::{
    Features, IdentityKeyPair, KemPrivateKey, KemPublicKey, KeyPair, PrivateKey, PublicKey,
    Signature, labels,
};
use sprag_wire::{
    KemKind, KemPreKey, KemPreKeyId, OneTimePreKey, OneTimePreKeyId, SignedPreKey, SignedPreKeyId,
};
use zeroize::Zeroizing;

use crate::RecordError;
use crate::record::{Reader, write};

/// Kind byte of curve prekeys under a signature.
const SIGNED: u8 = 1;

/// What is signed: `"Sprag/1 prekey" ‖ u8(kind) ‖ u32be(id) ‖ u32be(features) ‖ key`.
#[must_use]
pub fn prekey_message(kind: u8, id: u32, features: Features, key: &[u8]) -> Vec<u8> {
    [
        labels::PREKEY,
        &[kind],
        &id.to_be_bytes(),
        &features.bits().to_be_bytes(),
        key,
    ]
    .concat()
}

pub(crate) fn signed_message(key: &SignedPreKey) -> Vec<u8> {
    prekey_message(
        SIGNED,
        key.id.get(),
        key.features,
        key.public_key.as_bytes(),
    )
}

pub(crate) fn kem_message(key: &KemPreKey) -> Vec<u8> {
    prekey_message(
        key.kind as u8,
        key.id.get(),
        Features::NONE,
        key.public_key.as_bytes(),
    )
}

/// A signed prekey, kind 1.
#[derive(Clone, Debug)]
pub struct SignedPreKeyPair {
    id: SignedPreKeyId,
    features: Features,
    keys: KeyPair,
    signature: Signature,
}

impl SignedPreKeyPair {
    /// Makes and signs one; draws 32 bytes, then 64.
    #[must_use]
    pub fn generate(
        id: SignedPreKeyId,
        features: Features,
        identity: &IdentityKeyPair,
        rng: &mut (impl CryptoRng + ?Sized),
    ) -> Self {
        let private = PrivateKey::generate(rng);
        Self::from_private(id, features, private, identity, rng)
    }

    /// Signs a private half that exists; draws 64 bytes.
    #[must_use]
    pub fn from_private(
        id: SignedPreKeyId,
        features: Features,
        private: PrivateKey,
        identity: &IdentityKeyPair,
        rng: &mut (impl CryptoRng + ?Sized),
    ) -> Self {
        let keys = KeyPair::from_private(private);
        let message = prekey_message(SIGNED, id.get(), features, keys.public().as_bytes());
        let signature = identity.sign(&message, rng);
        Self {
            id,
            features,
            keys,
            signature,
        }
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> SignedPreKeyId {
        self.id
    }

    /// The features signed with it.
    #[must_use]
    pub fn features(&self) -> Features {
        self.features
    }

    /// The private half.
    #[must_use]
    pub fn private(&self) -> &PrivateKey {
        self.keys.private()
    }

    /// The public half.
    #[must_use]
    pub fn public_key(&self) -> &PublicKey {
        self.keys.public()
    }

    /// What is published.
    #[must_use]
    pub fn public(&self) -> SignedPreKey {
        SignedPreKey::new(self.id, self.features, *self.keys.public(), self.signature)
    }

    /// 105 bytes for the store.
    #[must_use]
    pub fn to_record(&self) -> Zeroizing<Vec<u8>> {
        let private = self.keys.private().to_bytes();
        write(&[
            &self.id.get().to_be_bytes(),
            &self.features.bits().to_be_bytes(),
            private.as_slice(),
            &self.signature,
        ])
    }

    /// From the store.
    ///
    /// # Errors
    /// [`RecordError`].
    pub fn from_record(record: &[u8]) -> Result<Self, RecordError> {
        let mut reader = Reader::new(record, 104)?;
        let id = SignedPreKeyId::new(reader.u32()?).map_err(|_| RecordError)?;
        let features = Features::from_bits(reader.u32()?);
        let private = Zeroizing::new(reader.array::<32>()?);
        let keys = KeyPair::from_private(PrivateKey::from_bytes(&private));
        Ok(Self {
            id,
            features,
            keys,
            signature: reader.array()?,
        })
    }
}

/// A one-time prekey.
#[derive(Clone, Debug)]
pub struct OneTimePreKeyPair {
    id: OneTimePreKeyId,
    keys: KeyPair,
}

impl OneTimePreKeyPair {
    /// Makes one; draws 32 bytes.
    #[must_use]
    pub fn generate(id: OneTimePreKeyId, rng: &mut (impl CryptoRng + ?Sized)) -> Self {
        Self::from_private(id, PrivateKey::generate(rng))
    }

    /// From a private half that exists.
    #[must_use]
    pub fn from_private(id: OneTimePreKeyId, private: PrivateKey) -> Self {
        Self {
            id,
            keys: KeyPair::from_private(private),
        }
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> OneTimePreKeyId {
        self.id
    }

    /// The private half.
    #[must_use]
    pub fn private(&self) -> &PrivateKey {
        self.keys.private()
    }

    /// The public half.
    #[must_use]
    pub fn public_key(&self) -> &PublicKey {
        self.keys.public()
    }

    /// What is published.
    #[must_use]
    pub fn public(&self) -> OneTimePreKey {
        OneTimePreKey::new(self.id, *self.keys.public())
    }

    /// 37 bytes for the store.
    #[must_use]
    pub fn to_record(&self) -> Zeroizing<Vec<u8>> {
        let private = self.keys.private().to_bytes();
        write(&[&self.id.get().to_be_bytes(), private.as_slice()])
    }

    /// From the store.
    ///
    /// # Errors
    /// [`RecordError`].
    pub fn from_record(record: &[u8]) -> Result<Self, RecordError> {
        let mut reader = Reader::new(record, 36)?;
        let id = OneTimePreKeyId::new(reader.u32()?).map_err(|_| RecordError)?;
        let private = Zeroizing::new(reader.array::<32>()?);
        Ok(Self::from_private(id, PrivateKey::from_bytes(&private)))
    }
}

/// A KEM prekey of either kind.
#[derive(Clone, Debug)]
pub struct KemPreKeyPair {
    id: KemPreKeyId,
    kind: KemKind,
    private: KemPrivateKey,
    public_key: KemPublicKey,
    signature: Signature,
}

impl KemPreKeyPair {
    /// Makes and signs one; draws 64 bytes, then 64.
    #[must_use]
    pub fn generate(
        id: KemPreKeyId,
        kind: KemKind,
        identity: &IdentityKeyPair,
        rng: &mut (impl CryptoRng + ?Sized),
    ) -> Self {
        let private = KemPrivateKey::generate(rng);
        Self::from_private(id, kind, private, identity, rng)
    }

    /// Signs a private half that exists; draws 64 bytes.
    #[must_use]
    pub fn from_private(
        id: KemPreKeyId,
        kind: KemKind,
        private: KemPrivateKey,
        identity: &IdentityKeyPair,
        rng: &mut (impl CryptoRng + ?Sized),
    ) -> Self {
        let public_key = private.public_key();
        let message = prekey_message(kind as u8, id.get(), Features::NONE, public_key.as_bytes());
        let signature = identity.sign(&message, rng);
        Self {
            id,
            kind,
            private,
            public_key,
            signature,
        }
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> KemPreKeyId {
        self.id
    }

    /// Once, or last resort.
    #[must_use]
    pub fn kind(&self) -> KemKind {
        self.kind
    }

    /// The private half.
    #[must_use]
    pub fn private(&self) -> &KemPrivateKey {
        &self.private
    }

    /// The public half.
    #[must_use]
    pub fn public_key(&self) -> &KemPublicKey {
        &self.public_key
    }

    /// What is published.
    #[must_use]
    pub fn public(&self) -> KemPreKey {
        KemPreKey::new(self.id, self.kind, self.public_key.clone(), self.signature)
    }

    /// 1,703 bytes for the store.
    #[must_use]
    pub fn to_record(&self) -> Zeroizing<Vec<u8>> {
        write(&[
            &self.id.get().to_be_bytes(),
            &[self.kind as u8],
            self.private.seed(),
            self.public_key.as_bytes(),
            &self.signature,
        ])
    }

    /// From the store.
    ///
    /// # Errors
    /// [`RecordError`].
    pub fn from_record(record: &[u8]) -> Result<Self, RecordError> {
        let mut reader = Reader::new(record, 4 + 1 + 64 + KemPublicKey::LEN + 64)?;
        let id = KemPreKeyId::new(reader.u32()?).map_err(|_| RecordError)?;
        let kind = match reader.array()? {
            [2] => KemKind::OneTime,
            [3] => KemKind::LastResort,
            _ => return Err(RecordError),
        };
        let seed = Zeroizing::new(reader.array::<64>()?);
        let private = KemPrivateKey::from_seed(&seed);
        let public_key =
            KemPublicKey::from_bytes(reader.take(KemPublicKey::LEN)?).map_err(|_| RecordError)?;
        Ok(Self {
            id,
            kind,
            private,
            public_key,
            signature: reader.array()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use rand_chacha::ChaCha20Rng;
    use rand_core::SeedableRng;

    use super::*;

    fn rng() -> ChaCha20Rng {
        ChaCha20Rng::seed_from_u64(5)
    }

    #[test]
    fn records_give_back_what_was_stored_and_their_layout_is_pinned() {
        let identity = IdentityKeyPair::generate(&mut rng());
        let id = SignedPreKeyId::new(0x0102_0304).unwrap();
        let signed = SignedPreKeyPair::generate(id, Features::ACCEPTS_X3DH, &identity, &mut rng());
        let record = signed.to_record();
        assert_eq!(record.len(), 105);
        assert_eq!(record[..9], [1, 1, 2, 3, 4, 0, 0, 0, 2]);
        assert_eq!(record[9..41], signed.private().to_bytes()[..]);
        assert_eq!(
            SignedPreKeyPair::from_record(&record).unwrap().public(),
            signed.public()
        );

        let one_time = OneTimePreKeyPair::generate(OneTimePreKeyId::new(7).unwrap(), &mut rng());
        let record = one_time.to_record();
        assert_eq!((record.len(), &record[..5]), (37, &[1, 0, 0, 0, 7][..]));
        assert_eq!(
            OneTimePreKeyPair::from_record(&record).unwrap().public(),
            one_time.public()
        );

        let id = KemPreKeyId::new(9).unwrap();
        let kem = KemPreKeyPair::generate(id, KemKind::LastResort, &identity, &mut rng());
        let record = kem.to_record();
        assert_eq!(
            (record.len(), &record[..6]),
            (1703, &[1, 0, 0, 0, 9, 3][..])
        );
        assert_eq!(record[6..70], kem.private().seed()[..]);
        let read = KemPreKeyPair::from_record(&record).unwrap();
        assert_eq!(read.public(), kem.public());
        assert_eq!(read.private().public_key(), *kem.public_key());
    }

    #[test]
    fn records_of_this_version_have_these_bytes_for_ever() {
        let identity = IdentityKeyPair::from_private(PrivateKey::from_bytes(&[0x11; 32]));
        let id = SignedPreKeyId::new(0x0102_0304).unwrap();
        let private = PrivateKey::from_bytes(&[0x22; 32]);
        let features = Features::ACCEPTS_X3DH;
        let signed = SignedPreKeyPair::from_private(id, features, private, &identity, &mut rng());
        assert_eq!(hex::encode(signed.to_record()), GOLDEN_SIGNED);
        let golden = hex::decode(GOLDEN_SIGNED).unwrap();
        let read = SignedPreKeyPair::from_record(&golden).unwrap();
        assert_eq!(read.public(), signed.public());
        let message = signed_message(&read.public());
        assert_eq!(
            identity.public().verify(&message, &read.public().signature),
            Ok(())
        );

        let id = OneTimePreKeyId::new(7).unwrap();
        let private = PrivateKey::from_bytes(&[0x33; 32]);
        let one_time = OneTimePreKeyPair::from_private(id, private);
        assert_eq!(hex::encode(one_time.to_record()), GOLDEN_ONE_TIME);
        let golden = hex::decode(GOLDEN_ONE_TIME).unwrap();
        let read = OneTimePreKeyPair::from_record(&golden).unwrap();
        assert_eq!(read.public(), one_time.public());

        let id = KemPreKeyId::new(9).unwrap();
        let private = KemPrivateKey::from_seed(&[0x44; 64]);
        let kem = KemPreKeyPair::from_private(id, KemKind::OneTime, private, &identity, &mut rng());
        let record = kem.to_record();
        assert_eq!(
            hex::encode(sprag_crypto::sha256(&[&record])),
            GOLDEN_KEM_HASH
        );
        let read = KemPreKeyPair::from_record(&record).unwrap();
        let message = kem_message(&read.public());
        assert_eq!(
            identity.public().verify(&message, &read.public().signature),
            Ok(())
        );
    }

    const GOLDEN_SIGNED: &str = "01010203040000000220222222222222222222222222222222222222222222222222222222222222620635a3ab871de48fd27204260a9e24532c8cc3fa785bf0b7851b8bdb0ba002e4983f2c61d36c8b6a50168d1d77d29d8bd62924eb883651180b5d086a8aaf8e0d";
    const GOLDEN_ONE_TIME: &str =
        "01000000073033333333333333333333333333333333333333333333333333333333333373";
    /// SHA-256 of the 1,703 bytes.
    const GOLDEN_KEM_HASH: &str =
        "31bf12fb0aaa14aeab03fc9070a97737e80acb46bb3b16fe9062f2bb1dbe53a5";

    #[test]
    fn a_record_of_any_length_or_content_is_read_or_refused() {
        let mut record = vec![1; 1_800];
        for length in 0..record.len() {
            let _ = SignedPreKeyPair::from_record(&record[..length]).map(|key| key.to_record());
            assert_eq!(
                SignedPreKeyPair::from_record(&record[..length]).is_ok(),
                length == 105
            );
            assert_eq!(
                OneTimePreKeyPair::from_record(&record[..length]).is_ok(),
                length == 37
            );
        }
        record.truncate(1_703);
        assert!(KemPreKeyPair::from_record(&record).is_err());
        record[5] = 3;
        record[70] = 0x0a;
        assert!(KemPreKeyPair::from_record(&record).is_ok());
        assert!(KemPreKeyPair::from_record(&record[..1_702]).is_err());
    }

    #[test]
    fn damaged_records_are_refused() {
        let identity = IdentityKeyPair::generate(&mut rng());
        let signed = SignedPreKeyPair::generate(
            SignedPreKeyId::new(1).unwrap(),
            Features::NONE,
            &identity,
            &mut rng(),
        );
        let kem = KemPreKeyPair::generate(
            KemPreKeyId::new(1).unwrap(),
            KemKind::OneTime,
            &identity,
            &mut rng(),
        );
        let record = signed.to_record();
        assert!(SignedPreKeyPair::from_record(&[]).is_err());
        assert!(SignedPreKeyPair::from_record(&record[1..]).is_err());
        assert!(SignedPreKeyPair::from_record(&[&record[..], &[0]].concat()).is_err());
        let change = |record: &[u8], at: usize, to: u8| {
            let mut record = record.to_vec();
            record[at] = to;
            record
        };
        assert!(SignedPreKeyPair::from_record(&change(&record, 0, 2)).is_err());
        assert!(SignedPreKeyPair::from_record(&change(&record, 4, 0)).is_err());
        let record = kem.to_record();
        assert!(KemPreKeyPair::from_record(&change(&record, 5, 1)).is_err());
        assert!(KemPreKeyPair::from_record(&change(&record, 70, 5)).is_err());
        assert!(OneTimePreKeyPair::from_record(&record).is_err());
    }

    #[test]
    fn private_halves_are_not_printed() {
        let one_time = OneTimePreKeyPair::generate(OneTimePreKeyId::new(7).unwrap(), &mut rng());
        let private = hex::encode(one_time.private().to_bytes().as_slice());
        let printed = format!("{one_time:?}");
        assert!(printed.contains("PrivateKey { .. }") && !printed.contains(&private));
    }
}
