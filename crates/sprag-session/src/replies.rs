//! Replies of the server to our tasks ("The protocol", appendix "Directory").

use sprag_crypto::Mode;
use sprag_store::{Rows, Staged};
use sprag_wire::limits::DEVICES as MAX_DEVICES;
use sprag_wire::relay::{BundleReply, ListReply};
use sprag_wire::{
    Body, DeviceAddress, DeviceId, UnverifiedDeviceList, UnverifiedPreKeyBundle, UserId,
};
use sprag_x3dh::DeviceList;
use zeroize::Zeroizing;

use crate::error::{ProtocolError, StepError};
use crate::event::{self, Event};
use crate::exchange::RESET;
use crate::own::{Device, Env};
use crate::record::Record;
use crate::task::{Kind, PAGE, StoredTask, TaskId};
use crate::trust::{Judged, ListSource};
use crate::{fresh, links, receipts, tables};

/// The largest reply that is looked at, in bytes.
pub const MAX_REPLY: usize = 4 << 20;
/// A bundle that was not published yet is asked for again after this long: one minute.
const ASK_AGAIN_MS: u64 = 60_000;
/// That of a device which this one just added: three seconds.
const LINK_AGAIN_MS: u64 = 3_000;

impl Device {
    /// The reply to a task. What it brings takes effect at once; the task ends. Twice is once.
    ///
    /// The inner error says that the reply was refused, as an event does; the task stays.
    ///
    /// # Errors
    /// What the store answers; nothing is changed then.
    pub fn supply(
        &mut self,
        rows: &mut Staged<'_>,
        env: &mut Env<'_>,
        id: TaskId,
        reply: &[u8],
    ) -> Result<Result<(), ProtocolError>, StepError> {
        let Some(task) = StoredTask::load(rows, id)? else {
            return Ok(Ok(()));
        };
        let mut stays = false;
        let asked_of = match &task.kind {
            Kind::FetchDevices { user, .. } | Kind::FetchBundles { user, .. } => user.clone(),
            _ => self.address.user().clone(),
        };
        let before = self.user(rows, &asked_of)?.map(|user| user.newest);
        let is_blob = matches!(task.kind, Kind::GetBlob { .. });
        let outcome = if reply.len() > MAX_REPLY && !is_blob {
            Err(StepError::Protocol(ProtocolError::Malformed))
        } else {
            match &task.kind {
                Kind::FetchDevices { user, from } => {
                    self.lists_came(rows, env, id, user, *from, reply)
                }
                Kind::FetchBundles { user, devices } => {
                    self.bundles_came(rows, env, id, user, devices, reply)
                }
                Kind::PublishDevices { from } => self
                    .list_state_came(rows, env, id, *from, reply)
                    .map(|ended| stays = !ended),
                Kind::PublishPreKeys(plan) => {
                    self.pre_key_state_came(rows, env, (id, &task, plan), reply)
                }
                Kind::PutObject { space } => self.put_answered(rows, env, id, *space, reply),
                Kind::GetObject { space } => self.get_answered(rows, env, id, *space, reply),
                Kind::GetBlob { name } => self.blob_came(rows, env, name, reply),
                Kind::Deliver { .. } | Kind::PutBlob { .. } | Kind::DropBlob { .. } => {
                    Err(StepError::Protocol(ProtocolError::BadInput))
                }
            }
        };
        self.note_list(rows, env.now, &asked_of, before.as_ref())?;
        match outcome {
            Ok(()) => {
                match &task.kind {
                    Kind::PublishPreKeys(_) => {}
                    Kind::PublishDevices { .. } if stays => {}
                    // Its marker is gone already, or that of a fetch that follows from it.
                    Kind::FetchBundles { .. } | Kind::FetchDevices { .. } => task.end(rows, id),
                    _ => task.delete(rows, id),
                }
                Ok(Ok(()))
            }
            Err(StepError::Protocol(error)) => {
                let kind = task.kind.clone();
                if StoredTask::load(rows, id)?.is_some() {
                    task.mark(rows, id);
                    self.put_off(rows, env, id, task, error);
                }
                event::record(rows, &Event::ReplyRefused { task: id, error })?;
                if let Kind::FetchDevices { user, .. } = &kind {
                    self.list_failed(rows, env, user)?;
                }
                Ok(Err(error))
            }
            Err(error) => Err(error),
        }
    }

