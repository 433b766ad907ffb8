//! Private keys that say so themselves.

use crate::Kind;
use crate::text::{Found, Text, is_base64};

/// A PEM block, or that of SSH2: from its first line to its last; if the last is missing, as far as base64 goes.
pub(crate) fn block(text: &Text<'_>, place: usize) -> Option<Found> {
    let dashes = ["-----BEGIN ", "---- BEGIN "]
        .into_iter()
        .find(|begin| text.starts_with(place, begin))?;
    let label = place + dashes.len();
    let label_end = text.short_run_of(label, 64, |b| {
        b.is_ascii_alphanumeric() || matches!(b, b' ' | b'.')
    });
    let closed = text.starts_with(label_end, "----");
    if !closed || !text.slice(label, label_end).contains("PRIVATE KEY") {
        return None;
    }
    let body = text.run_of(label_end, |b| b == b'-');
    let footer = if dashes.starts_with("-----") {
        "-----END "
    } else {
        "---- END "
    };
    let end = text.next(&text.end, body, footer);
    let begin = text.next(&text.begin, body, dashes);
    match end {
        Some(end) if begin.is_none_or(|begin| end < begin) => {
            let label = end + footer.len();
            let label_end = text.short_run_of(label, 64, |b| {
                b.is_ascii_alphanumeric() || matches!(b, b' ' | b'.')
            });
            let end = text.short_run_of(label_end, 5, |b| b == b'-');
            Some(Found::new(Kind::PrivateKey, place, end))
        }
        _ => {
            let end = base64_lines(text, headers(text, body))?;
            Some(Found::new(Kind::PrivateKey, place, end))
        }
    }
}

/// The private lines of a key file of PuTTY.
pub(crate) fn lines(text: &Text<'_>, place: usize) -> Option<Found> {
    let name = "Private-Lines: ";
    if text.at(place) != b'P' || !text.starts_with(place, name) {
        return None;
    }
    let number = place + name.len();
    let start = text.short_run_of(number, 6, |b| b.is_ascii_digit());
    let start = white_space(text, start);
    let end = base64_lines(text, start)?;
    Some(Found::new(Kind::PrivateKey, start, end))
}

/// Behind up to four lines `Name: value`.
fn headers(text: &Text<'_>, place: usize) -> usize {
    let mut place = white_space(text, place);
    for _ in 0..4 {
        let name = text.short_run_of(place, 32, |b| b.is_ascii_alphanumeric() || b == b'-');
        if name == place || !text.starts_with(name, ": ") {
            break;
        }
        let end = text.short_run_of(name, 200, |b| b != b'\n' && b != b'\\');
        place = white_space(text, end);
    }
    place
}

/// Behind up to eight bytes of white space, or its escapes `\n`, `\r`, `\t`.
fn white_space(text: &Text<'_>, mut place: usize) -> usize {
    let most = place + 8;
    while place < most {
        match (text.at(place), text.at(place + 1)) {
            (b' ' | b'\n' | b'\r' | b'\t', _) => place += 1,
            (b'\\', b'n' | b'r' | b't') => place += 2,
            _ => break,
        }
    }
    place
}

/// The end of lines of base64, the first of at least 40 characters; of shorter ones there is one at most, the last.
fn base64_lines(text: &Text<'_>, mut place: usize) -> Option<usize> {
    let mut end = None;
    loop {
        let line = text.run_of(place, is_base64);
        match line - place {
            40.. => end = Some(line),
            4.. if end.is_some() && looks_like_base64(text.slice(place, line)) => {
                return Some(line);
            }
            _ => return end,
        }
        place = white_space(text, line);
    }
}

fn looks_like_base64(line: &str) -> bool {
    line.contains(|c: char| c.is_ascii_digit() || matches!(c, '+' | '/' | '='))
}
