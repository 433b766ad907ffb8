//! How two processes that open the same store prove it to each other, and talk under keys that only they have.
//!
//! ```text
//! P            = HKDF(store id, storage key, "Sprag/1 store proof", 32)
//! proof(side)  = HMAC(P, "Sprag/1 store proof" ‖ side u8 ‖ guest's nonce(32) ‖ host's nonce(32))
//! frame        = seal(HKDF(guest's nonce ‖ host's nonce, P, "Sprag/1 store channel" ‖ side u8, 32),
//!                     "Sprag/1 store channel", number u64, content)
//! ```
//!
//! The side is 1 for the guest and 2 for the host: that of whom the proof or frame is. Frames of a side are numbered from
//! 0 on. `P` is of the epoch: whoever can open an older copy only proves nothing.

use std::fmt;
#[cfg(any(feature = "sled", feature = "redb"))]
use std::path::Path;

use rand_core::CryptoRng;
use sprag_crypto::{SealKey, hkdf, hmac, hmac_is};
#[cfg(any(feature = "sled", feature = "redb"))]
use sprag_keys::Key;
use zeroize::Zeroizing;

use crate::labels;
use crate::manifest::StoreKeys;
#[cfg(any(feature = "sled", feature = "redb"))]
use crate::{StoreError, home};

/// The size of a nonce and of a proof in bytes.
pub const PROOF_LEN: usize = 32;

/// One of the two processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ProofSide {
    /// It asks.
    Guest,
    /// It has the store open, and answers.
    Host,
}

impl ProofSide {
    fn number(self) -> u8 {
        match self {
            Self::Guest => 1,
            Self::Host => 2,
        }
    }

    fn other(self) -> Self {
        match self {
            Self::Guest => Self::Host,
            Self::Host => Self::Guest,
        }
    }
}

/// The numbers that the two drew for one conversation. A process must draw its own anew each time.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(
    clippy::exhaustive_structs,
    reason = "two sides, and a nonce of each: nothing is to come"
)]
pub struct ProofNonces {
    /// That of the guest.
    pub guest: [u8; PROOF_LEN],
    /// That of the host.
    pub host: [u8; PROOF_LEN],
}

/// What both can prove, and nobody else: 32 bytes, wiped when dropped. It opens nothing of the store.
#[derive(Clone)]
pub struct ProofKey(Zeroizing<[u8; 32]>);

impl ProofKey {
    /// Reads it out of a store that somebody else may have open. Locks nothing, and changes nothing.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], [`StoreError::WrongKey`], [`StoreError::Key`], [`StoreError::Damaged`],
    /// [`StoreError::UnsupportedVersion`], and those of the disk.
    #[cfg(any(feature = "sled", feature = "redb"))]
    pub fn read(home: impl AsRef<Path>, key: &Key) -> Result<Self, StoreError> {
        let manifest = home::read_manifest(home.as_ref())?;
        Ok(manifest.unlock(key)?.proof_key())
    }

    /// What shows the other side that this one has the key. It tells nothing of the key, and is good for these nonces alone.
    #[must_use]
    pub fn prove(&self, side: ProofSide, nonces: &ProofNonces) -> [u8; PROOF_LEN] {
        *hmac(self.0.as_slice(), &parts(&[side.number()], nonces))
    }

    /// Whether somebody on that side has the key.
    #[must_use]
    pub fn is_proof(&self, side: ProofSide, nonces: &ProofNonces, proof: &[u8; PROOF_LEN]) -> bool {
        hmac_is(self.0.as_slice(), &parts(&[side.number()], nonces), proof)
    }

    /// The conversation that follows, as this side has it.
    #[must_use]
    pub fn channel(&self, side: ProofSide, nonces: &ProofNonces) -> ProofChannel {
        let salt = [nonces.guest, nonces.host].concat();
        let direction = |side: ProofSide| {
            let key = hkdf(
                &salt,
                self.0.as_slice(),
                &[labels::CHANNEL, &[side.number()]],
            );
            Direction {
                key: SealKey::from_bytes(&key),
                number: 0,
            }
        };
        ProofChannel {
            sends: direction(side),
            receives: direction(side.other()),
        }
    }
}

impl fmt::Debug for ProofKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProofKey").finish_non_exhaustive()
    }
}

impl StoreKeys {
    /// What two that have these keys can prove to each other.
    #[must_use]
    pub fn proof_key(&self) -> ProofKey {
        ProofKey(self.of_epoch(labels::PROOF))
    }
}

/// A conversation of two that proved to have the key: whoever passes it on reads, changes, repeats and leaves out nothing
/// unnoticed.
pub struct ProofChannel {
    sends: Direction,
    receives: Direction,
}

impl fmt::Debug for ProofChannel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProofChannel").finish_non_exhaustive()
    }
}

struct Direction {
    key: SealKey,
    number: u64,
}

impl ProofChannel {
    /// Seals the next frame, which is [`SEAL_OVERHEAD`](sprag_crypto::SEAL_OVERHEAD) (32) bytes longer. Draws 16 bytes.
    #[must_use]
    pub fn seal(&mut self, content: &[u8], rng: &mut (impl CryptoRng + ?Sized)) -> Vec<u8> {
        let Direction { key, number } = &mut self.sends;
        let sealed = key.seal(labels::CHANNEL, &number.to_be_bytes(), content, rng);
        *number = number.saturating_add(1);
        sealed
    }

