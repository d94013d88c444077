//! What runs workspaces: the border between the lifecycle and the world.
//!
//! A driver does what it is told, at once, and tells how things are; it decides nothing and keeps
//! no phases. Every call may be repeated: to start what runs, stop what is stopped or remove what
//! is gone succeeds. Events only say *that* something may have changed, never what: whoever hears
//! one looks ([`Driver::inspect`]), so that late, doubled or merged events lead to the same place.

pub mod counted;
pub mod docker;
pub mod fake;
pub mod process;
pub mod upstream;

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use futures_util::Stream;
use tokio::sync::mpsc;

use crate::model::{Blueprint, PolicyOverrides, Spec, WorkspaceId};

/// A driver call under way. Dropping it gives up waiting; the runtime may still carry it out.
pub type Call<'a, T> = Pin<Box<dyn Future<Output = Result<T, DriverError>> + Send + 'a>>;

/// What processes wrote, in pieces that may end anywhere. An error ends it.
pub type Logs = Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send>>;

/// Runs workspaces. One call per workspace at a time; the lifecycle sees to that.
pub trait Driver: Send + Sync + 'static {
    /// `docker`, `process`, `upstream`, `fake`.
    fn name(&self) -> &'static str;

    /// Whether its workspaces can be frozen at all.
    fn can_freeze(&self) -> bool {
        true
    }

    /// Whether its endpoints may accept connections before the workspace listens, because a
    /// forwarder stands in between.
    fn accepts_early(&self) -> bool {
        false
    }

    /// Makes what `start` needs: a container, a directory. Does nothing where it is there already.
    fn create<'a>(&'a self, blueprint: &'a Blueprint) -> Call<'a, ()>;

    /// Starts a stopped workspace. Returns when the runtime says that it runs, which does not mean
    /// that it is ready.
    fn start<'a>(&'a self, blueprint: &'a Blueprint) -> Call<'a, ()>;

    /// Stops it: its TERM signal, up to `grace`, KILL. Works on a paused workspace too.
    /// Returns when nothing of it runs any more.
    fn stop<'a>(&'a self, id: &'a WorkspaceId, grace: Duration) -> Call<'a, ()>;

    /// Freezes it with its memory. Returns when none of its threads runs any more.
    fn pause<'a>(&'a self, id: &'a WorkspaceId) -> Call<'a, ()>;

    /// Undoes `pause`. It may run before the call returns.
    fn unpause<'a>(&'a self, id: &'a WorkspaceId) -> Call<'a, ()>;

    /// Stops it and deletes what `create` made, and what it wrote into that.
    fn remove<'a>(&'a self, id: &'a WorkspaceId) -> Call<'a, ()>;

    /// How it is right now, from the runtime and not from memory.
    fn inspect<'a>(&'a self, id: &'a WorkspaceId) -> Call<'a, Sighting>;

    /// Every workspace that the runtime knows by itself (by labels), whether it runs or not.
    fn list(&self) -> Call<'_, Vec<Found>>;

    /// What it uses right now; `None`: it doesn't run, or the runtime doesn't tell.
    fn consumption<'a>(&'a self, _id: &'a WorkspaceId) -> Call<'a, Option<Consumption>> {
        Box::pin(async { Ok(None) })
    }

    /// What its processes wrote: the last `lines` lines, and then, where `follow` is set, what they
    /// write from now on, in pieces as they come. `None`: nobody keeps that.
    fn logs<'a>(
        &'a self,
        _id: &'a WorkspaceId,
        _lines: usize,
        _follow: bool,
    ) -> Call<'a, Option<Logs>> {
        Box::pin(async { Ok(None) })
    }

    /// What the runtime calls a workspace, for those who speak of containers; `None`: it is no
    /// container, or there is none.
    fn describe<'a>(&'a self, _id: &'a WorkspaceId) -> Call<'a, Option<Description>> {
        Box::pin(async { Ok(None) })
    }

    /// Whose container that is, by the runtime's id of it; from memory.
    fn workspace_of(&self, _container_id: &str) -> Option<WorkspaceId> {
        None
    }

    /// The images that the runtime has, as `repository:tag`, in their order and each once.
    fn images(&self) -> Call<'_, Vec<String>> {
        Box::pin(async { Ok(Vec::new()) })
    }

    /// Starts to watch the runtime and to send what it sees, until the receiver is dropped.
    /// Called once; a driver reconnects by itself and sends [`DriverEvent::Resync`] after each
    /// (re)connect, the first included. A full channel makes it wait, not drop events.
    fn watch(&self, events: mpsc::Sender<DriverEvent>) -> Call<'_, ()>;
}

