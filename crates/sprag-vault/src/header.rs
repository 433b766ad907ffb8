//! The header: core, slots, MAC (`docs/VAULT.md`, *Layout*).

use subtle::ConstantTimeEq;

use crate::key::HeaderKey;
use crate::slot::{self, MAX_PASSPHRASE_SLOTS, MAX_SLOTS, Slot};
use crate::{ChunkSize, Context, DataKey, FormatError, SealError, Suite};

/// The first bytes: eighth bit, "EVLT", CR LF, SUB. Whatever treats a blob as text changes them.
pub const MAGIC: [u8; 8] = *b"\x89EVLT\r\n\x1a";
/// Bytes of the core.
pub(crate) const CORE: usize = 80;
/// Bytes after which the length of a header is known.
pub(crate) const PREFIX: usize = CORE + 2;
/// Bytes of the header MAC.
pub(crate) const MAC: usize = 32;
/// Bytes of the longest header.
pub const MAX_HEADER: usize = PREFIX + 65_535 + MAC;
/// Bytes of a tag, of which each chunk has one.
pub(crate) const TAG: usize = sprag_crypto::TAG;

const VERSION: u8 = 1;
/// A context that is not empty was used: a hint for messages.
const FLAG_CONTEXT: u16 = 1;

/// A header that was read and not authenticated: whoever stores a blob can have written it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    core: Core,
    slots: Vec<Slot>,
    mac: [u8; MAC],
}

/// The 80 bytes that a payload is bound to, and what they say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Core {
    pub(crate) suite: Suite,
    flags: u16,
    pub(crate) chunk_size: ChunkSize,
    pub(crate) salt: [u8; 32],
    pub(crate) commitment: [u8; 32],
}

impl Core {
    pub(crate) fn new(
        suite: Suite,
        chunk_size: ChunkSize,
        shows_context: bool,
        salt: [u8; 32],
        commitment: [u8; 32],
    ) -> Self {
        Self {
            suite,
            flags: if shows_context { FLAG_CONTEXT } else { 0 },
            chunk_size,
            salt,
            commitment,
        }
    }

    pub(crate) fn encode(&self) -> [u8; CORE] {
        let mut bytes = [0; CORE];
        let flags = self.flags.to_be_bytes();
        let parts: [&[u8]; 7] = [
            &MAGIC,
            &[VERSION, self.suite as u8],
            &flags,
            &[self.chunk_size.log2()],
            &[0; 3],
            &self.salt,
            &self.commitment,
        ];
        let all = parts.into_iter().flatten();
        bytes.iter_mut().zip(all).for_each(|(to, from)| *to = *from);
        bytes
    }

    fn parse(bytes: &[u8; CORE]) -> Result<Self, FormatError> {
        let (magic, rest) = bytes.split_at(MAGIC.len());
        check_magic(magic)?;
        let [version, suite, high, low, log2, one, two, three, ..] = rest else {
            return Err(FormatError::Short);
        };
        if *version != VERSION {
            return Err(FormatError::Version(*version));
        }
        let suite = Suite::from_byte(*suite)?;
        let flags = u16::from_be_bytes([*high, *low]);
        if flags & !FLAG_CONTEXT != 0 || [*one, *two, *three] != [0; 3] {
            return Err(FormatError::Flags);
        }
        let (rest, commitment) = bytes.split_last_chunk().ok_or(FormatError::Short)?;
        let (_, salt) = rest.split_last_chunk().ok_or(FormatError::Short)?;
        Ok(Self {
            suite,
            flags,
            chunk_size: ChunkSize::from_log2(*log2)?,
            salt: *salt,
            commitment: *commitment,
        })
    }
}

impl Header {
    /// Reads a header from the first bytes of a blob. What follows it is not looked at.
    ///
    /// # Errors
    /// [`FormatError`]
    pub fn parse(bytes: &[u8]) -> Result<Self, FormatError> {
        let length = Self::length_in(bytes)?.ok_or(FormatError::Short)?;
        let (core, rest) = bytes.split_first_chunk().ok_or(FormatError::Short)?;
        let core = Core::parse(core)?;
        let section = length.saturating_sub(CORE + MAC);
        let (section, rest) = rest.split_at_checked(section).ok_or(FormatError::Short)?;
        let (mac, _) = rest.split_first_chunk().ok_or(FormatError::Short)?;
        let (_, content) = section.split_at_checked(2).ok_or(FormatError::Short)?;
        Ok(Self {
            core,
            slots: slot::parse_section(content)?,
            mac: *mac,
        })
    }

    /// How long the header is, once its first 82 bytes are there; `None` before. At most [`MAX_HEADER`].
    ///
    /// # Errors
    /// [`FormatError`]: these bytes begin no blob.
    pub fn length_in(bytes: &[u8]) -> Result<Option<usize>, FormatError> {
        if let Some(magic) = bytes.get(..MAGIC.len()) {
            check_magic(magic)?;
        }
        let Some((core, rest)) = bytes.split_first_chunk() else {
            return Ok(None);
        };
        Core::parse(core)?;
        let length =
            |(length, _): (&[u8; 2], _)| PREFIX + usize::from(u16::from_be_bytes(*length)) + MAC;
        Ok(rest.split_first_chunk().map(length))
    }

