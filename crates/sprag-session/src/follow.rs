//! What follows from earlier steps, and needs a session, randomness or the time: done before tasks are offered.

use sprag_store::{Rows, Staged};
use sprag_wire::Body;

use crate::error::StepError;
use crate::own::{Device, Env};
use crate::record::Record;
use crate::{peers, tables, trust};

/// Devices that hear of a removal in one step; the next step goes on.
const TOLD_AT_ONCE: usize = 64;

impl Device {
    /// Does what is due before tasks are offered: frames that waited, messages that a server lost, requests for what
    /// could not be read, changes of our own list and what they lead to. While this device waits to be linked, nothing.
    ///
    /// # Errors
    /// What the store answers; nothing is changed then.
    pub fn prepare(&mut self, rows: &mut Staged<'_>, env: &mut Env<'_>) -> Result<(), StepError> {
        if self.end_link_if_over(rows, env.now)? {
            return Ok(());
        }
        self.offer_ready(rows, env)?;
        if self.is_waiting(rows)? {
            return Ok(());
        }
        self.deliver_again(rows, env)?;
        self.send_requests(rows, env)?;
        self.begin_keys(rows, env)?;
        self.sign_next(rows, env)?;
        if self.check_own_listed(rows).is_err() {
            // What it would send nobody takes.
            return Ok(());
        }
        self.settle_links(rows, env)?;
        self.share_with_holders(rows, env)?;
        self.make_due_generation(rows, env)?;
        self.go_on_with_memories(rows, env)?;
        self.announce_list(rows, env)?;
        self.go_on_without_lists(rows, env)
    }

    /// Our list changed: our other devices hear of it. If a device was removed (then the row is not empty), the devices of accepted users hear of it with an acknowledgement that carries the list,
    /// once, each on a session that there is. Also in quiet mode.
    fn announce_list(&mut self, rows: &mut Staged<'_>, env: &mut Env<'_>) -> Result<(), StepError> {
        let Some(removal) = rows.get(&tables::announced_list())? else {
            return Ok(());
        };
        let mut told = 0;
        for name in trust::names(rows)? {
            let Some(user) = self.user(rows, &name)?.filter(|user| user.accepted) else {
                continue;
            };
            if removal.is_empty() && name != *self.address.user() {
                continue;
            }
            for address in peers::devices_with_record(rows, &name)? {
                let listed = user.listed(address.device()).is_some();
                if !listed || !self.can_send_to(rows, env, &address)? {
                    continue;
                }
                let record = Record::load(rows, &address)?;
                let Some(ride) = self.list_to_ride(rows, record.as_ref())? else {
                    continue;
                };
                if crate::riders::is_under_way(rows, &address, &ride.hash)? {
                    continue;
                }
                if told == TOLD_AT_ONCE {
                    return Ok(());
                }
                told += 1;
                self.send_to_device(rows, env, &address, Body::Ack)?;
            }
        }
        rows.delete(tables::announced_list());
        Ok(())
    }
}
