//! What a reader has, and how it opens a slot (`docs/VAULT.md`, *Reading*).

use std::fmt;

use sprag_crypto::{Argon2Params, RecipientPrivateKey, passphrase};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::body::Body;
use crate::header::Header;
use crate::key::HeaderKey;
use crate::kms::Kms;
use crate::recipients::{PASSPHRASE_AAD, RECIPIENT_AAD, RECIPIENT_INFO};
use crate::slot::{self, Slot};
use crate::{Context, DataKey, KmsError, OpenError};

/// Everything with which a reader tries to open a blob. Slots are tried in their order; each that opens to another key than
/// the blob is committed to counts as one that did not open.
///
/// ```
/// # use sprag_vault::{DataKey, Unlock};
/// # let key = DataKey::from_bytes(&[2; 32]);
/// let unlock = Unlock::new().direct("k1", key).passphrase("correct horse");
/// ```
#[derive(Default, Clone)]
pub struct Unlock<'a> {
    direct: Vec<(Vec<u8>, DataKey)>,
    kms: Vec<(Vec<u8>, &'a dyn Kms)>,
    private: Vec<(Vec<u8>, RecipientPrivateKey)>,
    passphrase: Option<Zeroizing<Vec<u8>>>,
    limits: PassphraseLimits,
}

impl fmt::Debug for Unlock<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Unlock").finish_non_exhaustive()
    }
}

impl<'a> Unlock<'a> {
    /// Nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A data key under its id, for direct slots.
    #[must_use]
    pub fn direct(mut self, id: impl AsRef<[u8]>, key: DataKey) -> Self {
        self.direct.push((id.as_ref().to_vec(), key));
        self
    }

    /// A key service, asked about slots of this id and about no others: a blob cannot make anybody send it to a service that
    /// the caller did not name.
    #[must_use]
    pub fn kms(mut self, id: impl AsRef<[u8]>, kms: &'a dyn Kms) -> Self {
        self.kms.push((id.as_ref().to_vec(), kms));
        self
    }

    /// A private key, for slots that were sealed to its public half under this id.
    #[must_use]
    pub fn private_key(mut self, id: impl AsRef<[u8]>, key: RecipientPrivateKey) -> Self {
        self.private.push((id.as_ref().to_vec(), key));
        self
    }

    /// A passphrase, tried on every passphrase slot. Its UTF-8 bytes are taken as they are, without normalisation.
    #[must_use]
    pub fn passphrase(mut self, passphrase: &str) -> Self {
        self.passphrase = Some(Zeroizing::new(passphrase.as_bytes().to_vec()));
        self
    }

    /// What a passphrase slot may cost at most. A slot above it is not tried.
    #[must_use]
    pub fn limits(mut self, limits: PassphraseLimits) -> Self {
        self.limits = limits;
        self
    }

    /// The data key of a blob, by the first slot that opens to it.
    fn data_key(&self, header: &Header) -> Result<DataKey, OpenError> {
        let fits = |key: &DataKey| header.commits_to(key);
        let mut worst = OpenError::WrongKey;
        for slot in header.slots() {
            match self.open_slot(slot, &fits) {
                Ok(Some(key)) => return Ok(key),
                Ok(None) => {}
                Err(Untried::Unreachable) => worst = OpenError::Unavailable,
                Err(Untried::Cost) if worst == OpenError::WrongKey => worst = OpenError::Limit,
                Err(Untried::Cost) => {}
            }
        }
        Err(worst)
    }

    fn open_slot(
        &self,
        slot: &Slot,
        fits: &dyn Fn(&DataKey) -> bool,
    ) -> Result<Option<DataKey>, Untried> {
        match slot.type_byte() {
            slot::DIRECT => Ok(of_id(&self.direct, slot.id())
                .find(|key| fits(key))
                .cloned()),
            slot::KMS => self.ask(slot, fits),
            slot::RECIPIENT => {
                let open = |key: &RecipientPrivateKey| {
                    let opened = key.open(RECIPIENT_INFO, RECIPIENT_AAD, slot.body()).ok()?;
                    DataKey::from_slice(&opened).filter(fits)
                };
                Ok(of_id(&self.private, slot.id()).find_map(open))
            }
            slot::PASSPHRASE => self.stretch(slot, fits),
            _ => Ok(None),
        }
    }

