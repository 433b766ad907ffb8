//! Lists that nothing has brought for a day are fetched before the next send, which goes on if that fails ("The
//! protocol", §6.1, *Removing*).

use std::ops::ControlFlow;

use sprag_store::{Rows, Staged, StoreError};
use sprag_wire::UserId;
use zeroize::Zeroizing;

use crate::codec::{Reader, Writer};
use crate::error::StepError;
use crate::own::{Device, Env};
use crate::tables;
use crate::task::StoredTask;

/// A list that nothing has brought for this long is fetched before the next send: a day.
pub const STALE_MS: u64 = 24 * 3_600 * 1_000;
/// A fetch that nobody answers keeps a message for this long: a minute.
const PATIENCE_MS: u64 = 60_000;
/// After a fetch that failed, messages go out without another one for this long: an hour.
const ASKED_MS: u64 = 3_600_000;
/// The time is written anew only when it is this much later, so that not each message writes it: an hour.
const COARSE_MS: u64 = 3_600_000;

const VERSION: u8 = 1;

fn read_time(rows: &dyn Rows, name: &sprag_store::RowName) -> Result<Option<u64>, StoreError> {
    let bytes = rows.get(name)?;
    let time = bytes.and_then(|bytes| bytes.as_slice().try_into().ok());
    Ok(time.map(u64::from_be_bytes))
}

fn is_within(time: Option<u64>, now: u64, span: u64) -> bool {
    time.is_some_and(|time| time <= now && now - time < span)
}

/// Something brought a user's list: a fetch, a bundle, a handshake, a message.
pub(crate) fn note_brought(
    rows: &mut Staged<'_>,
    name: &UserId,
    now: u64,
) -> Result<(), StoreError> {
    let row = tables::list_brought(name);
    if !is_within(read_time(rows, &row)?, now, COARSE_MS) {
        rows.put(row, Zeroizing::new(now.to_be_bytes().to_vec()));
    }
    Ok(())
}

impl Device {
    /// Whether what is to be sent to `name` waits for his list, because nothing has brought it for a day. Asks for it if
    /// it was not asked for yet.
    pub(crate) fn waits_for_fresh_list(
        &self,
        rows: &mut Staged<'_>,
        env: &Env<'_>,
        name: &UserId,
    ) -> Result<bool, StepError> {
        let waits = tables::stale_list(name);
        if rows.get(&waits)?.is_some() {
            return Ok(true);
        }
        let (brought, asked) = (tables::list_brought(name), tables::list_asked(name));
        if is_within(read_time(rows, &brought)?, env.now, STALE_MS)
            || is_within(read_time(rows, &asked)?, env.now, ASKED_MS)
        {
            return Ok(false);
        }
        rows.put(asked, Zeroizing::new(env.now.to_be_bytes().to_vec()));
        let mut writer = Writer::new(VERSION, 4 + 255 + 8);
        writer.block(name.as_str().as_bytes()).u64(env.now);
        rows.put(waits, writer.finish());
        match StoredTask::marked(rows, &tables::fetch_of_lists(name))? {
            None => self.queue_fetch(rows, name, 0, 0)?,
            Some((id, mut task)) => {
                task.not_before = 0;
                task.save(rows, id);
            }
        }
        Ok(true)
    }

    /// What waited for lists that nobody brought in time goes on with those that are remembered.
    pub(crate) fn go_on_without_lists(
        &mut self,
        rows: &mut Staged<'_>,
        env: &mut Env<'_>,
    ) -> Result<(), StepError> {
        let mut due = Vec::new();
        let mut failed = Ok(());
        rows.scan(
            &tables::all(tables::STALE_LISTS),
            &mut |_, value| match read(value) {
                Ok((name, asked)) => {
                    if !is_within(Some(asked), env.now, PATIENCE_MS) {
                        due.push(name);
                    }
                    ControlFlow::Continue(())
                }
                Err(error) => {
                    failed = Err(error);
                    ControlFlow::Break(())
                }
            },
        )?;
        failed?;
        for name in due {
            self.list_ready(rows, env, &name)?;
        }
        Ok(())
    }

    /// The fetch of a list failed: what waited for it goes on with the one that is remembered.
    pub(crate) fn list_failed(
        &mut self,
        rows: &mut Staged<'_>,
        env: &mut Env<'_>,
        name: &UserId,
    ) -> Result<(), StepError> {
        if rows.get(&tables::stale_list(name))?.is_some() {
            self.list_ready(rows, env, name)?;
        }
        Ok(())
    }
}

fn read(value: &[u8]) -> Result<(UserId, u64), StoreError> {
    let mut reader = Reader::new(value, VERSION, "list that is waited for")?;
    let name = crate::task::read_user(&mut reader)?;
    let asked = reader.u64()?;
    reader.finish()?;
    Ok((name, asked))
}
