//! What happens to a profile as a whole: another database, another key, a copy that is put back.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::collections::BTreeMap;
use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::Duration;

use getrandom::SysRng;
use getrandom::rand_core::UnwrapErr;
use serde_json::Value;
use sprag::Key;
use sprag::store::{RowName, Rows, Store};
use tempfile::TempDir;

/// Names and values.
type Pairs = Vec<(Vec<u8>, Vec<u8>)>;

/// One profile, with a key file, and what is in it.
struct Profile(TempDir);

impl Profile {
    fn new(init: &[&str]) -> Self {
        let profile = Self(tempfile::tempdir().unwrap());
        ok(&profile.run(init));
        for text in ["one", "two", "three"] {
            ok(&profile.run(&["send", "bob", text]));
        }
        profile
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    fn command(&self, key: &str, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sprag"));
        for name in [
            "SPRAG_HOME",
            "SPRAG_SERVER",
            "SPRAG_PASSPHRASE",
            "SPRAG_KEY_FILE",
        ] {
            command.env_remove(name);
        }
        command.args(args).arg("--home").arg(self.path("home"));
        if !key.is_empty() {
            command.arg("--key-file").arg(self.path(key));
        }
        command.stdin(Stdio::null());
        command
    }

    fn run(&self, args: &[&str]) -> Output {
        self.command("key", args).output().unwrap()
    }

    /// All rows, as the layers above see them.
    fn rows(&self, key: &str) -> BTreeMap<u8, Pairs> {
        let rng = UnwrapErr(SysRng);
        let store =
            Store::open(self.path("home/profile"), &Key::file(self.path(key)), rng).unwrap();
        let mut tables = BTreeMap::new();
        for table in 1..0xf0 {
            let mut rows = Vec::new();
            store
                .scan(&RowName::plain(table, []), &mut |suffix, value| {
                    // But what upkeep remembers of renewals.
                    if (table, suffix) != (1, &[7]) {
                        rows.push((suffix.to_vec(), value.to_vec()));
                    }
                    ControlFlow::Continue(())
                })
                .unwrap();
            rows.sort();
            if !rows.is_empty() {
                tables.insert(table, rows);
            }
        }
        store.close().unwrap();
        assert!(tables.len() > 8, "hardly a profile");
        tables
    }

    /// Runs the program and kills it after a while; says whether it came to its end before.
    fn killed(&self, key: &str, args: &[&str], after: Duration) -> bool {
        let mut child = self
            .command(key, args)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        thread::sleep(after);
        let ended = child.try_wait().unwrap().is_some();
        let _ = child.kill(); // SIGKILL
        child.wait().unwrap();
        ended
    }
}

fn ok(output: &Output) -> String {
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{error}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// The code of the error, and the exit code.
fn refused(output: &Output) -> (String, i32) {
    let error = String::from_utf8_lossy(&output.stderr);
    let line = error.lines().find(|line| line.contains("\"code\""));
    let value: Value = serde_json::from_str(line.unwrap_or_else(|| panic!("{error}"))).unwrap();
    let code = value["code"].as_str().unwrap().to_owned();
    (code, output.status.code().unwrap())
}

fn copy(from: &Path, to: &Path) {
    let _ = fs::remove_dir_all(to);
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &target);
        } else {
            fs::copy(&path, &target).unwrap();
        }
    }
}

