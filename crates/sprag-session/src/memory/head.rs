//! The head of a key log: which segments count, who wrote, and after what ("Memories", *Heads*).
//!
//! ```text
//! 1 ‖ u64 list epoch ‖ u32 restarts ‖ u32 count ‖ writers, ascending: u32 device ‖ u64 counter ‖ u64 epoch ‖ u32 number
//!   ‖ u8 0, or 1 ‖ SHA-256 of the head before ‖ u32 count ‖ segments: blob 32 ‖ u32 records ‖ u64 size
//!   ‖ u32 signer ‖ signature 64
//! signature = XEdDSA(identity key of the signer, "Sprag/1 head" ‖ LP(name of the head) ‖ all before it)
//! ```

use std::collections::{BTreeMap, BTreeSet};

use rand_core::CryptoRng;
use sprag_crypto::{IdentityKeyPair, labels, put_lp, sha256};
use sprag_x3dh::DeviceList;

use super::LogError;
use super::keys::ObjectName;
use super::sealed::{self, generation_of};
use super::space::Space;
use crate::codec::{Reader, Writer as Bytes};
use crate::shares::Generation;

/// The largest head at a server, in bytes: that of an object.
pub const MAX_HEAD: usize = 64 << 10;
/// Segments that a head names; compaction merges them before.
pub const MAX_SEGMENTS: usize = 1_000;
/// Devices that ever wrote to a space.
const MAX_WRITERS: usize = 256;

const VERSION: u8 = 1;
const SIGNATURE: usize = 64;

/// A segment that counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct SegmentRef {
    /// Name of the blob: its SHA-256.
    pub blob: [u8; 32],
    /// Records in it.
    pub records: u32,
    /// Size of the blob, in bytes.
    pub size: u64,
}

impl SegmentRef {
    /// Names a segment.
    #[must_use]
    pub fn new(blob: [u8; 32], records: u32, size: u64) -> Self {
        Self {
            blob,
            records,
            size,
        }
    }
}

/// What a device says of itself in the heads that it writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct WriterState {
    /// How often it wrote, from 1.
    pub counter: u64,
    /// The lowest generation that it holds, as epoch and number: what was erased below it cannot be read there.
    pub holds: (u64, u32),
}

/// The head of a space.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Head {
    /// Epoch of the newest device list that the signer knew.
    pub list_epoch: u64,
    /// How often the log was written anew without all that the head before named, because the server had lost it. Who
    /// sees it grow looks whether what he has is still there.
    pub restarts: u32,
    /// Every device that ever wrote.
    pub writers: BTreeMap<u32, WriterState>,
    /// SHA-256 of the sealed head before; none for the first.
    pub previous: Option<[u8; 32]>,
    /// The segments that count, oldest first.
    pub segments: Vec<SegmentRef>,
    /// The device that wrote it.
    pub signer: u32,
}

/// The newest head that a device has believed: what a later one must come after.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Seen {
    /// SHA-256 of the sealed head.
    pub hash: [u8; 32],
    /// Epoch and number of its generation.
    pub generation: (u64, u32),
    /// The counters in it.
    pub counters: BTreeMap<u32, u64>,
}

impl Seen {
    /// What is remembered of a head that was read or written, with its sealed bytes.
    ///
    /// # Errors
    /// [`LogError::Damaged`]: no sealed bytes.
    pub fn new(head: &Head, sealed: &[u8]) -> Result<Self, LogError> {
        let (epoch, number, _) = generation_of(sealed)?;
        Ok(Self {
            hash: sha256(&[sealed]),
            generation: (epoch, number),
            counters: head.counters(),
        })
    }

    /// Whether sealed bytes say that they are under an earlier generation.
    fn is_above(&self, sealed: &[u8]) -> bool {
        generation_of(sealed).is_ok_and(|(epoch, number, _)| (epoch, number) < self.generation)
    }

