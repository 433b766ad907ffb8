//! Sending: one content to one device on its current session ("The protocol", §4.3, §5, §8).

use sprag_crypto::{Salt, SessionId};
use sprag_ratchet::{EncryptError, SaltSource};
use sprag_store::{Rows, Staged};
use sprag_wire::limits::{APPLICATION as MAX_APPLICATION, PLAINTEXT as MAX_PLAINTEXT};
use sprag_wire::{Body, Content, DeviceAddress, ListHash, Padding, encode_message, pad};

use crate::error::{ProtocolError, StepError};
use crate::own::{Device, Env};
use crate::record::{Parts, Record, load_session, save_session};
use crate::ring::{Flags, Note, What, With};
use crate::{tables, trust};

/// A handshake that no reply has confirmed for this long is not sent on: the bundle may have been stale. Seven days.
pub const PENDING_MS: u64 = 7 * 24 * 3_600 * 1_000;

/// One message, ready for one device.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct SealedFrame {
    /// The frame, `0x11` or `0x12`.
    pub frame: Vec<u8>,
    /// Names the frame for sender, server and receiver.
    pub salt: Salt,
    /// The session that it was sealed on.
    pub session_id: SessionId,
    /// The newest list of its user that was known.
    pub known_list: ListHash,
}

impl Device {
    /// Encrypts an encoded content to one device.
    ///
    /// # Errors
    /// In the order of "The protocol", §8, *Sending*: `BadInput`, `UnlistedDevice` (ours), `NeedsBundle`,
    /// `UnlistedDevice`, `NeedsBundle`, `ChainExhausted`. Nothing is changed then.
    pub fn seal(
        &mut self,
        rows: &mut Staged<'_>,
        env: &mut Env<'_>,
        to: &DeviceAddress,
        content: &[u8],
        padding: Padding,
    ) -> Result<SealedFrame, StepError> {
        check_size(content)?;
        let plaintext = pad(content, padding);
        if plaintext.len() > MAX_PLAINTEXT {
            return Err(ProtocolError::BadInput.into());
        }
        self.check_linked(rows)?;
        self.check_own_listed(rows)?;
        let mut user = trust::known(self.user(rows, to.user())?)?;
        if !user.may_be_written_to() {
            return Err(ProtocolError::NeedsBundle.into());
        }
        let Some(identity_key) = user.listed(to.device()).copied() else {
            return Err(ProtocolError::UnlistedDevice.into());
        };
        let record = Record::load(rows, to)?.ok_or(ProtocolError::NeedsBundle)?;
        let current = record
            .current
            .as_ref()
            .filter(|current| !current.retired && !current.is_stale(env.now))
            .ok_or(ProtocolError::NeedsBundle)?;

        let session = load_session(rows, &record.owner, current.number)?;
        let salt = match env.injected_salt.take() {
            Some(salt) => SaltSource::Injected(salt),
            None => SaltSource::Hedged(env.rng),
        };
        let (next, message) = session
            .encrypt(&plaintext, salt)
            .map_err(|error| match error {
                EncryptError::ChainExhausted => StepError::Protocol(ProtocolError::ChainExhausted),
                // A responder's session that has read nothing is never stored.
                _ => StepError::Internal("a session without sending chain"),
            })?;
        let handshake = match current.pending_since {
            None => None,
            Some(_) => rows.get(&tables::session(
                &record.owner,
                current.number,
                tables::PENDING,
            ))?,
        };
        let handshake = handshake.as_ref().map(|bytes| bytes.as_slice());
        let mut frame = encode_message(handshake, &message.salt, &message.header, &message.body);
        let origin = self.sending_origin(to, &identity_key)?;
        origin.seal(&mut frame, &message.salt, &current.id, message.chain_index);

        save_session(rows, &record.owner, current.number, &next, Parts::Hot);
        self.mark_accepted(rows, &mut user)?;
        let with = With {
            peer: to,
            key: &identity_key,
            accepted: true,
        };
        let note = Note {
            flags: Flags::NONE.with(Flags::HANDSHAKE, current.pending_since.is_some()),
            frame: Some(message.salt),
            session: Some(current.id),
            chain: message.chain_index,
            number: message.number,
            ..Note::new(What::Sent)
        };
        self.note(rows, env.now, with, &note)?;
        Ok(SealedFrame {
            frame,
            salt: message.salt,
            session_id: current.id,
            known_list: user.newest.hash(),
        })
    }
}

/// What the application may put into one message ("The protocol", §6).
fn check_size(content: &[u8]) -> Result<(), ProtocolError> {
    if content.len() > MAX_PLAINTEXT {
        return Err(ProtocolError::BadInput);
    }
    if content.len() <= MAX_APPLICATION {
        return Ok(());
    }
    let application = match Content::decode(content) {
        Ok(content) => match content.body() {
            Body::Application(bytes) => bytes.len(),
            Body::Sync { application, .. } => application.len(),
            _ => 0,
        },
        Err(_) => 0,
    };
    if application > MAX_APPLICATION {
        Err(ProtocolError::BadInput)
    } else {
        Ok(())
    }
}
