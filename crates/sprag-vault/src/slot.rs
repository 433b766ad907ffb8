//! Slots: each holds the data key for one recipient (`docs/VAULT.md`, *Slots*).

use std::fmt;

use sprag_crypto::Argon2Params;

use crate::FormatError;

pub(crate) const DIRECT: u8 = 0;
pub(crate) const KMS: u8 = 1;
pub(crate) const RECIPIENT: u8 = 2;
pub(crate) const PASSPHRASE: u8 = 3;

/// Slots that a blob may have.
pub const MAX_SLOTS: usize = 16;
/// Of these, for passphrases: each may cost a reader gigabytes before anything is authenticated.
pub const MAX_PASSPHRASE_SLOTS: usize = 4;
/// KiB times passes of one passphrase slot: 4 GiB once, or 1 GiB four times.
pub const MAX_PASSPHRASE_WORK: u64 = 4 * 1024 * 1024;

/// Bytes of an HPKE slot: encapsulated key 32, sealed key 32, tag 16.
const RECIPIENT_BODY: usize = 80;
/// Bytes of a passphrase slot: KiB 4, passes 4, lanes 1, salt 16, nonce 12, sealed key 32, tag 16.
const PASSPHRASE_BODY: usize = 85;

/// A slot as it stands in a header: public bytes.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Slot {
    kind: u8,
    id: Vec<u8>,
    body: Vec<u8>,
}

/// What a slot is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum SlotKind {
    /// The data key is the one that the id names.
    Direct,
    /// The data key, wrapped by a key service.
    Kms,
    /// The data key, sealed to a public key (HPKE).
    Recipient,
    /// The data key, sealed under a passphrase of this cost.
    Passphrase(Argon2Params),
    /// Of a type that this version does not know, and skips.
    Unknown(u8),
}

/// What a passphrase slot holds.
pub(crate) struct PassphraseBody<'a> {
    pub(crate) params: Argon2Params,
    pub(crate) salt: &'a [u8; 16],
    pub(crate) nonce: &'a [u8; 12],
    pub(crate) sealed: &'a [u8],
}

impl Slot {
    pub(crate) fn new(kind: u8, id: &[u8], body: Vec<u8>) -> Self {
        let id = id.to_vec();
        Self { kind, id, body }
    }

    /// What it is for.
    #[must_use]
    pub fn kind(&self) -> SlotKind {
        match self.kind {
            DIRECT => SlotKind::Direct,
            KMS => SlotKind::Kms,
            RECIPIENT => SlotKind::Recipient,
            PASSPHRASE => self
                .passphrase()
                .map_or(SlotKind::Unknown(PASSPHRASE), |body| {
                    SlotKind::Passphrase(body.params)
                }),
            other => SlotKind::Unknown(other),
        }
    }

    /// The id of the key that opens it, any bytes, for whoever has several.
    #[must_use]
    pub fn id(&self) -> &[u8] {
        &self.id
    }

    /// What stands in it: for a key service, the wrapped key.
    #[must_use]
    pub fn body(&self) -> &[u8] {
        &self.body
    }

    pub(crate) fn type_byte(&self) -> u8 {
        self.kind
    }

    pub(crate) fn passphrase(&self) -> Option<PassphraseBody<'_>> {
        passphrase_body(&self.body).ok()
    }

    /// Bytes in the section.
    pub(crate) fn encoded_len(&self) -> usize {
        5_usize
            .saturating_add(self.id.len())
            .saturating_add(self.body.len())
    }

    /// `type u8 ‖ u16 len ‖ id ‖ u16 len ‖ body`. Lengths were checked by whoever made the section.
    pub(crate) fn put(&self, to: &mut Vec<u8>) {
        to.push(self.kind);
        for part in [&self.id, &self.body] {
            let length = u16::try_from(part.len()).unwrap_or(u16::MAX);
            to.extend_from_slice(&length.to_be_bytes());
            to.extend_from_slice(part);
        }
    }

    fn take(from: &mut &[u8]) -> Option<Self> {
        let (kind, rest) = from.split_first()?;
        *from = rest;
        let (id, body) = (take_u16_prefixed(from)?, take_u16_prefixed(from)?);
        Some(Self::new(*kind, id, body.to_vec()))
    }

    /// Lengths, and costs within the bounds of the format: before anything is computed.
    fn check(&self) -> Result<(), FormatError> {
        let right = match self.kind {
            DIRECT => self.body.is_empty(),
            RECIPIENT => self.body.len() == RECIPIENT_BODY,
            PASSPHRASE => return passphrase_body(&self.body).map(|_| ()),
            _ => true,
        };
        if right {
            Ok(())
        } else {
            Err(FormatError::Slots)
        }
    }
}

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slot")
            .field("kind", &self.kind())
            .field("id", &String::from_utf8_lossy(&self.id))
            .field("body", &format_args!("{} bytes", self.body.len()))
            .finish()
    }
}

/// Reads what follows the length of the section: `count ‖ slots`, to its last byte.
pub(crate) fn parse_section(section: &[u8]) -> Result<Vec<Slot>, FormatError> {
    let (count, mut rest) = section.split_first().ok_or(FormatError::Slots)?;
    if !(1..=MAX_SLOTS).contains(&usize::from(*count)) {
        return Err(FormatError::Slots);
    }
    let mut slots = Vec::with_capacity(usize::from(*count));
    for _ in 0..*count {
        let slot = Slot::take(&mut rest).ok_or(FormatError::Slots)?;
        slot.check()?;
        slots.push(slot);
    }
    if rest.is_empty() && passphrases(&slots) <= MAX_PASSPHRASE_SLOTS {
        Ok(slots)
    } else {
        Err(FormatError::Slots)
    }
}

pub(crate) fn passphrases(slots: &[Slot]) -> usize {
    let is_passphrase = |slot: &&Slot| slot.kind == PASSPHRASE;
    slots.iter().filter(is_passphrase).count()
}

/// Whether a passphrase slot of this cost may be written or tried at all.
pub(crate) fn work_is_allowed(params: Argon2Params) -> bool {
    u64::from(params.memory_kib()).saturating_mul(u64::from(params.passes())) <= MAX_PASSPHRASE_WORK
}

fn passphrase_body(body: &[u8]) -> Result<PassphraseBody<'_>, FormatError> {
    if body.len() != PASSPHRASE_BODY {
        return Err(FormatError::Slots);
    }
    let parts = || {
        let (kib, rest) = body.split_first_chunk()?;
        let (passes, rest) = rest.split_first_chunk()?;
        let (lanes, rest) = rest.split_first()?;
        let (salt, rest) = rest.split_first_chunk()?;
        let (nonce, sealed) = rest.split_first_chunk()?;
        let cost = (
            u32::from_be_bytes(*kib),
            u32::from_be_bytes(*passes),
            *lanes,
        );
        Some((cost, salt, nonce, sealed))
    };
    let ((kib, passes, lanes), salt, nonce, sealed) = parts().ok_or(FormatError::Slots)?;
    let params = Argon2Params::new(kib, passes, u32::from(lanes))
        .ok()
        .filter(|params| work_is_allowed(*params))
        .ok_or(FormatError::PassphraseCost)?;
    Ok(PassphraseBody {
        params,
        salt,
        nonce,
        sealed,
    })
}

fn take_u16_prefixed<'a>(from: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, rest) = from.split_first_chunk()?;
    let (taken, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
    *from = rest;
    Some(taken)
}
