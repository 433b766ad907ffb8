//! Writing a blob, whole or piece by piece.

use std::fmt;

use rand_core::CryptoRng;
use zeroize::{Zeroize, Zeroizing};

use crate::body::Body;
use crate::header::{Core, Header, TAG};
use crate::recipients::Recipient;
use crate::{ChunkSize, Context, DataKey, SealError, Suite};

/// How a blob is sealed.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};
/// # let mut rng = ChaCha20Rng::from_seed([1; 32]);
/// use sprag_vault::{Context, DataKey, Recipient, Sealing, Unlock, open, seal};
///
/// let key = DataKey::generate(&mut rng);
/// let context = Context::from_pairs([("user", "alice"), ("record", "mem_1")])?;
/// let to = [Recipient::direct("k1")];
/// let blob = seal(b"hello", &Sealing::new(&key, &to).context(&context), &mut rng)?;
///
/// let text = open(&blob, &Unlock::new().direct("k1", key), &context)?;
/// assert_eq!(text.as_slice(), b"hello");
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Sealing<'a> {
    key: &'a DataKey,
    recipients: &'a [Recipient<'a>],
    context: Option<&'a Context>,
    suite: Suite,
    chunk_size: ChunkSize,
    hides_context: bool,
}

impl fmt::Debug for Sealing<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sealing").finish_non_exhaustive()
    }
}

impl<'a> Sealing<'a> {
    /// Under this data key for these recipients: AES-256-GCM, chunks of 64 KiB, no context. Unless a recipient is direct the key
    /// should be a fresh one, [`DataKey::generate`].
    #[must_use]
    pub fn new(key: &'a DataKey, recipients: &'a [Recipient<'a>]) -> Self {
        Self {
            key,
            recipients,
            context: None,
            suite: Suite::default(),
            chunk_size: ChunkSize::default(),
            hides_context: false,
        }
    }

    /// What the blob belongs to.
    #[must_use]
    pub fn context(mut self, context: &'a Context) -> Self {
        self.context = Some(context);
        self
    }

    /// Another suite.
    #[must_use]
    pub fn suite(mut self, suite: Suite) -> Self {
        self.suite = suite;
        self
    }

    /// Other chunks.
    #[must_use]
    pub fn chunk_size(mut self, chunk_size: ChunkSize) -> Self {
        self.chunk_size = chunk_size;
        self
    }

    /// Leaves out the hint that there is a context, which only helps messages about errors.
    #[must_use]
    pub fn without_context_hint(mut self) -> Self {
        self.hides_context = true;
        self
    }

    pub(crate) fn key(&self) -> &DataKey {
        self.key
    }

    /// Draws 32 bytes of salt, then what the recipients draw, in their order.
    fn begin(&self, rng: &mut (impl CryptoRng + ?Sized)) -> Result<(Header, Body), SealError> {
        // Fresh for each payload: two under one salt and key would share their nonces.
        let mut salt = [0; 32];
        rng.fill_bytes(&mut salt);
        let none = Context::none();
        let context = self.context.unwrap_or(&none);
        let core = Core::new(
            self.suite,
            self.chunk_size,
            !context.is_empty() && !self.hides_context,
            salt,
            self.key.commitment(&salt, self.suite),
        );
        let slots = self.recipients.iter();
        let slots = slots.map(|recipient| recipient.to_slot(self.key, rng));
        let slots = slots.collect::<Result<_, _>>()?;
        let header_key = self.key.header_key(&salt, self.suite);
        let body = Body::new(&core, self.key, &header_key, context);
        Ok((Header::make(core, slots, &header_key, context)?, body))
    }
}

/// Seals a payload that is in memory. The blob is longer by the header (85 bytes and 5 for each slot with its id and body) and 16
/// bytes per chunk.
///
/// # Errors
/// [`SealError`]
pub fn seal(
    payload: &[u8],
    sealing: &Sealing<'_>,
    rng: &mut (impl CryptoRng + ?Sized),
) -> Result<Vec<u8>, SealError> {
    let (header, body) = sealing.begin(rng)?;
    let chunks = payload.len().div_ceil(body.chunk()).max(1);
    let length = payload
        .len()
        .saturating_add(header.len())
        .saturating_add(chunks.saturating_mul(TAG));
    // Of its final size from the start, so that no plaintext is left behind.
    let mut blob = Vec::with_capacity(length);
    blob.extend_from_slice(&header.encode());
    let mut rest = payload;
    let mut index = 0;
    loop {
        let (text, after) = rest.split_at(rest.len().min(body.chunk()));
        seal_onto(&mut blob, &body, index, after.is_empty(), text)?;
        if after.is_empty() {
            return Ok(blob);
        }
        rest = after;
        index += 1;
    }
}

/// Appends a chunk, encrypted where it will stand.
fn seal_onto(
    to: &mut Vec<u8>,
    body: &Body,
    index: u64,
    last: bool,
    text: &[u8],
) -> Result<(), SealError> {
    let from = to.len();
    to.extend_from_slice(text);
    let text = to.get_mut(from..).unwrap_or_default();
    match body.seal(index, last, text) {
        Ok(tag) => {
            to.extend_from_slice(&tag);
            Ok(())
        }
        Err(error) => {
            text.zeroize();
            Err(error)
        }
    }
}

/// Seals a payload of any length piece by piece, in the memory of one chunk.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};
/// # let mut rng = ChaCha20Rng::from_seed([1; 32]);
/// use sprag_vault::{DataKey, Recipient, Sealer, Sealing};
///
/// let key = DataKey::generate(&mut rng);
/// let to = [Recipient::direct("k1")];
/// let mut sealer = Sealer::new(&Sealing::new(&key, &to), &mut rng)?;
/// let mut blob = Vec::new(); // or a file
/// for mut input in [b"one ".as_slice(), b"two"] {
///     while let Some(piece) = sealer.push(&mut input)? {
///         blob.extend_from_slice(piece);
///     }
/// }
/// blob.extend_from_slice(&sealer.finish()?);
/// # Ok(())
/// # }
/// ```
pub struct Sealer {
    body: Body,
    /// The header, until it is handed out.
    header: Option<Vec<u8>>,
    /// Text that is gathered, or a piece that was handed out.
    buffer: Zeroizing<Vec<u8>>,
    handed_out: bool,
    index: u64,
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sealer").finish_non_exhaustive()
    }
}

