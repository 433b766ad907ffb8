//! Devices of one account: linking, removing, holders, copies to one's own devices, forks of their list.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use sprag::{Client, Event, OwnDeviceState, Task};
use sprag_tests::world::{Who, World};
use sprag_wire::LinkRequest;

fn events(world: &World, who: Who) -> Vec<Event> {
    let events = world.client(who).events(0).unwrap();
    events.into_iter().map(|numbered| numbered.event).collect()
}

/// Whether a device was told so.
macro_rules! told {
    ($world:expr, $who:expr, $($event:tt)+) => {
        events(&$world, $who).iter().any(|event| matches!(event, $($event)+))
    };
}

fn states(world: &World, who: Who) -> Vec<(u32, bool, OwnDeviceState)> {
    let devices = world.client(who).devices().unwrap();
    let plain = devices.into_iter();
    plain
        .map(|one| (one.device, one.holder, one.state))
        .collect()
}

fn epoch(world: &World, user: &str) -> u64 {
    let query = sprag_wire::relay::ListQuery::new(user.to_owned(), 0, Vec::new()).encode();
    let reply = world.server().lists(&query).unwrap();
    let reply = sprag_wire::relay::ListReply::decode(&reply).unwrap();
    reply.newest.unwrap().epoch
}

/// Alice with two devices, and bob, who have all written to one another.
fn company(seed: u64) -> (World, Who, Who, Who) {
    let mut world = World::new(seed);
    let (alice, bob) = (world.join("alice"), world.join("bob"));
    world.send(alice, "bob", b"1");
    world.settle();
    world.send(bob, "alice", b"2");
    world.settle();
    let laptop = world.begin_link("alice");
    world.link(alice, laptop, false);
    world.settle();
    (world, alice, laptop, bob)
}

#[test]
fn a_linked_device_talks_and_gets_copies_of_what_the_other_sends() {
    let (mut world, alice, laptop, bob) = company(1);
    assert!(events(&world, laptop).contains(&Event::Linked));
    let number = world.client(laptop).device().unwrap();
    assert!(told!(world, alice, Event::DeviceAdded { device, .. } if *device == number));
    assert!(number >= 1 << 16);
    let all = states(&world, alice);
    assert!(all.contains(&(number, false, OwnDeviceState::Listed)));
    assert_eq!(states(&world, laptop), all);

    let id = world.send(alice, "bob", b"from the phone");
    world.settle();
    let inbox = world.heard(laptop);
    assert_eq!(
        inbox.last().unwrap(),
        &("alice".into(), b"from the phone".to_vec())
    );
    assert_eq!(world.heard(bob).last().unwrap().1, b"from the phone");
    // The status has a line for the own device, too.
    let status = world.client(alice).status(id).unwrap().unwrap();
    assert_eq!(status.len(), 2);

    world.send(laptop, "bob", b"from the laptop");
    world.settle();
    assert_eq!(world.heard(bob).last().unwrap().1, b"from the laptop");
    assert_eq!(world.heard(alice).last().unwrap().1, b"from the laptop");
    world.send(bob, "alice", b"to both");
    world.settle();
    for who in [alice, laptop] {
        assert_eq!(
            world.heard(who).last().unwrap(),
            &("bob".into(), b"to both".to_vec())
        );
    }
    assert_eq!(
        world.client(alice).account_fingerprint().unwrap(),
        world.client(laptop).account_fingerprint().unwrap()
    );
}

