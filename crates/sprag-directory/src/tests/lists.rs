//! "Lists."

use super::*;

on_both_storages!(
    first_list_is_of_epoch_one_and_generation_one,
    next_list_on_top_of_the_newest_is_appended,
    several_lists_at_once_are_appended_together,
    same_list_again_changes_nothing,
    older_list_again_changes_nothing,
    whole_history_again_changes_nothing,
    list_signed_by_another_key_is_refused,
    list_with_a_damaged_signature_is_refused,
    list_beside_the_newest_is_a_conflict_with_the_newest,
    list_on_top_of_another_newest_is_a_conflict,
    list_that_leaves_epochs_out_is_a_conflict,
    other_list_of_an_older_epoch_is_a_conflict,
    history_with_another_newest_is_a_conflict_and_appends_nothing,
    later_list_of_an_unknown_user_is_refused,
    other_account_key_is_refused,
    lists_of_one_upload_that_do_not_follow_each_other_are_refused,
    one_bad_list_refuses_the_whole_upload,
    undecodable_publications_are_refused,
    account_key_is_replaced_by_the_operator_only_and_counts_a_generation,
    bad_replacements_of_an_account_key_are_refused,
    query_of_an_unknown_user_fails,
    undecodable_list_queries_are_refused,
    query_from_zero_gets_the_newest_only,
    query_that_knows_the_newest_gets_no_frame,
    query_from_an_epoch_gets_all_from_it_on,
    history_comes_in_ascending_pages_of_64,
    users_whose_names_look_like_paths_are_kept_apart,
);

fn first_list_is_of_epoch_one_and_generation_one<S: Storage>(storage: S) {
    let directory = open(storage);
    let list = Account::new("bob", 7).list(&[5]);
    let state = directory
        .publish_lists(&lists(std::slice::from_ref(&list)))
        .unwrap();
    assert_eq!(list_state(&state), (1, 1, hash(&list).as_bytes().to_vec()));
    assert_eq!(ask_lists(&directory, "bob", 0, &[]).frames, [list]);
}

fn next_list_on_top_of_the_newest_is_appended<S: Storage>(storage: S) {
    let (directory, mut account) = with_user(storage, "bob", &[5]);
    let list = account.list(&[5, 6]);
    let state = directory
        .publish_lists(&lists(std::slice::from_ref(&list)))
        .unwrap();
    assert_eq!(list_state(&state), (1, 2, hash(&list).as_bytes().to_vec()));
    assert_eq!(ask_lists(&directory, "bob", 1, &[]).frames, account.lists);
}

fn several_lists_at_once_are_appended_together<S: Storage>(storage: S) {
    let (directory, mut account) = with_user(storage, "bob", &[5]);
    account.list(&[5, 6]);
    account.list(&[6]);
    directory
        .publish_lists(&lists(&account.lists[1..]))
        .unwrap();
    assert_eq!(ask_lists(&directory, "bob", 1, &[]).frames, account.lists);
}

fn same_list_again_changes_nothing<S: Storage>(storage: S) {
    let (directory, account) = with_user(storage, "bob", &[5]);
    let state = directory.publish_lists(&lists(&account.lists)).unwrap();
    assert_eq!(list_state(&state).1, 1);
    assert_eq!(ask_lists(&directory, "bob", 1, &[]).frames, account.lists);
}

fn older_list_again_changes_nothing<S: Storage>(storage: S) {
    let (directory, mut account) = with_user(storage, "bob", &[5]);
    let list = account.list(&[6]);
    directory.publish_lists(&lists(&[list])).unwrap();
    let state = directory
        .publish_lists(&lists(&account.lists[..1]))
        .unwrap();
    assert_eq!(list_state(&state).1, 2);
    assert_eq!(ask_lists(&directory, "bob", 1, &[]).frames, account.lists);
}

fn whole_history_again_changes_nothing<S: Storage>(storage: S) {
    let (directory, mut account) = with_user(storage, "bob", &[5]);
    account.list(&[6]);
    account.list(&[7]);
    for _ in 0..2 {
        directory.publish_lists(&lists(&account.lists)).unwrap();
        assert_eq!(ask_lists(&directory, "bob", 1, &[]).frames, account.lists);
    }
}

fn list_signed_by_another_key_is_refused<S: Storage>(storage: S) {
    let directory = open(storage);
    let list = Account::new("bob", 7).list(&[5]);
    let foreign = Account::new("bob", 8).list(&[5]);
    let unsigned = list.len() - 64;
    let forged = [&list[..unsigned], &foreign[unsigned..]].concat();
    assert_eq!(
        refusal(directory.publish_lists(&lists(&[forged]))),
        Refusal::BadSignature
    );
    let query = ListQuery::new("bob".to_owned(), 0, Vec::new()).encode();
    assert!(matches!(
        directory.lists(&query),
        Err(DirectoryError::NoSuchUser)
    ));
}

