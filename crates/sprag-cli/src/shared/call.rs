//! What can be asked about memories, and what is answered: plain data, so that it can go to another process.

use std::fmt;
use std::num::ParseIntError;

use serde::{Deserialize, Serialize};
use sprag::memory::{Chat, Json, Memory};

use crate::error::{CliError, Exit};
use crate::sys;

/// The most memories that one answer holds.
pub(crate) const MAX_FOUND: usize = 100;
/// The most content of one memory that an answer with many holds, in characters; metadata of more bytes are left out.
pub(crate) const EXCERPT: usize = 4_000;
/// The most bytes of content in one answer with many; `more` then asks for the rest.
pub(crate) const MAX_LISTED: usize = 2 << 20;

/// Names one call: drawn by whoever makes it, kept when it is made again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub(crate) struct CallId(pub(crate) u128);

impl CallId {
    pub(crate) fn draw() -> Self {
        Self(u128::from_be_bytes(sys::random()))
    }

    /// 32 hexadecimal digits: the id of the memory that this call stores, too.
    pub(crate) fn digits(self) -> String {
        format!("{:032x}", self.0)
    }
}

impl From<CallId> for String {
    fn from(id: CallId) -> Self {
        id.digits()
    }
}

impl TryFrom<String> for CallId {
    type Error = ParseIntError;

    fn try_from(digits: String) -> Result<Self, ParseIntError> {
        u128::from_str_radix(&digits, 16).map(Self)
    }
}

/// Whose memories.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Whose {
    /// Nobody: those of the profile's own user.
    pub(crate) user: Option<String>,
    pub(crate) agent: Option<String>,
}

/// Which memories of all.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Filter {
    /// Only with all of these tags.
    pub(crate) tags: Vec<String>,
    /// Only made at this time or later, in milliseconds of Unix.
    pub(crate) since: Option<u64>,
    /// Only made before this time, in milliseconds of Unix.
    pub(crate) until: Option<u64>,
}

/// Another state of a memory. What is not there stays as it is.
#[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Change {
    pub(crate) content: Option<String>,
    pub(crate) title: Option<String>,
    pub(crate) tags: Option<Vec<String>>,
    pub(crate) metadata: Option<Json>,
    /// Without one, one is made of the words.
    pub(crate) embedding: Option<Vec<f32>>,
}

impl fmt::Debug for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Change").finish_non_exhaustive()
    }
}

/// What a search looks for.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Query {
    /// These words.
    Text(String),
    /// What points the same way, of the same number of dimensions.
    Embedding(Vec<f32>),
}

impl fmt::Debug for Query {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Query").finish_non_exhaustive()
    }
}

/// A question or an order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Call {
    /// A new memory, under the id of the call. Without an embedding, one is made of its words.
    Store {
        whose: Whose,
        memory: Box<Memory>,
        redact: bool,
    },
    Update {
        whose: Whose,
        id: String,
        change: Box<Change>,
        redact: bool,
    },
    Get {
        whose: Whose,
        id: String,
    },
    /// The most similar ones, best first.
    Search {
        whose: Whose,
        query: Query,
        limit: usize,
        threshold: f32,
        filter: Filter,
    },
    /// The newest first; `after` is the `more` of the answer before.
    List {
        whose: Whose,
        filter: Filter,
        limit: usize,
        after: Option<String>,
    },
    /// Out of sight, or out of reach for good.
    Forget {
        whose: Whose,
        id: String,
        erase: bool,
    },
    /// A memory as it was exported, under the id that it had.
    Import {
        whose: Whose,
        memory: Box<Memory>,
    },
    ImportChat {
        whose: Whose,
        chat: Box<Chat>,
    },
    /// A part of everything, in clear; `after` is the `more` of the answer before.
    Export {
        whose: Whose,
        after: Option<String>,
    },
    Stats {
        whose: Whose,
    },
}

