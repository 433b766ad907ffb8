//! `sprag memory`: what was remembered, for people. It works while other processes have the profile open.

pub(crate) mod args;
mod file;
pub(crate) mod line;

use std::io::IsTerminal;
use std::path::Path;

use sprag::memory::{Json, Memory};
use sprag_search::LexicalEmbedder;
use zeroize::Zeroizing;

use self::args::{AddArgs, DeleteArgs, GetArgs, ListArgs, MemoryArgs, MemoryCommand, SearchArgs};
use self::line::{MemoryLine, Written, forgotten};
use crate::args::Global;
use crate::error::{CliError, Exit};
use crate::line::Line;
use crate::output::Output;
use crate::profile::home;
use crate::shared::Shared;
use crate::shared::call::{
    Answer, Call, CallId, Fault, Filter, Found, MAX_FOUND, Query, Recall, Whose,
};
use crate::shared::local::ProfileDoor;
use crate::{input, key, note};

pub(super) fn run(
    global: &Global,
    args: &MemoryArgs,
    output: &mut Output,
) -> Result<Exit, CliError> {
    let door = ProfileDoor::new(global, key::existing(global)?, false);
    let shared = Shared::new(door, &home(global)?, note);
    let asker = Asker {
        recall: &shared,
        whose: args.whose.to_whose(),
    };
    let done = match &args.command {
        MemoryCommand::Add(args) => asker.add(args, output),
        MemoryCommand::Get(args) => asker.get(args, output),
        MemoryCommand::List(args) => asker.list(args, output),
        MemoryCommand::Search(args) => asker.search(args, output),
        MemoryCommand::Delete(args) => asker.delete(args, output),
        MemoryCommand::Import(args) => file::import(&asker, args, output),
        MemoryCommand::Export(args) => file::export(&asker, args, output),
    };
    let closed = shared.close();
    let exit = done?;
    closed?;
    Ok(exit)
}

/// Asks for somebody's memories.
struct Asker<'a> {
    recall: &'a dyn Recall,
    whose: Whose,
}

impl Asker<'_> {
    fn call(&self, call: &Call) -> Result<Answer, CliError> {
        Ok(self.recall.call(CallId::draw(), call)?)
    }

    fn add(&self, args: &AddArgs, output: &mut Output) -> Result<Exit, CliError> {
        let content = match args.text.as_deref() {
            None | Some("-") => {
                if std::io::stdin().is_terminal() {
                    output.note("write the memory, and end it with Ctrl-D on a line of its own");
                }
                let bytes = input::read(Path::new("-"))?;
                let text = std::str::from_utf8(&bytes)
                    .map_err(|_| CliError::Usage("this is no text in UTF-8".to_owned()))?;
                Zeroizing::new(text.strip_suffix('\n').unwrap_or(text).to_owned())
            }
            Some(text) => Zeroizing::new(text.to_owned()),
        };
        if content.trim().is_empty() {
            return Err(CliError::Usage("there is nothing to remember".to_owned()));
        }
        let mut memory = Memory::new(content.as_str())
            .title(args.title.as_deref().unwrap_or_default())
            .tags(&args.tag);
        memory.created_at = args.at.unwrap_or(0);
        memory.metadata = match &args.metadata {
            Some(json) => Some(
                Json::parse(json)
                    .map_err(|error| CliError::Usage(format!("--metadata: {error}")))?,
            ),
            None => None,
        };
        let answer = self.call(&Call::Store {
            whose: self.whose.clone(),
            memory: Box::new(memory),
            redact: args.redact,
        })?;
        let Answer::Written {
            id,
            revision,
            redacted,
        } = answer
        else {
            return Err(unexpected());
        };
        output.line(&Line::MemoryWritten(Written {
            id,
            revision,
            redacted: redacted.into_iter().collect(),
        }))?;
        Ok(Exit::Ok)
    }

    fn get(&self, args: &GetArgs, output: &mut Output) -> Result<Exit, CliError> {
        let answer = self.call(&Call::Get {
            whose: self.whose.clone(),
            id: args.id.clone(),
        })?;
        let Answer::Memory(found) = answer else {
            return Err(unexpected());
        };
        if args.raw {
            output.raw(found.memory.content.as_bytes())?;
        } else {
            output.line(&Line::Memory(MemoryLine::whole(&found)))?;
        }
        Ok(Exit::Ok)
    }

    fn list(&self, args: &ListArgs, output: &mut Output) -> Result<Exit, CliError> {
        let mut left = args.limit.unwrap_or(usize::MAX);
        self.each(args.filter.to_filter(), &mut |found| {
            if left == 0 {
                return Ok(false);
            }
            left -= 1;
            output.line(&Line::Memory(MemoryLine::short(found)))?;
            Ok(left > 0)
        })?;
        Ok(Exit::Ok)
    }

    fn search(&self, args: &SearchArgs, output: &mut Output) -> Result<Exit, CliError> {
        let answer = self.call(&Call::Search {
            whose: self.whose.clone(),
            query: Query::Text(args.query.clone()),
            limit: args.limit.unwrap_or(10),
            threshold: args.threshold.unwrap_or(LexicalEmbedder::THRESHOLD),
            filter: args.filter.to_filter(),
        })?;
        let Answer::Memories { found, .. } = answer else {
            return Err(unexpected());
        };
        for found in &found {
            output.line(&Line::Memory(MemoryLine::short(found)))?;
        }
        if found.is_empty() {
            output.note("nothing is similar enough: try other words, or a lower --threshold");
        }
        Ok(Exit::Ok)
    }

    fn delete(&self, args: &DeleteArgs, output: &mut Output) -> Result<Exit, CliError> {
        for id in &args.ids {
            let answer = self.call(&Call::Forget {
                whose: self.whose.clone(),
                id: id.clone(),
                erase: args.erase,
            })?;
            let Answer::Forgotten { id, state } = answer else {
                return Err(unexpected());
            };
            output.line(&Line::MemoryForgotten {
                id,
                state: forgotten(state),
            })?;
        }
        Ok(Exit::Ok)
    }

    /// All memories, the newest first, page by page, until `visit` says that it is enough.
    fn each(
        &self,
        filter: Filter,
        visit: &mut dyn FnMut(&Found) -> Result<bool, CliError>,
    ) -> Result<(), CliError> {
        let mut after = None;
        loop {
            let answer = self.call(&Call::List {
                whose: self.whose.clone(),
                filter: filter.clone(),
                limit: MAX_FOUND,
                after,
            })?;
            let Answer::Memories { found, more } = answer else {
                return Err(unexpected());
            };
            for found in &found {
                if !visit(found)? {
                    return Ok(());
                }
            }
            after = more;
            if after.is_none() {
                return Ok(());
            }
        }
    }
}

/// An answer to another question.
fn unexpected() -> CliError {
    Fault::new(
        "unsupported_version",
        Exit::Failed,
        "the process that has the profile open is another version of sprag",
    )
    .advise("end all programs that use this profile, and start them again")
    .into()
}
