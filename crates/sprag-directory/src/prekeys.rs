//! Prekeys: uploaded by a device, handed out once ("Prekeys").

use sprag_crypto::sha256;
use sprag_wire::relay::{BundleQuery, BundleReply, PreKeyState, PreKeyUpload};
use sprag_wire::{DeviceAddress, KemKind, UnverifiedPreKeyBundle, UserId, limits};

use crate::directory::{Directory, ServerEpoch, VERSION, read_epoch, user_key};
use crate::error::{DirectoryError, Refusal};
use crate::lists::Newest;
use crate::storage::{LockedStorage, Storage, StorageError};

impl<S: Storage> Directory<S> {
    /// Takes over the `PreKeyUpload` of `address` and answers with a `PreKeyState`.
    ///
    /// A number not above the last accepted one changes nothing. The device need not be on a list yet; its prekeys
    /// are handed out once it is. Signatures are the requester's to verify.
    ///
    /// # Errors
    /// [`DirectoryError::Refused`] with [`Malformed`](Refusal::Malformed), [`UsedPreKeyId`](Refusal::UsedPreKeyId),
    /// [`TooManyPreKeys`](Refusal::TooManyPreKeys), [`WrongKeyKind`](Refusal::WrongKeyKind).
    pub fn upload_pre_keys(
        &self,
        address: &DeviceAddress,
        upload: &[u8],
    ) -> Result<Vec<u8>, DirectoryError> {
        let upload = PreKeyUpload::decode(upload).map_err(|_| Refusal::Malformed)?;
        let mut rows = self.storage.lock()?;
        let epoch = read_epoch(&*rows)?;
        let stock = Stock::read(&*rows, address, epoch)?;
        if stock
            .as_ref()
            .is_some_and(|stock| upload.number <= stock.keys.number)
        {
            return Ok(state(epoch, stock.as_ref()));
        }
        let stock = Stock::after(stock, upload)?;
        stock.write(&mut *rows, address, epoch)?;
        Ok(state(epoch, Some(&stock)))
    }

    /// What the directory has of `address`, as a `PreKeyState`: number 0 if nothing was published.
    ///
    /// # Errors
    /// [`StorageError`].
    pub fn state(&self, address: &DeviceAddress) -> Result<Vec<u8>, StorageError> {
        let rows = self.storage.lock()?;
        let epoch = read_epoch(&*rows)?;
        Ok(state(epoch, Stock::read(&*rows, address, epoch)?.as_ref()))
    }

    /// Answers a `BundleQuery` with a `BundleReply`: a bundle of each device asked for that is on the newest list, and
    /// that list. The one-time prekeys in it have left the directory.
    ///
    /// # Errors
    /// [`DirectoryError::NoSuchUser`], [`Refusal::Malformed`].
    pub fn bundles(&self, query: &[u8]) -> Result<Vec<u8>, DirectoryError> {
        let query = BundleQuery::decode(query).map_err(|_| Refusal::Malformed)?;
        let user = UserId::new(&query.user).map_err(|_| Refusal::Malformed)?;
        self.take_bundles(&user, &query.devices)
    }

    /// What [`bundles`](Self::bundles) answers to whoever asks for all devices of `user`: for handing it to somebody by
    /// other ways.
    ///
    /// # Errors
    /// [`DirectoryError::NoSuchUser`].
    pub fn bundles_of(&self, user: &UserId) -> Result<Vec<u8>, DirectoryError> {
        self.take_bundles(user, &[])
    }

    fn take_bundles(&self, user: &UserId, devices: &[u32]) -> Result<Vec<u8>, DirectoryError> {
        let mut rows = self.storage.lock()?;
        let epoch = read_epoch(&*rows)?;
        let newest = Newest::read(&*rows, user)?.ok_or(DirectoryError::NoSuchUser)?;
        let list = newest.list.frame();
        let mut bundles = Vec::new();
        let mut missing = Vec::new();
        for listed in newest.list.devices() {
            let device = listed.device();
            if !devices.is_empty() && !devices.contains(&device.get()) {
                continue;
            }
            let address = DeviceAddress::new(user.clone(), device);
            let Some(mut stock) = Stock::read(&*rows, &address, epoch)? else {
                missing.push(device.get());
                continue;
            };
            let one_time_pre_key = take_first(&mut stock.keys.one_time_pre_keys);
            let one_time_kem = take_first(&mut stock.keys.kem_pre_keys);
            if one_time_pre_key.is_some() || one_time_kem.is_some() {
                stock.write(&mut *rows, &address, epoch)?;
            }
            let bundle = UnverifiedPreKeyBundle::new(
                address,
                *listed.identity_key(),
                stock.keys.signed_pre_key,
                one_time_pre_key,
                one_time_kem.unwrap_or(stock.keys.last_resort),
                list.to_vec(),
            );
            bundles.push(bundle.encode());
        }
        Ok(BundleReply::new(bundles, missing, list.to_vec()).encode())
    }
}

/// What is stored of one device: the last upload accepted, its one-time keys those not handed out yet.
///
/// `version(1) ‖ server epoch(16) ‖ highest ids(3 × 4, big endian) ‖ PreKeyUpload`. All of it is public.
struct Stock {
    top: Top,
    keys: PreKeyUpload,
}

/// The highest id ever accepted of each counter (The protocol, §1.1).
#[derive(Clone, Copy, Default)]
struct Top {
    signed: u32,
    one_time: u32,
    kem: u32,
}

