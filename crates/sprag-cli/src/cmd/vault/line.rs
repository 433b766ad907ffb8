//! Results of `sprag vault`.

use serde::Serialize;
use sprag_vault::{Header, SlotKind, Suite};

use crate::output::printable;

/// A key file.
#[derive(Debug, Serialize)]
pub(crate) struct KeyLine {
    pub(crate) file: String,
    /// `null` for a symmetric key.
    pub(crate) public: Option<String>,
}

/// A file that was written.
#[derive(Debug, Serialize)]
pub(crate) struct FileLine {
    pub(crate) file: String,
    pub(crate) bytes: u64,
    /// What was weak about something older.
    pub(crate) warnings: Vec<String>,
}

/// What a blob says of itself.
#[derive(Debug, Serialize)]
pub(crate) struct BlobLine {
    pub(crate) version: u8,
    pub(crate) suite: SuiteName,
    pub(crate) chunk_bytes: usize,
    /// Whether it says that there is a context.
    pub(crate) context: bool,
    pub(crate) bytes: u64,
    pub(crate) header_bytes: u64,
    /// `null` if its length is none that a whole blob has.
    pub(crate) payload_bytes: Option<u64>,
    pub(crate) slots: Vec<SlotLine>,
}

/// A recipient.
#[derive(Debug, Serialize)]
pub(crate) struct SlotLine {
    /// From 1.
    pub(crate) number: usize,
    pub(crate) kind: &'static str,
    /// In hexadecimal.
    pub(crate) id: String,
    /// The same, if it is text.
    pub(crate) id_text: Option<String>,
    /// Of a passphrase.
    pub(crate) memory_kib: Option<u32>,
    pub(crate) passes: Option<u32>,
    pub(crate) lanes: Option<u32>,
}

/// How a payload is encrypted.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) enum SuiteName {
    #[serde(rename = "aes256-gcm")]
    Aes256Gcm,
    #[serde(rename = "chacha20-poly1305")]
    ChaCha20Poly1305,
    #[serde(rename = "unknown")]
    Unknown,
}

impl From<Suite> for SuiteName {
    fn from(suite: Suite) -> Self {
        match suite {
            Suite::Aes256Gcm => Self::Aes256Gcm,
            Suite::ChaCha20Poly1305 => Self::ChaCha20Poly1305,
            _ => Self::Unknown,
        }
    }
}

impl KeyLine {
    pub(crate) fn text(&self) -> String {
        match &self.public {
            Some(public) => format!("{public}\n"),
            None => format!("a symmetric key is in {}\n", printable(&self.file)),
        }
    }
}

impl FileLine {
    pub(crate) fn text(&self) -> String {
        format!("{} bytes to {}\n", self.bytes, printable(&self.file))
    }
}

impl BlobLine {
    pub(crate) fn text(&self) -> String {
        let suite = match self.suite {
            SuiteName::Aes256Gcm => "AES-256-GCM",
            SuiteName::ChaCha20Poly1305 => "ChaCha20-Poly1305",
            SuiteName::Unknown => "unknown",
        };
        let payload = match self.payload_bytes {
            Some(bytes) => format!("{bytes} bytes, if it is whole"),
            None => "it is not whole".to_owned(),
        };
        let mut text = format!(
            "form       evlt/v{}, {suite}, pieces of {} bytes\n\
             context    {}\n\
             bytes      {}, {} of them header\n\
             payload    {payload}\n\
             recipients {}\n",
            self.version,
            self.chunk_bytes,
            if self.context { "yes" } else { "none is named" },
            self.bytes,
            self.header_bytes,
            self.slots.len(),
        );
        for slot in &self.slots {
            text.push_str("  ");
            text.push_str(&slot.text());
        }
        text
    }
}

impl SlotLine {
    pub(crate) fn all(header: &Header) -> Vec<Self> {
        let numbered = (1..).zip(header.slots());
        let line = |(number, slot): (usize, &sprag_vault::Slot)| {
            let (kind, cost) = match slot.kind() {
                SlotKind::Direct => ("symmetric", None),
                SlotKind::Kms => ("key-service", None),
                SlotKind::Recipient => ("public-key", None),
                SlotKind::Passphrase(cost) => ("passphrase", Some(cost)),
                _ => ("unknown", None),
            };
            Self {
                number,
                kind,
                id: hex::encode(slot.id()),
                id_text: str::from_utf8(slot.id()).ok().map(str::to_owned),
                memory_kib: cost.map(|cost| cost.memory_kib()),
                passes: cost.map(|cost| cost.passes()),
                lanes: cost.map(|cost| cost.lanes()),
            }
        };
        numbered.map(line).collect()
    }

    pub(crate) fn text(&self) -> String {
        let id = match &self.id_text {
            Some(text) => printable(text),
            None => format!("0x{}", self.id),
        };
        let cost = match (self.memory_kib, self.passes) {
            (Some(kib), Some(passes)) => format!("  {} MiB, {passes} passes", kib / 1024),
            _ => String::new(),
        };
        let text = format!("{}  {}  {id}{cost}", self.number, self.kind);
        format!("{}\n", text.trim_end())
    }
}
