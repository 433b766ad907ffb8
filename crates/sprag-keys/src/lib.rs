//! What opens a Sprag store: raw keys, passphrases, key files, the environment.
//!
//! A [`Key`] says where a secret comes from. A store keeps a [`KeySlot`] in its manifest, which says how the secret
//! becomes the [`UnlockKey`] that wraps the store's own random key:
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
//! whoever unwraps something with the key that comes out: this crate cannot know. Keys from a keyring or a key service
//! are for later versions.
#![forbid(unsafe_code)]

mod error;
mod key;
mod slot;
#[cfg(not(target_arch = "wasm32"))]
mod sys;

pub use error::KeyError;
pub use key::Key;
pub use slot::{KeySlot, UnlockKey};
pub use sprag_crypto::Argon2Params;
