//! Runs all benches and prints one table: `cargo bench -p sprag-benches [-- --quick] [-- --markdown] [-- words]`.
//!
//! With words only the operations whose names contain one of them are run.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, reason = "a program that prints its result")]

use sprag_benches::{Effort, Table, facade, handshake, ratchet, session};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let flag = |name: &str| arguments.iter().any(|argument| argument == name);
    let words = arguments
        .iter()
        .filter(|argument| !argument.starts_with("--"));
    let effort = if flag("--quick") {
        Effort::QUICK
    } else {
        Effort::FULL
    };
    let mut table = Table::new(effort, words.cloned().collect());
    handshake::run(&mut table);
    ratchet::run(&mut table);
    session::run(&mut table);
    facade::run(&mut table, env!("CARGO_TARGET_TMPDIR").as_ref());
    let text = if flag("--markdown") {
        table.markdown()
    } else {
        table.text()
    };
    println!("{text}");
}
