//! What opens a Sprag store: raw keys, passphrases, key files, the environment
#![forbid(unsafe_code)]

mod error;

pub use error::KeyError;
