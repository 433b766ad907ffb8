//! What was received and not yet acknowledged, and what was received before ("The protocol", §6 and §7).

use std::ops::ControlFlow;

use sprag_crypto::Salt;
use sprag_store::{Rows, Staged, StoreError};
use sprag_wire::limits::RECEIVED as MAX_RECEIVED;
use sprag_wire::{Body, DeviceAddress, UserId};
use zeroize::{Zeroize, Zeroizing};

use crate::codec::{Reader, Writer};
use crate::error::StepError;
use crate::outgoing::MessageId;
use crate::own::{Counters, Device};
use crate::receive::Received;
use crate::task::{read_address, read_user, write_address};
use crate::{chunks, tables};

/// Messages that may wait to be acknowledged. A further one is refused before it is decrypted; the server keeps it.
pub const INBOX: u32 = 10_000;
/// Of these, messages of users who are not accepted: strangers do not keep others out.
pub const INBOX_OF_STRANGERS: u32 = 1_000;
/// Messages or tasks in one answer, in bytes: then the page ends.
pub(crate) const PAGE_BYTES: usize = 16 << 20;
/// Message ids and opened salts remembered per device.
pub const REMEMBERED: u64 = 1_024;

/// Version 1 has no conversation.
const VERSION: u8 = 2;

/// Names a received message for `acknowledge`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InboxId(u64);

impl InboxId {
    /// From the number that [`InboxId::get`] gave.
    #[must_use]
    pub fn new(id: u64) -> Self {
        Self(id)
    }

    /// The number, for storing it elsewhere.
    #[must_use]
    pub fn get(self) -> u64 {
        self.0
    }
}

/// A received message. It stays in the inbox until it is acknowledged.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct InboxMessage {
    /// Names it for `acknowledge`.
    pub id: InboxId,
    /// The id that its sender gave it.
    pub message_id: MessageId,
    /// The device that sent it.
    pub from: DeviceAddress,
    /// The sender's clock, in milliseconds since 1970; for display only.
    pub sent_at: u64,
    /// Our clock when it was opened, in milliseconds since 1970.
    pub received_at: u64,
    /// Whether its user was accepted when it came.
    pub accepted: bool,
    /// Of a sync copy: the users that another device of ours sent it to. Empty: it was sent to us.
    pub sent_to: Vec<UserId>,
    /// What the application of the sender gave.
    pub application: Vec<u8>,
}

impl Drop for InboxMessage {
    fn drop(&mut self) {
        self.application.zeroize();
    }
}

impl std::fmt::Debug for InboxMessage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("InboxMessage")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

/// The next number of one device's rings.
pub(crate) fn next_in_ring(
    rows: &mut Staged<'_>,
    owner: &[u8],
    which: u8,
) -> Result<u64, StoreError> {
    let name = tables::ring(owner, which);
    let number = match rows.get(&name)? {
        None => 0,
        Some(bytes) => {
            let bytes = bytes
                .as_slice()
                .try_into()
                .map_err(|_| StoreError::Damaged("ring"))?;
            u64::from_be_bytes(bytes)
        }
    };
    rows.put(name, Zeroizing::new((number + 1).to_be_bytes().to_vec()));
    Ok(number)
}

/// Whether this message id came from this device before; if not, it is remembered.
fn is_repeat(rows: &mut Staged<'_>, owner: &[u8], id: &[u8; 16]) -> Result<bool, StoreError> {
    let name = tables::delivered(owner, id);
    if rows.get(&name)?.is_some() {
        return Ok(true);
    }
    rows.put(name, Zeroizing::new(Vec::new()));
    let number = next_in_ring(rows, owner, tables::RING_DELIVERED)?;
    let slot = tables::delivered_slot(owner, number % REMEMBERED);
    if let Some(old) = rows.get(&slot)?
        && let Ok(old) = old.as_slice().try_into()
    {
        rows.delete(tables::delivered(owner, old));
    }
    rows.put(slot, Zeroizing::new(id.to_vec()));
    Ok(false)
}

