//! Disks that fail: at any step of any commit, when they are full, and when the power goes. What was acknowledged is there,
//! the step in doubt is there wholly or not at all, and nothing goes on over a failure.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::cast_possible_truncation,
    reason = "a test fails by panicking"
)]

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;
use sprag::store::faults::{Fault, Faults};
use sprag::store::{BackendError, Store};
use sprag::{Client, Error, Key, MessageId, Surroundings};
use sprag_tests::verbs::{every_verb, further_verbs};
use sprag_tests::world::{BEGINNING, Weather, Who, World};

const FAULTS: [Fault; 4] = [
    Fault::BeforeApply,
    Fault::AfterApply,
    Fault::AfterFlush,
    Fault::AfterSync,
];

/// How a disk fails.
#[derive(Debug, Clone, Copy)]
enum How {
    Error,
    Full,
    Panic,
}

fn rng() -> ChaCha20Rng {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).unwrap();
    ChaCha20Rng::from_seed(seed)
}

fn surroundings() -> Surroundings {
    Surroundings::new(|| BEGINNING, rng())
}

/// Fails once, at a step of the `nth` commit from now.
fn once(fault: Fault, nth: usize, how: How) -> Faults {
    let seen = Arc::new(AtomicUsize::new(0));
    Faults::new(move |at| {
        if at != fault || seen.fetch_add(1, Ordering::SeqCst) + 1 != nth {
            return Ok(());
        }
        match how {
            How::Error => Err(BackendError::from(std::io::Error::other("cable"))),
            How::Full => Err(BackendError::from(std::io::Error::from(
                ErrorKind::StorageFull,
            ))),
            How::Panic => panic!("a bug of the database"),
        }
    })
}

/// What an application saw of its client until the disk failed.
#[derive(Default)]
struct Seen {
    sent: Vec<MessageId>,
    /// The message whose sending nobody knows the end of.
    in_doubt: Option<MessageId>,
    opened: Vec<Vec<u8>>,
}

/// Sends, works, receives and acknowledges over a faulty disk, until that is noticed.
fn until_it_fails(world: &mut World, alice: Who, client: &Client, seen: &mut Seen) -> Error {
    let address = world.address(alice).clone();
    for _ in 0..100 {
        let id = client.new_message_id().unwrap();
        let text = id.to_string();
        seen.in_doubt = Some(id);
        if let Err(error) = client.send_encrypted_message_as(id, "bob", text.as_bytes()) {
            return error;
        }
        seen.in_doubt = None;
        seen.sent.push(id);
        for (id, envelope) in world.server().fetch(&address, 10).unwrap() {
            match client.receive_encrypted_message(&envelope) {
                Ok(received) => {
                    for message in received.messages() {
                        seen.opened.push(message.bytes().to_vec());
                    }
                    world.forget(alice, &id);
                }
                Err(error) => return error,
            }
        }
    }
    panic!("the disk does not fail");
}

