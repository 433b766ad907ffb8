//! The index beside one pass over its codes, on real embeddings; and redaction.
//!
//! The floor is the fastest pass that reads every code and gives something that depends on it: all bytes, by XOR, as the
//! compiler vectorises it. It computes nothing of use, and no search can be faster than it.

use std::cmp::Reverse;
use std::fmt::Write;
use std::time::Instant;

use sprag_redact::{Patterns, Redactor};
use sprag_search::{Key, LexicalEmbedder, VectorIndex, encode, encode_with_vector};

use crate::measure::{Operation, Table, repeated};

const DIMENSIONS: usize = 384;
const QUERIES: usize = 1_000;
const LIMIT: usize = 10;

/// Measures search over what `cargo xtask embeddings` made, and gives recall and loading times as text.
pub fn run(table: &mut Table, bytes: &[u8]) -> String {
    let numbers: Vec<f32> = bytes
        .chunks_exact(4)
        .map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap()))
        .collect();
    let rows: Vec<&[f32]> = numbers.chunks_exact(DIMENSIONS).collect();
    let (records, queries) = rows.split_at(rows.len() - QUERIES);
    let mut text = format!(
        "{} records, {QUERIES} queries, {DIMENSIONS} dimensions\n",
        records.len()
    );
    let (index, whole) = load(records, &mut text);
    recall(&index, records, queries, &mut text);
    let codes: Vec<u8> = records
        .iter()
        .flat_map(|row| encode(row).unwrap()[7..].to_vec())
        .collect();
    fastest(&index, &whole, &codes, records, queries, &mut text);
    times(table, &index, &whole, &codes, records, queries);
    text
}

fn key(number: usize) -> Key {
    (number as u128).to_be_bytes()
}

fn number(key: &Key) -> usize {
    u128::from_be_bytes(*key) as usize
}

fn load(records: &[&[f32]], text: &mut String) -> (VectorIndex, VectorIndex) {
    let codes: Vec<_> = records.iter().map(|row| encode(row).unwrap()).collect();
    let forms: Vec<_> = records
        .iter()
        .map(|row| encode_with_vector(row).unwrap())
        .collect();
    let mut index = VectorIndex::new(DIMENSIONS).unwrap();
    let mut whole = VectorIndex::with_vectors(DIMENSIONS).unwrap();
    let mut inserted = VectorIndex::new(DIMENSIONS).unwrap();
    let mut timed = |what: &str, load: &mut dyn FnMut()| {
        let begin = Instant::now();
        load();
        let _ = writeln!(
            text,
            "{what}: {:.0} ms",
            begin.elapsed().as_secs_f64() * 1e3
        );
    };
    timed("load of stored codes", &mut || {
        for (number, form) in codes.iter().enumerate() {
            index.insert_encoded(key(number), form).unwrap();
        }
    });
    timed("load of stored codes with vectors", &mut || {
        for (number, form) in forms.iter().enumerate() {
            whole.insert_encoded(key(number), form).unwrap();
        }
    });
    timed("insertion of vectors", &mut || {
        for (number, row) in records.iter().enumerate() {
            inserted.insert(key(number), row).unwrap();
        }
    });
    (index, whole)
}

fn dot(one: &[f32], other: &[f32]) -> f32 {
    let (one, _) = one.as_chunks::<16>();
    let (other, _) = other.as_chunks::<16>();
    let mut sums = [0.0_f32; 16];
    for (one, other) in one.iter().zip(other) {
        for lane in 0..16 {
            sums[lane] += one[lane] * other[lane];
        }
    }
    sums.iter().sum()
}

/// The most similar records, by comparing all vectors.
fn exact(records: &[&[f32]], query: &[f32]) -> Vec<usize> {
    let scores = records.iter().map(|row| dot(row, query));
    let mut all: Vec<(f32, usize)> = scores.zip(0..).collect();
    all.select_nth_unstable_by(LIMIT - 1, |one, other| other.0.total_cmp(&one.0));
    all.truncate(LIMIT);
    all.sort_by_key(|(score, number)| (Reverse(score.to_bits()), *number));
    all.into_iter().map(|(_, number)| number).collect()
}

fn recall(index: &VectorIndex, records: &[&[f32]], queries: &[&[f32]], text: &mut String) {
    let (mut by_codes, mut again, mut error) = (0, 0, 0.0_f32);
    // How far down the list of the codes the last of the ten stands.
    let mut places = Vec::new();
    for query in queries {
        let truth = exact(records, query);
        let hits = index.candidates(query, 10 * LIMIT).unwrap();
        let place = |wanted: &usize| hits.iter().position(|hit| number(&hit.key) == *wanted);
        let last = truth
            .iter()
            .map(|wanted| place(wanted).map_or(usize::MAX, |place| place + 1));
        places.push(last.max().unwrap());
        by_codes += hits
            .iter()
            .take(LIMIT)
            .filter(|hit| truth.contains(&number(&hit.key)))
            .count();
        for hit in &hits {
            error = error.max((hit.similarity - dot(records[number(&hit.key)], query)).abs());
        }
        let vector = |key: &Key| Some(records[number(key)].to_vec());
        let found = index.search_with(query, LIMIT, -1.0, vector).unwrap();
        again += found
            .iter()
            .filter(|hit| truth.contains(&number(&hit.key)))
            .count();
    }
    places.sort_unstable();
    let share = |found: usize| found as f64 / (LIMIT * queries.len()) as f64;
    let _ = writeln!(
        text,
        "recall@{LIMIT} by codes alone: {:.4}",
        share(by_codes)
    );
    let _ = writeln!(
        text,
        "recall@{LIMIT} ranked again by the vectors: {:.4}",
        share(again)
    );
    let _ = writeln!(
        text,
        "the last of the ten stands at place {} by the codes in half of the queries, {} in 99 of 100, {} in all",
        places[places.len() / 2],
        places[places.len() * 99 / 100],
        places[places.len() - 1],
    );
    let _ = writeln!(text, "largest error of a similarity of a code: {error:.5}");
}

