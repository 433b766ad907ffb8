//! What the workspace's benches share.
#![forbid(unsafe_code)]
