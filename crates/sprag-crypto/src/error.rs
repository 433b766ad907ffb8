//! Failures of primitives. They say that something failed, and nothing finer.

/// A key has the wrong form, fails its check, or gives an all-zero agreement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[error("key is invalid")]
#[expect(clippy::exhaustive_structs, reason = "a failure that never tells more")]
pub struct InvalidKey;

/// A signature does not hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[error("signature does not hold")]
#[expect(clippy::exhaustive_structs, reason = "a failure that never tells more")]
pub struct BadSignature;

/// A seal does not open: other key, other data, or damaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[error("seal could not be opened")]
#[expect(clippy::exhaustive_structs, reason = "a failure that never tells more")]
pub struct OpenError;

/// Fingerprint iterations outside of 2 to 1,000,000.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[error("number of fingerprint iterations is out of range")]
#[expect(clippy::exhaustive_structs, reason = "a failure that never tells more")]
pub struct InvalidIterations;

/// Parameters of a passphrase derivation that this library refuses to compute, or has not enough memory for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[error("parameters of the key derivation are out of range")]
#[expect(clippy::exhaustive_structs, reason = "a failure that never tells more")]
pub struct KdfError;
