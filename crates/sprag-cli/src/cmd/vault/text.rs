//! Keys as text: bech32m, so that a slip of the pen is noticed. Up to four wrong characters are noticed for certain.

use bech32::primitives::decode::CheckedHrpstring;
use bech32::{Bech32m, Hrp};
use sprag_vault::RecipientKey;
use zeroize::Zeroizing;

/// What a text begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Public,
    Private,
    Symmetric,
}

impl Kind {
    const fn prefix(self) -> Hrp {
        Hrp::parse_unchecked(match self {
            Self::Public => "spragpub",
            Self::Private => "spragkey",
            Self::Symmetric => "spragsym",
        })
    }
}

/// The text of 32 bytes. Without an allocation that it outgrows: what it held would stay behind.
pub(super) fn encode(kind: Kind, key: &[u8; 32]) -> Zeroizing<String> {
    let mut text = Zeroizing::new(String::with_capacity(128));
    // A string takes what is written, and 32 bytes are short enough.
    let _ = bech32::encode_lower_to_fmt::<Bech32m, _>(&mut *text, kind.prefix(), key);
    text
}

/// The 32 bytes in a text of this kind.
pub(super) fn decode(kind: Kind, text: &str) -> Option<Zeroizing<[u8; 32]>> {
    let checked = CheckedHrpstring::new::<Bech32m>(text).ok()?;
    let mut key = Zeroizing::new([0; 32]);
    let mut bytes = checked.byte_iter();
    for to in key.iter_mut() {
        *to = bytes.next()?;
    }
    let whole = bytes.next().is_none();
    // Of each key of a kind there is one text: no bits are left over at its end.
    (whole && encode(kind, &key).eq_ignore_ascii_case(text)).then_some(key)
}

pub(super) fn public(key: RecipientKey) -> String {
    encode(Kind::Public, key.as_bytes()).to_string()
}

#[cfg(test)]
mod tests {
    use bech32::Fe32;
    use bech32::primitives::iter::{ByteIterExt, Fe32IterExt};

    use super::*;

    #[test]
    fn keys_have_one_text_each_which_reads_back() {
        for kind in [Kind::Public, Kind::Private, Kind::Symmetric] {
            let text = encode(kind, &[7; 32]);
            assert!(text.capacity() == 128 && text.len() == 67, "{}", text.len());
            assert_eq!(decode(kind, &text).as_deref(), Some(&[7; 32]));
            let loud = text.to_uppercase();
            assert_eq!(decode(kind, &loud).as_deref(), Some(&[7; 32]));
        }
        assert_eq!(
            *encode(Kind::Public, &[7; 32]),
            "spragpub1qurswpc8qurswpc8qurswpc8qurswpc8qurswpc8qurswpc8qurs57u5ld"
        );
    }

    #[test]
    fn any_wrong_character_and_any_other_kind_is_refused() {
        let text = encode(Kind::Public, &[7; 32]).to_string();
        for at in 0..text.len() {
            for other in ["q", "p", "1", "b", "Q", " ", "é"] {
                let mut wrong = text.clone();
                wrong.replace_range(at..=at, other);
                if wrong != text {
                    assert!(decode(Kind::Public, &wrong).is_none(), "{wrong}");
                }
            }
        }
        assert!(decode(Kind::Private, &text).is_none());
        assert!(decode(Kind::Public, &text[..66]).is_none());
        assert!(decode(Kind::Public, "").is_none());
        // The right checksum over too few bytes, too many, and with bits left over.
        let hrp = Kind::Public.prefix();
        for length in [31, 33] {
            let other = bech32::encode::<Bech32m>(hrp, &vec![7; length]).unwrap();
            assert!(decode(Kind::Public, &other).is_none());
        }
        let mut symbols: Vec<Fe32> = [7; 32].into_iter().bytes_to_fes().collect();
        let spelled = |symbols: &[Fe32]| -> String {
            let symbols = symbols.iter().copied();
            symbols.with_checksum::<Bech32m>(&hrp).chars().collect()
        };
        assert!(decode(Kind::Public, &spelled(&symbols)).is_some());
        *symbols.last_mut().unwrap() = Fe32::try_from(31_u8).unwrap();
        assert!(decode(Kind::Public, &spelled(&symbols)).is_none());
        let old = bech32::encode::<bech32::Bech32>(hrp, &[7; 32]).unwrap();
        assert!(decode(Kind::Public, &old).is_none());
    }
}