impl Call {
    /// Whether it changes something, so that it must not be done twice.
    pub(crate) fn writes(&self) -> bool {
        match self {
            Self::Store { .. }
            | Self::Update { .. }
            | Self::Forget { .. }
            | Self::Import { .. }
            | Self::ImportChat { .. } => true,
            Self::Get { .. }
            | Self::Search { .. }
            | Self::List { .. }
            | Self::Export { .. }
            | Self::Stats { .. } => false,
        }
    }
}

/// A memory as it is kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Found {
    /// Without its embedding.
    pub(crate) memory: Memory,
    pub(crate) revision: u64,
    /// When this revision was written, in milliseconds of Unix, and by which device.
    pub(crate) written_at: u64,
    pub(crate) device: u32,
    /// The agent that wrote it, as it says itself.
    pub(crate) agent: Option<String>,
    /// How similar it is, of a search: 1 is the same direction.
    pub(crate) score: Option<f32>,
    /// The content is an excerpt, or metadata are left out.
    pub(crate) cut: bool,
    /// Why there is no content: a code.
    pub(crate) unreadable: Option<String>,
}

/// What became of a memory that is to be forgotten.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Forgotten {
    Deleted,
    /// It cannot be read here any more; other devices have yet to say so.
    ErasePending,
    Erased,
}

/// What an import made of a memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Imported {
    Added,
    /// It was there, the same.
    Same,
    /// One with this id was there, and differs: it was left alone.
    Differs,
    /// One with this id was erased: that stays.
    Erased,
}

/// What there is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Counted {
    pub(crate) memories: u64,
    /// The user of the profile.
    pub(crate) user: String,
    /// The process that has the profile open.
    pub(crate) process: u32,
}

#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Answer {
    /// With what was taken out of it, by kind, and how often.
    Written {
        id: String,
        revision: u64,
        redacted: Vec<(String, u64)>,
    },
    Memory(Box<Found>),
    /// `more` asks for what comes after.
    Memories {
        found: Vec<Found>,
        more: Option<String>,
    },
    Forgotten {
        id: String,
        state: Forgotten,
    },
    Imported(Imported),
    Exported {
        text: String,
        more: Option<String>,
        /// So far: their blobs cannot be read here.
        left_out: u64,
    },
    Counted(Counted),
}

impl fmt::Debug for Answer {
    /// What is in it is nothing for a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Answer { .. }")
    }
}

/// Why not: as it goes to another process, and to people there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Fault {
    pub(crate) code: String,
    pub(crate) message: String,
    pub(crate) advice: Option<String>,
    exit: u8,
}

impl Fault {
    pub(crate) fn new(code: &str, exit: Exit, message: impl Into<String>) -> Self {
        Self {
            code: code.to_owned(),
            message: message.into(),
            advice: None,
            exit: exit as u8,
        }
    }

    pub(crate) fn advise(mut self, advice: impl Into<String>) -> Self {
        self.advice = Some(advice.into());
        self
    }

    pub(crate) fn bad_input(message: impl Into<String>) -> Self {
        Self::new("bad_input", Exit::Usage, message)
    }

    pub(crate) fn not_found(id: &str) -> Self {
        Self::new(
            "not_found",
            Exit::NotFound,
            format!("there is no memory {id}"),
        )
    }

    /// How the program ends with it.
    pub(crate) fn exit(&self) -> Exit {
        Exit::from_number(self.exit)
    }
}

impl From<CliError> for Fault {
    fn from(error: CliError) -> Self {
        match error {
            CliError::Fault(fault) => *fault,
            error => Self {
                code: error.code().to_owned(),
                message: error.to_string(),
                advice: error.advice().map(str::to_owned),
                exit: error.exit() as u8,
            },
        }
    }
}

impl From<sprag::Error> for Fault {
    fn from(error: sprag::Error) -> Self {
        CliError::from(error).into()
    }
}

/// Whoever knows of memories: a store that this process has open, or another process that has.
pub(crate) trait Recall: Send + Sync {
    /// Does what is asked. A call that is made again under the same id is done once.
    fn call(&self, id: CallId, call: &Call) -> Result<Answer, Fault>;
}
