//! The targets of `fuzz/`, over their seeds and a few thousand bytes that come of them.

use std::fs;
use std::panic::catch_unwind;
use std::path::Path;

use frostgate::fuzz::{TARGETS, Target};

use crate::support::Dice;

/// Mutations of each seed.
const ROUNDS: u64 = 400;
/// What parsers stumble over.
const SPICES: [&[u8]; 16] = [
    b"\r\n",
    b"\n",
    b"\r",
    b"\0",
    b" ",
    b"\t",
    b":",
    b";",
    b",",
    b"0",
    b"ffffffffffffffff",
    b"Content-Length: 1\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"_",
    b".",
    b"\xff",
];

fn seeds(target: &str) -> Vec<Vec<u8>> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(target);
    let files = fs::read_dir(&directory).unwrap_or_else(|error| panic!("{directory:?}: {error}"));
    let mut seeds: Vec<_> = files.map(|file| fs::read(file.unwrap().path()).unwrap()).collect();
    seeds.sort();
    seeds
}

fn mutated(seed: &[u8], dice: &mut Dice) -> Vec<u8> {
    let mut bytes = seed.to_vec();
    for _ in 0..=dice.roll(4) {
        let at = dice.roll(bytes.len() as u64 + 1) as usize;
        match dice.roll(5) {
            0 => bytes.truncate(at),
            1 => drop(bytes.drain(at..bytes.len().min(at + 1 + dice.roll(8) as usize))),
            2 => drop(bytes.get_mut(at).map(|byte| *byte = dice.roll(256) as u8)),
            3 => {
                let part = bytes[at..bytes.len().min(at + dice.roll(40) as usize)].to_vec();
                let to = dice.roll(bytes.len() as u64 + 1) as usize;
                drop(bytes.splice(to..to, part));
            }
            _ => {
                let spice = dice.pick(&SPICES).copied().unwrap_or_default();
                drop(bytes.splice(at..at, spice.iter().copied()));
            }
        }
    }
    bytes
}

fn run(name: &str, target: Target, bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    assert!(catch_unwind(|| target(bytes)).is_ok(), "{name} with {text:?}: {bytes:?}");
}

#[test]
fn no_bytes_break_what_reads_them() {
    for (name, target) in TARGETS {
        let seeds = seeds(name);
        assert!(seeds.len() >= 4, "{name} has {} seeds", seeds.len());
        for (number, seed) in seeds.iter().enumerate() {
            run(name, target, seed);
            let mut dice = Dice(number as u64);
            for _ in 0..ROUNDS {
                run(name, target, &mutated(seed, &mut dice));
            }
        }
        let crate_file = format!("fuzz/fuzz_targets/{name}.rs");
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(crate_file);
        assert!(path.exists(), "{name} is not hunted with");
    }
}
