//! What must outlive the process: records of workspaces, their journal, and the admins' tokens.
//!
//! A [`Store`] is asked seldom: when a workspace enters a phase or a policy changes, never for a
//! request. What it has acknowledged is there after a power cut. The lifecycle stores what it is
//! about to tell a driver ([`Intent`]), tells it, and stores what came of it, so that whatever a
//! crash leaves half done is known at the next start.
//!
//! | table | a row is | why it is kept |
//! |---|---|---|
//! | `workspace` | a [`Record`]: what it is made of, its own policy, its state | so that a restart knows every workspace, how far it was, since when, and what was about to be done to it |
//! | `journal` | a [`JournalEntry`]: one phase entered, with its reason | so that an admin can ask why a workspace is awake, asleep or gone; it outlives the record, within its retention |
//! | `history` | a [`Moment`]: how many ran and were frozen in one minute | so that a dashboard can show the last days |
//! | `token` | a [`TokenRecord`]: the hash of an admin's token, with its scope | so that tokens are made and revoked without a restart; the token itself is nowhere |
//!
//! [`sqlite`] keeps them in one file, [`memory`] only as long as the process lives. Several
//! gateways that share a database are a third, so nothing here names a file or a table. Dates are
//! kept to the millisecond.

pub mod memory;
pub mod sqlite;

use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use crate::model::{Phase, PolicyOverrides, Spec, Tier, WorkspaceId};
use crate::token::{Scope, TokenHash, TokenName};

pub use memory::Memory;
pub use sqlite::Sqlite;

/// Lines of the journal that are kept for one workspace: what an admin is shown of it.
pub const JOURNAL_LINES_MAX: usize = 100;

/// How long a line of the journal is kept at most.
pub const JOURNAL_AGE_MAX: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// How long a row of the history is kept.
pub const HISTORY_AGE_MAX: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// Lines of the journal that are looked through for wakes.
pub const WAKES_LOOKED_THROUGH_MAX: usize = 100_000;

/// A call under way. Nothing happens before it is polled. Dropping it gives up waiting; what was
/// asked may still be carried out.
pub type Call<'a, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'a>>;

/// Keeps records, journal and tokens. Calls may come from everywhere at once; each is carried out
/// as a whole or not at all, and what one caller asks one after another stays in that order.
pub trait Store: Send + Sync + 'static {
    /// Ends it: what was asked is done when this returns, what is asked after that fails, and another
    /// program may open it.
    fn close(&self) -> Call<'_, ()> {
        Box::pin(async { Ok(()) })
    }

    /// Every record, for the start. One that can't be read is left out and logged: it stays where
    /// it is, and does not keep the others from being served.
    fn load(&self) -> Call<'_, Vec<Record>>;

    /// Keeps a record, in place of the one with its id if there is one. Durable when it returns.
    fn put(&self, record: Record) -> Call<'_, ()>;

    /// Replaces the state of a record, and adds the line to its journal if there is one: both, or
    /// neither. Durable when it returns. [`StoreError::Unknown`] where there is no such record.
    fn transition(
        &self,
        id: &WorkspaceId,
        state: RecordState,
        entry: Option<JournalEntry>,
    ) -> Call<'_, ()>;

    /// Forgets a record; its journal stays until its retention ends. Succeeds if there is none.
    fn delete(&self, id: &WorkspaceId) -> Call<'_, ()>;

    /// The last lines of a workspace's journal, the newest first. At most [`JOURNAL_LINES_MAX`]
    /// are kept, for at most [`JOURNAL_AGE_MAX`].
    fn journal(&self, id: &WorkspaceId, limit: usize) -> Call<'_, Vec<JournalEntry>>;

    /// Adds a moment to the history, in place of the one of the same time if there is one, and
    /// forgets what is older than [`HISTORY_AGE_MAX`].
    fn note_moment(&self, moment: Moment) -> Call<'_, ()>;

    /// The history from then on, the oldest first.
    fn history(&self, since: SystemTime) -> Call<'_, Vec<Moment>>;

    /// How the wakes of all workspaces went from then on, as far as the last
    /// [`WAKES_LOOKED_THROUGH_MAX`] lines of the journal tell, the newest first.
    fn wakes(&self, since: SystemTime) -> Call<'_, Vec<Wake>>;

    /// Keeps a token, in place of the one with its name if there is one.
    fn put_token(&self, token: TokenRecord) -> Call<'_, ()>;

    /// Every token, by name.
    fn tokens(&self) -> Call<'_, Vec<TokenRecord>>;

    /// Forgets a token. `false`: there was none.
    fn delete_token(&self, name: &TokenName) -> Call<'_, bool>;
}

/// Everything that is kept about a workspace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its id.
    pub id: WorkspaceId,
    /// Who asked for it.
    pub origin: Origin,
    /// The name of the driver that runs it.
    pub driver: String,
    /// The project that it was created from.
    pub project: Option<String>,
    /// What it is made of; `None` where that is told afresh at every start, by the configuration
    /// or by the driver that finds it.
    pub spec: Option<Arc<Spec>>,
    /// What it sets for itself.
    pub policy: PolicyOverrides,
    /// When it was first known.
    pub created_at: SystemTime,
    /// How far it is.
    pub state: RecordState,
}

