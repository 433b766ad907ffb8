//! What an HTTP request proves its sender with.

use crate::Kind;
use crate::names::is_placeholder;
use crate::text::{Found, Text, is_word};

/// Schemes whose credentials are one word; those of the others go on to the end of the line.
const ONE_WORD: &[&str] = &["bearer", "basic", "token", "apikey", "negotiate"];
const WHOLE_LINE: &[&str] = &["digest", "aws4-hmac-sha256", "hawk", "oauth", "hmac"];

/// At the beginning of a word: `Authorization: …`, `Cookie: …`, or a scheme with its credentials.
pub(crate) fn find(text: &Text<'_>, place: usize) -> Option<Found> {
    let found = match text.at(place).to_ascii_lowercase() {
        b'a' => header(text, place, "authorization").and_then(|value| credentials(text, value)),
        b'p' => {
            header(text, place, "proxy-authorization").and_then(|value| credentials(text, value))
        }
        b'c' => header(text, place, "cookie").and_then(|value| cookies(text, value)),
        b's' => header(text, place, "set-cookie").and_then(|value| cookies(text, value)),
        b'b' => scheme(text, place),
        _ => None,
    };
    found.map(|(start, end)| Found::new(Kind::AuthHeader, start, end))
}

/// Where the value of the header of that name begins, if one stands here: `Name: value`, `"Name": "value"`.
fn header(text: &Text<'_>, place: usize, name: &str) -> Option<usize> {
    if !text.starts_with_any_case(place, name) {
        return None;
    }
    let quote = |b| matches!(b, b'"' | b'\'' | b'\\' | b'`');
    let after = text.short_run_of(place + name.len(), 2, quote);
    let separator = text.short_run_of(after, 2, |b| b == b' ');
    let by = text.at(separator);
    if by != b':' && (by != b'=' || name.ends_with("cookie")) {
        return None;
    }
    let value = text.short_run_of(separator + 1, 3, |b| b == b' ' || b == b'\t');
    Some(text.short_run_of(value, 2, quote))
}

fn credentials(text: &Text<'_>, value: usize) -> Option<(usize, usize)> {
    let scheme = text.short_run_of(value, 24, |b| b.is_ascii_alphanumeric() || b == b'-');
    let named = |schemes: &[&str]| {
        let name = text.slice(value, scheme);
        schemes.iter().any(|known| known.eq_ignore_ascii_case(name))
    };
    let start = text.short_run_of(scheme, 3, |b| b == b' ');
    if start > scheme && named(ONE_WORD) {
        let end = text.run_of(start, is_credential);
        let word = text.slice(start, end);
        // `Bearer authentication is …` is none.
        let talk = text.at(end) == b' ' && word.bytes().all(|b| b.is_ascii_alphabetic());
        let real = end - start >= 6 && !(talk || is_placeholder(word));
        return real.then_some((start, end));
    }
    if start > scheme && named(WHOLE_LINE) {
        if text.at(start) == b'[' {
            return None;
        }
        let end = text.run_of(start, |b| !matches!(b, b'\n' | b'\r'));
        let end = start + text.slice(start, end).trim_end().len();
        return (end - start >= 6).then_some((start, end));
    }
    // Without a scheme: a word that is none, and no call of a function.
    let near = text.short_run_of(value, 64, is_credential);
    let digit = text.slice(value, near).bytes().any(|b| b.is_ascii_digit());
    if near - value < 16 || !digit || text.at(near) == b'(' {
        return None;
    }
    Some((value, text.run_of(near, is_credential)))
}

/// `name=value; name=value` to the end of the line or to the quote.
fn cookies(text: &Text<'_>, value: usize) -> Option<(usize, usize)> {
    let name = text.short_run_of(value, 64, |b| {
        is_word(b) || matches!(b, b'.' | b'-' | b'%' | b'!' | b'*' | b'~')
    });
    if name == value || text.at(name) != b'=' {
        return None;
    }
    // `Cookie: a=[redacted:token]` of another pass has nothing left to hide.
    if text.at(name + 1) == b'[' {
        return None;
    }
    let inside = |b| !matches!(b, b'\n' | b'\r' | b'"' | b'\'' | b'\\');
    let end = text.run_of(name, inside);
    let end = value + text.slice(value, end).trim_end().len();
    (end > name + 1).then_some((value, end))
}

/// `Bearer …` and `Basic …` without a header.
fn scheme(text: &Text<'_>, place: usize) -> Option<(usize, usize)> {
    let bearer = text.starts_with_any_case(place, "bearer ");
    let basic = text.starts_with_any_case(place, "basic ");
    if !bearer && !basic {
        return None;
    }
    let start = place + if bearer { 7 } else { 6 };
    let near = text.short_run_of(start, 64, is_credential);
    let word = text.slice(start, near);
    let real = if bearer {
        near - start >= 16 && word.bytes().any(|b| b.is_ascii_digit())
    } else {
        near - start >= 8 && is_basic(word)
    };
    real.then(|| (start, text.run_of(near, is_credential)))
}

fn is_credential(byte: u8) -> bool {
    is_word(byte) || matches!(byte, b'-' | b'.' | b'~' | b'+' | b'/' | b'=')
}

/// Whether it is the base64 of `user:password`: its first characters, in groups of four.
fn is_basic(word: &str) -> bool {
    let mut decoded = Vec::new();
    let (groups, _) = word.as_bytes().as_chunks::<4>();
    for group in groups {
        let mut bits = 0_u32;
        let mut padding = 0;
        for byte in group {
            let value = match byte {
                b'A'..=b'Z' => byte - b'A',
                b'a'..=b'z' => byte - b'a' + 26,
                b'0'..=b'9' => byte - b'0' + 52,
                b'+' | b'-' => 62,
                b'/' | b'_' => 63,
                b'=' => {
                    padding += 1;
                    0
                }
                _ => return false,
            };
            bits = bits << 6 | u32::from(value);
        }
        let [_, bytes @ ..] = bits.to_be_bytes();
        decoded.extend(bytes.iter().take(3_usize.saturating_sub(padding)));
    }
    let printable = decoded
        .iter()
        .all(|b| (0x20..0x7f).contains(b) || *b >= 0x80);
    printable && decoded.contains(&b':')
}

/// The password of `scheme://user:password@host`.
pub(crate) fn password_in_url(text: &Text<'_>, place: usize) -> Option<Found> {
    if !text.starts_with(place, "://") || !text.before(place).is_ascii_alphanumeric() {
        return None;
    }
    let start = place + 3;
    let end = text.short_run_of(start, 512, |b| {
        b > b' ' && !matches!(b, b'/' | b'?' | b'#' | b'"' | b'\'' | b'<' | b'>' | b'\\')
    });
    let authority = text.text.as_bytes().get(start..end)?;
    let at = authority.iter().rposition(|b| *b == b'@')?;
    let colon = authority.iter().take(at).position(|b| *b == b':')?;
    let (from, to) = (start + colon + 1, start + at);
    let password = text.text.get(from..to)?;
    let real = !password.is_empty() && !password.starts_with(['[', '<', '$', '{']);
    (real && !is_placeholder(password)).then(|| Found::new(Kind::AuthHeader, from, to))
}
