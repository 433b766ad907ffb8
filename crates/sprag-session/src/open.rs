//! Opening a session from a bundle ("The protocol", §3).

use sprag_crypto::{Features, Mode, SessionId};
use sprag_ratchet::Session;
use sprag_store::{Rows, Staged, StoreError};
use sprag_wire::{DeviceAddress, UnverifiedDeviceList, UnverifiedPreKeyBundle};
use sprag_x3dh::{Initiator, PreKeyBundle, initiate};
use zeroize::Zeroizing;

use crate::error::{ProtocolError, StepError};
use crate::own::{Counters, Device, Env};
use crate::peers::Learned;
use crate::record::{ARCHIVED, Parts, Record, SessionRef, delete_prefix, save_session};
use crate::ring::{Flags, Note, What, With};
use crate::trust::{self, ListSource};
use crate::{fresh, tables};

/// A session that this device opened.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Opened {
    /// Its id.
    pub session_id: SessionId,
    /// What its bundle told of the user.
    pub learned: Learned,
}

impl Device {
    /// Opens a session with `to` from the frame of its bundle. The session becomes current, the user accepted.
    ///
    /// # Errors
    /// In the order of "The protocol", §3, 1: `UnlistedDevice` (ours), `Malformed`, `BadInput`, the refusals of a
    /// list, `UnlistedDevice`, `InvalidKey`, `BadSignature`, `ModeRefused`, `InvalidKey`. Nothing is changed then.
    pub fn open(
        &mut self,
        rows: &mut Staged<'_>,
        env: &mut Env<'_>,
        to: &DeviceAddress,
        bundle: &[u8],
        mode: Mode,
    ) -> Result<Opened, StepError> {
        self.open_with(rows, env, to, bundle, mode, false)
    }

    /// As [`open`](Self::open), for a reset ("The protocol", §8): all sessions held with the device retire here, and
    /// ride as a rider until the device has confirmed it.
    ///
    /// # Errors
    /// As there.
    pub fn open_for_reset(
        &mut self,
        rows: &mut Staged<'_>,
        env: &mut Env<'_>,
        to: &DeviceAddress,
        bundle: &[u8],
        mode: Mode,
    ) -> Result<Opened, StepError> {
        self.open_with(rows, env, to, bundle, mode, true)
    }

    fn open_with(
        &mut self,
        rows: &mut Staged<'_>,
        env: &mut Env<'_>,
        to: &DeviceAddress,
        bundle: &[u8],
        mode: Mode,
        reset: bool,
    ) -> Result<Opened, StepError> {
        let mut staged = Staged::new(&*rows);
        let opened = self.open_staged(&mut staged, env, to, bundle, mode, reset)?;
        let changes = staged.into_changes();
        rows.merge(changes);
        Ok(opened)
    }

