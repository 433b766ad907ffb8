//! A session is lost, and comes back by itself.

use sprag::Client;

use super::{Demo, ensure};
use crate::error::CliError;

impl Demo<'_> {
    /// Bob's store is set back by a copy that nothing watches: his sessions are those of before.
    pub(super) fn lost_session(&mut self) -> Result<(), CliError> {
        self.bob.close()?;
        self.folder.copy_store("bob")?;
        self.open_bob()?;
        for round in ["one turn", "and another"] {
            self.alice.send_encrypted_message("bob", round.as_bytes())?;
            self.server.run_tasks(&self.alice, self.output)?;
            self.receive_all(round)?;
            self.bob.send_encrypted_message("alice", round.as_bytes())?;
            self.server.run_tasks(&self.bob, self.output)?;
            self.server.fetch(&self.alice, self.output)?;
            ensure(self.take_inbox(&self.alice)? == [round], "a turn is read")?;
            self.figures.messages += 1;
        }
        self.bob.close()?;
        self.folder.put_back("bob")?;
        self.open_bob()?;

        let seen = self.alice.events(0)?.len();
        self.alice
            .send_encrypted_message("bob", "can you read this?".as_bytes())?;
        self.server.run_tasks(&self.alice, self.output)?;
        let fetched = self.server.fetch(&self.bob, self.output)?;
        ensure(
            fetched.refused == 1 && self.bob.inbox()?.is_empty(),
            "a session that went back cannot read what came after",
        )?;
        // Fetch a bundle, open a fresh session, ask; then the message comes again.
        let mut heard = Vec::new();
        for _ in 0..3 {
            for client in [&self.bob, &self.alice] {
                self.server.run_tasks(client, self.output)?;
                self.server.fetch(client, self.output)?;
            }
            heard.extend(self.take_inbox(&self.bob)?);
        }
        ensure(
            heard == ["can you read this?"],
            "the message comes again, once",
        )?;
        ensure(
            self.alice.events(0)?.len() > seen,
            "the sender is told that it was asked for",
        )?;
        self.figures.messages += 1;
        self.say(
            "Bob's store was replaced by a copy of some minutes ago, with nothing to notice it: his session had gone \
             back, and Alice's next message could not be read. Bob's device opened a fresh session by itself, asked for \
             what it had missed, and got it, once.",
        )
    }

    fn open_bob(&mut self) -> Result<(), CliError> {
        self.bob = Client::open(self.folder.store("bob"), self.bob_key.clone())?;
        Ok(())
    }
}
