//! `sprag keys` as people and scripts use it: rings, what is sealed under them, and jobs that are killed.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread;

use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use serde_json::Value;
use sprag_keys::{Key, KeyId, KeySource, KeyVersion, RingFile};
use sprag_vault::raw12::{self, lumera};
use sprag_vault::{Context, DataKey, Header, Recipient, Sealing, Suite, Unlock};
use tempfile::TempDir;

const LUMERA: &str = "Dx4tPEtaaXiHlqW0w9Lh8A8eLTxLWml4h5altMPS4fA=";

/// A folder with a ring, its key file, and a folder of data.
struct World(TempDir);

impl World {
    /// With a ring that has the key `memories`.
    fn new() -> Self {
        let world = Self::empty();
        success(&world.keys(&["init"]));
        success(&world.keys(&["create", "memories"]));
        world
    }

    fn empty() -> Self {
        let world = Self(tempfile::tempdir().unwrap());
        fs::create_dir(world.path("data")).unwrap();
        world
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    /// A file of the data.
    fn data(&self, name: &str) -> String {
        self.text(&format!("data/{name}"))
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sprag"));
        for name in [
            "SPRAG_HOME",
            "SPRAG_KEY_FILE",
            "SPRAG_PASSPHRASE",
            "SPRAG_VAULT_PASSPHRASE",
            "SPRAG_RING",
            "SPRAG_RING_PASSPHRASE",
            "LUMERA_KEY_STORE_PATH",
            "LUMERA_MEMORY_KEY",
        ] {
            command.env_remove(name);
        }
        command.env("HOME", self.path("home"));
        command.env("SPRAG_RING_KEY_FILE", self.path("ring.key"));
        command.arg("--json").args(args).stdin(Stdio::null());
        command
    }

    fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    fn with_ring(&self, args: &[&str]) -> Vec<String> {
        let ring = ["--ring".to_owned(), self.text("ring")];
        let args = args.iter().map(|arg| (*arg).to_owned());
        args.chain(ring).collect()
    }

    /// `sprag keys` with the ring.
    fn keys(&self, args: &[&str]) -> Output {
        let args = self.with_ring(args);
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        self.run(&[&["keys"], args.as_slice()].concat())
    }

    /// `sprag vault` with the ring.
    fn vault(&self, args: &[&str]) -> Output {
        let args = self.with_ring(args);
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        self.run(&[&["vault"], args.as_slice()].concat())
    }

    /// The program with the job of the data, to be waited for.
    fn job(&self) -> Child {
        let args = self.with_ring(&["job", "start", &self.text("data"), "--key", "memories"]);
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let mut command = self.command(&[&["keys"], args.as_slice()].concat());
        command.stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().unwrap()
    }

    fn ring(&self) -> RingFile {
        RingFile::open(self.path("ring"), &Key::file(self.path("ring.key"))).unwrap()
    }

    fn key(&self, version: u32) -> DataKey {
        let key = self.ring().by_version(&id(), number(version)).unwrap();
        DataKey::from_bytes(key.as_bytes())
    }

    /// Seals a file of the data as `vault seal --ring` does, without a process for each.
    fn seal(&self, name: &str, text: &[u8], version: u32, context: &[(&str, &str)]) {
        let slot = format!("memories/{version}");
        let (key, to) = (self.key(version), [Recipient::direct(&slot)]);
        let context = Context::from_pairs(context.iter().copied()).unwrap();
        let sealing = Sealing::new(&key, &to).context(&context);
        let blob = sprag_vault::seal(text, &sealing, &mut rng(1)).unwrap();
        self.write(name, &blob);
    }

    fn write(&self, name: &str, content: &[u8]) {
        let path = self.path("data").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.path("data").join(name)).unwrap()
    }

    /// Opens a file of the data: its version, which both its slot and its key say, and its text.
    fn open(&self, name: &str, context: &[(&str, &str)]) -> (u32, Vec<u8>) {
        opened(&self.ring(), &self.read(name), context)
    }

    /// All that is below the folder, hidden files too, with what each holds.
    fn all(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let (mut all, mut waiting) = (BTreeMap::new(), vec![self.0.path().to_path_buf()]);
        while let Some(folder) = waiting.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                match path.is_dir() {
                    true => waiting.push(path),
                    false => drop(all.insert(path.clone(), fs::read(path).unwrap())),
                }
            }
        }
        all
    }

    /// Names of hidden files in the data.
    fn hidden(&self) -> Vec<String> {
        let entries = fs::read_dir(self.path("data")).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<_> = names.filter(|name| name.starts_with('.')).collect();
        names.sort();
        names
    }
}

fn opened(ring: &RingFile, blob: &[u8], context: &[(&str, &str)]) -> (u32, Vec<u8>) {
    let slot = Header::parse(blob).unwrap().slots()[0].id().to_vec();
    let slot = String::from_utf8(slot).unwrap();
    let (name, version) = slot.split_once('/').unwrap();
    assert_eq!(name, "memories");
    let version: u32 = version.parse().unwrap();
    let key = ring.by_version(&id(), number(version)).unwrap();
    let unlock = Unlock::new().direct(&slot, DataKey::from_bytes(key.as_bytes()));
    let context = Context::from_pairs(context.iter().copied()).unwrap();
    let text = sprag_vault::open(blob, &unlock, &context).unwrap();
    (version, text.to_vec())
}

fn id() -> KeyId {
    KeyId::new("memories").unwrap()
}

fn number(version: u32) -> KeyVersion {
    KeyVersion::new(version).unwrap()
}

fn rng(seed: u64) -> ChaCha20Rng {
    ChaCha20Rng::seed_from_u64(seed)
}

#[track_caller]
fn success(output: &Output) {
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{error}");
}

