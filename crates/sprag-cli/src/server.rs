//! A folder as server: what tasks ask is asked of it, and envelopes are fetched from it.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::path::Path;

use sprag::{Client, DeviceAddress, Failure, Task, Transport};
use sprag_directory::{Directory, DirectoryError, FolderStorage, ServerEpoch};

use crate::error::{CliError, refusal_number};
use crate::line::task_kind;
use crate::output::Output;
use crate::sys;

/// A full inbox of a device is tried again after this long: half a minute.
const FULL_MS: u64 = 30_000;
/// Envelopes that are fetched at once.
const FETCH: usize = 64;

pub(crate) struct Server {
    directory: Directory<FolderStorage>,
    traffic: Cell<usize>,
}

/// How a task ended.
#[derive(Debug)]
pub(crate) enum Ended {
    Done,
    /// The server could not do it; the library knows what follows.
    Failed(String),
    /// What the server replied is not believed.
    Refused(sprag::Error),
}

/// What a run of tasks came to.
#[derive(Debug, Default)]
pub(crate) struct Ran {
    pub(crate) done: usize,
    /// The user must decide before they can be done.
    pub(crate) questions: usize,
}

impl Ran {
    pub(crate) fn add(&mut self, more: &Self) {
        self.done += more.done;
        self.questions += more.questions;
    }
}

/// What was fetched.
#[derive(Debug, Default)]
pub(crate) struct Fetched {
    pub(crate) envelopes: usize,
    pub(crate) refused: usize,
    pub(crate) questions: usize,
}

impl Server {
    /// Uses the server in `folder`; makes one if there is none.
    pub(crate) fn open(folder: &Path) -> Result<Self, CliError> {
        let storage = FolderStorage::open(folder)?;
        let directory = Directory::open(storage, ServerEpoch::from_bytes(sys::random()))?;
        Ok(Self {
            directory,
            traffic: Cell::new(0),
        })
    }

    /// Bytes that went to and fro so far.
    pub(crate) fn traffic(&self) -> usize {
        self.traffic.get()
    }

    /// So many bytes went past.
    pub(crate) fn moved(&self, bytes: usize) {
        self.traffic.set(self.traffic.get() + bytes);
    }

    /// Does what waits for the network, and what follows from it. A task is tried once.
    pub(crate) fn run_tasks(&self, client: &Client, output: &mut Output) -> Result<Ran, CliError> {
        let mut ran = self.run_tasks_that(client, output, |_| true)?;
        ran.add(&self.publish(client, output)?);
        Ok(ran)
    }

    /// Publishes what is to be published, also what this server lacks without having said so.
    pub(crate) fn publish(&self, client: &Client, output: &mut Output) -> Result<Ran, CliError> {
        let mut ran = self.run_tasks_that(client, output, is_publication)?;
        let address = match client.address() {
            Err(error) if error.code() == "not_linked" => return Ok(ran),
            address => address?,
        };
        let state = self.directory.state(&address)?;
        self.moved(state.len());
        client.supply_pre_key_state(&state)?;
        ran.add(&self.run_tasks_that(client, output, is_publication)?);
        Ok(ran)
    }

    /// Does those tasks that `wanted` says.
    pub(crate) fn run_tasks_that(
        &self,
        client: &Client,
        output: &mut Output,
        wanted: impl Fn(&Task) -> bool,
    ) -> Result<Ran, CliError> {
        let mut ran = Ran::default();
        let mut tried = BTreeSet::new();
        loop {
            let mut tasks = client.tasks()?;
            tasks.retain(|task| wanted(task) && !tried.contains(&task.id()));
            if tasks.is_empty() {
                return Ok(ran);
            }
            for task in tasks {
                tried.insert(task.id());
                match self.perform(client, &task)? {
                    Ended::Done => ran.done += 1,
                    Ended::Failed(why) => {
                        // Others cannot write to us until this is settled.
                        ran.questions += usize::from(is_publication(&task));
                        output.note(&format!("{}: {why}", task_kind(&task)));
                    }
                    Ended::Refused(error) => {
                        ran.questions += usize::from(error.code() != "malformed");
                        output.note(&format!(
                            "{}: the server's reply was refused: {error}",
                            describe(&task)
                        ));
                    }
                }
            }
        }
    }

