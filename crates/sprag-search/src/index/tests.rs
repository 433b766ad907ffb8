use proptest::prelude::*;

use super::*;
use crate::{encode, encode_with_vector};

fn key(number: usize) -> Key {
    (number as u128).to_be_bytes()
}

fn number_of(key: &Key) -> usize {
    u128::from_be_bytes(*key).try_into().unwrap()
}

/// Numbers without a pattern, the same each time.
fn vectors(count: usize, dimensions: usize) -> Vec<Vec<f32>> {
    let mut state = 1_u64;
    let mut next = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..count)
        .map(|_| (0..dimensions).map(|_| next()).collect())
        .collect()
}

fn filled(count: usize, dimensions: usize) -> (VectorIndex, Vec<Vec<f32>>) {
    let vectors = vectors(count, dimensions);
    let mut index = VectorIndex::new(dimensions).unwrap();
    for (number, vector) in vectors.iter().enumerate() {
        assert_eq!(index.insert(key(number), vector), Ok(false));
    }
    (index, vectors)
}

fn exact(vectors: &[Vec<f32>], query: &[f32], limit: usize) -> Vec<Key> {
    let unit = |v: &[f32]| length(v).unwrap();
    let mut all: Vec<Hit> = vectors
        .iter()
        .enumerate()
        .map(|(number, v)| Hit {
            key: key(number),
            similarity: cosine(query, unit(query), v, unit(v)),
        })
        .collect();
    all.sort_by(Hit::rank);
    all.iter().take(limit).map(|hit| hit.key).collect()
}

fn keys(hits: &[Hit]) -> Vec<Key> {
    hits.iter().map(|hit| hit.key).collect()
}

#[test]
fn what_is_found_with_the_vectors_is_what_comparing_all_of_them_finds() {
    for dimensions in [1, 2, 31, 32, 33, 384] {
        let (index, all) = filled(3_000, dimensions);
        let mut whole = VectorIndex::with_vectors(dimensions).unwrap();
        for (number, vector) in all.iter().enumerate() {
            whole.insert(key(number), vector).unwrap();
        }
        for query in vectors(3_020, dimensions).iter().skip(3_000) {
            let vector = |key: &Key| Some(all[number_of(key)].clone());
            let found = index.search_with(query, 10, -1.0, vector).unwrap();
            assert_eq!(found, whole.search(query, 10, -1.0).unwrap());
            if dimensions > 2 {
                // In one or two dimensions thousands are as similar as can be.
                assert_eq!(keys(&found), exact(&all, query, 10), "{dimensions}");
            }
        }
    }
}

#[test]
fn the_similarity_of_a_code_is_nearly_the_one_of_its_vector() {
    let (index, all) = filled(500, 384);
    let query = &vectors(501, 384)[500];
    for hit in index.candidates(query, 500).unwrap() {
        let vector = &all[number_of(&hit.key)];
        let unit = |v: &[f32]| length(v).unwrap();
        let similarity = cosine(query, unit(query), vector, unit(vector));
        assert!((hit.similarity - similarity).abs() < 0.002);
    }
}

#[test]
fn the_length_of_vector_and_query_does_not_matter() {
    let (index, all) = filled(50, 16);
    let longer: Vec<f32> = all[7].iter().map(|x| x * 1e20).collect();
    let hits = index.search(&longer, 1, 0.99).unwrap();
    assert_eq!(keys(&hits), [key(7)]);
}

#[test]
fn nothing_below_the_threshold_and_no_more_than_the_limit_is_found() {
    let (index, _) = filled(200, 8);
    let query = &vectors(201, 8)[200];
    let all = index.search(query, 200, -1.0).unwrap();
    assert_eq!(all.len(), 200);
    assert!(all.is_sorted_by(|one, next| one.similarity >= next.similarity));
    let middle = all[100].similarity;
    let upper = index.search(query, usize::MAX, middle).unwrap();
    assert_eq!(
        upper,
        all.iter()
            .copied()
            .take_while(|hit| hit.similarity >= middle)
            .collect::<Vec<_>>()
    );
    assert_eq!(index.search(query, 3, -1.0).unwrap(), all[..3]);
    assert_eq!(index.search(query, 0, -1.0), Ok(vec![]));
    assert_eq!(index.search(query, 5, 1.5), Ok(vec![]));
    assert_eq!(
        VectorIndex::new(8).unwrap().search(query, 5, -1.0),
        Ok(vec![])
    );
}

