//! Attachments: sealed apart, named in a message, fetched by parts.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "a test fails by panicking"
)]

use std::collections::BTreeSet;
use std::io::{self, Read, Write};
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex};

use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;
use sprag::store::Rows;
use sprag::{Attachment, Client, OpenedAttachment, Task};
use sprag_crypto::sha256;
use sprag_directory::DirectoryError;
use sprag_tests::shelf::Shelf;
use sprag_tests::world::{Who, World};
use sprag_vault::{Context, DataKey, Recipient, Sealing, Suite, seal};
use sprag_wire::padme;

const PART: usize = 4 << 20;

/// Bytes that do not repeat, and have a mark in them.
fn bytes(length: usize) -> Vec<u8> {
    let mut bytes: Vec<u8> = (0..length)
        .map(|at| (at ^ (at >> 8) ^ (at >> 16)) as u8)
        .collect();
    for (at, mark) in bytes.iter_mut().zip(MARK) {
        *at = *mark;
    }
    bytes
}

const MARK: &[u8] = b"this must be nowhere in clear";

fn two(seed: u64) -> (World, Who, Who) {
    let mut world = World::new(seed);
    let (alice, bob) = (world.join("alice"), world.join("bob"));
    (world, alice, bob)
}

/// Alice attaches, and tells Bob, who takes the descriptor out of her message.
fn send(world: &mut World, alice: Who, bob: Who, content: &[u8]) -> Attachment {
    let attachment = (world.client(alice))
        .attach(content, "image/png", "cat.png")
        .unwrap();
    world.send(alice, "bob", &attachment.to_bytes());
    world.settle();
    let heard = world.heard(bob);
    let received = Attachment::from_bytes(&heard.last().unwrap().1).unwrap();
    assert_eq!(received.to_bytes(), attachment.to_bytes());
    received
}

/// Opens an attachment, doing what it asks of the network.
fn open(world: &mut World, who: Who, attachment: &Attachment) -> Vec<u8> {
    for _ in 0..3 {
        let mut written = Vec::new();
        let opened = (world.client(who))
            .open_attachment(attachment, &mut written)
            .unwrap();
        if opened == OpenedAttachment::Written {
            return written;
        }
        assert!(written.is_empty());
        world.work(who);
    }
    panic!("not opened");
}

/// Rows that hold parts, and those that say which belong together.
fn held(world: &mut World, who: Who) -> usize {
    let mut count = 0;
    world.edit_rows(who, |rows| {
        for table in [0x62, 0x66, 0x70] {
            rows.scan(
                &sprag::store::RowName::plain(table, Vec::new()),
                &mut |_, _| {
                    count += 1;
                    ControlFlow::Continue(())
                },
            )
            .unwrap();
        }
    });
    count
}

#[test]
fn whatever_length_it_has_an_attachment_comes_out_as_it_went_in() {
    let (mut world, alice, bob) = two(1);
    let eve = world.join("eve");
    for length in [
        0,
        1,
        159,
        160,
        65_535,
        65_536,
        65_537,
        PART - 200_000,
        PART,
        2 * PART + 1,
    ] {
        let content = bytes(length);
        let attachment = send(&mut world, alice, bob, &content);
        assert_eq!(attachment.size(), length as u64);
        assert_eq!(attachment.media_type(), "image/png");
        assert_eq!(attachment.file_name(), "cat.png");
        assert!(open(&mut world, bob, &attachment) == content, "{length}");
        // The sender can open it too, and whoever has the descriptor.
        assert!(open(&mut world, alice, &attachment) == content);
        assert!(open(&mut world, eve, &attachment) == content);
        for who in [alice, bob, eve] {
            world.client(who).forget_attachment(&attachment).unwrap();
        }
    }
    for who in [alice, bob, eve] {
        assert_eq!(held(&mut world, who), 0);
    }
}

