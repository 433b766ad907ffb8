//! Who a store belongs to: a device, or one that is still being linked.

use sprag_session::{Device, Linking, Newcomer};
use sprag_store::{Rows, StoreError};
use sprag_wire::UserId;

use crate::Error;

/// What a client is.
pub(crate) enum Party {
    /// A device of its user. It may still wait for the keys of the account.
    Device(Box<Device>),
    /// It shows a link request, and has no number yet.
    Linking(Linking),
    /// Its link request has expired. There is nothing left but events.
    Ended(UserId),
}

impl Party {
    /// What a store holds, which must be of `user` if that is given; `None` if it holds nothing of the kind.
    pub(crate) fn load(rows: &dyn Rows, user: Option<&UserId>) -> Result<Option<Self>, Error> {
        let party = match Device::load(rows)? {
            Some(device) => Self::Device(Box::new(device)),
            None => match Linking::load(rows)? {
                None => return Ok(None),
                Some(Newcomer::Linking(linking)) => Self::Linking(linking),
                Some(Newcomer::Ended(user)) => Self::Ended(user),
                Some(_) => return Err(StoreError::Damaged("a newcomer of another version").into()),
            },
        };
        if user.is_some_and(|user| user != party.user()) {
            return Err(Error::other_user());
        }
        Ok(Some(party))
    }

    pub(crate) fn user(&self) -> &UserId {
        match self {
            Self::Device(device) => device.address().user(),
            Self::Linking(linking) => linking.user(),
            Self::Ended(user) => user,
        }
    }

    /// The key that it is known by, also before it has a number.
    pub(crate) fn identity_key(&self) -> Option<[u8; 33]> {
        match self {
            Self::Device(device) => Some(*device.identity_key().as_bytes()),
            Self::Linking(linking) => Some(*linking.identity_key().as_bytes()),
            Self::Ended(_) => None,
        }
    }

    /// The device that it is.
    pub(crate) fn device(&mut self, now: u64) -> Result<&mut Device, Error> {
        match self {
            Self::Device(device) => Ok(device),
            Self::Linking(linking) if !linking.is_over(now) => Err(Error::not_linked()),
            Self::Linking(_) | Self::Ended(_) => Err(Error::link_expired()),
        }
    }
}
