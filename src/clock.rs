//! Time, in its two kinds.
//!
//! Deadlines are `tokio::time::Instant`: monotonic, pausable in tests, and blind to an operator who
//! sets the wall clock back by a day. People and files want dates; the wall clock is read here and
//! nowhere else, so that a search for `SystemTime` finds every place that could be fooled by it.

use std::time::{Duration, SystemTime};

use tokio::time::Instant;

/// Turns monotonic moments into dates, at the moment of asking.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    wall: fn() -> SystemTime,
}

impl Clock {
    /// The machine's wall clock.
    pub const MACHINE: Self = Self { wall: SystemTime::now };

    /// Another wall clock, for tests in which time is paused.
    pub fn new(wall: fn() -> SystemTime) -> Self {
        Self { wall }
    }

    /// The date right now.
    pub fn now(self) -> SystemTime {
        (self.wall)()
    }

    /// The date of `moment`, past or future, as far as the wall clock can be believed right now.
    pub fn date_of(self, moment: Instant) -> SystemTime {
        let now = Instant::now();
        if moment >= now { self.now() + (moment - now) } else { self.now() - (now - moment) }
    }

    /// `moment` as RFC 3339 in UTC with milliseconds, e.g. `2026-11-20T10:20:37.125Z`.
    pub fn rfc3339(self, moment: Instant) -> String {
        rfc3339(self.date_of(moment))
    }

    /// `moment` as the time of day where this machine is, for people who watch: `12:04:11`.
    pub fn time_of_day(self, moment: Instant) -> String {
        match jiff::Timestamp::try_from(self.date_of(moment)) {
            Ok(timestamp) => {
                let local = timestamp.to_zoned(jiff::tz::TimeZone::system());
                local.strftime("%H:%M:%S").to_string()
            }
            // As above: only a date outside the years -9999..9999.
            Err(_) => "--:--:--".to_owned(),
        }
    }
}

/// Returns at `moment`; never where there is none.
pub async fn sleep_until(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

/// A date as RFC 3339 in UTC with milliseconds.
pub fn rfc3339(date: SystemTime) -> String {
    match jiff::Timestamp::try_from(date) {
        Ok(timestamp) => format!("{timestamp:.3}"),
        // Only a date outside the years -9999..9999 can't be told; no deadline of ours reaches it.
        Err(_) => "never".to_owned(),
    }
}

/// A date without what is below a millisecond, which no date keeps that is written down.
pub fn to_the_millisecond(date: SystemTime) -> SystemTime {
    let since = date.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    date - Duration::from_nanos(u64::from(since.subsec_nanos() % 1_000_000))
}

/// An RFC 3339 date as people where this machine is read it: `2026-11-20 12:04:11`. A text that is
/// no date stays as it is.
pub fn local(date: &str) -> String {
    match date.parse::<jiff::Timestamp>() {
        Ok(timestamp) => {
            let local = timestamp.to_zoned(jiff::tz::TimeZone::system());
            local.strftime("%Y-%m-%d %H:%M:%S").to_string()
        }
        Err(_) => date.to_owned(),
    }
}

/// A duration in the words of a log line: `420 ms`, `4.2 s`, `15m`, `2h 5m`.
pub fn spoken(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0 => format!("{} ms", duration.as_millis()),
        1..60 if duration.subsec_millis() >= 50 => format!("{:.1} s", duration.as_secs_f64()),
        1..60 => format!("{seconds} s"),
        60..3600 if seconds.is_multiple_of(60) => format!("{}m", seconds / 60),
        60..3600 => format!("{}m {}s", seconds / 60, seconds % 60),
        _ if (seconds / 60).is_multiple_of(60) => format!("{}h", seconds / 3600),
        _ => format!("{}h {}m", seconds / 3600, seconds / 60 % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_spoken_in_the_largest_fitting_words() {
        let rows = [
            (420, "420 ms"),
            (4_200, "4.2 s"),
            (15_000, "15 s"),
            (900_000, "15m"),
            (95_000, "1m 35s"),
            (7_500_000, "2h 5m"),
        ];
        for (millis, words) in rows {
            assert_eq!(spoken(Duration::from_millis(millis)), words);
        }
    }

    #[test]
    fn a_date_that_was_written_down_is_found_again() {
        let date = SystemTime::UNIX_EPOCH + Duration::new(5, 123_456_789);
        let kept = SystemTime::UNIX_EPOCH + Duration::from_millis(5_123);
        assert_eq!(to_the_millisecond(date), kept);
        assert_eq!(to_the_millisecond(kept), kept);
    }

    #[test]
    fn dates_are_rfc3339_in_utc() {
        let date = SystemTime::UNIX_EPOCH + Duration::from_millis(1_500);
        assert_eq!(rfc3339(date), "1970-01-01T00:00:01.500Z");
    }
}