#[test]
fn a_fault_at_any_step_of_any_commit_poisons_every_verb_and_loses_nothing() {
    let mut world = World::on_disk(1);
    let (alice, bob) = (world.join("alice"), world.join("bob"));
    world.send(alice, "bob", b"hello");
    world.settle();
    world.send(bob, "alice", b"hello yourself");
    world.settle();
    let path = world.path(alice).to_owned();
    let (mut told, mut sent, mut there) = (0, BTreeSet::new(), 0);
    for (number, fault) in FAULTS.into_iter().cycle().take(36).enumerate() {
        let (nth, how) = (
            1 + number / 4 % 5,
            [How::Error, How::Full, How::Panic][number % 3],
        );
        let what = format!("{how:?} {fault:?} of commit {nth}");
        for _ in 0..3 {
            told += 1;
            world.send(bob, "alice", format!("bob {told}").as_bytes());
        }
        world.work(bob);
        world.client(alice).close().unwrap();

        let store =
            Store::open_with_faults(&path, &Key::raw([5; 32]), rng(), once(fault, nth, how));
        let client = Client::with_store(store.unwrap(), "alice", surroundings()).unwrap();
        let mut seen = Seen::default();
        let error = until_it_fails(&mut world, alice, &client, &mut seen);
        let codes: &[&str] = match how {
            How::Error => &["store_failed"],
            How::Full => &["store_full"],
            How::Panic => &["store_damaged"],
        };
        assert!(codes.contains(&error.code()), "{what}: {error}");
        assert!(matches!(how, How::Panic) || error.is_in_doubt(), "{what}");
        for (name, verb) in every_verb(&client) {
            assert_eq!(
                verb().unwrap_err().code(),
                "store_poisoned",
                "{what}: {name}"
            );
        }
        for (name, outcome) in further_verbs(&client) {
            // These ask the client alone.
            if !["user", "device", "new_message_id", "changed"].contains(&name) {
                assert_eq!(
                    outcome.unwrap_err().code(),
                    "store_poisoned",
                    "{what}: {name}"
                );
            }
        }
        assert_eq!(client.close().unwrap_err().code(), "store_poisoned");
        drop(client);

        world.restart(alice);
        let client = world.client(alice);
        for id in &seen.sent {
            assert!(
                client.status(*id).unwrap().is_some(),
                "{what}: a message is gone"
            );
        }
        let inbox = client.inbox().unwrap();
        for bytes in &seen.opened {
            let offered = inbox.iter().filter(|message| message.bytes() == bytes);
            assert_eq!(
                offered.count(),
                1,
                "{what}: what was opened is not offered again"
            );
        }
        if let Some(id) = seen.in_doubt {
            // There, or not; then it is sent now. Either way it arrives once.
            let found = client.status(id).unwrap().is_some();
            assert_eq!(found, fault != Fault::BeforeApply, "{what}");
            there += usize::from(found);
            let text = id.to_string();
            let again = client.send_encrypted_message_as(id, "bob", text.as_bytes());
            assert_eq!(again.unwrap(), id);
            sent.insert(text.into_bytes());
        }
        sent.extend(seen.sent.iter().map(|id| id.to_string().into_bytes()));
        world.settle();
    }
    let heard: Vec<_> = world
        .heard(bob)
        .into_iter()
        .map(|(_, text)| text)
        .skip(1)
        .collect();
    assert_eq!(
        heard.len(),
        sent.len(),
        "something came twice, or not at all"
    );
    assert_eq!(heard.into_iter().collect::<BTreeSet<_>>(), sent);
    let mut heard: Vec<_> = world
        .heard(alice)
        .into_iter()
        .map(|(_, text)| text)
        .skip(1)
        .collect();
    heard.sort();
    let mut expected: Vec<_> = (1..=told)
        .map(|n| format!("bob {n}").into_bytes())
        .collect();
    expected.sort();
    assert_eq!(heard, expected);
    assert!(there > 0);
}

// A full disk.

const SMALL: &str = "SPRAG_TEST_SMALL_DISK";

fn key() -> Key {
    Key::raw([7; 32])
}

/// Writes a file until there is hardly any room left.
fn fill(path: &Path) {
    let mut file = std::fs::File::create(path).unwrap();
    for size in [1 << 16, 1 << 12, 1 << 8, 1] {
        while std::io::Write::write_all(&mut file, &vec![1; size]).is_ok() {}
    }
    let full = file.metadata().unwrap().len();
    file.set_len(full - (256 << 10)).unwrap();
}

/// The child, on a disk of a few MiB: not a test of its own, but this program started again.
#[test]
fn child_on_a_small_disk() {
    let Some(disk) = std::env::var_os(SMALL) else {
        return;
    };
    let disk = Path::new(&disk);
    let (home, filler) = (disk.join("alice"), disk.join("filler"));
    let mut sent: Vec<MessageId> = Vec::new();
    for round in 0..4 {
        let alice = Client::open_or_create(&home, key(), "alice").unwrap();
        for id in &sent {
            assert!(alice.status(*id).unwrap().is_some(), "round {round}: lost");
        }
        fill(&filler);
        let error = loop {
            match alice.send_encrypted_message("bob", &[b'x'; 300]) {
                Ok(id) => sent.push(id),
                Err(error) => break error,
            }
        };
        assert_eq!(error.code(), "store_full", "round {round}");
        for (name, verb) in every_verb(&alice) {
            let error = verb().unwrap_err();
            assert_eq!(error.code(), "store_poisoned", "round {round}: {name}");
        }
        let _ = alice.close();
        drop(alice);
        // Room again, and everything is there.
        std::fs::remove_file(&filler).unwrap();
    }
    let alice = Client::open(&home, key()).unwrap();
    assert!(!sent.is_empty());
    for id in &sent {
        assert!(alice.status(*id).unwrap().is_some(), "lost at the end");
    }
    std::fs::write(disk.join("well"), sent.len().to_string()).unwrap();
    println!(
        "on a full disk {} messages were sent and none lost",
        sent.len()
    );
}

