//! A new account with its first device.

use rand_core::CryptoRng;
use sprag_crypto::{AccountKey, AccountKeyPair, Features, IdentityKeyPair};
use sprag_store::Staged;
use sprag_wire::{DeviceAddress, DeviceId, HOLDER, ListedDevice, UserId};
use sprag_x3dh::DeviceList;

use crate::error::StepError;
use crate::fresh;
use crate::lists::{self, FIRST_DEVICE};
use crate::own::{Device, Env};
use crate::task::{Kind, StoredTask};
use crate::trust::{self, User};

/// A random device number, at least 2^16.
fn draw_device(rng: &mut dyn CryptoRng) -> u32 {
    loop {
        let number = rng.next_u32();
        if number >= FIRST_DEVICE {
            return number;
        }
    }
}

impl Device {
    /// Makes the first device of a new account: keys, a signed list with one entry at epoch 1, prekeys, and the tasks
    /// that publish them. Everything is in the one batch of `rows`.
    ///
    /// # Errors
    /// What the store answers.
    pub fn create(
        rows: &mut Staged<'_>,
        env: &mut Env<'_>,
        user: &UserId,
    ) -> Result<Self, StepError> {
        let account = AccountKeyPair::generate(env.rng);
        let identity = IdentityKeyPair::generate(env.rng);
        let device = DeviceId::new(draw_device(env.rng))
            .map_err(|_| StepError::Internal("a device number above 2^16"))?;
        let entry = ListedDevice::new(device, *identity.public(), HOLDER);
        let list = DeviceList::sign(&account, user, 1, None, &[entry], env.rng)
            .map_err(|_| StepError::Internal("a list of one entry"))?;
        let address = DeviceAddress::new(user.clone(), device);
        let account_key = *account.public();
        let created = Self::adopt(
            rows,
            address,
            Features::NONE,
            identity,
            account_key,
            Some(account),
            list,
        );
        created.begin_keys(rows, env)?;
        fresh::note_brought(rows, user, env.now)?;
        let plan = created.new_pre_keys(rows, env)?;
        StoredTask::now(Kind::PublishDevices { from: 1 }).queue(rows)?;
        StoredTask::now(Kind::PublishPreKeys(plan)).queue(rows)?;
        Ok(created)
    }

    /// A device from keys that exist already, with its user's verified list. Vectors and restores begin here.
    pub fn adopt(
        rows: &mut Staged<'_>,
        address: DeviceAddress,
        features: Features,
        identity: IdentityKeyPair,
        account_key: AccountKey,
        account: Option<AccountKeyPair>,
        list: DeviceList,
    ) -> Self {
        let mut own = User::first(address.user().clone(), list, true);
        own.accepted = true;
        lists::note_numbers(rows, &own.newest);
        let device = Self::new(address, features, identity, account_key, account);
        trust::save(rows, &own, device.address.user());
        device.save(rows);
        device
    }
}
