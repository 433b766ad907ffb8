//! Vectors of words, for programs that have no model.
//!
//! Deterministic on every machine, byte for byte, as follows; `docs/SEARCH.md` says what it is good for.
//!
//! 1. The text is put into lower case (`str::to_lowercase`). Its *words* are the longest runs of letters, digits and marks of
//!    scripts that put spaces between words; its *runs*, those of scripts that put none. A text that has neither is one run
//!    of all its characters that are not white space.
//! 2. The *features* of a word are the word, and of words of 4 characters and more every 4 characters in a row of `‹word›`,
//!    where `‹` and `›` are the bytes 02 and 03. Those of a run are its characters, and every two in a row.
//! 3. The *weight* of a word is 1, but 0.1 for the words of [`COMMON`], and 0.25, 0.5 and 0.75 for others of 1, 2 and 3
//!    characters without a digit. Its fours share it: each has 0.7 times the weight, divided by the root of their number. A
//!    pair of a run has 1, a character of a run 0.3. What occurs n times counts as the root of n.
//! 4. A feature is hashed: FNV-1a of 64 bits over a byte for its sort (1 word, 2 four, 3 pair, 4 character) and its UTF-8.
//!    For i of 0 to 3, h is `fmix64` (of MurmurHash3) of the hash + i · 9e3779b97f4a7c15. Half the weight, negative if the
//!    lowest bit of h is set, is added to dimension `(h >> 32) * dimensions >> 32`, ascending by hash, in f64. (In four places,
//!    so that two features that meet in one of them are not taken for the same.)
//! 5. The vector is divided by its length.

use std::collections::BTreeMap;

use crate::SearchError;
use crate::code::check_dimensions;

/// Makes vectors of texts by their words: texts that share rare or long words, or parts of them, are similar. It knows no
/// meaning: `car` and `automobile` have nothing in common.
///
/// ```
/// use sprag_search::LexicalEmbedder;
///
/// let embedder = LexicalEmbedder::new(LexicalEmbedder::DIMENSIONS)?;
/// let vector = embedder.embed("The deployment window is on Friday").expect("it has words");
/// assert_eq!(vector.len(), 1024);
/// assert_eq!(embedder.embed(" \n"), None);
/// # Ok::<(), sprag_search::SearchError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LexicalEmbedder {
    dimensions: usize,
}

impl LexicalEmbedder {
    /// Dimensions that keep features apart well enough for sentences and paragraphs.
    pub const DIMENSIONS: usize = 1024;

    /// A threshold for searches among texts of up to a paragraph. Of pairs of sentences of all sorts 4 in 100 are above it
    /// (`docs/SEARCH.md`).
    pub const THRESHOLD: f32 = 0.15;

    /// For vectors of 1 to 4,096 dimensions.
    ///
    /// # Errors
    ///
    /// [`SearchError::BadDimensions`].
    pub fn new(dimensions: usize) -> Result<Self, SearchError> {
        check_dimensions(dimensions)?;
        Ok(Self { dimensions })
    }

    /// The number of dimensions of its vectors.
    #[must_use]
    pub fn dimensions(&self) -> usize {
        self.dimensions
    }

    /// The vector of a text, of length 1. `None` if nothing is in the text but white space, or its features cancel each other
    /// out, which takes very few of them or of dimensions.
    #[must_use]
    pub fn embed(&self, text: &str) -> Option<Vec<f32>> {
        let mut features = Features::default();
        features.take(&text.to_lowercase());
        let mut sums = vec![0.0_f64; self.dimensions];
        for (hash, feature) in &features.found {
            let weight = feature.weight * feature.count.sqrt() / 2.0;
            for mixed in places(*hash) {
                let place = ((mixed >> 32) * self.dimensions as u64) >> 32;
                let sum = usize::try_from(place).ok();
                if let Some(sum) = sum.and_then(|place| sums.get_mut(place)) {
                    *sum += if mixed & 1 == 0 { weight } else { -weight };
                }
            }
        }
        let length = sums.iter().map(|x| x * x).sum::<f64>().sqrt();
        if length < 1e-9 {
            return None;
        }
        let unit = sums.iter().map(|x| rounded(x / length));
        Some(unit.collect())
    }
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "rounding to f32 is what is wanted"
)]
fn rounded(x: f64) -> f32 {
    x as f32
}

#[derive(Default)]
struct Features {
    found: BTreeMap<u64, Feature>,
}

struct Feature {
    weight: f64,
    count: f64,
}

