//! Receiving a frame ("The protocol", §7), and what its content does to our state (§6).

use sprag_crypto::{Features, IdentityKey, RatchetKeyPair, Salt, SessionId, TranscriptHash};
use sprag_ratchet::{DecryptError, Limits, ReceivedMessage, Session};
use sprag_store::{Rows, Staged};
use sprag_wire::{
    Body, Content, DeviceAddress, Handshake, KemKind, MessageFrame, UnverifiedDeviceList, UserId,
    unpad,
};
use sprag_x3dh::{DeviceList, Responder, ResponderKeys, respond};
use zeroize::Zeroizing;

use crate::error::{ProtocolError, StepError};
use crate::heal::Met;
use crate::own::{Counters, Device, Env};
use crate::peers::{Learned, forget_without_records};
use crate::prekeys::{self, UsedPreKeys};
use crate::record::{
    ARCHIVED, ARCHIVED_OF_STRANGER, Ledger, Parts, Record, SessionRef, SkippedRows, delete_prefix,
    load_session, save_session, save_skipped,
};
use crate::ring::{Flags, Note, What, With};
use crate::shares::Shared;
use crate::trust::{self, Judged, ListSource, User};
use crate::{receipts, riders, tables};

/// A frame that was opened. The session has advanced, whatever its content.
#[non_exhaustive]
pub struct Received {
    /// The device that made it.
    pub from: DeviceAddress,
    /// Names the frame.
    pub salt: Salt,
    /// The session that it came on.
    pub session_id: SessionId,
    /// Whether this frame began the session.
    pub new_session: bool,
    /// Whether its user is accepted.
    pub accepted: bool,
    /// The content as encoded, without padding; empty if the padding was wrong.
    pub plaintext: Zeroizing<Vec<u8>>,
    /// The content, or `BadContent`.
    pub content: Result<Content, ProtocolError>,
    /// A device list that rode in it and was refused.
    pub list_refused: Option<ProtocolError>,
    /// What the frame told of its user's devices.
    pub learned: Learned,
    /// It is a key share that waits until this device is linked.
    pub aside: bool,
    /// It is a key share that was not taken: its sender is no holder, or its keys or its proof are wrong.
    pub share_refused: bool,
}

impl std::fmt::Debug for Received {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Received").finish_non_exhaustive()
    }
}

impl Device {
    /// Opens a frame that claims to come from `from`. `again`: it is offered once more, after our own lists were fetched.
    ///
    /// # Errors
    /// In the order of "The protocol", §7. Nothing is changed then.
    pub fn receive(
        &mut self,
        rows: &mut Staged<'_>,
        env: &mut Env<'_>,
        from: &DeviceAddress,
        frame: &[u8],
    ) -> Result<Received, StepError> {
        self.receive_once(rows, env, from, frame, false)
    }

    /// As [`receive`](Self::receive), of a frame that is offered once more after our own lists were fetched: a list of
    /// ours that is still unknown was never signed.
    ///
    /// # Errors
    /// As there.
    pub fn receive_again(
        &mut self,
        rows: &mut Staged<'_>,
        env: &mut Env<'_>,
        from: &DeviceAddress,
        frame: &[u8],
    ) -> Result<Received, StepError> {
        self.receive_once(rows, env, from, frame, true)
    }

    fn receive_once(
        &mut self,
        rows: &mut Staged<'_>,
        env: &mut Env<'_>,
        from: &DeviceAddress,
        frame: &[u8],
        again: bool,
    ) -> Result<Received, StepError> {
        self.met = None;
        let mut staged = Staged::new(&*rows);
        let received = self.receive_staged(&mut staged, env, from, frame);
        let received = match received {
            Err(StepError::Protocol(ProtocolError::UnknownList)) if again => {
                Err(ProtocolError::ListMismatch.into())
            }
            received => received,
        }?;
        self.met = None;
        let changes = staged.into_changes();
        rows.merge(changes);
        Ok(received)
    }

