//! Durations as people write them: `90s`, `1.5s`, `250ms`, `15m`, `1h30m`, `7d`.
//!
//! One parser for the configuration, the labels of containers and the API, so that a duration that
//! works in one place works in all of them. It calculates in whole nanoseconds: `0.1s` is exactly
//! 100 ms, and no input can overflow.

use std::time::Duration;

/// The longest duration that is accepted. Timers add durations to moments; a century fits into
/// every clock, and whoever writes more means "never", which is written as zero.
const LONGEST: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

/// Why a text is not a duration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is not a duration: numbers with the units ms, s, m, h and d, such as \"1.5s\", \
     \"15m\" or \"1h30m\", and at most 100 years"
)]
pub struct InvalidDuration {
    text: String,
}

/// Parses one or more numbers with units. Only zero may stand without one.
pub fn parse(text: &str) -> Result<Duration, InvalidDuration> {
    let invalid = || InvalidDuration { text: text.chars().take(100).collect() };
    let mut rest = text.trim();
    if rest == "0" {
        return Ok(Duration::ZERO);
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut total: u128 = 0;
    while !rest.is_empty() {
        let (part, after) = first_part(rest).ok_or_else(invalid)?;
        total = total.checked_add(part).ok_or_else(invalid)?;
        rest = after.trim_start();
    }
    if total > LONGEST.as_nanos() {
        return Err(invalid());
    }
    // A century is 3.2e18 ns, which fits into 64 bits.
    u64::try_from(total).map(Duration::from_nanos).map_err(|_| invalid())
}

/// A number of seconds as a duration, where a number may stand alone; `None` outside the limits.
pub fn from_seconds(seconds: f64) -> Option<Duration> {
    let duration = Duration::try_from_secs_f64(seconds).ok()?;
    (duration <= LONGEST).then_some(duration)
}

/// The first number with its unit, in nanoseconds, and what follows it.
fn first_part(text: &str) -> Option<(u128, &str)> {
    let number_end = text.find(|c: char| !c.is_ascii_digit() && c != '.')?;
    let (number, rest) = text.split_at(number_end);
    let unit_end = rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len());
    let (unit, rest) = rest.split_at(unit_end);
    let unit_nanoseconds: u128 = match unit {
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        "d" => 86_400_000_000_000,
        _ => return None,
    };
    Some((scaled(number, unit_nanoseconds)?, rest))
}

/// `number`, a decimal, times `unit`, cut off below one nanosecond.
fn scaled(number: &str, unit: u128) -> Option<u128> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let whole: u128 = whole.parse().ok()?;
    if fraction.is_empty() || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    // 18 digits of a day are far below a nanosecond, and times a day still fit into 128 bits.
    let digits = &fraction[..fraction.len().min(18)];
    let numerator: u128 = digits.parse().ok()?;
    let denominator = 10u128.pow(u32::try_from(digits.len()).ok()?);
    whole.checked_mul(unit)?.checked_add(numerator * unit / denominator)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_to_the_nanosecond() {
        let rows = [
            ("0", 0),
            ("0s", 0),
            ("250ms", 250_000_000),
            ("1.5s", 1_500_000_000),
            ("0.1s", 100_000_000),
            ("15m", 900_000_000_000),
            ("1h30m", 5_400_000_000_000),
            ("1h 30m", 5_400_000_000_000),
            (" 2d ", 172_800_000_000_000),
            ("0.000000001s", 1),
        ];
        for (text, nanoseconds) in rows {
            assert_eq!(parse(text), Ok(Duration::from_nanos(nanoseconds)), "{text}");
        }
    }

    #[test]
    fn what_is_not_a_duration_is_refused() {
        let endless = format!("{}d", "9".repeat(80));
        for text in [
            "",
            " ",
            "15",
            "1.5",
            "s",
            "-1s",
            "1,5s",
            "1..5s",
            "1.s",
            ".5s",
            "15 minutes",
            "1e3s",
            "15M",
            "1s-",
            "36501d",
            "ä",
            &endless,
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn numbers_of_seconds_have_the_same_limits() {
        assert_eq!(from_seconds(1.5), Some(Duration::from_millis(1500)));
        for seconds in [-1.0, f64::NAN, f64::INFINITY, 1e18] {
            assert_eq!(from_seconds(seconds), None, "{seconds}");
        }
    }
}
