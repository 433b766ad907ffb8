//! Texts that must agree with the code, and words that must not be there.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::{fs, io};

use super::{Report, shown};

/// Traces of somebody's desk, spelled so that this file does not contain them.
const FORBIDDEN: &[&str] = &[
    concat!("/wo", "rk/"),
    concat!("../sha", "red"),
    concat!("iss", "ue #"),
];

pub(super) fn check(root: &Path, files: &[PathBuf], report: &mut Report) -> io::Result<()> {
    for path in files {
        let text = String::from_utf8_lossy(&fs::read(path)?).to_lowercase();
        for word in FORBIDDEN.iter().filter(|word| text.contains(*word)) {
            report.problem(format!("{} contains \"{word}\"", shown(root, path)));
        }
    }
    check_tests(root, files, report)?;
    let readme = read(&root.join("README.md"))?;
    let example = read(&root.join("crates/sprag/examples/two_parties.rs"))?;
    let codes = read(&root.join("crates/sprag/src/error.rs"))?;
    let errors = read(&root.join("docs/ERRORS.md"))?;
    // The facade is finished enough to be held to its word once its first example exists.
    let finished = example.is_some();
    match (readme, example) {
        (Some(readme), Some(example)) => check_readme(&readme, &example, report),
        (None, _) => report.problem("README.md is missing"),
        (_, None) => {}
    }
    match (codes, errors) {
        (Some(codes), Some(errors)) => check_errors(&codes, &errors, report),
        _ if finished => report.problem("crates/sprag/src/error.rs or docs/ERRORS.md is missing"),
        _ => {}
    }
    Ok(())
}

/// A text that names a test as proof is believed only if there is that test.
fn check_tests(root: &Path, files: &[PathBuf], report: &mut Report) -> io::Result<()> {
    let mut functions = BTreeSet::new();
    let mut papers = Vec::new();
    for path in files {
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("rs" | "py") => functions.extend(functions_of(&fs::read_to_string(path)?)),
            Some("md") => papers.push((shown(root, path), fs::read_to_string(path)?)),
            _ => {}
        }
    }
    for (path, text) in papers {
        for name in sentences(&text).difference(&functions) {
            report.problem(format!(
                "{path} names the test `{name}`, which is not there"
            ));
        }
    }
    Ok(())
}

/// The names of the functions in a source file.
fn functions_of(source: &str) -> Vec<String> {
    let words = ["fn ", "def "];
    let places = words.iter().flat_map(|word| source.split(word).skip(1));
    let names = places.map(|rest| {
        let end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
        rest.get(..end.unwrap_or(rest.len()))
            .unwrap_or("")
            .to_owned()
    });
    names.filter(|name| is_code(name)).collect()
}

/// The names of tests in a text: sentences, in backticks, of at least five words.
fn sentences(text: &str) -> BTreeSet<String> {
    let quoted = text.split('`').skip(1).step_by(2);
    quoted
        .filter(|name| is_code(name) && name.matches('_').count() >= 4)
        .map(str::to_owned)
        .collect()
}

/// The first program a reader meets is one that CI runs.
fn check_readme(readme: &str, example: &str, report: &mut Report) {
    match (first_rust_block(readme), marked(example)) {
        (Some(block), Some(marked)) if block == marked => {}
        (Some(_), Some(_)) => report.problem(
            "the first Rust block of README.md differs from crates/sprag/examples/two_parties.rs",
        ),
        (None, _) => report.problem("README.md shows no Rust"),
        (_, None) => report.problem("two_parties.rs lacks `// README` … `// README end`"),
    }
}

/// Each code has its row, each row its code.
fn check_errors(source: &str, document: &str, report: &mut Report) {
    let Some(codes) = codes(source) else {
        report.problem("crates/sprag/src/error.rs has no `CODES`");
        return;
    };
    let rows = rows(document);
    let (known, told): (BTreeSet<_>, BTreeSet<_>) = (codes.iter().collect(), rows.iter().collect());
    for code in known.difference(&told) {
        report.problem(format!("docs/ERRORS.md lacks `{code}`"));
    }
    for code in told.difference(&known) {
        report.problem(format!(
            "docs/ERRORS.md explains `{code}`, which nothing returns"
        ));
    }
    if codes.len() != known.len() || rows.len() != told.len() {
        report.problem("a code stands twice in CODES or in docs/ERRORS.md");
    }
}

/// The lines of the first block fenced as Rust, hidden lines and indentation aside.
fn first_rust_block(text: &str) -> Option<Vec<String>> {
    let mut lines = text.lines();
    lines.find(|line| line.starts_with("```rust"))?;
    Some(levelled(lines.take_while(|line| !line.starts_with("```"))))
}

