//! Keys of the account: what a linked device is given, and by whom it takes it ("The protocol", §6.1).

use std::ops::ControlFlow;

use sprag_crypto::{AccountKeyPair, IdentityKey, PrivateKey, TranscriptHash, hmac, labels};
use sprag_store::{Rows, Staged, StoreError};
use sprag_wire::{DeviceAddress, KeyShare};
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, Zeroizing};

use crate::codec::{Reader, Writer};
use crate::error::StepError;
use crate::own::Device;
use crate::{memory, newcomer, tables};

/// Keys that one generation number may have: more than holders that made it at once.
pub const KEYS_OF_GENERATION: usize = 8;
/// Shares that wait for the proof.
pub const ASIDE: usize = 8;

const VERSION: u8 = 1;

/// A key of the account's memory, with the epoch and number it was made under. Wiped when dropped.
#[derive(Clone)]
#[non_exhaustive]
pub struct Generation {
    /// Epoch of the list that it was made under.
    pub epoch: u64,
    /// Counts within the epoch.
    pub number: u32,
    /// The key.
    pub key: [u8; 32],
}

impl Generation {
    /// A generation with its key.
    #[must_use]
    pub fn new(epoch: u64, number: u32, key: [u8; 32]) -> Self {
        Self { epoch, number, key }
    }
}

impl std::fmt::Debug for Generation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Generation").finish_non_exhaustive()
    }
}

impl Drop for Generation {
    fn drop(&mut self) {
        self.key.zeroize();
    }
}

/// What a share did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shared {
    Taken,
    Aside,
    Refused,
}

/// Nonce and account root.
#[derive(Default)]
struct Keys {
    /// A link request is shown: this device waits for the share that proves it.
    nonce: Option<Zeroizing<[u8; 32]>>,
    root: Option<Zeroizing<[u8; 32]>>,
}

impl Keys {
    fn load(rows: &dyn Rows) -> Result<Self, StoreError> {
        let Some(bytes) = rows.get(&tables::own(tables::OWN_KEYS))? else {
            return Ok(Self::default());
        };
        let mut reader = Reader::new(&bytes, VERSION, "account keys")?;
        let keys = Self {
            nonce: reader.optional()?.map(Zeroizing::new),
            root: reader.optional()?.map(Zeroizing::new),
        };
        reader.finish()?;
        Ok(keys)
    }

    fn save(&self, rows: &mut Staged<'_>) {
        let mut writer = Writer::new(VERSION, 66);
        writer.optional(self.nonce.as_ref().map(|nonce| nonce.as_slice()));
        writer.optional(self.root.as_ref().map(|root| root.as_slice()));
        rows.put(tables::own(tables::OWN_KEYS), writer.finish());
    }
}

impl Device {
    /// Whether this device shows a link request and waits for the keys of its account. Until then it opens no session
    /// and sends nothing.
    ///
    /// # Errors
    /// What the store answers.
    pub fn is_waiting(&self, rows: &dyn Rows) -> Result<bool, StepError> {
        Ok(Keys::load(rows)?.nonce.is_some() || self.link_has_ended(rows)?)
    }

    /// The nonce of the request is over: nothing proves any more that it was read.
    pub(crate) fn forget_nonce(&self, rows: &mut Staged<'_>) -> Result<(), StepError> {
        let mut keys = Keys::load(rows)?;
        keys.nonce = None;
        keys.save(rows);
        for (place, _) in aside(rows)? {
            rows.delete(tables::aside(place));
        }
        Ok(())
    }

    /// Begins to wait for the keys of the account, under the nonce of the request that is shown.
    ///
    /// # Errors
    /// What the store answers.
    pub fn wait_for_keys(&self, rows: &mut Staged<'_>, nonce: &[u8; 32]) -> Result<(), StepError> {
        let mut keys = Keys::load(rows)?;
        keys.nonce = Some(Zeroizing::new(*nonce));
        keys.save(rows);
        Ok(())
    }

    /// The account root, if it is known: 32 bytes that name the account's objects. **Secret.**
    ///
    /// # Errors
    /// What the store answers.
    pub fn account_root(&self, rows: &dyn Rows) -> Result<Option<Zeroizing<[u8; 32]>>, StepError> {
        Ok(Keys::load(rows)?.root)
    }

    /// Sets the account root of an account that begins here.
    ///
    /// # Errors
    /// What the store answers.
    pub fn set_account_root(
        &self,
        rows: &mut Staged<'_>,
        root: &[u8; 32],
    ) -> Result<(), StepError> {
        let mut keys = Keys::load(rows)?;
        keys.root = Some(Zeroizing::new(*root));
        keys.save(rows);
        Ok(())
    }

