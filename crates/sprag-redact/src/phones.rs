//! Telephone numbers.

use crate::Kind;
use crate::text::{Found, Text, is_word};

/// Most digits of a number (E.164).
const MOST: usize = 15;

/// Words before a number that say what it is. They are looked for in lower case.
const WORDS: &[&str] = &[
    "phone",
    "telephone",
    "tel",
    "mobile",
    "mobil",
    "cell",
    "cellphone",
    "fax",
    "whatsapp",
    "sms",
    "handy",
    "telefon",
    "telefono",
    "teléfono",
    "telefone",
    "téléphone",
    "celular",
    "móvil",
    "телефон",
    "тел",
    "电话",
    "手机",
    "電話",
    "携帯",
    "전화",
];

/// Digits with what stands between the groups of them.
#[derive(Default)]
struct Groups {
    all_lengths: [usize; MOST],
    all_separators: [u8; MOST],
    count: usize,
    total: usize,
    end: usize,
}

impl Groups {
    fn lengths(&self) -> &[usize] {
        self.all_lengths.get(..self.count).unwrap_or(&[])
    }

    fn separators(&self) -> &[u8] {
        let count = self.count.saturating_sub(1);
        self.all_separators.get(..count).unwrap_or(&[])
    }

    /// Adds a group that ends there and stands behind this.
    fn push(&mut self, separator: u8, length: usize, end: usize) {
        let before = self.count.checked_sub(1);
        if let Some(place) = before.and_then(|before| self.all_separators.get_mut(before)) {
            *place = separator;
        }
        if let Some(place) = self.all_lengths.get_mut(self.count) {
            *place = length;
            self.count += 1;
            self.total += length;
            self.end = end;
        }
    }

    /// Takes the last group away, and gives what stood before it.
    fn pop(&mut self) -> Option<u8> {
        let separator = *self.separators().last()?;
        let length = *self.lengths().last()?;
        self.count -= 1;
        self.total -= length;
        self.end -= length + 1;
        Some(separator)
    }
}

/// At a `+`, a `(` or the beginning of a word.
pub(crate) fn find(text: &Text<'_>, place: usize) -> Option<Found> {
    let before = text.before(place);
    if is_word(before) || matches!(before, b'+' | b'.' | b',' | b'/' | b'#' | b'$') {
        return None;
    }
    let end = match text.at(place) {
        b'+' => international(text, place),
        b'(' => in_parentheses(text, place),
        b'0'..=b'9' if before != b'-' && !is_money(text, place) => national(text, place),
        _ => None,
    }?;
    Some(Found::new(Kind::Phone, place, end))
}

fn is_money(text: &Text<'_>, place: usize) -> bool {
    text.back(place, 4).ends_with(['€', '£', '¥'])
}

/// `+44 20 7946 0958`, `+1 (212) 555-0123`, `+493012345678`.
fn international(text: &Text<'_>, place: usize) -> Option<usize> {
    if !is_country([1, 2, 3].map(|digit| text.at(place + digit))) {
        return None;
    }
    let groups = groups(text, place + 1, true);
    let fewest = if groups.lengths().len() > 1 { 8 } else { 9 };
    let decimal = text.at(groups.end) == b'.' && text.at(groups.end + 1).is_ascii_digit();
    let ends = !is_word(text.at(groups.end)) && !decimal;
    (groups.total >= fewest && ends).then_some(groups.end)
}

/// Whether a country code, or what follows one of a single digit, can begin so. Signs before plain numbers mostly do not.
fn is_country(digits: [u8; 3]) -> bool {
    match digits {
        [b'1', next, _] => matches!(next, b'2'..=b'9' | b' ' | b'-' | b'.' | b'('),
        [b'2', b'8', _] | [b'8', b'3' | b'9', _] => false,
        [b'4', b'2', third] => matches!(third, b'0' | b'1' | b'3'),
        [b'2'..=b'9', ..] => true,
        _ => false,
    }
}

/// `(212) 555-0123`, `(030) 1234567`.
fn in_parentheses(text: &Text<'_>, place: usize) -> Option<usize> {
    let area = text.short_run_of(place + 1, 6, |b| b.is_ascii_digit());
    if !matches!(area - place, 3..=6) || text.at(area) != b')' {
        return None;
    }
    let start = text.short_run_of(area + 1, 1, |b| b == b' ' || b == b'-');
    let rest = groups(text, start, false);
    let american = matches!(rest.lengths(), [3, 4]) && area - place == 4;
    let other = text.at(place + 1) == b'0' && (6..=9).contains(&rest.total);
    ((american || other) && ends(text, rest.end)).then_some(rest.end)
}

fn national(text: &Text<'_>, place: usize) -> Option<usize> {
    let mut groups = groups(text, place, false);
    if is_date(text, place, &groups) {
        return None;
    }
    let all = groups.total;
    let announced =
        (7..=MOST).contains(&all) && ends(text, groups.end) && is_announced(text, place);
    if announced {
        return Some(groups.end);
    }
    // Behind a number and a space another number may stand.
    loop {
        let whole = groups.total == all;
        let usual = is_trunk(text, place, &groups, whole) || is_american(text, place, &groups);
        if usual && (!whole || ends(text, groups.end)) {
            return Some(groups.end);
        }
        if groups.pop()? != b' ' {
            return None;
        }
    }
}

