//! The key log between devices and a server that nobody trusts.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::collections::BTreeSet;

use sprag_session::memory::{
    BlobState, ERASE_MS, Entry, Head, LogError, NamesKey, RecordState, Segment, SegmentRef, Space,
    SpaceKind, Standing,
};
use sprag_session::{Event, Failure, Generation, StepError, Task, UpkeepSettings};
use sprag_tests::archive::{Archive, id, space};
use sprag_wire::relay::Object;

fn refusals(archive: &Archive, at: usize) -> Vec<LogError> {
    let events = archive.events(at).into_iter();
    events
        .filter_map(|event| match event {
            Event::MemoryRefused { error, .. } => Some(error),
            _ => None,
        })
        .collect()
}

fn refilled(archive: &Archive, at: usize) -> usize {
    let events = archive.events(at).into_iter();
    events
        .filter(|event| matches!(event, Event::MemoryRefilled { .. }))
        .count()
}

fn head_name() -> Vec<u8> {
    NamesKey::new(&[1; 32]).head(&space()).to_vec()
}

#[test]
fn what_one_device_writes_the_other_finds_and_reads() {
    let mut archive = Archive::new(2, 1);
    archive.write(0, "a", "first");
    archive.write(0, "b", "second");
    archive.work(0);
    assert_eq!(archive.read(1, "a"), None);
    archive.refresh(1);
    archive.work(1);
    assert_eq!(archive.read(1, "a").as_deref(), Some("first"));
    assert_eq!(archive.read(1, "b").as_deref(), Some("second"));
    // It knows the space from the list of spaces alone.
    let desk = &archive.desks[1];
    assert_eq!(desk.device.memory_spaces(&desk.rows).unwrap(), [space()]);
    archive.write(1, "a", "better");
    archive.work(1);
    archive.settle();
    assert_eq!(archive.read(0, "a").as_deref(), Some("better"));
    assert_eq!(archive.entry(0, "a").unwrap().revision, 2);
    // The blob of before is nowhere any more.
    assert_eq!(
        archive
            .shelves
            .blobs
            .values()
            .filter(|blob| blob.ends_with(b"first"))
            .count(),
        0
    );
}

#[test]
fn writes_of_many_devices_meet_and_nothing_is_lost() {
    let mut archive = Archive::new(3, 2);
    for round in 0..4 {
        for at in 0..3 {
            archive.write(at, &format!("{at}-{round}"), "text");
        }
        // All put at once: two of three are told of the others.
        let tasks: Vec<_> = (0..3).map(|at| archive.tasks(at)).collect();
        for (at, tasks) in tasks.iter().enumerate() {
            for task in tasks {
                archive.perform(at, task);
            }
        }
    }
    archive.settle();
    for at in 0..3 {
        for other in 0..3 {
            for round in 0..4 {
                let record = format!("{other}-{round}");
                assert_eq!(
                    archive.read(at, &record).as_deref(),
                    Some("text"),
                    "{at} {record}"
                );
            }
        }
        assert!(refusals(&archive, at).is_empty());
    }
}

#[test]
fn one_of_two_writes_of_a_revision_counts_and_the_other_is_told_and_kept() {
    let mut archive = Archive::new(2, 3);
    archive.write(0, "a", "base");
    archive.settle();
    archive.write(0, "a", "of device 0");
    archive.write(1, "a", "of device 1");
    archive.settle();
    // The higher device number counts, on both.
    for at in 0..2 {
        assert_eq!(archive.read(at, "a").as_deref(), Some("of device 1"));
        let told = archive.events(at).into_iter().any(|event| {
            matches!(event, Event::MemoryConflict { record, device: 70_000, .. } if record.as_bytes() == b"a")
        });
        assert!(told, "{at}");
        let desk = &archive.desks[at];
        let lost = desk.device.memory_lost(&desk.rows, &space()).unwrap();
        assert_eq!(lost.len(), 1);
        assert_eq!(lost[0].entry.device, 70_000);
    }
    // The one who wrote it still has it whole.
    let desk = &archive.desks[0];
    let lost = desk.device.memory_lost(&desk.rows, &space()).unwrap();
    let RecordState::Live { blob, .. } = &lost[0].entry.state else {
        panic!()
    };
    let blob = *blob;
    let bytes = desk.device.memory_blob(&desk.rows, &blob).unwrap().unwrap();
    assert!(bytes.ends_with(b"of device 0"));
    archive.desks[0]
        .step(|device, rows, _| device.memory_forget_lost(rows, &space(), &id("a")))
        .unwrap();
    let desk = &archive.desks[0];
    assert!(
        desk.device
            .memory_lost(&desk.rows, &space())
            .unwrap()
            .is_empty()
    );
    assert!(
        desk.device
            .memory_blob(&desk.rows, &blob)
            .unwrap()
            .is_none()
    );
}

#[test]
fn delete_reaches_the_other_device_with_index_and_blob_and_a_later_write_brings_it_back() {
    let mut archive = Archive::new(2, 4);
    archive.write(0, "a", "text");
    archive.settle();
    let RecordState::Live { blob, .. } = archive.entry(1, "a").unwrap().state else {
        panic!()
    };
    assert!(archive.delete(1, "a"));
    assert!(!archive.delete(1, "a"));
    archive.settle();
    assert_eq!(archive.standing(0, "a"), Standing::Deleted);
    let desk = &archive.desks[0];
    assert!(
        desk.device
            .memory_blob(&desk.rows, &blob)
            .unwrap()
            .is_none()
    );
    let mut rows = 0;
    desk.device
        .memory_index(&desk.rows, &space(), &mut |_, _| {
            rows += 1;
            std::ops::ControlFlow::Continue(())
        })
        .unwrap();
    assert_eq!(rows, 0);
    let changed = desk
        .device
        .memory_changed(&desk.rows, &space(), 10)
        .unwrap();
    assert!(matches!(changed[..], [(_, None)]));
    assert!(!archive.shelves.blobs.contains_key(&blob));
    archive.write(0, "a", "again");
    archive.settle();
    assert_eq!(archive.read(1, "a").as_deref(), Some("again"));
    assert_eq!(archive.entry(1, "a").unwrap().revision, 3);
}

