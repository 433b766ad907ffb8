//! Symmetric chains (the protocol, §4.1 and §4.2).

use sprag_crypto::hmac;

use crate::header_key::HeaderKey;
use crate::secret::secret;
use crate::skipped::{MessageSeed, SkippedKey};

secret! {
    /// Chain key `CK`, 32 bytes.
    pub(crate) struct ChainKey;
}

impl ChainKey {
    /// Gives the seed at this position and moves to the next one.
    pub(crate) fn advance(&mut self) -> MessageSeed {
        let seed = MessageSeed::from_bytes(&hmac(&self.0, &[&[0x01]]));
        self.pass();
        seed
    }

    /// Moves to the next position; the seed of this one is never made.
    pub(crate) fn pass(&mut self) {
        self.0 = *hmac(&self.0, &[&[0x02]]);
    }
}

/// `CKs, Ns, HKs`.
#[derive(Clone, Debug)]
pub(crate) struct SendingChain {
    pub(crate) key: ChainKey,
    pub(crate) next: u32,
    pub(crate) header_key: HeaderKey,
}

/// `CKr, Nr, HKr`.
#[derive(Clone, Debug)]
pub(crate) struct ReceivingChain {
    pub(crate) key: ChainKey,
    pub(crate) next: u32,
    pub(crate) header_key: HeaderKey,
}

impl ReceivingChain {
    /// How many messages lie between the next expected one and `number`.
    pub(crate) fn gap(&self, number: u32) -> u32 {
        number.saturating_sub(self.next)
    }

    /// *Skip to n* (§4.3): appends the seeds `next .. number` to `stored`, but only the last `keep` of them: the
    /// others would be dropped at once. The chain key passes over them all the same. The caller has bounded the gap.
    pub(crate) fn skip(
        &mut self,
        chain: u32,
        number: u32,
        keep: usize,
        stored: &mut Vec<SkippedKey>,
    ) {
        let keep = u32::try_from(keep).unwrap_or(u32::MAX);
        let first = number.saturating_sub(keep).max(self.next);
        for _ in self.next..first {
            self.key.pass();
        }
        for number in first..number {
            let seed = self.key.advance();
            stored.push(SkippedKey {
                chain,
                number,
                seed,
            });
        }
        self.next = self.next.max(number);
    }

    /// The seed of the next message, and one further; `None` at the end of the chain.
    pub(crate) fn take_next(&mut self) -> Option<MessageSeed> {
        let next = self.next.checked_add(1)?;
        let seed = self.key.advance();
        self.next = next;
        Some(seed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{bytes32, vectors};

    fn chain() -> ReceivingChain {
        ReceivingChain {
            key: ChainKey::from_bytes(&[5; 32]),
            next: 3,
            header_key: HeaderKey::from_bytes(&[6; 32]),
        }
    }

    #[test]
    fn a_chain_step_gives_the_published_values() {
        let case = &vectors()["primitives"]["chain"];
        let mut key = ChainKey::from_bytes(&bytes32(&case["ck"]));
        assert_eq!(*key.advance().as_bytes(), bytes32(&case["seed"]));
        assert_eq!(*key.as_bytes(), bytes32(&case["next_ck"]));
    }

    #[test]
    fn skipping_with_a_bound_stores_the_last_seeds_of_a_full_skip_and_ends_at_the_same_key() {
        let (mut full, mut bounded) = (chain(), chain());
        let (mut all, mut some) = (Vec::new(), Vec::new());
        full.skip(9, 20, usize::MAX, &mut all);
        bounded.skip(9, 20, 4, &mut some);
        assert_eq!(all.len(), 17);
        assert_eq!(some.len(), 4);
        for (a, b) in all.iter().skip(13).zip(&some) {
            assert_eq!((a.chain, a.number), (b.chain, b.number));
            assert_eq!(a.seed.as_bytes(), b.seed.as_bytes());
        }
        assert_eq!(full.next, 20);
        assert_eq!(bounded.next, 20);
        assert_eq!(full.key.as_bytes(), bounded.key.as_bytes());
    }

    #[test]
    fn skipping_backwards_or_nowhere_changes_nothing() {
        let mut moved = chain();
        let mut stored = Vec::new();
        moved.skip(9, 3, 4, &mut stored);
        moved.skip(9, 0, 4, &mut stored);
        assert!(stored.is_empty());
        assert_eq!(moved.next, 3);
        assert_eq!(moved.key.as_bytes(), chain().key.as_bytes());
    }

    #[test]
    fn the_number_after_the_last_one_does_not_exist() {
        let mut last = chain();
        last.next = u32::MAX;
        assert!(last.take_next().is_none());
        assert_eq!(last.key.as_bytes(), chain().key.as_bytes());
    }

    #[test]
    fn debug_shows_no_key() {
        let text = format!("{:?}", chain());
        assert!(text.contains("ChainKey { .. }"));
        assert!(text.contains("HeaderKey { .. }"));
    }
}