    /// Opens the next frame of the other side. `None` for anything else; then the conversation is over.
    #[must_use]
    pub fn open(&mut self, frame: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        let Direction { key, number } = &mut self.receives;
        let content = key.open(labels::CHANNEL, &number.to_be_bytes(), frame);
        let content = content.ok()?;
        *number = number.saturating_add(1);
        Some(content)
    }
}

fn parts<'a>(side: &'a [u8; 1], nonces: &'a ProofNonces) -> [&'a [u8]; 4] {
    [labels::PROOF, side, &nonces.guest, &nonces.host]
}

#[cfg(test)]
mod tests {
    use rand_chacha::ChaCha20Rng;
    use rand_chacha::rand_core::SeedableRng;

    use super::ProofSide::{Guest, Host};
    use super::*;

    fn key(seed: u8) -> ProofKey {
        StoreKeys::generate(&mut ChaCha20Rng::from_seed([seed; 32])).proof_key()
    }

    fn nonces() -> ProofNonces {
        ProofNonces {
            guest: [1; 32],
            host: [2; 32],
        }
    }

    #[test]
    fn a_proof_is_good_for_its_key_its_side_and_its_nonces_alone() {
        let (key, other, nonces) = (key(1), key(2), nonces());
        let proof = key.prove(Guest, &nonces);
        assert!(key.is_proof(Guest, &nonces, &proof));
        assert!(!key.is_proof(Host, &nonces, &proof));
        assert!(!other.is_proof(Guest, &nonces, &proof));
        let swapped = ProofNonces {
            guest: nonces.host,
            host: nonces.guest,
        };
        assert!(!key.is_proof(Guest, &swapped, &proof));
        for at in 0..32 {
            let mut forged = proof;
            forged[at] ^= 1;
            assert!(!key.is_proof(Guest, &nonces, &forged));
            let mut later = nonces.clone();
            later.host[at] ^= 1;
            assert!(!key.is_proof(Guest, &later, &proof));
        }
    }

    #[test]
    fn two_with_the_key_talk_and_one_in_between_changes_repeats_and_leaves_out_nothing() {
        let mut rng = ChaCha20Rng::from_seed([3; 32]);
        let (key, nonces) = (key(1), nonces());
        let mut guest = key.channel(Guest, &nonces);
        let mut host = key.channel(Host, &nonces);
        let first = guest.seal(b"first", &mut rng);
        let second = guest.seal(b"second", &mut rng);
        assert_eq!(first.len(), 5 + 32);
        assert!(host.open(&second).is_none(), "left out");
        assert!(guest.open(&first).is_none(), "turned round");
        let mut changed = first.clone();
        changed[20] ^= 1;
        assert!(host.open(&changed).is_none(), "changed");
        assert!(host.open(&first[..31]).is_none(), "cut");
        assert_eq!(host.open(&first).unwrap().as_slice(), b"first");
        assert!(host.open(&first).is_none(), "repeated");
        assert_eq!(host.open(&second).unwrap().as_slice(), b"second");
        let answer = host.seal(b"answer", &mut rng);
        assert_eq!(guest.open(&answer).unwrap().as_slice(), b"answer");
    }

    #[test]
    fn another_conversation_and_another_key_open_no_frame() {
        let mut rng = ChaCha20Rng::from_seed([3; 32]);
        let nonces = nonces();
        let frame = key(1).channel(Guest, &nonces).seal(b"first", &mut rng);
        assert!(key(2).channel(Host, &nonces).open(&frame).is_none());
        let mut later = nonces.clone();
        later.host[0] ^= 1;
        assert!(key(1).channel(Host, &later).open(&frame).is_none());
    }

    #[cfg(any(feature = "sled", feature = "redb"))]
    #[test]
    fn whoever_has_the_key_reads_it_while_the_store_is_open_and_an_older_copy_proves_nothing() {
        use crate::Store;
        let dir = tempfile::tempdir().unwrap();
        let key = Key::raw([7; 32]);
        let nonces = nonces();
        let missing = ProofKey::read(dir.path().join("nothing"), &key);
        assert!(matches!(missing, Err(StoreError::NotFound)));
        let rng = || ChaCha20Rng::from_seed([4; 32]);
        let store = Store::create(dir.path(), &key, rng()).unwrap();
        let before = ProofKey::read(dir.path(), &key).unwrap();
        let proof = before.prove(Guest, &nonces);
        let host = store.proof_key().unwrap();
        assert!(host.is_proof(Guest, &nonces, &proof));
        let wrong = ProofKey::read(dir.path(), &Key::raw([8; 32]));
        assert!(matches!(wrong, Err(StoreError::WrongKey)));

        store.change_key(&Key::raw([9; 32])).unwrap();
        let host = store.proof_key().unwrap();
        assert!(!host.is_proof(Guest, &nonces, &proof));
        let after = ProofKey::read(dir.path(), &Key::raw([9; 32])).unwrap();
        assert!(host.is_proof(Guest, &nonces, &after.prove(Guest, &nonces)));
        store.close().unwrap();
        assert!(matches!(store.proof_key(), Err(StoreError::Closed)));
        let memory = Store::in_memory(rng()).unwrap();
        assert!(matches!(memory.proof_key(), Err(StoreError::NotRenewable)));
    }

    #[test]
    fn debug_shows_no_key() {
        assert_eq!(format!("{:?}", key(1)), "ProofKey { .. }");
        let channel = key(1).channel(Guest, &nonces());
        assert_eq!(format!("{channel:?}"), "ProofChannel { .. }");
    }
}
