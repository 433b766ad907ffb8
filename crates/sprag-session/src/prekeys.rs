//! Our prekeys: made, published, looked up, used up ("The protocol", §1.1 and §7, *Replays*).

use std::ops::ControlFlow;

use sprag_crypto::{Features, Mode, SessionId, sha256};
use sprag_store::{Rows, Staged, StoreError};
use sprag_wire::relay::{PreKeyState, PreKeyUpload};
use sprag_wire::{KemKind, KemPreKeyId, OneTimePreKeyId, SignedPreKeyId};
use sprag_x3dh::{KemPreKeyPair, OneTimePreKeyPair, SignedPreKeyPair};
use zeroize::Zeroizing;

use crate::codec::{Reader, Writer};
use crate::error::{StepError, damaged};
use crate::own::{Counters, Device, Env};
use crate::tables;

/// SIDs in the seen-set of one signed prekey.
pub const SEEN: u32 = 65_536;
/// One-time prekeys of each kind that are kept on the server.
pub const STOCK: u32 = 100;
/// Below this many of either kind the stock is topped up.
pub const LOW_STOCK: u32 = 25;

const VERSION: u8 = 1;

/// A signed prekey with its upkeep.
#[derive(Debug)]
pub(crate) struct StoredSigned {
    pub(crate) pair: SignedPreKeyPair,
    /// How many SIDs its seen-set holds.
    pub(crate) seen: u32,
    /// When it was last published, in milliseconds.
    pub(crate) published: u64,
}

/// A KEM prekey with its upkeep.
#[derive(Debug)]
pub(crate) struct StoredKem {
    pub(crate) pair: KemPreKeyPair,
    pub(crate) published: u64,
}

/// The prekeys that a handshake names.
#[derive(Debug, Clone, Copy)]
pub(crate) struct UsedPreKeys {
    pub(crate) mode: Mode,
    pub(crate) signed: SignedPreKeyId,
    pub(crate) one_time: Option<OneTimePreKeyId>,
    /// Only if it is of the kind that is used once.
    pub(crate) kem: Option<KemPreKeyId>,
}

impl UsedPreKeys {
    /// Handshakes that use up no prekey of either kind are answered by the seen-set.
    pub(crate) fn needs_seen_set(&self) -> bool {
        self.one_time.is_none() && self.kem.is_none()
    }
}

fn read_upkeep<'a>(
    bytes: &'a [u8],
    what: &'static str,
) -> Result<(u32, u64, &'a [u8]), StoreError> {
    let mut reader = Reader::new(bytes, VERSION, what)?;
    let seen = reader.u32()?;
    let published = reader.u64()?;
    let record = reader.block()?;
    reader.finish()?;
    Ok((seen, published, record))
}

fn write_upkeep(seen: u32, published: u64, record: &[u8]) -> Zeroizing<Vec<u8>> {
    let mut writer = Writer::new(VERSION, 16 + record.len());
    writer.u32(seen).u64(published).block(record);
    writer.finish()
}

pub(crate) fn load_signed(
    rows: &dyn Rows,
    id: SignedPreKeyId,
) -> Result<Option<StoredSigned>, StepError> {
    let Some(bytes) = rows.get(&tables::prekey(tables::SIGNED, id.get()))? else {
        return Ok(None);
    };
    let (seen, published, record) = read_upkeep(&bytes, "signed prekey")?;
    let pair = SignedPreKeyPair::from_record(record).map_err(|_| damaged("signed prekey"))?;
    Ok(Some(StoredSigned {
        pair,
        seen,
        published,
    }))
}

pub(crate) fn save_signed(rows: &mut Staged<'_>, stored: &StoredSigned) {
    let name = tables::prekey(tables::SIGNED, stored.pair.id().get());
    rows.put(
        name,
        write_upkeep(stored.seen, stored.published, &stored.pair.to_record()),
    );
}