    fn open_staged(
        &mut self,
        rows: &mut Staged<'_>,
        env: &mut Env<'_>,
        to: &DeviceAddress,
        bundle: &[u8],
        mode: Mode,
        reset: bool,
    ) -> Result<Opened, StepError> {
        self.check_linked(rows)?;
        self.check_own_listed(rows)?;
        let bundle = UnverifiedPreKeyBundle::decode(bundle)?;
        if bundle.address != *to {
            return Err(ProtocolError::BadInput.into());
        }
        let list = UnverifiedDeviceList::decode(&bundle.device_list)?;
        let remembered = self.user(rows, to.user())?;
        let judged = self.judge(remembered.as_ref(), to.user(), list, ListSource::Bundle)?;
        let newest = judged.newest(remembered.as_ref());
        let listed = newest
            .devices()
            .iter()
            .find(|entry| entry.device() == to.device());
        if listed.map(|entry| entry.identity_key()) != Some(&bundle.identity_key) {
            return Err(ProtocolError::UnlistedDevice.into());
        }
        if bundle.identity_key == *self.identity.public() {
            return Err(ProtocolError::InvalidKey.into());
        }
        let bundle = PreKeyBundle::verify(bundle)?;
        let identity_key = *bundle.identity_key();
        let signed = bundle.signed_pre_key().features;
        self.check_mode(
            rows,
            to,
            mode,
            signed.contains(Features::ACCEPTS_X3DH),
            signed,
        )?;
        if mode == Mode::Pqxdh {
            bundle.kem_pre_key().public_key.check()?;
        }

        let learned = self.remember(rows, to.user(), remembered, judged)?;
        fresh::note_brought(rows, to.user(), env.now)?;
        let mut user = trust::known(self.user(rows, to.user())?)?;
        self.mark_accepted(rows, &mut user)?;
        let own = self.own_user(rows)?;
        let initiated = initiate(
            &Initiator {
                identity: &self.identity,
                address: &self.address,
                features: self.features,
                device_list: own.newest.frame(),
                responder_epoch: user.newest.epoch(),
                responder_list: user.newest.hash(),
            },
            &bundle,
            mode,
            env.rng,
        )?;
        let session_id = *initiated.secret.session_id();
        let session = Session::initiate(initiated.secret, &initiated.signed_pre_key, env.rng)
            .map_err(|_| ProtocolError::InvalidKey)?;

        let number = Counters::next(rows, |counters| &mut counters.session)?;
        let mut record = match Record::load(rows, to)? {
            Some(record) => record,
            None => Record::new(to, identity_key),
        };
        if reset {
            record.reset = record.sessions().map(|session| session.id).collect();
            record.retire(|_| true);
            delete_prefix(rows, &tables::carried_reset(&record.owner, None))?;
        }
        let reference = SessionRef {
            number,
            id: session_id,
            mode,
            retired: false,
            pending_since: Some(env.now),
        };
        let dropped = record.establish(reference, ARCHIVED);
        record.close(rows, &dropped)?;
        record.save(rows);
        save_session(rows, &record.owner, number, &session, Parts::All);
        let handshake = Zeroizing::new(initiated.handshake);
        rows.put(
            tables::session(&record.owner, number, tables::PENDING),
            handshake,
        );
        let note = Note {
            flags: Flags::NONE.with(Flags::RESET, reset),
            session: Some(session_id),
            ..Note::new(What::Opened)
        };
        let with = With {
            peer: to,
            key: &identity_key,
            accepted: true,
        };
        self.note(rows, env.now, with, &note)?;
        self.note_closed(rows, env.now, to, &identity_key, true, &dropped)?;
        Ok(Opened {
            session_id,
            learned,
        })
    }

    /// A device that waits for the keys of its account opens nothing and sends nothing ("The protocol", §6.1).
    pub(crate) fn check_linked(&self, rows: &dyn Rows) -> Result<(), StepError> {
        if self.is_waiting(rows)? {
            return Err(ProtocolError::BadInput.into());
        }
        Ok(())
    }

    /// Our own device must be listed before it opens a session or sends ("The protocol", §1.2).
    pub(crate) fn check_own_listed(&self, rows: &dyn Rows) -> Result<(), StepError> {
        let own = trust::load_row(rows, self.address.user())?;
        let own = own.ok_or(StoreError::Damaged("own user row is missing"))?;
        if own.is_listed(self.address.device(), self.identity.public()) {
            Ok(())
        } else {
            Err(ProtocolError::UnlistedDevice.into())
        }
    }

    /// `ModeRefused`, for both sides ("The protocol", §3).
    pub(crate) fn check_mode(
        &self,
        rows: &dyn Rows,
        peer: &DeviceAddress,
        mode: Mode,
        x3dh_accepted: bool,
        their_features: Features,
    ) -> Result<(), StepError> {
        let hidden_offer =
            self.features.contains(Features::SPRAG_2) && their_features.contains(Features::SPRAG_2);
        let weaker = mode == Mode::X3dh
            && (!x3dh_accepted
                || Record::load(rows, peer)?.is_some_and(|record| record.holds_pqxdh()));
        if hidden_offer || weaker {
            Err(ProtocolError::ModeRefused.into())
        } else {
            Ok(())
        }
    }
}
