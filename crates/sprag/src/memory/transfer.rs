//! Everything of an owner as one JSON document, and back.
//!
//! ```text
//! {"_sprag_export":1,"app":"…","user":"…","agent":"…","memories":[
//! {…},
//! {…}
//! ],"chats":[
//! ],"left_out":0}
//! ```

use std::fmt;
#[cfg(not(target_family = "wasm"))]
use std::io::{BufReader, Read, Seek, SeekFrom};

use serde::de::{DeserializeSeed, Error as _, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::fault::Fault;
use super::find::Listed;
use super::steps::Rule;
use super::store::EncryptedMemoryStore;
use super::{Chat, ListQuery, Memory};
use crate::Error;
use crate::pending::Pending;

/// The form of the document.
const VERSION: u64 = 1;
/// Records of one page of an export, and about how many bytes.
const PAGE: usize = 256;
const PAGE_BYTES: usize = 1 << 20;
/// Writes of an import that are waited for at once.
#[cfg(not(target_family = "wasm"))]
const WAVE: usize = 256;

/// A part of an export: all texts, one after another, are the document.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ExportPage {
    /// The text.
    pub text: String,
    /// What to give for the next part; `None`: this was the last.
    pub next: Option<String>,
    /// Records that could not be read so far: their blob is missing or damaged. They are not in the document, and it says how many.
    pub left_out: u64,
}

impl fmt::Debug for ExportPage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExportPage")
            .field("left_out", &self.left_out)
            .finish_non_exhaustive()
    }
}

/// What an import does with a record that there is already, with another content.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum OnConflict {
    /// Keeps what there is.
    #[default]
    Keep,
    /// Puts what is imported in its place.
    Replace,
}

/// What an import did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Imported {
    /// Records that were written.
    pub written: u64,
    /// Records that were there, with this very content.
    pub unchanged: u64,
    /// Records that were there with another content, and were kept.
    pub kept: u64,
    /// Records that had been erased, and stay so.
    pub erased: u64,
}

/// How far an export is.
struct Cursor {
    chats: bool,
    /// A record of this kind was written already.
    begun: bool,
    left_out: u64,
    after: Option<String>,
}

impl Cursor {
    fn read(text: &str) -> Option<Self> {
        let mut parts = text.splitn(4, ':');
        let (kind, begun) = (parts.next()?, parts.next()?);
        let left_out = parts.next()?.parse().ok()?;
        let after = Some(parts.next()?).filter(|after| !after.is_empty());
        let chats = match kind {
            "m" => false,
            "c" => true,
            _ => return None,
        };
        Some(Self {
            chats,
            begun: begun == "1",
            left_out,
            after: after.map(str::to_owned),
        })
    }

    fn write(&self) -> String {
        let kind = if self.chats { 'c' } else { 'm' };
        let begun = u8::from(self.begun);
        let after = self.after.as_deref().unwrap_or_default();
        format!("{kind}:{begun}:{}:{after}", self.left_out)
    }
}

impl EncryptedMemoryStore {
    pub(super) fn export_part(&self, after: Option<&str>) -> Result<Pending<ExportPage>, Error> {
        let mut text = String::new();
        let mut cursor = match after {
            Some(after) => Cursor::read(after).ok_or_else(Error::bad_input)?,
            None => {
                let mut left_out = 0;
                for space in [&self.memories, &self.chats] {
                    left_out += self.catch_up(space, usize::MAX)?.behind;
                }
                text = self.opening_of_export();
                Cursor {
                    chats: false,
                    begun: false,
                    left_out,
                    after: None,
                }
            }
        };
        let space = if cursor.chats {
            &self.chats
        } else {
            &self.memories
        };
        let mut query = ListQuery::new().limit(PAGE);
        query.after = cursor.after.take();
        let page = self.page_now(space, &query)?;
        let mut next = page.next;
        for (number, item) in page.items.iter().enumerate() {
            if text.len() >= PAGE_BYTES && number > 0 {
                let before = page.items.get(number.saturating_sub(1));
                next = before.map(super::find::write_place);
                break;
            }
            match self.export_one(cursor.chats, item) {
                Ok(None) => {}
                Ok(Some(json)) => {
                    text.push_str(if cursor.begun { ",\n" } else { "\n" });
                    text.push_str(&json);
                    cursor.begun = true;
                }
                Err(error) if is_lost(&error) => {
                    cursor.left_out = cursor.left_out.saturating_add(1);
                }
                Err(error) => return Err(error),
            }
        }
        let left_out = cursor.left_out;
        let next = match (next, cursor.chats) {
            (Some(after), _) => {
                cursor.after = Some(after);
                Some(cursor.write())
            }
            (None, false) => {
                text.push_str("\n],\"chats\":[");
                (cursor.chats, cursor.begun) = (true, false);
                Some(cursor.write())
            }
            (None, true) => {
                text.push_str(&format!("\n],\"left_out\":{left_out}}}\n"));
                None
            }
        };
        let part = ExportPage {
            text,
            next,
            left_out,
        };
        Ok(self.settled(part))
    }