#[test]
fn profile_moves_to_the_other_database_and_back_without_loss() {
    let profile = Profile::new(&["init", "alice"]);
    let before = profile.rows("key");
    for to in ["redb", "sled", "sled"] {
        let told = ok(&profile.run(&["store", "migrate", "--to", to]));
        assert!(told.contains(to), "{told}");
        assert!(profile.rows("key") == before, "{to}");
        ok(&profile.run(&["status"]));
    }
    let made = Profile::new(&["init", "alice", "--database", "redb"]);
    assert!(made.path("home/profile/epoch-00000001/rows.redb").exists());
    ok(&made.run(&["store", "migrate", "--to", "sled"]));
    ok(&made.run(&["send", "bob", "four"]));
    assert!(made.path("home/profile/epoch-00000002/db").exists());

    let wrong = profile.run(&["store", "migrate", "--to", "paper"]);
    assert_eq!(wrong.status.code(), Some(2));
    let other = profile.command("other", &["store", "migrate", "--to", "redb", "--json"]);
    assert_eq!(
        refused(&{ other }.output().unwrap()),
        ("key_unreadable".into(), 3)
    );
    let nobody = Profile(tempfile::tempdir().unwrap());
    let nowhere = nobody.run(&["store", "migrate", "--to", "redb", "--json"]);
    assert_eq!(refused(&nowhere), ("no_profile".into(), 2));
}

#[test]
fn profile_whose_move_is_killed_is_whole_in_the_one_database_or_the_other() {
    let profile = Profile::new(&["init", "alice"]);
    let before = profile.rows("key");
    let mut ends = [0, 0];
    for round in 0..60_u64 {
        let to = if round % 2 == 0 { "redb" } else { "sled" };
        let after = Duration::from_millis(round * 37 % 97);
        let ended = profile.killed("key", &["store", "migrate", "--to", to], after);
        ends[usize::from(ended)] += 1;
        assert!(profile.rows("key") == before, "round {round}, {after:?}");
    }
    assert!(ends[0] > 10, "hardly one was killed: {ends:?}");
    ok(&profile.run(&["send", "bob", "four"]));
}

#[test]
fn changed_key_opens_alone_and_the_wrong_old_one_changes_nothing() {
    let profile = Profile::new(&["init", "alice"]);
    let before = profile.rows("key");
    let new = profile.text("new");
    // Who does not have the old one changes nothing.
    fs::write(profile.path("wrong"), [7; 32]).unwrap();
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = fs::Permissions::from_mode(0o600);
        fs::set_permissions(profile.path("wrong"), mode).unwrap();
    }
    let mut wrong = profile.command("wrong", &["passphrase", "--new-key-file", &new, "--json"]);
    assert_eq!(refused(&wrong.output().unwrap()), ("wrong_key".into(), 3));
    assert!(!profile.path("new").exists(), "no key was made");
    assert!(profile.rows("key") == before);

    ok(&profile.run(&["passphrase", "--new-key-file", &new]));
    let old = profile.run(&["status", "--json"]);
    assert_eq!(refused(&old), ("wrong_key".into(), 3));
    assert!(profile.rows("new") == before);

    // To a passphrase, and from one to another.
    let mut to = profile.command("new", &["passphrase"]);
    ok(&to.env("SPRAG_NEW_PASSPHRASE", "first").output().unwrap());
    let with = |passphrase: &str, args: &[&str]| {
        let mut command = profile.command("", args);
        command.env("SPRAG_PASSPHRASE", passphrase);
        command
    };
    let mut to = with("first", &["passphrase"]);
    ok(&to.env("SPRAG_NEW_PASSPHRASE", "second").output().unwrap());
    let first = with("first", &["status", "--json"]).output().unwrap();
    assert_eq!(refused(&first), ("wrong_key".into(), 3));
    ok(&with("second", &["status"]).output().unwrap());
    let empty = with("second", &["passphrase", "--json"])
        .env("SPRAG_NEW_PASSPHRASE", "")
        .output()
        .unwrap();
    assert_eq!(refused(&empty), ("wrong_key".into(), 3));
    ok(&with("second", &["status"]).output().unwrap());
}

