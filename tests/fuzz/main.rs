//! Fuzzing without a special toolchain: a committed corpus, replayed whole,
//! then mutated for a bounded number of runs.
//!
//! `FUZZ_SEED` repeats a run, `FUZZ_RUNS` makes it longer; `fuzz/README.md`
//! says how a found input is kept.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::as_conversions,
    reason = "a panic is how a test says no"
)]

mod codec;
mod corpus;
mod inbound;
mod mutate;
mod seeds;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use mutate::Random;

const RUNS: u64 = 100_000;

/// What is fuzzed: takes any bytes, panics when a promise is broken.
type Target = fn(&[u8]);

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable}={text} is not a number")))
}

/// Runs `target`; a panic names the input, and goes on.
fn run(target: Target, input: &[u8], origin: &str) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| target(input))) {
        eprintln!("found by {origin}; keep it in the corpus:\n{}", hex(input));
        resume_unwind(panic);
    }
}

fn replay(folder: &str, target: Target) {
    let corpus = corpus::read(folder);
    assert!(corpus.len() >= 24, "only {} inputs in {folder}", corpus.len());
    for (name, input) in &corpus {
        run(target, input, name);
        // Every prefix too: "more bytes are needed" is an answer of its own.
        for end in 0..input.len().min(256) {
            run(target, &input[..end], name);
        }
    }
}

fn mutate(folder: &str, target: Target) {
    let corpus: Vec<Vec<u8>> = corpus::read(folder).into_iter().map(|(_, input)| input).collect();
    let clock = std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64;
    let seed = number("FUZZ_SEED").unwrap_or(clock);
    println!("{folder}: FUZZ_SEED={seed}");
    let origin = format!("FUZZ_SEED={seed}");
    let mut random = Random::new(seed);
    for _ in 0..number("FUZZ_RUNS").unwrap_or(RUNS) {
        let input = mutate::mutant(&corpus, &mut random);
        run(target, &input, &origin);
    }
}

#[test]
fn the_inbound_corpus_holds() {
    replay("inbound", inbound::target);
}

#[test]
fn mutants_of_the_inbound_corpus_hold() {
    mutate("inbound", inbound::target);
}

#[test]
fn the_codec_corpus_holds() {
    replay("codec", codec::target);
}

#[test]
fn mutants_of_the_codec_corpus_hold() {
    mutate("codec", codec::target);
}

/// The corpus may hold more than the named cases, never less.
#[test]
fn every_named_case_is_in_the_corpus() {
    for (folder, cases) in seeds::all() {
        let corpus = corpus::read(folder);
        for (name, bytes) in cases {
            let kept = corpus.iter().find(|(file, _)| *file == name).map(|(_, bytes)| bytes);
            assert_eq!(kept, Some(&bytes), "{folder}/{name}: cargo test --test fuzz -- --ignored writes it");
        }
    }
}

#[test]
#[ignore = "writes the named cases into the corpus"]
fn write_the_corpus() {
    for (folder, cases) in seeds::all() {
        for (name, bytes) in cases {
            corpus::write(folder, &name, &bytes);
        }
    }
}