    /// Whether a head comes after this one, or is it.
    ///
    /// # Errors
    /// [`LogError::Stale`]: an older one. [`LogError::Forked`]: neither before nor after it.
    fn check(&self, next: &Self) -> Result<(), LogError> {
        if next.hash == self.hash {
            return Ok(());
        }
        if next.generation < self.generation {
            return Err(LogError::Stale);
        }
        let devices: BTreeSet<&u32> = self.counters.keys().chain(next.counters.keys()).collect();
        let of = |counters: &BTreeMap<u32, u64>, device| counters.get(device).copied().unwrap_or(0);
        let (mut higher, mut lower) = (false, false);
        for device in devices {
            let (before, now) = (of(&self.counters, device), of(&next.counters, device));
            higher |= now > before;
            lower |= now < before;
        }
        match (higher, lower) {
            (true, false) => Ok(()),
            (false, true) => Err(LogError::Stale),
            _ => Err(LogError::Forked),
        }
    }
}

impl Head {
    /// The head that a device writes after another (or first): its counter goes up, `segments` are what counts from now on.
    ///
    /// # Errors
    /// [`LogError::TooLarge`]: more than 1,000 segments, or 256 devices that ever wrote. [`LogError::BadInput`]: device 0.
    pub fn after(
        before: Option<(&Self, &Seen)>,
        device: u32,
        list_epoch: u64,
        holds: (u64, u32),
        segments: Vec<SegmentRef>,
    ) -> Result<Self, LogError> {
        if device == 0 {
            return Err(LogError::BadInput);
        }
        let mut writers = before.map_or_else(BTreeMap::new, |(head, _)| head.writers.clone());
        let counter = writers.get(&device).map_or(0, |writer| writer.counter);
        let counter = counter.checked_add(1).ok_or(LogError::TooLarge)?;
        writers.insert(device, WriterState { counter, holds });
        if segments.len() > MAX_SEGMENTS || writers.len() > MAX_WRITERS {
            return Err(LogError::TooLarge);
        }
        Ok(Self {
            list_epoch,
            restarts: before.map_or(0, |(head, _)| head.restarts),
            writers,
            previous: before.map(|(_, seen)| seen.hash),
            segments,
            signer: device,
        })
    }

    /// Its writer has used counters up to this one already.
    pub(crate) fn count_above(&mut self, used: u64) -> Result<(), LogError> {
        if let Some(writer) = self.writers.get_mut(&self.signer) {
            let next = used.checked_add(1).ok_or(LogError::TooLarge)?;
            writer.counter = writer.counter.max(next);
        }
        Ok(())
    }

    /// The counter of the device that wrote it.
    pub(crate) fn own_counter(&self) -> u64 {
        let writer = self.writers.get(&self.signer);
        writer.map_or(0, |writer| writer.counter)
    }

    /// Takes over what another branch of the same log says: the higher counters count, so that whoever saw either of
    /// them takes what follows.
    pub(crate) fn join(&mut self, other: &Self) {
        self.restarts = self.restarts.max(other.restarts);
        for (device, writer) in &other.writers {
            let ours = self.writers.entry(*device).or_insert(*writer);
            ours.counter = ours.counter.max(writer.counter);
            ours.holds = ours.holds.max(writer.holds);
        }
    }

    /// The device that a head names as its signer, if it opens. Nothing is verified.
    pub(crate) fn signer_of(
        generations: &[Generation],
        space: &Space,
        name: &ObjectName,
        bytes: &[u8],
    ) -> Option<u32> {
        let plaintext = sealed::open(generations, space, labels::HEAD, name, bytes).ok()?;
        let (body, _) = plaintext.split_last_chunk::<SIGNATURE>()?;
        Self::decode(body).ok().map(|head| head.signer)
    }

    /// The counters of all who ever wrote.
    #[must_use]
    pub fn counters(&self) -> BTreeMap<u32, u64> {
        let counters = self.writers.iter();
        counters
            .map(|(device, writer)| (*device, writer.counter))
            .collect()
    }

    /// Whether every device of a list says that it holds nothing below a generation: then what was erased before it is
    /// erased everywhere.
    #[must_use]
    pub fn all_hold_nothing_below(&self, list: &DeviceList, floor: (u64, u32)) -> bool {
        list.devices().iter().all(|entry| {
            let writer = self.writers.get(&entry.device().get());
            writer.is_some_and(|writer| writer.holds >= floor)
        })
    }

