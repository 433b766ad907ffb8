//! Device lists: appended by compare and swap, all of them kept ("Lists").

use sprag_crypto::labels;
use sprag_wire::limits;
use sprag_wire::relay::{ListQuery, ListReply, ListState, Lists};
use sprag_wire::{ListHash, UnverifiedDeviceList, UserId};

use crate::directory::{Directory, VERSION, user_key};
use crate::error::{DirectoryError, Refusal};
use crate::storage::{LockedStorage, Storage, StorageError};

impl<S: Storage> Directory<S> {
    /// Answers a `ListQuery` with a `ListReply`: the newest list, or from epoch `from` on the next 64; none if `known`
    /// is the newest.
    ///
    /// # Errors
    /// [`DirectoryError::NoSuchUser`], [`Refusal::Malformed`].
    pub fn lists(&self, query: &[u8]) -> Result<Vec<u8>, DirectoryError> {
        let query = ListQuery::decode(query).map_err(|_| Refusal::Malformed)?;
        let user = UserId::new(&query.user).map_err(|_| Refusal::Malformed)?;
        let rows = self.storage.lock()?;
        let newest = Newest::read(&*rows, &user)?.ok_or(DirectoryError::NoSuchUser)?;
        let head = newest.head;
        let mut frames = Vec::new();
        let mut more = false;
        if query.known != head.hash.as_bytes() {
            if query.from == 0 {
                frames.push(newest.list.frame().to_vec());
            } else {
                let end = query.from.saturating_add(PAGE);
                for epoch in query.from..=head.epoch {
                    if epoch == end {
                        more = true;
                        break;
                    }
                    frames.push(head.frame(&*rows, &user, epoch)?);
                }
            }
        }
        Ok(ListReply::new(Some(head.state()), frames, more).encode())
    }

    /// Appends the lists of a `Lists`, ascending epochs of one user, and answers with a `ListState`: all of them or none.
    ///
    /// A list is appended if its account key signed it, its epoch is the newest + 1 and it names the newest as
    /// `previous`; the first is of epoch 1. The same list again changes nothing.
    ///
    /// # Errors
    /// [`DirectoryError::Conflict`] if another list is the newest; [`DirectoryError::Refused`] with
    /// [`Malformed`](Refusal::Malformed), [`BadSignature`](Refusal::BadSignature), [`NotAChain`](Refusal::NotAChain),
    /// [`OtherAccountKey`](Refusal::OtherAccountKey), [`MissingLists`](Refusal::MissingLists).
    pub fn publish_lists(&self, lists: &[u8]) -> Result<Vec<u8>, DirectoryError> {
        let lists = verified_chain(lists)?;
        let (Some(first), Some(last)) = (lists.first(), lists.last()) else {
            return Err(Refusal::Malformed.into());
        };
        let user = first.user();
        let mut rows = self.storage.lock()?;
        let mut head = match Newest::read(&*rows, user)? {
            None if first.epoch() == 1 => Head {
                generation: 1,
                epoch: 0,
                hash: ListHash::from_bytes([0; 32]),
            },
            None => return Err(Refusal::MissingLists.into()),
            Some(newest) => {
                if newest.list.account_key() != first.account_key() {
                    return Err(Refusal::OtherAccountKey.into());
                }
                // The lists follow one another: where one of them is a known one, those before it are known too.
                let joins = if first.epoch() > newest.head.epoch {
                    first.epoch().checked_sub(1) == Some(newest.head.epoch)
                        && first.previous() == Some(newest.head.hash)
                } else if last.epoch() < newest.head.epoch {
                    let kept = newest.head.frame(&*rows, user, last.epoch())?;
                    decode(&kept)?.hash() == last.hash()
                } else {
                    lists.iter().any(|list| list.hash() == newest.head.hash)
                };
                if !joins {
                    return Err(DirectoryError::Conflict {
                        newest: newest.list.frame().to_vec(),
                    });
                }
                newest.head
            }
        };
        let kept = head.epoch;
        for list in &lists {
            if list.epoch() > kept {
                head.epoch = list.epoch();
                head.hash = list.hash();
                rows.put(&head.list_key(user, head.epoch), list.frame())?;
            }
        }
        // The lists count from here on.
        if head.epoch > kept {
            head.write(&mut *rows, user)?;
        }
        Ok(head.state().encode())
    }

    /// Gives `user` a new account key: `list`, a frame `0x14` of epoch 1 under it, takes the place of all lists of the
    /// old key. Answers with a `ListState`, whose generation is one higher.
    ///
    /// For the operator of a server who has made sure who asks: a client never calls this.
    ///
    /// # Errors
    /// [`DirectoryError::NoSuchUser`]; [`DirectoryError::Refused`] with [`Malformed`](Refusal::Malformed),
    /// [`BadSignature`](Refusal::BadSignature), [`NotANewAccount`](Refusal::NotANewAccount).
    pub fn replace_account(&self, user: &UserId, list: &[u8]) -> Result<Vec<u8>, DirectoryError> {
        let list = verified(list)?;
        if list.user() != user {
            return Err(Refusal::Malformed.into());
        }
        let mut rows = self.storage.lock()?;
        let newest = Newest::read(&*rows, user)?.ok_or(DirectoryError::NoSuchUser)?;
        if newest.list.account_key() == list.account_key()
            || list.epoch() != 1
            || list.previous().is_some()
        {
            return Err(Refusal::NotANewAccount.into());
        }
        let generation = newest.head.generation.checked_add(1);
        let head = Head {
            generation: generation.ok_or(StorageError::Damaged)?,
            epoch: list.epoch(),
            hash: list.hash(),
        };
        rows.put(&head.list_key(user, head.epoch), list.frame())?;
        head.write(&mut *rows, user)?;
        Ok(head.state().encode())
    }
}

