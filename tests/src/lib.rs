//! What the workspace's tests share.
#![forbid(unsafe_code)]
