//! What stands in a manifest about the key, and what comes of it.

use std::fmt;

use sprag_crypto::passphrase::derive;
use sprag_crypto::{Argon2Params, hkdf};
use zeroize::Zeroizing;

use crate::KeyError;

/// How a secret becomes an [`UnlockKey`]. Not a secret.
///
/// ```text
/// kind u8 (1 key of 32 bytes, 2 passphrase) ‖ salt(16) ‖ memory KiB u32 ‖ passes u32 ‖ lanes u32       29 bytes
/// ```
///
/// The parameters are zero for a key of 32 bytes. Those of a passphrase are checked before anything is computed with
/// them, so that a forged slot cannot make us fill the memory.
#[derive(Clone)]
pub struct KeySlot {
    salt: [u8; 16],
    kind: Kind,
}

#[derive(Clone, Copy)]
enum Kind {
    Raw,
    Passphrase(Argon2Params),
}

/// What a key gives out, before the salt.
pub(crate) enum Secret {
    Raw(Zeroizing<[u8; 32]>),
    Passphrase(Zeroizing<Vec<u8>>, Argon2Params),
}

impl KeySlot {
    /// The size of an encoded slot in bytes.
    pub const LEN: usize = 29;

    pub(crate) fn new(secret: &Secret, salt: [u8; 16]) -> Self {
        let kind = match secret {
            Secret::Raw(_) => Kind::Raw,
            Secret::Passphrase(_, params) => Kind::Passphrase(*params),
        };
        Self { salt, kind }
    }

    pub(crate) fn unlock(&self, secret: &Secret) -> Result<UnlockKey, KeyError> {
        let key = match (self.kind, secret) {
            (Kind::Raw, Secret::Raw(key)) => hkdf(&self.salt, key.as_slice(), &[LABEL]),
            (Kind::Passphrase(params), Secret::Passphrase(passphrase, _)) => {
                if passphrase.is_empty() {
                    return Err(KeyError::EmptyPassphrase);
                }
                derive(passphrase, &self.salt, params).map_err(|_| KeyError::Parameters)?
            }
            _ => return Err(KeyError::WrongKind),
        };
        Ok(UnlockKey(key))
    }

    /// The bytes to keep.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; Self::LEN] {
        let (kind, [memory, passes, lanes]) = match self.kind {
            Kind::Raw => (RAW, [0; 3]),
            Kind::Passphrase(params) => (
                PASSPHRASE,
                [params.memory_kib(), params.passes(), params.lanes()],
            ),
        };
        let mut bytes = [0; Self::LEN];
        let fields = [
            &[kind][..],
            &self.salt,
            &memory.to_be_bytes(),
            &passes.to_be_bytes(),
            &lanes.to_be_bytes(),
        ];
        for (byte, field) in bytes.iter_mut().zip(fields.concat()) {
            *byte = field;
        }
        bytes
    }

    /// Reads a slot.
    ///
    /// # Errors
    ///
    /// [`KeyError::UnknownSlot`] for a kind that this version does not know, [`KeyError::Parameters`] for parameters of
    /// Argon2id that it is not willing to compute.
    pub fn from_bytes(bytes: &[u8; Self::LEN]) -> Result<Self, KeyError> {
        let mut rest = bytes.as_slice();
        let [kind] = take(&mut rest)?;
        let salt = take(&mut rest)?;
        let [memory, passes, lanes] =
            [take(&mut rest)?, take(&mut rest)?, take(&mut rest)?].map(u32::from_be_bytes);
        let kind = match kind {
            RAW if [memory, passes, lanes] == [0; 3] => Kind::Raw,
            RAW => return Err(KeyError::Parameters),
            PASSPHRASE => Kind::Passphrase(
                Argon2Params::new(memory, passes, lanes).map_err(|_| KeyError::Parameters)?,
            ),
            _ => return Err(KeyError::UnknownSlot),
        };
        Ok(Self { salt, kind })
    }
}

impl fmt::Debug for KeySlot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeySlot").finish_non_exhaustive()
    }
}

/// The key that wraps the key of a store: 32 bytes, wiped.
pub struct UnlockKey(Zeroizing<[u8; 32]>);

impl UnlockKey {
    /// The key.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for UnlockKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UnlockKey").finish_non_exhaustive()
    }
}

fn take<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], KeyError> {
    let (field, after) = rest.split_first_chunk().ok_or(KeyError::UnknownSlot)?;
    *rest = after;
    Ok(*field)
}

const RAW: u8 = 1;
const PASSPHRASE: u8 = 2;
const LABEL: &[u8] = b"Sprag/1 unlock";