#[test]
fn all_verbs_have_a_form_that_waits_for_nothing() {
    let (mut world, alice, bob) = two(2);
    let content = bytes(70_000);
    let from = io::Cursor::new(content.clone());
    let client = world.client(alice);
    let attachment = client.start().attach(from, "", "").wait().unwrap();
    let parts = client.start().attachment_parts(&attachment).wait().unwrap();
    assert_eq!((parts.all, parts.here, parts.leaving), (1, 1, 1));
    world.settle();
    let client = world.client(alice);
    let parts = client.attachment_parts(&attachment).unwrap();
    assert_eq!((parts.all, parts.here, parts.leaving), (1, 0, 0));
    let (opened, written) = (world.client(bob).start())
        .open_attachment(&attachment, Vec::new())
        .wait()
        .unwrap();
    let OpenedAttachment::Waiting(parts) = opened else {
        panic!("{opened:?}");
    };
    assert_eq!((parts.all, parts.here, parts.asked), (1, 0, 1));
    assert!(written.is_empty());
    world.work(bob);
    let client = world.client(bob);
    let opened = client.start().open_attachment(&attachment, written).wait();
    let (opened, written) = opened.unwrap();
    assert_eq!(opened, OpenedAttachment::Written);
    assert!(written == content);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cat");
    client
        .start()
        .save_attachment(&attachment, &path)
        .wait()
        .unwrap();
    assert!(std::fs::read(path).unwrap() == content);
    client
        .start()
        .forget_attachment(&attachment)
        .wait()
        .unwrap();
    client.start().drop_attachment(&attachment).wait().unwrap();
    client.close().unwrap();
    let closed = client.start().attach(io::empty(), "", "").wait();
    assert_eq!(closed.unwrap_err().code(), "closed");
    let closed = client
        .start()
        .open_attachment(&attachment, Vec::new())
        .wait();
    assert_eq!(closed.unwrap_err().code(), "closed");
}

/// The blob and the descriptor that `docs/ATTACHMENTS.md` says, without the library.
struct Handmade {
    payload: Vec<u8>,
    size: u64,
    context: Vec<(&'static str, &'static str)>,
    key: DataKey,
    extra: &'static [u8],
}

impl Handmade {
    fn of(content: &[u8]) -> Self {
        let mut payload = content.to_vec();
        payload.push(0x80);
        payload.resize(padme(content.len() + 1), 0);
        Self {
            payload,
            size: content.len() as u64,
            context: vec![
                ("kind", "attachment"),
                ("media_type", "text/plain"),
                ("name", "note"),
                ("schema", "1"),
            ],
            key: DataKey::from_bytes(&[5; 32]),
            extra: b"",
        }
    }

    /// Puts it at the server, and describes it.
    fn put(&self, world: &World, who: Who) -> Attachment {
        let context = Context::from_pairs(self.context.iter().copied()).unwrap();
        let to = [Recipient::direct("")];
        let sealing = Sealing::new(&self.key, &to)
            .context(&context)
            .suite(Suite::Aes256Gcm);
        let mut blob = seal(&self.payload, &sealing, &mut ChaCha20Rng::seed_from_u64(1)).unwrap();
        blob.extend_from_slice(self.extra);
        let mut descriptor = vec![1];
        descriptor.extend([5; 32]);
        descriptor.extend(self.size.to_be_bytes());
        descriptor.extend(b"\x0atext/plain\x04note");
        for part in blob.chunks(PART) {
            let name = sha256(&[part]);
            let user = world.address(who).user();
            world.server().put_blob(user, &name, part).unwrap();
            descriptor.extend(name);
        }
        Attachment::from_bytes(&descriptor).unwrap()
    }
}

#[test]
fn attachment_made_by_hand_from_the_text_opens() {
    let (mut world, alice, bob) = two(3);
    for length in [0, 5, 159, 100_000, PART + 5] {
        let content = bytes(length);
        let attachment = Handmade::of(&content).put(&world, alice);
        assert!(open(&mut world, bob, &attachment) == content, "{length}");
    }
}

/// Has Bob open what is not good, and sees that nothing of it is written.
fn damaged(world: &mut World, bob: Who, attachment: &Attachment, what: &str) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cat");
    for _ in 0..3 {
        let mut written = Vec::new();
        let client = world.client(bob);
        let opened = client.open_attachment(attachment, &mut written);
        let saved = client.save_attachment(attachment, &path);
        assert!(written.is_empty(), "{what}");
        assert_eq!(
            std::fs::read_dir(folder.path()).unwrap().count(),
            0,
            "{what}"
        );
        match opened {
            Err(error) => {
                assert_eq!(error.code(), "attachment_damaged", "{what}");
                assert_eq!(saved.unwrap_err().code(), "attachment_damaged", "{what}");
                client.forget_attachment(attachment).unwrap();
                return;
            }
            Ok(OpenedAttachment::Waiting(_)) => {}
            Ok(other) => panic!("{what}: {other:?}"),
        }
        world.work(bob);
    }
    panic!("{what}: not opened");
}

