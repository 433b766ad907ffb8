//! The new device's side of linking: it shows a code, finds itself on its user's list, and waits for the keys of the
//! account ("The protocol", §6.1).

use sprag_crypto::{Features, IdentityKeyPair, PrivateKey};
use sprag_store::{Rows, Staged, StoreError};
use sprag_wire::relay::{ListQuery, ListReply};
use sprag_wire::{DeviceAddress, LinkRequest, UnverifiedDeviceList, UserId};
use sprag_x3dh::DeviceList;
use zeroize::Zeroizing;

use crate::codec::{Reader, Writer};
use crate::error::{ProtocolError, StepError};
use crate::event::{self, Event};
use crate::exchange::Failure;
use crate::own::{Device, Env};
use crate::replies::MAX_REPLY;
use crate::task::{Kind, PAGE, StoredTask, Task, TaskId};
use crate::{chunks, fresh, tables};

/// A link request lives this long from showing it: ten minutes.
pub const SHOWN_MS: u64 = 600_000;
/// The keys of the account must be there this long after the device found itself on a list: a day.
pub const FOUND_MS: u64 = 24 * 3_600 * 1_000;
/// The server is asked for the list this often: every three seconds.
const POLL_MS: u64 = 3_000;

const VERSION: u8 = 1;

/// How far this device's own linking is, as its row says.
enum Stage {
    Shown(Linking),
    /// On a list since then.
    Found(u64),
    /// Over, without the keys of the account.
    Ended(UserId),
}

impl Stage {
    fn load(rows: &dyn Rows) -> Result<Option<Self>, StoreError> {
        let Some(bytes) = rows.get(&tables::own(tables::OWN_REQUEST))? else {
            return Ok(None);
        };
        let mut reader = Reader::new(&bytes, VERSION, "link request row")?;
        let stage = match reader.u8()? {
            1 => {
                let user = UserId::new(reader.text()?);
                let user = reader.checked(user)?;
                let identity = Zeroizing::new(reader.array::<32>()?);
                Self::Shown(Linking {
                    user,
                    identity: IdentityKeyPair::from_private(PrivateKey::from_bytes(&identity)),
                    nonce: Zeroizing::new(reader.array()?),
                    shown_at: reader.u64()?,
                })
            }
            2 => Self::Found(reader.u64()?),
            3 => {
                let user = UserId::new(reader.text()?);
                Self::Ended(reader.checked(user)?)
            }
            _ => return Err(reader.damaged()),
        };
        reader.finish()?;
        Ok(Some(stage))
    }

    fn save(&self, rows: &mut Staged<'_>) {
        let mut writer = Writer::new(VERSION, 1 + 4 + 255 + 32 + 32 + 8);
        match self {
            Self::Shown(linking) => {
                writer.u8(1).block(linking.user.as_str().as_bytes());
                writer
                    .fixed(&*linking.identity.private().to_bytes())
                    .fixed(linking.nonce.as_slice())
                    .u64(linking.shown_at);
            }
            Self::Found(since) => {
                writer.u8(2).u64(*since);
            }
            Self::Ended(user) => {
                writer.u8(3).block(user.as_str().as_bytes());
            }
        }
        rows.put(tables::own(tables::OWN_REQUEST), writer.finish());
    }
}

/// A device that shows a link request. It has an identity key and a nonce, and no number yet.
pub struct Linking {
    user: UserId,
    identity: IdentityKeyPair,
    nonce: Zeroizing<[u8; 32]>,
    shown_at: u64,
}

impl std::fmt::Debug for Linking {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Linking").finish_non_exhaustive()
    }
}

/// What a store holds of a device that is not there yet.
#[derive(Debug)]
#[non_exhaustive]
pub enum Newcomer {
    /// It shows a link request.
    Linking(Linking),
    /// The request to be added to the account of this user came to its end: the store is to be forgotten.
    Ended(UserId),
}

impl Linking {
    /// Begins to link this device to the account of `user`: draws an identity key (32 bytes) and a nonce (32 bytes), and
    /// queues the task that looks for it on the user's list.
    ///
    /// # Errors
    /// What the store answers.
    pub fn begin(
        rows: &mut Staged<'_>,
        env: &mut Env<'_>,
        user: &UserId,
    ) -> Result<Self, StepError> {
        let identity = IdentityKeyPair::generate(env.rng);
        let mut nonce = Zeroizing::new([0; 32]);
        env.rng.fill_bytes(nonce.as_mut_slice());
        let linking = Self {
            user: user.clone(),
            identity,
            nonce,
            shown_at: env.now,
        };
        linking.save(rows);
        let user = user.clone();
        StoredTask::now(Kind::FetchDevices { user, from: 0 }).queue(rows)?;
        Ok(linking)
    }

