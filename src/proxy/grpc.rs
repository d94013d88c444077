//! What gRPC asks of a proxy: that a call is given up at its deadline, and that failures are told in
//! its own terms (the protocol's "HTTP2 transport mapping" and "HTTP to gRPC status code mapping").

use std::time::Duration;

use http::header::{CONTENT_TYPE, HeaderName, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Version};
use http_body_util::Full;
use tokio::time::{Instant, timeout_at};

use super::headers;
use super::reply::{Body, Problem};
use crate::lifecycle::Refusal;

const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

/// Most digits of a timeout, and so the first number that has more.
const TIMEOUT_DIGITS_MAX: usize = 8;
const TIMEOUT_NUMBER_END: u128 = 100_000_000;

/// The units of a timeout, in nanoseconds, the finest first.
const UNITS: [(u8, u128); 6] = [
    (b'n', 1),
    (b'u', 1_000),
    (b'm', 1_000_000),
    (b'S', 1_000_000_000),
    (b'M', 60_000_000_000),
    (b'H', 3_600_000_000_000),
];

/// What a call ends with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
enum Code {
    Unknown = 2,
    DeadlineExceeded = 4,
    PermissionDenied = 7,
    ResourceExhausted = 8,
    Unimplemented = 12,
    Internal = 13,
    Unavailable = 14,
    Unauthenticated = 16,
}

impl Code {
    fn of(problem: &Problem) -> Option<Self> {
        match problem {
            Problem::Crowded | Problem::Queued(_) | Problem::NotLetIn(Refusal::Full, _) => {
                Some(Self::ResourceExhausted)
            }
            _ => None,
        }
    }
}

impl From<StatusCode> for Code {
    fn from(status: StatusCode) -> Self {
        match status.as_u16() {
            400 | 508 => Self::Internal,
            401 => Self::Unauthenticated,
            403 => Self::PermissionDenied,
            404 | 405 | 501 => Self::Unimplemented,
            408 | 504 => Self::DeadlineExceeded,
            429 => Self::ResourceExhausted,
            421 | 502 | 503 => Self::Unavailable,
            _ => Self::Unknown,
        }
    }
}

/// What a call's own messages are; `None`: it is no call, or its client could not read our answer.
pub(super) fn kind<B>(request: &Request<B>) -> Option<HeaderValue> {
    let is_call = request.version() == Version::HTTP_2 && headers::is_grpc(request.headers());
    is_call.then(|| request.headers().get(CONTENT_TYPE).cloned()).flatten()
}

/// The answer to a call of that kind: a head, and nothing behind it.
pub(super) fn answer(problem: Problem, kind: HeaderValue) -> Response<Body> {
    let code = Code::of(&problem);
    let (told, words) = problem.told().into_parts();
    let code = code.unwrap_or_else(|| told.status.into());
    let mut response = Response::new(Body::Text(Full::default()));
    let fields = response.headers_mut();
    fields.insert(CONTENT_TYPE, kind);
    fields.insert(GRPC_STATUS, HeaderValue::from(code as u16));
    if let Ok(message) = HeaderValue::try_from(percent_encoded(&words)) {
        fields.insert(GRPC_MESSAGE, message);
    }
    if let Some(seconds) = told.headers.get(RETRY_AFTER) {
        fields.insert(RETRY_AFTER, seconds.clone());
    }
    response
}

fn percent_encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'%' | ..=0x1f | 0x7f.. => encoded.push_str(&format!("%{byte:02X}")),
            _ => encoded.push(char::from(byte)),
        }
    }
    encoded
}

/// When a call that arrives now is of no use to its client any more, if that is said.
pub(super) fn deadline(request: &HeaderMap) -> Option<Instant> {
    let timeout = request.get(GRPC_TIMEOUT).filter(|_| headers::is_grpc(request))?;
    Instant::now().checked_add(parse(timeout.as_bytes())?)
}

/// What comes of it before the deadline.
pub(super) async fn before<T>(
    deadline: Option<Instant>,
    work: impl Future<Output = Result<T, Problem>>,
) -> Result<T, Problem> {
    match deadline {
        Some(deadline) => timeout_at(deadline, work).await.unwrap_or(Err(Problem::DeadlinePassed)),
        None => work.await,
    }
}