/// A frame was opened; a later message to its device will say so.
fn note_opened(rows: &mut Staged<'_>, owner: &[u8], salt: &Salt) -> Result<(), StoreError> {
    let number = next_in_ring(rows, owner, tables::RING_OPENED)?;
    rows.put(
        tables::unnamed(owner, Some(number)),
        Zeroizing::new(salt.as_bytes().to_vec()),
    );
    if let Some(old) = number.checked_sub(REMEMBERED) {
        rows.delete(tables::unnamed(owner, Some(old)));
    }
    Ok(())
}

/// The salts that ride as `received` on the next message to a device, at most 32, with their numbers.
pub(crate) fn unnamed(rows: &dyn Rows, owner: &[u8]) -> Result<Vec<(u64, Salt)>, StoreError> {
    let mut found = Vec::new();
    rows.scan(&tables::unnamed(owner, None), &mut |suffix, value| {
        if let (Ok(number), Ok(salt)) = (suffix.try_into(), value.try_into()) {
            found.push((u64::from_be_bytes(number), Salt::from_bytes(salt)));
        }
        if found.len() < MAX_RECEIVED {
            ControlFlow::Continue(())
        } else {
            ControlFlow::Break(())
        }
    })?;
    Ok(found)
}

/// These salts are named now.
pub(crate) fn named(rows: &mut Staged<'_>, owner: &[u8], salts: &[(u64, Salt)]) {
    for (number, _) in salts {
        rows.delete(tables::unnamed(owner, Some(*number)));
    }
}

impl Device {
    /// Whether the inbox takes another message of this user. Asked before a frame is decrypted.
    pub(crate) fn inbox_has_room(
        &self,
        rows: &dyn Rows,
        from: &UserId,
    ) -> Result<bool, StoreError> {
        let counters = Counters::load(rows)?;
        if counters.inbox >= INBOX || counters.inbox_of_strangers < INBOX_OF_STRANGERS {
            return Ok(counters.inbox < INBOX);
        }
        Ok(self.user(rows, from)?.is_some_and(|user| user.accepted))
    }

    /// Keeps what a frame brought until the application acknowledges it. Repeats of a message bring nothing.
    pub(crate) fn keep(
        &self,
        rows: &mut Staged<'_>,
        received: &Received,
        now: u64,
    ) -> Result<Option<InboxMessage>, StepError> {
        let owner = tables::device_owner(&received.from);
        // What the frame itself unlisted has no record any more: it is heard this once, and nothing is remembered of it.
        let has_record = rows.get(&tables::record(&owner))?.is_some();
        if has_record {
            note_opened(rows, &owner, &received.salt)?;
        }
        let Ok(content) = &received.content else {
            return Ok(None);
        };
        let (sent_to, application) = match content.body() {
            Body::Application(application) => (Vec::new(), application),
            Body::Sync {
                to, application, ..
            } => {
                let to: Result<Vec<_>, _> = to.iter().map(|to| UserId::new(to)).collect();
                (
                    to.map_err(|_| StepError::Internal("checked user ids"))?,
                    application,
                )
            }
            _ => return Ok(None),
        };
        if has_record && is_repeat(rows, &owner, content.message_id())? {
            return Ok(None);
        }
        let mut counters = Counters::load(rows)?;
        counters.sequence += 1;
        counters.inbox += 1;
        counters.inbox_of_strangers += u32::from(!received.accepted);
        counters.save(rows);
        let sequence = counters.sequence;
        let mut writer = Writer::new(VERSION, 320);
        writer.fixed(content.message_id());
        write_address(&mut writer, &received.from);
        writer
            .u64(content.sent_at())
            .u64(now)
            .bool(received.accepted);
        // The users may be many: they stand in front of the bytes, in the chunks.
        let mut body = Writer::bare(sent_to.len() * 32 + application.len());
        for user in &sent_to {
            body.block(user.as_str().as_bytes());
        }
        body.fixed(application);
        let body = body.finish();
        writer
            .u32(u32::try_from(sent_to.len()).unwrap_or(u32::MAX))
            .u32(u32::try_from(body.len()).unwrap_or(u32::MAX));
        rows.put(tables::chunk(tables::INBOX, sequence, 0), writer.finish());
        chunks::put(rows, tables::INBOX, sequence, 1, &body);
        Ok(Some(InboxMessage {
            id: InboxId(sequence),
            message_id: MessageId::from_bytes(*content.message_id()),
            from: received.from.clone(),
            sent_at: content.sent_at(),
            received_at: now,
            accepted: received.accepted,
            sent_to,
            application: application.clone(),
        }))
    }

