//! How the rest of the program asks a workspace's task for something.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use crate::model::Policy;

/// Most commands that may wait for a workspace's task. Each is somebody's call that waits for its
/// answer, and the task answers in microseconds: a longer queue is a flood.
const COMMANDS_MAX: usize = 1_000;

/// Why a command was not carried out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// It can't be done to this workspace.
    #[error("{0}")]
    Impossible(String),
    /// It was tried and failed.
    #[error("{0}")]
    Failed(String),
    /// The workspace is gone.
    #[error("the workspace is gone")]
    Gone,
    /// Too many ask something of it.
    #[error("the workspace takes no commands at the moment")]
    Unavailable,
}

/// The answer to a command.
pub type Answer = Result<(), CommandError>;

pub(super) enum Command {
    Created(oneshot::Sender<Answer>),
    Stop(oneshot::Sender<Answer>),
    BeginStop(oneshot::Sender<Answer>),
    Resume(oneshot::Sender<Answer>),
    BeginResume(oneshot::Sender<Answer>),
    Remove(oneshot::Sender<Answer>),
    CheckIn { active: bool, answer: oneshot::Sender<Answer> },
    Keep { until: Option<Instant>, answer: oneshot::Sender<Answer> },
    Policy { policy: Arc<Policy>, answer: oneshot::Sender<Answer> },
    Suspect(oneshot::Sender<Answer>),
    Evict(oneshot::Sender<Answer>),
    StepDown(oneshot::Sender<Answer>),
}

/// What a workspace's task is to look at. Flags for what may be merged, a queue for what wants an
/// answer. Much smaller than a channel, and there is one per workspace.
#[derive(Default)]
pub(super) struct Mailbox {
    inbox: Mutex<Inbox>,
    bell: Notify,
}

#[derive(Default)]
pub(super) struct Inbox {
    pub(super) commands: VecDeque<Command>,
    pub(super) changed: bool,
    pub(super) resync: bool,
    pub(super) deadline: bool,
    pub(super) emptied: bool,
    pub(super) replaced: bool,
    pub(super) released: bool,
    closed: bool,
}

impl Mailbox {
    /// Tells the task to look at how things are.
    pub(super) fn ring(&self) {
        self.bell.notify_one();
    }

    pub(super) async fn rung(&self) {
        self.bell.notified().await;
    }

    pub(super) fn flag(&self, set: impl FnOnce(&mut Inbox)) {
        set(&mut self.lock());
        self.ring();
    }

    pub(super) fn put(&self, command: Command) -> Answer {
        let mut inbox = self.lock();
        if inbox.closed {
            return Err(CommandError::Gone);
        }
        if inbox.commands.len() >= COMMANDS_MAX {
            return Err(CommandError::Unavailable);
        }
        inbox.commands.push_back(command);
        drop(inbox);
        self.ring();
        Ok(())
    }

    /// Everything that has come; the inbox is empty afterwards.
    pub(super) fn take(&self) -> Inbox {
        let mut inbox = self.lock();
        let closed = inbox.closed;
        std::mem::replace(&mut *inbox, Inbox { closed, ..Inbox::default() })
    }

    /// Takes no more commands; those that wait are dropped, which answers them.
    pub(super) fn close(&self) {
        let mut inbox = self.lock();
        inbox.closed = true;
        inbox.commands.clear();
    }

    pub(super) fn is_closed(&self) -> bool {
        self.lock().closed
    }

    fn lock(&self) -> MutexGuard<'_, Inbox> {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
