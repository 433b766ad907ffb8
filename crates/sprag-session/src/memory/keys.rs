//! Keys and names of spaces ("Memories", *Keys*).

use std::fmt;

use sprag_crypto::{SealKey, hkdf, hmac, labels, put_lp};
use zeroize::Zeroizing;

use super::space::{RecordId, Space, SpaceKind};
use crate::shares::Generation;

/// The name of an object at a server: 32 bytes that say nothing.
pub type ObjectName = [u8; 32];

/// Names the objects of an account; derived from the account root, encrypts nothing. Wiped when dropped.
pub struct NamesKey(Zeroizing<[u8; 32]>);

impl fmt::Debug for NamesKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NamesKey").finish_non_exhaustive()
    }
}

impl NamesKey {
    /// From the account root, 32 bytes.
    #[must_use]
    pub fn new(account_root: &[u8; 32]) -> Self {
        Self(hkdf(&[], account_root, &[labels::NAMES]))
    }

    /// The object that lists spaces and generations.
    #[must_use]
    pub fn root(&self) -> ObjectName {
        self.name(b"root", &[])
    }

    /// The head of a space; that of the root is [`root`](Self::root).
    #[must_use]
    pub fn head(&self, space: &Space) -> ObjectName {
        if space.kind() == SpaceKind::Root {
            return self.root();
        }
        self.name(b"head", &space.parts())
    }

    /// Names a record in rows at rest: 16 bytes.
    pub(crate) fn record(&self, head: &ObjectName, id: &RecordId) -> [u8; 16] {
        let name = self.name(b"record", &[head, id.as_bytes()]);
        name.first_chunk().copied().unwrap_or_default()
    }

    fn name(&self, what: &[u8], parts: &[&[u8]]) -> ObjectName {
        let mut name = Vec::new();
        put_lp(&mut name, what);
        parts.iter().for_each(|part| put_lp(&mut name, part));
        *hmac(self.0.as_slice(), &[&name])
    }
}

/// Seals heads and segments of one space under one generation. Wiped when dropped.
#[derive(Clone)]
pub struct SpaceKey(SealKey);

impl fmt::Debug for SpaceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SpaceKey").finish_non_exhaustive()
    }
}

impl SpaceKey {
    /// The key of a space under a generation.
    #[must_use]
    pub fn new(generation: &Generation, space: &Space) -> Self {
        let mut info = labels::SPACE.to_vec();
        space
            .parts()
            .iter()
            .for_each(|part| put_lp(&mut info, part));
        let key: Zeroizing<[u8; 32]> = hkdf(&[], &generation.key, &[&info]);
        Self(SealKey::from_bytes(&key))
    }

    pub(crate) fn seal_key(&self) -> &SealKey {
        &self.0
    }
}

/// Tells the keys of one generation number apart: 8 bytes that say nothing of the key.
#[must_use]
pub fn generation_id(generation: &Generation) -> [u8; 8] {
    let id = hmac(&generation.key, &[labels::GENERATION]);
    id.first_chunk().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn spaces_have_names_and_keys_of_their_own() {
        let generation = |byte| Generation {
            epoch: 1,
            number: 1,
            key: [byte; 32],
        };
        let space = |app, user, agent, kind| Space::new(app, user, agent, kind).unwrap();
        let spaces = [
            space("app", "ann", None, SpaceKind::Memory),
            space("app", "ann", None, SpaceKind::Chat),
            space("app", "ann", None, SpaceKind::File),
            space("app", "ann", Some("bot"), SpaceKind::Memory),
            // The parts cannot flow into each other.
            space("ap", "pann", None, SpaceKind::Memory),
            space("app", "annbot", None, SpaceKind::Memory),
        ];
        let mut names = BTreeSet::new();
        let mut keys = BTreeSet::new();
        for space in &spaces {
            for root in [[1; 32], [2; 32]] {
                names.insert(NamesKey::new(&root).head(space));
                names.insert(NamesKey::new(&root).root());
            }
            for byte in [1, 2] {
                keys.insert(*SpaceKey::new(&generation(byte), space).0.as_bytes());
            }
        }
        assert_eq!(names.len(), 2 * spaces.len() + 2);
        assert_eq!(keys.len(), 2 * spaces.len());
        assert_ne!(generation_id(&generation(1)), generation_id(&generation(2)));
    }
}
