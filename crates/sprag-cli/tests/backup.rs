//! Backups, as people use them: made, looked at, and restored on another machine.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

struct Desk(TempDir);

impl Desk {
    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    fn command(&self, home: &str, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sprag"));
        for name in [
            "SPRAG_PASSPHRASE",
            "SPRAG_RECOVERY_KEY",
            "SPRAG_BACKUP_PASSPHRASE",
        ] {
            command.env_remove(name);
        }
        command
            .args(args)
            .stdin(Stdio::null())
            .env("SPRAG_SERVER", self.path("server"))
            .env("SPRAG_HOME", self.path(home))
            .env("SPRAG_KEY_FILE", self.path(&format!("{home}.key")));
        command
    }

    fn run(&self, home: &str, args: &[&str]) -> Output {
        self.command(home, args).output().unwrap()
    }

    fn with_key(&self, home: &str, key: &str, args: &[&str]) -> Output {
        let mut command = self.command(home, args);
        command.env("SPRAG_RECOVERY_KEY", key).output().unwrap()
    }
}

#[track_caller]
fn ends(output: &Output, exit: i32) -> (String, String) {
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(exit), "{error}");
    assert!(!error.contains("panicked"), "{error}");
    (String::from_utf8(output.stdout.clone()).unwrap(), error)
}

#[track_caller]
fn ok(output: &Output) -> String {
    ends(output, 0).0
}

/// Alice and Bob have talked; Alice's backup and its recovery key, as it was printed.
fn story() -> (Desk, String, String) {
    let desk = Desk(tempfile::tempdir().unwrap());
    for user in ["alice", "bob"] {
        ok(&desk.run(user, &["init", user]));
    }
    ok(&desk.run("alice", &["send", "bob", "hello"]));
    ok(&desk.run("bob", &["receive"]));
    ok(&desk.run("bob", &["send", "alice", "hello yourself"]));
    ok(&desk.run("alice", &["receive"]));
    let file = desk.text("alice.backup");
    let said = ok(&desk.run("alice", &["backup", "create", "--out", &file]));
    let key: Vec<&str> = said
        .lines()
        .filter(|line| line.starts_with("    "))
        .collect();
    assert_eq!(key.len(), 2, "{said}");
    let key = key.join("\n");
    (desk, file, key)
}

#[test]
fn a_lost_machine_comes_back_from_a_file_and_a_sheet_of_paper() {
    let (desk, file, key) = story();
    // As typed from paper: in small letters, on two lines, with spaces.
    let key = key.to_lowercase().replace('-', " ");
    let summary = ok(&desk.with_key("nobody", &key, &["backup", "verify", &file, "--json"]));
    let summary: Value = serde_json::from_str(&summary).unwrap();
    assert_eq!(summary["type"], "backup");
    assert_eq!(summary["user"], "alice");
    assert_eq!(summary["contacts"], 1);
    assert_eq!(summary["holder"], true);

    let args = ["backup", "restore", &file, "--replace-lost"];
    let said = ok(&desk.with_key("alice2", &key, &args));
    assert!(said.contains("backup of alice"), "{said}");
    let events = ok(&desk.run("alice2", &["events", "--json"]));
    assert!(events.contains("\"restored\""), "{events}");
    ok(&desk.run("alice2", &["send", "bob", "I am back"]));
    assert_eq!(ok(&desk.run("bob", &["receive"])), "alice: I am back\n");
    ok(&desk.run("bob", &["send", "alice", "welcome"]));
    assert_eq!(ok(&desk.run("alice2", &["receive"])), "bob: welcome\n");
    // The lost one hears nothing any more, and nobody believes it.
    assert_eq!(ok(&desk.run("alice", &["receive"])), "");
    desk.run("alice", &["send", "bob", "still me?"]);
    let heard = desk.run("bob", &["receive"]);
    assert_eq!(String::from_utf8(heard.stdout).unwrap().find("still"), None);
}

#[test]
fn a_mistyped_recovery_key_is_told_with_its_group_and_never_shown() {
    let (desk, file, key) = story();
    let mut typed: Vec<char> = key.trim().chars().collect();
    typed[2] = if typed[2] == 'A' { 'B' } else { 'A' };
    let typed: String = typed.into_iter().collect();
    let (_, error) = ends(
        &desk.with_key("nobody", &typed, &["backup", "verify", &file]),
        3,
    );
    assert!(error.contains("group 1 is mistyped"), "{error}");
    assert!(!error.contains(&key.trim()[6..11]), "{error}");
    let (_, error) = ends(
        &desk.with_key("nobody", "", &["backup", "verify", &file]),
        3,
    );
    assert!(error.contains("70 letters and digits, not 0"), "{error}");
    // Of another backup.
    let other =
        "20016-081G9-8186P-0W40F-J2GB1-1G6GZ-W3RG6-2491B-650N4-2RBHZ-G68T7-3CE19-T7GZX-GWZ0B";
    ends(
        &desk.with_key("nobody", other, &["backup", "verify", &file]),
        3,
    );
}

#[test]
fn a_backup_is_never_overwritten_and_a_damaged_one_makes_no_profile() {
    let (desk, file, key) = story();
    let before = std::fs::read(&file).unwrap();
    ends(&desk.run("alice", &["backup", "create", "--out", &file]), 8);
    assert_eq!(std::fs::read(&file).unwrap(), before);

    let mut bytes = before;
    bytes[500] ^= 1;
    let bad = desk.text("bad.backup");
    std::fs::write(&bad, bytes).unwrap();
    let (_, error) = ends(
        &desk.with_key("alice2", &key, &["backup", "restore", &bad]),
        2,
    );
    assert!(error.contains("backup is damaged"), "{error}");
    assert!(!desk.path("alice2").exists());
    // Nor is a profile.
    let (_, error) = ends(
        &desk.with_key("alice", &key, &["backup", "restore", &file]),
        2,
    );
    assert!(error.contains("already"), "{error}");
}

#[test]
fn a_passphrase_opens_a_backup_that_was_made_for_it_and_no_other() {
    let (desk, file, _) = story();
    let second = desk.text("second.backup");
    let with = |passphrase: &str, args: &[&str]| {
        let mut command = desk.command("alice", args);
        let command = command.env("SPRAG_BACKUP_PASSPHRASE", passphrase);
        command.output().unwrap()
    };
    let create = [
        "backup",
        "create",
        "--passphrase",
        "--no-recovery-key",
        "--out",
        &second,
    ];
    let said = ok(&with("correct horse", &create));
    assert!(!said.contains("Recovery key"), "{said}");
    let verify = |file: &str| ["backup", "verify", "--passphrase", file].map(str::to_owned);
    let run = |passphrase: &str, file: &str| {
        let args = verify(file);
        with(passphrase, &args.each_ref().map(String::as_str))
    };
    assert!(ok(&run("correct horse", &second)).contains("backup of alice"));
    ends(&run("correct hors", &second), 3);
    ends(&run("correct horse", &file), 3);
    ends(&with("", &create), 3);
    ends(
        &desk.run(
            "alice",
            &["backup", "create", "--no-recovery-key", "--out", "x"],
        ),
        2,
    );
}
