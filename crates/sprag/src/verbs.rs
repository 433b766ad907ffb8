//! The blocking verbs: each waits for the one of the same name in [`Start`].

use sprag_session::{Failure, InboxId, MessageId, Task, TaskId};

use crate::client::Client;
use crate::types::{Contact, Message, NumberedEvent, Received, SafetyNumber, Status};
use crate::{Error, Surroundings};

impl Client {
    /// A client whose store is in memory and ends with it: for tests, and for trying things out.
    ///
    /// # Errors
    /// `bad_input`.
    pub fn in_memory(user: &str) -> Result<Self, Error> {
        let store = sprag_store::Store::in_memory(crate::sys::rng())?;
        Self::with_store(store, user, Surroundings::default())
    }

    /// As [`in_memory`](Self::in_memory), for a new device of an account that exists: see
    /// [`link_request`](Self::link_request).
    ///
    /// # Errors
    /// `bad_input`.
    pub fn in_memory_linked(user: &str) -> Result<Self, Error> {
        let store = sprag_store::Store::in_memory(crate::sys::rng())?;
        Self::with_store_linked(store, user, Surroundings::default())
    }

    /// Sends bytes to all devices of a user, encrypted for each, with a copy for each other device of our own. When it returns, the message is durable: what could be
    /// encrypted is offered by [`tasks`](Self::tasks), what could not waits for what other tasks fetch.
    ///
    /// # Errors
    /// `bad_input`: more than 917,504 bytes, a user id out of range, or a message to oneself from one's only device
    /// (from one of several it goes to the others). `outbox_full`; `not_linked`, `link_expired`;
    /// `unlisted_device` if this device was removed from its account; those of the store.
    pub fn send_encrypted_message(&self, user: &str, message: &[u8]) -> Result<MessageId, Error> {
        self.start().send_encrypted_message(user, message).wait()
    }

    /// As [`send_encrypted_message`](Self::send_encrypted_message), under an id of the caller's choice: the same id
    /// again gives the same result and sends nothing.
    ///
    /// # Errors
    /// As there.
    pub fn send_encrypted_message_as(
        &self,
        id: MessageId,
        user: &str,
        message: &[u8],
    ) -> Result<MessageId, Error> {
        self.start()
            .send_encrypted_message_as(id, user, message)
            .wait()
    }

    /// Takes an envelope from the server. A frame that is refused is a result, not an error. When it returns, what it
    /// brought is durable: messages stay in the [`inbox`](Self::inbox) until they are acknowledged.
    ///
    /// # Errors
    /// Those of the store; then the server keeps the envelope.
    pub fn receive_encrypted_message(&self, envelope: &[u8]) -> Result<Received, Error> {
        self.start().receive_encrypted_message(envelope).wait()
    }

    /// The messages that wait to be acknowledged, oldest first, at most 256 and about 16 MiB.
    ///
    /// # Errors
    /// Those of the store.
    pub fn inbox(&self) -> Result<Vec<Message>, Error> {
        self.start().inbox().wait()
    }

    /// The application has taken over a message: it is not offered again. Twice is once. Written with the next commit.
    ///
    /// # Errors
    /// Those of the store.
    pub fn acknowledge(&self, id: InboxId) -> Result<(), Error> {
        self.start().acknowledge(id).wait()
    }

    /// What the network must do, oldest first, at most 256 and about 16 MiB. A task is offered again until it is done, supplied or failed.
    ///
    /// # Errors
    /// Those of the store.
    pub fn tasks(&self) -> Result<Vec<Task>, Error> {
        self.start().tasks().wait()
    }

    /// The server's reply to a task. What it brings takes effect at once. Twice is once.
    ///
    /// # Errors
    /// Why the reply was refused, also told as an event: then the task stays. Those of the store.
    pub fn supply(&self, id: TaskId, reply: &[u8]) -> Result<(), Error> {
        self.start().supply(id, reply).wait()
    }

    /// What the server holds of our prekeys, a `PreKeyState`: asked now and then, whether or not there is a task. If it
    /// runs low, or the server forgot something or began anew, tasks follow.
    ///
    /// # Errors
    /// `malformed`; those of the store.
    pub fn supply_pre_key_state(&self, state: &[u8]) -> Result<(), Error> {
        self.start().supply_pre_key_state(state).wait()
    }

    /// A task was done. Twice is once. Written with the next commit. A task that fetches ends with
    /// [`supply`](Self::supply) alone.
    ///
    /// # Errors
    /// Those of the store.
    pub fn done(&self, id: TaskId) -> Result<(), Error> {
        self.start().done(id).wait()
    }