    fn save(&self, rows: &mut Staged<'_>) {
        Stage::Shown(Self {
            user: self.user.clone(),
            identity: IdentityKeyPair::from_private(PrivateKey::from_bytes(
                &self.identity.private().to_bytes(),
            )),
            nonce: self.nonce.clone(),
            shown_at: self.shown_at,
        })
        .save(rows);
    }

    /// What a store without a device holds; `None` if there is nothing of that either.
    ///
    /// # Errors
    /// What the store answers; a row that does not decode is `Damaged`.
    pub fn load(rows: &dyn Rows) -> Result<Option<Newcomer>, StepError> {
        Ok(match Stage::load(rows)? {
            Some(Stage::Shown(linking)) => Some(Newcomer::Linking(linking)),
            Some(Stage::Ended(user)) => Some(Newcomer::Ended(user)),
            Some(Stage::Found(_)) | None => None,
        })
    }

    /// Whose account it asks to be added to.
    #[must_use]
    pub fn user(&self) -> &UserId {
        &self.user
    }

    /// The key that this device will be known by.
    #[must_use]
    pub fn identity_key(&self) -> &sprag_crypto::IdentityKey {
        self.identity.public()
    }

    /// What a holder of the account reads, as text or QR code. **Secret** for ten minutes: who reads it could add this
    /// device to another account of the same name.
    #[must_use]
    pub fn request(&self) -> Zeroizing<String> {
        LinkRequest::new(self.user.clone(), *self.identity.public(), *self.nonce).to_text()
    }

    /// Whether the ten minutes are over.
    #[must_use]
    pub fn is_over(&self, now: u64) -> bool {
        now.saturating_sub(self.shown_at) > SHOWN_MS
    }

    /// Ends linking for good: keys and nonce are forgotten.
    ///
    /// # Errors
    /// What the store answers.
    pub fn end(&self, rows: &mut Staged<'_>) -> Result<(), StepError> {
        for (id, _) in chunks::sequences(rows, tables::TASKS, <[u8]>::is_empty)? {
            rows.delete(tables::sequence(tables::TASKS, id));
        }
        Stage::Ended(self.user.clone()).save(rows);
        Ok(event::record(rows, &Event::LinkEnded { device: None })?)
    }

    /// The task that asks for the user's list, if it may be done now.
    ///
    /// # Errors
    /// What the store answers.
    pub fn tasks(&self, rows: &dyn Rows, now: u64) -> Result<Vec<Task>, StepError> {
        let mut tasks = Vec::new();
        for (id, _) in chunks::sequences(rows, tables::TASKS, <[u8]>::is_empty)? {
            let id = TaskId::new(id);
            let due = StoredTask::load(rows, id)?
                .is_some_and(|task| !task.parked && task.not_before <= now);
            if due {
                let user = self.user.clone();
                let query = ListQuery::new(user.as_str().to_owned(), 0, Vec::new()).encode();
                tasks.push(Task::FetchDevices { id, user, query });
            }
        }
        Ok(tasks)
    }

    /// The events after number `since`, oldest first, each with its number.
    ///
    /// # Errors
    /// What the store answers.
    pub fn events(&self, rows: &dyn Rows, since: u64) -> Result<Vec<(u64, Event)>, StepError> {
        event::events(rows, since)
    }

    /// The reply to the task. If the newest list names this device, it takes that list for its own, provisionally, and
    /// there is a device: it publishes its prekeys, and waits for the keys of the account.
    ///
    /// # Errors
    /// The inner error: why the reply was refused; the task stays. What the store answers.
    pub fn supply(
        &self,
        rows: &mut Staged<'_>,
        env: &mut Env<'_>,
        id: TaskId,
        reply: &[u8],
    ) -> Result<Result<Option<Device>, ProtocolError>, StepError> {
        let Some(task) = StoredTask::load(rows, id)? else {
            return Ok(Ok(None));
        };
        match self.find(reply) {
            Ok(Some((number, list))) => {
                task.delete(rows, id);
                let address = DeviceAddress::new(self.user.clone(), number);
                let account_key = *list.account_key();
                let identity = IdentityKeyPair::from_private(PrivateKey::from_bytes(
                    &self.identity.private().to_bytes(),
                ));
                let device = Device::adopt(
                    rows,
                    address,
                    Features::NONE,
                    identity,
                    account_key,
                    None,
                    list,
                );
                device.wait_for_keys(rows, &self.nonce)?;
                Stage::Found(env.now).save(rows);
                fresh::note_brought(rows, &self.user, env.now)?;
                let plan = device.new_pre_keys(rows, env)?;
                StoredTask::now(Kind::PublishPreKeys(plan)).queue(rows)?;
                Ok(Ok(Some(device)))
            }
            Ok(None) => {
                put_off(rows, env, id, task, POLL_MS);
                Ok(Ok(None))
            }
            Err(error) => {
                put_off(rows, env, id, task, POLL_MS);
                event::record(rows, &Event::ReplyRefused { task: id, error })?;
                Ok(Err(error))
            }
        }
    }

