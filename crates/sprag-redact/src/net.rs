//! Addresses of the Internet.

use crate::Kind;
use crate::text::{Found, Text, is_word};

/// At the beginning of a word, or at the first colon of `::`.
pub(crate) fn find(text: &Text<'_>, place: usize) -> Option<Found> {
    let before = text.before(place);
    if before == b'.' || (before == b':' && is_inside(text, place)) {
        return None;
    }
    let end = v4(text, place).or_else(|| v6(text, place))?;
    Some(Found::new(Kind::Ip, place, end))
}

/// Whether what stands before the colon is a part of an IPv6 address, and no name.
fn is_inside(text: &Text<'_>, place: usize) -> bool {
    let before = text.back(place - 1, 5);
    let word = before.rsplit(|c: char| !c.is_ascii_alphanumeric()).next();
    word.is_some_and(|word| word.len() <= 4 && word.bytes().all(|b| b.is_ascii_hexdigit()))
}

fn v4(text: &Text<'_>, place: usize) -> Option<usize> {
    let (octets, end) = octets(text, place)?;
    let after = text.at(end);
    let more = matches!(after, b'.' | b'-' | b'+') && is_word(text.at(end + 1));
    // Numbers of versions go on like `1.2.3.4-beta`; ranges like `1.2.3.4-1.2.3.9`.
    let range = after == b'-' && octets_at(text, end + 1);
    if is_word(after) || (more && !range) || is_version(text, place) {
        return None;
    }
    // Unspecified and loopback addresses and masks are the same for everybody.
    (!matches!(octets, [0 | 127 | 255, ..])).then_some(end)
}

fn octets_at(text: &Text<'_>, place: usize) -> bool {
    octets(text, place).is_some()
}

fn octets(text: &Text<'_>, place: usize) -> Option<([u8; 4], usize)> {
    let mut octets = [0; 4];
    let mut end = place;
    for (number, octet) in octets.iter_mut().enumerate() {
        if number > 0 {
            if text.at(end) != b'.' {
                return None;
            }
            end += 1;
        }
        let start = end;
        end = text.short_run_of(start, 3, |b| b.is_ascii_digit());
        let digits = text.slice(start, end);
        if digits.len() > 1 && digits.starts_with('0') {
            return None;
        }
        *octet = digits.parse().ok()?;
    }
    Some((octets, end))
}

/// A number of a version or of a section of a paper.
fn is_version(text: &Text<'_>, place: usize) -> bool {
    let before = text.back(place, 12).to_ascii_lowercase();
    let before = before.trim_end_matches([' ', ':', '=', '"', '.', '>', '<', '~', '^']);
    [
        "version", "release", "build", "ver", " v", "firmware", "section", "chapter", "clause", "§",
    ]
    .iter()
    .any(|word| before.ends_with(word))
}

fn v6(text: &Text<'_>, place: usize) -> Option<usize> {
    let limit = text.short_run_of(place, 46, |b| {
        b.is_ascii_hexdigit() || matches!(b, b':' | b'.')
    });
    if is_word(text.at(limit)) {
        return None;
    }
    let whole = text.slice(place, limit).trim_end_matches('.');
    let whole = match whole.strip_suffix(':') {
        Some(shorter) if !shorter.ends_with(':') => shorter,
        _ => whole,
    };
    let groups = match whole.split_once("::") {
        Some((head, tail)) => {
            let (head, tail) = (groups(head, false)?, groups(tail, true)?);
            // `::` and `::1` are the same for everybody; `a::b` is a path in many languages.
            let told = head + tail >= 2 && whole.bytes().any(|b| b.is_ascii_digit());
            (told && head + tail <= 7).then_some(8)?
        }
        None => groups(whole, true)?,
    };
    (groups == 8).then_some(())?;
    let end = place + whole.len();
    let zone = text.short_run_of(end + 1, 16, is_word);
    Some(if text.at(end) == b'%' && zone > end + 1 {
        zone
    } else {
        end
    })
}

/// How many groups of 16 bits; the last may be an IPv4 address.
fn groups(part: &str, last: bool) -> Option<usize> {
    if part.is_empty() {
        return Some(0);
    }
    let mut count = 0;
    let mut groups = part.split(':').peekable();
    while let Some(group) = groups.next() {
        let hex = group.bytes().all(|b| b.is_ascii_hexdigit());
        count += match group.len() {
            1..=4 if hex => 1,
            _ if last && groups.peek().is_none() && is_v4(group) => 2,
            _ => return None,
        };
    }
    Some(count)
}

fn is_v4(group: &str) -> bool {
    octets(&Text::new(group), 0).is_some_and(|(_, end)| end == group.len())
}
