//! What is written: a file that appears whole or not at all, or standard output, piece by piece.

use std::fs;
use std::io::{self, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};

use sprag_vault::OpenError;
use zeroize::Zeroizing;

use super::VaultError;
use super::args::Out;
use super::aside::Aside;
use super::line::FileLine;
use super::source::Source;
use crate::error::CliError;
use crate::line::Line;
use crate::output::Output;

/// Bytes that pass at a time.
const STEP: usize = 64 * 1024;

/// Where the output will go, looked at before anybody is asked for a passphrase.
pub(super) struct Plan {
    file: Option<PathBuf>,
    replaces: bool,
    permissions: Option<fs::Permissions>,
}

impl Plan {
    /// For sealed bytes, which are not thrown at a terminal unless that is said with `-o -`.
    pub(super) fn sealed(out: &Out, source: &Source) -> Result<Self, CliError> {
        if out.out.is_none() && io::stdout().is_terminal() {
            return Err(CliError::Usage(
                "this is nothing to read: give -o".to_owned(),
            ));
        }
        Self::opened(out, source)
    }

    pub(super) fn opened(out: &Out, source: &Source) -> Result<Self, CliError> {
        let file = out.out.clone().filter(|file| file != Path::new("-"));
        let mut plan = Self {
            replaces: out.force,
            permissions: kept(source.permissions.as_ref(), None),
            file,
        };
        let Some(path) = &plan.file else {
            return Ok(plan);
        };
        match fs::symlink_metadata(path) {
            Ok(_) if !out.force => Err(VaultError::Exists(path.clone()).into()),
            Ok(there) if there.is_file() => {
                let there = there.permissions();
                plan.permissions = kept(source.permissions.as_ref(), Some(&there));
                Ok(plan)
            }
            // A link, a device, a folder.
            Ok(_) => Err(CliError::Usage(format!(
                "{} is no regular file, and is not replaced",
                path.display()
            ))),
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(plan),
            Err(cause) => Err(CliError::file(path, cause)),
        }
    }

    pub(super) fn begin(self, output: &mut Output) -> Result<Target<'_>, CliError> {
        let to = match self.file {
            None => To::Pipe(output),
            Some(file) => {
                let aside = Aside::create(&file, self.replaces, self.permissions)
                    .map_err(|cause| CliError::file(&file, cause))?;
                To::File {
                    aside: Box::new(aside),
                    file,
                    output,
                }
            }
        };
        Ok(Target { to, written: 0 })
    }
}

/// The mode of what was read, but nothing beyond what reads, writes and runs, and no wider than what is replaced. Without one the
/// file stays for its owner alone.
#[cfg(unix)]
fn kept(
    source: Option<&fs::Permissions>,
    there: Option<&fs::Permissions>,
) -> Option<fs::Permissions> {
    use std::os::unix::fs::PermissionsExt;
    let mode = source.map_or(0o600, PermissionsExt::mode) & 0o777;
    let most = there.map_or(0o777, PermissionsExt::mode);
    Some(fs::Permissions::from_mode(mode & most))
}

#[cfg(not(unix))]
fn kept(_: Option<&fs::Permissions>, _: Option<&fs::Permissions>) -> Option<fs::Permissions> {
    None
}

/// Where the output goes.
pub(super) struct Target<'a> {
    to: To<'a>,
    written: u64,
}

enum To<'a> {
    Pipe(&'a mut Output),
    File {
        aside: Box<Aside>,
        file: PathBuf,
        output: &'a mut Output,
    },
}

impl Target<'_> {
    /// Of an error of writing, what to tell.
    fn failed(&self, error: io::Error) -> CliError {
        match &self.to {
            To::Pipe(_) => CliError::output(error),
            To::File { file, .. } => CliError::file(file, error),
        }
    }

    /// Gives a file its name, if all went well, and tells so. Of a pipe, says whether it was everything.
    pub(super) fn end(
        self,
        done: Result<(), CliError>,
        warnings: Vec<String>,
    ) -> Result<(), CliError> {
        match (self.to, done) {
            (To::Pipe(output), Ok(())) => output.flush(),
            (To::Pipe(_), Err(error)) if self.written > 0 => Err(error.incomplete()),
            (_, Err(error)) => Err(error),
            (
                To::File {
                    aside,
                    file,
                    output,
                },
                Ok(()),
            ) => {
                aside.commit()?;
                output.line(&Line::VaultFile(FileLine {
                    file: file.display().to_string(),
                    bytes: self.written,
                    warnings,
                }))
            }
        }
    }
}

impl Write for Target<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = match &mut self.to {
            To::Pipe(output) => {
                let out = output.out();
                let count = out.write(bytes)?;
                out.flush()?;
                count
            }
            To::File { aside, .. } => aside.file.write(bytes)?,
        };
        self.written = self
            .written
            .saturating_add(u64::try_from(count).unwrap_or(0));
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Passes on all that there is: `through` takes what was read from `name`. Its memory is what a step takes.
pub(super) fn copy(
    from: &mut impl Read,
    name: &Path,
    mut through: impl FnMut(&[u8]) -> Result<(), CliError>,
) -> Result<(), CliError> {
    let mut buffer = Zeroizing::new(vec![0; STEP]);
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => through(buffer.get(..count).unwrap_or_default())?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => {
                return Err(match inner::<OpenError>(&error) {
                    Some(error) => error.into(),
                    None => CliError::file(name, error),
                });
            }
        }
    }
}

/// Writes, and tells errors as they are.
pub(super) fn put(to: &mut Target<'_>, bytes: &[u8]) -> Result<(), CliError> {
    to.write_all(bytes).map_err(|error| to.failed(error))
}

fn inner<E: std::error::Error + Copy + 'static>(error: &io::Error) -> Option<E> {
    error.get_ref()?.downcast_ref().copied()
}
