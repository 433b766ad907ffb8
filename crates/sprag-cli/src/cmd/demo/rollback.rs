//! A copy that somebody put back is noticed.

use sprag::{AfterRollback, Client, OpenOptions};

use super::{Demo, ensure};
use crate::error::CliError;

impl Demo<'_> {
    /// The same as with the lost session, but with an anchor.
    pub(super) fn restored_copy(&mut self) -> Result<(), CliError> {
        self.bob.close()?;
        self.bob = self.guarded()?;
        self.bob.close()?;
        self.folder.copy_store("bob")?;
        self.bob = self.guarded()?;
        self.bob.close()?;
        self.folder.put_back("bob")?;

        let noticed = self.guarded();
        ensure(
            matches!(&noticed, Err(CliError::Client(error)) if error.code() == "store_rolled_back"),
            "a restored copy is noticed",
        )?;
        let decided = self
            .options()
            .after_rollback(AfterRollback::NewSessions)
            .open(self.folder.store("bob"), self.bob_key.clone())?;
        self.bob = decided;
        for client in [&self.bob, &self.alice] {
            self.server.run_tasks(client, self.output)?;
        }
        self.bob
            .send_encrypted_message("alice", "still me".as_bytes())?;
        self.server.run_tasks(&self.bob, self.output)?;
        self.server.fetch(&self.alice, self.output)?;
        ensure(
            self.take_inbox(&self.alice)? == ["still me"],
            "it goes on with new sessions",
        )?;
        self.figures.messages += 1;
        // The rest of the demo opens his store by its key alone.
        self.bob.close()?;
        self.bob = Client::options()
            .without_anchor()
            .open(self.folder.store("bob"), self.bob_key.clone())?;
        self.say(
            "Bob's store was replaced by a copy once more, this time with an anchor outside of it: store_rolled_back. Bob \
             decided to go on, with new sessions and new prekeys, and wrote to Alice.",
        )
    }

    fn options(&self) -> OpenOptions {
        Client::options().anchor_file(self.folder.path().join("bob.anchor"))
    }

    fn guarded(&self) -> Result<Client, CliError> {
        let store = self.folder.store("bob");
        Ok(self.options().open(store, self.bob_key.clone())?)
    }
}
