//! The cryptographic primitives of Sprag: the only crate that names a cipher, a curve or a hash
#![forbid(unsafe_code)]
