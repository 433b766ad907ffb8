//! `sprag demo`: two people talk over everything that goes wrong, for real, and what it cost is measured.

mod devices;
mod folder;
mod healing;
mod memories;
mod rollback;

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use sprag::{Client, InboxId, Key, Task};
use zeroize::Zeroizing;

use self::folder::Folder;
use crate::args::DemoArgs;
use crate::error::{CliError, Exit};
use crate::line::{Figures, Line, task_bytes};
use crate::output::Output;
use crate::server::{Ended, Server};
use crate::{key, sys};

/// Messages of the measured run: enough for a median, few enough for a slow disk.
const MEASURED: usize = 100;

pub(super) fn run(args: &DemoArgs, output: &mut Output) -> Result<Exit, CliError> {
    let begun = Instant::now();
    let folder = match &args.keep {
        Some(folder) => Folder::keep(folder)?,
        None => Folder::temporary()?,
    };
    let mut demo = Demo::begin(folder, output)?;
    demo.first_contact()?;
    demo.safety_numbers()?;
    demo.out_of_order()?;
    demo.lost_on_the_way()?;
    demo.restart()?;
    demo.replayed_and_forged()?;
    demo.second_opener()?;
    demo.lost_session()?;
    demo.restored_copy()?;
    demo.second_device()?;
    demo.measure()?;
    demo.end(begun)
}

struct Demo<'a> {
    output: &'a mut Output,
    server: Server,
    alice: Client,
    bob: Client,
    alice_key: Key,
    bob_key: Key,
    figures: Figures,
    /// Last, so that the stores are closed when it goes.
    folder: Folder,
}

/// What the demo claims, it checks.
fn ensure(holds: bool, what: &'static str) -> Result<(), CliError> {
    if holds {
        Ok(())
    } else {
        Err(CliError::Demo(what))
    }
}

impl<'a> Demo<'a> {
    fn begin(folder: Folder, output: &'a mut Output) -> Result<Self, CliError> {
        say(
            output,
            format!(
                "Alice and Bob work in {}. Their stores are on disk, and their server is a folder there, \
                 which sees nothing but ciphertext.",
                folder.path().display()
            ),
        )?;
        let alice_key = match key::from_environment()? {
            Some(key) => key,
            None => Key::passphrase(&Zeroizing::new(hex::encode(sys::random::<16>()))),
        };
        let bob_key = key::create(&folder.path().join("bob.key"))?;
        let begun = Instant::now();
        let alice = Client::create(folder.store("alice"), alice_key.clone(), "alice")?;
        let bob = Client::create(folder.store("bob"), bob_key.clone(), "bob")?;
        say(
            output,
            format!(
                "Each made an account key, a device with an identity key, a signed device list and prekeys, in \
                 {} ms. Alice's store opens with a passphrase (Argon2id with the default parameters), Bob's with a \
                 key file.",
                begun.elapsed().as_millis()
            ),
        )?;
        let server = Server::open(&folder.path().join("server"))?;
        server.run_tasks(&alice, output)?;
        server.run_tasks(&bob, output)?;
        say(
            output,
            format!(
                "Both published their lists and prekeys: {} bytes.",
                server.traffic()
            ),
        )?;
        Ok(Self {
            output,
            server,
            alice,
            bob,
            alice_key,
            bob_key,
            figures: Figures::default(),
            folder,
        })
    }

    fn say(&mut self, text: impl Into<String>) -> Result<(), CliError> {
        say(self.output, text)
    }