    /// The list of a reply that names this device, with the number that it gives it.
    fn find(
        &self,
        reply: &[u8],
    ) -> Result<Option<(sprag_wire::DeviceId, DeviceList)>, ProtocolError> {
        if reply.len() > MAX_REPLY {
            return Err(ProtocolError::Malformed);
        }
        let reply = ListReply::decode(reply)?;
        if reply.frames.len() > PAGE {
            return Err(ProtocolError::Malformed);
        }
        for frame in reply.frames.iter().rev() {
            let list = UnverifiedDeviceList::decode(frame)?;
            if *list.user() != self.user {
                return Err(ProtocolError::Malformed);
            }
            let list = DeviceList::verify(list)?;
            let entries = list.devices().iter();
            let mut mine = entries.filter(|entry| entry.identity_key() == self.identity.public());
            if let Some(number) = mine.next().map(|entry| entry.device()) {
                return Ok(Some((number, list)));
            }
        }
        Ok(None)
    }

    /// The network could not do the task: it is asked again, also for a user who is not there yet.
    ///
    /// # Errors
    /// What the store answers.
    pub fn failed(
        &self,
        rows: &mut Staged<'_>,
        env: &Env<'_>,
        id: TaskId,
        failure: &Failure,
    ) -> Result<(), StepError> {
        let Some(task) = StoredTask::load(rows, id)? else {
            return Ok(());
        };
        let after = match failure {
            Failure::NotYet(after) | Failure::Full(after) => *after,
            _ => POLL_MS,
        };
        put_off(rows, env, id, task, after);
        Ok(())
    }
}

fn put_off(rows: &mut Staged<'_>, env: &Env<'_>, id: TaskId, mut task: StoredTask, after: u64) {
    task.not_before = env.now.saturating_add(after);
    task.save(rows, id);
}

impl Device {
    /// Whether this device is linked, so that it may open sessions and send.
    ///
    /// # Errors
    /// `NotLinked` while it waits for the keys of its account, `LinkExpired` when it has waited for a day.
    pub fn check_ready(&self, rows: &dyn Rows, now: u64) -> Result<(), StepError> {
        self.check_alive(rows, now)?;
        if self.is_waiting(rows)? {
            return Err(StepError::NotLinked);
        }
        Ok(())
    }

    /// Whether linking has not come to its end without the keys of the account.
    ///
    /// # Errors
    /// `LinkExpired`.
    pub fn check_alive(&self, rows: &dyn Rows, now: u64) -> Result<(), StepError> {
        match Stage::load(rows)? {
            Some(Stage::Ended(_)) => Err(StepError::LinkExpired),
            Some(Stage::Found(since)) if now.saturating_sub(since) > FOUND_MS => {
                Err(StepError::LinkExpired)
            }
            _ => Ok(()),
        }
    }

    /// A device that waited for a day for the keys of its account forgets the nonce that would have proved them. Says
    /// whether it has come to that.
    pub(crate) fn end_link_if_over(
        &self,
        rows: &mut Staged<'_>,
        now: u64,
    ) -> Result<bool, StepError> {
        match Stage::load(rows)? {
            Some(Stage::Ended(_)) => Ok(true),
            Some(Stage::Found(since)) if now.saturating_sub(since) > FOUND_MS => {
                Stage::Ended(self.address.user().clone()).save(rows);
                self.forget_nonce(rows)?;
                let device = Some(self.address.device().get());
                event::record(rows, &Event::LinkEnded { device })?;
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    /// Whether linking ended without the keys of the account.
    pub(crate) fn link_has_ended(&self, rows: &dyn Rows) -> Result<bool, StepError> {
        Ok(matches!(Stage::load(rows)?, Some(Stage::Ended(_))))
    }
}

/// This device has the keys of its account.
pub(crate) fn linked(rows: &mut Staged<'_>) -> Result<(), StoreError> {
    let name = tables::own(tables::OWN_REQUEST);
    if rows.get(&name)?.is_some() {
        rows.delete(name);
        event::record(rows, &Event::Linked)?;
    }
    Ok(())
}
