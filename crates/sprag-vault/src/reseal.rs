//! Other recipients over the same payload, and the same payload under another key.

use rand_core::CryptoRng;

use crate::header::Header;
use crate::open::open;
use crate::recipients::Recipient;
use crate::seal::{Sealing, seal};
use crate::slot::Slot;
use crate::unlock::Unlock;
use crate::{Context, RekeyError, ResealError};

/// A header for the same payload with other slots: those that `keep` keeps, in their order, then new ones. It takes the place of
/// the old header, whatever the two lengths; the payload is not touched.
///
/// A recipient who is removed so is not kept out: who had the data key, or an older header, still opens the payload, and can
/// write another. [`rekey`] keeps him out.
///
/// # Errors
/// [`ResealError`]: nothing is changed.
pub fn reseal_header(
    header: &Header,
    unlock: &Unlock<'_>,
    context: &Context,
    keep: impl FnMut(&Slot) -> bool,
    add: &[Recipient<'_>],
    rng: &mut (impl CryptoRng + ?Sized),
) -> Result<Header, ResealError> {
    let unlocked = header.unlock(unlock, context)?;
    let mut slots = header.slots().to_vec();
    slots.retain(keep);
    for recipient in add {
        slots.push(recipient.to_slot(&unlocked.key, rng)?);
    }
    let core = header.core().clone();
    Ok(Header::make(core, slots, &unlocked.header_key, context)?)
}

/// [`reseal_header`] for a blob that is in memory. The payload is copied as it is, without a look at it.
///
/// # Errors
/// [`ResealError`]
pub fn reseal(
    blob: &[u8],
    unlock: &Unlock<'_>,
    context: &Context,
    keep: impl FnMut(&Slot) -> bool,
    add: &[Recipient<'_>],
    rng: &mut (impl CryptoRng + ?Sized),
) -> Result<Vec<u8>, ResealError> {
    let old = Header::parse(blob).map_err(crate::OpenError::from)?;
    let new = reseal_header(&old, unlock, context, keep, add, rng)?;
    let mut resealed = new.encode();
    resealed.extend_from_slice(blob.get(old.len()..).unwrap_or_default());
    Ok(resealed)
}

/// Encrypts a payload anew, under another data key and a fresh salt, so that nobody whom only the old blob had as a
/// recipient opens the new one. For a blob too large for memory, [`OpenReader`](crate::OpenReader) into
/// [`SealWriter`](crate::SealWriter) does the same, but for the refusal of the old key ([`Header::commits_to`]).
///
/// # Errors
/// [`RekeyError`]; with [`RekeyError::SameKey`] nothing is made.
pub fn rekey(
    blob: &[u8],
    unlock: &Unlock<'_>,
    context: &Context,
    sealing: &Sealing<'_>,
    rng: &mut (impl CryptoRng + ?Sized),
) -> Result<Vec<u8>, RekeyError> {
    let header = Header::parse(blob).map_err(crate::OpenError::from)?;
    if header.commits_to(sealing.key()) {
        return Err(RekeyError::SameKey);
    }
    Ok(seal(&open(blob, unlock, context)?, sealing, rng)?)
}