#[test]
fn a_copy_says_whose_conversation_it_belongs_to_and_comes_once() {
    let (mut world, alice, laptop, _) = company(2);
    let id = world.send(alice, "bob", b"hello");
    world.work(alice);
    let envelopes = world.waiting(laptop);
    for (_, envelope) in envelopes.iter().chain(&envelopes) {
        world.receive(laptop, envelope);
    }
    let inbox = world.client(laptop).inbox().unwrap();
    let [message] = &inbox[..] else {
        panic!("{inbox:?}");
    };
    assert!(message.is_sync());
    assert_eq!(message.conversation(), ["bob"]);
    assert_eq!(message.from(), "alice");
    assert_eq!(message.message_id(), id);
    assert_eq!(message.bytes(), b"hello");
    // What others send is of their own conversation.
    let bob_says = world.client(alice).inbox().unwrap();
    assert!(bob_says.iter().all(|message| !message.is_sync()));
    // A note to oneself goes to the other devices, and is no copy.
    world.client(laptop).acknowledge(message.id()).unwrap();
    world.send(alice, "alice", b"a note");
    world.work(alice);
    world.poll(laptop);
    let inbox = world.client(laptop).inbox().unwrap();
    assert_eq!(inbox[0].conversation(), ["alice"]);
    assert!(!inbox[0].is_sync());
}

#[test]
fn until_the_keys_are_there_a_new_device_sends_nothing_and_shows_nothing() {
    let mut world = World::new(3);
    let (alice, bob) = (world.join("alice"), world.join("bob"));
    world.send(bob, "alice", b"hello");
    world.settle();
    let new = world.begin_link("alice");
    let client = world.client(new).clone();
    assert!(!client.is_linked().unwrap());
    for code in [
        client
            .send_encrypted_message("bob", b"?")
            .unwrap_err()
            .code(),
        client.address().unwrap_err().code(),
        client.devices().unwrap_err().code(),
        client.accept("bob").unwrap_err().code(),
        client.link_device("sprag-link:", true).unwrap_err().code(),
    ] {
        assert_eq!(code, "not_linked");
    }
    assert_eq!(client.user().unwrap(), "alice");
    // Alice lists it and sends the keys, which stay at the server; bob learns of the device and writes to it.
    let request = client.link_request().unwrap();
    world.client(alice).link_device(&request, false).unwrap();
    world.work(alice);
    world.wait(3_001);
    world.work(new);
    assert!(
        client.link_request().unwrap_err().code() == "bad_input",
        "it is listed now"
    );
    world.wait(3_001);
    world.work(alice);
    world.send(alice, "bob", b"I have a new device");
    world.work(alice);
    world.poll(bob);
    world.send(bob, "alice", b"to the new one, too");
    world.work(bob);
    let waiting = world.waiting(new);
    let mut later = Vec::new();
    for (_, envelope) in waiting {
        let from = sprag_wire::Envelope::decode(&envelope).unwrap();
        if from.from().user().as_str() == "bob" {
            let received = world.receive(new, &envelope);
            assert!(received.messages().is_empty());
        } else {
            later.push(envelope);
        }
    }
    assert!(client.inbox().unwrap().is_empty());
    assert!(world.tasks(new).is_empty());
    let refused = client.send_encrypted_message("bob", b"?").unwrap_err();
    assert_eq!(refused.code(), "not_linked");
    assert!(refused.is_retryable());
    assert_eq!(client.reset("bob").unwrap_err().code(), "not_linked");
    // Now the keys.
    for envelope in later {
        world.receive(new, &envelope);
    }
    assert!(client.is_linked().unwrap());
    let inbox = client.inbox().unwrap();
    assert!(
        inbox
            .iter()
            .any(|message| message.bytes() == b"to the new one, too")
    );
    world.settle();
    world.send(new, "bob", b"here I am");
    world.settle();
    assert_eq!(world.heard(bob).last().unwrap().1, b"here I am");
}