#[test]
fn server_that_shows_an_older_head_is_noticed_and_given_the_newest() {
    let mut archive = Archive::new(2, 5);
    archive.write(0, "a", "old");
    archive.settle();
    let old = archive.shelves.clone();
    archive.write(0, "a", "new");
    archive.settle();
    let newest = archive.shelves.objects[&head_name()].1.clone();
    // The whole server goes back; its tags go on.
    let tags = archive.shelves.clone();
    archive.shelves = old.clone();
    archive.shelves.objects = old
        .objects
        .into_iter()
        .map(|(name, (_, value))| {
            (
                name.clone(),
                ([tags.objects[&name].0.clone(), vec![1]].concat(), value),
            )
        })
        .collect();
    archive.refresh(1);
    archive.work(1);
    assert!(refusals(&archive, 1).contains(&LogError::Stale));
    assert!(refilled(&archive, 1) > 0);
    assert_eq!(archive.read(1, "a").as_deref(), Some("new"));
    assert_eq!(archive.shelves.objects[&head_name()].1, newest);
    let RecordState::Live { blob, .. } = archive.entry(1, "a").unwrap().state else {
        panic!()
    };
    assert!(archive.shelves.blobs.contains_key(&blob));
}

#[test]
fn server_that_lost_everything_is_refilled_by_any_device() {
    let mut archive = Archive::new(2, 6);
    for n in 0..5 {
        archive.write(0, &format!("{n}"), "text");
        archive.settle();
    }
    archive.shelves.objects.clear();
    archive.shelves.blobs.clear();
    archive.refresh(1);
    archive.work(1);
    assert!(refilled(&archive, 1) > 0);
    // A device that was never there reads it all.
    let mut others = Archive::new(3, 6);
    others.shelves = archive.shelves.clone();
    others.refresh(2);
    others.work(2);
    for n in 0..5 {
        assert_eq!(others.read(2, &format!("{n}")).as_deref(), Some("text"));
    }
}

#[test]
fn server_that_never_keeps_anything_does_not_keep_a_device_busy() {
    let mut archive = Archive::new(1, 7);
    archive.write(0, "a", "text");
    archive.work(0);
    let mut puts = 0;
    for _ in 0..50 {
        archive.shelves.objects.clear();
        archive.refresh(0);
        for task in archive.tasks(0) {
            puts += usize::from(matches!(task, Task::PutObject { .. }));
            archive.perform(0, &task);
        }
    }
    assert!(puts < 20, "{puts}");
}

#[test]
fn segment_that_is_changed_exchanged_or_missing_changes_nothing_and_comes_right_later() {
    let mut archive = Archive::new(2, 8);
    archive.write(0, "a", "text");
    archive.work(0);
    archive.refresh(1);
    // Until the segment of the space is to be got, and not that of the list of spaces.
    let (task, name) = loop {
        let mut found = None;
        let knows = {
            let desk = &archive.desks[1];
            !desk.device.memory_spaces(&desk.rows).unwrap().is_empty()
        };
        for task in archive.tasks(1) {
            match task {
                Task::GetBlob { id, name, .. } if knows => found = Some((id, name)),
                task => archive.perform(1, &task),
            }
        }
        if let Some(found) = found {
            break found;
        }
    };
    let is_other = |(other, _): &(&[u8; 32], &Vec<u8>)| **other != name;
    let (_, other) = archive.shelves.blobs.iter().find(is_other).unwrap();
    let other = other.clone();
    let good = archive.shelves.blobs[&name].clone();
    let mut flipped = good.clone();
    flipped[30] ^= 1;
    for bad in [
        &flipped,
        &good[..good.len() - 1].to_vec(),
        &other,
        &Vec::new(),
    ] {
        let refused = archive.desks[1]
            .step(|device, rows, env| device.supply(rows, env, task, bad))
            .unwrap();
        assert_eq!(refused, Err(sprag_session::ProtocolError::Malformed));
    }
    assert_eq!(archive.read(1, "a"), None);
    let kept = archive.shelves.blobs.clone();
    archive.shelves.blobs.clear();
    archive.wait(120_000);
    archive.work(1);
    assert!(refusals(&archive, 1).contains(&LogError::Missing));
    assert_eq!(archive.entry(1, "a"), None);
    archive.shelves.blobs = kept;
    archive.refresh(1);
    archive.work(1);
    assert_eq!(archive.read(1, "a").as_deref(), Some("text"));
}

#[test]
fn head_that_nobody_of_ours_signed_is_refused_and_replaced() {
    let mut archive = Archive::new(2, 9);
    archive.write(0, "a", "text");
    archive.settle();
    // Device 1 is removed, and writes on with all that it knows.
    archive.change_list(&[0]);
    archive.write(1, "a", "of the removed one");
    archive.work(1);
    archive.refresh(0);
    let mut generation = false;
    for _ in 0..4 {
        archive.work(0);
        if !generation {
            // Nothing goes out before there is a generation that the removed one does not have.
            archive.desks[0]
                .step(|device, rows, env| device.memory_renew_keys(rows, env))
                .unwrap();
            generation = true;
        }
        archive.refresh(0);
    }
    assert!(refusals(&archive, 0).contains(&LogError::UnlistedDevice));
    assert_eq!(archive.read(0, "a").as_deref(), Some("text"));
}

#[test]
fn nothing_is_uploaded_after_a_removal_until_there_is_a_generation_of_that_list() {
    let mut archive = Archive::new(2, 10);
    archive.write(0, "a", "text");
    archive.settle();
    archive.write(0, "b", "under way when the list comes");
    let before = archive.tasks(0);
    assert!(!before.is_empty());
    archive.change_list(&[0]);
    archive.write(0, "c", "local writing goes on");
    let heads = archive.shelves.heads.len();
    archive.work(0);
    assert_eq!(archive.shelves.heads.len(), heads);
    assert!(archive.tasks(0).is_empty());
    archive.desks[0]
        .step(|device, rows, env| device.new_generation(rows, env).map(|_| ()))
        .unwrap();
    archive.work(0);
    // All heads are sealed under it, and what the removed device holds opens nothing that was put since.
    let desk = &archive.desks[1];
    let stolen = desk.device.generations(&desk.rows).unwrap();
    let head = NamesKey::new(&[1; 32]).head(&space());
    let mut put = 0;
    for (_, value) in &archive.shelves.heads[heads..] {
        put += 1;
        for stolen in &stolen {
            let (epoch, number, _) = sprag_session::memory::generation_of(value).unwrap();
            assert_ne!((epoch, number), (stolen.epoch, stolen.number));
        }
    }
    assert!(put >= 2);
    for blob in archive.shelves.blobs.values() {
        let opened = Segment::open(&stolen, &space(), &head, blob);
        assert!(opened.is_err());
    }
    let mut fresh = Archive::new(1, 10);
    fresh.shelves = archive.shelves.clone();
    assert_eq!(
        archive.read(0, "c").as_deref(),
        Some("local writing goes on")
    );
}

