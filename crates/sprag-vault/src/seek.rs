//! Reading parts of a blob.

use std::fmt;
use std::io::{self, Read, Seek, SeekFrom};

use zeroize::{Zeroize, Zeroizing};

use crate::body::{Body, Follows, MAX_CHUNKS};
use crate::header::{Header, MAX_HEADER, PREFIX, TAG};
use crate::unlock::Unlock;
use crate::{Context, FormatError, OpenError};

/// Something with a length that can be read at any place: a file, a range of an object at a server, a slice.
pub trait ReadAt {
    /// Bytes in it.
    ///
    /// # Errors
    /// Those of the source.
    fn len(&self) -> io::Result<u64>;

    /// Reads from `offset` on as many bytes as are there and fit, possibly fewer; 0 only at the end.
    ///
    /// # Errors
    /// Those of the source.
    fn read_at(&self, offset: u64, to: &mut [u8]) -> io::Result<usize>;

    /// Whether there is nothing in it.
    ///
    /// # Errors
    /// Those of the source.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
}

impl ReadAt for [u8] {
    fn len(&self) -> io::Result<u64> {
        u64::try_from(<[u8]>::len(self)).map_err(io::Error::other)
    }

    fn read_at(&self, offset: u64, to: &mut [u8]) -> io::Result<usize> {
        let offset = usize::try_from(offset).unwrap_or(usize::MAX);
        self.get(offset..).unwrap_or_default().read(to)
    }
}

impl<T: ReadAt + ?Sized> ReadAt for &T {
    fn len(&self) -> io::Result<u64> {
        (**self).len()
    }

    fn read_at(&self, offset: u64, to: &mut [u8]) -> io::Result<usize> {
        (**self).read_at(offset, to)
    }
}

impl ReadAt for Vec<u8> {
    fn len(&self) -> io::Result<u64> {
        ReadAt::len(self.as_slice())
    }

    fn read_at(&self, offset: u64, to: &mut [u8]) -> io::Result<usize> {
        self.as_slice().read_at(offset, to)
    }
}

/// Reads parts of a payload, in the memory of one chunk. A part is authentic and in its place. Whether the blob has its
/// end is checked, once, before anything that depends on where that is: a length, a seek relative to it, and the answer that there
/// is no more.
pub struct SeekReader<R> {
    from: R,
    body: Body,
    header: u64,
    /// Bytes after the header.
    sealed: u64,
    /// Chunks that these are.
    chunks: u64,
    /// Length of the payload, when the last chunk was opened.
    length: Option<u64>,
    /// The chunk whose text is in `text`.
    held: Option<u64>,
    text: Zeroizing<Vec<u8>>,
    /// Of `Read` and `Seek`.
    position: u64,
}

impl<R> fmt::Debug for SeekReader<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SeekReader").finish_non_exhaustive()
    }
}

/// A part that could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SeekError {
    /// The blob.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The source.
    #[error("the source of the blob could not be read")]
    Io(#[from] io::Error),
}

impl From<FormatError> for SeekError {
    fn from(error: FormatError) -> Self {
        Self::Open(error.into())
    }
}

impl<R: ReadAt> SeekReader<R> {
    /// Reads and checks the header.
    ///
    /// # Errors
    /// [`SeekError`]
    pub fn open(from: R, unlock: &Unlock<'_>, context: &Context) -> Result<Self, SeekError> {
        let total = from.len()?;
        let mut bytes = Vec::new();
        fill(&from, 0, PREFIX, &mut bytes)?;
        let length = Header::length_in(&bytes)?.ok_or(FormatError::Short)?;
        fill(&from, 0, length.min(MAX_HEADER), &mut bytes)?;
        let header = Header::parse(&bytes)?;
        let body = header.unlock_body(unlock, context)?;
        let header = u64::try_from(header.len()).map_err(|_| FormatError::Short)?;
        let sealed = total.saturating_sub(header);
        Ok(Self {
            from,
            header,
            sealed,
            chunks: sealed.div_ceil(to_u64(body.sealed_chunk())).max(1),
            body,
            length: None,
            held: None,
            text: Zeroizing::default(),
            position: 0,
        })
    }

