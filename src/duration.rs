//! Durations as people write them: `15m`, `90s`, `1.5s`, `250ms`, `1h30m`, `20` (seconds).
//!
//! Labels and the configuration share this one parser, so that the same text means the same time
//! everywhere. It computes in whole nanoseconds: `0.1s` is exactly 100 ms.

use std::time::Duration;

/// The longest duration there is. Deadlines are computed by addition, and an `Instant` plus a few
/// thousand million years overflows; nobody waits for longer than this.
pub const LONGEST: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

/// Units in the order they stand in a combination, with their length in nanoseconds.
const UNITS: [(&str, u128); 5] = [
    ("d", 86_400_000_000_000),
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
];

/// More digits than any sensible number has; the bound keeps the arithmetic far from overflow.
const DIGITS_MAX: usize = 15;

/// Why a text is not a duration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidDuration {
    /// It doesn't read as one.
    #[error(
        "{0:?} is not a duration: a number with d, h, m, s or ms, such as \"15m\", \"1.5s\" or \
         \"1h30m\"; a number alone is seconds"
    )]
    Unreadable(String),
    /// It is over [`LONGEST`].
    #[error("{0:?} is longer than 100 years")]
    TooLong(String),
}

/// Parses a duration: numbers with units, the largest unit first, each at most once.
pub fn parse(text: &str) -> Result<Duration, InvalidDuration> {
    let quoted = || text.chars().take(40).collect::<String>();
    let nanoseconds =
        nanoseconds(text.trim()).ok_or_else(|| InvalidDuration::Unreadable(quoted()))?;
    if nanoseconds > LONGEST.as_nanos() {
        return Err(InvalidDuration::TooLong(quoted()));
    }
    let seconds = u64::try_from(nanoseconds / 1_000_000_000);
    let rest = u32::try_from(nanoseconds % 1_000_000_000);
    match (seconds, rest) {
        (Ok(seconds), Ok(rest)) => Ok(Duration::new(seconds, rest)),
        _ => Err(InvalidDuration::TooLong(quoted())),
    }
}

fn nanoseconds(text: &str) -> Option<u128> {
    let mut total = 0;
    let mut rest = text;
    let mut units_left = &UNITS[..];
    loop {
        let end = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(rest.len());
        let (number, after) = rest.split_at(end);
        let after = after.trim_start();
        if after.is_empty() && units_left.len() == UNITS.len() {
            return scaled(number, 1_000_000_000);
        }
        let end = after
            .find(|c: char| !c.is_ascii_alphabetic())
            .unwrap_or(after.len());
        let (name, after) = after.split_at(end);
        let position = units_left.iter().position(|(unit, _)| *unit == name)?;
        total += scaled(number, units_left[position].1)?;
        units_left = &units_left[position + 1..];
        rest = after.trim_start();
        if rest.is_empty() {
            return Some(total);
        }
    }
}

/// `number` (`12`, `1.5` or `.5`) times `unit`, rounded down to whole nanoseconds.
fn scaled(number: &str, unit: u128) -> Option<u128> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let whole = match whole {
        "" if number.starts_with('.') => 0,
        whole => digits(whole)?,
    };
    let tenths = digits(fraction)?;
    let parts = 10_u128.pow(u32::try_from(fraction.len()).ok()?);
    Some(whole * unit + tenths * unit / parts)
}

fn digits(text: &str) -> Option<u128> {
    let few = (1..=DIGITS_MAX).contains(&text.len());
    if few { text.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_exactly() {
        let rows = [
            ("15m", 900_000),
            ("90s", 90_000),
            ("1.5s", 1_500),
            ("0.1s", 100),
            (".5s", 500),
            ("250ms", 250),
            ("20", 20_000),
            ("0.25", 250),
            ("0", 0),
            ("0s", 0),
            ("2d", 172_800_000),
            ("1h30m", 5_400_000),
            ("1h 30m 5s 7ms", 5_405_007),
            ("4.2 s", 4_200),
            (" 1m ", 60_000),
        ];
        for (text, millis) in rows {
            assert_eq!(parse(text), Ok(Duration::from_millis(millis)), "{text:?}");
        }
        assert_eq!(parse("0.000000001s"), Ok(Duration::from_nanos(1)));
    }

    #[test]
    fn what_the_log_says_can_be_read_back() {
        for millis in [
            1, 420, 4_200, 15_000, 95_000, 900_000, 7_500_000, 36_000_000,
        ] {
            let duration = Duration::from_millis(millis);
            assert_eq!(parse(&crate::clock::spoken(duration)), Ok(duration));
        }
    }

    #[test]
    fn anything_else_is_refused() {
        let many = "9".repeat(400);
        let texts = [
            "",
            " ",
            ".",
            "s",
            ".s",
            "1.",
            "-1s",
            "+1s",
            "1e3",
            "1x",
            "1 minute",
            "1.2.3s",
            "30m1h",
            "1s1s",
            "1h30",
            "15M",
            "١s",
            "NaN",
            "inf",
            &many,
            "0.0000000000000001s",
        ];
        for text in texts {
            assert!(
                matches!(parse(text), Err(InvalidDuration::Unreadable(_))),
                "{text:?}"
            );
        }
    }

    #[test]
    fn nothing_overflows() {
        assert_eq!(parse("36500d"), Ok(LONGEST));
        for text in [
            "36501d",
            "999999999999999d",
            "999999999999999d999999999999999h",
        ] {
            assert!(
                matches!(parse(text), Err(InvalidDuration::TooLong(_))),
                "{text:?}"
            );
        }
    }

    #[test]
    fn the_reason_says_what_is_accepted() {
        let reason = parse("soon").unwrap_err().to_string();
        assert!(
            reason.contains("\"soon\"") && reason.contains("\"1h30m\""),
            "{reason}"
        );
    }
}
