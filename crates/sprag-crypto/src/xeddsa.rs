//! XEdDSA as published, with strict verification ("The protocol", §1).

use curve25519_dalek::constants::ED25519_BASEPOINT_TABLE;
use curve25519_dalek::montgomery::MontgomeryPoint;
use curve25519_dalek::scalar::Scalar;
use ed25519_dalek::{Signature as EdSignature, VerifyingKey};
use sha2::{Digest, Sha512};
use subtle::{Choice, ConditionallySelectable};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::{BadSignature, PrivateKey, PublicKey};

/// `R ‖ s`, 64 bytes.
pub type Signature = [u8; 64];

/// p = 2^255 − 19, little-endian.
const P: [u8; 32] = {
    let mut p = [0xff; 32];
    p[0] = 0xed;
    p[31] = 0x7f;
    p
};

/// The Edwards form of a curve key: computed once, so that signing costs one multiplication.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub(crate) struct SigningKey {
    a: Scalar,
    public: [u8; 32],
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SigningKey").finish_non_exhaustive()
    }
}

impl SigningKey {
    pub(crate) fn new(private: &PrivateKey) -> Self {
        let bytes = private.to_bytes();
        let mut k = Scalar::from_bytes_mod_order(*bytes);
        let mut public = (&k * ED25519_BASEPOINT_TABLE).compress().to_bytes();
        let negative = public.last().map_or(0, |byte| byte >> 7);
        let a = Scalar::conditional_select(&k, &-k, Choice::from(negative));
        k.zeroize();
        if let Some(last) = public.last_mut() {
            *last &= 0x7f;
        }
        Self { a, public }
    }

    pub(crate) fn sign(&self, message: &[u8], z: &[u8; 64]) -> Signature {
        let mut prefix = [0xff; 32];
        prefix[0] = 0xfe;
        let a = Zeroizing::new(self.a.to_bytes());
        let nonce = Sha512::new()
            .chain_update(prefix)
            .chain_update(a.as_slice())
            .chain_update(message)
            .chain_update(z);
        let mut r = Scalar::from_hash(nonce);
        let big_r = (&r * ED25519_BASEPOINT_TABLE).compress().to_bytes();
        let h = challenge(&big_r, &self.public, message);
        let mut s = r + h * self.a;
        let mut signature = [0; 64];
        let (left, right) = signature.split_at_mut(32);
        left.copy_from_slice(&big_r);
        right.copy_from_slice(s.as_bytes());
        r.zeroize();
        s.zeroize();
        signature
    }
}

fn challenge(big_r: &[u8; 32], public: &[u8; 32], message: &[u8]) -> Scalar {
    Scalar::from_hash(
        Sha512::new()
            .chain_update(big_r)
            .chain_update(public)
            .chain_update(message),
    )
}

/// Signs with given randomness `z`. Callers with a generator use `sign` of the key pairs.
#[must_use]
pub fn sign(key: &PrivateKey, message: &[u8], z: &[u8; 64]) -> Signature {
    SigningKey::new(key).sign(message, z)
}

/// Verifies as strictly as "The protocol", §1 says: length 64; u < p; the Edwards point with sign 0 exists; s < q;
/// neither A nor R of small order; R byte for byte.
///
/// u = −1 has no Edwards point, so the conversion refuses it. `verify_strict` refuses s ≥ q and small orders of A and
/// R, and compares the encoding of sB − hA with R; an R that is no encoding of a point can equal none.
///
/// # Errors
/// [`BadSignature`] for anything else.
pub fn verify(key: &PublicKey, message: &[u8], signature: &[u8]) -> Result<(), BadSignature> {
    let signature: &[u8; 64] = signature.try_into().map_err(|_| BadSignature)?;
    let u = key.u();
    if !below_p(&u) {
        return Err(BadSignature);
    }
    let point = MontgomeryPoint(u).to_edwards(0).ok_or(BadSignature)?;
    VerifyingKey::from(point)
        .verify_strict(message, &EdSignature::from_bytes(signature))
        .map_err(|_| BadSignature)
}

/// Whether a little-endian integer is below p. Not secret: it is a public key.
fn below_p(u: &[u8; 32]) -> bool {
    u.iter().rev().lt(P.iter().rev())
}

#[cfg(test)]
mod tests {
    use curve25519_dalek::constants::{ED25519_BASEPOINT_POINT, EIGHT_TORSION};
    use curve25519_dalek::edwards::EdwardsPoint;
    use rand_chacha::ChaCha20Rng;
    use rand_core::{Rng, SeedableRng};

    use super::*;
    use crate::{IdentityKey, IdentityKeyPair};

