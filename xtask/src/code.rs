//! Just enough of Rust's lexical structure to ask what a file names.

const TEST_MARK: &str = "#[cfg(test)]";

/// The text with comments, strings and character literals blanked out. Lines stay where they were.
pub(crate) fn code_only(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    let mut previous = ' ';
    while let Some(next) = rest.chars().next() {
        let skipped = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            block_comment(rest)
        } else if next == '"' {
            string(rest)
        } else if next == 'r' && !is_word(previous) && raw_string(rest) > 0 {
            raw_string(rest)
        } else if next == '\'' {
            char_literal(rest)
        } else {
            0
        };
        if skipped == 0 {
            out.push(next);
            previous = next;
            rest = rest.get(next.len_utf8()..).unwrap_or("");
        } else {
            let (gone, tail) = rest.split_at_checked(skipped).unwrap_or((rest, ""));
            out.extend(gone.chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
            previous = ' ';
            rest = tail;
        }
    }
    out
}

/// Blanks what stands under `#[cfg(test)]` out of the result of [`code_only`].
pub(crate) fn without_tests(code: &str) -> String {
    let mut out = String::with_capacity(code.len());
    let mut rest = code;
    while let Some(at) = rest.find(TEST_MARK) {
        let (kept, marked) = rest.split_at(at);
        let (item, tail) = marked.split_at(item_length(marked));
        out.push_str(kept);
        out.extend(item.chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
        rest = tail;
    }
    out.push_str(rest);
    out
}

/// The modules that stand in files of their own and are compiled for tests only.
pub(crate) fn test_modules(code: &str) -> Vec<String> {
    let marked = code.split(TEST_MARK).skip(1);
    let names = marked.filter_map(|after| {
        let (declaration, _) = after.get(..item_length(after))?.split_once(';')?;
        let (_, name) = declaration.rsplit_once("mod ")?;
        (!declaration.contains('{')).then(|| name.trim().to_owned())
    });
    names.collect()
}

/// The modules of `std` that the code names, grouped imports included, with their line numbers from 1.
///
/// A `Duration` is a number, not a clock.
pub(crate) fn std_modules(code: &str) -> Vec<(usize, String)> {
    let code = code.replace("time::Duration", "Duration");
    let mut found = Vec::new();
    for (at, _) in code.match_indices("std::") {
        let (before, after) = code.split_at(at);
        if before.chars().next_back().is_some_and(is_word) {
            continue;
        }
        let line = before.matches('\n').count() + 1;
        let path = after.strip_prefix("std::").unwrap_or(after);
        if path.starts_with('{') {
            let group = path.get(1..group_length(path)).unwrap_or("");
            let mut depth = 0_i32;
            let items = group.split(|c| {
                depth += i32::from(c == '{') - i32::from(c == '}');
                c == ',' && depth == 0
            });
            found.extend(items.map(|item| (line, leading_word(item.trim()))));
        } else {
            found.push((line, leading_word(path)));
        }
    }
    found
}

/// Line numbers, from 1, where `path` stands as a whole path or as its beginning.
pub(crate) fn lines_naming(code: &str, path: &str) -> Vec<usize> {
    let whole = |at: usize| {
        let (before, after) = code.split_at(at);
        let inside = |c: char| is_word(c) || (c == ':' && !path.contains("::"));
        let follows = after.strip_prefix(path).unwrap_or("").chars().next();
        let free = !before.chars().next_back().is_some_and(inside);
        free && !before.ends_with("mod ") && !follows.is_some_and(is_word)
    };
    code.match_indices(path)
        .filter(|(at, _)| whole(*at))
        .map(|(at, _)| code.split_at(at).0.matches('\n').count() + 1)
        .collect()
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn leading_word(text: &str) -> String {
    text.chars().take_while(|c| is_word(*c)).collect()
}

/// Length of `{ .. }` at the start of the text, without its last brace.
fn group_length(text: &str) -> usize {
    let mut depth = 0_i32;
    let end = text.find(|c| {
        depth += i32::from(c == '{') - i32::from(c == '}');
        depth == 0
    });
    end.unwrap_or(text.len())
}

/// Length of an item with its attributes: up to its `;`, or to the brace that closes its first `{`.
fn item_length(code: &str) -> usize {
    let (mut braces, mut brackets) = (0_i32, 0_i32);
    for (at, c) in code.char_indices() {
        match c {
            '[' | '(' => brackets += 1,
            ']' | ')' => brackets -= 1,
            '{' => braces += 1,
            '}' => braces -= 1,
            _ => {}
        }
        if braces == 0 && brackets == 0 && matches!(c, ';' | '}') {
            return at + 1;
        }
    }
    code.len()
}

fn block_comment(text: &str) -> usize {
    let bytes = text.as_bytes();
    let (mut depth, mut at) = (0_usize, 0_usize);
    while let Some(pair) = bytes.get(at..at + 2) {
        match pair {
            b"/*" => (depth, at) = (depth + 1, at + 2),
            b"*/" => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            return at;
        }
    }
    text.len()
}

fn string(text: &str) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// Length of `r"…"` or `r#"…"#`; zero for a raw identifier or an ordinary word.
fn raw_string(text: &str) -> usize {
    let after = text.strip_prefix('r').unwrap_or(text);
    let hashes = after.chars().take_while(|c| *c == '#').count();
    let Some(body) = after.get(hashes..).and_then(|body| body.strip_prefix('"')) else {
        return 0;
    };
    let close = format!("\"{}", "#".repeat(hashes));
    let end = body.find(&close).map_or(body.len(), |at| at + close.len());
    1 + hashes + 1 + end
}

/// Length of `'x'` or `'\n'`; zero for a lifetime.
fn char_literal(text: &str) -> usize {
    let mut chars = text.char_indices().skip(1);
    match (chars.next(), chars.next()) {
        (Some((_, '\\')), Some(_)) => {
            let close = chars.find(|(_, c)| *c == '\'');
            close.map_or(0, |(at, _)| at + 1)
        }
        (Some(_), Some((at, '\''))) => at + 1,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_literals_name_nothing() {
        let text = "a // std::fs\n/* std::fs /* x */ */ b \"std::fs \\\" std::net\" r#\"std::fs\"# c '\"' '\\'' 'a d";
        let code = code_only(text);
        assert!(!code.contains("std"), "{code}");
        assert_eq!(code.matches('\n').count(), 1);
        for kept in ["a ", " b ", " c ", " 'a d"] {
            assert!(code.contains(kept), "{kept} in {code}");
        }
    }

    #[test]
    fn raw_identifiers_and_words_that_end_in_r_are_not_strings() {
        assert_eq!(code_only("r#type for\"x\" br"), "r#type for    br");
    }

    #[test]
    fn code_after_a_test_module_still_counts() {
        let code = "use a;\n#[cfg(test)]\nmod tests;\nfn f() {}\n#[cfg(test)]\nmod t { fn g() { h() } }\nfn k() {}";
        let kept = without_tests(code);
        assert!(kept.contains("fn f()") && kept.contains("fn k()"));
        assert!(!kept.contains("mod"), "{kept}");
        assert_eq!(kept.matches('\n').count(), code.matches('\n').count());
    }

    #[test]
    fn only_test_modules_with_files_are_listed() {
        let code = "#[cfg(test)]\npub(crate) mod a;\nmod b;\n#[cfg(test)]\nmod c { mod d; }\n#[cfg(test)] use x;";
        assert_eq!(test_modules(code), ["a"]);
    }

    #[test]
    fn a_test_function_with_arrays_in_its_signature_is_blanked_whole() {
        let code = "#[cfg(test)]\nfn f(x: [u8; 2]) { g([0; 3]); }\nfn k() {}";
        assert_eq!(without_tests(code).trim(), "fn k() {}");
    }

    #[test]
    fn grouped_imports_are_seen() {
        let found = std_modules(
            "use std::{io, fs::{self, File}, time};use std::time::Duration;\nstd::net::x; my_std::thread;",
        );
        let names: Vec<_> = found.iter().map(|(_, name)| name.as_str()).collect();
        assert_eq!(names, ["io", "fs", "time", "Duration", "net"]);
        assert_eq!(found.last().map(|(line, _)| *line), Some(2));
    }

    #[test]
    fn a_path_is_not_found_inside_another_word_or_path() {
        assert!(lines_naming("mod sled; crate::sled::open(); unsled::x", "sled").is_empty());
        assert_eq!(lines_naming("x;\nuse sled::Db;", "sled"), [2]);
        assert_eq!(
            lines_naming("time::SystemTime::now()", "SystemTime::now"),
            [1]
        );
    }
}
