//! Devices of one's own account: linking and removing them, and a fork of their list ("The protocol", §6.1 and §1.2).

use sprag_wire::DeviceId;

use crate::Error;
#[cfg(not(target_family = "wasm"))]
use crate::client::Client;
use crate::client::Write;
use crate::party::Party;
use crate::pending::Pending;
use crate::start::Start;

pub use sprag_session::OwnDeviceState;

/// One device of our own account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct OwnDevice {
    /// Its number.
    pub device: u32,
    /// It has, or is to get, the account's private key, and may add and remove devices.
    pub holder: bool,
    /// It is this one.
    pub this: bool,
    /// How far it is.
    pub state: OwnDeviceState,
}

/// Two lists of our own account that contradict each other.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct OwnFork {
    /// Hash of the list that this device goes by.
    pub ours: [u8; 32],
    /// The devices on it.
    pub our_devices: Vec<u32>,
    /// Hash of the other list.
    pub theirs: [u8; 32],
    /// The devices on it.
    pub their_devices: Vec<u32>,
}

fn device_id(device: u32) -> Result<DeviceId, Error> {
    DeviceId::new(device).map_err(|_| Error::bad_input())
}

impl Start<'_> {
    /// See [`Client::link_request`].
    pub fn link_request(self) -> Pending<String> {
        let request = self.0.with_party(|party, now| match party {
            Party::Linking(linking) if !linking.is_over(now) => Ok(linking.request().to_string()),
            Party::Device(_) => Err(Error::bad_input()),
            Party::Linking(_) | Party::Ended(_) => Err(Error::link_expired()),
        });
        let request = request.and_then(|request| request);
        Pending::ready(self.0.shared.notifier.clone(), request)
    }

    /// See [`Client::is_linked`].
    pub fn is_linked(self) -> Pending<bool> {
        self.0.shared.step_either(
            Write::Durable,
            |step| {
                step.device.check_alive(step.rows, step.env.now())?;
                Ok(!step.device.is_waiting(step.rows)?)
            },
            |step| {
                if step.linking.is_over(step.env.now()) {
                    return Err(Error::link_expired());
                }
                Ok(false)
            },
        )
    }

    /// See [`Client::link_device`].
    pub fn link_device(self, request: &str, holder: bool) -> Pending<u32> {
        self.0.shared.step(Write::Durable, |mut step| {
            step.device.check_ready(step.rows, step.env.now())?;
            let device = step
                .device
                .link_device(step.rows, &mut step.env, request, holder)?;
            Ok(device.get())
        })
    }

    /// See [`Client::remove_device`].
    pub fn remove_device(self, device: u32) -> Pending<()> {
        self.0.shared.step(Write::Durable, |mut step| {
            step.device.check_ready(step.rows, step.env.now())?;
            let device = device_id(device)?;
            Ok(step
                .device
                .remove_device(step.rows, &mut step.env, device)?)
        })
    }

    /// See [`Client::set_holder`].
    pub fn set_holder(self, device: u32, holder: bool) -> Pending<()> {
        self.0.shared.step(Write::Durable, |mut step| {
            step.device.check_ready(step.rows, step.env.now())?;
            let device = device_id(device)?;
            Ok(step
                .device
                .set_holder(step.rows, &mut step.env, device, holder)?)
        })
    }

    /// See [`Client::devices`].
    pub fn devices(self) -> Pending<Vec<OwnDevice>> {
        self.0.shared.step(Write::Durable, |step| {
            let devices = step.device.own_devices(step.rows)?;
            let plain = devices.into_iter().map(|one| OwnDevice {
                device: one.device.get(),
                holder: one.holder,
                this: one.this,
                state: one.state,
            });
            Ok(plain.collect())
        })
    }

    /// See [`Client::own_fork`].
    pub fn own_fork(self) -> Pending<Option<OwnFork>> {
        self.0.shared.step(Write::Durable, |step| {
            let fork = step.device.own_fork(step.rows)?;
            Ok(fork.map(|(ours, theirs)| {
                let numbers = |list: &sprag_session::SignedList| {
                    let entries = list.devices().iter();
                    entries.map(|entry| entry.device().get()).collect()
                };
                OwnFork {
                    ours: *ours.hash().as_bytes(),
                    our_devices: numbers(&ours),
                    theirs: *theirs.hash().as_bytes(),
                    their_devices: numbers(&theirs),
                }
            }))
        })
    }

    /// See [`Client::settle_fork`].
    pub fn settle_fork(self, hash: &[u8; 32]) -> Pending<()> {
        self.0.shared.step(Write::Durable, |mut step| {
            Ok(step
                .device
                .settle_fork_by_hash(step.rows, &mut step.env, hash)?)
        })
    }

    /// See [`Client::account_fingerprint`].
    pub fn account_fingerprint(self) -> Pending<String> {
        self.0.shared.step(Write::Durable, |step| {
            Ok(step.device.account_fingerprint()?)
        })
    }
}

