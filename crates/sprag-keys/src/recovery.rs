//! A recovery key: 32 random bytes that people can print, keep, and type in again.
//!
//! ```text
//! version u4 = 1 ‖ key(32)   260 bits, 13 groups of 4 symbols
//! check of the whole          20 bits,  1 group of 4 symbols: SHA-256("Sprag/1 recovery key" ‖ key), its first 20 bits
//! ```
//!
//! Each of the 14 groups ends in a symbol of its own check, so it has five, and the text 70. The symbols are those of
//! Crockford's base 32: without I, L, O and U, of which the first three are read as what they look like.

use std::fmt;

use rand_core::CryptoRng;
use sprag_crypto::sha256;
use zeroize::Zeroizing;

use crate::Key;

/// Groups of the printed form.
pub const RECOVERY_GROUPS: usize = 14;

/// Symbols in a group, the check among them.
const GROUP: usize = 5;
const SYMBOLS: usize = RECOVERY_GROUPS * GROUP;
const VERSION: u8 = 1;
const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
const LABEL: &[u8] = b"Sprag/1 recovery key";

/// A key that opens a backup and is kept on paper. Wiped when dropped.
///
/// ```
/// # fn main() -> Result<(), sprag_keys::RecoveryKeyError> {
/// use sprag_keys::RecoveryKey;
///
/// let key = RecoveryKey::from_bytes([7; 32]);
/// let text = key.to_text();
/// assert!(text.starts_with("21R7D-"));
/// let typed = RecoveryKey::from_text(&text.to_lowercase().replace('-', " "))?;
/// assert_eq!(typed.as_bytes(), key.as_bytes());
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct RecoveryKey(Zeroizing<[u8; 32]>);

/// What is wrong with a recovery key that was typed. Groups count from 1, as people do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RecoveryKeyError {
    /// A group has a wrong symbol, two in the wrong order, or stands in another one's place.
    #[error("group {0} is mistyped, or in the wrong place")]
    #[non_exhaustive]
    Group(usize),
    /// A group has a sign that no recovery key has.
    #[error("group {0} has a sign that is neither a letter nor a digit of a recovery key")]
    #[non_exhaustive]
    Symbol(usize),
    /// There are too few or too many symbols: 70 are needed.
    #[error("a recovery key has 70 letters and digits, not {found}; look at group {near} first")]
    #[non_exhaustive]
    Length {
        /// How many there are.
        found: usize,
        /// The first group that is wrong as it stands.
        near: usize,
    },
    /// Each group is right, and the whole is not: several mistakes.
    #[error("groups are right, but do not belong to one recovery key")]
    Whole,
    /// A key of a later version. Update.
    #[error("recovery key is of another version")]
    Version,
}

impl RecoveryKey {
    /// Draws 32 bytes.
    #[must_use]
    pub fn generate(rng: &mut (impl CryptoRng + ?Sized)) -> Self {
        let mut key = Zeroizing::new([0; 32]);
        rng.fill_bytes(key.as_mut_slice());
        Self(key)
    }

    /// From 32 bytes.
    #[must_use]
    pub fn from_bytes(key: [u8; 32]) -> Self {
        Self(Zeroizing::new(key))
    }

    /// The 32 bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// As a key that opens slots.
    #[must_use]
    pub fn to_key(&self) -> Key {
        Key::raw(*self.0)
    }

    /// 14 groups of five symbols, with dashes between them: 83 bytes. **Secret.**
    #[must_use]
    pub fn to_text(&self) -> Zeroizing<String> {
        // Never grows, so that no copy stays behind.
        let mut text = Zeroizing::new(String::with_capacity(SYMBOLS + RECOVERY_GROUPS));
        for (group, data) in self.groups().iter().enumerate() {
            if group > 0 {
                text.push('-');
            }
            let check = check(group, data);
            for symbol in data.iter().chain([&check]) {
                text.push(letter(*symbol));
            }
        }
        text
    }

