//! The log that the segments of a space add up to, in whatever order they come ("Memories", *Merging*).

use std::collections::BTreeMap;

use super::segment::{Entry, MAX_ENTRIES, Segment};
use super::space::RecordId;

/// What merging an entry did.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Merged {
    /// The record was not known.
    New,
    /// The same was known.
    Same,
    /// It takes the place of an entry that it was made after.
    Newer(Entry),
    /// What is known was made after it.
    Older,
    /// Two devices wrote the same revision: this one counts, and the other is lost. Tell the user.
    Won(Entry),
    /// Two devices wrote the same revision: the one that is known counts, and this one is lost. Tell the user.
    Lost,
}

/// What is known of the records of a space: for each the one entry that counts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeyLog(BTreeMap<RecordId, Entry>);

/// By what entries of one record are told apart: an erase beats everything, then the higher revision, then the higher
/// device; the rest only makes the order total.
fn rank(entry: &Entry) -> impl PartialOrd + '_ {
    (
        entry.state.is_erased(),
        entry.revision,
        entry.device,
        entry.state.rank(),
        entry.at,
        &entry.agent,
        entry.state.last_rank(),
    )
}

/// What merging an entry with what is known of its record does.
pub(super) fn judge(known: Option<&Entry>, entry: &Entry) -> Merged {
    let Some(known) = known else {
        return Merged::New;
    };
    if known == entry {
        return Merged::Same;
    }
    let same_revision = known.revision == entry.revision;
    match (rank(known) < rank(entry), same_revision) {
        (true, false) => Merged::Newer(known.clone()),
        (true, true) => Merged::Won(known.clone()),
        (false, false) => Merged::Older,
        (false, true) => Merged::Lost,
    }
}

impl KeyLog {
    /// The entries, by record; tombstones among them.
    #[must_use]
    pub fn entries(&self) -> &BTreeMap<RecordId, Entry> {
        &self.0
    }

    /// What counts of a record.
    #[must_use]
    pub fn get(&self, id: &RecordId) -> Option<&Entry> {
        self.0.get(id)
    }

    /// The revision that the next write of a record has; none for a record that was erased, which never comes back.
    #[must_use]
    pub fn next_revision(&self, id: &RecordId) -> Option<u64> {
        match self.0.get(id) {
            None => Some(1),
            Some(entry) if entry.state.is_erased() => None,
            Some(entry) => entry.revision.checked_add(1),
        }
    }

    /// Merges one entry: last writer by (revision, device), but an erase wins over every other write, for good.
    pub fn merge(&mut self, id: &RecordId, entry: &Entry) -> Merged {
        let merged = judge(self.0.get(id), entry);
        if matches!(merged, Merged::New | Merged::Newer(_) | Merged::Won(_)) {
            self.0.insert(id.clone(), entry.clone());
        }
        merged
    }

    /// Merges all entries of a segment, in their order.
    pub fn merge_segment(&mut self, segment: &Segment) -> Vec<(RecordId, Merged)> {
        let entries = segment.entries().iter();
        entries
            .map(|(id, entry)| (id.clone(), self.merge(id, entry)))
            .collect()
    }

