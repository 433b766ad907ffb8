//! A backup as a file: slots for the keys that open it, and the sealed record (`docs/BACKUP.md`).
//!
//! ```text
//! "SPRAGBAK" ‖ version u8 = 1 ‖ slots u8 (1 or 2)
//! per slot: key slot(29) ‖ seal(what the slot gives, "Sprag/1 backup key", all before the first slot ‖ key slot, data key)(64)
//! seal(data key, "Sprag/1 backup", all before, length u32 ‖ record ‖ zeros)
//! SHA-256 of all before(32)
//! ```
//!
//! The hash is no proof of anything. It tells damage from a wrong key, before a passphrase is stretched.

use rand_core::CryptoRng;
use sprag_crypto::{SEAL_OVERHEAD, SealKey, sha256};
use sprag_keys::{Key, KeyError, KeySlot};
use sprag_session::MAX_BACKUP;
use sprag_wire::padme;
use zeroize::Zeroizing;

use crate::Error;

const MAGIC: &[u8; 8] = b"SPRAGBAK";
const VERSION: u8 = 1;
const HEAD: usize = 10;
const WRAPPED: usize = 32 + SEAL_OVERHEAD;
const SLOT: usize = KeySlot::LEN + WRAPPED;
const HASH: usize = 32;
/// A smaller record looks like one of this size.
const LEAST: usize = 4_096;
const MAX_SLOTS: usize = 2;
/// The largest file: its padding is at most an eighth.
const MAX_FILE: usize = HEAD + MAX_SLOTS * SLOT + MAX_BACKUP / 8 * 9 + SEAL_OVERHEAD + HASH;

const KEY_LABEL: &[u8] = b"Sprag/1 backup key";
const LABEL: &[u8] = b"Sprag/1 backup";

/// Seals a record for one or two keys of different kinds. Draws the data key, and the salts of slots and seals.
pub(super) fn seal(
    record: &[u8],
    keys: &[Key],
    rng: &mut (impl CryptoRng + ?Sized),
) -> Result<Vec<u8>, Error> {
    if keys.is_empty() || keys.len() > MAX_SLOTS || record.len() > MAX_BACKUP {
        return Err(Error::bad_input());
    }
    let data_key = SealKey::generate(rng);
    let mut slots = Vec::with_capacity(keys.len());
    for key in keys {
        let (slot, unlock) = key.new_slot(rng).map_err(Error::key)?;
        slots.push((slot.to_bytes(), unlock));
    }
    // One of each kind: else nobody could say which of them a passphrase belongs to.
    slots.sort_by_key(|(slot, _)| slot.first().copied());
    let kinds = slots.iter().map(|(slot, _)| slot.first());
    if kinds.collect::<std::collections::BTreeSet<_>>().len() != slots.len() {
        return Err(Error::bad_input());
    }
    let length = padme((4 + record.len()).max(LEAST));
    let mut plaintext = Zeroizing::new(Vec::with_capacity(length));
    let count = u32::try_from(record.len()).map_err(|_| Error::bad_input())?;
    plaintext.extend_from_slice(&count.to_be_bytes());
    plaintext.extend_from_slice(record);
    plaintext.resize(length, 0);

    let mut file = Vec::with_capacity(HEAD + slots.len() * SLOT + length + SEAL_OVERHEAD + HASH);
    file.extend_from_slice(MAGIC);
    file.push(VERSION);
    file.push(u8::try_from(slots.len()).map_err(|_| Error::bad_input())?);
    let head = file.clone();
    for (slot, unlock) in &slots {
        let key = SealKey::from_bytes(unlock.as_bytes());
        let ad = [&head, slot.as_slice()].concat();
        file.extend_from_slice(slot);
        file.extend(key.seal(KEY_LABEL, &ad, data_key.as_bytes(), rng));
    }
    let sealed = data_key.seal(LABEL, &file, &plaintext, rng);
    file.extend_from_slice(&sealed);
    let hash = sha256(&[&file]);
    file.extend_from_slice(&hash);
    Ok(file)
}

/// A file that is whole, and not opened.
struct Parts<'a> {
    slots: Vec<(KeySlot, &'a [u8])>,
    head: &'a [u8],
    before: &'a [u8],
    sealed: &'a [u8],
}