/// All keys of records that somebody finds who has these generations and everything that the server ever had.
fn keys_found(archive: &Archive, generations: &[Generation]) -> BTreeSet<[u8; 32]> {
    let head = NamesKey::new(&[1; 32]).head(&space());
    let mut found = BTreeSet::new();
    for blob in archive.shelves.every_blob.values() {
        if let Ok(segment) = Segment::open(generations, &space(), &head, blob) {
            for entry in segment.entries().values() {
                if let RecordState::Live { key, .. } = &entry.state {
                    found.insert(**key);
                }
            }
        }
    }
    found
}

fn key_of(entry: &Entry) -> [u8; 32] {
    let RecordState::Live { key, .. } = &entry.state else {
        panic!("not live")
    };
    **key
}

#[test]
fn erased_is_said_only_when_no_device_holds_anything_that_opens_it_and_then_nothing_does() {
    let mut archive = Archive::new(2, 11);
    let secret = key_of(&archive.write(0, "secret", "to be forgotten"));
    archive.write(0, "other", "to be kept");
    archive.settle();
    archive.erase(1, "secret");
    assert_eq!(archive.standing(1, "secret"), Standing::ErasePending);
    archive.settle();
    assert_eq!(archive.standing(0, "secret"), Standing::ErasePending);
    // Everything is still readable for whoever has today's keys and kept what the server had.
    let desk = &archive.desks[0];
    let all = desk.device.generations(&desk.rows).unwrap();
    assert!(keys_found(&archive, &all).contains(&secret));
    // A holder makes a generation in its upkeep, and everything is sealed anew.
    archive.maintain(0);
    archive.work(0);
    archive.share(0, 1);
    archive.settle();
    assert_eq!(archive.standing(0, "secret"), Standing::ErasePending);
    // One device has renewed its store, the other has not: not yet.
    archive.maintain(0);
    archive.settle();
    assert_eq!(archive.standing(0, "secret"), Standing::ErasePending);
    assert_eq!(archive.standing(1, "secret"), Standing::ErasePending);
    archive.maintain(1);
    archive.settle();
    for at in 0..2 {
        assert_eq!(archive.standing(at, "secret"), Standing::Erased, "{at}");
        assert!(
            archive
                .events(at)
                .iter()
                .any(|event| matches!(event, Event::MemoryErased { count: 1, .. }))
        );
        let desk = &archive.desks[at];
        let left = desk.device.generations(&desk.rows).unwrap();
        assert!(!keys_found(&archive, &left).contains(&secret));
        for (_, value) in desk.rows.iter() {
            assert!(!value.windows(32).any(|window| window == secret));
        }
        assert_eq!(archive.read(at, "other").as_deref(), Some("to be kept"));
    }
    // It never comes back.
    let again =
        archive.desks[0].step(|device, rows, _| device.memory_next(rows, &space(), &id("secret")));
    assert!(matches!(again, Err(StepError::Log(LogError::Erased))));
}

#[test]
fn erase_wins_over_a_write_that_did_not_know_of_it() {
    let mut archive = Archive::new(2, 12);
    archive.write(0, "a", "text");
    archive.settle();
    archive.erase(0, "a");
    archive.write(1, "a", "newer");
    archive.write(1, "a", "newest");
    archive.settle();
    for at in 0..2 {
        assert_eq!(archive.read(at, "a"), None);
        assert_eq!(archive.standing(at, "a"), Standing::ErasePending);
    }
}

#[test]
fn erases_are_gathered_into_one_generation_a_day() {
    let mut archive = Archive::new(1, 13);
    let generations = |archive: &Archive| {
        let desk = &archive.desks[0];
        desk.device
            .writing_generation(&desk.rows)
            .unwrap()
            .unwrap()
            .number
    };
    for n in 0..4 {
        archive.write(0, &format!("{n}"), "text");
    }
    archive.work(0);
    for n in 0..3 {
        archive.erase(0, &format!("{n}"));
        archive.maintain(0);
        archive.work(0);
        archive.wait(3_600_000);
    }
    assert_eq!(generations(&archive), 2);
    archive.wait(ERASE_MS);
    archive.maintain(0);
    archive.work(0);
    assert_eq!(generations(&archive), 3);
    archive.maintain(0);
    archive.work(0);
    for n in 0..3 {
        assert_eq!(archive.standing(0, &format!("{n}")), Standing::Erased);
    }
    assert_eq!(archive.standing(0, "3"), Standing::Live);
}

#[test]
fn head_under_a_generation_that_is_not_here_is_not_overwritten_and_is_read_once_it_is() {
    let mut archive = Archive::new(2, 14);
    archive.write(0, "a", "text");
    archive.settle();
    archive.desks[0]
        .step(|device, rows, env| device.memory_renew_keys(rows, env))
        .unwrap();
    archive.write(0, "b", "under the new one");
    archive.work(0);
    let newest = archive.shelves.objects.clone();
    archive.write(1, "c", "of a device that is behind");
    for _ in 0..5 {
        archive.refresh(1);
        for task in archive.tasks(1) {
            archive.perform(1, &task);
        }
        archive.wait(120_000);
    }
    assert_eq!(archive.shelves.objects, newest);
    archive.share(0, 1);
    archive.settle();
    assert_eq!(archive.read(1, "b").as_deref(), Some("under the new one"));
    assert_eq!(
        archive.read(0, "c").as_deref(),
        Some("of a device that is behind")
    );
}

