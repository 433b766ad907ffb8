//! Rounds, medians, and the table.

use std::fmt::Write;
use std::time::{Duration, Instant};

/// One of the sides that are compared: does the operation so many times on fresh state, and gives the time that the
/// operations took, without the preparations.
pub(crate) type Side<'a> = Box<dyn FnMut(usize) -> Duration + 'a>;

/// Makes a side of an operation that needs no preparation.
pub(crate) fn repeated<'a, T>(mut operation: impl FnMut() -> T + 'a) -> Side<'a> {
    Box::new(move |count| {
        let begin = Instant::now();
        for _ in 0..count {
            std::hint::black_box(operation());
        }
        begin.elapsed()
    })
}

/// How long everything takes.
#[derive(Debug, Clone, Copy)]
pub struct Effort {
    rounds: usize,
    slice: Duration,
    /// Messages of one caller on disk in a round; of 64 callers together four times as many.
    pub(crate) durable: usize,
}

impl Effort {
    /// Below three minutes.
    pub const FULL: Self = Self {
        rounds: 31,
        slice: Duration::from_millis(12),
        durable: 128,
    };
    /// Below half a minute.
    pub const QUICK: Self = Self {
        rounds: 7,
        slice: Duration::from_millis(4),
        durable: 64,
    };
}

/// What is to be measured.
pub(crate) struct Operation<'a> {
    pub(crate) name: String,
    pub(crate) ours: Side<'a>,
    pub(crate) floor: Option<Side<'a>>,
    pub(crate) peer: Option<Side<'a>>,
    /// Most repetitions on one state.
    pub(crate) most: usize,
}

#[derive(Debug)]
struct Line {
    name: String,
    ours: String,
    floor: Option<(String, f64)>,
    peer: Option<(String, f64)>,
}

/// The results.
#[derive(Debug)]
pub struct Table {
    effort: Effort,
    words: Vec<String>,
    lines: Vec<Line>,
}

impl Table {
    /// An empty table; with words only operations whose names contain one of them will be measured.
    #[must_use]
    pub fn new(effort: Effort, words: Vec<String>) -> Self {
        Self {
            effort,
            words,
            lines: Vec::new(),
        }
    }

    pub(crate) fn effort(&self) -> Effort {
        self.effort
    }

    pub(crate) fn wants(&self, name: &str) -> bool {
        self.words.is_empty() || self.words.iter().any(|word| name.contains(word))
    }

    /// Measures an operation and enters its line.
    pub(crate) fn measure(&mut self, operation: Operation<'_>) {
        if !self.wants(&operation.name) {
            return;
        }
        let Effort { rounds, slice, .. } = self.effort;
        let most = operation.most;
        let mut sides: Vec<Option<(Side<'_>, usize)>> =
            [Some(operation.ours), operation.floor, operation.peer]
                .into_iter()
                .map(|side| {
                    side.map(|mut side| {
                        let count = calibrate(&mut side, slice, most);
                        (side, count)
                    })
                })
                .collect();
        let mut seconds: [Vec<f64>; 3] = Default::default();
        for round in 0..rounds {
            // Each side is first, second and third equally often.
            for turn in 0..sides.len() {
                let place = (round + turn) % sides.len();
                if let Some((side, count)) = &mut sides[place] {
                    let taken = side(*count).as_secs_f64();
                    seconds[place].push(taken / *count as f64);
                }
            }
        }
        let [ours, floor, peer] = seconds;
        self.enter(&operation.name, &ours, &floor, &peer);
    }

    /// Enters seconds that were measured in rounds elsewhere.
    pub(crate) fn enter(&mut self, name: &str, ours: &[f64], floor: &[f64], peer: &[f64]) {
        let against = |theirs: &[f64]| {
            let ratios: Vec<f64> = ours.iter().zip(theirs).map(|(a, b)| a / b).collect();
            (!theirs.is_empty()).then(|| (time(median(theirs)), median(&ratios)))
        };
        self.lines.push(Line {
            name: name.to_owned(),
            ours: time(median(ours)),
            floor: against(floor),
            peer: against(peer),
        });
    }

    /// Enters a number of bytes.
    pub(crate) fn enter_bytes(&mut self, name: &str, ours: u64, floor: u64) {
        self.lines.push(Line {
            name: name.to_owned(),
            ours: format!("{ours} B"),
            floor: Some((format!("{floor} B"), ours as f64 / floor as f64)),
            peer: None,
        });
    }

    fn cells(&self) -> Vec<[String; 6]> {
        let mut cells =
            vec![["operation", "ours", "floor", "ratio", "vodozemac", "ratio"].map(str::to_owned)];
        let beside = |side: &Option<(String, f64)>| match side {
            Some((value, ratio)) => (value.clone(), format!("{ratio:.2}")),
            None => ("-".to_owned(), "-".to_owned()),
        };
        for line in &self.lines {
            let (floor, over_floor) = beside(&line.floor);
            let (peer, over_peer) = beside(&line.peer);
            let ours = line.ours.clone();
            cells.push([line.name.clone(), ours, floor, over_floor, peer, over_peer]);
        }
        cells
    }

    /// As text in columns.
    #[must_use]
    pub fn text(&self) -> String {
        let cells = self.cells();
        let width = |column: usize| cells.iter().map(|line| line[column].len()).max();
        let widths: Vec<usize> = (0..6).map(|column| width(column).unwrap_or(0)).collect();
        let mut text = String::new();
        for line in &cells {
            let _ = write!(text, "{:<1$}", line[0], widths[0]);
            for (cell, width) in line.iter().zip(&widths).skip(1) {
                let _ = write!(text, "  {cell:>width$}");
            }
            text.push('\n');
        }
        text
    }

    /// As a table in Markdown.
    #[must_use]
    pub fn markdown(&self) -> String {
        let mut text = String::new();
        for (number, line) in self.cells().iter().enumerate() {
            let _ = writeln!(text, "| {} |", line.join(" | "));
            if number == 0 {
                text.push_str("| --- | ---: | ---: | ---: | ---: | ---: |\n");
            }
        }
        text
    }
}

/// How often a side goes into a slice of time.
fn calibrate(side: &mut Side<'_>, slice: Duration, most: usize) -> usize {
    let mut count = 1;
    loop {
        let taken = side(count);
        if taken * 4 >= slice || count >= most {
            let fitting = slice.as_secs_f64() / (taken.as_secs_f64() / count as f64);
            return (fitting as usize).clamp(1, most);
        }
        count = (count * 2).min(most);
    }
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

fn time(seconds: f64) -> String {
    match seconds * 1e6 {
        micros if micros < 9.995 => format!("{micros:.2} µs"),
        micros if micros < 999.5 => format!("{micros:.1} µs"),
        micros => format!("{:.2} ms", micros / 1e3),
    }
}
