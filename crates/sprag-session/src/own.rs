//! Our own device: identity, account, counters ("The protocol", §1).

use std::collections::{HashMap, HashSet};

use rand_core::CryptoRng;
use sprag_crypto::{
    AccountKey, AccountKeyPair, Features, IdentityKey, IdentityKeyPair, InvalidKey, PrivateKey,
    Salt,
};
use sprag_ratchet::OriginKey;
use sprag_store::{Rows, Staged, StoreError};
use sprag_wire::{DeviceAddress, DeviceId, UserId, id_bytes};
use zeroize::Zeroizing;

use crate::attachments::Making;
use crate::codec::{Reader, Writer};
use crate::error::StepError;
use crate::heal::Met;
use crate::health::Tally;
use crate::outgoing::MessageId;
use crate::ring::{PairKey, Ring};
use crate::tables;

const VERSION: u8 = 1;
const COUNTERS_VERSION: u8 = 1;

/// Origin keys kept expanded. Beyond it the cache starts anew: 512 × about 1 KiB.
const ORIGINS: usize = 512;

/// Time and chance, which enter every step as parameters.
pub struct Env<'a> {
    /// Milliseconds since 1970.
    pub(crate) now: u64,
    pub(crate) rng: &'a mut dyn CryptoRng,
    pub(crate) injected_salt: Option<Salt>,
}

impl std::fmt::Debug for Env<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Env")
            .field("now", &self.now)
            .finish_non_exhaustive()
    }
}

impl<'a> Env<'a> {
    /// The time in milliseconds since 1970, and the generator that every draw comes from.
    #[must_use]
    pub fn new(now: u64, rng: &'a mut dyn CryptoRng) -> Self {
        Self {
            now,
            rng,
            injected_salt: None,
        }
    }

    /// For published vectors only: the next message takes this salt in place of a hedged random one.
    ///
    /// Two messages under one salt and chain position would share their key and nonce. Never use it elsewhere.
    #[must_use]
    pub fn with_injected_salt(mut self, salt: Salt) -> Self {
        self.injected_salt = Some(salt);
        self
    }

    /// Whether an injected salt was not used.
    #[must_use]
    pub fn injected_salt_is_left(&self) -> bool {
        self.injected_salt.is_some()
    }

    /// A new random id for a message; draws 16 bytes.
    #[must_use]
    pub fn new_message_id(&mut self) -> MessageId {
        let mut id = [0; 16];
        self.rng.fill_bytes(&mut id);
        MessageId::from_bytes(id)
    }

    /// The generator of this step.
    pub fn rng(&mut self) -> &mut dyn CryptoRng {
        self.rng
    }

    /// The time of this step, in milliseconds since 1970.
    #[must_use]
    pub fn now(&self) -> u64 {
        self.now
    }
}

/// Everything of one device that does not change from message to message.
pub struct Device {
    pub(crate) address: DeviceAddress,
    /// The feature bits that the application wants now.
    pub(crate) features: Features,
    pub(crate) identity: IdentityKeyPair,
    pub(crate) account_key: AccountKey,
    pub(crate) account: Option<AccountKeyPair>,
    origins: HashMap<(DeviceAddress, IdentityKey), Origins>,
    /// Who made the frame that was refused last.
    pub(crate) met: Option<Met>,
    /// What was counted since the profile was made.
    pub(crate) tally: Tally,
    /// Where the next event of the protocol is kept.
    pub(crate) ring: Ring,
    /// Attachments that are being made in this process.
    pub(crate) making: HashSet<Making>,
}

impl std::fmt::Debug for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Device").finish_non_exhaustive()
    }
}

struct Origins {
    sending: OriginKey,
    receiving: OriginKey,
    pair: PairKey,
}

impl Device {
    pub(crate) fn new(
        address: DeviceAddress,
        features: Features,
        identity: IdentityKeyPair,
        account_key: AccountKey,
        account: Option<AccountKeyPair>,
    ) -> Self {
        Self {
            address,
            features,
            identity,
            account_key,
            account,
            origins: HashMap::new(),
            met: None,
            tally: Tally::default(),
            ring: Ring::default(),
            making: HashSet::new(),
        }
    }

    /// The device of this store, or `None` if none was created yet.
    ///
    /// # Errors
    /// What the store answers; a row that does not decode is `Damaged`.
    pub fn load(rows: &dyn Rows) -> Result<Option<Self>, StepError> {
        let Some(bytes) = rows.get(&tables::own(tables::OWN_DEVICE))? else {
            return Ok(None);
        };
        let mut reader = Reader::new(&bytes, VERSION, "device row")?;
        let user = UserId::new(reader.text()?);
        let user = reader.checked(user)?;
        let device = DeviceId::new(reader.u32()?);
        let device = reader.checked(device)?;
        let features = Features::from_bits(reader.u32()?);
        let identity = Zeroizing::new(reader.array::<32>()?);
        let account_key = AccountKey::from_bytes(reader.take(33)?);
        let account_key = reader.checked(account_key)?;
        let account = reader.optional::<32>()?.map(Zeroizing::new);
        reader.finish()?;
        let mut loaded = Self::new(
            DeviceAddress::new(user, device),
            features,
            IdentityKeyPair::from_private(PrivateKey::from_bytes(&identity)),
            account_key,
            account.map(|key| AccountKeyPair::from_private(PrivateKey::from_bytes(&key))),
        );
        loaded.tally = Tally::load(rows)?;
        Ok(Some(loaded))
    }

