//! Records on their way into a store: redacted, named, dated, encoded.

use sprag_session::memory::Space;

use super::fault::Fault;
use super::redact::Tally;
use super::row::Row;
use super::steps::{Prepared, Rule, record_id};
use super::store::EncryptedMemoryStore;
use super::{Chat, Memory, blob};
use crate::Error;
use crate::client::Write;

/// A record on its way to be stored.
pub(super) struct Draft {
    pub(super) prepared: Prepared,
    pub(super) id: String,
    pub(super) counts: Vec<(String, u64)>,
    pub(super) rule: Rule,
    pub(super) verify: bool,
}

impl EncryptedMemoryStore {
    /// The id that a new record gets, and the time.
    fn stamp(&self, id: &mut String) -> Result<u64, Error> {
        if id.is_empty() {
            *id = hex_id(self.client.new_message_id()?.as_bytes());
        }
        self.client.with_party(|_, now| now)
    }

    /// When a record was made, as the index says.
    fn created_at(&self, space: &Space, id: &str) -> Result<Option<u64>, Error> {
        let id = record_id(id)?;
        let shared = &self.client.shared;
        let (_, row) = shared.submit(Write::Durable, |step| {
            let Some(tag) = step.device.memory_tag(step.rows, space, &id)? else {
                return Ok(None);
            };
            Ok(step.device.memory_index_of(step.rows, space, &tag)?)
        })?;
        Ok(row
            .and_then(|row| Row::decode(&row).ok())
            .map(|row| row.created_at))
    }

    /// A memory that is ready to be sealed.
    pub(super) fn draft_memory(&self, memory: &Memory, rule: Rule) -> Result<Draft, Error> {
        memory.check()?;
        let mut memory = memory.clone();
        let mut tally = Tally::default();
        if let Some(redactor) = &self.redactor {
            tally.memory(&**redactor, &mut memory);
        }
        self.draft_memory_as_it_is(memory, rule, tally.counts())
    }

    /// The same, nothing taken out of it.
    pub(super) fn draft_memory_as_it_is(
        &self,
        mut memory: Memory,
        rule: Rule,
        counts: Vec<(String, u64)>,
    ) -> Result<Draft, Error> {
        let rule = self.name(&memory.id, rule)?;
        let now = self.stamp(&mut memory.id)?;
        if memory.created_at == 0 {
            let made = self.created_at(&self.memories, &memory.id)?;
            memory.created_at = made.filter(|_| is_update(rule)).unwrap_or(now);
        }
        if memory.updated_at == 0 || is_update(rule) {
            memory.updated_at = now;
        }
        let prepared = Prepared {
            id: record_id(&memory.id)?,
            plaintext: blob::encode_memory(&memory)?,
            row: Row::of_memory(&memory)?.encode(),
        };
        Ok(Draft {
            prepared,
            id: memory.id.clone(),
            counts,
            rule,
            verify: false,
        })
    }

    /// A chat that is ready to be sealed.
    pub(super) fn draft_chat(&self, chat: &Chat, rule: Rule) -> Result<Draft, Error> {
        chat.check()?;
        let mut chat = chat.clone();
        let mut tally = Tally::default();
        if let Some(redactor) = &self.redactor {
            tally.chat(&**redactor, &mut chat);
        }
        self.draft_chat_as_it_is(chat, rule, tally.counts())
    }

    /// The same, nothing taken out of it.
    pub(super) fn draft_chat_as_it_is(
        &self,
        mut chat: Chat,
        rule: Rule,
        counts: Vec<(String, u64)>,
    ) -> Result<Draft, Error> {
        let rule = self.name(&chat.id, rule)?;
        let now = self.stamp(&mut chat.id)?;
        if chat.created_at == 0 {
            let made = self.created_at(&self.chats, &chat.id)?;
            chat.created_at = made.filter(|_| is_update(rule)).unwrap_or(now);
        }
        if chat.updated_at == 0 || is_update(rule) {
            chat.updated_at = now;
        }
        let prepared = Prepared {
            id: record_id(&chat.id)?,
            plaintext: blob::encode_chat(&chat)?,
            row: Row::of_chat(&chat).encode(),
        };
        Ok(Draft {
            prepared,
            id: chat.id.clone(),
            counts,
            rule,
            verify: false,
        })
    }

    /// An update names its record.
    fn name(&self, id: &str, rule: Rule) -> Result<Rule, Error> {
        if id.is_empty() && is_update(rule) {
            return Err(Fault::NoRecord.into());
        }
        Ok(rule)
    }
}

fn is_update(rule: Rule) -> bool {
    matches!(rule, Rule::Update(_))
}

/// 32 hexadecimal digits.
fn hex_id(bytes: &[u8; 16]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