#[test]
fn attachment_that_is_not_what_its_descriptor_says_writes_nothing() {
    let (mut world, alice, bob) = two(4);
    let content = bytes(70_000);
    let good = || Handmade::of(&content);
    let last = good().payload.len() - 1;

    let mut cases = Vec::new();
    let mut case = |what: &'static str, edit: &dyn Fn(&mut Handmade)| {
        let mut made = good();
        edit(&mut made);
        cases.push((what, made));
    };
    case("one byte less than named", &|made| made.size += 1);
    case("one byte more than named", &|made| made.size -= 1);
    case("no mark", &|made| made.payload[70_000] = 0);
    case("another mark", &|made| made.payload[70_000] = 0x81);
    case("a byte in the padding", &|made| made.payload[last] = 1);
    case("a byte first in the padding", &|made| {
        made.payload[70_001] = 1
    });
    case("less padding", &|made| {
        made.payload.pop();
    });
    case("more padding", &|made| made.payload.push(0));
    case("no padding", &|made| made.payload.truncate(70_001));
    case("cut in the content", &|made| made.payload.truncate(65_536));
    case("nothing in it", &|made| made.payload.clear());
    case("another key", &|made| {
        made.key = DataKey::from_bytes(&[6; 32])
    });
    case("another kind", &|made| made.context[0].1 = "memory");
    case("another type", &|made| made.context[1].1 = "text/html");
    case("another name", &|made| made.context[2].1 = "nota");
    case("another schema", &|made| made.context[3].1 = "2");
    case("something behind its end", &|made| made.extra = b"x");
    for (what, made) in cases {
        let attachment = made.put(&world, alice);
        damaged(&mut world, bob, &attachment, what);
    }
    let attachment = good().put(&world, alice);
    assert!(open(&mut world, bob, &attachment) == content);

    // Parts in another order, or of another attachment.
    let one = send(&mut world, alice, bob, &bytes(3 * PART));
    let other = send(&mut world, alice, bob, &bytes(3 * PART - 1));
    let (one, other) = (one.to_bytes(), other.to_bytes());
    let parts = one.len() - 4 * 32;
    let with = |edit: &dyn Fn(&mut Vec<u8>)| {
        let mut edited = one.clone();
        edit(&mut edited);
        Attachment::from_bytes(&edited).unwrap()
    };
    for (what, edited) in [
        (
            "swapped",
            with(&|made| made[parts..parts + 64].rotate_left(32)),
        ),
        (
            "repeated",
            with(&|made| made.copy_within(parts..parts + 32, parts + 32)),
        ),
        ("last first", with(&|made| made[parts..].rotate_right(32))),
        (
            "spliced",
            with(&|made| made[parts + 32..].copy_from_slice(&other[parts + 32..])),
        ),
        (
            "exchanged",
            with(&|made| made[parts..].copy_from_slice(&other[parts..])),
        ),
        ("another key", with(&|made| made[1] ^= 1)),
    ] {
        damaged(&mut world, bob, &edited, what);
    }
}

