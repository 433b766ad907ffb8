//! Bodies of the fuzz targets of search and redaction.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a body fails by panicking"
)]

use std::collections::BTreeMap;

use sprag_redact::{Kind, Patterns, Redactor};
use sprag_search::{Key, LexicalEmbedder, VectorIndex, decode_vector, encode, encode_with_vector};

/// A stored form that reads is the one that would be written, and finds itself.
pub fn search_stored(data: &[u8]) {
    let Ok(vector) = decode_vector(data) else {
        return;
    };
    let dimensions = usize::from(u16::from_be_bytes([data[1], data[2]]));
    let mut index = VectorIndex::new(dimensions).unwrap();
    assert_eq!(index.insert_encoded([1; 16], data), Ok(false));
    if let Some(vector) = vector {
        assert_eq!(encode_with_vector(&vector).unwrap().as_slice(), data);
        assert!(data.starts_with(&encode(&vector).unwrap()));
        let found = index.search(&vector, 1, 0.9).unwrap();
        assert_eq!(found.len(), 1);
    }
    assert!(index.remove(&[1; 16]));
    assert!(index.is_empty());
}

/// An index holds what was inserted and not removed, whatever the order. Each operation is nine bytes: what, which key, and a
/// vector.
pub fn search_index(data: &[u8]) {
    let mut model: BTreeMap<Key, [f32; 7]> = BTreeMap::new();
    let mut index = VectorIndex::with_vectors(7).unwrap();
    let (operations, rest) = data.as_chunks::<9>();
    for [what, key, numbers @ ..] in operations {
        let key = [*key; 16];
        let vector = numbers.map(|byte| f32::from(byte.cast_signed()));
        match what % 4 {
            0 => assert_eq!(index.remove(&key), model.remove(&key).is_some()),
            1 => {
                let form = encode_with_vector(&vector);
                let inserted = form.and_then(|form| index.insert_encoded(key, &form));
                assert_eq!(inserted.is_ok(), vector != [0.0; 7]);
            }
            _ => assert_eq!(index.insert(key, &vector).is_ok(), vector != [0.0; 7]),
        }
        if what % 4 != 0 && vector != [0.0; 7] {
            model.insert(key, vector);
        }
        assert!(index.keys().eq(model.keys()));
    }
    for vector in model.values().take(8) {
        let found = index.search(vector, model.len(), -1.0).unwrap();
        assert_eq!(found.len(), model.len());
        assert!(found[0].similarity > 0.9999);
    }
    assert!(index.insert_encoded([0; 16], rest).is_err());
    let text = String::from_utf8_lossy(data);
    for dimensions in [1, 64] {
        let vector = LexicalEmbedder::new(dimensions).unwrap().embed(&text);
        assert!(vector.is_none_or(|vector| encode(&vector).is_ok()));
    }
}

/// What was redacted stays as it is, and what was not counted was not changed. The first byte chooses the kinds.
pub fn redact(data: &[u8]) {
    let Some((choice, text)) = data.split_first() else {
        return;
    };
    let text = String::from_utf8_lossy(text);
    let chosen = Kind::ALL.iter().enumerate();
    let chosen = chosen.filter(|(bit, _)| choice >> bit & 1 == 0);
    let kinds: Vec<Kind> = chosen.map(|(_, kind)| *kind).collect();
    let patterns = Patterns::only(&kinds);
    let once = patterns.redact(&text);
    assert_eq!(once.counts.is_empty(), once.text == text);
    assert!(once.counts.iter().all(|(kind, _)| kinds.contains(&kind)));
    let again = patterns.redact(&once.text);
    assert_eq!(again.text, once.text);
    assert!(again.counts.is_empty());
    let (name, value) = text.split_once('\n').unwrap_or(("password", &text));
    let _ = patterns.redact_field(name, value);
}
