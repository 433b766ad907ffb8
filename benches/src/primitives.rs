//! The floors: nothing but calls of the primitives, straight to the libraries.

use std::hint::black_box;

use aes_gcm::aead::{AeadInOut, KeyInit};
use aes_gcm::{Aes256Gcm, Tag};
use ed25519_dalek::{Signer, SigningKey, VerifyingKey};
use hkdf::Hkdf;
use hmac::digest::FixedOutput;
use hmac::{Hmac, Mac};
use libcrux_ml_kem::mlkem1024;
use sha2::Sha256;
use x25519_dalek::{PublicKey, StaticSecret};

fn hmac(key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    let mut mac = <Hmac<Sha256> as KeyInit>::new_from_slice(key).unwrap();
    parts.iter().for_each(|part| mac.update(part));
    mac.finalize_fixed().into()
}

fn hkdf<const N: usize>(salt: &[u8], ikm: &[u8], info: &[u8]) -> [u8; N] {
    let mut out = [0; N];
    Hkdf::<Sha256>::new(Some(salt), ikm)
        .expand(info, &mut out)
        .unwrap();
    out
}

/// One message on a chain: two steps of the chain key, the hedged salt, the message key, and three GCMs: header and
/// body under keys of their own, the origin over the whole frame under a key that is at hand.
pub(crate) struct Message {
    key: [u8; 32],
    header: Sealed,
    body: Sealed,
    origin: Sealed,
    origin_key: Aes256Gcm,
    aad: [u8; 126],
    frame: Vec<u8>,
}

struct Sealed {
    ciphertext: Vec<u8>,
    tag: Tag,
    work: Vec<u8>,
}

const NONCE: [u8; 12] = [3; 12];

impl Sealed {
    fn new(cipher: &Aes256Gcm, nonce: &[u8; 12], aad: &[u8], length: usize) -> Self {
        let mut ciphertext = vec![5; length];
        let tag = cipher
            .encrypt_inout_detached(nonce.into(), aad, ciphertext.as_mut_slice().into())
            .unwrap();
        let work = ciphertext.clone();
        Self {
            ciphertext,
            tag,
            work,
        }
    }

    fn seal(&mut self, cipher: &Aes256Gcm, nonce: &[u8; 12], aad: &[u8]) {
        let sealed = cipher
            .encrypt_inout_detached(nonce.into(), aad, self.work.as_mut_slice().into())
            .unwrap();
        black_box(sealed);
    }

    fn open(&mut self, cipher: &Aes256Gcm, nonce: &[u8; 12], aad: &[u8]) -> bool {
        self.work.copy_from_slice(&self.ciphertext);
        let work = self.work.as_mut_slice().into();
        cipher
            .decrypt_inout_detached(nonce.into(), aad, work, &self.tag)
            .is_ok()
    }
}

impl Message {
    /// For a padded content and a frame of these lengths.
    pub(crate) fn new(padded: usize, frame: usize) -> Self {
        let key = [7; 32];
        let aad = [9; 126];
        let frame = vec![1; frame - 36];
        let origin_key = Aes256Gcm::new(&[8; 32].into());
        let okm: [u8; 44] = hkdf(&[2; 16], &hmac(&key, &[&[1]]), b"Sprag/1 message");
        let (body_key, body_nonce) = okm.split_first_chunk::<32>().unwrap();
        let body_nonce = body_nonce.try_into().unwrap();
        Self {
            key,
            header: Sealed::new(&Aes256Gcm::new(&key.into()), &NONCE, &aad[..62], 45),
            body: Sealed::new(&Aes256Gcm::new(body_key.into()), body_nonce, &aad, padded),
            origin: Sealed::new(&origin_key, &NONCE, &frame, 20),
            origin_key,
            aad,
            frame,
        }
    }

    fn chain(&self) -> [u8; 32] {
        let key = black_box(&self.key);
        black_box(hmac(key, &[&[2]]));
        hmac(key, &[&[1]])
    }