    /// A task could not be done; the library decides what follows.
    ///
    /// # Errors
    /// Those of the store.
    pub fn failed(&self, id: TaskId, failure: &Failure) -> Result<(), Error> {
        self.start().failed(id, failure).wait()
    }

    /// Offers a task again that the server refused.
    ///
    /// # Errors
    /// Those of the store.
    pub fn retry(&self, id: TaskId) -> Result<(), Error> {
        self.start().retry(id).wait()
    }

    /// The user decided to go on with somebody: as remembered, or with the changed identity that the server showed.
    /// Compare safety numbers first.
    ///
    /// # Errors
    /// `needs_bundle` if the server has shown nothing of him yet: send to him, or fetch first. Those of the store.
    pub fn accept(&self, user: &str) -> Result<(), Error> {
        self.start().accept(user).wait()
    }

    /// As [`accept`](Self::accept), of exactly the identity whose safety number was compared: 60 digits, as
    /// [`changed_safety_number`](Self::changed_safety_number) or [`safety_number`](Self::safety_number) gave them. If
    /// the server has shown another one meanwhile, nothing is accepted.
    ///
    /// # Errors
    /// `untrusted_identity`: the digits are not those of what would be accepted. As [`accept`](Self::accept).
    pub fn accept_identity(&self, user: &str, digits: &str) -> Result<(), Error> {
        self.start().accept_identity(user, digits).wait()
    }

    /// Replaces all sessions with a user, as after a suspected theft: fresh ones are opened, and what was held before is
    /// only read, for late messages, on both sides.
    ///
    /// # Errors
    /// `needs_bundle` if nothing of him came from the server yet; those of the store.
    pub fn reset(&self, user: &str) -> Result<(), Error> {
        self.start().reset(user).wait()
    }

    /// What became of a message, device by device; `None` if there is none of this id, or it is older than seven days.
    ///
    /// # Errors
    /// Those of the store.
    pub fn status(&self, id: MessageId) -> Result<Option<Vec<Status>>, Error> {
        self.start().status(id).wait()
    }

    /// What is remembered of a user; `None` for somebody never met.
    ///
    /// # Errors
    /// `bad_input`; those of the store.
    pub fn contact(&self, user: &str) -> Result<Option<Contact>, Error> {
        self.start().contact(user).wait()
    }

    /// The safety number with a user; `None` for somebody never met.
    ///
    /// # Errors
    /// `bad_input`; those of the store.
    pub fn safety_number(&self, user: &str) -> Result<Option<SafetyNumber>, Error> {
        self.start().safety_number(user).wait()
    }

    /// Whether the code that the other side shows is the counterpart of ours: `Some(false)` says that somebody may stand
    /// between; `None` is somebody never met.
    ///
    /// # Errors
    /// `malformed`: no such code. `unsupported_version`: one side must update. `bad_input`; those of the store.
    pub fn compare_safety_number(&self, user: &str, scanned: &[u8]) -> Result<Option<bool>, Error> {
        self.start().compare_safety_number(user, scanned).wait()
    }

    /// The safety number with the changed identity of a user: what to compare before [`accept`](Self::accept). `None`
    /// if no changed identity waits for a decision.
    ///
    /// # Errors
    /// `bad_input`; those of the store.
    pub fn changed_safety_number(&self, user: &str) -> Result<Option<SafetyNumber>, Error> {
        self.start().changed_safety_number(user).wait()
    }

    /// The events after number `since`, oldest first. The last 1,000 are kept.
    ///
    /// # Errors
    /// Those of the store.
    pub fn events(&self, since: u64) -> Result<Vec<NumberedEvent>, Error> {
        self.start().events(since).wait()
    }

    /// Forgets what was sent more than seven days ago. Call it daily.
    ///
    /// # Errors
    /// Those of the store.
    pub fn expire(&self) -> Result<(), Error> {
        self.start().expire().wait()
    }

    /// Waits until something has changed since the number that it gave before: then look at tasks, inbox and events.
    /// At first give 0; the answer comes at once.
    ///
    /// # Errors
    /// `closed`, `forked`.
    pub fn changed(&self, since: u64) -> Result<u64, Error> {
        self.start().changed(since).wait()
    }

    /// Commits what is lazy, unlocks the store and wipes the keys. Then every clone answers `closed`. Twice is once.
    ///
    /// # Errors
    /// Those of the store; it is closed all the same.
    pub fn close(&self) -> Result<(), Error> {
        self.start().close().wait()
    }
}