    fn opening_of_export(&self) -> String {
        let mut text = format!("{{\"_sprag_export\":{VERSION}");
        let names = [
            ("app", Some(&*self.client.app)),
            ("user", Some(self.owner.user())),
            ("agent", self.owner.agent_name()),
        ];
        for (name, value) in names {
            if let Some(value) = value {
                let value = super::Json::string(value);
                text.push_str(&format!(",\"{name}\":{}", value.as_str()));
            }
        }
        text.push_str(",\"memories\":[");
        text
    }

    /// `None`: it went meanwhile.
    fn export_one(&self, is_chat: bool, item: &Listed) -> Result<Option<String>, Error> {
        let json = if is_chat {
            let fetched = self.fetch(&self.chats, &item.id);
            fetched.and_then(|(_, it)| Ok(it.opening.chat(&it.plaintext)?.to_json()))
        } else {
            let fetched = self.fetch(&self.memories, &item.id);
            fetched.and_then(|(_, it)| Ok(it.opening.memory(&it.plaintext)?.to_json()))
        };
        match json {
            Ok(json) => Ok(Some(json)),
            Err(error) if matches!(error.code(), "record_deleted" | "record_erased") => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Takes one record of an import.
    fn import_one(
        &self,
        record: Record,
        on_conflict: OnConflict,
        imported: &mut Imported,
    ) -> Result<Option<Pending<()>>, Error> {
        let written = self.import_as(&record, Rule::New);
        let written = match written {
            Err(error) if error.code() == "record_exists" => {
                if self.is_as_it_stands(&record) {
                    imported.unchanged += 1;
                    return Ok(None);
                }
                if on_conflict == OnConflict::Keep {
                    imported.kept += 1;
                    return Ok(None);
                }
                self.import_as(&record, Rule::Any)
            }
            written => written,
        };
        match written {
            Ok(pending) => {
                imported.written += 1;
                Ok(Some(pending))
            }
            Err(error) if error.code() == "record_erased" => {
                imported.erased += 1;
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Nothing is taken out of what is imported, and its times stay.
    fn import_as(&self, record: &Record, rule: Rule) -> Result<Pending<()>, Error> {
        let pending = match record {
            Record::Memory(memory) => {
                let draft = self.draft_memory_as_it_is(memory.clone(), rule, Vec::new())?;
                self.write(&self.memories, draft)?
            }
            Record::Chat(chat) => {
                let draft = self.draft_chat_as_it_is(chat.clone(), rule, Vec::new())?;
                self.write(&self.chats, draft)?
            }
        };
        Ok(pending.and_then(|_| Ok(())))
    }

    fn is_as_it_stands(&self, record: &Record) -> bool {
        match record {
            Record::Memory(memory) => {
                let fetched = self.fetch(&self.memories, &memory.id);
                let there = fetched.and_then(|(_, it)| it.opening.memory(&it.plaintext));
                there.is_ok_and(|there| there == *memory)
            }
            Record::Chat(chat) => {
                let fetched = self.fetch(&self.chats, &chat.id);
                let there = fetched.and_then(|(_, it)| it.opening.chat(&it.plaintext));
                there.is_ok_and(|there| there == *chat)
            }
        }
    }

    /// Takes a document that is in memory.
    pub(super) fn import_document(
        &self,
        text: &str,
        on_conflict: OnConflict,
    ) -> Result<Pending<Imported>, Error> {
        read_document(serde_json::Deserializer::from_str(text), &mut |record| {
            record.check()
        })?;
        let mut imported = Imported::default();
        let mut last = None;
        read_document(serde_json::Deserializer::from_str(text), &mut |record| {
            if let Some(pending) = self.import_one(record, on_conflict, &mut imported)? {
                last = Some(pending);
            }
            Ok(())
        })?;
        let notifier = self.client.shared.notifier.clone();
        // Steps become durable in their order: with the last one all are.
        let last = last.unwrap_or_else(|| Pending::ready(notifier, Ok(())));
        Ok(last.and_then(move |()| Ok(imported)))
    }

    /// Writes everything of the owner as one JSON document, memories and chats with all their fields, ids and times: a few hundred
    /// records at a time. Says how many records are left out, because their blob is missing or damaged; the document says it as well.
    ///
    /// **The document is not encrypted.**
    ///
    /// # Errors
    /// `output_failed`: `out` did not take it. `backend_away`, `backend_refused`; those of the store. What was written then is cut, and
    /// [`import`](Self::import) refuses it.
    #[cfg(not(target_family = "wasm"))]
    pub fn export(&self, out: &mut dyn std::io::Write) -> Result<u64, Error> {
        let failed = |error| Fault::Output(std::sync::Arc::new(error));
        let mut after = None;
        loop {
            let part = self.block(|store| store.export_part(after.as_deref()))?;
            out.write_all(part.text.as_bytes()).map_err(failed)?;
            let mut text = part.text;
            zeroize::Zeroize::zeroize(&mut text);
            after = part.next;
            if after.is_none() {
                out.flush().map_err(failed)?;
                return Ok(part.left_out);
            }
        }
    }

    /// Takes in a document that [`export`](Self::export) wrote, of this owner or another: ids, times and all fields as they stand there,
    /// nothing redacted. It is read twice, so that nothing is taken of one that is damaged. The same again changes nothing.
    ///
    /// # Errors
    /// `export_damaged`: cut, or something else; `export_version`; `bad_record`: a record that is out of range. Nothing is changed then.
    /// `input_failed`: `document` cannot be read. As [`store_memory`](Self::store_memory): then a part of it may be taken, and the same
    /// again goes on.
    #[cfg(not(target_family = "wasm"))]
    pub fn import<R: Read + Seek>(
        &self,
        mut document: R,
        on_conflict: OnConflict,
    ) -> Result<Imported, Error> {
        let failed = |error| Fault::Input(std::sync::Arc::new(error));
        let start = document.stream_position().map_err(failed)?;
        let json = serde_json::Deserializer::from_reader(BufReader::new(&mut document));
        read_document(json, &mut |record| record.check())?;
        document.seek(SeekFrom::Start(start)).map_err(failed)?;
        let json = serde_json::Deserializer::from_reader(BufReader::new(&mut document));
        let mut imported = Imported::default();
        let mut wave = Vec::with_capacity(WAVE);
        read_document(json, &mut |record| {
            wave.extend(self.import_one(record, on_conflict, &mut imported)?);
            if wave.len() >= WAVE {
                wave.drain(..).try_for_each(Pending::wait)?;
            }
            Ok(())
        })?;
        wave.drain(..).try_for_each(Pending::wait)?;
        Ok(imported)
    }
}

/// The blob of one record is not there or not it: the others are.
fn is_lost(error: &Error) -> bool {
    matches!(
        error.code(),
        "blob_missing" | "blob_damaged" | "blob_stale" | "blob_misplaced" | "record_newer"
    )
}

/// A record of a document.
enum Record {
    Memory(Memory),
    Chat(Chat),
}

impl Record {
    fn check(&self) -> Result<(), Error> {
        let (id, checked) = match self {
            Self::Memory(memory) => (&memory.id, memory.check()),
            Self::Chat(chat) => (&chat.id, chat.check()),
        };
        checked?;
        if id.is_empty() {
            return Err(Fault::ExportDamaged.into());
        }
        Ok(())
    }
}

/// Takes each record of a document as it comes.
type Take<'a> = &'a mut dyn FnMut(Record) -> Result<(), Error>;

/// Reads a document. An error of `take` is given as it is.
fn read_document<'de, R: serde_json::de::Read<'de>>(
    mut document: serde_json::Deserializer<R>,
    take: Take<'_>,
) -> Result<(), Error> {
    let mut failed = None;
    let reading = Document {
        take,
        failed: &mut failed,
    };
    let read = reading.deserialize(&mut document);
    let read = read.and_then(|()| document.end());
    match (failed, read) {
        (Some(error), _) => Err(error),
        (None, Err(error)) if error.is_io() => {
            Err(Fault::Input(std::sync::Arc::new(error.into())).into())
        }
        (None, Err(_)) => Err(Fault::ExportDamaged.into()),
        (None, Ok(())) => Ok(()),
    }
}

struct Document<'a> {
    take: Take<'a>,
    failed: &'a mut Option<Error>,
}

impl<'de> DeserializeSeed<'de> for Document<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Document<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an export")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut seen = std::collections::HashSet::new();
        while let Some(name) = map.next_key::<String>()? {
            if seen.contains(&name) {
                return Err(A::Error::custom("a field stands in the export twice"));
            }
            // The version stands first, so that nothing is read of a form that is not known.
            match (name.as_str(), seen.is_empty()) {
                ("_sprag_export", true) => {
                    if map.next_value::<u64>()? > VERSION {
                        *self.failed = Some(Fault::ExportVersion.into());
                        return Err(A::Error::custom("the export is of another version"));
                    }
                }
                (_, true) => return Err(A::Error::custom("this is no export")),
                ("memories", false) => map.next_value_seed(Records {
                    make: Record::Memory,
                    take: &mut *self.take,
                    failed: &mut *self.failed,
                })?,
                ("chats", false) => map.next_value_seed(Records {
                    make: Record::Chat,
                    take: &mut *self.take,
                    failed: &mut *self.failed,
                })?,
                _ => drop(map.next_value::<Box<RawValue>>()?),
            }
            seen.insert(name);
        }
        if ["memories", "chats"]
            .iter()
            .all(|name| seen.contains(*name))
        {
            Ok(())
        } else {
            Err(A::Error::custom("this is no export"))
        }
    }
}

struct Records<'a, T> {
    make: fn(T) -> Record,
    take: Take<'a>,
    failed: &'a mut Option<Error>,
}

impl<'de, T: Deserialize<'de>> DeserializeSeed<'de> for Records<'_, T> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de, T: Deserialize<'de>> Visitor<'de> for Records<'_, T> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("records")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut records: A) -> Result<(), A::Error> {
        while let Some(record) = records.next_element::<T>()? {
            if let Err(error) = (self.take)((self.make)(record)) {
                *self.failed = Some(error);
                return Err(A::Error::custom("a record is not taken"));
            }
        }
        Ok(())
    }
}