    fn receive_staged(
        &mut self,
        rows: &mut Staged<'_>,
        env: &mut Env<'_>,
        from: &DeviceAddress,
        frame: &[u8],
    ) -> Result<Received, StepError> {
        let frame = MessageFrame::parse(frame)?;
        let remembered = self.user(rows, from.user())?;
        let identity_key = match frame.parsed_handshake() {
            None => trust::identity_of(remembered.as_ref(), from)?,
            Some(handshake) => handshake.identity_key,
        };
        if identity_key == *self.identity.public() {
            return Err(ProtocolError::InvalidKey.into());
        }
        let (session_id, chain_index) = self
            .receiving_origin(from, &identity_key)?
            .open(&frame)
            .map_err(|_| ProtocolError::BadOrigin)?;
        let handshake = match (frame.handshake(), frame.parsed_handshake()) {
            (Some(bytes), Some(parsed)) => Some((bytes, parsed)),
            _ => None,
        };
        if handshake.is_some_and(|(bytes, _)| SessionId::of_handshake(bytes) != session_id) {
            return Err(ProtocolError::BadOrigin.into());
        }
        self.met = Some(Met {
            from: from.clone(),
            identity_key,
            session_id,
            salt: frame.salt(),
            list: handshake.map(|(_, handshake)| handshake.device_list.clone()),
        });

        let judged = match handshake {
            None => None,
            Some((_, handshake)) => {
                let list = UnverifiedDeviceList::decode(&handshake.device_list)?;
                let judged = self.judge(
                    remembered.as_ref(),
                    from.user(),
                    list,
                    ListSource::Handshake,
                )?;
                let newest = judged.newest(remembered.as_ref());
                if !is_listed(newest, from, &identity_key) {
                    return Err(ProtocolError::UnlistedDevice.into());
                }
                Some(judged)
            }
        };

        let record = Record::load(rows, from)?.filter(|record| record.identity_key == identity_key);
        let held = record
            .as_ref()
            .and_then(|record| record.find(&session_id))
            .cloned();
        let accepted = remembered.as_ref().is_some_and(|user| user.accepted);
        let message = ReceivedMessage::new(chain_index, frame.salt(), frame.header(), frame.body());
        let limits = if accepted {
            Limits::ACCEPTED
        } else {
            Limits::STRANGER
        };

        let (next, used) = match &held {
            Some(held) => (
                load_session(rows, &tables::device_owner(from), held.number)?,
                None,
            ),
            None => {
                let (session, used) = self.respond_to(
                    rows,
                    from,
                    &session_id,
                    handshake,
                    remembered.as_ref(),
                    judged.as_ref(),
                )?;
                (session, Some(used))
            }
        };
        let owner = tables::device_owner(from);
        // A new session has a number only when it is committed; no row of a future number exists.
        let number = match &held {
            Some(held) => held.number,
            None => Counters::load(rows)?.session + 1,
        };
        let skipped = SkippedRows {
            rows,
            owner: &owner,
            number,
        };
        let opened = next
            .decrypt(&message, &skipped, limits, env.rng)
            .map_err(refusal)?;

        // Authenticated: from here on the step only writes.
        let before = remembered.as_ref().map(|user| user.newest.clone());
        let one_time = used.as_ref().is_some_and(|used| used.one_time.is_some());
        let learned = match judged {
            None => Learned::default(),
            Some(judged) => self.remember(rows, from.user(), remembered, judged)?,
        };
        let archived = if accepted {
            ARCHIVED
        } else {
            ARCHIVED_OF_STRANGER
        };
        let mut record = match Record::load(rows, from)? {
            Some(record) => record,
            None => Record::new(from, identity_key),
        };
        let (changed, dropped, parts) = match used {
            None => {
                let (changed, dropped) = record.read_on(&session_id, archived);
                (
                    changed,
                    dropped,
                    if opened.stepped {
                        Parts::Stepped
                    } else {
                        Parts::Hot
                    },
                )
            }
            Some(used) => {
                prekeys::consume(rows, &used, &session_id)?;
                let number = Counters::next(rows, |counters| &mut counters.session)?;
                let mode = used.mode;
                let reference = SessionRef {
                    number,
                    id: session_id,
                    mode,
                    // Nobody is answered by a device that is not on its user's list.
                    retired: self.check_own_listed(rows).is_err(),
                    pending_since: None,
                };
                (true, record.establish(reference, archived), Parts::All)
            }
        };
        if !accepted {
            self.note_stranger(rows, env, from)?;
        }
        record.close(rows, &dropped)?;
        if changed {
            record.save(rows);
        }
        if held
            .as_ref()
            .is_some_and(|held| held.pending_since.is_some())
        {
            rows.delete(tables::session(&owner, number, tables::PENDING));
        }
        save_session(rows, &owner, number, &opened.session, parts);
        save_skipped(rows, &owner, number, opened.skipped);
        if let Some((_, handshake)) = handshake
            && held.is_none()
            && handshake.responder_list == self.own_newest(rows)?.hash()
        {
            riders::has_list(rows, from, &handshake.responder_list)?;
        }

        let mut received = Received {
            from: from.clone(),
            salt: frame.salt(),
            session_id,
            new_session: held.is_none(),
            accepted,
            plaintext: Zeroizing::new(Vec::new()),
            content: Err(ProtocolError::BadContent),
            list_refused: None,
            learned,
            aside: false,
            share_refused: false,
        };
        let transcript = opened.session.transcript_hash();
        let mut note = Note {
            flags: Flags::NONE
                .with(Flags::HANDSHAKE, handshake.is_some())
                .with(Flags::NEW_SESSION, held.is_none())
                .with(Flags::STEPPED, opened.stepped)
                .with(Flags::ONE_TIME, one_time),
            frame: Some(frame.salt()),
            session: Some(session_id),
            chain: chain_index,
            number: opened.number,
            ..Note::new(What::Received)
        };
        self.take_content(
            rows,
            &mut received,
            &opened.plaintext,
            &identity_key,
            &transcript,
        )?;
        self.note_received(rows, env.now, &received, &identity_key, &mut note)?;
        self.note_closed(rows, env.now, from, &identity_key, accepted, &dropped)?;
        self.note_list(rows, env.now, from.user(), before.as_ref())?;
        Ok(received)
    }

