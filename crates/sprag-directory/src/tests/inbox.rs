//! "Envelopes", and the failures of `Deliver`.

use sprag_crypto::Salt;
use sprag_wire::Envelope;

use super::*;
use crate::directory::{hex, user_key};
use crate::{MAX_WAITING, MAX_WAITING_BYTES};

on_both_storages!(
    envelope_waits_for_its_device_until_it_is_forgotten,
    envelopes_come_in_the_order_of_arrival,
    fetch_gives_at_most_the_number_asked_for,
    same_envelope_again_is_kept_once,
    other_envelope_of_a_waiting_id_is_refused,
    forgotten_envelope_may_come_again,
    forgetting_what_is_not_there_is_fine,
    each_device_has_an_inbox_of_its_own,
    envelope_to_an_unknown_user_fails,
    envelope_to_an_unlisted_device_fails_with_the_newest_list,
    envelopes_of_a_removed_device_stay,
    undecodable_envelopes_are_refused,
    inbox_is_full_at_its_bound_of_bytes,
);

pub(super) fn envelope(device: u32, id: u32, size: usize) -> Vec<u8> {
    let id = salt(id);
    let body = vec![7; size.max(17)];
    let mut payload = sprag_wire::encode_message(None, &id, &[1; 61], &body);
    payload.extend_from_slice(&[2; 36]);
    Envelope::new(address("alice", 3), address("bob", device), id, payload).encode()
}

pub(super) fn salt(id: u32) -> Salt {
    Salt::from_bytes([id.to_be_bytes(); 4].concat().try_into().unwrap())
}

fn waiting<S: Storage>(directory: &Directory<S>, device: u32) -> Vec<Vec<u8>> {
    let found = directory
        .fetch(&address("bob", device), usize::MAX)
        .unwrap();
    found.into_iter().map(|(_, frame)| frame).collect()
}

fn envelope_waits_for_its_device_until_it_is_forgotten<S: Storage>(storage: S) {
    let (directory, _) = with_user(storage, "bob", &[5]);
    directory.deliver(&envelope(5, 1, 100)).unwrap();
    let bob = address("bob", 5);
    for _ in 0..2 {
        let found = directory.fetch(&bob, 10).unwrap();
        assert_eq!(found, [(salt(1), envelope(5, 1, 100))]);
    }
    directory.forget(&bob, &salt(1)).unwrap();
    assert!(directory.fetch(&bob, 10).unwrap().is_empty());
}

fn envelopes_come_in_the_order_of_arrival<S: Storage>(storage: S) {
    let (directory, _) = with_user(storage, "bob", &[5]);
    let ids = [9, 3, 12, 1, 11, 2, 10, 4, 8, 5, 7, 6];
    for id in ids {
        directory.deliver(&envelope(5, id, 17)).unwrap();
    }
    directory.forget(&address("bob", 5), &salt(6)).unwrap();
    directory.forget(&address("bob", 5), &salt(3)).unwrap();
    directory.deliver(&envelope(5, 3, 17)).unwrap();
    let found = directory.fetch(&address("bob", 5), 100).unwrap();
    let found: Vec<Salt> = found.into_iter().map(|(id, _)| id).collect();
    assert_eq!(found, [9, 12, 1, 11, 2, 10, 4, 8, 5, 7, 3].map(salt));
}

fn fetch_gives_at_most_the_number_asked_for<S: Storage>(storage: S) {
    let (directory, _) = with_user(storage, "bob", &[5]);
    for id in 1..=3 {
        directory.deliver(&envelope(5, id, 17)).unwrap();
    }
    for (max, count) in [(0, 0), (1, 1), (2, 2), (3, 3), (4, 3)] {
        assert_eq!(
            directory.fetch(&address("bob", 5), max).unwrap().len(),
            count
        );
    }
}

fn same_envelope_again_is_kept_once<S: Storage>(storage: S) {
    let (directory, _) = with_user(storage, "bob", &[5]);
    for _ in 0..3 {
        directory.deliver(&envelope(5, 1, 17)).unwrap();
    }
    assert_eq!(waiting(&directory, 5), [envelope(5, 1, 17)]);
}

fn other_envelope_of_a_waiting_id_is_refused<S: Storage>(storage: S) {
    let (directory, _) = with_user(storage, "bob", &[5]);
    directory.deliver(&envelope(5, 1, 17)).unwrap();
    assert_eq!(
        refusal(directory.deliver(&envelope(5, 1, 18))),
        Refusal::UsedEnvelopeId
    );
    assert_eq!(waiting(&directory, 5), [envelope(5, 1, 17)]);
}

fn forgotten_envelope_may_come_again<S: Storage>(storage: S) {
    let (directory, _) = with_user(storage, "bob", &[5]);
    for _ in 0..2 {
        directory.deliver(&envelope(5, 1, 17)).unwrap();
        assert_eq!(waiting(&directory, 5).len(), 1);
        directory.forget(&address("bob", 5), &salt(1)).unwrap();
        assert!(waiting(&directory, 5).is_empty());
    }
}

