//! Local processes: the driver that needs nothing but this machine.
//!
//! A workspace is a command with a directory, a log and a port of its own. Three rules shape the
//! code:
//!
//! - **Nothing is lost when Frostgate dies.** What it must know stands in a `record::Record`
//!   before the process is spawned, and every process carries the token of its run. Whoever opens
//!   the state directory next adopts what runs and kills what is left of what doesn't.
//! - **Nobody else is hit.** A process is known by its pid *and* its start time *and* the boot that
//!   they belong to, and is signalled through a pidfd.
//! - **One at a time.** Calls on a workspace take its turn, and so does the task that clears up
//!   after a leader that ended by itself. A call that was given up on leaves a state that the next
//!   one carries on from.
//!
//! Where this machine has a usable cgroup freezer, a workspace lives in a cgroup: it is paused
//! without noticing, and nothing that it spawns can slip away. Elsewhere it is paused by SIGSTOP.

mod supervisor;
mod workspace;

mod launch;
mod log;
mod port;
mod record;
mod spawn_lock;

mod freezer;
mod group;
mod proc_fs;

use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::PidfdFlags;
use sha2::{Digest, Sha256};
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use self::freezer::{FREEZE_LIMIT, Hierarchy};
use self::supervisor::Supervisor;
use self::workspace::make_private_directory;
use super::{Call, Consumption, Driver, DriverError, DriverEvent, Found, Logs, Sighting};
use crate::model::{Blueprint, Runs, WorkspaceId};

/// Why a blueprint of another driver's is turned away.
const NOT_A_COMMAND: &str = "it is not a command";

/// How long a workspace that is removed gets to end by itself.
const REMOVE_GRACE: Duration = Duration::from_secs(5);

/// How a process driver is set up.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where each workspace has its directory. One Frostgate at a time may use it.
    pub state_dir: PathBuf,
    /// The address that workspaces listen on.
    pub address: IpAddr,
    /// How workspaces are paused.
    pub freezer: Freezer,
}

/// How workspaces are paused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Freezer {
    /// By the cgroup freezer where it can be used, else by signals.
    #[default]
    Auto,
    /// By the cgroup freezer, version 2 or 1.
    Cgroup,
    /// By SIGSTOP and SIGCONT.
    Signal,
}

