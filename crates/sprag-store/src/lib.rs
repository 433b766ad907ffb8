//! Sprag's store: sealed rows, atomic ordered commits, sled and memory backends
#![forbid(unsafe_code)]