fn parse(file: &[u8]) -> Result<Parts<'_>, Error> {
    let damaged = Error::backup_damaged;
    let rest = file.strip_prefix(MAGIC).ok_or_else(damaged)?;
    let (version, rest) = rest.split_first().ok_or_else(damaged)?;
    if *version != VERSION {
        return Err(Error::backup_version());
    }
    if file.len() > MAX_FILE {
        return Err(damaged());
    }
    let (before, hash) = file.split_last_chunk::<HASH>().ok_or_else(damaged)?;
    if sha256(&[before]) != *hash {
        return Err(damaged());
    }
    let count = rest.first().copied().map_or(0, usize::from);
    if !(1..=MAX_SLOTS).contains(&count) {
        return Err(damaged());
    }
    let end = HEAD + count * SLOT;
    let bytes = before.get(HEAD..end).ok_or_else(damaged)?;
    let mut slots = Vec::with_capacity(count);
    let mut last = None;
    for slot in bytes.chunks_exact(SLOT) {
        let (slot, wrapped) = slot.split_first_chunk().ok_or_else(damaged)?;
        let kind = slot.first().copied();
        if last >= kind {
            return Err(damaged());
        }
        last = kind;
        // Parameters that nobody would compute are refused here, before they cost anything.
        let slot = KeySlot::from_bytes(slot).map_err(|error| match error {
            KeyError::UnknownSlot => Error::backup_version(),
            _ => damaged(),
        })?;
        slots.push((slot, wrapped));
    }
    Ok(Parts {
        slots,
        head: file.get(..HEAD).ok_or_else(damaged)?,
        before: before.get(..end).ok_or_else(damaged)?,
        sealed: before.get(end..).ok_or_else(damaged)?,
    })
}

/// Opens a backup with one of its keys, and gives the record.
pub(super) fn open(file: &[u8], key: &Key) -> Result<Zeroizing<Vec<u8>>, Error> {
    let parts = parse(file)?;
    let data_key = data_key(&parts, key)?;
    let damaged = Error::backup_damaged;
    let mut plaintext = data_key
        .open(LABEL, parts.before, parts.sealed)
        .map_err(|_| damaged())?;
    let (length, rest) = plaintext.split_first_chunk().ok_or_else(damaged)?;
    let length = usize::try_from(u32::from_be_bytes(*length)).map_err(|_| damaged())?;
    let (_, zeros) = rest.split_at_checked(length).ok_or_else(damaged)?;
    let padded = padme((4 + length).max(LEAST));
    if plaintext.len() != padded || zeros.iter().any(|byte| *byte != 0) {
        return Err(damaged());
    }
    plaintext.drain(..4);
    plaintext.truncate(length);
    Ok(plaintext)
}