#[test]
fn whatever_a_server_gives_in_place_of_a_part_is_refused_and_the_right_one_taken() {
    let (mut world, alice, bob) = two(5);
    let content = bytes(PART + 100_000);
    let attachment = send(&mut world, alice, bob, &content);
    let other = send(&mut world, alice, bob, &bytes(PART + 100_001));
    let lies: [fn(&mut Vec<u8>); 6] = [
        |part| part[1000] ^= 1,
        |part| {
            part.pop();
        },
        |part| part.push(0),
        |part| part.clear(),
        |part| *part = vec![0; (64 << 20) + 1],
        |part| part.reverse(),
    ];
    let mut written = Vec::new();
    for lie in lies {
        world
            .client(bob)
            .open_attachment(&attachment, &mut written)
            .unwrap();
        world.let_server_lie(move |task, reply| {
            let mut reply = reply?;
            if matches!(task, Task::GetBlob { .. }) {
                lie(&mut reply);
            }
            Ok(reply)
        });
        let before = world.client(bob).events(0).unwrap().len();
        world.work(bob);
        let events = world.client(bob).events(0).unwrap();
        let refused = events[before..].iter();
        let refused =
            refused.filter(|event| matches!(event.event, sprag::Event::ReplyRefused { .. }));
        assert!(refused.count() >= 2, "{events:?}");
        let parts = world.client(bob).attachment_parts(&attachment).unwrap();
        assert_eq!((parts.here, parts.asked), (0, 2));
        world.let_server_be_honest();
        world.wait(24 * 3_600_000);
    }
    // Another attachment's part is not this one's either.
    let blobs = world.blobs();
    world.let_server_lie(move |task, reply| match task {
        Task::GetBlob { name, .. } => {
            let other = blobs.iter().find(|(other, _)| *other != name);
            Ok(other.unwrap().1.clone())
        }
        _ => reply,
    });
    world.work(bob);
    assert_eq!(
        world
            .client(bob)
            .attachment_parts(&attachment)
            .unwrap()
            .here,
        0
    );
    world.let_server_be_honest();
    world.wait(24 * 3_600_000);
    assert!(written.is_empty());
    assert!(open(&mut world, bob, &attachment) == content);
    assert!(open(&mut world, bob, &other) == bytes(PART + 100_001));
}

#[test]
fn part_that_the_server_does_not_have_is_missing_until_it_has_it() {
    let (mut world, alice, bob) = two(6);
    let content = bytes(2 * PART);
    let attachment = send(&mut world, alice, bob, &content);
    let blobs = world.blobs();
    assert_eq!(blobs.len(), 3);
    let lost = *blobs.keys().next().unwrap();
    world.lose_blob(&lost);
    let mut written = Vec::new();
    let mut seen = Vec::new();
    for _ in 0..4 {
        let opened = world
            .client(bob)
            .open_attachment(&attachment, &mut written)
            .unwrap();
        seen.push(match opened {
            OpenedAttachment::Waiting(parts) => ("waiting", parts.here, parts.missing),
            OpenedAttachment::Missing(parts) => ("missing", parts.here, parts.missing),
            other => panic!("{other:?}"),
        });
        world.work(bob);
    }
    // It asks again each time that it has said so.
    assert_eq!(seen[..2], [("waiting", 0, 0), ("missing", 2, 1)]);
    assert!(
        seen[2..].iter().all(|seen| *seen == ("missing", 2, 1)),
        "{seen:?}"
    );
    assert!(written.is_empty());
    let user = world.address(alice).user();
    world.server().put_blob(user, &lost, &blobs[&lost]).unwrap();
    assert!(open(&mut world, bob, &attachment) == content);
}

#[test]
fn server_sees_neither_bytes_nor_exact_length() {
    let (mut world, alice, bob) = two(7);
    let mut lengths = BTreeSet::new();
    for length in [1_000_000, 1_000_001, 1_007_000] {
        send(&mut world, alice, bob, &bytes(length));
        lengths.extend(world.blobs().values().map(Vec::len));
    }
    assert_eq!(world.blobs().len(), 3);
    assert_eq!(lengths.len(), 1, "{lengths:?}");
    let is_in = |bytes: &[u8]| bytes.windows(MARK.len()).any(|window| window == MARK);
    assert!(is_in(&bytes(100)));
    for blob in world.blobs().values() {
        assert!(!is_in(blob));
    }
    for who in [alice, bob] {
        let rows = world.shelf(who).durable().rows;
        assert!(!rows.is_empty());
        assert!(rows.iter().all(|(_, value)| !is_in(value)));
    }
    for envelope in world.envelopes().values() {
        assert!(!is_in(envelope));
    }
}

/// Gives bytes until something happens at a place.
struct Until<F> {
    rest: usize,
    at: usize,
    then: Option<F>,
}

