//! What is read: a file or standard input, of any length, with its progress.

use std::fs::{File, Permissions};
use std::io::{self, IsTerminal, Read};
use std::path::{Path, PathBuf};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressFinish, ProgressStyle};

use crate::error::CliError;
use crate::output::Output;

/// A file or standard input.
pub(crate) struct Source {
    pub(crate) name: PathBuf,
    from: Box<dyn Read>,
    /// Bytes, if they are known.
    pub(crate) length: Option<u64>,
    /// Of a file.
    pub(crate) permissions: Option<Permissions>,
    read: u64,
    bar: Option<ProgressBar>,
}

impl Source {
    pub(crate) fn open(file: Option<&Path>) -> Result<Self, CliError> {
        let name = file.unwrap_or(Path::new("-")).to_path_buf();
        let mut source = Self {
            from: Box::new(io::stdin()),
            length: None,
            permissions: None,
            read: 0,
            bar: None,
            name,
        };
        if source.name != Path::new("-") {
            let opened = File::open(&source.name).and_then(|file| Ok((file.metadata()?, file)));
            let (metadata, file) = opened.map_err(|cause| CliError::file(&source.name, cause))?;
            if metadata.is_file() {
                source.length = Some(metadata.len());
                source.permissions = Some(metadata.permissions());
            }
            source.from = Box::new(file);
        }
        Ok(source)
    }

    /// Shows on a terminal how far it is, from now on. Nothing of it stays there.
    pub(crate) fn show_progress(&mut self, output: &Output) {
        if output.is_json() || !io::stderr().is_terminal() {
            return;
        }
        let bar = ProgressBar::with_draw_target(self.length, ProgressDrawTarget::stderr());
        let form = match self.length {
            Some(_) => "{wide_bar} {bytes} of {total_bytes}, {bytes_per_sec}, {eta} left",
            None => "{spinner} {bytes}, {bytes_per_sec}",
        };
        if let Ok(style) = ProgressStyle::with_template(form) {
            bar.set_style(style);
        }
        bar.set_position(self.read);
        self.bar = Some(bar.with_finish(ProgressFinish::AndClear));
    }
}

impl Read for Source {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let count = self.from.read(to)?;
        self.read = self.read.saturating_add(u64::try_from(count).unwrap_or(0));
        if let Some(bar) = &self.bar {
            bar.set_position(self.read);
        }
        Ok(count)
    }
}
