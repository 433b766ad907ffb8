//! What an application shows of people: contacts and safety numbers ("The protocol", §1.2).

use sprag_crypto::{AccountKey, Fingerprint, SAFETY_ITERATIONS, SafetyNumber};
use sprag_store::Rows;
use sprag_wire::{DeviceId, UnverifiedDeviceList, UserId};

use crate::error::StepError;
use crate::own::Device;
use crate::tables;

/// What is remembered of a user.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Contact {
    /// The user.
    pub user: UserId,
    /// Whether the application accepted him.
    pub accepted: bool,
    /// Whether a changed identity waits for a decision.
    pub changed: bool,
    /// His listed devices.
    pub devices: Vec<DeviceId>,
}

impl Device {
    /// What is remembered of a user; `None` for somebody never met.
    ///
    /// # Errors
    /// What the store answers.
    pub fn contact(&self, rows: &dyn Rows, name: &UserId) -> Result<Option<Contact>, StepError> {
        let changed = rows.get(&tables::candidate(name))?.is_some();
        Ok(self.user(rows, name)?.map(|user| Contact {
            user: user.name,
            accepted: user.accepted,
            changed,
            devices: user
                .newest
                .devices()
                .iter()
                .map(|entry| entry.device())
                .collect(),
        }))
    }

    /// The safety number with a user, from both account keys as remembered; `None` for somebody never met. 5,200
    /// iterations of SHA-512 for each side.
    ///
    /// # Errors
    /// What the store answers.
    pub fn safety_number(
        &self,
        rows: &dyn Rows,
        name: &UserId,
    ) -> Result<Option<SafetyNumber>, StepError> {
        let Some(user) = self.user(rows, name)? else {
            return Ok(None);
        };
        self.safety_number_with(name, &user.account_key).map(Some)
    }

    /// The safety number with the changed identity of a user that waits for a decision: what to compare before
    /// accepting it. `None` if there is none.
    ///
    /// # Errors
    /// What the store answers.
    pub fn changed_safety_number(
        &self,
        rows: &dyn Rows,
        name: &UserId,
    ) -> Result<Option<SafetyNumber>, StepError> {
        let Some(frame) = rows.get(&tables::candidate(name))? else {
            return Ok(None);
        };
        let list = UnverifiedDeviceList::decode(&frame)?;
        self.safety_number_with(name, list.account_key()).map(Some)
    }

    /// 30 digits of our own account key, the same on all devices of the user.
    ///
    /// # Errors
    /// `Internal`.
    pub fn account_fingerprint(&self) -> Result<String, StepError> {
        let user = self.address.user().as_str().as_bytes();
        let key = self.account_key.as_public_key();
        let half = Fingerprint::compute(SAFETY_ITERATIONS, user, key)
            .map_err(|_| StepError::Internal("5,200 iterations are in range"))?;
        Ok(half.digits())
    }

    fn safety_number_with(
        &self,
        name: &UserId,
        theirs: &AccountKey,
    ) -> Result<SafetyNumber, StepError> {
        let half = |user: &UserId, key: &AccountKey| {
            Fingerprint::compute(
                SAFETY_ITERATIONS,
                user.as_str().as_bytes(),
                key.as_public_key(),
            )
            .map_err(|_| StepError::Internal("5,200 iterations are in range"))
        };
        let ours = half(self.address.user(), &self.account_key)?;
        let theirs = half(name, theirs)?;
        Ok(SafetyNumber::new(ours, theirs))
    }
}