#[test]
fn two_branches_that_a_server_kept_apart_are_noticed_and_become_one_again() {
    let mut archive = Archive::new(2, 15);
    archive.write(0, "a", "text");
    archive.settle();
    // The server shows each device a world of its own.
    let mut other = archive.shelves.clone();
    archive.write(0, "x", "of device 0");
    archive.work(0);
    std::mem::swap(&mut archive.shelves, &mut other);
    archive.write(1, "y", "of device 1");
    archive.work(1);
    // Then device 1 is shown the other one.
    let blobs = archive.shelves.blobs.clone();
    std::mem::swap(&mut archive.shelves, &mut other);
    archive.shelves.blobs.extend(blobs);
    for (tag, _) in archive.shelves.objects.values_mut() {
        tag.push(9);
    }
    archive.settle();
    assert!(refusals(&archive, 1).contains(&LogError::Forked));
    for at in 0..2 {
        assert_eq!(
            archive.read(at, "x").as_deref(),
            Some("of device 0"),
            "{at}"
        );
        assert_eq!(
            archive.read(at, "y").as_deref(),
            Some("of device 1"),
            "{at}"
        );
    }
}

#[test]
fn answer_that_was_lost_costs_nothing() {
    let mut archive = Archive::new(1, 16);
    archive.write(0, "a", "text");
    // Until the first head is to be put.
    let put = loop {
        let tasks = archive.tasks(0);
        if let Some(put) = tasks
            .iter()
            .find(|task| matches!(task, Task::PutObject { .. }))
        {
            break put.clone();
        }
        for task in tasks {
            archive.perform(0, &task);
        }
    };
    // The server takes it, and nobody hears.
    let rows = archive.desks[0].rows.clone();
    archive.perform(0, &put);
    archive.desks[0].rows = rows;
    let heads = archive.shelves.heads.len();
    archive.perform(0, &put);
    assert_eq!(archive.shelves.heads.len(), heads);
    archive.work(0);
    assert!(refusals(&archive, 0).is_empty());
    assert_eq!(archive.read(0, "a").as_deref(), Some("text"));
}

#[test]
fn log_grows_by_few_segments_and_many_records_cost_few_blobs() {
    let mut archive = Archive::new(2, 17);
    for n in 0..300 {
        archive.write(0, &format!("{n}"), "text");
        archive.work(0);
    }
    // Records, and segments of at most as many sizes as there are powers of two.
    let records = 300;
    assert!(
        archive.shelves.blobs.len() < records + 24,
        "{}",
        archive.shelves.blobs.len()
    );
    archive.settle();
    for n in 0..300 {
        assert_eq!(archive.read(1, &format!("{n}")).as_deref(), Some("text"));
    }
}

#[test]
fn space_of_another_kind_user_or_agent_has_a_log_of_its_own() {
    let mut archive = Archive::new(2, 18);
    let spaces = [
        Space::new("app", "ann", Some("bot"), SpaceKind::Memory).unwrap(),
        Space::new("app", "ann", None, SpaceKind::Chat).unwrap(),
        Space::new("app", "bea", None, SpaceKind::Memory).unwrap(),
    ];
    for space in &spaces {
        archive.write_in(0, space, "a", "text");
    }
    archive.settle();
    assert_eq!(archive.entry(1, "a"), None);
    let desk = &archive.desks[1];
    let known: BTreeSet<Space> = desk
        .device
        .memory_spaces(&desk.rows)
        .unwrap()
        .into_iter()
        .collect();
    assert_eq!(known, spaces.iter().cloned().collect());
    for space in &spaces {
        assert!(
            desk.device
                .memory_entry(&desk.rows, space, &id("a"))
                .unwrap()
                .is_some()
        );
    }
}

/// A write as a test made it.
#[derive(Debug, Clone)]
struct Written {
    record: String,
    entry: Entry,
}

/// Devices write, delete and erase, tasks are done late, in any order, twice or with their answers lost, and the server
/// now and then goes back. In the end all devices say the same, and of every write somebody knows what became of it.
fn any_history_ends_with_one_log(seed: u64) {
    use rand_core::{Rng, SeedableRng};
    let mut rng = rand_chacha::ChaCha20Rng::seed_from_u64(seed);
    let mut below = move |bound: usize| usize::try_from(rng.next_u32()).unwrap() % bound;
    let mut archive = Archive::new(3, seed);
    let mut written: Vec<Written> = Vec::new();
    let mut old = archive.shelves.clone();
    let mut went_back = 0;
    archive.tell_epoch(1);
    for _ in 0..120 {
        let at = below(3);
        let record = format!("{}", below(5));
        archive.wait(u64::try_from(below(200_000)).unwrap());
        match below(12) {
            0..=4 if archive.standing(at, &record) != Standing::ErasePending => {
                let entry = archive.write(at, &record, "text");
                written.push(Written { record, entry });
            }
            5 => {
                archive.delete(at, &record);
            }
            6 if below(6) == 0 && matches!(archive.standing(at, &record), Standing::Live) => {
                archive.erase(at, &record);
            }
            7 => archive.refresh(at),
            8 if below(4) == 0 => old = archive.shelves.clone(),
            9 if below(6) == 0 && went_back < 2 => {
                // The tags that it gives from now on are new ones.
                went_back += 1;
                let mut back = old.clone();
                back.every_blob = archive.shelves.every_blob.clone();
                back.set_tags_above(&archive.shelves);
                archive.shelves = back;
            }
            _ => {
                let mut tasks = archive.tasks(at);
                while !tasks.is_empty() && below(5) > 0 {
                    let task = tasks.remove(below(tasks.len()));
                    if below(6) == 0 {
                        // Done, and nobody hears of it.
                        let rows = archive.desks[at].rows.clone();
                        archive.perform(at, &task);
                        archive.desks[at].rows = rows;
                    } else {
                        archive.perform(at, &task);
                    }
                }
            }
        }
    }
    // On the next connection the server says that it is another one.
    archive.tell_epoch(2);
    for _ in 0..4 {
        archive.wait(3_700_000);
        archive.settle();
    }
    let records: Vec<String> = (0..5).map(|n| n.to_string()).collect();
    for record in &records {
        let entries: Vec<_> = (0..3).map(|at| archive.entry(at, record)).collect();
        assert_eq!(entries[0], entries[1], "seed {seed}, record {record}");
        assert_eq!(entries[0], entries[2], "seed {seed}, record {record}");
        let texts: Vec<_> = (0..3).map(|at| archive.read(at, record)).collect();
        assert_eq!(texts[0], texts[1], "seed {seed}, record {record}");
    }
    // Whoever wrote what does not count, and was not known to whoever wrote what does, was told.
    for one in &written {
        let Some(now) = archive.entry(0, &one.record) else {
            panic!("seed {seed}: {one:?} is gone")
        };
        assert!(
            now.state.is_erased() || now.revision >= one.entry.revision,
            "seed {seed}: {one:?} against {now:?}"
        );
        if now.revision == one.entry.revision && now != one.entry && !now.state.is_erased() {
            let told = (0..3).any(|at| {
                archive.events(at).iter().any(|event| {
                    matches!(event, Event::MemoryConflict { record, device, .. }
                        if record.as_bytes() == one.record.as_bytes() && *device == one.entry.device)
                })
            });
            assert!(told, "seed {seed}: nobody was told of {one:?}");
        }
    }
}

