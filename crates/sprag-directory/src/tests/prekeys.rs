//! "Prekeys."

use sprag_crypto::sha256;
use sprag_wire::relay::BundleReply;

use super::*;

on_both_storages!(
    first_upload_is_what_the_state_says,
    device_that_published_nothing_has_number_zero,
    number_not_above_the_last_accepted_one_changes_nothing,
    repeated_upload_never_brings_back_a_key_that_was_handed_out,
    upload_without_replace_adds_to_the_stock,
    upload_with_replace_drops_all_one_time_keys_first,
    replaced_one_time_keys_never_come_back,
    stored_signed_and_last_resort_keys_may_come_again,
    rotated_signed_and_last_resort_keys_take_the_place_of_the_old,
    ids_that_are_not_above_all_accepted_are_refused,
    ids_stay_used_when_their_keys_are_gone,
    refused_upload_leaves_its_number_free,
    keys_beyond_a_hundred_of_a_kind_are_refused,
    key_of_the_wrong_kind_is_refused,
    undecodable_uploads_are_refused,
    one_time_key_leaves_in_the_step_that_answers,
    exhausted_stock_gives_the_last_resort_key_and_no_one_time_key,
    kinds_run_out_apart,
    bundle_carries_the_listed_identity_key_and_the_newest_list,
    listed_device_without_prekeys_is_missing,
    unlisted_device_has_neither_bundle_nor_entry,
    query_names_devices_and_each_is_answered_once,
    device_that_leaves_the_list_is_not_handed_out,
    prekeys_published_before_the_list_count_once_it_is_there,
    prekeys_of_one_device_are_not_those_of_another,
);

fn put<S: Storage>(directory: &Directory<S>, upload: &PreKeyUpload) -> PreKeyState {
    let state = directory.upload_pre_keys(&address("bob", 5), &upload.encode());
    PreKeyState::decode(&state.unwrap()).unwrap()
}

fn refused<S: Storage>(directory: &Directory<S>, upload: &PreKeyUpload) -> Refusal {
    let before = directory.state(&address("bob", 5)).unwrap();
    let result = directory.upload_pre_keys(&address("bob", 5), &upload.encode());
    assert_eq!(directory.state(&address("bob", 5)).unwrap(), before);
    refusal(result)
}

fn handed_out<S: Storage>(directory: &Directory<S>) -> UnverifiedPreKeyBundle {
    let (mut bundles, missing) = ask_bundles(directory, "bob", &[]);
    assert!(missing.is_empty());
    assert_eq!(bundles.len(), 1);
    bundles.remove(0)
}

fn first_upload_is_what_the_state_says<S: Storage>(storage: S) {
    let directory = open(storage);
    let first = put(&directory, &upload(3, true, 1..=20, 2..=31));
    assert_eq!(first.epoch, EPOCH.as_bytes());
    assert_eq!(
        (first.number, first.one_time, first.kem_one_time),
        (3, 20, 30)
    );
    assert_eq!(first.top, [1, 20, 31]);
    let keys = [signed(1).encode(), last_resort(1).encode()].concat();
    assert_eq!(first.digest, sha256(&[&keys]));
    assert_eq!(
        state(&directory, &address("bob", 5)).encode(),
        first.encode()
    );
}

fn device_that_published_nothing_has_number_zero<S: Storage>(storage: S) {
    let (directory, _) = with_user(storage, "bob", &[5]);
    let state = state(&directory, &address("bob", 5));
    assert_eq!(
        (state.number, state.one_time, state.kem_one_time),
        (0, 0, 0)
    );
    assert_eq!(state.epoch, EPOCH.as_bytes());
    assert!(state.digest.is_empty());
}

fn number_not_above_the_last_accepted_one_changes_nothing<S: Storage>(storage: S) {
    let directory = open(storage);
    let first = put(&directory, &upload(3, false, 1..=2, 2..=3));
    for number in [0, 1, 2, 3] {
        for replace in [false, true] {
            let again = put(&directory, &upload(number, replace, 4..=9, 5..=9));
            assert_eq!(again.encode(), first.encode());
        }
    }
    assert_eq!(put(&directory, &upload(4, false, 4..=9, 5..=9)).one_time, 8);
}

fn repeated_upload_never_brings_back_a_key_that_was_handed_out<S: Storage>(storage: S) {
    let (directory, _) = with_user(storage, "bob", &[5]);
    put(&directory, &upload(1, true, 1..=1, 2..=2));
    assert_eq!(handed_out(&directory).one_time_pre_key, Some(one_time(1)));
    put(&directory, &upload(1, true, 1..=1, 2..=2));
    let bundle = handed_out(&directory);
    assert_eq!(bundle.one_time_pre_key, None);
    assert_eq!(bundle.kem_pre_key, last_resort(1));
}

