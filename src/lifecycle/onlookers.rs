//! Those who look at a waiting page: what they see, and what they mean for the workspace.
//!
//! Nobody of them is at the gate. Whoever was given the page [wants](Workspace::want) it to wake,
//! which is remembered until a wake has begun, for a freeze may have to end first. An [`Onlooker`]
//! keeps the workspace's place in the queue for room, as somebody at the gate would, and nothing
//! else: it wakes nobody, and keeps nobody awake.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

use super::Refusal;
use super::machine::Machine;
use super::workspace::Workspace;
use crate::model::{Phase, Tier};

/// Onlookers of one workspace, and of all.
const PER_WORKSPACE_MAX: u32 = 100;
const MAX: u32 = 2_000;
/// A place in the queue changes when others leave it, of which nobody tells: onlookers look again
/// after this time.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// What a workspace knows of them, and for them.
#[derive(Debug, Default)]
pub(super) struct Onlookers {
    /// Somebody was given the page, and no wake has begun since.
    wanted: AtomicBool,
    count: AtomicU32,
    /// Tells them that the phase may be another.
    told: Notify,
    /// When the wake began that is under way, in ticks; 0: none is.
    wake_began: AtomicU64,
    /// From where, as an index of `usual`.
    wake_from: AtomicU32,
    /// How long the last wake took, in milliseconds.
    last: AtomicU32,
    /// How long wakes take, from paused and from stopped, in milliseconds; 0: there was none.
    usual: [AtomicU32; 2],
}

/// How far a workspace is, in terms that everybody may know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// Something has to end first, or it is being looked at.
    Preparing,
    /// It waits for room, and for so many others before it.
    Queued {
        /// How many.
        before: usize,
    },
    /// It is being started.
    Waking {
        /// Since then.
        since: Instant,
        /// How long that takes usually; `None`: nobody knows yet.
        usual: Option<Duration>,
    },
    /// It can be entered.
    Ready,
    /// It could not be started.
    Failed {
        /// When it may be tried again.
        retry_at: Instant,
    },
    /// It is frozen, and nobody has it woken.
    Asleep,
    /// It is removed, or being removed.
    Gone,
}

/// Somebody who looks at a waiting page.
#[derive(Debug)]
pub struct Onlooker {
    workspace: Arc<Workspace>,
    seen: Option<Progress>,
}

impl Onlookers {
    /// Whether somebody waits for a wake that has not begun.
    pub(super) fn want(&self) -> bool {
        self.wanted.load(Ordering::Acquire)
    }

    /// Whether there are any.
    pub(super) fn are_there(&self) -> bool {
        self.count.load(Ordering::Acquire) > 0
    }

    /// What was wanted is under way, or was decided. `true`: it was wanted.
    pub(super) fn served(&self) -> bool {
        self.want() && self.wanted.swap(false, Ordering::AcqRel)
    }

    /// Something happened to the workspace.
    pub(super) fn tell(&self) {
        self.told.notify_waiters();
    }

    /// The driver is told to wake it; `from`: unless it was found running.
    pub(super) fn wake_begins(&self, tick: u64, from: Option<Tier>) {
        self.wake_began.store(from.map_or(0, |_| tick.max(1)), Ordering::Relaxed);
        self.wake_from.store(from.map_or(0, index), Ordering::Relaxed);
    }

    /// It is awake.
    pub(super) fn wake_ends(&self, tick: u64) {
        let began = self.wake_began.swap(0, Ordering::Relaxed);
        if began == 0 {
            return;
        }
        let took = tick.saturating_sub(began) / 1_000;
        let took = u32::try_from(took).unwrap_or(u32::MAX).max(1);
        self.last.store(took, Ordering::Relaxed);
        let usual = &self.usual[self.wake_from.load(Ordering::Relaxed) as usize % 2];
        let before = u64::from(usual.load(Ordering::Relaxed));
        // The last wakes weigh most: images grow, machines get busy.
        let smoothed = if before == 0 { took.into() } else { (3 * before + u64::from(took)) / 4 };
        usual.store(u32::try_from(smoothed).unwrap_or(u32::MAX), Ordering::Relaxed);
    }

    fn usual(&self, from: Tier) -> Option<Duration> {
        milliseconds(&self.usual[index(from) as usize])
    }
}

fn index(tier: Tier) -> u32 {
    match tier {
        Tier::Paused => 0,
        Tier::Stopped => 1,
    }
}