/// The fastest of many runs in turns: what they cost when nothing comes between.
fn fastest(
    index: &VectorIndex,
    whole: &VectorIndex,
    codes: &[u8],
    records: &[&[f32]],
    queries: &[&[f32]],
    text: &mut String,
) {
    let mut best = [f64::INFINITY; 5];
    for query in queries.iter().take(300) {
        let vector = |key: &Key| Some(records[number(key)].to_vec());
        let runs: [&dyn Fn() -> usize; 5] = [
            &|| xor(codes) as usize,
            &|| index.search(query, LIMIT, -1.0).unwrap().len(),
            &|| index.search_with(query, LIMIT, -1.0, vector).unwrap().len(),
            &|| whole.search(query, LIMIT, -1.0).unwrap().len(),
            &|| sum(codes) as usize,
        ];
        for (best, run) in best.iter_mut().zip(runs) {
            let begin = Instant::now();
            std::hint::black_box(run());
            *best = best.min(begin.elapsed().as_secs_f64() * 1e3);
        }
    }
    let [floor, by_codes, by_callers, by_own, sum] = best;
    let _ = writeln!(
        text,
        "fastest of 300: floor (XOR) {floor:.2} ms, sum {sum:.2} ms"
    );
    for (what, taken) in [
        ("ten best by codes", by_codes),
        ("ten best by vectors of the caller", by_callers),
        ("ten best by vectors of the index", by_own),
    ] {
        let ratio = taken / floor;
        let _ = writeln!(text, "{what}: {taken:.2} ms, {ratio:.2} times the floor");
    }
}

fn times(
    table: &mut Table,
    index: &VectorIndex,
    whole: &VectorIndex,
    codes: &[u8],
    records: &[&[f32]],
    queries: &[&[f32]],
) {
    let mut turn = 0;
    let mut next = move || {
        turn += 1;
        turn % QUERIES
    };
    for floor_name in ["XOR", "sum"] {
        let floor = if floor_name == "XOR" { xor } else { sum };
        let mut measure = |name: &str, operation: &dyn Fn(&[f32]) -> usize| {
            table.measure(Operation {
                name: format!("{name}; floor: {floor_name} of all codes"),
                ours: repeated(|| operation(queries[next()])),
                floor: Some(repeated(|| floor(codes))),
                peer: None,
                most: 64,
            });
        };
        measure("ten best by codes", &|query| {
            index.search(query, LIMIT, -1.0).unwrap().len()
        });
        measure("ten best by vectors of the caller", &|query| {
            let vector = |key: &Key| Some(records[number(key)].to_vec());
            index.search_with(query, LIMIT, -1.0, vector).unwrap().len()
        });
        measure("ten best by vectors of the index", &|query| {
            whole.search(query, LIMIT, -1.0).unwrap().len()
        });
        measure("100 best by vectors of the index", &|query| {
            whole.search(query, 100, -1.0).unwrap().len()
        });
    }
}

fn xor(codes: &[u8]) -> u64 {
    u64::from(codes.iter().fold(0, |all, code| all ^ code))
}

fn sum(codes: &[u8]) -> u64 {
    codes.iter().map(|code| u64::from(*code)).sum()
}

/// How many pairs of different sentences are taken for similar by their words alone, as text.
#[must_use]
pub fn lexical(sentences: &str) -> String {
    let embedder = LexicalEmbedder::new(LexicalEmbedder::DIMENSIONS).unwrap();
    let vectors: Vec<Vec<f32>> = sentences
        .lines()
        .take(4_000)
        .filter_map(|line| embedder.embed(line))
        .collect();
    let mut similarities = Vec::new();
    for (number, one) in vectors.iter().enumerate() {
        similarities.extend(vectors[..number].iter().map(|other| dot(one, other)));
    }
    let mut text = format!(
        "{} pairs of sentences, by their words\n",
        similarities.len()
    );
    for threshold in [0.1, LexicalEmbedder::THRESHOLD, 0.2, 0.25, 0.3] {
        let above = similarities.iter().filter(|s| **s >= threshold).count();
        let share = above as f64 / similarities.len() as f64;
        let _ = writeln!(text, "at least {threshold} similar: {share:.5}");
    }
    text
}

/// Measures redaction, and embedding by words, of a kilobyte of prose.
pub fn redaction(table: &mut Table) {
    let prose = "The user prefers tea to coffee, meets Nina on Fridays at 10:30, and works from Rotterdam; \
                 the contract (no. 20931) ends in March 2027. "
        .repeat(8);
    let mut measure = |name: String, ours: &dyn Fn() -> usize| {
        table.measure(Operation {
            name,
            ours: repeated(ours),
            floor: None,
            peer: None,
            most: 100_000,
        });
    };
    let patterns = Patterns::new();
    let embedder = LexicalEmbedder::new(LexicalEmbedder::DIMENSIONS).unwrap();
    let length = prose.len();
    measure(format!("redaction of {length} clean bytes"), &|| {
        patterns.redact(&prose).text.len()
    });
    measure(format!("vector of the words of {length} bytes"), &|| {
        embedder.embed(&prose).map_or(0, |vector| vector.len())
    });
}
