//! How much passes through a tunnel: enough to be activity, or no more than the pings of a tab that
//! somebody forgot.

use std::time::Duration;

use tokio::time::Instant;

use crate::model::{ConnectionActivity, Policy};

/// The time that is looked back on stands in this many parts, and the one that has begun. Bytes are
/// forgotten a part at a time, none of them too early.
const PARTS: usize = 8;

/// Counts what has passed since the last time that it was enough, within `inactivity_timeout`.
#[derive(Debug)]
pub(super) struct Meter {
    idle_bytes: u64,
    part: Duration,
    /// The current part first.
    bytes: [u64; PARTS + 1],
    current_since: Instant,
}

impl Meter {
    /// `None`: under this policy tunnels count by being open, or for nothing at all, as the
    /// workspace is never frozen by itself.
    pub(super) fn under(policy: &Policy) -> Option<Self> {
        let timeout = match policy.connection_activity {
            ConnectionActivity::Open => return None,
            ConnectionActivity::Traffic => policy.inactivity_timeout?,
        };
        Some(Self {
            idle_bytes: policy.idle_bytes,
            part: (timeout / PARTS as u32).max(Duration::from_millis(1)),
            bytes: [0; PARTS + 1],
            current_since: Instant::now(),
        })
    }

    /// Counts bytes that are about to pass. `true`: with them it is enough. They are not counted
    /// again, lest pings that follow a burst be taken for more of it.
    pub(super) fn pass(&mut self, bytes: usize) -> bool {
        self.forget(Instant::now());
        self.bytes[0] = self.bytes[0].saturating_add(bytes as u64);
        let enough =
            self.bytes.iter().fold(0_u64, |sum, part| sum.saturating_add(*part)) > self.idle_bytes;
        if enough {
            self.bytes.fill(0);
        }
        enough
    }

    fn forget(&mut self, now: Instant) {
        let over =
            now.saturating_duration_since(self.current_since).as_nanos() / self.part.as_nanos();
        let parts = usize::try_from(over).unwrap_or(usize::MAX);
        if parts > PARTS {
            self.bytes.fill(0);
            self.current_since = now;
        } else if parts > 0 {
            self.bytes.rotate_right(parts);
            self.bytes[..parts].fill(0);
            self.current_since += self.part * parts as u32;
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(15 * 60);

    fn meter(idle_bytes: u64) -> Meter {
        let connection_activity = ConnectionActivity::Traffic;
        let inactivity_timeout = Some(TIMEOUT);
        let policy =
            Policy { connection_activity, idle_bytes, inactivity_timeout, ..Policy::default() };
        Meter::under(&policy).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn pings_are_never_enough_and_a_line_is() {
        let mut meter = meter(Policy::default().idle_bytes);
        for _ in 0..10_000 {
            // A ping and its pong, with some bytes each.
            assert!(!meter.pass(2 + 12) && !meter.pass(6 + 12 - 4));
            advance(Duration::from_secs(30)).await;
        }
        assert!(meter.pass(1_000), "with the pings of the last minutes it is enough");
        assert!(!meter.pass(1_024), "what was enough once counts no more");
        assert!(meter.pass(1));
    }

    #[tokio::test(start_paused = true)]
    async fn what_passes_within_the_timeout_adds_up_and_what_passed_before_does_not() {
        for gap in [1, 60, 300, 449] {
            let mut meter = meter(100);
            assert!(!meter.pass(50));
            advance(Duration::from_secs(gap)).await;
            assert!(!meter.pass(50));
            advance(Duration::from_secs(gap)).await;
            assert!(meter.pass(1), "after twice {gap} s");
        }
        for gap in [TIMEOUT * 9 / 8, TIMEOUT * 2, TIMEOUT * 10_000] {
            let mut meter = meter(100);
            for _ in 0..10 {
                assert!(!meter.pass(100), "after {gap:?}");
                advance(gap).await;
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn zero_bytes_make_every_byte_activity() {
        let mut meter = meter(0);
        assert!(!meter.pass(0) && meter.pass(1) && meter.pass(1));
    }

    #[test]
    fn an_open_tunnel_that_counts_as_such_is_not_measured() {
        let never = Policy {
            connection_activity: ConnectionActivity::Traffic,
            inactivity_timeout: None,
            ..Policy::default()
        };
        assert!(Meter::under(&Policy::default()).is_none() && Meter::under(&never).is_none());
    }
}