impl Stock {
    /// The stock after `upload`, whose number was found to be a new one.
    fn after(before: Option<Self>, upload: PreKeyUpload) -> Result<Self, Refusal> {
        let mut top = before.as_ref().map_or(Top::default(), |stock| stock.top);
        let highest = top;
        let stored = before.as_ref().map(|stock| &stock.keys);

        if upload.last_resort.kind != KemKind::LastResort {
            return Err(Refusal::WrongKeyKind);
        }
        if upload
            .kem_pre_keys
            .iter()
            .any(|key| key.kind != KemKind::OneTime)
        {
            return Err(Refusal::WrongKeyKind);
        }
        // Ids of one-time keys ascend; the last-resort key may stand anywhere among them, they share a counter.
        ascend(
            &mut top.one_time,
            upload.one_time_pre_keys.iter().map(|key| key.id.get()),
        )?;
        ascend(
            &mut top.kem,
            upload.kem_pre_keys.iter().map(|key| key.id.get()),
        )?;
        if stored.is_none_or(|keys| keys.signed_pre_key != upload.signed_pre_key) {
            ascend(&mut top.signed, [upload.signed_pre_key.id.get()])?;
        }
        if stored.is_none_or(|keys| keys.last_resort != upload.last_resort) {
            let id = upload.last_resort.id;
            if id.get() <= highest.kem || upload.kem_pre_keys.iter().any(|key| key.id == id) {
                return Err(Refusal::UsedPreKeyId);
            }
            top.kem = top.kem.max(id.get());
        }

        let mut keys = upload;
        if let Some(before) = before.filter(|_| !keys.replace) {
            keys.one_time_pre_keys
                .splice(0..0, before.keys.one_time_pre_keys);
            keys.kem_pre_keys.splice(0..0, before.keys.kem_pre_keys);
        }
        if keys.one_time_pre_keys.len() > limits::ONE_TIME_PRE_KEYS
            || keys.kem_pre_keys.len() > limits::ONE_TIME_PRE_KEYS
        {
            return Err(Refusal::TooManyPreKeys);
        }
        Ok(Self { top, keys })
    }

    fn read(
        rows: &dyn LockedStorage,
        address: &DeviceAddress,
        epoch: ServerEpoch,
    ) -> Result<Option<Self>, StorageError> {
        let Some(row) = rows.get(&stock_key(address), MAX_STOCK)? else {
            return Ok(None);
        };
        let (written, mut stock) = Self::decode(&row).ok_or(StorageError::Damaged)?;
        // Keys of a restored backup may have been handed out after it was made.
        if written != *epoch.as_bytes() {
            stock.keys.one_time_pre_keys.clear();
            stock.keys.kem_pre_keys.clear();
        }
        Ok(Some(stock))
    }

    fn decode(row: &[u8]) -> Option<([u8; 16], Self)> {
        let (version, rest) = row.split_first()?;
        let (epoch, rest) = rest.split_first_chunk::<16>()?;
        let (signed, rest) = rest.split_first_chunk::<4>()?;
        let (one_time, rest) = rest.split_first_chunk::<4>()?;
        let (kem, upload) = rest.split_first_chunk::<4>()?;
        (*version == VERSION).then_some(())?;
        let top = Top {
            signed: u32::from_be_bytes(*signed),
            one_time: u32::from_be_bytes(*one_time),
            kem: u32::from_be_bytes(*kem),
        };
        let keys = PreKeyUpload::decode(upload).ok()?;
        Some((*epoch, Self { top, keys }))
    }

    fn write(
        &self,
        rows: &mut dyn LockedStorage,
        address: &DeviceAddress,
        epoch: ServerEpoch,
    ) -> Result<(), StorageError> {
        let mut row = vec![VERSION];
        row.extend_from_slice(epoch.as_bytes());
        for id in [self.top.signed, self.top.one_time, self.top.kem] {
            row.extend_from_slice(&id.to_be_bytes());
        }
        row.extend_from_slice(&self.keys.encode());
        rows.put(&stock_key(address), &row)
    }
}

/// The `PreKeyState` of a device.
fn state(epoch: ServerEpoch, stock: Option<&Stock>) -> Vec<u8> {
    let epoch = epoch.as_bytes().to_vec();
    let Some(Stock { top, keys }) = stock else {
        return PreKeyState::new(epoch, 0, Vec::new(), 0, 0, Vec::new()).encode();
    };
    let digest = sha256(&[&keys.signed_pre_key.encode(), &keys.last_resort.encode()]);
    PreKeyState::new(
        epoch,
        keys.number,
        digest.to_vec(),
        count(&keys.one_time_pre_keys),
        count(&keys.kem_pre_keys),
        vec![top.signed, top.one_time, top.kem],
    )
    .encode()
}

fn count<T>(keys: &[T]) -> u32 {
    u32::try_from(keys.len()).unwrap_or(u32::MAX)
}

/// Moves `top` over `ids`, if each is above all before.
fn ascend(top: &mut u32, ids: impl IntoIterator<Item = u32>) -> Result<(), Refusal> {
    for id in ids {
        if id <= *top {
            return Err(Refusal::UsedPreKeyId);
        }
        *top = id;
    }
    Ok(())
}

fn take_first<T>(keys: &mut Vec<T>) -> Option<T> {
    (!keys.is_empty()).then(|| keys.remove(0))
}

fn stock_key(address: &DeviceAddress) -> String {
    let device = address.device().get();
    format!("{}/prekeys/{device}", user_key(address.user()))
}

/// 2 × 100 one-time keys take 170 kB.
const MAX_STOCK: usize = 1 << 18;
