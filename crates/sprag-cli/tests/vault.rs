//! `sprag vault` as people and scripts use it: files and pipes, and everything that is wrong with them.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

/// A folder with the key files of Alice and Bob, and one that is symmetric.
struct World {
    folder: TempDir,
    alice: String,
    bob: String,
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut world = Self {
            folder,
            alice: String::new(),
            bob: String::new(),
        };
        fs::create_dir(world.path("keys")).unwrap();
        fs::create_dir(world.path("files")).unwrap();
        world.alice = world.keygen("alice", &[]);
        world.bob = world.keygen("bob", &[]);
        world.keygen("sym", &["--symmetric"]);
        world
    }

    fn keygen(&self, name: &str, more: &[&str]) -> String {
        let out = self.key(name);
        let args = ["keygen", "--out", &out];
        let printed = ok(&self.run(&[&args, more].concat()));
        printed.trim().to_owned()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn key(&self, name: &str) -> String {
        self.path("keys").join(name).to_str().unwrap().to_owned()
    }

    /// In the folder where nothing may be left behind.
    fn file(&self, name: &str) -> String {
        self.path("files").join(name).to_str().unwrap().to_owned()
    }

    fn write(&self, name: &str, bytes: &[u8]) -> String {
        fs::write(self.file(name), bytes).unwrap();
        self.file(name)
    }

    fn bytes(&self, name: &str) -> Vec<u8> {
        fs::read(self.file(name)).unwrap()
    }

    /// What is in the folder, hidden files too.
    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.path("files")).unwrap();
        let mut names: Vec<_> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sprag"));
        for name in [
            "SPRAG_HOME",
            "SPRAG_SERVER",
            "SPRAG_KEY_FILE",
            "SPRAG_PASSPHRASE",
            "SPRAG_VAULT_PASSPHRASE",
            "SPRAG_VAULT_NEW_PASSPHRASE",
            "SPRAG_VAULT_OLD_PASSPHRASE",
        ] {
            command.env_remove(name);
        }
        command.arg("vault").args(args).stdin(Stdio::null());
        command
    }

    fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    fn pipe(&self, args: &[&str], input: &[u8]) -> Output {
        through(self.command(args), input)
    }

    /// Sealed to Alice, in chunks of 4 KiB, with a context.
    fn sealed(&self, payload: &[u8]) -> Vec<u8> {
        let sealed = self.pipe(
            &[
                "seal",
                "--recipient",
                &self.alice,
                "--chunk-log2",
                "12",
                "--context",
                "record=1",
            ],
            payload,
        );
        success(&sealed);
        sealed.stdout
    }

    fn open(&self, key: &str, blob: &[u8]) -> Output {
        let key = self.key(key);
        let args = ["open", "--key", &key, "--context", "record=1", "--json"];
        self.pipe(&args, blob)
    }
}

fn through(mut command: Command, input: &[u8]) -> Output {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    thread::scope(|scope| {
        // Who ends early does not read everything.
        scope.spawn(move || drop(stdin.write_all(input)));
        child.wait_with_output().unwrap()
    })
}

#[track_caller]
fn success(output: &Output) {
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{error}");
}

