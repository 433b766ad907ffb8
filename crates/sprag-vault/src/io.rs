//! Blobs through `std::io`: readers and writers that are handed in. Nothing here opens a file.

use std::fmt;
use std::io::{self, Read, Write};

use rand_core::CryptoRng;
use zeroize::Zeroizing;

use crate::open::Opener;
use crate::seal::{Sealer, Sealing};
use crate::unlock::Unlock;
use crate::{Context, OpenError, SealError};

/// Bytes that are asked of a source at a time.
const STEP: usize = 64 * 1024;

/// Writes a blob to a writer. Without [`finish`](Self::finish) it has no end, and readers say so.
pub struct SealWriter<W: Write> {
    sealer: Sealer,
    to: W,
}

impl<W: Write> fmt::Debug for SealWriter<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SealWriter").finish_non_exhaustive()
    }
}

impl<W: Write> SealWriter<W> {
    /// Makes the header; it is written with the first payload. Draws as [`Sealer::new`] does.
    ///
    /// # Errors
    /// [`SealError`]
    pub fn new(
        to: W,
        sealing: &Sealing<'_>,
        rng: &mut (impl CryptoRng + ?Sized),
    ) -> Result<Self, SealError> {
        let sealer = Sealer::new(sealing, rng)?;
        Ok(Self { sealer, to })
    }

    /// Writes the last chunk and gives the writer back. Flushing and syncing it is the caller's.
    ///
    /// # Errors
    /// Those of the writer.
    pub fn finish(mut self) -> io::Result<W> {
        let last = self.sealer.finish().map_err(io::Error::other)?;
        self.to.write_all(&last)?;
        Ok(self.to)
    }
}

impl<W: Write> Write for SealWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_all(bytes).map(|()| bytes.len())
    }

    /// After an error the blob is lost, as with any writer.
    fn write_all(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while let Some(piece) = self.sealer.push(&mut bytes).map_err(io::Error::other)? {
            self.to.write_all(piece)?;
        }
        Ok(())
    }

    /// What fills no chunk yet stays here.
    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

/// Reads the payload of a blob from a reader. What it gives is authentic; that it was everything is known only when it says
/// that it is at its end. An [`OpenError`] comes as the source of an error of the kind `InvalidData`
/// ([`OpenReader::error`] finds it).
pub struct OpenReader<'a, R: Read> {
    /// `None` when the blob has ended well or badly.
    opener: Option<Opener<'a>>,
    from: R,
    input: Vec<u8>,
    /// Of `input`, what the opener has taken.
    taken: usize,
    text: Zeroizing<Vec<u8>>,
    /// Of `text`, what was given out.
    given: usize,
    failed: Option<OpenError>,
}

impl<R: Read> fmt::Debug for OpenReader<'_, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenReader").finish_non_exhaustive()
    }
}

impl<'a, R: Read> OpenReader<'a, R> {
    /// Reads nothing yet.
    #[must_use]
    pub fn new(from: R, unlock: &'a Unlock<'a>, context: &'a Context) -> Self {
        Self {
            opener: Some(Opener::new(unlock, context)),
            from,
            input: Vec::new(),
            taken: 0,
            text: Zeroizing::default(),
            given: 0,
            failed: None,
        }
    }

    /// The error of the blob behind an error of reading, if it was one.
    #[must_use]
    pub fn error(error: &io::Error) -> Option<OpenError> {
        error.get_ref()?.downcast_ref().copied()
    }

    /// Gets the text of the next chunk. None is left at the end.
    fn advance(&mut self) -> io::Result<()> {
        self.given = 0;
        self.text.clear();
        while let Some(opener) = &mut self.opener {
            let mut input = self.input.get(self.taken..).unwrap_or_default();
            let before = input.len();
            let pushed = opener.push(&mut input);
            self.taken = self
                .taken
                .saturating_add(before.saturating_sub(input.len()));
            match pushed {
                Ok(Some(text)) => {
                    if self.text.capacity() < text.len() {
                        self.text = Zeroizing::new(Vec::with_capacity(text.len()));
                    }
                    self.text.extend_from_slice(text);
                    return Ok(());
                }
                Ok(None) => self.refill()?,
                Err(error) => return self.fail(error),
            }
        }
        Ok(())
    }

    fn refill(&mut self) -> io::Result<()> {
        self.taken = 0;
        self.input.resize(STEP, 0);
        let read = loop {
            match self.from.read(&mut self.input) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => break read,
            }
        };
        self.input.truncate(*read.as_ref().unwrap_or(&0));
        if read? > 0 {
            return Ok(());
        }
        match self.opener.take().map(Opener::finish) {
            Some(Ok(last)) => self.text = last,
            Some(Err(error)) => return self.fail(error),
            None => {}
        }
        Ok(())
    }

    fn fail(&mut self, error: OpenError) -> io::Result<()> {
        self.opener = None;
        self.failed = Some(error);
        Err(io::Error::new(io::ErrorKind::InvalidData, error))
    }
}

impl<R: Read> Read for OpenReader<'_, R> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        if to.is_empty() {
            return Ok(0);
        }
        if let Some(error) = self.failed {
            return Err(io::Error::new(io::ErrorKind::InvalidData, error));
        }
        if self.given >= self.text.len() {
            self.advance()?;
        }
        let mut rest = self.text.get(self.given..).unwrap_or_default();
        let count = rest.read(to)?;
        self.given = self.given.saturating_add(count);
        Ok(count)
    }
}