fn upload_without_replace_adds_to_the_stock<S: Storage>(storage: S) {
    let (directory, _) = with_user(storage, "bob", &[5]);
    put(&directory, &upload(1, false, 1..=2, 2..=3));
    let state = put(&directory, &upload(2, false, 3..=4, 4..=5));
    assert_eq!((state.one_time, state.kem_one_time), (4, 4));
    for id in 1..=4 {
        let bundle = handed_out(&directory);
        assert_eq!(bundle.one_time_pre_key, Some(one_time(id)));
        assert_eq!(bundle.kem_pre_key, kem(id + 1, KemKind::OneTime));
    }
}

fn upload_with_replace_drops_all_one_time_keys_first<S: Storage>(storage: S) {
    let (directory, _) = with_user(storage, "bob", &[5]);
    put(&directory, &upload(1, false, 1..=100, 2..=101));
    let state = put(&directory, &upload(2, true, 101..=200, 102..=201));
    assert_eq!((state.one_time, state.kem_one_time), (100, 100));
    let bundle = handed_out(&directory);
    assert_eq!(bundle.one_time_pre_key, Some(one_time(101)));
    assert_eq!(bundle.kem_pre_key, kem(102, KemKind::OneTime));
}

fn replaced_one_time_keys_never_come_back<S: Storage>(storage: S) {
    let (directory, _) = with_user(storage, "bob", &[5]);
    put(&directory, &upload(1, false, 1..=3, 2..=4));
    put(
        &directory,
        &PreKeyUpload::new(2, true, signed(1), last_resort(1), Vec::new(), Vec::new()),
    );
    assert_eq!(handed_out(&directory).one_time_pre_key, None);
    assert_eq!(
        refused(&directory, &upload(3, false, 1..=3, 5..=6)),
        Refusal::UsedPreKeyId
    );
}

fn stored_signed_and_last_resort_keys_may_come_again<S: Storage>(storage: S) {
    let directory = open(storage);
    put(&directory, &upload(1, false, 1..=1, 2..=2));
    let state = put(&directory, &upload(2, false, 2..=2, 3..=3));
    assert_eq!((state.number, state.one_time), (2, 2));
    assert_eq!(state.top, [1, 2, 3]);
}

fn rotated_signed_and_last_resort_keys_take_the_place_of_the_old<S: Storage>(storage: S) {
    let (directory, _) = with_user(storage, "bob", &[5]);
    put(&directory, &upload(1, false, 1..=1, 2..=2));
    let mut next = upload(2, true, NO_IDS, NO_IDS);
    next.signed_pre_key = signed(2);
    next.last_resort = last_resort(3);
    let state = put(&directory, &next);
    assert_eq!(state.top, [2, 1, 3]);
    let keys = [signed(2).encode(), last_resort(3).encode()].concat();
    assert_eq!(state.digest, sha256(&[&keys]));
    let bundle = handed_out(&directory);
    assert_eq!(bundle.signed_pre_key, signed(2));
    assert_eq!(bundle.kem_pre_key, last_resort(3));
}

fn ids_that_are_not_above_all_accepted_are_refused<S: Storage>(storage: S) {
    let directory = open(storage);
    let mut first = upload(1, false, 5..=6, 7..=8);
    first.signed_pre_key = signed(4);
    first.last_resort = last_resort(9);
    put(&directory, &first);
    let good = || {
        let mut next = upload(2, false, 7..=8, 10..=11);
        next.signed_pre_key = signed(4);
        next.last_resort = last_resort(9);
        next
    };
    let spoiled: [fn(&mut PreKeyUpload); 15] = [
        |keys| keys.signed_pre_key = signed(3),
        |keys| keys.signed_pre_key.signature = [8; 64],
        |keys| keys.signed_pre_key.public_key = curve_key(5),
        |keys| keys.last_resort = last_resort(1),
        |keys| keys.last_resort = last_resort(8),
        |keys| keys.last_resort.signature = [8; 64],
        |keys| keys.last_resort = last_resort(10),
        |keys| keys.one_time_pre_keys = vec![one_time(6)],
        |keys| keys.one_time_pre_keys = vec![one_time(1)],
        |keys| keys.one_time_pre_keys = vec![one_time(7), one_time(7)],
        |keys| keys.one_time_pre_keys = vec![one_time(8), one_time(7)],
        |keys| keys.kem_pre_keys = vec![kem(8, KemKind::OneTime)],
        |keys| keys.kem_pre_keys = vec![kem(9, KemKind::OneTime)],
        |keys| keys.kem_pre_keys = vec![kem(10, KemKind::OneTime), kem(10, KemKind::OneTime)],
        |keys| keys.kem_pre_keys = vec![kem(11, KemKind::OneTime), kem(10, KemKind::OneTime)],
    ];
    for spoil in spoiled {
        let mut next = good();
        spoil(&mut next);
        assert_eq!(refused(&directory, &next), Refusal::UsedPreKeyId);
    }
    assert_eq!(put(&directory, &good()).top, [4, 8, 11]);
}