    pub(crate) fn save(&self, rows: &mut Staged<'_>) {
        let user = self.address.user().as_str().as_bytes();
        let mut writer = Writer::new(VERSION, 4 + user.len() + 4 + 4 + 32 + 33 + 33);
        writer
            .block(user)
            .u32(self.address.device().get())
            .u32(self.features.bits());
        writer
            .fixed(&*self.identity.private().to_bytes())
            .fixed(self.account_key.as_bytes());
        let account = self.account.as_ref().map(|pair| pair.private().to_bytes());
        writer.optional(account.as_ref().map(|key| &key[..]));
        rows.put(tables::own(tables::OWN_DEVICE), writer.finish());
    }

    /// User and device of this client.
    #[must_use]
    pub fn address(&self) -> &DeviceAddress {
        &self.address
    }

    /// The key that this device is known by.
    #[must_use]
    pub fn identity_key(&self) -> &IdentityKey {
        self.identity.public()
    }

    /// The key that signs this user's device lists.
    #[must_use]
    pub fn account_key(&self) -> &AccountKey {
        &self.account_key
    }

    /// The feature bits that this device announces.
    #[must_use]
    pub fn features(&self) -> Features {
        self.features
    }

    fn origins(&mut self, peer: &DeviceAddress, key: &IdentityKey) -> Result<&Origins, InvalidKey> {
        let at = (peer.clone(), *key);
        if !self.origins.contains_key(&at) {
            if self.origins.len() >= ORIGINS {
                self.origins.clear();
            }
            let secret = self.identity.agree(key.as_public_key())?;
            let ours = id_bytes(self.identity.public(), &self.address);
            let theirs = id_bytes(key, peer);
            let sending = OriginKey::derive(&secret, &ours, &theirs);
            let receiving = OriginKey::derive(&secret, &theirs, &ours);
            let pair = PairKey::derive(&secret);
            let origins = Origins {
                sending,
                receiving,
                pair,
            };
            self.origins.insert(at.clone(), origins);
        }
        self.origins.get(&at).ok_or(InvalidKey)
    }

    pub(crate) fn sending_origin(
        &mut self,
        peer: &DeviceAddress,
        key: &IdentityKey,
    ) -> Result<&OriginKey, InvalidKey> {
        Ok(&self.origins(peer, key)?.sending)
    }

    pub(crate) fn receiving_origin(
        &mut self,
        peer: &DeviceAddress,
        key: &IdentityKey,
    ) -> Result<&OriginKey, InvalidKey> {
        Ok(&self.origins(peer, key)?.receiving)
    }

    pub(crate) fn pair_key(
        &mut self,
        peer: &DeviceAddress,
        key: &IdentityKey,
    ) -> Result<&PairKey, InvalidKey> {
        Ok(&self.origins(peer, key)?.pair)
    }
}

/// Numbers that only ascend. Each is taken in the commit that uses it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Counters {
    pub(crate) signed_pre_key: u32,
    pub(crate) one_time_pre_key: u32,
    pub(crate) kem_pre_key: u32,
    pub(crate) session: u64,
    pub(crate) upload: u64,
    pub(crate) sequence: u64,
    pub(crate) task: u64,
    pub(crate) event: u64,
    /// Messages of which a copy was not handed over yet.
    pub(crate) outbox: u32,
    /// Of the messages below, those of users who were not accepted.
    pub(crate) inbox_of_strangers: u32,
    /// Messages that wait to be acknowledged.
    pub(crate) inbox: u32,
}

impl Counters {
    pub(crate) fn load(rows: &dyn Rows) -> Result<Self, StoreError> {
        let Some(bytes) = rows.get(&tables::own(tables::OWN_COUNTERS))? else {
            return Ok(Self::default());
        };
        let mut reader = Reader::new(&bytes, COUNTERS_VERSION, "counters row")?;
        let counters = Self {
            signed_pre_key: reader.u32()?,
            one_time_pre_key: reader.u32()?,
            kem_pre_key: reader.u32()?,
            session: reader.u64()?,
            upload: reader.u64()?,
            sequence: reader.u64()?,
            task: reader.u64()?,
            event: reader.u64()?,
            inbox_of_strangers: reader.u32()?,
            outbox: reader.u32()?,
            inbox: reader.u32()?,
        };
        reader.finish()?;
        Ok(counters)
    }

    pub(crate) fn save(&self, rows: &mut Staged<'_>) {
        let mut writer = Writer::new(COUNTERS_VERSION, 12 + 40 + 12);
        writer
            .u32(self.signed_pre_key)
            .u32(self.one_time_pre_key)
            .u32(self.kem_pre_key);
        writer
            .u64(self.session)
            .u64(self.upload)
            .u64(self.sequence)
            .u64(self.task)
            .u64(self.event);
        writer
            .u32(self.inbox_of_strangers)
            .u32(self.outbox)
            .u32(self.inbox);
        rows.put(tables::own(tables::OWN_COUNTERS), writer.finish());
    }

    /// Takes the next number of one counter and writes the row.
    pub(crate) fn next(
        rows: &mut Staged<'_>,
        which: fn(&mut Self) -> &mut u64,
    ) -> Result<u64, StoreError> {
        let mut counters = Self::load(rows)?;
        let number = which(&mut counters);
        *number += 1;
        let taken = *number;
        counters.save(rows);
        Ok(taken)
    }
}
