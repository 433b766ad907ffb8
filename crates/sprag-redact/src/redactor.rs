//! What redacts.

use crate::{Counts, Kind};

/// A text after redaction.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Redacted {
    /// The text, with everything that was found replaced.
    pub text: String,
    /// What was found.
    pub counts: Counts,
}

impl Redacted {
    /// A result: for redactors of your own.
    #[must_use]
    pub fn new(text: String, counts: Counts) -> Self {
        Self { text, counts }
    }
}

/// Takes what must not be kept out of texts. [`Patterns`](crate::Patterns) does so by form; an application may have a
/// list of names, or a model.
pub trait Redactor: Send + Sync {
    /// The text with everything that is not to be kept replaced. Doing so twice must give the same as doing so once.
    fn redact(&self, text: &str) -> Redacted;

    /// The same for a text that is the value of a field of that name, of JSON say: the name may tell that all of it is a
    /// secret. Gives [`redact`](Self::redact) if not overridden.
    fn redact_field(&self, name: &str, text: &str) -> Redacted {
        let _ = name;
        self.redact(text)
    }
}

/// A result with one thing found in it, which is all of it.
pub(crate) fn whole(kind: Kind) -> Redacted {
    let mut counts = Counts::default();
    counts.add(kind);
    Redacted::new(kind.marker().to_owned(), counts)
}