    /// Does one task.
    pub(crate) fn perform(&self, client: &Client, task: &Task) -> Result<Ended, CliError> {
        let replied = match task {
            Task::Deliver { envelope, .. } => {
                self.moved(envelope.len());
                self.directory.deliver(envelope).map(|()| None)
            }
            Task::FetchDevices { query, .. } => {
                self.moved(query.len());
                self.directory.lists(query).map(Some)
            }
            Task::FetchBundles { query, .. } => {
                self.moved(query.len());
                self.directory.bundles(query).map(Some)
            }
            Task::PublishPreKeys { upload, .. } => {
                self.moved(upload.len());
                let address = client.address()?;
                self.directory.upload_pre_keys(&address, upload).map(Some)
            }
            Task::PublishDevices { lists, .. } => {
                self.moved(lists.len());
                self.directory.publish_lists(lists).map(Some)
            }
            Task::PutObject { object, .. } => {
                self.moved(object.len());
                let address = client.address()?;
                self.directory.put_object(address.user(), object).map(Some)
            }
            Task::GetObject { object, .. } => {
                self.moved(object.len());
                let address = client.address()?;
                self.directory.get_object(address.user(), object).map(Some)
            }
            Task::PutBlob { name, bytes, .. } => {
                self.moved(bytes.len());
                let address = client.address()?;
                let put = self.directory.put_blob(address.user(), name, bytes);
                put.map(|()| None)
            }
            Task::GetBlob { name, .. } => {
                self.moved(name.len());
                self.directory.get_blob(name).map(Some)
            }
            Task::DropBlob { name, .. } => {
                self.moved(name.len());
                let address = client.address()?;
                let dropped = self.directory.drop_blob(address.user(), name);
                dropped.map(|()| None).map_err(DirectoryError::from)
            }
            _ => return Ok(Ended::Failed("this version cannot do it".to_owned())),
        };
        let reply = match replied {
            Ok(reply) => reply,
            Err(DirectoryError::Storage(error)) => return Err(error.into()),
            Err(error) => {
                client.failed(task.id(), &failure(&error))?;
                return Ok(Ended::Failed(format!("{}: {error}", describe(task))));
            }
        };
        if let Some(reply) = reply {
            self.moved(reply.len());
            match client.supply(task.id(), &reply) {
                Ok(()) => {}
                Err(error) if is_refusal(&error) => return Ok(Ended::Refused(error)),
                Err(error) => return Err(error.into()),
            }
        }
        client.done(task.id())?;
        Ok(Ended::Done)
    }

    /// Takes all envelopes that wait for the client; what it brought is in its inbox.
    pub(crate) fn fetch(&self, client: &Client, output: &mut Output) -> Result<Fetched, CliError> {
        let address = client.address()?;
        let mut fetched = Fetched::default();
        let mut kept = BTreeSet::new();
        loop {
            let waiting = self.directory.fetch(&address, kept.len() + FETCH)?;
            let mut new = waiting;
            new.retain(|(id, _)| !kept.contains(id.as_bytes()));
            if new.is_empty() {
                return Ok(fetched);
            }
            for (id, envelope) in new {
                self.moved(envelope.len());
                fetched.envelopes += 1;
                let received = client.receive_encrypted_message(&envelope)?;
                if let Some(refusal) = received.refused() {
                    fetched.refused += 1;
                    fetched.questions +=
                        usize::from(matches!(refusal.action(), sprag::Action::AskUser(_)));
                    output.note(&format!(
                        "an envelope was refused: {refusal} ({})",
                        refusal.code()
                    ));
                }
                match received.transport() {
                    Transport::Forget => self.directory.forget(&address, &id)?,
                    _ => {
                        kept.insert(*id.as_bytes());
                    }
                }
            }
        }
    }

    /// Takes the oldest envelope for a device away from the server, whatever becomes of it.
    pub(crate) fn take(&self, address: &DeviceAddress) -> Result<Option<Vec<u8>>, CliError> {
        let Some((id, envelope)) = self.directory.fetch(address, 1)?.into_iter().next() else {
            return Ok(None);
        };
        self.moved(envelope.len());
        self.directory.forget(address, &id)?;
        Ok(Some(envelope))
    }

    /// What somebody gets who asks for the prekeys of a user.
    pub(crate) fn bundles_of(&self, address: &DeviceAddress) -> Result<Vec<u8>, CliError> {
        match self.directory.bundles_of(address.user()) {
            Ok(reply) => Ok(reply),
            Err(DirectoryError::Storage(error)) => Err(error.into()),
            Err(error) => Err(CliError::Refused(format!("the server says: {error}"))),
        }
    }
}

fn is_publication(task: &Task) -> bool {
    matches!(
        task,
        Task::PublishPreKeys { .. } | Task::PublishDevices { .. }
    )
}

fn describe(task: &Task) -> String {
    match task {
        Task::Deliver { to, .. } => format!("to {}", to.user().as_str()),
        Task::FetchDevices { user, .. } | Task::FetchBundles { user, .. } => {
            format!("keys of {}", user.as_str())
        }
        Task::PutObject { .. } | Task::GetObject { .. } => "our memories".to_owned(),
        Task::PutBlob { .. } | Task::GetBlob { .. } | Task::DropBlob { .. } => {
            "a sealed blob".to_owned()
        }
        _ => "our own keys".to_owned(),
    }
}

fn failure(error: &DirectoryError) -> Failure {
    match error {
        DirectoryError::NoSuchUser => Failure::NoSuchUser,
        DirectoryError::NoSuchDevice { list } => Failure::NoSuchDevice(Some(list.clone())),
        DirectoryError::Full => Failure::Full(FULL_MS),
        DirectoryError::Conflict { newest } => Failure::Conflict(newest.clone()),
        DirectoryError::NoSuchBlob => Failure::NoSuchBlob,
        other => Failure::Refused(refusal_number(other)),
    }
}

/// Whether a reply was refused, and not a store out of order.
fn is_refusal(error: &sprag::Error) -> bool {
    use sprag::Action;
    match error.action() {
        Action::AskUser(question) => question == sprag::Question::AcceptIdentity,
        Action::Drop | Action::Retry | Action::Update => !error.code().starts_with("store_"),
        Action::FixCall => error.code() == "bad_input",
        _ => false,
    }
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").finish_non_exhaustive()
    }
}