    /// Reads what was printed. Capitals do not matter, nor do spaces and dashes; I and L are read as 1, O as 0.
    ///
    /// # Errors
    ///
    /// [`RecoveryKeyError`] says which group to look at. Every single wrong symbol is found, and so is every swap of two
    /// neighbours or of two groups; of anything else one in 2^20 at most goes unnoticed.
    pub fn from_text(text: &str) -> Result<Self, RecoveryKeyError> {
        let mut symbols = Zeroizing::new([0; SYMBOLS]);
        let mut found = 0;
        for sign in text.chars().filter(|sign| !is_between(*sign)) {
            let symbol = symbol(sign).ok_or(RecoveryKeyError::Symbol(found / GROUP + 1))?;
            if let Some(place) = symbols.get_mut(found) {
                *place = symbol;
            }
            found += 1;
        }
        let (groups, _) = symbols.as_chunks::<GROUP>();
        let wrong = groups.iter().enumerate().position(|(group, symbols)| {
            let [a, b, c, d, last] = *symbols;
            check(group, &[a, b, c, d]) != last
        });
        if found != SYMBOLS {
            let near = wrong.unwrap_or(RECOVERY_GROUPS - 1) + 1;
            return Err(RecoveryKeyError::Length { found, near });
        }
        if let Some(group) = wrong {
            return Err(RecoveryKeyError::Group(group + 1));
        }
        let mut key = Zeroizing::new([0; 32]);
        let mut bits = groups
            .iter()
            .flat_map(|[a, b, c, d, _]| [*a, *b, *c, *d])
            .flat_map(|symbol| (0..5).rev().map(move |bit| symbol >> bit & 1));
        let version = bits.by_ref().take(4).fold(0, |all, bit| all << 1 | bit);
        for byte in key.iter_mut() {
            *byte = bits.by_ref().take(8).fold(0, |all, bit| all << 1 | bit);
        }
        let key = Self(key);
        if version != VERSION {
            return Err(RecoveryKeyError::Version);
        }
        if key.groups().last() != groups.last().and_then(|last| last.first_chunk()) {
            return Err(RecoveryKeyError::Whole);
        }
        Ok(key)
    }

    /// The symbols without the check of each group.
    fn groups(&self) -> Zeroizing<[[u8; 4]; RECOVERY_GROUPS]> {
        let digest = Zeroizing::new(sha256(&[LABEL, self.0.as_slice()]));
        let bits_of = |byte: &u8, count: u32| {
            let byte = *byte;
            (0..count).rev().map(move |bit| byte >> bit & 1)
        };
        let mut bits = bits_of(&VERSION, 4)
            .chain(self.0.iter().flat_map(|byte| bits_of(byte, 8)))
            .chain(digest.iter().flat_map(|byte| bits_of(byte, 8)));
        let mut groups = Zeroizing::new([[0; 4]; RECOVERY_GROUPS]);
        for symbol in groups.iter_mut().flatten() {
            *symbol = bits.by_ref().take(5).fold(0, |all, bit| all << 1 | bit);
        }
        groups
    }
}

impl fmt::Debug for RecoveryKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecoveryKey").finish_non_exhaustive()
    }
}

/// The check of a group: with it, the sum of the symbols, each times a weight of its place, is the group's number.
///
/// The weights are the powers of 2 in GF(32): all different, so two neighbours that change places change the sum, and
/// none is zero, so one wrong symbol does. The number differs from group to group, so groups that change places do.
fn check(group: usize, data: &[u8; 4]) -> u8 {
    let number = u8::try_from(group + 1).unwrap_or(0);
    // Horner's scheme: the last symbol has weight 2, the first 16; the check has weight 1.
    data.iter().fold(0, |sum, symbol| double(sum ^ symbol)) ^ number
}

/// Times 2 in GF(32), modulo x^5 + x^2 + 1.
fn double(symbol: u8) -> u8 {
    let doubled = symbol << 1;
    if doubled & 32 == 0 {
        doubled
    } else {
        doubled ^ 0b10_0101
    }
}

