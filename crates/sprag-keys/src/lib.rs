//! What opens a Sprag store or a vault: keys, where they are kept, how they are rotated.
//!
//! A [`Key`] says where a secret comes from: raw, a passphrase, a key file, the environment. A store keeps a [`KeySlot`]
//! in its manifest, which says how the secret becomes the [`UnlockKey`] that wraps the store's own random key:
//!
//! ```
//! # fn main() -> Result<(), sprag_keys::KeyError> {
//! use rand_core::UnwrapErr;
//! use sprag_keys::{Key, KeySlot};
//!
//! let mut rng = UnwrapErr(getrandom::SysRng);
//! let (slot, unlock) = Key::raw([7; 32]).new_slot(&mut rng)?;
//! let kept = slot.to_bytes();
//!
//! let again = Key::raw([7; 32]).unlock(&KeySlot::from_bytes(&kept)?)?;
//! assert_eq!(unlock.as_bytes(), again.as_bytes());
//! # Ok(()) }
//! ```
//!
//! A passphrase costs its guesser what Argon2id costs, and its owner the same at each opening. A wrong one is noticed by
//! whoever unwraps something with the key that comes out: this crate cannot know.
//!
//! A [`KeySource`] has keys by name and version: a [`KeyRing`] (in a [`RingFile`], opened by a [`Key`] or an
//! [`Envelope`] service), the environment ([`EnvSource`]), files of older programs ([`FileSource`]), and with features what lies
//! farther away. A [`RotationJob`]
//! puts records that are under an old version under the newest; [`batch`] does many records at once, each with an outcome
//! of its own. See docs/KEYS.md.
//!
//! | feature | what it adds | crates that come with it |
//! | --- | --- | --- |
//! | `keyring` | `KeyringSource`: the keyring of the system, entries of AEGIS | `keyring-core`, `log`; which keyring, the application chooses |
//! | `vault-kv` | `VaultKv`: HashiCorp Vault and OpenBao, KV version 2 | `ureq`, `rustls`, `serde_json`: about 30 |
//! | `aws-kms` | `AwsKms`: AWS KMS as an [`Envelope`] | the same |
//! | `lumera` | `FileSource::lumera_json`: the `keys.json` of Lumera | `serde_json` |
//! | `vault` | `EnvelopeKms`, `SourceKms`: services and sources for the slots of blobs | `sprag-vault` |
//! | `rayon` | threads for [`batch`] and [`RotationJob`] | `rayon`: 6 |
//!
//! None is on by default. It does not renew tokens, discover credentials of AWS beyond the environment, or notice that a
//! key ring was put back to an older copy.
#![forbid(unsafe_code)]

#[cfg(feature = "aws-kms")]
mod aws_kms;
mod batch;
#[cfg(feature = "vault")]
mod bridge;
#[cfg(not(target_arch = "wasm32"))]
mod encoding;
#[cfg(not(target_arch = "wasm32"))]
mod env_source;
mod error;
#[cfg(not(target_arch = "wasm32"))]
mod file_source;
#[cfg(any(feature = "vault-kv", feature = "aws-kms"))]
mod http;
mod id;
#[cfg(not(target_arch = "wasm32"))]
mod journal_file;
#[cfg(any(feature = "vault-kv", feature = "aws-kms", feature = "lumera"))]
mod json;
mod key;
#[cfg(feature = "keyring")]
mod keyring;
mod recovery;
mod ring;
#[cfg(not(target_arch = "wasm32"))]
mod ring_file;
mod rotation;
mod sealed_ring;
#[cfg(feature = "aws-kms")]
mod sigv4;
mod slot;
mod source;
#[cfg(not(target_arch = "wasm32"))]
mod sys;
#[cfg(feature = "vault-kv")]
mod vault_kv;

#[cfg(feature = "aws-kms")]
pub use aws_kms::{AwsCredentials, AwsKms, AwsKmsConfig};
pub use batch::{BatchError, batch};
#[cfg(feature = "vault")]
pub use bridge::{EnvelopeKms, SourceKms};
#[cfg(not(target_arch = "wasm32"))]
pub use env_source::EnvSource;
pub use error::KeyError;
#[cfg(not(target_arch = "wasm32"))]
pub use file_source::FileSource;
pub use id::{KeyId, KeyVersion};
#[cfg(not(target_arch = "wasm32"))]
pub use journal_file::JournalFile;
pub use key::Key;
#[cfg(feature = "keyring")]
pub use keyring::KeyringSource;
pub use recovery::{RECOVERY_GROUPS, RecoveryKey, RecoveryKeyError};
pub use ring::{KeyRing, KeyState, RingError, VersionInfo};
#[cfg(not(target_arch = "wasm32"))]
pub use ring_file::RingFile;
#[doc(hidden)]
pub use rotation::reread_journal;
pub use rotation::{
    Cause, Failure, Journal, Progress, RecordError, Records, Report, Rotate, Rotated,
    RotationError, RotationJob, Sealer,
};
pub use sealed_ring::{Opener, RingFileError, RingSeal};
pub use slot::{KeySlot, UnlockKey};
pub use source::{DataKey, Envelope, KeySource, SourceError, VersionedKey};
pub use sprag_crypto::Argon2Params;
#[cfg(feature = "vault-kv")]
pub use vault_kv::{VaultConfig, VaultKv};
