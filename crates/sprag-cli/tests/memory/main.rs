//! Memories at the command line and over the Model Context Protocol, with real processes.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod agent;
mod devices;
mod home;
mod mcp;
mod people;
#[cfg(unix)]
mod together;
