//! Values that a name before them tells to be secret: `api_key=…`, `"password": "…"`, `--token …`, `the password is …`.

use crate::Kind;
use crate::text::{Found, Text, is_base64, is_word};

/// What a name says of its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sense {
    /// Chosen by people: may be short.
    Password,
    /// Made by machines: long, and not made of words.
    Secret,
    /// As that, in hexadecimal, base58 or base64.
    PrivateKey,
    /// Twelve words and more.
    Words,
}

/// Ends of names, without case, spaces and signs. The first that fits counts.
const NAMES: &[(&str, Sense)] = &[
    ("password", Sense::Password),
    ("passwd", Sense::Password),
    ("passphrase", Sense::Password),
    ("passcode", Sense::Password),
    ("passwort", Sense::Password),
    ("kennwort", Sense::Password),
    ("motdepasse", Sense::Password),
    ("contraseña", Sense::Password),
    ("contrasena", Sense::Password),
    ("wachtwoord", Sense::Password),
    ("senha", Sense::Password),
    ("пароль", Sense::Password),
    ("密码", Sense::Password),
    ("密碼", Sense::Password),
    ("口令", Sense::Password),
    ("パスワード", Sense::Password),
    ("비밀번호", Sense::Password),
    ("pwd", Sense::Password),
    ("privatekey", Sense::PrivateKey),
    ("privkey", Sense::PrivateKey),
    ("signingkey", Sense::PrivateKey),
    ("encryptionkey", Sense::PrivateKey),
    ("masterkey", Sense::PrivateKey),
    ("walletkey", Sense::PrivateKey),
    ("seed", Sense::PrivateKey),
    ("wif", Sense::PrivateKey),
    ("mnemonic", Sense::Words),
    ("mnemonicphrase", Sense::Words),
    ("seedphrase", Sense::Words),
    ("seedwords", Sense::Words),
    ("recoveryphrase", Sense::Words),
    ("backupphrase", Sense::Words),
    ("apikey", Sense::Secret),
    ("secretkey", Sense::Secret),
    ("accesskey", Sense::Secret),
    ("accountkey", Sense::Secret),
    ("sharedkey", Sense::Secret),
    ("authkey", Sense::Secret),
    ("sessionkey", Sense::Secret),
    ("sessionid", Sense::Secret),
    ("secret", Sense::Secret),
    ("token", Sense::Secret),
    ("credential", Sense::Secret),
    ("credentials", Sense::Secret),
];

/// Names of fields whose value is a header that proves a sender.
const HEADERS: [&str; 4] = ["authorization", "proxyauthorization", "cookie", "setcookie"];

/// What stands in place of a secret, in documentation and code.
const PLACEHOLDERS: &[&str] = &[
    "changed",
    "correct",
    "credentials",
    "disabled",
    "empty",
    "enabled",
    "encrypted",
    "expired",
    "false",
    "forgotten",
    "hashed",
    "hidden",
    "incorrect",
    "input",
    "invalid",
    "mandatory",
    "missing",
    "none",
    "null",
    "optional",
    "passphrase",
    "password",
    "protected",
    "redacted",
    "required",
    "requirements",
    "secret",
    "self",
    "string",
    "strong",
    "stored",
    "token",
    "true",
    "undefined",
    "unknown",
    "value",
    "weak",
    "wrong",
    "your-password",
    "your_password",
    "yourpassword",
];

/// Most bytes of a name that are looked at, and of a value in quotes.
const LONGEST_NAME: usize = 48;
const LONGEST_QUOTED: usize = 512;
/// Bytes of other values that they are judged by.
const NEAR: usize = 128;

/// At a `:` or `=` behind a name.
pub(crate) fn separator(text: &Text<'_>, place: usize) -> Option<Found> {
    if matches!(text.before(place), b':' | b'=' | b'!' | b'<' | b'>') {
        return None;
    }
    let sense = sense_before(text, place)?;
    let tight = text.at(place) == b'=' && text.at(place + 1) != b' ';
    let more = text.short_run_of(place + 1, 2, |b| matches!(b, b'=' | b':' | b'>'));
    let start = text.short_run_of(more, 4, |b| b == b' ' || b == b'\t');
    value(text, start, sense, tight)
}

/// At the space of ` is `, behind the name of a password.
pub(crate) fn verb(text: &Text<'_>, place: usize) -> Option<Found> {
    let verb = [" is ", " was ", " ist ", " est ", " es "];
    let verb = verb.iter().find(|verb| text.starts_with(place, verb))?;
    let sense = sense_before(text, place)?;
    let start = text.short_run_of(place + verb.len(), 2, |b| b == b':' || b == b' ');
    value(text, start, sense, false).filter(|_| sense != Sense::PrivateKey)
}