#[test]
fn change_of_the_key_that_is_killed_leaves_the_old_one_or_the_new_one() {
    let profile = Profile::new(&["init", "alice"]);
    let mut keys = ["key".to_owned(), "key".to_owned()];
    let mut killed = 0;
    for round in 0..40_u64 {
        keys[1] = format!("key{round}");
        let new = profile.text(&keys[1]);
        let after = Duration::from_millis(round * 31 % 89);
        let args = ["passphrase", "--new-key-file", &new];
        killed += usize::from(!profile.killed(&keys[0], &args, after));
        let opens: Vec<_> = keys
            .iter()
            .filter(|key| profile.path(key).exists())
            .filter(|key| {
                let mut status = profile.command(key, &["status"]);
                status.output().unwrap().status.success()
            })
            .cloned()
            .collect();
        assert_eq!(opens.len(), 1, "round {round}: {opens:?}");
        keys[0].clone_from(&opens[0]);
    }
    assert!(killed > 5, "hardly one was killed: {killed}");
}

#[test]
fn copy_that_is_put_back_goes_on_as_a_new_device() {
    let profile = Profile(tempfile::tempdir().unwrap());
    let (anchor, server) = (profile.text("anchor"), profile.text("server"));
    let run = |args: &[&str]| {
        let mut command = profile.command("key", args);
        command.args(["--anchor", &anchor, "--server", &server]);
        command.output().unwrap()
    };
    let device = |status: &str| -> Value {
        let line = status.lines().find(|line| line.contains("\"device\""));
        serde_json::from_str::<Value>(line.unwrap()).unwrap()["device"].clone()
    };
    let bob = Profile(tempfile::tempdir().unwrap());
    let mut bob = bob.command("key", &["init", "bob", "--server", &server]);
    ok(&bob.output().unwrap());
    ok(&run(&["init", "alice"]));
    let before = device(&ok(&run(&["status", "--json"])));
    let store = profile.path("home/profile");
    copy(&store, &profile.path("copy"));
    ok(&run(&["send", "bob", "one"]));
    copy(&profile.path("copy"), &store);
    for both in ["--new-sessions", "--new-device-beside"] {
        let output = run(&["rolled-back", "--new-device", both]);
        assert_eq!(output.status.code(), Some(2));
    }
    let after = ok(&run(&["rolled-back", "--new-device", "--json"]));
    assert_ne!(device(&after), before);
    let events = ok(&run(&["events", "--json"]));
    assert!(events.contains("set_back"), "{events}");
    assert!(events.contains("restored"), "{events}");
    ok(&run(&["send", "bob", "two"]));
    assert_eq!(device(&ok(&run(&["status", "--json"]))), device(&after));
}

#[test]
fn copy_that_is_put_back_is_refused_until_the_user_decides() {
    let profile = Profile(tempfile::tempdir().unwrap());
    let anchor = profile.text("anchor");
    let run = |args: &[&str]| {
        let mut command = profile.command("key", args);
        command.arg("--anchor").arg(&anchor);
        command.output().unwrap()
    };
    ok(&run(&["init", "alice"]));
    let store = profile.path("home/profile");
    copy(&store, &profile.path("copy"));
    ok(&run(&["send", "bob", "one"]));
    copy(&profile.path("copy"), &store);
    for _ in 0..2 {
        let output = run(&["send", "bob", "two", "--json"]);
        assert_eq!(refused(&output), ("store_rolled_back".into(), 6));
        assert!(String::from_utf8_lossy(&output.stderr).contains("rolled-back"));
    }
    assert_eq!(run(&["rolled-back"]).status.code(), Some(2));
    ok(&run(&["rolled-back", "--new-sessions"]));
    ok(&run(&["send", "bob", "three"]));
    let events = ok(&run(&["events", "--json"]));
    assert!(events.contains("set_back"), "{events}");
    // Without the anchor, or with another one's, it does not open.
    let plain = profile.run(&["status", "--json"]);
    assert_eq!(refused(&plain), ("anchor_needed".into(), 2));
    fs::remove_file(&anchor).unwrap();
    let gone = run(&["status", "--json"]);
    assert_eq!(refused(&gone), ("store_rolled_back".into(), 6));
}
