//! Results of `sprag memory`.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

use crate::output::printable;
use crate::shared::call::{Forgotten, Found};
use crate::when;

/// The most characters that a list shows of a memory.
const GLANCE: usize = 72;

/// A memory that was kept.
#[derive(Debug, Serialize)]
pub(crate) struct Written {
    pub(crate) id: String,
    pub(crate) revision: u64,
    /// What was taken out of it before, and how often.
    pub(crate) redacted: BTreeMap<String, u64>,
}

impl Written {
    pub(crate) fn text(&self) -> String {
        let redacted: Vec<String> = (self.redacted.iter())
            .map(|(kind, count)| format!("{count} {kind}"))
            .collect();
        if redacted.is_empty() {
            format!("{}\n", self.id)
        } else {
            format!("{}  without {}\n", self.id, redacted.join(", "))
        }
    }
}

/// A memory.
#[derive(Debug, Serialize)]
pub(crate) struct MemoryLine {
    id: String,
    title: String,
    /// An excerpt, if it is `cut`.
    content: String,
    cut: bool,
    tags: Vec<String>,
    metadata: Option<Value>,
    created_at: u64,
    updated_at: u64,
    revision: u64,
    device: u32,
    agent: Option<String>,
    score: Option<f32>,
    /// Why there is no content.
    unreadable: Option<String>,
    #[serde(skip)]
    whole: bool,
}

impl MemoryLine {
    /// All of it.
    pub(crate) fn whole(found: &Found) -> Self {
        Self::new(found, true)
    }

    /// For people, on one line.
    pub(crate) fn short(found: &Found) -> Self {
        Self::new(found, false)
    }

    fn new(found: &Found, whole: bool) -> Self {
        let memory = &found.memory;
        let metadata = memory.metadata.as_ref();
        Self {
            id: memory.id.clone(),
            title: memory.title.clone(),
            content: memory.content.clone(),
            cut: found.cut,
            tags: memory.tags.clone(),
            metadata: metadata.and_then(|json| serde_json::from_str(json.as_str()).ok()),
            created_at: memory.created_at,
            updated_at: memory.updated_at,
            revision: found.revision,
            device: found.device,
            agent: found.agent.clone(),
            score: found.score,
            unreadable: found.unreadable.clone(),
            whole,
        }
    }

    pub(crate) fn text(&self) -> String {
        let tags: String = (self.tags.iter())
            .map(|tag| format!(" #{}", printable(tag)))
            .collect();
        let score = self.score.map(|score| format!("  {score:.2}"));
        let head = format!(
            "{}  {}{}",
            printable(&self.id),
            when::show(self.created_at),
            score.unwrap_or_default()
        );
        if let Some(code) = &self.unreadable {
            return format!("{head}  cannot be read here ({code}){tags}\n");
        }
        if !self.whole {
            let text = match self.title.as_str() {
                "" => &self.content,
                title => title,
            };
            return format!("{head}  {}{tags}\n", glance(text));
        }
        let mut text = format!("{head}{tags}\n");
        let agent = self.agent.as_deref().map(printable);
        let agent = agent.map(|agent| format!(", for {agent}"));
        text.push_str(&format!(
            "written by device {}{}, revision {}\n",
            self.device,
            agent.unwrap_or_default(),
            self.revision
        ));
        if !self.title.is_empty() {
            text.push_str(&format!("title: {}\n", printable(&self.title)));
        }
        if let Some(metadata) = &self.metadata {
            text.push_str(&format!("metadata: {}\n", printable(&metadata.to_string())));
        }
        // Indented, so that nothing in it looks like a line of ours.
        for line in self.content.split('\n') {
            text.push_str(&format!("    {}\n", printable(line)));
        }
        text
    }
}

/// The beginning of a text, on one line.
fn glance(text: &str) -> String {
    let line = text.trim_start().split('\n').next().unwrap_or_default();
    let mut glance: String = line.chars().take(GLANCE).collect();
    if glance.len() < text.trim().len() {
        glance.push('…');
    }
    printable(&glance)
}

/// The state of a memory that is to be forgotten.
pub(crate) fn forgotten(state: Forgotten) -> &'static str {
    match state {
        Forgotten::Deleted => "deleted",
        Forgotten::ErasePending => "erase_pending",
        Forgotten::Erased => "erased",
    }
}

/// What an import did.
#[derive(Debug, Default, Serialize)]
pub(crate) struct ImportLine {
    pub(crate) added: u64,
    /// There, and the same.
    pub(crate) same: u64,
    /// There, and another: left alone. Their ids.
    pub(crate) differ: Vec<String>,
    /// Erased here: that stays so. Their ids.
    pub(crate) erased: Vec<String>,
}

impl ImportLine {
    pub(crate) fn text(&self) -> String {
        let Self {
            added,
            same,
            differ,
            erased,
        } = self;
        let mut text = format!("{added} records added, {same} were there already\n");
        for (ids, why) in [
            (
                differ,
                "another one of this id is there, and was left alone",
            ),
            (erased, "this one was erased here, and stays so"),
        ] {
            for id in ids {
                text.push_str(&format!("{}  {why}\n", printable(id)));
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use sprag::memory::Memory;

    use super::*;

    fn found(content: &str) -> Found {
        let mut memory = Memory::new(content).id("ab").tags(["x\u{1b}"]);
        memory.created_at = 0;
        Found {
            memory,
            revision: 2,
            written_at: 3,
            device: 7,
            agent: Some("tutor".to_owned()),
            score: None,
            cut: false,
            unreadable: None,
        }
    }

    #[test]
    fn a_memory_neither_steers_the_terminal_nor_looks_like_another() {
        let found = found("hi\u{1b}[2J\nab  1970-01-01T00:00:00Z  send money\u{202e}");
        assert_eq!(
            MemoryLine::short(&found).text(),
            "ab  1970-01-01T00:00:00Z  hi\u{fffd}[2J… #x\u{fffd}\n"
        );
        assert_eq!(
            MemoryLine::whole(&found).text(),
            "ab  1970-01-01T00:00:00Z #x\u{fffd}\nwritten by device 7, for tutor, revision 2\n    hi\u{fffd}[2J\n    \
             ab  1970-01-01T00:00:00Z  send money\u{fffd}\n"
        );
    }

    #[test]
    fn a_memory_that_cannot_be_read_says_so() {
        let mut found = found("");
        found.unreadable = Some("blob_missing".to_owned());
        for line in [MemoryLine::short(&found), MemoryLine::whole(&found)] {
            assert!(line.text().contains("cannot be read here (blob_missing)"));
        }
    }
}
