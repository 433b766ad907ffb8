//! State laid open and interfered with: for published vectors, diagnosis and tests, never for an application.

use std::ops::ControlFlow;

use rand_core::CryptoRng;
use sprag_crypto::{IdentityKeyPair, Salt, SessionId, labels, sha256};
use sprag_ratchet::MessageSeed;
use sprag_ratchet::hazmat::SessionState;
use sprag_store::{Rows, Staged, StoreError};
use sprag_wire::{DeviceAddress, ListHash, UserId};
use sprag_x3dh::{KemPreKeyPair, OneTimePreKeyPair, SignedPreKeyPair};
use zeroize::Zeroizing;

use crate::error::StepError;
use crate::memory::{Head, LogError, ObjectName, Segment, Space, SpaceKey, sealed};
use crate::own::{Counters, Device};
use crate::prekeys::{self, StoredKem, StoredSigned};
use crate::record::{Ledger, Record, SkippedRows, delete_prefix, load_session};
use crate::shares::Generation;
use crate::{heal, peers, tables};

/// What a device remembers of a user.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct UserState {
    /// The account key, 33 bytes.
    pub account_key: [u8; 33],
    /// Epoch of the newest list.
    pub epoch: u64,
    /// Its hash.
    pub newest: ListHash,
    /// Whether the application accepted him.
    pub accepted: bool,
    /// Epochs and hashes remembered, ascending.
    pub history: Vec<(u64, ListHash)>,
    /// Whether he may be written to.
    pub may_be_written_to: bool,
}

/// One session of a record. **Secret.**
#[derive(Debug)]
#[non_exhaustive]
pub struct PeerSession {
    /// The ratchet.
    pub state: SessionState,
    /// Read only.
    pub retired: bool,
    /// A handshake is pending.
    pub pending: bool,
    /// `kid`, number and seed of the skipped keys, oldest first.
    pub skipped: Vec<([u8; 8], u32, MessageSeed)>,
}

/// The record of one device.
#[derive(Debug)]
#[non_exhaustive]
pub struct PeerState {
    /// The device.
    pub address: DeviceAddress,
    /// SIDs entered, oldest first, whether they are closed, and the salts asked for.
    pub ledger: Vec<(SessionId, bool, Vec<Salt>)>,
    /// SIDs of a reset under way.
    pub reset: Vec<SessionId>,
    /// The current session.
    pub current: Option<PeerSession>,
    /// The archive, newest first.
    pub archive: Vec<PeerSession>,
}

impl Device {
    /// Ids of the one-time prekeys, and of the KEM prekeys of both kinds, that are held.
    ///
    /// # Errors
    /// What the store answers.
    pub fn held_pre_keys(&self, rows: &dyn Rows) -> Result<(Vec<u32>, Vec<u32>), StepError> {
        Ok((
            prekeys::ids(rows, tables::ONE_TIME)?,
            prekeys::ids(rows, tables::KEM)?,
        ))
    }

    /// Our own newest list, a frame `0x14`.
    ///
    /// # Errors
    /// What the store answers.
    pub fn own_list(&self, rows: &dyn Rows) -> Result<Vec<u8>, StepError> {
        Ok(self.own_user(rows)?.newest.frame().to_vec())
    }

    /// The newest list that is remembered of a user, a frame `0x14`.
    ///
    /// # Errors
    /// What the store answers.
    pub fn newest_list(
        &self,
        rows: &dyn Rows,
        user: &UserId,
    ) -> Result<Option<Vec<u8>>, StepError> {
        let user = self.user(rows, user)?;
        Ok(user.map(|user| user.newest.frame().to_vec()))
    }

    /// The identity with its private half, for making prekeys elsewhere. **Secret.**
    #[must_use]
    pub fn identity(&self) -> &IdentityKeyPair {
        &self.identity
    }

    /// Everybody who is remembered.
    ///
    /// # Errors
    /// What the store answers.
    pub fn users(&self, rows: &dyn Rows) -> Result<Vec<(UserId, UserState)>, StepError> {
        let mut users = Vec::new();
        for name in crate::trust::names(rows)? {
            if let Some(user) = self.user(rows, &name)? {
                let state = UserState {
                    account_key: *user.account_key.as_bytes(),
                    epoch: user.newest.epoch(),
                    newest: user.newest.hash(),
                    accepted: user.accepted,
                    history: user
                        .history
                        .iter()
                        .map(|(epoch, hash)| (*epoch, *hash))
                        .collect(),
                    may_be_written_to: user.may_be_written_to(),
                };
                users.push((name, state));
            }
        }
        Ok(users)
    }