#[test]
fn any_history_with_lost_answers_and_a_server_that_goes_back_ends_with_one_log() {
    // A long run says how many.
    let seeds = std::env::var("SPRAG_SEEDS").map_or(60, |seeds| seeds.parse().unwrap());
    for seed in 0..seeds {
        any_history_ends_with_one_log(seed);
    }
}

#[test]
fn long_log_comes_in_parts_and_counts_in_parts() {
    let mut archive = Archive::new(2, 19);
    let records = 4_500;
    for n in 0..records {
        archive.write(0, &format!("{n}"), "text");
    }
    // Blobs are put 64 at a time.
    while archive.work(0) > 0 {}
    archive.refresh(1);
    let known = |archive: &Archive| {
        let mut count = 0;
        let desk = &archive.desks[1];
        desk.device
            .memory_records(&desk.rows, &space(), &mut |_, _| {
                count += 1;
                std::ops::ControlFlow::Continue(())
            })
            .unwrap();
        count
    };
    let mut parts = BTreeSet::new();
    while known(&archive) < records {
        let tasks = archive.tasks(1);
        assert!(!tasks.is_empty());
        for task in tasks {
            archive.perform(1, &task);
            parts.insert(known(&archive));
        }
    }
    // None, the records of one segment, those of both.
    assert!(parts.len() >= 3, "{parts:?}");
}

/// Devices of whose writes of a record nobody else knew, as one device tells.
fn told_lost(archive: &Archive, at: usize) -> Vec<u32> {
    let events = archive.events(at).into_iter();
    events
        .filter_map(|event| match event {
            Event::MemoryConflict { device, .. } => Some(device),
            _ => None,
        })
        .collect()
}

#[test]
fn write_that_later_revisions_of_another_device_pass_over_is_told() {
    let mut archive = Archive::new(2, 20);
    archive.write(0, "a", "base");
    archive.settle();
    // Device 0 is offline with revision 2, and device 1 comes to revision 3 without having heard of it.
    archive.write(0, "a", "of device 0");
    archive.write(1, "a", "second of device 1");
    archive.write(1, "a", "third of device 1");
    archive.work(1);
    archive.settle();
    assert_eq!(archive.read(0, "a").as_deref(), Some("third of device 1"));
    assert_eq!(told_lost(&archive, 0), [70_000]);
    let desk = &archive.desks[0];
    let lost = desk.device.memory_lost(&desk.rows, &space()).unwrap();
    assert_eq!(lost.len(), 1);
    // The other way round: the offline device is ahead, and tells of the write that it passes over.
    archive.write(1, "a", "fourth of device 1");
    archive.work(1);
    archive.write(0, "a", "fourth of device 0");
    archive.write(0, "a", "fifth of device 0");
    archive.settle();
    assert_eq!(archive.read(1, "a").as_deref(), Some("fifth of device 0"));
    assert!(told_lost(&archive, 0).contains(&70_001));
}

#[test]
fn write_on_top_of_what_was_known_is_no_conflict() {
    let mut archive = Archive::new(2, 21);
    for round in 0..6 {
        archive.write(round % 2, "a", "text");
        archive.write(round % 2, "a", "better");
        archive.work(round % 2);
        archive.settle();
    }
    for at in 0..2 {
        assert!(told_lost(&archive, at).is_empty());
    }
}

#[test]
fn device_holds_no_more_segments_than_its_head_names() {
    let mut archive = Archive::new(2, 22);
    for n in 0..60 {
        archive.write(n % 2, &format!("{n}"), "text");
        archive.work(n % 2);
        if n % 7 == 0 {
            archive.settle();
        }
    }
    archive.desks[0]
        .step(|device, rows, env| device.memory_renew_keys(rows, env))
        .unwrap();
    archive.work(0);
    archive.share(0, 1);
    archive.settle();
    let records = 60;
    for at in 0..2 {
        let desk = &archive.desks[at];
        // The first row of each blob that is held.
        let held = desk
            .rows
            .iter()
            .filter(|(name, _)| name.table() == 0x62 && name.suffix().is_empty());
        // Those of records, one segment of the list of spaces, one of the space.
        assert_eq!(held.count(), records + 2, "{at}");
    }
    assert_eq!(archive.shelves.blobs.len(), records + 2);
}

/// Device 1, or a mistake in it, writes a head of its own making that names one segment more.
fn name_one_more(archive: &mut Archive, sealed: Vec<u8>, records: u32) {
    let name = sprag_crypto::sha256(&[&sealed]);
    let size = sealed.len() as u64;
    archive.shelves.blobs.insert(name, sealed);
    let (tag, value) = archive.shelves.objects[&head_name()].clone();
    let desk = &archive.desks[1];
    let generation = desk.device.writing_generation(&desk.rows).unwrap().unwrap();
    let names = NamesKey::new(&[1; 32]).head(&space());
    let held = [generation.clone()];
    let opened = Head::open(&held, &space(), &names, &archive.list, None, &value).unwrap();
    let mut segments = opened.0.segments.clone();
    segments.push(SegmentRef::new(name, records, size));
    let before = Some((&opened.0, &opened.1));
    let head = Head::after(before, 70_001, 1, (1, 1), segments).unwrap();
    let identity = archive.account.identities[1].clone();
    let rng = &mut archive.desks[1].rng;
    let sealed = head.seal(&identity, &generation, &space(), &names, rng);
    let object = ([&tag[..], &[1]].concat(), sealed);
    archive.shelves.objects.insert(head_name(), object);
}

