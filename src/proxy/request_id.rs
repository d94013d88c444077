//! What a request is called, in the workspace's log, in ours and by its client.

use std::cell::Cell;

use http::header::HeaderName;
use http::{HeaderMap, HeaderValue};

/// Where it stands, in requests and answers.
pub(super) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Longest name that a trusted proxy may give.
const LENGTH_MAX: usize = 128;

/// Names requests, no two of them the same.
#[derive(Debug)]
pub(super) struct RequestIds {
    /// This thread's, different from those of all others.
    first_half: u64,
    next: Cell<u64>,
}

impl RequestIds {
    /// `random` makes the names of this thread differ from those of others.
    pub(super) fn new(random: u64) -> Self {
        Self { first_half: random, next: Cell::new(0) }
    }

    /// The name of a request, which it had before if it is by a `trusted` proxy, and which it is
    /// given otherwise.
    pub(super) fn of(&self, headers: &HeaderMap, trusted: bool) -> HeaderValue {
        let given = headers.get(X_REQUEST_ID).filter(|given| trusted && is_name(given.as_bytes()));
        given.cloned().unwrap_or_else(|| self.make())
    }

    fn make(&self) -> HeaderValue {
        let number = self.next.replace(self.next.get().wrapping_add(1));
        let mut digits = [0; 32];
        write_hex(self.first_half, &mut digits[..16]);
        write_hex(mixed(number ^ self.first_half), &mut digits[16..]);
        HeaderValue::from_bytes(&digits).unwrap_or(HeaderValue::from_static("unknown"))
    }
}

/// Another number for each, so that nobody can count our requests by looking at two of them
/// (the finaliser of SplitMix64).
fn mixed(number: u64) -> u64 {
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

fn write_hex(number: u64, digits: &mut [u8]) {
    for (place, digit) in digits.iter_mut().rev().enumerate() {
        *digit = b"0123456789abcdef"[(number >> (4 * place)) as usize & 15];
    }
}

/// Nothing that could be anything else than a name to whoever reads a log.
fn is_name(bytes: &[u8]) -> bool {
    let is_fine = |byte: &u8| {
        byte.is_ascii_alphanumeric()
            || matches!(byte, b'-' | b'_' | b'.' | b'=' | b'+' | b'/' | b':')
    };
    !bytes.is_empty() && bytes.len() <= LENGTH_MAX && bytes.iter().all(is_fine)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn names_are_all_different_and_those_of_strangers_are_not_taken_over() {
        let ids = RequestIds::new(7);
        let names: HashSet<_> = (0..10_000).map(|_| ids.of(&HeaderMap::new(), false)).collect();
        assert_eq!(names.len(), 10_000);
        assert!(names.iter().all(|name| name.len() == 32));
        let mut headers = HeaderMap::new();
        headers.insert(X_REQUEST_ID, HeaderValue::from_static("a-1"));
        assert_eq!(ids.of(&headers, true), "a-1");
        assert_ne!(ids.of(&headers, false), "a-1");
        for bad in ["", "a b", "a\"b", &"a".repeat(129)] {
            headers.insert(X_REQUEST_ID, bad.parse().unwrap());
            assert_eq!(ids.of(&headers, true).len(), 32, "{bad:?}");
        }
    }
}