#[derive(Clone, Copy)]
enum Sort {
    Word = 1,
    Four = 2,
    Pair = 3,
    Character = 4,
}

/// What a character is part of.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Word,
    Run,
    Nothing,
}

impl Features {
    fn take(&mut self, text: &str) {
        let mut rest = text;
        while let Some(first) = rest.chars().next() {
            let part = part_of(first);
            let end = rest.find(|c| part_of(c) != part).unwrap_or(rest.len());
            let (piece, after) = rest.split_at(end);
            match part {
                Part::Word => self.word(piece),
                Part::Run => self.run(piece),
                Part::Nothing => {}
            }
            rest = after;
        }
        if self.found.is_empty() {
            let marks: String = text.chars().filter(|c| !c.is_whitespace()).collect();
            self.run(&marks);
        }
    }

    fn word(&mut self, word: &str) {
        let weight = weight_of(word);
        self.add(Sort::Word, word.as_bytes(), weight);
        if word.chars().count() >= 4 {
            let framed = format!("\u{2}{word}\u{3}");
            let starts: Vec<usize> = framed.char_indices().map(|(start, _)| start).collect();
            let ends = starts.iter().skip(4).copied().chain([framed.len()]);
            let fours = starts.iter().zip(ends);
            let each = 0.7 * weight / ((starts.len() - 3) as f64).sqrt();
            for (start, end) in fours {
                self.add(
                    Sort::Four,
                    framed.as_bytes().get(*start..end).unwrap_or(&[]),
                    each,
                );
            }
        }
    }

    fn run(&mut self, run: &str) {
        let mut last: Option<(usize, char)> = None;
        for (start, character) in run.char_indices() {
            let end = start + character.len_utf8();
            let bytes = |from: usize| run.as_bytes().get(from..end).unwrap_or(&[]);
            self.add(Sort::Character, bytes(start), 0.3);
            if let Some((before, _)) = last {
                self.add(Sort::Pair, bytes(before), 1.0);
            }
            last = Some((start, character));
        }
    }

    fn add(&mut self, sort: Sort, bytes: &[u8], weight: f64) {
        let hash = hash(sort as u8, bytes);
        let count = self.found.entry(hash);
        count.or_insert(Feature { weight, count: 0.0 }).count += 1.0;
    }
}

fn weight_of(word: &str) -> f64 {
    if COMMON.binary_search(&word).is_ok() {
        return 0.1;
    }
    match word.chars().count() {
        length @ 1..=3 if !word.contains(char::is_numeric) => length as f64 / 4.0,
        _ => 1.0,
    }
}

fn part_of(c: char) -> Part {
    match c {
        // Thai and Lao, Myanmar, Khmer, kana, ideographs, Hangul.
        '\u{e00}'..='\u{eff}'
        | '\u{1000}'..='\u{109f}'
        | '\u{1780}'..='\u{17ff}'
        | '\u{3005}'..='\u{3007}'
        | '\u{3041}'..='\u{30fa}'
        | '\u{30fc}'..='\u{30ff}'
        | '\u{3400}'..='\u{4dbf}'
        | '\u{4e00}'..='\u{9fff}'
        | '\u{ac00}'..='\u{d7a3}'
        | '\u{f900}'..='\u{faff}'
        | '\u{20000}'..='\u{3ffff}' => Part::Run,
        // Accents, Hebrew points, Arabic vowels, Indic signs without the two full stops among them, joiners.
        '\u{300}'..='\u{36f}'
        | '\u{591}'..='\u{5bd}'
        | '\u{64b}'..='\u{65f}'
        | '\u{900}'..='\u{963}'
        | '\u{966}'..='\u{dff}'
        | '\u{200c}'
        | '\u{200d}' => Part::Word,
        c if c.is_alphanumeric() => Part::Word,
        _ => Part::Nothing,
    }
}

