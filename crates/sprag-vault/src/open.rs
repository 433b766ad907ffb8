//! Reading a blob, whole or piece by piece.

use std::fmt;

use zeroize::Zeroizing;

use crate::body::{Body, Follows};
use crate::header::{Header, PREFIX};
use crate::unlock::Unlock;
use crate::{Context, FormatError, OpenError};

/// Opens a blob that is in memory: all of it or nothing.
///
/// # Errors
/// [`OpenError`]
pub fn open(
    blob: &[u8],
    unlock: &Unlock<'_>,
    context: &Context,
) -> Result<Zeroizing<Vec<u8>>, OpenError> {
    let header = Header::parse(blob)?;
    let body = header.unlock_body(unlock, context)?;
    let mut rest = blob.get(header.len()..).unwrap_or_default();
    // Room for all of the text and one tag, so that no plaintext is left behind.
    let mut text = Zeroizing::new(Vec::with_capacity(rest.len()));
    let mut index = 0;
    loop {
        let (sealed, after) = rest.split_at(rest.len().min(body.sealed_chunk()));
        let follows = if after.is_empty() {
            Follows::End
        } else {
            Follows::More
        };
        let from = text.len();
        text.extend_from_slice(sealed);
        let chunk = text.get_mut(from..).unwrap_or_default();
        let length = body.open(index, chunk, follows)?;
        text.truncate(from.saturating_add(length));
        if follows == Follows::End {
            return Ok(text);
        }
        rest = after;
        index += 1;
    }
}

/// Opens a blob of any length piece by piece, in the memory of one chunk. What it hands out is authentic, each piece in its
/// place; that it was everything is known only when [`finish`](Self::finish) has succeeded. Who must have all or nothing
/// writes to a temporary name and renames then.
///
/// ```
/// # fn f(pieces: Vec<Vec<u8>>, key: sprag_vault::DataKey) -> Result<(), sprag_vault::OpenError> {
/// use sprag_vault::{Context, Opener, Unlock};
///
/// let (unlock, context) = (Unlock::new().direct("k1", key), Context::none());
/// let mut opener = Opener::new(&unlock, &context);
/// for piece in pieces {
///     let mut input = piece.as_slice();
///     while let Some(text) = opener.push(&mut input)? {
///         // to a temporary file
/// #       let _ = text;
///     }
/// }
/// let last = opener.finish()?;
/// # let _ = last;
/// # Ok(())
/// # }
/// ```
pub struct Opener<'a> {
    unlock: &'a Unlock<'a>,
    context: &'a Context,
    /// Until the header is there, `None`.
    body: Option<Body>,
    /// The header as far as it is there, then ciphertext that is gathered, or text that was handed out.
    buffer: Zeroizing<Vec<u8>>,
    handed_out: bool,
    index: u64,
    failed: Option<OpenError>,
}

impl fmt::Debug for Opener<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opener").finish_non_exhaustive()
    }
}

impl<'a> Opener<'a> {
    /// Waits for the header.
    #[must_use]
    pub fn new(unlock: &'a Unlock<'a>, context: &'a Context) -> Self {
        Self {
            unlock,
            context,
            body: None,
            buffer: Zeroizing::default(),
            handed_out: false,
            index: 0,
            failed: None,
        }
    }

    /// Takes from `input` until a chunk is open, whose text is handed out, or until all was taken (`None`).
    ///
    /// # Errors
    /// [`OpenError`]; the same one from then on.
    pub fn push(&mut self, input: &mut &[u8]) -> Result<Option<&[u8]>, OpenError> {
        match self.step(input) {
            Ok(None) => Ok(None),
            Ok(Some(length)) => Ok(Some(self.buffer.get(..length).unwrap_or_default())),
            Err(error) => {
                self.failed = Some(error);
                Err(error)
            }
        }
    }

    fn step(&mut self, input: &mut &[u8]) -> Result<Option<usize>, OpenError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        let body = match &self.body {
            Some(body) => body,
            None => match self.read_header(input)? {
                Some(body) => self.body.insert(body),
                None => return Ok(None),
            },
        };
        if self.handed_out {
            self.buffer.clear();
            self.handed_out = false;
        }
        take(&mut self.buffer, input, body.sealed_chunk());
        // Only what follows tells that a full chunk is not the last.
        if input.is_empty() {
            return Ok(None);
        }
        let length = body.open(self.index, &mut self.buffer, Follows::More)?;
        self.index += 1;
        self.handed_out = true;
        Ok(Some(length))
    }

    /// Gathers the header and unlocks it when it is whole.
    fn read_header(&mut self, input: &mut &[u8]) -> Result<Option<Body>, OpenError> {
        let mut wanted = PREFIX;
        loop {
            take(&mut self.buffer, input, wanted);
            let known = Header::length_in(&self.buffer)?;
            if self.buffer.len() < wanted {
                return Ok(None);
            }
            match known {
                Some(length) if wanted < length => wanted = length,
                Some(_) => break,
                None => return Err(FormatError::Short.into()),
            }
        }
        let header = Header::parse(&self.buffer)?;
        self.buffer.clear();
        header.unlock_body(self.unlock, self.context).map(Some)
    }

    /// The text of the last chunk: what was handed out before, and this, is the whole payload.
    ///
    /// # Errors
    /// [`OpenError`]
    pub fn finish(mut self) -> Result<Zeroizing<Vec<u8>>, OpenError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        let Some(body) = &self.body else {
            // It ends within its header, or says something else that is wrong with it.
            Header::length_in(&self.buffer)?;
            return Err(FormatError::Short.into());
        };
        if self.handed_out {
            self.buffer.clear();
        }
        let length = body.open(self.index, &mut self.buffer, Follows::End)?;
        self.buffer.truncate(length);
        Ok(std::mem::take(&mut self.buffer))
    }
}

/// Moves from `input` to `buffer` until that has `full` bytes. It holds no plaintext when it grows.
fn take(buffer: &mut Vec<u8>, input: &mut &[u8], full: usize) {
    let missing = full.saturating_sub(buffer.len());
    let (taken, rest) = input.split_at(input.len().min(missing));
    if buffer.capacity().saturating_sub(buffer.len()) < taken.len() {
        // Doubling, and never beyond what can be needed.
        buffer.reserve_exact(taken.len().max(buffer.len()).min(missing));
    }
    buffer.extend_from_slice(taken);
    *input = rest;
}