fn ids_stay_used_when_their_keys_are_gone<S: Storage>(storage: S) {
    let (directory, _) = with_user(storage, "bob", &[5]);
    put(&directory, &upload(1, false, 1..=1, 2..=2));
    handed_out(&directory);
    assert_eq!(
        refused(&directory, &upload(2, false, 1..=1, 3..=3)),
        Refusal::UsedPreKeyId
    );
    assert_eq!(
        refused(&directory, &upload(2, true, 2..=2, 2..=2)),
        Refusal::UsedPreKeyId
    );
}

fn refused_upload_leaves_its_number_free<S: Storage>(storage: S) {
    let directory = open(storage);
    put(&directory, &upload(1, false, 1..=1, 2..=2));
    assert_eq!(
        refused(&directory, &upload(2, false, 1..=1, 3..=3)),
        Refusal::UsedPreKeyId
    );
    assert_eq!(put(&directory, &upload(2, false, 2..=2, 3..=3)).number, 2);
}

fn keys_beyond_a_hundred_of_a_kind_are_refused<S: Storage>(storage: S) {
    let directory = open(storage);
    assert_eq!(
        refused(&directory, &upload(1, true, 1..=101, 2..=2)),
        Refusal::TooManyPreKeys
    );
    assert_eq!(
        refused(&directory, &upload(1, true, 1..=1, 2..=102)),
        Refusal::TooManyPreKeys
    );
    put(&directory, &upload(1, true, 1..=100, 2..=101));
    assert_eq!(
        refused(&directory, &upload(2, false, 101..=101, NO_IDS)),
        Refusal::TooManyPreKeys
    );
    assert_eq!(
        refused(&directory, &upload(2, false, NO_IDS, 102..=102)),
        Refusal::TooManyPreKeys
    );
}

fn key_of_the_wrong_kind_is_refused<S: Storage>(storage: S) {
    let directory = open(storage);
    let mut keys = upload(1, true, 1..=1, 2..=2);
    keys.last_resort = kem(1, KemKind::OneTime);
    assert_eq!(refused(&directory, &keys), Refusal::WrongKeyKind);
    let mut keys = upload(1, true, 1..=1, 2..=2);
    keys.kem_pre_keys.push(last_resort(3));
    assert_eq!(refused(&directory, &keys), Refusal::WrongKeyKind);
}

fn undecodable_uploads_are_refused<S: Storage>(storage: S) {
    let directory = open(storage);
    let good = upload(1, true, 1..=1, 2..=2).encode();
    for bad in [
        Vec::new(),
        b"noise".to_vec(),
        good[..good.len() - 1].to_vec(),
        vec![0; (4 << 20) + 1],
    ] {
        let result = directory.upload_pre_keys(&address("bob", 5), &bad);
        assert_eq!(refusal(result), Refusal::Malformed);
    }
    assert_eq!(state(&directory, &address("bob", 5)).number, 0);
}

fn one_time_key_leaves_in_the_step_that_answers<S: Storage>(storage: S) {
    let (directory, _) = with_user(storage, "bob", &[5]);
    put(&directory, &upload(1, false, 1..=3, 2..=4));
    for id in 1..=3 {
        let bundle = handed_out(&directory);
        assert_eq!(bundle.one_time_pre_key, Some(one_time(id)));
        assert_eq!(bundle.kem_pre_key, kem(id + 1, KemKind::OneTime));
        let left = state(&directory, &address("bob", 5));
        assert_eq!((left.one_time, left.kem_one_time), (3 - id, 3 - id));
        assert_eq!((left.number, left.top), (1, vec![1, 3, 4]));
    }
}

fn exhausted_stock_gives_the_last_resort_key_and_no_one_time_key<S: Storage>(storage: S) {
    let (directory, _) = with_user(storage, "bob", &[5]);
    put(
        &directory,
        &PreKeyUpload::new(1, true, signed(1), last_resort(1), Vec::new(), Vec::new()),
    );
    for _ in 0..3 {
        let bundle = handed_out(&directory);
        assert_eq!(bundle.one_time_pre_key, None);
        assert_eq!(bundle.kem_pre_key, last_resort(1));
        assert_eq!(bundle.signed_pre_key, signed(1));
    }
}

