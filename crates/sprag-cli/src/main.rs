//! The sprag program.
#![forbid(unsafe_code)]
fn main() {}