/// At the dashes of `--name value`.
pub(crate) fn flag(text: &Text<'_>, place: usize) -> Option<Found> {
    if !text.starts_with(place, "--") || text.before(place) == b'-' {
        return None;
    }
    let end = text.short_run_of(place + 2, 32, |b| b.is_ascii_alphanumeric() || b == b'-');
    let sense = sense_of(text.slice(place + 2, end))?;
    if text.at(end) != b' ' || text.at(end + 1) == b'-' {
        return None;
    }
    value(text, end + 1, sense, true)
}

/// The kind of a field's value, if its name and it say that all of it is a secret.
pub(crate) fn field(name: &str, value: &str) -> Option<Kind> {
    let name = normal(name);
    let value = value.trim();
    if value.is_empty()
        || is_placeholder(value)
        || Kind::ALL.iter().any(|kind| kind.marker() == value)
    {
        return None;
    }
    if HEADERS.contains(&name.as_str()) {
        return Some(Kind::AuthHeader);
    }
    match sense_of(&name)? {
        Sense::Password => Some(Kind::Token),
        Sense::Secret => is_secret(value).then_some(Kind::Token),
        Sense::PrivateKey => is_key(value).then_some(Kind::PrivateKey),
        Sense::Words => (words(value) == Some(value.len())).then_some(Kind::PrivateKey),
    }
}

/// Whether a value says only what should stand there.
pub(crate) fn is_placeholder(value: &str) -> bool {
    let same = |c: char| value.chars().all(|other| other == c);
    let first = value.chars().next();
    let masked =
        first.is_some_and(|c| matches!(c, '*' | 'x' | 'X' | '.' | '•' | '_' | '-') && same(c));
    masked || PLACEHOLDERS.contains(&value.to_lowercase().as_str())
}

fn sense_before(text: &Text<'_>, place: usize) -> Option<Sense> {
    let before = text.back(place, LONGEST_NAME);
    let before = before.trim_end_matches([' ', '"', '\'', '`', '\\', ']', '*']);
    let before = before.strip_suffix(" is").unwrap_or(before);
    let start =
        before.rfind(|c: char| !(c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | ' ')));
    let name = match start {
        Some(start) => before
            .get(start..)?
            .trim_start_matches(|c: char| !c.is_alphanumeric()),
        None => before,
    };
    sense_of(name)
}

fn sense_of(name: &str) -> Option<Sense> {
    let name = normal(name);
    let found = NAMES.iter().find(|(end, _)| name.ends_with(end))?;
    Some(found.1)
}

fn normal(name: &str) -> String {
    let letters = name.chars().filter(|c| c.is_alphanumeric());
    letters.flat_map(char::to_lowercase).collect()
}

/// The value that begins there. `tight` is one that nothing but its sign separates from the name.
fn value(text: &Text<'_>, start: usize, sense: Sense, tight: bool) -> Option<Found> {
    let escaped = text.short_run_of(start, 1, |b| b == b'\\');
    let quote = text.at(escaped);
    if sense == Sense::Words {
        let start = if matches!(quote, b'"' | b'\'' | b'`') {
            escaped + 1
        } else {
            start
        };
        let near = text.short_run_of(start, 260, |b| {
            b.is_ascii_lowercase() || matches!(b, b' ' | b',')
        });
        let length = words(text.slice(start, near))?;
        return Some(Found::new(Kind::PrivateKey, start, start + length));
    }
    if matches!(quote, b'"' | b'\'' | b'`') {
        let start = escaped + 1;
        let end = text.short_run_of(start, LONGEST_QUOTED, |b| b != quote && b != b'\n');
        if text.at(end) == quote {
            let value = text.slice(start, end).trim_end_matches('\\');
            return judged(start, value, sense, true);
        }
    }
    // Judged by its beginning, so that a chain of names is not gone through once for each of them.
    let near = unquoted(text, start, tight, NEAR);
    let whole = near < start + NEAR;
    let value = text.clipped(start, near);
    let value = if whole { trimmed(value) } else { value };
    if value.starts_with(['[', '{', '(', '<', '$', '%', '"', '\'', '`', '-', '|', '\\'])
        || value.ends_with('(')
    {
        return None;
    }
    // A word of letters is a password if nothing but the end of the line follows.
    let ends = whole && matches!(text.at(near), 0 | b'\n' | b'\r');
    let found = judged(start, value, sense, false).or_else(|| {
        let letters = value
            .chars()
            .all(|c| c.is_alphabetic() || c == '-' || (tight && c == '_'));
        let chosen = (tight && value.len() >= 4) || (ends && value.len() >= 8);
        let password = sense == Sense::Password && letters && chosen && !is_placeholder(value);
        password.then(|| Found::new(Kind::Token, start, start + value.len()))
    })?;
    if whole {
        return Some(found);
    }
    let rest = unquoted(text, start, tight, usize::MAX);
    let end = start + trimmed(text.slice(start, rest)).len();
    Some(Found::new(found.kind, start, end))
}

fn trimmed(value: &str) -> &str {
    value.trim_end_matches(['.', ',', ';', ':', ')', ']', '}', '\\'])
}