fn list_with_a_damaged_signature_is_refused<S: Storage>(storage: S) {
    let (directory, mut account) = with_user(storage, "bob", &[5]);
    let mut list = account.list(&[5, 6]);
    *list.last_mut().unwrap() ^= 1;
    assert_eq!(
        refusal(directory.publish_lists(&lists(&[list]))),
        Refusal::BadSignature
    );
    assert_eq!(
        ask_lists(&directory, "bob", 1, &[]).frames,
        account.lists[..1]
    );
}

fn list_beside_the_newest_is_a_conflict_with_the_newest<S: Storage>(storage: S) {
    let (directory, account) = with_user(storage, "bob", &[5]);
    let other = account.sign(1, None, &[6]);
    let newest = conflict(directory.publish_lists(&lists(&[other])));
    assert_eq!(newest, account.lists[0]);
    assert_eq!(ask_lists(&directory, "bob", 1, &[]).frames, account.lists);
}

fn list_on_top_of_another_newest_is_a_conflict<S: Storage>(storage: S) {
    let (directory, account) = with_user(storage, "bob", &[5]);
    let other = hash(&account.sign(1, None, &[6]));
    let list = account.sign(2, Some(other), &[6]);
    assert_eq!(
        conflict(directory.publish_lists(&lists(&[list]))),
        account.lists[0]
    );
    assert_eq!(ask_lists(&directory, "bob", 1, &[]).frames, account.lists);
}

fn list_that_leaves_epochs_out_is_a_conflict<S: Storage>(storage: S) {
    let (directory, account) = with_user(storage, "bob", &[5]);
    let list = account.sign(3, Some(hash(&account.lists[0])), &[6]);
    assert_eq!(
        conflict(directory.publish_lists(&lists(&[list]))),
        account.lists[0]
    );
    let list = account.sign(u64::MAX, Some(hash(&account.lists[0])), &[6]);
    assert_eq!(
        conflict(directory.publish_lists(&lists(&[list]))),
        account.lists[0]
    );
}

fn other_list_of_an_older_epoch_is_a_conflict<S: Storage>(storage: S) {
    let (directory, mut account) = with_user(storage, "bob", &[5]);
    account.list(&[6]);
    account.list(&[7]);
    directory.publish_lists(&lists(&account.lists)).unwrap();
    let other = account.sign(2, Some(hash(&account.lists[0])), &[9]);
    assert_eq!(
        conflict(directory.publish_lists(&lists(&[other]))),
        account.lists[2]
    );
    assert_eq!(ask_lists(&directory, "bob", 1, &[]).frames, account.lists);
}

fn history_with_another_newest_is_a_conflict_and_appends_nothing<S: Storage>(storage: S) {
    let (directory, mut account) = with_user(storage, "bob", &[5]);
    let list = account.list(&[6]);
    directory.publish_lists(&lists(&[list])).unwrap();
    let two = account.sign(2, Some(hash(&account.lists[0])), &[9]);
    let three = account.sign(3, Some(hash(&two)), &[9, 10]);
    let fork = [account.lists[0].clone(), two, three];
    assert_eq!(
        conflict(directory.publish_lists(&lists(&fork))),
        account.lists[1]
    );
    assert_eq!(
        conflict(directory.publish_lists(&lists(&fork[1..]))),
        account.lists[1]
    );
    assert_eq!(
        conflict(directory.publish_lists(&lists(&fork[2..]))),
        account.lists[1]
    );
    assert_eq!(ask_lists(&directory, "bob", 1, &[]).frames, account.lists);
}

fn later_list_of_an_unknown_user_is_refused<S: Storage>(storage: S) {
    let directory = open(storage);
    let mut account = Account::new("bob", 7);
    account.list(&[5]);
    account.list(&[6]);
    let result = directory.publish_lists(&lists(&account.lists[1..]));
    assert_eq!(refusal(result), Refusal::MissingLists);
    directory.publish_lists(&lists(&account.lists)).unwrap();
}

fn other_account_key_is_refused<S: Storage>(storage: S) {
    let (directory, account) = with_user(storage, "bob", &[5]);
    let mut other = Account::new("bob", 8);
    let first = other.list(&[5]);
    let result = directory.publish_lists(&lists(&[first]));
    assert_eq!(refusal(result), Refusal::OtherAccountKey);
    let second = other.sign(2, Some(hash(&account.lists[0])), &[5]);
    let result = directory.publish_lists(&lists(&[second]));
    assert_eq!(refusal(result), Refusal::OtherAccountKey);
    assert_eq!(ask_lists(&directory, "bob", 1, &[]).frames, account.lists);
}

