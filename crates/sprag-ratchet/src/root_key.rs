//! The root key and its KDF (the protocol, §4.2).

use sprag_crypto::{SharedSecret, hkdf, labels};

use crate::chain::ChainKey;
use crate::header_key::HeaderKey;
use crate::secret::secret;

secret! {
    /// Root key `RK`, 32 bytes.
    pub(crate) struct RootKey;
}

impl RootKey {
    /// `KDF_RK(RK, dh)` → next root key, chain key, next header key.
    pub(crate) fn step(&self, shared: &SharedSecret) -> (Self, ChainKey, HeaderKey) {
        self.step_with(shared.as_bytes())
    }

    fn step_with(&self, dh: &[u8; 32]) -> (Self, ChainKey, HeaderKey) {
        let okm = hkdf::<96>(self.as_bytes(), dh, &[labels::RATCHET]);
        let [root, chain, header] = thirds(&okm);
        (
            Self::from_bytes(root),
            ChainKey::from_bytes(chain),
            HeaderKey::from_bytes(header),
        )
    }
}

/// Borrows the three 32-byte parts of 96 bytes.
fn thirds(okm: &[u8; 96]) -> [&[u8; 32]; 3] {
    static NOTHING: [u8; 32] = [0; 32];
    let (parts, _) = okm.as_chunks::<32>();
    match parts {
        [a, b, c] => [a, b, c],
        _ => [&NOTHING; 3], // 96 = 3 × 32: not reachable
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{bytes32, vectors};

    #[test]
    fn kdf_rk_gives_the_published_values() {
        let case = &vectors()["primitives"]["kdf_rk"];
        let root = RootKey::from_bytes(&bytes32(&case["rk"]));
        let (root, chain, header) = root.step_with(&bytes32(&case["dh"]));
        assert_eq!(*root.as_bytes(), bytes32(&case["new_rk"]));
        assert_eq!(*chain.as_bytes(), bytes32(&case["ck"]));
        assert_eq!(*header.as_bytes(), bytes32(&case["nhk"]));
    }

    #[test]
    fn another_root_or_another_dh_gives_three_other_keys() {
        let (a, b, c) = RootKey::from_bytes(&[1; 32]).step_with(&[2; 32]);
        for (root, dh) in [([2; 32], [2; 32]), ([1; 32], [1; 32])] {
            let (x, y, z) = RootKey::from_bytes(&root).step_with(&dh);
            assert_ne!(a.as_bytes(), x.as_bytes());
            assert_ne!(b.as_bytes(), y.as_bytes());
            assert_ne!(c.as_bytes(), z.as_bytes());
        }
        assert_ne!(a.as_bytes(), b.as_bytes());
        assert_ne!(b.as_bytes(), c.as_bytes());
    }

    #[test]
    fn debug_shows_nothing() {
        assert_eq!(
            format!("{:?}", RootKey::from_bytes(&[7; 32])),
            "RootKey { .. }"
        );
    }
}
