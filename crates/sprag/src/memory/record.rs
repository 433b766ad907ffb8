//! A memory, and where it came from.

use std::fmt;

use serde::de::{Error as _, MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;
use zeroize::ZeroizeOnDrop;

use super::blob::measure;
use super::{InvalidRecord, Json};

/// The longest content of a memory, in bytes: 1 MiB.
pub const MAX_CONTENT: usize = 1 << 20;
/// The longest record, all fields together, in bytes: 16 MiB.
pub const MAX_RECORD: usize = 16 << 20;
/// The longest title, in bytes.
pub const MAX_TITLE: usize = 1_024;
/// Tags of one memory.
pub const MAX_TAGS: usize = 64;
/// Dimensions of an embedding.
pub const MAX_DIMENSIONS: usize = 4_096;
/// The longest id or tag, in bytes.
const MAX_NAME: usize = 128;

/// The names of the fields that stand for themselves.
const FIELDS: [&str; 8] = [
    "id",
    "title",
    "content",
    "tags",
    "created_at",
    "updated_at",
    "embedding",
    "metadata",
];

/// What an agent or an application remembers.
///
/// As JSON it is an object; fields that are not known here are kept as they are, whatever their order, depth and numbers. Two
/// memories are equal if their fields are; [`provenance`](Self::provenance) is not one. Its texts and its embedding are
/// wiped when it is dropped, as far as they were not moved by growing.
///
/// ```
/// use sprag::memory::Memory;
///
/// let tea = Memory::new("Ann drinks her tea without milk").title("Tea").tags(["taste"]).embedding(vec![0.6, 0.8]);
/// assert!(tea.check().is_ok());
/// ```
#[derive(Clone, Default, ZeroizeOnDrop)]
#[non_exhaustive]
pub struct Memory {
    /// Names it among the memories of its owner: 1 to 128 bytes without control characters. Empty: 32 hexadecimal digits are
    /// drawn when it is stored.
    pub id: String,
    /// At most 1,024 bytes. Lists show it.
    pub title: String,
    /// At most 1 MiB.
    pub content: String,
    /// At most 64, each of 1 to 128 bytes without control characters.
    pub tags: Vec<String>,
    /// Milliseconds since 1970. 0: the time of storing is taken.
    pub created_at: u64,
    /// Milliseconds since 1970. 0: the time of storing is taken.
    pub updated_at: u64,
    /// 1 to 4,096 finite numbers, not all of them 0; from whatever model the application uses.
    pub embedding: Option<Vec<f32>>,
    /// Anything, as JSON.
    #[zeroize(skip)]
    pub metadata: Option<Json>,
    /// Fields that are not known here, in their order.
    #[zeroize(skip)]
    pub extra: Vec<(String, Json)>,
    #[zeroize(skip)]
    pub(crate) provenance: Option<Provenance>,
}

/// Where a record comes from.
///
/// That it is here means: it was written by a device of the account, for this record, in this revision, and has not been altered
/// since. Which device and agent it was, and when, is what a device of the account *says*: its head of the log is signed, a
/// single record in it is not. A device that was taken over can put another's name there.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Provenance {
    /// The number of the device that wrote it.
    pub device: u32,
    /// The agent that wrote it, if one was named.
    pub agent: Option<String>,
    /// When, by that device's clock, in milliseconds since 1970.
    pub written_at: u64,
    /// How often the record had been written then, from 1.
    pub revision: u64,
}

