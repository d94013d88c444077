//! What happens to all workspaces, numbered, for those who follow it: the last of it is kept, so that
//! whoever was away for a moment misses nothing, and whoever was away for long knows that he did.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::sync::watch;

use crate::model::{Phase, ProjectId, Tier, WorkspaceId};

/// Events that are kept.
const KEPT_MAX: usize = 1_024;

/// Something that happened to a workspace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Happening {
    /// Counts up by one from each to the next.
    pub number: u64,
    /// When.
    pub at: SystemTime,
    /// To which.
    pub workspace: WorkspaceId,
    /// What that was created from.
    pub project: Option<ProjectId>,
    /// What.
    pub what: What,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// It entered a phase, or told anew why it is in it.
    Phase {
        /// Which.
        phase: Phase,
        /// On which tier it is frozen.
        tier: Option<Tier>,
        /// Reads alone. For admins.
        reason: String,
        /// What the wake or the freeze that ended with it took.
        took: Option<Duration>,
    },
    /// It reports another thing than before.
    CheckIn {
        /// Whether it says that it is active.
        active: bool,
    },
}

/// The last of what happened.
pub struct Feed {
    kept: Mutex<VecDeque<Arc<Happening>>>,
    /// The number of the newest.
    newest: watch::Sender<u64>,
}

impl Default for Feed {
    fn default() -> Self {
        Self { kept: Mutex::default(), newest: watch::Sender::new(0) }
    }
}

impl Feed {
    /// The number of the newest; 0: nothing has happened yet.
    pub fn newest(&self) -> u64 {
        *self.newest.borrow()
    }

    /// What happened after that number, the oldest first; waits for it if there is nothing yet.
    /// `None`: not all of it is kept.
    pub async fn after(&self, number: u64) -> Option<Vec<Arc<Happening>>> {
        let mut newest = self.newest.subscribe();
        // The sender lives as long as this does.
        let _ = newest.wait_for(|newest| *newest != number).await;
        let kept = self.lock();
        let oldest = kept.front().map_or(0, |oldest| oldest.number);
        if number > self.newest() || number + 1 < oldest {
            return None;
        }
        let skipped = usize::try_from(number + 1 - oldest).unwrap_or(usize::MAX);
        Some(kept.iter().skip(skipped).cloned().collect())
    }

    pub(super) fn tell(
        &self,
        at: SystemTime,
        workspace: WorkspaceId,
        project: Option<ProjectId>,
        what: What,
    ) {
        let mut kept = self.lock();
        let number = self.newest() + 1;
        if kept.len() >= KEPT_MAX {
            kept.pop_front();
        }
        kept.push_back(Arc::new(Happening { number, at, workspace, project, what }));
        // Under the lock, so that numbers are in order.
        self.newest.send_replace(number);
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Arc<Happening>>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_was_away_for_a_moment_misses_nothing_and_who_was_away_for_long_knows_it() {
        let feed = Feed::default();
        let tell = || {
            let alice = WorkspaceId::parse("alice").unwrap();
            feed.tell(SystemTime::UNIX_EPOCH, alice, None, What::CheckIn { active: true });
        };
        let numbers = async |number| {
            let after = feed.after(number).await?;
            Some(after.iter().map(|happening| happening.number).collect::<Vec<_>>())
        };
        let (first, ()) = tokio::join!(numbers(0), async { tell() });
        assert_eq!(first, Some(vec![1]));
        tell();
        tell();
        assert_eq!(numbers(1).await, Some(vec![2, 3]));
        assert_eq!(numbers(0).await, Some(vec![1, 2, 3]));
        // A number that was never given is of another life of this program.
        assert_eq!(numbers(9).await, None);
        for _ in 0..KEPT_MAX {
            tell();
        }
        assert_eq!(numbers(2).await, None);
        assert_eq!(numbers(3).await.unwrap().len(), KEPT_MAX);
    }
}
