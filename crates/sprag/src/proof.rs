//! What another process that opens the same profile can prove: see [`ProofKey`].

use sprag_store::ProofKey;

use crate::{Client, Error};

impl Client {
    /// The key by which this client and another process prove to each other that they open the same profile, and keep
    /// what they say to each other to themselves. It changes with each renewal of the store.
    ///
    /// # Errors
    /// `closed`, `forked`, and those of the store; a client whose store is in no directory of its own has none.
    pub fn proof_key(&self) -> Result<ProofKey, Error> {
        Ok(self.shared.store()?.proof_key()?)
    }
}