impl Memory {
    /// A memory of this content, and nothing else yet.
    #[must_use]
    pub fn new(content: impl Into<String>) -> Self {
        let mut memory = Self::default();
        memory.content = content.into();
        memory
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

    /// With these tags.
    #[must_use]
    pub fn tags(mut self, tags: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.tags = tags.into_iter().map(Into::into).collect();
        self
    }

    /// With this embedding.
    #[must_use]
    pub fn embedding(mut self, embedding: Vec<f32>) -> Self {
        self.embedding = Some(embedding);
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
        let memory: Self = serde_json::from_str(json).map_err(|_| InvalidRecord::Shape)?;
        memory.check()?;
        Ok(memory)
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
        let embedding = self.embedding.as_deref().unwrap_or_default();
        measure(embedding, &WithoutEmbedding(self)).map(drop)
    }

    /// Each field for itself.
    pub(super) fn check_fields(&self) -> Result<(), InvalidRecord> {
        if !self.id.is_empty() {
            check_id(&self.id)?;
        }
        if self.title.len() > MAX_TITLE {
            return Err(InvalidRecord::Title);
        }
        if self.content.len() > MAX_CONTENT {
            return Err(InvalidRecord::Content);
        }
        if self.tags.len() > MAX_TAGS || !self.tags.iter().all(|tag| is_name(tag, MAX_NAME)) {
            return Err(InvalidRecord::Tags);
        }
        if let Some(embedding) = &self.embedding {
            check_embedding(embedding)?;
        }
        check_extra(&self.extra, &FIELDS)
    }
}

impl PartialEq for Memory {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
            && self.title == other.title
            && self.content == other.content
            && self.tags == other.tags
            && self.created_at == other.created_at
            && self.updated_at == other.updated_at
            && self.embedding == other.embedding
            && self.metadata == other.metadata
            && self.extra == other.extra
    }
}

impl fmt::Debug for Memory {
    /// Nothing of it is for a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memory").finish_non_exhaustive()
    }
}

/// An id that the application chose.
pub(super) fn check_id(id: &str) -> Result<(), InvalidRecord> {
    if is_name(id, MAX_NAME) {
        Ok(())
    } else {
        Err(InvalidRecord::Id)
    }
}

/// 1 to `most` bytes without control characters.
pub(super) fn is_name(text: &str, most: usize) -> bool {
    (1..=most).contains(&text.len()) && !text.chars().any(char::is_control)
}

/// Whether numbers are an embedding.
pub(super) fn check_embedding(embedding: &[f32]) -> Result<(), InvalidRecord> {
    if !(1..=MAX_DIMENSIONS).contains(&embedding.len()) {
        return Err(InvalidRecord::Dimensions);
    }
    let finite = embedding.iter().all(|number| number.is_finite());
    if !finite || embedding.iter().all(|number| *number == 0.0) {
        return Err(InvalidRecord::Numbers);
    }
    Ok(())
}

/// Whether further fields have names of their own.
pub(super) fn check_extra(extra: &[(String, Json)], known: &[&str]) -> Result<(), InvalidRecord> {
    let mut names = std::collections::HashSet::with_capacity(extra.len());
    let all_own = extra
        .iter()
        .all(|(name, _)| !known.contains(&name.as_str()) && names.insert(name.as_str()));
    if all_own {
        Ok(())
    } else {
        Err(InvalidRecord::Field)
    }
}

impl Serialize for Memory {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        write(self, self.embedding.as_deref(), serializer)
    }
}

/// All of a memory but its embedding, which stands beside it.
pub(super) struct WithoutEmbedding<'a>(pub(super) &'a Memory);

impl Serialize for WithoutEmbedding<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        write(self.0, None, serializer)
    }
}

fn write<S: Serializer>(
    memory: &Memory,
    embedding: Option<&[f32]>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let mut map = serializer.serialize_map(None)?;
    map.serialize_entry("id", &memory.id)?;
    if !memory.title.is_empty() {
        map.serialize_entry("title", &memory.title)?;
    }
    map.serialize_entry("content", &memory.content)?;
    if !memory.tags.is_empty() {
        map.serialize_entry("tags", &memory.tags)?;
    }
    for (name, time) in [
        ("created_at", memory.created_at),
        ("updated_at", memory.updated_at),
    ] {
        if time != 0 {
            map.serialize_entry(name, &time)?;
        }
    }
    if let Some(embedding) = embedding {
        map.serialize_entry("embedding", embedding)?;
    }
    if let Some(metadata) = &memory.metadata {
        map.serialize_entry("metadata", metadata)?;
    }
    for (name, value) in &memory.extra {
        map.serialize_entry(name, value)?;
    }
    map.end()
}