/// The results, one JSON object per line.
#[track_caller]
fn lines(output: &Output) -> Vec<Value> {
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    let lines = text.lines();
    lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[track_caller]
fn ok(output: &Output) -> Vec<Value> {
    success(output);
    lines(output)
}

/// The code of the error and the exit code.
#[track_caller]
fn refused(output: &Output) -> (String, i32) {
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(!error.contains("panicked"), "{error}");
    let line = error.lines().find(|line| line.contains("\"code\""));
    let value: Value = serde_json::from_str(line.unwrap_or_else(|| panic!("{error}"))).unwrap();
    let exit = output.status.code().unwrap();
    assert_eq!(value["exit"], exit);
    (value["code"].as_str().unwrap().to_owned(), exit)
}

#[track_caller]
fn is_refused(output: &Output, code: &str, exit: i32) {
    assert_eq!(refused(output), (code.to_owned(), exit));
}

fn versions(lines: &[Value]) -> Vec<(String, u64, String)> {
    let of = |line: &Value| {
        assert_eq!(line["type"], "key_version");
        let text = |field: &str| line[field].as_str().unwrap().to_owned();
        (
            text("key"),
            line["version"].as_u64().unwrap(),
            text("state"),
        )
    };
    lines.iter().map(of).collect()
}

fn listed(expected: &[(&str, u64, &str)]) -> Vec<(String, u64, String)> {
    let owned = |(key, version, state): &(&str, u64, &str)| {
        ((*key).to_owned(), *version, (*state).to_owned())
    };
    expected.iter().map(owned).collect()
}

#[cfg(unix)]
fn set_mode(path: impl AsRef<Path>, mode: u32) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[cfg(unix)]
fn mode(path: impl AsRef<Path>) -> u32 {
    use std::os::unix::fs::PermissionsExt;
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

#[test]
fn keys_go_through_their_versions_and_no_output_shows_one() {
    let world = World::empty();
    let made = ok(&world.keys(&["init"]));
    assert_eq!(made[0]["type"], "ring");
    assert!(ok(&world.keys(&["list"])).is_empty());
    let mut said = Vec::new();
    let mut say = |output: Output| {
        success(&output);
        said.extend([output.stdout.clone(), output.stderr.clone()]);
        versions(&lines(&output))
    };
    assert_eq!(
        say(world.keys(&["create", "memories"])),
        listed(&[("memories", 1, "current")])
    );
    say(world.keys(&["create", "chats"]));
    assert_eq!(
        say(world.keys(&["rotate", "memories"])),
        listed(&[("memories", 2, "current")])
    );
    say(world.keys(&["retire", "memories"]));
    is_refused(
        &world.vault(&["seal", &world.text("ring.key"), "--key", "memories"]),
        "key_no_current",
        6,
    );
    say(world.keys(&["rotate", "memories"]));
    let keys: Vec<_> = (1..4).map(|version| world.key(version)).collect();
    say(world.keys(&["destroy", "memories", "1", "--yes"]));
    // Twice changes nothing.
    say(world.keys(&["destroy", "memories", "1"]));
    assert_eq!(
        say(world.keys(&["list"])),
        listed(&[
            ("chats", 1, "current"),
            ("memories", 1, "destroyed"),
            ("memories", 2, "retired"),
            ("memories", 3, "current"),
        ])
    );
    assert_eq!(say(world.keys(&["list", "chats"])).len(), 1);
    is_refused(
        &world.keys(&["destroy", "memories", "3", "--yes"]),
        "key_current",
        6,
    );
    is_refused(
        &world.keys(&["retire", "memories", "1"]),
        "key_destroyed",
        6,
    );
    for key in keys {
        let digits = hex::encode(key.as_bytes());
        for said in &said {
            assert!(!String::from_utf8_lossy(said).contains(&digits));
            assert!(!said.windows(8).any(|part| part == &key.as_bytes()[..8]));
        }
    }
    let plain = world.command(&[]).output().unwrap();
    assert_eq!(plain.status.code(), Some(2));
}

#[test]
fn what_is_there_is_never_made_anew() {
    let world = World::new();
    let before = world.all();
    is_refused(&world.keys(&["init"]), "exists", 6);
    is_refused(&world.keys(&["create", "memories"]), "exists", 6);
    let folder = world.text("data");
    let made = world.run(&["keys", "init", "--ring", &folder]);
    is_refused(&made, "exists", 6);
    assert_eq!(world.all(), before);
}

#[test]
fn an_unknown_name_or_version_makes_no_key_whatever_is_asked() {
    let world = World::new();
    world.seal("a", b"text", 1, &[]);
    let data = world.text("data");
    let file = world.data("a");
    let before = world.all();
    for args in [
        &["list", "chats"][..],
        &["rotate", "chats"],
        &["retire", "chats"],
        &["destroy", "chats", "1", "--yes"],
        &["retire", "memories", "7"],
        &["destroy", "memories", "7", "--yes"],
        &["job", "start", &data, "--key", "chats"],
    ] {
        for _ in 0..2 {
            is_refused(&world.keys(args), "no_such_key", 7);
        }
    }
    for args in [
        &["seal", &file, "--key", "chats", "-o", "x"][..],
        &["open", &file, "--key", "chats"],
    ] {
        is_refused(&world.vault(args), "no_such_key", 7);
    }
    // A file that names a version which never was.
    let key = world.key(1);
    let to = [Recipient::direct("memories/9")];
    let blob = sprag_vault::seal(b"x", &Sealing::new(&key, &to), &mut rng(1)).unwrap();
    fs::write(world.path("odd"), blob).unwrap();
    let odd = world.text("odd");
    is_refused(&world.vault(&["open", &odd]), "no_such_key", 7);
    fs::remove_file(odd).unwrap();
    // What is no name leads nowhere.
    for name in ["../ring", "a/b", ""] {
        let refused = world.keys(&["create", name]);
        assert_eq!(refused.status.code(), Some(2), "{name}");
    }
    let after = world.all();
    let changed = after
        .iter()
        .filter(|(path, content)| before.get(*path) != Some(content));
    let changed: Vec<_> = changed.map(|(path, _)| path.clone()).collect();
    // The lock of the job that was not begun, which is empty.
    assert_eq!(changed, [world.path("data/.sprag-keys-job.lock")]);
}

#[test]
fn an_unreadable_ring_is_an_error_and_never_an_empty_one_and_stays_as_it_is() {
    let world = World::new();
    world.seal("a", b"text", 1, &[]);
    let (data, file) = (world.text("data"), world.data("a"));
    let whole = fs::read(world.path("ring")).unwrap();
    let mut damaged = whole.clone();
    *damaged.last_mut().unwrap() ^= 1;
    let mut newer = whole.clone();
    newer[8] = 2;
    let all = |code: &str, exit: i32| {
        let before = world.all();
        for args in [
            &["list"][..],
            &["create", "chats"],
            &["rotate", "memories"],
            &["retire", "memories"],
            &["destroy", "memories", "1", "--yes"],
            &["job", "start", &data, "--key", "memories"],
        ] {
            is_refused(&world.keys(args), code, exit);
        }
        for args in [&["seal", &file, "--key", "memories"][..], &["open", &file]] {
            is_refused(&world.vault(args), code, exit);
        }
        let after = world.all();
        let lock = world.path("data/.sprag-keys-job.lock");
        for (path, content) in after.iter().filter(|(path, _)| **path != lock) {
            assert_eq!(before.get(path), Some(content), "{}", path.display());
        }
    };
    for (content, code, exit) in [
        (&b""[..], "ring_damaged", 5),
        (b"{}", "ring_damaged", 5),
        (&whole[..whole.len() / 2], "ring_wrong_key", 3),
        (&damaged, "ring_wrong_key", 3),
        (&newer, "ring_newer", 1),
    ] {
        fs::write(world.path("ring"), content).unwrap();
        all(code, exit);
        is_refused(&world.keys(&["init"]), "exists", 6);
        assert_eq!(fs::read(world.path("ring")).unwrap(), content);
    }
    fs::write(world.path("ring"), &whole).unwrap();
    #[cfg(unix)]
    {
        set_mode(world.path("ring"), 0o644);
        all("key_unreadable", 3);
        set_mode(world.path("ring"), 0o600);
    }
    success(&world.keys(&["list"]));
    fs::remove_file(world.path("ring")).unwrap();
    all("ring_not_found", 7);
    assert!(!world.path("ring").exists(), "no ring is made by asking");
}

#[test]
fn an_unreadable_key_file_opens_nothing_and_is_never_overwritten() {
    let world = World::new();
    let file = world.path("ring.key");
    let whole = fs::read(&file).unwrap();
    let other = "07".repeat(32);
    for (content, code) in [
        (&b""[..], "key_unreadable"),
        (b"no key", "key_unreadable"),
        (&whole[..20], "key_unreadable"),
        (other.as_bytes(), "ring_wrong_key"),
    ] {
        fs::write(&file, content).unwrap();
        for args in [&["list"][..], &["rotate", "memories"]] {
            is_refused(&world.keys(args), code, 3);
        }
        if code == "key_unreadable" {
            // Nor does it become the key of a new ring.
            let ring = world.text("another");
            is_refused(&world.run(&["keys", "init", "--ring", &ring]), code, 3);
            assert!(!world.path("another").exists());
        }
        assert_eq!(fs::read(&file).unwrap(), content);
    }
    #[cfg(unix)]
    {
        fs::write(&file, &whole).unwrap();
        set_mode(&file, 0o640);
        is_refused(&world.keys(&["list"]), "key_unreadable", 3);
    }
    fs::remove_file(&file).unwrap();
    is_refused(&world.keys(&["list"]), "file", 8);
    assert!(!file.exists(), "only `init` makes one");
}

#[test]
fn a_ring_opens_with_its_passphrase() {
    let world = World::empty();
    let ring = world.text("ring");
    let run = |args: &[&str], passphrase: Option<&str>| {
        let mut command = world.command(&[&["keys"], args, &["--ring", &ring]].concat());
        command.env_remove("SPRAG_RING_KEY_FILE");
        if let Some(passphrase) = passphrase {
            command.env("SPRAG_RING_PASSPHRASE", passphrase);
        }
        command.output().unwrap()
    };
    // Nobody is asked for the passphrase of nothing.
    is_refused(&run(&["list"], None), "ring_not_found", 7);
    is_refused(&run(&["init"], Some("")), "key_unreadable", 3);
    success(&run(&["init"], Some("correct horse")));
    success(&run(&["create", "memories"], Some("correct horse")));
    is_refused(&run(&["list"], Some("wrong horse")), "ring_wrong_key", 3);
    is_refused(&run(&["list"], None), "bad_input", 2);
    let with_file = world
        .command(&["keys", "list", "--ring", &ring])
        .env("SPRAG_RING_KEY_FILE", "none")
        .output()
        .unwrap();
    is_refused(&with_file, "file", 8);
}

#[test]
fn what_is_sealed_under_a_ring_opens_with_it_through_rotations_until_its_version_is_destroyed() {
    let world = World::new();
    fs::write(world.path("plain"), "hello").unwrap();
    let (plain, sealed) = (world.text("plain"), world.data("sealed"));
    let context = ["--context", "record=1"];
    let seal = ["seal", &plain, "-o", &sealed, "--key", "memories"];
    success(&world.vault(&[&seal[..], &context].concat()));
    assert_eq!(world.open("sealed", &[("record", "1")]).0, 1);
    let open = |more: &[&str]| world.vault(&[&["open", &sealed], more, &context].concat());
    success(&world.keys(&["rotate", "memories"]));
    success(&world.keys(&["create", "chats"]));
    for more in [&[][..], &["--key", "memories"]] {
        assert_eq!(open(more).stdout, b"hello");
    }
    is_refused(&open(&["--key", "chats"]), "vault_wrong_key", 3);
    is_refused(&world.vault(&["open", &sealed]), "vault_context", 6);

    // Nobody gets the key of a ring through a blob.
    let key = world.text("alice.key");
    let made = ok(&world.run(&["vault", "keygen", "--out", &key]));
    let public = made[0]["public"].as_str().unwrap();
    let refused = |output: &Output| is_refused(output, "vault_symmetric", 2);
    let seal = ["seal", &plain, "--key", "memories"];
    refused(&world.vault(&[&seal[..], &["--recipient", public]].concat()));
    refused(&world.vault(&[&seal[..], &["--passphrase"]].concat()));
    refused(&world.vault(&[&seal[..], &["--key", "chats"]].concat()));
    let out = world.text("out");
    let reseal = ["reseal", &sealed, "-o", &out, "--add", public];
    refused(&world.vault(&[&reseal[..], &context].concat()));
    let rekey = ["rekey", &sealed, "-o", &out, "--recipient", public];
    success(&world.vault(&[&rekey[..], &context].concat()));
    let theirs = world.run(&[
        "vault",
        "open",
        &out,
        "--key",
        &key,
        "--context",
        "record=1",
    ]);
    assert_eq!(theirs.stdout, b"hello");

    is_refused(
        &world.keys(&["destroy", "memories", "1", "--yes"]),
        "key_in_use",
        6,
    );
    let data = world.text("data");
    let destroy = ["destroy", "memories", "1", "--abandon", &data];
    is_refused(&world.keys(&destroy), "not_confirmed", 6);
    assert_eq!(open(&[]).stdout, b"hello");
    success(&world.keys(&[&destroy[..], &["--yes"]].concat()));
    is_refused(&open(&[]), "key_destroyed", 7);
}

/// Files of all kinds under version 1, with their context and text.
fn fill(world: &World) -> Vec<(&'static str, Vec<u8>)> {
    let texts = [
        ("a", 0),
        ("b", 1),
        ("deep/er/c", 65_536),
        ("deep/d", 200_000),
        ("e f ü", 4_097),
    ];
    let texts = texts.map(|(name, length)| {
        let text: Vec<u8> = (0..=250).cycle().take(length).collect();
        (name, text)
    });
    for (name, text) in &texts {
        world.seal(name, text, 1, &[("record", name)]);
    }
    texts.to_vec()
}

#[test]
fn a_job_puts_everything_under_the_current_version_and_then_the_old_one_can_go() {
    let world = World::new();
    let texts = fill(&world);
    // In another suite and other pieces, without a context, and for somebody else.
    let (key, to) = (world.key(1), [Recipient::direct("memories/1")]);
    let sealing = Sealing::new(&key, &to)
        .suite(Suite::ChaCha20Poly1305)
        .chunk_size(sprag_vault::ChunkSize::from_log2(12).unwrap());
    world.write(
        "plainly",
        &sprag_vault::seal(&[7; 9_000], &sealing, &mut rng(2)).unwrap(),
    );
    let theirs = DataKey::generate(&mut rng(3));
    let to = [Recipient::passphrase("", "x")];
    let theirs = sprag_vault::seal(b"x", &Sealing::new(&theirs, &to), &mut rng(4)).unwrap();
    world.write("theirs", &theirs);
    #[cfg(unix)]
    set_mode(world.data("b"), 0o640);
    success(&world.keys(&["rotate", "memories"]));
    let data = world.text("data");

    let status = || world.run(&["keys", "job", "status", &data]);
    is_refused(&status(), "no_job", 7);
    is_refused(&world.keys(&["job", "resume", &data]), "no_job", 7);
    let destroy = ["destroy", "memories", "1", "--yes", "--folder", &data];
    is_refused(&world.keys(&destroy), "key_in_use", 6);

    let context = ["--context", "record={file}"];
    let start = ["job", "start", &data, "--key", "memories"];
    let done = ok(&world.keys(&[&start[..], &context].concat()));
    let [job] = done.as_slice() else {
        panic!("{done:?}")
    };
    assert_eq!(job["type"], "key_job");
    assert_eq!(
        (&job["state"], &job["failed"]),
        (&"finished".into(), &0.into())
    );
    assert_eq!((&job["version"], &job["resealed"]), (&2.into(), &6.into()));
    assert_eq!(ok(&status())[0]["state"], "finished");
    for (name, text) in &texts {
        assert_eq!(world.open(name, &[("record", name)]), (2, text.clone()));
    }
    let plainly = world.read("plainly");
    assert_eq!(opened(&world.ring(), &plainly, &[]), (2, vec![7; 9_000]));
    let header = Header::parse(&plainly).unwrap();
    assert_eq!(header.suite(), Suite::ChaCha20Poly1305);
    assert_eq!(header.chunk_size().log2(), 12);
    assert_eq!(world.read("theirs"), theirs);
    #[cfg(unix)]
    assert_eq!(mode(world.data("b")), 0o640);
    assert_eq!(world.hidden(), [".sprag-keys-job", ".sprag-keys-job.lock"]);

    // The job is where the ring knows it: destroying looks there without being told.
    world.seal("late", b"late", 1, &[]);
    let destroy = ["destroy", "memories", "1", "--yes"];
    is_refused(&world.keys(&destroy), "key_in_use", 6);
    let again = ok(&world.keys(&[&start[..], &context].concat()));
    assert_eq!(again[0]["state"], "finished");
    assert_eq!(world.open("late", &[]), (2, b"late".to_vec()));
    success(&world.keys(&destroy));
    for (name, text) in &texts {
        assert_eq!(world.open(name, &[("record", name)]), (2, text.clone()));
    }
}

#[test]
fn each_file_that_cannot_be_done_is_named_and_no_other_suffers() {
    let world = World::new();
    let texts = fill(&world);
    success(&world.keys(&["rotate", "memories"]));
    // Cut, altered, foreign, of another context, with another recipient beside, and saying what it is not.
    for name in ["cut", "altered"] {
        world.seal(name, &[7; 200_000], 1, &[("record", name)]);
    }
    let mut cut = world.read("cut");
    cut.pop();
    world.write("cut", &cut);
    let mut altered = world.read("altered");
    altered[100_000] ^= 1;
    world.write("altered", &altered);
    world.write("foreign", b"nothing that is sealed");
    world.seal("elsewhere", b"x", 1, &[("record", "other")]);
    let (key, none) = (world.key(1), Context::none());
    let to = [
        Recipient::direct("memories/1"),
        Recipient::passphrase("", "x"),
    ];
    let several = sprag_vault::seal(b"x", &Sealing::new(&key, &to), &mut rng(2)).unwrap();
    world.write("several", &several);
    let to = [Recipient::direct("memories/2")];
    let stranger = DataKey::generate(&mut rng(3));
    let lying = sprag_vault::seal(b"x", &Sealing::new(&stranger, &to), &mut rng(4)).unwrap();
    world.write("lying", &lying);
    // It says the new version, and is under the old one: that is what counts.
    let sealing = Sealing::new(&key, &to).context(&none);
    world.write(
        "modest",
        &sprag_vault::seal(b"modest", &sealing, &mut rng(5)).unwrap(),
    );
    let bad = ["altered", "cut", "elsewhere", "foreign", "lying", "several"];
    let before: Vec<_> = bad.iter().map(|name| world.read(name)).collect();

    let data = world.text("data");
    let context = ["--context", "record={file}"];
    let start = ["job", "start", &data, "--key", "memories"];
    let output = world.keys(&[&start[..], &context].concat());
    is_refused(&output, "job_blocked", 5);
    let said = lines(&output);
    let failures = said.iter().filter(|line| line["type"] == "key_failure");
    let failures: Vec<_> = failures
        .map(|line| {
            (
                line["file"].as_str().unwrap(),
                line["code"].as_str().unwrap(),
            )
        })
        .collect();
    assert_eq!(
        failures,
        [
            ("altered", "vault_damaged"),
            ("cut", "vault_damaged"),
            ("elsewhere", "vault_context"),
            ("foreign", "vault_format"),
            ("lying", "vault_wrong_key"),
            ("several", "vault_symmetric"),
        ]
    );
    let job = said.last().unwrap();
    assert_eq!(
        (&job["state"], &job["failed"]),
        (&"blocked".into(), &6.into())
    );
    for (name, content) in bad.iter().zip(before) {
        assert_eq!(world.read(name), content, "{name} was touched");
    }
    for (name, text) in &texts {
        assert_eq!(world.open(name, &[("record", name)]), (2, text.clone()));
    }
    assert!(world.open("modest", &[]) == (2, b"modest".to_vec()));
    assert_eq!(world.hidden(), [".sprag-keys-job", ".sprag-keys-job.lock"]);
    let destroy = ["destroy", "memories", "1", "--yes"];
    is_refused(&world.keys(&destroy), "key_in_use", 6);

    // Resumed with nothing repaired it names them again; repaired, it ends.
    let resume = ["job", "resume", &data];
    let output = world.keys(&[&resume[..], &context].concat());
    is_refused(&output, "job_blocked", 5);
    assert_eq!(lines(&output).len(), 7);
    for name in bad {
        fs::remove_file(world.data(name)).unwrap();
    }
    let done = ok(&world.keys(&[&resume[..], &context].concat()));
    assert_eq!(done[0]["state"], "finished");
    success(&world.keys(&destroy));
}

#[test]
fn without_its_context_nothing_is_done_and_a_slip_in_it_is_told_at_once() {
    let world = World::new();
    world.seal("a", b"x", 1, &[("record", "a")]);
    success(&world.keys(&["rotate", "memories"]));
    let (data, before) = (world.text("data"), world.read("a"));
    let start = ["job", "start", &data, "--key", "memories"];
    is_refused(&world.keys(&start), "job_blocked", 5);
    let slip = world.keys(&[&start[..], &["--context", "record"]].concat());
    is_refused(&slip, "bad_input", 2);
    let twice = ["--context", "a=1", "--context", "a=2"];
    is_refused(&world.keys(&[&start[..], &twice].concat()), "bad_input", 2);
    assert_eq!(world.read("a"), before);
}

/// A world whose key `memories` is one of Lumera, with files under it, one with metadata.
fn older() -> (World, DataKey) {
    let world = World::empty();
    success(&world.keys(&["init"]));
    fs::create_dir_all(world.path("home/.lumera/keys")).unwrap();
    fs::write(world.path("home/.lumera/keys/default.key"), LUMERA).unwrap();
    #[cfg(unix)]
    set_mode(world.path("home/.lumera/keys/default.key"), 0o600);
    let import = [
        "import",
        "memories",
        "--from",
        "lumera-files",
        "--old-name",
        "default",
    ];
    assert_eq!(
        versions(&ok(&world.keys(&import))),
        listed(&[("memories", 1, "current")])
    );
    let key = world.key(1);
    world.write("blob", &raw12::seal(&key, b"older", &mut rng(1)));
    let (sealed, metadata) = lumera::seal(&key, "default", b"with metadata", &mut rng(2));
    world.write("told", &sealed);
    world.write("told.meta", metadata.to_json(lumera::Form::Tool).as_bytes());
    world.seal("newer", b"newer", 1, &[]);
    success(&world.keys(&["rotate", "memories"]));
    (world, key)
}

#[test]
fn older_files_are_upgraded_and_what_stands_beside_them_is_verified() {
    let (world, _) = older();
    let data = world.text("data");
    let start = ["job", "start", &data, "--key", "memories"];
    // Unless that is said they are foreign.
    is_refused(&world.keys(&start), "job_blocked", 5);
    let (_, other) = lumera::seal(&world.key(1), "default", b"another", &mut rng(3));
    let whole = world.read("told.meta");
    world.write("told.meta", other.to_json(lumera::Form::Tool).as_bytes());
    let upgrade = ["--raw12", "upgrade", "--context", "record={file}"];
    let output = world.keys(&[&start[..], &upgrade].concat());
    is_refused(&output, "job_blocked", 5);
    assert_eq!(lines(&output)[0]["file"], "told");
    world.write("told.meta", &whole);
    let done = ok(&world.keys(&[&start[..], &upgrade].concat()));
    assert_eq!(done[0]["state"], "finished");
    assert_eq!(
        world.open("blob", &[("record", "blob")]),
        (2, b"older".to_vec())
    );
    assert_eq!(
        world.open("told", &[("record", "told")]),
        (2, b"with metadata".to_vec())
    );
    assert_eq!(world.open("newer", &[]), (2, b"newer".to_vec()));
    assert_eq!(world.read("told.meta"), whole);
    success(&world.keys(&["destroy", "memories", "1", "--yes"]));
}

#[test]
fn older_files_keep_their_form_if_that_is_asked_for() {
    let (world, old) = older();
    let data = world.text("data");
    let keep = [
        "job", "start", &data, "--key", "memories", "--raw12", "keep",
    ];
    let output = world.keys(&keep);
    is_refused(&output, "job_blocked", 5);
    let [failure, _] = lines(&output).try_into().unwrap();
    assert_eq!(failure["code"], "metadata_beside");
    // Something of the older form is under version 1 still: that is looked for, too.
    let destroy = ["destroy", "memories", "1", "--yes"];
    is_refused(&world.keys(&destroy), "key_in_use", 6);
    fs::remove_file(world.data("told.meta")).unwrap();
    assert_eq!(ok(&world.keys(&keep))[0]["state"], "finished");
    for (name, text) in [("blob", &b"older"[..]), ("told", b"with metadata")] {
        assert!(raw12::open(&old, &world.read(name)).is_err());
        assert_eq!(
            *raw12::open(&world.key(2), &world.read(name)).unwrap(),
            *text
        );
    }
    success(&world.keys(&destroy));
}

#[test]
fn keys_of_older_programs_are_taken_in_once_and_their_files_left_alone() {
    let world = World::new();
    let expected = hex::decode("0f1e2d3c4b5a69788796a5b4c3d2e1f0".repeat(2)).unwrap();
    fs::create_dir_all(world.path("home/.lumera-agent-memory")).unwrap();
    let json = world.path("home/.lumera-agent-memory/keys.json");
    fs::write(&json, format!("{{\"default\": \"{LUMERA}\"}}")).unwrap();
    let aegis = world.path("aegis_key.key");
    fs::write(&aegis, LUMERA).unwrap();
    #[cfg(unix)]
    {
        set_mode(&json, 0o644);
        set_mode(&aegis, 0o600);
        let open = world.keys(&["import", "default", "--from", "lumera-json"]);
        is_refused(&open, "key_permissions", 3);
        set_mode(&json, 0o600);
    }
    let before = fs::read(&aegis).unwrap();
    success(&world.keys(&["import", "default", "--from", "lumera-json"]));
    let aegis_path = world.text("aegis_key.key");
    let import = ["import", "aegis", "--from", "aegis", "--path", &aegis_path];
    success(&world.keys(&import));
    let from_env = world.with_ring(&["keys", "import", "fromenv", "--from", "lumera-env"]);
    let from_env: Vec<&str> = from_env.iter().map(String::as_str).collect();
    is_refused(&world.run(&from_env), "no_such_key", 7);
    let imported = world
        .command(&from_env)
        .env("LUMERA_KEY_FROMENV", LUMERA)
        .output()
        .unwrap();
    success(&imported);
    for name in ["default", "aegis", "fromenv"] {
        let key = world.ring().current(&KeyId::new(name).unwrap()).unwrap();
        assert_eq!(key.as_bytes().as_slice(), expected, "{name}");
    }
    is_refused(&world.keys(&import), "exists", 6);
    for args in [
        &["import", "none", "--from", "lumera-json"][..],
        &["import", "none", "--from", "lumera-files"],
    ] {
        is_refused(&world.keys(args), "no_such_key", 7);
    }
    fs::write(&json, "{").unwrap();
    let damaged = world.keys(&["import", "other", "--from", "lumera-json"]);
    is_refused(&damaged, "key_malformed", 3);
    assert_eq!(fs::read(&json).unwrap(), b"{");
    assert_eq!(fs::read(&aegis).unwrap(), before);
}

#[test]
fn a_folder_that_cannot_be_looked_into_keeps_a_key_from_being_destroyed_until_it_is_given_up() {
    let world = World::new();
    world.seal("a", b"x", 1, &[]);
    success(&world.keys(&["rotate", "memories"]));
    let data = world.text("data");
    success(&world.keys(&["job", "start", &data, "--key", "memories"]));
    fs::rename(world.path("data"), world.path("away")).unwrap();
    let destroy = ["destroy", "memories", "1", "--yes"];
    is_refused(&world.keys(&destroy), "folder_unseen", 8);
    fs::write(world.path("ring.places"), "{").unwrap();
    is_refused(&world.keys(&destroy), "ring_places", 5);
    fs::write(world.path("ring.places"), format!("[{data:?}]")).unwrap();
    success(&world.keys(&[&destroy[..], &["--abandon", &data]].concat()));
    assert_eq!(fs::read_to_string(world.path("ring.places")).unwrap(), "[]");
}

#[test]
fn one_job_at_a_time_is_in_a_folder_and_one_of_another_key_is_not_forgotten() {
    let world = World::new();
    success(&world.keys(&["create", "chats"]));
    let data = world.text("data");
    let lock = fs::File::create(world.data(".sprag-keys-job.lock")).unwrap();
    lock.lock().unwrap();
    let start = ["job", "start", &data, "--key", "memories"];
    is_refused(&world.keys(&start), "job_running", 4);
    drop(lock);
    // Blocked by a file that is none: not finished.
    world.write("foreign", b"x");
    is_refused(&world.keys(&start), "job_blocked", 5);
    let other = ["job", "start", &data, "--key", "chats"];
    is_refused(&world.keys(&other), "job_other", 6);
    fs::remove_file(world.data("foreign")).unwrap();
    success(&world.keys(&start));
    success(&world.keys(&other));
    for (content, code, exit) in [
        (&b"SPKJ\x02"[..], "job_version", 1),
        (b"x", "job_damaged", 5),
    ] {
        world.write(".sprag-keys-job", content);
        is_refused(&world.keys(&other), code, exit);
        assert_eq!(world.read(".sprag-keys-job"), content);
    }
}

#[test]
fn what_sprag_itself_writes_meanwhile_is_not_lost() {
    let world = World::new();
    let data = world.text("data");
    let file = world.data("busy");
    for n in 0..40 {
        world.seal(&format!("quiet-{n}"), b"quiet", 1, &[]);
    }
    let writes = 30;
    thread::scope(|scope| {
        let writer = scope.spawn(|| {
            for n in 0..writes {
                let plain = world.text(&format!("plain-{n}"));
                fs::write(&plain, format!("text {n}")).unwrap();
                let seal = ["seal", &plain, "-o", &file, "--force", "--key", "memories"];
                success(&world.vault(&seal));
                let (_, text) = world.open("busy", &[]);
                assert_eq!(text, format!("text {n}").into_bytes(), "a write was lost");
            }
        });
        while !writer.is_finished() {
            success(&world.keys(&["rotate", "memories"]));
            success(&world.keys(&["job", "start", &data, "--key", "memories"]));
        }
    });
    success(&world.keys(&["job", "start", &data, "--key", "memories"]));
    let current = world.ring().current(&id()).unwrap().version().get();
    assert!(current > 2);
    let last = format!("text {}", writes - 1).into_bytes();
    assert_eq!(world.open("busy", &[]), (current, last));
}

#[test]
fn killed_at_random_moments_a_job_leaves_every_file_readable_and_the_next_one_finishes() {
    const FILES: usize = 120;
    const ROUNDS: usize = 5;
    const KILLS: usize = 10;
    let world = World::new();
    let mut random = rng(2026);
    let name = |n: usize| format!("{}/file-{n:03}", n % 3);
    let text = |n: usize| vec![u8::try_from(n).unwrap(); 100 + n * 997 % 70_000];
    for n in 0..FILES {
        world.seal(&name(n), &text(n), 1, &[]);
    }
    // Every file opens as what it was; how many are under this version.
    let check = |version: u32| {
        let ring = world.ring();
        let mut under = 0;
        for n in 0..FILES {
            let (found, opened) = opened(&ring, &world.read(&name(n)), &[]);
            assert_eq!(opened, text(n), "{}", name(n));
            under += usize::from(found == version);
        }
        under
    };
    let said = |n: usize, version: u32| {
        let slot = format!("memories/{version}");
        // Without its text: a look, again and again.
        Header::parse(&world.read(&name(n))).unwrap().slots()[0].id() == slot.as_bytes()
    };
    let mut amid = 0;
    for round in 0..ROUNDS {
        let version = u32::try_from(round).unwrap() + 2;
        success(&world.keys(&["rotate", "memories"]));
        for _ in 0..KILLS {
            let mut child = world.job();
            // Until one more file, any, is done, or it ends by itself.
            let wanted = usize::try_from(random.next_u32()).unwrap() % FILES;
            let more = random.next_u32() % 2_000;
            while child.try_wait().unwrap().is_none() && !said(wanted, version) {
                thread::yield_now();
            }
            for _ in 0..more {
                thread::yield_now();
            }
            child.kill().unwrap();
            child.wait().unwrap();
            let under = check(version);
            amid += usize::from(under > 0 && under < FILES);
        }
        let data = world.text("data");
        let done = ok(&world.keys(&["job", "resume", &data]));
        assert_eq!(
            (&done[0]["state"], &done[0]["failed"]),
            (&"finished".into(), &0.into())
        );
        assert_eq!(check(version), FILES);
        assert_eq!(world.hidden(), [".sprag-keys-job", ".sprag-keys-job.lock"]);
        for folder in 0..3 {
            let left = fs::read_dir(world.data(&folder.to_string()))
                .unwrap()
                .count();
            assert_eq!(left, FILES / 3, "what killed jobs left is cleaned up");
        }
        let old = (version - 1).to_string();
        success(&world.keys(&["destroy", "memories", &old, "--yes"]));
        assert_eq!(check(version), FILES);
    }
    assert!(amid >= ROUNDS, "{amid} kills were amid the files");
}

/// What is being written in the data, with its size.
#[cfg(unix)]
fn unfinished(world: &World) -> Option<u64> {
    let entries = fs::read_dir(world.path("data")).unwrap().flatten();
    let mut sizes = entries.filter_map(|entry| {
        let name = entry.file_name().into_string().unwrap();
        let ours = name.starts_with(".sprag-vault-");
        ours.then(|| entry.metadata().ok().map(|meta| meta.len()))?
    });
    sizes.find(|size| *size > 0)
}

#[cfg(unix)]
#[test]
fn what_is_written_while_a_job_is_at_a_file_is_not_replaced_by_what_was_there_before() {
    let world = World::new();
    world.seal("busy", &vec![7; 12 << 20], 1, &[]);
    world.seal("gone", b"x", 1, &[]);
    success(&world.keys(&["rotate", "memories"]));
    let mut job = world.job();
    while unfinished(&world).is_none() {
        assert!(job.try_wait().unwrap().is_none(), "it ended too soon");
        thread::yield_now();
    }
    let pid = job.id().to_string();
    let signal = |what: &str| {
        let sent = Command::new("kill").args([what, &pid]).status().unwrap();
        assert!(sent.success());
    };
    signal("-STOP");
    fs::write(world.path("plain"), "written meanwhile").unwrap();
    let (plain, file) = (world.text("plain"), world.data("busy"));
    let seal = ["seal", &plain, "-o", &file, "--force", "--key", "memories"];
    success(&world.vault(&seal));
    signal("-CONT");
    assert!(job.wait().unwrap().success());
    assert_eq!(world.open("busy", &[]), (2, b"written meanwhile".to_vec()));
    assert_eq!(world.open("gone", &[]), (2, b"x".to_vec()));
    assert_eq!(world.hidden(), [".sprag-keys-job", ".sprag-keys-job.lock"]);
}

#[cfg(unix)]
#[test]
fn whoever_gives_a_file_its_name_waits_for_whoever_looks_at_the_names_of_its_folder() {
    let world = World::new();
    fs::write(world.path("plain"), "hello").unwrap();
    let (plain, file) = (world.text("plain"), world.data("sealed"));
    let folder = fs::File::open(world.path("data")).unwrap();
    folder.lock().unwrap();
    let args = ["vault", "seal", &plain, "-o", &file, "--key", "memories"];
    let args = world.with_ring(&args);
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let mut command = world.command(&args);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    // A header, one slot, one piece.
    while unfinished(&world).is_none_or(|size| size < 130) {
        assert!(child.try_wait().unwrap().is_none(), "it did not wait");
        thread::yield_now();
    }
    for _ in 0..50_000 {
        thread::yield_now();
    }
    assert!(!Path::new(&file).exists());
    assert!(child.try_wait().unwrap().is_none());
    drop(folder);
    assert!(child.wait().unwrap().success());
    assert_eq!(world.open("sealed", &[]).1, b"hello");
}

#[test]
fn a_rotation_re_encrypts_by_itself_in_every_folder_that_is_known_and_one_that_fails_costs_no_other()
 {
    let world = World::new();
    fs::write(world.path("plain"), "hello").unwrap();
    let plain = world.text("plain");
    for folder in ["one", "two"] {
        fs::create_dir(world.path(folder)).unwrap();
        let out = world.text(&format!("{folder}/sealed"));
        success(&world.vault(&["seal", &plain, "-o", &out, "--key", "memories"]));
    }
    let version_in = |folder: &str| {
        let blob = fs::read(world.path(folder).join("sealed")).unwrap();
        let (version, text) = opened(&world.ring(), &blob, &[]);
        assert_eq!(text, b"hello");
        version
    };
    let said = ok(&world.keys(&["rotate", "memories", "--run"]));
    let finished = said.iter().filter(|line| line["state"] == "finished");
    assert_eq!(
        (finished.count(), version_in("one"), version_in("two")),
        (2, 2, 2)
    );

    fs::write(world.path("one").join("foreign"), "x").unwrap();
    let output = world.keys(&["rotate", "memories", "--run"]);
    is_refused(&output, "job_blocked", 5);
    assert_eq!((version_in("one"), version_in("two")), (3, 3));
    // Without being told to run, it runs nothing.
    success(&world.keys(&["rotate", "memories"]));
    assert_eq!((version_in("one"), version_in("two")), (3, 3));
    let context = ["rotate", "memories", "--context", "a=b"];
    is_refused(&world.keys(&context), "bad_input", 2);
    assert!(world.ring().by_version(&id(), number(5)).is_err());
}

/// The most memory that a process ever had, in KiB, as long as it lives.
#[cfg(target_os = "linux")]
fn peak(child: &Child) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{}/status", child.id())).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(target_os = "linux")]
#[test]
fn a_file_of_any_length_passes_a_job_in_the_memory_of_its_pieces() {
    let world = World::new();
    let mut peaks = Vec::new();
    for (version, mib) in [(1, 1), (2, 48)] {
        world.seal("file", &vec![7; mib << 20], version, &[]);
        success(&world.keys(&["rotate", "memories"]));
        let mut job = world.job();
        let mut most = 0;
        while job.try_wait().unwrap().is_none() {
            most = most.max(peak(&job).unwrap_or(0));
            thread::yield_now();
        }
        assert!(job.wait().unwrap().success());
        assert_eq!(world.open("file", &[]), (version + 1, vec![7; mib << 20]));
        peaks.push(most);
    }
    assert!(peaks[1] < peaks[0] + 8 * 1024, "{peaks:?} KiB");
}