    pub(crate) fn seal(&mut self) {
        let seed = self.chain();
        black_box(hmac(&seed, &[&[4; 32], &self.body.work]));
        let header_key = Aes256Gcm::new(black_box(&self.key).into());
        self.header.seal(&header_key, &NONCE, &self.aad[..62]);
        let okm: [u8; 44] = hkdf(black_box(&[2; 16]), &seed, b"Sprag/1 message");
        let (key, nonce) = okm.split_first_chunk::<32>().unwrap();
        let nonce = nonce.try_into().unwrap();
        self.body
            .seal(&Aes256Gcm::new(key.into()), nonce, &self.aad);
        self.origin.seal(&self.origin_key, &NONCE, &self.frame);
    }

    pub(crate) fn open(&mut self) {
        assert!(self.origin.open(&self.origin_key, &NONCE, &self.frame));
        let header_key = Aes256Gcm::new(black_box(&self.key).into());
        assert!(self.header.open(&header_key, &NONCE, &self.aad[..62]));
        let seed = self.chain();
        let okm: [u8; 44] = hkdf(black_box(&[2; 16]), &seed, b"Sprag/1 message");
        let (key, nonce) = okm.split_first_chunk::<32>().unwrap();
        let nonce = nonce.try_into().unwrap();
        let key = Aes256Gcm::new(key.into());
        assert!(self.body.open(&key, nonce, &self.aad));
    }

    /// What a forgery costs at least: one check over the frame.
    pub(crate) fn refuse(&mut self) {
        self.origin.tag[0] ^= 1;
        assert!(!self.origin.open(&self.origin_key, &NONCE, &self.frame));
        self.origin.tag[0] ^= 1;
    }
}

/// The primitives of handshakes and of the DH ratchet.
pub(crate) struct Asymmetric {
    private: StaticSecret,
    public: PublicKey,
    kem_private: mlkem1024::MlKem1024PrivateKey,
    kem_public: mlkem1024::MlKem1024PublicKey,
    kem_ciphertext: mlkem1024::MlKem1024Ciphertext,
    signed: Vec<u8>,
    signature: ed25519_dalek::Signature,
    verifying: [u8; 32],
}

impl Asymmetric {
    pub(crate) fn new() -> Self {
        let private = StaticSecret::from([11; 32]);
        let (kem_private, kem_public) = mlkem1024::generate_key_pair([12; 64]).into_parts();
        let (kem_ciphertext, _) = mlkem1024::encapsulate(&kem_public, [13; 32]);
        let signing = SigningKey::from_bytes(&[14; 32]);
        let signed = vec![15; 60];
        Self {
            public: PublicKey::from(&StaticSecret::from([16; 32])),
            private,
            kem_private,
            kem_public,
            kem_ciphertext,
            signature: signing.sign(&signed),
            signed,
            verifying: signing.verifying_key().to_bytes(),
        }
    }

    pub(crate) fn agree(&self, times: usize) {
        for _ in 0..times {
            black_box(black_box(&self.private).diffie_hellman(black_box(&self.public)));
        }
    }

    pub(crate) fn generate(&self, times: usize) {
        for _ in 0..times {
            black_box(PublicKey::from(black_box(&self.private)));
        }
    }

    pub(crate) fn verify(&self, times: usize) {
        for _ in 0..times {
            let key = VerifyingKey::from_bytes(black_box(&self.verifying)).unwrap();
            key.verify_strict(&self.signed, &self.signature).unwrap();
        }
    }

    /// The check of the key, and the encapsulation.
    pub(crate) fn encapsulate(&self) {
        assert!(mlkem1024::validate_public_key(black_box(&self.kem_public)));
        black_box(mlkem1024::encapsulate(&self.kem_public, [17; 32]));
    }

    /// From the seed, which is what is stored.
    pub(crate) fn decapsulate(&self) {
        black_box(mlkem1024::generate_key_pair(black_box([12; 64])));
        black_box(mlkem1024::decapsulate(
            &self.kem_private,
            &self.kem_ciphertext,
        ));
    }

    /// One step: two agreements, a new key, two derivations.
    pub(crate) fn step(&self) {
        self.agree(2);
        self.generate(1);
        for _ in 0..2 {
            black_box(hkdf::<96>(
                black_box(&[1; 32]),
                &[2; 32],
                b"Sprag/1 ratchet",
            ));
        }
    }
}
