//! `sprag memory export` and `import`: the document of the library (memories and chats), or the lines of another program.
//!
//! An import is read and checked as a whole before anything is stored.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use serde::Deserialize;
use sprag::memory::{Chat, Memory};
use zeroize::Zeroizing;

use super::args::{ExportArgs, ImportArgs};
use super::line::ImportLine;
use super::{Asker, unexpected};
use crate::cmd::vault::aside::Aside;
use crate::error::{CliError, Exit};
use crate::input;
use crate::line::Line;
use crate::output::Output;
use crate::shared::call::{Answer, Call, Imported};

/// The largest file that is imported, in bytes.
const MAX_FILE: usize = 1 << 30;
/// The version of the document.
const VERSION: u64 = 1;

/// What `sprag::memory::EncryptedMemoryStore::export` writes.
#[derive(Deserialize)]
struct Document {
    #[serde(rename = "_sprag_export")]
    version: u64,
    memories: Vec<Memory>,
    chats: Vec<Chat>,
    /// Stands last: a document that was cut has none.
    #[serde(rename = "left_out")]
    _left_out: u64,
}

/// What a file has.
#[derive(Default)]
struct Records {
    memories: Vec<Memory>,
    chats: Vec<Chat>,
}

pub(super) fn export(
    asker: &Asker<'_>,
    args: &ExportArgs,
    output: &mut Output,
) -> Result<Exit, CliError> {
    let failed = |cause| CliError::file(&args.out, cause);
    if !args.force && fs::symlink_metadata(&args.out).is_ok() {
        return Err(failed(io::ErrorKind::AlreadyExists.into()));
    }
    let mut aside = Aside::create(&args.out, args.force, None).map_err(failed)?;
    let (mut bytes, mut after) = (0_u64, None);
    let left_out = loop {
        let whose = asker.whose.clone();
        let answer = asker.call(&Call::Export { whose, after })?;
        let Answer::Exported {
            text,
            more,
            left_out,
        } = answer
        else {
            return Err(unexpected());
        };
        let text = Zeroizing::new(text);
        aside.file.write_all(text.as_bytes()).map_err(failed)?;
        bytes = bytes.saturating_add(u64::try_from(text.len()).unwrap_or(0));
        after = more;
        if after.is_none() {
            break left_out;
        }
    };
    aside.commit()?;
    output.line(&Line::MemoriesExported {
        file: args.out.display().to_string(),
        bytes,
        left_out,
    })?;
    output.note(
        "the file is IN CLEAR: whoever gets it reads all of it; `sprag vault seal` encrypts it",
    );
    Ok(if left_out == 0 {
        Exit::Ok
    } else {
        Exit::Refused
    })
}

pub(super) fn import(
    asker: &Asker<'_>,
    args: &ImportArgs,
    output: &mut Output,
) -> Result<Exit, CliError> {
    let bytes = if args.file == Path::new("-") {
        input::read_all(io::stdin().lock(), MAX_FILE)
    } else {
        File::open(&args.file).and_then(|file| input::read_all(file, MAX_FILE))
    };
    let bytes = bytes.map_err(|cause| CliError::file(&args.file, cause))?;
    let Records { memories, chats } = read(&bytes).map_err(|what| {
        CliError::Usage(format!(
            "{}: {what}; nothing was imported",
            args.file.display()
        ))
    })?;
    let mut done = ImportLine::default();
    for memory in memories {
        let (whose, id) = (asker.whose.clone(), memory.id.clone());
        let memory = Box::new(memory);
        let call = if id.is_empty() {
            Call::Store {
                whose,
                memory,
                redact: false,
            }
        } else {
            Call::Import { whose, memory }
        };
        done.note(id, asker.call(&call)?)?;
    }
    for chat in chats {
        let (whose, id) = (asker.whose.clone(), chat.id.clone());
        let chat = Box::new(chat);
        done.note(id, asker.call(&Call::ImportChat { whose, chat })?)?;
    }
    let all = done.differ.is_empty() && done.erased.is_empty();
    output.line(&Line::MemoriesImported(done))?;
    Ok(if all { Exit::Ok } else { Exit::Refused })
}