/// Something may be different from before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DriverEvent {
    /// This workspace may have changed, appeared or gone.
    Changed(WorkspaceId),
    /// Events may have been missed: look at everything.
    Resync,
}

/// How a workspace is, as the runtime tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sighting {
    /// Whether it runs.
    pub status: Status,
    /// Names this run of it: differs after every start. `None` unless it runs or is paused.
    pub run: Option<String>,
    /// Where it listens. `None` if it doesn't run or has no address yet.
    pub endpoint: Option<SocketAddr>,
    /// Every address that it may send from, to know who checks in.
    pub addresses: Vec<IpAddr>,
    /// Its own health check, if it has one.
    pub health: Option<Health>,
    /// How it ended, in words, if it ended: `exited with code 137`.
    pub exit: Option<String>,
}

impl Sighting {
    /// A workspace that isn't there, or isn't running for the reason `exit`.
    pub fn down(status: Status, exit: Option<String>) -> Self {
        Self { status, run: None, endpoint: None, addresses: Vec::new(), health: None, exit }
    }
}

/// Whether a workspace runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// Its processes run.
    Running,
    /// Its processes are frozen.
    Paused,
    /// It exists and nothing of it runs.
    Stopped,
    /// There is no such thing.
    Missing,
}

/// What a workspace uses of this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Consumption {
    /// Memory, without what the kernel only keeps because nobody else wants the room.
    pub memory_bytes: u64,
    /// CPU time since it was started, of all cores together.
    pub cpu_time: Duration,
}

/// What a workspace's own health check says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// No verdict yet.
    Starting,
    /// Fine.
    Healthy,
    /// Not fine.
    Unhealthy,
}

/// A workspace's container in its runtime's own terms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Description {
    /// The runtime's id of it, in full.
    pub container_id: String,
    /// Its name as the runtime says it: Docker's begin with a slash.
    pub name: String,
    /// The image as it was named when the container was made.
    pub image: String,
    /// The port of this machine at which its port 22 is published, while it runs.
    pub ssh_port: Option<u16>,
    /// The same for the port that the workspace listens on.
    pub app_port: Option<u16>,
}

/// A workspace that the runtime knows by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// From its label, or its name folded into a DNS label.
    pub id: WorkspaceId,
    /// What its labels say of it.
    pub spec: Spec,
    /// What its labels say of its policy.
    pub policy: PolicyOverrides,
    /// Whether we made it ourselves, for a workspace that may be gone by now.
    pub is_ours: bool,
    /// What its labels say that can't be used, in words for the operator.
    pub warnings: Vec<String>,
}

/// Why a driver call did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum DriverError {
    /// The runtime itself does not answer. Workspaces may be fine.
    #[error("could not reach {runtime}: {reason}")]
    Unreachable {
        /// Which runtime, and where.
        runtime: String,
        /// What was seen.
        reason: String,
    },
    /// The runtime went away in the middle of the call. It may be carried out all the same.
    #[error("could not {action} workspace {id}: the connection to its runtime broke: {reason}")]
    Interrupted {
        /// The call, as a verb.
        action: &'static str,
        /// Which workspace.
        id: WorkspaceId,
        /// What was seen.
        reason: String,
    },
    /// The runtime answered, and refused.
    #[error("could not {action} workspace {id}: {reason}")]
    Refused {
        /// The call, as a verb.
        action: &'static str,
        /// Which workspace.
        id: WorkspaceId,
        /// The runtime's words.
        reason: String,
    },
    /// No answer in time. It may still be carried out.
    #[error("could not {action} workspace {id} within {limit:?}")]
    TimedOut {
        /// The call, as a verb.
        action: &'static str,
        /// Which workspace.
        id: WorkspaceId,
        /// How long was waited.
        limit: Duration,
    },
    /// The runtime can't do that to this workspace, ever.
    #[error("workspace {id} can't be {what}")]
    Unsupported {
        /// Which workspace.
        id: WorkspaceId,
        /// A past participle: `frozen`, `removed`.
        what: &'static str,
    },
}
