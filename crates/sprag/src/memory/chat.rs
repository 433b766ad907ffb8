//! A chat.

use std::fmt;

use serde::de::{Error as _, MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zeroize::ZeroizeOnDrop;

use super::blob::measure;
use super::record::{check_extra, check_id, is_name, value};
use super::{InvalidRecord, Json, MAX_TITLE, Provenance};

/// The longest role, in bytes.
const MAX_ROLE: usize = 64;

const FIELDS: [&str; 6] = [
    "id",
    "title",
    "messages",
    "created_at",
    "updated_at",
    "metadata",
];
const MESSAGE_FIELDS: [&str; 4] = ["role", "content", "name", "at"];

/// A chat: who said what, in order. At most 16 MiB, all fields together.
///
/// As JSON it is an object; fields that are not known here are kept as they are. Two chats are equal if their fields are. Its
/// texts are wiped when it is dropped, as far as they were not moved by growing.
#[derive(Clone, Default, ZeroizeOnDrop)]
#[non_exhaustive]
pub struct Chat {
    /// Names it among the chats of its owner: 1 to 128 bytes without control characters. Empty: 32 hexadecimal digits are drawn
    /// when it is stored.
    pub id: String,
    /// At most 1,024 bytes. Lists show it.
    pub title: String,
    /// Oldest first.
    #[zeroize(skip)]
    pub messages: Vec<ChatMessage>,
    /// Milliseconds since 1970. 0: the time of storing is taken.
    pub created_at: u64,
    /// Milliseconds since 1970. 0: the time of storing is taken.
    pub updated_at: u64,
    /// Anything, as JSON.
    #[zeroize(skip)]
    pub metadata: Option<Json>,
    /// Fields that are not known here, in their order.
    #[zeroize(skip)]
    pub extra: Vec<(String, Json)>,
    #[zeroize(skip)]
    pub(crate) provenance: Option<Provenance>,
}

/// One message of a chat.
#[derive(Clone, Default, PartialEq, ZeroizeOnDrop)]
#[non_exhaustive]
pub struct ChatMessage {
    /// Who speaks, such as `user`, `assistant`, `tool`: 1 to 64 bytes without control characters.
    pub role: String,
    /// What is said. Where others have a list of parts or `null` in its place, that stands in [`extra`](Self::extra), under
    /// `content`, and this is empty.
    pub content: String,
    /// The name of who speaks.
    pub name: Option<String>,
    /// When, in milliseconds since 1970; 0 is unknown.
    pub at: u64,
    /// Fields that are not known here, in their order.
    #[zeroize(skip)]
    pub extra: Vec<(String, Json)>,
}

impl Chat {
    /// A chat of these messages.
    #[must_use]
    pub fn new(messages: Vec<ChatMessage>) -> Self {
        let mut chat = Self::default();
        chat.messages = messages;
        chat
    }

    /// With this id.
    #[must_use]
    pub fn id(mut self, id: impl Into<String>) -> Self {
        self.id = id.into();
        self
    }

    /// With this title.
    #[must_use]
    pub fn title(mut self, title: impl Into<String>) -> Self {
        self.title = title.into();
        self
    }

    /// Where it comes from. Set when it is decrypted, and only then; it is no part of its JSON.
    #[must_use]
    pub fn provenance(&self) -> Option<&Provenance> {
        self.provenance.as_ref()
    }

    /// From its JSON.
    ///
    /// # Errors
    /// [`InvalidRecord::Shape`]: other JSON, or none; else as [`check`](Self::check).
    pub fn from_json(json: &str) -> Result<Self, InvalidRecord> {
        let chat: Self = serde_json::from_str(json).map_err(|_| InvalidRecord::Shape)?;
        chat.check()?;
        Ok(chat)
    }

    /// Its JSON, on one line.
    #[must_use]
    pub fn to_json(&self) -> String {
        // Writing to memory fails for no value of these types.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Whether it can be stored.
    ///
    /// # Errors
    /// What is out of range, all fields together included.
    pub fn check(&self) -> Result<(), InvalidRecord> {
        self.check_fields()?;
        measure(&[], self).map(drop)
    }

    /// Each field for itself.
    pub(super) fn check_fields(&self) -> Result<(), InvalidRecord> {
        if !self.id.is_empty() {
            check_id(&self.id)?;
        }
        if self.title.len() > MAX_TITLE {
            return Err(InvalidRecord::Title);
        }
        for message in &self.messages {
            if !is_name(&message.role, MAX_ROLE) {
                return Err(InvalidRecord::Role);
            }
            let in_parts = has(&message.extra, "content");
            let known: &[&str] = if in_parts && message.content.is_empty() {
                &["role", "name", "at"]
            } else {
                &MESSAGE_FIELDS
            };
            check_extra(&message.extra, known)?;
        }
        check_extra(&self.extra, &FIELDS)
    }
}

impl ChatMessage {
    /// One who has this role says this.
    #[must_use]
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Self {
        let mut message = Self::default();
        message.role = role.into();
        message.content = content.into();
        message
    }

    /// Said at this time, in milliseconds since 1970.
    #[must_use]
    pub fn at(mut self, at: u64) -> Self {
        self.at = at;
        self
    }

    /// With the name of who speaks.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }
}

fn has(extra: &[(String, Json)], name: &str) -> bool {
    extra.iter().any(|(found, _)| found == name)
}

impl PartialEq for Chat {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
            && self.title == other.title
            && self.messages == other.messages
            && self.created_at == other.created_at
            && self.updated_at == other.updated_at
            && self.metadata == other.metadata
            && self.extra == other.extra
    }
}

impl fmt::Debug for Chat {
    /// Nothing of it is for a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Chat").finish_non_exhaustive()
    }
}