#[track_caller]
fn ok(output: &Output) -> String {
    success(output);
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// The code of the error, the exit code, and whether a part of the result had gone out.
#[track_caller]
fn refused(output: &Output) -> (String, i32, bool) {
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(!error.contains("panicked"), "{error}");
    let line = error.lines().find(|line| line.contains("\"code\""));
    let value: Value = serde_json::from_str(line.unwrap_or_else(|| panic!("{error}"))).unwrap();
    let exit = output.status.code().unwrap();
    assert_eq!(value["exit"], exit);
    let incomplete = value["incomplete"].as_bool().unwrap();
    (value["code"].as_str().unwrap().to_owned(), exit, incomplete)
}

fn payload(length: usize) -> Vec<u8> {
    (0..=250).cycle().take(length).collect()
}

#[cfg(unix)]
fn mode(path: impl AsRef<Path>) -> u32 {
    use std::os::unix::fs::PermissionsExt;
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

#[cfg(unix)]
fn set_mode(path: impl AsRef<Path>, mode: u32) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn files_and_pipes_of_any_length_come_back_byte_for_byte() {
    let world = World::new();
    let (key, plain, sealed, back) = (
        world.key("alice"),
        world.file("plain"),
        world.file("sealed"),
        world.file("back"),
    );
    let cases = [0, 1, 4095, 4096, 4097, 8192, 300_000].map(|length| (length, "12"));
    for (length, log2) in cases.into_iter().chain([(65_536, "16"), (65_537, "16")]) {
        let payload = payload(length);
        world.write("plain", &payload);
        let to = ["--recipient", &world.alice, "--chunk-log2", log2];
        let args = ["seal", &plain, "-o", &sealed, "--force"];
        ok(&world.run(&[&args[..], &to].concat()));
        let chunks = length.div_ceil(1 << log2.parse::<u32>().unwrap()).max(1);
        assert_eq!(world.bytes("sealed").len(), length + 200 + 16 * chunks);
        ok(&world.run(&["open", &sealed, "-o", &back, "--force", "--key", &key]));
        assert!(world.bytes("back") == payload, "{length}");

        let piped = world.pipe(&[&["seal"], &to[..]].concat(), &payload);
        success(&piped);
        let opened = world.pipe(&["open", "-", "-o", "-", "--key", &key], &piped.stdout);
        success(&opened);
        assert!(opened.stdout == payload, "{length}");
        assert!(opened.stderr.is_empty() && piped.stderr.is_empty());
        assert_eq!(world.names(), ["back", "plain", "sealed"]);
    }
}

#[test]
fn each_recipient_opens_alone_and_nobody_else_does() {
    let world = World::new();
    let with = |passphrase: &str, args: &[&str], input: &[u8]| {
        let mut command = world.command(args);
        command.env("SPRAG_VAULT_PASSPHRASE", passphrase);
        through(command, input)
    };
    let named = format!("bob={}", world.bob);
    let (alice, bob, sym) = (world.key("alice"), world.key("bob"), world.key("sym"));
    let to = ["--recipient", &named, "--key", &alice, "--passphrase"];
    let sealed = with("correct horse", &[&["seal"], &to[..]].concat(), b"hello");
    success(&sealed);
    let sealed = sealed.stdout;
    for key in [&alice, &bob] {
        assert_eq!(ok(&world.pipe(&["open", "--key", key], &sealed)), "hello");
    }
    // A passphrase is asked for where there is one and no key is named.
    assert_eq!(ok(&with("correct horse", &["open"], &sealed)), "hello");
    let wrong_key = ("vault_wrong_key".to_owned(), 3, false);
    let wrong = with("wrong horse", &["open", "--json"], &sealed);
    assert_eq!(refused(&wrong), wrong_key);
    let wrong = world.pipe(&["open", "--key", &sym, "--json"], &sealed);
    assert_eq!(refused(&wrong), wrong_key);

    let sealed = world.pipe(&["seal", "--key", &sym], b"hello");
    success(&sealed);
    let opened = world.pipe(&["open", "--key", &sym], &sealed.stdout);
    assert_eq!(ok(&opened), "hello");
    let wrong = world.pipe(&["open", "--key", &alice, "--json"], &sealed.stdout);
    assert_eq!(refused(&wrong), wrong_key);
    let none = world.pipe(&["open", "--json"], &sealed.stdout);
    assert_eq!(refused(&none), ("bad_input".into(), 2, false));

    // Nobody; an empty passphrase; the passphrase of a profile is not taken for that of a blob.
    let nobody = world.pipe(&["seal", "--json"], b"hello");
    assert_eq!(refused(&nobody), ("vault_seal".into(), 2, false));
    let empty = with("", &["seal", "--passphrase", "--json"], b"hello");
    assert_eq!(refused(&empty), ("vault_seal".into(), 2, false));
    let mut command = world.command(&["seal", "--passphrase"]);
    command.env("SPRAG_PASSPHRASE", "of the profile");
    command.env("SPRAG_VAULT_PASSPHRASE", "of the file");
    let sealed = through(command, b"hello").stdout;
    let wrong = with("of the profile", &["open", "--json"], &sealed);
    assert_eq!(refused(&wrong), wrong_key);
    assert_eq!(ok(&with("of the file", &["open"], &sealed)), "hello");
}

#[test]
fn symmetric_key_is_never_wrapped_for_anybody() {
    let world = World::new();
    let (alice, sym) = (world.key("alice"), world.key("sym"));
    let symmetric = ("vault_symmetric".to_owned(), 2, false);
    let others: [&[&str]; 4] = [
        &["--recipient", &world.bob],
        &["--key", &alice],
        &["--key", &sym],
        &["--passphrase"],
    ];
    for more in others {
        let mut command = world.command(&[&["seal", "--json", "--key", &sym], more].concat());
        command.env("SPRAG_VAULT_PASSPHRASE", "words");
        let output = through(command, b"hello");
        assert_eq!(refused(&output), symmetric, "{more:?}");
        assert!(output.stdout.is_empty());
    }
    let sealed = world.pipe(&["seal", "--key", &sym], b"hello").stdout;
    let add = ["reseal", "--json", "--key", &sym, "--add", &world.bob];
    assert_eq!(refused(&world.pipe(&add, &sealed)), symmetric);
    let to_alice = world.pipe(&["seal", "--key", &alice], b"hello").stdout;
    let add = ["reseal", "--json", "--key", &alice, "--add-key", &sym];
    assert_eq!(refused(&world.pipe(&add, &to_alice)), symmetric);
}

/// What is wrong, the blob, whose key, the context, the code, the exit code.
type Bad<'a> = (&'a str, Vec<u8>, &'a str, &'a [&'a str], &'a str, i32);

#[test]
fn whatever_does_not_open_is_told_apart_and_leaves_nothing_behind() {
    let world = World::new();
    let blob = world.sealed(&payload(10_000));
    let flipped = |at: usize| {
        let mut blob = blob.clone();
        blob[at] ^= 1;
        blob
    };
    let last = blob.len() - 1;
    let newer = [&blob[..8], &[2], &blob[9..]].concat();
    let text = blob.iter().filter(|byte| **byte != b'\r');
    let context = ["--context", "record=1"];
    let other = ["--context", "record=2"];
    let cases: [Bad<'_>; 13] = [
        (
            "other key",
            blob.clone(),
            "bob",
            &context,
            "vault_wrong_key",
            3,
        ),
        (
            "other context",
            blob.clone(),
            "alice",
            &other,
            "vault_context",
            6,
        ),
        ("no context", blob.clone(), "alice", &[], "vault_context", 6),
        (
            "changed header",
            flipped(180),
            "alice",
            &context,
            "vault_context",
            6,
        ),
        (
            "changed",
            flipped(last),
            "alice",
            &context,
            "vault_damaged",
            5,
        ),
        (
            "changed early",
            flipped(300),
            "alice",
            &context,
            "vault_damaged",
            5,
        ),
        (
            "cut",
            blob[..200 + 2 * 4112].to_vec(),
            "alice",
            &context,
            "vault_truncated",
            5,
        ),
        (
            "cut within",
            blob[..last].to_vec(),
            "alice",
            &context,
            "vault_damaged",
            5,
        ),
        (
            "cut header",
            blob[..100].to_vec(),
            "alice",
            &context,
            "vault_format",
            5,
        ),
        (
            "another file",
            b"hello, world".to_vec(),
            "alice",
            &context,
            "vault_format",
            5,
        ),
        ("nothing", Vec::new(), "alice", &context, "vault_format", 5),
        (
            "text",
            text.copied().collect(),
            "alice",
            &context,
            "vault_format",
            5,
        ),
        ("newer", newer, "alice", &context, "vault_newer", 1),
    ];
    let exact = world.sealed(&payload(8192));
    let trailing = [&exact[..], b"x"].concat();
    let trailing = ("more", trailing, "alice", &context[..], "vault_trailing", 5);
    for (what, blob, key, context, code, exit) in cases.into_iter().chain([trailing]) {
        let (sealed, back, key) = (
            world.write("sealed", &blob),
            world.file("back"),
            world.key(key),
        );
        for verb in ["open", "rekey"] {
            let mut args = vec![verb, &sealed, "-o", &back, "--key", &key, "--json"];
            args.extend(context);
            if verb == "rekey" {
                args.extend(["--recipient", &world.bob]);
            }
            let output = world.run(&args);
            assert_eq!(
                refused(&output),
                (code.into(), exit, false),
                "{verb} {what}"
            );
            assert!(output.stdout.is_empty(), "{verb} {what}");
            assert_eq!(world.names(), ["sealed"], "{verb} {what}");
            assert!(world.bytes("sealed") == blob);
        }
        // What is to be replaced stays.
        let there = world.write("back", b"there");
        let mut args = vec!["open", &sealed, "-o", &there, "--force", "--key", &key];
        args.extend(context);
        assert_eq!(world.run(&args).status.code(), Some(exit));
        assert_eq!(world.bytes("back"), b"there");
        fs::remove_file(there).unwrap();
        assert_eq!(world.names(), ["sealed"]);
    }
}

#[test]
fn pipe_gets_what_is_authentic_and_is_told_when_that_is_not_all() {
    let world = World::new();
    let payload = payload(10_000);
    let blob = world.sealed(&payload);
    let cut = world.open("alice", &blob[..200 + 2 * 4112]);
    assert_eq!(refused(&cut), ("vault_truncated".into(), 5, true));
    assert!(
        cut.stdout == payload[..4096],
        "the last whole chunk may be the end"
    );

    let mut changed = blob.clone();
    changed[200 + 2 * 4112 + 1] ^= 1;
    let output = world.open("alice", &changed);
    assert_eq!(refused(&output), ("vault_damaged".into(), 5, true));
    assert!(output.stdout == payload[..8192]);
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(told.contains("INCOMPLETE"), "{told}");

    let mut changed = blob.clone();
    changed[200] ^= 1;
    let output = world.open("alice", &changed);
    assert_eq!(refused(&output), ("vault_damaged".into(), 5, false));
    assert!(output.stdout.is_empty());
    // Rekeying lets out a beginning that has no end.
    let (key, bob) = (world.key("alice"), world.bob.clone());
    let context = ["--context", "record=1", "--json"];
    let rekey = ["rekey", "--key", &key, "--recipient", &bob];
    let begun = world.pipe(&[&rekey[..], &context].concat(), &blob[..200 + 2 * 4112]);
    assert_eq!(refused(&begun).0, "vault_truncated");
    let begun = world.open("bob", &begun.stdout);
    assert_ne!(begun.status.code(), Some(0));
}

#[cfg(unix)]
#[test]
fn mode_is_kept_and_never_grows() {
    let world = World::new();
    let (plain, sealed, back) = (
        world.write("plain", b"hello"),
        world.file("s"),
        world.file("b"),
    );
    let key = world.key("alice");
    for (given, expected) in [
        (0o600, 0o600),
        (0o640, 0o640),
        (0o666, 0o666),
        (0o4755, 0o755),
    ] {
        set_mode(&plain, given);
        for file in [&sealed, &back] {
            let _ = fs::remove_file(file);
        }
        ok(&world.run(&["seal", &plain, "-o", &sealed, "--key", &key]));
        assert_eq!(mode(&sealed), expected);
        ok(&world.run(&["open", &sealed, "-o", &back, "--key", &key]));
        assert_eq!(mode(&back), expected);
        // What comes out of a pipe is for its owner alone.
        fs::remove_file(&back).unwrap();
        success(&world.pipe(&["open", "-o", &back, "--key", &key], &world.bytes("s")));
        assert_eq!(mode(&back), 0o600);
        // And so is what takes the place of such a file.
        ok(&world.run(&["open", &sealed, "-o", &back, "--force", "--key", &key]));
        assert_eq!(mode(&back), expected & 0o600);
    }
}

#[test]
fn what_is_there_is_replaced_only_when_that_is_said_and_only_a_file() {
    let world = World::new();
    let (key, plain) = (world.key("alice"), world.write("plain", b"hello"));
    let there = world.write("there", b"old");
    let seal = ["seal", &plain, "--key", &key, "--json", "-o"];
    let run = |more: &[&str]| world.run(&[&seal[..], more].concat());
    assert_eq!(refused(&run(&[&there])), ("exists".into(), 6, false));
    assert_eq!(refused(&run(&[&plain])), ("exists".into(), 6, false));
    assert_eq!(world.bytes("there"), b"old");
    ok(&run(&[&there, "--force"]));
    assert_ne!(world.bytes("there"), b"old");
    // In place.
    ok(&world.run(&["open", &there, "-o", &there, "--force", "--key", &key]));
    assert_eq!(world.bytes("there"), b"hello");

    let folder = world.path("keys").to_str().unwrap().to_owned();
    assert_eq!(
        refused(&run(&[&folder, "--force"])),
        ("bad_input".into(), 2, false)
    );
    #[cfg(unix)]
    {
        let link = world.file("link");
        std::os::unix::fs::symlink(&there, &link).unwrap();
        assert_eq!(
            refused(&run(&[&link, "--force"])),
            ("bad_input".into(), 2, false)
        );
        let null = run(&["/dev/null", "--force"]);
        assert_eq!(refused(&null), ("bad_input".into(), 2, false));
        fs::remove_file(link).unwrap();
    }
    let nowhere = world.file("no/such/folder");
    assert_eq!(refused(&run(&[&nowhere])), ("file".into(), 8, false));
    let missing = world.run(&[
        "seal",
        &nowhere,
        "--key",
        &key,
        "--json",
        "-o",
        &world.file("x"),
    ]);
    assert_eq!(refused(&missing), ("file".into(), 8, false));
    assert_eq!(world.bytes("there"), b"hello");
    assert_eq!(world.names(), ["plain", "there"]);
}

/// Somebody who is in the middle of writing `out`: half of the input is there.
#[cfg(unix)]
fn writing(world: &World, out: &str) -> Child {
    let key = world.key("alice");
    let args = ["seal", "-o", out, "--key", &key];
    let before = world.names();
    let mut child = world
        .command(&args)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    child
        .stdin
        .as_mut()
        .unwrap()
        .write_all(&payload(300_000))
        .unwrap();
    let half_written = || {
        let mut names = world.names();
        names.retain(|name| !before.contains(name));
        names.iter().any(|name| world.bytes(name).len() > 200_000)
    };
    for _ in 0..2_000 {
        if half_written() {
            break;
        }
        thread::sleep(Duration::from_millis(5));
    }
    child
}

#[cfg(unix)]
#[test]
fn file_that_appears_while_another_is_written_is_not_replaced() {
    let world = World::new();
    let child = writing(&world, &world.file("out"));
    world.write("out", b"of somebody else");
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(6));
    assert_eq!(world.bytes("out"), b"of somebody else");
    assert_eq!(world.names(), ["out"]);
}

#[cfg(unix)]
#[test]
fn killed_in_the_middle_nothing_has_the_name_and_the_next_command_cleans_up() {
    let world = World::new();
    let (out, key) = (world.file("out"), world.key("alice"));
    let mut child = writing(&world, &out);
    let [half] = world.names().try_into().unwrap();
    assert_eq!(mode(world.file(&half)), 0o600);
    child.kill().unwrap(); // SIGKILL
    child.wait().unwrap();
    assert_eq!(
        world.names(),
        [half.as_str()],
        "a killed process cannot clean up"
    );

    // Somebody else who is writing there is not disturbed, and neither are files of other names.
    let mut other = writing(&world, &world.file("other"));
    let names = world.names();
    assert!(names.len() == 1 && names[0] != half, "{names:?}");
    let foreign = world.write(".sprag-vault-mine", b"x");
    success(&world.pipe(&["seal", "-o", &out, "--key", &key], b"hello"));
    let mut left = vec![names[0].clone(), ".sprag-vault-mine".into(), "out".into()];
    left.sort();
    assert_eq!(world.names(), left);
    drop(other.stdin.take());
    success(&other.wait_with_output().unwrap());
    fs::remove_file(foreign).unwrap();
    assert_eq!(world.names(), ["other", "out"]);
    let opened = world.run(&["open", &world.file("other"), "--key", &key]);
    assert!(opened.stdout == payload(300_000));
}

#[cfg(unix)]
#[test]
fn interrupted_it_removes_what_is_half_written() {
    let world = World::new();
    for signal in ["-INT", "-TERM", "-HUP"] {
        let child = writing(&world, &world.file("out"));
        let pid = child.id().to_string();
        let kill = format!("kill {signal} {pid}");
        let sent = Command::new("sh").args(["-c", &kill]).status().unwrap();
        assert!(sent.success());
        // Its input stays open: the signal alone ends it.
        let mut child = child;
        let input = child.stdin.take();
        assert_eq!(child.wait().unwrap().code(), Some(130), "{signal}");
        drop(input);
        assert!(world.names().is_empty(), "{signal}: {:?}", world.names());
    }
}

#[test]
fn recipients_come_and_go_and_the_payload_is_not_touched() {
    let world = World::new();
    let payload = payload(10_000);
    let blob = world.sealed(&payload);
    let key = world.key("alice");
    let context = ["--context", "record=1", "--json"];
    let reseal = |key: &str, blob: &[u8], more: &[&str]| {
        world.pipe(
            &[&["reseal", "--key", key], &context[..], more].concat(),
            blob,
        )
    };
    let bob = format!("bob={}", world.bob);
    let both = reseal(&key, &blob, &["--add", &bob]);
    success(&both);
    let both = both.stdout;
    assert_eq!(both.len(), blob.len() + 88);
    assert!(both[288..] == blob[200..], "the payload is as it was");
    for name in ["alice", "bob"] {
        assert!(world.open(name, &both).stdout == payload, "{name}");
    }

    let listed = ok(&world.pipe(&["recipients", "--json"], &both));
    let listed: Vec<Value> = listed
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(listed.len(), 2);
    assert_eq!(
        (&listed[1]["number"], &listed[1]["kind"]),
        (&2.into(), &"public-key".into())
    );
    assert_eq!(
        (&listed[1]["id"], &listed[1]["id_text"]),
        (&"626f62".into(), &"bob".into())
    );
    let told = ok(&world.pipe(&["recipients"], &both));
    assert_eq!(told, "1  public-key\n2  public-key  bob\n");

    let one = reseal(&world.key("bob"), &both, &["--remove", "1"]);
    success(&one);
    assert!(String::from_utf8_lossy(&one.stderr).contains("rekey"));
    assert!(one.stdout[203..] == blob[200..]);
    assert!(world.open("bob", &one.stdout).stdout == payload);
    assert_eq!(
        refused(&world.open("alice", &one.stdout)).0,
        "vault_wrong_key"
    );
    let back = reseal(&key, &both, &["--remove-id", "bob"]);
    assert_eq!(
        refused(&world.open("bob", &back.stdout)).0,
        "vault_wrong_key"
    );
    assert!(world.open("alice", &back.stdout).stdout == payload);

    let cases: [(&str, &[&str], (&str, i32)); 6] = [
        (&key, &["--remove", "3"], ("not_found", 7)),
        (&key, &["--remove", "0"], ("not_found", 7)),
        (&key, &["--remove-id", "eve"], ("not_found", 7)),
        (&key, &["--remove", "1", "--remove", "2"], ("vault_seal", 2)),
        (
            &world.key("sym"),
            &["--remove", "2"],
            ("vault_wrong_key", 3),
        ),
        (&key, &[], ("bad_input", 2)),
    ];
    for (key, more, (code, exit)) in cases {
        let output = reseal(key, &both, more);
        assert_eq!(refused(&output), (code.into(), exit, false), "{more:?}");
        assert!(output.stdout.is_empty());
    }
    // In place, with a passphrase.
    let file = world.write("file", &both);
    let args = [
        "reseal",
        &file,
        "-o",
        &file,
        "--force",
        "--key",
        &key,
        "--add-passphrase",
    ];
    let mut command = world.command(&[&args[..], &context[..2]].concat());
    command.env("SPRAG_VAULT_NEW_PASSPHRASE", "words");
    success(&command.output().unwrap());
    let mut command = world.command(&["open", &file, "--context", "record=1"]);
    command.env("SPRAG_VAULT_PASSPHRASE", "words");
    assert!(command.output().unwrap().stdout == payload);
    assert_eq!(world.names(), ["file"]);
}

#[test]
fn rekeyed_file_is_closed_to_whoever_had_the_old_one() {
    let world = World::new();
    let payload = payload(10_000);
    let (old, new) = (
        world.write("old", &world.sealed(&payload)),
        world.file("new"),
    );
    let (alice, sym) = (world.key("alice"), world.key("sym"));
    let rekey = ["rekey", &old, "-o", &new, "--force", "--key", &alice];
    let context = ["--context", "record=1", "--json"];
    let run = |more: &[&str]| world.run(&[&rekey[..], &context, more].concat());
    ok(&run(&["--recipient", &world.bob]));
    assert!(world.open("bob", &world.bytes("new")).stdout == payload);
    let refusal = refused(&world.open("alice", &world.bytes("new")));
    assert_eq!(refusal.0, "vault_wrong_key");
    // An old header does not open the new payload.
    let spliced = [&world.bytes("old")[..200], &world.bytes("new")[200..]].concat();
    assert_eq!(refused(&world.open("alice", &spliced)).0, "vault_damaged");
    // Its form is kept unless another is asked for.
    let shown: Value = serde_json::from_str(&ok(&world.run(&["inspect", &new, "--json"]))).unwrap();
    assert_eq!(
        (&shown["chunk_bytes"], &shown["suite"]),
        (&4096.into(), &"aes256-gcm".into())
    );
    ok(&run(&[
        "--new-key",
        &sym,
        "--chunk-log2",
        "14",
        "--suite",
        "chacha20-poly1305",
    ]));
    assert!(world.open("sym", &world.bytes("new")).stdout == payload);
    let shown: Value = serde_json::from_str(&ok(&world.run(&["inspect", &new, "--json"]))).unwrap();
    assert_eq!(
        (&shown["chunk_bytes"], &shown["suite"]),
        (&16384.into(), &"chacha20-poly1305".into())
    );

    let args = ["rekey", "--key", &sym, "--new-key", &sym];
    let same = world.pipe(&[&args[..], &context].concat(), &world.bytes("new"));
    assert_eq!(refused(&same), ("vault_same_key".into(), 2, false));
    assert_eq!(refused(&run(&[])), ("vault_seal".into(), 2, false));
}

#[test]
fn sealed_file_is_inspected_without_a_key() {
    let world = World::new();
    let blob = world.sealed(&payload(10_000));
    let file = world.write("file", &blob);
    let by_name = ok(&world.run(&["inspect", &file, "--json"]));
    assert_eq!(by_name, ok(&world.pipe(&["inspect", "--json"], &blob)));
    let shown: Value = serde_json::from_str(&by_name).unwrap();
    assert_eq!(shown["type"], "vault");
    assert_eq!(shown["version"], 1);
    assert_eq!(shown["context"], true);
    assert_eq!(shown["header_bytes"], 200);
    assert_eq!(shown["bytes"], blob.len());
    assert_eq!(shown["payload_bytes"], 10_000);
    assert_eq!(shown["slots"].as_array().unwrap().len(), 1);
    let told = ok(&world.run(&["inspect", &file]));
    assert!(
        told.contains("10000 bytes") && told.contains("public-key"),
        "{told}"
    );
    // What has a length that no blob has is said not to be whole; the header alone decides on the rest.
    let cut = ok(&world.pipe(&["inspect", "--json"], &blob[..200 + 2 * 4112 + 10]));
    let shown: Value = serde_json::from_str(&cut).unwrap();
    assert_eq!(shown["payload_bytes"], Value::Null);
    for bad in [&blob[..50], b"hello".as_slice(), b""] {
        for verb in ["inspect", "recipients"] {
            let output = world.pipe(&[verb, "--json"], bad);
            assert_eq!(refused(&output), ("vault_format".into(), 5, false));
        }
    }
}

/// A blob of Lumera, its key, its payload.
const BLOB: &str = "a0a1a2a3a4a5a6a7a8a9aaab62c474cf95575fc1e459e66ca923ebd0f1fd5b34e306f4fa3073e75e7d86b860029725cdacbd4bf86b564d9715296493b2a7b17283ac";
const KEY: &str = "Dx4tPEtaaXiHlqW0w9Lh8A8eLTxLWml4h5altMPS4fA=";
const TEXT: &str = r#"{"messages": [], "session_id": "test"}"#;
const HASH: &str = "7d7c16c9b84b1dc13af948c0c4072bdc1b9502442138ea26ee79b2fac47f48e9";
const PAYLOAD_HASH: &str = "a47a633854b9277ad665b455cd8e71765cfde019ef08f86810c62f2e4158f76d";

#[test]
fn what_older_programs_wrote_is_imported_with_its_weaknesses_told() {
    let world = World::new();
    let blob = hex::decode(BLOB).unwrap();
    let old = world.write("old", &blob);
    let metadata = format!(
        r#"{{"algorithm": "AES-256-GCM", "key_id": "k", "plaintext_sha256": "{PAYLOAD_HASH}", "ciphertext_sha256": "{HASH}", "bytes": 66}}"#
    );
    let metadata = world.write("meta", metadata.as_bytes());
    let address = format!("cascade://{HASH}");
    let key = world.write("key", KEY.as_bytes());
    let keys = world.write("keys.json", format!(r#"{{"k": "{KEY}"}}"#).as_bytes());
    let digits = "0f1e2d3c4b5a69788796a5b4c3d2e1f00f1e2d3c4b5a69788796a5b4c3d2e1f0";
    let plugin = world.write("plugin", digits.as_bytes());
    let pyagent = hex::decode("a0a1a2a3a4a5a6a7a8a9aaab2fab8cef23588bba6c9cd1f43d271f7d058d3272616989e9a6b312e62af0016757326c0e634c999dd4a8bf0c56057e59").unwrap();
    let content = world.write(
        "content",
        format!("encrypted:{}\n", hex::encode(&pyagent)).as_bytes(),
    );
    let pyagent = world.write("pyagent", &pyagent);
    let public = "13be4feaeaf204c7fd3358fc9c00721881d174278128227ec674f37f7fe97b6d";
    let public = world.write("public", public.as_bytes());
    let vectors = include_str!("../../../tests/vectors/vault.json");
    let vectors: Value = serde_json::from_str(vectors).unwrap();
    let (aegis, aegis_text) = aegis_file(&vectors);
    let aegis = world.write("aegis", &aegis);

    let json = r#"{"id": "mem_1", "content": "hi"}"#.as_bytes();
    let text = TEXT.as_bytes();
    let cases: [(&[&str], &[u8], &[&str]); 8] = [
        (&["lumera", &old, "--old-key", &key], text, &["NoContext"]),
        (
            &["lumera", &old, "--old-key", &plugin],
            text,
            &["NoContext"],
        ),
        (
            &["lumera", &old, "--old-key", &keys, "--old-key-id", "k"],
            text,
            &["NoContext"],
        ),
        (
            &[
                "lumera",
                &old,
                "--old-key",
                &key,
                "--metadata",
                &metadata,
                "--address",
                &address,
            ],
            text,
            &["NoContext", "PlaintextHashBeside"],
        ),
        (
            &["aegis", &old, "--old-key", &key, "--single"],
            text,
            &["NoContext"],
        ),
        (
            &["aegis", &aegis, "--old-key", &key],
            &aegis_text,
            &["NoContext", "ChunksNotBound"],
        ),
        (
            &["pyagent", &pyagent, "--old-key", &public],
            json,
            &["NoContext", "KeyIsPublic"],
        ),
        (
            &["pyagent", &content, "--old-key", &public],
            json,
            &["NoContext", "KeyIsPublic"],
        ),
    ];
    let new = world.file("new");
    let to = [
        "-o",
        &new,
        "--force",
        "--recipient",
        &world.alice,
        "--context",
        "record=1",
        "--json",
    ];
    for (args, payload, warnings) in cases {
        let args = [&["import", "--from"], args, &to].concat();
        let output = world.run(&args);
        let line: Value = serde_json::from_str(&ok(&output)).unwrap();
        assert_eq!(line["warnings"], Value::from(warnings.to_vec()), "{args:?}");
        let notes = String::from_utf8_lossy(&output.stderr).lines().count();
        assert_eq!(notes, warnings.len());
        assert!(
            world.open("alice", &world.bytes("new")).stdout == payload,
            "{args:?}"
        );
    }
    fs::remove_file(&new).unwrap();

    let names = world.names();
    let wrong = world.write("../keys/wrong", &[b'A'; 43]);
    let other = world.write("../keys/other", &[&blob[..65], &[0]].concat());
    let cases: [(&[&str], (&str, i32)); 10] = [
        (&["lumera", &old, "--old-key", &wrong], ("legacy_closed", 3)),
        (&["lumera", &old, "--old-key", &old], ("legacy_key", 3)),
        (
            &["lumera", &old, "--old-key", &keys, "--old-key-id", "x"],
            ("not_found", 7),
        ),
        (
            &["lumera", &old, "--old-key", &key, "--metadata", &key],
            ("legacy_metadata", 2),
        ),
        (
            &["lumera", &other, "--old-key", &key, "--metadata", &metadata],
            ("legacy_ciphertext_hash", 5),
        ),
        (
            &["lumera", &other, "--old-key", &key, "--address", &address],
            ("legacy_ciphertext_hash", 5),
        ),
        (&["aegis", &old, "--old-key", &key], ("legacy_length", 5)),
        (
            &["aegis", &old, "--old-key", &key, "--metadata", &metadata],
            ("bad_input", 2),
        ),
        (
            &[
                "pyagent",
                &pyagent,
                "--old-key",
                &public,
                "--purpose",
                "chat",
            ],
            ("legacy_closed", 3),
        ),
        (
            &["pyagent", &pyagent, "--old-key", &public, "--single"],
            ("bad_input", 2),
        ),
    ];
    for (args, (code, exit)) in cases {
        let output = world.run(&[&["import", "--from"], args, &to].concat());
        assert_eq!(refused(&output), (code.into(), exit, false), "{args:?}");
        assert_eq!(world.names(), names, "{args:?}");
    }
}

/// The published file of AEGIS under the key above, and its payload.
fn aegis_file(vectors: &Value) -> (Vec<u8>, Vec<u8>) {
    let vector = &vectors["raw12"]["aegis_vault_file"];
    let file = hex::decode(vector["file"].as_str().unwrap()).unwrap();
    (file, vector["payload"].as_str().unwrap().into())
}

#[test]
fn key_files_are_for_their_owner_and_say_nothing_elsewhere() {
    let world = World::new();
    let key = world.key("alice");
    let content = fs::read_to_string(&key).unwrap();
    let secret = content
        .lines()
        .find(|line| line.starts_with("spragkey1"))
        .unwrap();
    assert!(content.contains(&world.alice));
    let keygen = world.run(&["keygen", "--out", &key, "--json"]);
    assert_eq!(refused(&keygen), ("exists".into(), 6, false));
    assert_eq!(
        fs::read_to_string(&key).unwrap(),
        content,
        "a key is never overwritten"
    );
    assert_eq!(
        ok(&world.run(&["keygen", "--show", &key])).trim(),
        world.alice
    );
    assert_ne!(world.alice, world.bob);
    assert_eq!(world.run(&["keygen"]).status.code(), Some(2));

    // Whoever gives the wrong half, or one with a slip in it, hears so, and it is not repeated.
    let mut slip = world.bob.clone().into_bytes();
    slip[20] = if slip[20] == b'q' { b'p' } else { b'q' };
    let slip = String::from_utf8(slip).unwrap();
    for wrong in [secret, &slip, "", "x=", &world.bob[..66]] {
        let output = world.pipe(&["seal", "--recipient", wrong, "--json"], b"hello");
        assert_eq!(refused(&output), ("bad_input".into(), 2, false));
        assert!(!String::from_utf8_lossy(&output.stderr).contains(secret));
    }
    let open = |content: &str, mode: u32| {
        let path = world.key("other");
        fs::write(&path, content).unwrap();
        #[cfg(unix)]
        set_mode(&path, mode);
        let _ = mode;
        let output = world.open("other", &world.sealed(b"hello"));
        assert!(!String::from_utf8_lossy(&output.stderr).contains("spragkey1"));
        output
    };
    success(&open(secret, 0o600));
    success(&open(&secret.to_uppercase(), 0o400));
    for (content, mode) in [
        ("", 0o600),
        (&content[..content.len() - 2], 0o600),
        (&format!("{secret}\n{secret}\n"), 0o600),
        (&world.alice, 0o600),
        #[cfg(unix)]
        (secret, 0o640),
        #[cfg(unix)]
        (secret, 0o604),
    ] {
        assert_eq!(
            refused(&open(content, mode)),
            ("key_unreadable".into(), 3, false)
        );
    }
    #[cfg(unix)]
    assert_eq!(mode(&key), 0o600);
    let twice = ["--context", "a=1", "--context", "a=2", "--json"];
    let output = world.pipe(&[&["seal", "--key", &key], &twice[..]].concat(), b"x");
    assert_eq!(refused(&output), ("bad_input".into(), 2, false));
    let output = world.pipe(&["seal", "--key", &key, "--context", "a", "--json"], b"x");
    assert_eq!(refused(&output), ("bad_input".into(), 2, false));
}

/// The most memory that a process had, in KiB.
#[cfg(target_os = "linux")]
fn peak(child: &Child) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmHWM"))
        .unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[cfg(target_os = "linux")]
#[test]
fn long_pipe_passes_in_the_memory_of_a_chunk() {
    use std::io::Read;
    const MIB: usize = 1 << 20;
    let world = World::new();
    let key = world.key("alice");
    // Feeds it, with a look at its memory after the first MiB and before the end.
    let run = |args: &[&str], input: &[u8]| {
        let mut child = world
            .command(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let mut stdout = child.stdout.take().unwrap();
        let reader = thread::spawn(move || {
            let mut output = Vec::new();
            stdout.read_to_end(&mut output).unwrap();
            output
        });
        stdin.write_all(&input[..MIB]).unwrap();
        let first = peak(&child);
        stdin.write_all(&input[MIB..]).unwrap();
        let last = peak(&child);
        drop(stdin);
        assert!(child.wait().unwrap().success());
        assert!(
            last < first + 4096,
            "{args:?}: {first} KiB, then {last} KiB"
        );
        reader.join().unwrap()
    };
    let payload = vec![0; 32 * MIB];
    let sealed = run(&["seal", "--recipient", &world.alice], &payload);
    let opened = run(&["open", "--key", &key], &sealed);
    assert!(opened == payload);
    let rekeyed = run(
        &["rekey", "--key", &key, "--recipient", &world.bob],
        &sealed,
    );
    let resealed = run(&["reseal", "--key", &key, "--add", &world.bob], &sealed);
    assert_eq!(rekeyed.len(), sealed.len());
    assert_eq!(resealed.len(), sealed.len() + 85);
}