    /// §1, *Verifying*, word for word and without ed25519-dalek.
    fn verify_by_the_text(key: &PublicKey, message: &[u8], signature: &[u8]) -> bool {
        let Ok(signature) = <[u8; 64]>::try_from(signature) else {
            return false;
        };
        let (big_r, s) = signature.split_at(32);
        let mut minus_one = P;
        minus_one[0] -= 1;
        let u = key.u();
        if u.iter().rev().cmp(P.iter().rev()).is_ge() || u == minus_one {
            return false;
        }
        let Some(a) = MontgomeryPoint(u).to_edwards(0) else {
            return false;
        };
        let Some(s) = Option::<Scalar>::from(Scalar::from_canonical_bytes(s.try_into().unwrap()))
        else {
            return false;
        };
        let big_r: [u8; 32] = big_r.try_into().unwrap();
        let h = challenge(&big_r, a.compress().as_bytes(), message);
        let computed = ED25519_BASEPOINT_POINT * s - a * h;
        !a.is_small_order() && !computed.is_small_order() && computed.compress().0 == big_r
    }

    fn check(key: &PublicKey, message: &[u8], signature: &[u8]) -> bool {
        let holds = verify(key, message, signature).is_ok();
        assert_eq!(
            holds,
            verify_by_the_text(key, message, signature),
            "{key:?} {signature:02x?}"
        );
        holds
    }

    fn pair(rng: &mut ChaCha20Rng) -> (IdentityKeyPair, PublicKey) {
        let pair = IdentityKeyPair::generate(rng);
        let public = *pair.public().as_public_key();
        (pair, public)
    }

    #[test]
    fn signatures_hold_for_keys_of_either_edwards_sign() {
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        let mut signs = [0; 2];
        for length in 0..64 {
            let (ours, public) = pair(&mut rng);
            let k = Scalar::from_bytes_mod_order(*ours.private().to_bytes());
            let sign = (&k * ED25519_BASEPOINT_TABLE).compress().0[31] >> 7;
            signs[usize::from(sign)] += 1;
            let mut message = vec![0; length];
            rng.fill_bytes(&mut message);
            let signature = ours.sign(&message, &mut rng);
            assert!(check(&public, &message, &signature));
            assert_eq!(signature[63] & 0xe0, 0);
        }
        assert!(signs[0] > 16 && signs[1] > 16);
    }

    #[test]
    fn a_pair_signs_as_the_free_function_does_and_draws_64_bytes() {
        let mut rng = ChaCha20Rng::seed_from_u64(2);
        let (ours, _) = pair(&mut rng);
        let mut beside = rng.clone();
        let signature = ours.sign(b"message", &mut rng);
        let mut z = [0; 64];
        beside.fill_bytes(&mut z);
        assert_eq!(signature, sign(ours.private(), b"message", &z));
        assert_eq!(rng.next_u64(), beside.next_u64());
    }

    #[test]
    fn another_message_key_or_any_flipped_bit_is_refused() {
        let mut rng = ChaCha20Rng::seed_from_u64(3);
        let (ours, public) = pair(&mut rng);
        let (_, other) = pair(&mut rng);
        let signature = ours.sign(b"message", &mut rng);
        assert!(check(&public, b"message", &signature));
        assert!(!check(&public, b"messagf", &signature));
        assert!(!check(&public, b"message\0", &signature));
        assert!(!check(&other, b"message", &signature));
        for bit in 0..512 {
            let mut flipped = signature;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(!check(&public, b"message", &flipped), "bit {bit}");
        }
        for bit in 8..264 {
            let mut flipped = *public.as_bytes();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let flipped = PublicKey::from_bytes(&flipped).unwrap();
            assert!(!check(&flipped, b"message", &signature), "bit {bit}");
        }
    }

    #[test]
    fn other_lengths_are_refused() {
        let mut rng = ChaCha20Rng::seed_from_u64(4);
        let (ours, public) = pair(&mut rng);
        let mut long = ours.sign(b"message", &mut rng).to_vec();
        long.push(0);
        for length in (0..64).chain([65]) {
            assert!(!check(&public, b"message", &long[..length]), "{length}");
        }
    }

    #[test]
    fn s_beyond_the_order_is_refused() {
        // Little-endian q, added as often as 32 bytes allow.
        let mut q = (-Scalar::ONE).to_bytes();
        q[0] += 1;
        let mut rng = ChaCha20Rng::seed_from_u64(5);
        let (ours, public) = pair(&mut rng);
        let mut signature = ours.sign(b"message", &mut rng);
        assert!(check(&public, b"message", &signature));
        for _ in 0..14 {
            let mut carry = 0;
            for (byte, add) in signature[32..].iter_mut().zip(q) {
                let sum = u16::from(*byte) + u16::from(add) + carry;
                *byte = sum.to_le_bytes()[0];
                carry = sum >> 8;
            }
            assert_eq!(carry, 0);
            assert!(!check(&public, b"message", &signature));
        }
    }

