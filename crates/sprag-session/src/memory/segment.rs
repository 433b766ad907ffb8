//! Segments: immutable parts of a key log ("Memories", *Segments*).
//!
//! ```text
//! 1 ‖ u32 count ‖ entries, ascending by record id:
//!   u32 len ‖ record id ‖ u64 revision ‖ u32 device ‖ u64 time ‖ u32 len ‖ agent ‖ u8 state
//!   ‖ state 0 or 3: record key 32 ‖ blob 32 ‖ u64 bytes of the blob (0: the application keeps it, 3: the server does)
//!           1: deleted, nothing      2: erased under u64 epoch ‖ u32 number      4: a space that there is, nothing
//! ```

use std::collections::BTreeMap;
use std::fmt;

use rand_core::CryptoRng;
use sprag_crypto::labels;
use zeroize::Zeroizing;

use super::LogError;
use super::keys::ObjectName;
use super::sealed;
use super::space::{RecordId, Space};
use crate::codec::{Reader, Writer};
use crate::shares::Generation;

/// Records that one segment may hold.
pub const MAX_ENTRIES: usize = 4_096;
/// The longest name of an agent, in bytes.
const MAX_AGENT: usize = 255;

const VERSION: u8 = 1;

/// What became of a record.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum RecordState {
    /// It stands in a blob.
    #[non_exhaustive]
    Live {
        /// Its key, 32 random bytes, of this revision alone. **Secret.**
        key: Zeroizing<[u8; 32]>,
        /// SHA-256 of its blob.
        blob: [u8; 32],
        /// Size of its blob, in bytes.
        size: u64,
        /// The server keeps the blob; else the application does, at a place of its own.
        at_server: bool,
    },
    /// It was deleted; a later write brings it back.
    Deleted,
    /// It was erased: its keys are given up, and it never comes back.
    #[non_exhaustive]
    Erased {
        /// Epoch and number of the newest generation when it was: what is sealed under it, or below, may show its key.
        under: (u64, u32),
    },
    /// In the log of the root: there is a space of this name.
    Listed,
}

impl RecordState {
    /// A record in a blob.
    #[must_use]
    pub fn live(key: [u8; 32], blob: [u8; 32], size: u64, at_server: bool) -> Self {
        Self::Live {
            key: Zeroizing::new(key),
            blob,
            size,
            at_server,
        }
    }

    /// A record that was erased when this was the newest generation, by epoch and number.
    #[must_use]
    pub fn erased(under: (u64, u32)) -> Self {
        Self::Erased { under }
    }

    /// Whether the record was erased.
    #[must_use]
    pub fn is_erased(&self) -> bool {
        matches!(self, Self::Erased { .. })
    }

    /// An order for entries that claim the same revision and device: any, as long as all devices have the same.
    pub(super) fn rank(&self) -> (u8, (u64, u32), [u8; 32]) {
        match self {
            Self::Listed => (0, (0, 0), [0; 32]),
            Self::Live { blob, .. } => (1, (0, 0), *blob),
            Self::Deleted => (2, (0, 0), [0; 32]),
            Self::Erased { under } => (3, *under, [0; 32]),
        }
    }
}

impl RecordState {
    /// The last of that order: what else two entries of one blob can say. Of honest devices none differ in it.
    pub(super) fn last_rank(&self) -> (u64, bool, [u8; 32]) {
        match self {
            Self::Live {
                key,
                size,
                at_server,
                ..
            } => (*size, *at_server, **key),
            _ => (0, false, [0; 32]),
        }
    }
}

impl fmt::Debug for RecordState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Live { .. } => "Live { .. }",
            Self::Deleted => "Deleted",
            Self::Erased { .. } => "Erased { .. }",
            Self::Listed => "Listed",
        })
    }
}

/// What the log says of one record.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Entry {
    /// Counts the writes of the record, from 1.
    pub revision: u64,
    /// The device that wrote this revision, as it says.
    pub device: u32,
    /// When, by that device's clock, in milliseconds since 1970.
    pub at: u64,
    /// The agent that wrote it, as the device says; empty if none. At most 255 bytes.
    pub agent: String,
    /// What became of the record.
    pub state: RecordState,
}

impl Entry {
    /// An entry of the log.
    ///
    /// # Errors
    /// [`LogError::BadInput`]: revision or device 0, or an agent above 255 bytes.
    pub fn new(
        revision: u64,
        device: u32,
        at: u64,
        agent: &str,
        state: RecordState,
    ) -> Result<Self, LogError> {
        if revision == 0 || device == 0 || agent.len() > MAX_AGENT {
            return Err(LogError::BadInput);
        }
        Ok(Self {
            revision,
            device,
            at,
            agent: agent.to_owned(),
            state,
        })
    }

