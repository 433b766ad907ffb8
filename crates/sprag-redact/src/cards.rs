//! Numbers of payment cards.

use crate::Kind;
use crate::text::{Found, Text, is_word};

/// Most digits of a number (ISO/IEC 7812-1), and fewest that issuers use.
const MOST: usize = 19;
const FEWEST: usize = 13;

/// At the beginning of a word: 13 to 19 digits in one piece, or in pieces of which the first has four, that an issuer gives
/// out and that pass the check of Luhn.
pub(crate) fn find(text: &Text<'_>, place: usize) -> Option<Found> {
    let before = text.before(place);
    if !text.at(place).is_ascii_digit() || before == b'.' {
        return None;
    }
    if before == b'-' && text.before(place.saturating_sub(1)).is_ascii_digit() {
        return None;
    }
    let mut digits = [0; MOST];
    let (mut count, mut at, mut best) = (0, place, None);
    loop {
        let end = text.short_run_of(at, MOST + 1, |b| b.is_ascii_digit());
        let whole = at == place;
        let length = end - at;
        if length == 0 || count + length > MOST || (!whole && length > 7) {
            break;
        }
        for (digit, byte) in digits
            .iter_mut()
            .skip(count)
            .zip(text.slice(at, end).bytes())
        {
            *digit = byte - b'0';
        }
        count += length;
        let number = digits.get(..count).unwrap_or(&[]);
        let after = text.at(end);
        let decimal = after == b'.' && text.at(end + 1).is_ascii_digit();
        if count >= FEWEST && !is_word(after) && !decimal && is_issued(number) && luhn(number) {
            best = Some(end);
        }
        let grouped = !whole || length == 4;
        if !grouped || !matches!(after, b' ' | b'-') {
            break;
        }
        at = end + 1;
    }
    best.map(|end| Found::new(Kind::Card, place, end))
}

/// Whether numbers that begin so have that length: Visa, Mastercard, American Express, Diners Club, Discover, JCB, UnionPay,
/// Maestro, Mir, RuPay.
fn is_issued(number: &[u8]) -> bool {
    let head = |digits: usize| {
        let digits = number.iter().take(digits);
        digits.fold(0_u32, |head, digit| head * 10 + u32::from(*digit))
    };
    let length = number.len();
    match head(2) {
        40..=49 => matches!(length, 13 | 16 | 19),
        51..=55 => length == 16,
        22..=27 => length == 16 && matches!(head(4), 2200..=2204 | 2221..=2720),
        34 | 37 => length == 15,
        30 => matches!(head(3), 300..=305) && length >= 14,
        36 | 38 | 39 => length >= 14,
        35 => matches!(head(4), 3528..=3589) && length >= 16,
        60 | 62 | 64 | 65 | 81 | 82 => length >= 16,
        // Longer ones there are, but numbers of 64 bits look the same.
        50 | 56..=59 | 61 | 63 | 66..=69 => length <= 16,
        _ => false,
    }
}

fn luhn(number: &[u8]) -> bool {
    let sum: u32 = number
        .iter()
        .rev()
        .enumerate()
        .map(|(place, digit)| match (place % 2, u32::from(*digit) * 2) {
            (0, doubled) => doubled / 2,
            (_, doubled @ 10..) => doubled - 9,
            (_, doubled) => doubled,
        })
        .sum();
    sum.is_multiple_of(10)
}
