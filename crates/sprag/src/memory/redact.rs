//! Taking secrets out of what is stored, before it is encrypted.

use std::collections::BTreeMap;

use sprag_redact::Patterns;

use super::{Chat, Json, Memory};

/// A text without what should not be kept, and how often what was replaced.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Redacted {
    /// The text.
    pub text: String,
    /// What was replaced, by its type, and how often.
    pub counts: Vec<(String, u64)>,
}

impl Redacted {
    /// A text, and what was replaced in it.
    #[must_use]
    pub fn new(text: impl Into<String>, counts: Vec<(String, u64)>) -> Self {
        Self {
            text: text.into(),
            counts,
        }
    }
}

impl std::fmt::Debug for Redacted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Redacted")
            .field("counts", &self.counts)
            .finish_non_exhaustive()
    }
}

/// Takes out of a text what should not be kept. It is given titles, contents, tags, names of who speaks, and every string in metadata and further
/// fields, one by one; names of fields and roles are left alone. An embedding is made by the application, before: who redacts makes it
/// of the redacted text.
pub trait Redactor: Send + Sync + 'static {
    /// The text without what should not be kept.
    fn redact(&self, text: &str) -> Redacted;

    /// The same for a string in metadata or a further field, given the name of the field that it stands in: `password`, say. Without a
    /// word about it, as [`redact`](Self::redact).
    fn redact_field(&self, name: &str, text: &str) -> Redacted {
        let _ = name;
        self.redact(text)
    }
}

/// The usual forms of secrets and personal data (`sprag-redact`), counted by the names of their kinds.
impl Redactor for Patterns {
    fn redact(&self, text: &str) -> Redacted {
        sprag_redact::Redactor::redact(self, text).into()
    }

    fn redact_field(&self, name: &str, text: &str) -> Redacted {
        sprag_redact::Redactor::redact_field(self, name, text).into()
    }
}

impl From<sprag_redact::Redacted> for Redacted {
    fn from(redacted: sprag_redact::Redacted) -> Self {
        let counts = redacted.counts.iter();
        let counts = counts.map(|(kind, count)| (kind.name().to_owned(), count));
        Self::new(redacted.text, counts.collect())
    }
}

impl<F: Fn(&str) -> Redacted + Send + Sync + 'static> Redactor for F {
    fn redact(&self, text: &str) -> Redacted {
        self(text)
    }
}

/// Counts over several texts.
#[derive(Default)]
pub(super) struct Tally(BTreeMap<String, u64>);

impl Tally {
    fn take(&mut self, text: &mut String, redacted: Redacted) {
        for (kind, count) in redacted.counts {
            let sum = self.0.entry(kind).or_default();
            *sum = sum.saturating_add(count);
        }
        let mut before = std::mem::replace(text, redacted.text);
        zeroize::Zeroize::zeroize(&mut before);
    }

    fn text(&mut self, redactor: &dyn Redactor, text: &mut String) {
        let redacted = redactor.redact(text);
        self.take(text, redacted);
    }

    fn fields(&mut self, redactor: &dyn Redactor, fields: &mut [(String, Json)]) {
        for (name, json) in fields {
            self.json(redactor, name, json);
        }
    }

    fn json(&mut self, redactor: &dyn Redactor, name: &str, json: &mut Json) {
        json.change_strings(name, &mut |name, text| {
            let redacted = redactor.redact_field(name, text);
            self.take(text, redacted);
        });
    }

    pub(super) fn memory(&mut self, redactor: &dyn Redactor, memory: &mut Memory) {
        self.text(redactor, &mut memory.title);
        self.text(redactor, &mut memory.content);
        for tag in &mut memory.tags {
            self.text(redactor, tag);
        }
        if let Some(metadata) = &mut memory.metadata {
            self.json(redactor, "metadata", metadata);
        }
        self.fields(redactor, &mut memory.extra);
    }

    pub(super) fn chat(&mut self, redactor: &dyn Redactor, chat: &mut Chat) {
        self.text(redactor, &mut chat.title);
        for message in &mut chat.messages {
            self.text(redactor, &mut message.content);
            if let Some(name) = &mut message.name {
                self.text(redactor, name);
            }
            self.fields(redactor, &mut message.extra);
        }
        if let Some(metadata) = &mut chat.metadata {
            self.json(redactor, "metadata", metadata);
        }
        self.fields(redactor, &mut chat.extra);
    }

    pub(super) fn counts(self) -> Vec<(String, u64)> {
        self.0.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::ChatMessage;
    use super::*;

    fn blot(text: &str) -> Redacted {
        let count = u64::try_from(text.matches("hunter2").count()).unwrap();
        let counts = Some(("password".to_owned(), count)).filter(|_| count > 0);
        Redacted::new(
            text.replace("hunter2", "[password]"),
            counts.into_iter().collect(),
        )
    }

    #[test]
    fn secrets_go_from_every_text_of_a_memory_and_are_counted() {
        let json = concat!(
            r#"{"id":"a","title":"hunter2","content":"hunter2, hunter2","tags":["hunter2"],"metadata":{"hunter2":["hunter2",1.10]},"#,
            r#""x":"\u0068unter2 \ud83d\ude00","y":12345678901234567890.1}"#
        );
        let mut memory = Memory::from_json(json).unwrap();
        let mut tally = Tally::default();
        tally.memory(&blot, &mut memory);
        assert_eq!(tally.counts(), [("password".to_owned(), 6)]);
        let again = memory.to_json();
        assert!(
            !again.replace(r#"{"hunter2":"#, "").contains("hunter2"),
            "{again}"
        );
        assert!(
            again.contains(r#""metadata":{"hunter2":["[password]",1.10]}"#),
            "{again}"
        );
        assert!(
            again.contains(r#""x":"[password] 😀","y":12345678901234567890.1"#),
            "{again}"
        );
    }

    #[test]
    fn secrets_go_from_every_text_of_a_chat() {
        let mut chat =
            Chat::new(vec![ChatMessage::new("user", "hunter2").name("hunter2")]).title("hunter2");
        let parts = Json::parse(r#"[{"text":"hunter2"}]"#).unwrap();
        chat.messages[0].extra = vec![("parts".to_owned(), parts.clone())];
        chat.metadata = Some(parts.clone());
        chat.extra = vec![("z".to_owned(), parts)];
        let mut tally = Tally::default();
        tally.chat(&blot, &mut chat);
        assert!(!chat.to_json().contains("hunter2"));
        assert_eq!(tally.counts(), [("password".to_owned(), 6)]);
    }

    #[test]
    fn usual_secrets_are_found_in_texts_and_by_the_names_of_fields() {
        let json = concat!(
            r#"{"id":"a","content":"ask ann@example.com","tags":["192.0.2.7"],"metadata":{"password":"hunter2","n":[1.50]},"#,
            r#""api_key":"abcdefgh12345678","note":"nothing"}"#
        );
        let mut memory = Memory::from_json(json).unwrap();
        let mut tally = Tally::default();
        tally.memory(&Patterns::new(), &mut memory);
        let counts = tally.counts();
        let count = |kind: &str| {
            let found = counts.iter().find(|(found, _)| found == kind);
            found.map_or(0, |(_, count)| *count)
        };
        assert_eq!((count("email"), count("ip"), count("token")), (1, 1, 2));
        let again = memory.to_json();
        for secret in ["ann@", "192.0", "hunter2", "abcdefgh"] {
            assert!(!again.contains(secret), "{again}");
        }
        assert!(
            again.contains(r#""n":[1.50]"#) && again.contains("nothing"),
            "{again}"
        );
    }
}