    fn ask(
        &self,
        slot: &Slot,
        fits: &dyn Fn(&DataKey) -> bool,
    ) -> Result<Option<DataKey>, Untried> {
        let mut unreachable = false;
        for kms in of_id(&self.kms, slot.id()) {
            match kms.unwrap_key(slot.id(), slot.body()) {
                Ok(key) => {
                    if let Some(key) = DataKey::from_slice(&key).filter(fits) {
                        return Ok(Some(key));
                    }
                }
                Err(KmsError::Unreachable) => unreachable = true,
                Err(_) => {}
            }
        }
        if unreachable {
            Err(Untried::Unreachable)
        } else {
            Ok(None)
        }
    }

    fn stretch(
        &self,
        slot: &Slot,
        fits: &dyn Fn(&DataKey) -> bool,
    ) -> Result<Option<DataKey>, Untried> {
        let (Some(passphrase), Some(body)) = (&self.passphrase, slot.passphrase()) else {
            return Ok(None);
        };
        if !self.limits.allow(body.params) {
            return Err(Untried::Cost);
        }
        // What can fail within the bounds is memory.
        let key =
            passphrase::derive(passphrase, body.salt, body.params).map_err(|_| Untried::Cost)?;
        let opened = sprag_crypto::open(&key, body.nonce, PASSPHRASE_AAD, body.sealed).ok();
        Ok(opened
            .and_then(|key| DataKey::from_slice(&key))
            .filter(fits))
    }
}

/// Why a slot was not tried.
enum Untried {
    Unreachable,
    Cost,
}

fn of_id<'k, K>(keys: &'k [(Vec<u8>, K)], id: &[u8]) -> impl Iterator<Item = &'k K> {
    keys.iter()
        .filter(move |(name, _)| name == id)
        .map(|(_, key)| key)
}

/// What a passphrase slot may cost a reader. The format's own bounds hold besides: 1 GiB, 16 passes, 8 lanes, 4 GiB times
/// passes, four slots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PassphraseLimits {
    memory_kib: u32,
    passes: u32,
    lanes: u32,
}

impl PassphraseLimits {
    /// Those of the format: 1 GiB, 16 passes, 8 lanes. A phone should have lower ones.
    pub const FORMAT: Self = Self::new(1024 * 1024, 16, 8);

    /// Memory in KiB, passes, lanes.
    #[must_use]
    pub const fn new(memory_kib: u32, passes: u32, lanes: u32) -> Self {
        Self {
            memory_kib,
            passes,
            lanes,
        }
    }

    fn allow(self, params: Argon2Params) -> bool {
        params.memory_kib() <= self.memory_kib
            && params.passes() <= self.passes
            && params.lanes() <= self.lanes
    }
}

impl Default for PassphraseLimits {
    fn default() -> Self {
        Self::FORMAT
    }
}

/// A header that was authenticated, with the keys that it gave.
pub(crate) struct Unlocked {
    pub(crate) key: DataKey,
    pub(crate) header_key: HeaderKey,
}

impl Header {
    /// Finds the data key and checks the header under it: steps 2 and 3 of *Reading*.
    pub(crate) fn unlock(
        &self,
        unlock: &Unlock<'_>,
        context: &Context,
    ) -> Result<Unlocked, OpenError> {
        let key = unlock.data_key(self)?;
        let header_key = key.header_key(&self.core().salt, self.core().suite);
        let expected = self.expected_mac(&header_key, context);
        if !bool::from(expected.ct_eq(self.mac())) {
            return Err(OpenError::ContextOrHeader);
        }
        Ok(Unlocked { key, header_key })
    }

    /// The same, for the payload.
    pub(crate) fn unlock_body(
        &self,
        unlock: &Unlock<'_>,
        context: &Context,
    ) -> Result<Body, OpenError> {
        let unlocked = self.unlock(unlock, context)?;
        Ok(Body::new(
            self.core(),
            &unlocked.key,
            &unlocked.header_key,
            context,
        ))
    }
}
