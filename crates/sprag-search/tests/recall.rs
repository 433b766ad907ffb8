//! On embeddings that a model made of real sentences (`tests/embeddings/make.py`): random numbers would be kinder.
#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use sprag_search::{Key, VectorIndex, encode, encode_with_vector};

const DIMENSIONS: usize = 384;
const QUERIES: usize = 40;
const LIMIT: usize = 10;

/// Records and queries, at 16 bits for each number: 60 times finer than the codes.
fn embeddings() -> (Vec<Vec<f32>>, Vec<Vec<f32>>) {
    let numbers: Vec<f32> = include_bytes!("embeddings.i16")
        .chunks_exact(2)
        .map(|bytes| f32::from(i16::from_le_bytes(bytes.try_into().unwrap())) / 65536.0)
        .collect();
    let mut records: Vec<Vec<f32>> = numbers
        .chunks_exact(DIMENSIONS)
        .map(<[f32]>::to_vec)
        .collect();
    let queries = records.split_off(records.len() - QUERIES);
    (records, queries)
}

fn cosine(one: &[f32], other: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| -> f64 {
        a.iter()
            .zip(b)
            .map(|(a, b)| f64::from(*a) * f64::from(*b))
            .sum()
    };
    dot(one, other) / (dot(one, one) * dot(other, other)).sqrt()
}

/// The ten most similar, by comparing all.
fn exact(records: &[Vec<f32>], query: &[f32]) -> Vec<usize> {
    let mut all: Vec<(f64, usize)> = records
        .iter()
        .map(|row| cosine(row, query))
        .zip(0..)
        .collect();
    all.sort_by(|one, other| other.0.total_cmp(&one.0));
    all.iter().take(LIMIT).map(|(_, number)| *number).collect()
}

fn key(number: usize) -> Key {
    (number as u128).to_be_bytes()
}

fn number(key: &Key) -> usize {
    u128::from_be_bytes(*key).try_into().unwrap()
}

#[test]
fn real_embeddings_are_found_as_well_as_by_comparing_all_of_them() {
    let (records, queries) = embeddings();
    assert_eq!(records.len(), 760);
    let mut codes = VectorIndex::new(DIMENSIONS).unwrap();
    let mut whole = VectorIndex::with_vectors(DIMENSIONS).unwrap();
    for (place, row) in records.iter().enumerate() {
        codes
            .insert_encoded(key(place), &encode(row).unwrap())
            .unwrap();
        let form = encode_with_vector(row).unwrap();
        whole.insert_encoded(key(place), &form).unwrap();
    }
    let (mut by_codes, mut again) = (0, 0);
    for query in &queries {
        let truth = exact(&records, query);
        let numbers = |hits: Vec<sprag_search::Hit>| hits.into_iter().map(|hit| number(&hit.key));
        let hits = codes.search(query, LIMIT, -1.0).unwrap();
        by_codes += numbers(hits).filter(|found| truth.contains(found)).count();
        let vector = |key: &Key| Some(records[number(key)].clone());
        let hits = codes.search_with(query, LIMIT, -1.0, vector).unwrap();
        assert_eq!(hits, whole.search(query, LIMIT, -1.0).unwrap());
        again += usize::from(numbers(hits).eq(truth));
    }
    // Of 400 at least 390, and all 40 lists in their order.
    assert!(by_codes >= 390, "{by_codes}");
    assert_eq!(again, QUERIES);
}

#[test]
fn the_similarity_of_a_real_code_is_within_a_few_thousandths() {
    let (records, queries) = embeddings();
    let mut index = VectorIndex::new(DIMENSIONS).unwrap();
    for (place, row) in records.iter().enumerate() {
        index.insert(key(place), row).unwrap();
    }
    for query in &queries {
        for hit in index.candidates(query, records.len()).unwrap() {
            let exact = cosine(&records[number(&hit.key)], query);
            assert!((f64::from(hit.similarity) - exact).abs() < 0.004);
        }
    }
}