/// Needs a name space of its own, in which a small file system can be mounted: `unshare` of Linux gives one to users, too.
#[test]
#[cfg(target_os = "linux")]
fn full_disk_poisons_and_loses_nothing_and_there_is_a_way_back() {
    let dir = tempfile::tempdir().unwrap();
    let script = "mount -t tmpfs -o size=12m tmpfs \"$1\" || exit 77
        \"$2\" --exact child_on_a_small_disk --nocapture --test-threads=1 && test -s \"$1/well\"";
    let status = Command::new("unshare")
        .args(["--mount", "--map-root-user", "sh", "-c", script, "sh"])
        .arg(dir.path())
        .arg(std::env::current_exe().unwrap())
        .env(SMALL, dir.path())
        .stdin(Stdio::null())
        .status();
    match status {
        Ok(status) if status.success() => {}
        // What is tested of it everywhere is above: `How::Full`.
        Ok(status) if [Some(77), Some(1)].contains(&status.code()) && !can_unshare() => {
            println!(
                "NOT TESTED: this system gives no name space to mount a small disk in ({status})"
            );
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {
            println!("NOT TESTED: this system has no `unshare`");
        }
        outcome => panic!("{outcome:?}"),
    }
}

#[cfg(target_os = "linux")]
fn can_unshare() -> bool {
    let mut command = Command::new("unshare");
    command.args([
        "--mount",
        "--map-root-user",
        "sh",
        "-c",
        "mount -t tmpfs tmpfs /tmp",
    ]);
    command.status().is_ok_and(|status| status.success())
}

// A power cut.

fn seeds(usual: u64) -> u64 {
    let many = std::env::var("SPRAG_SEEDS").ok();
    many.and_then(|many| many.parse().ok()).unwrap_or(usual)
}

/// Whatever verbs were under way, and however many of their batches the disk had taken before the power went.
#[test]
fn power_cuts_in_the_middle_of_anything_undo_only_what_nobody_was_told() {
    for seed in 0..seeds(3) {
        let mut world = World::new(seed);
        let users = ["alice", "bob", "carol"];
        let devices = users.map(|user| world.join(user));
        for who in devices {
            for user in users {
                if world.address(who).user().as_str() != user {
                    world.send(who, user, format!("hello {user} from {who:?}").as_bytes());
                }
            }
        }
        world.settle();
        world.set_weather(Weather::ROUGH);
        let mut texts: BTreeSet<(String, Vec<u8>)> = BTreeSet::new();
        let mut before = devices.map(|who| world.heard(who).len());
        for step in 0..150_u32 {
            let place = world.below(3);
            let (who, to) = (devices[place], users[(place + 1 + world.below(2)) % 3]);
            match world.below(8) {
                0..3 => {
                    let text = format!("{step}").into_bytes();
                    world.send(who, to, &text);
                    texts.insert((to.to_owned(), text));
                }
                3..5 => drop(world.work(who)),
                5..7 => {
                    world.poll(who);
                    world.read(who);
                }
                _ => {
                    // Sends under way: their ids are known, so that they can be sent again.
                    let ids: Vec<_> = (0..3)
                        .map(|n| {
                            let id = u128::from(step) << 8 | n;
                            MessageId::from_bytes(id.to_be_bytes())
                        })
                        .collect();
                    let envelopes: Vec<_> = world.waiting(who).into_iter().take(3).collect();
                    let kept = world.below(7);
                    world.power_cut(who, kept, |client| {
                        for id in &ids {
                            let text = id.to_string();
                            let sending =
                                client
                                    .start()
                                    .send_encrypted_message_as(*id, to, text.as_bytes());
                            let told = sending.wait_timeout(Duration::ZERO);
                            assert!(told.is_err(), "told before it was on the disk");
                        }
                        for (_, envelope) in &envelopes {
                            drop(client.start().receive_encrypted_message(envelope));
                        }
                    });
                    for id in ids {
                        let text = id.to_string().into_bytes();
                        let again = world.client(who).send_encrypted_message_as(id, to, &text);
                        assert_eq!(again.unwrap(), id);
                        texts.insert((to.to_owned(), text));
                    }
                }
            }
        }
        world.settle();
        for (place, who) in devices.into_iter().enumerate() {
            let heard: Vec<_> = world
                .heard(who)
                .split_off(std::mem::take(&mut before[place]));
            let set: BTreeSet<_> = heard.iter().map(|(_, text)| text.clone()).collect();
            assert_eq!(heard.len(), set.len(), "seed {seed}: something came twice");
            let expected = texts.iter().filter(|(to, _)| to == users[place]);
            let expected: BTreeSet<_> = expected.map(|(_, text)| text.clone()).collect();
            assert_eq!(set, expected, "seed {seed}, {}", users[place]);
        }
    }
}
