//! Results of `sprag keys`.

use serde::Serialize;
use sprag_keys::{KeyState, Progress, VersionInfo};

use crate::output::printable;

/// A ring that was made.
#[derive(Debug, Serialize)]
pub(crate) struct RingLine {
    pub(crate) file: String,
}

/// A version of a key.
#[derive(Debug, Serialize)]
pub(crate) struct VersionLine {
    pub(crate) key: String,
    pub(crate) version: u32,
    pub(crate) state: &'static str,
    pub(crate) created_at: u64,
    pub(crate) retired_at: Option<u64>,
    pub(crate) destroyed_at: Option<u64>,
}

/// How far a job is.
#[derive(Debug, Serialize)]
pub(crate) struct JobLine {
    pub(crate) folder: String,
    pub(crate) key: String,
    /// What the files are put under.
    pub(crate) version: u32,
    pub(crate) state: &'static str,
    pub(crate) pass: u32,
    /// Files that this pass has looked at.
    pub(crate) seen: u64,
    /// `null` if nobody counted.
    pub(crate) total: Option<u64>,
    /// Files that were put under this version.
    pub(crate) resealed: u64,
    /// Files that this pass could not do.
    pub(crate) failed: u64,
}

/// A file that a job could not do.
#[derive(Debug, Serialize)]
pub(crate) struct FailureLine {
    pub(crate) file: String,
    pub(crate) code: String,
    pub(crate) message: String,
}

impl RingLine {
    pub(crate) fn text(&self) -> String {
        format!("a ring without keys is in {}\n", printable(&self.file))
    }
}

impl VersionLine {
    pub(crate) fn of(key: &sprag_keys::KeyId, info: &VersionInfo) -> Self {
        Self {
            key: key.to_string(),
            version: info.version.get(),
            state: match info.state {
                KeyState::Current => "current",
                KeyState::Retired => "retired",
                KeyState::Destroyed => "destroyed",
                _ => "unknown",
            },
            created_at: info.created_ms,
            retired_at: info.retired_ms,
            destroyed_at: info.destroyed_ms,
        }
    }

    pub(crate) fn text(&self) -> String {
        format!("{}  {}  {}\n", self.key, self.version, self.state)
    }
}

impl JobLine {
    pub(crate) fn of(
        folder: &std::path::Path,
        key: &sprag_keys::KeyId,
        version: sprag_keys::KeyVersion,
        progress: Progress,
    ) -> Self {
        let report = progress.report();
        let state = match progress {
            Progress::Finished(_) => "finished",
            Progress::Blocked(_) => "blocked",
            _ => "running",
        };
        Self {
            folder: folder.display().to_string(),
            key: key.to_string(),
            version: version.get(),
            state,
            pass: report.pass,
            seen: report.seen,
            total: report.total,
            resealed: report.resealed,
            failed: report.failed,
        }
    }

    pub(crate) fn text(&self) -> String {
        let state = match self.state {
            "finished" => "finished: nothing is under an older version",
            "blocked" => "NOT finished: see what failed",
            _ => "not finished: `sprag keys job resume` goes on",
        };
        format!(
            "{} under {} {}, {} could not be done, {} looked at in pass {}\n{state}\n",
            self.resealed,
            printable(&self.key),
            self.version,
            self.failed,
            self.seen,
            self.pass,
        )
    }
}

impl FailureLine {
    pub(crate) fn text(&self) -> String {
        let (file, message) = (printable(&self.file), printable(&self.message));
        format!("failed: {file}: {message} ({})\n", self.code)
    }
}
