//! What a blob is encrypted with, and in what pieces.

use sprag_crypto::Aead;

use crate::FormatError;

/// How the payload is encrypted. Keys are derived with HKDF-SHA-256 in both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
#[repr(u8)]
pub enum Suite {
    /// AES-256-GCM: the default.
    #[default]
    Aes256Gcm = 1,
    /// ChaCha20-Poly1305: faster where the processor has no AES.
    ChaCha20Poly1305 = 2,
}

impl Suite {
    pub(crate) fn from_byte(byte: u8) -> Result<Self, FormatError> {
        match byte {
            1 => Ok(Self::Aes256Gcm),
            2 => Ok(Self::ChaCha20Poly1305),
            other => Err(FormatError::Suite(other)),
        }
    }

    pub(crate) fn aead(self) -> Aead {
        match self {
            Self::Aes256Gcm => Aead::Aes256Gcm,
            Self::ChaCha20Poly1305 => Aead::ChaCha20Poly1305,
        }
    }
}

/// Bytes of payload per chunk: a power of two from 4 KiB to 16 MiB, 64 KiB by default. A reader holds one chunk in memory
/// and a seek opens one; each costs 16 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChunkSize(u8);

impl ChunkSize {
    /// 4 KiB.
    pub const LEAST: Self = Self(12);
    /// 16 MiB.
    pub const MOST: Self = Self(24);

    /// 2^`log2` bytes, from 12 to 24.
    ///
    /// # Errors
    /// [`FormatError::ChunkSize`]
    pub const fn from_log2(log2: u8) -> Result<Self, FormatError> {
        if log2 >= Self::LEAST.0 && log2 <= Self::MOST.0 {
            Ok(Self(log2))
        } else {
            Err(FormatError::ChunkSize)
        }
    }

    /// The exponent.
    #[must_use]
    pub const fn log2(self) -> u8 {
        self.0
    }

    /// In bytes.
    #[must_use]
    pub const fn bytes(self) -> usize {
        1 << self.0
    }
}

impl Default for ChunkSize {
    fn default() -> Self {
        Self(16)
    }
}