    fn note_received(
        &mut self,
        rows: &mut Staged<'_>,
        now: u64,
        received: &Received,
        key: &IdentityKey,
        note: &mut Note,
    ) -> Result<(), StepError> {
        let with = With {
            peer: &received.from,
            key,
            accepted: received.accepted,
        };
        note.flags = note
            .flags
            .with(Flags::BAD_CONTENT, received.content.is_err());
        let Ok(content) = &received.content else {
            return self.note(rows, now, with, note);
        };
        note.count = content.received().len();
        note.receipt = content.received().last().copied();
        self.note(rows, now, with, note)?;
        if !content.reset().is_empty() {
            let retired = Note {
                count: content.reset().len(),
                session: content.reset().first().copied(),
                ..Note::new(What::Retired)
            };
            self.note(rows, now, with, &retired)?;
        }
        Ok(())
    }

    /// Sessions fell off the archive.
    pub(crate) fn note_closed(
        &mut self,
        rows: &mut Staged<'_>,
        now: u64,
        peer: &DeviceAddress,
        key: &IdentityKey,
        accepted: bool,
        dropped: &[SessionRef],
    ) -> Result<(), StepError> {
        let with = With {
            peer,
            key,
            accepted,
        };
        for session in dropped {
            let note = Note {
                session: Some(session.id),
                ..Note::new(What::Closed)
            };
            self.note(rows, now, with, &note)?;
        }
        Ok(())
    }