    /// All generations, ascending by epoch, number and key. **Secret.**
    ///
    /// # Errors
    /// What the store answers.
    pub fn generations(&self, rows: &dyn Rows) -> Result<Vec<Generation>, StepError> {
        let mut found = Vec::new();
        rows.scan(&tables::all(tables::GENERATIONS), &mut |suffix, value| {
            if let Some((epoch, rest)) = suffix.split_first_chunk::<8>()
                && let Some((number, _)) = rest.split_first_chunk::<4>()
                && let Ok(key) = value.try_into()
            {
                let (epoch, number) = (u64::from_be_bytes(*epoch), u32::from_be_bytes(*number));
                found.push(Generation { epoch, number, key });
            }
            ControlFlow::Continue(())
        })?;
        found.sort_by_key(|one: &Generation| (one.epoch, one.number, one.key));
        Ok(found)
    }

    /// The generation of new data: the highest epoch, in it the highest number, of its keys the bytewise smallest.
    ///
    /// # Errors
    /// What the store answers.
    pub fn writing_generation(&self, rows: &dyn Rows) -> Result<Option<Generation>, StepError> {
        let all = self.generations(rows)?;
        let newest = all.iter().map(|one| (one.epoch, one.number)).max();
        Ok(all
            .into_iter()
            .find(|one| Some((one.epoch, one.number)) == newest))
    }

    /// Adds a generation that this device made, or was given. One that it gave up stays given up: others are told that it
    /// holds nothing below.
    ///
    /// # Errors
    /// What the store answers.
    pub fn add_generation(
        &self,
        rows: &mut Staged<'_>,
        epoch: u64,
        number: u32,
        key: &[u8; 32],
    ) -> Result<(), StepError> {
        if (epoch, number) < memory::spaces::floor(rows)? {
            return Ok(());
        }
        // The place among the keys of one number does not matter; it only keeps them apart.
        let place = sprag_crypto::sha256(&[b"place", key]);
        let place = place.first_chunk::<8>().copied().unwrap_or_default();
        rows.put(
            tables::generation(epoch, number, &place),
            Zeroizing::new(key.to_vec()),
        );
        Ok(())
    }

    /// How many shares wait for the proof.
    ///
    /// # Errors
    /// What the store answers.
    pub fn shares_aside(&self, rows: &dyn Rows) -> Result<usize, StepError> {
        Ok(aside(rows)?.len())
    }

    /// A share came from another device of our own user. Its form has been checked.
    pub(crate) fn judge_share(
        &mut self,
        rows: &mut Staged<'_>,
        from: &DeviceAddress,
        identity_key: &IdentityKey,
        transcript: &TranscriptHash,
        share: &KeyShare,
    ) -> Result<Shared, StepError> {
        let mut keys = Keys::load(rows)?;
        let Some(nonce) = keys.nonce.take() else {
            if self.link_has_ended(rows)? {
                return Ok(Shared::Refused);
            }
            let taken = self.take_share(rows, from, identity_key, share)?;
            return Ok(if taken {
                Shared::Taken
            } else {
                Shared::Refused
            });
        };
        if share.link_proof.is_empty() {
            let waiting = aside(rows)?;
            if !self.is_holder(rows, from, identity_key)? || waiting.len() >= ASIDE {
                return Ok(Shared::Refused);
            }
            let place = waiting.last().map_or(0, |(place, _)| place + 1);
            put_aside(rows, place, from, identity_key, share);
            return Ok(Shared::Aside);
        }
        let proof = hmac(nonce.as_slice(), &[labels::LINK, transcript.as_bytes()]);
        if !bool::from(proof.as_slice().ct_eq(&share.link_proof)) {
            return Ok(Shared::Refused);
        }
        if !self.take_share(rows, from, identity_key, share)? {
            return Ok(Shared::Refused);
        }
        // Linked: the root may have come with the share.
        let mut keys = Keys::load(rows)?;
        keys.nonce = None;
        keys.save(rows);
        newcomer::linked(rows)?;
        for (place, record) in aside(rows)? {
            let (from, identity_key, share) = read_aside(&record)?;
            // Bad ones are dropped.
            self.take_share(rows, &from, &identity_key, &share)?;
            rows.delete(tables::aside(place));
        }
        Ok(Shared::Taken)
    }

    fn is_holder(
        &self,
        rows: &dyn Rows,
        device: &DeviceAddress,
        key: &IdentityKey,
    ) -> Result<bool, StoreError> {
        let own = self.own_user(rows)?;
        let entry = own
            .newest
            .devices()
            .iter()
            .find(|entry| entry.device() == device.device());
        Ok(entry.is_some_and(|entry| entry.identity_key() == key && entry.is_holder()))
    }