#[test]
fn equals_come_in_the_order_of_their_keys_whatever_the_order_of_insertion() {
    let mut index = VectorIndex::new(2).unwrap();
    for number in [5, 3, 9, 1, 7, 2] {
        index.insert(key(number), &[1.0, 2.0]).unwrap();
    }
    let hits = index.candidates(&[1.0, 2.0], 4).unwrap();
    assert_eq!(keys(&hits), [key(1), key(2), key(3), key(5)]);
}

#[test]
fn a_vector_that_cannot_be_compared_is_refused_and_changes_nothing() {
    let (mut index, all) = filled(3, 4);
    let before = index.search(&all[0], 10, -1.0);
    let bad: [(&[f32], SearchError); 5] = [
        (
            &[1.0; 3],
            SearchError::OtherDimensions {
                got: 3,
                expected: 4,
            },
        ),
        (
            &[],
            SearchError::OtherDimensions {
                got: 0,
                expected: 4,
            },
        ),
        (&[0.0; 4], SearchError::Zero),
        (&[1.0, f32::NAN, 0.0, 0.0], SearchError::NotFinite),
        (&[1.0, f32::INFINITY, 0.0, 0.0], SearchError::NotFinite),
    ];
    for (vector, error) in bad {
        for key in [key(0), key(99)] {
            assert_eq!(index.insert(key, vector), Err(error));
        }
        assert_eq!(index.candidates(vector, 1), Err(error));
        assert_eq!(index.search(vector, 1, 0.0), Err(error));
        assert_eq!(
            index.search_with(&all[0], 1, 0.0, |_| Some(vector.to_vec())),
            Err(error)
        );
    }
    assert_eq!(
        index.search(&all[0], 1, f32::NAN),
        Err(SearchError::BadThreshold)
    );
    assert_eq!(index.search(&all[0], 10, -1.0), before);
    for dimensions in [0, 4097] {
        assert_eq!(
            VectorIndex::new(dimensions).unwrap_err(),
            SearchError::BadDimensions(dimensions)
        );
    }
}

#[test]
fn a_stored_form_gives_the_same_index_as_the_vector() {
    let all = vectors(300, 48);
    let (mut one, mut other) = (
        VectorIndex::with_vectors(48).unwrap(),
        VectorIndex::with_vectors(48).unwrap(),
    );
    let mut codes = VectorIndex::new(48).unwrap();
    for (number, vector) in all.iter().enumerate() {
        one.insert(key(number), vector).unwrap();
        other
            .insert_encoded(key(number), &encode_with_vector(vector).unwrap())
            .unwrap();
        codes
            .insert_encoded(key(number), &encode(vector).unwrap())
            .unwrap();
    }
    let query = &vectors(301, 48)[300];
    assert_eq!(one.search(query, 20, -1.0), other.search(query, 20, -1.0));
    assert_eq!(one.candidates(query, 20), codes.candidates(query, 20));
}

#[test]
fn a_stored_form_that_does_not_fit_is_refused_and_changes_nothing() {
    let mut index = VectorIndex::with_vectors(2).unwrap();
    let form = encode_with_vector(&[1.0, 2.0]).unwrap();
    let other = encode_with_vector(&[1.0, 2.0, 3.0]).unwrap();
    let short = encode(&[1.0, 2.0]).unwrap();
    for (bytes, error) in [
        (
            &other[..],
            SearchError::OtherDimensions {
                got: 3,
                expected: 2,
            },
        ),
        (&short[..], SearchError::NoVector),
        (&form[..16], SearchError::Malformed),
        (&[], SearchError::Malformed),
        (&[9], SearchError::UnknownVersion(9)),
    ] {
        assert_eq!(index.insert_encoded(key(1), bytes), Err(error));
        assert!(index.is_empty());
    }
}

