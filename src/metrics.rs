//! What is counted as it happens, for Prometheus: who has something to count holds a [`Metrics`].
//!
//! Requests are counted by every data plane thread for itself ([`Requests`]), in a place that no
//! other thread writes to, and summed up when somebody asks. Everything else happens seldom. What
//! can be told by looking (phases, live connections, slots) is not counted at all; the API looks
//! when it is asked (`api/metrics`). Names, labels and help of all of them are in [`described`].

pub mod described;

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::StatusCode;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Metric, Registry};

use crate::model::Tier;
use described::Described;

/// Seconds of a wake, from a thaw to a start that takes a minute.
const WAKE_BUCKETS: [f64; 13] =
    [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];

/// Status codes that a workspace may answer with: 100 to 999.
const CODES: usize = 900;

/// Everything that is counted.
#[derive(Debug)]
pub struct Metrics {
    wakes: Family<WakeLabels, Histogram, fn() -> Histogram>,
    freezes: Family<FreezeLabels, Counter>,
    freeze_aborts: Family<Cause, Counter>,
    check_ins: Family<ResultLabel, Counter>,
    driver_calls: Family<CallLabels, Counter>,
    driver_seconds: Family<CallOf, Counter<f64, AtomicU64>>,
    /// One for each thread that answers requests.
    requests: Mutex<Vec<Arc<Codes>>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WakeLabels {
    tier: &'static str,
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FreezeLabels {
    tier: &'static str,
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Cause {
    cause: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResultLabel {
    result: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CallLabels {
    driver: &'static str,
    call: &'static str,
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CallOf {
    driver: &'static str,
    call: &'static str,
}

/// How a wake ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WakeOutcome {
    /// It is ready.
    Ready,
    /// It could not be started, or was not ready in time.
    Failed,
}

/// Why a workspace is frozen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FreezeReason {
    /// Nobody was inside for long enough.
    Idle,
    /// Another wanted its slot.
    Evicted,
    /// An admin stopped it.
    Admin,
    /// It was up and never ready.
    Unready,
    /// It was paused, and is stopped now.
    StepDown,
    /// A restart came in the middle of its freeze.
    Interrupted,
}

impl FreezeReason {
    fn word(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Evicted => "evicted",
            Self::Admin => "admin",
            Self::Unready => "unready",
            Self::StepDown => "step_down",
            Self::Interrupted => "interrupted",
        }
    }
}

/// Why a freeze that was due did not come about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FreezeAbort {
    /// Somebody came in first.
    Visited,
    /// The driver could not do it.
    Failed,
}

/// What came of a check-in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CheckInResult {
    /// It says that the workspace is active.
    Active,
    /// It says that it isn't.
    Idle,
    /// Nobody knows whose it is.
    UnknownSender,
    /// It can't be read.
    Invalid,
    /// The workspace takes none at the moment.
    Refused,
}

impl CheckInResult {
    fn word(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Idle => "idle",
            Self::UnknownSender => "unknown_sender",
            Self::Invalid => "invalid",
            Self::Refused => "refused",
        }
    }
}

impl Default for Metrics {
    fn default() -> Self {
        let histogram: fn() -> Histogram = || Histogram::new(WAKE_BUCKETS);
        Self {
            wakes: Family::new_with_constructor(histogram),
            freezes: Family::default(),
            freeze_aborts: Family::default(),
            check_ins: Family::default(),
            driver_calls: Family::default(),
            driver_seconds: Family::default(),
            requests: Mutex::default(),
        }
    }
}

impl Metrics {
    /// A wake has ended that took so long.
    pub fn wake(&self, from: Tier, outcome: WakeOutcome, took: Duration) {
        let outcome = match outcome {
            WakeOutcome::Ready => "ready",
            WakeOutcome::Failed => "failed",
        };
        let labels = WakeLabels { tier: tier_word(from), outcome };
        self.wakes.get_or_create(&labels).observe(took.as_secs_f64());
    }

    /// A workspace is frozen.
    pub fn freeze(&self, tier: Tier, reason: FreezeReason) {
        let labels = FreezeLabels { tier: tier_word(tier), reason: reason.word() };
        self.freezes.get_or_create(&labels).inc();
    }