/// Says how much of the time is left, after some was spent here.
pub(super) fn tell_time_left(request: &mut HeaderMap, deadline: Option<Instant>) {
    let Some(deadline) = deadline else { return };
    let left = deadline.saturating_duration_since(Instant::now());
    if let Ok(left) = HeaderValue::try_from(written(left)) {
        request.insert(GRPC_TIMEOUT, left);
    }
}

fn parse(text: &[u8]) -> Option<Duration> {
    let (unit, digits) = text.split_last()?;
    let is_number = digits.iter().all(u8::is_ascii_digit);
    if !is_number || !(1..=TIMEOUT_DIGITS_MAX).contains(&digits.len()) {
        return None;
    }
    let number: u128 = std::str::from_utf8(digits).ok()?.parse().ok()?;
    let (_, nanoseconds) = UNITS.into_iter().find(|(letter, _)| letter == unit)?;
    let whole = number * nanoseconds;
    let seconds = u64::try_from(whole / 1_000_000_000).ok()?;
    Some(Duration::new(seconds, (whole % 1_000_000_000) as u32))
}

/// As exactly as eight digits can say, and never more than it is.
fn written(left: Duration) -> String {
    // Nothing left is still a deadline.
    let nanoseconds = left.as_nanos().max(1);
    let fits = |unit: &(u8, u128)| nanoseconds / unit.1 < TIMEOUT_NUMBER_END;
    let (letter, unit) = UNITS.into_iter().find(fits).unwrap_or(UNITS[UNITS.len() - 1]);
    format!("{}{}", (nanoseconds / unit).min(TIMEOUT_NUMBER_END - 1), char::from(letter))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_are_read_and_written() {
        let rows: &[(&str, Option<Duration>)] = &[
            ("1H", Some(Duration::from_secs(3_600))),
            ("2M", Some(Duration::from_secs(120))),
            ("99999999S", Some(Duration::from_secs(99_999_999))),
            ("250m", Some(Duration::from_millis(250))),
            ("7u", Some(Duration::from_micros(7))),
            ("0n", Some(Duration::ZERO)),
            ("100000000n", None),
            ("1", None),
            ("S", None),
            ("+1S", None),
            ("1.5S", None),
            ("1s", None),
            ("", None),
        ];
        for (text, expected) in rows {
            assert_eq!(parse(text.as_bytes()), *expected, "{text:?}");
        }
        assert_eq!(written(Duration::ZERO), "1n");
        assert_eq!(written(Duration::from_millis(99)), "99000000n");
        assert_eq!(written(Duration::from_millis(1_999)), "1999000u");
        assert_eq!(written(Duration::from_secs(3_600)), "3600000m");
        assert_eq!(written(Duration::MAX), "99999999H");
    }

    #[test]
    fn a_message_is_visible_ascii() {
        assert_eq!(percent_encoded("It is 5 % off, näh\n"), "It is 5 %25 off, n%C3%A4h%0A");
    }

    #[test]
    fn failures_are_told_as_the_mapping_has_them() {
        let rows = [
            (Problem::NoClearHost, 13),
            (Problem::NothingThere, 12),
            (Problem::MethodNotAllowed, 12),
            (Problem::Broken, 14),
            (Problem::Stopped, 14),
            (Problem::Silent, 4),
            (Problem::DeadlinePassed, 4),
            (Problem::Crowded, 8),
            (Problem::Queued(1), 8),
            (Problem::NotLetIn(Refusal::Full, None), 8),
            (Problem::NotLetIn(Refusal::TimedOut, None), 4),
            (Problem::NotLetIn(Refusal::Removed, None), 12),
        ];
        for (problem, code) in rows {
            let name = format!("{problem:?}");
            let answer = answer(problem, HeaderValue::from_static("application/grpc"));
            assert_eq!(answer.status(), StatusCode::OK);
            assert_eq!(answer.headers()["grpc-status"], code.to_string(), "{name}");
            assert!(!answer.headers()["grpc-message"].is_empty(), "{name}");
        }
    }
}
