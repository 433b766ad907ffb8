//! Taking secrets out of what is stored, before it is encrypted.

use std::collections::BTreeMap;

use super::{Chat, Memory};

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

/// Takes out of a text what should not be kept. It is given titles, contents, tags and every string in metadata and further
/// fields, one by one; names of fields and roles are left alone. An embedding is made by the application, before: who redacts makes it
/// of the redacted text.
pub trait Redactor: Send + Sync + 'static {
    /// The text without what should not be kept.
    fn redact(&self, text: &str) -> Redacted;
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
    fn text(&mut self, redactor: &dyn Redactor, text: &mut String) {
        let redacted = redactor.redact(text);
        for (kind, count) in redacted.counts {
            let sum = self.0.entry(kind).or_default();
            *sum = sum.saturating_add(count);
        }
        let mut before = std::mem::replace(text, redacted.text);
        zeroize::Zeroize::zeroize(&mut before);
    }

    pub(super) fn memory(&mut self, redactor: &dyn Redactor, memory: &mut Memory) {
        self.text(redactor, &mut memory.title);
        self.text(redactor, &mut memory.content);
        for tag in &mut memory.tags {
            self.text(redactor, tag);
        }
        let extra = memory.extra.iter_mut().map(|(_, json)| json);
        for json in memory.metadata.iter_mut().chain(extra) {
            json.change_strings(&mut |text| self.text(redactor, text));
        }
    }

    pub(super) fn chat(&mut self, redactor: &dyn Redactor, chat: &mut Chat) {
        self.text(redactor, &mut chat.title);
        for message in &mut chat.messages {
            self.text(redactor, &mut message.content);
            for (_, json) in &mut message.extra {
                json.change_strings(&mut |text| self.text(redactor, text));
            }
        }
        let extra = chat.extra.iter_mut().map(|(_, json)| json);
        for json in chat.metadata.iter_mut().chain(extra) {
            json.change_strings(&mut |text| self.text(redactor, text));
        }
    }

    pub(super) fn counts(self) -> Vec<(String, u64)> {
        self.0.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::{ChatMessage, Json};
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
        let mut chat = Chat::new(vec![ChatMessage::new("user", "hunter2")]).title("hunter2");
        let parts = Json::parse(r#"[{"text":"hunter2"}]"#).unwrap();
        chat.messages[0].extra = vec![("parts".to_owned(), parts.clone())];
        chat.metadata = Some(parts.clone());
        chat.extra = vec![("z".to_owned(), parts)];
        let mut tally = Tally::default();
        tally.chat(&blot, &mut chat);
        assert!(!chat.to_json().contains("hunter2"));
        assert_eq!(tally.counts(), [("password".to_owned(), 5)]);
    }
}