#[test]
fn power_cuts_between_all_steps_of_linking_and_removing_change_nothing() {
    let mut world = World::new(4);
    let (alice, bob) = (world.join("alice"), world.join("bob"));
    world.send(alice, "bob", b"1");
    world.settle();
    world.send(bob, "alice", b"2");
    world.settle();
    let new = world.begin_link("alice");
    world.crash(new);
    let request = world.client(new).link_request().unwrap();
    let number = world.client(alice).link_device(&request, true).unwrap();
    for _ in 0..40 {
        for who in [alice, new] {
            world.crash(who);
            if let Some(task) = world.tasks(who).into_iter().next() {
                world.crash(who);
                // A cut after the server took it, too: it is offered once more.
                if let Task::PublishDevices { lists, .. } = &task {
                    world.server().publish_lists(lists).unwrap();
                    world.crash(who);
                    let again = world.tasks(who);
                    assert!(again.contains(&task), "the same bytes again");
                }
                world.perform(who, &task);
                world.crash(who);
            }
            world.poll(who);
            world.crash(who);
        }
        world.wait(3_001);
    }
    assert!(world.client(new).is_linked().unwrap());
    assert_eq!(world.client(new).device().unwrap(), number);
    assert_eq!(
        epoch(&world, "alice"),
        2,
        "one list, however often the power went"
    );
    world.settle();
    // Being a holder, it removes the first one.
    let first = world.client(alice).device().unwrap();
    world.client(new).remove_device(first).unwrap();
    for _ in 0..20 {
        world.crash(new);
        if let Some(task) = world.tasks(new).into_iter().next() {
            world.crash(new);
            world.perform(new, &task);
        }
        world.crash(new);
    }
    assert_eq!(epoch(&world, "alice"), 3);
    world.settle();
    // Nobody writes to it any more: it finds out when its list is a day old.
    world.wait(86_400_001);
    world.send(alice, "bob", b"am I still there?");
    world.settle();
    assert!(
        !world
            .heard(bob)
            .iter()
            .any(|said| said.1 == b"am I still there?")
    );
    assert!(told!(world, alice, Event::DeviceRemoved { device, .. } if *device == first));
    let refused = world.client(alice).send_encrypted_message("bob", b"?");
    assert_eq!(refused.unwrap_err().code(), "unlisted_device");
}

#[test]
fn a_list_that_the_server_did_not_take_is_given_to_nobody() {
    let mut world = World::new(5);
    let (alice, bob) = (world.join("alice"), world.join("bob"));
    world.send(alice, "bob", b"1");
    world.settle();
    world.send(bob, "alice", b"2");
    world.settle();
    let new = world.begin_link("alice");
    let request = world.client(new).link_request().unwrap();
    let number = world.client(alice).link_device(&request, false).unwrap();
    assert!(states(&world, alice).contains(&(number, false, OwnDeviceState::Adding)));
    let publish = world.tasks(alice).remove(0);
    world.send(alice, "bob", b"meanwhile");
    for task in world.tasks(alice) {
        if task.id() != publish.id() {
            world.perform(alice, &task);
        }
    }
    world.poll(bob);
    let contact = world.client(bob).contact("alice").unwrap().unwrap();
    assert_eq!(contact.devices.len(), 1);
    assert_eq!(
        world
            .client(alice)
            .status(world.client(alice).new_message_id().unwrap())
            .unwrap(),
        None
    );
    world.perform(alice, &publish);
    assert!(states(&world, alice).contains(&(number, false, OwnDeviceState::Linking)));
    // From now on it rides, until bob says that he has it.
    world.send(alice, "bob", b"news");
    world.settle();
    let contact = world.client(bob).contact("alice").unwrap().unwrap();
    assert!(contact.devices.contains(&number));
}

#[test]
fn a_list_that_comes_back_before_the_answer_to_its_task_keeps_no_later_one_from_the_server() {
    let (mut world, alice, laptop, _) = company(17);
    let number = world.client(laptop).device().unwrap();
    // Her own list is a day old when alice writes, so it is fetched first.
    world.wait(86_400_001);
    world.send(alice, "bob", b"a day later");
    world.client(alice).remove_device(number).unwrap();
    let tasks = world.tasks(alice);
    let publishes = |task: &&Task| matches!(task, Task::PublishDevices { .. });
    let Some(Task::PublishDevices { lists, .. }) = tasks.iter().find(publishes) else {
        panic!("{tasks:?}");
    };
    // The server takes the new one, and dies before it answers; then the fetch brings it.
    world.server().publish_lists(lists).unwrap();
    world.crash(alice);
    for task in &tasks {
        if matches!(task, Task::FetchDevices { user, .. } if user.as_str() == "alice") {
            world.perform(alice, task);
        }
    }
    let again = world.tasks(alice);
    let again = again.iter().find(publishes).cloned();
    let Some(Task::PublishDevices { lists: same, .. }) = again else {
        panic!("{again:?}");
    };
    assert!(same == *lists, "the same bytes again");
    world.settle();
    assert_eq!(epoch(&world, "alice"), 3);
    let third = world.begin_link("alice");
    world.link(alice, third, false);
    assert_eq!(epoch(&world, "alice"), 4);
}