    /// Bytes of the payload. Opens the last chunk, the first time.
    ///
    /// # Errors
    /// [`SeekError`]
    pub fn payload_len(&mut self) -> Result<u64, SeekError> {
        if let Some(length) = self.length {
            return Ok(length);
        }
        let last = self.chunks.saturating_sub(1);
        let before = last.saturating_mul(to_u64(self.body.chunk()));
        self.hold(last)?;
        let length = before.saturating_add(to_u64(self.text.len()));
        self.length = Some(length);
        Ok(length)
    }

    /// Reads from this place of the payload on, at most to the end of a chunk; 0 only behind the end, or into nothing.
    ///
    /// # Errors
    /// [`SeekError`]
    pub fn read_at(&mut self, position: u64, to: &mut [u8]) -> Result<usize, SeekError> {
        if to.is_empty() {
            return Ok(0);
        }
        let chunk = to_u64(self.body.chunk());
        let index = position / chunk;
        // Where the end is, an authentic chunk must say: not the length of the source.
        if index >= self.chunks.saturating_sub(1) && position >= self.payload_len()? {
            return Ok(0);
        }
        self.hold(index)?;
        let within = usize::try_from(position % chunk).unwrap_or(usize::MAX);
        let mut text = self.text.get(within..).unwrap_or_default();
        Ok(text.read(to)?)
    }

    /// Opens a chunk, unless it is open.
    fn hold(&mut self, index: u64) -> Result<(), SeekError> {
        if self.held == Some(index) {
            return Ok(());
        }
        self.held = None;
        // What it holds is plaintext, and it may have to grow.
        self.text.zeroize();
        if index >= self.chunks || self.chunks > MAX_CHUNKS {
            return Err(OpenError::Damaged.into());
        }
        let sealed = to_u64(self.body.sealed_chunk());
        let offset = index.saturating_mul(sealed);
        let (follows, wanted) = if index.saturating_add(1) < self.chunks {
            (Follows::More, sealed)
        } else {
            (Follows::End, self.sealed.saturating_sub(offset))
        };
        let wanted = usize::try_from(wanted).map_err(|_| OpenError::Damaged)?;
        fill(
            &self.from,
            self.header.saturating_add(offset),
            wanted,
            &mut self.text,
        )?;
        if self.text.len() < wanted {
            // It has become shorter meanwhile.
            return Err(OpenError::Truncated.into());
        }
        let length = self.body.open(index, &mut self.text, follows)?;
        debug_assert!(length.saturating_add(TAG) == wanted, "a chunk and its tag");
        self.text.truncate(length);
        self.held = Some(index);
        Ok(())
    }
}

impl<R: ReadAt> Read for SeekReader<R> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let count = self.read_at(self.position, to).map_err(to_io)?;
        self.position = self.position.saturating_add(to_u64(count));
        Ok(count)
    }
}

impl<R: ReadAt> Seek for SeekReader<R> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let position = match to {
            SeekFrom::Start(position) => Some(position),
            SeekFrom::Current(by) => self.position.checked_add_signed(by),
            SeekFrom::End(by) => self.payload_len().map_err(to_io)?.checked_add_signed(by),
        };
        let before = || io::Error::new(io::ErrorKind::InvalidInput, "seek to before the beginning");
        self.position = position.ok_or_else(before)?;
        Ok(self.position)
    }
}

fn to_io(error: SeekError) -> io::Error {
    match error {
        SeekError::Io(error) => error,
        SeekError::Open(error) => io::Error::new(io::ErrorKind::InvalidData, error),
    }
}

fn to_u64(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

/// Reads up to `count` bytes from `offset` on into `to`, which holds no more than ciphertext when it grows.
fn fill(from: &impl ReadAt, offset: u64, count: usize, to: &mut Vec<u8>) -> io::Result<()> {
    to.clear();
    to.resize(count, 0);
    let mut done = 0;
    while done < count {
        let rest = to.get_mut(done..).unwrap_or_default();
        match from.read_at(offset.saturating_add(to_u64(done)), rest) {
            Ok(0) => break,
            Ok(read) => done = done.saturating_add(read),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    to.truncate(done);
    Ok(())
}