fn lists_of_one_upload_that_do_not_follow_each_other_are_refused<S: Storage>(storage: S) {
    let directory = open(storage);
    let mut bob = Account::new("bob", 7);
    for device in 5..8 {
        bob.list(&[device]);
    }
    let [one, two, three] = [0, 1, 2].map(|index| bob.lists[index].clone());
    let beside = bob.sign(2, Some(hash(&two)), &[5]);
    let other_key = Account::new("bob", 8).sign(2, Some(hash(&one)), &[5]);
    let other_user = Account::new("carol", 7).sign(2, Some(hash(&one)), &[5]);
    for bad in [
        vec![one.clone(), three.clone()],
        vec![two.clone(), one.clone()],
        vec![one.clone(), one.clone()],
        vec![one.clone(), beside],
        vec![one.clone(), other_key],
        vec![one.clone(), other_user],
    ] {
        assert_eq!(
            refusal(directory.publish_lists(&lists(&bad))),
            Refusal::NotAChain
        );
    }
    directory.publish_lists(&lists(&[one, two, three])).unwrap();
}

fn one_bad_list_refuses_the_whole_upload<S: Storage>(storage: S) {
    let (directory, mut account) = with_user(storage, "bob", &[5]);
    let good = account.list(&[6]);
    let mut bad = account.list(&[7]);
    *bad.last_mut().unwrap() ^= 1;
    assert_eq!(
        refusal(directory.publish_lists(&lists(&[good, bad]))),
        Refusal::BadSignature
    );
    assert_eq!(
        ask_lists(&directory, "bob", 1, &[]).frames,
        account.lists[..1]
    );
}

fn undecodable_publications_are_refused<S: Storage>(storage: S) {
    let directory = open(storage);
    let list = Account::new("bob", 7).list(&[5]);
    let envelope_frame = [&[0x10], &list[1..]].concat();
    for bad in [
        Vec::new(),
        b"noise".to_vec(),
        vec![0; (4 << 20) + 1],
        lists(&[]),
        lists(&[Vec::new()]),
        lists(&[list[..list.len() - 1].to_vec()]),
        lists(&[envelope_frame]),
        lists(&[vec![0x14; 2049]]),
    ] {
        assert_eq!(refusal(directory.publish_lists(&bad)), Refusal::Malformed);
    }
}

fn account_key_is_replaced_by_the_operator_only_and_counts_a_generation<S: Storage>(storage: S) {
    let (directory, mut old) = with_user(storage, "bob", &[5]);
    let list = old.list(&[5, 6]);
    directory.publish_lists(&lists(&[list])).unwrap();
    let mut new = Account::new("bob", 8);
    let list = new.list(&[9]);
    let state = directory.replace_account(&new.user, &list).unwrap();
    assert_eq!(list_state(&state), (2, 1, hash(&list).as_bytes().to_vec()));
    assert_eq!(ask_lists(&directory, "bob", 1, &[]).frames, new.lists);

    // From here on only the new key counts.
    let list = old.list(&[5]);
    assert_eq!(
        refusal(directory.publish_lists(&lists(&[list]))),
        Refusal::OtherAccountKey
    );
    let list = new.list(&[9, 10]);
    let state = directory.publish_lists(&lists(&[list])).unwrap();
    assert_eq!(list_state(&state).0, 2);
    assert_eq!(ask_lists(&directory, "bob", 1, &[]).frames, new.lists);
}

fn bad_replacements_of_an_account_key_are_refused<S: Storage>(storage: S) {
    let (directory, account) = with_user(storage, "bob", &[5]);
    let mut other = Account::new("bob", 8);
    let first = other.list(&[9]);
    let second = other.list(&[9, 10]);
    let bob = user("bob");
    let result = directory.replace_account(&bob, &account.lists[0]);
    assert_eq!(refusal(result), Refusal::NotANewAccount);
    let result = directory.replace_account(&bob, &second);
    assert_eq!(refusal(result), Refusal::NotANewAccount);
    let mut forged = first.clone();
    *forged.last_mut().unwrap() ^= 1;
    let result = directory.replace_account(&bob, &forged);
    assert_eq!(refusal(result), Refusal::BadSignature);
    let result = directory.replace_account(&user("carol"), &first);
    assert_eq!(refusal(result), Refusal::Malformed);
    let result = directory.replace_account(&bob, b"noise");
    assert_eq!(refusal(result), Refusal::Malformed);
    let carols = Account::new("carol", 8).list(&[9]);
    let result = directory.replace_account(&user("carol"), &carols);
    assert!(matches!(result, Err(DirectoryError::NoSuchUser)));
    assert_eq!(ask_lists(&directory, "bob", 1, &[]).frames, account.lists);
}

