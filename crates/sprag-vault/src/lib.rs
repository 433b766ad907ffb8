//! Sealed blobs: bytes in, bytes out. No file is opened here, no network used, no clock read.
//!
//! `evlt/v1` (`docs/VAULT.md`) says what it is, commits to its key, is bound to a context that the caller names, can be read and
//! written piece by piece in the memory of one chunk, and from any place; its recipients can be changed without touching the
//! payload. [`seal()`] and [`open()`] are for payloads in memory, [`Sealer`] and [`Opener`] for those of any length, [`SealWriter`]
//! and [`OpenReader`] for `std::io`, [`SeekReader`] for parts, [`reseal()`] for other recipients, [`rekey`] for another key.
//!
//! [`raw12`] reads what older programs wrote, and imports it.
//!
//! There is no authentication of a sender: whoever can read a blob can write another one for the same recipients.
//!
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};
//! # let mut rng = ChaCha20Rng::from_seed([1; 32]);
//! use sprag_vault::{Context, DataKey, OpenError, Recipient, RecipientPrivateKey, Sealing, Unlock, open, seal};
//!
//! let bob = RecipientPrivateKey::generate(&mut rng);
//! let key = DataKey::generate(&mut rng);
//! let to = [Recipient::key("bob", bob.public_key()), Recipient::passphrase("", "correct horse")];
//! let context = Context::from_pairs([("user", "alice"), ("record", "mem_1")])?;
//! let blob = seal(b"hello", &Sealing::new(&key, &to).context(&context), &mut rng)?;
//!
//! let unlock = Unlock::new().private_key("bob", bob);
//! assert_eq!(open(&blob, &unlock, &context)?.as_slice(), b"hello");
//! let other = Context::from_pairs([("user", "alice"), ("record", "mem_2")])?;
//! assert_eq!(open(&blob, &unlock, &other), Err(OpenError::ContextOrHeader));
//! # Ok(())
//! # }
//! ```
#![forbid(unsafe_code)]

mod body;
mod context;
mod error;
mod header;
mod io;
mod key;
mod kms;
mod open;
pub mod raw12;
mod recipients;
mod reseal;
mod seal;
mod seek;
mod slot;
mod suite;
mod unlock;

#[cfg(test)]
mod testing;

pub use context::Context;
pub use error::{
    ContextError, FormatError, KmsError, OpenError, RekeyError, ResealError, SealError,
};
pub use header::{Header, MAGIC, MAX_HEADER};
pub use io::{OpenReader, SealWriter};
pub use key::DataKey;
pub use kms::Kms;
pub use open::{Opener, open};
pub use recipients::Recipient;
pub use reseal::{rekey, reseal, reseal_header};
pub use seal::{Sealer, Sealing, seal};
pub use seek::{ReadAt, SeekError, SeekReader};
pub use slot::{MAX_PASSPHRASE_SLOTS, MAX_PASSPHRASE_WORK, MAX_SLOTS, Slot, SlotKind};
pub use sprag_crypto::{Argon2Params, RecipientKey, RecipientPrivateKey};
pub use suite::{ChunkSize, Suite};
pub use unlock::{PassphraseLimits, Unlock};