/// The end of a value without quotes: white space, a quote, a bracket, or a comma or semicolon with white space behind it.
fn unquoted(text: &Text<'_>, start: usize, tight: bool, most: usize) -> usize {
    let inside =
        |b| b > b' ' && !matches!(b, b'"' | b'\'' | b'`' | b'<' | b'>' | b',' | b';' | b'&');
    let mut end = start;
    loop {
        end = text.short_run_of(end, most - (end - start), inside);
        let next = text.at(end + 1);
        let goes_on = end - start < most && next > b' ';
        match text.at(end) {
            b',' | b';' if goes_on && !is_name(text, end + 1) => end += 1,
            b'&' if goes_on && !tight => end += 1,
            _ => return end,
        }
    }
}

/// Whether the next of several values begins there: `name=`, or a quote.
fn is_name(text: &Text<'_>, place: usize) -> bool {
    let end = text.short_run_of(place, 32, is_word);
    matches!(text.at(place), b'"' | b'\'') || (end > place && text.at(end) == b'=')
}

fn judged(start: usize, value: &str, sense: Sense, quoted: bool) -> Option<Found> {
    let kind = match sense {
        Sense::Password => is_password(value, quoted).then_some(Kind::Token),
        Sense::Secret => is_secret(value).then_some(Kind::Token),
        Sense::PrivateKey => is_key(value).then_some(Kind::PrivateKey),
        Sense::Words => None,
    }?;
    let sound = !value.contains("[redacted:") && !value.contains("-----BEGIN");
    sound.then(|| Found::new(kind, start, start + value.len()))
}

fn is_password(value: &str, quoted: bool) -> bool {
    if is_placeholder(value) || value.chars().count() < 4 || is_call(value) {
        return false;
    }
    let digit = value.contains(char::is_numeric);
    let sign = value.contains([
        '!', '@', '#', '$', '%', '^', '&', '*', '+', '=', '?', '~', '|',
    ]);
    let pairs = value.chars().zip(value.chars().skip(1));
    let mixed = pairs
        .into_iter()
        .any(|(one, next)| one.is_lowercase() && next.is_uppercase());
    let spaces = value.contains(' ');
    digit
        || sign
        || (mixed && !value.contains('.'))
        || (quoted && !spaces)
        || (quoted && value.len() >= 12 && spaces)
}

/// `getpass()`, `auth[2]`, `os.environ["X"]`, `${PASSWORD}`: code that fetches one.
fn is_call(value: &str) -> bool {
    let name =
        value.trim_start_matches(|c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.'));
    let call = name.len() < value.len() && name.starts_with(['(', '[']);
    let variable = value.starts_with(['$', '{', '<', '%']) && value.len() > 1;
    call || (variable && !value.contains(char::is_numeric))
}

/// Long enough, of letters and digits, and not of one of a few.
fn is_secret(value: &str) -> bool {
    let near = value.as_bytes().get(..64).unwrap_or(value.as_bytes());
    let digit = near.iter().any(u8::is_ascii_digit);
    let letter = near.iter().any(u8::is_ascii_alphabetic);
    let plain = near.iter().all(|b| {
        is_word(*b)
            || is_base64(*b)
            || matches!(
                b,
                b'-' | b'.' | b'~' | b':' | b'%' | b'!' | b'@' | b'#' | b'$' | b'*'
            )
    });
    value.len() >= 8 && digit && letter && plain && !is_call(value) && bits(near) >= 2.75
}

/// Shannon's entropy of the bytes, in bits for each.
fn bits(bytes: &[u8]) -> f64 {
    let mut counts = [0_u32; 256];
    for byte in bytes {
        if let Some(count) = counts.get_mut(usize::from(*byte)) {
            *count += 1;
        }
    }
    let all = bytes.len().max(1) as f64;
    let used = counts.into_iter().filter(|count| *count > 0);
    used.map(|count| -f64::from(count) / all * (f64::from(count) / all).log2())
        .sum()
}

/// At least 32 characters of hexadecimal, base58 or base64, with a digit.
fn is_key(value: &str) -> bool {
    let value = value.strip_prefix("0x").unwrap_or(value);
    let near = value.as_bytes().get(..128).unwrap_or(value.as_bytes());
    let plain = near
        .iter()
        .all(|b| is_base64(*b) || matches!(b, b'-' | b'_' | b':'));
    value.len() >= 32 && plain && near.iter().any(u8::is_ascii_digit) && bits(near) >= 2.5
}

/// The length of the 12 to 24 words of three to eight small letters that `text` begins with.
fn words(text: &str) -> Option<usize> {
    let (mut count, mut end, mut place) = (0, 0, 0);
    for word in text.split_inclusive([' ', ',']) {
        let letters = word.trim_end_matches([' ', ',']);
        if letters.is_empty() && count > 0 {
            place += word.len();
            continue;
        }
        let sound =
            (3..=8).contains(&letters.len()) && letters.bytes().all(|b| b.is_ascii_lowercase());
        if !sound || count == 24 {
            break;
        }
        count += 1;
        end = place + letters.len();
        place += word.len();
    }
    (count >= 12).then_some(end)
}