impl<F: FnOnce() -> io::Result<()>> Read for Until<F> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        if self.rest <= self.at
            && let Some(then) = self.then.take()
        {
            then()?;
        }
        let count = to.len().min(self.rest);
        to[..count].fill(7);
        self.rest -= count;
        Ok(count)
    }
}

#[test]
fn reader_that_fails_leaves_nothing() {
    let (mut world, alice, _) = two(8);
    for left in [0, 1, PART, 2 * PART] {
        let from = Until {
            rest: 2 * PART,
            at: left,
            then: Some(|| Err(io::ErrorKind::BrokenPipe.into())),
        };
        let error = world.client(alice).attach(from, "", "").unwrap_err();
        assert_eq!(error.code(), "input_failed");
        assert!(world.tasks(alice).is_empty());
        assert_eq!(held(&mut world, alice), 0);
    }
    for (media_type, name) in [("\n", ""), ("", "../x"), ("", "a\u{7}")] {
        let error = world.client(alice).attach(io::empty(), media_type, name);
        assert_eq!(error.unwrap_err().code(), "bad_input");
    }
    // One that is interrupted does not fail.
    let from = Until {
        rest: 1000,
        at: 1000,
        then: Some(|| Err(io::ErrorKind::Interrupted.into())),
    };
    assert_eq!(
        world.client(alice).attach(from, "", "").unwrap().size(),
        1000
    );
}

#[test]
fn parts_are_on_the_disk_before_more_is_read() {
    let (world, alice, _) = two(9);
    let shelf = world.shelf(alice).clone();
    let before = shelf.durable().rows.len();
    let seen = Arc::new(Mutex::new(0));
    let from = Until {
        rest: 3 * PART,
        at: PART - 200_000,
        then: Some({
            let seen = seen.clone();
            move || {
                *seen.lock().unwrap() = shelf.durable().rows.len() - before;
                Ok(())
            }
        }),
    };
    world.client(alice).attach(from, "", "").unwrap();
    // Two parts of three are there when the third is about to be read: in rows of 3,900 bytes.
    let rows = 2 * PART / 3_900;
    let seen = *seen.lock().unwrap();
    assert!((rows..rows + 20).contains(&seen), "{seen}, {rows}");
}

#[test]
fn death_while_attaching_leaves_nothing_for_the_server() {
    let (mut world, alice, bob) = two(10);
    let shelf = world.shelf(alice).clone();
    let left: Arc<Mutex<Option<Shelf>>> = Arc::default();
    let from = Until {
        rest: 3 * PART,
        at: PART,
        then: Some({
            let left = left.clone();
            move || {
                *left.lock().unwrap() = Some(shelf.after_power_cut());
                Ok(())
            }
        }),
    };
    world.client(alice).attach(from, "", "").unwrap();
    let left = left.lock().unwrap().take().unwrap();
    world.set_back(alice, left);
    assert!(held(&mut world, alice) > 1_000);
    world.settle();
    assert!(world.blobs().is_empty());
    // The next one clears away what nobody can finish, and upkeep does.
    let copy = world.shelf(alice).after_power_cut();
    let content = bytes(1000);
    let attachment = send(&mut world, alice, bob, &content);
    assert_eq!(world.blobs().len(), 1);
    assert_eq!(held(&mut world, alice), 0);
    assert!(open(&mut world, bob, &attachment) == content);
    world.set_back(alice, copy);
    assert!(held(&mut world, alice) > 1_000);
    world.client(alice).maintain().unwrap();
    assert_eq!(held(&mut world, alice), 0);
}

#[test]
fn attachments_made_at_once_and_upkeep_meanwhile_do_not_disturb_each_other() {
    let (mut world, alice, bob) = two(11);
    let client = world.client(alice).clone();
    let inner = Arc::new(Mutex::new(None));
    let from = Until {
        rest: 2 * PART,
        at: PART / 2,
        then: Some({
            let inner = inner.clone();
            move || {
                client.maintain().unwrap();
                let other = client.attach(&bytes(5_000_000)[..], "", "").unwrap();
                *inner.lock().unwrap() = Some(other);
                Ok(())
            }
        }),
    };
    let outer = world.client(alice).attach(from, "", "").unwrap();
    let inner = inner.lock().unwrap().take().unwrap();
    world.settle();
    assert!(open(&mut world, bob, &outer) == vec![7; 2 * PART]);
    assert!(open(&mut world, bob, &inner) == bytes(5_000_000));
    assert_eq!(held(&mut world, alice), 0);
}

