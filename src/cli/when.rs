//! Moments as people tell them: how long ago, and in how long.

use std::time::{Duration, SystemTime};

use crate::clock::{Clock, spoken};

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

/// Where one stands who tells of moments.
#[derive(Debug, Clone, Copy)]
pub(super) struct Now(SystemTime);

impl Now {
    /// By this machine's clock.
    pub(super) fn read() -> Self {
        Self(Clock::MACHINE.now())
    }

    /// `3m ago`, of a date as the API writes it.
    pub(super) fn ago(self, date: &str) -> String {
        let Some(date) = parse(date) else { return date.to_owned() };
        match self.0.duration_since(date).unwrap_or_default().as_secs() {
            0 => "just now".to_owned(),
            seconds => format!("{} ago", coarse(seconds)),
        }
    }

    /// `4:12`, of a date that is to come; `now` of one that is over.
    pub(super) fn until(self, date: &str) -> String {
        let Some(date) = parse(date) else { return date.to_owned() };
        let Ok(left) = date.duration_since(self.0) else { return "now".to_owned() };
        // What is counted down is over when it shows zero.
        let seconds = left.as_millis().div_ceil(1_000) as u64;
        match seconds {
            0..HOUR => format!("{}:{:02}", seconds / MINUTE, seconds % MINUTE),
            HOUR..DAY => {
                let (hours, minutes) = (seconds / HOUR, seconds / MINUTE % 60);
                format!("{hours}:{minutes:02}:{:02}", seconds % MINUTE)
            }
            _ => coarse(seconds),
        }
    }
}

/// The largest unit that fits, and of days the hours as well: `5s`, `3m`, `2h`, `4d 3h`.
fn coarse(seconds: u64) -> String {
    match seconds {
        0..MINUTE => format!("{seconds}s"),
        MINUTE..HOUR => format!("{}m", seconds / MINUTE),
        HOUR..DAY => format!("{}h", seconds / HOUR),
        _ if (seconds / HOUR).is_multiple_of(24) => format!("{}d", seconds / DAY),
        _ => format!("{}d {}h", seconds / DAY, seconds / HOUR % 24),
    }
}

/// A time of a policy, in minutes as the API writes them; `None`: never.
pub(super) fn minutes(value: Option<f64>) -> String {
    match value.map(|minutes| Duration::try_from_secs_f64(minutes * 60.0)) {
        None => "never".to_owned(),
        Some(Ok(Duration::ZERO)) => "0".to_owned(),
        Some(Ok(time)) => spoken(time),
        Some(Err(_)) => "?".to_owned(),
    }
}

fn parse(date: &str) -> Option<SystemTime> {
    date.parse::<jiff::Timestamp>().ok().map(SystemTime::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_told_as_people_tell_them() {
        let now = Now(parse("2026-11-21T12:00:00Z").unwrap());
        let ago = [
            ("2026-11-21T12:00:00Z", "just now"),
            ("2026-11-21T11:59:51.5Z", "8s ago"),
            ("2026-11-21T11:57:00Z", "3m ago"),
            ("2026-11-21T09:30:00Z", "2h ago"),
            ("2026-11-20T09:30:00Z", "1d 2h ago"),
            ("2026-11-11T12:00:00Z", "10d ago"),
            // A gateway whose clock is ahead.
            ("2026-11-21T12:00:02Z", "just now"),
            ("-", "-"),
        ];
        for (date, words) in ago {
            assert_eq!(now.ago(date), words, "{date}");
        }
        let until = [
            ("2026-11-21T12:04:12Z", "4:12"),
            ("2026-11-21T12:00:00.2Z", "0:01"),
            ("2026-11-21T13:04:12Z", "1:04:12"),
            ("2026-11-24T15:30:00Z", "3d 3h"),
            ("2026-11-21T11:59:59Z", "now"),
        ];
        for (date, words) in until {
            assert_eq!(now.until(date), words, "{date}");
        }
        assert_eq!([None, Some(0.0), Some(1.5)].map(minutes), ["never", "0", "1m 30s"]);
    }
}