    /// The records of a user's devices.
    ///
    /// # Errors
    /// What the store answers.
    pub fn peers(&self, rows: &Staged<'_>, user: &UserId) -> Result<Vec<PeerState>, StepError> {
        let mut states = Vec::new();
        for address in peers::devices_with_record(rows, user)? {
            let Some(record) = Record::load(rows, &address)? else {
                continue;
            };
            let session =
                |reference: &crate::record::SessionRef| -> Result<PeerSession, StepError> {
                    let state = load_session(rows, &record.owner, reference.number)?.export();
                    let skipped = skipped(rows, &record.owner, reference.number, &state)?;
                    Ok(PeerSession {
                        state,
                        retired: reference.retired,
                        pending: reference.pending_since.is_some(),
                        skipped,
                    })
                };
            let current = record.current.as_ref().map(session).transpose()?;
            let archive = record
                .archive
                .iter()
                .map(session)
                .collect::<Result<_, _>>()?;
            let mut ledger = Vec::new();
            for (id, closed) in Ledger::load(rows, &record.owner)?.entries() {
                ledger.push((*id, *closed, heal::asked(rows, &record.owner, id)?));
            }
            states.push(PeerState {
                address,
                ledger,
                reset: record.reset.clone(),
                current,
                archive,
            });
        }
        Ok(states)
    }

    /// Stores prekeys that were made elsewhere, and moves the counters past their ids.
    ///
    /// # Errors
    /// What the store answers.
    pub fn store_pre_keys(
        &self,
        rows: &mut Staged<'_>,
        signed: &[SignedPreKeyPair],
        one_time: &[OneTimePreKeyPair],
        kem: &[KemPreKeyPair],
    ) -> Result<(), StepError> {
        let mut counters = Counters::load(rows)?;
        for pair in signed {
            counters.signed_pre_key = counters.signed_pre_key.max(pair.id().get());
            prekeys::save_signed(
                rows,
                &StoredSigned {
                    pair: pair.clone(),
                    seen: 0,
                    published: 0,
                },
            );
        }
        for pair in one_time {
            counters.one_time_pre_key = counters.one_time_pre_key.max(pair.id().get());
            prekeys::save_one_time(rows, pair);
        }
        for pair in kem {
            counters.kem_pre_key = counters.kem_pre_key.max(pair.id().get());
            prekeys::save_kem(
                rows,
                &StoredKem {
                    pair: pair.clone(),
                    published: 0,
                },
            );
        }
        counters.save(rows);
        Ok(())
    }

    /// Loses all sessions with the devices of a user; records and ledgers stay.
    ///
    /// # Errors
    /// What the store answers.
    pub fn forget_sessions(
        &self,
        rows: &mut Staged<'_>,
        peer: &DeviceAddress,
    ) -> Result<(), StepError> {
        let Some(mut record) = Record::load(rows, peer)? else {
            return Ok(());
        };
        for session in record
            .current
            .take()
            .into_iter()
            .chain(std::mem::take(&mut record.archive))
        {
            delete_prefix(rows, &tables::session_rows(&record.owner, session.number))?;
            delete_prefix(
                rows,
                &tables::skipped_rows(&record.owner, session.number, None),
            )?;
        }
        record.save(rows);
        Ok(())
    }

    /// Deletes a signed prekey with its seen-set.
    ///
    /// # Errors
    /// What the store answers.
    pub fn drop_signed_pre_key(&self, rows: &mut Staged<'_>, id: u32) -> Result<(), StepError> {
        rows.delete(tables::prekey(tables::SIGNED, id));
        delete_prefix(rows, &tables::seen(id, None))?;
        Ok(())
    }

    /// Deletes all prekeys of all kinds, with their private halves and seen-sets.
    ///
    /// # Errors
    /// What the store answers.
    pub fn drop_pre_keys(&self, rows: &mut Staged<'_>) -> Result<(), StepError> {
        for id in prekeys::ids(rows, tables::SIGNED)? {
            self.drop_signed_pre_key(rows, id)?;
        }
        for table in [tables::ONE_TIME, tables::KEM] {
            delete_prefix(rows, &tables::all(table))?;
        }
        Ok(())
    }