/// The other device says so, and goes on after an hour.
fn is_refused_and_stops_nobody(archive: &mut Archive) {
    archive.write(0, "b", "of the other device");
    archive.refresh(0);
    let asked = archive.work(0);
    assert!(asked < 20, "{asked}");
    assert!(refusals(archive, 0).contains(&LogError::Damaged));
    assert_eq!(archive.read(0, "a").as_deref(), Some("text"));
    for _ in 0..70 {
        archive.wait(61_000);
        let asked = archive.work(0);
        assert!(asked < 20, "{asked}");
    }
    archive.settle();
    for at in 0..2 {
        assert_eq!(archive.read(at, "a").as_deref(), Some("text"), "{at}");
        let other = archive.read(at, "b");
        assert_eq!(other.as_deref(), Some("of the other device"), "{at}");
    }
}

#[test]
fn segment_that_a_device_of_ours_named_and_nobody_can_read_stops_no_other_device_for_longer_than_an_hour()
 {
    let mut archive = Archive::new(2, 23);
    archive.write(0, "a", "text");
    archive.settle();
    let begins = [0, 0, 0, 0, 0, 0, 0, 1];
    let mut blobs = archive.shelves.blobs.values();
    let segment = blobs.find(|blob| blob.starts_with(&begins)).unwrap();
    let garbage = [&segment[..20], &[7; 480]].concat();
    name_one_more(&mut archive, garbage, 3);
    is_refused_and_stops_nobody(&mut archive);
}

#[test]
fn erase_under_a_generation_that_its_writer_does_not_have_is_refused() {
    let mut archive = Archive::new(2, 25);
    archive.write(0, "a", "text");
    archive.settle();
    let desk = &archive.desks[1];
    let generation = desk.device.writing_generation(&desk.rows).unwrap().unwrap();
    // It would make every holder draw a generation each day, for good.
    let state = RecordState::erased((u64::MAX, u32::MAX));
    let entry = Entry::new(2, 70_001, 5, "", state).unwrap();
    let segment = Segment::new([(id("a"), entry)].into()).unwrap();
    let names = NamesKey::new(&[1; 32]).head(&space());
    let rng = &mut archive.desks[1].rng;
    let sealed = segment.seal(&generation, &space(), &names, rng);
    name_one_more(&mut archive, sealed, 1);
    is_refused_and_stops_nobody(&mut archive);
}

#[test]
fn deletion_and_erase_make_the_next_upkeep_renew_the_store_of_every_device_that_hears_of_them() {
    let mut archive = Archive::new(2, 24);
    for record in ["deleted", "erased", "kept"] {
        archive.write(0, record, "text");
    }
    archive.settle();
    let wants = |archive: &mut Archive, at: usize| {
        let settings = UpkeepSettings::default();
        let upkept =
            archive.desks[at].step(|device, rows, env| device.maintain(rows, env, &settings));
        upkept.unwrap().renewal.is_some()
    };
    for at in 0..2 {
        assert!(!wants(&mut archive, at), "{at}");
    }
    archive.delete(0, "deleted");
    archive.settle();
    for at in 0..2 {
        assert!(wants(&mut archive, at), "{at}");
        archive.maintain(at);
        assert!(!wants(&mut archive, at), "{at}");
    }
    archive.erase(1, "erased");
    archive.settle();
    for at in 0..2 {
        assert!(wants(&mut archive, at), "{at}");
    }
}

#[test]
fn generation_that_was_given_up_does_not_come_back_with_a_share_that_was_late() {
    let mut archive = Archive::new(2, 31);
    archive.write(0, "a", "secret");
    archive.settle();
    let key = key_of(&archive.entry(0, "a").unwrap());
    let desk = &archive.desks[1];
    let late = desk.device.generations(&desk.rows).unwrap();
    archive.erase(0, "a");
    archive.work(0);
    archive.maintain(0);
    archive.share(0, 1);
    for _ in 0..3 {
        archive.settle();
        for at in 0..2 {
            archive.maintain(at);
        }
    }
    archive.settle();
    assert_eq!(archive.standing(0, "a"), Standing::Erased);
    archive.desks[0]
        .step(|device, rows, _| {
            for one in &late {
                device.add_generation(rows, one.epoch, one.number, &one.key)?;
            }
            Ok::<_, StepError>(())
        })
        .unwrap();
    let desk = &archive.desks[0];
    let held = desk.device.generations(&desk.rows).unwrap();
    assert!(!keys_found(&archive, &held).contains(&key));
}

#[test]
fn nothing_of_many_spaces_is_uploaded_after_a_removal() {
    let mut archive = Archive::new(2, 32);
    let spaces: Vec<Space> = (0..40)
        .map(|n| Space::new("app", &format!("{n}"), None, SpaceKind::Memory).unwrap())
        .collect();
    for space in &spaces {
        archive.write_in(0, space, "a", "text");
    }
    archive.settle();
    for space in &spaces {
        archive.write_in(0, space, "b", "under way when the list comes");
    }
    // The segments are there, and the heads are to follow.
    for _ in 0..3 {
        for task in archive.tasks(0) {
            if matches!(task, Task::PutBlob { .. }) {
                archive.perform(0, &task);
            }
        }
    }
    let is_head = |task: &Task| matches!(task, Task::PutObject { .. });
    assert_eq!(
        archive.tasks(0).iter().filter(|task| is_head(task)).count(),
        40
    );
    archive.change_list(&[0]);
    assert_eq!(
        archive.tasks(0).iter().filter(|task| is_head(task)).count(),
        0
    );
}

/// A head on top of the one at the server, as device 1 signs it after this was done to it.
fn forge(archive: &mut Archive, change: impl FnOnce(&mut Head)) {
    let (tag, value) = archive.shelves.objects[&head_name()].clone();
    let desk = &archive.desks[1];
    let generation = desk.device.writing_generation(&desk.rows).unwrap().unwrap();
    let names = NamesKey::new(&[1; 32]).head(&space());
    let held = [generation.clone()];
    let opened = Head::open(&held, &space(), &names, &archive.list, None, &value).unwrap();
    let before = Some((&opened.0, &opened.1));
    let segments = opened.0.segments.clone();
    let mut head = Head::after(before, 70_001, 1, (1, 1), segments).unwrap();
    change(&mut head);
    let identity = archive.account.identities[1].clone();
    let rng = &mut archive.desks[1].rng;
    let sealed = head.seal(&identity, &generation, &space(), &names, rng);
    let shown = ([&tag[..], &[1]].concat(), sealed);
    archive.shelves.objects.insert(head_name(), shown);
}