    /// Signs and seals the head. Draws 64 bytes for the signature, then 16.
    #[must_use]
    pub fn seal(
        &self,
        identity: &IdentityKeyPair,
        generation: &Generation,
        space: &Space,
        name: &ObjectName,
        rng: &mut dyn CryptoRng,
    ) -> Vec<u8> {
        let mut plaintext = self.encode();
        let signature = identity.sign(&signed(name, &plaintext), rng);
        plaintext.extend_from_slice(&signature);
        sealed::seal(generation, space, labels::HEAD, name, &plaintext, rng)
    }

    /// Opens a head and judges it: who wrote it, and whether it comes after what was seen. A head that was seen before is
    /// believed although its author is not listed any more; the next one must be signed by somebody who is.
    ///
    /// # Errors
    /// In this order: [`LogError::Damaged`], [`LogError::NotYet`] (of a generation, or a list, that is not known here;
    /// [`LogError::Stale`] if that generation is below the one seen),
    /// [`LogError::UnlistedDevice`], [`LogError::BadSignature`], [`LogError::Stale`], [`LogError::Forked`].
    pub fn open(
        generations: &[Generation],
        space: &Space,
        name: &ObjectName,
        list: &DeviceList,
        seen: Option<&Seen>,
        bytes: &[u8],
    ) -> Result<(Self, Seen), LogError> {
        if bytes.len() > MAX_HEAD {
            return Err(LogError::Damaged);
        }
        let plaintext = match sealed::open(generations, space, labels::HEAD, name, bytes) {
            // One that was given up is not waited for: it does not come again.
            Err(LogError::NotYet) if seen.is_some_and(|seen| seen.is_above(bytes)) => {
                return Err(LogError::Stale);
            }
            opened => opened?,
        };
        let (body, signature) = plaintext
            .split_last_chunk::<SIGNATURE>()
            .ok_or(LogError::Damaged)?;
        let head = Self::decode(body)?;
        let now = Seen::new(&head, bytes)?;
        if seen.is_some_and(|seen| seen.hash == now.hash) {
            return Ok((head, now));
        }
        if head.list_epoch > list.epoch() {
            return Err(LogError::NotYet);
        }
        let mut devices = list.devices().iter();
        let signer = devices
            .find(|entry| entry.device().get() == head.signer)
            .ok_or(LogError::UnlistedDevice)?;
        signer
            .identity_key()
            .verify(&signed(name, body), signature)
            .map_err(|_| LogError::BadSignature)?;
        if let Some(seen) = seen {
            seen.check(&now)?;
        }
        Ok((head, now))
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let size = 8 + 4 + 4 + self.writers.len() * 24 + 33 + 4 + self.segments.len() * 44 + 4;
        let mut bytes = Bytes::new(VERSION, size);
        let count = |len| u32::try_from(len).unwrap_or(u32::MAX);
        bytes.u64(self.list_epoch).u32(self.restarts);
        bytes.u32(count(self.writers.len()));
        for (device, writer) in &self.writers {
            bytes.u32(*device).u64(writer.counter);
            bytes.u64(writer.holds.0).u32(writer.holds.1);
        }
        bytes.optional(self.previous.as_ref().map(|hash| &hash[..]));
        bytes.u32(count(self.segments.len()));
        for segment in &self.segments {
            bytes
                .fixed(&segment.blob)
                .u32(segment.records)
                .u64(segment.size);
        }
        bytes.u32(self.signer);
        bytes.finish().to_vec()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, LogError> {
        sealed::check_version(bytes, VERSION)?;
        let mut reader = Reader::new(bytes, VERSION, "head")?;
        let (list_epoch, restarts) = (reader.u64()?, reader.u32()?);
        let count = reader.u32()? as usize;
        if count > MAX_WRITERS {
            return Err(LogError::Damaged);
        }
        let mut writers = BTreeMap::new();
        for _ in 0..count {
            let (device, counter) = (reader.u32()?, reader.u64()?);
            let holds = (reader.u64()?, reader.u32()?);
            let ascends = writers
                .last_key_value()
                .is_none_or(|(last, _)| *last < device);
            if device == 0 || counter == 0 || !ascends {
                return Err(LogError::Damaged);
            }
            writers.insert(device, WriterState { counter, holds });
        }
        let previous = reader.optional()?;
        let count = reader.u32()? as usize;
        if count > MAX_SEGMENTS {
            return Err(LogError::Damaged);
        }
        let mut segments = Vec::new();
        for _ in 0..count {
            segments.push(SegmentRef::new(
                reader.array()?,
                reader.u32()?,
                reader.u64()?,
            ));
        }
        let signer = reader.u32()?;
        reader.finish()?;
        if !writers.contains_key(&signer) {
            return Err(LogError::Damaged);
        }
        Ok(Self {
            list_epoch,
            restarts,
            writers,
            previous,
            segments,
            signer,
        })
    }
}

fn signed(name: &ObjectName, body: &[u8]) -> Vec<u8> {
    let mut message = labels::HEAD.to_vec();
    put_lp(&mut message, name);
    message.extend_from_slice(body);
    message
}

#[cfg(test)]
mod tests {
    use rand_chacha::ChaCha20Rng;
    use sprag_crypto::AccountKeyPair;
    use sprag_wire::{DeviceId, HOLDER, ListedDevice, UserId};