#[test]
fn of_two_holders_that_add_at_once_the_slower_signs_anew_on_top() {
    let mut world = World::new(6);
    let holders = world.join_with_devices("alice", 2);
    world.settle();
    let (one, two) = (world.begin_link("alice"), world.begin_link("alice"));
    let requests = [one, two].map(|new| world.client(new).link_request().unwrap());
    let first = world
        .client(holders[0])
        .link_device(&requests[0], false)
        .unwrap();
    let second = world
        .client(holders[1])
        .link_device(&requests[1], true)
        .unwrap();
    let slow = world.tasks(holders[1]);
    world.work(holders[0]);
    for task in &slow {
        world.perform(holders[1], task);
    }
    world.settle();
    for new in [one, two] {
        assert!(world.client(new).is_linked().unwrap());
    }
    assert_eq!(epoch(&world, "alice"), 4);
    for who in [holders[0], holders[1], one, two] {
        let all = states(&world, who);
        assert_eq!(all.len(), 4, "{all:?}");
        assert!(all.contains(&(first, false, OwnDeviceState::Listed)));
        assert!(all.contains(&(second, true, OwnDeviceState::Listed)));
        assert!(
            !events(&world, who)
                .iter()
                .any(|event| matches!(event, Event::OwnListForked { .. }))
        );
    }
}

#[test]
fn of_two_holders_that_read_one_code_one_adds_the_device() {
    let mut world = World::new(7);
    let holders = world.join_with_devices("alice", 2);
    world.settle();
    let new = world.begin_link("alice");
    let request = world.client(new).link_request().unwrap();
    let kept = world
        .client(holders[0])
        .link_device(&request, false)
        .unwrap();
    let lost = world
        .client(holders[1])
        .link_device(&request, false)
        .unwrap();
    let slow = world.tasks(holders[1]);
    world.work(holders[0]);
    for task in &slow {
        world.perform(holders[1], task);
    }
    world.settle();
    assert_eq!(world.client(new).device().unwrap(), kept);
    assert!(world.client(new).is_linked().unwrap());
    assert!(told!(world, holders[1], Event::ListChangeDropped { device, .. } if *device == lost));
    assert_eq!(states(&world, holders[1]).len(), 3);
}

#[test]
fn a_request_is_taken_once_by_a_holder_of_the_same_user_while_there_is_room() {
    let mut world = World::new(8);
    let alice = world.join("alice");
    let bob = world.join("bob");
    let new = world.begin_link("alice");
    let request = world.client(new).link_request().unwrap();
    let refused = |client: &Client, request: &str| {
        let error = client.link_device(request, false).unwrap_err();
        assert_eq!(error.code(), "bad_input");
    };
    refused(world.client(bob), &request);
    for worthless in [
        "",
        "sprag-link:",
        "sprag-link:AAAA",
        &request[..request.len() - 1],
        &request[1..],
    ] {
        refused(world.client(alice), worthless);
    }
    assert_eq!(states(&world, alice).len(), 1);
    world.client(alice).link_device(&request, false).unwrap();
    refused(world.client(alice), &request);
    world.settle();
    refused(world.client(alice), &request);
    assert!(world.client(new).is_linked().unwrap());
    // One that is no holder adds and removes nobody.
    let other = world.begin_link("alice");
    let other_request = world.client(other).link_request().unwrap();
    refused(world.client(new), &other_request);
    let first = world.client(alice).device().unwrap();
    let code = world.client(new).remove_device(first).unwrap_err();
    assert_eq!(code.code(), "bad_input");
    let code = world.client(alice).remove_device(first).unwrap_err();
    assert_eq!(code.code(), "bad_input", "not itself");
    assert_eq!(
        world
            .client(alice)
            .remove_device(77_777)
            .unwrap_err()
            .code(),
        "bad_input"
    );
    assert_eq!(
        world
            .client(alice)
            .set_holder(first, false)
            .unwrap_err()
            .code(),
        "bad_input"
    );
}

