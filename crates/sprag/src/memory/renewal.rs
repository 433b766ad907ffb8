//! New keys for all memories of an account.

use crate::client::Write;
use crate::pending::Pending;
use crate::start::Start;
#[cfg(not(target_family = "wasm"))]
use crate::{Client, Error};

impl Start<'_> {
    /// See [`Client::renew_memory_keys`](crate::Client::renew_memory_keys).
    pub fn renew_memory_keys(self) -> Pending<()> {
        self.0.shared.step(Write::Durable, |mut step| {
            step.device.check_ready(step.rows, step.env.now())?;
            Ok(step.device.memory_renew_keys(step.rows, &mut step.env)?)
        })
    }
}

#[cfg(not(target_family = "wasm"))]
impl Client {
    /// Makes a new generation of memory keys now, shared among the devices of the account, under which the logs of all
    /// spaces are sealed anew; blobs stay as they are. [`maintain`](Self::maintain) does it by itself, at most once a day,
    /// when something was erased. What was erased is so once all devices have taken part: they need two rounds of upkeep
    /// and tasks. How far it is says [`health`](Self::health), when it is done the event `MemoryErased`.
    ///
    /// # Errors
    /// `bad_input`: this device may not change the account (it is no holder). `not_linked`; those of the store.
    pub fn renew_memory_keys(&self) -> Result<(), Error> {
        self.start().renew_memory_keys().wait()
    }
}