#[test]
fn attachment_that_was_made_survives_a_crash_and_goes_to_the_server() {
    let (mut world, alice, bob) = two(12);
    let content = bytes(PART + 1);
    let attachment = world.client(alice).attach(&content[..], "", "").unwrap();
    world.crash(alice);
    let parts = world.client(alice).attachment_parts(&attachment).unwrap();
    assert_eq!((parts.all, parts.here, parts.leaving), (2, 2, 2));
    // Before the server has it, it opens from what is held here.
    let mut written = Vec::new();
    let opened = world
        .client(alice)
        .open_attachment(&attachment, &mut written);
    assert_eq!(opened.unwrap(), OpenedAttachment::Written);
    assert!(written == content);
    // A crash between handing over and hearing of it: handed over again.
    for task in world.tasks(alice) {
        if let Task::PutBlob { name, bytes, .. } = &task {
            assert_eq!(sha256(&[bytes]), *name);
            let user = world.address(alice).user();
            world.server().put_blob(user, name, bytes).unwrap();
        }
    }
    world.crash(alice);
    world.settle();
    assert_eq!(world.blobs().len(), 2);
    assert_eq!(held(&mut world, alice), 0);
    assert!(open(&mut world, bob, &attachment) == content);
    world.crash(bob);
    // Parts that came stay, also after a crash, and nobody is asked for them again.
    let mut written = Vec::new();
    let opened = world.client(bob).open_attachment(&attachment, &mut written);
    assert_eq!(opened.unwrap(), OpenedAttachment::Written);
}

#[test]
fn forgotten_parts_leave_the_store() {
    let (mut world, alice, bob) = two(13);
    // One that has not gone to the server does not go there any more.
    let taken_back = world
        .client(alice)
        .attach(&bytes(PART)[..], "", "")
        .unwrap();
    for _ in 0..2 {
        world.client(alice).forget_attachment(&taken_back).unwrap();
    }
    assert!(world.tasks(alice).is_empty());
    assert_eq!(held(&mut world, alice), 0);
    world.settle();
    assert!(world.blobs().is_empty());
    // One that was asked for is not asked for any more.
    let attachment = send(&mut world, alice, bob, &bytes(PART));
    let mut written = Vec::new();
    world
        .client(bob)
        .open_attachment(&attachment, &mut written)
        .unwrap();
    assert_eq!(world.tasks(bob).len(), 2);
    world.client(bob).forget_attachment(&attachment).unwrap();
    assert!(world.tasks(bob).is_empty());
    // One that is here goes, and can be fetched again.
    open(&mut world, bob, &attachment);
    assert!(held(&mut world, bob) > 1_000);
    world.client(bob).forget_attachment(&attachment).unwrap();
    assert_eq!(held(&mut world, bob), 0);
    assert_eq!(
        world
            .client(bob)
            .attachment_parts(&attachment)
            .unwrap()
            .here,
        0
    );
    open(&mut world, bob, &attachment);
}

#[test]
fn dropped_attachment_leaves_the_server_for_whoever_put_it() {
    let (mut world, alice, bob) = two(14);
    let content = bytes(PART);
    let attachment = send(&mut world, alice, bob, &content);
    world.client(bob).drop_attachment(&attachment).unwrap();
    world.settle();
    // Bob knows its name, but did not put it.
    assert_eq!(world.blobs().len(), 2);
    assert!(open(&mut world, bob, &attachment) == content);
    world.client(alice).drop_attachment(&attachment).unwrap();
    world.settle();
    assert!(world.blobs().is_empty());
    for user in ["alice", "bob"] {
        let who = if user == "alice" { alice } else { bob };
        world.client(who).forget_attachment(&attachment).unwrap();
        assert_eq!(held(&mut world, who), 0);
    }
    let mut written = Vec::new();
    world
        .client(bob)
        .open_attachment(&attachment, &mut written)
        .unwrap();
    world.work(bob);
    let opened = world
        .client(bob)
        .open_attachment(&attachment, &mut written)
        .unwrap();
    assert!(matches!(opened, OpenedAttachment::Missing(_)), "{opened:?}");
    assert!(written.is_empty());
}

