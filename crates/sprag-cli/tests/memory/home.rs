//! A profile with a key file, and the program run on it.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

pub(crate) struct Home(TempDir, Option<PathBuf>);

impl Home {
    /// A profile of alice.
    pub(crate) fn new() -> Self {
        let home = Self::empty();
        ok(&home.run(&["init", "alice"]));
        home
    }

    /// A profile that exchanges over a server.
    pub(crate) fn online(server: &Path, init: &[&str]) -> (Self, Output) {
        let home = Self(tempfile::tempdir().unwrap(), Some(server.to_path_buf()));
        let shown = home.run(init);
        (home, shown)
    }

    pub(crate) fn empty() -> Self {
        Self(tempfile::tempdir().unwrap(), None)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = command(&self.path("home"), &self.path("key"), args);
        if let Some(server) = &self.1 {
            command.env("SPRAG_SERVER", server);
        }
        command
    }

    pub(crate) fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    pub(crate) fn run_with(&self, input: &[u8], args: &[&str]) -> Output {
        let mut command = self.command(args);
        command.stdin(Stdio::piped());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(input).unwrap();
        child.wait_with_output().unwrap()
    }

    /// The results of a command, one JSON object per line.
    pub(crate) fn json(&self, args: &[&str]) -> Vec<Value> {
        let args: Vec<&str> = args.iter().copied().chain(["--json"]).collect();
        lines(&ok(&self.run(&args)))
    }

    /// Stores something, and says its id.
    pub(crate) fn add(&self, args: &[&str]) -> String {
        let args: Vec<&str> = ["memory", "add"]
            .into_iter()
            .chain(args.iter().copied())
            .collect();
        self.json(&args)[0]["id"].as_str().unwrap().to_owned()
    }
}

pub(crate) fn command(home: &Path, key: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sprag"));
    for name in [
        "SPRAG_HOME",
        "SPRAG_SERVER",
        "SPRAG_PASSPHRASE",
        "SPRAG_KEY_FILE",
        "SPRAG_ANCHOR",
    ] {
        command.env_remove(name);
    }
    command.args(args).arg("--home").arg(home);
    command.arg("--key-file").arg(key);
    command.stdin(Stdio::null());
    command
}

/// What it printed, if it went well.
pub(crate) fn ok(output: &Output) -> String {
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{:?}: {errors}", output.status);
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// With which code it ended, and what it said to that, if it went wrong.
pub(crate) fn wrong(output: &Output) -> (i32, String) {
    assert!(!output.status.success());
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code().unwrap(), errors)
}

pub(crate) fn lines(text: &str) -> Vec<Value> {
    let lines = text.lines().map(|line| serde_json::from_str(line).unwrap());
    lines.collect()
}
