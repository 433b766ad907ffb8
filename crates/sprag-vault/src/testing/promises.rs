//! The test list of `docs/VAULT.md`.