    pub(super) fn write(&self, writer: &mut Writer) {
        writer.u64(self.revision).u32(self.device).u64(self.at);
        writer.block(self.agent.as_bytes());
        match &self.state {
            RecordState::Live {
                key,
                blob,
                size,
                at_server,
            } => {
                let state = if *at_server { 3 } else { 0 };
                writer.u8(state).fixed(key.as_slice()).fixed(blob);
                writer.u64(*size)
            }
            RecordState::Deleted => writer.u8(1),
            RecordState::Erased { under } => writer.u8(2).u64(under.0).u32(under.1),
            RecordState::Listed => writer.u8(4),
        };
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, LogError> {
        let (revision, device, at) = (reader.u64()?, reader.u32()?, reader.u64()?);
        let agent = reader.text()?;
        let state = match reader.u8()? {
            state @ (0 | 3) => {
                RecordState::live(reader.array()?, reader.array()?, reader.u64()?, state == 3)
            }
            1 => RecordState::Deleted,
            2 => RecordState::erased((reader.u64()?, reader.u32()?)),
            4 => RecordState::Listed,
            _ => return Err(LogError::Damaged),
        };
        Self::new(revision, device, at, agent, state).map_err(|_| LogError::Damaged)
    }
}

/// A part of a key log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Segment(BTreeMap<RecordId, Entry>);

impl Segment {
    /// A segment of these entries.
    ///
    /// # Errors
    /// [`LogError::TooLarge`]: more than 4,096.
    pub fn new(entries: BTreeMap<RecordId, Entry>) -> Result<Self, LogError> {
        if entries.len() > MAX_ENTRIES {
            return Err(LogError::TooLarge);
        }
        Ok(Self(entries))
    }

    /// The entries, by record.
    #[must_use]
    pub fn entries(&self) -> &BTreeMap<RecordId, Entry> {
        &self.0
    }

    /// Whether all erases in it were made under this generation, or below: a device writes under the newest that it knows. An
    /// erase above would never be done with.
    pub(super) fn erases_nothing_above(&self, generation: (u64, u32)) -> bool {
        let mut states = self.0.values().map(|entry| &entry.state);
        states.all(|state| match state {
            RecordState::Erased { under } => *under <= generation,
            _ => true,
        })
    }

    /// Seals the segment for the space whose head has this name. Draws 16 bytes. The result is a blob: its name is its
    /// SHA-256.
    #[must_use]
    pub fn seal(
        &self,
        generation: &Generation,
        space: &Space,
        head: &ObjectName,
        rng: &mut dyn CryptoRng,
    ) -> Vec<u8> {
        let plaintext = self.encode();
        sealed::seal(generation, space, labels::SEGMENT, head, &plaintext, rng)
    }

    /// Opens a segment of the space whose head has this name.
    ///
    /// # Errors
    /// [`LogError::NotYet`] without its generation; [`LogError::Damaged`] for everything else.
    pub fn open(
        generations: &[Generation],
        space: &Space,
        head: &ObjectName,
        bytes: &[u8],
    ) -> Result<Self, LogError> {
        let plaintext = sealed::open(generations, space, labels::SEGMENT, head, bytes)?;
        Self::decode(&plaintext)
    }