fn hash(sort: u8, bytes: &[u8]) -> u64 {
    let all = [sort].into_iter().chain(bytes.iter().copied());
    all.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

fn places(hash: u64) -> impl Iterator<Item = u64> {
    (0..4_u64).map(move |i| {
        let mut mixed = hash.wrapping_add(i.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        for factor in [0xff51_afd7_ed55_8ccd, 0xc4ce_b9fe_1a85_ec53] {
            mixed = (mixed ^ (mixed >> 33)).wrapping_mul(factor);
        }
        mixed ^ (mixed >> 33)
    })
}

/// Words that say little of what a text is about: the commonest ones of English, German, French, Spanish, Italian and
/// Portuguese. Ascending.
const COMMON: &[&str] = &[
    "a", "aber", "about", "after", "again", "al", "all", "alla", "als", "also", "am", "an",
    "anche", "and", "any", "ao", "are", "as", "at", "até", "au", "auch", "auf", "aus", "aux",
    "avec", "be", "because", "been", "before", "bei", "being", "bin", "bis", "bist", "but", "by",
    "can", "ce", "ces", "cette", "che", "chi", "ci", "com", "como", "con", "could", "d", "da",
    "dal", "dans", "das", "dass", "de", "dei", "dein", "del", "della", "dem", "den", "der", "des",
    "di", "did", "die", "dies", "diese", "dieser", "do", "doch", "does", "doing", "don", "dos",
    "dove", "du", "durch", "during", "e", "each", "ed", "ein", "eine", "einem", "einen", "einer",
    "el", "ela", "ele", "ella", "elle", "ellos", "else", "em", "en", "entre", "er", "era", "es",
    "essa", "esse", "est", "esta", "este", "esto", "et", "eu", "euch", "eux", "foi", "for", "from",
    "fue", "further", "für", "gli", "ha", "had", "has", "hat", "hatte", "have", "having", "hay",
    "he", "her", "here", "hers", "him", "his", "ho", "how", "i", "ich", "if", "ihm", "ihn", "ihr",
    "il", "ils", "im", "in", "into", "io", "is", "isso", "ist", "it", "its", "itself", "ja", "je",
    "just", "já", "kann", "kein", "la", "las", "le", "lei", "les", "leur", "li", "ll", "lo",
    "loro", "los", "lui", "m", "ma", "mais", "man", "mas", "me", "mein", "mes", "meu", "mi", "mit",
    "moi", "mon", "more", "most", "muy", "my", "más", "na", "nach", "nas", "ne", "nel", "nella",
    "nicht", "no", "noch", "noi", "non", "nor", "nos", "not", "notre", "nous", "now", "nur", "não",
    "o", "oder", "of", "off", "on", "once", "only", "or", "os", "other", "ou", "our", "out",
    "over", "own", "où", "par", "para", "pas", "pela", "pelo", "per", "perché", "pero", "più",
    "please", "plus", "por", "porque", "pour", "qu", "quando", "que", "quello", "quem", "questo",
    "qui", "re", "s", "sa", "same", "schon", "se", "sei", "sein", "sem", "ser", "ses", "seu",
    "she", "should", "si", "sich", "sie", "sin", "sind", "so", "sobre", "some", "son", "sono",
    "sont", "su", "sua", "such", "suo", "sur", "sus", "são", "sí", "t", "ta", "también", "também",
    "te", "tem", "tes", "than", "that", "the", "their", "them", "then", "there", "these", "they",
    "this", "those", "through", "ti", "to", "toi", "ton", "too", "tra", "tu", "um", "uma", "un",
    "una", "und", "under", "une", "uno", "uns", "unser", "unter", "until", "up", "upon", "us",
    "ve", "very", "você", "vom", "von", "vor", "vos", "votre", "vous", "war", "was", "we", "weil",
    "wenn", "wer", "were", "what", "when", "where", "which", "while", "who", "whom", "why", "wie",
    "will", "wir", "wird", "with", "wo", "would", "y", "ya", "yo", "you", "your", "yours", "zu",
    "zum", "zur", "à", "é", "été", "être", "über",
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::VectorIndex;

    fn similarity(one: &str, other: &str) -> f32 {
        let embedder = LexicalEmbedder::new(LexicalEmbedder::DIMENSIONS).unwrap();
        let (one, other) = (embedder.embed(one).unwrap(), embedder.embed(other).unwrap());
        one.iter().zip(&other).map(|(a, b)| a * b).sum()
    }

    #[test]
    fn common_words_ascend() {
        assert!(COMMON.is_sorted_by(|one, next| one < next));
    }

    /// Computed by a second implementation, in another language.
    #[test]
    fn vectors_are_those_of_the_paper() {
        assert_eq!(
            places(hash(1, b"friday")).next(),
            Some(0x4b91_da59_6471_d945)
        );
        assert_eq!(
            places(hash(3, "東京".as_bytes())).next(),
            Some(0x59f5_5c3d_1d5f_a3dd)
        );
        let embedder = LexicalEmbedder::new(8).unwrap();
        let text = "The deployment is on Friday -- FRIDAY! (v2 API, 東京都)";
        let expected = [
            -0.286_040, 0.048_844, -0.803_261, -0.411_540, -0.036_154, 0.193_460, -0.020_682,
            -0.249_081,
        ];
        for (x, known) in embedder.embed(text).unwrap().iter().zip(expected) {
            assert!((x - known).abs() < 1e-6, "{x} {known}");
        }
    }

    #[test]
    fn a_vector_has_length_one_or_is_not_there() {
        let embedder = LexicalEmbedder::new(64).unwrap();
        for text in [
            "a",
            "I am",
            "été",
            "東",
            "🎉🎉",
            "?!",
            "हिन्दी में",
            "שלום",
            "x\u{0}y",
        ] {
            let vector = embedder.embed(text).unwrap();
            assert_eq!(vector.len(), 64);
            let squares: f32 = vector.iter().map(|x| x * x).sum();
            assert!((squares - 1.0).abs() < 1e-5, "{text}");
        }
        for text in ["", " ", "\n\t\u{a0}\u{3000}"] {
            assert_eq!(embedder.embed(text), None);
        }
        for dimensions in [0, 4097] {
            let refused = LexicalEmbedder::new(dimensions);
            assert_eq!(refused, Err(SearchError::BadDimensions(dimensions)));
        }
    }

    #[test]
    fn case_order_and_punctuation_do_not_matter() {
        let one = similarity(
            "Alice's flight to LISBON, Friday!",
            "friday: lisbon flight (alice's) to",
        );
        assert!(one > 0.999);
        assert!(similarity("ПРИВЕТ МИР", "привет, мир") > 0.999);
        assert!(similarity("ÉCOLE", "école") > 0.999);
    }

    const MEMORIES: &[&str] = &[
        "The user prefers to be addressed as Doctor Okafor in formal letters.",
        "Production deployments happen on Thursdays after the security review.",
        "Her daughter Nina is allergic to peanuts and carries an adrenaline pen.",
        "The quarterly report for the board is due on the third of October.",
        "Das Ferienhaus in der Bretagne ist vom 3. bis zum 17. August gebucht.",
        "Le mot de passe du réseau invité est affiché à la réception.",
        "明日の会議は東京駅の近くで行われます。",
        "用户喜欢喝不加糖的绿茶。",
        "Пользователь живёт в Санкт-Петербурге и работает переводчиком.",
        "The staging database was migrated to PostgreSQL 17 last winter.",
        "He proofreads contracts for a shipping company in Rotterdam.",
        "Ticket INV-20931 concerns the duplicated invoice of March.",
    ];

    #[test]
    fn a_paraphrase_that_shares_words_finds_its_memory_and_nothing_else() {
        let embedder = LexicalEmbedder::new(LexicalEmbedder::DIMENSIONS).unwrap();
        let mut index = VectorIndex::with_vectors(LexicalEmbedder::DIMENSIONS).unwrap();
        for (number, memory) in (0..).zip(MEMORIES) {
            index
                .insert([number; 16], &embedder.embed(memory).unwrap())
                .unwrap();
        }
        for (question, number) in [
            ("How should I address the doctor in a formal letter?", 0),
            ("on which day do we deploy to production", 1),
            ("what is Nina allergic to?", 2),
            ("When is the board's quarterly report due?", 3),
            ("Wann ist das Ferienhaus gebucht?", 4),
            ("mot de passe pour les invités", 5),
            ("会議はどこですか", 6),
            ("绿茶", 7),
            ("где работает переводчик", 8),
            ("postgres migration of the staging databases", 9),
            ("who is proofreading the shipping contracts", 10),
            ("inv-20931", 11),
        ] {
            let query = embedder.embed(question).unwrap();
            let hits = index.search(&query, 5, LexicalEmbedder::THRESHOLD).unwrap();
            let found: Vec<_> = hits
                .iter()
                .map(|hit| (hit.key[0], hit.similarity))
                .collect();
            assert!(
                matches!(found[..], [(first, _)] if first == number),
                "{question}: {found:?}"
            );
        }
    }

    #[test]
    fn unrelated_text_does_not_pass_the_threshold() {
        for text in [
            "What would you like to have for the evening?",
            "Is it going to be with them or after that?",
            "My bicycle has a flat tyre again.",
            "Wie geht es dir heute?",
            "天气很好",
            "спасибо большое",
        ] {
            for memory in MEMORIES {
                let found = similarity(text, memory);
                assert!(
                    found < LexicalEmbedder::THRESHOLD,
                    "{text} / {memory}: {found}"
                );
            }
        }
    }
}
