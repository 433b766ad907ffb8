//! Physical names: what a store tells of its rows to whoever reads the disk.
//!
//! ```text
//! plain  table ‖ suffix
//! owned  table ‖ HMAC(blinding key of the epoch, inner)[..16] ‖ suffix,  inner = HMAC(names key, owner)[..16]
//! ```
//!
//! The names key stays for the life of the store, the blinding key changes with the epoch. The sealed value of a row
//! carries `inner`, so that a store can be renewed, under other names, without knowing who the owners are.

use std::collections::HashMap;
use std::fmt;

use sprag_crypto::hmac;
use zeroize::Zeroizing;

use crate::labels;
use crate::manifest::StoreKeys;
use crate::rows::RowName;
use crate::sync::Mutex;
use crate::sys::lock;

/// The size of a blinded owner, and of the inner one.
pub(crate) const BLIND_LEN: usize = 16;

/// The owner under the names key: the same in every epoch.
pub(crate) type Inner = [u8; BLIND_LEN];

/// An owner under both keys: the inner id, and what stands in physical names.
type Blinded = (Inner, [u8; BLIND_LEN]);

/// Blinds owners.
pub(crate) struct Blinder {
    names: Zeroizing<[u8; 32]>,
    blinding: Zeroizing<[u8; 32]>,
    /// Owners that were blinded lately: a step of a session names the same one many times.
    known: Mutex<HashMap<Vec<u8>, Blinded>>,
}

/// A row as the backend knows it.
pub(crate) struct Physical {
    pub(crate) key: Vec<u8>,
    pub(crate) inner: Option<Inner>,
}

impl Blinder {
    pub(crate) fn new(keys: &StoreKeys) -> Self {
        Self {
            names: keys.permanent(labels::NAMES),
            blinding: keys.of_epoch(labels::BLINDING),
            known: Mutex::default(),
        }
    }

    /// The physical name of a row, or what the physical names of all rows below a prefix begin with.
    pub(crate) fn physical(&self, name: &RowName) -> Physical {
        let mut key = Vec::with_capacity(1 + BLIND_LEN + name.suffix().len());
        key.push(name.table());
        let inner = name.owner().map(|owner| {
            let (inner, blinded) = self.owner(owner);
            key.extend_from_slice(&blinded);
            inner
        });
        key.extend_from_slice(name.suffix());
        Physical { key, inner }
    }

    /// The physical name in this epoch of a row that had another in an earlier one; `None` if that was none.
    #[cfg(any(feature = "sled", feature = "redb"))]
    pub(crate) fn rename(&self, key: &[u8], inner: Option<&Inner>) -> Option<Vec<u8>> {
        let Some(inner) = inner else {
            return Some(key.to_vec());
        };
        let (table, rest) = key.split_first()?;
        let (_, suffix) = rest.split_first_chunk::<BLIND_LEN>()?;
        let blinded = half(&hmac(self.blinding.as_slice(), &[inner]));
        Some([&[*table], blinded.as_slice(), suffix].concat())
    }

    fn owner(&self, owner: &[u8]) -> Blinded {
        if let Some(blinded) = lock(&self.known).get(owner) {
            return *blinded;
        }
        let inner = half(&hmac(self.names.as_slice(), &[owner]));
        let blinded = half(&hmac(self.blinding.as_slice(), &[&inner]));
        let mut known = lock(&self.known);
        if known.len() >= MAX_KNOWN {
            known.clear();
        }
        known.insert(owner.to_vec(), (inner, blinded));
        (inner, blinded)
    }
}

impl fmt::Debug for Blinder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Blinder").finish_non_exhaustive()
    }
}

/// Owners kept in mind at most: about 100 KiB.
const MAX_KNOWN: usize = 1_024;

fn half(whole: &[u8; 32]) -> [u8; BLIND_LEN] {
    let (half, _) = whole.split_at(BLIND_LEN);
    half.try_into().unwrap_or_default()
}