/// Groups of 3, 3 and 4 digits, perhaps behind a 1, that neither area nor exchange begin with 0 or 1; with dashes or dots.
/// With spaces they are numbers like any.
fn is_american(text: &Text<'_>, place: usize, groups: &Groups) -> bool {
    let (lengths, separators) = (groups.lengths(), groups.separators());
    let (three, area) = match (lengths, separators) {
        ([3, 3, 4], [a, b]) => ([*a, *b], place),
        ([1, 3, 3, 4], [_, a, b]) if text.at(place) == b'1' => ([*a, *b], place + 2),
        _ => return false,
    };
    let exchange = text.at(area + 4);
    (three == [b'-', b'-'] || three == [b'.', b'.'])
        && matches!(text.at(area), b'2'..=b'9')
        && matches!(exchange, b'2'..=b'9')
}

/// `020 7946 0958`, `0171/1234567`, `01 23 45 67 89`, `0049 30 123456`: a trunk prefix, and at least one separator.
fn is_trunk(text: &Text<'_>, place: usize, groups: &Groups, whole: bool) -> bool {
    let pairs = groups.lengths().iter().all(|length| *length == 2);
    // Five pairs are a number, more a table.
    let table = text.before(place) == b' ' && text.before(place - 1).is_ascii_digit();
    if text.at(place) != b'0' || (pairs && (table || !whole || groups.count != 5)) {
        return false;
    }
    let abroad = text.at(place + 1) == b'0';
    if abroad && text.at(place + 2) == b'0' {
        return false;
    }
    let most = if abroad { MOST } else { 12 };
    let (Some(first), true) = (groups.lengths().first(), groups.lengths().len() > 1) else {
        return false;
    };
    let sound = groups
        .separators()
        .iter()
        .enumerate()
        .all(|(number, by)| match by {
            b'/' => number == 0 && *first >= 3,
            b'.' => pairs,
            _ => true,
        });
    // Area codes of two digits stand before longer groups.
    let fewest = if *first == 2 && !pairs { 3 } else { 2 };
    let mut rest = groups.lengths().iter().skip(1);
    let short = rest.any(|length| *length < fewest);
    (2..=6).contains(first) && !short && sound && (9..=most).contains(&groups.total)
}

/// `2024-01-02`, `01.02.2024`, `01/02 2024`, and longer ones with a time.
fn is_date(text: &Text<'_>, place: usize, groups: &Groups) -> bool {
    match groups.lengths() {
        [4, 1 | 2, 1 | 2, ..] => matches!(text.slice(place, place + 2), "18" | "19" | "20" | "21"),
        [1 | 2, 1 | 2, 4, ..] => true,
        [2, 4, ..] => matches!(text.slice(place + 3, place + 5), "19" | "20"),
        [8] => matches!(text.slice(place, place + 2), "19" | "20"),
        _ => false,
    }
}

/// Whether one of the words stands before, with nothing but a few signs between.
fn is_announced(text: &Text<'_>, place: usize) -> bool {
    let before = text.back(place, 40).to_lowercase();
    let before = before.trim_end_matches([' ', ':', '.', '=', '#', '"', '\'', '：', '(']);
    let before = ["is", "number", "no", "nr"]
        .iter()
        .fold(before, |before, word| {
            let shorter = before.strip_suffix(word);
            shorter.map_or(before, |shorter| {
                shorter.trim_end_matches([' ', '_', '-', '.', ':'])
            })
        });
    let word = before
        .rsplit(|c: char| !c.is_alphabetic())
        .next()
        .unwrap_or("");
    WORDS
        .iter()
        .any(|known| word == *known || (!known.is_ascii() && word.ends_with(known)))
}

/// Whether a number can end there: no letter, no decimal, no further digits.
fn ends(text: &Text<'_>, end: usize) -> bool {
    let (after, next) = (text.at(end), text.at(end + 1));
    let goes_on = matches!(after, b'.' | b',' | b'-' | b'/' | b':') && is_word(next);
    !is_word(after) && !goes_on
}

/// The groups of digits from there on, as many as are within 15 digits. Between them stands one separator, or a parenthesis
/// with a space.
fn groups(text: &Text<'_>, place: usize, parentheses: bool) -> Groups {
    let mut groups = Groups {
        end: place,
        ..Groups::default()
    };
    let mut start = place;
    loop {
        let end = text.short_run_of(start, MOST + 1, |b| b.is_ascii_digit());
        let decimal = end == start + 1 && start > place && text.before(start) == b'.';
        if end == start || decimal || groups.total + (end - start) > MOST {
            break;
        }
        groups.push(text.before(start), end - start, end);
        let separators: &[u8] = if parentheses { b" -./()" } else { b" -./" };
        let most = if parentheses { 3 } else { 1 };
        start = text.short_run_of(end, most, |b| separators.contains(&b));
        if start == end {
            break;
        }
    }
    groups
}