pub(crate) fn load_one_time(
    rows: &dyn Rows,
    id: OneTimePreKeyId,
) -> Result<Option<OneTimePreKeyPair>, StepError> {
    let Some(bytes) = rows.get(&tables::prekey(tables::ONE_TIME, id.get()))? else {
        return Ok(None);
    };
    OneTimePreKeyPair::from_record(&bytes)
        .map(Some)
        .map_err(|_| damaged("one-time prekey"))
}

pub(crate) fn save_one_time(rows: &mut Staged<'_>, pair: &OneTimePreKeyPair) {
    rows.put(
        tables::prekey(tables::ONE_TIME, pair.id().get()),
        pair.to_record(),
    );
}

pub(crate) fn load_kem(rows: &dyn Rows, id: KemPreKeyId) -> Result<Option<StoredKem>, StepError> {
    let Some(bytes) = rows.get(&tables::prekey(tables::KEM, id.get()))? else {
        return Ok(None);
    };
    let (_, published, record) = read_upkeep(&bytes, "KEM prekey")?;
    let pair = KemPreKeyPair::from_record(record).map_err(|_| damaged("KEM prekey"))?;
    Ok(Some(StoredKem { pair, published }))
}

pub(crate) fn save_kem(rows: &mut Staged<'_>, stored: &StoredKem) {
    let name = tables::prekey(tables::KEM, stored.pair.id().get());
    rows.put(
        name,
        write_upkeep(0, stored.published, &stored.pair.to_record()),
    );
}

/// The kind of a KEM prekey that is held.
pub(crate) fn kem_kind(rows: &dyn Rows, id: u32) -> Result<Option<KemKind>, StepError> {
    Ok(load_kem(rows, kem_id(id)?)?.map(|kem| kem.pair.kind()))
}

/// The ids in one of the prekey tables, ascending.
pub(crate) fn ids(rows: &dyn Rows, table: u8) -> Result<Vec<u32>, StoreError> {
    let mut ids = Vec::new();
    rows.scan(&tables::all(table), &mut |suffix, _| {
        if let Ok(id) = suffix.try_into() {
            ids.push(u32::from_be_bytes(id));
        }
        ControlFlow::Continue(())
    })?;
    ids.sort_unstable();
    Ok(ids)
}