/// Why the driver could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The state directory can't be made or read.
    #[error("could not use the state directory {path:?}")]
    StateDirectory {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// [`Freezer::Cgroup`] was asked for.
    #[error("could not use a cgroup freezer: {tried}")]
    NoFreezer {
        /// What was tried, and what came of each.
        tried: String,
    },
    /// The kernel is too old, or `/proc` isn't mounted.
    #[error("could not watch processes, which takes Linux 5.3 with /proc mounted")]
    NoProcesses(#[source] io::Error),
    /// It has to be opened inside the runtime that will watch its processes.
    #[error("could not find a tokio runtime to watch processes in")]
    NoRuntime(#[source] tokio::runtime::TryCurrentError),
}

/// The process driver. Dropping it leaves every workspace as it is.
pub struct Process {
    supervisor: Arc<Supervisor>,
}

impl Process {
    /// Opens a state directory: finds a freezer, adopts the workspaces that run, and sees to it
    /// that what is left of others is killed. Reads files; call it inside a runtime, at start.
    pub fn open(options: Options) -> Result<Self, OpenError> {
        let in_directory =
            |source| OpenError::StateDirectory { path: options.state_dir.clone(), source };
        let runtime = Handle::try_current().map_err(OpenError::NoRuntime)?;
        rustix::process::pidfd_open(rustix::process::getpid(), PidfdFlags::empty())
            .map_err(|error| OpenError::NoProcesses(error.into()))?;
        let boot_id = proc_fs::boot_id().map_err(OpenError::NoProcesses)?;

        make_private_directory(&options.state_dir).map_err(in_directory)?;
        let state_dir = options.state_dir.canonicalize().map_err(in_directory)?;
        let hierarchy = choose_freezer(options.freezer, &state_dir)?;
        let options = Options { state_dir, ..options.clone() };
        let supervisor = Supervisor::new(options, hierarchy, boot_id, runtime);
        supervisor.adopt_all().map_err(in_directory)?;
        Ok(Self { supervisor })
    }

    /// How workspaces are paused, now that [`Freezer::Auto`] has been decided.
    pub fn freezer(&self) -> Freezer {
        if self.supervisor.uses_cgroups() { Freezer::Cgroup } else { Freezer::Signal }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.supervisor.let_go();
    }
}

/// Tries whether processes can be paused by the cgroup freezer here, and leaves nothing behind: where
/// it is, or what was tried and what came of each.
pub fn try_freezer(state_dir: &Path) -> Result<String, String> {
    let hierarchy = Hierarchy::detect(&key_of(state_dir))?;
    hierarchy.remove_if_empty();
    Ok(hierarchy.describe())
}

/// Keeps the Frostgates of one machine apart.
fn key_of(state_dir: &Path) -> String {
    let digest = Sha256::digest(state_dir.as_os_str().as_encoded_bytes());
    digest.iter().take(4).map(|byte| format!("{byte:02x}")).collect()
}

fn choose_freezer(wanted: Freezer, state_dir: &Path) -> Result<Option<Hierarchy>, OpenError> {
    if wanted == Freezer::Signal {
        return Ok(None);
    }
    match Hierarchy::detect(&key_of(state_dir)) {
        Ok(hierarchy) => Ok(Some(hierarchy)),
        Err(tried) if wanted == Freezer::Cgroup => Err(OpenError::NoFreezer { tried }),
        Err(tried) => {
            tracing::info!(tried, "no usable cgroup freezer: workspaces are paused by SIGSTOP");
            Ok(None)
        }
    }
}

impl Driver for Process {
    fn name(&self) -> &'static str {
        "process"
    }

    fn create<'a>(&'a self, blueprint: &'a Blueprint) -> Call<'a, ()> {
        Box::pin(async move {
            let id = &blueprint.id;
            if !matches!(blueprint.spec.runs, Runs::Command { .. }) {
                return Err(refused("create", id, NOT_A_COMMAND));
            }
            let workspace = self.supervisor.workspace(id);
            make_private_directory(&workspace.files()).map_err(|error| refused("create", id, error))
        })
    }

    fn start<'a>(&'a self, blueprint: &'a Blueprint) -> Call<'a, ()> {
        Box::pin(self.supervisor.start(blueprint))
    }

    fn stop<'a>(&'a self, id: &'a WorkspaceId, grace: Duration) -> Call<'a, ()> {
        Box::pin(async move {
            let Some(workspace) = self.supervisor.known(id) else {
                return Ok(());
            };
            let _turn = workspace.turn.lock().await;
            self.supervisor.stop(&workspace, "stop", grace).await
        })
    }

    fn pause<'a>(&'a self, id: &'a WorkspaceId) -> Call<'a, ()> {
        Box::pin(async move {
            let action = "pause";
            let (_turn, run) = self.supervisor.turn_of_running(action, id).await?;
            // Even if it seems to be paused: an earlier call may have been given up on half-way.
            let outcome = run.pause().await;
            outcome.map_err(|error| failed(action, id, FREEZE_LIMIT, error))
        })
    }

    fn unpause<'a>(&'a self, id: &'a WorkspaceId) -> Call<'a, ()> {
        Box::pin(async move {
            let action = "unpause";
            let (_turn, run) = self.supervisor.turn_of_running(action, id).await?;
            let outcome = run.unpause().await;
            outcome.map_err(|error| failed(action, id, FREEZE_LIMIT, error))
        })
    }

    fn remove<'a>(&'a self, id: &'a WorkspaceId) -> Call<'a, ()> {
        Box::pin(async move {
            let workspace = self.supervisor.workspace(id);
            let _turn = workspace.turn.lock().await;
            self.supervisor.stop(&workspace, "remove", REMOVE_GRACE).await?;
            let deleted = workspace.delete_directory().await;
            deleted.map_err(|error| refused("remove", id, error))?;
            self.supervisor.forget(id);
            Ok(())
        })
    }

    fn inspect<'a>(&'a self, id: &'a WorkspaceId) -> Call<'a, Sighting> {
        Box::pin(async move { Ok(self.supervisor.inspect(id)) })
    }

    fn consumption<'a>(&'a self, id: &'a WorkspaceId) -> Call<'a, Option<Consumption>> {
        Box::pin(async move {
            let Some(run) = self.supervisor.known(id).and_then(|known| known.run()) else {
                return Ok(None);
            };
            run.consumption().await.map_err(|error| refused("measure", id, error))
        })
    }

    fn logs<'a>(
        &'a self,
        id: &'a WorkspaceId,
        lines: usize,
        follow: bool,
    ) -> Call<'a, Option<Logs>> {
        Box::pin(async move {
            let path = self.supervisor.workspace(id).log();
            let log = log::read(path, lines, follow);
            let log = log.map_err(|error| refused("read the logs of", id, error))?;
            let nothing = || Box::pin(futures_util::stream::empty()) as Logs;
            Ok(Some(log.map_or_else(nothing, |log| Box::pin(log))))
        })
    }

    /// Processes come from the configuration only.
    fn list(&self) -> Call<'_, Vec<Found>> {
        Box::pin(async { Ok(Vec::new()) })
    }

    /// Returns as soon as the watch has begun; the ends of processes are told by their watchers.
    fn watch(&self, events: mpsc::Sender<DriverEvent>) -> Call<'_, ()> {
        Box::pin(async move {
            self.supervisor.report_to(events.clone());
            // Nobody listens any more: that ends the watch, and is no error.
            let _ = events.send(DriverEvent::Resync).await;
            Ok(())
        })
    }
}

/// The runtime answered, and refused.
fn refused(action: &'static str, id: &WorkspaceId, reason: impl ToString) -> DriverError {
    DriverError::Refused { action, id: id.clone(), reason: reason.to_string() }
}

/// Tells a deadline of ours from what the system said.
fn failed(
    action: &'static str,
    id: &WorkspaceId,
    limit: Duration,
    error: io::Error,
) -> DriverError {
    match error.kind() {
        io::ErrorKind::TimedOut => DriverError::TimedOut { action, id: id.clone(), limit },
        _ => refused(action, id, error),
    }
}
