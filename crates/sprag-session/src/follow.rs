//! What follows from earlier steps, and needs a session, randomness or the time: done before tasks are offered.

use sprag_store::Staged;

use crate::error::StepError;
use crate::own::{Device, Env};

impl Device {
    /// Does what is due before tasks are offered: asks for what could not be read, and brings a change of our own list
    /// on its way.
    ///
    /// # Errors
    /// What the store answers; nothing is changed then.
    pub fn prepare(&mut self, rows: &mut Staged<'_>, env: &mut Env<'_>) -> Result<(), StepError> {
        self.offer_ready(rows, env)?;
        self.deliver_again(rows, env)?;
        self.send_requests(rows, env)?;
        self.sign_next(rows, env)
    }
}
