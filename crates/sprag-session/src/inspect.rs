//! Whether the rows of a device fit each other: for the doctor. Nothing is changed.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use sprag_store::{Rows, StoreError};
use sprag_wire::{KemPreKeyId, OneTimePreKeyId, SignedPreKeyId};

use crate::chunks;
use crate::error::StepError;
use crate::inbox::read_header;
use crate::outgoing::{Copy, Outgoing};
use crate::own::{Counters, Device};
use crate::peers::devices_with_record;
use crate::record::{ARCHIVED, LEDGER, Ledger, Record, load_session};
use crate::task::{Kind, StoredTask, TaskId};
use crate::{event, prekeys, tables, trust};

/// Something in the rows that does not fit.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Oddity {
    /// A row that does not decode, or lacks another one that belongs to it.
    Undecodable(String),
    /// Rows that decode, and say different things.
    Disagreement(String),
}

impl Device {
    /// Reads every row that a device works with, and compares what they say of each other. In doubt it says nothing: a
    /// table of which it knows nothing is passed over.
    ///
    /// # Errors
    /// What the store answers, but for damaged rows: those are oddities.
    pub fn inspect(rows: &dyn Rows) -> Result<Vec<Oddity>, StoreError> {
        let mut inspection = Inspection {
            rows,
            found: Vec::new(),
        };
        let device = inspection.read("our own device", Self::load)?;
        let Some(Some(device)) = device else {
            if device.is_some() {
                inspection.undecodable("there is no device in this store");
            }
            return Ok(inspection.found);
        };
        if let Some(counters) = inspection.read("the counters", |rows| Ok(Counters::load(rows)?))? {
            inspection.pre_keys(&counters)?;
            inspection.inbox(&counters)?;
            inspection.outbox(&counters)?;
            inspection.events(&counters)?;
            inspection.peers(&device, &counters)?;
        }
        inspection.own_list(&device)?;
        Ok(inspection.found)
    }
}

struct Inspection<'r> {
    rows: &'r dyn Rows,
    found: Vec<Oddity>,
}