fn kinds_run_out_apart<S: Storage>(storage: S) {
    let (directory, _) = with_user(storage, "bob", &[5]);
    put(&directory, &upload(1, false, 1..=2, 2..=2));
    handed_out(&directory);
    let bundle = handed_out(&directory);
    assert_eq!(bundle.one_time_pre_key, Some(one_time(2)));
    assert_eq!(bundle.kem_pre_key, last_resort(1));
    put(&directory, &upload(2, false, NO_IDS, 3..=3));
    let bundle = handed_out(&directory);
    assert_eq!(bundle.one_time_pre_key, None);
    assert_eq!(bundle.kem_pre_key, kem(3, KemKind::OneTime));
}

fn bundle_carries_the_listed_identity_key_and_the_newest_list<S: Storage>(storage: S) {
    let (directory, mut account) = with_user(storage, "bob", &[5]);
    put(&directory, &upload(1, false, 1..=1, 2..=2));
    let newest = account.list(&[5, 6]);
    directory
        .publish_lists(&lists(std::slice::from_ref(&newest)))
        .unwrap();
    for known in [Vec::new(), hash(&newest).as_bytes().to_vec()] {
        let query = BundleQuery::new("bob".to_owned(), vec![5], known).encode();
        let reply = BundleReply::decode(&directory.bundles(&query).unwrap()).unwrap();
        assert_eq!(reply.list, newest);
        let bundle = UnverifiedPreKeyBundle::decode(&reply.bundles[0]).unwrap();
        assert_eq!(bundle.device_list, newest);
        assert_eq!(bundle.address, address("bob", 5));
        assert_eq!(&bundle.identity_key, listed(5).identity_key());
    }
}

fn listed_device_without_prekeys_is_missing<S: Storage>(storage: S) {
    let (directory, _) = with_user(storage, "bob", &[5, 6, 7]);
    put(&directory, &upload(1, false, 1..=1, 2..=2));
    let (bundles, missing) = ask_bundles(&directory, "bob", &[]);
    assert_eq!(bundles.len(), 1);
    assert_eq!(missing, [6, 7]);
    let (bundles, missing) = ask_bundles(&directory, "bob", &[7]);
    assert!(bundles.is_empty());
    assert_eq!(missing, [7]);
}

fn unlisted_device_has_neither_bundle_nor_entry<S: Storage>(storage: S) {
    let (directory, _) = with_user(storage, "bob", &[6]);
    put(&directory, &upload(1, false, 1..=1, 2..=2));
    for device in [5, 0, u32::MAX] {
        let (bundles, missing) = ask_bundles(&directory, "bob", &[device]);
        assert!(bundles.is_empty() && missing.is_empty());
    }
}

fn query_names_devices_and_each_is_answered_once<S: Storage>(storage: S) {
    let (directory, _) = with_user(storage, "bob", &[5, 6]);
    put(&directory, &upload(1, false, 1..=3, 2..=4));
    let (bundles, missing) = ask_bundles(&directory, "bob", &[5, 5, 5]);
    assert_eq!(bundles.len(), 1);
    assert!(missing.is_empty());
    assert_eq!(state(&directory, &address("bob", 5)).one_time, 2);
    ask_bundles(&directory, "bob", &[6]);
    assert_eq!(state(&directory, &address("bob", 5)).one_time, 2);
}

fn device_that_leaves_the_list_is_not_handed_out<S: Storage>(storage: S) {
    let (directory, mut account) = with_user(storage, "bob", &[5]);
    put(&directory, &upload(1, false, 1..=3, 2..=4));
    let list = account.list(&[6]);
    directory.publish_lists(&lists(&[list])).unwrap();
    let (bundles, missing) = ask_bundles(&directory, "bob", &[]);
    assert!(bundles.is_empty());
    assert_eq!(missing, [6]);
    assert!(ask_bundles(&directory, "bob", &[5]).0.is_empty());
    assert_eq!(state(&directory, &address("bob", 5)).one_time, 3);
}

fn prekeys_published_before_the_list_count_once_it_is_there<S: Storage>(storage: S) {
    let directory = open(storage);
    put(&directory, &upload(1, false, 1..=3, 2..=4));
    let list = Account::new("bob", 7).list(&[5]);
    directory.publish_lists(&lists(&[list])).unwrap();
    assert_eq!(handed_out(&directory).one_time_pre_key, Some(one_time(1)));
}

fn prekeys_of_one_device_are_not_those_of_another<S: Storage>(storage: S) {
    let directory = open(storage);
    put(&directory, &upload(4, false, 1..=3, 2..=4));
    for other in [
        address("bob", 6),
        address("bob", 55),
        address("bo", 5),
        address("carol", 5),
    ] {
        assert_eq!(state(&directory, &other).number, 0);
        directory
            .upload_pre_keys(&other, &upload(1, false, 1..=1, 2..=2).encode())
            .unwrap();
    }
    assert_eq!(state(&directory, &address("bob", 5)).one_time, 3);
}
