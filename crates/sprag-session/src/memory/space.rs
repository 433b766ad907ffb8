//! Names: of a space, and of a record in it.

use std::fmt;

use sprag_crypto::put_lp;

use super::LogError;
use super::segment::RecordState;
use crate::codec::Reader;

/// The longest id of a record, in bytes.
const MAX_ID: usize = 128;
/// The longest name of a space in the log of the root.
const MAX_LISTED: usize = 4 * 4 + 3 * 255 + 8;

/// What a space holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum SpaceKind {
    /// What an agent remembers.
    Memory,
    /// A chat history.
    Chat,
    /// Files.
    File,
    /// The list of an account's spaces.
    Root,
}

impl SpaceKind {
    /// The name that enters derivations and contexts.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Chat => "chat",
            Self::File => "file",
            Self::Root => "root",
        }
    }

    pub(crate) fn number(self) -> u8 {
        match self {
            Self::Memory => 1,
            Self::Chat => 2,
            Self::File => 3,
            Self::Root => 4,
        }
    }

    pub(crate) fn from_number(number: u8) -> Option<Self> {
        [Self::Memory, Self::Chat, Self::File, Self::Root]
            .into_iter()
            .find(|kind| kind.number() == number)
    }
}

/// One application's data of one kind about one user, perhaps of one agent. Each has keys of its own.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Space {
    app: String,
    user: String,
    agent: Option<String>,
    kind: SpaceKind,
}

impl Space {
    /// Names a space. Each text is 1 to 255 bytes of UTF-8 without U+0000 to U+001F and U+007F; no agent is `None`.
    ///
    /// # Errors
    /// [`LogError::BadInput`]: a text is out of range.
    pub fn new(
        app: &str,
        user: &str,
        agent: Option<&str>,
        kind: SpaceKind,
    ) -> Result<Self, LogError> {
        if kind == SpaceKind::Root {
            return Err(LogError::BadInput);
        }
        for text in [Some(app), Some(user), agent].into_iter().flatten() {
            if text.is_empty() || text.len() > 255 || text.bytes().any(|b| b < 0x20 || b == 0x7f) {
                return Err(LogError::BadInput);
            }
        }
        Ok(Self {
            app: app.to_owned(),
            user: user.to_owned(),
            agent: agent.map(str::to_owned),
            kind,
        })
    }

    /// The list of an account's spaces: a log like the others, whose records name them.
    #[must_use]
    pub fn root() -> Self {
        Self {
            app: String::new(),
            user: String::new(),
            agent: None,
            kind: SpaceKind::Root,
        }
    }

    /// By what the root names the space: its four parts, each behind its length.
    pub(crate) fn listed_as(&self) -> RecordId {
        let mut id = Vec::new();
        self.parts().iter().for_each(|part| put_lp(&mut id, part));
        RecordId(id)
    }

    /// The space that an entry of the root names.
    pub(crate) fn of_listed(id: &RecordId) -> Result<Self, LogError> {
        let space = Self::of_listed_bytes(&id.0)?;
        if space.kind == SpaceKind::Root {
            return Err(LogError::Damaged);
        }
        Ok(space)
    }

    /// The same, of the root too.
    pub(crate) fn of_listed_bytes(bytes: &[u8]) -> Result<Self, LogError> {
        let mut reader = Reader::bare(bytes, "space");
        let (app, user) = (reader.text()?, reader.text()?);
        let agent = Some(reader.text()?).filter(|agent| !agent.is_empty());
        let kind = reader.text()?;
        reader.finish()?;
        if kind == SpaceKind::Root.name() {
            return Ok(Self::root());
        }
        let kinds = [SpaceKind::Memory, SpaceKind::Chat, SpaceKind::File];
        let kind = kinds.into_iter().find(|one| one.name() == kind);
        Self::new(app, user, agent, kind.ok_or(LogError::Damaged)?).map_err(|_| LogError::Damaged)
    }

    /// The application.
    #[must_use]
    pub fn app(&self) -> &str {
        &self.app
    }

    /// The user whom the data is about.
    #[must_use]
    pub fn user(&self) -> &str {
        &self.user
    }

    /// The agent, if the data belongs to one.
    #[must_use]
    pub fn agent(&self) -> Option<&str> {
        self.agent.as_deref()
    }

    /// What the space holds.
    #[must_use]
    pub fn kind(&self) -> SpaceKind {
        self.kind
    }

    /// The four parts of its name, an absent agent as an empty one.
    pub(super) fn parts(&self) -> [&[u8]; 4] {
        [
            self.app.as_bytes(),
            self.user.as_bytes(),
            self.agent.as_deref().unwrap_or_default().as_bytes(),
            self.kind.name().as_bytes(),
        ]
    }
}

/// Names a record within its space: 1 to 128 bytes, chosen by the application. Seen by nobody but the account's devices.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecordId(Vec<u8>);

impl RecordId {
    /// From 1 to 128 bytes.
    ///
    /// # Errors
    /// [`LogError::BadInput`]: none, or more.
    pub fn new(bytes: impl AsRef<[u8]>) -> Result<Self, LogError> {
        let bytes = bytes.as_ref();
        if bytes.is_empty() || bytes.len() > MAX_ID {
            return Err(LogError::BadInput);
        }
        Ok(Self(bytes.to_vec()))
    }

    /// One that is read: those of the root are longer.
    pub(crate) fn any(bytes: &[u8]) -> Result<Self, LogError> {
        if bytes.is_empty() || bytes.len() > MAX_LISTED {
            return Err(LogError::BadInput);
        }
        Ok(Self(bytes.to_vec()))
    }

    /// Whether it may name a record of this state.
    pub(super) fn fits(&self, state: &RecordState) -> bool {
        self.0.len() <= MAX_ID || *state == RecordState::Listed
    }

    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for RecordId {
    /// What an application names its records by may tell of their content.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecordId").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_out_of_range_are_refused() {
        let kind = SpaceKind::Memory;
        let long = "x".repeat(256);
        for (app, user, agent) in [
            ("", "ann", None),
            ("app", "", None),
            ("app", "ann", Some("")),
            (long.as_str(), "ann", None),
            ("app", long.as_str(), None),
            ("app", "ann", Some(long.as_str())),
            ("a\0pp", "ann", None),
            ("app", "an\nn", None),
            ("app", "ann", Some("\u{7f}")),
        ] {
            assert_eq!(Space::new(app, user, agent, kind), Err(LogError::BadInput));
        }
        assert!(Space::new(&long[1..], "ann", Some("käthe"), kind).is_ok());
        assert!(RecordId::new([0; 128]).is_ok());
        assert_eq!(RecordId::new([]), Err(LogError::BadInput));
        assert_eq!(RecordId::new([0; 129]), Err(LogError::BadInput));
    }

    #[test]
    fn record_id_prints_nothing_of_itself() {
        let id = RecordId::new("diagnosis of 3 May").unwrap();
        assert_eq!(format!("{id:?}"), "RecordId { .. }");
    }
}