/// Decodes a `Lists` and checks all of it that needs no storage, so that nobody waits for the signatures of others.
fn verified_chain(lists: &[u8]) -> Result<Vec<UnverifiedDeviceList>, DirectoryError> {
    let lists = Lists::decode(lists).map_err(|_| Refusal::Malformed)?;
    let mut chain: Vec<UnverifiedDeviceList> = Vec::with_capacity(lists.frames.len());
    for frame in &lists.frames {
        let list = decode(frame).map_err(|_| Refusal::Malformed)?;
        if let Some(before) = chain.last() {
            let follows = list.user() == before.user()
                && list.account_key() == before.account_key()
                && before.epoch().checked_add(1) == Some(list.epoch())
                && list.previous() == Some(before.hash());
            if !follows {
                return Err(Refusal::NotAChain.into());
            }
        }
        chain.push(verify(list)?);
    }
    Ok(chain)
}

fn verified(frame: &[u8]) -> Result<UnverifiedDeviceList, DirectoryError> {
    verify(decode(frame).map_err(|_| Refusal::Malformed)?)
}

fn verify(list: UnverifiedDeviceList) -> Result<UnverifiedDeviceList, DirectoryError> {
    // The first of all has no list before it, each other one has (The protocol, §1.2).
    if (list.epoch() == 1) != list.previous().is_none() {
        return Err(Refusal::Malformed.into());
    }
    let mut message = labels::DEVICE_LIST.to_vec();
    message.extend_from_slice(list.signed_bytes());
    list.account_key()
        .verify(&message, list.signature())
        .map_err(|_| Refusal::BadSignature)?;
    Ok(list)
}

/// The newest list of a user, as stored. Its signature was checked when it was stored.
pub(crate) struct Newest {
    pub(crate) head: Head,
    pub(crate) list: UnverifiedDeviceList,
}

impl Newest {
    pub(crate) fn read(
        rows: &dyn LockedStorage,
        user: &UserId,
    ) -> Result<Option<Self>, StorageError> {
        let Some(head) = Head::read(rows, user)? else {
            return Ok(None);
        };
        let list = decode(&head.frame(rows, user, head.epoch)?)?;
        if list.hash() != head.hash {
            return Err(StorageError::Damaged);
        }
        Ok(Some(Self { head, list }))
    }
}

/// Which list of a user is the newest: `version(1) ‖ generation(4) ‖ epoch(8) ‖ hash(32)`, big endian.
///
/// A list counts only once this row names it or a later one, so writing this row is the one step that appends.
#[derive(Clone, Copy)]
pub(crate) struct Head {
    generation: u32,
    epoch: u64,
    hash: ListHash,
}

impl Head {
    fn read(rows: &dyn LockedStorage, user: &UserId) -> Result<Option<Self>, StorageError> {
        let Some(row) = rows.get(&head_key(user), HEAD_LEN)? else {
            return Ok(None);
        };
        Self::decode(&row).ok_or(StorageError::Damaged).map(Some)
    }

    fn decode(row: &[u8]) -> Option<Self> {
        let (version, rest) = row.split_first()?;
        let (generation, rest) = rest.split_first_chunk::<4>()?;
        let (epoch, hash) = rest.split_first_chunk::<8>()?;
        (*version == VERSION).then_some(())?;
        Some(Self {
            generation: u32::from_be_bytes(*generation),
            epoch: u64::from_be_bytes(*epoch),
            hash: ListHash::from_bytes(hash.try_into().ok()?),
        })
    }

    fn write(&self, rows: &mut dyn LockedStorage, user: &UserId) -> Result<(), StorageError> {
        let mut row = Vec::with_capacity(HEAD_LEN);
        row.push(VERSION);
        row.extend_from_slice(&self.generation.to_be_bytes());
        row.extend_from_slice(&self.epoch.to_be_bytes());
        row.extend_from_slice(self.hash.as_bytes());
        rows.put(&head_key(user), &row)
    }

    /// The list of `epoch` under the account key of now; the epoch is at most the newest.
    fn frame(
        &self,
        rows: &dyn LockedStorage,
        user: &UserId,
        epoch: u64,
    ) -> Result<Vec<u8>, StorageError> {
        rows.get(&self.list_key(user, epoch), limits::DEVICE_LIST_FRAME)?
            .ok_or(StorageError::Damaged)
    }

    fn list_key(&self, user: &UserId, epoch: u64) -> String {
        format!("{}/lists/{}/{epoch}", user_key(user), self.generation)
    }

    fn state(&self) -> ListState {
        // No log is kept, so there is no position in one.
        ListState::new(
            self.generation,
            self.epoch,
            self.hash.as_bytes().to_vec(),
            0,
        )
    }
}

fn decode(frame: &[u8]) -> Result<UnverifiedDeviceList, StorageError> {
    UnverifiedDeviceList::decode(frame).map_err(|_| StorageError::Damaged)
}

fn head_key(user: &UserId) -> String {
    format!("{}/newest-list", user_key(user))
}

/// Lists in one `ListReply`: 128 KiB.
const PAGE: u64 = 64;
const HEAD_LEN: usize = 45;