#[cfg(not(target_family = "wasm"))]
impl Client {
    /// What a holder of the account reads to add this device, as text or as the content of a QR code: `sprag-link:` and
    /// up to 438 more characters. It lives ten minutes from when this profile was made, and is secret as long.
    ///
    /// # Errors
    /// `bad_input` if this device is on a list already; `link_expired`; `closed`, `forked`.
    pub fn link_request(&self) -> Result<String, Error> {
        self.start().link_request().wait()
    }

    /// Whether this device has the keys of its account, so that it may send. A device that is being linked gets them
    /// within a day of being added, or not at all.
    ///
    /// # Errors
    /// `link_expired`; those of the store.
    pub fn is_linked(&self) -> Result<bool, Error> {
        self.start().is_linked().wait()
    }

    /// Adds the device that shows `request` to our own account, as one that may add others or not, and says which
    /// number it gets. Ask the user before: "Add a device to *your* account?" It is listed when the server took the
    /// new list, and linked when it has the keys; tasks follow.
    ///
    /// # Errors
    /// `bad_input`: no such request, or of another user; the device is listed or waits to be; there are 32; or this
    /// device is no holder. `not_linked`; those of the store.
    pub fn link_device(&self, request: &str, holder: bool) -> Result<u32, Error> {
        self.start().link_device(request, holder).wait()
    }

    /// Takes a device off our own account, for good. Sessions with it end wherever the new list is learned, contacts
    /// are told, and a new generation of memory keys is made without it. What it knows it keeps: if it was a holder and
    /// is in foreign hands, this is not enough.
    ///
    /// # Errors
    /// `bad_input`: there is no such device, it is this one, or this device is no holder. Those of the store.
    pub fn remove_device(&self, device: u32) -> Result<(), Error> {
        self.start().remove_device(device).wait()
    }

    /// Says whether a device of ours may add and remove devices; one that may is given the account's private key.
    ///
    /// # Errors
    /// `bad_input`: there is no such device, no holder would be left, or this device is no holder. Those of the store.
    pub fn set_holder(&self, device: u32, holder: bool) -> Result<(), Error> {
        self.start().set_holder(device, holder).wait()
    }

    /// The devices of our own account, also those that are being added and removed, ascending.
    ///
    /// # Errors
    /// `not_linked`; those of the store.
    pub fn devices(&self) -> Result<Vec<OwnDevice>, Error> {
        self.start().devices().wait()
    }

    /// The two lists of our own account that contradict each other, if somebody showed such.
    ///
    /// # Errors
    /// Those of the store.
    pub fn own_fork(&self) -> Result<Option<OwnFork>, Error> {
        self.start().own_fork().wait()
    }

    /// The user says which of the two lists this device goes on with, by its hash; to be said on each device. All
    /// sessions are replaced by new ones.
    ///
    /// # Errors
    /// `bad_input` if there is no fork, or neither list has this hash. Those of the store.
    pub fn settle_fork(&self, hash: &[u8; 32]) -> Result<(), Error> {
        self.start().settle_fork(hash).wait()
    }

    /// 30 digits of our own account key: the same on all devices of the user. Compare them on both screens if a link
    /// request went through other hands.
    ///
    /// # Errors
    /// `not_linked`; those of the store.
    pub fn account_fingerprint(&self) -> Result<String, Error> {
        self.start().account_fingerprint().wait()
    }
}
