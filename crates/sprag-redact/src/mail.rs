//! E-mail addresses.

use crate::Kind;
use crate::text::{Found, Text};

/// Endings of files that are called `name@2x.png`.
const FILES: &[&str] = &[
    "png", "jpg", "jpeg", "gif", "svg", "webp", "css", "js", "ts", "json", "txt", "pdf",
];

/// At the beginning of what can be the part before the `@`.
pub(crate) fn find(text: &Text<'_>, place: usize) -> Option<Found> {
    let byte = text.at(place);
    if !(is_local(byte) || byte >= 0x80) || !begins(text, place) {
        return None;
    }
    // What was found last may have ended inside of a run that was gone through before.
    if text.mail.get().0 <= place {
        let at = end_of(text, place, is_local);
        let end = (text.at(at) == b'@').then(|| domain(text, at + 1));
        text.mail.set((at, end.flatten()));
    }
    let (at, Some(end)) = text.mail.get() else {
        return None;
    };
    let local = text.slice(place, at);
    let start = place + local.len() - local.trim_start_matches(['.', '\'', '-', '%', '+']).len();
    // `git@host:path` is a place, and nobody's address.
    let real = start < at && !local.ends_with('.') && text.slice(start, at) != "git";
    real.then(|| Found::new(Kind::Email, start, end))
}

/// Whether what stands before is no part of the same.
fn begins(text: &Text<'_>, place: usize) -> bool {
    if place == text.barrier || place == 0 {
        return true;
    }
    let before = text.slice(0, place).chars().next_back();
    !before.is_some_and(|c| match u8::try_from(c) {
        Ok(byte) if c.is_ascii() => is_local(byte),
        _ => is_letter(c),
    })
}

/// The end of a run of such bytes, and of letters of the scripts that addresses are written in beside ASCII.
fn end_of(text: &Text<'_>, place: usize, of: impl Fn(u8) -> bool) -> usize {
    let mut end = place;
    loop {
        end = text.run_of(end, &of);
        let next = (text.at(end) >= 0x80).then(|| text.text.get(end..)?.chars().next());
        match next.flatten() {
            Some(c) if is_letter(c) => end += c.len_utf8(),
            _ => return end,
        }
    }
}

fn domain(text: &Text<'_>, start: usize) -> Option<usize> {
    let end = end_of(text, start, |b| {
        b.is_ascii_alphanumeric() || b == b'-' || b == b'.'
    });
    let whole = text.slice(start, end).trim_end_matches(['.', '-']);
    let (rest, top) = whole.rsplit_once('.')?;
    let letters = top.chars().all(char::is_alphabetic) && top.chars().count() >= 2;
    let known = (letters || top.starts_with("xn--")) && !FILES.contains(&top);
    let labels = rest
        .split('.')
        .all(|label| !label.is_empty() && !label.starts_with('-'));
    (known && labels).then_some(start + whole.len())
}

fn is_local(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'%' | b'+' | b'-' | b'\'')
}

/// Letters of Latin, Greek and Cyrillic. Scripts that put no space before an address are left out.
fn is_letter(c: char) -> bool {
    ('\u{c0}'..='\u{52f}').contains(&c) && c.is_alphabetic()
}
