//! Reports, completions and the manual page, as people use them.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

struct Desk(TempDir);

impl Desk {
    fn with(users: &[&str]) -> Self {
        let desk = Self(tempfile::tempdir().unwrap());
        for user in users {
            ok(&desk.run(user, &["init", user]));
        }
        desk
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn run(&self, user: &str, args: &[&str]) -> Output {
        let key = self.path(&format!("{user}.key"));
        bare(args)
            .env("SPRAG_SERVER", self.path("server"))
            .env("SPRAG_HOME", self.path(user))
            .env("SPRAG_KEY_FILE", key)
            .output()
            .unwrap()
    }

    fn report(&self, user: &str) -> String {
        let file = self.path(&format!("{user}.report"));
        let file = file.to_str().unwrap().to_owned();
        let said = ok(&self.run(user, &["report", "--out", &file]));
        assert!(said.contains("no names, no keys"), "{said}");
        file
    }
}

fn bare(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sprag"));
    for name in [
        "SPRAG_HOME",
        "SPRAG_SERVER",
        "SPRAG_KEY_FILE",
        "SPRAG_PASSPHRASE",
    ] {
        command.env_remove(name);
    }
    command.args(args).stdin(Stdio::null());
    command
}

#[track_caller]
fn ends(output: &Output, exit: i32) -> (String, String) {
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(exit), "{error}");
    let said = String::from_utf8(output.stdout.clone()).unwrap();
    (said, error)
}

#[track_caller]
fn ok(output: &Output) -> String {
    ends(output, 0).0
}

fn diagnose(args: &[&str]) -> Output {
    bare(&[&["diagnose"], args].concat()).output().unwrap()
}

#[test]
fn two_reports_say_in_a_sentence_what_happened_without_any_profile() {
    let desk = Desk::with(&["alice", "bob"]);
    ok(&desk.run("alice", &["send", "bob", "hello"]));
    ok(&desk.run("bob", &["receive"]));
    ok(&desk.run("bob", &["send", "alice", "hello yourself"]));
    ok(&desk.run("alice", &["receive"]));
    let (a, b) = (desk.report("alice"), desk.report("bob"));
    assert_eq!(ok(&diagnose(&[&a, &b])), "the two agree on all 2 frames\n");

    // Alice's server loses an envelope, and a later one comes.
    ok(&desk.run("alice", &["send", "bob", "lost"]));
    let mut lost = 0;
    for entry in walk(&desk.path("server")) {
        if fs::read(&entry).unwrap().first() == Some(&0x10) {
            fs::remove_file(&entry).unwrap();
            lost += 1;
        }
    }
    assert_eq!(lost, 1);
    ok(&desk.run("alice", &["send", "bob", "later"]));
    assert_eq!(ok(&desk.run("bob", &["receive"])), "alice: later\n");
    let (a, b) = (desk.report("alice"), desk.report("bob"));
    let (said, _) = ends(&diagnose(&[&a, &b]), 6);
    assert!(
        said.starts_with("B never received 1 frame that A handed over from 20"),
        "{said}"
    );
    let (line, _) = ends(&diagnose(&["--json", &b, &a]), 6);
    let line: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(line["type"], "diagnosis");
    assert_eq!(line["frames"], 3);
    assert_eq!(line["findings"][0]["finding"], "lost");
    assert_eq!(line["clock_behind"], Value::Null);
    for name in ["alice", "bob"] {
        let bytes = fs::read(&a).unwrap();
        assert!(
            !bytes
                .windows(name.len())
                .any(|window| window == name.as_bytes())
        );
    }
}

fn walk(folder: &std::path::Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(walk(&path));
        } else {
            found.push(path);
        }
    }
    found
}

#[test]
fn what_is_no_report_is_refused_with_its_name() {
    let desk = Desk::with(&["alice"]);
    let a = desk.report("alice");
    let bad = desk.path("bad");
    let mut bytes = fs::read(&a).unwrap();
    let last = bytes.len() - 1;
    for (bytes, why) in [
        (Vec::new(), "not a report, or damaged"),
        (b"hello".to_vec(), "not a report, or damaged"),
        (bytes[..last].to_vec(), "not a report, or damaged"),
        (
            {
                bytes[8] = 2;
                bytes
            },
            "report of another version",
        ),
    ] {
        fs::write(&bad, bytes).unwrap();
        let (_, error) = ends(&diagnose(&[&a, bad.to_str().unwrap()]), 2);
        assert!(error.contains(why) && error.contains("bad"), "{error}");
    }
    let missing = desk.path("missing");
    ends(&diagnose(&[&a, missing.to_str().unwrap()]), 8);
    let (said, _) = ends(&diagnose(&[&a, &a]), 6);
    assert_eq!(said, "the two reports are of one device\n");
}

#[test]
fn completions_and_the_manual_name_every_command() {
    let help = ok(&bare(&["--help"]).output().unwrap());
    let commands = help.split("Commands:").nth(1).unwrap();
    let commands = commands.split("Options:").next().unwrap();
    let commands: Vec<&str> = commands
        .lines()
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| *name != "help")
        .collect();
    assert!(commands.contains(&"diagnose") && commands.len() > 12);
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = ok(&bare(&["completions", shell]).output().unwrap());
        for command in &commands {
            assert!(script.contains(command), "{shell}: {command}");
        }
    }
    ends(&bare(&["completions", "cobol"]).output().unwrap(), 2);
    let page = ok(&bare(&["man"]).output().unwrap());
    assert!(page.starts_with(".ie \\n(.g .ds Aq") || page.contains(".TH sprag 1"));
    for command in &commands {
        let name = command.replace('-', "\\-");
        assert!(page.contains(&format!("sprag {name}")), "{command}");
    }
    assert!(page.contains("SPRAG_PASSPHRASE") && page.contains("Exit codes"));
}
