//! What one device remembers, another one finds; then it is forgotten on both.

use std::fs;
use std::io;
use std::path::Path;

use sprag::Client;
use sprag::memory::{EncryptedMemoryStore, Memory, Owner, Standing};
use sprag_search::LexicalEmbedder;

use super::{Demo, ensure};
use crate::error::CliError;

const CONTENT: &str = "Alice drinks her tea without milk";
const QUESTION: &str = "milk in tea?";

impl Demo<'_> {
    /// Bob's assistant remembers something on his phone, and finds it on the laptop.
    pub(super) fn memories(&mut self, laptop: &Client) -> Result<(), CliError> {
        let owner = Owner::new("bob").agent("assistant");
        let on_phone = EncryptedMemoryStore::new(&self.bob, &owner)?;
        let on_laptop = EncryptedMemoryStore::new(laptop, &owner)?;
        let memory = Memory::new(CONTENT)
            .tags(["tea"])
            .embedding(embedding(CONTENT)?);
        let stored = on_phone.store_verified(&memory)?;
        self.server.run_tasks(&self.bob, self.output)?;
        on_laptop.refresh()?;
        self.server.run_tasks(laptop, self.output)?;
        let question = embedding(QUESTION)?;
        let hits = on_laptop.search_similar(&question, 10, LexicalEmbedder::THRESHOLD)?;
        let found = hits.first().filter(|hit| hit.id == stored.id);
        ensure(found.is_some(), "the laptop finds what the phone stored")?;
        let read = on_laptop.get_memory(&stored.id)?;
        ensure(read.content == CONTENT, "the laptop reads it")?;
        let writer = read.provenance().map(|written| written.device);
        ensure(
            writer == Some(self.bob.device()?),
            "the laptop knows who wrote it",
        )?;
        let folder = self.folder.path().join("server");
        let in_clear = contains(&folder, CONTENT.as_bytes())
            .map_err(|cause| CliError::file(&folder, cause))?;
        ensure(!in_clear, "the server has nothing of it in clear")?;

        on_laptop.erase_memory(&stored.id)?;
        self.server.run_tasks(laptop, self.output)?;
        on_phone.refresh()?;
        self.server.run_tasks(&self.bob, self.output)?;
        for memories in [&on_phone, &on_laptop] {
            let hits = memories.search_similar(&question, 10, LexicalEmbedder::THRESHOLD)?;
            let standing = memories.standing(&stored.id)?;
            ensure(
                hits.is_empty() && matches!(standing, Standing::ErasePending | Standing::Erased),
                "what was erased on one device is gone on the other",
            )?;
        }
        self.say(
            "Bob's assistant remembered on his phone how Alice drinks her tea. His laptop found it by other words, read \
             it, and knew which device had written it; the server saw neither words nor vectors. Then he erased it on \
             the laptop, and the phone had forgotten it, too.",
        )
    }
}

fn embedding(text: &str) -> Result<Vec<f32>, CliError> {
    let embedder = LexicalEmbedder::new(LexicalEmbedder::DIMENSIONS).ok();
    let embedding = embedder.and_then(|embedder| embedder.embed(text));
    embedding.ok_or(CliError::Demo("words have a vector"))
}

/// Whether some file below a folder has these bytes in it.
fn contains(folder: &Path, word: &[u8]) -> io::Result<bool> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let found = if entry.file_type()?.is_dir() {
            contains(&entry.path(), word)?
        } else {
            let bytes = fs::read(entry.path())?;
            bytes.windows(word.len()).any(|window| window == word)
        };
        if found {
            return Ok(true);
        }
    }
    Ok(false)
}