fn letter(symbol: u8) -> char {
    ALPHABET
        .get(usize::from(symbol))
        .copied()
        .map_or('0', char::from)
}

fn symbol(sign: char) -> Option<u8> {
    let sign = match sign.to_ascii_uppercase() {
        'O' => '0',
        'I' | 'L' => '1',
        sign => sign,
    };
    let place = ALPHABET.iter().position(|known| char::from(*known) == sign);
    place.and_then(|place| u8::try_from(place).ok())
}

/// Spaces and every kind of dash that a printer or word processor may have made of ours.
fn is_between(sign: char) -> bool {
    sign.is_whitespace() || matches!(sign, '-' | '\u{ad}' | '\u{2010}'..='\u{2015}' | '\u{2212}')
}

#[cfg(test)]
mod tests {
    use rand_chacha::ChaCha20Rng;
    use rand_chacha::rand_core::{Rng, SeedableRng};

    use super::*;

    fn drawn(seed: u64) -> (RecoveryKey, Vec<char>) {
        let key = RecoveryKey::generate(&mut ChaCha20Rng::seed_from_u64(seed));
        let symbols = key
            .to_text()
            .chars()
            .filter(|sign| *sign != '-')
            .collect::<Vec<_>>();
        assert_eq!(symbols.len(), SYMBOLS);
        (key, symbols)
    }

    fn read(symbols: &[char]) -> Result<RecoveryKey, RecoveryKeyError> {
        RecoveryKey::from_text(&symbols.iter().collect::<String>())
    }

    #[test]
    fn what_is_printed_is_read_however_it_is_typed() {
        for seed in 0..50 {
            let (key, symbols) = drawn(seed);
            let text = key.to_text();
            assert_eq!(text.len(), 83);
            let plain: String = symbols.iter().collect();
            let ways = [
                text.to_string(),
                text.to_lowercase(),
                plain.clone(),
                text.replace('-', " \n"),
                text.replace('-', "–"),
                text.replace('-', "\u{2011}"),
                text.replace('0', "O").replace('1', "l"),
                text.replace('0', "o").replace('1', "I"),
                format!("  {}\r\n", text.as_str()),
            ];
            for way in ways {
                let read = RecoveryKey::from_text(&way).unwrap();
                assert_eq!(read.as_bytes(), key.as_bytes());
            }
        }
    }

    /// Made by hand from the description at the head of this file.
    #[test]
    fn the_text_of_a_known_key_is_this_one() {
        let bytes = std::array::from_fn(|at| u8::try_from(at).unwrap());
        let text = RecoveryKey::from_bytes(bytes).to_text();
        assert_eq!(
            *text,
            "20016-081G9-8186P-0W40F-J2GB1-1G6GZ-W3RG6-2491B-650N4-2RBHZ-G68T7-3CE19-T7GZX-GWZ0B"
        );
    }

    #[test]
    fn every_single_wrong_symbol_is_found_in_its_group() {
        let (_, symbols) = drawn(1);
        for at in 0..SYMBOLS {
            for letter in ALPHABET.map(char::from) {
                let mut typed = symbols.clone();
                typed[at] = letter;
                match read(&typed) {
                    Ok(_) => assert_eq!(letter, symbols[at]),
                    Err(error) => assert_eq!(error, RecoveryKeyError::Group(at / GROUP + 1)),
                }
            }
        }
    }

    #[test]
    fn every_swap_of_two_neighbours_is_found() {
        for seed in 0..200 {
            let (_, symbols) = drawn(seed);
            for at in 1..SYMBOLS {
                let mut typed = symbols.clone();
                typed.swap(at - 1, at);
                if typed != symbols {
                    let group = (at - 1) / GROUP + 1;
                    assert_eq!(
                        read(&typed).unwrap_err(),
                        RecoveryKeyError::Group(group),
                        "seed {seed}, symbol {at}"
                    );
                }
            }
        }
    }

