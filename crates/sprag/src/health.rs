//! How a client fares, and whether it is quiet.

use crate::client::Write;
use crate::pending::Pending;
use crate::start::Start;
use crate::types::Health;

impl Start<'_> {
    /// See [`Client::health`](crate::Client::health).
    pub fn health(self) -> Pending<Health> {
        self.0
            .shared
            .step(Write::Durable, |step| Ok(step.device.health(step.rows)?))
    }

    /// See [`Client::set_quiet`](crate::Client::set_quiet).
    pub fn set_quiet(self, quiet: bool) -> Pending<()> {
        self.0.shared.step(Write::Durable, |step| {
            Ok(step.device.set_quiet(step.rows, quiet)?)
        })
    }

    /// See [`Client::is_quiet`](crate::Client::is_quiet).
    pub fn is_quiet(self) -> Pending<bool> {
        self.0.shared.step(Write::Durable, |step| {
            Ok(step.device.is_quiet(step.rows)?)
        })
    }

    /// See [`Client::server_epoch`](crate::Client::server_epoch).
    pub fn server_epoch(self, epoch: &[u8]) -> Pending<()> {
        self.0.shared.step(Write::Durable, |mut step| {
            Ok(step.device.server_epoch(step.rows, &mut step.env, epoch)?)
        })
    }
}

#[cfg(not(target_family = "wasm"))]
mod blocking {
    use crate::{Client, Error, Health};

    impl Client {
        /// What was counted, and how full everything is. Its time grows with the number of contacts.
        ///
        /// # Errors
        /// Those of the store.
        pub fn health(&self) -> Result<Health, Error> {
            self.start().health().wait()
        }

        /// Switches quiet mode on or off; it is off at first. In quiet mode a contact who asks for messages gets what he
        /// asked for, and nothing if there is nothing: he does not learn whether this device is there. What a removed
        /// device or a reset makes necessary is said all the same.
        ///
        /// # Errors
        /// Those of the store.
        pub fn set_quiet(&self, quiet: bool) -> Result<(), Error> {
            self.start().set_quiet(quiet).wait()
        }

        /// Whether quiet mode is on.
        ///
        /// # Errors
        /// Those of the store.
        pub fn is_quiet(&self) -> Result<bool, Error> {
            self.start().is_quiet().wait()
        }

        /// The epoch of the server, 16 bytes, as it tells on every connection or in a `PreKeyState`. A new one says that
        /// the server was restored from a backup or began anew: tasks follow that give it prekeys and device lists, and
        /// deliver again what was sent in the last seven days and not yet received. Twice is once.
        ///
        /// # Errors
        /// `bad_input` if it has another length; those of the store.
        pub fn server_epoch(&self, epoch: &[u8]) -> Result<(), Error> {
            self.start().server_epoch(epoch).wait()
        }
    }
}