#[test]
fn a_removed_record_is_found_no_more_and_leaves_nothing_in_memory() {
    // Rows that tell themselves apart: one code each is not 127.
    let mut index = VectorIndex::with_vectors(3).unwrap();
    let vector = |number: u8| [1.0, f32::from(number) / 127.0, f32::from(number) / 127.0];
    for number in 1..=60 {
        index.insert(key(number.into()), &vector(number)).unwrap();
    }
    for number in [60_u8, 1, 30, 31] {
        assert!(index.remove(&key(number.into())));
        assert!(!index.remove(&key(number.into())));
        assert!(!index.contains(&key(number.into())));
        let code = number.cast_signed();
        assert!(index.codes.memory().all(|x| *x != code));
        let part = vector(number)[1];
        assert!(
            index
                .vectors
                .iter()
                .flat_map(Rows::memory)
                .all(|x| *x != part)
        );
    }
    assert_eq!(index.len(), 56);
    let hits = index.search(&vector(30), 56, -1.0).unwrap();
    assert_eq!(hits.len(), 56);
    let scales = index.scales.memory().filter(|x| **x != 0.0).count();
    assert_eq!(scales, 56);
    index.clear();
    assert!(index.is_empty());
    assert_eq!(index.codes.memory().count(), 0);
}

#[test]
fn a_replaced_vector_leaves_nothing_in_memory() {
    let mut index = VectorIndex::new(2).unwrap();
    index.insert(key(1), &[1.0, 77.0 / 127.0]).unwrap();
    assert!(index.codes.memory().any(|x| *x == 77));
    assert_eq!(index.insert(key(1), &[1.0, 5.0 / 127.0]), Ok(true));
    assert!(index.codes.memory().all(|x| *x != 77));
    assert_eq!(index.len(), 1);
}

#[test]
fn nothing_of_a_vector_shows_in_debug() {
    let (index, _) = filled(3, 4);
    assert_eq!(
        format!("{index:?}"),
        "VectorIndex { dimensions: 4, len: 3, .. }"
    );
}

/// What was done to an index, and what it must then hold.
#[derive(Debug, Clone)]
enum Op {
    Insert(u8, [i8; 5]),
    Encoded(u8, [i8; 5]),
    Remove(u8),
    Clear,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        8 => (0..24_u8, any::<[i8; 5]>()).prop_map(|(key, vector)| Op::Insert(key, vector)),
        4 => (0..24_u8, any::<[i8; 5]>()).prop_map(|(key, vector)| Op::Encoded(key, vector)),
        6 => (0..24_u8).prop_map(Op::Remove),
        1 => Just(Op::Clear),
    ]
}

proptest! {
    #[test]
    fn an_index_holds_what_was_inserted_and_not_removed(ops in prop::collection::vec(op(), 0..120)) {
        let mut model: BTreeMap<Key, Vec<f32>> = BTreeMap::new();
        let mut index = VectorIndex::with_vectors(5).unwrap();
        let float = |v: [i8; 5]| v.map(f32::from);
        for op in ops {
            match op {
                Op::Insert(k, v) => {
                    let (k, v) = (key(k.into()), float(v));
                    let had = model.contains_key(&k);
                    let outcome = index.insert(k, &v);
                    prop_assert_eq!(outcome, if v == [0.0; 5] { Err(SearchError::Zero) } else { Ok(had) });
                    if outcome.is_ok() { model.insert(k, v.to_vec()); }
                }
                Op::Encoded(k, v) => {
                    let (k, v) = (key(k.into()), float(v));
                    if let Ok(form) = encode_with_vector(&v) {
                        prop_assert_eq!(index.insert_encoded(k, &form), Ok(model.insert(k, v.to_vec()).is_some()));
                    }
                }
                Op::Remove(k) => prop_assert_eq!(index.remove(&key(k.into())), model.remove(&key(k.into())).is_some()),
                Op::Clear => { index.clear(); model.clear(); }
            }
            prop_assert!(index.keys().eq(model.keys()));
            prop_assert_eq!(index.len(), model.len());
        }
        for (k, v) in &model {
            let hits = index.search(v, 24, -1.0).unwrap();
            prop_assert_eq!(hits.len(), model.len());
            let own = hits.iter().find(|hit| hit.key == *k).unwrap();
            prop_assert!(own.similarity > 0.999_99);
            prop_assert!(own.similarity >= hits[0].similarity - 1e-6);
        }
    }
}