fn milliseconds(stored: &AtomicU32) -> Option<Duration> {
    let number = stored.load(Ordering::Relaxed);
    (number > 0).then(|| Duration::from_millis(number.into()))
}

impl Workspace {
    /// Has it woken as a request would that waits, though nobody waits at the gate. For somebody who
    /// was let wait there, and was given a page instead.
    pub fn want(&self) {
        self.onlookers.wanted.store(true, Ordering::Release);
        self.mailbox.ring();
    }

    /// Looks at it for somebody, until that is dropped.
    pub fn look_on(self: &Arc<Self>) -> Result<Onlooker, Refusal> {
        // Made first, so that whatever was counted is counted down.
        let here = self.onlookers.count.fetch_add(1, Ordering::AcqRel);
        let all = self.shared.onlookers.fetch_add(1, Ordering::AcqRel);
        let onlooker = Onlooker { workspace: self.clone(), seen: None };
        if here >= PER_WORKSPACE_MAX || all >= MAX {
            return Err(Refusal::Full);
        }
        self.mailbox.ring();
        Ok(onlooker)
    }

    /// How far it is.
    pub fn progress(&self) -> Progress {
        let queued = self.shared.slots.position(self.serial());
        self.progress_of(&self.lock_machine(), queued)
    }

    fn progress_of(&self, machine: &Machine, queued: Option<usize>) -> Progress {
        match machine.phase() {
            Phase::Starting if machine.waits_for_room() => {
                Progress::Queued { before: queued.unwrap_or(0) }
            }
            Phase::Starting => match machine.waking_from() {
                Some(from) => Progress::Waking {
                    since: self
                        .shared
                        .moment(self.onlookers.wake_began.load(Ordering::Relaxed))
                        .max(machine.since()),
                    usual: self.onlookers.usual(from),
                },
                None => Progress::Preparing,
            },
            Phase::Running => Progress::Ready,
            Phase::Freezing => Progress::Preparing,
            Phase::Frozen if self.onlookers.want() => Progress::Preparing,
            Phase::Frozen => Progress::Asleep,
            Phase::Failed => match machine.retry_at() {
                Some(retry_at) => Progress::Failed { retry_at },
                None => Progress::Asleep,
            },
            Phase::Removing | Phase::Removed => Progress::Gone,
        }
    }

    /// How long its last wake took; `None`: it was not woken.
    pub fn last_wake(&self) -> Option<Duration> {
        milliseconds(&self.onlookers.last)
    }
}

impl Onlooker {
    /// What is new; the first time, how it is. May be cancelled.
    pub async fn next(&mut self) -> Progress {
        loop {
            let mut told = std::pin::pin!(self.workspace.onlookers.told.notified());
            // Before it is looked, so that nothing is missed in between.
            told.as_mut().enable();
            let progress = self.workspace.progress();
            if self.seen != Some(progress) {
                self.seen = Some(progress);
                return progress;
            }
            drop(timeout(LOOK_EVERY, told).await);
        }
    }
}

impl Drop for Onlooker {
    fn drop(&mut self) {
        self.workspace.shared.onlookers.fetch_sub(1, Ordering::AcqRel);
        if self.workspace.onlookers.count.fetch_sub(1, Ordering::AcqRel) == 1 {
            // If nobody else waits for it, it need not be in the queue for long.
            self.workspace.mailbox.ring();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_wakes_weigh_most_and_tiers_are_apart() {
        let onlookers = Onlookers::default();
        assert_eq!(onlookers.usual(Tier::Stopped), None);
        for (began, ended) in [(1_000_000, 5_000_000), (10_000_000, 18_000_000)] {
            onlookers.wake_begins(began, Some(Tier::Stopped));
            onlookers.wake_ends(ended);
        }
        assert_eq!(onlookers.usual(Tier::Stopped), Some(Duration::from_secs(5)));
        assert_eq!(milliseconds(&onlookers.last), Some(Duration::from_secs(8)));
        assert_eq!(onlookers.usual(Tier::Paused), None);
        onlookers.wake_begins(20_000_000, Some(Tier::Paused));
        onlookers.wake_ends(20_000_010);
        onlookers.wake_begins(30_000_000, None);
        onlookers.wake_ends(90_000_000);
        assert_eq!(onlookers.usual(Tier::Paused), Some(Duration::from_millis(1)));
    }
}