#[test]
fn a_thirty_third_device_is_refused() {
    use rand_core::SeedableRng;
    let mut world = World::new(9);
    let alice = world.join("alice");
    let mut rng = rand_chacha::ChaCha20Rng::seed_from_u64(9);
    let mut request = || {
        let pair = sprag_crypto::IdentityKeyPair::generate(&mut rng);
        let user = sprag::UserId::new("alice").unwrap();
        LinkRequest::new(user, *pair.public(), [7; 32])
            .to_text()
            .to_string()
    };
    for _ in 1..32 {
        world.client(alice).link_device(&request(), false).unwrap();
    }
    let error = world
        .client(alice)
        .link_device(&request(), false)
        .unwrap_err();
    assert_eq!(error.code(), "bad_input");
    for _ in 0..40 {
        let publish: Vec<_> = world.tasks(alice);
        for task in publish
            .iter()
            .filter(|task| matches!(task, Task::PublishDevices { .. }))
        {
            world.perform(alice, task);
        }
    }
    assert_eq!(epoch(&world, "alice"), 32);
    assert_eq!(states(&world, alice).len(), 32);
    let error = world
        .client(alice)
        .link_device(&request(), false)
        .unwrap_err();
    assert_eq!(error.code(), "bad_input");
}

#[test]
fn a_code_ends_after_ten_minutes_and_a_listed_device_without_keys_after_a_day() {
    let mut world = World::new(10);
    let alice = world.join("alice");
    let new = world.begin_link("alice");
    world.wait(600_000);
    assert!(world.client(new).link_request().is_ok());
    world.wait(1);
    let client = world.client(new).clone();
    assert_eq!(client.link_request().unwrap_err().code(), "link_expired");
    assert_eq!(client.is_linked().unwrap_err().code(), "link_expired");
    assert_eq!(client.address().unwrap_err().code(), "link_expired");
    assert!(client.tasks().unwrap().is_empty());
    world.restart(new);
    assert_eq!(
        world.client(new).tasks().unwrap_err().code(),
        "link_expired"
    );

    // On the list, but the keys do not come for a day.
    let new = world.begin_link("alice");
    let request = world.client(new).link_request().unwrap();
    let number = world.client(alice).link_device(&request, false).unwrap();
    world.work(alice);
    world.work(new);
    world.wait(3_001);
    world.work(alice);
    world.wait(86_400_001);
    let share = world.waiting(new);
    assert_eq!(share.len(), 1);
    let client = world.client(new).clone();
    let late = client.receive_encrypted_message(&share[0].1).unwrap_err();
    assert_eq!(late.code(), "link_expired");
    assert!(client.tasks().unwrap().is_empty());
    assert_eq!(client.tasks().unwrap_err().code(), "link_expired");
    assert_eq!(
        client
            .send_encrypted_message("bob", b"?")
            .unwrap_err()
            .code(),
        "link_expired"
    );
    world.restart(new);
    let client = world.client(new).clone();
    let late = client.receive_encrypted_message(&share[0].1).unwrap_err();
    assert_eq!(late.code(), "link_expired");
    assert!(told!(world, new, Event::LinkEnded { device, .. } if *device == Some(number)));
    // The holder gives up, too, and can take it off again.
    world.wait(600_001);
    world.tasks(alice);
    assert!(told!(world, alice, Event::LinkEnded { device, .. } if *device == Some(number)));
    world.client(alice).remove_device(number).unwrap();
    world.settle();
    assert_eq!(states(&world, alice).len(), 1);
}