/// The part of a record that changes as the workspace lives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordState {
    /// Where it is in its life.
    pub phase: Phase,
    /// On which tier it is frozen.
    pub tier: Option<Tier>,
    /// When it entered the phase.
    pub since: SystemTime,
    /// When somebody was inside last, as far as that was noted.
    pub last_active: Option<SystemTime>,
    /// Whether its last check-in said that it is active.
    pub reported_activity: bool,
    /// What the driver was about to be told. Kept before it is told and cleared with the outcome:
    /// one that is found at the start may have been carried out, or in part, or not at all.
    pub intent: Option<Intent>,
    /// When an admin stopped it, while that holds.
    pub stopped_by_admin_at: Option<SystemTime>,
    /// Until when an admin wants it awake.
    pub kept_until: Option<SystemTime>,
    /// Bytes of memory that it used right before it was stopped, as far as is known.
    pub memory_saved: Option<u64>,
    /// Why it failed, for admins.
    pub failure: Option<String>,
}

/// Who asked for a workspace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// A call of the API created it.
    Api,
    /// The configuration names it.
    Config,
    /// Its driver found it.
    Discovered,
}

/// A call of the driver that changes a workspace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Intent {
    /// Make what it needs.
    Create,
    /// Start it.
    Start,
    /// Pause it.
    Pause,
    /// Let it go on.
    Unpause,
    /// Stop it.
    Stop,
    /// Remove it with all that it has.
    Remove,
}

/// One phase that a workspace entered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JournalEntry {
    /// When.
    pub at: SystemTime,
    /// The phase.
    pub phase: Phase,
    /// On which tier it was frozen.
    pub tier: Option<Tier>,
    /// Reads alone: `idle for 15m`.
    pub reason: String,
    /// What the wake or the freeze that ended with it took.
    pub took: Option<Duration>,
}

/// How things were at one time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// When.
    pub at: SystemTime,
    /// Workspaces that ran, or were about to.
    pub running: u32,
    /// Workspaces that were frozen, on any tier.
    pub frozen: u32,
    /// Bytes of memory that those of them used which were stopped.
    pub memory_saved: u64,
}

/// How a wake ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wake {
    /// It was ready after so long.
    Ready(Duration),
    /// It failed.
    Failed,
}

impl Wake {
    /// What a line of a journal says of a wake, if it does.
    fn of(phase: Phase, took: Option<Duration>) -> Option<Self> {
        match (phase, took) {
            (Phase::Running, Some(took)) => Some(Self::Ready(took)),
            (Phase::Failed, _) => Some(Self::Failed),
            _ => None,
        }
    }
}

/// A token that opens the API, without the token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenRecord {
    /// What admins call it.
    pub name: TokenName,
    /// The hash of the token.
    pub hash: TokenHash,
    /// What it may do.
    pub scope: Scope,
    /// When it was made.
    pub created_at: SystemTime,
}

/// Why the store could not be opened, or did not do what it was asked. The words are for the
/// operator. After [`Self::Disk`], [`Self::Stalled`] and [`Self::Closed`] what was asked may be kept all
/// the same; after the others it is not.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// Another Frostgate has the same state directory.
    #[error(
        "the state directory {directory} is in use by another Frostgate{}; end that one, or give \
         this one a state_dir of its own",
        process.map(|id| format!(" (process {id})")).unwrap_or_default()
    )]
    InUse {
        /// Which directory.
        directory: PathBuf,
        /// Who has it, as far as it says.
        process: Option<u32>,
    },
    /// A newer Frostgate wrote it, and this one does not know what that means.
    #[error(
        "{file} was written by a newer Frostgate (schema {found}, this one knows up to {known}); \
         run that version, or restore the file from before the upgrade"
    )]
    Newer {
        /// Which file.
        file: PathBuf,
        /// Its schema.
        found: u32,
        /// The newest schema that is known here.
        known: u32,
    },
    /// It could not be opened for another reason.
    #[error("could not open the store {file}: {reason}")]
    Unopened {
        /// Which file.
        file: PathBuf,
        /// What was seen.
        reason: String,
    },
    /// No space is left. Works again once there is.
    #[error("could not save: the disk that holds the state directory is full")]
    Full,
    /// Somebody else holds the database for longer than is waited.
    #[error("could not use the store: another program keeps its database locked")]
    Busy,
    /// The disk, or what stands between it and us, failed.
    #[error("could not read or write the store: {reason}")]
    Disk {
        /// What was seen.
        reason: String,
    },
    /// What is kept makes no sense any more.
    #[error("the store is damaged: {reason}; restore its file from a backup")]
    Damaged {
        /// What was seen.
        reason: String,
    },
    /// This one value can't be kept.
    #[error("could not save what was given: {reason}")]
    Refused {
        /// What was seen.
        reason: String,
    },
    /// There is no record of this workspace.
    #[error("the store has no workspace {id}")]
    Unknown {
        /// Which.
        id: WorkspaceId,
    },
    /// The disk does not answer. What was asked may still be carried out.
    #[error("the store did not answer within {limit:?}")]
    Stalled {
        /// How long was waited.
        limit: Duration,
    },
    /// The store's thread has ended; nothing is kept any more until a restart.
    #[error("the store is closed; nothing is saved until Frostgate is restarted")]
    Closed,
}

#[cfg(test)]
mod tests;
