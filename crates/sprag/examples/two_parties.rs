//! Alice and Bob talk over a server that cannot read a word. `cargo run --example two_parties`
//!
//! Here the server is a [`Directory`] in memory, and the transport is a function call. Over a real network `Server`
//! would send the same bytes to somewhere else; nothing else would change.
#![expect(clippy::print_stdout, reason = "an example talks to whoever runs it")]

use std::error::Error;

use sprag_crypto::Salt;
use sprag_directory::{Directory, MemoryStorage, ServerEpoch};
use sprag_wire::{DeviceAddress, DeviceId, UserId};

// README
use sprag::{Client, Key, Task, Transport};

fn talk(server: &Server) -> Result<(), Box<dyn Error>> {
    let alice = Client::open_or_create("alice.sprag", Key::passphrase("correct horse"), "alice")?;
    let bob = Client::open_or_create("bob.sprag", Key::passphrase("battery staple"), "bob")?;

    alice.send_encrypted_message("bob", b"hello")?; // durable when it returns
    for client in [&bob, &alice, &alice, &bob] {
        exchange(client, server)?; // publish keys; fetch Bob's; deliver; receive
    }
    bob.send_encrypted_message("alice", b"hello yourself")?;
    for client in [&bob, &bob, &alice] {
        exchange(client, server)?; // fetch Alice's keys; deliver; receive
    }
    Ok(())
}

/// Your transport, any transport: it does what the client says, and brings what has come in.
fn exchange(client: &Client, server: &Server) -> Result<(), Box<dyn Error>> {
    for task in client.tasks()? {
        match &task {
            Task::Deliver { envelope, .. } => server.deliver(envelope)?,
            Task::FetchDevices { query, .. } => client.supply(task.id(), &server.lists(query)?)?,
            Task::FetchBundles { query, .. } => client.supply(task.id(), &server.keys(query)?)?,
            Task::PublishPreKeys { upload, .. } => server.put_pre_keys(client, upload)?,
            Task::PublishDevices { lists, .. } => server.put_lists(lists)?,
            _ => continue, // objects and blobs, if you keep memories or attachments
        }
        client.done(task.id())?; // until then it is offered again, byte for byte
    }
    for (id, envelope) in server.poll(client)? {
        let received = client.receive_encrypted_message(&envelope)?;
        for message in received.messages() {
            println!("{}: {}", message.from(), message.text_lossy());
            client.acknowledge(message.id())?; // until then it stays in the inbox
        }
        if received.transport() == Transport::Forget {
            server.forget(client, &id)?;
        }
    }
    Ok(())
}
// README end

fn main() -> Result<(), Box<dyn Error>> {
    let home = tempfile::tempdir()?;
    std::env::set_current_dir(home.path())?;
    talk(&Server::new()?)?;
    // Profiles can be deleted only from outside, on some systems.
    Ok(std::env::set_current_dir(std::env::temp_dir())?)
}

/// Envelopes that wait on the server, with their ids.
type Waiting = Vec<(Salt, Vec<u8>)>;

/// What stands for the network.
struct Server(Directory<MemoryStorage>);

impl Server {
    fn new() -> Result<Self, Box<dyn Error>> {
        // A real server draws its epoch at random when it is set up.
        let epoch = ServerEpoch::from_bytes([7; 16]);
        Ok(Self(Directory::open(MemoryStorage::new(), epoch)?))
    }

    fn deliver(&self, envelope: &[u8]) -> Result<(), Box<dyn Error>> {
        Ok(self.0.deliver(envelope)?)
    }

    fn lists(&self, query: &[u8]) -> Result<Vec<u8>, Box<dyn Error>> {
        Ok(self.0.lists(query)?)
    }

    fn keys(&self, query: &[u8]) -> Result<Vec<u8>, Box<dyn Error>> {
        Ok(self.0.bundles(query)?)
    }

    fn put_pre_keys(&self, client: &Client, upload: &[u8]) -> Result<(), Box<dyn Error>> {
        self.0.upload_pre_keys(&address(client)?, upload)?;
        Ok(())
    }

    fn put_lists(&self, lists: &[u8]) -> Result<(), Box<dyn Error>> {
        self.0.publish_lists(lists)?;
        Ok(())
    }

    fn poll(&self, client: &Client) -> Result<Waiting, Box<dyn Error>> {
        Ok(self.0.fetch(&address(client)?, 100)?)
    }

    fn forget(&self, client: &Client, id: &Salt) -> Result<(), Box<dyn Error>> {
        Ok(self.0.forget(&address(client)?, id)?)
    }
}

/// Whom a server would know by how he logged in.
fn address(client: &Client) -> Result<DeviceAddress, Box<dyn Error>> {
    let user = UserId::new(&client.user()?)?;
    Ok(DeviceAddress::new(user, DeviceId::new(client.device()?)?))
}
