//! Objects: small values that the devices of one user share, changed by compare and swap ("Objects and blobs").

use sprag_crypto::sha256;
use sprag_wire::relay::Object;
use sprag_wire::{UserId, limits};

use crate::directory::{Directory, ServerEpoch, VERSION, hex, read_epoch, user_key};
use crate::error::{DirectoryError, Refusal};
use crate::storage::{LockedStorage, Storage, StorageError};

impl<S: Storage> Directory<S> {
    /// Puts an `Object` of `user`, if its tag is that of the one kept under this name (an empty tag: there is none), and
    /// answers with an `Object` of the same name, without value, that has the new tag.
    ///
    /// No object of this name ever had that tag, nor will another one have it, also not in a storage that was set back,
    /// noticed or not: only the same value put in the same place of the same history has the same tag.
    ///
    /// # Errors
    /// [`DirectoryError::Conflict`] with the `Object` kept, if its tag is another one. [`DirectoryError::Refused`] with
    /// [`TooLarge`](Refusal::TooLarge) for a value above 64 KiB, or [`Malformed`](Refusal::Malformed): no name, one above
    /// 64 bytes, or no value.
    pub fn put_object(&self, user: &UserId, object: &[u8]) -> Result<Vec<u8>, DirectoryError> {
        let object = decode(object)?;
        if object.value.len() > limits::OBJECT {
            return Err(Refusal::TooLarge.into());
        }
        // A reply without value says that what the client has is the newest.
        if object.value.is_empty() {
            return Err(Refusal::Malformed.into());
        }
        let mut rows = self.storage.lock()?;
        let epoch = read_epoch(&*rows)?;
        let kept = Kept::read(&*rows, user, &object.name)?;
        let expected = kept.as_ref().map_or(&[][..], |kept| &kept.tag.0);
        if object.tag != expected {
            return Err(DirectoryError::Conflict {
                newest: Kept::reply(kept, object.name),
            });
        }
        let before = kept.map(|kept| kept.tag);
        let tag = Tag::after(before.as_ref(), epoch, &object.value).ok_or(StorageError::Damaged)?;
        let kept = Kept {
            tag,
            value: object.value,
        };
        kept.write(&mut *rows, user, &object.name)?;
        Ok(Object::new(object.name, kept.tag.0.to_vec(), Vec::new()).encode())
    }

    /// Answers an `Object` that has a name, and the tag that its asker knows, with the `Object` of `user` under that
    /// name: without value if the tag is still the same, with an empty tag if there is none.
    ///
    /// # Errors
    /// [`DirectoryError::Refused`] with [`Malformed`](Refusal::Malformed).
    pub fn get_object(&self, user: &UserId, object: &[u8]) -> Result<Vec<u8>, DirectoryError> {
        let object = decode(object)?;
        let mut kept = Kept::read(&*self.storage.lock()?, user, &object.name)?;
        if let Some(kept) = &mut kept
            && object.tag == kept.tag.0
        {
            kept.value = Vec::new();
        }
        Ok(Kept::reply(kept, object.name))
    }
}

fn decode(object: &[u8]) -> Result<Object, Refusal> {
    let object = Object::decode(object).map_err(|_| Refusal::Malformed)?;
    let named = (1..=limits::OBJECT_NAME).contains(&object.name.len());
    if named && object.tag.len() <= limits::OBJECT_TAG {
        Ok(object)
    } else {
        Err(Refusal::Malformed)
    }
}

/// What tells the states of one name apart: `number(8, big endian) ‖ 16 bytes of a hash`.
///
/// The number ascends within one history, and the hash is over all of that history: so tags also differ where two
/// histories have the same length, since the storage was set back in between.
struct Tag([u8; TAG_LEN]);

impl Tag {
    fn after(before: Option<&Self>, epoch: ServerEpoch, value: &[u8]) -> Option<Self> {
        let number = before.map_or(Some(0), |tag| {
            tag.0.first_chunk().copied().map(u64::from_be_bytes)
        })?;
        let number = number.checked_add(1)?.to_be_bytes();
        let before = before.map_or([0; TAG_LEN], |tag| tag.0);
        // All but the last part have a fixed length.
        let hash = sha256(&[&before, epoch.as_bytes(), value]);
        let mut tag = [0; TAG_LEN];
        for (place, byte) in tag.iter_mut().zip(number.iter().chain(&hash)) {
            *place = *byte;
        }
        Some(Self(tag))
    }
}

/// An object as stored: `version(1) ‖ tag(24) ‖ value`.
struct Kept {
    tag: Tag,
    value: Vec<u8>,
}

impl Kept {
    fn read(
        rows: &dyn LockedStorage,
        user: &UserId,
        name: &[u8],
    ) -> Result<Option<Self>, StorageError> {
        let Some(row) = rows.get(&object_key(user, name), MAX_ROW)? else {
            return Ok(None);
        };
        Self::decode(&row).ok_or(StorageError::Damaged).map(Some)
    }

    fn decode(row: &[u8]) -> Option<Self> {
        let (version, rest) = row.split_first()?;
        let (tag, value) = rest.split_first_chunk::<TAG_LEN>()?;
        (*version == VERSION && !value.is_empty()).then_some(())?;
        Some(Self {
            tag: Tag(*tag),
            value: value.to_vec(),
        })
    }

    fn write(
        &self,
        rows: &mut dyn LockedStorage,
        user: &UserId,
        name: &[u8],
    ) -> Result<(), StorageError> {
        let row = [&[VERSION][..], &self.tag.0, &self.value].concat();
        rows.put(&object_key(user, name), &row)
    }

    fn reply(kept: Option<Self>, name: Vec<u8>) -> Vec<u8> {
        let (tag, value) =
            kept.map_or_else(Default::default, |kept| (kept.tag.0.to_vec(), kept.value));
        Object::new(name, tag, value).encode()
    }
}

// Names are bytes of any kind; their hash is a segment of fixed length.
fn object_key(user: &UserId, name: &[u8]) -> String {
    format!("{}/objects/{}", user_key(user), hex(&sha256(&[name])))
}

const TAG_LEN: usize = 24;
const MAX_ROW: usize = 1 + TAG_LEN + limits::OBJECT;