    fn first_contact(&mut self) -> Result<(), CliError> {
        self.alice
            .send_encrypted_message("bob", "Hello Bob".as_bytes())?;
        let fetch = self.alice.tasks()?;
        ensure(
            matches!(fetch.as_slice(), [Task::FetchBundles { .. }]),
            "a first message first asks for a bundle",
        )?;
        let before = self.server.traffic();
        self.perform(&self.alice, &fetch)?;
        self.figures.bundle_bytes = self.server.traffic() - before;
        let envelope = self.hand_over(&self.alice)?;
        self.figures.first_envelope_bytes = envelope;
        self.receive_all("Hello Bob")?;

        self.bob
            .send_encrypted_message("alice", "Hello Alice".as_bytes())?;
        self.server.run_tasks(&self.bob, self.output)?;
        let fetched = self.server.fetch(&self.alice, self.output)?;
        ensure(fetched.refused == 0, "the reply is not refused")?;
        ensure(
            self.take_inbox(&self.alice)? == ["Hello Alice"],
            "the reply is opened",
        )?;
        self.figures.messages += 1;

        self.alice
            .send_encrypted_message("bob", "Hello Bob".as_bytes())?;
        self.figures.next_envelope_bytes = self.hand_over(&self.alice)?;
        self.receive_all("Hello Bob")?;
        let Figures {
            bundle_bytes,
            first_envelope_bytes,
            next_envelope_bytes,
            ..
        } = self.figures;
        self.say(format!(
            "Alice fetched a bundle of Bob's prekeys ({bundle_bytes} bytes), opened a session with PQXDH (X25519 and \
             ML-KEM-1024: an attacker must break both), and wrote to him while he was away: {first_envelope_bytes} \
             bytes with the handshake. He answered; now the same message takes {next_envelope_bytes} bytes."
        ))
    }

    fn safety_numbers(&mut self) -> Result<(), CliError> {
        let missing = CliError::Demo("both know each other");
        let alice = self.alice.safety_number("bob")?;
        let bob = self.bob.safety_number("alice")?;
        let (Some(alice), Some(bob)) = (alice, bob) else {
            return Err(missing);
        };
        ensure(alice.digits == bob.digits, "safety numbers are equal")?;
        ensure(
            self.bob.compare_safety_number("alice", &alice.code)? == Some(true),
            "the scanned code fits",
        )?;
        self.say("Both see the same safety number, so nobody stands between them:")?;
        self.output.line(&Line::SafetyNumber {
            user: "bob".to_owned(),
            digits: alice.digits,
            code: hex::encode(&alice.code),
            matches: Some(true),
        })
    }

    fn out_of_order(&mut self) -> Result<(), CliError> {
        for number in 0..10 {
            self.alice
                .send_encrypted_message("bob", format!("number {number}").as_bytes())?;
        }
        let mut envelopes = self.sealed(&self.alice)?;
        ensure(envelopes.len() == 10, "ten envelopes wait")?;
        envelopes.reverse();
        for (number, (task, envelope)) in (0..10).rev().zip(&envelopes) {
            self.carry(&self.bob, envelope)?;
            self.alice.done(task.id())?;
            ensure(
                self.take_inbox(&self.bob)? == [format!("number {number}")],
                "each opens on its own",
            )?;
            self.figures.messages += 1;
        }
        self.say("Ten messages came in reverse order. Bob opened each as it came; the keys of those still missing waited.")
    }

    fn lost_on_the_way(&mut self) -> Result<(), CliError> {
        for text in ["lost at first", "second", "third"] {
            self.alice.send_encrypted_message("bob", text.as_bytes())?;
        }
        let envelopes = self.sealed(&self.alice)?;
        let Some(((lost, before), others)) = envelopes.split_first() else {
            return Err(CliError::Demo("three envelopes wait"));
        };
        for (task, envelope) in others {
            self.carry(&self.bob, envelope)?;
            self.alice.done(task.id())?;
        }
        ensure(
            self.take_inbox(&self.bob)? == ["second", "third"],
            "others open without the lost one",
        )?;
        let again = self.sealed(&self.alice)?;
        let [(task, envelope)] = again.as_slice() else {
            return Err(CliError::Demo("the lost one is offered again, alone"));
        };
        ensure(
            task.id() == lost.id() && envelope == before,
            "the same bytes are offered again",
        )?;
        self.carry(&self.bob, envelope)?;
        self.alice.done(task.id())?;
        ensure(
            self.take_inbox(&self.bob)? == ["lost at first"],
            "the lost one opens late",
        )?;
        self.figures.messages += 3;
        self.say(
            "One of three messages was lost on the way. The other two opened at once; Alice's outbox offered the \
             identical bytes again, and they opened late.",
        )
    }