    /// What the payload is encrypted with.
    #[must_use]
    pub fn suite(&self) -> Suite {
        self.core.suite
    }

    /// In what pieces.
    #[must_use]
    pub fn chunk_size(&self) -> ChunkSize {
        self.core.chunk_size
    }

    /// Whether the writer says that there was a context. Only a hint: he may leave it out.
    #[must_use]
    pub fn shows_context(&self) -> bool {
        self.core.flags & FLAG_CONTEXT != 0
    }

    /// Who can open it.
    #[must_use]
    pub fn slots(&self) -> &[Slot] {
        &self.slots
    }

    /// Whether this is the key of the blob. That the header is authentic and the context right is another question.
    #[must_use]
    pub fn commits_to(&self, key: &DataKey) -> bool {
        let commitment = key.commitment(&self.core.salt, self.core.suite);
        commitment.ct_eq(&self.core.commitment).into()
    }

    /// Bytes of the header; the payload begins there.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "no header is empty")]
    pub fn len(&self) -> usize {
        let slots = self.slots.iter().map(Slot::encoded_len).sum::<usize>();
        slots.saturating_add(PREFIX + 1 + MAC)
    }

    /// How long the payload is in a blob of `total` bytes, if it is whole; `None` if it cannot be. Not authenticated.
    #[must_use]
    pub fn payload_len(&self, total: u64) -> Option<u64> {
        let body = total.checked_sub(u64::try_from(self.len()).ok()?)?;
        let full = u64::try_from(self.core.chunk_size.bytes())
            .ok()?
            .checked_add(16)?;
        let chunks = body.div_ceil(full).max(1);
        let last = body.checked_sub(chunks.checked_sub(1)?.checked_mul(full)?)?;
        let fits = last > 16 || (last == 16 && chunks == 1);
        (fits && chunks <= crate::body::MAX_CHUNKS).then(|| body - chunks * 16)
    }

    /// The bytes, as they stand at the beginning of a blob.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.len());
        bytes.extend_from_slice(&self.core.encode());
        bytes.extend_from_slice(&section(&self.slots));
        bytes.extend_from_slice(&self.mac);
        bytes
    }

    pub(crate) fn core(&self) -> &Core {
        &self.core
    }

    pub(crate) fn mac(&self) -> &[u8; MAC] {
        &self.mac
    }

    /// The MAC that this header must have.
    pub(crate) fn expected_mac(&self, key: &HeaderKey, context: &Context) -> [u8; MAC] {
        key.mac(&self.core.encode(), &section(&self.slots), context)
    }

    /// A header over these slots.
    pub(crate) fn make(
        core: Core,
        slots: Vec<Slot>,
        key: &HeaderKey,
        context: &Context,
    ) -> Result<Self, SealError> {
        let length = slots.iter().map(Slot::encoded_len).sum::<usize>();
        let fits = |part: &[u8]| u16::try_from(part.len()).is_ok();
        let all_fit = slots
            .iter()
            .all(|slot| fits(slot.id()) && fits(slot.body()));
        if slots.is_empty() {
            return Err(SealError::NoRecipient);
        }
        if slots.len() > MAX_SLOTS
            || slot::passphrases(&slots) > MAX_PASSPHRASE_SLOTS
            || !all_fit
            || length.saturating_add(1) > 65_535
        {
            return Err(SealError::TooManyRecipients);
        }
        let mut header = Self {
            core,
            slots,
            mac: [0; MAC],
        };
        header.mac = header.expected_mac(key, context);
        Ok(header)
    }
}

/// `u16 length ‖ count ‖ slots`.
fn section(slots: &[Slot]) -> Vec<u8> {
    let length = slots
        .iter()
        .map(Slot::encoded_len)
        .sum::<usize>()
        .saturating_add(1);
    let mut bytes = Vec::with_capacity(length.saturating_add(2));
    bytes.extend_from_slice(&u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes());
    bytes.push(u8::try_from(slots.len()).unwrap_or(u8::MAX));
    slots.iter().for_each(|slot| slot.put(&mut bytes));
    bytes
}

fn check_magic(begin: &[u8]) -> Result<(), FormatError> {
    if begin == MAGIC {
        return Ok(());
    }
    // What text transfers make of it: the eighth bit lost, CR LF become LF or CR, or LF become CR LF.
    let marks: [&[u8]; 4] = [
        b"\x09EVLT\r\n\x1a",
        b"\x89EVLT\n\x1a",
        b"\x89EVLT\r\x1a",
        b"\x89EVLT\r\r\n",
    ];
    if marks.iter().any(|mark| begin.starts_with(mark)) {
        Err(FormatError::TextMode)
    } else {
        Err(FormatError::Magic)
    }
}
