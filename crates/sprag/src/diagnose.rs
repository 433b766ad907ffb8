//! The report of a device: its last protocol events, for laying two of them side by side.

use sprag_session::Report;

#[cfg(not(target_family = "wasm"))]
use crate::client::Client;
use crate::client::Write;
use crate::pending::Pending;
use crate::start::Start;

impl Start<'_> {
    /// See [`Client::report`].
    pub fn report(self) -> Pending<Report> {
        self.0.shared.step(Write::Durable, |step| {
            Ok(step.device.report(step.rows, &step.env)?)
        })
    }
}

#[cfg(not(target_family = "wasm"))]
impl Client {
    /// The last 1,000 protocol events of this device: times, digests, numbers, outcomes; no names, no keys. When two
    /// devices have lost each other, [`Report::diagnose`] says from both reports where and why. At most 60,027 bytes
    /// as [`Report::encode`] writes it.
    ///
    /// # Errors
    /// Those of the store.
    pub fn report(&self) -> Result<Report, crate::Error> {
        self.start().report().wait()
    }
}