impl Inspection<'_> {
    fn undecodable(&mut self, what: impl Into<String>) {
        self.found.push(Oddity::Undecodable(what.into()));
    }

    fn disagree(&mut self, fits: bool, what: impl FnOnce() -> String) {
        if !fits {
            self.found.push(Oddity::Disagreement(what()));
        }
    }

    /// What is read, or `None` and an oddity if it does not decode.
    fn read<T>(
        &mut self,
        what: &str,
        read: impl FnOnce(&dyn Rows) -> Result<T, StepError>,
    ) -> Result<Option<T>, StoreError> {
        match read(self.rows) {
            Ok(value) => Ok(Some(value)),
            Err(StepError::Store(StoreError::Damaged(why))) => {
                self.undecodable(format!("{what}: {why}"));
                Ok(None)
            }
            Err(StepError::Store(error)) => Err(error),
            Err(error) => {
                self.undecodable(format!("{what}: {error}"));
                Ok(None)
            }
        }
    }

    fn own_list(&mut self, device: &Device) -> Result<(), StoreError> {
        let own = self.read("our own device list", |rows| Ok(device.own_user(rows)?))?;
        if let Some(own) = own {
            let key = *own.account_key.as_bytes() == *device.account_key.as_bytes();
            self.disagree(key, || "our account key is not that of our list".to_owned());
            let ours = own.newest.epoch();
            let kept = chunks::sequences(self.rows, tables::OWN_LISTS, <[u8]>::is_empty)?;
            let newest = kept.last().map(|(epoch, _)| *epoch);
            self.disagree(newest.is_none_or(|newest| newest <= ours), || {
                format!("we keep a list of epoch {newest:?}, and our newest is {ours}")
            });
        }
        Ok(())
    }

    fn pre_keys(&mut self, counters: &Counters) -> Result<(), StoreError> {
        let kinds = [
            (tables::SIGNED, "signed", counters.signed_pre_key),
            (tables::ONE_TIME, "one-time", counters.one_time_pre_key),
            (tables::KEM, "KEM", counters.kem_pre_key),
        ];
        for (table, kind, top) in kinds {
            let ids = prekeys::ids(self.rows, table)?;
            let last = ids.last().copied().unwrap_or_default();
            self.disagree(last <= top, || {
                format!("there is a {kind} prekey {last}, but only {top} were made: its id would be given again")
            });
            for id in ids {
                self.pre_key(table, kind, id)?;
            }
        }
        Ok(())
    }

    fn pre_key(&mut self, table: u8, kind: &str, id: u32) -> Result<(), StoreError> {
        let what = format!("{kind} prekey {id}");
        let bad = |_| StepError::Store(StoreError::Damaged("its id is out of range"));
        match table {
            tables::SIGNED => {
                let signed = self.read(&what, |rows| {
                    prekeys::load_signed(rows, SignedPreKeyId::new(id).map_err(bad)?)
                })?;
                let mut seen = 0_u32;
                self.rows.scan(&tables::seen(id, None), &mut |_, _| {
                    seen = seen.saturating_add(1);
                    ControlFlow::Continue(())
                })?;
                if let Some(Some(signed)) = signed {
                    let told = signed.seen;
                    self.disagree(told == seen, || {
                        format!(
                            "{what} says that {told} handshakes used it, and {seen} are remembered"
                        )
                    });
                }
            }
            tables::ONE_TIME => {
                self.read(&what, |rows| {
                    prekeys::load_one_time(rows, OneTimePreKeyId::new(id).map_err(bad)?)
                })?;
            }
            _ => {
                self.read(&what, |rows| {
                    prekeys::load_kem(rows, KemPreKeyId::new(id).map_err(bad)?)
                })?;
            }
        }
        Ok(())
    }

    fn inbox(&mut self, counters: &Counters) -> Result<(), StoreError> {
        let heads = chunks::sequences(self.rows, tables::INBOX, |rest| rest == [0; 4])?;
        let (mut count, mut of_strangers) = (0_u32, 0_u32);
        for (sequence, head) in heads {
            count = count.saturating_add(1);
            let what = format!("message {sequence} of the inbox");
            let message = self.read(&what, |rows| {
                let (message, _, length) = read_header(sequence, &head)?;
                chunks::get(rows, tables::INBOX, sequence, 1, length)?;
                Ok(message)
            })?;
            of_strangers += u32::from(message.is_some_and(|message| !message.accepted));
            self.numbered(&what, sequence, counters.sequence);
        }
        let told = counters.inbox;
        self.disagree(told == count, || {
            format!("the inbox holds {count} messages, and {told} were counted")
        });
        let told = counters.inbox_of_strangers;
        self.disagree(told == of_strangers, || {
            format!("the inbox holds {of_strangers} messages of strangers, and {told} were counted")
        });
        Ok(())
    }

    fn numbered(&mut self, what: &str, number: u64, top: u64) {
        self.disagree(number <= top, || {
            format!(
                "{what} has a number beyond {top}, the last that was given: it would be given again"
            )
        });
    }

    fn outbox(&mut self, counters: &Counters) -> Result<(), StoreError> {
        let tasks = self.tasks(counters)?;
        let heads = chunks::sequences(self.rows, tables::OUTBOX, |rest| rest == [0; 4])?;
        let mut waiting = 0_u32;
        let mut sequences = BTreeSet::new();
        for (sequence, _) in heads {
            sequences.insert(sequence);
            let what = format!("message {sequence} of the outbox");
            self.numbered(&what, sequence, counters.sequence);
            let read = self.read(&what, |rows| {
                let message = Outgoing::load(rows, sequence)?;
                if let Some(message) = &message {
                    chunks::get(rows, tables::OUTBOX, sequence, 1, message.length as usize)?;
                }
                Ok(message)
            })?;
            let Some(Some(message)) = read else {
                continue;
            };
            waiting = waiting.saturating_add(u32::from(message.waiting > 0));
            let named = self.rows.get(&tables::message(&message.id.0))?;
            let named = named.is_some_and(|named| *named == sequence.to_be_bytes());
            self.disagree(named, || format!("{what} is not found by its id"));
            for copy in 0..message.copies {
                self.copy(&what, sequence, copy, &tasks)?;
            }
        }
        let told = counters.outbox;
        self.disagree(told == waiting, || {
            format!("{waiting} messages wait to be handed over, and {told} were counted")
        });
        for (id, task) in tasks {
            if let Kind::Deliver { sequence, .. } = task.kind {
                self.disagree(sequences.contains(&sequence), || {
                    format!("task {id} delivers a message that is not in the outbox")
                });
            }
        }
        Ok(())
    }

    fn copy(
        &mut self,
        what: &str,
        sequence: u64,
        copy: u32,
        tasks: &BTreeMap<u64, StoredTask>,
    ) -> Result<(), StoreError> {
        let what = format!("copy {copy} of {what}");
        match self.read(&what, |rows| Ok(Copy::load(rows, sequence, copy)?))? {
            Some(Some(copy)) => {
                let there = copy.task.is_none_or(|id| tasks.contains_key(&id.get()));
                self.disagree(there, || {
                    format!("{what} waits for a task that is not there")
                });
            }
            Some(None) => self.undecodable(format!("{what} is missing")),
            None => {}
        }
        Ok(())
    }

    fn tasks(&mut self, counters: &Counters) -> Result<BTreeMap<u64, StoredTask>, StoreError> {
        let mut tasks = BTreeMap::new();
        for (id, _) in chunks::sequences(self.rows, tables::TASKS, <[u8]>::is_empty)? {
            let what = format!("task {id}");
            self.numbered(&what, id, counters.task);
            let read = self.read(&what, |rows| {
                let task = StoredTask::load(rows, TaskId::new(id))?;
                if let Some(StoredTask {
                    kind: Kind::Deliver { length, .. },
                    ..
                }) = &task
                {
                    chunks::get(rows, tables::FRAMES, id, 0, *length as usize)?;
                }
                Ok(task)
            })?;
            tasks.extend(read.flatten().map(|task| (id, task)));
        }
        let frames = chunks::sequences(self.rows, tables::FRAMES, |rest| rest == [0; 4])?;
        for (id, _) in frames {
            self.disagree(tasks.contains_key(&id), || {
                format!("there is a frame of task {id}, which is not there")
            });
        }
        Ok(tasks)
    }

    fn events(&mut self, counters: &Counters) -> Result<(), StoreError> {
        for (number, bytes) in chunks::sequences(self.rows, tables::EVENTS, <[u8]>::is_empty)? {
            let what = format!("event {number}");
            self.read(&what, |_| Ok(event::read(&bytes)?))?;
            self.numbered(&what, number, counters.event);
        }
        Ok(())
    }

    fn peers(&mut self, device: &Device, counters: &Counters) -> Result<(), StoreError> {
        let Some(names) = self.read("the list of users", |rows| Ok(trust::names(rows)?))? else {
            return Ok(());
        };
        for (place, name) in names.iter().enumerate() {
            // Users are not named: a report may be shown to others.
            let who = format!("user {}", place + 1);
            self.read(&who, |rows| Ok(device.user(rows, name)?))?;
            for address in devices_with_record(self.rows, name)? {
                let what = format!("device {} of {who}", address.device().get());
                let record = self.read(&what, |rows| {
                    let ledger = Ledger::load(rows, &tables::device_owner(&address))?;
                    Ok((Record::load(rows, &address)?, ledger.entries().len()))
                })?;
                let Some((Some(record), ledger)) = record else {
                    continue;
                };
                self.disagree(ledger <= LEDGER, || {
                    format!("{what}: {ledger} sessions in its ledger")
                });
                let archive = record.archive.len();
                self.disagree(archive <= ARCHIVED, || {
                    format!("{what}: {archive} old sessions")
                });
                for session in record.sessions() {
                    let what = format!("session {} with {what}", session.number);
                    self.read(&what, |rows| {
                        Ok(load_session(rows, &record.owner, session.number)?)
                    })?;
                    self.numbered(&what, session.number, counters.session);
                }
            }
        }
        Ok(())
    }
}
