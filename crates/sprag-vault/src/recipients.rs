//! Whom a blob is sealed to.

use std::fmt;

use rand_core::CryptoRng;
use sprag_crypto::{Argon2Params, RecipientKey, passphrase, seal_in_place};

use crate::kms::Kms;
use crate::slot::{self, Slot};
use crate::{DataKey, SealError};

/// HPKE `info` of recipient slots.
pub(crate) const RECIPIENT_INFO: &[u8] = b"evlt/v1 slot";
/// HPKE `aad` of recipient slots.
pub(crate) const RECIPIENT_AAD: &[u8] = b"";
/// Associated data of passphrase slots.
pub(crate) const PASSPHRASE_AAD: &[u8] = b"";

/// Somebody who will be able to open a blob. An id is any bytes, for a reader with several keys; it stands in clear and may be
/// empty.
#[derive(Clone)]
pub struct Recipient<'a>(To<'a>);

#[derive(Clone)]
enum To<'a> {
    Direct(&'a [u8]),
    Kms(&'a [u8], &'a dyn Kms),
    Wrapped(&'a [u8], &'a [u8]),
    Key(&'a [u8], RecipientKey),
    Passphrase(&'a [u8], &'a str, Argon2Params),
    #[cfg(test)]
    Slot(Slot),
}

impl fmt::Debug for Recipient<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recipient").finish_non_exhaustive()
    }
}

impl<'a> Recipient<'a> {
    /// Whoever has the data key under this id. It adds 5 bytes and the id.
    #[must_use]
    pub fn direct(id: &'a (impl AsRef<[u8]> + ?Sized)) -> Self {
        Self(To::Direct(id.as_ref()))
    }

    /// Whoever a key service unwraps for. It is asked when the blob is begun.
    #[must_use]
    pub fn kms(id: &'a (impl AsRef<[u8]> + ?Sized), kms: &'a dyn Kms) -> Self {
        Self(To::Kms(id.as_ref(), kms))
    }

    /// The same, with the data key wrapped already, as the service answered.
    #[must_use]
    pub fn wrapped(
        id: &'a (impl AsRef<[u8]> + ?Sized),
        wrapped: &'a (impl AsRef<[u8]> + ?Sized),
    ) -> Self {
        Self(To::Wrapped(id.as_ref(), wrapped.as_ref()))
    }

    /// Whoever has the private half of this key: HPKE. It adds 85 bytes and the id, and draws 32 bytes.
    #[must_use]
    pub fn key(id: &'a (impl AsRef<[u8]> + ?Sized), key: RecipientKey) -> Self {
        Self(To::Key(id.as_ref(), key))
    }

    /// Whoever knows this passphrase, stretched with Argon2id at 64 MiB and 3 passes. It adds 90 bytes and the id, and draws 28
    /// bytes.
    #[must_use]
    pub fn passphrase(id: &'a (impl AsRef<[u8]> + ?Sized), passphrase: &'a str) -> Self {
        Self::passphrase_with(id, passphrase, Argon2Params::DEFAULT)
    }

    /// The same at another cost.
    #[must_use]
    pub fn passphrase_with(
        id: &'a (impl AsRef<[u8]> + ?Sized),
        passphrase: &'a str,
        params: Argon2Params,
    ) -> Self {
        Self(To::Passphrase(id.as_ref(), passphrase, params))
    }

    #[cfg(test)]
    pub(crate) fn slot(slot: Slot) -> Self {
        Self(To::Slot(slot))
    }

    pub(crate) fn to_slot(
        &self,
        key: &DataKey,
        rng: &mut (impl CryptoRng + ?Sized),
    ) -> Result<Slot, SealError> {
        Ok(match &self.0 {
            To::Direct(id) => Slot::new(slot::DIRECT, id, Vec::new()),
            To::Kms(id, kms) => Slot::new(slot::KMS, id, kms.wrap_key(id, key)?),
            To::Wrapped(id, wrapped) => Slot::new(slot::KMS, id, wrapped.to_vec()),
            To::Key(id, recipient) => {
                let sealed = recipient
                    .seal(RECIPIENT_INFO, RECIPIENT_AAD, key.as_bytes(), rng)
                    .map_err(|_| SealError::InvalidRecipient)?;
                Slot::new(slot::RECIPIENT, id, sealed)
            }
            To::Passphrase(id, passphrase, params) => Slot::new(
                slot::PASSPHRASE,
                id,
                stretch(passphrase, *params, key, rng)?,
            ),
            #[cfg(test)]
            To::Slot(slot) => slot.clone(),
        })
    }
}

/// `u32 KiB ‖ u32 passes ‖ u8 lanes ‖ salt 16 ‖ nonce 12 ‖ AES-256-GCM(Argon2id key, data key)`.
fn stretch(
    words: &str,
    params: Argon2Params,
    key: &DataKey,
    rng: &mut (impl CryptoRng + ?Sized),
) -> Result<Vec<u8>, SealError> {
    if words.is_empty() {
        return Err(SealError::EmptyPassphrase);
    }
    if !slot::work_is_allowed(params) {
        return Err(SealError::PassphraseCost);
    }
    let (mut salt, mut nonce) = ([0; 16], [0; 12]);
    rng.fill_bytes(&mut salt);
    rng.fill_bytes(&mut nonce);
    let stretched = passphrase::derive(words.as_bytes(), &salt, params)
        .map_err(|_| SealError::PassphraseCost)?;
    // Of its final size from the start, so that no copy of the key is left behind.
    let mut body = Vec::with_capacity(85);
    body.extend_from_slice(&params.memory_kib().to_be_bytes());
    body.extend_from_slice(&params.passes().to_be_bytes());
    body.push(u8::try_from(params.lanes()).unwrap_or(u8::MAX));
    body.extend_from_slice(&salt);
    body.extend_from_slice(&nonce);
    let from = body.len();
    body.extend_from_slice(key.as_bytes());
    seal_in_place(&stretched, &nonce, PASSPHRASE_AAD, &mut body, from);
    Ok(body)
}