fn forgetting_what_is_not_there_is_fine<S: Storage>(storage: S) {
    let (directory, _) = with_user(storage, "bob", &[5]);
    directory.forget(&address("bob", 5), &salt(1)).unwrap();
    directory.forget(&address("carol", 5), &salt(1)).unwrap();
    directory.deliver(&envelope(5, 1, 17)).unwrap();
    directory.forget(&address("bob", 5), &salt(2)).unwrap();
    directory.forget(&address("bob", 6), &salt(1)).unwrap();
    assert_eq!(waiting(&directory, 5).len(), 1);
}

fn each_device_has_an_inbox_of_its_own<S: Storage>(storage: S) {
    let (directory, _) = with_user(storage, "bob", &[5, 50]);
    directory.deliver(&envelope(5, 1, 17)).unwrap();
    directory.deliver(&envelope(50, 1, 17)).unwrap();
    assert_eq!(waiting(&directory, 5), [envelope(5, 1, 17)]);
    assert_eq!(waiting(&directory, 50), [envelope(50, 1, 17)]);
    directory.forget(&address("bob", 50), &salt(1)).unwrap();
    assert_eq!(waiting(&directory, 5).len(), 1);
}

fn envelope_to_an_unknown_user_fails<S: Storage>(storage: S) {
    let directory = open(storage);
    let result = directory.deliver(&envelope(5, 1, 17));
    assert!(matches!(result, Err(DirectoryError::NoSuchUser)));
    assert!(waiting(&directory, 5).is_empty());
}

fn envelope_to_an_unlisted_device_fails_with_the_newest_list<S: Storage>(storage: S) {
    let (directory, account) = with_user(storage, "bob", &[5]);
    match directory.deliver(&envelope(6, 1, 17)) {
        Err(DirectoryError::NoSuchDevice { list }) => assert_eq!(list, account.lists[0]),
        other => panic!("{other:?}"),
    }
    assert!(waiting(&directory, 6).is_empty());
}

fn envelopes_of_a_removed_device_stay<S: Storage>(storage: S) {
    let (directory, mut account) = with_user(storage, "bob", &[5]);
    directory.deliver(&envelope(5, 1, 17)).unwrap();
    let list = account.list(&[6]);
    directory
        .publish_lists(&lists(std::slice::from_ref(&list)))
        .unwrap();
    let result = directory.deliver(&envelope(5, 2, 17));
    assert!(matches!(result, Err(DirectoryError::NoSuchDevice { list: newest }) if newest == list));
    assert_eq!(waiting(&directory, 5), [envelope(5, 1, 17)]);
}

fn undecodable_envelopes_are_refused<S: Storage>(storage: S) {
    let (directory, account) = with_user(storage, "bob", &[5]);
    let good = envelope(5, 1, 17);
    let mut other_id = good.clone();
    let at = good
        .windows(16)
        .position(|bytes| bytes == salt(1).as_bytes())
        .unwrap();
    other_id[at] ^= 1;
    for bad in [
        Vec::new(),
        b"noise".to_vec(),
        good[..good.len() - 1].to_vec(),
        [&good[..], &[0]].concat(),
        [&[0x20], &good[1..]].concat(),
        account.lists[0].clone(),
        vec![0x10; (1 << 20) + 8193],
        other_id,
    ] {
        assert_eq!(refusal(directory.deliver(&bad)), Refusal::Malformed);
    }
    assert!(waiting(&directory, 5).is_empty());
}

fn inbox_is_full_at_its_bound_of_bytes<S: Storage>(storage: S) {
    let (directory, _) = with_user(storage, "bob", &[5, 6]);
    let size = 1 << 20;
    let fitting =
        u32::try_from(MAX_WAITING_BYTES / u64::try_from(envelope(5, 1, size).len()).unwrap())
            .unwrap();
    for id in 1..=fitting {
        directory.deliver(&envelope(5, id, size)).unwrap();
    }
    let result = directory.deliver(&envelope(5, 1000, size));
    assert!(matches!(result, Err(DirectoryError::Full)));
    // What waits is not offered anew, and other devices have their own room.
    directory.deliver(&envelope(5, 1, size)).unwrap();
    directory.deliver(&envelope(6, 1000, size)).unwrap();
    directory.forget(&address("bob", 5), &salt(1)).unwrap();
    directory.deliver(&envelope(5, 1000, size)).unwrap();
}

#[test]
fn inbox_is_full_at_its_bound_of_envelopes() {
    let storage = crate::MemoryStorage::new();
    let (directory, _) = with_user(storage.clone(), "bob", &[5]);
    let inbox = format!("{}/inbox/5", user_key(&user("bob")));
    let last = u32::try_from(MAX_WAITING).unwrap();
    for id in 1..last {
        let name = format!("{inbox}/{id:020}-{}", hex(salt(id).as_bytes()));
        let mut rows = storage.lock().unwrap();
        rows.put(&name, &envelope(5, id, 17)).unwrap();
    }
    directory.deliver(&envelope(5, last, 17)).unwrap();
    let result = directory.deliver(&envelope(5, 70_000, 17));
    assert!(matches!(result, Err(DirectoryError::Full)));
    directory.deliver(&envelope(5, 1, 17)).unwrap();
    directory.forget(&address("bob", 5), &salt(1)).unwrap();
    directory.deliver(&envelope(5, 70_000, 17)).unwrap();
    assert_eq!(waiting(&directory, 5).len(), MAX_WAITING);
}
