//! `sprag memory export` and `import`: one JSON object per line.
//!
//! The first line of an export is `{"sprag_memories":1}`, the last one `{"end":N}` with the number of memories between
//! them, so that one that was cut is noticed. What has no first line like that is taken to be of another program: objects with
//! `content`, one per line. An import is read and checked as a whole before anything is stored.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use sprag::memory::Memory;
use zeroize::Zeroizing;

use super::args::{ExportArgs, ImportArgs};
use super::line::ImportLine;
use super::{Asker, unexpected};
use crate::cmd::vault::aside::Aside;
use crate::error::{CliError, Exit};
use crate::input;
use crate::line::Line;
use crate::output::Output;
use crate::shared::call::{Answer, Call, Filter, Imported, MAX_FOUND};

/// The largest file that is imported, in bytes.
const MAX_FILE: usize = 1 << 30;
/// The version of the format.
const VERSION: u32 = 1;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct First {
    sprag_memories: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Last {
    end: usize,
}

pub(super) fn export(
    asker: &Asker<'_>,
    args: &ExportArgs,
    output: &mut Output,
) -> Result<Exit, CliError> {
    let failed = |cause| CliError::file(&args.out, cause);
    if !args.force && std::fs::symlink_metadata(&args.out).is_ok() {
        return Err(failed(io::ErrorKind::AlreadyExists.into()));
    }
    let mut aside = Aside::create(&args.out, args.force, None).map_err(failed)?;
    let (mut memories, mut bytes) = (0_u64, 0_usize);
    let mut unreadable = Vec::new();
    let file = aside.file.as_file_mut();
    let mut put = |text: &str| {
        bytes = bytes.saturating_add(text.len() + 1);
        file.write_all(text.as_bytes())
            .and_then(|()| file.write_all(b"\n"))
            .map_err(failed)
    };
    put(&format!("{{\"sprag_memories\":{VERSION}}}"))?;
    asker.each(Filter::default(), true, MAX_FOUND, &mut |found| {
        if let Some(code) = &found.unreadable {
            unreadable.push((found.memory.id.clone(), code.clone()));
            return Ok(true);
        }
        memories += 1;
        put(&Zeroizing::new(found.memory.to_json()))?;
        Ok(true)
    })?;
    put(&format!("{{\"end\":{memories}}}"))?;
    aside.commit()?;
    output.line(&Line::MemoriesExported {
        file: args.out.display().to_string(),
        memories,
        bytes,
    })?;
    output.note(
        "the file is IN CLEAR: whoever gets it reads all of it; `sprag vault seal` encrypts it",
    );
    for (id, code) in &unreadable {
        output.note(&format!(
            "not in it, since it cannot be read here: {id} ({code})"
        ));
    }
    Ok(if unreadable.is_empty() {
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
    let memories = read(&bytes).map_err(|what| {
        CliError::Usage(format!(
            "{}: {what}; nothing was imported",
            args.file.display()
        ))
    })?;
    let mut done = ImportLine::default();
    for memory in memories {
        let id = memory.id.clone();
        let whose = asker.whose.clone();
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
        match asker.call(&call)? {
            Answer::Imported(Imported::Added) | Answer::Written { .. } => done.added += 1,
            Answer::Imported(Imported::Same) => done.same += 1,
            Answer::Imported(Imported::Differs) => done.differ.push(id),
            Answer::Imported(Imported::Forgotten) => done.forgotten.push(id),
            _ => return Err(unexpected()),
        }
    }
    let all = done.differ.is_empty() && done.forgotten.is_empty();
    output.line(&Line::MemoriesImported(done))?;
    Ok(if all { Exit::Ok } else { Exit::Refused })
}

/// A line of ours. (By itself serde would take an array for an object, too.)
fn object<T: DeserializeOwned>(line: &str) -> Option<T> {
    let object = Some(line).filter(|line| line.trim_start().starts_with('{'))?;
    serde_json::from_str(object).ok()
}

/// The memories of a file, all of them or none.
fn read(bytes: &[u8]) -> Result<Vec<Memory>, String> {
    let text = std::str::from_utf8(bytes).map_err(|_| "this is no text in UTF-8".to_owned())?;
    let mut lines: Vec<(usize, &str)> = (1..)
        .zip(text.lines())
        .filter(|(_, line)| !line.trim().is_empty())
        .collect();
    let first = lines.first().and_then(|(_, line)| object::<First>(line));
    if let Some(first) = first {
        if first.sprag_memories != VERSION {
            return Err("it was written by a newer version: install that".to_owned());
        }
        lines.remove(0);
        let last = lines.pop().and_then(|(_, line)| object::<Last>(line));
        if last.is_none_or(|last| last.end != lines.len()) {
            return Err("it is not all there: its end is missing".to_owned());
        }
    } else if lines.is_empty() {
        return Err("there is nothing in it".to_owned());
    }
    let mut ids = HashSet::new();
    let mut memories = Vec::with_capacity(lines.len());
    for (number, line) in lines {
        let wrong = |what: String| format!("line {number}: {what}");
        let memory = Memory::from_json(line).map_err(|error| wrong(error.to_string()))?;
        if memory.content.is_empty() {
            return Err(wrong("there is no content".to_owned()));
        }
        if !memory.id.is_empty() && !ids.insert(memory.id.clone()) {
            return Err(wrong("its id stands there twice".to_owned()));
        }
        memories.push(memory);
    }
    Ok(memories)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_export_and_the_lines_of_others_are_read_in_their_order() {
        let export = "{\"sprag_memories\":1}\n{\"id\":\"a\",\"content\":\"one\",\"x\":1.10}\n{\"id\":\"b\",\"content\":\"two\"}\n{\"end\":2}\n";
        let ids = |text: &str| -> Vec<String> {
            let memories = read(text.as_bytes()).unwrap();
            memories
                .into_iter()
                .map(|memory| memory.id.clone())
                .collect()
        };
        assert_eq!(ids(export), ["a", "b"]);
        assert_eq!(ids("{\"sprag_memories\":1}\n{\"end\":0}\n"), [""; 0]);
        assert_eq!(
            ids("\n{\"content\":\"one\"}\n\n{\"content\":\"two\"}"),
            ["", ""]
        );
    }

    #[test]
    fn what_is_cut_repeated_or_broken_is_refused_with_its_line() {
        for (text, said) in [
            ("", "nothing in it"),
            ("\n \n", "nothing in it"),
            ("{\"sprag_memories\":1}\n", "not all there"),
            (
                "{\"sprag_memories\":1}\n{\"content\":\"one\"}\n",
                "not all there",
            ),
            (
                "{\"sprag_memories\":1}\n{\"content\":\"one\"}\n{\"end\":2}\n",
                "not all there",
            ),
            ("{\"sprag_memories\":2}\n{\"end\":0}\n", "newer version"),
            ("{\"content\":\"one\"}\n{\"content\":", "line 2"),
            ("[1]", "line 1"),
            (
                "{\"id\":\"a\",\"content\":\"\"}",
                "line 1: there is no content",
            ),
            ("{\"id\":\"a\"}", "line 1: there is no content"),
            (
                "{\"id\":\"a\",\"content\":\"x\"}\n{\"id\":\"a\",\"content\":\"y\"}",
                "line 2: its id",
            ),
            ("{\"id\":\"a\\n\",\"content\":\"x\"}", "line 1"),
        ] {
            let error = read(text.as_bytes()).unwrap_err();
            assert!(error.contains(said), "{text}: {error}");
        }
        assert!(read(b"\xff").unwrap_err().contains("UTF-8"));
    }
}
