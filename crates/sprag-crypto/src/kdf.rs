//! HKDF, HMAC and SHA-256 ("The protocol", notation).

use hkdf::Hkdf;
use hmac::digest::FixedOutput;
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
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