    use super::super::segment::tests::{generation, head_name, rng, space};
    use super::*;

    /// An account with devices 70,000 and up.
    struct Account {
        account: AccountKeyPair,
        devices: Vec<IdentityKeyPair>,
        rng: ChaCha20Rng,
    }

    impl Account {
        fn new(count: usize) -> Self {
            let mut rng = rng();
            let account = AccountKeyPair::generate(&mut rng);
            let devices = (0..count).map(|_| IdentityKeyPair::generate(&mut rng));
            Self {
                account,
                devices: devices.collect(),
                rng,
            }
        }

        fn list(&mut self, epoch: u64, devices: &[usize]) -> DeviceList {
            let user = UserId::new("ann").unwrap();
            let previous = (epoch > 1).then(|| sprag_wire::ListHash::from_bytes([7; 32]));
            let entries: Vec<_> = devices
                .iter()
                .map(|at| {
                    let number = DeviceId::new(number(*at)).unwrap();
                    ListedDevice::new(number, *self.devices[*at].public(), HOLDER)
                })
                .collect();
            DeviceList::sign(
                &self.account,
                &user,
                epoch,
                previous,
                &entries,
                &mut self.rng,
            )
            .unwrap()
        }

        fn write(&mut self, before: Option<(&Head, &Seen)>, by: usize) -> Vec<u8> {
            self.write_under(before, by, 1, &generation(1, 1, 1))
        }

        fn write_under(
            &mut self,
            before: Option<(&Head, &Seen)>,
            by: usize,
            list_epoch: u64,
            under: &Generation,
        ) -> Vec<u8> {
            let segments = vec![SegmentRef::new([by.to_be_bytes()[7]; 32], 1, 300)];
            let holds = (under.epoch, under.number);
            let head = Head::after(before, number(by), list_epoch, holds, segments).unwrap();
            let identity = self.devices[by].clone();
            head.seal(&identity, under, &space(), &head_name(), &mut self.rng)
        }
    }

    fn number(at: usize) -> u32 {
        70_000 + u32::try_from(at).unwrap()
    }

    fn open(
        list: &DeviceList,
        seen: Option<&Seen>,
        bytes: &[u8],
    ) -> Result<(Head, Seen), LogError> {
        let held = [generation(1, 1, 1), generation(2, 1, 2)];
        Head::open(&held, &space(), &head_name(), list, seen, bytes)
    }