impl Sealer {
    /// Makes the header. Draws 32 bytes of salt, then what the recipients draw, in their order.
    ///
    /// # Errors
    /// [`SealError`]
    pub fn new(
        sealing: &Sealing<'_>,
        rng: &mut (impl CryptoRng + ?Sized),
    ) -> Result<Self, SealError> {
        let (header, body) = sealing.begin(rng)?;
        Ok(Self {
            // Of its full size from the start, so that it never leaves plaintext behind.
            buffer: Zeroizing::new(Vec::with_capacity(body.sealed_chunk())),
            body,
            header: Some(header.encode()),
            handed_out: false,
            index: 0,
        })
    }

    /// Takes from `input` until a piece of the blob is ready, which is to be written, or until all was taken (`None`). The
    /// first piece is the header.
    ///
    /// # Errors
    /// [`SealError::TooLong`]
    pub fn push(&mut self, input: &mut &[u8]) -> Result<Option<&[u8]>, SealError> {
        if let Some(header) = self.header.take() {
            self.buffer.clear();
            self.buffer.extend_from_slice(&header);
            self.handed_out = true;
            return Ok(Some(&self.buffer));
        }
        if self.handed_out {
            self.buffer.clear();
            self.handed_out = false;
        }
        let room = self.body.chunk().saturating_sub(self.buffer.len());
        let (taken, rest) = input.split_at(input.len().min(room));
        self.buffer.extend_from_slice(taken);
        *input = rest;
        // Only what follows tells that a full chunk is not the last.
        if rest.is_empty() {
            return Ok(None);
        }
        let tag = self.body.seal(self.index, false, &mut self.buffer)?;
        self.buffer.extend_from_slice(&tag);
        self.index += 1;
        self.handed_out = true;
        Ok(Some(&self.buffer))
    }

    /// The last piece of the blob.
    ///
    /// # Errors
    /// [`SealError::InputLeft`]: `push` was not called until it gave `None`.
    pub fn finish(mut self) -> Result<Vec<u8>, SealError> {
        if self.handed_out && self.index > 0 {
            return Err(SealError::InputLeft);
        }
        if self.handed_out {
            self.buffer.clear();
        }
        let header = self.header.take().unwrap_or_default();
        let length = header
            .len()
            .saturating_add(self.buffer.len())
            .saturating_add(TAG);
        let mut last = Vec::with_capacity(length);
        last.extend_from_slice(&header);
        seal_onto(&mut last, &self.body, self.index, true, &self.buffer)?;
        Ok(last)
    }
}