    /// The messages that wait to be acknowledged, oldest first, at most `limit`, and no more than fit into about 16 MiB.
    ///
    /// # Errors
    /// What the store answers.
    pub fn inbox(&self, rows: &dyn Rows, limit: usize) -> Result<Vec<InboxMessage>, StepError> {
        if self.is_waiting(rows)? {
            // It is shown once this device has the keys of its account.
            return Ok(Vec::new());
        }
        let mut headers: chunks::Numbered = Vec::new();
        let mut bytes = 0;
        // Rows come in order: a message's header, then its chunks.
        rows.scan(&tables::all(tables::INBOX), &mut |suffix, value| {
            if let Some((head, rest)) = suffix.split_first_chunk::<8>()
                && rest == 0u32.to_be_bytes()
            {
                if headers.len() >= limit || bytes > PAGE_BYTES {
                    return ControlFlow::Break(());
                }
                let header = Zeroizing::new(value.to_vec());
                headers.push((u64::from_be_bytes(*head), header));
            }
            bytes += value.len();
            ControlFlow::Continue(())
        })?;
        headers
            .iter()
            .map(|(sequence, header)| Ok(read(rows, *sequence, header)?))
            .collect()
    }

    /// The application has taken over a message: it leaves the inbox. Twice is once.
    ///
    /// # Errors
    /// What the store answers.
    pub fn acknowledge(&self, rows: &mut Staged<'_>, id: InboxId) -> Result<(), StepError> {
        let name = tables::chunk(tables::INBOX, id.0, 0);
        let Some(header) = rows.get(&name)? else {
            return Ok(());
        };
        let (message, _, length) = read_header(id.0, &header)?;
        rows.delete(name);
        chunks::delete(rows, tables::INBOX, id.0, 1, length);
        let mut counters = Counters::load(rows)?;
        counters.inbox = counters.inbox.saturating_sub(1);
        let of_stranger = u32::from(!message.accepted);
        counters.inbox_of_strangers = counters.inbox_of_strangers.saturating_sub(of_stranger);
        counters.save(rows);
        Ok(())
    }
}

/// The message without its bytes, how many users stand in front of them, and the length of both.
pub(crate) fn read_header(
    sequence: u64,
    header: &[u8],
) -> Result<(InboxMessage, u32, usize), StoreError> {
    let version = header.first().copied().filter(|first| *first == 1);
    let version = version.unwrap_or(VERSION);
    let mut reader = Reader::new(header, version, "inbox row")?;
    let message = InboxMessage {
        id: InboxId(sequence),
        message_id: MessageId::from_bytes(reader.array()?),
        from: read_address(&mut reader)?,
        sent_at: reader.u64()?,
        received_at: reader.u64()?,
        accepted: reader.bool()?,
        sent_to: Vec::new(),
        application: Vec::new(),
    };
    let users = if version == 1 { 0 } else { reader.u32()? };
    let length = reader.u32()? as usize;
    reader.finish()?;
    Ok((message, users, length))
}

fn read(rows: &dyn Rows, sequence: u64, header: &[u8]) -> Result<InboxMessage, StoreError> {
    let (mut message, users, length) = read_header(sequence, header)?;
    let mut body = chunks::get(rows, tables::INBOX, sequence, 1, length)?;
    if users == 0 {
        message.application = std::mem::take(&mut *body);
        return Ok(message);
    }
    let mut reader = Reader::bare(&body, "inbox body");
    for _ in 0..users {
        message.sent_to.push(read_user(&mut reader)?);
    }
    message.application = reader.rest().to_vec();
    Ok(message)
}