    fn restart(&mut self) -> Result<(), CliError> {
        self.bob
            .send_encrypted_message("alice", "before the restart".as_bytes())?;
        self.server.run_tasks(&self.bob, self.output)?;
        self.server.fetch(&self.alice, self.output)?;
        self.alice
            .send_encrypted_message("bob", "still in the outbox".as_bytes())?;
        let before = self.sealed(&self.alice)?;
        self.alice.close()?;
        self.bob.close()?;

        let begun = Instant::now();
        self.alice = Client::open(self.folder.store("alice"), self.alice_key.clone())?;
        self.figures.open_with_passphrase_ms = begun.elapsed().as_millis();
        let begun = Instant::now();
        self.bob = Client::open(self.folder.store("bob"), self.bob_key.clone())?;
        self.figures.open_with_key_file_ms = begun.elapsed().as_millis();

        ensure(
            self.take_inbox(&self.alice)? == ["before the restart"],
            "an unread message is still there",
        )?;
        ensure(
            self.sealed(&self.alice)? == before,
            "the outbox offers the same bytes",
        )?;
        self.figures.messages += 1;
        self.server.run_tasks(&self.alice, self.output)?;
        self.receive_all("still in the outbox")?;
        self.say(format!(
            "Both ended and began again ({} ms and {} ms to open). What Alice had not read was still there, what she \
             had not handed over went out with the same bytes, and the session went on.",
            self.figures.open_with_passphrase_ms, self.figures.open_with_key_file_ms
        ))
    }

    fn replayed_and_forged(&mut self) -> Result<(), CliError> {
        self.alice
            .send_encrypted_message("bob", "only once".as_bytes())?;
        let envelopes = self.sealed(&self.alice)?;
        let [(task, genuine)] = envelopes.as_slice() else {
            return Err(CliError::Demo("one envelope waits"));
        };
        let mut codes = Vec::new();
        for place in [genuine.len() / 2, genuine.len() - 1] {
            let mut forged = genuine.clone();
            if let Some(byte) = forged.get_mut(place) {
                *byte ^= 1;
            }
            let received = self.bob.receive_encrypted_message(&forged)?;
            let refusal = received.refused().map(sprag::Refusal::code);
            codes.push(refusal.ok_or(CliError::Demo("a forged envelope is refused"))?);
        }
        ensure(
            self.bob.inbox()?.is_empty(),
            "a forged envelope brings nothing",
        )?;
        self.carry(&self.bob, genuine)?;
        self.alice.done(task.id())?;
        ensure(
            self.take_inbox(&self.bob)? == ["only once"],
            "the genuine one opens",
        )?;
        self.figures.messages += 1;
        let replayed = self.bob.receive_encrypted_message(genuine)?;
        let refusal = replayed.refused().map(sprag::Refusal::code);
        let replay = refusal.ok_or(CliError::Demo("a replay is refused"))?;
        ensure(
            replayed.messages().is_empty() && self.bob.inbox()?.is_empty(),
            "a replay brings nothing",
        )?;
        self.say(format!(
            "Somebody changed one bit of an envelope, in two places: refused ({}). The genuine one still opened, for \
             nothing had moved. The same envelope once more: refused ({replay}).",
            codes.join(", ")
        ))
    }

    /// Another process tries to open Bob's store, which this one has open.
    fn second_opener(&mut self) -> Result<(), CliError> {
        let program =
            std::env::current_exe().map_err(|cause| CliError::file("sprag".as_ref(), cause))?;
        let ended = Command::new(&program)
            .args(["status", "--json", "--home"])
            .arg(self.folder.path().join("bob"))
            .arg("--key-file")
            .arg(self.folder.path().join("bob.key"))
            .env_remove("SPRAG_SERVER")
            .stdin(Stdio::null())
            .output()
            .map_err(|cause| CliError::file(&program, cause))?;
        ensure(
            ended.status.code() == Some(i32::from(Exit::InUse as u8)),
            "a second opener is told that the store is in use",
        )?;
        ensure(
            String::from_utf8_lossy(&ended.stderr).contains("\"store_in_use\""),
            "it is told so by name",
        )?;
        self.say(format!(
            "A second process tried to open Bob's store: store_in_use, exit code {}.",
            Exit::InUse as u8
        ))
    }

