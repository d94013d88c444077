//! How many ran and were frozen, and what that saved, minute by minute.

use std::sync::Weak;
use std::time::{Duration, SystemTime};

use super::records::Records;
use super::registry::Registry;
use crate::model::Phase;
use crate::store::{Moment, StoreError, Wake};

/// Between two rows.
pub const HISTORY_STEP: Duration = Duration::from_secs(60);

/// How it went for a while.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct History {
    /// The oldest first.
    pub moments: Vec<Moment>,
    /// The newest first.
    pub wakes: Vec<Wake>,
}

impl Registry {
    /// How it went from then on.
    pub async fn history(&self, since: SystemTime) -> Result<History, StoreError> {
        self.records().history(since).await
    }

    /// How things are now.
    fn moment(&self) -> Moment {
        let at = self.records().clock.now();
        let mut moment = Moment { at, running: 0, frozen: 0, memory_saved: 0 };
        for workspace in self.all().into_iter().filter(|workspace| workspace.can_freeze()) {
            let view = workspace.view();
            match view.phase {
                Phase::Starting | Phase::Running | Phase::Freezing => moment.running += 1,
                Phase::Frozen => moment.frozen += 1,
                Phase::Failed | Phase::Removing | Phase::Removed => {}
            }
            moment.memory_saved += view.memory_saved.unwrap_or_default();
        }
        moment
    }
}

impl Records {
    async fn history(&self, since: SystemTime) -> Result<History, StoreError> {
        let moments = self.store().history(since).await?;
        Ok(History { moments, wakes: self.store().wakes(since).await? })
    }
}

/// Writes a row every minute.
pub(super) async fn keep(registry: Weak<Registry>) {
    loop {
        tokio::time::sleep(HISTORY_STEP).await;
        let Some(registry) = registry.upgrade() else { return };
        if let Err(error) = registry.records().store().note_moment(registry.moment()).await {
            tracing::warn!(%error, "a minute is missing from the history");
        }
    }
}