impl<'de> Deserialize<'de> for Memory {
    /// Out of JSON, and of nothing else: unknown fields are kept as JSON text.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Fields)
    }
}

struct Fields;

impl<'de> Visitor<'de> for Fields {
    type Value = Memory;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a memory")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Memory, A::Error> {
        let mut memory = Memory::default();
        let mut seen = Vec::new();
        while let Some(name) = map.next_key::<String>()? {
            if let Some(known) = FIELDS.iter().find(|known| **known == name) {
                if seen.contains(known) {
                    return Err(A::Error::custom("a field stands in the memory twice"));
                }
                seen.push(*known);
            }
            match name.as_str() {
                "id" => memory.id = value(&mut map)?,
                "title" => memory.title = value(&mut map)?,
                "content" => memory.content = value(&mut map)?,
                "tags" => memory.tags = value(&mut map)?,
                "created_at" => memory.created_at = value(&mut map)?,
                "updated_at" => memory.updated_at = value(&mut map)?,
                "embedding" => {
                    let raw = map.next_value::<Option<Box<RawValue>>>()?;
                    let numbers =
                        raw.map(|raw| numbers(raw.get()).ok_or("an embedding is numbers"));
                    memory.embedding = numbers.transpose().map_err(A::Error::custom)?;
                }
                "metadata" => memory.metadata = map.next_value()?,
                _ => {
                    let value = map.next_value()?;
                    memory.extra.push((name, value));
                }
            }
        }
        Ok(memory)
    }
}

/// A value, or what stands for none.
pub(super) fn value<'de, A: MapAccess<'de>, T: Deserialize<'de> + Default>(
    map: &mut A,
) -> Result<T, A::Error> {
    Ok(map.next_value::<Option<T>>()?.unwrap_or_default())
}

