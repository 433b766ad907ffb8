//! What CI does, step by step, in the order of cost.
//!
//! All steps share one target folder. Warnings are denied behind `--`, and features are chosen per step, so that no step
//! throws away what an earlier one compiled.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use std::{env, fs};

use crate::metadata::Metadata;
use crate::tidy::{self, Budget};
use crate::{Outcome, cargo, say};

struct Step {
    name: &'static str,
    what: &'static str,
    run: fn(&Path) -> Outcome,
}

const STEPS: &[Step] = &[
    Step {
        name: "fmt",
        what: "the code is formatted",
        run: fmt,
    },
    Step {
        name: "lock",
        what: "Cargo.lock fits the manifests",
        run: lock,
    },
    Step {
        name: "tidy",
        what: "the invariants of the repository hold",
        run: tidy::run,
    },
    Step {
        name: "codegen",
        what: "the generated code is that of proto/",
        run: codegen,
    },
    Step {
        name: "package",
        what: "each published crate can be packed",
        run: package,
    },
    Step {
        name: "clippy",
        what: "no warning, all features",
        run: clippy,
    },
    Step {
        name: "features",
        what: "no warning, each feature alone and none",
        run: features,
    },
    Step {
        name: "wasm",
        what: "the facade compiles for the browser",
        run: wasm,
    },
    Step {
        name: "fuzz",
        what: "the fuzz targets compile",
        run: fuzz,
    },
    Step {
        name: "doc",
        what: "the documentation builds without warnings",
        run: doc,
    },
    Step {
        name: "test",
        what: "all tests pass, doctests and fuzz corpora included",
        run: test,
    },
    Step {
        name: "examples",
        what: "the examples run",
        run: examples,
    },
    Step {
        name: "vectors",
        what: "the further vectors are those of their seeds",
        run: vectors,
    },
    Step {
        name: "interop",
        what: "the reference in Python agrees",
        run: interop,
    },
    Step {
        name: "kms",
        what: "key services on loopback give keys, and nothing else",
        run: kms,
    },
    Step {
        name: "demo",
        what: "the commands of the README run",
        run: demo,
    },
];

/// Crates whose features are checked one by one.
const FEATURED: &[&str] = &["sprag-store", "sprag-keys", "sprag"];

const WASM: &str = "wasm32-unknown-unknown";

/// `cargo xtask ci [step ..]`: all steps, or those named. Stops at the first that fails.
pub(crate) fn run(root: &Path, chosen: &[String]) -> Outcome {
    let unknown = |name: &&String| !STEPS.iter().any(|step| step.name == **name);
    if let Some(name) = chosen.iter().find(unknown) {
        let known: Vec<_> = STEPS.iter().map(|step| step.name).collect();
        return Err(format!("no step `{name}`; there are: {}", known.join(", ")).into());
    }
    let picked = |step: &&Step| chosen.is_empty() || chosen.iter().any(|name| name == step.name);
    let begun = Instant::now();
    let mut times = Vec::new();
    for step in STEPS.iter().filter(picked) {
        say!("\n=== {}: {}", step.name, step.what);
        let begun = Instant::now();
        let outcome = (step.run)(root);
        let took = begun.elapsed();
        if let Err(error) = outcome {
            let name = step.name;
            say!("--- {name}: FAILED after {}", seconds(took));
            return Err(format!("{error}\n(again: cargo xtask ci {name})").into());
        }
        say!("--- {}: ok, {}", step.name, seconds(took));
        times.push((step.name, took));
    }
    say!("\nAll well.");
    for (name, took) in times {
        say!("{name:>10} {:>8}", seconds(took));
    }
    say!("{:>10} {:>8}", "total", seconds(begun.elapsed()));
    Ok(())
}

fn fmt(root: &Path) -> Outcome {
    run_cargo(root, &["fmt", "--all", "--check"])
}

fn lock(root: &Path) -> Outcome {
    let mut command = Command::new(cargo());
    command.args(["metadata", "--format-version", "1", "--locked"]);
    execute(command.current_dir(root).stdout(Stdio::null()))
}

fn codegen(root: &Path) -> Outcome {
    let mut xtask = Command::new(env::current_exe()?);
    execute(xtask.args(["codegen", "--check"]).current_dir(root))
}

