//! What can be tried with bytes that nobody thought of: `fuzz/` hunts with these, and the tests run
//! them over the seeds in `fuzz/seeds`. Each panics when what it tries is broken.

use crate::listen::guard::{Refused, Requests};
use crate::{api, driver, proxy};

/// A try.
pub type Target = fn(&[u8]);

/// Each with the name of its seeds' directory.
pub const TARGETS: [(&str, Target); 5] = [
    ("http1", http1),
    ("routing", routing),
    ("header_rules", header_rules),
    ("labels", labels),
    ("check_in", check_in),
];

/// Most bytes that a head may have here.
const HEAD_MAX: usize = 512;

/// HTTP/1 as a client may send it: however the bytes are cut, the same of them pass.
pub fn http1(bytes: &[u8]) {
    let whole = passed(bytes.chunks(bytes.len().max(1)));
    for size in [1, 2, 3, 7, 64] {
        let cut = passed(bytes.chunks(size));
        // What is too long goes by up to where somebody stopped reading.
        let too_long = |outcome: &Outcome| outcome.fault == Some("a line is too long");
        if !too_long(&whole) && !too_long(&cut) {
            assert_eq!(cut, whole, "in pieces of {size}");
        }
    }
    let refused_at = whole.fault.map(|_| whole.passed);
    assert!(refused_at.is_none_or(|at| at < bytes.len()));
}

#[derive(Debug, PartialEq, Eq)]
struct Outcome {
    passed: usize,
    heads: u32,
    fault: Option<&'static str>,
}

fn passed<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Outcome {
    let mut requests = Requests::new(HEAD_MAX);
    let mut passed = 0;
    for mut piece in pieces {
        while !piece.is_empty() {
            match requests.follow(piece) {
                Ok(length) => {
                    assert!(length > 0 || requests.may_switch(), "it stands still");
                    passed += length;
                    piece = &piece[length..];
                    requests.go_on();
                }
                Err(Refused { fault, at, .. }) => {
                    let (passed, heads) = (passed + at, requests.heads());
                    return Outcome { passed, heads, fault: Some(fault.0) };
                }
            }
        }
    }
    Outcome { passed, heads: requests.heads(), fault: None }
}

/// A host and a target: one authority decides, and it is a name, an address, or nothing.
pub fn routing(bytes: &[u8]) {
    proxy::fuzz::routing(bytes);
}

/// A head: nobody speaks in our name.
pub fn header_rules(bytes: &[u8]) {
    proxy::fuzz::header_rules(bytes);
}

/// A container's labels.
pub fn labels(bytes: &[u8]) {
    driver::docker::try_labels(bytes);
}

/// A workspace's report.
pub fn check_in(bytes: &[u8]) {
    api::try_check_in(bytes);
}