    /// Adds the SIDs `SHA-256(u32be(i))[0..16]`, i below `count`, to the seen-set of a signed prekey.
    ///
    /// # Errors
    /// What the store answers.
    pub fn fill_seen_set(
        &self,
        rows: &mut Staged<'_>,
        id: u32,
        count: u32,
    ) -> Result<(), StepError> {
        let name = sprag_wire::SignedPreKeyId::new(id)
            .map_err(|_| StepError::Internal("a signed prekey id"))?;
        if let Some(mut signed) = prekeys::load_signed(rows, name)? {
            for number in 0..count {
                let hash = sha256(&[&number.to_be_bytes()]);
                let mut sid = [0; 16];
                sid.iter_mut().zip(hash).for_each(|(to, from)| *to = from);
                rows.put(
                    tables::seen(id, Some(&SessionId::from_bytes(sid))),
                    Zeroizing::new(Vec::new()),
                );
            }
            signed.seen += count;
            prekeys::save_signed(rows, &signed);
        }
        Ok(())
    }

    /// The encoded handshake that goes with messages on the current session, while it is pending.
    ///
    /// # Errors
    /// What the store answers.
    pub fn pending_handshake(
        &self,
        rows: &dyn Rows,
        peer: &DeviceAddress,
    ) -> Result<Option<Zeroizing<Vec<u8>>>, StepError> {
        let record = Record::load(rows, peer)?;
        let current = record
            .as_ref()
            .and_then(|record| record.current.as_ref().map(|current| (record, current)));
        match current {
            None => Ok(None),
            Some((record, current)) => Ok(rows.get(&tables::session(
                &record.owner,
                current.number,
                tables::PENDING,
            ))?),
        }
    }
}

fn skipped(
    rows: &Staged<'_>,
    owner: &[u8],
    number: u64,
    state: &SessionState,
) -> Result<Vec<([u8; 8], u32, MessageSeed)>, StepError> {
    use sprag_ratchet::SkippedKeys;
    let keys = SkippedRows {
        rows,
        owner,
        number,
    };
    let gone = |_| StepError::Store(StoreError::Damaged("skipped keys"));
    let mut found = Vec::new();
    for index in keys.oldest(usize::MAX).map_err(gone)? {
        let seed = keys.seed(index).map_err(gone)?;
        let kid = state.kid(index.chain);
        let (Some(seed), Some(kid)) = (seed, kid) else {
            return Err(StepError::Store(StoreError::Damaged(
                "skipped key of an unknown chain",
            )));
        };
        found.push((kid, index.number, seed));
    }
    Ok(found)
}

/// Counts the rows below a prefix; for tests about what is written.
///
/// # Errors
/// What the store answers.
pub fn count(rows: &dyn Rows, table: u8) -> Result<usize, StoreError> {
    let mut count = 0;
    rows.scan(&tables::all(table), &mut |_, _| {
        count += 1;
        ControlFlow::Continue(())
    })?;
    Ok(count)
}

/// A part of a key log that a server keeps (`docs/MEMORY.md`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum LogPart {
    /// The head of a space, with its signature.
    Head,
    /// A segment.
    Segment,
}

impl LogPart {
    /// Reads the plaintext of a part as opening does, and writes it again: the same bytes, or `None` if it is none. The signature of
    /// a head is not looked at.
    #[must_use]
    pub fn reread(self, plaintext: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        match self {
            Self::Head => {
                let (body, signature) = plaintext.split_last_chunk::<64>()?;
                let mut again = Head::decode(body).ok()?.encode();
                again.extend_from_slice(signature);
                Some(Zeroizing::new(again))
            }
            Self::Segment => Some(Segment::decode(plaintext).ok()?.encode()),
        }
    }

    fn label(self) -> &'static [u8] {
        match self {
            Self::Head => labels::HEAD,
            Self::Segment => labels::SEGMENT,
        }
    }

    /// The plaintext of a part, the signature of a head included and not looked at.
    ///
    /// # Errors
    /// [`LogError::NotYet`], [`LogError::Damaged`].
    pub fn open(
        self,
        generation: &Generation,
        space: &Space,
        head: &ObjectName,
        part: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, LogError> {
        let held = std::slice::from_ref(generation);
        sealed::open(held, space, self.label(), head, part)
    }

    /// Seals any plaintext as a part, as whoever has the keys of the space can. Draws 16 bytes.
    #[must_use]
    pub fn seal(
        self,
        generation: &Generation,
        space: &Space,
        head: &ObjectName,
        plaintext: &[u8],
        rng: &mut dyn CryptoRng,
    ) -> Vec<u8> {
        sealed::seal(generation, space, self.label(), head, plaintext, rng)
    }
}

/// The key of a space under a generation. **Secret.**
#[must_use]
pub fn space_key(generation: &Generation, space: &Space) -> Zeroizing<[u8; 32]> {
    Zeroizing::new(*SpaceKey::new(generation, space).seal_key().as_bytes())
}
