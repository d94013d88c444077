//! The connections to one workspace.

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use ahash::RandomState;
use tokio::sync::{Mutex, Notify};
use tokio::task::AbortHandle;

use super::http1::Idle;
use super::http2::Shared;
use crate::lifecycle::Workspace;

/// See the module's head.
pub(super) struct Pool {
    workspace: Arc<Workspace>,
    /// The generation that idle and shared connections are of.
    pub(super) generation: u32,
    /// The generation has ended: those in use may finish, nothing is kept.
    pub(super) retired: bool,
    /// HTTP/1. Last in, first out: the rest may age and be closed.
    pub(super) idle: Vec<Idle>,
    /// HTTP/2. First made, first filled: the rest may become idle and be closed.
    pub(super) shared: Vec<Rc<Shared>>,
    /// Whoever has it connects by HTTP/2; the others wait for what comes of it.
    pub(super) connecting: Rc<Mutex<()>>,
    /// All open connections and tunnels, those to earlier generations that still live included.
    pub(super) live: HashMap<u64, Live, RandomState>,
}

/// A task that moves bytes to or from a run of a workspace.
pub(super) struct Live {
    pub(super) generation: u32,
    pub(super) task: Task,
}

pub(super) enum Task {
    Connection(AbortHandle),
    /// Told to look at how things are.
    Tunnel(Rc<Notify>),
}

impl Pool {
    pub(super) fn new(workspace: Arc<Workspace>) -> Self {
        Self {
            workspace,
            generation: 0,
            retired: false,
            idle: Vec::new(),
            shared: Vec::new(),
            connecting: Rc::default(),
            live: HashMap::default(),
        }
    }

    /// From now on it is for that generation, if that is a new one.
    pub(super) fn follow(&mut self, generation: u32) {
        if self.generation < generation {
            self.generation = generation;
            self.retired = false;
            self.clear();
        }
    }

    /// Lets go of what nobody uses, and has what is shared end with its last stream.
    pub(super) fn clear(&mut self) {
        self.idle.clear();
        self.shared.clear();
    }

    /// Whether connections to that generation are of further use.
    pub(super) fn is_for(&self, generation: u32) -> bool {
        self.generation == generation && !self.retired
    }

    pub(super) fn is_over(&self) -> bool {
        self.retired && self.live.is_empty()
    }

    /// Ends what belongs to runs that are severed.
    pub(super) fn sever_ended(&mut self) {
        let workspace = self.workspace.clone();
        self.sever(|generation| workspace.is_severed(generation));
    }

    /// Ends connections to such generations at once; tunnels look for themselves.
    pub(super) fn sever(&mut self, concerns: impl Fn(u32) -> bool) {
        self.have_tunnels_look();
        self.live.retain(|_, Live { generation, task }| match task {
            Task::Connection(handle) if concerns(*generation) => {
                handle.abort();
                false
            }
            Task::Connection(_) | Task::Tunnel(_) => true,
        });
    }

    pub(super) fn have_tunnels_look(&self) {
        for live in self.live.values() {
            if let Task::Tunnel(look) = &live.task {
                look.notify_one();
            }
        }
    }
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Pool({:?}, generation {})", self.workspace, self.generation)
    }
}
