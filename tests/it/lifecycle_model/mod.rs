//! The whole lifecycle against a small model of it: random requests, calls, failures and crashes.

mod check;
mod dice;
mod judge;
mod one;
mod reference;
mod run;
mod world;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::panic;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, Once};

use run::{Outcome, Run};

/// Runs of a plain `cargo test`.
const RUNS: u64 = 1_000;
/// How many more or fewer.
const SEEDS: &str = "FROSTGATE_SEEDS";
/// Names one seed, to be run alone.
const SEED: &str = "FROSTGATE_SEED";

thread_local! {
    /// Panics of workspaces' tasks, which nobody joins.
    static PANICS: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

fn note_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            PANICS.with_borrow_mut(|panics| panics.push(info.to_string()));
            before(info);
        }));
    });
}

fn play(seed: u64) -> Outcome {
    PANICS.with_borrow_mut(Vec::clear);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    let mut outcome = runtime.block_on(async { Run::new(seed).play().await });
    drop(runtime);
    outcome.violations.splice(0..0, PANICS.take());
    outcome
}

#[test]
fn whatever_happens_it_is_as_the_reference_says() {
    note_panics();
    if let Ok(seed) = std::env::var(SEED) {
        let outcome = play(seed.parse().unwrap());
        eprintln!("{}\n{:#?}", outcome.trace, outcome.counts);
        assert!(outcome.violations.is_empty(), "{:#?}", outcome.violations);
        return;
    }
    let runs = std::env::var(SEEDS).map_or(RUNS, |runs| runs.parse().unwrap());
    let next = AtomicU64::new(0);
    let failed = Mutex::new(BTreeMap::new());
    let counts = Mutex::new(BTreeMap::<String, usize>::new());
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= runs {
                        return;
                    }
                    let outcome = play(seed);
                    if !outcome.violations.is_empty() {
                        failed.lock().unwrap().insert(seed, outcome);
                        continue;
                    }
                    let mut counts = counts.lock().unwrap();
                    for (what, times) in outcome.counts {
                        *counts.entry(what).or_default() += times;
                    }
                }
            });
        }
    });
    eprintln!("{:#?}", counts.into_inner().unwrap());
    let failed = failed.into_inner().unwrap();
    for (seed, outcome) in &failed {
        eprintln!("seed {seed}: {}", outcome.violations[0]);
    }
    if let Some((seed, outcome)) = failed.first_key_value() {
        panic!("{}\nseed {seed}: {:#?}", outcome.trace, outcome.violations);
    }
}