fn query_of_an_unknown_user_fails<S: Storage>(storage: S) {
    let (directory, _) = with_user(storage, "bob", &[5]);
    for name in ["carol", "Bob", "bob "] {
        let query = ListQuery::new(name.to_owned(), 0, Vec::new()).encode();
        assert!(matches!(
            directory.lists(&query),
            Err(DirectoryError::NoSuchUser)
        ));
        let query = BundleQuery::new(name.to_owned(), Vec::new(), Vec::new()).encode();
        assert!(matches!(
            directory.bundles(&query),
            Err(DirectoryError::NoSuchUser)
        ));
    }
}

fn undecodable_list_queries_are_refused<S: Storage>(storage: S) {
    let (directory, _) = with_user(storage, "bob", &[5]);
    for bad in [
        &b""[..],
        b"noise",
        b"\x0a\xff",
        b"\x0a\x01\x01",
        b"\x0a\x01\xff",
    ] {
        assert_eq!(refusal(directory.lists(bad)), Refusal::Malformed);
        assert_eq!(refusal(directory.bundles(bad)), Refusal::Malformed);
    }
}

fn query_from_zero_gets_the_newest_only<S: Storage>(storage: S) {
    let (directory, mut account) = with_user(storage, "bob", &[5]);
    account.list(&[6]);
    directory.publish_lists(&lists(&account.lists)).unwrap();
    let reply = ask_lists(&directory, "bob", 0, hash(&account.lists[0]).as_bytes());
    assert_eq!(reply.frames, account.lists[1..]);
    assert!(!reply.more);
    let newest = reply.newest.unwrap();
    assert_eq!((newest.generation, newest.epoch), (1, 2));
    assert_eq!(newest.hash, hash(&account.lists[1]).as_bytes());
}

fn query_that_knows_the_newest_gets_no_frame<S: Storage>(storage: S) {
    let (directory, account) = with_user(storage, "bob", &[5]);
    let known = hash(&account.lists[0]);
    for from in [0, 1, 2] {
        let reply = ask_lists(&directory, "bob", from, known.as_bytes());
        assert!(reply.frames.is_empty() && !reply.more);
        assert_eq!(reply.newest.unwrap().hash, known.as_bytes());
    }
}

fn query_from_an_epoch_gets_all_from_it_on<S: Storage>(storage: S) {
    let (directory, mut account) = with_user(storage, "bob", &[5]);
    for device in 6..10 {
        account.list(&[device]);
    }
    directory.publish_lists(&lists(&account.lists)).unwrap();
    for from in 1..=7 {
        let at = usize::try_from(from).unwrap() - 1;
        let reply = ask_lists(&directory, "bob", from, &[]);
        assert_eq!(reply.frames, account.lists[at.min(5)..]);
        assert!(!reply.more);
    }
    assert!(
        ask_lists(&directory, "bob", u64::MAX, &[])
            .frames
            .is_empty()
    );
}

fn history_comes_in_ascending_pages_of_64<S: Storage>(storage: S) {
    let (directory, mut account) = with_user(storage, "bob", &[5]);
    for device in 6..=134 {
        account.list(&[device]);
    }
    assert_eq!(account.lists.len(), 130);
    directory.publish_lists(&lists(&account.lists)).unwrap();
    for (from, count, more) in [
        (1, 64, true),
        (65, 64, true),
        (129, 2, false),
        (67, 64, false),
    ] {
        let reply = ask_lists(&directory, "bob", from, &[]);
        let at = usize::try_from(from).unwrap() - 1;
        assert_eq!(reply.frames, account.lists[at..at + count]);
        assert_eq!(reply.more, more);
    }
}

fn users_whose_names_look_like_paths_are_kept_apart<S: Storage>(storage: S) {
    let directory = open(storage);
    let long = "x".repeat(255);
    let names = [
        "..",
        ".",
        "/",
        "../../etc/passwd",
        "a/b",
        "a",
        "a\\b",
        "CON",
        "NUL.txt",
        "a:b",
        "Ann",
        "ann",
        "*",
        &long,
    ];
    for (seed, name) in (0..).zip(names) {
        let list = Account::new(name, seed).list(&[5]);
        directory.publish_lists(&lists(&[list])).unwrap();
    }
    for (seed, name) in (0..).zip(names) {
        let list = Account::new(name, seed).list(&[5]);
        assert_eq!(ask_lists(&directory, name, 0, &[]).frames, [list]);
    }
}
