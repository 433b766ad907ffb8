//! The Double Ratchet of Sprag/1: encrypted headers, skipped keys, origin seal, staged decryption
#![forbid(unsafe_code)]
