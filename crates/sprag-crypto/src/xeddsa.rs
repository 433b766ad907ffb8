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