fn package(root: &Path) -> Outcome {
    let metadata = Metadata::load(root)?;
    let mut command = Command::new(cargo());
    command.args(["package", "--list", "--allow-dirty", "--quiet"]);
    for package in metadata.published() {
        command.args(["--package", &package.name]);
    }
    execute(command.current_dir(root).stdout(Stdio::null()))
}

fn clippy(root: &Path) -> Outcome {
    let mut args = vec!["clippy", "--workspace", "--all-targets", "--all-features"];
    args.extend(["--", "-D", "warnings"]);
    run_cargo(root, &args)
}

fn features(root: &Path) -> Outcome {
    let metadata = Metadata::load(root)?;
    for package in FEATURED.iter().filter_map(|name| metadata.member(name)) {
        let named = package.features.keys().map(String::as_str);
        for feature in named.chain([""]).filter(|feature| *feature != "default") {
            let mut args = vec!["clippy", "--package", &package.name];
            args.extend(["--no-default-features", "--features", feature]);
            args.extend(["--", "-D", "warnings"]);
            run_cargo(root, &args)?;
        }
    }
    Ok(())
}

fn wasm(root: &Path) -> Outcome {
    let mut args = vec!["check", "--package", "sprag", "--no-default-features"];
    args.extend(["--target", WASM]);
    if !has_target(root) {
        let mut rustup = Command::new("rustup");
        execute(rustup.args(["target", "add", WASM]).current_dir(root))?;
    }
    run_cargo(root, &args)
}

/// Whether the toolchain in use, however it was installed, has the standard library for wasm.
fn has_target(root: &Path) -> bool {
    let mut rustc = Command::new("rustc");
    rustc.args(["--print", "target-libdir", "--target", WASM]);
    let Ok(output) = rustc.current_dir(root).output() else {
        return false;
    };
    Path::new(String::from_utf8_lossy(&output.stdout).trim()).is_dir()
}

/// Without libFuzzer itself, which wants a C++ compiler. The lock file is the workspace's, so that both use one set of
/// dependencies; cargo adds libFuzzer to it.
fn fuzz(root: &Path) -> Outcome {
    fs::copy(root.join("Cargo.lock"), root.join("fuzz/Cargo.lock"))?;
    let target = Metadata::load(root)?.target_directory;
    let mut args = vec!["check", "--manifest-path", "fuzz/Cargo.toml"];
    args.extend(["--no-default-features", "--target-dir", &target]);
    run_cargo(root, &args)
}

fn doc(root: &Path) -> Outcome {
    let mut command = Command::new(cargo());
    command.args(["doc", "--workspace", "--no-deps", "--all-features"]);
    execute(command.current_dir(root).env("RUSTDOCFLAGS", "-Dwarnings"))
}

fn test(root: &Path) -> Outcome {
    run_cargo(root, &["test", "--workspace"])
}

/// Runs what `cargo test` has built: another `cargo run` would compile everything again with fewer features.
fn examples(root: &Path) -> Outcome {
    let metadata = Metadata::load(root)?;
    let Some(facade) = metadata.member("sprag") else {
        return Ok(());
    };
    let is_example = |kind: &[String]| kind.iter().any(|kind| kind == "example");
    for target in facade
        .targets
        .iter()
        .filter(|target| is_example(&target.kind))
    {
        let program = Path::new(&metadata.target_directory).join("debug/examples");
        let program = program
            .join(&target.name)
            .with_extension(env::consts::EXE_EXTENSION);
        if !program.is_file() {
            run_cargo(root, &["test", "--workspace", "--no-run"])?;
        }
        execute(Command::new(program).current_dir(root))?;
    }
    Ok(())
}

/// Runs what `cargo test` has built, as with the examples.
fn vectors(root: &Path) -> Outcome {
    let target = Metadata::load(root)?.target_directory;
    let program = Path::new(&target).join("debug/make_vectors");
    let program = program.with_extension(env::consts::EXE_EXTENSION);
    if !program.is_file() {
        run_cargo(root, &["test", "--workspace", "--no-run"])?;
    }
    execute(Command::new(program).arg("--check").current_dir(root))
}

/// `cargo xtask vectors`.
pub(crate) fn make_vectors(root: &Path, flags: &[&str]) -> Outcome {
    let mut args = vec![
        "run",
        "--package",
        "sprag-tests",
        "--bin",
        "make_vectors",
        "--",
    ];
    args.extend(flags);
    run_cargo(root, &args)
}