    #[test]
    fn heads_follow_each_other_whichever_device_writes() {
        let mut ann = Account::new(2);
        let list = ann.list(1, &[0, 1]);
        let bytes = ann.write(None, 0);
        let (mut head, mut seen) = open(&list, None, &bytes).unwrap();
        assert_eq!((head.signer, head.previous), (number(0), None));
        for by in [1, 1, 0, 1] {
            let bytes = ann.write(Some((&head, &seen)), by);
            let (next, now) = open(&list, Some(&seen), &bytes).unwrap();
            assert_eq!(next.previous, Some(seen.hash));
            assert_eq!(next.signer, number(by));
            (head, seen) = (next, now);
        }
        let counters: Vec<u64> = head.counters().into_values().collect();
        assert_eq!(counters, [2, 3]);
    }

    #[test]
    fn older_head_is_stale_and_another_branch_is_a_fork() {
        let mut ann = Account::new(2);
        let list = ann.list(1, &[0, 1]);
        let first = ann.write(None, 0);
        let (head, seen) = open(&list, None, &first).unwrap();
        let left = ann.write(Some((&head, &seen)), 0);
        let right = ann.write(Some((&head, &seen)), 1);
        let again = ann.write(Some((&head, &seen)), 0);
        let (_, at_left) = open(&list, Some(&seen), &left).unwrap();
        assert_eq!(open(&list, Some(&at_left), &first), Err(LogError::Stale));
        assert_eq!(open(&list, Some(&at_left), &right), Err(LogError::Forked));
        // The same counters and other bytes: written twice on top of one head.
        assert_eq!(open(&list, Some(&at_left), &again), Err(LogError::Forked));
        assert!(open(&list, Some(&at_left), &left).is_ok());
    }

    #[test]
    fn head_under_an_older_generation_than_seen_is_stale() {
        let mut ann = Account::new(1);
        let list = ann.list(1, &[0]);
        let newer = ann.write_under(None, 0, 1, &generation(2, 1, 2));
        let (head, seen) = open(&list, None, &newer).unwrap();
        let older = ann.write_under(Some((&head, &seen)), 0, 1, &generation(1, 1, 1));
        assert_eq!(open(&list, Some(&seen), &older), Err(LogError::Stale));
        // Also if it was given up meanwhile; who has seen nothing waits for it.
        let held = [generation(2, 1, 2)];
        let open = |seen| Head::open(&held, &space(), &head_name(), &list, seen, &older);
        assert_eq!(open(Some(&seen)), Err(LogError::Stale));
        assert_eq!(open(None), Err(LogError::NotYet));
    }

    #[test]
    fn head_of_a_removed_device_counts_only_if_it_was_seen_before() {
        let mut ann = Account::new(2);
        let both = ann.list(1, &[0, 1]);
        let bytes = ann.write(None, 1);
        let (head, seen) = open(&both, None, &bytes).unwrap();
        let one = ann.list(2, &[0]);
        assert_eq!(open(&one, None, &bytes), Err(LogError::UnlistedDevice));
        assert!(open(&one, Some(&seen), &bytes).is_ok());
        let next = ann.write(Some((&head, &seen)), 1);
        assert_eq!(
            open(&one, Some(&seen), &next),
            Err(LogError::UnlistedDevice)
        );
        let signed_anew = ann.write(Some((&head, &seen)), 0);
        assert!(open(&one, Some(&seen), &signed_anew).is_ok());
    }

    #[test]
    fn head_that_somebody_else_signed_or_that_names_another_signer_is_refused() {
        let mut ann = Account::new(2);
        let list = ann.list(1, &[0]);
        // Whoever has the keys of the space but no listed identity key.
        let identity = ann.devices[1].clone();
        let head = Head::after(None, number(0), 1, (1, 1), Vec::new()).unwrap();
        let (one, space, name) = (generation(1, 1, 1), space(), head_name());
        let forged = head.seal(&identity, &one, &space, &name, &mut ann.rng);
        assert_eq!(open(&list, None, &forged), Err(LogError::BadSignature));
        let under_own_name = ann.write(None, 1);
        assert_eq!(
            open(&list, None, &under_own_name),
            Err(LogError::UnlistedDevice)
        );
        assert_eq!(
            Head::after(None, 0, 1, (1, 1), Vec::new()),
            Err(LogError::BadInput)
        );
    }

