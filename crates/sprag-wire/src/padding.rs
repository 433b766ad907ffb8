//! Padding of a content ("The protocol", §6).

use zeroize::Zeroizing;

use crate::BadContent;

const MARK: u8 = 0x80;
const FLOOR: usize = 160;

/// How much padding a message gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Padding {
    /// To Padmé lengths of at least 160 bytes: the default.
    Padme,
    /// One byte.
    None,
}

/// `Padmé(L)`, of lengths below 160 that of 160: rounds up so that a length tells little; at most 12 %.
#[must_use]
pub fn padme(length: usize) -> usize {
    let length = length.max(FLOOR);
    let e = length.ilog2();
    let z = e.saturating_sub(e.ilog2()).saturating_sub(1);
    length.checked_next_multiple_of(1 << z).unwrap_or(length)
}

/// The content, one `0x80`, then zeros. It is the caller who keeps the result at or below
/// [`PLAINTEXT`](crate::limits::PLAINTEXT).
#[must_use]
pub fn pad(content: &[u8], padding: Padding) -> Zeroizing<Vec<u8>> {
    let length = content.len().saturating_add(1);
    let padded = match padding {
        Padding::Padme => padme(length),
        Padding::None => length,
    };
    let mut plaintext = Zeroizing::new(Vec::with_capacity(padded));
    plaintext.extend_from_slice(content);
    plaintext.push(MARK);
    plaintext.resize(padded, 0);
    plaintext
}

/// The content without its padding.
///
/// # Errors
/// [`BadContent`]: there is no `0x80` before the zeros.
pub fn unpad(plaintext: &[u8]) -> Result<&[u8], BadContent> {
    let end = plaintext
        .iter()
        .rposition(|byte| *byte != 0)
        .ok_or(BadContent)?;
    match plaintext.split_at_checked(end) {
        Some((content, [MARK, ..])) => Ok(content),
        _ => Err(BadContent),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_contents_look_alike_and_none_stays_short() {
        for length in [0, 1, 158, 159] {
            assert_eq!(pad(&vec![1; length], Padding::Padme).len(), 160);
        }
        assert_eq!(*pad(b"hi", Padding::None), [b'h', b'i', 0x80]);
    }

    #[test]
    fn only_the_last_mark_is_taken_off() {
        assert_eq!(unpad(&[0x80]), Ok([].as_slice()));
        assert_eq!(unpad(&[7, 0x80, 0x80, 0, 0]), Ok([7, 0x80].as_slice()));
        assert_eq!(unpad(&[0, 0, 0x80]), Ok([0, 0].as_slice()));
    }

    #[test]
    fn padding_without_mark_is_bad_content() {
        for plaintext in [
            [].as_slice(),
            &[0],
            &[0, 0],
            &[1],
            &[0x80, 1],
            &[0x80, 0x81, 0],
        ] {
            assert_eq!(unpad(plaintext), Err(BadContent), "{plaintext:?}");
        }
    }

    #[test]
    fn no_length_overflows() {
        for length in [0, usize::MAX / 2, usize::MAX - 1, usize::MAX] {
            assert!(padme(length) >= length);
        }
    }
}