    /// Whole or not at all.
    fn take_share(
        &mut self,
        rows: &mut Staged<'_>,
        from: &DeviceAddress,
        identity_key: &IdentityKey,
        share: &KeyShare,
    ) -> Result<bool, StepError> {
        let mut keys = Keys::load(rows)?;
        let root = Zeroizing::new(share.account_root.as_slice().try_into().unwrap_or([0; 32]));
        let has_root = !share.account_root.is_empty();
        let other_root =
            |known: &Zeroizing<[u8; 32]>| !bool::from(known.as_slice().ct_eq(root.as_slice()));
        if !self.is_holder(rows, from, identity_key)?
            || (has_root && keys.root.as_ref().is_some_and(other_root))
        {
            return Ok(false);
        }
        let newest = self.own_user(rows)?.newest.epoch();
        let known = self.generations(rows)?;
        for (epoch, number, _) in &share.generations {
            let of = |one: &&Generation| (one.epoch, one.number) == (*epoch, *number);
            let new = share.generations.iter().filter(|(e, n, key)| {
                (e, n) == (epoch, number)
                    && !known.iter().filter(of).any(|one| one.key[..] == key[..])
            });
            if *epoch > newest || known.iter().filter(of).count() + new.count() > KEYS_OF_GENERATION
            {
                return Ok(false);
            }
        }
        if !share.account_private_key.is_empty() {
            let Some(account) = self.fitting_account(&share.account_private_key) else {
                return Ok(false);
            };
            if !self.is_holder(rows, &self.address.clone(), self.identity.public())? {
                return Ok(false);
            }
            self.account = Some(account);
            self.save(rows);
        }
        if has_root {
            keys.root = Some(root);
            keys.save(rows);
        }
        for (epoch, number, key) in &share.generations {
            if let Ok(key) = key.as_slice().try_into() {
                self.add_generation(rows, *epoch, *number, key)?;
            }
        }
        Ok(true)
    }

    /// The account's private key, if it is clamped and fits the account key.
    fn fitting_account(&self, private: &[u8]) -> Option<AccountKeyPair> {
        let bytes: Zeroizing<[u8; 32]> = Zeroizing::new(private.try_into().ok()?);
        let key = PrivateKey::from_bytes(&bytes);
        let clamped = bool::from(key.to_bytes().as_slice().ct_eq(bytes.as_slice()));
        let pair = AccountKeyPair::from_private(key);
        (clamped && *pair.public() == self.account_key).then_some(pair)
    }
}

/// Records of shares put aside, by their place.
type Aside = Vec<(u8, Zeroizing<Vec<u8>>)>;

/// Shares put aside, in the order they came.
fn aside(rows: &dyn Rows) -> Result<Aside, StoreError> {
    let mut found = Vec::new();
    rows.scan(&tables::all(tables::ASIDE), &mut |suffix, value| {
        if let [place] = suffix {
            found.push((*place, Zeroizing::new(value.to_vec())));
        }
        ControlFlow::Continue(())
    })?;
    found.sort_by_key(|(place, _)| *place);
    Ok(found)
}

fn put_aside(
    rows: &mut Staged<'_>,
    place: u8,
    from: &DeviceAddress,
    key: &IdentityKey,
    share: &KeyShare,
) {
    let mut writer = Writer::new(VERSION, 300 + 33 + 76 + share.generations.len() * 44 + 2);
    crate::task::write_address(&mut writer, from);
    writer
        .fixed(key.as_bytes())
        .block(&share.account_root)
        .block(&share.account_private_key);
    writer.u32(u32::try_from(share.generations.len()).unwrap_or(u32::MAX));
    for (epoch, number, key) in &share.generations {
        writer.u64(*epoch).u32(*number).fixed(key);
    }
    rows.put(tables::aside(place), writer.finish());
}

fn read_aside(record: &[u8]) -> Result<(DeviceAddress, IdentityKey, KeyShare), StoreError> {
    let mut reader = Reader::new(record, VERSION, "share put aside")?;
    let from = crate::task::read_address(&mut reader)?;
    let key = IdentityKey::from_bytes(reader.take(33)?);
    let key = reader.checked(key)?;
    let root = reader.block()?.to_vec();
    let private = reader.block()?.to_vec();
    let mut generations = Vec::new();
    for _ in 0..reader.u32()? {
        generations.push((reader.u64()?, reader.u32()?, reader.take(32)?.to_vec()));
    }
    reader.finish()?;
    Ok((
        from,
        key,
        KeyShare::new(root, generations, private, Vec::new()),
    ))
}