    /// A session that is not held: the ledger, the seen-sets and the handshake decide ("The protocol", §7, 5 and 6).
    fn respond_to(
        &self,
        rows: &Staged<'_>,
        from: &DeviceAddress,
        session_id: &SessionId,
        handshake: Option<(&[u8], &Handshake)>,
        remembered: Option<&User>,
        judged: Option<&Judged>,
    ) -> Result<(Session, UsedPreKeys), StepError> {
        let entered = Ledger::load(rows, &tables::device_owner(from))?.get(session_id);
        if entered == Some(true) {
            return Err(ProtocolError::Duplicate.into());
        }
        let (Some((bytes, handshake)), None) = (handshake, entered) else {
            return Err(ProtocolError::NoSession.into());
        };
        if prekeys::is_seen(rows, session_id)? {
            return Err(ProtocolError::NoSession.into());
        }
        self.check_view_of_our_list(rows, from.user(), handshake, remembered, judged)?;

        let unknown = ProtocolError::UnknownPreKey;
        let signed = prekeys::load_signed(rows, handshake.signed_pre_key)?.ok_or(unknown)?;
        let one_time = match handshake.one_time_pre_key {
            None => None,
            Some(id) => Some(prekeys::load_one_time(rows, id)?.ok_or(unknown)?),
        };
        let kem = match &handshake.kem {
            None => None,
            Some((id, _)) => Some(prekeys::load_kem(rows, *id)?.ok_or(unknown)?),
        };
        let used = UsedPreKeys {
            mode: handshake.mode,
            signed: handshake.signed_pre_key,
            one_time: handshake.one_time_pre_key,
            kem: kem
                .as_ref()
                .filter(|kem| kem.pair.kind() == KemKind::OneTime)
                .map(|kem| kem.pair.id()),
        };
        if used.needs_seen_set() && signed.seen >= prekeys::SEEN {
            return Err(unknown.into());
        }
        let x3dh = self.features.contains(Features::ACCEPTS_X3DH)
            && signed.pair.features().contains(Features::ACCEPTS_X3DH);
        self.check_mode(rows, from, handshake.mode, x3dh, handshake.features)?;

        let secret = respond(
            &Responder {
                identity: &self.identity,
                address: &self.address,
            },
            from,
            bytes,
            handshake,
            &ResponderKeys {
                signed: &signed.pair,
                one_time: one_time.as_ref(),
                kem: kem.as_ref().map(|kem| &kem.pair),
            },
        )?;
        let ratchet = RatchetKeyPair::from_private(signed.pair.private().clone());
        let session = Session::respond(secret, ratchet).map_err(|_| ProtocolError::Unreadable)?;
        Ok((session, used))
    }

    /// Which of our lists the initiator saw: one that we signed, or somebody deceives him ("The protocol", §3).
    fn check_view_of_our_list(
        &self,
        rows: &Staged<'_>,
        from: &UserId,
        handshake: &Handshake,
        remembered: Option<&User>,
        judged: Option<&Judged>,
    ) -> Result<(), StepError> {
        let own = self.own_user(rows)?;
        let (epoch, seen) = (handshake.responder_epoch, handshake.responder_list);
        let mut ours = own.history.get(&epoch).copied();
        if from == self.address.user()
            && let Some(judged) = judged
        {
            // In a handshake of our own user its list counts as part of our history.
            let newest = judged.newest(remembered);
            if newest.epoch() == epoch {
                ours = ours.or(Some(newest.hash()));
            } else if newest.epoch() == epoch + 1 {
                ours = ours.or(newest.previous());
            }
        }
        match ours {
            None => Err(ProtocolError::UnknownList.into()),
            Some(hash) if hash == seen => Ok(()),
            Some(_) => Err(ProtocolError::ListMismatch.into()),
        }
    }