#[test]
fn a_lost_share_is_made_anew_and_not_repeated() {
    let mut world = World::new(11);
    let alice = world.join("alice");
    let new = world.begin_link("alice");
    let request = world.client(new).link_request().unwrap();
    world.client(alice).link_device(&request, false).unwrap();
    for who in [alice, new] {
        world.work(who);
    }
    world.wait(3_001);
    world.work(alice);
    // The server lost it, and begins anew.
    for (id, _) in world.waiting(new) {
        world.forget(new, &id);
    }
    world.client(alice).server_epoch(&[1; 16]).unwrap();
    world.settle();
    assert!(world.client(new).is_linked().unwrap());
}

#[test]
fn a_removed_device_falls_silent_and_contacts_stop_without_being_written_to() {
    let (mut world, alice, laptop, bob) = company(12);
    let number = world.client(laptop).device().unwrap();
    world.send(laptop, "bob", b"from the laptop");
    world.settle();
    world.client(alice).remove_device(number).unwrap();
    assert!(states(&world, alice).contains(&(number, false, OwnDeviceState::Removing)));
    // Only alice's phone works: she writes nothing, and bob hears of it all the same.
    world.work(alice);
    world.poll(bob);
    let contact = world.client(bob).contact("alice").unwrap().unwrap();
    assert_eq!(contact.devices, [world.client(alice).device().unwrap()]);
    let before = world.waiting(laptop).len();
    world.send(bob, "alice", b"not for the laptop");
    world.work(bob);
    world.send(alice, "bob", b"nor this");
    world.work(alice);
    assert_eq!(world.waiting(laptop).len(), before);
    // The laptop, which knows nothing yet, is not heard.
    world.send(laptop, "bob", b"I am still alice");
    world.work(laptop);
    let heard = world.heard(bob).len();
    world.poll(bob);
    world.read(bob);
    assert!(
        world.heard(bob)[heard..]
            .iter()
            .all(|said| said.1 != b"I am still alice")
    );
    world.settle();
    assert!(
        !world
            .heard(bob)
            .iter()
            .any(|said| said.1 == b"I am still alice")
    );
    // Once it learns, it sends nothing.
    if !told!(world, laptop, Event::DeviceRemoved { .. }) {
        world.wait(86_400_001);
        world.send(laptop, "bob", b"a day later");
        world.settle();
    }
    assert!(told!(world, laptop, Event::DeviceRemoved { device, .. } if *device == number));
    let refused = world.client(laptop).send_encrypted_message("bob", b"?");
    assert_eq!(refused.unwrap_err().code(), "unlisted_device");
    assert!(!world.heard(bob).iter().any(|said| said.1 == b"a day later"));
}

#[test]
fn a_list_that_nothing_brought_for_a_day_is_fetched_before_the_next_send() {
    let (mut world, alice, laptop, bob) = company(13);
    let number = world.client(laptop).device().unwrap();
    world.client(alice).remove_device(number).unwrap();
    // The server took the list, and then alice is silent: bob hears nothing.
    let publish = world.tasks(alice).remove(0);
    world.perform(alice, &publish);
    world.wait(86_400_001);
    let id = world.send(bob, "alice", b"for alice alone");
    let tasks = world.tasks(bob);
    assert!(
        tasks
            .iter()
            .all(|task| !matches!(task, Task::Deliver { .. })),
        "{tasks:?}"
    );
    world.work(bob);
    let status = world.client(bob).status(id).unwrap().unwrap();
    assert_eq!(status.len(), 1, "{status:?}");
    // If the list cannot be fetched, the message goes out all the same.
    for failure in [
        None,
        Some(sprag::Failure::NotYet(10)),
        Some(sprag::Failure::Refused(1)),
    ] {
        world.wait(86_400_001);
        let id = world.send(bob, "alice", b"whatever comes");
        let tasks = world.tasks(bob);
        let fetch = tasks
            .iter()
            .find(|task| matches!(task, Task::FetchDevices { .. }));
        let fetch = fetch.unwrap().id();
        assert!(
            !tasks
                .iter()
                .any(|task| matches!(task, Task::Deliver { .. }))
        );
        match failure {
            None => world.wait(60_001),
            Some(failure) => world.client(bob).failed(fetch, &failure).unwrap(),
        }
        let tasks = world.tasks(bob);
        assert!(
            tasks
                .iter()
                .any(|task| matches!(task, Task::Deliver { .. })),
            "{tasks:?}"
        );
        world.work(bob);
        let status = world.client(bob).status(id).unwrap().unwrap();
        assert_eq!(status.len(), 1);
        world.client(bob).retry(fetch).unwrap();
        world.work(bob);
    }
}

