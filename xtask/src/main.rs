//! The workspace's own chores: `cargo xtask <chore>`.
#![forbid(unsafe_code)]

mod ci;
mod code;
mod codegen;
mod metadata;
mod tidy;

use std::env;
use std::error::Error;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// What a chore answers.
pub(crate) type Outcome<T = ()> = Result<T, Box<dyn Error>>;

/// Prints to standard error, in order with what cargo says there.
macro_rules! say {
    ($($text:tt)*) => { eprintln!($($text)*) };
}
pub(crate) use say;

const USAGE: &str = "\
usage: cargo xtask <chore>

  ci [step ..]       what CI does; all steps, or those named
  tidy               test the invariants of the repository
  vectors [--check]  make the further vectors, or compare them with what is committed
  embeddings         compute 100,000 embeddings of real sentences, for the bench of the search
  codegen [--check]  generate the protobuf code, or compare it with what is committed";

fn main() -> ExitCode {
    let args: Vec<String> = env::args().skip(1).collect();
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say!("xtask: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &[String]) -> Outcome {
    let root = root();
    match args {
        [chore, steps @ ..] if chore == "ci" => ci::run(&root, steps),
        [chore] if chore == "tidy" => tidy::run(&root),
        [chore] if chore == "vectors" => ci::make_vectors(&root, &[]),
        [chore, flag] if chore == "vectors" && flag == "--check" => {
            ci::make_vectors(&root, &["--check"])
        }
        [chore] if chore == "embeddings" => ci::embeddings(&root),
        [chore] if chore == "codegen" => codegen::run(&root, false),
        [chore, flag] if chore == "codegen" && flag == "--check" => codegen::run(&root, true),
        _ => Err(USAGE.into()),
    }
}

/// The root of the repository.
fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_path_buf()
}

/// The cargo that runs us.
pub(crate) fn cargo() -> OsString {
    env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}