    /// The log as few segments, as compaction writes it. Tombstones stay: an old segment that comes back changes nothing.
    #[must_use]
    pub fn compacted(&self) -> Vec<Segment> {
        let mut segments = Vec::new();
        let mut entries = BTreeMap::new();
        for (id, entry) in &self.0 {
            entries.insert(id.clone(), entry.clone());
            if entries.len() == MAX_ENTRIES {
                segments.extend(Segment::new(std::mem::take(&mut entries)));
            }
        }
        if !entries.is_empty() {
            segments.extend(Segment::new(entries));
        }
        segments
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::RecordState;
    use super::super::segment::tests::id;
    use super::*;

    fn live(revision: u64, device: u32, byte: u8) -> Entry {
        let state = RecordState::live([byte; 32], [byte; 32], 1, false);
        Entry::new(revision, device, 5, "", state).unwrap()
    }

    fn dead(revision: u64, device: u32, state: RecordState) -> Entry {
        Entry::new(revision, device, 5, "", state).unwrap()
    }

    #[test]
    fn later_revision_counts_and_two_of_one_revision_are_told() {
        let mut log = KeyLog::default();
        let a = id("a");
        assert_eq!(log.next_revision(&a), Some(1));
        assert_eq!(log.merge(&a, &live(1, 7, 1)), Merged::New);
        assert_eq!(log.merge(&a, &live(1, 7, 1)), Merged::Same);
        assert_eq!(log.merge(&a, &live(2, 7, 2)), Merged::Newer(live(1, 7, 1)));
        assert_eq!(log.merge(&a, &live(1, 7, 1)), Merged::Older);
        // Another device wrote the same revision without having seen ours.
        assert_eq!(log.merge(&a, &live(2, 6, 3)), Merged::Lost);
        assert_eq!(log.merge(&a, &live(2, 8, 3)), Merged::Won(live(2, 7, 2)));
        assert_eq!(log.next_revision(&a), Some(3));
        let deleted = dead(3, 7, RecordState::Deleted);
        log.merge(&a, &deleted);
        assert_eq!(log.merge(&a, &live(4, 7, 4)), Merged::Newer(deleted));
    }

    #[test]
    fn erase_wins_over_every_other_write_for_good() {
        let mut log = KeyLog::default();
        let a = id("a");
        log.merge(&a, &live(9, 9, 1));
        let erased = dead(2, 1, RecordState::erased((1, 1)));
        assert_eq!(log.merge(&a, &erased), Merged::Newer(live(9, 9, 1)));
        assert_eq!(log.merge(&a, &live(50, 9, 2)), Merged::Older);
        assert_eq!(log.get(&a), Some(&erased));
        assert_eq!(log.next_revision(&a), None);
        // Also after compaction, when the segment that it came in is gone.
        let mut compacted = KeyLog::default();
        for segment in log.compacted() {
            compacted.merge_segment(&segment);
        }
        assert_eq!(compacted.merge(&a, &live(60, 9, 3)), Merged::Older);
        assert_eq!(compacted, log);
    }

    #[test]
    fn revisions_end_with_their_type_and_do_not_wrap() {
        let mut log = KeyLog::default();
        log.merge(&id("a"), &live(u64::MAX, 1, 1));
        assert_eq!(log.next_revision(&id("a")), None);
    }

    fn entries() -> impl Strategy<Value = Vec<(u8, Entry)>> {
        let state = prop_oneof![
            4 => any::<u8>().prop_map(|byte| RecordState::live([byte; 32], [byte; 32], 1, false)),
            1 => Just(RecordState::Deleted),
            1 => Just(RecordState::erased((1, 1))),
        ];
        let entry = (0..5_u8, 1..4_u64, 1..4_u32, 0..3_u64, state).prop_map(
            |(record, revision, device, at, state)| {
                (record, Entry::new(revision, device, at, "", state).unwrap())
            },
        );
        proptest::collection::vec(entry, 0..40)
    }

    proptest! {
        #[test]
        fn any_order_and_any_repetition_gives_the_same_log(
            entries in entries(),
            order in any::<proptest::sample::Index>(),
            repeat in any::<proptest::sample::Index>(),
        ) {
            let log = |entries: &[(u8, Entry)]| {
                let mut log = KeyLog::default();
                for (record, entry) in entries {
                    log.merge(&RecordId::new([*record]).unwrap(), entry);
                }
                log
            };
            let expected = log(&entries);
            let mut other = entries.clone();
            if !entries.is_empty() {
                other.rotate_left(order.index(entries.len()));
                other.push(entries[repeat.index(entries.len())].clone());
            }
            prop_assert_eq!(&log(&other), &expected);
            other.reverse();
            prop_assert_eq!(&log(&other), &expected);
            // In two parts that are merged afterwards.
            let middle = entries.len() / 2;
            let mut halves = log(&entries[..middle]);
            for (id, entry) in log(&entries[middle..]).entries() {
                halves.merge(id, entry);
            }
            prop_assert_eq!(&halves, &expected);
        }
    }

    #[test]
    fn compaction_keeps_every_record_and_fills_segments() {
        let mut log = KeyLog::default();
        for n in 0..=2 * MAX_ENTRIES {
            log.merge(&RecordId::new(n.to_be_bytes()).unwrap(), &live(1, 1, 1));
        }
        let segments = log.compacted();
        let sizes: Vec<usize> = segments.iter().map(|one| one.entries().len()).collect();
        assert_eq!(sizes, [MAX_ENTRIES, MAX_ENTRIES, 1]);
        let mut again = KeyLog::default();
        for segment in &segments {
            again.merge_segment(segment);
        }
        assert_eq!(again, log);
        assert!(KeyLog::default().compacted().is_empty());
    }
}