    fn measure(&mut self) -> Result<(), CliError> {
        let text = [b'x'; 100];
        let mut sends = Vec::new();
        let mut receives = Vec::new();
        let address = self.bob.address()?;
        for _ in 0..MEASURED {
            let begun = Instant::now();
            self.alice.send_encrypted_message("bob", &text)?;
            sends.push(begun.elapsed());
            self.hand_over(&self.alice)?;
            let Some(envelope) = self.server.take(&address)? else {
                return Err(CliError::Demo("one envelope waits"));
            };
            let begun = Instant::now();
            let received = self.bob.receive_encrypted_message(&envelope)?;
            receives.push(begun.elapsed());
            ensure(received.messages().len() == 1, "each message is opened")?;
            self.acknowledge(&self.bob)?;
        }
        self.figures.messages += MEASURED;
        self.figures.measured = MEASURED;
        self.figures.send_median_us = median(sends).as_micros();
        self.figures.receive_median_us = median(receives).as_micros();
        self.say(format!(
            "Alice wrote {MEASURED} more messages of 100 bytes. Each call came back when its effect was on the disk."
        ))
    }

    fn end(mut self, begun: Instant) -> Result<Exit, CliError> {
        self.alice.close()?;
        self.bob.close()?;
        self.figures.disk_bytes = self.folder.size("alice")? + self.folder.size("bob")?;
        self.figures.wire_bytes = self.server.traffic();
        self.figures.total_ms = begun.elapsed().as_millis();
        let figures = std::mem::take(&mut self.figures);
        self.output.line(&Line::Figures(figures))?;
        let last = if self.folder.is_kept() {
            format!(
                "Everything stays in {0}. Look around with `sprag --home {0}/bob --key-file {0}/bob.key status`.",
                self.folder.path().display()
            )
        } else {
            "The folder is removed again.".to_owned()
        };
        self.say(last)?;
        Ok(Exit::Ok)
    }

    /// Does these tasks.
    fn perform(&self, client: &Client, tasks: &[Task]) -> Result<(), CliError> {
        for task in tasks {
            match self.server.perform(client, task)? {
                Ended::Done => {}
                _ => return Err(CliError::Demo("the server does what it is asked")),
            }
        }
        Ok(())
    }

    /// Hands the one envelope that waits to the server; says how long it was.
    fn hand_over(&self, client: &Client) -> Result<usize, CliError> {
        let tasks = client.tasks()?;
        let [task @ Task::Deliver { .. }] = tasks.as_slice() else {
            return Err(CliError::Demo("one envelope waits"));
        };
        self.perform(client, &tasks)?;
        Ok(task_bytes(task).len())
    }

    /// The envelopes that wait to be handed over.
    fn sealed(&self, client: &Client) -> Result<Vec<(Task, Vec<u8>)>, CliError> {
        let tasks = client.tasks()?.into_iter();
        let sealed = tasks.filter(|task| matches!(task, Task::Deliver { .. }));
        Ok(sealed
            .map(|task| {
                let envelope = task_bytes(&task).to_vec();
                (task, envelope)
            })
            .collect())
    }

    /// Gives an envelope to its receiver, past the server.
    fn carry(&self, client: &Client, envelope: &[u8]) -> Result<(), CliError> {
        self.server.moved(envelope.len());
        let received = client.receive_encrypted_message(envelope)?;
        ensure(
            received.refused().is_none() && received.messages().len() == 1,
            "a genuine envelope brings its message",
        )
    }

    /// Bob fetches what waits: this one message.
    fn receive_all(&mut self, expected: &str) -> Result<(), CliError> {
        let fetched = self.server.fetch(&self.bob, self.output)?;
        ensure(
            fetched.envelopes == 1 && fetched.refused == 0,
            "one envelope came and was not refused",
        )?;
        ensure(
            self.take_inbox(&self.bob)? == [expected],
            "it brought the message",
        )?;
        self.figures.messages += 1;
        Ok(())
    }

    fn take_inbox(&self, client: &Client) -> Result<Vec<String>, CliError> {
        let messages = client.inbox()?;
        self.acknowledge(client)?;
        Ok(messages.iter().map(sprag::Message::text_lossy).collect())
    }

    fn acknowledge(&self, client: &Client) -> Result<(), CliError> {
        let ids: Vec<InboxId> = client.inbox()?.iter().map(sprag::Message::id).collect();
        for id in ids {
            client.acknowledge(id)?;
        }
        Ok(())
    }
}

/// One step of the story.
fn say(output: &mut Output, text: impl Into<String>) -> Result<(), CliError> {
    output.line(&Line::Step { text: text.into() })?;
    // Whoever watches reads it while it happens.
    output.flush()
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}