    pub(crate) fn encode(&self) -> Zeroizing<Vec<u8>> {
        let size: usize = self
            .0
            .iter()
            .map(|(id, entry)| id.as_bytes().len() + entry.agent.len() + 29 + 72)
            .sum();
        let mut writer = Writer::new(VERSION, 4 + size);
        writer.u32(u32::try_from(self.0.len()).unwrap_or(u32::MAX));
        for (id, entry) in &self.0 {
            writer.block(id.as_bytes());
            entry.write(&mut writer);
        }
        writer.finish()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, LogError> {
        sealed::check_version(bytes, VERSION)?;
        let mut reader = Reader::new(bytes, VERSION, "segment")?;
        let count = reader.u32()? as usize;
        if count > MAX_ENTRIES {
            return Err(LogError::Damaged);
        }
        let mut entries = BTreeMap::new();
        for _ in 0..count {
            let id = RecordId::any(reader.block()?).map_err(|_| LogError::Damaged)?;
            if entries
                .last_key_value()
                .is_some_and(|(last, _)| *last >= id)
            {
                return Err(LogError::Damaged);
            }
            let entry = Entry::read(&mut reader)?;
            if !id.fits(&entry.state) {
                return Err(LogError::Damaged);
            }
            entries.insert(id, entry);
        }
        reader.finish()?;
        Ok(Self(entries))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use rand_chacha::ChaCha20Rng;
    use rand_core::SeedableRng;

    use super::super::{NamesKey, SpaceKind};
    use super::*;

    pub(in super::super) fn space() -> Space {
        Space::new("app", "ann", Some("bot"), SpaceKind::Memory).unwrap()
    }

    pub(in super::super) fn generation(epoch: u64, number: u32, byte: u8) -> Generation {
        Generation {
            epoch,
            number,
            key: [byte; 32],
        }
    }

    pub(in super::super) fn head_name() -> ObjectName {
        NamesKey::new(&[9; 32]).head(&space())
    }

    pub(in super::super) fn rng() -> ChaCha20Rng {
        ChaCha20Rng::from_seed([1; 32])
    }

    pub(in super::super) fn id(text: &str) -> RecordId {
        RecordId::new(text).unwrap()
    }

    fn segment() -> Segment {
        let live = RecordState::live([3; 32], [4; 32], 500, true);
        Segment::new(BTreeMap::from([
            (id("a"), Entry::new(1, 70_000, 5, "bot", live).unwrap()),
            (
                id("b"),
                Entry::new(7, 70_001, 6, "", RecordState::Deleted).unwrap(),
            ),
            (
                id("c"),
                Entry::new(9, 70_001, 7, "", RecordState::erased((1, 1))).unwrap(),
            ),
        ]))
        .unwrap()
    }

    #[test]
    fn segment_opens_under_its_own_generation_space_and_name_only() {
        let one = generation(1, 1, 1);
        let sealed = segment().seal(&one, &space(), &head_name(), &mut rng());
        let held = [generation(1, 1, 7), one, generation(2, 1, 2)];
        let open = |generations: &[Generation], space: &Space, name: &ObjectName, bytes: &[u8]| {
            Segment::open(generations, space, name, bytes)
        };
        assert_eq!(open(&held, &space(), &head_name(), &sealed), Ok(segment()));
        // The number is known, this key of it is not.
        let others = [generation(1, 1, 7), generation(2, 1, 2)];
        assert_eq!(
            open(&others, &space(), &head_name(), &sealed),
            Err(LogError::NotYet)
        );
        let other = Space::new("app", "bea", Some("bot"), SpaceKind::Memory).unwrap();
        assert_eq!(
            open(&held, &other, &head_name(), &sealed),
            Err(LogError::Damaged)
        );
        assert_eq!(
            open(&held, &space(), &[0; 32], &sealed),
            Err(LogError::Damaged)
        );
    }

    #[test]
    fn no_changed_or_cut_byte_of_a_segment_opens() {
        let one = [generation(1, 1, 1)];
        let sealed = segment().seal(&one[0], &space(), &head_name(), &mut rng());
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 0x40;
            assert!(Segment::open(&one, &space(), &head_name(), &changed).is_err());
            assert!(Segment::open(&one, &space(), &head_name(), &sealed[..at]).is_err());
        }
    }

    #[test]
    fn segment_shows_neither_names_nor_how_many_records_it_holds() {
        let one = generation(1, 1, 1);
        let few = Segment::default().seal(&one, &space(), &head_name(), &mut rng());
        let live = RecordState::live([3; 32], [4; 32], 500, true);
        let entry = Entry::new(1, 70_000, 5, "", live).unwrap();
        let more = Segment::new(BTreeMap::from([(id("diagnosis"), entry)])).unwrap();
        let more = more.seal(&one, &space(), &head_name(), &mut rng());
        assert_eq!(few.len(), more.len());
        assert!(!more.windows(9).any(|window| window == b"diagnosis"));
    }

    #[test]
    fn encodings_that_are_not_the_one_are_refused() {
        let good = segment().encode();
        assert_eq!(Segment::decode(&good), Ok(segment()));
        for length in 0..good.len() {
            assert_eq!(Segment::decode(&good[..length]), Err(LogError::Damaged));
        }
        let mut more = good.to_vec();
        more.push(0);
        assert_eq!(Segment::decode(&more), Err(LogError::Damaged));
        let mut later = good.to_vec();
        later[0] = 2;
        assert_eq!(Segment::decode(&later), Err(LogError::NotYet));
        // No version; more entries than there may be; a state that is none; two entries in the wrong order.
        for (at, byte) in [(0, 0), (1, 0xff), (good.len() - 13, 5), (9, b'z')] {
            let mut bad = good.to_vec();
            bad[at] = byte;
            assert_eq!(Segment::decode(&bad), Err(LogError::Damaged), "{at}");
        }
    }

    #[test]
    fn too_many_records_are_refused_before_anything_is_sealed() {
        let entry = Entry::new(1, 1, 1, "", RecordState::Deleted).unwrap();
        let many = |count: usize| {
            let ids = (0..count).map(|n| RecordId::new(n.to_be_bytes()).unwrap());
            Segment::new(ids.map(|id| (id, entry.clone())).collect())
        };
        assert!(many(MAX_ENTRIES).is_ok());
        assert_eq!(many(MAX_ENTRIES + 1), Err(LogError::TooLarge));
        let long = "x".repeat(256);
        for (revision, device, agent) in [(0, 1, ""), (1, 0, ""), (1, 1, long.as_str())] {
            let entry = Entry::new(revision, device, 1, agent, RecordState::Deleted);
            assert_eq!(entry, Err(LogError::BadInput));
        }
    }

    #[test]
    fn debug_of_an_entry_shows_no_key() {
        let live = RecordState::live([0xab; 32], [0xcd; 32], 5, false);
        let entry = Entry::new(1, 1, 1, "", live).unwrap();
        assert!(!format!("{entry:?}").contains("171"));
    }
}
