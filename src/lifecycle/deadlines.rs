//! All deadlines of all workspaces: one ordered set and one sleeping task.
//!
//! A workspace has at most one deadline. Setting it replaces the one before. When it passes, the
//! task calls what it was made with, once; whether the deadline still means anything is for the
//! workspace to say, which looks at how things are.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio::time::Instant;

/// The set. `u64` is a workspace's serial number.
#[derive(Debug, Default)]
pub struct Deadlines {
    state: Mutex<State>,
    /// Told when the earliest deadline became earlier.
    earlier: Notify,
}

#[derive(Debug, Default)]
struct State {
    ordered: BTreeSet<(Instant, u64)>,
    by_serial: HashMap<u64, Instant>,
}

impl Deadlines {
    /// Sets, moves or, with `None`, takes back a workspace's deadline.
    pub fn set(&self, serial: u64, at: Option<Instant>) {
        let mut state = self.lock();
        let before = match at {
            Some(at) => state.by_serial.insert(serial, at),
            None => state.by_serial.remove(&serial),
        };
        if before == at {
            return;
        }
        if let Some(before) = before {
            state.ordered.remove(&(before, serial));
        }
        let Some(at) = at else { return };
        state.ordered.insert((at, serial));
        let is_first = state.ordered.first() == Some(&(at, serial));
        drop(state);
        if is_first {
            self.earlier.notify_one();
        }
    }

    /// Calls `passed` with each workspace whose deadline passes, as it passes. Runs for ever.
    pub async fn run(&self, passed: impl Fn(u64)) {
        loop {
            let (due, next) = self.take_due(Instant::now());
            due.into_iter().for_each(&passed);
            match next {
                Some(at) => tokio::select! {
                    () = tokio::time::sleep_until(at) => {}
                    () = self.earlier.notified() => {}
                },
                None => self.earlier.notified().await,
            }
        }
    }

    fn take_due(&self, now: Instant) -> (Vec<u64>, Option<Instant>) {
        let mut state = self.lock();
        let mut due = Vec::new();
        while let Some(&(at, serial)) = state.ordered.first() {
            if at > now {
                return (due, Some(at));
            }
            state.ordered.pop_first();
            state.by_serial.remove(&serial);
            due.push(serial);
        }
        (due, None)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use tokio::sync::mpsc;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn deadlines_pass_in_order_and_on_time_and_a_moved_one_only_once() {
        let deadlines = Arc::new(Deadlines::default());
        let (sender, mut passed) = mpsc::unbounded_channel();
        let task = tokio::spawn({
            let deadlines = deadlines.clone();
            let told = move |serial| assert!(sender.send((serial, Instant::now())).is_ok());
            async move { deadlines.run(told).await }
        });
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        deadlines.set(1, Some(after(30)));
        deadlines.set(2, Some(after(20)));
        deadlines.set(3, Some(after(10)));
        deadlines.set(3, None);
        deadlines.set(1, Some(after(5)));
        assert_eq!(passed.recv().await.unwrap(), (1, after(5)));
        assert_eq!(passed.recv().await.unwrap(), (2, after(20)));
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert!(passed.try_recv().is_err());
        task.abort();
    }
}
