//! The life of workspaces: who is inside, when they are frozen, and how they are woken.
//!
//! A [`Workspace`] is a handle. [`Workspace::enter`] gives a [`Lease`] or waits for one at the
//! [`gate`]. Behind every handle is a task (`actor`) that owns the rules ([`machine`]), carries out
//! what they say through the driver (`jobs`, `ready`), and is the only one to change anything.

mod actor;
pub mod check_in;
pub mod create;
pub mod deadlines;
mod feed;
pub mod gate;
mod history;
mod jobs;
mod lease;
pub mod machine;
mod mailbox;
mod onlookers;
mod pressure;
mod ready;
pub mod reconcile;
mod records;
pub mod registry;
pub mod slots;
mod sync;
mod usage;
mod workspace;

use std::time::Duration;

use tokio::time::Instant;

use crate::model::{Phase, Tier, WorkspaceId};

pub use create::{CreateError, Creator};
pub use feed::{Feed, Happening, What};
pub use gate::{Refusal, Visit};
pub use history::{HISTORY_STEP, History};
pub use lease::{Lease, TunnelLease};
pub use machine::CheckIn;
pub use mailbox::{Answer, CommandError};
pub use onlookers::{Onlooker, Progress};
pub use registry::{Limits, Options, Registry};
pub use usage::Usage;
pub use workspace::{View, Workspace};

pub use crate::driver::{Description, DriverError, Logs};

/// A workspace entered a phase.
#[derive(Debug, Clone)]
pub struct Change {
    /// Which.
    pub workspace: WorkspaceId,
    /// The phase that it is in now.
    pub phase: Phase,
    /// On which tier it is frozen.
    pub tier: Option<Tier>,
    /// Reads alone: `idle for 15 s`, `a request`. For admins: it may name internals.
    pub reason: String,
    /// What the wake or the freeze that just ended took.
    pub took: Option<Duration>,
    /// When.
    pub at: Instant,
}

impl Change {
    /// The phase, and the tier if there is one, in words: `frozen (stopped)`.
    pub fn state(&self) -> String {
        match self.tier {
            Some(tier) => format!("{} ({tier})", self.phase),
            None => self.phase.to_string(),
        }
    }
}

/// What whoever keeps connections to workspaces has to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Notice {
    /// A run is over.
    Ended(Ending),
    /// The policy of a workspace is another from now on, and its tunnels may be worth another
    /// thing.
    PolicyChanged {
        /// [`Workspace::serial`].
        serial: u64,
    },
}

/// A run of a workspace is over, or about to be: connections to it are of no more use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ending {
    /// [`Workspace::serial`].
    pub serial: u64,
    /// Its generations up to this one have ended.
    pub generation: u32,
    /// `false`: drop idle connections. `true`: close those in use as well.
    pub sever: bool,
}

#[cfg(test)]
mod tests;
