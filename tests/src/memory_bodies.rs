//! What must hold of the key log of memories for any bytes at all: see `fuzz_bodies`.

use std::sync::OnceLock;

use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;
use sprag_crypto::{AccountKeyPair, IdentityKeyPair};
use sprag_session::hazmat::LogPart;
use sprag_session::memory::{
    Entry, Head, KeyLog, LogError, NamesKey, ObjectName, RecordId, RecordState, Seen, Segment,
    SegmentRef, Space, SpaceKind, generation_of,
};
use sprag_session::{Generation, SignedList};
use sprag_wire::{DeviceId, HOLDER, ListedDevice, UserId};

use crate::fuzz_bodies::mixed;

/// A space with a head and a segment.
struct Log {
    generation: Generation,
    space: Space,
    name: ObjectName,
    list: SignedList,
    plain_head: Vec<u8>,
    plain_segment: Vec<u8>,
    head: Vec<u8>,
    segment: Vec<u8>,
    seen: Seen,
}

impl Log {
    fn head(&self, seen: Option<&Seen>, sealed: &[u8]) -> Result<(Head, Seen), LogError> {
        let held = [self.generation.clone()];
        Head::open(&held, &self.space, &self.name, &self.list, seen, sealed)
    }

    fn segment(&self, sealed: &[u8]) -> Result<Segment, LogError> {
        let held = [self.generation.clone()];
        Segment::open(&held, &self.space, &self.name, sealed)
    }

    /// What a device that was removed, and kept the keys, can put in the place of a part.
    fn seal(&self, part: LogPart, plaintext: &[u8]) -> Vec<u8> {
        let mut rng = ChaCha20Rng::from_seed([5; 32]);
        part.seal(
            &self.generation,
            &self.space,
            &self.name,
            plaintext,
            &mut rng,
        )
    }
}

/// Heads and segments as a server hands them out, and as somebody with the keys of the space can make them: whatever is read is
/// the one encoding of what it says, nobody but a listed device is believed, and merging does not depend on the order.
pub fn key_log(data: &[u8]) {
    let log = log();
    let _ = generation_of(data);
    for (part, good, sealed) in [
        (LogPart::Head, &log.plain_head, &log.head),
        (LogPart::Segment, &log.plain_segment, &log.segment),
    ] {
        for plaintext in [data.to_vec(), mixed(good, data)] {
            let again = part.reread(&plaintext);
            if let Some(again) = &again {
                assert_eq!(**again, plaintext);
            }
            let sealed = log.seal(part, &plaintext);
            if part == LogPart::Segment {
                assert_eq!(log.segment(&sealed).is_ok(), again.is_some());
            } else if let Ok((head, _)) = log.head(Some(&log.seen), &sealed) {
                // Signed by a listed device: only what it signed.
                assert_eq!(plaintext, log.plain_head);
                assert_eq!(head.signer, DEVICE);
            } else {
                assert!(plaintext != log.plain_head);
            }
        }
        let changed = mixed(sealed, data);
        let opens = match part {
            LogPart::Segment => log.segment(&changed).is_ok(),
            _ => log.head(Some(&log.seen), &changed).is_ok(),
        };
        assert_eq!(opens, changed == *sealed);
    }
    let _ = (log.head(None, data), log.segment(data));
    merge(log, data);
}

/// Two segments, in both orders and twice, make one log.
fn merge(log: &Log, data: &[u8]) {
    let (a, b) = data.split_at(data.len() / 2);
    let segments = [a, b].map(|over| {
        let plaintext = mixed(&log.plain_segment, over);
        log.segment(&log.seal(LogPart::Segment, &plaintext)).ok()
    });
    let [Some(one), Some(other)] = segments else {
        return;
    };
    let [mut there, mut back] = [KeyLog::default(), KeyLog::default()];
    for segment in [&one, &other, &one] {
        there.merge_segment(segment);
    }
    for segment in [&other, &other, &one] {
        back.merge_segment(segment);
    }
    assert_eq!(there, back);
    let mut again = KeyLog::default();
    for segment in there.compacted() {
        again.merge_segment(&segment);
    }
    assert_eq!(again, there);
}

const DEVICE: u32 = 70_000;

#[expect(clippy::expect_used, reason = "all inputs are constants")]
fn log() -> &'static Log {
    static LOG: OnceLock<Log> = OnceLock::new();
    LOG.get_or_init(|| {
        let mut rng = ChaCha20Rng::from_seed([4; 32]);
        let generation = Generation::new(1, 1, [3; 32]);
        let space = Space::new("app", "ann", Some("bot"), SpaceKind::Memory).expect("names");
        let name = NamesKey::new(&[2; 32]).head(&space);
        let account = AccountKeyPair::generate(&mut rng);
        let identity = IdentityKeyPair::generate(&mut rng);
        let device = DeviceId::new(DEVICE).expect("a number");
        let entries = [ListedDevice::new(device, *identity.public(), HOLDER)];
        let user = UserId::new("ann").expect("a name");
        let list = SignedList::sign(&account, &user, 1, None, &entries, &mut rng).expect("a list");

        let live = RecordState::live([8; 32], [9; 32], 138, true);
        let states = [live, RecordState::Deleted, RecordState::erased((1, 1))];
        let entries = ["a", "b", "c"].iter().zip(states).map(|(id, state)| {
            let entry = Entry::new(1, DEVICE, 5, "bot", state).expect("an entry");
            (RecordId::new(id).expect("an id"), entry)
        });
        let segment = Segment::new(entries.collect()).expect("three entries");
        let segment = segment.seal(&generation, &space, &name, &mut rng);
        let refs = vec![SegmentRef::new([9; 32], 3, 300)];
        let first = Head::after(None, DEVICE, 1, (1, 1), refs).expect("a head");
        let head = first.seal(&identity, &generation, &space, &name, &mut rng);
        let seen = Seen::new(&first, &head).expect("a sealed head");
        let mut log = Log {
            plain_head: Vec::new(),
            plain_segment: Vec::new(),
            generation,
            space,
            name,
            list,
            head,
            segment,
            seen,
        };
        log.plain_head = plain(&log, LogPart::Head);
        log.plain_segment = plain(&log, LogPart::Segment);
        // The next head is the one that is put over what was seen.
        let second = Head::after(Some((&first, &log.seen)), DEVICE, 1, (1, 1), Vec::new());
        let second = second.expect("a head");
        let sealed = second.seal(&identity, &log.generation, &log.space, &log.name, &mut rng);
        log.head = sealed;
        log.plain_head = plain(&log, LogPart::Head);
        log
    })
}

/// What a part of the log holds.
fn plain(log: &Log, part: LogPart) -> Vec<u8> {
    let sealed = match part {
        LogPart::Segment => &log.segment,
        _ => &log.head,
    };
    let opened = part.open(&log.generation, &log.space, &log.name, sealed);
    opened.map(|plain| plain.to_vec()).unwrap_or_default()
}
