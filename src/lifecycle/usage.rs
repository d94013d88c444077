//! What running workspaces use of this machine, for those who look at it.
//!
//! Nobody is asked unless somebody looks: some engines take a second for the answer, and the
//! lifecycle needs none of it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use ahash::{HashMap, HashSet};
use futures_util::{StreamExt, stream};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

use super::registry::Registry;
use super::workspace::{Shared, Workspace};
use crate::driver::Consumption;
use crate::model::Phase;

/// For how long after somebody has looked workspaces are asked again and again.
const WANTED_FOR: Duration = Duration::from_secs(60);
/// How long they are left alone between two rounds.
const PAUSE: Duration = Duration::from_secs(2);
/// How long a runtime may take to tell.
const ASK_MAX: Duration = Duration::from_secs(5);
/// Workspaces that are asked at once.
const ASKED_AT_ONCE: usize = 16;
/// Between two looks that are further apart, CPU says nothing about now.
const APART_MAX: Duration = Duration::from_secs(30);

/// What a workspace uses.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Usage {
    /// Bytes of memory, without what is only cached.
    pub memory_bytes: u64,
    /// Of one core, since the look before; `None`: there was none lately.
    pub cpu_percent: Option<f64>,
}

/// The last look at each workspace that runs.
#[derive(Default)]
pub(super) struct Usages {
    state: Mutex<State>,
    /// Rung when somebody looks and nobody did before.
    bell: Notify,
}

#[derive(Default)]
struct State {
    wanted_until: Option<Instant>,
    looks: HashMap<u64, Look>,
}

#[derive(Debug, Clone, Copy)]
struct Look {
    at: Instant,
    cpu_time: Duration,
    usage: Usage,
}

impl Usages {
    /// What the workspace with this serial was seen to use last.
    pub(super) fn last(&self, serial: u64) -> Option<Usage> {
        let now = Instant::now();
        let mut state = self.lock();
        if state.wanted_until.is_none_or(|until| until <= now) {
            self.bell.notify_one();
        }
        state.wanted_until = Some(now + WANTED_FOR);
        state.looks.get(&serial).map(|look| look.usage)
    }

    /// Its run is over. Returns the memory that it used last.
    pub(super) fn forget(&self, serial: u64) -> Option<u64> {
        self.lock().looks.remove(&serial).map(|look| look.usage.memory_bytes)
    }

    fn note(&self, serial: u64, seen: Consumption, at: Instant) {
        let mut state = self.lock();
        let before = state.looks.get(&serial).filter(|before| at - before.at <= APART_MAX);
        let cpu_percent = before.and_then(|before| {
            // Less than before: it is another run.
            let used = seen.cpu_time.checked_sub(before.cpu_time)?;
            let passed = (at - before.at).as_secs_f64();
            (passed > 0.0).then(|| used.as_secs_f64() / passed * 100.0)
        });
        let usage = Usage { memory_bytes: seen.memory_bytes, cpu_percent };
        state.looks.insert(serial, Look { at, cpu_time: seen.cpu_time, usage });
    }

    fn keep_only(&self, serials: &HashSet<u64>) {
        self.lock().looks.retain(|serial, _| serials.contains(serial));
    }

    async fn wanted(&self) {
        loop {
            if self.lock().wanted_until.is_some_and(|until| Instant::now() < until) {
                return;
            }
            self.bell.notified().await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Looks at all that run, while somebody wants to know.
pub(super) async fn sample(shared: Arc<Shared>, registry: Weak<Registry>) {
    loop {
        shared.usages.wanted().await;
        let Some(all) = registry.upgrade().map(|registry| registry.all()) else { return };
        let is_up = |workspace: &Arc<Workspace>| {
            let phase = workspace.lock_machine().phase();
            matches!(phase, Phase::Running | Phase::Freezing) && workspace.can_freeze()
        };
        let up: Vec<_> = all.into_iter().filter(is_up).collect();
        shared.usages.keep_only(&up.iter().map(|workspace| workspace.serial()).collect());
        stream::iter(up).for_each_concurrent(ASKED_AT_ONCE, look).await;
        tokio::time::sleep(PAUSE).await;
    }
}

async fn look(workspace: Arc<Workspace>) {
    match timeout(ASK_MAX, workspace.driver.consumption(workspace.id())).await {
        Ok(Ok(Some(seen))) => {
            workspace.shared.usages.note(workspace.serial(), seen, Instant::now());
        }
        Ok(Ok(None)) => {}
        Ok(Err(error)) => {
            tracing::debug!(workspace = %workspace.id(), %error, "could not tell what it uses");
        }
        Err(_) => {
            tracing::debug!(workspace = %workspace.id(), "its runtime doesn't tell what it uses")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn cpu_is_told_from_two_looks_at_one_run() {
        let usages = Usages::default();
        let seen = |milliseconds| Consumption {
            memory_bytes: 7,
            cpu_time: Duration::from_millis(milliseconds),
        };
        let mut at = Instant::now();
        let mut told = Vec::new();
        // Of another run there is less; and after a long time nobody knows when it was used.
        for (apart, cpu) in [(0, 100), (2, 1_100), (2, 1_100), (2, 50), (60, 90)] {
            at += Duration::from_secs(apart);
            usages.note(1, seen(cpu), at);
            told.push(usages.last(1).unwrap().cpu_percent);
        }
        assert_eq!(told, [None, Some(50.0), Some(0.0), None, None]);
        assert_eq!(usages.forget(1), Some(7));
        assert_eq!(usages.last(1), None);
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_is_asked_unless_somebody_looks() {
        let usages = Usages::default();
        assert!(timeout(WANTED_FOR, usages.wanted()).await.is_err());
        usages.last(1);
        assert!(timeout(Duration::ZERO, usages.wanted()).await.is_ok());
        tokio::time::advance(WANTED_FOR).await;
        assert!(timeout(WANTED_FOR, usages.wanted()).await.is_err());
    }
}