/// The numbers of a JSON array, each the nearest `f32`; `None` if it is something else. (By way of `f64` some would be
/// rounded twice.)
fn numbers(array: &str) -> Option<Vec<f32>> {
    let inner = array.trim().strip_prefix('[')?.strip_suffix(']')?;
    if inner.trim().is_empty() {
        return Some(Vec::new());
    }
    // With this capacity the numbers never move, which would leave a copy behind.
    let mut numbers = Vec::with_capacity(inner.matches(',').count().saturating_add(1));
    for number in inner.split(',') {
        let number = number.trim_ascii();
        if !number.starts_with(['-', '0', '1', '2', '3', '4', '5', '6', '7', '8', '9']) {
            return None;
        }
        numbers.push(number.parse().ok()?);
    }
    Some(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FOREIGN: &str = concat!(
        r#"{"importance":0.30000000000000000000000000004,"id":"mem_1","content":"hi","links":[{"n":18446744073709551617,"#,
        r#""m":[1e999,-0.0,{"deep":null}]}],"tags":["a","b"],"created_at":18446744073709551615,"#,
        r#""embedding":[0.1,-2e-3,16777217],"metadata":{"z":1.10,"a":[]},"wider":false}"#
    );

    #[test]
    fn fields_of_others_come_back_as_they_were() {
        let memory = Memory::from_json(FOREIGN).unwrap();
        let names: Vec<_> = memory.extra.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["importance", "links", "wider"]);
        assert_eq!(memory.created_at, u64::MAX);
        assert_eq!(memory.embedding, Some(vec![0.1, -2e-3, 16_777_216.0]));
        let again = memory.to_json();
        for kept in [
            r#""importance":0.30000000000000000000000000004"#,
            r#""links":[{"n":18446744073709551617,"m":[1e999,-0.0,{"deep":null}]}]"#,
            r#""metadata":{"z":1.10,"a":[]}"#,
            r#""wider":false"#,
        ] {
            assert!(again.contains(kept), "{again}");
        }
        assert_eq!(Memory::from_json(&again).unwrap(), memory);
        // Also by way of a value of serde_json.
        let value: serde_json::Value = serde_json::from_str(r#"{"id":"a","x":[1]}"#).unwrap();
        let memory: Memory = serde_json::from_value(value).unwrap();
        assert_eq!(memory.extra[0].1.as_str(), "[1]");
    }

    #[test]
    fn every_finite_number_of_an_embedding_survives_as_text() {
        let mut embedding: Vec<f32> = (0..4_000_u32)
            .map(|i| f32::from_bits(i.wrapping_mul(2_654_435_761)))
            .filter(|number| number.is_finite())
            .collect();
        embedding.extend([f32::MIN_POSITIVE, f32::MAX, 1e-45, -0.0, 0.1]);
        let memory = Memory::new("").embedding(embedding.clone());
        let again = Memory::from_json(&memory.to_json()).unwrap();
        let bits = |numbers: &[f32]| numbers.iter().map(|n| n.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(again.embedding.as_ref().unwrap()), bits(&embedding));
        // 2^24 + 1 + 2^-30: by way of f64 this is rounded to even twice.
        let memory =
            Memory::from_json(r#"{"embedding":[16777217.000000000931322574615478515625]}"#);
        assert_eq!(memory.unwrap().embedding, Some(vec![16_777_218.0]));
    }

    #[test]
    fn what_is_no_memory_is_refused() {
        for json in [
            "[]",
            "7",
            r#"{"id":7}"#,
            r#"{"content":["a"]}"#,
            r#"{"tags":"a"}"#,
            r#"{"created_at":-1}"#,
            r#"{"created_at":1.5}"#,
            r#"{"embedding":[null]}"#,
            r#"{"embedding":["1"]}"#,
            r#"{"embedding":[[1]]}"#,
            r#"{"embedding":{"0":1}}"#,
            r#"{"id":"a","id":"b"}"#,
        ] {
            assert_eq!(Memory::from_json(json), Err(InvalidRecord::Shape), "{json}");
        }
        for (json, reason) in [
            (r#"{"x":1,"x":2}"#, InvalidRecord::Field),
            (r#"{"id":"a\nb"}"#, InvalidRecord::Id),
            (r#"{"embedding":[]}"#, InvalidRecord::Dimensions),
            (r#"{"embedding":[0,0.0]}"#, InvalidRecord::Numbers),
            (r#"{"embedding":[1e39]}"#, InvalidRecord::Numbers),
        ] {
            assert_eq!(Memory::from_json(json), Err(reason), "{json}");
        }
    }

    #[test]
    fn limits_are_where_they_are_said_to_be() {
        let id = |length| Memory::new("").id("x".repeat(length)).check();
        assert_eq!((id(128), id(129)), (Ok(()), Err(InvalidRecord::Id)));
        let title = |length| Memory::new("").title("x".repeat(length)).check();
        assert_eq!(
            (title(1_024), title(1_025)),
            (Ok(()), Err(InvalidRecord::Title))
        );
        let content = |length| Memory::new("x".repeat(length)).check();
        assert_eq!(content(MAX_CONTENT), Ok(()));
        assert_eq!(content(MAX_CONTENT + 1), Err(InvalidRecord::Content));
        let tags = |count, length| {
            Memory::new("")
                .tags(vec!["x".repeat(length); count])
                .check()
        };
        assert_eq!(tags(64, 128), Ok(()));
        for (count, length) in [(65, 1), (1, 0), (1, 129)] {
            assert_eq!(tags(count, length), Err(InvalidRecord::Tags));
        }
        let embedding = |numbers| Memory::new("").embedding(numbers).check();
        assert_eq!(embedding(vec![1.0; 4_096]), Ok(()));
        for count in [0, 4_097] {
            assert_eq!(embedding(vec![1.0; count]), Err(InvalidRecord::Dimensions));
        }
        for number in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            assert_eq!(embedding(vec![1.0, number]), Err(InvalidRecord::Numbers));
        }
        let mut memory = Memory::new("");
        memory.extra.push(("title".to_owned(), Json::string("x")));
        assert_eq!(memory.check(), Err(InvalidRecord::Field));
    }

    #[test]
    fn memory_prints_nothing_of_itself() {
        let memory = Memory::new("a secret").id("b").title("c").tags(["d"]);
        assert_eq!(format!("{memory:?}"), "Memory { .. }");
    }
}