/// Takes so many bytes and then no more.
struct Full(usize);

impl Write for Full {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0 == 0 {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let count = bytes.len().min(self.0);
        self.0 -= count;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn writer_that_fails_is_told_and_the_attachment_stays() {
    let (mut world, alice, bob) = two(15);
    let content = bytes(200_000);
    let attachment = send(&mut world, alice, bob, &content);
    open(&mut world, bob, &attachment);
    for room in [0, 1, 65_536, 199_999] {
        let client: &Client = world.client(bob);
        let error = client.open_attachment(&attachment, Full(room)).unwrap_err();
        assert_eq!(error.code(), "output_failed");
    }
    let opened = world
        .client(bob)
        .open_attachment(&attachment, Full(200_000));
    assert_eq!(opened.unwrap(), OpenedAttachment::Written);
}

#[test]
fn file_is_there_whole_or_not_at_all_and_nothing_is_written_over() {
    let (mut world, alice, bob) = two(16);
    let content = bytes(200_000);
    let attachment = send(&mut world, alice, bob, &content);
    let folder = tempfile::tempdir().unwrap();
    let names = || -> Vec<String> {
        let entries = std::fs::read_dir(folder.path()).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.collect()
    };
    let path = folder.path().join("cat.png");
    let client = world.client(bob);
    let opened = client.save_attachment(&attachment, &path).unwrap();
    assert!(matches!(opened, OpenedAttachment::Waiting(_)));
    assert!(names().is_empty());
    world.work(bob);
    let client = world.client(bob);
    assert_eq!(
        client.save_attachment(&attachment, &path).unwrap(),
        OpenedAttachment::Written
    );
    assert_eq!(names(), ["cat.png"]);
    assert!(std::fs::read(&path).unwrap() == content);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
    std::fs::write(&path, b"somebody's own").unwrap();
    let error = client.save_attachment(&attachment, &path).unwrap_err();
    assert_eq!(error.code(), "output_failed");
    assert_eq!(std::fs::read(&path).unwrap(), b"somebody's own");
    assert_eq!(names(), ["cat.png"]);
    // Not through a link either, nor into a place that is not there.
    #[cfg(unix)]
    {
        std::fs::remove_file(&path).unwrap();
        let elsewhere = tempfile::tempdir().unwrap();
        let target = elsewhere.path().join("target");
        std::os::unix::fs::symlink(&target, &path).unwrap();
        let error = client.save_attachment(&attachment, &path).unwrap_err();
        assert_eq!(error.code(), "output_failed");
        assert!(!target.exists());
    }
    for path in [
        folder.path().join("no such folder").join("cat.png"),
        "/".into(),
        "".into(),
    ] {
        let error = client.save_attachment(&attachment, path).unwrap_err();
        assert_eq!(error.code(), "output_failed");
    }
}

#[test]
fn device_that_waits_to_be_linked_attaches_nothing() {
    let mut world = World::new(17);
    world.join("alice");
    let new = world.begin_link("alice");
    let client = world.client(new);
    let error = client.attach(&b"x"[..], "", "").unwrap_err();
    assert_eq!(error.code(), "not_linked");
}

#[test]
fn server_that_is_full_gets_the_parts_later() {
    let (mut world, alice, bob) = two(18);
    let content = bytes(PART);
    let attachment = world.client(alice).attach(&content[..], "", "").unwrap();
    world.let_server_lie(|task, reply| match task {
        Task::PutBlob { .. } => Err(DirectoryError::Full),
        _ => reply,
    });
    world.work(alice);
    let parts = world.client(alice).attachment_parts(&attachment).unwrap();
    assert_eq!(parts.leaving, 2);
    world.let_server_be_honest();
    world.wait(60_001);
    // (What was handed over although the answer was lost is put again, and is the same.)
    world.settle();
    assert_eq!(
        world
            .client(alice)
            .attachment_parts(&attachment)
            .unwrap()
            .here,
        0
    );
    assert!(open(&mut world, bob, &attachment) == content);
}
