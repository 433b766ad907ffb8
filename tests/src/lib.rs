//! What the workspace's tests share.
#![forbid(unsafe_code)]

pub mod fuzz_bodies;
