//! What the rules are told.

use std::sync::Arc;

use tokio::time::Instant;

use crate::model::{Policy, Tier};

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Somebody waits at the gate.
    Held,
    /// An admin wants it to run.
    Resume,
    /// An admin wants it frozen.
    Stop,
    /// It is to be removed with all that it has.
    Remove,
    /// The deadline that [`super::Machine::deadline`] named has passed.
    Deadline,
    /// Its slot is wanted by others.
    Evict,
    /// Its memory is wanted by others: if it is paused, it is to be stopped.
    StepDown,
    /// Nobody waits at the gate any more.
    Deserted,
    /// The answer to [`super::Effect::ShutIfIdle`].
    Shut(bool),
    /// The last one left a shut gate, or nobody was inside when it shut.
    Emptied,
    /// The workspace reports: active, or not.
    CheckIn(bool),
    /// An admin wants it awake until then; `None`: no longer.
    Keep(Option<Instant>),
    /// The driver says that something may have changed.
    Changed,
    /// The driver has found its runtime, for the first time or again.
    Resync,
    /// Another of the same id has taken its place outside.
    Replaced,
    /// Its policy is another from now on.
    Policy(Arc<Policy>),
    /// A job is done.
    Finished(Outcome),
}

/// What came of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// What it needs was made.
    Created,
    /// It could not be made.
    CreateFailed {
        /// For admins.
        reason: String,
        /// Whether its runtime won't make it, rather than can't just now.
        refused: bool,
    },
    /// It has room to run in.
    Admitted,
    /// It is ready, as this run of it, at an endpoint that the task keeps.
    Woken {
        /// See [`crate::driver::Sighting::run`].
        run: Option<String>,
    },
    /// It was taken for running, and does not run.
    Down(Seen),
    /// It could not be woken.
    WakeFailed {
        /// For admins.
        reason: String,
        /// The run that is up but not ready, if one is.
        run: Option<String>,
    },
    /// It is frozen.
    Frozen(Tier),
    /// It could not be frozen. How it is now must be found out.
    FreezeFailed {
        /// For admins.
        reason: String,
    },
    /// It is gone.
    Removed,
    /// It could not be removed.
    RemoveFailed {
        /// For admins.
        reason: String,
    },
    /// How it is.
    Looked(Seen),
    /// It could not be looked at; that is tried again.
    LookFailed,
}

/// How a workspace was found to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    /// Running.
    Running {
        /// Which run of it.
        run: Option<String>,
        /// Whether it still listens where the task thinks it does.
        same_endpoint: bool,
    },
    /// Paused.
    Paused,
    /// There, but not running.
    Stopped {
        /// How it ended, if that is known.
        exit: Option<String>,
    },
    /// Not there.
    Missing,
}