    #[test]
    fn head_of_a_newer_list_or_generation_waits() {
        let mut ann = Account::new(1);
        let list = ann.list(1, &[0]);
        let newer_list = ann.write_under(None, 0, 2, &generation(1, 1, 1));
        assert_eq!(open(&list, None, &newer_list), Err(LogError::NotYet));
        let newer_key = ann.write_under(None, 0, 1, &generation(3, 1, 3));
        assert_eq!(open(&list, None, &newer_key), Err(LogError::NotYet));
    }

    #[test]
    fn no_changed_or_cut_byte_of_a_head_opens() {
        let mut ann = Account::new(1);
        let list = ann.list(1, &[0]);
        let bytes = ann.write(None, 0);
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            assert!(open(&list, None, &changed).is_err(), "{at}");
            assert!(open(&list, None, &bytes[..at]).is_err(), "{at}");
        }
        assert_eq!(
            open(&list, None, &vec![0; MAX_HEAD + 1]),
            Err(LogError::Damaged)
        );
    }

    #[test]
    fn encodings_that_are_not_the_one_are_refused() {
        let segments = vec![SegmentRef::new([1; 32], 1, 1)];
        let head = Head::after(None, 5, 1, (1, 1), segments).unwrap();
        let good = head.encode();
        assert_eq!(Head::decode(&good), Ok(head));
        for length in 0..good.len() {
            assert_eq!(Head::decode(&good[..length]), Err(LogError::Damaged));
        }
        let last = good.len() - 1;
        // A later version is not here yet, and is not overwritten.
        let mut later = good.to_vec();
        later[0] = 2;
        assert_eq!(Head::decode(&later), Err(LogError::NotYet));
        // No version; too many writers; writer 0; counter 0; a flag that is none; a signer who never wrote.
        for (at, byte) in [(0, 0), (13, 0xff), (20, 0), (28, 0), (41, 2), (last, 6)] {
            let mut bad = good.clone();
            bad[at] = byte;
            assert_eq!(Head::decode(&bad), Err(LogError::Damaged), "{at}");
        }
    }

    #[test]
    fn largest_head_fits_into_an_object_and_one_more_does_not() {
        let mut ann = Account::new(1);
        let segments = |count| vec![SegmentRef::new([1; 32], 1, 1); count];
        let mut head = Head::after(None, number(0), 1, (1, 1), segments(MAX_SEGMENTS)).unwrap();
        while head.writers.len() < MAX_WRITERS {
            let device = u32::try_from(head.writers.len()).unwrap() + 1;
            let holds = (1, 1);
            head.writers
                .insert(device, WriterState { counter: 1, holds });
        }
        let identity = ann.devices[0].clone();
        let (one, space, name) = (generation(1, 1, 1), space(), head_name());
        let sealed = head.seal(&identity, &one, &space, &name, &mut ann.rng);
        assert!(sealed.len() <= MAX_HEAD, "{}", sealed.len());
        let list = ann.list(1, &[0]);
        let (read, seen) = open(&list, None, &sealed).unwrap();
        assert_eq!(read, head);
        let before = Some((&read, &seen));
        let one_more = Head::after(before, number(0), 1, (1, 1), segments(MAX_SEGMENTS + 1));
        assert_eq!(one_more, Err(LogError::TooLarge));
        let one_more = Head::after(before, 90_000, 1, (1, 1), Vec::new());
        assert_eq!(one_more, Err(LogError::TooLarge));
    }

    #[test]
    fn erased_is_said_only_when_every_listed_device_holds_nothing_below() {
        let mut ann = Account::new(3);
        let list = ann.list(1, &[0, 1]);
        let first = Head::after(None, number(0), 1, (2, 1), Vec::new()).unwrap();
        assert!(!first.all_hold_nothing_below(&list, (2, 1)));
        let seen = Seen {
            hash: [0; 32],
            generation: (2, 1),
            counters: first.counters(),
        };
        for (holds, all) in [((1, 9), false), ((2, 1), true), ((3, 1), true)] {
            let before = Some((&first, &seen));
            let head = Head::after(before, number(1), 1, holds, Vec::new()).unwrap();
            assert_eq!(head.all_hold_nothing_below(&list, (2, 1)), all);
        }
    }
}
