//! The program as people and scripts use it.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

/// Two people on one machine, with a server in a folder for those who want one.
struct World {
    folder: TempDir,
}

impl World {
    fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
        }
    }

    /// With profiles of both, which have published to the server.
    fn with_server() -> Self {
        let world = Self::new();
        for user in ["alice", "bob"] {
            ok(&world.online(user, &["init", user]));
        }
        world
    }

    /// With profiles of both, and no server.
    fn with_files() -> Self {
        let world = Self::new();
        for user in ["alice", "bob"] {
            ok(&world.offline(user, &["init", user]));
        }
        world
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> String {
        fs::write(self.path(name), bytes).unwrap();
        self.text(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    fn command(&self, user: &str, args: &[&str]) -> Command {
        let mut command = bare(args);
        command
            .arg("--home")
            .arg(self.path(user))
            .arg("--key-file")
            .arg(self.path(&format!("{user}.key")));
        command
    }

    fn offline(&self, user: &str, args: &[&str]) -> Output {
        self.command(user, args).output().unwrap()
    }

    fn online(&self, user: &str, args: &[&str]) -> Output {
        let mut command = self.command(user, args);
        command.env("SPRAG_SERVER", self.path("server"));
        command.output().unwrap()
    }

    /// The tasks that wait, written as files to `<user>-tasks`.
    fn tasks(&self, user: &str) -> Vec<Value> {
        let folder = self.text(&format!("{user}-tasks"));
        json(&self.offline(user, &["tasks", "--json", "--out", &folder]))
    }

    /// The envelopes that wait, as files, each told to have been handed over.
    fn envelopes(&self, user: &str) -> Vec<String> {
        let tasks = self.tasks(user).into_iter();
        tasks
            .filter(|task| task["kind"] == "deliver")
            .map(|task| {
                ok(&self.offline(user, &["tasks", "--done", &task["id"].to_string()]));
                task["file"].as_str().unwrap().to_owned()
            })
            .collect()
    }

    /// Both have published; `from` sends the first message to `to` by files, which has read it.
    fn met_by_files() -> Self {
        let world = Self::with_files();
        let bundle = world.text("bob.bundle");
        ok(&world.offline("bob", &["bundle", "--out", &bundle]));
        ok(&world.offline("alice", &["send", "bob", "first contact"]));
        let tasks = world.tasks("alice");
        let fetch = tasks.iter().find(|task| task["kind"] == "fetch-bundles");
        let id = fetch.unwrap()["id"].to_string();
        ok(&world.offline("alice", &["tasks", "--supply", &id, &bundle]));
        let files = world.envelopes("alice");
        let [file] = files.as_slice() else {
            panic!("{files:?}");
        };
        let received = world.offline("bob", &["receive", file]);
        assert_eq!(ok(&received), "alice (not accepted): first contact\n");
        world
    }
}

fn bare(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sprag"));
    command
        .args(args)
        .env_remove("SPRAG_HOME")
        .env_remove("SPRAG_SERVER")
        .env_remove("SPRAG_KEY_FILE")
        .env_remove("SPRAG_PASSPHRASE")
        .stdin(Stdio::null());
    command
}

fn with_stdin(mut command: Command, input: &[u8]) -> Output {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    child.wait_with_output().unwrap()
}

#[track_caller]
fn ends(output: &Output, exit: i32) -> String {
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(exit), "{error}");
    assert!(!error.contains("panicked"), "{error}");
    error
}

#[track_caller]
fn ok(output: &Output) -> String {
    ends(output, 0);
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[track_caller]
fn json(output: &Output) -> Vec<Value> {
    let text = ok(output);
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn keys(value: &Value) -> Vec<&str> {
    let object = value.as_object().unwrap();
    let mut keys: Vec<_> = object.keys().map(String::as_str).collect();
    keys.sort_unstable();
    keys
}

#[test]
fn two_people_chat_through_a_folder() {
    let world = World::with_server();
    let sent = ok(&world.online("alice", &["send", "bob", "hello"]));
    assert!(sent.contains("handed_over"), "{sent}");
    assert_eq!(
        ok(&world.online("bob", &["receive"])),
        "alice (not accepted): hello\n"
    );
    assert_eq!(ok(&world.online("bob", &["receive"])), "");

    ok(&world.online("bob", &["send", "alice", "hello yourself"]));
    ok(&world.online("bob", &["send", "alice", "and more"]));
    assert_eq!(
        ok(&world.online("alice", &["receive"])),
        "bob: hello yourself\nbob: and more\n"
    );

    let id = sent.lines().next().unwrap();
    let status = ok(&world.online("alice", &["status", id]));
    assert!(status.contains("received"), "{status}");
}

#[test]
fn sync_takes_messages_in_and_receive_prints_them_without_the_server() {
    let world = World::with_server();
    ok(&world.online("alice", &["send", "bob", "hello"]));
    let synced = json(&world.online("bob", &["sync", "--json"]));
    assert_eq!(synced[0]["envelopes"], 1);
    assert_eq!(synced[0]["inbox"], 1);
    assert_eq!(
        ok(&world.offline("bob", &["receive"])),
        "alice (not accepted): hello\n"
    );
    ends(&world.offline("bob", &["sync"]), 2);
}

#[test]
fn a_message_from_a_pipe_arrives_byte_for_byte() {
    let world = World::with_server();
    let bytes: Vec<u8> = (0..=255).cycle().take(100_000).collect();
    let mut send = world.command("alice", &["send", "bob", "-"]);
    send.env("SPRAG_SERVER", world.path("server"));
    ok(&with_stdin(send, &bytes));
    let received = world.online("bob", &["receive", "--raw"]);
    ends(&received, 0);
    assert!(received.stdout == bytes);
}

#[test]
fn without_a_server_files_are_enough_in_any_order() {
    let world = World::met_by_files();
    for text in ["one", "two", "three"] {
        ok(&world.offline("alice", &["send", "bob", text]));
    }
    let mut files = world.envelopes("alice");
    files.reverse();
    let mut args = vec!["receive"];
    args.extend(files.iter().map(String::as_str));
    let received = ok(&world.offline("bob", &args));
    let expected = ["three", "two", "one"].map(|text| format!("alice (not accepted): {text}\n"));
    assert_eq!(received, expected.concat());
}

#[test]
fn whoever_was_met_by_files_is_answered_once_his_bundle_came() {
    let world = World::met_by_files();
    let sent = ok(&world.offline("bob", &["send", "alice", "hello yourself"]));
    assert!(sent.contains("waiting"), "{sent}");
    assert!(world.envelopes("bob").is_empty());
    ends(&world.offline("bob", &["accept", "alice"]), 7);

    let bundle = world.text("alice.bundle");
    ok(&world.offline("alice", &["bundle", "--out", &bundle]));
    let tasks = world.tasks("bob");
    let fetch = tasks.iter().find(|task| task["kind"] == "fetch-bundles");
    let id = fetch.unwrap()["id"].to_string();
    ok(&world.offline("bob", &["tasks", "--supply", &id, &bundle]));
    let files = world.envelopes("bob");
    assert_eq!(
        ok(&world.offline("alice", &["receive", &files[0]])),
        "bob: hello yourself\n"
    );
    assert_eq!(
        ok(&world.offline("bob", &["accept", "alice"])),
        "alice: accepted, 1 devices\n"
    );
}

#[test]
fn envelopes_in_lines_of_digits_pass_through_a_pipe() {
    let world = World::met_by_files();
    for text in ["one", "two"] {
        ok(&world.offline("alice", &["send", "bob", text]));
    }
    let lines: Vec<String> = world
        .tasks("alice")
        .iter()
        .filter(|task| task["kind"] == "deliver")
        .map(|task| format!("{}\n", task["hex"].as_str().unwrap()))
        .collect();
    let receive = world.command("bob", &["receive", "-", "--json"]);
    let received = json(&with_stdin(receive, lines.concat().as_bytes()));
    let texts: Vec<_> = received.iter().map(|line| &line["text"]).collect();
    assert_eq!(texts, ["one", "two"]);
}

#[test]
fn each_bundle_has_another_one_time_prekey() {
    let world = World::with_files();
    let bundles = ["first", "second"].map(|name| {
        ok(&world.offline("bob", &["bundle", "--out", &world.text(name)]));
        fs::read(world.path(name)).unwrap()
    });
    assert!(bundles[0] != bundles[1]);
}

#[test]
fn a_new_server_is_given_everything() {
    let world = World::with_server();
    fs::remove_dir_all(world.path("server")).unwrap();
    for user in ["alice", "bob"] {
        let synced = json(&world.online(user, &["sync", "--json"]));
        assert_eq!(synced[0]["tasks_done"], 2);
    }
    ok(&world.online("alice", &["send", "bob", "hello"]));
    assert_eq!(
        ok(&world.online("bob", &["receive"])),
        "alice (not accepted): hello\n"
    );
}

#[test]
fn attachment_travels_over_a_folder_and_by_hand() {
    use sprag::{Client, Key, OpenedAttachment};
    let world = World::with_server();
    let open = |user: &str| {
        let key = Key::file(world.path(&format!("{user}.key")));
        Client::open(world.path(user).join("profile"), key).unwrap()
    };
    let content: Vec<u8> = (0..5_000_000_u32).map(|at| at.to_le_bytes()[1]).collect();
    let alice = open("alice");
    let attachment = alice.attach(&content[..], "image/png", "cat.png").unwrap();
    alice.close().unwrap();

    // By hand: a task is a file, and its name says what kind it is.
    let tasks = world.tasks("alice");
    assert_eq!(tasks.len(), 2);
    for task in &tasks {
        assert_eq!(task["kind"], "put-blob");
        let file = task["file"].as_str().unwrap();
        assert!(file.ends_with(".put-blob"));
        assert!(fs::metadata(file).unwrap().len() > 0);
    }
    // By the folder.
    let synced = json(&world.online("alice", &["sync", "--json"]));
    assert_eq!(synced[0]["tasks_done"], 2);
    assert!(world.tasks("alice").is_empty());

    let bob = open("bob");
    let mut written = Vec::new();
    let opened = bob.open_attachment(&attachment, &mut written).unwrap();
    assert!(matches!(opened, OpenedAttachment::Waiting(_)));
    bob.close().unwrap();
    let tasks = world.tasks("bob");
    let [first, second] = tasks.as_slice() else {
        panic!("{tasks:?}");
    };
    assert_eq!(first["kind"], "get-blob");
    assert_eq!(first["hex"].as_str().unwrap().len(), 64);
    // One of them is said not to be there, then that which is supplied is another one.
    let name = second["hex"].as_str().unwrap();
    let right = world.text(&format!("server/blobs/{name}"));
    let (first, second) = (first["id"].to_string(), second["id"].to_string());
    ok(&world.offline("bob", &["tasks", "--failed", &first, "no-such-blob"]));
    let other = world.write("other", b"another one");
    let refused = world.offline("bob", &["tasks", "--supply", &second, &other]);
    assert!(!refused.status.success());
    ok(&world.offline("bob", &["tasks", "--supply", &second, &right]));
    let bob = open("bob");
    let opened = bob.open_attachment(&attachment, &mut written).unwrap();
    assert!(matches!(opened, OpenedAttachment::Missing(_)), "{opened:?}");
    bob.close().unwrap();
    let synced = json(&world.online("bob", &["sync", "--json"]));
    assert_eq!(synced[0]["tasks_done"], 1);
    let bob = open("bob");
    let opened = bob.open_attachment(&attachment, &mut written).unwrap();
    assert_eq!(opened, OpenedAttachment::Written);
    assert!(written == content);
    bob.close().unwrap();
    // A conflict is about something that is there.
    let nothing = world.offline("bob", &["tasks", "--conflict", "4711", &other]);
    assert!(ok(&nothing).contains("4711"));
    ends(
        &world.offline("bob", &["tasks", "--conflict", "x", &other]),
        2,
    );
    let absent = world.text("absent");
    assert!(
        !world
            .offline("bob", &["tasks", "--conflict", "4711", &absent])
            .status
            .success()
    );
}

#[test]
fn a_stock_of_prekeys_that_runs_low_is_filled_up() {
    use sprag_directory::{Directory, FolderStorage, ServerEpoch};
    let world = World::with_server();
    let storage = FolderStorage::open(world.path("server")).unwrap();
    let server = Directory::open(storage, ServerEpoch::from_bytes([0; 16])).unwrap();
    let user = sprag::UserId::new("bob").unwrap();
    for _ in 0..80 {
        server.bundles_of(&user).unwrap();
    }
    let synced = json(&world.online("bob", &["sync", "--json"]));
    assert_eq!(synced[0]["tasks_done"], 1);
    let synced = json(&world.online("bob", &["sync", "--json"]));
    assert_eq!(synced[0]["tasks_done"], 0);
}

#[test]
fn safety_numbers_are_equal_and_compare_in_both_forms() {
    let world = World::with_server();
    ends(&world.online("alice", &["safety-number", "bob"]), 7);
    ok(&world.online("alice", &["send", "bob", "hello"]));
    ok(&world.online("bob", &["receive"]));
    let number = |user: &str, other: &str| {
        json(&world.offline(user, &["safety-number", "--json", other])).remove(0)
    };
    let (alice, bob) = (number("alice", "bob"), number("bob", "alice"));
    assert_eq!(alice["digits"], bob["digits"]);
    assert_ne!(alice["code"], bob["code"]);

    let shown = ok(&world.offline("bob", &["safety-number", "alice"]));
    assert!(shown.contains('█'), "{shown}");
    let lines: Vec<&str> = shown.trim_end().lines().rev().take(3).collect();
    assert!(
        lines.iter().all(|line| line.len() == 4 * 5 + 3),
        "{lines:?}"
    );
    let digits = [lines[2], lines[1], lines[0]].join("\n");
    for scanned in [digits.as_str(), bob["code"].as_str().unwrap()] {
        let same = world.offline("alice", &["safety-number", "bob", "--scan", scanned]);
        assert!(ok(&same).contains("they match"));
    }
    let other = "1".repeat(60);
    for scanned in [other.as_str(), alice["code"].as_str().unwrap()] {
        let differs = world.offline("alice", &["safety-number", "bob", "--scan", scanned]);
        ends(&differs, 6);
    }
    for scanned in ["", "12345", "zz"] {
        let nonsense = world.offline("alice", &["safety-number", "bob", "--scan", scanned]);
        assert_ne!(nonsense.status.code(), Some(0), "{scanned}");
    }
}

#[test]
fn json_lines_keep_their_shape() {
    let world = World::with_server();
    let profile = &json(&world.online("alice", &["status", "--json"]))[0];
    assert_eq!(keys(profile), ["device", "inbox", "tasks", "type", "user"]);

    let sent = &json(&world.online("alice", &["send", "--json", "bob", "hello"]))[0];
    assert_eq!(keys(sent), ["copies", "id", "type", "user"]);
    assert_eq!(keys(&sent["copies"][0]), ["status", "to"]);
    let id = sent["id"].as_str().unwrap();
    let status = &json(&world.online("alice", &["status", "--json", id]))[0];
    assert_eq!(keys(status), ["copies", "id", "type"]);

    let message = &json(&world.online("bob", &["receive", "--json"]))[0];
    assert_eq!(
        keys(message),
        [
            "accepted",
            "conversation",
            "device",
            "from",
            "hex",
            "id",
            "is_sync",
            "number",
            "received_at",
            "sent_at",
            "text",
            "type"
        ]
    );
    assert_eq!(message["type"], "message");
    assert_eq!(message["id"], id);
    assert_eq!(message["text"], "hello");
    assert_eq!(message["hex"], Value::Null);

    ok(&world.offline("bob", &["send", "alice", "hello yourself"]));
    let task = &json(&world.offline("bob", &["tasks", "--json"]))[0];
    assert_eq!(
        keys(task),
        ["device", "file", "hex", "id", "kind", "type", "user"]
    );

    let synced = &json(&world.online("bob", &["sync", "--json"]))[0];
    assert_eq!(
        keys(synced),
        [
            "envelopes",
            "inbox",
            "refused",
            "tasks_done",
            "tasks_waiting",
            "type"
        ]
    );

    let contact = &json(&world.online("bob", &["accept", "--json", "alice"]))[0];
    assert_eq!(
        keys(contact),
        ["accepted", "changed", "devices", "type", "user"]
    );
    let number = &json(&world.online("bob", &["safety-number", "--json", "alice"]))[0];
    assert_eq!(keys(number), ["code", "digits", "matches", "type", "user"]);
    let bundle = &json(&world.online("bob", &["bundle", "--json", "--out", &world.text("x")]))[0];
    assert_eq!(keys(bundle), ["bytes", "file", "type", "user"]);

    let error = ends(
        &world.online("bob", &["status", "--json", &"0".repeat(32)]),
        7,
    );
    let error: Value = serde_json::from_str(&error).unwrap();
    assert_eq!(
        keys(&error),
        ["advice", "code", "exit", "incomplete", "message", "type"]
    );
    assert_eq!(error["exit"], 7);
    let notes = ends(&world.online("bob", &["send", "--json", "nobody", "x"]), 7);
    for line in notes.lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        assert!(
            line["type"] == "note" || keys(&line) == keys(&error),
            "{line}"
        );
    }
}

#[test]
fn a_refused_reply_is_an_event() {
    let world = World::with_files();
    ok(&world.offline("alice", &["send", "bob", "hello"]));
    let tasks = world.tasks("alice");
    let fetch = tasks.iter().find(|task| task["kind"] == "fetch-bundles");
    let id = fetch.unwrap()["id"].to_string();
    let garbage = world.write("garbage", [0xff; 40]);
    ends(
        &world.offline("alice", &["tasks", "--supply", &id, &garbage]),
        6,
    );
    let event = &json(&world.offline("alice", &["events", "--json"]))[0];
    assert_eq!(
        keys(event),
        ["code", "device", "event", "number", "task", "type", "user"]
    );
    assert_eq!(event["event"], "reply_refused");
    let since = event["number"].to_string();
    assert_eq!(
        ok(&world.offline("alice", &["events", "--since", &since])),
        ""
    );
}

#[test]
fn hostile_envelopes_are_refused_and_leave_everything_as_it_was() {
    let world = World::met_by_files();
    ok(&world.offline("alice", &["send", "bob", "genuine"]));
    let file = world.envelopes("alice").remove(0);
    let genuine = fs::read(&file).unwrap();

    let mut hostile: Vec<Vec<u8>> = vec![
        b"garbage".to_vec(),
        vec![0x10; 5_000],
        vec![0; 3_000_000],
        b"10ff10ff\n1\n10zz\n".to_vec(),
        genuine[..genuine.len() - 1].to_vec(),
        [&genuine[..], b"\n"].concat(),
    ];
    for place in (0..genuine.len()).step_by(37) {
        let mut forged = genuine.clone();
        forged[place] ^= 0x40;
        hostile.push(forged);
    }
    let names: Vec<String> = (0..hostile.len())
        .map(|number| world.write(&format!("hostile-{number}"), &hostile[number]))
        .collect();
    let mut args = vec!["receive", "--json"];
    args.extend(names.iter().map(String::as_str));
    let refused = world.offline("bob", &args);
    ends(&refused, 6);
    let text = String::from_utf8(refused.stdout).unwrap();
    for line in text.lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        assert_eq!(line["type"], "refused");
        assert_eq!(keys(&line), ["code", "kept", "source", "type"]);
    }
    assert!(text.lines().count() >= names.len());

    assert_eq!(
        ok(&world.offline("bob", &["receive", &file])),
        "alice (not accepted): genuine\n"
    );
    let replayed = world.offline("bob", &["receive", &file]);
    ends(&replayed, 6);
    assert!(String::from_utf8_lossy(&replayed.stdout).contains("(duplicate)"));
    for nothing in [world.text("missing"), world.text("")] {
        ends(&world.offline("bob", &["receive", &nothing]), 8);
    }
}

#[test]
fn envelope_for_somebody_else_is_refused() {
    let world = World::met_by_files();
    ok(&world.offline("alice", &["send", "bob", "for bob"]));
    let file = world.envelopes("alice").remove(0);
    ends(&world.offline("alice", &["receive", &file]), 6);
}

#[test]
fn messages_that_nobody_read_are_printed_again() {
    let world = World::with_server();
    ok(&world.online("alice", &["send", "bob", "hello"]));
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut receive = world.command("bob", &["receive"]);
    receive
        .env("SPRAG_SERVER", world.path("server"))
        .stdout(writer)
        .stderr(Stdio::piped());
    let ended = receive.spawn().unwrap().wait_with_output().unwrap();
    assert_eq!(ends(&ended, 141), "");
    assert_eq!(
        ok(&world.offline("bob", &["receive"])),
        "alice (not accepted): hello\n"
    );
}

#[test]
fn a_wrong_passphrase_has_its_own_exit_code_and_is_never_shown() {
    let world = World::new();
    let run = |passphrase: &str, args: &[&str]| {
        let mut command = bare(args);
        command
            .arg("--home")
            .arg(world.path("home"))
            .env("SPRAG_PASSPHRASE", passphrase);
        command.output().unwrap()
    };
    let made = run("correct horse", &["init", "alice"]);
    assert!(!ok(&made).contains("horse"));
    let wrong = run("incorrect horse", &["status"]);
    assert!(!ends(&wrong, 3).contains("horse"));
    ends(&run("", &["status"]), 3);
    assert!(ok(&run("correct horse", &["status"])).starts_with("alice, device "));
}

#[test]
fn another_key_file_does_not_open_a_profile() {
    let world = World::with_files();
    fs::copy(world.path("bob.key"), world.path("alice.key")).unwrap();
    ends(&world.offline("alice", &["status"]), 3);
    fs::remove_file(world.path("alice.key")).unwrap();
    ends(&world.offline("alice", &["status"]), 3);
    ends(&world.offline("alice", &["init", "alice"]), 3);
    assert!(!world.path("alice.key").exists());
}

#[test]
fn without_key_and_terminal_the_program_says_so() {
    let world = World::with_files();
    let home = world.text("alice");
    // A test may have a terminal; a session of its own has none.
    let Ok(ended) = Command::new("setsid")
        .args(["-w", env!("CARGO_BIN_EXE_sprag"), "status", "--home", &home])
        .env_remove("SPRAG_PASSPHRASE")
        .env_remove("SPRAG_KEY_FILE")
        .stdin(Stdio::null())
        .output()
    else {
        return;
    };
    assert!(ends(&ended, 2).contains("SPRAG_PASSPHRASE"));
}

#[test]
fn a_store_in_use_is_left_alone() {
    let world = World::with_files();
    let key = sprag::Key::file(world.path("alice.key"));
    let open = sprag::Client::open(world.path("alice").join("profile"), key).unwrap();
    let error = ends(&world.offline("alice", &["status"]), 4);
    assert!(error.contains("end it"), "{error}");
    open.close().unwrap();
    ok(&world.offline("alice", &["status"]));
}

#[test]
fn a_damaged_profile_is_told_apart_and_never_made_anew() {
    for lost in ["MANIFEST", "epoch-00000001/db"] {
        let world = World::with_files();
        fs::remove_file(world.path("alice/profile").join(lost)).unwrap();
        for args in [&["status"][..], &["init", "alice"]] {
            let error = ends(&world.offline("alice", args), 5);
            assert!(error.contains("damaged"), "{error}");
        }
    }
}

#[test]
fn wrong_calls_end_with_two() {
    let world = World::with_files();
    for args in [
        &["unknown"][..],
        &[],
        &["send"],
        &["status", "no-id"],
        &["tasks", "--failed", "1", "bad-luck"],
        &["tasks", "--done", "minus"],
        &["tasks", "--supply", "x", "y"],
        &["send", "alice", "to myself"],
        &["send", "", "to nobody"],
    ] {
        ends(&world.offline("alice", args), 2);
    }
    ends(&world.offline("alice", &["init", "mallory"]), 2);
    ends(&world.offline("nobody", &["status"]), 2);
    assert!(!world.path("nobody").exists());
}

#[test]
fn making_a_profile_twice_is_making_it_once() {
    let world = World::with_files();
    let first = ok(&world.offline("alice", &["status"]));
    assert_eq!(ok(&world.offline("alice", &["init", "alice"])), first);
}

#[test]
fn a_name_that_is_taken_is_told() {
    let world = World::with_server();
    fs::rename(world.path("bob"), world.path("bob-before")).unwrap();
    let error = ends(&world.online("bob", &["init", "bob"]), 6);
    assert!(error.contains("somebody has this name"), "{error}");
    let events = ok(&world.offline("bob", &["events"]));
    assert!(events.contains("refused task"), "{events}");
}

#[test]
fn a_changed_identity_stops_messages_until_it_is_accepted() {
    use sprag_directory::{Directory, FolderStorage, ServerEpoch};
    let world = World::with_server();
    ok(&world.online("alice", &["send", "bob", "hello"]));
    ok(&world.online("bob", &["receive"]));
    let number = || json(&world.offline("alice", &["safety-number", "bob", "--json"])).remove(0);
    let before = number();

    // Bob lost his profile; who runs the server believes him.
    fs::remove_dir_all(world.path("bob")).unwrap();
    ok(&world.offline("bob", &["init", "bob"]));
    let tasks = world.tasks("bob");
    let publish = tasks.iter().find(|task| task["kind"] == "publish-devices");
    let lists = fs::read(publish.unwrap()["file"].as_str().unwrap()).unwrap();
    let frame = lists.iter().position(|byte| *byte == 0x14).unwrap();
    let storage = FolderStorage::open(world.path("server")).unwrap();
    let server = Directory::open(storage, ServerEpoch::from_bytes([0; 16])).unwrap();
    let user = sprag::UserId::new("bob").unwrap();
    server.replace_account(&user, &lists[frame..]).unwrap();
    ok(&world.online("bob", &["sync"]));

    let error = ends(
        &world.online("alice", &["send", "bob", "are you there?"]),
        6,
    );
    assert!(error.contains("another identity"), "{error}");
    let events = ok(&world.offline("alice", &["events"]));
    assert!(events.contains("another identity"), "{events}");
    ends(&world.online("alice", &["send", "bob", "and now?"]), 6);
    assert_eq!(ok(&world.online("bob", &["receive"])), "");

    ok(&world.online("alice", &["accept", "bob"]));
    ok(&world.online("alice", &["send", "bob", "it is you"]));
    let received = ok(&world.online("bob", &["receive"]));
    assert!(
        received.ends_with("alice (not accepted): it is you\n"),
        "{received}"
    );
    assert_ne!(number()["digits"], before["digits"]);
}

#[test]
fn unknown_receivers_are_told_at_once() {
    let world = World::with_server();
    let sent = world.online("alice", &["send", "nobody", "hello"]);
    assert!(
        ends(&sent, 7)
            .lines()
            .all(|line| line.starts_with("sprag: "))
    );
    assert!(String::from_utf8_lossy(&sent.stdout).contains("no_such_user"));
}

#[test]
fn help_lists_the_exit_codes() {
    let help = ok(&bare(&["--help"]).output().unwrap());
    for line in ["0  done", "4  another process", "141  nobody reads"] {
        assert!(help.contains(line), "{help}");
    }
}

#[test]
fn the_demo_succeeds_and_leaves_nothing() {
    let temporary = tempfile::tempdir().unwrap();
    let mut demo = bare(&["demo", "--json"]);
    demo.env("TMPDIR", temporary.path());
    let lines = json(&demo.output().unwrap());
    let figures = lines.iter().find(|line| line["type"] == "figures").unwrap();
    assert!(figures["messages"].as_u64().unwrap() > 100);
    assert!(figures["first_envelope_bytes"].as_u64() > figures["next_envelope_bytes"].as_u64());
    assert!(fs::read_dir(temporary.path()).unwrap().next().is_none());
}

#[test]
fn a_demo_that_is_kept_can_be_looked_at() {
    let world = World::new();
    let folder = world.text("kept");
    ok(&bare(&["demo", "--keep", &folder]).output().unwrap());
    let status = bare(&["status", "--home", &world.text("kept/bob")])
        .args(["--key-file", &world.text("kept/bob.key")])
        .output()
        .unwrap();
    assert!(ok(&status).starts_with("bob, device "));
    ends(&bare(&["demo", "--keep", &folder]).output().unwrap(), 2);
}

#[test]
fn upkeep_says_what_it_did_and_confirms_no_other_time() {
    let world = World::with_server();
    let done = &json(&world.online("bob", &["maintain", "--json"]))[0];
    assert_eq!(
        keys(done),
        [
            "asked",
            "deleted",
            "doubted_time",
            "expired",
            "renewed",
            "rotated",
            "type"
        ]
    );
    assert_eq!(
        (&done["renewed"], &done["rotated"]),
        (&false.into(), &false.into())
    );
    let text = ok(&world.online("bob", &["maintain", "--renew-after", "1"]));
    assert!(text.contains("the store renewed"), "{text}");
    ends(
        &world.online("bob", &["maintain", "--confirm-time", "1"]),
        2,
    );
    ok(&world.online("alice", &["send", "bob", "hello"]));
    let message = &json(&world.online("bob", &["receive", "--json"]))[0];
    assert_eq!(message["text"], "hello");
}

#[test]
fn health_is_told_to_people_and_programs_and_quiet_mode_is_remembered() {
    let world = World::with_server();
    ok(&world.online("alice", &["send", "bob", "hello"]));
    ok(&world.online("bob", &["receive"]));
    ok(&world.online("bob", &["send", "alice", "hello yourself"]));
    ok(&world.online("alice", &["receive"]));
    let health = &json(&world.offline("alice", &["health", "--json"]))[0];
    assert_eq!(health["type"], "health");
    assert_eq!(health["current_sessions"], 1);
    assert_eq!(health["opened"], 1);
    assert_eq!(health["refused"], serde_json::json!({}));
    assert_eq!(health["quiet"], false);
    let text = ok(&world.offline("alice", &["health"]));
    assert!(
        text.contains("frames     1 opened; refused: none"),
        "{text}"
    );

    let quiet = ok(&world.offline("alice", &["quiet", "on"]));
    assert_eq!(quiet, "quiet mode is on\n");
    assert_eq!(
        json(&world.offline("alice", &["quiet", "--json"]))[0]["quiet"],
        true
    );
    assert_eq!(
        ok(&world.offline("alice", &["quiet", "off"])),
        "quiet mode is off\n"
    );
    ends(&world.offline("alice", &["quiet", "perhaps"]), 2);
}

#[test]
fn reset_replaces_the_session_and_the_talk_goes_on() {
    let world = World::with_server();
    ok(&world.online("alice", &["send", "bob", "hello"]));
    ok(&world.online("bob", &["receive"]));
    ok(&world.online("bob", &["send", "alice", "hello yourself"]));
    ok(&world.online("alice", &["receive"]));
    ok(&world.online("alice", &["reset", "bob"]));
    ok(&world.online("bob", &["receive"]));
    let health = &json(&world.offline("bob", &["health", "--json"]))[0];
    assert_eq!(
        (&health["current_sessions"], &health["retired_sessions"]),
        (&1.into(), &1.into())
    );
    ok(&world.online("bob", &["send", "alice", "on the new one"]));
    let text = ok(&world.online("alice", &["receive"]));
    assert!(text.contains("on the new one"), "{text}");
    assert_eq!(
        json(&world.offline("alice", &["health", "--json"]))[0]["resets"],
        0
    );
    // Nobody is reset whom the server has not shown.
    ends(&world.online("alice", &["reset", "nobody"]), 7);
}

#[test]
fn doctor_explains_damage_and_repairs_it_only_when_told_to() {
    let world = World::with_files();
    let doctor = |args: &[&str]| world.offline("alice", &[&["doctor"][..], args].concat());
    let store = world.path("alice").join("profile");
    assert_eq!(ok(&doctor(&[])), "nothing is missing\n");
    let whole = &json(&doctor(&["--json"]))[0];
    assert_eq!(keys(whole), ["damaged", "findings", "remedies", "type"]);
    assert_eq!(
        (&whole["type"], &whole["damaged"]),
        (&"examined".into(), &false.into())
    );
    ends(&doctor(&["--yes"]), 2);
    ok(&doctor(&["--repair"]));

    fs::remove_file(store.join("MANIFEST")).unwrap();
    ends(&world.offline("alice", &["status"]), 5);
    let said = doctor(&["--json"]);
    ends(&said, 5);
    let first = String::from_utf8(said.stdout).unwrap();
    let first: Value = serde_json::from_str(first.lines().next().unwrap()).unwrap();
    assert_eq!(
        keys(&first),
        ["code", "explanation", "remedy", "severity", "type"]
    );
    assert_eq!(first["code"], "manifest_missing");
    // It says what it would do, and does nothing.
    let plan = doctor(&["--repair"]);
    ends(&plan, 6);
    assert!(
        String::from_utf8_lossy(&plan.stdout)
            .contains("put MANIFEST.copy in the place of MANIFEST")
    );
    assert!(!store.join("MANIFEST").exists());
    assert_eq!(fs::read_dir(world.path("alice")).unwrap().count(), 1);

    let done = ok(&doctor(&["--repair", "--yes"]));
    assert!(
        done.contains("copied aside to") && done.contains("done: put MANIFEST.copy"),
        "{done}"
    );
    assert!(done.ends_with("nothing is missing\n"), "{done}");
    ok(&world.offline("alice", &["status"]));
    assert!(world.path("alice").join("profile.before-repair-1").is_dir());
}

#[test]
fn doctor_touches_nothing_that_it_cannot_repair() {
    let world = World::with_files();
    let store = world.path("alice").join("profile");
    let rows = store.join("epoch-00000001/db");
    fs::write(&rows, b"").unwrap();
    let said = world.offline("alice", &["doctor", "--repair", "--yes"]);
    ends(&said, 5);
    let text = String::from_utf8_lossy(&said.stdout).into_owned();
    assert!(
        text.contains("rows_file_missing") && text.contains("nothing is left to repair it by"),
        "{text}"
    );
    assert!(String::from_utf8_lossy(&said.stderr).contains("nothing was touched"));
    assert_eq!(fs::read(&rows).unwrap(), b"");
    assert_eq!(fs::read_dir(world.path("alice")).unwrap().count(), 1);
    ends(
        &bare(&["doctor", "--home", &world.text("nobody")])
            .output()
            .unwrap(),
        2,
    );
}

/// Until a device is linked: it asks the server every three seconds, and each try is a process.
fn linked(world: &World, holder: &str, new: &str) {
    for _ in 0..2_000 {
        world.online(new, &["sync"]);
        world.online(holder, &["sync"]);
        let events = ok(&world.online(new, &["sync", "--json"]));
        assert!(events.contains("synced"));
        let listed = world.online(new, &["device", "link"]);
        if String::from_utf8_lossy(&listed.stderr).contains("this device is linked") {
            return;
        }
    }
    panic!("not linked");
}

#[test]
fn a_second_device_is_linked_by_its_code_gets_copies_and_is_removed() {
    let world = World::with_server();
    let shown = world.online("laptop", &["init", "alice", "--link"]);
    let text = ok(&shown);
    let request = text
        .lines()
        .find(|line| line.starts_with("sprag-link:"))
        .unwrap();
    assert!(
        text.contains('\u{2588}') || text.lines().count() > 10,
        "a picture of it"
    );
    // Not linked yet: everything else says so.
    let early = world.online("laptop", &["send", "bob", "too early"]);
    assert_ne!(early.status.code(), Some(0));
    assert!(String::from_utf8_lossy(&early.stderr).contains("not linked"));
    // The wrong user, and worthless text.
    for (user, text) in [
        ("bob", request),
        ("alice", "sprag-link:AAAA"),
        ("alice", "hello"),
    ] {
        let refused = world.online(user, &["device", "add", text]);
        assert_eq!(refused.status.code(), Some(2), "{user} {text}");
    }
    // By standard input, where nobody sees it.
    let mut add = world.command("alice", &["device", "add", "-"]);
    add.env("SPRAG_SERVER", world.path("server"));
    let added = with_stdin(add, request.as_bytes());
    assert!(ok(&added).contains("linking"));
    linked(&world, "alice", "laptop");
    let devices = json(&world.online("laptop", &["device", "list", "--json"]));
    assert_eq!(devices.len(), 2);
    let laptop = devices.iter().find(|one| one["this"] == true).unwrap();
    assert_eq!(laptop["holder"], false);
    let number = laptop["device"].to_string();

    ok(&world.online("alice", &["send", "bob", "from the phone"]));
    let copy = ok(&world.online("laptop", &["receive"]));
    assert!(copy.contains("alice to bob: from the phone"), "{copy}");
    let copy = ok(&world.online("bob", &["receive"]));
    assert!(copy.contains("from the phone"), "{copy}");
    // One that is no holder removes nobody.
    let refused = world.online("laptop", &["device", "remove", &number]);
    assert_eq!(refused.status.code(), Some(2));
    let settled = world.online("alice", &["device", "settle"]);
    assert_eq!(settled.status.code(), Some(7), "there is no fork");
    let left = ok(&world.online("alice", &["device", "remove", &number]));
    assert!(!left.contains(&number), "{left}");
    let told = ok(&world.online("alice", &["events"]));
    assert!(told.contains("is no longer on your account"), "{told}");
}