    /// Padding and protobuf, then the riders, then the body ("The protocol", §6).
    fn take_content(
        &mut self,
        rows: &mut Staged<'_>,
        received: &mut Received,
        padded: &[u8],
        identity_key: &IdentityKey,
        transcript: &TranscriptHash,
    ) -> Result<(), StepError> {
        let Ok(plaintext) = unpad(padded) else {
            return Ok(());
        };
        received.plaintext = Zeroizing::new(plaintext.to_vec());
        let Ok(content) = Content::decode(plaintext) else {
            return Ok(());
        };
        let from = received.from.user();
        receipts::received(rows, &received.from, content.received())?;
        if !content.received().is_empty() {
            let newest = self.own_newest(rows)?.hash();
            riders::confirmed(rows, &received.from, content.received(), &newest)?;
        }
        if let Some(mut record) = Record::load(rows, &received.from)?
            && !record.reset.is_empty()
            && !record.reset.contains(&received.session_id)
        {
            let mut confirmed = false;
            for salt in content.received() {
                let name = tables::carried_reset(&record.owner, Some(salt));
                confirmed |= rows.get(&name)?.is_some();
            }
            if confirmed {
                record.reset.clear();
                record.save(rows);
                delete_prefix(rows, &tables::carried_reset(&record.owner, None))?;
            }
        }
        if let Some(frame) = content.device_list() {
            match self.take_list(rows, from, frame) {
                Ok(learned) => {
                    received.learned.newer |= learned.newer;
                    received.learned.replaced |= learned.replaced;
                    if !received.accepted {
                        forget_without_records(rows, from)?;
                    }
                }
                Err(StepError::Protocol(error)) => received.list_refused = Some(error),
                Err(error) => return Err(error),
            }
        }
        if !content.reset().is_empty()
            && let Some(mut record) = Record::load(rows, &received.from)?
        {
            let named = content.reset();
            let changed = record.retire(|session| named.contains(&session.id));
            let mut ledger = Ledger::load(rows, &record.owner)?;
            for id in named.iter().filter(|id| record.find(id).is_none()) {
                ledger.lose(*id);
            }
            ledger.save(rows, &record.owner);
            if changed {
                record.save(rows);
            }
        }
        let from_own_user = from == self.address.user();
        if content.check_body(from_own_user).is_err() {
            return Ok(());
        }
        if let Body::KeyShare(share) = content.body() {
            let from = received.from.clone();
            match self.judge_share(rows, &from, identity_key, transcript, share)? {
                Shared::Taken => {}
                Shared::Aside => received.aside = true,
                Shared::Refused => {
                    received.share_refused = true;
                    return Ok(());
                }
            }
        }
        received.content = Ok(content);
        Ok(())
    }

    fn take_list(
        &mut self,
        rows: &mut Staged<'_>,
        name: &UserId,
        frame: &[u8],
    ) -> Result<Learned, StepError> {
        let list = UnverifiedDeviceList::decode(frame).map_err(|_| ProtocolError::Malformed)?;
        let remembered = self.user(rows, name)?;
        let judged = self.judge(remembered.as_ref(), name, list, ListSource::Content)?;
        self.remember(rows, name, remembered, judged)
    }
}

fn is_listed(list: &DeviceList, address: &DeviceAddress, key: &IdentityKey) -> bool {
    list.devices()
        .iter()
        .any(|entry| entry.device() == address.device() && entry.identity_key() == key)
}

fn refusal(error: DecryptError) -> StepError {
    StepError::Protocol(match error {
        DecryptError::Duplicate => ProtocolError::Duplicate,
        DecryptError::Desynchronised => ProtocolError::Desynchronised,
        DecryptError::TooFarAhead => ProtocolError::TooFarAhead,
        DecryptError::InvalidKey => ProtocolError::InvalidKey,
        DecryptError::SkippedUnavailable => {
            return StepError::Store(sprag_store::StoreError::Damaged("skipped keys"));
        }
        _ => ProtocolError::Unreadable,
    })
}