impl fmt::Debug for ChatMessage {
    /// Nothing of it is for a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChatMessage").finish_non_exhaustive()
    }
}

impl Serialize for Chat {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("id", &self.id)?;
        if !self.title.is_empty() {
            map.serialize_entry("title", &self.title)?;
        }
        for (name, time) in [
            ("created_at", self.created_at),
            ("updated_at", self.updated_at),
        ] {
            if time != 0 {
                map.serialize_entry(name, &time)?;
            }
        }
        map.serialize_entry("messages", &self.messages)?;
        if let Some(metadata) = &self.metadata {
            map.serialize_entry("metadata", metadata)?;
        }
        for (name, value) in &self.extra {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

impl Serialize for ChatMessage {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("role", &self.role)?;
        if !has(&self.extra, "content") {
            map.serialize_entry("content", &self.content)?;
        }
        if let Some(name) = &self.name {
            map.serialize_entry("name", name)?;
        }
        if self.at != 0 {
            map.serialize_entry("at", &self.at)?;
        }
        for (name, value) in &self.extra {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for Chat {
    /// Out of JSON, and of nothing else: unknown fields are kept as JSON text.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ChatFields)
    }
}

impl<'de> Deserialize<'de> for ChatMessage {
    /// Out of JSON, and of nothing else: unknown fields are kept as JSON text.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(MessageFields)
    }
}

/// Notes that a known field was there.
fn note<E: serde::de::Error>(
    seen: &mut Vec<&'static str>,
    known: &[&'static str],
    name: &str,
) -> Result<(), E> {
    if let Some(known) = known.iter().find(|known| **known == name) {
        if seen.contains(known) {
            return Err(E::custom("a field stands there twice"));
        }
        seen.push(*known);
    }
    Ok(())
}

struct ChatFields;

impl<'de> Visitor<'de> for ChatFields {
    type Value = Chat;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a chat")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Chat, A::Error> {
        let mut chat = Chat::default();
        let mut seen = Vec::new();
        while let Some(name) = map.next_key::<String>()? {
            note(&mut seen, &FIELDS, &name)?;
            match name.as_str() {
                "id" => chat.id = value(&mut map)?,
                "title" => chat.title = value(&mut map)?,
                "messages" => chat.messages = value(&mut map)?,
                "created_at" => chat.created_at = value(&mut map)?,
                "updated_at" => chat.updated_at = value(&mut map)?,
                "metadata" => chat.metadata = map.next_value()?,
                _ => {
                    let value = map.next_value()?;
                    chat.extra.push((name, value));
                }
            }
        }
        Ok(chat)
    }
}

struct MessageFields;

impl<'de> Visitor<'de> for MessageFields {
    type Value = ChatMessage;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a message of a chat")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<ChatMessage, A::Error> {
        let mut message = ChatMessage::default();
        let mut seen = Vec::new();
        while let Some(name) = map.next_key::<String>()? {
            note(&mut seen, &MESSAGE_FIELDS, &name)?;
            match name.as_str() {
                "role" => message.role = value(&mut map)?,
                "content" => {
                    let json: Json = map.next_value()?;
                    if json.as_str().starts_with('"') {
                        let text = serde_json::from_str(json.as_str());
                        message.content = text.map_err(A::Error::custom)?;
                    } else {
                        message.extra.push((name, json));
                    }
                }
                "name" => message.name = map.next_value()?,
                "at" => message.at = value(&mut map)?,
                _ => {
                    let value = map.next_value()?;
                    message.extra.push((name, value));
                }
            }
        }
        Ok(message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chats_of_others_come_back_as_they_were() {
        let json = concat!(
            r#"{"id":"c1","title":"Tea","created_at":1,"updated_at":2,"messages":[{"role":"user","content":"hi \u00e9"},"#,
            r#"{"role":"assistant","content":null,"tool_calls":[{"cost":0.10000000000000000000001}]},"#,
            r#"{"role":"user","content":[{"type":"text","text":"x"}],"at":7},"#,
            r#"{"role":"tool","content":"","name":"search","weight":1e400}],"model":{"v":18446744073709551616}}"#
        );
        let chat = Chat::from_json(json).unwrap();
        assert_eq!(chat.messages.len(), 4);
        assert_eq!(chat.messages[0].content, "hi é");
        assert_eq!(chat.messages[1].content, "");
        assert_eq!(chat.messages[2].extra[0].0, "content");
        let again = chat.to_json();
        for kept in [
            r#"{"role":"assistant","content":null,"tool_calls":[{"cost":0.10000000000000000000001}]}"#,
            r#""content":[{"type":"text","text":"x"}]"#,
            r#"{"role":"tool","content":"","name":"search","weight":1e400}"#,
            r#""model":{"v":18446744073709551616}"#,
        ] {
            assert!(again.contains(kept), "{again}");
        }
        assert_eq!(Chat::from_json(&again).unwrap(), chat);
    }

    #[test]
    fn what_is_no_chat_is_refused() {
        for json in [
            "[]",
            r#"{"messages":{}}"#,
            r#"{"messages":[7]}"#,
            r#"{"messages":[{"role":"a","role":"b"}]}"#,
            r#"{"messages":[],"messages":[]}"#,
            r#"{"messages":[{"role":"a","at":"noon"}]}"#,
        ] {
            assert_eq!(Chat::from_json(json), Err(InvalidRecord::Shape), "{json}");
        }
        for (json, reason) in [
            (r#"{"messages":[{"content":"x"}]}"#, InvalidRecord::Role),
            (
                r#"{"messages":[{"role":"a","x":1,"x":2}]}"#,
                InvalidRecord::Field,
            ),
            (r#"{"x":1,"x":2}"#, InvalidRecord::Field),
        ] {
            assert_eq!(Chat::from_json(json), Err(reason), "{json}");
        }
        let mut chat = Chat::new(vec![ChatMessage::new("user", "twice")]);
        assert_eq!(chat.check(), Ok(()));
        let content = ("content".to_owned(), Json::string("x"));
        chat.messages[0].extra.push(content);
        assert_eq!(chat.check(), Err(InvalidRecord::Field));
        assert_eq!(
            Chat::default().title("x".repeat(1_025)).check(),
            Err(InvalidRecord::Title)
        );
        assert_eq!(Chat::default().id("\n").check(), Err(InvalidRecord::Id));
        let role = Chat::new(vec![ChatMessage::new("x".repeat(65), "")]);
        assert_eq!(role.check(), Err(InvalidRecord::Role));
    }

    #[test]
    fn chat_prints_nothing_of_itself() {
        let chat = Chat::new(vec![ChatMessage::new("user", "a secret")]).id("x");
        assert_eq!(format!("{chat:?}"), "Chat { .. }");
        assert_eq!(format!("{:?}", chat.messages[0]), "ChatMessage { .. }");
    }
}