fn interop(root: &Path) -> Outcome {
    let folder = root.join("tests/interop");
    if !folder.is_dir() {
        say!("tests/interop does not exist; nothing to do");
        return Ok(());
    }
    let python = virtual_environment(root, "interop", &[])?;
    execute(
        Command::new(python)
            .arg("tests/interop/check.py")
            .current_dir(root),
    )
}

/// Tests `sprag-keys` with all features, and the backend for S3. Those tests that need a server start one of tests/kms
/// themselves, on a free port, and it ends with them.
fn kms(root: &Path) -> Outcome {
    let python = virtual_environment(root, "kms", &[])?;
    let keys = ["--package", "sprag-keys", "--all-features", "--"].as_slice();
    let buckets = [
        "--package",
        "sprag",
        "--features",
        "s3",
        "--lib",
        "--",
        "s3",
    ]
    .as_slice();
    for tested in [keys, buckets] {
        let mut command = Command::new(cargo());
        command.arg("test").args(tested).arg("--include-ignored");
        command.env("SPRAG_KMS_PYTHON", &python);
        execute(command.current_dir(root))?;
    }
    Ok(())
}

/// `cargo xtask embeddings`: what the measures of docs/SEARCH.md are made with. Nothing of CI needs it.
pub(crate) fn embeddings(root: &Path) -> Outcome {
    let python = virtual_environment(root, "embeddings", &["--no-deps"])?;
    let target = PathBuf::from(Metadata::load(root)?.target_directory);
    let mut command = Command::new(python);
    command.arg("tests/embeddings/make.py");
    execute(command.arg(target.join("embeddings.f32")).current_dir(root))
}

/// Makes an environment with exactly the pinned packages of a folder of tests, once per version of the pins.
fn virtual_environment(root: &Path, tests: &str, flags: &[&str]) -> Outcome<PathBuf> {
    let requirements = root.join("tests").join(tests).join("requirements.txt");
    let target = PathBuf::from(Metadata::load(root)?.target_directory);
    let folder = target.join(format!("{tests}-venv"));
    let python = if cfg!(windows) {
        "Scripts/python.exe"
    } else {
        "bin/python"
    };
    let python = folder.join(python);
    let stamp = folder.join("installed.txt");
    let wanted = fs::read_to_string(&requirements)?;
    if fs::read_to_string(&stamp).is_ok_and(|installed| installed == wanted) {
        return Ok(python);
    }
    let mut venv = Command::new(env::var_os("PYTHON").unwrap_or("python3".into()));
    execute(venv.args(["-m", "venv", "--clear"]).arg(&folder))?;
    let mut pip = Command::new(&python);
    pip.args(["-m", "pip", "install", "--quiet", "--no-input"]);
    pip.args(["--disable-pip-version-check"]).args(flags);
    execute(pip.arg("--requirement").arg(requirements))?;
    fs::write(stamp, wanted)?;
    Ok(python)
}

fn demo(root: &Path) -> Outcome {
    run_cargo(root, &["run", "--release", "--", "demo"])?;
    let target = PathBuf::from(Metadata::load(root)?.target_directory);
    let program = target
        .join("release/sprag")
        .with_extension(env::consts::EXE_EXTENSION);
    let (size, most) = (
        fs::metadata(program)?.len() / 1024,
        Budget::load(root)?.program_kib,
    );
    say!("the program has {size} KiB");
    if size > most {
        return Err(format!("the program has {size} KiB; budget.toml allows {most}").into());
    }
    Ok(())
}

fn run_cargo(root: &Path, args: &[&str]) -> Outcome {
    execute(Command::new(cargo()).args(args).current_dir(root))
}

/// Runs with nothing on standard input: no step may ask anything.
fn execute(command: &mut Command) -> Outcome {
    let program = Path::new(command.get_program())
        .file_stem()
        .unwrap_or_default();
    let words = command.get_args().map(|arg| arg.to_string_lossy());
    let line: Vec<_> = [program.to_string_lossy()]
        .into_iter()
        .chain(words)
        .collect();
    let line = line.join(" ");
    say!("$ {line}");
    match command.stdin(Stdio::null()).status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("`{line}` ended with {status}").into()),
        Err(error) => Err(format!("`{line}` could not be started: {error}").into()),
    }
}

fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}
