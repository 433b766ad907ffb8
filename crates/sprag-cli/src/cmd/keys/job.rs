//! `sprag keys job`: what is in a folder, put under the current version of its key.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressFinish, ProgressStyle};
use sprag_keys::{
    Failure, JournalFile, KeyId, KeySource, Progress, RecordError, RingFile, RotationJob,
};

use super::args::{HowArgs, JobCommand, RingArgs, StatusArgs};
use super::file::Files;
use super::folder::{self, Folder, JOURNAL};
use super::line::{FailureLine, JobLine};
use super::{KeysError, places, ring};
use crate::error::{CliError, Exit};
use crate::line::Line;
use crate::output::Output;
use crate::sys;

/// Files of a step: what is noted at its end.
const PAGE: usize = 32;

pub(super) fn run(command: &JobCommand, output: &mut Output) -> Result<Exit, CliError> {
    match command {
        JobCommand::Start(args) => {
            let folder = existing(&args.folder)?;
            let _alone = alone(&folder)?;
            let ring = ring::open(&args.ring)?;
            go(&folder, &args.key, &args.how, &args.ring, &ring, output)
        }
        JobCommand::Resume(args) => {
            let folder = existing(&args.folder)?;
            let _alone = alone(&folder)?;
            let key = kept(&folder)?.id().clone();
            let ring = ring::open(&args.ring)?;
            go(&folder, &key, &args.how, &args.ring, &ring, output)
        }
        JobCommand::Status(args) => status(args, output),
    }
}

/// A job in each of these folders. One that does not end well costs no other; the first error is told in the end.
pub(super) fn run_all(
    folders: &[PathBuf],
    id: &KeyId,
    how: &HowArgs,
    args: &RingArgs,
    ring: &RingFile,
    output: &mut Output,
) -> Result<Exit, CliError> {
    let mut first = None;
    for folder in folders {
        let done = existing(folder).and_then(|folder| {
            let _alone = alone(&folder)?;
            go(&folder, id, how, args, ring, output)
        });
        if let Err(error) = done {
            output.note(&format!("{}: {error}", folder.display()));
            first.get_or_insert(error);
        }
    }
    first.map_or(Ok(Exit::Ok), Err)
}

fn status(args: &StatusArgs, output: &mut Output) -> Result<Exit, CliError> {
    let folder = existing(&args.folder)?;
    let job = kept(&folder)?;
    let line = JobLine::of(&folder, job.id(), job.target(), job.counted(None));
    output.line(&Line::KeyJob(line))?;
    Ok(Exit::Ok)
}

/// A folder, by the one name that it has.
fn existing(folder: &Path) -> Result<PathBuf, CliError> {
    let failed = |cause| CliError::file(folder, cause);
    let real = fs::canonicalize(folder).map_err(failed)?;
    if real.is_dir() {
        Ok(real)
    } else {
        Err(failed(io::ErrorKind::NotADirectory.into()))
    }
}

/// The job that is in the journal of a folder.
fn kept(folder: &Path) -> Result<RotationJob<JournalFile>, CliError> {
    let kept = RotationJob::kept(JournalFile::new(folder.join(JOURNAL)));
    let kept = kept.map_err(KeysError::Job)?;
    kept.ok_or_else(|| KeysError::NoJob(folder.to_path_buf()).into())
}

/// One job at a time in a folder: two would each undo what the other noted.
fn alone(folder: &Path) -> Result<File, CliError> {
    let path = folder.join(format!("{JOURNAL}.lock"));
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let file = options.open(&path);
    let file = file.map_err(|cause| CliError::file(&path, cause))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(KeysError::JobRunning(folder.to_path_buf()).into()),
        Err(TryLockError::Error(cause)) => Err(CliError::file(&path, cause)),
    }
}

fn go(
    folder: &Path,
    id: &KeyId,
    how: &HowArgs,
    args: &RingArgs,
    ring: &RingFile,
    output: &mut Output,
) -> Result<Exit, CliError> {
    let current = ring.current(id);
    let current = current.map_err(|error| KeysError::source(id, error))?;
    let files = Files::new(ring, id, &how.context, how.raw12)?;
    places::add(&args.ring, folder)?;
    folder::clean(folder);
    let not_data = not_data(args);
    let others = folder::walk(folder, &not_data)?.others;
    if others > 0 {
        output.note(&format!(
            "{others} links or devices are there; they are left alone"
        ));
    }
    let records = Folder::new(folder, not_data, files);
    let journal = JournalFile::new(folder.join(JOURNAL));
    let job = RotationJob::begin(journal, id, current.version()).map_err(KeysError::Job)?;
    let mut job = job.with_page(PAGE);
    // What came since a job ended is seen by looking again.
    job.look_again().map_err(KeysError::Job)?;
    let bar = bar(output);
    let mut again = false;
    let end = loop {
        let step = job.step_by(&records, ring, sys::rng);
        let progress = step.map_err(KeysError::Job)?;
        match progress {
            Progress::Running(report) => {
                if let Some(bar) = &bar {
                    bar.set_length(report.total.unwrap_or(report.seen));
                    bar.set_position(report.seen);
                    bar.set_message(format!("pass {}", report.pass));
                }
            }
            // Some failed before an earlier process ended, which alone knew their names.
            Progress::Blocked(report) if !again && are_unnamed(job.failures(), report.failed) => {
                again = true;
            }
            end => break end,
        }
    };
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
    for failure in job.failures() {
        output.line(&Line::KeyFailure(failure_line(failure)))?;
    }
    let line = JobLine::of(folder, id, current.version(), end);
    output.line(&Line::KeyJob(line))?;
    match end {
        Progress::Blocked(report) => Err(KeysError::Blocked(report.failed).into()),
        _ => Ok(Exit::Ok),
    }
}

fn are_unnamed(failures: &[Failure], failed: u64) -> bool {
    let most = RotationJob::<JournalFile>::MAX_FAILURES;
    u64::try_from(failures.len()).is_ok_and(|named| named < failed) && failures.len() < most
}

/// The ring and what is beside it: no data, if it is in the folder.
pub(super) fn not_data(args: &RingArgs) -> Vec<PathBuf> {
    let beside = ["", ".lock", ".tmp", ".places", ".places.lock"];
    let mut not_data: Vec<_> = beside
        .iter()
        .map(|what| places::beside(&args.ring, what))
        .collect();
    let key = args.opens.ring_key_file.as_deref();
    not_data.extend(key.and_then(|file| fs::canonicalize(file).ok()));
    not_data
}

fn failure_line(failure: &Failure) -> FailureLine {
    let cause = match &failure.cause {
        RecordError::Records(cause) | RecordError::Sealer(cause) => {
            cause.downcast_ref::<CliError>()
        }
        _ => None,
    };
    let (code, message) = match cause {
        Some(error) => (error.code().to_owned(), error.to_string()),
        None => ("job_failed".to_owned(), failure.cause.to_string()),
    };
    FailureLine {
        file: String::from_utf8_lossy(&failure.name).into_owned(),
        code,
        message,
    }
}

/// How far it is, on a terminal. Nothing of it stays there.
fn bar(output: &Output) -> Option<ProgressBar> {
    if output.is_json() || !io::stderr().is_terminal() {
        return None;
    }
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
    let form = "{msg} {wide_bar} {pos} of {len} files, {eta} left";
    if let Ok(style) = ProgressStyle::with_template(form) {
        bar.set_style(style);
    }
    Some(bar.with_finish(ProgressFinish::AndClear))
}