#[test]
fn head_that_leaves_no_room_for_another_stops_its_space_alone() {
    let full = |head: &mut Head| {
        let one = head.writers[&70_001];
        for device in 1..=256 - u32::try_from(head.writers.len()).unwrap() {
            head.writers.insert(device, one);
        }
    };
    let used_up = |head: &mut Head| {
        head.writers.get_mut(&70_000).unwrap().counter = u64::MAX;
    };
    for (counters, seed) in [(false, 33), (true, 34)] {
        let mut archive = Archive::new(3, seed);
        archive.write(0, "a", "text");
        archive.settle();
        if counters {
            forge(&mut archive, used_up);
        } else {
            forge(&mut archive, full);
        }
        let at = if counters { 0 } else { 2 };
        archive.refresh(at);
        archive.work(at);
        archive.write(at, "b", "text");
        let other = Space::new("app", "bob", None, SpaceKind::Memory).unwrap();
        archive.write_in(at, &other, "c", "text");
        let heads = archive.shelves.heads.len();
        let did = archive.work(at);
        assert!(did < 20, "{did}");
        // The root and the other space.
        assert_eq!(archive.shelves.heads.len(), heads + 2);
        assert!(refusals(&archive, at).contains(&LogError::TooLarge));
        assert_eq!(archive.read(at, "b").as_deref(), Some("text"));
    }
}

#[test]
fn server_that_always_says_conflict_does_not_keep_a_device_busy() {
    let mut archive = Archive::new(1, 35);
    archive.write(0, "a", "text");
    archive.work(0);
    archive.write(0, "b", "text");
    let mut puts = 0;
    for tag in 0..50_u8 {
        for task in archive.tasks(0) {
            let Task::PutObject { id, object, .. } = &task else {
                archive.perform(0, &task);
                continue;
            };
            puts += 1;
            let put = Object::decode(object).unwrap();
            let value = archive.shelves.objects[&put.name].1.clone();
            let shown = Object::new(put.name, vec![tag], value).encode();
            archive.desks[0]
                .step(|device, rows, env| device.failed(rows, env, *id, &Failure::Conflict(shown)))
                .unwrap();
        }
    }
    assert!(puts <= 3, "{puts}");
    for _ in 0..4 {
        archive.wait(60_000);
        archive.work(0);
    }
    let desk = &archive.desks[0];
    let health = desk.device.memory_health(&desk.rows).unwrap();
    assert_eq!(health.unpublished, 0);
}

#[test]
fn what_the_application_drops_goes_although_the_server_went_back() {
    let mut archive = Archive::new(1, 36);
    archive.write(0, "a", "text");
    archive.work(0);
    let old = archive.shelves.objects.clone();
    archive.write(0, "a", "newer");
    let name = archive.desks[0]
        .step(|device, rows, _| device.blob_hand_over(rows, b"attachment"))
        .unwrap();
    archive.work(0);
    assert!(archive.shelves.blobs.contains_key(&name));
    archive.desks[0]
        .step(|device, rows, _| device.blob_drop(rows, &name))
        .unwrap();
    archive.shelves.objects = old;
    archive.refresh(0);
    for task in archive.tasks(0) {
        if matches!(task, Task::GetObject { .. }) {
            archive.perform(0, &task);
        }
    }
    archive.work(0);
    assert_eq!(refusals(&archive, 0), [LogError::Stale]);
    assert!(!archive.shelves.blobs.contains_key(&name));
}

#[test]
fn server_without_room_is_still_asked_to_drop_what_is_there() {
    let mut archive = Archive::new(1, 37);
    let name = archive.desks[0]
        .step(|device, rows, _| device.blob_hand_over(rows, b"attachment"))
        .unwrap();
    archive.work(0);
    for n in 0..70 {
        archive.write(0, &format!("{n}"), "text");
    }
    for task in archive.tasks(0) {
        if let Task::PutBlob { id, .. } = task {
            archive.desks[0]
                .step(|device, rows, env| device.failed(rows, env, id, &Failure::Full(3_600_000)))
                .unwrap();
        }
    }
    archive.desks[0]
        .step(|device, rows, _| device.blob_drop(rows, &name))
        .unwrap();
    let is_drop = |task: &Task| matches!(task, Task::DropBlob { .. });
    assert!(archive.tasks(0).iter().any(is_drop));
}

#[test]
fn server_that_answers_not_yet_and_then_has_nothing_is_given_the_head_again() {
    let mut archive = Archive::new(1, 38);
    archive.write(0, "a", "text");
    archive.work(0);
    archive.shelves.objects.clear();
    archive.refresh(0);
    // It is asked, and put again; but what is there by then nobody here can judge.
    let unknown = [&9_u64.to_be_bytes()[..], &[0; 400]].concat();
    for round in 0..2 {
        for task in archive.tasks(0) {
            match &task {
                Task::PutObject { id, object, .. } => {
                    let name = Object::decode(object).unwrap().name;
                    let shown = Object::new(name, vec![7], unknown.clone()).encode();
                    archive.desks[0]
                        .step(|device, rows, env| {
                            device.failed(rows, env, *id, &Failure::Conflict(shown))
                        })
                        .unwrap();
                }
                _ if round == 0 => archive.perform(0, &task),
                _ => {}
            }
        }
    }
    archive.refresh(0);
    archive.work(0);
    assert_eq!(archive.shelves.objects.len(), 2);
}

#[test]
fn server_that_went_back_behind_a_generation_that_was_given_up_is_given_the_newest() {
    let mut archive = Archive::new(2, 39);
    archive.write(0, "a", "text");
    archive.settle();
    let old = archive.shelves.clone();
    archive.desks[0]
        .step(|device, rows, env| device.memory_renew_keys(rows, env))
        .unwrap();
    archive.share(0, 1);
    archive.settle();
    for at in 0..2 {
        archive.maintain(at);
        let desk = &archive.desks[at];
        assert_eq!(desk.device.generations(&desk.rows).unwrap().len(), 1);
    }
    archive.settle();
    let newest = archive.shelves.objects[&head_name()].1.clone();
    let mut back = old;
    back.set_tags_above(&archive.shelves);
    archive.shelves = back;
    archive.settle();
    assert_eq!(archive.shelves.objects[&head_name()].1, newest);
    assert!(refusals(&archive, 0).contains(&LogError::Stale));
    assert_eq!(archive.read(1, "a").as_deref(), Some("text"));
}

