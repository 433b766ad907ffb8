//! The texts that keys of 32 bytes are kept as.

use base64::Engine;
use base64::engine::GeneralPurpose;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use zeroize::Zeroizing;

type Bytes = Zeroizing<[u8; 32]>;

/// The 32 bytes themselves.
pub(crate) fn raw(content: &[u8]) -> Option<Bytes> {
    Some(Zeroizing::new(content.try_into().ok()?))
}

/// 64 hexadecimal digits; white space around them does not matter.
pub(crate) fn hex(content: &[u8]) -> Option<Bytes> {
    let mut key = Zeroizing::new([0; 32]);
    hex::decode_to_slice(content.trim_ascii(), key.as_mut_slice()).ok()?;
    Some(key)
}

/// 44 characters of base64; white space around them does not matter.
pub(crate) fn base64(content: &[u8]) -> Option<Bytes> {
    decode(&STANDARD, content)
}

/// 44 characters of the base64 of URLs, where `-_` stand for `+/`.
pub(crate) fn base64_url(content: &[u8]) -> Option<Bytes> {
    decode(&URL_SAFE, content)
}

fn decode(engine: &GeneralPurpose, content: &[u8]) -> Option<Bytes> {
    // The decoder asks for room for a multiple of three.
    let mut decoded = Zeroizing::new([0; 33]);
    let len = engine
        .decode_slice(content.trim_ascii(), decoded.as_mut_slice())
        .ok()?;
    decoded.get(..len).and_then(raw)
}

/// The text that [`base64`] reads.
#[cfg(any(feature = "vault-kv", feature = "aws-kms"))]
pub(crate) fn to_base64(key: &[u8; 32]) -> Zeroizing<String> {
    let mut text = Zeroizing::new(String::with_capacity(48));
    STANDARD.encode_string(key, &mut text);
    text
}

/// The text that [`base64_url`] reads.
#[cfg(feature = "keyring")]
pub(crate) fn to_base64_url(key: &[u8; 32]) -> Zeroizing<String> {
    let mut text = Zeroizing::new(String::with_capacity(48));
    URL_SAFE.encode_string(key, &mut text);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_of_the_aegis_vector_is_read_as_base64_of_urls() {
        let key = "0f1e2d3c4b5a69788796a5b4c3d2e1f0".repeat(2);
        let key = hex(key.as_bytes()).unwrap();
        let text = b"Dx4tPEtaaXiHlqW0w9Lh8A8eLTxLWml4h5altMPS4fA=";
        assert_eq!(base64_url(text), Some(key.clone()));
        assert_eq!(base64(text), Some(key));
    }

    #[test]
    fn each_alphabet_is_itself_only() {
        let (plain, url) = (STANDARD.encode([0xfb; 32]), URL_SAFE.encode([0xfb; 32]));
        assert_ne!(plain, url);
        assert!(base64(plain.as_bytes()).is_some() && base64(url.as_bytes()).is_none());
        assert!(base64_url(url.as_bytes()).is_some() && base64_url(plain.as_bytes()).is_none());
    }

    #[test]
    fn base64_of_another_length_or_without_its_end_is_no_key() {
        for len in [0, 31, 33, 34, 64] {
            assert_eq!(base64(STANDARD.encode(vec![0xab; len]).as_bytes()), None);
        }
        let text = STANDARD.encode([0xab; 32]);
        assert_eq!(base64(text.as_bytes()), Some(Zeroizing::new([0xab; 32])));
        assert_eq!(base64(text.trim_end_matches('=').as_bytes()), None);
        assert_eq!(base64(text.replace('q', " ").as_bytes()), None);
    }
}