    #[test]
    fn low_order_and_mixed_order_points_are_judged_as_the_text_says() {
        // Every small-order A and R, and R = rB + torsion, with an s that satisfies what a lax verifier would check.
        let mut rng = ChaCha20Rng::seed_from_u64(6);
        let (ours, public) = pair(&mut rng);
        let a = SigningKey::new(ours.private()).a;
        let (mut held, mut lax) = (0, 0);
        for torsion in EIGHT_TORSION {
            let u = torsion.to_montgomery().to_bytes();
            let low = PublicKey::from_u(&u);
            for r_torsion in EIGHT_TORSION {
                let small = r_torsion.compress().0;
                let mut forged = [0; 64];
                forged[..32].copy_from_slice(&small);
                for message in [&b"0"[..], b"1", b"2", b"3", b"4", b"5", b"6", b"7"] {
                    assert!(
                        !check(&low, message, &forged),
                        "forged for a key of small order"
                    );
                }
            }
            let r = Scalar::from(12_345u64);
            let mixed: EdwardsPoint = &r * ED25519_BASEPOINT_TABLE + torsion;
            let big_r = mixed.compress().0;
            let mut edwards = MontgomeryPoint(public.u())
                .to_edwards(0)
                .unwrap()
                .compress()
                .0;
            edwards[31] &= 0x7f;
            let s = r + challenge(&big_r, &edwards, b"message") * a;
            let mut signature = [0; 64];
            signature[..32].copy_from_slice(&big_r);
            signature[32..].copy_from_slice(s.as_bytes());
            // 8(sB − hA) = 8R holds for each; only the one without torsion is a signature.
            held += u8::from(check(&public, b"message", &signature));
            lax += 1;
        }
        assert_eq!((held, lax), (1, 8));
    }

    #[test]
    fn other_encodings_of_a_point_are_refused_where_the_equation_holds() {
        // R = 0: y = 1, y = p + 1, and both with the sign of an x that is 0. With s = ha all are what sB − hA gives, to
        // a verifier that compares points.
        let (ours, public) = pair(&mut ChaCha20Rng::seed_from_u64(8));
        let signing = SigningKey::new(ours.private());
        let mut one = [0; 32];
        one[0] = 1;
        let mut beyond = P;
        beyond[0] += 1;
        for mut big_r in [one, beyond] {
            for sign in [0, 0x80] {
                big_r[31] = big_r[31] & 0x7f | sign;
                let s = challenge(&big_r, &signing.public, b"message") * signing.a;
                let mut signature = [0; 64];
                signature[..32].copy_from_slice(&big_r);
                signature[32..].copy_from_slice(s.as_bytes());
                let h = challenge(&big_r, &signing.public, b"message");
                let a = MontgomeryPoint(public.u()).to_edwards(0).unwrap();
                assert_eq!(ED25519_BASEPOINT_POINT * s, a * h);
                assert!(!check(&public, b"message", &signature));
            }
        }
    }

    #[test]
    fn any_key_and_any_signature_is_judged_as_the_text_says() {
        let mut rng = ChaCha20Rng::seed_from_u64(7);
        let mut converted = 0;
        for _ in 0..200 {
            let mut bytes = [5; 33];
            rng.fill_bytes(&mut bytes[1..]);
            let key = PublicKey::from_bytes(&bytes).unwrap();
            let mut signature = [0; 64];
            rng.fill_bytes(&mut signature);
            signature[63] &= 0x0f;
            assert!(!check(&key, b"message", &signature));
            converted += u8::from(MontgomeryPoint(key.u()).to_edwards(0).is_some());
        }
        assert!(converted > 50, "about half of all u are on the curve");
    }

    #[test]
    fn u_beyond_p_and_minus_one_are_refused() {
        let edge = |low: u8, high: u8| {
            let mut bytes = [0xff; 33];
            bytes[0] = 5;
            bytes[1] = low;
            bytes[32] = high;
            IdentityKey::from_bytes(&bytes).unwrap()
        };
        for low in 0xe8..=0xff {
            for high in [0x7f, 0xff] {
                let key = edge(low, high);
                assert_eq!(key.verify(b"message", &[0; 64]), Err(BadSignature));
                let u = key.as_public_key().u();
                assert_eq!(below_p(&u), low < 0xed && high == 0x7f);
            }
        }
        assert!(
            MontgomeryPoint(edge(0xec, 0x7f).as_public_key().u())
                .to_edwards(0)
                .is_none()
        );
    }

    #[test]
    fn signing_key_prints_nothing() {
        let key = SigningKey::new(&PrivateKey::from_bytes(&[7; 32]));
        assert_eq!(format!("{key:?}"), "SigningKey { .. }");
    }
}