    #[test]
    fn every_swap_of_two_groups_is_found_also_of_equal_ones() {
        let keys = [drawn(3).0, RecoveryKey::from_bytes([0; 32])];
        for key in keys {
            let text = key.to_text();
            let groups: Vec<&str> = text.split('-').collect();
            assert_eq!(groups.len(), RECOVERY_GROUPS);
            for one in 0..RECOVERY_GROUPS {
                for other in 0..one {
                    let mut typed = groups.clone();
                    typed.swap(one, other);
                    let error = RecoveryKey::from_text(&typed.join("-")).unwrap_err();
                    assert_eq!(error, RecoveryKeyError::Group(other + 1));
                }
            }
        }
    }

    #[test]
    fn a_missing_or_doubled_symbol_is_told_with_the_group_where_it_happened() {
        let (_, symbols) = drawn(4);
        for at in 0..SYMBOLS {
            let mut typed = symbols.clone();
            typed.remove(at);
            let short = read(&typed).unwrap_err();
            typed.insert(at, symbols[at]);
            typed.insert(at, '7');
            let long = read(&typed).unwrap_err();
            for (error, length) in [(short, SYMBOLS - 1), (long, SYMBOLS + 1)] {
                let RecoveryKeyError::Length { found, near } = error else {
                    panic!("{error:?}");
                };
                assert_eq!(found, length);
                // A group that happens to be right all the same puts it one later.
                assert!(near > at / GROUP && near <= RECOVERY_GROUPS, "{at}: {near}");
            }
        }
        assert!(matches!(
            RecoveryKey::from_text(""),
            Err(RecoveryKeyError::Length { found: 0, .. })
        ));
        let long = "0".repeat(100_000);
        assert!(matches!(
            RecoveryKey::from_text(&long),
            Err(RecoveryKeyError::Length { found: 100_000, .. })
        ));
    }

    #[test]
    fn a_foreign_sign_is_told_with_its_group() {
        let (_, symbols) = drawn(5);
        for (at, sign) in [(0, 'U'), (7, 'u'), (33, 'ä'), (69, '!'), (12, '０')] {
            let mut typed = symbols.clone();
            typed[at] = sign;
            assert_eq!(
                read(&typed).unwrap_err(),
                RecoveryKeyError::Symbol(at / GROUP + 1)
            );
        }
    }

    #[test]
    fn groups_of_two_keys_are_no_key_and_another_version_is_named() {
        let (one, other) = (drawn(6).0.to_text(), drawn(7).0.to_text());
        for cut in 1..RECOVERY_GROUPS {
            let mixed: Vec<&str> = one.split('-').take(cut).collect();
            let rest: Vec<&str> = other.split('-').skip(cut).collect();
            let error = RecoveryKey::from_text(&[mixed, rest].concat().join("-")).unwrap_err();
            assert_eq!(error, RecoveryKeyError::Whole);
        }
        let (_, mut symbols) = drawn(8);
        // 3 or 2 → 5 or 4: version 2. The check of the group follows.
        let first = symbol(symbols[0]).unwrap() + 2;
        let data = [first, 0, 0, 0];
        symbols[0] = letter(first);
        symbols[1..4].fill('0');
        symbols[4] = letter(check(0, &data));
        assert_eq!(read(&symbols).unwrap_err(), RecoveryKeyError::Version);
    }

    #[test]
    fn noise_is_no_key() {
        let mut rng = ChaCha20Rng::seed_from_u64(9);
        for _ in 0..20_000 {
            let symbols: Vec<char> = (0..SYMBOLS)
                .map(|_| letter(u8::try_from(rng.next_u32() % 32).unwrap()))
                .collect();
            assert!(read(&symbols).is_err());
        }
    }

    #[test]
    fn it_prints_nothing_and_its_errors_show_no_symbol() {
        let (key, symbols) = drawn(1);
        assert_eq!(format!("{key:?}"), "RecoveryKey { .. }");
        let mut typed = symbols;
        typed[3] = if typed[3] == 'Z' { 'Y' } else { 'Z' };
        let error = read(&typed).unwrap_err();
        assert_eq!(
            error.to_string(),
            "group 1 is mistyped, or in the wrong place"
        );
    }
}