#[test]
fn a_device_that_becomes_a_holder_is_given_the_key_and_adds_others() {
    let (mut world, alice, laptop, _) = company(14);
    let number = world.client(laptop).device().unwrap();
    world.client(alice).set_holder(number, true).unwrap();
    world.settle();
    let third = world.begin_link("alice");
    world.link(laptop, third, false);
    world.settle();
    assert_eq!(states(&world, alice).len(), 3);
    // And the other way round: then it adds nobody.
    world.client(alice).set_holder(number, false).unwrap();
    world.settle();
    let fourth = world.begin_link("alice");
    let request = world.client(fourth).link_request().unwrap();
    let refused = world.client(laptop).link_device(&request, false);
    assert_eq!(refused.unwrap_err().code(), "bad_input");
}

#[test]
fn memory_keys_are_shared_and_a_removal_makes_a_generation_without_the_removed() {
    let (mut world, alice, laptop, _) = company(15);
    let third = world.begin_link("alice");
    world.link(alice, third, false);
    world.settle();
    let keys = |world: &mut World, who: Who| {
        let mut found = (None, Vec::new());
        world.edit_rows(who, |rows| {
            let device = sprag_session::Device::load(rows).unwrap().unwrap();
            let root = device.account_root(rows).unwrap().map(|root| *root);
            let all = device.generations(rows).unwrap();
            let all = all.iter().map(|one| (one.epoch, one.number, one.key));
            found = (root, all.collect());
        });
        found
    };
    let first = keys(&mut world, alice);
    assert!(first.0.is_some());
    assert_eq!(first.1.len(), 1);
    assert_eq!(keys(&mut world, laptop), first);
    assert_eq!(keys(&mut world, third), first);
    let number = world.client(laptop).device().unwrap();
    world.client(alice).remove_device(number).unwrap();
    world.settle();
    let second = keys(&mut world, alice);
    assert_eq!(second.1.len(), 2);
    assert_eq!(
        (second.1[1].0, second.1[1].1),
        (4, 1),
        "epoch of the new list"
    );
    assert_eq!(keys(&mut world, third), second);
    assert_eq!(
        keys(&mut world, laptop),
        first,
        "the removed device has none of it"
    );
}

#[test]
fn accepting_names_what_was_compared() {
    let mut world = World::new(16);
    let (alice, bob) = (world.join("alice"), world.join("bob"));
    world.send(alice, "bob", b"1");
    world.settle();
    world.send(bob, "alice", b"2");
    world.settle();
    let number = world.client(alice).safety_number("bob").unwrap().unwrap();
    let mut wrong = number.digits.clone();
    let last = if wrong.ends_with('0') { "1" } else { "0" };
    wrong.replace_range(59.., last);
    let refused = world.client(alice).accept_identity("bob", &wrong);
    assert_eq!(refused.unwrap_err().code(), "untrusted_identity");
    let refused = world.client(alice).accept_identity("bob", "");
    assert_eq!(refused.unwrap_err().code(), "untrusted_identity");
    let refused = world
        .client(alice)
        .accept_identity("nobody", &number.digits);
    assert_eq!(refused.unwrap_err().code(), "needs_bundle");
    world
        .client(alice)
        .accept_identity("bob", &number.digits)
        .unwrap();
}