/// Whether a SID is in any seen-set.
pub(crate) fn is_seen(rows: &dyn Rows, sid: &SessionId) -> Result<bool, StoreError> {
    for id in ids(rows, tables::SIGNED)? {
        if rows.get(&tables::seen(id, Some(sid)))?.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// In the commit of the handshake: one-time prekeys are deleted, or the SID enters the seen-set.
pub(crate) fn consume(
    rows: &mut Staged<'_>,
    used: &UsedPreKeys,
    sid: &SessionId,
) -> Result<(), StepError> {
    if let Some(id) = used.one_time {
        rows.delete(tables::prekey(tables::ONE_TIME, id.get()));
    }
    if let Some(id) = used.kem {
        rows.delete(tables::prekey(tables::KEM, id.get()));
    }
    if used.needs_seen_set()
        && let Some(mut signed) = load_signed(rows, used.signed)?
    {
        rows.put(
            tables::seen(used.signed.get(), Some(sid)),
            Zeroizing::new(Vec::new()),
        );
        signed.seen += 1;
        save_signed(rows, &signed);
    }
    Ok(())
}

/// What an upload consists of, so that it can be built again from the rows for as long as its task stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct UploadPlan {
    pub(crate) number: u64,
    pub(crate) replace: bool,
    pub(crate) signed: u32,
    pub(crate) last_resort: u32,
    /// First and last id of the one-time keys; none if the last is below the first.
    pub(crate) one_time: (u32, u32),
    pub(crate) kem: (u32, u32),
}

impl UploadPlan {
    /// An upload that a server which took any before does not take: it only answers with what it holds. One that has
    /// nothing of ours takes it, and tells so by its number.
    pub(crate) fn query(rows: &dyn Rows) -> Result<Self, StepError> {
        Ok(Self {
            number: QUERY,
            replace: false,
            signed: newest_signed(rows)?,
            last_resort: newest_last_resort(rows)?,
            one_time: NO_KEYS,
            kem: NO_KEYS,
        })
    }

    pub(crate) fn is_query(&self) -> bool {
        self.number == QUERY && !self.replace
    }
}

/// The number of the very first upload of a device, which was one with `replace`.
const QUERY: u64 = 1;
/// From the first id to the last: none.
const NO_KEYS: (u32, u32) = (1, 0);

/// The next number of an ascending counter. It never begins anew.
fn next(counter: &mut u32) -> Result<u32, StepError> {
    *counter = counter.checked_add(1).ok_or(StepError::Exhausted)?;
    Ok(*counter)
}

impl Device {
    /// A fresh signed prekey and a fresh last-resort KEM prekey, and a full stock of one-time prekeys.
    pub(crate) fn new_pre_keys(
        &self,
        rows: &mut Staged<'_>,
        env: &mut Env<'_>,
    ) -> Result<UploadPlan, StepError> {
        self.new_lasting(rows, env)?;
        self.new_one_time(rows, env, (STOCK, STOCK), true)
    }

    /// A fresh signed prekey and a fresh last-resort KEM prekey.
    pub(crate) fn new_lasting(
        &self,
        rows: &mut Staged<'_>,
        env: &mut Env<'_>,
    ) -> Result<(), StepError> {
        let mut counters = Counters::load(rows)?;
        let id = signed_id(next(&mut counters.signed_pre_key)?)?;
        let features = Features::from_bits(self.features.bits());
        let pair = SignedPreKeyPair::generate(id, features, &self.identity, env.rng);
        save_signed(
            rows,
            &StoredSigned {
                pair,
                seen: 0,
                published: env.now,
            },
        );
        let id = kem_id(next(&mut counters.kem_pre_key)?)?;
        let pair = KemPreKeyPair::generate(id, KemKind::LastResort, &self.identity, env.rng);
        save_kem(
            rows,
            &StoredKem {
                pair,
                published: env.now,
            },
        );
        counters.save(rows);
        Ok(())
    }

    /// More one-time prekeys, under new ids.
    pub(crate) fn new_one_time(
        &self,
        rows: &mut Staged<'_>,
        env: &mut Env<'_>,
        (one_time, kem): (u32, u32),
        replace: bool,
    ) -> Result<UploadPlan, StepError> {
        let mut counters = Counters::load(rows)?;
        let first = counters.one_time_pre_key.saturating_add(1);
        for _ in 0..one_time {
            let id = OneTimePreKeyId::new(next(&mut counters.one_time_pre_key)?)
                .map_err(|_| damaged("prekey id"))?;
            save_one_time(rows, &OneTimePreKeyPair::generate(id, env.rng));
        }
        let first_kem = counters.kem_pre_key.saturating_add(1);
        for _ in 0..kem {
            let pair = KemPreKeyPair::generate(
                kem_id(next(&mut counters.kem_pre_key)?)?,
                KemKind::OneTime,
                &self.identity,
                env.rng,
            );
            save_kem(
                rows,
                &StoredKem {
                    pair,
                    published: env.now,
                },
            );
        }
        counters.upload += 1;
        counters.save(rows);
        Ok(UploadPlan {
            number: counters.upload,
            replace,
            signed: newest_signed(rows)?,
            last_resort: newest_last_resort(rows)?,
            one_time: range(first, one_time),
            kem: range(first_kem, kem),
        })
    }
}

/// So many ids from the first on, as first and last.
fn range(first: u32, count: u32) -> (u32, u32) {
    match count {
        0 => NO_KEYS,
        count => (first, first.saturating_add(count - 1)),
    }
}

fn signed_id(id: u32) -> Result<SignedPreKeyId, StepError> {
    SignedPreKeyId::new(id).map_err(|_| damaged("prekey id"))
}

fn kem_id(id: u32) -> Result<KemPreKeyId, StepError> {
    KemPreKeyId::new(id).map_err(|_| damaged("prekey id"))
}

fn newest_signed(rows: &dyn Rows) -> Result<u32, StepError> {
    ids(rows, tables::SIGNED)?
        .pop()
        .ok_or_else(|| damaged("no signed prekey"))
}

/// The newest signed prekey; `None` if there is none, as on a device that was only made for vectors.
pub(crate) fn newest_signed_stored(rows: &dyn Rows) -> Result<Option<StoredSigned>, StepError> {
    match ids(rows, tables::SIGNED)?.pop() {
        Some(id) => load_signed(rows, signed_id(id)?),
        None => Ok(None),
    }
}

fn newest_last_resort(rows: &dyn Rows) -> Result<u32, StepError> {
    for id in ids(rows, tables::KEM)?.into_iter().rev() {
        if load_kem(rows, kem_id(id)?)?.is_some_and(|kem| kem.pair.kind() == KemKind::LastResort) {
            return Ok(id);
        }
    }
    Err(damaged("no last-resort prekey"))
}

/// Whether there are prekeys of the kinds that every bundle has.
pub(crate) fn are_complete(rows: &dyn Rows) -> Result<bool, StepError> {
    Ok(!ids(rows, tables::SIGNED)?.is_empty() && newest_last_resort(rows).is_ok())
}

/// The bytes of an upload; one-time keys that were used up meanwhile are left out.
pub(crate) fn build_upload(rows: &dyn Rows, plan: &UploadPlan) -> Result<PreKeyUpload, StepError> {
    // A plan that waited for long may name keys whose time is over: the newest stand for them.
    let signed = match load_signed(rows, signed_id(plan.signed)?)? {
        None => load_signed(rows, signed_id(newest_signed(rows)?)?)?,
        planned => planned,
    };
    let signed = signed.ok_or_else(|| damaged("signed prekey"))?;
    let last_resort = match load_kem(rows, kem_id(plan.last_resort)?)? {
        None => load_kem(rows, kem_id(newest_last_resort(rows)?)?)?,
        planned => planned,
    };
    let last_resort = last_resort.ok_or_else(|| damaged("KEM prekey"))?;
    let mut one_time = Vec::new();
    for id in plan.one_time.0..=plan.one_time.1 {
        let id = OneTimePreKeyId::new(id).map_err(|_| damaged("prekey id"))?;
        one_time.extend(load_one_time(rows, id)?.map(|pair| pair.public()));
    }
    let mut kem = Vec::new();
    for id in plan.kem.0..=plan.kem.1 {
        kem.extend(load_kem(rows, kem_id(id)?)?.map(|stored| stored.pair.public()));
    }
    Ok(PreKeyUpload::new(
        plan.number,
        plan.replace,
        signed.pair.public(),
        last_resort.pair.public(),
        one_time,
        kem,
    ))
}

/// What the server's state says about the next upload: nothing, more keys, or all of them again ("The protocol",
/// appendix "Directory", *Prekeys*).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Due {
    Nothing,
    TopUp { one_time: u32, kem: u32 },
    Replace,
}

pub(crate) fn due(rows: &dyn Rows, state: &PreKeyState) -> Result<Due, StepError> {
    let counters = Counters::load(rows)?;
    let signed = load_signed(rows, signed_id(newest_signed(rows)?)?)?
        .ok_or_else(|| damaged("signed prekey"))?;
    let last =
        load_kem(rows, kem_id(newest_last_resort(rows)?)?)?.ok_or_else(|| damaged("KEM prekey"))?;
    let digest = sha256(&[&signed.pair.public().encode(), &last.pair.public().encode()]);
    if state.number != counters.upload || state.digest != digest {
        return Ok(Due::Replace);
    }
    let low = |left: u32| {
        if left < LOW_STOCK {
            STOCK.saturating_sub(left)
        } else {
            0
        }
    };
    match (low(state.one_time), low(state.kem_one_time)) {
        (0, 0) => Ok(Due::Nothing),
        (one_time, kem) => Ok(Due::TopUp { one_time, kem }),
    }
}
