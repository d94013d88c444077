//! What the rules have done.

use std::time::Duration;

use tokio::time::Instant;

use crate::model::{FreezeMode, Phase, Tier};

/// What the task is to do. In the order given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Shut the gate if nobody is inside and nobody left after this moment; answer with
    /// [`super::Event::Shut`].
    ShutIfIdle {
        /// Latest moment at which somebody may have left.
        idle_before: Instant,
    },
    /// Shut the gate, whoever is inside; answer with [`super::Event::Emptied`] if that is nobody.
    Shut,
    /// Close the connections of those who are inside still.
    Sever,
    /// Open the gate for a new generation at the endpoint that was found.
    Open,
    /// Send away those who wait, and those who come before `retry_at`.
    Refuse {
        /// `None`: for good.
        retry_at: Option<Instant>,
    },
    /// Let those who come wait again.
    Hold,
    /// Let nobody but navigations wait before this moment; those who do already go on.
    HoldOff {
        /// From then on everybody may.
        until: Instant,
    },
    /// Have the driver do something.
    Run(Job),
    /// Give up the job under way: a wait for a slot, a wake, or an adoption.
    GiveUp,
    /// Its creation has succeeded.
    Created,
    /// Its creation has failed; it is removed.
    CreateFailed {
        /// For admins.
        reason: String,
        /// See [`super::Outcome::CreateFailed`].
        refused: bool,
    },
    /// A wake that an admin may be waiting for has failed.
    ResumeFailed {
        /// For admins.
        reason: String,
    },
    /// Tell the world about a phase that was entered. By the time this is carried out the next one
    /// may have begun: a workspace that was frozen is woken at once if somebody waits.
    Tell {
        /// Which one.
        phase: Phase,
        /// On which tier it is frozen, if it is.
        tier: Option<Tier>,
        /// Reads alone: `idle for 15m`.
        reason: String,
        /// What a wake or a freeze took.
        took: Option<Duration>,
    },
    /// A freeze or a removal that an admin may be waiting for has failed.
    StopFailed {
        /// For admins.
        reason: String,
    },
    /// It could not be removed yet.
    RemoveFailed {
        /// For admins.
        reason: String,
    },
    /// An admin wants it frozen, which it can't be.
    StopRefused {
        /// For admins.
        reason: String,
    },
}

/// Something for the driver to do; one at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Job {
    /// Make what it needs, for the first time.
    Create,
    /// Wait for room to run in.
    Queue,
    /// Make it run and wait until it is ready, from whatever state it is in.
    Wake,
    /// Find out whether it runs, and wait until it is ready if it does. Nothing starts it.
    Adopt,
    /// Freeze it.
    Freeze(FreezeMode),
    /// Remove it.
    Remove,
    /// Find out how it is.
    Look,
}
