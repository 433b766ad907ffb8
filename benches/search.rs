//! The search over real embeddings: `cargo xtask embeddings`, then `cargo bench -p sprag-benches --bench search`.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, reason = "a program that prints its result")]

use sprag_benches::{Effort, Table, search};

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let quick = words.iter().any(|word| word == "--quick");
    let effort = if quick { Effort::QUICK } else { Effort::FULL };
    let mut table = Table::new(effort, Vec::new());
    let target = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).parent();
    let file = target.map(|target| target.join("embeddings.f32"));
    match file.and_then(|file| {
        let sentences = std::fs::read_to_string(file.with_extension("txt")).ok()?;
        Some((std::fs::read(file).ok()?, sentences))
    }) {
        Some((bytes, sentences)) => {
            println!("{}", search::run(&mut table, &bytes));
            println!("{}", search::lexical(&sentences));
        }
        None => println!("There are no embeddings yet: cargo xtask embeddings"),
    }
    search::redaction(&mut table);
    println!("{}", table.text());
}
