//! Every label of the store. Each names one use of one key.

/// The seal of the store's keys in the manifest.
pub(crate) const MANIFEST: &[u8] = b"Sprag/1 store manifest";
/// The key under which rows are sealed, of an epoch.
pub(crate) const ROWS: &[u8] = b"Sprag/1 store rows";
/// The seal of one row.
pub(crate) const ROW: &[u8] = b"Sprag/1 store row";
/// The key of the digest over all rows, of an epoch.
pub(crate) const DIGEST: &[u8] = b"Sprag/1 store digest";
/// The key of physical names, of an epoch.
pub(crate) const BLINDING: &[u8] = b"Sprag/1 store blinding";
/// The key of what an anchor remembers, of the store.
pub(crate) const ANCHOR: &[u8] = b"Sprag/1 store anchor";
/// The key of inner names, of the store.
pub(crate) const NAMES: &[u8] = b"Sprag/1 store names";
/// What two processes that open the same store prove to each other, of an epoch.
pub(crate) const PROOF: &[u8] = b"Sprag/1 store proof";
/// What they say to each other then.
pub(crate) const CHANNEL: &[u8] = b"Sprag/1 store channel";
