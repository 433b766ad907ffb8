//! A second device is linked, and is sent copies.

use sprag::{Client, Task};

use crate::error::CliError;
use crate::key;

use super::{Demo, ensure};

impl Demo<'_> {
    /// Bob links a laptop: it shows a code, his first device reads it, and both talk to Alice from then on.
    pub(super) fn second_device(&mut self) -> Result<(), CliError> {
        let key = key::create(&self.folder.path().join("laptop.key"))?;
        let laptop = Client::create_linked(self.folder.store("laptop"), key, "bob")?;
        let request = laptop.link_request()?;
        let refused = laptop.send_encrypted_message("alice", b"too early");
        ensure(refused.is_err(), "a device without keys sends nothing")?;
        let number = self.bob.link_device(&request, false)?;
        // The list is published first; then the laptop finds itself on it, and publishes its prekeys.
        self.server.publish(&self.bob, self.output)?;
        self.server.run_tasks(&laptop, self.output)?;
        ensure(laptop.device()? == number, "the laptop finds its number")?;
        self.server.run_tasks(&self.bob, self.output)?;
        self.server.fetch(&laptop, self.output)?;
        ensure(
            laptop.is_linked()?,
            "the laptop has the keys of the account",
        )?;
        self.server.run_tasks(&laptop, self.output)?;
        self.server.fetch(&self.bob, self.output)?;
        let id = self
            .bob
            .send_encrypted_message("alice", b"I have a laptop now")?;
        let copies = self.bob.status(id)?.map_or(0, |copies| copies.len());
        ensure(copies == 2, "a copy for Alice, and one for the laptop")?;
        self.server.run_tasks(&self.bob, self.output)?;
        self.server.fetch(&laptop, self.output)?;
        let inbox = laptop.inbox()?;
        let copied = inbox
            .iter()
            .any(|message| message.is_sync() && message.conversation() == ["alice"]);
        ensure(copied, "the laptop shows what Bob's first device sent")?;
        self.server.fetch(&self.alice, self.output)?;
        self.acknowledge(&self.alice)?;
        // Alice heard of the laptop with that message.
        let contact = self.alice.contact("bob")?;
        let known = contact.is_some_and(|bob| bob.devices.contains(&number));
        ensure(known, "Alice knows the laptop from Bob's own signed list")?;
        self.say(
            "Bob linked a laptop: his phone read the code that it showed, signed a new list, and gave it the keys of \
             the account. It was sent copies of what he wrote, and Alice heard of it.",
        )?;
        self.memories(&laptop)?;
        self.bob.remove_device(number)?;
        self.server.run_tasks(&self.bob, self.output)?;
        self.server.fetch(&self.alice, self.output)?;
        let contact = self.alice.contact("bob")?;
        let gone = contact.is_some_and(|bob| !bob.devices.contains(&number));
        ensure(gone, "Alice stops writing to a removed device")?;
        let left = self.alice.tasks()?;
        let to_laptop =
            |task: &Task| matches!(task, Task::Deliver { to, .. } if to.device().get() == number);
        ensure(
            !left.iter().any(to_laptop),
            "nothing waits for a removed device",
        )?;
        self.server.run_tasks(&self.alice, self.output)?;
        self.server.fetch(&self.bob, self.output)?;
        self.acknowledge(&self.bob)?;
        laptop.close()?;
        self.say("Bob removed the laptop, and Alice stopped writing to it before he said a word.")
    }
}