impl ImportLine {
    fn note(&mut self, id: String, answer: Answer) -> Result<(), CliError> {
        match answer {
            Answer::Imported(Imported::Added) | Answer::Written { .. } => self.added += 1,
            Answer::Imported(Imported::Same) => self.same += 1,
            Answer::Imported(Imported::Differs) => self.differ.push(id),
            Answer::Imported(Imported::Erased) => self.erased.push(id),
            _ => return Err(unexpected()),
        }
        Ok(())
    }
}

/// The records of a file, all of them or none.
fn read(bytes: &[u8]) -> Result<Records, String> {
    let text = std::str::from_utf8(bytes).map_err(|_| "this is no text in UTF-8".to_owned())?;
    let records = if text.trim_start().starts_with("{\"_sprag_export\"") {
        document(text)?
    } else {
        lines(text)?
    };
    let mut ids = HashSet::new();
    for memory in &records.memories {
        memory.check().map_err(|error| error.to_string())?;
        if !memory.id.is_empty() && !ids.insert(&memory.id) {
            return Err(format!("the id {:?} stands there twice", memory.id));
        }
    }
    for chat in &records.chats {
        chat.check().map_err(|error| error.to_string())?;
    }
    Ok(records)
}

fn document(text: &str) -> Result<Records, String> {
    let document: Document =
        serde_json::from_str(text).map_err(|_| "it is damaged, or not all there".to_owned())?;
    if document.version != VERSION {
        return Err("it was written by a newer version: install that".to_owned());
    }
    let nameless = document.memories.iter().any(|memory| memory.id.is_empty())
        || document.chats.iter().any(|chat| chat.id.is_empty());
    if nameless {
        return Err("a record in it has no id".to_owned());
    }
    Ok(Records {
        memories: document.memories,
        chats: document.chats,
    })
}

/// One object on each line, with at least a `content`.
fn lines(text: &str) -> Result<Records, String> {
    let mut memories = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        if line.trim().is_empty() {
            continue;
        }
        let wrong = |what: String| format!("line {number}: {what}");
        let memory = Memory::from_json(line).map_err(|error| wrong(error.to_string()))?;
        if memory.content.is_empty() {
            return Err(wrong("there is no content".to_owned()));
        }
        memories.push(memory);
    }
    if memories.is_empty() {
        return Err("there is nothing in it".to_owned());
    }
    Ok(Records {
        memories,
        chats: Vec::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXPORT: &str = concat!(
        "{\"_sprag_export\":1,\"app\":\"sprag\",\"user\":\"ann\",\"memories\":[\n",
        "{\"id\":\"a\",\"content\":\"one\",\"x\":1.10},\n{\"id\":\"b\",\"content\":\"two\"}\n],\"chats\":[\n],\"left_out\":0}\n"
    );

    #[test]
    fn an_export_and_the_lines_of_others_are_read_in_their_order() {
        let ids = |text: &str| -> Vec<String> {
            let records = read(text.as_bytes()).unwrap();
            (records.memories.iter())
                .map(|memory| memory.id.clone())
                .collect()
        };
        assert_eq!(ids(EXPORT), ["a", "b"]);
        assert_eq!(
            ids("\n{\"content\":\"one\"}\n\n{\"content\":\"two\"}"),
            ["", ""]
        );
    }

    #[test]
    fn what_is_cut_repeated_or_broken_is_refused() {
        for (text, said) in [
            ("", "nothing in it"),
            ("\n \n", "nothing in it"),
            (&EXPORT.replace("\"b\"", "\"a\""), "stands there twice"),
            (&EXPORT.replace("\"b\"", "\"\""), "has no id"),
            (&EXPORT.replace("export\":1", "export\":2"), "newer version"),
            (&EXPORT.replace(",\"left_out\":0", ""), "not all there"),
            (&EXPORT.replace("\"b\"", "\"b\\n\""), "control characters"),
            ("{\"content\":\"one\"}\n{\"content\":", "line 2"),
            ("[1]", "line 1"),
            ("{\"id\":\"a\",\"content\":\"\"}", "line 1: there is no"),
            ("{\"id\":\"a\"}", "line 1: there is no content"),
            ("{\"id\":\"a\\n\",\"content\":\"x\"}", "line 1"),
        ] {
            let error = read(text.as_bytes()).err().unwrap();
            assert!(error.contains(said), "{text}: {error}");
        }
        for length in 1..EXPORT.trim_end().len() {
            assert!(read(&EXPORT.as_bytes()[..length]).is_err(), "{length}");
        }
        assert!(read(b"\xff").err().unwrap().contains("UTF-8"));
    }
}
