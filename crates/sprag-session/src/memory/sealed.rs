//! What seals heads and segments: which generation, and under it the one seal.
//!
//! ```text
//! epoch u64 ‖ number u32 ‖ generation id 8 ‖ seal(space key, label, AD = these 20 bytes ‖ name of the head, padded plaintext)
//! ```

use rand_core::CryptoRng;
use sprag_crypto::{SEAL_OVERHEAD, SealKey};
use sprag_wire::{Padding, pad, unpad};
use zeroize::Zeroizing;

use super::LogError;
use super::keys::{ObjectName, SpaceKey, generation_id};
use super::space::Space;
use crate::shares::Generation;

/// Bytes in front of the seal: which generation it is under.
const PREFIX: usize = 8 + 4 + 8;

/// Bytes that the seal adds to a padded plaintext.
pub const GENERATION_OVERHEAD: usize = PREFIX + SEAL_OVERHEAD;

fn prefix(generation: &Generation) -> [u8; PREFIX] {
    let mut bytes = [0; PREFIX];
    let parts = [
        &generation.epoch.to_be_bytes()[..],
        &generation.number.to_be_bytes(),
        &generation_id(generation),
    ]
    .concat();
    bytes.copy_from_slice(&parts);
    bytes
}

/// Under which generation an object is sealed, as it claims: epoch, number, id of the key.
///
/// # Errors
/// [`LogError::Damaged`]: too short for any.
pub fn generation_of(sealed: &[u8]) -> Result<(u64, u32, [u8; 8]), LogError> {
    let (epoch, rest) = sealed.split_first_chunk().ok_or(LogError::Damaged)?;
    let (number, rest) = rest.split_first_chunk().ok_or(LogError::Damaged)?;
    let (id, _) = rest.split_first_chunk().ok_or(LogError::Damaged)?;
    Ok((u64::from_be_bytes(*epoch), u32::from_be_bytes(*number), *id))
}

/// What a later version of this program wrote is not read here yet. It is never overwritten.
pub(super) fn check_version(plaintext: &[u8], known: u8) -> Result<(), LogError> {
    match plaintext.first() {
        Some(version) if *version > known => Err(LogError::NotYet),
        _ => Ok(()),
    }
}

/// Seals a plaintext; draws 16 bytes.
pub(crate) fn seal(
    generation: &Generation,
    space: &Space,
    label: &[u8],
    name: &ObjectName,
    plaintext: &[u8],
    rng: &mut dyn CryptoRng,
) -> Vec<u8> {
    let key = SpaceKey::new(generation, space);
    let prefix = prefix(generation);
    let ad = [&prefix[..], name].concat();
    let sealed = key
        .seal_key()
        .seal(label, &ad, &pad(plaintext, Padding::Padme), rng);
    [&prefix[..], &sealed].concat()
}

/// Opens what [`seal`] made, with the one generation that it names.
pub(crate) fn open(
    generations: &[Generation],
    space: &Space,
    label: &[u8],
    name: &ObjectName,
    sealed: &[u8],
) -> Result<Zeroizing<Vec<u8>>, LogError> {
    let (epoch, number, id) = generation_of(sealed)?;
    let generation = generations
        .iter()
        .find(|one| (one.epoch, one.number) == (epoch, number) && generation_id(one) == id)
        .ok_or(LogError::NotYet)?;
    let key = SpaceKey::new(generation, space);
    let (prefix, sealed) = sealed
        .split_first_chunk::<PREFIX>()
        .ok_or(LogError::Damaged)?;
    let ad = [&prefix[..], name].concat();
    let seal: &SealKey = key.seal_key();
    let padded = seal
        .open(label, &ad, sealed)
        .map_err(|_| LogError::Damaged)?;
    let plaintext = unpad(&padded).map_err(|_| LogError::Damaged)?;
    Ok(Zeroizing::new(plaintext.to_vec()))
}