/// The lines between `// README` and `// README end`.
fn marked(text: &str) -> Option<Vec<String>> {
    let mut lines = text.lines();
    lines.find(|line| line.trim() == "// README")?;
    let end = |line: &&str| line.trim() != "// README end";
    Some(levelled(lines.take_while(end)))
}

/// Without the indentation that all lines share, and without empty lines at either end.
fn levelled<'a>(lines: impl Iterator<Item = &'a str>) -> Vec<String> {
    let lines: Vec<&str> = lines.map(str::trim_end).collect();
    let indent = |line: &&str| line.len() - line.trim_start().len();
    let full = || lines.iter().filter(|line| !line.is_empty());
    let shared = full().map(indent).min().unwrap_or(0);
    let cut = |line: &str| line.get(shared..).unwrap_or("").to_owned();
    let joined: Vec<String> = lines.iter().map(|line| cut(line)).collect();
    let text = joined.join("\n");
    text.trim_matches('\n').lines().map(str::to_owned).collect()
}

/// The snake_case strings of the array `CODES`.
fn codes(source: &str) -> Option<Vec<String>> {
    let (_, after) = source.split_once("const CODES")?;
    let (_, value) = after.split_once('=')?;
    let (array, _) = value.split_once("];")?;
    let literals = array.lines().filter(|line| !line.trim().starts_with("//"));
    let strings = literals.flat_map(|line| line.split('"').skip(1).step_by(2));
    Some(
        strings
            .filter(|text| is_code(text))
            .map(str::to_owned)
            .collect(),
    )
}

/// The first cells of table rows that hold one code in backticks.
fn rows(document: &str) -> Vec<String> {
    let cells = document.lines().filter_map(|line| {
        let cell = line.trim().strip_prefix('|')?.split('|').next()?.trim();
        let code = cell.strip_prefix('`')?.strip_suffix('`')?;
        is_code(code).then(|| code.to_owned())
    });
    cells.collect()
}

fn is_code(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_lowercase())
        && text
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
}

fn read(path: &Path) -> io::Result<Option<String>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(check: impl FnOnce(&mut Report)) -> usize {
        let mut report = Report::default();
        check(&mut report);
        report.problems.len()
    }

    #[test]
    fn the_readme_agrees_with_the_example_whatever_the_indentation() {
        let readme = "# x\n```text\nno\n```\n```rust,no_run\nlet a = 1;\n\n    b(a);\n```\n```rust\nother\n```";
        let example =
            "fn main() {\n    // README\n    let a = 1;\n\n        b(a);\n    // README end\n}";
        assert_eq!(problems(|report| check_readme(readme, example, report)), 0);
    }

    #[test]
    fn a_changed_example_or_a_missing_marker_is_noticed() {
        let readme = "```rust\nlet a = 1;\n```";
        for example in ["// README\nlet a = 2;\n// README end", "let a = 1;"] {
            assert_eq!(problems(|report| check_readme(readme, example, report)), 1);
        }
    }

    #[test]
    fn a_test_that_a_text_names_is_looked_for() {
        let functions = functions_of("#[test]\nfn a_late_message_keeps_its_key() {}\nfn b() {}");
        assert_eq!(functions, ["a_late_message_keeps_its_key", "b"]);
        let text =
            "`a_late_message_keeps_its_key`, `has_few_words`, and `an_outcome_that_nobody_tests`";
        let named = sentences(text);
        let missing: Vec<_> = named
            .iter()
            .filter(|name| !functions.contains(name))
            .collect();
        assert_eq!(missing, ["an_outcome_that_nobody_tests"]);
    }

    #[test]
    fn error_rows_equal_codes() {
        let source = "pub const CODES: &[&str] = &[\n  // \"old\"\n  \"bad_call\",\n  \"closed\",\n];\n\"x\"";
        let document = "| code | meaning |\n|---|---|\n| `bad_call` | `x` |\n| `closed` | y |";
        assert_eq!(problems(|report| check_errors(source, document, report)), 0);
    }

    #[test]
    fn missing_surplus_and_double_rows_are_noticed() {
        let source = "const CODES: [&str; 2] = [\"a\", \"b\"];";
        for document in [
            "| `a` |",
            "| `a` |\n| `b` |\n| `c` |",
            "| `a` |\n| `b` |\n| `b` |",
        ] {
            assert_eq!(problems(|report| check_errors(source, document, report)), 1);
        }
        assert_eq!(problems(|report| check_errors("", "", report)), 1);
    }
}
