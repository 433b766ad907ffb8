//! Seeds of messages not yet seen, and the limits on them (the protocol, §4.3 and §10).

use crate::error::SkippedUnavailable;
use crate::secret::secret;

secret! {
    /// The 32-byte seed of one message key. What `skipped` holds, because the salt is known only when the message
    /// arrives (the protocol, §4.2).
    pub struct MessageSeed;
}

/// Where a skipped key belongs: chain index and number. The order is that of storing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub struct SkippedIndex {
    /// Index of the receiving chain. (It stands for the `kid` of the protocol: a session has one chain per index.)
    pub chain: u32,
    /// Number of the message in its chain.
    pub number: u32,
}

impl SkippedIndex {
    /// The place of message `number` of receiving chain `chain`.
    #[must_use]
    pub const fn new(chain: u32, number: u32) -> Self {
        Self { chain, number }
    }
}

/// A skipped key to store.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct SkippedKey {
    /// Index of the receiving chain.
    pub chain: u32,
    /// Number of the message in its chain.
    pub number: u32,
    /// The seed of its key.
    pub seed: MessageSeed,
}

impl SkippedKey {
    /// Its place.
    #[must_use]
    pub const fn index(&self) -> SkippedIndex {
        SkippedIndex::new(self.chain, self.number)
    }
}

/// What one message changed among the skipped keys: to be written in the same batch as the session. No place is in
/// both lists.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct SkippedChanges {
    /// Keys to store, ascending.
    pub stored: Vec<SkippedKey>,
    /// Keys to delete, ascending: the one that was used, those beyond the limit, those of a chain that was dropped.
    pub deleted: Vec<SkippedIndex>,
}

impl SkippedChanges {
    /// Whether there is nothing to write.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.stored.is_empty() && self.deleted.is_empty()
    }
}

/// The skipped keys of one session, as the caller stores them: exactly those that all [`SkippedChanges`] so far add
/// up to. Only what is asked for needs to be read.
pub trait SkippedKeys {
    /// The seed stored at a place, if any.
    ///
    /// # Errors
    ///
    /// [`SkippedUnavailable`] if the store cannot tell.
    fn seed(&self, at: SkippedIndex) -> Result<Option<MessageSeed>, SkippedUnavailable>;

    /// The first `count` places in ascending order (all, if there are fewer).
    ///
    /// # Errors
    ///
    /// [`SkippedUnavailable`] if the store cannot tell.
    fn oldest(&self, count: usize) -> Result<Vec<SkippedIndex>, SkippedUnavailable>;

    /// All places of one chain in ascending order.
    ///
    /// # Errors
    ///
    /// [`SkippedUnavailable`] if the store cannot tell.
    fn of_chain(&self, chain: u32) -> Result<Vec<SkippedIndex>, SkippedUnavailable>;
}

/// The skipped keys of a session that has none, such as one that is made for its first message.
#[derive(Debug, Clone, Copy, Default)]
#[expect(clippy::exhaustive_structs, reason = "a unit: it has no keys")]
pub struct NoSkippedKeys;

impl SkippedKeys for NoSkippedKeys {
    fn seed(&self, _: SkippedIndex) -> Result<Option<MessageSeed>, SkippedUnavailable> {
        Ok(None)
    }

    fn oldest(&self, _: usize) -> Result<Vec<SkippedIndex>, SkippedUnavailable> {
        Ok(Vec::new())
    }

    fn of_chain(&self, _: u32) -> Result<Vec<SkippedIndex>, SkippedUnavailable> {
        Ok(Vec::new())
    }
}

/// How far a peer may make us work and store (the protocol, §4.3 and §10).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Longest forward jump in one chain; one message can make two (PN and N).
    pub max_skip: u32,
    /// Most skipped keys of one session.
    pub max_stored: usize,
}

impl Limits {
    /// For accepted users: 25,000 and 2,000. 50,000 HMACs are about 25 ms, only behind two seals; 2,000 rows 88 kB.
    pub const ACCEPTED: Self = Self {
        max_skip: 25_000,
        max_stored: 2_000,
    };
    /// For users who are not accepted: 256 and 256.
    pub const STRANGER: Self = Self {
        max_skip: 256,
        max_stored: 256,
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_ordered_by_chain_then_number() {
        assert!(SkippedIndex::new(1, 900) < SkippedIndex::new(2, 0));
        assert!(SkippedIndex::new(2, 0) < SkippedIndex::new(2, 1));
    }

    #[test]
    fn debug_shows_the_place_and_not_the_seed() {
        let key = SkippedKey {
            chain: 1,
            number: 2,
            seed: MessageSeed::from_bytes(&[0xAB; 32]),
        };
        assert_eq!(
            format!("{key:?}"),
            "SkippedKey { chain: 1, number: 2, seed: MessageSeed { .. } }"
        );
    }
}
