//! The Signal Protocol for chat clients and AI-agent apps: end-to-end encrypted messages, durable by default, post-quantum by default
#![forbid(unsafe_code)]
