//! Keys in JSON, without copies that nobody wipes.

#[cfg(feature = "aws-kms")]
use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::value::RawValue;
use zeroize::Zeroizing;

/// The text of a string as it stands in JSON.
pub(crate) fn text(raw: &RawValue) -> Option<Zeroizing<String>> {
    // With an escape in it, it cannot be borrowed.
    let borrowed = serde_json::from_str::<&str>(raw.get());
    let text = borrowed.map(str::to_owned);
    let text = text.or_else(|_| serde_json::from_str::<String>(raw.get()));
    text.ok().map(Zeroizing::new)
}

/// The bytes of a string of base64, at most `most` of them.
#[cfg(feature = "aws-kms")]
pub(crate) fn bytes(raw: &RawValue, most: usize) -> Option<Zeroizing<Vec<u8>>> {
    let text = text(raw)?;
    if text.len() / 4 > most.div_ceil(3) {
        return None;
    }
    let bytes = STANDARD.decode(text.as_bytes()).ok().map(Zeroizing::new)?;
    (bytes.len() <= most).then_some(bytes)
}

#[cfg(feature = "aws-kms")]
pub(crate) fn to_base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}
