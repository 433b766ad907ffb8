//! HKDF, HMAC and SHA-256 ("The protocol", notation).

use hkdf::Hkdf;
use hmac::digest::FixedOutput;
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, Zeroizing};

/// `HKDF(salt, ikm, info, N)` with SHA-256, RFC 5869; `info` is given in parts. `N` is at most 8,160:
///
/// ```compile_fail,E0080
/// let _ = sprag_crypto::hkdf::<8161>(b"salt", b"material", &[b"info"]);
/// ```
#[must_use]
pub fn hkdf<const N: usize>(salt: &[u8], ikm: &[u8], info: &[&[u8]]) -> Zeroizing<[u8; N]> {
    const { assert!(N <= 255 * 32, "HKDF-SHA-256 yields at most 8,160 bytes") };
    let mut out = Zeroizing::new([0; N]);
    let (mut prk, hkdf) = Hkdf::<Sha256>::extract(Some(salt), ikm);
    prk.as_mut_slice().zeroize();
    let expanded = hkdf.expand_multi_info(info, out.as_mut_slice());
    #[expect(
        clippy::expect_used,
        reason = "the only failure is a length that the assertion above excludes"
    )]
    expanded.expect("at most 8,160 bytes");
    out
}

/// `HMAC(key, message)` with SHA-256; the message is given in parts.
#[must_use]
pub fn hmac(key: &[u8], parts: &[&[u8]]) -> Zeroizing<[u8; 32]> {
    let mut out = Zeroizing::new([0; 32]);
    #[expect(
        clippy::expect_used,
        reason = "HMAC takes keys of any length (RFC 2104, 2)"
    )]
    let mut mac = <Hmac<Sha256> as KeyInit>::new_from_slice(key).expect("any length");
    parts.iter().for_each(|part| mac.update(part));
    mac.finalize_into((&mut *out).into());
    out
}

/// Whether `tag` is the HMAC of the message under the key. Takes the same time for all tags.
#[must_use]
pub fn hmac_is(key: &[u8], parts: &[&[u8]], tag: &[u8; 32]) -> bool {
    hmac(key, parts).as_slice().ct_eq(tag).into()
}

/// SHA-256 over the parts.
#[must_use]
pub fn sha256(parts: &[&[u8]]) -> [u8; 32] {
    let mut hash = Sha256::new();
    parts.iter().for_each(|part| hash.update(part));
    hash.finalize().into()
}

/// Appends `LP(x) = u32be(len x) ‖ x`.
pub fn put_lp(to: &mut Vec<u8>, x: &[u8]) {
    to.extend_from_slice(&u32::try_from(x.len()).unwrap_or(u32::MAX).to_be_bytes());
    to.extend_from_slice(x);
}

/// `LP(x) = u32be(len x) ‖ x`.
#[must_use]
pub fn lp(x: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(4 + x.len());
    put_lp(&mut out, x);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unhex(text: &str) -> Vec<u8> {
        hex::decode(text).unwrap()
    }

    #[test]
    fn hkdf_matches_rfc_5869_appendix_a() {
        let info: Vec<u8> = (0xf0..=0xf9).collect();
        let salt: Vec<u8> = (0..=0x0c).collect();
        let first =
            "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865";
        assert_eq!(
            hex::encode(*hkdf::<42>(&salt, &[0x0b; 22], &[&info])),
            first
        );
        assert_eq!(
            hex::encode(*hkdf::<42>(
                &salt,
                &[0x0b; 22],
                &[&info[..4], &[], &info[4..]]
            )),
            first
        );

        let range = |from: u8, to: u8| (from..=to).collect::<Vec<u8>>();
        let second = "b11e398dc80327a1c8e7f78c596a49344f012eda2d4efad8a050cc4c19afa97c\
            59045a99cac7827271cb41c65e590e09da3275600c2f09b8367793a9aca3db71cc30c58179ec3e87c14c01d5c1f3434f1d87";
        let okm = hkdf::<82>(&range(0x60, 0xaf), &range(0, 0x4f), &[&range(0xb0, 0xff)]);
        assert_eq!(hex::encode(*okm), second);

        let third =
            "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8";
        assert_eq!(hex::encode(*hkdf::<42>(&[], &[0x0b; 22], &[])), third);
        assert_eq!(
            hex::encode(*hkdf::<42>(&[0; 32], &[0x0b; 22], &[&[]])),
            third
        );
    }

    #[test]
    fn hkdf_differs_in_salt_material_and_info() {
        let okm = hkdf::<32>(b"s", b"ikm", &[b"info"]);
        assert_ne!(*okm, *hkdf::<32>(b"t", b"ikm", &[b"info"]));
        assert_ne!(*okm, *hkdf::<32>(b"s", b"ikn", &[b"info"]));
        assert_ne!(*okm, *hkdf::<32>(b"s", b"ikm", &[b"inf", b"p"]));
        assert_eq!(
            okm.as_slice(),
            &hkdf::<8160>(b"s", b"ikm", &[b"info"])[..32]
        );
    }

    #[test]
    fn hmac_matches_rfc_4231() {
        let cases: [(Vec<u8>, Vec<u8>, &str); 6] = [
            (vec![0x0b; 20], b"Hi There".to_vec(), "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"),
            (b"Jefe".to_vec(), b"what do ya want for nothing?".to_vec(), "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"),
            (vec![0xaa; 20], vec![0xdd; 50], "773ea91e36800e46854db8ebd09181a72959098b3ef8c122d9635514ced565fe"),
            ((1..=25).collect(), vec![0xcd; 50], "82558a389a443c0ea4cc819899f2083a85f0faa3e578f8077a2e3ff46729665b"),
            (vec![0xaa; 131], b"Test Using Larger Than Block-Size Key - Hash Key First".to_vec(), "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54"),
            (
                vec![0xaa; 131],
                b"This is a test using a larger than block-size key and a larger than block-size data. The key needs to be hashed before being used by the HMAC algorithm.".to_vec(),
                "9b09ffa71b942fcb27635fbcd5b0e944bfdc63644f0713938a7f51535c3a35e2",
            ),
        ];
        for (key, message, mac) in cases {
            assert_eq!(hex::encode(*hmac(&key, &[&message])), mac);
            let (left, right) = message.split_at(message.len() / 2);
            assert_eq!(hex::encode(*hmac(&key, &[left, &[], right])), mac);
            assert_ne!(hex::encode(*hmac(&key, &[&message, b"\0"])), mac);
        }
    }

    #[test]
    fn sha256_matches_fips_180() {
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(hex::encode(sha256(&[])), empty);
        assert_eq!(hex::encode(sha256(&[b"abc"])), abc);
        assert_eq!(hex::encode(sha256(&[b"a", b"", b"bc"])), abc);
    }

    #[test]
    fn lp_writes_the_length_first() {
        assert_eq!(lp(b""), unhex("00000000"));
        assert_eq!(lp(b"abc"), unhex("00000003616263"));
        assert_eq!(lp(&[0; 258])[..5], unhex("0000010200")[..]);
        let mut out = vec![9];
        put_lp(&mut out, b"a");
        assert_eq!(out, unhex("090000000161"));
    }
}