#[test]
fn server_that_always_begins_anew_is_given_everything_a_few_times_an_hour_and_in_the_end() {
    for lost in ["blobs", "blobs and heads"] {
        let mut archive = Archive::new(1, 40);
        for n in 0..10 {
            archive.write(0, &format!("{n}"), "text");
        }
        archive.work(0);
        let (mut puts, mut heads) = (0, 0);
        for epoch in 0..50 {
            if lost != "blobs" {
                archive.shelves.objects.clear();
            }
            archive.shelves.blobs.clear();
            archive.tell_epoch(epoch);
            for _ in 0..4 {
                for task in archive.tasks(0) {
                    puts += usize::from(matches!(task, Task::PutBlob { .. }));
                    heads += usize::from(matches!(task, Task::PutObject { .. }));
                    archive.perform(0, &task);
                }
            }
        }
        assert!(puts <= 4 * 12, "{puts}");
        assert!(heads <= 2 * 10, "{heads}");
        // It stays as it is from now on.
        archive.wait(3_600_000);
        archive.work(0);
        assert_eq!(archive.shelves.objects.len(), 2);
        assert_eq!(archive.shelves.blobs.len(), 12);
    }
}

/// Something that no device here can read lies in place of the head: under this generation, as it claims.
fn put_junk(archive: &mut Archive, epoch: u64, number: u32) {
    let prefix = [&epoch.to_be_bytes()[..], &number.to_be_bytes()].concat();
    let junk = [&prefix[..], &[9; 200]].concat();
    let (tag, _) = archive.shelves.objects[&head_name()].clone();
    let object = ([&tag[..], &[2]].concat(), junk);
    archive.shelves.objects.insert(head_name(), object);
}

fn remove_device_1(archive: &mut Archive) {
    archive.change_list(&[0]);
    archive.desks[0]
        .step(|device, rows, env| device.new_generation(rows, env).map(|_| ()))
        .unwrap();
}

#[test]
fn what_a_device_left_before_its_removal_and_nobody_can_read_does_not_stop_the_log() {
    for list_epoch in [None, Some(u64::MAX)] {
        let mut archive = Archive::new(2, 26);
        archive.write(0, "a", "text");
        archive.settle();
        match list_epoch {
            None => put_junk(&mut archive, 1, 9),
            Some(epoch) => {
                let (tag, value) = archive.shelves.objects[&head_name()].clone();
                let desk = &archive.desks[1];
                let generation = desk.device.writing_generation(&desk.rows).unwrap().unwrap();
                let names = NamesKey::new(&[1; 32]).head(&space());
                let held = [generation.clone()];
                let opened = Head::open(&held, &space(), &names, &archive.list, None, &value);
                let (head, seen) = opened.unwrap();
                let before = Some((&head, &seen));
                let segments = head.segments.clone();
                let head = Head::after(before, 70_001, epoch, (1, 1), segments).unwrap();
                let identity = archive.account.identities[1].clone();
                let rng = &mut archive.desks[1].rng;
                let sealed = head.seal(&identity, &generation, &space(), &names, rng);
                let object = ([&tag[..], &[1]].concat(), sealed);
                archive.shelves.objects.insert(head_name(), object);
            }
        }
        archive.write(0, "b", "written on");
        archive.refresh(0);
        archive.work(0);
        let stuck = archive.shelves.objects[&head_name()].clone();
        archive.wait(3_700_000);
        archive.work(0);
        assert_eq!(
            archive.shelves.objects[&head_name()],
            stuck,
            "{list_epoch:?}"
        );
        // The key may still come, as long as the device is listed. Once it is not:
        remove_device_1(&mut archive);
        archive.refresh(0);
        archive.work(0);
        assert_ne!(
            archive.shelves.objects[&head_name()],
            stuck,
            "{list_epoch:?}"
        );
        assert_eq!(archive.read(0, "b").as_deref(), Some("written on"));
        let desk = &archive.desks[0];
        let health = desk.device.memory_health(&desk.rows).unwrap();
        assert_eq!(health.unpublished, 0, "{list_epoch:?}");
    }
}

#[test]
fn head_under_a_list_that_there_is_not_is_given_up_after_an_hour_and_not_before() {
    let mut archive = Archive::new(2, 27);
    archive.write(0, "a", "text");
    archive.settle();
    put_junk(&mut archive, 77, 1);
    archive.write(0, "b", "written on");
    archive.refresh(0);
    archive.work(0);
    let stuck = archive.shelves.objects[&head_name()].clone();
    let mut waited = 0;
    while archive.shelves.objects[&head_name()] == stuck {
        archive.wait(60_000);
        archive.work(0);
        waited += 1;
        assert!(waited < 300);
    }
    assert!(waited > 50, "{waited}");
    archive.settle();
    assert_eq!(archive.read(1, "b").as_deref(), Some("written on"));
}

#[test]
fn server_that_shows_what_nobody_can_read_again_and_again_does_not_keep_a_device_busy() {
    let mut archive = Archive::new(2, 28);
    archive.write(0, "a", "text");
    archive.settle();
    put_junk(&mut archive, 1, 9);
    remove_device_1(&mut archive);
    let mut puts = 0;
    for _ in 0..60 {
        archive.wait(10_000);
        for task in archive.tasks(0) {
            let is_head = matches!(&task, Task::PutObject { object, .. } if Object::decode(object).unwrap().name == head_name());
            puts += usize::from(is_head);
            archive.perform(0, &task);
            if is_head {
                put_junk(&mut archive, 1, 9);
            }
        }
    }
    assert!(puts < 20, "{puts}");
    assert_eq!(archive.read(0, "a").as_deref(), Some("text"));
}

#[test]
fn blob_that_is_larger_than_what_was_asked_for_is_not_held() {
    let mut archive = Archive::new(1, 29);
    for (size, state) in [(100, BlobState::Here), (101, BlobState::Missing)] {
        let blob = vec![size; usize::from(size)];
        let name = sprag_crypto::sha256(&[&blob]);
        archive.shelves.blobs.insert(name, blob);
        archive.desks[0]
            .step(|device, rows, _| device.blob_fetch(rows, &name, 100))
            .unwrap();
        archive.work(0);
        let desk = &archive.desks[0];
        assert_eq!(desk.device.blob_state(&desk.rows, &name).unwrap(), state);
        let held = desk.device.memory_blob(&desk.rows, &name).unwrap();
        assert_eq!(held.is_some(), state == BlobState::Here);
    }
}
