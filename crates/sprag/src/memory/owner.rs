//! Whose data.

use sprag_session::memory::{Space, SpaceKind};

use crate::Error;

/// Whose memories and chats: a user, and perhaps one agent that works for him. What one agent remembers is apart from what
/// another does, and from what belongs to the user himself, with keys of its own.
///
/// ```
/// use sprag::memory::Owner;
///
/// let ann = Owner::from("ann");
/// assert_eq!(ann.clone().agent("tutor"), Owner::new("ann").agent("tutor"));
/// assert_ne!(ann, Owner::new("ann").agent("tutor"));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Owner {
    user: String,
    agent: Option<String>,
}

impl Owner {
    /// A user: 1 to 255 bytes without control characters. It need not be the user of the client.
    #[must_use]
    pub fn new(user: &str) -> Self {
        Self {
            user: user.to_owned(),
            agent: None,
        }
    }

    /// One agent of this user: 1 to 255 bytes without control characters.
    #[must_use]
    pub fn agent(mut self, agent: &str) -> Self {
        self.agent = Some(agent.to_owned());
        self
    }

    /// The user.
    #[must_use]
    pub fn user(&self) -> &str {
        &self.user
    }

    /// The agent, if the data is of one.
    #[must_use]
    pub fn agent_name(&self) -> Option<&str> {
        self.agent.as_deref()
    }

    /// The space of this owner.
    pub(crate) fn space(&self, app: &str, kind: SpaceKind) -> Result<Space, Error> {
        Space::new(app, &self.user, self.agent.as_deref(), kind).map_err(|_| Error::bad_input())
    }
}

impl From<&str> for Owner {
    fn from(user: &str) -> Self {
        Self::new(user)
    }
}
