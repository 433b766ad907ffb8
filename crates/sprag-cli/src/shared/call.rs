//! What can be asked about memories, and what is answered: plain data, so that it can go to another process.

use std::fmt;
use std::num::ParseIntError;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::error::{CliError, Exit};
use crate::sys;

/// The largest content of a memory in bytes.
pub(crate) const MAX_CONTENT: usize = 256 << 10;
/// The most memories that one answer holds.
pub(crate) const MAX_FOUND: usize = 100;
/// The most bytes of content in one answer that lists: an answer then goes on with the next call.
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
    pub(crate) user: String,
    pub(crate) agent: Option<String>,
}

/// A memory as somebody wrote it.
#[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Note {
    pub(crate) content: String,
    pub(crate) title: Option<String>,
    pub(crate) tags: Vec<String>,
    /// When it was, in milliseconds of Unix, if that is not when it was stored.
    pub(crate) at: Option<u64>,
    /// Whatever else belongs to it.
    pub(crate) more: Map<String, Value>,
}

impl fmt::Debug for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Note").finish_non_exhaustive()
    }
}

/// Which memories of all.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Filter {
    /// Only with all of these tags.
    pub(crate) tags: Vec<String>,
    /// Only from this time on, in milliseconds of Unix.
    pub(crate) since: Option<u64>,
    /// Only before this time, in milliseconds of Unix.
    pub(crate) until: Option<u64>,
}

/// A question or an order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Call {
    /// A new memory, under the id of the call.
    Store {
        whose: Whose,
        note: Note,
        embedding: Vec<f32>,
    },
    /// Another content for a memory.
    Update {
        whose: Whose,
        id: String,
        note: Note,
        embedding: Vec<f32>,
    },
    Get {
        whose: Whose,
        id: String,
    },
    /// The most similar ones, best first.
    Search {
        whose: Whose,
        embedding: Vec<f32>,
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
        id: String,
        note: Note,
        embedding: Vec<f32>,
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
            | Self::Import { .. } => true,
            Self::Get { .. } | Self::Search { .. } | Self::List { .. } | Self::Stats { .. } => {
                false
            }
        }
    }
}

/// A memory as it is kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Found {
    pub(crate) id: String,
    pub(crate) revision: u64,
    pub(crate) note: Note,
    /// When this revision was written, in milliseconds of Unix.
    pub(crate) written_at: u64,
    /// The device that wrote it.
    pub(crate) device: u32,
    /// The agent that wrote it, as it says itself.
    pub(crate) agent: Option<String>,
    /// How similar it is, of a search: 1 is the same direction.
    pub(crate) score: Option<f32>,
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
    /// One with this id was deleted or erased: that stays.
    Forgotten,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Answer {
    Written {
        id: String,
        revision: u64,
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
    Counted {
        memories: u64,
        bytes: u64,
    },
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