    /// A freeze that was due did not come about.
    pub fn freeze_abort(&self, cause: FreezeAbort) {
        let cause = match cause {
            FreezeAbort::Visited => "visited",
            FreezeAbort::Failed => "failed",
        };
        self.freeze_aborts.get_or_create(&Cause { cause }).inc();
    }

    /// A workspace, or somebody who says so, has checked in.
    pub fn check_in(&self, result: CheckInResult) {
        self.check_ins.get_or_create(&ResultLabel { result: result.word() }).inc();
    }

    /// A call of a driver has ended, in one word for how.
    pub fn driver_call(
        &self,
        driver: &'static str,
        call: &'static str,
        outcome: &'static str,
        took: Duration,
    ) {
        self.driver_calls.get_or_create(&CallLabels { driver, call, outcome }).inc();
        self.driver_seconds.get_or_create(&CallOf { driver, call }).inc_by(took.as_secs_f64());
    }

    /// Where the thread that calls counts its requests.
    pub fn requests_of_thread(&self) -> Requests {
        let codes = Arc::new(Codes(std::array::from_fn(|_| AtomicU64::new(0))));
        self.lock_requests().push(codes.clone());
        Requests(codes)
    }

    /// Adds all of it to what is to be told.
    pub fn tell(&self, registry: &mut Registry) {
        register(registry, &described::WAKE_DURATION, self.wakes.clone());
        register(registry, &described::FREEZES, self.freezes.clone());
        register(registry, &described::FREEZE_ABORTS, self.freeze_aborts.clone());
        register(registry, &described::CHECK_INS, self.check_ins.clone());
        register(registry, &described::DRIVER_CALLS, self.driver_calls.clone());
        register(registry, &described::DRIVER_SECONDS, self.driver_seconds.clone());
        register(registry, &described::REQUESTS, self.requests());
    }

    /// Those of all threads, by status code.
    fn requests(&self) -> Family<Code, Counter> {
        let threads = self.lock_requests();
        let requests = Family::<Code, Counter>::default();
        for (code, index) in (100_u16..).zip(0..CODES) {
            let of_thread = |codes: &Arc<Codes>| codes.0[index].load(Ordering::Relaxed);
            let count: u64 = threads.iter().map(of_thread).sum();
            if count > 0 {
                requests.get_or_create(&Code { code }).inc_by(count);
            }
        }
        requests
    }

    fn lock_requests(&self) -> MutexGuard<'_, Vec<Arc<Codes>>> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Adds one to what is to be told, as it is described.
pub fn register(registry: &mut Registry, described: &Described, metric: impl Metric) {
    registry.register(described.name, described.help, metric);
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Code {
    code: u16,
}

/// Answers of one thread, by status code.
struct Codes([AtomicU64; CODES]);

impl fmt::Debug for Codes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Codes")
    }
}

/// Where one thread counts the requests that it answers.
#[derive(Debug)]
pub struct Requests(Arc<Codes>);

impl Requests {
    /// One was answered with this. Nobody else writes here, so a load and a store will do.
    pub fn count(&self, status: StatusCode) {
        let index = usize::from(status.as_u16()).saturating_sub(100);
        if let Some(count) = self.0.0.get(index) {
            count.store(count.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        }
    }
}

fn tier_word(tier: Tier) -> &'static str {
    match tier {
        Tier::Paused => "paused",
        Tier::Stopped => "stopped",
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode;

    use super::*;

    #[test]
    fn requests_of_all_threads_are_summed_up() {
        let metrics = Metrics::default();
        let threads = [metrics.requests_of_thread(), metrics.requests_of_thread()];
        for thread in &threads {
            thread.count(StatusCode::OK);
        }
        threads[0].count(StatusCode::from_u16(999).unwrap());
        let mut registry = Registry::with_prefix("frostgate");
        metrics.tell(&mut registry);
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        for line in [
            "frostgate_http_requests_total{code=\"200\"} 2\n",
            "frostgate_http_requests_total{code=\"999\"} 1\n",
        ] {
            assert!(text.contains(line), "{text}");
        }
    }
}