/// The data key, out of the slot of the key's kind.
fn data_key(parts: &Parts<'_>, key: &Key) -> Result<SealKey, Error> {
    for (slot, wrapped) in &parts.slots {
        let unlock = match key.unlock(slot) {
            Ok(unlock) => unlock,
            Err(KeyError::WrongKind) => continue,
            Err(error) => return Err(Error::key(error)),
        };
        let ad = [parts.head, &slot.to_bytes()].concat();
        let unlock = SealKey::from_bytes(unlock.as_bytes());
        let opened = unlock.open(KEY_LABEL, &ad, wrapped);
        let opened = opened.map_err(|_| Error::wrong_key())?;
        let bytes = opened.as_slice().try_into();
        return Ok(SealKey::from_bytes(
            bytes.map_err(|_| Error::backup_damaged())?,
        ));
    }
    Err(Error::wrong_key())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Argon2Params, RecoveryKey, sys};

    fn quick(passphrase: &str) -> Key {
        Key::passphrase_with(passphrase, Argon2Params::LEAST)
    }

    fn recovery(byte: u8) -> Key {
        RecoveryKey::from_bytes([byte; 32]).to_key()
    }

    /// The hash is no secret: whoever changes a file can make it anew.
    fn hashed(mut file: Vec<u8>) -> Vec<u8> {
        let at = file.len() - HASH;
        file.truncate(at);
        let hash = sha256(&[&file]);
        file.extend_from_slice(&hash);
        file
    }

    fn code(file: &[u8], key: &Key) -> &'static str {
        open(file, key).map(drop).unwrap_err().code()
    }

    #[test]
    fn either_key_opens_and_no_other_does() {
        let both = [recovery(1), quick("horse")];
        let file = seal(b"record", &both, &mut sys::rng()).unwrap();
        for key in &both {
            assert_eq!(*open(&file, key).unwrap(), b"record");
        }
        assert_eq!(code(&file, &recovery(2)), "wrong_key");
        assert_eq!(code(&file, &quick("hors")), "wrong_key");
        let one = seal(b"record", &both[..1], &mut sys::rng()).unwrap();
        assert_eq!(code(&one, &both[1]), "wrong_key");
        let refused = [&[][..], &[recovery(1), recovery(2)], &[quick("")]];
        for keys in refused {
            assert!(seal(b"record", keys, &mut sys::rng()).is_err());
        }
    }

    #[test]
    fn size_says_little() {
        let size = |length: usize| {
            let record = vec![7; length];
            let file = seal(&record, &[recovery(1)], &mut sys::rng()).unwrap();
            assert_eq!(*open(&file, &recovery(1)).unwrap(), record);
            file.len()
        };
        assert_eq!(size(0), size(4_092));
        assert_eq!(size(0), 4_096 + HEAD + SLOT + SEAL_OVERHEAD + HASH);
        assert!(size(4_093) > size(0));
        assert_eq!(size(100_000), size(100_300));
    }

    #[test]
    fn every_flipped_bit_and_missing_byte_is_damage_and_costs_no_derivation() {
        let file = seal(b"record", &[recovery(1), quick("horse")], &mut sys::rng()).unwrap();
        for at in (0..file.len() * 8).step_by(7) {
            let mut bad = file.clone();
            bad[at / 8] ^= 1 << (at % 8);
            let said = code(&bad, &recovery(1));
            let version = at / 8 == 8;
            assert_eq!(
                said,
                if version {
                    "backup_version"
                } else {
                    "backup_damaged"
                }
            );
        }
        for length in (0..file.len()).step_by(11).chain([file.len() - 1]) {
            assert_eq!(code(&file[..length], &recovery(1)), "backup_damaged");
        }
        let mut longer = file;
        longer.push(0);
        assert_eq!(code(&longer, &recovery(1)), "backup_damaged");
    }

    #[test]
    fn a_changed_file_with_a_right_hash_is_noticed_wherever_it_was_changed() {
        let file = seal(b"record", &[recovery(1), quick("horse")], &mut sys::rng()).unwrap();
        let change = |at: usize| {
            let mut bad = file.clone();
            bad[at] ^= 1;
            code(&hashed(bad), &recovery(1))
        };
        // Our slot: what it gives opens nothing. The slot of the other: the record is bound to it.
        assert_eq!(change(HEAD + 1), "wrong_key");
        assert_eq!(change(HEAD + KeySlot::LEN), "wrong_key");
        assert_eq!(change(HEAD + SLOT + 1), "backup_damaged");
        assert_eq!(change(HEAD + SLOT + KeySlot::LEN), "backup_damaged");
        assert_eq!(change(HEAD + 2 * SLOT), "backup_damaged");
        assert_eq!(change(file.len() - HASH - 1), "backup_damaged");
        // A slot taken out, or from another backup.
        let mut fewer = file.clone();
        fewer[9] = 1;
        fewer.drain(HEAD + SLOT..HEAD + 2 * SLOT);
        assert_eq!(code(&hashed(fewer), &recovery(1)), "wrong_key");
        let other = seal(b"record", &[recovery(1), quick("horse")], &mut sys::rng()).unwrap();
        let mut mixed = file.clone();
        mixed[HEAD + SLOT..HEAD + 2 * SLOT].copy_from_slice(&other[HEAD + SLOT..HEAD + 2 * SLOT]);
        assert_eq!(code(&hashed(mixed), &recovery(1)), "backup_damaged");
        let mut swapped = file;
        swapped[HEAD..HEAD + 2 * SLOT].rotate_left(SLOT);
        assert_eq!(code(&hashed(swapped), &recovery(1)), "backup_damaged");
    }

    #[test]
    fn forged_parameters_are_refused_before_they_cost_anything() {
        let file = seal(b"record", &[quick("horse")], &mut sys::rng()).unwrap();
        // Memory, passes and lanes of the slot: beyond 1 GiB, 16 and 8.
        for (at, value) in [
            (17, 1024 * 1024 + 1),
            (17, u32::MAX),
            (21, 17),
            (21, u32::MAX),
            (25, 9),
            (25, 0),
        ] {
            let mut bad = file.clone();
            let at = HEAD + at;
            bad[at..at + 4].copy_from_slice(&value.to_be_bytes());
            assert_eq!(code(&hashed(bad), &quick("horse")), "backup_damaged");
        }
        let mut unknown = file.clone();
        unknown[HEAD] = 3;
        assert_eq!(code(&hashed(unknown), &quick("horse")), "backup_version");
        for count in [0, 3, 255] {
            let mut bad = file.clone();
            bad[9] = count;
            assert_eq!(code(&hashed(bad), &quick("horse")), "backup_damaged");
        }
    }
}
