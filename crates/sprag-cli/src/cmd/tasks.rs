//! `sprag tasks`: the network by hand, with files.

use std::ffi::OsString;
use std::fs;
use std::path::Path;

use clap::ValueEnum;
use sprag::{Failure, Task, TaskId};

use crate::args::{Reason, TasksArgs};
use crate::error::{CliError, Exit};
use crate::input;
use crate::line::{Line, task_bytes, task_kind};
use crate::output::Output;
use crate::profile::Profile;

/// What is to be tried again is offered again after this long: a minute.
const AGAIN_MS: u64 = 60_000;

pub(super) fn run(
    profile: &Profile,
    args: &TasksArgs,
    output: &mut Output,
) -> Result<Exit, CliError> {
    let client = &profile.client;
    for (id, file) in pairs(&args.supply) {
        let id = task_id(id.to_str())?;
        client.supply(id, &input::read(Path::new(file))?)?;
        output.line(&ended(id, "supplied"))?;
    }
    for id in args.done.iter().copied().map(TaskId::new) {
        client.done(id)?;
        output.line(&ended(id, "done"))?;
    }
    for (id, reason) in pairs(&args.failed) {
        let id = task_id(Some(id))?;
        client.failed(id, &failure(reason)?)?;
        output.line(&ended(id, "failed"))?;
    }
    for (id, file) in pairs(&args.conflict) {
        let id = task_id(id.to_str())?;
        let newer = Failure::Conflict(input::read(Path::new(file))?.to_vec());
        client.failed(id, &newer)?;
        output.line(&ended(id, "failed"))?;
    }
    for id in args.retry.iter().copied().map(TaskId::new) {
        client.retry(id)?;
        output.line(&ended(id, "retried"))?;
    }
    let told = args.supply.len() + args.done.len() + args.failed.len() + args.retry.len();
    if told + args.conflict.len() == 0 || args.out.is_some() {
        for task in client.tasks()? {
            let file = match &args.out {
                Some(folder) => Some(write(folder, &task)?),
                None => None,
            };
            output.line(&Line::task(&task, file))?;
        }
    }
    Ok(Exit::Ok)
}

fn ended(id: TaskId, how: &'static str) -> Line {
    Line::TaskEnded { id: id.get(), how }
}

/// An option of two values, given any number of times.
fn pairs<T>(values: &[T]) -> impl Iterator<Item = (&T, &T)> {
    values.chunks_exact(2).filter_map(|pair| match pair {
        [first, second] => Some((first, second)),
        _ => None,
    })
}

fn task_id(text: Option<&str>) -> Result<TaskId, CliError> {
    text.and_then(|text| text.parse().ok())
        .map(TaskId::new)
        .ok_or_else(|| CliError::Usage("a task's id is a number".to_owned()))
}

fn failure(reason: &str) -> Result<Failure, CliError> {
    let reason = Reason::from_str(reason, false).map_err(|_| {
        CliError::Usage(
            "a reason is no-such-user, no-such-device, no-such-blob, not-yet, full or refused"
                .to_owned(),
        )
    })?;
    Ok(match reason {
        Reason::NoSuchUser => Failure::NoSuchUser,
        Reason::NoSuchDevice => Failure::NoSuchDevice(None),
        Reason::NoSuchBlob => Failure::NoSuchBlob,
        Reason::NotYet => Failure::NotYet(AGAIN_MS),
        Reason::Full => Failure::Full(AGAIN_MS),
        Reason::Refused => Failure::Refused(0),
    })
}

/// Writes a task's bytes. Whoever watches the folder never sees half a file.
fn write(folder: &Path, task: &Task) -> Result<String, CliError> {
    let name = format!("{}.{}", task.id(), task_kind(task));
    let path = folder.join(&name);
    let mut part = OsString::from(".");
    part.push(&name);
    part.push(".part");
    let part = folder.join(part);
    fs::create_dir_all(folder)
        .and_then(|()| fs::write(&part, task_bytes(task)))
        .and_then(|()| fs::rename(&part, &path))
        .map_err(|cause| CliError::file(&path, cause))?;
    Ok(path.display().to_string())
}