    /// A refused reply is not asked for again at once, and after a changed identity not before the user has decided.
    pub(crate) fn put_off(
        &self,
        rows: &mut Staged<'_>,
        env: &Env<'_>,
        id: TaskId,
        mut task: StoredTask,
        error: ProtocolError,
    ) {
        match (&task.kind, error) {
            (
                Kind::FetchBundles { .. } | Kind::FetchDevices { .. },
                ProtocolError::UntrustedIdentity | ProtocolError::ForkedList,
            ) => task.parked = true,
            (Kind::FetchBundles { .. } | Kind::FetchDevices { .. }, _) => {
                task.not_before = env.now.saturating_add(ASK_AGAIN_MS);
            }
            (Kind::PutObject { .. } | Kind::GetObject { .. } | Kind::GetBlob { .. }, _) => {
                task.not_before = env.now.saturating_add(ASK_AGAIN_MS);
            }
            _ => return,
        }
        task.save(rows, id);
    }

    /// What was to be fetched of a user and waited for a decision is fetched now.
    pub(crate) fn resume_fetches(
        &self,
        rows: &mut Staged<'_>,
        name: &UserId,
    ) -> Result<(), StepError> {
        for (id, _) in crate::chunks::sequences(rows, tables::TASKS, <[u8]>::is_empty)? {
            let id = TaskId::new(id);
            match StoredTask::load(rows, id)?.map(|task| (task.kind.fetches_of(name), task)) {
                Some((true, mut task)) if task.parked => {
                    task.parked = false;
                    task.save(rows, id);
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Learns a list that the server gave as the newest. A changed account key or a fork becomes the user's decision.
    pub(crate) fn learn_from_server(
        &mut self,
        rows: &mut Staged<'_>,
        user: &UserId,
        frame: &[u8],
    ) -> Result<(), StepError> {
        self.learn_shown(rows, user, frame, false)
    }

    /// The same with one that was asked for by its epoch.
    fn learn_by_epoch(
        &mut self,
        rows: &mut Staged<'_>,
        user: &UserId,
        frame: &[u8],
    ) -> Result<(), StepError> {
        self.learn_shown(rows, user, frame, true)
    }

    fn learn_shown(
        &mut self,
        rows: &mut Staged<'_>,
        user: &UserId,
        frame: &[u8],
        by_epoch: bool,
    ) -> Result<(), StepError> {
        let mut staged = Staged::new(&*rows);
        match self.learn(&mut staged, user, frame, by_epoch) {
            Ok(learned) => {
                let changes = staged.into_changes();
                rows.merge(changes);
                // What the server showed before and does not show any more needs no decision.
                rows.delete(tables::candidate(user));
                self.tell_learned(rows, user, learned)
            }
            Err(StepError::Protocol(
                error @ (ProtocolError::UntrustedIdentity | ProtocolError::ForkedList),
            )) => {
                self.show_changed(rows, user, frame)?;
                Err(error.into())
            }
            Err(StepError::Protocol(ProtocolError::StaleList)) => {
                let epoch = UnverifiedDeviceList::decode(frame)?.epoch();
                if user == self.address.user() {
                    self.give_lists_back(rows, epoch)?;
                }
                let user = user.clone();
                event::record(rows, &Event::ListReplayed { user, epoch })?;
                Err(ProtocolError::StaleList.into())
            }
            Err(error) => Err(error),
        }
    }

    /// The server shows another identity of a user, or one side of a fork: his list waits for the user's decision.
    pub(crate) fn show_changed(
        &self,
        rows: &mut Staged<'_>,
        user: &UserId,
        frame: &[u8],
    ) -> Result<(), StepError> {
        // Nobody is asked about what nobody signed.
        let list = DeviceList::verify(UnverifiedDeviceList::decode(frame)?)?;
        if list.user() != user {
            return Err(ProtocolError::Malformed.into());
        }
        let is_own = user == self.address.user();
        if is_own && *list.account_key() != self.account_key {
            // Somebody has the user's name at the server. No decision goes on with a list that is not ours.
            let user = user.clone();
            return Ok(event::record(rows, &Event::IdentityChanged { user })?);
        }
        let candidate = tables::candidate(user);
        let shown = rows.get(&candidate)?;
        if shown.is_some_and(|shown| shown.as_slice() == list.frame()) {
            return Ok(());
        }
        rows.put(candidate, Zeroizing::new(frame.to_vec()));
        let event = if is_own {
            Event::OwnListForked {
                ours: *self.own_user(rows)?.newest.hash().as_bytes(),
                theirs: *list.hash().as_bytes(),
            }
        } else {
            Event::IdentityChanged { user: user.clone() }
        };
        Ok(event::record(rows, &event)?)
    }

    fn lists_came(
        &mut self,
        rows: &mut Staged<'_>,
        env: &mut Env<'_>,
        id: TaskId,
        user: &UserId,
        asked: u64,
        reply: &[u8],
    ) -> Result<(), StepError> {
        let mut reply = ListReply::decode(reply)?;
        if reply.frames.len() > PAGE {
            return Err(ProtocolError::Malformed.into());
        }
        if user == self.address.user() && self.restore_lists_came(rows, env, &reply)? {
            return Ok(());
        }
        self.check_nothing_new(rows, user, &reply)?;
        // From the newest down: an older one counts only through the hash that its successor names.
        reply.frames.reverse();
        for frame in &reply.frames {
            let learned = if asked == 0 {
                self.learn_from_server(rows, user, frame)
            } else {
                self.learn_by_epoch(rows, user, frame)
            };
            match learned {
                // An older one than ours is nothing new.
                Ok(()) | Err(StepError::Protocol(ProtocolError::StaleList)) => {}
                // The user decides; the question has been answered.
                Err(StepError::Protocol(
                    ProtocolError::UntrustedIdentity | ProtocolError::ForkedList,
                )) => break,
                Err(error) => return Err(error),
            }
        }
        self.unmark(rows, id)?;
        fresh::note_brought(rows, user, env.now)?;
        self.list_ready(rows, env, user)?;
        self.list_was_fetched(rows, env, user, asked)
    }

    /// From here on this task's markers do not stand in the way of the fetches that follow from it.
    fn unmark(&self, rows: &mut Staged<'_>, id: TaskId) -> Result<(), StepError> {
        if let Some(task) = StoredTask::load(rows, id)? {
            task.delete(rows, id);
            task.save(rows, id);
        }
        Ok(())
    }

    /// A reply without lists says that what we know is the newest.
    fn check_nothing_new(
        &self,
        rows: &mut Staged<'_>,
        user: &UserId,
        reply: &ListReply,
    ) -> Result<(), StepError> {
        let known = self.user(rows, user)?.map(|user| user.newest);
        let (Some(state), Some(known)) = (&reply.newest, known) else {
            return Ok(());
        };
        if !reply.frames.is_empty() || state.hash == known.hash().as_bytes() {
            return Ok(());
        }
        if state.epoch > known.epoch() {
            // It has news, and keeps them.
            return Err(ProtocolError::Malformed.into());
        }
        let event = Event::ListReplayed {
            user: user.clone(),
            epoch: state.epoch,
        };
        Ok(event::record(rows, &event)?)
    }

    fn bundles_came(
        &mut self,
        rows: &mut Staged<'_>,
        env: &mut Env<'_>,
        id: TaskId,
        user: &UserId,
        asked: &[DeviceId],
        reply: &[u8],
    ) -> Result<(), StepError> {
        let reply = BundleReply::decode(reply)?;
        if reply.bundles.len() > MAX_DEVICES || reply.missing.len() > MAX_DEVICES {
            return Err(ProtocolError::Malformed.into());
        }
        if !reply.list.is_empty() {
            match self.learn_from_server(rows, user, &reply.list) {
                Ok(()) | Err(StepError::Protocol(ProtocolError::StaleList)) => {}
                Err(error) => return Err(error),
            }
        }
        self.unmark(rows, id)?;
        fresh::note_brought(rows, user, env.now)?;
        self.list_ready(rows, env, user)?;
        if !reply.list.is_empty() {
            self.list_was_fetched(rows, env, user, 0)?;
        }
        let mut refused = None;
        for frame in &reply.bundles {
            match self.bundle_came(rows, env, user, asked, frame) {
                Ok(()) => {}
                Err(StepError::Protocol(error)) => refused = Some(error),
                Err(error) => return Err(error),
            }
        }
        for device in &reply.missing {
            let device = DeviceId::new(*device).map_err(|_| ProtocolError::Malformed)?;
            let address = DeviceAddress::new(user.clone(), device);
            if self.is_waited_for(rows, &address)? {
                // A device that we just added needs some seconds to find itself.
                let after = if links::is_new(rows, self.address.user(), &address)? {
                    LINK_AGAIN_MS
                } else {
                    ASK_AGAIN_MS
                };
                self.want_bundles_later(rows, &address, env.now.saturating_add(after))?;
            }
        }
        match refused {
            Some(error) => Err(error.into()),
            None => self.ask_again(rows, env, user, asked),
        }
    }

    /// What still waits although a reply came is asked for again: a server may say nothing of a device, or nothing at all.
    fn ask_again(
        &self,
        rows: &mut Staged<'_>,
        env: &Env<'_>,
        user: &UserId,
        asked: &[DeviceId],
    ) -> Result<(), StepError> {
        let later = env.now.saturating_add(ASK_AGAIN_MS);
        if asked.is_empty() && receipts::waits_for_list(rows, user)? {
            self.want_bundles(rows, user, None, later)?;
        }
        for device in asked {
            let address = DeviceAddress::new(user.clone(), *device);
            if self.is_waited_for(rows, &address)? {
                self.want_bundles(rows, user, Some(*device), later)?;
            }
        }
        Ok(())
    }

    /// Opens a session from a bundle if something waits for one, or the application asked for the device.
    fn bundle_came(
        &mut self,
        rows: &mut Staged<'_>,
        env: &mut Env<'_>,
        user: &UserId,
        asked: &[DeviceId],
        frame: &[u8],
    ) -> Result<(), StepError> {
        let address = UnverifiedPreKeyBundle::decode(frame)?.address;
        if address.user() != user || !(asked.is_empty() || asked.contains(&address.device())) {
            return Err(ProtocolError::BadInput.into());
        }
        self.check_not_foreign(rows, &address, frame)?;
        let wanted = tables::wants_fresh(&tables::device_owner(&address));
        let fresh = rows.get(&wanted)?;
        if fresh.is_none() && !self.is_waited_for(rows, &address)? {
            return Ok(());
        }
        let reset = fresh.as_ref().is_some_and(|why| why.as_slice() == RESET);
        if fresh.is_some() || !self.can_send_to(rows, env, &address)? {
            let opened = if reset {
                self.open_for_reset(rows, env, &address, frame, Mode::Pqxdh)
            } else {
                self.open(rows, env, &address, frame, Mode::Pqxdh)
            };
            if let Err(StepError::Protocol(
                ProtocolError::UntrustedIdentity | ProtocolError::ForkedList,
            )) = opened
            {
                let bundle = UnverifiedPreKeyBundle::decode(frame)?;
                self.show_changed(rows, user, &bundle.device_list)?;
            }
            self.tell_learned(rows, user, opened?.learned)?;
            rows.delete(wanted);
        }
        if reset && !self.is_waited_for(rows, &address)? {
            // There is nothing to say, and yet the other side must hear of it.
            self.send_to_device(rows, env, &address, Body::Ack)?;
        }
        self.end_fetch_of(rows, &address)?;
        self.session_ready(rows, env, &address)
    }

    /// A bundle of a device that its user never added is told, whether or not anything waits for it.
    fn check_not_foreign(
        &self,
        rows: &mut Staged<'_>,
        address: &DeviceAddress,
        frame: &[u8],
    ) -> Result<(), StepError> {
        let bundle = UnverifiedPreKeyBundle::decode(frame)?;
        let Some(known) = self.user(rows, address.user())? else {
            return Ok(());
        };
        if known.is_listed(address.device(), &bundle.identity_key) {
            return Ok(());
        }
        let list = UnverifiedDeviceList::decode(&bundle.device_list)?;
        let judged = self.judge(Some(&known), address.user(), list, ListSource::Bundle);
        let lists_it = |judged: Judged| {
            let mut entries = judged.newest(Some(&known)).devices().iter();
            entries.any(|entry| {
                entry.device() == address.device() && *entry.identity_key() == bundle.identity_key
            })
        };
        match judged.map(lists_it) {
            Ok(true) => Ok(()),
            // What is to be shown of a changed identity is shown when the bundle is used.
            Err(ProtocolError::UntrustedIdentity | ProtocolError::ForkedList) => Ok(()),
            refused => {
                let device = address.clone();
                event::record(rows, &Event::ForeignDevice { device })?;
                let error = refused.err().unwrap_or(ProtocolError::UnlistedDevice);
                Err(error.into())
            }
        }
    }

    /// A fetch for one device that has a session now is not needed any more.
    fn end_fetch_of(
        &self,
        rows: &mut Staged<'_>,
        address: &DeviceAddress,
    ) -> Result<(), StepError> {
        let marker = tables::fetch_of_device(&tables::device_owner(address));
        if let Some((id, task)) = StoredTask::marked(rows, &marker)? {
            task.delete(rows, id);
        }
        Ok(())
    }

    pub(crate) fn can_send_to(
        &self,
        rows: &dyn Rows,
        env: &Env<'_>,
        address: &DeviceAddress,
    ) -> Result<bool, StepError> {
        let record = Record::load(rows, address)?;
        let current = record.and_then(|record| record.current);
        Ok(current.is_some_and(|session| !session.retired && !session.is_stale(env.now)))
    }
}
