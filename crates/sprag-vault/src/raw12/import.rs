//! Older things become `evlt/v1`.

use std::fmt;

use rand_core::CryptoRng;

use super::{LegacyError, aegis, lumera, pyagent};
use crate::{DataKey, SealError, Sealer, Sealing, seal};

/// Something older, with what opens it.
#[derive(Clone, Copy)]
#[non_exhaustive]
pub enum Legacy<'a> {
    /// A blob of Lumera, or a single one of AEGIS.
    Blob {
        /// Under this key.
        key: &'a DataKey,
        /// The blob.
        blob: &'a [u8],
        /// What stood beside it, if anything did.
        metadata: Option<&'a lumera::CryptoResult>,
    },
    /// A blob of Lumera under a password.
    Password {
        /// The password.
        password: &'a str,
        /// What was kept with it.
        salt: &'a [u8; 16],
        /// The blob.
        blob: &'a [u8],
        /// What stood beside it, if anything did.
        metadata: Option<&'a lumera::CryptoResult>,
    },
    /// A file of AEGIS.
    AegisFile {
        /// The master key.
        key: &'a DataKey,
        /// All of the file.
        file: &'a [u8],
    },
    /// A blob of PyAgent.
    PyAgent {
        /// The public identity key of the user.
        identity_public: &'a [u8; 32],
        /// What it holds.
        purpose: pyagent::Purpose,
        /// The blob.
        blob: &'a [u8],
    },
}

impl fmt::Debug for Legacy<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Blob { .. } => "Blob { .. }",
            Self::Password { .. } => "Password { .. }",
            Self::AegisFile { .. } => "AegisFile { .. }",
            Self::PyAgent { .. } => "PyAgent { .. }",
        })
    }
}

/// What was weak about something older, for whoever has it: it stays weak wherever copies of it are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Warning {
    /// Nothing tied it to what it is for: a server may have handed out another one in its place.
    NoContext,
    /// It was encrypted under a *public* key: everybody who had that could read it.
    KeyIsPublic,
    /// Its key was a password that was not stretched: guessing costs next to nothing.
    PasswordNotStretched,
    /// The hash of the payload stood beside it: whoever had that could confirm a guess.
    PlaintextHashBeside,
    /// Nothing tied its chunks to their places or to this file.
    ChunksNotBound,
    /// Nothing told where it ends: something may be missing.
    EndNotMarked,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoContext => "nothing tied it to what it is for",
            Self::KeyIsPublic => "it was encrypted under a public key",
            Self::PasswordNotStretched => "its password was not stretched",
            Self::PlaintextHashBeside => "the hash of its payload stood beside it",
            Self::ChunksNotBound => "nothing tied its chunks to their places",
            Self::EndNotMarked => "nothing told where it ends",
        })
    }
}

/// What became of something older.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Imported {
    /// The new blob.
    pub blob: Vec<u8>,
    /// What was weak about the old one: to be shown.
    pub warnings: Vec<Warning>,
}

/// Something older that is not imported. Nothing is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum ImportError {
    /// It does not open.
    #[error(transparent)]
    Legacy(#[from] LegacyError),
    /// The new blob is not made.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// The new data key is the old one, and what was weak about it would stay.
    #[error("the new data key is the old one")]
    SameKey,
}

/// Opens something older and seals its payload as `evlt/v1`, under another key.
///
/// # Errors
/// [`ImportError`]
pub fn import(
    legacy: &Legacy<'_>,
    sealing: &Sealing<'_>,
    rng: &mut (impl CryptoRng + ?Sized),
) -> Result<Imported, ImportError> {
    let mut warnings = vec![Warning::NoContext];
    let checked = |key: &DataKey| {
        if key.is(sealing.key()) {
            Err(ImportError::SameKey)
        } else {
            Ok(())
        }
    };
    let beside = |metadata: Option<&lumera::CryptoResult>| {
        let hash = metadata.and_then(|metadata| metadata.plaintext_sha256);
        hash.map(|_| Warning::PlaintextHashBeside)
    };
    let payload = match *legacy {
        Legacy::Blob {
            key,
            blob,
            metadata,
        } => {
            checked(key)?;
            warnings.extend(beside(metadata));
            lumera::open(key, blob, metadata)?
        }
        Legacy::Password {
            password,
            salt,
            blob,
            metadata,
        } => {
            let key = lumera::key_from_password(password, salt);
            checked(&key)?;
            warnings.push(Warning::PasswordNotStretched);
            warnings.extend(beside(metadata));
            lumera::open(&key, blob, metadata)?
        }
        Legacy::PyAgent {
            identity_public,
            purpose,
            blob,
        } => {
            let key = pyagent::data_key(identity_public, purpose);
            checked(&key)?;
            warnings.push(Warning::KeyIsPublic);
            super::open(&key, blob)?
        }
        Legacy::AegisFile { key, file } => {
            checked(key)?;
            let reader = aegis::FileReader::open(key, file)?;
            warnings.push(Warning::ChunksNotBound);
            if reader.header().total_size.is_none() {
                warnings.push(Warning::EndNotMarked);
            }
            let blob = reseal_chunks(reader, sealing, rng)?;
            return Ok(Imported { blob, warnings });
        }
    };
    let blob = seal(&payload, sealing, rng)?;
    Ok(Imported { blob, warnings })
}

/// Chunk by chunk, so that the payload is never in memory as a whole.
fn reseal_chunks(
    reader: aegis::FileReader<'_>,
    sealing: &Sealing<'_>,
    rng: &mut (impl CryptoRng + ?Sized),
) -> Result<Vec<u8>, ImportError> {
    let mut sealer = Sealer::new(sealing, rng)?;
    let mut blob = Vec::new();
    for chunk in reader {
        let chunk = chunk?;
        let mut input = chunk.as_slice();
        while let Some(piece) = sealer.push(&mut input)? {
            blob.extend_from_slice(piece);
        }
    }
    blob.extend_from_slice(&sealer.finish()?);
    Ok(blob)
}
